/* handshake.c -- the beginning of a TLS connection. */
#include "tls/tls.h"

#include "base/args.h"

int
fl_tls_wake_waiter(TLSObject *self, PyObject *exc)
{
    PyObject *waiter = self->waiter;
    if (waiter == NULL) {
        return 0;
    }
    self->waiter = NULL;
    PyObject *result = PyObject_CallMethod(waiter, "cancelled", NULL);
    int cancelled = result == NULL ? -1 : PyObject_IsTrue(result);
    if (cancelled == 0) {
        const char *set = exc == NULL ? "set_result" : "set_exception";
        Py_SETREF(result, PyObject_CallMethod(waiter, set, "O",
                                              exc == NULL ? Py_None : exc));
    }
    Py_DECREF(waiter);
    Py_XDECREF(result);
    return cancelled < 0 || result == NULL ? -1 : 0;
}

int
fl_tls_start_handshake(TLSObject *self)
{
    LoopObject *loop = fl_transport_loop(&self->base);
    if (fl_transport_log(&self->base, "%r starts SSL handshake") < 0
        || fl_loop_time(loop, &self->handshake_began) < 0)
    {
        return -1;
    }
    self->phase = FL_TLS_HANDSHAKE;
    if (fl_tls_set_timer(self, self->handshake_timeout,
                         "_check_handshake_timeout")
        < 0)
    {
        return -1;
    }
    return fl_tls_do_handshake(self);
}

/* do_handshake() with what has arrived, record by record: OpenSSL may be done
   with the handshake before it has seen all of it. */
static int
handshake_advance(TLSObject *self)
{
    fl_state *state = fl_tls_state(self);
    /* A server has nothing to say before its client. */
    int there = self->server_side ? fl_tls_engine_feed(self) : 1;
    int rc = FL_TLS_LATER;
    while (there > 0 && rc == FL_TLS_LATER
           && self->phase == FL_TLS_HANDSHAKE)
    {
        rc = fl_tls_engine_call(self, state->str_do_handshake);
        there = rc == FL_TLS_LATER ? fl_tls_engine_feed(self) : 0;
    }
    return there < 0 ? -1 : rc;
}

int
fl_tls_do_handshake(TLSObject *self)
{
    if (fl_tls_is_busy(self)) {
        return fl_tls_put_off(self);
    }
    int rc = fl_tls_engine_watch(self) < 0 || fl_tls_engine_begin(self) < 0
                 ? -1
                 : handshake_advance(self);
    /* As on asyncio, the last flight leaves with what connection_made() says,
       or not at all if that aborts. */
    rc = rc == 0 ? fl_tls_seal(self) : (int)fl_tls_settle(self, rc);
    if (self->phase != FL_TLS_HANDSHAKE) {
        return fl_tls_ended(self);
    }
    if (rc == FL_TLS_LATER) {
        return 0;
    }
    if (rc == 0) {
        return fl_tls_handshake_done(self, NULL);
    }
    if (!PyErr_ExceptionMatches(fl_tls_state(self)->SSLError)) {
        return -1;
    }
    PyObject *exc = fl_take_raised();
    rc = fl_tls_handshake_done(self, exc);
    Py_DECREF(exc);
    return rc;
}

/* What is known about the peer from here on. */
static int
handshake_ask_peer(TLSObject *self)
{
    self->phase = FL_TLS_WRAPPED;
    PyObject *cert = PyObject_CallMethodNoArgs(
        self->object, fl_tls_state(self)->str_getpeercert);
    if (cert == NULL) {
        return -1;
    }
    Py_XSETREF(self->peercert, cert);
    return 0;
}

static int
handshake_log_time(TLSObject *self)
{
    LoopObject *loop = fl_transport_loop(&self->base);
    int debug = fl_loop_debug(loop);
    if (debug <= 0) {
        return debug;
    }
    double now;
    if (fl_loop_time(loop, &now) < 0) {
        return -1;
    }
    PyObject *result = PyObject_CallMethod(
        fl_tls_state(self)->logger, "debug", "sOd",
        "%r: SSL handshake took %.1f ms", self,
        (now - self->handshake_began) * 1e3);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* The exception of a handshake that failed is raised. */
static int
handshake_failed(TLSObject *self)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
        return -1;
    }
    bool certificate =
        PyErr_ExceptionMatches(fl_tls_state(self)->SSLCertVerificationError);
    PyObject *exc = fl_take_raised();
    self->phase = FL_TLS_UNWRAPPED;
    fl_put_raised(Py_NewRef(exc));
    int rc = fl_tls_fatal(
        self, certificate
                  ? "SSL handshake failed on verifying the certificate"
                  : "SSL handshake failed");
    if (rc == 0) {
        rc = fl_tls_wake_waiter(self, exc);
    }
    Py_DECREF(exc);
    return rc;
}

int
fl_tls_handshake_done(TLSObject *self, PyObject *exc)
{
    fl_state *state = fl_tls_state(self);
    if (fl_tls_cancel_timer(self) < 0) {
        return -1;
    }
    if (exc != NULL) {
        fl_put_raised(Py_NewRef(exc));
    }
    if (exc != NULL || handshake_ask_peer(self) < 0) {
        return handshake_failed(self);
    }
    if (handshake_log_time(self) < 0) {
        return -1;
    }
    if (self->app == FL_APP_INIT) {
        self->app = FL_APP_MADE;
        PyObject *result = fl_transport_call_protocol(
            &self->base, state->str_connection_made, (PyObject *)self);
        if (result == NULL) {
            return -1;
        }
        Py_DECREF(result);
    }
    return fl_tls_wake_waiter(self, NULL) < 0 || fl_tls_do_read(self) < 0
               ? -1
               : fl_tls_send_sealed(self);
}

int
fl_tls_handshake_timeout(TLSObject *self)
{
    if (self->phase != FL_TLS_HANDSHAKE) {
        return 0;
    }
    PyObject *message = PyUnicode_FromFormat(
        "SSL handshake is taking longer than %S seconds: aborting the "
        "connection",
        self->handshake_timeout);
    if (message == NULL) {
        return -1;
    }
    PyErr_SetObject(PyExc_ConnectionAbortedError, message);
    Py_DECREF(message);
    return fl_tls_fatal(self, "Fatal error on transport");
}
