/* test_heap.c -- base/heap.h against a linear search: random pushes, pops, removals. */
#undef NDEBUG
#include "base/heap.h"

#include <assert.h>
#include <math.h>
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

typedef struct {
    double when;
    uint64_t born;  /* the order of pushes */
    ptrdiff_t index;
} item;

#define MOST 1500

static item items[MOST];
static bool inside[MOST];

static item *
model_first(void)
{
    item *best = NULL;
    for (size_t n = 0; n < MOST; n++) {
        item *it = &items[n];
        if (inside[n]
            && (best == NULL || it->when < best->when
                || (it->when == best->when && it->born < best->born)))
        {
            best = it;
        }
    }
    return best;
}

static void
check_shape(const fl_heap *heap)
{
    size_t tombstones = 0;
    for (size_t n = 0; n < heap->count; n++) {
        if (n > 0) {
            assert(!fl_heap_before(&heap->nodes[n], &heap->nodes[(n - 1) / 4]));
        }
        if (heap->nodes[n].index == NULL) {
            assert(heap->nodes[n].item == NULL);
            tombstones++;
        }
        else {
            assert(*heap->nodes[n].index == (ptrdiff_t)n);
            assert(&((item *)heap->nodes[n].item)->index == heap->nodes[n].index);
        }
    }
    assert(tombstones == heap->tombstones);
}

static void
check_phase(fl_heap *heap, size_t steps, unsigned range, unsigned push, unsigned removal)
{
    static uint64_t born;
    for (size_t step = 0; step < steps; step++) {
        size_t n = next_random() % MOST;
        unsigned what = (unsigned)(next_random() % 100);
        if (what < push) {
            if (!inside[n]) {
                items[n].when = (double)(next_random() % range);
                if (next_random() % 50 == 0) {
                    items[n].when = next_random() % 2 ? INFINITY : -INFINITY;
                }
                items[n].born = born++;
                assert(fl_heap_push(heap, items[n].when, &items[n], &items[n].index) == 0);
                inside[n] = true;
            }
        }
        else if (what < push + removal) {
            if (inside[n]) {
                fl_heap_remove(heap, items[n].index);
                assert(items[n].index == FL_HEAP_OUTSIDE);
                inside[n] = false;
            }
        }
        else {
            fl_heap_node *first = fl_heap_first(heap);
            item *expected = model_first();
            assert((first == NULL) == (expected == NULL));
            if (first != NULL) {
                assert(first->item == expected);
                fl_heap_node taken = fl_heap_take_top(heap);
                assert(taken.item == expected);
                assert(expected->index == FL_HEAP_OUTSIDE);
                inside[expected - items] = false;
            }
        }
        if (step % 64 == 0) {
            check_shape(heap);
        }
    }
    check_shape(heap);
}

int
main(void)
{
    fl_heap heap = {0};
    for (size_t n = 0; n < MOST; n++) {
        items[n].index = FL_HEAP_OUTSIDE;
    }
    assert(fl_heap_first(&heap) == NULL);
    check_phase(&heap, 4000, 1000000, 80, 10);
    check_phase(&heap, 4000, 5, 60, 30);      /* many equal deadlines */
    check_phase(&heap, 4000, 1000, 20, 70);   /* mostly removals: sweeps */
    check_phase(&heap, 4000, 1, 70, 20);      /* nothing but ties */
    check_phase(&heap, 4000, 100000, 40, 40);
    check_phase(&heap, 4000, 1000, 5, 60);
    for (;;) {
        fl_heap_node *first = fl_heap_first(&heap);
        item *expected = model_first();
        assert((first == NULL) == (expected == NULL));
        if (first == NULL) {
            break;
        }
        assert(first->item == expected);
        (void)fl_heap_take_top(&heap);
        inside[expected - items] = false;
    }
    assert(heap.count == 0 && heap.tombstones == 0);

    /* Set a timeout, cancel it: the array must not grow. */
    size_t capacity = heap.capacity;
    for (size_t n = 0; n < 100000; n++) {
        assert(fl_heap_push(&heap, (double)n, &items[0], &items[0].index) == 0);
        fl_heap_remove(&heap, items[0].index);
    }
    assert(heap.capacity == capacity && heap.count == 0);

    /* The same behind a timer that stays: swept in time. */
    assert(fl_heap_push(&heap, 1e9, &items[1], &items[1].index) == 0);
    for (size_t n = 0; n < 100000; n++) {
        assert(fl_heap_push(&heap, (double)n, &items[0], &items[0].index) == 0);
        fl_heap_remove(&heap, items[0].index);
    }
    assert(heap.capacity <= (capacity > 256 ? capacity : 256));
    assert(fl_heap_first(&heap)->item == &items[1]);
    (void)fl_heap_take_top(&heap);
    fl_heap_fini(&heap);
    puts("heap ok");
    return 0;
}
