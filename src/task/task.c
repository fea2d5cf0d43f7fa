/* task.c -- Task: making one, its life, and what Python sees of it.

   Stacks, cancellation, uncancel and most of the rest are asyncio.Task's own
   methods, which work on the fields that we share with it. */
#include "task/task.h"


static void task_dealloc(PyObject *op);

/* --- Making ---------------------------------------------------------------*/

static int
task_check_coroutine(fl_state *state, PyObject *coro)
{
    if (FL_LIKELY(PyCoro_CheckExact(coro))) {
        return 0;
    }
    PyObject *answer = PyObject_CallOneArg(state->iscoroutine, coro);
    int is_coroutine = answer == NULL ? -1 : PyObject_IsTrue(answer);
    Py_XDECREF(answer);
    if (is_coroutine == 0) {
        PyErr_Format(PyExc_TypeError, "a coroutine was expected, got %R",
                     coro);
    }
    return is_coroutine > 0 ? 0 : -1;
}

/* A number until somebody asks: most tasks are never named. */
static PyObject *
task_make_name(fl_state *state, PyObject *name)
{
    if (name == NULL || name == Py_None) {
        return PyLong_FromUnsignedLongLong(++state->task_names);
    }
    return PyUnicode_CheckExact(name) ? Py_NewRef(name) : PyObject_Str(name);
}

/* Fills a task whose Future part is ready.  Arguments are borrowed. */
static int
task_fill(fl_state *state, TaskObject *task, PyObject *coro, PyObject *name,
          PyObject *context)
{
    PyObject *own_context;
    if (context == NULL || context == Py_None) {
        own_context = PyContext_CopyCurrent();
    }
    else {
        own_context = Py_NewRef(context);
    }
    if (own_context == NULL) {
        return -1;
    }
    PyObject *own_name = task_make_name(state, name);
    if (own_name == NULL) {
        Py_DECREF(own_context);
        return -1;
    }
    Py_XSETREF(task->context, own_context);
    Py_XSETREF(task->name, own_name);
    Py_XSETREF(task->coro, Py_NewRef(coro));
    Py_CLEAR(task->fut_waiter);
    FL_TASK_MUST_CANCEL(task) = 0;
    FL_TASK_LOG_DESTROY_PENDING(task) = 1;
    task->cancel_requests = 0;
#if FL_PY314
    task->future.is_task = 1;
#endif
    return 0;
}

/* The task that is being stepped, if it is surely registered with this
   thread: a good neighbour in the list of all tasks. */
static inline PyObject *
task_running(fl_state *state, PyObject *loop)
{
#if FL_PY314
    if (state->running_task_offset != 0) {
        PyObject **slot = (PyObject **)((char *)PyThreadState_Get()
                                        + state->running_task_offset);
        PyObject *task = *slot;
        if (task != NULL && slot[-1] == loop
            && (Py_TYPE(task) == state->Task_type
                || Py_TYPE(task) == (PyTypeObject *)state->AsyncioTask))
        {
            return task;
        }
    }
#else
    (void)state;
    (void)loop;
#endif
    return NULL;
}

static int
task_loop_is_running(fl_state *state, PyObject *loop)
{
    PyObject *running =
        PyObject_CallMethodNoArgs(loop, state->str_is_running);
    if (running == NULL) {
        return -1;
    }
    int rc = PyObject_IsTrue(running);
    Py_DECREF(running);
    return rc;
}

PyObject *
fl_task_new(fl_state *state, PyObject *loop, PyObject *coro, PyObject *name,
            PyObject *context, bool eager_start)
{
    if (task_check_coroutine(state, coro) < 0) {
        return NULL;
    }
    PyTypeObject *type = state->Task_type;
    PyObject *op = fl_pool_take(&state->tasks);
    bool revived = op != NULL;
    if (FL_LIKELY(revived)) {
        fl_revive(op, type);
    }
    else {
        op = type->tp_alloc(type, 0);
        if (op == NULL) {
            return NULL;
        }
    }
    TaskObject *task = (TaskObject *)op;
    task->future.loop = Py_NewRef(loop);
    if (task_fill(state, task, coro, name, context) < 0) {
        FL_TASK_LOG_DESTROY_PENDING(task) = 0;
        Py_DECREF(op);
        return NULL;
    }
    if (revived) {
        PyObject_GC_Track(op);
    }
    if (eager_start) {
        int running = task_loop_is_running(state, loop);
        if (running != 0) {
            if (running < 0 || fl_task_start_eagerly(state, task) < 0) {
                Py_DECREF(op);
                return NULL;
            }
            return op;
        }
    }
    if (fl_task_schedule(state, task, NULL) < 0
        || fl_register_task(state, task, task_running(state, loop)) < 0)
    {
        Py_DECREF(op);
        return NULL;
    }
    return op;
}

/* loop.is_running(), asked as asyncio asks. */
static int
task_init_future(fl_state *state, PyObject *op, PyObject *loop)
{
    PyObject *args = PyTuple_New(0);
    PyObject *kwargs = Py_BuildValue("{sO}", "loop", loop);
    int rc = -1;
    if (args != NULL && kwargs != NULL) {
        rc = ((PyTypeObject *)state->AsyncioFuture)->tp_init(op, args, kwargs);
    }
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    return rc;
}

/* Task(...): memory from the pool, as where C makes one. */
static PyObject *
task_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
         PyObject *Py_UNUSED(kwargs))
{
    if (type->tp_dealloc == task_dealloc) {
        PyObject *op = fl_pool_take(&fl_type_state(type)->tasks);
        if (op != NULL) {
            fl_revive(op, type);
            PyObject_GC_Track(op);
            return op;
        }
    }
    return type->tp_alloc(type, 0);
}

static int
task_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"coro", "loop", "name", "context",
#if FL_PY312
                               "eager_start",
#endif
                               NULL};
    PyObject *coro, *loop = Py_None, *name = Py_None, *context = Py_None;
    int eager_start = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs,
#if FL_PY312
                                     "O|$OOOp:Task", keywords, &coro, &loop,
                                     &name, &context, &eager_start
#else
                                     "O|$OOO:Task", keywords, &coro, &loop,
                                     &name, &context
#endif
                                     ))
    {
        return -1;
    }
    fl_state *state = fl_state_of(op);
    TaskObject *task = (TaskObject *)op;
    if (task_init_future(state, op, loop) < 0) {
        return -1;
    }
    if (task_check_coroutine(state, coro) < 0) {
        task->future.log_tb = 0;
        return -1;
    }
    if (context != Py_None && !PyContext_CheckExact(context)) {
        PyErr_Format(PyExc_TypeError,
                     "context must be a Context or None, not '%s'",
                     Py_TYPE(context)->tp_name);
        return -1;
    }
    if (task_fill(state, task, coro, name, context) < 0) {
        return -1;
    }
    if (eager_start) {
        int running = task_loop_is_running(state, task->future.loop);
        if (running != 0) {
            return running < 0 ? -1 : fl_task_start_eagerly(state, task);
        }
    }
    if (fl_task_schedule(state, task, NULL) < 0) {
        return -1;
    }
    return fl_register_task(state, task, NULL);
}

/* --- Life -----------------------------------------------------------------*/

static int
task_traverse(PyObject *op, visitproc visit, void *arg)
{
    TaskObject *task = (TaskObject *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(task->context);
    Py_VISIT(task->coro);
    Py_VISIT(task->name);
    Py_VISIT(task->fut_waiter);
    return fl_future_visit_fields(&task->future, visit, arg);
}

static int
task_clear(PyObject *op)
{
    TaskObject *task = (TaskObject *)op;
    Py_CLEAR(task->context);
    Py_CLEAR(task->coro);
    Py_CLEAR(task->name);
    Py_CLEAR(task->fut_waiter);
    fl_future_clear_fields(&task->future);
    return 0;
}

/* asyncio's complaints about a task that was never awaited or never finished;
   one that was never initialised has no loop to complain to. */
static void
task_finalize(PyObject *op)
{
    fl_state *state;
    if (((TaskObject *)op)->future.loop != NULL
        && (state = fl_state_of(op)) != NULL)
    {
        ((PyTypeObject *)state->AsyncioTask)->tp_finalize(op);
    }
}

static void
task_dealloc(PyObject *op)
{
    TaskObject *task = (TaskObject *)op;
    PyTypeObject *type = Py_TYPE(op);
    bool exact = type->tp_dealloc == task_dealloc;
    if (FL_UNLIKELY(exact
                    && (task->future.log_tb
                        || (task->future.state == FL_PENDING
                            && FL_TASK_LOG_DESTROY_PENDING(task)))))
    {
        /* "Task was destroyed but it is pending!", or an exception that was
           never retrieved. */
        if (PyObject_CallFinalizerFromDealloc(op) < 0) {
            return;  /* resurrected */
        }
    }
    PyObject_GC_UnTrack(op);
    FL_TRASHCAN_BEGIN(op, task_dealloc)
    if (FL_UNLIKELY(fl_has_weakrefs(op))) {
        PyObject_ClearWeakRefs(op);
    }
    task_clear(op);
    /* After everything that runs Python, for that might have registered the
       task again. */
    fl_unlink_task(task);
    task->future.state = FL_PENDING;
    task->future.log_tb = 0;
    task->future.blocking = 0;
    task->future.shared_context0 = 0;
    FL_TASK_MUST_CANCEL(task) = 0;
    FL_TASK_LOG_DESTROY_PENDING(task) = 0;
    task->cancel_requests = 0;
    fl_state *state = exact ? fl_type_state(type) : NULL;
    if (state == NULL || state->Task_type != type
        || PyObject_GC_IsFinalized(op) || !fl_pool_put(&state->tasks, op))
    {
        type->tp_free(op);
    }
    Py_DECREF(type);
    FL_TRASHCAN_END
}

/* --- Methods --------------------------------------------------------------*/

PyDoc_STRVAR(task_get_name_doc, "The task's name.");

static PyObject *
task_get_name(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    TaskObject *task = (TaskObject *)op;
    if (task->name == NULL) {
        Py_RETURN_NONE;
    }
    if (PyLong_CheckExact(task->name)) {
        PyObject *name = PyUnicode_FromFormat("Task-%S", task->name);
        if (name == NULL) {
            return NULL;
        }
        Py_SETREF(task->name, name);
    }
    return Py_NewRef(task->name);
}

PyDoc_STRVAR(task_get_coro_doc, "The task's coroutine; None after the end of "
                                "one that finished on an eager start.");

static PyObject *
task_get_coro(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    PyObject *coro = ((TaskObject *)op)->coro;
    return Py_NewRef(coro == NULL ? Py_None : coro);
}

PyDoc_STRVAR(task_cancelling_doc,
             "How many requests to cancel the task are pending.");

static PyObject *
task_cancelling(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromLong(((TaskObject *)op)->cancel_requests);
}

/* gather() sets this on every task that it makes. */
static PyObject *
task_get_log_destroy(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(FL_TASK_LOG_DESTROY_PENDING((TaskObject *)op));
}

static int
task_set_log_destroy(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "cannot delete attribute");
        return -1;
    }
    int log = PyObject_IsTrue(value);
    if (log < 0) {
        return -1;
    }
    FL_TASK_LOG_DESTROY_PENDING((TaskObject *)op) = log > 0;
    return 0;
}

#if FL_PY312
PyDoc_STRVAR(task_get_context_doc, "The context that the task runs in.");

static PyObject *
task_get_context(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    PyObject *context = ((TaskObject *)op)->context;
    return Py_NewRef(context == NULL ? Py_None : context);
}
#endif

static PyMethodDef task_methods[] = {
#if FL_PY312
    {"get_context", task_get_context, METH_NOARGS, task_get_context_doc},
#endif
    {"get_name", task_get_name, METH_NOARGS, task_get_name_doc},
    FL_FUTURE_METHODS,
    {"get_coro", task_get_coro, METH_NOARGS, task_get_coro_doc},
    {"cancelling", task_cancelling, METH_NOARGS, task_cancelling_doc},
    {NULL},
};

static PyGetSetDef task_getset[] = {
    FL_FUTURE_GETSET,
    {"_log_destroy_pending", task_get_log_destroy, task_set_log_destroy, NULL,
     NULL},
    {NULL},
};

static PyType_Slot task_slots[] = {
    {Py_tp_doc, "Task(coro, *, loop=None, name=None, context=None, "
#if FL_PY312
                "eager_start=False"
#endif
                ")\n--\n\n"
                "A Task of fastloop: an asyncio.Task that the loop steps "
                "without a detour."},
    {Py_tp_new, task_new},
    {Py_tp_init, task_init},
    {Py_tp_dealloc, task_dealloc},
    {Py_tp_finalize, task_finalize},
    {Py_tp_traverse, task_traverse},
    {Py_tp_clear, task_clear},
    {Py_tp_iter, fl_future_py_iter},
    {Py_am_await, fl_future_py_iter},
    {Py_tp_methods, task_methods},
    {Py_tp_getset, task_getset},
    {0, NULL},
};

static PyType_Spec task_spec = {
    .name = "fastloop.Task",
    .basicsize = sizeof(TaskObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = task_slots,
};

int
fl_task_setup(PyObject *module, fl_state *state)
{
    PyObject *bases = PyTuple_Pack(2, state->AsyncioTask, state->Future_type);
    if (bases == NULL) {
        return -1;
    }
    state->Task_type = fl_add_type(module, &task_spec, bases);
    Py_DECREF(bases);
    if (state->Task_type == NULL) {
        return -1;
    }
    fl_drop_inline_values(state->Task_type);
    return 0;
}
