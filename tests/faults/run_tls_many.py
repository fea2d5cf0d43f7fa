"""Many TLS connections one after the other, as a server and as a client, and what they leave behind.

    python tests/faults/run_tls_many.py [--server N] [--client N] [--loop fastloop|asyncio]

The other ends are Python's ssl sockets in another process, so that what grows here is the
loop's.  Connections end in all ways in turn: politely from either side, cut off, reset, and
refused in the handshake.  Afterwards there is no descriptor and no object more than before, and
over the second half the process does not grow.  All numbers are printed.
"""

import argparse
import asyncio
import contextlib
import gc
import os
import resource
import ssl
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
CERTS = os.path.join(os.path.dirname(HERE), "tls", "certs")
HOST = "127.0.0.1"
BATCH = 25
SLOPE = 64.0  # bytes by which the process may grow for each connection of the second half
PAGES = 1 << 20  # and no less than that is called growth: an SSL object that stays takes some 50 KiB
ENDINGS = 5

# The other side. Told by lines: "connect PORT N" makes N connections to it; "serve" lets any number come.
OTHER = """
import socket, ssl, struct, sys, threading
certs = sys.argv[1]
trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); trusting.load_verify_locations(certs + "/ca.pem")
refusing = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); refusing.load_verify_locations(certs + "/stranger.pem")
serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); serving.load_cert_chain(certs + "/server.pem")

def end(tls, how):
    if how == 0:
        tls.unwrap().close()
        return
    if how == 1:  # the other side closes first
        tls.sendall(b"close")
        while tls.recv(100):
            pass
    elif how == 2:  # FIN without close_notify
        tls.shutdown(socket.SHUT_WR)
    else:
        tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    tls.close()

def connect(port, number):
    sock = socket.create_connection(("127.0.0.1", port))
    sock.settimeout(20)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    how = number % 5
    if how == 4:
        try:
            refusing.wrap_socket(sock, server_hostname="localhost")
        except ssl.SSLError:
            sock.close()
            return
        raise SystemExit("trusted whom it should not")
    with trusting.wrap_socket(sock, server_hostname="localhost") as tls:
        tls.sendall(b"x" * 1000)
        left = 1000
        while left:
            left -= len(tls.recv(left)) or sys.exit("closed")
        end(tls, how)

def serve(listener):
    number = 0
    while True:
        sock, _ = listener.accept()
        sock.settimeout(20)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number += 1
        try:
            with serving.wrap_socket(sock, server_side=True) as tls:
                data = tls.recv(1000)
                tls.sendall(data)
                end(tls, number % 4)
        except OSError:
            sock.close()

for line in sys.stdin:
    word, *numbers = line.split()
    if word == "connect":
        port, first, count = map(int, numbers)
        for n in range(first, first + count):
            connect(port, n)
        print("connected", flush=True)
    else:
        listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        print("serving", listener.getsockname()[1], flush=True)
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
        if data == b"close":
            self.transport.close()
        else:
            self.transport.write(data)

    def connection_lost(self, exc):
        Echo.alive -= 1


class Other:
    """The process of the other ends, asked in a thread."""

    def __init__(self):
        self.process = subprocess.Popen([sys.executable, "-S", "-c", OTHER, CERTS], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def _ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        if not answer:
            raise SystemExit(f"the other side did not {line!r}")
        return answer

    async def ask(self, line):
        return await asyncio.wait_for(asyncio.to_thread(self._ask, line), 120)

    def end(self):
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


async def gone(limit=10):
    end = time.monotonic() + limit
    while Echo.alive:
        if time.monotonic() > end:
            raise SystemExit(f"{Echo.alive} connections were never lost")
        await asyncio.sleep(0.002)
    await asyncio.sleep(0.01)


async def as_server(other):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.path.join(CERTS, "server.pem"))
    server = await asyncio.get_running_loop().create_server(Echo, HOST, 0, ssl=context, ssl_shutdown_timeout=5)
    port = server.sockets[0].getsockname()[1]

    async def batch(first):
        await other.ask(f"connect {port} {first} {BATCH}")
        await gone()
    return batch, server.close


async def as_client(other):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(os.path.join(CERTS, "ca.pem"))
    refusing = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    refusing.load_verify_locations(os.path.join(CERTS, "stranger.pem"))
    port = int((await other.ask("serve"))[1])

    async def batch(first):
        for n in range(first, first + BATCH):
            trusts = n % ENDINGS != 4
            try:
                reader, writer = await asyncio.open_connection(
                    HOST, port, ssl=context if trusts else refusing, server_hostname="localhost",
                    ssl_handshake_timeout=20, ssl_shutdown_timeout=20)
            except ssl.SSLCertVerificationError:
                assert not trusts
                continue
            assert trusts
            writer.write(b"x" * 1000)
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await reader.readexactly(1000)
                if n % 2:
                    await reader.read()
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()
        await asyncio.sleep(0.01)
    return batch, lambda: None


async def many(role, count):
    other = Other()
    try:
        batch, end = await role(other)
        for number in range(4):
            await batch(number * BATCH)
        gc.collect()
        before, objects, began, memory = descriptors(), len(gc.get_objects()), time.monotonic(), []
        batches = max(4, count // BATCH)
        for number in range(batches):
            await batch(number * BATCH)
            if number % max(1, batches // 40) == 0:
                gc.collect()  # asyncio's own TLS leaves large cycles
                memory.append((number * BATCH, rss()))
        took = time.monotonic() - began
        gc.collect()
        more, left = len(gc.get_objects()) - objects, descriptors() - before
        end()
    finally:
        other.end()
    half = memory[len(memory) // 2:]
    grown = half[-1][1] - half[0][1]
    slope = grown / (half[-1][0] - half[0][0])
    print(f"{role.__name__} {batches * BATCH}: {took:.1f} s, {left} descriptors more, {more} objects more, "
          f"{slope:.1f} bytes more for each", flush=True)
    assert left == 0
    assert more < 100
    # Some pages more or less are the allocator's; a sanitizer's keeps what was freed, for a while.
    assert os.environ.get("LD_PRELOAD") or slope <= SLOPE or grown < PAGES, memory


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--server", type=int, default=10_000)
    parser.add_argument("--client", type=int, default=10_000)
    parser.add_argument("--loop", default="fastloop", choices=["fastloop", "asyncio"])
    options = parser.parse_args(arguments)
    factory = load(options.loop)
    for role, count in ((as_server, options.server), (as_client, options.client)):
        if count:
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(many(role, count))
    return 0


if __name__ == "__main__":
    sys.exit(main())
