/* datagram_send.c -- DatagramTransport: sending.

   What is sent in a turn of the loop leaves when the turn ends, in as few
   system calls as it takes: sendmmsg for many datagrams, and for several of
   one length to one peer a single message that the kernel cuts in pieces
   (UDP_SEGMENT).  An error comes to error_received then.  An address that is
   not a plain numeric one goes through the socket object, at once. */
#include "net/datagram.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/uio.h>

#include "base/args.h"
#include "os/sockcall.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

/* Held back at most: datagrams, and bytes. */
#define DATAGRAM_HOLD       64
#define DATAGRAM_HOLD_BYTES 65536

/* Of one cut message: the kernel's limits, with room for headers. */
#define DATAGRAM_SEGMENTS      64
#define DATAGRAM_SEGMENTED_MAX 65000

/* What a datagram counts in the buffer beside its bytes. */
#if FL_PY313
#define DATAGRAM_HEADER 8
#else
#define DATAGRAM_HEADER 0
#endif

static const char datagram_send_failed[] =
    "Fatal write error on datagram transport";

/* --- The queue ------------------------------------------------------------*/

static fl_letter *
datagram_front(DatagramObject *self)
{
    return &self->letters[self->first];
}

static void
datagram_pop(DatagramObject *self)
{
    fl_letter *letter = datagram_front(self);
    PyObject *data = letter->data;
    PyObject *addr = letter->addr;
    self->size -= (size_t)PyBytes_GET_SIZE(data) + DATAGRAM_HEADER;
    self->first++;
    if (--self->count == 0) {
        self->first = 0;
        if (self->capacity > DATAGRAM_HOLD) {
            PyMem_Free(self->letters);
            self->letters = NULL;
            self->capacity = 0;
        }
    }
    Py_DECREF(data);
    Py_XDECREF(addr);
}

void
fl_datagram_drop_letters(DatagramObject *self)
{
    while (self->count > 0) {
        datagram_pop(self);
    }
    PyMem_Free(self->letters);
    self->letters = NULL;
    self->capacity = 0;
}

static int
datagram_reserve(DatagramObject *self)
{
    if (self->first + self->count < self->capacity) {
        return 0;
    }
    if (self->first > self->capacity / 2) {
        memmove(self->letters, datagram_front(self),
                self->count * sizeof(fl_letter));
        self->first = 0;
        return 0;
    }
    size_t capacity = self->capacity == 0 ? 8 : (size_t)self->capacity * 2;
    fl_letter *letters = self->letters;
    if (capacity > UINT32_MAX
        || PyMem_Resize(letters, fl_letter, capacity) == NULL)
    {
        PyErr_NoMemory();
        return -1;
    }
    self->letters = letters;
    self->capacity = (uint32_t)capacity;
    return 0;
}

/* addr is borrowed, and NULL if `to` says it all. */
static int
datagram_put(DatagramObject *self, PyObject *data, PyObject *addr,
             const fl_address *to)
{
    PyObject *bytes = PyBytes_CheckExact(data) ? Py_NewRef(data)
                                               : PyBytes_FromObject(data);
    if (bytes == NULL || datagram_reserve(self) < 0) {
        Py_XDECREF(bytes);
        return -1;
    }
    self->letters[self->first + self->count++] =
        (fl_letter){bytes, Py_XNewRef(addr), *to};
    self->size += (size_t)PyBytes_GET_SIZE(bytes) + DATAGRAM_HEADER;
    return 0;
}

/* --- Sending --------------------------------------------------------------*/

/* sock.send(data) or sock.sendto(data, addr).  1: sent.  0: not now. */
static int
datagram_call(DatagramObject *self, PyObject *data, PyObject *addr)
{
    PyObject *sock = Py_NewRef(self->transport.file);
    PyObject *result =
        self->connected
            ? PyObject_CallMethod(sock, "send", "(O)", data)
            : PyObject_CallMethod(sock, "sendto", "OO", data, addr);
    Py_DECREF(sock);
    if (result != NULL) {
        Py_DECREF(result);
        return 1;
    }
    if (PyErr_ExceptionMatches(PyExc_BlockingIOError)
        || PyErr_ExceptionMatches(PyExc_InterruptedError))
    {
        PyErr_Clear();
        return 0;
    }
    return -1;
}

static bool
datagram_same_peer(const fl_letter *a, const fl_letter *b)
{
    return a->addr == NULL && b->addr == NULL && a->to.len == b->to.len
           && memcmp(a->to.data, b->to.data, a->to.len) == 0;
}

/* How many from the i-th on may go in one message: all to one peer, all of
   one length but the last, which may be shorter. */
static uint32_t
datagram_run_length(DatagramObject *self, uint32_t i)
{
    fl_letter *first = datagram_front(self) + i;
    size_t length = (size_t)PyBytes_GET_SIZE(first->data);
    if (!self->is_udp || self->no_segments || length == 0) {
        return 1;
    }
    size_t total = length;
    uint32_t n = 1;
    while (i + n < self->count && n < DATAGRAM_SEGMENTS) {
        fl_letter *next = first + n;
        size_t size = (size_t)PyBytes_GET_SIZE(next->data);
        if (size > length || size == 0 || total + size > DATAGRAM_SEGMENTED_MAX
            || !datagram_same_peer(first, next))
        {
            break;
        }
        total += size;
        n++;
        if (size < length) {
            break;
        }
    }
    return n;
}

typedef union {
    struct cmsghdr header;
    char room[CMSG_SPACE(sizeof(uint16_t))];
} datagram_control;

/* One system call for as much of the queue as it can hold. */
typedef struct {
    struct mmsghdr messages[DATAGRAM_HOLD];
    struct iovec pieces[DATAGRAM_HOLD];
    datagram_control controls[DATAGRAM_HOLD];
    uint32_t lengths[DATAGRAM_HOLD];  /* datagrams of each message */
    unsigned int count;
} datagram_batch;

static void
datagram_fill_batch(DatagramObject *self, datagram_batch *batch)
{
    uint32_t used = 0;
    batch->count = 0;
    while (used < self->count && used < DATAGRAM_HOLD) {
        fl_letter *letter = datagram_front(self) + used;
        if (letter->addr != NULL) {
            break;
        }
        uint32_t n = datagram_run_length(self, used);
        if (n > DATAGRAM_HOLD - used) {
            n = DATAGRAM_HOLD - used;
        }
        struct msghdr *message = &batch->messages[batch->count].msg_hdr;
        *message = (struct msghdr){
            .msg_name = letter->to.len > 0 ? letter->to.data : NULL,
            .msg_namelen = letter->to.len,
            .msg_iov = &batch->pieces[used],
            .msg_iovlen = n,
        };
        for (uint32_t i = 0; i < n; i++) {
            PyObject *data = letter[i].data;
            batch->pieces[used + i].iov_base = PyBytes_AS_STRING(data);
            batch->pieces[used + i].iov_len = (size_t)PyBytes_GET_SIZE(data);
        }
        if (n > 1) {
            datagram_control *control = &batch->controls[batch->count];
            uint16_t segment = (uint16_t)PyBytes_GET_SIZE(letter->data);
            message->msg_control = control->room;
            message->msg_controllen = sizeof(control->room);
            control->header.cmsg_level = IPPROTO_UDP;
            control->header.cmsg_type = UDP_SEGMENT;
            control->header.cmsg_len = CMSG_LEN(sizeof(segment));
            memcpy(CMSG_DATA(&control->header), &segment, sizeof(segment));
        }
        batch->lengths[batch->count++] = n;
        used += n;
    }
}

/* The front of the queue through the socket object. */
static int
datagram_send_front_by_call(DatagramObject *self)
{
    PyObject *data = Py_NewRef(datagram_front(self)->data);
    PyObject *addr = Py_NewRef(datagram_front(self)->addr);
    int rc = datagram_call(self, data, addr);
    PyObject *raised = fl_take_raised();
    /* Runs Python above: the queue may be another. */
    if (rc != 0 && self->count > 0 && datagram_front(self)->data == data) {
        datagram_pop(self);
    }
    Py_DECREF(data);
    Py_DECREF(addr);
    if (raised != NULL) {
        fl_put_raised(raised);
    }
    return rc;
}

/* Whether sendmsg failed because it was asked to cut: a kernel or device that
   cannot, or pieces longer than the path takes. */
static bool
datagram_cannot_cut(int error)
{
    return error == EINVAL || error == EIO || error == EMSGSIZE
           || error == EOPNOTSUPP || error == ENOPROTOOPT;
}

/* Sends the front of the queue.  1: some of it left.  0: not now.  -1: an
   exception, and the datagram that it is about was dropped. */
static int
datagram_send_batch(DatagramObject *self)
{
    if (datagram_front(self)->addr != NULL) {
        return datagram_send_front_by_call(self);
    }
    datagram_batch batch;
    datagram_fill_batch(self, &batch);
    int sent;
    if (batch.count == 1) {
        ssize_t n = sendmsg(self->transport.fd, &batch.messages[0].msg_hdr,
                            MSG_DONTWAIT | MSG_NOSIGNAL);
        sent = n < 0 ? -1 : 1;
    }
    else {
        sent = sendmmsg(self->transport.fd, batch.messages, batch.count,
                        MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    if (sent < 0) {
        if (fl_sys_must_wait(errno)) {
            return 0;
        }
        if (batch.lengths[0] > 1 && datagram_cannot_cut(errno)) {
            self->no_segments = true;  /* one by one from now on */
            return 1;
        }
        PyErr_SetFromErrno(PyExc_OSError);
        PyObject *raised = fl_take_raised();
        datagram_pop(self);
        fl_put_raised(raised);
        return -1;
    }
    for (int i = 0; i < sent; i++) {
        for (uint32_t n = batch.lengths[i]; n > 0; n--) {
            datagram_pop(self);
        }
    }
    return 1;
}

/* The raised exception came from sending.  Runs Python: error_received. */
static int
datagram_handle_error(DatagramObject *self)
{
    if (PyErr_ExceptionMatches(PyExc_OSError)) {
        return fl_datagram_tell_error(self);
    }
    fl_datagram_drop_letters(self);
    return fl_transport_fatal(&self->transport, datagram_send_failed);
}

/* Sends until the queue is empty or the socket full. */
static int
datagram_send_queue(DatagramObject *self)
{
    int rc = 1;
    while (rc != 0 && self->count > 0 && self->transport.loop != NULL) {
        if (!fl_transport_alive(&self->transport)) {
            fl_datagram_drop_letters(self);
            fl_raise_errno(-EBADF);
            return fl_datagram_tell_error(self);
        }
        rc = datagram_send_batch(self);
        if (rc < 0 && datagram_handle_error(self) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
datagram_wait_for_room(DatagramObject *self)
{
    TransportObject *transport = &self->transport;
    if (self->count == 0 || transport->loop == NULL) {
        return 0;
    }
    if (fl_transport_start_writing(transport) < 0) {
        return -1;
    }
    return fl_transport_maybe_pause(transport, self->size);
}

int
fl_datagram_flush(LoopObject *Py_UNUSED(loop), PyObject *op)
{
    TransportObject *transport = (TransportObject *)op;
    /* Nobody called: what error_received raises is reported. */
    return fl_datagram_flush_held((DatagramObject *)op) < 0
               ? fl_transport_report(transport, "_sendto_ready")
               : 0;
}

int
fl_datagram_flush_held(DatagramObject *self)
{
    if (!self->transport.held) {
        return 0;
    }
    self->transport.held = false;
    return datagram_send_queue(self) < 0 ? -1 : datagram_wait_for_room(self);
}

/* _sendto_ready */
int
fl_datagram_write_ready(TransportObject *transport)
{
    DatagramObject *self = (DatagramObject *)transport;
    if (transport->lost > 0 || transport->loop == NULL) {
        return 0;
    }
    if (datagram_send_queue(self) < 0
        || fl_transport_maybe_resume(transport, self->size) < 0
        || fl_datagram_flush_held(self) < 0)
    {
        return -1;
    }
    if (self->count == 0 && transport->loop != NULL) {
        fl_transport_stop_writing(transport);
        if (transport->closing && transport->lost == 0) {
            transport->lost++;
            return fl_transport_lose(transport, Py_None);
        }
    }
    return 0;
}

/* --- Addresses ------------------------------------------------------------*/

/* A numeric host and a port, as the socket's family wants them.  False: ask
   the socket module. */
static bool
datagram_translate(DatagramObject *self, PyObject *addr, fl_address *to)
{
    if (addr == self->last_addr && addr != NULL) {
        *to = self->last;
        return true;
    }
    if (!self->is_udp || !PyTuple_CheckExact(addr)
        || PyTuple_GET_SIZE(addr) != 2
        || !PyUnicode_CheckExact(PyTuple_GET_ITEM(addr, 0))
        || !PyLong_CheckExact(PyTuple_GET_ITEM(addr, 1)))
    {
        return false;
    }
    Py_ssize_t len;
    const char *host =
        PyUnicode_AsUTF8AndSize(PyTuple_GET_ITEM(addr, 0), &len);
    long port = PyLong_AsLong(PyTuple_GET_ITEM(addr, 1));
    if (host == NULL || PyErr_Occurred() || port < 0 || port > 65535
        || strlen(host) != (size_t)len)
    {
        PyErr_Clear();
        return false;
    }
    struct sockaddr_in in = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6,
                               .sin6_port = htons((uint16_t)port)};
    if (self->transport.family == AF_INET
        && inet_pton(AF_INET, host, &in.sin_addr) == 1)
    {
        fl_address_set(to, &in, sizeof(in));
        return true;
    }
    if (self->transport.family == AF_INET6
        && inet_pton(AF_INET6, host, &in6.sin6_addr) == 1)
    {
        fl_address_set(to, &in6, sizeof(in6));
        return true;
    }
    return false;
}

/* --- sendto ---------------------------------------------------------------*/

static bool
datagram_may_hold(DatagramObject *self)
{
    LoopObject *loop = (LoopObject *)self->transport.loop;
    return loop->iterating && !loop->polling && self->count <= DATAGRAM_HOLD
           && self->size <= DATAGRAM_HOLD_BYTES
           && self->size <= (size_t)self->transport.high_water;
}

/* The queue is empty or held, and can take one more. */
static int
datagram_hold_or_send(DatagramObject *self)
{
    TransportObject *transport = &self->transport;
    bool held = transport->held;
    transport->held = true;
    if (!datagram_may_hold(self)) {
        return fl_datagram_flush_held(self);
    }
    return held ? 0
                : fl_hold((LoopObject *)transport->loop,
                          (PyObject *)transport);
}

/* Through the socket object, after what is held. */
static int
datagram_send_by_call(DatagramObject *self, PyObject *data, PyObject *addr)
{
    static const fl_address nowhere = {0};
    if (fl_datagram_flush_held(self) < 0) {
        return -1;
    }
    if (self->transport.loop == NULL || self->transport.lost > 0) {
        return 0;
    }
    if (self->count == 0) {
        int rc = datagram_call(self, data, addr);
        if (rc != 0) {
            return rc > 0 ? 0 : datagram_handle_error(self);
        }
        if (fl_transport_start_writing(&self->transport) < 0) {
            return -1;
        }
    }
    return datagram_put(self, data, addr, &nowhere) < 0
               ? -1
               : fl_transport_maybe_pause(&self->transport, self->size);
}

static int
datagram_send(DatagramObject *self, PyObject *data, PyObject *addr)
{
    fl_address to = {0};
    if (!self->connected && !datagram_translate(self, addr, &to)) {
        return datagram_send_by_call(self, data, addr);
    }
    bool waiting = self->count > 0 && !self->transport.held;
    if (datagram_put(self, data, NULL, &to) < 0) {
        return fl_transport_fatal(&self->transport, datagram_send_failed);
    }
    return waiting ? fl_transport_maybe_pause(&self->transport, self->size)
                   : datagram_hold_or_send(self);
}

/* With one peer only that peer is allowed.  The address to use, borrowed. */
static PyObject *
datagram_check_address(DatagramObject *self, PyObject *addr)
{
    if (self->address == NULL || addr == Py_None) {
        return self->address == NULL ? addr : self->address;
    }
    int same = PyObject_RichCompareBool(addr, self->address, Py_EQ);
    if (same > 0) {
        return self->address;
    }
    if (same == 0) {
        PyErr_Format(PyExc_ValueError,
                     "Invalid address: must be None or %S", self->address);
    }
    return NULL;
}

static int
datagram_sendto(DatagramObject *self, PyObject *data, PyObject *addr)
{
    if (!fl_is_data(data)) {
        PyErr_Format(PyExc_TypeError,
                     "data argument must be a bytes-like object, not '%s'",
                     Py_TYPE(data)->tp_name);
        return -1;
    }
#if !FL_PY313
    int any = PyObject_IsTrue(data);
    if (any <= 0) {
        return any;
    }
#endif
    addr = datagram_check_address(self, addr);
    if (addr == NULL) {
        return -1;
    }
    if (self->transport.lost > 0 || self->transport.loop == NULL) {
        return fl_transport_write_lost(&self->transport,
                                       "socket.send() raised exception.");
    }
    Py_INCREF(addr);
    int rc = datagram_send(self, data, addr);
    Py_DECREF(addr);
    return rc;
}

PyObject *
fl_datagram_py_sendto(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                      PyObject *names)
{
    PyObject *found[2] = {NULL, Py_None};
    if (fl_two_arguments("sendto", (const char *const[]){"data", "addr"},
                         args, nargs, names, found)
        < 0)
    {
        return NULL;
    }
    if (datagram_sendto((DatagramObject *)op, found[0], found[1]) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}
