/* pipe.h -- ReadPipeTransport and WritePipeTransport. */
#ifndef FL_NET_PIPE_H
#define FL_NET_PIPE_H

#include "net/transport.h"

int fl_pipe_setup(PyObject *module, fl_state *state) FL_RAISES;

#endif
