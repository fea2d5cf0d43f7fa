"""What the package is made of: its names, its files, its cost, its error messages."""

import asyncio
import importlib.util
import os
import re
import shutil
import statistics
import subprocess
import sys

import pytest

import fastloop
from fastloop import _core

PACKAGE = os.path.dirname(os.path.abspath(fastloop.__file__))


def test_public_names():
    assert sorted(fastloop.__all__) == sorted(
        [
            "EventLoopPolicy",
            "Future",
            "Loop",
            "Task",
            "__version__",
            "install",
            "new_event_loop",
            "run",
            "uninstall",
        ]
    )
    for name in fastloop.__all__:
        assert getattr(fastloop, name) is not None
        assert name in dir(fastloop)


def test_unknown_name():
    with pytest.raises(AttributeError, match="module 'fastloop' has no attribute 'loop_factory'"):
        fastloop.loop_factory  # noqa: B018


def test_star_import(code):
    assert code("from fastloop import *; print(run.__module__, EventLoopPolicy.__name__)").split() == [
        "fastloop._run",
        "EventLoopPolicy",
    ]


def test_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+([.a-z0-9]+)?", fastloop.__version__)


def test_types():
    assert issubclass(fastloop.Loop, asyncio.AbstractEventLoop)
    assert issubclass(fastloop.Task, asyncio.Task)
    assert issubclass(fastloop.Future, asyncio.Future)


def test_typed():
    assert os.path.exists(os.path.join(PACKAGE, "py.typed"))


def test_installed_files_hold_no_sources():
    for _, folders, files in os.walk(PACKAGE):
        folders[:] = [f for f in folders if f != "__pycache__"]
        assert not [f for f in files if f.endswith((".c", ".h", ".o"))]


def test_stubs_match_the_module(python, tmp_path):
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    if not os.path.exists(os.path.join(PACKAGE, "_core.pyi")):
        pytest.skip("there is no fastloop/_core.pyi")
    env = {"MYPYPATH": os.path.dirname(PACKAGE), "MYPY_CACHE_DIR": str(tmp_path / "cache")}
    if "site-packages" in PACKAGE:
        env["MYPYPATH"] = ""  # mypy finds the installed package, and refuses site-packages here
    arguments = ["-m", "mypy.stubtest", "fastloop._core", "--concise"]
    if os.path.exists(os.path.join(os.path.dirname(__file__), "stubtest-allowlist.txt")):
        arguments += ["--allowlist", os.path.join(os.path.dirname(__file__), "stubtest-allowlist.txt")]
        arguments += ["--ignore-unused-allowlist"]
    python(*arguments, status=0, stderr=None, env=env)


def test_import_time(python):
    if getattr(_core, "build", "release") != "release" or hasattr(sys, "gettotalrefcount"):
        pytest.skip("not a release build")
    program = (
        "import time, asyncio\n"
        "start = time.perf_counter()\n"
        "import fastloop\n"
        "print(time.perf_counter() - start)\n"
    )
    python("-c", program)  # writes the .pyc files
    times = [float(python("-c", program).stdout) for _ in range(7)]
    assert statistics.median(times) < 0.030, times


def test_import_is_lazy(code):
    added = code(
        """
        import sys, asyncio
        before = set(sys.modules)
        import fastloop
        print(*sorted(set(sys.modules) - before))
        """
    ).split()
    others = [name for name in added if not name.startswith("fastloop")]
    assert len(others) <= 5, others
    assert "fastloop._policy" not in added
    assert "fastloop._missing" not in added
    assert "fastloop.__main__" not in added


@pytest.fixture
def copied(tmp_path):
    """A copy of the package's Python files without its extension module."""

    def ignore(folder, names):
        return [n for n in names if n.endswith(".so") or n == "__pycache__"]

    shutil.copytree(PACKAGE, tmp_path / "lib" / "fastloop", ignore=ignore)
    return tmp_path / "lib"


def import_error(python, folder):
    done = python(
        "-c",
        "try: import fastloop\nexcept ImportError as exc: print(exc.name, '|', exc)",
        env={"PYTHONPATH": str(folder)},
    )
    name, _, message = done.stdout.partition(" | ")
    assert name == "fastloop._core"
    assert ".".join(map(str, sys.version_info[:3])) in message
    assert "-m pip install " in message
    return message


def test_another_python(python, copied):
    (copied / "fastloop" / "_core.cpython-39-x86_64-linux-gnu.so").touch()
    message = import_error(python, copied)
    assert "built for cpython-39-x86_64-linux-gnu, but the running Python is CPython" in message
    assert "--force-reinstall" in message


def test_checkout_that_was_not_built(python, copied):
    (copied / "src").mkdir()
    (copied / "setup.py").touch()
    message = import_error(python, copied)
    assert "has not been built for CPython" in message
    assert f"pip install -e {copied}" in message


def test_broken_extension(python, copied):
    import sysconfig

    (copied / "fastloop" / f"_core{sysconfig.get_config_var('EXT_SUFFIX')}").write_bytes(b"not an ELF file")
    message = import_error(python, copied)
    assert "cannot load it" in message


def test_setup_refuses_what_is_not_supported(tmp_path):
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    setup = os.path.join(root, "setup.py")
    if importlib.util.find_spec("setuptools") is None or not os.path.exists(setup):
        pytest.skip("needs setuptools and the checkout")
    program = (
        "import sys, runpy, setuptools, setuptools.command.build_ext\n"
        "setuptools.setup = lambda **options: None\n"
        "sys.version_info = (3, 16, 0, 'final', 0)\n"
        f"refusal = runpy.run_path({setup!r})['refusal']\n"
        "print(refusal())\n"
        "sys.platform = 'darwin'\n"
        "print(refusal())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "FASTLOOP_UNTESTED_PYTHON=1" in done.stdout
    assert "Linux only" in done.stdout
