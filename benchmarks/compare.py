"""Compare the loops: `python -m benchmarks.compare -h`."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks import harness, tables
from benchmarks.harness import QUICK, Row, Settings
from benchmarks.loops import LOOPS, OURS, REFERENCE
from benchmarks.tables import NAME_WIDTH, chosen, header, label, line, progress, ratio_cell
from benchmarks.workloads import WORKLOADS

CELL_WIDTH = 15


def time_cell(row: Row, loop: str) -> str:
    cell = row.cells[loop]
    if not cell.ok:
        return "fails"
    mark = "!" if cell.disturbed else ""
    return f"{cell.median:.0f}{mark} ±{cell.spread * 100:2.0f}%"


def verdict(row: Row) -> str:
    wanting = row.shortfalls()
    if row.target is None:
        return tables.no_target(row.ahead())
    target = f"{row.target.ratio:g}x"
    if wanting is None:
        return target
    return f"{target:4}  {tables.judgement(wanting)}"


def times_head(loops: Sequence[str]) -> str:
    return line("ns per operation", loops, CELL_WIDTH)


def times_line(row: Row, loops: Sequence[str]) -> str:
    return line(label(row), [time_cell(row, loop) for loop in loops], CELL_WIDTH)


def ratios(rows: Sequence[Row], loops: Sequence[str]) -> str:
    """The table of ratios, targets and verdicts, and what there is to say about failures and marks."""
    lines = []
    if REFERENCE in loops:
        others = [loop for loop in loops if loop != REFERENCE]
        lines += [line(f"times as fast as {REFERENCE}", others, 10) + "  best peer then  target"]
        for row in rows:
            cells = [ratio_cell(row, loop) for loop in others]
            then = f"{row.target.best_peer:g}x" if row.target else ""
            lines.append(f"{line(label(row), cells, 10)}  {then:>14}  {verdict(row)}")
    lines += tables.failures(rows)
    notes = []
    if any(row.reduced for row in rows):
        notes.append("~ smaller groups than the name says (--quick)")
    if tables.disturbed(rows):
        notes.append("! other processes took the core during a sample")
    return "\n".join(lines + ([""] + notes if notes else []))


def described(row: Row) -> dict[str, Any]:
    """What the report says of a row."""
    return {
        "reduced": row.reduced,
        "operation": WORKLOADS[row.workload].summary,
        "target": asdict(row.target) if row.target else None,
        "shortfalls": row.shortfalls(),
        "loops": {
            loop: {
                **asdict(cell),
                "median": cell.median if cell.ok else None,
                "spread": cell.spread if cell.ok else None,
                "ratio": row.ratio(loop),
            }
            for loop, cell in row.cells.items()
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    tables.add_choices(parser, LOOPS, Settings(), QUICK)
    parser.add_argument("--cpu", type=int, default=harness.last_cpu(), help="core to pin to; -1 for none")
    parser.add_argument("--quick", action="store_true", help="about a minute for everything; less exact")
    tables.add_results(parser)
    parser.add_argument("--list", action="store_true", help="list the workloads and leave")
    options = parser.parse_args()

    workloads = chosen(options.workloads, list(WORKLOADS), parser)
    if options.list:
        for name in workloads:
            print(f"{name:{NAME_WIDTH}}{WORKLOADS[name].summary}")
        return 0

    run = tables.Run(parser, options, LOOPS, tables.chosen_settings(options, Settings(), QUICK))
    print(header(run.versions, run.missing, run.settings), times_head(run.loops), sep="\n\n", flush=True)
    rows = []
    for name in workloads:
        rows.append(harness.measure(name, run.loops, run.settings, progress))
        progress("")
        print(times_line(rows[-1], run.loops), flush=True)
    print("\n" + ratios(rows, run.loops))
    judged = [row for row in rows if row.target is not None and row.cells.get(OURS) and row.ratio(OURS) is not None]
    if judged:
        met = sum(not row.shortfalls() for row in judged)
        print(f"\n{met} of {len(judged)} targets met", end="")
    run.end(rows, described)
    return int(options.check and any(row.shortfalls() for row in rows))


if __name__ == "__main__":
    sys.exit(main())
