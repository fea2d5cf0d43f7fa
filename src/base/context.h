/* context.h -- contexts (PEP 567) without a copy for each callback.

   asyncio copies the current context for every call_soon.  A copy is a fresh
   object around an immutable map, so two copies that were taken while nothing
   changed are alike until somebody sets a variable in one.  A loop therefore
   hands out one snapshot for all calls made meanwhile, and puts its map back
   if a callback did change it (fl_context_restore).  Half of the cost of a
   burst of call_soon was the copies: benchmarks/ `call_soon_burst`.

   This reads two fields of CPython's context object.  fl_context_probe checks
   at import that they are where we think; otherwise every call copies. */
#ifndef FL_BASE_CONTEXT_H
#define FL_BASE_CONTEXT_H

#include "base/state.h"

/* The head of CPython's struct _pycontextobject, 3.11 to 3.15. */
typedef struct {
    PyObject_HEAD
    PyObject *previous;
    PyObject *vars;
    PyObject *weakrefs;
    int entered;
} fl_context;

typedef struct {
    PyObject *context;  /* owned; NULL: none yet */
    PyObject *vars;     /* owned; its map when it was taken */
} fl_snapshot;

/* Whether somebody asked to be told of context switches (3.14 on). */
static inline bool
fl_contexts_are_watched(fl_state *state, PyThreadState *ts)
{
#if FL_PY314
    return *((const uint8_t *)ts->interp + state->context_watchers_offset)
           != 0;
#else
    (void)state;
    (void)ts;
    return false;
#endif
}

/* A callback that runs in a shared context right now, and the map that the
   context had before.  On the C stack of whoever runs it. */
typedef struct fl_shared_run {
    PyObject *context;
    PyObject *vars;
    struct fl_shared_run *outer;
} fl_shared_run;

/* A context of one's own, equal to what the shared one was when it was handed
   out: what a callback that runs in it has set meanwhile is left out. */
PyObject *fl_context_copy_shared(const fl_shared_run *runs, PyObject *context)
    FL_RAISES;

/* Sets state->context_ok. */
int fl_context_probe(fl_state *state) FL_RAISES;

PyObject *fl_snapshot_renew(fl_snapshot *snapshot);
void fl_snapshot_clear(fl_snapshot *snapshot);

/* What copy_context() would return, perhaps shared with other callers.  New
   reference.  The one who enters it calls fl_context_restore afterwards. */
static inline PyObject *
fl_snapshot_take(fl_state *state, fl_snapshot *snapshot)
{
    if (FL_UNLIKELY(!state->context_ok)) {
        return PyContext_CopyCurrent();
    }
    fl_context *current = (fl_context *)PyThreadState_Get()->context;
    if (FL_LIKELY(current != NULL && snapshot->context != NULL
                  && current->vars == snapshot->vars))
    {
        return Py_NewRef(snapshot->context);
    }
    return fl_snapshot_renew(snapshot);
}

/* PyContext_Enter and PyContext_Exit, written out: every step and callback
   goes through both, and a call costs as much as the rest of the entry
   (benchmarks/ `sleep0_100tasks`).  Anything unusual is left to CPython.  ts is
   the calling thread's state: asking for it four times a step costs too. */
static inline int
fl_context_enter(fl_state *state, PyThreadState *ts, PyObject *context)
{
    fl_context *ctx = (fl_context *)context;
    if (FL_UNLIKELY(!state->context_ok || !PyContext_CheckExact(context)
                    || ctx->entered || fl_contexts_are_watched(state, ts)))
    {
        return PyContext_Enter(context);
    }
    ctx->previous = ts->context;  // its reference moves here
    ctx->entered = 1;
    ts->context = Py_NewRef(context);
    ts->context_ver++;
    return 0;
}

static inline int
fl_context_exit(fl_state *state, PyThreadState *ts, PyObject *context)
{
    fl_context *ctx = (fl_context *)context;
    if (FL_UNLIKELY(!state->context_ok || !ctx->entered
                    || ts->context != context
                    || fl_contexts_are_watched(state, ts)))
    {
        return PyContext_Exit(context);
    }
    ts->context = ctx->previous;  // its reference moves back
    ts->context_ver++;
    ctx->previous = NULL;
    ctx->entered = 0;
    Py_DECREF(context);
    return 0;
}

/* Undoes in a shared context what a callback set there. */
static inline void
fl_context_restore(PyObject *context, PyObject *vars)
{
    fl_context *ctx = (fl_context *)context;
    if (FL_UNLIKELY(ctx->vars != vars)) {
        PyObject *changed = ctx->vars;
        ctx->vars = Py_NewRef(vars);
        Py_DECREF(changed);  /* Runs Python: values may die. */
    }
}

#endif
