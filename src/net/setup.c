/* setup.c -- types and checks of the network layer. */
#include "net/setup.h"

#include "net/datagram.h"
#include "net/listener.h"
#include "net/pipe.h"
#include "net/reader.h"
#include "net/socket.h"
#include "net/sockobj.h"
#include "net/sockop.h"

/* From 3.13 on a Server keeps its connections and not just their number:
   whether _attach takes one argument or two. */
static int
setup_ask_server(fl_state *state)
{
    PyObject *count = PyObject_GetAttr(state->Server, state->str__attach);
    if (count != NULL) {
        Py_SETREF(count, PyObject_GetAttrString(count, "__code__"));
    }
    if (count != NULL) {
        Py_SETREF(count, PyObject_GetAttrString(count, "co_argcount"));
    }
    long arguments = count == NULL ? -1 : PyLong_AsLong(count);
    Py_XDECREF(count);
    state->servers_know_clients = arguments == 2;
    return arguments < 0 ? -1 : 0;
}

int
fl_net_setup(PyObject *module, fl_state *state)
{
    return setup_ask_server(state) < 0 || fl_sockobj_setup(state) < 0
                   || fl_socket_setup(module, state) < 0
                   || fl_datagram_setup(module, state) < 0
                   || fl_pipe_setup(module, state) < 0
                   || fl_reader_setup(state) < 0
                   || fl_listener_setup(module, state) < 0
                   || fl_sockop_setup(module, state) < 0
               ? -1
               : 0;
}
