"""Spawns that fail: the exception, and that nothing is left of them."""

import asyncio
import gc
import os

import pytest

from support import PY, check_child, same, same_child
from support.net import io_settled
from support.proc import run, sh, spawn


def refused(*args, through=spawn, **kwargs):
    """The same exception on both, after which no descriptor is left, and the next child works."""
    def body(impl):
        async def main():
            await run("/bin/true")
            await io_settled()
            before = os.listdir("/proc/self/fd")
            try:
                await through(*args, **kwargs)
            except Exception as exc:
                found = (type(exc).__name__, str(exc), getattr(exc, "errno", None), getattr(exc, "filename", None))
            else:
                found = "no error"
            await io_settled()
            gc.collect()
            return found, os.listdir("/proc/self/fd") == before, await run("/bin/cat", input=b"works")
        return impl.run(main())
    found, clean, works = same(body)
    assert found != "no error"
    assert clean
    assert works == [0, b"works", b""]
    return found


def test_missing_program():
    assert refused("/no/such/program") == [
        "FileNotFoundError", "[Errno 2] No such file or directory: '/no/such/program'", 2, "/no/such/program"]


def test_missing_program_in_path():
    assert refused("no-such-program-here")[3] == "no-such-program-here"


def test_missing_program_as_bytes():
    assert refused(b"/no/such/program")[3] == b"/no/such/program"


def test_empty_program():
    refused("")


def test_program_that_is_not_executable(tmp_path):
    file = tmp_path / "file"
    file.write_text("#!/bin/sh\n")
    assert refused(str(file))[:1] == ["PermissionError"]


def test_program_that_is_a_folder(tmp_path):
    assert refused(tmp_path)[:1] == ["PermissionError"]


def test_program_of_an_unknown_format(tmp_path):
    file = tmp_path / "file"
    file.write_text("not a program\n")
    file.chmod(0o755)
    assert refused(file)[2] == 8


def test_script_whose_interpreter_is_missing(tmp_path):
    file = tmp_path / "file"
    file.write_text("#!/no/such/interpreter\n")
    file.chmod(0o755)
    assert refused(file)[:1] == ["FileNotFoundError"]


def test_program_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    assert refused(tmp_path / "file" / "program")[:1] == ["NotADirectoryError"]


@pytest.mark.parametrize("cwd", ["/no/such/folder", "/bin/true", "", b"/no/such/folder", 3.5], ids=repr)
def test_bad_cwd(cwd):
    """The error names the folder, not the program."""
    found = refused("/bin/true", cwd=cwd)
    if not isinstance(cwd, float):
        assert found[3] == cwd


def test_missing_program_and_bad_cwd():
    refused("/no/such/program", cwd="/no/such/folder")


@pytest.mark.parametrize("args, kwargs", [
    (("/bin/echo", "a\0b"), {}),
    (("/bin/e\0cho",), {}),
    ((b"/bin/echo", b"\0"), {}),
    (("/bin/true",), {"cwd": "/tmp\0"}),
    (("/bin/true",), {"env": {"A\0": "1"}}),
    (("/bin/true",), {"env": {"A": "1\0"}}),
    (("/bin/true",), {"executable": "/bin/true\0"}),
], ids=repr)
def test_nul_in_a_string(args, kwargs):
    assert refused(*args, **kwargs)[0] == "ValueError"


def test_nul_in_a_shell_command():
    async def shell():
        return await asyncio.create_subprocess_shell("echo a\0b")
    assert refused(through=shell)[0] == "ValueError"


@pytest.mark.parametrize("kwargs", [{}, {"env": {"A": "x" * (1 << 18)}}], ids=["arguments", "environment"])
def test_too_much_to_pass(kwargs):
    args = ("/bin/true",) if kwargs else ("/bin/true", "x" * (1 << 18))
    assert refused(*args, **kwargs)[2] == 7


def test_strings_that_cannot_be_encoded():
    assert refused("/bin/echo", "\ud800")[0] == "UnicodeEncodeError"


def test_preexec_fn_that_raises():
    """What it raised stays in the child; no more is known of it here."""
    out = same_child("""
        from support.proc import run, sh
        def broken():
            raise LookupError("in the child")
        async def main():
            for function in (broken, sys.exit, lambda: 1 / 0, 3, "text"):
                try:
                    await run("/bin/true", preexec_fn=function)
                except Exception as exc:
                    print(type(exc).__name__, exc)
            print(await run("/bin/true", preexec_fn=lambda: None))
        impl.run(main())
    """)
    lines = out.splitlines()
    assert lines[0] == "SubprocessError Exception occurred in preexec_fn."
    assert lines[-1] == "(0, b'', b'')"
    assert len(lines) == 6


def test_failure_in_debug_mode():
    def body(impl):
        async def main():
            try:
                await spawn("/no/such/program")
            except FileNotFoundError as exc:
                return exc.filename
        return impl.run(main(), debug=True)
    assert same(body) == "/no/such/program"


def test_failure_in_a_task_group_ends_the_others():
    def body(impl):
        async def main():
            process = await spawn("/bin/cat")
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(process.wait())
                    group.create_task(spawn("/no/such/program"))
            except* FileNotFoundError as caught:
                found = [type(e).__name__ for e in caught.exceptions]
            process.kill()
            return found, await process.wait()
        return impl.run(main())
    assert same(body) == [["FileNotFoundError"], -9]


def test_failures_next_to_children_that_live():
    def body(impl):
        async def main():
            children = [await spawn("/bin/cat") for _ in range(5)]
            for n in range(50):
                try:
                    await spawn("/no/such/program")
                except FileNotFoundError:
                    pass
                else:
                    return "no error"
            return [(await child.communicate(b"%d" % n))[0] for n, child in enumerate(children)]
        return impl.run(main())
    assert same(body) == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.skipif(PY < (3, 12), reason="asyncio of Python 3.11 leaves the exception's frames in a cycle")
def test_failure_leaves_nothing_to_the_collector():
    """Neither transport nor pipes are in a cycle with the exception once that is gone."""
    def body(impl):
        async def main():
            try:
                await spawn("/no/such/program")
            except FileNotFoundError:
                pass
            before = len(os.listdir("/proc/self/fd"))
            gc.collect()
            return len(os.listdir("/proc/self/fd")) == before
        gc.disable()
        try:
            return impl.run(main())
        finally:
            gc.enable()
    assert same(body) is True


FULL_TABLE = """
    import errno, resource
    from support.proc import *
    warnings.simplefilter("ignore")

    def table():
        return sorted(os.listdir("/proc/self/fd"))

    async def turns():
        for _ in range(5):
            await asyncio.sleep(0.0005)
        gc.collect()

    async def main():
        await run("/bin/cat", input=b"what is made once is made now")
        await turns()
        limit = len(table()) + 60
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        before = table()
        outcomes = []
        for free in range(24):
            taken = []
            while True:
                try:
                    taken.append(os.dup(0))
                except OSError:
                    break
            for _ in range(free):
                os.close(taken.pop())
            try:
                found = await run("/bin/cat", input=b"data")
            except OSError as exc:
                assert exc.errno == errno.EMFILE, exc
                outcomes.append("EMFILE")
            else:
                assert found == (0, b"data", b""), found
                outcomes.append("done")
            for fd in taken:
                os.close(fd)
            async with asyncio.timeout(LIMIT):
                while table() != before or has_children():
                    await turns()
        return outcomes

    outcomes = impl.run(main())
    first = outcomes.index("done")
    print(first > 4, set(outcomes[:first]), set(outcomes[first:]))
"""


def test_full_table_at_each_step(impl):
    """With n descriptors free, for each n: EMFILE and no trace of it, or it works."""
    out = check_child(impl, FULL_TABLE, limit=30)
    assert out == "True {'EMFILE'} {'done'}\n"
