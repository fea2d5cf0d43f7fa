/* registry.h -- which task runs, and which tasks there are.

   asyncio keeps both, each version in its own place; these are its places,
   so that asyncio.current_task, all_tasks and outside debuggers see ours. */
#ifndef FL_TASK_REGISTRY_H
#define FL_TASK_REGISTRY_H

#include "task/layout.h"

/* The slow ways: through the functions that asyncio exports. */
int fl_registry_call(PyObject *function, PyObject *loop, PyObject *task)
    FL_RAISES;

/* `task` is now the running one of `loop`; there was none.  ts is the calling
   thread's state. */
static inline int
fl_enter_task(fl_state *state, PyThreadState *ts, PyObject *loop,
              PyObject *task)
{
#if FL_PY314
    if (FL_LIKELY(state->running_task_offset != 0)) {
        PyObject **slot = (PyObject **)((char *)ts + state->running_task_offset);
        /* slot[-1] is the thread's running loop. */
        if (FL_LIKELY(*slot == NULL && slot[-1] == loop)) {
            *slot = Py_NewRef(task);
            return 0;
        }
    }
#else
    (void)ts;
    if (FL_LIKELY(state->current_tasks != NULL
                  && PyDict_CheckExact(state->current_tasks)))
    {
        PyObject *there =
            PyDict_SetDefault(state->current_tasks, loop, task);
        /* 3.13.0 hands the value back with a MemoryError set. */
        if (FL_UNLIKELY(PyErr_Occurred() != NULL)) {
            return -1;
        }
        if (FL_LIKELY(there == task)) {
            return 0;
        }
    }
#endif
    return fl_registry_call(state->enter_task, loop, task);
}

static inline int
fl_leave_task(fl_state *state, PyThreadState *ts, PyObject *loop,
              PyObject *task)
{
#if FL_PY314
    if (FL_LIKELY(state->running_task_offset != 0)) {
        PyObject **slot = (PyObject **)((char *)ts + state->running_task_offset);
        if (FL_LIKELY(*slot == task && slot[-1] == loop)) {
            *slot = NULL;
            Py_DECREF(task);
            return 0;
        }
    }
#else
    (void)ts;
    if (FL_LIKELY(state->current_tasks != NULL
                  && PyDict_CheckExact(state->current_tasks)))
    {
        PyObject *there =
            PyDict_GetItemWithError(state->current_tasks, loop);
        if (FL_LIKELY(there == task)) {
            return PyDict_DelItem(state->current_tasks, loop);
        }
        if (there == NULL && PyErr_Occurred()) {
            return -1;
        }
    }
#endif
    return fl_registry_call(state->leave_task, loop, task);
}

/* Enters `task` (None: none) and returns the one that was running, or None. */
PyObject *fl_swap_task(fl_state *state, PyObject *loop, PyObject *task)
    FL_RAISES;

/* Adds a new task to all_tasks().  `near` may be a task that is surely in the
   same thread's list (the running one), or NULL. */
int fl_register_task(fl_state *state, TaskObject *task, PyObject *near)
    FL_RAISES;

/* Takes a task that is done, or dying, out of the thread's list, which from
   3.14 on holds pending ones only. */
static inline void
fl_unlink_task(TaskObject *task)
{
#if FL_PY314
    if (task->link.next != NULL) {
        task->link.prev->next = task->link.next;
        task->link.next->prev = task->link.prev;
        task->link.next = task->link.prev = NULL;
    }
#else
    (void)task;
#endif
}

#endif
