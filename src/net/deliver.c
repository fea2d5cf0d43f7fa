/* deliver.c -- data_received, a StreamReader, get_buffer and buffer_updated. */
#include "net/deliver.h"

#include "net/reader.h"

int
fl_deliver_to(TransportObject *self, PyObject *protocol)
{
    fl_state *state = fl_transport_state(self);
    uint8_t mode = FL_READ_TLS;
    if (Py_TYPE(protocol) != state->SSLTransport_type) {
        int buffered = PyObject_IsInstance(protocol, state->BufferedProtocol);
        if (buffered < 0) {
            return -1;
        }
        mode = buffered ? FL_READ_BUFFERED
               : fl_reader_is_candidate(state, protocol) ? FL_READ_STREAM
                                                         : FL_READ_DATA;
    }
    self->read_mode = mode;
    self->protocol_connected = true;
    Py_XSETREF(self->protocol, Py_NewRef(protocol));
    return 0;
}

int
fl_deliver(TransportObject *self, fl_readbuf_habit *habit, fl_loan *loan,
           size_t n)
{
    fl_state *state = fl_transport_state(self);
    if (self->read_mode == FL_READ_STREAM) {
        int fed = fl_reader_feed(state, self->protocol,
                                 fl_readbuf_space(loan), n);
        if (fed != 0) {
            fl_readbuf_learn(habit, loan, n);
            return fed < 0 ? -1 : 0;
        }
    }
    else if (self->read_mode == FL_READ_TLS) {
        PyObject *protocol = Py_NewRef(self->protocol);
        int rc = state->tls_receive(state, protocol, fl_readbuf_space(loan), n);
        Py_DECREF(protocol);
        return rc;
    }
    if (fl_readbuf_fill(state, habit, loan, n) < 0) {
        return -1;
    }
    PyObject *result = fl_transport_call_protocol(
        self, state->str_data_received, loan->data);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

PyObject *
fl_deliver_get_buffer(TransportObject *self, Py_ssize_t hint)
{
    PyObject *wanted = PyLong_FromSsize_t(hint);
    if (wanted == NULL) {
        return NULL;
    }
    PyObject *buf = fl_transport_call_protocol(
        self, fl_transport_state(self)->str_get_buffer, wanted);
    Py_DECREF(wanted);
    Py_ssize_t len = buf == NULL ? -1 : PyObject_Size(buf);
    if (len > 0) {
        return buf;
    }
    if (len == 0) {
        PyErr_SetString(PyExc_RuntimeError,
                        "get_buffer() returned an empty buffer");
    }
    Py_XDECREF(buf);
    return NULL;
}

int
fl_deliver_updated(TransportObject *self, Py_ssize_t n)
{
    PyObject *count = PyLong_FromSsize_t(n);
    if (count == NULL) {
        return -1;
    }
    PyObject *result = fl_transport_call_protocol(
        self, fl_transport_state(self)->str_buffer_updated, count);
    Py_DECREF(count);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}
