"""What a review found: datagrams, pipes, sock_* and lingering watches."""

import asyncio
import contextlib
import errno
import os
import socket
import time
import types

import pytest

from support import FASTLOOP, PY, same, same_child
from support.net import Datagrams, datagram_pair, free_port, io_settled, stream_pair


async def until(condition, limit=2.0):
    """Whether the condition came true in time."""
    end = time.monotonic() + limit
    while not condition() and time.monotonic() < end:
        await asyncio.sleep(0.005)
    return bool(condition())


async def cpu_while_asleep(seconds=0.4):
    """Whether the processor was busy though nobody had anything to do."""
    before = time.process_time()
    await asyncio.sleep(seconds)
    return time.process_time() - before > seconds / 2


async def wait_once(loop, ours, peer):
    """A sock_recv that waited, was woken, and is cancelled in the same turn by who reads in its place.

    That leaves a lingering watch: no poll finds the data once more.  With more than 256 sockets ready at once any
    sock_recv does.
    """
    task = loop.create_task(loop.sock_recv(ours, 10))
    a, b = socket.socketpair()

    def control():
        loop.remove_reader(a)
        with contextlib.suppress(BlockingIOError):  # asyncio's own callback was there before
            ours.recv(10)
        task.cancel()
    loop.add_reader(a, control)
    await io_settled(3)
    peer.send(b"first")
    b.send(b"x")
    await asyncio.wait([task])
    await io_settled(3)
    a.close()
    b.close()


# Lingering watches

@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.parametrize("how", ["dup", "send_fds", "fork"])
def test_a_closed_socket_that_lives_on_elsewhere_costs_nothing(how):
    """Its description stays in the poller when only another descriptor keeps it open."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            ours, peer = stream_pair("unix")
            with peer:
                await wait_once(loop, ours, peer)
                pid = None
                if how == "dup":
                    other = [os.dup(ours.fileno())]
                elif how == "send_fds":
                    a, b = socket.socketpair()
                    socket.send_fds(a, [b"x"], [ours.fileno()])
                    other = socket.recv_fds(b, 1, 1)[1]
                    a.close()
                    b.close()
                else:
                    other = []
                    pid = os.fork()
                    if not pid:
                        time.sleep(2)
                        os._exit(0)
                ours.close()
                peer.send(b"for whoever has it now")
                busy = await cpu_while_asleep()
                for fd in other:
                    os.close(fd)
                if pid:
                    os.kill(pid, 9)
                    os.waitpid(pid, 0)
                return busy
        return impl.run(main())
    assert same(body) is False


def test_a_number_that_is_used_again_is_not_woken_for_the_old_file():
    """Worse: the stale event goes to the new socket of that number, again and again."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            ours, peer = stream_pair("unix")
            await wait_once(loop, ours, peer)
            number = ours.fileno()
            kept = os.dup(number)
            ours.close()
            new, new_peer = stream_pair("unix")
            while new.fileno() != number:
                assert new.fileno() > number
                os.dup2(new.fileno(), number)
                new2 = socket.socket(fileno=number)
                new.close()
                new = new2
                new.setblocking(False)
            task = loop.create_task(loop.sock_recv(new, 10))
            await io_settled(3)
            peer.send(b"stale")
            busy = await cpu_while_asleep()
            new_peer.send(b"new")
            found = await asyncio.wait_for(task, 5)
            os.close(kept)
            for sock in (peer, new, new_peer):
                sock.close()
            return busy, found
        return impl.run(main())
    assert same(body) == [False, b"new"]


def test_dup2_over_a_socket_that_was_waited_for():
    """The very same socket object, but another file behind its number."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            ours, peer = stream_pair("unix")
            new, new_peer = stream_pair("unix")
            with ours, peer, new, new_peer:
                await wait_once(loop, ours, peer)
                os.dup2(new.fileno(), ours.fileno())
                task = loop.create_task(loop.sock_recv(ours, 10))
                await io_settled(3)
                new_peer.send(b"second")
                try:
                    return await asyncio.wait_for(task, 1)
                except asyncio.TimeoutError:
                    return "never woken"
        return impl.run(main())
    assert same(body) == b"second"


def test_a_socket_object_made_again():
    """sock.__init__ gives the object a new descriptor, often of the same number."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            ours, peer = stream_pair("unix")
            with peer:
                await wait_once(loop, ours, peer)
                number = ours.fileno()
                ours.close()
                new, new_peer = socket.socketpair()
                fd = new.detach()
                if fd != number:
                    os.dup2(fd, number)
                    os.close(fd)
                ours.__init__(fileno=number)
                ours.setblocking(False)
                task = loop.create_task(loop.sock_recv(ours, 10))
                await io_settled(3)
                new_peer.send(b"second")
                try:
                    return await asyncio.wait_for(task, 1)
                except asyncio.TimeoutError:
                    return "never woken"
                finally:
                    ours.close()
                    new_peer.close()
        return impl.run(main())
    assert same(body) == b"second"


# SockOp as a coroutine

def test_awaited_by_two_tasks():
    """The second one fails, and the first gets its data."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            ours, peer = stream_pair("unix")
            with ours, peer:
                op = loop.sock_recv(ours, 10)

                async def wait():
                    return await op
                first, second = loop.create_task(wait()), loop.create_task(wait())
                await io_settled(3)
                failed = type(second.exception()).__name__ if second.done() else None
                peer.send(b"data")
                try:
                    return failed, await asyncio.wait_for(first, 1)
                except asyncio.TimeoutError:
                    return failed, "never woken"
        return impl.run(main())
    assert same(body) == ["RuntimeError", b"data"]


def test_yield_from():
    """In a generator-based coroutine."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            ours, peer = stream_pair("unix")
            with ours, peer:
                @types.coroutine
                def old():
                    return (yield from loop.sock_recv(ours, 10))
                peer.send(b"data")
                return await old()
        return impl.run(main())
    assert same(body) == b"data"


CLOSED_WITHIN = """
import asyncio, socket

class Sock(socket.socket):
    ops = []
    where = {where!r}
    def act(self, name):
        if name == self.where and self.ops:
            try:
                self.ops.pop().close()
            except ValueError:
                pass
    def fileno(self):
        self.act("fileno")
        return super().fileno()
    def gettimeout(self):
        self.act("gettimeout")
        return super().gettimeout()
    def recv(self, n):
        self.act("recv")
        return super().recv(n)

async def main():
    loop = asyncio.get_running_loop()
    loop.set_debug({debug})
    a, b = socket.socketpair()
    ours = Sock(fileno=a.detach())
    ours.setblocking(False)
    op = loop.sock_recv(ours, 10)
    Sock.ops.append(op)
    task = loop.create_task(op)
    for _ in range(5):
        await asyncio.sleep(0)
    b.send(b"x")
    for _ in range(5):
        await asyncio.sleep(0)
    print("alive")
    task.cancel()

impl.run(main())
"""


@pytest.mark.parametrize("where, debug", [("fileno", False), ("gettimeout", True), ("recv", False)])
def test_closed_by_its_own_socket(where, debug):
    """A method of the user's socket closes the operation that calls it: no crash."""
    same_child(CLOSED_WITHIN.format(where=where, debug=debug), flags=("-W", "ignore"))


BUFFER_CLOSES = """
import asyncio, socket

class Data:
    def __buffer__(self, flags):
        if ops:
            try:
                ops.pop().close()
            except ValueError:
                pass
        return memoryview(bytearray(10))

ops = []

async def main():
    loop = asyncio.get_running_loop()
    a, b = socket.socketpair()
    a.setblocking(False)
    op = loop.{method}(a, Data())
    ops.append(op)
    task = loop.create_task(op)
    for _ in range(5):
        await asyncio.sleep(0)
    b.send(b"x")
    for _ in range(5):
        await asyncio.sleep(0)
    print("alive")
    task.cancel()

impl.run(main())
"""


@pytest.mark.skipif(PY < (3, 12), reason="no __buffer__")
@pytest.mark.parametrize("method", ["sock_sendall", "sock_recv_into"])
def test_closed_by_its_own_buffer(method):
    same_child(BUFFER_CLOSES.format(method=method), flags=("-W", "ignore"))


@pytest.mark.skipif(PY < (3, 12), reason="no __buffer__")
def test_recv_into_a_buffer_that_closes_the_socket():
    """The descriptor is asked for before the buffer is: it may be another connection's by then."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            ours, peer = stream_pair("unix")
            other, other_peer = stream_pair("unix")
            other_peer.send(b"secret")
            found = bytearray(10)

            class Data:
                def __buffer__(self, flags):
                    if ours.fileno() >= 0:
                        number = ours.fileno()
                        ours.close()
                        os.dup2(other.fileno(), number)  # another thread's accept(), say
                        numbers.append(number)
                    return memoryview(found)
            numbers = []
            with peer, other, other_peer:
                try:
                    await asyncio.wait_for(loop.sock_recv_into(ours, Data()), 1)
                except OSError as exc:
                    failed = exc.errno
                else:
                    failed = None
                os.close(numbers[0])
            return failed, bytes(found)
        return impl.run(main())
    # Not on asyncio: there socket.recv_into does the same.
    assert body(FASTLOOP) == (errno.EBADF, bytes(10))


def test_recv_of_a_long_message():
    """Of a socket that keeps messages apart, nothing of what fits is cut off."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            ours, peer = datagram_pair()
            with ours, peer:
                ours.setblocking(False)
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 212992)
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 212992)
                peer.send(bytes(300_000))
                return len(await loop.sock_recv(ours, 400_000))
        return impl.run(main())
    assert same(body) == 300_000


# Datagrams

class Sub(socket.socket):
    """A socket class with its own idea of sending and receiving, as a SOCKS client's."""

    def sendto(self, data, *where):
        return super().sendto(b"wrapped " + data, *where)

    def recvfrom(self, size):
        data, sender = super().recvfrom(size)
        return data.removeprefix(b"wrapped "), sender


def test_overridden_socket_methods():
    """As PySocks does for UDP: create_datagram_endpoint(sock=socksocket)."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            peer.bind(("127.0.0.1", 0))
            peer.settimeout(2)
            sock = Sub(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind(("127.0.0.1", 0))
            with peer:
                transport, protocol = await loop.create_datagram_endpoint(Datagrams, sock=sock)
                transport.sendto(b"there", peer.getsockname())
                await io_settled(3)
                data, sender = peer.recvfrom(100)
                peer.sendto(b"wrapped back", sender)
                await until(lambda: protocol.datagrams)
                transport.close()
                await io_settled(3)
                return data, [each[0] for each in protocol.datagrams]
        return impl.run(main())
    assert same(body) == [b"wrapped there", [b"back"]]


ABORTED_WITHIN = """
import asyncio, socket

class Sock(socket.socket):
    calls = 0
    def sendto(self, data, addr):
        Sock.calls += 1
        if Sock.calls == 1:
            raise BlockingIOError
        transport.{method}()
        {then}

async def main():
    global transport
    loop = asyncio.get_running_loop()
    sock = Sock(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    transport, protocol = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=sock)
    transport.sendto(b"x", ("localhost", sock.getsockname()[1]))
    for _ in range(10):
        await asyncio.sleep(0.001)
    print("alive", transport.is_closing(), transport.get_write_buffer_size())

impl.run(main())
"""


@pytest.mark.parametrize("then", ["return len(data)", "raise OSError"])
@pytest.mark.parametrize("method", ["abort", "_sendto_ready"])
def test_aborted_by_its_own_socket(method, then):
    """sendto() of the user's socket takes away what it is given: no crash."""
    code = ABORTED_WITHIN.format(method=method, then=then)
    if method == "_sendto_ready":
        code = code.replace("transport._sendto_ready()", "Sock.calls == 2 and transport._sendto_ready()")
    same_child(code, flags=("-W", "ignore"))


class Interrupting(Datagrams):
    def datagram_received(self, data, addr):
        super().datagram_received(data, addr)
        if data == b"stop":
            raise KeyboardInterrupt


@pytest.mark.parametrize("paused", [False, True], ids=["batch", "backlog"])
def test_interrupted_amid_a_batch(paused):
    """KeyboardInterrupt out of datagram_received: the loop may run again, and the rest is still there."""
    def body(impl):
        with impl.loop() as loop:
            peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            transport, protocol = loop.run_until_complete(
                loop.create_datagram_endpoint(Interrupting, local_addr=("127.0.0.1", 0)))
            where = transport.get_extra_info("sockname")

            async def warm():
                for n in range(8):
                    peer.sendto(b"warm", where)
                    await until(lambda: len(protocol.datagrams) == n + 1)
            loop.run_until_complete(warm())
            del protocol.datagrams[:]
            if paused:
                class Pausing(Interrupting):
                    def datagram_received(self, data, addr):
                        super().datagram_received(data, addr)
                        if data == b"pause":
                            transport.pause_reading()
                other = Pausing()
                transport.set_protocol(other)
                for data in (b"pause", b"stop", b"one", b"two"):
                    peer.sendto(data, where)
                loop.run_until_complete(until(lambda: other.datagrams))
                protocol = other
                transport.resume_reading()
            else:
                for data in (b"zero", b"stop", b"one", b"two"):
                    peer.sendto(data, where)
            with pytest.raises(KeyboardInterrupt):
                loop.run_until_complete(asyncio.sleep(0.2))
            loop.run_until_complete(until(lambda: len(protocol.datagrams) == 4, 0.5))
            found = [each[0] for each in protocol.datagrams]
            transport.abort()
            loop.run_until_complete(io_settled(3))
            peer.close()
            return found
    assert same(body)[-2:] == [b"one", b"two"]


def test_an_error_that_waits_on_the_socket_is_told():
    """The answer to an earlier datagram, found by the next sending: also if that sends several."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            transport, protocol = await loop.create_datagram_endpoint(
                Datagrams, remote_addr=("127.0.0.1", free_port(type=socket.SOCK_DGRAM)))
            transport.pause_reading()
            transport.sendto(b"first")
            await io_settled(3)
            errors = []
            protocol.error_received = errors.append
            transport.sendto(b"aaaa")
            transport.sendto(b"bbbb")
            await io_settled(3)
            transport.abort()
            await io_settled(3)
            return len(errors) > 0 and type(errors[0]).__name__
        return impl.run(main())
    assert same(body) == "ConnectionRefusedError"


class Raising(Datagrams):
    def error_received(self, exc):
        super().error_received(exc)
        raise ValueError("from error_received")


@pytest.mark.parametrize("method", ["close", "abort"])
def test_closing_closes_though_error_received_raises(method):
    """What close() sends first may fail, and so may the protocol that is told: it closes all the same."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda *_: None)
            transport, protocol = await loop.create_datagram_endpoint(Raising, local_addr=("127.0.0.1", 0))
            try:
                transport.sendto(b"x", ("255.255.255.255", 9))  # EACCES
            except ValueError:
                pass
            raised = None
            try:
                getattr(transport, method)()
            except ValueError as exc:
                raised = str(exc)
            closing = transport.is_closing()
            await io_settled(3)
            lost = protocol.lost
            transport.abort()
            await io_settled(3)
            return raised, closing, lost
        return impl.run(main())
    assert same(body) == [None, True, True]


def test_senders_of_other_families():
    """recvfrom knows more families than IP and unix."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            sock = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 0)
            sock.bind((0, 0))
            transport, protocol = await loop.create_datagram_endpoint(Datagrams, sock=sock)
            # RTM_GETLINK, dump
            transport.sendto(b"\x14\0\0\0\x12\0\x01\x03\x01\0\0\0\0\0\0\0\0\0\0\0", (0, 0))
            await until(lambda: protocol.datagrams)
            transport.close()
            await io_settled(3)
            return protocol.datagrams[0][1]
        return impl.run(main())
    assert same(body) == [0, 0]


def test_what_error_received_sends_leaves_at_once():
    """By another transport: it is held back while the turn's end sends what was held, and then the loop sleeps."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            peer.bind(("127.0.0.1", 0))
            peer.setblocking(False)
            transport, protocol = await loop.create_datagram_endpoint(Datagrams, local_addr=("127.0.0.1", 0))
            other, _ = await loop.create_datagram_endpoint(Datagrams, local_addr=("127.0.0.1", 0))
            await io_settled(3)
            protocol.error_received = lambda exc: other.sendto(b"fallback", peer.getsockname())
            transport.sendto(b"x", ("255.255.255.255", 9))  # EACCES
            found = loop.create_future()

            def look():  # right after the one long sleep
                try:
                    found.set_result(peer.recv(100))
                except BlockingIOError:
                    found.set_result("not yet")
            loop.call_later(0.5, look)
            found = await found
            transport.abort()
            other.abort()
            peer.close()
            await io_settled(3)
            return found
        return impl.run(main())
    assert same(body) == b"fallback"


COLLECTED = """
import socket
async def main(k):
    loop = asyncio.get_running_loop()
    a, b = socket.socketpair()
    a.setblocking(False)
    c, d = socket.socketpair()
    r, w = os.pipe()
    big = os.dup2(r, 900)
    class Trash:
        def __del__(self):
            loop.add_reader(big, print)  # makes loop->watches longer
    gc.collect()
    gc.disable()
    task = loop.create_task(loop.sock_recv(a, 10))
    await settle(3)
    trash = Trash()
    trash.me = trash
    del trash
    def arm():
        loop.remove_reader(c)
        gc.set_threshold(gc.get_count()[0] + k, 0, 0)
        gc.enable()
    loop.add_reader(c, arm)
    d.send(b"x")
    b.send(b"x")
    await task
    gc.disable()
    loop.remove_reader(big)
    os.close(900)
for k in range(12):
    impl.run(main(k))
"""


@pytest.mark.skipif(PY >= (3, 12), reason="there the collector runs between bytecodes only")
def test_collection_within_the_weak_reference():
    """fl_watch_linger allocates one with a pointer into loop->watches at hand.  Needs the sanitizer to show."""
    same_child(COLLECTED, flags=("-W", "ignore"))


# Pipes

class Taking(asyncio.Protocol):
    def __init__(self):
        self.received = []

    def data_received(self, data):
        self.received.append(data)


@pytest.mark.parametrize("kind", ["datagrams", "packets", "packet pipe"])
def test_a_pipe_of_messages(kind):
    """A message that is longer than the buffer at hand is not cut off."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            if kind == "packet pipe":
                r, w = os.pipe2(os.O_DIRECT)
                ours, size = open(r, "rb", 0), 4096
            else:
                type_ = socket.SOCK_DGRAM if kind == "datagrams" else socket.SOCK_SEQPACKET
                ours, far = socket.socketpair(socket.AF_UNIX, type_)
                w, size = far.detach(), 50_000
            transport, protocol = await loop.connect_read_pipe(Taking, ours)
            os.write(w, bytes(size))
            await until(lambda: protocol.received)
            await io_settled(5)
            transport.close()
            os.close(w)
            await io_settled(3)
            return sum(map(len, protocol.received)) - size
        return impl.run(main())
    assert same(body) == 0


def test_a_pipe_that_somebody_made_blocking_again():
    """One read for one event never blocks, whatever others do to the shared file."""
    code = """
import asyncio, os, fcntl
class P(asyncio.Protocol):
    n = 0
    def data_received(self, data):
        self.n += len(data)
async def main():
    loop = asyncio.get_running_loop()
    r, w = os.pipe()
    fcntl.fcntl(w, fcntl.F_SETPIPE_SZ, 1 << 20)
    transport, protocol = await loop.connect_read_pipe(P, open(r, "rb", 0))
    os.set_blocking(r, True)
    for size in (4032, 65472):
        protocol.n = 0
        os.write(w, bytes(size))
        for _ in range(20):
            await asyncio.sleep(0.005)
        print(protocol.n)
    transport.close()
    await asyncio.sleep(0)
    os.close(w)
impl.run(main())
"""
    same_child(code, limit=5)


# Names

def test_a_port_of_strange_digits_is_looked_up_elsewhere():
    """'²'.isdigit(), but libc asks its services for it: not on the loop's thread."""
    import threading

    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            threads = []
            real = socket.getaddrinfo

            def spy(*args, **kwargs):
                threads.append(threading.current_thread() is threading.main_thread())
                return real(*args, **kwargs)
            socket.getaddrinfo = spy
            try:
                for port in ("\u00b2", "4294967295", b"4294967295", -1):
                    try:
                        await loop.getaddrinfo("127.0.0.1", port)
                    except OSError:
                        pass
                    except OverflowError:
                        pass
            finally:
                socket.getaddrinfo = real
            return threads
        return impl.run(main())
    assert same(body) == [False] * 4
