/* schedule.c -- putting callbacks on the ready queue. */
#include "loop/schedule.h"

HandleObject *
fl_call_soon(LoopObject *loop, PyObject *callback, PyObject *const *args,
             Py_ssize_t nargs, PyObject *context, bool thread_safe)
{
    HandleObject *handle =
        fl_handle_new(loop, callback, args, nargs, context, thread_safe);
    if (handle == NULL) {
        return NULL;
    }
    if (fl_loop_push(loop, Py_NewRef(handle), FL_READY_HANDLE) < 0) {
        Py_DECREF(handle);
        return NULL;
    }
    return handle;
}

int
fl_call_soon_any(fl_state *state, PyObject *loop, PyObject *callback,
                 PyObject *arg, PyObject *context)
{
    PyObject *stack[4] = {loop, callback};
    size_t nargs = 2;
    if (arg != NULL) {
        stack[nargs++] = arg;
    }
    PyObject *names = NULL;
    if (context != NULL) {
        stack[nargs] = context;
        names = state->kw_context;
    }
    PyObject *handle =
        PyObject_VectorcallMethod(state->str_call_soon, stack, nargs, names);
    Py_XDECREF(handle);
    return handle == NULL ? -1 : 0;
}
