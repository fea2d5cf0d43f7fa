"""Handle and TimerHandle look and behave like asyncio's."""

import asyncio
import contextvars
import functools
import gc
import sys
import weakref

import pytest

from support import PY, outcome, same, spin


def function(*args):
    """Something with a source line."""


class Owner:
    def method(self, *args):
        pass

    def __repr__(self):
        return "<owner>"


def make(loop, kind, *args):
    """A handle of the loop, of one of the three kinds."""
    if kind == "timer":
        return loop.call_at(10 ** 9, *args)
    if kind == "threadsafe":
        return loop.call_soon_threadsafe(*args)
    return loop.call_soon(*args)


KINDS = ["soon", "timer", "threadsafe"]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def test_handles_are_asyncios(loop, kind):
    handle = make(loop, kind, function)
    assert isinstance(handle, asyncio.Handle)
    assert isinstance(handle, asyncio.TimerHandle) == (kind == "timer")
    if PY >= (3, 14):
        threadsafe = asyncio.events._ThreadSafeHandle
        assert isinstance(handle, threadsafe) == (kind == "threadsafe")


def test_attributes(loop, kind):
    ctx = contextvars.copy_context()
    args = ([1], "two")
    handle = make(loop, kind, function, *args)
    assert handle._callback is function
    assert handle._args == args
    assert type(handle._args) is tuple
    assert handle._cancelled is False
    assert handle._loop is loop
    assert handle._source_traceback is None
    assert handle._repr is None
    assert isinstance(handle._context, contextvars.Context)
    assert handle._context is not ctx
    if kind == "timer":
        assert handle._when == 10 ** 9
        assert handle._scheduled is True
        assert handle.when() == 10 ** 9
    handle.cancel()
    assert handle._callback is None
    assert handle._args is None
    assert handle._cancelled is True
    assert handle.cancelled() is True


def test_get_context(loop, kind):
    handle = make(loop, kind, function)
    if PY < (3, 12):
        assert not hasattr(handle, "get_context")
    else:
        assert handle.get_context() is handle._context
    handle.cancel()


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("callback", [
    function, print, Owner().method, functools.partial(function, 1, k=2), Owner, [].append,
    functools.partial(functools.partial(Owner().method, "a"), "b"), lambda x: x,
], ids=["function", "builtin", "method", "partial", "class", "bound-builtin", "nested", "lambda"])
def test_repr(kind, callback, debug):
    def body(impl):
        with impl.loop(debug) as loop:
            handle = make(loop, kind, callback, 1, "two", [3] * 40)
            seen = [repr(handle), str(handle)]
            handle.cancel()
            seen += [repr(handle), handle._repr]
            bare = make(loop, kind, callback)
            seen.append(repr(bare))
            bare.cancel()
            seen.append(repr(bare))
            return seen
    same(body)


def test_repr_of_a_timer():
    def body(impl):
        with impl.loop() as loop:
            seen = []
            for when in (10 ** 9, 1e9, 1.5e300, float("inf"), 10 ** 30):
                handle = loop.call_at(when, print)
                seen.append(repr(handle))
                handle.cancel()
                seen.append(repr(handle))
            return seen
    assert same(body)[0] == "<TimerHandle when=1000000000 print()>"


def test_cancel_twice(loop, kind):
    handle = make(loop, kind, function)
    assert handle.cancel() is None
    assert handle.cancel() is None
    assert handle.cancelled()


def test_cancel_after_it_ran(loop):
    seen = []
    handle = loop.call_soon(seen.append, 1)
    spin(loop, 1)
    handle.cancel()
    assert handle.cancelled()
    timer = loop.call_later(0, seen.append, 2)
    spin(loop, 2)
    assert timer._scheduled is False
    timer.cancel()
    assert seen == [1, 2]


def test_cancel_takes_no_arguments(loop, kind):
    handle = make(loop, kind, function)
    for call in (handle.cancel, handle.cancelled):
        with pytest.raises(TypeError):
            call(1)
    handle.cancel()


def test_order_of_timers():
    def body(impl):
        with impl.loop() as loop:
            a = loop.call_at(10 ** 9, function)
            b = loop.call_at(10 ** 9 + 1, function)
            same_as_a = loop.call_at(10 ** 9, function)
            other_args = loop.call_at(10 ** 9, function, 1)
            other_callback = loop.call_at(10 ** 9, print)
            pairs = [(a, b), (b, a), (a, a), (a, same_as_a), (a, other_args),
                     (a, other_callback), (same_as_a, a)]
            seen = []
            for x, y in pairs:
                seen.append((x < y, x <= y, x > y, x >= y, x == y, x != y, hash(x) == hash(y)))
            a.cancel()
            seen.append((a == same_as_a, a != same_as_a, a <= same_as_a, hash(a)))
            same_as_a.cancel()
            seen.append((a == same_as_a,))
            for h in (b, other_args, other_callback):
                h.cancel()
            return seen
    same(body)


def test_hash_of_a_timer_is_its_deadlines(loop):
    for when in (10 ** 9, 1e9 + 0.5):
        handle = loop.call_at(when, function)
        assert hash(handle) == hash(when)
        handle.cancel()


def test_timers_compare_with_nothing_else():
    def body(impl):
        with impl.loop() as loop:
            timer = loop.call_at(10 ** 9, function)
            plain_handle = loop.call_soon(function)
            seen = []
            for other in (1, None, "x", 10 ** 9, plain_handle):
                seen.append((timer == other, timer != other, other == timer))
                for op in ("__lt__", "__le__", "__gt__", "__ge__", "__eq__"):
                    seen.append(getattr(timer, op)(other) is NotImplemented)
                seen.append(outcome(lambda: timer < other)[:2])
            timer.cancel()
            return seen
    same(body)


def test_timers_compare_with_stock_timers(loop):
    """asyncio.TimerHandle objects of other makers sort among the loop's own."""
    own = loop.call_at(10 ** 9, function)
    stock = asyncio.TimerHandle(10 ** 9, function, (), loop)
    later = asyncio.TimerHandle(10 ** 9 + 1, function, (), loop)
    assert own == stock and stock == own
    assert own < later and later > own and not own > later
    assert own <= stock and own >= stock
    assert sorted([later, own]) == [own, later]
    own.cancel()


def test_handles_compare_by_identity(loop):
    one, two = loop.call_soon(function), loop.call_soon(function)
    assert one == one
    assert one != two
    assert len({one, two, one}) == 2


def test_weak_references(loop, kind):
    handle = make(loop, kind, function)
    ref = weakref.ref(handle)
    assert ref() is handle
    handle.cancel()
    del handle
    spin(loop, 3)
    gc.collect()
    if kind != "timer":
        assert ref() is None


def test_no_dict_and_no_new_attributes():
    def body(impl):
        with impl.loop() as loop:
            handle = loop.call_soon(function)
            seen = [hasattr(handle, "__dict__")]
            try:
                handle.anything = 1
            except AttributeError:
                seen.append("AttributeError")
            return seen
    assert same(body) == [False, "AttributeError"]


def test_run_by_hand(loop, kind):
    """_run() is what test loops and debuggers call."""
    seen = []
    handle = make(loop, kind, seen.append, 1)
    assert handle._run() is None
    assert seen == [1]
    handle.cancel()
    spin(loop, 1)
    assert seen == [1]


def test_run_by_hand_reports_errors(loop, kind, log):
    handle = make(loop, kind, lambda: 1 / 0)
    seen = []
    loop.set_exception_handler(lambda loop, context: seen.append(context))
    handle._run()
    assert seen[0]["handle"] is handle
    assert isinstance(seen[0]["exception"], ZeroDivisionError)
    assert seen[0]["message"].startswith("Exception in callback ")
    handle.cancel()
    seen.clear()


def test_handles_in_debug_mode_know_their_source(kind):
    def body(impl):
        with impl.loop(True) as loop:
            handle = make(loop, kind, function)
            tb = handle._source_traceback
            seen = [type(tb).__name__, tb[-1].name, tb[-1].line]
            later = loop.call_later(10 ** 9, function)
            seen += [later._source_traceback[-1].name, later._source_traceback[-1].line]
            handle.cancel()
            later.cancel()
            seen.append("created at" in repr(handle))
            return seen
    seen = same(body)
    assert seen[1] == "body" and "make" not in seen[1] or seen[1] == "make"


def test_source_traceback_ends_at_the_caller(impl):
    with impl.loop(True) as loop:
        line = sys._getframe().f_lineno + 1
        handles = [loop.call_soon(function), loop.call_later(10 ** 9, function), loop.call_at(10 ** 9, function), loop.call_soon_threadsafe(function)]
        for handle in handles:
            frame = handle._source_traceback[-1]
            assert frame.lineno == line
            assert frame.filename == __file__
            handle.cancel()


def test_class_is_named_like_asyncios():
    def body(impl):
        with impl.loop() as loop:
            names = [type(make(loop, kind, function)).__name__ for kind in KINDS]
            return names
    same(body)


def test_cancelled_while_its_thread_runs_it(loop):
    """A threadsafe handle may be cancelled by the thread that made it, at any time."""
    import threading
    seen = []
    done = threading.Event()

    def work():
        for _ in range(500):
            handle = loop.call_soon_threadsafe(seen.append, 1)
            handle.cancel()
        loop.call_soon_threadsafe(loop.stop)
        done.set()
    thread = threading.Thread(target=work)
    thread.start()
    loop.run_forever()
    thread.join()
    assert done.is_set()
    assert len(seen) <= 500


def test_handle_survives_its_loop(impl):
    loop = impl.new_loop()
    handle = loop.call_soon(function, 1)
    timer = loop.call_later(100, function, 2)
    loop.close()
    del loop
    gc.collect()
    assert "function" in repr(handle) and "function" in repr(timer)
    assert timer.when() > 0
    timer.cancel()
    handle.cancel()
    assert handle.cancelled() and timer.cancelled()
    assert handle._loop.is_closed()


def test_handles_made_by_hand_for_this_loop(loop):
    """asyncio.Handle(callback, args, loop) works with any loop."""
    seen = []
    handle = asyncio.Handle(seen.append, (1,), loop)
    handle._run()
    timer = asyncio.TimerHandle(5, seen.append, (2,), loop)
    timer._run()
    assert seen == [1, 2]
    handle.cancel()
    assert handle.cancelled()


def test_stock_timer_for_this_loop_cancels(loop):
    """asyncio.TimerHandle.cancel() calls loop._timer_handle_cancelled()."""
    timer = asyncio.TimerHandle(5, print, (), loop)
    timer.cancel()
    assert timer.cancelled()
