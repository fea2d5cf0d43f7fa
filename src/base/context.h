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
