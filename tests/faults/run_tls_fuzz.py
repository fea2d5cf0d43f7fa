"""Changed TLS transcripts against a server and a client of the loop: see tests/support/tls_mutants.py.

    python tests/faults/run_tls_fuzz.py [--count N] [--seed N] [--loop fastloop|asyncio]

A mutant that fails is named by its number: --seed NUMBER --count 1 throws it again.  Under a
sanitizer this is what looks for memory errors; by itself it finds crashes, hangs, descriptors
that stay open, and data that nobody sent.
"""

import asyncio
import faulthandler
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

from support import IMPLS  # noqa: E402
from support.long_runs import command_line  # noqa: E402
from support.net import Reports, io_settled  # noqa: E402
from support.peers import descriptors  # noqa: E402
from support.tls_mutants import throw_all  # noqa: E402

BATCH = 500
HANG = 120  # seconds for a batch's slowest moment: what hangs in C shows where


async def batch(numbers):
    reports = Reports(asyncio.get_running_loop())
    await io_settled()
    before = descriptors()
    found = await throw_all(numbers)
    assert descriptors() == before, f"{descriptors() - before} descriptors more"
    assert not reports.list, reports.list[:3]
    return found


def main(arguments=None):
    options = command_line(__doc__, count=20_000, seed=1).parse_args(arguments)
    impl = IMPLS[options.loop]
    began = time.monotonic()
    totals = [0, 0, 0]
    end = options.seed + options.count
    for first in range(options.seed, end, BATCH):
        faulthandler.dump_traceback_later(HANG, exit=True)
        # a loop of its own for each batch, so that loops end with connections behind them
        found = impl.run(batch(range(first, min(first + BATCH, end))))
        totals = [a + b for a, b in zip(totals, found)]
    faulthandler.cancel_dump_traceback_later()
    took = time.monotonic() - began
    print(f"{options.count} mutants from {options.seed} on {impl.name}: {took:.1f} s; {totals[0]} came through the "
          f"handshake, {totals[1]} delivered data, {totals[2]} all of it", flush=True)
    if options.count >= BATCH:
        assert 0 < totals[2] < totals[1] <= totals[0] < options.count
    return 0


if __name__ == "__main__":
    sys.exit(main())
