"""What a program replaces, on the instance or in a subclass, is what is used."""

import asyncio
import gc

import pytest

from support import spin


def test_call_soon_on_the_instance(loop):
    """A wrapper sees what futures, tasks and sleep schedule from Python."""
    seen = []
    original = loop.call_soon

    def wrapper(callback, *args, **kwargs):
        seen.append(callback)
        return original(callback, *args, **kwargs)
    loop.call_soon = wrapper
    try:
        fut = loop.create_future()
        marker = []
        fut.add_done_callback(marker.append)
        fut.set_result(1)
        assert marker.append in seen
        count = len(seen)

        async def coro():
            pass
        task = loop.create_task(coro())
        assert len(seen) == count + 1
        loop.run_until_complete(task)
        assert marker == [fut]
    finally:
        del loop.call_soon
    seen.clear()
    marker.clear()


def test_call_soon_in_a_subclass(impl):
    seen = []

    class Own(impl.Loop):
        def call_soon(self, callback, *args, context=None):
            seen.append("call_soon")
            return super().call_soon(callback, *args, context=context)
    loop = Own()

    async def main():
        await asyncio.sleep(0)
    fut = loop.create_future()
    fut.add_done_callback(lambda f: None)
    fut.set_result(None)
    assert len(seen) == 1
    loop.run_until_complete(main())
    loop.close()
    # the step, the bare yield, and what completion schedules
    assert len(seen) >= 4


def test_call_soon_that_drops_a_callback(impl):
    """A loop that schedules nothing leaves the future's callbacks unrun, and no crash."""
    class Own(impl.Loop):
        dropping = False

        def call_soon(self, callback, *args, context=None):
            if self.dropping:
                return None
            return super().call_soon(callback, *args, context=context)
    loop = Own()
    seen = []
    fut = loop.create_future()
    fut.add_done_callback(seen.append)
    loop.dropping = True
    fut.set_result(1)
    loop.dropping = False
    spin(loop, 2)
    loop.close()
    assert seen == []


def test_call_soon_that_raises(impl):
    class Own(impl.Loop):
        failing = False

        def call_soon(self, callback, *args, context=None):
            if self.failing:
                raise LookupError("no")
            return super().call_soon(callback, *args, context=context)
    loop = Own()
    fut = loop.create_future()
    fut.add_done_callback(print)
    loop.failing = True
    with pytest.raises(LookupError):
        fut.set_result(1)
    loop.failing = False
    loop.close()


def test_create_task_in_a_subclass(impl):
    seen = []

    class Own(impl.Loop):
        def create_task(self, coro, **kwargs):
            seen.append(coro.__name__)
            return super().create_task(coro, **kwargs)
    loop = Own()

    async def child():
        return 1

    async def main():
        task = asyncio.create_task(child())
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
        return await task + sum(await asyncio.gather(child(), child()))
    assert loop.run_until_complete(main()) == 3
    loop.close()
    assert seen == ["main", "child", "child", "child", "child"]


def test_create_future_in_a_subclass(impl):
    seen = []

    class OwnFuture(impl.Future):
        pass

    class Own(impl.Loop):
        def create_future(self):
            seen.append(1)
            return OwnFuture(loop=self)
    loop = Own()

    async def main():
        await asyncio.sleep(0.001)
        event = asyncio.Event()
        loop.call_soon(event.set)
        await event.wait()
    loop.run_until_complete(main())
    loop.close()
    assert len(seen) == 2


def test_create_future_on_the_instance(loop):
    seen = []
    original = loop.create_future

    def create():
        seen.append(1)
        return original()
    loop.create_future = create
    loop.run_until_complete(asyncio.sleep(0.001))
    del loop.create_future
    assert seen == [1]


def test_call_later_and_call_at_in_a_subclass(impl):
    seen = []

    class Own(impl.Loop):
        def call_later(self, delay, callback, *args, context=None):
            seen.append("later")
            return super().call_later(delay, callback, *args, context=context)

        def call_at(self, when, callback, *args, context=None):
            seen.append("at")
            return super().call_at(when, callback, *args, context=context)
    loop = Own()

    async def main():
        await asyncio.sleep(0.001)
        async with asyncio.timeout(5):
            await asyncio.sleep(0)
    loop.run_until_complete(main())
    loop.close()
    assert seen.count("later") == 1
    assert seen.count("at") >= 1


def test_call_exception_handler_in_a_subclass(impl):
    seen = []

    class Own(impl.Loop):
        def call_exception_handler(self, context):
            seen.append(context["message"].partition(" in callback")[0])
    loop = Own()
    loop.call_soon(lambda: 1 / 0)
    fut = loop.create_future()
    fut.set_exception(ValueError())
    del fut
    task = loop.create_task(asyncio.sleep(0))
    task._coro.close()
    spin(loop, 1)
    loop.close()
    del task
    gc.collect()
    assert sorted(seen)[:2] == ["Exception", "Future exception was never retrieved"]


def test_get_debug_in_a_subclass(impl):
    """get_debug() is what Handle and Future ask."""
    class Own(impl.Loop):
        def get_debug(self):
            return True
    loop = Own()
    fut = loop.create_future()
    assert fut._source_traceback
    loop.close()


def test_is_running_in_a_subclass(impl):
    """Eager start asks loop.is_running()."""
    if not hasattr(asyncio, "eager_task_factory"):
        pytest.skip("eager start came with Python 3.12")

    class Own(impl.Loop):
        def is_running(self):
            return False
    loop = Own()
    seen = []

    async def child():
        seen.append(1)
    task = impl.Task(child(), loop=loop, eager_start=True)
    assert seen == []
    spin(loop, 2)
    assert seen == [1] and task.done()
    loop.close()


def test_time_on_the_instance_is_used_by_asyncio_timeout(loop):
    now = [5.0]
    loop.time = lambda: now[0]

    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                now[0] = 20.0
                await loop.create_future()
    loop.run_until_complete(main())
    del loop.time


def test_stop_in_a_subclass(impl):
    """asyncio's completion callback calls stop() of the future's loop."""
    seen = []

    class Own(impl.Loop):
        def stop(self):
            seen.append(1)
            super().stop()
    loop = Own()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert seen == [1]


def test_run_forever_in_a_subclass(impl):
    seen = []

    class Own(impl.Loop):
        def run_forever(self):
            seen.append("begin")
            try:
                super().run_forever()
            finally:
                seen.append("end")
    loop = Own()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert seen == ["begin", "end"]


def test_close_in_a_subclass(impl):
    seen = []

    class Own(impl.Loop):
        def close(self):
            seen.append(1)
            super().close()
    with asyncio.Runner(loop_factory=Own) as runner:
        runner.run(asyncio.sleep(0))
    assert seen == [1]


def test_subclass_with_init_and_slots(impl):
    class Own(impl.Loop):
        def __init__(self, extra):
            super().__init__()
            self.extra = extra
    loop = Own([1])
    assert loop.extra == [1]
    assert loop.run_until_complete(asyncio.sleep(0, 3)) == 3
    loop.close()


def test_patched_class_attribute(impl):
    """A class that is patched while its loop exists, as mock.patch.object does."""
    class Own(impl.Loop):
        pass
    loop = Own()
    seen = []

    def call_soon(self, callback, *args, context=None):
        seen.append(callback)
        return impl.Loop.call_soon(self, callback, *args, context=context)

    def finish():
        fut = loop.create_future()
        fut.add_done_callback(id)
        fut.set_result(None)
    try:
        finish()
        Own.call_soon = call_soon
        finish()
        assert seen == [id]
        del Own.call_soon
        finish()
        assert seen == [id]
    finally:
        loop.close()


def test_mocked_method_on_the_instance(impl):
    from unittest import mock
    with impl.loop() as loop:
        with mock.patch.object(loop, "call_soon", wraps=loop.call_soon) as patched:
            fut = loop.create_future()
            fut.add_done_callback(id)
            fut.set_result(None)
            assert patched.called
        patched.reset_mock()
        spin(loop, 1)
        del patched
    gc.collect()
