/* step.h -- one step of a coroutine. */
#ifndef FL_TASK_STEP_H
#define FL_TASK_STEP_H

#include "task/layout.h"

/* Tells the loop how ready entries of the kind FL_READY_STEP are run. */
void fl_step_setup(fl_state *state);

/* A step as the running task of its loop, in the context that is entered
   already.  Steals exc, which is thrown; NULL: resume.  Runs Python. */
int fl_step_run(fl_state *state, TaskObject *task, PyObject *exc) FL_RAISES;

/* The step that follows the end of `waiter` (borrowed): its exception is
   thrown into the coroutine.  Runs Python. */
int fl_step_wake(fl_state *state, TaskObject *task, PyObject *waiter)
    FL_RAISES;

/* The first step, taken inside the constructor (eager start). */
int fl_task_start_eagerly(fl_state *state, TaskObject *task) FL_RAISES;

#endif
