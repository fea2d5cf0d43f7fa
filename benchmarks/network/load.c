/* load.c -- the load generator: N connections with one request in flight each.

   Closed loop: a connection sends its next request when the whole response to
   the last one is there, so the server alone decides how fast it goes.  What
   is counted falls into a window after a warm-up.  At both ends of the window
   the generator itself reads the CPU time of the server, so that requests and
   nanoseconds belong together.

       load echo ADDRESS ...       SIZE bytes, which come back
       load half ADDRESS ...       REQUEST bytes, answered by SIZE others
       load connect ADDRESS ...    connect, one echo, close, over and over
       load upload ADDRESS ...     REQUEST bytes, answered by their stamp
       load handshake ADDRESS ...  connect, TLS handshake, close, over and over
       load udp ADDRESS ...        datagrams, CONNECTIONS of them in flight
       load hold ADDRESS ...       connections that do nothing: the server's
                                   resident memory for each

   It talks to loopback only, prints one line of JSON, and ends by itself.  A
   response that is wrong, missing or too long ends it at once with a reason.

   Every request begins with a stamp, the connection's number and the
   request's, and goes on with letters; its last byte is a newline, its only
   one.  Stamps and lengths are checked always, all other bytes in one of
   LOAD_FULL_CHECK_EVERY requests.

   Compiled with BENCH_TLS, it speaks TLS on its streams and trusts the one
   certificate that --certificate names.  Handshakes are complete before the
   first request; no session is taken up again. */
#define _GNU_SOURCE 1
#include "common.h"
#include "proc.h"
#include "stream.h"

#include <getopt.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#define LOAD_EVENTS           256
#define LOAD_STAMP_SIZE       16
#define LOAD_FULL_CHECK_EVERY 64
/* A datagram that is not back by then is lost and sent anew. */
#define LOAD_LOST_NS       (BENCH_SECOND / 5)
#define LOAD_LOOK_EVERY_MS 20
/* Latencies, in steps of a 64th of a power of two. */
#define LOAD_STEPS   64
#define LOAD_BUCKETS (LOAD_STEPS * 40)
/* Connections that `hold` opens before it lets the server catch up. */
#define LOAD_HOLD_BATCH 256

/* What a connection is about. */
typedef enum {
    LOAD_CONNECTS,
    LOAD_SHAKES_HANDS,
    LOAD_ASKS,
    /* Has said that it ends, and waits for the server to say so. */
    LOAD_ENDS,
} load_stage;

typedef struct {
    bench_stream stream;
    uint32_t number;
    uint32_t sequence;
    load_stage stage;
    /* EPOLLOUT is watched too: connecting, or a request is not all sent. */
    bool wants_out;
    /* Of the present request. */
    size_t sent;
    size_t got;
    int64_t began;
    char stamp[LOAD_STAMP_SIZE];
} load_conn;

typedef enum { LOAD_WARM_UP, LOAD_MEASURE, LOAD_DONE } load_phase;

typedef struct {
    /* The command line. */
    const char *mode;
    bench_address address;
    const char *certificate;
    size_t size;
    size_t request_len;
    size_t count;
    size_t hold_first;
    size_t hold_last;
    bool hold_used;
    double warm_up;
    double duration;
    int pid;
    int core;

    /* Of the modes: connections are made anew for each request, which may be
       no more than the handshake. */
    bool reconnects;
    bool only_shakes;
    bench_security *security;
    int epoll_fd;
    uint32_t sources;
    load_conn *conns;
    /* The stamp of whichever request is sent next, then the letters. */
    char *request;
    /* What comes back: the request's letters, or a response once seen. */
    char *expected;
    bool stamped;
    char *received;

    load_phase phase;
    int64_t window_from;
    int64_t window_until;
    /* The last time that anything came back. */
    int64_t alive;
    int64_t server_ns;
    int64_t own_ns;
    int64_t idle_ns;
    /* Those in the window. */
    uint64_t requests;
    uint64_t lost;
    /* Requests in flight on connections. */
    size_t pending;
    /* Connections that were answered once, until it is all of them. */
    size_t awake;
    uint64_t buckets[LOAD_BUCKETS];
} load_state;

/* --- latencies ---------------------------------------------------------*/

static void
load_record(load_state *load, int64_t ns)
{
    uint64_t value = ns > 0 ? (uint64_t)ns : 0;
    size_t index = (size_t)value;
    if (value >= LOAD_STEPS) {
        unsigned high = 63 - (unsigned)__builtin_clzll(value);
        index = (size_t)(high - 5) * LOAD_STEPS
                + (size_t)(value >> (high - 6)) - LOAD_STEPS;
    }
    load->buckets[index < LOAD_BUCKETS ? index : LOAD_BUCKETS - 1]++;
}

/* Microseconds that a share of the requests stayed below. */
static double
load_percentile(const load_state *load, double share)
{
    uint64_t wanted = (uint64_t)((double)load->requests * share), seen = 0;
    for (size_t i = 0; i < LOAD_BUCKETS; i++) {
        seen += load->buckets[i];
        if (seen > wanted) {
            if (i < LOAD_STEPS) {
                return (double)i / 1e3;
            }
            unsigned shift = (unsigned)(i / LOAD_STEPS) - 1;
            double step = (double)(UINT64_C(1) << shift);
            return (double)(LOAD_STEPS + i % LOAD_STEPS) * step / 1e3
                   + step / 2e3;
        }
    }
    return 0;
}

/* --- the window --------------------------------------------------------- */

static void
load_tick(load_state *load, int64_t now)
{
    if (load->phase == LOAD_WARM_UP && now >= load->window_from
        && load->awake >= load->count)
    {
        load->server_ns = bench_server_cpu(load->pid);
        load->own_ns = bench_clock_ns(CLOCK_PROCESS_CPUTIME_ID);
        load->idle_ns = bench_core_idle(load->core);
        load->window_from = bench_now_ns();
        load->window_until = load->window_from
                             + (int64_t)(load->duration * 1e9);
        load->phase = LOAD_MEASURE;
    }
    else if (load->phase == LOAD_MEASURE && now >= load->window_until) {
        load->window_until = bench_now_ns();
        load->server_ns = bench_server_cpu(load->pid) - load->server_ns;
        load->own_ns = bench_clock_ns(CLOCK_PROCESS_CPUTIME_ID) - load->own_ns;
        load->idle_ns = bench_core_idle(load->core) - load->idle_ns;
        load->phase = LOAD_DONE;
    }
}

/* A response is complete. */
static int64_t
load_answered(load_state *load, load_conn *conn)
{
    int64_t now = bench_now_ns();
    load->alive = now;
    load->pending--;
    if (load->phase == LOAD_MEASURE) {
        load->requests++;
        load_record(load, now - conn->began);
    }
    else if (load->awake < load->count && conn->sequence == 0) {
        load->awake++;
    }
    load_tick(load, now);
    return now;
}

/* --- requests and responses ------------------------------------------- */

static void
load_stamp(load_conn *conn)
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < 8; i++) {
        int shift = 28 - 4 * i;
        conn->stamp[i] = digits[(conn->number >> shift) & 15];
        conn->stamp[8 + i] = digits[(conn->sequence >> shift) & 15];
    }
}

/* The number in eight digits of a stamp; any other bytes give any number. */
static uint32_t
load_parse_stamp(const char *digits)
{
    uint32_t number = 0;
    for (int i = 0; i < 8; i++) {
        uint32_t c = (uint32_t)(unsigned char)digits[i];
        number = number << 4 | (c >= 'a' ? c - 'a' + 10 : c - '0');
    }
    return number;
}

/* Whether these bytes are what the response has at this place. */
static bool
load_matches(const load_state *load, const load_conn *conn, size_t at,
             const char *data, size_t len)
{
    if (load->stamped && at < LOAD_STAMP_SIZE) {
        size_t part = LOAD_STAMP_SIZE - at < len ? LOAD_STAMP_SIZE - at : len;
        if (memcmp(conn->stamp + at, data, part) != 0) {
            return false;
        }
        at += part;
        data += part;
        len -= part;
    }
    if (len == 0) {
        return true;
    }
    if (conn->sequence % LOAD_FULL_CHECK_EVERY == 0) {
        return memcmp(load->expected + at, data, len) == 0;
    }
    return data[0] == load->expected[at]
           && data[len - 1] == load->expected[at + len - 1];
}

static void
load_watch(load_state *load, load_conn *conn, bool wants_out, int how)
{
    if (how == EPOLL_CTL_MOD && conn->wants_out == wants_out) {
        return;
    }
    uint32_t mask = EPOLLIN | (wants_out ? (uint32_t)EPOLLOUT : 0);
    struct epoll_event event = {.events = mask, .data.ptr = conn};
    if (epoll_ctl(load->epoll_fd, how, conn->stream.fd, &event) < 0) {
        bench_die("epoll_ctl: %s", strerror(errno));
    }
    conn->wants_out = wants_out;
}

/* Sends what is left of the present request. */
static void
load_send(load_state *load, load_conn *conn)
{
    /* The buffer is everybody's; only the stamp differs. */
    memcpy(load->request, conn->stamp, LOAD_STAMP_SIZE);
    ssize_t sent = bench_send(&conn->stream, load->request + conn->sent,
                              load->request_len - conn->sent);
    if (sent < 0 && errno != EAGAIN) {
        bench_die("sending a request failed: %s", bench_why());
    }
    conn->sent += sent > 0 ? (size_t)sent : 0;
    load_watch(load, conn, conn->sent < load->request_len, EPOLL_CTL_MOD);
}

static void
load_begin(load_state *load, load_conn *conn, int64_t now)
{
    conn->began = now;
    conn->sent = 0;
    conn->got = 0;
    load->pending++;
    load_stamp(conn);
    load_send(load, conn);
}

/* --- connections -------------------------------------------------------*/

/* A socket that is connected, or if it does not block, about to be.  Sources
   are spread over 127.0.0.0/8, so that the ports of one address are not used
   up by connections in TIME_WAIT. */
static int
load_connect(load_state *load, bool blocks)
{
    int kind = SOCK_STREAM | SOCK_CLOEXEC | (blocks ? 0 : SOCK_NONBLOCK);
    int fd = socket(load->address.name.any.sa_family, kind, 0);
    if (fd < 0) {
        bench_die("no socket: %s", strerror(errno));
    }
    struct timeval limit = {.tv_sec = BENCH_PATIENCE_NS / BENCH_SECOND};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    if (load->address.name.any.sa_family == AF_INET) {
        int on = 1;
        uint32_t source = load->sources++ % 60000;
        struct sockaddr_in from = {.sin_family = AF_INET};
        from.sin_addr.s_addr = htonl(
            UINT32_C(0x7f010001) + (source / 250) * 256 + source % 250);
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
        /* If it cannot be, the kernel chooses. */
        (void)!bind(fd, (struct sockaddr *)&from, sizeof(from));
        bench_no_delay(fd, &load->address);
    }
    if (connect(fd, &load->address.name.any, load->address.len) < 0
        && (blocks || errno != EINPROGRESS))
    {
        bench_die("connecting failed: %s", strerror(errno));
    }
    return fd;
}

/* A connection that blocks, with its handshake done. */
static bench_stream
load_open(load_state *load)
{
    bench_stream stream;
    bench_open(&stream, load_connect(load, true), load->security, false);
    if (bench_shake(&stream) < 0) {
        bench_die("the handshake failed: %s", bench_why());
    }
    return stream;
}

/* One request on a stream that blocks; the response is left in `received`. */
static void
load_ask_once(load_state *load, bench_stream *stream)
{
    load_conn conn = {.stage = LOAD_ASKS};
    load_stamp(&conn);
    memcpy(load->request, conn.stamp, LOAD_STAMP_SIZE);
    if (bench_send(stream, load->request, load->request_len)
        != (ssize_t)load->request_len)
    {
        bench_die("sending a request failed: %s", bench_why());
    }
    while (conn.got < load->size) {
        ssize_t got = bench_recv(stream, load->received + conn.got,
                                 load->size - conn.got);
        if (got < 0) {
            bench_die("no response: %s", bench_why());
        }
        if (got == 0) {
            bench_die("the server closed a connection");
        }
        conn.got += (size_t)got;
    }
}

/* The next connection of this place, from the beginning. */
static void
load_reconnect(load_state *load, load_conn *conn)
{
    conn->began = bench_now_ns();
    conn->sent = 0;
    conn->got = 0;
    conn->stage = LOAD_CONNECTS;
    load->pending++;
    load_stamp(conn);
    bench_open(&conn->stream, load_connect(load, false), load->security,
               false);
    load_watch(load, conn, true, EPOLL_CTL_ADD);
}

static void
load_shake_hands(load_state *load, load_conn *conn)
{
    if (bench_shake(&conn->stream) < 0) {
        if (errno != EAGAIN) {
            bench_die("the handshake failed: %s", bench_why());
        }
        load_watch(load, conn, bench_shake_wants_out(&conn->stream),
                   EPOLL_CTL_MOD);
        return;
    }
    if (load->only_shakes) {
        conn->stage = LOAD_ENDS;
        bench_end(&conn->stream);
        shutdown(conn->stream.fd, SHUT_WR);
        load_watch(load, conn, false, EPOLL_CTL_MOD);
        return;
    }
    conn->stage = LOAD_ASKS;
    load_send(load, conn);
}

static void
load_connected(load_state *load, load_conn *conn)
{
    int err = 0;
    socklen_t len = sizeof(err);
    getsockopt(conn->stream.fd, SOL_SOCKET, SO_ERROR, &err, &len);
    if (err != 0) {
        bench_die("connecting failed: %s", strerror(err));
    }
    conn->stage = LOAD_SHAKES_HANDS;
    load_shake_hands(load, conn);
}

/* The request is done; the next one. */
static void
load_next(load_state *load, load_conn *conn)
{
    int64_t now = load_answered(load, conn);
    conn->sequence++;
    if (load->reconnects) {
        bench_close(&conn->stream);
    }
    if (load->phase == LOAD_DONE) {
        return;
    }
    if (load->reconnects) {
        load_reconnect(load, conn);
    }
    else {
        load_begin(load, conn, now);
    }
}

/* Returns whether there may be more at once. */
static bool
load_receive_some(load_state *load, load_conn *conn)
{
    ssize_t got = bench_recv(&conn->stream, load->received, BENCH_READ_SIZE);
    if (got < 0 && errno == EAGAIN) {
        return false;
    }
    if (got < 0) {
        bench_die("receiving failed: %s", bench_why());
    }
    if (got == 0 && conn->stage == LOAD_ENDS) {
        load_next(load, conn);
        return false;
    }
    if (got == 0) {
        bench_die("the server closed a connection");
    }
    if ((size_t)got > load->size - conn->got) {
        bench_die("a response is longer than %zu bytes", load->size);
    }
    if (!load_matches(load, conn, conn->got, load->received, (size_t)got)) {
        bench_die("a response has other bytes than it should have");
    }
    conn->got += (size_t)got;
    if (conn->got < load->size) {
        return bench_buffered(&conn->stream);
    }
    load_next(load, conn);
    /* A new connection is not there yet. */
    return !load->reconnects && bench_buffered(&conn->stream);
}

static void
load_handle(load_state *load, load_conn *conn, uint32_t events)
{
    switch (conn->stage) {
    case LOAD_CONNECTS: load_connected(load, conn); return;
    case LOAD_SHAKES_HANDS: load_shake_hands(load, conn); return;
    case LOAD_ASKS:
    case LOAD_ENDS: break;
    }
    if (conn->wants_out && (events & EPOLLOUT)) {
        load_send(load, conn);
    }
    if (events & ~(uint32_t)EPOLLOUT) {
        while (load_receive_some(load, conn)) {
        }
    }
}

/* --- what the modes do -------------------------------------------------*/

/* Called when nothing has happened for a while, and between batches. */
static void
load_look(load_state *load)
{
    int64_t now = bench_now_ns();
    if (now - load->alive > BENCH_PATIENCE_NS) {
        bench_die("no response in %d s, %zu of %zu connections ever had one",
                  (int)(BENCH_PATIENCE_NS / BENCH_SECOND), load->awake,
                  load->count);
    }
    if (load->phase == LOAD_WARM_UP && load->awake < load->count
        && now > load->window_from + BENCH_PATIENCE_NS)
    {
        bench_die("%zu of %zu connections never had a response",
                  load->count - load->awake, load->count);
    }
    load_tick(load, now);
}

static void
load_run_streams(load_state *load)
{
    struct epoll_event events[LOAD_EVENTS];
    size_t had = bench_server_descriptors(load->pid);
    for (size_t i = 0; i < load->count; i++) {
        load_conn *conn = &load->conns[i];
        if (load->reconnects) {
            load_reconnect(load, conn);
            continue;
        }
        conn->stream = load_open(load);
        conn->stage = LOAD_ASKS;
        int on = 1;
        (void)!ioctl(conn->stream.fd, FIONBIO, &on);
        load_watch(load, conn, false, EPOLL_CTL_ADD);
    }
    bench_await_accepted(load->pid, load->reconnects ? 0 : had + load->count);
    load->alive = bench_now_ns();
    load->window_from = load->alive + (int64_t)(load->warm_up * 1e9);
    for (size_t i = 0; !load->reconnects && i < load->count; i++) {
        load_begin(load, &load->conns[i], bench_now_ns());
    }
    /* After the window, what is in flight is awaited, so that the server sees
       its connections end as they do in peace. */
    while (load->phase != LOAD_DONE
           || (load->pending > 0
               && bench_now_ns() < load->window_until + BENCH_PATIENCE_NS))
    {
        int count = epoll_wait(load->epoll_fd, events, LOAD_EVENTS,
                               LOAD_LOOK_EVERY_MS);
        for (int i = 0; i < count; i++) {
            load_handle(load, events[i].data.ptr, events[i].events);
        }
        load_look(load);
    }
    for (size_t i = 0; !load->reconnects && i < load->count; i++) {
        /* They end with the process. */
        bench_end(&load->conns[i].stream);
    }
}

static void
load_receive_datagrams(load_state *load, int fd)
{
    for (;;) {
        ssize_t got = recv(fd, load->received, BENCH_READ_SIZE, 0);
        if (got < 0) {
            if (errno == EAGAIN) {
                return;
            }
            bench_die("receiving failed: %s", strerror(errno));
        }
        if ((size_t)got != load->size) {
            bench_die("a datagram has %zd bytes instead of %zu", got,
                      load->size);
        }
        uint32_t number = load_parse_stamp(load->received);
        uint32_t sequence = load_parse_stamp(load->received + 8);
        if (number >= load->count) {
            bench_die("a datagram has a wrong stamp");
        }
        load_conn *conn = &load->conns[number];
        if (sequence != conn->sequence) {
            /* Late: it was taken for lost. */
            continue;
        }
        if (!load_matches(load, conn, 0, load->received, (size_t)got)) {
            bench_die("a datagram has other bytes than it should have");
        }
        int64_t now = load_answered(load, conn);
        if (load->phase == LOAD_DONE) {
            return;
        }
        conn->sequence++;
        load_begin(load, conn, now);
    }
}

static void
load_run_datagrams(load_state *load)
{
    int size = 4 << 20, kind = SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
    int fd = socket(load->address.name.any.sa_family, kind, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    if (fd < 0
        || connect(fd, &load->address.name.any, load->address.len) < 0)
    {
        bench_die("no socket: %s", strerror(errno));
    }
    struct epoll_event event = {.events = EPOLLIN};
    epoll_ctl(load->epoll_fd, EPOLL_CTL_ADD, fd, &event);
    load->alive = bench_now_ns();
    load->window_from = load->alive + (int64_t)(load->warm_up * 1e9);
    /* One that was lost before its first answer must not keep us waiting. */
    load->awake = load->count;
    for (size_t i = 0; i < load->count; i++) {
        load->conns[i].stream.fd = fd;
        load_begin(load, &load->conns[i], bench_now_ns());
    }
    int64_t looked = bench_now_ns();
    while (load->phase != LOAD_DONE) {
        epoll_wait(load->epoll_fd, &event, 1, LOAD_LOOK_EVERY_MS);
        load_receive_datagrams(load, fd);
        int64_t now = bench_now_ns();
        if (load->phase != LOAD_DONE
            && now - looked > LOAD_LOOK_EVERY_MS * 1000000)
        {
            looked = now;
            load_look(load);
            for (size_t i = 0; i < load->count; i++) {
                load_conn *conn = &load->conns[i];
                if (now - conn->began > LOAD_LOST_NS) {
                    load->lost++;
                    load->pending--;
                    conn->sequence++;
                    load_begin(load, conn, now);
                }
            }
        }
    }
}

static void
load_hold_until(load_state *load, size_t from, size_t until)
{
    size_t had = bench_server_descriptors(load->pid);
    for (size_t i = from; i < until; i++) {
        bench_stream stream = load_open(load);
        if (load->hold_used) {
            load_ask_once(load, &stream);
        }
        if (i % LOAD_HOLD_BATCH == 0) {
            bench_await_accepted(load->pid, had + i + 1 - from);
        }
    }
    bench_await_accepted(load->pid, had + until - from);
    bench_settle(load->pid, 100);
}

static void
load_run_hold(load_state *load)
{
    load_hold_until(load, 0, load->hold_first);
    int64_t before = bench_server_resident(load->pid);
    load_hold_until(load, load->hold_first, load->hold_last);
    int64_t grown = bench_server_resident(load->pid) - before;
    size_t count = load->hold_last - load->hold_first;
    printf("{\"connections\": %zu, \"bytes\": %lld, \"each\": %.1f}\n", count,
           (long long)grown, (double)grown / (double)count);
}

/* --- the command -------------------------------------------------------*/

static void
load_fill(char *text, size_t len)
{
    uint32_t x = 2463534242;
    for (size_t i = 0; i + 1 < len; i++) {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        text[i] = (char)('a' + x % 26);
    }
    text[len - 1] = '\n';
}

static void
load_options(load_state *load, int argc, char **argv)
{
    static const struct option known[] = {
        {"size", required_argument, NULL, 's'},
        {"request", required_argument, NULL, 'r'},
        {"connections", required_argument, NULL, 'c'},
        {"warm-up", required_argument, NULL, 'w'},
        {"duration", required_argument, NULL, 'd'},
        {"pid", required_argument, NULL, 'p'},
        {"core", required_argument, NULL, 'k'},
        {"certificate", required_argument, NULL, 't'},
        {"hold-first", required_argument, NULL, '1'},
        {"hold-last", required_argument, NULL, '2'},
        {"hold-used", no_argument, NULL, 'u'},
        {NULL, 0, NULL, 0},
    };
    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (c) {
        case 's': load->size = (size_t)atol(optarg); break;
        case 'r': load->request_len = (size_t)atol(optarg); break;
        case 'c': load->count = (size_t)atol(optarg); break;
        case 'w': load->warm_up = atof(optarg); break;
        case 'd': load->duration = atof(optarg); break;
        case 'p': load->pid = atoi(optarg); break;
        case 'k': load->core = atoi(optarg); break;
        case 't': load->certificate = optarg; break;
        case '1': load->hold_first = (size_t)atol(optarg); break;
        case '2': load->hold_last = (size_t)atol(optarg); break;
        case 'u': load->hold_used = true; break;
        default: bench_die("unknown option");
        }
    }
    if (argc - optind != 2) {
        bench_die("load MODE ADDRESS --size N ...");
    }
    load->mode = argv[optind];
    load->address = bench_parse_address(argv[optind + 1]);
    load->only_shakes = strcmp(load->mode, "handshake") == 0;
    load->reconnects = load->only_shakes || strcmp(load->mode, "connect") == 0;
    if (strcmp(load->mode, "upload") == 0) {
        load->size = LOAD_STAMP_SIZE;
    }
    else if (strcmp(load->mode, "half") != 0) {
        load->request_len = load->size;
    }
    if (load->request_len <= LOAD_STAMP_SIZE || load->size == 0
        || load->count == 0)
    {
        bench_die("a request has more than %d bytes, and there is at least"
                  " one connection", LOAD_STAMP_SIZE);
    }
    bench_pin(load->core);
}

int
main(int argc, char **argv)
{
    load_state *load = calloc(1, sizeof(*load));
    if (load == NULL) {
        bench_die("no memory");
    }
    load->size = 1024;
    load->request_len = 100;
    load->count = 1;
    load->duration = 1.0;
    load->core = -1;
    load_options(load, argc, argv);
    /* Whatever happens: the default action of SIGALRM ends us. */
    alarm((unsigned)(load->warm_up + load->duration) + 60);
    size_t descriptors = bench_raise_descriptors();
    if (descriptors < load->count + 16 || descriptors < load->hold_last + 16) {
        bench_die("only %zu descriptors are allowed", descriptors);
    }

    load->security = bench_secure(load->certificate, false);
    load->sources = (uint32_t)getpid() * 7919;
    load->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    load->conns = calloc(load->count, sizeof(load_conn));
    load->request = malloc(load->request_len);
    load->expected = malloc(load->size);
    load->received = malloc(load->size > BENCH_READ_SIZE ? load->size
                                                         : BENCH_READ_SIZE);
    if (load->epoll_fd < 0 || load->conns == NULL || load->request == NULL
        || load->expected == NULL || load->received == NULL)
    {
        bench_die("no memory");
    }
    for (size_t i = 0; i < load->count; i++) {
        load->conns[i].number = (uint32_t)i;
        load->conns[i].stream.fd = -1;
    }
    load_fill(load->request, load->request_len);
    if (strcmp(load->mode, "half") == 0) {
        bench_stream stream = load_open(load);
        load_ask_once(load, &stream);
        memcpy(load->expected, load->received, load->size);
        bench_end(&stream);
        bench_close(&stream);
    }
    else {
        memcpy(load->expected, load->request, load->size);
        load->stamped = true;
    }

    if (strcmp(load->mode, "hold") == 0) {
        load_run_hold(load);
        return 0;
    }
    if (strcmp(load->mode, "udp") == 0) {
        load_run_datagrams(load);
    }
    else {
        load_run_streams(load);
    }
    if (load->requests == 0) {
        bench_die("no response in the measured time");
    }
    printf("{\"requests\": %llu, \"seconds\": %.6f, \"server_ns\": %lld, "
           "\"load_ns\": %lld, \"idle_ns\": %lld, \"p50_us\": %.2f, "
           "\"p99_us\": %.2f, \"lost\": %llu}\n",
           (unsigned long long)load->requests,
           (double)(load->window_until - load->window_from) / 1e9,
           (long long)load->server_ns, (long long)load->own_ns,
           (long long)load->idle_ns,
           load_percentile(load, 0.5), load_percentile(load, 0.99),
           (unsigned long long)load->lost);
    return 0;
}
