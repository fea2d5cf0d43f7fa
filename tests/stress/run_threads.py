"""Threads that flood a loop with calls, each of which must come once and in its thread's order.

    python tests/stress/run_threads.py [--threads N] [--calls N] [--jobs N] [--switch SECONDS]
                                        [--loop fastloop|asyncio]

First each of N threads hands in N calls as fast as it can, while the loop runs, sleeps, and is stopped and run again.
Then work goes through the default executor, and from its threads back into the loop.
"""

import asyncio
import os
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

from support import IMPLS  # noqa: E402
from support.long_runs import command_line  # noqa: E402

AHEAD = 20_000  # how many calls may be under way for each thread: the queue is memory


class Sequence:
    """What has come from one thread; anything but the next number is an error."""

    def __init__(self):
        self.next = 0
        self.room = threading.Semaphore(AHEAD // 1000)

    def take(self, number):
        if number != self.next:
            raise SystemExit(f"{number} came where {self.next} was due")
        self.next += 1
        if number % 1000 == 999:
            self.room.release()


def flood(factory, threads, calls):
    loop = factory()
    sequences = [Sequence() for _ in range(threads)]
    ended = []

    def work(sequence):
        call, take = loop.call_soon_threadsafe, sequence.take
        for number in range(calls):
            if number % 1000 == 0:
                sequence.room.acquire()
            call(take, number)
        call(end)

    def end():
        ended.append(1)
        loop.stop()
    began = time.monotonic()
    workers = [threading.Thread(target=work, args=(s,)) for s in sequences]
    for worker in workers:
        worker.start()
    runs = 0
    while len(ended) < threads:
        # Every second run is stopped while the threads are at it.
        if runs % 2 == 0:
            loop.call_later(0.05, loop.stop)
        loop.run_forever()
        runs += 1
    for worker in workers:
        worker.join()
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    took = time.monotonic() - began
    assert [s.next for s in sequences] == [calls] * threads, [s.next for s in sequences]
    print(f"{threads} threads x {calls} calls: {took:.1f} s, {threads * calls / took:.0f} a second, all in order, "
          f"{runs} runs of the loop", flush=True)


async def work_through(jobs):
    loop = asyncio.get_running_loop()
    began = time.monotonic()
    for number in range(jobs // 10):  # one at a time: the loop and a worker sleep and wake in turn
        assert await loop.run_in_executor(None, int, number) == number
    for first in range(0, jobs, 500):
        numbers = range(first, first + 500)
        found = await asyncio.gather(*[loop.run_in_executor(None, int, n) for n in numbers])
        assert found == list(numbers)

    async def answer(number):
        return number

    def ask(number):
        return asyncio.run_coroutine_threadsafe(answer(number), loop).result(60)
    for first in range(0, jobs // 10, 50):
        numbers = range(first, first + 50)
        assert await asyncio.gather(*[asyncio.to_thread(ask, n) for n in numbers]) == list(numbers)
    took = time.monotonic() - began
    print(f"{jobs} jobs of the default executor: {took:.1f} s", flush=True)


def many_loops(factory, threads, rounds):
    """A loop in each of many threads, made and closed again and again, with children of the others' calls."""
    began = time.monotonic()
    errors = []

    def work(number):
        try:
            for _ in range(rounds):
                with asyncio.Runner(loop_factory=factory) as runner:
                    async def main():
                        loop = asyncio.get_running_loop()
                        loop.call_later(0.0001, int)
                        tasks = [loop.create_task(asyncio.sleep(0, n)) for n in range(20)]
                        assert await asyncio.gather(*tasks) == list(range(20))
                        return await loop.run_in_executor(None, int, number)
                    assert runner.run(main()) == number
        except BaseException as exc:
            errors.append(repr(exc))
            raise
    workers = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not errors, errors
    print(f"{threads} threads x {rounds} loops: {time.monotonic() - began:.1f} s", flush=True)


if __name__ == "__main__":
    parser = command_line(__doc__, threads=8, calls=1_000_000, jobs=50_000)
    parser.add_argument("--switch", type=float, default=1e-4, help="seconds until a thread gives the GIL away")
    options = parser.parse_args()
    sys.setswitchinterval(options.switch)
    impl = IMPLS[options.loop]
    flood(impl.Loop, options.threads, options.calls)
    impl.run(work_through(options.jobs))
    many_loops(impl.Loop, options.threads, max(1, options.jobs // 500))
