"""Handshakes and data with one flight changed, thrown at a server or at a client.

A mutant is a number: it says which side is attacked, which version, whether a live far end's
flight is changed or a recorded one is played, which flight, and how.  The same number does the
same, as far as TLS's own random numbers let it.
"""

import asyncio
import contextlib
import functools
import random
import ssl

from support.net import Notes, io_settled
from support.tls import V2, V3, Buffered, Far, client_context, pair, records, server_context

PAYLOAD = random.Random(13).randbytes(40000)
LIMIT = 20  # seconds for one mutant


@functools.cache
def context(server_side, version):
    return server_context(version=version) if server_side else client_context(version=version)


# The changes

def flip(data, dice):
    data = bytearray(data)
    for _ in range(dice.choice([1, 1, 2, 8])):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return [bytes(data)]


def flip_in_a_header(data, dice):
    """Types, versions and lengths of records are what a stream layer looks at."""
    starts, at = [], 0
    for _, whole in records(data):
        starts.append(at)
        at += len(whole)
    data = bytearray(data)
    data[min(dice.choice(starts or [0]) + dice.randrange(5), len(data) - 1)] = dice.randrange(256)
    return [bytes(data)]


def truncate(data, dice):
    return [data[:dice.randrange(len(data))]]


def cut_out(data, dice):
    at = dice.randrange(len(data))
    return [data[:at] + data[at + dice.randrange(1, 50):]]


def insert(data, dice):
    at = dice.randrange(len(data) + 1)
    return [data[:at] + dice.randbytes(dice.choice([1, 5, 100, 20000])) + data[at:]]


def twice(data, dice):
    return [data, data]


def record_twice(data, dice):
    parts = [whole for _, whole in records(data)] or [data]
    n = dice.randrange(len(parts))
    return [b"".join(parts[:n + 1] + parts[n:])]


def reorder(data, dice):
    parts = [whole for _, whole in records(data)] or [data]
    dice.shuffle(parts)
    return [b"".join(parts)]


def drop_record(data, dice):
    parts = [whole for _, whole in records(data)] or [data]
    del parts[dice.randrange(len(parts))]
    return [b"".join(parts)]


def replace(data, dice):
    return [dice.randbytes(len(data))]


def nothing(data, dice):
    return []


def splits(data, dice):
    """Not a change to TLS at all: everything must arrive."""
    cuts = sorted(dice.randrange(len(data)) for _ in range(dice.choice([1, 3, 10])))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)])]


CHANGES = [flip, flip_in_a_header, truncate, cut_out, insert, twice, record_twice, reorder, drop_record, replace,
           nothing, splits]


class Sink(Notes, asyncio.Protocol):
    def data_received(self, data):
        self.received += data

    def eof_received(self):
        pass


class BufferedSink(Buffered):
    def buffer_updated(self, nbytes):
        self.received += self.buffer[:nbytes]

    def eof_received(self):
        pass


def flights(far):
    """The far end's flights one after the other, as a generator; what to do next is sent to it by calling next."""
    while far.tls.version() is None or not getattr(far, "shaken", False):
        try:
            far.tls.do_handshake()
            far.shaken = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            yield far.outgoing.read()
            return
        yield far.outgoing.read()
    for part in (PAYLOAD[:100], PAYLOAD[100:20000], PAYLOAD[20000:]):
        far.tls.write(part)
        yield far.outgoing.read()
    with contextlib.suppress(ssl.SSLError):
        far.tls.unwrap()
    yield far.outgoing.read()


@functools.cache
def recorded(server_side, version):
    """The flights that a far end sent once, to another one of its kind; in clear and encrypted."""
    a, b = Memory(), Memory()
    far = Far(a, context(server_side, version), server_side=server_side)
    near = Far(b, context(not server_side, version), server_side=not server_side)
    found = []
    for data in flights(far):
        found.append(data)
        near.incoming.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            near.tls.do_handshake()
        far.incoming.write(near.outgoing.read())
    return [data for data in found if data]


class Memory:
    """What Far wants of a socket when nothing is to be sent."""

    def setblocking(self, flag):
        pass


class Result:
    def __init__(self):
        self.shaken = self.whole = False
        self.received = 0


async def throw(number, shutdown_timeout=5):
    """One mutant; AssertionError if it did what no peer may do."""
    dice = random.Random(number)
    attacked_server = dice.random() < 0.5
    version = dice.choice([V2, V3])
    change = CHANGES[number % len(CHANGES)]
    live = dice.random() < 0.8
    target = dice.randrange(4 if live and attacked_server else 5)
    protocol = dice.choice([Sink, BufferedSink])()
    result = Result()
    changed = False

    async def send(far, data):
        nonlocal changed
        pieces = [data]
        if data and not changed and target <= 0:
            changed = True
            pieces = change(data, dice)
        for piece in pieces:
            while piece:
                try:
                    piece = piece[far.sock.send(piece):]
                except BlockingIOError:
                    await io_settled(1)
                except OSError:
                    return
            if len(pieces) > 1:
                await io_settled(1)

    async with asyncio.timeout(LIMIT):
        async with pair(protocol, server_side=attacked_server, near=context(attacked_server, version),
                        far=context(not attacked_server, version), ssl_handshake_timeout=10,
                        ssl_shutdown_timeout=shutdown_timeout) as both:
            far = both.far
            if live:
                for data in flights(far):
                    if data:
                        await send(far, data)
                        target -= 1
                    await io_settled(1)
                    while far.fetch():
                        pass
                    if far.ended:
                        break
                    if not data and not getattr(far, "shaken", False) and changed:
                        break  # each waits for the other
            else:
                for data in recorded(not attacked_server, version):
                    await send(far, data)
                    target -= 1
                    await io_settled(1)
                    while far.fetch():
                        pass
            far.fin()
            # it takes no more than this for the near end to come to an end of its own
            making = both.making
            await asyncio.wait([making])
            exc = making.exception()
            if exc is None:
                await protocol.wait("connection_lost")
                result.shaken = True
            else:
                assert isinstance(exc, (OSError, ValueError)), exc
                assert protocol.names() == [] and not protocol.received, protocol.trace
            del making, exc
            await io_settled(1)
            assert both.ours.fileno() == -1
            names = protocol.names()
            assert names.count("connection_lost") <= 1 and names.count("connection_made") <= 1
            # never anything that was not sent
            got = bytes(protocol.received)
            assert PAYLOAD.startswith(got), (len(got), change.__name__)
            result.received = len(got)
            result.whole = got == PAYLOAD
            if live and change is splits:
                assert result.whole, (len(got), protocol.trace)
            protocol.transport = None
    return result


async def throw_all(numbers):
    """(how many finished the handshake, how many delivered something, how many everything)."""
    shaken = delivered = whole = 0
    for number in numbers:
        try:
            result = await throw(number)
        except BaseException as exc:
            exc.add_note(f"mutant {number}")
            raise
        shaken += result.shaken
        delivered += result.received > 0
        whole += result.whole
    return shaken, delivered, whole
