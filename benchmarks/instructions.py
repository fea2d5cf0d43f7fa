"""Instructions per operation, counted by callgrind: `python -m benchmarks.instructions -h`.

Each workload runs twice, with N and with 2N operations, and the difference is divided by N: start-up, imports and
shut-down cancel out. The counts do not depend on what else the machine does. Needs valgrind.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

from benchmarks import harness
from benchmarks.loops import LOOPS, OURS, REFERENCE
from benchmarks.tables import NAME_WIDTH, chosen, progress
from benchmarks.workloads import WORKLOADS

DEFAULT_WORKLOADS = list(WORKLOADS)[:6]
DEFAULT_LOOPS = ["asyncio", OURS, REFERENCE]
TIMEOUT = 300.0  # seconds for one run under callgrind


class CountFailed(Exception):
    """The program failed under callgrind."""


def count(loop: str, workload: str, n: int) -> int:
    """Instructions of a whole process that does n operations."""
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder, "callgrind.out")
        program = [*harness.worker_command(loop, -1), "--once", workload, str(n)]
        try:
            result = subprocess.run(
                ["valgrind", "--tool=callgrind", f"--callgrind-out-file={profile}", *program],
                # Hash seeds change the work that dicts do.
                env={**harness.worker_environment(), "PYTHONHASHSEED": "0"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIMEOUT,
                check=False,
            )
        except FileNotFoundError:
            sys.exit("valgrind is not installed")
        except subprocess.TimeoutExpired:
            raise CountFailed(f"took more than {TIMEOUT:g} s") from None
        if result.returncode:
            # valgrind's own lines begin with ==pid==
            own = [line for line in result.stderr.splitlines() if line and not line.startswith("==")]
            raise CountFailed(own[-1] if own else f"exit code {result.returncode}")
        found = re.search(r"^(?:summary|totals): (\d+)", profile.read_text(errors="replace"), re.MULTILINE)
        if found is None:
            raise CountFailed("callgrind wrote no total")
        return int(found[1])


def per_operation(loop: str, workload: str, n: int) -> float:
    # A collection of the cyclic garbage collector falls into one run or the other; many operations even it out.
    return (count(loop, workload, 2 * n) - count(loop, workload, n)) / n


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description="Instructions per operation")
    parser.add_argument("-w", "--workloads", metavar="NAMES", help=f"default {','.join(DEFAULT_WORKLOADS)}")
    parser.add_argument("-l", "--loops", metavar="NAMES", help=f"default {','.join(DEFAULT_LOOPS)}")
    parser.add_argument("-n", type=int, default=5_000, help="operations (default %(default)s)")
    options = parser.parse_args()
    workloads = chosen(options.workloads or ",".join(DEFAULT_WORKLOADS), list(WORKLOADS), parser)
    asked = chosen(options.loops or ",".join(DEFAULT_LOOPS), list(LOOPS), parser)

    versions, missing = harness.available(asked, -1)
    for name, reason in missing.items():
        print(f"not measured: {name} ({textwrap.shorten(reason, 90)})")
    print(f"{'instructions per operation':{NAME_WIDTH + 4}}" + "".join(f"{loop:>12}" for loop in versions), flush=True)
    failures = []
    for workload in workloads:
        unit = WORKLOADS[workload].unit
        n = max(1, options.n // unit) * unit if unit <= options.n else options.n
        cells = []
        for loop in versions:
            progress(f"{workload}: {loop}")
            try:
                cells.append(f"{per_operation(loop, workload, n):>12.0f}")
            except CountFailed as exc:
                cells.append(f"{'fails':>12}")
                failures.append(f"{workload}, {loop}: {exc}")
        progress("")
        print(f"{workload:{NAME_WIDTH + 4}}" + "".join(cells), flush=True)
    for line in failures:
        print(line)


if __name__ == "__main__":
    main()
