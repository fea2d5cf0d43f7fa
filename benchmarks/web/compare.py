"""Requests per second of web servers on every loop, under wrk: `python -m benchmarks.web -h`."""

import argparse
import http.client
import os
import re
import resource
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import harness, tables
from benchmarks.harness import Settings, WorkerFailed
from benchmarks.loops import NETWORK, OURS, REFERENCE
from benchmarks.network import certificate
from benchmarks.network import harness as network
from benchmarks.network.process import Server, cpu_ns
from benchmarks.tables import chosen, header, line, progress, ratio_cell
from benchmarks.web.servers import BODY, TLS, WORKLOADS
from benchmarks.web.targets import TARGETS

SERVERS = Path(__file__).resolve().parent / "servers.py"
NAME_WIDTH = 19
CONNECTIONS = 64
NO_WRK = "wrk is not installed; on Debian: apt-get install wrk"
MICROSECONDS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 6e7}

# wrk counts whole seconds.
QUICK = Settings(rounds=2, duration=1.0, least_rounds=1, budget=60.0, quick=True)
FULL = Settings(rounds=5, duration=3.0, budget=300.0)


@dataclass
class Cell(network.Cell):
    """One web server on one loop. A sample is nanoseconds per request, by the clock on the wall."""

    # What the server took of that.
    cpu_us: list[float] = field(default_factory=list)


@dataclass
class Row(harness.Row):
    cells: dict[str, Cell]  # type: ignore[assignment]

    @property
    def least(self) -> float:
        return TARGETS[self.workload]

    def ahead(self) -> list[str]:
        return self.faster([loop for loop in self.cells if loop not in (OURS, REFERENCE)], network.LEVEL)

    def shortfalls(self) -> list[str] | None:
        if OURS not in self.cells:
            return None
        if not self.cells[OURS].ok:
            return [f"{OURS} failed"]
        ratio = self.ratio(OURS)
        if ratio is None:
            return None
        wanting = [f"{ratio:.2f} x {REFERENCE}"] if ratio < self.least else []
        return wanting + ([f"{', '.join(self.ahead())} ahead"] if self.ahead() else [])


def connect(server: Server, tls: bool) -> http.client.HTTPConnection:
    host, _, port = server.address.rpartition(":")
    if tls:
        context = ssl.create_default_context(cafile=certificate.path())
        return http.client.HTTPSConnection(host, int(port), timeout=5, context=context)
    return http.client.HTTPConnection(host, int(port), timeout=5)


def check_answer(server: Server, tls: bool, seconds: float = 10.0) -> None:
    """Wait until it answers, and see that it answers right."""
    deadline = time.monotonic() + seconds
    while True:
        connection = connect(server, tls)
        try:
            connection.request("GET", "/")
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as exc:
            if time.monotonic() > deadline or server.process.poll() is not None:
                raise WorkerFailed(server.reason(f"does not answer: {exc!r}")) from None
            time.sleep(0.05)
            continue
        finally:
            connection.close()
        if answer.status != 200 or body != BODY:
            raise WorkerFailed(server.reason(f"answers {answer.status} with {len(body)} bytes"))
        return


def latency(text: str, share: int) -> float:
    found = re.search(rf"^\s+{share}%\s+([\d.]+)(us|ms|s|m)$", text, re.MULTILINE)
    return float(found[1]) * MICROSECONDS[found[2]] if found else float("nan")


def run_wrk(server: Server, tls: bool, seconds: int, settings: Settings) -> dict[str, float]:
    """Load the server; what wrk says, and the CPU time that both took."""

    def pin() -> None:
        if settings.cpu >= 0:
            os.sched_setaffinity(0, {settings.cpu})

    url = f"{'https' if tls else 'http'}://{server.address}/"
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", url]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        spent, began = cpu_ns(server.pid), time.monotonic()
        result = subprocess.run(
            command,
            preexec_fn=pin,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds + settings.timeout,
            check=False,
        )
        elapsed, spent = time.monotonic() - began, cpu_ns(server.pid) - spent
    except subprocess.TimeoutExpired:
        raise WorkerFailed(server.reason(f"wrk took more than {seconds + settings.timeout:g} s")) from None
    except OSError:
        raise WorkerFailed(server.reason("the server is gone")) from None
    using = resource.getrusage(resource.RUSAGE_CHILDREN)
    output = result.stdout
    found = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m)", output)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    wrong = re.search(r"(Non-2xx or 3xx responses: .*|Socket errors: .*)", output)
    if wrong:
        raise WorkerFailed(server.reason(wrong[1]))
    if result.returncode or not found or not rate or not int(found[1]):
        raise WorkerFailed(server.reason(f"wrk got no answers: {result.stderr.strip() or output.strip()[-80:]}"))
    own = using.ru_utime + using.ru_stime - used.ru_utime - used.ru_stime
    return {
        "rate": float(rate[1]),
        "server_us": spent / int(found[1]) / 1000,
        "busy": (spent / 1e9 + own) / elapsed,
        "p50_us": latency(output, 50),
        "p99_us": latency(output, 99),
    }


def take_sample(server: Server, tls: bool, cell: Cell, settings: Settings) -> None:
    best: dict[str, float] | None = None
    for _ in range(1 + harness.RETRIES):
        reply = run_wrk(server, tls, max(1, round(settings.duration)), settings)
        server.settle()
        if best is None or reply["busy"] > best["busy"]:
            best = reply
        if best["busy"] >= network.BUSY or settings.cpu < 0:
            break
    assert best is not None
    cell.disturbed += best["busy"] < network.BUSY and settings.cpu >= 0
    cell.samples.append(1e9 / best["rate"])
    cell.rate.append(best["rate"])
    cell.cpu_us.append(best["server_us"])
    cell.p50_us.append(best["p50_us"])
    cell.p99_us.append(best["p99_us"])


def measure(name: str, loops: Sequence[str], settings: Settings) -> Row:
    row = Row(name, {loop: Cell() for loop in loops})
    tls = name in TLS
    secrets = [certificate.path()] if tls else []
    servers: dict[str, Server] = {}

    def fail(loop: str, exc: WorkerFailed) -> None:
        row.cells[loop].failure = str(exc)
        servers.pop(loop).close()

    try:
        for loop in loops:
            progress(f"{name}: {loop}")
            servers[loop] = Server(
                [sys.executable, "-P", SERVERS, loop, name, str(settings.cpu), *secrets], timeout=30.0
            )
        for loop in loops:
            try:
                servers[loop].wait_ready()
                check_answer(servers[loop], tls)
                run_wrk(servers[loop], tls, 1, settings)  # warms it up
                servers[loop].settle()
            except WorkerFailed as exc:
                fail(loop, exc)
        began = time.monotonic()
        for number in range(settings.rounds):
            if number >= settings.least_rounds and time.monotonic() - began > settings.budget:
                break
            progress(f"{name}: round {number + 1}")
            turn = number % len(loops)
            for loop in (*loops[turn:], *loops[:turn]):
                if loop in servers:
                    try:
                        take_sample(servers[loop], tls, row.cells[loop], settings)
                    except WorkerFailed as exc:
                        fail(loop, exc)
    finally:
        for server in servers.values():
            server.close()
    return row


def block(row: Row) -> list[str]:
    heads = f"{'requests/s':>16}{'x ' + REFERENCE:>10}{'CPU us':>10}{'p50 us':>10}{'p99 us':>10}"
    lines = [f"{row.workload:{NAME_WIDTH}}{heads}"]
    for loop, cell in row.cells.items():
        if not cell.ok:
            lines.append(f"  {loop:{NAME_WIDTH - 2}}{'fails':>16}")
            continue
        mark = "!" if cell.disturbed else ""
        ratio = row.ratio(loop)
        lines.append(
            f"  {loop:{NAME_WIDTH - 2}}{f'{1e9 / cell.median:.0f}{mark} ±{cell.spread * 100:2.0f}%':>16}"
            + f"{'' if ratio is None else f'{ratio:.2f}':>10}"
            + "".join(f"{cell.middle(name) or 0:>10.0f}" for name in ("cpu_us", "p50_us", "p99_us"))
        )
    return lines


def summary(rows: Sequence[Row], loops: Sequence[str]) -> str:
    lines = []
    if REFERENCE in loops:
        lines += [line(f"x {REFERENCE}", loops, 11, NAME_WIDTH) + "  target"]
        for row in rows:
            cells = [ratio_cell(row, loop) for loop in loops]
            wanting = row.shortfalls()
            verdict = "" if wanting is None else tables.judgement(wanting)
            lines.append(f"{line(row.workload, cells, 11, NAME_WIDTH)}  {row.least:g}x  {verdict}")
    lines += tables.failures(rows)
    if tables.disturbed(rows):
        lines += ["", "! the core was not all theirs during a sample"]
    return "\n".join(lines)


def described(row: Row) -> dict[str, Any]:
    """What the report says of a row."""
    return {
        "operation": WORKLOADS[row.workload][1],
        "target": row.least,
        "shortfalls": row.shortfalls(),
        "loops": {loop: {**asdict(cell), "ratio": row.ratio(loop)} for loop, cell in row.cells.items()},
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.web", description=__doc__)
    tables.add_choices(parser, NETWORK, FULL, QUICK, f"comma-separated, of {', '.join(WORKLOADS)}")
    parser.add_argument(
        "--core", "--cpu", dest="cpu", type=int, default=harness.last_cpu(), help="core for server and wrk; -1 for any"
    )
    parser.add_argument("--quick", action="store_true", help="about three minutes for everything; less exact")
    tables.add_results(parser)
    options = parser.parse_args()
    names = chosen(options.workloads, list(WORKLOADS), parser)
    if shutil.which("wrk") is None:
        sys.exit(NO_WRK)
    without = {}
    if any(name in TLS for name in names):
        try:
            certificate.path()
        except WorkerFailed as exc:
            without["TLS rows"] = str(exc)
            names = [name for name in names if name not in TLS]

    run = tables.Run(parser, options, NETWORK, tables.chosen_settings(options, FULL, QUICK))
    print(header(run.versions, run.missing | without, run.settings), flush=True)
    rows = []
    for name in names:
        rows.append(measure(name, run.loops, run.settings))
        progress("")
        print("", *block(rows[-1]), sep="\n", flush=True)
    print("\n" + summary(rows, run.loops))
    run.end(rows, described)
    return int(options.check and any(row.shortfalls() for row in rows))


if __name__ == "__main__":
    sys.exit(main())
