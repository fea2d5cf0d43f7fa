/* api.c -- the transport half: what the application calls. */
#include "tls/api.h"

#include "base/args.h"
#include "net/deliver.h"

PyObject *
fl_tls_py_write(PyObject *op, PyObject *const *args,
                Py_ssize_t nargs, PyObject *names)
{
    PyObject *data = fl_one_argument("write", "data", args, nargs, names);
    return data == NULL
               ? NULL
               : fl_none_or_error(fl_tls_write((TLSObject *)op, data));
}

PyObject *
fl_tls_py_writelines(PyObject *op, PyObject *const *args,
                     Py_ssize_t nargs, PyObject *names)
{
    PyObject *list =
        fl_one_argument("writelines", "list_of_data", args, nargs, names);
    return list == NULL ? NULL
                        : fl_none_or_error(
                              fl_tls_writelines((TLSObject *)op, list));
}

PyObject *
fl_tls_py_write_eof(PyObject *Py_UNUSED(op), PyObject *Py_UNUSED(ignored))
{
    PyErr_SetNone(PyExc_NotImplementedError);
    return NULL;
}

PyObject *
fl_tls_py_can_write_eof(PyObject *Py_UNUSED(op), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_FALSE;
}

PyObject *
fl_tls_py_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    TLSObject *self = (TLSObject *)op;
    if (self->base.closing) {
        /* asyncio's lets go of everything when it is closed again: then who
           keeps a closed transport does not keep all of TLS. */
        self->let_go = true;
        if (self->base.protocol == NULL) {
            fl_tls_let_go(self);
        }
        Py_RETURN_NONE;
    }
    self->base.closing = true;
    if (self->phase == FL_TLS_FLUSHING && self->base.paused) {
        /* The stream below has ended, and nobody will read the rest. */
        return fl_none_or_error(fl_tls_put_off(self));
    }
    return fl_none_or_error(fl_tls_start_shutdown(self));
}

PyObject *
fl_tls_py_abort(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return fl_none_or_error(fl_tls_abort((TLSObject *)op, NULL));
}

PyObject *
fl_tls_py_force_close(PyObject *op, PyObject *exc)
{
    return fl_none_or_error(
        fl_tls_abort((TLSObject *)op, exc == Py_None ? NULL : exc));
}

PyObject *
fl_tls_py_is_closing(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    TLSObject *self = (TLSObject *)op;
    fl_state *state = fl_tls_state(self);
    if (self->base.closing || self->lower == NULL
        || !state->tls_closes_with_lower)
    {
        return PyBool_FromLong(self->base.closing);
    }
    if (self->lower_is_socket) {
        return PyBool_FromLong(((TransportObject *)self->lower)->closing);
    }
    return PyObject_CallMethodNoArgs(self->lower, state->str_is_closing);
}

PyObject *
fl_tls_py_is_reading(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(!((TLSObject *)op)->base.paused);
}

PyObject *
fl_tls_py_pause_reading(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    ((TLSObject *)op)->base.paused = true;
    Py_RETURN_NONE;
}

PyObject *
fl_tls_py_resume_reading(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    TLSObject *self = (TLSObject *)op;
    if (!self->base.paused) {
        Py_RETURN_NONE;
    }
    self->base.paused = false;
    return fl_none_or_error(fl_tls_put_off(self));
}

PyObject *
fl_tls_py_set_protocol(PyObject *op, PyObject *const *args,
                       Py_ssize_t nargs, PyObject *names)
{
    TLSObject *self = (TLSObject *)op;
    PyObject *protocol =
        fl_one_argument("set_protocol", "protocol", args, nargs, names);
    if (protocol == NULL) {
        return NULL;
    }
    if (self->base.protocol == NULL && self->base.lost > 0) {
        Py_RETURN_NONE;  /* nobody would tell it anything */
    }
    return fl_none_or_error(fl_deliver_to(&self->base, protocol));
}

/* --- Limits ---------------------------------------------------------------*/

/* The arguments, with asyncio's defaults and its ValueError. */
static int
tls_set_limits(fl_state *state, const char *format, PyObject *args,
               PyObject *kwargs, int kib, Py_ssize_t *high_water,
               Py_ssize_t *low_water)
{
    static char *keywords[] = {"high", "low", NULL};
    PyObject *high = Py_None, *low = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, format, keywords, &high,
                                     &low))
    {
        return -1;
    }
    PyObject *pair = PyObject_CallFunction(state->add_flowcontrol_defaults,
                                           "OOi", high, low, kib);
    if (pair == NULL) {
        return -1;
    }
    PyObject *values[2];
    int rc = PyArg_ParseTuple(pair, "OO", &values[0], &values[1]) ? 0 : -1;
    for (int i = 0; rc == 0 && i < 2; i++) {
        PyObject *number = PyNumber_Long(values[i]);
        Py_ssize_t size =
            number == NULL ? -1 : PyNumber_AsSsize_t(number, NULL);
        Py_XDECREF(number);
        if (size == -1 && PyErr_Occurred()) {
            rc = -1;
        }
        else {
            *(i == 0 ? high_water : low_water) = size;
        }
    }
    Py_DECREF(pair);
    return rc;
}

PyObject *
fl_tls_py_set_write_limits(PyObject *op, PyObject *args, PyObject *kwargs)
{
    TLSObject *self = (TLSObject *)op;
    int rc = tls_set_limits(fl_tls_state(self), "|OO:set_write_buffer_limits",
                            args, kwargs, FL_TLS_WRITE_WATER,
                            &self->base.high_water, &self->base.low_water);
    return fl_none_or_error(rc < 0 ? -1 : fl_tls_control_writing(self));
}

PyObject *
fl_tls_py_set_read_limits(PyObject *op, PyObject *args, PyObject *kwargs)
{
    TLSObject *self = (TLSObject *)op;
    int rc = tls_set_limits(fl_tls_state(self), "|OO:set_read_buffer_limits",
                            args, kwargs, FL_TLS_READ_WATER, &self->read_high,
                            &self->read_low);
    return fl_none_or_error(rc < 0 ? -1 : fl_tls_control_reading(self));
}

PyObject *
fl_tls_py_get_write_limits(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    TLSObject *self = (TLSObject *)op;
    return Py_BuildValue("(nn)", self->base.low_water, self->base.high_water);
}

PyObject *
fl_tls_py_get_read_limits(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    TLSObject *self = (TLSObject *)op;
    return Py_BuildValue("(nn)", self->read_low, self->read_high);
}

PyObject *
fl_tls_py_get_write_size(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromSsize_t(fl_tls_buffered((TLSObject *)op));
}

PyObject *
fl_tls_py_get_read_size(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromSize_t(fl_tls_unread_size((TLSObject *)op));
}

/* --- Extra info -----------------------------------------------------------*/

/* One of the infos about TLS.  New reference; NULL without an exception:
   there is none of that name, or not yet. */
static PyObject *
tls_find_info(TLSObject *self, PyObject *name)
{
    fl_state *state = fl_tls_state(self);
    if (PyUnicode_Compare(name, state->str_sslcontext) == 0) {
        return Py_XNewRef(self->context);
    }
    if (self->peercert == NULL) {
        return NULL;
    }
    if (PyUnicode_Compare(name, state->str_ssl_object) == 0) {
        fl_tls_expose(self);
        return Py_NewRef(self->object);
    }
    if (PyUnicode_Compare(name, state->str_peercert) == 0) {
        return Py_NewRef(self->peercert);
    }
    if (PyUnicode_Compare(name, state->str_cipher) == 0
        || PyUnicode_Compare(name, state->str_compression) == 0)
    {
        return PyObject_CallMethodNoArgs(self->object, name);
    }
    return NULL;
}

PyObject *
fl_tls_py_get_extra_info(PyObject *op, PyObject *const *args,
                         Py_ssize_t nargs, PyObject *names)
{
    TLSObject *self = (TLSObject *)op;
    PyObject *found[2] = {NULL, Py_None};
    if (fl_two_arguments("get_extra_info",
                         (const char *const[]){"name", "default"}, args,
                         nargs, names, found)
        < 0)
    {
        return NULL;
    }
    PyObject *value = NULL;
    if (self->base.extra != NULL) {
        value = Py_XNewRef(
            PyDict_GetItemWithError(self->base.extra, found[0]));
    }
    if (value == NULL && !PyErr_Occurred() && PyUnicode_Check(found[0])) {
        value = tls_find_info(self, found[0]);
    }
    if (value != NULL || PyErr_Occurred()) {
        return value;
    }
    /* Who asks for the socket may do something with it: that comes after what
       was written. */
    if (fl_tls_flush_held(self) < 0) {
        return NULL;
    }
    if (self->lower == NULL) {
        return Py_NewRef(found[1]);
    }
    PyObject *lower = Py_NewRef(self->lower);
    value = PyObject_CallMethodObjArgs(lower,
                                       fl_tls_state(self)->str_get_extra_info,
                                       found[0], found[1], NULL);
    Py_DECREF(lower);
    return value;
}

/* _extra as asyncio has it, with everything in it. */
PyObject *
fl_tls_get_extra(PyObject *op, void *Py_UNUSED(closure))
{
    TLSObject *self = (TLSObject *)op;
    fl_state *state = fl_tls_state(self);
    PyObject *names[] = {state->str_sslcontext, state->str_peercert,
                         state->str_cipher, state->str_compression,
                         state->str_ssl_object};
    if (self->base.extra == NULL) {
        self->base.extra = PyDict_New();
    }
    PyObject *extra = Py_XNewRef(self->base.extra);
    for (size_t i = 0; extra != NULL && i < sizeof(names) / sizeof(names[0]);
         i++)
    {
        PyObject *value = tls_find_info(self, names[i]);
        if ((value == NULL && PyErr_Occurred())
            || (value != NULL
                && PyDict_SetDefault(extra, names[i], value) == NULL))
        {
            Py_CLEAR(extra);
        }
        Py_XDECREF(value);
    }
    return extra;
}
