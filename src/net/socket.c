/* socket.c -- SocketTransport: reading, closing, and the type.

   The counterpart of asyncio's _SelectorSocketTransport, whose method names
   the comments use. */
#include "net/socket.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include "base/args.h"
#include "net/deliver.h"
#include "net/reader.h"
#include "net/sockobj.h"
#include "os/sockcall.h"

/* So much ciphertext is read at once: four records of full length, which the
   processor's caches still hold when they are decrypted (benchmarks/network,
   TLS upload). */
#define FL_TLS_SPACE 65536

static const char socket_feeding_failed[] =
    "Fatal error: protocol.data_received() call failed.";
static const char socket_updating_failed[] =
    "Fatal error: protocol.buffer_updated() call failed.";

/* --- Reading --------------------------------------------------------------*/

/* recv(), as an fl_read_function. */
static ssize_t
socket_receive(void *source, void *space, size_t size)
{
    TransportObject *self = source;
    if (FL_UNLIKELY(!fl_transport_alive(self))) {
        fl_raise_errno(-EBADF);
        return -1;
    }
    ssize_t n = fl_sys_recv(self->fd, space, size);
    if (FL_UNLIKELY(n < 0)) {
        if (fl_sys_must_wait(errno)) {
            return FL_READ_LATER;
        }
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return n;
}

static int socket_close(TransportObject *self);

/* _read_ready__on_eof */
static int
socket_receive_eof(TransportObject *self)
{
    if (fl_transport_log(self, "%r received EOF") < 0) {
        return -1;
    }
    PyObject *keep_open = fl_transport_call_protocol(
        self, fl_transport_state(self)->str_eof_received, NULL);
    if (keep_open == NULL) {
        return fl_transport_fatal(
            self, "Fatal error: protocol.eof_received() call failed.");
    }
    int keep = PyObject_IsTrue(keep_open);
    Py_DECREF(keep_open);
    if (keep < 0) {
        return -1;
    }
    if (keep) {
        /* The protocol may write more; there is nothing left to receive. */
        fl_transport_stop_reading(self);
        return 0;
    }
    return socket_close(self);
}

/* What a read came to that brought nothing: its end, or its failure. */
static int
socket_nothing_read(TransportObject *self, ssize_t n)
{
    if (n == FL_READ_LATER) {
        return 0;
    }
    return n == 0 ? socket_receive_eof(self)
                  : fl_transport_fatal(
                        self, "Fatal read error on socket transport");
}

/* Hands on what was read. */
static int
socket_deliver(TransportObject *self, fl_loan *loan, size_t n)
{
    return fl_deliver(self, &self->habit, loan, n) < 0
               ? fl_transport_fatal(self, socket_feeding_failed)
               : 0;
}

/* _read_ready__data_received */
static int
socket_read_data(TransportObject *self)
{
    fl_state *state = fl_transport_state(self);
    fl_loan loan = {.size_class = self->habit.size_class};
    if (self->read_mode == FL_READ_STREAM && loan.size_class > 0
        && fl_transport_alive(self))
    {
        ssize_t fed = fl_reader_receive(state, self->protocol, self->fd);
        if (FL_LIKELY(fed > 0)) {
            fl_readbuf_learn(&self->habit, &loan, (size_t)fed);
            return 0;
        }
        if (fed < 0) {
            return fl_transport_fatal(self, socket_feeding_failed);
        }
    }
    ssize_t n = fl_readbuf_read(state, &self->habit, &loan, socket_receive,
                                self);
    int rc = n > 0 ? socket_deliver(self, &loan, (size_t)n)
                   : socket_nothing_read(self, n);
    if (FL_UNLIKELY(loan.failure != NULL) && rc == 0
        && self->lost == 0 && self->loop != NULL
        && fl_readbuf_has_failed(&loan))
    {
        rc = socket_nothing_read(self, -1);
    }
    fl_readbuf_done(state, &self->habit, &loan);
    return rc;
}

/* sock.recv_into(buf) */
static ssize_t
socket_receive_into(TransportObject *self, PyObject *buf)
{
    Py_buffer view;
    if (PyObject_GetBuffer(buf, &view, PyBUF_WRITABLE) < 0) {
        /* In the words of recv_into(). */
        PyErr_Clear();
        PyErr_Format(PyExc_TypeError,
                     "recv_into() argument 1 must be read-write bytes-like "
                     "object, not %.50s",
                     Py_TYPE(buf)->tp_name);
        return -1;
    }
    ssize_t n = -1;
    if (!PyBuffer_IsContiguous(&view, 'C')) {
        PyErr_SetString(PyExc_TypeError,
                        "recv_into() argument must be a contiguous buffer");
    }
    else if (view.len == 0) {
        PyErr_SetString(PyExc_RuntimeError,
                        "get_buffer() returned an empty buffer");
    }
    else {
        n = socket_receive(self, view.buf, (size_t)view.len);
    }
    PyObject *raised = fl_take_raised();
    PyBuffer_Release(&view);  /* Runs Python: __release_buffer__. */
    if (raised != NULL) {
        fl_put_raised(raised);
    }
    return n;
}

/* _read_ready__get_buffer */
static int
socket_read_buffered(TransportObject *self)
{
    PyObject *buf = fl_deliver_get_buffer(self, -1);
    if (buf == NULL) {
        return fl_transport_fatal(
            self, "Fatal error: protocol.get_buffer() call failed.");
    }
    ssize_t n = socket_receive_into(self, buf);
    Py_DECREF(buf);
    if (FL_UNLIKELY(n <= 0)) {
        return socket_nothing_read(self, n);
    }
    return fl_deliver_updated(self, n) < 0
               ? fl_transport_fatal(self, socket_updating_failed)
               : 0;
}

/* For an SSLTransport: into memory that all connections use in turn. */
static int
socket_read_tls(TransportObject *self)
{
    fl_state *state = fl_transport_state(self);
    char *space = state->tls_space;
    state->tls_space = NULL;
    if (space == NULL) {
        space = PyMem_RawMalloc(FL_TLS_SPACE);
        if (space == NULL) {
            PyErr_NoMemory();
            return socket_nothing_read(self, -1);
        }
    }
    ssize_t n = socket_receive(self, space, FL_TLS_SPACE);
    int rc = 0;
    if (FL_LIKELY(n > 0)) {
        PyObject *protocol = Py_NewRef(self->protocol);
        if (state->tls_receive(state, protocol, space, (size_t)n) < 0) {
            rc = fl_transport_fatal(self, socket_updating_failed);
        }
        Py_DECREF(protocol);
    }
    else {
        rc = socket_nothing_read(self, n);
    }
    /* Another thread's loop may have made its own meanwhile. */
    if (state->tls_space == NULL) {
        state->tls_space = space;
    }
    else {
        PyMem_RawFree(space);
    }
    return rc;
}

static int
socket_read_ready(TransportObject *self)
{
    if (FL_UNLIKELY(self->lost > 0 || self->loop == NULL)) {
        return 0;
    }
    switch (self->read_mode) {
    case FL_READ_BUFFERED:
        return socket_read_buffered(self);
    case FL_READ_TLS:
        return socket_read_tls(self);
    default:
        return socket_read_data(self);
    }
}

/* --- Closing --------------------------------------------------------------*/

static int
socket_close(TransportObject *self)
{
    if (self->held && fl_socket_flush_held(self) < 0) {
        return -1;
    }
    if (self->closing) {
        return 0;
    }
    self->closing = true;
    fl_transport_stop_reading(self);
    if (!fl_writeq_is_empty(&self->queue)) {
        return 0;  /* fl_socket_write_ready goes on from here */
    }
    self->lost++;
    fl_transport_stop_writing(self);
    return fl_transport_schedule_lost(self, NULL);
}

static PyObject *
socket_py_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    if (socket_close((TransportObject *)op) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* _call_connection_lost, after which a waiting sendfile learns of it. */
static PyObject *
socket_py_lose(PyObject *op, PyObject *exc)
{
    TransportObject *self = (TransportObject *)op;
    int rc = fl_transport_lose(self, exc);
    PyObject *raised = rc < 0 ? fl_take_raised() : NULL;
    PyObject *waiter = Py_XNewRef(self->empty_waiter);
    PyObject *done =
        waiter == NULL ? NULL : PyObject_CallMethod(waiter, "done", NULL);
    bool waits = done == Py_False;
    Py_XDECREF(done);
    if (waits) {
        PyObject *error = PyObject_CallFunction(
            PyExc_ConnectionError, "s", "Connection is closed by peer");
        PyObject *result =
            error == NULL
                ? NULL
                : PyObject_CallMethod(waiter, "set_exception", "O", error);
        if (result == NULL && raised == NULL) {
            raised = fl_take_raised();
        }
        PyErr_Clear();
        Py_XDECREF(error);
        Py_XDECREF(result);
    }
    Py_XDECREF(waiter);
    if (raised != NULL) {
        PyErr_Clear();
        fl_put_raised(raised);
        return NULL;
    }
    Py_RETURN_NONE;
}

/* --- What the loop calls --------------------------------------------------*/

static int
socket_readable(LoopObject *loop, PyObject *op)
{
    TransportObject *self = (TransportObject *)op;
    if (FL_UNLIKELY(!self->reading)) {
        return 0;  /* paused or closed since the poller saw it */
    }
    return fl_transport_run(loop, self, self->read_context, socket_read_ready,
                            "_read_ready");
}

static int
socket_writable(LoopObject *loop, PyObject *op)
{
    TransportObject *self = (TransportObject *)op;
    if (FL_UNLIKELY(!self->writing)) {
        return 0;
    }
    return fl_transport_run(loop, self, self->write_context,
                            fl_socket_write_ready, "_write_ready");
}

static const fl_channel_ops socket_ops = {
    .readable = socket_readable,
    .writable = socket_writable,
    .flush = fl_socket_flush,
};

/* --- Methods --------------------------------------------------------------*/

static PyObject *
socket_py_set_protocol(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                       PyObject *names)
{
    PyObject *protocol =
        fl_one_argument("set_protocol", "protocol", args, nargs, names);
    if (protocol == NULL
        || fl_deliver_to((TransportObject *)op, protocol) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
socket_py_can_write_eof(PyObject *Py_UNUSED(op), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_TRUE;
}

static PyObject *
socket_py_read_ready(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    if (socket_read_ready((TransportObject *)op) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
socket_py_write_ready(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    if (fl_socket_write_ready((TransportObject *)op) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* sendfile works on the descriptor itself for a while. */
static PyObject *
socket_py_lend(PyObject *op, PyObject *lend)
{
    TransportObject *self = (TransportObject *)op;
    LoopObject *loop = (LoopObject *)self->loop;
    if (loop != NULL && self->fd >= 0) {
        self->lent = lend == Py_True;
        if (self->lent) {
            fl_watch_disown(loop, self->fd, op);
        }
        else if (fl_watch_own(loop, self->fd, op) < 0) {
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

static PyMethodDef socket_methods[] = {
    {"write", FL_METHOD(fl_socket_py_write), FL_FASTCALL,
     PyDoc_STR("write($self, data)\n--\n\n"
               "Send bytes, as soon as the peer takes them.")},
    {"writelines", FL_METHOD(fl_socket_py_writelines), FL_FASTCALL,
     PyDoc_STR("writelines($self, list_of_data)\n--\n\n"
               "Send several pieces of bytes.")},
    {"write_eof", fl_socket_py_write_eof, METH_NOARGS,
     PyDoc_STR("write_eof($self, /)\n--\n\n"
               "Close the sending half once everything is sent.")},
    {"can_write_eof", socket_py_can_write_eof, METH_NOARGS,
     PyDoc_STR("can_write_eof($self, /)\n--\n\nTrue.")},
    {"set_protocol", FL_METHOD(socket_py_set_protocol), FL_FASTCALL,
     PyDoc_STR("set_protocol($self, protocol)\n--\n\n"
               "Tell another protocol from now on.")},
    {"close", socket_py_close, METH_NOARGS,
     PyDoc_STR("close($self, /)\n--\n\n"
               "Close once everything is sent.")},
    {"_call_connection_lost", socket_py_lose, METH_O, NULL},
    {"_read_ready", socket_py_read_ready, METH_NOARGS, NULL},
    {"_write_ready", socket_py_write_ready, METH_NOARGS, NULL},
    {"_make_empty_waiter", fl_socket_py_make_empty_waiter, METH_NOARGS, NULL},
    {"_make_loss_waiter", fl_socket_py_make_loss_waiter, METH_NOARGS, NULL},
    {"_reset_empty_waiter", fl_socket_py_reset_empty_waiter, METH_NOARGS,
     NULL},
    {"_lend_descriptor", socket_py_lend, METH_O, NULL},
    /* Of two with one name the first counts. */
    FL_TRANSPORT_METHODS,
    FL_TRANSPORT_READ_METHODS,
    FL_TRANSPORT_WRITE_METHODS,
    {NULL},
};

/* --- Making ---------------------------------------------------------------*/

TransportObject *
fl_socket_new(LoopObject *loop, int fd, PyObject *file, PyObject *protocol,
              PyObject *extra, PyObject *context)
{
    fl_state *state = loop->state;
    TransportObject *self =
        fl_transport_alloc(state->SocketTransport_type, &socket_ops);
    if (self == NULL) {
        return NULL;
    }
    self->is_socket = true;
    self->extra = Py_XNewRef(extra);
    self->context = Py_XNewRef(context);
    int rc = fl_deliver_to(self, protocol);
    if (rc == 0) {
        rc = fl_transport_own(self, loop, fd);
    }
    if (rc == 0 && file != NULL) {
        self->file = Py_NewRef(file);
        rc = fl_transport_keep_names(self);
        if (self->family == AF_INET || self->family == AF_INET6) {
            int on = 1;
            (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        }
    }
    if (rc < 0) {
        fl_transport_forget(self);
        Py_CLEAR(self);
    }
    return self;
}

int
fl_socket_adopt(TransportObject *self, PyObject *protocol)
{
    self->ops = &socket_ops;
    return fl_deliver_to(self, protocol);
}

static PyObject *
socket_new(PyTypeObject *Py_UNUSED(type), PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"loop",  "sock",   "protocol", "waiter",
                               "extra", "server", "context",  NULL};
    PyObject *loop, *sock, *protocol;
    PyObject *waiter = Py_None, *extra = Py_None, *server = Py_None,
             *context = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO|OOOO:SocketTransport",
                                     keywords, &loop, &sock, &protocol,
                                     &waiter, &extra, &server, &context))
    {
        return NULL;
    }
    LoopObject *owner = fl_loop_argument(loop);
    if (owner == NULL) {
        return NULL;
    }
    int fd = fl_transport_ask_fd(owner, sock);
    if (fd < 0) {
        return NULL;
    }
    TransportObject *self =
        fl_socket_new(owner, fd, sock, protocol,
                      extra == Py_None ? NULL : extra,
                      context == Py_None ? NULL : context);
    if (self == NULL) {
        return NULL;
    }
    if ((server != Py_None && fl_transport_attach(self, server) < 0)
        || fl_transport_begin(self, owner->state->str__start_reading,
                              waiter) < 0)
    {
        PyObject *raised = fl_take_raised();
        if (fl_transport_detach(self) < 0) {
            PyErr_WriteUnraisable((PyObject *)self);
        }
        fl_put_raised(raised);
        fl_transport_forget(self);
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static PyType_Slot socket_slots[] = {
    {Py_tp_doc, "A stream connection over a socket."},
    {Py_tp_new, socket_new},
    {Py_tp_init, fl_transport_init},
    {Py_tp_dealloc, fl_transport_dealloc},
    {Py_tp_finalize, fl_transport_finalize},
    {Py_tp_traverse, fl_transport_traverse},
    {Py_tp_clear, fl_transport_clear},
    {Py_tp_repr, fl_transport_repr},
    {Py_tp_methods, socket_methods},
    {Py_tp_members, fl_transport_members},
    {Py_tp_getset, fl_transport_getset},
    {0, NULL},
};

static PyType_Spec socket_spec = {
    .name = "fastloop._core.SocketTransport",
    .basicsize = sizeof(TransportObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = socket_slots,
};

int
fl_socket_setup(PyObject *module, fl_state *state)
{
    state->SocketTransport_type =
        fl_add_type(module, &socket_spec, state->FlowControlMixin);
    if (state->SocketTransport_type == NULL) {
        return -1;
    }
    return fl_transport_copy_selector(
        state, state->SocketTransport_type, "_SelectorSocketTransport",
        (const char *const[]){"_sendfile_compatible", "_start_tls_compatible",
                              "max_size", NULL});
}
