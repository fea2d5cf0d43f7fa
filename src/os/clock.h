/* clock.h -- the monotonic clock, the one behind time.monotonic(). */
#ifndef FL_OS_CLOCK_H
#define FL_OS_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline int64_t
fl_clock_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* Seconds, rounded as time.monotonic() rounds them. */
static inline double
fl_clock_seconds(void)
{
    return (double)fl_clock_ns() / 1e9;
}

#endif
