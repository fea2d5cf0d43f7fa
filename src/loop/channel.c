/* channel.c -- the list of channels that hold writes back. */
#include "loop/channel.h"

int
fl_hold(LoopObject *loop, PyObject *op)
{
    fl_held *held = &loop->held;
    if (held->count == held->capacity) {
        size_t capacity = held->capacity == 0 ? 16 : held->capacity * 2;
        PyObject **channels =
            PyMem_RawRealloc(held->channels, capacity * sizeof(*channels));
        if (channels == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        held->channels = channels;
        held->capacity = capacity;
    }
    held->channels[held->count++] = Py_NewRef(op);
    return 0;
}

/* What they send may make others hold something: those are last. */
int
fl_flush_held(LoopObject *loop)
{
    int rc = 0;
    fl_held *held = &loop->held;
    fl_held now = *held;
    *held = (fl_held){NULL, 0, 0};
    for (size_t i = 0; i < now.count; i++) {
        PyObject *op = now.channels[i];
        /* What one raises, KeyboardInterrupt as a rule, does not keep the
           others from being sent. */
        PyObject *raised = fl_take_raised();
        if (((fl_channel *)op)->ops->flush(loop, op) < 0) {
            rc = -1;
        }
        Py_DECREF(op);
        if (raised != NULL) {
            PyErr_Clear();
            fl_put_raised(raised);
        }
    }
    if (held->channels == NULL) {
        now.count = 0;
        *held = now;
    }
    else {
        PyMem_RawFree(now.channels);
    }
    return rc;
}

void
fl_held_clear(LoopObject *loop)
{
    fl_held now = loop->held;
    loop->held = (fl_held){NULL, 0, 0};
    for (size_t i = 0; i < now.count; i++) {
        Py_DECREF(now.channels[i]);
    }
    PyMem_RawFree(now.channels);
}
