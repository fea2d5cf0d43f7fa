/* datagram.h -- DatagramTransport. */
#ifndef FL_NET_DATAGRAM_H
#define FL_NET_DATAGRAM_H

#include "net/transport.h"

/* A datagram that waits to be sent.  Where it goes: nowhere in particular (the
   socket is connected), to `to`, or to the Python address `addr`. */
typedef struct {
    PyObject *data;  /* bytes; owned */
    PyObject *addr;  /* owned, or NULL */
    fl_address to;
} fl_letter;

typedef struct {
    TransportObject transport;
    PyObject *address;   /* the one peer (asyncio's _address), or NULL */
    PyObject *backlog;   /* received, but then reading was paused: a list of
                            (data, address), or NULL */

    /* The sender's address of the last datagram, in both forms: an answer to
       it need not be translated. */
    PyObject *last_addr;
    fl_address last;

    fl_letter *letters;  /* a queue */
    uint32_t first;
    uint32_t count;
    uint32_t capacity;
    size_t size;         /* of what they hold, as asyncio counts */

    uint8_t singles;     /* reads in a row that found one datagram */
    bool connected;      /* the socket knows its peer */
    bool is_udp;
    bool odd_family;     /* neither IP nor UNIX */
    bool no_segments;    /* the kernel refused to cut a long one in pieces */
} DatagramObject;

int fl_datagram_setup(PyObject *module, fl_state *state) FL_RAISES;

/* --- datagram_send.c ------------------------------------------------------*/

PyObject *fl_datagram_py_sendto(PyObject *op, PyObject *const *args,
                                Py_ssize_t nargs, PyObject *names);
int fl_datagram_flush(LoopObject *loop, PyObject *op) FL_RAISES;
int fl_datagram_flush_held(DatagramObject *self) FL_RAISES;
int fl_datagram_write_ready(TransportObject *transport) FL_RAISES;
void fl_datagram_drop_letters(DatagramObject *self);

/* protocol.error_received(exc) with the raised exception, which must be an
   OSError.  What that raises is raised.  Runs Python. */
int fl_datagram_tell_error(DatagramObject *self) FL_RAISES;

#endif
