"""current_task, all_tasks and the functions behind them."""

import asyncio
import gc
import threading

import pytest

from support import FASTLOOP, PY, outcome, same, settle, spin


async def forever():
    await asyncio.get_running_loop().create_future()


def test_current_task(loop):
    async def main():
        assert asyncio.current_task() is task
        assert asyncio.current_task(loop) is task
        await asyncio.sleep(0)
        assert asyncio.current_task() is task
        await asyncio.sleep(0.001)
        assert asyncio.current_task() is task
    task = loop.create_task(main())
    assert asyncio.current_task(loop) is None
    loop.run_until_complete(task)
    assert asyncio.current_task(loop) is None
    del task


def test_no_current_task_in_callbacks(loop):
    seen = []

    async def main():
        loop.call_soon(lambda: seen.append(asyncio.current_task()))
        asyncio.current_task().add_done_callback(lambda t: seen.append(asyncio.current_task()))
        await asyncio.sleep(0)
    task = loop.create_task(main())
    spin(loop, 4)
    assert seen == [None, None]
    assert task.done()


def test_no_current_task_after_errors(loop):
    async def main(error):
        raise error
    for error in (LookupError, SystemExit):
        task = loop.create_task(main(error))
        try:
            spin(loop, 2)
        except SystemExit:
            pass
        assert task.done() and task.exception() is not None
        assert asyncio.current_task(loop) is None


def test_current_task_during_send_and_throw(loop):
    seen = []

    async def main():
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            seen.append(asyncio.current_task() is task)
        finally:
            seen.append(asyncio.current_task() is task)
    task = loop.create_task(main())
    spin(loop, 2)
    task.cancel()
    spin(loop, 3)
    assert seen == [True, True]
    del task


def test_current_task_outside():
    def body(impl):
        with impl.loop() as loop:
            return outcome(asyncio.current_task)[:2], asyncio.current_task(loop)
    assert same(body) == [["raised", "RuntimeError"], None]


def test_all_tasks(loop):
    tasks = {loop.create_task(forever()) for _ in range(5)}
    assert asyncio.all_tasks(loop) == tasks
    spin(loop, 2)
    assert asyncio.all_tasks(loop) == tasks
    one = tasks.pop()
    one.cancel()
    spin(loop, 3)
    assert asyncio.all_tasks(loop) == tasks
    for t in tasks:
        t.cancel()
    spin(loop, 3)
    assert asyncio.all_tasks(loop) == set()
    del t


def test_all_tasks_of_every_kind(impl, loop):
    """The loop's own, stock tasks, subclasses: all are found."""
    class Sub(impl.Task):
        pass
    tasks = {loop.create_task(forever()), impl.Task(forever(), loop=loop),
             asyncio.Task(forever(), loop=loop), Sub(forever(), loop=loop)}
    assert asyncio.all_tasks(loop) == tasks
    spin(loop, 2)
    assert asyncio.all_tasks(loop) == tasks
    for t in tasks:
        t.cancel()
    spin(loop, 3)
    assert asyncio.all_tasks(loop) == set()
    del t


def test_all_tasks_of_two_loops(impl):
    with impl.loop() as one, impl.loop() as two:
        a, b = one.create_task(forever()), two.create_task(forever())
        assert asyncio.all_tasks(one) == {a}
        assert asyncio.all_tasks(two) == {b}
        for loop, task in ((one, a), (two, b)):
            task.cancel()
            spin(loop, 3)
        assert asyncio.all_tasks(one) == asyncio.all_tasks(two) == set()


def test_all_tasks_inside(loop):
    async def main():
        found = asyncio.all_tasks()
        assert found == {asyncio.current_task()}
        task = loop.create_task(asyncio.sleep(0))
        assert asyncio.all_tasks() == {asyncio.current_task(), task}
        await task
        assert asyncio.all_tasks() == {asyncio.current_task()}
    loop.run_until_complete(main())


def test_all_tasks_outside():
    def body(impl):
        return outcome(asyncio.all_tasks)[:2]
    assert same(body) == ["raised", "RuntimeError"]


def test_all_tasks_from_another_thread(loop):
    found = []

    async def main():
        tasks = {loop.create_task(forever()) for _ in range(20)}
        await asyncio.sleep(0)
        await asyncio.to_thread(lambda: found.append(asyncio.all_tasks(loop)))
        assert found[0] == tasks | {asyncio.current_task()}
        for t in tasks:
            t.cancel()
        await settle(3)
    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_default_executor())
    found.clear()


def test_all_tasks_while_other_threads_make_tasks(impl):
    """The listing is not disturbed by loops in other threads."""
    stop = threading.Event()
    errors = []

    def work():
        try:
            with impl.loop() as loop:
                async def main():
                    while not stop.is_set():
                        await asyncio.gather(*[asyncio.sleep(0) for _ in range(50)])
                loop.run_until_complete(main())
        except BaseException as exc:
            errors.append(repr(exc))
    threads = [threading.Thread(target=work) for _ in range(2)]
    for t in threads:
        t.start()
    with impl.loop() as loop:
        async def main():
            mine = [loop.create_task(forever()) for _ in range(10)]
            for _ in range(200):
                assert len(asyncio.all_tasks()) == 11
                await asyncio.sleep(0)
            for t in mine:
                t.cancel()
            await settle(3)
        loop.run_until_complete(main())
    stop.set()
    for t in threads:
        t.join()
    assert errors == []


def test_tasks_are_held_weakly(loop):
    """all_tasks does not keep a finished task alive."""
    import weakref
    task = loop.create_task(asyncio.sleep(0))
    ref = weakref.ref(task)
    spin(loop, 3)
    del task
    gc.collect()
    assert ref() is None


def test_own_register_functions(loop):
    """The documented extension functions see and feed the same tables."""
    class Thing:
        """A task of another library."""
        def __init__(self, loop):
            self._loop = loop

        def get_loop(self):
            return self._loop

        def done(self):
            return False
    thing = Thing(loop)
    asyncio._register_task(thing)
    assert thing in asyncio.all_tasks(loop)
    asyncio._unregister_task(thing)
    assert thing not in asyncio.all_tasks(loop)


def test_enter_and_leave_by_others(loop):
    """Another library's task enters between the loop's own steps."""
    seen = []

    async def main():
        me = asyncio.current_task()

        class Foreign:
            pass
        foreign = Foreign()

        def step():
            asyncio._enter_task(loop, foreign)
            seen.append(asyncio.current_task() is foreign)
            asyncio._leave_task(loop, foreign)
            seen.append(asyncio.current_task())
        loop.call_soon(step)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        seen.append(asyncio.current_task() is me)
        try:
            asyncio._enter_task(loop, foreign)
        except RuntimeError:
            seen.append("refused")
        else:
            asyncio._leave_task(loop, foreign)
    loop.run_until_complete(main())
    assert seen == [True, None, True, "refused"]


def test_nested_step_is_refused(log):
    """A task cannot be stepped while another one of the same loop is."""
    def body(impl):
        with impl.loop() as loop:
            seen = []
            loop.set_exception_handler(
                lambda loop, c: seen.append(str(c["exception"]).partition(" ")[0]))

            async def other():
                seen.append("other")

            class Recorder(impl.Loop):
                pass
            handles = []
            kept = []  # how soon the refused task dies is not the question
            original = loop.call_soon

            def call_soon(callback, *args, context=None):
                handle = original(callback, *args, context=context)
                handles.append(handle)
                return handle
            loop.call_soon = call_soon

            async def main():
                handles.clear()
                task = impl.Task(other(), loop=loop)
                kept.append(task)
                step = handles[0]
                step._run()
                step.cancel()
                await asyncio.sleep(0)
                return task.done()
            task = loop.create_task(main())
            spin(loop, 6)
            del loop.call_soon
            for t in asyncio.all_tasks(loop):
                t._log_destroy_pending = False
                t._coro.close()
            handles.clear()
            return seen, task.done()
    same(body)
    log.take()


def test_swap_current_task():
    if PY < (3, 12):
        pytest.skip("came with Python 3.12")
    with FASTLOOP.loop() as loop:
        async def main():
            me = asyncio.current_task()
            other = object()
            assert asyncio.tasks._swap_current_task(loop, other) is me
            assert asyncio.current_task() is other
            assert asyncio.tasks._swap_current_task(loop, me) is other
            await asyncio.sleep(0)
        loop.run_until_complete(main())


def test_loops_in_threads_have_their_own_current_task(impl):
    seen = []

    async def main(n):
        for _ in range(200):
            await asyncio.sleep(0)
            if asyncio.current_task().get_name() != f"t{n}":
                seen.append(n)

    def work(n):
        with impl.loop() as loop:
            loop.run_until_complete(loop.create_task(main(n), name=f"t{n}"))
    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert seen == []
