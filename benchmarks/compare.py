"""Compare the loops: `python -m benchmarks.compare -h`."""

import argparse
import json
import sys
import textwrap
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import QUICK, Row, Settings
from benchmarks.loops import LOOPS, OURS, REFERENCE
from benchmarks.workloads import WORKLOADS

NAME_WIDTH = 24
CELL_WIDTH = 15


def time_cell(row: Row, loop: str) -> str:
    cell = row.cells[loop]
    if not cell.ok:
        return "fails"
    mark = "!" if cell.disturbed else ""
    return f"{cell.median:.0f}{mark} ±{cell.spread * 100:2.0f}%"


def ratio_cell(row: Row, loop: str) -> str:
    if not row.cells[loop].ok:
        return "fails"
    ratio = row.ratio(loop)
    return "" if ratio is None else f"{ratio:.2f}x"


def verdict(row: Row) -> str:
    wanting = row.shortfalls()
    if row.target is None:
        ahead = row.ahead()
        return f"none  {', '.join(ahead)} ahead" if ahead else "none"
    target = f"{row.target.ratio:g}x"
    if wanting is None:
        return target
    return f"{target:4}  {'MISSED: ' + '; '.join(wanting) if wanting else 'met'}"


def label(row: Row) -> str:
    return row.workload + (" ~" if row.reduced else "")


def times_head(loops: Sequence[str]) -> str:
    return f"{'ns per operation':{NAME_WIDTH}}" + "".join(f"{loop:>{CELL_WIDTH}}" for loop in loops)


def times_line(row: Row, loops: Sequence[str]) -> str:
    return f"{label(row):{NAME_WIDTH}}" + "".join(f"{time_cell(row, loop):>{CELL_WIDTH}}" for loop in loops)


def ratios(rows: Sequence[Row], loops: Sequence[str]) -> str:
    """The table of ratios, targets and verdicts, and what there is to say about failures and marks."""
    lines = []
    if REFERENCE in loops:
        others = [loop for loop in loops if loop != REFERENCE]
        heads = "".join(f"{loop:>10}" for loop in others)
        lines += [f"{f'times as fast as {REFERENCE}':{NAME_WIDTH}}{heads}  best peer then  target"]
        for row in rows:
            cells = "".join(f"{ratio_cell(row, loop):>10}" for loop in others)
            then = f"{row.target.best_peer:g}x" if row.target else ""
            lines.append(f"{label(row):{NAME_WIDTH}}{cells}  {then:>14}  {verdict(row)}")
    failures = [
        f"{row.workload}, {loop}: {cell.failure}"
        for row in rows
        for loop, cell in row.cells.items()
        if cell.failure is not None
    ]
    if failures:
        lines += ["", "fails:", *failures]
    notes = []
    if any(row.reduced for row in rows):
        notes.append("~ smaller groups than the name says (--quick)")
    if any(cell.disturbed for row in rows for cell in row.cells.values()):
        notes.append("! other processes took the core during a sample")
    return "\n".join(lines + ([""] + notes if notes else []))


def header(versions: dict[str, str], missing: dict[str, str], settings: Settings) -> str:
    facts = harness.environment()
    lines = [
        f"CPython {facts['python']} ({facts['compiler']}), {facts['system']}, {facts['processor']}, "
        f"{facts['cores']} cores, " + (f"pinned to core {settings.cpu}" if settings.cpu >= 0 else "not pinned"),
        ", ".join(f"{name} {version}" for name, version in versions.items()),
        f"{settings.rounds} interleaved rounds; median ± distance of the quartiles",
    ]
    lines += [f"not measured: {name} ({textwrap.shorten(reason, 90)})" for name, reason in missing.items()]
    return "\n".join(lines)


def report(rows: Sequence[Row], versions: dict[str, str], settings: Settings) -> dict[str, Any]:
    """The run as JSON."""
    return {
        "environment": harness.environment(),
        "settings": asdict(settings),
        "loops": versions,
        "rows": {
            row.workload: {
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
            for row in rows
        },
    }


def chosen(text: str | None, known: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """The known names that a comma-separated list asks for; a part of a name counts for all that contain it."""
    if text is None:
        return list(known)
    wanted = []
    for part in text.split(","):
        matches = [part] if part in known else [name for name in known if part in name]
        if not matches:
            parser.error(f"{part!r} is none of {', '.join(known)}")
        wanted += matches
    return [name for name in known if name in wanted]


def progress(text: str) -> None:
    """Show what is being done, on a terminal, until the next line of output."""
    if sys.stderr.isatty():
        print(f"\r{text:60}\r", end="", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("-w", "--workloads", metavar="NAMES", help="comma-separated names or parts of names")
    parser.add_argument("-l", "--loops", metavar="NAMES", help=f"comma-separated, of {', '.join(LOOPS)}")
    parser.add_argument("--rounds", type=int, help=f"default {Settings.rounds}, {QUICK.rounds} with --quick")
    parser.add_argument("--cpu", type=int, default=harness.last_cpu(), help="core to pin to; -1 for none")
    parser.add_argument("--quick", action="store_true", help="about a minute for everything; less exact")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there")
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    parser.add_argument("--list", action="store_true", help="list the workloads and leave")
    options = parser.parse_args()

    workloads = chosen(options.workloads, list(WORKLOADS), parser)
    if options.list:
        for name in workloads:
            print(f"{name:{NAME_WIDTH}}{WORKLOADS[name].summary}")
        return 0
    settings = replace(QUICK if options.quick else Settings(), cpu=options.cpu)
    if options.rounds is not None:
        settings = replace(settings, rounds=options.rounds, least_rounds=min(settings.least_rounds, options.rounds))

    began = time.monotonic()
    versions, missing = harness.available(chosen(options.loops, list(LOOPS), parser), settings.cpu)
    loops = list(versions)
    if not loops:
        parser.error("none of these loops is installed")
    print(header(versions, missing, settings), times_head(loops), sep="\n\n", flush=True)
    rows = []
    for name in workloads:
        rows.append(harness.measure(name, loops, settings, progress))
        progress("")
        print(times_line(rows[-1], loops), flush=True)
    print("\n" + ratios(rows, loops))
    judged = [row for row in rows if row.target is not None and row.cells.get(OURS) and row.ratio(OURS) is not None]
    if judged:
        met = sum(not row.shortfalls() for row in judged)
        print(f"\n{met} of {len(judged)} targets met", end="")
    print(f"\n{time.monotonic() - began:.0f} s")
    if options.json is not None:
        options.json.write_text(json.dumps(report(rows, versions, settings), indent=1) + "\n")
    return int(options.check and any(row.shortfalls() for row in rows))


if __name__ == "__main__":
    sys.exit(main())
