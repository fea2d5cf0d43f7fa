"""loop.sendfile() and loop.sock_sendfile()."""

import asyncio
import io
import os
import socket

import pytest

from support import PY, plain, same
from support.net import Reports, Stream, better, connected, io_settled, stream_pair, take, take_all

kinds = pytest.mark.parametrize("kind", ["tcp4", "tcp6", "unix"])

DATA = bytes(range(256)) * 4096 * 8  # 8 MiB


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("sendfile") / "data"
    path.write_bytes(DATA)
    return path


class Unsuited(io.BytesIO):
    """A file for the fallback: it has no descriptor."""


CASES = [(0, None), (0, 10), (5, None), (5, 10), (0, len(DATA)), (100, len(DATA)), (len(DATA), None),
         (len(DATA) - 10, None), (len(DATA) + 10, None), (4095, 4097), (0, len(DATA) - 1), (1 << 20, 1 << 20)]


@pytest.mark.parametrize("fallback", [True, False])
@pytest.mark.parametrize("offset, count", CASES)
@pytest.mark.parametrize("kind", ["tcp4", "unix"])
def test_sendfile(kind, offset, count, fallback, path):
    """How many bytes, which ones, and where the file stands afterwards."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            p = Stream()
            async with connected(p, kind) as (transport, peer):
                with open(path, "rb") as file:
                    task = asyncio.create_task(loop.sendfile(transport, file, offset, count, fallback=fallback))
                    expected = DATA[offset:] if count is None else DATA[offset:offset + count]
                    got = await take(peer, len(expected))
                    sent = await task
                    assert got == expected
                    position = file.tell() if sent or PY >= (3, 14) else None
                transport.write(b"after")
                assert await take(peer, 5) == b"after"
                peer.send(b"still reading")
                await p.until(lambda: p.received == b"still reading")
                return sent, position
        return impl.run(main())
    sent, position = same(body)
    assert sent == len(DATA[offset:] if count is None else DATA[offset:offset + count])


@pytest.mark.parametrize("offset, count", CASES)
def test_fallback(offset, count):
    """A file without a descriptor goes by read() and write()."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            p = Stream()
            async with connected(p, "tcp4") as (transport, peer):
                file = Unsuited(DATA[:1 << 20])
                data = DATA[:1 << 20]
                task = asyncio.create_task(loop.sendfile(transport, file, offset, count))
                expected = data[offset:] if count is None else data[offset:offset + count]
                got = await take(peer, len(expected))
                sent = await task
                assert got == expected
                assert transport.get_protocol() is p
                transport.write(b"after")
                assert await take(peer, 5) == b"after"
                return sent, file.tell() if sent else None
        return impl.run(main())
    same(body)


def test_fallback_refused():
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            p = Stream()
            async with connected(p, "tcp4") as (transport, peer):
                try:
                    await loop.sendfile(transport, Unsuited(b"data"), fallback=False)
                except Exception as exc:
                    found = type(exc).__name__, str(exc)
                transport.write(b"after")
                assert await take(peer, 5) == b"after"
                return found, transport.is_reading()
        return impl.run(main())
    found = same(body)
    assert found == [["SendfileNotAvailableError", "not a regular file"], True]


def test_arguments(path):
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            found = []
            async with connected(Stream(), "tcp4") as (transport, peer):
                with open(path, "rb") as file, open(path) as text:
                    for args in ((transport, text), (transport, file, -1), (transport, file, "x"),
                                 (transport, file, 0, 0), (transport, file, 0, -1), (transport, file, 0, "x"),
                                 (transport, file, 1.5), (None, file), (transport, None)):
                        try:
                            found.append(await loop.sendfile(*args))
                        except Exception as exc:
                            found.append((type(exc).__name__, plain(str(exc)).partition("<")[0]))
                assert not transport.is_closing()
            return found
        return impl.run(main())
    same(body)


def test_closing_transport(path):
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            async with connected(Stream(), "tcp4") as (transport, peer):
                transport.close()
                with open(path, "rb") as file:
                    try:
                        await loop.sendfile(transport, file)
                    except Exception as exc:
                        return type(exc).__name__, str(exc)
        return impl.run(main())
    assert same(body) == ["RuntimeError", "Transport is closing"]


@kinds
def test_after_pending_writes(impl, kind, path):
    """What was written before leaves before."""
    async def main():
        loop = asyncio.get_running_loop()
        async with connected(Stream(), kind) as (transport, peer):
            transport.write(b"first" * 1000000)
            assert transport.get_write_buffer_size() > 0
            with open(path, "rb") as file:
                task = asyncio.create_task(loop.sendfile(transport, file, 0, 100000))
                assert await take(peer, 5000000) == b"first" * 1000000
                assert await take(peer, 100000) == DATA[:100000]
                assert await task == 100000
    impl.run(main())


def test_writes_meanwhile(path):
    """Refused while the file is under way, whoever asks."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            async with connected(Stream(), "unix") as (transport, peer):
                with open(path, "rb") as file:
                    task = asyncio.create_task(loop.sendfile(transport, file))
                    await io_settled()
                    found = [task.done()]
                    for call in (lambda: transport.write(b"x"), lambda: transport.write(b""),
                                 lambda: transport.writelines([b"x"])):
                        try:
                            call()
                        except Exception as exc:
                            found.append((type(exc).__name__, str(exc)))
                    with pytest.raises((RuntimeError, KeyError)):  # asyncio: of its bookkeeping
                        await loop.sendfile(transport, file)
                    found.append(transport.is_reading())
                    assert await take(peer, len(DATA)) == DATA
                    await task
                    found.append(transport.is_reading())
                    transport.write(b"after")
                    assert await take(peer, 5) == b"after"
                    return found
        return impl.run(main())
    found = same(body)
    assert found[1] == ["RuntimeError", "unable to write; sendfile is in progress"]


def test_paused_reading_stays_paused(path):
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            p = Stream()
            async with connected(p, "unix") as (transport, peer):
                transport.pause_reading()
                peer.send(b"x")
                with open(path, "rb") as file:
                    task = asyncio.create_task(loop.sendfile(transport, file, 0, 100000))
                    await take(peer, 100000)
                    await task
                await io_settled()
                return transport.is_reading(), p.trace
        return impl.run(main())
    assert same(body)[0] is False


@pytest.mark.parametrize("how", ["close", "abort"])
def test_end_meanwhile(how, path):
    """Closed by its own side while the file is under way."""
    async def outcome_of(impl):
        loop = asyncio.get_running_loop()
        reports = Reports(loop)
        p = Stream()
        async with connected(p, "unix") as (transport, peer):
            with open(path, "rb") as file:
                task = asyncio.create_task(loop.sendfile(transport, file))
                await io_settled()
                assert not task.done()
                getattr(transport, how)()
                await io_settled()
                got = await take_all(peer) if how == "abort" else b""
                await p.wait("connection_lost")
                done, _ = await asyncio.wait([task], timeout=0.05)
                if not done:
                    task.cancel()
                    await asyncio.wait([task], timeout=0.05)
                assert DATA.startswith(got)
                if better(impl):
                    assert task.done()
                if task.done() and not task.cancelled():
                    task.exception()
        return p.trace[-1]
    from support import FASTLOOP
    if better(FASTLOOP):
        assert FASTLOOP.run(outcome_of(FASTLOOP))[0] == "connection_lost"


@kinds
def test_peer_leaves_meanwhile(kind, path):
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            reports = Reports(loop)
            p = Stream()
            async with connected(p, kind) as (transport, peer):
                with open(path, "rb") as file:
                    task = asyncio.create_task(loop.sendfile(transport, file))
                    await io_settled()
                    assert not task.done()
                    peer.close()
                    try:
                        await task
                    except ConnectionError:
                        found = "ConnectionError"
                    transport.abort()
                    await p.wait("connection_lost")
                return found, reports.take()
        return impl.run(main())
    assert same(body) == ["ConnectionError", []]


def test_cancelled(path):
    """The transport can be used again, as far as the stream makes sense."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            p = Stream()
            async with connected(p, "unix") as (transport, peer):
                with open(path, "rb") as file:
                    task = asyncio.create_task(loop.sendfile(transport, file))
                    await io_settled()
                    task.cancel()
                    try:
                        await task
                    except asyncio.CancelledError:
                        pass
                    position = file.tell()
                    await io_settled()
                    transport.write(b"end")
                    transport.write_eof()
                    got = await take_all(peer)
                    assert got.endswith(b"end")
                    assert DATA.startswith(got[:-3])
                    return position in (0, len(got) - 3), transport.is_reading(), transport.is_closing()
        return impl.run(main())
    assert same(body) == [True, True, False]


def test_small_and_empty_files(impl, tmp_path):
    async def main():
        loop = asyncio.get_running_loop()
        async with connected(Stream(), "tcp4") as (transport, peer):
            for content in (b"", b"x", b"xyz" * 1000):
                path = tmp_path / "file"
                path.write_bytes(content)
                with open(path, "rb") as file:
                    assert await loop.sendfile(transport, file) == len(content)
                assert await take(peer, len(content)) == content
    impl.run(main())


def test_file_that_grows_shorter(impl, tmp_path):
    """Cut while it is under way: what was there is sent, and the call ends."""
    async def main():
        loop = asyncio.get_running_loop()
        path = tmp_path / "file"
        path.write_bytes(DATA)
        async with connected(Stream(), "unix") as (transport, peer):
            with open(path, "r+b") as file:
                task = asyncio.create_task(loop.sendfile(transport, file))
                await io_settled()
                file.truncate(len(DATA) // 2)
                got = await take(peer, len(DATA) // 2)
                assert await task == len(got)
                assert DATA.startswith(got)
    impl.run(main())


def test_datagram_and_other_transports(path):
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            found = []
            transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
            r, w = os.pipe()
            os.close(r)
            with open(path, "rb") as file:
                for thing in (transport, object(), asyncio.Transport()):
                    try:
                        await loop.sendfile(thing, file)
                    except Exception as exc:
                        found.append((type(exc).__name__, plain(str(exc)).partition("<")[0]))
            os.close(w)
            transport.close()
            await io_settled()
            return found
        return impl.run(main())
    same(body)


# sock_sendfile

@pytest.mark.parametrize("fallback", [True, False])
@pytest.mark.parametrize("offset, count", CASES)
def test_sock_sendfile(offset, count, fallback, path):
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            ours, peer = stream_pair("tcp4")
            with ours, peer, open(path, "rb") as file:
                task = asyncio.create_task(loop.sock_sendfile(ours, file, offset, count, fallback=fallback))
                expected = DATA[offset:] if count is None else DATA[offset:offset + count]
                got = await take(peer, len(expected))
                sent = await task
                assert got == expected
                assert loop.remove_writer(ours) is False
                return sent, file.tell() if sent or PY >= (3, 14) else None
        return impl.run(main())
    same(body)


@pytest.mark.parametrize("offset, count", CASES[:6])
def test_sock_sendfile_fallback(offset, count):
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            ours, peer = stream_pair("tcp4")
            data = DATA[:1 << 20]
            with ours, peer:
                file = Unsuited(data)
                task = asyncio.create_task(loop.sock_sendfile(ours, file, offset, count))
                expected = data[offset:] if count is None else data[offset:offset + count]
                got = await take(peer, len(expected))
                sent = await task
                assert got == expected
                return sent, file.tell() if sent else None
        return impl.run(main())
    same(body)


def test_errors_of_sock_sendfile(path):
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            found = []
            ours, peer = stream_pair()
            datagram = socket.socket(type=socket.SOCK_DGRAM)
            datagram.setblocking(False)
            blocking = socket.socket()
            with ours, peer, datagram, blocking, open(path, "rb") as file, open(path) as text:
                for args, kwargs in (((ours, Unsuited(b"x")), {"fallback": False}), ((ours, text), {}),
                                     ((ours, file, -1), {}), ((ours, file, 0, 0), {}), ((ours, file, 0, -5), {}),
                                     ((datagram, file), {}), ((blocking, file), {}), ((ours, file, "x"), {}),
                                     ((ours, None), {}), ((None, file), {})):
                    try:
                        found.append(await loop.sock_sendfile(*args, **kwargs))
                    except Exception as exc:
                        found.append((type(exc).__name__, plain(str(exc)).partition("<")[0]))
            return found
        return [impl.run(main(), debug=debug) for debug in (False, True)]
    same(body)


def test_cancelled_sock_sendfile(path):
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            ours, peer = stream_pair()
            with ours, peer, open(path, "rb") as file:
                task = asyncio.create_task(loop.sock_sendfile(ours, file))
                await io_settled()
                task.cancel()
                try:
                    await task
                except asyncio.CancelledError:
                    pass
                found = [loop.remove_writer(ours)]
                position = file.tell()
                ours.shutdown(socket.SHUT_WR)
                got = await take_all(peer)
                assert DATA.startswith(got)
                if better(impl, "sock"):
                    assert position in (0, len(got))
                return found
        return impl.run(main())
    assert same(body) == [False]


def test_sock_sendfile_to_one_who_leaves(path):
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            ours, peer = stream_pair("tcp4")
            with ours, open(path, "rb") as file:
                task = asyncio.create_task(loop.sock_sendfile(ours, file))
                await io_settled()
                peer.close()
                try:
                    await task
                except ConnectionError:
                    return loop.remove_writer(ours)
        return impl.run(main())
    assert same(body) is False
