"""What asyncio passes on to Popen, and what it refuses."""

import asyncio
import fcntl
import io
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import warnings

import pytest

from support import same, same_child
from support.proc import SHELL, Process, finish, run, sh, spawn

PIPE, DEVNULL, STDOUT = subprocess.PIPE, subprocess.DEVNULL, subprocess.STDOUT

root_only = pytest.mark.skipif(os.getuid() != 0, reason="only root may change its user")


def pipe():
    """A pipe whose ends never block us."""
    return os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)


def output_of(*args, **kwargs):
    """The same (returncode, out, err) on both."""
    return same(lambda impl: impl.run(run(*args, **kwargs)))


def failure_of(*args, through=spawn, **kwargs):
    """The same exception on both, with the attributes that an OSError has."""
    def body(impl):
        async def main():
            try:
                process = await through(*args, **kwargs)
            except Exception as exc:
                return type(exc).__name__, str(exc), getattr(exc, "errno", None), getattr(exc, "filename", None)
            await finish(process)
            return "no error"
        return impl.run(main())
    found = same(body)
    assert found != "no error"
    return found


# cwd, env, executable

@pytest.mark.parametrize("kind", [str, os.fsencode, pathlib.Path])
def test_cwd(tmp_path, kind):
    there = os.path.realpath(tmp_path)
    assert output_of("/bin/pwd", cwd=kind(there)) == [0, os.fsencode(there) + b"\n", b""]


def test_relative_program_is_looked_for_in_cwd(tmp_path):
    script = tmp_path / "here"
    script.write_text("#!/bin/sh\necho found\n")
    script.chmod(0o755)
    assert output_of("./here", cwd=tmp_path) == [0, b"found\n", b""]


@pytest.mark.parametrize("env, text", [
    ({}, b""),
    ({"A": "1"}, b"A=1\n"),
    ({"A": "", "ä": "ö"}, "A=\nä=ö\n".encode()),
    ({b"A": b"\xff"}, b"A=\xff\n"),
    ({"A": "\udcff"}, b"A=\xff\n"),
])
def test_env_is_all_that_the_child_gets(env, text):
    assert output_of("/usr/bin/env", env=env) == [0, text, b""]


def test_without_env_the_child_gets_ours(monkeypatch):
    monkeypatch.setenv("FASTLOOP_TEST_VALUE", "given")
    assert output_of(*sh('echo "$FASTLOOP_TEST_VALUE"')) == [0, b"given\n", b""]


def test_program_is_looked_for_in_the_path_of_env(tmp_path):
    script = tmp_path / "only-here"
    script.write_text("#!/bin/sh\necho found\n")
    script.chmod(0o755)
    assert output_of("only-here", env={"PATH": f"/nowhere:{tmp_path}"}) == [0, b"found\n", b""]
    assert failure_of("only-here", env={"PATH": "/nowhere"})[0] == "FileNotFoundError"


@pytest.mark.parametrize("env", [{"A": 1}, {1: "A"}, {"A=B": "1"}, {"A\0": "1"}, {"A": "1\0"}, [("A", "1")], 3])
def test_bad_env(env):
    failure_of("/bin/true", env=env)


def test_executable_is_another_program_than_the_first_argument():
    assert output_of("another", "-c", 'echo "$0"', executable=SHELL)[1] == b"another\n"


@pytest.mark.parametrize("argument", [
    "", " ", "a b", "*", "$HOME", "'", '"', "\\", "\n", "ä€😀", "\udcff", b"\xff", pathlib.Path("a/b"), "x" * 100_000,
], ids=lambda a: ascii(a)[:12])
def test_arguments_arrive_as_they_are(argument):
    found = output_of(*sh('printf %s "$1"')[:-1], "sh", argument)
    assert found == [0, os.fsencode(argument), b""]


# descriptors

# The shell's own; it must not be the shell's last command, which takes the shell's place, nor part of a pipe.
LIST = "ls /proc/$$/fd; exit 0"


def test_child_has_three_descriptors_and_no_more():
    """Those of the loop, of its other children and inheritable ones of the program stay here."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGUSR1, int)  # the wake-up pipe
            r, w = pipe()
            os.set_inheritable(w, True)
            loop.add_reader(r, int)
            others = [await spawn("/bin/cat") for _ in range(3)]
            found = await run(*sh(LIST))
            for other in others:
                await finish(other)
            loop.remove_reader(r)
            os.close(r)
            os.close(w)
            loop.remove_signal_handler(signal.SIGUSR1)
            return found
        return impl.run(main())
    assert same(body) == [0, b"0\n1\n2\n", b""]


@pytest.mark.parametrize("kinds", [(PIPE, PIPE, PIPE), (DEVNULL, PIPE, DEVNULL), (DEVNULL, PIPE, STDOUT)], ids=str)
def test_pass_fds_are_there_under_their_numbers(kinds):
    def body(impl):
        async def main():
            r, w = pipe()
            r2, w2 = pipe()
            stdin, stdout, stderr = kinds
            process = await spawn(*sh(f"{LIST.removesuffix('exit 0')} echo through > /proc/self/fd/$1", w), pass_fds=[w, r2],
                                  stdin=stdin, stdout=stdout, stderr=stderr)
            out, _ = await process.communicate()
            seen = sorted(map(int, out.split())) == sorted([0, 1, 2, w, r2]), os.read(r, 100), process.returncode
            seen += tuple(os.get_inheritable(fd) for fd in (r, w, r2, w2))
            for fd in (r, w, r2, w2):
                os.close(fd)
            return seen
        return impl.run(main())
    assert same(body) == [True, b"through\n", 0, False, False, False, False]


def test_close_fds_false_passes_what_is_inheritable():
    def body(impl):
        async def main():
            r, w = pipe()
            r2, w2 = pipe()
            os.set_inheritable(w, True)
            _, out, _ = await run(*sh(LIST), close_fds=False)
            there = set(map(int, out.split()))
            seen = [fd in there for fd in (r, w, r2, w2)]
            for fd in (r, w, r2, w2):
                os.close(fd)
            return seen
        return impl.run(main())
    assert same(body) == [False, True, False, False]


def test_pass_fds_without_close_fds_warns():
    def body(impl):
        r, w = pipe()
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            code, out, _ = impl.run(run(*sh(LIST), close_fds=False, pass_fds=[w]))
        there = w in map(int, out.split()), r in map(int, out.split())
        os.close(r)
        os.close(w)
        return code, there, [(s.category.__name__, str(s.message)) for s in seen]
    assert same(body) == [0, [True, False], [["RuntimeWarning", "pass_fds overriding close_fds."]]]


@pytest.mark.parametrize("fds", [(-1,), ("x",), (2**40,), 3], ids=str)
def test_bad_pass_fds(fds):
    failure_of("/bin/true", pass_fds=fds)


@pytest.mark.parametrize("stdin", ["none", "pipe", "devnull", "file", "fd"])
@pytest.mark.parametrize("stdout", ["pipe", "devnull", "file", "fd"])
@pytest.mark.parametrize("stderr", ["pipe", "devnull", "stdout", "file", "fd"])
def test_every_kind_of_standard_stream(stdin, stdout, stderr):
    """What the child reads, and where its two outputs arrive."""
    def body(impl):
        with tempfile.TemporaryFile() as file_in, tempfile.TemporaryFile() as file_out, \
                tempfile.TemporaryFile() as file_err, open(os.devnull, "rb") as null:
            file_in.write(b"from the file")
            file_in.seek(0)
            given = {"none": null, "pipe": PIPE, "devnull": DEVNULL, "stdout": STDOUT}
            chosen = {
                "stdin": given.get(stdin, file_in if stdin == "file" else file_in.fileno()),
                "stdout": given.get(stdout, file_out if stdout == "file" else file_out.fileno()),
                "stderr": given.get(stderr, file_err if stderr == "file" else file_err.fileno()),
            }
            data = b"through the pipe" if stdin == "pipe" else None

            async def main():
                process = await spawn(*sh("cat; echo error >&2; echo end"), **chosen)
                has = [getattr(process, name) is not None for name in ("stdin", "stdout", "stderr")]
                return has, *await finish(process, data)
            seen = impl.run(main())
            for file in (file_out, file_err):
                file.seek(0)
            return seen, file_out.read(), file_err.read()
    (has, code, out, err), in_out, in_err = same(body)
    source = {"pipe": b"through the pipe", "file": b"from the file", "fd": b"from the file"}.get(stdin, b"")
    both = stderr == "stdout"
    expected = source + (b"error\n" if both else b"") + b"end\n"
    assert code == 0
    assert has == [stdin == "pipe", stdout == "pipe", stderr == "pipe"]
    assert (out if stdout == "pipe" else in_out) == (b"" if stdout == "devnull" else expected)
    assert (err if stderr == "pipe" else in_err) == (b"error\n" if stderr in ("pipe", "file", "fd") else b"")


def test_a_socket_for_standard_streams():
    def body(impl):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.send(b"hello")
            ours.shutdown(socket.SHUT_WR)
            code, out, err = impl.run(run("/bin/cat", stdin=theirs, stdout=theirs))
            return code, out, err, ours.recv(100)
    assert same(body) == [0, None, b"", b"hello"]


def test_one_descriptor_for_all_three():
    """The three share one offset: what is read is behind us, and nothing is overwritten."""
    def body(impl):
        with tempfile.TemporaryFile() as file:
            file.write(b"line\n")
            file.seek(0)
            seen = impl.run(run(*sh("read x; echo out; echo err >&2"), stdin=file, stdout=file, stderr=file))
            file.seek(0)
            return seen, file.read()
    assert same(body) == [[0, None, None], b"line\nout\nerr\n"]


def test_standard_descriptors_crossed():
    """Numbers below 3 are where they are put, and must not be overwritten before they are read."""
    out = same_child("""
        from support.proc import sh
        async def main(stdout, stderr):
            process = await asyncio.create_subprocess_exec(
                *sh("echo out; echo err >&2"), stdout=stdout, stderr=stderr)
            await process.wait()
        keep = os.dup(1), os.dup(2)
        for stdout, stderr in ((2, 1), (1, 1), (2, 2), (2, -2), (1, -2)):
            ends = []
            for fd in (1, 2):
                r, w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
                os.dup2(w, fd)
                os.write(w, b".")
                os.close(w)
                ends.append(r)
            impl.run(main(stdout, stderr))
            found = [os.read(r, 100) for r in ends]
            for fd in (1, 2):
                os.dup2(keep[fd - 1], fd)
            print(*found, flush=True)
    """)
    assert out.splitlines() == [
        r"b'.err\n' b'.out\n'", r"b'.out\nerr\n' b'.'", r"b'.' b'.out\nerr\n'", r"b'.' b'.out\nerr\n'",
        r"b'.out\nerr\n' b'.'"]


def test_parent_without_standard_descriptors():
    """Pipes then get the numbers 0, 1 and 2 themselves."""
    out = same_child("""
        from support.proc import run, sh
        keep = [os.dup(fd) for fd in range(3)]
        async def main(closed):
            for fd in closed:
                os.close(fd)
            return await run(*sh("cat; echo err >&2; ls /proc/$$/fd; exit 0"), input=b"in\\n")
        for closed in ((0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)):
            found = impl.run(main(closed))
            for fd in range(3):
                os.dup2(keep[fd], fd)
            print(found, flush=True)
    """)
    assert out.splitlines() == [repr((0, b"in\n0\n1\n2\n", b"err\n"))] * 6


BAD_STREAMS = {
    "text without a descriptor": io.StringIO(),
    "closed descriptor": 9_999,
    "negative": -7,
    "object": object(),
    "name": "/dev/null",
    "STDOUT": STDOUT,
}


@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr"])
@pytest.mark.parametrize("what", BAD_STREAMS)
def test_bad_standard_streams(name, what):
    if name == "stderr" and what == "STDOUT":
        pytest.skip("allowed")
    failure_of("/bin/true", **{name: BAD_STREAMS[what]})


def test_a_closed_file_for_a_standard_stream(tmp_path):
    with open(tmp_path / "file", "wb") as file:
        pass
    assert failure_of("/bin/true", stdout=file)[0] == "ValueError"


def test_loop_method_has_pipes_unless_told_otherwise():
    """loop.subprocess_exec has them by default; asyncio.create_subprocess_exec inherits."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            transport, protocol = await loop.subprocess_exec(Process, "/bin/cat")
            seen = [transport.get_pipe_transport(fd) is not None for fd in range(3)]
            transport.get_pipe_transport(0).close()
            await protocol.wait("connection_lost")
            transport.close()
            process = await asyncio.create_subprocess_exec("/bin/true")
            await process.wait()
            return seen, process.stdin, process.stdout, process.stderr
        return impl.run(main())
    assert same(body) == [[True, True, True], None, None, None]


@pytest.mark.parametrize("size", [-1, 4096, 65536, 131072])
def test_pipesize(size):
    def body(impl):
        async def main():
            process = await spawn("/bin/cat", pipesize=size)
            found = [fcntl.fcntl(process._transport.get_pipe_transport(fd).get_extra_info("pipe").fileno(),
                                 fcntl.F_GETPIPE_SZ) for fd in range(3)]
            await finish(process)
            return found
        return impl.run(main())
    assert same(body) == [65536 if size < 0 else size] * 3


# what the child becomes

STAT = "read -r pid comm state ppid group session rest < /proc/$$/stat; "


def test_start_new_session():
    script = STAT + '[ $session = $$ ] && echo own || echo shared'
    assert output_of(*sh(script), start_new_session=True)[1] == b"own\n"
    assert output_of(*sh(script), start_new_session=False)[1] == b"shared\n"


def test_process_group_of_its_own():
    script = STAT + '[ $group = $$ ] && echo own || echo shared'
    assert output_of(*sh(script), process_group=0)[1] == b"own\n"
    assert output_of(*sh(script))[1] == b"shared\n"


def test_process_group_of_another_child():
    def body(impl):
        async def main():
            first = await spawn("/bin/cat", process_group=0)
            _, out, _ = await run(*sh(STAT + "echo $group"), process_group=first.pid)
            await finish(first)
            return int(out) == first.pid
        return impl.run(main())
    assert same(body) is True


@root_only
@pytest.mark.parametrize("keywords, script, text", [
    ({"user": 65534}, "id -u", b"65534\n"),
    ({"user": "nobody"}, "id -u", b"65534\n"),
    ({"group": 65534}, "id -g", b"65534\n"),
    ({"group": "nogroup"}, "id -g", b"65534\n"),
    ({"extra_groups": [3, 4]}, "id -G", b"0 3 4\n"),
    ({"extra_groups": []}, "id -G", b"0\n"),
    ({"user": 65534, "group": 65534, "extra_groups": ["daemon"]}, "id -u; id -G", b"65534\n65534 1\n"),
], ids=str)
def test_user_and_groups(keywords, script, text):
    assert output_of(*sh(script), **keywords) == [0, text, b""]


@pytest.mark.parametrize("keywords", [
    {"user": "no such user"}, {"user": -5}, {"user": 1.5}, {"user": 2**40},
    {"group": "no such group"}, {"group": -5}, {"group": 1.5}, {"group": 2**40},
    {"extra_groups": "daemon"}, {"extra_groups": [-5]}, {"extra_groups": [2**40]}, {"extra_groups": ["no such group"]},
], ids=str)
def test_bad_user_and_groups(keywords):
    failure_of("/bin/true", **keywords)


@root_only
def test_a_user_who_may_not_run_the_program(tmp_path):
    script = tmp_path / "mine"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o700)
    assert failure_of(str(script), user=65534)[0] == "PermissionError"


@pytest.mark.parametrize("umask", [0o077, 0o022, 0])
def test_umask(umask):
    mine = os.umask(0o002)
    os.umask(mine)
    found = output_of(*sh("umask"), umask=umask)
    assert int(found[1], 8) == umask
    assert os.umask(mine) == mine


def test_umask_is_ours_unless_given():
    mine = os.umask(0o002)
    os.umask(mine)
    assert int(output_of(*sh("umask"))[1], 8) == mine


@pytest.mark.parametrize("restore", [True, False])
def test_restore_signals(restore):
    """Python ignores SIGPIPE and SIGXFSZ; children do not, unless they shall."""
    def body(impl):
        _, out, _ = impl.run(run(*sh("grep SigIgn /proc/$$/status"), restore_signals=restore))
        ignored = int(out.split()[1], 16)
        # 32 and 33 are the C library's own.
        return [sig for sig in range(1, 65) if ignored & 1 << sig - 1 and sig not in (32, 33)]
    ignored = same(body)
    for sig in (signal.SIGPIPE, signal.SIGXFSZ):
        assert (sig in ignored) is not restore


def test_signals_that_we_handle_have_their_default_in_the_child():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGUSR1, int)
            process = await spawn(*sh("kill -USR1 $$; echo survived"))
            out, _ = await process.communicate()
            loop.remove_signal_handler(signal.SIGUSR1)
            return out, process.returncode
        return impl.run(main())
    assert same(body) == [b"", -signal.SIGUSR1]


def test_blocked_signals_are_inherited():
    def body(impl):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
        try:
            return impl.run(run("grep", "SigBlk", "/proc/self/status"))[1]
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
    assert int(same(body).split()[1], 16) == 1 << signal.SIGUSR2 - 1


def test_preexec_fn_runs_in_the_child_before_the_program():
    out = same_child("""
        from support.proc import run, sh
        parent = os.getpid()
        def prepare():
            os.write(1, b"before " if os.getpid() != parent else b"wrong process ")
            os.environ["SET"] = "there"
            os.umask(0o71)
            os.chdir("/")
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        async def main():
            print(await run(*sh("umask; pwd; kill -USR1 $$; echo $SET"), preexec_fn=prepare))
            print(await run(*sh("exit 3"), preexec_fn=None))
        impl.run(main())
    """)
    assert out.splitlines() == ["(0, b'before 0071\\n/\\nthere\\n', b'')", "(3, b'', b'')"]


def test_everything_at_once(tmp_path):
    def body(impl):
        async def main():
            r, w = pipe()
            there = os.path.realpath("/tmp")
            found = await run(*sh("pwd; umask; env | grep ^A=; cat; echo passed > /proc/self/fd/$1", w),
                              input=b"in\n", cwd=there, env={"A": "1"}, umask=0o27, pass_fds=[w], start_new_session=True, close_fds=True,
                              restore_signals=True, pipesize=4096)
            passed = os.read(r, 100)
            os.close(r)
            os.close(w)
            return found[0], found[1].splitlines(), found[2], passed
        return impl.run(main())
    assert same(body) == [0, [b"/tmp", b"0027", b"A=1", b"in"], b"", b"passed\n"]


# text and shell

TEXT = [{"universal_newlines": True}, {"text": True}, {"encoding": "utf-8"}, {"errors": "strict"}, {"bufsize": 1},
        {"bufsize": -1}, {"text": 1, "encoding": "x"}]


@pytest.mark.parametrize("keywords", [*TEXT, {"shell": True}, {"startupinfo": object()}, {"creationflags": 1},
                                      {"no_such": 1}], ids=str)
def test_keywords_refused_by_exec(keywords):
    failure_of("/bin/true", **keywords)


async def shell(command, **kwargs):
    return await asyncio.create_subprocess_shell(command, **kwargs)


@pytest.mark.parametrize("keywords", [*TEXT, {"shell": False}, {"startupinfo": object()}, {"creationflags": 1},
                                      {"no_such": 1}], ids=str)
def test_keywords_refused_by_shell(keywords):
    failure_of("true", through=shell, **keywords)


@pytest.mark.parametrize("keywords", [{"universal_newlines": False}, {"text": None}, {"text": False}, {"encoding": None},
                                      {"errors": None}, {"bufsize": 0}, {"creationflags": 0}, {"startupinfo": None}],
                         ids=str)
def test_keywords_that_ask_for_nothing_are_allowed(keywords):
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            seen = []
            for make in (loop.subprocess_exec(Process, "/bin/true", **keywords),
                         loop.subprocess_shell(Process, "true", **keywords)):
                try:
                    transport, protocol = await make
                except (ValueError, TypeError) as exc:
                    seen.append((type(exc).__name__, str(exc)))
                else:
                    await protocol.wait("connection_lost")
                    seen.append(transport.get_returncode())
                    transport.close()
            return seen
        return impl.run(main())
    same(body)


@pytest.mark.parametrize("command", [3, None, ["true"], ("true",), pathlib.Path("true")], ids=repr)
def test_shell_wants_a_string(command):
    assert failure_of(command, through=shell)[:2] == ["ValueError", "cmd must be a string"]


@pytest.mark.parametrize("args", [(3,), (None,), (["true"],), ("/bin/echo", 3), ("/bin/echo", None), ("/bin/echo", ["x"]),
                                  (b"/bin/echo", bytearray(b"x"))], ids=repr)
def test_bad_arguments_of_exec(args):
    failure_of(*args)


def test_exec_without_a_program():
    failure_of()


@pytest.mark.parametrize("command, found", [
    ("echo $((1 + 2)) | tr 3 x; exit 7", [7, b"x\n"]),
    (b"echo bytes", [0, b"bytes\n"]),
    ("", [0, b""]),
    ("echo 'a  b' \"$0\"", [0, b"a  b /bin/sh\n"]),
    ("kill -TERM $$", [-15, b""]),
    ("no-such-program-here 2>/dev/null", [127, b""]),
], ids=repr)
def test_shell_commands(command, found):
    def body(impl):
        async def main():
            process = await shell(command, stdout=PIPE)
            out, _ = await process.communicate()
            return process.returncode, out
        return impl.run(main())
    assert same(body) == found


def test_another_shell():
    async def main():
        process = await shell("/bin/echo ignored", stdout=PIPE, executable="/bin/echo")
        return await process.communicate()
    # What is called a shell gets -c and the command.
    assert same(lambda impl: impl.run(main())) == [b"-c /bin/echo ignored\n", None]


def test_limit_of_the_streams():
    def body(impl):
        async def main():
            seen = []
            for keywords in ({}, {"limit": 10}):
                process = await spawn(*sh("echo 0123456789abcdef"), **keywords)
                try:
                    seen.append(await process.stdout.readline())
                except ValueError as exc:
                    seen.append(str(exc))
                await process.communicate()
            process = await shell("echo 0123456789", stdout=PIPE, limit=5)
            try:
                seen.append(await process.stdout.readuntil())
            except asyncio.LimitOverrunError as exc:
                seen.append((str(exc), exc.consumed))
            await process.communicate()
            return seen
        return impl.run(main())
    assert same(body)[0] == b"0123456789abcdef\n"


def test_protocol_factory_that_raises_starts_nothing(tmp_path):
    def body(impl):
        def broken():
            raise LookupError("no protocol")

        async def main():
            loop = asyncio.get_running_loop()
            seen = []
            for make in (loop.subprocess_exec(broken, *sh("touch $1", tmp_path / "made")),
                         loop.subprocess_shell(broken, f"touch {tmp_path}/made")):
                try:
                    await make
                except LookupError as exc:
                    seen.append(str(exc))
            return seen
        return impl.run(main())
    assert same(body) == ["no protocol"] * 2
    assert not os.listdir(tmp_path)


def test_keyword_names_of_the_loop_methods():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            seen = []
            for make in (lambda: loop.subprocess_exec(protocol_factory=int, program="/bin/true"),
                         lambda: loop.subprocess_exec(asyncio.SubprocessProtocol),
                         lambda: loop.subprocess_shell(asyncio.SubprocessProtocol),
                         lambda: loop.subprocess_shell(int, "true", "false")):
                try:
                    made = make()
                except TypeError as exc:
                    seen.append(str(exc).rpartition(".")[2])
                else:
                    made.close()
                    seen.append("made")
            made = loop.subprocess_shell(protocol_factory=Process, cmd="exit 4", stdin=None, stdout=None,
                                         stderr=None)
            transport, protocol = await made
            await protocol.wait("connection_lost")
            transport.close()
            return seen, transport.get_returncode()
        return impl.run(main())
    assert same(body)[1] == 4
