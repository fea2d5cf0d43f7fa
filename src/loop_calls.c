/* loop_calls.c -- the Loop's methods that schedule, as Python calls them.
   Thin: arguments in, one call into the engine. */
#include "loop_calls.h"

#include "base/args.h"
#include "exec/jobs.h"
#include "loop/schedule.h"
#include "loop/timer.h"
#include "task/task.h"

/* --- Scheduling -----------------------------------------------------------*/

/* What debug mode asks of a callback: asyncio's _check_callback. */
static int
loop_check_callback(LoopObject *loop, PyObject *callback, const char *method)
{
    PyObject *name = PyUnicode_FromString(method);
    if (name == NULL) {
        return -1;
    }
    PyObject *args[3] = {(PyObject *)loop, callback, name};
    PyObject *result = PyObject_VectorcallMethod(
        loop->state->str__check_callback, args, 3, NULL);
    Py_DECREF(name);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static int
loop_check_debug(LoopObject *loop, PyObject *callback, const char *method,
                 bool any_thread)
{
    if (FL_LIKELY(!loop->debug)) {
        return 0;
    }
    if (!any_thread && fl_loop_check_thread(loop) < 0) {
        return -1;
    }
    return loop_check_callback(loop, callback, method);
}

/* Calls by keyword, and wrong ones: through a Python function of asyncio's
   signature, which comes back here or raises. */
PyObject *
fl_loop_call_by_keyword(PyObject *op, const char *method, PyObject *const *args,
                     Py_ssize_t nargs, PyObject *names)
{
    PyObject *by_keyword = PyObject_GetAttrString(op, "_by_keyword");
    PyObject *function =
        by_keyword == NULL ? NULL : PyObject_GetAttrString(by_keyword, method);
    Py_XDECREF(by_keyword);
    if (function == NULL) {
        return NULL;
    }
    PyObject *result = fl_call_behind(function, op, args, nargs, names);
    Py_DECREF(function);
    return result;
}

const char fl_loop_call_soon_doc[] =
    "call_soon($self, callback, *args, context=None)\n--\n\n"
             "Call the callback in the next iteration of the loop.";

PyObject *
fl_loop_py_call_soon(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
               PyObject *names)
{
    LoopObject *loop = (LoopObject *)op;
    PyObject *context = NULL;
    if (names != NULL && names == loop->state->stock_names) {
        context = args[nargs];
        names = NULL;
    }
    if (FL_UNLIKELY(!fl_is_common_call(args, nargs, 1, names,
                                       loop->state->str_context, &context)))
    {
        return fl_loop_call_by_keyword(op, "call_soon", args, nargs, names);
    }
    if (fl_loop_check_closed(loop) < 0
        || loop_check_debug(loop, args[0], "call_soon", false) < 0)
    {
        return NULL;
    }
    if (context != NULL && nargs <= 2 && !loop->debug
        && !(fl_loop_overrides(loop) & FL_OVERRIDES_CALL_SOON))
    {
        /* A Task's own callables, ours or asyncio's: these never look at the
           handle that they are owed. */
        int adopted = fl_task_adopt(loop, args[0], nargs == 2 ? args[1] : NULL,
                                    context);
        if (adopted < 0) {
            return NULL;
        }
        if (adopted > 0) {
            Py_RETURN_NONE;
        }
    }
    if (FL_UNLIKELY(context == NULL && nargs == 2
                    && fl_task_is_waiter(loop->state, args[0], args[1])))
    {
        /* asyncio.Future.set_result(future_of_ours, ...), unbound: asyncio's
           code finds the waiting task where it keeps callbacks. */
        if (fl_task_schedule_wakeup(loop, (TaskObject *)args[0]) < 0) {
            return NULL;
        }
        Py_RETURN_NONE;
    }
    return (PyObject *)fl_call_soon(loop, args[0], args + 1, nargs - 1,
                                    context, false);
}

const char fl_loop_call_soon_threadsafe_doc[] =
    "call_soon_threadsafe($self, callback, *args, context=None)\n"
             "--\n\nLike call_soon(), from any thread.";

PyObject *
fl_loop_py_call_soon_threadsafe(PyObject *op, PyObject *const *args,
                          Py_ssize_t nargs, PyObject *names)
{
    LoopObject *loop = (LoopObject *)op;
    PyObject *context = NULL;
    if (FL_UNLIKELY(!fl_is_common_call(args, nargs, 1, names,
                                       loop->state->str_context, &context)))
    {
        return fl_loop_call_by_keyword(op, "call_soon_threadsafe", args, nargs,
                                    names);
    }
    /* In a forked child nobody would ever run it, and who waits for its
       outcome would wait for ever. */
    if (fl_loop_check_closed(loop) < 0 || fl_loop_check_fork(loop) < 0
        || loop_check_debug(loop, args[0], "call_soon_threadsafe", true) < 0)
    {
        return NULL;
    }
    return (PyObject *)fl_call_soon(loop, args[0], args + 1, nargs - 1,
                                    context, true);
}

/* A deadline as C sees it.  *given is the caller's object where that is not a
   plain float, borrowed. */
static int
loop_parse_when(PyObject *when, double *seconds, PyObject **given)
{
    *given = NULL;
    if (FL_LIKELY(PyFloat_CheckExact(when))) {
        *seconds = PyFloat_AS_DOUBLE(when);
        return 0;
    }
    *given = when;
    *seconds = PyFloat_AsDouble(when);
    return *seconds == -1.0 && PyErr_Occurred() ? -1 : 0;
}

const char fl_loop_call_at_doc[] =
    "call_at($self, when, callback, *args, context=None)\n--\n\n"
             "Call the callback at a given time of the loop's clock.";

PyObject *
fl_loop_py_call_at(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
             PyObject *names)
{
    LoopObject *loop = (LoopObject *)op;
    PyObject *context = NULL;
    PyObject *given;
    double when;
    if (FL_UNLIKELY(!fl_is_common_call(args, nargs, 2, names,
                                       loop->state->str_context, &context)))
    {
        return fl_loop_call_by_keyword(op, "call_at", args, nargs, names);
    }
    if (args[0] == Py_None) {
        PyErr_SetString(PyExc_TypeError, "when cannot be None");
        return NULL;
    }
    if (fl_loop_check_closed(loop) < 0
        || loop_check_debug(loop, args[1], "call_at", false) < 0
        || loop_parse_when(args[0], &when, &given) < 0)
    {
        return NULL;
    }
    return (PyObject *)fl_timer_schedule(loop, when, given, args[1], args + 2,
                                         nargs - 2, context);
}

/* call_later by its definition: self.call_at(self.time() + delay, ...). */
static PyObject *
loop_call_later_slowly(LoopObject *loop, PyObject *const *args,
                       Py_ssize_t nargs, PyObject *names)
{
    fl_state *state = loop->state;
    PyObject *now =
        PyObject_CallMethodNoArgs((PyObject *)loop, state->str_time);
    PyObject *when = now == NULL ? NULL : PyNumber_Add(now, args[0]);
    Py_XDECREF(now);
    if (when == NULL) {
        return NULL;
    }
    PyObject *call_at = PyObject_GetAttr((PyObject *)loop, state->str_call_at);
    PyObject *timer =
        call_at == NULL
            ? NULL
            : fl_call_behind(call_at, when, args + 1, nargs - 1, names);
    Py_XDECREF(call_at);
    Py_DECREF(when);
    return timer;
}

const char fl_loop_call_later_doc[] =
    "call_later($self, delay, callback, *args, context=None)\n"
             "--\n\nCall the callback after a delay in seconds.";

PyObject *
fl_loop_py_call_later(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                PyObject *names)
{
    LoopObject *loop = (LoopObject *)op;
    PyObject *context = NULL;
    if (FL_UNLIKELY(!fl_is_common_call(args, nargs, 2, names,
                                       loop->state->str_context, &context)))
    {
        return fl_loop_call_by_keyword(op, "call_later", args, nargs, names);
    }
    PyObject *delay = args[0];
    if (FL_UNLIKELY(delay == Py_None)) {
        PyErr_SetString(PyExc_TypeError, "delay must not be None");
        return NULL;
    }
    if (FL_UNLIKELY(loop->debug
                    || (fl_loop_overrides(loop)
                        & (FL_OVERRIDES_TIME | FL_OVERRIDES_CALL_AT))
                    || !(PyFloat_CheckExact(delay)
                         || PyLong_CheckExact(delay))))
    {
        return loop_call_later_slowly(loop, args, nargs, names);
    }
    double seconds = PyFloat_AsDouble(delay);
    if ((seconds == -1.0 && PyErr_Occurred())
        || fl_loop_check_closed(loop) < 0)
    {
        return NULL;
    }
    return (PyObject *)fl_timer_schedule(loop, fl_clock_seconds() + seconds,
                                         NULL, args[1], args + 2, nargs - 2,
                                         context);
}

const char fl_loop_time_doc[] =
    "time($self, /)\n--\n\n"
                            "The loop's clock, in seconds.";

PyObject *
fl_loop_py_time(PyObject *Py_UNUSED(op), PyObject *Py_UNUSED(ignored))
{
    return PyFloat_FromDouble(fl_clock_seconds());
}

/* --- Futures and tasks ----------------------------------------------------*/

/* Tools that replace asyncio's Task or Future by classes of their own mean
   the loop's tasks and futures too.  Looked at when the loop starts, and on
   every call while it does not run. */
int
fl_loop_find_patches(LoopObject *loop)
{
    fl_state *state = loop->state;
    PyObject *task = PyObject_GetAttr(state->tasks_module, state->str_Task);
    if (task == NULL) {
        return -1;
    }
    PyObject *future =
        PyObject_GetAttr(state->futures_module, state->str_Future);
    if (future == NULL) {
        Py_DECREF(task);
        return -1;
    }
    loop->types_patched =
        task != state->AsyncioTask || future != state->AsyncioFuture;
    Py_DECREF(task);
    Py_DECREF(future);
    return 0;
}

const char fl_loop_create_future_doc[] =
    "create_future($self, /)\n--\n\n"
             "A new Future attached to the loop.";

PyObject *
fl_loop_py_create_future(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    LoopObject *loop = (LoopObject *)op;
    fl_state *state = loop->state;
    if (loop->thread_id == 0 && fl_loop_find_patches(loop) < 0) {
        return NULL;
    }
    int debug = fl_loop_debug(loop);
    if (debug < 0) {
        return NULL;
    }
    if (FL_LIKELY(!debug && state->layout_ok && !loop->types_patched)) {
        return fl_future_new(state, op);
    }
    PyObject *type =
        loop->types_patched
            ? PyObject_GetAttr(state->futures_module, state->str_Future)
            : Py_NewRef(state->Future_type);
    if (type == NULL) {
        return NULL;
    }
    PyObject *args[1] = {op};
    PyObject *names = PyTuple_Pack(1, state->str_loop);
    PyObject *future =
        names == NULL ? NULL : PyObject_Vectorcall(type, args, 0, names);
    Py_XDECREF(names);
    Py_DECREF(type);
    return future;
}

/* name, context and (3.14) eager_start, if there are no other keywords.  0:
   there are. */
static int
loop_parse_task_keywords(fl_state *state, PyObject *const *values,
                         PyObject *names, PyObject **name, PyObject **context,
                         bool *eager_start)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
        PyObject *keyword = PyTuple_GET_ITEM(names, i);
        if (keyword == state->str_name) {
            *name = values[i];
        }
        else if (keyword == state->str_context
                 && (values[i] == Py_None || PyContext_CheckExact(values[i])))
        {
            *context = values[i];
        }
        else if (FL_PY314 && keyword == state->str_eager_start
                 && PyBool_Check(values[i]))
        {
            *eager_start = values[i] == Py_True;
        }
        else {
            return 0;
        }
    }
    return 1;
}

const char fl_loop_create_task_doc[] =
    "create_task($self, coro, **kwargs)\n--\n\n"
             "Schedule a coroutine; return its Task.";

PyObject *
fl_loop_py_create_task(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *names)
{
    LoopObject *loop = (LoopObject *)op;
    fl_state *state = loop->state;
    if (fl_loop_check_closed(loop) < 0) {
        return NULL;
    }
    if (loop->thread_id == 0 && fl_loop_find_patches(loop) < 0) {
        return NULL;
    }
    int debug = fl_loop_debug(loop);
    if (debug < 0) {
        return NULL;
    }
    PyObject *name = NULL;
    PyObject *context = NULL;
    bool eager_start = false;
    if (FL_LIKELY(nargs == 1 && loop->task_factory == NULL && !debug
                  && state->layout_ok && !loop->types_patched)
        && (names == NULL
            || loop_parse_task_keywords(state, args + nargs, names, &name,
                                        &context, &eager_start)))
    {
        return fl_task_new(state, op, args[0], name, context, eager_start);
    }
    /* Factories, debug mode, odd keywords, errors: in Python. */
    PyObject *method = PyObject_GetAttr(op, state->str__create_task_slowly);
    if (method == NULL) {
        return NULL;
    }
    PyObject *task =
        PyObject_Vectorcall(method, args, (size_t)nargs, names);
    Py_DECREF(method);
    return task;
}

const char fl_loop_submit_job_doc[] =
    "run_in_executor(None, ...) on an executor that has our queue.";

PyObject *
fl_loop_py_submit_job(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    LoopObject *loop = (LoopObject *)op;
    if (loop->job_queue == NULL || nargs < 1) {
        PyErr_SetString(PyExc_RuntimeError, "the loop has no default queue");
        return NULL;
    }
    PyObject *queue = Py_NewRef(loop->job_queue);
    PyObject *future = fl_jobs_submit(loop, queue, args, nargs);
    Py_DECREF(queue);
    return future;
}

const char fl_loop_run_in_executor_doc[] =
    "run_in_executor($self, executor, func, *args)\n--\n\n"
             "Call a function in a thread; return a Future of its result.";

PyObject *
fl_loop_py_run_in_executor(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                     PyObject *names)
{
    LoopObject *loop = (LoopObject *)op;
    if (FL_UNLIKELY(nargs < 2 || names != NULL)) {
        return fl_loop_call_by_keyword(op, "run_in_executor", args, nargs,
                                    names);
    }
    if (FL_LIKELY(nargs >= 2 && args[0] == Py_None && loop->job_queue != NULL
                  && !loop->debug && !loop->closed
                  && !loop->executor_shutdown_called))
    {
        /* Runs Python: another executor may be set meanwhile. */
        PyObject *queue = Py_NewRef(loop->job_queue);
        PyObject *future = fl_jobs_submit(loop, queue, args + 1, nargs - 1);
        Py_DECREF(queue);
        return future;
    }
    PyObject *method =
        PyObject_GetAttr(op, loop->state->str__run_in_executor_slowly);
    if (method == NULL) {
        return NULL;
    }
    PyObject *future =
        PyObject_Vectorcall(method, args, (size_t)nargs, NULL);
    Py_DECREF(method);
    return future;
}
