"""Says why ``fastloop._core`` cannot be imported, and what to do. Imported only when that happens."""

from __future__ import annotations

import importlib.machinery
import os
import platform
import shlex
import sys


def explain(problem: ImportError) -> ImportError:
    package = os.path.dirname(os.path.abspath(__file__))
    checkout = os.path.dirname(package)
    python = shlex.quote(sys.executable or "python")
    running = f"{platform.python_implementation()} {platform.python_version()} ({sys.implementation.cache_tag})"
    here = [f"_core{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES]
    found = sorted(name for name in os.listdir(package) if name.startswith("_core.") and name.endswith(".so"))
    usable = [name for name in found if name in here]
    is_checkout = os.path.exists(os.path.join(checkout, "setup.py")) and os.path.isdir(os.path.join(checkout, "src"))
    reinstall = f"{python} -m pip install --force-reinstall --no-binary fastloop --no-cache-dir fastloop"
    build = f"{python} -m pip install -e {shlex.quote(checkout)}"

    if usable:
        text = (
            f"fastloop's extension module {usable[0]} is there but {running} cannot load it: {problem}. "
            f"Build it again with: {build if is_checkout else reinstall}"
        )
    elif is_checkout:
        built = f" (built for: {', '.join(map(tag, found))})" if found else ""
        text = (
            f"this is fastloop's source folder, {package}, and it has not been built for {running}{built}. "
            f"Build it with: {build} - or, to use an installed fastloop, start Python in another folder."
        )
    else:
        built = ", ".join(map(tag, found)) or "no Python at all"
        text = (
            f"the fastloop in {package} was built for {built}, but the running Python is {running}. "
            f"Install it for this Python with: {reinstall}"
        )
    return ImportError(text, name="fastloop._core", path=package)


def tag(name: str) -> str:
    """``_core.cpython-313-x86_64-linux-gnu.so`` -> ``cpython-313-x86_64-linux-gnu``"""
    return name.removeprefix("_core.").removesuffix(".so")
