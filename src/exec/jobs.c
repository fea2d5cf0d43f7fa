/* jobs.c -- the queue behind the default executor. */
#include "exec/jobs.h"

int
fl_jobs_setup(PyObject *module, fl_state *state)
{
    (void)module;
    (void)state;
    return 0;
}
