/* loop_type.h -- the Loop as Python sees it. */
#ifndef FL_LOOP_TYPE_H
#define FL_LOOP_TYPE_H

#include "base/state.h"

int fl_loop_type_setup(PyObject *module, fl_state *state) FL_RAISES;

/* `type` is the class, made in Python, that most loops will be of. */
int fl_loop_type_finish(fl_state *state, PyTypeObject *type) FL_RAISES;

#endif
