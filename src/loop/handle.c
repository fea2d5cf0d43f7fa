/* handle.c -- Handle, TimerHandle and _ThreadSafeHandle: making, running,
   cancelling, and what Python sees of them. */
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
static void
handle_clear_call(HandleObject *handle)
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
static int
handle_unshare_context(HandleObject *handle)
{
    if (!handle->shared_context || handle->context == NULL) {
        return 0;
    }
    PyObject *own = PyContext_Copy(handle->context);
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
handle_call_in_context(fl_state *state, HandleObject *handle)
{
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
            if (handle_unshare_context(handle) < 0) {
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
    PyObject *result = NULL;
    if (FL_LIKELY(fl_context_enter(state, context) == 0)) {
        result = handle_call(handle);
        if (FL_UNLIKELY(fl_context_exit(state, context) < 0)) {
            Py_CLEAR(result);
        }
    }
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

static int
handle_wait_for_callback(HandleObject *handle)
{
    fl_state *state = fl_state_of((PyObject *)handle);
    while (handle->running && fl_loop_check(state, handle->loop)
           && ((LoopObject *)handle->loop)->thread_id != PyThread_get_thread_ident())
    {
        if (handle->extra[0] == NULL) {
            PyObject *module = PyImport_ImportModule("_thread");
            PyObject *lock =
                module == NULL
                    ? NULL
                    : PyObject_CallMethod(module, "allocate_lock", NULL);
            Py_XDECREF(module);
            PyObject *taken =
                lock == NULL ? NULL
                             : PyObject_CallMethod(lock, "acquire", NULL);
            if (taken == NULL) {
                Py_XDECREF(lock);
                return -1;
            }
            Py_DECREF(taken);
            handle->extra[0] = lock;
        }
        PyObject *lock = Py_NewRef(handle->extra[0]);
        PyObject *taken = PyObject_CallMethod(lock, "acquire", NULL);
        if (taken == NULL) {
            Py_DECREF(lock);
            return -1;
        }
        Py_DECREF(taken);
        PyObject *opened = PyObject_CallMethod(lock, "release", NULL);
        Py_DECREF(lock);
        if (opened == NULL) {
            return -1;
        }
        Py_DECREF(opened);
    }
    return 0;
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
    PyObject *result = handle_call_in_context(state, handle);
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
        if (handle_unshare_context(handle) < 0) {
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
        handle_clear_call(handle);
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
        handle_clear_call(handle);
    }
    return 0;
}

/* --- What Python sees ----------------------------------------------------*/

PyDoc_STRVAR(handle_cancel_doc, "Cancel the callback.");

static PyObject *
handle_cancel(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    if (fl_handle_cancel((HandleObject *)op) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(handle_cancelled_doc, "Whether the callback was cancelled.");

static PyObject *
handle_cancelled(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(((HandleObject *)op)->cancelled);
}

static PyObject *
thread_handle_cancel(PyObject *op, PyObject *ignored)
{
    if (handle_wait_for_callback((HandleObject *)op) < 0) {
        return NULL;
    }
    return handle_cancel(op, ignored);
}

static PyObject *
thread_handle_cancelled(PyObject *op, PyObject *ignored)
{
    if (handle_wait_for_callback((HandleObject *)op) < 0) {
        return NULL;
    }
    return handle_cancelled(op, ignored);
}

PyDoc_STRVAR(handle_run_doc, "Run the callback now, as the loop would.");

static PyObject *
handle_run(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    HandleObject *handle = (HandleObject *)op;
    fl_state *state = fl_state_of(op);
    PyObject *loop = handle->loop;
    if (!fl_loop_check(state, loop)) {
        PyErr_SetString(PyExc_AttributeError, "_loop");
        return NULL;
    }
    Py_INCREF(loop);
    int rc = Py_IS_TYPE(op, state->ThreadHandle_type)
                     && handle_wait_for_callback(handle) < 0
                 ? -1
                 : fl_handle_run((LoopObject *)loop, handle);
    Py_DECREF(loop);
    if (rc < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(timer_when_doc,
             "The time at which the callback is due, by loop.time().");

static PyObject *
timer_get_when(PyObject *op, void *Py_UNUSED(closure))
{
    TimerObject *timer = (TimerObject *)op;
    PyObject *given = timer->handle.extra[1];
    return given != NULL ? Py_NewRef(given)
                         : PyFloat_FromDouble(timer->when);
}

static PyObject *
timer_when(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return timer_get_when(op, NULL);
}

static PyObject *
timer_get_scheduled(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((TimerObject *)op)->heap_index >= 0);
}

static PyObject *
handle_get_callback(PyObject *op, void *Py_UNUSED(closure))
{
    HandleObject *handle = (HandleObject *)op;
    if (handle->hidden || handle->callback == NULL) {
        Py_RETURN_NONE;
    }
    return Py_NewRef(handle->callback);
}

static PyObject *
handle_get_args(PyObject *op, void *Py_UNUSED(closure))
{
    HandleObject *handle = (HandleObject *)op;
    if (handle->hidden) {
        Py_RETURN_NONE;
    }
    if (handle->args != NULL) {
        return Py_NewRef(handle->args);
    }
    PyObject *args = PyTuple_New(handle->nargs);
    if (args != NULL) {
        for (unsigned char i = 0; i < handle->nargs; i++) {
            PyTuple_SET_ITEM(args, i, Py_NewRef(handle->inline_args[i]));
        }
    }
    return args;
}

static PyObject *
handle_get_context(PyObject *op, void *Py_UNUSED(closure))
{
    HandleObject *handle = (HandleObject *)op;
    if (handle_unshare_context(handle) < 0) {
        return NULL;
    }
    if (handle->context == NULL) {
        PyErr_SetString(PyExc_AttributeError, "_context");
        return NULL;
    }
    return Py_NewRef(handle->context);
}

static int
handle_set_context(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    HandleObject *handle = (HandleObject *)op;
    handle->shared_context = false;
    Py_XSETREF(handle->context, Py_XNewRef(value));
    return 0;
}

static PyObject *
handle_get_cancelled(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((HandleObject *)op)->cancelled);
}

static PyObject *
handle_get_repr(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *repr = ((HandleObject *)op)->repr;
    return Py_NewRef(repr == NULL ? Py_None : repr);
}

static PyObject *
handle_get_source_traceback(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *traceback = ((HandleObject *)op)->source_traceback;
    return Py_NewRef(traceback == NULL ? Py_None : traceback);
}

int
fl_handle_visit(HandleObject *handle, visitproc visit, void *arg)
{
    Py_VISIT(handle->args);
    Py_VISIT(handle->cancelled_slot);
    Py_VISIT(handle->callback);
    Py_VISIT(handle->context);
    Py_VISIT(handle->loop);
    Py_VISIT(handle->repr);
    Py_VISIT(handle->source_traceback);
    Py_VISIT(handle->extra[0]);
    Py_VISIT(handle->extra[1]);
    for (unsigned char i = 0; i < handle->nargs; i++) {
        Py_VISIT(handle->inline_args[i]);
    }
    return 0;
}

static int
handle_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    return fl_handle_visit((HandleObject *)op, visit, arg);
}

static int
handle_clear(PyObject *op)
{
    HandleObject *handle = (HandleObject *)op;
    handle_clear_call(handle);
    Py_CLEAR(handle->cancelled_slot);
    Py_CLEAR(handle->context);
    Py_CLEAR(handle->repr);
    Py_CLEAR(handle->source_traceback);
    Py_CLEAR(handle->extra[0]);
    Py_CLEAR(handle->extra[1]);
    return 0;
}

static void
handle_dealloc(PyObject *op)
{
    HandleObject *handle = (HandleObject *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (FL_UNLIKELY(fl_has_weakrefs(op))) {
        PyObject_ClearWeakRefs(op);
    }
    handle_clear(op);
    /* Last: the loop may die of it, and it holds the module. */
    PyObject *loop = handle->loop;
    handle->loop = NULL;
    fl_state *state = fl_type_state(type);
    fl_pool *pool = NULL;
    if (FL_LIKELY(state != NULL && state->Handle_type != NULL)) {
        pool = type == state->TimerHandle_type ? &state->timers
                                               : &state->handles;
    }
    if (pool == NULL || !fl_pool_put(pool, op)) {
        type->tp_free(op);
    }
    Py_DECREF(type);
    Py_XDECREF(loop);
}

static PyMethodDef handle_methods[] = {
    {"cancel", handle_cancel, METH_NOARGS, handle_cancel_doc},
    {"cancelled", handle_cancelled, METH_NOARGS, handle_cancelled_doc},
    {"_run", handle_run, METH_NOARGS, handle_run_doc},
    {NULL},
};

static PyMethodDef thread_handle_methods[] = {
    {"cancel", thread_handle_cancel, METH_NOARGS, handle_cancel_doc},
    {"cancelled", thread_handle_cancelled, METH_NOARGS, handle_cancelled_doc},
    {"_run", handle_run, METH_NOARGS, handle_run_doc},
    {NULL},
};

static PyMethodDef timer_methods[] = {
    {"cancel", handle_cancel, METH_NOARGS, handle_cancel_doc},
    {"cancelled", handle_cancelled, METH_NOARGS, handle_cancelled_doc},
    {"_run", handle_run, METH_NOARGS, handle_run_doc},
    {"when", timer_when, METH_NOARGS, timer_when_doc},
    {NULL},
};

#define HANDLE_GETSET                                                       \
    {"_callback", handle_get_callback, NULL, NULL, NULL},                   \
    {"_args", handle_get_args, NULL, NULL, NULL},                           \
    {"_context", handle_get_context, handle_set_context, NULL, NULL},       \
    {"_cancelled", handle_get_cancelled, NULL, NULL, NULL},                 \
    {"_repr", handle_get_repr, NULL, NULL, NULL},                           \
    {"_source_traceback", handle_get_source_traceback, NULL, NULL, NULL}

static PyGetSetDef handle_getset[] = {
    HANDLE_GETSET,
    {NULL},
};

static PyGetSetDef timer_getset[] = {
    HANDLE_GETSET,
    {"_when", timer_get_when, NULL, NULL, NULL},
    {"_scheduled", timer_get_scheduled, NULL, NULL, NULL},
    {NULL},
};

#undef HANDLE_GETSET

#define HANDLE_SLOTS(doc, methods, getset)       \
    {                                            \
        {Py_tp_doc, (doc)},                      \
        {Py_tp_dealloc, handle_dealloc},         \
        {Py_tp_traverse, handle_traverse},       \
        {Py_tp_clear, handle_clear},             \
        {Py_tp_methods, (methods)},              \
        {Py_tp_getset, (getset)},                \
        {0, NULL},                               \
    }

static PyType_Slot handle_slots[] = HANDLE_SLOTS(
    "A callback that waits for its turn: an asyncio.Handle.", handle_methods,
    handle_getset);
static PyType_Slot thread_handle_slots[] = HANDLE_SLOTS(
    "A Handle whose cancel() waits for the callback, from other threads.",
    thread_handle_methods, handle_getset);
static PyType_Slot timer_slots[] = HANDLE_SLOTS(
    "A callback that waits for its time: an asyncio.TimerHandle.",
    timer_methods, timer_getset);

#undef HANDLE_SLOTS

#define HANDLE_FLAGS \
    (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC \
     | Py_TPFLAGS_DISALLOW_INSTANTIATION)

static PyType_Spec handle_spec = {
    .name = "fastloop.Handle",
    .basicsize = sizeof(HandleObject),
    .flags = HANDLE_FLAGS,
    .slots = handle_slots,
};

static PyType_Spec thread_handle_spec = {
    .name = "fastloop._ThreadSafeHandle",
    .basicsize = sizeof(HandleObject),
    .flags = HANDLE_FLAGS,
    .slots = thread_handle_slots,
};

static PyType_Spec timer_spec = {
    .name = "fastloop.TimerHandle",
    .basicsize = sizeof(TimerObject),
    .flags = HANDLE_FLAGS,
    .slots = timer_slots,
};

/* Whether the slot `name` of a Python class lies where the struct has it. */
static bool
handle_slot_is_at(PyObject *type, const char *name, Py_ssize_t offset)
{
    PyObject *descr = PyDict_GetItemString(((PyTypeObject *)type)->tp_dict,
                                           name);  // borrowed
    return descr != NULL && Py_IS_TYPE(descr, &PyMemberDescr_Type)
           && ((PyMemberDescrObject *)descr)->d_member->offset == offset;
}

static bool
handle_slots_are_ours(fl_state *state)
{
    PyObject *base = state->AsyncioHandle;
    return PyType_Check(base)
           && handle_slot_is_at(base, "_args", offsetof(HandleObject, args))
           && handle_slot_is_at(base, "_callback",
                                offsetof(HandleObject, callback))
           && handle_slot_is_at(base, "_cancelled",
                                offsetof(HandleObject, cancelled_slot))
           && handle_slot_is_at(base, "_context",
                                offsetof(HandleObject, context))
           && handle_slot_is_at(base, "_loop", offsetof(HandleObject, loop))
           && handle_slot_is_at(base, "_repr", offsetof(HandleObject, repr))
           && handle_slot_is_at(base, "_source_traceback",
                                offsetof(HandleObject, source_traceback))
           && ((PyTypeObject *)base)->tp_basicsize
                  == offsetof(HandleObject, extra)
           && handle_slot_is_at(state->AsyncioTimerHandle, "_when",
                                offsetof(HandleObject, extra[1]))
           && ((PyTypeObject *)state->AsyncioTimerHandle)->tp_basicsize
                  == offsetof(HandleObject, callee);
}

int
fl_handle_setup(PyObject *module, fl_state *state)
{
    state->handles_ok = handle_slots_are_ours(state);
    if (!state->handles_ok) {
        PyErr_SetString(PyExc_ImportError,
                        "fastloop: asyncio.Handle of this Python is not laid "
                        "out as fastloop was built for; install a fastloop "
                        "release that names this Python version");
        return -1;
    }
    state->Handle_type = fl_add_type(module, &handle_spec,
                                     state->AsyncioHandle);
    state->TimerHandle_type = fl_add_type(module, &timer_spec,
                                          state->AsyncioTimerHandle);
    if (state->Handle_type == NULL || state->TimerHandle_type == NULL) {
        return -1;
    }
    if (state->AsyncioThreadHandle == state->AsyncioHandle) {
        state->ThreadHandle_type =
            (PyTypeObject *)Py_NewRef(state->Handle_type);
        return 0;
    }
    state->ThreadHandle_type = fl_add_type(module, &thread_handle_spec,
                                           state->AsyncioThreadHandle);
    return state->ThreadHandle_type == NULL ? -1 : 0;
}
