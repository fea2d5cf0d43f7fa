/* sockcall.h -- the system calls that move bytes, never waiting.

   Thin, but for debug builds: there FASTLOOP_DEBUG_NET makes them behave as
   badly as the network may.  "send=N" and "recv=N" let at most N bytes
   through at a time, "again=P" lets P of a hundred calls say EAGAIN.

   Results are the calls' own: -1 with errno. */
#ifndef FL_OS_SOCKCALL_H
#define FL_OS_SOCKCALL_H

#include "base/cdefs.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* Whether a call failed with nothing but: not now. */
static inline bool
fl_sys_must_wait(int error)
{
    return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

#ifdef FL_DEBUG

/* How much of size may go through; 0: say EAGAIN, errno is set. */
size_t fl_sockcall_limit(const char *knob, size_t size);

/* The same for a list of pieces, which it shortens. */
bool fl_sockcall_limit_pieces(struct iovec *pieces, int *count);

#else

static inline size_t
fl_sockcall_limit(const char *knob, size_t size)
{
    (void)knob;
    return size;
}

static inline bool
fl_sockcall_limit_pieces(struct iovec *pieces, int *count)
{
    (void)pieces;
    (void)count;
    return true;
}

#endif

static inline ssize_t
fl_sys_recv(int fd, void *space, size_t size)
{
    size_t limit = fl_sockcall_limit("recv=", size);
    return limit == 0 && size > 0 ? -1 : recv(fd, space, limit, MSG_DONTWAIT);
}

static inline ssize_t
fl_sys_send(int fd, const void *bytes, size_t len)
{
    size_t limit = fl_sockcall_limit("send=", len);
    return limit == 0 && len > 0
               ? -1
               : send(fd, bytes, limit, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Shortens pieces in debug builds. */
static inline ssize_t
fl_sys_send_pieces(int fd, struct iovec *pieces, int count)
{
    if (!fl_sockcall_limit_pieces(pieces, &count)) {
        return -1;
    }
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = (size_t)count};
    return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* The rest is for descriptors of any kind, which must not block. */
static inline ssize_t
fl_sys_read(int fd, void *space, size_t size)
{
    size_t limit = fl_sockcall_limit("recv=", size);
    return limit == 0 && size > 0 ? -1 : read(fd, space, limit);
}

static inline ssize_t
fl_sys_write(int fd, const void *bytes, size_t len)
{
    size_t limit = fl_sockcall_limit("send=", len);
    return limit == 0 && len > 0 ? -1 : write(fd, bytes, limit);
}

static inline ssize_t
fl_sys_write_pieces(int fd, struct iovec *pieces, int count)
{
    return fl_sockcall_limit_pieces(pieces, &count)
               ? writev(fd, pieces, count)
               : -1;
}

#endif
