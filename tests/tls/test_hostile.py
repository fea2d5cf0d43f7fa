"""Peers that do not keep to the protocol: against a server and against a client."""

import asyncio
import contextlib
import random
import socket
import ssl
import struct

import pytest

from support import plain, same
from support.net import LIMIT, Reports, Stream, io_settled
from support.peers import descriptors
from support.tls import (
    ALERT, CHANGE, DATA, HANDSHAKE, V2, V3, VERSIONS, Buffered, Far, better, client_context, lost, pair, records, result_of,
    secured, server_context)

sides = pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])
versions = pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)


def record(kind, body, version=0x0303):
    return struct.pack(">BHH", kind, version, len(body)) + body


def message(kind, body, size=None):
    """A handshake message; `size` is what it claims to be."""
    return bytes([kind]) + (len(body) if size is None else size).to_bytes(3, "big") + body


def hello():
    """A fresh ClientHello's bytes."""
    a, b = socket.socketpair()
    with a, b:
        return Far(a, client_context()).hello()


# What arrives instead of a handshake

GARBAGE = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "SMTP": b"EHLO localhost\r\n",
    "zeros": bytes(100),
    "0xff": b"\xff" * 100,
    "random": random.Random(1).randbytes(5000),
    "SSLv2": b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + bytes(35),
    "data first": record(DATA, b"no handshake, but data"),
    "empty data first": record(DATA, b""),
    "empty handshake record": record(HANDSHAKE, b""),
    "oversized record": record(HANDSHAKE, bytes(0x4000 + 257)),
    "largest length": struct.pack(">BHH", HANDSHAKE, 0x0303, 0xffff) + bytes(0xffff),
    "unknown type": record(99, b"what is this?"),
    "version of the future": record(HANDSHAKE, message(1, bytes(40)), 0x0909),
    "version 0": record(HANDSHAKE, message(1, bytes(40)), 0),
    "fatal alert": record(ALERT, b"\x02\x28"),
    "alert of three bytes": record(ALERT, b"\x02\x28\x00"),
    "close_notify": record(ALERT, b"\x01\x00"),
    "ten close_notify": record(ALERT, b"\x01\x00") * 10,
    "change cipher spec": record(CHANGE, b"\x01"),
    "40 change cipher specs": record(CHANGE, b"\x01") * 40,
    "Finished first": record(HANDSHAKE, message(20, bytes(32))),
    "KeyUpdate first": record(HANDSHAKE, message(24, b"\x01")),
    "HelloRequest": record(HANDSHAKE, message(0, b"")),
    "hello of nothing": record(HANDSHAKE, message(1, b"")),
    "hello of zeros": record(HANDSHAKE, message(1, bytes(512))),
    "message of 16 MiB": record(HANDSHAKE, message(1, bytes(5000), 0xffffff)) + record(HANDSHAKE, bytes(16384)) * 20,
    "ServerHello of zeros": record(HANDSHAKE, message(2, bytes(80))),
}


@pytest.mark.parametrize("name", GARBAGE)
@sides
def test_garbage_instead_of_a_handshake(name, server_side):
    """The caller gets the error, the protocol nothing, the socket is closed, and nothing is reported."""
    def body(impl):
        async def main():
            reports = Reports(asyncio.get_running_loop())
            p = Stream()
            async with pair(p, server_side=server_side, ssl_handshake_timeout=5) as both:
                await io_settled()
                for at in range(0, len(GARBAGE[name]), 16384):
                    with contextlib.suppress(OSError):
                        both.far.sock.send(GARBAGE[name][at:at + 16384])
                    await io_settled(1)
                both.far.fin()
                found = await result_of(both.making)
                await io_settled()
                return found, p.trace, both.ours.fileno(), reports.take()
        return impl.run(main())
    found, trace, fd, reports = same(body)
    assert found[0] in ("SSLError", "ConnectionResetError", "SSLEOFError", "SSLZeroReturnError")
    assert (trace, fd, reports) == ([], -1, [])


@sides
@pytest.mark.parametrize("garbage", ["HTTP", "data first", "random"])
def test_garbage_does_not_wait_for_the_timeout(server_side, garbage):
    """What is surely no handshake ends it at once, though the peer keeps the connection open."""
    def body(impl):
        async def main():
            async with pair(server_side=server_side) as both:
                await io_settled()
                both.far.sock.send(GARBAGE[garbage])
                found = await result_of(both.making)
                both.far.ended = None
                while not both.far.ended:
                    await both.far.moved()
                return found
        return impl.run(main())
    assert same(body)[0] == "SSLError"


@pytest.mark.parametrize("how", ["and leaves", "and resets", "and waits"])
def test_data_in_clear_before_any_handshake(how):
    """CVE-2023-40217: what was sent in clear, however the peer goes, is never taken for what the client said."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            protocols = []

            def factory():
                protocols.append(Stream())
                return protocols[-1]
            server = await loop.create_server(factory, "127.0.0.1", 0, ssl=server_context(clients="ca"),
                                              ssl_handshake_timeout=0.1)
            sock = socket.create_connection(server.sockets[0].getsockname())
            sock.send(b"\x17\x03\x03\x00\x10I am the admin!!" if how == "and waits" else b"DELETE / HTTP/1.0\r\n\r\n")
            if how == "and resets":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if how != "and waits":
                sock.close()
            await io_settled(5)
            if how == "and waits":
                sock.setblocking(False)
                with contextlib.suppress(OSError):
                    while await loop.sock_recv(sock, 100):
                        pass
            sock.close()
            server.close()
            await asyncio.wait_for(server.wait_closed(), LIMIT)
            await io_settled()
            return [p.trace for p in protocols]
        return impl.run(main())
    assert same(body) == [[]]


@versions
def test_data_right_after_the_hello(version):
    """Records of data behind ClientHello, before any key is agreed on: not delivered, and the end of it."""
    def body(impl):
        async def main():
            p = Stream()
            async with pair(p, near=server_context(version=version), far=client_context(version=version)) as both:
                both.far.sock.send(both.far.hello() + record(DATA, b"too early, and in clear"))
                # TLS 1.3 may have to skip records that it cannot read; then the end comes with FIN
                await io_settled()
                both.far.fin()
                found = await result_of(both.making)
                await io_settled()
                return found, p.trace, both.ours.fileno()
        return impl.run(main())
    found, trace, fd = same(body)
    assert found != "done" and (trace, fd) == ([], -1)


# Pieces

@versions
@sides
def test_one_byte_at_a_time(version, server_side):
    """A handshake and data, every byte in a segment of its own, is a handshake and data."""
    def body(impl):
        async def main():
            p = Stream()
            near = (server_context if server_side else client_context)(version=version)
            async with pair(p, server_side=server_side, near=near) as both:
                far = both.far
                with contextlib.suppress(ssl.SSLWantReadError):
                    far.tls.do_handshake()
                while far.tls.version() is None or not both.making.done():
                    await crumble(far)
                    if far.tls.version() is not None and both.making.done():
                        break
                    await io_settled(1)
                    far.fetch()
                    with contextlib.suppress(ssl.SSLWantReadError):
                        far.tls.do_handshake()
                far.tls.write(b"every byte by itself")
                await crumble(far)
                await p.until(lambda: len(p.received) == 20)
                return p.trace[0], bytes(p.received), p.names()[-1]
        return impl.run(main())

    async def crumble(far):
        data = far.outgoing.read()
        for n in range(len(data)):
            far.sock.send(data[n:n + 1])
            await asyncio.sleep(0)
            if n % 8 == 0:
                await io_settled(1)
    trace, received, last = same(body)
    assert (trace, received, last) == (["connection_made"], b"every byte by itself", "data_received")


@pytest.mark.parametrize("size", [1, 3, 50])
def test_hello_in_many_records(size):
    """A handshake message may be cut into records as its sender likes."""
    def body(impl):
        async def main():
            p = Stream()
            async with pair(p) as both:
                far = both.far
                ((kind, whole),) = records(far.hello())
                for at in range(5, len(whole), size):
                    far.sock.send(record(kind, whole[at:at + size], 0x0301))
                    if at < 50 or at // size % 32 == 0:
                        await io_settled(1)
                await far.handshake()
                await far.send(b"x")
                await p.wait("data_received")
                return p.trace[:]
        return impl.run(main())
    assert same(body) == [["connection_made"], ["data_received", b"x"]]


@pytest.mark.parametrize("protocol", [Stream, Buffered])
def test_records_of_one_byte(impl, protocol):
    """Thirty times the size in transport, and none is lost; the loop goes round meanwhile."""
    async def main():
        p = protocol()
        async with secured(p) as (_, far):
            expected = bytes(n % 251 for n in range(3000))
            for n in range(len(expected)):
                far.tls.write(expected[n:n + 1])
            while not far.flush():
                await far.moved()
            await p.until(lambda: len(p.received) == 3000)
            assert bytes(p.received) == expected
    impl.run(main())


@sides
def test_garbage_after_the_handshake(impl, server_side):
    """A record that cannot be read ends the connection; what came before it is delivered. asyncio drops that."""
    async def main(garbage):
        reports = Reports(asyncio.get_running_loop())
        p = Stream()
        async with secured(p, server_side=server_side) as (_, far):
            far.sock.send(far.encrypted(b"good") + garbage)
            await lost(p)
            await io_settled()
            good = [["data_received", b"good"]] if better(impl) else []
            assert plain(p.trace) == [["connection_made"], *good, ["connection_lost", "SSLError"]]
            assert reports.take() == []
    for garbage in (b"GET / HTTP/1.0\r\n\r\n", record(DATA, bytes(40)), record(99, b"?"), record(DATA, bytes(0x4000 + 300)),
                    record(HANDSHAKE, message(1, bytes(40)))):
        impl.run(main(garbage))


def test_records_again(impl):
    """A record that is sent twice is delivered once, and ends the connection."""
    async def main():
        p = Stream()
        async with secured(p) as (_, far):
            once = far.encrypted(b"pay 100")
            far.sock.send(once)
            await p.wait("data_received")
            far.sock.send(once)
            await lost(p)
            assert bytes(p.received) == b"pay 100"
            assert p.trace[-1] == ("connection_lost", "SSLError")
    impl.run(main())


def test_records_in_another_order(impl):
    async def main():
        p = Stream()
        async with secured(p) as (_, far):
            first, second = far.encrypted(b"first"), far.encrypted(b"second")
            far.sock.send(second + first)
            await lost(p)
            assert p.received == b""
    impl.run(main())


# Stalls and ends at every flight

CUTS = [(0, 0), (0, 1), (0, 5), (0, 100), (0, -1), (1, 0), (1, 5), (1, 60)]


async def up_to(both, flight, cut):
    """Lead the handshake to where `cut` bytes of the far end's flight of that number are sent."""
    far = both.far
    for number in range(flight + 1):
        data = b""
        while not data:
            with contextlib.suppress(ssl.SSLWantReadError):
                far.tls.do_handshake()
            data = far.outgoing.read()
            if not data:
                await far.moved()
        if number < flight:
            far.sock.send(data)
        elif cut:
            far.sock.send(data[:cut])
    await io_settled(1)


@versions
@sides
@pytest.mark.parametrize("flight, cut", CUTS, ids=[f"flight {f} at {c}" for f, c in CUTS])
@pytest.mark.parametrize("then", ["FIN", "stall"])
def test_handshake_that_breaks_off(flight, cut, server_side, version, then):
    """FIN is a reset for the caller, silence asyncio's timeout; socket and protocol as if it had never been."""
    if not server_side and flight == 1 and version is V3:
        pytest.skip("a server of TLS 1.3 has only one flight")

    def body(impl):
        async def main():
            reports = Reports(asyncio.get_running_loop())
            p = Stream()
            near = (server_context if server_side else client_context)(version=version)
            async with pair(p, server_side=server_side, near=near,
                            ssl_handshake_timeout=0.03 if then == "stall" else 5) as both:
                await up_to(both, flight, cut)
                if then == "FIN":
                    both.far.fin()
                found = await result_of(both.making)
                await io_settled()
                both.far.ended = None
                while not both.far.ended:
                    await both.far.moved()
                return found, p.trace, both.ours.fileno(), reports.take()
        return impl.run(main())
    found, trace, fd, reports = same(body)
    assert found[0] == ("ConnectionResetError" if then == "FIN" else "ConnectionAbortedError")
    assert (trace, fd, reports) == ([], -1, [])


def test_many_that_stall(impl):
    """A hundred clients that say nothing cost no more than a descriptor each, and that only until the timeout."""
    async def main():
        server = await asyncio.get_running_loop().create_server(
            Stream, "127.0.0.1", 0, ssl=server_context(), ssl_handshake_timeout=0.2)
        await io_settled()
        before = descriptors()
        socks = [socket.create_connection(server.sockets[0].getsockname()) for _ in range(100)]
        for n, sock in enumerate(socks):
            sock.setblocking(False)
            if n % 2:
                sock.send(b"\x16\x03\x01")
        for sock in socks:
            with contextlib.suppress(OSError):
                async with asyncio.timeout(LIMIT):
                    assert await asyncio.get_running_loop().sock_recv(sock, 1) in (b"", b"\x15")
            sock.close()
        await io_settled()
        assert descriptors() == before
        server.close()
        await io_settled()
    impl.run(main())


def test_renegotiation_that_python_can_ask_for(impl):
    """TLS 1.2: a second ClientHello in clear on an encrypted connection is no renegotiation, but the end."""
    async def main():
        p = Stream()
        async with secured(p, near=server_context(version=V2)) as (_, far):
            far.sock.send(hello())
            await lost(p)
            assert p.trace == [("connection_made",), ("connection_lost", "SSLError")]
    impl.run(main())


def test_a_peer_that_never_reads(impl):
    """Handshake, then silence: what is written is bounded by whoever heeds pause_writing(), and abort() ends it."""
    async def main():
        p = Stream()
        async with secured(p, buffers=4096) as (transport, far):
            written = 0
            while "pause_writing" not in p.names():
                transport.write(bytes(10000))
                written += 10000
                assert written < 5_000_000
                await asyncio.sleep(0)
            transport.abort()
            await lost(p)
            assert transport.get_write_buffer_size() == 0
            assert p.names() == ["connection_made", "pause_writing", "connection_lost"]
    impl.run(main())


def test_tickets_are_no_data(impl):
    """The session tickets of TLS 1.3 call no callback of a client."""
    async def main():
        p = Stream()
        far = server_context(version=V3)
        far.num_tickets = 20
        async with secured(p, server_side=False, far=far) as (_, peer):
            await io_settled()
            assert p.trace == [("connection_made",)]
            await peer.send(b"data")
            await p.wait("data_received")
            assert p.trace == [("connection_made",), ("data_received", b"data")]
    impl.run(main())
