/* unread.c -- ciphertext that arrived and is not decrypted yet.

   The front of it is the connection's own memory (`spill`): a part of a
   record, or what arrived while the application did not read.  The rest lies
   in the buffer that the socket was read into (`feed`), as long as that read
   goes on.  A connection that waits for nothing has neither. */
#include "tls/tls.h"

/* Room for `more` bytes behind what is in the spill. */
static int
unread_reserve(TLSObject *self, size_t more)
{
    fl_spill *spill = &self->spill;
    if (spill->at > 0) {
        memmove(spill->bytes, spill->bytes + spill->at, spill->len);
        spill->at = 0;
    }
    if (spill->len + more > spill->capacity) {
        char *bytes = PyMem_Realloc(spill->bytes, spill->len + more);
        if (bytes == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        spill->bytes = bytes;
        spill->capacity = spill->len + more;
    }
    return 0;
}

/* Moves the first n bytes of the feed behind the spill. */
static int
unread_move(TLSObject *self, size_t n)
{
    fl_spill *spill = &self->spill;
    if (spill->at + spill->len + n > spill->capacity
        && unread_reserve(self, n) < 0)
    {
        return -1;
    }
    memcpy(spill->bytes + spill->at + spill->len, self->feed, n);
    spill->len += n;
    self->feed += n;
    self->feed_left -= n;
    return 0;
}

int
fl_tls_unread_keep(TLSObject *self)
{
    return self->feed_left == 0 ? 0 : unread_move(self, self->feed_left);
}

int
fl_tls_unread_return(TLSObject *self, const char *bytes, size_t len)
{
    fl_spill *spill = &self->spill;
    if (unread_reserve(self, len) < 0) {
        return -1;
    }
    memmove(spill->bytes + len, spill->bytes, spill->len);
    memcpy(spill->bytes, bytes, len);
    spill->len += len;
    return 0;
}

int
fl_tls_unread_next(TLSObject *self, const char **bytes, size_t *len)
{
    fl_spill *spill = &self->spill;
    while (spill->len > 0) {
        *bytes = spill->bytes + spill->at;
        *len = fl_record_size((const unsigned char *)*bytes, spill->len);
        if (*len <= spill->len) {
            return 1;
        }
        size_t missing = *len - spill->len;
        if (missing > self->feed_left) {
            missing = self->feed_left;
        }
        if (missing == 0) {
            return 0;
        }
        /* Room for all of the record at once. */
        if (spill->at + *len > spill->capacity
            && unread_reserve(self, *len - spill->len) < 0)
        {
            return -1;
        }
        if (unread_move(self, missing) < 0) {
            return -1;
        }
    }
    *bytes = self->feed;
    *len = fl_record_size((const unsigned char *)self->feed, self->feed_left);
    return self->feed_left > 0 && *len <= self->feed_left;
}

void
fl_tls_unread_advance(TLSObject *self, size_t n)
{
    fl_spill *spill = &self->spill;
    if (spill->len == 0) {
        self->feed += n;
        self->feed_left -= n;
        return;
    }
    spill->at += n;
    spill->len -= n;
    if (spill->len == 0) {
        fl_tls_unread_clear(self);
    }
}

void
fl_tls_unread_clear(TLSObject *self)
{
    PyMem_Free(self->spill.bytes);
    self->spill = (fl_spill){NULL, 0, 0, 0};
}
