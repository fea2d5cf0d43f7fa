/* jobs.h -- the queue behind the default executor.

   Worker threads (Python threads, started by fastloop/_executor.py) sit in
   JobQueue.work(), take jobs in order and post each result straight to the
   loop's ready queue, where it completes the job's Future.  No concurrent
   Future, no condition variable, no chain of callbacks in between. */
#ifndef FL_EXEC_JOBS_H
#define FL_EXEC_JOBS_H

#include "loop/loop.h"

int fl_jobs_setup(PyObject *module, fl_state *state) FL_RAISES;

/* loop.run_in_executor(None, function, *args) on a queue: a new Future.
   Runs Python: the start of a worker thread. */
PyObject *fl_jobs_submit(LoopObject *loop, PyObject *queue,
                         PyObject *const *call, Py_ssize_t count) FL_RAISES;

#endif
