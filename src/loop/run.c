/* run.c -- one iteration of the loop, and the loop over iterations.

   asyncio polls in every iteration.  A system call costs more than a callback
   here, so a busy fastloop polls less often the more polls in a row found
   nothing: after 1, 2, 4 ... FL_POLL_CREDIT callbacks or about
   FL_POLL_PERIOD_NS, whichever comes first.  One event, or a change in what
   is watched, and it polls in every iteration again; so a program that lets
   the loop turn a few times sees its descriptors as on asyncio.  Timers need
   no system call and are looked at in every iteration, so that the order of
   callbacks is asyncio's.  What transports were given to write leaves when an
   iteration ends (channel.h). */
#include "loop/run.h"

#include <errno.h>
#include <unistd.h>

#include "loop/channel.h"
#include "loop/handle.h"
#include "loop/report.h"
#include "loop/timer.h"
#include "loop/watcher.h"

/* Signal numbers that CPython wrote for us.  Runs Python. */
static int
run_read_signals(LoopObject *loop)
{
    char numbers[256];
    for (;;) {
        ssize_t n = read(loop->signal_fd, numbers, sizeof(numbers));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return 0;
        }
        PyObject *data = PyBytes_FromStringAndSize(numbers, n);
        if (data == NULL) {
            return -1;
        }
        PyObject *result = PyObject_CallMethodOneArg(
            (PyObject *)loop, loop->state->str__process_self_data, data);
        Py_DECREF(data);
        if (result == NULL) {
            return -1;
        }
        Py_DECREF(result);
    }
}

/* How long to wait, in nanoseconds; -1: until something happens. */
static int
run_timeout(LoopObject *loop, int64_t *timeout)
{
    *timeout = 0;
    if (fl_ring_count(&loop->ready) > 0 || loop->stopping
        || loop->held.count > 0)
    {
        return 0;
    }
    fl_heap_node *first = fl_heap_first(&loop->timers);
    if (first == NULL) {
        *timeout = -1;
        return 0;
    }
    double when = first->when;
    double now;
    if (fl_loop_time(loop, &now) < 0) {
        return -1;
    }
    double wait = when - now;
    if (!(wait <= FL_MAX_POLL_SECONDS)) {  /* NaN too */
        wait = FL_MAX_POLL_SECONDS;
    }
    if (wait > 0) {
        /* Rounded up, so as not to wake a moment before the deadline. */
        *timeout = (int64_t)(wait * 1e9) + 1;
    }
    return 0;
}

/* Signals that interrupt a sleep go through a pipe to us, so that none falls
   between the last look and the sleep.  Set up before the first sleep only:
   a short run() never pays for it.  Runs Python. */
static int
run_arm_signals(LoopObject *loop)
{
    loop->signals_armed = true;
    PyObject *result = PyObject_CallMethodNoArgs(
        (PyObject *)loop, loop->state->str__signal_wakeup_begin);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Polls and queues what became ready.  Runs Python: signal handlers. */
static int
run_poll(LoopObject *loop)
{
    if (fl_loop_check_closed(loop) < 0 || fl_loop_check_fork(loop) < 0) {
        return -1;
    }
    int64_t timeout;
    if (run_timeout(loop, &timeout) < 0) {
        return -1;
    }
    if (timeout != 0 && !loop->signals_armed) {
        if (run_arm_signals(loop) < 0 || run_timeout(loop, &timeout) < 0) {
            return -1;
        }
    }
    if (timeout != 0) {
        fl_state_trim_pools(loop->state);
    }
    fl_event events[FL_POLLER_BATCH];
    bool woken;
    int count;
    int64_t now = fl_clock_ns();
    if (timeout != 0 || now - loop->released_at > FL_RELEASE_PERIOD_NS) {
        loop->polling = timeout != 0;
        Py_BEGIN_ALLOW_THREADS
        count = fl_poller_wait(&loop->poller, timeout, events, &woken);
        Py_END_ALLOW_THREADS
        loop->polling = false;
        loop->released_at = now = fl_clock_ns();
    }
    else {
        count = fl_poller_wait(&loop->poller, 0, events, &woken);
    }
    if (count >= 0 && woken) {
        loop->wake_sent = false;
    }
    loop->polled_at = loop->flushed_at = now;
    if (count > 0) {
        loop->patience = 1;
    }
    else if (timeout == 0 && loop->patience < FL_POLL_CREDIT) {
        loop->patience *= 2;
    }
    loop->credit = loop->patience;
    loop->clock_credit = loop->credit - FL_POLL_CLOCK_EVERY;
    if (PyErr_CheckSignals() < 0) {
        return -1;
    }
    if (count < 0) {
        if (count == -EINTR) {
            return 0;
        }
        fl_raise_errno(count);
        return -1;
    }
    for (int i = 0; i < count && !loop->closed; i++) {
        int rc = events[i].fd == loop->signal_fd
                     ? run_read_signals(loop)
                     : fl_watch_dispatch(loop, &events[i]);
        if (rc < 0) {
            return -1;
        }
    }
    return 0;
}

/* Whether enough was done since the last poll. */
static bool
run_poll_is_due(LoopObject *loop)
{
    if (fl_ring_count(&loop->ready) == 0 || loop->stopping
        || loop->credit <= 0)
    {
        return true;
    }
    if (loop->credit > loop->clock_credit) {
        return false;
    }
    loop->clock_credit = loop->credit - FL_POLL_CLOCK_EVERY;
    return fl_clock_ns() - loop->polled_at > FL_POLL_PERIOD_NS;
}

/* A handle that is not ours: asyncio's protocol of attributes. */
static int
run_foreign(LoopObject *loop, PyObject *handle)
{
    fl_state *state = loop->state;
    PyObject *cancelled = PyObject_GetAttr(handle, state->str__cancelled);
    if (cancelled == NULL) {
        return -1;
    }
    int skip = PyObject_IsTrue(cancelled);
    Py_DECREF(cancelled);
    if (skip != 0) {
        return skip < 0 ? -1 : 0;
    }
    PyObject *result = PyObject_CallMethodNoArgs(handle, state->str__run);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* op is borrowed here. */
static inline int
run_entry(LoopObject *loop, PyObject *op, fl_ready_kind kind)
{
    switch (kind) {
    case FL_READY_STEP:
        return loop->state->run_step(loop->state, (PyObject *)loop, op);
    case FL_READY_HANDLE:
        return fl_handle_run(loop, (HandleObject *)op);
    case FL_READY_CALLBACK:
        return loop->state->run_callback(loop->state, (PyObject *)loop, op);
    case FL_READY_JOB:
        if (loop->state->run_job(loop->state, (PyObject *)loop, op) < 0) {
            return fl_report_step((PyObject *)loop, op);
        }
        return 0;
    case FL_READY_READ:
        return ((fl_channel *)op)->ops->readable(loop, op);
    case FL_READY_WRITE:
        return ((fl_channel *)op)->ops->writable(loop, op);
    default:
        return run_foreign(loop, op);
    }
}

/* As run_entry, with a stop-watch: callbacks that hold the loop up for long
   are named in the log.  In debug mode nearly every entry is a handle; what
   was queued before, and jobs, are not. */
static FL_NOINLINE int
run_entry_debug(LoopObject *loop, PyObject *op, fl_ready_kind kind)
{
    if (kind == FL_READY_HANDLE && ((HandleObject *)op)->cancelled) {
        return 0;
    }
    double start, end;
    if (fl_loop_time(loop, &start) < 0) {
        return -1;
    }
    if (kind == FL_READY_HANDLE || kind == FL_READY_FOREIGN) {
        Py_XSETREF(loop->current_handle, Py_NewRef(op));
    }
    int rc = run_entry(loop, op, kind);
    if (rc == 0) {
        rc = fl_loop_time(loop, &end);
    }
    if (rc == 0 && end - start >= loop->slow_callback_duration) {
        rc = fl_report_slow(op, kind, end - start);
    }
    PyObject *exc = fl_take_raised();
    Py_CLEAR(loop->current_handle);
    if (exc != NULL) {
        fl_put_raised(exc);
    }
    return rc;
}

static inline void
run_let_go(PyObject *op, fl_ready_kind kind)
{
    if (kind == FL_READY_HANDLE && FL_UNLIKELY(Py_REFCNT(op) > 1)) {
        if (!((HandleObject *)op)->repeats) {
            fl_handle_let_go((HandleObject *)op);
            return;
        }
    }
    Py_DECREF(op);
}

/* Amid a long iteration: signals are handled, and other threads get the GIL,
   even if the callbacks are all C.  Runs Python: signal handlers. */
static FL_NOINLINE int
run_breathe(LoopObject *loop)
{
    if (PyErr_CheckSignals() < 0) {
        return -1;
    }
    int64_t now = fl_clock_ns();
    if (now - loop->released_at > FL_RELEASE_PERIOD_NS) {
        Py_BEGIN_ALLOW_THREADS
        Py_END_ALLOW_THREADS
        loop->released_at = fl_clock_ns();
    }
    return 0;
}

/* Sends what was held back; a raised exception stays raised.  Runs Python. */
static int
run_flush(LoopObject *loop)
{
    PyObject *raised = fl_take_raised();
    int rc = fl_flush_held(loop);
    if (raised == NULL) {
        return rc;
    }
    PyErr_Clear();
    fl_put_raised(raised);
    return -1;
}

/* In the middle of a turn: what was held back leaves if the turn takes long.
   Runs Python. */
static int
run_flush_late(LoopObject *loop)
{
    int64_t now = fl_clock_ns();
    if (now - loop->flushed_at <= FL_HOLD_NS) {
        return 0;
    }
    loop->flushed_at = now;
    return fl_flush_held(loop);
}

/* Runs what is queued now, and not what that queues. */
static int
run_ready(LoopObject *loop)
{
    for (size_t n = fl_ring_count(&loop->ready); n > 0; n--) {
        if (FL_UNLIKELY(fl_ring_count(&loop->ready) == 0)) {
            break;  /* a callback got the loop closed, against all rules */
        }
        uintptr_t entry = fl_ring_pop(&loop->ready);
        PyObject *op = (PyObject *)(entry & ~FL_READY_MASK);
        fl_ready_kind kind = (fl_ready_kind)(entry & FL_READY_MASK);
        loop->credit--;
        int rc = FL_UNLIKELY(loop->debug) ? run_entry_debug(loop, op, kind)
                                          : run_entry(loop, op, kind);
        if (FL_UNLIKELY(rc < 0)) {
            PyObject *exc = fl_take_raised();
            run_let_go(op, kind);
            fl_put_raised(exc);
            return -1;
        }
        run_let_go(op, kind);
        if (loop->held.count > 0 && n > 1 && run_flush_late(loop) < 0) {
            return -1;
        }
        if (FL_UNLIKELY(n % FL_BREATHE_EVERY == 0) && run_breathe(loop) < 0) {
            return -1;
        }
    }
    return 0;
}

int
fl_loop_iterate(LoopObject *loop)
{
    bool outer = loop->iterating;
    loop->iterating = true;
    int rc = run_poll_is_due(loop) ? run_poll(loop) : 0;
    if (rc == 0 && loop->timers.count > 0) {
        double now;
        rc = fl_loop_time(loop, &now);
        if (rc == 0) {
            rc = fl_timers_fire(loop, now);
        }
    }
    if (rc == 0) {
        rc = run_ready(loop);
    }
    if (loop->held.count > 0) {
        rc = run_flush(loop);
    }
    loop->iterating = outer;
    return rc;
}

int
fl_loop_run(LoopObject *loop)
{
    do {
        if (fl_loop_iterate(loop) < 0) {
            return -1;
        }
    } while (!loop->stopping);
    return 0;
}
