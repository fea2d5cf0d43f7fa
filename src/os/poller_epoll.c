/* poller_epoll.c -- the poller on Linux: epoll, and an eventfd to be woken. */
#define _GNU_SOURCE 1
#include <errno.h>
#include <limits.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "os/poller.h"

int
fl_poller_open(fl_poller *poller)
{
    poller->no_pwait2 = false;
    poller->wake_fd = -1;
    poller->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (poller->epoll_fd < 0) {
        return -errno;
    }
    poller->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (poller->wake_fd < 0) {
        int err = errno;
        fl_poller_close(poller);
        return -err;
    }
    int rc = fl_poller_set(poller, poller->wake_fd, 0, FL_POLL_READ);
    if (rc < 0) {
        fl_poller_close(poller);
    }
    return rc;
}

void
fl_poller_close(fl_poller *poller)
{
    if (poller->wake_fd >= 0) {
        close(poller->wake_fd);
        poller->wake_fd = -1;
    }
    if (poller->epoll_fd >= 0) {
        close(poller->epoll_fd);
        poller->epoll_fd = -1;
    }
}

static uint32_t
poller_mask(uint32_t wanted)
{
    return ((wanted & FL_POLL_READ) ? (uint32_t)EPOLLIN : 0)
           | ((wanted & FL_POLL_WRITE) ? (uint32_t)EPOLLOUT : 0)
           | ((wanted & FL_POLL_EDGE) ? (uint32_t)EPOLLET : 0);
}

int
fl_poller_set(fl_poller *poller, int fd, uint32_t had, uint32_t wanted)
{
    struct epoll_event event = {.events = poller_mask(wanted), .data.fd = fd};
    if (wanted == 0) {
        /* Already gone is fine: the kernel forgets a closed descriptor, and
           its number may be a regular file's by now (EPERM). */
        if (epoll_ctl(poller->epoll_fd, EPOLL_CTL_DEL, fd, &event) < 0
            && errno != ENOENT && errno != EBADF && errno != EPERM)
        {
            return -errno;
        }
        return 0;
    }
    int op = had == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    if (epoll_ctl(poller->epoll_fd, op, fd, &event) == 0) {
        return 0;
    }
    if (op == EPOLL_CTL_MOD && errno == ENOENT) {
        op = EPOLL_CTL_ADD;
    }
    else if (op == EPOLL_CTL_ADD && errno == EEXIST) {
        op = EPOLL_CTL_MOD;
    }
    else {
        return -errno;
    }
    return epoll_ctl(poller->epoll_fd, op, fd, &event) < 0 ? -errno : 0;
}

static int
poller_sleep(fl_poller *poller, struct epoll_event *events, int64_t timeout_ns)
{
    if (timeout_ns <= 0) {
        return epoll_wait(poller->epoll_fd, events, FL_POLLER_BATCH,
                          timeout_ns < 0 ? -1 : 0);
    }
#ifdef SYS_epoll_pwait2
    if (!poller->no_pwait2) {
        struct timespec ts = {
            .tv_sec = (time_t)(timeout_ns / 1000000000),
            .tv_nsec = (long)(timeout_ns % 1000000000),
        };
        long rc = syscall(SYS_epoll_pwait2, poller->epoll_fd, events,
                          FL_POLLER_BATCH, &ts, NULL, (size_t)0);
        if (rc >= 0 || (errno != ENOSYS && errno != EPERM)) {
            return (int)rc;
        }
        poller->no_pwait2 = true;
    }
#endif
    /* Milliseconds, rounded up: a timer must never fire early. */
    int64_t ms = (timeout_ns + 999999) / 1000000;
    return epoll_wait(poller->epoll_fd, events, FL_POLLER_BATCH,
                      ms > INT_MAX ? INT_MAX : (int)ms);
}

int
fl_poller_wait(fl_poller *poller, int64_t timeout_ns,
               fl_event events[FL_POLLER_BATCH], bool *woken)
{
    struct epoll_event raw[FL_POLLER_BATCH];
    *woken = false;
    int n = poller_sleep(poller, raw, timeout_ns);
    if (n < 0) {
        return -errno;
    }
    int count = 0;
    for (int i = 0; i < n; i++) {
        if (raw[i].data.fd == poller->wake_fd) {
            uint64_t value;
            *woken = true;
            /* Whatever it held, it is empty now; an error leaves it ready
               and costs one more turn. */
            ssize_t ignored = read(poller->wake_fd, &value, sizeof(value));
            (void)ignored;
            continue;
        }
        uint32_t mask = raw[i].events;
        uint32_t ready = 0;
        if (mask & ~(uint32_t)EPOLLOUT) {
            ready |= FL_POLL_READ;
        }
        if (mask & ~(uint32_t)EPOLLIN) {
            ready |= FL_POLL_WRITE;
        }
        events[count++] = (fl_event){raw[i].data.fd, ready};
    }
    return count;
}

void
fl_poller_wake_fd(int wake_fd)
{
    uint64_t one = 1;
    ssize_t ignored;
    do {
        ignored = write(wake_fd, &one, sizeof(one));
    } while (ignored < 0 && errno == EINTR);
}
