/* test_ring.c -- base/ring.h against a plain array: random pushes and pops. */
#undef NDEBUG
#include "base/ring.h"

#include <assert.h>
#include <stdio.h>

static uint64_t state = 88172645463325252u;

static uint64_t
next_random(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

#define MOST 200000

static uintptr_t model[MOST];

static void
check_phase(fl_ring *ring, size_t steps, unsigned push_of_16)
{
    static size_t first, last;
    static uintptr_t next = 1;
    for (size_t n = 0; n < steps; n++) {
        if (next_random() % 16 < push_of_16 && last < MOST) {
            assert(fl_ring_push(ring, next) == 0);
            model[last++] = next++;
        }
        else if (first < last) {
            assert(fl_ring_pop(ring) == model[first++]);
        }
        assert(fl_ring_count(ring) == last - first);
        if (first < last) {
            size_t i = next_random() % (last - first);
            assert(fl_ring_peek(ring, i) == model[first + i]);
            assert(fl_ring_peek(ring, 0) == model[first]);
        }
        if (first == last) {
            first = last = 0;
        }
    }
    while (first < last) {
        assert(fl_ring_pop(ring) == model[first++]);
    }
    first = last = 0;
    assert(fl_ring_count(ring) == 0);
}

int
main(void)
{
    fl_ring ring = {0};
    assert(fl_ring_count(&ring) == 0);
    for (int round = 0; round < 20; round++) {
        for (unsigned bias = 4; bias <= 14; bias++) {
            check_phase(&ring, 3000, bias);
        }
        if (round % 5 == 0) {
            fl_ring_fini(&ring);
            assert(fl_ring_count(&ring) == 0);
        }
    }
    check_phase(&ring, 150000, 15);
    assert((ring.mask & (ring.mask + 1)) == 0);

    /* The running numbers wrap around without a seam. */
    fl_ring_fini(&ring);
    assert(fl_ring_push(&ring, 7) == 0);
    assert(fl_ring_pop(&ring) == 7);
    ring.head = ring.tail = (size_t)-3;
    for (uintptr_t n = 1; n <= 60; n++) {
        assert(fl_ring_push(&ring, n) == 0);
    }
    for (uintptr_t n = 1; n <= 60; n++) {
        assert(fl_ring_pop(&ring) == n);
    }
    assert(fl_ring_count(&ring) == 0);
    ring.head = ring.tail = (size_t)-3;
    for (uintptr_t n = 1; n <= 200; n++) {  /* grows across the seam */
        assert(fl_ring_push(&ring, n) == 0);
    }
    for (uintptr_t n = 1; n <= 200; n++) {
        assert(fl_ring_pop(&ring) == n);
    }
    fl_ring_fini(&ring);
    fl_ring_fini(&ring);
    puts("ring ok");
    return 0;
}
