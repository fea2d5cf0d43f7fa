"""How a child ends, and who gets to know."""

import asyncio
import contextlib
import os
import signal
import threading

import pytest

from support import PY, same, same_child, settle
from support.net import LIMIT, io_settled
from support.proc import Process, anonymous, attend, finish, gone, has_children, is_alive, run, sh, spawn


@contextlib.contextmanager
def pidfd_watcher():
    """asyncio of Python 3.11 waits in threads, which cannot be outrun reliably; it has this one, too."""
    if PY > (3, 11):
        yield
        return
    policy = asyncio.get_event_loop_policy()
    watcher = asyncio.PidfdChildWatcher()
    watcher.attach_loop(asyncio.get_running_loop())
    policy.set_child_watcher(watcher)
    try:
        yield
    finally:
        watcher.attach_loop(None)
        policy.set_child_watcher(asyncio.ThreadedChildWatcher())


@pytest.mark.parametrize("status", [0, 1, 3, 127, 128, 255])
def test_exit_status(status):
    assert same(lambda impl: impl.run(run(*sh("exit $1", status))))[0] == status


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1, signal.SIGINT, signal.SIGABRT,
                                 signal.SIGSEGV, signal.SIGRTMIN, signal.SIGRTMAX], ids=int)
def test_death_by_a_signal(sig):
    script = "ulimit -c 0; kill -$1 $$"
    assert same(lambda impl: impl.run(run(*sh(script, int(sig)), env={})))[0] == -sig  # not a sanitizer's


def test_many_waiters():
    """All of them get the status, those who came before the exit and those after."""
    def body(impl):
        async def main():
            process = await spawn(*sh("cat; exit 9"))
            waiters = [asyncio.ensure_future(process.wait()) for _ in range(20)]
            await settle()
            waiters[3].cancel()
            seen = [process.returncode, sum(w.done() for w in waiters)]
            process.stdin.close()
            found = await asyncio.gather(*waiters, return_exceptions=True)
            seen.append([type(f).__name__ if isinstance(f, BaseException) else f for f in found])
            seen += [await process.wait(), await process.wait(), process.returncode]
            return seen
        return impl.run(main())
    statuses = [9] * 20
    statuses[3] = "CancelledError"
    assert same(body) == [None, 0, statuses, 9, 9, 9]


def test_wait_for_leaves_the_child_alone():
    def body(impl):
        async def main():
            process = await spawn("/bin/cat")
            try:
                await asyncio.wait_for(process.wait(), 0.01)
            except TimeoutError:
                seen = ["timeout", process.returncode, is_alive(process.pid)]
            waiting = asyncio.ensure_future(process.wait())
            await settle()
            waiting.cancel("enough")
            try:
                await waiting
            except asyncio.CancelledError as exc:
                seen.append(exc.args)
            process.kill()
            seen.append(await process.wait())
            return seen
        return impl.run(main())
    assert same(body) == ["timeout", None, True, ["enough"], -9]


@pytest.mark.parametrize("method, args, status", [
    ("send_signal", (signal.SIGUSR2,), -signal.SIGUSR2),
    ("send_signal", (int(signal.SIGHUP),), -signal.SIGHUP),
    ("terminate", (), -signal.SIGTERM),
    ("kill", (), -signal.SIGKILL),
])
def test_signals_before_and_after_the_exit(method, args, status):
    def body(impl):
        async def main():
            process = await spawn("/bin/cat")
            seen = [getattr(process, method)(*args), await process.wait()]
            await settle()
            for _ in range(2):
                try:
                    getattr(process, method)(*args)
                except ProcessLookupError as exc:
                    seen.append(("ProcessLookupError", exc.args))
            return seen
        return impl.run(main())
    assert same(body) == [None, status, ["ProcessLookupError", []], ["ProcessLookupError", []]]


@pytest.mark.skipif(PY < (3, 13), reason="asyncio of this version takes the status itself then, and tells 255")
@pytest.mark.parametrize("method", ["terminate", "kill"])
def test_signal_to_a_zombie_is_no_error(method):
    """It has exited, and the loop does not know yet."""
    def body(impl):
        async def main():
            process = await spawn("/bin/cat")
            os.kill(process.pid, signal.SIGUSR1)
            gone(process.pid)
            return getattr(process, method)(), process.returncode, await process.wait()
        return impl.run(main())
    assert same(body) == [None, None, -signal.SIGUSR1]


@pytest.mark.parametrize("bad", [-1, 1000, "TERM", None, 1.5], ids=repr)
def test_bad_signals(bad):
    def body(impl):
        async def main():
            process = await spawn("/bin/cat")
            try:
                process.send_signal(bad)
                said = "nothing"
            except Exception as exc:
                said = type(exc).__name__, str(exc)
            return said, await finish(process)
        return impl.run(main())
    assert same(body)[1] == [0, b"", b""]


def test_stopped_is_not_exited():
    def body(impl):
        async def main():
            process = await spawn("/bin/cat")
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            await io_settled()
            seen = [process.returncode]
            process.send_signal(signal.SIGCONT)
            await io_settled()
            seen.append(process.returncode)
            seen.append(await finish(process, b"still here"))
            return seen
        return impl.run(main())
    assert same(body) == [None, None, [0, b"still here", b""]]


def test_exit_before_anybody_waits():
    def body(impl):
        async def main():
            process = await spawn("/bin/cat")
            os.kill(process.pid, signal.SIGUSR1)
            gone(process.pid)
            return process.returncode, await process.wait(), has_children()
        return impl.run(main())
    assert same(body) == [None, -signal.SIGUSR1, False]


def test_exit_before_the_pipes_are_connected():
    """The child is a zombie before the protocol has heard of it."""
    def body(impl):
        async def main():
            class Watching(Process):
                def connection_made(self, transport):
                    gone(transport.get_pid())
                    super().connection_made(transport)
            protocol = Watching()
            transport = await attend(protocol, *sh("echo out; exit 6"))
            await protocol.wait("connection_lost")
            transport.close()
            return transport.get_returncode(), bytes(protocol.pipes[1]), protocol.names()[0]
        return impl.run(main())
    assert same(body) == [6, b"out\n", "connection_made"]


def test_wait_after_the_loop_has_idled_past_the_exit():
    def body(impl):
        with impl.loop() as loop:
            process = loop.run_until_complete(spawn(*sh("exit 7")))
            gone(process.pid)
            loop.run_until_complete(process.wait())
            loop.run_until_complete(io_settled())
            return process.returncode, loop.run_until_complete(process.wait())
    assert same(body) == [7, 7]


def test_loop_stops_and_runs_again_while_a_child_lives():
    def body(impl):
        with impl.loop() as loop:
            process = loop.run_until_complete(spawn("/bin/cat"))
            seen = []
            for _ in range(3):
                loop.run_until_complete(asyncio.sleep(0))
                seen.append(process.returncode)
            process.kill()
            gone(process.pid)
            seen += [process.returncode, loop.run_until_complete(process.wait())]
            return seen
    assert same(body) == [None, None, None, None, -9]


@pytest.mark.hang(60)
def test_two_hundred_children_at_once():
    def body(impl):
        async def main():
            children = [await asyncio.create_subprocess_exec(*sh("cat >/dev/null; exit $1", n % 7), stdin=-1)
                        for n in range(200)]
            alive = sum(is_alive(c.pid) for c in children), len({c.pid for c in children})
            for child in children:
                child.stdin.close()
            async with asyncio.timeout(30):
                statuses = await asyncio.gather(*[c.wait() for c in children])
            return alive, statuses, has_children()
        return impl.run(main())
    assert same(body) == [[200, 200], [n % 7 for n in range(200)], False]


def test_children_that_exit_at_the_same_moment():
    """All zombies before the loop looks once."""
    def body(impl):
        async def main():
            children = [await asyncio.create_subprocess_exec(*sh("exit $1", n)) for n in range(50)]
            for child in children:
                gone(child.pid)
            return await asyncio.gather(*[c.wait() for c in children]), has_children()
        return impl.run(main())
    assert same(body) == [list(range(50)), False]


# somebody else took the status

@pytest.mark.parametrize("debug", [False, True])
def test_reaped_by_somebody_else(log, debug):
    def body(impl):
        async def main():
            with pidfd_watcher():
                process = await spawn("/bin/cat")
                os.kill(process.pid, signal.SIGKILL)
                pid, status = os.waitpid(process.pid, 0)
                return os.waitstatus_to_exitcode(status), await process.wait(), process.returncode
        seen = impl.run(main(), debug=debug)
        return seen, [(level, anonymous(text)) for level, text in log.take()]
    seen, said = same(body)
    assert seen == [-9, 255, 255]
    assert len(said) == 1 and "pid N exit status already read:  will report returncode 255" in said[0][1]


def in_one_wording(text):
    """3.11's own watcher is one of threads, and says the same in other words than the one of pidfds."""
    threads, pidfds = "Unknown child process pid N,", "child process pid N exit status already read: "
    return anonymous(text).replace(threads, pidfds)


def test_children_that_the_kernel_reaps():
    """With SIGCHLD ignored there is no status to be had, and asyncio says 255."""
    out = same_child("""
        import logging
        from support.proc import run, sh
        logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s", level=logging.WARNING)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        print(impl.run(run(*sh("cat; exit 3"), input=b"out")))
    """, normal=in_one_wording)
    assert out.startswith("WARNING ") and out.endswith("(255, b'out', b'')\n")


def test_status_of_a_child_of_another_is_left_alone():
    """Who starts children without the loop waits for them himself, and gets the status."""
    def body(impl):
        async def main():
            pid = os.posix_spawn("/bin/sh", sh("exit 4"), {})
            code, out, _ = await run(*sh("echo ours"))
            gone(pid)
            await io_settled()
            return code, out, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return impl.run(main())
    assert same(body) == [0, b"ours\n", 4]


def test_popen_object_knows_the_status():
    def body(impl):
        async def main():
            protocol = Process()
            transport = await attend(protocol, *sh("cat; exit 3"))
            popen = transport.get_extra_info("subprocess")
            seen = [popen.pid == transport.get_pid(), popen.returncode]
            transport.get_pipe_transport(0).close()
            await protocol.wait("connection_lost")
            seen += [popen.returncode, popen.poll()]
            transport.close()
            return seen
        return impl.run(main())
    assert same(body) == [True, None, 3, 3]


# threads

@pytest.mark.parametrize("debug", [False, True])
def test_in_a_thread_that_is_not_the_main_thread(debug):
    def body(impl):
        found = []

        def work():
            found.append(impl.run(run(*sh("cat; echo err >&2; exit 3"), input=b"in"), debug=debug))
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(LIMIT)
        return found
    assert same(body) == [[3, b"in", b"err\n"]]


def test_loops_in_many_threads_have_their_own_children():
    def body(impl):
        found = [None] * 6

        def work(k):
            async def main():
                return await asyncio.gather(*[run(*sh("cat; exit $1", k), input=b"%d/%d" % (k, n)) for n in range(8)])
            found[k] = impl.run(main())
        threads = [threading.Thread(target=work, args=(k,)) for k in range(len(found))]
        for t in threads:
            t.start()
        for t in threads:
            t.join(LIMIT)
        return found
    assert same(body) == [[[k, b"%d/%d" % (k, n), b""] for n in range(8)] for k in range(6)]


def test_main_thread_without_a_loop_is_not_needed():
    """Nor are signals: the main thread sits in a lock while another one's children end."""
    def body(impl):
        done = threading.Event()
        found = []

        def work():
            found.append(impl.run(run(*sh("exit 4")))[0])
            done.set()
        thread = threading.Thread(target=work)
        thread.start()
        ended = done.wait(LIMIT)
        thread.join(LIMIT)
        return ended, found
    assert same(body) == [True, [4]]


def test_waiting_in_one_loop_for_a_child_of_another():
    """run_coroutine_threadsafe is the way; the second loop knows nothing of children."""
    def body(impl):
        with impl.loop() as loop:
            ready = threading.Event()
            loop.call_soon(ready.set)
            thread = threading.Thread(target=loop.run_forever)
            thread.start()
            ready.wait(LIMIT)

            async def main():
                return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(run(*sh("cat"), input=b"far"), loop))
            found = impl.run(main())
            loop.call_soon_threadsafe(loop.stop)
            thread.join(LIMIT)
        return found
    assert same(body) == [0, b"far", b""]
