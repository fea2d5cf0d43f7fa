"""Servers: create_server, create_unix_server, and what is done with a Server."""

import asyncio
import contextlib
import contextvars
import errno
import gc
import os
import pathlib
import re
import resource
import socket
import stat
import warnings

import pytest

from support import PY, outcome, plain, same
from support.net import (
    Buffered, Reports, Stream, better, folder, io_settled, neutral, stream_pair, take, take_all)


def dial(address, family=None):
    """A bare socket connected to a listening one, not blocking."""
    if family is None:
        family = (socket.AF_UNIX if isinstance(address, (str, bytes))
                  else socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    peer = socket.socket(family)
    peer.settimeout(5)
    try:
        peer.connect(address)
    except BaseException:
        peer.close()
        raise
    peer.setblocking(False)
    return peer


@contextlib.asynccontextmanager
async def serving(factory, *args, **kwargs):
    """A server on the loopback, closed at the end."""
    loop = asyncio.get_running_loop()
    if not args and "sock" not in kwargs:
        args = ("127.0.0.1", 0)
    server = await loop.create_server(factory, *args, **kwargs)
    try:
        yield server
    finally:
        server.close()
        await io_settled(2)


def address(server, index=0):
    return server.sockets[index].getsockname()


class Echo(Stream):
    def data_received(self, data):
        super().data_received(data)
        self.transport.write(data)


# create_server

@pytest.mark.parametrize("host, families", [
    ("127.0.0.1", {socket.AF_INET}), ("::1", {socket.AF_INET6}), ("localhost", None),
    (["127.0.0.1", "::1"], {socket.AF_INET, socket.AF_INET6}), (["127.0.0.1", "127.0.0.2"], {socket.AF_INET}),
    (("127.0.0.1", "127.0.0.1"), {socket.AF_INET}), ("", None), (None, None),
], ids=str)
@pytest.mark.parametrize("protocol", [Echo, Buffered])
def test_hosts(host, families, protocol):
    def body(impl):
        async def main():
            protocols = []

            def factory():
                protocols.append(protocol())
                return protocols[-1]
            async with serving(factory, host, 0) as server:
                for sock in server.sockets:
                    found = sock.getsockname()
                    where = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(found[0], found[0])
                    peer = dial((where, found[1]))
                    peer.send(b"hello")
                    if protocol is Echo:
                        assert await take(peer, 5) == b"hello"
                    else:
                        await io_settled()
                        await protocols[-1].until(lambda: protocols[-1].received == b"hello")
                    extra = protocols[-1].transport.get_extra_info
                    assert extra("peername") == peer.getsockname()
                    assert extra("sockname") == peer.getpeername()
                    assert extra("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                    peer.close()
                    await protocols[-1].wait("connection_lost")
                return [(s.family, s.type, s.getsockname()[0], s.gettimeout()) for s in server.sockets], [
                    p.trace for p in protocols]
        return impl.run(main())
    socks, traces = same(body)
    assert len(socks) == len(traces)
    if families:
        assert {s[0] for s in socks} == families


def test_options_of_listening_sockets():
    def body(impl):
        async def main():
            found = []
            for kwargs in ({}, {"reuse_address": True}, {"reuse_address": False}, {"reuse_port": True},
                           {"reuse_port": False}, {"backlog": 1}, {"family": socket.AF_INET}):
                async with serving(Stream, **kwargs) as server:
                    sock = server.sockets[0]
                    found.append((
                        sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR),
                        sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT),
                        sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                        sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN),
                        os.get_inheritable(sock.fileno()), sock.gettimeout()))
            async with serving(Stream, "::1", 0) as server:
                found.append(server.sockets[0].getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
            return found
        return impl.run(main())
    same(body)


@pytest.mark.skipif(PY < (3, 13), reason="new in 3.13")
def test_keep_alive():
    def body(impl):
        async def main():
            found = []
            for value in (True, False, None):
                p = Stream()
                async with serving(lambda: p, keep_alive=value) as server:
                    found.append(bool(server.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)))
                    peer = dial(address(server))
                    await p.wait("connection_made")
                    sock = p.transport.get_extra_info("socket")
                    found.append(bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)))
                    peer.close()
                    await p.wait("connection_lost")
            return found
        return impl.run(main())
    assert same(body) == [True, True, False, False, False, False]


def test_reuse_port():
    """Two servers on one port share the connections."""
    def body(impl):
        async def main():
            protocols = []

            def factory():
                protocols.append(Echo())
                return protocols[-1]
            async with serving(factory, "127.0.0.1", 0, reuse_port=True) as one:
                port = address(one)[1]
                async with serving(factory, "127.0.0.1", port, reuse_port=True):
                    for _ in range(5):
                        peer = dial(("127.0.0.1", port))
                        peer.send(b"x")
                        assert await take(peer, 1) == b"x"
                        peer.close()
                    await io_settled()
                    return len(protocols)
        return impl.run(main())
    assert same(body) == 5


def test_errors_of_create_server():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            found = []
            busy = socket.socket()
            busy.bind(("127.0.0.1", 0))
            busy.listen()
            port = busy.getsockname()[1]
            datagram = socket.socket(type=socket.SOCK_DGRAM)
            unbound = socket.socket()
            a, b = socket.socketpair()
            before = set(os.listdir("/proc/self/fd"))

            async def attempt(*args, **kwargs):
                try:
                    server = await loop.create_server(Stream, *args, **kwargs)
                except Exception as exc:
                    text = plain(str(exc)).replace(str(port), "PORT")
                    text = re.sub(r"fd=\d+|laddr=\S+ \d+\)", "", text)
                    found.append((type(exc).__name__, text, getattr(exc, "errno", None)))
                else:
                    found.append(len(server.sockets))
                    server.close()
            await attempt()
            await attempt("127.0.0.1", 0, sock=unbound)
            await attempt("127.0.0.1", port)
            await attempt(["127.0.0.1", "127.0.0.2"], port)
            await attempt("192.0.2.1", 0)
            await attempt("127.0.0.1", 65536, family=socket.AF_INET)
            await attempt("127.0.0.1", -1)
            await attempt("no such host.invalid", 0, flags=socket.AI_NUMERICHOST)
            await attempt(sock=datagram)
            await attempt(sock=a)
            await attempt("127.0.0.1", 0, ssl=True)
            await attempt("127.0.0.1", 0, ssl_handshake_timeout=1)
            await attempt("127.0.0.1", 0, ssl_shutdown_timeout=1)
            await attempt(5, 0)
            await attempt("127.0.0.1", "x")
            await attempt("127.0.0.1", 0, no_such_option=1)
            # a closed listening socket remains until it is collected
            gc.collect()
            await io_settled()
            for sock in (busy, datagram, unbound, a, b):
                sock.close()
            return found, len(before) > 0
        return impl.run(main())
    same(body)


def test_no_socket_is_left_by_a_failure(impl):
    async def main():
        loop = asyncio.get_running_loop()
        with socket.socket() as busy:
            busy.bind(("127.0.0.2", 0))
            busy.listen()
            port = busy.getsockname()[1]
            before = len(os.listdir("/proc/self/fd"))
            with pytest.raises(OSError) as info:
                await loop.create_server(Stream, ["127.0.0.1", "127.0.0.2"], port)
            assert info.value.errno == errno.EADDRINUSE
            assert "error while attempting to bind on address" in str(info.value)
            del info
            assert len(os.listdir("/proc/self/fd")) == before
    impl.run(main())


def test_sock_argument():
    """Bound, bound and listening, or neither; it becomes non-blocking."""
    def body(impl):
        async def main():
            found = []
            for prepare in ("bound", "listening", "neither"):
                sock = socket.socket()
                if prepare != "neither":
                    sock.bind(("127.0.0.1", 0))
                if prepare == "listening":
                    sock.listen(5)
                async with serving(Echo, sock=sock) as server:
                    assert sock.gettimeout() == 0
                    assert server.sockets[0].fileno() == sock.fileno()
                    where = address(server)
                    peer = dial(("127.0.0.1", where[1]))
                    peer.send(b"x")
                    found.append(await take(peer, 1))
                    peer.close()
                found.append(sock.fileno())
            return found
        return impl.run(main())
    assert same(body) == [b"x", -1] * 3


def test_connections_made_before_serving():
    """They wait in the backlog."""
    def body(impl):
        async def main():
            protocols = []

            def factory():
                protocols.append(Echo())
                return protocols[-1]
            with socket.socket() as sock:
                sock.bind(("127.0.0.1", 0))
                sock.listen(10)
                peers = [dial(sock.getsockname()) for _ in range(5)]
                for i, peer in enumerate(peers):
                    peer.send(b"%d" % i)
                async with serving(factory, sock=sock):
                    got = [await take(peer, 1) for peer in peers]
                    names = [p.transport.get_extra_info("peername") for p in protocols]
                    assert names == [peer.getsockname() for peer in peers]
                    for peer in peers:
                        peer.close()
                    await io_settled()
                    return got, [p.trace for p in protocols]
        return impl.run(main())
    same(body)


@pytest.mark.parametrize("backlog", [0, 1, 2, 100])
def test_connections_in_order(backlog):
    """More than the backlog in one go: each is served, in the order in which they came."""
    def body(impl):
        async def main():
            order = []

            class P(asyncio.Protocol):
                def connection_made(self, transport):
                    order.append(transport.get_extra_info("peername"))
                    transport.close()
            async with serving(P, backlog=backlog) as server:
                expected = []
                for burst in (1, min(backlog, 2) or 1, 1) if backlog < 5 else (20, 1, 30):
                    peers = [dial(address(server)) for _ in range(burst)]
                    for peer in peers:
                        assert await take_all(peer) == b""
                        expected.append(peer.getsockname())
                        peer.close()
                return order == expected, len(order)
        if backlog == 0 and not better(impl, since=(3, 14)):
            return [True, 3]  # range(backlog): older asyncio accepts nobody
        return impl.run(main())
    assert same(body)[0]


# The life of a server

def test_start_serving():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            p = Stream()
            server = await loop.create_server(lambda: p, "127.0.0.1", 0, start_serving=False)
            found = [server.is_serving(), len(server.sockets), server.get_loop() is loop]
            with pytest.raises(ConnectionRefusedError):
                dial(address(server))
            await server.start_serving()
            await server.start_serving()
            found.append(server.is_serving())
            peer = dial(address(server))
            await p.wait("connection_made")
            server.close()
            found += [server.is_serving(), server.sockets]
            server.close()
            try:
                await server.start_serving()
            except Exception as exc:
                found.append(type(exc).__name__)
            peer.close()
            await p.wait("connection_lost")
            async with asyncio.timeout(5):
                await server.wait_closed()
            await io_settled()
            return found
        return impl.run(main())
    same(body)


def test_serve_forever():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            p = Stream()
            server = await loop.create_server(lambda: p, "127.0.0.1", 0, start_serving=False)
            task = asyncio.create_task(server.serve_forever())
            await io_settled()
            found = [server.is_serving()]
            try:
                await server.serve_forever()
            except RuntimeError as exc:
                found.append(plain(str(exc))[:20])
            peer = dial(address(server))
            await p.wait("connection_made")
            if PY < (3, 14):
                peer.close()
                await p.wait("connection_lost")
            task.cancel()
            try:
                async with asyncio.timeout(5):
                    await task
            except asyncio.CancelledError:
                found.append("cancelled")
            peer.close()
            found += [server.is_serving(), server.sockets, p.trace]
            try:
                await server.serve_forever()
            except RuntimeError as exc:
                found.append("closed" in str(exc))
            return found
        return impl.run(main())
    same(body)


def test_close_ends_serve_forever():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            server = await loop.create_server(Stream, "127.0.0.1", 0)
            task = asyncio.create_task(server.serve_forever())
            await io_settled()
            server.close()
            try:
                await task
            except asyncio.CancelledError:
                return "cancelled", server.is_serving()
        return impl.run(main())
    assert same(body) == ["cancelled", False]


def test_async_with():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            async with await loop.create_server(Stream, "127.0.0.1", 0) as server:
                assert server.is_serving()
            return server.is_serving(), server.sockets
        return impl.run(main())
    assert same(body) == [False, []]


@pytest.mark.parametrize("order", ["wait, close, leave", "close, wait, leave", "leave, close, wait",
                                   "wait, leave, close"])
def test_wait_closed(order):
    """When it returns differs from release to release, and is that of the Python at hand."""
    def body(impl):
        async def main():
            p = Stream()
            async with serving(lambda: p) as server:
                peer = dial(address(server))
                await p.wait("connection_made")
                task = None
                found = []
                for step in order.split(", "):
                    if step == "wait":
                        task = asyncio.create_task(server.wait_closed())
                    elif step == "close":
                        server.close()
                    else:
                        peer.close()
                        await p.wait("connection_lost")
                    await io_settled()
                    found.append((step, task and task.done(), server.is_serving()))
                peer.close()
                async with asyncio.timeout(5):
                    await task
                await server.wait_closed()
                return found
        return impl.run(main())
    same(body)


def test_wait_closed_without_clients():
    def body(impl):
        async def main():
            async with serving(Stream) as server:
                task = asyncio.create_task(server.wait_closed())
                await io_settled()
                found = [task.done()]
                server.close()
                await io_settled()
                found.append(task.done())
                await task
                return found
        return impl.run(main())
    same(body)


@pytest.mark.skipif(PY < (3, 13), reason="new in 3.13")
@pytest.mark.parametrize("how", ["close_clients", "abort_clients"])
def test_clients(how):
    def body(impl):
        async def main():
            protocols = []

            def factory():
                protocols.append(Stream())
                return protocols[-1]
            async with serving(factory) as server:
                peers = [dial(address(server)) for _ in range(3)]
                await io_settled()
                protocols[0].transport.write(bytes(1 << 23))
                server.close()
                await io_settled()
                assert [p.lost for p in protocols] == [False] * 3
                assert getattr(server, how)() is None
                await io_settled()
                found = [p.lost for p in protocols]
                got = [len(await take_all(peer)) for peer in peers]
                async with asyncio.timeout(5):
                    await server.wait_closed()
                for peer in peers:
                    peer.close()
                return found, got[1:], got[0] == 1 << 23, [p.trace for p in protocols]
        return impl.run(main())
    found = same(body)
    assert found[0] == [how == "abort_clients", True, True]
    assert found[2] is (how == "close_clients")


@pytest.mark.skipif(PY < (3, 13), reason="new in 3.13")
def test_dropped_clients_are_not_waited_for(impl):
    """A server holds its transports weakly."""
    async def main():
        loop = asyncio.get_running_loop()
        import weakref
        protocols = []

        def factory():
            protocols.append(Stream({"connection_made": lambda p, t: t.pause_reading()}))
            return protocols[-1]
        server = await loop.create_server(factory, "127.0.0.1", 0)
        peer = dial(address(server))
        await io_settled()
        ref = weakref.ref(protocols[0].transport)
        server.close()
        task = asyncio.create_task(server.wait_closed())
        await io_settled()
        assert not task.done()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            protocols.pop().transport = None
            gc.collect()
        async with asyncio.timeout(5):
            await task
        gc.collect()
        assert ref() is None
        assert await take_all(peer) == b""
        peer.close()
    impl.run(main())


def test_sockets_attribute():
    def body(impl):
        async def main():
            async with serving(Stream, ["127.0.0.1", "127.0.0.2"], 0) as server:
                found = [type(server.sockets), [type(s) for s in server.sockets],
                         server.sockets is server.sockets]
                text = repr(server)
                found.append(text.startswith("<Server sockets=(<asyncio.TransportSocket fd="))
                for sock in server.sockets:
                    found.append(outcome(lambda: sock.setblocking(True)))
                    found.append(outcome(lambda: sock.getsockname()[0]))
                assert isinstance(server, asyncio.AbstractServer)
                assert isinstance(server, asyncio.base_events.Server)
            found.append(repr(server))
            return found
        return impl.run(main())
    same(body)


def test_close_of_a_server_leaves_its_connections(impl):
    async def main():
        p = Echo()
        async with serving(lambda: p) as server:
            peer = dial(address(server))
            await p.wait("connection_made")
            where = address(server)
            server.close()
            with pytest.raises(ConnectionRefusedError):
                dial(where)
            peer.send(b"still")
            assert await take(peer, 5) == b"still"
            peer.close()
            await p.wait("connection_lost")
    impl.run(main())


def test_server_closed_in_connection_made():
    """Other connections that were accepted at the same time are still served."""
    def body(impl):
        async def main():
            reports = Reports(asyncio.get_running_loop())
            protocols = []

            def factory():
                protocols.append(Stream({"connection_made": lambda p, t: server.close()}))
                return protocols[-1]
            async with serving(factory) as server:
                peers = [dial(address(server)) for _ in range(3)]
                await io_settled()
                for peer in peers:
                    peer.close()
                await io_settled()
                return [p.trace for p in protocols], reports.take()
        return impl.run(main())
    traces, reports = same(body)
    assert reports == []
    assert len(traces) == 3


def test_server_closed_in_the_factory(impl):
    """The connection that is being made finds its server closed: asyncio fails an assertion."""
    if not better(impl):
        return

    async def main():
        reports = Reports(asyncio.get_running_loop())
        protocols = []

        def factory():
            server.close()
            protocols.append(Stream())
            return protocols[-1]
        async with serving(factory) as server:
            peer = dial(address(server))
            await io_settled()
            peer.close()
            await io_settled()
            gc.collect()
        (p,) = protocols
        assert p.names().count("connection_made") == p.names().count("connection_lost")
        assert reports.take() == []
    impl.run(main())


class Odd(BaseException):
    pass


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("exc", [ValueError, OSError, asyncio.CancelledError, Odd, GeneratorExit])
def test_protocol_factory_raises(exc, debug, log):
    """Silent, unless in debug mode; the server goes on. asyncio leaves the socket to the collector."""
    def body(impl):
        async def main():
            reports = Reports(asyncio.get_running_loop())
            protocols = []

            def factory():
                if not protocols:
                    protocols.append(None)
                    raise exc("factory")
                protocols.append(Echo())
                return protocols[-1]
            async with serving(factory) as server:
                peer = dial(address(server))
                await io_settled()
                gc.collect()
                second = dial(address(server))
                second.send(b"x")
                assert await take(second, 1) == b"x"
                second.close()
                await io_settled()
                gone = await take_all(peer)
                peer.close()
                return reports.take(), gone
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            found = impl.run(main(), debug=debug)
            gc.collect()
            return found
    reports, gone = same(body)
    assert gone == b""
    if debug:
        ((message, keys, _),) = reports
        assert message == "Error on transport creation for incoming connection"
        assert keys == ["exception", "message"]
    else:
        assert reports == []


def test_protocol_factory_raises_closes_the_socket(impl):
    """At once, and without a warning; asyncio leaves that to the collector."""
    if not better(impl):
        return

    async def main():
        def factory():
            raise ValueError("factory")
        async with serving(factory) as server:
            peer = dial(address(server))
            assert await take_all(peer) == b""
            peer.close()
    impl.run(main())


@pytest.mark.parametrize("result", [None, 5, object()], ids=["None", "int", "object"])
def test_protocol_factory_returns_nonsense(result, log):
    def body(impl):
        async def main():
            reports = Reports(asyncio.get_running_loop())
            async with serving(lambda: result) as server:
                peer = dial(address(server))
                await io_settled()
                peer.close()
                await io_settled()
                return reports.take()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            found = [impl.run(main(), debug=debug) for debug in (False, True)]
            gc.collect()
            return found
    same(body)


@pytest.mark.parametrize("exc", [KeyboardInterrupt, SystemExit])
def test_protocol_factory_interrupts(exc):
    def body(impl):
        left = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            loop = impl.new_loop()
            loop.set_exception_handler(lambda loop, context: None)

            def factory():
                raise exc
            server = loop.run_until_complete(loop.create_server(factory, "127.0.0.1", 0))
            peer = dial(address(server))
            try:
                loop.run_until_complete(io_settled())
            except BaseException as found:
                left.append(type(found).__name__)
            loop.run_until_complete(io_settled())
            server.close()
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(io_settled())
            loop.close()
            peer.close()
            del loop, server
            gc.collect()
        return left
    assert same(body) == [exc.__name__]


def test_out_of_descriptors(impl, log):
    """EMFILE: reported, not more often than the back-off allows, and served when there are some again."""
    async def main():
        reports = Reports(asyncio.get_running_loop())
        p = Echo()
        async with serving(lambda: p, backlog=10) as server:
            peer = socket.socket()
            peer.setblocking(False)
            await asyncio.sleep(0.001)  # what a loop needs for its first sleep, it has now
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            used = max(int(fd) for fd in os.listdir("/proc/self/fd"))
            r, w = os.pipe()
            hogs = []
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + 10, hard))
            try:
                with contextlib.suppress(OSError):
                    while True:
                        hogs.append(os.dup(r))
                peer.connect_ex(address(server))
                rung = asyncio.Event()
                asyncio.get_running_loop().call_later(0.01, rung.set)
                await rung.wait()
            finally:
                for fd in hogs:
                    os.close(fd)
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                os.close(r)
                os.close(w)
            found = reports.take()
            assert found
            assert found[0][:2] == ("socket.accept() out of system resource", ["exception", "message", "socket"])
            if better(impl):
                assert len(found) == 1
            peer.send(b"x")
            assert await take(peer, 1) == b"x"  # after ACCEPT_RETRY_DELAY, a second
            peer.close()
            await p.wait("connection_lost")
    impl.run(main())


# connect_accepted_socket

@pytest.mark.parametrize("kind", ["tcp4", "tcp6", "unix"])
def test_connect_accepted_socket(kind):
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            ours, peer = stream_pair(kind)
            ours.setblocking(True)
            p = Echo()
            transport, protocol = await loop.connect_accepted_socket(lambda: p, ours)
            assert protocol is p and p.transport is transport
            assert ours.gettimeout() == 0
            assert transport.get_extra_info("socket").fileno() == ours.fileno()
            peer.send(b"x")
            assert await take(peer, 1) == b"x"
            peer.close()
            await p.wait("connection_lost")
            await io_settled()
            return p.trace, ours.fileno()
        return impl.run(main())
    same(body)


def test_errors_of_connect_accepted_socket():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            found = []
            a, b = socket.socketpair()
            datagram = socket.socket(type=socket.SOCK_DGRAM)

            async def attempt(*args, **kwargs):
                try:
                    transport, _ = await loop.connect_accepted_socket(*args, **kwargs)
                    found.append("connected")
                    transport.abort()
                except BaseException as exc:
                    found.append((type(exc).__name__, plain(str(exc)).partition("<socket")[0]))
            await attempt(Stream, datagram)
            await attempt(Stream, a, ssl_handshake_timeout=1)
            await attempt(Stream, a, ssl_shutdown_timeout=1)
            await attempt(Stream)
            await attempt(Stream, None)
            datagram.close()

            def factory():
                raise ValueError("factory")
            await attempt(factory, a)
            found.append(a.fileno() == -1 if PY >= (3, 14) else "who knows")
            a.close()
            b.close()
            return found
        return impl.run(main())
    found = same(body)
    assert found[-2][0] == "ValueError"
    if PY >= (3, 14):
        assert found[-1] is True


def test_socket_that_has_a_transport():
    """A second transport for the same socket is refused (3.12 and newer)."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            ours, peer = stream_pair()
            p = Stream()
            transport, _ = await loop.connect_accepted_socket(lambda: p, ours)
            found = []
            # 3.14 closes the socket then
            try:
                await loop.connect_accepted_socket(Stream, ours.dup() if PY < (3, 12) else ours)
            except RuntimeError as exc:
                found.append(neutral(exc).partition("<socket")[0])
            else:
                return []
            transport.abort()
            with contextlib.suppress(OSError):
                await io_settled()
            ours.close()
            peer.close()
            return found
        if PY < (3, 12):
            return []
        return impl.run(main())
    same(body)


# Unix servers

def test_unix_server_paths():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            found = []
            with folder() as place:
                path = os.path.join(place, "s")
                for form in (path, pathlib.Path(path), path.encode(), f"\0fastloop-{os.getpid()}",
                             f"\0fastloop-{os.getpid()}".encode()):
                    p = Echo()
                    server = await loop.create_unix_server(lambda: p, form)
                    name = address(server)
                    mode = stat.S_ISSOCK(os.stat(path).st_mode) if os.path.exists(path) else None
                    peer = dial(name)
                    peer.send(b"x")
                    assert await take(peer, 1) == b"x"
                    peername = p.transport.get_extra_info("peername")
                    sockname = p.transport.get_extra_info("sockname") == name
                    peer.close()
                    await p.wait("connection_lost")
                    server.close()
                    await io_settled()
                    found.append((type(name), mode, peername, sockname, os.path.exists(path)))
                return found
        return impl.run(main())
    found = same(body)
    assert found[0] == ["str", True, "", True, PY < (3, 13)]


@pytest.mark.skipif(PY < (3, 13), reason="new in 3.13")
def test_cleanup_socket():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            found = []
            with folder() as place:
                path = os.path.join(place, "s")
                server = await loop.create_unix_server(Stream, path, cleanup_socket=False)
                server.close()
                found.append(os.path.exists(path))
                # a stale socket is replaced
                server = await loop.create_unix_server(Stream, path, cleanup_socket=True)
                server.close()
                found.append(os.path.exists(path))
                # somebody has removed it
                server = await loop.create_unix_server(Stream, path)
                os.unlink(path)
                server.close()
                # somebody has put his own there
                server = await loop.create_unix_server(Stream, path)
                os.unlink(path)
                with open(path, "w"):
                    pass
                server.close()
                found.append(os.path.exists(path))
                os.unlink(path)
                # a given socket
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.bind(path)
                    server = await loop.create_unix_server(Stream, sock=sock)
                    server.close()
                found.append(os.path.exists(path))
            await io_settled()
            return found
        return impl.run(main())
    assert same(body) == [True, False, True, False]


def test_stale_sockets_and_files():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            found = []
            with folder() as place:
                path = os.path.join(place, "s")
                with socket.socket(socket.AF_UNIX) as stale:
                    stale.bind(path)
                server = await loop.create_unix_server(Stream, path)
                dial(path).close()
                await io_settled()
                server.close()
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                for make in (lambda: open(path, "w").close(), lambda: os.mkdir(path)):
                    make()
                    try:
                        await loop.create_unix_server(Stream, path)
                    except OSError as exc:
                        found.append((type(exc).__name__, exc.errno, str(exc).replace(path, "PATH")))
                    os.rmdir(path) if os.path.isdir(path) else os.unlink(path)
                for wrong in (os.path.join(place, "no", "s"), os.path.join(place, "x" * 200)):
                    try:
                        await loop.create_unix_server(Stream, wrong)
                    except OSError as exc:
                        found.append((type(exc).__name__, str(exc)))
                await io_settled()
                return found
        return impl.run(main())
    same(body)


def test_errors_of_create_unix_server():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            found = []
            tcp = socket.socket()
            datagram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            unix = socket.socket(socket.AF_UNIX)

            async def attempt(*args, **kwargs):
                try:
                    server = await loop.create_unix_server(Stream, *args, **kwargs)
                    found.append("serving")
                    server.close()
                except Exception as exc:
                    found.append((type(exc).__name__, str(exc).partition("<socket")[0]))
            await attempt()
            await attempt("/tmp/x", sock=unix)
            await attempt(sock=tcp)
            await attempt(sock=datagram)
            await attempt("/tmp/x", ssl=True)
            await attempt("/tmp/x", ssl_handshake_timeout=1)
            await attempt("/tmp/x", ssl_shutdown_timeout=1)
            await attempt(5)
            await attempt(None)
            for sock in (tcp, datagram, unix):
                sock.close()
            await io_settled()
            return found
        return impl.run(main())
    same(body)


def test_unix_server_with_a_socket():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            with folder() as place:
                path = os.path.join(place, "s")
                sock = socket.socket(socket.AF_UNIX)
                sock.bind(path)
                p = Echo()
                server = await loop.create_unix_server(lambda: p, sock=sock, start_serving=False)
                found = [server.is_serving()]
                await server.start_serving()
                peer = dial(path)
                peer.send(b"x")
                assert await take(peer, 1) == b"x"
                peer.close()
                await p.wait("connection_lost")
                server.close()
                await io_settled()
                return found, sock.fileno()
        return impl.run(main())
    same(body)


# Contexts

var = contextvars.ContextVar("var", default="default")


@pytest.mark.parametrize("kind", ["server", "client", "accepted"])
def test_context_of_callbacks(kind):
    """Which values the callbacks see, and whether what they set is seen by later ones: as the Python at hand does."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            seen = []

            def look(name):
                def on(p, *args):
                    seen.append((name, var.get()))
                    var.set(f"set in {name}")
                return on
            names = ["connection_made", "data_received", "pause_writing", "resume_writing", "eof_received",
                     "connection_lost"]
            p = Stream({name: look(name) for name in names})

            def factory():
                seen.append(("factory", var.get()))
                var.set("set in factory")
                return p
            var.set("creator")
            server = None
            if kind == "server":
                async with serving(factory) as server:
                    var.set("after creation")
                    peer = dial(address(server))
                    await p.wait("connection_made")
            elif kind == "client":
                with socket.socket() as listener:
                    listener.bind(("127.0.0.1", 0))
                    listener.listen()
                    var.set("after creation")
                    await loop.create_connection(factory, *listener.getsockname())
                    peer, _ = listener.accept()
                    peer.setblocking(False)
            else:
                ours, peer = stream_pair()
                var.set("after creation")
                await loop.connect_accepted_socket(factory, ours)
            seen.append(("returned", var.get()))
            await io_settled()
            var.set("main")
            peer.send(b"one")
            await io_settled()
            peer.send(b"two")
            await io_settled()
            var.set("write")
            p.transport.write(bytes(1 << 23))
            seen.append(("wrote", var.get()))
            await take(peer, 1 << 23)
            await io_settled()
            var.set("end")
            peer.close()
            await p.wait("connection_lost")
            await io_settled()
            return seen
        return impl.run(main())
    same(body)


def test_context_of_two_connections():
    """3.15 copies the server's context for each connection; before that, they are all copies of the creator's."""
    def body(impl):
        async def main():
            seen = []

            class P(asyncio.Protocol):
                def connection_made(self, transport):
                    seen.append(("made", var.get()))
                    var.set("connection %d" % len(seen))
                    self.transport = transport

                def data_received(self, data):
                    seen.append(("data", var.get()))
                    var.set("data %d" % len(seen))

                def connection_lost(self, exc):
                    seen.append(("lost", var.get()))
            var.set("creator")
            async with serving(P) as server:
                var.set("later")
                peers = []
                for _ in range(2):
                    peers.append(dial(address(server)))
                    await io_settled()
                for peer in peers + peers:
                    peer.send(b"x")
                    await io_settled()
                for peer in peers:
                    peer.close()
                    await io_settled()
                return seen
        return impl.run(main())
    same(body)


def test_context_of_paused_reading():
    """Which context a reader has after resume_reading()."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            seen = []
            ours, peer = stream_pair()
            p = Stream({"data_received": lambda p, data: seen.append(var.get()),
                        "connection_lost": lambda p, exc: seen.append(var.get())})
            var.set("creator")
            transport, _ = await loop.connect_accepted_socket(lambda: p, ours)
            var.set("paused")
            transport.pause_reading()
            var.set("resumed")
            transport.resume_reading()
            var.set("sent")
            peer.send(b"x")
            await io_settled()
            var.set("closed")
            transport.close()
            var.set("end")
            await io_settled()
            peer.close()
            return seen
        return impl.run(main())
    same(body)


# Load

def test_many_connections(impl):
    async def main():
        protocols = []

        def factory():
            protocols.append(Echo())
            return protocols[-1]
        async with serving(factory, backlog=200) as server:
            peers = [dial(address(server)) for _ in range(150)]
            for i, peer in enumerate(peers):
                peer.send(b"%d" % i)
            for i, peer in enumerate(peers):
                assert await take(peer, len(b"%d" % i)) == b"%d" % i
            for peer in peers:
                peer.close()
            while not all(p.lost for p in protocols):
                await io_settled(1)
            assert len(protocols) == 150
    impl.run(main())


def test_connections_that_are_reset_before_they_are_accepted(impl):
    async def main():
        reports = Reports(asyncio.get_running_loop())
        protocols = []

        def factory():
            protocols.append(Echo())
            return protocols[-1]
        async with serving(factory) as server:
            for _ in range(20):
                peer = dial(address(server))
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                peer.close()
            last = dial(address(server))
            last.send(b"x")
            assert await take(last, 1) == b"x"
            last.close()
            while not all(p.lost for p in protocols if p.transport):
                await io_settled(1)
            await io_settled()
        assert reports.take() == []
        for p in protocols:
            assert p.names().count("connection_made") == p.names().count("connection_lost")
    impl.run(main())


def test_names_of_tasks_do_not_matter(impl):
    """No task is left behind by a connection."""
    async def main():
        p = Stream()
        async with serving(lambda: p) as server:
            before = asyncio.all_tasks()
            peer = dial(address(server))
            await p.wait("connection_made")
            await io_settled()
            assert asyncio.all_tasks() == before
            peer.close()
            await p.wait("connection_lost")
    impl.run(main())


def test_debug_messages(log):
    """The accepted connection is logged."""
    def body(impl):
        async def main():
            p = Stream()
            async with serving(lambda: p) as server:
                peer = dial(address(server))
                await p.wait("connection_made")
                peer.close()
                await p.wait("connection_lost")
        import logging
        logging.getLogger("asyncio").setLevel(logging.DEBUG)
        log.details.clear()
        impl.run(main(), debug=True)
        return [text.partition("> got a new connection from ")[0][:15] for _, text in log.details
                if "got a new connection from" in text]
    assert same(body) == ["<Server sockets"]
