"""How a loop learns that a child has ended, and what happens when others have a hand in it."""

import asyncio
import contextvars
import gc
import logging
import os
import re
import signal
import subprocess
import threading
import time
import warnings

import pytest

from support import FASTLOOP, PY, same

PIPE = subprocess.PIPE


class Notes(asyncio.SubprocessProtocol):
    """Notes every callback in order; the pipes' among themselves do not have one."""

    def __init__(self):
        self.notes = []
        self.data = {1: b"", 2: b""}
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.notes.append("connection_made")

    def pipe_data_received(self, fd, data):
        assert "connection_made" in self.notes
        assert ("pipe_connection_lost", fd) not in self.notes
        self.data[fd] += data

    def pipe_connection_lost(self, fd, exc):
        self.notes.append(("pipe_connection_lost", fd))

    def process_exited(self):
        self.notes.append("process_exited")

    def connection_lost(self, exc):
        self.notes.append(("connection_lost", exc))
        self.done.set_result(None)

    def summary(self):
        first, *between, last = self.notes
        return first, sorted(map(str, between)), last, self.data


@pytest.mark.parametrize("pipes", [(None, None, None), (PIPE, PIPE, PIPE), (None, PIPE, None), (None, PIPE, -2)])
def test_callbacks(way, pipes):
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            stdin, stdout, stderr = pipes
            command = "sleep 0.1; echo out; echo error >&2" if stdout else "sleep 0.1"
            if stdin:
                command = "cat; echo error >&2"
            transport, protocol = await loop.subprocess_shell(Notes, command, stdin=stdin, stdout=stdout, stderr=stderr)
            assert protocol.transport is transport
            assert protocol.notes == ["connection_made"]
            assert transport.get_protocol() is protocol and not transport.is_closing()
            names = [type(transport.get_pipe_transport(fd)).__name__.strip("_").removeprefix("Unix") for fd in range(4)]
            if stdin:
                transport.get_pipe_transport(0).write(b"in")
                transport.get_pipe_transport(0).close()
            assert await transport._wait() == 0
            await protocol.done
            found = protocol.summary(), transport.get_returncode(), transport.is_closing(), names
            transport.close()
            return found, transport.is_closing()

        return impl.run(main())

    same(body)


@pytest.mark.skipif(PY < (3, 12), reason="asyncio learns it from a thread there, which has a context of its own")
def test_contexts(way):
    """Each callback sees the variables that it sees on asyncio."""
    variable = contextvars.ContextVar("variable", default="none")

    class Seeing(Notes):
        def __init__(self):
            super().__init__()
            self.seen = [("factory", variable.get())]

        def __getattribute__(self, name):
            if name in ("connection_made", "pipe_data_received", "pipe_connection_lost", "process_exited",
                        "connection_lost"):
                self.seen.append((name, variable.get()))
            return super().__getattribute__(name)

        def connection_made(self, transport):
            super().connection_made(transport)
            variable.set("connection_made")

        def process_exited(self):
            super().process_exited()
            self.seen.append(("exited", variable.get()))
            variable.set("process_exited")

        def connection_lost(self, exc):
            self.seen.append(("lost", variable.get()))
            super().connection_lost(exc)

    def body(impl):
        async def main():
            variable.set("before")
            transport, protocol = await asyncio.get_running_loop().subprocess_shell(
                Seeing, "read x; echo x; exit 3", stdin=PIPE, stdout=PIPE, stderr=None)
            variable.set("after")
            transport.get_pipe_transport(0).write(b"\n")
            variable.set("at last")
            await protocol.done
            transport.close()
            return sorted(protocol.seen), variable.get()

        return impl.run(main())

    same(body)


@pytest.mark.skipif(PY < (3, 12), reason="eager tasks are new in 3.12")
def test_eager_tasks(way):
    """The task that spawns may be eager, and so may be the ones that asyncio makes."""

    def body(impl):
        async def main():
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
            task = asyncio.create_task(asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE))
            assert not task.done()
            process = await task
            return await process.communicate(b"input"), process.returncode

        return impl.run(main())

    same(body)


def test_flow_control(way):
    """More than pipes hold, in both directions; and limits of the reader."""

    def body(impl):
        async def main():
            process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE, limit=1000)
            data = os.urandom(1_000_000)
            out, _ = await process.communicate(data)
            return out == data, process.returncode

        return impl.run(main())

    same(body)


def test_the_reader_of_stdin_goes(way):
    def body(impl):
        async def main():
            process = await asyncio.create_subprocess_shell("exec 0<&-; sleep 0.1; exit 3", stdin=PIPE)
            await asyncio.sleep(0.05)
            found = await process.communicate(b"x" * 1_000_000)
            return found, process.returncode

        return impl.run(main())

    same(body)


def test_in_a_forked_child(way):
    """The parent's loop is not the child's: the error comes before anything is started."""
    from support import check_child

    out = check_child(FASTLOOP, """
    async def main():
        pid = os.fork()
        if pid == 0:
            try:
                await asyncio.create_subprocess_exec("/bin/echo", "started")
            except RuntimeError as exc:
                print("RuntimeError", flush=True)
            os._exit(0)
        os.waitpid(pid, 0)

    warnings.simplefilter("ignore")
    impl.run(main())
    """)
    assert out == "RuntimeError\n"


def test_repr(way):
    def body(impl):
        async def main():
            process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE)
            transport = process._transport
            found = [repr(transport).replace(str(process.pid), "PID").partition(" stdin=")[0]]
            process.stdin.close()
            await process.wait()
            await asyncio.sleep(0.01)
            found.append(repr(transport).replace(str(process.pid), "PID").partition(" stdin=")[0])
            return found, repr(process).replace(str(process.pid), "PID")

        return impl.run(main())

    same(body)


@pytest.mark.parametrize("script, code", [
    ("exit 0", 0), ("exit 1", 1), ("exit 255", 255), ("kill -9 $$", -9), ("kill -TERM $$", -15), ("kill -34 $$", -34),
])  # fmt: skip
def test_return_codes(way, script, code):
    async def main():
        process = await asyncio.create_subprocess_shell(script)
        assert process.returncode in (None, code)
        assert await process.wait() == code
        assert await process.wait() == code == process.returncode

    FASTLOOP.run(main())


def test_many_at_once(way):
    async def one(i):
        process = await asyncio.create_subprocess_shell(f"read line; exit {i}", stdin=PIPE)
        process.stdin.close()
        return await process.wait()

    async def main():
        return await asyncio.gather(*[one(i) for i in range(100)])

    assert FASTLOOP.run(main()) == list(range(100))


def test_many_waiters_and_cancelled_ones(way):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE)
        waiters = [asyncio.create_task(process.wait()) for _ in range(10)]
        for _ in range(20):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(process.wait(), 0.001)
        waiters[3].cancel()
        process.stdin.close()
        found = await asyncio.gather(*waiters, return_exceptions=True)
        assert isinstance(found.pop(3), asyncio.CancelledError)
        assert found == [0] * 9

    FASTLOOP.run(main())


@pytest.mark.hang(120)
def test_loops_in_many_threads(way):
    """No thread is special, none is made for a child, and nobody takes another's."""
    failed = []

    def work(number):
        async def main():
            for i in range(20):
                process = await asyncio.create_subprocess_shell(f"exit {number * 20 + i}", stdout=PIPE)
                await process.communicate()
                assert process.returncode == number * 20 + i
                assert threading.active_count() <= 9

        try:
            FASTLOOP.run(main())
        except BaseException as exc:
            failed.append(exc)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_sigchld_is_the_users(way):
    seen = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, seen.append, "handler")
        process = await asyncio.create_subprocess_exec("/bin/true")
        assert await process.wait() == 0
        await asyncio.sleep(0.05)
        loop.remove_signal_handler(signal.SIGCHLD)

    before = signal.getsignal(signal.SIGCHLD)
    FASTLOOP.run(main())
    assert seen == ["handler"]
    assert signal.getsignal(signal.SIGCHLD) is before


def test_somebody_else_reaps(way, log):
    """A SIGCHLD handler with waitpid(-1), say: the status is lost, and that is said."""

    async def main():
        process = await asyncio.create_subprocess_shell("sleep 0.1; exit 3")
        pid = process.pid
        assert os.waitpid(pid, 0)[0] == pid
        return await process.wait()

    assert FASTLOOP.run(main()) == 255
    [message] = log.messages()
    assert "already read" in message and "255" in message


def test_sigchld_ignored(way, log):
    """Then the kernel throws the status away."""

    def body(impl):
        async def main():
            process = await asyncio.create_subprocess_shell("sleep 0.1; exit 3")
            return await process.wait()

        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            return impl.run(main())
        finally:
            signal.signal(signal.SIGCHLD, before)

    same(body)
    assert len(log.messages()) == 2


def test_the_popen_reaps(way):
    """poll() of the Popen behind the transport: it knows the status."""

    async def main():
        process = await asyncio.create_subprocess_shell("exit 3")
        popen = process._transport.get_extra_info("subprocess")
        assert popen.wait() == 3
        return await process.wait()

    assert FASTLOOP.run(main()) == 3


def test_signals(way):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/sleep", "30")
        process.send_signal(0)
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(OSError):
            process.send_signal(1000)
        process.terminate()
        process.send_signal(signal.SIGCONT)
        assert await process.wait() == -15
        await asyncio.sleep(0.01)
        with pytest.raises(ProcessLookupError):
            process.kill()

        process = await asyncio.create_subprocess_exec("/bin/sleep", "30")
        process.kill()
        time.sleep(0.02)
        process.kill()  # a zombie
        process.terminate()
        assert await process.wait() == -9

    FASTLOOP.run(main())


def test_close_kills(way):
    def body(impl):
        async def main():
            process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE)
            transport = process._transport
            transport.close()
            transport.close()
            return await process.wait(), transport.is_closing(), process.stdin.is_closing()

        return impl.run(main())

    same(body)


def test_close_after_the_end(way):
    """Ended, but not noticed yet: the status is not lost."""

    async def main():
        process = await asyncio.create_subprocess_shell("exit 3")
        time.sleep(0.03)
        process._transport.close()
        return await process.wait()

    assert FASTLOOP.run(main()) == 3


def test_cancelled_while_connecting(way):
    """The child is ended and waited for."""

    async def main():
        task = asyncio.create_task(asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.05)

    FASTLOOP.run(main())


def test_connection_made_raises(way, log):
    def body(impl):
        class Failing(Notes):
            def connection_made(self, transport):
                super().connection_made(transport)
                raise ValueError("connection_made")

        async def main():
            transport, protocol = await asyncio.get_running_loop().subprocess_exec(Failing, "/bin/true", stdin=None)
            await protocol.done
            transport.close()
            return protocol.summary()

        return impl.run(main())

    same(body)
    assert len(log.take()) == 2


def test_debug_mode(log):
    """Children are logged as asyncio logs them."""

    def body(impl):
        async def main():
            process = await asyncio.create_subprocess_shell("exit 3", stdout=PIPE)
            await process.communicate()

        log.details.clear()
        impl.run(main(), debug=True)
        texts = [re.sub(r"\b_Unix(?=(Read|Write)Pipe)|\d+", "", text) for _, text in log.details]
        # which of output and exit comes first is up to the kernel
        return sorted({text.partition(": <")[0].partition(" fd=")[0].partition(" pid=")[0] for text in texts
                       # the last is what asyncio's threads on 3.11 say
                       if not text.startswith(("Using selector", "Close <", "process  exited"))})

    logging.getLogger("asyncio").setLevel(logging.DEBUG)
    same(body)
    log.take()


@pytest.mark.leaves("asyncio's loops leave a descriptor and more behind that way; ours must end the child")
def test_loop_closed_before_the_end(way):
    fds = len(os.listdir("/proc/self/fd"))
    loop = FASTLOOP.new_loop()

    async def main():
        return await asyncio.create_subprocess_exec("/bin/sleep", "30")

    process = loop.run_until_complete(main())
    pid = process.pid
    loop.close()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del process
        gc.collect()
        found = [str(warning.message) for warning in caught]
        caught.clear()  # a warning holds the transport
        gc.collect()
    assert any("unclosed transport" in text for text in found)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        subprocess._cleanup()
        if not os.path.exists(f"/proc/{pid}"):
            break
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{pid}")
    assert len(os.listdir("/proc/self/fd")) == fds


def test_stopped_children_have_not_ended(way):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/sleep", "30")
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(process.wait(), 0.05)
        process.kill()
        assert await process.wait() == -9

    FASTLOOP.run(main())


def test_no_pidfd(way, no_pidfd):
    """A thread waits for the child instead."""

    async def main():
        process = await asyncio.create_subprocess_shell("cat; exit 3", stdin=PIPE, stdout=PIPE)
        assert any("waitpid" in thread.name for thread in threading.enumerate())
        assert await process.communicate(b"x") == (b"x", None)
        assert process.returncode == 3
        process = await asyncio.create_subprocess_exec("/bin/sleep", "30")
        process.terminate()
        assert await process.wait() == -15
        process = await asyncio.create_subprocess_exec("/bin/sleep", "30")
        process._transport.close()
        assert await process.wait() == -9
        for thread in threading.enumerate():
            if "waitpid" in thread.name:
                thread.join()

    FASTLOOP.run(main())


@pytest.mark.skipif(PY >= (3, 14), reason="child watchers are gone")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["SafeChildWatcher", "ThreadedChildWatcher", "PidfdChildWatcher", "none"])
def test_watchers_of_the_user(name):
    """One that is not asyncio's default is used; it may not be active."""
    used = []

    async def main():
        if name == "SafeChildWatcher":
            with pytest.raises(RuntimeError, match="not activated"):
                await asyncio.create_subprocess_exec("/bin/true")
        if watcher is not None:
            watcher.attach_loop(asyncio.get_running_loop())
        process = await asyncio.create_subprocess_shell("exit 3")
        return await process.wait()

    if name == "none":
        watcher = None
    else:
        base = getattr(asyncio, name)

        class Watcher(base):
            def add_child_handler(self, *args):
                used.append(args[0])
                super().add_child_handler(*args)

        watcher = Watcher()
    asyncio.set_child_watcher(watcher)
    try:
        assert FASTLOOP.run(main()) == 3
        assert len(used) == (name != "none")
        if watcher is not None:
            watcher.close()
            for thread in threading.enumerate():
                if "waitpid" in thread.name:
                    thread.join()
    finally:
        asyncio.set_child_watcher(None)


@pytest.mark.hang(120)
def test_nothing_is_left_of_many(way):
    async def main():
        for i in range(300):
            process = await asyncio.create_subprocess_shell(f"exit {i % 100}", stdout=PIPE)
            await process.communicate()
            assert process.returncode == i % 100

    fds = os.listdir("/proc/self/fd")
    FASTLOOP.run(main())
    assert os.listdir("/proc/self/fd") == fds
