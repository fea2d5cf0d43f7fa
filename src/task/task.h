/* task.h -- Task: making one, and what Python sees of it. */
#ifndef FL_TASK_TASK_H
#define FL_TASK_TASK_H

#include "task/future.h"
#include "task/registry.h"
#include "task/step.h"
#include "task/taskcall.h"

int fl_task_setup(PyObject *module, fl_state *state) FL_RAISES;

/* loop.create_task(coro) outside debug mode, on one of our loops.  name and
   context may be NULL (or None).  Runs Python: only an odd coroutine type's
   check, and the context's or name's own; with eager_start the first step. */
PyObject *fl_task_new(fl_state *state, PyObject *loop, PyObject *coro,
                      PyObject *name, PyObject *context, bool eager_start)
    FL_RAISES;

#endif
