"""Measures workloads on several loops in turn: every round runs each loop once, in workers pinned to one core."""

import json
import os
import platform
import select
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.loops import OURS, PEERS, REFERENCE
from benchmarks.targets import TARGETS, Target
from benchmarks.workloads import WORKLOADS, Workload

ROOT = Path(__file__).resolve().parent.parent
WORKER = Path(__file__).resolve().parent / "worker.py"

# A sample that waited for its core for more than this share of its time is taken again, this often. The waiting does
# not count, but it leaves cold caches.
DISTURBED = 0.1
RETRIES = 1


class WorkerFailed(Exception):
    """The worker raised, died or took too long."""


@dataclass(frozen=True)
class Settings:
    rounds: int = 5
    # Seconds that a sample of a workload with small units takes.
    duration: float = 0.2
    # After this many seconds, a workload gets no further round.
    budget: float = 60.0
    # Rounds that a workload gets whatever they take.
    least_rounds: int = 2
    # Seconds after which a sample counts as failed.
    timeout: float = 60.0
    cpu: int = -1
    quick: bool = False


QUICK = Settings(rounds=3, duration=0.03, budget=4.0, least_rounds=1, timeout=20.0, quick=True)


def last_cpu() -> int:
    """The core to pin to: the last one that we may use. -1 where processes cannot be pinned."""
    return max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else -1


def worker_command(loop: str, cpu: int) -> list[str]:
    return [sys.executable, "-P", str(WORKER), loop, str(cpu)]


def worker_environment() -> dict[str, str]:
    """Our environment without what makes asyncio slow, or malloc other than it is."""
    slow = ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE", "PYTHONMALLOC", "PYTHONTRACEMALLOC", "PYTHONWARNINGS")
    other = ("MALLOC_", "GLIBC_TUNABLES")
    return {name: value for name, value in os.environ.items() if name not in slow and not name.startswith(other)}


class Worker:
    """A worker process for one loop."""

    def __init__(self, loop: str, cpu: int, timeout: float) -> None:
        self.timeout = timeout
        self.process = subprocess.Popen(
            worker_command(loop, cpu),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=worker_environment(),
            bufsize=0,
        )
        self.received = b""
        try:
            self.version = self.receive()["version"]
        except WorkerFailed:
            self.close()
            raise

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            pass  # receive() tells how it ended
        return self.receive()

    def receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        deadline = time.monotonic() + self.timeout
        while b"\n" not in self.received:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise WorkerFailed(f"no answer in {self.timeout:g} s")
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                raise WorkerFailed(f"died with exit code {self.process.wait()}")
            self.received += data
        line, _, self.received = self.received.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise WorkerFailed(reply["error"])
        return reply

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


@dataclass
class Cell:
    """One workload on one loop."""

    n: int = 0
    # Nanoseconds per operation, one figure per round.
    samples: list[float] = field(default_factory=list)
    # How many of these were disturbed by other processes in spite of the retries.
    disturbed: int = 0
    failure: str | None = None

    @property
    def ok(self) -> bool:
        return self.failure is None and bool(self.samples)

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def spread(self) -> float:
        """The distance between the quartiles, as a share of the median."""
        if len(self.samples) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.samples, n=4, method="inclusive")
        return (high - low) / self.median


@dataclass
class Row:
    """One workload on every loop."""

    workload: str
    cells: dict[str, Cell]
    # The group was smaller than the workload's name says.
    reduced: bool = False

    def ratio(self, loop: str, reference: str = REFERENCE) -> float | None:
        """How many times as fast as the reference: the median of the rounds' own ratios, so that drift cancels."""
        cell, other = self.cells.get(loop), self.cells.get(reference)
        if cell is None or other is None or not (cell.ok and other.ok):
            return None
        return statistics.median(theirs / ours for theirs, ours in zip(other.samples, cell.samples, strict=True))

    @property
    def target(self) -> Target | None:
        return TARGETS.get(self.workload)

    def ahead(self) -> list[str]:
        """The peers that were faster than fastloop in this run."""
        return self.faster((*PEERS, REFERENCE))

    def faster(self, loops: Iterable[str], by: float = 1.0) -> list[str]:
        """Those that were more than `by` times as fast as fastloop."""
        ratios = {loop: self.ratio(loop, OURS) for loop in loops}
        return [loop for loop, ratio in ratios.items() if ratio is not None and ratio > by]

    def shortfalls(self) -> list[str] | None:
        """What is wanting, in words; None when it cannot be judged."""
        if self.target is None:
            return self.short_of(None)
        return self.short_of(self.target.ratio, self.target.not_behind_asyncio)

    def short_of(self, least: float | None, not_behind_asyncio: bool = False) -> list[str] | None:
        """What is wanting when fastloop has to be `least` times as fast as the reference, and nobody ahead of it."""
        ours = self.cells.get(OURS)
        if ours is None:
            return None
        if not ours.ok:
            return [f"{OURS} failed: {ours.failure}"]
        ratio, wanting = self.ratio(OURS), []
        if least is not None and ratio is not None and ratio < least:
            wanting.append(f"{ratio:.2f}x is short of {least:g}x")
        if not_behind_asyncio:
            stock = self.ratio(OURS, "asyncio")
            if stock is not None and stock < 1:
                wanting.append(f"slower than asyncio ({stock:.2f}x)")
        if least is not None and self.ahead():
            wanting.append(f"{', '.join(self.ahead())} ahead")
        return wanting


def available(names: Sequence[str], cpu: int) -> tuple[dict[str, str], dict[str, str]]:
    """(versions of the loops that can be measured here, why the others cannot)"""
    versions, missing = {}, {}
    for name in names:
        try:
            with Worker(name, cpu, timeout=20.0) as worker:
                versions[name] = worker.version
        except WorkerFailed as exc:
            missing[name] = str(exc)
    return versions, missing


def measure(
    name: str,
    loops: Sequence[str],
    settings: Settings,
    progress: Callable[[str], None] = lambda text: None,
    workloads: Mapping[str, Workload] = WORKLOADS,
) -> Row:
    """Run one workload on the loops, a round at a time. The workers are new, so that no other workload's heap shows."""
    workload = workloads[name]
    reduced = settings.quick and workload.quick_unit is not None
    unit = workload.quick_unit if reduced and workload.quick_unit else workload.unit
    row = Row(name, {loop: Cell() for loop in loops}, reduced)
    workers: dict[str, Worker] = {}

    def fail(loop: str, exc: WorkerFailed) -> None:
        row.cells[loop].failure = str(exc)
        if loop in workers:
            workers.pop(loop).close()

    try:
        for loop in loops:
            progress(f"{name}: {loop}")
            try:
                workers[loop] = Worker(loop, settings.cpu, settings.timeout)
                reply = workers[loop].ask(workload=name, unit=unit, duration=int(settings.duration * 1e9))
                row.cells[loop].n = reply["n"]
            except WorkerFailed as exc:
                fail(loop, exc)
        began = time.monotonic()
        for number in range(settings.rounds):
            if number >= settings.least_rounds and time.monotonic() - began > settings.budget:
                break
            progress(f"{name}: round {number + 1}")
            # The order turns, so that nobody always follows the same neighbour.
            turn = number % len(loops)
            for loop in (*loops[turn:], *loops[:turn]):
                if loop in workers:
                    try:
                        take_sample(workers[loop], workload.name, row.cells[loop], workload.threads)
                    except WorkerFailed as exc:
                        fail(loop, exc)
    finally:
        for worker in workers.values():
            worker.close()
    return row


def take_sample(worker: Worker, workload: str, cell: Cell, threads: bool) -> None:
    best = None
    for _ in range(1 + RETRIES):
        reply = worker.ask(workload=workload, n=cell.n)
        share = 0.0 if threads else reply["waited"]
        if best is None or share < best[0]:
            best = share, reply["elapsed"]
        if share <= DISTURBED or reply["elapsed"] > 3e9:
            break
    assert best is not None
    cell.disturbed += best[0] > DISTURBED
    cell.samples.append(best[1] / cell.n)


def environment() -> dict[str, Any]:
    """What a reader must know about the machine and the interpreter."""
    processor = platform.processor()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return {
        "python": platform.python_version(),
        "compiler": platform.python_compiler(),
        "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": processor,
        "cores": os.cpu_count(),
        "commit": commit(),
    }


def commit() -> str | None:
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return result.stdout.strip() or None
