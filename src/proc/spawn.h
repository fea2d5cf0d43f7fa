/* spawn.h -- Python's arguments of a new process, and how one ends. */
#ifndef FL_PROC_SPAWN_H
#define FL_PROC_SPAWN_H

#include "base/state.h"

int fl_proc_setup(PyObject *module, fl_state *state) FL_RAISES;

#endif
