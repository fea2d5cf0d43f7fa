/* watcher.h -- descriptors, and the handles or channels to run when they are
   ready.

   What add_reader, add_writer and the transports stand on.  At most one reader and one writer
   a descriptor, as in asyncio.  Level-triggered: a handle is queued again in
   every iteration that finds its descriptor still ready.

   A transport owns its descriptor: it says so here, and the public methods
   keep their hands off it (fl_watch_owner). */
#ifndef FL_LOOP_WATCHER_H
#define FL_LOOP_WATCHER_H

#include "loop/handle.h"

/* Watches fd for `what` (FL_POLL_READ or FL_POLL_WRITE).  handle is borrowed;
   one that was there before is cancelled. */
int fl_watch_set(LoopObject *loop, int fd, uint32_t what, PyObject *handle)
    FL_RAISES;

/* The same for a channel (channel.h). */
int fl_watch_set_channel(LoopObject *loop, int fd, uint32_t what,
                         PyObject *channel) FL_RAISES;

/* Whether this very channel watches fd for `what`. */
bool fl_watch_has(LoopObject *loop, int fd, uint32_t what, PyObject *channel);

/* 1: there was one, and it is cancelled.  0: there was none.  -1: error. */
int fl_watch_remove(LoopObject *loop, int fd, uint32_t what) FL_RAISES;

/* Queues the handles of a descriptor that the poller found ready. */
int fl_watch_dispatch(LoopObject *loop, const fl_event *event) FL_RAISES;

/* For who waits once and, as a rule, soon again, as sock_recv does: the
   channel is let go when it is queued, and the poller told nothing until the
   next wait, which is then one system call and not two.  It watches for edges,
   so an event that nobody waits for any more is not repeated. */
int fl_watch_set_once(LoopObject *loop, int fd, uint32_t what,
                      PyObject *channel) FL_RAISES;

/* The events that somebody waits for. */
uint32_t fl_watch_waited_for(LoopObject *loop, int fd);

/* The transport that owns a descriptor; borrowed, or NULL.  owner is not
   kept alive: it disowns the descriptor before it goes. */
PyObject *fl_watch_owner(LoopObject *loop, int fd);
int fl_watch_own(LoopObject *loop, int fd, PyObject *owner) FL_RAISES;
void fl_watch_disown(LoopObject *loop, int fd, PyObject *owner);

/* Forgets everything without a word to the kernel. */
void fl_watches_clear(LoopObject *loop);

/* -errno becomes an OSError. */
void fl_raise_errno(int negative_errno);

/* The errno of an OSError, 0 if it has none. */
int fl_exc_errno(PyObject *exc);

#endif
