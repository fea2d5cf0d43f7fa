"""The process that measures: one loop, pinned to one core, told over a pipe what to run.

    python -P benchmarks/worker.py LOOP CPU                        one JSON request per line on stdin
    python -P benchmarks/worker.py LOOP CPU --once WORKLOAD N      run N operations and leave, for valgrind

A CPU of -1 pins nothing. `-P` and the path added below keep the checkout from hiding an installed fastloop.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

import gc
import inspect
import json
import os
import traceback
from time import perf_counter_ns
from typing import Any

from benchmarks import loops
from benchmarks.clock import own_time_ns, waited
from benchmarks.processes.workloads import WORKLOADS as PROCESSES
from benchmarks.workloads import WORKLOADS, Workload

ALL = WORKLOADS | PROCESSES
WARM_UP = 1000  # operations


def sample(make_loop: loops.LoopFactory, workload: Workload, n: int) -> int:
    """Run n operations on a new loop; nanoseconds taken."""
    # Where threads wait for each other, waiting is part of the work.
    now = perf_counter_ns if workload.threads else own_time_ns
    gc.collect()
    if workload.takes_factory:
        start = now()
        workload.run(make_loop, n)
        return now() - start
    loop = make_loop()
    try:
        start = now()
        result = workload.run(loop, n)
        if inspect.iscoroutine(result):
            result = loop.run_until_complete(result)
        elapsed = now() - start
        return elapsed if result is None else int(result)
    finally:
        if workload.threads:
            # Some loops do not have it; their threads end with the process.
            try:
                loop.run_until_complete(loop.shutdown_default_executor())
            except Exception:
                traceback.print_exc()
        loop.close()


def calibrate(make_loop: loops.LoopFactory, workload: Workload, unit: int, duration: int) -> int:
    """Warm up, and choose how many operations take about the given nanoseconds: one unit at least."""
    n = unit if unit <= WARM_UP else WARM_UP
    if unit == 1:
        n = 50
    while True:
        elapsed = max(1, sample(make_loop, workload, n))
        if elapsed >= duration // 8 or n * 2 > max(unit, 1_000_000):
            break
        n *= 2
    return max(1, round(duration * n / elapsed / unit)) * unit


def answer(make_loop: loops.LoopFactory, request: dict[str, Any]) -> dict[str, Any]:
    workload = ALL[request["workload"]]
    if "duration" in request:
        return {"n": calibrate(make_loop, workload, request["unit"], request["duration"])}
    start, kept_waiting = perf_counter_ns(), waited()
    elapsed = sample(make_loop, workload, request["n"])
    return {"elapsed": elapsed, "waited": (waited() - kept_waiting) / (perf_counter_ns() - start)}


def serve(name: str) -> None:
    # What the loops print must not come between the answers.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def reply(content: dict[str, Any]) -> None:
        replies.write(json.dumps(content) + "\n")

    try:
        make_loop = loops.factory(name)
        make_loop().close()
        reply({"version": loops.version(name)})
        for line in sys.stdin:
            reply(answer(make_loop, json.loads(line)))
    except BaseException as exc:
        text = str(exc).splitlines()
        reply({"error": f"{type(exc).__name__}: {text[0]}" if text else type(exc).__name__})
        traceback.print_exc()


def main() -> None:
    name, cpu = sys.argv[1], int(sys.argv[2])
    if cpu >= 0 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cpu})
    if sys.argv[3:4] == ["--once"]:
        sample(loops.factory(name), ALL[sys.argv[4]], int(sys.argv[5]))
    else:
        serve(name)
    # A loop's own threads must not keep the process.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
