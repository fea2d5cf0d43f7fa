"""Connections that begin in clear and become TLS: loop.start_tls() and StreamWriter.start_tls()."""

import asyncio
import contextlib
import random
import socket
import ssl

import pytest

from support import PY, same
from support.net import LIMIT, Reports, Stream, attach, io_settled, stream_pair, take
from support.tls import (
    NAME, V3, VERSIONS, Buffered, Far, better, client_context, error, lost, result_of, secured, server_context)

sides = pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])
protocols = pytest.mark.parametrize("protocol", [Stream, Buffered])
versions = pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)

HOST = "127.0.0.1"
BIG = random.Random(11).randbytes(1 << 20)


def upgrading(transport, p, server_side, **keywords):
    """The task of start_tls() with contexts that fit `far_of`."""
    keywords.setdefault("server_hostname", None if server_side else NAME)
    near = keywords.pop("near", None) or (server_context() if server_side else client_context())
    return asyncio.ensure_future(asyncio.get_running_loop().start_tls(
        transport, p, near, server_side=server_side, **keywords))


def far_of(sock, server_side, context=None):
    return Far(sock, context or (client_context() if server_side else server_context()), server_side=not server_side)


async def in_clear(p, kind="unix", buffers=None):
    """(our socket, its transport, the peer's socket)."""
    ours, sock = stream_pair(kind, buffers)
    return ours, await attach(p, ours), sock


async def handshake(below, p, sock, server_side, **keywords):
    """Upgrade, and shake hands with the peer: (TLS transport, far end)."""
    task = upgrading(below, p, server_side, **keywords)
    far = far_of(sock, server_side)
    await far.handshake()
    return await task, far


async def aborted(transport, p, far):
    """The end of a test: abort the near end and close the far one."""
    transport.abort()
    await lost(p)
    far.close()
    await io_settled()


@contextlib.asynccontextmanager
async def upgraded(p, server_side=True, kind="unix", buffers=None, **keywords):
    """(plain transport, TLS transport, far end)."""
    ours, below, sock = await in_clear(p, kind, buffers)
    transport, far = await handshake(below, p, sock, server_side, **keywords)
    try:
        yield below, transport, far
    finally:
        if not p.lost:
            transport.abort()
            await lost(p)
        far.close()
        await io_settled(2)
        ours.close()


async def both_upgraded(a, left, b, right):
    """Both ends are ours: a server's and a client's. Their protocols have the TLS transports then."""
    loop = asyncio.get_running_loop()
    left.transport, right.transport = await asyncio.gather(
        loop.start_tls(a, left, server_context(), server_side=True),
        loop.start_tls(b, right, client_context(), server_hostname=NAME))


# The upgrade

@sides
@protocols
def test_upgrade(server_side, protocol):
    """Clear text, TLS, and its end; connection_made() is not told again."""
    def body(impl):
        async def main():
            p = protocol()
            ours, below, sock = await in_clear(p, "tcp4")
            sock.send(b"STARTTLS\n")
            await p.until(lambda: p.received)
            below.write(b"go ahead\n")
            assert await take(sock, 9) == b"go ahead\n"
            transport, far = await handshake(below, p, sock, server_side)
            assert transport is not below
            assert transport.get_protocol() is p
            info = transport.get_extra_info
            assert type(info("ssl_object")) is ssl.SSLObject
            assert info("peername") == below.get_extra_info("peername")
            p.transport = transport
            transport.write(b"secret")
            assert await far.take(6) == b"secret"
            p.received.clear()
            await far.send(b"answer")
            await p.until(lambda: bytes(p.received) == b"answer")
            transport.close()
            end = await far.finish()
            await lost(p)
            await io_settled()
            far.close()
            assert below.is_closing() and transport.is_closing()
            return p.trace[0], [e[0] for e in p.trace[-2:]], end, info("cipher") is not None
        return impl.run(main())
    assert same(body) == [["connection_made"], ["eof_received", "connection_lost"], ["close_notify", "FIN"], True]


@versions
@sides
def test_hello_is_there_before_the_upgrade(server_side, version):
    """The peer's first flight lies in the kernel when start_tls() is called."""
    def body(impl):
        async def main():
            p = Stream()
            ours, below, sock = await in_clear(p)
            below.pause_reading()
            far = far_of(sock, server_side, (client_context if server_side else server_context)(version=version))
            if server_side:
                sock.send(far.hello())
            await io_settled()
            task = upgrading(below, p, server_side)
            await far.handshake()
            transport = await task
            await far.send(b"x")
            await p.wait("data_received")
            far.goodbye()
            await lost(p)
            far.close()
            del task, transport
            return p.trace
        return impl.run(main())
    assert same(body) == [["connection_made"], ["data_received", b"x"], ["eof_received"], ["connection_lost", None]]


def test_start_tls_from_data_received():
    """The command and ClientHello come one after the other, and the upgrade begins in the callback of the first."""
    def body(impl):
        async def main():
            tasks = []

            def begin(p, data):
                if data == b"STARTTLS":
                    tasks.append(upgrading(p.transport, p, True))
            p = Stream({"data_received": begin})
            ours, sock = stream_pair()
            await attach(p, ours)
            far = far_of(sock, True)
            sock.send(b"STARTTLS")
            await p.wait("data_received")
            await far.handshake()
            await far.send(b"inside")
            transport = await tasks.pop()
            await p.wait("data_received", 2)
            await aborted(transport, p, far)
            return p.trace
        return impl.run(main())
    assert same(body) == [["connection_made"], ["data_received", b"STARTTLS"], ["data_received", b"inside"],
                          ["connection_lost", None]]


def test_hello_in_the_segment_of_the_command(impl):
    """What a StreamReader has read beyond the command is the handshake's.

    Before 3.15 asyncio leaves it there, and the handshake never ends (gh-142352).
    """
    if not better(impl) and PY < (3, 15):
        return

    async def main():
        done = asyncio.get_running_loop().create_future()

        async def serve(reader, writer):
            command = await reader.readline()
            await writer.start_tls(server_context(), ssl_handshake_timeout=2)
            writer.write(command.upper())
            done.set_result(await reader.readexactly(6))
            writer.close()
            await writer.wait_closed()
        server = await asyncio.start_server(serve, HOST, 0)
        sock = socket.create_connection(server.sockets[0].getsockname())
        far = Far(sock, client_context())
        sock.send(b"starttls\n" + far.hello())
        await far.handshake()
        await far.send(b"inside")
        assert await far.take(9) == b"STARTTLS\n"
        assert await asyncio.wait_for(done, LIMIT) == b"inside"
        assert await far.finish() == ("close_notify", "FIN")
        far.close()
        server.close()
        await asyncio.wait_for(server.wait_closed(), LIMIT)
        await io_settled()
    impl.run(main())


@sides
def test_paused_transport(server_side):
    """Paused before the upgrade it is not afterwards: the TLS transport has a state of its own."""
    def body(impl):
        async def main():
            p = Stream()
            ours, below, sock = await in_clear(p)
            below.pause_reading()
            transport, far = await handshake(below, p, sock, server_side)
            reading = transport.is_reading()
            transport.pause_reading()
            await far.send(b"later")
            await io_settled()
            before = p.trace[:]
            transport.resume_reading()
            await p.wait("data_received")
            await aborted(transport, p, far)
            return reading, before, p.trace
        return impl.run(main())
    reading, before, _ = same(body)
    assert reading and before == [["connection_made"]]


@pytest.mark.parametrize("size", [10, 3000000])
def test_clear_text_unsent_before_the_upgrade(impl, size):
    """It arrives whole, in clear, before the first record; a protocol that was paused for it may write again.

    In asyncio that protocol stays paused, and an assertion fails.
    """
    if size > 10 and not better(impl):
        return

    async def main():
        p = Stream()
        ours, below, sock = await in_clear(p, buffers=65536)
        data = (BIG * 3)[:size]
        below.write(data)
        task = upgrading(below, p, False)
        assert await take(sock, size) == data
        far = far_of(sock, False)
        await far.handshake()
        transport = await task
        transport.write(b"secret")
        assert await far.take(6) == b"secret"
        assert p.names().count("pause_writing") == p.names().count("resume_writing") == (size > 10)
        await aborted(transport, p, far)
    impl.run(main())


def test_nothing_is_delivered_before_the_handshake_is_done():
    """What comes in clear after start_tls() is no application data: it is a broken handshake."""
    def body(impl):
        async def main():
            p = Stream()
            ours, below, sock = await in_clear(p)
            task = upgrading(below, p, True)
            sock.send(b"MAIL FROM: mallory\r\n")
            found = await result_of(task)
            await lost(p)
            sock.close()
            del task
            return found, p.trace
        return impl.run(main())
    found, trace = same(body)
    assert found[0] == "SSLError"
    assert trace == [["connection_made"], ["connection_lost", "SSLError"]]


@sides
def test_upgrade_fails(server_side):
    """The exception comes out of start_tls() and in connection_lost(); nothing is reported."""
    def body(impl):
        async def main():
            reports = Reports(asyncio.get_running_loop())
            p = Stream()
            ours, below, sock = await in_clear(p)
            near = server_context(clients="ca") if server_side else client_context("stranger")
            task = upgrading(below, p, server_side, near=near)
            far = far_of(sock, server_side)
            await result_of(far.handshake())
            found = await result_of(task)
            await lost(p)
            await io_settled()
            far.close()
            del task
            return found, p.trace, below.is_closing(), ours.fileno(), reports.take()
        return impl.run(main())
    found, trace, closing, fd, reports = same(body)
    assert found[0] == ("SSLError" if server_side else "SSLCertVerificationError")
    assert trace == [["connection_made"], ["connection_lost", found[0]]]
    assert (closing, fd, reports) == (True, -1, [])


@sides
def test_handshake_timeout(server_side):
    def body(impl):
        async def main():
            p = Stream()
            ours, below, sock = await in_clear(p)
            task = upgrading(below, p, server_side, ssl_handshake_timeout=0.05)
            found = await result_of(task)
            await io_settled()
            sock.close()
            del task
            return found, p.trace, ours.fileno()
        return impl.run(main())
    found, trace, fd = same(body)
    assert found == ["ConnectionAbortedError",
                     "SSL handshake is taking longer than 0.05 seconds: aborting the connection"]
    assert fd == -1


@sides
@pytest.mark.parametrize("how", ["FIN", "alert"])
def test_peer_leaves_amid_the_handshake(server_side, how):
    def body(impl):
        async def main():
            p = Stream()
            ours, below, sock = await in_clear(p)
            task = upgrading(below, p, server_side)
            await io_settled()
            if how == "alert":
                sock.send(b"\x15\x03\x03\x00\x02\x02\x50")
            else:
                sock.shutdown(socket.SHUT_WR)
            found = await result_of(task)
            await io_settled()
            sock.close()
            del task
            return found, p.trace, ours.fileno()
        return impl.run(main())
    found, trace, fd = same(body)
    assert found[0] == ("SSLError" if how == "alert" else "ConnectionResetError")
    assert fd == -1


def test_close_of_the_transport_below():
    """Its close() ends both, without close_notify."""
    def body(impl, how):
        async def main():
            p = Stream()
            async with upgraded(p) as (below, transport, far):
                getattr(below, how)()
                await lost(p)
                await far.take_all()
                return p.trace, far.ended in ("FIN", "reset")
        return impl.run(main())
    for how in ("close", "abort"):
        trace, ended = same(body, how)
        assert ended and trace[-1] == ["connection_lost", None]


def test_start_tls_on_a_closed_transport(impl):
    """It raises, at once, and leaves nothing behind. asyncio returns None for a transport, or never returns."""
    if not better(impl):
        return

    async def main():
        for how in ("close", "abort"):
            for settled in (True, False):
                p = Stream()
                ours, below, sock = await in_clear(p)
                getattr(below, how)()
                if settled:
                    await lost(p)
                found = await result_of(upgrading(below, p, True, ssl_handshake_timeout=1))
                assert found != "done", (how, settled)
                sock.close()
                await io_settled()
    impl.run(main())


@pytest.mark.parametrize("how", ["close", "abort"])
def test_transport_below_is_closed_amid_the_handshake(how, impl):
    """start_tls() raises. asyncio returns None for a transport."""
    if not better(impl):
        return

    async def main():
        p = Stream()
        ours, below, sock = await in_clear(p)
        task = upgrading(below, p, True)
        await io_settled()
        getattr(below, how)()
        assert await result_of(task) != "done"
        sock.close()
        del task
        await io_settled()
    impl.run(main())


# Arguments

def test_arguments():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            p = Stream()
            ours, below, sock = await in_clear(p)
            found = []
            for context in (None, True, "context", ssl.SSLContext):
                found.append((await result_of(loop.start_tls(below, p, context)))[:1])
            for transport in (None, object(), asyncio.Transport()):
                found.append((await result_of(loop.start_tls(transport, p, client_context())))[:1])
            for name in ("ssl_handshake_timeout", "ssl_shutdown_timeout"):
                for value in (0, -1):
                    found.append(await result_of(loop.start_tls(
                        below, p, client_context(), server_hostname=NAME, **{name: value})))
            with pytest.raises(TypeError):
                await loop.start_tls(below, p, client_context(), True)
            texts = [await result_of(loop.start_tls(below, p, "context")),
                     (await result_of(loop.start_tls(3, p, client_context())))]
            # nothing has happened to the connection
            sock.send(b"still in clear")
            await p.wait("data_received")
            below.abort()
            await lost(p)
            sock.close()
            return found, texts, p.trace
        return impl.run(main())
    found, texts, trace = same(body)
    assert found[:7] == [["TypeError"]] * 7
    assert texts == [["TypeError", "sslcontext is expected to be an instance of ssl.SSLContext, got 'context'"],
                     ["TypeError", "transport 3 is not supported by start_tls()"]]
    assert trace[1] == ["data_received", b"still in clear"]


def test_transports_that_are_not_fit():
    """Datagrams and pipes."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            a, b = socket.socketpair(type=socket.SOCK_DGRAM)
            c, d = socket.socketpair()
            datagrams, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=a)
            pipe, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, c)
            found = []
            for transport in (datagrams, pipe):
                found.append((await result_of(loop.start_tls(transport, Stream(), client_context())))[0])
                transport.close()
            await io_settled()
            b.close(), d.close()
            return found
        return impl.run(main())
    assert same(body) == ["TypeError", "TypeError"]


# TLS in TLS

@sides
def test_tls_in_tls(server_side):
    """Two layers, each with its own certificate; both ends are polite."""
    def body(impl):
        async def main():
            p = Stream()
            ours, below, sock = await in_clear(p)
            middle, outer = await handshake(below, p, sock, server_side)
            near = server_context("server_rsa") if server_side else client_context()
            task = upgrading(middle, p, server_side, near=near)
            inner = Inner(outer, client_context() if server_side else server_context("server_rsa"), not server_side)
            await inner.handshake()
            transport = await task
            for size in (5, 100000):
                transport.write(BIG[:size])
                assert await inner.take(size) == BIG[:size]
                p.received.clear()
                await inner.send(BIG[:size])
                await p.until(lambda: bytes(p.received) == BIG[:size])
            info = transport.get_extra_info
            ciphers = info("ssl_object") is not middle.get_extra_info("ssl_object"), info("cipher") is not None
            inner.tls_goodbye()
            await lost(p)
            outer.close()
            await io_settled()
            del task
            return p.names()[-2:], ciphers
        return impl.run(main())
    names, ciphers = same(body)
    assert names == ["eof_received", "connection_lost"] and ciphers == [True, True]


class Inner:
    """A far end whose bytes another far end carries."""

    def __init__(self, outer, context, server_side):
        self.outer = outer
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=server_side,
                                    server_hostname=None if server_side else NAME)

    async def flush(self):
        if self.outgoing.pending:
            await self.outer.send(self.outgoing.read())

    async def more(self):
        self.incoming.write(await self.outer.take(1))
        self.outer.decrypt()
        self.incoming.write(self.outer.plain)
        self.outer.plain.clear()

    async def handshake(self):
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self.flush()
                await self.more()
        await self.flush()

    async def send(self, data):
        self.tls.write(data)
        await self.flush()

    async def take(self, count):
        got = b""
        while len(got) < count:
            try:
                got += self.tls.read(count - len(got))
            except ssl.SSLWantReadError:
                await self.more()
        return got

    def tls_goodbye(self):
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        self.outer.tls.write(self.outgoing.read())
        self.outer.goodbye()


def test_tls_in_tls_between_two_of_ours(impl):
    """Both ends on one loop: a megabyte each way through two layers, and close() of the inner one."""
    async def main():
        a, b = stream_pair()
        left, right = Stream(), Stream()
        left.transport, right.transport = await attach(left, a), await attach(right, b)
        for _ in range(2):
            await both_upgraded(left.transport, left, right.transport, right)
        left.transport.write(BIG)
        right.transport.write(BIG[::-1])
        await left.until(lambda: len(left.received) == len(BIG))
        await right.until(lambda: len(right.received) == len(BIG))
        assert left.received == BIG[::-1] and right.received == BIG
        left.transport.close()
        await lost(right)
        await lost(left)
        await io_settled()
    impl.run(main())


def test_connection_through_a_proxy(impl):
    """As HTTP clients do it: TLS to the proxy by create_connection(), TLS through it by start_tls()."""
    async def main():
        p = Stream()
        async with secured(p, server_side=False) as (transport, outer):
            await outer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await p.wait("data_received")
            second = Stream()
            task = upgrading(transport, second, False)
            inner = Inner(outer, server_context(), True)
            await inner.handshake()
            above = await task
            above.write(b"GET / HTTP/1.1\r\n\r\n")
            assert await inner.take(18) == b"GET / HTTP/1.1\r\n\r\n"
            await inner.send(b"HTTP/1.1 204 No Content\r\n\r\n")
            await second.wait("data_received")
            assert bytes(second.received) == b"HTTP/1.1 204 No Content\r\n\r\n"
            above.abort()
            await lost(second)
            p.lost = True
            del task, above
    impl.run(main())


# Foreign transports

class Memory(asyncio.Transport):
    """A transport written in Python, of no socket: what is written comes to the other one, in pieces."""

    _start_tls_compatible = True

    def __init__(self, loop, piece=None):
        super().__init__()
        self.loop = loop
        self.piece = piece
        self.other = None
        self.protocol = None
        self.paused = self.closing = self.told = False
        self.inbox = bytearray()
        self.eof = False
        self.written = 0

    def set_protocol(self, protocol):
        self.protocol = protocol

    def get_protocol(self):
        return self.protocol

    def get_extra_info(self, name, default=None):
        return "nowhere" if name == "peername" else default

    def is_closing(self):
        return self.closing

    def is_reading(self):
        return not self.paused

    def pause_reading(self):
        self.paused = True

    def resume_reading(self):
        self.paused = False
        self.loop.call_soon(self.deliver)

    def write(self, data):
        assert not isinstance(data, str)
        self.written += len(data)
        if not self.closing:
            self.other.inbox += data
            self.loop.call_soon(self.other.deliver)

    def writelines(self, lines):
        self.write(b"".join(lines))

    def get_write_buffer_size(self):
        return 0

    def deliver(self):
        while self.inbox and not self.paused and not self.told:
            count = min(len(self.inbox), self.piece or len(self.inbox))
            if isinstance(self.protocol, asyncio.BufferedProtocol):
                buffer = self.protocol.get_buffer(count)
                count = min(count, len(buffer))
                buffer[:count] = self.inbox[:count]
                del self.inbox[:count]
                self.protocol.buffer_updated(count)
            else:
                data = bytes(self.inbox[:count])
                del self.inbox[:count]
                self.protocol.data_received(data)
        if self.eof and not self.inbox and not self.paused and not self.told:
            self.eof = False
            if not self.protocol.eof_received():
                self.close()

    def close(self):
        if not self.closing:
            self.closing = True
            self.other.eof = True
            self.loop.call_soon(self.other.deliver)
            self.loop.call_soon(self.tell, None)

    def abort(self):
        self._force_close(None)

    def _force_close(self, exc):
        self.closing = True
        self.other.eof = True
        self.loop.call_soon(self.other.deliver)
        self.loop.call_soon(self.tell, exc)

    def tell(self, exc):
        if not self.told:
            self.told = True
            self.protocol.connection_lost(exc)


def foreign(piece=None):
    """Two such transports that belong together, each with its protocol."""
    loop = asyncio.get_running_loop()
    a, b = Memory(loop, piece), Memory(loop, piece)
    a.other, b.other = b, a
    left, right = Stream(), Stream()
    a.set_protocol(left), b.set_protocol(right)
    return a, left, b, right


@pytest.mark.parametrize("piece", [None, 1000, 7])
def test_foreign_transports(piece):
    """start_tls() takes whatever says that it is fit, and asks nothing of it but what transports have."""
    def body(impl):
        async def main():
            a, left, b, right = foreign(piece)
            size = 3000 if piece == 7 else len(BIG)
            await both_upgraded(a, left, b, right)
            left.transport.write(BIG[:size])
            right.transport.writelines([BIG[:size], b"end"])
            await left.until(lambda: len(left.received) == size + 3)
            await right.until(lambda: len(right.received) == size)
            whole = left.received == BIG[:size] + b"end", right.received == BIG[:size]
            names = left.transport.get_extra_info("peername"), left.transport.get_extra_info("socket", "none")
            left.transport.close()
            await lost(right)
            await lost(left)
            await io_settled()
            return whole, names, left.names()[-2:], right.names()[-2:]
        return impl.run(main())
    whole, names, left, right = same(body)
    assert whole == [True, True] and names == ["nowhere", "none"]
    assert left[-1] == right[-1] == "connection_lost"


def test_foreign_transport_fails():
    """A refused handshake over it: the exception comes out and the transport is ended."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            a, left, b, right = foreign()
            results = await asyncio.gather(
                result_of(loop.start_tls(a, left, server_context(), server_side=True)),
                result_of(loop.start_tls(b, right, client_context("stranger"), server_hostname=NAME)))
            await io_settled()
            return results[1], a.is_closing(), b.is_closing(), right.trace
        return impl.run(main())
    found, a, b, trace = same(body)
    assert found[0] == "SSLCertVerificationError"
    assert a and b and trace == [["connection_lost", "SSLCertVerificationError"]]


def test_foreign_transport_pauses_us(impl):
    """pause_writing() from below stops TLS from handing more down, and in the end the application from writing."""
    async def main():
        a, left, b, right = foreign()
        await both_upgraded(a, left, b, right)
        a.protocol.pause_writing()
        before = a.written
        left.transport.write(BIG[:600000])
        await io_settled()
        assert a.written == before
        assert left.names() == ["pause_writing"]
        assert left.transport.get_write_buffer_size() >= 600000
        a.protocol.resume_writing()
        await right.until(lambda: len(right.received) == 600000)
        assert right.received == BIG[:600000]
        assert left.names() == ["pause_writing", "resume_writing"]
        left.transport.abort()
        await lost(left)
        await io_settled()
        right.transport.abort()
        await io_settled()
    impl.run(main())


# Streams

@versions
def test_writer_start_tls(version):
    """Both ends: clear, then TLS, on the same reader and writer."""
    def body(impl):
        async def main():
            done = asyncio.get_running_loop().create_future()

            async def serve(reader, writer):
                assert await reader.readline() == b"STARTTLS\n"
                writer.write(b"go ahead\n")
                await writer.start_tls(server_context(version=version), ssl_handshake_timeout=5)
                line = await reader.readline()
                writer.write(line.upper())
                await writer.drain()
                rest = await reader.read()
                writer.close()
                await writer.wait_closed()
                done.set_result(rest)
            server = await asyncio.start_server(serve, HOST, 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            assert writer.get_extra_info("ssl_object") is None
            writer.write(b"STARTTLS\n")
            assert await reader.readline() == b"go ahead\n"
            await writer.start_tls(client_context(), server_hostname=NAME, ssl_handshake_timeout=5)
            agreed = writer.get_extra_info("ssl_object").version()
            writer.write(b"hello\n")
            answer = await reader.readline()
            writer.close()
            await writer.wait_closed()
            rest = await asyncio.wait_for(done, LIMIT)
            server.close()
            await asyncio.wait_for(server.wait_closed(), LIMIT)
            await io_settled()
            return agreed, answer, rest, await reader.read()
        return impl.run(main())
    agreed, answer, rest, end = same(body)
    assert (answer, rest, end) == (b"HELLO\n", b"", b"")
    assert (agreed == "TLSv1.3") == (version is V3)


def test_writer_start_tls_fails():
    """The exception comes out, and a reader that waits ends."""
    def body(impl):
        async def main():
            reader, writer = await asyncio.open_connection(sock=(pair := stream_pair("tcp4"))[0])
            far = far_of(pair[1], False)
            task = asyncio.ensure_future(writer.start_tls(client_context("stranger"), server_hostname=NAME))
            await result_of(far.handshake())
            found = await result_of(task)
            with pytest.raises(ssl.SSLError) as caught:
                await reader.read()
            read = error(caught.value)
            del caught, task
            writer.close()
            closed = await result_of(writer.wait_closed())
            far.close()
            await io_settled()
            reader.set_exception(OSError()), reader._transport and None
            return found, read, closed
        return impl.run(main())
    found, read, _ = same(body)
    assert found[0] == "SSLCertVerificationError" and found == read


def test_set_protocol_after_the_upgrade():
    """start_tls() may be given another protocol than the transport had."""
    def body(impl):
        async def main():
            first, second = Stream(), Stream()
            ours, below, sock = await in_clear(first)
            sock.send(b"clear")
            await first.wait("data_received")
            transport, far = await handshake(below, second, sock, True)
            await far.send(b"secret")
            await second.wait("data_received")
            await aborted(transport, second, far)
            return first.trace, second.trace
        return impl.run(main())
    assert same(body) == [[["connection_made"], ["data_received", b"clear"]],
                          [["data_received", b"secret"], ["connection_lost", None]]]
