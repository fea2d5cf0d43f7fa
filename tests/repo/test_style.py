"""The shape of the C files."""

import os
import re

import pytest

SRC = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
                   "src")


def sources():
    if not os.path.isdir(SRC):
        return []
    return sorted(os.path.relpath(os.path.join(folder, name), SRC)
                  for folder, _, files in os.walk(SRC) for name in files
                  if name.endswith((".c", ".h")))


pytestmark = pytest.mark.skipif(not sources(), reason="src/ is not in this tree")


def read(path):
    with open(os.path.join(SRC, path), encoding="utf-8") as f:
        return f.read()


@pytest.mark.parametrize("path", sources())
def test_file_shape(path):
    text = read(path)
    lines = text.split("\n")
    name = os.path.basename(path)
    assert text.startswith("/* ") and name in lines[0], "begins with /* name -- what it is */"
    assert text.endswith("\n") and not text.endswith("\n\n"), "ends with one newline"
    assert len(lines) <= 801, f"{len(lines) - 1} lines are too many for one file"
    assert "\t" not in text, "has tabs"
    assert "\r" not in text, "has carriage returns"
    assert not [n for n, line in enumerate(lines, 1) if line != line.rstrip()], "trailing blanks"
    assert not re.search(r"^\s*#\s*if\s+0\b", text, re.M), "has #if 0"


@pytest.mark.parametrize("path", sources())
def test_line_length(path):
    long = [n for n, line in enumerate(read(path).split("\n"), 1) if len(line) > 100]
    assert long == []


@pytest.mark.parametrize("path", [p for p in sources() if p.endswith(".h")])
def test_headers_are_guarded(path):
    text = read(path)
    assert "#pragma once" in text or re.search(r"#ifndef (\w+)\n#define \1\b", text)


@pytest.mark.parametrize("path", sources())
def test_no_abort(path):
    """A release build never ends the process."""
    code = re.sub(r'"(\\.|[^"\\])*"|/\*.*?\*/', "", read(path), flags=re.S)
    assert not re.search(r"\b(abort|exit|Py_FatalError)\s*\(", code)


def test_static_mutable_data():
    """State lives in the module; a static variable must be const."""
    found = []
    for path in sources():
        for match in re.finditer(r"^static (?!const\b|inline\b)([^;{}()=]*?)(\w+)(\[[^\]]*\])*\s*(=|;)",
                                 read(path), re.M):
            declaration = match.group(1)
            if not re.search(r"\b(PyMethodDef|PyGetSetDef|PyMemberDef|PyType_Slot|PyType_Spec|"
                             r"PyModuleDef|PyModuleDef_Slot|PyStructSequence_\w+)\b", declaration):
                found.append(f"{path}: {match.group(0)}")
    assert found == []
