/* pipe.c -- ReadPipeTransport and WritePipeTransport: one end of a pipe, of a
   socket, or a terminal.

   The counterparts of asyncio's _UnixReadPipeTransport and
   _UnixWritePipeTransport.  Unlike sockets, pipes do not own their descriptor
   number in the watches: both transports may be on one terminal. */
#include "net/pipe.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/args.h"
#include "loop/report.h"
#include "net/sockobj.h"
#include "os/sockcall.h"

static const char pipe_write_ignored[] =
    "pipe closed by peer or os.write(pipe, data) raised exception.";

/* --- Closing --------------------------------------------------------------*/

/* _close(exc): what is unsent is dropped. */
static int
pipe_close(TransportObject *self, PyObject *exc)
{
    if (self->ended || self->loop == NULL) {
        return 0;
    }
    self->ended = true;
    self->closing = true;
    fl_writeq_clear(&self->queue);
    fl_transport_stop_writing(self);
    fl_transport_stop_reading(self);
    return fl_transport_schedule_lost(self, exc);
}

/* _fatal_error(exc) for the raised exception. */
static int
pipe_fatal(TransportObject *self, const char *message)
{
    if (fl_report_must_leave()) {
        return -1;
    }
    PyObject *exc = fl_take_raised();
    int rc = self->loop == NULL
                 ? 0
                 : fl_transport_report_fatal(self, exc, message);
    if (rc == 0) {
        rc = pipe_close(self, exc);
    }
    Py_DECREF(exc);
    return rc;
}

/* In debug mode: "%r was closed by peer". */
static int
pipe_log_closed(TransportObject *self)
{
    int debug = fl_loop_debug(fl_transport_loop(self));
    if (debug <= 0) {
        return debug;
    }
    PyObject *result =
        PyObject_CallMethod(fl_transport_state(self)->logger, "info", "sO",
                            "%r was closed by peer", self);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* --- Reading --------------------------------------------------------------*/

static int
pipe_receive_eof(TransportObject *self)
{
    fl_state *state = fl_transport_state(self);
    if (pipe_log_closed(self) < 0) {
        return -1;
    }
    self->closing = true;
    self->ended = true;
    fl_transport_stop_reading(self);
    PyObject *callback =
        PyObject_GetAttr(self->protocol, state->str_eof_received);
    int rc = callback == NULL
                 ? -1
                 : fl_transport_call_soon(self, callback, NULL);
    Py_XDECREF(callback);
    PyObject *raised = rc < 0 ? fl_take_raised() : NULL;
    rc = fl_transport_schedule_lost(self, NULL);
    if (raised != NULL) {
        PyErr_Clear();
        fl_put_raised(raised);
        return -1;
    }
    return rc;
}

/* One read() into the largest buffer: a pipe may be one of messages, whose
   rest would be lost, and somebody may have made it blocking again, so that a
   second one would wait. */
static ssize_t
pipe_read(TransportObject *self, fl_loan *loan)
{
    fl_readbuf_habit habit = fl_readbuf_habit_for(FL_READBUF_LARGEST);
    if (fl_readbuf_take(fl_transport_state(self), &habit, loan) < 0) {
        return -1;
    }
    ssize_t n = fl_sys_read(self->fd, fl_readbuf_space(loan),
                            fl_readbuf_size(loan));
    if (n < 0) {
        if (fl_sys_must_wait(errno)) {
            return FL_READ_LATER;
        }
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return n;
}

/* What a read came to that brought nothing. */
static int
pipe_nothing_read(TransportObject *self, ssize_t n)
{
    if (n == FL_READ_LATER) {
        return 0;
    }
    return n == 0
               ? pipe_receive_eof(self)
               : pipe_fatal(self, "Fatal read error on pipe transport");
}

/* protocol.data_received(data); what it raises is raised. */
static int
pipe_deliver(TransportObject *self, fl_loan *loan, size_t n)
{
    fl_state *state = fl_transport_state(self);
    PyObject *result =
        fl_readbuf_fill(state, &self->habit, loan, n) < 0
            ? NULL
            : fl_transport_call_protocol(self, state->str_data_received,
                                         loan->data);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static int
pipe_read_ready(TransportObject *self)
{
    if (self->closing || self->loop == NULL) {
        return 0;
    }
    fl_state *state = fl_transport_state(self);
    fl_loan loan;
    ssize_t n = pipe_read(self, &loan);
    int rc = n > 0 ? pipe_deliver(self, &loan, (size_t)n)
                   : pipe_nothing_read(self, n);
    PyObject *raised = rc < 0 ? fl_take_raised() : NULL;
    fl_readbuf_done(state, &self->habit, &loan);
    if (raised != NULL) {
        fl_put_raised(raised);
    }
    return rc;
}

/* --- Writing --------------------------------------------------------------*/

/* Everything is written, and write_eof() was called before. */
static int
pipe_end(TransportObject *self)
{
    self->ended = true;
    fl_transport_stop_reading(self);
    return fl_transport_lose(self, Py_None);
}

static int
pipe_write_ready(TransportObject *self)
{
    if (self->ended || self->loop == NULL) {
        return 0;
    }
    struct iovec pieces[FL_WRITEQ_BATCH];
    int count = fl_writeq_peek(&self->queue, pieces);
    ssize_t n = count == 0 ? 0
                           : fl_sys_write_pieces(self->fd, pieces, count);
    if (n < 0) {
        if (fl_sys_must_wait(errno)) {
            return 0;
        }
        PyErr_SetFromErrno(PyExc_OSError);
        self->lost++;
        return pipe_fatal(self, "Fatal write error on pipe transport");
    }
    fl_writeq_advance(&self->queue, (size_t)n);
    if (!fl_writeq_is_empty(&self->queue)) {
        return 0;
    }
    fl_transport_stop_writing(self);
    /* Runs Python: the protocol may write, or close. */
    if (fl_transport_maybe_resume(self, 0) < 0) {
        return -1;
    }
    return self->closing && !self->ended
                   && fl_writeq_is_empty(&self->queue)
               ? pipe_end(self)
               : 0;
}

/* The reading end was closed: that makes a pipe readable. */
static int
pipe_peer_closed(TransportObject *self)
{
    if (self->ended || self->loop == NULL) {
        return 0;
    }
    if (pipe_log_closed(self) < 0) {
        return -1;
    }
    if (fl_writeq_is_empty(&self->queue)) {
        return pipe_close(self, NULL);
    }
    PyObject *exc = PyObject_CallNoArgs(PyExc_BrokenPipeError);
    int rc = exc == NULL ? -1 : pipe_close(self, exc);
    Py_XDECREF(exc);
    return rc;
}

/* What cannot be written now is copied, and waits. */
static int
pipe_write_buffer(TransportObject *self, const char *bytes, size_t len)
{
    ssize_t n = 0;
    if (fl_writeq_is_empty(&self->queue)) {
        n = fl_sys_write(self->fd, bytes, len);
        if (n < 0) {
            if (!fl_sys_must_wait(errno)) {
                PyErr_SetFromErrno(PyExc_OSError);
                self->lost++;
                return pipe_fatal(self,
                                  "Fatal write error on pipe transport");
            }
            n = 0;
        }
        if ((size_t)n == len) {
            return 0;
        }
        if (fl_transport_start_writing(self) < 0) {
            return -1;
        }
    }
    if (fl_writeq_put_copy(&self->queue, bytes + n, len - (size_t)n) < 0) {
        return -1;
    }
    return fl_transport_maybe_pause(self, self->queue.size);
}

static int
pipe_write(TransportObject *self, PyObject *data)
{
    if (!fl_is_data(data)) {
        PyErr_Format(PyExc_AssertionError, "%R", data);
        return -1;
    }
    int any = PyObject_IsTrue(data);
    if (any <= 0) {
        return any;
    }
    if (self->lost > 0 || self->closing || self->loop == NULL) {
        return fl_transport_write_lost(self, pipe_write_ignored);
    }
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        self->lost++;
        return pipe_fatal(self, "Fatal write error on pipe transport");
    }
    int rc = view.len == 0 ? 0
                           : pipe_write_buffer(self, view.buf,
                                               (size_t)view.len);
    PyBuffer_Release(&view);
    return rc;
}

/* --- What the loop calls --------------------------------------------------*/

static int
pipe_readable(LoopObject *loop, PyObject *op)
{
    TransportObject *self = (TransportObject *)op;
    return !self->reading ? 0
                          : fl_transport_run(loop, self, self->read_context,
                                             self->loud_errors
                                                 ? pipe_read_ready
                                                 : pipe_peer_closed,
                                             "_read_ready");
}

static int
pipe_writable(LoopObject *loop, PyObject *op)
{
    TransportObject *self = (TransportObject *)op;
    return !self->writing ? 0
                          : fl_transport_run(loop, self, self->write_context,
                                             pipe_write_ready, "_write_ready");
}

static int
pipe_flush(LoopObject *Py_UNUSED(loop), PyObject *Py_UNUSED(op))
{
    return 0;  /* pipes hold nothing back */
}

static const fl_channel_ops pipe_ops = {
    .readable = pipe_readable,
    .writable = pipe_writable,
    .flush = pipe_flush,
};

/* --- Methods --------------------------------------------------------------*/

static PyObject *
pipe_py_set_protocol(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                     PyObject *names)
{
    PyObject *protocol =
        fl_one_argument("set_protocol", "protocol", args, nargs, names);
    if (protocol == NULL) {
        return NULL;
    }
    Py_XSETREF(((TransportObject *)op)->protocol, Py_NewRef(protocol));
    Py_RETURN_NONE;
}

/* ReadPipeTransport.close() and WritePipeTransport.abort() */
static PyObject *
pipe_py_close_now(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return fl_none_or_error(pipe_close((TransportObject *)op, NULL));
}

static PyObject *
pipe_py_write_eof(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    TransportObject *self = (TransportObject *)op;
    if (self->closing) {
        Py_RETURN_NONE;
    }
    self->closing = true;
    return fl_none_or_error(
        fl_writeq_is_empty(&self->queue) ? pipe_close(self, NULL) : 0);
}

static PyObject *
pipe_py_write(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
              PyObject *names)
{
    PyObject *data = fl_one_argument("write", "data", args, nargs, names);
    return data == NULL
               ? NULL
               : fl_none_or_error(pipe_write((TransportObject *)op, data));
}

static PyObject *
pipe_py_can_write_eof(PyObject *Py_UNUSED(op), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_TRUE;
}

static PyObject *
pipe_py_read_ready(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return fl_none_or_error(pipe_read_ready((TransportObject *)op));
}

static PyObject *
pipe_py_peer_closed(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return fl_none_or_error(pipe_peer_closed((TransportObject *)op));
}

static PyObject *
pipe_py_write_ready(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return fl_none_or_error(pipe_write_ready((TransportObject *)op));
}

#define PIPE_SET_PROTOCOL                                              \
    {"set_protocol", FL_METHOD(pipe_py_set_protocol), FL_FASTCALL,     \
     PyDoc_STR("set_protocol($self, protocol)\n--\n\n"                 \
               "Tell another protocol from now on.")}

static PyMethodDef pipe_read_methods[] = {
    PIPE_SET_PROTOCOL,
    {"close", pipe_py_close_now, METH_NOARGS,
     PyDoc_STR("close($self, /)\n--\n\nClose.")},
    {"_read_ready", pipe_py_read_ready, METH_NOARGS, NULL},
    /* Of two with one name the first counts. */
    FL_TRANSPORT_METHODS,
    FL_TRANSPORT_READ_METHODS,
    {NULL},
};

static PyMethodDef pipe_write_methods[] = {
    PIPE_SET_PROTOCOL,
    {"write", FL_METHOD(pipe_py_write), FL_FASTCALL,
     PyDoc_STR("write($self, data)\n--\n\n"
               "Write bytes, as soon as there is room for them.")},
    {"write_eof", pipe_py_write_eof, METH_NOARGS,
     PyDoc_STR("write_eof($self, /)\n--\n\n"
               "Close once everything is written.")},
    {"close", pipe_py_write_eof, METH_NOARGS,
     PyDoc_STR("close($self, /)\n--\n\n"
               "Close once everything is written.")},
    {"abort", pipe_py_close_now, METH_NOARGS,
     PyDoc_STR("abort($self, /)\n--\n\n"
               "Close at once; what is unwritten is lost.")},
    {"can_write_eof", pipe_py_can_write_eof, METH_NOARGS,
     PyDoc_STR("can_write_eof($self, /)\n--\n\nTrue.")},
    {"_start_reading", fl_transport_py_start_reading, METH_NOARGS, NULL},
    {"_read_ready", pipe_py_peer_closed, METH_NOARGS, NULL},
    {"_write_ready", pipe_py_write_ready, METH_NOARGS, NULL},
    /* Of two with one name the first counts. */
    FL_TRANSPORT_METHODS,
    FL_TRANSPORT_WRITE_METHODS,
    {NULL},
};

/* --- Making ---------------------------------------------------------------*/

/* The kinds of file that a pipe transport takes; the mode, or 0. */
static mode_t
pipe_ask_mode(int fd, const char *refusal)
{
    struct stat info;
    if (fstat(fd, &info) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return 0;
    }
    if (!S_ISFIFO(info.st_mode) && !S_ISSOCK(info.st_mode)
        && !S_ISCHR(info.st_mode))
    {
        PyErr_SetString(PyExc_ValueError, refusal);
        return 0;
    }
    return info.st_mode;
}

static int
pipe_set_nonblocking(int fd)
{
    int on = 1;
    if (ioctl(fd, FIONBIO, &on) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

static int
pipe_open(TransportObject *self, LoopObject *loop, PyObject *pipe,
          PyObject *protocol, PyObject *waiter)
{
    bool reads = self->loud_errors;
    int fd = fl_sockobj_ask(loop->state, pipe);
    if (fd < 0) {
        if (!PyErr_Occurred()) {
            PyErr_Format(PyExc_ValueError, "Invalid file descriptor: %d", fd);
        }
        return -1;
    }
    mode_t mode = pipe_ask_mode(
        fd, reads ? "Pipe transport is for pipes/sockets only."
                  : "Pipe transport is only for pipes, sockets and "
                    "character devices");
    if (mode == 0 || pipe_set_nonblocking(fd) < 0
        || PyDict_SetItemString(self->extra, "pipe", pipe) < 0)
    {
        return -1;
    }
    self->loop = Py_NewRef(loop);
    self->protocol = Py_NewRef(protocol);
    self->protocol_connected = true;
    self->file = Py_NewRef(pipe);
    self->fd = self->number = fd;
    /* A writer learns that way that its reader is gone. */
    bool start = reads || S_ISFIFO(mode) || S_ISSOCK(mode);
    return fl_transport_begin(
        self, start ? loop->state->str__start_reading : NULL, waiter);
}

static PyObject *
pipe_new(PyTypeObject *type, PyObject *args, PyObject *kwargs, bool reads)
{
    static char *keywords[] = {"loop",   "pipe",  "protocol",
                               "waiter", "extra", NULL};
    PyObject *loop, *pipe, *protocol, *waiter = Py_None, *extra = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO|OO:PipeTransport",
                                     keywords, &loop, &pipe, &protocol,
                                     &waiter, &extra))
    {
        return NULL;
    }
    LoopObject *owner = fl_loop_argument(loop);
    TransportObject *self =
        owner == NULL ? NULL : fl_transport_alloc(type, &pipe_ops);
    if (self == NULL) {
        return NULL;
    }
    self->loud_errors = reads;
    self->extra = extra == Py_None ? PyDict_New() : Py_NewRef(extra);
    if (self->extra == NULL
        || pipe_open(self, owner, pipe, protocol, waiter) < 0)
    {
        fl_transport_forget(self);
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static PyObject *
pipe_new_reader(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    return pipe_new(type, args, kwargs, true);
}

static PyObject *
pipe_new_writer(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    return pipe_new(type, args, kwargs, false);
}

/* As asyncio's, which tell less than those of sockets. */
static PyObject *
pipe_repr(PyObject *op)
{
    TransportObject *self = (TransportObject *)op;
    const char *name = self->loud_errors ? "ReadPipeTransport"
                                         : "WritePipeTransport";
    const char *state = self->fd < 0 ? " closed"
                        : self->closing ? " closing"
                                        : "";
    if (self->fd < 0) {
        return PyUnicode_FromFormat("<%s%s fd=%d closed>", name, state,
                                    self->number);
    }
    LoopObject *loop = fl_transport_loop(self);
    if (loop == NULL || loop->closed) {
        return PyUnicode_FromFormat("<%s%s fd=%d open>", name, state,
                                    self->number);
    }
    if (self->loud_errors) {
        return PyUnicode_FromFormat("<%s%s fd=%d %s>", name, state,
                                    self->number,
                                    self->reading ? "polling" : "idle");
    }
    return PyUnicode_FromFormat("<%s%s fd=%d %s bufsize=%zu>", name, state,
                                self->number,
                                self->writing ? "polling" : "idle",
                                self->queue.size);
}

#define PIPE_SLOTS(doc, make, methods)                \
    {                                                 \
        {Py_tp_doc, doc},                             \
        {Py_tp_new, make},                            \
        {Py_tp_init, fl_transport_init},              \
        {Py_tp_dealloc, fl_transport_dealloc},        \
        {Py_tp_finalize, fl_transport_finalize},      \
        {Py_tp_traverse, fl_transport_traverse},      \
        {Py_tp_clear, fl_transport_clear},            \
        {Py_tp_repr, pipe_repr},                      \
        {Py_tp_methods, methods},                     \
        {Py_tp_members, fl_transport_members},        \
        {Py_tp_getset, fl_transport_getset},          \
        {0, NULL},                                    \
    }

static PyType_Slot pipe_read_slots[] =
    PIPE_SLOTS("The reading end of a pipe.", pipe_new_reader,
               pipe_read_methods);

static PyType_Spec pipe_read_spec = {
    .name = "fastloop._core.ReadPipeTransport",
    .basicsize = sizeof(TransportObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = pipe_read_slots,
};

static PyType_Slot pipe_write_slots[] =
    PIPE_SLOTS("The writing end of a pipe.", pipe_new_writer,
               pipe_write_methods);

static PyType_Spec pipe_write_spec = {
    .name = "fastloop._core.WritePipeTransport",
    .basicsize = sizeof(TransportObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = pipe_write_slots,
};

int
fl_pipe_setup(PyObject *module, fl_state *state)
{
    state->ReadPipeTransport_type =
        fl_add_type(module, &pipe_read_spec, state->ReadTransport);
    PyObject *bases =
        PyTuple_Pack(2, state->FlowControlMixin, state->WriteTransport);
    if (state->ReadPipeTransport_type == NULL || bases == NULL
        || fl_transport_copy_selector(
               state, state->ReadPipeTransport_type, "_SelectorTransport",
               (const char *const[]){"max_size", NULL})
               < 0)
    {
        Py_XDECREF(bases);
        return -1;
    }
    state->WritePipeTransport_type =
        fl_add_type(module, &pipe_write_spec, bases);
    Py_DECREF(bases);
    return state->WritePipeTransport_type == NULL ? -1 : 0;
}
