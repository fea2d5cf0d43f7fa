/* sockop.h -- sock_recv and its kin. */
#ifndef FL_NET_SOCKOP_H
#define FL_NET_SOCKOP_H

#include "loop/loop.h"

typedef enum {
    FL_SOCK_RECV,       /* argument: the most bytes to receive */
    FL_SOCK_RECV_INTO,  /* a writable buffer */
    FL_SOCK_SENDALL,    /* bytes-like */
    FL_SOCK_READABLE,   /* none: just wait */
    FL_SOCK_WRITABLE,
} fl_sock_kind;

int fl_sockop_setup(PyObject *module, fl_state *state) FL_RAISES;

/* Something to await, which does nothing before it is; argument may be
   NULL. */
PyObject *fl_sockop_new(LoopObject *loop, fl_sock_kind kind, PyObject *sock,
                        PyObject *argument) FL_RAISES;

#endif
