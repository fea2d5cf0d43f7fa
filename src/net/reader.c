/* reader.c -- received data straight into an asyncio.StreamReader.

   StreamReaderProtocol.data_received and StreamReader.feed_data in C, for
   exactly these classes and unpatched: the bytes go from the read buffer into
   the reader's bytearray, and the waiting coroutine is woken.  Anything else,
   a subclass, a mock, a reader that is gone, takes the way through Python. */
#include "net/reader.h"

#include <sys/ioctl.h>

#include "net/readbuf.h"
#include "os/sockcall.h"
#include "task/future.h"

/* Whether op.name is `function`, bound to op: neither its class nor op itself
   has another. */
static int
reader_has_method(PyObject *op, PyObject *name, PyObject *function)
{
    PyObject *method = PyObject_GetAttr(op, name);
    if (method == NULL) {
        return -1;
    }
    int same = PyMethod_Check(method)
               && PyMethod_GET_FUNCTION(method) == function;
    Py_DECREF(method);
    return same;
}

/* The StreamReader of the protocol, if both are asyncio's own.  New
   reference; NULL without an exception: they are not. */
static PyObject *
reader_find(fl_state *state, PyObject *protocol)
{
    if (reader_has_method(protocol, state->str_data_received,
                          state->stream_data_received)
        <= 0)
    {
        return NULL;
    }
    PyObject *weakref =
        PyObject_GetAttr(protocol, state->str__stream_reader_wr);
    if (weakref == NULL) {
        return NULL;
    }
    PyObject *reader =
        PyWeakref_CheckRefExact(weakref) ? fl_weakref_target(weakref) : NULL;
    Py_DECREF(weakref);
    if (reader == NULL) {
        return NULL;
    }
    if ((PyObject *)Py_TYPE(reader) != state->StreamReader
        || reader_has_method(reader, state->str_feed_data,
                             state->stream_feed_data)
               <= 0)
    {
        Py_CLEAR(reader);
    }
    return reader;
}

/* The reader's bytearray.  New reference; NULL without an exception: it is
   none, or the end was fed already. */
static PyObject *
reader_buffer(fl_state *state, PyObject *reader)
{
    PyObject *eof = PyObject_GetAttr(reader, state->str__eof);
    PyObject *buf =
        eof == NULL ? NULL : PyObject_GetAttr(reader, state->str__buffer);
    if (buf != NULL && (eof != Py_False || !PyByteArray_CheckExact(buf))) {
        Py_CLEAR(buf);
    }
    Py_XDECREF(eof);
    return buf;
}

/* Appends to the reader's buffer.  The new length, 0: it cannot be done here;
   -1: an exception. */
static Py_ssize_t
reader_append(fl_state *state, PyObject *reader, const char *bytes,
              size_t len)
{
    PyObject *buf = reader_buffer(state, reader);
    if (buf == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    Py_ssize_t size = PyByteArray_GET_SIZE(buf);
    if (PyByteArray_Resize(buf, size + (Py_ssize_t)len) < 0) {
        size = -1;
    }
    else {
        memcpy(PyByteArray_AS_STRING(buf) + size, bytes, len);
        size += (Py_ssize_t)len;
    }
    Py_DECREF(buf);
    return size;
}

/* Receives what is there behind what buf has.  How many bytes; 0: none, and
   buf is as before. */
static ssize_t
reader_receive_into(PyObject *buf, int fd)
{
    int there = 0;
    if (ioctl(fd, FIONREAD, &there) < 0 || there <= 0) {
        return 0;
    }
    if (there > FL_READBUF_LARGEST) {
        there = FL_READBUF_LARGEST;
    }
    Py_ssize_t size = PyByteArray_GET_SIZE(buf);
    if (PyByteArray_Resize(buf, size + there) < 0) {
        PyErr_Clear();  /* somebody has a view of it */
        return 0;
    }
    ssize_t n =
        fl_sys_recv(fd, PyByteArray_AS_STRING(buf) + size, (size_t)there);
    if (n < there && PyByteArray_Resize(buf, size + (n > 0 ? n : 0)) < 0) {
        return -1;
    }
    return n > 0 ? n : 0;
}

/* _wakeup_waiter */
static int
reader_wake(fl_state *state, PyObject *reader)
{
    PyObject *waiter = PyObject_GetAttr(reader, state->str__waiter);
    if (waiter == NULL || waiter == Py_None) {
        Py_XDECREF(waiter);
        return waiter == NULL ? -1 : 0;
    }
    int rc = PyObject_SetAttr(reader, state->str__waiter, Py_None);
    if (rc == 0 && state->layout_ok && fl_is_exact_future(state, waiter)) {
        FutureObject *fut = (FutureObject *)waiter;
        if (fut->state != FL_CANCELLED) {
            rc = fl_future_set_result(state, fut, Py_None);
        }
    }
    else if (rc == 0) {
        PyObject *result = PyObject_CallFunctionObjArgs(
            state->set_result_unless_cancelled, waiter, Py_None, NULL);
        rc = result == NULL ? -1 : 0;
        Py_XDECREF(result);
    }
    Py_DECREF(waiter);
    return rc;
}

/* Whether the buffer is more than twice the limit. */
static int
reader_is_too_full(fl_state *state, PyObject *reader, Py_ssize_t size)
{
    PyObject *limit = PyObject_GetAttr(reader, state->str__limit);
    if (limit == NULL) {
        return -1;
    }
    int full;
    Py_ssize_t most = PyLong_CheckExact(limit) ? PyLong_AsSsize_t(limit) : -1;
    if (FL_LIKELY(most >= 0 && most <= PY_SSIZE_T_MAX / 2)) {
        full = size > 2 * most;
    }
    else {
        PyErr_Clear();
        PyObject *two = PyLong_FromLong(2);
        PyObject *bound = two == NULL ? NULL : PyNumber_Multiply(two, limit);
        PyObject *length = PyLong_FromSsize_t(size);
        full = bound == NULL || length == NULL
                   ? -1
                   : PyObject_RichCompareBool(length, bound, Py_GT);
        Py_XDECREF(two);
        Py_XDECREF(bound);
        Py_XDECREF(length);
    }
    Py_DECREF(limit);
    return full;
}

/* The end of feed_data: a reader that cannot keep up pauses its transport. */
static int
reader_pause(fl_state *state, PyObject *reader, Py_ssize_t size)
{
    int full = reader_is_too_full(state, reader, size);
    if (FL_LIKELY(full <= 0)) {
        return full;
    }
    PyObject *paused = PyObject_GetAttr(reader, state->str__paused);
    PyObject *transport =
        paused == NULL ? NULL : PyObject_GetAttr(reader, state->str__transport);
    int is_paused = transport == NULL ? -1 : PyObject_IsTrue(paused);
    int rc = is_paused < 0 ? -1 : 0;
    if (is_paused == 0 && transport != Py_None) {
        PyObject *result = PyObject_CallMethodNoArgs(
            transport, state->str_pause_reading);
        if (result != NULL) {
            Py_DECREF(result);
            rc = PyObject_SetAttr(reader, state->str__paused, Py_True);
        }
        else if (PyErr_ExceptionMatches(PyExc_NotImplementedError)) {
            PyErr_Clear();
            rc = PyObject_SetAttr(reader, state->str__transport, Py_None);
        }
        else {
            rc = -1;
        }
    }
    Py_XDECREF(paused);
    Py_XDECREF(transport);
    return rc;
}

int
fl_reader_feed(fl_state *state, PyObject *protocol, const char *bytes,
               size_t len)
{
    Py_INCREF(protocol);
    PyObject *reader = reader_find(state, protocol);
    Py_DECREF(protocol);
    if (reader == NULL) {
        PyErr_Clear();  /* let Python find out */
        return 0;
    }
    Py_ssize_t size = reader_append(state, reader, bytes, len);
    int rc = size <= 0 ? (int)size
             : reader_wake(state, reader) < 0
                     || reader_pause(state, reader, size) < 0
                 ? -1
                 : 1;
    Py_DECREF(reader);
    return rc;
}

ssize_t
fl_reader_receive(fl_state *state, PyObject *protocol, int fd)
{
    Py_INCREF(protocol);
    PyObject *reader = reader_find(state, protocol);
    Py_DECREF(protocol);
    PyObject *buf = reader == NULL ? NULL : reader_buffer(state, reader);
    ssize_t n = 0;
    if (buf == NULL) {
        PyErr_Clear();
    }
    else {
        n = reader_receive_into(buf, fd);
        if (n > 0
            && (reader_wake(state, reader) < 0
                || reader_pause(state, reader, PyByteArray_GET_SIZE(buf)) < 0))
        {
            n = -1;
        }
    }
    Py_XDECREF(buf);
    Py_XDECREF(reader);
    return n;
}

int
fl_reader_setup(fl_state *state)
{
    state->stream_data_received = PyObject_GetAttr(
        state->StreamReaderProtocol, state->str_data_received);
    state->stream_feed_data =
        PyObject_GetAttr(state->StreamReader, state->str_feed_data);
    return state->stream_data_received == NULL
                   || state->stream_feed_data == NULL
               ? -1
               : 0;
}
