"""Connections with TLS to test with.

The far end is Python's own ssl module on a bare socket, worked by hand and within the loop under
test (`Far`): each flight of it can be held back, cut or replaced, and nothing needs a thread.
The certificates in tests/tls/certs are made by the script there.
"""

import asyncio
import contextlib
import os
import re
import socket
import ssl
import struct

from support import FASTLOOP, TESTS, net, plain
from support.net import LIMIT, Notes, Stream, io_settled, stream_pair

CERTS = os.path.join(TESTS, "tls", "certs")
NAME = "localhost"  # what the servers' certificates are for

V2, V3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
VERSIONS = {"TLSv1.2": V2, "TLSv1.3": V3}

ALERT, HANDSHAKE, DATA, CHANGE = 21, 22, 23, 20  # types of records


def cert(name):
    return os.path.join(CERTS, name + ".pem")


def _limit(context, version):
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def server_context(key="server", *, version=None, clients=None, alpn=None):
    """`clients` is the authority whose clients are let in; without one, nobody is asked who he is."""
    context = _limit(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), version)
    context.load_cert_chain(cert(key))
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cert(clients))
    if alpn is not None:
        context.set_alpn_protocols(alpn)
    return context


def client_context(trust="ca", *, version=None, key=None, alpn=None):
    """`trust` is the authority whose servers are believed; None believes everybody."""
    context = _limit(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), version)
    if trust is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(cert(trust))
    if key is not None:
        context.load_cert_chain(cert(key))
    if alpn is not None:
        context.set_alpn_protocols(alpn)
    return context


# The far end

class Ended(Exception):
    """The other side ended the connection while more was awaited; how is the argument."""


class Far:
    """One end of a TLS connection on a bare socket.

    What the other side sent is looked at only when a method asks.  `ended` says how it went, as
    far as that is known: "close_notify", "FIN", "reset" or the name of an SSLError's reason.
    """

    def __init__(self, sock, context, *, server_side=False, name=NAME, session=None):
        sock.setblocking(False)
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=server_side,
                                    server_hostname=None if server_side else name, session=session)
        self.unsent = bytearray()
        self.heard = bytearray()  # all that came, encrypted
        self.plain = bytearray()
        self.ended = None

    # without waiting

    def flush(self):
        """Send what the socket takes; whether nothing is left."""
        self.unsent += self.outgoing.read()
        while self.unsent:
            try:
                count = self.sock.send(self.unsent)
            except BlockingIOError:
                return False
            except OSError:
                self.unsent.clear()
                break
            del self.unsent[:count]
        return True

    def fetch(self, limit=1 << 18):
        """Take what the socket has; how many bytes came."""
        try:
            data = self.sock.recv(limit)
        except BlockingIOError:
            return 0
        except OSError:
            self.ended = self.ended or "reset"
            return 0
        if data:
            self.heard += data
            self.incoming.write(data)
        else:
            self.ended = self.ended or "FIN"
        return len(data)

    def decrypt(self):
        """What came goes to `plain`, as far as it can be read."""
        while True:
            try:
                data = self.tls.read(1 << 16)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                self.ended = "close_notify"
                break
            except ssl.SSLError as exc:
                # the alert that says so is still to be sent
                self.ended = self.ended or exc.reason or type(exc).__name__
                break
            if not data:
                self.ended = "close_notify"
                break
            self.plain += data
        self.flush()

    def look(self):
        """Take and read what is there now; the plain text so far."""
        while self.fetch():
            pass
        self.decrypt()
        return bytes(self.plain)

    def encrypted(self, data):
        """The records that carry `data`; they are not sent."""
        self.unsent += self.outgoing.read()
        self.tls.write(data)
        return self.outgoing.read()

    def hello(self):
        """The first flight, not sent."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()

    def goodbye(self):
        """Send close_notify; what came before it and was not read stays in `plain`."""
        self.decrypt()
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        self.flush()

    def fin(self):
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def close(self):
        self.sock.close()

    # with it

    async def moved(self):
        """Wait until the socket has something, or takes more if there is more."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        fd = self.sock.fileno()

        def wake():
            if not done.done():
                done.set_result(None)
        loop.add_reader(fd, wake)
        if not self.flush():
            loop.add_writer(fd, wake)
        try:
            async with asyncio.timeout(LIMIT):
                await done
        finally:
            loop.remove_reader(fd)
            loop.remove_writer(fd)
        self.flush()
        return self.fetch()

    async def handshake(self):
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.flush()
                if self.ended:
                    raise Ended(self.ended) from None
                await self.moved()
            except ssl.SSLError:
                self.flush()  # the alert
                raise
        self.flush()

    async def send(self, data):
        """Send `data`, all of it; meanwhile what comes is read."""
        self.tls.write(data)
        while not self.flush():
            await self.moved()
            self.decrypt()

    async def take(self, count):
        """Exactly `count` bytes of plain text, fewer at the end."""
        self.decrypt()
        while len(self.plain) < count and not self.ended:
            await self.moved()
            self.decrypt()
        found = bytes(self.plain[:count])
        del self.plain[:count]
        return found

    async def take_all(self):
        return await self.take(1 << 40)

    async def finish(self):
        """Answer close_notify with close_notify, and wait for FIN; how both came."""
        await self.take_all()
        first = self.ended
        if first == "close_notify":
            self.goodbye()
        self.ended = None
        while self.ended is None:
            await self.moved()
        return first, self.ended


def records(data):
    """The types and whole bytes of the records in `data`; a part of one at the end is left out."""
    found = []
    while len(data) >= 5:
        size = 5 + struct.unpack(">H", data[3:5])[0]
        if len(data) < size:
            break
        found.append((data[0], bytes(data[:size])))
        data = data[size:]
    return found


# The near end

class Buffered(net.Buffered):
    """Its buffer is a memoryview: asyncio reads into a copy of a bytearray what the second record brings."""

    def __init__(self, on=None, trace=None, size=65536):
        super().__init__(on, trace, size)
        self.buffer = memoryview(self.buffer)


def wrapping(protocol, sock, context, server_side, **keywords):
    """The coroutine that puts TLS of the running loop on our end of a pair."""
    loop = asyncio.get_running_loop()
    if server_side:
        return loop.connect_accepted_socket(lambda: protocol, sock, ssl=context, **keywords)
    keywords.setdefault("server_hostname", NAME)
    return loop.create_connection(lambda: protocol, sock=sock, ssl=context, **keywords)


class Pair:
    """A near end under test and a far end by hand, the handshake not begun; `ends` closes both."""

    def __init__(self, protocol=None, *, server_side=True, kind="unix", buffers=None, near=None, far=None,
                 name=NAME, session=None, **keywords):
        self.protocol = Stream() if protocol is None else protocol
        self.ours, peer = stream_pair(kind, buffers)
        near = near or (server_context() if server_side else client_context())
        far = far or (client_context() if server_side else server_context())
        self.far = Far(peer, far, server_side=not server_side, name=name, session=session)
        self.making = asyncio.ensure_future(wrapping(self.protocol, self.ours, near, server_side, **keywords))
        self.transport = None

    async def handshake(self):
        try:
            await self.far.handshake()
        finally:
            # a near end that cannot go on says so itself
            if not self.making.done() and self.far.ended is None:
                await io_settled(1)
        async with asyncio.timeout(LIMIT):
            self.transport, _ = await self.making
        return self.transport

    async def end(self):
        if not self.making.done():
            self.making.cancel()
            await asyncio.wait([self.making])
        if not self.making.cancelled() and self.making.exception() is None:
            transport = self.making.result()[0]
            if not getattr(self.protocol, "lost", False):
                transport.abort()
        del self.making
        self.transport = None
        await io_settled(2)
        self.far.close()
        self.ours.close()


@contextlib.asynccontextmanager
async def pair(protocol=None, **keywords):
    """A Pair, ended after the block; nothing has been done with it."""
    both = Pair(protocol, **keywords)
    try:
        yield both
    finally:
        await both.end()


@contextlib.asynccontextmanager
async def secured(protocol=None, **keywords):
    """(transport, far end) after the handshake; both are closed after the block."""
    async with pair(protocol, **keywords) as both:
        await both.handshake()
        yield both.transport, both.far


# asyncio as it should be

def _own():
    async def probe():
        async with secured() as (transport, _):
            return not type(transport).__module__.startswith("asyncio")
    return FASTLOOP.run(probe())


_is_own = _own()


def better(impl):
    """Must `impl` behave better here than asyncio does?

    True for fastloop as soon as its TLS is its own; while it is asyncio's, so are its faults.
    """
    return impl.is_fastloop and _is_own


# Texts without classes, addresses and positions in source files

_OBJECT = re.compile(r"<[^<>]*(<[^<>]*>[^<>]*)*>")
_SOURCE = re.compile(r" \(_ssl\.c:\d+\)")


def bare(text):
    """A text of asyncio's or of OpenSSL's without what names a class, an object or a line of C."""
    return _SOURCE.sub("", _OBJECT.sub("<>", plain(str(text))))


def error(exc):
    """An exception as a value that two runs can be compared by."""
    if exc is None:
        return None
    return [type(exc).__name__, bare(exc)]


async def result_of(awaitable):
    """What came of an awaitable: "done", or the exception; that nothing comes of it is a failure."""
    limit = asyncio.timeout(LIMIT)
    try:
        async with limit:
            await awaitable
    except Exception as exc:
        assert not limit.expired(), "it hangs"
        return error(exc)
    return "done"


async def lost(protocol):
    """Wait for connection_lost()."""
    assert isinstance(protocol, Notes)
    await protocol.wait("connection_lost")
