/* readbuf.c -- spare bytes objects, lent out for one read each. */
#include "net/readbuf.h"

/* A connection goes down a size after so many reads that would have fitted. */
#define READBUF_PATIENCE 16

/* With the object's head and the allocator's, a little less than a round
   number, and such that buffers one after the other lie at different places in
   a cache line; the largest is as much as asyncio reads at once. */
static const Py_ssize_t readbuf_sizes[FL_READBUFS] = {
    4096 - 64 + 16, 65536 - 64 + 16, FL_READBUF_LARGEST};

/* From so many bytes on the buffer itself is handed out. */
static const size_t readbuf_lend_from[FL_READBUFS] = {2, 4096, 32768};

fl_readbuf_habit
fl_readbuf_habit_for(size_t n)
{
    uint8_t size_class = 0;
    while (size_class + 1 < FL_READBUFS
           && n > (size_t)readbuf_sizes[size_class])
    {
        size_class++;
    }
    return (fl_readbuf_habit){size_class, 0, true};
}

/* Whether the kernel copies to and from there at full speed: a long copy is a
   tenth slower when its memory begins in the last quarter of a cache line,
   which is where the allocator puts every large bytes object's
   (benchmarks/network, 100 KiB echo). */
static bool
readbuf_is_well_placed(PyObject *buf)
{
    return ((uintptr_t)PyBytes_AS_STRING(buf) & 63) < 48;
}

/* A new buffer, well placed if a few attempts can make it so. */
static PyObject *
readbuf_new(Py_ssize_t size)
{
    PyObject *misplaced[4];
    int count = 0;
    PyObject *buf = PyBytes_FromStringAndSize(NULL, size);
    while (buf != NULL && !readbuf_is_well_placed(buf) && count < 4) {
        /* One that has pages of its own is freed at once: glibc takes the next
           from its heap then.  Another one is kept, so that the next lies
           elsewhere. */
        bool own_pages = ((uintptr_t)PyBytes_AS_STRING(buf) & 4095) < 64;
        misplaced[count++] = own_pages ? NULL : buf;
        if (own_pages) {
            Py_DECREF(buf);
        }
        buf = PyBytes_FromStringAndSize(NULL, size);
    }
    while (count > 0) {
        Py_XDECREF(misplaced[--count]);
    }
    return buf;
}

int
fl_readbuf_take(fl_state *state, const fl_readbuf_habit *habit, fl_loan *loan)
{
    loan->size_class = habit->size_class;
    loan->exact = false;
    loan->failure = NULL;
    loan->data = state->readbufs[loan->size_class];
    if (FL_LIKELY(loan->data != NULL)) {
        state->readbufs[loan->size_class] = NULL;
        return 0;
    }
    loan->data = readbuf_new(readbuf_sizes[loan->size_class]);
    return loan->data == NULL ? -1 : 0;
}

/* Back into the pool, in its full size. */
static void
readbuf_give_back(fl_state *state, PyObject *buf, int size_class)
{
    if (state->readbufs[size_class] != NULL) {
        Py_DECREF(buf);
        return;
    }
    fl_bytes_set_size(buf, readbuf_sizes[size_class]);
    state->readbufs[size_class] = buf;
}

void
fl_readbuf_learn(fl_readbuf_habit *habit, const fl_loan *loan, size_t n)
{
    int size_class = loan->size_class;
    if (loan->exact) {
        return;
    }
    if (n == (size_t)readbuf_sizes[size_class]) {
        habit->small_reads = 0;
        if (size_class + 1 < FL_READBUFS) {
            habit->size_class = (uint8_t)(size_class + 1);
        }
    }
    else if (size_class > 0 && n <= (size_t)readbuf_sizes[size_class - 1]) {
        if (++habit->small_reads == READBUF_PATIENCE) {
            habit->small_reads = 0;
            habit->size_class = (uint8_t)(size_class - 1);
        }
    }
    else {
        habit->small_reads = 0;
    }
}

/* There was more than the buffer holds: the rest by way of the largest. */
static FL_NOINLINE ssize_t
readbuf_read_on(fl_state *state, fl_readbuf_habit *habit, fl_loan *loan,
                fl_read_function read, void *source)
{
    size_t n = fl_readbuf_size(loan);
    fl_readbuf_learn(habit, loan, n);
    fl_readbuf_habit large = {FL_READBUFS - 1, 0, true};
    fl_loan more;
    if (fl_readbuf_take(state, &large, &more) < 0) {
        PyErr_Clear();
        return (ssize_t)n;
    }
    ssize_t m =
        read(source, fl_readbuf_space(&more), fl_readbuf_size(&more) - n);
    if (m <= 0) {
        /* An end is found again by the next read, a failure is not. */
        loan->failure = fl_take_raised();
        fl_readbuf_done(state, &large, &more);
        return (ssize_t)n;
    }
    PyObject *all = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)n + m);
    if (all != NULL) {
        memcpy(PyBytes_AS_STRING(all), fl_readbuf_space(loan), n);
        memcpy(PyBytes_AS_STRING(all) + n, fl_readbuf_space(&more), (size_t)m);
    }
    fl_readbuf_done(state, &large, &more);
    readbuf_give_back(state, loan->data, loan->size_class);
    loan->data = all;
    loan->exact = true;
    return all == NULL ? -1 : (ssize_t)n + m;
}

ssize_t
fl_readbuf_read(fl_state *state, fl_readbuf_habit *habit, fl_loan *loan,
                fl_read_function read, void *source)
{
    if (fl_readbuf_take(state, habit, loan) < 0) {
        return -1;
    }
    size_t size = fl_readbuf_size(loan);
    ssize_t n = read(source, fl_readbuf_space(loan), size);
    return FL_LIKELY(n < (ssize_t)size || loan->size_class == FL_READBUFS - 1)
               ? n
               : readbuf_read_on(state, habit, loan, read, source);
}

int
fl_readbuf_fill(fl_state *state, fl_readbuf_habit *habit, fl_loan *loan,
                size_t n)
{
    if (FL_UNLIKELY(loan->exact)) {
        return 0;
    }
    fl_readbuf_learn(habit, loan, n);
    size_t lend_from = habit->keeps
                           ? (size_t)readbuf_sizes[loan->size_class] / 2
                           : readbuf_lend_from[loan->size_class];
    if (n >= lend_from) {
        fl_bytes_set_size(loan->data, (Py_ssize_t)n);
        return 0;
    }
    PyObject *buf = loan->data;
    loan->exact = true;
    loan->data =
        PyBytes_FromStringAndSize(PyBytes_AS_STRING(buf), (Py_ssize_t)n);
    readbuf_give_back(state, buf, loan->size_class);
    return loan->data == NULL ? -1 : 0;
}

bool
fl_readbuf_has_failed(fl_loan *loan)
{
    PyObject *failure = loan->failure;
    loan->failure = NULL;
    if (failure != NULL) {
        fl_put_raised(failure);
    }
    return failure != NULL;
}

void
fl_readbuf_done(fl_state *state, fl_readbuf_habit *habit, fl_loan *loan)
{
    PyObject *data = loan->data;
    loan->data = NULL;
    Py_CLEAR(loan->failure);
    if (data == NULL) {
        return;
    }
    if (!loan->exact) {
        if (Py_REFCNT(data) == 1) {
            readbuf_give_back(state, data, loan->size_class);
            return;
        }
        habit->keeps = true;
    }
    Py_DECREF(data);
}
