"""Child processes on every loop: `python -m benchmarks.processes -h`."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks import harness
from benchmarks.compare import NAME_WIDTH, chosen, header, label, progress, ratio_cell
from benchmarks.harness import Cell, Settings
from benchmarks.loops import LOOPS, OURS
from benchmarks.processes.targets import RESIDENT, TARGETS
from benchmarks.processes.workloads import WORKLOADS

REFERENCE = "asyncio"
CELL_WIDTH = 14

QUICK = Settings(rounds=5, duration=0.05, budget=15.0, least_rounds=1, timeout=20.0, quick=True)
FULL = Settings(rounds=15, duration=0.2, budget=120.0)


@dataclass
class Row(harness.Row):
    """One workload; ratios are to asyncio's own loop."""

    def ratio(self, loop: str, reference: str = REFERENCE) -> float | None:
        return super().ratio(loop, reference)

    def shortfalls(self) -> list[str] | None:
        ours = self.cells.get(OURS)
        if ours is None:
            return None
        if not ours.ok:
            return [f"{OURS} failed: {ours.failure}"]
        ratio, least = self.ratio(OURS), TARGETS.get(self.workload)
        wanting = []
        if ratio is not None and least is not None and ratio < least:
            wanting.append(f"{ratio:.2f}x is short of {least:g}x")
        if least is not None and self.ahead():
            wanting.append(f"{', '.join(self.ahead())} ahead")
        return wanting


def time_cell(cell: Cell) -> str:
    return f"{cell.median / 1000:.0f} ±{cell.spread * 100:2.0f}%" if cell.ok else "fails"


def verdict(row: Row) -> str:
    wanting, least = row.shortfalls(), TARGETS.get(row.workload)
    if least is None or wanting is None:
        return "none" + (f"  {', '.join(row.ahead())} ahead" if row.ahead() else "")
    return f"{least:g}x  {'MISSED: ' + '; '.join(wanting) if wanting else 'met'}"


def resident_shares(rows: Sequence[Row]) -> dict[str, float]:
    """By loop: what 500 MiB in use make of the time of a spawn."""
    found = {row.workload: row for row in rows}
    small, large = found.get("true"), found.get("true-500m")
    if small is None or large is None:
        return {}
    return {
        loop: large.cells[loop].median / cell.median
        for loop, cell in small.cells.items()
        if cell.ok and large.cells[loop].ok
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processes", description=__doc__)
    parser.add_argument("-w", "--workloads", metavar="NAMES", help="comma-separated names or parts of names")
    parser.add_argument("-l", "--loops", metavar="NAMES", help=f"comma-separated, of {', '.join(LOOPS)}")
    parser.add_argument("--rounds", type=int, help=f"default {FULL.rounds}, {QUICK.rounds} with --quick")
    parser.add_argument("--cpu", type=int, default=harness.last_cpu(), help="core to pin to; -1 for none")
    parser.add_argument("--quick", action="store_true", help="half a minute; less exact")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there")
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    parser.add_argument("--list", action="store_true", help="list the workloads and leave")
    options = parser.parse_args()

    names = chosen(options.workloads, list(WORKLOADS), parser)
    if options.list:
        for name in names:
            print(f"{name:{NAME_WIDTH}}{WORKLOADS[name].summary}")
        return 0
    settings = replace(QUICK if options.quick else FULL, cpu=options.cpu)
    if options.rounds is not None:
        settings = replace(settings, rounds=options.rounds, least_rounds=min(settings.least_rounds, options.rounds))

    began = time.monotonic()
    versions, missing = harness.available(chosen(options.loops, list(LOOPS), parser), settings.cpu)
    loops = list(versions)
    if not loops:
        parser.error("none of these loops is installed")
    print(header(versions, missing, settings), end="\n\n")
    print(f"{'us per operation':{NAME_WIDTH}}" + "".join(f"{loop:>{CELL_WIDTH}}" for loop in loops), flush=True)
    rows = []
    for name in names:
        measured = harness.measure(name, loops, settings, progress, WORKLOADS)
        rows.append(Row(measured.workload, measured.cells))
        progress("")
        cells = "".join(f"{time_cell(measured.cells[loop]):>{CELL_WIDTH}}" for loop in loops)
        print(f"{label(measured):{NAME_WIDTH}}{cells}", flush=True)

    if REFERENCE in loops:
        others = [loop for loop in loops if loop != REFERENCE]
        heads = "".join(f"{loop:>10}" for loop in others)
        print(f"\n{f'times as fast as {REFERENCE}':{NAME_WIDTH}}{heads}  target")
        for row in rows:
            cells = "".join(f"{ratio_cell(row, loop):>10}" for loop in others)
            print(f"{label(row):{NAME_WIDTH}}{cells}  {verdict(row)}")
    shares = resident_shares(rows)
    if shares:
        print("\nwith 500 MiB in use: " + ", ".join(f"{loop} x {share:.2f}" for loop, share in shares.items()))
    failures = [
        f"{row.workload}, {loop}: {cell.failure}"
        for row in rows
        for loop, cell in row.cells.items()
        if cell.failure is not None
    ]
    if failures:
        print("\nfails:", *failures, sep="\n")
    print(f"\n{time.monotonic() - began:.0f} s")
    if options.json is not None:
        content = {
            "environment": harness.environment(),
            "settings": asdict(settings),
            "loops": versions,
            "rows": {
                row.workload: {
                    "operation": WORKLOADS[row.workload].summary,
                    "target": TARGETS.get(row.workload),
                    "shortfalls": row.shortfalls(),
                    "loops": {
                        loop: {
                            **asdict(cell),
                            "median": cell.median if cell.ok else None,
                            "ratio": row.ratio(loop),
                        }
                        for loop, cell in row.cells.items()
                    },
                }
                for row in rows
            },
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    too_heavy = shares.get(OURS, 1.0) > 1 + RESIDENT
    return int(options.check and (too_heavy or any(row.shortfalls() for row in rows)))


if __name__ == "__main__":
    sys.exit(main())
