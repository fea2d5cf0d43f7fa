/* state.h -- what one instance of the module owns.

   Three tables say what is in it; state.c fills, visits and clears them from
   the same tables, so that a name is written once.  Objects reach the state
   through their loop or their type, never through a global. */
#ifndef FL_BASE_STATE_H
#define FL_BASE_STATE_H

#include "base/base.h"
#include "base/pool.h"

/* Sizes of read buffers. */
#define FL_READBUFS 3

/* Types that fastloop makes. */
#define FL_TYPES(X) \
    X(Loop)         \
    X(Handle)       \
    X(TimerHandle)  \
    X(ThreadHandle) \
    X(Future)       \
    X(FutureIter)   \
    X(Task)         \
    X(TaskStep)     \
    X(TaskWakeup)   \
    X(JobQueue)     \
    X(Job)          \
    X(SocketTransport) \
    X(Listener)     \
    X(SockOp)       \
    X(DatagramTransport) \
    X(ReadPipeTransport) \
    X(WritePipeTransport) \
    X(SSLTransport) \
    X(Window)

/* Interned names of attributes and keywords. */
#define FL_STRINGS(X)                                                   \
    X(Future)                                                           \
    X(Task)                                                             \
    X(_asyncio_future_blocking)                                         \
    X(_cancelled)                                                       \
    X(_check_callback)                                                  \
    X(_create_task_slowly)                                              \
    X(_jobs)                                                            \
    X(_loop)                                                            \
    X(_process_self_data)                                               \
    X(_run_in_executor_slowly)                                          \
    X(_run)                                                             \
    X(_stream_reader_wr)                                                \
    X(feed_data)                                                        \
    X(_eof)                                                             \
    X(_buffer)                                                          \
    X(_waiter)                                                          \
    X(_limit)                                                           \
    X(_transport)                                                       \
    X(_paused)                                                          \
    X(pause_reading)                                                    \
    X(_attach)                                                          \
    X(_call_connection_lost)                                            \
    X(_detach)                                                          \
    X(_read_ready)                                                      \
    X(_start_reading)                                                   \
    X(buffer_updated)                                                   \
    X(close)                                                            \
    X(connection_lost)                                                  \
    X(connection_made)                                                  \
    X(data_received)                                                    \
    X(datagram_received)                                                \
    X(error_received)                                                   \
    X(eof_received)                                                     \
    X(fileno)                                                           \
    X(get_buffer)                                                       \
    X(getpeername)                                                      \
    X(getsockname)                                                      \
    X(pause_writing)                                                    \
    X(peername)                                                         \
    X(protocol)                                                         \
    X(resume_writing)                                                   \
    X(setblocking)                                                      \
    X(socket)                                                           \
    X(sockname)                                                         \
    X(transport)                                                        \
    X(_signal_wakeup_begin)                                             \
    X(add_done_callback)                                                \
    X(call_at)                                                          \
    X(call_exception_handler)                                           \
    X(call_soon)                                                        \
    X(cancel)                                                           \
    X(context)                                                          \
    X(eager_start)                                                      \
    X(exception)                                                        \
    X(create_future)                                                    \
    X(get_debug)                                                        \
    X(get_loop)                                                         \
    X(handle)                                                           \
    X(is_running)                                                       \
    X(loop)                                                             \
    X(message)                                                          \
    X(name)                                                             \
    X(result)                                                           \
    X(source_traceback)                                                 \
    X(throw)                                                            \
    X(_force_close)                                                     \
    X(_go_on)                                                           \
    X(_sslobj)                                                          \
    X(abort)                                                            \
    X(call_later)                                                       \
    X(cipher)                                                           \
    X(compression)                                                      \
    X(do_handshake)                                                     \
    X(get_extra_info)                                                   \
    X(getpeercert)                                                      \
    X(is_closing)                                                       \
    X(peercert)                                                         \
    X(pending)                                                          \
    X(read)                                                             \
    X(resume_reading)                                                   \
    X(ssl_object)                                                       \
    X(sslcontext)                                                       \
    X(unwrap)                                                           \
    X(wrap_bio)                                                         \
    X(write)                                                            \
    X(time)

/* Objects of other modules, imported once: X(field, module, attribute). */
#define FL_IMPORTS(X)                                                        \
    X(AsyncioFuture, "asyncio", "Future")                                    \
    X(AsyncioTask, "asyncio", "Task")                                        \
    X(AsyncioHandle, "asyncio.events", "Handle")                             \
    X(AsyncioTimerHandle, "asyncio.events", "TimerHandle")                   \
    X(CancelledError, "asyncio.exceptions", "CancelledError")                \
    X(InvalidStateError, "asyncio.exceptions", "InvalidStateError")          \
    X(enter_task, "asyncio.tasks", "_enter_task")                            \
    X(leave_task, "asyncio.tasks", "_leave_task")                            \
    X(register_task, "asyncio.tasks", "_register_task")                      \
    X(get_event_loop, "asyncio.events", "get_event_loop")                    \
    X(get_running_loop, "asyncio.events", "_get_running_loop")               \
    X(iscoroutine, "asyncio.coroutines", "iscoroutine")                      \
    X(extract_stack, "asyncio.format_helpers", "extract_stack")              \
    X(format_callback_source, "asyncio.format_helpers",                      \
      "_format_callback_source")                                             \
    X(set_result_unless_cancelled, "asyncio.futures",                        \
      "_set_result_unless_cancelled")                                        \
    X(fileobj_to_fd, "selectors", "_fileobj_to_fd")                          \
    X(logger, "asyncio.log", "logger")                                       \
    X(BufferedProtocol, "asyncio.protocols", "BufferedProtocol")             \
    X(AsyncioDatagramTransport, "asyncio.transports", "DatagramTransport")   \
    X(FlowControlMixin, "asyncio.transports", "_FlowControlMixin")           \
    X(ReadTransport, "asyncio.transports", "ReadTransport")                  \
    X(WriteTransport, "asyncio.transports", "WriteTransport")                \
    X(TransportSocket, "asyncio.trsock", "TransportSocket")                  \
    X(selector_events, "asyncio", "selector_events")                         \
    X(Server, "asyncio.base_events", "Server")                               \
    X(StreamReader, "asyncio.streams", "StreamReader")                       \
    X(StreamReaderProtocol, "asyncio.streams", "StreamReaderProtocol")       \
    X(check_ssl_socket, "asyncio.base_events", "_check_ssl_socket")          \
    X(Socket, "socket", "socket")                                            \
    X(CSocket, "_socket", "socket")                                          \
    X(convert_future_exc, "asyncio.futures", "_convert_future_exc")          \
    X(is_debug_mode, "asyncio.coroutines", "_is_debug_mode")                 \
    X(tasks_module, "asyncio", "tasks")                                      \
    X(futures_module, "asyncio", "futures")

/* The same for TLS, all NULL in a Python that has none. */
#define FL_SSL_IMPORTS(X)                                                    \
    X(CSSLSocket, "_ssl", "_SSLSocket")                                      \
    X(MemoryBIO, "ssl", "MemoryBIO")                                         \
    X(SSLContext, "ssl", "SSLContext")                                       \
    X(SSLObject, "ssl", "SSLObject")                                         \
    X(SSLError, "ssl", "SSLError")                                           \
    X(SSLCertVerificationError, "ssl", "SSLCertVerificationError")           \
    X(SSLSyscallError, "ssl", "SSLSyscallError")                             \
    X(SSLWantReadError, "ssl", "SSLWantReadError")                           \
    X(add_flowcontrol_defaults, "asyncio.sslproto",                          \
      "add_flowcontrol_defaults")

typedef struct fl_state {
#define FL_FIELD(name) PyTypeObject *name##_type;
    FL_TYPES(FL_FIELD)
#undef FL_FIELD

#define FL_FIELD(name) PyObject *str_##name;
    FL_STRINGS(FL_FIELD)
#undef FL_FIELD

#define FL_FIELD(name, module, attribute) PyObject *name;
    FL_IMPORTS(FL_FIELD)
    FL_SSL_IMPORTS(FL_FIELD)
#undef FL_FIELD

    /* events._ThreadSafeHandle where it exists (3.14), else events.Handle. */
    PyObject *AsyncioThreadHandle;

    /* Their methods as they were at import: net/reader.c. */
    PyObject *stream_data_received;
    PyObject *stream_feed_data;

    /* The function that asyncio.graph needs for a second waiter, or NULL. */
    PyObject *add_to_awaited_by;
    PyObject *discard_from_awaited_by;
    PyObject *swap_current_task;     /* 3.12 on, else NULL */
    PyObject *register_eager_task;   /* 3.12 on, else NULL */
    PyObject *unregister_eager_task; /* 3.12 on, else NULL */
    PyObject *current_tasks;         /* the dict of 3.11 to 3.13, or NULL */

    /* Keyword tuples of calls that C makes. */
    PyObject *kw_context;            /* ("context",) */
    PyObject *kw_wrap_bio;           /* ("server_side", "server_hostname") */
    PyObject *zero;

    /* The class that fastloop._loop builds on Loop; NULL until it did.
       Borrowed for comparing only: the package keeps it alive. */
    PyTypeObject *final_loop_type;

    /* asyncio's own step and wake-up callables, learnt by the layout probe;
       NULL when the probe did not run or failed. */
    PyTypeObject *stock_step_type;
    PyObject *stock_names;          /* ("context",) as asyncio passes it */
    PyCFunction stock_wakeup;
    bool layout_ok;                 /* asyncio's structs are as layout.h says */
    bool allocator_is_calm;         /* see net/transport_make.c */
    bool socket_fd_ok;              /* fl_socket_fd may look into a socket */
    bool servers_know_clients;      /* Server._attach takes the transport */
    bool tls_closes_with_lower;     /* is_closing() asks the one below */
    bool context_ok;                /* and contexts as base/context.h says */
    ptrdiff_t context_watchers_offset;  /* in the interpreter state (3.14) */
    ptrdiff_t running_task_offset;  /* in the thread state (3.14), or 0 */

    uint64_t task_names;            /* of "Task-N" */
    uint64_t forks;                 /* generations of fork since import */

    /* Hooks upward: how the upper layers run their ready entries. */
    int (*run_step)(struct fl_state *state, PyObject *loop, PyObject *task);
    int (*run_callback)(struct fl_state *state, PyObject *loop, PyObject *fut);
    void (*forget_callback)(PyObject *fut);
    int (*run_job)(struct fl_state *state, PyObject *loop, PyObject *job);
    /* 1 when it completed the future in C, 0 when the call must be made. */
    int (*set_result_quickly)(struct fl_state *state, PyObject *loop,
                              PyObject *future, PyObject *result);

    /* Ciphertext for an SSLTransport, from the socket below it. */
    int (*tls_receive)(struct fl_state *state, PyObject *op,
                       const char *bytes, size_t len);
    /* An SSLTransport for an accepted connection; settings as listener.c has
       them. */
    PyObject *(*tls_accept)(struct fl_state *state, PyObject *loop,
                            PyObject *protocol, PyObject *settings);

    size_t steps;  /* of coroutines, that are going on */

    /* The StopIteration that await.c uses again, or NULL.  Owned. */
    PyObject *stop;

    /* Finds anew which of a loop's methods were replaced; never fails. */
    void (*find_overrides)(PyObject *loop);

    /* Buffers that sockets are read into: net/readbuf.h.  Owned. */
    PyObject *readbufs[FL_READBUFS];
    char *datagram_arena;  /* see net/datagram.c */
    char *tls_space;       /* see net/socket.c; lent out during a read */
    PyObject *tls_window;  /* see tls/engine.c; the same.  Owned. */

    fl_pool handles;
    fl_pool timers;
    fl_pool futures;
    fl_pool future_iters;
    fl_pool tasks;
    fl_pool wakeups;
} fl_state;

extern struct PyModuleDef fl_module;

/* The state behind an object of one of fastloop's types, or of a subclass. */
static inline fl_state *
fl_state_of(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject *module = PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE)
                           ? ((PyHeapTypeObject *)type)->ht_module
                           : NULL;
    if (FL_UNLIKELY(module == NULL || PyModule_GetDef(module) != &fl_module)) {
        module = PyType_GetModuleByDef(type, &fl_module);
    }
    return module == NULL ? NULL : PyModule_GetState(module);
}

/* The same by an exact type of ours, for deallocation: no exception, and NULL
   when the interpreter's end has taken type and module apart. */
static inline fl_state *
fl_type_state(PyTypeObject *type)
{
    PyObject *module = ((PyHeapTypeObject *)type)->ht_module;
    return module == NULL ? NULL : PyModule_GetState(module);
}

int fl_state_init(fl_state *state) FL_RAISES;
int fl_state_traverse(fl_state *state, visitproc visit, void *arg);
void fl_state_clear(fl_state *state);
void fl_state_free_pools(fl_state *state);

/* Gives memory back that the pools have too much of. */
static inline void
fl_state_trim_pools(fl_state *state)
{
    fl_pool_trim(&state->handles);
    fl_pool_trim(&state->timers);
    fl_pool_trim(&state->futures);
    fl_pool_trim(&state->future_iters);
    fl_pool_trim(&state->tasks);
    fl_pool_trim(&state->wakeups);
}

/* Makes a type of the module from its spec and adds it under its own name.
   base may be NULL (object). */
PyTypeObject *fl_add_type(PyObject *module, PyType_Spec *spec,
                          PyObject *base) FL_RAISES;

#endif
