/* poller.h -- waiting for descriptors, and being woken from another thread.

   The small interface behind which epoll hides.  Level-triggered.  No Python:
   results are >= 0 or -errno, and nothing needs the GIL. */
#ifndef FL_OS_POLLER_H
#define FL_OS_POLLER_H

#include "base/cdefs.h"

#define FL_POLL_READ  1u
#define FL_POLL_WRITE 2u
#define FL_POLL_EDGE  4u  /* wanted only: tell of each change once */

/* Events taken from the kernel in one call.  What is left over comes with
   the next call, which a full batch makes happen soon. */
#define FL_POLLER_BATCH 256

typedef struct {
    int fd;
    uint32_t ready;  /* FL_POLL_READ | FL_POLL_WRITE; both on error or hang-up */
} fl_event;

typedef struct {
    int epoll_fd;   /* -1 when closed; owned */
    int wake_fd;    /* an eventfd; owned */
    bool no_pwait2; /* the kernel or a sandbox refused epoll_pwait2 */
} fl_poller;

int fl_poller_open(fl_poller *poller);
void fl_poller_close(fl_poller *poller);

/* Makes the kernel watch fd for `wanted` (0: not at all).  `had` is what the
   caller believes it watches now; a descriptor that was closed and opened
   again behind our back is put right.  Who wants edges is told at once if it
   is ready, each time that this is called. */
int fl_poller_set(fl_poller *poller, int fd, uint32_t had, uint32_t wanted);

/* Waits for at most timeout_ns (negative: for ever), never less unless
   something happened.  Returns the number of events.  *woken tells whether
   fl_poller_wake was called since the last wait.  -EINTR is ordinary. */
int fl_poller_wait(fl_poller *poller, int64_t timeout_ns,
                   fl_event events[FL_POLLER_BATCH], bool *woken);

/* Ends the current or the next wait.  Any thread, any time.  wake_fd is the
   poller's or a duplicate of that. */
void fl_poller_wake_fd(int wake_fd);

static inline void
fl_poller_wake(fl_poller *poller)
{
    fl_poller_wake_fd(poller->wake_fd);
}

#endif
