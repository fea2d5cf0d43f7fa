"""Descriptor numbers that go to somebody else: what was meant for the old never reaches the new."""

import asyncio
import os
import random
import socket

import pytest

from support import settle, spin
from support.peers import HOST, Recorder, attach, descriptors, drained, reset, tcp_pair, unix_pair, until


def number_taken(number):
    """A connected pair whose first socket has just this descriptor."""
    first, second = unix_pair()
    if first.fileno() != number:
        assert second.fileno() == number, "the number is not free"
        first, second = second, first
    return first, second


# Plain descriptors

@pytest.mark.parametrize("removed", [True, False], ids=["removed", "forgotten"])
def test_reader_replaced_while_its_event_is_due(impl, removed):
    """Two descriptors are ready at once; the first one's callback gives the second's number away."""
    if not removed and not impl.is_fastloop:
        pytest.skip("asyncio still runs the callback of a descriptor that was closed without remove_reader()")
    with impl.loop() as loop:
        pairs = [unix_pair(), unix_pair()]
        seen = []
        fresh = []

        def ready(index):
            seen.append(("old", index))
            ours, _ = pairs[index]
            other = pairs[1 - index][0]
            number = other.fileno()
            if removed:
                loop.remove_reader(other)
            other.close()
            fresh.extend(number_taken(number))
            loop.add_reader(fresh[0], seen.append, "new")
            loop.remove_reader(ours)
        for index, (ours, theirs) in enumerate(pairs):
            theirs.send(b"x")
            loop.add_reader(ours, ready, index)
        spin(loop, 5)
        assert len(seen) == 1 and seen[0][0] == "old"
        fresh[1].send(b"y")
        spin(loop, 5)
        assert "new" in seen
        loop.remove_reader(fresh[0])
        for sock in [*fresh, *pairs[0], *pairs[1]]:
            sock.close()


def test_writer_does_not_outlive_its_number(impl):
    with impl.loop() as loop:
        first, peer = unix_pair()
        number = first.fileno()
        seen = []
        loop.add_writer(first, seen.append, "old")
        loop.remove_writer(first)
        first.close()
        second, other = number_taken(number)
        loop.add_reader(second, seen.append, "new")
        spin(loop, 5)
        assert seen == []
        loop.remove_reader(second)
        for sock in (peer, second, other):
            sock.close()


def test_cancelled_connect_lets_go_of_the_number(impl):
    """sock_connect() cancelled: its writer is gone before anyone else can have the number."""
    async def main():
        loop = asyncio.get_running_loop()
        with socket.create_server((HOST, 0), backlog=0) as listener:
            address = listener.getsockname()
            full = [socket.socket() for _ in range(4)]  # the backlog is full: the rest has to wait
            for sock in full:
                sock.setblocking(False)
                sock.connect_ex(address)
            sock = socket.socket()
            sock.setblocking(False)
            connecting = loop.create_task(loop.sock_connect(sock, address))
            await asyncio.sleep(0.01)
            assert not connecting.done()
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            number = sock.fileno()
            sock.close()
            second, other = number_taken(number)
            called = []
            loop.add_reader(second, called.append, 1)
            await asyncio.sleep(0.01)
            assert called == []
            loop.remove_reader(second)
            for sock in (*full, second, other):
                sock.close()
    impl.run(main())


# Transports

def test_number_taken_in_the_callback_that_closes(impl):
    """A transport is aborted and closed, and its number connected anew, while it has an event due."""
    async def main():
        loop = asyncio.get_running_loop()
        pairs = [unix_pair(), unix_pair()]
        done = loop.create_future()

        class Greedy(Recorder):
            def data_received(self, data):
                super().data_received(data)
                if not done.done():
                    victim = next(p for p in protocols if p is not self)
                    victim.transport.abort()
                    done.set_result(victim)
        protocols = [await attach(ours, Greedy) for ours, _ in pairs]
        numbers = [ours.fileno() for ours, _ in pairs]
        for _, theirs in pairs:
            theirs.send(b"for the old one")
        victim = await done
        await victim.lost
        index = protocols.index(victim)
        assert pairs[index][0].fileno() == -1
        ours, theirs = number_taken(numbers[index])
        fresh = await attach(ours)
        await asyncio.sleep(0.01)
        assert fresh.data == b"" and fresh.events == ["made"]
        theirs.send(b"for the new one")
        assert await until(lambda: fresh.data)
        assert bytes(fresh.data) == b"for the new one"
        assert victim.data == b""
        fresh.transport.abort()
        protocols[1 - index].transport.abort()
        await settle(5)
        for sock in (theirs, pairs[0][1], pairs[1][1]):
            sock.close()
    impl.run(main())


def test_new_connection_in_connection_lost(impl):
    """connection_lost() opens the next connection, a hundred times in a row."""
    async def main():
        loop = asyncio.get_running_loop()
        finished = loop.create_future()
        peers = []

        class Next(Recorder):
            def __init__(self, number):
                super().__init__()
                self.number = number

            def data_received(self, data):
                super().data_received(data)
                self.transport.close() if self.number % 2 else self.transport.abort()

            def connection_lost(self, exc):
                super().connection_lost(exc)
                assert self.data == b"%d" % self.number
                if self.number == 100:
                    finished.set_result(None)
                else:
                    tasks.append(loop.create_task(begin(self.number + 1)))
        tasks = []

        async def begin(number):
            ours, theirs = unix_pair()
            theirs.send(b"%d" % number)
            peers.append(theirs)
            await attach(ours, lambda: Next(number))
        await begin(1)
        await asyncio.wait_for(finished, 10)
        await asyncio.gather(*tasks)
        await settle(3)
        for sock in peers:
            sock.close()
    impl.run(main())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_churn_mixes_nothing_up(impl, seed):
    """Connections come and go in random order, each with a byte of its own; no foreign byte arrives."""
    async def main():
        rnd = random.Random(seed)
        await asyncio.sleep(0.001)
        before = descriptors()
        alive, peers = [], {}

        class Marked(Recorder):
            def __init__(self, mark):
                super().__init__()
                self.mark = mark

            def data_received(self, data):
                assert data == self.mark * len(data), (self.mark, data)
                super().data_received(data)
                self.transport.write(data)
        opened = 0
        while opened < 300 or alive:
            if opened < 300 and len(alive) < 20:
                ours, theirs = rnd.choice([tcp_pair, unix_pair])()
                mark = bytes([opened % 256])
                protocol = await attach(ours, lambda mark=mark: Marked(mark))
                theirs.setblocking(False)
                alive.append(protocol)
                peers[protocol] = theirs
                opened += 1
            for protocol in rnd.sample(alive, min(8, len(alive))):
                theirs = peers[protocol]
                action = rnd.randrange(8)
                if action < 4:
                    theirs.send(protocol.mark * rnd.randrange(1, 3000))
                    if rnd.random() < 0.5:
                        await asyncio.sleep(0)
                    try:
                        data = theirs.recv(100_000)
                    except (BlockingIOError, ConnectionResetError):
                        continue
                    assert data == protocol.mark * len(data)
                    continue
                alive.remove(protocol)
                del peers[protocol]
                if action == 4:
                    protocol.transport.close()
                elif action == 5:
                    protocol.transport.abort()
                elif action == 6 and theirs.family == socket.AF_INET:
                    reset(theirs)
                theirs.close()
                if rnd.random() < 0.3:
                    await protocol.lost
        assert await until(lambda: descriptors() == before, 5), (before, descriptors())
    impl.run(main())


# The user closes the socket under the transport

GONE = (OSError, RuntimeError, ValueError)
SECRET = b"secret"


async def taken_over(buffered=0):
    """A transport whose socket its user has closed, and who has its number now: a socket of the user's own."""
    ours, theirs = unix_pair(sndbuf=10_000)
    old = await attach(ours)
    old.transport.write(SECRET[:1] * buffered)
    assert old.transport.get_extra_info("socket").fileno() == ours.fileno()
    number = ours.fileno()
    ours.close()
    stranger, peer = number_taken(number)
    for end in (theirs, stranger, peer):
        end.setblocking(False)
    return old, theirs, stranger, peer


def pending(sock):
    """What has come on a non-blocking socket; its end is b""."""
    try:
        return sock.recv(1 << 20)
    except BlockingIOError:
        return None


def quiet(loop):
    loop.set_exception_handler(lambda loop, context: None)


def attempt(function, *args):
    """The call may work or be refused, in the ways in which asyncio refuses."""
    try:
        return function(*args)
    except GONE:
        return None
    except AttributeError:  # asyncio's writelines() in some versions, once the connection is lost
        assert type(function.__self__).__module__ == "asyncio.selector_events"
        return None


async def untouched(stranger, peer):
    """The stranger's connection works in both directions and has seen nothing that is not its own."""
    assert pending(peer) is None
    peer.send(b"to the stranger")
    await asyncio.sleep(0.005)
    assert pending(stranger) == b"to the stranger"
    stranger.send(b"from the stranger")
    assert pending(peer) == b"from the stranger"


USES = {
    "nothing": [],
    "write": [("write", SECRET)] * 8,
    "writelines": [("writelines", [SECRET, SECRET])] * 3,
    "write_eof": [("write_eof",)],
    "write and write_eof": [("write", SECRET), ("write_eof",)],
    "pause_reading": [("pause_reading",)],
    "pause and resume": [("pause_reading",), ("resume_reading",)],
    "close": [("close",)],
    "write and close": [("write", SECRET), ("close",)],
    "abort": [("abort",)],
}


@pytest.mark.parametrize("buffered", [0, 1_000_000])
@pytest.mark.parametrize("use", USES)
def test_old_transport_and_the_new_owner(impl, use, buffered, log):
    """Whatever is done with the old transport, the number's new owner keeps its data, and its descriptor."""
    if buffered and not impl.is_fastloop:
        pytest.skip("asyncio's abort() fails where epoll has forgotten the descriptor, and leaves the transport behind")

    async def main():
        loop = asyncio.get_running_loop()
        quiet(loop)
        old, theirs, stranger, peer = await taken_over(buffered)
        await untouched(stranger, peer)
        for name, *args in USES[use]:
            attempt(getattr(old.transport, name), *args)
            await settle(3)
            await untouched(stranger, peer)
        # Something for the stranger is on its way while the old transport ends.
        peer.send(b"late")
        await asyncio.sleep(0.005)
        attempt(old.transport.abort)
        await settle(5)
        assert pending(stranger) == b"late"
        assert old.data == b""
        await untouched(stranger, peer)
        os.fstat(stranger.fileno())
        for sock in (theirs, stranger, peer):
            sock.close()
        del old
    impl.run(main())
    assert set(log.messages()) <= {"socket.send() raised exception."}


def test_sendfile_and_the_new_owner(impl, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(SECRET * 1000)

    async def main():
        loop = asyncio.get_running_loop()
        quiet(loop)
        old, theirs, stranger, peer = await taken_over()
        with open(path, "rb") as file:
            try:
                await asyncio.wait_for(loop.sendfile(old.transport, file), 1)
            except (*GONE, TimeoutError):
                pass
        await untouched(stranger, peer)
        attempt(old.transport.abort)
        await settle(5)
        await untouched(stranger, peer)
        for sock in (theirs, stranger, peer):
            sock.close()
    impl.run(main())


@pytest.mark.parametrize("use", USES)
def test_old_transport_and_a_new_one(impl, use, log):
    """The same where another transport gets the number: refused, as asyncio does, or kept apart."""
    async def main():
        loop = asyncio.get_running_loop()
        quiet(loop)
        old, theirs, stranger, peer = await taken_over()
        try:
            new = await attach(stranger)
        except RuntimeError as exc:
            assert "is used by transport" in str(exc)
        else:
            for name, *args in USES[use]:
                attempt(getattr(old.transport, name), *args)
                await settle(3)
                assert pending(peer) is None
                if not impl.is_fastloop:
                    continue  # before 3.12 asyncio refuses nothing, and the old one stops the new one's reading
                peer.send(b"for the new one")
                assert await until(lambda: new.data, 1)
                assert bytes(new.data) == b"for the new one"
                new.data.clear()
                new.transport.write(b"from the new one")
                await settle(5)
                assert pending(peer) == b"from the new one"
            assert old.data == b""
            new.transport.abort()
        attempt(old.transport.abort)
        await settle(5)
        for sock in (theirs, stranger, peer):
            sock.close()
    impl.run(main())
    assert set(log.messages()) <= {"socket.send() raised exception."}


def test_the_number_is_free_again_after_the_end(impl):
    """Once the old transport is aborted and lost, nobody refuses its number any more."""
    async def main():
        quiet(asyncio.get_running_loop())
        old, theirs, stranger, peer = await taken_over()
        attempt(old.transport.abort)
        await old.lost
        new = await attach(stranger)
        peer.send(b"hello")
        assert await until(lambda: bytes(new.data) == b"hello", 3)
        new.transport.abort()
        await new.lost
        theirs.close()
        peer.close()
    impl.run(main())


def test_a_detached_socket_is_not_ours_to_close(impl):
    """sock.detach() under a transport: the number belongs to whoever took it."""
    async def main():
        quiet(asyncio.get_running_loop())
        ours, theirs = unix_pair()
        protocol = await attach(ours)
        number = ours.detach()
        protocol.transport.abort()
        await protocol.lost
        os.fstat(number)  # still open
        os.close(number)
        theirs.close()
    impl.run(main())


def test_a_listening_socket_closed_under_its_server(impl):
    """Its number is taken by a connection: it is not accepted on, and its data is its own."""
    async def main():
        loop = asyncio.get_running_loop()
        quiet(loop)
        made = []

        def factory():
            made.append(Recorder())
            return made[-1]
        listener = socket.create_server((HOST, 0))
        server = await loop.create_server(factory, sock=listener)
        number = listener.fileno()
        listener.close()
        stranger, peer = number_taken(number)
        for end in (stranger, peer):
            end.setblocking(False)
        await untouched(stranger, peer)
        attempt(server.close)
        await settle(5)
        await untouched(stranger, peer)
        assert made == []
        stranger.close()
        peer.close()
    impl.run(main())


# Cancellation

CALLS = {
    "connection": lambda loop, sock, address: loop.create_connection(asyncio.Protocol, sock=sock),
    "accepted": lambda loop, sock, address: loop.connect_accepted_socket(asyncio.Protocol, sock),
    "address": lambda loop, sock, address: loop.create_connection(asyncio.Protocol, *address),
    "streams": lambda loop, sock, address: asyncio.open_connection(sock=sock),
}


@pytest.mark.parametrize("kind", CALLS)
def test_cancelled_at_every_step(impl, kind):
    """Cancelled after k turns of the loop: closed once or handed over, and never a number that is not its own."""
    async def cancel_after(turns):
        loop = asyncio.get_running_loop()
        with socket.create_server((HOST, 0)) as listener:
            ours, theirs = unix_pair()
            before = descriptors()
            task = loop.create_task(CALLS[kind](loop, ours, listener.getsockname()))
            await settle(turns)
            finished = task.done()
            task.cancel()
            try:
                made = await task
            except asyncio.CancelledError:
                made = None
            # Whatever was closed by now may be somebody else's number.
            strangers = [os.dup(0) for _ in range(4)]
            await settle(6)
            for number in strangers:
                os.fstat(number)
                os.close(number)
            if made is None:
                pass
            elif kind == "streams":
                made[1].transport.abort()
            else:
                made[0].abort()
            del made
            await settle(6)
            ours.close()
            theirs.close()
            after = descriptors()
            assert after <= before, (turns, before, after)
            return finished

    async def main():
        for turns in range(30):
            if await cancel_after(turns):
                return
            await asyncio.sleep(0.001)
    impl.run(main())
