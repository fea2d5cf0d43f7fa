"""The servers that are measured: ordinary asyncio programs, public API only, nothing patched, the same for every loop.

    python -m benchmarks.network.servers LOOP WORKLOAD ADDRESS [CORE [CERTIFICATE]]

ADDRESS is HOST:PORT, where port 0 is any free one, or the path of a unix socket. CERTIFICATE is a file with
certificate and key, for the workloads that speak TLS. A line of JSON on stdout says pid, address and version, or why
it cannot be; then the program serves until it is killed or its parent dies.
"""

import sys
from pathlib import Path

if not __package__:
    # Started by its path; last, so that the checkout does not hide an installed fastloop.
    sys.path.append(str(Path(__file__).resolve().parent.parent.parent))

import asyncio
import functools
import json
import os
import socket
import ssl
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, cast

from benchmarks import loops
from benchmarks.network.process import end_with_parent, raise_descriptors

BACKLOG = 1024
BUFFER_SIZE = 256 * 1024
RECEIVE_SIZE = 256 * 1024
LINE_LIMIT = 2**20
HEADER = b"h" * 149 + b"\n"
BODY = b"b" * 1024
ANSWER = HEADER + BODY
UPLOAD_SIZE = DOWNLOAD_SIZE = 1024 * 1024
STAMP_SIZE = 16

Loop = asyncio.AbstractEventLoop


class Echo(asyncio.Protocol):
    """Writes what comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class BufferedEcho(asyncio.BufferedProtocol):
    """The same, out of a buffer of its own."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.view = memoryview(bytearray(BUFFER_SIZE))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.view

    def buffer_updated(self, nbytes: int) -> None:
        self.transport.write(bytes(self.view[:nbytes]))


class Split(Echo):
    """Answers every request with a header and a body, in two writes."""

    def data_received(self, data: bytes) -> None:
        self.transport.write(HEADER)
        self.transport.write(BODY)


class Joined(Echo):
    """The same bytes in one write."""

    def data_received(self, data: bytes) -> None:
        self.transport.write(ANSWER)


class Upload(Echo):
    """Counts what comes, and answers an upload with its first bytes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.stamp, self.left = b"", UPLOAD_SIZE

    def data_received(self, data: bytes) -> None:
        if len(self.stamp) < STAMP_SIZE:
            self.stamp += data[: STAMP_SIZE - len(self.stamp)]
        self.left -= len(data)
        if self.left <= 0:
            # The load sends the next one after the answer to this one; more would be a mistake, and shows as none.
            assert self.left == 0
            self.transport.write(self.stamp)
            self.stamp, self.left = b"", UPLOAD_SIZE


@functools.cache
def download() -> bytes:
    """1 MiB of which no part is like the next.

    Made in one piece, and only where it is wanted: a large block that is freed, here or anywhere in this module, would
    change how malloc treats the blocks that the loop reads into.
    """
    block = bytes(range(251))
    whole, rest = divmod(DOWNLOAD_SIZE, len(block))
    return b"".join([*[block] * whole, block[:rest]])


class Download(Echo):
    """Answers every request with 1 MiB."""

    def data_received(self, data: bytes) -> None:
        self.transport.write(download())


class DatagramEcho(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(data, addr)


async def echo_lines(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()
    writer.close()


async def echo_socket(loop: Loop, connection: socket.socket) -> None:
    with connection:
        while data := await loop.sock_recv(connection, RECEIVE_SIZE):
            await loop.sock_sendall(connection, data)


# Each starts serving and returns what has to be kept and the address that it got.

Start = Callable[[Loop, str], Awaitable[tuple[object, str]]]


def security() -> ssl.SSLContext | None:
    """The context that is asked for on the command line."""
    if len(sys.argv) < 6:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[5])
    return context


def bound(server: asyncio.Server) -> str:
    host, port = server.sockets[0].getsockname()[:2]
    return f"{host}:{port}"


def of_protocol(protocol: type[asyncio.BaseProtocol]) -> Start:
    async def start(loop: Loop, address: str) -> tuple[object, str]:
        host, _, port = address.rpartition(":")
        server = await loop.create_server(protocol, host, int(port), backlog=BACKLOG, ssl=security())
        return server, bound(server)

    return start


async def start_unix(loop: Loop, address: str) -> tuple[object, str]:
    server = await loop.create_unix_server(Echo, address, backlog=BACKLOG)
    return server, address


async def start_streams(loop: Loop, address: str) -> tuple[object, str]:
    host, _, port = address.rpartition(":")
    server = await asyncio.start_server(echo_lines, host, int(port), limit=LINE_LIMIT, backlog=BACKLOG, ssl=security())
    return server, bound(server)


async def start_sock(loop: Loop, address: str) -> tuple[object, str]:
    host, _, port = address.rpartition(":")
    listening = socket.socket()
    listening.bind((host, int(port)))
    listening.listen(BACKLOG)
    listening.setblocking(False)
    tasks: set[asyncio.Task[None]] = set()

    async def accept() -> None:
        while True:
            connection, _ = await loop.sock_accept(listening)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = loop.create_task(echo_socket(loop, connection))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    return (loop.create_task(accept()), tasks), "{}:{}".format(*listening.getsockname())


async def start_udp(loop: Loop, address: str) -> tuple[object, str]:
    host, _, port = address.rpartition(":")
    transport, _ = await loop.create_datagram_endpoint(DatagramEcho, local_addr=(host, int(port)))
    return transport, "{}:{}".format(*transport.get_extra_info("sockname"))


WORKLOADS: dict[str, Start] = {
    "protocol": of_protocol(Echo),
    "buffered": of_protocol(BufferedEcho),
    "streams": start_streams,
    "sock": start_sock,
    "udp": start_udp,
    "unix": start_unix,
    "accept": of_protocol(Echo),
    "split": of_protocol(Split),
    "joined": of_protocol(Joined),
    "idle": of_protocol(Echo),
    "tls": of_protocol(Echo),
    "tls-streams": start_streams,
    "tls-upload": of_protocol(Upload),
    "tls-download": of_protocol(Download),
}


def serve(name: str, workload: str, address: str, say: Callable[..., None]) -> None:
    loop = loops.factory(name)()

    async def main() -> None:
        kept, where = await WORKLOADS[workload](loop, address)
        say(pid=os.getpid(), address=where, version=loops.version(name))
        await loop.create_future()
        del kept

    loop.run_until_complete(main())


def main() -> None:
    name, workload, address = sys.argv[1:4]
    core = int(sys.argv[4]) if len(sys.argv) > 4 else -1
    end_with_parent()
    if core >= 0:
        os.sched_setaffinity(0, {core})
    raise_descriptors()

    def say(**content: Any) -> None:
        print(json.dumps(content), flush=True)

    try:
        serve(name, workload, address, say)
    except BaseException as exc:
        text = str(exc).splitlines()
        say(error=f"{type(exc).__name__}: {text[0]}" if text else type(exc).__name__)
        traceback.print_exc()
    sys.stderr.flush()
    # A loop's own threads must not keep the process.
    os._exit(1)


if __name__ == "__main__":
    main()
