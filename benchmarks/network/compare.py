"""Server CPU per request over the network: `python -m benchmarks.network -h`."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from benchmarks import harness, tables
from benchmarks.loops import NETWORK, OURS, REFERENCE
from benchmarks.network import build, certificate
from benchmarks.network.harness import FLOOR, FULL, QUICK, Row, groups, measure
from benchmarks.network.rows import CASES
from benchmarks.tables import chosen, header, line, progress, ratio_cell

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
        return tables.no_target(row.ahead() if not row.case.memory else [])
    wanted = ", ".join(f"{least:g} {what}" for what, _, least in row.requirements())
    return f"{wanted}  {tables.judgement(wanting)}"


def figure(row: Row, loop: str) -> str:
    """What stands for a loop in the summary: times the reference, or bytes."""
    if not row.case.memory or not row.cells[loop].ok:
        return ratio_cell(row, loop)
    each = row.beyond(loop) if row.case.tls and loop != FLOOR else row.cells[loop].median
    return "" if each is None else f"{each:.0f} B"


def summary(rows: Sequence[Row], loops: Sequence[str]) -> str:
    """The table of ratios, targets and verdicts, and what there is to say about failures and marks."""
    lines = []
    if REFERENCE in loops or any(row.case.memory for row in rows):
        columns = [FLOOR, *loops]
        lines += [f"{line(f'CPU, x {REFERENCE}', columns, 11, NAME_WIDTH)}{'of floor':>10}  target"]
        for row in rows:
            cells = [figure(row, column) for column in columns]
            share = number(row.share(OURS)) if OURS in loops and not row.case.memory else ""
            lines.append(f"{line(row.workload, cells, 11, NAME_WIDTH)}{share:>10}  {verdict(row)}")
    lines += tables.failures(rows)
    splits = [row for row in rows if row.workload == "split" and "joined" in row.others]
    for row in splits:
        shares = {loop: row.of_row(loop, "joined") for loop in loops}
        told = ", ".join(f"{loop} {share:.2f}" for loop, share in shares.items() if share is not None)
        lines += ["", f"two writes instead of one, share of the speed that is left: {told}"]
    if tables.disturbed(rows):
        lines += ["", "! other processes took the core during a sample"]
    return "\n".join(lines)


def described(row: Row) -> dict[str, Any]:
    """What the report says of a row."""
    return {
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
    tables.add_choices(parser, NETWORK, FULL, QUICK)
    parser.add_argument(
        "--core", "--cpu", dest="cpu", type=int, default=harness.last_cpu(), help="core for server and load; -1 for any"
    )
    parser.add_argument("--quick", action="store_true", help="less than four minutes for everything; less exact")
    parser.add_argument("--fresh", action="store_true", help="a new server for each sample, not warmed up")
    tables.add_results(parser)
    parser.add_argument("--list", action="store_true", help="list the rows and leave")
    options = parser.parse_args()

    names = chosen(options.workloads, list(CASES), parser)
    if options.list:
        for name in names:
            print(f"{name:{NAME_WIDTH}}{CASES[name].summary}")
        return 0
    names, without = buildable(names)
    if not names:
        sys.exit("; ".join(without.values()))

    settings = replace(tables.chosen_settings(options, FULL, QUICK), fresh=options.fresh)
    run = tables.Run(parser, options, NETWORK, settings)
    print(header(run.versions, run.missing | without, settings), flush=True)
    rows: list[Row] = []
    for group in groups(names):
        for row in measure(group, run.loops, settings, progress):
            progress("")
            rows.append(row)
            print("", *block(row), sep="\n", flush=True)
    print("\n" + summary(rows, run.loops))
    judged = [row for row in rows if row.shortfalls() is not None]
    if judged:
        print(f"\n{sum(not row.shortfalls() for row in judged)} of {len(judged)} targets met", end="")
    run.end(rows, described)
    return int(options.check and any(row.shortfalls() for row in rows))


if __name__ == "__main__":
    sys.exit(main())
