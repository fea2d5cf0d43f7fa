"""Debug mode: slow callbacks, thread checks, origins and source tracebacks."""

import asyncio
import gc
import sys
import threading
import time

import pytest

from support import outcome, same, same_child, spin


def test_set_and_get(loop):
    assert loop.get_debug() is False
    loop.set_debug(True)
    assert loop.get_debug() is True
    loop.set_debug(False)
    assert loop.get_debug() is False


def test_default_slow_callback_duration(loop):
    assert loop.slow_callback_duration == 0.1
    loop.slow_callback_duration = 0.5
    assert loop.slow_callback_duration == 0.5


@pytest.mark.parametrize("flags, env", [
    ((), {}), (("-X", "dev"), {}), ((), {"PYTHONASYNCIODEBUG": "1"}),
    ((), {"PYTHONASYNCIODEBUG": ""}),
], ids=["plain", "dev", "environment", "empty"])
def test_debug_mode_of_a_new_loop(flags, env):
    same_child("""
        loop = impl.new_loop()
        print(loop.get_debug())
        loop.close()
    """, flags=flags, env=env)


def test_slow_callback_is_named(log):
    def slow(n):
        time.sleep(0.02)

    def body(impl):
        with impl.loop(True) as loop:
            loop.slow_callback_duration = 0.01
            loop.call_soon(slow, 1)
            loop.call_soon(int)
            spin(loop, 1)
        return [m.rsplit(" took ", 1)[0] for m in log.messages()]
    (message,) = same(body)
    assert message.startswith("Executing <Handle ") and "slow" in message


def test_slow_task_is_named(log):
    async def slow():
        time.sleep(0.02)

    def body(impl):
        with impl.loop(True) as loop:
            loop.slow_callback_duration = 0.01
            task = loop.create_task(slow(), name="the slow one")
            loop.run_until_complete(task)
        return [m.rsplit(" took ", 1)[0] for m in log.messages()]
    messages = same(body)
    assert any("name='the slow one'" in m and m.startswith("Executing <Task") for m in messages)


def test_slow_wake_up_is_named(log):
    async def slow(fut):
        await fut
        time.sleep(0.02)

    def body(impl):
        with impl.loop(True) as loop:
            loop.slow_callback_duration = 0.01
            fut = loop.create_future()
            task = loop.create_task(slow(fut), name="waker")
            loop.call_soon(fut.set_result, None)
            loop.run_until_complete(task)
        return [m.rsplit(" took ", 1)[0] for m in log.messages()]
    messages = same(body)
    assert any("name='waker'" in m for m in messages)


def test_slow_timer_and_reader_are_named(log):
    import os

    def body(impl):
        with impl.loop(True) as loop:
            loop.slow_callback_duration = 0.01
            r, w = os.pipe()

            def slow_reader():
                loop.remove_reader(r)
                time.sleep(0.02)
            os.write(w, b"x")
            loop.add_reader(r, slow_reader)
            spin(loop, 3)
            os.close(r)
            os.close(w)
            loop.call_later(0, time.sleep, 0.02)
            spin(loop, 3)
        return [m.split(" at ")[0].split(" when=")[0] for m in log.messages()]
    messages = same(body)
    assert len(messages) == 2


def test_fast_callbacks_are_not_reported(loop):
    loop.set_debug(True)
    loop.call_soon(int)
    spin(loop, 2)


def test_without_debug_mode_nothing_is_measured(loop):
    loop.slow_callback_duration = 0.001
    loop.call_soon(time.sleep, 0.01)
    spin(loop, 1)


@pytest.mark.parametrize("method, args", [
    ("call_soon", ()), ("call_later", (1,)), ("call_at", (1,)),
])
def test_thread_check(method, args):
    def body(impl):
        with impl.loop(True) as loop:
            seen = []

            def other():
                seen.append(outcome(getattr(loop, method), *args, print))
                loop.call_soon_threadsafe(loop.stop)
            thread = threading.Thread(target=other)
            loop.call_soon(thread.start)
            loop.run_forever()
            thread.join()
            return seen
    ((raised, name, text),) = same(body)
    assert name == "RuntimeError"
    assert text.startswith("Non-thread-safe operation")


def test_thread_check_of_an_idle_loop(impl):
    """A loop that does not run may be used from any thread."""
    with impl.loop(True) as loop:
        seen = []
        thread = threading.Thread(target=loop.call_soon, args=(seen.append, 1))
        thread.start()
        thread.join()
        spin(loop, 1)
        assert seen == [1]


def test_future_callbacks_check_the_thread(log):
    """set_result of a future with callbacks in the wrong thread."""
    def body(impl):
        with impl.loop(True) as loop:
            seen = []
            fut = loop.create_future()
            fut.add_done_callback(print)

            def other():
                seen.append(outcome(fut.set_result, 1)[:2])
                loop.call_soon_threadsafe(loop.stop)
            thread = threading.Thread(target=other)
            loop.call_soon(thread.start)
            loop.run_forever()
            thread.join()
            return seen
    assert same(body) == [["raised", "RuntimeError"]]


@pytest.mark.parametrize("method, args", [
    ("call_soon", ()), ("call_soon_threadsafe", ()), ("call_later", (1,)), ("call_at", (1,)),
])
def test_callback_check(method, args):
    async def coro():
        pass

    def body(impl):
        with impl.loop(True) as loop:
            call = getattr(loop, method)
            c = coro()
            seen = [outcome(call, *args, bad) for bad in (coro, c, None, 3, "text")]
            c.close()
            return seen
    seen = same(body)
    assert all(s[1] == "TypeError" for s in seen)


def test_coroutine_origin_tracking(loop):
    before = sys.get_coroutine_origin_tracking_depth()
    loop.set_debug(True)
    seen = []
    loop.call_soon(lambda: seen.append(sys.get_coroutine_origin_tracking_depth()))
    spin(loop, 1)
    assert seen == [asyncio.constants.DEBUG_STACK_DEPTH]
    assert sys.get_coroutine_origin_tracking_depth() == before


def test_origin_tracking_follows_set_debug(loop):
    seen = []

    async def main():
        for flag in (True, False, True, True, False):
            loop.set_debug(flag)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            seen.append(sys.get_coroutine_origin_tracking_depth() > 0)
    loop.run_until_complete(main())
    assert seen == [True, False, True, True, False]
    assert sys.get_coroutine_origin_tracking_depth() == 0


def test_origin_tracking_keeps_a_depth_set_before(impl):
    sys.set_coroutine_origin_tracking_depth(3)
    try:
        with impl.loop(True) as loop:
            spin(loop, 1)
        assert sys.get_coroutine_origin_tracking_depth() == 3
    finally:
        sys.set_coroutine_origin_tracking_depth(0)


def test_future_source_traceback():
    def body(impl):
        with impl.loop(True) as loop:
            fut = loop.create_future()
            own = impl.Future(loop=loop)
            # asyncio's create_future() is a Python function and so the innermost frame.
            seen = [type(fut._source_traceback).__name__,
                    "body" in [f.name for f in fut._source_traceback[-2:]],
                    [f.name for f in own._source_traceback[-1:]],
                    "created at" in repr(fut)]
            loop.set_debug(False)
            seen.append(loop.create_future()._source_traceback)
            return seen
    assert same(body)[1:] == [True, ["body"], True, None]


def test_task_source_traceback():
    async def coro():
        pass

    def body(impl):
        with impl.loop(True) as loop:
            task = loop.create_task(coro())
            own = impl.Task(coro(), loop=loop)
            seen = [type(task._source_traceback).__name__,
                    [f.name for f in task._source_traceback[-1:]],
                    [f.name for f in own._source_traceback[-1:]],
                    "created at" in repr(task)]
            loop.run_until_complete(asyncio.wait([task, own]))
            return seen
    assert same(body)[1:] == [["body"], ["body"], True]


def test_report_with_source_traceback(loop):
    seen = []
    name = "test_report_with_source_traceback"
    loop.set_debug(True)
    loop.set_exception_handler(lambda loop, c: seen.append(
        sorted(k for k in c) + ["here" for f in c["source_traceback"][-2:] if f.name == name]))
    loop.call_soon(lambda: 1 / 0)
    spin(loop, 1)
    fut = loop.create_future()
    fut.set_exception(ValueError())
    del fut
    gc.collect()

    async def fail():
        raise ValueError
    task = loop.create_task(fail())
    spin(loop, 2)
    del task
    gc.collect()
    assert seen == [
        ["exception", "handle", "message", "source_traceback", "here"],
        ["exception", "future", "message", "source_traceback", "here"],
        ["exception", "future", "message", "source_traceback", "here"]]


def test_default_report_shows_where_it_was_created(log):
    def body(impl):
        with impl.loop(True) as loop:
            loop.call_soon(lambda: 1 / 0)
            spin(loop, 1)
        ((_, text),) = log.take()
        return "Object created at (most recent call last):" in text, "in body" in text
    assert same(body) == [True, True]


def test_default_report_inside_a_callback_shows_the_handle(log):
    """call_exception_handler() called in a callback names where that was scheduled."""
    def body(impl):
        with impl.loop(True) as loop:
            loop.call_soon(loop.call_exception_handler, {"message": "hello"})
            spin(loop, 1)
            loop.set_debug(False)
            loop.call_exception_handler({"message": "outside"})
        first, second = log.take()
        return "Handle created at" in first[1], "Handle created at" in second[1]
    assert same(body) == [True, False]


def test_pending_task_destroyed_shows_where_it_was_created(log):
    def body(impl):
        with impl.loop(True) as loop:
            task = impl.Task(asyncio.sleep(0), loop=loop)
            loop.set_debug(False)
            task._coro.close()
            loop.close()
            del task
            gc.collect()
        return [(text.splitlines()[0], "source_traceback" in text or "created at" in text)
                for _, text in log.take()]
    same(body)


def test_close_is_logged(log):
    import logging
    logger = logging.getLogger("asyncio")

    def body(impl):
        logger.setLevel(logging.DEBUG)
        loop = impl.new_loop()
        loop.set_debug(True)
        log.details.clear()
        loop.close()
        seen = [(level, "Close" in text) for level, text in log.details]
        log.details.clear()
        return seen
    assert same(body) == [["DEBUG", True]]


@pytest.mark.parametrize("debug", [False, True])
def test_everything_still_works(loop, debug):
    loop.set_debug(debug)

    async def child(n):
        await asyncio.sleep(0)
        return n

    async def main():
        assert await asyncio.gather(*[child(n) for n in range(10)]) == list(range(10))
        async with asyncio.timeout(5):
            await asyncio.sleep(0.001)
        fut = loop.create_future()
        loop.call_soon_threadsafe(fut.set_result, 1)
        return await fut
    assert loop.run_until_complete(main()) == 1


def test_debug_mode_changed_inside_a_callback(loop):
    seen = []
    loop.call_soon(loop.set_debug, True)
    loop.call_soon(lambda: seen.append(loop.get_debug()))
    loop.call_soon(loop.set_debug, False)
    loop.call_soon(lambda: seen.append(loop.get_debug()))
    spin(loop, 1)
    assert seen == [True, False]


def test_truthy_values(loop):
    for value in (1, "yes", [0]):
        loop.set_debug(value)
        assert loop.get_debug()
    for value in (0, "", None):
        loop.set_debug(value)
        assert not loop.get_debug()
