/* sockop.c -- SockOp: what `await loop.sock_recv(...)` runs.

   It stands in for asyncio's coroutine, and tries the system call first.  If
   that would block, it waits for the poller and tries again when its task
   goes on.  So nothing is received that a cancelled task could lose.

   Who waits once on a socket waits again as a rule, so the poller goes on
   watching in between (fl_watch_set_once). */
#include "net/sockop.h"

#include <errno.h>
#include <sys/socket.h>

#include "loop/channel.h"
#include "loop/watcher.h"
#include "net/readbuf.h"
#include "net/sockobj.h"
#include "net/transport.h"
#include "os/sockcall.h"
#include "task/await.h"
#include "task/future.h"

typedef struct {
    PyObject_HEAD
    /* Where a channel has its slots: channel.h. */
    PyObject *loop;      /* NULL: finished */
    PyObject *sock;
    PyObject *argument;
    PyObject *future;    /* that the poller completes; NULL: not waiting */
    PyObject *unused;
    const fl_channel_ops *ops;
    Py_buffer view;      /* of argument; obj is NULL if there is none */
    size_t sent;
    int fd;              /* while waiting */
    uint8_t kind;
    bool started;
    bool running;        /* in sockop_send, which may call the user's code */
} SockOpObject;

static const char *const sockop_names[] = {
    "sock_recv", "sock_recv_into", "sock_sendall", "_wait_readable",
    "_wait_writable"};

static uint32_t
sockop_what(const SockOpObject *self)
{
    return self->kind == FL_SOCK_SENDALL || self->kind == FL_SOCK_WRITABLE
               ? FL_POLL_WRITE
               : FL_POLL_READ;
}

/* --- Trying ---------------------------------------------------------------*/

/* What an attempt came to. */
enum { SOCKOP_DONE = 1, SOCKOP_BLOCKED = 0, SOCKOP_FAILED = -1 };

/* errno of a failed system call. */
static int
sockop_failed(void)
{
    if (fl_sys_must_wait(errno)) {
        return SOCKOP_BLOCKED;
    }
    PyErr_SetFromErrno(PyExc_OSError);
    return SOCKOP_FAILED;
}

/* sock.name(argument), for sockets of other classes and unusual arguments. */
static int
sockop_call(SockOpObject *self, const char *name, PyObject *argument,
            PyObject **result)
{
    *result = PyObject_CallMethod(self->sock, name, "(O)", argument);
    if (*result != NULL) {
        return SOCKOP_DONE;
    }
    if (PyErr_ExceptionMatches(PyExc_BlockingIOError)
        || PyErr_ExceptionMatches(PyExc_InterruptedError))
    {
        PyErr_Clear();
        return SOCKOP_BLOCKED;
    }
    return SOCKOP_FAILED;
}

/* The descriptor to use directly, or -1: ask the object. */
static int
sockop_direct_fd(SockOpObject *self, fl_state *state)
{
    return state->socket_fd_ok
                   && Py_TYPE(self->sock) == (PyTypeObject *)state->Socket
               ? fl_socket_fd(state, self->sock)
               : -1;
}

/* Whether what is not received now can be received later. */
static bool
sockop_is_stream(int fd)
{
    int type = 0;
    socklen_t len = sizeof(type);
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0
           && type == SOCK_STREAM;
}

static int
sockop_recv(SockOpObject *self, fl_state *state, PyObject **result)
{
    int fd = sockop_direct_fd(self, state);
    Py_ssize_t most = fd < 0 || !PyLong_CheckExact(self->argument)
                          ? -1
                          : PyLong_AsSsize_t(self->argument);
    if (most <= 0 || ((size_t)most > FL_READBUF_LARGEST && !sockop_is_stream(fd)))
    {
        PyErr_Clear();
        return sockop_call(self, "recv", self->argument, result);
    }
    fl_readbuf_habit habit = fl_readbuf_habit_for((size_t)most);
    fl_loan loan;
    if (fl_readbuf_take(state, &habit, &loan) < 0) {
        return SOCKOP_FAILED;
    }
    size_t room = fl_readbuf_size(&loan);
    ssize_t n = fl_sys_recv(fd, fl_readbuf_space(&loan),
                            room < (size_t)most ? room : (size_t)most);
    int rc = SOCKOP_DONE;
    if (n < 0) {
        rc = sockop_failed();
    }
    else if (fl_readbuf_fill(state, &habit, &loan, (size_t)n) < 0) {
        rc = SOCKOP_FAILED;
    }
    else {
        *result = Py_NewRef(loan.data);
    }
    fl_readbuf_done(state, &habit, &loan);
    return rc;
}

static int
sockop_recv_into(SockOpObject *self, fl_state *state, PyObject **result)
{
    Py_buffer view;
    if (PyObject_GetBuffer(self->argument, &view, PyBUF_WRITABLE) < 0) {
        PyErr_Clear();
        return sockop_call(self, "recv_into", self->argument, result);
    }
    /* Runs Python above, which may close the socket. */
    int fd = sockop_direct_fd(self, state);
    ssize_t n = -1;
    int rc = SOCKOP_FAILED;
    if (fd < 0 || view.len == 0 || !PyBuffer_IsContiguous(&view, 'C')) {
        PyBuffer_Release(&view);
        return sockop_call(self, "recv_into", self->argument, result);
    }
    n = fl_sys_recv(fd, view.buf, (size_t)view.len);
    rc = n < 0 ? sockop_failed() : SOCKOP_DONE;
    PyObject *raised = fl_take_raised();
    PyBuffer_Release(&view);  /* Runs Python: __release_buffer__. */
    if (raised != NULL) {
        fl_put_raised(raised);
    }
    if (rc == SOCKOP_DONE) {
        *result = PyLong_FromSsize_t(n);
        return *result == NULL ? SOCKOP_FAILED : SOCKOP_DONE;
    }
    return rc;
}

/* sock.send() of what is left, through the object. */
static int
sockop_send_by_call(SockOpObject *self, ssize_t *n)
{
    PyObject *view = PyMemoryView_FromMemory(
        (char *)self->view.buf + self->sent,
        self->view.len - (Py_ssize_t)self->sent, PyBUF_READ);
    if (view == NULL) {
        return SOCKOP_FAILED;
    }
    PyObject *count = NULL;
    int rc = sockop_call(self, "send", view, &count);
    Py_DECREF(view);
    if (rc == SOCKOP_DONE) {
        *n = PyLong_AsSsize_t(count);
        Py_DECREF(count);
        if (*n < 0) {
            rc = SOCKOP_FAILED;
        }
    }
    return rc;
}

static int
sockop_sendall(SockOpObject *self, fl_state *state, PyObject **result)
{
    if (self->view.obj == NULL
        && PyObject_GetBuffer(self->argument, &self->view, PyBUF_SIMPLE) < 0)
    {
        return SOCKOP_FAILED;
    }
    int fd = sockop_direct_fd(self, state);
    ssize_t n;
    int rc = SOCKOP_DONE;
    if (fd >= 0) {
        n = fl_sys_send(fd, (char *)self->view.buf + self->sent,
                        (size_t)self->view.len - self->sent);
        rc = n < 0 ? sockop_failed() : SOCKOP_DONE;
    }
    else {
        rc = sockop_send_by_call(self, &n);
    }
    if (rc != SOCKOP_DONE) {
        return rc;
    }
    self->sent += (size_t)n;
    if (self->sent < (size_t)self->view.len) {
        return SOCKOP_BLOCKED;
    }
    *result = Py_NewRef(Py_None);
    return SOCKOP_DONE;
}

/* Runs Python: methods of the user's socket. */
static int
sockop_try(SockOpObject *self, fl_state *state, PyObject **result)
{
    switch (self->kind) {
    case FL_SOCK_RECV:
        return sockop_recv(self, state, result);
    case FL_SOCK_RECV_INTO:
        return sockop_recv_into(self, state, result);
    case FL_SOCK_SENDALL:
        return sockop_sendall(self, state, result);
    default:
        if (!self->started) {
            return SOCKOP_BLOCKED;
        }
        *result = Py_NewRef(Py_None);
        return SOCKOP_DONE;
    }
}

/* --- Waiting --------------------------------------------------------------*/

static PyObject *
sockop_make_future(LoopObject *loop)
{
    fl_state *state = loop->state;
    if (state->layout_ok && fl_loop_is_plain(state, (PyObject *)loop)
        && !loop->types_patched)
    {
        return fl_future_new(state, (PyObject *)loop);
    }
    return PyObject_CallMethodNoArgs((PyObject *)loop,
                                     state->str_create_future);
}

/* The future to yield, borrowed. */
static PyObject *
sockop_wait(SockOpObject *self)
{
    LoopObject *loop = (LoopObject *)self->loop;
    fl_state *state = loop->state;
    int fd = fl_sockobj_ask(state, self->sock);
    if (fd < 0) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError,
                            "Invalid file descriptor: -1");
        }
        return NULL;
    }
    PyObject *number = PyLong_FromLong(fd);
    int rc = number == NULL ? -1 : fl_transport_check_free(loop, fd, number);
    Py_XDECREF(number);
    if (rc < 0 || fl_loop_check_closed(loop) < 0
        || fl_loop_check_fork(loop) < 0)
    {
        return NULL;
    }
    Py_XSETREF(self->future, sockop_make_future(loop));
    self->fd = fd;
    if (self->future == NULL
        || fl_watch_set_once(loop, fd, sockop_what(self), (PyObject *)self)
               < 0
        || PyObject_SetAttr(self->future, state->str__asyncio_future_blocking,
                            Py_True)
               < 0)
    {
        return NULL;
    }
    return self->future;
}

/* The poller says that it may go on. */
static int
sockop_ready(LoopObject *loop, PyObject *op)
{
    SockOpObject *self = (SockOpObject *)op;
    if (self->future == NULL) {
        return 0;
    }
    PyObject *future = Py_NewRef(self->future);
    fl_state *state = loop->state;
    int rc = 0;
    if (state->layout_ok && fl_is_own_future(state, future)) {
        FutureObject *fut = (FutureObject *)future;
        if (fut->state == FL_PENDING) {
            rc = fl_future_set_result(state, fut, Py_None);
        }
    }
    else {
        PyObject *result =
            PyObject_CallFunctionObjArgs(state->set_result_unless_cancelled,
                                         future, Py_None, NULL);
        rc = result == NULL ? -1 : 0;
        Py_XDECREF(result);
    }
    Py_DECREF(future);
    return rc;
}

static int
sockop_nothing(LoopObject *Py_UNUSED(loop), PyObject *Py_UNUSED(op))
{
    return 0;
}

static const fl_channel_ops sockop_ops = {
    .readable = sockop_ready,
    .writable = sockop_ready,
    .flush = sockop_nothing,
};

/* Nobody waits any more.  A raised exception stays raised. */
static void
sockop_finish(SockOpObject *self)
{
    PyObject *loop_object = self->loop;
    if (loop_object == NULL) {
        return;
    }
    LoopObject *loop = (LoopObject *)loop_object;
    PyObject *raised = fl_take_raised();
    self->loop = NULL;
    if (self->future != NULL && !loop->closed
        && loop->forks == loop->state->forks
        && fl_watch_has(loop, self->fd, sockop_what(self), (PyObject *)self)
        && fl_watch_remove(loop, self->fd, sockop_what(self)) < 0)
    {
        PyErr_WriteUnraisable((PyObject *)self);
    }
    if (self->view.obj != NULL) {
        PyBuffer_Release(&self->view);
    }
    Py_CLEAR(self->future);
    Py_CLEAR(self->sock);
    Py_CLEAR(self->argument);
    Py_DECREF(loop_object);
    if (raised != NULL) {
        fl_put_raised(raised);
    }
}

/* --- The awaitable --------------------------------------------------------*/

/* asyncio's checks before the first attempt. */
static int
sockop_check(SockOpObject *self, fl_state *state)
{
    if (Py_TYPE(self->sock) != (PyTypeObject *)state->Socket) {
        PyObject *result =
            PyObject_CallOneArg(state->check_ssl_socket, self->sock);
        if (result == NULL) {
            return -1;
        }
        Py_DECREF(result);
    }
    if (FL_LIKELY(!((LoopObject *)self->loop)->debug)) {
        return 0;
    }
    PyObject *timeout = PyObject_CallMethod(self->sock, "gettimeout", NULL);
    PyObject *zero = timeout == NULL ? NULL : PyLong_FromLong(0);
    int same = zero == NULL ? -1 : PyObject_RichCompareBool(timeout, zero, Py_EQ);
    Py_XDECREF(timeout);
    Py_XDECREF(zero);
    if (same == 0) {
        PyErr_SetString(PyExc_ValueError, "the socket must be non-blocking");
    }
    return same > 0 ? 0 : -1;
}

/* What happened to the future that was yielded: 0 is well. */
static int
sockop_look_at_future(SockOpObject *self, fl_state *state)
{
    PyObject *result;
    if (state->layout_ok && fl_is_own_future(state, self->future)) {
        FutureObject *fut = (FutureObject *)self->future;
        result = fl_future_result(state, fut);
    }
    else {
        result = PyObject_CallMethodNoArgs(self->future, state->str_result);
    }
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Whether the future that was yielded is still pending: whoever awaits this
   once more has no business here. */
static int
sockop_is_waiting(SockOpObject *self, fl_state *state)
{
    if (!self->started || self->future == NULL) {
        return 0;
    }
    if (state->layout_ok && fl_is_own_future(state, self->future)) {
        return ((FutureObject *)self->future)->state == FL_PENDING;
    }
    PyObject *done = PyObject_CallMethod(self->future, "done", NULL);
    int is_done = done == NULL ? -1 : PyObject_IsTrue(done);
    Py_XDECREF(done);
    return is_done < 0 ? -1 : !is_done;
}

/* Real coroutines say so, too. */
static int
sockop_check_running(SockOpObject *self)
{
    if (FL_UNLIKELY(self->running)) {
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
        return -1;
    }
    return 0;
}

static PySendResult
sockop_send(PyObject *op, PyObject *Py_UNUSED(value), PyObject **result)
{
    SockOpObject *self = (SockOpObject *)op;
    *result = NULL;
    if (sockop_check_running(self) < 0) {
        return PYGEN_ERROR;
    }
    if (self->loop == NULL) {
        PyErr_SetString(PyExc_RuntimeError,
                        "cannot reuse already awaited coroutine");
        return PYGEN_ERROR;
    }
    PyObject *loop = Py_NewRef(self->loop);
    fl_state *state = ((LoopObject *)loop)->state;
    self->running = true;
    int waiting = sockop_is_waiting(self, state);
    if (FL_UNLIKELY(waiting != 0)) {
        if (waiting > 0) {
            PyErr_SetString(PyExc_RuntimeError,
                            "coroutine is being awaited already");
        }
        self->running = false;
        Py_DECREF(loop);
        return PYGEN_ERROR;
    }
    int rc = self->started ? sockop_look_at_future(self, state)
                           : sockop_check(self, state);
    PySendResult answer = PYGEN_ERROR;
    if (rc == 0) {
        rc = sockop_try(self, state, result);
        self->started = true;
        if (rc == SOCKOP_DONE) {
            answer = PYGEN_RETURN;
        }
        else if (rc == SOCKOP_BLOCKED && self->loop != NULL) {
            *result = Py_XNewRef(sockop_wait(self));
            answer = *result == NULL ? PYGEN_ERROR : PYGEN_NEXT;
        }
    }
    self->running = false;
    if (answer != PYGEN_NEXT) {
        sockop_finish(self);
    }
    Py_DECREF(loop);
    return answer;
}

static PyObject *
sockop_next(PyObject *op)
{
    fl_state *state = fl_type_state(Py_TYPE(op));
    PyObject *result;
    if (sockop_send(op, Py_None, &result) == PYGEN_RETURN) {
        if (result == Py_None) {
            Py_DECREF(result);
            return NULL;
        }
        fl_await_raise_stop(state, result);
        return NULL;
    }
    return result;
}

static PyObject *
sockop_send_method(PyObject *op, PyObject *Py_UNUSED(value))
{
    PyObject *result = sockop_next(op);
    if (result == NULL && !PyErr_Occurred()) {
        PyErr_SetNone(PyExc_StopIteration);
    }
    return result;
}

static PyObject *
sockop_throw(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    if (sockop_check_running((SockOpObject *)op) < 0) {
        return NULL;
    }
    fl_await_raise_thrown(args, nargs);
    sockop_finish((SockOpObject *)op);
    return NULL;
}

static PyObject *
sockop_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    if (sockop_check_running((SockOpObject *)op) < 0) {
        return NULL;
    }
    sockop_finish((SockOpObject *)op);
    Py_RETURN_NONE;
}

static PyObject *
sockop_get_name(PyObject *op, void *closure)
{
    return PyUnicode_FromFormat("%s%s", (const char *)closure,
                                sockop_names[((SockOpObject *)op)->kind]);
}

static int
sockop_traverse(PyObject *op, visitproc visit, void *arg)
{
    SockOpObject *self = (SockOpObject *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->loop);
    Py_VISIT(self->sock);
    Py_VISIT(self->argument);
    Py_VISIT(self->future);
    Py_VISIT(self->view.obj);
    return 0;
}

static int
sockop_clear(PyObject *op)
{
    sockop_finish((SockOpObject *)op);
    return 0;
}

/* asyncio's coroutine would have complained. */
static void
sockop_warn_unawaited(SockOpObject *self)
{
    PyObject *raised = fl_take_raised();
    if (PyErr_WarnFormat(PyExc_RuntimeWarning, 1,
                         "coroutine 'Loop.%s' was never awaited",
                         sockop_names[self->kind])
        < 0)
    {
        PyErr_WriteUnraisable((PyObject *)self);
    }
    if (raised != NULL) {
        fl_put_raised(raised);
    }
}

static void
sockop_finalize(PyObject *op)
{
    SockOpObject *self = (SockOpObject *)op;
    if (!self->started && self->loop != NULL) {
        sockop_warn_unawaited(self);
    }
}

static void
sockop_dealloc(PyObject *op)
{
    if (PyObject_CallFinalizerFromDealloc(op) < 0) {
        return;
    }
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    sockop_finish((SockOpObject *)op);
    type->tp_free(op);
    Py_DECREF(type);
}

PyObject *
fl_sockop_new(LoopObject *loop, fl_sock_kind kind, PyObject *sock,
              PyObject *argument)
{
    PyTypeObject *type = loop->state->SockOp_type;
    SockOpObject *self = (SockOpObject *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->loop = Py_NewRef(loop);
        self->sock = Py_NewRef(sock);
        self->argument = Py_XNewRef(argument);
        self->ops = &sockop_ops;
        self->kind = (uint8_t)kind;
        self->fd = -1;
    }
    return (PyObject *)self;
}

static PyMethodDef sockop_methods[] = {
    {"send", sockop_send_method, METH_O, NULL},
    {"throw", FL_METHOD(sockop_throw), METH_FASTCALL, NULL},
    {"close", sockop_close, METH_NOARGS, NULL},
    {NULL},
};

static PyGetSetDef sockop_getset[] = {
    {"__name__", sockop_get_name, NULL, NULL, ""},
    {"__qualname__", sockop_get_name, NULL, NULL, "Loop."},
    {NULL},
};

static PyType_Slot sockop_slots[] = {
    {Py_tp_doc, "What the loop's sock_* methods return."},
    {Py_tp_dealloc, sockop_dealloc},
    {Py_tp_finalize, sockop_finalize},
    {Py_tp_traverse, sockop_traverse},
    {Py_tp_clear, sockop_clear},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, sockop_next},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, sockop_send},
    {Py_tp_methods, sockop_methods},
    {Py_tp_getset, sockop_getset},
    {0, NULL},
};

static PyType_Spec sockop_spec = {
    .name = "fastloop._core.SockOp",
    .basicsize = sizeof(SockOpObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC
             | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = sockop_slots,
};

int
fl_sockop_setup(PyObject *module, fl_state *state)
{
    state->SockOp_type = fl_add_type(module, &sockop_spec, NULL);
    return state->SockOp_type == NULL ? -1 : 0;
}
