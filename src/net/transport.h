/* transport.h -- what all transports have in common.

   A transport owns one descriptor.  It says so in the loop's watches, and it
   alone closes it, in fl_transport_close_file, once.  A Python socket object
   for it is made when somebody asks for one; from then on that object closes
   the descriptor, on our word.  A socket that the user passed in may be closed
   behind our back; fl_transport_alive notices before the number is used for
   another connection.

   Life: opened (protocol and loop are set) -- closing (no more reading; what
   was written is still sent) -- lost > 0 (connection_lost is scheduled) --
   closed (fd is -1; loop, protocol and file are gone).

   The fields that asyncio keeps in its slots lie where asyncio's classes have
   them, in the order of this struct: _extra, and four that only C sees. */
#ifndef FL_NET_TRANSPORT_H
#define FL_NET_TRANSPORT_H

#include "loop/channel.h"
#include "loop/watcher.h"
#include "net/address.h"
#include "net/readbuf.h"
#include "net/writeq.h"

typedef struct {
    PyObject_HEAD
    PyObject *extra;       /* _extra, a dict; NULL until somebody asks */
    PyObject *loop;        /* a LoopObject; NULL when closed */
    PyObject *protocol;    /* NULL when closed */
    PyObject *server;      /* the asyncio.Server it came from, or NULL */
    PyObject *file;        /* socket or pipe; NULL: not made, or closed */
    const fl_channel_ops *ops;

    PyObject *dict;
    PyObject *weakrefs;
    PyObject *context;       /* of all callbacks (3.15), or NULL */
    PyObject *read_context;  /* of reads; owned */
    PyObject *write_context; /* of what the poller's "writable" leads to */
    PyObject *empty_waiter;  /* sendfile's Future, or NULL */

    int fd;                /* -1 when closed */
    int number;            /* what fd was, for repr */
    unsigned int lost;     /* asyncio's _conn_lost: writes after the end too */
    Py_ssize_t high_water;
    Py_ssize_t low_water;
    fl_writeq queue;
    fl_readbuf_habit habit;
    fl_address peer;       /* as accept() gave it */
    fl_address name;       /* of our side; when closed, for who still asks */

    int proto;             /* ... and family, of a socket without an object */
    uint8_t family;
    uint8_t read_mode;     /* how data goes to the protocol: deliver.h */
    bool closing : 1;
    bool paused : 1;             /* pause_reading() */
    bool reading : 1;            /* the watcher has us as reader */
    bool writing : 1;            /* ... as writer */
    bool held : 1;               /* the queue leaves when the turn ends */
    bool eof : 1;                /* write_eof() */
    bool protocol_connected : 1;
    bool protocol_paused : 1;    /* pause_writing() was called */
    bool is_socket : 1;
    bool lent : 1;               /* sendfile has the descriptor */
    bool ended : 1;              /* a pipe's connection_lost is scheduled */
    bool loud_errors : 1;        /* a read pipe: report OSErrors but EIO */
} TransportObject;

static inline fl_state *
fl_transport_state(TransportObject *self)
{
    return fl_type_state(Py_TYPE(self));
}

/* Borrowed; NULL when the transport is closed. */
static inline LoopObject *
fl_transport_loop(TransportObject *self)
{
    return (LoopObject *)self->loop;
}

/* --- Life -----------------------------------------------------------------*/

/* Memory with every field empty, tracked. */
TransportObject *fl_transport_alloc(PyTypeObject *type,
                                    const fl_channel_ops *ops) FL_RAISES;

/* Fails if a transport has fd: asyncio's _ensure_fd_no_transport, which names
   the object `file` that fd came from.  Runs Python: the error's text. */
int fl_transport_check_free(LoopObject *loop, int fd, PyObject *file)
    FL_RAISES;

/* file.fileno(), which must not be another transport's; -1 with an exception.
   Runs Python. */
int fl_transport_ask_fd(LoopObject *loop, PyObject *file) FL_RAISES;

/* Asks the socket for the addresses of both ends, so that they are known when
   it is closed. */
int fl_transport_keep_names(TransportObject *self) FL_RAISES;

/* Class attributes that are to be as in asyncio's class `model`.  names ends
   with NULL. */
int fl_transport_copy_constants(PyTypeObject *type, PyObject *model,
                                const char *const *names) FL_RAISES;

/* The same by the name of a class in asyncio.selector_events. */
int fl_transport_copy_selector(fl_state *state, PyTypeObject *type,
                               const char *like, const char *const *names)
    FL_RAISES;

/* Takes possession of fd.  On failure the descriptor stays the caller's. */
int fl_transport_own(TransportObject *self, LoopObject *loop, int fd)
    FL_RAISES;

/* Making it failed: the descriptor and its object are the caller's again. */
void fl_transport_forget(TransportObject *self);

/* The server wants to know its connections.  Runs Python. */
int fl_transport_attach(TransportObject *self, PyObject *server) FL_RAISES;
int fl_transport_detach(TransportObject *self) FL_RAISES;

/* Schedules connection_made, then the start of reading (unless start is
   NULL; a method's name), then the waiter's result.  Runs Python: an
   overridden call_soon. */
int fl_transport_begin(TransportObject *self, PyObject *start,
                       PyObject *waiter) FL_RAISES;

/* loop.call_soon(callback, arg) in the transport's context, if it has one. */
int fl_transport_call_soon(TransportObject *self, PyObject *callback,
                           PyObject *arg) FL_RAISES;

/* The same for one of the transport's own methods. */
int fl_transport_call_own_soon(TransportObject *self, PyObject *name,
                               PyObject *arg) FL_RAISES;

/* Whether the descriptor is still the one that we were given. */
bool fl_transport_alive(TransportObject *self);

/* An exception is raised: report it as asyncio's _fatal_error does and tear
   the connection down.  -1 only for what ends the loop.  Runs Python. */
int fl_transport_fatal(TransportObject *self, const char *message) FL_RAISES;

/* The report alone.  Runs Python. */
int fl_transport_report_fatal(TransportObject *self, PyObject *exc,
                              const char *message) FL_RAISES;

/* Drops what is unsent and schedules connection_lost(exc). */
int fl_transport_force_close(TransportObject *self, PyObject *exc) FL_RAISES;

/* Schedules connection_lost(exc). */
int fl_transport_schedule_lost(TransportObject *self, PyObject *exc)
    FL_RAISES;

/* protocol.connection_lost(exc), and the end.  Runs Python. */
int fl_transport_lose(TransportObject *self, PyObject *exc) FL_RAISES;

void fl_transport_close_file(TransportObject *self);

/* --- Watching -------------------------------------------------------------*/

int fl_transport_start_reading(TransportObject *self) FL_RAISES;
void fl_transport_stop_reading(TransportObject *self);
int fl_transport_start_writing(TransportObject *self) FL_RAISES;
void fl_transport_stop_writing(TransportObject *self);

/* What the poller's event leads to: step(self) in context.  What it raises is
   reported as asyncio reports a failed handle, with `method` for its name. */
int fl_transport_run(LoopObject *loop, TransportObject *self,
                     PyObject *context, int (*step)(TransportObject *),
                     const char *method) FL_RAISES;

/* The same within a step, which goes on.  Runs Python. */
int fl_transport_report(TransportObject *self, const char *method) FL_RAISES;

/* --- Flow control ---------------------------------------------------------*/

/* So much is held back at most; and a first write of so much is not: it is
   worth its own system call, and the buffer that it is in may be needed for
   reading (benchmarks/network, 10 KiB echo). */
#define FL_HOLD_BYTES 65536
#define FL_HOLD_FIRST 8192

/* Whether len bytes more may wait for the end of the turn. */
static inline bool
fl_transport_may_hold(const TransportObject *self, size_t len)
{
    const LoopObject *loop = (const LoopObject *)self->loop;
    size_t size = self->queue.size + len;
    return loop->iterating && !loop->polling && size <= FL_HOLD_BYTES
           && size <= (size_t)self->high_water;
}

/* The bytes that asyncio would have in its buffer now. */
static inline size_t
fl_transport_buffered(const TransportObject *self)
{
    return self->held ? 0 : self->queue.size;
}

/* Runs Python: pause_writing, resume_writing. */
int fl_transport_maybe_pause(TransportObject *self, size_t size) FL_RAISES;
int fl_transport_maybe_resume(TransportObject *self, size_t size) FL_RAISES;

/* A write to a connection that is gone; warns as asyncio does. */
int fl_transport_write_lost(TransportObject *self, const char *warning)
    FL_RAISES;

/* --- Small things ---------------------------------------------------------*/

/* protocol.name(arg), arg may be NULL.  Runs Python. */
PyObject *fl_transport_call_protocol(TransportObject *self, PyObject *name,
                                     PyObject *arg) FL_RAISES;

/* get_extra_info(name) for a socket's "socket", "peername", "sockname". */
PyObject *fl_transport_info(TransportObject *self, PyObject *name) FL_RAISES;

/* Logs "%r text" at debug level, in debug mode only.  Runs Python. */
int fl_transport_log(TransportObject *self, const char *format) FL_RAISES;

/* Methods and attributes that all transports have. */
PyObject *fl_transport_py_abort(PyObject *op, PyObject *ignored);
PyObject *fl_transport_py_is_closing(PyObject *op, PyObject *ignored);
PyObject *fl_transport_py_is_reading(PyObject *op, PyObject *ignored);
PyObject *fl_transport_py_pause_reading(PyObject *op, PyObject *ignored);
PyObject *fl_transport_py_resume_reading(PyObject *op, PyObject *ignored);
PyObject *fl_transport_py_get_protocol(PyObject *op, PyObject *ignored);
PyObject *fl_transport_py_get_extra_info(PyObject *op, PyObject *const *args,
                                         Py_ssize_t nargs, PyObject *names);
PyObject *fl_transport_py_buffer_size(PyObject *op, PyObject *ignored);
PyObject *fl_transport_py_maybe_pause(PyObject *op, PyObject *ignored);
PyObject *fl_transport_py_lose(PyObject *op, PyObject *exc);
PyObject *fl_transport_py_force_close(PyObject *op, PyObject *exc);
PyObject *fl_transport_py_start_reading(PyObject *op, PyObject *ignored);
extern PyMemberDef fl_transport_members[];
extern PyGetSetDef fl_transport_getset[];

/* tp_init, for everything is done in tp_new. */
int fl_transport_init(PyObject *op, PyObject *args, PyObject *kwargs);

PyObject *fl_transport_repr(PyObject *op);
int fl_transport_traverse(PyObject *op, visitproc visit, void *arg);
int fl_transport_clear(PyObject *op);
void fl_transport_finalize(PyObject *op);
void fl_transport_dealloc(PyObject *op);

static inline void
fl_transport_clear_weakrefs(PyObject *op)
{
    if (((TransportObject *)op)->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
}

/* The end of dealloc, for types with more fields: everything is cleared. */
void fl_transport_free(PyObject *op);

#define FL_TRANSPORT_MEMBERS                                               \
    {"__dictoffset__", T_PYSSIZET, offsetof(TransportObject, dict),        \
     READONLY},                                                            \
    {"__weaklistoffset__", T_PYSSIZET, offsetof(TransportObject, weakrefs),\
     READONLY},                                                            \
    {"_server", T_OBJECT, offsetof(TransportObject, server), READONLY},    \
    {"_conn_lost", T_UINT, offsetof(TransportObject, lost), READONLY},     \
    {"_sock_fd", T_INT, offsetof(TransportObject, number), READONLY},      \
    {"_fileno", T_INT, offsetof(TransportObject, number), READONLY}

#define FL_TRANSPORT_METHODS                                               \
    {"is_closing", fl_transport_py_is_closing, METH_NOARGS,                \
     PyDoc_STR("is_closing($self, /)\n--\n\n"                              \
               "Whether the transport is closing or closed.")},            \
    {"get_protocol", fl_transport_py_get_protocol, METH_NOARGS,            \
     PyDoc_STR("get_protocol($self, /)\n--\n\n"                            \
               "The protocol that gets what happens here.")},              \
    {"get_extra_info", FL_METHOD(fl_transport_py_get_extra_info),          \
     FL_FASTCALL,                                                          \
     PyDoc_STR("get_extra_info($self, /, name, default=None)\n--\n\n"      \
               "What is known about the connection, by name.")},           \
    {"_call_connection_lost", fl_transport_py_lose, METH_O, NULL},         \
    {"_force_close", fl_transport_py_force_close, METH_O, NULL},           \
    {"_maybe_pause_protocol", fl_transport_py_maybe_pause, METH_NOARGS,    \
     NULL}

#define FL_TRANSPORT_READ_METHODS                                          \
    {"is_reading", fl_transport_py_is_reading, METH_NOARGS,                \
     PyDoc_STR("is_reading($self, /)\n--\n\n"                              \
               "Whether data is being received.")},                        \
    {"pause_reading", fl_transport_py_pause_reading, METH_NOARGS,          \
     PyDoc_STR("pause_reading($self, /)\n--\n\n"                           \
               "Stop receiving until resume_reading().")},                 \
    {"resume_reading", fl_transport_py_resume_reading, METH_NOARGS,        \
     PyDoc_STR("resume_reading($self, /)\n--\n\n"                          \
               "Receive again.")},                                         \
    {"_start_reading", fl_transport_py_start_reading, METH_NOARGS, NULL}

#define FL_TRANSPORT_WRITE_METHODS                                         \
    {"abort", fl_transport_py_abort, METH_NOARGS,                          \
     PyDoc_STR("abort($self, /)\n--\n\n"                                   \
               "Close at once; what is unsent is lost.")},                 \
    {"get_write_buffer_size", fl_transport_py_buffer_size, METH_NOARGS,    \
     PyDoc_STR("get_write_buffer_size($self, /)\n--\n\n"                   \
               "How many bytes wait for the peer to take them.")}

#endif
