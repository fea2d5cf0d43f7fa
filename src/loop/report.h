/* report.h -- errors that have no caller go to the loop's exception handler,
   in asyncio's words. */
#ifndef FL_LOOP_REPORT_H
#define FL_LOOP_REPORT_H

#include "loop/handle.h"

/* The raised exception came out of handle's callback.  KeyboardInterrupt and
   SystemExit stay raised (-1); anything else is reported (0, or -1 when the
   handler itself raises one of these).  Runs Python. */
int fl_report_callback(PyObject *loop, HandleObject *handle) FL_RAISES;

/* The same for a step of a task that failed outside the task's own code;
   callable stands for the callback.  Runs Python. */
int fl_report_step(PyObject *loop, PyObject *callable) FL_RAISES;

/* Whether the raised exception must end the loop, and is reported to nobody:
   KeyboardInterrupt or SystemExit. */
bool fl_report_must_leave(void);

/* Logs asyncio's "Executing ... took ... seconds".  Runs Python. */
int fl_report_slow(PyObject *op, fl_ready_kind kind, double seconds) FL_RAISES;

#endif
