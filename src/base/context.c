/* context.c -- taking snapshots of the current context, and the probe. */
#include "base/context.h"

#if FL_PY314
#define Py_BUILD_CORE 1
#include "internal/pycore_interp.h"
#undef Py_BUILD_CORE
#define FL_CONTEXT_WATCHERS_OFFSET \
    ((ptrdiff_t)offsetof(PyInterpreterState, active_context_watchers))
#endif

PyObject *
fl_snapshot_renew(fl_snapshot *snapshot)
{
    PyObject *context = PyContext_CopyCurrent();
    if (context == NULL) {
        return NULL;
    }
    PyObject *old_context = snapshot->context;
    PyObject *old_vars = snapshot->vars;
    snapshot->context = Py_NewRef(context);
    snapshot->vars = Py_NewRef(((fl_context *)context)->vars);
    Py_XDECREF(old_context);
    Py_XDECREF(old_vars);
    return context;
}

void
fl_snapshot_clear(fl_snapshot *snapshot)
{
    Py_CLEAR(snapshot->context);
    Py_CLEAR(snapshot->vars);
}

PyObject *
fl_context_copy_shared(const fl_shared_run *runs, PyObject *context)
{
    PyObject *own = PyContext_Copy(context);
    for (; own != NULL && runs != NULL; runs = runs->outer) {
        if (runs->context == context) {
            fl_context_restore(own, runs->vars);
            break;
        }
    }
    return own;
}

/* Looks at a context before and after a change, from outside and inside.
   1: the struct is as we think.  0: it is not.  -1: error. */
static int
context_looks_right(PyObject *context, PyObject *var)
{
    fl_context *ctx = (fl_context *)context;
    if (Py_TYPE(context)->tp_basicsize < (Py_ssize_t)sizeof(fl_context)
        || Py_TYPE(context)->tp_weaklistoffset
               != (Py_ssize_t)offsetof(fl_context, weakrefs)
        || ctx->entered != 0 || ctx->previous != NULL || ctx->vars == NULL)
    {
        return 0;
    }
    PyObject *empty = ctx->vars;
    if (PyContext_Enter(context) < 0) {
        return -1;
    }
    int ok = ctx->entered == 1;
    PyObject *token = PyContextVar_Set(var, Py_None);
    PyObject *copy = token == NULL ? NULL : PyContext_CopyCurrent();
    if (PyContext_Exit(context) < 0 || copy == NULL) {
        Py_XDECREF(token);
        Py_XDECREF(copy);
        return -1;
    }
    ok = ok && ctx->entered == 0 && ctx->vars != empty
         && ((fl_context *)copy)->vars == ctx->vars;
    Py_DECREF(token);
    Py_DECREF(copy);
    return ok;
}

#if FL_PY314
static int
context_watcher(PyContextEvent Py_UNUSED(event), PyObject *Py_UNUSED(context))
{
    return 0;
}

/* Whether the interpreter keeps its watchers where its header says. */
static int
context_find_watchers(fl_state *state)
{
    const uint8_t *active = (const uint8_t *)PyThreadState_Get()->interp
                            + FL_CONTEXT_WATCHERS_OFFSET;
    uint8_t before = *active;
    int id = PyContext_AddWatcher(context_watcher);
    if (id < 0) {
        PyErr_Clear();  /* all taken: then nothing is assumed */
        return 0;
    }
    uint8_t during = *active;
    if (PyContext_ClearWatcher(id) < 0) {
        return -1;
    }
    state->context_watchers_offset = FL_CONTEXT_WATCHERS_OFFSET;
    return during == (uint8_t)(before | (1u << id)) && *active == before;
}
#endif

int
fl_context_probe(fl_state *state)
{
    PyObject *context = PyContext_New();
    PyObject *var = PyContextVar_New("fastloop probe", NULL);
    int ok = -1;
    if (context != NULL && var != NULL) {
        ok = context_looks_right(context, var);
    }
#if FL_PY314
    if (ok > 0) {
        ok = context_find_watchers(state);
    }
#endif
    Py_XDECREF(context);
    Py_XDECREF(var);
    state->context_ok = ok > 0;
    return ok < 0 ? -1 : 0;
}
