/* datagram.c -- DatagramTransport: receiving, closing, and the type.

   A busy UDP socket is read in batches, by recvmmsg; one that gets a datagram
   now and then by recvfrom, which is cheaper for one.  datagram_send.c has
   the other direction. */
#include "net/datagram.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/uio.h>

#include "base/args.h"
#include "net/sockobj.h"
#include "os/sockcall.h"

/* Datagrams of one system call, and the room for each: UDP's limit. */
#define DATAGRAM_BATCH 16
#define DATAGRAM_ROOM  65536

/* After so many reads of one datagram, look whether there are more. */
#define DATAGRAM_SINGLES 4

/* --- Delivering -----------------------------------------------------------*/

/* The address as an object, made anew only when the sender changes. */
static PyObject *
datagram_sender(DatagramObject *self, const struct sockaddr_storage *from,
                socklen_t len)
{
    if (self->last_addr != NULL && len == self->last.len
        && memcmp(from, self->last.data, len) == 0)
    {
        return Py_NewRef(self->last_addr);
    }
    PyObject *addr = fl_sockaddr_object((const struct sockaddr *)from, len);
    if (addr == NULL && !PyErr_Occurred()) {
        addr = Py_NewRef(Py_None);
    }
    if (addr != NULL && len > 0) {
        fl_address_set(&self->last, from, len);
        if (self->last.len > 0) {
            Py_XSETREF(self->last_addr, Py_NewRef(addr));
        }
    }
    return addr;
}

/* protocol.datagram_received(data, addr); an exception is reported, and does
   not keep the next datagram from being delivered. */
static int
datagram_deliver(DatagramObject *self, PyObject *data, PyObject *addr)
{
    TransportObject *transport = &self->transport;
    fl_state *state = fl_transport_state(transport);
    PyObject *protocol =
        transport->protocol == NULL ? Py_None : transport->protocol;
    PyObject *stack[3] = {Py_NewRef(protocol), data, addr};
    PyObject *result = PyObject_VectorcallMethod(
        state->str_datagram_received, stack,
        3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    Py_DECREF(protocol);
    if (result == NULL) {
        return fl_transport_report(transport, "_read_ready");
    }
    Py_DECREF(result);
    return 0;
}

/* Whether the protocol still wants datagrams. */
static bool
datagram_is_open(DatagramObject *self)
{
    return self->transport.lost == 0 && !self->transport.closing
           && self->transport.loop != NULL;
}

/* Keeps a datagram for later. */
static int
datagram_keep(DatagramObject *self, PyObject *data, PyObject *addr)
{
    PyObject *pair = PyTuple_Pack(2, data, addr);
    if (pair != NULL && self->backlog == NULL) {
        self->backlog = PyList_New(0);
    }
    int rc = pair == NULL || self->backlog == NULL
                 ? -1
                 : PyList_Append(self->backlog, pair);
    Py_XDECREF(pair);
    return rc;
}

/* Delivers, or keeps for later what came after pause_reading(). */
static int
datagram_take(DatagramObject *self, const char *bytes, size_t len,
              const struct sockaddr_storage *from, socklen_t from_len)
{
    if (!datagram_is_open(self)) {
        return 0;
    }
    PyObject *data = PyBytes_FromStringAndSize(bytes, (Py_ssize_t)len);
    PyObject *addr =
        data == NULL ? NULL : datagram_sender(self, from, from_len);
    int rc = -1;
    if (addr == NULL) {
        rc = fl_transport_fatal(&self->transport,
                                "Fatal read error on datagram transport");
    }
    else {
        rc = self->transport.paused || self->backlog != NULL
                 ? datagram_keep(self, data, addr)
                 : datagram_deliver(self, data, addr);
    }
    Py_XDECREF(data);
    Py_XDECREF(addr);
    return rc;
}

/* The poller knows nothing of what is in the backlog. */
static int
datagram_schedule_backlog(DatagramObject *self)
{
    if (self->backlog == NULL || self->transport.paused) {
        return 0;
    }
    return fl_transport_call_own_soon(
        &self->transport,
        fl_transport_state(&self->transport)->str__read_ready, NULL);
}

static int
datagram_deliver_backlog(DatagramObject *self)
{
    PyObject *backlog = self->backlog;
    Py_ssize_t count = PyList_GET_SIZE(backlog);
    self->backlog = NULL;
    int rc = 0;
    Py_ssize_t i = 0;
    for (; i < count && rc == 0 && datagram_is_open(self)
           && !self->transport.paused;
         i++)
    {
        PyObject *pair = PyList_GET_ITEM(backlog, i);
        rc = datagram_deliver(self, PyTuple_GET_ITEM(pair, 0),
                              PyTuple_GET_ITEM(pair, 1));
    }
    PyObject *raised = fl_take_raised();
    if (i < count && datagram_is_open(self)) {
        /* Paused, or KeyboardInterrupt on its way out of the loop. */
        self->backlog = PyList_GetSlice(backlog, i, count);
        if (self->backlog == NULL || datagram_schedule_backlog(self) < 0) {
            rc = -1;
        }
    }
    Py_DECREF(backlog);
    if (raised != NULL) {
        PyErr_Clear();
        fl_put_raised(raised);
    }
    return rc;
}

/* --- Receiving ------------------------------------------------------------*/

/* errno of a failed receive. */
static int
datagram_receive_failed(DatagramObject *self)
{
    if (fl_sys_must_wait(errno)) {
        return 0;
    }
    PyErr_SetFromErrno(PyExc_OSError);
    return fl_datagram_tell_error(self);
}

static int
datagram_receive_one(DatagramObject *self)
{
    fl_state *state = fl_transport_state(&self->transport);
    fl_readbuf_habit habit = fl_readbuf_habit_for(FL_READBUF_LARGEST);
    fl_loan loan;
    if (fl_readbuf_take(state, &habit, &loan) < 0) {
        return fl_transport_fatal(&self->transport,
                                  "Fatal read error on datagram transport");
    }
    struct sockaddr_storage from;
    socklen_t len = sizeof(from);
    ssize_t n = recvfrom(self->transport.fd, fl_readbuf_space(&loan),
                         fl_readbuf_size(&loan), MSG_DONTWAIT,
                         (struct sockaddr *)&from, &len);
    int rc = n < 0 ? datagram_receive_failed(self)
                   : datagram_take(self, fl_readbuf_space(&loan), (size_t)n,
                                   &from, len);
    fl_readbuf_done(state, &habit, &loan);
    return rc;
}

/* The memory that batches are received into: shared, for it is free again
   before anybody's Python code runs... but for the datagrams themselves, so
   whoever uses it takes it out meanwhile. */
static char *
datagram_take_arena(fl_state *state)
{
    char *arena = state->datagram_arena;
    state->datagram_arena = NULL;
    return arena != NULL ? arena
                         : PyMem_RawMalloc((size_t)DATAGRAM_BATCH
                                           * DATAGRAM_ROOM);
}

static void
datagram_return_arena(fl_state *state, char *arena)
{
    if (state->datagram_arena == NULL) {
        state->datagram_arena = arena;
    }
    else {
        PyMem_RawFree(arena);
    }
}

/* How many there were, or -1 with errno. */
static int
datagram_receive_many(DatagramObject *self, char *arena,
                      struct mmsghdr *messages,
                      struct sockaddr_storage *from)
{
    struct iovec rooms[DATAGRAM_BATCH];
    memset(messages, 0, DATAGRAM_BATCH * sizeof(*messages));
    for (int i = 0; i < DATAGRAM_BATCH; i++) {
        rooms[i].iov_base = arena + (size_t)i * DATAGRAM_ROOM;
        rooms[i].iov_len = DATAGRAM_ROOM;
        messages[i].msg_hdr.msg_iov = &rooms[i];
        messages[i].msg_hdr.msg_iovlen = 1;
        messages[i].msg_hdr.msg_name = &from[i];
        messages[i].msg_hdr.msg_namelen = sizeof(from[i]);
    }
    return recvmmsg(self->transport.fd, messages, DATAGRAM_BATCH,
                    MSG_DONTWAIT, NULL);
}

static int
datagram_receive_batch(DatagramObject *self)
{
    fl_state *state = fl_transport_state(&self->transport);
    char *arena = datagram_take_arena(state);
    if (arena == NULL) {
        return datagram_receive_one(self);
    }
    struct mmsghdr messages[DATAGRAM_BATCH];
    struct sockaddr_storage from[DATAGRAM_BATCH];
    int n = datagram_receive_many(self, arena, messages, from);
    int rc = n < 0 ? datagram_receive_failed(self) : 0;
    self->singles = n > 1 ? DATAGRAM_SINGLES : 0;
    PyObject *raised = NULL;
    for (int i = 0; i < n; i++) {
        if (datagram_take(self, arena + (size_t)i * DATAGRAM_ROOM,
                          messages[i].msg_len, &from[i],
                          messages[i].msg_hdr.msg_namelen)
            < 0)
        {
            /* KeyboardInterrupt on its way out of the loop: the others come
               when it runs again. */
            Py_XSETREF(raised, fl_take_raised());
            if (self->backlog == NULL) {
                self->backlog = PyList_New(0);
            }
        }
    }
    if (raised != NULL) {
        if (datagram_schedule_backlog(self) < 0) {
            PyErr_Clear();
        }
        fl_put_raised(raised);
        rc = -1;
    }
    datagram_return_arena(state, arena);
    return rc;
}

/* sock.recvfrom(): of a family whose addresses the socket module knows. */
static int
datagram_receive_by_call(DatagramObject *self)
{
    PyObject *sock = Py_NewRef(self->transport.file);
    PyObject *pair = PyObject_CallMethod(sock, "recvfrom", "i", FL_READBUF_LARGEST);
    Py_DECREF(sock);
    if (pair == NULL) {
        if (PyErr_ExceptionMatches(PyExc_BlockingIOError)
            || PyErr_ExceptionMatches(PyExc_InterruptedError))
        {
            PyErr_Clear();
            return 0;
        }
        return PyErr_ExceptionMatches(PyExc_OSError)
                   ? fl_datagram_tell_error(self)
                   : fl_transport_fatal(
                         &self->transport,
                         "Fatal read error on datagram transport");
    }
    int rc = -1;
    if (PyTuple_Check(pair) && PyTuple_GET_SIZE(pair) == 2) {
        rc = datagram_deliver(self, PyTuple_GET_ITEM(pair, 0),
                              PyTuple_GET_ITEM(pair, 1));
    }
    else {
        PyErr_SetString(PyExc_TypeError, "recvfrom() must return a pair");
    }
    Py_DECREF(pair);
    return rc;
}

static int
datagram_read_ready(TransportObject *transport)
{
    DatagramObject *self = (DatagramObject *)transport;
    if (!datagram_is_open(self) || transport->paused) {
        return 0;
    }
    if (self->backlog != NULL) {
        return datagram_deliver_backlog(self);
    }
    if (!fl_transport_alive(transport)) {
        fl_raise_errno(-EBADF);
        return fl_datagram_tell_error(self);
    }
    if (self->odd_family) {
        return datagram_receive_by_call(self);
    }
    if (self->is_udp && self->singles == DATAGRAM_SINGLES) {
        return datagram_receive_batch(self);
    }
    self->singles++;
    return datagram_receive_one(self);
}

int
fl_datagram_tell_error(DatagramObject *self)
{
    PyObject *exc = fl_take_raised();
    PyObject *result = fl_transport_call_protocol(
        &self->transport,
        fl_transport_state(&self->transport)->str_error_received, exc);
    Py_DECREF(exc);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* --- What the loop calls --------------------------------------------------*/

static int
datagram_readable(LoopObject *loop, PyObject *op)
{
    TransportObject *self = (TransportObject *)op;
    return !self->reading ? 0
                          : fl_transport_run(loop, self, self->read_context,
                                             datagram_read_ready,
                                             "_read_ready");
}

static int
datagram_writable(LoopObject *loop, PyObject *op)
{
    TransportObject *self = (TransportObject *)op;
    return !self->writing ? 0
                          : fl_transport_run(loop, self, self->write_context,
                                             fl_datagram_write_ready,
                                             "_sendto_ready");
}

static const fl_channel_ops datagram_ops = {
    .readable = datagram_readable,
    .writable = datagram_writable,
    .flush = fl_datagram_flush,
};

/* --- Methods --------------------------------------------------------------*/

static PyObject *
datagram_py_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    DatagramObject *self = (DatagramObject *)op;
    TransportObject *transport = &self->transport;
    if (fl_datagram_flush(NULL, op) < 0) {
        return NULL;
    }
    if (!transport->closing) {
        transport->closing = true;
        fl_transport_stop_reading(transport);
        if (self->count == 0) {
            transport->lost++;
            fl_transport_stop_writing(transport);
            if (fl_transport_schedule_lost(transport, NULL) < 0) {
                return NULL;
            }
        }
    }
    Py_RETURN_NONE;
}

static PyObject *
datagram_py_set_protocol(PyObject *op, PyObject *const *args,
                         Py_ssize_t nargs, PyObject *names)
{
    PyObject *protocol =
        fl_one_argument("set_protocol", "protocol", args, nargs, names);
    if (protocol == NULL) {
        return NULL;
    }
    ((TransportObject *)op)->protocol_connected = true;
    Py_XSETREF(((TransportObject *)op)->protocol, Py_NewRef(protocol));
    Py_RETURN_NONE;
}

static PyObject *
datagram_py_resume_reading(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    DatagramObject *self = (DatagramObject *)op;
    PyObject *done = fl_transport_py_resume_reading(op, NULL);
    if (done != NULL && datagram_schedule_backlog(self) < 0) {
        Py_CLEAR(done);
    }
    return done;
}

static PyObject *
datagram_py_buffer_size(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    DatagramObject *self = (DatagramObject *)op;
    return PyLong_FromSize_t(self->transport.held ? 0 : self->size);
}

static PyObject *
datagram_py_maybe_pause(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    DatagramObject *self = (DatagramObject *)op;
    size_t size = self->transport.held ? 0 : self->size;
    if (fl_transport_maybe_pause(&self->transport, size) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
datagram_py_abort(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    DatagramObject *self = (DatagramObject *)op;
    if (fl_datagram_flush(NULL, op) < 0) {
        return NULL;
    }
    if (self->transport.lost == 0) {
        fl_datagram_drop_letters(self);
    }
    return fl_transport_py_abort(op, NULL);
}

static PyObject *
datagram_py_read_ready(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    if (datagram_read_ready((TransportObject *)op) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
datagram_py_write_ready(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    if (fl_datagram_write_ready((TransportObject *)op) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef datagram_methods[] = {
    {"sendto", FL_METHOD(fl_datagram_py_sendto), FL_FASTCALL,
     PyDoc_STR("sendto($self, data, addr=None)\n--\n\n"
               "Send a datagram, to the peer or to an address.")},
    {"set_protocol", FL_METHOD(datagram_py_set_protocol), FL_FASTCALL,
     PyDoc_STR("set_protocol($self, protocol)\n--\n\n"
               "Tell another protocol from now on.")},
    {"resume_reading", datagram_py_resume_reading, METH_NOARGS,
     PyDoc_STR("resume_reading($self, /)\n--\n\nReceive again.")},
    {"abort", datagram_py_abort, METH_NOARGS,
     PyDoc_STR("abort($self, /)\n--\n\n"
               "Close at once; what is unsent is lost.")},
    {"get_write_buffer_size", datagram_py_buffer_size, METH_NOARGS,
     PyDoc_STR("get_write_buffer_size($self, /)\n--\n\n"
               "How many bytes wait to be sent.")},
    {"close", datagram_py_close, METH_NOARGS,
     PyDoc_STR("close($self, /)\n--\n\n"
               "Close once everything is sent.")},
    {"_maybe_pause_protocol", datagram_py_maybe_pause, METH_NOARGS, NULL},
    {"_read_ready", datagram_py_read_ready, METH_NOARGS, NULL},
    {"_sendto_ready", datagram_py_write_ready, METH_NOARGS, NULL},
    {"_write_ready", datagram_py_write_ready, METH_NOARGS, NULL},
    /* Of two with one name the first counts. */
    FL_TRANSPORT_METHODS,
    FL_TRANSPORT_READ_METHODS,
    {NULL},
};

/* --- Memory ---------------------------------------------------------------*/

static int
datagram_traverse(PyObject *op, visitproc visit, void *arg)
{
    DatagramObject *self = (DatagramObject *)op;
    Py_VISIT(self->address);
    Py_VISIT(self->backlog);
    Py_VISIT(self->last_addr);
    for (uint32_t i = 0; i < self->count; i++) {
        Py_VISIT(self->letters[self->first + i].addr);
    }
    return fl_transport_traverse(op, visit, arg);
}

static int
datagram_clear(PyObject *op)
{
    DatagramObject *self = (DatagramObject *)op;
    fl_datagram_drop_letters(self);
    Py_CLEAR(self->address);
    Py_CLEAR(self->backlog);
    Py_CLEAR(self->last_addr);
    return fl_transport_clear(op);
}

static void
datagram_dealloc(PyObject *op)
{
    if (PyObject_CallFinalizerFromDealloc(op) < 0) {
        return;
    }
    PyObject_GC_UnTrack(op);
    fl_transport_clear_weakrefs(op);
    datagram_clear(op);
    fl_transport_free(op);
}

/* --- Making ---------------------------------------------------------------*/

/* What the socket is, and whom it talks to. */
static int
datagram_ask_socket(DatagramObject *self)
{
    TransportObject *transport = &self->transport;
    int proto = 0;
    socklen_t len = sizeof(proto);
    (void)getsockopt(transport->fd, SOL_SOCKET, SO_PROTOCOL, &proto, &len);
    self->is_udp = proto == IPPROTO_UDP;
    self->odd_family = transport->family != AF_INET
                       && transport->family != AF_INET6
                       && transport->family != AF_UNIX;
    PyObject *peer = fl_transport_info(
        transport, fl_transport_state(transport)->str_peername);
    if (peer == NULL) {
        return -1;
    }
    int connected = PyObject_IsTrue(peer);
    Py_DECREF(peer);
    self->connected = connected > 0;
    return connected < 0 ? -1 : 0;
}

static PyObject *
datagram_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"loop",    "sock",   "protocol",
                               "address", "waiter", "extra", NULL};
    PyObject *loop, *sock, *protocol;
    PyObject *address = Py_None, *waiter = Py_None, *extra = Py_None;
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "OOO|OOO:DatagramTransport", keywords, &loop, &sock,
            &protocol, &address, &waiter, &extra))
    {
        return NULL;
    }
    LoopObject *owner = fl_loop_argument(loop);
    int fd = owner == NULL
                 ? -1
                 : fl_transport_ask_fd(owner, sock);
    if (fd < 0) {
        return NULL;
    }
    DatagramObject *self =
        (DatagramObject *)fl_transport_alloc(type, &datagram_ops);
    if (self == NULL) {
        return NULL;
    }
    TransportObject *transport = &self->transport;
    transport->is_socket = true;
    transport->extra = extra == Py_None ? NULL : Py_NewRef(extra);
    transport->protocol = Py_NewRef(protocol);
    int truth = PyObject_IsTrue(address);
    self->address = truth > 0 ? Py_NewRef(address) : NULL;
    int rc = truth < 0 ? -1 : fl_transport_own(transport, owner, fd);
    if (rc == 0) {
        transport->file = Py_NewRef(sock);
        rc = fl_transport_keep_names(transport);
    }
    if (rc == 0) {
        rc = datagram_ask_socket(self);
    }
    if (rc == 0) {
        rc = fl_transport_begin(transport, owner->state->str__start_reading,
                                waiter);
    }
    if (rc < 0) {
        fl_transport_forget(transport);
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static PyMemberDef datagram_members[] = {
    FL_TRANSPORT_MEMBERS,
    {"_address", T_OBJECT, offsetof(DatagramObject, address), READONLY},
    {NULL},
};

static PyType_Slot datagram_slots[] = {
    {Py_tp_doc, "A socket for datagrams."},
    {Py_tp_new, datagram_new},
    {Py_tp_init, fl_transport_init},
    {Py_tp_dealloc, datagram_dealloc},
    {Py_tp_finalize, fl_transport_finalize},
    {Py_tp_traverse, datagram_traverse},
    {Py_tp_clear, datagram_clear},
    {Py_tp_repr, fl_transport_repr},
    {Py_tp_methods, datagram_methods},
    {Py_tp_members, datagram_members},
    {Py_tp_getset, fl_transport_getset},
    {0, NULL},
};

static PyType_Spec datagram_spec = {
    .name = "fastloop._core.DatagramTransport",
    .basicsize = sizeof(DatagramObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = datagram_slots,
};

int
fl_datagram_setup(PyObject *module, fl_state *state)
{
    PyObject *bases =
        PyTuple_Pack(2, state->FlowControlMixin,
                     state->AsyncioDatagramTransport);
    if (bases == NULL) {
        return -1;
    }
    state->DatagramTransport_type =
        fl_add_type(module, &datagram_spec, bases);
    Py_DECREF(bases);
    return state->DatagramTransport_type == NULL
               ? -1
               : fl_transport_copy_selector(
                     state, state->DatagramTransport_type,
                     "_SelectorDatagramTransport",
                     (const char *const[]){"max_size", NULL});
}
