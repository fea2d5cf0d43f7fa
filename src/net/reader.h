/* reader.h -- received data straight into an asyncio.StreamReader. */
#ifndef FL_NET_READER_H
#define FL_NET_READER_H

#include "base/state.h"

int fl_reader_setup(fl_state *state) FL_RAISES;

/* Whether protocol is one that fl_reader_feed may do something for. */
static inline bool
fl_reader_is_candidate(fl_state *state, PyObject *protocol)
{
    return (PyObject *)Py_TYPE(protocol) == state->StreamReaderProtocol;
}

/* What protocol.data_received(bytes) would do, if it is asyncio's own code all
   the way.  1: done.  0: call it.  Runs Python: the death of old values, a
   foreign loop's call_soon, pause_reading. */
int fl_reader_feed(fl_state *state, PyObject *protocol, const char *bytes,
                   size_t len) FL_RAISES;

/* The same for what is to be received from fd: straight into the reader's
   memory, which saves a copy and is worth a system call when there is much
   (benchmarks/network, 100 KiB readline).  How many bytes; 0: receive as
   usual; -1: an exception, after something was received. */
ssize_t fl_reader_receive(fl_state *state, PyObject *protocol, int fd)
    FL_RAISES;

#endif
