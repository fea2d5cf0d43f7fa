"""The processes that a measurement starts, and the CPU time that they take."""

import ctypes
import json
import os
import resource
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.harness import WorkerFailed, worker_environment

PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Have the kernel kill this process when the one that started it is gone."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def raise_descriptors() -> int:
    """Allow this process as many descriptors as it may have; how many."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def cpu_ns(pid: int) -> int:
    """CPU nanoseconds of all threads of a process, with those that ended; OSError when it is gone."""
    # What clock_getcpuclockid() gives; Python has that for threads alone.
    return time.clock_gettime_ns((~pid << 3) | 2)


class Server:
    """A server process, which says on its first line of output where it serves."""

    def __init__(
        self, command: Sequence[str | Path], timeout: float = 20.0, environment: Mapping[str, str] | None = None
    ) -> None:
        self.complaints = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.complaints,
            env={**worker_environment(), **(environment or {})},
            bufsize=0,
        )
        self.deadline = time.monotonic() + timeout
        self.address = ""

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_ready(self) -> dict[str, Any]:
        """What the first line says. Several servers can start side by side before any is waited for."""
        assert self.process.stdout is not None
        received = b""
        while b"\n" not in received:
            left = max(0.0, self.deadline - time.monotonic())
            if not select.select([self.process.stdout], [], [], left)[0]:
                raise WorkerFailed("was not ready in time")
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                raise WorkerFailed(self.reason("died before it was ready"))
            received += data
        reply: dict[str, Any] = json.loads(received.partition(b"\n")[0])
        if "error" in reply:
            raise WorkerFailed(reply["error"])
        self.address = reply["address"]
        return reply

    def reason(self, what: str) -> str:
        """What happened, with how the process ended and the last that it wrote to stderr."""
        code = self.process.poll()
        if code is not None:
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            what += f"; the server ended with {how}"
        self.complaints.seek(0, os.SEEK_END)
        self.complaints.seek(max(0, self.complaints.tell() - 4096))
        lines = self.complaints.read().decode(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return f"{what}; it wrote: {said[-1]}" if said else what

    def settle(self, seconds: float = 5.0) -> None:
        """Wait until it does nothing, so that it does not take the core from the next one."""
        try:
            before, deadline = cpu_ns(self.pid), time.monotonic() + seconds
            while time.monotonic() < deadline:
                time.sleep(0.005)
                now = cpu_ns(self.pid)
                if now - before < 100_000:
                    return
                before = now
        except OSError:
            pass  # it is gone; whoever asks it next learns that

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.complaints.close()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def run_load(command: Sequence[str | Path], timeout: float) -> dict[str, Any]:
    """Run the load generator; what it says."""
    try:
        result = subprocess.run(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise WorkerFailed(f"the load generator took more than {timeout:g} s") from None
    try:
        reply: dict[str, Any] = json.loads(result.stdout)
    except ValueError:
        raise WorkerFailed(f"the load generator ended with {result.returncode} and no result") from None
    if "error" in reply:
        raise WorkerFailed(reply["error"])
    return reply
