/* spawn.h -- starting a program: a child that borrows our memory until it has
   become the program, as with vfork.

   No copy of the memory is made, however much there is, and what goes wrong in
   the child is told through that same memory and not through a pipe.  No
   Python: results are >= 0 or -errno. */
#ifndef FL_OS_SPAWN_H
#define FL_OS_SPAWN_H

#include <stddef.h>
#include <sys/types.h>

#include "base/cdefs.h"

/* What the child is to be.  All memory is the caller's. */
typedef struct {
    char *const *programs;  /* tried one after the other, ends with NULL */
    char *const *argv;      /* ends with NULL */
    char *const *envp;      /* the same; NULL: ours */
    const char *cwd;        /* NULL: ours */
    const int *keep;        /* descriptors from 3 on to pass, ascending */
    size_t keep_count;
    int stdio[3];           /* what becomes 0, 1 and 2; -1: as ours */
    int process_group;      /* for setpgid; -1: as ours */
    int umask;              /* -1: as ours */
    bool close_fds;         /* nothing else from 3 on is passed */
    bool restore_signals;   /* those that Python ignores are not ignored */
    bool new_session;
} fl_spawn_plan;

/* How far a child came that did not become the program. */
typedef enum {
    FL_SPAWN_START,  /* it was not even made */
    FL_SPAWN_SETUP,  /* any step but these */
    FL_SPAWN_CHDIR,
    FL_SPAWN_EXEC,
} fl_spawn_stage;

typedef struct {
    pid_t pid;
    int pidfd;             /* the caller's; -1: the kernel has none to give */
    fl_spawn_stage stage;  /* when it failed */
} fl_spawned;

/* Returns when the child is the program: 0.  Or -errno, and then there is no
   child and no descriptor left. */
int fl_spawn(const fl_spawn_plan *plan, fl_spawned *spawned);

/* Takes how the child behind pidfd ended, or pid where that is -1, without
   waiting.  1: taken, *status is its exit status, or -N if signal N ended it.
   0: it still runs.  -ECHILD: somebody else took it. */
int fl_spawn_reap(pid_t pid, int pidfd, int *status);

#endif
