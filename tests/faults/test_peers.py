"""Peers that reset, vanish, stop reading, close at any byte, or take and give one byte at a time."""

import asyncio
import os
import socket
import statistics
import struct
import sys
import time

import pytest

from support import same
from support.peers import (
    HOST, Cpu, Recorder, attach, drained, in_thread, reset, tcp_pair, unix_pair, until, vanish,
)

BROKEN = (ConnectionResetError, BrokenPipeError)

# CVE-2024-12254: writelines() did not pause the protocol.
WRITELINES_UNBOUNDED = (3, 12, 0) <= sys.version_info < (3, 12, 9) or (3, 13, 0) <= sys.version_info < (3, 13, 2)


def put(transport, how, data):
    if how == "write":
        transport.write(data)
    elif how == "write bytearray":
        transport.write(bytearray(data))
    else:
        transport.writelines([data[:100], memoryview(data)[100:1000], data[1000:]])


WAYS = ["write", "write bytearray", "writelines"]


# Resets

@pytest.mark.parametrize("how", WAYS)
def test_reset_while_writing(impl, how):
    """The buffer goes, connection_lost() comes once and with the reason, and nothing is reported."""
    async def main():
        sock, peer = tcp_pair(sndbuf=20_000, rcvbuf=20_000)
        protocol = await attach(sock)
        for _ in range(20):
            put(protocol.transport, how, b"x" * 500_000)
        assert protocol.transport.get_write_buffer_size() > 1_000_000
        peer.recv(1000)
        await asyncio.sleep(0.01)
        reset(peer)
        assert issubclass(await protocol.lost, BROKEN)
        assert protocol.transport.is_closing()
        assert protocol.transport.get_write_buffer_size() == 0
        for _ in range(3):
            # asyncio's writelines() after the end is an AttributeError in some versions.
            put(protocol.transport, how if impl.is_fastloop else "write", b"x" * 2000)
        protocol.transport.close()
        protocol.transport.abort()
        await asyncio.sleep(0.01)
        assert [e for e in protocol.events if e[0] == "lost"] == protocol.events[-1:]
        assert sock.fileno() == -1
    impl.run(main())


def test_writing_on_after_a_reset(log):
    """Writes to what is lost are dropped, and warned about from the fifth on, as asyncio does."""
    def body(impl):
        async def main():
            sock, peer = tcp_pair()
            protocol = await attach(sock)
            reset(peer)
            lost = await protocol.lost
            for _ in range(8):
                protocol.transport.write(b"x")
                protocol.transport.write(b"")
            return lost, protocol.transport.get_write_buffer_size(), protocol.events
        return impl.run(main()), log.take()
    same(body)


def test_reset_during_sendfile(impl, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(10_000_000))

    async def main():
        loop = asyncio.get_running_loop()
        sock, peer = tcp_pair(sndbuf=20_000, rcvbuf=20_000)
        protocol = await attach(sock)
        with open(path, "rb") as file:
            sending = loop.create_task(loop.sendfile(protocol.transport, file))
            await asyncio.sleep(0.02)
            peer.recv(1000)
            reset(peer)
            with pytest.raises(OSError):
                await sending
        protocol.transport.abort()
        await protocol.lost
        del sending
    impl.run(main())


def test_reset_with_data_unread(impl):
    """What came before the reset is delivered before connection_lost()."""
    async def main():
        sock, peer = tcp_pair()
        protocol = await attach(sock)
        protocol.transport.pause_reading()
        peer.sendall(b"last words")
        reset(peer)
        await asyncio.sleep(0.01)
        protocol.transport.resume_reading()
        lost = await protocol.lost
        assert bytes(protocol.data) in (b"last words", b"")
        assert lost is not None or bytes(protocol.data) == b"last words"
    impl.run(main())


def test_reset_in_every_state():
    """Reset while idle, paused, closing, half-closed: events as asyncio's."""
    def body(impl, state):
        async def main():
            sock, peer = tcp_pair(sndbuf=20_000, rcvbuf=20_000)
            protocol = await attach(sock)
            transport = protocol.transport
            if state == "paused":
                transport.pause_reading()
            elif state == "closing":
                transport.write(bytes(1_000_000))
                transport.close()
            elif state == "half-closed":
                transport.write_eof()
            elif state == "half-closed with data":
                transport.write(bytes(1_000_000))
                transport.write_eof()
            elif state == "paused with data":
                transport.write(bytes(1_000_000))
                transport.pause_reading()
            await asyncio.sleep(0.01)
            reset(peer)
            if state == "paused":
                await asyncio.sleep(0.02)
                transport.resume_reading()
            await asyncio.wait_for(asyncio.shield(protocol.lost), 5)
            return protocol.events
        return impl.run(main())
    for state in ("idle", "paused", "closing", "half-closed", "half-closed with data", "paused with data"):
        assert same(body, state)[0] == "made"


def test_flood_of_connects_and_resets(impl):
    """Clients that are gone before they are accepted: nothing is reported, and the next is served."""
    async def main():
        loop = asyncio.get_running_loop()
        made = []

        def factory():
            made.append(Recorder())
            return made[-1]
        server = await loop.create_server(factory, HOST, 0, backlog=128)
        address = server.sockets[0].getsockname()
        for count in range(60, 301, 60):
            for sock in [socket.create_connection(address) for _ in range(60)]:
                reset(sock)
            assert await until(lambda: len(made) == count)
        reader, writer = await asyncio.open_connection(*address)
        assert await until(lambda: len(made) == 301 and sum(p.lost.done() for p in made) == 300)
        made[-1].transport.write(b"served")
        assert await reader.readexactly(6) == b"served"
        writer.close()
        await writer.wait_closed()
        await made[-1].lost
        server.close()
        assert {p.events[-1] for p in made} <= {("lost", None), ("lost", "ConnectionResetError")}
    impl.run(main())


# Peers that do not read

@pytest.mark.parametrize("pair", [tcp_pair, unix_pair], ids=["tcp", "unix"])
@pytest.mark.parametrize("how", WAYS)
def test_buffer_is_bounded(impl, how, pair):
    """At most the high-water mark and one write are kept for a peer that never reads."""
    if how == "writelines" and not impl.is_fastloop and WRITELINES_UNBOUNDED:
        pytest.skip("asyncio's writelines() does not pause the protocol in this version (CVE-2024-12254)")

    async def main():
        sock, peer = pair(sndbuf=20_000, rcvbuf=20_000)
        protocol = await attach(sock)
        transport = protocol.transport
        low, high = transport.get_write_buffer_limits()
        piece = b"0123456789" * 3000
        most = written = 0
        while protocol.writable.is_set():
            put(transport, how, piece)
            written += len(piece)
            most = max(most, transport.get_write_buffer_size())
            assert written < 50_000_000, "never told to pause"
            await asyncio.sleep(0)
        assert high < most <= high + len(piece)
        assert protocol.events == ["made", "pause"]
        # It goes on as soon as there is room, and what arrives is what was written.
        peer.setblocking(False)
        reading = asyncio.ensure_future(drained(peer))
        await asyncio.wait_for(protocol.writable.wait(), 5)
        assert transport.get_write_buffer_size() <= low
        transport.close()
        assert await reading == piece * (written // len(piece))
        assert await protocol.lost is None
        assert protocol.events == ["made", "pause", "resume", ("lost", None)]
        peer.close()
    impl.run(main())


@pytest.mark.parametrize("how", ["write", "writelines"])
def test_streams_are_bounded(impl, how):
    """drain() blocks a writer whose peer does not read, and lets go when the peer does."""
    if how == "writelines" and not impl.is_fastloop and WRITELINES_UNBOUNDED:
        pytest.skip("asyncio's writelines() does not pause the protocol in this version (CVE-2024-12254)")

    async def main():
        sock, peer = tcp_pair(sndbuf=20_000, rcvbuf=20_000)
        _, writer = await asyncio.open_connection(sock=sock)
        piece = bytes(30_000)
        written = 0

        async def write():
            nonlocal written
            while True:
                writer.write(piece) if how == "write" else writer.writelines([piece])
                written += len(piece)
                assert written < 50_000_000, "drain() lets everything through"
                await writer.drain()
        writing = asyncio.ensure_future(write())
        await asyncio.sleep(0.1)
        stood = written
        await asyncio.sleep(0.05)
        assert written == stood < 5_000_000
        assert writer.transport.get_write_buffer_size() <= 65_536 + len(piece)
        peer.setblocking(False)
        left = stood
        while left > 0:
            try:
                left -= len(peer.recv(65536))
            except BlockingIOError:
                await asyncio.sleep(0.001)
        assert await until(lambda: written > stood)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        writer.transport.abort()
        peer.close()
        await writer.wait_closed()
    impl.run(main())


def test_close_waits_for_the_peer_and_abort_does_not(impl):
    async def main():
        sock, peer = tcp_pair(sndbuf=20_000, rcvbuf=20_000)
        protocol = await attach(sock)
        protocol.transport.write(bytes(5_000_000))
        protocol.transport.close()
        await asyncio.sleep(0.05)
        assert not protocol.lost.done()
        assert protocol.transport.get_write_buffer_size() > 0
        protocol.transport.abort()
        assert await protocol.lost is None
        assert sock.fileno() == -1
        peer.close()
    impl.run(main())


def test_sending_while_closing_takes_no_more_from_the_peer(impl):
    """After close() the peer may send as much as it likes: nothing is delivered, nothing grows."""
    async def main():
        sock, peer = tcp_pair(sndbuf=20_000, rcvbuf=20_000)
        protocol = await attach(sock)
        protocol.transport.write(bytes(1_000_000))
        protocol.transport.close()
        peer.setblocking(False)
        sent = 0
        for _ in range(200):
            try:
                sent += peer.send(bytes(65536))
            except BlockingIOError:
                pass
            await asyncio.sleep(0)
        assert sent < 20_000_000
        assert protocol.data == b""
        protocol.transport.abort()
        await protocol.lost
        peer.close()
    impl.run(main())


# Half-open and half-closed

def test_half_open(impl):
    """A peer that went without a word costs nothing, and is found out by the next write."""
    async def main():
        sock, peer = tcp_pair()
        protocol = await attach(sock)
        if not vanish(peer):
            peer.close()
            await protocol.lost
            return False
        cpu = Cpu()
        await asyncio.sleep(0.2)
        assert cpu.share() < 0.2
        assert protocol.events == ["made"]
        protocol.transport.write(b"anybody there?")
        assert issubclass(await protocol.lost, BROKEN)
        return True
    if not impl.run(main()):
        pytest.skip("TCP_REPAIR is not allowed here")


def test_listener_gone_before_accept(impl):
    """Connected as far as the kernel knows, but never accepted, and then the listener closes."""
    async def main():
        with socket.create_server((HOST, 0), backlog=5) as listener:
            _, protocol = await asyncio.get_running_loop().create_connection(Recorder, *listener.getsockname())
            protocol.transport.write(b"hello")
            await asyncio.sleep(0.01)
        assert issubclass(await protocol.lost, BROKEN)
    impl.run(main())


@pytest.mark.parametrize("answer", [None, False, True, "raises"])
@pytest.mark.parametrize("pending", [0, 300_000])
def test_peer_half_closes(answer, pending, log):
    """What eof_received() answers decides whether the other half stays open."""
    def body(impl):
        class Half(Recorder):
            def eof_received(self):
                super().eof_received()
                if answer == "raises":
                    raise ValueError("no")
                return answer

        async def main():
            sock, peer = tcp_pair(sndbuf=20_000, rcvbuf=20_000)
            protocol = await attach(sock, Half)
            protocol.transport.write(bytes(pending))
            peer.sendall(b"request")
            peer.shutdown(socket.SHUT_WR)
            peer.setblocking(False)
            assert await until(lambda: "eof" in protocol.events)
            await asyncio.sleep(0.01)
            closing = protocol.transport.is_closing()
            reading = asyncio.ensure_future(drained(peer))
            if not closing:
                protocol.transport.write(b"answer")
                await asyncio.sleep(0.01)
                protocol.transport.close()
            try:
                got = len(await reading)
            except ConnectionResetError:
                got = "reset"
            await protocol.lost
            peer.close()
            return closing, got, bytes(protocol.data), protocol.events
        return impl.run(main()), log.messages()
    closing, got, data, events = same(body)[0]
    assert (closing, data) == (answer is not True, b"request")
    assert got == pending + 6 * (answer is True) or answer == "raises"


def test_we_half_close_and_read_on(impl):
    async def main():
        sock, peer = tcp_pair()
        protocol = await attach(sock)
        protocol.transport.write(b"question")
        protocol.transport.write_eof()
        protocol.transport.write_eof()
        with pytest.raises(RuntimeError):
            protocol.transport.write(b"more")
        await asyncio.sleep(0.01)
        assert (peer.recv(100), peer.recv(100)) == (b"question", b"")
        peer.sendall(b"x" * 50_000)
        assert await until(lambda: len(protocol.data) == 50_000)
        peer.close()
        assert await protocol.lost is None
        assert protocol.events == ["made", "eof", ("lost", None)]
    impl.run(main())


# Closing at any byte, and byte by byte

RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nhello, world"[:-1]


@pytest.mark.parametrize("end", ["fin", "rst"])
def test_server_goes_at_every_byte_of_its_response(end):
    def body(impl, cut):
        async def main():
            sock, peer = tcp_pair()
            reader, writer = await asyncio.open_connection(sock=sock)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            await asyncio.sleep(0)  # it leaves when the turn ends
            peer.recv(100)
            peer.sendall(RESPONSE[:cut])
            peer.close() if end == "fin" else reset(peer)
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                result = head, await reader.readexactly(12)
            except asyncio.IncompleteReadError as exc:
                result = "incomplete", exc.partial
            except ConnectionResetError:
                result = "reset"
            writer.close()
            try:
                await writer.wait_closed()
            except BROKEN:
                pass
            return result
        return impl.run(main())
    for cut in range(len(RESPONSE) + 1):
        result = same(body, cut)
        if end == "fin":
            assert result[0] == "incomplete" or cut == len(RESPONSE)


@pytest.mark.parametrize("end", ["fin", "rst"])
def test_client_goes_at_every_byte_of_our_response(impl, end):
    """Large and small responses alike: connection_lost() once, no report, no descriptor left."""
    async def main(size):
        loop = asyncio.get_running_loop()
        made = []

        class Respond(Recorder):
            def connection_made(self, transport):
                super().connection_made(transport)
                made.append(self)
                transport.write(RESPONSE)
                transport.write(bytes(size))
        server = await loop.create_server(Respond, HOST, 0)
        address = server.sockets[0].getsockname()
        for count in range(len(RESPONSE) + 1):
            peer = socket.create_connection(address)
            assert await until(lambda: len(made) == count + 1)
            got = b""
            while len(got) < count:
                got += peer.recv(count - len(got))
            assert got == RESPONSE[:count]
            peer.close() if end == "fin" else reset(peer)
            await asyncio.wait_for(made[-1].lost, 5)
        server.close()
        for protocol in made:
            assert [e for e in protocol.events if e[0] == "lost"] == protocol.events[-1:]
    impl.run(main(10))
    impl.run(main(3_000_000))


def test_peer_sends_one_byte_at_a_time(impl):
    async def main():
        sock, peer = tcp_pair()
        reader, writer = await asyncio.open_connection(sock=sock)
        lines = [b"line %d\r\n" % number for number in range(300)]

        async def trickle():
            for number, byte in enumerate(b"".join(lines)):
                peer.send(bytes([byte]))
                if number % 3:
                    await asyncio.sleep(0)
        task = asyncio.ensure_future(trickle())
        assert [await reader.readline() for _ in lines] == lines
        await task
        peer.close()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    impl.run(main())


def test_peer_takes_one_byte_at_a_time(impl):
    async def main():
        sock, peer = tcp_pair(sndbuf=5000, rcvbuf=5000)
        protocol = await attach(sock)
        data = os.urandom(60_000)
        for start in range(0, len(data), 1000):
            protocol.transport.writelines([data[start:start + 1], data[start + 1:start + 1000]])
        protocol.transport.close()
        peer.setblocking(False)
        got = bytearray()
        while True:
            try:
                byte = peer.recv(1)
            except BlockingIOError:
                await asyncio.sleep(0)
                continue
            if not byte:
                break
            got += byte
        assert got == data
        assert await protocol.lost is None
        peer.close()
    impl.run(main())


def test_an_unread_stream_is_bounded(impl):
    """Tiny segments for a StreamReader that nobody reads: reading pauses at twice the limit."""
    async def main():
        sock, peer = tcp_pair()
        reader, writer = await asyncio.open_connection(sock=sock, limit=20_000)
        peer.setblocking(False)
        sent = idle = 0
        while idle < 20:
            try:
                sent += peer.send(b"x" * 100)
                idle = 0
            except BlockingIOError:
                idle += 1
            if idle or sent % 1000 == 0:
                await asyncio.sleep(0)
            assert sent < 100_000_000
        assert 40_000 < len(reader._buffer) <= 40_000 + 256 * 1024
        total = 0
        while total < sent:
            total += len(await reader.read(65536))
        assert total == sent
        writer.transport.abort()
        peer.close()
        await asyncio.sleep(0)
    impl.run(main())


# Fairness

@pytest.mark.parametrize("kind", ["sends", "connects"])
def test_a_flood_does_not_starve_others(impl, kind):
    """While one peer floods, another's round trips, timers and callbacks go on."""
    def flood(stop, address):
        if kind == "sends":
            with socket.create_connection(address) as sock:
                sock.settimeout(0.2)
                while not stop.is_set():
                    try:
                        sock.send(bytes(1 << 20))
                    except TimeoutError:
                        pass
        else:
            while not stop.is_set():
                for sock in [socket.create_connection(address) for _ in range(20)]:
                    reset(sock)

    async def main():
        loop = asyncio.get_running_loop()
        sink = await loop.create_server(asyncio.Protocol, HOST, 0)
        sock, peer = unix_pair()

        class Echo(asyncio.Protocol):
            def connection_made(self, transport):
                self.transport = transport

            def data_received(self, data):
                self.transport.write(data)
        echo = await attach(sock, Echo)
        peer.setblocking(False)
        ticks = []

        async def tick():
            while True:
                ticks.append(time.monotonic())
                await asyncio.sleep(0.001)
        ticking = asyncio.ensure_future(tick())
        times = []
        with in_thread(flood, sink.sockets[0].getsockname()):
            end = time.monotonic() + 0.25
            while time.monotonic() < end:
                began = time.monotonic()
                await loop.sock_sendall(peer, b"ping")
                assert await loop.sock_recv(peer, 10) == b"ping"
                times.append(time.monotonic() - began)
        ticking.cancel()
        assert len(times) >= 10 and statistics.median(times) < 0.05, times[:20]
        assert len(ticks) >= 10
        echo.transport.abort()
        sink.close()
        await asyncio.sleep(0.05)
        peer.close()
        for transport in list(getattr(loop, "_transports", {}).values()):
            transport.abort()
        await asyncio.sleep(0.05)
    impl.run(main())


def test_urgent_data_is_no_spin(impl):
    """Out-of-band data wakes poll() on some flags; nobody asked for it."""
    async def main():
        sock, peer = tcp_pair()
        protocol = await attach(sock)
        peer.send(b"!", socket.MSG_OOB)
        cpu = Cpu()
        await asyncio.sleep(0.2)
        assert cpu.share() < 0.2
        peer.sendall(b"ordinary")
        peer.close()
        assert await protocol.lost is None
        assert bytes(protocol.data) == b"ordinary"
    impl.run(main())


def test_linger_zero_on_our_side(impl):
    """A socket of ours that is to reset at close(): the peer gets RST, we lose cleanly."""
    async def main():
        sock, peer = tcp_pair()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        protocol = await attach(sock)
        protocol.transport.close()
        assert await protocol.lost is None
        with pytest.raises(ConnectionResetError):
            peer.recv(1)
        peer.close()
    impl.run(main())
