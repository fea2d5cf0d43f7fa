"""Every call of the loop and of streams that takes ssl=, its arguments, and what it does when it is cancelled."""

import asyncio
import contextlib
import os
import socket
import ssl

import pytest

from support import PY, plain, same
from support.net import LIMIT, Reports, Stream, folder, free_port, io_settled, stream_pair
from support.peers import descriptors
from support.tls import (
    NAME, V2, Far, better, cert, client_context, lost, pair, result_of, secured, server_context, wrapping)

HOST = "127.0.0.1"


async def far_client(address, family=socket.AF_INET, **keywords):
    sock = socket.socket(family)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, address)
    far = Far(sock, keywords.pop("context", None) or client_context(), **keywords)
    try:
        await far.handshake()
    except BaseException:
        far.close()
        raise
    return far


class FarServer:
    """A listening socket; `accept` gives the far end of the next connection, handshake done."""

    def __init__(self, family=socket.AF_INET, address=(HOST, 0), context=None):
        self.context = context or server_context()
        self.sock = socket.socket(family)
        self.sock.bind(address)
        self.sock.listen()
        self.sock.setblocking(False)
        self.address = self.sock.getsockname()

    async def accept(self):
        sock, _ = await asyncio.get_running_loop().sock_accept(self.sock)
        far = Far(sock, self.context, server_side=True)
        try:
            await far.handshake()
        except BaseException:
            far.close()
            raise
        return far


async def exchange(p, transport, far):
    """A few bytes each way, and a polite end; what the protocol was told."""
    transport.write(b"question")
    assert await far.take(8) == b"question"
    await far.send(b"answer")
    await p.until(lambda: bytes(p.received) == b"answer")
    transport.close()
    assert await far.finish() == ("close_notify", "FIN")
    await lost(p)
    far.close()
    return p.trace


DONE = [["connection_made"], ["data_received", b"answer"], ["eof_received"], ["connection_lost", None]]


# Connections

@pytest.mark.parametrize("how", ["host", "host and name", "sock"])
def test_create_connection(how):
    """The name of the certificate is the host's unless server_hostname says another."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            server = FarServer()
            names = []
            server.context.sni_callback = lambda tls, name, context: names.append(name)
            accepting = asyncio.create_task(server.accept())
            p = Stream()
            if how == "host":
                making = loop.create_connection(lambda: p, NAME, server.address[1], family=socket.AF_INET,
                                                ssl=client_context())
            elif how == "host and name":
                making = loop.create_connection(lambda: p, *server.address, ssl=client_context(), server_hostname=NAME)
            else:
                sock = socket.create_connection(server.address)
                sock.setblocking(False)
                making = loop.create_connection(lambda: p, sock=sock, ssl=client_context(), server_hostname=NAME)
            transport, found = await making
            assert found is p
            trace = await exchange(p, transport, await accepting)
            server.sock.close()
            server.context.sni_callback = None
            return trace, names
        return impl.run(main())
    assert same(body) == [DONE, [NAME]]


def test_address_as_the_name():
    """A certificate may be for an IP address; then no name is sent."""
    def body(impl):
        async def main():
            server = FarServer()
            names = []
            server.context.sni_callback = lambda tls, name, context: names.append(name)
            accepting = asyncio.create_task(server.accept())
            p = Stream()
            transport, _ = await asyncio.get_running_loop().create_connection(
                lambda: p, *server.address, ssl=client_context())
            trace = await exchange(p, transport, await accepting)
            server.sock.close()
            server.context.sni_callback = None
            return trace, names
        return impl.run(main())
    assert same(body) == [DONE, [None]]


@pytest.mark.parametrize("trusted", [True, False])
def test_ssl_true(trusted, monkeypatch):
    """The default context: it checks everything, against the machine's authorities."""
    monkeypatch.setenv("SSL_CERT_FILE", cert("ca" if trusted else "stranger"))
    monkeypatch.setenv("SSL_CERT_DIR", os.path.dirname(__file__))

    def body(impl):
        async def main():
            server = FarServer()
            accepting = asyncio.create_task(server.accept())
            p = Stream()
            making = asyncio.ensure_future(asyncio.get_running_loop().create_connection(
                lambda: p, *server.address, ssl=True, server_hostname=NAME))
            found = await result_of(making)
            if found == "done":
                transport, _ = making.result()
                context = transport.get_extra_info("sslcontext")
                assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
                await exchange(p, transport, await accepting)
                del transport, context
            else:
                with contextlib.suppress(Exception):
                    (await accepting).close()
                with contextlib.suppress(Exception):
                    accepting.exception()
            del making, accepting
            server.sock.close()
            return found
        return impl.run(main())
    found = same(body)
    assert (found == "done") == trusted
    assert trusted or found[0] == "SSLCertVerificationError"


def test_nobody_listens():
    def body(impl):
        async def main():
            return await result_of(asyncio.get_running_loop().create_connection(
                Stream, HOST, port, ssl=client_context()))
        return impl.run(main())
    port = free_port()
    assert same(body)[0] == "ConnectionRefusedError"


def test_unix_connection():
    def body(impl):
        async def main():
            with folder() as path:
                server = FarServer(socket.AF_UNIX, os.path.join(path, "s"))
                accepting = asyncio.create_task(server.accept())
                p = Stream()
                transport, _ = await asyncio.get_running_loop().create_unix_connection(
                    lambda: p, server.address, ssl=client_context(), server_hostname=NAME)
                peername = transport.get_extra_info("peername") == server.address
                trace = await exchange(p, transport, await accepting)
                server.sock.close()
                return trace, peername
        return impl.run(main())
    assert same(body) == [DONE, True]


def test_connect_accepted_socket():
    def body(impl):
        async def main():
            with socket.create_server((HOST, 0)) as listener:
                client = socket.create_connection(listener.getsockname())
                accepted, _ = listener.accept()
            accepted.setblocking(False)
            p = Stream()
            making = asyncio.ensure_future(asyncio.get_running_loop().connect_accepted_socket(
                lambda: p, accepted, ssl=server_context(), ssl_handshake_timeout=5, ssl_shutdown_timeout=5))
            far = Far(client, client_context())
            await far.handshake()
            transport, _ = await making
            return await exchange(p, transport, far)
        return impl.run(main())
    assert same(body) == DONE


# Servers

def test_create_server():
    """Several clients at once, each with its own protocol and transport."""
    def body(impl):
        async def main():
            protocols = []

            def factory():
                protocols.append(Stream({"data_received": lambda p, data: p.transport.write(data.upper())}))
                return protocols[-1]
            server = await asyncio.get_running_loop().create_server(
                factory, HOST, 0, ssl=server_context(), ssl_handshake_timeout=5, ssl_shutdown_timeout=5)
            address = server.sockets[0].getsockname()
            fars = await asyncio.gather(*(far_client(address) for _ in range(5)))
            for n, far in enumerate(fars):
                await far.send(b"client %d" % n)
                assert await far.take(8) == b"CLIENT %d" % n
                far.goodbye()
            for p in protocols:
                await lost(p)
            for far in fars:
                far.close()
            server.close()
            await asyncio.wait_for(server.wait_closed(), LIMIT)
            return sorted(plain([p.trace for p in protocols]))
        return impl.run(main())
    traces = same(body)
    assert traces == [[["connection_made"], ["data_received", b"client %d" % n], ["eof_received"],
                       ["connection_lost", None]] for n in range(5)]


def test_server_lets_others_in():
    """A client that fails, one that leaves, one that stalls: the next is served, the log says nothing."""
    def body(impl):
        async def main():
            reports = Reports(asyncio.get_running_loop())
            protocols = []

            def factory():
                protocols.append(Stream())
                return protocols[-1]
            server = await asyncio.get_running_loop().create_server(
                factory, HOST, 0, ssl=server_context(), ssl_handshake_timeout=0.2)
            address = server.sockets[0].getsockname()
            stalled = socket.create_connection(address)
            left = socket.create_connection(address)
            left.close()
            found = await result_of(far_client(address, context=client_context("stranger")))
            assert found[0] == "SSLCertVerificationError"
            plaintext = socket.create_connection(address)
            plaintext.send(b"GET / HTTP/1.0\r\n\r\n")
            far = await far_client(address)
            await far.send(b"x")
            await io_settled()
            served = [p for p in protocols if p.transport is not None][-1]
            await served.wait("data_received")
            far.goodbye()
            await lost(served)
            # a client whose own check fails has not told us with TLS 1.3: it was connected
            connected = [p for p in protocols if p.transport is not None]
            for p in connected:
                if not p.lost:
                    p.transport.abort()
                    await lost(p)
            stalled.setblocking(False)
            with contextlib.suppress(OSError):
                assert await asyncio.get_running_loop().sock_recv(stalled, 10) == b""  # the timeout
            for sock in (stalled, plaintext, far.sock):
                sock.close()
            server.close()
            await asyncio.wait_for(server.wait_closed(), LIMIT)
            await io_settled()
            return served.trace, reports.take(), len(protocols)
        return impl.run(main())
    trace, reports, count = same(body)
    assert trace == [["connection_made"], ["data_received", b"x"], ["eof_received"], ["connection_lost", None]]
    assert reports == []
    assert count == 5


def test_failed_handshakes_in_debug_mode():
    """Then the exception handler is told about each."""
    def body(impl):
        async def main():
            reports = Reports(asyncio.get_running_loop())
            server = await asyncio.get_running_loop().create_server(Stream, HOST, 0, ssl=server_context())
            sock = socket.create_connection(server.sockets[0].getsockname())
            sock.send(b"no TLS at all\r\n\r\n")
            sock.setblocking(False)
            with contextlib.suppress(OSError):
                while await asyncio.get_running_loop().sock_recv(sock, 100):
                    pass
            await io_settled()
            sock.close()
            server.close()
            found = [(message, keys, exc and exc[0]) for message, keys, exc in reports.take()]
            return found
        return impl.run(main(), debug=True)
    assert same(body) == [["Error on transport creation for incoming connection",
                           ["exception", "message", "protocol", "transport"], "SSLError"]]


def test_unix_server():
    def body(impl):
        async def main():
            with folder() as path:
                p = Stream()
                name = os.path.join(path, "s")
                server = await asyncio.get_running_loop().create_unix_server(lambda: p, name, ssl=server_context())
                far = await far_client(name, socket.AF_UNIX)
                await p.wait("connection_made")
                trace = await exchange(p, p.transport, far)
                server.close()
                await asyncio.wait_for(server.wait_closed(), LIMIT)
                return trace
        return impl.run(main())
    assert same(body) == DONE


@pytest.mark.parametrize("how", ["close", "close_clients", "abort_clients"])
def test_server_closes_amid_a_handshake(how):
    """Who is in the middle of it may finish, unless clients are closed with the server."""
    if how != "close" and PY < (3, 13):
        pytest.skip("new in 3.13")

    def body(impl):
        async def main():
            p = Stream()
            server = await asyncio.get_running_loop().create_server(lambda: p, HOST, 0, ssl=server_context())
            sock = socket.create_connection(server.sockets[0].getsockname())
            far = Far(sock, client_context())
            sock.send(far.hello())
            await io_settled()
            server.close()
            if how != "close":
                getattr(server, how)()
            await result_of(far.handshake())
            if how == "close":
                far.goodbye()
                await lost(p)
            await io_settled()
            far.close()
            await asyncio.wait_for(server.wait_closed(), LIMIT)
            return p.trace
        return impl.run(main())
    trace = same(body)
    assert trace == ([["connection_made"], ["eof_received"], ["connection_lost", None]] if how == "close" else [])


def test_server_closes_its_clients():
    if PY < (3, 13):
        pytest.skip("new in 3.13")

    def body(impl, how):
        async def main():
            p = Stream()
            server = await asyncio.get_running_loop().create_server(lambda: p, HOST, 0, ssl=server_context())
            far = await far_client(server.sockets[0].getsockname())
            await p.wait("connection_made")
            server.close()
            getattr(server, how)()
            await far.take_all()
            ended = far.ended
            if ended == "close_notify":
                far.goodbye()
            await lost(p)
            far.close()
            await asyncio.wait_for(server.wait_closed(), LIMIT)
            return ended == "close_notify", p.trace
        return impl.run(main())
    for how in ("close_clients", "abort_clients"):
        same(body, how)


# Streams

def test_open_connection_and_start_server():
    """Both ends are ours."""
    def body(impl, unix):
        async def main():
            ended = asyncio.get_running_loop().create_future()

            async def serve(reader, writer):
                line = await reader.readline()
                writer.write(line.upper())
                await writer.drain()
                rest = await reader.read()
                writer.close()
                await writer.wait_closed()
                ended.set_result((line, rest))
            with folder() as path:
                if unix:
                    path = os.path.join(path, "s")
                    server = await asyncio.start_unix_server(serve, path, ssl=server_context())
                    reader, writer = await asyncio.open_unix_connection(
                        path, ssl=client_context(), server_hostname=NAME)
                else:
                    server = await asyncio.start_server(serve, HOST, 0, ssl=server_context())
                    reader, writer = await asyncio.open_connection(
                        *server.sockets[0].getsockname(), ssl=client_context(), server_hostname=NAME,
                        ssl_handshake_timeout=5, ssl_shutdown_timeout=5)
                assert writer.can_write_eof() is False
                assert isinstance(writer.get_extra_info("ssl_object"), ssl.SSLObject)
                writer.write(b"hello\n")
                answer = await reader.readline()
                writer.close()
                await writer.wait_closed()
                found = await asyncio.wait_for(ended, LIMIT)
                server.close()
                await asyncio.wait_for(server.wait_closed(), LIMIT)
                await io_settled()
                return answer, found, await reader.read()
        return impl.run(main())
    for unix in (False, True):
        assert same(body, unix) == [b"HELLO\n", [b"hello\n", b""], b""]


# Files

@pytest.mark.parametrize("size", [0, 1, 300000, 3000000])
def test_sendfile(size, tmp_path):
    """It goes through write(), for there is no other way."""
    path = tmp_path / "file"
    data = os.urandom(size)
    path.write_bytes(data)

    def body(impl):
        async def main():
            async with secured(kind="tcp4", buffers=65536) as (transport, peer):
                with open(path, "rb") as file:
                    transport.write(b"before ")
                    sending = asyncio.ensure_future(asyncio.get_running_loop().sendfile(transport, file))
                    got = await peer.take(7 + size)
                    sent = await sending
                transport.write(b" after")
                return sent, got == b"before " + data, await peer.take(6)
        return impl.run(main())
    assert same(body) == [size, True, b" after"]


def test_sendfile_without_fallback(tmp_path):
    (tmp_path / "file").write_bytes(b"data")

    def body(impl):
        async def main():
            async with secured(kind="tcp4") as (transport, peer):
                with open(tmp_path / "file", "rb") as file:
                    found = await result_of(asyncio.get_running_loop().sendfile(transport, file, fallback=False))
                transport.write(b"goes on")
                return found[0], await peer.take(7)
        return impl.run(main())
    assert same(body)[1] == b"goes on"


# Arguments

def test_arguments_of_create_connection():
    def body(impl):
        async def main():
            create = asyncio.get_running_loop().create_connection
            context = client_context()
            found = []
            a, b = socket.socketpair()

            async def attempt(*args, **kwargs):
                found.append(await result_of(create(Stream, *args, **kwargs)))
            await attempt(HOST, 1, server_hostname=NAME)
            await attempt(HOST, 1, ssl=None, server_hostname="")
            await attempt(HOST, 1, ssl_handshake_timeout=1)
            await attempt(HOST, 1, ssl_shutdown_timeout=1)
            await attempt(HOST, 1, ssl=False, ssl_handshake_timeout=1)
            await attempt(sock=a, ssl=context)
            a.close(), b.close()
            return found
        return impl.run(main())
    found = same(body)
    assert all(e[0] == "ValueError" for e in found)
    assert found[-1][1] == "You must set server_hostname when using ssl without a host"


@pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])
@pytest.mark.parametrize("name", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
@pytest.mark.parametrize("value", [0, -1, 0.0, -0.5])
def test_timeouts_must_be_positive(name, value, server_side):
    """ValueError, and the socket is closed or not as with asyncio."""
    def body(impl):
        async def main():
            ours, peer = stream_pair()
            context = server_context() if server_side else client_context()
            p = Stream()
            found = await result_of(wrapping(p, ours, context, server_side, **{name: value}))
            await io_settled()
            ours.close(), peer.close()
            return found, p.trace
        return impl.run(main())
    found, trace = same(body)
    assert found == ["ValueError", f"{name} should be a positive number, got {value}"]
    assert trace == []


@pytest.mark.parametrize("wrong", ["a context", 1, object()], ids=["str", "int", "object"])
def test_what_is_no_context(wrong):
    def body(impl, server_side):
        async def main():
            ours, peer = stream_pair()
            found = await result_of(wrapping(Stream(), ours, wrong, server_side))
            await io_settled()
            ours.close(), peer.close()
            return found[0], "wrap_bio" in found[1]
        return impl.run(main())
    for server_side in (True, False):
        assert same(body, server_side) == ["AttributeError", True]


def test_true_on_the_server_side():
    """There is no default context with a certificate."""
    def body(impl):
        async def main():
            ours, peer = stream_pair()
            found = [await result_of(wrapping(Stream(), ours, True, True))]
            ours.close(), peer.close()
            for create in (asyncio.get_running_loop().create_server, ):
                for value in (True, False):
                    found.append(await result_of(create(Stream, HOST, 0, ssl=value)))
            for value in (True, False):
                found.append(await result_of(
                    asyncio.get_running_loop().create_unix_server(Stream, "/nowhere/at/all", ssl=value)))
            return found
        return impl.run(main())
    found = same(body)
    assert found[0] == ["ValueError", "Server side SSL needs a valid SSLContext"]
    assert all(e == ["TypeError", "ssl argument must be an SSLContext or None"] for e in found[1:])


def test_a_client_context_on_the_server_side():
    """ssl's own complaint."""
    def body(impl, server_side):
        async def main():
            ours, peer = stream_pair()
            context = client_context() if server_side else server_context()
            found = await result_of(wrapping(Stream(), ours, context, server_side))
            await io_settled()
            ours.close(), peer.close()
            return found
        return impl.run(main())
    for server_side in (True, False):
        assert same(body, server_side)[0] in ("SSLError", "ValueError")


@pytest.mark.parametrize("name", ["", ".leading", "nul\0byte", "x" * 300, 1, b"localhost"], ids=repr)
def test_odd_server_hostnames(name):
    """What ssl makes of them comes out, and the socket goes."""
    def body(impl):
        async def main():
            ours, peer = stream_pair()
            peer.close()
            found = await result_of(wrapping(Stream(), ours, client_context(), False, server_hostname=name))
            await io_settled()
            ours.close()
            return found
        return impl.run(main())
    assert same(body) != "done"


def test_ssl_sockets_are_refused():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            a, b = socket.socketpair()
            wrapped = client_context().wrap_socket(a, do_handshake_on_connect=False, server_hostname=NAME)
            found = [await result_of(loop.create_connection(Stream, sock=wrapped, ssl=client_context(),
                                                            server_hostname=NAME)),
                     await result_of(loop.connect_accepted_socket(Stream, wrapped, ssl=server_context())),
                     await result_of(loop.create_server(Stream, sock=wrapped, ssl=server_context()))]
            wrapped.close(), b.close()
            return found
        return impl.run(main())
    assert same(body) == [["TypeError", "Socket cannot be of type SSLSocket"]] * 3


def test_arguments_of_servers_and_unix_forms():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            a, b = socket.socketpair()
            found = [await result_of(attempt) for attempt in (
                loop.create_server(Stream, HOST, 0, ssl_handshake_timeout=1),
                loop.create_server(Stream, HOST, 0, ssl_shutdown_timeout=1),
                loop.create_unix_server(Stream, "/nowhere/at/all", ssl_handshake_timeout=1),
                loop.create_unix_server(Stream, "/nowhere/at/all", ssl_shutdown_timeout=1),
                loop.create_unix_connection(Stream, "/nowhere/at/all", ssl=client_context()),
                loop.create_unix_connection(Stream, "/nowhere/at/all", server_hostname=NAME),
                loop.create_unix_connection(Stream, "/nowhere/at/all", ssl_handshake_timeout=1),
                loop.create_unix_connection(Stream, "/nowhere/at/all", ssl_shutdown_timeout=1),
                loop.connect_accepted_socket(Stream, a, ssl_handshake_timeout=1),
                loop.connect_accepted_socket(Stream, a, ssl_shutdown_timeout=1),
            )]
            a.close(), b.close()
            return found
        return impl.run(main())
    assert all(e[0] == "ValueError" for e in same(body))


@pytest.mark.parametrize("name", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
def test_timeouts_of_a_server_are_checked(impl, name):
    """With the call or with the first client, who is then sent away. asyncio leaves his socket to the collector."""
    if not better(impl):
        return

    async def main():
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(Stream, HOST, 0, ssl=server_context(), **{name: 0})
        except ValueError as exc:
            assert str(exc) == f"{name} should be a positive number, got 0"
            return
        with socket.create_connection(server.sockets[0].getsockname()) as sock:
            sock.setblocking(False)
            async with asyncio.timeout(LIMIT):
                assert await loop.sock_recv(sock, 1) == b""
        server.close()
        await io_settled()
    impl.run(main())


def test_factory_raises():
    """Before any TLS: nothing was sent, the socket's fate is asyncio's."""
    def body(impl):
        def factory():
            raise KeyError("factory")

        async def main():
            ours, peer = stream_pair()
            loop = asyncio.get_running_loop()
            found = await result_of(loop.connect_accepted_socket(factory, ours, ssl=server_context()))
            ours.close(), peer.close()
            return found
        return impl.run(main())
    assert same(body) == ["KeyError", "'factory'"]


# Cancellation

async def at_every_step(start, least):
    """Cancel what start() begins after 1, 2, 3 ... turns of the loop until it is done before; nothing may be left open.

    `start` returns (awaitable, clean-up).
    """
    steps = 1
    await io_settled()
    while True:
        before = descriptors()
        awaitable, clean_up = await start()
        task = asyncio.ensure_future(awaitable)
        for _ in range(steps):
            await asyncio.sleep(0)
        finished = task.done()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([task])
        if not finished:
            assert task.cancelled() or task.exception() is None
        await clean_up(task)
        del task, awaitable, clean_up
        await io_settled(2)
        assert descriptors() == before, steps
        steps += 1
        if finished:
            break
        assert steps < 200
    assert steps > least


@pytest.mark.parametrize("version", [None, V2], ids=["newest", "TLSv1.2"])
def test_cancelled_open_connection(impl, version):
    async def main():
        accepted = []

        async def serve(reader, writer):
            accepted.append(writer)
            with contextlib.suppress(OSError):
                await reader.read()
            writer.transport.abort()
        server = await asyncio.start_server(serve, HOST, 0, ssl=server_context(version=version))
        address = server.sockets[0].getsockname()
        context = client_context()

        async def start():
            async def clean_up(task):
                if not task.cancelled():
                    task.result()[1].transport.abort()
                # what the server has of it ends, too
                await io_settled()
                while accepted:
                    accepted.pop().transport.abort()
                await io_settled()
            return asyncio.open_connection(*address, ssl=context, server_hostname=NAME), clean_up
        await at_every_step(start, 3)
        server.close()
        await asyncio.wait_for(server.wait_closed(), LIMIT)
        await io_settled()
    impl.run(main())


@pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])
def test_cancelled_start_tls(impl, server_side):
    async def main():
        loop = asyncio.get_running_loop()

        async def start():
            ours, sock = stream_pair()
            p = Stream()
            transport, _ = await loop.connect_accepted_socket(lambda: p, ours)
            near = server_context() if server_side else client_context()
            far = Far(sock, client_context() if server_side else server_context(), server_side=not server_side)
            shaking = asyncio.ensure_future(far.handshake())

            async def clean_up(task):
                shaking.cancel()
                await asyncio.wait([shaking])
                if not shaking.cancelled():
                    shaking.exception()
                if not task.cancelled():
                    task.result().abort()
                    await lost(p)
                else:
                    assert transport.is_closing()
                far.close()
                await io_settled()
            return loop.start_tls(transport, p, near, server_side=server_side,
                                  server_hostname=None if server_side else NAME), clean_up
        await at_every_step(start, 2)
    impl.run(main())


def test_cancelled_wait_closed(impl):
    """The connection closes all the same."""
    async def main():
        async def start():
            reader = asyncio.StreamReader()
            p = asyncio.StreamReaderProtocol(reader)
            ours, sock = stream_pair()
            making = asyncio.ensure_future(wrapping(p, ours, server_context(), True))
            far = Far(sock, client_context())
            await far.handshake()
            transport, _ = await making
            writer = asyncio.StreamWriter(transport, p, reader, asyncio.get_running_loop())
            writer.close()
            finishing = asyncio.ensure_future(far.finish())

            async def clean_up(task):
                async with asyncio.timeout(LIMIT):
                    assert await finishing == ("close_notify", "FIN")
                far.close()
                await io_settled()
            return writer.wait_closed(), clean_up
        await at_every_step(start, 2)
    impl.run(main())


def test_cancelled_drain(impl):
    """What was written arrives all the same."""
    async def main():
        data = os.urandom(1 << 20)

        async def start():
            reader = asyncio.StreamReader()
            p = asyncio.StreamReaderProtocol(reader)
            ours, sock = stream_pair(buffers=65536)
            making = asyncio.ensure_future(wrapping(p, ours, server_context(), True))
            far = Far(sock, client_context())
            await far.handshake()
            transport, _ = await making
            writer = asyncio.StreamWriter(transport, p, reader, asyncio.get_running_loop())
            writer.write(data)
            writer.write(data)
            taking = asyncio.ensure_future(far.take(2 << 20))

            async def clean_up(task):
                assert await taking == data + data
                writer.transport.abort()
                await io_settled()
                far.close()
            return writer.drain(), clean_up
        await at_every_step(start, 2)
    impl.run(main())


def test_cancelled_connections_tell_their_peers(impl):
    """A client that is cancelled amid the handshake is gone for the server at once."""
    async def main():
        async with pair(server_side=False) as both:
            while not await both.far.moved():
                pass
            both.making.cancel()
            await asyncio.wait([both.making])
            while not both.far.ended:
                await both.far.moved()
            assert both.far.ended == "FIN"
            assert both.ours.fileno() == -1

    impl.run(main())
