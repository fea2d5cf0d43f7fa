"""Compiles and runs the plain-C tests of base/ring.h and base/heap.h, with sanitizers if it can."""

import os
import shutil
import subprocess

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
SRC = os.path.join(os.path.dirname(os.path.dirname(HERE)), "src")
CC = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
FLAGS = ["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-I", SRC]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

pytestmark = [
    pytest.mark.skipif(CC is None, reason="no C compiler"),
    pytest.mark.skipif(not os.path.isdir(SRC), reason="src/ is not in this tree"),
]


@pytest.fixture(scope="module")
def sanitizers(tmp_path_factory):
    """The sanitizer flags, if this compiler has their libraries and they run here."""
    folder = tmp_path_factory.mktemp("probe")
    source = folder / "probe.c"
    source.write_text("int main(void) { return 0; }\n")
    built = subprocess.run([*CC.split(), *SANITIZE, str(source), "-o", str(folder / "probe")],
                           capture_output=True)
    if built.returncode == 0 and subprocess.run([str(folder / "probe")]).returncode == 0:
        return SANITIZE
    return []


@pytest.mark.parametrize("name", ["ring", "heap"])
def test_container(name, tmp_path, sanitizers):
    program = str(tmp_path / name)
    built = subprocess.run(
        [*CC.split(), *FLAGS, *sanitizers, os.path.join(HERE, f"test_{name}.c"), "-lm", "-o", program],
        capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    done = subprocess.run([program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() == f"{name} ok"
