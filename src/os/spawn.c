/* spawn.c -- clone() with the memory shared and ourselves suspended.

   The child runs on a piece of our stack, among our variables, while the other
   threads go on.  So until execve() it makes system calls and nothing else: no
   lock can be taken, no memory asked for, nothing written but its own job.
   The C library's wrappers are left out, for some of them (setuid, say) act on
   all threads, and sanitizers watch others.  errno is an exception: it is
   ours, and nobody looks at it meanwhile.

   Signals are blocked meanwhile, because a handler of ours that ran in the
   child would work on our memory.  Before the child lets them in again it has
   no handlers any more.

   Who wants another user or group, or code of its own to run in the child, is
   none of our business: a child with fewer rights must not share memory. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "os/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x1000
#endif
#define FL_SYS_CLONE3 435
#define FL_CLONE_CLEAR_SIGHAND 0x100000000ull
#ifndef P_PIDFD
#define P_PIDFD 3
#endif
#define FL_CLOSE_RANGE_CLOEXEC 4
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

/* Of the child, in our stack.  It calls nothing that needs more than a few
   hundred bytes. */
#define FL_SPAWN_STACK 8192

/* The child's frames stay behind when it is gone: no red zones around them. */
#define FL_SPAWN_UNWATCHED                                             \
    __attribute__((no_sanitize("address"), no_sanitize("undefined"),   \
                   no_sanitize("thread"), noinline))

extern char **environ;

/* The kernel's form of a set of signals. */
typedef struct {
    unsigned char bytes[8];
} fl_sigset;

/* And of what is done about a signal, which is not the same everywhere.  But
   all zeros are SIG_DFL, and one of these words is the handler. */
typedef struct {
    unsigned long words[8];
} fl_sigaction;

#define FL_SIGACTION_HANDLER 0

typedef struct {
    const fl_spawn_plan *plan;
    fl_sigset mask;     /* to be the child's */
    volatile int error; /* written by the child */
    volatile int stage;
    bool handlers_gone; /* before the child begins */
} fl_spawn_job;

/* --- In the child ---------------------------------------------------------*/

FL_SPAWN_UNWATCHED static void
spawn_set_default(int number)
{
    fl_sigaction action = {{0}};
    (void)syscall(SYS_rt_sigaction, number, &action, NULL,
                  sizeof(fl_sigset));
}

/* A handler is code of ours, and must not run in the child. */
FL_SPAWN_UNWATCHED static void
spawn_forget_handlers(void)
{
    for (int number = 1; number <= 64; number++) {
        fl_sigaction action;
        if (syscall(SYS_rt_sigaction, number, NULL, &action,
                    sizeof(fl_sigset))
                == 0
            && action.words[FL_SIGACTION_HANDLER] != (unsigned long)SIG_DFL
            && action.words[FL_SIGACTION_HANDLER] != (unsigned long)SIG_IGN)
        {
            spawn_set_default(number);
        }
    }
}

FL_SPAWN_UNWATCHED static long
spawn_inherit(int fd)
{
    long flags = syscall(SYS_fcntl, fd, F_GETFD);
    return flags < 0 || !(flags & FD_CLOEXEC)
               ? flags
               : syscall(SYS_fcntl, fd, F_SETFD, flags & ~FD_CLOEXEC);
}

/* fd as descriptor `wanted` of the program. */
FL_SPAWN_UNWATCHED static long
spawn_place(int fd, int wanted)
{
    if (fd < 0) {
        return 0;
    }
    return fd == wanted ? spawn_inherit(fd)
                        : syscall(SYS_dup3, fd, wanted, 0);
}

FL_SPAWN_UNWATCHED static long
spawn_place_stdio(const fl_spawn_plan *plan)
{
    int fds[3] = {plan->stdio[0], plan->stdio[1], plan->stdio[2]};
    /* What is to be 1 or 2 must not be lost when 0 or 1 is set. */
    for (int i = 1; i < 3; i++) {
        if (fds[i] >= 0 && fds[i] < i) {
            fds[i] = (int)syscall(SYS_fcntl, fds[i], F_DUPFD_CLOEXEC, 3);
            if (fds[i] < 0) {
                return -1;
            }
        }
    }
    for (int i = 0; i < 3; i++) {
        if (spawn_place(fds[i], i) < 0) {
            return -1;
        }
    }
    return 0;
}

/* execve() does it, which passes over all of them anyway.  Linux before 5.11
   knows only how to close them now. */
FL_SPAWN_UNWATCHED static long
spawn_close_range(unsigned int from, unsigned int to)
{
    long rc = syscall(SYS_close_range, from, to, FL_CLOSE_RANGE_CLOEXEC);
    return rc < 0 && errno == EINVAL
               ? syscall(SYS_close_range, from, to, 0)
               : rc;
}

/* Everything from 3 on but what is kept. */
FL_SPAWN_UNWATCHED static long
spawn_close_others(const fl_spawn_plan *plan)
{
    unsigned int from = 3;
    for (size_t i = 0; i < plan->keep_count; i++) {
        unsigned int fd = (unsigned int)plan->keep[i];
        if (fd > from && spawn_close_range(from, fd - 1) < 0) {
            return -1;
        }
        if (fd >= from) {
            from = fd + 1;
        }
    }
    return spawn_close_range(from, ~0u);
}

/* All but the last step, in the order of subprocess's own. */
FL_SPAWN_UNWATCHED static long
spawn_prepare(fl_spawn_job *job)
{
    const fl_spawn_plan *plan = job->plan;
    for (size_t i = 0; i < plan->keep_count; i++) {
        if (spawn_inherit(plan->keep[i]) < 0) {
            return -1;
        }
    }
    if (spawn_place_stdio(plan) < 0) {
        return -1;
    }
    if (plan->cwd != NULL) {
        job->stage = FL_SPAWN_CHDIR;
        if (syscall(SYS_chdir, plan->cwd) < 0) {
            return -1;
        }
        job->stage = FL_SPAWN_SETUP;
    }
    if (plan->umask >= 0) {
        (void)syscall(SYS_umask, plan->umask);
    }
    if (plan->restore_signals) {
        spawn_set_default(SIGPIPE);
        spawn_set_default(SIGXFSZ);
    }
    if (!job->handlers_gone) {
        spawn_forget_handlers();
    }
    (void)syscall(SYS_rt_sigprocmask, SIG_SETMASK, &job->mask, NULL,
                  sizeof(fl_sigset));
    if ((plan->new_session && syscall(SYS_setsid) < 0)
        || (plan->process_group >= 0
            && syscall(SYS_setpgid, 0, plan->process_group) < 0))
    {
        return -1;
    }
    return plan->close_fds ? spawn_close_others(plan) : 0;
}

/* Returns if no candidate can be run; errno tells why.  As execvp() has it, a
   program that is there and cannot be run counts more than one that is not
   there. */
FL_SPAWN_UNWATCHED static void
spawn_execute(const fl_spawn_plan *plan)
{
    char *const *envp = plan->envp != NULL ? plan->envp : environ;
    int seen = 0;
    errno = ENOENT;
    for (char *const *program = plan->programs; *program != NULL; program++) {
        (void)syscall(SYS_execve, *program, plan->argv, envp);
        if (errno != ENOENT && errno != ENOTDIR && seen == 0) {
            seen = errno;
        }
    }
    if (seen != 0) {
        errno = seen;
    }
}

FL_SPAWN_UNWATCHED static int
spawn_child(void *arg)
{
    fl_spawn_job *job = arg;  // on the parent's stack, which waits for us
    if (spawn_prepare(job) == 0) {
        job->stage = FL_SPAWN_EXEC;
        spawn_execute(job->plan);
    }
    job->error = errno;
    (void)syscall(SYS_exit_group, 255);
    return 255;  /* to clone(), which ends the child as well */
}

/* --- The clone ------------------------------------------------------------*/

#if defined(__x86_64__) && defined(__LP64__)

/* What clone3() takes, in its first version: kernel headers may be older than
   the kernel. */
typedef struct {
    uint64_t flags;
    uint64_t pidfd;
    uint64_t child_tid;
    uint64_t parent_tid;
    uint64_t exit_signal;
    uint64_t stack;
    uint64_t stack_size;
    uint64_t tls;
} fl_clone_args;

/* clone3() with flags that clone() has no room for: the kernel itself takes
   the handlers away, in place of 64 system calls of the child.  The C library
   has no function for it, and this cannot be written in C, since the child
   comes back on another stack.  Returns pid or -errno. */
FL_SPAWN_UNWATCHED static long
spawn_clone3(fl_clone_args *args, fl_spawn_job *job)
{
    register int (*entry)(void *) __asm__("r8") = spawn_child;
    register void *arg __asm__("r9") = job;
    long rc = FL_SYS_CLONE3;
    __asm__ volatile("syscall\n\t"
                     "testq %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     /* The child: nobody called it, and it never returns. */
                     "xorl %%ebp, %%ebp\n\t"
                     "movq %%r9, %%rdi\n\t"
                     "callq *%%r8\n\t"
                     "hlt\n"
                     "1:"
                     : "+a"(rc)
                     : "D"(args), "S"(sizeof(*args)), "r"(entry), "r"(arg)
                     : "rcx", "r11", "memory");
    return rc;
}

#endif

/* The child on a piece of this function's stack: we are suspended until it is
   done with it.  Returns pid or -errno. */
FL_SPAWN_UNWATCHED static pid_t
spawn_clone(fl_spawn_job *job, int *pidfd)
{
    _Alignas(16) char stack[FL_SPAWN_STACK];
    int flags = CLONE_VM | CLONE_VFORK | CLONE_PIDFD;
#if defined(__x86_64__) && defined(__LP64__)
    fl_clone_args args = {
        .flags = (uint64_t)flags | FL_CLONE_CLEAR_SIGHAND,
        .pidfd = (uint64_t)(uintptr_t)pidfd,
        .exit_signal = SIGCHLD,
        .stack = (uint64_t)(uintptr_t)stack,
        .stack_size = sizeof(stack),
    };
    job->handlers_gone = true;
    long rc = spawn_clone3(&args, job);
    if (rc != -ENOSYS && rc != -EINVAL && rc != -EPERM) {
        return (pid_t)rc;
    }
#endif
    /* An older kernel, or a sandbox that lets clone() pass only. */
    job->handlers_gone = false;
    pid_t pid = clone(spawn_child, stack + sizeof(stack), flags | SIGCHLD,
                      job, pidfd, NULL, NULL);
    return pid < 0 ? -errno : pid;
}

/* --- In the parent --------------------------------------------------------*/

static void
spawn_await_end(pid_t pid)
{
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
    }
}

int
fl_spawn(const fl_spawn_plan *plan, fl_spawned *spawned)
{
    fl_spawn_job job = {.plan = plan, .error = 0, .stage = FL_SPAWN_SETUP};
    fl_sigset all;
    memset(&all, 0xff, sizeof(all));
    spawned->stage = FL_SPAWN_START;
    spawned->pidfd = -1;
    if (syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &job.mask,
                sizeof(fl_sigset))
        < 0)
    {
        return -errno;
    }
    spawned->pid = spawn_clone(&job, &spawned->pidfd);
    int error = spawned->pid < 0 ? -spawned->pid : job.error;
    (void)syscall(SYS_rt_sigprocmask, SIG_SETMASK, &job.mask, NULL,
                  sizeof(fl_sigset));
    if (error == 0) {
        return 0;
    }
    if (spawned->pid > 0) {
        spawned->stage = (fl_spawn_stage)job.stage;
        spawn_await_end(spawned->pid);
        if (spawned->pidfd >= 0) {
            (void)close(spawned->pidfd);
        }
    }
    spawned->pid = -1;
    spawned->pidfd = -1;
    return -error;
}

int
fl_spawn_reap(pid_t pid, int pidfd, int *status)
{
    siginfo_t info;
    for (;;) {
        info.si_pid = 0;
        int rc = pidfd >= 0 ? waitid((idtype_t)P_PIDFD, (id_t)pidfd, &info,
                                     WEXITED | WNOHANG)
                            : waitid(P_PID, (id_t)pid, &info,
                                     WEXITED | WNOHANG);
        if (rc == 0) {
            break;
        }
        if (errno == EINVAL && pidfd >= 0) {
            pidfd = -1;  /* Linux before 5.4 */
        }
        else if (errno != EINTR) {
            return -errno;
        }
    }
    if (info.si_pid == 0) {
        return 0;
    }
    *status = info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
    return 1;
}
