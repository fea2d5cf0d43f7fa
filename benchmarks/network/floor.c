/* floor.c -- the floor: what the kernel alone takes to serve the workloads.

   A plain epoll server, level-triggered, one thread, no Python.  Per readiness
   of a connection it does one recv and one send; that is what any event loop
   on epoll has to do at least, so its CPU per request is the share of a loop's
   that no loop can save.

       floor echo ADDRESS [CORE]           stream echo, over TCP or unix
       floor answer ADDRESS CORE SIZE      SIZE bytes for whatever comes
       floor upload ADDRESS CORE SIZE      for SIZE bytes, the first 16 of them
       floor udp ADDRESS [CORE]            one recvfrom, one sendto at a time
       floor mmsg ADDRESS [CORE]           up to 64 datagrams at a time

   Compiled with BENCH_TLS, it speaks TLS on its streams and takes one word
   more, the file with certificate and key: what OpenSSL on top of the kernel
   takes.  A record is then what is received at a time.

   It prints one line of JSON with its pid and address, and runs until it is
   killed or its parent dies. */
#define _GNU_SOURCE 1
#include "common.h"
#include "stream.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>

#define FLOOR_EVENTS        256
#define FLOOR_BATCH         64
#define FLOOR_DATAGRAM_SIZE 65536
/* What an upload is answered with: so many of its first bytes. */
#define FLOOR_STAMP_SIZE ((size_t)16)

typedef struct {
    bench_stream stream;
    /* What the socket did not take; while there is any, only EPOLLOUT is
       watched, so that a peer that does not read is not read from. */
    const char *rest;
    size_t rest_len;
    size_t rest_sent;
    /* Where the rest is, unless it is of the answer, which stays. */
    char *owned;
    /* Of the present upload. */
    size_t uploaded;
    char stamp[FLOOR_STAMP_SIZE];
} floor_conn;

typedef struct {
    int epoll_fd;
    int listen_fd;
    bench_address address;
    bench_security *security;
    char *buf;
    /* The constant answer, or NULL for echo. */
    char *answer;
    size_t answer_len;
    /* Bytes of an upload, or 0 for no uploads. */
    size_t upload_len;
} floor_server;

static void
floor_watch(floor_server *server, floor_conn *conn, uint32_t mask, int how)
{
    struct epoll_event event = {.events = mask, .data.ptr = conn};
    if (epoll_ctl(server->epoll_fd, how, conn->stream.fd, &event) < 0) {
        bench_die("epoll_ctl: %s", strerror(errno));
    }
}

static void
floor_close(floor_conn *conn)
{
    /* epoll forgets a descriptor that is closed. */
    bench_end(&conn->stream);
    bench_close(&conn->stream);
    free(conn->owned);
    free(conn);
}

static void
floor_accept(floor_server *server)
{
    for (int i = 0; i < FLOOR_BATCH; i++) {
        int flags = SOCK_NONBLOCK | SOCK_CLOEXEC;
        int fd = accept4(server->listen_fd, NULL, NULL, flags);
        if (fd < 0) {
            return;
        }
        bench_no_delay(fd, &server->address);
        floor_conn *conn = calloc(1, sizeof(*conn));
        if (conn == NULL) {
            bench_die("no memory");
        }
        bench_open(&conn->stream, fd, server->security, true);
        floor_watch(server, conn, EPOLLIN, EPOLL_CTL_ADD);
    }
}

/* Returns -1 when the connection is gone. */
static int
floor_flush(floor_server *server, floor_conn *conn)
{
    ssize_t sent = bench_send(&conn->stream, conn->rest + conn->rest_sent,
                              conn->rest_len - conn->rest_sent);
    if (sent < 0) {
        return errno == EAGAIN ? 1 : -1;
    }
    conn->rest_sent += (size_t)sent;
    if (conn->rest_sent == conn->rest_len) {
        free(conn->owned);
        conn->owned = NULL;
        conn->rest = NULL;
        floor_watch(server, conn, EPOLLIN, EPOLL_CTL_MOD);
    }
    return 1;
}

/* Returns -1 when the connection is gone. */
static int
floor_send(floor_server *server, floor_conn *conn, const char *data,
           size_t len)
{
    ssize_t sent = bench_send(&conn->stream, data, len);
    if (sent < 0) {
        if (errno != EAGAIN) {
            return -1;
        }
        sent = 0;
    }
    if ((size_t)sent < len) {
        conn->rest = data + sent;
        conn->rest_len = len - (size_t)sent;
        conn->rest_sent = 0;
        if (data != server->answer) {
            conn->owned = malloc(conn->rest_len);
            if (conn->owned == NULL) {
                bench_die("no memory");
            }
            memcpy(conn->owned, conn->rest, conn->rest_len);
            conn->rest = conn->owned;
        }
        floor_watch(server, conn, EPOLLOUT, EPOLL_CTL_MOD);
    }
    return 1;
}

/* Nothing but the first bytes of an upload is kept. */
static int
floor_take_upload(floor_server *server, floor_conn *conn, const char *data,
                  size_t len)
{
    while (len > 0) {
        size_t left = server->upload_len - conn->uploaded;
        size_t part = len < left ? len : left;
        if (conn->uploaded < FLOOR_STAMP_SIZE) {
            size_t missing = FLOOR_STAMP_SIZE - conn->uploaded;
            memcpy(conn->stamp + conn->uploaded, data,
                   part < missing ? part : missing);
        }
        conn->uploaded += part;
        data += part;
        len -= part;
        if (conn->uploaded == server->upload_len) {
            conn->uploaded = 0;
            if (floor_send(server, conn, conn->stamp, FLOOR_STAMP_SIZE) < 0) {
                return -1;
            }
        }
    }
    return 1;
}

/* Returns 0 when there was nothing, -1 when the connection is gone. */
static int
floor_serve_once(floor_server *server, floor_conn *conn)
{
    ssize_t got = bench_recv(&conn->stream, server->buf, BENCH_READ_SIZE);
    if (got <= 0) {
        return got < 0 && errno == EAGAIN ? 0 : -1;
    }
    if (server->upload_len > 0) {
        return floor_take_upload(server, conn, server->buf, (size_t)got);
    }
    if (server->answer != NULL) {
        return floor_send(server, conn, server->answer, server->answer_len);
    }
    return floor_send(server, conn, server->buf, (size_t)got);
}

static void
floor_serve_conn(floor_server *server, floor_conn *conn)
{
    int ok = conn->rest != NULL ? floor_flush(server, conn)
                                : floor_serve_once(server, conn);
    /* Of what OpenSSL has read already, epoll does not tell. */
    while (ok > 0 && conn->rest == NULL && bench_buffered(&conn->stream)) {
        ok = floor_serve_once(server, conn);
    }
    if (ok < 0) {
        floor_close(conn);
    }
}

static void
floor_serve_datagram(floor_server *server)
{
    bench_address peer;
    peer.len = sizeof(peer.name);
    ssize_t got = recvfrom(server->listen_fd, server->buf, FLOOR_DATAGRAM_SIZE,
                           0, &peer.name.any, &peer.len);
    if (got >= 0) {
        /* One that is dropped is the client's to miss. */
        (void)!sendto(server->listen_fd, server->buf, (size_t)got, 0,
                      &peer.name.any, peer.len);
    }
}

static void
floor_serve_datagrams(floor_server *server, size_t size)
{
    struct mmsghdr messages[FLOOR_BATCH];
    struct iovec vectors[FLOOR_BATCH];
    bench_address peers[FLOOR_BATCH];
    memset(messages, 0, sizeof(messages));
    for (size_t i = 0; i < FLOOR_BATCH; i++) {
        vectors[i].iov_base = server->buf + i * size;
        vectors[i].iov_len = size;
        messages[i].msg_hdr.msg_iov = &vectors[i];
        messages[i].msg_hdr.msg_iovlen = 1;
        messages[i].msg_hdr.msg_name = &peers[i].name;
        messages[i].msg_hdr.msg_namelen = sizeof(peers[i].name);
    }
    int got = recvmmsg(server->listen_fd, messages, FLOOR_BATCH, 0, NULL);
    for (int i = 0; i < got; i++) {
        vectors[i].iov_len = messages[i].msg_len;
    }
    for (int done = 0; done < got;) {
        int sent = sendmmsg(server->listen_fd, messages + done,
                            (unsigned)(got - done), 0);
        if (sent <= 0) {
            return;
        }
        done += sent;
    }
}

static void
floor_listen(floor_server *server, const char *address, bool stream)
{
    int kind = (stream ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK
               | SOCK_CLOEXEC;
    int on = 1;
    server->address = bench_parse_address(address);
    server->listen_fd = socket(server->address.name.any.sa_family, kind, 0);
    setsockopt(server->listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(server->listen_fd, &server->address.name.any,
             server->address.len) < 0
        || (stream && listen(server->listen_fd, BENCH_BACKLOG) < 0))
    {
        bench_die("cannot listen: %s", strerror(errno));
    }
    server->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, server->listen_fd, &event);

    if (server->address.name.any.sa_family == AF_UNIX) {
        printf("{\"pid\": %d, \"address\": \"%s\"}\n", (int)getpid(), address);
    }
    else {
        struct sockaddr_in bound;
        socklen_t len = sizeof(bound);
        getsockname(server->listen_fd, (struct sockaddr *)&bound, &len);
        printf("{\"pid\": %d, \"address\": \"127.0.0.1:%d\"}\n", (int)getpid(),
               ntohs(bound.sin_port));
    }
    fflush(stdout);
}

int
main(int argc, char **argv)
{
    if (argc < 3) {
        bench_die("floor MODE ADDRESS [CORE [SIZE [CERTIFICATE]]]");
    }
    const char *mode = argv[1];
    bool udp = strcmp(mode, "udp") == 0, mmsg = strcmp(mode, "mmsg") == 0;
    bool answers = strcmp(mode, "answer") == 0;
    bool takes = strcmp(mode, "upload") == 0;
    if (!udp && !mmsg && !answers && !takes && strcmp(mode, "echo") != 0) {
        bench_die("the floor knows echo, answer, upload, udp and mmsg");
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    bench_pin(argc > 3 ? atoi(argv[3]) : -1);
    bench_raise_descriptors();

    floor_server server;
    memset(&server, 0, sizeof(server));
    server.security = bench_secure(argc > 5 ? argv[5] : NULL, true);
    size_t size = mmsg ? (size_t)FLOOR_BATCH * FLOOR_DATAGRAM_SIZE
                       : BENCH_READ_SIZE;
    server.buf = malloc(size);
    size_t len = argc > 4 ? (size_t)atol(argv[4]) : 1;
    server.upload_len = takes ? len : 0;
    if (answers) {
        server.answer_len = len;
        server.answer = malloc(len);
    }
    if (server.buf == NULL || (answers && server.answer == NULL)) {
        bench_die("no memory");
    }
    /* No part of it is like the next. */
    for (size_t i = 0; i < server.answer_len; i++) {
        server.answer[i] = (char)(i % 251);
    }
    floor_listen(&server, argv[2], !udp && !mmsg);

    struct epoll_event events[FLOOR_EVENTS];
    for (;;) {
        int count = epoll_wait(server.epoll_fd, events, FLOOR_EVENTS, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr != NULL) {
                floor_serve_conn(&server, events[i].data.ptr);
            }
            else if (udp) {
                floor_serve_datagram(&server);
            }
            else if (mmsg) {
                floor_serve_datagrams(&server, FLOOR_DATAGRAM_SIZE);
            }
            else {
                floor_accept(&server);
            }
        }
    }
}
