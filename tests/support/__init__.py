"""What the tests share: the two implementations, comparison, child processes.

A test body takes an `Impl` and uses nothing but it, so that the very same code runs on
fastloop and on asyncio.  `same(body)` runs a body on both and wants equal results.
"""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import textwrap

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOT = os.path.dirname(TESTS)

try:
    import fastloop
except ModuleNotFoundError:  # none is installed, and a program of tests/ was started by its path
    sys.path.insert(0, ROOT)
    import fastloop

PY = sys.version_info[:2]


class Impl:
    """One event loop library: its loop, Task and Future."""

    def __init__(self, name, loop, task, future):
        self.name = name
        self.Loop = loop
        self.Task = task
        self.Future = future

    def __repr__(self):
        return self.name

    @property
    def is_fastloop(self):
        return self.name == "fastloop"

    def new_loop(self):
        return self.Loop()

    @contextlib.contextmanager
    def loop(self, debug=False):
        """A fresh loop, closed at the end."""
        loop = self.Loop()
        loop.set_debug(debug)
        try:
            yield loop
        finally:
            loop.close()

    def run(self, main, debug=False):
        """Run the coroutine `main` on a fresh loop, with a Runner's clean-up."""
        with asyncio.Runner(loop_factory=self.Loop, debug=debug) as runner:
            if debug:
                # On a busy machine anything may take a tenth of a second, which debug mode would report.
                runner.get_loop().slow_callback_duration = 60
            return runner.run(main)


ASYNCIO = Impl("asyncio", asyncio.SelectorEventLoop, asyncio.Task, asyncio.Future)
FASTLOOP = Impl("fastloop", fastloop.Loop, fastloop.Task, fastloop.Future)
IMPLS = {"fastloop": FASTLOOP, "asyncio": ASYNCIO}


# What may differ between two runs without any meaning: addresses, automatic task names,
# the classes' own names and where asyncio's own source lives.
_NOISE = [
    (re.compile(r"0x[0-9a-fA-F]+"), "0x"),
    (re.compile(r"Task-\d+"), "Task-N"),
    (re.compile(r"\b_UnixSelectorEventLoop\b"), "Loop"),
    (re.compile(r"\b(fastloop(\._core)?|asyncio(\.\w+)?|_asyncio)\.(?=(Loop|Task|Future)\b)"), ""),
]


def plain(value):
    """`value` without what differs from run to run; exceptions become tuples."""
    if isinstance(value, str):
        for pattern, text in _NOISE:
            value = pattern.sub(text, value)
        return value
    if isinstance(value, BaseException):
        inner = ()
        if isinstance(value, BaseExceptionGroup):
            inner = tuple(plain(e) for e in value.exceptions)
        return ("raised", type(value).__name__, plain(str(value)), *inner)
    if isinstance(value, dict):
        return {plain(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (int, float, bytes, bool, type(None), set, frozenset)):
        return value
    if isinstance(value, type):
        return value.__name__
    return plain(repr(value))


def same(body, *args, **kwargs):
    """Run body(impl, ...) on asyncio and on fastloop; the results must be equal."""
    expected = plain(body(ASYNCIO, *args, **kwargs))
    found = plain(body(FASTLOOP, *args, **kwargs))
    assert found == expected
    return expected


def outcome(function, *args, **kwargs):
    """What a call returns, or the exception that it raises, as a value."""
    try:
        return ("returned", function(*args, **kwargs))
    except Exception as exc:
        return plain(exc)


def state_of(future):
    """A done or pending future's state as a comparable value."""
    if not future.done():
        return "pending"
    if future.cancelled():
        try:
            future.result()
        except asyncio.CancelledError as exc:
            return ("cancelled", exc.args)
    exc = future.exception()
    if exc is not None:
        return ("failed", type(exc).__name__, exc.args)
    return ("finished", future.result())


async def settle(rounds=10):
    """Let everything that is ready run, `rounds` iterations long."""
    for _ in range(rounds):
        await asyncio.sleep(0)


def spin(loop, rounds=10):
    """Run `rounds` iterations of a loop that is not running."""
    for _ in range(rounds):
        loop.call_soon(loop.stop)
        loop.run_forever()


_PRELUDE = """\
import asyncio, contextvars, faulthandler, gc, os, signal, sys, threading, time, warnings
faulthandler.enable()
from support import ASYNCIO, FASTLOOP, IMPLS, PY, plain, settle, spin, state_of
impl = IMPLS[{impl!r}]
"""


def child(impl, code, *, limit=10, flags=(), env=None):
    """Run `code` in a new interpreter where `impl` is that implementation.

    Returns the CompletedProcess; a child that is not finished after `limit` seconds is killed
    and shows where it stood.
    """
    source = _PRELUDE.format(impl=impl.name) + textwrap.dedent(code)
    environ = dict(os.environ)
    environ["PYTHONPATH"] = os.pathsep.join([TESTS, *filter(None, sys.path)])
    environ.pop("PYTHONASYNCIODEBUG", None)
    environ.update(env or {})
    # Its own session, so that what it forked can be ended with it.
    process = subprocess.Popen(
        [sys.executable, "-P", *flags, "-c", source], env=environ, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGABRT)  # faulthandler shows where it stood
        try:
            out, err = process.communicate(timeout=1)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
        err += f"\nkilled: not finished after {limit} seconds"
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def check_child(impl, code, **kwargs):
    """Run `code` in a child that must exit with status 0; returns what it printed."""
    done = child(impl, code, **kwargs)
    assert done.returncode == 0, (
        f"child exited with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def check_program(path, *arguments, limit=100):
    """Run a program of tests/ in a child that must exit with status 0; returns what it printed."""
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    done = subprocess.run([sys.executable, "-P", "-W", "ignore", os.path.join(TESTS, path), *arguments],
                          capture_output=True, text=True, env=env, timeout=limit)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def same_child(code, *, normal=plain, **kwargs):
    """Run `code` in one child for each implementation; equal output and status."""
    results = []
    for impl in (ASYNCIO, FASTLOOP):
        done = child(impl, code, **kwargs)
        results.append((done.returncode, normal(done.stdout), done.stderr))
    (status, out, err), (status2, out2, err2) = results
    assert status == 0, f"asyncio's child exited with {status}\n{out}\n{err}"
    assert (status2, out2) == (status, out), err2
    return out
