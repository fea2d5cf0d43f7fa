/* module.c -- the module fastloop._core: fill the state, set the types up. */
#include "base/context.h"
#include "base/state.h"
#include "exec/jobs.h"
#include "loop/handle.h"
#include "loop_type.h"
#include "net/setup.h"
#include "proc/spawn.h"
#include "task/await.h"
#include "task/task.h"
#include "tls/tls.h"

#ifndef FL_BUILD_KIND
#define FL_BUILD_KIND "unknown"
#endif

PyMODINIT_FUNC PyInit__core(void);

PyDoc_STRVAR(module_after_fork_doc,
             "In the child of a fork: the loops of the parent are not ours.");

static PyObject *
module_after_fork(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    fl_state *state = PyModule_GetState(module);
    state->forks++;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(module_set_final_loop_doc,
             "Name the class that most loops will be of.");

static PyObject *
module_set_final_loop(PyObject *module, PyObject *type)
{
    fl_state *state = PyModule_GetState(module);
    if (!PyType_Check(type)
        || !PyType_IsSubtype((PyTypeObject *)type, state->Loop_type))
    {
        PyErr_SetString(PyExc_TypeError, "a subclass of _core.Loop expected");
        return NULL;
    }
    if (fl_loop_type_finish(state, (PyTypeObject *)type) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef module_methods[] = {
    {"_after_fork", module_after_fork, METH_NOARGS, module_after_fork_doc},
    {"_set_final_loop", module_set_final_loop, METH_O,
     module_set_final_loop_doc},
    {NULL},
};

/* Future and Task: our own, or asyncio's where its structs are not as we
   think. */
static int
module_setup_tasks(PyObject *module, fl_state *state)
{
    if (fl_layout_probe(state) < 0) {
        return -1;
    }
#ifdef FL_DEBUG
    if (getenv("FASTLOOP_DEBUG_NO_LAYOUT") != NULL) {
        state->layout_ok = false;
    }
#endif
    if (state->layout_ok) {
        fl_step_setup(state);
        return fl_await_setup(module, state) < 0
                       || fl_future_setup(module, state) < 0
                       || fl_task_setup(module, state) < 0
                       || fl_taskcall_setup(module, state) < 0
                   ? -1
                   : 0;
    }
    if (PyModule_AddObjectRef(module, "Future", state->AsyncioFuture) < 0
        || PyModule_AddObjectRef(module, "Task", state->AsyncioTask) < 0)
    {
        return -1;
    }
    state->Future_type = (PyTypeObject *)Py_NewRef(state->AsyncioFuture);
    state->Task_type = (PyTypeObject *)Py_NewRef(state->AsyncioTask);
    return 0;
}

static int
module_exec(PyObject *module)
{
    fl_state *state = PyModule_GetState(module);
    if (fl_state_init(state) < 0 || fl_context_probe(state) < 0
        || fl_handle_setup(module, state) < 0
        || module_setup_tasks(module, state) < 0
        || fl_jobs_setup(module, state) < 0
        || fl_net_setup(module, state) < 0
        || fl_tls_setup(module, state) < 0
        || fl_proc_setup(module, state) < 0
        || fl_loop_type_setup(module, state) < 0)
    {
        return -1;
    }
    if (PyModule_AddIntConstant(module, "native_tasks", state->layout_ok) < 0
        || PyModule_AddIntConstant(module, "shared_contexts",
                                   state->context_ok) < 0
        || PyModule_AddStringConstant(module, "build", FL_BUILD_KIND) < 0)
    {
        return -1;
    }
    return 0;
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    return fl_state_traverse(PyModule_GetState(module), visit, arg);
}

static int
module_clear(PyObject *module)
{
    fl_state_clear(PyModule_GetState(module));
    return 0;
}

static void
module_free(void *module)
{
    fl_state_clear(PyModule_GetState((PyObject *)module));
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {0, NULL},
};

struct PyModuleDef fl_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "fastloop._core",
    .m_doc = "The event loop, Future and Task of fastloop.",
    .m_size = sizeof(fl_state),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&fl_module);
}
