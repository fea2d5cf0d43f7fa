/* tls.h -- SSLTransport: an encrypted stream above another transport.

   asyncio has two objects for that, an SSLProtocol for the transport below and
   a transport for the protocol above.  Here one object is both: the transport
   below calls its protocol half (connection_made, buffer_updated, ...), the
   application its transport half (write, close, ...).  A SocketTransport below
   is called in C, and calls in C (state->tls_receive); any other through its
   methods.

   The cryptography is Python's: an ssl.SSLObject between two ssl.MemoryBIOs.
   Ciphertext goes into the one and is read from the other.  All connections of
   a loop share one such pair (engine.c): between two calls of OpenSSL both are
   empty.

   Life (phase): unwrapped -- handshake -- wrapped -- flushing -- shutdown --
   unwrapped.  While flushing, what arrived is still read; in shutdown our
   close_notify is sent and the peer's awaited.  connection_lost() ends all.

   Where Python code may run: wherever OpenSSL is called, for it calls back
   (SNI, message callbacks) and other threads go on meanwhile.  loop->in_ssl is
   set then, and whatever would call OpenSSL again, for whichever connection,
   is put off (fl_tls_put_off). */
#ifndef FL_TLS_TLS_H
#define FL_TLS_TLS_H

#include "net/transport.h"
#include "tls/records.h"

typedef enum {
    FL_TLS_UNWRAPPED,
    FL_TLS_HANDSHAKE,
    FL_TLS_WRAPPED,
    FL_TLS_FLUSHING,
    FL_TLS_SHUTDOWN,
} fl_tls_phase;

/* What the application's protocol has been told. */
typedef enum {
    FL_APP_INIT,
    FL_APP_MADE,   /* connection_made */
    FL_APP_EOF,    /* eof_received */
    FL_APP_LOST,   /* connection_lost */
} fl_app_phase;

/* Ciphertext of our own: len bytes from `at` on.  See unread.c. */
typedef struct {
    char *bytes;
    size_t at;
    size_t len;
    size_t capacity;
} fl_spill;

typedef struct {
    /* loop, protocol (the application's), queue (plaintext that waits), the
       water marks, closing (close() or abort() was called), paused (reading,
       by the application), protocol_paused, held, lost and extra.  There is no
       descriptor: fd is -1. */
    TransportObject base;

    PyObject *lower;      /* the transport below; NULL before and after */
    PyObject *context;    /* ssl.SSLContext */
    PyObject *object;     /* ssl.SSLObject */
    PyObject *engine;     /* what reads and writes: see engine.c */
    PyObject *incoming;   /* ssl.MemoryBIO, the loop's or our own */
    PyObject *outgoing;
    PyObject *sealed;     /* a bytearray, or NULL: ciphertext that is not handed
                             down yet, for the transport below is full */
    PyObject *peercert;   /* NULL before the handshake is done */
    PyObject *waiter;     /* a Future to tell of the handshake, or NULL */
    PyObject *timer;      /* of the handshake, then of the shutdown; or NULL */
    PyObject *buffer;     /* for a transport below that wants one, or NULL */
    PyObject *handshake_timeout;
    PyObject *shutdown_timeout;

    /* What is not decrypted yet; feed is borrowed from fl_tls_receive's
       caller. */
    fl_spill spill;
    const char *feed;
    size_t feed_left;

    Py_ssize_t read_high;
    Py_ssize_t read_low;
    double handshake_began;  /* debug mode only */

    uint8_t phase;
    uint8_t app;
    bool native : 1;         /* engine is asked in C: see engine.c */
    bool shared : 1;         /* the BIOs are the loop's */
    bool lower_is_socket : 1;
    bool lower_full : 1;     /* pause_writing() was called */
    bool lower_paused : 1;   /* by us: enough is unread */
    bool eof : 1;            /* of the transport below */
    bool peer_closed : 1;    /* close_notify was read */
    bool server_side : 1;
    bool rest : 1;           /* OpenSSL has more of a record that was read */
    bool fed : 1;            /* `incoming` holds a record */
    bool put_off : 1;        /* _go_on is scheduled */
    bool let_go : 1;         /* closed twice: see fl_tls_let_go */
} TLSObject;

/* --- engine.c: Python's ssl objects ---------------------------------------*/

/* What OpenSSL answers when it needs more from the peer first. */
#define FL_TLS_LATER (-2)

int fl_tls_engine_setup(PyObject *module, fl_state *state) FL_RAISES;

/* The ssl objects of a new connection.  Runs Python: wrap_bio(). */
int fl_tls_engine_open(TLSObject *self, PyObject *context, PyObject *hostname)
    FL_RAISES;

/* Decrypts into size bytes of space: how many there were, 0 at the peer's
   close_notify, -1 with an exception, FL_TLS_LATER.  Runs Python. */
ssize_t fl_tls_engine_read(TLSObject *self, char *space, size_t size)
    FL_RAISES;

/* Encrypts; the same.  Runs Python. */
ssize_t fl_tls_engine_write(TLSObject *self, const char *bytes, size_t len)
    FL_RAISES;

/* object.name(), do_handshake or unwrap: 0, -1 or FL_TLS_LATER.  Runs
   Python. */
int fl_tls_engine_call(TLSObject *self, PyObject *name) FL_RAISES;

/* Whether OpenSSL is in the middle of something on this loop. */
static inline bool
fl_tls_is_busy(const TLSObject *self)
{
    const LoopObject *loop = (const LoopObject *)self->base.loop;
    return loop != NULL && loop->in_ssl;
}

/* Before each use of OpenSSL: drops what somebody left in the BIOs who called
   methods of an ssl_object by himself; it is not known whose it is.  Only if
   there is anybody who was shown one. */
int fl_tls_engine_clean(TLSObject *self) FL_RAISES;

static inline int
fl_tls_engine_begin(TLSObject *self)
{
    const LoopObject *loop = (const LoopObject *)self->base.loop;
    return FL_LIKELY(!loop->tls_exposed || !self->shared)
               ? 0
               : fl_tls_engine_clean(self);
}

static inline void
fl_tls_expose(TLSObject *self)
{
    if (self->base.loop != NULL) {
        ((LoopObject *)self->base.loop)->tls_exposed = true;
    }
}

/* Finds out whether the context's callbacks are to be shown it.  Runs
   Python. */
int fl_tls_engine_watch(TLSObject *self) FL_RAISES;

/* Puts the next record into `incoming`, for the next call of OpenSSL.  1: it
   is there.  0: none is complete. */
int fl_tls_engine_feed(TLSObject *self) FL_RAISES;

/* All that OpenSSL has written, as bytes; or None, if `sure` is false and there
   is nothing. */
PyObject *fl_tls_take_outgoing(TLSObject *self, bool sure) FL_RAISES;

/* --- unread.c -------------------------------------------------------------*/

static inline size_t
fl_tls_unread_size(const TLSObject *self)
{
    return self->spill.len + self->feed_left;
}

/* The next complete record, still counted as unread.  1: it is there.  0:
   there is none. */
int fl_tls_unread_next(TLSObject *self, const char **bytes, size_t *len)
    FL_RAISES;
void fl_tls_unread_advance(TLSObject *self, size_t n);

/* Copies what is left of the feed, for that is somebody else's memory. */
int fl_tls_unread_keep(TLSObject *self) FL_RAISES;

/* Puts bytes back in front. */
int fl_tls_unread_return(TLSObject *self, const char *bytes, size_t len)
    FL_RAISES;
void fl_tls_unread_clear(TLSObject *self);

/* --- handshake.c ----------------------------------------------------------*/

int fl_tls_start_handshake(TLSObject *self) FL_RAISES;
int fl_tls_do_handshake(TLSObject *self) FL_RAISES;

/* The handshake is over, with exc or NULL.  Runs Python. */
int fl_tls_handshake_done(TLSObject *self, PyObject *exc) FL_RAISES;
int fl_tls_handshake_timeout(TLSObject *self) FL_RAISES;

/* The waiter's result, or exception.  Runs Python. */
int fl_tls_wake_waiter(TLSObject *self, PyObject *exc) FL_RAISES;

/* --- read.c ---------------------------------------------------------------*/

/* Ciphertext has arrived; the bytes are the caller's.  Runs Python. */
int fl_tls_receive(fl_state *state, PyObject *op, const char *bytes,
                   size_t len) FL_RAISES;

/* Goes on with whatever the phase asks for.  Runs Python. */
int fl_tls_go_on(TLSObject *self) FL_RAISES;
int fl_tls_put_off(TLSObject *self) FL_RAISES;

/* The most plaintext that one data_received() gets. */
#define FL_TLS_PLAINTEXT 65536

/* Reads what there is, and hands it to the protocol.  Runs Python. */
int fl_tls_do_read(TLSObject *self) FL_RAISES;
int fl_tls_control_reading(TLSObject *self) FL_RAISES;

/* 1: the stream below has ended, and the protocol has still to be given some
   of what came before that.  0: nothing is left, or it has closed. */
int fl_tls_is_behind(TLSObject *self) FL_RAISES;

/* --- write.c --------------------------------------------------------------*/

int fl_tls_write(TLSObject *self, PyObject *data) FL_RAISES;
int fl_tls_writelines(TLSObject *self, PyObject *list) FL_RAISES;

/* Encrypts what waits, and hands it down.  Runs Python. */
int fl_tls_encrypt(TLSObject *self) FL_RAISES;

/* After each use of OpenSSL, with what that returned, which is returned again:
   what it has written goes down, an alert at once.  Runs Python. */
ssize_t fl_tls_settle(TLSObject *self, ssize_t rc) FL_RAISES;

/* What OpenSSL has written is kept for the next fl_tls_send_sealed. */
int fl_tls_seal(TLSObject *self) FL_RAISES;
int fl_tls_send_sealed(TLSObject *self) FL_RAISES;

/* As asyncio counts it. */
static inline Py_ssize_t
fl_tls_buffered(const TLSObject *self)
{
    return (Py_ssize_t)fl_transport_buffered(&self->base)
           + (self->sealed == NULL ? 0 : PyByteArray_GET_SIZE(self->sealed));
}

/* What write() held back leaves now: the channel's flush, and for callers
   that report errors themselves.  Runs Python. */
int fl_tls_flush(LoopObject *loop, PyObject *op) FL_RAISES;
int fl_tls_flush_held(TLSObject *self) FL_RAISES;

int fl_tls_control_writing(TLSObject *self) FL_RAISES;

/* --- close.c --------------------------------------------------------------*/

int fl_tls_start_shutdown(TLSObject *self) FL_RAISES;
int fl_tls_do_flush(TLSObject *self) FL_RAISES;
int fl_tls_do_shutdown(TLSObject *self) FL_RAISES;
int fl_tls_shutdown_timeout(TLSObject *self) FL_RAISES;

/* protocol.eof_received(), once.  Runs Python. */
int fl_tls_tell_eof(TLSObject *self) FL_RAISES;

/* The end of the stream below: 1 to keep that open, else 0. */
int fl_tls_receive_eof(TLSObject *self) FL_RAISES;

int fl_tls_abort(TLSObject *self, PyObject *exc) FL_RAISES;
int fl_tls_lose(TLSObject *self, PyObject *exc) FL_RAISES;

/* An exception is raised: the connection ends, and the exception is reported
   as asyncio's SSLProtocol does.  -1, and it is
   still raised, for what is no Exception.  Runs Python. */
int fl_tls_fatal(TLSObject *self, const char *message) FL_RAISES;

/* The connection ended while OpenSSL was at work, and said so: what OpenSSL
   raised is cleared.  -1: a callback raised something else. */
int fl_tls_ended(TLSObject *self) FL_RAISES;

/* --- transport.c ----------------------------------------------------------*/

int fl_tls_setup(PyObject *module, fl_state *state) FL_RAISES;

int fl_tls_set_timer(TLSObject *self, PyObject *delay, const char *method)
    FL_RAISES;
int fl_tls_cancel_timer(TLSObject *self) FL_RAISES;

/* Drops the ssl objects.  Only when the connection is lost. */
void fl_tls_let_go(TLSObject *self);

static inline fl_state *
fl_tls_state(TLSObject *self)
{
    return fl_transport_state(&self->base);
}

/* lower.name(arg); arg may be NULL.  Nothing when there is no transport
   below any more.  Runs Python. */
int fl_tls_tell_lower(TLSObject *self, PyObject *name, PyObject *arg)
    FL_RAISES;

#endif
