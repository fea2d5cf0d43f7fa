"""Connected sockets, protocols that keep account, and what a process uses up.

Most peers here need no thread: what is done to the other end of a connected pair on the
loopback has happened when the call returns.
"""

import asyncio
import contextlib
import errno
import os
import resource
import socket
import struct
import threading
import time

HOST = "127.0.0.1"


def tcp_pair(sndbuf=None, rcvbuf=None):
    """Two connected TCP sockets; the sizes are those of the first's sending and the second's receiving side."""
    with socket.create_server((HOST, 0)) as listener:
        if rcvbuf is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        first = socket.socket()
        if sndbuf is not None:
            first.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sndbuf)
        first.connect(listener.getsockname())
        second, _ = listener.accept()
    for sock in (first, second):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return first, second


def unix_pair(sndbuf=None, rcvbuf=None):
    first, second = socket.socketpair()
    if sndbuf is not None:
        first.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sndbuf)
    return first, second


def reset(sock):
    """Close a TCP socket so that its peer gets RST, not FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def vanish(sock):
    """Close a TCP socket so that its peer hears nothing; False where that is not allowed."""
    try:
        sock.setsockopt(socket.IPPROTO_TCP, 19, 1)  # TCP_REPAIR
    except OSError:
        return False
    sock.close()
    return True


class Recorder(asyncio.Protocol):
    """Notes what it is told; `lost` is done after connection_lost()."""

    eof_answer = None

    def __init__(self):
        self.transport = None
        self.events = []
        self.data = bytearray()
        self.lost = asyncio.get_running_loop().create_future()
        self.writable = asyncio.Event()
        self.writable.set()

    def connection_made(self, transport):
        self.transport = transport
        self.events.append("made")

    def data_received(self, data):
        self.data += data

    def eof_received(self):
        self.events.append("eof")
        return self.eof_answer

    def pause_writing(self):
        self.events.append("pause")
        self.writable.clear()

    def resume_writing(self):
        self.events.append("resume")
        self.writable.set()

    def connection_lost(self, exc):
        self.events.append(("lost", type(exc).__name__ if exc else None))
        self.writable.set()
        # An exception's traceback would keep the transport alive; its class says enough.
        if not self.lost.done():
            self.lost.set_result(type(exc) if exc else None)


async def attach(sock, factory=Recorder):
    """A transport of the running loop on `sock`; returns the protocol."""
    _, protocol = await asyncio.get_running_loop().create_connection(factory, sock=sock)
    return protocol


async def until(condition, limit=10):
    """Wait until condition() is true; whether it came true in time."""
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.002)
    return True


async def drained(sock):
    """Read a non-blocking socket to its end; everything that came."""
    found = bytearray()
    while True:
        try:
            data = sock.recv(65536)
        except BlockingIOError:
            await asyncio.sleep(0.001)
            continue
        if not data:
            return bytes(found)
        found += data


@contextlib.contextmanager
def in_thread(function, *args):
    """Run function(stop, *args) beside the block; what it raises is raised at the block's end."""
    stop = threading.Event()
    failure = []

    def work():
        try:
            function(stop, *args)
        except BaseException as exc:
            failure.append(exc)
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join()
    if failure:
        raise failure.pop()


class Cpu:
    """How much of the time between start and now this process used, as a share of one processor."""

    def __init__(self):
        self.used = time.process_time()
        self.began = time.monotonic()

    def share(self):
        return (time.process_time() - self.used) / (time.monotonic() - self.began)


def descriptors():
    """How many descriptors are open here."""
    return len(os.listdir("/proc/self/fd")) - 1


def rss():
    """Resident bytes of this process."""
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * resource.getpagesize()


class Fill:
    """Takes every free descriptor up to the process's limit."""

    def __init__(self):
        self.taken = []

    def take(self, leave=0):
        while True:
            try:
                self.taken.append(os.dup(0))
            except OSError as exc:
                if exc.errno != errno.EMFILE:
                    raise
                break
        self.give(leave)

    def give(self, count):
        for _ in range(count):
            os.close(self.taken.pop())

    def close(self):
        self.give(len(self.taken))
