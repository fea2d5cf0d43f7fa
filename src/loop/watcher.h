/* watcher.h -- descriptors and the handles to run when they are ready.

   What add_reader and add_writer stand on.  At most one reader and one writer
   a descriptor, as in asyncio.  Level-triggered: a handle is queued again in
   every iteration that finds its descriptor still ready. */
#ifndef FL_LOOP_WATCHER_H
#define FL_LOOP_WATCHER_H

#include "loop/handle.h"

/* Watches fd for `what` (FL_POLL_READ or FL_POLL_WRITE).  handle is borrowed;
   one that was there before is cancelled. */
int fl_watch_set(LoopObject *loop, int fd, uint32_t what, PyObject *handle)
    FL_RAISES;

/* 1: there was one, and it is cancelled.  0: there was none.  -1: error. */
int fl_watch_remove(LoopObject *loop, int fd, uint32_t what) FL_RAISES;

/* Queues the handles of a descriptor that the poller found ready. */
int fl_watch_dispatch(LoopObject *loop, const fl_event *event) FL_RAISES;

/* Forgets everything without a word to the kernel. */
void fl_watches_clear(LoopObject *loop);

/* -errno becomes an OSError. */
void fl_raise_errno(int negative_errno);

#endif
