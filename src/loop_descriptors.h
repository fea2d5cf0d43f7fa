/* loop_descriptors.h -- the Loop's methods that watch descriptors. */
#ifndef FL_LOOP_DESCRIPTORS_H
#define FL_LOOP_DESCRIPTORS_H

#include "loop/loop.h"

PyObject *fl_loop_py_add_reader(PyObject *op, PyObject *const *args,
    Py_ssize_t nargs, PyObject *names);
PyObject *fl_loop_py_add_writer(PyObject *op, PyObject *const *args,
    Py_ssize_t nargs, PyObject *names);
PyObject *fl_loop_py_remove_reader(PyObject *op, PyObject *const *args,
    Py_ssize_t nargs, PyObject *names);
PyObject *fl_loop_py_remove_writer(PyObject *op, PyObject *const *args,
    Py_ssize_t nargs, PyObject *names);
PyObject *fl_loop_py_add_raw_reader(PyObject *op, PyObject *const *args,
    Py_ssize_t nargs, PyObject *names);
PyObject *fl_loop_py_add_raw_writer(PyObject *op, PyObject *const *args,
    Py_ssize_t nargs, PyObject *names);
PyObject *fl_loop_py_remove_raw_reader(PyObject *op, PyObject *file);
PyObject *fl_loop_py_remove_raw_writer(PyObject *op, PyObject *file);
PyObject *fl_loop_py_sock_recv(PyObject *op, PyObject *const *args,
    Py_ssize_t nargs, PyObject *names);
PyObject *fl_loop_py_sock_recv_into(PyObject *op, PyObject *const *args,
    Py_ssize_t nargs, PyObject *names);
PyObject *fl_loop_py_sock_sendall(PyObject *op, PyObject *const *args,
    Py_ssize_t nargs, PyObject *names);
PyObject *fl_loop_py_wait_readable(PyObject *op, PyObject *sock);
PyObject *fl_loop_py_wait_writable(PyObject *op, PyObject *sock);
PyObject *fl_loop_py_flush(PyObject *op, PyObject *ignored);
PyObject *fl_loop_py_check_free(PyObject *op, PyObject *file);
PyObject *fl_loop_py_watched(PyObject *op, PyObject *file);
PyObject *fl_loop_py_watch_signals(PyObject *op, PyObject *file);
extern const char fl_loop_add_reader_doc[];
extern const char fl_loop_add_writer_doc[];
extern const char fl_loop_remove_reader_doc[];
extern const char fl_loop_remove_writer_doc[];
extern const char fl_loop_flush_doc[];
extern const char fl_loop_watched_doc[];
extern const char fl_loop_watch_signals_doc[];

extern const char fl_loop_sock_recv_doc[];
extern const char fl_loop_sock_recv_into_doc[];
extern const char fl_loop_sock_sendall_doc[];

/* With an underscore: for asyncio's own code, on any descriptor. */
#define FL_LOOP_DESCRIPTOR_METHODS \
    {"add_reader", FL_METHOD(fl_loop_py_add_reader), FL_FASTCALL, \
     fl_loop_add_reader_doc}, \
    {"add_writer", FL_METHOD(fl_loop_py_add_writer), FL_FASTCALL, \
     fl_loop_add_writer_doc}, \
    {"remove_reader", FL_METHOD(fl_loop_py_remove_reader), FL_FASTCALL, \
     fl_loop_remove_reader_doc}, \
    {"remove_writer", FL_METHOD(fl_loop_py_remove_writer), FL_FASTCALL, \
     fl_loop_remove_writer_doc}, \
    {"_add_reader", FL_METHOD(fl_loop_py_add_raw_reader), FL_FASTCALL, NULL}, \
    {"_add_writer", FL_METHOD(fl_loop_py_add_raw_writer), FL_FASTCALL, NULL}, \
    {"_remove_reader", fl_loop_py_remove_raw_reader, METH_O, NULL}, \
    {"_remove_writer", fl_loop_py_remove_raw_writer, METH_O, NULL}, \
    {"sock_recv", FL_METHOD(fl_loop_py_sock_recv), FL_FASTCALL, \
     fl_loop_sock_recv_doc}, \
    {"sock_recv_into", FL_METHOD(fl_loop_py_sock_recv_into), FL_FASTCALL, \
     fl_loop_sock_recv_into_doc}, \
    {"sock_sendall", FL_METHOD(fl_loop_py_sock_sendall), FL_FASTCALL, \
     fl_loop_sock_sendall_doc}, \
    {"_wait_readable", fl_loop_py_wait_readable, METH_O, NULL}, \
    {"_wait_writable", fl_loop_py_wait_writable, METH_O, NULL}, \
    {"_ensure_fd_no_transport", fl_loop_py_check_free, METH_O, NULL}, \
    {"_flush", fl_loop_py_flush, METH_NOARGS, fl_loop_flush_doc}, \
    {"_watched", fl_loop_py_watched, METH_O, fl_loop_watched_doc}, \
    {"_watch_signals", fl_loop_py_watch_signals, METH_O, \
     fl_loop_watch_signals_doc}

#endif
