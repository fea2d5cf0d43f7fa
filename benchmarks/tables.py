"""What the comparisons share: their options, the loops that are there, parts of their tables, the report."""

import argparse
import json
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from benchmarks import harness
from benchmarks.harness import Row, Settings

AnyRow = TypeVar("AnyRow", bound=Row)
AnySettings = TypeVar("AnySettings", bound=Settings)

NAME_WIDTH = 24


# Options


def add_choices(
    parser: argparse.ArgumentParser,
    loops: Iterable[str],
    full: Settings,
    quick: Settings,
    workloads: str = "comma-separated names or parts of names",
) -> None:
    """The options that say what is measured."""
    parser.add_argument("-w", "--workloads", metavar="NAMES", help=workloads)
    parser.add_argument("-l", "--loops", metavar="NAMES", help=f"comma-separated, of {', '.join(loops)}")
    parser.add_argument("--rounds", type=int, help=f"default {full.rounds}, {quick.rounds} with --quick")


def add_results(parser: argparse.ArgumentParser) -> None:
    """The options that say what becomes of the results."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there")
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")


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


def chosen_settings(options: argparse.Namespace, full: AnySettings, quick: AnySettings) -> AnySettings:
    settings = replace(quick if options.quick else full, cpu=options.cpu)
    if options.rounds is not None:
        settings = replace(settings, rounds=options.rounds, least_rounds=min(settings.least_rounds, options.rounds))
    return settings


# A run from the look for loops to the report


class Run:
    """A comparison under way: with which settings, and on which loops. Without any it ends here."""

    def __init__(
        self,
        parser: argparse.ArgumentParser,
        options: argparse.Namespace,
        known: Iterable[str],
        settings: Settings,
    ) -> None:
        self.options, self.settings = options, settings
        self.began = time.monotonic()
        self.versions, self.missing = harness.available(chosen(options.loops, list(known), parser), settings.cpu)
        self.loops = list(self.versions)
        if not self.loops:
            parser.error("none of these loops is installed")

    def end(self, rows: Sequence[AnyRow], describe: Callable[[AnyRow], dict[str, Any]]) -> None:
        """Say how long it took, and write the report if there has to be one; `describe` is what it says of a row."""
        print(f"\n{time.monotonic() - self.began:.0f} s")
        if self.options.json is not None:
            content = {
                "environment": harness.environment(),
                "settings": asdict(self.settings),
                "loops": self.versions,
                "rows": {row.workload: describe(row) for row in rows},
            }
            self.options.json.write_text(json.dumps(content, indent=1) + "\n")


def progress(text: str) -> None:
    """Show what is being done, on a terminal, until the next line of output."""
    if sys.stderr.isatty():
        print(f"\r{text:60}\r", end="", file=sys.stderr, flush=True)


# What is printed


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


def line(name: str, cells: Iterable[str], width: int, name_width: int = NAME_WIDTH) -> str:
    """A line of a table: the name on the left, the cells on the right of their columns."""
    return f"{name:{name_width}}" + "".join(f"{cell:>{width}}" for cell in cells)


def label(row: Row) -> str:
    return row.workload + (" ~" if row.reduced else "")


def ratio_cell(row: Row, loop: str) -> str:
    if not row.cells[loop].ok:
        return "fails"
    ratio = row.ratio(loop)
    return "" if ratio is None else f"{ratio:.2f}x"


def judgement(wanting: Sequence[str]) -> str:
    """Of a row with a target."""
    return "MISSED: " + "; ".join(wanting) if wanting else "met"


def no_target(ahead: Sequence[str]) -> str:
    """In place of a judgement: who is ahead all the same."""
    return f"none  {', '.join(ahead)} ahead" if ahead else "none"


def failures(rows: Sequence[Row]) -> list[str]:
    """The lines that say what failed and why, if anything did."""
    found = [
        f"{row.workload}, {loop}: {cell.failure}"
        for row in rows
        for loop, cell in row.cells.items()
        if cell.failure is not None
    ]
    return ["", "fails:", *found] if found else []


def disturbed(rows: Sequence[Row]) -> bool:
    return any(cell.disturbed for row in rows for cell in row.cells.values())
