/* sockobj.h -- the descriptor of a Python socket object, without a call.

   CPython's socket struct is private, and its first field the descriptor.
   fl_sockobj_setup checks that on real sockets at import; otherwise fileno()
   is called. */
#ifndef FL_NET_SOCKOBJ_H
#define FL_NET_SOCKOBJ_H

#include "base/state.h"

typedef struct {
    PyObject_HEAD
    int fd;
} fl_sockobj;

/* Sets state->socket_fd_ok. */
int fl_sockobj_setup(fl_state *state) FL_RAISES;

/* sock.fileno() of any object; -1 with an exception.  Runs Python. */
int fl_sockobj_ask(fl_state *state, PyObject *sock) FL_RAISES;

/* The descriptor, -1 without an exception if it is closed or cannot be told.
   Runs Python if the object is not a socket of the socket module. */
static inline int
fl_socket_fd(fl_state *state, PyObject *sock)
{
    if (FL_LIKELY(state->socket_fd_ok
                  && PyObject_TypeCheck(sock, (PyTypeObject *)state->CSocket)))
    {
        return ((fl_sockobj *)sock)->fd;
    }
    int fd = fl_sockobj_ask(state, sock);
    if (fd == -1) {
        PyErr_Clear();
    }
    return fd;
}

#endif
