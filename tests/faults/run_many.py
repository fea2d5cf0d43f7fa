"""Many connections: held at the same time, and one after another.

    python tests/faults/run_many.py [--held N] [--churn N] [--loop fastloop|asyncio]

Held: N connections in this process, their clients in another one; then one in a hundred
echoes, several rounds of it, and all of them close.  Churn: N connections made and closed,
fifty at a time.  Afterwards there is no descriptor more than before, and over the second
half of the churn the process does not grow.  All numbers are printed.
"""

import asyncio
import gc
import os
import resource
import socket
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

from support import IMPLS  # noqa: E402
from support.long_runs import Echo, Memory, Other, command_line  # noqa: E402
from support.peers import HOST, Cpu, descriptors, rss  # noqa: E402

AT_ONCE = 50
ROUNDS = 5
SPARE = 100  # descriptors that the process needs for itself
SLOPE = 4.0  # bytes by which the process may grow for each connection of the second half

# The clients' side: blocking sockets in a process without a loop.  It is told by lines what to do.
CLIENTS = """
import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
address, held = (sys.argv[1], int(sys.argv[2])), []
for line in sys.stdin:
    word, number = line.split()
    if word == "open":
        for _ in range(int(number)):
            sock = socket.create_connection(address)
            held.append(sock)
    elif word == "echo":
        some = held[int(number) % 100::100]
        for sock in some:
            sock.sendall(b"x" * 100)
        for sock in some:
            left = 100
            while left:
                left -= len(sock.recv(left)) or sys.exit("closed")
    else:
        for sock in held:
            sock.close()
        held.clear()
    print(word, len(held), flush=True)
"""


async def until(condition, what):
    end = time.monotonic() + 30
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"timeout: {what}")
        await asyncio.sleep(0.01)


async def hold(count):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, HOST, 0, backlog=1000)
    clients = Other(CLIENTS, *server.sockets[0].getsockname())

    async def ask(line):
        began = time.monotonic()
        await clients.ask(line)
        return time.monotonic() - began
    try:
        await ask("echo 0")
        gc.collect()
        before, memory = descriptors(), rss()
        took = await ask(f"open {count}")
        await until(lambda: Echo.alive == count, "not all are accepted")
        each = (rss() - memory) / count
        assert descriptors() - before == count, (descriptors(), before)
        echo = [await ask(f"echo {number}") for number in range(ROUNDS)]
        cpu = Cpu()
        await asyncio.sleep(0.5)
        idle = cpu.share()
        closing = await ask("close 0")
        await until(lambda: Echo.alive == 0, "not all are lost")
        await until(lambda: descriptors() == before, "descriptors are left")
    finally:
        clients.end()
        server.close()
    print(f"held {count}: {took:.1f} s to open, {each:.0f} bytes each, "
          f"echo of {count // 100} in {max(echo):.3f} s, idle {idle:.1%} of a processor, {closing:.1f} s to close",
          flush=True)
    assert idle < 0.1
    gc.collect()


async def churn(count):
    """The clients are plain sockets of this process: what grows is the server's."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, HOST, 0, backlog=1000)
    address = server.sockets[0].getsockname()

    async def batch(number):
        socks = [socket.create_connection(address) for _ in range(AT_ONCE)]
        for sock in socks:
            sock.send(b"x")
        await asyncio.sleep(0)
        if number % 3 == 0:
            await until(lambda: Echo.alive == AT_ONCE, "not all are accepted")
        for sock in socks:
            if number % 2:  # reset, not FIN
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()
        while Echo.alive:
            await asyncio.sleep(0)
    for number in range(20):
        await batch(number)
    gc.collect()
    before, began = descriptors(), time.monotonic()
    batches = max(8, count // AT_ONCE)
    memory = Memory(batches, AT_ONCE)
    for number in range(batches):
        await batch(number)
        memory.look(number, collect=False)
    took = time.monotonic() - began
    await asyncio.sleep(0.1)  # all are accepted; asyncio's server does not take it well if it closes earlier
    await until(lambda: Echo.alive == 0, "not all are lost")
    gc.collect()
    left = descriptors() - before
    server.close()
    print(f"churn {batches * AT_ONCE}: {took:.1f} s, {batches * AT_ONCE / took:.0f} a second, "
          f"{left} descriptors more, {memory.growth()[1]:.2f} bytes more for each", flush=True)
    assert left == 0
    memory.check(SLOPE)


def main(arguments=None):
    options = command_line(__doc__, held=19_000, churn=100_000).parse_args(arguments)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.held > hard - SPARE:
        print(f"at most {hard} descriptors are allowed here: {hard - SPARE} connections instead of {options.held}")
        options.held = hard - SPARE
    for function, count in ((hold, options.held), (churn, options.churn)):
        if count:
            IMPLS[options.loop].run(function(count))
    return 0


if __name__ == "__main__":
    sys.exit(main())
