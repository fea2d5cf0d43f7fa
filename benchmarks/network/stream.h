/* stream.h -- the bytes of a connection, for the floor and the load generator:
   in the clear, or with BENCH_TLS through OpenSSL.  Both programs are compiled
   either way from the same source; the plain ones do not need OpenSSL. */
#ifndef BENCH_STREAM_H
#define BENCH_STREAM_H

#include "common.h"

#ifdef BENCH_TLS

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>

typedef SSL_CTX bench_security;

typedef struct {
    int fd;
    SSL *tls;
} bench_stream;

/* Why the last call failed, without anything that JSON would escape. */
static inline const char *
bench_why(void)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    return reason != NULL ? reason : strerror(errno);
}

/* What all connections have in common.  The file holds certificate and key; a
   client trusts that certificate alone.  TLS 1.3, one group and one cipher,
   so that no server and no newer OpenSSL measures something else. */
static inline bench_security *
bench_secure(const char *file, bool server)
{
    signal(SIGPIPE, SIG_IGN);
    const SSL_METHOD *method = server ? TLS_server_method()
                                      : TLS_client_method();
    SSL_CTX *context = SSL_CTX_new(method);
    if (context == NULL || file == NULL
        || !SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION)
        || !SSL_CTX_set1_groups_list(context, "X25519")
        || !SSL_CTX_set_ciphersuites(context, "TLS_AES_256_GCM_SHA384"))
    {
        bench_die("TLS needs OpenSSL 1.1.1 and a certificate");
    }
    /* Idle connections have no buffers, as with Python's own contexts. */
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE
                              | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
                              | SSL_MODE_RELEASE_BUFFERS);
    /* One read for header and body of a record: a tenth of an echo. */
    SSL_CTX_set_read_ahead(context, 1);
    int ok;
    if (server) {
        ok = SSL_CTX_use_certificate_file(context, file, SSL_FILETYPE_PEM)
             && SSL_CTX_use_PrivateKey_file(context, file, SSL_FILETYPE_PEM);
    }
    else {
        ok = SSL_CTX_load_verify_locations(context, file, NULL);
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    }
    if (!ok) {
        bench_die("no use for the certificate: %s", bench_why());
    }
    return context;
}

static inline void
bench_open(bench_stream *stream, int fd, bench_security *security, bool server)
{
    stream->fd = fd;
    stream->tls = SSL_new(security);
    if (stream->tls == NULL || !SSL_set_fd(stream->tls, fd)) {
        bench_die("no TLS connection: %s", bench_why());
    }
    if (server) {
        SSL_set_accept_state(stream->tls);
    }
    else {
        SSL_set_connect_state(stream->tls);
    }
}

/* What a call that failed is to its caller: -1 with errno as a socket sets it,
   or 0 for the end. */
static inline ssize_t
bench_failed(bench_stream *stream, int result)
{
    switch (SSL_get_error(stream->tls, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE: errno = EAGAIN; return -1;
    case SSL_ERROR_ZERO_RETURN: return 0;
    case SSL_ERROR_SYSCALL: return -1;
    default: break;
    }
#ifdef SSL_R_UNEXPECTED_EOF_WHILE_READING
    /* Not everybody says close_notify. */
    if (ERR_GET_REASON(ERR_peek_last_error())
        == SSL_R_UNEXPECTED_EOF_WHILE_READING)
    {
        return 0;
    }
#endif
    errno = EPROTO;
    return -1;
}

/* Goes on with the handshake: 1 when it is complete, or -1 with errno. */
static inline int
bench_shake(bench_stream *stream)
{
    ERR_clear_error();
    int result = SSL_do_handshake(stream->tls);
    if (result == 1) {
        return 1;
    }
    if (bench_failed(stream, result) == 0) {
        errno = ECONNRESET;
    }
    return -1;
}

static inline bool
bench_shake_wants_out(bench_stream *stream)
{
    return SSL_want_write(stream->tls);
}

/* A record at most.  A server's first calls make the handshake; what they
   write then is small and fits into the socket's buffer. */
static inline ssize_t
bench_recv(bench_stream *stream, char *buf, size_t len)
{
    size_t got = 0;
    ERR_clear_error();
    int result = SSL_read_ex(stream->tls, buf, len, &got);
    return result == 1 ? (ssize_t)got : bench_failed(stream, result);
}

/* Whether there is more to receive of which the socket does not know. */
static inline bool
bench_buffered(bench_stream *stream)
{
    return SSL_has_pending(stream->tls);
}

static inline ssize_t
bench_send(bench_stream *stream, const char *data, size_t len)
{
    size_t done = 0;
    ERR_clear_error();
    while (done < len) {
        size_t sent = 0;
        int result = SSL_write_ex(stream->tls, data + done, len - done, &sent);
        if (result != 1) {
            /* What did not go now is said again with the rest. */
            return done > 0 ? (ssize_t)done : bench_failed(stream, result);
        }
        done += sent;
    }
    return (ssize_t)done;
}

/* Says close_notify, where there is one: nothing more comes. */
static inline void
bench_end(bench_stream *stream)
{
    if (SSL_is_init_finished(stream->tls)) {
        ERR_clear_error();
        SSL_shutdown(stream->tls);
    }
}

static inline void
bench_close(bench_stream *stream)
{
    SSL_free(stream->tls);
    close(stream->fd);
    stream->tls = NULL;
    stream->fd = -1;
}

#else

typedef void bench_security;

typedef struct {
    int fd;
} bench_stream;

static inline const char *
bench_why(void)
{
    return strerror(errno);
}

static inline bench_security *
bench_secure(const char *file, bool server)
{
    (void)file;
    (void)server;
    return NULL;
}

static inline void
bench_open(bench_stream *stream, int fd, bench_security *security, bool server)
{
    (void)security;
    (void)server;
    stream->fd = fd;
}

static inline int
bench_shake(bench_stream *stream)
{
    (void)stream;
    return 1;
}

static inline bool
bench_shake_wants_out(bench_stream *stream)
{
    (void)stream;
    return false;
}

static inline ssize_t
bench_recv(bench_stream *stream, char *buf, size_t len)
{
    return recv(stream->fd, buf, len, 0);
}

static inline bool
bench_buffered(bench_stream *stream)
{
    (void)stream;
    return false;
}

static inline ssize_t
bench_send(bench_stream *stream, const char *data, size_t len)
{
    return send(stream->fd, data, len, MSG_NOSIGNAL);
}

static inline void
bench_end(bench_stream *stream)
{
    (void)stream;
}

static inline void
bench_close(bench_stream *stream)
{
    close(stream->fd);
    stream->fd = -1;
}

#endif
#endif
