/* args.h -- arguments of METH_FASTCALL | METH_KEYWORDS methods. */
#ifndef FL_BASE_ARGS_H
#define FL_BASE_ARGS_H

#include "base/base.h"

/* Whether a call is of the common kind: at least `least` positional
   arguments, and no keyword but the one given, whose value is then put into
   *value, borrowed.  Any other call goes to Python, which sorts keywords out
   and words the errors. */
static inline bool
fl_is_common_call(PyObject *const *args, Py_ssize_t nargs, Py_ssize_t least,
                  PyObject *names, PyObject *keyword, PyObject **value)
{
    if (FL_LIKELY(names == NULL)) {
        return nargs >= least;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        if (FL_UNLIKELY(name != keyword
                        && PyUnicode_Compare(name, keyword) != 0))
        {
            return false;
        }
        *value = args[nargs + i];
    }
    return nargs >= least;
}

/* What a method returns that is an `int` function at heart. */
static inline PyObject *
fl_none_or_error(int rc)
{
    if (rc < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Whether asyncio's transports take op for data. */
static inline bool
fl_is_data(PyObject *op)
{
    return PyBytes_Check(op) || PyByteArray_Check(op)
           || PyMemoryView_Check(op);
}

/* The one argument of a method, which may be given by its name.  Borrowed. */
static inline PyObject *
fl_one_argument(const char *method, const char *name, PyObject *const *args,
                Py_ssize_t nargs, PyObject *names)
{
    Py_ssize_t given = nargs + (names == NULL ? 0 : PyTuple_GET_SIZE(names));
    if (FL_LIKELY(given == 1)
        && (nargs == 1
            || PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0),
                                                name)
                   == 0))
    {
        return args[0];
    }
    PyErr_Format(PyExc_TypeError, "%s() takes one argument, '%s'", method,
                 name);
    return NULL;
}

/* A required argument and an optional one, each by place or by name.  found
   holds the defaults, the first of them NULL, and then what was given;
   borrowed. */
static inline int
fl_two_arguments(const char *method, const char *const keywords[2],
                 PyObject *const *args, Py_ssize_t nargs, PyObject *names,
                 PyObject *found[2])
{
    Py_ssize_t by_name = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    bool right = nargs <= 2;
    for (Py_ssize_t i = 0; right && i < nargs; i++) {
        found[i] = args[i];
    }
    for (Py_ssize_t i = 0; right && i < by_name; i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        int which = PyUnicode_CompareWithASCIIString(name, keywords[0]) == 0
                        ? 0
                        : 1;
        right = which >= nargs
                && PyUnicode_CompareWithASCIIString(name, keywords[which])
                       == 0;
        found[which] = args[nargs + i];
    }
    if (FL_UNLIKELY(!right || found[0] == NULL)) {
        PyErr_Format(PyExc_TypeError, "%s() takes '%s' and '%s'", method,
                     keywords[0], keywords[1]);
        return -1;
    }
    return 0;
}

/* callable(first, *args, **names): the arguments of a vectorcall handed on
   behind one more. */
static inline PyObject *
fl_call_behind(PyObject *callable, PyObject *first, PyObject *const *args,
               Py_ssize_t nargs, PyObject *names)
{
    Py_ssize_t total = nargs + (names == NULL ? 0 : PyTuple_GET_SIZE(names));
    PyObject **stack = PyMem_New(PyObject *, (size_t)total + 1);
    if (stack == NULL) {
        return PyErr_NoMemory();
    }
    stack[0] = first;
    for (Py_ssize_t i = 0; i < total; i++) {
        stack[i + 1] = args[i];
    }
    PyObject *result =
        PyObject_Vectorcall(callable, stack, (size_t)nargs + 1, names);
    PyMem_Free(stack);
    return result;
}

#endif
