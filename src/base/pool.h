/* pool.h -- a stack of dead objects' memory, kept for the next ones.

   Python's allocator is fast; not calling it at all is faster, and an object
   that comes from here does not push the cyclic collector towards a run.  A
   burst of 60,000 call_soon takes half the time (benchmarks/
   `call_soon_burst`).  A pool grows as far as the program needs, within
   FL_POOL_LIMIT, and shrinks again whenever the loop has nothing to do
   (fl_pool_trim).  In debug builds, of fastloop or of Python, the pools are
   off, so that sanitizers and reference counters see every free. */
#ifndef FL_BASE_POOL_H
#define FL_BASE_POOL_H

#include "base/base.h"

#if defined(FL_DEBUG) || defined(Py_DEBUG)
#define FL_NO_POOLS 1
#endif

#define FL_POOL_LIMIT 131072

/* What a pool keeps through idle times. */
#define FL_POOL_KEEP 1024

typedef struct {
    size_t count;
    size_t capacity;
    PyObject **objects;  /* owned; NULL while capacity is 0 */
} fl_pool;

/* Memory of an object of the pool's one type, or NULL.  The caller revives
   it (fl_revive) and finds its fields as the last owner left them. */
static inline PyObject *
fl_pool_take(fl_pool *pool)
{
    return pool->count > 0 ? pool->objects[--pool->count] : NULL;
}

#ifndef FL_NO_POOLS
/* Room for more.  False: the pool is as large as it gets. */
static FL_NOINLINE bool
fl_pool_grow(fl_pool *pool)
{
    size_t capacity = pool->capacity == 0 ? 256 : pool->capacity * 2;
    if (capacity > FL_POOL_LIMIT) {
        return false;
    }
    PyObject **objects =
        PyMem_RawRealloc(pool->objects, capacity * sizeof(*objects));
    if (objects == NULL) {
        return false;
    }
    pool->objects = objects;
    pool->capacity = capacity;
    return true;
}
#endif

/* Whether the pool took the memory; otherwise the caller frees it. */
static inline bool
fl_pool_put(fl_pool *pool, PyObject *op)
{
#ifdef FL_NO_POOLS
    (void)pool;
    (void)op;
    return false;
#else
    if (FL_UNLIKELY(pool->count == pool->capacity) && !fl_pool_grow(pool)) {
        return false;
    }
    pool->objects[pool->count++] = op;
    return true;
#endif
}

/* Frees memory down to `keep` objects, `most` of them at once.  Every object
   in a pool here belongs to a GC type, whose tp_free is PyObject_GC_Del. */
static inline void
fl_pool_shrink(fl_pool *pool, size_t keep, size_t most)
{
    for (; pool->count > keep && most > 0; most--) {
        PyObject_GC_Del(pool->objects[--pool->count]);
    }
}

/* A part of what is too much, so that no idle moment takes long. */
static inline void
fl_pool_trim(fl_pool *pool)
{
    if (FL_UNLIKELY(pool->count > FL_POOL_KEEP)) {
        fl_pool_shrink(pool, FL_POOL_KEEP, 256 + pool->count / 16);
    }
}

static inline void
fl_pool_fini(fl_pool *pool)
{
    fl_pool_shrink(pool, 0, pool->count);
    PyMem_RawFree(pool->objects);
    pool->objects = NULL;
    pool->capacity = 0;
}

#endif
