"""Eager start and task factories."""

import asyncio
import contextvars
import gc

import pytest

from support import FASTLOOP, PY, check_child, outcome, same, settle, spin, state_of

pytestmark = pytest.mark.skipif(PY < (3, 12), reason="eager start came with Python 3.12")


def eager(impl, coro, **kwargs):
    return impl.Task(coro, loop=asyncio.get_running_loop(), eager_start=True, **kwargs)


def run(impl, main):
    with impl.loop() as loop:
        return loop.run_until_complete(main(impl, loop))


def both(main):
    return same(lambda impl: run(impl, main))


def test_runs_to_the_first_real_await():
    async def main(impl, loop):
        seen = []

        async def child(fut):
            seen.append("starts")
            seen.append(await fut)
            return "end"
        fut = loop.create_future()
        task = eager(impl, child(fut))
        seen.append((task.done(), task._fut_waiter is fut))
        fut.set_result("value")
        seen.append(await task)
        return seen
    assert both(main) == ["starts", [False, True], "value", "end"]


def test_finishes_at_once():
    async def main(impl, loop):
        async def child():
            return 5
        task = eager(impl, child())
        return task.done(), task.result(), task in asyncio.all_tasks()
    both(main)


def test_coroutine_of_a_finished_eager_task():
    """It is dropped; asyncio of Python 3.12.1 crashes when asked for it (gh-122332)."""
    out = check_child(FASTLOOP, """
        async def child():
            return 5
        async def main():
            task = impl.Task(child(), loop=asyncio.get_running_loop(), eager_start=True)
            shown = repr(task)
            return [c is None or asyncio.iscoroutine(c) for c in (task.get_coro(), task._coro)]
        print(impl.run(main()))
    """)
    assert out.strip() == "[True, True]"


def test_fails_at_once():
    async def main(impl, loop):
        async def child():
            raise LookupError("x")
        task = eager(impl, child())
        return task.done(), state_of(task), task in asyncio.all_tasks()
    both(main)


def test_awaits_a_done_future():
    async def main(impl, loop):
        fut = loop.create_future()
        fut.set_result(3)

        async def child():
            return await fut
        task = eager(impl, child())
        return task.done(), await task
    assert both(main) == [True, 3]


def test_current_task_is_swapped():
    async def main(impl, loop):
        parent = asyncio.current_task()
        seen = []

        async def child():
            seen.append(asyncio.current_task() is parent)
            seen.append(asyncio.current_task() in asyncio.all_tasks())
            await asyncio.sleep(0)
            seen.append(asyncio.current_task() is task)
        task = eager(impl, child())
        seen.append(asyncio.current_task() is parent)
        await task
        seen.append(asyncio.current_task() is parent)
        return seen
    assert both(main) == [False, True, True, True, True]


def test_nested():
    async def main(impl, loop):
        seen = []

        async def child(depth):
            seen.append(("in", depth))
            if depth:
                task = eager(impl, child(depth - 1))
                seen.append(("made", depth, task.done()))
                await task
            else:
                await asyncio.sleep(0)
            seen.append(("out", depth))
        await eager(impl, child(4))
        return seen
    both(main)


def test_context():
    var = contextvars.ContextVar("var", default="outer")

    async def main(impl, loop):
        seen = []

        async def child():
            seen.append(var.get())
            var.set("inner")
            await asyncio.sleep(0)
            seen.append(var.get())
        task = eager(impl, child())
        seen.append(var.get())
        await task
        ctx = contextvars.copy_context()
        ctx.run(var.set, "given")
        task = eager(impl, child(), context=ctx)
        await task
        seen.append(ctx[var])
        return seen
    assert both(main) == ["outer", "outer", "inner", "given", "inner", "inner"]


def test_in_its_own_current_context(log):
    """A context that is entered already cannot be entered again."""
    async def main(impl, loop):
        ctx = contextvars.copy_context()
        seen = []

        async def child():
            await asyncio.sleep(0)
            return 1

        def inside():
            coro = child()
            result = outcome(eager, impl, coro, context=ctx)
            seen.append(result[:2] if result[0] == "raised" else "made")
            coro.close()
        ctx.run(inside)
        await settle(3)
        return seen
    if PY >= (3, 14):
        pytest.skip("hangs in asyncio of some versions (gh-157301)")
    main_result = outcome(run, FASTLOOP, main)
    assert main_result[0] in ("returned", "raised")
    log.take()


def test_name_and_number():
    async def main(impl, loop):
        async def child():
            return asyncio.current_task().get_name()
        task = eager(impl, child(), name="given")
        return task.result(), task.get_name()
    assert both(main) == ["given", "given"]


def test_cancelled_after_an_eager_start():
    async def main(impl, loop):
        seen = []

        async def child():
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError as exc:
                seen.append(exc.args)
                raise
        task = eager(impl, child())
        task.cancel("m")
        await asyncio.wait([task])
        return seen, state_of(task)
    assert both(main) == [[["m"]], ["cancelled", ["m"]]]


def test_cancels_itself_while_starting():
    async def main(impl, loop):
        async def child():
            asyncio.current_task().cancel("self")
            await asyncio.sleep(0)
            return "survived"
        task = eager(impl, child())
        seen = [task.done()]
        await asyncio.wait([task])
        seen.append(state_of(task))
        return seen
    both(main)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_exit_while_starting(error, log):
    def body(impl):
        with impl.loop() as loop:
            async def child():
                raise error("out")
            seen = []

            async def main():
                try:
                    eager(impl, child())
                except BaseException as exc:
                    seen.append(type(exc).__name__)
                    raise
            task = loop.create_task(main())
            try:
                loop.run_until_complete(task)
            except error as exc:
                seen.append(exc.args)
            seen.append(asyncio.current_task(loop))
            del task
        gc.collect()
        return seen, sorted(log.messages())
    same(body)


def test_with_no_running_loop():
    def body(impl):
        with impl.loop() as loop:
            async def child():
                return 1
            task = impl.Task(child(), loop=loop, eager_start=True)
            first = task.done()
            loop.run_until_complete(task)
            return first, task.result()
    assert same(body) == [False, 1]


def test_in_another_loops_task():
    def body(impl):
        with impl.loop() as loop, impl.loop() as other:
            async def child():
                return 1

            async def main():
                coro = child()
                result = outcome(lambda: impl.Task(coro, loop=other, eager_start=True).done())
                return result
            result = loop.run_until_complete(main())
            spin(other, 3)
            return result
    same(body)


def test_falsy_values():
    async def main(impl, loop):
        async def child():
            return 1
        task = impl.Task(child(), loop=loop, eager_start=False)
        first = task.done()
        await task
        return first
    assert both(main) is False


# Factories

def test_eager_task_factory():
    async def main(impl, loop):
        loop.set_task_factory(asyncio.eager_task_factory)
        seen = [loop.get_task_factory() is asyncio.eager_task_factory]

        async def child(n):
            seen.append(n)
            await asyncio.sleep(0)
            return n
        tasks = [asyncio.create_task(child(n)) for n in range(3)]
        seen.append("made")
        seen.append(await asyncio.gather(*tasks))
        async with asyncio.TaskGroup() as group:
            one = group.create_task(child("group"))
        seen.append(one.result())
        done = loop.create_task(asyncio.sleep(0, "x"), name="named")
        seen.append((done.get_name(), await done))
        loop.set_task_factory(None)
        return seen
    assert both(main)[:5] == [True, 0, 1, 2, "made"]


def test_own_eager_factory():
    """anyio compares code objects; a factory for the own Task must look the same."""
    async def main(impl, loop):
        factory = asyncio.create_eager_task_factory(impl.Task)
        loop.set_task_factory(factory)

        async def child():
            return 1
        task = loop.create_task(child(), name="n")
        seen = [task.done(), type(task) is impl.Task, task.get_name(),
                factory.__code__ is asyncio.eager_task_factory.__code__]
        loop.set_task_factory(None)
        return seen
    assert both(main) == [True, True, "n", True]


def test_all_tasks_knows_eager_tasks():
    async def main(impl, loop):
        async def child():
            await asyncio.sleep(0.001)
        tasks = [eager(impl, child()) for _ in range(5)]
        found = asyncio.all_tasks()
        seen = [all(t in found for t in tasks), len(found)]
        await asyncio.gather(*tasks)
        seen.append(len(asyncio.all_tasks()))
        return seen
    assert both(main) == [True, 6, 1]


def test_pending_eager_task_destroyed(log):
    def body(impl):
        with impl.loop() as loop:
            async def child():
                await loop.create_future()

            async def main():
                eager(impl, child())
            loop.run_until_complete(main())
            gc.collect()
        return log.messages()
    assert same(body) == ["Task was destroyed but it is pending!"]


def test_callbacks_of_a_finished_eager_task():
    async def main(impl, loop):
        seen = []

        async def child():
            return 1
        task = eager(impl, child())
        task.add_done_callback(lambda t: seen.append("callback"))
        seen.append("before")
        await asyncio.sleep(0)
        return seen
    assert both(main) == ["before", "callback"]


def test_timeout_in_an_eager_task():
    async def main(impl, loop):
        async def child():
            async with asyncio.timeout(0.001):
                await asyncio.sleep(10)
        task = eager(impl, child())
        await asyncio.wait([task])
        return state_of(task)
    assert both(main)[:2] == ["failed", "TimeoutError"]


@pytest.mark.skipif(PY < (3, 14), reason="create_task(eager_start=) came with Python 3.14")
def test_create_task_with_eager_start():
    async def main(impl, loop):
        seen = []

        async def child(tag):
            seen.append(tag)
            await asyncio.sleep(0)
        one = loop.create_task(child("eager"), eager_start=True, name="a")
        seen.append("made")
        two = loop.create_task(child("lazy"), eager_start=False, name="b")
        three = asyncio.create_task(child("through asyncio"), eager_start=True)
        seen.append("all made")
        await asyncio.gather(one, two, three)
        return seen, one.get_name(), two.get_name()
    both(main)


def test_many_eager_tasks(impl):
    async def main():
        async def child(n):
            if n % 2:
                await asyncio.sleep(0)
            return n
        return sum(await asyncio.gather(*[eager(impl, child(n)) for n in range(3000)]))
    assert impl.run(main()) == sum(range(3000))


def test_deep_eager_recursion(impl):
    """Eager tasks that start each other end in a RecursionError, not in a crash."""
    check_child(impl, """
        async def child(n):
            task = impl.Task(child(n + 1), loop=asyncio.get_running_loop(), eager_start=True)
            await task
        async def main():
            try:
                await child(0)
            except RecursionError:
                return "RecursionError"
        warnings.simplefilter("ignore")
        import logging
        logging.disable(logging.CRITICAL)
        loop = impl.new_loop()
        task = loop.create_task(main())
        loop.run_until_complete(asyncio.wait([task], timeout=5))
        os._exit(0)
    """)
