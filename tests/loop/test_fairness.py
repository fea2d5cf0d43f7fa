"""A busy chain of callbacks starves neither descriptors, timers, threads nor signals.

The documented bound: at most 64 callbacks or about 100 microseconds between two polls.  A
test counts the turns of a chain that keeps the loop busy until the event arrives, and allows
generously more than the bound, because the event itself takes its time to happen.
"""

import asyncio
import contextlib
import functools
import os
import signal
import threading
import time

import pytest

from support import spin

BOUND = 64


class Chain:
    """Callbacks that schedule each other without end, one Python call each."""

    def __init__(self, loop, width=1):
        self.loop = loop
        self.turns = 0
        self.on = True
        for _ in range(width):
            loop.call_soon(self.step)

    def step(self):
        self.turns += 1
        if self.on:
            self.loop.call_soon(self.step)


@contextlib.contextmanager
def partial_chain(loop):
    """A callback that schedules itself, made of C objects only; gives a switch to end it."""
    step = functools.partial(int)
    step.__setstate__((loop.call_soon, (step,), {}, {}))

    def end():
        step.__setstate__((int, (), {}, {}))
    loop.call_soon(step)
    try:
        yield end
    finally:
        end()
        spin(loop, 2)


@pytest.fixture
def chain(loop):
    """Work for the loop without Python code; gives what ends it and stops the loop."""
    with partial_chain(loop) as end:
        def stop():
            end()
            loop.stop()
        yield stop


@pytest.mark.parametrize("width", [1, 3, 200])
def test_reader_is_seen_soon(loop, width):
    """A pipe that is readable before the chain starts is read within the bound."""
    r, w = os.pipe()
    seen = []
    chain = Chain(loop, width)

    def on_read():
        seen.append(chain.turns)
        chain.on = False
        loop.remove_reader(r)
        loop.stop()
    loop.add_reader(r, on_read)
    os.write(w, b"x")
    loop.run_forever()
    os.close(r)
    os.close(w)
    spin(loop, 2)
    assert seen[0] <= max(2 * width, 2 * BOUND)


@pytest.mark.parametrize("width", [1, 3, 200])
def test_due_timer_is_seen_soon(loop, width):
    seen = []
    chain = Chain(loop, width)

    def fire():
        seen.append(chain.turns)
        chain.on = False
        loop.stop()
    loop.call_at(loop.time() - 1, fire)
    loop.run_forever()
    spin(loop, 2)
    assert seen[0] <= max(2 * width, 2 * BOUND)


def test_timer_is_punctual_under_load(loop):
    late = []
    chain = Chain(loop, 5)

    def fire(when):
        late.append(loop.time() - when)
        if len(late) == 20:
            chain.on = False
            loop.stop()
    base = loop.time()
    for n in range(20):
        when = base + 0.002 * (n + 1)
        loop.call_at(when, fire, when)
    loop.run_forever()
    spin(loop, 2)
    assert min(late) < 0.001


def test_thread_gets_through(loop):
    chain = Chain(loop, 3)
    seen = []

    def work():
        try:
            for n in range(20):
                event = threading.Event()
                start = time.monotonic()
                loop.call_soon_threadsafe(event.set)
                if not event.wait(5):
                    break
                seen.append(time.monotonic() - start)
        finally:
            loop.call_soon_threadsafe(loop.stop)
    thread = threading.Thread(target=work)
    thread.start()
    loop.run_forever()
    chain.on = False
    thread.join()
    spin(loop, 2)
    assert len(seen) == 20
    assert sorted(seen)[10] < 0.1


def test_thread_gets_the_gil_back(loop):
    """A thread that was woken by a busy loop goes on soon: no convoy around the loop's polls.

    Python's own switch interval is 5 ms; the loop must not restart it again and again by
    short releases of the GIL that nobody else can use.
    """
    chain = Chain(loop, 3)
    waits = []

    def work():
        try:
            for _ in range(400):
                event = threading.Event()
                ran = []
                loop.call_soon_threadsafe(lambda: (ran.append(time.monotonic()), event.set()))
                if not event.wait(10):
                    break
                waits.append(time.monotonic() - ran[0])
        finally:
            loop.call_soon_threadsafe(loop.stop)
    thread = threading.Thread(target=work)
    thread.start()
    loop.run_forever()
    chain.on = False
    thread.join()
    spin(loop, 2)
    assert len(waits) == 400
    assert max(waits) < 0.15


def test_signal_handler_gets_through(loop):
    old = signal.getsignal(signal.SIGUSR1)
    chain = Chain(loop, 3)

    def handler():
        chain.on = False
        loop.stop()
    loop.add_signal_handler(signal.SIGUSR1, handler)
    threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    start = time.monotonic()
    loop.run_forever()
    assert time.monotonic() - start < 5
    loop.remove_signal_handler(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, old)
    spin(loop, 2)


@pytest.mark.hang(30)
def test_chain_without_python_code_lets_a_reader_through(loop, chain):
    r, w = os.pipe()
    seen = []

    def on_read():
        seen.append("reader")
        loop.remove_reader(r)
        chain()
    loop.add_reader(r, on_read)
    os.write(w, b"x")
    loop.run_forever()
    loop.remove_reader(r)
    os.close(r)
    os.close(w)
    assert seen == ["reader"]


@pytest.mark.hang(30)
def test_chain_without_python_code_lets_a_timer_through(loop, chain):
    seen = []
    handle = loop.call_later(0.002, lambda: (seen.append("timer"), chain()))
    loop.run_forever()
    handle.cancel()
    assert seen == ["timer"]


@pytest.mark.hang(30)
def test_chain_without_python_code_lets_a_signal_through(loop, chain):
    """C code between two Python bytecodes must look for signals itself."""
    old = signal.getsignal(signal.SIGALRM)
    seen = []
    signal.signal(signal.SIGALRM, lambda *a: (seen.append("signal"), chain()))
    was = signal.setitimer(signal.ITIMER_REAL, 0.003)
    loop.run_forever()
    signal.setitimer(signal.ITIMER_REAL, *was)
    signal.signal(signal.SIGALRM, old)
    assert seen == ["signal"]


@pytest.mark.hang(30)
def test_crowd_without_python_code_lets_a_signal_through(loop):
    """200,000 C callbacks in one iteration: a Python signal handler runs between them."""
    old = signal.getsignal(signal.SIGALRM)
    seen = []
    for _ in range(200_000):
        loop.call_soon(int)
    loop.call_soon(seen.append, "end")
    loop.call_soon(loop.stop)
    signal.signal(signal.SIGALRM, lambda *a: seen.append("signal"))
    was = signal.setitimer(signal.ITIMER_REAL, 0.001)
    loop.run_forever()
    signal.setitimer(signal.ITIMER_REAL, *was)
    signal.signal(signal.SIGALRM, old)
    assert seen == ["signal", "end"]


@pytest.mark.hang(30)
def test_chain_without_python_code_lets_a_thread_through(loop, chain):
    """The GIL is given up now and then, and the thread's callback arrives."""
    seen = []

    def work():
        seen.append("thread")
        loop.call_soon_threadsafe(chain)
    thread = threading.Timer(0.002, work)
    thread.start()
    loop.run_forever()
    before = list(seen)
    thread.join()
    spin(loop, 1)
    assert before == ["thread"]


def test_tasks_that_only_yield_starve_nobody(loop):
    r, w = os.pipe()
    seen = []
    stop = []

    async def busy():
        while not stop:
            await asyncio.sleep(0)

    async def main():
        tasks = [loop.create_task(busy()) for _ in range(10)]
        fut = loop.create_future()
        loop.add_reader(r, lambda: (seen.append("reader"), loop.remove_reader(r)))
        loop.call_later(0.01, lambda: (seen.append("timer"), fut.set_result(None)))
        loop.call_soon_threadsafe(seen.append, "thread")
        os.write(w, b"x")
        await fut
        stop.append(1)
        await asyncio.gather(*tasks)
    loop.run_until_complete(main())
    os.close(r)
    os.close(w)
    assert sorted(seen) == ["reader", "thread", "timer"]


def test_two_readers_share_the_loop(loop):
    """A descriptor that is always ready does not shut out another one."""
    r1, w1 = os.pipe()
    r2, w2 = os.pipe()
    os.write(w1, b"x" * 1000)
    counts = [0, 0]

    def always():
        counts[0] += 1
        if counts[0] == 10:
            os.write(w2, b"x")
        if counts[0] > 1000:
            loop.stop()

    def other():
        os.read(r2, 10)
        counts[1] = counts[0]
        loop.stop()
    loop.add_reader(r1, always)
    loop.add_reader(r2, other)
    loop.run_forever()
    loop.remove_reader(r1)
    loop.remove_reader(r2)
    for fd in (r1, w1, r2, w2):
        os.close(fd)
    assert 10 <= counts[1] <= 10 + 2 * BOUND


def test_thread_flood_does_not_starve_the_loop(loop):
    """A thread that calls without pause leaves room for timers."""
    stop = threading.Event()

    def work():
        while not stop.is_set():
            loop.call_soon_threadsafe(int)
    thread = threading.Thread(target=work)
    thread.start()
    fired = []
    loop.call_later(0.02, lambda: (fired.append(1), loop.stop()))
    start = time.monotonic()
    loop.run_forever()
    stop.set()
    thread.join()
    spin(loop, 1)
    assert fired and time.monotonic() - start < 5
