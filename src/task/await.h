/* await.h -- the iterator behind `await future`. */
#ifndef FL_TASK_AWAIT_H
#define FL_TASK_AWAIT_H

#include "task/layout.h"

int fl_await_setup(PyObject *module, fl_state *state) FL_RAISES;

/* What `await` iterates over; future is borrowed. */
PyObject *fl_future_iter_new(PyObject *future) FL_RAISES;

/* At the end of a step: the last value that `await` returned is not kept.
   state->stop must not be NULL. */
void fl_await_forget_value(fl_state *state);

#endif
