/* api.h -- the transport half of an SSLTransport: its public methods. */
#ifndef FL_TLS_API_H
#define FL_TLS_API_H

#include "tls/tls.h"

/* asyncio.constants.FLOW_CONTROL_HIGH_WATER_SSL_READ and _WRITE, in KiB */
#define FL_TLS_READ_WATER 256
#define FL_TLS_WRITE_WATER 512

PyObject *fl_tls_py_get_extra_info(PyObject *op, PyObject *const *args,
                                   Py_ssize_t nargs, PyObject *names);
PyObject *fl_tls_py_set_protocol(PyObject *op, PyObject *const *args,
                                 Py_ssize_t nargs, PyObject *names);
PyObject *fl_tls_py_write(PyObject *op, PyObject *const *args,
                          Py_ssize_t nargs, PyObject *names);
PyObject *fl_tls_py_writelines(PyObject *op, PyObject *const *args,
                               Py_ssize_t nargs, PyObject *names);
PyObject *fl_tls_py_abort(PyObject *op, PyObject *ignored);
PyObject *fl_tls_py_can_write_eof(PyObject *op, PyObject *ignored);
PyObject *fl_tls_py_close(PyObject *op, PyObject *ignored);
PyObject *fl_tls_py_get_read_limits(PyObject *op, PyObject *ignored);
PyObject *fl_tls_py_get_read_size(PyObject *op, PyObject *ignored);
PyObject *fl_tls_py_get_write_limits(PyObject *op, PyObject *ignored);
PyObject *fl_tls_py_get_write_size(PyObject *op, PyObject *ignored);
PyObject *fl_tls_py_is_closing(PyObject *op, PyObject *ignored);
PyObject *fl_tls_py_is_reading(PyObject *op, PyObject *ignored);
PyObject *fl_tls_py_pause_reading(PyObject *op, PyObject *ignored);
PyObject *fl_tls_py_resume_reading(PyObject *op, PyObject *ignored);
PyObject *fl_tls_py_write_eof(PyObject *op, PyObject *ignored);
PyObject *fl_tls_py_set_read_limits(PyObject *op, PyObject *args,
                                    PyObject *kwargs);
PyObject *fl_tls_py_set_write_limits(PyObject *op, PyObject *args,
                                     PyObject *kwargs);
PyObject *fl_tls_py_force_close(PyObject *op, PyObject *exc);

/* _extra, as asyncio's has it. */
PyObject *fl_tls_get_extra(PyObject *op, void *closure);

#define FL_TLS_API_METHODS                                                  \
    {"write", FL_METHOD(fl_tls_py_write), FL_FASTCALL,                      \
     PyDoc_STR("write($self, data)\n--\n\n"                                 \
               "Send bytes, encrypted, as soon as the peer takes them.")},  \
    {"writelines", FL_METHOD(fl_tls_py_writelines), FL_FASTCALL,            \
     PyDoc_STR("writelines($self, list_of_data)\n--\n\n"                    \
               "Send several pieces of bytes.")},                           \
    {"write_eof", fl_tls_py_write_eof, METH_NOARGS,                         \
     PyDoc_STR("write_eof($self, /)\n--\n\n"                                \
               "TLS has no half-closed connections: NotImplementedError.")},\
    {"can_write_eof", fl_tls_py_can_write_eof, METH_NOARGS,                 \
     PyDoc_STR("can_write_eof($self, /)\n--\n\nFalse.")},                   \
    {"close", fl_tls_py_close, METH_NOARGS,                                 \
     PyDoc_STR("close($self, /)\n--\n\n"                                    \
               "Close once everything is sent and the peer knows.")},       \
    {"abort", fl_tls_py_abort, METH_NOARGS,                                 \
     PyDoc_STR("abort($self, /)\n--\n\n"                                    \
               "Close at once; what is unsent is lost.")},                  \
    {"is_closing", fl_tls_py_is_closing, METH_NOARGS,                       \
     PyDoc_STR("is_closing($self, /)\n--\n\n"                               \
               "Whether the transport is closing or closed.")},             \
    {"is_reading", fl_tls_py_is_reading, METH_NOARGS,                       \
     PyDoc_STR("is_reading($self, /)\n--\n\n"                               \
               "Whether what arrives is handed to the protocol.")},         \
    {"pause_reading", fl_tls_py_pause_reading, METH_NOARGS,                 \
     PyDoc_STR("pause_reading($self, /)\n--\n\n"                            \
               "Hand nothing to the protocol until resume_reading().")},    \
    {"resume_reading", fl_tls_py_resume_reading, METH_NOARGS,               \
     PyDoc_STR("resume_reading($self, /)\n--\n\n"                           \
               "Hand to the protocol what arrives.")},                      \
    {"set_protocol", FL_METHOD(fl_tls_py_set_protocol), FL_FASTCALL,        \
     PyDoc_STR("set_protocol($self, protocol)\n--\n\n"                      \
               "Tell another protocol from now on.")},                      \
    {"get_protocol", fl_transport_py_get_protocol, METH_NOARGS,             \
     PyDoc_STR("get_protocol($self, /)\n--\n\n"                             \
               "The protocol that gets what happens here.")},               \
    {"get_extra_info", FL_METHOD(fl_tls_py_get_extra_info), FL_FASTCALL,    \
     PyDoc_STR("get_extra_info($self, /, name, default=None)\n--\n\n"       \
               "What is known about the connection, by name.")},            \
    {"set_write_buffer_limits", FL_METHOD(fl_tls_py_set_write_limits),      \
     METH_VARARGS | METH_KEYWORDS,                                          \
     PyDoc_STR("set_write_buffer_limits($self, /, high=None, low=None)\n"   \
               "--\n\nWhen the protocol is to pause and resume writing.")}, \
    {"get_write_buffer_limits", fl_tls_py_get_write_limits, METH_NOARGS,    \
     PyDoc_STR("get_write_buffer_limits($self, /)\n--\n\n"                  \
               "The low and the high one.")},                               \
    {"get_write_buffer_size", fl_tls_py_get_write_size, METH_NOARGS,        \
     PyDoc_STR("get_write_buffer_size($self, /)\n--\n\n"                    \
               "How many bytes wait here to be sent.")},                    \
    {"set_read_buffer_limits", FL_METHOD(fl_tls_py_set_read_limits),        \
     METH_VARARGS | METH_KEYWORDS,                                          \
     PyDoc_STR("set_read_buffer_limits($self, /, high=None, low=None)\n"    \
               "--\n\nWhen the transport below is to pause and resume "     \
               "reading.")},                                                \
    {"get_read_buffer_limits", fl_tls_py_get_read_limits, METH_NOARGS,      \
     PyDoc_STR("get_read_buffer_limits($self, /)\n--\n\n"                   \
               "The low and the high one.")},                               \
    {"get_read_buffer_size", fl_tls_py_get_read_size, METH_NOARGS,          \
     PyDoc_STR("get_read_buffer_size($self, /)\n--\n\n"                     \
               "How many bytes wait here to be decrypted.")}

#endif
