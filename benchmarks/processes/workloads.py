"""Child processes, one after the other: ordinary asyncio code, public API only, nothing patched.

As in benchmarks/workloads.py the docstring's first line says what one operation is. The child shares the core, so the
clock on the wall counts (`threads`).
"""

import asyncio
from asyncio.subprocess import PIPE
from functools import partial
from time import perf_counter_ns

from benchmarks.workloads import Workload

MIB = 2**20
INPUT = b"x" * 1000


async def true(loop: asyncio.AbstractEventLoop, n: int, resident: int = 0) -> int:
    """spawn /bin/true and wait for it; {resident} MiB of memory in use"""
    # Written to, so that it is really there.
    memory = bytearray(b"m") * (resident * MIB)
    start = perf_counter_ns()
    for _ in range(n):
        process = await asyncio.create_subprocess_exec("/bin/true")
        assert await process.wait() == 0
    elapsed = perf_counter_ns() - start
    del memory
    return elapsed


async def shell(loop: asyncio.AbstractEventLoop, n: int) -> None:
    """`exit 3` in a shell"""
    for _ in range(n):
        process = await asyncio.create_subprocess_shell("exit 3")
        assert await process.wait() == 3


class Ended(asyncio.SubprocessProtocol):
    def __init__(self, done: "asyncio.Future[None]") -> None:
        self.done = done

    def connection_lost(self, exc: Exception | None) -> None:
        self.done.set_result(None)


async def protocol(loop: asyncio.AbstractEventLoop, n: int) -> None:
    """loop.subprocess_exec of /bin/true until connection_lost, without streams"""
    for _ in range(n):
        done = loop.create_future()
        transport, _ = await loop.subprocess_exec(
            partial(Ended, done), "/bin/true", stdin=None, stdout=None, stderr=None
        )
        await done
        transport.close()


async def cat(loop: asyncio.AbstractEventLoop, n: int) -> None:
    """spawn /bin/cat with three pipes, communicate() 1000 bytes"""
    for _ in range(n):
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE, stderr=PIPE)
        out, _ = await process.communicate(INPUT)
        assert out == INPUT


async def missing(loop: asyncio.AbstractEventLoop, n: int) -> None:
    """the FileNotFoundError of a program that is not there"""
    for _ in range(n):
        try:
            await asyncio.create_subprocess_exec("/nonexistent/program")
        except FileNotFoundError:
            continue
        raise AssertionError("it was found")


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("true", partial(true, resident=0), threads=True),
        Workload("true-500m", partial(true, resident=500), threads=True),
        Workload("protocol", protocol, threads=True),
        Workload("shell", shell, threads=True),
        Workload("cat", cat, threads=True),
        Workload("missing", missing, threads=True),
    )
}
