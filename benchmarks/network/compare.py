"""Server CPU per request over the network: `python -m benchmarks.network -h`."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.compare import chosen, header, progress
from benchmarks.loops import NETWORK, OURS, REFERENCE
from benchmarks.network import build, certificate
from benchmarks.network.harness import FLOOR, FULL, QUICK, Row, Settings, groups, measure
from benchmarks.network.rows import CASES

NAME_WIDTH = 27


def number(value: float | None, form: str = ".2f") -> str:
    return "" if value is None else format(value, form)


def memory_block(row: Row) -> list[str]:
    heads = f"{'bytes each':>16}" + (f"{'beyond floor':>14}" if row.case.tls else "")
    lines = [f"{row.workload:{NAME_WIDTH}}{heads}"]
    for column, cell in row.cells.items():
        text = f"{cell.median:.0f} ±{cell.spread * 100:2.0f}%" if cell.ok else "fails"
        beyond = number(row.beyond(column), ".0f") if row.case.tls else ""
        lines.append(f"  {column:{NAME_WIDTH - 2}}{text:>16}{beyond:>14}".rstrip())
    return lines


def block(row: Row) -> list[str]:
    """What was measured for one row: a line for each loop."""
    if row.case.memory:
        return memory_block(row)
    heads = f"{'us per request':>16}{'x ' + REFERENCE:>10}{'of floor':>10}"
    heads += f"{'requests/s':>12}{'p50 us':>10}{'p99 us':>10}"
    lines = [f"{row.workload:{NAME_WIDTH}}{heads}"]
    for column, cell in row.cells.items():
        if not cell.ok:
            lines.append(f"  {column:{NAME_WIDTH - 2}}{'fails':>16}")
            continue
        mark = "!" if cell.disturbed else ""
        time_text = f"{cell.median / 1000:.2f}{mark} ±{cell.spread * 100:2.0f}%"
        lines.append(
            f"  {column:{NAME_WIDTH - 2}}{time_text:>16}"
            f"{number(row.ratio(column)):>10}{number(row.share(column)):>10}"
            f"{number(cell.middle('rate'), '.0f'):>12}"
            f"{number(cell.middle('p50_us'), '.1f'):>10}{number(cell.middle('p99_us'), '.1f'):>10}"
            + (f"  {cell.lost} lost" if cell.lost else "")
        )
    return lines


def verdict(row: Row) -> str:
    wanting = row.shortfalls()
    if row.target is None or wanting is None:
        ahead = row.ahead() if not row.case.memory else []
        return f"none  {', '.join(ahead)} ahead" if ahead else "none"
    wanted = ", ".join(f"{least:g} {what}" for what, _, least in row.requirements())
    return f"{wanted}  {'MISSED: ' + '; '.join(wanting) if wanting else 'met'}"


def figure(row: Row, loop: str) -> str:
    """What stands for a loop in the summary: times the reference, or bytes."""
    if not row.cells[loop].ok:
        return "fails"
    if row.case.memory:
        each = row.beyond(loop) if row.case.tls and loop != FLOOR else row.cells[loop].median
        return "" if each is None else f"{each:.0f} B"
    ratio = row.ratio(loop)
    return "" if ratio is None else f"{ratio:.2f}x"


def summary(rows: Sequence[Row], loops: Sequence[str]) -> str:
    """The table of ratios, targets and verdicts, and what there is to say about failures and marks."""
    lines = []
    if REFERENCE in loops or any(row.case.memory for row in rows):
        title = f"CPU, x {REFERENCE}"
        columns = [FLOOR, *loops]
        heads = "".join(f"{column:>11}" for column in columns)
        lines += [f"{title:{NAME_WIDTH}}{heads}{'of floor':>10}  target"]
        for row in rows:
            cells = "".join(f"{figure(row, column):>11}" for column in columns)
            share = number(row.share(OURS)) if OURS in loops and not row.case.memory else ""
            lines.append(f"{row.workload:{NAME_WIDTH}}{cells}{share:>10}  {verdict(row)}")
    failures = [
        f"{row.workload}, {column}: {cell.failure}"
        for row in rows
        for column, cell in row.cells.items()
        if cell.failure is not None
    ]
    if failures:
        lines += ["", "fails:", *failures]
    splits = [row for row in rows if row.workload == "split" and "joined" in row.others]
    for row in splits:
        shares = {loop: row.of_row(loop, "joined") for loop in loops}
        told = ", ".join(f"{loop} {share:.2f}" for loop, share in shares.items() if share is not None)
        lines += ["", f"two writes instead of one, share of the speed that is left: {told}"]
    if any(cell.disturbed for row in rows for cell in row.cells.values()):
        lines += ["", "! other processes took the core during a sample"]
    return "\n".join(lines)


def report(rows: Sequence[Row], versions: dict[str, str], settings: Settings) -> dict[str, Any]:
    """The run as JSON."""
    return {
        "environment": harness.environment(),
        "settings": asdict(settings),
        "loops": versions,
        "rows": {
            row.workload: {
                "case": asdict(row.case),
                "operation": row.case.summary,
                "unit": "bytes" if row.case.memory else "ns of server CPU",
                "target": asdict(row.target) if row.target else None,
                "shortfalls": row.shortfalls(),
                "loops": {
                    column: {
                        **asdict(cell),
                        "median": cell.median if cell.ok else None,
                        "spread": cell.spread if cell.ok else None,
                        "ratio": row.ratio(column),
                        "share": row.share(column),
                    }
                    for column, cell in row.cells.items()
                },
            }
            for row in rows
        },
    }


def buildable(names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """(the rows for which there are programs, why there are none for the others)"""
    without = {}
    for tls, what in ((False, "rows"), (True, "TLS rows")):
        if any(CASES[name].tls == tls for name in names):
            try:
                for program in ("floor", "load"):
                    build.path(program, tls)
                if tls:
                    certificate.path()
            except (build.BuildFailed, harness.WorkerFailed) as exc:
                without[what] = str(exc)
                names = [name for name in names if CASES[name].tls != tls]
    return list(names), without


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.network", description=__doc__)
    parser.add_argument("-w", "--workloads", metavar="NAMES", help="comma-separated names or parts of names")
    parser.add_argument("-l", "--loops", metavar="NAMES", help=f"comma-separated, of {', '.join(NETWORK)}")
    parser.add_argument("--rounds", type=int, help=f"default {FULL.rounds}, {QUICK.rounds} with --quick")
    parser.add_argument(
        "--core", "--cpu", dest="cpu", type=int, default=harness.last_cpu(), help="core for server and load; -1 for any"
    )
    parser.add_argument("--quick", action="store_true", help="less than four minutes for everything; less exact")
    parser.add_argument("--fresh", action="store_true", help="a new server for each sample, not warmed up")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there")
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    parser.add_argument("--list", action="store_true", help="list the rows and leave")
    options = parser.parse_args()

    names = chosen(options.workloads, list(CASES), parser)
    if options.list:
        for name in names:
            print(f"{name:{NAME_WIDTH}}{CASES[name].summary}")
        return 0
    settings = replace(QUICK if options.quick else FULL, cpu=options.cpu, fresh=options.fresh)
    if options.rounds is not None:
        settings = replace(settings, rounds=options.rounds, least_rounds=min(settings.least_rounds, options.rounds))
    names, without = buildable(names)
    if not names:
        sys.exit("; ".join(without.values()))

    began = time.monotonic()
    versions, missing = harness.available(chosen(options.loops, list(NETWORK), parser), settings.cpu)
    loops = list(versions)
    if not loops:
        parser.error("none of these loops is installed")
    print(header(versions, missing | without, settings), flush=True)
    rows: list[Row] = []
    for group in groups(names):
        for row in measure(group, loops, settings, progress):
            progress("")
            rows.append(row)
            print("", *block(row), sep="\n", flush=True)
    print("\n" + summary(rows, loops))
    judged = [row for row in rows if row.shortfalls() is not None]
    if judged:
        print(f"\n{sum(not row.shortfalls() for row in judged)} of {len(judged)} targets met", end="")
    print(f"\n{time.monotonic() - began:.0f} s")
    if options.json is not None:
        options.json.write_text(json.dumps(report(rows, versions, settings), indent=1) + "\n")
    return int(options.check and any(row.shortfalls() for row in rows))


if __name__ == "__main__":
    sys.exit(main())
