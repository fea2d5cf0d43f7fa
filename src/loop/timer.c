/* timer.c -- timers between the loop's heap and its ready queue. */
#include "loop/timer.h"

void
fl_handle_let_go(HandleObject *handle)
{
    if (Py_REFCNT(handle) > 1 && !PyObject_GC_IsTracked((PyObject *)handle)) {
        PyObject_GC_Track(handle);
    }
    Py_DECREF(handle);
}

TimerObject *
fl_timer_schedule(LoopObject *loop, double when, PyObject *when_object,
                  PyObject *callback, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *context)
{
    TimerObject *timer = fl_timer_new(loop, when, when_object, callback, args,
                                      nargs, context);
    if (timer == NULL) {
        return NULL;
    }
    /* asyncio's heap takes a NaN for due, and so it stays. */
    double key = when == when ? when : -Py_HUGE_VAL;
    if (fl_heap_push(&loop->timers, key, timer, &timer->heap_index) < 0) {
        Py_DECREF(timer);
        PyErr_NoMemory();
        return NULL;
    }
    Py_INCREF(timer);  // owned by the heap
    /* Whoever sets a timer nearly always keeps it, to cancel it. */
    PyObject_GC_Track(timer);
    fl_loop_wake(loop);
    return timer;
}

void
fl_timer_unschedule(fl_state *state, TimerObject *timer)
{
    ptrdiff_t i = timer->heap_index;
    PyObject *op = timer->handle.loop;
    if (i < 0 || !fl_loop_check(state, op)) {
        return;
    }
    fl_heap *heap = &((LoopObject *)op)->timers;
    /* The handle's _loop can be assigned to: trust the heap, not the note. */
    if ((size_t)i < heap->count && heap->nodes[i].item == timer) {
        fl_heap_remove(heap, i);
        fl_handle_let_go(&timer->handle);
    }
}

int
fl_timers_fire(LoopObject *loop, double now)
{
    /* As in asyncio, a clock tick counts as "now". */
    double end = now + FL_CLOCK_RESOLUTION;
    if (FL_UNLIKELY(end == now)) {
        end = nextafter(now, Py_HUGE_VAL);
    }
    for (;;) {
        fl_heap_node *first = fl_heap_first(&loop->timers);
        if (first == NULL || first->when >= end) {
            return 0;
        }
        PyObject *timer = first->item;
        (void)fl_heap_take_top(&loop->timers);
        if (fl_loop_push(loop, timer, FL_READY_HANDLE) < 0) {
            return -1;
        }
    }
}
