/* socket.h -- SocketTransport: a stream over a socket. */
#ifndef FL_NET_SOCKET_H
#define FL_NET_SOCKET_H

#include "net/transport.h"

int fl_socket_setup(PyObject *module, fl_state *state) FL_RAISES;

/* A transport around a connected, non-blocking descriptor, which it owns from
   here on unless NULL is returned.  file is the socket object that holds it,
   or NULL; extra (a dict) and context may be NULL. */
TransportObject *fl_socket_new(LoopObject *loop, int fd, PyObject *file,
                               PyObject *protocol, PyObject *extra,
                               PyObject *context) FL_RAISES;

/* Makes a transport that owns its descriptor, but serves nobody yet, one of
   these. */
int fl_socket_adopt(TransportObject *self, PyObject *protocol) FL_RAISES;

/* --- socket_write.c -------------------------------------------------------*/

/* What is held back or waits is sent as far as the kernel takes it. */
int fl_socket_flush(LoopObject *loop, PyObject *op) FL_RAISES;

/* Sends what is held back, now.  Runs Python. */
int fl_socket_flush_held(TransportObject *self) FL_RAISES;

/* Sends bytes that the layer above has held back already, behind what is held
   here.  Runs Python. */
int fl_socket_send(TransportObject *self, PyObject *bytes) FL_RAISES;

/* The poller found the socket writable. */
int fl_socket_write_ready(TransportObject *self) FL_RAISES;

/* write_eof() was called and everything is sent. */
int fl_socket_shutdown(TransportObject *self) FL_RAISES;

PyObject *fl_socket_py_write(PyObject *op, PyObject *const *args,
                             Py_ssize_t nargs, PyObject *names);
PyObject *fl_socket_py_writelines(PyObject *op, PyObject *const *args,
                                  Py_ssize_t nargs, PyObject *names);
PyObject *fl_socket_py_write_eof(PyObject *op, PyObject *ignored);
PyObject *fl_socket_py_make_empty_waiter(PyObject *op, PyObject *ignored);
PyObject *fl_socket_py_make_loss_waiter(PyObject *op, PyObject *ignored);
PyObject *fl_socket_py_reset_empty_waiter(PyObject *op, PyObject *ignored);

#endif
