"""SubprocessProtocol's callbacks and the transport: what is called when, and what close() does."""

import asyncio
import gc
import logging
import os
import re
import signal
import threading
import warnings
import weakref

import pytest

from support import IMPLS, PY, outcome, same, same_child, settle
from support.net import LIMIT, Reports, io_settled
from support.proc import Process, anonymous, attend, finish, gone, is_alive, run, sh, spawn


async def lost(protocol):
    await protocol.wait("connection_lost")
    await settle(2)


# Scripts whose pipes end and whose process exits in an order that is certain; input's end is the signal.
SCRIPTS = {
    "output ends first": (
        "echo out; exec 1>&-; echo err >&2; exec 2>&-; read -r line; exit 3",
        [("pipe_data_received", 1, b"out\n"), ("pipe_connection_lost", 1, None), ("pipe_data_received", 2, b"err\n"),
         ("pipe_connection_lost", 2, None)],
    ),
    "no output": ("exec 1>&- 2>&-; read -r line; exit 0",
                  [("pipe_connection_lost", 1, None), ("pipe_connection_lost", 2, None)]),
}


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("which", SCRIPTS)
def test_order_of_callbacks(which, debug):
    """Pipes in turn, then the input, then the exit, then the connection."""
    script, events = SCRIPTS[which]

    def body(impl):
        async def main():
            protocol = Process()
            transport = await attend(protocol, *sh(script))
            await protocol.until(lambda: protocol.names().count("pipe_connection_lost") == 2)
            before = sorted(protocol.trace[1:]), transport.get_returncode()
            transport.get_pipe_transport(0).close()
            await lost(protocol)
            after = protocol.names()[len(before[0]) + 1:]
            transport.close()
            return protocol.trace[0], before, after, transport.get_returncode()
        return impl.run(main(), debug=debug)
    first, before, after, code = same(body)
    assert first == ["connection_made"]
    assert before == [sorted(map(list, events)), None]
    # The input's end and the exit are two events of the kernel; the connection is lost behind both.
    assert sorted(after[:2]) == ["pipe_connection_lost", "process_exited"] and after[2:] == ["connection_lost"]
    assert code == int(script[-1])


def test_exit_comes_before_the_pipes_when_a_grandchild_has_them():
    def body(impl):
        async def main():
            r, w = os.pipe2(os.O_CLOEXEC)
            protocol = Process()
            transport = await attend(protocol, *sh("exec 3</proc/self/fd/$1; cat <&3 & exit 6", r), pass_fds=[r], stdin=None)
            os.close(r)
            await protocol.wait("process_exited")
            seen = protocol.names(), transport.get_returncode()
            os.write(w, b"late")
            os.close(w)
            await lost(protocol)
            after = protocol.trace[2:]
            transport.close()
            return seen, sorted(after[:-1]), after[-1]
        return impl.run(main())
    assert same(body) == [[["connection_made", "process_exited"], 6],
                          [["pipe_connection_lost", 1, None], ["pipe_connection_lost", 2, None],
                           ["pipe_data_received", 1, b"late"]],
                          ["connection_lost", None]]


@pytest.mark.parametrize("keywords", [{}, {"stdin": "of ours"}, {"stdout": None}, {"stderr": asyncio.subprocess.STDOUT},
                                      {"stdin": "of ours", "stdout": None, "stderr": None}], ids=str)
def test_pipe_transports(keywords):
    def body(impl):
        async def main():
            protocol = Process()
            r, w = os.pipe2(os.O_CLOEXEC)
            if keywords.get("stdin") == "of ours":
                transport = await attend(protocol, *sh("exec cat >/dev/null"), **{**keywords, "stdin": r})
            else:
                transport = await attend(protocol, *sh("exec cat >/dev/null"), **keywords)
            os.close(r)
            seen = [outcome(transport.get_pipe_transport, fd)[0] for fd in (0, 1, 2)]
            seen += [transport.get_pipe_transport(fd) is None for fd in (0, 1, 2, 3, -1)]
            seen += [outcome(transport.get_pipe_transport, "1"), transport.is_closing(),
                     transport.get_protocol() is protocol, transport.get_returncode(),
                     transport.get_extra_info("subprocess").pid == transport.get_pid(),
                     transport.get_extra_info("nothing"), transport.get_extra_info("nothing", 3)]
            if transport.get_pipe_transport(0) is not None:
                transport.get_pipe_transport(0).close()
            os.close(w)
            await lost(protocol)
            transport.close()
            return seen, transport.is_closing(), sorted(protocol.trace)
        return impl.run(main())
    same(body)


def test_another_protocol():
    def body(impl):
        async def main():
            first, second = Process(), Process()
            transport = await attend(first, *sh("read -r line; echo out; exit 3"))
            await first.wait("connection_made")
            transport.set_protocol(second)
            seen = [transport.get_protocol() is second]
            transport.get_pipe_transport(0).write(b"go\n")
            await lost(second)
            transport.close()
            return seen, first.names(), second.names()[-1], bytes(second.pipes[1])
        return impl.run(main())
    assert same(body) == [[True], ["connection_made"], "connection_lost", b"out\n"]


def test_flow_control_of_the_input():
    """The pipe's pause_writing and resume_writing reach the process's protocol."""
    def body(impl):
        async def main():
            protocol = Process()
            transport = await attend(protocol, *sh("read -r line; cat >/dev/null"))
            pipe = transport.get_pipe_transport(0)
            pipe.set_write_buffer_limits(100, 10)
            pipe.write(b"x" * 200_000 + b"\n")
            await protocol.wait("resume_writing")
            pipe.close()
            await lost(protocol)
            transport.close()
            names = protocol.names()
            return [n for n in names if n.endswith("_writing")]
        return impl.run(main())
    assert same(body) == ["pause_writing", "resume_writing"]


# close()

@pytest.mark.parametrize("debug", [False, True])
def test_close_kills_a_child_that_runs(log, debug):
    def body(impl):
        async def main():
            protocol = Process()
            transport = await attend(protocol, "/bin/cat")
            await protocol.wait("connection_made")
            pipes = [transport.get_pipe_transport(fd) for fd in range(3)]
            seen = [transport.close(), transport.is_closing(), transport.get_returncode(),
                    [pipe.is_closing() for pipe in pipes]]
            transport.close()
            await lost(protocol)
            seen += [transport.get_returncode(), protocol.names()[-1], sorted(protocol.names())]
            transport.close()
            return seen, [(level, anonymous(text)) for level, text in log.take()]
        return impl.run(main(), debug=debug)
    seen, said = same(body)
    assert seen[:6] == [None, True, None, [True] * 3, -9, "connection_lost"]
    assert seen[6] == ["connection_lost", "connection_made"] + ["pipe_connection_lost"] * 3 + ["process_exited"]
    assert len(said) == debug


@pytest.mark.parametrize("where", ["connection_made", "pipe_data_received", "pipe_connection_lost", "process_exited",
                                   "connection_lost"])
def test_close_in_a_callback(where):
    def body(impl):
        async def main():
            protocol = Process({where: lambda self, *args: self.transport.close()})
            first = "echo out;" if where == "pipe_data_received" else ""
            transport = await attend(protocol, *sh(f"{first} exec 1>&- 2>&-; read -r line; exit 3"))
            if where in ("process_exited", "connection_lost"):
                transport.get_pipe_transport(0).close()
            await lost(protocol)
            found = transport.get_returncode(), sorted(set(protocol.names())), protocol.names()[-1]
            transport.close()
            return found
        return impl.run(main())
    code, names, last = same(body)
    assert code == (3 if where in ("process_exited", "connection_lost") else -9)
    assert last == "connection_lost"


@pytest.mark.parametrize("where", ["connection_made", "pipe_data_received", "pipe_connection_lost", "process_exited",
                                   "connection_lost"])
@pytest.mark.parametrize("error", [LookupError, asyncio.CancelledError])
def test_callback_that_raises(where, error):
    """It is reported, and everything else goes on."""
    def body(impl):
        async def main():
            reports = Reports(asyncio.get_running_loop())

            def broken(self, *args):
                raise error(where)
            protocol = Process({where: broken})
            transport = await attend(protocol, *sh("echo out; exec 1>&- 2>&-; read -r line; exit 3"))
            await protocol.until(lambda: protocol.names().count("pipe_connection_lost") == 2)
            transport.get_pipe_transport(0).close()
            await lost(protocol)
            found = transport.get_returncode(), sorted(protocol.names()), reports.take()
            transport.close()
            return found
        return impl.run(main())
    code, names, _ = same(body)
    assert code == 3 and len(names) == 7


@pytest.mark.parametrize("method", ["send_signal", "kill", "terminate"])
def test_signals_through_the_transport(method):
    def body(impl):
        async def main():
            protocol = Process()
            transport = await attend(protocol, "/bin/cat")
            args = [signal.SIGUSR1] if method == "send_signal" else []
            seen = [getattr(transport, method)(*args)]
            await lost(protocol)
            seen += [transport.get_returncode(), outcome(getattr(transport, method), *args)]
            transport.close()
            seen.append(outcome(getattr(transport, method), *args))
            return seen
        return impl.run(main())
    assert same(body)[2:] == [["raised", "ProcessLookupError", ""]] * 2


def test_methods_after_the_end():
    def body(impl):
        async def main():
            protocol = Process()
            transport = await attend(protocol, *sh("exit 3"))
            pid = transport.get_pid()
            await lost(protocol)
            seen = [transport.get_pid() == pid, transport.get_returncode(), transport.is_closing(),
                    transport.get_pipe_transport(1).is_closing(), transport.get_protocol()]
            transport.close()
            seen += [transport.is_closing(), transport.get_pid() == pid]
            return seen
        return impl.run(main())
    assert same(body) == [True, 3, False, True, None, True, True]


# repr and reports

def test_repr():
    def body(impl):
        async def main():
            protocol = Process()
            transport = await attend(protocol, *sh("read -r line; exit 3"))
            seen = [repr(transport)]
            transport.get_pipe_transport(0).close()
            await lost(protocol)
            seen.append(repr(transport))
            transport.close()
            seen.append(repr(transport))
            process = await spawn("/bin/cat", stderr=asyncio.subprocess.STDOUT)
            seen += [repr(process), repr(process._transport)]
            await finish(process)
            seen.append(repr(process))
            return list(map(anonymous, seen))
        return impl.run(main())
    seen = same(body)
    assert seen[0].startswith("<PROCESS pid=N running stdin=<TRANSPORT fd=N")
    assert seen[2].startswith("<PROCESS closed pid=N returncode=3 stdin=<TRANSPORT closed fd=N")
    assert seen[3] == seen[5] == "<Process N>"


def test_what_debug_mode_logs(log):
    def body(impl):
        log.details.clear()
        logging.getLogger("asyncio").setLevel(logging.DEBUG)

        async def main():
            protocol = Process()
            transport = await attend(protocol, *sh("read -r line; exit 3"))
            transport.get_pipe_transport(0).close()
            await lost(protocol)
            transport.close()
            process = await asyncio.create_subprocess_shell("exit 4", stdin=-3, stderr=asyncio.subprocess.PIPE)
            await process.wait()
            try:
                await asyncio.create_subprocess_exec("/no/such/program")
            except FileNotFoundError:
                pass
        impl.run(main(), debug=True)
        # Without the states of the pipes, and what is said of them, of the loop and by a thread of Python 3.11's asyncio.
        said = [(level, re.sub("<PROCESS.*>", "<PROCESS>", anonymous(text))) for level, text in log.details]
        return sorted(entry for entry in said if re.search("execute|shell|created|return code|Close running", entry[1]))
    said = same(body)
    assert any("execute program '/bin/sh'" in text and "stdin=" in text for _, text in said)
    assert any("run shell command" in text for _, text in said)
    assert any("exited with return code 3" in text for _, text in said)


@pytest.mark.parametrize("when", ["running", "exited"])
def test_transport_that_is_dropped_warns(when):
    """And its child is killed, if it still runs."""
    if when == "running" and PY < (3, 12):
        pytest.skip("asyncio of this version keeps the transport, for a thread that waits")
    out = same_child(f"""
        from support.proc import *
        import gc
        when = {when!r}
        def note(message, category, filename, lineno, file=None, line=None):
            if "Transport" in str(message):
                text = anonymous(str(message))
                print(category.__name__, text.partition(" stdin")[0])
        warnings.showwarning = note
        warnings.simplefilter("always")
        async def main():
            protocol = Process()
            transport = await attend(protocol, "/bin/cat")
            pid = transport.get_pid()
            if when == "exited":
                transport.get_pipe_transport(0).close()
                await protocol.wait("connection_lost")
            return pid
        loop = impl.new_loop()
        pid = loop.run_until_complete(main())
        gc.collect()
        loop.close()
        del loop
        gc.collect()
        if when == "running":
            gone(pid)
        print(is_alive(pid))
    """)
    assert out.splitlines()[-1] == "False"
    status = "running" if when == "running" else "returncode=0"
    assert f"ResourceWarning unclosed transport <PROCESS pid=N {status}" in out


def test_loop_closed_with_children_that_run():
    """close() itself neither waits for them nor kills them; what then becomes of them harms nobody."""
    out = same_child("""
        from support.proc import *
        import gc
        loop = impl.new_loop()
        protocols = [Process() for _ in range(3)]
        transports = [loop.run_until_complete(attend(p, "/bin/cat")) for p in protocols]
        pids = [t.get_pid() for t in transports]
        loop.close()
        print([is_alive(pid) for pid in pids], [t.get_returncode() for t in transports])
        for t in transports[:2]:
            try:
                t.close()
            except RuntimeError:
                pass  # asyncio's pipes say that the loop is closed
        warnings.simplefilter("ignore")
        for p in protocols:
            p.transport = None
        del transports, t
        gc.collect()
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            gone(pid)
        print([is_alive(pid) for pid in pids])
        sys.stdout.flush()
        os._exit(0)
    """, flags=("-W", "ignore"))
    assert out.splitlines()[-1] == "[False, False, False]"
    assert out.startswith("[True, True, True] [None, None, None]")


def test_process_that_nobody_refers_to_is_still_waited_for():
    def body(impl):
        async def main():
            codes = []
            protocol = Process({"connection_lost": lambda self, exc: (codes.append(there().get_returncode()),
                                                                      there().close())})
            there = weakref.ref(await attend(protocol, *sh("read -r line; exit 3")))
            await protocol.wait("connection_made")
            protocol.transport = None
            gc.collect()
            await io_settled()
            there().get_pipe_transport(0).close()
            await lost(protocol)
            return codes
        return impl.run(main())
    assert same(body) == [3]


def test_transport_is_freed_after_the_end():
    """Without the collector's help."""
    def body(impl):
        async def main():
            protocol = Process()
            transport = await attend(protocol, *sh("read -r line; exit 3"))
            transport.get_pipe_transport(0).close()
            await lost(protocol)
            transport.close()
            await io_settled()
            for thread in threading.enumerate():
                if "waitpid" in thread.name:  # asyncio of Python 3.11: it has the transport until it ends
                    thread.join(LIMIT)
            there = weakref.ref(transport)
            gc.disable()
            protocol.transport = None
            del transport
            freed = there() is None
            gc.enable()
            gc.collect()
            return freed, there() is None
        try:
            return impl.run(main())
        finally:
            gc.enable()
    seen = {impl.name: body(impl) for impl in IMPLS.values()}
    assert seen["fastloop"][1] and seen["asyncio"][1]
    assert seen["fastloop"][0] or not seen["asyncio"][0]


def test_cancelled_while_the_pipes_are_being_connected():
    """Whoever is cancelled in create_subprocess_exec() leaves neither a child nor a descriptor."""
    def body(impl):
        async def main():
            await run("/bin/true")
            await io_settled()
            before = len(os.listdir("/proc/self/fd"))
            results = []
            for rounds in range(6):
                task = asyncio.ensure_future(spawn("/bin/cat"))
                await settle(rounds)
                task.cancel()
                try:
                    process = await task
                except asyncio.CancelledError:
                    results.append("cancelled")
                else:
                    results.append("made")
                    await finish(process)
            await io_settled(5)
            gc.collect()
            async with asyncio.timeout(LIMIT):
                while len(os.listdir("/proc/self/fd")) != before:
                    await io_settled(1)
            return set(results) <= {"cancelled", "made"}, results[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            found = impl.run(main())
            gc.collect()
        return found
    assert same(body) == [True, "cancelled"]
