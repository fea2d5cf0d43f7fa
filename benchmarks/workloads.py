"""The workloads: ordinary asyncio code, public API only, nothing patched.

A workload is called as `workload(loop, n)`, does n operations and is timed from call to return. One that has
something to prepare times itself and returns the nanoseconds. An `async def` is run with `run_until_complete`.
The docstring's first line says what one operation is.
"""

import asyncio
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from time import perf_counter_ns
from typing import Any

from benchmarks.clock import own_time_ns
from benchmarks.loops import LoopFactory

BURST = 60_000
FAR_AWAY = 1000.0  # seconds: a deadline that is never reached


@dataclass(frozen=True)
class Workload:
    name: str
    run: Callable[..., Any]
    # n is a multiple of this: the size of the group whose members are counted.
    unit: int = 1
    # The unit of --quick runs, where the full one takes too long.
    quick_unit: int | None = None
    # Several threads take part, so waiting for the core is part of the work.
    threads: bool = False
    # The workload makes its own loops: it is called with the factory.
    takes_factory: bool = False

    @property
    def summary(self) -> str:
        run: Callable[..., Any] = self.run
        values: dict[str, Any] = {}
        if isinstance(self.run, partial):
            run, values = self.run.func, self.run.keywords
        return (run.__doc__ or "").strip().splitlines()[0].format(**values)


def nothing(*args: object) -> None:
    pass


async def trivial() -> None:
    pass


def groups(n: int, size: int) -> Iterator[int]:
    """n in portions of the size, the last one smaller."""
    while n > 0:
        yield min(n, size)
        n -= size


# Callbacks and timers


def call_soon_chain(loop: asyncio.AbstractEventLoop, n: int) -> None:
    """one callback that schedules the next"""
    left = n

    def step() -> None:
        nonlocal left
        left -= 1
        if left:
            loop.call_soon(step)
        else:
            loop.stop()

    loop.call_soon(step)
    loop.run_forever()
    assert left == 0


def call_soon_burst(loop: asyncio.AbstractEventLoop, n: int, args: tuple[object, ...] = ()) -> None:
    """one callback of 60,000 that are scheduled at a time and then run"""
    call_soon = loop.call_soon
    for size in groups(n, BURST):
        if args:
            (arg,) = args
            for _ in range(size):
                call_soon(nothing, arg)
        else:
            for _ in range(size):
                call_soon(nothing)
        call_soon(loop.stop)
        loop.run_forever()


def call_soon_burst_running(loop: asyncio.AbstractEventLoop, n: int) -> None:
    """one callback of 60,000 that a running callback schedules"""
    left = n

    def burst() -> None:
        nonlocal left
        size = min(left, BURST)
        left -= size
        call_soon = loop.call_soon
        for _ in range(size):
            call_soon(nothing)
        call_soon(burst if left else loop.stop)

    loop.call_soon(burst)
    loop.run_forever()
    assert left == 0


async def timer_cancel(loop: asyncio.AbstractEventLoop, n: int, per_turn: int) -> None:
    """one call_later that is cancelled at once, {per_turn} of them per turn of the loop"""
    for size in groups(n, per_turn):
        for _ in range(size):
            loop.call_later(FAR_AWAY, nothing).cancel()
        await asyncio.sleep(0)


# Futures and tasks


async def sleep0(loop: asyncio.AbstractEventLoop, n: int) -> None:
    """one asyncio.sleep(0), in a single task"""
    sleep = asyncio.sleep
    for _ in range(n):
        await sleep(0)


async def sleep0_tasks(loop: asyncio.AbstractEventLoop, n: int, tasks: int) -> None:
    """one asyncio.sleep(0), in one of {tasks} tasks"""
    running = [loop.create_task(sleep0(loop, n // tasks)) for _ in range(tasks)]
    for task in running:
        await task


async def pingpong(loop: asyncio.AbstractEventLoop, n: int, value: object = None) -> None:
    """one round trip of two tasks that wake each other through create_future()"""
    await rally(loop.create_future, n, value)


async def pingpong_stock_future(loop: asyncio.AbstractEventLoop, n: int) -> None:
    """one round trip over asyncio.Future(loop=loop), as a library makes them"""
    await rally(partial(asyncio.Future, loop=loop), n, None)


async def rally(create_future: Callable[[], asyncio.Future[object]], n: int, value: object) -> None:
    ping = create_future()
    pong = create_future()

    async def answer() -> None:
        nonlocal ping
        for _ in range(n):
            await ping
            ping = create_future()
            pong.set_result(value)

    async def serve() -> None:
        nonlocal pong
        for _ in range(n):
            ping.set_result(value)
            got = await pong
            pong = create_future()
        assert got is value

    answering = asyncio.ensure_future(answer())
    await serve()
    await answering


async def create_await(loop: asyncio.AbstractEventLoop, n: int) -> None:
    """create_task() of a trivial coroutine, awaited"""
    for _ in range(n):
        await loop.create_task(trivial())


async def stock_task(loop: asyncio.AbstractEventLoop, n: int) -> None:
    """asyncio.Task(coro, loop=loop), as a library makes it, awaiting a create_future() of the loop"""

    async def wait() -> None:
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future

    for _ in range(n):
        await asyncio.Task(wait(), loop=loop)


async def gather(loop: asyncio.AbstractEventLoop, n: int, size: int) -> None:
    """one trivial coroutine of an asyncio.gather of {size}"""
    for group in groups(n, size):
        results = await asyncio.gather(*[trivial() for _ in range(group)])
        assert len(results) == group


async def task_group(loop: asyncio.AbstractEventLoop, n: int) -> None:
    """one trivial task of a TaskGroup of 100"""
    for _ in range(n // 100):
        async with asyncio.TaskGroup() as group:
            for _ in range(100):
                group.create_task(trivial())


async def wait_for(loop: asyncio.AbstractEventLoop, n: int) -> None:
    """asyncio.wait_for of a trivial coroutine"""
    for _ in range(n):
        await asyncio.wait_for(trivial(), FAR_AWAY)


async def timeout(loop: asyncio.AbstractEventLoop, n: int) -> None:
    """one asyncio.timeout block that is left in time"""
    for _ in range(n):
        async with asyncio.timeout(FAR_AWAY):
            pass


async def sleepers(loop: asyncio.AbstractEventLoop, n: int) -> int:
    """one of 100,000 tasks that sleep for a random 0 to 50 ms"""
    choose = random.Random(20261121)
    delays = [choose.uniform(0, 0.05) for _ in range(n)]
    start = own_time_ns()
    for task in [loop.create_task(asyncio.sleep(delay)) for delay in delays]:
        await task
    return own_time_ns() - start


# Synchronization


async def queue(loop: asyncio.AbstractEventLoop, n: int, size: int) -> None:
    """one item handed over through an asyncio.Queue({size})"""
    items: asyncio.Queue[int] = asyncio.Queue(size)

    async def produce() -> None:
        for item in range(n):
            await items.put(item)

    producing = loop.create_task(produce())
    for _ in range(n):
        last = await items.get()
    await producing
    assert last == n - 1


async def semaphore(loop: asyncio.AbstractEventLoop, n: int) -> None:
    """one of 1000 workers that pass through a Semaphore(10), yielding once inside"""
    passed = 0

    async def work(gate: asyncio.Semaphore) -> None:
        nonlocal passed
        async with gate:
            await asyncio.sleep(0)
            passed += 1

    for _ in range(n // 1000):
        gate = asyncio.Semaphore(10)
        for task in [loop.create_task(work(gate)) for _ in range(1000)]:
            await task
    assert passed == n // 1000 * 1000


# Threads


async def threadsafe_flood(loop: asyncio.AbstractEventLoop, n: int) -> int:
    """one call_soon_threadsafe of 100,000 from another thread"""
    done = loop.create_future()
    ran = 0

    def count() -> None:
        nonlocal ran
        ran += 1
        if ran == n:
            done.set_result(None)

    def flood() -> None:
        call = loop.call_soon_threadsafe
        for _ in range(n):
            call(count)

    thread = threading.Thread(target=flood)
    start = perf_counter_ns()
    thread.start()
    await done
    elapsed = perf_counter_ns() - start
    thread.join()
    assert ran == n
    return elapsed


async def executor(loop: asyncio.AbstractEventLoop, n: int, at_once: int) -> int:
    """one call of an empty function in the default executor, {at_once} at a time"""
    # The executor starts its threads here.
    await asyncio.gather(*[loop.run_in_executor(None, nothing) for _ in range(64)])
    start = perf_counter_ns()
    if at_once == 1:
        for _ in range(n):
            await loop.run_in_executor(None, nothing)
    else:
        for _ in range(n // at_once):
            await asyncio.gather(*[loop.run_in_executor(None, nothing) for _ in range(at_once)])
    return perf_counter_ns() - start


# Streams and whole runs


async def readline_buffered(loop: asyncio.AbstractEventLoop, n: int) -> None:
    """one StreamReader.readline of 64 bytes that have arrived already"""
    lines = (b"x" * 63 + b"\n") * 1000
    for _ in range(n // 1000):
        reader = asyncio.StreamReader(loop=loop)
        reader.feed_data(lines)
        for _ in range(1000):
            line = await reader.readline()
        assert len(line) == 64


def runs(make_loop: LoopFactory, n: int) -> None:
    """make a loop, run a trivial coroutine, close: an asyncio.run()"""
    for _ in range(n):
        with asyncio.Runner(loop_factory=make_loop) as runner:
            runner.run(trivial())


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("call_soon_chain", call_soon_chain),
        Workload("call_soon_burst", call_soon_burst, unit=BURST),
        Workload("call_soon_burst_arg", partial(call_soon_burst, args=(None,)), unit=BURST),
        Workload("call_soon_burst_running", call_soon_burst_running, unit=BURST),
        Workload("sleep0", sleep0),
        Workload("sleep0_100tasks", partial(sleep0_tasks, tasks=100), unit=100),
        Workload("pingpong", pingpong),
        Workload("pingpong_value", partial(pingpong, value="value")),
        Workload("pingpong_stock_future", pingpong_stock_future),
        Workload("create_await", create_await),
        Workload("stock_task", stock_task),
        Workload("gather100", partial(gather, size=100), unit=100),
        Workload("gather100k", partial(gather, size=100_000), unit=100_000),
        Workload("gather1m", partial(gather, size=1_000_000), unit=1_000_000, quick_unit=200_000),
        Workload("taskgroup100", task_group, unit=100),
        Workload("timeout", timeout),
        Workload("wait_for", wait_for),
        Workload("sleepers100k", sleepers, unit=100_000),
        Workload("queue1", partial(queue, size=1)),
        Workload("queue100", partial(queue, size=100), unit=100),
        Workload("semaphore10", semaphore, unit=1000),
        Workload("timer_cancel", partial(timer_cancel, per_turn=20_000), unit=20_000),
        Workload("timer_cancel_100", partial(timer_cancel, per_turn=100), unit=100),
        Workload("threadsafe_flood", threadsafe_flood, unit=100_000, threads=True),
        Workload("executor1", partial(executor, at_once=1), threads=True),
        Workload("executor64", partial(executor, at_once=64), unit=64, threads=True),
        Workload("readline_buffered", readline_buffered, unit=1000),
        Workload("runs", runs, takes_factory=True),
    )
}
