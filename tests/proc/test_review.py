"""What a review of child processes found: forks that hold a pidfd, tools that were there first, and the turns between."""

import asyncio
import os
import signal
import subprocess
import sys
import warnings

import pytest

from support import FASTLOOP, PY, check_child, same, same_child

PIPE = subprocess.PIPE


def test_a_fork_that_holds_the_pidfd(way):
    """The poller must not go on to report what was closed here only."""
    out = check_child(FASTLOOP, """
    import time, warnings
    warnings.simplefilter("ignore")

    async def main():
        process = await asyncio.create_subprocess_exec("/bin/sleep", "0.1")
        pid = os.fork()
        if pid == 0:
            time.sleep(1)
            os._exit(0)
        await process.wait()
        before = time.process_time()
        await asyncio.sleep(0.4)
        print(time.process_time() - before < 0.1)
        os.waitpid(pid, 0)

    impl.run(main())
    """)
    assert out == "True\n"


def test_wait_ends_after_connection_lost(way):
    """Then a signal is an error, and not lost."""

    def body(impl):
        async def main():
            found = []
            for _ in range(3):
                process = await asyncio.create_subprocess_shell("sleep 0.05; exit 3")
                found.append(await process.wait())
                with pytest.raises(ProcessLookupError):
                    process.kill()
            return found

        return impl.run(main())

    same(body)


def test_order_without_pipes(way):
    class Notes(asyncio.SubprocessProtocol):
        def __init__(self):
            self.notes = []

        def process_exited(self):
            self.notes.append("process_exited")

        def connection_lost(self, exc):
            self.notes.append("connection_lost")

    def body(impl):
        async def main():
            transport, protocol = await asyncio.get_running_loop().subprocess_exec(
                Notes, "/bin/sleep", "0.05", stdin=None, stdout=None, stderr=None)
            await transport._wait()
            protocol.notes.append("waited")
            transport.close()
            return protocol.notes

        return impl.run(main())

    same(body)


@pytest.mark.parametrize("patch", [
    "subprocess.Popen.__init__ = lambda self, *a, **k: print('patched') or init(self, *a, **k)",
    "subprocess.Popen = type('Mine', (subprocess.Popen,), "
    "{'__init__': lambda self, *a, **k: print('patched') or init(self, *a, **k)})",
    "exec(WITH_SAME_STEP)",
])  # fmt: skip
def test_popen_replaced_before_we_were_imported(patch):
    code = f"""
import asyncio, subprocess, sys

init, step = subprocess.Popen.__init__, subprocess.Popen._execute_child
WITH_SAME_STEP = '''
names = ", ".join(step.__code__.co_varnames[: step.__code__.co_argcount])
exec(f"def _execute_child({{names}}): print('patched'); return step({{names}})", globals())
subprocess.Popen._execute_child = _execute_child
'''
{patch}
sys.path[:0] = {sys.path!r}
import fastloop

async def main():
    process = await asyncio.create_subprocess_exec("/bin/echo", "x", stdout=-1)
    print((await process.communicate())[0])

fastloop.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout == "patched\nb'x\\n'\n", done.stderr


@pytest.mark.parametrize("missing", [["P_PIDFD"], ["pidfd_send_signal"], ["P_PIDFD", "pidfd_send_signal", "pidfd_open"]])
def test_a_python_built_for_an_older_kernel(way, missing, monkeypatch):
    """The kernel gives a pidfd to us, but Python has no functions for it."""
    for name in missing:
        for module in (os, signal):
            monkeypatch.delattr(module, name, raising=False)

    def body(impl):
        async def main():
            process = await asyncio.create_subprocess_exec("/bin/sleep", "30")
            process.send_signal(signal.SIGTERM)
            found = [await process.wait()]
            process = await asyncio.create_subprocess_exec("/bin/sleep", "30")
            process._transport.close()
            return [*found, await process.wait()]

        return impl.run(main())

    assert body(FASTLOOP) == [-15, -9]


def test_a_sandbox_without_pidfd_send_signal(way, monkeypatch):
    def no(*arguments):
        raise PermissionError(1, "no")

    monkeypatch.setattr(signal, "pidfd_send_signal", no)

    async def main():
        process = await asyncio.create_subprocess_exec("/bin/sleep", "30")
        process.terminate()
        return await process.wait()

    assert FASTLOOP.run(main()) == -15


def test_zombies_of_others_are_taken(way):
    """As each new Popen has it: those that were dropped while they ran."""

    def body(impl):
        async def main():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                subprocess.Popen(["/bin/sleep", "0.02"])
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            process = await asyncio.create_subprocess_exec("/bin/true")
            await process.wait()
            return len(subprocess._active)

        return impl.run(main())

    assert same(body) == 0


@pytest.mark.skipif(PY < (3, 12) or PY > (3, 13), reason="where a policy's child watchers are deprecated")
def test_a_policy_that_hands_its_watcher_out():
    code = """
    class Policy(asyncio.DefaultEventLoopPolicy):
        def get_child_watcher(self):
            return super().get_child_watcher()

    async def main():
        process = await asyncio.create_subprocess_exec("/bin/true")
        return await process.wait()

    import warnings
    warnings.simplefilter("error")
    asyncio.set_event_loop_policy(Policy())
    print(impl.run(main()))
    """
    assert same_child(code) == "0\n"
