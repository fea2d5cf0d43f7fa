"""Transports below that call back at once, callbacks of OpenSSL, and calls out of turn."""

import asyncio
import contextlib
import ssl

import pytest

from fastloop import _tls
from support import FASTLOOP, same
from support.net import Reports, Stream, io_settled
from support.tls import (
    NAME, V2, V3, Buffered, Far, better, client_context, lost, secured, server_context)


class Below(asyncio.Transport):
    """A transport without a socket, whose write() lets `answer(data)` hand something to the TLS above at once.

    With `at_once`, connection_lost() comes out of abort() and close().
    """

    def __init__(self, answer=None):
        super().__init__()
        self.above = None
        self.answer = answer
        self.gone = False
        self.at_once = False

    def deliver(self, data):
        """What arrives, to the protocol above."""
        data = memoryview(bytes(data))
        while data:
            room = self.above.get_buffer(-1)
            size = min(len(room), len(data))
            room[:size] = data[:size]
            self.above.buffer_updated(size)
            data = data[size:]

    def write(self, data):
        if self.answer is not None:
            self.answer(bytes(data))

    def pause_reading(self):
        pass

    resume_reading = pause_reading

    def is_closing(self):
        return self.gone

    def close(self):
        self._force_close(None)

    abort = close

    def _force_close(self, exc):
        if not self.gone:
            self.gone = True
            if self.at_once:
                self.above.connection_lost(exc)
            else:
                asyncio.get_running_loop().call_soon(self.above.connection_lost, exc)


def tls_above(impl, below, protocol, context, server_side=False):
    """TLS of the loop's own over `below`, the handshake begun; the transport of `protocol`."""
    loop = asyncio.get_running_loop()
    keywords = {"server_side": server_side, "server_hostname": None if server_side else NAME}
    if impl.is_fastloop:
        below.above = transport = _tls.make_transport(loop, protocol, context, None, **keywords)
    else:
        below.above = asyncio.sslproto.SSLProtocol(loop, protocol, context, None, **keywords)
        transport = below.above._app_transport
    below.above.connection_made(below)
    return transport


class Peer:
    """The far end of a Below, which answers while write() is still going on."""

    def __init__(self, context, *, server_side=True):
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=server_side,
                                    server_hostname=None if server_side else NAME)
        self.ready = False
        self.plain = bytearray()
        self.below = Below(self.hear)

    def hear(self, data):
        self.incoming.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            if not self.ready:
                self.tls.do_handshake()
                self.ready = True
                self.on_ready()
            while data := self.tls.read(65536):
                self.plain += data
        self.on_heard()
        self.flush()

    def flush(self):
        while self.outgoing.pending:
            self.below.deliver(self.outgoing.read())

    def start(self):
        """A client says hello."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        self.flush()

    def on_ready(self):
        pass

    def on_heard(self):
        pass


# Order

@pytest.mark.parametrize("version", [V2, V3])
@pytest.mark.parametrize("size", [10, 20000])
def test_peer_that_answers_before_write_returns(version, size):
    """What is written in connection_made() stays before what an answer to it leads to."""
    def body(impl):
        async def main():
            peer = Peer(server_context(version=version))
            peer.on_ready = lambda: peer.tls.write(b"greeting")
            p = Stream({
                "connection_made": lambda p, transport: transport.write(b"hello".rjust(size)),
                "data_received": lambda p, data: p.transport.write(b"reply".rjust(size)),
            })
            transport = tls_above(impl, peer.below, p, client_context(version=version))
            await io_settled()
            found = p.names(), bytes(peer.plain).split()
            transport.abort()
            return found
        return impl.run(main())
    names, plain = same(body)
    assert names == ["connection_made", "data_received"] and plain == [b"hello", b"reply"]


@pytest.mark.parametrize("protocol", [Stream, Buffered])
def test_answer_to_what_was_written_while_reading(protocol):
    """Reading makes OpenSSL write (a certificate asked for later): the answer to that comes after what was read."""
    def body(impl):
        async def main():
            near = client_context(key="client", version=V3)
            near.post_handshake_auth = True
            far = server_context(clients="ca", version=V3)
            far.post_handshake_auth = True
            peer = Peer(far)
            p = protocol()
            transport = tls_above(impl, peer.below, p, near)
            await io_settled()

            def heard():
                if peer.tls.getpeercert() and "second" not in said:
                    said.append("second")
                    peer.tls.write(b"second ")
            said = []
            peer.on_heard = heard
            peer.tls.verify_client_post_handshake()
            peer.tls.write(b"first ")
            peer.flush()
            await io_settled()
            found = said, bytes(p.received)
            transport.abort()
            return found
        return impl.run(main())
    assert same(body) == [["second"], b"first second "]


def test_above_asyncios_own_tls(impl):
    """asyncio's SSLProtocol below reads its second record into a slice of our buffer."""
    async def main():
        loop = asyncio.get_running_loop()
        p = Stream()
        outer = Peer(server_context(), server_side=True)
        inner_in, inner_out = ssl.MemoryBIO(), ssl.MemoryBIO()
        inner = server_context().wrap_bio(inner_in, inner_out, server_side=True)
        middle = asyncio.sslproto.SSLProtocol(loop, asyncio.Protocol(), client_context(), None, server_hostname=NAME)
        outer.below.above = middle
        middle.connection_made(outer.below)
        transport = middle._app_transport
        making = loop.create_task(loop.start_tls(transport, p, client_context(), server_hostname=NAME))
        for _ in range(5):
            await io_settled(1)
            inner_in.write(bytes(outer.plain))
            outer.plain.clear()
            with contextlib.suppress(ssl.SSLWantReadError):
                inner.do_handshake()
            if inner_out.pending:
                outer.tls.write(inner_out.read())
                outer.flush()
        await making
        inner.write(b"one message in two records below")
        data = inner_out.read()
        outer.tls.write(data[:20])
        outer.tls.write(data[20:])
        outer.flush()
        await io_settled()
        assert bytes(p.received) == b"one message in two records below"
        outer.below.abort()
        await io_settled()
    impl.run(main())


# Much that waits

async def filled(transport, far, size):
    """Nobody reads, and `size` bytes wait above the socket."""
    transport.pause_reading()
    transport.set_read_buffer_limits(high=1 << 24)
    await far.send(bytes(n % 251 for n in range(size)))
    while transport.get_read_buffer_size() < size:
        await asyncio.sleep(0)


def test_protocol_of_the_other_kind_with_much_pending():
    """The protocol that a data_received() of much data puts in its place gets the rest in its own way."""
    def body(impl):
        async def main():
            reports = Reports(asyncio.get_running_loop())
            second = Buffered()
            first = Stream({"data_received": lambda p, data: p.transport.set_protocol(second)})
            async with secured(first) as (transport, far):
                await filled(transport, far, 600000)
                transport.resume_reading()
                await io_settled(5)
                await far.send(b"end")
                await io_settled(5)
                found = bytes(first.received) + bytes(second.received)
                transport.abort()
                await io_settled()
                return len(found), found[:1000], found[-1003:], second.names()[-1], reports.take()
        return impl.run(main())
    assert same(body)[0] == 600003


def test_reader_that_pauses_amid_the_rest():
    """The end was seen while nobody read: all that came before it is delivered, though the reader is soon full."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            reader = asyncio.StreamReader(limit=1000)
            p = asyncio.StreamReaderProtocol(reader)
            async with secured(p) as (transport, far):
                await filled(transport, far, 600000)
                far.fin()
                await io_settled()
                transport.resume_reading()
                await io_settled(3)
                return len(await reader.read())
        return impl.run(main())
    assert same(body) == 600000


@pytest.mark.parametrize("high", [1, 100, 4096, 16384])
@pytest.mark.parametrize("paused", [False, True])
def test_read_limits_below_the_size_of_a_record(high, paused):
    """A part of a record is more than the limit: the rest is received nevertheless."""
    def body(impl):
        async def main():
            p = Stream()
            async with secured(p) as (transport, far):
                transport.set_read_buffer_limits(high=high)
                data = far.encrypted(bytes(100)) + far.encrypted(bytes(16384))
                if paused:
                    transport.pause_reading()
                far.sock.send(data[:16300])
                await io_settled()
                transport.resume_reading()
                await io_settled()
                far.sock.send(data[16300:])
                await io_settled()
                return len(p.received)
        return impl.run(main())
    assert same(body) == 16484


@pytest.mark.parametrize("size", [1, 1000, 65536])
def test_end_with_small_buffers(impl, size):
    """FIN without close_notify: the buffers that are still to be filled are filled first. asyncio fills one."""
    async def main():
        p = Buffered(size=size)
        async with secured(p) as (_, far):
            total = 100 * size if size < 10000 else 200000
            await far.send(bytes(n % 251 for n in range(total)))
            far.fin()
            await lost(p)
            if better(impl):
                assert bytes(p.received) == bytes(n % 251 for n in range(total))
                assert p.names()[-2:] == ["eof_received", "connection_lost"]
    impl.run(main())


def test_paused_buffer_and_the_end(impl):
    """A BufferedProtocol that pauses amid what came before FIN gets the rest when it resumes, and loses none."""
    async def main():
        def updated(p, count):
            if p.names().count("buffer_updated") == 3:
                p.transport.pause_reading()
        p = Buffered({"buffer_updated": updated}, size=10)
        async with secured(p) as (transport, far):
            await far.send(bytes(100))
            far.fin()
            await io_settled(5)
            if better(impl):
                assert len(p.received) == 30 and "eof_received" not in p.names()
            transport.resume_reading()
            await lost(p)
            assert len(p.received) == 100 or not better(impl)
    impl.run(main())


def test_close_while_paused_after_the_end(impl):
    """The peer is gone, nobody reads, and close() is called: it ends. asyncio waits for resume_reading()."""
    async def main():
        p = Stream()
        async with secured(p) as (transport, far):
            transport.pause_reading()
            await far.send(b"nobody reads this")
            far.fin()
            await io_settled()
            transport.close()
            await io_settled()
            if better(impl):
                assert p.names() == ["connection_made", "eof_received", "connection_lost"]
            transport.abort()
    impl.run(main())


# Out of callbacks of OpenSSL

@pytest.mark.parametrize("raised", ["KeyboardInterrupt", "SystemExit", "ValueError"])
@pytest.mark.parametrize("when", ["handshake", "write", "shutdown"])
def test_abort_and_raise(when, raised):
    """A callback of OpenSSL that aborts the connection and raises: the exception is not lost."""
    error = {"KeyboardInterrupt": KeyboardInterrupt, "SystemExit": SystemExit, "ValueError": ValueError}[raised]

    def body(impl):
        loop = impl.new_loop()
        reports = Reports(loop)
        near = server_context()
        left, armed, transports = [], [], []

        def strike(*args):
            if armed:
                armed.clear()
                transports[0].abort()
                raise error("from the callback")

        async def begin():
            peer = Peer(client_context(), server_side=False)
            p = Stream()
            near._msg_callback = strike
            transports.append(tls_above(impl, peer.below, p, near, server_side=True))
            if when == "handshake":
                armed.append(1)
            peer.start()
            await io_settled()
            if when == "write":
                armed.append(1)
                transports[0].write(b"something".rjust(20000))
            elif when == "shutdown":
                armed.append(1)
                transports[0].close()
            await io_settled()

        try:
            loop.run_until_complete(begin())
        except BaseException as exc:
            left.append((type(exc).__name__, str(exc)))
        armed.clear()
        with contextlib.suppress(BaseException):
            loop.run_until_complete(io_settled())
        loop.close()
        near._msg_callback = None  # the collector does not know of it
        return left, len(reports.take())
    left, found = same(body)
    # _ssl itself forgets it where it wants to read more
    assert left or found or when != "write"


@pytest.mark.parametrize("make", ["Stream", "Buffered", "reader"])
def test_connection_lost_while_reading(impl, make):
    """The transport below is gone at once when a callback of OpenSSL aborts: nobody is told of data any more."""
    async def main():
        loop = asyncio.get_running_loop()
        reports = Reports(loop)
        p = {"Stream": Stream, "Buffered": Buffered,
             "reader": lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader())}[make]()
        near = client_context()
        peer = Peer(server_context())
        armed = []

        def strike(*args):
            if armed:
                armed.clear()
                transport.abort()
        near._msg_callback = strike
        transport = tls_above(impl, peer.below, p, near)
        await io_settled()
        peer.below.at_once = True
        armed.append(1)
        peer.tls.write(b"nobody reads this")
        peer.flush()
        await io_settled()
        assert not armed
        near._msg_callback = None  # the collector does not know of it
        if better(impl):
            assert reports.take() == []
            if make != "reader":
                assert p.names()[-1] == "connection_lost" and p.received == b""
    impl.run(main())


def test_let_go_while_writing():
    """Closed twice and lost from within a callback of OpenSSL, amid several records. asyncio's crashes in _ssl."""
    async def main():
        p = Stream()
        near = client_context()
        peer = Peer(server_context())
        seen = None

        def strike(*args):
            if seen is not None:
                seen.append(args[3])
                if len(seen) == 4:
                    transport.close()
                    transport.close()
                    peer.below.abort()
        near._msg_callback = strike
        transport = tls_above(FASTLOOP, peer.below, p, near)
        await io_settled()
        peer.below.at_once = True
        seen = []
        transport.writelines([bytes(16000)] * 3)
        await io_settled()
        assert len(seen) >= 4
        near._msg_callback = None
        assert p.names()[-1] == "connection_lost"
    FASTLOOP.run(main())


# Calls out of turn

def test_connection_made_again(impl):
    """The transport below says twice that it is there: an error, and all goes on."""
    async def main():
        p = Stream()
        peer = Peer(server_context())
        transport = tls_above(impl, peer.below, p, client_context())
        with pytest.raises(RuntimeError):
            peer.below.above.connection_made(peer.below)
        await io_settled()
        assert p.names() == ["connection_made"]
        peer.tls.write(b"data")
        peer.flush()
        assert p.received == b"data"
        transport.write(b"back")
        await io_settled()
        assert peer.plain == b"back"
        transport.abort()
    impl.run(main())


def test_feed_from_data_received():
    """_feed() while there is more from below: that is not lost."""
    async def main():
        p = Stream({"data_received": lambda p, data: p.transport._feed(b"")})
        async with secured(p) as (_, far):
            far.tls.write(b"one")
            data = far.outgoing.read()
            far.tls.write(b"two")
            rest = far.outgoing.read()
            far.sock.send(data + rest[:10])
            await io_settled()
            far.sock.send(rest[10:])
            await io_settled()
            assert bytes(p.received) == b"onetwo"
    FASTLOOP.run(main())
