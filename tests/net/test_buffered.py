"""BufferedProtocol: what get_buffer() may return, and what becomes of it."""

import array
import asyncio
import ctypes
import gc
import mmap
import random
import weakref

import pytest

from support import PY, same
from support.net import (
    KINDS, Buffered, Notes, Peer, Reports, Stream, attach, better, connected, io_settled, neutral, stream_pair)

kinds = pytest.mark.parametrize("kind", KINDS)


class Giving(Notes, asyncio.BufferedProtocol):
    """get_buffer() returns what a function makes; what arrives is read from `keep`."""

    def __init__(self, make, on=None):
        super().__init__(on)
        self.make = make
        self.keep = None
        self.hints = []

    def get_buffer(self, sizehint):
        self.hints.append(sizehint)
        self.keep = self.make()
        return self.keep

    def buffer_updated(self, nbytes):
        data = memoryview(self.keep).cast("B")[:nbytes].tobytes()
        self.received += data
        self.note("buffer_updated", type(nbytes).__name__)
        self._act("buffer_updated", nbytes)

    def eof_received(self):
        self.note("eof_received")
        return self._act("eof_received")


BUFFERS = {
    "bytearray": lambda: bytearray(1000),
    "bytearray of one byte": lambda: bytearray(1),
    "view": lambda: memoryview(bytearray(1000)),
    "slice": lambda: memoryview(bytearray(1000))[500:700],
    "array of bytes": lambda: array.array("B", bytes(1000)),
    "signed bytes": lambda: array.array("b", bytes(1000)),
    "ctypes array": lambda: (ctypes.c_char * 1000)(),
    "mmap": lambda: mmap.mmap(-1, 4096),
    "bytearray subclass": lambda: type("B", (bytearray,), {})(1000),
    "two dimensions": lambda: memoryview(bytearray(1000)).cast("B", (10, 100)),
    "large": lambda: bytearray(1 << 20),
    "doubles": lambda: array.array("d", [0.0] * 100),
    "ints": lambda: array.array("i", [0] * 100),
}


@kinds
@pytest.mark.parametrize("what", BUFFERS)
def test_writable_buffers(kind, what):
    def body(impl):
        async def main():
            reports = Reports(asyncio.get_running_loop())
            made = []

            def make():
                if not made:
                    made.append(BUFFERS[what]())
                return made[0]
            p = Giving(make)
            async with connected(p, kind) as (transport, peer):
                for piece in (b"first", b"second" * 20, b"x"):
                    peer.send(piece)
                    await io_settled()
                    while len(piece) > 1 and not p.received.endswith(piece):
                        await p.wait("buffer_updated", p.names().count("buffer_updated") + 1)
                peer.close()
                await p.wait("connection_lost")
                kinds = {e for e in p.trace if e[0] == "buffer_updated"}
                return bytes(p.received), kinds == {("buffer_updated", "int")}, set(p.hints), p.trace[-1], reports.take()
        return impl.run(main())
    assert same(body) == [b"first" + b"second" * 20 + b"x", True, {-1}, ["connection_lost", None], []]


WRONG = {
    "empty bytearray": lambda: bytearray(),
    "empty view": lambda: memoryview(bytearray(10))[5:5],
    "bytes": lambda: b"read-only",
    "read-only view": lambda: memoryview(bytearray(10)).toreadonly(),
    "None": lambda: None,
    "str": lambda: "text",
    "int": lambda: 5,
    "list": lambda: [1, 2, 3],
    "empty list": lambda: [],
    "object": lambda: object(),
    "generator": lambda: (x for x in ()),
    "view with gaps": lambda: memoryview(bytearray(10))[::2],
    "released view": lambda: _released(),
    "closed mmap": lambda: _closed(),
}


def _released():
    view = memoryview(bytearray(10))
    view.release()
    return view


def _closed():
    area = mmap.mmap(-1, 4096)
    area.close()
    return area


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_buffer(what):
    """The connection ends, with one report that has the exception's kind and asyncio's message.

    Which of asyncio's two messages it is depends on whether len() works.
    """
    def body(impl):
        async def main():
            reports = Reports(asyncio.get_running_loop())
            p = Giving(WRONG[what])
            async with connected(p) as (transport, peer):
                peer.send(b"data")
                await p.wait("connection_lost")
                ((message, keys, (exc, text)),) = reports.take()
                return message, keys, exc, p.trace
        return impl.run(main())
    message, keys, exc, trace = same(body)
    assert message in ("Fatal error: protocol.get_buffer() call failed.", "Fatal read error on socket transport")
    assert keys == ["exception", "message", "protocol", "transport"]
    assert trace == [["connection_made"], ["connection_lost", exc]]


def test_text_for_an_empty_buffer():
    def body(impl):
        async def main():
            reports = Reports(asyncio.get_running_loop())
            p = Giving(bytearray)
            async with connected(p) as (transport, peer):
                peer.send(b"data")
                await p.wait("connection_lost")
                return reports.take()
        return impl.run(main())
    ((message, _, exc),) = same(body)
    assert message == "Fatal error: protocol.get_buffer() call failed."
    assert exc == ["RuntimeError", "get_buffer() returned an empty buffer"]


def test_empty_buffer_is_an_error_at_the_end_too():
    """get_buffer() is called before the end of the stream is seen."""
    def body(impl):
        async def main():
            reports = Reports(asyncio.get_running_loop())
            p = Giving(bytearray)
            async with connected(p) as (transport, peer):
                peer.close()
                await p.wait("connection_lost")
                return p.trace, len(reports.take())
        return impl.run(main())
    assert same(body)[1] == 1


def test_buffer_is_let_go(impl):
    """Not exported any more when buffer_updated() runs: it may be resized there."""
    async def main():
        buffer = bytearray(100)

        def resize(p, nbytes):
            buffer.extend(bytes(1000))
            del buffer[100:]
        p = Giving(lambda: buffer, {"buffer_updated": resize})
        async with connected(p) as (transport, peer):
            for i in range(3):
                peer.send(b"data")
                await p.until(lambda: len(p.received) == 4 * i + 4)
            peer.close()
            await p.wait("connection_lost")
            buffer.clear()
    impl.run(main())


def test_buffer_of_a_paused_transport_is_let_go(impl):
    """No get_buffer() in advance."""
    async def main():
        buffer = bytearray(100)
        p = Giving(lambda: buffer)
        async with connected(p) as (transport, peer):
            await io_settled()
            assert p.hints == []
            buffer.extend(b"x")
            transport.pause_reading()
            peer.send(b"data")
            await io_settled()
            assert p.hints == []
            buffer.clear()
            buffer.extend(bytes(10))
            transport.resume_reading()
            await p.until(lambda: p.received == b"data")
            hints = len(p.hints)
            await io_settled()
            assert len(p.hints) == hints
    impl.run(main())


def test_buffers_are_not_kept(impl):
    class Buffer(bytearray):
        pass
    refs = []

    def make():
        buffer = Buffer(100)
        refs.append(weakref.ref(buffer))
        return buffer

    async def main():
        p = Giving(make)
        async with connected(p) as (transport, peer):
            for i in range(5):
                peer.send(b"data")
                await p.until(lambda: len(p.received) == 4 * i + 4)
            p.keep = None
            await io_settled()
            gc.collect()
            assert [ref() for ref in refs] == [None] * len(refs)
    impl.run(main())


def test_how_often_get_buffer_is_called():
    """Once for each buffer_updated(), and once for the end."""
    def body(impl):
        async def main():
            p = Giving(lambda: bytearray(100))
            async with connected(p) as (transport, peer):
                for i in range(3):
                    peer.send(b"x" * 50)
                    await io_settled()
                peer.close()
                await p.wait("connection_lost")
                return p.trace, p.hints
        return impl.run(main())
    assert same(body)[1] == [-1] * 4


@kinds
@pytest.mark.parametrize("size", [1, 7, 1000, 65536, 1 << 20])
def test_integrity(impl, kind, size):
    """Whatever the buffer's size, the bytes are those that were sent, in order."""
    total = min(size * 3000, 4 << 20)
    data = random.Random(size).randbytes(total)

    async def main():
        p = Giving(lambda: buffer)
        buffer = bytearray(size)
        ours, peer = stream_pair(kind)
        transport = await attach(p, ours)

        def send(sock):
            sock.settimeout(10)
            sock.sendall(data)
            sock.close()
        sender = Peer(send, peer)
        await p.wait("connection_lost")
        assert p.received == data
        sender.finish()
        assert transport.is_closing()
    impl.run(main())


def test_different_buffer_each_time(impl):
    data = random.Random(9).randbytes(300000)

    async def main():
        source = random.Random(2)
        p = Giving(lambda: memoryview(bytearray(5000))[source.randrange(2000):2000 + source.randrange(1, 3000)])
        async with connected(p) as (transport, peer):
            for start in range(0, len(data), 10000):
                peer.send(data[start:start + 10000])
                await p.until(lambda: len(p.received) >= start + 10000)
            assert p.received == data
    impl.run(main())


def test_rest_of_the_buffer_is_untouched(impl):
    async def main():
        buffer = bytearray(b"." * 100)
        p = Giving(lambda: memoryview(buffer)[10:20])
        async with connected(p) as (transport, peer):
            peer.send(b"abc")
            await p.until(lambda: p.received == b"abc")
            assert buffer == b"." * 10 + b"abc" + b"." * 87
    impl.run(main())


# Re-entrance

@pytest.mark.parametrize("action", ["close", "abort", "pause_reading"])
def test_get_buffer_ends_the_reading(action):
    """asyncio reads all the same what get_buffer() was called for."""
    def body(impl):
        async def main():
            p = Buffered({"get_buffer": lambda p, hint: getattr(p.transport, action)()})
            async with connected(p) as (transport, peer):
                peer.send(b"data")
                await io_settled()
                trace = list(p.trace)
                transport.close()
                await io_settled()
                return trace
        return impl.run(main())
    same(body)


def test_get_buffer_closes_the_socket(impl):
    """Behind the transport's back: an error, no crash."""
    async def main():
        loop = asyncio.get_running_loop()
        reports = Reports(loop)
        p = Buffered()
        async with connected(p) as (transport, peer):
            sock = transport.get_extra_info("socket")
            null = open("/dev/null", "r+b", buffering=0)
            import os
            keep = os.dup(sock.fileno())

            def spoil(p, hint):
                os.dup2(null.fileno(), sock.fileno())
            p.on["get_buffer"] = spoil
            peer.send(b"data")
            await io_settled()
            if not p.lost:
                os.dup2(keep, sock.fileno())
                transport.abort()
            await p.wait("connection_lost")
            os.close(keep)
            null.close()
        reports.take()
    impl.run(main())


def test_switch_to_protocol_and_back_within_one_burst(impl):
    """Each byte goes to exactly one of them, in order."""
    async def main():
        seen = bytearray()
        data = bytes(range(256)) * 40
        old = []

        class A(asyncio.Protocol):
            def connection_made(self, transport):
                self.transport = transport

            def data_received(self, chunk):
                seen.extend(chunk)
                switch(self.transport, B)

            def connection_lost(self, exc):
                old.append("lost")

        class B(asyncio.BufferedProtocol):
            def get_buffer(self, hint):
                self.buffer = bytearray(100)
                return self.buffer

            def buffer_updated(self, nbytes):
                seen.extend(self.buffer[:nbytes])
                switch(self.transport, A)

            def connection_lost(self, exc):
                old.append("lost")

        def switch(transport, make):
            protocol = make()
            protocol.transport = transport
            transport.set_protocol(protocol)
        async with connected(A()) as (transport, peer):
            for start in range(0, len(data), 1000):
                peer.send(data[start:start + 1000])
                await io_settled(1)
            peer.close()
            while not old:
                await io_settled(1)
        assert seen == data
    impl.run(main())


# Exporters that misbehave (PEP 688)

needs_pep688 = pytest.mark.skipif(PY < (3, 12), reason="__buffer__ in Python classes is new in 3.12")


class Exporter:
    """Exports `area` and tells what is asked of it; `on` holds what it does besides."""

    def __init__(self, log, size=100, on_get=None, on_release=None):
        self.area = bytearray(size)
        self.log = log
        self.on_get = on_get
        self.on_release = on_release

    def __len__(self):
        return len(self.area)

    def __buffer__(self, flags):
        self.log.append("get")
        if self.on_get is not None:
            self.on_get()
        return memoryview(self.area)

    def __release_buffer__(self, view):
        view.release()
        if not hasattr(self, "log"):
            return  # the collector has been here
        self.log.append("release")
        if self.on_release is not None:
            self.on_release()


@needs_pep688
def test_python_exporter(impl):
    """Taken once and released once for each read."""
    async def main():
        log = []
        p = Buffered({"get_buffer": lambda p, hint: exporter,
                      "buffer_updated": lambda p, n: log.append(bytes(exporter.area[:n]))})
        exporter = Exporter(log)
        async with connected(p) as (transport, peer):
            peer.send(b"abc")
            await p.wait("buffer_updated")
            peer.close()
            await p.wait("connection_lost")
        assert log == ["get", "release", b"abc", "get", "release"]
    impl.run(main())


def _raise():
    raise KeyError("exporter")


@needs_pep688
def test_exporter_raises():
    def body(impl):
        async def main():
            reports = Reports(asyncio.get_running_loop())
            log = []
            exporter = Exporter(log, on_get=_raise)
            p = Buffered({"get_buffer": lambda p, hint: exporter})
            async with connected(p) as (transport, peer):
                peer.send(b"abc")
                await p.wait("connection_lost")
                ((message, keys, (exc, _)),) = reports.take()
                assert p.trace == [("connection_made",), ("get_buffer", -1), ("connection_lost", exc)]
                # socket.recv_into() makes a TypeError of it
                assert exc == "TypeError" or impl.is_fastloop and exc == "KeyError"
                return message, keys
        return impl.run(main())
    assert same(body)[0] == "Fatal read error on socket transport"


@needs_pep688
def test_exporter_raises_when_released(impl):
    """Unraisable, or an error of the connection; the descriptor is closed either way."""
    import sys

    async def main():
        reports = Reports(asyncio.get_running_loop())
        log = []
        exporter = Exporter(log, on_release=_raise)
        p = Buffered({"get_buffer": lambda p, hint: exporter})
        unraisable = []
        hook, sys.unraisablehook = sys.unraisablehook, lambda info: unraisable.append(type(info.exc_value).__name__)
        try:
            async with connected(p) as (transport, peer):
                peer.send(b"abc")
                await io_settled()
                transport.close()
                await p.wait("connection_lost")
        finally:
            sys.unraisablehook = hook
        assert log[:2] == ["get", "release"]
        assert set(unraisable) == {"KeyError"} or reports.take()
    impl.run(main())


@needs_pep688
@pytest.mark.parametrize("moment", ["on_get", "on_release"])
@pytest.mark.parametrize("action", ["close", "abort", "pause_reading", "set_protocol", "write", "gc", "stop"])
def test_exporter_acts(impl, moment, action):
    """Whatever an exporter does to its transport: no crash, one connection_lost(), nothing after it."""
    async def main():
        reports = Reports(asyncio.get_running_loop())
        log = []
        done = []

        def act():
            if done:
                return
            done.append(1)
            if action == "gc":
                gc.collect()
            elif action == "set_protocol":
                other = Stream(trace=p.trace)
                other.transport = transport
                transport.set_protocol(other)
            elif action == "write":
                transport.write(bytes(1 << 20))
            elif action == "stop":
                transport.abort()
                transport.set_protocol(p)
                p.on.clear()
            else:
                getattr(transport, action)()
        exporter = Exporter(log, **{moment: act})
        p = Buffered({"get_buffer": lambda p, hint: exporter})
        async with connected(p) as (transport, peer):
            peer.send(b"abc")
            await io_settled()
            assert done
            peer.send(b"def") if not transport.is_closing() else None
            await io_settled()
            transport.abort()
            for _ in range(3):
                await io_settled()
            names = p.names()
            assert names.count("connection_lost") == 1
            assert names[-1] == "connection_lost"
            assert log.count("get") == log.count("release")
        reports.take()
    impl.run(main())


@needs_pep688
def test_exporter_gives_another_size(impl):
    """len() says 100, the buffer has 10 bytes: only those are written to."""
    class Liar(Exporter):
        def __len__(self):
            return 100

    async def main():
        log = []
        exporter = Liar(log, size=10)
        p = Giving(lambda: exporter)
        p.buffer_updated = lambda n: p.received.extend(exporter.area[:n])
        async with connected(p) as (transport, peer):
            peer.send(b"0123456789abcdef")
            await io_settled()
            await io_settled()
            assert p.received == b"0123456789abcdef"
    impl.run(main())


@needs_pep688
def test_exporter_of_nothing(impl):
    """len() is positive, the buffer empty: no endless loop, no false end of the stream without closing."""
    class Liar(Exporter):
        def __len__(self):
            return 100

    async def main():
        reports = Reports(asyncio.get_running_loop())
        exporter = Liar([], size=0)
        p = Buffered({"get_buffer": lambda p, hint: exporter})
        async with connected(p) as (transport, peer):
            peer.send(b"x")
            await p.wait("connection_lost")
        reports.take()
    impl.run(main())


# write() of exporters

@needs_pep688
def test_writelines_of_exporters(impl):
    async def main():
        log = []
        p = Stream()
        async with connected(p) as (transport, peer):
            exporters = [Exporter(log, size=5), Exporter(log, size=7)]
            exporters[0].area[:] = b"hello"
            exporters[1].area[:] = b", world"
            transport.writelines(exporters)
            await io_settled()
            assert peer.recv(100) == b"hello, world"
            assert transport.get_write_buffer_size() == 0
        del exporters
        gc.collect()
        assert log.count("get") == log.count("release")
    impl.run(main())


@needs_pep688
@pytest.mark.parametrize("action", ["close", "abort", "write", "writelines"])
def test_exporter_acts_within_writelines(impl, action):
    if not better(impl):
        return

    async def main():
        reports = Reports(asyncio.get_running_loop())
        log = []
        p = Stream()
        async with connected(p) as (transport, peer):
            def act():
                if action == "write":
                    transport.write(b"inner")
                elif action == "writelines":
                    transport.writelines([b"inner"])
                else:
                    getattr(transport, action)()
            exporter = Exporter(log, size=5, on_get=act)
            transport.writelines([b"first", exporter, b"last"])
            await io_settled()
            transport.abort()
            await io_settled()
            assert p.names().count("connection_lost") <= 1
        reports.take()
    impl.run(main())


@needs_pep688
def test_exporter_raises_within_writelines(impl):
    async def main():
        p = Stream()
        async with connected(p) as (transport, peer):
            with pytest.raises(KeyError):
                transport.writelines([b"first", Exporter([], on_get=_raise)])
            assert not transport.is_closing()
            if better(impl) or PY < (3, 15):
                assert transport.get_write_buffer_size() == 0
    impl.run(main())


def test_repr_of_a_buffered_transport():
    def body(impl):
        async def main():
            async with connected(Buffered()) as (transport, peer):
                return neutral(repr(transport)).partition(" ")[2]
        return impl.run(main())
    same(body)
