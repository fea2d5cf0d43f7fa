/* proc.h -- what the load generator sees of the server from outside: CPU time,
   memory, descriptors, and whether it is at rest. */
#ifndef BENCH_PROC_H
#define BENCH_PROC_H

#include <dirent.h>

#include "common.h"

#define BENCH_SECOND INT64_C(1000000000)
/* Without any response for this long, the server counts as hanging. */
#define BENCH_PATIENCE_NS (5 * BENCH_SECOND)
/* The server is idle when it did nothing for this long. */
#define BENCH_SETTLE_MS 5
/* When its descriptors did not change for this long, it has accepted all. */
#define BENCH_QUIET_MS 150

/* CPU nanoseconds of all the threads of the server, with those that ended:
   some loops have a thread for each TLS connection. */
static inline int64_t
bench_server_cpu(int pid)
{
    clockid_t clock;
    if (pid <= 0) {
        return 0;
    }
    if (clock_getcpuclockid(pid, &clock) != 0) {
        bench_die("the server is gone");
    }
    return bench_clock_ns(clock);
}

static inline int64_t
bench_server_resident(int pid)
{
    char path[64];
    long long total = 0, resident = 0;
    snprintf(path, sizeof(path), "/proc/%d/statm", pid);
    FILE *file = fopen(path, "r");
    if (file == NULL || fscanf(file, "%lld %lld", &total, &resident) != 2) {
        bench_die("the server is gone");
    }
    fclose(file);
    return resident * (int64_t)sysconf(_SC_PAGESIZE);
}

/* How many descriptors the server has open. */
static inline size_t
bench_server_descriptors(int pid)
{
    char path[64];
    size_t count = 0;
    snprintf(path, sizeof(path), "/proc/%d/fd", pid);
    DIR *folder = opendir(path);
    while (folder != NULL && readdir(folder) != NULL) {
        count++;
    }
    if (folder != NULL) {
        closedir(folder);
    }
    return count;
}

/* Waits until the server has accepted what there is, which shows in its
   descriptors: some loops accept one connection per iteration, and that takes
   long once the others are busy.  Of an old connection the descriptor may be
   closed only now, so an end of changes will do as well; a short one will not,
   for a server with threads sleeps when its table of descriptors grows. */
static inline void
bench_await_accepted(int pid, size_t wanted)
{
    size_t before = 0;
    for (int quiet = 0; pid > 0 && quiet < BENCH_QUIET_MS;) {
        size_t now = bench_server_descriptors(pid);
        if (now >= wanted) {
            return;
        }
        quiet = now == before ? quiet + BENCH_SETTLE_MS : 0;
        before = now;
        usleep(BENCH_SETTLE_MS * 1000);
    }
}

/* Waits until the server has done nothing for so long. */
static inline void
bench_settle(int pid, int milliseconds)
{
    int64_t until = bench_now_ns() + BENCH_PATIENCE_NS;
    int64_t spent = bench_server_cpu(pid);
    while (bench_now_ns() < until) {
        usleep((useconds_t)milliseconds * 1000);
        int64_t now = bench_server_cpu(pid);
        /* Some loops wake up now and then with nothing to do. */
        if (now - spent < milliseconds * 10000) {
            return;
        }
        spent = now;
    }
}

/* Nanoseconds that our core was idle, in steps of 10 ms; 0 if unknown. */
static inline int64_t
bench_core_idle(int core)
{
    char line[512], name[32];
    long long idle = 0, waiting = 0;
    FILE *file = core < 0 ? NULL : fopen("/proc/stat", "r");
    size_t len = (size_t)snprintf(name, sizeof(name), "cpu%d ", core);
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, name, len) == 0) {
            (void)!sscanf(line + len, "%*s %*s %*s %lld %lld", &idle,
                          &waiting);
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return (idle + waiting) * (BENCH_SECOND / sysconf(_SC_CLK_TCK));
}

#endif
