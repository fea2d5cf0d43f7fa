/* gate.h -- where idle worker threads wait.  No Python, no GIL. */
#ifndef FL_OS_GATE_H
#define FL_OS_GATE_H

#include <errno.h>
#include <semaphore.h>

#include "base/cdefs.h"

typedef struct {
    sem_t tickets;
} fl_gate;

static inline int
fl_gate_open(fl_gate *gate)
{
    return sem_init(&gate->tickets, 0, 0) < 0 ? -errno : 0;
}

static inline void
fl_gate_close(fl_gate *gate)
{
    sem_destroy(&gate->tickets);
}

/* Lets one waiting thread (or the next that comes) through. */
static inline void
fl_gate_admit_one(fl_gate *gate)
{
    sem_post(&gate->tickets);
}

static inline void
fl_gate_wait(fl_gate *gate)
{
    while (sem_wait(&gate->tickets) < 0 && errno == EINTR) {
    }
}

#endif
