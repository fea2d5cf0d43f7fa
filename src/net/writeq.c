/* writeq.c -- the queue of bytes that wait to be written. */
#include "net/writeq.h"

void
fl_writeq_init(fl_writeq *queue)
{
    queue->pieces = queue->inline_pieces;
    queue->capacity = FL_WRITEQ_INLINE;
    queue->first = queue->count = 0;
    queue->sent = queue->size = 0;
}

/* An empty queue gives its memory back. */
static void
writeq_reset(fl_writeq *queue)
{
    if (queue->pieces != queue->inline_pieces) {
        PyMem_Free(queue->pieces);
    }
    fl_writeq_init(queue);
}

void
fl_writeq_clear(fl_writeq *queue)
{
    if (queue->pieces == NULL) {
        return;  /* never opened */
    }
    while (queue->count > 0) {
        queue->count--;
        Py_DECREF(queue->pieces[queue->first++]);
    }
    writeq_reset(queue);
}

/* Room for one piece more. */
static int
writeq_reserve(fl_writeq *queue)
{
    if (queue->first + queue->count < queue->capacity) {
        return 0;
    }
    PyObject **from = queue->pieces + queue->first;
    if (queue->first > queue->capacity / 2) {
        memmove(queue->pieces, from, queue->count * sizeof(*from));
        queue->first = 0;
        return 0;
    }
    if (queue->capacity > UINT32_MAX / 2) {
        PyErr_NoMemory();
        return -1;
    }
    size_t capacity = (size_t)queue->capacity * 2;
    PyObject **pieces = PyMem_New(PyObject *, capacity);
    if (pieces == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    memcpy(pieces, from, queue->count * sizeof(*from));
    if (queue->pieces != queue->inline_pieces) {
        PyMem_Free(queue->pieces);
    }
    queue->pieces = pieces;
    queue->capacity = (uint32_t)capacity;
    queue->first = 0;
    return 0;
}

/* Steals bytes, on failure too. */
static int
writeq_append(fl_writeq *queue, PyObject *bytes, size_t skip)
{
    if (writeq_reserve(queue) < 0) {
        Py_DECREF(bytes);
        return -1;
    }
    queue->pieces[queue->first + queue->count++] = bytes;
    queue->sent += skip;
    queue->size += (size_t)PyBytes_GET_SIZE(bytes) - skip;
    return 0;
}

int
fl_writeq_put(fl_writeq *queue, PyObject *bytes, size_t skip)
{
    return writeq_append(queue, Py_NewRef(bytes), skip);
}

int
fl_writeq_put_copy(fl_writeq *queue, const char *data, size_t len)
{
    PyObject *bytes = PyBytes_FromStringAndSize(data, (Py_ssize_t)len);
    return bytes == NULL ? -1 : writeq_append(queue, bytes, 0);
}

int
fl_writeq_peek(const fl_writeq *queue, struct iovec pieces[FL_WRITEQ_BATCH])
{
    int n = 0;
    size_t skip = queue->sent;
    for (uint32_t i = 0; i < queue->count && n < FL_WRITEQ_BATCH; i++) {
        PyObject *bytes = queue->pieces[queue->first + i];
        pieces[n].iov_base = PyBytes_AS_STRING(bytes) + skip;
        pieces[n].iov_len = (size_t)PyBytes_GET_SIZE(bytes) - skip;
        skip = 0;
        n++;
    }
    return n;
}

void
fl_writeq_advance(fl_writeq *queue, size_t n)
{
    queue->size -= n;
    n += queue->sent;
    while (queue->count > 0) {
        PyObject *bytes = queue->pieces[queue->first];
        size_t len = (size_t)PyBytes_GET_SIZE(bytes);
        if (n < len) {
            break;
        }
        n -= len;
        queue->first++;
        queue->count--;
        Py_DECREF(bytes);
    }
    queue->sent = n;
    if (queue->count == 0) {
        writeq_reset(queue);
    }
}
