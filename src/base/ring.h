/* ring.h -- a first-in first-out queue of machine words in a circular array.

   The loop's ready queue.  An entry is a pointer with a tag in its low bits
   (loop/loop.h); the ring neither knows nor cares.  The capacity is a power
   of two, so that an index is a mask away; `head` and `tail` run freely and
   wrap as unsigned numbers.  Growing doubles the array; it never shrinks
   below what a burst once needed, except through fl_ring_fini.  Push and pop
   cost a few instructions; nothing here runs Python. */
#ifndef FL_BASE_RING_H
#define FL_BASE_RING_H

#include <stdlib.h>

#include "base/cdefs.h"

typedef struct {
    uintptr_t *slots;
    size_t mask;  /* capacity - 1, or 0 while slots is NULL */
    size_t head;  /* next to pop */
    size_t tail;  /* next free */
} fl_ring;

#define FL_RING_FIRST_CAPACITY 64

static inline size_t
fl_ring_count(const fl_ring *ring)
{
    return ring->tail - ring->head;
}

/* Makes room for one more entry.  -1 when there is no memory; the ring is
   then as it was. */
static FL_NOINLINE int
fl_ring_grow(fl_ring *ring)
{
    size_t old = ring->slots == NULL ? 0 : ring->mask + 1;
    size_t capacity = old == 0 ? FL_RING_FIRST_CAPACITY : old * 2;
    uintptr_t *slots = malloc(capacity * sizeof(*slots));
    if (slots == NULL) {
        return -1;
    }
    size_t count = fl_ring_count(ring);
    for (size_t i = 0; i < count; i++) {
        slots[i] = ring->slots[(ring->head + i) & ring->mask];
    }
    free(ring->slots);
    ring->slots = slots;
    ring->mask = capacity - 1;
    ring->head = 0;
    ring->tail = count;
    return 0;
}

static inline int
fl_ring_push(fl_ring *ring, uintptr_t entry)
{
    if (FL_UNLIKELY(ring->slots == NULL || fl_ring_count(ring) > ring->mask)) {
        if (fl_ring_grow(ring) < 0) {
            return -1;
        }
    }
    ring->slots[ring->tail++ & ring->mask] = entry;
    return 0;
}

/* The ring must not be empty. */
static inline uintptr_t
fl_ring_pop(fl_ring *ring)
{
    return ring->slots[ring->head++ & ring->mask];
}

/* The i-th entry from the head, i < count. */
static inline uintptr_t
fl_ring_peek(const fl_ring *ring, size_t i)
{
    return ring->slots[(ring->head + i) & ring->mask];
}

/* The entries must have been popped. */
static inline void
fl_ring_fini(fl_ring *ring)
{
    free(ring->slots);
    ring->slots = NULL;
    ring->mask = ring->head = ring->tail = 0;
}

#endif
