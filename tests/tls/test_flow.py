"""TLS under load: back-pressure both ways, order, completeness.

How many bytes of plain text lie where depends on records and on the kernel, so that the tests do
not compare where exactly a pause begins; they want the bounds that make back-pressure of use.
"""

import asyncio
import hashlib
import random
import ssl

import pytest

from support import same
from support.net import LIMIT, Stream, io_settled, put
from support.tls import NAME, Buffered, better, client_context, secured, server_context

sides = pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])
protocols = pytest.mark.parametrize("protocol", [Stream, Buffered])
kinds = pytest.mark.parametrize("kind", ["unix", "tcp4"])
methods = pytest.mark.parametrize("method", ["write", "writelines"])

BIG = random.Random(9).randbytes(1 << 20) * 8

# What the transport below keeps before it pauses TLS, and what the kernel may take on a pair with small buffers.
BELOW = 64 * 1024
KERNEL = 512 * 1024


# Writing

@methods
@kinds
@pytest.mark.parametrize("limits", [{}, {"high": 1}, {"high": 100000, "low": 1}, {"high": 300000, "low": 300000}])
def test_pause_and_resume(impl, kind, method, limits):
    """A peer that does not read: the pause comes, it comes once, and in time; then it reads, and all goes on."""
    async def main():
        p = Stream()
        async with secured(p, kind=kind, buffers=65536) as (transport, peer):
            transport.set_write_buffer_limits(**limits)
            low, high = transport.get_write_buffer_limits()
            sent = 0
            while "pause_writing" not in p.names():
                assert transport.get_write_buffer_size() < high
                assert sent < high + BELOW + KERNEL + 40000
                put(transport, method, BIG[sent:sent + 20000])
                sent += 20000
                await asyncio.sleep(0)
            # one write more does not pause again
            put(transport, method, BIG[sent:sent + 20000])
            sent += 20000
            await io_settled()
            assert p.names() == ["connection_made", "pause_writing"]
            seen = []
            p.on["resume_writing"] = lambda p: seen.append(transport.get_write_buffer_size())
            assert await peer.take(sent) == BIG[:sent]
            await p.wait("resume_writing")
            assert seen[0] <= low
            await io_settled()
            assert p.names() == ["connection_made", "pause_writing", "resume_writing"]
            assert transport.get_write_buffer_size() == 0
    impl.run(main())


@methods
@kinds
def test_buffers_are_bounded(impl, kind, method):
    """Who heeds pause_writing() never has more than the high water of both layers and one write in memory."""
    async def main():
        p = Stream()
        async with secured(p, kind=kind, buffers=65536) as (transport, peer):
            high = transport.get_write_buffer_limits()[1]
            paused = False
            taken = written = largest = 0
            digest = hashlib.sha256()
            while taken < len(BIG):
                names = p.names()
                paused = names.count("pause_writing") > names.count("resume_writing")
                if not paused and written < len(BIG):
                    put(transport, method, BIG[written:written + 50000])
                    written += len(BIG[written:written + 50000])
                    largest = max(largest, transport.get_write_buffer_size())
                    await asyncio.sleep(0)
                    # asyncio hands all it has to the layer below as soon as that has room, and may then fill up again
                    assert written - taken <= 2 * high + BELOW + KERNEL + 50000 * 2
                    continue
                data = await peer.take(min(30000, len(BIG) - taken))
                digest.update(data)
                taken += len(data)
            assert digest.digest() == hashlib.sha256(BIG).digest()
            assert largest <= high + 50000 + 20000
            await io_settled()
            assert p.names().count("pause_writing") == p.names().count("resume_writing") >= 1
    impl.run(main())


def test_high_water_zero(impl):
    """A pause while anything is unsent, and only then. asyncio pauses at once, with nothing to send, and stays so."""
    if not better(impl):
        return

    async def main():
        p = Stream()
        async with secured(p, buffers=65536) as (transport, peer):
            transport.set_write_buffer_limits(high=0)
            await io_settled()
            assert p.names() == ["connection_made"]
            transport.write(b"x")
            assert await peer.take(1) == b"x"
            await io_settled()
            assert p.names().count("pause_writing") == p.names().count("resume_writing")
            for _ in range(2):
                transport.write(BIG[:1000000])
            assert p.names()[-1] == "pause_writing"
            assert await peer.take(2000000) == BIG[:1000000] * 2
            await p.until(lambda: p.names()[-1] == "resume_writing")
            assert transport.get_write_buffer_size() == 0
    impl.run(main())


def test_limits_set_while_there_is_something():
    """They take effect at once, not with the next write."""
    def body(impl):
        async def main():
            p = Stream()
            async with secured(p, buffers=4096) as (transport, peer):
                transport.write(BIG[:200000])  # the transport below is full
                transport.write(BIG[:100000])
                before = p.names()
                assert transport.get_write_buffer_size() >= 100000
                transport.set_write_buffer_limits(high=50000)
                paused = p.names()
                transport.set_write_buffer_limits(high=1000000, low=500000)
                resumed = p.names()
                assert await peer.take(300000) == BIG[:200000] + BIG[:100000]
                return before, paused, resumed
        return impl.run(main())
    assert same(body) == [["connection_made"], ["connection_made", "pause_writing"],
                          ["connection_made", "pause_writing", "resume_writing"]]


def test_write_from_resume_writing():
    """It may fill the buffer again, and so on; nothing is lost or comes in another order."""
    def body(impl):
        async def main():
            rounds = []

            def refill(p):
                if len(rounds) < 5:
                    rounds.append(1)
                    for _ in range(4):
                        p.transport.write(b"%d" % len(rounds) * 300000)
            p = Stream({"resume_writing": refill})
            async with secured(p, buffers=65536) as (transport, peer):
                for _ in range(4):
                    transport.write(b"0" * 300000)
                expected = b"".join(b"%d" % n * 1200000 for n in range(6))
                got = await peer.take(len(expected))
                await io_settled()
                return got == expected, p.names().count("pause_writing"), p.names().count("resume_writing")
        return impl.run(main())
    whole, pauses, resumes = same(body)
    assert whole and pauses == resumes >= 6


def test_many_writes_before_anything_is_sent():
    """The order is that of the writes, whatever their sizes."""
    def body(impl):
        async def main():
            sizes = random.Random(3)
            p = Stream()
            async with secured(p, buffers=65536) as (transport, peer):
                expected = bytearray()
                for n in range(300):
                    data = bytes([n % 256]) * sizes.choice([1, 10, 100, 1000, 16383, 16384, 16385, 40000])
                    expected += data
                    if n % 3:
                        transport.write(data)
                    else:
                        transport.writelines([data[:7], data[7:]])
                return await peer.take(len(expected)) == expected
        return impl.run(main())
    assert same(body)


# Reading

@protocols
@sides
def test_pause_reading(protocol, server_side):
    """While it lasts nothing is delivered, and then everything; the calls may be repeated."""
    def body(impl):
        async def main():
            p = protocol()
            async with secured(p, server_side=server_side) as (transport, peer):
                assert transport.is_reading()
                transport.pause_reading()
                transport.pause_reading()
                assert not transport.is_reading()
                await peer.send(b"one")
                await peer.send(b"two")
                await io_settled()
                before = bytes(p.received)
                transport.resume_reading()
                transport.resume_reading()
                assert transport.is_reading()
                await p.until(lambda: len(p.received) == 6)
                return before, bytes(p.received), p.names()[0]
        return impl.run(main())
    assert same(body) == [b"", b"onetwo", "connection_made"]


@protocols
def test_pause_from_the_callback(protocol):
    """What is decrypted already is not delivered after the pause."""
    def body(impl):
        async def main():
            pauses = []

            def pause(p, *args):
                pauses.append(len(p.received))
                p.transport.pause_reading()
            name = "data_received" if protocol is Stream else "buffer_updated"
            p = protocol({name: pause})
            async with secured(p) as (transport, peer):
                total = 0
                for n in range(20):
                    await peer.send(b"%02d" % n * 500)
                    total += 1000
                turns = 0
                while len(p.received) < total:
                    async with asyncio.timeout(LIMIT):
                        while transport.is_reading():
                            await io_settled(1)
                    await io_settled()
                    turns += 1
                    assert len(pauses) == turns
                    transport.resume_reading()
                return bytes(p.received) == b"".join(b"%02d" % n * 500 for n in range(20))
        return impl.run(main())
    assert same(body)


@protocols
def test_resume_in_the_same_turn(protocol):
    def body(impl):
        async def main():
            p = protocol()
            async with secured(p) as (transport, peer):
                for _ in range(3):
                    transport.pause_reading()
                    transport.resume_reading()
                await peer.send(b"x")
                await p.until(lambda: p.received)
                transport.resume_reading()
                await io_settled()
                return p.trace[1][1], len(p.trace)
        return impl.run(main())
    assert same(body) == [b"x", 2]


@pytest.mark.parametrize("ending", ["close_notify", "FIN", "both"])
@pytest.mark.parametrize("size", [5, 2000000])
def test_peer_ends_it_while_we_are_paused(size, ending):
    """Everything that was sent before the end is delivered after resume_reading(), then the end is told."""
    def body(impl):
        async def main():
            p = Stream()
            async with secured(p, kind="tcp4") as (transport, peer):
                transport.pause_reading()
                peer.tls.write(BIG[:size])
                if ending != "FIN":
                    with pytest.raises(ssl.SSLWantReadError):
                        peer.tls.unwrap()
                sent = peer.flush()
                if sent and ending != "close_notify":
                    peer.fin()
                await io_settled(5)
                before = p.names()
                transport.resume_reading()
                while not peer.flush():
                    await peer.moved()
                if not sent and ending != "close_notify":
                    peer.fin()
                await p.wait("connection_lost")
                return before, bytes(p.received) == BIG[:size], p.names()
        return impl.run(main())
    before, whole, names = same(body)
    assert before == ["connection_made"] and whole
    assert names == ["connection_made", "data_received", "eof_received", "connection_lost"]


@kinds
@protocols
def test_paused_transport_stops_the_peer(impl, kind, protocol):
    """While paused it takes no more than its buffers, then the peer cannot send; afterwards nothing is missing."""
    async def main():
        p = protocol()
        async with secured(p, kind=kind, server_side=False) as (transport, peer):
            high = transport.get_read_buffer_limits()[1]
            transport.pause_reading()
            sent = quiet = 0
            while quiet < 3:
                if peer.flush():
                    quiet = 0
                    peer.tls.write(BIG[sent:sent + 16000])
                    sent += 16000
                    assert sent < len(BIG)
                else:
                    quiet += 1
                await io_settled(1)
            assert transport.get_read_buffer_size() <= high + 300 * 1024
            assert not p.received
            transport.resume_reading()
            while not peer.flush():
                await peer.moved()
            await p.until(lambda: len(p.received) >= sent)
            assert bytes(p.received) == BIG[:sent]
    impl.run(main())


def test_read_buffer_limits_take_effect():
    """With a low limit a paused transport holds less, and the rest waits with the kernel."""
    def body(impl):
        async def main():
            p = Stream()
            async with secured(p) as (transport, peer):
                transport.set_read_buffer_limits(high=1000)
                transport.pause_reading()
                await peer.send(b"a" * 5000)
                await io_settled()
                held = transport.get_read_buffer_size()
                await peer.send(b"b" * 5000)
                await io_settled()
                more = transport.get_read_buffer_size()
                transport.resume_reading()
                await p.until(lambda: len(p.received) == 10000)
                return held >= 1000, more == held, transport.get_read_buffer_size()
        return impl.run(main())
    held, same_size, left = same(body)
    assert held and same_size and left == 0


# Both ways

@sides
@protocols
def test_large_transfers_both_ways_at_once(impl, server_side, protocol):
    """8 MiB each way; neither stops the other."""
    async def main():
        p = protocol()
        p.received = Digest()
        p.note = lambda *args: p._look()
        async with secured(p, kind="tcp4", server_side=server_side) as (transport, peer):
            transport.write(BIG[:4 << 20])
            transport.writelines([BIG[4 << 20:6 << 20], BIG[6 << 20:]])
            taken, sent, digest = 0, 0, hashlib.sha256()
            while taken < len(BIG) or sent < len(BIG) or not peer.flush():
                if sent < len(BIG) and peer.flush():
                    peer.tls.write(BIG[sent:sent + 100000])
                    sent += len(BIG[sent:sent + 100000])
                if not peer.fetch():
                    if peer.flush() and sent < len(BIG):
                        await asyncio.sleep(0)
                    else:
                        if taken >= len(BIG) and peer.flush():
                            break
                        await peer.moved()
                peer.decrypt()
                digest.update(peer.plain)
                taken += len(peer.plain)
                peer.plain.clear()
            await p.until(lambda: p.received.count >= len(BIG))
            assert digest.digest() == p.received.sha.digest() == hashlib.sha256(BIG).digest()
    impl.run(main())


class Digest:
    """Takes the place of a bytearray, and only counts."""

    def __init__(self):
        self.count, self.sha = 0, hashlib.sha256()

    def __iadd__(self, data):
        self.count += len(data)
        self.sha.update(data)
        return self


def test_two_ends_of_one_loop(impl):
    """A server and a client of the same loop echo 4 MiB through streams, with drain() on both sides."""
    async def main():
        async def echo(reader, writer):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()
            await writer.wait_closed()
        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server_context())
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address, ssl=client_context(), server_hostname=NAME)

        async def send():
            for at in range(0, 4 << 20, 100000):
                writer.write(BIG[at:min(at + 100000, 4 << 20)])
                await writer.drain()
        sending = asyncio.create_task(send())
        async with asyncio.timeout(4 * LIMIT):
            assert await reader.readexactly(4 << 20) == BIG[:4 << 20]
            await sending
            writer.close()
            await writer.wait_closed()
        server.close()
        await asyncio.wait_for(server.wait_closed(), LIMIT)
        await io_settled()
    impl.run(main())


def test_drain(impl):
    """It waits until the peer reads."""
    async def main():
        reader = asyncio.StreamReader()
        p = asyncio.StreamReaderProtocol(reader)
        async with secured(p, buffers=65536) as (transport, peer):
            writer = asyncio.StreamWriter(transport, p, reader, asyncio.get_running_loop())
            await writer.drain()
            for _ in range(4):
                writer.write(BIG[:1 << 20])
            draining = asyncio.create_task(writer.drain())
            await io_settled()
            assert not draining.done()
            assert await peer.take(4 << 20) == BIG[:1 << 20] * 4
            async with asyncio.timeout(LIMIT):
                await draining
            p.lost = True
            transport.abort()
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
                raise ConnectionError
            await io_settled()
    impl.run(main())


def test_drain_when_the_connection_is_lost():
    """It ends, in the same way."""
    def body(impl):
        async def main():
            reader = asyncio.StreamReader()
            p = asyncio.StreamReaderProtocol(reader)
            async with secured(p, buffers=65536) as (transport, peer):
                writer = asyncio.StreamWriter(transport, p, reader, asyncio.get_running_loop())
                for _ in range(4):
                    writer.write(BIG[:1 << 20])
                draining = asyncio.create_task(writer.drain())
                await io_settled()
                transport.abort()
                p.lost = True
                results = await asyncio.gather(draining, return_exceptions=True)
                await io_settled()
                return results
        return impl.run(main())
    assert len(same(body)) == 1
