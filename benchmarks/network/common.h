/* common.h -- what the floor and the load generator share: addresses, pinning,
   clocks and counters.  Both are programs of their own, without Python. */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* A read takes at most this much, as asyncio's transports do. */
#define BENCH_READ_SIZE ((size_t)256 * 1024)
#define BENCH_BACKLOG   1024

typedef struct {
    union {
        struct sockaddr any;
        struct sockaddr_in ip;
        struct sockaddr_un path;
    } name;
    socklen_t len;
} bench_address;

/* Says why as the program's one line of JSON, and leaves.  The text must not
   need escapes. */
__attribute__((format(printf, 1, 2), noreturn)) static inline void
bench_die(const char *format, ...)
{
    va_list args;
    printf("{\"error\": \"");
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\"}\n");
    fflush(stdout);
    _exit(1);
}

static inline int64_t
bench_clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline int64_t
bench_now_ns(void)
{
    return bench_clock_ns(CLOCK_MONOTONIC);
}

/* A core below 0 pins nothing. */
static inline void
bench_pin(int core)
{
    cpu_set_t set;
    if (core < 0) {
        return;
    }
    CPU_ZERO(&set);
    CPU_SET((unsigned)core, &set);
    if (sched_setaffinity(0, sizeof(set), &set) < 0) {
        bench_die("cannot pin to core %d: %s", core, strerror(errno));
    }
}

/* As many descriptors as we may have; returns how many. */
static inline size_t
bench_raise_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) {
        return 1024;
    }
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0) {
        getrlimit(RLIMIT_NOFILE, &limit);
    }
    return (size_t)limit.rlim_cur;
}

/* "127.0.0.1:PORT", or the path of a unix socket.  Nothing but loopback. */
static inline bench_address
bench_parse_address(const char *text)
{
    bench_address address;
    memset(&address, 0, sizeof(address));
    if (text[0] == '/') {
        address.name.path.sun_family = AF_UNIX;
        if (strlen(text) >= sizeof(address.name.path.sun_path)) {
            bench_die("the path of the socket is too long");
        }
        strcpy(address.name.path.sun_path, text);
        address.len = sizeof(address.name.path);
        return address;
    }
    const char *prefix = "127.0.0.1:";
    if (strncmp(text, prefix, strlen(prefix)) != 0) {
        bench_die("an address is 127.0.0.1:PORT or a path");
    }
    address.name.ip.sin_family = AF_INET;
    address.name.ip.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.name.ip.sin_port = htons((uint16_t)atoi(text + strlen(prefix)));
    address.len = sizeof(address.name.ip);
    return address;
}

static inline void
bench_no_delay(int fd, const bench_address *address)
{
    int on = 1;
    if (address->name.any.sa_family == AF_INET) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
}

#endif
