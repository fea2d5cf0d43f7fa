"""Many TLS connections one after the other, as a server and as a client, and what they leave behind.

    python tests/faults/run_tls_many.py [--server N] [--client N] [--loop fastloop|asyncio]

The other ends are Python's ssl sockets in another process, so that what grows here is the
loop's.  Connections end in all ways in turn: politely from either side, cut off, reset, and
refused in the handshake.  Afterwards there is no descriptor and no object more than before, and
over the second half the process does not grow.  All numbers are printed.
"""

import asyncio
import contextlib
import gc
import os
import ssl
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

from support import IMPLS, TESTS  # noqa: E402
from support.long_runs import Echo, Memory, Other, command_line  # noqa: E402
from support.peers import HOST, descriptors, until  # noqa: E402

CERTS = os.path.join(TESTS, "tls", "certs")
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


async def gone():
    if not await until(lambda: not Echo.alive):
        raise SystemExit(f"{Echo.alive} connections were never lost")
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
    other = Other(OTHER, CERTS)
    try:
        batch, end = await role(other)
        for number in range(4):
            await batch(number * BATCH)
        gc.collect()
        before, objects, began = descriptors(), len(gc.get_objects()), time.monotonic()
        batches = max(4, count // BATCH)
        memory = Memory(batches, BATCH)
        for number in range(batches):
            await batch(number * BATCH)
            memory.look(number)  # it collects, for asyncio's own TLS leaves large cycles
        took = time.monotonic() - began
        gc.collect()
        more, left = len(gc.get_objects()) - objects, descriptors() - before
        end()
    finally:
        other.end()
    print(f"{role.__name__} {batches * BATCH}: {took:.1f} s, {left} descriptors more, {more} objects more, "
          f"{memory.growth()[1]:.1f} bytes more for each", flush=True)
    assert left == 0
    assert more < 100
    memory.check(SLOPE, PAGES)


def main(arguments=None):
    options = command_line(__doc__, server=10_000, client=10_000).parse_args(arguments)
    for role, count in ((as_server, options.server), (as_client, options.client)):
        if count:
            IMPLS[options.loop].run(many(role, count))
    return 0


if __name__ == "__main__":
    sys.exit(main())
