/* writeq.h -- bytes that wait to be written, in order.

   A queue of bytes objects, the first of which may be sent in part.  What a
   user hands over as a bytearray or memoryview is copied on the way in, so
   that nobody changes it or is kept from resizing it meanwhile.  Up to
   FL_WRITEQ_INLINE pieces need no memory of their own; an idle connection
   keeps none beyond that. */
#ifndef FL_NET_WRITEQ_H
#define FL_NET_WRITEQ_H

#include "base/base.h"

#include <sys/uio.h>

#define FL_WRITEQ_INLINE 4

/* Pieces of one system call. */
#define FL_WRITEQ_BATCH 64

typedef struct {
    PyObject **pieces;   /* bytes, owned; inline_pieces or from PyMem */
    uint32_t first;      /* where the queue begins in pieces */
    uint32_t count;
    uint32_t capacity;
    size_t sent;         /* of the first piece */
    size_t size;         /* bytes in all that are still to be sent */
    PyObject *inline_pieces[FL_WRITEQ_INLINE];
} fl_writeq;

void fl_writeq_init(fl_writeq *queue);

/* Drops everything.  Bytes are freed; no Python code runs. */
void fl_writeq_clear(fl_writeq *queue);

/* Appends a bytes object without its first `skip` bytes (which is only for an
   empty queue).  Takes its own reference. */
int fl_writeq_put(fl_writeq *queue, PyObject *bytes, size_t skip) FL_RAISES;

/* Appends a copy. */
int fl_writeq_put_copy(fl_writeq *queue, const char *data, size_t len)
    FL_RAISES;

/* Fills in at most FL_WRITEQ_BATCH pieces; returns how many. */
int fl_writeq_peek(const fl_writeq *queue,
                   struct iovec pieces[FL_WRITEQ_BATCH]);

/* The first n bytes are sent. */
void fl_writeq_advance(fl_writeq *queue, size_t n);

static inline bool
fl_writeq_is_empty(const fl_writeq *queue)
{
    return queue->count == 0;
}

#endif
