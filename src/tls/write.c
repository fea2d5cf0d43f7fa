/* write.c -- plaintext in, ciphertext out.

   As on a socket, what is written in a turn of the loop is held back until
   the turn ends: a header and its body become one record then, which costs
   both sides about half of two. */
#include "tls/tls.h"

#include "base/args.h"
#include "net/socket.h"

/* The most that a record holds. */
#define TLS_RECORD 16384

/* So much is encrypted before it is handed down: a few records a system
   call. */
#define TLS_SEND_BYTES 65536

static const char tls_failed[] = "Fatal error on SSL protocol";
static const char tls_closed[] = "SSL connection is closed";

/* --- Downward -------------------------------------------------------------*/

int
fl_tls_tell_lower(TLSObject *self, PyObject *name, PyObject *arg)
{
    PyObject *lower = Py_XNewRef(self->lower);
    if (lower == NULL) {
        return 0;
    }
    PyObject *stack[2] = {lower, arg};
    PyObject *result =
        PyObject_VectorcallMethod(name, stack, arg == NULL ? 1 : 2, NULL);
    Py_DECREF(lower);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Hands bytes to the transport below.  With now, that does not wait for the
   end of the turn. */
static int
tls_send(TLSObject *self, PyObject *data, bool now)
{
    if (self->lower == NULL || self->phase == FL_TLS_UNWRAPPED) {
        return 0;
    }
    if (!now || !self->lower_is_socket) {
        return fl_tls_tell_lower(self, fl_tls_state(self)->str_write, data);
    }
    PyObject *lower = Py_NewRef(self->lower);
    int rc = fl_socket_send((TransportObject *)lower, data);
    Py_DECREF(lower);
    return rc;
}

static int
tls_seal(TLSObject *self, PyObject *data)
{
    Py_ssize_t len = PyBytes_GET_SIZE(data);
    if (self->sealed == NULL) {
        self->sealed = PyByteArray_FromStringAndSize(NULL, 0);
    }
    Py_ssize_t size =
        self->sealed == NULL ? -1 : PyByteArray_GET_SIZE(self->sealed);
    if (size < 0 || PyByteArray_Resize(self->sealed, size + len) < 0) {
        return -1;
    }
    memcpy(PyByteArray_AS_STRING(self->sealed) + size,
           PyBytes_AS_STRING(data), (size_t)len);
    return 0;
}

int
fl_tls_seal(TLSObject *self)
{
    PyObject *data = fl_tls_take_outgoing(self, false);
    int rc = data == NULL ? -1 : data == Py_None ? 0 : tls_seal(self, data);
    Py_XDECREF(data);
    return rc;
}

/* Unless the transport below has no room for it. */
static int
tls_send_sealed(TLSObject *self, bool now)
{
    PyObject *sealed = self->sealed;
    if (FL_LIKELY(sealed == NULL) || self->lower_full) {
        return 0;
    }
    PyObject *data = PyBytes_FromObject(sealed);
    if (data == NULL) {
        return -1;
    }
    Py_CLEAR(self->sealed);
    int rc = tls_send(self, data, now);
    Py_DECREF(data);
    return rc;
}

int
fl_tls_send_sealed(TLSObject *self)
{
    return tls_send_sealed(self, false);
}

/* Hands down what OpenSSL has written; sure: it has.  In one piece with what
   is sealed: a transport below may call us before its write() returns, and
   what we write then comes after both. */
static int
tls_send_outgoing(TLSObject *self, bool sure, bool now)
{
    PyObject *data = fl_tls_take_outgoing(self, sure);
    int rc = data == NULL ? -1 : 0;
    if (rc == 0 && data != Py_None) {
        rc = FL_LIKELY(self->sealed == NULL && !self->lower_full)
                 ? tls_send(self, data, now)
             : tls_seal(self, data) < 0 ? -1
                                        : tls_send_sealed(self, now);
    }
    Py_XDECREF(data);
    return rc;
}

ssize_t
fl_tls_settle(TLSObject *self, ssize_t rc)
{
    PyObject *raised = rc == -1 ? fl_take_raised() : NULL;
    int sent = tls_send_outgoing(self, false, raised != NULL);
    if (raised != NULL) {
        PyErr_Clear();  /* the first failure is the one to be told */
        fl_put_raised(raised);
        return -1;
    }
    return sent < 0 ? -1 : rc;
}

/* --- Encrypting -----------------------------------------------------------*/

/* One record of the front of the queue; as fl_tls_engine_write. */
static ssize_t
tls_encrypt_once(TLSObject *self)
{
    struct iovec pieces[FL_WRITEQ_BATCH];
    int count = fl_writeq_peek(&self->base.queue, pieces);
    if (count == 1 || pieces[0].iov_len >= TLS_RECORD) {
        /* The queue may be cleared meanwhile. */
        PyObject *data =
            Py_NewRef(self->base.queue.pieces[self->base.queue.first]);
        ssize_t n = fl_tls_engine_write(self, pieces[0].iov_base,
                                        pieces[0].iov_len);
        Py_DECREF(data);
        return n;
    }
    char joined[TLS_RECORD];
    size_t len = 0;
    for (int i = 0; i < count && len < sizeof(joined); i++) {
        size_t part = sizeof(joined) - len;
        if (part > pieces[i].iov_len) {
            part = pieces[i].iov_len;
        }
        memcpy(joined + len, pieces[i].iov_base, part);
        len += part;
    }
    return fl_tls_engine_write(self, joined, len);
}

/* Encrypts from the queue until it is empty or there is enough to send.  How
   much was taken; 0: all that goes; -1. */
static ssize_t
tls_encrypt_some(TLSObject *self)
{
    size_t taken = 0;
    while (!fl_writeq_is_empty(&self->base.queue)
           && taken + TLS_RECORD <= TLS_SEND_BYTES)
    {
        ssize_t n = tls_encrypt_once(self);
        if (n == FL_TLS_LATER || self->phase == FL_TLS_UNWRAPPED) {
            break;  /* renegotiating, or aborted meanwhile */
        }
        if (n < 0) {
            return -1;
        }
        fl_writeq_advance(&self->base.queue, (size_t)n);
        taken += (size_t)n;
    }
    return (ssize_t)taken;
}

static int
tls_encrypt_queue(TLSObject *self, bool now)
{
    ssize_t taken;
    do {
        taken = fl_tls_engine_begin(self) < 0 ? -1 : tls_encrypt_some(self);
        if (self->phase == FL_TLS_UNWRAPPED && fl_tls_ended(self) < 0) {
            taken = -1;
        }
        if (taken < 0) {
            return (int)fl_tls_settle(self, taken);
        }
        if (tls_send_outgoing(self, taken > 0, now) < 0) {
            return -1;
        }
        /* Runs Python: a transport below that is full says so.  The rest comes
           with resume_writing(), unless we are closing. */
    } while (taken > 0 && !fl_writeq_is_empty(&self->base.queue)
             && !fl_tls_is_busy(self)
             && (!self->lower_full || self->phase != FL_TLS_WRAPPED));
    return 0;
}

static int
tls_encrypt(TLSObject *self, bool now)
{
    self->base.held = false;
    if (self->phase != FL_TLS_WRAPPED && self->phase != FL_TLS_FLUSHING) {
        return 0;
    }
    if (fl_tls_is_busy(self)) {
        return fl_tls_put_off(self);
    }
    if ((!self->lower_full || self->phase != FL_TLS_WRAPPED)
        && tls_encrypt_queue(self, now) < 0)
    {
        return -1;
    }
    return fl_tls_control_writing(self);
}

int
fl_tls_encrypt(TLSObject *self)
{
    return tls_encrypt(self, false);
}

int
fl_tls_flush_held(TLSObject *self)
{
    if (!self->base.held) {
        return 0;
    }
    PyObject *raised = fl_take_raised();
    int rc = tls_encrypt(self, true);
    if (rc < 0) {
        rc = fl_tls_fatal(self, tls_failed);
    }
    if (raised != NULL) {
        PyErr_Clear();
        fl_put_raised(raised);
        rc = 0;
    }
    return rc;
}

int
fl_tls_flush(LoopObject *Py_UNUSED(loop), PyObject *op)
{
    TLSObject *self = (TLSObject *)op;
    /* Nobody called: what goes wrong is reported. */
    return fl_tls_flush_held(self) < 0
               ? fl_transport_report(&self->base, "_go_on")
               : 0;
}

/* --- Writing --------------------------------------------------------------*/

/* Something was put on the queue. */
static int
tls_hold_or_encrypt(TLSObject *self, bool large)
{
    TransportObject *base = &self->base;
    if (self->phase != FL_TLS_WRAPPED) {
        return 0;  /* the end of the handshake sends it */
    }
    if (self->lower_full || fl_tls_is_busy(self)) {
        return fl_tls_encrypt(self);
    }
    if (fl_transport_may_hold(base, 0) && !large) {
        if (base->held) {
            return 0;
        }
        base->held = true;
        if (FL_LIKELY(fl_hold((LoopObject *)base->loop, (PyObject *)self)
                      == 0))
        {
            return 0;
        }
        PyErr_Clear();  /* no memory for the list: now, then */
    }
    return tls_encrypt(self, true);
}

static int
tls_put(TLSObject *self, PyObject *data)
{
    fl_writeq *queue = &self->base.queue;
    if (FL_LIKELY(PyBytes_CheckExact(data))) {
        return PyBytes_GET_SIZE(data) == 0 ? 0 : fl_writeq_put(queue, data, 0);
    }
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return -1;
    }
    int rc = view.len == 0
                 ? 0
                 : fl_writeq_put_copy(queue, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    return rc;
}

int
fl_tls_write(TLSObject *self, PyObject *data)
{
    if (FL_UNLIKELY(!fl_is_data(data))) {
        PyObject *name = PyType_GetName(Py_TYPE(data));
        if (name != NULL) {
            PyErr_Format(PyExc_TypeError,
                         "data: expecting a bytes-like instance, got %U",
                         name);
            Py_DECREF(name);
        }
        return -1;
    }
    Py_ssize_t len = PyBytes_CheckExact(data) ? PyBytes_GET_SIZE(data)
                                              : PyObject_IsTrue(data);
    if (len <= 0) {
        return (int)len;
    }
    if (FL_UNLIKELY(self->phase != FL_TLS_WRAPPED
                    && self->phase != FL_TLS_HANDSHAKE))
    {
        return fl_transport_write_lost(&self->base, tls_closed);
    }
    bool large = fl_writeq_is_empty(&self->base.queue) && len >= FL_HOLD_FIRST;
    if (tls_put(self, data) < 0 || tls_hold_or_encrypt(self, large) < 0) {
        return fl_tls_fatal(self, tls_failed);
    }
    return 0;
}

int
fl_tls_writelines(TLSObject *self, PyObject *list)
{
    if (self->phase != FL_TLS_WRAPPED && self->phase != FL_TLS_HANDSHAKE) {
        return fl_transport_write_lost(&self->base, tls_closed);
    }
    PyObject *items = PySequence_List(list);
    if (items == NULL) {
        return -1;
    }
    int rc = 0;
    for (Py_ssize_t i = 0; rc == 0 && i < PyList_GET_SIZE(items); i++) {
        rc = tls_put(self, PyList_GET_ITEM(items, i));
    }
    Py_DECREF(items);
    bool large = !self->base.held && self->base.queue.size >= FL_HOLD_FIRST;
    if (rc < 0 || tls_hold_or_encrypt(self, large) < 0) {
        return fl_tls_fatal(self, tls_failed);
    }
    return 0;
}

/* --- Flow control ---------------------------------------------------------*/

/* protocol.name(); a failure is reported as asyncio's SSLProtocol does. */
static int
tls_tell_flow(TLSObject *self, PyObject *name, const char *message)
{
    fl_state *state = fl_tls_state(self);
    PyObject *result = fl_transport_call_protocol(&self->base, name, NULL);
    if (result != NULL) {
        Py_DECREF(result);
        return 0;
    }
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)
        || PyErr_ExceptionMatches(PyExc_SystemExit))
    {
        return -1;
    }
    PyObject *exc = fl_take_raised();
    PyObject *context = Py_BuildValue(
        "{OsOOOOOO}", state->str_message, message, state->str_exception, exc,
        state->str_transport, self, state->str_protocol, self);
    Py_DECREF(exc);
    if (context != NULL) {
        result = PyObject_CallMethodOneArg(
            self->base.loop, state->str_call_exception_handler, context);
        Py_DECREF(context);
    }
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* _control_app_writing */
int
fl_tls_control_writing(TLSObject *self)
{
    TransportObject *base = &self->base;
    /* Nothing waits, as a rule, and then nobody was told to pause; or the
       connection is lost, and nobody is to be told. */
    if (FL_LIKELY((!base->protocol_paused && !self->lower_full
                   && self->sealed == NULL && base->high_water > 0)
                  || base->protocol == NULL))
    {
        return 0;
    }
    Py_ssize_t size = fl_tls_buffered(self);
    fl_state *state = fl_tls_state(self);
    /* asyncio pauses at once, and for ever, if the mark is set to 0. */
    if (size > 0 && size >= base->high_water && !base->protocol_paused) {
        base->protocol_paused = true;
        return tls_tell_flow(self, state->str_pause_writing,
                             "protocol.pause_writing() failed");
    }
    if (size <= base->low_water && base->protocol_paused) {
        base->protocol_paused = false;
        return tls_tell_flow(self, state->str_resume_writing,
                             "protocol.resume_writing() failed");
    }
    return 0;
}
