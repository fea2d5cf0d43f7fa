/* layout.h -- how _asyncio lays its Future and Task out, by CPython version.

   The only place that knows.  fastloop's types are subclasses of asyncio's
   and keep their state in asyncio's own fields, so that everything that
   reads those (asyncio's C code, `python -m asyncio ps`) finds it there; and
   one step function drives both.  fl_layout_probe compares the running
   interpreter with these structs at import; if anything differs, fastloop
   leaves Future and Task to asyncio (state->layout_ok is false). */
#ifndef FL_TASK_LAYOUT_H
#define FL_TASK_LAYOUT_H

#include "base/state.h"

typedef enum {
    FL_PENDING = 0,
    FL_CANCELLED = 1,
    FL_FINISHED = 2,
} fl_future_state;

typedef struct {
    PyObject_HEAD
    PyObject *loop;       /* NULL: __init__ never ran */
    /* The first callback and its context.  fastloop adds two cases, in its own
       types only: a task in callback0 with NULL in context0 is waiting for
       this future; and a callback that is still here when the future is done
       is on the ready queue, as the future itself (FL_READY_CALLBACK). */
    PyObject *callback0;
    PyObject *context0;
    PyObject *callbacks;  /* a list of (callback, context), or NULL */
    PyObject *exception;
    PyObject *exception_tb;
    PyObject *result;
    PyObject *source_tb;
    PyObject *cancel_msg;
#if FL_PY313
    PyObject *cancelled_exc;
#if FL_PY314
    PyObject *awaited_by;  /* a task, or a set of them */
#endif
    int state;
#if FL_PY314
    char is_task;
    char awaited_by_is_set;
#endif
    unsigned log_tb : 1;
    unsigned blocking : 1;
    /* Of a Task, but packed in here. */
    unsigned must_cancel : 1;
    unsigned log_destroy_pending : 1;
    /* fastloop's own, in bits (before 3.13, padding) that asyncio leaves
       alone: context0 is the loop's shared snapshot. */
    unsigned shared_context0 : 1;
#else
    int state;
    int log_tb;
    int blocking;
    unsigned shared_context0;
    PyObject *dict;
    PyObject *weakrefs;
    PyObject *cancelled_exc;
#endif
} FutureObject;

typedef struct fl_task_link {
    struct fl_task_link *next;
    struct fl_task_link *prev;
} fl_task_link;

typedef struct {
    FutureObject future;
#if FL_PY313
    int cancel_requests;
    PyObject *fut_waiter;
    PyObject *coro;
    PyObject *name;
    PyObject *context;
#if FL_PY314
    fl_task_link link;     /* in the thread's list of all tasks */
#endif
#else
    PyObject *fut_waiter;
    PyObject *coro;
    PyObject *name;
    PyObject *context;
    int must_cancel;
    int log_destroy_pending;
    int cancel_requests;
#endif
} TaskObject;

#if FL_PY313
#define FL_TASK_MUST_CANCEL(task)         ((task)->future.must_cancel)
#define FL_TASK_LOG_DESTROY_PENDING(task) ((task)->future.log_destroy_pending)
#else
#define FL_TASK_MUST_CANCEL(task)         ((task)->must_cancel)
#define FL_TASK_LOG_DESTROY_PENDING(task) ((task)->log_destroy_pending)
#endif

/* asyncio's own scheduled step, TaskStepMethWrapper. */
typedef struct {
    PyObject_HEAD
    PyObject *task;
    PyObject *arg;
} fl_stock_step;

/* Whether op is exactly a Future or Task, of ours or of asyncio's. */
static inline bool
fl_is_exact_future(fl_state *state, PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    return type == state->Future_type || type == state->Task_type
           || type == (PyTypeObject *)state->AsyncioFuture
           || type == (PyTypeObject *)state->AsyncioTask;
}

/* Whether op is exactly one of ours, whose callbacks C alone touches. */
static inline bool
fl_is_own_future(fl_state *state, PyObject *op)
{
    return Py_TYPE(op) == state->Future_type
           || Py_TYPE(op) == state->Task_type;
}

/* Sets layout_ok, stock_step_type, stock_wakeup and running_task_offset. */
int fl_layout_probe(fl_state *state) FL_RAISES;

#endif
