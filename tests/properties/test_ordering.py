"""Random programs have equal traces on asyncio and fastloop.

FASTLOOP_PROPERTIES=1000 runs that many examples of each test with fresh randomness; the
default is small and always the same.
"""

import asyncio
import logging
import os
import random

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from support import ASYNCIO, FASTLOOP

from .programs import programs, run

EXAMPLES = int(os.environ.get("FASTLOOP_PROPERTIES", "0"))

pytestmark = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")

profile = settings(
    max_examples=EXAMPLES or 400,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(autouse=True)
def quiet():
    logger = logging.getLogger("asyncio")
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(logging.NOTSET)


@profile
@given(programs)
@pytest.mark.hang(300 if not EXAMPLES else 36_000)
def test_programs_have_equal_traces(program):
    assert run(FASTLOOP, program) == run(ASYNCIO, program)


@profile
@example([(0, False)])
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60))
def test_scheduling_order(entries):
    """call_soon, threadsafe calls and cancels in one iteration."""
    def trace(impl):
        seen = []
        with impl.loop() as loop:
            handles = []
            for n, (kind, nested) in enumerate(entries):
                if kind == 3 and handles:
                    handles[n % len(handles)].cancel()
                    continue
                target = loop.call_soon_threadsafe if kind == 1 else loop.call_soon
                if nested:
                    handles.append(target(target, seen.append, n))
                else:
                    handles.append(target(seen.append, n))
            loop.call_soon(loop.call_soon, loop.stop)
            loop.run_forever()
        return seen
    assert trace(FASTLOOP) == trace(ASYNCIO)


@profile
@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from("aaac")), max_size=120),
       st.integers(0, 2 ** 32))
def test_timers_against_a_sorted_list(entries, seed):
    """All deadlines are past: the order is by deadline, then by creation."""
    with FASTLOOP.loop() as loop:
        rnd = random.Random(seed)
        seen, model, handles = [], [], []
        base = loop.time() - 1000
        for n, (units, kind) in enumerate(entries):
            if kind == "c" and handles:
                at = rnd.randrange(len(handles))
                handles[at][0].cancel()
                model = [m for m in model if m[1] != handles[at][1]]
            else:
                handles.append((loop.call_at(base + units, seen.append, n), n))
                model.append((units, n))
        loop.call_soon(loop.call_soon, loop.call_soon, loop.stop)
        loop.run_forever()
        assert seen == [n for _, n in sorted(model)]


@profile
@given(st.lists(st.floats(allow_nan=False, allow_infinity=True, width=64), max_size=40))
def test_any_finite_or_infinite_deadline(whens):
    """Deadlines of any size keep their order; what is past runs, what is future does not."""
    with FASTLOOP.loop() as loop:
        seen = []
        now = loop.time()
        handles = [(loop.call_at(w, seen.append, (w, n)), w) for n, w in enumerate(whens)]
        assert [h.when() for h, _ in handles] == whens
        loop.call_soon(loop.call_soon, loop.call_soon, loop.stop)
        loop.run_forever()
        due = sorted((w, n) for n, w in enumerate(whens) if w <= now)
        assert seen[:len(due)] == due
        later = loop.time() + 1e-6
        assert all(w <= later for w, _ in seen)
        for handle, _ in handles:
            handle.cancel()


@profile
@given(st.lists(st.sampled_from(["put", "get", "cancel", "yield", "close"]), max_size=40))
def test_queue_programs(ops):
    """A queue between tasks, with cancelled getters and putters."""
    async def program(trace):
        queue = asyncio.Queue(2)
        loop = asyncio.get_running_loop()
        tasks = []

        async def put(n):
            await queue.put(n)
            trace.append(("put", n))

        async def get(n):
            trace.append(("got", n, await queue.get()))
        for n, op in enumerate(ops):
            if op == "put":
                tasks.append(loop.create_task(put(n)))
            elif op == "get":
                tasks.append(loop.create_task(get(n)))
            elif op == "cancel" and tasks:
                trace.append(tasks[n % len(tasks)].cancel())
            elif op == "yield":
                await asyncio.sleep(0)
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        trace.append([type(r).__name__ for r in results])

    def trace(impl):
        seen = []
        impl.run(program(seen))
        return seen
    assert trace(FASTLOOP) == trace(ASYNCIO)
