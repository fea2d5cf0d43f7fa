"""Findings of a review of the stream transports; each fails before its fix."""

import asyncio
import contextlib
import gc
import mmap
import os
import socket
import subprocess
import sys
import textwrap

import pytest

from support import FASTLOOP, PY, same
from support.net import (
    Stream, attach, connected, folder, io_settled, reset, settle_loop, stream_pair,
    take_now)


def run_script(impl_name, code, timeout=20):
    """`code` in a Python of its own; new_loop() is there."""
    source = "import asyncio, os, socket, sys\n"
    if impl_name == "fastloop":
        source += "import fastloop\nnew_loop = fastloop.Loop\n"
    else:
        source += "new_loop = asyncio.SelectorEventLoop\n"
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    return subprocess.run([sys.executable, "-P", "-c", source + textwrap.dedent(code)], env=env,
                          capture_output=True, text=True, timeout=timeout)


# Reading

@pytest.mark.parametrize("size", [4096 - 64, 65536 - 64])
def test_reset_right_after_a_full_buffer(size):
    """The second recv() of one read takes the socket's error out of the kernel: it must not be forgotten."""
    def body(impl):
        async def main():
            p = Stream()
            ours, peer = stream_pair("tcp4")
            if size > 4096:  # one full read first, so that the connection uses the next size
                peer.send(b"x" * 4032)
            transport = await attach(p, ours)
            await io_settled(2)
            transport.pause_reading()
            peer.setblocking(True)
            peer.sendall(b"y" * size)
            await io_settled(2)
            reset(peer)
            await io_settled(2)
            transport.resume_reading()
            await p.wait("connection_lost")
            return [e for e in p.trace if e[0] in ("eof_received", "connection_lost")], len(p.received)
        return impl.run(main())
    trace, _ = same(body)
    assert trace == [["connection_lost", "ConnectionResetError"]]


# Held writes

def test_write_from_pause_writing_at_the_end_of_a_turn():
    """What a callback of the flush writes to another connection must not wait for the next event."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            a, b = Stream(), Stream()
            async with connected(a, buffers=4096) as (ta, _), connected(b) as (tb, peer_b):
                a.on["pause_writing"] = lambda p: tb.write(b"stop it")
                await io_settled()
                ta.write(b"a" * 8000)
                ta.write(b"a" * 8000)
                ta.write(b"a" * 8000)
                ta.write(b"a" * 8000)
                ta.set_write_buffer_limits(high=0)
                done = loop.create_future()
                loop.call_later(1, done.set_result, None)
                peer_b.setblocking(False)
                loop.add_reader(peer_b, lambda: done.done() or done.set_result(take_now(peer_b)))
                got = await done
                loop.remove_reader(peer_b)
                return got
        return impl.run(main())
    assert same(body) == b"stop it"


@pytest.mark.parametrize("how", ["exit", "return", "close", "abort"])
@pytest.mark.parametrize("impl_name", ["fastloop"])  # asyncio's child hangs in 3.14
def test_fork_in_the_turn_of_a_write(impl_name, how):
    """What was written before a fork is sent once, and not by the child as well."""
    found = run_script(impl_name, f"""
        how = {how!r}
        loop = new_loop()
        ours, peer = socket.socketpair()
        ours.setblocking(False)
        async def main():
            transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, ours)
            await asyncio.sleep(0.01)
            transport.write(b"once")
            pid = os.fork()
            if pid == 0:
                if how == "exit":
                    raise SystemExit(0)
                if how == "return":
                    return
                if how == "close":
                    transport.close()
                if how == "abort":
                    transport.abort()
                os._exit(0)
            await asyncio.sleep(0)
            os.waitpid(pid, 0)
            await asyncio.sleep(0.05)
            peer.setblocking(False)
            print(peer.recv(100))
            transport.abort()
        parent = os.getpid()
        try:
            loop.run_until_complete(main())
        except BaseException:
            if os.getpid() == parent:
                raise
        os.getpid() == parent or os._exit(0)
    """)
    assert found.stdout.strip() == "b'once'", found


def test_shutdown_of_the_socket_after_a_write():
    """asyncio sent it before write() returned; the socket object can be used right after."""
    def body(impl):
        async def main():
            p = Stream()
            async with connected(p) as (transport, peer):
                await io_settled()
                transport.write(b"last words")
                transport.get_extra_info("socket").shutdown(socket.SHUT_WR)
                await io_settled()
                return take_now(peer), p.names()
        return impl.run(main())
    assert same(body)[0] == b"last words"


@pytest.mark.skipif(PY < (3, 14), reason="asks no piece whether it is true")
def test_close_while_pieces_are_converted():
    """close() amid writelines(), from a piece's own code, must still end in connection_lost()."""
    def body(impl):
        class Closing(bytearray):
            def __bool__(self):
                if not transport.is_closing():
                    transport.close()
                return True

        async def main():
            nonlocal transport
            p = Stream()
            async with connected(p) as (transport, peer):
                await io_settled()
                transport.writelines([b"one", Closing(b"two")])
                await io_settled(5)
                return p.lost
        transport = None
        return impl.run(main())
    assert body(FASTLOOP) is True


def test_held_write_then_no_memory():
    """The list of held channels cannot grow: write() raises, and must not leave a transport that sends nothing more."""
    testcapi = pytest.importorskip("_testcapi")

    async def main():
        ours, peer = stream_pair()
        protocol = Stream()
        transport = await attach(protocol, ours)
        write, data, error = transport.write, b"x", None
        testcapi.set_nomemory(0, 1)
        try:
            write(data)
        except MemoryError as exc:
            error = exc
        finally:
            testcapi.remove_mem_hooks()
        await io_settled()
        transport.write(b"y")
        await io_settled()
        got = take_now(peer)
        transport.abort()
        await io_settled()
        peer.close()
        return error is not None, got
    # One of the writes may be refused, but not both lost in silence.
    failed, got = FASTLOOP.run(main())
    assert got in (b"y", b"xy")


def test_reset_with_a_held_write():
    """The error that ended the connection is the read's, not the one of the write that was held meanwhile."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            p = Stream()
            ours, peer = stream_pair("tcp4")
            transport = await attach(p, ours)
            await io_settled()
            reset(peer)
            loop.call_soon(transport.write, b"x")
            await p.wait("connection_lost")
            return p.trace[-1]
        return impl.run(main())
    assert same(body) == ["connection_lost", "ConnectionResetError"]


@pytest.mark.skipif(PY < (3, 12), reason="writelines() joins there")
def test_connection_lost_while_pieces_are_converted():
    """The transport's loop is gone when the piece's own code returns."""
    found = run_script("fastloop", """
        loop = new_loop()
        ours, peer = socket.socketpair()
        ours.setblocking(False)
        async def main():
            transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, ours)
            class Piece(bytearray):
                def __bool__(self):
                    transport._call_connection_lost(None)
                    return True
            transport.writelines([b"one", Piece(b"two")])
        loop.run_until_complete(main())
        print("alive")
    """)
    assert found.stdout.strip() == "alive", found


@pytest.mark.skipif(PY < (3, 12), reason="__buffer__")
def test_connection_lost_while_data_is_asked_for_its_buffer():
    found = run_script("fastloop", """
        loop = new_loop()
        ours, peer = socket.socketpair()
        ours.setblocking(False)
        async def main():
            transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, ours)
            class Data(bytearray):
                def __buffer__(self, flags):
                    transport._call_connection_lost(None)
                    return memoryview(b"data")
            transport.write(Data(b"two"))
        loop.run_until_complete(main())
        print("alive")
    """)
    assert found.stdout.strip() == "alive", found


def test_partial_write_then_no_memory():
    """write() sent a part and cannot keep the rest: the connection must not go on as if nothing was sent."""
    def body(impl):
        async def main():
            p = Stream()
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda *_: None)
            async with connected(p) as (transport, peer):
                m = mmap.mmap(-1, 1 << 46, flags=mmap.MAP_PRIVATE | 0x4000, prot=mmap.PROT_READ)
                v = memoryview(m)
                error = None
                try:
                    transport.write(v)
                except MemoryError as exc:
                    error = exc
                await io_settled()
                sent = len(take_now(peer))
                transport.write(b"another message")
                await io_settled()
                corrupted = take_now(peer).endswith(b"another message")
                transport.abort()
                await io_settled()
                return sent > 0 and error is not None and corrupted
        return impl.run(main())
    assert body(FASTLOOP) is False


# The socket object

def test_two_socket_objects_at_once():
    """get_extra_info('socket') within get_extra_info('socket'): one descriptor, closed once."""
    async def main():
        loop = asyncio.get_running_loop()
        p = Stream()
        server = await loop.create_server(lambda: p, "127.0.0.1", 0)
        peer = socket.create_connection(server.sockets[0].getsockname())
        await p.wait("connection_made")
        transport = p.transport
        inner = []

        def profile(frame, event, arg):
            if event == "call" and frame.f_code is socket.socket.__init__.__code__ and not inner:
                inner.append(None)
                inner.append(transport.get_extra_info("socket"))
        sys.setprofile(profile)
        try:
            transport.get_extra_info("socket")
        finally:
            sys.setprofile(None)
        fd = transport.get_extra_info("socket").fileno()
        try:
            os.fstat(fd)
            open_still = True
        except OSError:
            open_still = False
        if open_still:
            transport.abort()
        else:
            # nothing else may be closed in its stead
            r, w = os.pipe()
            transport.abort()
            await io_settled()
        server.close()
        peer.close()
        await io_settled()
        return open_still
    assert FASTLOOP.run(main()) is True


def test_socket_object_that_cannot_be_made():
    """An exception out of socket.__init__ (a signal, say) leaves a dead object that closes the descriptor."""
    async def main():
        loop = asyncio.get_running_loop()
        p = Stream()
        server = await loop.create_server(lambda: p, "127.0.0.1", 0)
        peer = socket.create_connection(server.sockets[0].getsockname())
        await p.wait("connection_made")
        transport = p.transport
        fd = transport._sock_fd
        original = socket.socket.__init__

        def interrupted(self, *args, **kwargs):
            original(self, *args, **kwargs)
            raise ZeroDivisionError
        socket.socket.__init__ = interrupted
        try:
            with contextlib.suppress(ZeroDivisionError):
                transport.get_extra_info("socket")
        finally:
            socket.socket.__init__ = original
        gc.collect()
        r, w = os.pipe()  # may get the number
        transport.abort()
        await io_settled()
        closed = []
        for n in (r, w):
            try:
                os.close(n)
            except OSError:
                closed.append(n)
        server.close()
        peer.close()
        return closed
    assert FASTLOOP.run(main()) == []


def test_sockname_of_a_closed_unix_connection():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            p = Stream()
            with folder() as path:
                name = os.path.join(path, "s")
                server = await loop.create_unix_server(lambda: p, name)
                peer = socket.socket(socket.AF_UNIX)
                peer.bind(os.path.join(path, "c"))
                peer.connect(name)
                await p.wait("connection_made")
                p.transport.abort()
                await io_settled()
                found = [os.path.basename(p.transport.get_extra_info(n) or "None")
                         for n in ("sockname", "peername")]
                server.close()
                peer.close()
                return found
        return impl.run(main())
    assert same(body) == ["s", "c"]


# Servers

def test_loop_closed_between_accept_and_protocol():
    """A connection that was accepted in the loop's last iteration is dropped without noise."""
    unraisable = []
    hook, sys.unraisablehook = sys.unraisablehook, lambda u: unraisable.append(repr(u.exc_value))
    try:
        loop = FASTLOOP.new_loop()
        server = loop.run_until_complete(loop.create_server(Stream, "127.0.0.1", 0))
        settle_loop(loop)
        peer = socket.create_connection(server.sockets[0].getsockname())
        loop.call_soon(loop.stop)
        loop.run_forever()  # accepts; the protocol would be made in the next iteration
        server.close()
        with pytest.warns(ResourceWarning):
            loop.close()
            gc.collect()
        peer.close()
    finally:
        sys.unraisablehook = hook
    assert unraisable == []


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("debug", [False, True])
def test_server_whose_factory_forgets_to_return(debug):
    """A failed transport leaves its server's count: wait_closed() must not wait for it."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda *_: None)
            server = await loop.create_server(lambda: None, "127.0.0.1", 0)
            peer = socket.create_connection(server.sockets[0].getsockname())
            await io_settled(5)
            gc.collect()
            active = server._active_count if hasattr(server, "_active_count") else len(server._clients)
            server.close()
            try:
                async with asyncio.timeout(1):
                    await server.wait_closed()
                closed = True
            except TimeoutError:
                closed = False
            peer.close()
            return active, closed
        return impl.run(main(), debug)
    assert body(FASTLOOP) == (0, True)


# Descriptors

@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_descriptor_used_again_behind_a_transports_back():
    """The user closes a transport's socket; a server's next connection gets the number, and keeps its reader."""
    async def main():
        loop = asyncio.get_running_loop()
        a, b = Stream(), Stream()
        ours, peer = stream_pair()
        server = await loop.create_server(lambda: b, "127.0.0.1", 0)
        client = socket.socket()
        ta = await attach(a, ours)
        await io_settled()
        fd = ours.fileno()
        client.setblocking(True)
        client.connect(server.sockets[0].getsockname())
        ours.close()
        await b.wait("connection_made")
        assert b.transport._sock_fd == fd
        await io_settled()
        ta.abort()
        await io_settled()
        client.send(b"hello")
        await io_settled()
        got = bytes(b.received)
        b.transport.abort()
        server.close()
        client.close()
        peer.close()
        await io_settled()
        return got
    assert FASTLOOP.run(main()) == b"hello"


def test_abort_amid_sendfile_and_the_descriptors_next_life(tmp_path):
    """sendfile's own writer must not outlive the transport on the descriptor's number."""
    path = tmp_path / "f"
    path.write_bytes(b"z" * (1 << 22))

    async def main():
        loop = asyncio.get_running_loop()
        reports = []
        loop.set_exception_handler(lambda l, c: reports.append(c["message"]))
        a, b = Stream(), Stream()
        ours, peer = stream_pair(buffers=4096)
        fd = ours.fileno()
        ta = await attach(a, ours)
        with open(path, "rb") as file:
            sending = asyncio.ensure_future(loop.sendfile(ta, file, fallback=False))
            await io_settled()
            ta.abort()
            await io_settled()
            done_soon = sending.done()
            # the next connection
            b1, b2 = stream_pair()
            if b1.fileno() != fd:
                os.dup2(b1.fileno(), fd)
                b1.close()
                b1 = socket.socket(fileno=fd)
            b1.setblocking(False)
            tb = await attach(b, b1)
            await io_settled(5)
            n = len(reports)
            b2.send(b"hi")
            await io_settled()
            got = bytes(b.received)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            tb.abort()
            await io_settled()
            peer.close()
            b2.close()
            return done_soon, n, got
    assert FASTLOOP.run(main()) == (True, 0, b"hi")
