"""Birth, running, stopping and closing of a loop."""

import asyncio
import gc
import threading
import warnings
import weakref

import pytest

from support import check_child, outcome, same, spin


def test_new_loop_is_idle_and_open(loop):
    assert not loop.is_running()
    assert not loop.is_closed()
    assert loop.get_debug() is False
    assert isinstance(loop, asyncio.AbstractEventLoop)


def test_repr_tells_the_state(impl):
    def body(impl):
        loop = impl.new_loop()
        seen = [repr(loop)]
        loop.call_soon(lambda: seen.append(repr(loop)))
        spin(loop, 1)
        loop.set_debug(True)
        seen.append(repr(loop))
        loop.close()
        seen.append(repr(loop))
        return seen
    seen = same(body)
    assert seen[0] == "<Loop running=False closed=False debug=False>"


def test_every_method_of_the_interface_is_there(loop):
    for name in dir(asyncio.AbstractEventLoop):
        if not name.startswith("_"):
            assert callable(getattr(loop, name)), name


def test_run_until_complete_returns_the_result(loop):
    async def main():
        return 42
    assert loop.run_until_complete(main()) == 42


def test_run_until_complete_raises_what_the_coroutine_raises(loop):
    async def main():
        raise LookupError("x")
    with pytest.raises(LookupError, match="x"):
        loop.run_until_complete(main())


def test_run_until_complete_takes_a_future(loop):
    fut = loop.create_future()
    loop.call_soon(fut.set_result, "done")
    assert loop.run_until_complete(fut) == "done"
    assert loop.run_until_complete(fut) == "done"


def test_run_until_complete_takes_any_awaitable(loop):
    class Awaitable:
        def __await__(self):
            yield
            return 7
    assert loop.run_until_complete(Awaitable()) == 7


@pytest.mark.parametrize("thing", [None, 3, "x", object, asyncio.sleep], ids=repr)
def test_run_until_complete_refuses_others(thing):
    def body(impl):
        with impl.loop() as loop:
            return outcome(loop.run_until_complete, thing)
    assert same(body)[:2] == ["raised", "TypeError"]


def test_run_until_complete_refuses_a_future_of_another_loop():
    def body(impl):
        with impl.loop() as one, impl.loop() as two:
            fut = two.create_future()
            return outcome(one.run_until_complete, fut)
    assert same(body)[:2] == ["raised", "ValueError"]


def test_run_until_complete_adds_asyncios_own_callback(loop):
    """anyio finds a root task by that very function object."""
    seen = []

    async def main():
        task = asyncio.current_task()
        seen.extend(cb for cb, _ in task._callbacks)
    loop.run_until_complete(main())
    assert seen == [asyncio.base_events._run_until_complete_cb]


def test_run_until_complete_takes_its_callback_away(loop):
    fut = loop.create_future()
    loop.call_soon(loop.stop)
    with pytest.raises(RuntimeError, match="Event loop stopped before Future completed."):
        loop.run_until_complete(fut)
    assert not fut._callbacks


def test_stop_before_completion_leaves_a_quiet_task(impl, log):
    """The task made by run_until_complete does not complain when it dies pending."""
    with impl.loop() as loop:
        async def main():
            await loop.create_future()
        loop.call_soon(loop.stop)
        with pytest.raises(RuntimeError, match="stopped before"):
            loop.run_until_complete(main())
    gc.collect()
    assert log.messages() == []


def test_stop_runs_what_is_ready_first(loop):
    seen = []
    loop.call_soon(seen.append, 1)
    loop.call_soon(loop.stop)
    loop.call_soon(seen.append, 2)
    loop.call_soon(lambda: loop.call_soon(seen.append, 3))
    loop.run_forever()
    assert seen == [1, 2]
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == [1, 2, 3]


def test_stop_before_running_makes_one_iteration(loop):
    seen = []
    loop.stop()
    loop.call_soon(seen.append, 1)
    loop.call_soon(loop.call_soon, seen.append, 2)
    loop.run_forever()
    assert seen == [1]
    loop.stop()
    loop.run_forever()
    assert seen == [1, 2]


def test_stop_twice_counts_once(loop):
    seen = []
    loop.call_soon(loop.stop)
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.call_soon(seen.append, 1)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == [1]


def test_stop_from_a_due_timer(loop):
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    assert not loop.is_running()


def test_state_while_running(loop):
    seen = []

    def look():
        seen.append((loop.is_running(), loop.is_closed(), asyncio.get_running_loop() is loop,
                     asyncio.get_event_loop() is loop))
        loop.stop()
    loop.call_soon(look)
    loop.run_forever()
    assert seen == [(True, False, True, True)]
    assert asyncio._get_running_loop() is None
    assert not loop.is_running()


def test_running_loop_is_reset_after_an_error(loop):
    def explode():
        raise SystemExit(3)
    loop.call_soon(explode)
    with pytest.raises(SystemExit):
        loop.run_forever()
    assert asyncio._get_running_loop() is None
    assert not loop.is_running()
    assert loop.run_until_complete(asyncio.sleep(0, "alive")) == "alive"


# Python 3.13's run_forever() cleans up even when it refused to start, which ends the loop
# around it; so for that method asyncio is no model.

def test_run_until_complete_inside_itself_is_an_error():
    def body(impl):
        with impl.loop() as loop:
            async def main():
                fut = loop.create_future()
                return outcome(loop.run_until_complete, fut), loop.is_running()
            return loop.run_until_complete(main())
    assert same(body)[0] == ["raised", "RuntimeError", "This event loop is already running"]


def test_run_until_complete_inside_another_loop_is_an_error():
    def body(impl):
        with impl.loop() as outer, impl.loop() as inner:
            async def main():
                fut = inner.create_future()
                seen = [outcome(inner.run_until_complete, fut)]
                seen.append((inner.is_running(), outer.is_running()))
                return seen, asyncio.get_running_loop() is outer
            return outer.run_until_complete(main())
    assert "while another loop is running" in same(body)[0][0][2]


def test_run_forever_inside_a_loop_is_an_error_without_effect(impl):
    if not impl.is_fastloop:
        pytest.skip("asyncio of Python 3.13 breaks the running loop")
    with impl.loop() as loop, impl.loop() as other:
        async def main():
            for _ in range(3):
                with pytest.raises(RuntimeError, match="This event loop is already running"):
                    loop.run_forever()
                with pytest.raises(RuntimeError, match="while another loop is running"):
                    other.run_forever()
                assert loop.is_running()
                assert not other.is_running()
                assert asyncio.get_running_loop() is loop
                assert asyncio.current_task() is not None
                await asyncio.sleep(0.001)
            return "alive"
        assert loop.run_until_complete(main()) == "alive"


def test_run_from_another_thread_while_running_is_an_error():
    def body(impl):
        with impl.loop() as loop:
            seen = []
            fut = loop.create_future()

            def other():
                seen.append(outcome(loop.run_until_complete, fut))
                loop.call_soon_threadsafe(loop.stop)
            thread = threading.Thread(target=other)
            loop.call_soon(thread.start)
            loop.run_forever()
            thread.join()
            return seen
    assert same(body) == [["raised", "RuntimeError", "This event loop is already running"]]


def test_loop_runs_in_any_thread(impl):
    seen = []

    def work():
        with impl.loop() as loop:
            seen.append(loop.run_until_complete(asyncio.sleep(0, "thread")))
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == ["thread"]


def test_loop_moves_between_threads(loop):
    """Run here, then there, then here again."""
    seen = []

    def work():
        seen.append(loop.run_until_complete(asyncio.sleep(0.001, "there")))
    seen.append(loop.run_until_complete(asyncio.sleep(0.001, "here")))
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    seen.append(loop.run_until_complete(asyncio.sleep(0.001, "again")))
    assert seen == ["here", "there", "again"]


def test_close_while_running_is_an_error():
    def body(impl):
        with impl.loop() as loop:
            async def main():
                return outcome(loop.close), loop.is_closed()
            return loop.run_until_complete(main())
    assert same(body) == [["raised", "RuntimeError", "Cannot close a running event loop"], False]


def test_close_twice_is_fine(loop):
    loop.close()
    loop.close()
    assert loop.is_closed()


CLOSED = {
    "call_soon": lambda loop: loop.call_soon(print),
    "call_later": lambda loop: loop.call_later(1, print),
    "call_at": lambda loop: loop.call_at(1, print),
    "call_soon_threadsafe": lambda loop: loop.call_soon_threadsafe(print),
    "run_forever": lambda loop: loop.run_forever(),
    "run_in_executor": lambda loop: loop.run_in_executor(None, print),
    "add_reader": lambda loop: loop.add_reader(0, print),
    "add_writer": lambda loop: loop.add_writer(0, print),
    "remove_reader": lambda loop: loop.remove_reader(0),
    "remove_writer": lambda loop: loop.remove_writer(0),
    "add_signal_handler": lambda loop: loop.add_signal_handler(10, print),
    "remove_signal_handler": lambda loop: loop.remove_signal_handler(10),
    "stop": lambda loop: loop.stop(),
    "set_debug": lambda loop: loop.set_debug(True),
    "create_future": lambda loop: loop.create_future().done(),
    "get_debug": lambda loop: loop.get_debug(),
    "time": lambda loop: loop.time() > 0,
    "is_running": lambda loop: loop.is_running(),
    "set_exception_handler": lambda loop: loop.set_exception_handler(None),
    "set_task_factory": lambda loop: loop.set_task_factory(None),
}


@pytest.mark.parametrize("name", CLOSED)
def test_closed_loop(name):
    """Each method of a closed loop raises, or does not, exactly as asyncio's."""
    def body(impl):
        with impl.loop() as loop:
            loop.close()
            return outcome(CLOSED[name], loop)
    same(body)


def test_closed_loop_refuses_coroutines():
    def body(impl):
        async def main():
            pass
        with impl.loop() as loop:
            loop.close()
            one, two = main(), main()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                seen = [outcome(loop.run_until_complete, one), outcome(loop.create_task, two)]
                one.close()
                two.close()
            return seen
    assert same(body) == [["raised", "RuntimeError", "Event loop is closed"]] * 2


def test_close_drops_what_was_scheduled(impl):
    """Callbacks of a closed loop never run, and are released."""
    class Thing:
        pass
    things = [Thing() for _ in range(4)]
    refs = [weakref.ref(t) for t in things]
    loop = impl.new_loop()
    loop.call_soon(print, things[0])
    loop.call_later(1000, print, things[1])
    loop.call_soon_threadsafe(print, things[2])
    h = loop.call_later(1000, print, things[3])
    del things
    loop.close()
    gc.collect()
    assert [r() is None for r in refs] == [True, True, True, False]
    assert h.cancelled() is False
    h.cancel()
    gc.collect()
    assert refs[3]() is None


def test_forgotten_loop_warns(impl):
    loop = impl.new_loop()
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        del loop
        gc.collect()


def test_forgotten_loop_closes_its_descriptors(impl):
    """Checked by the per-test descriptor count."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for _ in range(5):
            impl.new_loop()
        gc.collect()


def test_loop_is_weakly_referable_and_hashable(impl):
    loop = impl.new_loop()
    ref = weakref.ref(loop)
    assert {loop: 1}[loop] == 1
    loop.close()
    del loop
    gc.collect()
    assert ref() is None


def test_loop_in_a_cycle_is_collected(impl):
    loop = impl.new_loop()
    loop.myself = loop
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.call_later(100, lambda: loop)
    ref = weakref.ref(loop)
    loop.close()
    del loop
    gc.collect()
    assert ref() is None


def test_many_loops(impl):
    for _ in range(100):
        with impl.loop() as loop:
            loop.run_until_complete(asyncio.sleep(0))


def test_two_loops_take_turns(impl):
    with impl.loop() as one, impl.loop() as two:
        seen = []
        for n in range(5):
            for loop in (one, two):
                loop.call_soon(seen.append, n)
                spin(loop, 1)
        assert seen == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_set_and_get_event_loop(impl):
    with impl.loop() as loop:
        asyncio.set_event_loop(loop)
        try:
            assert asyncio.get_event_loop() is loop
        finally:
            asyncio.set_event_loop(None)


def test_runner_runs_on_the_loop(impl):
    with asyncio.Runner(loop_factory=impl.new_loop) as runner:
        assert type(runner.get_loop()) is impl.Loop

        async def main():
            return type(asyncio.get_running_loop())
        assert runner.run(main()) is impl.Loop
        assert runner.run(main()) is impl.Loop


def test_runner_cancels_what_remains(impl):
    seen = []

    async def forever():
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def main():
        task = asyncio.get_running_loop().create_task(forever())
        await asyncio.sleep(0)
        seen.append(task.done())
    impl.run(main())
    assert seen == [False, "cancelled"]


def test_time_is_monotonic(loop):
    import time
    before = time.monotonic()
    now = loop.time()
    after = time.monotonic()
    assert isinstance(now, float)
    assert before <= now <= after


def test_instances_take_attributes(loop):
    loop.anything = [1]
    assert loop.anything == [1]
    assert vars(loop)["anything"] == [1]
    del loop.anything
    assert not hasattr(loop, "anything")


def test_call_soon_inside_closed_iteration(loop):
    """Callbacks queued before close() in a stopped loop are gone."""
    seen = []
    loop.call_soon(loop.stop)
    loop.call_soon(lambda: loop.call_soon(seen.append, 1))
    loop.run_forever()
    loop.close()
    assert seen == []


@pytest.mark.parametrize("where", ["running", "idle"])
def test_interpreter_exits_with_an_open_loop(impl, where):
    check_child(impl, f"""
        loop = impl.new_loop()
        loop.call_later(100, print, 1)
        fut = loop.create_future()
        loop.run_until_complete(asyncio.sleep(0))
        if {where!r} == "running":
            loop.call_soon(sys.exit, 0)
            loop.run_forever()
    """)


def test_run_forever_hundreds_of_times(loop):
    for _ in range(500):
        loop.call_soon(loop.stop)
        loop.run_forever()


def test_create_server_is_refused_or_works_but_never_crashes(loop):
    """Whatever the loop does not have says so with an exception."""
    for name in ("connect_read_pipe", "subprocess_exec", "sendfile"):
        assert callable(getattr(loop, name))
