/* report.c -- calling the loop's exception handler as asyncio.Handle does. */
#include "loop/report.h"

/* asyncio.format_helpers._format_callback_source(callback, args), which takes
   debug= on newer patch releases only. */
static PyObject *
report_format(fl_state *state, PyObject *callback, PyObject *args, bool debug)
{
    PyObject *stack[3] = {callback, args, Py_True};
    if (debug) {
        PyObject *names = Py_BuildValue("(s)", "debug");
        if (names == NULL) {
            return NULL;
        }
        PyObject *text = PyObject_Vectorcall(state->format_callback_source,
                                             stack, 2, names);
        Py_DECREF(names);
        if (text != NULL || !PyErr_ExceptionMatches(PyExc_TypeError)) {
            return text;
        }
        PyErr_Clear();
    }
    return PyObject_Vectorcall(state->format_callback_source, stack, 2, NULL);
}

static int
report_call_handler(fl_state *state, PyObject *loop, PyObject *message,
                    PyObject *exc, PyObject *handle, PyObject *traceback)
{
    PyObject *context = PyDict_New();
    if (context == NULL
        || PyDict_SetItem(context, state->str_message, message) < 0
        || PyDict_SetItem(context, state->str_exception, exc) < 0
        || (handle != NULL
            && PyDict_SetItem(context, state->str_handle, handle) < 0)
        || (traceback != NULL
            && PyDict_SetItem(context, state->str_source_traceback, traceback)
                   < 0))
    {
        Py_XDECREF(context);
        return -1;
    }
    PyObject *result = PyObject_CallMethodOneArg(
        loop, state->str_call_exception_handler, context);
    Py_DECREF(context);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

bool
fl_report_must_leave(void)
{
    return PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)
           || PyErr_ExceptionMatches(PyExc_SystemExit);
}

/* callback and args describe the failed call; handle may be NULL. */
static int
report_failure(fl_state *state, PyObject *loop, PyObject *callback,
               PyObject *args, PyObject *handle, PyObject *traceback,
               bool debug)
{
    if (fl_report_must_leave()) {
        return -1;
    }
    PyObject *exc = fl_take_raised();
    int rc = -1;
    PyObject *source = report_format(state, callback, args, debug);
    if (source != NULL) {
        PyObject *message =
            PyUnicode_FromFormat("Exception in callback %U", source);
        Py_DECREF(source);
        if (message != NULL) {
            rc = report_call_handler(state, loop, message, exc, handle,
                                     traceback);
            Py_DECREF(message);
        }
    }
    Py_DECREF(exc);
    return rc;
}

int
fl_report_callback(PyObject *loop, HandleObject *handle)
{
    fl_state *state = fl_state_of((PyObject *)handle);
    PyObject *callback = Py_None;
    PyObject *args = Py_NewRef(Py_None);
    if (!handle->cancelled && handle->callback != NULL) {
        callback = handle->callback;
        PyObject *exc = fl_take_raised();
        PyObject *tuple =
            PyObject_GetAttrString((PyObject *)handle, "_args");
        if (tuple == NULL) {
            PyErr_Clear();
        }
        else {
            Py_SETREF(args, tuple);
        }
        fl_put_raised(exc);
    }
    Py_INCREF(callback);
    PyObject *traceback = Py_XNewRef(handle->source_traceback);
    bool debug = PyObject_TypeCheck(loop, state->Loop_type)
                 && ((LoopObject *)loop)->debug;
    int rc = report_failure(state, loop, callback, args, (PyObject *)handle,
                            traceback, debug);
    Py_XDECREF(traceback);
    Py_DECREF(callback);
    Py_DECREF(args);
    return rc;
}

int
fl_report_step(PyObject *loop, PyObject *callable)
{
    fl_state *state = fl_state_of(callable);
    PyObject *exc = fl_take_raised();
    PyObject *args = PyTuple_New(0);
    if (args == NULL) {
        Py_DECREF(exc);
        return -1;
    }
    fl_put_raised(exc);
    int rc = report_failure(state, loop, callable, args, NULL, NULL, false);
    Py_DECREF(args);
    return rc;
}

int
fl_report_slow(PyObject *op, fl_ready_kind kind, double seconds)
{
    PyObject *module = PyImport_ImportModule("asyncio.base_events");
    if (module == NULL) {
        return -1;
    }
    PyObject *text =
        kind == FL_READY_HANDLE || kind == FL_READY_FOREIGN
            ? PyObject_CallMethod(module, "_format_handle", "O", op)
            : PyObject_Repr(op);
    PyObject *logger =
        text == NULL ? NULL : PyObject_GetAttrString(module, "logger");
    PyObject *result =
        logger == NULL
            ? NULL
            : PyObject_CallMethod(logger, "warning", "sOd",
                                  "Executing %s took %.3f seconds", text,
                                  seconds);
    Py_DECREF(module);
    Py_XDECREF(text);
    Py_XDECREF(logger);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}
