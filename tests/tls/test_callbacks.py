"""Every callback of a protocol over TLS against every exception, and against everything that it may call.

As tests/net/test_callback_matrix.py: one scenario leads a connection through all callbacks, and
the whole story is compared.
"""

import asyncio
import contextlib
import functools
import ssl

import pytest

from support import FASTLOOP, PY, callbacks, plain, same
from support.callbacks import LEAVING, STREAM, calls, noted, once, throw
from support.net import Stream, io_settled, stream_pair
from support.tls import Buffered, Far, client_context, lost, secured, server_context, wrapping

BUFFERED = ["get_buffer", "buffer_updated", "eof_received", "connection_lost"]
RAISED = [name for name in callbacks.EXCEPTIONS if name != "InterruptedError"]


@functools.cache
def context(server_side):
    """One for all stories: reading the files takes longer than telling most of them."""
    return server_context() if server_side else client_context()


class Story(callbacks.Story):
    def __init__(self, impl, make, on, *, server_side=True, upgrade=False, ending="close_notify"):
        super().__init__(impl, make, on)
        self.server_side = server_side
        self.upgrade = upgrade
        self.ending = ending

    async def make(self, sock):
        p = self.protocol
        near = context(self.server_side)
        if not self.upgrade:
            await wrapping(p, sock, near, self.server_side, ssl_shutdown_timeout=1)
            return
        below, _ = await self.loop.connect_accepted_socket(lambda: p, sock)
        p.transport = await self.loop.start_tls(below, p, near, server_side=True, ssl_shutdown_timeout=1)

    def lead(self):
        p = self.protocol
        ours, peer = stream_pair(buffers=65536)
        far = Far(peer, context(not self.server_side), server_side=not self.server_side)
        making = []

        def alive():
            return p.transport is not None and not p.transport.is_closing()

        async def settled(rounds=2):
            for _ in range(rounds):
                await io_settled(1)
                far.look()

        async def connect():
            making.append(asyncio.ensure_future(self.make(ours)))
            for _ in range(6):
                await io_settled(1)
                far.fetch()
                with contextlib.suppress(ssl.SSLError):
                    far.tls.do_handshake()
                far.flush()
                if far.tls.version() is not None and making[0].done():
                    break
            await settled()
            if p.transport is not None and alive():
                p.transport.set_write_buffer_limits(high=100000, low=0)
        self.run(connect())

        async def data():
            if alive() and far.tls.version() is not None:
                far.tls.write(b"one")
                far.flush()
            await settled()
        self.run(data())

        async def overfill():
            # without a look from the far end, so that it is too much for all buffers
            for _ in range(3):
                if alive():
                    p.transport.write(bytes(200000))
            await io_settled(3)
        self.run(overfill())

        async def drain():
            quiet = 0
            while quiet < 2:
                before = len(far.heard)
                await settled(1)
                quiet = 0 if len(far.heard) > before else quiet + 1
        self.run(drain())
        self.run(data())

        async def end():
            if self.ending == "close_notify":
                far.goodbye()
            else:
                far.fin()
            await settled()
        self.run(end())
        self.run(drain())

        async def close():
            if p.transport is not None and not p.lost:
                p.transport.close()
            await settled()
        self.run(close())

        async def fin():
            far.close()
            await io_settled(3)
        self.run(fin())
        outcome = "pending"
        if making[0].done():
            exc = None if making[0].cancelled() else making[0].exception()
            outcome = "cancelled" if making[0].cancelled() else type(exc).__name__
            del exc
        else:
            making[0].cancel()
            self.run(settled_away())
        closed = ours.fileno() == -1
        ours.close()
        state = p.transport and (p.transport.is_closing(), )
        return {"trace": self.trace, "reports": self.reports.take(), "connecting": outcome, "socket closed": closed,
                "state": state, "got": len(far.plain)}


async def settled_away():
    await io_settled(3)


def tell(impl, make, on, **kwargs):
    return Story(impl, make, on, **kwargs).tell()


# With an upgrade connection_made() comes in clear, and what it does has nothing to do with TLS.
SETTINGS = [(variant, callback) for variant in ("client", "upgrade", "FIN") for callback in STREAM
            if (variant, callback) != ("upgrade", "connection_made")]
KEYWORDS = {"client": {"server_side": False}, "upgrade": {"upgrade": True}, "FIN": {"ending": "FIN"}}


@pytest.mark.parametrize("name", RAISED)
@pytest.mark.parametrize("callback", STREAM)
def test_callback_raises(callback, name):
    story = same(lambda impl: tell(impl, Stream, {callback: once(throw(name))}))
    check_raising(story, callback, name)


@pytest.mark.parametrize("name", RAISED)
@pytest.mark.parametrize("callback", BUFFERED)
def test_buffered_callback_raises(callback, name):
    story = same(lambda impl: tell(impl, Buffered, {callback: once(throw(name))}))
    check_raising(story, callback, name)


@pytest.mark.parametrize("name", ["ValueError", "OSError", "KeyboardInterrupt"])
@pytest.mark.parametrize("variant, callback", SETTINGS)
def test_callback_raises_in_other_settings(variant, callback, name):
    settings = KEYWORDS[variant]
    story = same(lambda impl: tell(impl, Stream, {callback: once(throw(name))}, **settings))
    check_raising(story, callback, name)


def check_raising(story, callback, name):
    """What the comparison cannot tell: that the story has a point, and its main rules."""
    names = [e[0] for e in story["trace"]]
    assert callback in names
    assert names.count("connection_lost") == 1
    assert story["socket closed"]
    assert ("left" in names) == (name in LEAVING)
    if name in LEAVING:
        assert story["reports"] == []


# What callbacks may call

ACTIONS = {
    **callbacks.ACTIONS,
    **callbacks.switches(Stream, Buffered),
    "pause and close": calls("pause_reading", "close"),
    "writelines": lambda p, *a: p.transport.writelines([b"w", b"x"]),
    "write much twice": lambda p, *a: (p.transport.write(bytes(300000)), p.transport.write(bytes(300000))),
    "limits": lambda p, *a: p.transport.set_write_buffer_limits(high=100, low=10),
    "read limits": lambda p, *a: p.transport.set_read_buffer_limits(high=10, low=1),
}


# asyncio's releases before 3.14 lose the connection below twice here (gh-156512).
TWICE = {("resume_writing", action) for action in ("abort", "close and abort", "write much and abort")}


def act(impl, make, callback, action, always=False, **settings):
    acting = noted(ACTIONS[action], lambda transport: [transport.is_closing()])
    return tell(impl, make, {callback: acting if always else once(acting)}, **settings)


def told(callback, action, **settings):
    if (callback, action) in TWICE and PY < (3, 14):
        return plain(act(FASTLOOP, Stream, callback, action, **settings))
    return same(lambda impl: act(impl, Stream, callback, action, **settings))


def check_acting(story, callback):
    names = [e[0] for e in story["trace"]]
    assert callback in names and "before" in names
    assert story["reports"] == []
    assert names.count("connection_lost") == 1
    assert names[-1] in ("connection_lost", "before", "after", "raised", "stopped")
    assert story["socket closed"]


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("callback", STREAM)
def test_callback_acts(callback, action):
    story = told(callback, action)
    check_acting(story, callback)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("callback", ["get_buffer", "buffer_updated"])
def test_buffered_callback_acts(callback, action):
    story = same(lambda impl: act(impl, Buffered, callback, action))
    check_acting(story, callback)


@pytest.mark.parametrize("action", ["close", "abort", "write much", "write and close", "pause, then resume"])
@pytest.mark.parametrize("variant, callback", SETTINGS)
def test_callback_acts_in_other_settings(variant, callback, action):
    settings = KEYWORDS[variant]
    story = told(callback, action, **settings)
    check_acting(story, callback)


@pytest.mark.parametrize("action", ["write", "pause, then resume", "limits", "set_protocol and back", "stop"])
@pytest.mark.parametrize("callback", STREAM)
def test_callback_always_acts(callback, action):
    story = same(lambda impl: act(impl, Stream, callback, action, always=True))
    check_acting(story, callback)


def test_reports_carry_transport_and_protocol(impl):
    """The objects themselves are in the context of the exception handler."""
    contexts = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: contexts.append(context))
        p = Stream({"data_received": throw("ValueError")})
        async with secured(p) as (transport, peer):
            await peer.send(b"x")
            await lost(p)
            (context,) = contexts
            assert context["message"] == "Fatal error on SSL protocol"
            assert isinstance(context["transport"], asyncio.Transport)
            assert isinstance(context["protocol"], asyncio.BaseProtocol)
            assert context["exception"].__traceback__ is not None
            contexts.clear()
            context.clear()
            loop.set_exception_handler(None)
        await io_settled()
    impl.run(main())
