/* registry.c -- the registry's ways through asyncio's exported functions. */
#include "task/registry.h"

int
fl_registry_call(PyObject *function, PyObject *loop, PyObject *task)
{
    PyObject *args[2] = {loop, task};
    PyObject *result = PyObject_Vectorcall(function, args, 2, NULL);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

PyObject *
fl_swap_task(fl_state *state, PyObject *loop, PyObject *task)
{
#if FL_PY314
    if (FL_LIKELY(state->running_task_offset != 0)) {
        PyObject **slot = (PyObject **)((char *)PyThreadState_Get()
                                        + state->running_task_offset);
        if (FL_LIKELY(slot[-1] == loop)) {
            PyObject *before = *slot;
            *slot = task == Py_None ? NULL : Py_NewRef(task);
            return before == NULL ? Py_NewRef(Py_None) : before;
        }
    }
#endif
    PyObject *args[2] = {loop, task};
    return PyObject_Vectorcall(state->swap_current_task, args, 2, NULL);
}

int
fl_register_task(fl_state *state, TaskObject *task, PyObject *near)
{
#if FL_PY314
    /* Beside a task of this thread that is in the list: no need to know where
       the list begins. */
    TaskObject *other = (TaskObject *)near;
    if (FL_LIKELY(other != NULL && other->link.next != NULL
                  && task->link.next == NULL))
    {
        task->link.prev = other->link.prev;
        task->link.next = &other->link;
        other->link.prev->next = &task->link;
        other->link.prev = &task->link;
        return 0;
    }
#else
    (void)near;
#endif
    PyObject *result = PyObject_CallOneArg(state->register_task,
                                           (PyObject *)task);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}
