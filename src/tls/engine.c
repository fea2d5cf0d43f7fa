/* engine.c -- calls of Python's ssl objects.

   An ssl.SSLObject is Python around an object of the C module _ssl, whose
   methods take a buffer to read into.  If it is just that (`native`), we call
   the inner one, and lend it our own memory through a Window; an object of any
   other class is called as asyncio would, and its bytes are copied.

   The BIOs hold nothing between two calls: a record is put in right before
   OpenSSL reads it, and what OpenSSL writes is taken out before anything else
   runs.  So one pair serves all connections of a loop.  A pair of its own
   would cost each several KiB, for a BIO never gives memory back, and as much
   of the processor's caches (benchmarks/network, `tls-idle` and
   `tls-echo-10k-100`). */
#include "tls/tls.h"

/* --- Windows --------------------------------------------------------------*/

/* Memory of ours as an object with the buffer protocol, for the length of one
   call.  _ssl keeps no view; should somebody do so nevertheless, the object is
   not used again, and the view is of memory that may be gone: so only objects
   of the very types of _ssl get to see one. */
typedef struct {
    PyObject_HEAD
    char *bytes;
    Py_ssize_t len;
    bool writable;
} WindowObject;

static int
window_getbuffer(PyObject *op, Py_buffer *view, int flags)
{
    WindowObject *self = (WindowObject *)op;
    return PyBuffer_FillInfo(view, op, self->bytes, self->len, !self->writable,
                             flags);
}

static PyObject *
window_open(fl_state *state, const char *bytes, size_t len, bool writable)
{
    PyObject *op = state->tls_window;
    state->tls_window = NULL;
    if (op == NULL) {
        op = state->Window_type->tp_alloc(state->Window_type, 0);
        if (op == NULL) {
            return NULL;
        }
    }
    WindowObject *self = (WindowObject *)op;
    self->bytes = (char *)bytes;
    self->len = (Py_ssize_t)len;
    self->writable = writable;
    return op;
}

static void
window_close(fl_state *state, PyObject *op)
{
    WindowObject *self = (WindowObject *)op;
    self->bytes = NULL;
    self->len = 0;
    if (Py_REFCNT(op) == 1 && state->tls_window == NULL) {
        state->tls_window = op;
        return;
    }
    Py_DECREF(op);
}

static void
window_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyType_Slot window_slots[] = {
    {Py_tp_doc, "Memory that OpenSSL may look at during one call."},
    {Py_tp_dealloc, window_dealloc},
    {Py_bf_getbuffer, window_getbuffer},
    {0, NULL},
};

static PyType_Spec window_spec = {
    .name = "fastloop._core.Window",
    .basicsize = sizeof(WindowObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = window_slots,
};

/* --- The ssl objects ------------------------------------------------------*/

/* The object within an unmodified SSLObject; NULL without an exception: it is
   another kind. */
static PyObject *
engine_find_native(fl_state *state, PyObject *object)
{
    if ((PyObject *)Py_TYPE(object) != state->SSLObject) {
        return NULL;
    }
    PyObject *inner = PyObject_GetAttr(object, state->str__sslobj);
    if (inner == NULL) {
        PyErr_Clear();
    }
    else if ((PyObject *)Py_TYPE(inner) != state->CSSLSocket) {
        Py_CLEAR(inner);
    }
    return inner;
}

/* Whether the context makes ordinary SSLObjects: another kind may do with its
   BIOs what it likes. */
static bool
engine_may_share(fl_state *state, PyObject *context)
{
    if ((PyObject *)Py_TYPE(context) != state->SSLContext) {
        return false;
    }
    PyObject *makes = PyObject_GetAttrString(context, "sslobject_class");
    if (makes == NULL) {
        PyErr_Clear();
    }
    Py_XDECREF(makes);
    return makes == state->SSLObject;  // only compared
}

/* The pair of a loop, made with its first connection; or one that nobody else
   has. */
static int
engine_take_bios(TLSObject *self)
{
    bool shared = self->shared;
    PyObject *make = fl_tls_state(self)->MemoryBIO;
    LoopObject *loop = fl_transport_loop(&self->base);
    if (shared && loop->tls_incoming == NULL) {
        loop->tls_incoming = PyObject_CallNoArgs(make);
    }
    if (shared && loop->tls_incoming != NULL && loop->tls_outgoing == NULL) {
        loop->tls_outgoing = PyObject_CallNoArgs(make);
    }
    self->incoming = shared ? Py_XNewRef(loop->tls_incoming)
                            : PyObject_CallNoArgs(make);
    if (self->incoming == NULL) {
        return -1;
    }
    self->outgoing = shared ? Py_XNewRef(loop->tls_outgoing)
                            : PyObject_CallNoArgs(make);
    return self->outgoing == NULL ? -1 : 0;
}

int
fl_tls_engine_open(TLSObject *self, PyObject *context, PyObject *hostname)
{
    fl_state *state = fl_tls_state(self);
    self->context = Py_NewRef(context);
    self->shared = engine_may_share(state, context);
    PyObject *wrap = PyObject_GetAttr(context, state->str_wrap_bio);
    if (wrap != NULL && engine_take_bios(self) == 0) {
        PyObject *args[4] = {self->incoming, self->outgoing,
                             self->server_side ? Py_True : Py_False, hostname};
        self->object =
            PyObject_Vectorcall(wrap, args, 2, state->kw_wrap_bio);
    }
    Py_XDECREF(wrap);
    if (self->object == NULL) {
        return -1;
    }
    self->engine = engine_find_native(state, self->object);
    self->native = self->engine != NULL;
    if (!self->native) {
        self->engine = Py_NewRef(self->object);
    }
    return 0;
}

/* --- The BIOs -------------------------------------------------------------*/

/* How much is in one (NULL: nothing). */
static Py_ssize_t
engine_pending(TLSObject *self, PyObject *bio)
{
    if (bio == NULL) {
        return 0;  /* let go */
    }
    PyObject *pending = PyObject_GetAttr(bio, fl_tls_state(self)->str_pending);
    Py_ssize_t n = pending == NULL ? -1 : PyLong_AsSsize_t(pending);
    Py_XDECREF(pending);
    return n;
}

/* All that is in one. */
static PyObject *
engine_empty(TLSObject *self, PyObject *bio)
{
    PyObject *data =
        PyObject_CallMethodNoArgs(bio, fl_tls_state(self)->str_read);
    if (data != NULL && !PyBytes_CheckExact(data)) {
        PyErr_SetString(PyExc_TypeError, "MemoryBIO.read() returned no bytes");
        Py_CLEAR(data);
    }
    return data;
}

PyObject *
fl_tls_take_outgoing(TLSObject *self, bool sure)
{
    Py_ssize_t pending = sure && self->outgoing != NULL
                             ? 1
                             : engine_pending(self, self->outgoing);
    if (pending <= 0) {
        return pending < 0 ? NULL : Py_NewRef(Py_None);
    }
    return engine_empty(self, self->outgoing);
}

/* Whether the context calls Python back, and shows it the ssl object. */
static int
engine_has_callbacks(TLSObject *self)
{
    const char *names[] = {"sni_callback", "_msg_callback"};
    int has = 0;
    for (size_t i = 0; has == 0 && i < sizeof(names) / sizeof(names[0]); i++) {
        PyObject *callback = PyObject_GetAttrString(self->context, names[i]);
        has = callback == NULL ? -1 : callback != Py_None;
        Py_XDECREF(callback);
    }
    return has;
}

int
fl_tls_engine_watch(TLSObject *self)
{
    LoopObject *loop = fl_transport_loop(&self->base);
    int has = !self->shared || loop->tls_exposed ? 0
                                                 : engine_has_callbacks(self);
    if (has > 0) {
        loop->tls_exposed = true;
    }
    return has < 0 ? -1 : 0;
}

int
fl_tls_engine_clean(TLSObject *self)
{
    PyObject *bios[2] = {self->incoming, self->outgoing};
    for (int i = 0; i < 2; i++) {
        Py_ssize_t pending = engine_pending(self, bios[i]);
        PyObject *stray = pending > 0 ? engine_empty(self, bios[i]) : NULL;
        if (pending < 0 || (pending > 0 && stray == NULL)) {
            return -1;
        }
        Py_XDECREF(stray);
    }
    return 0;
}

int
fl_tls_engine_feed(TLSObject *self)
{
    fl_state *state = fl_tls_state(self);
    const char *bytes;
    size_t len;
    int there = fl_tls_unread_next(self, &bytes, &len);
    if (there <= 0) {
        return there;
    }
    PyObject *window = window_open(state, bytes, len, false);
    if (window == NULL) {
        return -1;
    }
    PyObject *result = PyObject_CallMethodOneArg(self->incoming,
                                                 state->str_write, window);
    window_close(state, window);
    if (result == NULL) {
        return -1;
    }
    Py_DECREF(result);
    fl_tls_unread_advance(self, len);
    self->fed = true;
    return 1;
}

/* What OpenSSL did not want of the record that it was given is the
   connection's, and must not be in the BIO when that is another's turn.
   Returns rc, which is what OpenSSL was called with; its exception is kept. */
static ssize_t
engine_take_back(TLSObject *self, ssize_t rc)
{
    if (!self->fed) {
        return rc;
    }
    self->fed = false;
    PyObject *raised = rc == -1 ? fl_take_raised() : NULL;
    Py_ssize_t pending = engine_pending(self, self->incoming);
    PyObject *data =
        pending > 0 ? engine_empty(self, self->incoming) : NULL;
    if (pending < 0 || (pending > 0 && data == NULL)
        || (data != NULL
            && fl_tls_unread_return(self, PyBytes_AS_STRING(data),
                                    (size_t)PyBytes_GET_SIZE(data))
                   < 0))
    {
        rc = -1;
    }
    Py_XDECREF(data);
    if (raised != NULL) {
        PyErr_Clear();
        fl_put_raised(raised);
    }
    return rc;
}

/* --- Calls ----------------------------------------------------------------*/

/* An exception is raised: is it that the peer has to send more first? */
static bool
engine_must_wait(fl_state *state)
{
    if (PyErr_ExceptionMatches(state->SSLWantReadError)
        || PyErr_ExceptionMatches(state->SSLSyscallError))
    {
        PyErr_Clear();
        return true;
    }
    return false;
}

/* args[0].name(*args[1:]).  0, or FL_TLS_LATER or -1 and no result. */
static ssize_t
engine_call(TLSObject *self, PyObject *name, PyObject *const *args,
            size_t nargs, PyObject **result)
{
    fl_state *state = fl_tls_state(self);
    LoopObject *loop = fl_transport_loop(&self->base);
    PyObject *callee = Py_NewRef(args[0]);  // we may let go of it meanwhile
    loop->in_ssl = true;
    *result = PyObject_VectorcallMethod(name, args, nargs, NULL);
    loop->in_ssl = false;
    Py_DECREF(callee);
    ssize_t rc = *result != NULL           ? 0
                 : engine_must_wait(state) ? FL_TLS_LATER
                                           : -1;
    return rc;
}

static ssize_t
engine_number(PyObject *result, size_t most)
{
    Py_ssize_t n = PyLong_AsSsize_t(result);
    if (n < 0 || (size_t)n > most) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError,
                            "the SSL object counts more bytes than there are");
        }
        return -1;
    }
    return n;
}

static ssize_t
engine_read_bytes(TLSObject *self, char *space, size_t size)
{
    PyObject *most = PyLong_FromSize_t(size);
    if (most == NULL) {
        return -1;
    }
    PyObject *data;
    ssize_t n = engine_call(self, fl_tls_state(self)->str_read,
                            (PyObject *[]){self->engine, most}, 2, &data);
    Py_DECREF(most);
    if (data == NULL) {
        return n;
    }
    char *bytes;
    Py_ssize_t len;
    n = PyBytes_AsStringAndSize(data, &bytes, &len);
    if (n == 0 && (size_t)len > size) {
        PyErr_SetString(PyExc_ValueError,
                        "the SSL object read more than it was asked for");
        n = -1;
    }
    if (n == 0) {
        memcpy(space, bytes, (size_t)len);
        n = len;
    }
    Py_DECREF(data);
    return n;
}

static ssize_t
engine_read_into(TLSObject *self, char *space, size_t size)
{
    fl_state *state = fl_tls_state(self);
    PyObject *window = window_open(state, space, size, true);
    if (window == NULL) {
        return -1;
    }
    /* 0: as much as the buffer has room for. */
    PyObject *result;
    ssize_t n =
        engine_call(self, state->str_read,
                    (PyObject *[]){self->engine, state->zero, window}, 3,
                    &result);
    window_close(state, window);
    if (FL_LIKELY(result != NULL)) {
        n = engine_number(result, size);
        Py_DECREF(result);
    }
    return n;
}

ssize_t
fl_tls_engine_read(TLSObject *self, char *space, size_t size)
{
    ssize_t n = FL_LIKELY(self->native) ? engine_read_into(self, space, size)
                                        : engine_read_bytes(self, space, size);
    if (FL_LIKELY(n > 0 || n == FL_TLS_LATER)) {
        self->fed = false;  /* it went through the record, to its end */
        return n;
    }
    return engine_take_back(self, n);
}

ssize_t
fl_tls_engine_write(TLSObject *self, const char *bytes, size_t len)
{
    fl_state *state = fl_tls_state(self);
    PyObject *data = self->native
                         ? window_open(state, bytes, len, false)
                         : PyBytes_FromStringAndSize(bytes, (Py_ssize_t)len);
    if (data == NULL) {
        return -1;
    }
    PyObject *result;
    ssize_t n = engine_call(self, state->str_write,
                            (PyObject *[]){self->engine, data}, 2, &result);
    if (self->native) {
        window_close(state, data);
    }
    else {
        Py_DECREF(data);
    }
    if (FL_LIKELY(result != NULL)) {
        n = engine_number(result, len);
        Py_DECREF(result);
    }
    return n;
}

int
fl_tls_engine_call(TLSObject *self, PyObject *name)
{
    PyObject *result;
    ssize_t n =
        engine_call(self, name, (PyObject *[]){self->object}, 1, &result);
    Py_XDECREF(result);
    return (int)engine_take_back(self, n);
}

int
fl_tls_engine_setup(PyObject *module, fl_state *state)
{
    state->Window_type = fl_add_type(module, &window_spec, NULL);
    return state->Window_type == NULL ? -1 : 0;
}
