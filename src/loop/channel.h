/* channel.h -- descriptors that C serves without a handle.

   A channel is an object that the watcher may name as a descriptor's reader
   or writer in place of a handle: a transport, a listening socket, a waiting
   sock_recv.  The poller's event puts it on the ready queue, in the place
   where asyncio would put the handle, and from there its function is called.

   A channel that has something to send may instead hold it back
   (fl_hold): everything that is held leaves together when the turn ends,
   before the loop polls.  So two writes of one turn make one system call.
   fl_flush_held is what sends; a callback that takes long makes it happen
   sooner (FL_HOLD_NS). */
#ifndef FL_LOOP_CHANNEL_H
#define FL_LOOP_CHANNEL_H

#include "loop/loop.h"

/* Each returns 0, or -1 with an exception that ends the loop's run.
   Runs Python: all three. */
typedef struct {
    int (*readable)(LoopObject *loop, PyObject *op);
    int (*writable)(LoopObject *loop, PyObject *op);
    int (*flush)(LoopObject *loop, PyObject *op);
} fl_channel_ops;

/* How a channel's struct begins.  The first five fields lie where asyncio's
   transports have their slots, and belong to the derived type. */
typedef struct {
    PyObject_HEAD
    PyObject *slots[5];
    const fl_channel_ops *ops;
} fl_channel;

/* Notes that the channel wants its flush function called when the turn ends.
   Once for each turn: the caller keeps track. */
int fl_hold(LoopObject *loop, PyObject *op) FL_RAISES;

/* Calls the flush functions.  Runs Python. */
int fl_flush_held(LoopObject *loop) FL_RAISES;

/* The loop is closed: nothing is sent any more. */
void fl_held_clear(LoopObject *loop);

#endif
