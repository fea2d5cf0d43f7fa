/* compat.h -- every difference between CPython 3.11 and 3.15 that is not a
   matter of asyncio's own structs (those are in task/layout.h). */
#ifndef FL_BASE_COMPAT_H
#define FL_BASE_COMPAT_H

#if PY_VERSION_HEX < 0x030B0000
#error "fastloop needs CPython 3.11 or newer"
#endif
#ifdef Py_GIL_DISABLED
#error "fastloop does not support free-threaded CPython yet; use a GIL build"
#endif

#define FL_PY312 (PY_VERSION_HEX >= 0x030C0000)
#define FL_PY313 (PY_VERSION_HEX >= 0x030D0000)
#define FL_PY314 (PY_VERSION_HEX >= 0x030E0000)
#define FL_PY315 (PY_VERSION_HEX >= 0x030F0000)


/* The raised exception as one object, taken out of (or put back into) the
   thread state.  Take returns NULL when nothing is raised. */
static inline PyObject *
fl_take_raised(void)
{
#if FL_PY312
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *tb;
    PyErr_Fetch(&type, &value, &tb);
    if (type == NULL) {
        return NULL;
    }
    PyErr_NormalizeException(&type, &value, &tb);
    if (tb != NULL) {
        PyException_SetTraceback(value, tb);
    }
    Py_DECREF(type);
    Py_XDECREF(tb);
    return value;
#endif
}

/* Steals exc. */
static inline void
fl_put_raised(PyObject *exc)
{
#if FL_PY312
    PyErr_SetRaisedException(exc);
#else
    PyErr_Restore(Py_NewRef(Py_TYPE(exc)), exc, PyException_GetTraceback(exc));
#endif
}


/* 1: found, *result is new.  0: no such attribute.  -1: error. */
static inline int
fl_get_optional_attr(PyObject *obj, PyObject *name, PyObject **result)
{
#if FL_PY313
    return PyObject_GetOptionalAttr(obj, name, result);
#else
    return _PyObject_LookupAttr(obj, name, result);
#endif
}


/* Whether weak references to op exist.  Works for a list that lies in the
   struct and for one that lies before the object: the offset is signed. */
static inline bool
fl_has_weakrefs(PyObject *op)
{
    Py_ssize_t offset = Py_TYPE(op)->tp_weaklistoffset;
    return offset != 0 && *(PyObject **)((char *)op + offset) != NULL;
}

#if FL_PY313
#define FL_VISIT_MANAGED_DICT(op, visit, arg) \
    PyObject_VisitManagedDict((op), (visit), (arg))
#define FL_CLEAR_MANAGED_DICT(op) PyObject_ClearManagedDict(op)
#endif

/* 3.14 keeps deep chains of deallocations off the C stack by itself. */
#if FL_PY314
#define FL_TRASHCAN_BEGIN(op, dealloc)
#define FL_TRASHCAN_END
#else
#define FL_TRASHCAN_BEGIN(op, dealloc) Py_TRASHCAN_BEGIN(op, dealloc)
#define FL_TRASHCAN_END                Py_TRASHCAN_END
#endif

/* From 3.13 on a type with a __dict__ may reserve room for attributes in each
   instance.  Nobody sets attributes on most Futures and Tasks, so ours do
   without it: it would more than double their size. */
static inline void
fl_drop_inline_values(PyTypeObject *type)
{
#if FL_PY313 && !defined(Py_DEBUG)  /* debug interpreters insist on it */
    type->tp_flags &= ~(unsigned long)Py_TPFLAGS_INLINE_VALUES;
#else
    (void)type;
#endif
}

/* What a weak reference is to, or NULL without an exception.  New
   reference. */
static inline PyObject *
fl_weakref_target(PyObject *weakref)
{
#if FL_PY313
    PyObject *target;
    (void)PyWeakref_GetRef(weakref, &target);
    return target;
#else
    PyObject *target = PyWeakref_GET_OBJECT(weakref);
    return target == Py_None ? NULL : Py_NewRef(target);
#endif
}

/* Another length for a bytes object that nobody else has: it was made with
   room for n, and its content changed. */
static inline void
fl_bytes_set_size(PyObject *bytes, Py_ssize_t n)
{
    Py_SET_SIZE(bytes, n);
    PyBytes_AS_STRING(bytes)[n] = '\0';
_Py_COMP_DIAG_PUSH
_Py_COMP_DIAG_IGNORE_DEPR_DECLS
    ((PyBytesObject *)bytes)->ob_shash = -1;
_Py_COMP_DIAG_POP
}

/* Object memory that was kept in a pool becomes an object again. */
static inline void
fl_revive(PyObject *op, PyTypeObject *type)
{
    Py_SET_TYPE(op, (PyTypeObject *)Py_NewRef(type));
    _Py_NewReference(op);
}

#endif
