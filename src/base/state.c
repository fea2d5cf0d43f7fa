/* state.c -- filling, visiting and clearing the module's state. */
#include "base/state.h"

static PyObject *
state_import(const char *module_name, const char *attribute)
{
    PyObject *module = PyImport_ImportModule(module_name);
    if (module == NULL) {
        return NULL;
    }
    PyObject *value = PyObject_GetAttrString(module, attribute);
    Py_DECREF(module);
    return value;
}

/* As state_import, but a missing attribute gives NULL without an exception. */
static int
state_import_optional(const char *module_name, const char *attribute,
                      PyObject **result)
{
    *result = state_import(module_name, attribute);
    if (*result == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
            return -1;
        }
        PyErr_Clear();
    }
    return 0;
}

/* asyncio itself does without where Python was built without OpenSSL. */
static int
state_import_ssl(fl_state *state)
{
    PyObject *module = PyImport_ImportModule("ssl");
    if (module == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_ImportError)) {
            return -1;
        }
        PyErr_Clear();
        return 0;
    }
    Py_DECREF(module);
#define FL_FILL(name, module, attribute)             \
    state->name = state_import(module, attribute);   \
    if (state->name == NULL) {                       \
        return -1;                                   \
    }
    FL_SSL_IMPORTS(FL_FILL)
#undef FL_FILL
    return 0;
}

int
fl_state_init(fl_state *state)
{
#define FL_FILL(name)                                       \
    state->str_##name = PyUnicode_InternFromString(#name);  \
    if (state->str_##name == NULL) {                        \
        return -1;                                          \
    }
    FL_STRINGS(FL_FILL)
#undef FL_FILL

    /* asyncio before _asyncio: the other way round leaves asyncio with half
       of its C functions on 3.11 to 3.13. */
#define FL_FILL(name, module, attribute)             \
    state->name = state_import(module, attribute);   \
    if (state->name == NULL) {                       \
        return -1;                                   \
    }
    FL_IMPORTS(FL_FILL)
#undef FL_FILL

    if (state_import_ssl(state) < 0
        || state_import_optional("asyncio.events", "_ThreadSafeHandle",
                              &state->AsyncioThreadHandle) < 0
        || state_import_optional("_asyncio", "future_add_to_awaited_by",
                                 &state->add_to_awaited_by) < 0
        || state_import_optional("_asyncio", "future_discard_from_awaited_by",
                                 &state->discard_from_awaited_by) < 0
        || state_import_optional("_asyncio", "_swap_current_task",
                                 &state->swap_current_task) < 0
        || state_import_optional("_asyncio", "_register_eager_task",
                                 &state->register_eager_task) < 0
        || state_import_optional("_asyncio", "_unregister_eager_task",
                                 &state->unregister_eager_task) < 0
        || state_import_optional("_asyncio", "_current_tasks",
                                 &state->current_tasks) < 0)
    {
        return -1;
    }
    if (state->AsyncioThreadHandle == NULL) {
        state->AsyncioThreadHandle = Py_NewRef(state->AsyncioHandle);
    }
    state->kw_context = PyTuple_Pack(1, state->str_context);
    state->kw_wrap_bio =
        Py_BuildValue("(ss)", "server_side", "server_hostname");
    state->zero = PyLong_FromLong(0);
    return state->kw_context == NULL || state->kw_wrap_bio == NULL
                   || state->zero == NULL
               ? -1
               : 0;
}

int
fl_state_traverse(fl_state *state, visitproc visit, void *arg)
{
#define FL_VISIT(name) Py_VISIT(state->name##_type);
    FL_TYPES(FL_VISIT)
#undef FL_VISIT
#define FL_VISIT(name, module, attribute) Py_VISIT(state->name);
    FL_IMPORTS(FL_VISIT)
    FL_SSL_IMPORTS(FL_VISIT)
#undef FL_VISIT
    Py_VISIT(state->AsyncioThreadHandle);
    Py_VISIT(state->stream_data_received);
    Py_VISIT(state->stream_feed_data);
    Py_VISIT(state->add_to_awaited_by);
    Py_VISIT(state->discard_from_awaited_by);
    Py_VISIT(state->swap_current_task);
    Py_VISIT(state->register_eager_task);
    Py_VISIT(state->unregister_eager_task);
    Py_VISIT(state->current_tasks);
    Py_VISIT(state->stock_step_type);
    return 0;
}

void
fl_state_clear(fl_state *state)
{
    Py_CLEAR(state->tls_window);
    /* Freeing pooled memory looks at its type once more; and from the moment
       that the state knows no types, nothing goes into a pool. */
#define FL_TAKE(name)                            \
    PyTypeObject *name##_type = state->name##_type; \
    state->name##_type = NULL;
    FL_TYPES(FL_TAKE)
#undef FL_TAKE
    fl_state_free_pools(state);
#define FL_DROP(name) Py_XDECREF(name##_type);
    FL_TYPES(FL_DROP)
#undef FL_DROP
#define FL_CLEAR(name) Py_CLEAR(state->str_##name);
    FL_STRINGS(FL_CLEAR)
#undef FL_CLEAR
#define FL_CLEAR(name, module, attribute) Py_CLEAR(state->name);
    FL_IMPORTS(FL_CLEAR)
    FL_SSL_IMPORTS(FL_CLEAR)
#undef FL_CLEAR
    Py_CLEAR(state->AsyncioThreadHandle);
    Py_CLEAR(state->stream_data_received);
    Py_CLEAR(state->stream_feed_data);
    Py_CLEAR(state->add_to_awaited_by);
    Py_CLEAR(state->discard_from_awaited_by);
    Py_CLEAR(state->swap_current_task);
    Py_CLEAR(state->register_eager_task);
    Py_CLEAR(state->unregister_eager_task);
    Py_CLEAR(state->current_tasks);
    Py_CLEAR(state->stock_step_type);
    for (int i = 0; i < FL_READBUFS; i++) {
        Py_CLEAR(state->readbufs[i]);
    }
    PyMem_RawFree(state->datagram_arena);
    state->datagram_arena = NULL;
    PyMem_RawFree(state->tls_space);
    state->tls_space = NULL;
    Py_CLEAR(state->kw_context);
    Py_CLEAR(state->kw_wrap_bio);
    Py_CLEAR(state->zero);
    Py_CLEAR(state->stop);
    Py_CLEAR(state->stock_names);
}

void
fl_state_free_pools(fl_state *state)
{
    fl_pool_fini(&state->handles);
    fl_pool_fini(&state->timers);
    fl_pool_fini(&state->futures);
    fl_pool_fini(&state->future_iters);
    fl_pool_fini(&state->tasks);
    fl_pool_fini(&state->wakeups);
}

PyTypeObject *
fl_add_type(PyObject *module, PyType_Spec *spec, PyObject *base)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, base);
    if (type == NULL) {
        return NULL;
    }
    if (PyModule_AddType(module, (PyTypeObject *)type) < 0) {
        Py_DECREF(type);
        return NULL;
    }
    return (PyTypeObject *)type;
}
