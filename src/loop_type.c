/* loop_type.c -- the Loop as Python sees it: running, attributes, life.  The
   methods that schedule are in loop_calls.c, those that watch descriptors in
   loop_descriptors.c.

   The class that users get is made in fastloop/_loop.py, on top of this type
   and of asyncio.SelectorEventLoop, whose Python methods (argument policy,
   executor, exception handler) work on the attributes kept here. */
#include "loop_type.h"

#include "base/args.h"
#include "loop/loop.h"
#include "loop/run.h"
#include "loop/watcher.h"
#include "loop_calls.h"
#include "loop_descriptors.h"
#include "net/listener.h"

/* --- Running --------------------------------------------------------------*/

PyDoc_STRVAR(loop_get_debug_doc, "get_debug($self, /)\n--\n\n"
                                 "Whether the loop is in debug mode.");

static PyObject *
loop_get_debug(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(((LoopObject *)op)->debug);
}

/* Whether the attribute `name` of this very loop is still our C method. */
static int
loop_is_own_method(LoopObject *loop, PyObject *name, PyCFunction function)
{
    PyObject *method = PyObject_GetAttr((PyObject *)loop, name);
    if (method == NULL) {
        return -1;
    }
    int own = PyCFunction_CheckExact(method)
              && PyCFunction_GET_FUNCTION(method) == function
              && PyCFunction_GET_SELF(method) == (PyObject *)loop;
    Py_DECREF(method);
    return own;
}

static void
loop_find_overrides(PyObject *op)
{
    LoopObject *loop = (LoopObject *)op;
    PyObject *raised = fl_take_raised();
    fl_state *state = loop->state;
    const struct {
        PyObject *name;
        PyCFunction function;
        unsigned char flag;
    } methods[] = {
        {state->str_call_soon, FL_METHOD(fl_loop_py_call_soon),
         FL_OVERRIDES_CALL_SOON},
        {state->str_call_at, FL_METHOD(fl_loop_py_call_at), FL_OVERRIDES_CALL_AT},
        {state->str_time, fl_loop_py_time, FL_OVERRIDES_TIME},
        {state->str_get_debug, loop_get_debug, FL_OVERRIDES_GET_DEBUG},
    };
    unsigned char overrides = 0;
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        int own = loop_is_own_method(loop, methods[i].name,
                                     methods[i].function);
        if (own < 0) {
            PyErr_Clear();
        }
        overrides |= own > 0 ? 0 : methods[i].flag;
    }
    loop->overrides = overrides;
    loop->overrides_tag = Py_TYPE(loop)->tp_version_tag;
    if (raised != NULL) {
        fl_put_raised(raised);
    }
}

static int
loop_setattro(PyObject *op, PyObject *name, PyObject *value)
{
    if (PyObject_GenericSetAttr(op, name, value) < 0) {
        return -1;
    }
    LoopObject *loop = (LoopObject *)op;
    fl_state *state = loop->state;
    if (name == state->str_call_soon || name == state->str_call_at
        || name == state->str_time || name == state->str_get_debug)
    {
        loop_find_overrides(op);
    }
    return 0;
}

PyDoc_STRVAR(loop_run_doc, "Run iterations until stop() was called.");

static PyObject *
loop_run(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    LoopObject *loop = (LoopObject *)op;
    if (fl_loop_check_closed(loop) < 0 || fl_loop_check_fork(loop) < 0
        || fl_loop_find_patches(loop) < 0)
    {
        return NULL;
    }
    loop->released_at = fl_clock_ns();
    fl_loop_poll_soon(loop);
    if (fl_loop_run(loop) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(loop_run_once_doc, "Run one iteration.");

static PyObject *
loop_run_once(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    LoopObject *loop = (LoopObject *)op;
    if (fl_loop_check_closed(loop) < 0 || fl_loop_iterate(loop) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(loop_stop_doc, "stop($self, /)\n--\n\n"
                            "Stop after the current iteration.");

static PyObject *
loop_stop(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    ((LoopObject *)op)->stopping = true;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(loop_is_running_doc, "is_running($self, /)\n--\n\n"
                                  "Whether the loop runs.");

static PyObject *
loop_is_running(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(((LoopObject *)op)->thread_id != 0);
}

PyDoc_STRVAR(loop_is_closed_doc, "is_closed($self, /)\n--\n\n"
                                 "Whether the loop was closed.");

static PyObject *
loop_is_closed(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(((LoopObject *)op)->closed);
}

static PyObject *
loop_py_check_closed(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    if (fl_loop_check_closed((LoopObject *)op) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
loop_py_check_fork(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    if (fl_loop_check_fork((LoopObject *)op) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
loop_py_check_thread(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    if (fl_loop_check_thread((LoopObject *)op) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(loop_release_doc,
             "Drop what is queued and close the descriptors.");

static PyObject *
loop_release(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    LoopObject *loop = (LoopObject *)op;
    if (!loop->closed) {
        loop->closed = true;
        fl_loop_release(loop);
    }
    Py_RETURN_NONE;
}

static PyObject *
loop_write_to_self(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    fl_loop_wake((LoopObject *)op);
    Py_RETURN_NONE;
}

/* asyncio hands handles of its own class to these two. */
static PyObject *
loop_add_callback(PyObject *op, PyObject *handle)
{
    LoopObject *loop = (LoopObject *)op;
    if (fl_handle_check(loop->state, handle)) {
        if (!((HandleObject *)handle)->cancelled
            && fl_loop_push(loop, Py_NewRef(handle), FL_READY_HANDLE) < 0)
        {
            return NULL;
        }
        Py_RETURN_NONE;
    }
    if (fl_loop_push(loop, Py_NewRef(handle), FL_READY_FOREIGN) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef loop_methods[] = {
    FL_LOOP_CALL_METHODS,
    {"stop", loop_stop, METH_NOARGS, loop_stop_doc},
    {"is_running", loop_is_running, METH_NOARGS, loop_is_running_doc},
    {"is_closed", loop_is_closed, METH_NOARGS, loop_is_closed_doc},
    {"get_debug", loop_get_debug, METH_NOARGS, loop_get_debug_doc},
    FL_LOOP_DESCRIPTOR_METHODS,
    {"_listen", FL_METHOD(fl_loop_py_listen), METH_FASTCALL,
     fl_loop_listen_doc},
    {"_add_callback", loop_add_callback, METH_O, NULL},
    {"_add_callback_signalsafe", loop_add_callback, METH_O, NULL},
    {"_write_to_self", loop_write_to_self, METH_NOARGS, NULL},
    {"_check_closed", loop_py_check_closed, METH_NOARGS, NULL},
    {"_check_fork", loop_py_check_fork, METH_NOARGS, NULL},
    {"_check_thread", loop_py_check_thread, METH_NOARGS, NULL},
    {"_run", loop_run, METH_NOARGS, loop_run_doc},
    {"_run_once", loop_run_once, METH_NOARGS, loop_run_once_doc},
    {"_release", loop_release, METH_NOARGS, loop_release_doc},
    {NULL},
};

/* --- Attributes -----------------------------------------------------------*/

#define LOOP_OBJECT(name, field) {name, T_OBJECT, offsetof(LoopObject, field)}
#define LOOP_BOOL(name, field)   {name, T_BOOL, offsetof(LoopObject, field)}

static PyMemberDef loop_members[] = {
    LOOP_OBJECT("_exception_handler", exception_handler),
    LOOP_OBJECT("_current_handle", current_handle),
    LOOP_OBJECT("_old_agen_hooks", old_agen_hooks),
    LOOP_OBJECT("_coroutine_origin_tracking_saved_depth",
                origin_tracking_depth),
    LOOP_OBJECT("_made_asyncgens", asyncgens),
    LOOP_OBJECT("_made_transports", transports),
    LOOP_OBJECT("_made_signal_handlers", signal_handlers),
    LOOP_OBJECT("_made_unix_server_sockets", unix_server_sockets),
    LOOP_OBJECT("_made_watcher", watcher),
    LOOP_OBJECT("_signal_pipe", signal_pipe),
    LOOP_BOOL("_asyncgens_shutdown_called", asyncgens_shutdown_called),
    LOOP_BOOL("_executor_shutdown_called", executor_shutdown_called),
    LOOP_BOOL("_types_patched", types_patched),
    LOOP_BOOL("_closed", closed),
    LOOP_BOOL("_stopping", stopping),
    {"_signals_armed", T_BOOL, offsetof(LoopObject, signals_armed)},
    {"slow_callback_duration", T_DOUBLE,
     offsetof(LoopObject, slow_callback_duration)},
    {NULL},
};

static PyObject *
loop_get_task_factory(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *factory = ((LoopObject *)op)->task_factory;
    return Py_NewRef(factory == NULL ? Py_None : factory);
}

/* NULL stands for None, which is what the fast path of create_task asks. */
static int
loop_set_task_factory(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    PyObject *factory = value == Py_None ? NULL : Py_XNewRef(value);
    Py_XSETREF(((LoopObject *)op)->task_factory, factory);
    return 0;
}

static PyObject *
loop_get_default_executor(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *executor = ((LoopObject *)op)->default_executor;
    return Py_NewRef(executor == NULL ? Py_None : executor);
}

/* An executor of our own brings a queue that C can put jobs on. */
static int
loop_set_default_executor(PyObject *op, PyObject *value,
                          void *Py_UNUSED(closure))
{
    LoopObject *loop = (LoopObject *)op;
    PyObject *executor = value == Py_None ? NULL : value;
    PyObject *queue = NULL;
    if (executor != NULL
        && fl_get_optional_attr(executor, loop->state->str__jobs, &queue) < 0)
    {
        return -1;
    }
    if (queue != NULL && !Py_IS_TYPE(queue, loop->state->JobQueue_type)) {
        Py_CLEAR(queue);
    }
    Py_XSETREF(loop->job_queue, queue);
    Py_XSETREF(loop->default_executor, Py_XNewRef(executor));
    return 0;
}

static PyObject *
loop_get_debug_flag(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((LoopObject *)op)->debug);
}

static int
loop_set_debug_flag(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    int debug = value == NULL ? 0 : PyObject_IsTrue(value);
    if (debug < 0) {
        return -1;
    }
    ((LoopObject *)op)->debug = debug > 0;
    return 0;
}

static PyObject *
loop_get_tracking(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((LoopObject *)op)->origin_tracking_enabled);
}

static int
loop_set_tracking(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    int enabled = value == NULL ? 0 : PyObject_IsTrue(value);
    if (enabled < 0) {
        return -1;
    }
    ((LoopObject *)op)->origin_tracking_enabled = enabled > 0;
    return 0;
}

static PyObject *
loop_get_thread_id(PyObject *op, void *Py_UNUSED(closure))
{
    unsigned long id = ((LoopObject *)op)->thread_id;
    if (id == 0) {
        Py_RETURN_NONE;
    }
    return PyLong_FromUnsignedLong(id);
}

static int
loop_set_thread_id(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    unsigned long id = 0;
    if (value != NULL && value != Py_None) {
        id = PyLong_AsUnsignedLong(value);
        if (id == (unsigned long)-1 && PyErr_Occurred()) {
            return -1;
        }
    }
    ((LoopObject *)op)->thread_id = id;
    return 0;
}

/* The ready queue as a list: for len() and for curious eyes. */
static PyObject *
loop_get_ready(PyObject *op, void *Py_UNUSED(closure))
{
    LoopObject *loop = (LoopObject *)op;
    size_t count = fl_ring_count(&loop->ready);
    PyObject *list = PyList_New((Py_ssize_t)count);
    if (list != NULL) {
        for (size_t i = 0; i < count; i++) {
            uintptr_t entry = fl_ring_peek(&loop->ready, i);
            PyObject *item = (PyObject *)(entry & ~FL_READY_MASK);
            PyList_SET_ITEM(list, (Py_ssize_t)i, Py_NewRef(item));
        }
    }
    return list;
}

static PyObject *
loop_get_scheduled(PyObject *op, void *Py_UNUSED(closure))
{
    LoopObject *loop = (LoopObject *)op;
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < loop->timers.count; i++) {
        PyObject *timer = loop->timers.nodes[i].item;
        if (timer != NULL && PyList_Append(list, timer) < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

static PyObject *
loop_get_clock_resolution(PyObject *Py_UNUSED(op), void *Py_UNUSED(closure))
{
    return PyFloat_FromDouble(FL_CLOCK_RESOLUTION);
}

static PyGetSetDef loop_getset[] = {
    {"_task_factory", loop_get_task_factory, loop_set_task_factory, NULL,
     NULL},
    {"_default_executor", loop_get_default_executor,
     loop_set_default_executor, NULL, NULL},
    {"_debug", loop_get_debug_flag, loop_set_debug_flag, NULL, NULL},
    {"_coroutine_origin_tracking_enabled", loop_get_tracking,
     loop_set_tracking, NULL, NULL},
    {"_thread_id", loop_get_thread_id, loop_set_thread_id, NULL, NULL},
    {"_ready", loop_get_ready, NULL, NULL, NULL},
    {"_scheduled", loop_get_scheduled, NULL, NULL, NULL},
    {"_clock_resolution", loop_get_clock_resolution, NULL, NULL, NULL},
    {NULL},
};

/* --- Life -----------------------------------------------------------------*/

/* Everything is set up here, so that a subclass which forgets __init__ has a
   working loop all the same. */
static PyObject *
loop_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
         PyObject *Py_UNUSED(kwargs))
{
    PyObject *module = PyType_GetModuleByDef(type, &fl_module);
    if (module == NULL) {
        return NULL;
    }
    fl_state *state = PyModule_GetState(module);
    LoopObject *loop = (LoopObject *)type->tp_alloc(type, 0);
    if (loop == NULL) {
        return NULL;
    }
    PyObject *debug = NULL;
    if (fl_loop_open(loop, state) < 0
        || (debug = PyObject_CallNoArgs(state->is_debug_mode)) == NULL
        || loop_set_debug_flag((PyObject *)loop, debug, NULL) < 0)
    {
        /* Not "unclosed": nobody ever had it. */
        loop->closed = true;
        Py_CLEAR(loop);
    }
    else {
        loop_find_overrides((PyObject *)loop);
    }
    Py_XDECREF(debug);
    return (PyObject *)loop;
}

static int
loop_init(PyObject *Py_UNUSED(op), PyObject *args, PyObject *kwargs)
{
    /* asyncio's loops take a selector.  Ours has no use for one. */
    static char *keywords[] = {"selector", NULL};
    PyObject *selector = NULL;
    return PyArg_ParseTupleAndKeywords(args, kwargs, "|O:Loop", keywords,
                                       &selector)
               ? 0
               : -1;
}

/* The attributes that are plain references. */
static const size_t loop_object_fields[] = {
    offsetof(LoopObject, exception_handler),
    offsetof(LoopObject, task_factory),
    offsetof(LoopObject, default_executor),
    offsetof(LoopObject, current_handle),
    offsetof(LoopObject, old_agen_hooks),
    offsetof(LoopObject, origin_tracking_depth),
    offsetof(LoopObject, asyncgens),
    offsetof(LoopObject, transports),
    offsetof(LoopObject, signal_handlers),
    offsetof(LoopObject, unix_server_sockets),
    offsetof(LoopObject, watcher),
    offsetof(LoopObject, signal_pipe),
    offsetof(LoopObject, job_queue),
    offsetof(LoopObject, tls_incoming),
    offsetof(LoopObject, tls_outgoing),
};

static inline PyObject **
loop_object_field(LoopObject *loop, size_t i)
{
    return (PyObject **)((char *)loop + loop_object_fields[i]);
}

#define LOOP_OBJECT_FIELDS \
    (sizeof(loop_object_fields) / sizeof(loop_object_fields[0]))

static int
loop_traverse(PyObject *op, visitproc visit, void *arg)
{
    LoopObject *loop = (LoopObject *)op;
    Py_VISIT(Py_TYPE(op));
    for (size_t i = 0; i < LOOP_OBJECT_FIELDS; i++) {
        Py_VISIT(*loop_object_field(loop, i));
    }
    return fl_loop_traverse(loop, visit, arg);
}

static int
loop_clear(PyObject *op)
{
    LoopObject *loop = (LoopObject *)op;
    for (size_t i = 0; i < LOOP_OBJECT_FIELDS; i++) {
        Py_CLEAR(*loop_object_field(loop, i));
    }
    if (loop->state != NULL) {
        loop->closed = true;
        fl_loop_release(loop);
    }
    return 0;
}

static void
loop_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    loop_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyType_Slot loop_slots[] = {
    {Py_tp_doc, "The C half of fastloop.Loop."},
    {Py_tp_new, loop_new},
    {Py_tp_init, loop_init},
    {Py_tp_dealloc, loop_dealloc},
    {Py_tp_traverse, loop_traverse},
    {Py_tp_clear, loop_clear},
    {Py_tp_setattro, loop_setattro},
    {Py_tp_methods, loop_methods},
    {Py_tp_members, loop_members},
    {Py_tp_getset, loop_getset},
    {0, NULL},
};

static PyType_Spec loop_spec = {
    .name = "fastloop._core.Loop",
    .basicsize = sizeof(LoopObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = loop_slots,
};

int
fl_loop_type_finish(fl_state *state, PyTypeObject *type)
{
    /* The interpreter's quick ways to call a C method are for methods of the
       object's very type, so the final class gets the methods as its own. */
    for (PyMethodDef *def = loop_methods; def->ml_name != NULL; def++) {
        PyObject *method = PyDescr_NewMethod(type, def);
        if (method == NULL) {
            return -1;
        }
        int rc = PyObject_SetAttrString((PyObject *)type, def->ml_name,
                                        method);
        Py_DECREF(method);
        if (rc < 0) {
            return -1;
        }
    }
    state->final_loop_type = type;
    return 0;
}

int
fl_loop_type_setup(PyObject *module, fl_state *state)
{
    state->find_overrides = loop_find_overrides;
    state->Loop_type = fl_add_type(module, &loop_spec, NULL);
    return state->Loop_type == NULL ? -1 : 0;
}
