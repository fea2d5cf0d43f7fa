/* transport.c -- what all transports have in common: the end of a connection,
   watching, flow control.  transport_make.c has the beginning, transport_api.c
   what Python sees. */
#include "net/transport.h"

#include <errno.h>
#include <unistd.h>

#include "base/args.h"
#include "loop/report.h"
#include "loop/schedule.h"
#include "loop/timer.h"
#include "net/sockobj.h"

/* asyncio.constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES */
#define TRANSPORT_QUIET_WRITES 5

/* --- Small things ---------------------------------------------------------*/

PyObject *
fl_transport_call_protocol(TransportObject *self, PyObject *name,
                           PyObject *arg)
{
    PyObject *protocol = self->protocol == NULL ? Py_None : self->protocol;
    PyObject *stack[2] = {Py_NewRef(protocol), arg};
    PyObject *result = PyObject_VectorcallMethod(
        name, stack, (arg == NULL ? 1 : 2) | PY_VECTORCALL_ARGUMENTS_OFFSET,
        NULL);
    Py_DECREF(protocol);
    return result;
}

int
fl_transport_log(TransportObject *self, const char *format)
{
    LoopObject *loop = fl_transport_loop(self);
    int debug = loop == NULL ? 0 : fl_loop_debug(loop);
    if (FL_LIKELY(debug <= 0)) {
        return debug;
    }
    PyObject *result = PyObject_CallMethod(fl_transport_state(self)->logger,
                                           "debug", "sO", format, self);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
fl_transport_call_soon(TransportObject *self, PyObject *callback,
                       PyObject *arg)
{
    LoopObject *loop = fl_transport_loop(self);
    if (loop == NULL) {
        return 0;
    }
    if (fl_loop_check_closed(loop) < 0) {
        return -1;
    }
    if (FL_UNLIKELY(!fl_loop_is_plain(loop->state, self->loop))) {
        return fl_call_soon_any(loop->state, self->loop, callback, arg,
                                self->context);
    }
    HandleObject *handle = fl_call_soon(loop, callback, &arg, arg != NULL,
                                        self->context, false);
    Py_XDECREF(handle);
    return handle == NULL ? -1 : 0;
}

int
fl_transport_call_own_soon(TransportObject *self, PyObject *name, PyObject *arg)
{
    PyObject *method = PyObject_GetAttr((PyObject *)self, name);
    if (method == NULL) {
        return -1;
    }
    int rc = fl_transport_call_soon(self, method, arg);
    Py_DECREF(method);
    return rc;
}

bool
fl_transport_alive(TransportObject *self)
{
    return self->fd >= 0
           && (!self->is_socket || self->file == NULL
               || fl_socket_fd(fl_transport_state(self), self->file) == self->fd);
}

/* --- Life -----------------------------------------------------------------*/

/* Runs Python: Server._detach, whose waiters wake up. */
int
fl_transport_detach(TransportObject *self)
{
    PyObject *server = self->server;
    self->server = NULL;
    if (server == NULL) {
        return 0;
    }
    fl_state *state = fl_transport_state(self);
    PyObject *stack[2] = {server, (PyObject *)self};
    PyObject *result = PyObject_VectorcallMethod(
        state->str__detach, stack, state->servers_know_clients ? 2 : 1, NULL);
    Py_DECREF(server);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Names of a UNIX socket do not fit into an fl_address. */
static void
transport_keep_unix_names(TransportObject *self,
                          const struct sockaddr_storage *name, socklen_t len)
{
    if (name->ss_family != AF_UNIX) {
        return;
    }
    fl_state *state = fl_transport_state(self);
    struct sockaddr_storage peer;
    socklen_t peer_len = sizeof(peer);
    bool has_peer = getpeername(self->number, (struct sockaddr *)&peer,
                                &peer_len)
                    == 0;
    PyObject *ours = fl_sockaddr_object((const struct sockaddr *)name, len);
    PyObject *theirs =
        has_peer ? fl_sockaddr_object((struct sockaddr *)&peer, peer_len)
                 : Py_NewRef(Py_None);
    if (self->extra == NULL) {
        self->extra = PyDict_New();
    }
    if (ours == NULL || theirs == NULL || self->extra == NULL
        || PyDict_SetDefault(self->extra, state->str_sockname, ours) == NULL
        || PyDict_SetDefault(self->extra, state->str_peername, theirs) == NULL)
    {
        PyErr_Clear();  /* no memory: they will be None */
    }
    Py_XDECREF(ours);
    Py_XDECREF(theirs);
}

/* A sendfile that was going on leaves its watcher on the number. */
static void
transport_clear_watches(TransportObject *self, LoopObject *loop, int fd)
{
    if (!self->is_socket || loop->closed
        || loop->forks != loop->state->forks
        || (!self->lent
            && fl_watch_owner(loop, fd) != (PyObject *)self))
    {
        return;
    }
    if (fl_watch_remove(loop, fd, FL_POLL_READ) < 0
        || fl_watch_remove(loop, fd, FL_POLL_WRITE) < 0)
    {
        PyErr_WriteUnraisable((PyObject *)self);
    }
}

void
fl_transport_close_file(TransportObject *self)
{
    int fd = self->fd;
    if (fd < 0) {
        return;
    }
    PyObject *raised = fl_take_raised();
    PyObject *file = self->file;
    LoopObject *loop = fl_transport_loop(self);
    bool alive = fl_transport_alive(self);
    self->fd = -1;
    self->file = NULL;
    if (loop != NULL) {
        if (alive) {
            transport_clear_watches(self, loop, fd);
        }
        fl_watch_disown(loop, fd, (PyObject *)self);
    }
    if (self->is_socket && alive && self->name.len == 0) {
        /* Who still asks for 'sockname' gets it. */
        struct sockaddr_storage name;
        socklen_t len = sizeof(name);
        if (getsockname(fd, (struct sockaddr *)&name, &len) == 0) {
            fl_address_set(&self->name, &name, len);
            transport_keep_unix_names(self, &name, len);
        }
    }
    if (file == NULL) {
        close(fd);
    }
    else {
        /* Runs Python: close() of the user's object. */
        PyObject *result = PyObject_CallMethodNoArgs(
            file, fl_transport_state(self)->str_close);
        if (result == NULL) {
            PyErr_WriteUnraisable(file);
        }
        Py_XDECREF(result);
        Py_DECREF(file);
    }
    if (raised != NULL) {
        fl_put_raised(raised);
    }
}

int
fl_transport_lose(TransportObject *self, PyObject *exc)
{
    fl_state *state = fl_transport_state(self);
    if (self->loop == NULL) {
        return 0;
    }
    PyObject *result = Py_NewRef(Py_None);
    if (self->protocol_connected) {
        Py_SETREF(result, fl_transport_call_protocol(
                              self, state->str_connection_lost, exc));
    }
    PyObject *raised = fl_take_raised();
    Py_XDECREF(result);
    fl_transport_stop_reading(self);
    fl_transport_stop_writing(self);
    fl_transport_close_file(self);
    Py_CLEAR(self->protocol);
    PyObject *loop = self->loop;
    self->loop = NULL;
    Py_CLEAR(self->read_context);
    if (fl_transport_detach(self) < 0 && raised == NULL) {
        raised = fl_take_raised();
    }
    PyErr_Clear();
    Py_XDECREF(loop);
    if (raised != NULL) {
        fl_put_raised(raised);
        return -1;
    }
    return 0;
}

int
fl_transport_schedule_lost(TransportObject *self, PyObject *exc)
{
    return fl_transport_call_own_soon(
        self, fl_transport_state(self)->str__call_connection_lost,
        exc == NULL ? Py_None : exc);
}

int
fl_transport_force_close(TransportObject *self, PyObject *exc)
{
    /* asyncio has sent it by now; but a broken connection takes nothing, and
       its own error is the one to be told. */
    bool broken = exc != NULL && PyObject_IsInstance(exc, PyExc_OSError) > 0;
    if (self->held && !broken
        && self->ops->flush(fl_transport_loop(self), (PyObject *)self) < 0)
    {
        return -1;
    }
    if (self->lost > 0 || self->loop == NULL) {
        return 0;
    }
    self->held = false;
    fl_writeq_clear(&self->queue);
    fl_transport_stop_writing(self);
    if (!self->closing) {
        self->closing = true;
        fl_transport_stop_reading(self);
    }
    self->lost++;
    return fl_transport_schedule_lost(self, exc);
}

/* loop.call_exception_handler() in asyncio's words.  Runs Python. */
static int
transport_call_handler(TransportObject *self, PyObject *exc,
                       const char *message)
{
    fl_state *state = fl_transport_state(self);
    PyObject *context = Py_BuildValue(
        "{OsOOOOOO}", state->str_message, message, state->str_exception, exc,
        state->str_transport, self, state->str_protocol,
        self->protocol == NULL ? Py_None : self->protocol);
    PyObject *result =
        context == NULL
            ? NULL
            : PyObject_CallMethodOneArg(
                  self->loop, state->str_call_exception_handler, context);
    Py_XDECREF(context);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Ordinary errors are reported in debug mode only. */
int
fl_transport_report_fatal(TransportObject *self, PyObject *exc,
                          const char *message)
{
    bool quiet = PyObject_IsInstance(exc, PyExc_OSError) > 0;
    if (quiet && self->loud_errors) {
        quiet = fl_exc_errno(exc) == EIO;
    }
    if (!quiet) {
        return transport_call_handler(self, exc, message);
    }
    int debug = fl_loop_debug(fl_transport_loop(self));
    if (debug <= 0) {
        return debug;
    }
    PyObject *args = Py_BuildValue("(sOs)", "%r: %s", self, message);
    PyObject *kwargs = Py_BuildValue("{sO}", "exc_info", exc);
    PyObject *method =
        PyObject_GetAttrString(fl_transport_state(self)->logger, "debug");
    PyObject *result = args == NULL || kwargs == NULL || method == NULL
                           ? NULL
                           : PyObject_Call(method, args, kwargs);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    Py_XDECREF(method);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
fl_transport_fatal(TransportObject *self, const char *message)
{
    if (fl_report_must_leave()) {
        return -1;
    }
    PyObject *exc = fl_take_raised();
    int rc = 0;
    if (self->loop != NULL) {
        rc = fl_transport_report_fatal(self, exc, message);
    }
    if (rc == 0) {
        rc = fl_transport_force_close(self, exc);
    }
    Py_DECREF(exc);
    return rc;
}

/* --- Watching -------------------------------------------------------------*/

/* The loop's thread may be a forked child's, where the poller is the
   parent's: nothing is told to that one. */
static bool
transport_may_watch(TransportObject *self)
{
    LoopObject *loop = fl_transport_loop(self);
    return loop != NULL && !loop->closed && loop->forks == loop->state->forks
           && self->fd >= 0;
}

/* In debug mode a handle, so that slow callbacks are named as asyncio names
   them; else the transport itself. */
static int
transport_watch(TransportObject *self, uint32_t what, PyObject **context,
                const char *method)
{
    LoopObject *loop = fl_transport_loop(self);
    PyObject *current = self->context == NULL ? PyContext_CopyCurrent()
                                              : Py_NewRef(self->context);
    if (current == NULL) {
        return -1;
    }
    int debug = fl_loop_debug(loop);
    if (debug < 0) {
        Py_DECREF(current);
        return -1;
    }
    if (FL_LIKELY(debug == 0)) {
        Py_XSETREF(*context, current);
        return fl_watch_set_channel(loop, self->fd, what, (PyObject *)self);
    }
    PyObject *callback = PyObject_GetAttrString((PyObject *)self, method);
    HandleObject *handle =
        callback == NULL
            ? NULL
            : fl_handle_new(loop, callback, NULL, 0, current, false);
    Py_DECREF(current);
    Py_XDECREF(callback);
    if (handle == NULL) {
        return -1;
    }
    handle->repeats = true;
    PyObject_GC_Track(handle);
    int rc = fl_watch_set(loop, self->fd, what, (PyObject *)handle);
    Py_DECREF(handle);
    return rc;
}

static void
transport_unwatch(TransportObject *self, uint32_t what)
{
    if (!transport_may_watch(self)) {
        return;
    }
    LoopObject *loop = fl_transport_loop(self);
    if (!fl_transport_alive(self)
        && !fl_watch_has(loop, self->fd, what, (PyObject *)self))
    {
        return;  /* closed behind our back, and the number may be another's */
    }
    PyObject *raised = fl_take_raised();
    /* The watch's reference may be the last but the caller's. */
    if (fl_watch_remove(fl_transport_loop(self), self->fd, what) < 0) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
    if (raised != NULL) {
        fl_put_raised(raised);
    }
}

int
fl_transport_start_reading(TransportObject *self)
{
    if (self->closing || self->paused || self->loop == NULL) {
        return 0;
    }
    LoopObject *loop = fl_transport_loop(self);
    if (fl_loop_check_closed(loop) < 0 || fl_loop_check_fork(loop) < 0
        || transport_watch(self, FL_POLL_READ, &self->read_context,
                           "_read_ready")
               < 0)
    {
        return -1;
    }
    self->reading = true;
    return 0;
}

void
fl_transport_stop_reading(TransportObject *self)
{
    if (self->reading) {
        self->reading = false;
        transport_unwatch(self, FL_POLL_READ);
    }
}

int
fl_transport_start_writing(TransportObject *self)
{
    if (self->writing || !transport_may_watch(self)) {
        return 0;
    }
    if (transport_watch(self, FL_POLL_WRITE, &self->write_context,
                        "_write_ready")
        < 0)
    {
        return -1;
    }
    self->writing = true;
    return 0;
}

void
fl_transport_stop_writing(TransportObject *self)
{
    if (self->writing) {
        self->writing = false;
        transport_unwatch(self, FL_POLL_WRITE);
        Py_CLEAR(self->write_context);
    }
}

/* What a step raised goes to the exception handler, as if it came out of a
   handle. */
static int
transport_report_step(LoopObject *loop, TransportObject *self,
                      PyObject *context, const char *method)
{
    if (fl_report_must_leave()) {
        return -1;
    }
    PyObject *exc = fl_take_raised();
    PyObject *callback = PyObject_GetAttrString((PyObject *)self, method);
    HandleObject *handle =
        callback == NULL
            ? NULL
            : fl_handle_new(loop, callback, NULL, 0, context, false);
    Py_XDECREF(callback);
    if (handle == NULL) {
        Py_DECREF(exc);
        return -1;
    }
    fl_put_raised(exc);
    int rc = fl_report_callback((PyObject *)loop, handle);
    fl_handle_let_go(handle);
    return rc;
}

int
fl_transport_report(TransportObject *self, const char *method)
{
    if (fl_report_must_leave()) {
        return -1;
    }
    LoopObject *loop = fl_transport_loop(self);
    PyObject *exc = fl_take_raised();
    PyObject *context = loop == NULL ? NULL : PyContext_CopyCurrent();
    if (context == NULL) {
        PyErr_Clear();
        fl_put_raised(exc);
        PyErr_WriteUnraisable((PyObject *)self);
        return 0;
    }
    fl_put_raised(exc);
    int rc = transport_report_step(loop, self, context, method);
    Py_DECREF(context);
    return rc;
}

int
fl_transport_run(LoopObject *loop, TransportObject *self, PyObject *context,
                 int (*step)(TransportObject *), const char *method)
{
    fl_state *state = loop->state;
    PyThreadState *ts = PyThreadState_Get();
    Py_INCREF(context);
    int rc = fl_context_enter(state, ts, context);
    if (FL_LIKELY(rc == 0)) {
        rc = step(self);
        if (FL_UNLIKELY(fl_context_exit(state, ts, context) < 0)) {
            rc = -1;
        }
    }
    if (FL_UNLIKELY(rc < 0)) {
        rc = transport_report_step(loop, self, context, method);
    }
    Py_DECREF(context);
    return rc;
}

/* --- Flow control ---------------------------------------------------------*/

/* protocol.name(); failures are reported as asyncio's _FlowControlMixin
   does. */
static int
transport_tell_flow(TransportObject *self, PyObject *name,
                    const char *message)
{
    PyObject *result = fl_transport_call_protocol(self, name, NULL);
    if (result != NULL) {
        Py_DECREF(result);
        return 0;
    }
    if (fl_report_must_leave() || self->loop == NULL) {
        return -1;
    }
    PyObject *exc = fl_take_raised();
    int rc = transport_call_handler(self, exc, message);
    Py_DECREF(exc);
    return rc;
}

int
fl_transport_maybe_pause(TransportObject *self, size_t size)
{
    if (FL_LIKELY(size <= (size_t)self->high_water) || self->protocol_paused) {
        return 0;
    }
    self->protocol_paused = true;
    return transport_tell_flow(self, fl_transport_state(self)->str_pause_writing,
                               "protocol.pause_writing() failed");
}

int
fl_transport_maybe_resume(TransportObject *self, size_t size)
{
    if (FL_LIKELY(!self->protocol_paused) || size > (size_t)self->low_water) {
        return 0;
    }
    self->protocol_paused = false;
    return transport_tell_flow(self,
                               fl_transport_state(self)->str_resume_writing,
                               "protocol.resume_writing() failed");
}

int
fl_transport_write_lost(TransportObject *self, const char *warning)
{
    PyObject *result = Py_NewRef(Py_None);
    if (self->lost >= TRANSPORT_QUIET_WRITES) {
        Py_SETREF(result, PyObject_CallMethod(fl_transport_state(self)->logger,
                                              "warning", "s", warning));
    }
    if (self->lost < UINT_MAX) {
        self->lost++;
    }
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}
