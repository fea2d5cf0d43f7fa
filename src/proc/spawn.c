/* spawn.c -- _spawn() and _reap(): what fastloop/_processes.py has in place of
   _posixsubprocess.fork_exec() and os.waitpid().

   All that the child needs is turned into C strings first.  What cannot be
   turned raises, before anything has happened, and the standard library's own
   way is then gone, which words the error. */
#include "proc/spawn.h"

#include <errno.h>

#include "os/spawn.h"

/* Strings for the child: bytes objects, and pointers to what is in them. */
typedef struct {
    PyObject *kept;  /* a list that owns the bytes */
    char **argv;
    char **programs;
    char **envp;
    int *fds;
} fl_strings;

static void
strings_free(fl_strings *strings)
{
    Py_CLEAR(strings->kept);
    PyMem_Free(strings->argv);
    PyMem_Free(strings->programs);
    PyMem_Free(strings->envp);
    PyMem_Free(strings->fds);
}

/* op as a path or an argument, in the encoding of file names; borrowed from
   strings.  Runs Python: __fspath__. */
static char *
strings_keep(fl_strings *strings, PyObject *op)
{
    PyObject *bytes;
    if (!PyUnicode_FSConverter(op, &bytes)) {
        return NULL;
    }
    int rc = PyList_Append(strings->kept, bytes);
    Py_DECREF(bytes);
    return rc < 0 ? NULL : PyBytes_AS_STRING(bytes);  // owned by the list
}

/* "name=value".  Runs Python: __fspath__. */
static char *
strings_keep_variable(fl_strings *strings, PyObject *item)
{
    if (!PyTuple_Check(item) || PyTuple_GET_SIZE(item) != 2) {
        PyErr_SetString(PyExc_TypeError, "a pair expected");
        return NULL;
    }
    const char *name = strings_keep(strings, PyTuple_GET_ITEM(item, 0));
    const char *value =
        name == NULL ? NULL
                     : strings_keep(strings, PyTuple_GET_ITEM(item, 1));
    if (value == NULL) {
        return NULL;
    }
    /* Whether a name may be empty depends on the way that Popen takes. */
    if (*name == '\0' || strchr(name, '=') != NULL) {
        PyErr_SetString(PyExc_ValueError, "illegal environment variable name");
        return NULL;
    }
    PyObject *both = PyBytes_FromFormat("%s=%s", name, value);
    char *text = both == NULL ? NULL : strings_keep(strings, both);
    Py_XDECREF(both);
    return text;
}

/* What `keep` makes of each of the items, a tuple or a list that is nobody
   else's.  Steals items, which may be NULL with an exception.  Runs Python:
   __fspath__. */
static char **
strings_collect(fl_strings *strings, PyObject *items,
                char *(*keep)(fl_strings *, PyObject *))
{
    if (items == NULL) {
        return NULL;
    }
    Py_ssize_t n = PySequence_Fast_GET_SIZE(items);
    char **found = PyMem_Calloc((size_t)n + 1, sizeof(*found));
    if (found == NULL) {
        PyErr_NoMemory();
    }
    for (Py_ssize_t i = 0; found != NULL && i < n; i++) {
        found[i] = keep(strings, PySequence_Fast_GET_ITEM(items, i));
        if (found[i] == NULL) {
            PyMem_Free(found);
            found = NULL;
        }
    }
    Py_DECREF(items);
    return found;
}

/* A tuple of descriptors, which must ascend. */
static int
strings_take_fds(fl_strings *strings, PyObject *fds, fl_spawn_plan *plan)
{
    Py_ssize_t n = PyTuple_GET_SIZE(fds);
    strings->fds = PyMem_Calloc((size_t)n + 1, sizeof(int));
    if (strings->fds == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    int before = -1;
    for (Py_ssize_t i = 0; i < n; i++) {
        long fd = PyLong_AsLong(PyTuple_GET_ITEM(fds, i));
        if (fd <= before || fd > INT_MAX) {
            if (!PyErr_Occurred()) {
                PyErr_SetString(PyExc_ValueError, "bad value(s) in fds_to_keep");
            }
            return -1;
        }
        strings->fds[i] = before = (int)fd;
    }
    plan->keep = strings->fds;
    plan->keep_count = (size_t)n;
    return 0;
}

/* Everything that the child needs, in C.  Runs Python. */
static int
spawn_fill(fl_strings *strings, PyObject *argv, PyObject *programs,
           PyObject *env, PyObject *cwd, PyObject *fds, fl_spawn_plan *plan)
{
    if (strings->kept == NULL || strings_take_fds(strings, fds, plan) < 0) {
        return -1;
    }
    strings->argv =
        strings_collect(strings, PySequence_Tuple(argv), strings_keep);
    if (strings->argv == NULL) {
        return -1;
    }
    strings->programs =
        strings_collect(strings, PySequence_Tuple(programs), strings_keep);
    if (strings->programs == NULL) {
        return -1;
    }
    if (env != Py_None) {
        strings->envp = strings_collect(strings, PyMapping_Items(env),
                                        strings_keep_variable);
        if (strings->envp == NULL) {
            return -1;
        }
    }
    if (cwd != Py_None) {
        plan->cwd = strings_keep(strings, cwd);
        if (plan->cwd == NULL) {
            return -1;
        }
    }
    plan->argv = strings->argv;
    plan->programs = strings->programs;
    plan->envp = strings->envp;
    return 0;
}

/* None in place of an ordinary exception: an argument is wrong. */
static PyObject *
spawn_refuse(void)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
        return NULL;
    }
    PyErr_Clear();
    Py_RETURN_NONE;
}

PyDoc_STRVAR(spawn_doc,
"_spawn(program, args, programs, env, cwd, stdin, stdout, stderr, pass_fds,\n"
"       close_fds, restore_signals, start_new_session, process_group, umask,\n"
"       /)\n--\n\n"
"Start the first of the programs that can be: (pid, pidfd).\n"
"If none can, (-errno, stage).  pidfd is -1 where there is none to have.\n"
"None: an argument is wrong, and nothing has been done.");

static PyObject *
spawn_py_spawn(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *program, *argv, *programs, *env, *cwd, *fds;
    int close_fds, restore_signals, new_session;
    fl_spawn_plan plan = {0};
    if (!PyArg_ParseTuple(args, "OOOOOiiiO!pppii:_spawn", &program, &argv,
                          &programs, &env, &cwd, &plan.stdio[0], &plan.stdio[1],
                          &plan.stdio[2], &PyTuple_Type, &fds, &close_fds,
                          &restore_signals, &new_session, &plan.process_group,
                          &plan.umask))
    {
        return spawn_refuse();
    }
    plan.close_fds = close_fds;
    plan.restore_signals = restore_signals;
    plan.new_session = new_session;
    if (plan.stdio[0] < -1 || plan.stdio[1] < -1 || plan.stdio[2] < -1) {
        Py_RETURN_NONE;  /* whatever Popen makes of that */
    }
    fl_strings strings = {.kept = PyList_New(0)};
    PyObject *result = NULL;
    if (spawn_fill(&strings, argv, programs, env, cwd, fds, &plan) < 0) {
        result = spawn_refuse();
    }
    /* Runs Python: hooks, which may refuse. */
    else if (PySys_Audit("subprocess.Popen", "OOOO", program, argv, cwd, env)
             == 0)
    {
        /* The GIL is kept: C's environ is os.environ's, which other threads
           would be free to change. */
        fl_spawned spawned;
        int rc = fl_spawn(&plan, &spawned);
        result = rc < 0 ? Py_BuildValue("ii", rc, (int)spawned.stage)
                        : Py_BuildValue("ii", (int)spawned.pid, spawned.pidfd);
    }
    strings_free(&strings);
    return result;
}

PyDoc_STRVAR(spawn_reap_doc,
"_reap(pid, pidfd, /)\n--\n\n"
"The return code of a child that has ended, None of one that has not.\n"
"A ChildProcessError if somebody else took it.");

static PyObject *
spawn_py_reap(PyObject *Py_UNUSED(module), PyObject *args)
{
    int pid, pidfd, status;
    if (!PyArg_ParseTuple(args, "ii:_reap", &pid, &pidfd)) {
        return NULL;
    }
    int rc = fl_spawn_reap(pid, pidfd, &status);
    if (rc < 0) {
        errno = -rc;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    if (rc == 0) {
        Py_RETURN_NONE;
    }
    return PyLong_FromLong(status);
}

static PyMethodDef spawn_functions[] = {
    {"_spawn", spawn_py_spawn, METH_VARARGS, spawn_doc},
    {"_reap", spawn_py_reap, METH_VARARGS, spawn_reap_doc},
    {NULL},
};

int
fl_proc_setup(PyObject *module, fl_state *state)
{
    (void)state;
    return PyModule_AddFunctions(module, spawn_functions) < 0
                   || PyModule_AddIntConstant(module, "_SPAWN_CHDIR",
                                              FL_SPAWN_CHDIR)
                          < 0
                   || PyModule_AddIntConstant(module, "_SPAWN_EXEC",
                                              FL_SPAWN_EXEC)
                          < 0
               ? -1
               : 0;
}
