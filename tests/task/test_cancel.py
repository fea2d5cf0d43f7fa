"""Cancellation: messages, counts, swallowing, every await point."""

import asyncio
import gc

import pytest

from support import PY, outcome, same, settle, spin, state_of


async def forever():
    await asyncio.get_running_loop().create_future()


def test_cancel_returns_whether_it_was_pending(loop):
    task = loop.create_task(forever())
    assert task.cancel() is True
    assert task.cancel() is True
    spin(loop, 3)
    assert task.cancel() is False
    assert task.cancelled()


@pytest.mark.parametrize("args", [(), (None,), ("m",), (3,), (("a", 1),)], ids=repr)
@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_messages(args, rounds):
    def body(impl):
        with impl.loop() as loop:
            seen = []

            async def main():
                try:
                    await forever()
                except asyncio.CancelledError as exc:
                    seen.append(exc.args)
                    raise
            task = loop.create_task(main())
            spin(loop, rounds)
            task.cancel(*args)
            spin(loop, 4)
            for _ in range(2):
                try:
                    task.result()
                except asyncio.CancelledError as exc:
                    seen.append(exc.args)
            exc = task._make_cancelled_error()
            seen.append((exc.args, type(exc.__context__).__name__, task._cancel_message))
            return seen
    same(body)


def test_counts(loop):
    task = loop.create_task(forever())
    assert task.cancelling() == 0
    assert task.uncancel() == 0
    for n in range(1, 4):
        task.cancel()
        assert task.cancelling() == n
    assert task.uncancel() == 2
    assert task.uncancel() == 1
    assert task.uncancel() == 0
    assert task.uncancel() == 0
    task.cancel()
    assert task.cancelling() == 1
    spin(loop, 3)
    assert task.cancelled()


def test_uncancel_before_the_start():
    """From Python 3.13 on uncancel() to zero takes a pending cancellation back."""
    def body(impl):
        with impl.loop() as loop:
            async def main():
                await asyncio.sleep(0)
                return "ran"
            task = loop.create_task(main())
            task.cancel()
            seen = [task._must_cancel]
            task.uncancel()
            seen.append(task._must_cancel)
            spin(loop, 4)
            if not task._must_cancel and PY < (3, 13):
                task._coro.close()  # never entered
            return seen, state_of(task)
    same(body)


def test_uncancel_inside_the_task():
    def body(impl):
        with impl.loop() as loop:
            seen = []

            async def main():
                task = asyncio.current_task()
                task.cancel("one")
                seen.append((task.cancelling(), task._must_cancel))
                task.uncancel()
                seen.append((task.cancelling(), task._must_cancel))
                try:
                    await asyncio.sleep(0)
                    seen.append("slept")
                except asyncio.CancelledError as exc:
                    seen.append(exc.args)
                return "end"
            task = loop.create_task(main())
            spin(loop, 5)
            return seen, state_of(task)
    same(body)


def test_cancelled_task_is_cancelled_when_it_raises_cancelled_error():
    def body(impl):
        with impl.loop() as loop:
            async def main():
                raise asyncio.CancelledError("by itself")
            task = loop.create_task(main())
            spin(loop, 2)
            return state_of(task), task.cancelled(), task.cancelling()
    assert same(body) == [["cancelled", ["by itself"]], True, 0]


def test_cancelled_error_is_used_once():
    """The error that ended the task comes out of the first result() itself."""
    def body(impl):
        with impl.loop() as loop:
            raised = []

            async def main():
                try:
                    await forever()
                except asyncio.CancelledError as exc:
                    raised.append(exc)
                    raise
            task = loop.create_task(main())
            spin(loop, 2)
            task.cancel("m")
            spin(loop, 3)
            seen = []
            for _ in range(3):
                try:
                    task.result()
                except asyncio.CancelledError as exc:
                    seen.append(exc is raised[0])
            raised.clear()
            return seen
    same(body)


def test_swallowed_cancellation_ends_normally():
    def body(impl):
        with impl.loop() as loop:
            async def main():
                try:
                    await forever()
                except asyncio.CancelledError:
                    return "swallowed"
            task = loop.create_task(main())
            spin(loop, 2)
            task.cancel()
            spin(loop, 3)
            return state_of(task), task.cancelling()
    assert same(body) == [["finished", "swallowed"], 1]


def test_other_error_replaces_cancellation():
    def body(impl):
        with impl.loop() as loop:
            async def main():
                try:
                    await forever()
                finally:
                    raise LookupError("instead")
            task = loop.create_task(main())
            spin(loop, 2)
            task.cancel()
            spin(loop, 3)
            context = type(task.exception().__context__).__name__
            return state_of(task), context
    assert same(body)[0] == ["failed", "LookupError", ["instead"]]


def test_cancel_from_its_own_done_callback(loop):
    seen = []

    async def main():
        return 1
    task = loop.create_task(main())
    task.add_done_callback(lambda t: seen.append(t.cancel()))
    spin(loop, 3)
    assert seen == [False]
    assert task.result() == 1


def test_cancel_during_every_await():
    """Cancel a program at its k-th step for every k; equal outcomes on both loops."""
    async def program(loop, seen):
        lock, queue, event = asyncio.Lock(), asyncio.Queue(1), asyncio.Event()

        async def helper():
            await queue.put(1)
            await asyncio.sleep(0)
            event.set()
            return "helped"
        try:
            async with lock:
                await asyncio.sleep(0)
                task = loop.create_task(helper())
                seen.append(await queue.get())
                await event.wait()
                seen.append(await task)
                await asyncio.wait_for(asyncio.sleep(0), 10)
                seen.append(await asyncio.gather(asyncio.sleep(0, "a"), asyncio.sleep(0, "b")))
                async with asyncio.timeout(10):
                    await asyncio.sleep(0)
                async with asyncio.TaskGroup() as group:
                    group.create_task(asyncio.sleep(0))
                await asyncio.shield(asyncio.sleep(0))
                fut = loop.create_future()
                loop.call_soon(fut.set_result, None)
                await fut
        finally:
            seen.append("finally")
            await asyncio.sleep(0)
            seen.append("end")

    def body(impl):
        traces = []
        for k in range(32):
            with impl.loop() as loop:
                seen = []
                loop.set_exception_handler(lambda loop, c: seen.append(c["message"]))
                task = loop.create_task(program(loop, seen))
                spin(loop, k)
                seen.append(("cancel", task.cancel(f"at {k}")))
                spin(loop, 12)
                rest = asyncio.all_tasks(loop)
                for other in rest:
                    other.cancel()
                spin(loop, 6)
                traces.append((seen, state_of(task), len(rest)))
                del task, rest
            gc.collect()
        return traces
    traces = same(body)
    assert traces[0][1][0] == "cancelled"
    assert traces[31][1][0] == "finished"


def test_cancel_a_gather():
    def body(impl):
        with impl.loop() as loop:
            seen = []

            async def child(n):
                try:
                    await forever()
                except asyncio.CancelledError as exc:
                    seen.append((n, exc.args))
                    raise

            async def main():
                await asyncio.gather(*[child(n) for n in range(3)])
            task = loop.create_task(main())
            spin(loop, 3)
            task.cancel("all")
            spin(loop, 6)
            return seen, state_of(task)
    same(body)


def test_cancel_the_waiter_of_a_task_cancels_it_once(loop):
    count = []

    async def child():
        try:
            await forever()
        except asyncio.CancelledError:
            count.append(1)
            raise

    async def parent(task):
        await task
    inner = loop.create_task(child())
    outer = loop.create_task(parent(inner))
    spin(loop, 3)
    outer.cancel()
    spin(loop, 5)
    assert count == [1]
    assert inner.cancelled() and outer.cancelled()


def test_waiter_whose_cancel_says_no():
    """A future that refuses: the task remembers and cancels at its next step."""
    class Refusing(asyncio.Future):
        def cancel(self, msg=None):
            return False

    def body(impl):
        with impl.loop() as loop:
            fut = Refusing(loop=loop)
            seen = []

            async def main():
                try:
                    await fut
                    seen.append("got result")
                except asyncio.CancelledError as exc:
                    seen.append(exc.args)
                    raise
            task = loop.create_task(main())
            spin(loop, 2)
            seen.append((task.cancel("m"), task._must_cancel))
            fut.set_result(1)
            spin(loop, 3)
            return seen, state_of(task)
    same(body)


def test_cancel_that_raises():
    """An error in the waiter's cancel() comes out of task.cancel()."""
    class Broken(asyncio.Future):
        broken = True

        def cancel(self, msg=None):
            if self.broken:
                raise LookupError("broken cancel")
            return super().cancel(msg)

    def body(impl):
        with impl.loop() as loop:
            fut = Broken(loop=loop)

            async def main():
                await fut
            task = loop.create_task(main())
            spin(loop, 2)
            first = outcome(task.cancel)
            fut.broken = False
            fut.set_result(None)
            spin(loop, 3)
            return first, state_of(task)
    same(body)


def test_must_cancel_meets_a_new_waiter():
    """Cancelled while running: the next future it awaits is cancelled at once."""
    def body(impl):
        with impl.loop() as loop:
            fut = loop.create_future()
            seen = []

            async def main():
                asyncio.current_task().cancel("pending")
                try:
                    await fut
                except asyncio.CancelledError as exc:
                    seen.append(exc.args)
                await asyncio.sleep(0)
                return "end"
            task = loop.create_task(main())
            spin(loop, 5)
            return seen, fut.cancelled(), state_of(task)
    same(body)


def test_shield(loop):
    async def inner():
        await asyncio.sleep(0.002)
        return "inner"

    async def main():
        task = loop.create_task(inner())
        outer = loop.create_task(asyncio.wait_for(asyncio.shield(task), 10))
        await settle(3)
        outer.cancel()
        await settle(3)
        assert outer.cancelled()
        return await task
    assert loop.run_until_complete(main()) == "inner"


def test_timeouts_and_cancellation_mix():
    def body(impl):
        async def main():
            seen = []
            task = asyncio.current_task()
            try:
                async with asyncio.timeout(0):
                    try:
                        await asyncio.sleep(10)
                    except asyncio.CancelledError:
                        seen.append(("inside", task.cancelling()))
                        raise
            except TimeoutError as exc:
                seen.append((type(exc.__cause__).__name__, task.cancelling()))
            try:
                async with asyncio.timeout(10):
                    task.cancel("outer")
                    await asyncio.sleep(10)
            except asyncio.CancelledError as exc:
                seen.append((exc.args, task.cancelling()))
                task.uncancel()
            try:
                async with asyncio.timeout(0):
                    async with asyncio.timeout(0):
                        await asyncio.sleep(10)
            except TimeoutError:
                seen.append(task.cancelling())
            async with asyncio.timeout(None) as scope:
                scope.reschedule(asyncio.get_running_loop().time() + 100)
                await asyncio.sleep(0)
            seen.append(scope.expired())
            return seen
        return impl.run(main())
    same(body)


def test_wait_for_races():
    """Result and cancellation in the same iteration."""
    def body(impl):
        results = []
        for order in ("result first", "cancel first"):
            with impl.loop() as loop:
                fut = loop.create_future()

                async def main():
                    return await asyncio.wait_for(fut, 10)
                task = loop.create_task(main())
                spin(loop, 3)
                if order == "result first":
                    fut.set_result(1)
                    task.cancel("late")
                else:
                    task.cancel("early")
                    if not fut.done():
                        fut.set_result(1)
                spin(loop, 6)
                results.append((order, state_of(task), fut.done(), fut.cancelled()))
        return results
    same(body)


def test_ten_thousand_cancellations(loop):
    async def main():
        tasks = [loop.create_task(forever()) for _ in range(10_000)]
        await asyncio.sleep(0)
        for n, task in enumerate(tasks):
            task.cancel(n)
        done, pending = await asyncio.wait(tasks)
        assert not pending
        return sum(t.cancelled() for t in done)
    assert loop.run_until_complete(main()) == 10_000


def test_cancel_in_a_finalizer(loop):
    """__del__ of something in a task's frame cancels another task."""
    async def main():
        victim = loop.create_task(forever())

        class Thing:
            def __del__(self):
                victim.cancel("by del")

        async def holder():
            thing = Thing()
            await asyncio.sleep(0)
            return thing is None
        await loop.create_task(holder())
        await settle(3)
        assert victim.cancelled()
        del Thing
    loop.run_until_complete(main())


@pytest.mark.skipif(PY < (3, 12), reason="needs eager start")
def test_cancel_of_an_eager_task(loop):
    async def main():
        task = asyncio.Task(forever(), loop=loop, eager_start=True)
        task.cancel("m")
        await settle(3)
        assert task.cancelled()
    loop.run_until_complete(main())
