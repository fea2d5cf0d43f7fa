/* callbacks.c -- the callbacks of a future: keeping them, and scheduling them
   when it is done. */
#include "task/callbacks.h"

#include "loop/report.h"
#include "loop/schedule.h"
#include "task/taskcall.h"

/* context0, which the loop shares, as a context of the callback's own. */
static PyObject *
callbacks_copy_context(fl_state *state, FutureObject *fut)
{
    const fl_shared_run *runs =
        fl_loop_check(state, fut->loop)
            ? ((LoopObject *)fut->loop)->shared_runs
            : NULL;
    return fl_context_copy_shared(runs, fut->context0);
}

void
fl_callbacks_forget(PyObject *op)
{
    FutureObject *fut = (FutureObject *)op;
    Py_CLEAR(fut->callback0);
    Py_CLEAR(fut->context0);
}

/* loop.call_soon(callback, fut, context=context).  context NULL: callback is
   a task that waits for fut. */
static int
callbacks_schedule_one(fl_state *state, PyObject *loop, bool plain,
                    PyObject *callback, FutureObject *fut, PyObject *context)
{
    if (plain) {
        LoopObject *own = (LoopObject *)loop;
        if (fl_loop_check_closed(own) < 0) {
            return -1;
        }
        if (context == NULL) {
            return fl_task_schedule_wakeup(own, (TaskObject *)callback);
        }
        PyObject *arg = (PyObject *)fut;
        int adopted = fl_task_adopt(own, callback, arg, context);
        if (adopted != 0) {
            return adopted < 0 ? -1 : 0;
        }
        HandleObject *handle =
            fl_call_soon(own, callback, &arg, 1, context, false);
        Py_XDECREF(handle);
        return handle == NULL ? -1 : 0;
    }
    if (context == NULL) {
        TaskObject *task = (TaskObject *)callback;
        PyObject *wakeup = fl_wakeup_new(state, task);
        if (wakeup == NULL) {
            return -1;
        }
        PyObject *task_context = Py_XNewRef(task->context);
        int rc = fl_call_soon_any(state, loop, wakeup, (PyObject *)fut,
                                  task_context);
        Py_XDECREF(task_context);
        Py_DECREF(wakeup);
        return rc;
    }
    return fl_call_soon_any(state, loop, callback, (PyObject *)fut, context);
}

/* The common end: one of our futures on a plain loop with one callback.  The
   future itself goes on the ready queue.  1: done.  0: not that case. */
static int
callbacks_schedule_itself(fl_state *state, FutureObject *fut)
{
    if (fut->callbacks != NULL || fut->context0 == NULL
        || !PyContext_CheckExact(fut->context0)
        || !fl_is_own_future(state, (PyObject *)fut)
        || !fl_loop_is_plain(state, fut->loop))
    {
        return 0;
    }
    LoopObject *loop = (LoopObject *)fut->loop;
    if (fl_loop_check_closed(loop) < 0) {
        Py_CLEAR(fut->callback0);
        Py_CLEAR(fut->context0);
        return -1;
    }
    int adopted = fl_task_adopt(loop, fut->callback0, (PyObject *)fut,
                                fut->context0);
    if (adopted != 0) {
        Py_CLEAR(fut->callback0);
        Py_CLEAR(fut->context0);
        return adopted;
    }
    return fl_loop_push(loop, Py_NewRef(fut), FL_READY_CALLBACK) < 0 ? -1 : 1;
}

/* Schedules all callbacks, which the future forgets first: a foreign loop's
   call_soon may do anything to it.  An error drops the rest, as in asyncio. */
int
fl_callbacks_schedule(fl_state *state, FutureObject *fut)
{
    if (fut->callback0 == NULL && fut->callbacks == NULL) {
        return 0;
    }
    int itself = callbacks_schedule_itself(state, fut);
    if (itself != 0) {
        return itself < 0 ? -1 : 0;
    }
    PyObject *callback0 = fut->callback0;
    PyObject *context0 = fut->context0;
    PyObject *callbacks = fut->callbacks;
    if (fut->shared_context0 && context0 != NULL) {
        /* Handles with a given context keep what is set in it. */
        context0 = callbacks_copy_context(state, fut);
        if (context0 == NULL) {
            return -1;
        }
        Py_DECREF(fut->context0);
        fut->shared_context0 = 0;
    }
    fut->callback0 = fut->context0 = fut->callbacks = NULL;
    PyObject *loop = Py_NewRef(fut->loop);
    bool plain = fl_loop_is_plain(state, loop);
    int rc = 0;
    if (callback0 != NULL) {
        rc = callbacks_schedule_one(state, loop, plain, callback0, fut,
                                 context0);
    }
    if (callbacks != NULL) {
        for (Py_ssize_t i = 0; rc == 0 && i < PyList_GET_SIZE(callbacks); i++)
        {
            PyObject *pair = PyList_GET_ITEM(callbacks, i);
            rc = callbacks_schedule_one(state, loop, plain,
                                     PyTuple_GET_ITEM(pair, 0), fut,
                                     PyTuple_GET_ITEM(pair, 1));
        }
    }
    Py_XDECREF(callback0);
    Py_XDECREF(context0);
    Py_XDECREF(callbacks);
    Py_DECREF(loop);
    return rc;
}

int
fl_callbacks_append(FutureObject *fut, PyObject *callback,
                       PyObject *context)
{
    if (fl_callbacks_none(fut)) {
        fut->callback0 = Py_NewRef(callback);
        fut->context0 = Py_NewRef(context);
        fut->shared_context0 = 0;
        return 0;
    }
    PyObject *pair = PyTuple_Pack(2, callback, context);
    if (pair == NULL) {
        return -1;
    }
    int rc = 0;
    if (fut->callbacks == NULL) {
        fut->callbacks = PyList_New(1);
        if (fut->callbacks == NULL) {
            Py_DECREF(pair);
            return -1;
        }
        PyList_SET_ITEM(fut->callbacks, 0, Py_NewRef(pair));
    }
    else {
        rc = PyList_Append(fut->callbacks, pair);
    }
    Py_DECREF(pair);
    return rc;
}

/* Before others see callback0: a waiting task gets the callback object that
   it did without so far, and a shared context becomes one of its own. */
static int
callbacks_show_first(fl_state *state, FutureObject *fut)
{
    if (fut->callback0 == NULL) {
        return 0;
    }
    if (fut->context0 != NULL) {
        if (fut->shared_context0) {
            PyObject *context = callbacks_copy_context(state, fut);
            if (context == NULL) {
                return -1;
            }
            Py_SETREF(fut->context0, context);
            fut->shared_context0 = 0;
        }
        return 0;
    }
    TaskObject *task = (TaskObject *)fut->callback0;
    PyObject *wakeup = fl_wakeup_new(state, task);
    if (wakeup == NULL) {
        return -1;
    }
    fut->callback0 = wakeup;
    fut->context0 = task->context == NULL ? PyContext_New()
                                          : Py_NewRef(task->context);
    fut->shared_context0 = 0;
    Py_DECREF(task);
    return 0;
}

/* The callback raised: asyncio's report names a handle, made up here. */
static FL_NOINLINE int
callbacks_report(LoopObject *loop, PyObject *callback, PyObject *fut,
                 PyObject *context, bool shared)
{
    PyObject *raised = fl_take_raised();
    PyObject *own = shared ? PyContext_Copy(context) : Py_NewRef(context);
    HandleObject *handle =
        own == NULL ? NULL : fl_handle_new(loop, callback, &fut, 1, own, false);
    Py_XDECREF(own);
    if (handle == NULL) {
        Py_DECREF(raised);
        return -1;
    }
    PyObject_GC_Track(handle);  // the exception handler may keep it
    fl_put_raised(raised);
    int rc = fl_report_callback((PyObject *)loop, handle);
    Py_DECREF(handle);
    return rc;
}

/* A ready entry's turn: the callback of a future that is done. */
int
fl_callbacks_run(fl_state *state, PyObject *py_loop, PyObject *op)
{
    LoopObject *loop = (LoopObject *)py_loop;
    FutureObject *fut = (FutureObject *)op;
    PyObject *callback = fut->callback0;
    PyObject *context = fut->context0;
    if (callback == NULL || context == NULL || fut->state == FL_PENDING) {
        return 0;  /* __init__ was called again meanwhile */
    }
    bool shared = fut->shared_context0;
    if (shared && FL_UNLIKELY(((fl_context *)context)->entered)) {
        /* Another holder of the snapshot is running further up. */
        if (callbacks_show_first(state, fut) < 0) {
            return -1;
        }
        context = fut->context0;
        shared = false;
    }
    fut->callback0 = fut->context0 = NULL;
    fut->shared_context0 = 0;
    PyObject *result;
    PyObject *vars =
        shared ? Py_NewRef(((fl_context *)context)->vars) : NULL;
    fl_shared_run run = {shared ? context : NULL, vars, loop->shared_runs};
    loop->shared_runs = &run;
    PyThreadState *ts = PyThreadState_Get();
    if (FL_LIKELY(fl_context_enter(state, ts, context) == 0)) {
        PyObject *stack[2] = {NULL, op};
        result = PyObject_Vectorcall(
            callback, stack + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
        if (FL_UNLIKELY(fl_context_exit(state, ts, context) < 0)) {
            Py_CLEAR(result);
        }
    }
    else {
        result = NULL;
    }
    loop->shared_runs = run.outer;
    int rc = 0;
    if (FL_UNLIKELY(result == NULL)) {
        rc = callbacks_report(loop, callback, op, context, shared);
    }
    else {
        Py_DECREF(result);
    }
    if (vars != NULL) {
        if (FL_UNLIKELY(((fl_context *)context)->vars != vars)) {
            PyObject *raised = fl_take_raised();
            fl_context_restore(context, vars);
            if (raised != NULL) {
                fl_put_raised(raised);
            }
        }
        Py_DECREF(vars);
    }
    Py_DECREF(context);
    Py_DECREF(callback);
    return rc;
}

int
fl_callbacks_add(fl_state *state, FutureObject *fut, PyObject *callback,
                       PyObject *context)
{
    if (fut->state == FL_PENDING) {
        return fl_callbacks_append(fut, callback, context);
    }
    PyObject *loop = Py_NewRef(fut->loop);
    int rc = callbacks_schedule_one(state, loop, fl_loop_is_plain(state, loop),
                                 callback, fut, context);
    Py_DECREF(loop);
    return rc;
}

/* The callbacks as a new list of pairs. */
PyObject *
fl_callbacks_list(fl_state *state, FutureObject *fut)
{
    if (callbacks_show_first(state, fut) < 0) {
        return NULL;
    }
    PyObject *list = PyList_New(0);
    if (list == NULL) {
        return NULL;
    }
    if (fut->callback0 != NULL) {
        PyObject *pair = PyTuple_Pack(2, fut->callback0, fut->context0);
        if (pair == NULL || PyList_Append(list, pair) < 0) {
            Py_XDECREF(pair);
            Py_DECREF(list);
            return NULL;
        }
        Py_DECREF(pair);
    }
    if (fut->callbacks != NULL) {
        Py_ssize_t end = PyList_GET_SIZE(list);
        if (PyList_SetSlice(list, end, end, fut->callbacks) < 0) {
            Py_DECREF(list);
            return NULL;
        }
    }
    return list;
}

/* Takes out one callback, known by identity: the list may have changed since
   it was looked at.  1 if it was there. */
int
fl_callbacks_drop(FutureObject *fut, PyObject *pair)
{
    PyObject *callback = PyTuple_GET_ITEM(pair, 0);
    PyObject *context = PyTuple_GET_ITEM(pair, 1);
    if (fut->callback0 == callback && fut->context0 == context) {
        fut->callback0 = fut->context0 = NULL;
        Py_DECREF(callback);
        Py_DECREF(context);
        return 1;
    }
    if (fut->callbacks == NULL) {
        return 0;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(fut->callbacks); i++) {
        PyObject *other = PyList_GET_ITEM(fut->callbacks, i);
        if (PyTuple_GET_ITEM(other, 0) != callback
            || PyTuple_GET_ITEM(other, 1) != context)
        {
            continue;
        }
        if (PyList_GET_SIZE(fut->callbacks) == 1) {
            Py_CLEAR(fut->callbacks);
        }
        else if (PyList_SetSlice(fut->callbacks, i, i + 1, NULL) < 0) {
            return -1;
        }
        return 1;
    }
    return 0;
}
