/* transport.c -- SSLTransport: the type, and its protocol half, which the
   transport below calls. */
#include "tls/tls.h"

#include "base/args.h"
#include "net/deliver.h"
#include "tls/api.h"

/* For a transport below that wants a buffer from us, as asyncio does. */
#define TLS_BUFFER 65536

/* --- Timers ---------------------------------------------------------------*/

int
fl_tls_set_timer(TLSObject *self, PyObject *delay, const char *method)
{
    PyObject *callback = PyObject_GetAttrString((PyObject *)self, method);
    if (callback == NULL) {
        return -1;
    }
    PyObject *timer =
        PyObject_CallMethodObjArgs(self->base.loop,
                                   fl_tls_state(self)->str_call_later, delay,
                                   callback, NULL);
    Py_DECREF(callback);
    if (timer == NULL) {
        return -1;
    }
    Py_XSETREF(self->timer, timer);
    return 0;
}

int
fl_tls_cancel_timer(TLSObject *self)
{
    PyObject *timer = self->timer;
    if (timer == NULL) {
        return 0;
    }
    self->timer = NULL;
    PyObject *result =
        PyObject_CallMethodNoArgs(timer, fl_tls_state(self)->str_cancel);
    Py_DECREF(timer);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static PyObject *
tls_py_handshake_timeout(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return fl_none_or_error(fl_tls_handshake_timeout((TLSObject *)op));
}

static PyObject *
tls_py_shutdown_timeout(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return fl_none_or_error(fl_tls_shutdown_timeout((TLSObject *)op));
}

static PyObject *
tls_py_go_on(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    TLSObject *self = (TLSObject *)op;
    self->put_off = false;
    if (self->phase == FL_TLS_WRAPPED && !fl_tls_is_busy(self)
        && !fl_writeq_is_empty(&self->base.queue) && !self->base.held
        && fl_tls_encrypt(self) < 0)
    {
        return fl_none_or_error(
            fl_tls_fatal(self, "Fatal error on SSL protocol"));
    }
    return fl_none_or_error(fl_tls_go_on(self));
}

/* --- The protocol half: what the transport below calls --------------------*/

/* A protocol before us may have been told to pause; then the application
   waits, if it is the one that was told (start_tls). */
static void
tls_ask_lower(TLSObject *self)
{
    if (self->lower_is_socket) {
        self->lower_full = ((TransportObject *)self->lower)->protocol_paused;
    }
    else {
        PyObject *paused =
            PyObject_GetAttrString(self->lower, "_protocol_paused");
        int full = paused == NULL ? 0 : PyObject_IsTrue(paused);
        Py_XDECREF(paused);
        PyErr_Clear();  /* a foreign one: it has no such thing */
        self->lower_full = full > 0;
    }
    if (self->lower_full && self->app == FL_APP_MADE) {
        self->base.protocol_paused = true;
    }
}

static PyObject *
tls_py_connection_made(PyObject *op, PyObject *lower)
{
    TLSObject *self = (TLSObject *)op;
    if (self->base.protocol == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the TLS connection has ended");
        return NULL;
    }
    if (self->phase != FL_TLS_UNWRAPPED) {
        PyErr_SetString(PyExc_RuntimeError,
                        "the TLS connection has begun already");
        return NULL;
    }
    Py_XSETREF(self->lower, Py_NewRef(lower));
    self->lower_is_socket =
        Py_TYPE(lower) == fl_tls_state(self)->SocketTransport_type;
    if (self->lower_is_socket && ((TransportObject *)lower)->loop == NULL) {
        /* Closed already, and nobody would tell us. */
        self->phase = FL_TLS_HANDSHAKE;
        return fl_none_or_error(fl_tls_lose(self, Py_None));
    }
    tls_ask_lower(self);
    return fl_none_or_error(fl_tls_start_handshake(self));
}

static PyObject *
tls_py_connection_lost(PyObject *op, PyObject *exc)
{
    return fl_none_or_error(fl_tls_lose((TLSObject *)op, exc));
}

static PyObject *
tls_py_get_buffer(PyObject *op, PyObject *Py_UNUSED(hint))
{
    TLSObject *self = (TLSObject *)op;
    if (self->buffer == NULL) {
        self->buffer = PyByteArray_FromStringAndSize(NULL, TLS_BUFFER);
    }
    /* A view, for a slice of it is not a copy. */
    return self->buffer == NULL ? NULL : PyMemoryView_FromObject(self->buffer);
}

static PyObject *
tls_py_buffer_updated(PyObject *op, PyObject *count)
{
    TLSObject *self = (TLSObject *)op;
    PyObject *buf = Py_XNewRef(self->buffer);
    Py_ssize_t n = PyLong_AsSsize_t(count);
    if (n == -1 && PyErr_Occurred()) {
        Py_XDECREF(buf);
        return NULL;
    }
    Py_buffer view;
    if (buf == NULL || PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE) < 0) {
        Py_XDECREF(buf);
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    }
    /* Held by a view, it is not resized while we read. */
    if (n > view.len) {
        n = view.len;
    }
    int rc = n <= 0 ? 0
                    : fl_tls_receive(fl_tls_state(self), op, view.buf,
                                     (size_t)n);
    PyBuffer_Release(&view);
    Py_DECREF(buf);
    return fl_none_or_error(rc);
}

static PyObject *
tls_py_eof_received(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    int keep = fl_tls_receive_eof((TLSObject *)op);
    if (keep < 0) {
        return NULL;
    }
    return Py_NewRef(keep ? Py_True : Py_None);
}

static PyObject *
tls_py_pause_writing(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    ((TLSObject *)op)->lower_full = true;
    Py_RETURN_NONE;
}

static PyObject *
tls_py_resume_writing(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    TLSObject *self = (TLSObject *)op;
    self->lower_full = false;
    if (fl_tls_send_sealed(self) < 0) {
        return NULL;
    }
    return fl_none_or_error(fl_writeq_is_empty(&self->base.queue)
                                ? fl_tls_control_writing(self)
                                : fl_tls_encrypt(self));
}

/* For CPython's tests: data that waits as if OpenSSL had refused it. */
static PyObject *
tls_py_append_backlog(PyObject *op, PyObject *data)
{
    if (!PyBytes_CheckExact(data)) {
        PyErr_SetString(PyExc_TypeError, "bytes expected");
        return NULL;
    }
    return fl_none_or_error(
        fl_writeq_put(&((TLSObject *)op)->base.queue, data, 0));
}

/* Ciphertext that arrived before the upgrade to TLS. */
static PyObject *
tls_py_feed(PyObject *op, PyObject *data)
{
    TLSObject *self = (TLSObject *)op;
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    int rc = fl_tls_unread_keep(self);
    if (rc == 0) {
        self->feed = view.buf;
        self->feed_left = (size_t)view.len;
        rc = fl_tls_unread_keep(self);
        self->feed = NULL;
        self->feed_left = 0;
    }
    PyBuffer_Release(&view);
    return fl_none_or_error(rc);
}

/* --- The type -------------------------------------------------------------*/

static PyObject *
tls_get_self(PyObject *op, void *Py_UNUSED(closure))
{
    return Py_NewRef(op);
}

static PyObject *
tls_get_protocol(PyObject *op, void *Py_UNUSED(closure))
{
    return fl_transport_py_get_protocol(op, NULL);
}

static PyObject *
tls_get_loop(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *loop = ((TLSObject *)op)->base.loop;
    return Py_NewRef(loop == NULL ? Py_None : loop);
}

/* An ssl object: the closure says where in the struct. */
static PyObject *
tls_get_exposed(PyObject *op, void *closure)
{
    PyObject *object = *(PyObject **)((char *)op + (uintptr_t)closure);
    fl_tls_expose((TLSObject *)op);
    return Py_NewRef(object == NULL ? Py_None : object);
}

enum { FLAG_CLOSED, FLAG_PAUSED, FLAG_PROTOCOL_PAUSED };

static PyObject *
tls_get_flag(PyObject *op, void *closure)
{
    TransportObject *base = &((TLSObject *)op)->base;
    switch ((int)(intptr_t)closure) {
    case FLAG_CLOSED:
        return PyBool_FromLong(base->closing);
    case FLAG_PAUSED:
        return PyBool_FromLong(base->paused);
    default:
        return PyBool_FromLong(base->protocol_paused);
    }
}

static PyMemberDef tls_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(TransportObject, dict), READONLY},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(TransportObject, weakrefs),
     READONLY},
    {"_conn_lost", T_UINT, offsetof(TransportObject, lost), READONLY},
    {"_transport", T_OBJECT, offsetof(TLSObject, lower), READONLY},
    {"_sslcontext", T_OBJECT, offsetof(TLSObject, context), READONLY},
    {NULL},
};

static PyGetSetDef tls_getset[] = {
    {"_extra", fl_tls_get_extra, NULL, NULL, NULL},
    {"_loop", tls_get_loop, NULL, NULL, NULL},
    {"_ssl_protocol", tls_get_self, NULL,
     PyDoc_STR("The transport itself, which is also the protocol of the one "
               "below."),
     NULL},
    {"_app_protocol", tls_get_protocol, NULL, NULL, NULL},
    {"_sslobj", tls_get_exposed, NULL, NULL,
     (void *)offsetof(TLSObject, object)},
    {"_incoming", tls_get_exposed, NULL, NULL,
     (void *)offsetof(TLSObject, incoming)},
    {"_outgoing", tls_get_exposed, NULL, NULL,
     (void *)offsetof(TLSObject, outgoing)},
    {"_closed", tls_get_flag, NULL, NULL, (void *)FLAG_CLOSED},
    {"_app_reading_paused", tls_get_flag, NULL, NULL, (void *)FLAG_PAUSED},
    {"_app_writing_paused", tls_get_flag, NULL, NULL,
     (void *)FLAG_PROTOCOL_PAUSED},
    {"_protocol_paused", tls_get_flag, NULL, NULL,
     (void *)FLAG_PROTOCOL_PAUSED},
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL,
     NULL},
    {NULL},
};

static PyMethodDef tls_methods[] = {
    FL_TLS_API_METHODS,
    {"connection_made", tls_py_connection_made, METH_O, NULL},
    {"connection_lost", tls_py_connection_lost, METH_O, NULL},
    {"get_buffer", tls_py_get_buffer, METH_O, NULL},
    {"buffer_updated", tls_py_buffer_updated, METH_O, NULL},
    {"eof_received", tls_py_eof_received, METH_NOARGS, NULL},
    {"pause_writing", tls_py_pause_writing, METH_NOARGS, NULL},
    {"resume_writing", tls_py_resume_writing, METH_NOARGS, NULL},
    {"_force_close", fl_tls_py_force_close, METH_O, NULL},
    {"_feed", tls_py_feed, METH_O, NULL},
    {"_test__append_write_backlog", tls_py_append_backlog, METH_O, NULL},
    {"_go_on", tls_py_go_on, METH_NOARGS, NULL},
    {"_check_handshake_timeout", tls_py_handshake_timeout, METH_NOARGS, NULL},
    {"_check_shutdown_timeout", tls_py_shutdown_timeout, METH_NOARGS, NULL},
    {NULL},
};

static const fl_channel_ops tls_ops = {
    .readable = NULL,  /* there is no descriptor to be watched */
    .writable = NULL,
    .flush = fl_tls_flush,
};

/* What asyncio's SSLProtocol takes, checked by fastloop/_tls.py. */
static TLSObject *
tls_make(fl_state *state, PyObject *loop, PyObject *protocol,
         PyObject *context, PyObject *handshake_timeout,
         PyObject *shutdown_timeout, bool server_side, PyObject *hostname)
{
    TLSObject *self =
        (TLSObject *)fl_transport_alloc(state->SSLTransport_type, &tls_ops);
    if (self == NULL) {
        return NULL;
    }
    self->base.loop = Py_NewRef(loop);
    self->base.high_water = FL_TLS_WRITE_WATER * 1024;
    self->base.low_water = FL_TLS_WRITE_WATER * 1024 / 4;
    self->read_high = FL_TLS_READ_WATER * 1024;
    self->read_low = FL_TLS_READ_WATER * 1024 / 4;
    self->handshake_timeout = Py_NewRef(handshake_timeout);
    self->shutdown_timeout = Py_NewRef(shutdown_timeout);
    self->server_side = server_side;
    if (fl_deliver_to(&self->base, protocol) < 0
        || fl_tls_engine_open(self, context, hostname) < 0)
    {
        self->base.closing = true;  /* nothing to warn of */
        Py_CLEAR(self);
    }
    return self;
}

static PyObject *
tls_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"loop",
                               "protocol",
                               "sslcontext",
                               "ssl_handshake_timeout",
                               "ssl_shutdown_timeout",
                               "server_side",
                               "server_hostname",
                               "waiter",
                               "call_connection_made",
                               NULL};
    PyObject *loop, *protocol, *context, *handshake, *shutdown;
    PyObject *hostname = Py_None, *waiter = Py_None;
    int server_side = 0, make = 1;
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "OOOOO|pOOp:SSLTransport", keywords, &loop,
            &protocol, &context, &handshake, &shutdown, &server_side,
            &hostname, &waiter, &make))
    {
        return NULL;
    }
    LoopObject *owner = fl_loop_argument(loop);
    if (owner == NULL) {
        return NULL;
    }
    TLSObject *self =
        tls_make(fl_type_state(type), loop, protocol, context, handshake,
                 shutdown, server_side, hostname);
    if (self != NULL) {
        self->waiter = waiter == Py_None ? NULL : Py_NewRef(waiter);
        self->app = make ? FL_APP_INIT : FL_APP_MADE;
    }
    return (PyObject *)self;
}

/* state->tls_accept: settings are the context and the two timeouts. */
static PyObject *
tls_accept(fl_state *state, PyObject *loop, PyObject *protocol,
           PyObject *settings)
{
    PyObject *context, *handshake, *shutdown;
    if (!PyArg_ParseTuple(settings, "OOO", &context, &handshake, &shutdown)) {
        return NULL;
    }
    return (PyObject *)tls_make(state, loop, protocol, context, handshake,
                                shutdown, true, Py_None);
}

static int
tls_traverse(PyObject *op, visitproc visit, void *arg)
{
    TLSObject *self = (TLSObject *)op;
    Py_VISIT(self->lower);
    Py_VISIT(self->context);
    Py_VISIT(self->object);
    Py_VISIT(self->engine);
    Py_VISIT(self->incoming);
    Py_VISIT(self->outgoing);
    Py_VISIT(self->peercert);
    Py_VISIT(self->waiter);
    Py_VISIT(self->timer);
    Py_VISIT(self->handshake_timeout);
    Py_VISIT(self->shutdown_timeout);
    Py_VISIT(self->buffer);
    return fl_transport_traverse(op, visit, arg);
}

void
fl_tls_let_go(TLSObject *self)
{
    Py_CLEAR(self->engine);
    Py_CLEAR(self->object);
    Py_CLEAR(self->incoming);
    Py_CLEAR(self->outgoing);
    Py_CLEAR(self->context);
    Py_CLEAR(self->peercert);
}

static int
tls_clear(PyObject *op)
{
    TLSObject *self = (TLSObject *)op;
    self->phase = FL_TLS_UNWRAPPED;
    self->lower_is_socket = false;
    Py_CLEAR(self->lower);
    Py_CLEAR(self->waiter);
    Py_CLEAR(self->timer);
    return fl_transport_clear(op);
}

static void
tls_finalize(PyObject *op)
{
    TLSObject *self = (TLSObject *)op;
    if (self->base.closing) {
        return;
    }
    self->base.closing = true;
    PyObject *raised = fl_take_raised();
    if (PyErr_ResourceWarning(NULL, 1, "unclosed transport %R", op) < 0) {
        PyErr_WriteUnraisable(op);
    }
    if (raised != NULL) {
        fl_put_raised(raised);
    }
}

static void
tls_dealloc(PyObject *op)
{
    if (PyObject_CallFinalizerFromDealloc(op) < 0) {
        return;  /* somebody holds it again */
    }
    TLSObject *self = (TLSObject *)op;
    PyObject_GC_UnTrack(op);
    fl_transport_clear_weakrefs(op);
    tls_clear(op);
    fl_tls_let_go(self);
    fl_tls_unread_clear(self);
    Py_CLEAR(self->sealed);
    Py_CLEAR(self->handshake_timeout);
    Py_CLEAR(self->shutdown_timeout);
    Py_CLEAR(self->buffer);
    fl_transport_free(op);
}

static PyType_Slot tls_slots[] = {
    {Py_tp_doc, "An encrypted stream over another transport."},
    {Py_tp_new, tls_new},
    {Py_tp_init, fl_transport_init},
    {Py_tp_dealloc, tls_dealloc},
    {Py_tp_finalize, tls_finalize},
    {Py_tp_traverse, tls_traverse},
    {Py_tp_clear, tls_clear},
    {Py_tp_methods, tls_methods},
    {Py_tp_members, tls_members},
    {Py_tp_getset, tls_getset},
    {0, NULL},
};

static PyType_Spec tls_spec = {
    .name = "fastloop._core.SSLTransport",
    .basicsize = sizeof(TLSObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = tls_slots,
};

/* What differs from one patch release of asyncio to the next, and the marks by
   which asyncio knows what a transport can do. */
static int
tls_copy_from_asyncio(fl_state *state)
{
    PyObject *sslproto =
        PyObject_GetAttrString(state->selector_events, "sslproto");
    PyObject *model =
        sslproto == NULL ? NULL
                         : PyObject_GetAttrString(sslproto, "SSLProtocol");
    if (model != NULL) {
        state->tls_closes_with_lower =
            PyObject_HasAttrString(model, "_is_transport_closing");
        Py_SETREF(model,
                  PyObject_GetAttrString(sslproto, "_SSLProtocolTransport"));
    }
    int rc = model == NULL ? -1
                           : fl_transport_copy_constants(
                                 state->SSLTransport_type, model,
                                 (const char *const[]){
                                     "_sendfile_compatible",
                                     "_start_tls_compatible", NULL});
    Py_XDECREF(model);
    Py_XDECREF(sslproto);
    return rc;
}

int
fl_tls_setup(PyObject *module, fl_state *state)
{
    if (state->MemoryBIO == NULL) {
        return 0;  /* a Python without TLS */
    }
    PyObject *bases =
        PyTuple_Pack(2, state->FlowControlMixin, state->BufferedProtocol);
    if (bases == NULL) {
        return -1;
    }
    state->SSLTransport_type = fl_add_type(module, &tls_spec, bases);
    Py_DECREF(bases);
    if (state->SSLTransport_type == NULL
        || fl_tls_engine_setup(module, state) < 0)
    {
        return -1;
    }
    state->tls_receive = fl_tls_receive;
    state->tls_accept = tls_accept;
    return tls_copy_from_asyncio(state);
}
