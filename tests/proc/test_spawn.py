"""What a child gets from its parent, and what comes of one that cannot be started."""

import asyncio

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fastloop import _processes
from support import FASTLOOP, check_child, same, same_child

PIPE, STDOUT, DEVNULL = subprocess.PIPE, subprocess.STDOUT, subprocess.DEVNULL
SH = "/bin/sh"


def run_in(impl, *args, shell=False, input=None, **kwargs):
    """(return code, stdout, stderr) of a child, or the exception."""
    kwargs = {"stdin": DEVNULL if input is None else PIPE, "stdout": PIPE, "stderr": PIPE, **kwargs}

    async def main():
        make = asyncio.create_subprocess_shell if shell else asyncio.create_subprocess_exec
        try:
            process = await make(*args, **kwargs)
        except Exception as exc:
            found = type(exc), str(exc), exc.args
            if isinstance(exc, OSError):
                found += exc.errno, exc.filename
            return repr(found)
        out, err = await process.communicate(input)
        return process.returncode, out, err

    return impl.run(main())


def both(*args, **kwargs):
    return same(run_in, *args, **kwargs)


class Named:
    """Has a path."""

    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return self.path


# What is passed


@pytest.mark.parametrize("args", [
    ("/bin/echo", "a", "b c"),
    ("echo", "found in PATH"),
    (b"/bin/echo", b"bytes \xff"),
    (Path("/bin/echo"), Path("path")),
    (Named("/bin/echo"), Named(b"any path")),
    ("/bin/echo", "\udcff\u00e4"),
    ("/bin/echo",),
    ("/bin/echo", ""),
])  # fmt: skip
def test_arguments(way, args):
    assert both(*args)[0] == 0


@pytest.mark.parametrize("kwargs", [
    {"cwd": "/usr"},
    {"cwd": b"/usr"},
    {"cwd": Path("/usr")},
    {"env": {"A": "1", "B": ""}},
    {"env": {b"A": b"1", "B": "\udcff"}},
    {"env": {}},
    {"env": {"PATH": "/nonexistent:/bin", "A": "1"}},
    {"env": None},
    {"umask": 0o027},
    {"start_new_session": True},
    {"process_group": 0},
    {"process_group": None},
    {"close_fds": False},
    {"restore_signals": False},
    {"restore_signals": True, "start_new_session": True, "umask": 0, "cwd": "/"},
    {"pipesize": 65536},
    {"executable": "/bin/sh"},
    {"stderr": STDOUT},
    {"stdin": PIPE},
    {"creationflags": 0, "startupinfo": None},
    {"preexec_fn": lambda: os.chdir("/usr")},
])  # fmt: skip
def test_keywords(way, kwargs):
    code = (
        'pwd; umask; echo "$A|$B|$LANG"; grep -i "^sig[bi]" /proc/self/status | sed s/00018/00000/;'
        ' echo to stderr >&2; test "$(cut -d" " -f6 /proc/$$/stat)" = $$ && echo leads a session;'
        ' test "$(cut -d" " -f5 /proc/$$/stat)" = $$ && echo leads a group; true'
    )
    assert both(SH, "-c", code, **kwargs)[0] == 0


@pytest.mark.parametrize("command", ["echo $0 a; exit 7", b"printf '\\377'", "kill -9 $$"])
def test_shell(way, command):
    both(command, shell=True)
    both(command, shell=True, executable="/bin/bash" if os.path.exists("/bin/bash") else SH)


def test_the_program_is_searched_where_the_childs_path_says(way, tmp_path):
    program = tmp_path / "some-program"
    program.write_text("#!/bin/sh\necho found\n")
    program.chmod(0o755)
    forbidden = tmp_path / "forbidden"
    forbidden.mkdir()
    (forbidden / "some-program").write_text("")
    for path in (str(tmp_path), f"{forbidden}:{tmp_path}", f"/etc/passwd:{tmp_path}", f"{tmp_path}/", str(forbidden),
                 "", ":"):
        both("some-program", env={"PATH": path})


def test_signals_are_as_from_popen(way):
    """Neither the mask nor what is ignored or caught is another than in asyncio's child."""
    # posix_spawn() leaves two signals ignored that are the C library's own
    code = [SH, "-c", "grep -E '^Sig(Blk|Ign|Cgt)|^ShdPnd' /proc/self/status | sed s/00018/00000/"]
    usr1 = signal.signal(signal.SIGUSR1, lambda *a: None)
    usr2 = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGHUP})
    try:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        both(*code)
        both(*code, restore_signals=False)
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.signal(signal.SIGUSR1, usr1)
        signal.signal(signal.SIGUSR2, usr2)


LIST = ["/bin/sh", "-c", "cd /proc/self/fd; echo *"]


@pytest.mark.parametrize("close_fds", [True, False])
def test_inherited_descriptors(way, close_fds):
    """Those asked for, and no others."""
    kept = [os.dup(0) for _ in range(4)]
    os.set_inheritable(kept[1], True)
    try:
        both(*LIST, close_fds=close_fds)
        both(*LIST, close_fds=close_fds, cwd="/")
        if close_fds:
            both(*LIST, pass_fds=kept[:1])
            both(*LIST, pass_fds=[kept[3], kept[0], kept[0]])
            both(*LIST, pass_fds=(0, 1, kept[2]))
            assert not os.get_inheritable(kept[0])
    finally:
        for fd in kept:
            os.close(fd)


def test_files_and_descriptors(way):
    def body(impl):
        with tempfile.TemporaryFile() as file:
            file.write(b"input\n")
            file.flush()
            file.seek(0)
            first = run_in(impl, "/bin/cat", stdin=file)
            file.seek(0)
            second = run_in(impl, "/bin/cat", stdin=file.fileno())
            third = run_in(impl, "/bin/sh", "-c", "echo out; echo err >&2", stdout=file, stderr=STDOUT)
            run_in(impl, "/bin/sh", "-c", "echo out; echo err >&2", stdout=DEVNULL, stderr=file)
            file.seek(0)
            return first, second, third, file.read()

    same(body)


def test_descriptors_that_change_places(way):
    """stdout is to be what stderr is, and the other way round; and with closed ones below."""
    code = """
    import tempfile, traceback

    SCRIPT = 'stat -L -c %i /dev/fd/0 /dev/fd/1 /dev/fd/2 > $F'

    async def main():
        for streams in ({"stdout": 2, "stderr": 1}, {"stdin": 1, "stdout": 0, "stderr": 2}, {"stdout": 2, "stderr": 2},
                        {"stdin": 2, "stdout": 0, "stderr": 1}, {"stdin": 0, "stdout": 1, "stderr": 2}):
            process = await asyncio.create_subprocess_exec("/bin/sh", "-c", SCRIPT.replace("$F", name),
                                                           **{"stdin": None, "stdout": None, "stderr": None, **streams})
            found.append(await process.wait())
            with open(name) as file:
                found.append([own.index(int(inode)) if int(inode) in own else "file" for inode in file.read().split()])
        for closed in (0, 1, 2):
            os.close(closed)
            process = await asyncio.create_subprocess_exec("/bin/sh", "-c", "cat >&2; exit 5", stdin=-1, stdout=-1,
                                                           stderr=-1)
            found.append([*await process.communicate(b"through low pipes"), process.returncode])

    saved = os.dup(1)
    name = tempfile.mktemp()
    found, own, kept = [], [], []
    for fd in range(3):
        r, w = os.pipe()
        kept.append(r)
        os.dup2(w, fd)
        own.append(os.fstat(fd).st_ino)
    with impl.loop() as loop:
        try:
            loop.run_until_complete(main())
        except BaseException:
            found.append(traceback.format_exc())
    os.unlink(name)
    os.write(saved, repr(found).encode())
    os._exit(0)
    """
    print(same_child(code))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can")
@pytest.mark.parametrize("kwargs", [
    {"user": 65534}, {"group": 65534}, {"extra_groups": [65534]}, {"user": 65534, "group": 65534, "extra_groups": []},
    {"user": "nobody"},
])  # fmt: skip
def test_other_users(way, kwargs):
    assert both("/usr/bin/id", **kwargs)[0] == 0


def test_a_fork_hook_is_not_run(way):
    code = """
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/true")
        return await process.wait()

    os.register_at_fork(before=lambda: print("before"), after_in_parent=lambda: print("after"))
    print(impl.run(main()))
    """
    same_child(code)


# What fails


@pytest.mark.parametrize("args, kwargs", [
    (["/nonexistent/program"], {}),
    (["no-such-program-in-path"], {}),
    ([Path("/nonexistent/program")], {}),
    ([b"/nonexistent/program"], {}),
    (["/etc/passwd"], {}),
    (["/etc/passwd/below"], {}),
    (["/"], {}),
    (["/bin/true"], {"cwd": "/nonexistent"}),
    (["/bin/true"], {"cwd": Path("/nonexistent")}),
    (["/bin/true"], {"cwd": "/etc/passwd"}),
    (["/bin/true"], {"cwd": 5.0}),
    (["/nonexistent"], {"cwd": "/nonexistent"}),
    (["/bin/true"], {"executable": "/nonexistent/executable"}),
    (["/bin/true", "nul\0inside"], {}),
    (["/bin/tr\0ue"], {}),
    (["/bin/true"], {"cwd": "/us\0r"}),
    (["/bin/true"], {"env": {"A=B": "1"}}),
    (["/bin/true"], {"env": {"": "1"}}),
    (["/bin/true"], {"env": {"": "1"}, "cwd": "/"}),
    (["/bin/true"], {"env": {"A": "nul\0"}}),
    (["/bin/true"], {"env": {"A": 1}}),
    (["/bin/true"], {"env": [("A", "1")]}),
    (["true"], {"env": {"PATH": "/nonexistent"}}),
    ([""], {}),
    ([None], {}),
    (["/bin/true", 5], {}),
    (["/bin/true", "\ud800"], {}),
    (["/bin/true"], {"stdin": -5}),
    (["/bin/true"], {"stdout": 9999}),
    (["/bin/true"], {"stdout": STDOUT}),
    (["/bin/true"], {"stdin": object()}),
    (["/bin/true"], {"pass_fds": [9999]}),
    (["/bin/true"], {"pass_fds": [-1]}),
    (["/bin/true"], {"pass_fds": ["x"]}),
    (["/bin/true"], {"process_group": 10**9}),
    (["/bin/true"], {"process_group": "x"}),
    (["/bin/true"], {"umask": "x"}),
    (["/bin/true"], {"pipesize": "x"}),
    (["/bin/true"], {"bufsize": 5}),
    (["/bin/true"], {"text": True}),
    (["/bin/true"], {"universal_newlines": True}),
    (["/bin/true"], {"shell": True}),
    (["/bin/true"], {"encoding": "utf-8"}),
    (["/bin/true"], {"errors": "strict"}),
    (["/bin/true"], {"user": -1}),
    (["/bin/true"], {"user": "no such user, surely"}),
    (["/bin/true"], {"extra_groups": "x"}),
    (["/bin/true"], {"creationflags": 1}),
    (["/bin/true"], {"unknown": 1}),
    (["/bin/true"], {"start_new_session": True, "process_group": 0}),
    (["/bin/" + "x" * 5000], {}),
    (["/bin/true", "x" * 300_000], {}),
])  # fmt: skip
def test_errors(way, args, kwargs):
    both(*args, **kwargs)


def test_a_preexec_fn_that_raises(way):
    def fail():
        raise ValueError("in the child")

    both("/bin/true", preexec_fn=fail)


def test_no_descriptors_are_left(way):
    """EMFILE, whichever call it hits; and what was opened until then is closed."""
    code = """
    import resource

    async def main():
        try:
            process = await asyncio.create_subprocess_exec("/bin/true", stdin=-1, stdout=-1, stderr=-1)
        except OSError as exc:
            return exc.errno
        await process.communicate()
        return process.returncode

    with impl.loop() as loop:
        loop.run_until_complete(main())
        before = len(os.listdir("/proc/self/fd"))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        seen = set()
        limit = next(n for n in range(3, 1000) if not os.path.exists(f"/proc/self/fd/{n}"))
        for more in range(6):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit + more, hard))
            seen.add(loop.run_until_complete(main()))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert seen == {24}, seen
        assert len(os.listdir("/proc/self/fd")) == before
        print(loop.run_until_complete(main()))
    """
    for impl in (FASTLOOP,):
        assert check_child(impl, code).strip() == "0"


@pytest.mark.hang(240)
@pytest.mark.parametrize("args, kwargs", [
    (["/nonexistent"], {}),
    (["/nonexistent"], {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE}),
    (["/bin/true"], {"cwd": "/nonexistent"}),
    (["/bin/true", "\0"], {"stdin": PIPE, "stdout": PIPE}),
])  # fmt: skip
def test_ten_thousand_failures(args, kwargs):
    """Nothing is left of them: no descriptor, no object, no process."""

    async def main():
        for _ in range(10_000):
            with pytest.raises((FileNotFoundError, ValueError)):
                await asyncio.create_subprocess_exec(*args, **kwargs)

    FASTLOOP.run(main())


def test_what_an_audit_hook_sees(way):
    code = """
    def hook(event, args):
        if event.startswith("subprocess"):
            print(event, [str(arg) for arg in args])
            if "forbidden" in args[1]:
                raise RuntimeError("no")

    async def main(*args, **kwargs):
        try:
            process = await asyncio.create_subprocess_exec(*args, **kwargs)
            print(await process.wait())
        except Exception as exc:
            print(repr(exc))

    sys.addaudithook(hook)
    impl.run(main("/bin/true", "a", cwd="/", env={"A": "1"}))
    impl.run(main("true", stdout=-1))
    impl.run(main("/bin/true", "forbidden"))
    impl.run(main("/nonexistent"))
    impl.run(main("/bin/true", cwd="/nonexistent"))
    impl.run(main("/bin/true", "\\0"))
    """
    same_child(code)


# The Popen


def test_the_popen(way):
    """get_extra_info("subprocess"), as soon as there is a transport and after its end."""

    def body(impl):
        async def main():
            process = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE)
            transport = process._transport
            popen = transport.get_extra_info("subprocess")
            assert type(popen) is subprocess.Popen
            assert isinstance(transport, asyncio.SubprocessTransport)
            assert popen is transport._proc is transport.get_extra_info("subprocess")
            assert popen.pid == process.pid == transport.get_pid() == transport._pid
            for fd, file in ((0, popen.stdin), (1, popen.stdout)):
                assert transport.get_pipe_transport(fd).get_extra_info("pipe") is file
                assert transport._pipes[fd].pipe is transport.get_pipe_transport(fd)
            names = sorted(vars(popen))
            early = repr(popen), popen.returncode, popen.args, popen.stderr, transport._returncode, popen.poll()
            await process.communicate(b"x")
            await asyncio.sleep(0.01)
            late = repr(popen), popen.returncode, popen.poll(), popen.wait(), transport._returncode
            assert transport.get_extra_info("nothing", 5) == 5
            return names, early, late, transport.get_extra_info("subprocess") is popen, transport._proc is None

        return impl.run(main())

    same(body)


def test_the_popen_of_one_that_has_ended(way):
    def body(impl):
        async def main():
            process = await asyncio.create_subprocess_shell("exit 3", stdout=PIPE)
            await process.communicate()
            await asyncio.sleep(0.01)
            popen = process._transport.get_extra_info("subprocess")
            return popen.returncode, popen.args, popen.poll(), type(popen).__name__, repr(popen), sorted(vars(popen))

        return impl.run(main())

    same(body)


def test_popen_replaced(monkeypatch):
    """Tools replace subprocess.Popen, or its __init__."""
    made = []

    class Popen(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            made.append("replaced")
            super().__init__(*args, **kwargs)

    def body(impl):
        async def main():
            process = await asyncio.create_subprocess_exec("/bin/echo", "x", stdout=PIPE)
            popen = process._transport.get_extra_info("subprocess")
            return await process.communicate(), isinstance(popen, subprocess.Popen), [made.pop() for _ in made[:]]

        return impl.run(main())

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", Popen)
        assert same(body)[2] == ["replaced"]

    original = subprocess.Popen.__init__

    def init(self, *args, **kwargs):
        made.append("patched")
        original(self, *args, **kwargs)

    monkeypatch.setattr(subprocess.Popen, "__init__", init)
    assert same(body)[2] == ["patched"]


def test_popens_own_step_replaced(monkeypatch):
    steps = []
    original = subprocess.Popen._execute_child

    def step(self, *arguments):
        steps.append(len(arguments))
        return original(self, *arguments)

    monkeypatch.setattr(subprocess.Popen, "_execute_child", step)
    assert run_in(FASTLOOP, "/bin/echo", "x")[:2] == (0, b"x\n")
    assert steps == [23]


def test_this_python_is_as_expected():
    """Else every child takes the standard library's way: works, but is slow."""
    assert _processes._AS_EXPECTED


# The kernel says no

TRUE = """
async def main():
    process = await asyncio.create_subprocess_exec("/bin/echo", "it works", stdout=-1)
    out, _ = await process.communicate()
    print(out, process.returncode)
    try:
        await asyncio.create_subprocess_exec("/nonexistent")
    except FileNotFoundError as exc:
        print(exc.filename)

import asyncio, signal, fastloop
signal.signal(signal.SIGUSR1, print)
fastloop.run(main())
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("faults", [
    ["clone3:error=ENOSYS"],
    ["clone3:error=EPERM"],
    ["close_range:error=ENOSYS"],
    ["close_range:error=EINVAL:when=1"],
    ["clone3:error=ENOSYS", "clone:error=EPERM:when=1"],
    ["clone3:error=EAGAIN:when=1"],
    ["waitid:error=EINVAL:when=1"],
])  # fmt: skip
def test_kernels_that_lack_something(faults):
    command = ["strace", "-f", "-qq", "-o", "/dev/null"]
    for fault in faults:
        command += ["-e", f"inject={fault}"]
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    done = subprocess.run([*command, sys.executable, "-P", "-c", TRUE], capture_output=True, text=True, env=env,
                          timeout=50)
    if "ptrace" in done.stderr or "Operation not permitted" in done.stderr:
        pytest.skip("strace may not trace here")
    if faults == ["close_range:error=ENOSYS"] and "FileNotFoundError" not in done.stdout and done.returncode:
        pytest.skip("this Python needs it, too")
    assert done.stdout == "b'it works\\n' 0\n/nonexistent\n", done.stderr
