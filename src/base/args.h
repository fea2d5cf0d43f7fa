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

#endif
