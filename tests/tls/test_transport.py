"""What the methods of a TLS transport take, give and refuse."""

import array
import asyncio
import gc
import logging
import os
import random
import warnings

import pytest

from support import net, plain, same
from support.net import Reports, Stream, io_settled
from support.tls import Buffered, Pair, bare, better, client_context, lost, pair, result_of, secured

sides = pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])

BIG = random.Random(5).randbytes(1 << 20)


# Writing

@sides
def test_kinds_of_data(server_side):
    """bytes, bytearray and memoryview, also of larger items; each write arrives whole and in order."""
    def body(impl):
        async def main():
            async with secured(server_side=server_side) as (transport, peer):
                for data in (b"bytes ", bytearray(b"bytearray "), memoryview(b"memoryview "),
                             memoryview(bytearray(b"0123456789"))[2:8], memoryview(array.array("H", [0x4141, 0x4242]))):
                    assert transport.write(data) is None
                return await peer.take(37)
        return impl.run(main())
    assert same(body) == b"bytes bytearray memoryview 234567AABB"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_large_data(kind):
    def body(impl):
        async def main():
            async with secured(buffers=65536) as (transport, peer):
                transport.write(kind(BIG))
                return await peer.take(len(BIG)) == BIG
        return impl.run(main())
    assert same(body)


@pytest.mark.parametrize("how", ["write", "writelines"])
def test_memory_that_changes_afterwards(how):
    """What was in a bytearray when it was written arrives, whatever it holds later, and it can be resized at once."""
    def body(impl):
        async def main():
            async with secured(buffers=65536) as (transport, peer):
                data = bytearray(BIG)
                if how == "write":
                    transport.write(data)
                else:
                    transport.writelines([memoryview(data)[:1000], memoryview(data)[1000:]])
                data[:] = bytes(len(data))
                data.clear()
                return await peer.take(len(BIG)) == BIG
        return impl.run(main())
    assert same(body)


@pytest.mark.parametrize("shape", ["I", "two dimensions"])
def test_views_of_large_items_and_of_more_dimensions(impl, shape):
    """What counts is bytes, not items or rows."""
    async def main():
        view = memoryview(BIG).cast("I") if shape == "I" else memoryview(BIG).cast("B", [1024, 1024])
        async with secured(buffers=65536) as (transport, peer):
            transport.write(view)
            transport.writelines([view, b"end"])
            assert await peer.take(2 * len(BIG) + 3) == BIG + BIG + b"end"
            assert transport.get_write_buffer_size() == 0
    impl.run(main())


@pytest.mark.parametrize("data", ["text", 1, None, [1], array.array("b", [1])], ids=lambda d: type(d).__name__)
def test_wrong_types(data):
    """TypeError with asyncio's sentence, and the connection goes on."""
    def body(impl):
        async def main():
            async with secured() as (transport, peer):
                with pytest.raises(TypeError) as caught:
                    transport.write(data)
                text = str(caught.value)
                del caught
                transport.write(b"after")
                return text, await peer.take(5)
        return impl.run(main())
    text, after = same(body)
    assert text == f"data: expecting a bytes-like instance, got {type(data).__name__}"
    assert after == b"after"


def test_empty_writes():
    """Nothing is sent for nothing: not a record, nor a pause."""
    def body(impl):
        async def main():
            p = Stream()
            async with secured(p) as (transport, peer):
                transport.write(b"first")
                await peer.take(5)
                before = len(peer.heard)
                for nothing in (b"", bytearray(), memoryview(b"")):
                    transport.write(nothing)
                transport.writelines([])
                transport.writelines(iter(()))
                await io_settled()
                peer.look()
                assert len(peer.heard) == before
                transport.write(b"x")
                return await peer.take(1), p.trace[:]
        return impl.run(main())
    same(body)


@pytest.mark.parametrize("make", [list, tuple, iter, lambda parts: (part for part in parts)],
                         ids=["list", "tuple", "iterator", "generator"])
def test_writelines(make):
    def body(impl):
        async def main():
            async with secured() as (transport, peer):
                parts = [b"one ", bytearray(b"two "), memoryview(b"three "), b"x" * 50000, b" end"]
                assert transport.writelines(make(parts)) is None
                return await peer.take(50018)
        return impl.run(main())
    assert same(body) == b"one two three " + b"x" * 50000 + b" end"


def test_many_small_writes_in_one_turn():
    """Their order is kept."""
    def body(impl):
        async def main():
            async with secured() as (transport, peer):
                expected = b"".join(b"%d," % n for n in range(500))
                for n in range(500):
                    transport.write(b"%d," % n)
                return await peer.take(len(expected)) == expected
        return impl.run(main())
    assert same(body)


def test_write_eof():
    """TLS connections have no half-close."""
    def body(impl):
        async def main():
            async with secured() as (transport, peer):
                assert transport.can_write_eof() is False
                with pytest.raises(NotImplementedError) as caught:
                    transport.write_eof()
                args = caught.value.args
                del caught
                transport.write(b"goes on")
                return args, await peer.take(7)
        return impl.run(main())
    assert same(body) == [[], b"goes on"]


# Writing when it is over

@pytest.mark.parametrize("how", ["close", "abort", "peer"])
@pytest.mark.parametrize("settled", [True, False])
def test_writes_after_the_end(how, settled, log):
    """They are dropped, and warned about from the fifth on, counted as asyncio counts."""
    if how == "peer" and not settled:
        return

    def body(impl):
        async def main():
            p = Stream()
            async with secured(p) as (transport, peer):
                if how == "peer":
                    peer.goodbye()
                else:
                    getattr(transport, how)()
                if settled:
                    if how == "close":
                        await peer.finish()
                    await lost(p)
                for _ in range(9):
                    transport.write(b"late")
                    transport.write(b"")
                return transport.get_write_buffer_size(), p.trace[:]
        return impl.run(main()), log.take()
    (size, trace), said = same(body)
    assert size == 0
    assert said and {text for _, text in said} == {"SSL connection is closed"}


def test_writelines_after_the_end(log):
    def body(impl):
        async def main():
            p = Stream()
            async with secured(p) as (transport, peer):
                transport.abort()
                await lost(p)
                for _ in range(7):
                    transport.writelines([b"late", b"later"])
        impl.run(main())
        return log.take()
    assert len(same(body)) >= 1


def test_what_is_written_after_close_is_not_sent():
    def body(impl):
        async def main():
            p = Stream()
            async with secured(p) as (transport, peer):
                transport.write(b"before")
                transport.close()
                transport.write(b"after")
                return await peer.take_all(), await peer.finish()
        return impl.run(main())
    assert same(body) == [b"before", ["close_notify", "FIN"]]


# State

def test_is_closing():
    def body(impl, how):
        async def main():
            p = Stream()
            async with secured(p) as (transport, peer):
                seen = [transport.is_closing()]
                getattr(transport, how)()
                seen.append(transport.is_closing())
                if how == "close":
                    await peer.finish()
                await lost(p)
                seen.append(transport.is_closing())
                return seen
        return impl.run(main())
    for how in ("close", "abort"):
        assert same(body, how) == [False, True, True]


def test_is_closing_when_the_peer_has_closed():
    def body(impl):
        async def main():
            p = Stream()
            seen = []
            p.on["eof_received"] = lambda p: seen.append(p.transport.is_closing())
            p.on["connection_lost"] = lambda p, exc: seen.append(p.transport.is_closing())
            async with secured(p) as (transport, peer):
                peer.goodbye()
                await lost(p)
                return seen
        return impl.run(main())
    same(body)


def test_everything_after_the_end():
    """What the methods answer on a transport that is lost."""
    def body(impl):
        async def main():
            p = Stream()
            async with secured(p) as (transport, peer):
                peer.goodbye()
                await lost(p)
                await io_settled()
                found = [transport.is_closing(), transport.get_write_buffer_size(), transport.get_read_buffer_size(),
                         transport.can_write_eof(), transport.get_write_buffer_limits(),
                         transport.get_read_buffer_limits()]
                transport.pause_reading()
                found.append(transport.is_reading())
                transport.resume_reading()
                found.append(transport.is_reading())
                transport.close()
                transport.abort()
                await io_settled()
                return found, p.trace
        return impl.run(main())
    assert same(body)[0][:2] == [True, 0]


def test_closed_twice_and_then_used(impl):
    """A second close() does nothing. With it asyncio's transport forgets its connection, and most methods raise."""
    if not better(impl):
        return

    async def main():
        p = Stream()
        async with secured(p, kind="tcp4") as (transport, peer):
            transport.close()
            transport.close()
            transport.close()
            assert transport.is_closing()
            assert transport.get_extra_info("peername") == peer.sock.getsockname()
            assert transport.get_write_buffer_size() >= 0
            transport.write(b"dropped")
            transport.writelines([b"dropped"])
            transport.pause_reading()
            transport.resume_reading()
            assert transport.get_protocol() is p
            assert await peer.finish() == ("close_notify", "FIN")
            await lost(p)
            assert p.trace == [("connection_made",), ("eof_received",), ("connection_lost", None)]
    impl.run(main())


def test_close_after_abort(impl):
    """It does nothing, and what is asked afterwards is answered. asyncio's forgets its connection here, too."""
    if not better(impl):
        return

    async def main():
        p = Stream()
        async with secured(p) as (transport, peer):
            transport.abort()
            transport.close()
            assert transport.get_write_buffer_size() == 0
            transport.write(b"dropped")
            await lost(p)
            assert p.trace == [("connection_made",), ("connection_lost", None)]
    impl.run(main())


def test_abort_after_two_closes(impl):
    """It still ends the connection at once. asyncio's waits for the peer."""
    if not better(impl):
        return

    async def main():
        p = Stream()
        async with secured(p, ssl_shutdown_timeout=60) as (transport, peer):
            transport.close()
            transport.close()
            transport.abort()
            await lost(p)
            assert p.trace == [("connection_made",), ("connection_lost", None)]
    impl.run(main())


def test_write_buffer_limits():
    def body(impl):
        async def main():
            found = []
            async with secured() as (transport, peer):
                found.append(transport.get_write_buffer_limits())
                for arguments in ({"high": 1000}, {"low": 1000}, {"high": 2000, "low": 500}, {"high": 7, "low": 7}, {}):
                    transport.set_write_buffer_limits(**arguments)
                    found.append(transport.get_write_buffer_limits())
                transport.set_write_buffer_limits(5000, 10)
                found.append(transport.get_write_buffer_limits())
                for arguments in ({"high": 1, "low": 2}, {"high": -1}, {"low": -1}, {"high": 5, "low": -1}):
                    with pytest.raises(ValueError) as caught:
                        transport.set_write_buffer_limits(**arguments)
                    found.append(str(caught.value))
                    del caught
                found.append(transport.get_write_buffer_limits())
                return found
        return impl.run(main())
    found = same(body)
    assert found[:2] == [[131072, 524288], [250, 1000]]
    assert "must be >=" in found[-2]


def test_read_buffer_limits():
    def body(impl):
        async def main():
            found = []
            async with secured() as (transport, peer):
                found.append(transport.get_read_buffer_limits())
                for arguments in ({"high": 1000}, {"low": 1000}, {"high": 2000, "low": 500}, {}):
                    transport.set_read_buffer_limits(**arguments)
                    found.append(transport.get_read_buffer_limits())
                for arguments in ({"high": 1, "low": 2}, {"high": -1}, {"low": -1}):
                    with pytest.raises(ValueError) as caught:
                        transport.set_read_buffer_limits(**arguments)
                    found.append(str(caught.value))
                    del caught
                found.append((transport.get_read_buffer_limits(), transport.get_read_buffer_size()))
                return found
        return impl.run(main())
    assert same(body)[:2] == [[65536, 262144], [250, 1000]]


def test_kind_of_transport(impl):
    """It is an asyncio.Transport that start_tls() and sendfile() know."""
    async def main():
        async with secured() as (transport, _):
            assert isinstance(transport, asyncio.Transport)
            assert transport._start_tls_compatible is True
            assert transport._sendfile_compatible is asyncio.constants._SendfileMode.FALLBACK
            assert transport.is_reading() is True
    impl.run(main())


# Protocols

def test_set_protocol():
    """The next callback is the new protocol's, connection_made() is not told again."""
    def body(impl):
        async def main():
            first, second = Stream(), Stream()
            async with secured(first) as (transport, peer):
                assert transport.get_protocol() is first
                await peer.send(b"one")
                await first.wait("data_received")
                second.transport = transport
                assert transport.set_protocol(second) is None
                assert transport.get_protocol() is second
                await peer.send(b"two")
                await second.wait("data_received")
                peer.goodbye()
                await lost(second)
                return first.trace, second.trace
        return impl.run(main())
    assert same(body) == [[["connection_made"], ["data_received", b"one"]],
                          [["data_received", b"two"], ["eof_received"], ["connection_lost", None]]]


@pytest.mark.parametrize("kinds", [(Stream, Buffered), (Buffered, Stream)], ids=["to buffered", "from buffered"])
def test_set_protocol_of_the_other_kind(kinds):
    def body(impl):
        async def main():
            first, second = kinds[0](), kinds[1]()
            async with secured(first) as (transport, peer):
                await peer.send(b"one")
                await first.until(lambda: first.received)
                transport.set_protocol(second)
                await peer.send(b"two")
                await second.until(lambda: second.received)
                first.lost = True
                peer.goodbye()
                await lost(second)
                return first.trace, second.trace
        return impl.run(main())
    first, second = same(body)
    assert first[-1][1] == b"one" and second[0][1] == b"two"


def test_set_protocol_from_data_received():
    """What is read later goes to the new one; a protocol that is paused meanwhile gets it all afterwards."""
    def body(impl):
        async def main():
            second = Stream()

            def change(p, data):
                p.transport.pause_reading()
                p.transport.set_protocol(second)
            first = Stream({"data_received": change})
            async with secured(first) as (transport, peer):
                await peer.send(b"one")
                await first.wait("data_received")
                await peer.send(b"two")
                await io_settled()
                assert not second.trace
                transport.resume_reading()
                await second.until(lambda: bytes(second.received) == b"two")
                peer.goodbye()
                await lost(second)
                return first.trace, second.trace
        return impl.run(main())
    same(body)


def test_buffer_of_python(impl):
    """get_buffer() may give a bytearray. asyncio reads the second record into a copy of it."""
    if not better(impl):
        return

    async def main():
        for size in (65536, 30000, 1000, 1):
            p = net.Buffered(size=size)
            async with secured(p) as (_, peer):
                data = BIG[:50000] if size > 1 else BIG[:2000]
                await peer.send(data[:100])
                await peer.send(data[100:])
                await p.until(lambda: len(p.received) >= len(data))
                assert bytes(p.received) == data
    impl.run(main())


@pytest.mark.parametrize("size", [1, 1000, 16384, 16385, 65536, 300000])
def test_size_of_the_buffer(size):
    """However small it is, everything comes; buffer_updated() tells at most its size."""
    def body(impl):
        async def main():
            data = BIG if size >= 1000 else BIG[:3000]
            largest = []
            p = Buffered({"buffer_updated": lambda p, count: largest.append(count)}, size=size)
            async with secured(p) as (_, peer):
                await peer.send(data)
                await p.until(lambda: len(p.received) >= len(data))
                assert max(largest) <= size and min(largest) > 0
                return bytes(p.received) == data
        return impl.run(main())
    assert same(body)


@pytest.mark.parametrize("answer", [b"read only", None, "text", bytearray()],
                         ids=["read only", "None", "text", "empty"])
def test_get_buffer_gives_what_cannot_be_read_into(impl, answer):
    """The connection ends, once, and the loop goes on. asyncio takes an empty buffer for the end of the stream."""
    async def main():
        reports = Reports(asyncio.get_running_loop())

        class Wrong(Buffered):
            def get_buffer(self, sizehint):
                return answer
        p = Wrong()
        async with secured(p, ssl_shutdown_timeout=0.1) as (_, peer):
            await peer.send(b"data")
            await lost(p)
            assert p.names().count("connection_lost") == 1
            assert not p.received
            if answer != bytearray() or better(impl):
                assert p.trace[-1][1] is not None
                assert len(reports.take()) == 1
    impl.run(main())


# What is said

def test_repr(impl):
    """It names the class, and whether it is closing or has TLS is not asked of anybody: it never raises."""
    async def main():
        p = Stream()
        async with secured(p) as (transport, peer):
            assert "Transport" in repr(transport)
            transport.close()
            assert "Transport" in repr(transport)
            await peer.finish()
            await lost(p)
            assert "Transport" in repr(transport)
    impl.run(main())


def test_unclosed_transport_warns(impl):
    """As every transport: a ResourceWarning, when the last reference goes and the loop has lost it."""
    descriptors = len(os.listdir("/proc/self/fd"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        async def main():
            p = Stream()
            both = Pair(p)
            await both.handshake()
            both.transport = both.making = p.transport = None
            ours, far = both.ours, both.far
            del both, p
            far.close()
            return ours
        loop = impl.new_loop()
        ours = loop.run_until_complete(main())
        loop.close()
        gc.collect()
        ours.close()
        del ours, loop
        gc.collect()
    assert any("unclosed transport" in str(w.message) and w.category is ResourceWarning for w in caught)
    caught.clear()
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_closed_transport_does_not_warn(impl):
    """Nor one that the peer closed, one that was aborted, or one whose handshake failed."""
    async def main():
        for how in ("close", "abort", "peer", "refused"):
            p = Stream()
            if how == "refused":
                async with pair(p, far=client_context("stranger")) as both:
                    await result_of(both.far.handshake())
                    both.far.fin()
                    assert await result_of(both.making) != "done"
                continue
            async with secured(p) as (transport, peer):
                if how == "peer":
                    peer.goodbye()
                else:
                    getattr(transport, how)()
                if how == "close":
                    await peer.finish()
                await lost(p)
                del transport
    impl.run(main())
    gc.collect()


def test_log_of_debug_mode(log):
    """What asyncio logs about a connection from its handshake to its end, times left out."""
    def body(impl):
        async def main():
            p = Stream()
            async with secured(p) as (transport, peer):
                await peer.send(b"x")
                await p.wait("data_received")
                peer.fin()
                await lost(p)
        impl.run(main(), debug=True)
        found = [(level, bare(text).partition(" took")[0]) for level, text in log.details
                 if ("SSL" in text or "EOF" in text) and "handled" not in text]
        log.details.clear()
        return found
    logging.getLogger("asyncio").setLevel(logging.DEBUG)
    said = [text for _, text in same(body)]
    assert "<> starts SSL handshake" in said
    assert "<>: SSL handshake" in said
    assert "<> received EOF" in said


def test_true_from_eof_received_has_no_effect(log):
    """A warning says so."""
    def body(impl):
        async def main():
            p = Stream({"eof_received": lambda p: True})
            async with secured(p) as (transport, peer):
                peer.goodbye()
                await lost(p)
                return p.trace
        return plain(impl.run(main())), log.take()
    _, said = same(body)
    assert said == [["WARNING", "returning true from eof_received() has no effect when using ssl"]]
