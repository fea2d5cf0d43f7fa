"""connect_read_pipe and connect_write_pipe: pipes, socketpairs, terminals, devices, FIFOs."""

import array
import asyncio
import contextlib
import contextvars
import errno
import fcntl
import gc
import os
import pty
import socket
import struct
import sys
import termios
import tty
import warnings
import weakref

import pytest

from support import outcome, same
from support.net import Notes, Reports, better, folder, io_settled, neutral, readable

BIG = bytes(range(256)) * 4096 * 4


class Reading(Notes, asyncio.Protocol):
    """Notes what comes out of a pipe."""

    def __init__(self, on=None, trace=None):
        super().__init__(on, trace)

    def data_received(self, data):
        assert type(data) is bytes
        self.received += data
        if self.trace and self.trace[-1][0] == "data_received" and "data_received" not in self.on:
            self.trace[-1] = ("data_received", self.trace[-1][1] + data)
            self._look()
        else:
            self.note("data_received", data)
        self._act("data_received", data)

    def eof_received(self):
        self.note("eof_received")
        return self._act("eof_received")


class Writing(Notes, asyncio.BaseProtocol):
    """Notes what happens to a pipe that is written to."""


class Source:
    """Something to read from: `ours` for the loop, `put` and `finish` for the far end."""

    def __init__(self, kind):
        self.kind = kind
        if kind == "pipe":
            r, self.far = os.pipe()
            self.ours = open(r, "rb", 0)
        elif kind == "socket":
            self.ours, sock = socket.socketpair()
            self.far = sock.detach()
        elif kind == "pty":
            self.far, slave = pty.openpty()
            tty.setraw(slave)
            self.ours = open(slave, "rb", 0)
        os.set_blocking(self.far, False)

    def put(self, data):
        assert os.write(self.far, data) == len(data)

    def finish(self):
        if self.far is not None:
            os.close(self.far)
            self.far = None


class Sink:
    """Something to write to."""

    def __init__(self, kind):
        self.kind = kind
        if kind == "pipe":
            self.far, w = os.pipe()
            self.ours = open(w, "wb", 0)
        elif kind == "socket":
            self.ours, sock = socket.socketpair()
            self.far = sock.detach()
        elif kind == "pty":
            self.far, slave = pty.openpty()
            tty.setraw(slave)
            self.ours = open(slave, "wb", 0)
        os.set_blocking(self.far, False)

    def get(self):
        got = bytearray()
        try:
            while True:
                data = os.read(self.far, 1 << 20)
                if not data:
                    break
                got += data
        except BlockingIOError:
            pass
        except OSError as exc:
            if exc.errno != errno.EIO:
                raise
        return bytes(got)

    async def take(self, count):
        got = bytearray()
        while len(got) < count:
            data = self.get()
            if not data:
                await readable(self.far)
                data = self.get()
                if not data:
                    break
            got += data
        return bytes(got)

    def finish(self):
        if self.far is not None:
            os.close(self.far)
            self.far = None


@contextlib.asynccontextmanager
async def reading(kind="pipe", protocol=None):
    loop = asyncio.get_running_loop()
    source = Source(kind)
    protocol = protocol or Reading()
    transport, found = await loop.connect_read_pipe(lambda: protocol, source.ours)
    assert found is protocol
    try:
        yield transport, protocol, source
    finally:
        if not transport.is_closing():
            transport.close()
        await io_settled(2)
        source.finish()


@contextlib.asynccontextmanager
async def writing(kind="pipe", protocol=None):
    loop = asyncio.get_running_loop()
    sink = Sink(kind)
    protocol = protocol or Writing()
    transport, found = await loop.connect_write_pipe(lambda: protocol, sink.ours)
    assert found is protocol
    try:
        yield transport, protocol, sink
    finally:
        if not protocol.lost:
            transport.abort()
        await io_settled(2)
        sink.finish()


kinds = pytest.mark.parametrize("kind", ["pipe", "socket", "pty"])
both = pytest.mark.parametrize("direction", ["read", "write"])


# Reading

@kinds
def test_read(kind):
    def body(impl):
        async def main():
            async with reading(kind) as (transport, p, source):
                assert os.get_blocking(source.ours.fileno()) is False
                for i in range(3):
                    source.put(b"%d" % i)
                    await p.until(lambda: len(p.received) == i + 1)
                source.finish()
                await p.wait("connection_lost")
                await io_settled()
                closed = source.ours.fileno() if kind == "socket" else source.ours.closed
                return p.trace, closed, transport.is_closing()
        return impl.run(main())
    trace, closed, _ = same(body)
    assert closed in (True, -1)
    assert trace[-2:] == [["eof_received"], ["connection_lost", None]]


def test_end_of_a_terminal():
    """The side of a terminal that its emulator has: EIO when the other is gone; no report, no eof_received()."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            reports = Reports(loop)
            master, slave = pty.openpty()
            tty.setraw(slave)
            p = Reading()
            transport, _ = await loop.connect_read_pipe(lambda: p, open(master, "rb", 0))
            os.write(slave, b"x")
            await p.until(lambda: p.received == b"x")
            os.close(slave)
            await p.wait("connection_lost")
            await io_settled()
            return p.trace, reports.take()
        return impl.run(main())
    assert same(body) == [[["connection_made"], ["data_received", b"x"], ["connection_lost", "OSError"]], []]


def test_much(impl):
    """4 MiB through a pipe of the loop to a pipe of the loop."""
    async def main():
        loop = asyncio.get_running_loop()
        r, w = os.pipe()
        p, q = Reading(), Writing()
        await loop.connect_read_pipe(lambda: p, open(r, "rb", 0))
        writer, _ = await loop.connect_write_pipe(lambda: q, open(w, "wb", 0))
        writer.write(BIG)
        writer.close()
        await p.wait("connection_lost")
        assert p.received == BIG
        assert p.names()[-2:] == ["eof_received", "connection_lost"]
        assert q.trace[-1] == ("connection_lost", None)
        await io_settled()
    impl.run(main())


@kinds
def test_pause_and_resume(kind):
    def body(impl):
        async def main():
            async with reading(kind) as (transport, p, source):
                states = [transport.is_reading()]
                transport.pause_reading()
                transport.pause_reading()
                states.append(transport.is_reading())
                source.put(b"one")
                await io_settled()
                assert p.received == b""
                transport.resume_reading()
                transport.resume_reading()
                states.append(transport.is_reading())
                await p.until(lambda: p.received == b"one")
                transport.pause_reading()
                source.finish()
                await io_settled()
                assert not p.lost
                transport.resume_reading()
                await p.wait("connection_lost")
                states.append(transport.is_reading())
                return states, p.trace
        return impl.run(main())
    assert same(body)[0] == [True, False, True, False]


def test_order_at_the_end():
    """eof_received() and connection_lost() come by call_soon()."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            trace = []
            p = Reading({"eof_received": lambda p: loop.call_soon(trace.append, "soon from eof"),
                         "connection_lost": lambda p, exc: trace.append(p.transport.is_closing())}, trace)
            async with reading("pipe", p) as (transport, p, source):
                source.put(b"x")
                source.finish()
                await p.wait("connection_lost")
                await io_settled()
                return trace
        return impl.run(main())
    assert same(body) == [["connection_made"], ["data_received", b"x"], ["eof_received"], ["connection_lost", None],
                          True, "soon from eof"]


@pytest.mark.parametrize("how", ["close"])
@kinds
def test_close_of_a_reader(kind, how):
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            trace = []
            async with reading(kind, Reading(trace=trace)) as (transport, p, source):
                source.put(b"unread")
                loop.call_soon(trace.append, "before")
                transport.close()
                transport.close()
                loop.call_soon(trace.append, "after")
                state = transport.is_closing(), transport.is_reading()
                await p.wait("connection_lost")
                await io_settled()
                found = [outcome(transport.close), outcome(transport.pause_reading), outcome(transport.resume_reading),
                         outcome(transport.is_reading), neutral(repr(transport))]
                return trace, state, found
        return impl.run(main())
    assert same(body)[0] == [["connection_made"], "before", ["connection_lost", None], "after"]


def test_size_of_a_read(impl):
    async def main():
        p = Reading({"data_received": lambda p, d: None})
        async with reading("socket", p) as (transport, p, source):
            assert transport.max_size == 256 * 1024
            source.put(bytes(100000))
            await p.until(lambda: len(p.received) == 100000)
            assert len(p.trace) == 2
    impl.run(main())


def test_close_in_data_received():
    def body(impl):
        async def main():
            p = Reading({"data_received": lambda p, data: p.transport.close()})
            async with reading("pipe", p) as (transport, p, source):
                source.put(b"one")
                await p.wait("connection_lost")
                await io_settled()
                return p.trace
        return impl.run(main())
    same(body)


# Writing

@kinds
def test_write(kind):
    def body(impl):
        async def main():
            async with writing(kind) as (transport, p, sink):
                assert os.get_blocking(sink.ours.fileno()) is False
                for data in (b"one", bytearray(b"two"), memoryview(b"three"), b"", memoryview(b"xfourx")[1:5]):
                    assert transport.write(data) is None
                transport.writelines([b"fi", b"ve"])
                got = await sink.take(18)
                states = [transport.can_write_eof(), transport.get_write_buffer_size(), transport.is_closing()]
                transport.write_eof()
                states.append(transport.is_closing())
                await p.wait("connection_lost")
                closed = sink.ours.fileno() if kind == "socket" else sink.ours.closed
                return got, states, closed, p.trace
        return impl.run(main())
    got, states, closed, trace = same(body)
    assert got == b"onetwothreefourfive"[:len(got)]
    assert closed in (True, -1)
    assert trace == [["connection_made"], ["connection_lost", None]]


@kinds
def test_sent_at_once(impl, kind):
    """As with sockets, write() has given it to the kernel."""
    async def main():
        async with writing(kind) as (transport, p, sink):
            transport.write(b"x")
            assert sink.get() == b"x"
    impl.run(main())


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_buffered(kind):
    def body(impl):
        async def main():
            async with writing(kind) as (transport, p, sink):
                transport.write(BIG)
                assert 0 < transport.get_write_buffer_size() < len(BIG)
                transport.write(b"more")
                names = p.names()
                got = await sink.take(len(BIG) + 4)
                assert got == BIG + b"more"
                await p.wait("resume_writing")
                assert transport.get_write_buffer_size() == 0
                return names, p.trace
        return impl.run(main())
    assert same(body)[0] == ["connection_made", "pause_writing"]


@pytest.mark.parametrize("limits", [{"high": 0}, {"high": 1 << 30}, {"high": 100000, "low": 50000}])
def test_limits(limits):
    def body(impl):
        async def main():
            async with writing() as (transport, p, sink):
                found = [transport.get_write_buffer_limits()]
                transport.set_write_buffer_limits(**limits)
                found.append(transport.get_write_buffer_limits())
                sizes = []
                for i in range(10):
                    transport.write(b"%d" % i * 30000)
                    sizes.append(transport.get_write_buffer_size())
                got = b""
                while len(got) < 300000:
                    got += sink.get()
                    await io_settled(1)
                    p.note("read")
                assert got == b"".join(b"%d" % i * 30000 for i in range(10))
                found.append(outcome(transport.set_write_buffer_limits, 1, 2))
                return found, sizes, p.trace
        return impl.run(main())
    same(body)


def test_what_write_refuses():
    def body(impl):
        async def main():
            found = []
            for thing in (None, "text", 5, [b"x"], object(), array.array("B", b"x")):
                async with writing() as (transport, p, sink):
                    kind, name, *text = outcome(transport.write, thing)
                    found.append((kind, name))
                    if impl.is_fastloop:
                        assert not transport.is_closing()
            return found
        return impl.run(main())
    found = same(body)
    assert found[0][1] in ("AssertionError", "TypeError")


def test_mutation_after_write(impl):
    async def main():
        async with writing() as (transport, p, sink):
            data = bytearray(BIG)
            transport.write(data)
            data[:] = bytes(len(data))
            data.clear()
            assert await sink.take(len(BIG)) == BIG
    impl.run(main())


@pytest.mark.parametrize("kind", ["pipe", "socket"])
@pytest.mark.parametrize("how", ["close", "abort", "write_eof"])
def test_end_with_a_full_buffer(kind, how):
    def body(impl):
        async def main():
            async with writing(kind) as (transport, p, sink):
                transport.write(BIG)
                assert getattr(transport, how)() is None
                if how != "abort" or better(impl, "write_pipe"):
                    getattr(transport, how)()  # asyncio loses the connection once for each abort()
                await io_settled()
                found = [p.lost, transport.is_closing()]
                got = 0
                while not p.lost or sink.get():
                    got += len(sink.get())
                    await io_settled(1)
                found.append(how == "abort" or p.lost)
                return found, p.trace
        return impl.run(main())
    found, trace = same(body)
    assert found[:2] == [how == "abort", True]


def test_close_delivers_everything(impl):
    async def main():
        async with writing() as (transport, p, sink):
            transport.write(BIG)
            transport.close()
            assert await sink.take(len(BIG)) == BIG
            await p.wait("connection_lost")
            assert sink.get() == b""
    impl.run(main())


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_reader_goes_away(kind):
    """Noticed without a write: BrokenPipeError if data was waiting, None otherwise."""
    def body(impl):
        async def main():
            traces = []
            for waiting in (False, True):
                async with writing(kind) as (transport, p, sink):
                    if waiting:
                        transport.write(BIG)
                    sink.finish()
                    await p.wait("connection_lost")
                    assert transport.is_closing()
                    traces.append(p.trace)
            return traces
        return impl.run(main())
    quiet, waiting = same(body)
    assert quiet == [["connection_made"], ["connection_lost", None]]
    assert waiting[-1] == ["connection_lost", "BrokenPipeError"]


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_write_to_one_who_has_gone(kind, log):
    """No report; and 'pipe closed by peer' from the fifth lost write on."""
    def body(impl):
        async def main():
            reports = Reports(asyncio.get_running_loop())
            async with writing(kind) as (transport, p, sink):
                sink.finish()
                for _ in range(8):
                    transport.write(b"x")
                found = [transport.is_closing(), p.lost, log.messages()]
                await p.wait("connection_lost")
                for _ in range(2):
                    transport.write(b"x")
                found += [p.trace, log.messages(), reports.take()]
                return found
        return impl.run(main())
    same(body)


def test_data_from_the_far_end_of_a_socket():
    """What a write-only transport gets to read: asyncio takes it for the end, in a pipe and in a socket."""
    def body(impl):
        async def main():
            async with writing("socket") as (transport, p, sink):
                os.write(sink.far, b"surprise")
                await io_settled()
                return p.trace, transport.is_closing()
        return impl.run(main())
    same(body)


@pytest.mark.parametrize("how", ["close", "abort"])
def test_everything_after_close_of_a_writer(how, log):
    def body(impl):
        async def main():
            async with writing() as (transport, p, sink):
                getattr(transport, how)()
                found = []
                for moment in ("before", "after"):
                    for call in (lambda: transport.write(b"x"), lambda: transport.write(b""),
                                 lambda: transport.close(), lambda: transport.write_eof(),
                                 lambda: transport.can_write_eof(), lambda: transport.is_closing(),
                                 lambda: transport.get_write_buffer_size(),
                                 lambda: transport.get_extra_info("nothing", 3), lambda: neutral(repr(transport))):
                        found.append(outcome(call))
                    await p.wait("connection_lost")
                    await io_settled()
                return found, p.trace, log.messages()
        return impl.run(main())
    same(body)


# What can be connected

@both
def test_regular_files_are_refused(direction, tmp_path):
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            path = tmp_path / "file"
            path.write_bytes(b"data")
            found = []
            with open(path, "r+b", 0) as file:
                connect = loop.connect_read_pipe if direction == "read" else loop.connect_write_pipe
                protocol = Reading()
                try:
                    await connect(lambda: protocol, file)
                except ValueError as exc:
                    found.append(str(exc))
                await io_settled()
                found += [file.closed, protocol.trace, os.get_blocking(file.fileno())]
            with contextlib.suppress(OSError):
                file.close()
            return found
        return impl.run(main())
    text = "Pipe transport is for pipes/sockets only." if direction == "read" else (
        "Pipe transport is only for pipes, sockets and character devices")
    assert same(body)[0] == text


@contextlib.contextmanager
def asyncio_del(impl, direction):
    """asyncio's half-made transports cannot be deleted without an error."""
    hook = sys.unraisablehook
    if not better(impl, direction + "_pipe"):
        sys.unraisablehook = lambda info: None
    try:
        yield
        gc.collect()
    finally:
        sys.unraisablehook = hook


@both
@pytest.mark.parametrize("thing", [None, 5, "x", object(), b""], ids=str)
def test_what_is_no_pipe(direction, thing):
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            connect = loop.connect_read_pipe if direction == "read" else loop.connect_write_pipe
            try:
                await connect(Reading, thing)
            except Exception as exc:
                return type(exc).__name__
        with asyncio_del(impl, direction):
            return impl.run(main())
    assert same(body) == "AttributeError"


@both
def test_closed_file(direction):
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            connect = loop.connect_read_pipe if direction == "read" else loop.connect_write_pipe
            r, w = os.pipe()
            os.close(w)
            file = open(r, "rb", 0)
            file.close()
            try:
                await connect(Reading, file)
            except Exception as exc:
                return type(exc).__name__, str(exc)
        with asyncio_del(impl, direction):
            return impl.run(main())
    assert same(body)[0] == "ValueError"


def test_fifo(impl):
    async def main():
        loop = asyncio.get_running_loop()
        with folder() as place:
            path = os.path.join(place, "fifo")
            os.mkfifo(path)
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            p, q = Reading(), Writing()
            reader, _ = await loop.connect_read_pipe(lambda: p, open(fd, "rb", 0))
            writer, _ = await loop.connect_write_pipe(lambda: q, open(path, "wb", 0))
            writer.write(b"hello")
            await p.until(lambda: p.received == b"hello")
            reader.close()
            await q.wait("connection_lost")
            await p.wait("connection_lost")
            await io_settled()
    impl.run(main())


def test_dev_null():
    """epoll does not take it: what asyncio does then, by kind of transport."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            reports = Reports(loop)
            found = []
            q = Writing()
            writer, _ = await loop.connect_write_pipe(lambda: q, open("/dev/null", "wb", 0))
            writer.write(b"into the void" * 1000)
            found.append(writer.get_write_buffer_size())
            writer.close()
            await q.wait("connection_lost")
            await io_settled()
            found.append(q.trace)
            return found, reports.take()
        return impl.run(main())
    assert same(body) == [[0, [["connection_made"], ["connection_lost", None]]], []]


def test_reading_dev_null(log):
    """epoll refuses it: reported; the transport can still be closed."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            reports = Reports(loop)
            p = Reading()
            transport, _ = await loop.connect_read_pipe(lambda: p, open("/dev/null", "rb", 0))
            await io_settled()
            found = [(m, k, e[0]) for m, k, e in reports.take()]
            transport.close()
            await p.wait("connection_lost")
            await io_settled()
            return found, p.trace
        return impl.run(main())
    found, trace = same(body)
    assert found == [["Exception in callback", ["exception", "handle", "message"], "PermissionError"]]


# What there is to know

@both
def test_extra_info(impl, direction):
    async def main():
        for kind in ("pipe", "socket", "pty"):
            connect = reading if direction == "read" else writing
            async with connect(kind) as (transport, p, end):
                assert transport.get_extra_info("pipe") is end.ours
                assert transport.get_extra_info("socket") is None
                assert transport.get_extra_info("unknown", 5) == 5
                assert transport.get_protocol() is p
                transport.set_protocol(p)
                assert isinstance(transport, asyncio.BaseTransport)
                if direction == "read":
                    assert isinstance(transport, asyncio.ReadTransport)
                assert isinstance(transport, asyncio.WriteTransport) is (direction == "write")
                if direction == "write":
                    assert isinstance(transport, asyncio.transports._FlowControlMixin)
                    assert transport.get_write_buffer_limits() == (16384, 65536)
                transport.foo = 1
                assert transport.foo == 1
                assert weakref.ref(transport)() is transport
                assert f"fd={end.ours.fileno()}" in repr(transport)
                transport.close()
                await p.wait("connection_lost")
                await io_settled()
                assert transport.get_extra_info("pipe") is end.ours
    impl.run(main())


@both
def test_repr(direction):
    def body(impl):
        async def main():
            connect = reading if direction == "read" else writing
            async with connect() as (transport, p, end):
                found = [neutral(repr(transport))]
                if direction == "read":
                    transport.pause_reading()
                else:
                    transport.write(BIG)
                found.append(neutral(repr(transport)))
                transport.close()
                found.append(neutral(repr(transport)))
                if direction == "write":
                    transport.abort()
                await p.wait("connection_lost")
                await io_settled()
                found.append(neutral(repr(transport)))
                return [text.partition(" ")[2] for text in found]
        return impl.run(main())
    same(body)


@both
def test_unclosed(direction):
    def body(impl):
        loop = impl.new_loop()
        p = Reading()
        end = Source("pipe") if direction == "read" else Sink("pipe")
        connect = loop.connect_read_pipe if direction == "read" else loop.connect_write_pipe
        transport, _ = loop.run_until_complete(connect(lambda: p, end.ours))
        loop.run_until_complete(io_settled())
        loop.close()
        p.transport = None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del transport, loop, _
            gc.collect()
        found = [(w.category, str(w.message).startswith("unclosed transport <")) for w in caught]
        closed = end.ours.closed
        end.finish()
        return found, closed, p.trace
    assert same(body) == [[["ResourceWarning", True]], True, [["connection_made"]]]


def test_order_of_the_start():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            trace = []

            def factory():
                trace.append("factory")
                loop.call_soon(trace.append, "soon from factory")
                return Reading({"connection_made": lambda p, t: loop.call_soon(trace.append, "soon from made")}, trace)
            source = Source("pipe")
            source.put(b"early")
            transport, p = await loop.connect_read_pipe(factory, source.ours)
            trace.append("returned")
            await io_settled()
            transport.close()
            await p.wait("connection_lost")
            source.finish()
            return trace
        return impl.run(main())
    assert same(body)[:5] == ["factory", "soon from factory", ["connection_made"], "soon from made", "returned"]


@pytest.mark.parametrize("exc", [ValueError, OSError, asyncio.CancelledError, GeneratorExit])
@pytest.mark.parametrize("callback", ["connection_made", "data_received", "eof_received", "connection_lost"])
def test_reading_callback_raises(callback, exc, log):
    """asyncio catches nothing but what the read raises: reported as of a callback, and life goes on."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            reports = Reports(loop)
            count = []

            def throw(p, *args):
                count.append(1)
                if len(count) == 1:
                    raise exc("from the callback")
            source = Source("pipe")
            p = Reading({callback: throw})
            try:
                transport, _ = await loop.connect_read_pipe(lambda: p, source.ours)
            except BaseException as found:
                transport = p.transport
                connected = type(found).__name__
            else:
                connected = True
            source.put(b"x")
            await io_settled()
            if not p.lost:
                source.put(b"y")
            await io_settled()
            source.finish()
            await io_settled()
            if not transport.is_closing():
                transport.close()
            await io_settled()
            return connected, p.trace, reports.take(), source.ours.closed
        return impl.run(main())
    same(body)


@pytest.mark.parametrize("exc", [KeyboardInterrupt, SystemExit])
def test_exception_leaves_the_loop(exc):
    def body(impl):
        loop = impl.new_loop()
        source = Source("pipe")
        raised = []

        def throw(p, data):
            if not raised:
                raised.append(1)
                raise exc
        p = Reading({"data_received": throw})
        loop.run_until_complete(loop.connect_read_pipe(lambda: p, source.ours))
        source.put(b"x")
        left = None
        try:
            loop.run_until_complete(io_settled())
        except BaseException as found:
            left = type(found).__name__
        source.put(b"y")
        loop.run_until_complete(io_settled())
        source.finish()
        loop.run_until_complete(io_settled())
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(io_settled())
        loop.close()
        return left, p.trace
    left, trace = same(body)
    assert left == exc.__name__
    assert trace[-1] == ["connection_lost", None]


@both
def test_protocol_factory_raises(direction):
    """The caller gets it; the pipe stays his."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            end = Source("pipe") if direction == "read" else Sink("pipe")

            def factory():
                raise ValueError("factory")
            connect = loop.connect_read_pipe if direction == "read" else loop.connect_write_pipe
            try:
                await connect(factory, end.ours)
            except ValueError as exc:
                found = str(exc), end.ours.closed
            end.ours.close()
            end.finish()
            return found
        return impl.run(main())
    assert same(body) == ["factory", False]


@both
def test_cancelled(impl, direction):
    """In each iteration: the transport is closed, or was never made."""
    async def main():
        loop = asyncio.get_running_loop()
        connect = loop.connect_read_pipe if direction == "read" else loop.connect_write_pipe
        for rounds in range(5):
            end = Source("pipe") if direction == "read" else Sink("pipe")
            p = Reading()
            task = asyncio.create_task(connect(lambda: p, end.ours))
            for _ in range(rounds):
                await asyncio.sleep(0)
            task.cancel()
            try:
                transport, _ = await task
                transport.close()
            except asyncio.CancelledError:
                pass
            if p.transport is not None:
                if not p.transport.is_closing():
                    p.transport.close()
                await p.wait("connection_lost")
            await io_settled(2)
            end.ours.close()
            end.finish()
    impl.run(main())


var = contextvars.ContextVar("var", default="default")


@both
def test_context_of_callbacks(direction):
    def body(impl):
        async def main():
            seen = []

            def look(name):
                def on(p, *args):
                    seen.append((name, var.get()))
                    var.set("set in " + name)
                return on
            names = ["connection_made", "data_received", "eof_received", "pause_writing", "resume_writing",
                     "connection_lost"]
            p = Reading({name: look(name) for name in names})
            var.set("creator")
            if direction == "read":
                async with reading("pipe", p) as (transport, p, source):
                    var.set("later")
                    source.put(b"x")
                    await io_settled()
                    source.put(b"x")
                    await io_settled()
                    source.finish()
                    await p.wait("connection_lost")
            else:
                async with writing("pipe", p) as (transport, p, sink):
                    var.set("write")
                    transport.write(BIG)
                    var.set("take")
                    await sink.take(len(BIG))
                    await io_settled()
                    var.set("close")
                    transport.close()
                    var.set("end")
                    await p.wait("connection_lost")
            return seen
        return impl.run(main())
    same(body)


def test_terminal_size_and_settings_are_untouched(impl):
    async def main():
        async with reading("pty") as (transport, p, source):
            size = struct.pack("HHHH", 24, 80, 0, 0)
            fcntl.ioctl(source.far, termios.TIOCSWINSZ, size)
            assert fcntl.ioctl(source.ours, termios.TIOCGWINSZ, bytes(8)) == size
    impl.run(main())


def test_streams_over_pipes(impl):
    """As programs read sys.stdin and write sys.stdout."""
    async def main():
        loop = asyncio.get_running_loop()
        source, sink = Source("pipe"), Sink("pipe")
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_read_pipe(lambda: protocol, source.ours)
        wtransport, wprotocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, sink.ours)
        writer = asyncio.StreamWriter(wtransport, wprotocol, None, loop)
        source.put(b"line one\nline two\nrest")
        assert await reader.readline() == b"line one\n"
        assert await reader.readline() == b"line two\n"
        source.finish()
        assert await reader.read() == b"rest"
        assert reader.at_eof()
        writer.write(b"out")
        await writer.drain()
        assert await sink.take(3) == b"out"
        writer.close()
        await io_settled()
        sink.finish()
        await io_settled()
    impl.run(main())


def test_debug_messages(log):
    def body(impl):
        async def main():
            async with reading() as (transport, p, source):
                transport.pause_reading()
                transport.resume_reading()
                source.finish()
                await p.wait("connection_lost")
            async with writing() as (transport, p, sink):
                sink.finish()
                await p.wait("connection_lost")
        import logging
        logging.getLogger("asyncio").setLevel(logging.DEBUG)
        log.details.clear()
        impl.run(main(), debug=True)
        return [(level, neutral(text).rpartition(">")[2]) for level, text in log.details if "pipe" in text.lower()]
    same(body)
