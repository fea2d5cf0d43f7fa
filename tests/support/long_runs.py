"""What the programs that do something very often share: their command line, the process that has the
other ends of connections, and a look at how memory grows.

These programs are tests/faults/run_*.py and tests/stress/run_threads.py.
"""

import argparse
import asyncio
import gc
import os
import subprocess
import sys

from support import IMPLS
from support.peers import rss

LOOKS = 40  # how often memory is looked at
PAGES = 512 * 1024  # bytes that are no growth yet


def command_line(doc, **numbers):
    """The parser of a program with that docstring: an option for each of the numbers, and --loop."""
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--loop", default="fastloop", choices=IMPLS)
    return parser


class Memory:
    """What a process has resident over a run of so many rounds, each of which does `each` things.

    The first half of the run is warming up; by how much memory grows is asked of the second.
    """

    def __init__(self, rounds, each=1):
        self.every = max(1, rounds // LOOKS)
        self.each = each
        self.seen = []

    def look(self, number, collect=True):
        """After each round, which has that number; most of the calls do nothing."""
        if number % self.every == 0:
            if collect:
                gc.collect()
            self.seen.append((number * self.each, rss()))

    def growth(self):
        """(bytes, bytes for each thing that was done)"""
        half = self.seen[len(self.seen) // 2:]
        grown = half[-1][1] - half[0][1]
        return grown, grown / (half[-1][0] - half[0][0])

    def check(self, slope, pages=PAGES):
        """It must not have grown by more than `slope` bytes for each thing."""
        grown, found = self.growth()
        # Some pages more or less are the allocator's; a sanitizer's keeps what was freed, for a while.
        assert os.environ.get("LD_PRELOAD") or found <= slope or grown < pages, self.seen


class Echo(asyncio.Protocol):
    """Sends back what comes, and closes when it is "close"."""

    alive = 0  # how many are connected

    def connection_made(self, transport):
        self.transport = transport
        Echo.alive += 1

    def data_received(self, data):
        if data == b"close":
            self.transport.close()
        else:
            self.transport.write(data)

    def connection_lost(self, exc):
        Echo.alive -= 1


class Other:
    """A process without a loop that reads lines and answers each with a line; it is asked in a thread."""

    def __init__(self, program, *arguments):
        self.process = subprocess.Popen([sys.executable, "-S", "-c", program, *map(str, arguments)], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def _ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        if not answer:
            raise SystemExit(f"the other side did not {line!r}")
        return answer

    async def ask(self, line):
        """The words of the answer."""
        return await asyncio.wait_for(asyncio.to_thread(self._ask, line), 120)

    def end(self):
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()
