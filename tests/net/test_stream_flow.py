"""Streams under load: back-pressure, order, completeness."""

import asyncio
import hashlib
import random
import socket
import time

import pytest

from support import PY, same
from support.net import (
    KINDS, LIMIT, Buffered, Peer, Stream, attach, better, connected, io_settled, put, settle_loop,
    stream_pair, take, take_all, take_now)

kinds = pytest.mark.parametrize("kind", KINDS)
protocols = pytest.mark.parametrize("protocol", [Stream, Buffered])
methods = pytest.mark.parametrize("method", ["write", "writelines"])

BIG = random.Random(1).randbytes(1 << 20) * 8


# Back-pressure

@methods
@pytest.mark.parametrize("limits", [{}, {"high": 0}, {"high": 1}, {"high": 300000, "low": 1},
                                    {"high": 200000, "low": 200000}, {"low": 100000}])
def test_pause_and_resume_exactly(method, limits):
    """A peer that reads only now and then: after which write is there a pause, after which read an end to it?

    A unix socket's buffer behaves the same each time, so the whole trace can be compared.
    """
    if method == "writelines" and (3, 12) <= PY < (3, 14):
        pytest.skip("asyncio does not pause here (CVE-2024-12254)")

    def body(impl):
        async def main():
            p = Stream()
            sizes = []
            async with connected(p, buffers=65536) as (transport, peer):
                transport.set_write_buffer_limits(**limits)
                for i in range(20):
                    put(transport, method, b"%02d" % i * 20000)
                    await asyncio.sleep(0)
                    p.note("wrote", i)
                    sizes.append(transport.get_write_buffer_size())
                while transport.get_write_buffer_size():
                    assert take_now(peer, 30000)
                    await io_settled(2)
                    p.note("read")
                    sizes.append(transport.get_write_buffer_size())
                return p.trace, sizes, transport.get_write_buffer_limits()
        return impl.run(main())
    trace, sizes, limits = same(body)
    names = [e[0] for e in trace]
    assert names.count("pause_writing") == names.count("resume_writing") >= 1


@methods
@kinds
def test_buffer_is_bounded(impl, kind, method):
    """Who heeds pause_writing() never has more than high water and one write in the buffer."""
    async def main():
        loop = asyncio.get_running_loop()
        p = Stream()
        async with connected(p, kind) as (transport, peer):
            if method == "writelines" and not better(impl, since=(3, 14)) and PY >= (3, 12):
                return
            high = transport.get_write_buffer_limits()[1]
            state = {"paused": False}
            p.on["pause_writing"] = lambda p: state.update(paused=True)
            p.on["resume_writing"] = lambda p: (state.update(paused=False), loop.call_soon(pump))
            sent = largest = 0

            def pump():
                nonlocal sent, largest
                while not state["paused"] and sent < len(BIG):
                    size = transport.get_write_buffer_size()
                    assert size <= high
                    put(transport, method, BIG[sent:sent + 50000])
                    sent += 50000
                    largest = max(largest, transport.get_write_buffer_size())
                    assert state["paused"] == (transport.get_write_buffer_size() > high)
            pump()
            assert state["paused"]
            got = await take(peer, len(BIG))
            assert got == BIG
            assert largest <= high + 50000
            await io_settled()
            assert p.names().count("pause_writing") == p.names().count("resume_writing")
    impl.run(main())


@methods
def test_never_reading_peer(impl, method):
    """The buffer grows with what is written against the advice, and one pause is all there is."""
    async def main():
        p = Stream()
        async with connected(p, buffers=4096) as (transport, peer):
            if method == "writelines" and not better(impl, since=(3, 14)) and PY >= (3, 12):
                return
            for i in range(50):
                before = transport.get_write_buffer_size()
                put(transport, method, bytes(10000))
                assert transport.get_write_buffer_size() <= before + 10000
                await io_settled(1)
            assert p.names() == ["connection_made", "pause_writing"]
            assert transport.get_write_buffer_size() >= 400000
            transport.abort()
            assert transport.get_write_buffer_size() == 0
            await p.wait("connection_lost")
            assert p.names() == ["connection_made", "pause_writing", "connection_lost"]
    impl.run(main())


def test_writelines_pauses(impl):
    """CVE-2024-12254: in 3.12.0 to 3.13.1 it did not."""
    if not better(impl, since=(3, 14)) and PY >= (3, 12):
        return

    async def main():
        p = Stream()
        async with connected(p) as (transport, peer):
            transport.writelines([BIG[:1 << 20]] * 4)
            assert p.names() == ["connection_made", "pause_writing"]
            await take(peer, 4 << 20)
            await p.wait("resume_writing")
    impl.run(main())


def test_limit_zero():
    """high=0: a pause whenever anything is left, and a resume when all is gone."""
    def body(impl):
        async def main():
            p = Stream()
            async with connected(p) as (transport, peer):
                transport.set_write_buffer_limits(0)
                assert transport.get_write_buffer_limits() == (0, 0)
                transport.write(b"x")
                await io_settled()
                assert p.names() == ["connection_made"]
                transport.write(BIG)
                assert p.names() == ["connection_made", "pause_writing"]
                assert (await take(peer, len(BIG) + 1)) == b"x" + BIG
                await p.wait("resume_writing")
                assert transport.get_write_buffer_size() == 0
                return p.trace
        return impl.run(main())
    same(body)


def test_resume_when_the_buffer_shrinks_below_low():
    def body(impl):
        async def main():
            p = Stream({"resume_writing": lambda p: p.note(
                "size", p.transport.get_write_buffer_size() <= 1000)})
            async with connected(p, buffers=65536) as (transport, peer):
                transport.set_write_buffer_limits(high=100000, low=1000)
                transport.write(bytes(1000000))
                await take(peer, 1000000)
                await io_settled()
                return p.trace
        return impl.run(main())
    assert same(body)[:4] == [["connection_made"], ["pause_writing"], ["resume_writing"], ["size", True]]


def test_write_from_resume_writing():
    """It may fill the buffer again, and so on."""
    def body(impl):
        async def main():
            rounds = []

            def refill(p):
                if len(rounds) < 5:
                    rounds.append(1)
                    p.transport.write(bytes(300000))
            p = Stream({"resume_writing": refill})
            async with connected(p, buffers=65536) as (transport, peer):
                transport.write(bytes(300000))
                await take(peer, 1800000)
                await io_settled()
                transport.write(b".")
                assert await take(peer, 1) == b"."
                return p.trace
        return impl.run(main())
    names = [e[0] for e in same(body)]
    assert names.count("pause_writing") == names.count("resume_writing") == 6


@pytest.mark.parametrize("low", [0, 1, 50000])
def test_close_from_resume_writing(impl, low):
    """One connection_lost(), no callback after it, and what was written arrives (gh-156512)."""
    async def main():
        p = Stream({"resume_writing": lambda p: p.transport.close()})
        async with connected(p, buffers=65536) as (transport, peer):
            transport.set_write_buffer_limits(high=100000, low=low)
            transport.write(bytes(1000000))
            assert len(await take_all(peer)) == 1000000
            await p.wait("connection_lost")
            await io_settled()
            assert p.names() == ["connection_made", "pause_writing", "resume_writing", "connection_lost"]
    if better(impl, since=(3, 14)):
        impl.run(main())


def test_abort_from_pause_writing():
    def body(impl):
        async def main():
            p = Stream({"pause_writing": lambda p: p.transport.abort()})
            async with connected(p, buffers=65536) as (transport, peer):
                transport.write(bytes(1000000))
                transport.write(bytes(1000000))
                await p.wait("connection_lost")
                assert transport.get_write_buffer_size() == 0
                assert len(await take_all(peer)) < 1000000
                return p.trace
        return impl.run(main())
    same(body)


@kinds
def test_drain(impl, kind):
    """asyncio.StreamWriter.drain() waits until the peer reads."""
    async def main():
        ours, peer = stream_pair(kind, buffers=65536)
        reader, writer = await asyncio.open_connection(sock=ours) if kind != "unix" else (
            await asyncio.open_unix_connection(sock=ours))
        await writer.drain()
        writer.write(BIG)
        task = asyncio.create_task(writer.drain())
        await io_settled()
        assert not task.done()
        others = [asyncio.create_task(writer.drain()) for _ in range(3)]
        await io_settled()
        assert await take(peer, len(BIG)) == BIG
        async with asyncio.timeout(LIMIT):
            await asyncio.gather(task, *others)
            await writer.drain()
        writer.close()
        await writer.wait_closed()
        peer.close()
    impl.run(main())


def test_drain_when_the_peer_leaves(impl):
    async def main():
        ours, peer = stream_pair("tcp4", buffers=65536)
        reader, writer = await asyncio.open_connection(sock=ours)
        writer.write(BIG)
        task = asyncio.create_task(writer.drain())
        await io_settled()
        assert not task.done()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
        with pytest.raises(ConnectionResetError):
            await task
        with pytest.raises(ConnectionError):
            await writer.drain()
        writer.close()
        with pytest.raises(ConnectionResetError):
            await writer.wait_closed()
    impl.run(main())


@pytest.mark.parametrize("size", [1, 1000, 65536, 1 << 20])
def test_producer_with_drain(impl, size):
    """Writer and slow reader in step; the hash is right."""
    total = max(size * 20, 1 << 20) // size * size
    if size == 1:
        total = 5000

    async def main():
        ours, peer = stream_pair("tcp4")
        reader, writer = await asyncio.open_connection(sock=ours)
        digest = hashlib.sha1()

        async def produce():
            for i in range(total // size):
                data = bytes([i % 251]) * size
                digest.update(data)
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        task = asyncio.create_task(produce())
        got = await take_all(peer)
        await task
        assert len(got) == total
        assert hashlib.sha1(got).digest() == digest.digest()
        writer.close()
        await writer.wait_closed()
        peer.close()
    impl.run(main())


# Much data

def _sender(sock, total, seed):
    sock.settimeout(LIMIT)
    source = random.Random(seed)
    block = source.randbytes(1 << 20)
    digest = hashlib.sha1()
    sent = 0
    while sent < total:
        cut = source.randrange(1, 1 << 20)
        piece = memoryview(block)[:min(cut, total - sent)]
        sock.sendall(piece)
        digest.update(piece)
        sent += len(piece)
    return digest.hexdigest()


def _receiver(sock, slow=False):
    sock.settimeout(LIMIT)
    digest = hashlib.sha1()
    buffer = bytearray(1 << 20)
    view = memoryview(buffer)
    total = count = 0
    while True:
        n = sock.recv_into(buffer, 50000 if slow else 1 << 20)
        if not n:
            return total, digest.hexdigest()
        digest.update(view[:n])
        total += n
        count += 1
        if slow and count % 100 == 0:
            time.sleep(0.001)


class Hashing(asyncio.Protocol):
    """Counts and hashes what comes; now and then it stops reading for some iterations."""

    def __init__(self, slow=False):
        self.digest = hashlib.sha1()
        self.total = self.calls = 0
        self.slow = slow
        self.writable = asyncio.Event()
        self.writable.set()
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.digest.update(data)
        self.total += len(data)
        self.calls += 1
        if self.slow and self.calls % 20 == 0:
            self.transport.pause_reading()
            asyncio.get_running_loop().call_later(0.0005, self.transport.resume_reading)

    def eof_received(self):
        return True

    def pause_writing(self):
        self.writable.clear()

    def resume_writing(self):
        self.writable.set()

    def connection_lost(self, exc):
        self.lost.set_result(exc)


class BufferedHashing(Hashing, asyncio.BufferedProtocol):
    def __init__(self, slow=False):
        super().__init__(slow)
        self.buffer = bytearray(200000)

    def get_buffer(self, sizehint):
        return self.buffer

    def buffer_updated(self, nbytes):
        self.data_received(memoryview(self.buffer)[:nbytes])


@pytest.mark.parametrize("slow", [False, True], ids=["fast", "slow"])
@pytest.mark.parametrize("kind, total", [("tcp4", 64 << 20), ("tcp6", 16 << 20), ("unix", 64 << 20)])
@pytest.mark.parametrize("protocol", [Hashing, BufferedHashing])
def test_much_data_both_ways(impl, kind, total, protocol, slow):
    """64 MiB in each direction at the same time, hashes compared."""
    if slow:
        total >>= 2

    async def main():
        ours, peer = stream_pair(kind)
        peer2 = peer.dup()
        p = protocol(slow)
        transport = await attach(p, ours)
        receiver = Peer(_receiver, peer2, slow)
        sender = Peer(_sender, peer, total, 7)
        block = random.Random(3).randbytes(1 << 19)
        digest = hashlib.sha1()
        sent = 0
        async with asyncio.timeout(20):
            while sent < total:
                await p.writable.wait()
                if sent // len(block) % 2:
                    transport.write(block)
                else:
                    transport.writelines([block[:1000], block[1000:70000], block[70000:]])
                digest.update(block)
                sent += len(block)
                if PY in ((3, 12), (3, 13)):
                    transport.set_write_buffer_limits()  # see test_writelines_pauses
            transport.write_eof()
            while p.total < total:
                await asyncio.sleep(0.001)
            count, found = await asyncio.to_thread(receiver.finish)
        assert sender.finish() == p.digest.hexdigest()
        assert (count, found) == (total, digest.hexdigest())
        transport.close()
        assert await p.lost is None
        peer.close()
        peer2.close()
    impl.run(main())


@kinds
def test_echo_of_random_pieces(impl, kind):
    """Every piece comes back, whatever its size: 0 bytes to 200 KB, in one connection."""
    async def main():
        source = random.Random(5)
        p = Stream({"data_received": lambda p, data: p.transport.write(data)})
        async with connected(p, kind) as (transport, peer):
            for size in [1, 2, 3, 10, 100, 1000, 1 << 12, 1 << 16, 1 << 16 | 1, 200000] * 3:
                piece = source.randbytes(size)
                sent = 0
                got = bytearray()
                while len(got) < size:
                    try:
                        sent += peer.send(piece[sent:sent + 100000])
                    except BlockingIOError:
                        pass
                    await io_settled(1)
                    got += take_now(peer)
                assert got == piece
    impl.run(main())


# Order

@methods
@kinds
def test_many_small_writes(impl, kind, method):
    """3,000 in one callback, some large in between, arrive complete and in order."""
    async def main():
        async with connected(Stream(), kind) as (transport, peer):
            pieces = []
            for i in range(3000):
                piece = b"%d;" % i if i % 500 else b"<" + bytes([i // 500]) * 100000 + b">"
                pieces.append(piece)
                if method == "write":
                    transport.write(piece)
                elif i % 10 == 9:
                    transport.writelines(pieces[-10:])
            expected = b"".join(pieces)
            assert await take(peer, len(expected)) == expected
    impl.run(main())


@kinds
def test_many_pieces_in_the_buffer(impl, kind):
    """More than IOV_MAX pieces wait at once."""
    async def main():
        async with connected(Stream(), kind) as (transport, peer):
            transport.write(BIG)
            pieces = [b"%d," % i for i in range(2500)]
            for piece in pieces:
                transport.write(piece)
            transport.writelines(pieces)
            transport.close()
            got = await take_all(peer)
            assert got == BIG + b"".join(pieces) * 2
    impl.run(main())


def test_writes_of_several_callbacks(impl):
    """Those of one iteration, of several transports, interleaved."""
    async def main():
        loop = asyncio.get_running_loop()
        protocols = [Stream() for _ in range(10)]
        pairs = [stream_pair() for _ in protocols]
        transports = [await attach(p, ours) for p, (ours, _) in zip(protocols, pairs)]
        for i in range(100):
            for n, transport in enumerate(transports):
                loop.call_soon(transport.write, b"%d.%d " % (n, i))
        for transport in transports:
            loop.call_soon(transport.close)
        for n, (_, peer) in enumerate(pairs):
            assert await take_all(peer) == b"".join(b"%d.%d " % (n, i) for i in range(100))
        for p in protocols:
            await p.wait("connection_lost")
        await io_settled()
        for _, peer in pairs:
            peer.close()
    impl.run(main())


def test_write_in_data_received_and_in_call_soon(impl):
    async def main():
        loop = asyncio.get_running_loop()

        def on_data(p, data):
            p.transport.write(b"1")
            loop.call_soon(p.transport.write, b"3")
            p.transport.write(b"2")
            loop.call_soon(lambda: loop.call_soon(p.transport.write, b"4"))
        async with connected(Stream({"data_received": on_data})) as (transport, peer):
            peer.send(b"x")
            assert await take(peer, 4) == b"1234"
    impl.run(main())


def test_other_users_of_the_socket_see_the_order(impl):
    """What write() took before something is sent by other means stays before it.

    As with asyncio, a small write() into an empty buffer is with the kernel when it returns.
    """
    async def main():
        ours, peer = stream_pair()
        other = ours.dup()
        p = Stream()
        transport = await attach(p, ours)
        transport.write(b"1")
        await io_settled(1)
        other.send(b"2")
        transport.write(b"3")
        await io_settled(1)
        other.send(b"4")
        transport.close()
        await p.wait("connection_lost")
        other.close()
        assert await take_all(peer) == b"1234"
        await io_settled()
        peer.close()
    impl.run(main())


# The last words

@kinds
@methods
@pytest.mark.parametrize("size", [0, 1, 1000, 1 << 16, 1 << 23])
@pytest.mark.parametrize("end", ["close", "write_eof"])
def test_write_and_end(impl, kind, method, size, end):
    """write() and, in the same callback, close() or write_eof(): everything arrives."""
    async def main():
        p = Stream()
        async with connected(p, kind) as (transport, peer):
            data = BIG[:size]
            if data:
                put(transport, method, data)
            getattr(transport, end)()
            assert await take_all(peer) == data
            if end == "close":
                await p.wait("connection_lost")
                assert p.trace[-1] == ("connection_lost", None)
    impl.run(main())


def test_write_and_close_when_data_has_not_been_read(impl):
    """The peer's data is dropped; ours arrives on a unix socket."""
    async def main():
        p = Stream({"connection_made": lambda p, t: t.pause_reading()})
        async with connected(p, "unix") as (transport, peer):
            peer.send(b"unread")
            transport.write(b"answer")
            transport.close()
            await p.wait("connection_lost")
            assert await take(peer, 6) == b"answer"
    impl.run(main())


@pytest.mark.parametrize("when", ["same", "next", "later"])
def test_write_and_abort(impl, when):
    """A prefix arrives, and nothing else; a small write of an earlier iteration arrives."""
    async def main():
        loop = asyncio.get_running_loop()
        p = Stream()
        async with connected(p) as (transport, peer):
            transport.write(b"first")
            await io_settled(1)
            transport.write(BIG)
            if when == "same":
                transport.abort()
            elif when == "next":
                loop.call_soon(transport.abort)
            else:
                loop.call_later(0.001, transport.abort)
            await p.wait("connection_lost")
            got = await take_all(peer)
            assert (b"first" + BIG).startswith(got)
            assert got.startswith(b"first")
            assert len(got) < len(BIG)
    impl.run(main())


def test_small_write_and_abort():
    """asyncio's write() has sent it by then."""
    def body(impl):
        async def main():
            p = Stream()
            async with connected(p) as (transport, peer):
                transport.write(b"x")
                transport.abort()
                await p.wait("connection_lost")
                return await take_all(peer)
        return impl.run(main())
    assert same(body) == b"x"


# While the loop does not run

@methods
def test_stop_right_after_write(impl, method):
    """The bytes leave before run_forever() returns."""
    ours, peer = stream_pair()
    p = Stream()
    loop = impl.new_loop()
    loop.run_until_complete(attach(p, ours))
    loop.call_soon(lambda: (put(p.transport, method, b"hello"), loop.stop()))
    loop.run_forever()
    assert take_now(peer) == b"hello"
    loop.run_until_complete(asyncio.sleep(0))
    loop.call_soon(loop.stop)
    loop.call_soon(put, p.transport, method, b"again")
    loop.run_forever()
    assert take_now(peer) == b"again"
    p.transport.close()
    settle_loop(loop)
    loop.close()
    peer.close()


def test_end_of_run_until_complete_right_after_write(impl):
    ours, peer = stream_pair()
    p = Stream()
    loop = impl.new_loop()
    loop.run_until_complete(attach(p, ours))

    async def main():
        p.transport.write(b"hello")
    loop.run_until_complete(main())
    assert take_now(peer) == b"hello"
    p.transport.close()
    settle_loop(loop)
    loop.close()
    peer.close()


@methods
def test_write_while_the_loop_does_not_run(impl, method):
    """It arrives without the loop running again."""
    ours, peer = stream_pair()
    p = Stream()
    loop = impl.new_loop()
    loop.run_until_complete(attach(p, ours))
    for i in range(3):
        put(p.transport, method, b"%d" % i * 10)
        assert take_now(peer) == b"%d" % i * 10
        loop.run_until_complete(asyncio.sleep(0))
    put(p.transport, method, BIG)
    first = take_now(peer)
    assert first
    loop.run_until_complete(io_settled())
    rest = loop.run_until_complete(take(peer, len(BIG) - len(first)))
    assert first + rest == BIG
    p.transport.write_eof()
    assert peer.recv(1) == b""
    p.transport.close()
    settle_loop(loop)
    assert p.lost
    loop.close()
    peer.close()


def test_exception_that_leaves_the_loop_right_after_write(impl):
    ours, peer = stream_pair()
    p = Stream()
    loop = impl.new_loop()
    loop.run_until_complete(attach(p, ours))

    def leave():
        p.transport.write(b"hello")
        raise KeyboardInterrupt
    loop.call_soon(leave)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert take_now(peer) == b"hello"
    p.transport.close()
    settle_loop(loop)
    loop.close()
    peer.close()


def test_bytes_leave_with_the_turn(impl):
    """What is written in a callback is with the kernel before the next iteration's callbacks.

    asyncio sends it within write(); fastloop may hold it back until all callbacks of the
    iteration have run.
    """
    async def main():
        async with connected(Stream()) as (transport, peer):
            transport.write(b"x")
            assert take_now(peer) == b"x" or impl.is_fastloop and better(impl)
            await asyncio.sleep(0)
            transport.writelines([b"y", b"z"])
            await asyncio.sleep(0)
            transport.write(b"x")
            transport.write_eof()
            await asyncio.sleep(0)
            got = take_now(peer)
            assert got.endswith(b"yzx")
            assert peer.recv(1) == b""
    impl.run(main())


def test_large_writes_are_sent_at_once(impl):
    """Who writes much in one callback must not fill the memory: the kernel gets its share."""
    async def main():
        async with connected(Stream()) as (transport, peer):
            for _ in range(100):
                transport.write(BIG[:1 << 20])
                if not transport.get_write_buffer_size():
                    continue
                assert take_now(peer)
                break
            else:
                raise AssertionError("nothing is ever buffered")
    impl.run(main())


def test_buffer_size_of_small_writes():
    """Zero, for they are sent at once."""
    def body(impl):
        async def main():
            async with connected(Stream()) as (transport, peer):
                sizes = []
                for i in range(5):
                    transport.write(b"x" * i)
                    sizes.append(transport.get_write_buffer_size())
                transport.writelines([b"a", b"b"])
                sizes.append(transport.get_write_buffer_size())
                return sizes
        return impl.run(main())
    assert same(body) == [0] * 6


# Fairness

def test_flood_does_not_starve_others(impl):
    """One peer sends without end; timers, callbacks and another connection get their turns."""
    async def main():
        flood, quiet = Stream({"data_received": lambda p, d: None}), Stream()
        ours, peer = stream_pair()
        flooding = await attach(flood, ours)
        ended = []

        def pour(sock):
            sock.settimeout(LIMIT)
            data = bytes(1 << 18)
            try:
                while not ended:
                    sock.sendall(data)
            except OSError:
                pass
        thread = Peer(pour, peer)
        async with connected(quiet, "tcp4") as (transport, other):
            for i in range(50):
                other.send(b"x")
                await quiet.until(lambda: len(quiet.received) > i)
                await asyncio.sleep(0.0005 if i % 10 == 0 else 0)
        ended.append(1)
        flooding.abort()
        await flood.wait("connection_lost")
        await asyncio.to_thread(thread.finish)
        peer.close()
        assert flood.received
    impl.run(main())


def test_two_transports_of_one_loop(impl):
    """Both ends in the same loop, ping-pong and bulk."""
    async def main():
        a, b = stream_pair()
        left = Stream({"data_received": lambda p, d: None})
        right = Stream({"data_received": lambda p, d: p.transport.write(d)})
        ta = await attach(left, a)
        await attach(right, b)
        for i in range(200):
            ta.write(b"x")
            await left.until(lambda: len(left.received) == i + 1)
        ta.write(BIG)
        await left.until(lambda: len(left.received) == 200 + len(BIG))
        assert left.received[200:] == BIG
        ta.close()
        await right.wait("connection_lost")
        await io_settled()
    impl.run(main())
