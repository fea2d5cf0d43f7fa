/* taskcall.c -- scheduling a task's step: as a bare ready entry wherever the
   loop is ours and plain, and otherwise as one of two small callables,
   TaskStep and TaskWakeup, which asyncio has as well. */
#include "task/taskcall.h"

#include "loop/schedule.h"
#include "task/step.h"

typedef struct {
    PyObject_HEAD
    PyObject *task;
    PyObject *exc;  /* TaskStep only: to be thrown; NULL: resume */
} TaskCallObject;

static PyObject *
task_call_new(PyTypeObject *type, fl_pool *pool, TaskObject *task,
              PyObject *exc)
{
    PyObject *op = pool == NULL ? NULL : fl_pool_take(pool);
    bool revived = op != NULL;
    if (revived) {
        fl_revive(op, type);
    }
    else {
        op = type->tp_alloc(type, 0);
        if (op == NULL) {
            return NULL;
        }
    }
    ((TaskCallObject *)op)->task = Py_NewRef(task);
    ((TaskCallObject *)op)->exc = Py_XNewRef(exc);
    if (revived) {
        PyObject_GC_Track(op);
    }
    return op;
}

PyObject *
fl_step_call_new(fl_state *state, TaskObject *task, PyObject *exc)
{
    return task_call_new(state->TaskStep_type, NULL, task, exc);
}

PyObject *
fl_wakeup_new(fl_state *state, TaskObject *task)
{
    return task_call_new(state->TaskWakeup_type, &state->wakeups, task, NULL);
}

int
fl_task_schedule(fl_state *state, TaskObject *task, PyObject *exc)
{
    PyObject *loop = task->future.loop;
    if (FL_LIKELY(exc == NULL && fl_loop_is_plain(state, loop))) {
        if (fl_loop_check_closed((LoopObject *)loop) < 0) {
            return -1;
        }
        return fl_loop_push((LoopObject *)loop, Py_NewRef(task),
                            FL_READY_STEP);
    }
    PyObject *step = fl_step_call_new(state, task, exc);
    if (step == NULL) {
        return -1;
    }
    /* Own references: an evil loop may take the task's away meanwhile. */
    Py_INCREF(loop);
    PyObject *context = Py_XNewRef(task->context);
    int rc = fl_call_soon_any(state, loop, step, NULL, context);
    Py_XDECREF(context);
    Py_DECREF(loop);
    Py_DECREF(step);
    return rc;
}

/* The task behind a step or wake-up callable that may be queued as a bare
   entry, or NULL.  Borrowed. */
static TaskObject *
task_behind(fl_state *state, PyObject *callback, PyObject *arg)
{
    PyTypeObject *type = Py_TYPE(callback);
    PyObject *task = NULL;
    if (type == state->TaskWakeup_type && arg != NULL) {
        task = ((TaskCallObject *)callback)->task;
    }
    else if (type == state->TaskStep_type && arg == NULL) {
        TaskCallObject *call = (TaskCallObject *)callback;
        task = call->exc == NULL ? call->task : NULL;
    }
    else if (type == state->stock_step_type && arg == NULL) {
        fl_stock_step *step = (fl_stock_step *)callback;
        task = step->arg == NULL ? step->task : NULL;
    }
    else if (type == &PyCFunction_Type && arg != NULL
             && PyCFunction_GET_FUNCTION(callback) == state->stock_wakeup)
    {
        task = PyCFunction_GET_SELF(callback);
    }
    /* A wake-up must be for what the task waits for; a step, for a task that
       waits for nothing. */
    if (task == NULL || ((TaskObject *)task)->fut_waiter != arg) {
        return NULL;
    }
    return (TaskObject *)task;
}

int
fl_task_adopt(LoopObject *loop, PyObject *callback, PyObject *arg,
              PyObject *context)
{
    fl_state *state = loop->state;
    if (!state->layout_ok) {
        return 0;
    }
    TaskObject *task = task_behind(state, callback, arg);
    if (task == NULL || task->future.loop != (PyObject *)loop
        || task->context != context || task->future.state != FL_PENDING)
    {
        return 0;
    }
    return fl_loop_push(loop, Py_NewRef(task), FL_READY_STEP) < 0 ? -1 : 1;
}

/* --- What Python sees -----------------------------------------------------*/

static PyObject *
task_step_call(PyObject *op, PyObject *args, PyObject *kwargs)
{
    TaskCallObject *call = (TaskCallObject *)op;
    if ((kwargs != NULL && PyDict_GET_SIZE(kwargs) > 0)
        || PyTuple_GET_SIZE(args) > 0)
    {
        PyErr_SetString(PyExc_TypeError,
                        "function takes no positional arguments");
        return NULL;
    }
    TaskObject *task = (TaskObject *)Py_NewRef(call->task);
    int rc = fl_step_run(fl_state_of(op), task, Py_XNewRef(call->exc));
    Py_DECREF(task);
    if (rc < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
task_wakeup_call(PyObject *op, PyObject *args, PyObject *kwargs)
{
    TaskCallObject *call = (TaskCallObject *)op;
    if ((kwargs != NULL && PyDict_GET_SIZE(kwargs) > 0)
        || PyTuple_GET_SIZE(args) != 1)
    {
        PyErr_SetString(PyExc_TypeError,
                        "task_wakeup() takes exactly one argument");
        return NULL;
    }
    TaskObject *task = (TaskObject *)Py_NewRef(call->task);
    int rc = fl_step_wake(fl_state_of(op), task, PyTuple_GET_ITEM(args, 0));
    Py_DECREF(task);
    if (rc < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
task_call_get_self(PyObject *op, void *Py_UNUSED(closure))
{
    return Py_NewRef(((TaskCallObject *)op)->task);
}

static PyObject *
task_wakeup_get_name(PyObject *Py_UNUSED(op), void *Py_UNUSED(closure))
{
    return PyUnicode_FromString("task_wakeup");
}

static PyObject *
task_wakeup_get_qualname(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *type = (PyObject *)Py_TYPE(((TaskCallObject *)op)->task);
    PyObject *name = PyObject_GetAttrString(type, "__qualname__");
    if (name == NULL) {
        return NULL;
    }
    PyObject *qualname = PyUnicode_FromFormat("%S.task_wakeup", name);
    Py_DECREF(name);
    return qualname;
}

static int
task_call_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((TaskCallObject *)op)->task);
    Py_VISIT(((TaskCallObject *)op)->exc);
    return 0;
}

/* No tp_clear: the cycle through a task is broken at the task, and a step
   always has its task. */
static void
task_call_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    FL_TRASHCAN_BEGIN(op, task_call_dealloc)
    Py_CLEAR(((TaskCallObject *)op)->task);
    Py_CLEAR(((TaskCallObject *)op)->exc);
    fl_state *state = fl_type_state(type);
    if (state == NULL || state->TaskWakeup_type != type
        || !fl_pool_put(&state->wakeups, op))
    {
        type->tp_free(op);
    }
    Py_DECREF(type);
    FL_TRASHCAN_END
}

static PyGetSetDef task_step_getset[] = {
    {"__self__", task_call_get_self, NULL, NULL, NULL},
    {NULL},
};

static PyGetSetDef task_wakeup_getset[] = {
    {"__self__", task_call_get_self, NULL, NULL, NULL},
    {"__name__", task_wakeup_get_name, NULL, NULL, NULL},
    {"__qualname__", task_wakeup_get_qualname, NULL, NULL, NULL},
    {NULL},
};

static PyType_Slot task_step_slots[] = {
    {Py_tp_dealloc, task_call_dealloc},
    {Py_tp_traverse, task_call_traverse},
    {Py_tp_call, task_step_call},
    {Py_tp_getset, task_step_getset},
    {0, NULL},
};

static PyType_Slot task_wakeup_slots[] = {
    {Py_tp_dealloc, task_call_dealloc},
    {Py_tp_traverse, task_call_traverse},
    {Py_tp_call, task_wakeup_call},
    {Py_tp_getset, task_wakeup_getset},
    {0, NULL},
};

#define TASK_CALL_FLAGS \
    (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC \
     | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE)

static PyType_Spec task_step_spec = {
    .name = "fastloop.TaskStepMethWrapper",
    .basicsize = sizeof(TaskCallObject),
    .flags = TASK_CALL_FLAGS,
    .slots = task_step_slots,
};

static PyType_Spec task_wakeup_spec = {
    .name = "fastloop.TaskWakeup",
    .basicsize = sizeof(TaskCallObject),
    .flags = TASK_CALL_FLAGS,
    .slots = task_wakeup_slots,
};

int
fl_taskcall_setup(PyObject *module, fl_state *state)
{
    state->TaskStep_type = fl_add_type(module, &task_step_spec, NULL);
    state->TaskWakeup_type = fl_add_type(module, &task_wakeup_spec, NULL);
    return state->TaskStep_type == NULL || state->TaskWakeup_type == NULL
               ? -1
               : 0;
}
