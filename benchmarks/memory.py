"""Memory of what a program keeps many of: `python -m benchmarks.memory -h`.

A new process makes 100,000 of a kind and looks how much its resident memory has grown; nothing is traced, so nothing
is disturbed. Beside it stands `sys.getsizeof` of one, which knows nothing of what the object refers to.
"""

import argparse
import asyncio
import gc
import json
import os
import resource
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).resolve()
if not __package__:
    # Started as a worker; last, so that the checkout does not hide an installed fastloop.
    sys.path.append(str(SCRIPT.parent.parent))

from benchmarks import harness, loops
from benchmarks.tables import NAME_WIDTH, chosen

COUNT = 100_000


def resident() -> int:
    """Bytes of resident memory; where the system does not say, the most there has been."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def nothing() -> None:
    pass


async def wait(future: Any) -> None:
    await future


def coroutine(loop: asyncio.AbstractEventLoop) -> object:
    return wait(None)


def future(loop: asyncio.AbstractEventLoop) -> object:
    return loop.create_future()


def task(loop: asyncio.AbstractEventLoop) -> object:
    return loop.create_task(wait(loop.create_future()))


def timer(loop: asyncio.AbstractEventLoop) -> object:
    return loop.call_later(1000, nothing)


def handle(loop: asyncio.AbstractEventLoop) -> object:
    return loop.call_soon(nothing)


# Name: (what makes one, what it is).
KINDS: dict[str, tuple[Callable[[asyncio.AbstractEventLoop], object], str]] = {
    "coroutine": (coroutine, "a coroutine that has not begun; the same for every loop, and part of the task below"),
    "future": (future, "a pending create_future()"),
    "task": (task, "a create_task() that waits for a create_future() of its own, coroutine and future included"),
    "timer": (timer, "a pending call_later()"),
    "handle": (handle, "a pending call_soon()"),
}


def grow(loop: asyncio.AbstractEventLoop, make: Callable[[asyncio.AbstractEventLoop], object]) -> dict[str, float]:
    async def measure() -> dict[str, float]:
        # One first, so that what is made once is there already.
        kept: list[object] = [make(loop)] + [None] * COUNT
        for _ in range(3):
            await asyncio.sleep(0)
        gc.collect()
        before = resident()
        for index in range(1, COUNT + 1):
            kept[index] = make(loop)
        if make is not handle:
            # The tasks run up to their await.
            for _ in range(3):
                await asyncio.sleep(0)
        gc.collect()
        return {"resident": (resident() - before) / COUNT, "sizeof": sys.getsizeof(kept[-1])}

    return loop.run_until_complete(measure())


def worker(name: str, kind: str) -> None:
    result = grow(loops.factory(name)(), KINDS[kind][0])
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
    # The pending things are not torn down, nor complained about.
    os._exit(0)


def ask(name: str, kind: str) -> dict[str, float] | None:
    try:
        result = subprocess.run(
            [sys.executable, "-P", str(SCRIPT), "--worker", name, kind],
            env=harness.worker_environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        answer: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError):
        return None
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description="Bytes per pending object")
    parser.add_argument("-l", "--loops", metavar="NAMES", help="default: all that are installed")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    versions, missing = harness.available(chosen(options.loops, list(loops.LOOPS), parser), -1)
    for name, reason in missing.items():
        print(f"not measured: {name} ({textwrap.shorten(reason, 90)})")
    print(f"{'resident bytes (sizeof)':{NAME_WIDTH}}" + "".join(f"{name:>14}" for name in versions))
    results: dict[str, dict[str, dict[str, float] | None]] = {}
    for kind in KINDS:
        answers = results[kind] = {name: ask(name, kind) for name in versions}
        cells = [
            "fails" if answer is None else f"{answer['resident']:.0f} ({answer['sizeof']:.0f})"
            for answer in answers.values()
        ]
        print(f"{kind:{NAME_WIDTH}}" + "".join(f"{cell:>14}" for cell in cells), flush=True)
    print()
    for kind, (_, meaning) in KINDS.items():
        print(f"{kind}: {meaning}")
    if options.json is not None:
        report = {"environment": harness.environment(), "loops": versions, "bytes": results}
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[2], sys.argv[3])
    else:
        main()
