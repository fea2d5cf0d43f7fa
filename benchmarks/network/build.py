"""Compiles the C programs here, once per change: `path("floor")` is a program that can be run.

Those that speak TLS are the same sources, compiled for it and linked with OpenSSL.
"""

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
TLS_FLAGS = ["-DBENCH_TLS"]
TLS_LIBRARIES = ["-lssl", "-lcrypto"]
NO_OPENSSL = "OpenSSL's headers are not installed; on Debian: apt-get install libssl-dev"


class BuildFailed(Exception):
    """There is no compiler, or it complained."""


def path(name: str, tls: bool = False) -> Path:
    """The compiled program; compiles it if its sources or the C library have changed."""
    flags, libraries = ([*FLAGS, *TLS_FLAGS], TLS_LIBRARIES) if tls else (FLAGS, [])
    sources = [HERE / f"{name}.c", *sorted(HERE.glob("*.h"))]
    seed = repr((flags, platform.machine(), platform.libc_ver())).encode()
    digest = hashlib.sha256(seed + b"".join(source.read_bytes() for source in sources)).hexdigest()
    program = CACHE / f"{name}{'-tls' if tls else ''}-{digest[:16]}"
    if program.exists():
        return program
    compiler = os.environ.get("CC") or shutil.which("cc") or "gcc"
    unfinished = program.with_name(f"{program.name}.{os.getpid()}")
    try:
        CACHE.mkdir(parents=True, exist_ok=True)
        result = subprocess.run(
            [*compiler.split(), *flags, str(sources[0]), "-o", str(unfinished), *libraries],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if tls and ("openssl/" in result.stderr or "-lssl" in result.stderr):
            raise BuildFailed(NO_OPENSSL)
        if result.returncode:
            raise BuildFailed(f"{name}.c does not compile: {result.stderr.strip()}")
        unfinished.rename(program)
    except (OSError, subprocess.SubprocessError) as exc:
        raise BuildFailed(f"cannot compile {name}.c: {exc}") from None
    return program
