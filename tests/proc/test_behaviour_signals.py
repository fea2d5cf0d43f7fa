"""Signals: what tests/loop/test_signals.py leaves out.  Loops one after another and inside each other, many signals,
SIGCHLD next to child processes, Ctrl-C while there are children."""

import asyncio
import os
import signal
import socket
import threading

import pytest

from support import FASTLOOP, check_child, outcome, same, same_child, spin
from support.net import LIMIT
from support.proc import finish, run, sh, spawn

SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD, signal.SIGINT)


@pytest.fixture(autouse=True)
def signals():
    """Dispositions and the wake-up descriptor are as before after each test."""
    before = {sig: signal.getsignal(sig) for sig in SIGNALS}
    yield
    for sig, handler in before.items():
        signal.signal(sig, handler)
    signal.set_wakeup_fd(-1)


def kill(sig):
    os.kill(os.getpid(), sig)


def wakeup_fd():
    fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
    return fd


# Whose wake-up descriptor it is

def test_loops_one_after_another():
    """Each gets its own signals, and none is left with the process."""
    def body(impl):
        seen = []
        for n in range(3):
            with impl.loop() as loop:
                loop.add_signal_handler(signal.SIGUSR1, lambda n=n: (seen.append(n), loop.stop()))
                loop.call_soon(kill, signal.SIGUSR1)
                loop.run_forever()
                seen.append(loop.remove_signal_handler(signal.SIGUSR1))
            seen.append((wakeup_fd(), signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL))
        return seen
    assert same(body) == [x for n in range(3) for x in (n, True, [-1, True])]


def test_closed_with_handlers_and_then_another():
    def body(impl):
        seen = []
        first = impl.new_loop()
        first.add_signal_handler(signal.SIGUSR1, seen.append, "first")
        first.close()
        with impl.loop() as loop:
            loop.add_signal_handler(signal.SIGUSR1, seen.append, "second")
            kill(signal.SIGUSR1)
            spin(loop, 3)
        return seen, wakeup_fd()
    assert same(body) == [["second"], -1]


def test_second_loop_takes_the_signal_and_the_first_stays_usable():
    """The handler that was added last has it; each loop's own work goes on."""
    def body(impl):
        seen = []
        with impl.loop() as first, impl.loop() as second:
            first.add_signal_handler(signal.SIGUSR1, seen.append, "first")
            second.add_signal_handler(signal.SIGUSR1, lambda: (seen.append("second"), second.stop()))
            second.call_soon(kill, signal.SIGUSR1)
            second.run_forever()
            seen.append(second.remove_signal_handler(signal.SIGUSR1))
            seen.append(first.run_until_complete(asyncio.sleep(0.001, "runs")))
            seen.append(first.remove_signal_handler(signal.SIGUSR1))
        return seen, wakeup_fd()
    assert same(body) == [["second", True, "runs", True], -1]


@pytest.mark.parametrize("inner", ["sleeps", "has handlers", "is closed with handlers"])
def test_a_run_inside_the_life_of_another_gives_the_descriptor_back(inner):
    """The outer loop's handlers work again after it; asyncio loses them if the inner one had some of its own."""
    out = check_child(FASTLOOP, f"""
        inner = {inner!r}
        seen = []
        outer = impl.new_loop()
        outer.add_signal_handler(signal.SIGUSR1, lambda: (seen.append("outer"), outer.stop()))
        async def main():
            loop = asyncio.get_running_loop()
            if inner != "sleeps":
                came = asyncio.Event()
                loop.add_signal_handler(signal.SIGUSR2, came.set)
                os.kill(os.getpid(), signal.SIGUSR2)
                await came.wait()
                seen.append("inner")
                if inner == "has handlers":
                    loop.remove_signal_handler(signal.SIGUSR2)
            await asyncio.sleep(0.001)
        for debug in (False, True):
            impl.run(main(), debug=debug)
            outer.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
            outer.run_forever()
        outer.close()
        print(seen, signal.set_wakeup_fd(-1))
    """)
    both = ["outer"] if inner == "sleeps" else ["inner", "outer"]
    assert out == f"{both * 2} -1\n"


@pytest.mark.parametrize("debug", [False, True])
def test_descriptor_of_the_program_is_back_after_a_run_that_sleeps(debug):
    def body(impl):
        a, b = socket.socketpair()
        a.setblocking(False)
        signal.set_wakeup_fd(a.fileno(), warn_on_full_buffer=False)
        try:
            for _ in range(3):
                impl.run(asyncio.sleep(0.001), debug=debug)
            kept = wakeup_fd() == a.fileno()
            signal.signal(signal.SIGUSR1, lambda *args: None)
            kill(signal.SIGUSR1)
            return kept, b.recv(10)
        finally:
            signal.set_wakeup_fd(-1)
            a.close()
            b.close()
    # On 3.11's asyncio a Runner's SIGINT handler touches nothing, so this holds everywhere.
    assert same(body) == [True, bytes([signal.SIGUSR1])]


def test_loops_in_threads_never_touch_the_descriptor():
    def body(impl):
        a, b = socket.socketpair()
        a.setblocking(False)
        signal.set_wakeup_fd(a.fileno(), warn_on_full_buffer=False)
        try:
            threads = [threading.Thread(target=lambda: impl.run(asyncio.sleep(0.001))) for _ in range(4)]
            for t in threads:
                t.start()
            for t in threads:
                t.join(LIMIT)
            return wakeup_fd() == a.fileno()
        finally:
            signal.set_wakeup_fd(-1)
            a.close()
            b.close()
    assert same(body) is True


def test_a_thread_may_not_add_or_remove():
    def body(impl):
        with impl.loop() as loop:
            loop.add_signal_handler(signal.SIGUSR1, int)
            seen = []

            def work():
                seen.append(outcome(loop.add_signal_handler, signal.SIGUSR2, int)[:2])
                seen.append(outcome(loop.remove_signal_handler, signal.SIGUSR2))
            thread = threading.Thread(target=work)
            thread.start()
            thread.join(LIMIT)
            seen.append(loop.remove_signal_handler(signal.SIGUSR1))
        return seen, signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL
    assert same(body) == [[["raised", "RuntimeError"], ["returned", False], True], True]


# Handlers that change handlers

def test_handler_that_removes_another_which_is_due():
    """Both signals have come; whose callback is queued already runs all the same, as on asyncio."""
    def body(impl):
        with impl.loop() as loop:
            seen = []

            def first():
                seen.append(("first", loop.remove_signal_handler(signal.SIGUSR2)))
                signal.signal(signal.SIGUSR2, signal.SIG_IGN)
            loop.add_signal_handler(signal.SIGUSR1, first)
            loop.add_signal_handler(signal.SIGUSR2, seen.append, "second")
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            kill(signal.SIGUSR1)
            kill(signal.SIGUSR2)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            spin(loop, 5)
            loop.remove_signal_handler(signal.SIGUSR1)
            return sorted(map(str, seen))
    assert len(same(body)) in (1, 2)


def test_handler_that_replaces_itself_each_time():
    def body(impl):
        with impl.loop() as loop:
            seen = []

            def handler(n):
                seen.append(n)
                if n < 50:
                    loop.add_signal_handler(signal.SIGUSR1, handler, n + 1)
                    kill(signal.SIGUSR1)
                else:
                    loop.remove_signal_handler(signal.SIGUSR1)
                    loop.stop()
            loop.add_signal_handler(signal.SIGUSR1, handler, 0)
            kill(signal.SIGUSR1)
            loop.run_forever()
            return seen
    assert same(body) == list(range(51))


def test_handler_that_closes_nothing_but_stops():
    """A run is over with the turn in which a handler said stop(); later signals wait for the next run."""
    def body(impl):
        with impl.loop() as loop:
            seen = []
            loop.add_signal_handler(signal.SIGUSR1, lambda: (seen.append(1), loop.stop()))
            for _ in range(3):
                kill(signal.SIGUSR1)
                loop.run_forever()
            loop.remove_signal_handler(signal.SIGUSR1)
            return seen
    assert same(body) == [1, 1, 1]


def test_handler_in_debug_mode():
    def body(impl):
        seen = []

        async def main():
            loop = asyncio.get_running_loop()
            came = asyncio.Event()
            loop.add_signal_handler(signal.SIGUSR1, came.set)
            kill(signal.SIGUSR1)
            async with asyncio.timeout(LIMIT):
                await came.wait()
            seen.append(loop.remove_signal_handler(signal.SIGUSR1))
        impl.run(main(), debug=True)
        return seen
    assert same(body) == [True]


# Many

@pytest.mark.hang(60)
@pytest.mark.parametrize("burst, bursts", [(100, 1000)])
def test_a_hundred_thousand_signals(burst, bursts):
    """Signals of a kind may fall into one while they are pending; the last of each burst is never lost."""
    out = check_child(FASTLOOP, f"""
        burst, bursts = {burst}, {bursts}
        sent = {{signal.SIGUSR1: 0, signal.SIGUSR2: 0}}
        seen = dict(sent)
        calls = [0]
        arrived = threading.Condition()

        def on(sig):
            with arrived:
                calls[0] += 1
                seen[sig] = sent[sig]
                arrived.notify()

        async def main():
            loop = asyncio.get_running_loop()
            done = loop.create_future()
            for sig in sent:
                loop.add_signal_handler(sig, on, sig)

            def send():
                pid = os.getpid()
                try:
                    for n in range(bursts):
                        for k in range(burst):
                            sig = signal.SIGUSR1 if k % 2 else signal.SIGUSR2
                            sent[sig] += 1
                            os.kill(pid, sig)
                        with arrived:
                            if not arrived.wait_for(lambda: seen == sent, 10):
                                return "lost", n, seen, sent
                    return sum(sent.values())
                finally:
                    loop.call_soon_threadsafe(done.set_result, None)
            sending = loop.run_in_executor(None, send)
            await done
            for sig in sent:
                loop.remove_signal_handler(sig)
            return await sending
        total = impl.run(main())
        print(total, calls[0] >= 2 * bursts, calls[0] <= burst * bursts)
    """, limit=40)
    assert out == f"{burst * bursts} True True\n"


@pytest.mark.parametrize("burst", [50])
def test_signals_that_the_kernel_counts(burst):
    """Real-time signals do not fall into one: each is one call."""
    out = same_child(f"""
        burst, bursts = {burst}, 2000 // {burst}
        calls = [0]
        arrived = threading.Condition()

        def on():
            with arrived:
                calls[0] += 1
                arrived.notify()

        async def main():
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGRTMIN, on)

            def send():
                for n in range(1, bursts + 1):
                    for _ in range(burst):
                        os.kill(os.getpid(), signal.SIGRTMIN)
                    with arrived:
                        arrived.wait_for(lambda: calls[0] >= n * burst, 10)
            await loop.run_in_executor(None, send)
            await asyncio.sleep(0.001)
            loop.remove_signal_handler(signal.SIGRTMIN)
        impl.run(main())
        print(calls[0] == burst * bursts)
    """, limit=30)
    assert out == "True\n"


# SIGCHLD is the user's

@pytest.mark.parametrize("debug", [False, True])
def test_children_leave_sigchld_alone(debug):
    def body(impl):
        before = signal.getsignal(signal.SIGCHLD)
        inside = []

        async def main():
            process = await spawn("/bin/cat")
            inside.append(signal.getsignal(signal.SIGCHLD) == before)
            return await finish(process)
        impl.run(main(), debug=debug)
        return inside, signal.getsignal(signal.SIGCHLD) == before
    assert same(body) == [[True], True]


@pytest.mark.parametrize("through", ["signal", "loop"])
def test_sigchld_handlers_work_next_to_children(through):
    """The handler is called for each child that ends by itself, and each status arrives where it was awaited."""
    def body(impl):
        calls = []

        async def main():
            loop = asyncio.get_running_loop()
            came = asyncio.Event()

            def handler(*args):
                calls.append(len(args))
                loop.call_soon_threadsafe(came.set)
            if through == "signal":
                signal.signal(signal.SIGCHLD, handler)
            else:
                loop.add_signal_handler(signal.SIGCHLD, handler, 1, 2)
            codes = []
            for n in range(20):
                came.clear()
                codes.append((await run(*sh("exit $1", n)))[0])
                async with asyncio.timeout(LIMIT):
                    await came.wait()
            if through == "loop":
                loop.remove_signal_handler(signal.SIGCHLD)
            return codes
        codes = impl.run(main())
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return codes, len(calls) >= 20, set(calls)
    assert same(body) == [list(range(20)), True, {2}]


def test_sigchld_handler_that_waits_for_all_children():
    """It takes the statuses: asyncio's loops say 255 then, and do not hang."""
    out = same_child("""
        import logging
        logging.getLogger("asyncio").disabled = True
        from support.proc import *
        def reap(*args):
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                pass
        signal.signal(signal.SIGCHLD, reap)
        async def main():
            found = [await run(*sh("cat; exit 3"), input=b"out") for _ in range(5)]
            return {f[1:] for f in found}, {f[0] for f in found} <= {3, 255}
        print(impl.run(main()))
    """)
    assert out == "({(b'out', b'')}, True)\n"


def test_sigchld_blocked():
    """Who blocks it still gets the statuses."""
    def body(impl):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        try:
            return impl.run(run(*sh("exit 3")))[0]
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    assert same(body) == 3


# Ctrl-C

def test_ctrl_c_while_waiting_for_a_child():
    """The main task is cancelled, and may end its child; KeyboardInterrupt comes out."""
    out = same_child("""
        from support.proc import *
        async def main():
            process = await spawn("/bin/cat")
            asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
            try:
                await process.wait()
            except asyncio.CancelledError:
                print("cancelled", process.returncode)
                process.kill()
                print(await process.wait())
                raise
        try:
            impl.run(main())
        except KeyboardInterrupt:
            print("KeyboardInterrupt", has_children())
    """)
    assert out.splitlines() == ["cancelled None", "-9", "KeyboardInterrupt False"]


def test_ctrl_c_of_a_terminal_reaches_children_unless_they_have_their_own_session():
    """SIGINT to the process group: who is in another one does not get it."""
    out = same_child("""
        from support.proc import *
        async def main():
            ours = await spawn("/bin/cat")
            other = await spawn("/bin/cat", start_new_session=True)
            asyncio.get_running_loop().call_soon(os.killpg, os.getpgrp(), signal.SIGINT)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                print(await ours.wait(), (await finish(other, b"alive"))[:2])
                raise
        try:
            impl.run(main())
        except KeyboardInterrupt:
            print("KeyboardInterrupt")
    """)
    assert out.splitlines() == ["-2 (0, b'alive')", "KeyboardInterrupt"]


def test_ctrl_c_in_fastloop_run():
    """fastloop.run() does as asyncio.run() with fastloop's loop: one cancels, the second is immediate."""
    code = """
        import fastloop
        async def once():
            asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
            try:
                await asyncio.Event().wait()
            finally:
                print("finally", asyncio.current_task().cancelling())
        async def twice():
            loop = asyncio.get_running_loop()
            for n in range(2):
                loop.call_soon(os.kill, os.getpid(), signal.SIGINT)
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    print("swallowed", n)
            return "not reached"
        async def swallowed():
            asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return "swallowed"
        async def own():
            signal.signal(signal.SIGINT, lambda *args: print("own handler"))
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0.001)
            signal.signal(signal.SIGINT, signal.default_int_handler)
        run = fastloop.run if impl.is_fastloop else lambda main: impl.run(main)
        for main in (once, twice, swallowed, own):
            try:
                print(main.__name__, run(main()))
            except KeyboardInterrupt:
                print(main.__name__, "KeyboardInterrupt", signal.getsignal(signal.SIGINT) is signal.default_int_handler)
    """
    out = same_child(code)
    assert out.splitlines() == [
        "finally 1", "once KeyboardInterrupt True", "swallowed 0", "swallowed 1", "twice KeyboardInterrupt True",
        "swallowed swallowed", "own handler", "own None"]


def test_ctrl_c_before_the_main_task_waits():
    """It comes while the task's first step runs."""
    out = same_child("""
        async def main():
            os.kill(os.getpid(), signal.SIGINT)
            print("still here")
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                print("cancelled")
                raise
        try:
            impl.run(main())
        except KeyboardInterrupt:
            print("KeyboardInterrupt")
    """)
    assert out.splitlines() == ["still here", "cancelled", "KeyboardInterrupt"]


def test_ctrl_c_while_a_thread_of_the_executor_works():
    """The run ends when the thread does, for threads cannot be interrupted."""
    out = same_child("""
        gate = threading.Event()
        async def main():
            loop = asyncio.get_running_loop()
            started = threading.Event()
            def work():
                started.set()
                gate.wait(10)
                print("work done")
            future = loop.run_in_executor(None, work)
            started.wait(10)
            loop.call_soon(os.kill, os.getpid(), signal.SIGINT)
            try:
                await future
            except asyncio.CancelledError:
                print("cancelled")
                gate.set()
                raise
        try:
            impl.run(main())
        except KeyboardInterrupt:
            print("KeyboardInterrupt")
    """)
    assert sorted(out.splitlines()) == ["KeyboardInterrupt", "cancelled", "work done"]


def test_ctrl_c_in_another_threads_run_is_the_main_threads():
    """A Runner in a thread leaves SIGINT alone; KeyboardInterrupt is raised where Python raises it."""
    out = same_child("""
        release = threading.Event()
        def work():
            async def main():
                loop = asyncio.get_running_loop()
                os.kill(os.getpid(), signal.SIGINT)
                return await loop.run_in_executor(None, release.wait, 10)
            print("thread:", impl.run(main()))
        thread = threading.Thread(target=work)
        try:
            thread.start()
            threading.Event().wait(10)
        except KeyboardInterrupt:
            print("KeyboardInterrupt")
        release.set()
        thread.join()
    """)
    assert out.splitlines() == ["KeyboardInterrupt", "thread: True"]
