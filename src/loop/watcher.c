/* watcher.c -- add_reader, add_writer and what the poller reports. */
#include "loop/watcher.h"

#include <errno.h>

void
fl_raise_errno(int negative_errno)
{
    errno = -negative_errno;
    PyErr_SetFromErrno(PyExc_OSError);
}

int
fl_exc_errno(PyObject *exc)
{
    PyObject *number = PyObject_GetAttrString(exc, "errno");
    long value = number == NULL || !PyLong_Check(number)
                     ? 0
                     : PyLong_AsLong(number);
    PyErr_Clear();
    Py_XDECREF(number);
    return (int)value;
}

/* The slot of fd, or NULL when nobody ever watched it. */
static fl_watch *
watch_find(LoopObject *loop, int fd)
{
    return fd >= 0 && (size_t)fd < loop->watch_count ? &loop->watches[fd]
                                                     : NULL;
}

static fl_watch *
watch_make(LoopObject *loop, int fd)
{
    size_t needed = (size_t)fd + 1;
    if (needed > loop->watch_count) {
        size_t count = loop->watch_count == 0 ? 32 : loop->watch_count;
        while (count < needed) {
            count *= 2;
        }
        fl_watch *watches = realloc(loop->watches, count * sizeof(*watches));
        if (watches == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        for (size_t i = loop->watch_count; i < count; i++) {
            watches[i] = (fl_watch){NULL, NULL, NULL, 0, 0, 0};
        }
        loop->watches = watches;
        loop->watch_count = count;
    }
    return &loop->watches[fd];
}

static PyObject **
watch_side(fl_watch *watch, uint32_t what)
{
    return what == FL_POLL_READ ? &watch->reader : &watch->writer;
}

/* The loop lets go of what it watched with.  Runs Python. */
static int
watch_drop(LoopObject *loop, PyObject *handle, bool channel)
{
    int rc = 0;
    if (channel) {
        /* A channel knows by itself whether it still waits. */
    }
    else if (fl_handle_check(loop->state, handle)) {
        ((HandleObject *)handle)->repeats = false;
        rc = fl_handle_cancel((HandleObject *)handle);
    }
    else {
        PyObject *result =
            PyObject_CallMethodNoArgs(handle, loop->state->str_cancel);
        rc = result == NULL ? -1 : 0;
        Py_XDECREF(result);
    }
    Py_DECREF(handle);
    return rc;
}

/* What the poller has to be told: the sides that somebody waits on, and
   whether that is all for edges. */
static uint32_t
watch_wanted(const fl_watch *watch)
{
    uint32_t wanted = (watch->reader != NULL ? FL_POLL_READ : 0)
                      | (watch->writer != NULL ? FL_POLL_WRITE : 0);
    return wanted != 0 && (wanted & ~(uint32_t)watch->edges) == 0
               ? wanted | FL_POLL_EDGE
               : wanted;
}

/* what becomes op's business; the flags tell what kind of object that is. */
static int
watch_set(LoopObject *loop, int fd, uint32_t what, PyObject *op, bool channel,
          bool edge)
{
    fl_watch *watch = watch_find(loop, fd);
    fl_watch before =
        watch == NULL ? (fl_watch){NULL, NULL, NULL, 0, 0, 0} : *watch;
    fl_watch after = before;
    *watch_side(&after, what) = op;
    after.channels &= (uint8_t)~what;
    after.channels |= (uint8_t)(channel ? what : 0);
    after.edges &= (uint8_t)~what;
    after.edges |= (uint8_t)(edge ? what : 0);
    uint32_t wanted = watch_wanted(&after);
    /* Told even when nothing seems to change: the descriptor may have been
       closed and opened again since, and the kernel's memory went with it. */
    int rc = fl_poller_set(&loop->poller, fd, before.armed, wanted);
    if (rc < 0) {
        fl_raise_errno(rc);
        return -1;
    }
    watch = watch_make(loop, fd);
    if (watch == NULL) {
        (void)fl_poller_set(&loop->poller, fd, wanted, before.armed);
        return -1;
    }
    fl_loop_poll_soon(loop);
    after.armed = (uint16_t)(wanted & ~FL_POLL_EDGE);
    *watch = after;
    Py_INCREF(op);
    PyObject *old = *watch_side(&before, what);
    return old == NULL ? 0 : watch_drop(loop, old, before.channels & what);
}

int
fl_watch_set(LoopObject *loop, int fd, uint32_t what, PyObject *handle)
{
    return watch_set(loop, fd, what, handle, false, false);
}

int
fl_watch_set_channel(LoopObject *loop, int fd, uint32_t what, PyObject *channel)
{
    return watch_set(loop, fd, what, channel, true, false);
}

int
fl_watch_set_once(LoopObject *loop, int fd, uint32_t what, PyObject *channel)
{
    return watch_set(loop, fd, what, channel, true, true);
}

int
fl_watch_remove(LoopObject *loop, int fd, uint32_t what)
{
    fl_watch *watch = watch_find(loop, fd);
    PyObject **side = watch == NULL ? NULL : watch_side(watch, what);
    if (side == NULL || *side == NULL) {
        return 0;
    }
    PyObject *old = *side;
    bool channel = watch->channels & what;
    *side = NULL;
    watch->channels &= (uint8_t)~what;
    watch->edges &= (uint8_t)~what;
    fl_loop_poll_soon(loop);
    uint32_t left = watch_wanted(watch);
    int rc = fl_poller_set(&loop->poller, fd, watch->armed, left);
    watch->armed = (uint16_t)(left & ~FL_POLL_EDGE);
    if (rc == -EBADF || rc == -ENOENT) {
        /* Closed before it was removed: nothing is left to remove. */
        rc = 0;
    }
    if (watch_drop(loop, old, channel) < 0) {
        return -1;
    }
    if (rc < 0) {
        fl_raise_errno(rc);
        return -1;
    }
    return 1;
}

/* Queues one side's reader or writer, or removes a handle that was
   cancelled. */
static int
watch_queue(LoopObject *loop, int fd, uint32_t what, PyObject *handle,
            bool channel)
{
    fl_watch *watch = watch_find(loop, fd);
    if (watch->edges & what) {
        /* It waited once; the poller keeps watching. */
        *watch_side(watch, what) = NULL;
        watch->channels &= (uint8_t)~what;
        watch->edges &= (uint8_t)~what;
        return fl_loop_push(loop, handle,
                            what == FL_POLL_READ ? FL_READY_READ
                                                 : FL_READY_WRITE);
    }
    if (channel) {
        return fl_loop_push(loop, Py_NewRef(handle),
                            what == FL_POLL_READ ? FL_READY_READ
                                                 : FL_READY_WRITE);
    }
    if (fl_handle_check(loop->state, handle)) {
        if (((HandleObject *)handle)->cancelled) {
            return fl_watch_remove(loop, fd, what) < 0 ? -1 : 0;
        }
        return fl_loop_push(loop, Py_NewRef(handle), FL_READY_HANDLE);
    }
    return fl_loop_push(loop, Py_NewRef(handle), FL_READY_FOREIGN);
}

int
fl_watch_dispatch(LoopObject *loop, const fl_event *event)
{
    fl_watch *watch = watch_find(loop, event->fd);
    if (watch == NULL || watch->armed == 0) {
        /* Removed since the kernel noticed; make sure that it knows. */
        (void)fl_poller_set(&loop->poller, event->fd, FL_POLL_READ, 0);
        return 0;
    }
    uint32_t ready = event->ready & watch->armed;
    if ((ready & FL_POLL_READ) && watch->reader != NULL
        && watch_queue(loop, event->fd, FL_POLL_READ, watch->reader,
                       watch->channels & FL_POLL_READ)
               < 0)
    {
        return -1;
    }
    /* Runs Python above: look again. */
    watch = watch_find(loop, event->fd);
    if (watch != NULL && (ready & FL_POLL_WRITE) && watch->writer != NULL
        && watch_queue(loop, event->fd, FL_POLL_WRITE, watch->writer,
                       watch->channels & FL_POLL_WRITE)
               < 0)
    {
        return -1;
    }
    return 0;
}

bool
fl_watch_has(LoopObject *loop, int fd, uint32_t what, PyObject *channel)
{
    fl_watch *watch = watch_find(loop, fd);
    return watch != NULL && *watch_side(watch, what) == channel;
}

uint32_t
fl_watch_waited_for(LoopObject *loop, int fd)
{
    fl_watch *watch = watch_find(loop, fd);
    return watch == NULL ? 0 : watch_wanted(watch) & ~FL_POLL_EDGE;
}

PyObject *
fl_watch_owner(LoopObject *loop, int fd)
{
    fl_watch *watch = watch_find(loop, fd);
    return watch == NULL ? NULL : watch->owner;
}

int
fl_watch_own(LoopObject *loop, int fd, PyObject *owner)
{
    fl_watch *watch = watch_make(loop, fd);
    if (watch == NULL) {
        return -1;
    }
    watch->owner = owner;
    return 0;
}

void
fl_watch_disown(LoopObject *loop, int fd, PyObject *owner)
{
    fl_watch *watch = watch_find(loop, fd);
    if (watch != NULL && watch->owner == owner) {
        watch->owner = NULL;
    }
}

void
fl_watches_clear(LoopObject *loop)
{
    fl_watch *watches = loop->watches;
    size_t count = loop->watch_count;
    loop->watches = NULL;
    loop->watch_count = 0;
    for (size_t i = 0; i < count; i++) {
        Py_XDECREF(watches[i].reader);
        Py_XDECREF(watches[i].writer);
    }
    free(watches);
}
