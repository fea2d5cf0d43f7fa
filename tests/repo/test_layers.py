"""Includes in src/ point one way: a folder is a layer."""

import os
import re

import pytest

SRC = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
                   "src")

# From the bottom to the top; a file may include its own folder and those before it.
LAYERS = ["base", "os", "loop", "task", "exec", "net", "tls", "proc"]
ROOT = len(LAYERS)

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+(["<])([^">]+)[">]', re.M)


def sources():
    for folder, folders, files in os.walk(SRC):
        for name in sorted(files):
            if name.endswith((".c", ".h")):
                yield os.path.relpath(os.path.join(folder, name), SRC)


def read(path):
    with open(os.path.join(SRC, path), encoding="utf-8") as f:
        return f.read()


def layer(path):
    first = path.split("/")[0] if "/" in path else ""
    return ROOT if not first else LAYERS.index(first)


def target(path, name):
    """The file in src/ that an include means, or None for one from outside."""
    for base in (os.path.dirname(path), ""):
        candidate = os.path.normpath(os.path.join(base, name))
        if os.path.exists(os.path.join(SRC, candidate)):
            return candidate
    return None


pytestmark = pytest.mark.skipif(not os.path.isdir(SRC), reason="src/ is not in this tree")


def test_every_folder_has_a_rank():
    folders = {p.split("/")[0] for p in sources() if "/" in p}
    assert folders <= set(LAYERS)


@pytest.mark.parametrize("path", list(sources()) if os.path.isdir(SRC) else [])
def test_includes_point_downward(path):
    wrong = []
    for quote, name in INCLUDE.findall(read(path)):
        if quote == '"':
            found = target(path, name)
            if found is None and name.startswith("internal/pycore_"):
                continue  # CPython's own headers
            assert found is not None, f"{path} includes {name!r}, which does not exist"
            if layer(found) > layer(path):
                wrong.append(found)
    assert wrong == []


def test_there_is_no_cycle():
    graph = {p: [t for q, n in INCLUDE.findall(read(p)) if q == '"' and (t := target(p, n))]
             for p in sources()}
    state = {}

    def visit(path, trail):
        if state.get(path) == "done":
            return
        assert state.get(path) != "open", " -> ".join([*trail, path])
        state[path] = "open"
        for following in graph.get(path, ()):
            visit(following, [*trail, path])
        state[path] = "done"
    for path in graph:
        visit(path, [])


@pytest.mark.parametrize("path", [
    p for p in (sources() if os.path.isdir(SRC) else ())
    if p.startswith("os/") or p in ("base/cdefs.h", "base/ring.h", "base/heap.h", "base/list.h")])
def test_plain_c_stays_plain(path):
    """The kernel's layer and the containers know no Python."""
    text = read(path)
    assert "Python.h" not in text
    assert not re.search(r"\bPyObject\b", re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.S))


def test_own_header_comes_first():
    """unit.c includes unit.h before anything else: so the header stands alone."""
    wrong = []
    for path in sources():
        header = path[:-2] + ".h"
        if path.endswith(".c") and os.path.exists(os.path.join(SRC, header)):
            includes = INCLUDE.findall(read(path))
            if not includes or target(path, includes[0][1]) != header:
                wrong.append(path)
    assert wrong == []


def test_only_one_file_tests_the_version():
    """Differences between Python versions live in base/compat.h."""
    wrong = [p for p in sources() if p != "base/compat.h" and "PY_VERSION_HEX" in read(p)]
    assert wrong == []
