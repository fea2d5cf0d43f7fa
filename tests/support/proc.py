"""Child processes to test with, a protocol that notes what it is told about them, and ways to
be sure of what a child has done.

Nothing here sleeps.  A child that must still be there waits for its standard input to end; of one
that must be gone `gone` says when the kernel has it as a zombie.
"""

import asyncio
import os
import re

from support import plain
from support.net import LIMIT, Notes, neutral

SHELL = "/bin/sh"


def sh(script, *args):
    """The arguments that run a script of the shell; its own arguments begin with $1."""
    return (SHELL, "-c", script, "sh", *map(str, args))


async def spawn(*args, **kwargs):
    """asyncio.create_subprocess_exec with three pipes, unless told otherwise."""
    for name in ("stdin", "stdout", "stderr"):
        kwargs.setdefault(name, asyncio.subprocess.PIPE)
    return await asyncio.create_subprocess_exec(*args, **kwargs)


async def run(*args, input=None, **kwargs):
    """(returncode, output, errors) of a child that was given `input`."""
    return await finish(await spawn(*args, **kwargs), input)


async def finish(process, input=None):
    """Let a child read `input` to its end; its (returncode, output, errors)."""
    if input is None and process.stdin is not None:
        input = b""  # asyncio of Python 3.11 leaves the pipe open for None
    async with asyncio.timeout(LIMIT):
        out, err = await process.communicate(input)
    return process.returncode, out, err


def gone(pid):
    """Wait, without taking its status, until a child has exited."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:
        pass  # asyncio of Python 3.11 has a thread for it, which was quicker


def has_children():
    """Whether this process has children, running or not yet waited for."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def is_alive(pid):
    """Whether a process runs (a zombie does not)."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class Process(Notes, asyncio.SubprocessProtocol):
    """A noting asyncio.SubprocessProtocol."""

    def __init__(self, on=None, trace=None):
        super().__init__(on, trace)
        self.pipes = {1: bytearray(), 2: bytearray()}

    def pipe_data_received(self, fd, data):
        assert type(data) is bytes
        self.pipes[fd] += data
        # How the kernel cuts a stream into pieces means nothing.
        if self.trace and self.trace[-1][:2] == ("pipe_data_received", fd):
            self.trace[-1] = ("pipe_data_received", fd, self.trace[-1][2] + data)
            self._look()
        else:
            self.note("pipe_data_received", fd, data)
        self._act("pipe_data_received", fd, data)

    def pipe_connection_lost(self, fd, exc):
        self.note("pipe_connection_lost", fd, None if exc is None else type(exc).__name__)
        self._act("pipe_connection_lost", fd, exc)

    def process_exited(self):
        self.note("process_exited")
        self._act("process_exited")


async def attend(protocol, *args, **kwargs):
    """The transport of a new child with a given protocol."""
    loop = asyncio.get_running_loop()
    transport, found = await loop.subprocess_exec(lambda: protocol, *args, **kwargs)
    assert found is protocol
    return transport


_PROCESS = re.compile(r"\b_?(Unix)?SubprocessTransport\b")


def anonymous(text):
    """A text without names of transport classes and without numbers of processes and descriptors."""
    text = _PROCESS.sub("PROCESS", neutral(plain(text)))
    return re.sub(r"(\bpid[= ]|<Process )\d+", r"\1N", text)


# For multiprocessing, which finds functions by the names of their modules

def run_there(name, value):
    """Run a loop of the implementation of that name, in whatever process this is."""
    from support import IMPLS
    return IMPLS[name].run(asyncio.sleep(0.001, (os.getpid(), value)))


def put_from_there(name, value, queue):
    queue.put(run_there(name, value))


def output_there(name, text):
    """What a child of this process says, through a loop of that implementation."""
    from support import IMPLS
    return IMPLS[name].run(run(*sh("cat"), input=text.encode()))[1].decode()


def fail_there(text):
    raise LookupError(text)


def exit_there(status):
    os._exit(status)
