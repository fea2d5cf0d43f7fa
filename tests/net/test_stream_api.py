"""The methods of a stream transport, one by one, over TCP and unix sockets."""

import array
import asyncio
import ctypes
import gc
import mmap
import re
import socket
import sys
import warnings
import weakref
from asyncio import transports

import pytest

from support import ASYNCIO, FASTLOOP, PY, outcome, same
from support.net import (
    KINDS, Buffered, Reports, Stream, attach, better, connected, io_settled, neutral, stream_pair,
    take, take_all, take_now)

kinds = pytest.mark.parametrize("kind", KINDS)
protocols = pytest.mark.parametrize("protocol", [Stream, Buffered])

BIG = bytes(range(256)) * 4096 * 8  # 8 MiB: more than any socket buffer


# What write() takes

def _reversed_view():
    return memoryview(b"reversed")[::-1]


PAYLOADS = {
    "bytes": lambda: b"hello",
    "empty": lambda: b"",
    "bytearray": lambda: bytearray(b"hello"),
    "empty bytearray": lambda: bytearray(),
    "view": lambda: memoryview(b"hello"),
    "empty view": lambda: memoryview(b""),
    "view of a bytearray": lambda: memoryview(bytearray(b"hello")),
    "slice": lambda: memoryview(b"0123456789")[2:7],
    "read-only view": lambda: memoryview(bytearray(b"hello")).toreadonly(),
    "signed bytes": lambda: memoryview(b"\xff\0\x80").cast("b"),
    "chars": lambda: memoryview(b"hello").cast("c"),
    "unsigned ints": lambda: memoryview(b"01234567").cast("I"),
    "doubles": lambda: memoryview(array.array("d", [1.0, 2.0, 3.0])),
    "shorts": lambda: memoryview(array.array("h", range(100))),
    "ctypes array": lambda: memoryview((ctypes.c_uint16 * 5)(1, 2, 3, 4, 5)),
    "mmap": lambda: memoryview(mmap.mmap(-1, 4096)),
    "bytes subclass": lambda: type("B", (bytes,), {})(b"hello"),
    "bytearray subclass": lambda: type("B", (bytearray,), {})(b"hello"),
}


@kinds
@pytest.mark.parametrize("what", PAYLOADS)
@pytest.mark.parametrize("method", ["write", "writelines"])
def test_written_data(kind, what, method):
    def body(impl):
        async def main():
            protocol = Stream()
            async with connected(protocol, kind) as (transport, peer):
                data = PAYLOADS[what]()
                expected = data.tobytes() if isinstance(data, memoryview) else bytes(data)
                if method == "write":
                    assert transport.write(data) is None
                elif not expected and not better(impl, since=(3, 14)):
                    return  # an empty piece stays in the buffer for ever
                elif getattr(data, "itemsize", 1) > 1 and not better(impl):
                    return  # asyncio counts items, not bytes
                else:
                    assert transport.writelines([data, data]) is None
                    expected *= 2
                transport.close()
                assert await take_all(peer) == expected
                await protocol.wait("connection_lost")
                assert protocol.trace[-1] == ("connection_lost", None)
        impl.run(main())
    body(ASYNCIO)
    body(FASTLOOP)


@pytest.mark.parametrize("method", ["write", "writelines"])
def test_view_of_several_dimensions(impl, log, method):
    """asyncio sends it, and then raises."""
    def matrix():
        return memoryview(bytes(range(24))).cast("B", (4, 6))

    async def main():
        protocol = Stream()
        async with connected(protocol) as (transport, peer):
            call = (lambda: transport.write(matrix())) if method == "write" else (
                lambda: transport.writelines([matrix()]))
            if better(impl):
                call()
                transport.write(b".")
                assert await take(peer, 25) == bytes(range(24)) + b"."
            elif method == "write":
                outcome(call)
                assert await take(peer, 24) == bytes(range(24))
    impl.run(main())


def test_big_view_of_several_dimensions(impl, log):
    """Only a part of it fits into the kernel's buffer: the rest must follow, byte by byte.

    asyncio cuts such a view by rows.
    """
    if not better(impl):
        return

    async def main():
        for data in (memoryview(BIG).cast("B", (4096, 2048)), memoryview(BIG).cast("I"),
                     memoryview(BIG).cast("d"), memoryview(BIG).cast("H", (1024, 64, 64))):
            protocol = Stream()
            async with connected(protocol) as (transport, peer):
                transport.write(data)
                transport.close()
                assert await take_all(peer) == BIG
    impl.run(main())


@pytest.mark.parametrize("view", [_reversed_view, lambda: memoryview(b"0123456789")[::2]],
                         ids=["reversed", "every second"])
def test_view_with_gaps(impl, log, view):
    """asyncio ends the connection with the BufferError of socket.send(); sending it is as good."""
    async def main():
        loop = asyncio.get_running_loop()
        reports = Reports(loop)
        protocol = Stream()
        async with connected(protocol) as (transport, peer):
            transport.write(view())
            if transport.is_closing():
                await protocol.wait("connection_lost")
                ((message, keys, (exc, _)),) = reports.take()
                assert message == "Fatal write error on socket transport"
                assert keys == ["exception", "message", "protocol", "transport"]
                assert exc == "BufferError" or PY == (3, 11)
                assert protocol.trace[-1] == ("connection_lost", exc)
            else:
                assert impl.is_fastloop
                assert await take(peer, len(view())) == view().tobytes()
    impl.run(main())


WRONG = [None, "text", 1, 1.5, [], [b"x"], object(), array.array("B", b"x"), mmap.mmap(-1, 1), bytes,
         iter([b"x"]), {}]


@pytest.mark.parametrize("thing", WRONG, ids=[type(t).__name__ for t in WRONG])
def test_what_write_refuses(thing):
    """The text of the TypeError is that of the Python at hand; the connection lives on."""
    def body(impl):
        async def main():
            protocol = Stream()
            async with connected(protocol) as (transport, peer):
                found = [outcome(transport.write, thing)]
                found.append(transport.is_closing())
                transport.write(b"x")
                found.append(await take(peer, 1))
                transport.write_eof()
                found.append(outcome(transport.write, thing))
                transport.close()
                found.append(outcome(transport.write, thing))
                await protocol.wait("connection_lost")
                found.append(outcome(transport.write, thing))
                return found
        return impl.run(main())
    found = same(body)
    word = "bytes-like object" if PY < (3, 14) else "bytes, bytearray, or memoryview object"
    if sys.version_info[:3] in ((3, 11, 7), (3, 12, 1), (3, 13, 0)) or PY >= (3, 14):
        text = f"data argument must be a {word}, not {type(thing).__name__!r}"
        assert found[0] == ["raised", "TypeError", text]


def test_arguments(impl):
    """What is missing or too much, and keywords."""
    async def main():
        async with connected(Stream()) as (transport, peer):
            for call in (
                    lambda: transport.write(), lambda: transport.write(b"a", b"b"),
                    lambda: transport.writelines(), lambda: transport.write(what=b""),
                    lambda: transport.close(1), lambda: transport.abort(1),
                    lambda: transport.pause_reading(1), lambda: transport.get_protocol(1),
                    lambda: transport.set_protocol(), lambda: transport.get_extra_info(),
                    lambda: transport.set_write_buffer_limits(1, 2, 3),
                    lambda: transport.set_write_buffer_limits(highest=3)):
                with pytest.raises(TypeError):
                    call()
            transport.write(data=b"a")
            transport.writelines(list_of_data=[b"b"])
            transport.set_write_buffer_limits(high=10, low=5)
            transport.set_write_buffer_limits(10, 5)
            assert transport.get_extra_info(name="no such", default=3) == 3
            transport.set_protocol(protocol=transport.get_protocol())
            assert await take(peer, 2) == b"ab"
            with pytest.raises((TypeError, AttributeError)):
                type(transport).write(None, b"")
    impl.run(main())


@pytest.mark.parametrize("lines", [
    [], [b"a"], [b"a", b"b"], (b"a", bytearray(b"b"), memoryview(b"c")),
    [b"x" * 70000, b"y" * 70000], [bytes([i % 256]) * (i % 7 + 1) for i in range(3000)],
], ids=["none", "one", "two", "mixed", "large", "many"])
@kinds
def test_writelines(kind, lines):
    def body(impl):
        async def main():
            protocol = Stream()
            async with connected(protocol, kind) as (transport, peer):
                transport.write(b"<")
                transport.writelines(lines)
                transport.write(b">")
                transport.close()
                found = await take_all(peer)
                assert found == b"<" + b"".join(lines) + b">"
        return impl.run(main())
    same(body)


def test_writelines_of_iterables():
    def body(impl):
        async def main():
            protocol = Stream()
            async with connected(protocol) as (transport, peer):
                transport.writelines(iter([b"a", b"b"]))
                transport.writelines(x for x in (b"c", b"d"))
                transport.writelines({b"e": 1})
                transport.close()
                return await take_all(peer)
        return impl.run(main())
    assert same(body) == b"abcde"


@pytest.mark.parametrize("lines", [None, 5, "text", ["text"], [b"a", None], [1]],
                         ids=["None", "5", "str", "strs", "a None", "an int"])
def test_what_writelines_refuses(lines):
    def body(impl):
        async def main():
            protocol = Stream()
            async with connected(protocol) as (transport, peer):
                kind, name, *_ = outcome(transport.writelines, lines)
                return kind, name, transport.is_closing()
        return impl.run(main())
    if lines is None:
        # Nothing to write, for 3.12 and newer; b"".join() before that.
        same(body)
    elif lines == [b"a", None] and PY >= (3, 14):
        same(body)  # what is false counts as empty
    else:
        assert same(body)[:2] == ["raised", "TypeError"]


def test_iterable_of_writelines_raises(impl):
    """Nothing of the lines is sent twice or in the wrong order afterwards.

    3.15 keeps the first ones in its buffer, and never sends them.
    """
    if not better(impl) and PY >= (3, 15):
        return

    def lines():
        yield b"a"
        raise KeyError("lines")

    async def main():
        async with connected(Stream()) as (transport, peer):
            with pytest.raises(KeyError):
                transport.writelines(lines())
            assert transport.get_write_buffer_size() == 0
            transport.write(b"b")
            transport.close()
            assert await take_all(peer) in (b"b", b"ab")
    impl.run(main())


def test_bytearray_that_changes_after_write(impl, log):
    """What is buffered is a copy: the caller may change and resize his own."""
    if not better(impl) and PY >= (3, 12):
        return  # asyncio keeps a view

    async def main():
        for how in ("write", "writelines"):
            protocol = Stream()
            async with connected(protocol) as (transport, peer):
                data = bytearray(BIG)
                if how == "write":
                    transport.write(data)
                else:
                    transport.writelines([b"", data])
                data[:] = bytes(len(data))
                data.clear()
                transport.write(b".")
                transport.close()
                assert await take_all(peer) == BIG + b"."
    impl.run(main())


def test_view_that_is_released_after_write(impl):
    if not better(impl) and PY >= (3, 12):
        return

    async def main():
        protocol = Stream()
        async with connected(protocol) as (transport, peer):
            data = mmap.mmap(-1, len(BIG))
            data[:] = BIG
            view = memoryview(data)
            transport.write(view)
            view.release()
            data.close()
            transport.close()
            assert await take_all(peer) == BIG
    impl.run(main())


def test_big_bytes_are_kept_alive(impl):
    async def main():
        async with connected(Stream()) as (transport, peer):
            for i in range(8):
                transport.write(bytes([i]) * (1 << 20))
                gc.collect(0)
            transport.close()
            assert await take_all(peer) == b"".join(bytes([i]) * (1 << 20) for i in range(8))
    impl.run(main())


# The end of the stream

@kinds
@protocols
def test_half_close_of_ours(kind, protocol):
    """write_eof(): the peer sees the end, and can still write."""
    def body(impl):
        async def main():
            p = protocol()
            async with connected(p, kind) as (transport, peer):
                assert transport.can_write_eof() is True
                transport.write(b"bye")
                assert transport.write_eof() is None
                assert transport.can_write_eof() is True
                assert await take_all(peer) == b"bye"
                assert not transport.is_closing()
                refused = [outcome(transport.write, b"x"), outcome(transport.write, b""),
                           outcome(transport.writelines, [b"x"]), outcome(transport.writelines, [])]
                transport.write_eof()
                peer.sendall(b"still here")
                await p.until(lambda: p.received == b"still here")
                peer.shutdown(socket.SHUT_WR)
                await p.wait("connection_lost")
                return p.trace, refused
        return impl.run(main())
    trace, refused = same(body)
    assert [e[0] for e in trace][-2:] == ["eof_received", "connection_lost"]
    assert refused[0] == ["raised", "RuntimeError", "Cannot call write() after write_eof()"]


@kinds
@protocols
@pytest.mark.parametrize("answer", [None, False, True, 0, 1, "yes", ""])
def test_half_close_of_the_peer(kind, protocol, answer):
    """What eof_received() returns decides whether the connection stays."""
    def body(impl):
        async def main():
            p = protocol({"eof_received": lambda p: answer})
            async with connected(p, kind) as (transport, peer):
                peer.sendall(b"last words")
                peer.shutdown(socket.SHUT_WR)
                await p.wait("eof_received")
                closing = transport.is_closing()
                reading = transport.is_reading()
                if not closing:
                    transport.write(b"answer")
                    await io_settled()
                    assert not p.lost
                    transport.close()
                got = await take_all(peer)
                await p.wait("connection_lost")
                return p.trace, closing, reading, got
        return impl.run(main())
    trace, closing, _, got = same(body)
    assert closing is (not answer)
    assert got == (b"answer" if answer else b"")


@kinds
def test_eof_in_both_directions_at_once(kind):
    def body(impl):
        async def main():
            p = Stream({"eof_received": lambda p: True})
            async with connected(p, kind) as (transport, peer):
                peer.shutdown(socket.SHUT_WR)
                await p.wait("eof_received")
                transport.write(b"x")
                transport.write_eof()
                assert await take_all(peer) == b"x"
                await io_settled()
                assert not p.lost  # asyncio leaves such a connection open
                assert not transport.is_closing()
                transport.close()
                await p.wait("connection_lost")
                return p.trace
        return impl.run(main())
    same(body)


@kinds
def test_write_eof_waits_for_what_is_buffered(kind):
    def body(impl):
        async def main():
            p = Stream()
            async with connected(p, kind) as (transport, peer):
                transport.write(BIG)
                assert transport.get_write_buffer_size() > 0
                transport.write_eof()
                found = outcome(transport.write, b"more")
                assert await take_all(peer) == BIG
                assert transport.get_write_buffer_size() == 0
                assert not transport.is_closing()
                transport.close()
                await p.wait("connection_lost")
                return found, p.trace[-1]
        return impl.run(main())
    same(body)


@kinds
def test_write_eof_then_close(kind):
    def body(impl):
        async def main():
            p = Stream()
            async with connected(p, kind) as (transport, peer):
                transport.write(BIG)
                transport.write_eof()
                transport.close()
                assert not p.lost
                assert await take_all(peer) == BIG
                await p.wait("connection_lost")
                return p.trace
        return impl.run(main())
    same(body)


# close and abort

@kinds
def test_close_sends_what_is_buffered(kind):
    def body(impl):
        async def main():
            p = Stream()
            async with connected(p, kind) as (transport, peer):
                transport.write(BIG)
                assert transport.get_write_buffer_size() > 0
                assert transport.close() is None
                assert transport.is_closing() is True
                transport.close()
                await io_settled()
                assert not p.lost
                assert await take_all(peer) == BIG
                await p.wait("connection_lost")
                await io_settled()
                return p.trace
        return impl.run(main())
    trace = same(body)
    assert trace[-1] == ["connection_lost", None]
    assert [e[0] for e in trace].count("connection_lost") == 1


@kinds
def test_write_after_close_with_a_full_buffer(kind):
    """asyncio takes and sends it, as long as there is something in the buffer."""
    def body(impl):
        async def main():
            p = Stream()
            async with connected(p, kind) as (transport, peer):
                transport.write(BIG)
                transport.close()
                transport.write(b"tail")
                got = await take_all(peer)
                await p.wait("connection_lost")
                return len(got), got[-4:]
        return impl.run(main())
    assert same(body) == [len(BIG) + 4, b"tail"]


@kinds
def test_abort_drops_what_is_buffered(kind):
    def body(impl):
        async def main():
            p = Stream()
            async with connected(p, kind) as (transport, peer):
                transport.write(BIG)
                assert transport.get_write_buffer_size() > 0
                assert transport.abort() is None
                assert transport.is_closing() is True
                assert transport.get_write_buffer_size() == 0
                transport.abort()
                transport.close()
                assert not p.lost
                await p.wait("connection_lost")
                await io_settled()
                assert len(await take_all(peer)) < len(BIG)
                return p.trace
        return impl.run(main())
    assert same(body)[-1] == ["connection_lost", None]


def test_close_then_abort():
    """abort() need not wait any longer."""
    def body(impl):
        async def main():
            p = Stream()
            async with connected(p) as (transport, peer):
                transport.write(BIG)
                transport.close()
                await io_settled()
                assert not p.lost
                transport.abort()
                await p.wait("connection_lost")
                await io_settled()
                return p.trace
        return impl.run(main())
    same(body)


@pytest.mark.parametrize("first", ["close", "abort"])
@kinds
def test_everything_after_close(kind, first, log):
    """No method raises, neither before connection_lost() nor after it."""
    calls = {
        "close": lambda t: t.close(),
        "abort": lambda t: t.abort(),
        "write": lambda t: t.write(b"x"),
        "write nothing": lambda t: t.write(b""),
        "write_eof": lambda t: t.write_eof(),
        "can_write_eof": lambda t: t.can_write_eof(),
        "pause_reading": lambda t: t.pause_reading(),
        "resume_reading": lambda t: t.resume_reading(),
        "is_closing": lambda t: t.is_closing(),
        "is_reading": lambda t: t.is_reading(),
        "get_write_buffer_size": lambda t: t.get_write_buffer_size(),
        "get_write_buffer_limits": lambda t: t.get_write_buffer_limits(),
        "set_write_buffer_limits": lambda t: t.set_write_buffer_limits(high=0),
        "extra": lambda t: t.get_extra_info("nothing", 5),
        "sockname": lambda t: type(t.get_extra_info("sockname")),
        "repr": lambda t: neutral(repr(t)),
        "protocol": lambda t: type(t.get_protocol()),
    }

    def body(impl):
        async def main():
            p = Stream()
            async with connected(p, kind) as (transport, peer):
                getattr(transport, first)()
                before = {name: outcome(call, transport) for name, call in calls.items()}
                await p.wait("connection_lost")
                await io_settled()
                after = {name: outcome(call, transport) for name, call in calls.items()}
                if better(impl, since=(3, 14)):
                    for lines in ([], [b"x"], [b"x", b""]):
                        transport.writelines(lines)
                return before, after, transport.get_extra_info("socket").fileno()
        found = impl.run(main())
        log.take()
        return found
    before, after, fd = same(body)
    assert fd == -1
    for found in (before, after):
        assert [v for v in found.values() if v[0] == "raised"] == []


@pytest.mark.parametrize("how", ["close", "abort"])
def test_lost_writes_are_reported_from_the_fifth_on(how, log):
    def body(impl):
        async def main():
            p = Stream()
            async with connected(p) as (transport, peer):
                getattr(transport, how)()
                said = []
                for i in range(8):
                    transport.write(b"x")
                    said.append(log.messages())
                await p.wait("connection_lost")
                for i in range(2):
                    transport.write(b"x")
                    said.append(log.messages())
                return said
        return impl.run(main())
    found = same(body)
    assert found == [[]] * 4 + [["socket.send() raised exception."]] * 6


def test_lost_writelines_are_reported(impl, log):
    if not better(impl, since=(3, 14)):
        return

    async def main():
        p = Stream()
        async with connected(p) as (transport, peer):
            transport.abort()
            said = []
            for i in range(6):
                transport.writelines([b"x"])
                said += log.messages()
            assert said == ["socket.send() raised exception."] * 2
    impl.run(main())


@kinds
@pytest.mark.parametrize("method", ["write", "writelines"])
def test_peer_is_gone(kind, method, log):
    """Writing to a closed peer: connection_lost with the error, no report, no exception."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            reports = Reports(loop)
            p = Stream({"eof_received": lambda p: True})
            async with connected(p, kind) as (transport, peer):
                peer.close()
                await p.wait("eof_received")
                for _ in range(100):
                    if method == "write":
                        transport.write(b"x" * 1000)
                    elif not transport.is_closing():
                        transport.writelines([b"x" * 1000])
                    if transport.is_closing():
                        break
                    await io_settled(1)
                assert transport.is_closing()
                await p.wait("connection_lost")
                return p.trace[-1], reports.take()
        return impl.run(main())
    (name, exc), reports = same(body)
    assert name == "connection_lost"
    assert exc in ("BrokenPipeError", "ConnectionResetError")
    assert reports == []


@kinds
def test_reset_by_the_peer(kind):
    if kind == "unix":
        pytest.skip("no resets")

    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            reports = Reports(loop)
            p = Stream()
            async with connected(p, kind) as (transport, peer):
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                peer.close()
                await p.wait("connection_lost")
                return p.trace, reports.take()
        return impl.run(main())
    trace, reports = same(body)
    assert trace == [["connection_made"], ["connection_lost", "ConnectionResetError"]]
    assert reports == []


def test_reset_is_a_debug_message(log):
    def body(impl):
        async def main():
            p = Stream()
            async with connected(p, "tcp4") as (transport, peer):
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                peer.close()
                await p.wait("connection_lost")
        import logging
        logging.getLogger("asyncio").setLevel(logging.DEBUG)
        log.details.clear()
        impl.run(main(), debug=True)
        return [(level, neutral(text.partition("\n")[0]).rpartition(">")[2])
                for level, text in log.details if "Fatal" in text]
    found = same(body)
    assert found == [["DEBUG", ": Fatal read error on socket transport"]]


# Reading

@kinds
@protocols
def test_pause_and_resume_reading(kind, protocol):
    def body(impl):
        async def main():
            p = protocol()
            states = []
            async with connected(p, kind) as (transport, peer):
                states.append(transport.is_reading())
                transport.pause_reading()
                states.append(transport.is_reading())
                transport.pause_reading()
                states.append(transport.is_reading())
                peer.sendall(b"one")
                await io_settled()
                assert p.received == b""
                transport.resume_reading()
                states.append(transport.is_reading())
                transport.resume_reading()
                await p.until(lambda: p.received == b"one")
                transport.pause_reading()
                transport.resume_reading()
                transport.pause_reading()
                peer.sendall(b"two")
                await io_settled()
                assert p.received == b"one"
                transport.resume_reading()
                await p.until(lambda: p.received == b"onetwo")
                transport.pause_reading()
                transport.close()
                states.append(transport.is_reading())
                transport.resume_reading()
                states.append(transport.is_reading())
                transport.pause_reading()
                await p.wait("connection_lost")
                states.append(transport.is_reading())
                return states, p.trace
        return impl.run(main())
    assert same(body)[0] == [True, False, False, True, False, False, False]


@protocols
def test_pause_in_connection_made(protocol):
    def body(impl):
        async def main():
            p = protocol({"connection_made": lambda p, t: t.pause_reading()})
            ours, peer = stream_pair()
            peer.sendall(b"early")
            transport = await attach(p, ours)
            await io_settled()
            assert p.received == b""
            transport.resume_reading()
            await p.until(lambda: p.received == b"early")
            transport.close()
            await p.wait("connection_lost")
            peer.close()
            return p.trace
        return impl.run(main())
    same(body)


@protocols
def test_pause_in_data_received(protocol):
    """What has arrived is delivered in one piece; the rest waits."""
    def body(impl):
        async def main():
            name = "data_received" if protocol is Stream else "buffer_updated"
            p = protocol({name: lambda p, what: p.transport.pause_reading()})
            async with connected(p) as (transport, peer):
                peer.sendall(b"one")
                await p.wait(name)
                peer.sendall(b"two")
                await io_settled()
                assert p.received == b"one"
                transport.resume_reading()
                await p.wait(name, 2)
                return p.trace
        return impl.run(main())
    same(body)


def test_paused_transport_does_not_see_the_end():
    def body(impl):
        async def main():
            p = Stream()
            async with connected(p) as (transport, peer):
                transport.pause_reading()
                peer.close()
                await io_settled()
                assert p.trace == [("connection_made",)]
                transport.resume_reading()
                await p.wait("connection_lost")
                return p.trace
        return impl.run(main())
    same(body)


def test_size_of_a_read(impl):
    """No more than 256 KiB at a time, and max_size says so."""
    async def main():
        p = Stream({"data_received": lambda p, data: None})
        async with connected(p, "tcp4") as (transport, peer):
            assert transport.max_size == 256 * 1024
            assert type(transport).max_size == 256 * 1024
            transport.pause_reading()
            sent = 0
            peer.setblocking(False)
            try:
                while True:
                    sent += peer.send(b"x" * 65536)
            except BlockingIOError:
                pass
            transport.resume_reading()
            await p.until(lambda: len(p.received) == sent)
            sizes = [len(e[1]) for e in p.trace if e[0] == "data_received"]
            assert max(sizes) <= 256 * 1024
    impl.run(main())


# Limits

LIMITS = [
    {}, {"high": 0}, {"high": 1}, {"high": 100}, {"low": 100}, {"high": 100, "low": 50},
    {"high": 100, "low": 100}, {"high": 50, "low": 100}, {"high": -1}, {"low": -1},
    {"high": 10, "low": -1}, {"high": None, "low": None}, {"high": 0, "low": 0},
    {"high": True}, {"high": 3}, {"low": 0}, {"high": 2 ** 40}, {"low": 2 ** 40}, {"high": 2 ** 62},
    {"high": -5, "low": -6},
]


def test_write_buffer_limits():
    def body(impl):
        async def main():
            found = []
            async with connected(Stream()) as (transport, peer):
                found.append((transport.get_write_buffer_limits(), transport.get_write_buffer_size()))
                for limits in LIMITS:
                    found.append((limits, outcome(lambda: transport.set_write_buffer_limits(**limits)),
                                  transport.get_write_buffer_limits()))
                for high, low in ((10, 5), (5, 10), (None, 7), (7, None)):
                    found.append(outcome(transport.set_write_buffer_limits, high, low))
                    found.append(transport.get_write_buffer_limits())
                for limits in ({"high": "x"}, {"low": "x"}, {"high": []}):
                    found.append(outcome(lambda: transport.set_write_buffer_limits(**limits))[:2])
            return found
        return impl.run(main())
    found = same(body)
    assert found[0] == [[16384, 65536], 0]
    assert ["raised", "ValueError", "high (50) must be >= low (100) must be >= 0"] in [
        f[1] for f in found if len(f) == 3]


def test_set_write_buffer_limits_pauses_at_once():
    def body(impl):
        async def main():
            p = Stream()
            async with connected(p) as (transport, peer):
                transport.set_write_buffer_limits(high=1 << 30)
                transport.write(BIG)
                size = transport.get_write_buffer_size()
                assert p.names() == ["connection_made"]
                transport.set_write_buffer_limits(high=size)
                assert p.names() == ["connection_made"]
                transport.set_write_buffer_limits(high=size - 1)
                assert p.names() == ["connection_made", "pause_writing"]
                transport.set_write_buffer_limits(high=size - 2)
                transport.set_write_buffer_limits(high=1 << 30)
                assert p.names() == ["connection_made", "pause_writing"]
                transport.close()
                await take_all(peer)
                await p.wait("connection_lost")
                return p.trace
        return impl.run(main())
    same(body)


# Protocols

def test_set_protocol():
    def body(impl):
        async def main():
            trace = []
            first = Stream(trace=trace)
            async with connected(first) as (transport, peer):
                assert transport.get_protocol() is first
                second = Stream({"connection_lost": lambda p, exc: trace.append(("second",))}, trace)
                assert transport.set_protocol(second) is None
                assert transport.get_protocol() is second
                peer.sendall(b"x")
                await second.until(lambda: second.received == b"x")
                assert first.received == b""
                transport.close()
                await second.wait("connection_lost")
                protocol = transport.get_protocol()
                return trace, first.lost, second.lost, protocol is None
        return impl.run(main())
    trace, *states = same(body)
    assert states == [False, True, True]


def test_between_kinds_of_protocols():
    """Protocol and BufferedProtocol in turns, inside and outside of callbacks."""
    def body(impl):
        async def main():
            trace = []

            def swap(p, what):
                p.transport.set_protocol(protocols[type(p) is Stream])
            a = Stream({"data_received": swap}, trace)
            b = Buffered({"buffer_updated": swap}, trace)
            protocols = [a, b]
            async with connected(a) as (transport, peer):
                b.transport = transport
                for i in range(6):
                    peer.sendall(b"%d" % i)
                    await io_settled()
                transport.set_protocol(b)
                peer.sendall(b"x")
                await io_settled()
                peer.close()
                await io_settled()
                return trace
        return impl.run(main())
    trace = same(body)
    assert [e[0] for e in trace[1:7]] == ["data_received", "buffer_updated"] * 3


def test_protocol_that_is_neither():
    """Any object with the methods will do, whether or not it has a base class."""
    def body(impl):
        async def main():
            trace = []

            class Duck:
                def connection_made(self, transport):
                    trace.append("made")

                def data_received(self, data):
                    trace.append(data)

                def eof_received(self):
                    trace.append("eof")

                def connection_lost(self, exc):
                    trace.append("lost")
            async with connected(Duck()) as (transport, peer):
                peer.sendall(b"quack")
                peer.close()
                while "lost" not in trace:
                    await io_settled(1)
                return trace
        return impl.run(main())
    assert same(body) == ["made", b"quack", "eof", "lost"]


def test_methods_are_looked_up_at_each_call():
    """A data_received that is replaced on the instance is used from then on."""
    def body(impl):
        async def main():
            p = Stream()
            seen = []
            async with connected(p) as (transport, peer):
                peer.sendall(b"1")
                await p.until(lambda: p.received == b"1")
                p.data_received = lambda data: seen.append(("instance", data))
                peer.sendall(b"2")
                await io_settled()
                del p.data_received
                original = Stream.data_received
                try:
                    Stream.data_received = lambda self, data: seen.append(("class", data))
                    peer.sendall(b"3")
                    await io_settled()
                finally:
                    Stream.data_received = original
                p.eof_received = lambda: seen.append("eof")
                p.connection_lost = lambda exc: seen.append("lost")
                peer.close()
                await io_settled()
                return seen
        return impl.run(main())
    assert same(body) == [["instance", b"2"], ["class", b"3"], "eof", "lost"]


@pytest.mark.parametrize("missing", ["data_received", "eof_received", "connection_lost", "connection_made"])
def test_protocol_without_a_method(missing):
    def body(impl):
        async def main():
            reports = Reports(asyncio.get_running_loop())

            def method(self, *args):
                pass
            names = {"connection_made", "data_received", "eof_received", "connection_lost"} - {missing}
            duck = type("Duck", (), dict.fromkeys(names, method))()
            ours, peer = stream_pair()
            try:
                transport = await attach(duck, ours)
                peer.sendall(b"x")
                await io_settled()
                peer.close()
                await io_settled()
                transport.close()
                await io_settled()
                found = reports.take()
                return found, ours.fileno() == -1
            except AttributeError as exc:
                found = type(exc).__name__, reports.take()
                ours.close()
                peer.close()
                return found
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            found = impl.run(main())
            gc.collect()
        return found
    same(body)


# What there is to know

def test_extra_info(impl):
    async def main():
        for kind in KINDS:
            p = Stream()
            async with connected(p, kind) as (transport, peer):
                sock = transport.get_extra_info("socket")
                assert type(sock) is asyncio.trsock.TransportSocket
                assert sock is transport.get_extra_info("socket")
                fd = sock.fileno()
                assert fd >= 0
                for name in ("sockname", "peername"):
                    expected = peer.getpeername() if name == "sockname" else peer.getsockname()
                    assert transport.get_extra_info(name) == expected
                    assert transport.get_extra_info(name) == getattr(sock, "get" + name)()
                assert sock.type == socket.SOCK_STREAM
                assert sock.gettimeout() == 0
                if kind != "unix" and sock.proto == socket.IPPROTO_TCP:
                    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert transport.get_extra_info("unknown") is None
                default = object()
                assert transport.get_extra_info("unknown", default) is default
                assert transport.get_extra_info("unknown", default=default) is default
                assert transport.get_extra_info("sslcontext") is None
                assert transport.get_extra_info("pipe") is None
                peername = transport.get_extra_info("peername")
                transport.close()
                assert sock.fileno() == fd
                await p.wait("connection_lost")
                await io_settled()
                assert transport.get_extra_info("peername") == peername
                assert transport.get_extra_info("socket") is sock
                assert sock.fileno() == -1
    impl.run(main())


def test_socket_in_connection_lost():
    """It is closed only after connection_lost()."""
    def body(impl):
        async def main():
            seen = []

            def on_lost(p, exc):
                sock = p.transport.get_extra_info("socket")
                seen.append(sock.fileno() >= 0)
                seen.append(p.transport.is_closing())
                seen.append(p.transport.get_protocol() is p)
                seen.append(neutral(repr(p.transport)).split()[1])
            for how in ("close", "abort"):
                p = Stream({"connection_lost": on_lost})
                async with connected(p) as (transport, peer):
                    getattr(transport, how)()
                    await p.wait("connection_lost")
            return seen
        return impl.run(main())
    assert same(body)[:3] == [True, True, True]


def test_peername_when_the_peer_has_gone():
    def body(impl):
        async def main():
            ours, peer = stream_pair("tcp4")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            peer.close()
            p = Stream()
            transport = await attach(p, ours)
            found = (transport.get_extra_info("peername"), type(transport.get_extra_info("sockname")))
            if not p.lost:
                await p.wait("connection_lost")
            return found, p.trace
        return impl.run(main())
    assert same(body)[0] == [None, "tuple"]


def test_classes(impl):
    async def main():
        async with connected(Stream()) as (transport, peer):
            assert isinstance(transport, asyncio.Transport)
            assert isinstance(transport, asyncio.BaseTransport)
            assert isinstance(transport, asyncio.ReadTransport)
            assert isinstance(transport, asyncio.WriteTransport)
            assert isinstance(transport, transports._FlowControlMixin)
            assert not isinstance(transport, asyncio.DatagramTransport)
            assert issubclass(type(transport), asyncio.Transport)
            assert transport._start_tls_compatible is True
            assert type(transport)._start_tls_compatible is True
            assert hash(transport) == hash(transport)
            assert transport == transport
            assert transport in {transport}
            assert bool(transport)
    impl.run(main())


def test_attributes_and_weak_references(impl):
    async def main():
        p = Stream()
        async with connected(p) as (transport, peer):
            transport.foo = 1
            assert transport.foo == 1
            assert "foo" in vars(transport)
            del transport.foo
            assert not hasattr(transport, "foo")
            transport.me = transport  # a cycle
            ref = weakref.ref(transport)
            assert ref() is transport
            mapping = weakref.WeakKeyDictionary({transport: 1})
            assert mapping[transport] == 1
            transport.close()
            await p.wait("connection_lost")
            await io_settled()
        p.transport = None
        del transport
        gc.collect()
        assert ref() is None
    impl.run(main())


def test_methods_can_be_replaced_on_an_instance(impl):
    """As middleware and tests do it."""
    async def main():
        async with connected(Stream()) as (transport, peer):
            written = []
            original = transport.write
            transport.write = lambda data: (written.append(data), original(data))
            transport.write(b"x")
            assert written == [b"x"]
            assert await take(peer, 1) == b"x"
            del transport.write
            transport.write(b"y")
            assert written == [b"x"]
            assert await take(peer, 1) == b"y"
    impl.run(main())


def test_repr():
    def body(impl):
        async def main():
            p = Stream()
            async with connected(p) as (transport, peer):
                fd = transport.get_extra_info("socket").fileno()
                assert f" fd={fd} " in repr(transport)
                found = [neutral(repr(transport))]
                transport.pause_reading()
                found.append(neutral(repr(transport)))
                transport.write(BIG)
                size = transport.get_write_buffer_size()
                assert f"write=<polling, bufsize={size}>" in repr(transport)
                transport.resume_reading()
                found.append(neutral(repr(transport)))
                transport.close()
                found.append(neutral(repr(transport)))
                await take_all(peer)
                await p.wait("connection_lost")
                await io_settled()
                found.append(neutral(repr(transport)))
                assert str(transport) == repr(transport)
            p = Stream()
            async with connected(p) as (transport, peer):
                transport.abort()
                found.append(neutral(repr(transport)))
            return [text.partition(" ")[2] for text in found]
        return impl.run(main())
    found = same(body)
    assert found[0] == "fd=N read=polling write=<idle, bufsize=0>>"
    assert found[1] == "fd=N read=idle write=<idle, bufsize=0>>"
    assert found[2].startswith("fd=N read=polling write=<polling, bufsize=")
    assert found[3].startswith("closing fd=N read=idle write=<polling, bufsize=")
    assert found[4] == "closed fd=N>"


def test_repr_when_the_loop_is_closed(impl):
    ours, peer = stream_pair()
    loop = impl.new_loop()
    transport, _ = loop.run_until_complete(loop.connect_accepted_socket(Stream, ours))
    loop.close()
    fd = ours.fileno()
    assert f"fd={fd}" in repr(transport)
    peer.close()
    with pytest.warns(ResourceWarning):
        del transport
        _.transport = None
        del _, loop
        gc.collect()


# Transports that nobody closed

def test_unclosed_transport():
    """Dropped with its loop: a ResourceWarning, and the descriptor is closed."""
    def body(impl):
        ours, peer = stream_pair()
        loop = impl.new_loop()
        p = Stream()
        transport, _ = loop.run_until_complete(loop.connect_accepted_socket(lambda: p, ours))
        loop.close()
        p.transport = None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del transport, loop, _
            gc.collect()
        trace = p.trace
        eof = peer.recv(1)
        peer.close()
        return ([(w.category, neutral(w.message).partition(" fd")[0], type(w.source).__name__[-9:])
                 for w in caught], trace, eof, ours.fileno())
    (((category, text, source),), trace, eof, fd) = same(body)
    assert category == "ResourceWarning"
    assert text.startswith("unclosed transport <")
    assert source.endswith("Transport")
    assert (trace, eof, fd) == ([["connection_made"]], b"", -1)


def test_unclosed_transport_of_a_running_loop():
    """A transport that reads is kept by its loop; one that is paused is dropped with its last user."""
    def body(impl):
        async def main():
            ours, peer = stream_pair()
            p = Stream()
            transport = await attach(p, ours)
            ref = weakref.ref(transport)
            p.transport = None
            del transport
            gc.collect()
            assert ref() is not None
            peer.sendall(b"x")
            await p.until(lambda: p.received == b"x")
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                ref().pause_reading()
                for _ in range(3):
                    await asyncio.sleep(0)
                gc.collect()
            categories = [w.category for w in caught]
            caught.clear()  # and with it what the warnings are about
            gc.collect()
            assert ref() is None
            eof = await take_all(peer)
            peer.close()
            return categories, eof, p.trace
        return impl.run(main())
    categories, eof, trace = same(body)
    assert categories == ["ResourceWarning"]
    assert eof == b""


def test_transport_with_buffered_data_is_kept(impl):
    """The loop holds it until everything is sent."""
    async def main():
        ours, peer = stream_pair()
        p = Stream()
        transport = await attach(p, ours)
        transport.write(BIG)
        transport.close()
        ref = weakref.ref(transport)
        p.transport = None
        del transport
        gc.collect()
        assert ref() is not None
        assert await take_all(peer) == BIG
        await p.wait("connection_lost")
        for _ in range(3):
            await asyncio.sleep(0)
        peer.close()
        gc.collect()
        assert ref() is None
    impl.run(main())


def test_protocol_is_released(impl):
    """After connection_lost() the transport lets go of the protocol."""
    async def main():
        ours, peer = stream_pair()
        p = Stream()
        transport = await attach(p, ours)
        ref = weakref.ref(p)
        transport.close()
        await p.wait("connection_lost")
        await io_settled()
        del p
        gc.collect()
        assert ref() is None
        peer.close()
    impl.run(main())


# The order of things

def test_order_of_the_start():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            order = []

            class P(asyncio.Protocol):
                def connection_made(self, transport):
                    order.append("made")
                    loop.call_soon(order.append, "soon from made")

                def data_received(self, data):
                    order.append(data)

            def factory():
                order.append("factory")
                loop.call_soon(order.append, "soon from factory")
                return P()
            ours, peer = stream_pair()
            peer.sendall(b"early")
            loop.call_soon(order.append, "soon before")
            transport, _ = await loop.connect_accepted_socket(factory, ours)
            order.append("returned")
            await io_settled()
            transport.close()
            await io_settled()
            peer.close()
            return order
        return impl.run(main())
    order = same(body)
    assert order == ["factory", "soon before", "soon from factory", "made", "soon from made",
                     "returned", b"early"]


def test_nothing_is_read_before_connection_made_has_returned():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            order = []

            class P(asyncio.Protocol):
                def connection_made(self, transport):
                    order.append(("made", transport.is_reading()))
                    order.append(neutral(repr(transport)).partition(" ")[2])

                def data_received(self, data):
                    order.append(data)
            ours, peer = stream_pair()
            peer.sendall(b"early")
            transport, _ = await loop.connect_accepted_socket(P, ours)
            await io_settled()
            transport.close()
            await io_settled()
            peer.close()
            return order
        return impl.run(main())
    same(body)


@pytest.mark.parametrize("how", ["close", "abort"])
def test_order_of_the_end(how):
    """connection_lost() takes its turn among the call_soon() callbacks."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            trace = []
            p = Stream({"connection_lost": lambda p, exc: loop.call_soon(trace.append, "from lost")}, trace)
            async with connected(p) as (transport, peer):
                loop.call_soon(trace.append, "before")
                getattr(transport, how)()
                loop.call_soon(trace.append, "after")
                trace.append("now")
                await io_settled()
                return trace
        return impl.run(main())
    assert same(body) == [["connection_made"], "now", "before", ["connection_lost", None], "after", "from lost"]


@protocols
def test_order_of_a_whole_life(protocol):
    def body(impl):
        async def main():
            p = protocol()
            async with connected(p) as (transport, peer):
                peer.sendall(b"all" * 10)
                peer.close()
                await p.wait("connection_lost")
                await io_settled()
                return p.trace
        return impl.run(main())
    data = ["data_received" if protocol is Stream else "buffer_updated", b"all" * 10]
    assert same(body) == [["connection_made"], data, ["eof_received"], ["connection_lost", None]]


def test_close_in_data_received_and_call_soon():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            trace = []

            def on_data(p, data):
                loop.call_soon(trace.append, "one")
                p.transport.close()
                loop.call_soon(trace.append, "two")
            p = Stream({"data_received": on_data}, trace)
            async with connected(p) as (transport, peer):
                peer.sendall(b"x")
                peer.close()
                await p.wait("connection_lost")
                await io_settled()
                return trace
        return impl.run(main())
    assert same(body) == [["connection_made"], ["data_received", b"x"], "one", ["connection_lost", None], "two"]


def test_debug_mode(log):
    """A whole life in debug mode: the same trace, the same messages."""
    def body(impl):
        async def main():
            p = Stream()
            async with connected(p, "tcp4") as (transport, peer):
                transport.pause_reading()
                transport.resume_reading()
                transport.write(b"x")
                peer.sendall(b"y")
                await p.until(lambda: p.received == b"y")
                await take(peer, 1)
                peer.close()
                await p.wait("connection_lost")
                return p.trace
        import logging
        logging.getLogger("asyncio").setLevel(logging.DEBUG)
        log.details.clear()
        trace = impl.run(main(), debug=True)
        said = [re.sub(r"<.*> ", "<> ", neutral(text)) for _, text in log.details
                if "reading" in text or "EOF" in text]
        return trace, said
    _, said = same(body)
    assert said == ["<> pauses reading", "<> resumes reading", "<> received EOF"]


# Other loops, other threads of thought

def test_descriptor_of_a_transport_is_guarded():
    """add_reader & co. refuse a descriptor that a transport uses."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            p = Stream()
            async with connected(p) as (transport, peer):
                fd = transport.get_extra_info("socket").fileno()
                found = []
                for call in (lambda: loop.add_reader(fd, print), lambda: loop.add_writer(fd, print),
                             lambda: loop.remove_reader(fd), lambda: loop.remove_writer(fd)):
                    kind, name, text = outcome(call)
                    found.append((kind, name, neutral(text).replace(str(fd), "FD")))
                transport.close()
                assert loop.remove_reader(fd) is False
                await p.wait("connection_lost")
                return found
        return impl.run(main())
    for kind, name, text in same(body):
        assert name == "RuntimeError"
        assert text.startswith("File descriptor FD is used by transport <")


@pytest.mark.parametrize("debug", [False, True])
def test_close_of_the_loop_with_open_transports(impl, debug):
    """No callback is called; the descriptors go with the transports."""
    ours, peer = stream_pair()
    p = Stream()
    loop = impl.new_loop()
    loop.set_debug(debug)
    transport, _ = loop.run_until_complete(loop.connect_accepted_socket(lambda: p, ours))
    transport.write(BIG)
    loop.close()
    assert p.names() == ["connection_made", "pause_writing"]
    assert transport.get_write_buffer_size() > 0
    p.transport = None
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        del transport, _, loop
        gc.collect()
    assert ours.fileno() == -1
    peer.close()


def test_methods_when_the_loop_is_closed():
    """asyncio's close() needs the loop and raises; the others work."""
    def body(impl):
        ours, peer = stream_pair()
        p = Stream()
        loop = impl.new_loop()
        transport, _ = loop.run_until_complete(loop.connect_accepted_socket(lambda: p, ours))
        loop.close()
        found = [outcome(transport.write, b"x"), take_now(peer), outcome(transport.is_closing),
                 outcome(transport.pause_reading), outcome(transport.close)[:2], outcome(transport.is_closing)]
        p.transport = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            del transport, _, loop
            gc.collect()
        peer.close()
        return found
    same(body)
