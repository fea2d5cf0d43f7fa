"""How connections end: politely, at once, by both, by silence, by treachery."""

import asyncio
import gc
import random
import socket
import time
import warnings

import pytest

from support import FASTLOOP, same
from support.net import Reports, Stream, io_settled, reset
from support.tls import (
    ALERT, VERSIONS, Buffered, Pair, better, client_context, lost, secured, server_context)

sides = pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])
versions = pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)

BIG = random.Random(7).randbytes(3 << 20)


def contexts(server_side, version):
    near = (server_context if server_side else client_context)(version=version)
    far = (client_context if server_side else server_context)(version=version)
    return {"server_side": server_side, "near": near, "far": far}


# close()

@versions
@sides
def test_close_says_so(server_side, version):
    """close_notify, the peer's answer, FIN: in this order, and connection_lost(None) last."""
    def body(impl):
        async def main():
            p = Stream()
            async with secured(p, **contexts(server_side, version)) as (transport, peer):
                transport.write(b"last words")
                transport.close()
                await io_settled()
                said = await peer.take_all()
                assert peer.ended == "close_notify"
                assert not p.lost  # it waits for the answer
                return said, await peer.finish(), (await lost(p), p.trace)[1]
        return impl.run(main())
    said, end, trace = same(body)
    assert said == b"last words"
    assert end == ["close_notify", "FIN"]
    assert trace == [["connection_made"], ["eof_received"], ["connection_lost", None]]


@pytest.mark.parametrize("buffers", [4096, 65536, None])
@pytest.mark.parametrize("size", [1, 100000, len(BIG)])
def test_close_with_data_unsent(size, buffers):
    """All of it arrives before close_notify."""
    def body(impl):
        async def main():
            p = Stream()
            async with secured(p, buffers=buffers, kind="tcp4") as (transport, peer):
                transport.write(BIG[:size])
                transport.write(b"the end")
                transport.close()
                got = await peer.take_all()
                end = await peer.finish()
                await lost(p)
                return got == BIG[:size] + b"the end", end, p.trace[-1]
        return impl.run(main())
    assert same(body) == [True, ["close_notify", "FIN"], ["connection_lost", None]]


@pytest.mark.parametrize("data", [b"", b"more of it"])
@versions
def test_peer_closes(version, data):
    """Its data, then eof_received(), then close_notify back and FIN, then connection_lost(None)."""
    def body(impl):
        async def main():
            p = Stream()
            async with secured(p, **contexts(True, version)) as (transport, peer):
                if data:
                    await peer.send(data)
                peer.goodbye()
                await lost(p)
                peer.ended = None
                while not peer.ended:
                    await peer.moved()
                fin, _ = peer.ended, peer.decrypt()
                return p.trace, fin, peer.ended
        return impl.run(main())
    trace, fin, ended = same(body)
    assert fin == "FIN"
    assert trace == [["connection_made"], *([["data_received", data]] if data else []), ["eof_received"],
                     ["connection_lost", None]]
    assert ended == "close_notify"


@pytest.mark.parametrize("protocol", [Stream, Buffered])
def test_peer_closes_and_has_data_still_to_come(protocol):
    """Much data with close_notify and FIN right behind it: all is delivered first.

    asyncio loses some if get_buffer() is too small for it.
    """
    def body(impl):
        async def main():
            p = protocol()
            async with secured(p, kind="tcp4") as (transport, peer):
                await peer.send(BIG)
                peer.goodbye()
                peer.fin()
                await lost(p)
                return bytes(p.received) == BIG, p.names()[-2:]
        return impl.run(main())
    if protocol is Stream:
        assert same(body) == [True, ["eof_received", "connection_lost"]]
    elif better(FASTLOOP):
        assert body(FASTLOOP) == (True, ["eof_received", "connection_lost"])


def test_peer_closes_while_we_have_data_unsent():
    """What was written before its close_notify came is sent all the same, then close_notify."""
    def body(impl):
        async def main():
            p = Stream()
            async with secured(p, buffers=65536) as (transport, peer):
                transport.write(BIG)
                peer.goodbye()
                peer.ended = None
                got = await peer.take_all()
                assert peer.ended == "close_notify"
                await lost(p)
                return len(got), got == BIG, p.names()
        return impl.run(main())
    size, whole, names = same(body)
    assert whole, size
    assert names[-2:] == ["eof_received", "connection_lost"]


def test_both_close_at_once():
    """Two close_notify cross each other: both ends are content."""
    def body(impl):
        async def main():
            p = Stream()
            async with secured(p) as (transport, peer):
                peer.goodbye()  # not yet seen by the loop
                transport.close()
                end = await peer.finish()
                await lost(p)
                return end, p.trace
        return impl.run(main())
    assert same(body) == [["close_notify", "FIN"],
                          [["connection_made"], ["eof_received"], ["connection_lost", None]]]


def test_both_close_at_once_with_data_unsent():
    def body(impl):
        async def main():
            p = Stream()
            async with secured(p, buffers=65536) as (transport, peer):
                transport.write(BIG)
                transport.close()
                peer.goodbye()
                peer.ended = None
                got = await peer.take_all()
                await lost(p)
                return got == BIG, peer.ended, p.names()[-1]
        return impl.run(main())
    assert same(body) == [True, "close_notify", "connection_lost"]


@pytest.mark.parametrize("paused", [False, True])
def test_data_that_came_before_our_close(paused):
    """It is still delivered if the loop reads it; while reading is paused it is not."""
    def body(impl):
        async def main():
            p = Stream()
            async with secured(p) as (transport, peer):
                if paused:
                    transport.pause_reading()
                await peer.send(b"in time")
                await io_settled()
                transport.close()
                await peer.take_all()
                peer.goodbye()
                await lost(p)
                return p.trace
        return impl.run(main())
    trace = same(body)
    assert (["data_received", b"in time"] in trace) == (not paused)


def test_data_after_our_close():
    """A peer that talks on after our close_notify ends the connection with OpenSSL's error; nothing is reported."""
    def body(impl):
        async def main():
            reports = Reports(asyncio.get_running_loop())
            p = Stream()
            async with secured(p) as (transport, peer):
                transport.close()
                await io_settled()
                await peer.send(b"too late")
                await lost(p)
                await io_settled()
                return p.trace, reports.take(), transport.get_write_buffer_size()
        return impl.run(main())
    trace, reports, _ = same(body)
    assert trace == [["connection_made"], ["connection_lost", "SSLError"]]
    assert reports == []


def test_close_after_the_peer_has_closed():
    def body(impl, how):
        async def main():
            p = Stream({"eof_received": lambda p: getattr(p.transport, how)()})
            async with secured(p) as (transport, peer):
                peer.goodbye()
                await lost(p)
                await io_settled()
                return p.trace
        return impl.run(main())
    for how in ("close", "abort"):
        assert same(body, how)[-1] == ["connection_lost", None]


def test_callbacks_after_close():
    """After close() from data_received() no data is delivered, however much was in the same segment."""
    def body(impl):
        async def main():
            p = Stream({"data_received": lambda p, data: p.transport.close()})
            async with secured(p) as (transport, peer):
                await peer.send(b"one")
                await p.wait("data_received")
                await peer.take_all()
                peer.goodbye()
                await lost(p)
                return p.trace
        return impl.run(main())
    assert same(body)[1] == ["data_received", b"one"]


# abort()

@sides
def test_abort(server_side):
    """Without a word: what is unsent goes, connection_lost(None) comes once, not at once."""
    def body(impl):
        async def main():
            p = Stream()
            async with secured(p, server_side=server_side, buffers=65536) as (transport, peer):
                transport.write(BIG)
                transport.write(BIG)
                transport.abort()
                assert not p.lost and transport.is_closing()
                transport.abort()
                await lost(p)
                await io_settled()
                got = await peer.take_all()
                return transport.get_write_buffer_size(), len(got) < len(BIG), peer.ended, p.names()
        return impl.run(main())
    size, cut, ended, names = same(body)
    assert (size, cut) == (0, True)
    assert ended != "close_notify"
    assert names == ["connection_made", "pause_writing", "connection_lost"]


def test_abort_while_closing():
    def body(impl):
        async def main():
            p = Stream()
            async with secured(p) as (transport, peer):
                transport.close()
                await io_settled()
                transport.abort()
                await lost(p)
                await io_settled()
                return p.trace
        return impl.run(main())
    assert same(body) == [["connection_made"], ["connection_lost", None]]


# Endings without close_notify

@sides
@versions
def test_truncation(server_side, version):
    """FIN without close_notify: asyncio tells it as an ordinary end of the stream."""
    def body(impl):
        async def main():
            p = Stream()
            async with secured(p, **contexts(server_side, version)) as (transport, peer):
                await peer.send(b"part of a")
                await p.wait("data_received")
                peer.fin()
                await lost(p)
                return p.trace
        return impl.run(main())
    assert same(body) == [["connection_made"], ["data_received", b"part of a"], ["eof_received"],
                          ["connection_lost", None]]


@pytest.mark.parametrize("cut", [1, 4, 5, 6, -1])
def test_truncation_within_a_record(cut):
    """What is not a whole record is never delivered."""
    def body(impl):
        async def main():
            p = Stream()
            async with secured(p) as (transport, peer):
                await peer.send(b"whole")
                await p.wait("data_received")
                peer.sock.send(peer.encrypted(b"cut off")[:cut])
                await io_settled()
                peer.fin()
                await lost(p)
                return p.trace
        return impl.run(main())
    trace = same(body)
    assert trace[:2] == [["connection_made"], ["data_received", b"whole"]]
    assert trace[-1][0] == "connection_lost" and len(trace) <= 4


def test_truncation_while_we_have_data_unsent():
    """A peer that only half-closed still reads: it gets everything."""
    def body(impl):
        async def main():
            p = Stream()
            async with secured(p, buffers=65536, kind="tcp4") as (transport, peer):
                transport.write(BIG[:200000])
                peer.fin()
                got = await peer.take_all()
                await lost(p)
                return got == BIG[:200000], p.names()[-2:]
        return impl.run(main())
    assert same(body) == [True, ["eof_received", "connection_lost"]]


@pytest.mark.parametrize("state", ["idle", "paused", "writing", "closing"])
def test_reset(state):
    """connection_lost() tells the reset, whatever the connection was about; nothing is reported."""
    def body(impl):
        async def main():
            reports = Reports(asyncio.get_running_loop())
            p = Stream()
            async with secured(p, kind="tcp4", buffers=4096) as (transport, peer):
                if state == "paused":
                    transport.pause_reading()
                elif state == "writing":
                    for _ in range(10):
                        transport.write(BIG[:200000])
                elif state == "closing":
                    transport.close()
                await io_settled()
                peer.look()
                reset(peer.sock)
                await lost(p)
                return p.trace[-1][0], p.trace[-1][1] in ("ConnectionResetError", "BrokenPipeError"), reports.take()
        return impl.run(main())
    assert same(body) == ["connection_lost", True, []]


@versions
@pytest.mark.parametrize("level, description", [(1, 90), (2, 40), (2, 80)])
def test_alert_amid_the_connection(level, description, version):
    """A fatal alert, and a warning, in clear: neither is data, and the connection ends as asyncio's does."""
    def body(impl):
        async def main():
            reports = Reports(asyncio.get_running_loop())
            p = Stream()
            async with secured(p, **contexts(True, version)) as (transport, peer):
                peer.sock.send(bytes([ALERT, 3, 3, 0, 2, level, description]))
                await lost(p)
                await io_settled()
                return p.trace, reports.take()
        return impl.run(main())
    trace, reports = same(body)
    assert trace == [["connection_made"], ["connection_lost", "SSLError"]]
    assert reports == []


# Time

def test_shutdown_timeout():
    """A peer that never answers our close_notify: connection_lost() has asyncio's sentence, the socket is closed."""
    def body(impl):
        async def main():
            reports = Reports(asyncio.get_running_loop())
            texts = []
            p = Stream({"connection_lost": lambda p, exc: texts.append(str(exc))})
            async with secured(p, ssl_shutdown_timeout=0.05) as (transport, peer):
                fd = transport.get_extra_info("socket")
                began = time.monotonic()
                transport.close()
                await lost(p)
                assert time.monotonic() - began >= 0.045
                await io_settled()
                peer.look()
                return texts, p.trace, fd.fileno(), peer.ended, reports.take()
        return impl.run(main())
    texts, trace, fd, ended, reports = same(body)
    assert texts == ["SSL shutdown timed out"]
    assert trace == [["connection_made"], ["connection_lost", "TimeoutError"]]
    assert (fd, ended, reports) == (-1, "close_notify", [])


def test_shutdown_timeout_with_data_unsent():
    """Also for a peer that never reads."""
    def body(impl):
        async def main():
            p = Stream()
            async with secured(p, ssl_shutdown_timeout=0.05, buffers=4096) as (transport, peer):
                transport.write(BIG)
                transport.close()
                await lost(p)
                await io_settled()
                return p.names(), p.trace[-1], transport.get_write_buffer_size()
        return impl.run(main())
    names, last, size = same(body)
    assert last == ["connection_lost", "TimeoutError"] and size == 0


def test_shutdown_timeout_when_the_peer_has_closed_first():
    """A peer that says close_notify but never takes our data."""
    def body(impl):
        async def main():
            p = Stream()
            async with secured(p, ssl_shutdown_timeout=0.05, buffers=4096) as (transport, peer):
                transport.write(BIG)
                await io_settled()
                peer.goodbye()
                await p.wait("eof_received")
                await asyncio.sleep(0.1)
                ended = p.lost
                transport.abort()
                await lost(p)
                return ended
        return impl.run(main())
    same(body)


def test_peer_answers_in_time(impl):
    """Then the timeout is off: nothing comes after connection_lost(None)."""
    async def main():
        p = Stream()
        async with secured(p, ssl_shutdown_timeout=0.05) as (transport, peer):
            transport.close()
            await peer.finish()
            await lost(p)
            await asyncio.sleep(0.07)
            assert p.trace == [("connection_made",), ("eof_received",), ("connection_lost", None)]
    impl.run(main())


def test_peer_that_sends_forever_after_our_close(impl):
    """Nothing of it is kept, nor delivered, and it ends."""
    async def main():
        p = Stream()
        async with secured(p, kind="tcp4", ssl_shutdown_timeout=5) as (transport, peer):
            transport.close()
            sent = 0
            record = peer.encrypted(bytes(16000))
            largest = 0
            while not p.lost and sent < 50_000_000:
                try:
                    sent += peer.sock.send(record)
                    record = peer.encrypted(bytes(16000))
                except BlockingIOError:
                    pass
                except OSError:
                    break
                largest = max(largest, transport.get_read_buffer_size())
                await asyncio.sleep(0)
            await lost(p)
            assert sent < 5_000_000
            assert largest <= 1 << 20
            assert p.received == b""
            assert p.trace[-1][1] in ("SSLError", "TimeoutError")
    impl.run(main())


def test_peer_that_has_sent_much_before_our_close():
    """A paused transport with its buffers full is closed: it ends, and not by the timeout of a minute."""
    def body(impl):
        async def main():
            p = Stream()
            async with secured(p, kind="tcp4", ssl_shutdown_timeout=0.3) as (transport, peer):
                transport.pause_reading()
                for _ in range(100):
                    peer.tls.write(bytes(16000))
                peer.flush()
                await io_settled()
                peer.flush()
                await io_settled()
                transport.close()
                await lost(p)
                return p.trace[-1][0], p.received == b""
        return impl.run(main())
    assert same(body) == ["connection_lost", True]


# Files

def test_the_socket_is_closed_exactly_once(impl):
    """A descriptor of the same number opened in connection_lost() is nobody else's."""
    async def main():
        loop = asyncio.get_running_loop()
        for how in ("close", "abort", "peer"):
            p = Stream()
            async with secured(p) as (transport, peer):
                if how == "peer":
                    peer.goodbye()
                else:
                    getattr(transport, how)()
                if how == "close":
                    await peer.finish()
                await lost(p)
                await io_settled()
                a, b = socket.socketpair()
                await io_settled()
                a.setblocking(False)
                b.send(b"mine")
                assert await loop.sock_recv(a, 10) == b"mine"
                a.close(), b.close()
    impl.run(main())


def test_loop_is_closed_while_a_connection_is_open(impl):
    """The transport can be closed or aborted afterwards without an exception but RuntimeError."""
    def use(loop):
        async def make():
            both = Pair()
            await both.handshake()
            return both
        both = loop.run_until_complete(make())
        loop.close()
        for method in ("abort", "close"):
            try:
                getattr(both.transport, method)()
            except RuntimeError:
                pass
        both.far.close()
        both.ours.close()
        both.transport = both.making = both.protocol.transport = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        use(impl.new_loop())
        gc.collect()
