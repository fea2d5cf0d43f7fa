"""EPOLLERR and EPOLLHUP, which epoll reports whether asked or not: heard by who watches, no spin for who does not."""

import asyncio
import errno
import os
import socket

import pytest

from support import outcome, same, settle, spin
from support.peers import HOST, Cpu, Recorder, attach, reset, tcp_pair, unix_pair, until

IDLE = 0.15  # share of a processor that counts as a spin, where a real one takes all of it


async def idle(seconds=0.1):
    cpu = Cpu()
    await asyncio.sleep(seconds)
    share = cpu.share()
    assert share < IDLE, f"{share:.0%} of a processor with nothing to do"


# Plain descriptors

def test_reader_of_a_pipe_without_writer(impl):
    """The callback is called, again and again, as long as it watches; so does asyncio."""
    with impl.loop() as loop:
        r, w = os.pipe()
        seen = []
        loop.add_reader(r, lambda: seen.append(os.read(r, 10)))
        spin(loop, 3)
        assert seen == []
        os.close(w)
        spin(loop, 5)
        assert len(seen) >= 2 and set(seen) == {b""}
        assert loop.remove_reader(r)
        os.close(r)


def test_writer_of_a_pipe_without_reader(impl):
    with impl.loop() as loop:
        r, w = os.pipe()
        os.set_blocking(w, False)
        while True:
            try:
                os.write(w, bytes(65536))
            except BlockingIOError:
                break
        seen = []

        def write():
            with pytest.raises(BrokenPipeError):
                os.write(w, b"x")
            seen.append(1)
            loop.remove_writer(w)
        loop.add_writer(w, write)
        spin(loop, 3)
        assert seen == []
        os.close(r)
        spin(loop, 5)
        assert seen == [1]
        os.close(w)


def test_hangup_calls_reader_and_writer(impl):
    """EPOLLHUP is both, as in asyncio's selector."""
    with impl.loop() as loop:
        sock, peer = unix_pair()
        seen = set()
        loop.add_reader(sock, seen.add, "reader")
        loop.add_writer(sock, seen.add, "writer")
        peer.close()
        spin(loop, 5)
        assert seen == {"reader", "writer"}
        loop.remove_reader(sock)
        loop.remove_writer(sock)
        sock.close()


def test_refused_connect_is_heard_by_a_writer(impl):
    """EPOLLERR on a socket that is only watched for writing."""
    with socket.create_server((HOST, 0)) as listener:
        address = listener.getsockname()
    with impl.loop() as loop:
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(address)
        seen = []

        def ready():
            seen.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            loop.remove_writer(sock)
        loop.add_writer(sock, ready)
        spin(loop, 5)
        assert seen == [errno.ECONNREFUSED]
        sock.close()


def test_watching_only_for_writing_hears_a_reader_hang_up(impl):
    """The reading end of a full pipe closes: the writer gets EPOLLERR alone."""
    with impl.loop() as loop:
        r, w = os.pipe()
        seen = []
        loop.add_reader(w, seen.append, "reader of the writing end")
        os.close(r)
        spin(loop, 5)
        assert seen
        loop.remove_reader(w)
        os.close(w)


def test_what_epoll_refuses(tmp_path):
    """Regular files and folders are EPERM, as in asyncio, and are not watched afterwards."""
    path = tmp_path / "file"
    path.write_bytes(b"x")

    def body(impl):
        results = []
        with impl.loop() as loop:
            for flags, name in ((os.O_RDWR, path), (os.O_RDONLY, tmp_path)):
                fd = os.open(name, flags)
                for _ in range(2):
                    results.append(outcome(loop.add_reader, fd, int))
                    results.append(outcome(loop.add_writer, fd, int))
                results.append(loop.remove_reader(fd))
                results.append(loop.remove_writer(fd))
                os.close(fd)
            spin(loop)
            results.append(outcome(loop.add_reader, 10_000, int))
            results.append(outcome(loop.add_reader, -1, int))
        return results
    results = same(body)
    assert results[0][:2] == ("raised", "PermissionError") or results[0][:2] == ["raised", "PermissionError"]


def test_nobody_watches_any_more(impl):
    """A removed reader of something that has hung up costs nothing."""
    async def main():
        loop = asyncio.get_running_loop()
        r, w = os.pipe()
        loop.add_reader(r, int)
        await asyncio.sleep(0)
        os.close(w)
        loop.remove_reader(r)
        await idle()
        os.close(r)
    impl.run(main())


# Transports

@pytest.mark.parametrize("pair", [tcp_pair, unix_pair], ids=["tcp", "unix"])
@pytest.mark.parametrize("end", ["close", "reset", "shutdown"])
def test_paused_transport_whose_peer_is_gone(impl, pair, end):
    """Reading is paused, so nobody wants to know; the end comes after resume_reading()."""
    if end == "reset" and pair is unix_pair:
        pytest.skip("UNIX sockets have no reset of this kind")

    async def main():
        sock, peer = pair()
        protocol = await attach(sock)
        protocol.transport.pause_reading()
        peer.send(b"unread")
        if end == "close":
            peer.close()
        elif end == "reset":
            reset(peer)
        else:
            peer.shutdown(socket.SHUT_RDWR)
        await idle()
        assert protocol.data == b""
        protocol.transport.resume_reading()
        lost = await asyncio.wait_for(asyncio.shield(protocol.lost), 5)
        assert lost in (None, ConnectionResetError)
        if end != "reset":
            assert bytes(protocol.data) == b"unread"
        peer.close()
    impl.run(main())


def test_paused_and_closed(impl):
    """close() while paused and the peer gone: connection_lost() does not wait for resume_reading()."""
    async def main():
        sock, peer = tcp_pair()
        protocol = await attach(sock)
        protocol.transport.pause_reading()
        reset(peer)
        await asyncio.sleep(0.01)
        protocol.transport.close()
        await asyncio.wait_for(asyncio.shield(protocol.lost), 5)
    impl.run(main())


def test_paused_with_data_to_send_and_the_peer_gone(impl):
    """The writing side finds out, although reading is paused."""
    async def main():
        sock, peer = tcp_pair(sndbuf=10_000, rcvbuf=10_000)
        protocol = await attach(sock)
        protocol.transport.write(bytes(1_000_000))
        protocol.transport.pause_reading()
        await asyncio.sleep(0.01)
        reset(peer)
        lost = await asyncio.wait_for(asyncio.shield(protocol.lost), 5)
        assert issubclass(lost, (ConnectionResetError, BrokenPipeError))
    impl.run(main())


def test_end_of_file_kept_open_is_no_spin(impl):
    """eof_received() answered True: reading is over, writing is not, and the loop sleeps."""
    class Stay(Recorder):
        eof_answer = True

    async def main(pair):
        sock, peer = pair()
        protocol = await attach(sock, Stay)
        peer.shutdown(socket.SHUT_WR)
        assert await until(lambda: "eof" in protocol.events)
        await idle()
        protocol.transport.write(b"still here")
        peer.setblocking(True)
        peer.settimeout(5)
        await asyncio.sleep(0.01)
        assert peer.recv(100) == b"still here"
        # Now both directions are over, and still nobody closes.
        peer.close()
        await idle()
        protocol.transport.close()
        await protocol.lost
        assert protocol.events.count("eof") == 1
    impl.run(main(tcp_pair))
    impl.run(main(unix_pair))


def test_both_halves_shut_is_no_spin(impl):
    class Stay(Recorder):
        eof_answer = True

    async def main():
        sock, peer = tcp_pair()
        protocol = await attach(sock, Stay)
        protocol.transport.write_eof()
        peer.shutdown(socket.SHUT_WR)
        assert await until(lambda: "eof" in protocol.events)
        await idle()
        protocol.transport.close()
        await protocol.lost
        peer.close()
    impl.run(main())


def test_paused_protocol_whose_peer_does_not_read_is_no_spin(impl):
    async def main():
        sock, peer = tcp_pair(sndbuf=10_000, rcvbuf=10_000)
        protocol = await attach(sock)
        protocol.transport.write(bytes(1_000_000))
        await idle()
        assert protocol.events == ["made", "pause"]
        protocol.transport.abort()
        await protocol.lost
        peer.close()
    impl.run(main())


def test_pipes_that_hang_up(impl):
    """connect_read_pipe() paused and connect_write_pipe() idle, the other end gone."""
    class Pipe(asyncio.Protocol):
        def __init__(self):
            self.events = []
            self.lost = asyncio.get_running_loop().create_future()

        def data_received(self, data):
            self.events.append(data)

        def eof_received(self):
            self.events.append("eof")

        def pause_writing(self):
            pass

        def connection_lost(self, exc):
            self.events.append(type(exc).__name__)
            self.lost.set_result(None)

    async def main():
        loop = asyncio.get_running_loop()
        r, w = os.pipe()
        transport, reading = await loop.connect_read_pipe(Pipe, os.fdopen(r, "rb", 0))
        transport.pause_reading()
        os.write(w, b"x")
        os.close(w)
        await settle(3)
        cpu = Cpu()
        await asyncio.sleep(0.1)
        share = cpu.share()
        transport.resume_reading()
        await asyncio.wait_for(asyncio.shield(reading.lost), 5)
        assert reading.events == [b"x", "eof", "NoneType"]

        for buffered, end in ((0, "NoneType"), (1_000_000, "BrokenPipeError")):
            r, w = os.pipe()
            transport, writing = await loop.connect_write_pipe(Pipe, os.fdopen(w, "wb", 0))
            transport.write(bytes(buffered))
            os.close(r)
            await asyncio.wait_for(asyncio.shield(writing.lost), 5)
            assert writing.events == [end]
        return share
    assert impl.run(main()) < IDLE


def test_datagram_endpoint_after_port_unreachable(impl):
    """ICMP's refusals come as EPOLLERR: error_received(), the endpoint lives, no spin."""
    class Endpoint(asyncio.DatagramProtocol):
        def __init__(self):
            self.errors = []
            self.data = []

        def error_received(self, exc):
            self.errors.append(type(exc))

        def datagram_received(self, data, address):
            self.data.append(data)

    async def main():
        loop = asyncio.get_running_loop()
        with socket.socket(type=socket.SOCK_DGRAM) as other:
            other.bind((HOST, 0))
            address = other.getsockname()
        transport, protocol = await loop.create_datagram_endpoint(Endpoint, remote_addr=address)
        for _ in range(5):
            transport.sendto(b"anybody?")
            await asyncio.sleep(0.005)
        assert set(protocol.errors) == {ConnectionRefusedError}
        await idle()
        with socket.socket(type=socket.SOCK_DGRAM) as other:
            other.bind(address)
            other.sendto(b"yes", transport.get_extra_info("sockname"))
            assert await until(lambda: protocol.data == [b"yes"])
        transport.close()
        await settle(3)
    impl.run(main())
