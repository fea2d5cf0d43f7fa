/* sockcall.c -- the misbehaving network of debug builds. */
#define _GNU_SOURCE 1
#include "os/sockcall.h"

#ifdef FL_DEBUG

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "os/clock.h"

/* The number behind a knob in FASTLOOP_DEBUG_NET, or 0. */
static size_t
sockcall_knob(const char *knob)
{
    const char *knobs = getenv("FASTLOOP_DEBUG_NET");
    const char *at = knobs == NULL ? NULL : strstr(knobs, knob);
    return at == NULL ? 0 : strtoul(at + strlen(knob), NULL, 10);
}

size_t
fl_sockcall_limit(const char *knob, size_t size)
{
    size_t percent = sockcall_knob("again=");
    if (percent > 0 && (size_t)(fl_clock_ns() / 16 % 100) < percent) {
        errno = EAGAIN;
        return 0;
    }
    size_t most = sockcall_knob(knob);
    return most > 0 && most < size ? most : size;
}

bool
fl_sockcall_limit_pieces(struct iovec *pieces, int *count)
{
    size_t total = 0;
    for (int i = 0; i < *count; i++) {
        total += pieces[i].iov_len;
    }
    size_t left = fl_sockcall_limit("send=", total);
    if (left == 0 && total > 0) {
        return false;
    }
    for (int i = 0; i < *count; i++) {
        if (pieces[i].iov_len >= left) {
            pieces[i].iov_len = left;
            *count = i + 1;
        }
        else {
            left -= pieces[i].iov_len;
        }
    }
    return true;
}

#endif
