/* run.h -- the heartbeat. */
#ifndef FL_LOOP_RUN_H
#define FL_LOOP_RUN_H

#include "loop/loop.h"

/* One iteration.  Runs Python: everything. */
int fl_loop_iterate(LoopObject *loop) FL_RAISES;

/* Iterations until stop() was called. */
int fl_loop_run(LoopObject *loop) FL_RAISES;

#endif
