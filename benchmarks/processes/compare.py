"""Child processes on every loop: `python -m benchmarks.processes -h`."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks import harness, tables
from benchmarks.harness import Cell, Settings
from benchmarks.loops import LOOPS, OURS
from benchmarks.processes.targets import RESIDENT, TARGETS
from benchmarks.processes.workloads import WORKLOADS
from benchmarks.tables import NAME_WIDTH, chosen, header, label, line, progress, ratio_cell

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
        return self.short_of(TARGETS.get(self.workload))


def time_cell(cell: Cell) -> str:
    return f"{cell.median / 1000:.0f} ±{cell.spread * 100:2.0f}%" if cell.ok else "fails"


def verdict(row: Row) -> str:
    wanting, least = row.shortfalls(), TARGETS.get(row.workload)
    if least is None or wanting is None:
        return tables.no_target(row.ahead())
    return f"{least:g}x  {tables.judgement(wanting)}"


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


def described(row: Row) -> dict[str, Any]:
    """What the report says of a row."""
    return {
        "operation": WORKLOADS[row.workload].summary,
        "target": TARGETS.get(row.workload),
        "shortfalls": row.shortfalls(),
        "loops": {
            loop: {**asdict(cell), "median": cell.median if cell.ok else None, "ratio": row.ratio(loop)}
            for loop, cell in row.cells.items()
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processes", description=__doc__)
    tables.add_choices(parser, LOOPS, FULL, QUICK)
    parser.add_argument("--cpu", type=int, default=harness.last_cpu(), help="core to pin to; -1 for none")
    parser.add_argument("--quick", action="store_true", help="half a minute; less exact")
    tables.add_results(parser)
    parser.add_argument("--list", action="store_true", help="list the workloads and leave")
    options = parser.parse_args()

    names = chosen(options.workloads, list(WORKLOADS), parser)
    if options.list:
        for name in names:
            print(f"{name:{NAME_WIDTH}}{WORKLOADS[name].summary}")
        return 0

    run = tables.Run(parser, options, LOOPS, tables.chosen_settings(options, FULL, QUICK))
    print(header(run.versions, run.missing, run.settings), end="\n\n")
    print(line("us per operation", run.loops, CELL_WIDTH), flush=True)
    rows = []
    for name in names:
        measured = harness.measure(name, run.loops, run.settings, progress, WORKLOADS)
        rows.append(Row(measured.workload, measured.cells))
        progress("")
        cells = [time_cell(measured.cells[loop]) for loop in run.loops]
        print(line(label(measured), cells, CELL_WIDTH), flush=True)

    if REFERENCE in run.loops:
        others = [loop for loop in run.loops if loop != REFERENCE]
        print("\n" + line(f"times as fast as {REFERENCE}", others, 10) + "  target")
        for row in rows:
            print(f"{line(label(row), [ratio_cell(row, loop) for loop in others], 10)}  {verdict(row)}")
    shares = resident_shares(rows)
    if shares:
        print("\nwith 500 MiB in use: " + ", ".join(f"{loop} x {share:.2f}" for loop, share in shares.items()))
    for text in tables.failures(rows):
        print(text)
    run.end(rows, described)
    too_heavy = shares.get(OURS, 1.0) > 1 + RESIDENT
    return int(options.check and (too_heavy or any(row.shortfalls() for row in rows)))


if __name__ == "__main__":
    sys.exit(main())
