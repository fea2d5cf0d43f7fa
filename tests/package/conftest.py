"""Fixtures for the tests of the package's outside: everything runs in a new interpreter, in an empty folder."""

import os
import subprocess
import sys
import textwrap

import pytest

import fastloop

PACKAGE = os.path.dirname(os.path.abspath(fastloop.__file__))


def environment():
    """An environment in which a new interpreter imports the fastloop under test."""
    unwanted = ("PYTHONASYNCIODEBUG", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "FASTLOOP_LAUNCHER")
    env = {k: v for k, v in os.environ.items() if k not in unwanted}
    if not PACKAGE.startswith(sys.prefix + os.sep):  # a checkout, built in place
        env["PYTHONPATH"] = os.path.dirname(PACKAGE)
    return env


@pytest.fixture
def python(tmp_path):
    """python(*arguments): run the interpreter; the status must be *status* and stderr empty unless *stderr* is given."""

    def run(*arguments, status=0, stderr="", env=None, **kwargs):
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment() | (env or {}),
            timeout=90,
            **kwargs,
        )
        assert done.returncode == status, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
        if stderr is not None:
            assert done.stderr == stderr, done.stderr
        return done

    return run


@pytest.fixture
def code(python):
    """code(source, *flags): run source with every warning an error; returns what it printed."""

    def run(source, *flags, **kwargs):
        return python("-W", "error", *flags, "-c", textwrap.dedent(source), **kwargs).stdout

    return run


@pytest.fixture
def script(tmp_path):
    """script(source): write a program, and return its path."""

    def write(source, name="program.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
        return path

    return write
