"""Many connections: held at the same time, and one after another.

    python tests/faults/run_many.py [--held N] [--churn N] [--loop fastloop|asyncio]

Held: N connections in this process, their clients in another one; then one in a hundred
echoes, several rounds of it, and all of them close.  Churn: N connections made and closed,
fifty at a time.  Afterwards there is no descriptor more than before, and over the second
half of the churn the process does not grow.  All numbers are printed.
"""

import argparse
import asyncio
import gc
import os
import resource
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
HOST = "127.0.0.1"
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


def load(name):
    if name == "asyncio":
        return asyncio.SelectorEventLoop
    try:
        import fastloop
    except ModuleNotFoundError:
        sys.path.insert(0, os.path.dirname(os.path.dirname(HERE)))
        import fastloop
    return fastloop.Loop


def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def descriptors():
    return len(os.listdir("/proc/self/fd")) - 1


class Echo(asyncio.Protocol):
    alive = 0

    def connection_made(self, transport):
        self.transport = transport
        Echo.alive += 1

    def data_received(self, data):
        self.transport.write(data)

    def connection_lost(self, exc):
        Echo.alive -= 1


async def until(condition, what):
    end = time.monotonic() + 30
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"timeout: {what}")
        await asyncio.sleep(0.01)


async def hold(count):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, HOST, 0, backlog=1000)
    clients = subprocess.Popen(
        [sys.executable, "-S", "-c", CLIENTS, *map(str, server.sockets[0].getsockname())],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def tell(line):
        clients.stdin.write(line + "\n")
        clients.stdin.flush()
        return clients.stdout.readline()

    async def ask(line):
        began = time.monotonic()
        answer = await loop.run_in_executor(None, tell, line)
        if not answer.startswith(line.split()[0]):
            raise SystemExit(f"the clients did not {line}: {answer!r}")
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
        began, used = time.monotonic(), time.process_time()
        await asyncio.sleep(0.5)
        idle = (time.process_time() - used) / (time.monotonic() - began)
        closing = await ask("close 0")
        await until(lambda: Echo.alive == 0, "not all are lost")
        await until(lambda: descriptors() == before, "descriptors are left")
    finally:
        clients.stdin.close()
        clients.wait(30)
        clients.stdout.close()
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
    before, began, memory = descriptors(), time.monotonic(), []
    batches = max(8, count // AT_ONCE)
    for number in range(batches):
        await batch(number)
        if number % max(1, batches // 40) == 0:
            memory.append((number * AT_ONCE, rss()))
    took = time.monotonic() - began
    await asyncio.sleep(0.1)  # all are accepted; asyncio's server does not take it well if it closes earlier
    await until(lambda: Echo.alive == 0, "not all are lost")
    gc.collect()
    left = descriptors() - before
    server.close()
    half = memory[len(memory) // 2:]
    slope = (half[-1][1] - half[0][1]) / (half[-1][0] - half[0][0])
    print(f"churn {batches * AT_ONCE}: {took:.1f} s, {batches * AT_ONCE / took:.0f} a second, "
          f"{left} descriptors more, {slope:.2f} bytes more for each", flush=True)
    assert left == 0
    # A few pages more or less are the allocator's; a sanitizer's keeps what was freed, for a while.
    assert os.environ.get("LD_PRELOAD") or slope <= SLOPE or half[-1][1] - half[0][1] < 512 * 1024, memory


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--held", type=int, default=19_000)
    parser.add_argument("--churn", type=int, default=100_000)
    parser.add_argument("--loop", default="fastloop", choices=["fastloop", "asyncio"])
    options = parser.parse_args(arguments)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.held > hard - SPARE:
        print(f"at most {hard} descriptors are allowed here: {hard - SPARE} connections instead of {options.held}")
        options.held = hard - SPARE
    factory = load(options.loop)
    for function, count in ((hold, options.held), (churn, options.churn)):
        if count:
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(function(count))
    return 0


if __name__ == "__main__":
    sys.exit(main())
