"""Signal handlers, Ctrl-C and signals that arrive while the loop waits."""

import asyncio
import os
import signal
import threading
import time

import pytest

from support import PY, check_child, outcome, same, same_child, spin


@pytest.fixture
def usr1():
    """SIGUSR1, with its handler put back after the test."""
    old = signal.getsignal(signal.SIGUSR1)
    yield signal.SIGUSR1
    signal.signal(signal.SIGUSR1, old)


def kill(sig):
    os.kill(os.getpid(), sig)


def test_handler_is_called(loop, usr1):
    seen = []
    loop.add_signal_handler(usr1, lambda *a: (seen.append(a), loop.stop()), 1, "two")
    loop.call_soon(kill, usr1)
    loop.run_forever()
    assert seen == [(1, "two")]
    assert loop.remove_signal_handler(usr1) is True
    assert loop.remove_signal_handler(usr1) is False


def test_handler_runs_as_a_callback_in_its_context(loop, usr1):
    import contextvars
    var = contextvars.ContextVar("var", default="none")
    seen = []
    ctx = contextvars.copy_context()
    ctx.run(var.set, "registered")
    ctx.run(loop.add_signal_handler, usr1, lambda: (
        seen.append((var.get(), asyncio.get_running_loop() is loop)), loop.stop()))
    loop.call_soon(kill, usr1)
    loop.run_forever()
    assert seen == [("registered", True)]
    loop.remove_signal_handler(usr1)


def test_idle_loop_wakes_up(loop, usr1):
    loop.add_signal_handler(usr1, loop.stop)
    threading.Timer(0.02, kill, (usr1,)).start()
    start = time.monotonic()
    loop.run_forever()
    assert time.monotonic() - start < 5
    loop.remove_signal_handler(usr1)


def test_signal_before_the_loop_runs(loop, usr1):
    seen = []
    loop.add_signal_handler(usr1, seen.append, 1)
    kill(usr1)
    spin(loop, 3)
    assert seen == [1]
    loop.remove_signal_handler(usr1)


def test_plain_python_handler_interrupts_the_wait(loop, usr1):
    """signal.signal() handlers run at once on an idle loop, without add_signal_handler."""
    times = []
    signal.signal(usr1, lambda *a: times.append(time.monotonic()))
    start = time.monotonic()
    threading.Timer(0.03, kill, (usr1,)).start()
    loop.call_later(0.4, loop.stop)
    loop.run_forever()
    assert len(times) == 1
    assert times[0] - start < 0.2


def test_plain_python_handler_that_raises(loop, usr1):
    """What a handler raises comes out of run_forever."""
    def handler(*args):
        raise LookupError("from the handler")
    signal.signal(usr1, handler)
    threading.Timer(0.03, kill, (usr1,)).start()
    with pytest.raises(LookupError, match="from the handler"):
        loop.run_forever()
    assert not loop.is_running()
    spin(loop, 2)


def test_replaced_handler(loop, usr1):
    seen = []
    loop.add_signal_handler(usr1, seen.append, "old")
    loop.add_signal_handler(usr1, seen.append, "new")
    kill(usr1)
    spin(loop, 3)
    assert seen == ["new"]
    assert loop.remove_signal_handler(usr1) is True
    assert loop.remove_signal_handler(usr1) is False


def test_several_signals(loop, usr1):
    old = signal.getsignal(signal.SIGUSR2)
    seen = []
    loop.add_signal_handler(usr1, seen.append, 1)
    loop.add_signal_handler(signal.SIGUSR2, seen.append, 2)
    kill(usr1)
    kill(signal.SIGUSR2)
    spin(loop, 3)
    assert sorted(seen) == [1, 2]
    loop.remove_signal_handler(usr1)
    kill(signal.SIGUSR2)
    spin(loop, 3)
    assert sorted(seen) == [1, 2, 2]
    loop.remove_signal_handler(signal.SIGUSR2)
    signal.signal(signal.SIGUSR2, old)


def test_handler_removes_itself(loop, usr1):
    seen = []

    def handler():
        seen.append(loop.remove_signal_handler(usr1))
        signal.signal(usr1, signal.SIG_IGN)
    loop.add_signal_handler(usr1, handler)
    kill(usr1)
    spin(loop, 3)
    assert seen == [True]


def test_handler_adds_another(loop, usr1):
    seen = []

    def first():
        seen.append("first")
        loop.add_signal_handler(usr1, seen.append, "second")
        kill(usr1)
    loop.add_signal_handler(usr1, first)
    kill(usr1)
    spin(loop, 6)
    assert seen == ["first", "second"]
    loop.remove_signal_handler(usr1)


def test_handler_that_raises_is_reported(loop, usr1):
    seen = []
    loop.set_exception_handler(lambda loop, c: seen.append(type(c["exception"]).__name__))
    loop.add_signal_handler(usr1, lambda: 1 / 0)
    kill(usr1)
    spin(loop, 3)
    assert seen == ["ZeroDivisionError"]
    loop.remove_signal_handler(usr1)


def test_disposition_after_removal(usr1):
    def body(impl):
        seen = []
        with impl.loop() as loop:
            loop.add_signal_handler(usr1, print)
            seen.append(callable(signal.getsignal(usr1)))
            loop.remove_signal_handler(usr1)
            seen.append(signal.getsignal(usr1) == signal.SIG_DFL)
            old = signal.getsignal(signal.SIGINT)
            loop.add_signal_handler(signal.SIGINT, print)
            loop.remove_signal_handler(signal.SIGINT)
            seen.append(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
            signal.signal(signal.SIGINT, old)
        return seen
    assert same(body) == [True, True, True]


def test_close_removes_the_handlers(impl, usr1):
    loop = impl.new_loop()
    loop.add_signal_handler(usr1, print)
    loop.close()
    assert signal.getsignal(usr1) == signal.SIG_DFL
    assert loop.remove_signal_handler(usr1) is False


BAD_SIGNALS = [0, -1, 10_000, signal.NSIG, signal.SIGKILL, signal.SIGSTOP, "SIGUSR1", None, 1.0,
               object(), True]


@pytest.mark.parametrize("sig", BAD_SIGNALS, ids=str)
def test_bad_signals(sig):
    def body(impl):
        old = signal.getsignal(signal.SIGHUP)
        with impl.loop() as loop:
            seen = [outcome(loop.add_signal_handler, sig, print),
                    outcome(loop.remove_signal_handler, sig)]
        signal.signal(signal.SIGHUP, old)
        return seen
    same(body)


@pytest.mark.parametrize("debug", [False, True])
def test_coroutines_are_refused(usr1, debug):
    async def coro():
        pass

    def body(impl):
        with impl.loop(debug) as loop:
            c = coro()
            seen = [outcome(loop.add_signal_handler, usr1, coro),
                    outcome(loop.add_signal_handler, usr1, c)]
            c.close()
            return seen
    assert same(body) == [["raised", "TypeError",
                           "coroutines cannot be used with add_signal_handler()"]] * 2


def test_only_in_the_main_thread(usr1):
    def body(impl):
        seen = []

        def work():
            with impl.loop() as loop:
                seen.append(outcome(loop.add_signal_handler, usr1, print)[:2])
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return seen
    assert same(body) == [["raised", "RuntimeError"]]


def test_loop_in_another_thread_leaves_signals_alone(impl, usr1):
    """The main thread's loop has the handler while another thread runs a loop too."""
    seen = []
    with impl.loop() as loop:
        loop.add_signal_handler(usr1, lambda: (seen.append(1), loop.stop()))

        def work():
            with impl.loop() as other:
                other.run_until_complete(asyncio.sleep(0.01))
        thread = threading.Thread(target=work)
        loop.call_soon(thread.start)
        loop.call_later(0.02, kill, usr1)
        loop.run_forever()
        thread.join()
        loop.remove_signal_handler(usr1)
    assert seen == [1]


def test_many_signals_in_a_row(loop, usr1):
    """Each one that is sent after the former arrived arrives too."""
    seen = []

    def handler():
        seen.append(1)
        if len(seen) < 500:
            kill(usr1)
        else:
            loop.stop()
    loop.add_signal_handler(usr1, handler)
    kill(usr1)
    loop.run_forever()
    assert len(seen) == 500
    loop.remove_signal_handler(usr1)


def test_timer_signals_do_not_disturb_timers(loop):
    """An interval timer at 1 kHz interrupts every wait; nothing is lost or early."""
    count = [0]
    old = signal.signal(signal.SIGALRM, lambda *a: count.__setitem__(0, count[0] + 1))
    was = signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        seen = []
        base = loop.time()
        for n in range(1, 31):
            loop.call_at(base + n / 200, lambda n=n: seen.append((n, loop.time() >= base + n / 200 - 1e-6)))
        loop.call_at(base + 0.16, loop.stop)
        loop.run_forever()
    finally:
        signal.setitimer(signal.ITIMER_REAL, *was)
        signal.signal(signal.SIGALRM, old)
    assert seen == [(n, True) for n in range(1, 31)]
    assert count[0] > 20


def test_signal_while_busy(loop, usr1):
    """A Python handler runs while the loop is busy with callbacks only."""
    seen = []
    signal.signal(usr1, lambda *a: seen.append(1))

    def busy():
        if seen:
            loop.stop()
        else:
            loop.call_soon(busy)
    threading.Timer(0.02, kill, (usr1,)).start()
    loop.call_soon(busy)
    loop.run_forever()
    assert seen == [1]


def test_nested_loops_restore_the_wake_up_descriptor():
    """A second loop with signal handlers inside the life of a first one."""
    same_child("""
        seen = []
        outer = impl.new_loop()
        outer.add_signal_handler(signal.SIGUSR1, lambda: (seen.append("outer"), outer.stop()))
        inner = impl.new_loop()
        inner.run_until_complete(asyncio.sleep(0.01))
        inner.close()
        outer.call_later(0.01, os.kill, os.getpid(), signal.SIGUSR1)
        outer.call_later(5, outer.stop)
        outer.run_forever()
        outer.close()
        print(seen)
    """)


def test_run_restores_a_foreign_wake_up_descriptor(impl):
    """A wake-up descriptor that the program set is there again after the run."""
    import socket
    a, b = socket.socketpair()
    a.setblocking(False)
    old = signal.set_wakeup_fd(a.fileno(), warn_on_full_buffer=False)
    try:
        with impl.loop() as loop:
            loop.run_until_complete(asyncio.sleep(0.001))
        assert signal.set_wakeup_fd(a.fileno()) == a.fileno()
    finally:
        signal.set_wakeup_fd(old)
        a.close()
        b.close()


CTRL_C = {
    "waiting": "await asyncio.sleep(10)",
    "busy": "[await asyncio.sleep(0) for _ in iter(int, 1)]",
    "future": "await asyncio.get_running_loop().create_future()",
}


@pytest.mark.parametrize("where", CTRL_C)
def test_ctrl_c_through_a_runner(where):
    """The main task is cancelled, and KeyboardInterrupt comes out of run()."""
    out = same_child(f"""
        async def main():
            try:
                {CTRL_C[where]}
            except asyncio.CancelledError:
                print("cancelled", asyncio.current_task().cancelling())
                raise
            finally:
                print("finally")
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            impl.run(main())
        except KeyboardInterrupt:
            print("KeyboardInterrupt")
        print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
    """)
    assert out.split() == ["cancelled", "1", "finally", "KeyboardInterrupt", "True"]


def test_ctrl_c_twice_through_a_runner():
    """The second one is immediate, even when the first was swallowed."""
    out = same_child("""
        async def main():
            while True:
                try:
                    await asyncio.sleep(10)
                except asyncio.CancelledError:
                    print("swallowed")
                    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        import warnings
        warnings.simplefilter("ignore")
        loop = impl.new_loop()
        runner = asyncio.Runner(loop_factory=lambda: loop)
        try:
            runner.run(main())
        except KeyboardInterrupt:
            print("KeyboardInterrupt")
        os._exit(0)
    """, flags=("-u",))
    assert out.split() == ["swallowed", "KeyboardInterrupt"]


def test_ctrl_c_without_a_runner():
    """With the default SIGINT handler KeyboardInterrupt comes out of run_forever."""
    out = same_child("""
        loop = impl.new_loop()
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            loop.run_forever()
        except KeyboardInterrupt:
            print("KeyboardInterrupt", loop.is_running())
        loop.run_until_complete(asyncio.sleep(0.001))
        loop.close()
    """)
    assert out.split() == ["KeyboardInterrupt", "False"]


def test_ctrl_c_in_pure_python_work():
    """A callback that never returns to the loop is interrupted as any Python code."""
    out = same_child("""
        loop = impl.new_loop()
        def work():
            while True:
                pass
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        loop.call_soon(work)
        try:
            loop.run_forever()
        except KeyboardInterrupt:
            print("KeyboardInterrupt")
        loop.close()
    """)
    assert out.strip() == "KeyboardInterrupt"


def test_ctrl_c_inside_a_coroutine_stays_in_its_task():
    """KeyboardInterrupt raised in a task: stored in the task and raised out of the run."""
    out = same_child("""
        loop = impl.new_loop()
        async def work():
            while True:
                pass
        task = loop.create_task(work())
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            loop.run_forever()
        except KeyboardInterrupt:
            print("KeyboardInterrupt", task.done(), type(task.exception()).__name__)
        loop.close()
    """)
    assert out.split() == ["KeyboardInterrupt", "True", "KeyboardInterrupt"]


def test_sigterm_handler_stops_a_server_loop():
    out = same_child("""
        async def main():
            loop = asyncio.get_running_loop()
            stop = asyncio.Event()
            loop.add_signal_handler(signal.SIGTERM, stop.set)
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
            await stop.wait()
            print("stopped")
        impl.run(main())
        print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
    """)
    assert out.split() == ["stopped", "True"]


def test_sigint_handler_of_the_loop_wins_over_the_runner():
    out = same_child("""
        async def main():
            loop = asyncio.get_running_loop()
            fut = loop.create_future()
            loop.add_signal_handler(signal.SIGINT, fut.set_result, "handled")
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
            print(await fut)
            loop.remove_signal_handler(signal.SIGINT)
        impl.run(main())
    """)
    assert out.strip() == "handled"


def test_child_does_not_inherit_wake_ups(impl):
    """A signal in a forked child must not reach the parent's loop."""
    if not impl.is_fastloop and PY < (3, 12):
        pytest.skip("asyncio of this version does let them through")
    out = check_child(impl, """
        warnings.simplefilter("ignore")
        seen = []
        loop = impl.new_loop()
        loop.add_signal_handler(signal.SIGUSR1, seen.append, "parent")
        loop.run_until_complete(asyncio.sleep(0))
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGUSR1, lambda *a: None)
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.02)
            os._exit(0)
        os.waitpid(pid, 0)
        loop.run_until_complete(asyncio.sleep(0.05))
        loop.close()
        print(seen)
    """)
    assert out.strip() == "[]"
