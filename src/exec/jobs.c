/* jobs.c -- the queue behind the default executor.

   Everything but the waiting itself happens under the GIL, so the queue needs
   no lock.  A worker that runs out of jobs gives the GIL away before it wakes
   the loop: the loop's thread then finds it free, and two threads on one core
   hand over with two switches instead of four. */
#include "exec/jobs.h"

#include <fcntl.h>
#include <unistd.h>

#include "os/gate.h"
#include "task/future.h"

/* One call.  Lives in the queue, then in a worker, then in the loop's ready
   queue; owned by exactly one of them. */
typedef struct {
    PyObject_HEAD
    PyObject *loop;
    PyObject *future;
    PyObject *outcome;  /* the result or the exception, once it ran */
    bool failed;
    Py_ssize_t count;
    PyObject **call;    /* function, then arguments; owned; NULL once run */
} JobObject;

typedef struct {
    PyObject_HEAD
    fl_ring jobs;
    fl_gate gate;
    bool gate_is_open;
    bool closing;
    int wake_fd;         /* our own duplicate of the loop's: a worker may
                            write to it when the loop has closed its */
    size_t idle;         /* workers at the gate */
    size_t admitted;     /* ... that were let through but did not come yet */
    size_t workers;
    size_t max_workers;
    PyObject *spawn;     /* starts a worker thread; owned */
} JobQueueObject;

/* --- Jobs -----------------------------------------------------------------*/

static void
job_drop_call(JobObject *job)
{
    PyObject **call = job->call;
    Py_ssize_t count = job->count;
    job->call = NULL;
    job->count = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_DECREF(call[i]);
    }
    PyMem_Free(call);
}

static JobObject *
job_new(LoopObject *loop, PyObject *const *call, Py_ssize_t count)
{
    fl_state *state = loop->state;
    JobObject *job = PyObject_New(JobObject, state->Job_type);
    if (job == NULL) {
        return NULL;
    }
    job->loop = Py_NewRef(loop);
    job->future = NULL;
    job->outcome = NULL;
    job->failed = false;
    job->count = 0;
    job->call = PyMem_New(PyObject *, (size_t)count);
    if (job->call == NULL) {
        Py_DECREF(job);
        PyErr_NoMemory();
        return NULL;
    }
    for (; job->count < count; job->count++) {
        job->call[job->count] = Py_NewRef(call[job->count]);
    }
    return job;
}

static void
job_dealloc(PyObject *op)
{
    JobObject *job = (JobObject *)op;
    PyTypeObject *type = Py_TYPE(op);
    job_drop_call(job);
    Py_XDECREF(job->loop);
    Py_XDECREF(job->future);
    Py_XDECREF(job->outcome);
    type->tp_free(op);
    Py_DECREF(type);
}

/* Whether the future is one that C may look into; create_future can be
   overridden. */
static bool
job_has_known_future(fl_state *state, JobObject *job)
{
    return state->layout_ok && fl_is_exact_future(state, job->future);
}

/* Whether nobody waits for the job any more. */
static int
job_is_cancelled(fl_state *state, JobObject *job)
{
    if (FL_LIKELY(job_has_known_future(state, job))) {
        return ((FutureObject *)job->future)->state != FL_PENDING;
    }
    PyObject *done = PyObject_CallMethod(job->future, "done", NULL);
    int rc = done == NULL ? -1 : PyObject_IsTrue(done);
    Py_XDECREF(done);
    return rc;
}

/* In the loop's thread: the outcome goes to the future.  Runs Python. */
static int
job_deliver(fl_state *state, PyObject *Py_UNUSED(loop), PyObject *op)
{
    JobObject *job = (JobObject *)op;
    int cancelled = job_is_cancelled(state, job);
    if (cancelled != 0) {
        return cancelled < 0 ? -1 : 0;
    }
    if (FL_LIKELY(!job->failed && job_has_known_future(state, job))) {
        return fl_future_set_result(state, (FutureObject *)job->future,
                                    job->outcome);
    }
    PyObject *outcome = job->failed ? PyObject_CallOneArg(
                                          state->convert_future_exc,
                                          job->outcome)
                                    : Py_NewRef(job->outcome);
    if (outcome == NULL) {
        return -1;
    }
    PyObject *result = PyObject_CallMethod(
        job->future, job->failed ? "set_exception" : "set_result", "O",
        outcome);
    Py_DECREF(outcome);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* --- Workers --------------------------------------------------------------*/

/* Runs one job and queues its outcome in the loop.  Steals job.  Returns
   whether the loop sleeps and must be woken.  Runs Python: the job. */
static bool
queue_run_job(JobObject *job)
{
    LoopObject *loop = (LoopObject *)job->loop;
    fl_state *state = loop->state;
    if (job_is_cancelled(state, job) != 0) {
        PyErr_Clear();
        Py_DECREF(job);
        return false;
    }
    PyObject *result = PyObject_Vectorcall(
        job->call[0], job->call + 1, (size_t)job->count - 1, NULL);
    job->failed = result == NULL;
    job->outcome = result != NULL ? result : fl_take_raised();
    job_drop_call(job);
    if (loop->closed) {
        /* As in asyncio, nobody is told. */
        Py_DECREF(job);
        return false;
    }
    if (fl_ring_push(&loop->ready, (uintptr_t)job | FL_READY_JOB) < 0) {
        Py_DECREF(job);
        PyErr_NoMemory();
        PyErr_WriteUnraisable(NULL);
        return false;
    }
    bool wake = loop->polling && !loop->wake_sent;
    loop->wake_sent |= wake;
    return wake;
}

static void
queue_wake_loop(JobQueueObject *queue)
{
    fl_poller_wake_fd(queue->wake_fd);
}

PyDoc_STRVAR(queue_work_doc,
             "Run jobs until the queue is closed and empty: a worker's life.");

static PyObject *
queue_work(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    JobQueueObject *queue = (JobQueueObject *)op;
    bool wake = false;
    for (;;) {
        if (fl_ring_count(&queue->jobs) > 0) {
            if (wake) {
                /* More to do: the loop need not wait for that. */
                queue_wake_loop(queue);
            }
            wake = queue_run_job((JobObject *)fl_ring_pop(&queue->jobs));
            continue;
        }
        if (queue->closing) {
            break;
        }
        queue->idle++;
        Py_BEGIN_ALLOW_THREADS
        if (wake) {
            queue_wake_loop(queue);
            wake = false;
        }
        fl_gate_wait(&queue->gate);
        Py_END_ALLOW_THREADS
        queue->idle--;
        queue->admitted--;
    }
    queue->workers--;
    if (wake) {
        queue_wake_loop(queue);
    }
    Py_RETURN_NONE;
}

/* One more worker may come through the gate, if one waits. */
static bool
queue_admit(JobQueueObject *queue)
{
    if (queue->idle <= queue->admitted) {
        return false;
    }
    queue->admitted++;
    fl_gate_admit_one(&queue->gate);
    return true;
}

PyObject *
fl_jobs_submit(LoopObject *loop, PyObject *op, PyObject *const *call,
               Py_ssize_t count)
{
    JobQueueObject *queue = (JobQueueObject *)op;
    if (fl_loop_check_fork(loop) < 0) {
        return NULL;
    }
    if (queue->closing) {
        PyErr_SetString(PyExc_RuntimeError,
                        "cannot schedule new futures after shutdown");
        return NULL;
    }
    JobObject *job = job_new(loop, call, count);
    if (job == NULL) {
        return NULL;
    }
    PyObject *future = PyObject_CallMethodNoArgs(
        (PyObject *)loop, loop->state->str_create_future);
    if (future == NULL) {
        Py_DECREF(job);
        return NULL;
    }
    job->future = Py_NewRef(future);
    if (fl_ring_push(&queue->jobs, (uintptr_t)job) < 0) {
        Py_DECREF(job);
        Py_DECREF(future);
        return PyErr_NoMemory();
    }
    if (!queue_admit(queue) && queue->workers < queue->max_workers) {
        queue->workers++;
        /* Runs Python: a thread starts. */
        PyObject *started = PyObject_CallNoArgs(queue->spawn);
        if (started == NULL) {
            queue->workers--;
            if (queue->workers == 0) {
                /* Nobody would ever run it. */
                while (fl_ring_count(&queue->jobs) > 0) {
                    Py_DECREF((PyObject *)fl_ring_pop(&queue->jobs));
                }
                Py_DECREF(future);
                return NULL;
            }
            PyErr_Clear();  /* the others will come to it */
        }
        Py_XDECREF(started);
    }
    return future;
}

/* --- The queue as Python sees it ------------------------------------------*/

static PyObject *
queue_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"loop", "max_workers", "spawn", NULL};
    PyObject *module = PyType_GetModuleByDef(type, &fl_module);
    if (module == NULL) {
        return NULL;
    }
    fl_state *state = PyModule_GetState(module);
    PyObject *loop, *spawn;
    Py_ssize_t max_workers;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!nO:JobQueue", keywords,
                                     state->Loop_type, &loop, &max_workers,
                                     &spawn))
    {
        return NULL;
    }
    JobQueueObject *queue = (JobQueueObject *)type->tp_alloc(type, 0);
    if (queue == NULL) {
        return NULL;
    }
    queue->wake_fd =
        fcntl(((LoopObject *)loop)->poller.wake_fd, F_DUPFD_CLOEXEC, 0);
    if (queue->wake_fd < 0 || fl_gate_open(&queue->gate) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(queue);
        return NULL;
    }
    queue->gate_is_open = true;
    queue->max_workers = max_workers < 1 ? 1 : (size_t)max_workers;
    queue->spawn = Py_NewRef(spawn);
    return (PyObject *)queue;
}

PyDoc_STRVAR(queue_close_doc,
             "Take no more jobs; workers end when the queue is empty.");

static PyObject *
queue_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    JobQueueObject *queue = (JobQueueObject *)op;
    queue->closing = true;
    while (queue_admit(queue)) {
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(queue_put_doc,
             "What concurrent.futures calls at the interpreter's end.");

static PyObject *
queue_put(PyObject *op, PyObject *Py_UNUSED(item))
{
    return queue_close(op, NULL);
}

PyDoc_STRVAR(queue_cancel_pending_doc,
             "Throw out the jobs that no worker has begun; return their "
             "futures.");

static PyObject *
queue_cancel_pending(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    JobQueueObject *queue = (JobQueueObject *)op;
    PyObject *futures = PyList_New(0);
    while (futures != NULL && fl_ring_count(&queue->jobs) > 0) {
        JobObject *job = (JobObject *)fl_ring_pop(&queue->jobs);
        if (PyList_Append(futures, job->future) < 0) {
            Py_CLEAR(futures);
        }
        Py_DECREF(job);
    }
    return futures;
}

static int
queue_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((JobQueueObject *)op)->spawn);
    return 0;
}

static int
queue_clear(PyObject *op)
{
    Py_CLEAR(((JobQueueObject *)op)->spawn);
    return 0;
}

static void
queue_dealloc(PyObject *op)
{
    JobQueueObject *queue = (JobQueueObject *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    while (fl_ring_count(&queue->jobs) > 0) {
        Py_DECREF((PyObject *)fl_ring_pop(&queue->jobs));
    }
    fl_ring_fini(&queue->jobs);
    queue_clear(op);
    if (queue->gate_is_open) {
        fl_gate_close(&queue->gate);
    }
    if (queue->wake_fd >= 0) {
        close(queue->wake_fd);
    }
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef queue_methods[] = {
    {"work", queue_work, METH_NOARGS, queue_work_doc},
    {"close", queue_close, METH_NOARGS, queue_close_doc},
    {"put", queue_put, METH_O, queue_put_doc},
    {"cancel_pending", queue_cancel_pending, METH_NOARGS,
     queue_cancel_pending_doc},
    {NULL},
};

static PyType_Slot queue_slots[] = {
    {Py_tp_doc, "Jobs for worker threads, whose outcomes go to a loop."},
    {Py_tp_new, queue_new},
    {Py_tp_dealloc, queue_dealloc},
    {Py_tp_traverse, queue_traverse},
    {Py_tp_clear, queue_clear},
    {Py_tp_methods, queue_methods},
    {0, NULL},
};

static PyType_Spec queue_spec = {
    .name = "fastloop._core.JobQueue",
    .basicsize = sizeof(JobQueueObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = queue_slots,
};

/* A job is never seen by the collector: it lives for one trip, and what it
   refers to is meanwhile in use. */
static PyType_Slot job_slots[] = {
    {Py_tp_dealloc, job_dealloc},
    {0, NULL},
};

static PyType_Spec job_spec = {
    .name = "fastloop._core.Job",
    .basicsize = sizeof(JobObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = job_slots,
};

int
fl_jobs_setup(PyObject *module, fl_state *state)
{
    state->JobQueue_type = fl_add_type(module, &queue_spec, NULL);
    state->Job_type = fl_add_type(module, &job_spec, NULL);
    if (state->JobQueue_type == NULL || state->Job_type == NULL) {
        return -1;
    }
    state->run_job = job_deliver;
    return 0;
}
