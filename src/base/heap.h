/* heap.h -- a 4-ary min-heap of deadlines in one array.

   Each node holds its key (deadline, then a sequence number), so a comparison
   never follows a pointer, and equal deadlines leave in the order in which
   they came.  Four children a node halve the depth of a binary heap and share
   a cache line.

   An item learns where it stands through `index`, which the heap writes on
   every move.  Taking out an item that is last in the array, the common case
   for "set a timeout, cancel it", is done at once; any other leaves a
   tombstone (item NULL) that is skipped when it reaches the top, and the
   array is swept once tombstones are the majority.  So a cancelled timer can
   be freed at once, and cancelling costs O(1) amortised.

   Costs: push and pop O(log n), remove O(1) amortised.  Nothing here runs
   Python. */
#ifndef FL_BASE_HEAP_H
#define FL_BASE_HEAP_H

#include <stdlib.h>

#include "base/cdefs.h"

typedef struct {
    double when;
    uint64_t seq;
    ptrdiff_t *index;  /* the item's own note of its place; NULL: tombstone */
    void *item;
} fl_heap_node;

typedef struct {
    fl_heap_node *nodes;
    size_t count;
    size_t capacity;
    size_t tombstones;
    uint64_t next_seq;
} fl_heap;

#define FL_HEAP_OUTSIDE (-1)

/* Sweeping a handful of tombstones is not worth the walk. */
#define FL_HEAP_SWEEP_MIN 64

static inline bool
fl_heap_before(const fl_heap_node *a, const fl_heap_node *b)
{
    return a->when < b->when || (a->when == b->when && a->seq < b->seq);
}

static inline void
fl_heap_place(fl_heap *heap, size_t i, fl_heap_node node)
{
    heap->nodes[i] = node;
    if (node.index != NULL) {
        *node.index = (ptrdiff_t)i;
    }
}

static inline void
fl_heap_sift_up(fl_heap *heap, size_t i, fl_heap_node node)
{
    while (i > 0) {
        size_t parent = (i - 1) / 4;
        if (!fl_heap_before(&node, &heap->nodes[parent])) {
            break;
        }
        fl_heap_place(heap, i, heap->nodes[parent]);
        i = parent;
    }
    fl_heap_place(heap, i, node);
}

static inline void
fl_heap_sift_down(fl_heap *heap, size_t i, fl_heap_node node)
{
    for (;;) {
        size_t child = 4 * i + 1;
        if (child >= heap->count) {
            break;
        }
        size_t end = child + 4 < heap->count ? child + 4 : heap->count;
        size_t best = child;
        for (size_t c = child + 1; c < end; c++) {
            if (fl_heap_before(&heap->nodes[c], &heap->nodes[best])) {
                best = c;
            }
        }
        if (!fl_heap_before(&heap->nodes[best], &node)) {
            break;
        }
        fl_heap_place(heap, i, heap->nodes[best]);
        i = best;
    }
    fl_heap_place(heap, i, node);
}

/* Takes the top node out, item or tombstone.  The heap must not be empty. */
static inline fl_heap_node
fl_heap_take_top(fl_heap *heap)
{
    fl_heap_node top = heap->nodes[0];
    heap->count--;
    if (heap->count > 0) {
        fl_heap_sift_down(heap, 0, heap->nodes[heap->count]);
    }
    if (top.index == NULL) {
        heap->tombstones--;
    }
    else {
        *top.index = FL_HEAP_OUTSIDE;
    }
    return top;
}

/* -1 when there is no memory; the heap is then as it was. */
static inline int
fl_heap_push(fl_heap *heap, double when, void *item, ptrdiff_t *index)
{
    if (FL_UNLIKELY(heap->count == heap->capacity)) {
        size_t capacity = heap->capacity == 0 ? 64 : heap->capacity * 2;
        fl_heap_node *nodes =
            realloc(heap->nodes, capacity * sizeof(*nodes));
        if (nodes == NULL) {
            return -1;
        }
        heap->nodes = nodes;
        heap->capacity = capacity;
    }
    fl_heap_node node = {when, heap->next_seq++, index, item};
    fl_heap_sift_up(heap, heap->count++, node);
    return 0;
}

/* Throws the tombstones out and restores the order, in O(n). */
static FL_NOINLINE void
fl_heap_sweep(fl_heap *heap)
{
    size_t kept = 0;
    for (size_t i = 0; i < heap->count; i++) {
        if (heap->nodes[i].index != NULL) {
            fl_heap_place(heap, kept++, heap->nodes[i]);
        }
    }
    heap->count = kept;
    heap->tombstones = 0;
    for (size_t i = kept / 4 + 1; i-- > 0;) {
        if (i < kept) {
            fl_heap_sift_down(heap, i, heap->nodes[i]);
        }
    }
}

/* Takes the item at index out; the caller gets its reference back. */
static inline void
fl_heap_remove(fl_heap *heap, ptrdiff_t index)
{
    size_t i = (size_t)index;
    *heap->nodes[i].index = FL_HEAP_OUTSIDE;
    if (i == heap->count - 1) {
        heap->count--;
        return;
    }
    heap->nodes[i].index = NULL;
    heap->nodes[i].item = NULL;
    heap->tombstones++;
    if (heap->tombstones > FL_HEAP_SWEEP_MIN
        && heap->tombstones > heap->count / 2)
    {
        fl_heap_sweep(heap);
    }
}

/* The earliest item's node, or NULL.  Tombstones on top are dropped. */
static inline fl_heap_node *
fl_heap_first(fl_heap *heap)
{
    while (heap->count > 0 && heap->nodes[0].index == NULL) {
        (void)fl_heap_take_top(heap);
    }
    return heap->count > 0 ? &heap->nodes[0] : NULL;
}

/* The items must have been taken out. */
static inline void
fl_heap_fini(fl_heap *heap)
{
    free(heap->nodes);
    heap->nodes = NULL;
    heap->count = heap->capacity = heap->tombstones = 0;
}

#endif
