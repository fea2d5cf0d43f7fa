/* loop_type.h -- the Loop as Python sees it. */
#ifndef FL_LOOP_TYPE_H
#define FL_LOOP_TYPE_H

#include "base/state.h"

int fl_loop_type_setup(PyObject *module, fl_state *state) FL_RAISES;

#endif
