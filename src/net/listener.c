/* listener.c -- accepting connections for a server.

   asyncio runs one task for each connection, from accept to connection_made.
   Here the transport itself is queued in that task's place: it makes the
   protocol in the next iteration, and schedules connection_made.

   When descriptors run out, the listener reports it, rests for a second and
   tries again. */
#include "net/listener.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include "loop/report.h"
#include "net/sockobj.h"
#include "net/socket.h"
#include "os/sockcall.h"

/* asyncio.constants.ACCEPT_RETRY_DELAY, in seconds. */
#define LISTENER_REST 1.0

typedef struct {
    PyObject_HEAD
    /* Where a channel has its slots: channel.h. */
    PyObject *loop;
    PyObject *factory;
    PyObject *sock;
    PyObject *server;   /* or NULL */
    PyObject *context;  /* of which each connection gets a copy */
    const fl_channel_ops *ops;
    int fd;
    int backlog;
    int proto;
    uint8_t family;
    PyObject *tls;      /* (context, handshake and shutdown timeout), or NULL */
    fl_address name;    /* bound to, unless that is a wildcard */
    bool came_alone;    /* the last one: see listener_readable */
    bool own_contexts;  /* each transport keeps its copy (3.15) */
} ListenerObject;

/* --- A new connection -----------------------------------------------------*/

/* The protocol could not be made: asyncio drops the connection, and says so
   in debug mode. */
static int
listener_drop(TransportObject *self)
{
    if (fl_report_must_leave()) {
        return -1;
    }
    LoopObject *loop = fl_transport_loop(self);
    PyObject *exc = fl_take_raised();
    int rc = fl_loop_debug(loop);
    if (rc > 0) {
        PyObject *context = Py_BuildValue(
            "{sssO}", "message",
            "Error on transport creation for incoming connection",
            "exception", exc);
        PyObject *result =
            context == NULL
                ? NULL
                : PyObject_CallMethodOneArg(
                      (PyObject *)loop,
                      loop->state->str_call_exception_handler, context);
        Py_XDECREF(context);
        Py_XDECREF(result);
        rc = result == NULL ? -1 : 0;
    }
    Py_DECREF(exc);
    return rc;
}

/* protocol_factory(), and the transport is one.  Runs Python. */
static int
listener_introduce(TransportObject *self, ListenerObject *listener)
{
    fl_state *state = fl_transport_state(self);
    PyObject *protocol = PyObject_CallNoArgs(listener->factory);
    if (protocol != NULL && listener->tls != NULL) {
        Py_SETREF(protocol, state->tls_accept(state, self->loop, protocol,
                                              listener->tls));
    }
    if (protocol == NULL) {
        return -1;
    }
    int rc = fl_socket_adopt(self, protocol);
    Py_DECREF(protocol);
    if (rc == 0 && listener->server != NULL) {
        rc = fl_transport_attach(self, listener->server);
    }
    return rc < 0 ? -1
                  : fl_transport_begin(self, state->str__start_reading, NULL);
}

/* The iteration after accept(). */
static int
listener_welcome(LoopObject *loop, PyObject *op)
{
    TransportObject *self = (TransportObject *)op;
    ListenerObject *listener = (ListenerObject *)self->protocol;
    self->protocol = NULL;
    PyThreadState *ts = PyThreadState_Get();
    PyObject *context = PyContext_Copy(listener->context);
    int rc = context == NULL ? -1
                             : fl_context_enter(loop->state, ts, context);
    if (rc == 0) {
        if (listener->own_contexts) {
            self->context = Py_NewRef(context);
        }
        rc = listener_introduce(self, listener);
        if (rc < 0) {
            rc = listener_drop(self);
            PyObject *raised = rc < 0 ? fl_take_raised() : NULL;
            self->closing = true;
            fl_transport_close_file(self);
            if (fl_transport_detach(self) < 0) {
                PyErr_WriteUnraisable(op);
            }
            Py_CLEAR(self->loop);
            if (raised != NULL) {
                fl_put_raised(raised);
            }
        }
        if (fl_context_exit(loop->state, ts, context) < 0) {
            rc = -1;
        }
    }
    Py_XDECREF(context);
    if (rc < 0) {
        rc = fl_report_step((PyObject *)loop, (PyObject *)listener);
    }
    Py_DECREF(listener);
    return rc;
}

static int
listener_nothing(LoopObject *Py_UNUSED(loop), PyObject *Py_UNUSED(op))
{
    return 0;
}

static const fl_channel_ops newborn_ops = {
    .readable = listener_welcome,
    .writable = listener_nothing,
    .flush = listener_nothing,
};

/* Takes possession of fd. */
static int
listener_take(ListenerObject *self, LoopObject *loop, int fd,
              const struct sockaddr *peer, socklen_t len)
{
    TransportObject *transport = fl_transport_alloc(
        loop->state->SocketTransport_type, &newborn_ops);
    if (transport == NULL) {
        close(fd);
        return -1;
    }
    transport->is_socket = true;
    transport->family = self->family;
    transport->proto = self->proto;
    transport->name = self->name;
    fl_address_set(&transport->peer, peer, len);
    if (fl_transport_own(transport, loop, fd) < 0) {
        Py_DECREF(transport);
        close(fd);
        return -1;
    }
    transport->protocol = Py_NewRef(self);  // for listener_welcome
    return fl_loop_push(loop, (PyObject *)transport, FL_READY_READ);
}

/* --- Accepting ------------------------------------------------------------*/

static bool
listener_is_out_of_resources(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS
           || error == ENOMEM;
}

/* Reports the raised error, and comes back later. */
static int
listener_rest(ListenerObject *self, LoopObject *loop)
{
    fl_state *state = loop->state;
    PyObject *exc = fl_take_raised();
    int rc = fl_watch_remove(loop, self->fd, FL_POLL_READ) < 0 ? -1 : 0;
    PyObject *sock =
        rc < 0 ? NULL : PyObject_CallOneArg(state->TransportSocket, self->sock);
    PyObject *context =
        sock == NULL ? NULL
                     : Py_BuildValue("{sssOsO}", "message",
                                     "socket.accept() out of system resource",
                                     "exception", exc, "socket", sock);
    PyObject *result = context == NULL
                           ? NULL
                           : PyObject_CallMethodOneArg(
                                 (PyObject *)loop,
                                 state->str_call_exception_handler, context);
    if (result != NULL) {
        PyObject *resume = PyObject_GetAttrString((PyObject *)self, "resume");
        Py_SETREF(result, resume == NULL ? NULL
                                         : PyObject_CallMethod(
                                               (PyObject *)loop, "call_later",
                                               "dO", LISTENER_REST, resume));
        Py_XDECREF(resume);
    }
    Py_DECREF(exc);
    Py_XDECREF(sock);
    Py_XDECREF(context);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* 1: there may be more. */
static int
listener_accept(ListenerObject *self, LoopObject *loop)
{
    struct sockaddr_storage peer;
    socklen_t len = sizeof(peer);
    int fd = accept4(self->fd, (struct sockaddr *)&peer, &len,
                     SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        return listener_take(self, loop, fd, (struct sockaddr *)&peer, len) < 0
                   ? -1
                   : 1;
    }
    if (errno == ECONNABORTED || errno == EPROTO) {
        return 1;  /* that one is gone already */
    }
    if (fl_sys_must_wait(errno)) {
        return 0;
    }
    int error = errno;
    PyErr_SetFromErrno(PyExc_OSError);
    return listener_is_out_of_resources(error) ? listener_rest(self, loop)
                                               : -1;
}

static int
listener_readable(LoopObject *loop, PyObject *op)
{
    ListenerObject *self = (ListenerObject *)op;
    if (!fl_watch_has(loop, self->fd, FL_POLL_READ, op)
        || fl_socket_fd(loop->state, self->sock) != self->fd)
    {
        return 0;  /* the server was closed since */
    }
    /* To call once more and find nobody costs a part of a connection's accept.
       So after somebody who came alone, only one is accepted; whether there
       are more, the poller knows, and then all are (benchmarks/network,
       `accept`). */
    int more = 1;
    int most = self->came_alone ? 1 : self->backlog + 1;
    int count = 0;
    while (more > 0 && count < most) {
        more = listener_accept(self, loop);
        count++;
    }
    self->came_alone = !self->came_alone && more == 0 && count == 2;
    fl_loop_poll_soon(loop);
    return more < 0 ? fl_report_step((PyObject *)loop, op) : 0;
}

static const fl_channel_ops listener_ops = {
    .readable = listener_readable,
    .writable = listener_nothing,
    .flush = listener_nothing,
};

/* --- The type -------------------------------------------------------------*/

static PyObject *
listener_resume(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    ListenerObject *self = (ListenerObject *)op;
    LoopObject *loop = (LoopObject *)self->loop;
    if (loop != NULL && !loop->closed
        && fl_socket_fd(loop->state, self->sock) == self->fd
        && fl_watch_set_channel(loop, self->fd, FL_POLL_READ, op) < 0)
    {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef listener_methods[] = {
    {"resume", listener_resume, METH_NOARGS,
     PyDoc_STR("Accept connections again, unless the socket is closed.")},
    {NULL},
};

static int
listener_traverse(PyObject *op, visitproc visit, void *arg)
{
    ListenerObject *self = (ListenerObject *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->loop);
    Py_VISIT(self->factory);
    Py_VISIT(self->sock);
    Py_VISIT(self->server);
    Py_VISIT(self->context);
    Py_VISIT(self->tls);
    return 0;
}

static int
listener_clear(PyObject *op)
{
    ListenerObject *self = (ListenerObject *)op;
    Py_CLEAR(self->loop);
    Py_CLEAR(self->factory);
    Py_CLEAR(self->sock);
    Py_CLEAR(self->server);
    Py_CLEAR(self->context);
    Py_CLEAR(self->tls);
    return 0;
}

static void
listener_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    listener_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

/* How sockets that this one accepts are described in Python. */
static void
listener_ask_socket(ListenerObject *self)
{
    int value;
    socklen_t len = sizeof(value);
    if (getsockopt(self->fd, SOL_SOCKET, SO_DOMAIN, &value, &len) == 0) {
        self->family = (uint8_t)value;
    }
    len = sizeof(value);
    if (getsockopt(self->fd, SOL_SOCKET, SO_PROTOCOL, &value, &len) == 0) {
        self->proto = value;
    }
    struct sockaddr_storage name;
    len = sizeof(name);
    if (getsockname(self->fd, (struct sockaddr *)&name, &len) == 0
        && !fl_sockaddr_is_wildcard((struct sockaddr *)&name))
    {
        fl_address_set(&self->name, &name, len);
    }
    if (self->family == AF_INET || self->family == AF_INET6) {
        /* Its connections inherit that. */
        int on = 1;
        (void)setsockopt(self->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
}

const char fl_loop_listen_doc[] =
    "_listen($self, factory, sock, server, backlog, context, tls, /)\n--\n\n"
    "Accept connections, with TLS unless the last argument is None.";

PyObject *
fl_loop_py_listen(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    LoopObject *loop = (LoopObject *)op;
    fl_state *state = loop->state;
    if (nargs != 6) {
        PyErr_SetString(PyExc_TypeError, "_listen() takes six arguments");
        return NULL;
    }
    long backlog = PyLong_AsLong(args[3]);
    if ((backlog == -1 && PyErr_Occurred())
        || fl_loop_check_closed(loop) < 0 || fl_loop_check_fork(loop) < 0)
    {
        return NULL;
    }
    int fd = fl_sockobj_ask(state, args[1]);
    if (fd < 0) {
        if (!PyErr_Occurred()) {
            PyErr_Format(PyExc_ValueError, "Invalid file descriptor: %d", fd);
        }
        return NULL;
    }
    PyTypeObject *type = state->Listener_type;
    ListenerObject *self = (ListenerObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->ops = &listener_ops;
    self->fd = fd;
    self->backlog = backlog > INT_MAX - 1 ? INT_MAX - 1 : (int)backlog;
    self->loop = Py_NewRef(loop);
    self->factory = Py_NewRef(args[0]);
    self->sock = Py_NewRef(args[1]);
    self->server = args[2] == Py_None ? NULL : Py_NewRef(args[2]);
    self->tls = args[5] == Py_None ? NULL : Py_NewRef(args[5]);
    self->own_contexts = args[4] != Py_None;
    self->context = self->own_contexts ? Py_NewRef(args[4])
                                       : PyContext_CopyCurrent();
    listener_ask_socket(self);
    if (self->context == NULL
        || fl_watch_set_channel(loop, fd, FL_POLL_READ, (PyObject *)self) < 0)
    {
        Py_DECREF(self);
        return NULL;
    }
    Py_DECREF(self);
    Py_RETURN_NONE;
}

static PyType_Slot listener_slots[] = {
    {Py_tp_doc, "A socket that accepts connections."},
    {Py_tp_dealloc, listener_dealloc},
    {Py_tp_traverse, listener_traverse},
    {Py_tp_clear, listener_clear},
    {Py_tp_methods, listener_methods},
    {0, NULL},
};

static PyType_Spec listener_spec = {
    .name = "fastloop._core.Listener",
    .basicsize = sizeof(ListenerObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC
             | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = listener_slots,
};

int
fl_listener_setup(PyObject *module, fl_state *state)
{
    state->Listener_type = fl_add_type(module, &listener_spec, NULL);
    return state->Listener_type == NULL ? -1 : 0;
}
