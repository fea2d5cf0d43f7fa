/* args.h -- arguments of METH_FASTCALL | METH_KEYWORDS methods. */
#ifndef FL_BASE_ARGS_H
#define FL_BASE_ARGS_H

#include "base/base.h"

/* The value of the one keyword that a method takes, borrowed, in *value; left
   alone when it is not given.  Any other keyword is an error. */
static inline int
fl_one_keyword(const char *method, PyObject *const *args, Py_ssize_t nargs,
               PyObject *names, PyObject *keyword, PyObject **value)
{
    if (FL_LIKELY(names == NULL)) {
        return 0;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        if (FL_UNLIKELY(name != keyword
                        && PyUnicode_Compare(name, keyword) != 0))
        {
            PyErr_Format(PyExc_TypeError,
                         "%s() got an unexpected keyword argument '%U'",
                         method, name);
            return -1;
        }
        *value = args[nargs + i];
    }
    return 0;
}

/* At least `least` positional arguments, the last of which is `missing`. */
static inline int
fl_check_positional(const char *method, Py_ssize_t nargs, Py_ssize_t least,
                    const char *missing)
{
    if (FL_LIKELY(nargs >= least)) {
        return 0;
    }
    PyErr_Format(PyExc_TypeError,
                 "%s() missing required positional argument: '%s'", method,
                 missing);
    return -1;
}

#endif
