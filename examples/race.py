"""The same small programs on asyncio's loop and on fastloop's, timed.

    python -m fastloop examples/race.py
"""

import asyncio
import sys
import time

try:
    import fastloop
except ModuleNotFoundError:
    fastloop = None

ROUNDS = 3


async def tasks():
    """20,000 tasks, started and awaited"""

    async def work():
        return 1

    for _ in range(20):
        await asyncio.gather(*[asyncio.create_task(work()) for _ in range(1000)])


async def turns():
    """100,000 turns of 10 tasks"""

    async def spin():
        for _ in range(10_000):
            await asyncio.sleep(0)

    await asyncio.gather(*(spin() for _ in range(10)))


async def ping_pong():
    """20,000 passes between two queues"""
    there, back = asyncio.Queue(), asyncio.Queue()

    async def partner():
        for _ in range(10_000):
            await back.put(await there.get())

    task = asyncio.create_task(partner())
    for number in range(10_000):
        await there.put(number)
        await back.get()
    await task


async def callbacks():
    """100,000 callbacks"""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def step(left):
        if left:
            loop.call_soon(step, left - 1)
        else:
            done.set_result(None)

    loop.call_soon(step, 99_999)
    await done


async def timers():
    """20,000 timers, half of them cancelled"""
    loop = asyncio.get_running_loop()
    handles = [loop.call_later(0.01 + i * 1e-7, int) for i in range(20_000)]
    for handle in handles[::2]:
        handle.cancel()
    await asyncio.sleep(0.02)


async def echo():
    """3,000 round trips over TCP"""

    async def serve(reader, writer):
        while data := await reader.read(1024):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for _ in range(3_000):
            writer.write(b"x" * 100)
            await reader.readexactly(100)
        writer.write_eof()
        await reader.read()
        writer.close()
        await writer.wait_closed()


def measure(program, factory):
    """The best of a few runs, in milliseconds."""
    best = float("inf")
    for _ in range(ROUNDS):
        with asyncio.Runner(loop_factory=factory) as runner:
            start = time.perf_counter()
            runner.run(program())
            best = min(best, time.perf_counter() - start)
    return best * 1000


def main():
    if fastloop is None:
        print("fastloop is not installed here: pip install . in its folder first")
    print(f"Python {sys.version.split()[0]}, best of {ROUNDS} runs, in milliseconds\n")
    print(f"{'':<38} {'asyncio':>8} {'fastloop':>9}   times as fast")
    for program in (tasks, turns, ping_pong, callbacks, timers, echo):
        stock = measure(program, asyncio.SelectorEventLoop)
        line = f"{program.__doc__:<38} {stock:>8.1f}"
        if fastloop is not None:
            ours = measure(program, fastloop.new_event_loop)
            ratio = stock / ours
            line += f" {ours:>9.1f} {ratio:>6.1f}x {'#' * round(ratio * 2)}"
        print(line, flush=True)


main()
