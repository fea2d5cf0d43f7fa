"""Future: states, results, callbacks, attributes, texts."""

import asyncio
import contextvars
import copy
import gc
import pickle
import weakref

import pytest

from support import PY, FASTLOOP, outcome, same, spin, state_of


def make(impl, loop, how):
    if how == "class":
        return impl.Future(loop=loop)
    if how == "subclass":
        class Sub(impl.Future):
            pass
        return Sub(loop=loop)
    return loop.create_future()


@pytest.fixture(params=["class", "created", "subclass"])
def fut(request, impl, loop):
    return make(impl, loop, request.param)


@pytest.fixture(params=["class", "created", "subclass"])
def how(request):
    return request.param


def test_types():
    assert issubclass(FASTLOOP.Future, asyncio.Future)
    assert FASTLOOP.Future.__module__ == "fastloop"
    assert FASTLOOP.Future.__qualname__ == "Future"


def test_new_future(fut, loop):
    assert isinstance(fut, asyncio.Future)
    assert asyncio.isfuture(fut)
    assert not fut.done() and not fut.cancelled()
    assert fut.get_loop() is loop
    assert fut._loop is loop
    assert fut._state == "PENDING"
    assert fut._callbacks is None
    assert fut._exception is None
    assert fut._result is None
    assert fut._cancel_message is None
    assert fut._log_traceback is False
    assert fut._source_traceback is None
    assert fut._asyncio_future_blocking is False


def test_public_names_are_asyncios():
    """Nothing that asyncio's Future has is missing."""
    missing = {n for n in dir(asyncio.Future) if not hasattr(FASTLOOP.Future, n)}
    assert missing == set()


def test_result(fut):
    value = [1]
    assert fut.set_result(value) is None
    assert fut.done() and not fut.cancelled()
    assert fut.result() is value
    assert fut.exception() is None
    assert fut._state == "FINISHED"
    assert fut._result is value


def test_exception(fut):
    exc = LookupError("x")
    assert fut.set_exception(exc) is None
    assert fut.done() and not fut.cancelled()
    assert fut.exception() is exc
    assert fut._exception is exc
    with pytest.raises(LookupError):
        fut.result()


def test_cancel(fut):
    assert fut.cancel() is True
    assert fut.cancel() is False
    assert fut.done() and fut.cancelled()
    assert fut._state == "CANCELLED"
    with pytest.raises(asyncio.CancelledError):
        fut.result()
    with pytest.raises(asyncio.CancelledError):
        fut.exception()


def test_every_order_of_two_endings(how):
    endings = {
        "result": lambda f: f.set_result(1),
        "exception": lambda f: f.set_exception(LookupError("x")),
        "cancel": lambda f: f.cancel(),
        "message": lambda f: f.cancel("msg"),
    }

    def body(impl):
        seen = []
        with impl.loop() as loop:
            for first in endings:
                for second in endings:
                    fut = make(impl, loop, how)
                    endings[first](fut)
                    seen.append((outcome(endings[second], fut), outcome(fut.result) if not fut.cancelled() else "c",
                                 state_of(fut), fut._state, repr(fut)))
        return seen
    same(body)


def test_pending_errors(how):
    def body(impl):
        with impl.loop() as loop:
            fut = make(impl, loop, how)
            return [outcome(fut.result), outcome(fut.exception)]
    assert [s[1] for s in same(body)] == ["InvalidStateError"] * 2


class Strange(Exception):
    def __init__(self, a, b):
        super().__init__(a, b)


@pytest.mark.parametrize("thing", [
    ValueError, ValueError("x"), Strange, StopIteration, StopIteration(3), StopAsyncIteration,
    KeyboardInterrupt, SystemExit(3), GeneratorExit, BaseException, asyncio.CancelledError,
    asyncio.CancelledError("m"), int, 3, None, "text", object, Exception(),
], ids=repr)
def test_set_exception_with_anything(how, thing):
    def body(impl):
        with impl.loop() as loop:
            fut = make(impl, loop, how)
            first = outcome(fut.set_exception, thing)
            seen = [first, fut.done()]
            if fut.done():
                exc = fut.exception()
                seen += [type(exc).__name__, str(exc), type(exc.__cause__).__name__,
                         type(exc.__context__).__name__]
            return seen
    same(body)


@pytest.mark.parametrize("args", [(), (None,), ("text",), (3,), ([1],)], ids=repr)
def test_cancel_messages(how, args):
    def body(impl):
        with impl.loop() as loop:
            fut = make(impl, loop, how)
            fut.cancel(*args)
            seen = [fut._cancel_message]
            for _ in range(2):
                try:
                    fut.result()
                except asyncio.CancelledError as exc:
                    seen.append(exc.args)
            exc = fut._make_cancelled_error()
            seen.append((type(exc).__name__, exc.args))
            other = make(impl, loop, how)
            other.cancel(msg="keyword")
            seen.append(other._cancel_message)
            other._cancel_message = "changed"
            seen.append(outcome(lambda: other._make_cancelled_error().args))
            return seen
    same(body)


def test_callbacks_run_in_order_and_later(fut, loop):
    seen = []
    for n in range(5):
        assert fut.add_done_callback(lambda f, n=n: seen.append((n, f is fut))) is None
    fut.set_result(None)
    assert seen == []
    spin(loop, 1)
    assert seen == [(n, True) for n in range(5)]


def test_callback_added_to_a_done_future(fut, loop):
    seen = []
    fut.set_result(None)
    fut.add_done_callback(seen.append)
    assert seen == []
    assert fut._callbacks is None
    spin(loop, 1)
    assert seen == [fut]


def test_callback_order_with_call_soon(how):
    def body(impl):
        with impl.loop() as loop:
            seen = []
            fut = make(impl, loop, how)
            fut.add_done_callback(lambda f: seen.append("one"))
            loop.call_soon(seen.append, "before")
            fut.add_done_callback(lambda f: seen.append("two"))
            fut.cancel()
            loop.call_soon(seen.append, "after")
            fut.add_done_callback(lambda f: seen.append("late"))
            spin(loop, 2)
            return seen
    assert same(body) == ["before", "one", "two", "after", "late"]


def test_callbacks_attribute(fut):
    ctx = contextvars.copy_context()
    assert fut._callbacks is None
    fut.add_done_callback(print, context=ctx)
    first = fut._callbacks
    assert first == [(print, ctx)]
    fut.add_done_callback(id, context=ctx)
    fut.add_done_callback(print)
    assert [cb for cb, _ in fut._callbacks] == [print, id, print]
    assert all(isinstance(c, contextvars.Context) for _, c in fut._callbacks)
    assert fut._callbacks is not fut._callbacks
    assert fut.remove_done_callback(print) == 2
    assert fut._callbacks == [(id, ctx)]
    fut.remove_done_callback(id)
    assert not fut._callbacks


def test_remove_callbacks_by_equality(how):
    class Same:
        def __init__(self, key):
            self.key = key

        def __call__(self, fut):
            seen.append(self.key)

        def __eq__(self, other):
            return self.key == other.key

        __hash__ = None
    seen = []

    def body(impl):
        seen.clear()
        with impl.loop() as loop:
            fut = make(impl, loop, how)
            for key in "abcabca":
                fut.add_done_callback(Same(key))
            counts = [fut.remove_done_callback(Same(k)) for k in "axa"]
            fut.set_result(None)
            counts.append(fut.remove_done_callback(Same("b")))
            spin(loop, 1)
            return counts, list(seen)
    assert same(body) == [[3, 0, 0, 0], ["b", "c", "b", "c"]]


def test_callback_contexts(fut, loop):
    var = contextvars.ContextVar("var", default="none")
    seen = []
    ctx = contextvars.copy_context()
    ctx.run(var.set, "given")
    fut.add_done_callback(lambda f: seen.append(var.get()), context=ctx)
    other = contextvars.copy_context()
    other.run(var.set, "current")
    other.run(fut.add_done_callback, lambda f: seen.append(var.get()))
    fut.add_done_callback(lambda f: seen.append(var.get()))
    fut.set_result(None)
    spin(loop, 1)
    assert seen == ["given", "current", "none"]


def test_bad_callbacks(how, log):
    def body(impl):
        with impl.loop() as loop:
            fut = make(impl, loop, how)
            seen = [outcome(fut.add_done_callback), outcome(fut.add_done_callback, print, 3)[:2],
                    outcome(fut.add_done_callback, print, bad=3)[:2],
                    outcome(fut.remove_done_callback)[:2]]
            fut.add_done_callback(None)
            fut.set_result(1)
            spin(loop, 1)
            return [s[:2] for s in seen], len(log.take())
    same(body)


def test_callback_error_is_reported_and_the_next_runs(fut, loop, log):
    seen = []
    fut.add_done_callback(lambda f: 1 / 0)
    fut.add_done_callback(lambda f: seen.append(1))
    fut.set_result(None)
    spin(loop, 1)
    assert seen == [1]
    assert len(log.take()) == 1


def test_callback_that_adds_a_callback(fut, loop):
    seen = []

    def first(f):
        seen.append("first")
        f.add_done_callback(lambda f: seen.append("second"))
    fut.add_done_callback(first)
    fut.set_result(None)
    spin(loop, 1)
    assert seen == ["first"]
    spin(loop, 1)
    assert seen == ["first", "second"]


@pytest.mark.parametrize("debug", [False, True])
def test_repr(how, debug):
    def function(fut):
        pass

    def body(impl):
        with impl.loop(debug) as loop:
            loop.set_debug(False)
            seen = []
            fut = make(impl, loop, how)
            seen.append(repr(fut))
            for callback in (function, print, lambda f: None, function):
                fut.add_done_callback(callback)
                seen.append(repr(fut))
            fut.set_result("r" * 100)
            seen.append(repr(fut))
            fut = make(impl, loop, how)
            fut.set_exception(LookupError("x"))
            fut.exception()
            seen.append(repr(fut))
            fut = make(impl, loop, how)
            fut.cancel("m")
            seen.append(repr(fut))
            fut = make(impl, loop, how)
            fut.set_result(fut)
            seen.append(repr(fut))
            fut.__init__(loop=loop) if PY < (3, 15) else None
            return seen
    seen = same(body)
    assert seen[0].endswith("Future pending>") or "Sub pending" in seen[0]


def test_bool_hash_equality(how):
    def body(impl):
        with impl.loop() as loop:
            one, two = make(impl, loop, how), make(impl, loop, how)
            return bool(one), one == one, one == two, one != two, len({one, two, one})
    assert same(body) == [True, True, False, True, 2]


@pytest.mark.parametrize("operation", [copy.copy, copy.deepcopy, pickle.dumps],
                         ids=["copy", "deepcopy", "pickle"])
def test_copies(operation):
    def body(impl):
        with impl.loop() as loop:
            fut = loop.create_future()
            result = outcome(operation, fut)
            return result[:2] if result[0] == "raised" else "copied"
    same(body)


def test_weak_reference_and_dict(fut):
    ref = weakref.ref(fut)
    assert ref() is fut
    fut.anything = 1
    assert fut.anything == 1
    del fut.anything
    assert not hasattr(fut, "anything")


def test_released_without_the_collector(impl):
    """A done future without cycles goes by reference count alone."""
    with impl.loop() as loop:
        gc.disable()
        try:
            fut = loop.create_future()
            ref = weakref.ref(fut)
            fut.add_done_callback(lambda f: None)
            fut.set_result([1])
            spin(loop, 1)
            del fut
            assert ref() is None
        finally:
            gc.enable()


def test_future_in_a_cycle_is_collected(fut, loop):
    ref = weakref.ref(fut)
    with_cycle = make(FASTLOOP, loop, "created")
    with_cycle.set_result(with_cycle)
    other = make(FASTLOOP, loop, "created")
    other.add_done_callback(lambda f, o=other: None)
    refs = [weakref.ref(with_cycle), weakref.ref(other)]
    del with_cycle, other
    gc.collect()
    assert [r() for r in refs] == [None, None]
    assert ref() is not None


@pytest.mark.parametrize("name", [
    "_state", "_result", "_exception", "_callbacks", "_loop", "_source_traceback",
    "_cancel_message", "_log_traceback", "_asyncio_future_blocking"])
@pytest.mark.parametrize("value", [True, False, None, "text", 3], ids=repr)
def test_setting_attributes(name, value):
    def body(impl):
        with impl.loop() as loop:
            fut = loop.create_future()
            try:
                setattr(fut, name, value)
            except Exception as exc:
                return type(exc).__name__
            return getattr(fut, name)
    same(body)


@pytest.mark.parametrize("name", [
    "_state", "_result", "_exception", "_callbacks", "_loop", "_source_traceback",
    "_cancel_message", "_log_traceback", "_asyncio_future_blocking"])
def test_deleting_attributes(name):
    def body(impl):
        with impl.loop() as loop:
            fut = loop.create_future()
            try:
                delattr(fut, name)
            except Exception as exc:
                return type(exc).__name__
            return "deleted"
    same(body)


def test_blocking_flag(fut):
    assert fut._asyncio_future_blocking is False
    fut._asyncio_future_blocking = True
    assert fut._asyncio_future_blocking is True
    fut._asyncio_future_blocking = False


def test_log_traceback_only_false(fut):
    fut.set_exception(ValueError())
    assert fut._log_traceback is True
    with pytest.raises(ValueError, match="_log_traceback can only be set to False"):
        fut._log_traceback = True
    fut._log_traceback = False
    assert fut._log_traceback is False


def test_iterating_by_hand(how):
    """What `await` does, step by step."""
    def body(impl):
        with impl.loop() as loop:
            seen = []
            fut = make(impl, loop, how)
            it = iter(fut)
            seen.append(next(it) is fut)
            seen.append(fut._asyncio_future_blocking)
            seen.append(outcome(next, it))
            fut2 = make(impl, loop, how)
            it = fut2.__await__()
            seen.append(it.send(None) is fut2)
            fut2.set_result(7)
            try:
                it.send(None)
            except StopIteration as exc:
                seen.append(exc.value)
            fut3 = make(impl, loop, how)
            it = fut3.__await__()
            next(it)
            seen.append(outcome(it.throw, LookupError("thrown")))
            fut4 = make(impl, loop, how)
            it = fut4.__await__()
            next(it)
            seen.append(outcome(it.close))
            fut5 = make(impl, loop, how)
            fut5.set_exception(KeyError("k"))
            it = fut5.__await__()
            seen.append(outcome(next, it)[:2])
            seen.append(fut._asyncio_future_blocking)
            return seen
    same(body)


@pytest.mark.parametrize("value", [(1, 2), (), StopIteration(3), None, [1], ValueError("v")],
                         ids=repr)
def test_awaited_results_of_any_kind(how, value):
    """A tuple or an exception as a result must come out as it is."""
    def body(impl):
        with impl.loop() as loop:
            async def main():
                fut = make(impl, loop, how)
                loop.call_soon(fut.set_result, value)
                first = await fut
                return first is value, (await fut) is value
            return loop.run_until_complete(main())
    assert same(body) == [True, True]


def test_throw_into_the_iterator_with_old_signatures(how):
    def body(impl):
        import warnings
        with impl.loop() as loop, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            seen = []
            for args in ((LookupError,), (LookupError("x"),), (LookupError, "x"),
                         (LookupError, LookupError("y")), (LookupError, None, None),
                         (3,), (), (LookupError, "x", 3), (LookupError("x"), "y")):
                fut = make(impl, loop, how)
                it = fut.__await__()
                next(it)
                seen.append(outcome(it.throw, *args)[:2])
            return seen
    same(body)


def test_result_exception_keeps_its_traceback(how):
    """Each await of a failed future raises with the traceback of the setting, not longer."""
    def body(impl):
        with impl.loop() as loop:
            async def main():
                fut = make(impl, loop, how)
                try:
                    raise LookupError("x")
                except LookupError as exc:
                    fut.set_exception(exc)
                lengths = []
                for _ in range(4):
                    try:
                        await fut
                    except LookupError as exc:
                        count, tb = 0, exc.__traceback__
                        while tb:
                            count, tb = count + 1, tb.tb_next
                        lengths.append(count)
                fut = None
                return lengths
            return loop.run_until_complete(main())
    same(body)


def test_never_retrieved_is_logged(how, log):
    def body(impl):
        with impl.loop() as loop:
            fut = make(impl, loop, how)
            fut.set_exception(LookupError("lost"))
            del fut
            gc.collect()
        return [text.splitlines()[:2] for _, text in log.take()]
    ((first, second),) = same(body)
    assert first.endswith("exception was never retrieved")


@pytest.mark.parametrize("retrieve", ["result", "exception", "await", "flag"])
def test_retrieved_is_not_logged(impl, loop, retrieve):
    fut = loop.create_future()
    fut.set_exception(LookupError("kept"))
    if retrieve == "result":
        with pytest.raises(LookupError):
            fut.result()
    elif retrieve == "exception":
        fut.exception()
    elif retrieve == "await":
        async def main():
            with pytest.raises(LookupError):
                await fut
        loop.run_until_complete(main())
    else:
        fut._log_traceback = False
    del fut
    gc.collect()


def test_never_retrieved_context():
    def body(impl):
        with impl.loop() as loop:
            seen = []
            loop.set_exception_handler(lambda loop, c: seen.append(
                (sorted(c), c["message"], type(c["future"]).__name__, str(c["exception"]))))
            fut = loop.create_future()
            fut.set_exception(LookupError("lost"))
            del fut
            gc.collect()
            return seen
    same(body)


def test_handler_that_resurrects_a_future(loop):
    """The handler keeps the dying future; it must stay usable."""
    kept = []
    loop.set_exception_handler(lambda loop, c: kept.append(c["future"]))
    fut = loop.create_future()
    fut.set_exception(LookupError("lost"))
    del fut
    gc.collect()
    (fut,) = kept
    kept.clear()
    assert type(fut.exception()) is LookupError
    seen = []
    fut.add_done_callback(seen.append)
    spin(loop, 1)
    assert seen == [fut]
    assert fut._log_traceback is False


def test_loop_argument():
    def body(impl):
        seen = [outcome(impl.Future, loop=3)[:1], outcome(impl.Future, 3)[:2],
                outcome(impl.Future, bad=3)[:2]]
        return seen[1:]
    same(body)


def test_without_a_running_loop():
    """Future() outside a loop: the behaviour of the running version."""
    import warnings

    def body(impl):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            asyncio.set_event_loop(None)
            result = outcome(impl.Future)
            kind = result[:2] if result[0] == "raised" else "made"
            del result
        return kind, [w.category.__name__ for w in seen]
    same(body)


def test_without_a_loop_inside_a_running_one(impl):
    async def main():
        fut = impl.Future()
        assert fut.get_loop() is asyncio.get_running_loop()
    impl.run(main())


def test_works_on_asyncios_loop():
    """fastloop's Future on a loop that is not fastloop's."""
    loop = asyncio.SelectorEventLoop()
    try:
        seen = []
        fut = FASTLOOP.Future(loop=loop)
        fut.add_done_callback(seen.append)

        async def main():
            loop.call_soon(fut.set_result, 5)
            return await fut
        assert loop.run_until_complete(main()) == 5
        assert seen == [fut]
    finally:
        loop.close()


def test_init_again():
    """Python 3.15 refuses it; before, the future starts anew."""
    def body(impl):
        with impl.loop() as loop:
            fut = loop.create_future()
            fut.add_done_callback(print)
            fut.set_result(1)
            first = outcome(fut.__init__, loop=loop)
            spin(loop, 0)
            seen = [first, fut.done(), fut._callbacks]
            loop.set_exception_handler(lambda *a: None)
            return seen
    same(body)


def test_slots_dict_and_del_in_subclasses(impl, loop):
    seen = []

    class Slotted(impl.Future):
        __slots__ = ("a", "b")

    class WithDel(impl.Future):
        def __del__(self):
            seen.append(self.done())
            super().__del__()
    fut = Slotted(loop=loop)
    fut.a, fut.b = 1, 2
    assert (fut.a, fut.b) == (1, 2)
    fut.set_result(None)
    one = WithDel(loop=loop)
    one.set_result(1)
    del one
    assert seen == [True]


def test_overridden_methods_are_called(impl, loop):
    """A task that awaits a subclass uses its overridden add_done_callback and result."""
    calls = []

    class Own(impl.Future):
        def add_done_callback(self, callback, *, context=None):
            calls.append("add")
            super().add_done_callback(callback, context=context)

        def result(self):
            calls.append("result")
            return super().result()

        def cancel(self, msg=None):
            calls.append("cancel")
            return super().cancel(msg)

    async def main(fut):
        return await fut
    fut = Own(loop=loop)
    loop.call_later(0.001, fut.set_result, 1)
    assert loop.run_until_complete(main(fut)) == 1
    assert calls == ["add", "result"]
    calls.clear()
    fut = Own(loop=loop)
    task = loop.create_task(main(fut))
    spin(loop, 2)
    task.cancel()
    spin(loop, 3)
    assert "cancel" in calls
    assert fut.cancelled() and task.cancelled()


def test_schedule_through_an_overridden_loop_method(impl):
    """call_soon of a mock loop is what a future uses."""
    calls = []

    class Mock(asyncio.AbstractEventLoop):
        def get_debug(self):
            return False

        def call_soon(self, callback, *args, context=None):
            calls.append((callback, args, type(context).__name__))
    fut = impl.Future(loop=Mock())
    fut.add_done_callback(print)
    fut.add_done_callback(id)
    fut.set_result(None)
    assert calls == [(print, (fut,), "Context"), (id, (fut,), "Context")]


def test_generic_alias():
    def body(impl):
        return repr(impl.Future[int]).rpartition(".")[2], isinstance(impl.Future[int](loop=None), asyncio.Future) if False else 0
    same(body)


def test_chain_and_wrap(loop):
    import concurrent.futures
    source = concurrent.futures.Future()
    wrapped = asyncio.wrap_future(source, loop=loop)
    source.set_result(3)
    assert loop.run_until_complete(wrapped) == 3
    back = concurrent.futures.Future()
    fut = loop.create_future()
    asyncio.futures._chain_future(fut, back)
    fut.set_result(4)
    spin(loop, 2)
    assert back.result(0) == 4


def test_a_thousand_callbacks(fut, loop):
    seen = []
    for n in range(1000):
        fut.add_done_callback(lambda f, n=n: seen.append(n))
    assert len(fut._callbacks) == 1000
    fut.cancel()
    spin(loop, 1)
    assert seen == list(range(1000))


def test_callbacks_are_released(loop):
    class Thing:
        def __call__(self, fut):
            pass
    things = [Thing() for _ in range(3)]
    refs = [weakref.ref(t) for t in things]
    fut = loop.create_future()
    for t in things:
        fut.add_done_callback(t)
    del t, things[:]
    fut.set_result(None)
    spin(loop, 1)
    assert [r() for r in refs] == [None] * 3
