/* failalloc.c -- Makes one allocation of fastloop's fail, or all of them from one on.

   Only those count that fastloop's own C code asks for, itself or through a function of
   CPython that it calls; what the interpreter allocates while it runs Python code does not,
   nor what asyncio's own C code does, for these do not survive each failure.  Loaded with
   ctypes.PyDLL.
*/

#define _GNU_SOURCE
#include <Python.h>

#include <dlfcn.h>
#include <link.h>
#include <string.h>
#include <unwind.h>

#define DOMAINS 3
#define MAX_FRAMES 24

static PyMemAllocatorEx original[DOMAINS];
static int installed;
static uintptr_t first_byte, last_byte; /* of the library whose allocations fail */
static void *boundaries[3]; /* functions below which it is not fastloop that allocates */
static unsigned long seen, fail_first, fail_last;
static int looking;

typedef struct {
    int frames;
    int found;
} walk;

static _Unwind_Reason_Code
look_at_frame(struct _Unwind_Context *context, void *arg)
{
    walk *w = arg;
    uintptr_t ip = _Unwind_GetIP(context);
    if (ip >= first_byte && ip < last_byte) {
        w->found = 1;
        return _URC_NORMAL_STOP;
    }
    void *function = _Unwind_FindEnclosingFunction((void *)ip);
    if (++w->frames > MAX_FRAMES || function == boundaries[0] || function == boundaries[1]
        || function == boundaries[2])
    {
        return _URC_NORMAL_STOP;
    }
    Dl_info info;
    if (dladdr((void *)ip, &info) != 0 && info.dli_fname != NULL && strstr(info.dli_fname, "/_asyncio.") != NULL) {
        return _URC_NORMAL_STOP;
    }
    return _URC_NO_REASON;
}

static int
fails(void)
{
    walk w = {0, 0};
    if (looking) {
        return 0;
    }
    looking = 1;
    _Unwind_Backtrace(look_at_frame, &w);
    looking = 0;
    if (!w.found) {
        return 0;
    }
    seen++;
    return seen >= fail_first && seen <= fail_last;
}

static void *
failing_malloc(void *ctx, size_t size)
{
    PyMemAllocatorEx *a = ctx;
    return fails() ? NULL : a->malloc(a->ctx, size);
}

static void *
failing_calloc(void *ctx, size_t count, size_t size)
{
    PyMemAllocatorEx *a = ctx;
    return fails() ? NULL : a->calloc(a->ctx, count, size);
}

static void *
failing_realloc(void *ctx, void *old, size_t size)
{
    PyMemAllocatorEx *a = ctx;
    return fails() ? NULL : a->realloc(a->ctx, old, size);
}

static void
failing_free(void *ctx, void *old)
{
    PyMemAllocatorEx *a = ctx;
    a->free(a->ctx, old);
}

static int
find_library(struct dl_phdr_info *info, size_t size, void *name)
{
    if (strcmp(info->dlpi_name, name) != 0) {
        return 0;
    }
    first_byte = UINTPTR_MAX;
    for (int n = 0; n < info->dlpi_phnum; n++) {
        if (info->dlpi_phdr[n].p_type == PT_LOAD) {
            uintptr_t begin = info->dlpi_addr + info->dlpi_phdr[n].p_vaddr;
            uintptr_t end = begin + info->dlpi_phdr[n].p_memsz;
            first_byte = begin < first_byte ? begin : first_byte;
            last_byte = end > last_byte ? end : last_byte;
        }
    }
    return 1;
}

typedef struct {
    int count;
    void *functions[200];
} census;

static _Unwind_Reason_Code
count_frame(struct _Unwind_Context *context, void *arg)
{
    census *c = arg;
    void *ip = (void *)_Unwind_GetIP(context);
    if (c->count == 200 || ip == NULL) {
        return _URC_NORMAL_STOP;
    }
    c->functions[c->count++] = _Unwind_FindEnclosingFunction(ip);
    return _URC_NO_REASON;
}

/* Called below several levels of Python code: the function that is there most often.  It runs
   the bytecode; or its cold part does, which compilers put elsewhere. */
void *
failalloc_interpreter(void)
{
    census c = {0};
    void *found = NULL;
    int most = 0;
    _Unwind_Backtrace(count_frame, &c);
    for (int i = 0; i < c.count; i++) {
        int same = 0;
        for (int j = 0; j < c.count; j++) {
            same += c.functions[j] == c.functions[i];
        }
        if (same > most) {
            most = same;
            found = c.functions[i];
        }
    }
    return found;
}

/* The allocations from number `first` to number `last` fail, counted from now, but for those below
   the three functions; 0 if the library is not loaded. */
int
failalloc_start(char *library, void *b0, void *b1, void *b2, unsigned long first, unsigned long last)
{
    if (!dl_iterate_phdr(find_library, library)) {
        return 0;
    }
    boundaries[0] = b0;
    boundaries[1] = b1;
    boundaries[2] = b2;
    seen = 0;
    fail_first = first;
    fail_last = last;
    for (int n = 0; n < DOMAINS && !installed; n++) {
        PyMemAllocatorEx failing = {&original[n], failing_malloc, failing_calloc, failing_realloc,
                                    failing_free};
        PyMem_GetAllocator((PyMemAllocatorDomain)n, &original[n]);
        PyMem_SetAllocator((PyMemAllocatorDomain)n, &failing);
    }
    installed = 1;
    return 1;
}

/* How many there were. */
unsigned long
failalloc_stop(void)
{
    for (int n = 0; n < DOMAINS && installed; n++) {
        PyMem_SetAllocator((PyMemAllocatorDomain)n, &original[n]);
    }
    installed = 0;
    return seen;
}
