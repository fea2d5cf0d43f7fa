"""Every kind of task awaits every kind of future: equal traces on asyncio and fastloop."""

import asyncio

import pytest

from support import PY, plain, same, spin, state_of
from support.awaitables import FUTURES, TASKS

pytestmark = pytest.mark.filterwarnings("ignore:.*coroutine.*was never awaited")

SCENARIOS = {}


def scenario(function):
    SCENARIOS[function.__name__] = function
    return function


class Stage:
    """A loop, makers of both kinds, and the trace."""

    def __init__(self, impl, loop, task_kind, future_kind):
        self.impl = impl
        self.loop = loop
        self.task_kind = task_kind
        self.future_kind = future_kind
        self.trace = []
        loop.set_exception_handler(lambda loop, c: self.say("handler", c.get("message")))

    def say(self, *words):
        self.trace.append(words)

    def source(self):
        return FUTURES[self.future_kind](self.impl, self.loop)

    def task(self, coro):
        return TASKS[self.task_kind](self.impl, self.loop, coro)

    async def wait(self, name, source):
        """Await the source and say everything that happens."""
        self.say(name, "starts")
        try:
            value = await source.awaitable
        except asyncio.CancelledError as exc:
            self.say(name, "cancelled", exc.args)
            raise
        except BaseException as exc:
            self.say(name, "failed", type(exc).__name__, exc.args)
            raise
        self.say(name, "got", value)
        return value

    def spin(self, rounds=4):
        spin(self.loop, rounds)

    def end(self, *tasks):
        self.spin(6)
        for task in tasks:
            self.say(state_of(task))


@scenario
def result(stage):
    source = stage.source()
    task = stage.task(stage.wait("a", source))
    stage.spin()
    stage.say(task.done(), task._fut_waiter is source.awaitable)
    source.set_result([1, 2])
    stage.end(task)
    stage.say(task._fut_waiter)


@scenario
def exception(stage):
    source = stage.source()
    task = stage.task(stage.wait("a", source))
    stage.spin()
    source.set_exception(LookupError("x"))
    stage.end(task)


@scenario
def already_done(stage):
    source = stage.source()
    source.set_result(5)
    stage.spin()
    task = stage.task(stage.wait("a", source))
    stage.end(task)


@scenario
def already_failed(stage):
    source = stage.source()
    source.set_exception(LookupError("x"))
    stage.spin()
    task = stage.task(stage.wait("a", source))
    stage.end(task)


@scenario
def already_cancelled(stage):
    source = stage.source()
    stage.say(source.cancel())
    stage.spin()
    task = stage.task(stage.wait("a", source))
    stage.end(task)


@scenario
def future_is_cancelled(stage):
    source = stage.source()
    task = stage.task(stage.wait("a", source))
    stage.spin()
    stage.say(source.cancel("by hand"))
    stage.end(task)
    stage.say(task.cancelled())


@scenario
def task_is_cancelled(stage):
    source = stage.source()
    task = stage.task(stage.wait("a", source))
    stage.spin()
    stage.say(task.cancel("why"), task.cancelling(), task._must_cancel)
    stage.end(task)
    stage.say(source.awaitable.cancelled(), task.cancel("again"), task.cancelling())


@scenario
def task_is_cancelled_without_message(stage):
    source = stage.source()
    task = stage.task(stage.wait("a", source))
    stage.spin()
    stage.say(task.cancel())
    stage.end(task)


@scenario
def task_is_cancelled_before_it_starts(stage):
    source = stage.source()
    task = stage.task(stage.wait("a", source))
    stage.say(task.cancel("early"), task._must_cancel)
    stage.end(task)
    stage.say(source.awaitable.done())
    if not source.awaitable.done():
        source.cancel()
    stage.spin()


@scenario
def task_is_cancelled_after_the_result(stage):
    """The future is done but the task has not been woken yet."""
    source = stage.source()
    task = stage.task(stage.wait("a", source))
    stage.spin()
    source.set_result(1)
    stage.say(task.cancel("late"), task._must_cancel)
    stage.end(task)


@scenario
def task_is_cancelled_twice(stage):
    source = stage.source()
    task = stage.task(stage.wait("a", source))
    stage.spin()
    stage.say(task.cancel("one"), task.cancel("two"), task.cancelling())
    stage.end(task)


@scenario
def cancellation_is_swallowed(stage):
    source, second = stage.source(), stage.source()

    async def stubborn():
        try:
            await source.awaitable
        except asyncio.CancelledError as exc:
            stage.say("swallowed", exc.args)
        task.uncancel()
        return await stage.wait("second", second)
    task = stage.task(stubborn())
    stage.spin()
    task.cancel("one")
    stage.spin()
    stage.say(task.done(), task.cancelling())
    second.set_result("end")
    stage.end(task)
    del task


@scenario
def cancelled_again_while_handling(stage):
    source, second = stage.source(), stage.source()

    async def handler():
        try:
            await source.awaitable
        except asyncio.CancelledError as exc:
            stage.say("first", exc.args)
            try:
                await second.awaitable
            except asyncio.CancelledError as again:
                stage.say("second", again.args, type(again.__context__).__name__)
                raise
    task = stage.task(handler())
    stage.spin()
    task.cancel("one")
    stage.spin()
    task.cancel("two")
    stage.end(task)
    stage.say(task.cancelling())


@scenario
def cancels_itself(stage):
    source = stage.source()

    async def suicidal():
        stage.say(task.cancel("self"), task._must_cancel)
        await stage.wait("a", source)
    task = stage.task(suicidal())
    stage.end(task)
    if not source.awaitable.done():
        source.cancel()
        stage.spin()
    del task


@scenario
def three_wait_for_one(stage):
    source = stage.source()
    awaitable = source.awaitable
    tasks = []
    for name in "abc":
        tasks.append(stage.task(stage.wait(name, source)))
        stage.spin(1)
        awaitable.add_done_callback(lambda f, name=name: stage.say("callback", name))
    stage.spin()
    stage.loop.call_soon(stage.say, "before")
    source.set_result("r")
    stage.loop.call_soon(stage.say, "after")
    stage.end(*tasks)


@scenario
def two_wait_and_one_is_cancelled(stage):
    """Cancelling one waiter cancels the future, and so the other one."""
    source = stage.source()
    one = stage.task(stage.wait("one", source))
    two = stage.task(stage.wait("two", source))
    stage.spin()
    one.cancel("m")
    stage.end(one, two)


@scenario
def order_against_callbacks(stage):
    first, second = stage.source(), stage.source()
    one = stage.task(stage.wait("one", first))
    two = stage.task(stage.wait("two", second))
    stage.spin()
    loop = stage.loop
    loop.call_soon(stage.say, "x")
    second.set_result(2)
    loop.call_soon(stage.say, "y")
    first.set_result(1)
    loop.call_soon(stage.say, "z")
    stage.end(one, two)


@scenario
def woken_by_a_callback(stage):
    source = stage.source()
    task = stage.task(stage.wait("a", source))
    stage.spin()
    for n in range(3):
        stage.loop.call_soon(stage.say, n)
    stage.loop.call_soon(source.set_result, None)
    stage.loop.call_soon(stage.say, "behind")
    stage.loop.call_soon(lambda: stage.loop.call_soon(stage.say, "far behind"))
    stage.end(task)


@scenario
def callbacks_of_the_task(stage):
    source = stage.source()
    task = stage.task(stage.wait("a", source))
    for n in range(3):
        task.add_done_callback(lambda t, n=n: stage.say("callback", n, t is task))
    stage.spin()
    source.set_result(1)
    stage.end(task)
    stage.say(len(task._callbacks or ()))
    del task


@scenario
def wake_up_callback_has_its_task(stage):
    """asyncio formats handles by __self__ of their callback."""
    source = stage.source()
    task = stage.task(stage.wait("a", source))
    stage.spin()
    callbacks = list(source.awaitable._callbacks or ())
    own = [getattr(cb, "__self__", None) is task for cb, ctx in callbacks]
    stage.say(own.count(True), [len(pair) for pair in callbacks])
    source.set_result(1)
    stage.end(task)


@scenario
def future_of_another_loop(stage):
    with stage.impl.loop() as other:
        source = FUTURES[stage.future_kind](stage.impl, other)
        task = stage.task(stage.wait("a", source))
        stage.spin(8)
        words = plain(str(task.exception())) if task.done() else "pending"
        stage.say(words.partition(" running at")[0].partition("<")[0], "different loop" in words)
        source.cancel()
        spin(other, 4)


@scenario
def awaited_without_blocking(stage):
    """A future that is yielded by hand is an error thrown into the coroutine."""
    source = stage.source()

    class ByHand:
        def __await__(self):
            yield source.awaitable

    async def main():
        try:
            await ByHand()
        except RuntimeError as exc:
            text = plain(str(exc))
            stage.say("error", text.startswith("yield was used instead of yield from"))
            raise LookupError("end") from None
    task = stage.task(main())
    stage.end(task)
    source.cancel()
    stage.spin()


@scenario
def awaited_many_times(stage):
    async def main():
        total = 0
        for n in range(20):
            source = stage.source()
            stage.loop.call_soon(source.set_result, n)
            total += await source.awaitable
        return total
    task = stage.task(main())
    spin(stage.loop, 150)
    stage.end(task)


@scenario
def awaited_after_it_was_awaited(stage):
    source = stage.source()

    async def main():
        return [await source.awaitable for _ in range(3)]
    task = stage.task(main())
    stage.spin()
    source.set_result("v")
    stage.end(task)


@scenario
def shielded(stage):
    source = stage.source()

    async def main():
        await asyncio.shield(source.awaitable)
    if stage.future_kind == "foreign":
        return  # shield() wants an asyncio future
    task = stage.task(main())
    stage.spin()
    task.cancel("outer")
    stage.spin()
    stage.say(source.awaitable.done())
    source.set_result(1)
    stage.end(task)


@scenario
def timed_out(stage):
    source = stage.source()

    async def main():
        try:
            async with asyncio.timeout(0):
                await source.awaitable
        except TimeoutError:
            stage.say("timeout", source.awaitable.cancelled())
            return task.cancelling()
    task = stage.task(main())
    if stage.task_kind == "python" and PY >= (3, 14):
        # current_task() does not know pure-Python tasks there.
        task.cancel()
        stage.spin(6)
        source.cancel()
        stage.spin()
        return
    stage.loop.run_until_complete(asyncio.wait([task], timeout=5))
    stage.end(task)
    del task


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("task_kind", TASKS)
def test_mix(task_kind, name, log):
    def body(impl):
        traces = {}
        for future_kind in FUTURES:
            with impl.loop() as loop:
                stage = Stage(impl, loop, task_kind, future_kind)
                SCENARIOS[name](stage)
                loop.set_exception_handler(None)
                traces[future_kind] = stage.trace
        return traces
    same(body)
    log.take()
