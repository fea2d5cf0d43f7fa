/* read.c -- ciphertext in, plaintext out. */
#include "tls/tls.h"

#include "net/deliver.h"

static const char tls_failed[] = "Fatal error on SSL protocol";

static inline bool
tls_may_read(const TLSObject *self)
{
    return (self->phase == FL_TLS_WRAPPED || self->phase == FL_TLS_FLUSHING)
           && !self->base.paused && self->base.protocol != NULL;
}

/* 1: there is something to decrypt.  0: there is not. */
static int
tls_has_record(TLSObject *self)
{
    const char *bytes;
    size_t len;
    return self->rest ? 1 : fl_tls_unread_next(self, &bytes, &len);
}

/* A record, or what was left of one. */
static ssize_t
tls_decrypt_once(TLSObject *self, char *space, size_t size)
{
    int there = self->rest ? 1 : fl_tls_engine_feed(self);
    if (there <= 0) {
        return there < 0 ? -1 : FL_TLS_LATER;
    }
    ssize_t n = fl_tls_engine_read(self, space, size);
    self->rest = n == (ssize_t)size;
    if (n == 0) {
        self->peer_closed = true;
    }
    return n;
}

/* Decrypts until space is full or nothing is left, or the peer has closed.
   How many bytes; -1 with an exception if there were none before it, else
   that is put into *failure.  Runs Python. */
static ssize_t
tls_decrypt(TLSObject *self, char *space, size_t size, PyObject **failure)
{
    size_t at = 0;
    ssize_t n = fl_tls_engine_begin(self);
    while (n != -1 && at < size && !self->peer_closed) {
        int there = tls_has_record(self);
        if (there == 0) {
            break;
        }
        n = there < 0 ? -1 : tls_decrypt_once(self, space + at, size - at);
        at += n > 0 ? (size_t)n : 0;
    }
    /* What OpenSSL answers waits until all this is delivered: a transport below
       may bring more before its write() returns. */
    if (n == -1 ? fl_tls_settle(self, n) == -1 : fl_tls_seal(self) < 0) {
        if (at == 0) {
            return -1;
        }
        *failure = fl_take_raised();
    }
    return (ssize_t)at;
}

/* What was read goes to the protocol, or does not.  A failure behind it is
   raised once it is delivered. */
static int
tls_hand_over(TLSObject *self, fl_readbuf_habit *habit, fl_loan *loan,
              size_t n)
{
    if (self->base.protocol != NULL
        && fl_deliver(&self->base, habit, loan, n) < 0)
    {
        return -1;
    }
    return fl_readbuf_has_failed(loan) ? -1 : 0;
}

/* _do_read__copied */
static int
tls_read_data(TLSObject *self)
{
    fl_state *state = fl_tls_state(self);
    bool more = true;
    int rc = 0;
    while (rc == 0 && more && tls_may_read(self) && !self->peer_closed) {
        if (self->base.read_mode == FL_READ_BUFFERED) {
            return fl_tls_put_off(self);  /* another protocol */
        }
        rc = tls_has_record(self);
        if (rc <= 0) {
            break;
        }
        size_t most = self->rest ? FL_TLS_PLAINTEXT : fl_tls_unread_size(self);
        fl_readbuf_habit habit = fl_readbuf_habit_for(
            most < FL_TLS_PLAINTEXT ? most : FL_TLS_PLAINTEXT);
        habit.keeps = self->base.habit.keeps;
        fl_loan loan;
        if (fl_readbuf_take(state, &habit, &loan) < 0) {
            return -1;
        }
        size_t size = fl_readbuf_size(&loan);
        ssize_t n = tls_decrypt(self, fl_readbuf_space(&loan), size,
                                &loan.failure);
        more = n == (ssize_t)size;
        rc = n > 0   ? tls_hand_over(self, &habit, &loan, (size_t)n)
             : n < 0 ? -1
                     : 0;
        PyObject *raised = rc < 0 ? fl_take_raised() : NULL;
        fl_readbuf_done(state, &habit, &loan);
        self->base.habit.keeps = habit.keeps;
        if (raised != NULL) {
            fl_put_raised(raised);
        }
    }
    return rc;
}

/* sslobj.read() into the protocol's buffer, as far as that goes. */
static ssize_t
tls_decrypt_into(TLSObject *self, PyObject *buf, bool *full,
                 PyObject **failure)
{
    Py_buffer view;
    if (PyObject_GetBuffer(buf, &view, PyBUF_WRITABLE) < 0) {
        return -1;
    }
    ssize_t n = -1;
    if (!PyBuffer_IsContiguous(&view, 'C')) {
        PyErr_SetString(PyExc_BufferError,
                        "get_buffer() returned a buffer that is not "
                        "contiguous");
    }
    else {
        n = tls_decrypt(self, view.buf, (size_t)view.len, failure);
        *full = n == view.len;
    }
    PyObject *raised = fl_take_raised();
    PyBuffer_Release(&view);  /* Runs Python: __release_buffer__. */
    if (raised != NULL) {
        fl_put_raised(raised);
    }
    return n;
}

/* buffer_updated(n) of the protocol that gave the buffer, or of the one that
   took its place, if that has such a method. */
static int
tls_tell_updated(TLSObject *self, PyObject *asked, ssize_t n)
{
    if (self->base.protocol == NULL || self->base.protocol == asked
        || self->base.read_mode == FL_READ_BUFFERED)
    {
        return self->base.protocol == NULL
                   ? 0
                   : fl_deliver_updated(&self->base, n);
    }
    PyObject *result = PyObject_CallMethod(asked, "buffer_updated", "n", n);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static int
tls_read_into(TLSObject *self, PyObject *asked)
{
    PyObject *buf = fl_deliver_get_buffer(
        &self->base, (Py_ssize_t)fl_tls_unread_size(self));
    if (buf == NULL) {
        return -1;
    }
    if (self->phase != FL_TLS_WRAPPED && self->phase != FL_TLS_FLUSHING) {
        Py_DECREF(buf);
        return 0;
    }
    PyObject *failure = NULL;
    bool full = false;
    ssize_t n = tls_decrypt_into(self, buf, &full, &failure);
    Py_DECREF(buf);
    int rc = n > 0 ? tls_tell_updated(self, asked, n) : (int)n;
    if (failure != NULL) {
        if (rc == 0) {
            fl_put_raised(failure);
            return -1;
        }
        Py_DECREF(failure);
    }
    return rc == 0 && full ? fl_tls_put_off(self) : rc;
}

/* _do_read__buffered: one buffer, and another one in the next turn. */
static int
tls_read_buffered(TLSObject *self)
{
    PyObject *asked = Py_XNewRef(self->base.protocol);
    int rc = asked == NULL ? 0 : tls_read_into(self, asked);
    Py_XDECREF(asked);
    return rc;
}

/* The part of _do_read that asyncio wraps up in a try. */
static int
tls_read(TLSObject *self)
{
    if (!self->base.paused) {
        int rc = self->base.read_mode == FL_READ_BUFFERED
                     ? tls_read_buffered(self)
                     : tls_read_data(self);
        if (rc == 0 && self->peer_closed) {
            rc = fl_tls_tell_eof(self);
            if (rc == 0) {
                rc = fl_tls_start_shutdown(self);
            }
        }
        if (rc == 0 && !self->base.held
            && !fl_writeq_is_empty(&self->base.queue))
        {
            rc = fl_tls_encrypt(self);
        }
        if (rc < 0 || fl_tls_send_sealed(self) < 0) {
            return -1;
        }
    }
    return fl_tls_control_reading(self);
}

int
fl_tls_do_read(TLSObject *self)
{
    if (self->phase != FL_TLS_WRAPPED && self->phase != FL_TLS_FLUSHING) {
        return 0;
    }
    if (fl_tls_is_busy(self)) {
        return fl_tls_put_off(self);
    }
    return tls_read(self) < 0 ? fl_tls_fatal(self, tls_failed) : 0;
}

int
fl_tls_is_behind(TLSObject *self)
{
    if (!self->eof || self->base.closing || self->peer_closed) {
        return 0;
    }
    return self->base.paused || self->put_off ? tls_has_record(self) : 0;
}

/* --- Going on -------------------------------------------------------------*/

int
fl_tls_go_on(TLSObject *self)
{
    switch (self->phase) {
    case FL_TLS_HANDSHAKE:
        return fl_tls_do_handshake(self);
    case FL_TLS_WRAPPED:
        return fl_tls_do_read(self);
    case FL_TLS_FLUSHING:
        return fl_tls_do_flush(self);
    case FL_TLS_SHUTDOWN:
        return fl_tls_do_shutdown(self);
    default:
        return 0;
    }
}

int
fl_tls_put_off(TLSObject *self)
{
    if (self->put_off) {
        return 0;
    }
    self->put_off = true;
    int rc = fl_transport_call_own_soon(
        &self->base, fl_tls_state(self)->str__go_on, NULL);
    if (rc < 0) {
        self->put_off = false;
    }
    return rc;
}

int
fl_tls_receive(fl_state *Py_UNUSED(state), PyObject *op, const char *bytes,
               size_t len)
{
    TLSObject *self = (TLSObject *)op;
    /* A transport below that calls again before we are done: in order. */
    if (fl_tls_unread_keep(self) < 0) {
        return -1;
    }
    if (self->phase == FL_TLS_UNWRAPPED
        && (self->lower != NULL || self->base.protocol == NULL))
    {
        return 0;
    }
    self->feed = bytes;
    self->feed_left = len;
    int rc = fl_tls_go_on(self);
    /* What was not read, because it is a part of a record or the application
       paused, is kept: the memory is the caller's. */
    if (FL_UNLIKELY(self->feed_left > 0)) {
        PyObject *raised = fl_take_raised();
        if (fl_tls_unread_keep(self) < 0) {
            self->feed_left = 0;
            rc = -1;
        }
        if (raised != NULL) {
            PyErr_Clear();
            fl_put_raised(raised);
        }
        else if (rc == 0) {
            rc = fl_tls_control_reading(self);
        }
    }
    self->feed = NULL;
    return rc;
}

/* _control_ssl_reading: a peer that sends what nobody reads has to wait. */
int
fl_tls_control_reading(TLSObject *self)
{
    Py_ssize_t size = (Py_ssize_t)fl_tls_unread_size(self);
    fl_state *state = fl_tls_state(self);
    if (size > 0 && !self->base.paused) {
        /* A part of a record does not count, for it waits for its rest. */
        const char *bytes;
        size_t len;
        int there = fl_tls_unread_next(self, &bytes, &len);
        if (there < 0) {
            return -1;
        }
        size = there == 0 ? 0 : size;
    }
    if (size >= self->read_high && !self->lower_paused) {
        self->lower_paused = true;
        return fl_tls_tell_lower(self, state->str_pause_reading, NULL);
    }
    if (size <= self->read_low && self->lower_paused) {
        self->lower_paused = false;
        return fl_tls_tell_lower(self, state->str_resume_reading, NULL);
    }
    return 0;
}
