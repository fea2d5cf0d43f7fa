/* transport_api.c -- what Python sees of every transport: attributes, extra
   info, repr, and the end of its memory. */
#include "net/transport.h"

#include "base/args.h"
#include "net/sockobj.h"

/* --- Extra info -----------------------------------------------------------*/

/* The socket object of a connection that never needed one yet.  Borrowed, or
   NULL without an exception when the transport is closed. */
static PyObject *
transport_socket(TransportObject *self)
{
    if (self->file != NULL || self->fd < 0 || !self->is_socket) {
        return self->file;
    }
    /* Made in two steps: what goes wrong after the object has the descriptor
       must not let it be closed with the object. */
    fl_state *state = fl_transport_state(self);
    PyObject *sock =
        PyObject_CallMethod(state->Socket, "__new__", "O", state->Socket);
    PyObject *done =
        sock == NULL ? NULL
                     : PyObject_CallMethod(sock, "__init__", "iiii",
                                           (int)self->family,
                                           (int)SOCK_STREAM, self->proto,
                                           self->fd);
    if (done != NULL) {
        Py_SETREF(done, PyObject_CallMethodOneArg(sock, state->str_setblocking,
                                                  Py_False));
    }
    /* Runs Python above: somebody else may have made one meanwhile, or closed
       the transport. */
    if (done != NULL && self->fd >= 0 && self->file == NULL) {
        self->file = Py_NewRef(sock);
    }
    else if (sock != NULL) {
        PyObject *raised = fl_take_raised();
        Py_XDECREF(PyObject_CallMethod(sock, "detach", NULL));
        PyErr_Clear();
        if (raised != NULL) {
            fl_put_raised(raised);
        }
    }
    Py_XDECREF(done);
    Py_XDECREF(sock);
    return self->file;
}

/* What is left of a socket when the transport closed it: an object of its
   kind without a descriptor. */
static PyObject *
transport_closed_socket(TransportObject *self)
{
    PyObject *sock =
        PyObject_CallFunction(fl_transport_state(self)->Socket, "iii",
                              (int)self->family, (int)SOCK_STREAM, self->proto);
    PyObject *closed =
        sock == NULL ? NULL
                     : PyObject_CallMethodNoArgs(
                           sock, fl_transport_state(self)->str_close);
    if (closed == NULL) {
        Py_CLEAR(sock);
    }
    Py_XDECREF(closed);
    return sock;
}

static PyObject *
transport_make_socket_info(TransportObject *self)
{
    /* Whoever wants the socket may do something with it: that comes after what
       was written.  */
    if (self->held
        && self->ops->flush((LoopObject *)self->loop, (PyObject *)self) < 0)
    {
        return NULL;
    }
    PyObject *sock = Py_XNewRef(transport_socket(self));
    if (sock == NULL && !PyErr_Occurred()) {
        sock = transport_closed_socket(self);
    }
    if (sock == NULL) {
        return NULL;
    }
    PyObject *info =
        PyObject_CallOneArg(fl_transport_state(self)->TransportSocket, sock);
    Py_DECREF(sock);
    return info;
}

/* asyncio asks once, when the transport is made, and None means that the
   system call failed. */
static PyObject *
transport_make_address(TransportObject *self, fl_address *address,
                       int (*ask)(int, struct sockaddr *, socklen_t *))
{
    if (address->len > 0) {
        return fl_address_tuple(address);
    }
    struct sockaddr_storage raw;
    socklen_t len = sizeof(raw);
    if (self->fd < 0 || !fl_transport_alive(self)
        || ask(self->fd, (struct sockaddr *)&raw, &len) < 0)
    {
        Py_RETURN_NONE;
    }
    return fl_sockaddr_object((struct sockaddr *)&raw, len);
}

static int
transport_ask_name(int fd, struct sockaddr *addr, socklen_t *len)
{
    return getsockname(fd, addr, len);
}

static int
transport_ask_peer(int fd, struct sockaddr *addr, socklen_t *len)
{
    return getpeername(fd, addr, len);
}

/* One of the infos of a socket, made now.  NULL without an exception: there
   is none of that name. */
static PyObject *
transport_make_info(TransportObject *self, PyObject *name)
{
    fl_state *state = fl_transport_state(self);
    if (!self->is_socket) {
        return NULL;
    }
    if (name == state->str_peername) {
        return transport_make_address(self, &self->peer, transport_ask_peer);
    }
    if (name == state->str_sockname) {
        return transport_make_address(self, &self->name, transport_ask_name);
    }
    return name == state->str_socket ? transport_make_socket_info(self) : NULL;
}

/* extra[name], made if need be.  New reference; NULL without an exception. */
static PyObject *
transport_find_info(TransportObject *self, PyObject *name)
{
    PyObject *value = NULL;
    if (self->extra != NULL) {
        value = PyDict_GetItemWithError(self->extra, name);
        if (value != NULL || PyErr_Occurred()) {
            return Py_XNewRef(value);
        }
    }
    value = transport_make_info(self, name);
    if (value == NULL) {
        return NULL;
    }
    if (self->extra == NULL) {
        self->extra = PyDict_New();
    }
    if (self->extra == NULL || PyDict_SetItem(self->extra, name, value) < 0) {
        Py_CLEAR(value);
    }
    return value;
}

PyObject *
fl_transport_info(TransportObject *self, PyObject *name)
{
    PyObject *value = transport_find_info(self, name);
    if (value == NULL && !PyErr_Occurred()) {
        value = Py_NewRef(Py_None);
    }
    return value;
}

/* The name as the interned string that the code above compares with. */
static PyObject *
transport_known_name(fl_state *state, PyObject *name)
{
    PyObject *known[] = {state->str_socket, state->str_peername,
                         state->str_sockname};
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (name == known[i]
            || (PyUnicode_CheckExact(name)
                && PyUnicode_Compare(name, known[i]) == 0))
        {
            return known[i];
        }
    }
    return name;
}

PyObject *
fl_transport_py_get_extra_info(PyObject *op, PyObject *const *args,
                               Py_ssize_t nargs, PyObject *names)
{
    TransportObject *self = (TransportObject *)op;
    PyObject *found[2] = {NULL, Py_None};
    if (fl_two_arguments("get_extra_info",
                         (const char *const[]){"name", "default"}, args,
                         nargs, names, found)
        < 0)
    {
        return NULL;
    }
    PyObject *name =
        transport_known_name(fl_transport_state(self), found[0]);
    PyObject *value = transport_find_info(self, name);
    if (value == NULL && !PyErr_Occurred()) {
        value = Py_NewRef(found[1]);
    }
    return value;
}

/* _extra as asyncio has it, with everything in it. */
static PyObject *
transport_get_extra(PyObject *op, void *Py_UNUSED(closure))
{
    TransportObject *self = (TransportObject *)op;
    fl_state *state = fl_type_state(Py_TYPE(op));
    PyObject *names[] = {state->str_socket, state->str_sockname,
                         state->str_peername};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        PyObject *value = transport_find_info(self, names[i]);
        if (value == NULL && PyErr_Occurred()) {
            return NULL;
        }
        Py_XDECREF(value);
    }
    if (self->extra == NULL) {
        self->extra = PyDict_New();
    }
    return Py_XNewRef(self->extra);
}

/* --- Methods --------------------------------------------------------------*/

PyObject *
fl_transport_py_abort(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    if (fl_transport_force_close((TransportObject *)op, NULL) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *
fl_transport_py_force_close(PyObject *op, PyObject *exc)
{
    if (fl_transport_force_close((TransportObject *)op, exc) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *
fl_transport_py_is_closing(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(((TransportObject *)op)->closing);
}

PyObject *
fl_transport_py_is_reading(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    TransportObject *self = (TransportObject *)op;
    return PyBool_FromLong(!self->closing && !self->paused);
}

PyObject *
fl_transport_py_pause_reading(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    TransportObject *self = (TransportObject *)op;
    if (!self->closing && !self->paused) {
        self->paused = true;
        fl_transport_stop_reading(self);
        if (fl_transport_log(self, "%r pauses reading") < 0) {
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

PyObject *
fl_transport_py_resume_reading(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    TransportObject *self = (TransportObject *)op;
    if (!self->closing && self->paused) {
        self->paused = false;
        if (fl_transport_start_reading(self) < 0
            || fl_transport_log(self, "%r resumes reading") < 0)
        {
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

PyObject *
fl_transport_py_start_reading(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    if (fl_transport_start_reading((TransportObject *)op) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *
fl_transport_py_get_protocol(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    PyObject *protocol = ((TransportObject *)op)->protocol;
    return Py_NewRef(protocol == NULL ? Py_None : protocol);
}

PyObject *
fl_transport_py_buffer_size(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromSize_t(fl_transport_buffered((TransportObject *)op));
}

PyObject *
fl_transport_py_maybe_pause(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    TransportObject *self = (TransportObject *)op;
    if (fl_transport_maybe_pause(self, fl_transport_buffered(self)) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *
fl_transport_py_lose(PyObject *op, PyObject *exc)
{
    if (fl_transport_lose((TransportObject *)op, exc) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* --- Attributes -----------------------------------------------------------*/

static PyObject *
transport_get_file(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *file = transport_socket((TransportObject *)op);
    if (file == NULL && PyErr_Occurred()) {
        return NULL;
    }
    return Py_NewRef(file == NULL ? Py_None : file);
}

/* Only to None, as asyncio's tests do: who does so closes it himself. */
static int
transport_set_file(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    TransportObject *self = (TransportObject *)op;
    if (value != Py_None) {
        PyErr_SetString(PyExc_AttributeError,
                        "a transport keeps its file to the end");
        return -1;
    }
    if (self->fd >= 0 && self->loop != NULL) {
        fl_transport_stop_reading(self);
        fl_transport_stop_writing(self);
        fl_watch_disown((LoopObject *)self->loop, self->fd, op);
    }
    self->fd = -1;
    Py_CLEAR(self->file);
    return 0;
}

/* asyncio's flow control methods, which we inherit, read and set these. */
static PyObject *
transport_get_high(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromSsize_t(((TransportObject *)op)->high_water);
}

static PyObject *
transport_get_low(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromSsize_t(((TransportObject *)op)->low_water);
}

static int
transport_set_limit(Py_ssize_t *limit, PyObject *value)
{
    PyObject *number = value == NULL ? NULL : PyNumber_Long(value);
    if (number == NULL) {
        if (value == NULL) {
            PyErr_SetString(PyExc_AttributeError, "cannot be deleted");
        }
        return -1;
    }
    Py_ssize_t size = PyNumber_AsSsize_t(number, NULL);  // clipped
    Py_DECREF(number);
    if (size == -1 && PyErr_Occurred()) {
        return -1;
    }
    *limit = size;
    return 0;
}

static int
transport_set_high(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    return transport_set_limit(&((TransportObject *)op)->high_water, value);
}

static int
transport_set_low(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    return transport_set_limit(&((TransportObject *)op)->low_water, value);
}

/* One getter for the flags: the closure says which. */
enum { FLAG_CLOSING, FLAG_PAUSED, FLAG_EOF, FLAG_PROTOCOL_PAUSED };

static PyObject *
transport_get_flag(PyObject *op, void *closure)
{
    TransportObject *self = (TransportObject *)op;
    switch ((int)(intptr_t)closure) {
    case FLAG_CLOSING:
        return PyBool_FromLong(self->closing);
    case FLAG_PAUSED:
        return PyBool_FromLong(self->paused);
    case FLAG_EOF:
        return PyBool_FromLong(self->eof);
    default:
        return PyBool_FromLong(self->protocol_paused);
    }
}

static PyObject *
transport_get_loop(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *loop = ((TransportObject *)op)->loop;
    return Py_NewRef(loop == NULL ? Py_None : loop);
}

static PyObject *
transport_get_protocol_attr(PyObject *op, void *Py_UNUSED(closure))
{
    return fl_transport_py_get_protocol(op, NULL);
}

PyMemberDef fl_transport_members[] = {
    FL_TRANSPORT_MEMBERS,
    {NULL},
};

PyGetSetDef fl_transport_getset[] = {
    {"_extra", transport_get_extra, NULL, NULL, NULL},
    {"_loop", transport_get_loop, NULL, NULL, NULL},
    {"_protocol", transport_get_protocol_attr, NULL, NULL, NULL},
    {"_sock", transport_get_file, transport_set_file, NULL, NULL},
    {"_pipe", transport_get_file, transport_set_file, NULL, NULL},
    {"_high_water", transport_get_high, transport_set_high, NULL, NULL},
    {"_low_water", transport_get_low, transport_set_low, NULL, NULL},
    {"_closing", transport_get_flag, NULL, NULL, (void *)FLAG_CLOSING},
    {"_paused", transport_get_flag, NULL, NULL, (void *)FLAG_PAUSED},
    {"_eof", transport_get_flag, NULL, NULL, (void *)FLAG_EOF},
    {"_protocol_paused", transport_get_flag, NULL, NULL,
     (void *)FLAG_PROTOCOL_PAUSED},
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL,
     NULL},
    {NULL},
};

int
fl_transport_init(PyObject *Py_UNUSED(op), PyObject *Py_UNUSED(args),
                  PyObject *Py_UNUSED(kwargs))
{
    return 0;
}

PyObject *
fl_transport_repr(PyObject *op)
{
    TransportObject *self = (TransportObject *)op;
    const char *name = strrchr(Py_TYPE(op)->tp_name, '.');
    name = name == NULL ? Py_TYPE(op)->tp_name : name + 1;
    const char *state = self->fd < 0 ? " closed"
                        : self->closing ? " closing"
                                        : "";
    LoopObject *loop = (LoopObject *)self->loop;
    if (loop == NULL || loop->closed) {
        return PyUnicode_FromFormat("<%s%s fd=%d>", name, state, self->number);
    }
    return PyUnicode_FromFormat(
        "<%s%s fd=%d read=%s write=<%s, bufsize=%zu>>", name, state, self->number,
        self->reading ? "polling" : "idle",
        self->writing ? "polling" : "idle", fl_transport_buffered(self));
}

/* --- Memory ---------------------------------------------------------------*/

int
fl_transport_traverse(PyObject *op, visitproc visit, void *arg)
{
    TransportObject *self = (TransportObject *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->extra);
    Py_VISIT(self->loop);
    Py_VISIT(self->protocol);
    Py_VISIT(self->server);
    Py_VISIT(self->file);
    Py_VISIT(self->dict);
    Py_VISIT(self->context);
    Py_VISIT(self->read_context);
    Py_VISIT(self->write_context);
    Py_VISIT(self->empty_waiter);
    return 0;
}

int
fl_transport_clear(PyObject *op)
{
    TransportObject *self = (TransportObject *)op;
    fl_transport_close_file(self);
    fl_writeq_clear(&self->queue);
    Py_CLEAR(self->extra);
    Py_CLEAR(self->loop);
    Py_CLEAR(self->protocol);
    Py_CLEAR(self->server);
    Py_CLEAR(self->file);
    Py_CLEAR(self->dict);
    Py_CLEAR(self->context);
    Py_CLEAR(self->read_context);
    Py_CLEAR(self->write_context);
    Py_CLEAR(self->empty_waiter);
    return 0;
}

/* A transport that nobody closed: asyncio warns and closes it. */
void
fl_transport_finalize(PyObject *op)
{
    TransportObject *self = (TransportObject *)op;
    if (self->fd < 0) {
        return;
    }
    PyObject *raised = fl_take_raised();
    if (PyErr_ResourceWarning(op, 1, "unclosed transport %R", op) < 0) {
        PyErr_WriteUnraisable(op);
    }
    fl_transport_close_file(self);
    fl_state *state = fl_type_state(Py_TYPE(op));
    if (self->server != NULL && state != NULL && state->servers_know_clients) {
        PyObject *result = PyObject_CallMethodOneArg(
            self->server, state->str__detach, op);
        if (result == NULL) {
            PyErr_WriteUnraisable(op);
        }
        Py_XDECREF(result);
    }
    if (raised != NULL) {
        fl_put_raised(raised);
    }
}

void
fl_transport_free(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    type->tp_free(op);
    Py_DECREF(type);
}

void
fl_transport_dealloc(PyObject *op)
{
    if (PyObject_CallFinalizerFromDealloc(op) < 0) {
        return;  /* somebody holds it again */
    }
    PyObject_GC_UnTrack(op);
    fl_transport_clear_weakrefs(op);
    fl_transport_clear(op);
    fl_transport_free(op);
}
