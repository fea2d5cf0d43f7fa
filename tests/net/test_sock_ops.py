"""The loop's sock_ methods: bare sockets, waited for."""

import array
import asyncio
import gc
import os
import socket
import ssl
import warnings

import pytest

from support import same
from support.net import (
    FAMILIES, HOSTS, Reports, Stream, attach, better, datagram_pair, free_port, io_settled, neutral, reset,
    stream_pair, take, take_now)

BIG = bytes(range(256)) * 4096 * 8


def clean(loop, sock):
    """No watcher is left for a socket."""
    return loop.remove_reader(sock) is False and loop.remove_writer(sock) is False


def udp_pair(kind="tcp4"):
    a, b = (socket.socket(FAMILIES[kind], socket.SOCK_DGRAM) for _ in "ab")
    for sock in (a, b):
        sock.bind((HOSTS[kind], 0))
        sock.setblocking(False)
    return a, b


def listener(kind="tcp4", backlog=10):
    sock = socket.socket(FAMILIES[kind])
    sock.bind(("") if kind == "unix" else (HOSTS[kind], 0))
    sock.listen(backlog)
    sock.setblocking(False)
    return sock


# Receiving

RECEIVE = {
    "sock_recv": (lambda loop, sock: loop.sock_recv(sock, 100), lambda found: found),
    "sock_recv_into": (lambda loop, sock: _into(loop, sock), lambda found: found),
    "sock_recvfrom": (lambda loop, sock: loop.sock_recvfrom(sock, 100), lambda found: found[0]),
    "sock_recvfrom_into": (lambda loop, sock: _from_into(loop, sock), lambda found: found),
}


async def _into(loop, sock):
    buffer = bytearray(100)
    n = await loop.sock_recv_into(sock, buffer)
    assert type(n) is int
    return bytes(buffer[:n])


async def _from_into(loop, sock):
    buffer = bytearray(100)
    n, address = await loop.sock_recvfrom_into(sock, buffer)
    return bytes(buffer[:n])


receive = pytest.mark.parametrize("how", RECEIVE)


@receive
@pytest.mark.parametrize("kind", ["tcp4", "tcp6", "unix"])
def test_receive(how, kind):
    """At once, waited for, the end of the stream."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            ours, peer = stream_pair(kind)
            call, data = RECEIVE[how]
            with ours, peer:
                found = []
                peer.send(b"at once")
                await io_settled(1)
                found.append(data(await call(loop, ours)))
                task = asyncio.create_task(call(loop, ours))
                await io_settled()
                assert not task.done()
                peer.send(b"later")
                found.append(data(await task))
                assert clean(loop, ours)
                task = asyncio.create_task(call(loop, ours))
                await io_settled()
                peer.shutdown(socket.SHUT_WR)
                found.append(data(await task))
                found.append(data(await call(loop, ours)))
                assert clean(loop, ours)
            return found
        return impl.run(main())
    assert same(body) == [b"at once", b"later", b"", b""]


@receive
def test_receive_after_a_reset(how):
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            ours, peer = stream_pair("tcp4")
            call, data = RECEIVE[how]
            with ours:
                task = asyncio.create_task(call(loop, ours))
                await io_settled()
                reset(peer)
                try:
                    await task
                except OSError as exc:
                    assert clean(loop, ours)
                    return type(exc).__name__, exc.errno
        return impl.run(main())
    assert same(body)[0] == "ConnectionResetError"


@receive
def test_datagrams(how):
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            a, b = udp_pair()
            call, data = RECEIVE[how]
            with a, b:
                found = []
                b.sendto(b"one", a.getsockname())
                found.append(data(await call(loop, a)))
                task = asyncio.create_task(call(loop, a))
                await io_settled()
                b.sendto(b"", a.getsockname())
                found.append(data(await task))
                b.sendto(b"three", a.getsockname())
                b.sendto(b"four", a.getsockname())
                found += [data(await call(loop, a)), data(await call(loop, a))]
                assert clean(loop, a)
            return found
        return impl.run(main())
    assert same(body) == [b"one", b"", b"three", b"four"]


@pytest.mark.parametrize("kind", ["tcp4", "tcp6"])
def test_addresses_of_datagrams(impl, kind):
    async def main():
        loop = asyncio.get_running_loop()
        a, b = udp_pair(kind)
        with a, b:
            for wait in (False, True):
                task = asyncio.create_task(loop.sock_recvfrom(a, 10))
                if wait:
                    await io_settled()
                assert await loop.sock_sendto(b, b"data", a.getsockname()) == 4
                assert await task == (b"data", b.getsockname())
                buffer = bytearray(b"." * 10)
                task = asyncio.create_task(loop.sock_recvfrom_into(a, buffer))
                if wait:
                    await io_settled()
                assert await loop.sock_sendto(b, b"datum", a.getsockname()) == 5
                assert await task == (5, b.getsockname())
                assert buffer == b"datum....."
                task = asyncio.create_task(loop.sock_recvfrom_into(a, buffer, 3))
                if wait:
                    await io_settled()
                b.sendto(b"DATUM", a.getsockname())
                assert await task == (3, b.getsockname())
                assert buffer == b"DATum....."
    impl.run(main())


def test_sizes():
    """0, less than there is, more than there is; what is no size."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            ours, peer = stream_pair()
            found = []
            with ours, peer:
                peer.send(b"0123456789")
                for size in (3, 0, 100, -1, "x", 1.5, None, 2 ** 100):
                    if size == 100:
                        size = 3
                    try:
                        found.append(await loop.sock_recv(ours, size))
                    except Exception as exc:
                        found.append((type(exc).__name__, str(exc) if size != 2 ** 100 else ""))
                for buffer in (bytearray(2), memoryview(bytearray(5))[1:3], array.array("B", b"ab"),
                               bytearray(), b"ro", None, "x", memoryview(bytearray(4))[::2]):
                    try:
                        found.append((await loop.sock_recv_into(ours, buffer),
                                      bytes(buffer) if len(buffer) else None))
                    except Exception as exc:
                        found.append(type(exc).__name__)
                    if not take_now(ours):
                        pass
                    peer.send(b"more")
            return found
        return impl.run(main())
    same(body)


def test_buffer_stays_exported_while_waiting(impl):
    """It cannot be resized under the loop's hands, or it may: no crash, and the data is not lost silently."""
    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = stream_pair()
        with ours, peer:
            buffer = bytearray(100)
            task = asyncio.create_task(loop.sock_recv_into(ours, buffer))
            await io_settled()
            try:
                del buffer[10:]
                buffer.extend(bytes(5))
            except BufferError:
                pass
            peer.send(b"data")
            assert await task == 4
            assert buffer[:4] == b"data"
    impl.run(main())


# Sending

@pytest.mark.parametrize("data", [b"hello", bytearray(b"hello"), memoryview(b"hello"), b"", BIG,
                                  memoryview(BIG)], ids=["bytes", "bytearray", "view", "empty", "big", "big view"])
@pytest.mark.parametrize("kind", ["tcp4", "unix"])
def test_sendall(data, kind):
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            ours, peer = stream_pair(kind)
            with ours, peer:
                task = asyncio.create_task(loop.sock_sendall(ours, data))
                got = await take(peer, len(data))
                result = await task
                assert got == data
                assert clean(loop, ours)
                return result
        return impl.run(main())
    assert same(body) is None


def test_sendall_to_one_who_leaves():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            ours, peer = stream_pair("tcp4")
            with ours:
                task = asyncio.create_task(loop.sock_sendall(ours, BIG))
                await io_settled()
                assert not task.done()
                reset(peer)
                try:
                    await task
                except OSError as exc:
                    found = type(exc).__name__
                assert clean(loop, ours)
                try:
                    await loop.sock_sendall(ours, b"x")
                except OSError as exc:
                    return found, type(exc).__name__
        return impl.run(main())
    assert same(body) == ["ConnectionResetError", "BrokenPipeError"]


@pytest.mark.parametrize("thing", [None, "text", 5, []], ids=str)
def test_what_sendall_refuses(thing):
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            ours, peer = stream_pair()
            with ours, peer:
                try:
                    await loop.sock_sendall(ours, thing)
                except Exception as exc:
                    return type(exc).__name__, str(exc)
        return impl.run(main())
    assert same(body)[0] == "TypeError"


def test_sendall_of_items(impl):
    """A view of ints: asyncio counts items, and may send too much or too little."""
    if not better(impl, "sock"):
        return

    async def main():
        loop = asyncio.get_running_loop()
        for view in (memoryview(BIG).cast("I"), memoryview(BIG).cast("B", (4096, 2048))):
            ours, peer = stream_pair()
            with ours, peer:
                task = asyncio.create_task(loop.sock_sendall(ours, view))
                assert await take(peer, len(BIG)) == BIG
                await task
    impl.run(main())


def test_sendto():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            a, b = udp_pair()
            found = []
            with a, b:
                for data in (b"one", bytearray(b"two"), memoryview(b"three"), b""):
                    found.append(await loop.sock_sendto(a, data, b.getsockname()))
                    found.append((await loop.sock_recvfrom(b, 100))[0])
                for args in ((b"x", None), (b"x", "nonsense"), (b"x", ("127.0.0.1",)), ("text", b.getsockname()),
                             (b"x" * 70000, b.getsockname()), (b"x", ("127.0.0.1", 70000))):
                    try:
                        await loop.sock_sendto(a, *args)
                    except Exception as exc:
                        found.append((type(exc).__name__, str(exc)))
                assert clean(loop, a)
            return found
        return impl.run(main())
    same(body)


def test_sendto_that_has_to_wait(impl):
    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = datagram_pair()
        with ours, peer:
            name = peer.getsockname()
            count = 0
            while True:
                task = asyncio.create_task(loop.sock_sendto(ours, b"%d" % count, name))
                await io_settled()
                count += 1
                if not task.done():
                    break
                assert count < 10000
            for i in range(count):
                assert await loop.sock_recv(peer, 100) == b"%d" % i
            assert await task == len(b"%d" % (count - 1))
            assert clean(loop, ours)
    impl.run(main())


# Connecting and accepting

@pytest.mark.parametrize("kind", ["tcp4", "tcp6", "unix"])
def test_connect_and_accept(impl, kind):
    async def main():
        loop = asyncio.get_running_loop()
        with listener(kind) as server:
            for first in ("connect", "accept"):
                client = socket.socket(FAMILIES[kind])
                client.setblocking(False)
                if first == "accept":
                    accepting = asyncio.create_task(loop.sock_accept(server))
                    await io_settled()
                    assert not accepting.done()
                assert await loop.sock_connect(client, server.getsockname()) is None
                if first == "connect":
                    accepting = asyncio.create_task(loop.sock_accept(server))
                conn, address = await accepting
                assert type(conn) is socket.socket
                assert conn.gettimeout() == 0
                assert not os.get_inheritable(conn.fileno())
                assert address == (client.getsockname() or "")
                client.send(b"x")
                assert await loop.sock_recv(conn, 1) == b"x"
                assert clean(loop, server) and clean(loop, client)
                conn.close()
                client.close()
    impl.run(main())


def test_connect_by_name(impl):
    """The address is resolved for TCP, if need be."""
    async def main():
        loop = asyncio.get_running_loop()
        with listener() as server:
            port = server.getsockname()[1]
            for host, service in (("localhost", port), ("127.0.0.1", str(port)), ("127.1", port)):
                with socket.socket() as client:
                    client.setblocking(False)
                    await loop.sock_connect(client, (host, service))
                    assert client.getpeername() == ("127.0.0.1", port)
                    conn, _ = await loop.sock_accept(server)
                    conn.close()
    impl.run(main())


def test_errors_of_connect():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            found = []
            port = free_port()

            async def attempt(family, address):
                with socket.socket(family) as client:
                    client.setblocking(False)
                    try:
                        await loop.sock_connect(client, address)
                    except Exception as exc:
                        found.append((type(exc).__name__, str(exc).replace(str(port), "PORT"),
                                      getattr(exc, "errno", None)))
                    assert clean(loop, client)
            await attempt(socket.AF_INET, ("127.0.0.1", port))
            await attempt(socket.AF_UNIX, "/no/such/socket")
            await attempt(socket.AF_UNIX, b"\0no such name")
            await attempt(socket.AF_UNIX, 5)
            await attempt(socket.AF_UNIX, "x" * 300)
            await attempt(socket.AF_INET, ("127.0.0.1", 70000))
            await attempt(socket.AF_INET, "127.0.0.1")
            await attempt(socket.AF_INET, None)
            await attempt(socket.AF_INET, ())
            await attempt(socket.AF_INET, ("::1", port))
            return found
        return impl.run(main())
    assert same(body)[0][0] == "ConnectionRefusedError"


def test_refused_later(impl):
    """A connect in progress that fails."""
    async def main():
        loop = asyncio.get_running_loop()
        port = free_port()
        with socket.socket() as client:
            client.setblocking(False)
            with pytest.raises(ConnectionRefusedError) as info:
                await loop.sock_connect(client, ("127.0.0.1", port))
            assert str(info.value) == f"[Errno 111] Connect call failed ('127.0.0.1', {port})"
            assert clean(loop, client)
    impl.run(main())


def test_connect_of_a_datagram_socket(impl):
    async def main():
        loop = asyncio.get_running_loop()
        a, b = udp_pair()
        with a, b:
            await loop.sock_connect(a, b.getsockname())
            await loop.sock_sendall(a, b"x")
            assert await loop.sock_recvfrom(b, 10) == (b"x", a.getsockname())
    impl.run(main())


def test_errors_of_accept():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            found = []
            ours, peer = stream_pair()
            a, b = udp_pair()
            closed = socket.socket()
            closed.setblocking(False)
            closed.close()
            idle = socket.socket()
            idle.setblocking(False)
            with ours, peer, a, b, idle:
                for sock in (ours, a, closed, idle):
                    try:
                        await loop.sock_accept(sock)
                    except Exception as exc:
                        found.append((type(exc).__name__, str(exc)))
            return found
        return impl.run(main())
    same(body)


# What all of them refuse

CALLS = {
    "sock_recv": lambda loop, sock: loop.sock_recv(sock, 10),
    "sock_recv_into": lambda loop, sock: loop.sock_recv_into(sock, bytearray(10)),
    "sock_recvfrom": lambda loop, sock: loop.sock_recvfrom(sock, 10),
    "sock_recvfrom_into": lambda loop, sock: loop.sock_recvfrom_into(sock, bytearray(10)),
    "sock_sendall": lambda loop, sock: loop.sock_sendall(sock, BIG),
    "sock_sendto": lambda loop, sock: loop.sock_sendto(sock, b"x", ("127.0.0.1", 1)),
    "sock_connect": lambda loop, sock: loop.sock_connect(sock, ("127.0.0.1", 1)),
    "sock_accept": lambda loop, sock: loop.sock_accept(sock),
}
calls = pytest.mark.parametrize("name", CALLS)


@calls
def test_ssl_sockets_are_refused(name):
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            raw = socket.socket()
            context = ssl.create_default_context()
            with context.wrap_socket(raw, do_handshake_on_connect=False, server_hostname="x") as sock:
                coro = CALLS[name](loop, sock)
                try:
                    await coro
                except Exception as exc:
                    return type(exc).__name__, str(exc)
        return impl.run(main())
    assert same(body) == ["TypeError", "Socket cannot be of type SSLSocket"]


@calls
@pytest.mark.parametrize("timeout", [None, 5])
def test_blocking_sockets_are_refused_in_debug_mode(name, timeout):
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            with socket.socket() as sock:
                sock.settimeout(timeout)
                try:
                    await CALLS[name](loop, sock)
                except Exception as exc:
                    return type(exc).__name__, str(exc)
        return impl.run(main(), debug=True)
    assert same(body) == ["ValueError", "the socket must be non-blocking"]


@calls
@pytest.mark.parametrize("thing", [None, 5, "x", object()], ids=["None", "int", "str", "object"])
def test_what_is_no_socket(name, thing):
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            try:
                await CALLS[name](loop, thing)
            except Exception as exc:
                return type(exc).__name__
        return impl.run(main())
    assert same(body) == "AttributeError"


@calls
def test_closed_sockets(name):
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            sock = socket.socket()
            sock.setblocking(False)
            sock.close()
            try:
                await CALLS[name](loop, sock)
            except Exception as exc:
                return type(exc).__name__, str(exc)
        return impl.run(main())
    assert same(body) == ["OSError", "[Errno 9] Bad file descriptor"]


@calls
def test_nothing_happens_before_the_await(name):
    """They are coroutine functions: what they return does nothing until it is awaited, and can be closed."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            ours, peer = stream_pair()
            with ours, peer:
                peer.send(b"data")
                coro = CALLS[name](loop, ours)
                found = [asyncio.iscoroutine(coro)]
                coro.close()
                await io_settled()
                found.append(take_now(ours))
                found.append(clean(loop, ours))
            return found
        return impl.run(main())
    assert same(body) == [True, b"data", True]


@calls
def test_never_awaited_coroutine_warns(name):
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            ours, peer = stream_pair()
            with ours, peer, warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                CALLS[name](loop, ours)
                gc.collect()
                return [(w.category, "was never awaited" in str(w.message)) for w in caught]
        return impl.run(main())
    assert same(body) == [["RuntimeWarning", True]]


@calls
def test_in_tasks(name):
    """create_task(loop.sock_...()) and wait_for(loop.sock_...()) take what is returned."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            found = []
            ours, peer = stream_pair()
            with ours, peer:
                peer.send(b"xxxxx")
                for wrap in (lambda c: asyncio.create_task(c), lambda c: asyncio.wait_for(c, 0.001),
                             lambda c: asyncio.ensure_future(c), lambda c: asyncio.gather(c)):
                    try:
                        found.append(await asyncio.wait_for(wrap(CALLS[name](loop, ours)), 0.005))
                    except Exception as exc:
                        found.append(type(exc).__name__)
                found.append(clean(loop, ours))
            return found
        return impl.run(main())
    same(body)


def test_run_until_complete(impl):
    loop = impl.new_loop()
    ours, peer = stream_pair()
    with ours, peer:
        loop.call_later(0.001, peer.send, b"data")
        assert loop.run_until_complete(loop.sock_recv(ours, 10)) == b"data"
    loop.close()


@calls
def test_socket_of_a_transport(name):
    """What has to wait is refused; what need not is asyncio's own mistake."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            ours, peer = stream_pair()
            p = Stream()
            transport = await attach(p, ours)
            fd = ours.fileno()
            try:
                await CALLS[name](loop, ours)
            except Exception as exc:
                found = type(exc).__name__, neutral(exc).partition("<")[0].replace(str(fd), "FD")
            else:
                found = "done"
            transport.abort()
            await p.wait("connection_lost")
            peer.close()
            return found
        return impl.run(main())
    found = same(body)
    if name in ("sock_recv", "sock_recv_into", "sock_recvfrom", "sock_recvfrom_into", "sock_sendall"):
        assert found == ["RuntimeError", "File descriptor FD is used by transport "]


# Cancelling

WAITING = ("sock_recv", "sock_recv_into", "sock_recvfrom", "sock_recvfrom_into", "sock_sendall")


@pytest.mark.parametrize("name", WAITING)
def test_cancelled_while_waiting(name):
    """No watcher is left, and data that comes later is still there."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            ours, peer = stream_pair()
            with ours, peer:
                task = asyncio.create_task(CALLS[name](loop, ours))
                await io_settled()
                assert not task.done()
                task.cancel("stop it")
                try:
                    await task
                except asyncio.CancelledError as exc:
                    args = exc.args
                found = [clean(loop, ours), args]
                peer.send(b"data")
                await io_settled()
                found.append(await loop.sock_recv(ours, 10))
                return found
        return impl.run(main())
    assert same(body) == [True, ["stop it"], b"data"]


@pytest.mark.parametrize("name", WAITING[:4])
@pytest.mark.parametrize("rounds", range(4))
def test_cancelled_when_data_is_there(name, rounds):
    """Cancelled some iterations after the data came: either the data is returned, or it can be read again."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            ours, peer = stream_pair()
            with ours, peer:
                call, data = RECEIVE[name]
                task = asyncio.create_task(call(loop, ours))
                await io_settled()
                peer.send(b"data")
                for _ in range(rounds):
                    await asyncio.sleep(0)
                task.cancel()
                try:
                    got = data(await task)
                except asyncio.CancelledError:
                    got = b""
                await io_settled()
                assert clean(loop, ours)
                return got + take_now(ours)
        return impl.run(main())
    if rounds == 0:
        assert same(body) == b"data"
    else:
        # The data may have been read when the cancellation came: then it is lost, in asyncio as well.
        from support import IMPLS
        for impl in IMPLS.values():
            assert body(impl) in (b"data", b"")


def test_cancelled_before_it_starts(impl):
    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = stream_pair()
        with ours, peer:
            peer.send(b"data")
            for name in WAITING[:4]:
                task = asyncio.create_task(CALLS[name](loop, ours))
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert clean(loop, ours)
            assert take_now(ours) == b"data"
    impl.run(main())


@pytest.mark.parametrize("rounds", range(5))
def test_cancelled_accept_loses_no_connection(impl, rounds, log):
    """gh-153761: asyncio's may accept a connection for a cancelled future, and drop it."""
    async def main():
        loop = asyncio.get_running_loop()
        with listener() as server:
            task = asyncio.create_task(loop.sock_accept(server))
            await io_settled()
            client = socket.create_connection(server.getsockname())
            for _ in range(rounds):
                await asyncio.sleep(0)
            task.cancel()
            try:
                conn, _ = await task
            except asyncio.CancelledError:
                conn = None
            await io_settled()
            assert clean(loop, server)
            if conn is None and (better(impl, "sock") or rounds == 0):
                try:
                    conn, _ = server.accept()
                except BlockingIOError:
                    assert not better(impl, "sock")
            if conn is not None:
                conn.close()
            client.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        impl.run(main())
        gc.collect()
    if not better(impl, "sock"):
        log.take()


def test_cancelled_connect(impl):
    """No watcher is left, in any iteration (gh-131728), nor in the way of the next user of the number."""
    async def main():
        loop = asyncio.get_running_loop()
        with listener(backlog=0) as server:
            for rounds in range(6):
                client = socket.socket()
                client.setblocking(False)
                task = asyncio.create_task(loop.sock_connect(client, server.getsockname()))
                for _ in range(rounds):
                    await asyncio.sleep(0)
                task.cancel()
                try:
                    await task
                except asyncio.CancelledError:
                    pass
                fd = client.fileno()
                if better(impl, "sock"):
                    assert clean(loop, client)
                else:
                    await asyncio.sleep(0)
                client.close()
                ours, peer = stream_pair()
                await io_settled(1)
                assert loop.remove_writer(fd) is False
                ours.close()
                peer.close()
            with_accept = []
            while True:
                try:
                    with_accept.append(server.accept()[0])
                except BlockingIOError:
                    break
            for conn in with_accept:
                conn.close()
    impl.run(main())


@pytest.mark.parametrize("name", WAITING)
def test_wait_for(name):
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            ours, peer = stream_pair()
            with ours, peer:
                try:
                    await asyncio.wait_for(CALLS[name](loop, ours), 0.001)
                except TimeoutError:
                    return clean(loop, ours)
        return impl.run(main())
    assert same(body) is True


# Two at a time

@pytest.mark.parametrize("second", ["sock_recv", "sock_recvfrom", "sock_recv_into"])
def test_two_readers(second):
    """The later one takes the place of the earlier, which waits for ever, as in asyncio."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            ours, peer = stream_pair()
            with ours, peer:
                one = asyncio.create_task(loop.sock_recv(ours, 10))
                await io_settled()
                two = asyncio.create_task(CALLS[second](loop, ours))
                await io_settled()
                peer.send(b"data")
                await io_settled()
                found = [one.done(), two.done(), await two if second == "sock_recv" else None]
                peer.send(b"more")
                await io_settled()
                found.append(one.done())
                one.cancel()
                await asyncio.wait([one])
                found.append(clean(loop, ours))
                return found
        return impl.run(main())
    found = same(body)
    assert found[:2] == [False, True]


def test_cancelling_the_first_leaves_the_second(impl):
    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = stream_pair()
        with ours, peer:
            one = asyncio.create_task(loop.sock_recv(ours, 10))
            await io_settled()
            two = asyncio.create_task(loop.sock_recv(ours, 10))
            await io_settled()
            one.cancel()
            await asyncio.wait([one])
            await io_settled()
            peer.send(b"data")
            async with asyncio.timeout(5):
                assert await two == b"data"
    impl.run(main())


def test_reader_and_writer_of_one_socket(impl):
    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = stream_pair()
        with ours, peer:
            receiving = asyncio.create_task(loop.sock_recv(ours, 10))
            sending = asyncio.create_task(loop.sock_sendall(ours, BIG))
            await io_settled()
            assert not receiving.done() and not sending.done()
            peer.send(b"data")
            assert await receiving == b"data"
            receiving = asyncio.create_task(loop.sock_recv(ours, 10))
            assert await take(peer, len(BIG)) == BIG
            await sending
            peer.send(b"more")
            assert await receiving == b"more"
            assert clean(loop, ours)
    impl.run(main())


def test_add_reader_replaces_a_waiting_receive():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            ours, peer = stream_pair()
            with ours, peer:
                seen = []
                task = asyncio.create_task(loop.sock_recv(ours, 10))
                await io_settled()
                loop.add_reader(ours, lambda: seen.append(ours.recv(10)))
                peer.send(b"data")
                await io_settled()
                found = [seen, task.done()]
                task.cancel()
                await asyncio.wait([task])
                peer.send(b"more")
                await io_settled()
                found.append(loop.remove_reader(ours))
                return found, seen
        return impl.run(main())
    same(body)


def test_remove_reader_under_a_waiting_receive():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            ours, peer = stream_pair()
            with ours, peer:
                task = asyncio.create_task(loop.sock_recv(ours, 10))
                await io_settled()
                found = [loop.remove_reader(ours)]
                peer.send(b"data")
                await io_settled()
                found.append(task.done())
                task.cancel()
                await asyncio.wait([task])
                found.append(take_now(ours))
                return found
        return impl.run(main())
    assert same(body) == [True, False, b"data"]


# Sockets that are closed meanwhile, numbers that are used again

def test_number_used_again(impl):
    """A socket is closed after its receive was cancelled, the next one has the same number."""
    async def main():
        loop = asyncio.get_running_loop()
        for _ in range(20):
            ours, peer = stream_pair()
            task = asyncio.create_task(loop.sock_recv(ours, 10))
            await io_settled(1)
            fd = ours.fileno()
            task.cancel()
            await asyncio.wait([task])
            ours.close()
            peer.close()
            ours, peer = stream_pair()
            assert fd in (ours.fileno(), peer.fileno())
            for one, other in ((ours, peer), (peer, ours)):
                task = asyncio.create_task(loop.sock_recv(one, 10))
                await io_settled(1)
                other.send(b"data")
                async with asyncio.timeout(5):
                    assert await task == b"data"
            ours.close()
            peer.close()
    impl.run(main())


def test_number_used_again_while_somebody_waits(impl):
    """Closed under a waiting receive, and its number taken by another socket: that one works."""
    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = stream_pair()
        task = asyncio.create_task(loop.sock_recv(ours, 10))
        await io_settled()
        fd = ours.fileno()
        ours.close()
        peer.close()
        ours, peer = stream_pair()
        one, other = (ours, peer) if ours.fileno() == fd else (peer, ours)
        assert one.fileno() == fd
        if impl.is_fastloop:
            second = asyncio.create_task(loop.sock_recv(one, 10))
            await io_settled(1)
            other.send(b"data")
            async with asyncio.timeout(5):
                assert await second == b"data"
        task.cancel()
        await asyncio.wait([task])
        ours.close()
        peer.close()
    impl.run(main())


def test_closed_while_somebody_waits(impl):
    """Nothing happens; the waiting one can be cancelled.

    (asyncio's selector takes the next descriptor of that number for the old one.)
    """
    if not impl.is_fastloop:
        return

    async def main():
        loop = asyncio.get_running_loop()
        for name in WAITING:
            ours, peer = stream_pair()
            task = asyncio.create_task(CALLS[name](loop, ours))
            await io_settled()
            ours.close()
            peer.close()
            await io_settled()
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=5)
            assert done
            if not task.cancelled():
                assert isinstance(task.exception(), OSError)
    impl.run(main())


def test_end_of_the_loop_while_somebody_waits(impl):
    loop = impl.new_loop()
    reports = Reports(loop)
    ours, peer = stream_pair()
    with ours, peer:
        task = loop.create_task(loop.sock_recv(ours, 10))
        loop.run_until_complete(io_settled())
        loop.close()
        del task
        gc.collect()
    assert [r[0] for r in reports.list] == ["Task was destroyed but it is pending!"]
    loop.set_exception_handler(None)


def test_errors_have_no_cycles(impl):
    """A failed sock_connect() leaves nothing that only the collector finds."""
    async def main():
        loop = asyncio.get_running_loop()
        port = free_port()
        gc.collect()
        gc.disable()
        try:
            client = socket.socket()
            client.setblocking(False)
            try:
                await loop.sock_connect(client, ("127.0.0.1", port))
            except OSError:
                pass
            client.close()
            await asyncio.sleep(0)
            import weakref
            ref = weakref.ref(client)
            del client
            assert ref() is None
        finally:
            gc.enable()
    impl.run(main())


def test_much_through_bare_sockets(impl):
    """16 MiB by sock_sendall and sock_recv_into, at the same time in both directions."""
    async def main():
        loop = asyncio.get_running_loop()
        a, b = stream_pair("tcp4")
        with a, b:
            async def receive(sock):
                got = bytearray(len(BIG) * 2)
                view = memoryview(got)
                n = 0
                while n < len(got):
                    n += await loop.sock_recv_into(sock, view[n:])
                return got == BIG * 2

            async def send(sock):
                await loop.sock_sendall(sock, BIG)
                await loop.sock_sendall(sock, BIG)
            found = await asyncio.gather(receive(a), receive(b), send(a), send(b))
            assert found[:2] == [True, True]
    impl.run(main())


@pytest.mark.parametrize("exc", [KeyboardInterrupt, SystemExit, ValueError])
def test_socket_class_that_raises(exc, impl):
    """A subclass of socket.socket: its recv() is called, and what it raises arrives."""
    class Raising(socket.socket):
        calls = 0

        def recv(self, n):
            Raising.calls += 1
            if Raising.calls == 2:
                raise exc("recv")
            return super().recv(n)

    loop = impl.new_loop()
    a, peer = stream_pair()
    ours = Raising(fileno=a.detach())
    ours.setblocking(False)
    with ours, peer:
        task = loop.create_task(loop.sock_recv(ours, 10))
        loop.run_until_complete(io_settled())
        peer.send(b"x")
        if exc is ValueError:
            with pytest.raises(ValueError):
                loop.run_until_complete(task)
        else:
            with pytest.raises(exc):
                loop.run_until_complete(io_settled())
            task.cancel()
            loop.run_until_complete(asyncio.wait([task]))
    loop.close()


def test_duck_socket(impl):
    """Any object with the methods of a socket (a TransportSocket no longer has them)."""
    class Duck:
        def __init__(self, sock):
            self.sock = sock

        def __getattr__(self, name):
            return getattr(self.sock, name)

    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = stream_pair()
        with ours, peer:
            duck = Duck(ours)
            task = asyncio.create_task(loop.sock_recv(duck, 10))
            await io_settled()
            peer.send(b"data")
            assert await task == b"data"
            await loop.sock_sendall(duck, b"reply")
            assert await take(peer, 5) == b"reply"
    impl.run(main())
