/* jobs.h -- the queue behind the default executor. */
#ifndef FL_EXEC_JOBS_H
#define FL_EXEC_JOBS_H

#include "base/state.h"

int fl_jobs_setup(PyObject *module, fl_state *state) FL_RAISES;

#endif
