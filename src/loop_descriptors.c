/* loop_descriptors.c -- the Loop's methods that watch descriptors: add_reader
   and its kin, for users and (with an underscore) for asyncio's own code. */
#include "loop_descriptors.h"

#include "base/args.h"
#include "loop/channel.h"
#include "loop/watcher.h"
#include "loop_calls.h"
#include "net/sockop.h"
#include "net/transport.h"

static int
loop_parse_fd(LoopObject *loop, PyObject *file, int *fd)
{
    PyObject *number;
    if (PyLong_CheckExact(file)) {
        number = Py_NewRef(file);
    }
    else {
        /* asyncio's rules and messages are those of selectors. */
        number = PyObject_CallOneArg(loop->state->fileobj_to_fd, file);
        if (number == NULL) {
            return -1;
        }
    }
    long value = PyLong_AsLong(number);
    Py_DECREF(number);
    if (value == -1 && PyErr_Occurred()) {
        return -1;
    }
    if (value < 0 || value > INT_MAX) {
        PyErr_Format(PyExc_ValueError, "Invalid file descriptor: %ld", value);
        return -1;
    }
    *fd = (int)value;
    return 0;
}

/* asyncio's _ensure_fd_no_transport: transports of ours, and of asyncio's own
   classes, which a subclass may use. */
static int
loop_check_free(LoopObject *loop, PyObject *file)
{
    int fd;
    if (PyLong_CheckExact(file)) {
        fd = (int)PyLong_AsLong(file);
        if (fd == -1 && PyErr_Occurred()) {
            PyErr_Clear();
        }
    }
    else if (loop_parse_fd(loop, file, &fd) < 0) {
        return -1;
    }
    if (fl_transport_check_free(loop, fd, file) < 0) {
        return -1;
    }
    if (FL_LIKELY(loop->transports == NULL)) {
        return 0;
    }
    PyObject *result =
        PyObject_CallMethod((PyObject *)loop, "_check_transports", "(O)", file);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

PyObject *
fl_loop_py_check_free(PyObject *op, PyObject *file)
{
    if (loop_check_free((LoopObject *)op, file) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
loop_add_watch(LoopObject *loop, const char *method, uint32_t what,
               PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    int fd;
    PyObject *context = NULL;
    if (FL_UNLIKELY(!fl_is_common_call(args, nargs, 2, names,
                                       loop->state->str_context, &context)))
    {
        return fl_loop_call_by_keyword((PyObject *)loop, method, args, nargs,
                                    names);
    }
    if (fl_loop_check_closed(loop) < 0 || fl_loop_check_fork(loop) < 0
        || loop_parse_fd(loop, args[0], &fd) < 0)
    {
        return NULL;
    }
    /* Not the loop's shared snapshot: what the callback sets in its context
       it finds again the next time. */
    context = context == NULL || context == Py_None ? PyContext_CopyCurrent()
                                                    : Py_NewRef(context);
    HandleObject *handle =
        context == NULL ? NULL
                        : fl_handle_new(loop, args[1], args + 2, nargs - 2,
                                        context, false);
    Py_XDECREF(context);
    if (handle == NULL) {
        return NULL;
    }
    handle->repeats = true;
    /* Returned to the caller, watched, queued: the collector must see it. */
    PyObject_GC_Track(handle);
    if (fl_watch_set(loop, fd, what, (PyObject *)handle) < 0) {
        Py_DECREF(handle);
        return NULL;
    }
    return (PyObject *)handle;
}

static PyObject *
loop_remove_watch(LoopObject *loop, PyObject *file, uint32_t what)
{
    int fd;
    if (loop->closed) {
        Py_RETURN_FALSE;
    }
    if (loop_parse_fd(loop, file, &fd) < 0 || fl_loop_check_fork(loop) < 0) {
        return NULL;
    }
    int rc = fl_watch_remove(loop, fd, what);
    return rc < 0 ? NULL : PyBool_FromLong(rc);
}

PyObject *
fl_loop_py_add_raw_reader(PyObject *op, PyObject *const *args,
    Py_ssize_t nargs, PyObject *names)
{
    return loop_add_watch((LoopObject *)op, "_add_reader", FL_POLL_READ, args,
                          nargs, names);
}

PyObject *
fl_loop_py_add_raw_writer(PyObject *op, PyObject *const *args,
    Py_ssize_t nargs, PyObject *names)
{
    return loop_add_watch((LoopObject *)op, "_add_writer", FL_POLL_WRITE, args,
                          nargs, names);
}

PyObject *
fl_loop_py_remove_raw_reader(PyObject *op, PyObject *file)
{
    return loop_remove_watch((LoopObject *)op, file, FL_POLL_READ);
}

PyObject *
fl_loop_py_remove_raw_writer(PyObject *op, PyObject *file)
{
    return loop_remove_watch((LoopObject *)op, file, FL_POLL_WRITE);
}

/* The public four: the descriptor must not be a transport's. */
static PyObject *
loop_add_user_watch(PyObject *op, const char *method, uint32_t what,
                    PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    if (nargs < 2 || names != NULL) {
        return fl_loop_call_by_keyword(op, method, args, nargs, names);
    }
    if (loop_check_free((LoopObject *)op, args[0]) < 0) {
        return NULL;
    }
    PyObject *handle = loop_add_watch((LoopObject *)op, method, what, args,
                                      nargs, NULL);
    if (handle == NULL) {
        return NULL;
    }
    Py_DECREF(handle);
    Py_RETURN_NONE;
}

PyObject *
fl_loop_py_add_reader(PyObject *op, PyObject *const *args,
    Py_ssize_t nargs, PyObject *names)
{
    return loop_add_user_watch(op, "add_reader", FL_POLL_READ, args, nargs,
                               names);
}

PyObject *
fl_loop_py_add_writer(PyObject *op, PyObject *const *args,
    Py_ssize_t nargs, PyObject *names)
{
    return loop_add_user_watch(op, "add_writer", FL_POLL_WRITE, args, nargs,
                               names);
}

PyObject *
fl_loop_py_remove_reader(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *names)
{
    PyObject *file =
        fl_one_argument("remove_reader", "fd", args, nargs, names);
    return file == NULL || loop_check_free((LoopObject *)op, file) < 0
               ? NULL
               : loop_remove_watch((LoopObject *)op, file, FL_POLL_READ);
}

PyObject *
fl_loop_py_remove_writer(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *names)
{
    PyObject *file =
        fl_one_argument("remove_writer", "fd", args, nargs, names);
    return file == NULL || loop_check_free((LoopObject *)op, file) < 0
               ? NULL
               : loop_remove_watch((LoopObject *)op, file, FL_POLL_WRITE);
}

const char fl_loop_add_reader_doc[] =
    "add_reader($self, fd, callback, *args)\n--\n\n"
    "Call back whenever a descriptor can be read.";
const char fl_loop_add_writer_doc[] =
    "add_writer($self, fd, callback, *args)\n--\n\n"
    "Call back whenever a descriptor can be written to.";
const char fl_loop_remove_reader_doc[] =
    "remove_reader($self, fd)\n--\n\n"
    "Stop it; tell whether there was one.";
const char fl_loop_remove_writer_doc[] =
    "remove_writer($self, fd)\n--\n\n"
    "Stop it; tell whether there was one.";

const char fl_loop_flush_doc[] =
    "Send what transports hold back.";

PyObject *
fl_loop_py_flush(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    if (fl_flush_held((LoopObject *)op) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

const char fl_loop_watched_doc[] =
    "The events (1: read, 2: write) that a descriptor is watched "
    "for.";

PyObject *
fl_loop_py_watched(PyObject *op, PyObject *file)
{
    LoopObject *loop = (LoopObject *)op;
    int fd;
    if (loop_parse_fd(loop, file, &fd) < 0) {
        return NULL;
    }
    return PyLong_FromUnsignedLong(fl_watch_waited_for(loop, fd));
}

const char fl_loop_watch_signals_doc[] =
    "Read signal numbers from a descriptor (-1: no more).";

PyObject *
fl_loop_py_watch_signals(PyObject *op, PyObject *file)
{
    LoopObject *loop = (LoopObject *)op;
    long fd = PyLong_AsLong(file);
    if (fd == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (loop->signal_fd >= 0 && loop->poller.epoll_fd >= 0
        && loop->forks == loop->state->forks)
    {
        (void)fl_poller_set(&loop->poller, loop->signal_fd, FL_POLL_READ, 0);
    }
    loop->signal_fd = -1;
    if (fd >= 0) {
        int rc = fl_poller_set(&loop->poller, (int)fd, 0, FL_POLL_READ);
        if (rc < 0) {
            fl_raise_errno(rc);
            return NULL;
        }
        loop->signal_fd = (int)fd;
    }
    Py_RETURN_NONE;
}

/* --- sock_* ---------------------------------------------------------------*/

static PyObject *
loop_sock_call(PyObject *op, const char *method, fl_sock_kind kind,
               PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    if (nargs != 2 || names != NULL) {
        return fl_loop_call_by_keyword(op, method, args, nargs, names);
    }
    return fl_sockop_new((LoopObject *)op, kind, args[0], args[1]);
}

const char fl_loop_sock_recv_doc[] =
    "sock_recv($self, sock, n)\n--\n\n"
    "Receive at most n bytes.";

PyObject *
fl_loop_py_sock_recv(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                     PyObject *names)
{
    return loop_sock_call(op, "sock_recv", FL_SOCK_RECV, args, nargs, names);
}

const char fl_loop_sock_recv_into_doc[] =
    "sock_recv_into($self, sock, buf)\n--\n\n"
    "Receive into a buffer; return how many bytes.";

PyObject *
fl_loop_py_sock_recv_into(PyObject *op, PyObject *const *args,
                          Py_ssize_t nargs, PyObject *names)
{
    return loop_sock_call(op, "sock_recv_into", FL_SOCK_RECV_INTO, args,
                          nargs, names);
}

const char fl_loop_sock_sendall_doc[] =
    "sock_sendall($self, sock, data)\n--\n\n"
    "Send all of data.";

PyObject *
fl_loop_py_sock_sendall(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                        PyObject *names)
{
    return loop_sock_call(op, "sock_sendall", FL_SOCK_SENDALL, args, nargs,
                          names);
}

/* What the Python half of sock_* awaits after a call that would block. */
PyObject *
fl_loop_py_wait_readable(PyObject *op, PyObject *sock)
{
    return fl_sockop_new((LoopObject *)op, FL_SOCK_READABLE, sock, NULL);
}

PyObject *
fl_loop_py_wait_writable(PyObject *op, PyObject *sock)
{
    return fl_sockop_new((LoopObject *)op, FL_SOCK_WRITABLE, sock, NULL);
}
