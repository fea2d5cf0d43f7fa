/* closewatch.c -- Preloaded into a process, notes every close() of a descriptor that is not open.

   Such a close does no harm by itself; but a moment later the number may be somebody else's.
   Each one is a line at the end of the file that CLOSEWATCH_LOG names:

       close(17) <tab> process <tab> who called <tab> test that was running
*/

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void
note(int fd, void *caller)
{
    const char *path = getenv("CLOSEWATCH_LOG");
    const char *test = getenv("PYTEST_CURRENT_TEST");
    const char *object = "?";
    Dl_info info;
    char line[1024];
    int length, log;

    if (path == NULL) {
        return;
    }
    if (dladdr(caller, &info) != 0 && info.dli_fname != NULL) {
        const char *slash = strrchr(info.dli_fname, '/');
        object = slash != NULL ? slash + 1 : info.dli_fname;
    }
    length = snprintf(line, sizeof line, "close(%d)\t%d\t%s\t%s\n", fd, (int)getpid(), object,
                      test != NULL ? test : "");
    if (length >= (int)sizeof line) {
        length = sizeof line - 1;
        line[length - 1] = '\n';
    }
    log = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log >= 0) {
        if (write(log, line, (size_t)length) < 0) {
            /* there is nobody to tell */
        }
        syscall(SYS_close, log);
    }
}

int
close(int fd)
{
    int result = (int)syscall(SYS_close, fd);
    if (result < 0 && errno == EBADF) {
        note(fd, __builtin_return_address(0));
        errno = EBADF;
    }
    return result;
}
