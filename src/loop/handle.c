/* handle.c -- handles as the loop uses them: making, running, cancelling.
   What Python sees of them is in handle_type.c. */
#include "loop/handle.h"

#include "loop/report.h"
#include "loop/timer.h"

bool
fl_handle_check(fl_state *state, PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    return type == state->Handle_type || type == state->TimerHandle_type
           || type == state->ThreadHandle_type;
}

/* --- Making --------------------------------------------------------------*/

/* Memory with every field zero; not tracked. */
static HandleObject *
handle_alloc(PyTypeObject *type, fl_pool *pool)
{
    PyObject *op = fl_pool_take(pool);
    if (op != NULL) {
        fl_revive(op, type);
        return (HandleObject *)op;
    }
    op = type->tp_alloc(type, 0);
    if (op != NULL) {
        PyObject_GC_UnTrack(op);
    }
    return (HandleObject *)op;
}

/* Where the caller stands, for debug mode: asyncio takes the stack inside
   Handle and then drops its own frames, which C does not have. */
static PyObject *
handle_extract_stack(fl_state *state)
{
    PyObject *frame = (PyObject *)PyEval_GetFrame();  // borrowed
    if (frame == NULL) {
        return Py_NewRef(Py_None);
    }
    return PyObject_CallOneArg(state->extract_stack, frame);
}

static int
handle_init(HandleObject *handle, LoopObject *loop, PyObject *callback,
            PyObject *const *args, Py_ssize_t nargs, PyObject *context)
{
    fl_state *state = loop->state;
    handle->callback = Py_NewRef(callback);
    handle->loop = Py_NewRef(loop);
    handle->cancelled = false;
    handle->hidden = false;
    handle->running = false;
    handle->repeats = false;
    if (FL_LIKELY(nargs <= FL_HANDLE_INLINE)) {
        for (Py_ssize_t i = 0; i < nargs; i++) {
            handle->inline_args[i] = Py_NewRef(args[i]);
        }
        handle->nargs = (unsigned char)nargs;
    }
    else {
        handle->nargs = 0;
        handle->args = PyTuple_New(nargs);
        if (handle->args == NULL) {
            return -1;
        }
        for (Py_ssize_t i = 0; i < nargs; i++) {
            PyTuple_SET_ITEM(handle->args, i, Py_NewRef(args[i]));
        }
    }
    if (context == NULL || context == Py_None) {
        handle->shared_context = state->context_ok;
        handle->context = fl_snapshot_take(state, &loop->snapshot);
        if (handle->context == NULL) {
            return -1;
        }
    }
    else {
        handle->shared_context = false;
        handle->context = Py_NewRef(context);
    }
    int debug = fl_loop_debug(loop);
    if (FL_UNLIKELY(debug != 0)) {
        if (debug < 0) {
            return -1;
        }
        handle->source_traceback = handle_extract_stack(state);
        if (handle->source_traceback == NULL) {
            return -1;
        }
    }
    return 0;
}

HandleObject *
fl_handle_new(LoopObject *loop, PyObject *callback, PyObject *const *args,
              Py_ssize_t nargs, PyObject *context, bool thread_safe)
{
    fl_state *state = loop->state;
    HandleObject *handle = handle_alloc(
        thread_safe ? state->ThreadHandle_type : state->Handle_type,
        &state->handles);
    if (handle != NULL
        && handle_init(handle, loop, callback, args, nargs, context) < 0)
    {
        Py_CLEAR(handle);
    }
    return handle;
}

TimerObject *
fl_timer_new(LoopObject *loop, double when, PyObject *when_object,
             PyObject *callback, PyObject *const *args, Py_ssize_t nargs,
             PyObject *context)
{
    fl_state *state = loop->state;
    TimerObject *timer = (TimerObject *)handle_alloc(state->TimerHandle_type,
                                                     &state->timers);
    if (timer == NULL) {
        return NULL;
    }
    timer->when = when;
    timer->heap_index = FL_HEAP_OUTSIDE;
    timer->handle.extra[1] = Py_XNewRef(when_object);
    if (handle_init(&timer->handle, loop, callback, args, nargs, context) < 0)
    {
        Py_CLEAR(timer);
    }
    return timer;
}

/* --- Running -------------------------------------------------------------*/

/* Lets the callback and its arguments go. */
void
fl_handle_clear_call(HandleObject *handle)
{
    unsigned char nargs = handle->nargs;
    handle->nargs = 0;
    Py_CLEAR(handle->callback);
    Py_CLEAR(handle->args);
    for (unsigned char i = 0; i < nargs; i++) {
        Py_CLEAR(handle->inline_args[i]);
    }
}

/* callback(*args).  Runs Python: the handle may be cancelled meanwhile, which
   waits (`running`) until the arguments are not in use any more. */
static PyObject *
handle_call(HandleObject *handle)
{
    if (FL_UNLIKELY(handle->callback == NULL)) {
        PyErr_SetString(PyExc_AttributeError, "_callback");
        return NULL;
    }
    PyObject *callback = Py_NewRef(handle->callback);
    PyObject *result;
    if (FL_LIKELY(handle->args == NULL)) {
        result = PyObject_Vectorcall(
            callback, handle->inline_args,
            (size_t)handle->nargs | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    }
    else {
        PyObject *args = Py_NewRef(handle->args);
        result = PyObject_CallObject(callback, args);
        Py_DECREF(args);
    }
    Py_DECREF(callback);
    return result;
}

/* Gives the handle a context of its own, before others see or change it. */
int
fl_handle_unshare_context(HandleObject *handle)
{
    if (!handle->shared_context || handle->context == NULL) {
        return 0;
    }
    fl_state *state = fl_type_state(Py_TYPE(handle));
    const fl_shared_run *runs =
        fl_loop_check(state, handle->loop)
            ? ((LoopObject *)handle->loop)->shared_runs
            : NULL;
    PyObject *own = fl_context_copy_shared(runs, handle->context);
    if (own == NULL) {
        return -1;
    }
    handle->shared_context = false;
    Py_SETREF(handle->context, own);
    return 0;
}

/* The callback set variables in a context that other handles share: the
   handle goes on with a context of its own, and the shared one is put back.
   A raised exception stays raised. */
static int
handle_take_context(HandleObject *handle, PyObject *shared, PyObject *vars)
{
    PyObject *exc = fl_take_raised();
    PyObject *own = PyContext_Copy(shared);
    int rc = own == NULL ? -1 : 0;
    if (own != NULL) {
        Py_XSETREF(handle->context, own);
        handle->shared_context = false;
    }
    fl_context_restore(shared, vars);
    if (exc != NULL) {
        PyErr_Clear();
        fl_put_raised(exc);
        rc = 0;
    }
    return rc;
}

/* As handle_call, in the handle's context. */
static PyObject *
handle_call_in_context(LoopObject *loop, HandleObject *handle)
{
    fl_state *state = loop->state;
    PyObject *context = handle->context;
    PyObject *vars = NULL;
    if (FL_UNLIKELY(context == NULL)) {
        /* asyncio's slots can be deleted, and its handles then fail so. */
        PyErr_SetString(PyExc_AttributeError, "_context");
        return NULL;
    }
    if (FL_UNLIKELY(!PyContext_CheckExact(context))) {
        PyObject *run = PyObject_GetAttrString(context, "run");
        PyObject *args =
            run == NULL ? NULL
                        : PyObject_GetAttrString((PyObject *)handle, "_args");
        PyObject *head = args == NULL || handle->callback == NULL
                             ? NULL
                             : PyTuple_Pack(1, handle->callback);
        if (head == NULL && !PyErr_Occurred()) {
            PyErr_SetString(PyExc_AttributeError, "_callback");
        }
        PyObject *all = head == NULL ? NULL : PySequence_Concat(head, args);
        PyObject *result = all == NULL ? NULL : PyObject_CallObject(run, all);
        Py_XDECREF(run);
        Py_XDECREF(args);
        Py_XDECREF(head);
        Py_XDECREF(all);
        return result;
    }
    if (handle->shared_context) {
        if (FL_UNLIKELY(((fl_context *)context)->entered)) {
            /* Another holder of the snapshot is running further up. */
            if (fl_handle_unshare_context(handle) < 0) {
                return NULL;
            }
            context = Py_NewRef(handle->context);
        }
        else {
            Py_INCREF(context);
            vars = Py_NewRef(((fl_context *)context)->vars);
        }
    }
    else {
        Py_INCREF(context);
    }
    fl_shared_run run = {vars == NULL ? NULL : context, vars,
                         loop->shared_runs};
    loop->shared_runs = &run;
    PyThreadState *ts = PyThreadState_Get();
    PyObject *result = NULL;
    if (FL_LIKELY(fl_context_enter(state, ts, context) == 0)) {
        result = handle_call(handle);
        if (FL_UNLIKELY(fl_context_exit(state, ts, context) < 0)) {
            Py_CLEAR(result);
        }
    }
    loop->shared_runs = run.outer;
    if (vars != NULL) {
        if (FL_UNLIKELY(((fl_context *)context)->vars != vars)
            && handle_take_context(handle, context, vars) < 0)
        {
            Py_CLEAR(result);
        }
        Py_DECREF(vars);
    }
    Py_DECREF(context);
    return result;
}

/* _ThreadSafeHandle: other threads' cancel() waits for the callback's end
   by taking a lock that they make and that the callback's thread opens. */
static void
handle_open_lock(HandleObject *handle)
{
    PyObject *lock = handle->extra[0];
    handle->extra[0] = NULL;
    if (lock != NULL) {
        PyObject *exc = fl_take_raised();
        PyObject *result = PyObject_CallMethod(lock, "release", NULL);
        if (result == NULL) {
            PyErr_WriteUnraisable(lock);
        }
        Py_XDECREF(result);
        Py_DECREF(lock);
        if (exc != NULL) {
            fl_put_raised(exc);
        }
    }
}

int
fl_handle_run(LoopObject *loop, HandleObject *handle)
{
    if (FL_UNLIKELY(handle->cancelled)) {
        return 0;
    }
    fl_state *state = loop->state;
    if (handle->callback == state->set_result_unless_cancelled
        && handle->nargs == 2 && !loop->debug
        && state->set_result_quickly != NULL)
    {
        /* The end of asyncio.sleep, without the trip through Python. */
        PyObject *future = Py_NewRef(handle->inline_args[0]);
        PyObject *value = Py_NewRef(handle->inline_args[1]);
        int rc = state->set_result_quickly(state, (PyObject *)loop, future,
                                           value);
        PyObject *raised = rc < 0 ? fl_take_raised() : NULL;
        Py_DECREF(future);
        Py_DECREF(value);
        if (raised != NULL) {
            fl_put_raised(raised);
        }
        if (rc != 0) {
            return rc < 0 ? fl_report_callback((PyObject *)loop, handle) : 0;
        }
    }
    bool was_running = handle->running;
    handle->running = true;
    PyObject *result = handle_call_in_context(loop, handle);
    handle->running = was_running;
    if (FL_UNLIKELY(handle->extra[0] != NULL)
        && Py_TYPE(handle) == state->ThreadHandle_type)
    {
        handle_open_lock(handle);
    }
    int rc = 0;
    if (FL_UNLIKELY(result == NULL)) {
        /* The exception handler runs in the handle's context. */
        PyObject *raised = fl_take_raised();
        if (fl_handle_unshare_context(handle) < 0) {
            PyErr_Clear();
        }
        fl_put_raised(raised);
        rc = fl_report_callback((PyObject *)loop, handle);
    }
    else {
        Py_DECREF(result);
    }
    if (FL_UNLIKELY(handle->cancelled)) {
        PyObject *exc = fl_take_raised();
        fl_handle_clear_call(handle);
        if (exc != NULL) {
            fl_put_raised(exc);
        }
    }
    return rc;
}

int
fl_handle_cancel(HandleObject *handle)
{
    if (handle->cancelled) {
        return 0;
    }
    fl_state *state = fl_type_state(Py_TYPE(handle));
    if (Py_TYPE(handle) == state->TimerHandle_type) {
        fl_timer_unschedule(state, (TimerObject *)handle);
    }
    handle->cancelled = true;
    int debug = fl_loop_check(state, handle->loop)
                    ? fl_loop_debug((LoopObject *)handle->loop)
                    : 0;
    if (FL_UNLIKELY(debug != 0)) {
        if (debug < 0) {
            return -1;
        }
        PyObject *repr = PyObject_Repr((PyObject *)handle);
        if (repr == NULL) {
            return -1;
        }
        Py_XSETREF(handle->repr, repr);
    }
    handle->hidden = true;
    if (!handle->running) {
        fl_handle_clear_call(handle);
    }
    return 0;
}
