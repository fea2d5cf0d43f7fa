/* loop_calls.h -- the Loop's methods that schedule: callbacks, timers, futures,
   tasks, jobs.  loop_type.c has the rest and the tables. */
#ifndef FL_LOOP_CALLS_H
#define FL_LOOP_CALLS_H

#include "loop/loop.h"

PyObject *fl_loop_py_call_soon(PyObject *op, PyObject *const *args,
    Py_ssize_t nargs, PyObject *names);
PyObject *fl_loop_py_call_soon_threadsafe(PyObject *op, PyObject *const *args,
    Py_ssize_t nargs, PyObject *names);
PyObject *fl_loop_py_call_at(PyObject *op, PyObject *const *args,
    Py_ssize_t nargs, PyObject *names);
PyObject *fl_loop_py_call_later(PyObject *op, PyObject *const *args,
    Py_ssize_t nargs, PyObject *names);
PyObject *fl_loop_py_time(PyObject *op, PyObject *ignored);
PyObject *fl_loop_py_create_future(PyObject *op, PyObject *ignored);
PyObject *fl_loop_py_create_task(PyObject *op, PyObject *const *args,
    Py_ssize_t nargs, PyObject *names);
PyObject *fl_loop_py_submit_job(PyObject *op, PyObject *const *args,
    Py_ssize_t nargs);
PyObject *fl_loop_py_run_in_executor(PyObject *op, PyObject *const *args,
    Py_ssize_t nargs, PyObject *names);
PyObject *fl_loop_call_by_keyword(PyObject *op, const char *method,
    PyObject *const *args, Py_ssize_t nargs, PyObject *names);
int fl_loop_find_patches(LoopObject *loop) FL_RAISES;
extern const char fl_loop_call_soon_doc[];
extern const char fl_loop_call_soon_threadsafe_doc[];
extern const char fl_loop_call_at_doc[];
extern const char fl_loop_call_later_doc[];
extern const char fl_loop_time_doc[];
extern const char fl_loop_create_future_doc[];
extern const char fl_loop_create_task_doc[];
extern const char fl_loop_submit_job_doc[];
extern const char fl_loop_run_in_executor_doc[];

#define FL_LOOP_CALL_METHODS \
    {"call_soon", FL_METHOD(fl_loop_py_call_soon), FL_FASTCALL, \
     fl_loop_call_soon_doc}, \
    {"call_soon_threadsafe", FL_METHOD(fl_loop_py_call_soon_threadsafe), \
     FL_FASTCALL, fl_loop_call_soon_threadsafe_doc}, \
    {"call_later", FL_METHOD(fl_loop_py_call_later), FL_FASTCALL, \
     fl_loop_call_later_doc}, \
    {"call_at", FL_METHOD(fl_loop_py_call_at), FL_FASTCALL, \
     fl_loop_call_at_doc}, \
    {"time", fl_loop_py_time, METH_NOARGS, fl_loop_time_doc}, \
    {"create_future", fl_loop_py_create_future, METH_NOARGS, \
     fl_loop_create_future_doc}, \
    {"create_task", FL_METHOD(fl_loop_py_create_task), FL_FASTCALL, \
     fl_loop_create_task_doc}, \
    {"run_in_executor", FL_METHOD(fl_loop_py_run_in_executor), FL_FASTCALL, \
     fl_loop_run_in_executor_doc}, \
    {"_submit_job", FL_METHOD(fl_loop_py_submit_job), METH_FASTCALL, \
     fl_loop_submit_job_doc}

#endif
