/* step.c -- one step of a coroutine: send or throw, then act on what it
   yielded.

   The one step function drives our tasks and asyncio's alike: both keep their
   state in the same struct.  Order and messages are those of asyncio. */
#include "task/step.h"

#include "loop/report.h"
#include "task/await.h"
#include "task/callbacks.h"
#include "task/future.h"
#include "task/registry.h"
#include "task/taskcall.h"

/* --- Who waits for whom (3.14 on) -----------------------------------------*/

static int
step_add_awaited_by(fl_state *state, PyObject *op, PyObject *task)
{
#if FL_PY314
    if (!PyObject_TypeCheck(op, (PyTypeObject *)state->AsyncioFuture)) {
        return 0;
    }
    FutureObject *fut = (FutureObject *)op;
    if (FL_LIKELY(fut->awaited_by == NULL)) {
        fut->awaited_by_is_set = 0;
        fut->awaited_by = Py_NewRef(task);
        return 0;
    }
    if (state->add_to_awaited_by != NULL) {
        return fl_registry_call(state->add_to_awaited_by, op, task);
    }
#else
    (void)state;
    (void)op;
    (void)task;
#endif
    return 0;
}

static int
step_discard_awaited_by(fl_state *state, PyObject *op, PyObject *task)
{
#if FL_PY314
    if (!PyObject_TypeCheck(op, (PyTypeObject *)state->AsyncioFuture)) {
        return 0;
    }
    FutureObject *fut = (FutureObject *)op;
    if (FL_LIKELY(fut->awaited_by == task && !fut->awaited_by_is_set)) {
        fut->awaited_by = NULL;
        Py_DECREF(task);
        return 0;
    }
    if (fut->awaited_by != NULL && state->discard_from_awaited_by != NULL) {
        return fl_registry_call(state->discard_from_awaited_by, op, task);
    }
#else
    (void)state;
    (void)op;
    (void)task;
#endif
    return 0;
}

/* --- What the coroutine yielded -------------------------------------------*/

/* The next step throws RuntimeError(message) into the coroutine.  Steals
   message, which may be NULL with an exception set. */
static int
step_fail_soon(fl_state *state, TaskObject *task, PyObject *message)
{
    if (message == NULL) {
        return -1;
    }
    PyObject *exc = PyObject_CallOneArg(PyExc_RuntimeError, message);
    Py_DECREF(message);
    if (exc == NULL) {
        return -1;
    }
    int rc = fl_task_schedule(state, task, exc);
    Py_DECREF(exc);
    return rc;
}

static PyObject *
step_different_loop(TaskObject *task, PyObject *yielded)
{
    return PyUnicode_FromFormat(
        "Task %R got Future %R attached to a different loop", task, yielded);
}

static PyObject *
step_yield_instead(TaskObject *task, PyObject *yielded)
{
    return PyUnicode_FromFormat(
        "yield was used instead of yield from in task %R with %R", task,
        yielded);
}

/* The task was told to cancel before it came to wait: pass that on. */
static int
step_cancel_waiter(fl_state *state, TaskObject *task, PyObject *yielded)
{
    PyObject *msg = task->future.cancel_msg;
    PyObject *args[2] = {yielded, msg == NULL ? Py_None : msg};
    Py_INCREF(args[1]);
    PyObject *done = PyObject_VectorcallMethod(state->str_cancel, args, 2,
                                               NULL);
    Py_DECREF(args[1]);
    if (done == NULL) {
        return -1;
    }
    int is_true = PyObject_IsTrue(done);
    Py_DECREF(done);
    if (is_true > 0) {
        FL_TASK_MUST_CANCEL(task) = 0;
    }
    return is_true < 0 ? -1 : 0;
}

/* An exact Future or Task: no attribute is looked up. */
static int
step_wait_for_exact(fl_state *state, TaskObject *task, PyObject *yielded)
{
    FutureObject *fut = (FutureObject *)yielded;
    if (FL_UNLIKELY(fut->loop != task->future.loop)) {
        return step_fail_soon(state, task, step_different_loop(task, yielded));
    }
    if (FL_UNLIKELY(!fut->blocking)) {
        return step_fail_soon(state, task, step_yield_instead(task, yielded));
    }
    fut->blocking = 0;
    if (step_add_awaited_by(state, yielded, (PyObject *)task) < 0) {
        return -1;
    }
    Py_XSETREF(task->fut_waiter, Py_NewRef(yielded));
    /* is_plain first: it may run Python, which may add a callback. */
    if (FL_LIKELY(fl_loop_is_plain(state, fut->loop)
                  && fl_is_own_future(state, yielded)
                  && fl_callbacks_none(fut)
                  && fut->state == FL_PENDING))
    {
        fut->callback0 = Py_NewRef(task);  /* context0 stays NULL: a waiter */
    }
    else {
        PyObject *wakeup = fl_wakeup_new(state, task);
        if (wakeup == NULL) {
            return -1;
        }
        int rc = fl_callbacks_add(state, fut, wakeup, task->context);
        Py_DECREF(wakeup);
        if (rc < 0) {
            return -1;
        }
    }
    if (FL_UNLIKELY(FL_TASK_MUST_CANCEL(task))) {
        return step_cancel_waiter(state, task, yielded);
    }
    return 0;
}

/* asyncio.futures._get_loop. */
static PyObject *
step_loop_of(fl_state *state, PyObject *yielded)
{
    PyObject *get_loop;
    int found = fl_get_optional_attr(yielded, state->str_get_loop, &get_loop);
    if (found < 0) {
        return NULL;
    }
    if (found == 0) {
        return PyObject_GetAttr(yielded, state->str__loop);
    }
    PyObject *loop = PyObject_CallNoArgs(get_loop);
    Py_DECREF(get_loop);
    return loop;
}

/* Anything that behaves like a Future.  blocking is the value of its
   _asyncio_future_blocking.  Runs Python throughout. */
static int
step_wait_for_any(fl_state *state, TaskObject *task, PyObject *yielded,
                  PyObject *blocking)
{
    PyObject *loop = step_loop_of(state, yielded);
    if (loop == NULL) {
        return -1;
    }
    bool same = loop == task->future.loop;
    Py_DECREF(loop);
    if (!same) {
        return step_fail_soon(state, task, step_different_loop(task, yielded));
    }
    int is_blocking = PyObject_IsTrue(blocking);
    if (is_blocking <= 0) {
        return is_blocking < 0
                   ? -1
                   : step_fail_soon(state, task,
                                    step_yield_instead(task, yielded));
    }
    if (step_add_awaited_by(state, yielded, (PyObject *)task) < 0
        || PyObject_SetAttr(yielded, state->str__asyncio_future_blocking,
                            Py_False) < 0)
    {
        return -1;
    }
    PyObject *wakeup = fl_wakeup_new(state, task);
    if (wakeup == NULL) {
        return -1;
    }
    Py_XSETREF(task->fut_waiter, Py_NewRef(yielded));
    PyObject *context = Py_NewRef(task->context);
    PyObject *args[3] = {yielded, wakeup, context};
    PyObject *added = PyObject_VectorcallMethod(
        state->str_add_done_callback, args, 2, state->kw_context);
    Py_DECREF(context);
    Py_DECREF(wakeup);
    if (added == NULL) {
        return -1;
    }
    Py_DECREF(added);
    if (FL_TASK_MUST_CANCEL(task)) {
        return step_cancel_waiter(state, task, yielded);
    }
    return 0;
}

static int
step_bad_yield(fl_state *state, TaskObject *task, PyObject *yielded)
{
    int is_generator = PyObject_IsInstance(yielded, (PyObject *)&PyGen_Type);
    if (is_generator < 0) {
        return -1;
    }
    PyObject *message =
        is_generator
            ? PyUnicode_FromFormat(
                  "yield was used instead of yield from for generator in "
                  "task %R with %R", task, yielded)
            : PyUnicode_FromFormat("Task got bad yield: %R", yielded);
    return step_fail_soon(state, task, message);
}

static int
step_act_on(fl_state *state, TaskObject *task, PyObject *yielded)
{
    if (FL_UNLIKELY(yielded == (PyObject *)task)) {
        return step_fail_soon(
            state, task,
            PyUnicode_FromFormat("Task cannot await on itself: %R", task));
    }
    if (FL_LIKELY(fl_is_exact_future(state, yielded))) {
        return step_wait_for_exact(state, task, yielded);
    }
    if (yielded == Py_None) {
        return fl_task_schedule(state, task, NULL);
    }
    PyObject *blocking;
    int found = fl_get_optional_attr(
        yielded, state->str__asyncio_future_blocking, &blocking);
    if (found < 0) {
        return -1;
    }
    if (found > 0 && blocking != Py_None) {
        int rc = step_wait_for_any(state, task, yielded, blocking);
        Py_DECREF(blocking);
        return rc;
    }
    Py_XDECREF(blocking);
    return step_bad_yield(state, task, yielded);
}

/* --- How the coroutine ended ----------------------------------------------*/

static int
step_returned(fl_state *state, TaskObject *task, PyObject *result)
{
    fl_unlink_task(task);
    if (FL_UNLIKELY(FL_TASK_MUST_CANCEL(task))) {
        /* Cancelled right before the coroutine stopped. */
        FL_TASK_MUST_CANCEL(task) = 0;
        PyObject *msg = Py_XNewRef(task->future.cancel_msg);
        int rc = fl_future_cancel(state, &task->future, msg);
        Py_XDECREF(msg);
        return rc < 0 ? -1 : 0;
    }
    return fl_future_set_result(state, &task->future, result);
}

/* The coroutine raised, and the exception is still raised. */
static int
step_raised(fl_state *state, TaskObject *task)
{
    fl_unlink_task(task);
    PyObject *exc = fl_take_raised();
    if (PyErr_GivenExceptionMatches(exc, state->CancelledError)) {
        /* Kept, so that whoever awaits the task sees where it came from. */
        Py_XSETREF(task->future.cancelled_exc, exc);
        return fl_future_cancel(state, &task->future, NULL) < 0 ? -1 : 0;
    }
    int rc = fl_future_set_exception(state, &task->future, exc);
    if (rc == 0
        && (PyErr_GivenExceptionMatches(exc, PyExc_KeyboardInterrupt)
            || PyErr_GivenExceptionMatches(exc, PyExc_SystemExit)))
    {
        fl_put_raised(exc);
        return -1;
    }
    Py_DECREF(exc);
    return rc;
}

/* Resumes the coroutine, throwing exc if there is one, and acts on the
   outcome.  The task is entered; the caller holds it.  Steals exc. */
static int
step_resume(fl_state *state, TaskObject *task, PyObject *exc)
{
    if (FL_UNLIKELY(task->future.state != FL_PENDING)) {
        PyErr_Format(state->InvalidStateError, "__step(): already done: %R %R",
                     task, exc == NULL ? Py_None : exc);
        Py_XDECREF(exc);
        return -1;
    }
    if (FL_UNLIKELY(FL_TASK_MUST_CANCEL(task))) {
        if (exc == NULL
            || !PyErr_GivenExceptionMatches(exc, state->CancelledError))
        {
            Py_XSETREF(exc, fl_future_cancelled_error(state, &task->future));
            if (exc == NULL) {
                return -1;
            }
        }
        FL_TASK_MUST_CANCEL(task) = 0;
    }
    Py_CLEAR(task->fut_waiter);
    if (FL_UNLIKELY(task->coro == NULL)) {
        PyErr_SetString(PyExc_RuntimeError, "uninitialized Task object");
        Py_XDECREF(exc);
        return -1;
    }
    PyObject *coro = Py_NewRef(task->coro);
    PyObject *result;
    PySendResult outcome;
    /* Runs Python: the coroutine. */
    if (FL_LIKELY(exc == NULL)) {
        state->steps++;
        outcome = PyIter_Send(coro, Py_None, &result);
        state->steps--;
    }
    else {
        state->steps++;
        result = PyObject_CallMethodOneArg(coro, state->str_throw, exc);
        state->steps--;
        Py_DECREF(exc);
        outcome = PYGEN_NEXT;
        if (result == NULL) {
            outcome = PYGEN_ERROR;
            if (PyErr_ExceptionMatches(PyExc_StopIteration)) {
                PyObject *stop = fl_take_raised();
                result = Py_XNewRef(((PyStopIterationObject *)stop)->value);
                if (result == NULL) {
                    result = Py_NewRef(Py_None);
                }
                Py_DECREF(stop);
                outcome = PYGEN_RETURN;
            }
        }
    }
    Py_DECREF(coro);
    if (state->stop != NULL
        && ((PyStopIterationObject *)state->stop)->value != NULL)
    {
        fl_await_forget_value(state);
    }
    int rc;
    if (outcome == PYGEN_NEXT) {
        rc = step_act_on(state, task, result);
    }
    else if (outcome == PYGEN_RETURN) {
        rc = step_returned(state, task, result);
    }
    else {
        return step_raised(state, task);
    }
    Py_DECREF(result);
    return rc;
}

/* A step as the running task of its loop.  The context is entered already.
   Steals exc. */
static int
step_run(fl_state *state, PyThreadState *ts, TaskObject *task, PyObject *exc)
{
    PyObject *loop = task->future.loop;
    if (FL_UNLIKELY(loop == NULL)) {
        Py_XDECREF(exc);
        PyErr_SetString(PyExc_RuntimeError,
                        "Future object is not initialized.");
        return -1;
    }
    Py_INCREF(loop);
    int rc = fl_enter_task(state, ts, loop, (PyObject *)task);
    if (FL_UNLIKELY(rc < 0)) {
        Py_XDECREF(exc);
        Py_DECREF(loop);
        return -1;
    }
    rc = step_resume(state, task, exc);
    if (FL_LIKELY(rc == 0)) {
        rc = fl_leave_task(state, ts, loop, (PyObject *)task);
    }
    else {
        PyObject *raised = fl_take_raised();
        if (fl_leave_task(state, ts, loop, (PyObject *)task) < 0) {
            PyErr_Clear();
        }
        fl_put_raised(raised);
    }
    Py_DECREF(loop);
    return rc;
}

/* What the future that the task waits for has for it: an exception to throw,
   new, or NULL.  -1: error. */
static int
step_collect(fl_state *state, TaskObject *task, PyObject *waiter,
             PyObject **exc)
{
    *exc = NULL;
    if (step_discard_awaited_by(state, waiter, (PyObject *)task) < 0) {
        return -1;
    }
    if (FL_LIKELY(fl_is_exact_future(state, waiter))) {
        FutureObject *fut = (FutureObject *)waiter;
        if (FL_LIKELY(fut->state == FL_FINISHED && fut->exception == NULL)) {
            return 0;
        }
        if (fut->state == FL_CANCELLED) {
            *exc = fl_future_cancelled_error(state, fut);
            return *exc == NULL ? -1 : 0;
        }
        if (fut->state == FL_FINISHED) {
            PyObject *tb = fut->exception_tb;
            fut->exception_tb = NULL;
            fut->log_tb = 0;
            *exc = Py_NewRef(fut->exception);
            int rc =
                PyException_SetTraceback(*exc, tb == NULL ? Py_None : tb);
            Py_XDECREF(tb);
            return rc;
        }
    }
    PyObject *result =
        PyObject_CallMethodNoArgs(waiter, state->str_result);
    if (result != NULL) {
        Py_DECREF(result);
        return 0;
    }
    *exc = fl_take_raised();
    return 0;
}

/* The task goes on because `waiter` (borrowed; NULL: nothing) is done. */
static int
step_wake(fl_state *state, PyThreadState *ts, TaskObject *task,
          PyObject *waiter)
{
    PyObject *exc = NULL;
    if (waiter != NULL) {
        Py_INCREF(waiter);
        int rc = step_collect(state, task, waiter, &exc);
        Py_DECREF(waiter);
        if (rc < 0) {
            Py_XDECREF(exc);
            return -1;
        }
    }
    return step_run(state, ts, task, exc);
}

/* A step failed outside the coroutine; asyncio would name its callback. */
static FL_NOINLINE int
step_report(fl_state *state, PyObject *loop, TaskObject *task)
{
    PyObject *raised = fl_take_raised();
    PyObject *step = fl_step_call_new(state, task, NULL);
    if (step == NULL) {
        Py_DECREF(raised);
        return -1;
    }
    fl_put_raised(raised);
    int rc = fl_report_step(loop, step);
    Py_DECREF(step);
    return rc;
}

/* A ready entry's turn.  The loop holds the task. */
__attribute__((flatten)) static int
step_run_entry(fl_state *state, PyObject *loop, PyObject *op)
{
    TaskObject *task = (TaskObject *)op;
    PyThreadState *ts = PyThreadState_Get();
    PyObject *context = Py_XNewRef(task->context);
    int rc;
    if (FL_LIKELY(context != NULL && PyContext_CheckExact(context))) {
        rc = fl_context_enter(state, ts, context);
        if (FL_LIKELY(rc == 0)) {
            rc = step_wake(state, ts, task, task->fut_waiter);
            if (FL_UNLIKELY(fl_context_exit(state, ts, context) < 0)) {
                rc = -1;
            }
        }
    }
    else {
        PyErr_SetString(PyExc_RuntimeError, "uninitialized Task object");
        rc = -1;
    }
    Py_XDECREF(context);
    return FL_LIKELY(rc == 0) ? 0 : step_report(state, loop, task);
}

int
fl_task_start_eagerly(fl_state *state, TaskObject *task)
{
    PyObject *loop = Py_NewRef(task->future.loop);
    PyObject *self = (PyObject *)task;
    PyObject *before = fl_swap_task(state, loop, self);
    if (before == NULL) {
        Py_DECREF(loop);
        return -1;
    }
    int rc;
#if FL_PY314
    rc = fl_register_task(state, task,
                          Py_TYPE(before) == state->Task_type ? before : NULL);
#else
    PyObject *registered =
        PyObject_CallOneArg(state->register_eager_task, self);
    rc = registered == NULL ? -1 : 0;
    Py_XDECREF(registered);
#endif
    PyThreadState *ts = PyThreadState_Get();
    PyObject *context = Py_NewRef(task->context);
    if (rc == 0 && fl_context_enter(state, ts, context) < 0) {
        rc = -1;
    }
    else if (rc == 0) {
        rc = step_resume(state, task, NULL);
        if (fl_context_exit(state, ts, context) < 0) {
            rc = -1;
        }
    }
    Py_DECREF(context);
    PyObject *raised = fl_take_raised();
    PyObject *after = fl_swap_task(state, loop, before);
    Py_DECREF(before);
    Py_DECREF(loop);
    if (after == NULL) {
        rc = -1;
    }
    Py_XDECREF(after);
#if !FL_PY314
    PyObject *gone = PyObject_CallOneArg(state->unregister_eager_task, self);
    rc = gone == NULL ? -1 : rc;
    Py_XDECREF(gone);
    if (rc == 0 && task->future.state == FL_PENDING) {
        rc = fl_register_task(state, task, NULL);
    }
#endif
    if (task->future.state != FL_PENDING) {
        Py_CLEAR(task->coro);
    }
    if (raised != NULL) {
        fl_put_raised(raised);
    }
    return rc;
}

int
fl_step_run(fl_state *state, TaskObject *task, PyObject *exc)
{
    return step_run(state, PyThreadState_Get(), task, exc);
}

int
fl_step_wake(fl_state *state, TaskObject *task, PyObject *waiter)
{
    return step_wake(state, PyThreadState_Get(), task, waiter);
}

void
fl_step_setup(fl_state *state)
{
    state->run_step = step_run_entry;
}
