/* close.c -- the end of a TLS connection: close_notify both ways, abort, the
   end or loss of the transport below. */
#include "tls/tls.h"

#include "loop/report.h"

/* --- Errors ---------------------------------------------------------------*/

/* Drops the transport below; a foreign one may have no _force_close. */
static int
tls_force_close_lower(TLSObject *self, PyObject *exc)
{
    fl_state *state = fl_tls_state(self);
    if (self->lower_is_socket) {
        PyObject *lower = Py_NewRef(self->lower);
        int rc = fl_transport_force_close((TransportObject *)lower, exc);
        Py_DECREF(lower);
        return rc;
    }
    PyObject *lower = Py_XNewRef(self->lower);
    if (lower == NULL) {
        return 0;
    }
    PyObject *method;
    int found = fl_get_optional_attr(lower, state->str__force_close, &method);
    PyObject *result = NULL;
    if (found > 0) {
        result = PyObject_CallOneArg(method, exc == NULL ? Py_None : exc);
        Py_DECREF(method);
    }
    else if (found == 0) {
        result = PyObject_CallMethodNoArgs(lower, state->str_abort);
    }
    Py_DECREF(lower);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* loop.call_exception_handler(), or a line in the log for OSErrors. */
static int
tls_report(TLSObject *self, PyObject *exc, const char *message)
{
    fl_state *state = fl_tls_state(self);
    if (PyObject_IsInstance(exc, PyExc_OSError) > 0) {
        return fl_transport_report_fatal(&self->base, exc, message);
    }
    if (PyObject_IsInstance(exc, state->CancelledError) > 0) {
        return 0;
    }
    PyObject *context = Py_BuildValue(
        "{OsOOOOOO}", state->str_message, message, state->str_exception, exc,
        state->str_transport, self->lower == NULL ? Py_None : self->lower,
        state->str_protocol, self);
    PyObject *result =
        context == NULL
            ? NULL
            : PyObject_CallMethodOneArg(
                  self->base.loop, state->str_call_exception_handler, context);
    Py_XDECREF(context);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* _fatal_error of the raised exception, whatever it is. */
static int
tls_fail(TLSObject *self, const char *message)
{
    PyObject *exc = fl_take_raised();
    int rc = tls_force_close_lower(self, exc);
    if (rc == 0) {
        rc = tls_report(self, exc, message);
    }
    Py_DECREF(exc);
    return rc;
}

int
fl_tls_fatal(TLSObject *self, const char *message)
{
    return PyErr_ExceptionMatches(PyExc_Exception) ? tls_fail(self, message)
                                                   : -1;
}

int
fl_tls_ended(TLSObject *self)
{
    if (PyErr_ExceptionMatches(fl_tls_state(self)->SSLError)) {
        PyErr_Clear();
    }
    return PyErr_Occurred() == NULL ? 0 : -1;
}

/* --- Our close ------------------------------------------------------------*/

int
fl_tls_start_shutdown(TLSObject *self)
{
    if (self->phase != FL_TLS_HANDSHAKE && self->phase != FL_TLS_WRAPPED) {
        return 0;
    }
    self->base.closing = true;
    if (self->phase == FL_TLS_HANDSHAKE) {
        return fl_tls_abort(self, NULL);
    }
    self->phase = FL_TLS_FLUSHING;
    if (fl_tls_set_timer(self, self->shutdown_timeout,
                         "_check_shutdown_timeout")
        < 0)
    {
        return -1;
    }
    return fl_tls_do_flush(self);
}

int
fl_tls_do_flush(TLSObject *self)
{
    if (fl_tls_is_busy(self)) {
        return fl_tls_put_off(self);
    }
    /* What is held is sent by the first of these that sends. */
    self->base.held = false;
    if (fl_tls_do_read(self) < 0) {
        return -1;
    }
    if (self->phase != FL_TLS_FLUSHING) {
        return 0;  /* aborted meanwhile */
    }
    int behind = fl_tls_is_behind(self);
    if (behind != 0) {
        return behind < 0 ? -1 : 0;  /* resume_reading() leads here again */
    }
    if (!fl_writeq_is_empty(&self->base.queue) && fl_tls_encrypt(self) < 0) {
        return fl_tls_fatal(self, "Fatal error on SSL protocol");
    }
    if (self->phase != FL_TLS_FLUSHING) {
        return 0;
    }
    self->phase = FL_TLS_SHUTDOWN;
    return fl_tls_do_shutdown(self);
}

/* _on_shutdown_complete; a failure is raised, if there is one. */
static int
tls_shutdown_done(TLSObject *self, bool failed)
{
    PyObject *raised = failed ? fl_take_raised() : NULL;
    int rc = fl_tls_cancel_timer(self);
    if (raised != NULL) {
        PyErr_Clear();
        fl_put_raised(raised);
        return tls_fail(self, "Fatal error on transport");
    }
    if (rc < 0 || self->lower == NULL) {
        return rc;
    }
    PyObject *close =
        PyObject_GetAttr(self->lower, fl_tls_state(self)->str_close);
    rc = close == NULL ? -1 : fl_transport_call_soon(&self->base, close, NULL);
    Py_XDECREF(close);
    return rc;
}

/* unwrap() with what has arrived, record by record. */
static int
tls_unwrap(TLSObject *self)
{
    int rc = fl_tls_engine_begin(self), there = 1;
    while (rc != -1 && there > 0) {
        rc = fl_tls_engine_call(self, fl_tls_state(self)->str_unwrap);
        there = rc == FL_TLS_LATER && self->phase == FL_TLS_SHUTDOWN
                    ? fl_tls_engine_feed(self)
                    : 0;
    }
    return (int)fl_tls_settle(self, there < 0 ? -1 : rc);
}

int
fl_tls_do_shutdown(TLSObject *self)
{
    if (fl_tls_is_busy(self)) {
        return fl_tls_put_off(self);
    }
    int rc = self->eof ? 0 : tls_unwrap(self);
    if (self->phase != FL_TLS_SHUTDOWN) {
        return fl_tls_ended(self);
    }
    if (rc == FL_TLS_LATER) {
        return 0;
    }
    if (rc < 0) {
        return PyErr_ExceptionMatches(fl_tls_state(self)->SSLError)
                   ? tls_shutdown_done(self, true)
                   : -1;
    }
    return fl_tls_tell_eof(self) < 0 ? -1 : tls_shutdown_done(self, false);
}

int
fl_tls_shutdown_timeout(TLSObject *self)
{
    if (self->phase != FL_TLS_FLUSHING && self->phase != FL_TLS_SHUTDOWN) {
        return 0;
    }
    PyObject *exc = PyObject_CallFunction(PyExc_TimeoutError, "s",
                                          "SSL shutdown timed out");
    int rc = exc == NULL ? -1 : tls_force_close_lower(self, exc);
    Py_XDECREF(exc);
    return rc;
}

int
fl_tls_abort(TLSObject *self, PyObject *exc)
{
    self->base.closing = true;
    /* asyncio has sent it by now. */
    if (fl_tls_flush_held(self) < 0) {
        return -1;
    }
    self->phase = FL_TLS_UNWRAPPED;
    fl_writeq_clear(&self->base.queue);
    return tls_force_close_lower(self, exc);
}

/* --- The other side's -----------------------------------------------------*/

int
fl_tls_tell_eof(TLSObject *self)
{
    fl_state *state = fl_tls_state(self);
    if (self->app != FL_APP_MADE) {
        return 0;
    }
    self->app = FL_APP_EOF;
    PyObject *result = fl_transport_call_protocol(
        &self->base, state->str_eof_received, NULL);
    int keep = result == NULL ? -1 : PyObject_IsTrue(result);
    Py_XDECREF(result);
    if (keep > 0) {
        result = PyObject_CallMethod(
            state->logger, "warning", "s",
            "returning true from eof_received() has no effect when using ssl");
        keep = result == NULL ? -1 : 0;
        Py_XDECREF(result);
    }
    if (keep == 0) {
        return 0;
    }
    return fl_report_must_leave()
               ? -1
               : tls_fail(self, "Error calling eof_received()");
}

/* 1: the transport below is to be kept open. */
static int
tls_handle_eof(TLSObject *self)
{
    switch (self->phase) {
    case FL_TLS_HANDSHAKE: {
        PyObject *exc = PyObject_CallNoArgs(PyExc_ConnectionResetError);
        int rc = exc == NULL ? -1 : fl_tls_handshake_done(self, exc);
        Py_XDECREF(exc);
        return rc;
    }
    case FL_TLS_WRAPPED:
        self->phase = FL_TLS_FLUSHING;
        if (!self->base.paused) {
            int rc = fl_tls_do_flush(self);
            return rc == 0 && self->phase == FL_TLS_FLUSHING
                       ? fl_tls_is_behind(self)
                       : rc;
        }
        return 1;
    case FL_TLS_FLUSHING:
        if (fl_tls_encrypt(self) < 0) {
            return -1;
        }
        if (self->phase != FL_TLS_FLUSHING) {
            return 0;
        }
        self->phase = FL_TLS_SHUTDOWN;
        return fl_tls_do_shutdown(self);
    case FL_TLS_SHUTDOWN:
        return fl_tls_do_shutdown(self);
    default:
        return 0;
    }
}

int
fl_tls_receive_eof(TLSObject *self)
{
    self->eof = true;
    int rc = fl_transport_log(&self->base, "%r received EOF");
    if (rc == 0) {
        rc = tls_handle_eof(self);
    }
    if (rc < 0 && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyObject *raised = fl_take_raised();
        if (fl_tls_tell_lower(self, fl_tls_state(self)->str_close, NULL) < 0) {
            PyErr_Clear();  /* the first one is to be told */
        }
        fl_put_raised(raised);
    }
    return rc;
}

/* The application's connection_lost(exc) follows. */
static int
tls_schedule_lost(TLSObject *self, PyObject *exc)
{
    if (self->phase == FL_TLS_HANDSHAKE
        || (self->app != FL_APP_MADE && self->app != FL_APP_EOF))
    {
        return 0;
    }
    self->app = FL_APP_LOST;
    PyObject *lost = PyObject_GetAttr(self->base.protocol,
                                      fl_tls_state(self)->str_connection_lost);
    int rc = lost == NULL ? -1
                          : fl_transport_call_soon(&self->base, lost, exc);
    Py_XDECREF(lost);
    return rc;
}

/* Whoever still waits for the handshake.  asyncio tells him that all is well
   if the connection was merely closed. */
static int
tls_wake_disappointed(TLSObject *self, PyObject *exc, bool in_handshake)
{
    if (self->waiter == NULL || (exc == Py_None && !in_handshake)) {
        return fl_tls_wake_waiter(self, exc == Py_None ? NULL : exc);
    }
    PyObject *reason =
        exc != Py_None
            ? Py_NewRef(exc)
            : PyObject_CallFunction(PyExc_ConnectionAbortedError, "s",
                                    "Connection closed during the SSL "
                                    "handshake");
    int rc = reason == NULL ? -1 : fl_tls_wake_waiter(self, reason);
    Py_XDECREF(reason);
    return rc;
}

int
fl_tls_lose(TLSObject *self, PyObject *exc)
{
    TransportObject *base = &self->base;
    if (base->protocol == NULL) {
        return 0;
    }
    base->held = false;
    fl_writeq_clear(&base->queue);
    base->lost++;
    base->closing = true;
    bool in_handshake = self->phase == FL_TLS_HANDSHAKE;
    int rc = tls_schedule_lost(self, exc);
    PyObject *raised = rc < 0 ? fl_take_raised() : NULL;
    self->phase = FL_TLS_UNWRAPPED;
    self->lower_is_socket = false;
    self->feed_left = 0;
    fl_tls_unread_clear(self);
    Py_CLEAR(self->sealed);
    Py_CLEAR(self->lower);
    Py_CLEAR(base->protocol);
    if (self->let_go) {
        fl_tls_let_go(self);
    }
    if (tls_wake_disappointed(self, exc, in_handshake) < 0
        || fl_tls_cancel_timer(self) < 0)
    {
        rc = -1;
    }
    if (raised != NULL) {
        PyErr_Clear();
        fl_put_raised(raised);
    }
    return rc;
}
