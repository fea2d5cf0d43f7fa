"""Contexts of callbacks: fastloop shares snapshots where nobody can tell.  Each body runs on both loops."""

import asyncio
import contextvars

import pytest

from support import same

V = contextvars.ContextVar("V", default=0)


def peek(out):
    return lambda *args: out.append(V.get())


def handle_looked_at(impl, loop, out):
    handle = loop.call_soon(peek(out))
    V.set(3)
    out.append(handle._context.get(V))


def handle_run_by_hand(impl, loop, out):
    handle = loop.call_soon(peek(out))
    V.set(3)
    handle._run()


def future_looked_at(impl, loop, out):
    fut = loop.create_future()
    fut.add_done_callback(peek(out))
    V.set(4)
    repr(fut)
    fut.set_result(1)


def two_callbacks(impl, loop, out):
    fut = loop.create_future()
    fut.add_done_callback(peek(out))
    fut.add_done_callback(peek(out))
    V.set(4)
    fut.set_result(1)


def future_subclass(impl, loop, out):
    class Own(impl.Future):
        pass
    fut = Own(loop=loop)
    fut.add_done_callback(peek(out))
    V.set(4)
    fut.set_result(1)


def siblings(impl, loop, out):
    loop.call_soon(V.set, 5)
    loop.call_soon(peek(out))
    loop.call_later(0, V.set, 6)
    loop.call_later(0, peek(out))
    fut = loop.create_future()
    fut.add_done_callback(lambda fut: V.set(7))
    fut.set_result(None)
    loop.call_soon(peek(out))


def children_of_a_change(impl, loop, out):
    V.set(8)
    loop.call_soon(peek(out))
    V.set(9)
    loop.call_soon(peek(out))
    loop.create_task(child(out))


async def child(out):
    out.append(V.get())
    V.set(10)
    await asyncio.sleep(0)
    out.append(V.get())


def exception_handler(impl, loop, out):
    def handler(loop, context):
        out.append(("handler", V.get()))
        V.set(11)
    loop.set_exception_handler(handler)

    def bad():
        V.set(12)
        raise LookupError
    loop.call_soon(bad)
    loop.call_soon(peek(out))
    loop.call_soon(bad)
    loop.call_soon(peek(out))


def duck_typed_context(impl, loop, out):
    class Context:
        def run(self, function, *args):
            out.append("run")
            return function(*args)
    loop.call_soon(peek(out), context=Context())
    fut = loop.create_future()
    fut.add_done_callback(peek(out), context=Context())
    fut.set_result(1)


@pytest.mark.parametrize("body", [
    handle_looked_at, handle_run_by_hand, future_looked_at, two_callbacks, future_subclass, siblings,
    children_of_a_change, exception_handler, duck_typed_context], ids=lambda body: body.__name__)
def test_context(body):
    def run(impl):
        out = []
        with impl.loop() as loop:
            loop.call_soon(body, impl, loop, out)
            loop.call_later(0.005, loop.stop)
            loop.run_forever()
            loop.set_exception_handler(None)
        return out
    # Before 3.12 an exception handler runs in the caller's context, and changes that.
    same(lambda impl: contextvars.copy_context().run(run, impl))


def test_value_that_completes_the_future_as_it_dies():
    """The last holder of an old context is the loop; letting it go runs Python in add_done_callback."""
    def run(impl):
        out = []
        variable = contextvars.ContextVar("variable")
        with impl.loop() as loop:
            fut = loop.create_future()

            class Value:
                def __del__(self):
                    if not fut.done():
                        fut.set_result(1)
            variable.set(Value())
            loop.call_soon(int)
            loop.call_soon(loop.stop)
            loop.run_forever()
            variable.set(None)
            fut.add_done_callback(lambda fut: out.append("called"))
            loop.call_later(0.005, loop.stop)
            loop.run_forever()
            fut = None
        return out
    same(run)
