"""KeyboardInterrupt and SystemExit out of callbacks, tasks and futures."""

import asyncio
import gc

import pytest

from support import outcome, same, spin

EXITS = [KeyboardInterrupt, SystemExit]


@pytest.mark.parametrize("error", EXITS)
@pytest.mark.parametrize("kind", ["soon", "later", "threadsafe"])
def test_from_a_callback(loop, error, kind):
    seen = []

    def broken():
        raise error("out")
    loop.call_soon(seen.append, 1)
    if kind == "soon":
        loop.call_soon(broken)
    elif kind == "later":
        loop.call_later(0, broken)
    else:
        loop.call_soon_threadsafe(broken)
    with pytest.raises(error, match="out"):
        loop.run_forever()
    assert not loop.is_running()
    assert asyncio._get_running_loop() is None
    loop.call_soon(seen.append, 2)
    spin(loop, 1)
    assert seen == [1, 2]


@pytest.mark.parametrize("error", EXITS)
def test_callbacks_behind_it_run_later(error):
    """What was ready behind the failing callback is not lost."""
    def body(impl):
        with impl.loop() as loop:
            seen = []

            def broken():
                raise error
            loop.call_soon(seen.append, 1)
            loop.call_soon(broken)
            loop.call_soon(seen.append, 2)
            loop.call_soon(seen.append, 3)
            try:
                loop.run_forever()
            except error:
                seen.append("out")
            spin(loop, 2)
            return seen
    assert same(body) == [1, "out", 2, 3]


@pytest.mark.parametrize("error", EXITS)
def test_from_a_task(error):
    def body(impl):
        with impl.loop() as loop:
            async def broken():
                raise error("out")
            task = loop.create_task(broken())
            seen = []
            try:
                loop.run_forever()
            except error as exc:
                seen.append(exc.args)
            seen += [task.done(), task.cancelled(), type(task.exception()).__name__]
            seen.append(asyncio.current_task(loop))
            return seen
    assert same(body) == [["out"], True, False, error.__name__, None]


@pytest.mark.parametrize("error", EXITS)
def test_from_a_task_that_others_wait_for(error):
    def body(impl):
        with impl.loop() as loop:
            async def broken():
                await asyncio.sleep(0)
                raise error("out")
            seen = []

            async def waiter(task):
                try:
                    await task
                except BaseException as exc:
                    seen.append(type(exc).__name__)
            task = loop.create_task(broken())
            other = loop.create_task(waiter(task))
            for _ in range(3):
                try:
                    spin(loop, 3)
                except error:
                    seen.append("out")
            seen.append((task.done(), other.done()))
            return seen
    seen = same(body)
    assert seen[0] == "out"


@pytest.mark.parametrize("error", EXITS)
def test_through_run_until_complete(error, log):
    def body(impl):
        with impl.loop() as loop:
            async def broken():
                await asyncio.sleep(0)
                raise error("out")
            try:
                loop.run_until_complete(broken())
            except error as exc:
                seen = [exc.args]
            gc.collect()
            return seen, log.messages()
    assert same(body) == [[["out"]], []]


@pytest.mark.parametrize("error", EXITS)
def test_from_a_done_callback(error):
    def body(impl):
        with impl.loop() as loop:
            def broken(fut):
                raise error
            seen = []
            fut = loop.create_future()
            fut.add_done_callback(lambda f: seen.append(1))
            fut.add_done_callback(broken)
            fut.add_done_callback(lambda f: seen.append(2))
            fut.set_result(None)
            try:
                loop.run_forever()
            except error:
                seen.append("out")
            spin(loop, 2)
            return seen
    assert same(body) == [1, "out", 2]


@pytest.mark.parametrize("error", EXITS)
def test_set_as_a_futures_exception(error):
    """A future may carry it; the awaiting task gets it and passes it on."""
    def body(impl):
        with impl.loop() as loop:
            fut = loop.create_future()
            fut.set_exception(error("carried"))

            async def main():
                try:
                    await fut
                except error as exc:
                    return exc.args
            return loop.run_until_complete(main())
    assert same(body) == ["carried"]


def test_first_exit_wins_then_the_next(loop):
    def broken(error):
        raise error
    loop.call_soon(broken, SystemExit(1))
    loop.call_soon(broken, KeyboardInterrupt())
    with pytest.raises(SystemExit):
        loop.run_forever()
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()


def test_exit_in_a_reader(loop):
    import os
    r, w = os.pipe()

    def broken():
        raise SystemExit(4)
    loop.add_reader(r, broken)
    os.write(w, b"x")
    with pytest.raises(SystemExit):
        loop.run_forever()
    loop.remove_reader(r)
    spin(loop, 1)
    os.close(r)
    os.close(w)


@pytest.mark.parametrize("error", [*EXITS, GeneratorExit, BaseException, Exception])
def test_thrown_into_gather(error):
    def body(impl):
        with impl.loop() as loop:
            async def broken():
                raise error("out")

            async def main():
                return await asyncio.gather(broken(), asyncio.sleep(0), return_exceptions=True)
            seen = []
            main_task = loop.create_task(main())
            for _ in range(4):
                try:
                    spin(loop, 3)
                except BaseException as exc:
                    seen.append(type(exc).__name__)
            main_task.cancel()
            try:
                spin(loop, 3)
            except BaseException as exc:
                seen.append(type(exc).__name__)
            seen.append(main_task.done())
            if main_task.done() and not main_task.cancelled():
                seen.append(type(main_task.exception()).__name__)
            return seen
    same(body)


def test_stop_inside_a_task(loop):
    async def main():
        loop.stop()
        await asyncio.sleep(0)
        return "rest"
    task = loop.create_task(main())
    loop.run_forever()
    assert not task.done()
    assert loop.run_until_complete(task) == "rest"


def test_close_inside_a_callback(loop):
    seen = []
    loop.call_soon(lambda: seen.append(outcome(loop.close)))
    spin(loop, 1)
    assert seen[0][:2] == ("raised", "RuntimeError") or seen[0][:2] == ["raised", "RuntimeError"]


def test_keyboard_interrupt_in_a_del(loop):
    """An exception in __del__ of an argument is unraisable and stops nothing."""
    import sys
    caught = []
    hook, sys.unraisablehook = sys.unraisablehook, lambda info: caught.append(info.exc_type)
    try:
        class Thing:
            def __del__(self):
                raise KeyboardInterrupt
        seen = []
        loop.call_soon(id, Thing())
        loop.call_soon(seen.append, 1)
        spin(loop, 1)
    finally:
        sys.unraisablehook = hook
    assert seen == [1]
    assert caught == [KeyboardInterrupt]


def test_recursion_error_in_a_callback(loop):
    """A deep recursion in a callback is an ordinary error."""
    seen = []
    loop.set_exception_handler(lambda loop, c: seen.append(type(c["exception"]).__name__))

    def deep():
        deep()
    loop.call_soon(deep)
    loop.call_soon(seen.append, "next")
    spin(loop, 1)
    assert seen == ["RecursionError", "next"]


def test_deep_chain_of_awaits(loop):
    """A long chain of tasks that await each other unwinds without recursion in C."""
    async def link(previous):
        return await previous + 1

    async def main():
        fut = loop.create_future()
        last = fut
        tasks = []
        for _ in range(5000):
            last = loop.create_task(link(last))
            tasks.append(last)
        await asyncio.sleep(0)
        fut.set_result(0)
        return await last
    assert loop.run_until_complete(main()) == 5000


def test_deep_chain_is_cancelled_from_its_end(loop):
    """cancel() goes down the chain of waiting tasks; asyncio recurses, so keep it modest."""
    async def link(previous):
        await previous

    async def main():
        fut = loop.create_future()
        last = fut
        tasks = []
        for _ in range(200):
            last = loop.create_task(link(last))
            tasks.append(last)
        await asyncio.sleep(0)
        last.cancel("down")
        await asyncio.wait(tasks)
        assert fut.cancelled()
        return sum(t.cancelled() for t in tasks)
    assert loop.run_until_complete(main()) == 200
