"""The exception handler: default, custom, broken."""

import asyncio
import contextvars
import gc

import pytest

from support import outcome, same, spin


def test_default_is_none(loop):
    assert loop.get_exception_handler() is None


@pytest.mark.parametrize("thing", [3, "x", object()], ids=["int", "str", "object"])
def test_not_callable_is_refused(thing):
    def body(impl):
        with impl.loop() as loop:
            return outcome(loop.set_exception_handler, thing)
    assert same(body)[1] == "TypeError"


def test_custom_handler_gets_loop_and_context(loop):
    seen = []
    loop.set_exception_handler(lambda *args: seen.append(args))
    assert loop.get_exception_handler() is not None

    def broken():
        raise ValueError("v")
    handle = loop.call_soon(broken)
    spin(loop, 1)
    ((got_loop, context),) = seen
    assert got_loop is loop
    assert set(context) == {"message", "exception", "handle"}
    assert context["handle"] is handle
    assert str(context["exception"]) == "v"
    assert context["message"].startswith("Exception in callback ")
    seen.clear()
    loop.set_exception_handler(None)
    assert loop.get_exception_handler() is None


@pytest.mark.parametrize("debug", [False, True])
def test_default_report_of_a_callback(log, debug):
    def broken(a, b):
        raise ValueError("v")

    def body(impl):
        with impl.loop(debug) as loop:
            loop.call_soon(broken, 1, b"two")
            spin(loop, 1)
        return [text.partition("Traceback")[0].splitlines()[:2] for _, text in log.take()]
    (lines,) = same(body)
    assert lines[0].startswith("Exception in callback ")
    assert lines[1].startswith("handle: <Handle ")


CONTEXTS = [
    {},
    {"message": "hello"},
    {"message": ""},
    {"message": None},
    {"exception": ValueError("x")},
    {"message": "m", "exception": None},
    {"message": "m", "exception": KeyError("k"), "zebra": 1, "alpha": [2]},
    {"message": "m", "future": None, "task": None, "handle": None},
    {"message": "m", "source_traceback": []},
]


@pytest.mark.parametrize("context", CONTEXTS, ids=lambda c: ",".join(c) or "empty")
def test_default_report_of_any_context(log, context):
    def body(impl):
        with impl.loop() as loop:
            loop.call_exception_handler(dict(context))
            loop.default_exception_handler(dict(context))
        return log.take()
    assert len(same(body)) == 2


@pytest.mark.parametrize("thing", [None, 3, "text", []], ids=repr)
def test_context_that_is_no_dict(log, thing):
    def body(impl):
        with impl.loop() as loop:
            first = outcome(loop.call_exception_handler, thing)
            return first, log.messages()
    same(body)


def test_error_in_the_handler_is_reported(log):
    def body(impl):
        def handler(loop, context):
            raise LookupError("in handler")
        with impl.loop() as loop:
            loop.set_exception_handler(handler)
            loop.call_soon(lambda: 1 / 0)
            spin(loop, 1)
        return log.messages()
    assert same(body) == ["Unhandled error in exception handler"]


def test_error_in_an_overridden_default_handler(log):
    def body(impl):
        class Own(impl.Loop):
            def default_exception_handler(self, context):
                raise LookupError("in default")
        loop = Own()
        loop.call_soon(lambda: 1 / 0)
        spin(loop, 1)
        first = log.messages()

        def handler(loop, context):
            raise LookupError("in handler")
        loop.set_exception_handler(handler)
        loop.call_soon(lambda: 1 / 0)
        spin(loop, 1)
        loop.close()
        return first, log.messages()
    first, second = same(body)
    assert first == ["Exception in default exception handler"]
    assert second[0].startswith("Exception in default exception handler while handling")


def test_overridden_call_exception_handler_is_called(impl):
    seen = []

    class Own(impl.Loop):
        def call_exception_handler(self, context):
            seen.append(context["message"])
    loop = Own()
    loop.call_soon(lambda: 1 / 0)
    spin(loop, 1)
    loop.close()
    assert len(seen) == 1


def test_call_exception_handler_set_on_the_instance(loop):
    seen = []
    loop.call_exception_handler = lambda context: seen.append(context["message"])
    loop.call_soon(lambda: 1 / 0)
    fut = loop.create_future()
    fut.set_exception(ValueError())
    del fut
    spin(loop, 1)
    gc.collect()
    assert sorted(m.split(" in ")[0] for m in seen) == [
        "Exception", "Future exception was never retrieved"]
    del loop.call_exception_handler


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["handler", "default"])
def test_exit_from_a_handler_comes_out(impl, error, where):
    def handler(*args):
        raise error("out")
    if where == "handler":
        loop = impl.new_loop()
        loop.set_exception_handler(handler)
    else:
        class Own(impl.Loop):
            default_exception_handler = handler
        loop = Own()
    loop.call_soon(lambda: 1 / 0)
    loop.call_soon(loop.stop)
    with pytest.raises(error, match="out"):
        loop.run_forever()
    assert not loop.is_running()
    loop.close()


class Odd(BaseException):
    pass


def test_base_exception_in_a_handler_is_reported(log):
    def body(impl):
        def handler(loop, context):
            raise Odd("odd")
        with impl.loop() as loop:
            loop.set_exception_handler(handler)
            loop.call_soon(lambda: 1 / 0)
            spin(loop, 1)
        return log.messages()
    assert same(body) == ["Unhandled error in exception handler"]


@pytest.mark.parametrize("error", [Odd, GeneratorExit, asyncio.CancelledError, StopIteration,
                                   StopAsyncIteration, MemoryError, RecursionError])
def test_any_exception_of_a_callback_is_reported(error):
    def body(impl):
        def broken():
            raise error("x")
        with impl.loop() as loop:
            seen = []
            loop.set_exception_handler(lambda loop, c: seen.append(type(c["exception"])))
            loop.call_soon(broken)
            spin(loop, 1)
            return seen
    assert same(body) == [error.__name__]


def test_handler_runs_in_the_handles_context():
    """From Python 3.12 on asyncio calls the handler in the context of what failed."""
    var = contextvars.ContextVar("var", default="none")

    def body(impl):
        with impl.loop() as loop:
            seen = []
            loop.set_exception_handler(lambda loop, c: seen.append(var.get()))
            ctx = contextvars.copy_context()
            ctx.run(var.set, "callback")
            loop.call_soon(lambda: 1 / 0, context=ctx)
            spin(loop, 1)

            async def fail():
                var.set("task")
                raise ValueError
            task = loop.create_task(fail())
            spin(loop, 2)
            del task
            gc.collect()
            return seen
    same(body)


def test_handler_that_replaces_itself(loop):
    seen = []

    def first(loop, context):
        seen.append("first")
        loop.set_exception_handler(second)
        gc.collect()

    def second(loop, context):
        seen.append("second")
        loop.set_exception_handler(None)
    loop.set_exception_handler(first)
    del first
    loop.call_soon(lambda: 1 / 0)
    loop.call_soon(lambda: 1 / 0)
    spin(loop, 1)
    assert seen == ["first", "second"]


def test_handler_that_schedules(loop):
    seen = []
    loop.set_exception_handler(lambda loop, c: loop.call_soon(seen.append, "later"))
    loop.call_soon(lambda: 1 / 0)
    loop.call_soon(seen.append, "next")
    spin(loop, 2)
    assert seen == ["next", "later"]


def test_handler_may_stop_the_loop(loop):
    loop.set_exception_handler(lambda loop, c: loop.stop())
    loop.call_soon(lambda: 1 / 0)
    loop.run_forever()


def test_exception_with_evil_str(loop, log):
    class Evil(Exception):
        def __str__(self):
            raise RuntimeError("no text")

        def __repr__(self):
            raise RuntimeError("no repr")

    def broken():
        raise Evil
    loop.call_soon(broken)
    loop.call_soon(lambda: None)
    spin(loop, 2)
    log.take()


def test_callback_with_evil_repr(log):
    class Evil:
        def __call__(self):
            raise ValueError("called")

        def __repr__(self):
            raise LookupError("no repr")

    def body(impl):
        with impl.loop() as loop:
            loop.call_soon(Evil())
            loop.call_soon(loop.stop)
            result = outcome(loop.run_forever)
            log.take()
            return result
    same(body)


def test_timer_and_reader_errors_are_reported(loop):
    import os
    seen = []
    loop.set_exception_handler(lambda loop, c: seen.append(
        (type(c["exception"]).__name__, isinstance(c["handle"], asyncio.Handle))))
    loop.call_later(0, lambda: 1 / 0)
    r, w = os.pipe()
    os.write(w, b"x")

    def broken():
        loop.remove_reader(r)
        raise LookupError
    loop.add_reader(r, broken)
    spin(loop, 5)
    os.close(r)
    os.close(w)
    assert sorted(seen) == [("LookupError", True), ("ZeroDivisionError", True)]
