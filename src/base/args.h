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
