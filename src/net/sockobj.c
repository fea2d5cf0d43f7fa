/* sockobj.c -- checking where a Python socket object keeps its descriptor. */
#include "net/sockobj.h"

#include <sys/socket.h>

int
fl_sockobj_ask(fl_state *state, PyObject *sock)
{
    PyObject *number = PyObject_CallMethodNoArgs(sock, state->str_fileno);
    if (number == NULL) {
        return -1;
    }
    long fd = PyLong_AsLong(number);
    Py_DECREF(number);
    return fd > INT_MAX || fd < 0 ? -1 : (int)fd;
}

/* Whether a fresh socket has its descriptor there, and none when closed. */
static int
sockobj_looks_right(fl_state *state)
{
    PyObject *sock =
        PyObject_CallFunction(state->CSocket, "ii", AF_UNIX, SOCK_STREAM);
    if (sock == NULL) {
        PyErr_Clear();  /* no descriptors left, or a sandbox: ask each time */
        return 0;
    }
    int fd = fl_sockobj_ask(state, sock);
    bool open = fd >= 0 && ((fl_sockobj *)sock)->fd == fd;
    PyObject *closed = PyObject_CallMethod(sock, "close", NULL);
    bool gone = ((fl_sockobj *)sock)->fd == -1;
    Py_DECREF(sock);
    if (fd < 0 || closed == NULL) {
        Py_XDECREF(closed);
        return -1;
    }
    Py_DECREF(closed);
    return open && gone;
}

int
fl_sockobj_setup(fl_state *state)
{
    Py_ssize_t size = ((PyTypeObject *)state->CSocket)->tp_basicsize;
    if (size < (Py_ssize_t)sizeof(fl_sockobj)) {
        return 0;
    }
    int right = sockobj_looks_right(state);
    if (right < 0) {
        return -1;
    }
    state->socket_fd_ok = right > 0;
    return 0;
}
