/* readbuf.h -- the bytes objects that sockets are read into.

   asyncio asks for 256 KiB for each read and shrinks what it got; the
   allocator then costs more than the read.  Here one spare bytes object is
   read into, handed to the protocol, and used again when the protocol did
   not keep it, which most do not: no copy and no allocation.  If what was
   read is small for its buffer, an exact copy is handed out instead, so that
   who keeps it does not keep the buffer (benchmarks/network, Protocol echo).

   Three sizes.  A connection begins with the smallest, moves up when a read
   fills it and down when reads got small again. */
#ifndef FL_NET_READBUF_H
#define FL_NET_READBUF_H

#include "base/state.h"

/* The most that is read at once, as asyncio's. */
#define FL_READBUF_LARGEST 262144

/* What a connection remembers. */
typedef struct {
    uint8_t size_class;
    uint8_t small_reads;  /* in a row that a smaller buffer would have held */
    bool keeps;           /* the protocol kept a buffer: copies from now on */
} fl_readbuf_habit;

/* The habit of who asks for at most n bytes and keeps them. */
fl_readbuf_habit fl_readbuf_habit_for(size_t n);

/* A buffer on loan for one read; on the C stack of the reader. */
typedef struct {
    PyObject *data;  /* owned: the buffer, then what the protocol gets */
    PyObject *failure;  /* owned: what reading on raised, or NULL; due once the
                           data is delivered, for the kernel tells it once */
    uint8_t size_class;
    bool exact;      /* data is a copy, and the buffer is back already */
} fl_loan;

/* A buffer to read into.  End with fl_readbuf_done, whatever happens. */
int fl_readbuf_take(fl_state *state, const fl_readbuf_habit *habit,
                    fl_loan *loan) FL_RAISES;

static inline char *
fl_readbuf_space(const fl_loan *loan)
{
    return PyBytes_AS_STRING(loan->data);
}

static inline size_t
fl_readbuf_size(const fl_loan *loan)
{
    return (size_t)PyBytes_GET_SIZE(loan->data);
}

/* Reads into size bytes of space: how many there were, 0 at the end, -1 with
   an exception, FL_READ_LATER when nothing is there now. */
typedef ssize_t (*fl_read_function)(void *source, void *space, size_t size);
#define FL_READ_LATER (-2)

/* Takes a buffer and reads into it, and reads on if that filled it: so a
   protocol gets in one piece what asyncio would have given it in one.  As
   fl_read_function; end with fl_readbuf_done, whatever happens. */
ssize_t fl_readbuf_read(fl_state *state, fl_readbuf_habit *habit,
                        fl_loan *loan, fl_read_function read, void *source)
    FL_RAISES;

/* n bytes were read: loan->data becomes what to hand out. */
int fl_readbuf_fill(fl_state *state, fl_readbuf_habit *habit, fl_loan *loan,
                    size_t n) FL_RAISES;

/* The same for who copies out of the buffer by himself. */
void fl_readbuf_learn(fl_readbuf_habit *habit, const fl_loan *loan, size_t n);

/* Raises the failure, if there is one. */
bool fl_readbuf_has_failed(fl_loan *loan);

/* The protocol has seen it, or nothing was read. */
void fl_readbuf_done(fl_state *state, fl_readbuf_habit *habit, fl_loan *loan);

#endif
