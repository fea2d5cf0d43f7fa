/* transport_make.c -- the beginning of every transport. */
#include "net/transport.h"

#include "loop/schedule.h"
#include "net/sockobj.h"

/* What glibc is told once: see transport_calm_allocator. */
#define TRANSPORT_CALM_SIZE (2 * 1024 * 1024)

/* glibc gives freed memory back to the kernel and asks for it again, page by
   page, unless it has seen a block of such a size freed: then it expects more
   of them.  Who handles messages of 100 KiB pays a third of his time for that
   (benchmarks/network, `streams-100k-10`).  So with the first transport a
   larger block is freed, untouched; what the process may keep unused for it is
   twice that size. */
static void
transport_calm_allocator(fl_state *state)
{
    if (!state->allocator_is_calm) {
        state->allocator_is_calm = true;
        void *volatile block = malloc(TRANSPORT_CALM_SIZE);
        free(block);
    }
}

TransportObject *
fl_transport_alloc(PyTypeObject *type, const fl_channel_ops *ops)
{
    TransportObject *self = (TransportObject *)type->tp_alloc(type, 0);
    if (self != NULL) {
        transport_calm_allocator(fl_type_state(type));
        self->ops = ops;
        self->fd = -1;
        self->high_water = 64 * 1024;
        self->low_water = 16 * 1024;
        fl_writeq_init(&self->queue);
    }
    return self;
}

int
fl_transport_check_free(LoopObject *loop, int fd, PyObject *file)
{
    PyObject *owner = fl_watch_owner(loop, fd);
    if (FL_LIKELY(owner == NULL || ((TransportObject *)owner)->closing)) {
        return 0;
    }
    Py_INCREF(owner);
    PyErr_Format(PyExc_RuntimeError,
                 "File descriptor %R is used by transport %R", file, owner);
    Py_DECREF(owner);
    return -1;
}

int
fl_transport_own(TransportObject *self, LoopObject *loop, int fd)
{
    if (fl_watch_own(loop, fd, (PyObject *)self) < 0) {
        return -1;
    }
    self->fd = self->number = fd;
    Py_XSETREF(self->loop, Py_NewRef(loop));
    self->protocol_connected = true;
    return 0;
}

int
fl_transport_attach(TransportObject *self, PyObject *server)
{
    fl_state *state = fl_transport_state(self);
    PyObject *stack[2] = {server, (PyObject *)self};
    PyObject *result = PyObject_VectorcallMethod(
        state->str__attach, stack, state->servers_know_clients ? 2 : 1, NULL);
    if (result == NULL) {
        return -1;
    }
    Py_DECREF(result);
    Py_XSETREF(self->server, Py_NewRef(server));
    return 0;
}

void
fl_transport_forget(TransportObject *self)
{
    LoopObject *loop = fl_transport_loop(self);
    if (self->fd >= 0 && loop != NULL) {
        fl_watch_disown(loop, self->fd, (PyObject *)self);
    }
    self->fd = -1;
    self->closing = true;
    PyObject *raised = fl_take_raised();
    Py_CLEAR(self->file);
    Py_CLEAR(self->loop);
    if (raised != NULL) {
        fl_put_raised(raised);
    }
}

int
fl_transport_begin(TransportObject *self, PyObject *start, PyObject *waiter)
{
    fl_state *state = fl_transport_state(self);
    PyObject *made =
        PyObject_GetAttr(self->protocol, state->str_connection_made);
    if (made == NULL) {
        return -1;
    }
    int rc = fl_transport_call_soon(self, made, (PyObject *)self);
    Py_DECREF(made);
    if (rc == 0 && start != NULL) {
        /* Only when connection_made() has been called. */
        rc = fl_transport_call_own_soon(self, start, NULL);
    }
    if (rc == 0 && waiter != NULL && waiter != Py_None) {
        LoopObject *loop = fl_transport_loop(self);
        PyObject *args[2] = {waiter, Py_None};
        HandleObject *handle =
            fl_call_soon(loop, state->set_result_unless_cancelled, args, 2,
                         self->context, false);
        Py_XDECREF(handle);
        rc = handle == NULL ? -1 : 0;
    }
    return rc;
}

/* --- Names ----------------------------------------------------------------*/

/* What asyncio asks the socket for at once, so that it is known later. */
static void
transport_ask_names(TransportObject *self)
{
    struct sockaddr_storage raw;
    socklen_t len = sizeof(raw);
    if (getsockname(self->fd, (struct sockaddr *)&raw, &len) == 0) {
        fl_address_set(&self->name, &raw, len);
        self->family = (uint8_t)raw.ss_family;
    }
    len = sizeof(raw);
    if (getpeername(self->fd, (struct sockaddr *)&raw, &len) == 0) {
        fl_address_set(&self->peer, &raw, len);
    }
}

/* The same through the socket object, for families with other addresses. */
static int
transport_ask_odd_names(TransportObject *self)
{
    fl_state *state = fl_transport_state(self);
    PyObject *names[] = {state->str_sockname, state->str_peername};
    PyObject *methods[] = {state->str_getsockname, state->str_getpeername};
    for (int i = 0; i < 2; i++) {
        if (PyDict_Contains(self->extra, names[i]) != 0) {
            continue;
        }
        PyObject *value = PyObject_CallMethodNoArgs(self->file, methods[i]);
        if (value == NULL) {
            if (!PyErr_ExceptionMatches(PyExc_OSError)) {
                return -1;
            }
            PyErr_Clear();
            value = Py_NewRef(Py_None);
        }
        int rc = PyDict_SetItem(self->extra, names[i], value);
        Py_DECREF(value);
        if (rc < 0) {
            return -1;
        }
    }
    return 0;
}

int
fl_transport_keep_names(TransportObject *self)
{
    transport_ask_names(self);
    if (self->family == AF_INET || self->family == AF_INET6) {
        return 0;
    }
    if (self->extra == NULL) {
        self->extra = PyDict_New();
    }
    return self->extra == NULL ? -1 : transport_ask_odd_names(self);
}

int
fl_transport_ask_fd(LoopObject *loop, PyObject *file)
{
    int fd = fl_sockobj_ask(loop->state, file);
    if (fd < 0) {
        if (!PyErr_Occurred()) {
            PyErr_Format(PyExc_ValueError, "Invalid file descriptor: %d", fd);
        }
        return -1;
    }
    return fl_transport_check_free(loop, fd, file) < 0 ? -1 : fd;
}

int
fl_transport_copy_constants(PyTypeObject *type, PyObject *model,
                            const char *const *names)
{
    int rc = 0;
    for (; rc == 0 && *names != NULL; names++) {
        PyObject *value = PyObject_GetAttrString(model, *names);
        rc = value == NULL
                 ? -1
                 : PyObject_SetAttrString((PyObject *)type, *names, value);
        Py_XDECREF(value);
    }
    return rc;
}

int
fl_transport_copy_selector(fl_state *state, PyTypeObject *type,
                           const char *like, const char *const *names)
{
    PyObject *model = PyObject_GetAttrString(state->selector_events, like);
    int rc = model == NULL ? -1
                           : fl_transport_copy_constants(type, model, names);
    Py_XDECREF(model);
    return rc;
}
