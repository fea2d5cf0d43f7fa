/* loop.h -- the event loop's struct, and what holds of it.

   One iteration (run.c) is: poll, move due timers to the ready queue, run
   what the ready queue held at that moment.  Order is asyncio's, first in,
   first out; whatever is scheduled meanwhile waits for the next iteration.

   Invariants:
   - An entry in `ready` owns a reference to its object.
   - A timer in `timers` is owned by the heap; its handle's `heap_index` says
     where it is.
   - `polling` is set exactly while the loop's thread waits without the GIL;
     whoever pushes an entry meanwhile wakes the poller, once.
   - Only code that holds the GIL touches any of this, so another thread may
     push without a lock. */
#ifndef FL_LOOP_LOOP_H
#define FL_LOOP_LOOP_H

#include "base/context.h"
#include "base/heap.h"
#include "base/ring.h"
#include "base/state.h"
#include "os/clock.h"
#include "os/poller.h"

/* What a ready entry is, in the low bits of its pointer. */
typedef enum {
    FL_READY_HANDLE = 0,   /* one of our handles */
    FL_READY_STEP = 1,     /* a Task, ours or asyncio's, to be stepped */
    FL_READY_FOREIGN = 2,  /* another object with asyncio.Handle's manners */
    FL_READY_JOB = 3,      /* a worker's job that is done */
    FL_READY_CALLBACK = 4, /* a Future of ours whose one callback is due */
    FL_READY_READ = 5,     /* a channel (channel.h) to be read from */
    FL_READY_WRITE = 6,    /* ... to be written to */
} fl_ready_kind;

#define FL_READY_MASK ((uintptr_t)7)

/* Methods that a subclass or an instance attribute replaced.  C code that
   would otherwise skip them then calls them. */
enum {
    FL_OVERRIDES_CALL_SOON = 1,
    FL_OVERRIDES_CALL_AT = 2,
    FL_OVERRIDES_TIME = 4,
    FL_OVERRIDES_GET_DEBUG = 8,
};

/* Who wants to know about a descriptor: see watcher.h. */
typedef struct {
    PyObject *reader;  /* a handle or channel to run when readable; owned */
    PyObject *writer;
    PyObject *owner;   /* the transport that the descriptor belongs to;
                          borrowed: it takes itself out */
    uint16_t armed;    /* what the poller was told */
    uint8_t channels;  /* FL_POLL_READ, _WRITE: that side is a channel */
    uint8_t edges;     /* ... that wants edges: see watcher.h */
} fl_watch;

/* Channels that hold writes back until the turn ends: see channel.h. */
typedef struct {
    PyObject **channels;  /* owned */
    size_t count;
    size_t capacity;
} fl_held;

typedef struct {
    PyObject_HEAD
    /* Borrowed: the loop's type keeps the module, and so the state, alive. */
    fl_state *state;

    /* What is to be done. */
    fl_ring ready;
    fl_heap timers;
    fl_watch *watches;    /* indexed by descriptor */
    size_t watch_count;   /* length of the array */
    fl_poller poller;
    fl_held held;
    fl_snapshot snapshot;
    fl_shared_run *shared_runs;  /* innermost first */

    /* Life. */
    bool closed;
    bool stopping;
    bool debug;
    unsigned char overrides;
    unsigned int overrides_tag; /* the type's version when they were found */
    bool types_patched;         /* asyncio.tasks.Task or Future was replaced */
    bool iterating;             /* inside fl_loop_iterate */
    bool in_ssl;                /* OpenSSL is at work: tls/tls.h */
    bool tls_exposed;           /* Python has seen an ssl object of ours */
    unsigned long thread_id;    /* of the thread that runs the loop, or 0 */
    uint64_t forks;             /* state->forks when the loop was made */

    /* Waiting. */
    bool polling;
    bool wake_sent;
    bool signals_armed;   /* the wake-up descriptor points to signal_fd */
    int signal_fd;        /* read end of the signal pipe, or -1; owned by the
                             Python side (fastloop/_signals.py) */
    int patience;         /* callbacks between two polls, at present */
    int credit;           /* ... that are left of them */
    int clock_credit;     /* at this credit, ask the clock as well */
    int64_t polled_at;    /* nanoseconds */
    int64_t flushed_at;   /* the last poll or late flush */
    int64_t released_at;  /* when the GIL was last given away */

    /* Attributes that asyncio's own methods keep on a loop.  Owned. */
    PyObject *exception_handler;
    PyObject *task_factory;
    PyObject *default_executor;
    PyObject *current_handle;
    PyObject *old_agen_hooks;
    PyObject *origin_tracking_depth;
    PyObject *asyncgens;
    PyObject *transports;
    PyObject *signal_handlers;
    PyObject *unix_server_sockets;
    PyObject *watcher;
    PyObject *signal_pipe;
    PyObject *job_queue;
    PyObject *tls_incoming;     /* of all TLS connections: tls/engine.c */
    PyObject *tls_outgoing;
    double slow_callback_duration;
    bool asyncgens_shutdown_called;
    bool executor_shutdown_called;
    bool origin_tracking_enabled;
} LoopObject;

/* Between two polls of a loop that is never idle lie at most this many
   callbacks (and the rest of their iteration) and, looked at every few
   callbacks, about this much time.  The bound is documented (docs/compatibility.md) and tested. */
#define FL_POLL_CREDIT      64
#define FL_POLL_PERIOD_NS   100000
#define FL_POLL_CLOCK_EVERY 8

/* A write that is held back leaves at the end of the turn, or after the first
   callback that ends this long after the last poll.  Documented and tested as
   well. */
#define FL_HOLD_NS 100000

/* How often a busy loop gives the GIL away.  More than twice the interpreter's
   switch interval (5 ms): a thread that waits must be able to run into that
   and ask, for only then does giving away wait until it has taken.  Shorter,
   and each release would wake the thread just too late, for ever. */
#define FL_RELEASE_PERIOD_NS 12000000

/* Callbacks of one iteration between two looks at signals and the GIL. */
#define FL_BREATHE_EVERY 256

/* asyncio rounds a deadline by the resolution of its clock. */
#define FL_CLOCK_RESOLUTION 1e-9

/* Longest sleep in one poll, as asyncio's MAXIMUM_SELECT_TIMEOUT. */
#define FL_MAX_POLL_SECONDS (24.0 * 3600)

/* Life: loop.c. */
int fl_loop_open(LoopObject *loop, fl_state *state) FL_RAISES;
void fl_loop_release(LoopObject *loop);
int fl_loop_traverse(LoopObject *loop, visitproc visit, void *arg);
int fl_loop_check_closed(LoopObject *loop) FL_RAISES;
int fl_loop_check_thread(LoopObject *loop) FL_RAISES;
int fl_loop_check_fork(LoopObject *loop) FL_RAISES;
int fl_loop_ask_debug(LoopObject *loop) FL_RAISES;

/* An argument that must be one of our loops.  Borrowed; NULL: TypeError. */
LoopObject *fl_loop_argument(PyObject *op) FL_RAISES;

/* Whether op is one of our loops.  op may be NULL. */
static inline bool
fl_loop_check(fl_state *state, PyObject *op)
{
    return op != NULL
           && (FL_LIKELY(Py_TYPE(op) == state->final_loop_type)
               || PyObject_TypeCheck(op, state->Loop_type));
}

/* What is overridden, at present: a class may be patched at any time, and its
   version tells. */
static inline unsigned char
fl_loop_overrides(LoopObject *loop)
{
    if (FL_UNLIKELY(Py_TYPE(loop)->tp_version_tag != loop->overrides_tag
                    || loop->overrides_tag == 0))
    {
        loop->state->find_overrides((PyObject *)loop);
    }
    return loop->overrides;
}

/* loop.get_debug(), which a subclass may have replaced. */
static inline int
fl_loop_debug(LoopObject *loop)
{
    if (FL_LIKELY(!(fl_loop_overrides(loop) & FL_OVERRIDES_GET_DEBUG))) {
        return loop->debug;
    }
    return fl_loop_ask_debug(loop);
}

/* Whether C may schedule on this loop without calling its call_soon: it is
   ours, unpatched, and not in debug mode, where everything takes the long
   way so that asyncio's every trace and check is there. */
static inline bool
fl_loop_is_plain(fl_state *state, PyObject *op)
{
    if (FL_LIKELY(fl_loop_check(state, op))) {
        LoopObject *loop = (LoopObject *)op;
        return !loop->debug
               && !(fl_loop_overrides(loop) & FL_OVERRIDES_CALL_SOON);
    }
    return false;
}

/* The loop's clock, honouring an overridden time(). */
int fl_loop_time(LoopObject *loop, double *seconds) FL_RAISES;

/* Something changed that the next poll should know soon. */
static inline void
fl_loop_poll_soon(LoopObject *loop)
{
    loop->patience = 1;
    loop->credit = 0;
}

/* Ends the poll that another thread's loop is in.  In a forked child that
   thread is the parent's, and so is the poller. */
static inline void
fl_loop_wake(LoopObject *loop)
{
    if (FL_UNLIKELY(loop->polling) && !loop->wake_sent
        && loop->forks == loop->state->forks)
    {
        loop->wake_sent = true;
        fl_poller_wake(&loop->poller);
    }
}

/* Appends to the ready queue.  Steals op, on failure too. */
static inline int
fl_loop_push(LoopObject *loop, PyObject *op, fl_ready_kind kind)
{
    if (FL_UNLIKELY(fl_ring_push(&loop->ready, (uintptr_t)op | kind) < 0)) {
        Py_DECREF(op);
        PyErr_NoMemory();
        return -1;
    }
    fl_loop_wake(loop);
    return 0;
}

#endif
