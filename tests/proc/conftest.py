"""What the tests of child processes share: the ways that fastloop has to a child, and a look for zombies."""

import os
import subprocess

import pytest

from fastloop import _processes
from support.fixtures import frozen  # noqa: F401


@pytest.fixture(autouse=True)
def no_zombies(request):
    """A test leaves no child behind, neither running nor ended."""
    yield
    subprocess._cleanup()
    try:
        left = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return
    pytest.fail(f"a child was left behind: {left}")


@pytest.fixture(params=["quick", "popen", "stdlib"])
def way(request, monkeypatch):
    """Each of the ways to a child: see fastloop/_processes.py."""
    if request.param == "stdlib":
        monkeypatch.setattr(_processes, "_AS_EXPECTED", False)
    elif request.param == "popen":
        monkeypatch.setattr(_processes.SubprocessTransport, "_quickly", lambda *arguments: None)
    return request.param


@pytest.fixture(params=["ENOSYS", "EPERM", "EMFILE"])
def no_pidfd(request, monkeypatch):
    """A kernel, or a sandbox, that has no pidfd to give."""
    import errno
    import types

    real = _processes._core

    def spawn(*arguments):
        started = real._spawn(*arguments)
        if started is not None and started[0] > 0 and started[1] >= 0:
            os.close(started[1])
            started = started[0], -1
        return started

    def pidfd_open(pid, flags=0):
        raise OSError(getattr(errno, request.param), "no pidfd")

    fake = types.SimpleNamespace(**{name: getattr(real, name) for name in dir(real) if not name.startswith("__")})
    fake._spawn = spawn
    monkeypatch.setattr(_processes, "_core", fake)
    monkeypatch.setattr(os, "pidfd_open", pidfd_open)
    return request.param
