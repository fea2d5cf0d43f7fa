"""Spawns that fail, one after another, in all the ways there are.

    python tests/faults/run_spawn.py [--count N] [--loop fastloop|asyncio]

Each failure has asyncio's exception.  Afterwards there is no descriptor, no child and no thread more than before, a
spawn works, and over the second half the process has not grown.
"""

import asyncio
import errno
import gc
import os
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

from support import IMPLS  # noqa: E402
from support.long_runs import Memory, command_line  # noqa: E402
from support.peers import descriptors  # noqa: E402
from support.proc import has_children  # noqa: E402
from support.watch import thread_count  # noqa: E402

SLOPE = 8.0  # bytes by which the process may grow for each failure of the second half


def used():
    """What a failure could leave: descriptors, threads, children."""
    return descriptors(), thread_count(), has_children()


def broken():
    raise LookupError("preexec_fn")


def failures(folder):
    """(name, arguments, keywords, the exception, its errno) of each kind."""
    plain = os.path.join(folder, "not executable")
    with open(plain, "w") as file:
        file.write("text")
    unknown = os.path.join(folder, "unknown format")
    with open(unknown, "w") as file:
        file.write("text")
    os.chmod(unknown, 0o755)
    pipes = {"stdin": -1, "stdout": -1, "stderr": -1}
    kinds = [
        ("missing program", ("/no/such/program",), {}, FileNotFoundError, errno.ENOENT),
        ("missing program in PATH", ("no-such-program-here",), {}, FileNotFoundError, errno.ENOENT),
        ("empty program", ("",), {}, (FileNotFoundError, PermissionError), None),
        ("not executable", (plain,), {}, PermissionError, errno.EACCES),
        ("a folder", (folder,), {}, PermissionError, errno.EACCES),
        ("unknown format", (unknown,), {}, OSError, errno.ENOEXEC),
        ("bad cwd", ("/bin/true",), {"cwd": "/no/such/folder"}, FileNotFoundError, errno.ENOENT),
        ("cwd is a file", ("/bin/true",), {"cwd": plain}, NotADirectoryError, errno.ENOTDIR),
        ("NUL in an argument", ("/bin/echo", "a\0b"), {}, ValueError, None),
        ("NUL in the environment", ("/bin/true",), {"env": {"A": "\0"}}, ValueError, None),
        ("argument of no such type", ("/bin/echo", 3), {}, TypeError, None),
        ("too much to pass", ("/bin/echo", "x" * (1 << 18)), {}, OSError, errno.E2BIG),
        ("bad descriptor", ("/bin/true",), {"stdin": 99_999}, OSError, errno.EBADF),
        ("text", ("/bin/true",), {"text": True}, ValueError, None),
        ("preexec_fn raises", ("/bin/true",), {"preexec_fn": broken}, Exception, None),
    ]
    return [(name, args, {**pipes, **keywords}, *rest) for name, args, keywords, *rest in kinds]


async def fail(args, keywords, kind, number):
    try:
        await asyncio.create_subprocess_exec(*args, **keywords)
    except kind as exc:
        if number is not None and exc.errno != number:
            raise SystemExit(f"{args} {keywords}: {exc!r}") from exc
    else:
        raise SystemExit(f"{args} {keywords}: no error")


async def work():
    process = await asyncio.create_subprocess_exec("/bin/cat", stdin=-1, stdout=-1)
    out, _ = await process.communicate(b"works")
    assert (out, process.returncode) == (b"works", 0), (out, process.returncode)


async def main(count):
    await work()
    await asyncio.sleep(0.001)
    before = used()
    began, memory = time.monotonic(), Memory(count)
    with tempfile.TemporaryDirectory() as folder:
        kinds = failures(folder)
        for number in range(count):
            _, args, keywords, kind, errno_ = kinds[number % len(kinds)]
            await fail(args, keywords, kind, errno_)
            memory.look(number)
    took = time.monotonic() - began
    await asyncio.sleep(0)
    gc.collect()
    after = used()
    await work()
    print(f"{count} failures of {len(kinds)} kinds: {took:.1f} s, {after[0] - before[0]} descriptors more, "
          f"{memory.growth()[1]:.2f} bytes more for each", flush=True)
    assert after == before, (before, after)
    memory.check(SLOPE)


if __name__ == "__main__":
    options = command_line(__doc__, count=10_000).parse_args()
    IMPLS[options.loop].run(main(options.count))
