/* socket_write.c -- SocketTransport: writing.

   What is written in a turn of the loop is held back until the turn ends, the
   first write included, so that a header and its body, or the commands of a
   hundred tasks on one connection, leave in one system call.  Written at once
   is what is large, what comes while the loop does not run, and everything if
   the user set a high-water mark below it.  Until then the data does not count
   as buffered: asyncio would have sent it. */
#include "net/socket.h"

#include <errno.h>

#include "base/args.h"
#include "os/sockcall.h"

/* Several small pieces are copied together: one buffer is cheaper for the
   kernel than a list of them. */
#define SOCKET_JOIN_BYTES 4096

static const char socket_write_failed[] =
    "Fatal write error on socket transport";
static const char socket_write_ignored[] = "socket.send() raised exception.";

/* --- Sending --------------------------------------------------------------*/

/* One system call for the front of the queue. */
static ssize_t
socket_send_once(TransportObject *self)
{
    struct iovec pieces[FL_WRITEQ_BATCH];
    int count = fl_writeq_peek(&self->queue, pieces);
    if (count == 1) {
        return fl_sys_send(self->fd, pieces[0].iov_base, pieces[0].iov_len);
    }
    if (self->queue.size <= SOCKET_JOIN_BYTES) {
        char joined[SOCKET_JOIN_BYTES];
        size_t len = 0;
        for (int i = 0; i < count; i++) {
            memcpy(joined + len, pieces[i].iov_base, pieces[i].iov_len);
            len += pieces[i].iov_len;
        }
        return fl_sys_send(self->fd, joined, len);
    }
    return fl_sys_send_pieces(self->fd, pieces, count);
}

/* Sends as much of the queue as the kernel takes. */
static int
socket_send_queue(TransportObject *self)
{
    if (!fl_transport_alive(self)) {
        fl_raise_errno(-EBADF);
        return -1;
    }
    while (!fl_writeq_is_empty(&self->queue)) {
        ssize_t n = socket_send_once(self);
        if (n < 0) {
            if (fl_sys_must_wait(errno)) {
                return 0;
            }
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        fl_writeq_advance(&self->queue, (size_t)n);
    }
    return 0;
}

/* What is left waits for the poller, and counts as buffered. */
static int
socket_wait_for_room(TransportObject *self)
{
    if (fl_writeq_is_empty(&self->queue) || self->loop == NULL) {
        return 0;
    }
    if (fl_transport_start_writing(self) < 0) {
        return -1;
    }
    return fl_transport_maybe_pause(self, self->queue.size);
}

int
fl_socket_flush(LoopObject *Py_UNUSED(loop), PyObject *op)
{
    TransportObject *self = (TransportObject *)op;
    /* Nobody called: what goes wrong is reported. */
    return fl_socket_flush_held(self) < 0
               ? fl_transport_report(self, "_write_ready")
               : 0;
}

int
fl_socket_flush_held(TransportObject *self)
{
    if (!self->held) {
        return 0;
    }
    self->held = false;
    if (self->lost > 0 || self->loop == NULL) {
        return 0;
    }
    PyObject *raised = fl_take_raised();
    int rc = socket_send_queue(self);
    if (rc < 0) {
        fl_writeq_clear(&self->queue);
        rc = fl_transport_fatal(self, socket_write_failed);
    }
    else {
        rc = socket_wait_for_room(self);
    }
    if (raised != NULL) {
        PyErr_Clear();
        fl_put_raised(raised);
        rc = 0;
    }
    return rc;
}

/* --- The poller says that there is room -----------------------------------*/

/* The future that sendfile waits on, if there is one, gets a result or an
   exception.  Runs Python: nothing but an odd Future's own code. */
static int
socket_wake_empty_waiter(TransportObject *self, PyObject *exc)
{
    PyObject *waiter = Py_XNewRef(self->empty_waiter);
    if (waiter == NULL) {
        return 0;
    }
    PyObject *result =
        exc == NULL ? PyObject_CallMethod(waiter, "set_result", "O", Py_None)
                    : PyObject_CallMethod(waiter, "set_exception", "O", exc);
    Py_DECREF(waiter);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Everything is sent: whoever waited for that goes on. */
static int
socket_is_drained(TransportObject *self)
{
    fl_transport_stop_writing(self);
    if (socket_wake_empty_waiter(self, NULL) < 0) {
        return -1;
    }
    if (self->closing && self->lost == 0) {
        self->lost++;
        PyObject *result = PyObject_CallMethodOneArg(
            (PyObject *)self, fl_transport_state(self)->str__call_connection_lost,
            Py_None);
        Py_XDECREF(result);
        return result == NULL ? -1 : 0;
    }
    return self->eof && self->loop != NULL ? fl_socket_shutdown(self) : 0;
}

int
fl_socket_write_ready(TransportObject *self)
{
    if (self->lost > 0 || self->loop == NULL) {
        return 0;
    }
    if (socket_send_queue(self) < 0) {
        PyObject *exc = fl_take_raised();
        fl_transport_stop_writing(self);
        fl_writeq_clear(&self->queue);
        fl_put_raised(Py_NewRef(exc));
        int rc = fl_transport_fatal(self, socket_write_failed);
        if (rc == 0) {
            rc = socket_wake_empty_waiter(self, exc);
        }
        Py_DECREF(exc);
        return rc;
    }
    /* Runs Python: the protocol may write, or close. */
    if (fl_transport_maybe_resume(self, self->queue.size) < 0
        || fl_socket_flush_held(self) < 0)
    {
        return -1;
    }
    if (fl_writeq_is_empty(&self->queue) && self->loop != NULL) {
        return socket_is_drained(self);
    }
    return 0;
}

/* --- Writing --------------------------------------------------------------*/

/* The queue, to which something was added, is empty otherwise or held. */
static int
socket_hold_or_send(TransportObject *self)
{
    if (self->held) {
        return fl_transport_may_hold(self, 0) ? 0 : fl_socket_flush_held(self);
    }
    self->held = true;
    if (fl_transport_may_hold(self, 0)) {
        if (FL_LIKELY(fl_hold((LoopObject *)self->loop, (PyObject *)self)
                      == 0))
        {
            return 0;
        }
        PyErr_Clear();  /* no memory for the list: now, then */
    }
    return fl_socket_flush_held(self);
}

static int
socket_put(TransportObject *self, PyObject *data, const char *bytes,
           size_t len, size_t skip)
{
    return PyBytes_CheckExact(data)
               ? fl_writeq_put(&self->queue, data, skip)
               : fl_writeq_put_copy(&self->queue, bytes + skip, len - skip);
}

/* Data that is too much to be held, with nothing before it: straight from the
   user's memory, and only the rest is kept. */
static int
socket_write_through(TransportObject *self, PyObject *data, const char *bytes,
                     size_t len)
{
    if (!fl_transport_alive(self)) {
        fl_raise_errno(-EBADF);
        return fl_transport_fatal(self, socket_write_failed);
    }
    ssize_t n = fl_sys_send(self->fd, bytes, len);
    if (n < 0) {
        if (!fl_sys_must_wait(errno)) {
            PyErr_SetFromErrno(PyExc_OSError);
            return fl_transport_fatal(self, socket_write_failed);
        }
        n = 0;
    }
    if ((size_t)n == len) {
        return 0;
    }
    if (socket_put(self, data, bytes, len, (size_t)n) < 0) {
        /* A part of it was sent: nothing may follow that. */
        return n > 0 ? fl_transport_fatal(self, socket_write_failed) : -1;
    }
    return socket_wait_for_room(self);
}

static int
socket_write_buffer(TransportObject *self, PyObject *data, const char *bytes,
                    size_t len)
{
    bool waiting = !fl_writeq_is_empty(&self->queue) && !self->held;
    if (!waiting && !self->held
        && (len >= FL_HOLD_FIRST || !fl_transport_may_hold(self, len)))
    {
        return socket_write_through(self, data, bytes, len);
    }
    if (socket_put(self, data, bytes, len, 0) < 0) {
        return -1;
    }
    return waiting ? fl_transport_maybe_pause(self, self->queue.size)
                   : socket_hold_or_send(self);
}

int
fl_socket_send(TransportObject *self, PyObject *bytes)
{
    if (self->lost > 0 || self->loop == NULL) {
        return fl_transport_write_lost(self, socket_write_ignored);
    }
    if (!self->held && fl_writeq_is_empty(&self->queue)) {
        return socket_write_through(self, bytes, PyBytes_AS_STRING(bytes),
                                    (size_t)PyBytes_GET_SIZE(bytes));
    }
    if (fl_writeq_put(&self->queue, bytes, 0) < 0) {
        return -1;
    }
    return self->held ? fl_socket_flush_held(self)
                      : fl_transport_maybe_pause(self, self->queue.size);
}

/* asyncio words the refusal; its first statement is the check. */
static int
socket_refuse_data(TransportObject *self, PyObject *data)
{
    PyObject *type = PyObject_GetAttrString(
        fl_transport_state(self)->selector_events, "_SelectorSocketTransport");
    PyObject *result =
        type == NULL
            ? NULL
            : PyObject_CallMethod(type, "write", "OO", self, data);
    Py_XDECREF(type);
    if (result != NULL) {
        Py_DECREF(result);
        PyErr_SetString(PyExc_TypeError,
                        "data argument must be a bytes-like object");
    }
    return -1;
}

/* The checks that write and writelines begin with. */
static int
socket_check_open(TransportObject *self, const char *name,
                  const char *name_in_sendfile)
{
    if (self->eof) {
        PyErr_Format(PyExc_RuntimeError,
                     "Cannot call %s() after write_eof()", name);
        return -1;
    }
    if (self->empty_waiter != NULL) {
        PyErr_Format(PyExc_RuntimeError,
                     "unable to %s; sendfile is in progress",
                     name_in_sendfile);
        return -1;
    }
    return 0;
}

static int
socket_write(TransportObject *self, PyObject *data)
{
    if (FL_UNLIKELY(!fl_is_data(data))) {
        return socket_refuse_data(self, data);
    }
    if (FL_UNLIKELY(socket_check_open(self, "write", "write") < 0)) {
        return -1;
    }
    int any = PyBytes_Check(data) ? PyBytes_GET_SIZE(data) > 0
                                  : PyObject_IsTrue(data);
    if (any <= 0) {
        return any;
    }
    if (FL_UNLIKELY(self->lost > 0 || self->loop == NULL)) {
        return fl_transport_write_lost(self, socket_write_ignored);
    }
    if (FL_LIKELY(PyBytes_Check(data))) {
        return socket_write_buffer(self, data, PyBytes_AS_STRING(data),
                                   (size_t)PyBytes_GET_SIZE(data));
    }
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return fl_transport_fatal(self, socket_write_failed);
    }
    /* Runs Python above: __buffer__. */
    int rc = self->lost > 0 || self->loop == NULL
                 ? fl_transport_write_lost(self, socket_write_ignored)
                 : socket_write_buffer(self, data, view.buf,
                                       (size_t)view.len);
    PyBuffer_Release(&view);
    return rc;
}

PyObject *
fl_socket_py_write(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                   PyObject *names)
{
    PyObject *data = fl_one_argument("write", "data", args, nargs, names);
    if (FL_UNLIKELY(data == NULL || socket_write((TransportObject *)op, data) < 0)) {
        return NULL;
    }
    Py_RETURN_NONE;
}

#if FL_PY312
/* One piece as bytes; what is false counts as empty from 3.14 on. */
static PyObject *
socket_copy_piece(PyObject *data)
{
#if FL_PY314
    int any = PyObject_IsTrue(data);
    if (any <= 0) {
        return any < 0 ? NULL : PyBytes_FromStringAndSize(NULL, 0);
    }
#endif
    PyObject *view = PyMemoryView_FromObject(data);  // asyncio's own check
    PyObject *bytes = view == NULL ? NULL : PyBytes_FromObject(view);
    Py_XDECREF(view);
    return bytes;
}

/* The pieces as bytes objects, without the empty ones.  Runs Python: their
   __bool__ and __buffer__. */
static PyObject *
socket_collect(PyObject *list)
{
    PyObject *pieces = PyList_New(0);
    for (Py_ssize_t i = 0; pieces != NULL && i < PyList_GET_SIZE(list); i++) {
        PyObject *data = Py_NewRef(PyList_GET_ITEM(list, i));
        PyObject *bytes = PyBytes_CheckExact(data)
                              ? Py_NewRef(data)
                              : socket_copy_piece(data);
        Py_DECREF(data);
        int rc = bytes == NULL                        ? -1
                 : PyBytes_GET_SIZE(bytes) == 0       ? 0
                                                      : PyList_Append(pieces, bytes);
        Py_XDECREF(bytes);
        if (rc < 0) {
            Py_CLEAR(pieces);
        }
    }
    return pieces;
}

static int
socket_writelines(TransportObject *self, PyObject *list)
{
    PyObject *pieces = socket_collect(list);
    if (pieces == NULL) {
        return -1;
    }
    int rc = 0;
    if (self->lost > 0 || self->loop == NULL) {
        rc = fl_transport_write_lost(self, socket_write_ignored);
        Py_DECREF(pieces);
        return rc;
    }
    bool waiting = !fl_writeq_is_empty(&self->queue) && !self->held;
    for (Py_ssize_t i = 0; rc == 0 && i < PyList_GET_SIZE(pieces); i++) {
        rc = fl_writeq_put(&self->queue, PyList_GET_ITEM(pieces, i), 0);
    }
    if (rc < 0) {
        /* A part of it must not be sent. */
        rc = fl_transport_fatal(self, socket_write_failed);
    }
    else if (PyList_GET_SIZE(pieces) > 0) {
        rc = waiting ? fl_transport_maybe_pause(self, self->queue.size)
                     : socket_hold_or_send(self);
    }
    Py_DECREF(pieces);
    return rc;
}
#endif

PyObject *
fl_socket_py_writelines(PyObject *op, PyObject *const *args,
                        Py_ssize_t nargs, PyObject *names)
{
    TransportObject *self = (TransportObject *)op;
    PyObject *list =
        fl_one_argument("writelines", "list_of_data", args, nargs, names);
    if (list == NULL) {
        return NULL;
    }
#if FL_PY312
    int any = socket_check_open(self, "writelines", "writelines") < 0
                  ? -1
                  : PyObject_IsTrue(list);
    if (any <= 0) {
        return any < 0 ? NULL : Py_NewRef(Py_None);
    }
    PyObject *items = PySequence_List(list);
    int rc = items == NULL ? -1 : socket_writelines(self, items);
    Py_XDECREF(items);
#else
    /* asyncio joins them, and write() does the rest. */
    PyObject *empty = PyBytes_FromStringAndSize(NULL, 0);
    PyObject *joined =
        empty == NULL ? NULL : PyObject_CallMethod(empty, "join", "(O)", list);
    int rc = joined == NULL ? -1 : socket_write(self, joined);
    Py_XDECREF(empty);
    Py_XDECREF(joined);
#endif
    if (rc < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* --- The end of writing ---------------------------------------------------*/

int
fl_socket_shutdown(TransportObject *self)
{
    if (!fl_transport_alive(self)) {
        fl_raise_errno(-EBADF);
        return -1;
    }
    if (shutdown(self->fd, SHUT_WR) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

PyObject *
fl_socket_py_write_eof(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    TransportObject *self = (TransportObject *)op;
    if (self->closing || self->eof) {
        Py_RETURN_NONE;
    }
    self->eof = true;
    if (fl_socket_flush_held(self) < 0) {
        return NULL;
    }
    if (!self->closing && fl_writeq_is_empty(&self->queue)
        && fl_socket_shutdown(self) < 0)
    {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* --- sendfile -------------------------------------------------------------*/

static PyObject *
socket_new_waiter(TransportObject *self)
{
    PyObject *waiter = PyObject_CallMethodNoArgs(
        self->loop == NULL ? Py_None : self->loop,
        fl_transport_state(self)->str_create_future);
    if (waiter != NULL) {
        Py_XSETREF(self->empty_waiter, Py_NewRef(waiter));
    }
    return waiter;
}

PyObject *
fl_socket_py_make_empty_waiter(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    TransportObject *self = (TransportObject *)op;
    if (self->empty_waiter != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Empty waiter is already set");
        return NULL;
    }
    if (fl_socket_flush_held(self) < 0) {
        return NULL;
    }
    PyObject *waiter = socket_new_waiter(self);
    if (waiter != NULL && fl_writeq_is_empty(&self->queue)
        && socket_wake_empty_waiter(self, NULL) < 0)
    {
        Py_CLEAR(waiter);
    }
    return waiter;
}

/* In the place of the empty waiter, which is done: the connection's loss ends
   it. */
PyObject *
fl_socket_py_make_loss_waiter(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    TransportObject *self = (TransportObject *)op;
    if (self->loop == NULL || self->lost > 0) {
        PyErr_SetString(PyExc_ConnectionError, "Connection is closed by peer");
        return NULL;
    }
    return socket_new_waiter(self);
}

PyObject *
fl_socket_py_reset_empty_waiter(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    Py_CLEAR(((TransportObject *)op)->empty_waiter);
    Py_RETURN_NONE;
}
