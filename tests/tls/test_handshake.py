"""What a handshake agrees on, what it refuses, and who is told."""

import asyncio
import contextvars
import gc
import logging
import ssl
import sys
import time
import weakref

import pytest

from support import same
from support.net import Reports, Stream, io_settled, reset, stream_pair
from support.tls import (
    ALERT, NAME, V2, V3, VERSIONS, Buffered, Ended, Far, bare, better, client_context, lost, pair, records, result_of,
    secured, server_context, wrapping)

versions = pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
sides = pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])
keys = pytest.mark.parametrize("key", ["server", "server_rsa"], ids=["ECDSA", "RSA"])


# What is agreed on

@versions
@keys
@sides
def test_data_both_ways(version, key, server_side):
    def body(impl):
        async def main():
            p = Stream()
            near = server_context(key, version=version) if server_side else client_context(version=version)
            far = client_context() if server_side else server_context(key)
            async with secured(p, server_side=server_side, near=near, far=far) as (transport, peer):
                transport.write(b"from near")
                assert await peer.take(9) == b"from near"
                await peer.send(b"from far")
                await p.until(lambda: bytes(p.received) == b"from far")
                agreed = peer.tls.version()
                peer.goodbye()
                await lost(p)
                return p.trace, agreed
        return impl.run(main())
    trace, agreed = same(body)
    assert trace == [["connection_made"], ["data_received", b"from far"], ["eof_received"], ["connection_lost", None]]
    assert agreed == version.name.replace("v1_", "v1.")


@sides
def test_extra_info(server_side):
    def body(impl):
        async def main():
            p = Stream()
            near = server_context(clients="ca") if server_side else client_context()
            far = client_context(key="client") if server_side else server_context()
            async with secured(p, kind="tcp4", server_side=server_side, near=near, far=far) as (transport, peer):
                info = transport.get_extra_info
                tls = info("ssl_object")
                assert type(tls) is ssl.SSLObject
                assert tls.context is near and info("sslcontext") is near
                assert tls.server_side == server_side
                assert tls.server_hostname == (None if server_side else NAME)
                assert tls.version() == peer.tls.version()
                assert info("cipher") == tls.cipher() == peer.tls.cipher()
                assert info("peercert") == tls.getpeercert()
                assert info("peername") == peer.sock.getsockname()
                assert info("sockname") == peer.sock.getpeername()
                assert info("socket").getsockname() == peer.sock.getpeername()
                default = object()
                assert info("no such name") is None and info("no such name", default) is default
                assert info("no such name", default=default) is default
                return info("peercert"), info("cipher"), info("compression"), info("compression", "default")
        return impl.run(main())
    peercert, _, compression, with_default = same(body)
    owner = "client" if server_side else "server"
    assert peercert["subject"] == [[["commonName", f"fastloop test {owner}"]]]
    assert compression is with_default is None


def test_extra_info_before_the_handshake_and_after_the_end():
    """The TLS names stay after connection_lost(); those of the socket do not."""
    def body(impl):
        async def main():
            p = Stream()
            async with pair(p, kind="tcp4", server_side=False) as both:
                await both.handshake()
                both.far.goodbye()
                await lost(p)
                info = both.transport.get_extra_info
                assert type(info("ssl_object")) is ssl.SSLObject
                assert isinstance(info("sslcontext"), ssl.SSLContext)
                return [info(name, "default") for name in ("cipher", "peername", "sockname", "nothing")]
        return impl.run(main())
    same(body)


def test_nobody_asked_for_a_certificate():
    """Then `peercert` is None on the server, and {} on a client that does not verify."""
    def body(impl, server_side):
        async def main():
            near = None if server_side else client_context(None)
            async with secured(server_side=server_side, near=near) as (transport, _):
                return transport.get_extra_info("peercert", "default")
        return impl.run(main())
    assert same(body, True) is None
    assert same(body, False) == {}


@versions
@sides
@pytest.mark.parametrize("near_offers, far_offers, chosen", [
    (["h2", "http/1.1"], ["http/1.1", "h2"], {True: "h2", False: "http/1.1"}),
    (["h2"], ["http/1.1"], {True: None, False: None}),
    (["h2"], None, {True: None, False: None}),
])
def test_alpn(near_offers, far_offers, chosen, server_side, version):
    """A server chooses by its own order."""
    def body(impl):
        async def main():
            make = {True: server_context, False: client_context}
            near = make[server_side](alpn=near_offers, version=version)
            far = make[not server_side](alpn=far_offers)
            async with secured(server_side=server_side, near=near, far=far) as (transport, peer):
                ours = transport.get_extra_info("ssl_object")
                return ours.selected_alpn_protocol(), peer.tls.selected_alpn_protocol()
        return impl.run(main())
    near, far = same(body)
    assert near == far == chosen[server_side]


def test_no_common_version():
    """Each side tells its caller; the server's protocol hears nothing."""
    def body(impl, server_side):
        async def main():
            reports = Reports(asyncio.get_running_loop())
            p = Stream()
            near = server_context(version=V3) if server_side else client_context(version=V3)
            far = client_context(version=V2) if server_side else server_context(version=V2)
            async with pair(p, server_side=server_side, near=near, far=far) as both:
                refused = await result_of(both.far.handshake())
                assert refused != "done"
                near_result = await result_of(both.making)
                await io_settled()
                return near_result, p.trace, both.ours.fileno(), reports.take()
        return impl.run(main())
    for server_side in (True, False):
        near, trace, fd, reports = same(body, server_side)
        assert near[0] == "SSLError" and trace == [] and fd == -1 and reports == []


# SNI

@versions
def test_sni_callback_sees_the_name(version):
    def body(impl):
        async def main():
            asked = []
            near = server_context(version=version)
            near.sni_callback = lambda tls, name, context: asked.append((type(tls).__name__, name, context is near))
            async with secured(near=near) as (transport, peer):
                transport.write(b"x")
                assert await peer.take(1) == b"x"
            return asked
        return impl.run(main())
    assert same(body) == [["SSLObject", NAME, True]]


@versions
def test_sni_callback_swaps_the_context(version):
    """The client gets the other certificate, and ssl_object tells of the other context."""
    def body(impl):
        async def main():
            near, other = server_context(version=version), server_context("elsewhere", version=version)

            def swap(tls, name, context):
                tls.context = other
            near.sni_callback = swap
            far = client_context()
            async with secured(near=near, far=far, name="elsewhere.test") as (transport, peer):
                assert transport.get_extra_info("ssl_object").context is other
                assert transport.get_extra_info("sslcontext") is near
                del swap
                near.sni_callback = None
                return peer.tls.getpeercert()["subject"]
        return impl.run(main())
    assert same(body) == [[["commonName", "fastloop test elsewhere"]]]


@versions
@pytest.mark.parametrize("answer", ["alert", "raises", "nonsense", "KeyboardInterrupt"])
def test_sni_callback_refuses(answer, version, monkeypatch):
    """The server's task gets the error, fastloop's client the alert, and only an exception is unraisable."""
    def body(impl):
        unraisable = []
        monkeypatch.setattr(sys, "unraisablehook", lambda info: unraisable.append(type(info.exc_value).__name__))

        async def main():
            def refuse(tls, name, context):
                if answer == "alert":
                    return ssl.ALERT_DESCRIPTION_ACCESS_DENIED
                if answer == "nonsense":
                    return "nonsense"
                raise (KeyboardInterrupt if answer == "KeyboardInterrupt" else KeyError)("in the callback")
            near = server_context(version=version)
            near.sni_callback = refuse
            reports = Reports(asyncio.get_running_loop())
            p = Stream()
            async with pair(p, near=near) as both:
                far = await result_of(both.far.handshake())
                found = await result_of(both.making)
                await io_settled()
                near.sni_callback = None
                assert far != "done"
                if better(impl):
                    assert ("ACCESS_DENIED" in far[1]) == (answer == "alert")
                return found, p.trace, both.ours.fileno(), reports.take()
        return impl.run(main()), unraisable
    (found, trace, fd, reports), unraisable = same(body)
    assert found[0] == "SSLError"
    assert (trace, fd, reports) == ([], -1, [])
    expected = {"alert": [], "nonsense": ["TypeError"], "raises": ["KeyError"]}
    assert unraisable == expected.get(answer, [answer])


def test_sni_callback_acts_on_the_loop():
    """It may do what it likes with the loop, and the handshake goes on."""
    def body(impl):
        async def main():
            loop = asyncio.get_running_loop()
            done = loop.create_future()
            near = server_context()
            near.sni_callback = lambda *args: loop.call_soon(done.set_result, "called") and None
            async with secured(near=near):
                near.sni_callback = None
                return await done
        return impl.run(main())
    assert same(body) == "called"


def test_sni_callback_cancels_its_own_connection():
    """The task that waits for this handshake ends; nothing of the connection is left."""
    def body(impl):
        async def main():
            near = server_context()
            p = Stream()
            async with pair(p, near=near) as both:
                def cancel(*args):
                    both.making.cancel()
                near.sni_callback = cancel
                far = await result_of(both.far.handshake())
                await io_settled()
                near.sni_callback = None
                if far == "done":
                    await both.far.take_all()
                return both.making.cancelled(), both.ours.fileno(), bytes(p.received)
        return impl.run(main())
    assert same(body) == [True, -1, b""]


# Certificates

@versions
@pytest.mark.parametrize("key, name", [("elsewhere", NAME), ("expired", NAME), ("server", "wrong.test"),
                                       ("server", "192.0.2.1")])
def test_server_certificate_is_refused(key, name, version):
    """The client's caller gets SSLCertVerificationError with OpenSSL's text; nothing is reported."""
    def body(impl):
        async def main():
            reports = Reports(asyncio.get_running_loop())
            p = Stream()
            far = server_context(key, version=version)
            async with pair(p, server_side=False, far=far, server_hostname=name) as both:
                assert await result_of(both.far.handshake()) != "done"
                near_result = await result_of(both.making)
                await io_settled()
                return near_result, p.trace, both.ours.fileno(), reports.take()
        return impl.run(main())
    near, trace, fd, reports = same(body)
    assert near[0] == "SSLCertVerificationError"
    assert "certificate verify failed" in near[1]
    assert (trace, fd, reports) == ([], -1, [])


@versions
def test_server_of_a_stranger_is_refused(version):
    """From fastloop the server hears which alert it was."""
    def body(impl):
        async def main():
            near = client_context("stranger", version=version)
            async with pair(server_side=False, near=near) as both:
                far = await result_of(both.far.handshake())
                assert far != "done"
                if better(impl):
                    assert "ALERT_UNKNOWN_CA" in far[1].upper().replace(" ", "_")
                return await result_of(both.making)
        return impl.run(main())
    near = same(body)
    assert near[0] == "SSLCertVerificationError" and "unable to get local issuer certificate" in near[1]


@pytest.mark.parametrize("hostname, trusts", [("", True), (NAME, True), ("wrong.test", False)])
def test_server_hostname(hostname, trusts):
    """The empty name: the chain is checked, and no name is."""
    def body(impl):
        async def main():
            near = client_context()
            if not hostname:
                near.check_hostname = False
            asked = []
            far = server_context()
            far.sni_callback = lambda tls, name, context: asked.append(name)
            async with pair(server_side=False, near=near, far=far, server_hostname=hostname) as both:
                await result_of(both.far.handshake())
                found = await result_of(both.making)
                far.sni_callback = None
                return found, asked
        return impl.run(main())
    found, asked = same(body)
    assert (found == "done") == trusts
    assert asked == [hostname or None]


@versions
@pytest.mark.parametrize("key, accepted", [("client", True), (None, False), ("client_of_stranger", False)])
def test_client_certificate(key, accepted, version):
    """A server that wants one: given, missing, of an unknown authority. No byte of who is refused is delivered."""
    def body(impl):
        async def main():
            reports = Reports(asyncio.get_running_loop())
            p = Stream()
            near = server_context(clients="ca", version=version)
            async with pair(p, near=near, far=client_context(key=key)) as both:
                far = both.far
                handshake = await result_of(far.handshake())
                if handshake == "done":
                    # TLS 1.3: for the client it is over, and it may write before the server has looked
                    await far.send(b"let me in")
                found = await result_of(both.making)
                if accepted:
                    await p.until(lambda: bytes(p.received) == b"let me in")
                    both.transport = None
                    subject = both.making.result()[0].get_extra_info("peercert")["subject"]
                    return subject, found, p.trace[:]
                await io_settled()
                await far.take_all()
                assert far.ended or handshake != "done"
                return found, p.trace, both.ours.fileno(), reports.take()
        return impl.run(main())
    if accepted:
        subject, found, trace = same(body)
        assert subject == [[["commonName", "fastloop test client"]]]
        assert found == "done" and trace == [["connection_made"], ["data_received", b"let me in"]]
    else:
        found, trace, fd, reports = same(body)
        assert found[0] == ("SSLCertVerificationError" if key else "SSLError")
        assert (trace, fd, reports) == ([], -1, [])


@versions
@pytest.mark.parametrize("key, accepted", [("client", True), (None, False), ("client_of_stranger", False)])
def test_our_client_certificate(key, accepted, version):
    """The client side of the same; with TLS 1.3 a refusal comes after connection_made()."""
    def body(impl):
        async def main():
            reports = Reports(asyncio.get_running_loop())
            p = Stream()
            far = server_context(clients="ca", version=version)
            async with pair(p, server_side=False, near=client_context(key=key), far=far) as both:
                assert (await result_of(both.far.handshake()) == "done") == accepted
                found = await result_of(both.making)
                if found == "done" and accepted:
                    both.far.goodbye()
                if found == "done":
                    await lost(p)
                await io_settled()
                return found, p.trace, both.ours.fileno(), reports.take()
        return impl.run(main())
    found, trace, fd, reports = same(body)
    assert fd == -1 and reports == []
    if accepted:
        assert found == "done"
    else:
        assert (found == "done") == (version is V3)
        assert trace in ([], [["connection_made"], ["connection_lost", "SSLError"]])


def test_post_handshake_authentication():
    """TLS 1.3: the server asks for the client's certificate in the middle of the connection."""
    def body(impl):
        async def main():
            p = Stream()
            near = client_context(version=V3, key="client")
            near.post_handshake_auth = True
            far = server_context(version=V3, clients="ca")
            far.post_handshake_auth = True
            async with secured(p, server_side=False, near=near, far=far) as (transport, peer):
                before = peer.tls.getpeercert()
                peer.tls.verify_client_post_handshake()
                await peer.send(b"who are you?")
                await p.until(lambda: bytes(p.received) == b"who are you?")
                transport.write(b"me")
                assert await peer.take(2) == b"me"
                return before, peer.tls.getpeercert()["subject"]
        return impl.run(main())
    before, after = same(body)
    assert before is None
    assert after == [[["commonName", "fastloop test client"]]]


# Sessions

@versions
def test_server_resumes_sessions(version):
    """A client that comes back with its session is known; ssl_object says so."""
    def body(impl):
        async def main():
            near, far = server_context(version=version), client_context()
            session, found = None, []
            for _ in range(3):
                async with secured(near=near, far=far, session=session) as (transport, peer):
                    transport.write(b"x")
                    assert await peer.take(1) == b"x"  # with it come the tickets of TLS 1.3
                    found.append((peer.tls.session_reused, transport.get_extra_info("ssl_object").session_reused))
                    session = peer.tls.session
            return found
        return impl.run(main())
    assert same(body) == [[False, False], [True, True], [True, True]]


@versions
def test_server_without_tickets(version):
    def body(impl):
        async def main():
            near = server_context(version=version)
            near.options |= ssl.OP_NO_TICKET
            if version is V3:
                near.num_tickets = 0
            p = Stream()
            async with secured(p, near=near) as (transport, peer):
                transport.write(b"x")
                assert await peer.take(1) == b"x"
                return peer.tls.session_reused
        return impl.run(main())
    assert same(body) is False


@versions
def test_our_session_can_be_used_again(version):
    """What ssl_object.session of a client is can resume a connection by hand."""
    def body(impl):
        async def main():
            near, far = client_context(version=version), server_context()
            p = Stream()
            async with secured(p, server_side=False, near=near, far=far) as (transport, peer):
                await peer.send(b"tickets are before this")
                await p.wait("data_received")
                session = transport.get_extra_info("ssl_object").session
            ours, peer = stream_pair()
            server = Far(peer, far, server_side=True)
            client = Far(ours, near, session=session)
            await asyncio.gather(server.handshake(), client.handshake())
            client.close(), server.close()
            return session.has_ticket, client.tls.session_reused, server.tls.session_reused
        return impl.run(main())
    assert same(body) == [True, True, True]


# connection_made() and data that comes early

@versions
@pytest.mark.parametrize("protocol", [Stream, Buffered])
def test_data_in_the_segment_of_the_last_flight(protocol, version):
    """It comes after connection_made(), all of it, and not a byte before the handshake is done."""
    def body(impl):
        async def main():
            p = protocol()
            async with pair(p, near=server_context(version=version)) as both:
                far = both.far
                far.sock.send(far.hello())
                while True:
                    await far.moved()
                    try:
                        far.tls.do_handshake()
                        break
                    except ssl.SSLWantReadError:
                        if far.outgoing.pending:
                            far.sock.send(far.outgoing.read())
                last = far.outgoing.read()
                assert p.trace == [] or version is V2
                far.sock.send(last + far.encrypted(b"early") + far.encrypted(b", and more"))
                await p.until(lambda: len(p.received) == 15)
                return p.trace[:]
        return impl.run(main())
    trace = same(body)
    assert trace[0] == ["connection_made"]
    assert b"".join(e[1] for e in trace[1:]) == b"early, and more"


def test_data_and_the_end_in_the_segment_of_the_last_flight():
    """Handshake, data, close_notify and FIN at once: all are told, in this order."""
    def body(impl):
        async def main():
            p = Stream()
            async with pair(p, near=server_context(version=V3)) as both:
                far = both.far
                far.sock.send(far.hello())
                while not await far.moved():
                    pass
                far.tls.do_handshake()
                last = far.outgoing.read() + far.encrypted(b"all there is")
                with pytest.raises(ssl.SSLWantReadError):
                    far.tls.unwrap()
                far.sock.send(last + far.outgoing.read())
                far.fin()
                await lost(p)
                return p.trace, await result_of(both.making)
        return impl.run(main())
    trace, made = same(body)
    assert made == "done"
    assert trace == [["connection_made"], ["data_received", b"all there is"], ["eof_received"],
                     ["connection_lost", None]]


@sides
def test_connection_made_writes(server_side):
    """What is written there is the first that the peer reads."""
    def body(impl):
        async def main():
            p = Stream({"connection_made": lambda p, transport: transport.write(b"banner")})
            async with secured(p, server_side=server_side) as (transport, peer):
                return await peer.take(6)
        return impl.run(main())
    assert same(body) == b"banner"


@sides
@pytest.mark.parametrize("how", ["close", "abort"])
def test_connection_made_ends_it(how, server_side):
    def body(impl):
        async def main():
            p = Stream({"connection_made": lambda p, transport: getattr(transport, how)()})
            async with pair(p, server_side=server_side) as both:
                handshake = await result_of(both.far.handshake())
                assert handshake == "done" or how == "abort"  # which drops the last flight of a client
                found = await result_of(both.making)
                end = await both.far.finish() if handshake == "done" else None
                await lost(p)
                await io_settled()
                return found, end, p.trace
        return impl.run(main())
    found, end, trace = same(body)
    if how == "close":
        # the peer's answer to close_notify is told, too
        assert end == ["close_notify", "FIN"]
        assert trace == [["connection_made"], ["eof_received"], ["connection_lost", None]]
    else:
        assert end is None or end[0] != "close_notify"
        assert trace == [["connection_made"], ["connection_lost", None]]


# Time

@sides
@pytest.mark.parametrize("flight", [0, 1])
def test_handshake_timeout(flight, server_side):
    """The caller is told asyncio's sentence, the socket is closed, the protocol hears nothing."""
    def body(impl):
        async def main():
            reports = Reports(asyncio.get_running_loop())
            p = Stream()
            began = time.monotonic()
            async with pair(p, server_side=server_side, ssl_handshake_timeout=0.05) as both:
                if flight and server_side:
                    both.far.sock.send(both.far.hello())
                elif flight:
                    while not await both.far.moved():
                        pass
                    both.far.sock.send(both.far.hello()[:100])
                found = await result_of(both.making)
                await io_settled()
                assert time.monotonic() - began >= 0.045
                both.far.look()
                return found, p.trace, both.ours.fileno(), reports.take(), both.far.ended is not None
        return impl.run(main())
    found, trace, fd, reports, told = same(body)
    assert found == ["ConnectionAbortedError",
                     "SSL handshake is taking longer than 0.05 seconds: aborting the connection"]
    assert (trace, fd, reports, told) == ([], -1, [], True)


def test_handshake_timeout_is_not_of_the_connection(impl):
    """After the handshake its limit means nothing more."""
    async def main():
        p = Stream()
        async with secured(p, ssl_handshake_timeout=0.2) as (transport, peer):
            await asyncio.sleep(0.25)
            transport.write(b"still here")
            assert await peer.take(10) == b"still here"
            assert p.names() == ["connection_made"]
    impl.run(main())


# Contexts, cycles

def test_nothing_keeps_a_finished_connection(impl):
    """Once the connection has ended and nobody has the transport, protocol and context go."""
    async def main():
        class Seen(Stream):
            pass
        near = server_context()
        p = Seen()
        gone = weakref.ref(p)
        async with secured(p, near=near) as (transport, peer):
            peer.goodbye()
            await lost(p)
            del transport
            p.transport = None
        context = weakref.ref(near)
        del p, near, peer
        await io_settled()
        gc.collect()
        assert gone() is None
        assert context() is None
    impl.run(main())


def test_contextvars_of_callbacks():
    """In which context each callback runs: that of who made the connection."""
    variable = contextvars.ContextVar("variable", default="outside")

    def body(impl, server_side):
        async def main():
            seen = []

            def note(name):
                return lambda p, *args: seen.append((name, variable.get()))
            p = Stream({name: note(name) for name in (
                "connection_made", "data_received", "eof_received", "connection_lost", "pause_writing")})
            ours, sock = stream_pair()

            async def make():
                variable.set("maker")
                near = server_context() if server_side else client_context()
                return (await wrapping(p, ours, near, server_side))[0]
            making = asyncio.ensure_future(make())
            far = Far(sock, client_context() if server_side else server_context(), server_side=not server_side)
            await far.handshake()
            transport = await making
            await far.send(b"x")
            await p.wait("data_received")
            variable.set("later")
            transport.set_write_buffer_limits(high=1)
            transport.write(bytes(2000000))
            transport.write(bytes(1000))
            await p.wait("pause_writing")
            await far.take(2001000)
            far.goodbye()
            await lost(p)
            far.close()
            del making, transport
            p.transport = None
            return sorted(set(seen))
        return impl.run(main())
    for server_side in (True, False):
        seen = same(body, server_side)
        assert {name for name, _ in seen} >= {"connection_made", "data_received", "eof_received", "connection_lost"}


# Peers that end it amid the handshake

@sides
@pytest.mark.parametrize("how", ["FIN", "reset", "alert"])
def test_peer_leaves_before_it_has_begun(how, server_side):
    def body(impl):
        async def main():
            reports = Reports(asyncio.get_running_loop())
            p = Stream()
            async with pair(p, kind="tcp4", server_side=server_side) as both:
                await io_settled()
                if not server_side:
                    both.far.fetch()  # unread data would make a reset of a FIN
                if how == "alert":
                    both.far.sock.send(bytes([ALERT, 3, 3, 0, 2, 2, 40]))  # fatal, handshake_failure
                elif how == "reset":
                    reset(both.far.sock)
                else:
                    both.far.fin()
                found = await result_of(both.making)
                await io_settled()
                return found, p.trace, both.ours.fileno(), reports.take()
        return impl.run(main())
    found, trace, fd, reports = same(body)
    assert (trace, fd, reports) == ([], -1, [])
    assert found[0] == ("SSLError" if how == "alert" else "ConnectionResetError")


@sides
@versions
def test_alert_of_a_refusal_reaches_the_peer(impl, server_side, version):
    """The last that a refused peer reads is a TLS alert, then FIN. asyncio drops the alert."""
    if not better(impl):
        return

    async def main():
        other = V2 if version is V3 else V3
        near = server_context(version=other) if server_side else client_context(version=version)
        far = client_context(version=version) if server_side else server_context()
        async with pair(kind="tcp4", server_side=server_side, near=near, far=far) as both:
            if server_side:
                with pytest.raises((ssl.SSLError, Ended)):
                    await both.far.handshake()
            else:
                await both.far.moved()
                both.far.sock.send(b"\x16\x03\x03\x00\x04\x02\x00\x00\x00")  # ServerHello, empty
            assert (await result_of(both.making))[0] == "SSLError"
            hello = len(records(both.far.heard))
            while both.far.ended not in ("FIN", "reset"):
                both.far.ended = None
                await both.far.moved()
            assert both.far.ended == "FIN"
            kinds = [kind for kind, _ in records(both.far.heard)]
            assert kinds[-1] == ALERT and len(kinds) >= hello
    impl.run(main())


def test_log_of_a_failed_handshake(log):
    """Without debug mode: nothing above, nothing below; with it: what asyncio says."""
    def body(impl, debug):
        async def main():
            async with pair(near=server_context(version=V3), far=client_context(version=V2)) as both:
                await result_of(both.far.handshake())
                await result_of(both.making)
                await io_settled()
        impl.run(main(), debug=debug)
        said = [(level, bare(text.partition("\n")[0])) for level, text in log.take()]
        details = [(level, bare(text.partition("\n")[0])) for level, text in log.details if "SSL" in text]
        log.details.clear()
        return said, details
    logging.getLogger("asyncio").setLevel(logging.DEBUG)
    assert same(body, False) == [[], []]
    assert ["DEBUG", "<>: SSL handshake failed"] in same(body, True)[1]
