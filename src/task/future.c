/* future.c -- Future: completing it, its life, and what Python sees.

   The operations work on asyncio's own struct (layout.h), so one set serves
   our Future, our Task, and asyncio's two when a step of ours awaits them.
   What is cold and sound is inherited from asyncio.Future; what schedules,
   compares or frees is our own. */
#include "task/future.h"

#include "base/args.h"
#include "task/await.h"
#include "task/callbacks.h"

static int
future_check_alive(FutureObject *fut)
{
    if (FL_UNLIKELY(fut->loop == NULL)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "Future object is not initialized.");
        return -1;
    }
    return 0;
}

/* --- Completing -----------------------------------------------------------*/

static int
future_check_pending(fl_state *state, FutureObject *fut)
{
    if (future_check_alive(fut) < 0) {
        return -1;
    }
    if (FL_UNLIKELY(fut->state != FL_PENDING)) {
        PyErr_SetString(state->InvalidStateError, "invalid state");
        return -1;
    }
    return 0;
}

int
fl_future_set_result(fl_state *state, FutureObject *fut, PyObject *result)
{
    if (future_check_pending(state, fut) < 0) {
        return -1;
    }
    Py_XSETREF(fut->result, Py_NewRef(result));
    fut->state = FL_FINISHED;
    return fl_callbacks_schedule(state, fut);
}

/* Exception classes, StopIteration and things that are no exceptions: what
   happens then differs between CPython's patch releases, so asyncio's own
   method decides.  It must not see our callbacks. */
static int
future_set_odd_exception(fl_state *state, FutureObject *fut, PyObject *exc)
{
    PyObject *callback0 = fut->callback0;
    PyObject *context0 = fut->context0;
    PyObject *callbacks = fut->callbacks;
    bool shared = fut->shared_context0;
    fut->callback0 = fut->context0 = fut->callbacks = NULL;
    fut->shared_context0 = 0;
    PyObject *result = PyObject_CallMethod(
        state->AsyncioFuture, "set_exception", "OO", (PyObject *)fut, exc);
    /* Callbacks that came meanwhile, should an exception class's constructor
       have added some, stand behind the old ones. */
    PyObject *later0 = fut->callback0;
    PyObject *later_context0 = fut->context0;
    if (later_context0 != NULL && fut->shared_context0) {
        PyObject *own = PyContext_Copy(later_context0);
        if (own != NULL) {
            Py_SETREF(later_context0, own);
        }
    }
    PyObject *later = fut->callbacks;
    fut->callback0 = callback0;
    fut->context0 = context0;
    fut->callbacks = callbacks;
    fut->shared_context0 = shared;
    int rc = 0;
    if (later0 != NULL && later_context0 != NULL) {
        rc = fl_callbacks_append(fut, later0, later_context0);
    }
    if (rc == 0 && later != NULL) {
        for (Py_ssize_t i = 0; rc == 0 && i < PyList_GET_SIZE(later); i++) {
            PyObject *pair = PyList_GET_ITEM(later, i);
            rc = fl_callbacks_append(fut, PyTuple_GET_ITEM(pair, 0),
                                        PyTuple_GET_ITEM(pair, 1));
        }
    }
    Py_XDECREF(later0);
    Py_XDECREF(later_context0);
    Py_XDECREF(later);
    if (result == NULL) {
        return -1;
    }
    Py_DECREF(result);
    return rc < 0 ? -1 : fl_callbacks_schedule(state, fut);
}

int
fl_future_set_exception(fl_state *state, FutureObject *fut, PyObject *exc)
{
    if (future_check_pending(state, fut) < 0) {
        return -1;
    }
    if (FL_UNLIKELY(
            !PyExceptionInstance_Check(exc)
            || PyObject_TypeCheck(exc, (PyTypeObject *)PyExc_StopIteration)))
    {
        return future_set_odd_exception(state, fut, exc);
    }
    Py_XSETREF(fut->exception, Py_NewRef(exc));
    Py_XSETREF(fut->exception_tb, PyException_GetTraceback(exc));
    fut->state = FL_FINISHED;
    if (fl_callbacks_schedule(state, fut) < 0) {
        return -1;
    }
    fut->log_tb = 1;
    return 0;
}

int
fl_future_cancel(fl_state *state, FutureObject *fut, PyObject *msg)
{
    fut->log_tb = 0;
    if (fut->state != FL_PENDING) {
        return 0;
    }
    fut->state = FL_CANCELLED;
    Py_XSETREF(fut->cancel_msg, Py_XNewRef(msg));
    return fl_callbacks_schedule(state, fut) < 0 ? -1 : 1;
}

PyObject *
fl_future_cancelled_error(fl_state *state, FutureObject *fut)
{
    if (fut->cancelled_exc != NULL) {
        PyObject *exc = fut->cancelled_exc;
        fut->cancelled_exc = NULL;
        return exc;
    }
    PyObject *msg = fut->cancel_msg;
    if (msg == NULL || msg == Py_None) {
        return PyObject_CallNoArgs(state->CancelledError);
    }
    return PyObject_CallOneArg(state->CancelledError, msg);
}

PyObject *
fl_future_result(fl_state *state, FutureObject *fut)
{
    if (FL_LIKELY(fut->state == FL_FINISHED && fut->exception == NULL)) {
        fut->log_tb = 0;
        return Py_NewRef(fut->result);
    }
    if (fut->state == FL_PENDING) {
        PyErr_SetString(state->InvalidStateError,
                        fut->loop == NULL ? "Future object is not initialized."
                                          : "Result is not set.");
        return NULL;
    }
    PyObject *exc;
    if (fut->state == FL_CANCELLED) {
        exc = fl_future_cancelled_error(state, fut);
        if (exc == NULL) {
            return NULL;
        }
    }
    else {
        fut->log_tb = 0;
        exc = Py_NewRef(fut->exception);
        /* Each await shows the traceback as it was, not grown by the last. */
        PyObject *tb = fut->exception_tb;
        fut->exception_tb = NULL;
        int rc = PyException_SetTraceback(exc, tb == NULL ? Py_None : tb);
        Py_XDECREF(tb);
        if (rc < 0) {
            Py_DECREF(exc);
            return NULL;
        }
    }
    PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
    Py_DECREF(exc);
    return NULL;
}

/* The hook behind asyncio.sleep: see fl_handle_run. */
static int
future_set_result_quickly(fl_state *state, PyObject *Py_UNUSED(loop),
                          PyObject *op, PyObject *result)
{
    if (Py_TYPE(op) != state->Future_type) {
        return 0;
    }
    FutureObject *fut = (FutureObject *)op;
    if (fut->state == FL_CANCELLED) {
        return 1;
    }
    return fl_future_set_result(state, fut, result) < 0 ? -1 : 1;
}

/* --- Life -----------------------------------------------------------------*/

PyObject *
fl_future_new(fl_state *state, PyObject *loop)
{
    PyTypeObject *type = state->Future_type;
    PyObject *op = fl_pool_take(&state->futures);
    if (FL_LIKELY(op != NULL)) {
        fl_revive(op, type);
        ((FutureObject *)op)->loop = Py_NewRef(loop);
        PyObject_GC_Track(op);
        return op;
    }
    op = type->tp_alloc(type, 0);
    if (op != NULL) {
        ((FutureObject *)op)->loop = Py_NewRef(loop);
    }
    return op;
}

int
fl_future_visit_fields(FutureObject *fut, visitproc visit, void *arg)
{
    Py_VISIT(fut->loop);
    Py_VISIT(fut->callback0);
    Py_VISIT(fut->context0);
    Py_VISIT(fut->callbacks);
    Py_VISIT(fut->exception);
    Py_VISIT(fut->exception_tb);
    Py_VISIT(fut->result);
    Py_VISIT(fut->source_tb);
    Py_VISIT(fut->cancel_msg);
    Py_VISIT(fut->cancelled_exc);
#if FL_PY314
    Py_VISIT(fut->awaited_by);
#endif
#if FL_PY313
    FL_VISIT_MANAGED_DICT((PyObject *)fut, visit, arg);
#else
    Py_VISIT(fut->dict);
#endif
    return 0;
}

void
fl_future_clear_fields(FutureObject *fut)
{
    Py_CLEAR(fut->callback0);
    Py_CLEAR(fut->context0);
    Py_CLEAR(fut->callbacks);
    Py_CLEAR(fut->exception);
    Py_CLEAR(fut->exception_tb);
    Py_CLEAR(fut->result);
    Py_CLEAR(fut->source_tb);
    Py_CLEAR(fut->cancel_msg);
    Py_CLEAR(fut->cancelled_exc);
#if FL_PY314
    fut->awaited_by_is_set = 0;
    Py_CLEAR(fut->awaited_by);
#endif
#if FL_PY313
    FL_CLEAR_MANAGED_DICT((PyObject *)fut);
#else
    Py_CLEAR(fut->dict);
#endif
    Py_CLEAR(fut->loop);
}

static int
future_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    return fl_future_visit_fields((FutureObject *)op, visit, arg);
}

static int
future_clear(PyObject *op)
{
    fl_future_clear_fields((FutureObject *)op);
    return 0;
}

static void
future_dealloc(PyObject *op)
{
    FutureObject *fut = (FutureObject *)op;
    PyTypeObject *type = Py_TYPE(op);
    /* A subclass made in Python has run its finalizer already. */
    bool exact = type->tp_dealloc == future_dealloc;
    if (FL_UNLIKELY(exact && fut->log_tb)) {
        if (PyObject_CallFinalizerFromDealloc(op) < 0) {
            return;  /* resurrected */
        }
    }
    PyObject_GC_UnTrack(op);
    FL_TRASHCAN_BEGIN(op, future_dealloc)
    if (FL_UNLIKELY(fl_has_weakrefs(op))) {
        PyObject_ClearWeakRefs(op);
    }
    fl_future_clear_fields(fut);
    fut->state = FL_PENDING;
    fut->log_tb = 0;
    fut->blocking = 0;
    fut->shared_context0 = 0;
    fl_state *state = exact ? fl_type_state(type) : NULL;
    if (state == NULL || state->Future_type != type
        || PyObject_GC_IsFinalized(op)
        || !fl_pool_put(&state->futures, op))
    {
        type->tp_free(op);
    }
    Py_DECREF(type);
    FL_TRASHCAN_END
}

/* Future(...): memory from the pool, as where C makes one. */
static PyObject *
future_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
           PyObject *Py_UNUSED(kwargs))
{
    if (type->tp_dealloc == future_dealloc) {
        PyObject *op = fl_pool_take(&fl_type_state(type)->futures);
        if (op != NULL) {
            fl_revive(op, type);
            PyObject_GC_Track(op);
            return op;
        }
    }
    return type->tp_alloc(type, 0);
}

static int
future_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    /* asyncio's own: it finds the loop and takes the debug stack. */
    fl_state *state = fl_state_of(op);
    if (state == NULL) {
        return -1;
    }
    return ((PyTypeObject *)state->AsyncioFuture)->tp_init(op, args, kwargs);
}

/* --- Methods --------------------------------------------------------------*/

const char fl_future_add_done_callback_doc[] =
    "Call the callback with the future as its argument when that is done.";
const char fl_future_remove_done_callback_doc[] =
    "Remove all instances of a callback; return how many there were.";

/* add_done_callback(fn): with the current context. */
static PyObject *
future_add_callback_now(fl_state *state, FutureObject *fut,
                        PyObject *callback)
{
    bool plain = fl_loop_is_plain(state, fut->loop);
    LoopObject *loop = (LoopObject *)fut->loop;
    if (plain && fut->state == FL_PENDING && fl_callbacks_none(fut)) {
        /* Runs Python: the values of an older snapshot may die. */
        Py_INCREF(loop);
        PyObject *context = fl_snapshot_take(state, &loop->snapshot);
        bool same_loop = fut->loop == (PyObject *)loop;
        Py_DECREF(loop);
        if (context == NULL) {
            return NULL;
        }
        if (FL_LIKELY(same_loop && fut->state == FL_PENDING
                      && fl_callbacks_none(fut)))
        {
            fut->callback0 = Py_NewRef(callback);
            fut->context0 = context;
            fut->shared_context0 = state->context_ok;
            Py_RETURN_NONE;
        }
        Py_DECREF(context);
    }
    PyObject *context = PyContext_CopyCurrent();
    if (context == NULL) {
        return NULL;
    }
    int rc = fl_callbacks_add(state, fut, callback, context);
    Py_DECREF(context);
    if (rc < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Any call but add_done_callback(fn[, context=...]): asyncio's method sorts it
   out on a throw-away future, whose one callback is then added here. */
static PyObject *
future_add_callback_by_keyword(fl_state *state, PyObject *op,
                               PyObject *const *args, Py_ssize_t nargs,
                               PyObject *names)
{
    FutureObject *fut = (FutureObject *)op;
    if (future_check_alive(fut) < 0) {
        return NULL;
    }
    PyObject *method =
        PyObject_GetAttr(state->AsyncioFuture, state->str_add_done_callback);
    PyObject *other = fl_future_new(state, fut->loop);
    PyObject *result = NULL;
    if (method != NULL && other != NULL) {
        result = fl_call_behind(method, other, args, nargs, names);
    }
    FutureObject *tried = (FutureObject *)other;
    if (result != NULL && tried->callback0 != NULL
        && fl_callbacks_add(state, fut, tried->callback0,
                                  tried->context0) < 0)
    {
        Py_CLEAR(result);
    }
    Py_XDECREF(other);
    Py_XDECREF(method);
    return result;
}

PyObject *
fl_future_py_add_done_callback(PyObject *op, PyObject *const *args,
                               Py_ssize_t nargs, PyObject *names)
{
    fl_state *state = fl_state_of(op);
    FutureObject *fut = (FutureObject *)op;
    PyObject *context = NULL;
    if (FL_UNLIKELY(nargs != 1
                    || !fl_is_common_call(args, nargs, 1, names,
                                          state->str_context, &context)))
    {
        return future_add_callback_by_keyword(state, op, args, nargs, names);
    }
    if (future_check_alive(fut) < 0) {
        return NULL;
    }
    if (context == NULL) {
        return future_add_callback_now(state, fut, args[0]);
    }
    Py_INCREF(context);
    int rc = fl_callbacks_add(state, fut, args[0], context);
    Py_DECREF(context);
    if (rc < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *
fl_future_py_remove_done_callback(PyObject *op, PyObject *callback)
{
    fl_state *state = fl_state_of(op);
    FutureObject *fut = (FutureObject *)op;
    if (future_check_alive(fut) < 0) {
        return NULL;
    }
    if (fl_callbacks_none(fut) || fut->state != FL_PENDING) {
        return PyLong_FromLong(0);
    }
    PyObject *list = fl_callbacks_list(state, fut);
    if (list == NULL) {
        return NULL;
    }
    long removed = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        PyObject *pair = PyList_GET_ITEM(list, i);
        /* Runs Python: an __eq__ may do anything to the future.  The list is
           ours alone. */
        int same = PyObject_RichCompareBool(PyTuple_GET_ITEM(pair, 0),
                                            callback, Py_EQ);
        int dropped = same > 0 && fut->state == FL_PENDING
                          ? fl_callbacks_drop(fut, pair)
                          : (same < 0 ? -1 : 0);
        if (dropped < 0) {
            Py_DECREF(list);
            return NULL;
        }
        removed += dropped;
    }
    Py_DECREF(list);
    return PyLong_FromLong(removed);
}

PyObject *
fl_future_py_get_callbacks(PyObject *op, void *Py_UNUSED(closure))
{
    fl_state *state = fl_state_of(op);
    FutureObject *fut = (FutureObject *)op;
    if (future_check_alive(fut) < 0) {
        return NULL;
    }
    if (fl_callbacks_none(fut) || fut->state != FL_PENDING) {
        Py_RETURN_NONE;
    }
    return fl_callbacks_list(state, fut);
}

PyObject *
fl_future_py_get_loop(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    if (future_check_alive((FutureObject *)op) < 0) {
        return NULL;
    }
    return Py_NewRef(((FutureObject *)op)->loop);
}

PyObject *
fl_future_py_get_blocking(PyObject *op, void *Py_UNUSED(closure))
{
    FutureObject *fut = (FutureObject *)op;
    return PyBool_FromLong(fut->loop != NULL && fut->blocking);
}

int
fl_future_py_set_blocking(PyObject *op, PyObject *value,
                          void *Py_UNUSED(closure))
{
    FutureObject *fut = (FutureObject *)op;
    if (future_check_alive(fut) < 0) {
        return -1;
    }
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "cannot delete attribute");
        return -1;
    }
    int blocking = PyObject_IsTrue(value);
    if (blocking < 0) {
        return -1;
    }
    fut->blocking = blocking > 0;
    return 0;
}

PyObject *
fl_future_py_iter(PyObject *op)
{
    if (future_check_alive((FutureObject *)op) < 0) {
        return NULL;
    }
    return fl_future_iter_new(op);
}

PyDoc_STRVAR(future_set_result_doc,
             "Mark the future done and set its result.");

static PyObject *
future_set_result(PyObject *op, PyObject *result)
{
    fl_state *state = fl_state_of(op);
    if (fl_future_set_result(state, (FutureObject *)op, result) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(future_set_exception_doc,
             "Mark the future done and set an exception.");

static PyObject *
future_set_exception(PyObject *op, PyObject *exc)
{
    fl_state *state = fl_state_of(op);
    if (fl_future_set_exception(state, (FutureObject *)op, exc) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(future_cancel_doc,
             "Cancel the future and schedule its callbacks; False if it is "
             "done already.");

static PyObject *
future_cancel(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"msg", NULL};
    PyObject *msg = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:cancel", keywords,
                                     &msg)
        || future_check_alive((FutureObject *)op) < 0)
    {
        return NULL;
    }
    int rc = fl_future_cancel(fl_state_of(op), (FutureObject *)op, msg);
    return rc < 0 ? NULL : PyBool_FromLong(rc);
}

const char fl_future_result_doc[] =
    "Return the result, or raise what was set.";
const char fl_future_exception_doc[] =
    "Return the exception that was set, or None.";
const char fl_future_done_doc[] = "Whether the future has come to its end.";
const char fl_future_get_loop_doc[] = "The loop the future is bound to.";
const char fl_future_cancelled_doc[] = "Whether the future was cancelled.";

PyObject *
fl_future_py_result(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return fl_future_result(fl_state_of(op), (FutureObject *)op);
}

PyObject *
fl_future_py_exception(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FutureObject *fut = (FutureObject *)op;
    if (FL_LIKELY(fut->state == FL_FINISHED)) {
        fut->log_tb = 0;
        return Py_NewRef(fut->exception == NULL ? Py_None : fut->exception);
    }
    fl_state *state = fl_state_of(op);
    if (fut->state == FL_CANCELLED) {
        return fl_future_result(state, fut);  /* raises */
    }
    PyErr_SetString(state->InvalidStateError,
                    fut->loop == NULL ? "Future object is not initialized."
                                      : "Exception is not set.");
    return NULL;
}

PyObject *
fl_future_py_done(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FutureObject *fut = (FutureObject *)op;
    return PyBool_FromLong(fut->loop != NULL && fut->state != FL_PENDING);
}

PyObject *
fl_future_py_cancelled(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FutureObject *fut = (FutureObject *)op;
    return PyBool_FromLong(fut->loop != NULL && fut->state == FL_CANCELLED);
}

static PyMethodDef future_methods[] = {
    FL_FUTURE_METHODS,
    {"set_result", future_set_result, METH_O, future_set_result_doc},
    {"set_exception", future_set_exception, METH_O,
     future_set_exception_doc},
    {"cancel", FL_METHOD(future_cancel), METH_VARARGS | METH_KEYWORDS,
     future_cancel_doc},
    {NULL},
};

static PyGetSetDef future_getset[] = {
    FL_FUTURE_GETSET,
    {NULL},
};

static PyType_Slot future_slots[] = {
    {Py_tp_doc, "Future(*, loop=None)\n--\n\n"
                "A Future of fastloop: an asyncio.Future whose callbacks go "
                "straight to the loop."},
    {Py_tp_new, future_new},
    {Py_tp_init, future_init},
    {Py_tp_dealloc, future_dealloc},
    {Py_tp_traverse, future_traverse},
    {Py_tp_clear, future_clear},
    {Py_tp_iter, fl_future_py_iter},
    {Py_am_await, fl_future_py_iter},
    {Py_tp_methods, future_methods},
    {Py_tp_getset, future_getset},
    {0, NULL},
};

static PyType_Spec future_spec = {
    .name = "fastloop.Future",
    .basicsize = sizeof(FutureObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = future_slots,
};

int
fl_future_setup(PyObject *module, fl_state *state)
{
    state->Future_type =
        fl_add_type(module, &future_spec, state->AsyncioFuture);
    if (state->Future_type == NULL) {
        return -1;
    }
    fl_drop_inline_values(state->Future_type);
    state->set_result_quickly = future_set_result_quickly;
    state->run_callback = fl_callbacks_run;
    state->forget_callback = fl_callbacks_forget;
    return 0;
}
