/* layout.c -- checking at import that asyncio's structs are as we think.

   A Future and two Tasks are taken through their lives on a make-believe
   loop, and after each step the fields that it should have changed are
   compared with our structs. */
#include "task/layout.h"

#if FL_PY314
/* The one private header: where in a thread's state asyncio keeps the running
   task.  The offset is compiled in here and checked below. */
#define Py_BUILD_CORE 1
#include "internal/pycore_tstate.h"
#undef Py_BUILD_CORE
#define FL_RUNNING_TASK_OFFSET \
    ((ptrdiff_t)offsetof(_PyThreadStateImpl, asyncio_running_task))
#define FL_RUNNING_LOOP_OFFSET \
    ((ptrdiff_t)offsetof(_PyThreadStateImpl, asyncio_running_loop))
#endif

/* --- The make-believe loop ------------------------------------------------*/

typedef struct {
    PyObject_HEAD
    PyObject *called;  /* the last callback that call_soon was given */
    PyObject *names;   /* and the names of its keywords */
} ProbeLoop;

static PyObject *
probe_loop_get_debug(PyObject *Py_UNUSED(op), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_FALSE;
}

static PyObject *
probe_loop_call_soon(PyObject *op, PyObject *const *args,
                     Py_ssize_t Py_UNUSED(nargs),
                     PyObject *names)
{
    Py_XSETREF(((ProbeLoop *)op)->names, Py_XNewRef(names));
    Py_XSETREF(((ProbeLoop *)op)->called, Py_NewRef(args[0]));
    Py_RETURN_NONE;
}

static void
probe_loop_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    Py_XDECREF(((ProbeLoop *)op)->called);
    Py_XDECREF(((ProbeLoop *)op)->names);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef probe_loop_methods[] = {
    {"get_debug", probe_loop_get_debug, METH_NOARGS, NULL},
    {"call_soon", FL_METHOD(probe_loop_call_soon), FL_FASTCALL, NULL},
    {NULL},
};

static PyType_Slot probe_loop_slots[] = {
    {Py_tp_dealloc, probe_loop_dealloc},
    {Py_tp_methods, probe_loop_methods},
    {0, NULL},
};

static PyType_Spec probe_loop_spec = {
    .name = "fastloop._ProbeLoop",
    .basicsize = sizeof(ProbeLoop),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = probe_loop_slots,
};

/* --- The checks -----------------------------------------------------------*/

/* All that one probe makes; owned. */
typedef struct {
    PyObject *loop;
    PyObject *names;    /* a dict: the namespace of the probe's coroutine */
    PyObject *context;
    PyObject *marks[2]; /* objects to look for */
    PyObject *future;
    PyObject *task;
    PyObject *second;
    PyObject *step;     /* the first task's first step */
} fl_probe;

/* Calls op.method(*args) for its effect. */
static int
probe_do(PyObject *op, const char *method, const char *format, PyObject *arg)
{
    PyObject *result = arg == NULL ? PyObject_CallMethod(op, method, NULL)
                                   : PyObject_CallMethod(op, method, format,
                                                         arg);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static PyObject *
probe_new_future(fl_state *state, fl_probe *probe)
{
    PyObject *args[1] = {probe->loop};
    PyObject *names = PyTuple_Pack(1, state->str_loop);
    PyObject *future =
        names == NULL
            ? NULL
            : PyObject_Vectorcall(state->AsyncioFuture, args, 0, names);
    Py_XDECREF(names);
    return future;
}

static int
probe_add_callback(fl_state *state, fl_probe *probe, PyObject *callback)
{
    PyObject *args[3] = {probe->future, callback, probe->context};
    PyObject *result = PyObject_VectorcallMethod(state->str_add_done_callback,
                                                 args, 2, state->kw_context);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* 1: as expected.  0: different.  -1: error. */
static int
probe_result(fl_state *state, fl_probe *probe)
{
    probe->future = probe_new_future(state, probe);
    if (probe->future == NULL) {
        return -1;
    }
    FutureObject *f = (FutureObject *)probe->future;
    PyObject *a = probe->marks[0];
    PyObject *b = probe->marks[1];
    bool ok = f->loop == probe->loop && f->callback0 == NULL
              && f->callbacks == NULL && f->result == NULL
              && f->exception == NULL && f->source_tb == NULL
              && f->state == FL_PENDING && !f->blocking && !f->log_tb;
    if (!ok) {
        return 0;
    }
    if (probe_add_callback(state, probe, a) < 0) {
        return -1;
    }
    ok = ok && f->callback0 == a && f->context0 == probe->context
         && f->callbacks == NULL;
    if (!ok) {
        return 0;
    }
    if (probe_add_callback(state, probe, b) < 0) {
        return -1;
    }
    ok = ok && f->callbacks != NULL && PyList_CheckExact(f->callbacks)
         && PyList_GET_SIZE(f->callbacks) == 1;
    if (!ok) {
        return 0;
    }
    PyObject *pair = PyList_GET_ITEM(f->callbacks, 0);
    ok = PyTuple_CheckExact(pair) && PyTuple_GET_SIZE(pair) == 2
         && PyTuple_GET_ITEM(pair, 0) == b
         && PyTuple_GET_ITEM(pair, 1) == probe->context;
    if (PyObject_SetAttrString(probe->future, "_cancel_message", a) < 0
        || PyObject_SetAttr(probe->future,
                            state->str__asyncio_future_blocking, Py_True) < 0)
    {
        return -1;
    }
    ok = ok && f->cancel_msg == a && f->blocking == 1 && !f->log_tb;
    if (PyObject_SetAttr(probe->future, state->str__asyncio_future_blocking,
                         Py_False) < 0
        || probe_do(probe->future, "set_result", "O", b) < 0)
    {
        return -1;
    }
    return ok && !f->blocking && f->result == b && f->state == FL_FINISHED
           && f->callback0 == NULL && f->callbacks == NULL
           && ((ProbeLoop *)probe->loop)->called == b;
}

/* 1, 0 or -1, as above. */
static int
probe_exception(fl_state *state, fl_probe *probe)
{
    Py_XSETREF(probe->future, probe_new_future(state, probe));
    if (probe->future == NULL) {
        return -1;
    }
    FutureObject *f = (FutureObject *)probe->future;
    PyObject *exc = PyObject_CallNoArgs(PyExc_ValueError);
    if (exc == NULL || probe_do(probe->future, "set_exception", "O", exc) < 0)
    {
        Py_XDECREF(exc);
        return -1;
    }
    bool ok = f->exception == exc && f->exception_tb == NULL
              && f->state == FL_FINISHED && f->log_tb == 1 && !f->blocking;
    Py_DECREF(exc);
    if (PyObject_SetAttrString(probe->future, "_log_traceback", Py_False) < 0)
    {
        return -1;
    }
    ok = ok && !f->log_tb;
    Py_XSETREF(probe->future, probe_new_future(state, probe));
    if (probe->future == NULL
        || probe_do(probe->future, "cancel", NULL, NULL) < 0)
    {
        return -1;
    }
    return ok && ((FutureObject *)probe->future)->state == FL_CANCELLED;
}

static PyObject *
probe_new_task(fl_state *state, fl_probe *probe, PyObject *coro)
{
    PyObject *kwargs = Py_BuildValue("{sOsO}", "loop", probe->loop, "name",
                                     probe->marks[0]);
    PyObject *args = PyTuple_Pack(1, coro);
    PyObject *task = kwargs == NULL || args == NULL
                         ? NULL
                         : PyObject_Call(state->AsyncioTask, args, kwargs);
    Py_XDECREF(kwargs);
    Py_XDECREF(args);
    if (task != NULL
        && PyObject_SetAttrString(task, "_log_destroy_pending", Py_False) < 0)
    {
        Py_CLEAR(task);
    }
    return task;
}

/* A fresh task and the coroutine in it. */
static int
probe_task_birth(fl_state *state, fl_probe *probe)
{
    PyObject *function = PyDict_GetItemString(probe->names, "wait");
    if (function == NULL) {
        return -1;
    }
    PyObject *coro = PyObject_CallOneArg(function, probe->future);
    if (coro == NULL) {
        return -1;
    }
    probe->task = probe_new_task(state, probe, coro);
    Py_DECREF(coro);  // the task keeps it
    if (probe->task == NULL) {
        return -1;
    }
    TaskObject *t = (TaskObject *)probe->task;
    PyObject *step = probe->step =
        Py_NewRef(((ProbeLoop *)probe->loop)->called);
    bool ok = t->future.loop == probe->loop && t->coro == coro
              && t->name == probe->marks[0] && t->fut_waiter == NULL
              && t->context != NULL && PyContext_CheckExact(t->context)
              && !FL_TASK_LOG_DESTROY_PENDING(t) && !FL_TASK_MUST_CANCEL(t)
              && t->cancel_requests == 0
              && Py_TYPE(step)->tp_basicsize == sizeof(fl_stock_step)
              && ((fl_stock_step *)step)->task == probe->task
              && ((fl_stock_step *)step)->arg == NULL;
    PyObject *names = ((ProbeLoop *)probe->loop)->names;
    ok = ok && names != NULL && PyTuple_GET_SIZE(names) == 1
         && PyUnicode_Compare(PyTuple_GET_ITEM(names, 0), state->str_context)
                == 0;
    if (ok) {
        Py_XSETREF(state->stock_names, Py_NewRef(names));
        Py_XSETREF(state->stock_step_type,
                   (PyTypeObject *)Py_NewRef(Py_TYPE(step)));
    }
    return ok;
}

#if FL_PY314
/* The links between two tasks that were registered one after the other. */
static int
probe_links(fl_state *state, fl_probe *probe)
{
    PyObject *function = PyDict_GetItemString(probe->names, "wait");
    PyObject *coro =
        function == NULL ? NULL : PyObject_CallOneArg(function, Py_None);
    if (coro == NULL) {
        return -1;
    }
    probe->second = probe_new_task(state, probe, coro);
    int closed = probe_do(coro, "close", NULL, NULL);
    Py_DECREF(coro);
    if (probe->second == NULL || closed < 0) {
        return -1;
    }
    TaskObject *first = (TaskObject *)probe->task;
    TaskObject *second = (TaskObject *)probe->second;
    return first->future.is_task == 1
           && first->link.next == &second->link
           && second->link.prev == &first->link
           && second->link.next != NULL
           && second->link.next->prev == &second->link;
}

/* Where the thread state keeps the running task. */
static int
probe_running_task(fl_state *state, fl_probe *probe)
{
    char *ts = (char *)PyThreadState_Get();
    PyObject **task = (PyObject **)(ts + FL_RUNNING_TASK_OFFSET);
    PyObject **loop = (PyObject **)(ts + FL_RUNNING_LOOP_OFFSET);
    PyObject *args[2] = {probe->loop, probe->task};
    PyObject *result = PyObject_Vectorcall(state->enter_task, args, 2, NULL);
    if (result == NULL) {
        return -1;
    }
    Py_DECREF(result);
    bool ok = *task == probe->task && *loop == probe->loop
              && loop + 1 == task;
    result = PyObject_Vectorcall(state->leave_task, args, 2, NULL);
    if (result == NULL) {
        return -1;
    }
    Py_DECREF(result);
    if (ok && *task == NULL) {
        state->running_task_offset = FL_RUNNING_TASK_OFFSET;
    }
    return 1;
}
#endif

/* The task runs its first step and then waits for the probe's future. */
static int
probe_task_step(fl_state *state, fl_probe *probe)
{
    TaskObject *t = (TaskObject *)probe->task;
    FutureObject *f = (FutureObject *)probe->future;
    PyObject *result = PyObject_CallNoArgs(probe->step);
    if (result == NULL) {
        return -1;
    }
    Py_DECREF(result);
    PyObject *wakeup = f->callback0;
    bool ok = t->fut_waiter == probe->future && wakeup != NULL
              && f->context0 == t->context && !f->blocking
              && PyCFunction_CheckExact(wakeup)
              && PyCFunction_GET_SELF(wakeup) == probe->task;
#if FL_PY314
    ok = ok && f->awaited_by == probe->task && !f->awaited_by_is_set
         && !f->is_task;
#endif
    if (!ok) {
        return 0;
    }
    state->stock_wakeup = PyCFunction_GET_FUNCTION(wakeup);
    if (probe_do(probe->task, "cancel", "O", probe->marks[1]) < 0) {
        return -1;
    }
    return t->cancel_requests == 1 && f->state == FL_CANCELLED
           && f->cancel_msg == probe->marks[1];
}

/* A task whose waiter refuses to be cancelled must cancel itself: here it has
   no waiter at all. */
static int
probe_must_cancel(fl_probe *probe)
{
#if FL_PY314
    TaskObject *t = (TaskObject *)probe->second;
    if (probe_do(probe->second, "cancel", NULL, NULL) < 0) {
        return -1;
    }
    return FL_TASK_MUST_CANCEL(t) && t->cancel_requests == 1
           && t->future.state == FL_PENDING;
#else
    (void)probe;
    return 1;
#endif
}

static int
probe_tasks(fl_state *state, fl_probe *probe)
{
    Py_XSETREF(probe->future, probe_new_future(state, probe));
    if (probe->future == NULL) {
        return -1;
    }
    int ok = probe_task_birth(state, probe);
#if FL_PY314
    if (ok > 0) {
        ok = probe_links(state, probe);
    }
    if (ok > 0) {
        ok = probe_running_task(state, probe);
    }
#endif
    if (ok > 0) {
        ok = probe_task_step(state, probe);
    }
    if (ok > 0) {
        ok = probe_must_cancel(probe);
    }
    if (probe->task != NULL) {
        PyObject *coro = PyObject_CallMethod(probe->task, "get_coro", NULL);
        if (coro == NULL || probe_do(coro, "close", NULL, NULL) < 0) {
            PyErr_Clear();
        }
        Py_XDECREF(coro);
    }
    return ok;
}

/* The probe's tasks run on the probe's loop, and 3.14 wants that to be the
   running one; a program may import fastloop from inside a task. */
static int
probe_tasks_on_loop(fl_state *state, fl_probe *probe)
{
#if FL_PY314
    PyObject *old_loop = PyObject_CallNoArgs(state->get_running_loop);
    PyObject *set_running =
        PyDict_GetItemString(probe->names, "set_running_loop");
    if (old_loop == NULL || set_running == NULL) {
        Py_XDECREF(old_loop);
        return -1;
    }
    PyObject *old_task = NULL;
    PyObject *args[2] = {old_loop, Py_None};
    int ok = -1;
    if (old_loop != Py_None) {
        old_task = PyObject_Vectorcall(state->swap_current_task, args, 2,
                                       NULL);
        if (old_task == NULL) {
            goto done;
        }
    }
    PyObject *set = PyObject_CallOneArg(set_running, probe->loop);
    if (set != NULL) {
        Py_DECREF(set);
        ok = probe_tasks(state, probe);
        PyObject *exc = fl_take_raised();
        set = PyObject_CallOneArg(set_running, old_loop);
        if (exc != NULL) {
            fl_put_raised(exc);
        }
    }
    Py_XDECREF(set);
    if (old_task != NULL) {
        PyObject *exc = fl_take_raised();
        args[1] = old_task;
        PyObject *none = PyObject_Vectorcall(state->swap_current_task, args,
                                             2, NULL);
        Py_XDECREF(none);
        if (exc != NULL) {
            fl_put_raised(exc);
        }
    }
done:
    Py_DECREF(old_loop);
    Py_XDECREF(old_task);
    return ok;
#else
    return probe_tasks(state, probe);
#endif
}

static const char probe_source[] =
    "async def wait(future):\n"
    "    await future\n"
    "from asyncio.events import _set_running_loop as set_running_loop\n";

static int
probe_open(fl_probe *probe)
{
    PyObject *type = PyType_FromSpec(&probe_loop_spec);
    probe->loop = type == NULL ? NULL : PyObject_CallNoArgs(type);
    Py_XDECREF(type);
    probe->names = PyDict_New();
    probe->context = PyContext_New();
    probe->marks[0] = PyUnicode_FromString("fastloop probe a");
    probe->marks[1] = PyUnicode_FromString("fastloop probe b");
    if (probe->loop == NULL || probe->names == NULL || probe->context == NULL
        || probe->marks[0] == NULL || probe->marks[1] == NULL
        || PyDict_SetItemString(probe->names, "__builtins__",
                                PyEval_GetBuiltins()) < 0)
    {
        return -1;
    }
    PyObject *result = PyRun_String(probe_source, Py_file_input,
                                    probe->names, probe->names);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static void
probe_close(fl_probe *probe)
{
    if (probe->loop != NULL) {
        /* The way back to the tasks, which the collector does not see. */
        Py_CLEAR(((ProbeLoop *)probe->loop)->called);
    }
    Py_XDECREF(probe->task);
    Py_XDECREF(probe->second);
    Py_XDECREF(probe->future);
    Py_XDECREF(probe->step);
    Py_XDECREF(probe->names);
    Py_XDECREF(probe->context);
    Py_XDECREF(probe->marks[0]);
    Py_XDECREF(probe->marks[1]);
    Py_XDECREF(probe->loop);
}

/* Cheap things first: nothing is read through a struct before they hold. */
static bool
layout_sizes_agree(fl_state *state)
{
    PyObject *future = state->AsyncioFuture;
    PyObject *task = state->AsyncioTask;
    if (!PyType_Check(future) || !PyType_Check(task)) {
        return false;
    }
    PyTypeObject *ft = (PyTypeObject *)future;
    PyTypeObject *tt = (PyTypeObject *)task;
    return ft->tp_basicsize == sizeof(FutureObject)
           && tt->tp_basicsize == sizeof(TaskObject)
           && ft->tp_itemsize == 0 && PyType_IsSubtype(tt, ft)
           && ft->tp_base == &PyBaseObject_Type
#if FL_PY313
           && PyType_HasFeature(ft, Py_TPFLAGS_MANAGED_DICT)
           && PyType_HasFeature(ft, Py_TPFLAGS_MANAGED_WEAKREF)
#else
           && ft->tp_dictoffset == offsetof(FutureObject, dict)
           && ft->tp_weaklistoffset == offsetof(FutureObject, weakrefs)
#endif
           && PyType_HasFeature(ft, Py_TPFLAGS_HAVE_GC);
}

int
fl_layout_probe(fl_state *state)
{
    state->layout_ok = false;
    if (!layout_sizes_agree(state)) {
        return 0;
    }
    fl_probe probe = {0};
    int ok = probe_open(&probe);
    if (ok == 0) {
        ok = probe_result(state, &probe);
        if (ok > 0) {
            ok = probe_exception(state, &probe);
        }
        if (ok > 0) {
            ok = probe_tasks_on_loop(state, &probe);
        }
    }
    PyObject *exc = fl_take_raised();
    probe_close(&probe);
    if (exc != NULL) {
        fl_put_raised(exc);
    }
    state->layout_ok = ok > 0;
    return ok < 0 ? -1 : 0;
}
