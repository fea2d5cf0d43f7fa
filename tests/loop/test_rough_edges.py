"""What reviews of the C code found: each was a crash, a leak, a lost callback or a loop that died."""

import asyncio
import gc
import os
import resource
import time
import weakref

import pytest

from support import FASTLOOP, check_child, same


def test_timer_cancelled_while_it_completes_its_future():
    """call_soon of a subclass cancels the very timer whose future is being completed."""
    check_child(FASTLOOP, """
complete = asyncio.futures._set_result_unless_cancelled
timers = []
class Own(impl.Loop):
    def call_soon(self, callback, *args, context=None):
        while timers:
            timers.pop().cancel()
        gc.collect()
        return super().call_soon(callback, *args, context=context)
loop = Own()
def make():
    fut = loop.create_future()
    for _ in range(3):
        fut.add_done_callback(lambda fut: None)
    timers.append(loop.call_later(0.001, complete, fut, object()))
make()
loop.call_later(0.02, loop.stop)
loop.run_forever()
loop.close()
""", env={"PYTHONMALLOC": "debug"})


@pytest.mark.parametrize("how", ["subclass", "patch"])
def test_executor_with_foreign_futures(how):
    check_child(FASTLOOP, """
class Own(impl.Loop):
    def create_future(self):
        return asyncio.futures._PyFuture(loop=self)
if HOW == "patch":
    asyncio.futures.Future = asyncio.futures._PyFuture
    loop = impl.Loop()
else:
    loop = Own()
async def main():
    for n in range(3):
        assert await loop.run_in_executor(None, int, str(n)) == n
loop.run_until_complete(main())
loop.close()
""".replace("HOW", repr(how)))


def test_debug_switched_on_with_work_queued(log):
    def body(impl):
        with impl.loop() as loop:
            async def slow():
                time.sleep(0.15)

            async def main():
                task = loop.create_task(slow())
                fut = loop.create_future()
                fut.add_done_callback(lambda fut: time.sleep(0.15))
                fut.set_result(None)
                loop.set_debug(True)
                await task
                await loop.run_in_executor(None, int)
                loop.set_debug(False)
                return "ended"
            return loop.run_until_complete(main())
    same(body)
    log.take()


def test_reader_gone_with_its_loop_between_two_sides():
    check_child(FASTLOOP, """
loop = impl.Loop()
a, b = __import__("socket").socketpair()
v = contextvars.ContextVar("v")
class Closer:
    def __del__(self):
        loop._release()
ctx = contextvars.Context()
ctx.run(v.set, Closer())
handle = loop._add_reader(a.fileno(), print, context=ctx)
del ctx
loop._add_writer(a.fileno(), print)
b.send(b"x")
handle.cancel()
del handle
try:
    loop.run_forever()
except RuntimeError:
    pass
""")


def test_huge_descriptor_is_refused_cheaply(impl):
    with impl.loop() as loop:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(OSError):
            loop.add_reader(60_000_000, print)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_long_chain_of_handles_dies_without_a_deep_stack():
    check_child(FASTLOOP, """
loop = impl.Loop()
handle = None
for _ in range(100_000):
    handle = loop.call_soon(lambda inner: None, handle)
loop.call_soon(loop.stop)
loop.run_forever()
del handle
loop.close()
""")


def test_callback_of_a_future_in_a_nested_turn():
    """A callback that turns the loop itself, as nest_asyncio does, loses no other."""
    with FASTLOOP.loop() as loop:
        out = []
        fut = loop.create_future()

        def outer():
            for _ in range(3):
                loop._run_once()
            out.append("outer")
        loop.call_soon(outer)
        fut.add_done_callback(lambda fut: out.append("callback"))
        loop.call_soon(lambda: fut.set_result(1))
        for delay in (0.001, 0.002, 0.003):
            loop.call_later(delay, int)
        loop.call_later(0.02, loop.stop)
        loop.run_forever()
        assert sorted(out) == ["callback", "outer"]


def test_future_begun_again_with_its_callback_queued():
    with FASTLOOP.loop() as loop:
        out = []
        fut = loop.create_future()
        fut.add_done_callback(lambda fut: out.append("old"))
        fut.set_result(1)
        try:
            fut.__init__(loop=loop)
        except RuntimeError:
            return  # Python 3.15 does not allow it
        fut.add_done_callback(lambda fut: out.append(("new", fut.done())))
        loop.call_later(0.005, loop.stop)
        loop.run_forever()
        assert ("new", False) not in out


def test_executor_job_that_raises_stop_iteration():
    """The awaiting task may hang, as on asyncio before 3.13, but the loop lives and says so."""
    with FASTLOOP.loop() as loop:
        reports = []
        loop.set_exception_handler(lambda loop, context: reports.append(context))

        def bad():
            raise StopIteration(3)

        async def main():
            try:
                await asyncio.wait_for(loop.run_in_executor(None, bad), 0.2)
            except (RuntimeError, TimeoutError) as exc:
                return type(exc)
        outcome = loop.run_until_complete(main())
        loop.set_exception_handler(None)
        assert outcome is RuntimeError or (outcome is TimeoutError and reports)


def test_class_patched_after_thousands_of_changes():
    """Python stops giving a class new version tags at some point."""
    class Own(FASTLOOP.Loop):
        pass
    for n in range(3000):
        Own.number = n
        hasattr(Own, "number")
    loop = Own()
    calls = []
    original = FASTLOOP.Loop.call_soon

    def call_soon(self, callback, *args, context=None):
        calls.append(callback)
        return original(self, callback, *args, context=context)
    Own.call_soon = call_soon

    async def main():
        await asyncio.sleep(0)
    loop.run_until_complete(main())
    loop.close()
    assert calls


def test_closing_lets_a_queued_callback_go():
    def body(impl):
        loop = impl.new_loop()

        class Callback:
            def __call__(self, fut):
                pass
        callback = Callback()
        ref = weakref.ref(callback)
        fut = loop.create_future()
        fut.add_done_callback(callback)
        fut.set_result(1)
        del callback
        loop.close()
        gc.collect()
        return ref() is None
    same(body)


def test_timer_kept_in_a_cycle_with_a_closed_loop():
    def body(impl):
        loop = impl.new_loop()

        class Owner:
            def late(self):
                pass
        owner = Owner()
        owner.timer = loop.call_later(1000, owner.late)
        ref = weakref.ref(owner)
        loop.close()
        del owner, loop
        gc.collect()
        return ref() is None
    same(body)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_executor_of_the_parent_in_a_forked_child():
    with FASTLOOP.loop() as loop:
        async def main():
            await loop.run_in_executor(None, int)
            pid = os.fork()
            if pid == 0:
                try:
                    loop.run_in_executor(None, int)
                except RuntimeError:
                    os._exit(0)
                finally:
                    os._exit(1)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert loop.run_until_complete(main()) == 0


def test_unbound_set_result_wakes_a_waiting_task():
    def body(impl):
        with impl.loop() as loop:
            fut = loop.create_future()

            async def wait():
                return await fut
            task = loop.create_task(wait())
            loop.call_later(0.002, asyncio.Future.set_result, fut, 7)
            return loop.run_until_complete(asyncio.wait_for(task, 1))
    same(body)


def test_create_task_without_a_coroutine_says_whose_argument_is_missing():
    def body(impl):
        with impl.loop() as loop:
            with pytest.raises(TypeError) as info:
                loop.create_task()
            return str(info.value)
    same(body)
