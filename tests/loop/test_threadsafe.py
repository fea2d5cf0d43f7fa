"""call_soon_threadsafe."""

import asyncio
import threading
import time

import pytest

from support import outcome, same, spin


def test_wakes_a_sleeping_loop(loop):
    def work():
        time.sleep(0.02)
        loop.call_soon_threadsafe(loop.stop)
    thread = threading.Thread(target=work)
    thread.start()
    start = time.monotonic()
    loop.call_later(10, loop.stop).cancel()
    loop.run_forever()
    assert time.monotonic() - start < 5
    thread.join()


def test_wakes_a_loop_with_a_far_timer(loop):
    far = loop.call_later(1000, print)
    thread = threading.Thread(target=lambda: (time.sleep(0.01), loop.call_soon_threadsafe(loop.stop)))
    thread.start()
    loop.run_forever()
    thread.join()
    far.cancel()


def test_before_the_loop_runs(loop):
    seen = []
    threads = [threading.Thread(target=loop.call_soon_threadsafe, args=(seen.append, n))
               for n in range(5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert sorted(seen) == list(range(5))


def test_from_the_loops_own_thread(loop):
    seen = []

    async def main():
        loop.call_soon_threadsafe(seen.append, 1)
        loop.call_soon(seen.append, 2)
        loop.call_soon_threadsafe(seen.append, 3)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    loop.run_until_complete(main())
    assert seen == [1, 2, 3]


@pytest.mark.hang(40)
def test_eight_threads_in_order(loop):
    """8 threads x 20,000 callbacks: all of them, each thread's in its order."""
    threads, each = 8, 20_000
    seen = [[] for _ in range(threads)]
    finished = []

    def work(k):
        call, add = loop.call_soon_threadsafe, seen[k].append
        for n in range(each):
            call(add, n)
        call(finish)

    def finish():
        finished.append(1)
        if len(finished) == threads:
            loop.stop()
    workers = [threading.Thread(target=work, args=(k,)) for k in range(threads)]
    for w in workers:
        w.start()
    loop.run_forever()
    for w in workers:
        w.join()
    for k in range(threads):
        assert seen[k] == list(range(each))


def test_after_close_raises():
    def body(impl):
        with impl.loop() as loop:
            loop.close()
            seen = []
            thread = threading.Thread(
                target=lambda: seen.append(outcome(loop.call_soon_threadsafe, print)))
            thread.start()
            thread.join()
            return seen
    assert same(body) == [["raised", "RuntimeError", "Event loop is closed"]]


def test_while_closing(impl):
    """Threads call without end while the loop stops and closes: an error or a call, no more."""
    for _ in range(3):
        loop = impl.new_loop()
        calls = []
        ends = []

        def work():
            try:
                while True:
                    loop.call_soon_threadsafe(calls.append, 1)
            except RuntimeError as exc:
                ends.append(str(exc))
        workers = [threading.Thread(target=work) for _ in range(2)]
        for w in workers:
            w.start()
        loop.call_later(0.005, loop.stop)
        loop.run_forever()
        loop.close()
        for w in workers:
            w.join()
        assert ends == ["Event loop is closed"] * 2


def test_run_coroutine_threadsafe(loop):
    async def work(n):
        await asyncio.sleep(0)
        return n * 2

    results = []

    def other():
        for n in range(20):
            results.append(asyncio.run_coroutine_threadsafe(work(n), loop).result(5))
        loop.call_soon_threadsafe(loop.stop)
    thread = threading.Thread(target=other)
    thread.start()
    loop.run_forever()
    thread.join()
    assert results == [n * 2 for n in range(20)]


def test_run_coroutine_threadsafe_cancelled(loop):
    seen = []

    async def work():
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            seen.append("cancelled")
            loop.call_soon(loop.stop)
            raise

    def other():
        future = asyncio.run_coroutine_threadsafe(work(), loop)
        time.sleep(0.01)
        future.cancel()
    thread = threading.Thread(target=other)
    thread.start()
    loop.run_forever()
    thread.join()
    spin(loop, 3)
    assert seen == ["cancelled"]


def test_two_loops_call_each_other(impl):
    """Ping-pong between two threads with a loop each."""
    loops = [impl.new_loop(), impl.new_loop()]
    count = [0]

    def hit(side):
        count[0] += 1
        if count[0] >= 2000:
            loops[0].call_soon_threadsafe(loops[0].stop)
            loops[1].call_soon_threadsafe(loops[1].stop)
        else:
            loops[1 - side].call_soon_threadsafe(hit, 1 - side)
    thread = threading.Thread(target=loops[1].run_forever)
    thread.start()
    loops[0].call_soon(hit, 0)
    loops[0].run_forever()
    thread.join()
    for loop in loops:
        loop.close()
    assert count[0] >= 2000


def test_context_of_the_calling_thread(loop):
    import contextvars
    var = contextvars.ContextVar("var", default="none")
    seen = []

    def work():
        var.set("thread")
        loop.call_soon_threadsafe(lambda: seen.append(var.get()))
        ctx = contextvars.Context()
        ctx.run(var.set, "given")
        loop.call_soon_threadsafe(lambda: seen.append(var.get()), context=ctx)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    spin(loop, 1)
    assert seen == ["thread", "given"]


def test_wakes_are_not_lost(loop):
    """Each single wake-up of an idle loop arrives."""
    arrived = threading.Event()
    late = []

    def work():
        for n in range(300):
            arrived.clear()
            loop.call_soon_threadsafe(arrived.set)
            if not arrived.wait(5):
                late.append(n)
                break
        loop.call_soon_threadsafe(loop.stop)
    thread = threading.Thread(target=work)
    thread.start()
    loop.run_forever()
    thread.join()
    assert late == []


def test_stop_from_another_thread_needs_a_wake_up(loop):
    """loop.stop() itself is not thread-safe, a stop through the queue is."""
    for _ in range(50):
        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(loop.stop,))
        thread.start()
        loop.run_forever()
        thread.join()
