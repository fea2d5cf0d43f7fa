/* floor.c -- the floor: what the kernel alone takes to serve the workloads.

   A plain epoll server, level-triggered, one thread, no Python.  Per readiness
   of a connection it does one recv and one send; that is what any event loop
   on epoll has to do at least, so its CPU per request is the share of a loop's
   that no loop can save.

       floor echo ADDRESS [CORE]           stream echo, over TCP or unix
       floor answer ADDRESS CORE SIZE      SIZE bytes for whatever comes
       floor udp ADDRESS [CORE]            one recvfrom, one sendto at a time
       floor mmsg ADDRESS [CORE]           up to 64 datagrams at a time

   It prints one line of JSON with its pid and address, and runs until it is
   killed or its parent dies. */
#define _GNU_SOURCE 1
#include "common.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>

#define FLOOR_EVENTS        256
#define FLOOR_BATCH         64
#define FLOOR_DATAGRAM_SIZE 65536

typedef struct {
    int fd;
    /* What the socket did not take; while there is any, only EPOLLOUT is
       watched, so that a peer that does not read is not read from. */
    char *rest;
    size_t rest_len;
    size_t rest_sent;
} floor_conn;

typedef struct {
    int epoll_fd;
    int listen_fd;
    bench_address address;
    char *buf;
    /* The constant answer, or NULL for echo. */
    char *answer;
    size_t answer_len;
} floor_server;

static void
floor_watch(floor_server *server, floor_conn *conn, uint32_t mask, int how)
{
    struct epoll_event event = {.events = mask, .data.ptr = conn};
    if (epoll_ctl(server->epoll_fd, how, conn->fd, &event) < 0) {
        bench_die("epoll_ctl: %s", strerror(errno));
    }
}

static void
floor_close(floor_conn *conn)
{
    /* epoll forgets a descriptor that is closed. */
    close(conn->fd);
    free(conn->rest);
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
        conn->fd = fd;
        floor_watch(server, conn, EPOLLIN, EPOLL_CTL_ADD);
    }
}

/* Returns -1 when the connection is gone. */
static int
floor_flush(floor_server *server, floor_conn *conn)
{
    ssize_t sent = send(conn->fd, conn->rest + conn->rest_sent,
                        conn->rest_len - conn->rest_sent, MSG_NOSIGNAL);
    if (sent < 0) {
        return errno == EAGAIN ? 0 : -1;
    }
    conn->rest_sent += (size_t)sent;
    if (conn->rest_sent == conn->rest_len) {
        free(conn->rest);
        conn->rest = NULL;
        floor_watch(server, conn, EPOLLIN, EPOLL_CTL_MOD);
    }
    return 0;
}

/* Returns -1 when the connection is gone. */
static int
floor_send(floor_server *server, floor_conn *conn, const char *data,
           size_t len)
{
    ssize_t sent = send(conn->fd, data, len, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN) {
            return -1;
        }
        sent = 0;
    }
    if ((size_t)sent < len) {
        conn->rest_len = len - (size_t)sent;
        conn->rest_sent = 0;
        conn->rest = malloc(conn->rest_len);
        if (conn->rest == NULL) {
            bench_die("no memory");
        }
        memcpy(conn->rest, data + sent, conn->rest_len);
        floor_watch(server, conn, EPOLLOUT, EPOLL_CTL_MOD);
    }
    return 0;
}

static void
floor_serve_conn(floor_server *server, floor_conn *conn)
{
    if (conn->rest != NULL) {
        if (floor_flush(server, conn) < 0) {
            floor_close(conn);
        }
        return;
    }
    ssize_t got = recv(conn->fd, server->buf, BENCH_READ_SIZE, 0);
    if (got < 0 && errno == EAGAIN) {
        return;
    }
    bool gone = got <= 0;
    if (!gone && server->answer != NULL) {
        got = (ssize_t)server->answer_len;
        gone = floor_send(server, conn, server->answer, (size_t)got) < 0;
    }
    else if (!gone) {
        gone = floor_send(server, conn, server->buf, (size_t)got) < 0;
    }
    if (gone) {
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
        bench_die("floor echo|answer|udp|mmsg ADDRESS [CORE [SIZE]]");
    }
    const char *mode = argv[1];
    bool udp = strcmp(mode, "udp") == 0, mmsg = strcmp(mode, "mmsg") == 0;
    bool answers = strcmp(mode, "answer") == 0;
    if (!udp && !mmsg && !answers && strcmp(mode, "echo") != 0) {
        bench_die("the floor knows echo, answer, udp and mmsg");
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    bench_pin(argc > 3 ? atoi(argv[3]) : -1);
    bench_raise_descriptors();

    floor_server server;
    memset(&server, 0, sizeof(server));
    size_t size = mmsg ? (size_t)FLOOR_BATCH * FLOOR_DATAGRAM_SIZE
                       : BENCH_READ_SIZE;
    server.buf = malloc(size);
    if (answers) {
        server.answer_len = argc > 4 ? (size_t)atol(argv[4]) : 1;
        server.answer = malloc(server.answer_len);
    }
    if (server.buf == NULL || (answers && server.answer == NULL)) {
        bench_die("no memory");
    }
    if (answers) {
        memset(server.answer, 'b', server.answer_len);
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
