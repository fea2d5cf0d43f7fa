/* loop.c -- a loop's birth and death, and the checks at its door. */
#include "loop/loop.h"

#include "loop/channel.h"
#include "loop/handle.h"
#include "loop/timer.h"
#include "loop/watcher.h"

int
fl_loop_open(LoopObject *loop, fl_state *state)
{
    loop->state = state;
    loop->poller.epoll_fd = loop->poller.wake_fd = -1;
    loop->signal_fd = -1;
    loop->forks = state->forks;
    loop->slow_callback_duration = 0.1;
    loop->patience = 1;
    int rc = fl_poller_open(&loop->poller);
    if (rc < 0) {
        loop->closed = true;
        fl_raise_errno(rc);
        return -1;
    }
    return 0;
}

/* The object of a ready entry. */
static PyObject *
loop_entry_object(uintptr_t entry)
{
    return (PyObject *)(entry & ~FL_READY_MASK);
}

/* Drops the loop's reference to an entry; a handle that others keep comes
   under the collector's eyes. */
static void
loop_let_go(LoopObject *loop, PyObject *op, fl_ready_kind kind)
{
    if (kind == FL_READY_CALLBACK) {
        loop->state->forget_callback(op);
    }
    if (fl_handle_check(loop->state, op)) {
        fl_handle_let_go((HandleObject *)op);
    }
    else {
        Py_DECREF(op);
    }
}

/* Everything that is queued, watched or waited for is dropped, and the
   descriptors are closed.  Runs Python: the death of callbacks. */
void
fl_loop_release(LoopObject *loop)
{
    fl_poller_close(&loop->poller);
    while (fl_ring_count(&loop->ready) > 0) {
        uintptr_t entry = fl_ring_pop(&loop->ready);
        loop_let_go(loop, loop_entry_object(entry),
                    (fl_ready_kind)(entry & FL_READY_MASK));
    }
    for (;;) {
        fl_heap_node *first = fl_heap_first(&loop->timers);
        if (first == NULL) {
            break;
        }
        PyObject *timer = first->item;
        (void)fl_heap_take_top(&loop->timers);
        loop_let_go(loop, timer, FL_READY_HANDLE);
    }
    fl_held_clear(loop);
    fl_watches_clear(loop);
    fl_snapshot_clear(&loop->snapshot);
    if (!loop->iterating) {
        fl_ring_fini(&loop->ready);
        fl_heap_fini(&loop->timers);
    }
}

/* An untracked handle that only the loop holds is a part of the loop: what it
   refers to is visited through it. */
static int
loop_visit_handle(LoopObject *loop, PyObject *op, visitproc visit, void *arg)
{
    if (fl_handle_check(loop->state, op) && !PyObject_GC_IsTracked(op)
        && Py_REFCNT(op) == 1)
    {
        return fl_handle_visit((HandleObject *)op, visit, arg);
    }
    Py_VISIT(op);
    return 0;
}

int
fl_loop_traverse(LoopObject *loop, visitproc visit, void *arg)
{
    if (loop->state == NULL) {
        return 0;
    }
    for (size_t i = 0; i < fl_ring_count(&loop->ready); i++) {
        int rc = loop_visit_handle(
            loop, loop_entry_object(fl_ring_peek(&loop->ready, i)), visit,
            arg);
        if (rc != 0) {
            return rc;
        }
    }
    for (size_t i = 0; i < loop->timers.count; i++) {
        if (loop->timers.nodes[i].item != NULL) {
            int rc = loop_visit_handle(loop, loop->timers.nodes[i].item,
                                       visit, arg);
            if (rc != 0) {
                return rc;
            }
        }
    }
    for (size_t i = 0; i < loop->watch_count; i++) {
        Py_VISIT(loop->watches[i].reader);
        Py_VISIT(loop->watches[i].writer);
    }
    for (size_t i = 0; i < loop->held.count; i++) {
        Py_VISIT(loop->held.channels[i]);
    }
    Py_VISIT(loop->snapshot.context);
    Py_VISIT(loop->snapshot.vars);
    return 0;
}

LoopObject *
fl_loop_argument(PyObject *op)
{
    fl_state *state = fl_state_of(op);
    if (state != NULL && PyObject_TypeCheck(op, state->Loop_type)) {
        return (LoopObject *)op;
    }
    PyErr_Format(PyExc_TypeError, "a fastloop.Loop expected, not %.100s",
                 Py_TYPE(op)->tp_name);
    return NULL;
}

int
fl_loop_check_closed(LoopObject *loop)
{
    if (FL_UNLIKELY(loop->closed)) {
        PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
        return -1;
    }
    return 0;
}

int
fl_loop_check_thread(LoopObject *loop)
{
    if (loop->thread_id != 0
        && loop->thread_id != PyThread_get_thread_ident())
    {
        PyErr_SetString(PyExc_RuntimeError,
                        "Non-thread-safe operation invoked on an event loop "
                        "other than the current one");
        return -1;
    }
    return 0;
}

int
fl_loop_check_fork(LoopObject *loop)
{
    if (FL_UNLIKELY(loop->forks != loop->state->forks)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "this event loop belongs to the parent of a forked "
                        "process; make a new one in the child, with "
                        "asyncio.run() or asyncio.new_event_loop()");
        return -1;
    }
    return 0;
}

int
fl_loop_ask_debug(LoopObject *loop)
{
    /* Runs Python. */
    PyObject *debug = PyObject_CallMethodNoArgs((PyObject *)loop,
                                                loop->state->str_get_debug);
    int rc = debug == NULL ? -1 : PyObject_IsTrue(debug);
    Py_XDECREF(debug);
    return rc;
}

int
fl_loop_time(LoopObject *loop, double *seconds)
{
    if (FL_LIKELY(!(fl_loop_overrides(loop) & FL_OVERRIDES_TIME))) {
        *seconds = fl_clock_seconds();
        return 0;
    }
    /* Runs Python. */
    PyObject *now =
        PyObject_CallMethodNoArgs((PyObject *)loop, loop->state->str_time);
    if (now == NULL) {
        return -1;
    }
    *seconds = PyFloat_AsDouble(now);
    Py_DECREF(now);
    return *seconds == -1.0 && PyErr_Occurred() ? -1 : 0;
}
