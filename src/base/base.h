/* base.h -- the door to CPython: every file that knows PyObject starts here. */
#ifndef FL_BASE_BASE_H
#define FL_BASE_BASE_H

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>
#include <structmember.h>

#include "base/cdefs.h"
#include "base/compat.h"

/* Method tables want PyCFunction; this is the one place that casts to it.
   The way round by void (*)(void) is what keeps the compiler quiet. */
#define FL_METHOD(function) ((PyCFunction)(void (*)(void))(function))

/* METH_FASTCALL | METH_KEYWORDS, as every hot method takes its arguments. */
#define FL_FASTCALL (METH_FASTCALL | METH_KEYWORDS)

#endif
