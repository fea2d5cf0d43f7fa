/* setup.h -- what the module does to have a network. */
#ifndef FL_NET_SETUP_H
#define FL_NET_SETUP_H

#include "base/state.h"

/* Makes the types, and looks at what asyncio's classes are like here. */
int fl_net_setup(PyObject *module, fl_state *state) FL_RAISES;

#endif
