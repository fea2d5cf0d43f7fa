"""Takes the samples: every round runs the floor and each loop once, all on one core together with their load."""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks import harness
from benchmarks.harness import WorkerFailed
from benchmarks.loops import OURS, REFERENCE
from benchmarks.network import build, certificate
from benchmarks.network.process import Server, raise_descriptors, run_load
from benchmarks.network.rows import CASES, Case
from benchmarks.network.targets import TARGETS, Target

SERVERS = Path(__file__).resolve().parent / "servers.py"
# The column of plain C; not a loop.
FLOOR = "floor"
BEYOND = "bytes beyond the floor"
# Less than this share of the core's time went to server, load and idleness, so others disturbed the sample.
BUSY = 1 - harness.DISTURBED
# A peer that is ahead by less than this is level.
LEVEL = 1.02
# Idle connections before memory is looked at first, and at the end; fewer where descriptors are few.
HOLD = (2000, 12000)
QUICK_HOLD = (1000, 4000)
TLS_HOLD = (250, 1250)
# malloc's settings for the rows that say so.
RAISED = {
    "MALLOC_MMAP_THRESHOLD_": str(16 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
    "MALLOC_TOP_PAD_": str(1 << 20),
}


@dataclass(frozen=True)
class Settings(harness.Settings):
    # Every sample of every row is taken on a new server.
    fresh: bool = False


QUICK = Settings(rounds=3, duration=0.15, budget=20.0, least_rounds=1, quick=True)
FULL = Settings(rounds=5, duration=1.0, budget=120.0)


@dataclass
class Cell(harness.Cell):
    """One row on one loop. A sample is nanoseconds of CPU per request, or for idle connections bytes of each."""

    p50_us: list[float] = field(default_factory=list)
    p99_us: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    # Datagrams that did not come back.
    lost: int = 0

    def middle(self, figures: str) -> float | None:
        values: list[float] = getattr(self, figures)
        return statistics.median(values) if values else None


@dataclass
class Row(harness.Row):
    """One row on every loop and on the floor."""

    cells: dict[str, Cell]  # type: ignore[assignment]
    # The other rows that were measured, by name.
    others: "dict[str, Row]" = field(default_factory=dict)

    @property
    def case(self) -> Case:
        return CASES[self.workload]

    @property
    def target(self) -> Target | None:  # type: ignore[override]
        return TARGETS.get(self.workload)

    def share(self, loop: str) -> float | None:
        """Of the speed that plain C has."""
        return self.ratio(loop, FLOOR)

    def beyond(self, loop: str) -> float | None:
        """Bytes beyond those that plain C takes."""
        cell, floor = self.cells[loop], self.cells[FLOOR]
        return cell.median - floor.median if cell.ok and floor.ok else None

    def ahead(self) -> list[str]:
        return self.faster([loop for loop in self.cells if loop not in (OURS, FLOOR)], LEVEL)

    def of_row(self, loop: str, name: str) -> float | None:
        """How fast this row is, as a share of the speed of another that took its samples in the same rounds."""
        cell, other = self.cells[loop], self.others[name].cells[loop] if name in self.others else None
        if other is None or not (cell.ok and other.ok):
            return None
        return statistics.median(theirs / ours for theirs, ours in zip(other.samples, cell.samples, strict=True))

    def requirements(self) -> list[tuple[str, float | None, float]]:
        """(what, how much there is, how much there has to be); of bytes there has to be less."""
        target, wanted = self.target, []
        if target is None or OURS not in self.cells or not self.cells[OURS].ok:
            return []
        if target.ratio is not None:
            wanted.append((f"x {REFERENCE}", self.ratio(OURS), target.ratio))
        if target.asyncio is not None:
            wanted.append(("x asyncio", self.ratio(OURS, "asyncio"), target.asyncio))
        if target.share is not None:
            wanted.append(("of floor", self.share(OURS), target.share))
        if target.of_row is not None:
            name, share = target.of_row
            wanted.append((f"of {name}", self.of_row(OURS, name), share))
        if target.each is not None:
            wanted.append(("bytes", self.cells[OURS].median, target.each))
        if target.beyond is not None:
            wanted.append((BEYOND, self.beyond(OURS), target.beyond))
        return wanted

    def shortfalls(self) -> list[str] | None:
        """What is wanting, in words; None when nothing can be judged."""
        if OURS not in self.cells or self.target is None:
            return None
        if not self.cells[OURS].ok:
            return [f"{OURS} failed"]
        known = [(what, there, wanted) for what, there, wanted in self.requirements() if there is not None]
        if not known:
            return None
        wanting = []
        for what, there, wanted in known:
            if what in ("bytes", BEYOND):
                wanting += [f"{there:.0f} {what}"] if there > wanted else []
            elif there < wanted:
                wanting.append(f"{there:.2f} {what}")
        # Nobody has to be beaten where the target is not about others, and the reference is in the target.
        ahead = [loop for loop in self.ahead() if loop != REFERENCE]
        if (self.target.ratio is not None or self.target.beyond is not None) and ahead:
            wanting.append(f"{', '.join(ahead)} ahead")
        return wanting


def groups(names: Sequence[str]) -> list[list[str]]:
    """The rows, those together that take their samples in the same rounds."""
    result: dict[str, list[str]] = {}
    for name in names:
        result.setdefault(CASES[name].group or name, []).append(name)
    return list(result.values())


def start(case: Case, name: str, settings: Settings, folder: Path) -> Server:
    address = str(folder / f"{name}.socket") if case.workload == "unix" else "127.0.0.1:0"
    secrets = [certificate.path()] if case.tls else []
    command: list[str | Path] = [sys.executable, "-P", SERVERS, name, case.workload, address, str(settings.cpu)]
    if name == FLOOR:
        command = [build.path("floor", case.tls), case.floor, address, str(settings.cpu), str(case.size)]
    return Server([*command, *secrets], environment=RAISED if case.raised else None)


def load(case: Case, server: Server, settings: Settings, duration: float) -> dict[str, Any]:
    """Have the server loaded once; what the load generator says."""
    before = 0.3 * duration
    words: list[str | Path] = [build.path("load", case.tls), case.mode, server.address]
    words += ["--size", str(case.size), "--pid", str(server.pid), "--core", str(settings.cpu)]
    words += ["--certificate", certificate.path()] if case.tls else []
    if case.memory:
        first, last = TLS_HOLD if case.tls else QUICK_HOLD if settings.quick else HOLD
        last = min(last, raise_descriptors() - 100)
        words += ["--hold-first", str(min(first, last // 2)), "--hold-last", str(last)]
        words += ["--hold-used"] if case.used else []
    else:
        words += ["--connections", str(case.count), "--warm-up", str(before), "--duration", str(duration)]
        words += ["--request", str(case.request)] if case.request else []
    try:
        return run_load(words, settings.timeout + before + duration)
    except WorkerFailed as exc:
        raise WorkerFailed(server.reason(str(exc))) from None


def warm_up(case: Case, server: Server, settings: Settings) -> None:
    """A run that is not counted, to its end.

    In a process in which no connection has ever ended, glibc maps and unmaps memory for each read of 256 KiB; from the
    first read that finds the end of a connection, it keeps that memory. Servers live in the second state.
    """
    server.settle()
    load(case, server, settings, min(0.05, settings.duration) * case.stretch)
    server.settle()


def take_sample(case: Case, server: Server, cell: Cell, settings: Settings, retries: int) -> None:
    best: tuple[float, dict[str, Any]] | None = None
    for _ in range(1 + retries):
        reply = load(case, server, settings, settings.duration * case.stretch)
        server.settle()
        busy = (reply["server_ns"] + reply["load_ns"] + reply["idle_ns"]) / (reply["seconds"] * 1e9)
        if best is None or busy > best[0]:
            best = busy, reply
        # Only on one core do they leave no time to others.
        if busy >= BUSY or settings.cpu < 0:
            break
    assert best is not None
    busy, reply = best
    cell.disturbed += busy < BUSY and settings.cpu >= 0
    cell.n = reply["requests"]
    cell.samples.append(reply["server_ns"] / reply["requests"])
    cell.p50_us.append(reply["p50_us"])
    cell.p99_us.append(reply["p99_us"])
    cell.rate.append(reply["requests"] / reply["seconds"])
    cell.lost += reply["lost"]


class Servers:
    """The servers of a group of rows. A server stays for all rounds, unless each sample wants a new one."""

    def __init__(self, rows: dict[str, Row], settings: Settings) -> None:
        self.rows, self.settings = rows, settings
        self.running: dict[tuple[str, str], Server] = {}
        self.folder = tempfile.TemporaryDirectory()

    def fresh(self, name: str) -> bool:
        return self.settings.fresh or self.rows[name].case.fresh

    def start(self, name: str, column: str) -> None:
        self.running[name, column] = start(self.rows[name].case, column, self.settings, Path(self.folder.name))

    def start_all(self) -> None:
        """Start those that stay, side by side, and warm them up."""
        kept = [(name, column) for name, row in self.rows.items() if not self.fresh(name) for column in row.cells]
        for name, column in kept:
            self.start(name, column)
        for name, column in kept:
            try:
                self.running[name, column].wait_ready()
                warm_up(self.rows[name].case, self.running[name, column], self.settings)
            except WorkerFailed as exc:
                self.fail(name, column, exc)

    def take_sample(self, name: str, column: str) -> None:
        cell = self.rows[name].cells[column]
        if cell.failure is not None:
            return
        try:
            if self.fresh(name):
                self.start(name, column)
                self.running[name, column].wait_ready()
                self.running[name, column].settle()
            # What another sample left is what a new server must not have.
            retries = 0 if self.fresh(name) else harness.RETRIES
            take_sample(self.rows[name].case, self.running[name, column], cell, self.settings, retries)
            if self.fresh(name):
                self.running.pop((name, column)).close()
        except WorkerFailed as exc:
            self.fail(name, column, exc)

    def fail(self, name: str, column: str, exc: WorkerFailed) -> None:
        self.rows[name].cells[column].failure = str(exc)
        if (name, column) in self.running:
            self.running.pop((name, column)).close()

    def __enter__(self) -> "Servers":
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        for server in self.running.values():
            server.close()
        self.folder.cleanup()


def measure(
    names: Sequence[str],
    loops: Sequence[str],
    settings: Settings,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Measure the rows of a group on the floor and the loops, a round at a time."""
    columns = [FLOOR, *loops]
    rows = {name: Row(name, {column: Cell() for column in columns}) for name in names}
    for row in rows.values():
        row.others = rows
    memory = [row for row in rows.values() if row.case.memory]
    if memory:
        for row in memory:
            measure_memory(row, settings, progress)
        return memory
    with Servers(rows, settings) as servers:
        progress(f"{names[0]}: start")
        servers.start_all()
        began = time.monotonic()
        for number in range(settings.rounds):
            if number >= settings.least_rounds and time.monotonic() - began > settings.budget * len(names):
                break
            # The order turns, so that nobody always follows the same neighbour.
            turn = number % len(columns)
            for column in (*columns[turn:], *columns[:turn]):
                progress(f"{names[0]}: round {number + 1}, {column}")
                for name in names if number % 2 else reversed(names):
                    servers.take_sample(name, column)
    return list(rows.values())


def measure_memory(row: Row, settings: Settings, progress: Callable[[str], None]) -> None:
    """Idle connections, on a new server for each sample, for a heap that has been in use has room for them."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1 if settings.quick else min(settings.rounds, 3)):
            progress(f"{row.workload}: round {number + 1}")
            for column, cell in row.cells.items():
                if cell.failure is not None:
                    continue
                with start(row.case, column, settings, Path(folder)) as server:
                    try:
                        server.wait_ready()
                        server.settle()
                        reply = load(row.case, server, settings, settings.duration)
                        cell.n = reply["connections"]
                        cell.samples.append(reply["each"])
                    except WorkerFailed as exc:
                        cell.failure = str(exc)
