"""Connections that the loop opens, and asyncio's streams on top of them."""

import asyncio
import contextlib
import gc
import os
import pathlib
import socket
import warnings
import weakref

import pytest

from support import PY, plain, same
from support.net import (
    FAMILIES, HOSTS, LIMIT, Buffered, Reports, Stream, better, connected, folder, free_port, io_settled, reset,
    stream_pair, take, take_all)

kinds = pytest.mark.parametrize("kind", ["tcp4", "tcp6"])


@contextlib.contextmanager
def listening(kind="tcp4", backlog=20):
    """A bare listening socket."""
    with socket.socket(FAMILIES[kind]) as sock:
        sock.bind((HOSTS[kind], 0))
        sock.listen(backlog)
        sock.setblocking(False)
        yield sock


def accepted(sock):
    peer, _ = sock.accept()
    peer.setblocking(False)
    return peer


def neutral_port(exc, *ports):
    text = plain(str(exc))
    for port in ports:
        text = text.replace(str(port), "PORT")
    return type(exc).__name__, text, getattr(exc, "errno", None)


# create_connection

@kinds
@pytest.mark.parametrize("protocol", [Stream, Buffered])
def test_create_connection(kind, protocol):
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            with listening(kind) as server:
                p = protocol()
                transport, found = await loop.create_connection(lambda: p, *server.getsockname()[:2])
                assert found is p and p.transport is transport
                peer = accepted(server)
                assert transport.get_extra_info("peername") == server.getsockname()
                assert transport.get_extra_info("sockname") == peer.getpeername()
                sock = transport.get_extra_info("socket")
                nodelay = bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
                transport.write(b"hello")
                assert await take(peer, 5) == b"hello"
                peer.send(b"reply")
                peer.close()
                await p.wait("connection_lost")
                return p.trace, nodelay, os.get_inheritable(sock.fileno()) if sock.fileno() > 0 else None
        return impl.run(main())
    assert same(body)[1] is True


@pytest.mark.parametrize("kwargs", [{}, {"family": socket.AF_INET}, {"happy_eyeballs_delay": 0.01},
                                    {"happy_eyeballs_delay": 0.01, "interleave": 2}, {"interleave": 1},
                                    {"proto": socket.IPPROTO_TCP}, {"flags": socket.AI_NUMERICSERV}], ids=str)
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", b"127.0.0.1", "127.1"], ids=str)
def test_by_name(host, kwargs):
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            with listening() as server:
                port = server.getsockname()[1]
                p = Stream()
                try:
                    transport, _ = await loop.create_connection(lambda: p, host, port, **kwargs)
                except Exception as exc:
                    return neutral_port(exc, port)
                accepted(server).close()
                await p.wait("connection_lost")
                return transport.get_extra_info("peername")[0]
        return impl.run(main())
    assert same(body) == "127.0.0.1"


def test_refused():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            port = free_port()
            found = []
            for host, kwargs in (("127.0.0.1", {}), ("::1", {}), ("127.0.0.1", {"happy_eyeballs_delay": 0.01}),
                                 ("127.0.0.1", {"local_addr": ("127.0.0.1", 0)})):
                try:
                    await loop.create_connection(Stream, host, port, **kwargs)
                except OSError as exc:
                    found.append(neutral_port(exc, port))
            return found
        return impl.run(main())
    assert same(body)[0] == ["ConnectionRefusedError", "[Errno 111] Connect call failed ('127.0.0.1', PORT)", 111]


def info(kind, port, host=None):
    host = host or HOSTS[kind]
    return (FAMILIES[kind], socket.SOCK_STREAM, socket.IPPROTO_TCP, "",
            (host, port) if kind == "tcp4" else (host, port, 0, 0))


class Resolving:
    """A loop class whose getaddrinfo() gives what the test wants."""

    @staticmethod
    def make(impl, infos):
        class Loop(impl.Loop):
            async def getaddrinfo(self, host, port, **kwargs):
                return infos(port)
        return Loop()


@pytest.mark.parametrize("kwargs", [{}, {"happy_eyeballs_delay": 0.005}, {"all_errors": True},
                                    {"happy_eyeballs_delay": 0.005, "all_errors": True}], ids=str)
def test_all_refused(kwargs):
    """One error, or a list of them in one text, or a group."""
    if "all_errors" in kwargs and PY < (3, 12):
        pytest.skip("new in 3.12")

    def body(impl):
        found = []
        port, other = free_port(), free_port("tcp6")
        for infos in ([info("tcp4", port)], [info("tcp4", port), info("tcp6", other)],
                      [info("tcp4", port)] * 2, [info("tcp4", port, "127.0.0.2"), info("tcp4", port)]):
            loop = Resolving.make(impl, lambda port: infos)
            try:
                loop.run_until_complete(loop.create_connection(Stream, "name", 1, **kwargs))
            except Exception as exc:
                found.append(neutral_port(exc, port, other))
                if isinstance(exc, ExceptionGroup):
                    found.append([neutral_port(e, port, other) for e in exc.exceptions])
            finally:
                loop.close()
        return found
    same(body)


@pytest.mark.parametrize("delay", [None, 0.005, 10])
def test_second_address_works(delay):
    """The first is refused: the next one is tried at once, whatever the delay."""
    def body(impl):
        with listening() as server:
            port = free_port()
            loop = Resolving.make(impl, lambda p: [info("tcp4", port), info("tcp6", port),
                                                   info("tcp4", server.getsockname()[1])])
            p = Stream()
            transport, _ = loop.run_until_complete(asyncio.wait_for(
                _connect(loop, lambda: p, "name", 1, happy_eyeballs_delay=delay), LIMIT))
            accepted(server).close()
            loop.run_until_complete(p.wait("connection_lost"))
            loop.run_until_complete(io_settled())
            loop.close()
            return p.trace
    same(body)


async def _connect(loop, *args, **kwargs):
    return await loop.create_connection(*args, **kwargs)


def test_interleave():
    """The order in which addresses are tried, seen by which one wins."""
    def body(impl):
        found = []
        with listening() as one, listening("tcp6") as two:
            infos = [info("tcp4", one.getsockname()[1]), info("tcp4", one.getsockname()[1]),
                     info("tcp6", two.getsockname()[1])]
            for order in (infos, infos[::-1]):
                for kwargs in ({}, {"interleave": 1}, {"interleave": 2}, {"happy_eyeballs_delay": 1}):
                    loop = Resolving.make(impl, lambda port: order)
                    p = Stream()
                    transport, _ = loop.run_until_complete(loop.create_connection(lambda: p, "name", 1, **kwargs))
                    found.append(transport.get_extra_info("socket").family)
                    transport.abort()
                    loop.run_until_complete(p.wait("connection_lost"))
                    loop.run_until_complete(io_settled())
                    loop.close()
        return found
    same(body)


def test_no_addresses():
    def body(impl):
        loop = Resolving.make(impl, lambda port: [])
        try:
            loop.run_until_complete(loop.create_connection(Stream, "name", 1))
        except OSError as exc:
            return neutral_port(exc)
        finally:
            loop.close()
    assert same(body)[1] == "getaddrinfo() returned empty list"


def test_local_addr():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            found = []
            with listening() as server, listening() as busy:
                where = server.getsockname()
                port = free_port()
                for local in (("127.0.0.1", port), ("127.0.0.2", 0), ("127.0.0.1", 0)):
                    p = Stream()
                    transport, _ = await loop.create_connection(lambda: p, *where, local_addr=local)
                    found.append(transport.get_extra_info("sockname")[0])
                    if local[1]:
                        assert transport.get_extra_info("sockname") == local
                    peer = accepted(server)
                    reset(peer)
                    await p.wait("connection_lost")
                for local in (busy.getsockname(), ("192.0.2.1", 0), ("::1", 0)):
                    try:
                        await loop.create_connection(Stream, *where, local_addr=local)
                    except OSError as exc:
                        found.append(neutral_port(exc, busy.getsockname()[1]))
            return found
        return impl.run(main())
    same(body)


def test_given_sockets():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            found = []
            with listening() as server:
                sock = socket.create_connection(server.getsockname())
                p = Stream()
                transport, _ = await loop.create_connection(lambda: p, sock=sock)
                found.append((sock.gettimeout(), transport.get_extra_info("socket").fileno() == sock.fileno()))
                accepted(server).close()
                await p.wait("connection_lost")
                await io_settled()
                found.append(sock.fileno())
            # one that is not connected: peername is None, and reading fails
            sock = socket.socket()
            p = Stream()
            transport, _ = await loop.create_connection(lambda: p, sock=sock)
            found.append(transport.get_extra_info("peername"))
            await io_settled()
            found.append(p.trace)
            transport.abort()
            await io_settled()
            sock.close()
            return found
        return impl.run(main())
    same(body)


def test_errors():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            found = []
            a, b = socket.socketpair()
            tcp, datagram = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)

            async def attempt(*args, **kwargs):
                try:
                    transport, _ = await loop.create_connection(Stream, *args, **kwargs)
                    found.append("connected")
                    transport.abort()
                except Exception as exc:
                    name, text, number = neutral_port(exc)
                    found.append((name, text.partition("<socket")[0], number))
            with a, b, tcp, datagram:
                await attempt()
                await attempt("127.0.0.1", 1, sock=tcp)
                await attempt(sock=datagram)
                await attempt("127.0.0.1", 1, server_hostname="x")
                await attempt("127.0.0.1", 1, ssl_handshake_timeout=1)
                await attempt("127.0.0.1", 1, ssl_shutdown_timeout=1)
                await attempt(sock=tcp, ssl=True)
                await attempt("127.0.0.1", 70000)
                await attempt("127.0.0.1", -1)
                await attempt("127.0.0.1", "x")
                await attempt("127.0.0.1", 1, family=socket.AF_INET6)
                await attempt("127.0.0.1", None)
                await attempt(5, 5)
                await attempt("127.0.0.1", 1, no_such_option=1)
                await attempt("x" * 300, 1)
                await attempt("127.0.0.1", 1, local_addr=("x" * 300, 1))
            await io_settled()
            return found
        return impl.run(main())
    same(body)


@pytest.mark.parametrize("exc", [ValueError, OSError, asyncio.CancelledError, GeneratorExit])
def test_protocol_factory_raises(exc):
    """The caller gets it; the socket is not left open (gh-153133)."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()

            def factory():
                raise exc("factory")
            with listening() as server:
                try:
                    await loop.create_connection(factory, *server.getsockname())
                except BaseException as found:
                    result = type(found).__name__, str(found)
                peer = accepted(server)
                if better(impl, since=(3, 14)):
                    assert await take_all(peer) == b""
                peer.close()
                return result
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            found = impl.run(main())
            gc.collect()
        return found
    same(body)


@pytest.mark.parametrize("how", ["plain", "eyeballs", "name", "unix", "sock", "open_connection"])
def test_cancelled_at_each_await(impl, how):
    """In whichever iteration: no descriptor is left, and nothing is reported."""
    async def main():
        loop = asyncio.get_running_loop()
        reports = Reports(loop)
        with listening() as server, folder() as place:
            path = os.path.join(place, "s")
            unix = socket.socket(socket.AF_UNIX)
            unix.bind(path)
            unix.listen(50)
            unix.setblocking(False)
            address = server.getsockname()
            # What a loop needs for its first sleep and its first thread, it has now.
            await asyncio.sleep(0.001)
            await loop.getaddrinfo("localhost", 80)
            for rounds in range(12):
                p = Stream()
                sock = None
                if how == "plain":
                    coro = loop.create_connection(lambda: p, *address)
                elif how == "eyeballs":
                    coro = loop.create_connection(lambda: p, *address, happy_eyeballs_delay=0.5)
                elif how == "name":
                    coro = loop.create_connection(lambda: p, "localhost", address[1], family=socket.AF_INET)
                elif how == "unix":
                    coro = loop.create_unix_connection(lambda: p, path)
                elif how == "sock":
                    sock = socket.create_connection(address)
                    coro = loop.create_connection(lambda: p, sock=sock)
                else:
                    coro = asyncio.open_connection(*address)
                before = set(os.listdir("/proc/self/fd"))
                task = asyncio.create_task(coro)
                for _ in range(rounds):
                    await asyncio.sleep(0)
                task.cancel()
                try:
                    transport, other = await task
                except asyncio.CancelledError:
                    pass
                else:
                    if how == "open_connection":
                        other.transport.abort()
                        del transport, other
                    else:
                        transport.abort()
                await io_settled(2)
                if p.transport is not None and not p.lost:
                    assert p.transport.is_closing()
                    await p.wait("connection_lost")
                gc.collect()
                if sock is not None:
                    sock.close()
                for listener in (server, unix):
                    with contextlib.suppress(BlockingIOError):
                        while True:
                            listener.accept()[0].close()
                after = set(os.listdir("/proc/self/fd"))
                assert len(after) <= len(before), rounds
            unix.close()
        assert reports.take() == []
    if how == "eyeballs":
        # staggered_race() forgets a socket that was connected when the cancellation came.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            impl.run(main())
            gc.collect()
    else:
        impl.run(main())


@pytest.mark.parametrize("rounds", range(6))
def test_wait_for_connection(impl, rounds):
    """A timeout while the connection is refused or made: no leak either."""
    async def main():
        loop = asyncio.get_running_loop()
        with listening() as server:
            p = Stream()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(loop.create_connection(lambda: p, *server.getsockname()), rounds * 0.0001)
            await io_settled()
            if p.transport is not None and not p.lost:
                p.transport.abort()
                await p.wait("connection_lost")
            await io_settled()
            with contextlib.suppress(BlockingIOError):
                while True:
                    server.accept()[0].close()
    impl.run(main())


def test_many_at_once(impl):
    async def main():
        loop = asyncio.get_running_loop()
        protocols = [Stream() for _ in range(100)]
        with listening(backlog=200) as server:
            found = await asyncio.gather(*(
                loop.create_connection(lambda p=p: p, *server.getsockname()) for p in protocols))
            assert [p for _, p in found] == protocols
            peers = [accepted(server) for _ in found]
            for peer in peers:
                peer.close()
            for p in protocols:
                await p.wait("connection_lost")
        await io_settled()
    impl.run(main())


# create_unix_connection

def test_unix_connection():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            found = []
            with folder() as place:
                for path in (os.path.join(place, "s"), f"\0fastloop-c-{os.getpid()}"):
                    with socket.socket(socket.AF_UNIX) as server:
                        server.bind(path)
                        server.listen()
                        forms = [path, path.encode()]
                        if path[0] != "\0":
                            forms.append(pathlib.Path(path))
                        for form in forms:
                            p = Stream()
                            transport, _ = await loop.create_unix_connection(lambda: p, form)
                            assert transport.get_extra_info("peername") == server.getsockname()
                            found.append(transport.get_extra_info("sockname"))
                            accepted(server).close()
                            await p.wait("connection_lost")
                            found.append(p.trace)
                with socket.socket(socket.AF_UNIX) as server:
                    server.bind(os.path.join(place, "t"))
                    server.listen()
                    sock = socket.socket(socket.AF_UNIX)
                    sock.connect(os.path.join(place, "t"))
                    p = Stream()
                    transport, _ = await loop.create_unix_connection(lambda: p, sock=sock)
                    accepted(server).close()
                    await p.wait("connection_lost")
            return found
        return impl.run(main())
    same(body)


def test_errors_of_unix_connections():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            found = []
            tcp, unix = socket.socket(), socket.socket(socket.AF_UNIX)
            datagram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

            async def attempt(*args, **kwargs):
                try:
                    await loop.create_unix_connection(Stream, *args, **kwargs)
                except Exception as exc:
                    name, text, number = neutral_port(exc)
                    found.append((name, text.partition("<socket")[0], number))
            with tcp, unix, datagram:
                await attempt()
                await attempt("/no/such/socket")
                await attempt("\0no such name")
                await attempt("/tmp")
                await attempt("/tmp/x", sock=unix)
                await attempt(sock=tcp)
                await attempt(sock=datagram)
                await attempt("/tmp/x", server_hostname="x")
                await attempt("/tmp/x", ssl=True)
                await attempt("/tmp/x", ssl_handshake_timeout=1)
                await attempt("/tmp/" + "x" * 200)
                await attempt(5)
            await io_settled()
            return found
        return impl.run(main())
    same(body)


# Streams

@contextlib.asynccontextmanager
async def streams(kind="tcp4", **kwargs):
    """(reader, writer, the peer's bare socket)."""
    ours, peer = stream_pair(kind)
    opening = asyncio.open_unix_connection if kind == "unix" else asyncio.open_connection
    reader, writer = await opening(sock=ours, **kwargs)
    try:
        yield reader, writer, peer
    finally:
        peer.close()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        await io_settled(1)


@pytest.mark.parametrize("kind", ["tcp4", "tcp6", "unix"])
def test_reading(kind):
    def body(impl):
        async def main():
            found = []
            async with streams(kind) as (reader, writer, peer):
                peer.send(b"line one\nline two\nab|cd--EF12345678")
                found.append(await reader.readline())
                found.append(await reader.readline())
                found.append(await reader.readuntil(b"|"))
                found.append(await reader.readuntil(b"--"))
                found.append(await reader.readexactly(2))
                found.append(await reader.read(3))
                found.append(await reader.read(0))
                found.append(reader.at_eof())
                task = asyncio.create_task(reader.readexactly(10))
                await io_settled()
                found.append(task.done())
                peer.send(b"abcde")
                found.append(await task)
                peer.send(b"the rest\nwithout end")
                peer.close()
                found.append(await reader.readline())
                found.append(await reader.readline())
                found.append(await reader.readline())
                found.append(await reader.read())
                found.append(reader.at_eof())
            return found
        return impl.run(main())
    assert same(body)[:2] == [b"line one\n", b"line two\n"]


def test_iteration():
    def body(impl):
        async def main():
            async with streams() as (reader, writer, peer):
                peer.send(b"a\nb\nc")
                peer.close()
                return [line async for line in reader]
        return impl.run(main())
    assert same(body) == [b"a\n", b"b\n", b"c"]


def test_incomplete_reads():
    def body(impl):
        async def main():
            found = []
            for call in (lambda r: r.readexactly(10), lambda r: r.readuntil(b"|"), lambda r: r.readline(),
                         lambda r: r.readexactly(-1), lambda r: r.readuntil(b""), lambda r: r.read()):
                async with streams() as (reader, writer, peer):
                    peer.send(b"some")
                    peer.close()
                    try:
                        found.append(await call(reader))
                    except (asyncio.IncompleteReadError, ValueError) as exc:
                        found.append((type(exc).__name__, str(exc), getattr(exc, "partial", None)))
                    found.append(reader.at_eof())
            return found
        return impl.run(main())
    same(body)


def test_limit_overrun():
    def body(impl):
        async def main():
            found = []
            for call in (lambda r: r.readline(), lambda r: r.readuntil(b"|")):
                async with streams(limit=10) as (reader, writer, peer):
                    for data in (b"x" * 30, b"y" * 5 + b"\n|", b"z" * 15 + b"\n|"):
                        peer.send(data)
                        await io_settled()
                        try:
                            found.append(await asyncio.wait_for(call(reader), 0.01))
                        except (ValueError, asyncio.LimitOverrunError, TimeoutError) as exc:
                            found.append((type(exc).__name__, str(exc)))
                        found.append(len(reader._buffer))
            return found
        return impl.run(main())
    same(body)


@pytest.mark.parametrize("limit", [1, 10, 1000, 65536])
def test_reader_pauses_and_resumes(impl, limit):
    """More than twice the limit in the buffer: reading stops; and goes on when it is emptied."""
    async def main():
        async with streams("unix", limit=limit) as (reader, writer, peer):
            transport = writer.transport
            total = sent = limit * 10
            peer.send(bytes(min(sent, 100000)))
            total = min(sent, 100000)
            await io_settled()
            if total > 2 * limit:
                assert not transport.is_reading()
            more = peer.send(b"m" * 10)
            await io_settled()
            if total > 2 * limit:
                assert len(reader._buffer) <= total
            got = await reader.readexactly(total + more)
            assert got == bytes(total) + b"m" * 10
            await io_settled()
            assert transport.is_reading()
    impl.run(main())


def test_much_with_a_small_limit(impl):
    async def main():
        data = bytes(range(256)) * 2000
        async with streams("tcp4", limit=100) as (reader, writer, peer):
            sent = 0
            got = bytearray()
            while len(got) < len(data):
                with contextlib.suppress(BlockingIOError):
                    sent += peer.send(data[sent:sent + 5000])
                got += await reader.read(3000)
            assert got == data
    impl.run(main())


def test_two_readers_at_once():
    def body(impl):
        async def main():
            async with streams() as (reader, writer, peer):
                task = asyncio.create_task(reader.read(1))
                await io_settled(1)
                try:
                    await reader.read(1)
                except RuntimeError as exc:
                    found = str(exc)
                peer.send(b"x")
                return found, await task
        return impl.run(main())
    same(body)


def test_cancelled_reads_lose_nothing(impl):
    async def main():
        async with streams() as (reader, writer, peer):
            for i in range(5):
                task = asyncio.create_task(reader.readexactly(5))
                await io_settled(1)
                peer.send(b"%d" % i)
                for _ in range(i):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                if not task.cancelled():
                    assert task.result() == b"01234"
            await io_settled()
            peer.send(b"end")
            peer.close()
            rest = await reader.read()
            assert rest in (b"01234end", b"end")
    impl.run(main())


def test_reset_while_reading():
    def body(impl):
        async def main():
            async with streams() as (reader, writer, peer):
                task = asyncio.create_task(reader.read(1))
                await io_settled()
                reset(peer)
                found = []
                for awaitable in (task, reader.read(1), writer.drain()):
                    try:
                        found.append(await awaitable)
                    except ConnectionError as exc:
                        found.append(type(exc).__name__)
                return found, reader.exception() is not None
        return impl.run(main())
    assert same(body)[0][0] == "ConnectionResetError"


def test_writer():
    def body(impl):
        async def main():
            async with streams() as (reader, writer, peer):
                writer.write(b"one ")
                writer.writelines([b"two ", b"three"])
                await writer.drain()
                found = [writer.can_write_eof(), writer.is_closing(), type(writer.transport.get_extra_info("socket")),
                         writer.get_extra_info("peername") == peer.getsockname(), writer.get_extra_info("x", 5)]
                writer.write_eof()
                found.append(await take_all(peer))
                peer.send(b"answer")
                found.append(await reader.readexactly(6))
                writer.close()
                writer.close()
                found.append(writer.is_closing())
                await writer.wait_closed()
                found.append(await reader.read())
                return found
        return impl.run(main())
    same(body)


@pytest.mark.parametrize("kind", ["tcp4", "unix"])
def test_start_server(impl, kind):
    """An echo server with coroutines, several clients at once."""
    async def serve(reader, writer):
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def client(opening):
        reader, writer = await opening()
        lines = [b"line %d\n" % i for i in range(50)]
        got = []
        for line in lines:
            writer.write(line)
            await writer.drain()
            got.append(await reader.readline())
        assert got == [line.upper() for line in lines]
        writer.close()
        await writer.wait_closed()

    async def main():
        with folder() as place:
            path = os.path.join(place, "s")
            if kind == "unix":
                server = await asyncio.start_unix_server(serve, path)

                def opening():
                    return asyncio.open_unix_connection(path)
            else:
                server = await asyncio.start_server(serve, "127.0.0.1", 0)
                address = server.sockets[0].getsockname()

                def opening():
                    return asyncio.open_connection(*address)
            async with server:
                await asyncio.gather(*(client(opening) for _ in range(10)))
            await io_settled()
    impl.run(main())


def test_start_server_with_a_plain_callback(impl):
    async def main():
        seen = []

        def callback(reader, writer):
            seen.append(type(reader))
            writer.write(b"hello")
            writer.close()
        async with await asyncio.start_server(callback, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            assert await reader.read() == b"hello"
            writer.close()
            await writer.wait_closed()
        await io_settled()
        assert seen == [asyncio.StreamReader]
    impl.run(main())


@pytest.mark.parametrize("kind", ["coroutine", "function"])
def test_client_connected_callback_raises(kind):
    def body(impl):
        async def main():
            reports = Reports(asyncio.get_running_loop())

            async def coroutine(reader, writer):
                raise ValueError("callback")

            def function(reader, writer):
                raise ValueError("callback")
            callback = coroutine if kind == "coroutine" else function
            server = await asyncio.start_server(callback, "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            await io_settled()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            server.close()
            await io_settled()
            return [(m, k, e) for m, k, e in reports.take()]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            found = impl.run(main())
            gc.collect()
        return found
    same(body)


def test_forgotten_reader(log):
    """A client that drops its reader and lets data come: asyncio aborts the connection."""
    def body(impl):
        async def main():
            ours, peer = stream_pair("tcp4")
            reader, writer = await asyncio.open_connection(sock=ours)
            ref = weakref.ref(reader)
            transport = writer.transport
            del reader, writer
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                for _ in range(3):
                    await asyncio.sleep(0)
                gc.collect()
            found = [ref() is None, transport.is_closing()]
            peer.send(b"x")
            await io_settled()
            found.append(transport.is_closing())
            transport.abort()
            await io_settled()
            peer.close()
            return found
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            found = impl.run(main())
            gc.collect()
        return found, log.messages()
    same(body)


def test_forgotten_reader_in_debug_mode(log):
    """And reports where it was created."""
    def body(impl):
        async def main():
            reports = Reports(asyncio.get_running_loop())
            ours, peer = stream_pair("tcp4")
            reader, writer = await asyncio.open_connection(sock=ours)
            transport = writer.transport
            del reader, writer
            for _ in range(3):
                await asyncio.sleep(0)
            gc.collect()
            transport.abort()
            await io_settled()
            peer.close()
            return reports.take()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            found = impl.run(main(), debug=True)
            gc.collect()
        return found
    same(body)


# Subclasses and patches of the streams: the loop may know asyncio's own, but must honour these

def stream_over(protocol_class, reader):
    async def connect():
        loop = asyncio.get_running_loop()
        ours, peer = stream_pair()
        protocol = protocol_class(reader)
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, ours)
        return transport, protocol, peer
    return connect()


def test_subclass_of_stream_reader(impl):
    async def main():
        calls = []

        class Reader(asyncio.StreamReader):
            def feed_data(self, data):
                calls.append(bytes(data))
                super().feed_data(data.upper())

            def feed_eof(self):
                calls.append("eof")
                super().feed_eof()
        reader = Reader()
        transport, protocol, peer = await stream_over(asyncio.StreamReaderProtocol, reader)
        peer.send(b"data\n")
        assert await reader.readline() == b"DATA\n"
        peer.close()
        assert await reader.read() == b""
        assert calls == [b"data\n", "eof"]
        await io_settled()
        transport.close()
        await io_settled()
    impl.run(main())


@pytest.mark.parametrize("where", ["class", "instance"])
def test_patched_feed_data(impl, where, monkeypatch):
    async def main():
        calls = []
        reader = asyncio.StreamReader()
        transport, protocol, peer = await stream_over(asyncio.StreamReaderProtocol, reader)
        peer.send(b"1")
        assert await reader.readexactly(1) == b"1"
        original = asyncio.StreamReader.feed_data
        if where == "class":
            monkeypatch.setattr(asyncio.StreamReader, "feed_data",
                                lambda self, data: (calls.append(bytes(data)), original(self, data))[1])
        else:
            reader.feed_data = lambda data: (calls.append(bytes(data)), original(reader, data))[1]
        peer.send(b"2")
        assert await reader.readexactly(1) == b"2"
        assert calls == [b"2"]
        if where == "class":
            monkeypatch.undo()
        else:
            del reader.feed_data
        peer.send(b"3")
        assert await reader.readexactly(1) == b"3"
        assert calls == [b"2"]
        peer.close()
        await io_settled()
        transport.close()
        await io_settled()
    impl.run(main())


@pytest.mark.parametrize("where", ["subclass", "class", "instance"])
def test_data_received_of_the_stream_protocol(impl, where, monkeypatch):
    async def main():
        calls = []
        original = asyncio.StreamReaderProtocol.data_received
        reader = asyncio.StreamReader()

        class Protocol(asyncio.StreamReaderProtocol):
            def data_received(self, data):
                calls.append(data)
                super().data_received(data)
        transport, protocol, peer = await stream_over(
            Protocol if where == "subclass" else asyncio.StreamReaderProtocol, reader)
        if where == "class":
            monkeypatch.setattr(asyncio.StreamReaderProtocol, "data_received",
                                lambda self, data: (calls.append(data), original(self, data))[1])
        elif where == "instance":
            protocol.data_received = lambda data: (calls.append(data), original(protocol, data))[1]
        peer.send(b"data")
        assert await reader.readexactly(4) == b"data"
        assert calls == [b"data"]
        monkeypatch.undo()
        peer.close()
        await io_settled()
        transport.close()
        await io_settled()
        if where == "instance":
            del protocol.data_received
    impl.run(main())


def test_state_of_the_reader(impl):
    """What tools and libraries look at: _buffer is a bytearray, _eof and _paused tell the truth."""
    async def main():
        async with streams("unix", limit=100) as (reader, writer, peer):
            assert type(reader._buffer) is bytearray
            peer.send(b"abc")
            await io_settled()
            assert reader._buffer == b"abc"
            assert reader._paused is False
            peer.send(bytes(300))
            await io_settled()
            assert reader._paused is True
            assert len(reader._buffer) == 303
            await reader.readexactly(303)
            assert reader._paused is False
            assert reader._buffer == b""
            peer.close()
            await io_settled()
            assert reader._eof is True
            assert reader.at_eof()
    impl.run(main())


def test_reader_that_is_fed_by_hand_as_well(impl):
    """feed_data() in between, as proxies do it."""
    async def main():
        async with streams("unix") as (reader, writer, peer):
            peer.send(b"1")
            await io_settled()
            reader.feed_data(b"2")
            peer.send(b"3")
            await io_settled()
            assert await reader.readexactly(3) == b"123"
            task = asyncio.create_task(reader.read(10))
            await io_settled()
            reader.feed_data(b"4")
            assert await task == b"4"
            reader.set_exception(ValueError("by hand"))
            peer.send(b"5")
            await io_settled()
            with pytest.raises(ValueError, match="by hand"):
                await reader.read(1)
    impl.run(main())


def test_data_after_feed_eof():
    """feed_data() asserts; asyncio ends the connection with it."""
    def body(impl):
        async def main():
            reports = Reports(asyncio.get_running_loop())
            async with streams("unix") as (reader, writer, peer):
                reader.feed_eof()
                peer.send(b"late")
                await io_settled()
                found = writer.transport.is_closing()
                with contextlib.suppress(AssertionError):
                    await writer.wait_closed()
                writer.wait_closed = lambda: asyncio.sleep(0)
                return found, reports.take()
        return impl.run(main())
    same(body)


def test_order_of_wake_ups():
    """A reader is woken in the iteration after the data came, before what is scheduled later."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            order = []
            async with streams("unix") as (reader, writer, peer):
                async def read():
                    order.append(await reader.read(10))
                    loop.call_soon(order.append, "soon from read")
                    order.append("after read")
                task = asyncio.create_task(read())
                await io_settled()
                peer.send(b"data")
                await task
                order.append("joined")
                await io_settled()
            return order
        return impl.run(main())
    same(body)
