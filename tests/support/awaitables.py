"""Kinds of futures and tasks, to be mixed with each other."""

import asyncio
import concurrent.futures
from asyncio import futures, tasks


class ForeignFuture:
    """The least that asyncio's protocol asks of a future; knows nothing of _asyncio."""

    _asyncio_future_blocking = False

    def __init__(self, loop):
        self._loop = loop
        self._state = "pending"
        self._value = None
        self._callbacks = []

    def get_loop(self):
        return self._loop

    def done(self):
        return self._state != "pending"

    def cancelled(self):
        return self._state == "cancelled"

    def result(self):
        if self._state == "cancelled":
            raise asyncio.CancelledError(*self._value)
        if self._state == "pending":
            raise asyncio.InvalidStateError("Result is not ready.")
        if self._state == "failed":
            raise self._value
        return self._value

    def exception(self):
        return self._value if self._state == "failed" else None

    def _finish(self, state, value):
        if self._state != "pending":
            raise asyncio.InvalidStateError("invalid state")
        self._state, self._value = state, value
        callbacks, self._callbacks = self._callbacks, []
        for callback, context in callbacks:
            self._loop.call_soon(callback, self, context=context)

    def set_result(self, value):
        self._finish("finished", value)

    def set_exception(self, exc):
        self._finish("failed", exc() if isinstance(exc, type) else exc)

    def cancel(self, msg=None):
        if self._state != "pending":
            return False
        self._finish("cancelled", () if msg is None else (msg,))
        return True

    def add_done_callback(self, callback, *, context=None):
        if self._state != "pending":
            self._loop.call_soon(callback, self, context=context)
        else:
            self._callbacks.append((callback, context))

    def remove_done_callback(self, callback):
        kept = [(c, ctx) for c, ctx in self._callbacks if c != callback]
        removed = len(self._callbacks) - len(kept)
        self._callbacks = kept
        return removed

    def __await__(self):
        if not self.done():
            self._asyncio_future_blocking = True
            yield self
        return self.result()

    __iter__ = __await__


class Source:
    """One awaitable of some kind, and how to end it."""

    def __init__(self, awaitable, target=None):
        self.awaitable = awaitable
        self.target = awaitable if target is None else target

    def set_result(self, value):
        self.target.set_result(value)

    def set_exception(self, exc):
        self.target.set_exception(exc)

    def cancel(self, *args):
        return self.awaitable.cancel(*args)


def _subclass(base):
    class SubFuture(base):
        __slots__ = ("extra",)
    return SubFuture


def _task_source(impl, loop, task_class):
    inner = loop.create_future()

    async def wait():
        return await inner
    return Source(task_class(wait(), loop=loop), inner)


def _wrapped_source(impl, loop):
    inner = concurrent.futures.Future()
    return Source(futures.wrap_future(inner, loop=loop), inner)


FUTURES = {
    "own": lambda impl, loop: Source(impl.Future(loop=loop)),
    "created": lambda impl, loop: Source(loop.create_future()),
    "stock": lambda impl, loop: Source(asyncio.Future(loop=loop)),
    "own-subclass": lambda impl, loop: Source(_subclass(impl.Future)(loop=loop)),
    "stock-subclass": lambda impl, loop: Source(_subclass(asyncio.Future)(loop=loop)),
    "python": lambda impl, loop: Source(futures._PyFuture(loop=loop)),
    "foreign": lambda impl, loop: Source(ForeignFuture(loop)),
    "own-task": lambda impl, loop: _task_source(impl, loop, impl.Task),
    "stock-task": lambda impl, loop: _task_source(impl, loop, asyncio.Task),
    "wrapped": _wrapped_source,
}


class StockSubTask(asyncio.Task):
    """A Python subclass of asyncio's Task."""


def _own_sub_task(impl):
    class OwnSubTask(impl.Task):
        pass
    return OwnSubTask


TASKS = {
    "own": lambda impl, loop, coro: impl.Task(coro, loop=loop),
    "created": lambda impl, loop, coro: loop.create_task(coro),
    "stock": lambda impl, loop, coro: asyncio.Task(coro, loop=loop),
    "stock-subclass": lambda impl, loop, coro: StockSubTask(coro, loop=loop),
    "own-subclass": lambda impl, loop, coro: _own_sub_task(impl)(coro, loop=loop),
    "python": lambda impl, loop, coro: tasks._PyTask(coro, loop=loop),
}
