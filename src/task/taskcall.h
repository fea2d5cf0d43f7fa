/* taskcall.h -- the ways in which a task's step is scheduled. */
#ifndef FL_TASK_TASKCALL_H
#define FL_TASK_TASKCALL_H

#include "loop/loop.h"
#include "task/layout.h"

int fl_taskcall_setup(PyObject *module, fl_state *state) FL_RAISES;

/* Schedules the next step of a task.  exc: thrown into it; NULL: resume. */
int fl_task_schedule(fl_state *state, TaskObject *task, PyObject *exc)
    FL_RAISES;

/* Schedules the step that follows the end of the future that it waits for.
   The hot half of fl_future_set_result on a plain loop. */
static inline int
fl_task_schedule_wakeup(LoopObject *loop, TaskObject *task)
{
    return fl_loop_push(loop, Py_NewRef(task), FL_READY_STEP);
}

/* Whether op is a task that waits for fut. */
static inline bool
fl_task_is_waiter(fl_state *state, PyObject *op, PyObject *fut)
{
    return (Py_TYPE(op) == state->Task_type
            || Py_TYPE(op) == (PyTypeObject *)state->AsyncioTask)
           && state->layout_ok && ((TaskObject *)op)->fut_waiter == fut;
}

/* A callable that steps the task, throwing exc if there is one. */
PyObject *fl_step_call_new(fl_state *state, TaskObject *task, PyObject *exc)
    FL_RAISES;

/* A callable that wakes the task; what stands in a foreign future's list of
   callbacks.  It has `__self__`, as asyncio's tools expect. */
PyObject *fl_wakeup_new(fl_state *state, TaskObject *task) FL_RAISES;

/* If callback is a step or a wake-up, ours or asyncio's, of a task that may
   be stepped straight from the ready queue, queues that and returns 1.
   0: it is nothing of the kind.  arg is what it would be called with. */
int fl_task_adopt(LoopObject *loop, PyObject *callback, PyObject *arg,
                  PyObject *context) FL_RAISES;

#endif
