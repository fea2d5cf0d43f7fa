/* timer.h -- the loop's timers: scheduling, cancelling, firing. */
#ifndef FL_LOOP_TIMER_H
#define FL_LOOP_TIMER_H

#include "loop/handle.h"

/* call_at: a scheduled timer.  when_object is what the caller gave when it
   was no float; NULL otherwise.  Arguments are borrowed. */
TimerObject *fl_timer_schedule(LoopObject *loop, double when,
                               PyObject *when_object, PyObject *callback,
                               PyObject *const *args, Py_ssize_t nargs,
                               PyObject *context) FL_RAISES;

/* Takes a timer out of its loop's heap, if it is in. */
void fl_timer_unschedule(fl_state *state, TimerObject *timer);

/* Moves what is due at `now` to the ready queue, earliest first. */
int fl_timers_fire(LoopObject *loop, double now) FL_RAISES;

/* The loop lets go of a handle: DECREF, and from here on the collector looks
   after one that others keep. */
void fl_handle_let_go(HandleObject *handle);

#endif
