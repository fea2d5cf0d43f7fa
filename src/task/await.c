/* await.c -- FutureIter: what `await future` runs.

   It yields the future once, marked as blocking, and returns its result when
   it is resumed.  Nothing is kept but the future, and not even that after the
   end.  A value leaves in a StopIteration, which the interpreter takes apart at
   once; so one object serves again and again unless somebody kept it.  Making
   one each time costs more than all the rest (benchmarks/ `pingpong_value`).
   It holds on to its value until the step ends (fl_await_forget_value). */
#include "task/await.h"

#include "task/future.h"

typedef struct {
    PyObject_HEAD
    PyObject *future;  /* NULL: finished */
} FutureIterObject;

PyObject *
fl_future_iter_new(PyObject *future)
{
    fl_state *state = fl_state_of(future);
    PyTypeObject *type = state->FutureIter_type;
    PyObject *op = fl_pool_take(&state->future_iters);
    if (FL_LIKELY(op != NULL)) {
        fl_revive(op, type);
        ((FutureIterObject *)op)->future = Py_NewRef(future);
        PyObject_GC_Track(op);
        return op;
    }
    op = type->tp_alloc(type, 0);
    if (op != NULL) {
        ((FutureIterObject *)op)->future = Py_NewRef(future);
    }
    return op;
}

/* StopIteration(value) in an object that was used before, or NULL: somebody
   kept it, or its arguments.  Steals value. */
static PyStopIterationObject *
await_reuse_stop(fl_state *state, PyObject *value)
{
    PyStopIterationObject *stop = (PyStopIterationObject *)state->stop;
    if (FL_UNLIKELY(stop == NULL || state->steps == 0 || Py_REFCNT(stop) != 1
                    || Py_REFCNT(stop->args) != 1
                    || PyTuple_GET_SIZE(stop->args) != 1 || stop->value != NULL
                    || stop->traceback != NULL || stop->context != NULL
                    || stop->cause != NULL || stop->dict != NULL))
    {
        return NULL;
    }
    stop->value = value;
    Py_DECREF(PyTuple_GET_ITEM(stop->args, 0));  // the None put there
    PyTuple_SET_ITEM(stop->args, 0, Py_NewRef(value));
    return (PyStopIterationObject *)Py_NewRef(stop);
}

void
fl_await_forget_value(fl_state *state)
{
    PyStopIterationObject *stop = (PyStopIterationObject *)state->stop;
    if (Py_REFCNT(stop) != 1 || Py_REFCNT(stop->args) != 1
        || PyTuple_GET_SIZE(stop->args) != 1 || stop->traceback != NULL)
    {
        Py_CLEAR(state->stop);
        return;
    }
    PyObject *value = stop->value;
    stop->value = NULL;
    /* None, as long as nobody looks: a tuple must not have holes. */
    PyObject *item = PyTuple_GET_ITEM(stop->args, 0);
    PyTuple_SET_ITEM(stop->args, 0, Py_NewRef(Py_None));
    Py_XDECREF(value);
    Py_DECREF(item);
}

void
fl_await_raise_stop(fl_state *state, PyObject *value)
{
    PyTypeObject *type = (PyTypeObject *)PyExc_StopIteration;
    PyStopIterationObject *used = await_reuse_stop(state, value);
    if (FL_LIKELY(used != NULL)) {
        fl_put_raised((PyObject *)used);
        return;
    }
    PyStopIterationObject *stop =
        (PyStopIterationObject *)type->tp_alloc(type, 0);
    if (stop == NULL) {
        Py_DECREF(value);
        return;
    }
    stop->args = PyTuple_Pack(1, value);
    stop->value = value;
    if (stop->args == NULL) {
        Py_DECREF(stop);
        return;
    }
    if (state->steps > 0) {
        /* Not when somebody iterates by hand: no step would end and let the
           exception's traceback go. */
        Py_XSETREF(state->stop, Py_NewRef(stop));
    }
    fl_put_raised((PyObject *)stop);
}

static PySendResult
future_iter_send(PyObject *op, PyObject *Py_UNUSED(value), PyObject **result)
{
    FutureIterObject *iter = (FutureIterObject *)op;
    FutureObject *fut = (FutureObject *)iter->future;
    *result = NULL;
    if (fut == NULL) {
        return PYGEN_ERROR;
    }
    if (fut->state == FL_PENDING) {
        if (!fut->blocking) {
            fut->blocking = 1;
            *result = Py_NewRef(fut);
            return PYGEN_NEXT;
        }
        PyErr_SetString(PyExc_RuntimeError,
                        "await wasn't used with future");
        return PYGEN_ERROR;
    }
    iter->future = NULL;
    fl_state *state = fl_type_state(Py_TYPE(op));
    *result = fl_future_result(state, fut);
    Py_DECREF(fut);
    return *result == NULL ? PYGEN_ERROR : PYGEN_RETURN;
}

static PyObject *
future_iter_next(PyObject *op)
{
    PyObject *result;
    if (future_iter_send(op, Py_None, &result) == PYGEN_RETURN) {
        if (result == Py_None) {
            Py_DECREF(result);
            return NULL;  /* StopIteration with no value */
        }
        fl_await_raise_stop(fl_type_state(Py_TYPE(op)), result);
        return NULL;
    }
    return result;
}

static PyObject *
future_iter_send_method(PyObject *op, PyObject *Py_UNUSED(value))
{
    PyObject *result = future_iter_next(op);
    if (result == NULL && !PyErr_Occurred()) {
        PyErr_SetNone(PyExc_StopIteration);
    }
    return result;
}

void
fl_await_raise_thrown(PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs < 1 || nargs > 3) {
        PyErr_Format(PyExc_TypeError,
                     "throw expected 1 to 3 arguments, got %zd", nargs);
        return;
    }
#if FL_PY312
    if (nargs > 1
        && PyErr_WarnEx(PyExc_DeprecationWarning,
                        "the (type, exc, tb) signature of throw() is "
                        "deprecated, use the single-arg signature instead.",
                        1) < 0)
    {
        return;
    }
#endif
    PyObject *type = args[0];
    PyObject *value = nargs > 1 && args[1] != Py_None ? args[1] : NULL;
    PyObject *tb = nargs > 2 && args[2] != Py_None ? args[2] : NULL;
    if (tb != NULL && !PyTraceBack_Check(tb)) {
        PyErr_SetString(PyExc_TypeError,
                        "throw() third argument must be a traceback object");
        return;
    }
    Py_INCREF(type);
    Py_XINCREF(value);
    Py_XINCREF(tb);
    if (PyExceptionClass_Check(type)) {
        PyErr_NormalizeException(&type, &value, &tb);
    }
    else if (PyExceptionInstance_Check(type)) {
        if (value != NULL) {
            PyErr_SetString(
                PyExc_TypeError,
                "instance exception may not have a separate value");
            goto fail;
        }
        value = type;
        type = Py_NewRef(PyExceptionInstance_Class(value));
        if (tb == NULL) {
            tb = PyException_GetTraceback(value);
        }
    }
    else {
        PyErr_SetString(PyExc_TypeError,
                        "exceptions must be classes deriving BaseException or "
                        "instances of such a class");
        goto fail;
    }
    PyErr_Restore(type, value, tb);
    return;

fail:
    Py_DECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(tb);
}

static PyObject *
future_iter_throw(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    Py_CLEAR(((FutureIterObject *)op)->future);
    fl_await_raise_thrown(args, nargs);
    return NULL;
}

static PyObject *
future_iter_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    Py_CLEAR(((FutureIterObject *)op)->future);
    Py_RETURN_NONE;
}

static int
future_iter_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((FutureIterObject *)op)->future);
    return 0;
}

static int
future_iter_clear(PyObject *op)
{
    Py_CLEAR(((FutureIterObject *)op)->future);
    return 0;
}

static void
future_iter_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    FL_TRASHCAN_BEGIN(op, future_iter_dealloc)
    future_iter_clear(op);
    fl_state *state = fl_type_state(type);
    if (state == NULL || state->FutureIter_type != type
        || !fl_pool_put(&state->future_iters, op))
    {
        type->tp_free(op);
    }
    Py_DECREF(type);
    FL_TRASHCAN_END
}

static PyMethodDef future_iter_methods[] = {
    {"send", future_iter_send_method, METH_O, NULL},
    {"throw", FL_METHOD(future_iter_throw), METH_FASTCALL, NULL},
    {"close", future_iter_close, METH_NOARGS, NULL},
    {NULL},
};

static PyType_Slot future_iter_slots[] = {
    {Py_tp_dealloc, future_iter_dealloc},
    {Py_tp_traverse, future_iter_traverse},
    {Py_tp_clear, future_iter_clear},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, future_iter_next},
    {Py_am_send, future_iter_send},
    {Py_tp_methods, future_iter_methods},
    {0, NULL},
};

static PyType_Spec future_iter_spec = {
    .name = "fastloop.FutureIter",
    .basicsize = sizeof(FutureIterObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC
             | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = future_iter_slots,
};

int
fl_await_setup(PyObject *module, fl_state *state)
{
    state->FutureIter_type = fl_add_type(module, &future_iter_spec, NULL);
    return state->FutureIter_type == NULL ? -1 : 0;
}
