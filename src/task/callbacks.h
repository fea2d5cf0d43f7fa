/* callbacks.h -- the callbacks of a future.

   They lie where asyncio keeps them (layout.h): the first in callback0 and
   context0, more in a list of pairs.  Two short cuts, for our own types on a
   plain loop: a task that waits stands in callback0 itself, and a done future
   with one callback goes on the ready queue as it is. */
#ifndef FL_TASK_CALLBACKS_H
#define FL_TASK_CALLBACKS_H

#include "loop/loop.h"
#include "task/layout.h"

static inline bool
fl_callbacks_none(const FutureObject *fut)
{
    return fut->callback0 == NULL && fut->callbacks == NULL;
}

/* Adds a callback, or schedules it if the future is done.  The arguments are
   borrowed; context must not be NULL. */
int fl_callbacks_add(fl_state *state, FutureObject *fut, PyObject *callback,
                     PyObject *context) FL_RAISES;

/* Adds it whatever the future's state. */
int fl_callbacks_append(FutureObject *fut, PyObject *callback,
                        PyObject *context) FL_RAISES;

/* Schedules all callbacks of a future that just got done, and forgets them.
   Runs Python: a foreign loop's call_soon. */
int fl_callbacks_schedule(fl_state *state, FutureObject *fut) FL_RAISES;

/* The callbacks as a new list of (callback, context). */
PyObject *fl_callbacks_list(fl_state *state, FutureObject *fut) FL_RAISES;

/* Takes out the callback of such a pair, known by identity.  1: it was
   there. */
int fl_callbacks_drop(FutureObject *fut, PyObject *pair) FL_RAISES;

/* What the loop does with such an entry when it is closed. */
void fl_callbacks_forget(PyObject *op);

/* How the loop runs a ready entry of the kind FL_READY_CALLBACK. */
int fl_callbacks_run(fl_state *state, PyObject *loop, PyObject *op) FL_RAISES;

#endif
