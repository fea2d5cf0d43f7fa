"""Datagram endpoints."""

import asyncio
import contextlib
import contextvars
import gc
import os
import re
import socket
import warnings

import pytest

from support import PY, outcome, plain, same
from support.net import (
    FAMILIES, HOSTS, Datagrams, Peer, Reports, better, datagram_pair, folder, free_port, io_settled,
    neutral, readable)

kinds = pytest.mark.parametrize("kind", ["tcp4", "tcp6"], ids=["v4", "v6"])


def bare(kind="tcp4"):
    """A bare UDP socket, bound."""
    sock = socket.socket(FAMILIES[kind], socket.SOCK_DGRAM)
    sock.bind((HOSTS[kind], 0))
    sock.setblocking(False)
    return sock


@contextlib.asynccontextmanager
async def endpoint(protocol=None, kind="tcp4", **kwargs):
    """(transport, protocol) of an endpoint, closed at the end."""
    loop = asyncio.get_running_loop()
    protocol = protocol or Datagrams()
    if not kwargs:
        kwargs = {"local_addr": (HOSTS[kind], 0)}
    transport, found = await loop.create_datagram_endpoint(lambda: protocol, **kwargs)
    assert found is protocol
    try:
        yield transport, protocol
    finally:
        if not protocol.lost:
            transport.abort()
        await io_settled(2)


@contextlib.asynccontextmanager
async def unix_endpoint(protocol=None, buffers=None):
    """(transport, protocol, the peer's bare socket) of a unix datagram pair."""
    ours, peer = datagram_pair(buffers)
    with peer:
        async with endpoint(protocol, sock=ours) as (transport, protocol):
            yield transport, protocol, peer


async def get(sock, count=1):
    """The next datagrams of a bare socket."""
    found = []
    while len(found) < count:
        try:
            found.append(sock.recv(70000))
        except BlockingIOError:
            await readable(sock)
    return found


def all_now(sock):
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(sock.recv(70000))
    return found


# Sending and receiving

@kinds
def test_unconnected(kind):
    def body(impl):
        async def main():
            with bare(kind) as peer:
                async with endpoint(kind=kind) as (transport, p):
                    address = transport.get_extra_info("sockname")
                    for data in (b"one", bytearray(b"two"), memoryview(b"three"), memoryview(b"xfourx")[1:5]):
                        assert transport.sendto(data, peer.getsockname()) is None
                        assert await get(peer) == [bytes(data)]
                    peer.sendto(b"reply", address)
                    await p.wait("datagram_received")
                    assert p.datagrams == [(b"reply", peer.getsockname())]
                    assert type(p.datagrams[0][0]) is bytes
                    found = [transport.get_extra_info("peername"), outcome(transport.sendto, b"x")[:2]]
                    await io_settled()
                    return found, p.trace, transport.is_closing()
        reports_of = []

        async def watched():
            reports = Reports(asyncio.get_running_loop())
            found = await main()
            reports_of.append(reports.take())
            return found
        return impl.run(watched()), reports_of
    same(body)


@kinds
def test_connected(kind):
    def body(impl):
        async def main():
            with bare(kind) as peer, bare(kind) as stranger:
                async with endpoint(remote_addr=peer.getsockname()[:2]) as (transport, p):
                    assert transport.get_extra_info("peername") == peer.getsockname()
                    address = transport.get_extra_info("sockname")
                    transport.sendto(b"one")
                    transport.sendto(b"two", None)
                    transport.sendto(b"three", peer.getsockname())
                    assert await get(peer, 3) == [b"one", b"two", b"three"]
                    found = outcome(transport.sendto, b"x", stranger.getsockname())
                    assert str(peer.getsockname()) in found[2]
                    stranger.sendto(b"from a stranger", address)
                    peer.sendto(b"reply", address)
                    await p.wait("datagram_received")
                    await io_settled()
                    assert p.datagrams == [(b"reply", peer.getsockname())]
                    return found[:2], p.trace
        return impl.run(main())
    assert same(body)[0] == ["raised", "ValueError"]


@kinds
def test_local_and_remote(impl, kind):
    async def main():
        port = free_port(kind, socket.SOCK_DGRAM)
        with bare(kind) as peer:
            async with endpoint(local_addr=(HOSTS[kind], port), remote_addr=peer.getsockname()[:2]) as (transport, p):
                assert transport.get_extra_info("sockname")[:2] == (HOSTS[kind], port)
                transport.sendto(b"x")
                assert await get(peer) == [b"x"]
    impl.run(main())


def test_family_only(impl):
    async def main():
        with bare() as peer:
            async with endpoint(family=socket.AF_INET) as (transport, p):
                transport.sendto(b"x", peer.getsockname())
                data, address = None, None
                await readable(peer)
                data, address = peer.recvfrom(10)
                assert data == b"x"
                peer.sendto(b"reply", ("127.0.0.1", address[1]))
                await p.wait("datagram_received")
    impl.run(main())


def test_unix(impl):
    async def main():
        with folder() as place:
            ours, theirs = os.path.join(place, "a"), os.path.join(place, "b")
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
                peer.setblocking(False)
                peer.bind(theirs)
                async with endpoint(local_addr=ours, family=socket.AF_UNIX) as (transport, p):
                    assert transport.get_extra_info("sockname") == ours
                    transport.sendto(b"x", theirs)
                    assert await get(peer) == [b"x"]
                    peer.sendto(b"reply", ours)
                    await p.wait("datagram_received")
                    assert p.datagrams == [(b"reply", theirs)]
                async with endpoint(remote_addr=theirs, family=socket.AF_UNIX) as (transport, p):
                    transport.sendto(b"y")
                    transport.sendto(b"z", theirs)
                    assert await get(peer, 2) == [b"y", b"z"]
    impl.run(main())


def test_stale_unix_socket(impl):
    """The file of an earlier endpoint is replaced."""
    async def main():
        with folder() as place:
            path = os.path.join(place, "a")
            for _ in range(2):
                async with endpoint(local_addr=path, family=socket.AF_UNIX):
                    assert os.path.exists(path)
    impl.run(main())


def test_unnamed_unix_pair(impl):
    """asyncio cannot send on it: it takes '' for no address."""
    if not better(impl, "datagram"):
        return

    async def main():
        reports = Reports(asyncio.get_running_loop())
        ours, peer = socket.socketpair(type=socket.SOCK_DGRAM)
        peer.setblocking(False)
        async with endpoint(sock=ours) as (transport, p):
            peer.send(b"x")
            await p.wait("datagram_received")
            transport.sendto(b"y")
            if not transport.is_closing():
                assert await get(peer) == [b"y"]
                assert reports.take() == []
        reports.take()
        peer.close()
    impl.run(main())


def test_what_sendto_refuses():
    def body(impl):
        async def main():
            found = []
            with bare() as peer:
                for thing in (None, "text", 5, [b"x"], object()):
                    async with endpoint(remote_addr=peer.getsockname()[:2]) as (transport, p):
                        found.append(outcome(transport.sendto, thing))
                        found.append(transport.is_closing())
                        transport.close()
                        found.append(outcome(transport.sendto, thing))
            return found
        return impl.run(main())
    found = same(body)
    assert found[0] == ["raised", "TypeError", "data argument must be a bytes-like object, not 'NoneType'"]


@pytest.mark.parametrize("address", [
    "text", 5, (), ("127.0.0.1",), ("127.0.0.1", "x"), ("127.0.0.1", 70000), ("127.0.0.1", -1), ("::1", 5),
    (b"127.0.0.1", 9), ("127.0.0.1", 0), ("", 9), (None, 9), ["127.0.0.1", 9], ("127.0.0.1", 9, 0, 0),
    ("127.0.0.1", 9.5),
], ids=str)
def test_addresses_of_sendto(address):
    """What is no address: an OSError goes to error_received(), anything else is fatal."""
    def body(impl):
        async def main():
            reports = Reports(asyncio.get_running_loop())
            async with endpoint() as (transport, p):
                found = outcome(transport.sendto, b"x", address)
                await io_settled()
                return found, p.trace, [(m, k, e[0]) for m, k, e in reports.take()], transport.is_closing()
        return impl.run(main())
    same(body)


def test_empty_datagrams():
    """Received in any case; sent since 3.13."""
    def body(impl):
        async def main():
            with bare() as peer:
                async with endpoint(remote_addr=peer.getsockname()[:2]) as (transport, p):
                    transport.sendto(b"")
                    transport.sendto(bytearray())
                    transport.sendto(memoryview(b""))
                    transport.sendto(b"end")
                    found = []
                    while b"end" not in found:
                        found += await get(peer)
                    peer.sendto(b"", transport.get_extra_info("sockname"))
                    await p.wait("datagram_received")
                    return found, p.trace
        return impl.run(main())
    assert same(body)[0] == [b""] * (3 if PY >= (3, 13) else 0) + [b"end"]


@pytest.mark.parametrize("size", [1, 1472, 1473, 9000, 65507])
def test_sizes(impl, size):
    async def main():
        data = bytes(i % 251 for i in range(size))
        with bare() as peer:
            async with endpoint(remote_addr=peer.getsockname()[:2]) as (transport, p):
                transport.sendto(data)
                assert await get(peer) == [data]
                peer.sendto(data, transport.get_extra_info("sockname"))
                await p.wait("datagram_received")
                assert p.datagrams[0][0] == data
    impl.run(main())


def test_too_long():
    """An error for error_received(); the endpoint lives on."""
    def body(impl):
        async def main():
            with bare() as peer:
                for connected in (True, False):
                    kwargs = {"remote_addr": peer.getsockname()[:2]} if connected else {}
                    errors = []
                    p = Datagrams({"error_received": lambda p, exc: errors.append((exc.errno, str(exc)))})
                    async with endpoint(p, **kwargs) as (transport, p):
                        transport.sendto(bytes(65508), peer.getsockname())
                        await asyncio.sleep(0)
                        assert p.names() == ["connection_made", "error_received"]
                        transport.sendto(b"x", peer.getsockname())
                        assert await get(peer) == [b"x"]
                return errors, p.trace
        return impl.run(main())
    assert same(body)[0] == [[90, "[Errno 90] Message too long"]]


@kinds
def test_refused(kind):
    """ICMP's answer to a datagram for a port that nobody has."""
    def body(impl):
        async def main():
            errors = []
            p = Datagrams({"error_received": lambda p, exc: errors.append(str(exc))})
            async with endpoint(p, remote_addr=(HOSTS[kind], free_port(kind, socket.SOCK_DGRAM))) as (transport, p):
                transport.sendto(b"x")
                await p.wait("error_received")
                await io_settled()
                assert not transport.is_closing()
                transport.sendto(b"y")
                await p.wait("error_received", 2)
                await io_settled()
                return errors, p.trace
        return impl.run(main())
    assert same(body)[0] == ["[Errno 111] Connection refused"] * 2


def test_refused_when_sending():
    """The error of the datagram before is found by the next sendto()."""
    def body(impl):
        async def main():
            p = Datagrams()
            async with endpoint(p, remote_addr=("127.0.0.1", free_port("tcp4", socket.SOCK_DGRAM))) as (transport, p):
                for _ in range(4):
                    transport.sendto(b"x")
                    await asyncio.sleep(0)
                await io_settled()
                # who finds the error, the next sendto() or the reader, is a matter of luck
                return p.names()[:2], set(p.names())
        return impl.run(main())
    same(body)


@kinds
def test_burst(impl, kind):
    """1000 datagrams of two senders: none is lost while the receiver keeps up, each sender's are in order."""
    async def main():
        with bare(kind) as one, bare(kind) as two:
            async with endpoint(kind=kind) as (transport, p):
                address = transport.get_extra_info("sockname")
                for start in range(0, 1000, 50):
                    for i in range(start, start + 50):
                        (one, two)[i % 2].sendto(b"%d" % i, address)
                    await p.until(lambda: len(p.datagrams) == start + 50)
                for n, sock in enumerate((one, two)):
                    got = [data for data, who in p.datagrams if who == sock.getsockname()]
                    assert got == [b"%d" % i for i in range(n, 1000, 2)]
    impl.run(main())


def test_burst_of_sendto(impl):
    """1000 in one callback, in order; all is with the kernel at the end of the iteration."""
    async def main():
        async with unix_endpoint() as (transport, p, peer):
            got = []
            for i in range(1000):
                transport.sendto(b"%d" % i)
                if i % 5 == 4:
                    got += all_now(peer)
            while len(got) < 1000:
                await io_settled(1)
                got += all_now(peer)
            assert got == [b"%d" % i for i in range(1000)]
    impl.run(main())


def test_sent_at_once(impl):
    """A datagram is with the kernel before the next iteration's callbacks; with asyncio, when sendto() returns."""
    async def main():
        with bare() as peer:
            async with endpoint(remote_addr=peer.getsockname()[:2]) as (transport, p):
                for i in range(10):
                    transport.sendto(b"%d" % i)
                await asyncio.sleep(0)
                assert all_now(peer) == [b"%d" % i for i in range(10)]
                transport.sendto(b"last")
                transport.abort()
                await p.wait("connection_lost")
                assert all_now(peer) == [b"last"]


@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize("how", ["close", "abort"])
def test_sendto_and_end(impl, how, connected):
    """Datagrams sent in the same callback before close() or abort() leave, as with asyncio."""
    async def main():
        with bare() as peer:
            kwargs = {"remote_addr": peer.getsockname()[:2]} if connected else {}
            async with endpoint(**kwargs) as (transport, p):
                for i in range(5):
                    transport.sendto(b"%d" % i, None if connected else peer.getsockname())
                getattr(transport, how)()
                await p.wait("connection_lost")
                await io_settled(1)
                assert all_now(peer) == [b"%d" % i for i in range(5)]
    impl.run(main())


def test_two_endpoints_in_ping_pong(impl):
    async def main():
        b = Datagrams({"datagram_received": lambda p, data, addr: p.transport.sendto(data, addr)})
        async with endpoint(b) as (right, b):
            async with endpoint() as (left, a):
                for i in range(200):
                    left.sendto(b"%d" % i, right.get_extra_info("sockname"))
                    await a.until(lambda: len(a.datagrams) == i + 1)
                assert [data for data, _ in a.datagrams] == [b"%d" % i for i in range(200)]
                assert {addr for _, addr in a.datagrams} == {right.get_extra_info("sockname")}
    impl.run(main())


# Flow control: the queue of a unix datagram socket is short

def test_flow_control():
    def body(impl):
        async def main():
            async with unix_endpoint() as (transport, p, peer):
                transport.set_write_buffer_limits(high=3000, low=1000)
                sizes = []
                count = 0
                while "pause_writing" not in p.names():
                    transport.sendto(b"%04d" % count * 250)
                    await asyncio.sleep(0)
                    count += 1
                    sizes.append(transport.get_write_buffer_size())
                    assert count < 1000
                got = []
                while "resume_writing" not in p.names():
                    got += await get(peer)
                    await io_settled(1)
                while len(got) < count:
                    got += await get(peer)
                await io_settled()
                assert got == [b"%04d" % i * 250 for i in range(count)]
                return p.trace, sizes if PY >= (3, 14) else None, count
        return impl.run(main())
    trace, sizes, count = same(body)
    assert trace[:3] == [["connection_made"], ["pause_writing"], ["resume_writing"]]


def test_buffer_size_returns_to_zero(impl):
    """asyncio 3.13.0 forgets to take off what it counts for the header of each."""
    async def main():
        async with unix_endpoint() as (transport, p, peer):
            count = 0
            while transport.get_write_buffer_size() == 0:
                transport.sendto(bytes(1000))
                count += 1
            for _ in range(3):
                transport.sendto(bytes(1000))
            assert len(await get(peer, count + 3)) == count + 3
            await io_settled()
            if better(impl, "datagram", since=(3, 14)):
                assert transport.get_write_buffer_size() == 0
    impl.run(main())


def test_buffered_data_is_a_copy(impl):
    async def main():
        async with unix_endpoint() as (transport, p, peer):
            data = bytearray(b"original")
            count = 0
            while transport.get_write_buffer_size() == 0:
                transport.sendto(data)
                count += 1
            data[:] = b"changed!"
            data.clear()
            assert set(await get(peer, count)) == {b"original"}
    impl.run(main())


@pytest.mark.parametrize("how", ["close", "abort"])
def test_end_with_buffered_datagrams(how):
    """close() sends what is in the buffer first; abort() drops it."""
    def body(impl):
        async def main():
            async with unix_endpoint() as (transport, p, peer):
                count = 0
                while transport.get_write_buffer_size() == 0:
                    transport.sendto(b"%d" % count)
                    await asyncio.sleep(0)
                    count += 1
                transport.sendto(b"last")
                getattr(transport, how)()
                assert transport.is_closing()
                await io_settled()
                found = [p.lost]
                got = []
                quiet = 0
                while not p.lost or quiet < 3:
                    more = all_now(peer)
                    quiet = 0 if more else quiet + 1
                    got += more
                    await io_settled(1)
                found.append(len(got) - count)
                return found, got[-1:], p.trace
        return impl.run(main())
    found, last, _ = same(body)
    assert found == ([False, 1] if how == "close" else [True, -1])


def test_error_while_flushing():
    """The peer leaves while datagrams wait."""
    def body(impl):
        async def main():
            async with unix_endpoint() as (transport, p, peer):
                while transport.get_write_buffer_size() == 0:
                    transport.sendto(b"x")
                peer.close()
                await io_settled(5)
                return p.trace[:2]
        return impl.run(main())
    assert same(body)[1] == ["error_received", "ConnectionRefusedError"]


# The end

@pytest.mark.parametrize("how", ["close", "abort"])
def test_no_callback_after_the_end(how):
    """Not even for datagrams that are there."""
    def body(impl):
        async def main():
            async with unix_endpoint() as (transport, p, peer):
                peer.send(b"one")
                await p.wait("datagram_received")
                peer.send(b"two")
                peer.send(b"three")
                getattr(transport, how)()
                getattr(transport, how)()
                await p.wait("connection_lost")
                await io_settled()
                return p.trace
        return impl.run(main())
    assert [e[0] for e in same(body)] == ["connection_made", "datagram_received", "connection_lost"]


def test_close_in_datagram_received():
    """The datagrams behind it are dropped, though they came together."""
    def body(impl):
        async def main():
            p = Datagrams({"datagram_received": lambda p, data, addr: p.transport.close()})
            async with unix_endpoint(p) as (transport, p, peer):
                for i in range(5):
                    peer.send(b"%d" % i)
                await p.wait("connection_lost")
                await io_settled()
                return p.trace
        return impl.run(main())
    assert same(body) == [["connection_made"], ["datagram_received", b"0"], ["connection_lost", None]]


@pytest.mark.parametrize("connected", [True, False])
def test_everything_after_close(connected, log):
    def body(impl):
        async def main():
            with bare() as peer:
                kwargs = {"remote_addr": peer.getsockname()[:2]} if connected else {}
                async with endpoint(**kwargs) as (transport, p):
                    transport.close()
                    found = []
                    for moment in ("before", "after"):
                        for call in (
                                lambda: transport.close(), lambda: transport.abort(),
                                lambda: transport.is_closing(), lambda: transport.get_write_buffer_size(),
                                lambda: transport.get_write_buffer_limits(), lambda: transport.is_reading(),
                                lambda: transport.pause_reading(), lambda: transport.resume_reading(),
                                lambda: transport.get_extra_info("x", 3),
                                lambda: type(transport.get_extra_info("socket")),
                                lambda: neutral(repr(transport))):
                            found.append(outcome(call))
                        if connected:
                            for _ in range(8):
                                found.append((outcome(transport.sendto, b"x"), log.messages()))
                        await p.wait("connection_lost")
                        await io_settled()
                    found.append(all_now(peer))
                    return found, p.trace
        return impl.run(main())
    same(body)


def test_sendto_after_close_of_an_unconnected_endpoint(impl):
    """asyncio sends until connection_lost(), and raises then; nothing shall be raised."""
    if not better(impl, "datagram"):
        return

    async def main():
        with bare() as peer:
            async with endpoint() as (transport, p):
                transport.close()
                transport.sendto(b"x", peer.getsockname())
                await p.wait("connection_lost")
                await io_settled()
                for _ in range(3):
                    transport.sendto(b"x", peer.getsockname())
    impl.run(main())


# The transport

def test_transport(impl):
    async def main():
        async with endpoint() as (transport, p):
            if PY >= (3, 12):
                assert isinstance(transport, asyncio.DatagramTransport)
            assert isinstance(transport, asyncio.BaseTransport)
            assert isinstance(transport, asyncio.transports._FlowControlMixin)
            sock = transport.get_extra_info("socket")
            assert type(sock) is asyncio.trsock.TransportSocket
            assert sock.type == socket.SOCK_DGRAM
            assert sock.getsockname() == transport.get_extra_info("sockname")
            assert transport.get_extra_info("peername") is None
            assert transport.get_protocol() is p
            assert transport.get_write_buffer_limits() == (16384, 65536)
            assert transport.is_reading() is True
            transport.foo = 1
            assert transport.foo == 1
            assert f"fd={sock.fileno()}" in repr(transport)
            other = Datagrams()
            transport.set_protocol(other)
            with bare() as peer:
                peer.sendto(b"x", transport.get_extra_info("sockname"))
                await other.wait("datagram_received")
            assert p.names() == ["connection_made"]
            transport.close()
            await other.wait("connection_lost")
            p.lost = True
    impl.run(main())


def test_repr():
    def body(impl):
        async def main():
            async with unix_endpoint() as (transport, p, peer):
                found = [neutral(repr(transport))]
                transport.pause_reading()
                found.append(neutral(repr(transport)))
                while transport.get_write_buffer_size() == 0:
                    transport.sendto(b"x")
                found.append(re.sub(r"bufsize=\d+", "bufsize=N", neutral(repr(transport))))
                transport.abort()
                found.append(neutral(repr(transport)))
                await p.wait("connection_lost")
                await io_settled()
                found.append(neutral(repr(transport)))
                # asyncio forgets to reset the size
                return [re.sub(r"bufsize=\d+", "bufsize=N", text.partition(" ")[2]) for text in found]
        return impl.run(main())
    same(body)


def test_pause_reading():
    def body(impl):
        async def main():
            async with unix_endpoint() as (transport, p, peer):
                transport.pause_reading()
                transport.pause_reading()
                peer.send(b"x")
                await io_settled()
                assert p.datagrams == []
                transport.resume_reading()
                transport.resume_reading()
                await p.wait("datagram_received")
                return p.trace
        return impl.run(main())
    same(body)


def test_order_of_the_start():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            trace = []
            p = Datagrams({"connection_made": lambda p, t: loop.call_soon(trace.append, "soon from made")}, trace)

            def factory():
                trace.append("factory")
                loop.call_soon(trace.append, "soon from factory")
                return p
            ours, peer = datagram_pair()
            peer.send(b"early")
            transport, _ = await loop.create_datagram_endpoint(factory, sock=ours)
            trace.append("returned")
            await io_settled()
            transport.close()
            loop.call_soon(trace.append, "after close")
            await io_settled()
            peer.close()
            return trace
        return impl.run(main())
    assert same(body) == ["factory", "soon from factory", ["connection_made"], "soon from made", "returned",
                          ["datagram_received", b"early"], ["connection_lost", None], "after close"]


def test_unclosed():
    def body(impl):
        loop = impl.new_loop()
        p = Datagrams()
        transport, _ = loop.run_until_complete(
            loop.create_datagram_endpoint(lambda: p, local_addr=("127.0.0.1", 0)))
        loop.close()
        p.transport = None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del transport, loop, _
            gc.collect()
        return [(w.category, str(w.message).startswith("unclosed transport <")) for w in caught]
    assert same(body) == [["ResourceWarning", True]]


var = contextvars.ContextVar("var", default="default")


def test_context_of_callbacks():
    def body(impl):
        async def main():
            seen = []
            names = ["connection_made", "datagram_received", "connection_lost"]

            def look(name):
                def on(p, *args):
                    seen.append((name, var.get()))
                    var.set("set in " + name)
                return on
            p = Datagrams({name: look(name) for name in names})
            var.set("creator")
            ours, peer = datagram_pair()
            async with endpoint(p, sock=ours) as (transport, p):
                var.set("later")
                for _ in range(2):
                    peer.send(b"x")
                    await io_settled()
                peer.close()
                transport.sendto(b"x")
                var.set("end")
                transport.close()
                await p.wait("connection_lost")
            return seen
        return impl.run(main())
    same(body)


# create_datagram_endpoint

def test_errors():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            found = []
            stream = socket.socket()
            datagram = socket.socket(type=socket.SOCK_DGRAM)
            with bare() as busy, stream, datagram:
                port = busy.getsockname()[1]

                async def attempt(**kwargs):
                    try:
                        transport, _ = await loop.create_datagram_endpoint(Datagrams, **kwargs)
                    except Exception as exc:
                        text = plain(str(exc)).partition("<socket")[0].replace(str(port), "PORT")
                        found.append((type(exc).__name__, text))
                    else:
                        found.append("made")
                        transport.abort()
                await attempt()
                await attempt(sock=stream)
                await attempt(sock=datagram, local_addr=("127.0.0.1", 0))
                await attempt(sock=datagram, remote_addr=("127.0.0.1", 1), family=socket.AF_INET, proto=1, flags=1,
                              reuse_port=True, allow_broadcast=True)
                await attempt(local_addr="x")
                await attempt(remote_addr=("127.0.0.1",))
                await attempt(local_addr=("127.0.0.1", port))
                await attempt(local_addr=("127.0.0.1", 0), remote_addr=("::1", 1))
                await attempt(local_addr=("192.0.2.1", 0))
                await attempt(local_addr=("127.0.0.1", 0), family=socket.AF_INET6)
                await attempt(local_addr=5, family=socket.AF_UNIX)
                await attempt(remote_addr="/no/such/socket", family=socket.AF_UNIX)
                await attempt(remote_addr=("255.255.255.255", 9), family=socket.AF_INET)
                await attempt(remote_addr=("127.0.0.1", 70000))
                await attempt(remote_addr=("127.0.0.1", -1))
            await io_settled()
            gc.collect()
            return found
        return impl.run(main())
    same(body)


def test_options():
    def body(impl):
        async def main():
            found = []
            for kwargs in ({}, {"reuse_port": True}, {"reuse_port": False}, {"allow_broadcast": True},
                           {"allow_broadcast": False}):
                async with endpoint(local_addr=("127.0.0.1", 0), **kwargs) as (transport, p):
                    sock = transport.get_extra_info("socket")
                    found.append([bool(sock.getsockopt(socket.SOL_SOCKET, option)) for option in (
                        socket.SO_REUSEADDR, socket.SO_REUSEPORT, socket.SO_BROADCAST)])
                    found.append((sock.gettimeout(), os.get_inheritable(sock.fileno())))
            return found
        return impl.run(main())
    same(body)


def test_given_socket(impl):
    async def main():
        for connected in (True, False):
            sock = socket.socket(type=socket.SOCK_DGRAM)
            sock.bind(("127.0.0.1", 0))
            with bare() as peer:
                if connected:
                    sock.connect(peer.getsockname())
                fd = sock.fileno()
                async with endpoint(sock=sock) as (transport, p):
                    assert transport.get_extra_info("socket").fileno() == fd
                    assert sock.gettimeout() == 0
                    peername = transport.get_extra_info("peername")
                    assert peername == (peer.getsockname() if connected else None)
                    transport.sendto(b"x", None if connected else peer.getsockname())
                    assert await get(peer) == [b"x"]
                    peer.sendto(b"y", sock.getsockname())
                    await p.wait("datagram_received")
                assert sock.fileno() == -1
    impl.run(main())


def test_protocol_factory_raises(impl):
    """The caller gets the exception; a socket that was made for it is not left open."""
    async def main():
        loop = asyncio.get_running_loop()

        def factory():
            raise ValueError("factory")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            with pytest.raises(ValueError, match="factory"):
                await loop.create_datagram_endpoint(factory, local_addr=("127.0.0.1", 0))
            gc.collect()
    impl.run(main())


def test_cancelled(impl):
    """At each iteration: no descriptor is left."""
    async def main():
        loop = asyncio.get_running_loop()
        for rounds in range(8):
            p = Datagrams()
            task = asyncio.create_task(loop.create_datagram_endpoint(lambda: p, local_addr=("127.0.0.1", 0)))
            for _ in range(rounds):
                await asyncio.sleep(0)
            task.cancel()
            try:
                transport, _ = await task
            except asyncio.CancelledError:
                if p.transport is not None and not p.lost:
                    assert p.transport.is_closing()
                    await p.wait("connection_lost")
            else:
                transport.abort()
                await p.wait("connection_lost")
            await io_settled(1)
    impl.run(main())


@pytest.mark.parametrize("debug", [False, True])
def test_debug_message(debug, log):
    def body(impl):
        async def main():
            async with endpoint():
                pass
            with bare() as peer:
                async with endpoint(remote_addr=peer.getsockname()[:2]):
                    pass
        import logging
        logging.getLogger("asyncio").setLevel(logging.DEBUG)
        log.details.clear()
        impl.run(main(), debug=debug)
        return [re.sub(r"\d+", "N", neutral(text).rpartition("(<")[0]) for _, text in log.details
                if text.startswith("Datagram endpoint")]
    assert len(same(body)) == (2 if debug else 0)


def test_flood_does_not_starve_others(impl):
    """A sender without end; timers and another endpoint get their turns."""
    async def main():
        ended = []
        async with endpoint(Datagrams({"datagram_received": lambda p, d, a: p.trace.clear()})) as (transport, flooded):
            address = transport.get_extra_info("sockname")

            def pour():
                with socket.socket(type=socket.SOCK_DGRAM) as sock:
                    while not ended:
                        sock.sendto(b"x" * 100, address)
            thread = Peer(pour)
            async with endpoint() as (quiet, p):
                with bare() as peer:
                    for i in range(30):
                        peer.sendto(b"x", quiet.get_extra_info("sockname"))
                        await p.until(lambda: len(p.datagrams) == i + 1)
                        await asyncio.sleep(0.0005)
            ended.append(1)
            await asyncio.to_thread(thread.finish)
            assert flooded.datagrams
    impl.run(main())
