"""Work in a forked child, for the code that `support.child` and its like run."""

import os
import signal
import sys

# What that code begins with.
FORK = """
    warnings.simplefilter("ignore")
    from support.forks import in_child
"""


def in_child(function):
    """Run it in a forked child; print what happened there, and how the child ended."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        try:
            try:
                print("child:", function())
            except BaseException as exc:
                print("child:", type(exc).__name__, exc)
            sys.stdout.flush()
        finally:
            os._exit(0)
    print("status", os.waitpid(pid, 0)[1], flush=True)
