"""Every example prints the same on asyncio and on fastloop, with and without debug mode."""

import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

import fastloop

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = sorted(ROOT.glob("examples/*.py"))
TIMED = "race"
THIRD_PARTY = ("aiofiles", "aiohttp")


def run(*arguments, debug=False):
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONASYNCIODEBUG", "PYTHONPATH")}
    package = os.path.dirname(os.path.abspath(fastloop.__file__))
    if not package.startswith(sys.prefix + os.sep):  # a checkout, built in place
        env["PYTHONPATH"] = os.path.dirname(package)
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=env,
        timeout=110,
    )
    # Debug mode may find a step slow on a busy machine, and says so there.
    said = [line for line in done.stderr.splitlines() if not (debug and line.startswith("Executing <"))]
    assert (done.returncode, said) == (0, [])
    return done.stdout


@pytest.mark.parametrize("example", [e for e in EXAMPLES if e.stem != TIMED], ids=lambda path: path.stem)
def test_same_output(example):
    for name in THIRD_PARTY:
        if re.search(rf"^(import|from) {name}\b", example.read_text(), re.M) and not importlib.util.find_spec(name):
            pytest.skip(f"{name} is not installed for this Python")
    if '"openssl"' in example.read_text() and shutil.which("openssl") is None:
        pytest.skip("the openssl program is not installed")
    expected = run(example)
    assert expected
    assert run("-m", "fastloop", example) == expected
    assert run("-m", "fastloop", "--debug", example, debug=True) == expected


def test_race():
    lines = run("-m", "fastloop", ROOT / "examples" / f"{TIMED}.py").splitlines()
    measured = [line for line in lines if re.search(r" \d+\.\dx #*$", line)]
    assert len(measured) == 6


def test_examples_are_short_and_explained():
    assert len(EXAMPLES) > 12
    for example in EXAMPLES:
        text = example.read_text()
        assert text.startswith('"""'), example
        assert "fastloop" not in text or example.stem == TIMED, "an example is plain asyncio"
