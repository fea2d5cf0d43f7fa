/* pool.h -- a bounded stack of dead objects' memory, kept for the next one.

   Python's allocator is fast; not calling it at all is faster, and an object
   that comes from here does not push the cyclic collector towards a run.  In
   debug builds the pools are off, so that sanitizers see every free. */
#ifndef FL_BASE_POOL_H
#define FL_BASE_POOL_H

#include "base/base.h"

/* Deep enough for a few hundred tasks in flight: see
   benchmarks/ `gather100`, `sleep0_100tasks`. */
#define FL_POOL_CAPACITY 1024

typedef struct {
    size_t count;
    PyObject *objects[FL_POOL_CAPACITY];
} fl_pool;

/* Memory of an object of the pool's one type, or NULL.  The caller revives
   it (fl_revive) and finds its fields as the last owner left them. */
static inline PyObject *
fl_pool_take(fl_pool *pool)
{
    return pool->count > 0 ? pool->objects[--pool->count] : NULL;
}

/* Whether the pool took the memory; otherwise the caller frees it. */
static inline bool
fl_pool_put(fl_pool *pool, PyObject *op)
{
#ifdef FL_DEBUG
    (void)pool;
    (void)op;
    return false;
#else
    if (pool->count == FL_POOL_CAPACITY) {
        return false;
    }
    pool->objects[pool->count++] = op;
    return true;
#endif
}

/* Frees all memory; every object in a pool here belongs to a GC type, whose
   tp_free is PyObject_GC_Del. */
static inline void
fl_pool_fini(fl_pool *pool)
{
    while (pool->count > 0) {
        PyObject_GC_Del(pool->objects[--pool->count]);
    }
}

#endif
