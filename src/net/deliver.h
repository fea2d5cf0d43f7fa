/* deliver.h -- what was received goes to the protocol. */
#ifndef FL_NET_DELIVER_H
#define FL_NET_DELIVER_H

#include "net/transport.h"

/* How (TransportObject.read_mode). */
enum {
    FL_READ_DATA,      /* data_received(bytes) */
    FL_READ_BUFFERED,  /* into get_buffer(), then buffer_updated(n) */
    FL_READ_STREAM,    /* into a StreamReader, as long as all is asyncio's */
    FL_READ_TLS,       /* ciphertext, to an SSLTransport: tls/ */
};

/* Makes protocol the one that gets what is received. */
int fl_deliver_to(TransportObject *self, PyObject *protocol) FL_RAISES;

/* Hands on the first n bytes of the loan, for all modes but
   FL_READ_BUFFERED.  Runs Python. */
int fl_deliver(TransportObject *self, fl_readbuf_habit *habit, fl_loan *loan,
               size_t n) FL_RAISES;

/* get_buffer(hint), with asyncio's look at its length.  Runs Python. */
PyObject *fl_deliver_get_buffer(TransportObject *self, Py_ssize_t hint)
    FL_RAISES;

/* buffer_updated(n).  Runs Python. */
int fl_deliver_updated(TransportObject *self, Py_ssize_t n) FL_RAISES;

#endif
