/* await.h -- the iterator behind `await future`. */
#ifndef FL_TASK_AWAIT_H
#define FL_TASK_AWAIT_H

#include "task/layout.h"

int fl_await_setup(PyObject *module, fl_state *state) FL_RAISES;

/* What `await` iterates over; future is borrowed. */
PyObject *fl_future_iter_new(PyObject *future) FL_RAISES;

/* For an iterator of one's own: StopIteration(value), raised so that `await`
   returns the value.  Steals value. */
void fl_await_raise_stop(fl_state *state, PyObject *value);

/* The exception that throw(type[, value[, traceback]]) asks for, raised; all
   the old spellings, and the errors for wrong ones. */
void fl_await_raise_thrown(PyObject *const *args, Py_ssize_t nargs);

/* At the end of a step: the last value that `await` returned is not kept.
   state->stop must not be NULL. */
void fl_await_forget_value(fl_state *state);

#endif
