"""What fastloop has to reach: times as fast as uvloop, measured on the same machine in the same run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    # Required ratio to uvloop.
    ratio: float
    # The best other loop's ratio to uvloop when the targets were set (CPython 3.14, Linux, EPYC).
    best_peer: float
    # It must not be slower than asyncio's own loop either.
    not_behind_asyncio: bool = False


# A workload that is missing here is informational.
TARGETS = {
    "call_soon_chain": Target(5.5, 4.1),
    "call_soon_burst": Target(2.0, 1.8),
    "call_soon_burst_arg": Target(2.0, 1.8),
    "sleep0": Target(3.5, 2.6),
    "sleep0_100tasks": Target(2.0, 1.2),
    "pingpong": Target(6.0, 1.9),
    "pingpong_value": Target(6.0, 1.9),
    "pingpong_stock_future": Target(3.5, 2.0),
    "create_await": Target(6.0, 2.2),
    "stock_task": Target(3.0, 2.7),
    "gather100": Target(2.0, 1.2),
    "gather100k": Target(1.8, 1.3),
    "gather1m": Target(1.5, 1.3),
    "taskgroup100": Target(2.0, 1.3),
    "timeout": Target(2.5, 2.1),
    "wait_for": Target(2.5, 2.0),
    "sleepers100k": Target(2.5, 1.6),
    "queue1": Target(2.5, 1.5),
    "semaphore10": Target(1.8, 1.3),
    "timer_cancel": Target(5.5, 3.8),
    "threadsafe_flood": Target(1.8, 1.7),
    "executor1": Target(1.6, 1.1),
    "executor64": Target(5.0, 1.2),
    "runs": Target(3.0, 1.5, not_behind_asyncio=True),
}
