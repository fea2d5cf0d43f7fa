"""run_in_executor, set_default_executor, shutdown_default_executor."""

import asyncio
import concurrent.futures
import contextvars
import gc
import re
import threading
import time
import warnings
import weakref

import pytest

from support import PY, check_child, outcome, same, state_of


def test_result(impl):
    async def main():
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, pow, 2, 10)
    assert impl.run(main()) == 1024


def test_exception(impl):
    def broken():
        raise LookupError("from the thread")

    async def main():
        loop = asyncio.get_running_loop()
        with pytest.raises(LookupError, match="from the thread") as info:
            await loop.run_in_executor(None, broken)
        assert "broken" in [f.name for f in info.traceback]
    impl.run(main())


@pytest.mark.parametrize("error", [StopIteration, KeyboardInterrupt, SystemExit, GeneratorExit,
                                   asyncio.CancelledError, concurrent.futures.CancelledError])
def test_odd_exceptions(error):
    if error is StopIteration and PY < (3, 13):
        pytest.skip("no future can hold it in this version, and asyncio's waits for ever")

    def body(impl):
        def broken():
            raise error("odd")

        async def main():
            loop = asyncio.get_running_loop()
            future = loop.run_in_executor(None, broken)
            await asyncio.wait([future])
            if future.cancelled():
                return "cancelled"
            exc = future.exception()
            return type(exc).__name__, str(exc)
        return impl.run(main())
    same(body)


def test_no_arguments_and_many(impl):
    async def main():
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, tuple) == ()
        many = list(range(50))
        assert await loop.run_in_executor(None, lambda *a: a, *many) == tuple(many)
    impl.run(main())


def test_threads_are_named_like_asyncios(impl):
    async def main():
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, lambda: threading.current_thread().name)
    assert re.fullmatch(r"asyncio_\d+", impl.run(main()))


def test_runs_outside_the_loops_thread(impl):
    async def main():
        loop = asyncio.get_running_loop()
        there = await loop.run_in_executor(
            None, lambda: (threading.get_ident(), asyncio._get_running_loop()))
        assert there[0] != threading.get_ident()
        assert there[1] is None
    impl.run(main())


def test_work_is_parallel(impl):
    barrier = threading.Barrier(3)

    async def main():
        loop = asyncio.get_running_loop()
        await asyncio.gather(*[loop.run_in_executor(None, barrier.wait, 10) for _ in range(3)])
    impl.run(main())


def test_threads_are_reused_and_bounded(impl):
    import os
    names = set()

    async def main():
        loop = asyncio.get_running_loop()
        for _ in range(20):
            names.add(await loop.run_in_executor(None, lambda: threading.current_thread().name))
        assert len(names) < 10
        await asyncio.gather(*[
            loop.run_in_executor(None, lambda: (
                names.add(threading.current_thread().name), time.sleep(0.001)))
            for _ in range(200)])
    impl.run(main())
    assert len(names) <= min(32, (os.cpu_count() or 1) + 4)


def test_order_with_one_worker(impl):
    seen = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(max_workers=1))
        await asyncio.gather(*[loop.run_in_executor(None, seen.append, n) for n in range(100)])
    impl.run(main())
    assert seen == list(range(100))


def test_context_is_not_carried_over(impl):
    """run_in_executor leaves contexts alone; asyncio.to_thread copies them."""
    var = contextvars.ContextVar("var", default="none")

    async def main():
        loop = asyncio.get_running_loop()
        var.set("loop")
        plain = await loop.run_in_executor(None, var.get)
        await loop.run_in_executor(None, var.set, "thread")
        copied = await asyncio.to_thread(var.get)
        return plain, copied, var.get()
    plain, copied, after = impl.run(main())
    assert copied == "loop" and after == "loop"
    assert plain in ("none", "loop")


def test_context_in_threads_equals_asyncios():
    var = contextvars.ContextVar("var", default="none")

    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            var.set("loop")
            first = await loop.run_in_executor(None, var.get)
            await loop.run_in_executor(None, var.set, "thread")
            second = await loop.run_in_executor(None, var.get)
            return first, second
        return impl.run(main())
    first, second = same(body)
    assert first == "none"


def test_returns_a_future_of_the_loop(loop):
    future = loop.run_in_executor(None, time.sleep, 0)
    assert asyncio.isfuture(future)
    assert isinstance(future, asyncio.Future)
    assert future.get_loop() is loop
    loop.run_until_complete(future)
    loop.run_until_complete(loop.shutdown_default_executor())


def test_before_the_loop_runs(loop):
    future = loop.run_in_executor(None, lambda: 3)
    assert loop.run_until_complete(future) == 3
    loop.run_until_complete(loop.shutdown_default_executor())


def test_own_executor(loop):
    with concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="mine") as pool:
        name = loop.run_until_complete(
            loop.run_in_executor(pool, lambda: threading.current_thread().name))
    assert name.startswith("mine")


def test_any_object_with_submit(loop):
    """An executor is whatever has submit()."""
    class Direct(concurrent.futures.Executor):
        def submit(self, function, *args, **kwargs):
            future = concurrent.futures.Future()
            future.set_result(function(*args, **kwargs))
            return future
    assert loop.run_until_complete(loop.run_in_executor(Direct(), pow, 2, 3)) == 8


def test_set_default_executor(loop):
    pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="given")
    loop.set_default_executor(pool)
    name = loop.run_until_complete(
        loop.run_in_executor(None, lambda: threading.current_thread().name))
    assert name.startswith("given")
    loop.run_until_complete(loop.shutdown_default_executor())
    with pytest.raises(RuntimeError):
        pool.submit(print)


@pytest.mark.parametrize("thing", [None, 3, object()], ids=["None", "int", "object"])
def test_set_default_executor_wants_a_thread_pool(thing):
    def body(impl):
        with impl.loop() as loop:
            return outcome(loop.set_default_executor, thing)
    assert same(body) == ["raised", "TypeError", "executor must be ThreadPoolExecutor instance"]


def test_replaced_default_executor(impl):
    """One set while work of the first is under way."""
    async def main():
        loop = asyncio.get_running_loop()
        first = loop.run_in_executor(None, time.sleep, 0.01)
        pool = concurrent.futures.ThreadPoolExecutor(1)
        loop.set_default_executor(pool)
        assert await loop.run_in_executor(None, lambda: 5) == 5
        await first
    impl.run(main())
    gc.collect()


def test_cancel_before_the_start(impl):
    """Work that has not started is not done when its future was cancelled."""
    seen = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(1))
        gate = threading.Event()
        first = loop.run_in_executor(None, gate.wait, 10)
        second = loop.run_in_executor(None, seen.append, "ran")
        await asyncio.sleep(0.005)
        assert second.cancel()
        await asyncio.sleep(0)
        gate.set()
        await first
        with pytest.raises(asyncio.CancelledError):
            await second
    impl.run(main())
    assert seen == []


def test_cancel_before_the_start_in_the_native_executor(impl):
    """The same without set_default_executor: all workers are kept busy."""
    import os
    seen = []
    workers = min(32, (os.process_cpu_count() if PY >= (3, 13) else os.cpu_count()) + 4)

    async def main():
        loop = asyncio.get_running_loop()
        gate = threading.Event()
        busy = [loop.run_in_executor(None, gate.wait, 10) for _ in range(workers)]
        extra = [loop.run_in_executor(None, seen.append, n) for n in range(10)]
        await asyncio.sleep(0.02)
        for future in extra[:5]:
            assert future.cancel("no")
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*busy, *extra, return_exceptions=True)
    impl.run(main())
    assert sorted(seen) == [5, 6, 7, 8, 9]


def test_cancel_while_running(impl):
    """The thread goes on; its late result goes nowhere."""
    done = threading.Event()

    async def main():
        loop = asyncio.get_running_loop()
        started = threading.Event()
        gate = threading.Event()

        def work():
            started.set()
            gate.wait(10)
            done.set()
            return 1
        future = loop.run_in_executor(None, work)
        while not started.is_set():
            await asyncio.sleep(0.001)
        assert future.cancel()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await future
    impl.run(main())
    assert done.is_set()


def test_task_waiting_on_a_thread_is_cancelled(impl):
    async def main():
        loop = asyncio.get_running_loop()
        gate = threading.Event()
        task = loop.create_task(asyncio.to_thread(gate.wait, 10))
        await asyncio.sleep(0.005)
        task.cancel("stop")
        try:
            await task
        except asyncio.CancelledError as exc:
            assert exc.args == ("stop",)
        else:
            raise AssertionError("not cancelled")
        gate.set()
    impl.run(main())


def test_arguments_and_result_are_released(impl):
    class Thing:
        pass

    async def main():
        loop = asyncio.get_running_loop()
        thing = Thing()
        refs = [weakref.ref(thing)]
        result = await loop.run_in_executor(None, lambda t: Thing(), thing)
        refs.append(weakref.ref(result))
        del thing, result
        for _ in range(200):
            gc.collect()
            if not any(r() for r in refs):
                break
            await asyncio.sleep(0.005)
        assert [r() for r in refs] == [None, None]
    impl.run(main())


def test_shutdown_without_any_use(loop):
    assert loop.run_until_complete(loop.shutdown_default_executor()) is None


def test_shutdown_waits_for_the_work(impl):
    seen = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.run_in_executor(None, lambda: (time.sleep(0.03), seen.append(1)))
        await loop.shutdown_default_executor()
        assert seen == [1]
    impl.run(main())


def test_shutdown_waits_for_queued_work(impl):
    seen = []

    async def main():
        loop = asyncio.get_running_loop()
        for n in range(100):
            loop.run_in_executor(None, seen.append, n)
        await loop.shutdown_default_executor()
        assert len(seen) == 100
    impl.run(main())


def test_use_after_shutdown():
    def body(impl):
        with impl.loop() as loop:
            loop.run_until_complete(loop.shutdown_default_executor())
            seen = [outcome(loop.run_in_executor, None, print)]
            loop.run_until_complete(loop.shutdown_default_executor())
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                seen.append(loop.run_until_complete(loop.run_in_executor(pool, pow, 2, 2)))
            return seen
    assert same(body)[0] == ["raised", "RuntimeError", "Executor shutdown has been called"]


def test_shutdown_twice_after_use(impl):
    async def main():
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, print, end="") if False else None
        await loop.run_in_executor(None, int)
        await loop.shutdown_default_executor()
        await loop.shutdown_default_executor()
    impl.run(main())


@pytest.mark.skipif(PY < (3, 12), reason="the timeout came with Python 3.12")
def test_shutdown_with_a_timeout_warns():
    def body(impl):
        gate = threading.Event()

        async def main():
            loop = asyncio.get_running_loop()
            future = loop.run_in_executor(None, gate.wait, 2)
            await asyncio.sleep(0.005)
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                start = time.monotonic()
                await loop.shutdown_default_executor(0.02)
                took = time.monotonic() - start
            gate.set()
            await future
            return [(w.category.__name__, str(w.message)) for w in seen], 0.01 < took < 1.5
        return impl.run(main())
    (warned, in_time) = same(body)
    if PY >= (3, 13):  # 3.12.1 waits for the work before it looks at the clock
        assert in_time
        assert warned[0][0] == "RuntimeWarning"


@pytest.mark.skipif(PY < (3, 12), reason="the timeout came with Python 3.12")
@pytest.mark.parametrize("args", [(), (None,), (5,), (0.5,)], ids=str)
def test_shutdown_timeout_positional(impl, args):
    async def main():
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, int)
        await loop.shutdown_default_executor(*args)
    impl.run(main())


def test_close_does_not_wait(impl):
    """close() leaves running work to itself; its result goes nowhere."""
    gate = threading.Event()
    loop = impl.new_loop()
    future = loop.run_in_executor(None, gate.wait, 10)
    loop.run_until_complete(asyncio.sleep(0.005))
    start = time.monotonic()
    loop.close()
    assert time.monotonic() - start < 2
    gate.set()
    assert state_of(future) in ("pending", ("cancelled", ()))
    del future, loop


def test_coroutines_are_refused_in_debug_mode():
    def body(impl):
        async def coro():
            pass
        with impl.loop(True) as loop:
            seen = [outcome(loop.run_in_executor, None, coro),
                    outcome(loop.run_in_executor, None, 3)[:2]]
            c = coro()
            seen.append(outcome(loop.run_in_executor, None, c))
            c.close()
            return seen
    assert same(body)[0][:2] == ["raised", "TypeError"]


def test_not_callable():
    """Without debug mode the error is the work's."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            future = loop.run_in_executor(None, 3)
            await asyncio.wait([future])
            return type(future.exception()).__name__
        return impl.run(main())
    assert same(body) == "TypeError"


def test_a_lot_of_work(impl):
    async def main():
        loop = asyncio.get_running_loop()
        total = 0
        for _ in range(10):
            total += sum(await asyncio.gather(
                *[loop.run_in_executor(None, int, 1) for _ in range(300)]))
        return total
    assert impl.run(main()) == 3000


def test_work_submitted_by_threads(impl):
    """run_coroutine_threadsafe from work that runs in the executor."""
    async def main():
        loop = asyncio.get_running_loop()

        def work(n):
            return asyncio.run_coroutine_threadsafe(asyncio.sleep(0, n), loop).result(10)
        return await asyncio.gather(*[loop.run_in_executor(None, work, n) for n in range(5)])
    assert impl.run(main()) == list(range(5))


def test_process_pool(impl):
    check_child(impl, """
        import concurrent.futures, multiprocessing
        async def main():
            loop = asyncio.get_running_loop()
            context = multiprocessing.get_context("spawn")
            with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
                assert await loop.run_in_executor(pool, pow, 2, 5) == 32
        if __name__ == "__main__":
            impl.run(main())
    """, limit=40)


def test_exit_with_running_work(impl):
    """The interpreter waits for the executor's threads, as with asyncio's."""
    out = check_child(impl, """
        loop = impl.new_loop()
        loop.run_in_executor(None, lambda: (time.sleep(0.1), print("finished", flush=True)))
        loop.run_until_complete(asyncio.sleep(0.02))
        loop.close()
    """)
    assert out.strip() == "finished"


def test_exit_with_idle_workers(impl):
    check_child(impl, """
        loop = impl.new_loop()
        loop.run_until_complete(loop.run_in_executor(None, int))
        warnings.simplefilter("ignore")
    """)


def test_getaddrinfo_runs_in_the_executor(impl):
    async def main():
        loop = asyncio.get_running_loop()
        return await loop.getaddrinfo("127.0.0.1", 80, type=1)
    try:
        infos = impl.run(main())
    except NotImplementedError:
        pytest.skip("this loop has no getaddrinfo yet")
    assert infos[0][4] == ("127.0.0.1", 80)


def test_own_executor_overrides(impl):
    """run_in_executor of a subclass serves to_thread."""
    seen = []

    class Own(impl.Loop):
        def run_in_executor(self, executor, function, *args):
            seen.append(executor)
            return super().run_in_executor(executor, function, *args)
    with asyncio.Runner(loop_factory=Own) as runner:
        async def main():
            return await asyncio.to_thread(pow, 2, 4)
        assert runner.run(main()) == 16
    assert seen == [None]


def test_callbacks_run_in_the_loops_thread(impl):
    async def main():
        loop = asyncio.get_running_loop()
        seen = []
        future = loop.run_in_executor(None, int)
        future.add_done_callback(lambda f: seen.append(threading.get_ident()))
        await future
        await asyncio.sleep(0)
        assert seen == [threading.get_ident()]
    impl.run(main())
