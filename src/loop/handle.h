/* handle.h -- Handle: a callback, its arguments and the context to run it in.

   A real subclass of asyncio.Handle that uses the slots of that class for its
   own fields, so that asyncio's Python methods (repr and others) work on it.
   Up to three arguments lie in the struct; `args` holds a tuple only if there
   are more or somebody asked for it.

   A handle is not tracked by the cyclic collector while only the loop holds
   it, which is nearly always until its end; the loop visits what it refers
   to.  One that is kept by others after it ran becomes tracked then. */
#ifndef FL_LOOP_HANDLE_H
#define FL_LOOP_HANDLE_H

#include "loop/loop.h"

#define FL_HANDLE_INLINE 3

typedef struct {
    PyObject_HEAD
    /* The slots of asyncio.events.Handle.  Checked at import. */
    PyObject *args;              /* a tuple, or NULL: inline */
    PyObject *callback;
    PyObject *cancelled_slot;    /* unused: a flag below */
    PyObject *context;
    PyObject *loop;
    PyObject *repr;              /* NULL: None */
    PyObject *source_traceback;  /* NULL: None */
#if !FL_PY312
    PyObject *weakrefs;
#endif
    /* _ThreadSafeHandle: _lock.  TimerHandle: _scheduled (unused), _when. */
    PyObject *extra[2];

    /* Room for the callee before the arguments, so that a bound method is
       called without copying them (PY_VECTORCALL_ARGUMENTS_OFFSET). */
    PyObject *callee;
    PyObject *inline_args[FL_HANDLE_INLINE];
    unsigned char nargs;         /* of the inline ones */
    bool cancelled;
    bool hidden;                 /* cancelled, and the callback looks gone */
    bool running;
    bool shared_context;         /* from the loop's snapshot */
    bool repeats;                /* a watcher's: runs many times */
} HandleObject;

typedef struct {
    HandleObject handle;
    double when;
    ptrdiff_t heap_index;        /* FL_HEAP_OUTSIDE when not scheduled */
} TimerObject;

int fl_handle_setup(PyObject *module, fl_state *state) FL_RAISES;

/* A new handle of Handle or (thread_safe) _ThreadSafeHandle.  context is
   borrowed; NULL or None: the current one. */
HandleObject *fl_handle_new(LoopObject *loop, PyObject *callback,
                            PyObject *const *args, Py_ssize_t nargs,
                            PyObject *context, bool thread_safe) FL_RAISES;

/* A new TimerHandle, not yet scheduled. */
TimerObject *fl_timer_new(LoopObject *loop, double when, PyObject *when_object,
                          PyObject *callback, PyObject *const *args,
                          Py_ssize_t nargs, PyObject *context) FL_RAISES;

/* Runs the callback unless it was cancelled.  An exception goes to the
   loop's exception handler; -1 only for those that end the loop.
   Runs Python: anything. */
int fl_handle_run(LoopObject *loop, HandleObject *handle) FL_RAISES;

/* Cancels; the callback and its arguments are let go.  Runs Python. */
int fl_handle_cancel(HandleObject *handle) FL_RAISES;

/* Lets the callback and its arguments go.  Runs Python: they may die. */
void fl_handle_clear_call(HandleObject *handle);

/* Gives the handle a context of its own, before others see or change it. */
int fl_handle_unshare_context(HandleObject *handle) FL_RAISES;

/* For the loop's own traverse: visits an untracked handle's references. */
int fl_handle_visit(HandleObject *handle, visitproc visit, void *arg);

bool fl_handle_check(fl_state *state, PyObject *op);

#endif
