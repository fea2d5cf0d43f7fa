"""Builds the one extension module, ``fastloop._core``; everything else is in pyproject.toml.

Environment variables read here:

``FASTLOOP_BUILD``            ``release`` (default), ``debug``, ``asan``, ``tsan`` or ``coverage``
``FASTLOOP_WERROR=1``         a compiler warning fails the build
``FASTLOOP_UNTESTED_PYTHON``  set to 1 to try a CPython newer than the newest tested one

A developer's loop is ``python setup.py build_ext --inplace``: only files whose source, headers or flags changed are
compiled again, and each build kind keeps its own object files.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from glob import glob

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

OLDEST, NEWEST = (3, 11), (3, 15)

WARNINGS = [
    "-Wall",
    "-Wextra",
    "-Wstrict-prototypes",
    "-Wno-unused-parameter",
    "-Wno-missing-field-initializers",
    "-Wno-cast-function-type",
]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
# kind: (compiler flags, linker flags); "LTO" stands for what the compiler at hand understands
KINDS: dict[str, tuple[list[str], list[str]]] = {
    "release": (
        ["-O3", "-DNDEBUG", "-fno-semantic-interposition", "-fno-plt", "LTO"],
        ["-O3", "-Wl,-z,relro,-z,now", "LTO"],
    ),
    "debug": (["-O0", "-g3", "-UNDEBUG", "-U_FORTIFY_SOURCE", "-DFL_DEBUG=1"], []),
    "asan": (
        ["-O1", "-g", "-UNDEBUG", "-U_FORTIFY_SOURCE", "-DFL_DEBUG=1", "-fno-omit-frame-pointer", *SANITIZERS],
        SANITIZERS,
    ),
    # Without FL_DEBUG: the races to be found are those of the code that is shipped, pools included.
    "tsan": (
        ["-O1", "-g", "-UNDEBUG", "-U_FORTIFY_SOURCE", "-fno-omit-frame-pointer", "-fsanitize=thread"],
        ["-fsanitize=thread"],
    ),
    "coverage": (["-O0", "-g", "-UNDEBUG", "-U_FORTIFY_SOURCE", "-DFL_DEBUG=1", "--coverage"], ["--coverage"]),
}


def refusal() -> str | None:
    """Why fastloop cannot be built here, and what to do about it."""
    running = f"{platform.python_implementation()} {platform.python_version()}"
    tested = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
    if not sys.platform.startswith("linux"):
        return f"fastloop runs on Linux only, and this is {sys.platform}. Use asyncio's own loop here."
    if sys.implementation.name != "cpython":
        return f"fastloop needs CPython {tested}, and this is {running}. Use asyncio's own loop here."
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return (
            f"fastloop does not support free-threaded Python yet, and this is {running} without the GIL. "
            "Use the default build of the same Python."
        )
    if sys.version_info[:2] < OLDEST:
        return f"fastloop needs CPython {tested}, and this is {running}. Use a newer Python."
    if sys.version_info[:2] > NEWEST and os.environ.get("FASTLOOP_UNTESTED_PYTHON") != "1":
        return (
            f"fastloop is tested with CPython {tested}, and this is {running}. Use one of those, look for a newer "
            "fastloop, or set FASTLOOP_UNTESTED_PYTHON=1 to build it for this Python all the same."
        )
    return None


def build_kind() -> str:
    kind = os.environ.get("FASTLOOP_BUILD") or "release"
    if kind not in KINDS:
        raise SystemExit(f"FASTLOOP_BUILD={kind!r} is not one of {', '.join(KINDS)}")
    return kind


def is_gcc(command: list[str]) -> bool:
    try:
        version = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return False
    return "Free Software Foundation" in version


def inputs_of(obj: str) -> list[str]:
    """The contents of the files that an object was made from, by the list that the compiler left beside it."""
    words = shlex.split(read(obj + ".d").replace("\\\n", " "))
    return [contents(word) for word in words if not word.endswith(":")]


@cache
def contents(path: str) -> str:
    try:
        with open(path, "rb") as f:
            return hashlib.sha256(f.read()).hexdigest()
    except OSError:
        return "missing"


def fingerprint(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as f:
            return f.read()
    except OSError:
        return ""


def write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


class BuildExt(build_ext):
    """Compiles what changed, on all processors, with the flags of the chosen kind of build."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.kind = build_kind()
        self.build_temp = os.path.join(self.build_temp, self.kind)

    def run(self) -> None:
        problem = refusal()
        if problem:
            raise SystemExit(f"error: {problem}")
        super().run()

    def build_extension(self, ext: Extension) -> None:
        compile_flags, link_flags = KINDS[self.kind]
        lto = ["-flto=auto"] if is_gcc(self.compiler.compiler_so[:1]) else []
        werror = ["-Werror"] if os.environ.get("FASTLOOP_WERROR") == "1" else []
        ext.extra_compile_args = ["-std=c11", "-fvisibility=hidden", *WARNINGS, *werror]
        ext.extra_compile_args += [f for flag in compile_flags for f in (lto if flag == "LTO" else [flag])]
        ext.extra_link_args = [f for flag in link_flags for f in (lto if flag == "LTO" else [flag])]
        ext.define_macros = [("FL_BUILD_KIND", f'"{self.kind}"')]
        self.compiler.compile = self.compile_changed

        # distutils looks at timestamps alone, so that a change of flags would go unnoticed
        target = self.get_ext_fullpath(ext.name)
        stamp = os.path.join(self.build_temp, "..", f"linked-{fingerprint(os.path.abspath(target))[:16]}")
        linked = fingerprint(self.kind, sorted(ext.sources), ext.extra_compile_args, ext.extra_link_args)
        forced, self.force = self.force, True
        self.compile_all = bool(forced)
        self.compiler.force = self.compile_all or read(stamp) != linked  # that is: link again
        try:
            super().build_extension(ext)
        finally:
            self.force = forced
        write(stamp, linked)
        self.leave_a_copy_in_the_checkout(ext, target)

    def compile_changed(
        self, sources, output_dir=None, macros=None, include_dirs=None, debug=0, extra_preargs=None,
        extra_postargs=None, depends=None,
    ):  # fmt: skip
        compiler = self.compiler
        macros, objects, extra_postargs, pp_opts, build = compiler._setup_compile(
            output_dir, macros, include_dirs, sources, depends, extra_postargs
        )
        cc_args = compiler._get_cc_args(pp_opts, debug, extra_preargs)

        def compile_one(item):
            obj, (src, ext) = item
            flags = (compiler.compiler_so, cc_args, extra_postargs)
            if not self.compile_all and os.path.exists(obj):
                if read(obj + ".made-of") == fingerprint(flags, inputs_of(obj)):
                    return
            compiler._compile(obj, src, ext, [*cc_args, "-MD", "-MF", obj + ".d"], extra_postargs, pp_opts)
            write(obj + ".made-of", fingerprint(flags, inputs_of(obj)))

        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            list(pool.map(compile_one, build.items()))
        return objects

    def leave_a_copy_in_the_checkout(self, ext: Extension, target: str) -> None:
        """After ``pip install .`` a Python started in the checkout imports ``./fastloop``: let that work too."""
        package = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fastloop")
        copy = os.path.join(package, os.path.basename(target))
        if self.kind != "release" or self.inplace or os.path.abspath(target) == copy:
            return
        try:
            shutil.copy2(target, copy + ".new")
            os.replace(copy + ".new", copy)
        except OSError:
            pass


os.chdir(os.path.dirname(os.path.abspath(__file__)))

setup(
    ext_modules=[
        Extension(
            "fastloop._core",
            sources=sorted(glob("src/**/*.c", recursive=True)),
            depends=sorted(glob("src/**/*.h", recursive=True)),
            include_dirs=["src"],
        )
    ],
    cmdclass={"build_ext": BuildExt},
)
