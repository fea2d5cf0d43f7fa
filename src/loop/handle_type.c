/* handle_type.c -- Handle, TimerHandle and _ThreadSafeHandle as Python sees
   them. */
#include "loop/handle.h"

/* From a thread that is not the loop's: waits for a callback that runs. */
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
    if (fl_handle_unshare_context(handle) < 0) {
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
    fl_handle_clear_call(handle);
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
    FL_TRASHCAN_BEGIN(op, handle_dealloc)
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
    FL_TRASHCAN_END
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
    if (!handle_slots_are_ours(state)) {
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
