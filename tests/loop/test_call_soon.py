"""call_soon: order, arguments, contexts, errors."""

import asyncio
import contextvars
import functools
import gc
import threading
import weakref

import pytest

from support import outcome, same, spin


def test_call_soon_keeps_order(loop):
    seen = []
    for n in range(1000):
        loop.call_soon(seen.append, n)
    spin(loop, 1)
    assert seen == list(range(1000))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 6, 7, 8, 20, 300])
def test_call_soon_passes_all_arguments(loop, count):
    seen = []
    args = [object() for _ in range(count)]
    handle = loop.call_soon(lambda *a: seen.append(a), *args)
    assert handle._args == tuple(args)
    spin(loop, 1)
    assert seen == [tuple(args)]


def test_call_soon_from_a_callback_waits_for_the_next_iteration(loop):
    seen = []

    def first():
        seen.append("first")
        loop.call_soon(seen.append, "third")
    loop.call_soon(first)
    loop.call_soon(seen.append, "second")
    spin(loop, 1)
    assert seen == ["first", "second"]
    spin(loop, 1)
    assert seen == ["first", "second", "third"]


def test_call_soon_takes_any_callable(loop):
    seen = []

    class Callable:
        def __call__(self, x):
            seen.append(x)

        def method(self, x):
            seen.append(x)

        @classmethod
        def klass(cls, x):
            seen.append(x)

        @staticmethod
        def static(x):
            seen.append(x)
    for f in (Callable(), Callable().method, Callable.klass, Callable.static,
              functools.partial(seen.append), seen.append):
        loop.call_soon(f, 1)
    loop.call_soon(type, 5)
    spin(loop, 1)
    assert seen == [1] * 6


def test_call_soon_copies_the_current_context(loop):
    var = contextvars.ContextVar("var", default=0)
    seen = []
    ctx = contextvars.copy_context()
    ctx.run(var.set, 7)
    ctx.run(loop.call_soon, lambda: seen.append(var.get()))
    ctx.run(var.set, 8)
    loop.call_soon(lambda: seen.append(var.get()))
    loop.call_soon(var.set, 9)
    loop.call_soon(lambda: seen.append(var.get()))
    spin(loop, 1)
    assert seen == [7, 0, 0]
    assert var.get() == 0


def test_call_soon_runs_in_the_given_context(loop):
    var = contextvars.ContextVar("var", default=0)
    ctx = contextvars.copy_context()
    seen = []
    handle = loop.call_soon(var.set, 3, context=ctx)
    assert handle._context is ctx
    loop.call_soon(lambda: seen.append(var.get()), context=ctx)
    spin(loop, 1)
    assert seen == [3]
    assert ctx[var] == 3


def test_callback_does_not_change_the_runners_context(loop):
    var = contextvars.ContextVar("var", default="outer")
    loop.call_soon(var.set, "inner")
    spin(loop, 1)
    assert var.get() == "outer"


def test_call_soon_in_a_context_that_is_entered(log):
    """Running in a context that is already entered is an error of the callback."""
    def body(impl):
        with impl.loop() as loop:
            ctx = contextvars.copy_context()
            seen = []
            loop.set_exception_handler(
                lambda loop, c: seen.append((c["message"][:21], type(c["exception"]).__name__)))

            def inside():
                loop.call_soon(seen.append, "ran", context=ctx)
                loop.call_soon(loop.stop, context=contextvars.Context())
                loop.run_forever()
            ctx.run(inside)
            return seen, log.messages()
    seen = same(body)
    assert "ran" not in seen[0]
    assert len(seen[0]) + len(seen[1]) > 0


@pytest.mark.parametrize("value", [None, 3, "x", object()], ids=["None", "int", "str", "object"])
def test_call_soon_not_callable_outside_debug_mode(value):
    """Without debug mode the error comes when the callback runs."""
    def body(impl):
        with impl.loop() as loop:
            seen = []
            loop.set_exception_handler(lambda loop, c: seen.append(plain_context(c)))
            first = outcome(lambda: type(loop.call_soon(value)).__name__)
            spin(loop, 1)
            return first, seen
    same(body)


def plain_context(context):
    return {k: v if k != "exception" else (type(v).__name__, str(v)) for k, v in context.items()}


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def test_missing_or_unknown_arguments(method):
    def body(impl):
        with impl.loop() as loop:
            call = getattr(loop, method)
            return [outcome(call)[:2], outcome(call, print, bad=1)[:2], outcome(call, bad=1)[:2]]
    assert same(body) == [["raised", "TypeError"]] * 3


def test_callback_as_keyword():
    """asyncio's methods are Python functions, so that `callback=` is accepted."""
    def body(impl):
        with impl.loop() as loop:
            seen = []
            loop.call_soon(callback=lambda: seen.append(1))
            loop.call_soon_threadsafe(callback=lambda: seen.append(2))
            loop.call_later(delay=0, callback=lambda: seen.append(3))
            loop.call_at(when=0, callback=lambda: seen.append(4))
            spin(loop, 3)
            return sorted(seen)
    assert same(body) == [1, 2, 3, 4]


def test_an_exception_does_not_stop_the_others(loop, log):
    seen = []
    loop.call_soon(seen.append, 1)
    loop.call_soon(lambda: 1 / 0)
    loop.call_soon(seen.append, 2)
    spin(loop, 1)
    assert seen == [1, 2]
    (message,) = log.messages()
    assert message.startswith("Exception in callback ")


def test_arguments_are_released_after_the_call(loop):
    class Thing:
        pass
    thing = Thing()
    ref = weakref.ref(thing)
    loop.call_soon(id, thing)
    del thing
    assert ref() is not None
    spin(loop, 1)
    assert ref() is None


def test_a_kept_handle_keeps_callback_and_arguments(loop):
    """asyncio's Handle keeps both after it ran."""
    thing = object()
    handle = loop.call_soon(id, thing)
    spin(loop, 1)
    assert handle._callback is id
    assert handle._args == (thing,)
    assert not handle.cancelled()


def test_cancelled_before_it_runs(loop):
    seen = []
    handles = [loop.call_soon(seen.append, n) for n in range(6)]
    for h in handles[::2]:
        h.cancel()
    spin(loop, 1)
    assert seen == [1, 3, 5]


def test_cancelled_by_an_earlier_callback(loop):
    seen = []
    loop.call_soon(lambda: late.cancel())
    late = loop.call_soon(seen.append, 1)
    spin(loop, 2)
    assert seen == []


def test_callback_that_cancels_itself(loop):
    """cancel() drops callback and arguments while they are being called."""
    class Thing:
        pass
    seen = []

    def run(thing):
        handle.cancel()
        gc.collect()
        seen.append(type(thing).__name__)
    handle = loop.call_soon(run, Thing())
    del run
    spin(loop, 1)
    assert seen == ["Thing"]


def test_cancelled_handle_frees_at_once(loop):
    class Thing:
        pass
    thing = Thing()
    ref = weakref.ref(thing)
    handle = loop.call_soon(id, thing)
    del thing
    handle.cancel()
    assert ref() is None
    spin(loop, 1)


def test_del_of_an_argument_that_schedules(loop):
    """Releasing an argument runs Python that uses the loop."""
    seen = []

    class Thing:
        def __del__(self):
            loop.call_soon(seen.append, "del")
    loop.call_soon(id, Thing())
    loop.call_soon(seen.append, "next")
    spin(loop, 2)
    assert seen == ["next", "del"]


def test_a_long_chain(loop):
    left = [10_000]

    def step():
        left[0] -= 1
        if left[0]:
            loop.call_soon(step)
        else:
            loop.stop()
    loop.call_soon(step)
    loop.run_forever()
    assert left == [0]


def test_the_queue_grows_and_shrinks(loop):
    """Many sizes, so that a ring wraps at every place."""
    seen = []
    total = 0
    for size in [1, 7, 63, 64, 65, 127, 128, 129, 1000, 3, 4096, 5, 257]:
        def add(size=size):
            for n in range(size):
                loop.call_soon(seen.append, n)
        loop.call_soon(add)
        loop.call_soon(seen.append, "mark")
        spin(loop, 2)
        total += size + 1
        assert len(seen) == total
        assert seen[-size:] == list(range(size))


def test_spin_interleaves_two_chains(loop):
    seen = []

    def chain(name, left):
        seen.append((name, left))
        if left:
            loop.call_soon(chain, name, left - 1)
    loop.call_soon(chain, "a", 50)
    loop.call_soon(chain, "b", 50)
    spin(loop, 60)
    assert seen == [(name, n) for n in range(50, -1, -1) for name in "ab"]


def test_callback_after_thread_wrote(loop):
    """call_soon from the loop's thread before a threadsafe one keeps its place."""
    seen = []
    loop.call_soon(seen.append, 1)
    loop.call_soon_threadsafe(seen.append, 2)
    loop.call_soon(seen.append, 3)
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=(seen.append, 4))
    thread.start()
    thread.join()
    spin(loop, 1)
    assert seen == [1, 2, 3, 4]


def test_stop_iteration_from_a_callback(loop, log):
    def stop():
        raise StopIteration(3)
    loop.call_soon(stop)
    spin(loop, 1)
    (entry,) = log.take()
    assert "StopIteration" in entry[1]


def test_sleep_zero_is_one_iteration(loop):
    """A bare yield gives every other ready callback one turn."""
    seen = []

    async def task(name):
        for n in range(3):
            seen.append((name, n))
            await asyncio.sleep(0)

    async def main():
        await asyncio.gather(task("a"), task("b"))
    loop.run_until_complete(main())
    assert seen == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]
