"""Threads: what tests/loop/test_threadsafe.py, test_executor.py and tests/stress leave out.  The default executor against
ThreadPoolExecutor's behaviour, run_coroutine_threadsafe's outcomes, loops in many threads, misuse that debug mode tells."""

import asyncio
import concurrent.futures
import contextvars
import gc
import os
import threading
import warnings
import weakref

import pytest

from support import FASTLOOP, PY, outcome, same, same_child
from support.net import LIMIT


def workers():
    """How many threads a ThreadPoolExecutor() of this Python starts at most."""
    return concurrent.futures.ThreadPoolExecutor()._max_workers


def in_thread(function, *args):
    """Run it in a thread of its own to its end, and return what it returns."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function(*args)))
    thread.start()
    thread.join(LIMIT)
    assert not thread.is_alive()
    return found[0]


class Busy:
    """Work that is under way until it is let go; `started` is when so many threads are in it."""

    def __init__(self, count=1):
        self.barrier = threading.Barrier(count + 1)
        self.gate = threading.Event()

    def __call__(self, result=None):
        self.barrier.wait(LIMIT)
        assert self.gate.wait(LIMIT)
        return result

    def started(self):
        self.barrier.wait(LIMIT)


# The default executor

def test_no_thread_before_the_first_work():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            before = threading.active_count()
            await asyncio.sleep(0.001)
            idle = threading.active_count() - before
            await loop.run_in_executor(None, int)
            return idle, threading.active_count() - before
        return impl.run(main())
    assert same(body) == [0, 1]


def test_a_thread_is_started_only_if_none_is_idle():
    """n calls at the same time take n threads; afterwards those do for n calls again."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            before = set(threading.enumerate())
            seen = []
            for count in (1, 3, 3, 2):
                busy = Busy(count)
                futures = [loop.run_in_executor(None, busy) for _ in range(count)]
                busy.started()
                seen.append(len(set(threading.enumerate()) - before))
                busy.gate.set()
                await asyncio.gather(*futures)
                # The future is done a moment before its thread is idle; one that waits shows that all are.
                await all_idle(seen[-1])
            return seen

        async def all_idle(count):
            for _ in range(200):
                if idle_threads() >= count:
                    break
                await asyncio.sleep(0.001)
        return impl.run(main())
    assert same(body) == [1, 3, 3, 3]


def idle_threads():
    """How many threads of the executors wait in the kernel (in a semaphore or a lock: a futex)."""
    count = 0
    for thread in threading.enumerate():
        if thread.name.startswith("asyncio_"):
            with open(f"/proc/self/task/{thread.native_id}/stat") as f:
                count += f.read().rpartition(")")[2].split()[0] == "S"
    return count


def test_as_many_threads_as_a_thread_pool_has():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            names = set()
            full = Busy(workers())
            lock = threading.Lock()

            def work():
                with lock:
                    names.add(threading.current_thread().name)
                full()
            futures = [loop.run_in_executor(None, work) for _ in range(workers())]
            extra = [loop.run_in_executor(None, int, n) for n in range(20)]
            full.started()
            waiting = not any(f.done() for f in extra)
            full.gate.set()
            await asyncio.gather(*futures)
            return sorted(names), waiting, await asyncio.gather(*extra)
        return impl.run(main())
    names, waiting, extra = same(body)
    assert names == sorted(f"asyncio_{n}" for n in range(workers()))
    assert waiting and extra == list(range(20))


def test_what_its_threads_are():
    def body(impl):
        def look():
            thread = threading.current_thread()
            return (thread.daemon, thread.name, type(thread).__name__, thread is threading.main_thread(),
                    thread in threading.enumerate(), thread.is_alive())

        async def main():
            return await asyncio.get_running_loop().run_in_executor(None, look)
        return impl.run(main())
    assert same(body) == [False, "asyncio_0", "Thread", False, True, True]


def test_two_loops_have_their_own_threads():
    def body(impl):
        names = []
        for _ in range(2):
            with impl.loop() as loop:
                names.append(loop.run_until_complete(loop.run_in_executor(None, lambda: threading.current_thread().name)))
                loop.run_until_complete(loop.shutdown_default_executor())
        return names, [t.name for t in threading.enumerate() if t.name.startswith("asyncio")]
    assert same(body) == [["asyncio_0", "asyncio_0"], []]


@pytest.mark.parametrize("when", ["run ends", "shutdown", "close"])
def test_threads_end_with_the_loop(when):
    def body(impl):
        before = set(threading.enumerate())
        loop = impl.new_loop()
        loop.run_until_complete(asyncio.gather(*[loop.run_in_executor(None, int) for _ in range(3)]))
        mine = set(threading.enumerate()) - before
        if when != "close":
            loop.run_until_complete(loop.shutdown_default_executor())
            ended = not any(t.is_alive() for t in mine)
        loop.close()
        for t in mine:
            t.join(LIMIT)
        return when == "close" or ended, [t.is_alive() for t in mine] == [False] * len(mine), len(mine) > 0
    assert same(body) == [True, True, True]


@pytest.mark.skipif(PY < (3, 12), reason="the timeout came with Python 3.12")
def test_shutdown_with_a_timeout_that_is_too_short():
    """The warning's text, and that the threads end by themselves afterwards."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            busy = Busy()
            future = loop.run_in_executor(None, busy, "late")
            busy.started()
            threading.Timer(0.05, busy.gate.set).start()
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                await loop.shutdown_default_executor(0.001)
            said = [(w.category.__name__, str(w.message)) for w in seen]
            try:
                await loop.run_in_executor(None, int)
            except RuntimeError as exc:
                said.append(str(exc))
            return said, await future
        return impl.run(main())
    said, late = same(body)
    assert late == "late"
    # 3.12.1 waits for the work before it looks at the clock.
    assert said[-1] == "Executor shutdown has been called"
    if PY >= (3, 13):
        assert said[0] == ["RuntimeWarning", "The executor did not finishing joining its threads within 0.001 seconds."]


def test_shutdown_while_work_is_queued_and_cancelled():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            busy = Busy(workers())
            running = [loop.run_in_executor(None, busy, n) for n in range(workers())]
            seen = []
            queued = [loop.run_in_executor(None, seen.append, n) for n in range(6)]
            busy.started()
            for future in queued[::2]:
                future.cancel()
            await asyncio.sleep(0)
            busy.gate.set()
            await loop.shutdown_default_executor()
            return sorted(seen), [f.cancelled() for f in queued], sorted(await asyncio.gather(*running))
        return impl.run(main())
    assert same(body) == [[1, 3, 5], [True, False] * 3, list(range(workers()))]


def test_work_submitted_by_work():
    """From a thread of the executor through the loop, more deeply than there are threads."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()

            async def deeper(n):
                return n if n == 0 else 1 + await loop.run_in_executor(None, lambda: n - 1)

            def work(n):
                return asyncio.run_coroutine_threadsafe(deeper(n), loop).result(LIMIT)
            return await asyncio.gather(*[loop.run_in_executor(None, work, 2) for _ in range(workers() - 1)])
        return impl.run(main())
    assert same(body) == [2] * (workers() - 1)


def test_exception_keeps_its_traceback_and_its_cause():
    def body(impl):
        def broken():
            try:
                raise KeyError("inner")
            except KeyError as exc:
                raise LookupError("outer") from exc

        async def main():
            try:
                await asyncio.get_running_loop().run_in_executor(None, broken)
            except LookupError as exc:
                names, tb = [], exc.__traceback__
                while tb is not None:
                    names.append(tb.tb_frame.f_code.co_name)
                    tb = tb.tb_next
                return names[-1], repr(exc.__cause__), exc.args
        return impl.run(main())
    assert same(body) == ["broken", "KeyError('inner')", ["outer"]]


def test_exception_that_nobody_takes_is_reported(log):
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            future = loop.run_in_executor(None, int, "no number")
            await asyncio.wait([future])
            del future
            gc.collect()
        impl.run(main())
        gc.collect()
        return log.messages()
    assert same(body) == ["Future exception was never retrieved"]


def test_result_is_not_kept_by_an_idle_thread():
    class Thing:
        pass

    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            thing = Thing()
            there = weakref.ref(thing)
            await loop.run_in_executor(None, lambda thing: None, thing)
            del thing
            for _ in range(500):
                if there() is None:
                    break
                await asyncio.sleep(0.001)
            return there() is None
        return impl.run(main())
    assert same(body) is True


def test_to_thread_takes_the_context_along():
    def body(impl):
        var = contextvars.ContextVar("var", default="none")

        def work():
            before = var.get()
            var.set("thread")
            return before, asyncio._get_running_loop()

        async def one(name):
            var.set(name)
            found = await asyncio.to_thread(work)
            return *found, var.get()

        async def main():
            return await asyncio.gather(*map(one, "abc"))
        return impl.run(main())
    assert same(body) == [[name, None, name] for name in "abc"]


def test_to_thread_passes_keywords_and_errors():
    def body(impl):
        async def main():
            found = [await asyncio.to_thread(int, "101", base=2), await asyncio.to_thread(dict, a=1)]
            for function in (lambda: 1 / 0, 3):
                try:
                    await asyncio.to_thread(function)
                except Exception as exc:
                    found.append((type(exc).__name__, str(exc)))
            return found
        return impl.run(main())
    assert same(body)[:2] == [5, {"a": 1}]


def test_default_executor_set_by_the_user():
    """Its size, names and initializer count from then on; run() shuts it down."""
    def body(impl):
        pools = []

        async def main():
            loop = asyncio.get_running_loop()
            first = await loop.run_in_executor(None, lambda: threading.current_thread().name)
            begun = []
            pool = concurrent.futures.ThreadPoolExecutor(2, "mine", lambda: begun.append(1))
            pools.append(pool)
            loop.set_default_executor(pool)
            busy = Busy(2)
            futures = [loop.run_in_executor(None, busy) for _ in range(2)]
            busy.started()
            busy.gate.set()
            await asyncio.gather(*futures)
            names = {await asyncio.to_thread(lambda: threading.current_thread().name[:4]) for _ in range(5)}
            return first, begun, names
        found = impl.run(main())
        return found, outcome(pools[0].submit, int)
    assert same(body) == [["asyncio_0", [1, 1], {"mine"}],
                          ["raised", "RuntimeError", "cannot schedule new futures after shutdown"]]


def test_executor_of_a_user_that_raises_in_submit():
    def body(impl):
        class Full(concurrent.futures.ThreadPoolExecutor):
            def submit(self, *args, **kwargs):
                raise LookupError("full")

        async def main():
            loop = asyncio.get_running_loop()
            seen = [outcome(loop.run_in_executor, Full(1), int)]
            loop.set_default_executor(Full(1))
            seen.append(outcome(loop.run_in_executor, None, int))
            return seen
        return impl.run(main())
    assert same(body) == [["raised", "LookupError", "full"]] * 2


def test_after_the_interpreter_began_to_end():
    """New work is refused, and what is under way is waited for."""
    out = same_child("""
        import atexit
        from concurrent.futures import thread
        loop = impl.new_loop()
        print(loop.run_until_complete(loop.run_in_executor(None, int, "1")))
        def late():
            try:
                loop.run_until_complete(loop.run_in_executor(None, int, "2"))
                print("worked")
            except RuntimeError as exc:
                print("RuntimeError", exc)
            warnings.simplefilter("ignore")
            loop.close()
        atexit.register(late)
        done = threading.Event()
        loop.run_in_executor(None, lambda: (done.wait(0.05), print("finished", flush=True)))
    """)
    lines = out.splitlines()
    assert lines[:2] == ["1", "finished"]
    assert len(lines) == 3 and lines[2].startswith("RuntimeError cannot schedule new futures after")


def test_first_use_after_the_interpreter_began_to_end():
    out = same_child("""
        import atexit
        loop = impl.new_loop()
        import concurrent.futures.thread
        def late():
            try:
                loop.run_until_complete(loop.run_in_executor(None, int, "2"))
                print("worked")
            except RuntimeError as exc:
                print("RuntimeError", exc)
            warnings.simplefilter("ignore")
            loop.close()
        atexit.register(late)
    """)
    assert out.startswith("RuntimeError ")


# From other threads

def test_outcomes_of_run_coroutine_threadsafe():
    """Results, exceptions and cancellations in both directions."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            ended = []

            async def coro(what):
                try:
                    await asyncio.sleep(0)
                    if what == "error":
                        raise LookupError("there")
                    if what == "cancel":
                        raise asyncio.CancelledError
                    if what == "hang":
                        await asyncio.Event().wait()
                    return what
                finally:
                    ended.append(what)

            def work():
                seen = []
                for what in ("value", "error", "cancel"):
                    future = asyncio.run_coroutine_threadsafe(coro(what), loop)
                    try:
                        seen.append(future.result(LIMIT))
                    except BaseException as exc:
                        seen.append((type(exc).__name__, exc.args))
                future = asyncio.run_coroutine_threadsafe(coro("hang"), loop)
                try:
                    future.result(0.01)
                except TimeoutError:
                    seen.append("timeout")
                seen += [future.cancel(), future.cancelled()]
                return seen
            seen = await asyncio.to_thread(work)
            async with asyncio.timeout(LIMIT):
                while len(ended) < 4:
                    await asyncio.sleep(0)
            return seen, ended
        return impl.run(main())
    assert same(body) == [["value", ["LookupError", ["there"]], ["CancelledError", []], "timeout", True, True],
                          ["value", "error", "cancel", "hang"]]


def test_run_coroutine_threadsafe_on_a_closed_loop():
    def body(impl):
        loop = impl.new_loop()
        loop.close()
        coro = asyncio.sleep(0)
        seen = in_thread(outcome, asyncio.run_coroutine_threadsafe, coro, loop)
        coro.close()
        return seen, outcome(asyncio.run_coroutine_threadsafe, int, loop)
    assert same(body)[0] == ["raised", "RuntimeError", "Event loop is closed"]


def test_loop_that_ends_before_the_coroutine_began():
    """What was queued when the loop stopped is run when it runs again."""
    def body(impl):
        with impl.loop() as loop:
            future = in_thread(lambda: asyncio.run_coroutine_threadsafe(asyncio.sleep(0, "run"), loop))
            seen = [future.done()]
            loop.run_until_complete(asyncio.wrap_future(future, loop=loop))
            return seen, future.result(0)
    assert same(body) == [[False], "run"]


@pytest.mark.parametrize("debug", [False, True])
def test_loops_in_many_threads(debug):
    """Timers, tasks, executors and calls across, all at once."""
    def body(impl):
        count = 8
        loops = [None] * count
        ready = threading.Barrier(count)
        done = threading.Barrier(count)
        found = [None] * count

        async def answer(n):
            await asyncio.sleep(0.0005)
            return n

        def work(k):
            async def main():
                loops[k] = asyncio.get_running_loop()
                await asyncio.to_thread(ready.wait, LIMIT)
                others = [asyncio.wrap_future(asyncio.run_coroutine_threadsafe(answer(n), loops[n]))
                          for n in range(count) for _ in range(5)]
                values = await asyncio.gather(*others)
                own = await asyncio.gather(*[asyncio.to_thread(int, n) for n in range(10)])
                await asyncio.to_thread(done.wait, LIMIT)
                return sum(values), own
            found[k] = impl.run(main(), debug=debug)
        threads = [threading.Thread(target=work, args=(k,)) for k in range(count)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(30)
        return found
    assert same(body) == [[140, list(range(10))]] * 8


MISUSE = {
    "call_soon": "loop.call_soon(int) and None",
    "call_later": "loop.call_later(1, int) and None",
    "call_at": "loop.call_at(1, int) and None",
    "set_result": "future.set_result(1)",
    "cancel a future": "future.cancel()",
    "add_done_callback of a done one": "done.add_done_callback(lambda f: None)",
    "run_until_complete": "loop.run_until_complete(future)",
    "close": "loop.close()",
    "create_future": "loop.create_future() and None",
    "call_soon_threadsafe": "loop.call_soon_threadsafe(int) and None",
}


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("use", MISUSE)
def test_use_of_a_running_loop_from_another_thread(use, debug):
    """The same errors as asyncio's; debug mode tells of more."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            future, done = loop.create_future(), loop.create_future()
            future.add_done_callback(lambda f: None)
            done.set_result(None)
            scope = {"loop": loop, "future": future, "done": done}

            def work():
                try:
                    return "returned", eval(MISUSE[use], scope)
                except Exception as exc:
                    return type(exc).__name__, str(exc)
            said = await asyncio.to_thread(work)
            await asyncio.sleep(0)
            return said
        return impl.run(main(), debug=debug)
    said = same(body)
    if debug and use in ("call_soon", "call_later", "call_at", "set_result"):
        assert said[0] == "RuntimeError" and "Non-thread-safe operation" in said[1]
    if use in ("run_until_complete", "close"):
        assert said[0] == "RuntimeError"


def test_run_of_a_loop_that_runs_in_another_thread():
    """It is refused, and the one that runs does not notice; asyncio's loses its thread and its hooks then."""
    async def main():
        loop = asyncio.get_running_loop()
        said = await asyncio.to_thread(outcome, loop.run_forever)
        return said, loop.is_running(), await asyncio.to_thread(int, "1"), asyncio.get_running_loop() is loop
    said, running, one, same_loop = FASTLOOP.run(main(), debug=True)
    assert said == ("raised", "RuntimeError", "This event loop is already running")
    assert running and one == 1 and same_loop


def test_close_while_the_executor_works():
    """The work goes on, its outcome goes nowhere, and nothing is written to descriptors that others have by now."""
    def body(impl):
        loop = impl.new_loop()
        busy = Busy(3)
        futures = [loop.run_in_executor(None, busy, n) for n in range(3)]
        busy.started()
        before = set(threading.enumerate())
        loop.close()
        pipes = [os.pipe2(os.O_NONBLOCK) for _ in range(8)]  # they get the numbers that the loop had
        busy.gate.set()
        for t in before:
            if t.name.startswith("asyncio_"):
                t.join(LIMIT)
        written = 0
        for r, w in pipes:
            try:
                written += len(os.read(r, 100))
            except BlockingIOError:
                pass
            os.close(r)
            os.close(w)
        found = [f.done() for f in futures], written
        del futures
        return found
    assert same(body) == [[False] * 3, 0]


def test_idle_loop_is_woken_once_for_each_batch():
    """A flood from a thread costs the sleeping loop no turn for each call."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            done = loop.create_future()
            seen = []

            def work():
                for n in range(5000):
                    loop.call_soon_threadsafe(seen.append, n)
                loop.call_soon_threadsafe(done.set_result, None)
            thread = threading.Thread(target=work)
            thread.start()
            await done
            thread.join(LIMIT)
            return seen == list(range(5000))
        return impl.run(main())
    assert same(body) is True
