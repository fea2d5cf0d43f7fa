/* schedule.h -- call_soon and its kin, as C calls them. */
#ifndef FL_LOOP_SCHEDULE_H
#define FL_LOOP_SCHEDULE_H

#include "loop/handle.h"

/* loop.call_soon(callback, *args, context=context) on a loop that is ours.
   Arguments are borrowed; context may be NULL. */
HandleObject *fl_call_soon(LoopObject *loop, PyObject *callback,
                           PyObject *const *args, Py_ssize_t nargs,
                           PyObject *context, bool thread_safe) FL_RAISES;

/* loop.call_soon(callback[, arg], context=context) on any loop, through its
   method.  arg and context may be NULL.  Runs Python. */
int fl_call_soon_any(fl_state *state, PyObject *loop, PyObject *callback,
                     PyObject *arg, PyObject *context) FL_RAISES;

#endif
