"""Compiles the C programs here, once per change: `path("floor")` is a program that can be run."""

import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Git ignores it, and no package contains it.
CACHE = HERE.parent.parent / "build" / "benchmarks"
FLAGS = ["-std=c11", "-O2", "-Wall", "-Wextra"]


class BuildFailed(Exception):
    """There is no compiler, or it complained."""


def path(name: str) -> Path:
    """The compiled program; compiles it if its sources or the C library have changed."""
    sources = [HERE / f"{name}.c", *sorted(HERE.glob("*.h"))]
    seed = repr((FLAGS, platform.machine(), platform.libc_ver())).encode()
    digest = hashlib.sha256(seed + b"".join(source.read_bytes() for source in sources)).hexdigest()
    program = CACHE / f"{name}-{digest[:16]}"
    if program.exists():
        return program
    compiler = os.environ.get("CC") or shutil.which("cc") or "gcc"
    unfinished = program.with_name(f"{program.name}.{os.getpid()}")
    try:
        CACHE.mkdir(parents=True, exist_ok=True)
        result = subprocess.run(
            [*compiler.split(), *FLAGS, str(sources[0]), "-o", str(unfinished)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if result.returncode:
            raise BuildFailed(f"{name}.c does not compile: {result.stderr.strip()}")
        unfinished.rename(program)
    except (OSError, subprocess.SubprocessError) as exc:
        raise BuildFailed(f"cannot compile {name}.c: {exc}") from None
    return program
