/* sockobj.c -- checking where a Python socket object keeps its descriptor. */
#include "net/sockobj.h"

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

/* A socket object around a number that is no descriptor does for a look. */
static int
sockobj_looks_right(fl_state *state, int fd)
{
    PyObject *sock =
        PyObject_CallFunction(state->CSocket, "iiii", 2, 1, 0, fd);
    if (sock == NULL) {
        PyErr_Clear();
        return 0;
    }
    int before = ((fl_sockobj *)sock)->fd;
    PyObject *detached = PyObject_CallMethod(sock, "detach", NULL);
    int after = ((fl_sockobj *)sock)->fd;
    if (detached == NULL) {
        Py_DECREF(sock);
        return -1;
    }
    Py_DECREF(detached);
    Py_DECREF(sock);
    return before == fd && after == -1;
}

int
fl_sockobj_setup(fl_state *state)
{
    Py_ssize_t size = ((PyTypeObject *)state->CSocket)->tp_basicsize;
    if (size < (Py_ssize_t)sizeof(fl_sockobj)) {
        return 0;
    }
    int first = sockobj_looks_right(state, 1234567);
    int second = first > 0 ? sockobj_looks_right(state, 7654321) : first;
    if (second < 0) {
        return -1;
    }
    state->socket_fd_ok = second > 0;
    return 0;
}
