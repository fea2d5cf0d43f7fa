/* future.h -- Future: states, results, callbacks. */
#ifndef FL_TASK_FUTURE_H
#define FL_TASK_FUTURE_H

#include "loop/loop.h"
#include "task/layout.h"

int fl_future_setup(PyObject *module, fl_state *state) FL_RAISES;

/* loop.create_future() outside debug mode. */
PyObject *fl_future_new(fl_state *state, PyObject *loop) FL_RAISES;

/* The operations, for any object that begins with FutureObject: our types,
   asyncio's, and subclasses of both.  Runs Python: a foreign loop's
   call_soon; nothing else but the death of old values. */
int fl_future_set_result(fl_state *state, FutureObject *fut, PyObject *result)
    FL_RAISES;
int fl_future_set_exception(fl_state *state, FutureObject *fut,
                            PyObject *exc) FL_RAISES;
/* 1: cancelled.  0: it was done before.  -1: error. */
int fl_future_cancel(fl_state *state, FutureObject *fut, PyObject *msg)
    FL_RAISES;

/* What future.result() returns or raises.  New reference, or NULL. */
PyObject *fl_future_result(fl_state *state, FutureObject *fut) FL_RAISES;

/* The exception that a cancelled future raises; the saved one if there is
   one.  New reference. */
PyObject *fl_future_cancelled_error(fl_state *state, FutureObject *fut)
    FL_RAISES;

/* Clears what a Future shares with a Task; for dealloc, clear and pools. */
void fl_future_clear_fields(FutureObject *fut);
int fl_future_visit_fields(FutureObject *fut, visitproc visit, void *arg);

/* Methods that Future and Task have in common. */
PyObject *fl_future_py_add_done_callback(PyObject *op, PyObject *const *args,
                                         Py_ssize_t nargs, PyObject *names);
PyObject *fl_future_py_remove_done_callback(PyObject *op, PyObject *callback);
PyObject *fl_future_py_get_callbacks(PyObject *op, void *closure);
PyObject *fl_future_py_iter(PyObject *op);
PyObject *fl_future_py_result(PyObject *op, PyObject *ignored);
PyObject *fl_future_py_exception(PyObject *op, PyObject *ignored);
PyObject *fl_future_py_done(PyObject *op, PyObject *ignored);
PyObject *fl_future_py_cancelled(PyObject *op, PyObject *ignored);
PyObject *fl_future_py_get_loop(PyObject *op, PyObject *ignored);
PyObject *fl_future_py_get_blocking(PyObject *op, void *closure);
int fl_future_py_set_blocking(PyObject *op, PyObject *value, void *closure);
extern const char fl_future_add_done_callback_doc[];
extern const char fl_future_remove_done_callback_doc[];
extern const char fl_future_result_doc[];
extern const char fl_future_exception_doc[];
extern const char fl_future_done_doc[];
extern const char fl_future_cancelled_doc[];
extern const char fl_future_get_loop_doc[];

/* In both types' tables, although a Task would inherit them: the interpreter
   calls a C method quickly only on its own type's instances. */
#define FL_FUTURE_METHODS                                                    \
    {"result", fl_future_py_result, METH_NOARGS, fl_future_result_doc},      \
    {"exception", fl_future_py_exception, METH_NOARGS,                       \
     fl_future_exception_doc},                                               \
    {"done", fl_future_py_done, METH_NOARGS, fl_future_done_doc},            \
    {"cancelled", fl_future_py_cancelled, METH_NOARGS,                       \
     fl_future_cancelled_doc},                                               \
    {"get_loop", fl_future_py_get_loop, METH_NOARGS,                         \
     fl_future_get_loop_doc},                                                \
    {"add_done_callback", FL_METHOD(fl_future_py_add_done_callback),         \
     FL_FASTCALL, fl_future_add_done_callback_doc},                          \
    {"remove_done_callback", fl_future_py_remove_done_callback, METH_O,      \
     fl_future_remove_done_callback_doc}

#define FL_FUTURE_GETSET                                                     \
    {"_callbacks", fl_future_py_get_callbacks, NULL, NULL, NULL},            \
    {"_asyncio_future_blocking", fl_future_py_get_blocking,                  \
     fl_future_py_set_blocking, NULL, NULL}

#endif
