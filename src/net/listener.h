/* listener.h -- accepting connections for a server. */
#ifndef FL_NET_LISTENER_H
#define FL_NET_LISTENER_H

#include "loop/loop.h"

int fl_listener_setup(PyObject *module, fl_state *state) FL_RAISES;

/* loop._listen(factory, sock, server, backlog, context): starts to accept.
   For plain connections outside debug mode; asyncio's Python does the rest. */
PyObject *fl_loop_py_listen(PyObject *op, PyObject *const *args,
                            Py_ssize_t nargs);
extern const char fl_loop_listen_doc[];

#endif
