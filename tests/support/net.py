"""Connections to test with: pairs of sockets, protocols that note what they are told, and ways
to wait for what the kernel has done.

The far end of a connection is a bare socket, so that the loop under test is alone with its own
end.  Nothing here sleeps: `io_settled` makes a loop look at its descriptors a few times, and
what was sent over the loopback before it was called has been noticed when it returns.
"""

import asyncio
import contextlib
import os
import re
import socket
import sys
import tempfile
import threading

from support import FASTLOOP, plain

LIMIT = 10  # seconds; nothing here takes a tenth of it

# Where the network misbehaves on purpose (src/os/sockcall.h), one look at the descriptors is not enough.
BAD_NETWORK = bool(os.environ.get("FASTLOOP_DEBUG_NET"))
PATIENCE = 10 if BAD_NETWORK else 1

KINDS = ("tcp4", "tcp6", "unix")
FAMILIES = {"tcp4": socket.AF_INET, "tcp6": socket.AF_INET6, "unix": socket.AF_UNIX}
HOSTS = {"tcp4": "127.0.0.1", "tcp6": "::1"}


def _is_own(what):
    """Has fastloop its own transports (or sock_ methods) of this sort?"""
    if what == "sock":
        return FASTLOOP.Loop.sock_recv is not asyncio.SelectorEventLoop.sock_recv
    a, b = socket.socketpair(type=socket.SOCK_DGRAM if what == "datagram" else socket.SOCK_STREAM)
    loop = FASTLOOP.new_loop()
    try:
        if what == "stream":
            making = loop.connect_accepted_socket(asyncio.Protocol, a)
        elif what == "datagram":
            making = loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=a)
        elif what == "read_pipe":
            making = loop.connect_read_pipe(asyncio.Protocol, a)
        else:
            making = loop.connect_write_pipe(asyncio.Protocol, a)
        transport, _ = loop.run_until_complete(making)
        own = not type(transport).__module__.startswith("asyncio")
        transport.close()
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(asyncio.sleep(0))
        del transport
        return own
    finally:
        loop.close()
        a.close()
        b.close()


_own = {what: _is_own(what) for what in ("stream", "datagram", "read_pipe", "write_pipe", "sock")}


def better(impl, what="stream", since=None):
    """Must `impl` behave better here than asyncio does in its older releases?

    True for fastloop as soon as it has its own implementation of `what`; true for asyncio from
    the release `since` on, or never.
    """
    if since is not None and sys.version_info >= since:
        return True
    return impl.is_fastloop and _own[what]


# Pairs of sockets

def stream_pair(kind="unix", buffers=None):
    """(ours, the peer's): connected, neither blocking.

    `buffers` makes the kernel's buffers on our way out as small as it allows.
    """
    if kind == "unix":
        ours, peer = socket.socketpair()
        if buffers:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
    else:
        family = FAMILIES[kind]
        with socket.socket(family) as listener:
            listener.bind((HOSTS[kind], 0))
            if buffers:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
            listener.listen(1)
            peer = socket.socket(family)
            if buffers:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
            peer.connect(listener.getsockname())
            ours, _ = listener.accept()
    ours.setblocking(False)
    peer.setblocking(False)
    return ours, peer


def datagram_pair(buffers=None):
    """(ours, the peer's): unix datagram sockets with names, connected with each other."""
    ours, peer = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in "ab")
    for sock in (ours, peer):
        sock.setblocking(False)
        sock.bind("")  # the kernel finds an abstract name
    ours.connect(peer.getsockname())
    peer.connect(ours.getsockname())
    if buffers:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
    return ours, peer


def reset(sock):
    """Close a TCP socket so that its peer gets a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


def free_port(kind="tcp4", type=socket.SOCK_STREAM):
    """A port that nobody listens on (now)."""
    with socket.socket(FAMILIES[kind], type) as sock:
        sock.bind((HOSTS[kind], 0))
        return sock.getsockname()[1]


@contextlib.contextmanager
def folder():
    """A folder for unix sockets: a short path."""
    with tempfile.TemporaryDirectory(prefix="fl") as path:
        yield path


# Waiting

async def io_settled(rounds=3):
    """Let the running loop look at its descriptors `rounds` times and run what that brings."""
    loop = asyncio.get_running_loop()
    r, w = os.pipe()
    try:
        for _ in range(rounds * PATIENCE):
            rung = loop.create_future()
            loop.add_reader(r, lambda: rung.done() or rung.set_result(None))
            os.write(w, b"x")
            await rung
            os.read(r, 1)
            await asyncio.sleep(0)
        loop.remove_reader(r)
    finally:
        os.close(r)
        os.close(w)


def settle_loop(loop, rounds=3):
    """io_settled for a loop that is not running."""
    loop.run_until_complete(io_settled(rounds))


async def readable(sock):
    """Wait until a bare socket (or descriptor) has something to read."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    fd = sock if isinstance(sock, int) else sock.fileno()
    loop.add_reader(fd, lambda: done.done() or done.set_result(None))
    try:
        async with asyncio.timeout(LIMIT):
            await done
    finally:
        loop.remove_reader(fd)


async def take(sock, count):
    """Exactly `count` bytes (fewer at the end) from the bare socket of the far end."""
    got = bytearray()
    while len(got) < count:
        try:
            data = sock.recv(min(count - len(got), 1 << 20))
        except BlockingIOError:
            await readable(sock)
            continue
        except ConnectionResetError:
            break
        if not data:
            break
        got += data
    return bytes(got)


async def take_all(sock):
    """All bytes from the bare socket of the far end, to its end."""
    return await take(sock, 1 << 40)


def take_now(sock, count=1 << 30):
    """What the kernel has for the bare socket at this moment."""
    got = bytearray()
    while len(got) < count:
        try:
            data = sock.recv(min(count - len(got), 1 << 20))
        except (BlockingIOError, ConnectionResetError):
            break
        if not data:
            break
        got += data
    return bytes(got)


def put(transport, method, data):
    """Write `data` with the method of that name: "write" or "writelines"."""
    if method == "write":
        transport.write(data)
    else:
        half = len(data) // 2
        transport.writelines([data[:half], data[half:]])


async def fill(transport, chunk=b"f" * 65536, limit=1 << 26):
    """Write until the kernel takes no more; returns how many bytes were written."""
    sent = 0
    while transport.get_write_buffer_size() == 0:
        transport.write(chunk)
        sent += len(chunk)
        assert sent < limit
    return sent


# Protocols

class Notes:
    """Mixed into a protocol: writes down each callback, and lets tests wait for one.

    `trace` holds tuples.  `on` maps the name of a callback to a function that is called with the
    protocol and the callback's arguments after it was noted; what it returns or raises, the
    callback does.
    """

    def __init__(self, on=None, trace=None):
        self.trace = [] if trace is None else trace
        self.on = dict(on or {})
        self.transport = None
        self.received = bytearray()
        self.datagrams = []
        self.lost = False
        self._waiters = []

    def note(self, name, *args):
        self.trace.append((name, *args))
        self._look()

    def _look(self):
        for waiter in self._waiters[:]:
            predicate, future = waiter
            if future.done():
                self._waiters.remove(waiter)
            elif predicate():
                self._waiters.remove(waiter)
                future.set_result(None)

    async def until(self, predicate):
        """Wait until predicate() holds; it is asked after each callback."""
        if predicate():
            return
        future = asyncio.get_running_loop().create_future()
        self._waiters.append((predicate, future))
        async with asyncio.timeout(LIMIT):
            await future

    async def wait(self, name, count=1):
        """Wait until the callback `name` has been called `count` times."""
        await self.until(lambda: self.names().count(name) >= count)

    def names(self):
        return [event[0] for event in self.trace]

    def _act(self, name, *args):
        action = self.on.get(name)
        if action is not None:
            return action(self, *args)

    # what all protocols have

    def connection_made(self, transport):
        self.transport = transport
        self.note("connection_made")
        self._act("connection_made", transport)

    def connection_lost(self, exc):
        self.lost = True
        self.note("connection_lost", None if exc is None else type(exc).__name__)
        self._act("connection_lost", exc)

    def pause_writing(self):
        self.note("pause_writing")
        self._act("pause_writing")

    def resume_writing(self):
        self.note("resume_writing")
        self._act("resume_writing")


class _Streaming(Notes):
    def _got(self, name, data):
        self.received += data
        # How the kernel cuts the stream into pieces means nothing.
        if self.trace and self.trace[-1][0] == name and name not in self.on:
            self.trace[-1] = (name, self.trace[-1][1] + data)
            self._look()
        else:
            self.note(name, data)

    def eof_received(self):
        self.note("eof_received")
        return self._act("eof_received")


class Stream(_Streaming, asyncio.Protocol):
    """A noting asyncio.Protocol."""

    def data_received(self, data):
        assert type(data) is bytes
        self._got("data_received", data)
        self._act("data_received", data)


class Buffered(_Streaming, asyncio.BufferedProtocol):
    """A noting asyncio.BufferedProtocol; get_buffer itself is noted only if `on` has it."""

    def __init__(self, on=None, trace=None, size=65536):
        super().__init__(on, trace)
        self.buffer = bytearray(size)

    def get_buffer(self, sizehint):
        if "get_buffer" in self.on:
            self.note("get_buffer", sizehint)
            found = self._act("get_buffer", sizehint)
            if found is not None:
                return found
        return self.buffer

    def buffer_updated(self, nbytes):
        self._got("buffer_updated", bytes(self.buffer[:nbytes]))
        self._act("buffer_updated", nbytes)


class Datagrams(Notes, asyncio.DatagramProtocol):
    """A noting asyncio.DatagramProtocol."""

    def datagram_received(self, data, addr):
        self.datagrams.append((data, addr))
        self.note("datagram_received", data)
        self._act("datagram_received", data, addr)

    def error_received(self, exc):
        self.note("error_received", type(exc).__name__)
        self._act("error_received", exc)


async def attach(protocol, sock):
    """The transport of the running loop for our end of a stream pair."""
    loop = asyncio.get_running_loop()
    transport, found = await loop.connect_accepted_socket(lambda: protocol, sock)
    assert found is protocol
    return transport


@contextlib.asynccontextmanager
async def connected(protocol, kind="unix", buffers=None):
    """(transport, the peer's bare socket); both closed at the end."""
    ours, peer = stream_pair(kind, buffers)
    transport = await attach(protocol, ours)
    try:
        yield transport, peer
    finally:
        if not getattr(protocol, "lost", False):
            transport.abort()
        peer.close()
        if isinstance(protocol, Notes):
            await io_settled(2)
        else:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        # The transport's socket is gone, whatever its protocol did.
        ours.close()


class Peer(threading.Thread):
    """Runs a function on a bare socket in a thread; `join` returns its result."""

    def __init__(self, function, *args):
        super().__init__(daemon=True)
        self._job = function, args
        self.result = None
        self.error = None
        self.start()

    def run(self):
        function, args = self._job
        try:
            self.result = function(*args)
        except BaseException as exc:
            self.error = exc

    def finish(self):
        self.join(LIMIT)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error
        return self.result


# What the exception handler was told

_CALLBACK = re.compile(r"^(Exception in callback) .*", re.DOTALL)


class Reports:
    """An exception handler that keeps (message, keys, exception) of each report."""

    def __init__(self, loop):
        self.list = []
        loop.set_exception_handler(self)

    def __call__(self, loop, context):
        message = _CALLBACK.sub(r"\1", plain(context["message"]))
        exc = context.get("exception")
        self.list.append((message, sorted(context), exc and (type(exc).__name__, str(exc))))

    def take(self):
        found, self.list = self.list, []
        return found


_CLASS = re.compile(r"\b(_Selector|_Unix)?(Socket|Datagram|Stream|(Unix)?(Read|Write)Pipe)Transport\b")


def neutral(text):
    """A text without names of transport classes and numbers of descriptors."""
    text = _CLASS.sub("TRANSPORT", plain(str(text)))
    return re.sub(r"\bfd=\d+", "fd=N", text)
