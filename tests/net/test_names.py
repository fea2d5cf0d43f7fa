"""loop.getaddrinfo() and loop.getnameinfo() against those of the socket module."""

import asyncio
import itertools
import socket

import pytest


UNSPEC, INET, INET6 = socket.AF_UNSPEC, socket.AF_INET, socket.AF_INET6
STREAM, DGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM

HOSTS = [
    None, "", "127.0.0.1", "::1", "localhost", b"127.0.0.1", b"::1", b"localhost", b"", "0.0.0.0", "::",
    "255.255.255.255", "::ffff:127.0.0.1", "::ffff:7f00:1", "1:2:3:4:5:6:7:8", "fe80::1", "fe80::1%lo", "fe80::1%1",
    "::1%lo", "fe80::1%no-such-interface", "fe80::1%", "127.0.0.1%lo", "1::", "1:2:3:4:5:6:1.2.3.4", "::1.2.3.4",
    "FE80::ABCD", "0:0:0:0:0:0:0:1", "2001:db8::", "ff02::1%lo", bytearray(b"127.0.0.1"), memoryview(b"127.0.0.1"),
]
# What may be a name, and then would be looked up elsewhere: only with AI_NUMERICHOST.
NUMERIC_ONLY = [
    "127.1", "127.0.1", "0x7f.1", "0x7f000001", "2130706433", "0177.0.0.1", "1.2.3.4 ", " 1.2.3.4", "1.2.3.4\n",
    "1.2.3", "256.1.1.1", "1.2.3.4.5", "1.2.3.-4", "1.2.3.4x", "01.02.03.04", "1..2.3", "4294967296", "4294967295",
    "::1 ", ":::1", "1:2", ":1", "1:", "::1::", "12345::", "g::", "1:2:3:4:5:6:7:8:9", "::1.2.3", "::256.1.1.1",
    "[::1]", "x" * 300, "a" * 63, "a" * 64, "a." * 120, "\u00fc.invalid", "\u2603", "xn--nxasmq6b", "\u0661.1.1.1",
    "\uff11\uff12\uff17.0.0.1", "localhost.", "example.invalid", "-1", "0", "1", "127.0.0.1.", ".", "..", "a..b",
    "fe80::1%" + "x" * 50, "::%lo", "127.0.0.1\x00", "\x00", "::1\x00x", b"127.0.0.1\x00", "\ud800",
    "%lo", "%", "fe80::1%-1", "fe80::1%4294967296", "fe80::1% 1",
]
WRONG = [5, 1.5, True, ["127.0.0.1"], object]
PORTS = [None, 0, 80, "80", b"80", "http", b"http", "", 65535, 65536, -1, True, 1.5, "65536", "-1", "no such service",
         "80 ", " 80", "0x50", 2 ** 40, 2 ** 70, -2 ** 70, "8\x000", [], "\ud800", False, "domain"]
COMBOS = [
    {}, {"family": INET}, {"family": INET6}, {"type": STREAM}, {"type": DGRAM}, {"proto": socket.IPPROTO_TCP},
    {"family": INET, "type": STREAM}, {"family": INET6, "type": STREAM, "proto": socket.IPPROTO_TCP},
    {"type": STREAM, "flags": socket.AI_PASSIVE}, {"type": STREAM, "flags": socket.AI_CANONNAME},
    {"type": socket.SOCK_RAW}, {"proto": socket.IPPROTO_UDP}, {"type": STREAM, "proto": socket.IPPROTO_UDP},
    {"family": socket.AF_UNIX, "type": STREAM}, {"family": 99}, {"type": 99}, {"proto": 999}, {"flags": 0x7fffffff},
    {"type": STREAM, "flags": socket.AI_NUMERICSERV}, {"family": INET6, "flags": socket.AI_V4MAPPED, "type": STREAM},
    {"type": STREAM, "flags": socket.AI_ADDRCONFIG}, {"family": -1}, {"type": STREAM, "proto": -1},
]


def result(found):
    return ("returned", repr(found))


def failure(exc):
    return ("raised", type(exc).__name__, str(exc), exc.args if isinstance(exc, OSError) else None)


def expected(function, *args, **kwargs):
    try:
        return result(function(*args, **kwargs))
    except Exception as exc:
        return failure(exc)


async def got(coro):
    try:
        return result(await coro)
    except Exception as exc:
        return failure(exc)


def compare(impl, cases, *, debug=False):
    """`cases` are (host, port, keywords)."""
    cases = list(cases)

    async def main():
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = 60  # libc is asked in between
        for host, port, keywords in cases:
            want = expected(socket.getaddrinfo, host, port, **keywords)
            found = await got(loop.getaddrinfo(host, port, **keywords))
            assert found == want, (host, port, keywords)
    impl.run(main(), debug=debug)
    return len(cases)


def test_hosts_and_combinations(impl):
    assert compare(impl, ((host, 80, combo) for host in HOSTS for combo in COMBOS)) > 500


def test_hosts_and_ports(impl):
    assert compare(impl, ((host, port, {"type": STREAM}) for host in HOSTS[:8] + ["fe80::1%lo"] for port in PORTS)) > 200


def test_ports_and_combinations(impl):
    compare(impl, ((host, port, combo) for host in ("127.0.0.1", "::1", None) for port in PORTS for combo in COMBOS[:9]))


@pytest.mark.parametrize("host", NUMERIC_ONLY, ids=ascii)
def test_literals(impl, host):
    """What may look like an address."""
    compare(impl, ((host, port, {"flags": socket.AI_NUMERICHOST | more, **combo})
                   for port in (80, None, "http") for more in (0, socket.AI_PASSIVE)
                   for combo in ({}, {"type": STREAM}, {"family": INET, "type": STREAM},
                                 {"family": INET6, "type": DGRAM})))


@pytest.mark.parametrize("host", ["127.1", "0x7f.1", "2130706433", "0177.0.0.1", "0x7f000001", "127.0.1"])
def test_short_forms(impl, host):
    """inet_aton()'s forms are addresses, without any flag."""
    compare(impl, ((host, port, {"type": STREAM, **combo}) for port in (80, "80", None)
                   for combo in ({}, {"family": INET})))


@pytest.mark.parametrize("host", ["x" * 300, "127.0.0.1\x00", "\x00", "a" * 64 + ".b", "a..b", "\ud800"], ids=ascii)
def test_what_never_reaches_the_resolver(impl, host):
    compare(impl, [(host, port, {"type": STREAM}) for port in (80, None)])


@pytest.mark.parametrize("host", WRONG, ids=str)
def test_what_is_no_host(impl, host):
    compare(impl, [(host, port, {"type": STREAM}) for port in (80, None, "x")])


@pytest.mark.parametrize("keywords", [
    {"family": "x"}, {"type": None}, {"proto": 1.5}, {"flags": []}, {"family": 2 ** 40}, {"type": 2 ** 70},
    {"family": True}, {"type": socket.SOCK_STREAM | socket.SOCK_NONBLOCK}, {"family": INET, "type": "x"},
], ids=str)
def test_odd_keywords(impl, keywords):
    compare(impl, [(host, 80, keywords) for host in ("127.0.0.1", None, "localhost")])


def test_debug_mode(impl):
    compare(impl, ((host, port, combo) for host in ("127.0.0.1", "::1", "x" * 300, None) for port in (80, "http", -1)
                   for combo in COMBOS[:5]), debug=True)


def test_types_of_the_results(impl):
    """The enums of the socket module, tuples of the right lengths."""
    async def main():
        loop = asyncio.get_running_loop()
        for host in ("127.0.0.1", "::1", "localhost"):
            for family, kind, proto, canonname, address in await loop.getaddrinfo(host, 80):
                assert type(family) is socket.AddressFamily
                assert type(kind) is socket.SocketKind
                assert type(proto) is int
                assert type(canonname) is str
                assert type(address) is tuple
        found = await loop.getaddrinfo("127.0.0.1", 80, type=STREAM)
        assert type(found) is list
        found.append("mine")
        assert "mine" not in await loop.getaddrinfo("127.0.0.1", 80, type=STREAM)
    impl.run(main())


def test_arguments(impl):
    async def main():
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host="127.0.0.1", port=80, family=INET, type=STREAM, proto=0, flags=0)
        assert found == [(INET, STREAM, 6, "", ("127.0.0.1", 80))]
        for call in (lambda: loop.getaddrinfo(), lambda: loop.getaddrinfo("x"),
                     lambda: loop.getaddrinfo("127.0.0.1", 80, INET), lambda: loop.getaddrinfo("127.0.0.1", 80, what=1)):
            with pytest.raises(TypeError):
                await call()
        coro = loop.getaddrinfo("127.0.0.1", 80)
        assert asyncio.iscoroutine(coro)
        assert await asyncio.create_task(coro)
        assert await asyncio.wait_for(loop.getaddrinfo("127.0.0.1", 80), 5)
    impl.run(main())


def test_many_at_once(impl):
    async def main():
        loop = asyncio.get_running_loop()
        found = await asyncio.gather(*(loop.getaddrinfo("127.0.0.%d" % (i % 200), i, type=STREAM) for i in range(500)))
        assert [f[0][4] for f in found] == [("127.0.0.%d" % (i % 200), i) for i in range(500)]
    impl.run(main())


def test_patched_function(impl, monkeypatch):
    """socket.getaddrinfo is looked up when it is needed: tests and some libraries replace it."""
    calls = []

    def replaced(host, port, family=0, type=0, proto=0, flags=0):
        calls.append((host, port))
        return [(INET, STREAM, 6, "", ("127.0.0.9", 99))]

    async def main():
        loop = asyncio.get_running_loop()
        for host in ("name.invalid", "127.0.0.1", "localhost"):
            assert (await loop.getaddrinfo(host, 1))[0][4] == ("127.0.0.9", 99)
    monkeypatch.setattr(socket, "getaddrinfo", replaced)
    impl.run(main())
    assert [host for host, _ in calls] == ["name.invalid", "127.0.0.1", "localhost"]


def test_failing_resolver(impl, monkeypatch):
    def failing(*args, **kwargs):
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    async def main():
        loop = asyncio.get_running_loop()
        with pytest.raises(socket.gaierror, match="try again"):
            await loop.getaddrinfo("name.invalid", 1)
        with pytest.raises(socket.gaierror, match="try again"):
            await loop.create_connection(asyncio.Protocol, "name.invalid", 1)
        with pytest.raises(socket.gaierror, match="try again"):
            await loop.create_server(asyncio.Protocol, "name.invalid", 1)
    monkeypatch.setattr(socket, "getaddrinfo", failing)
    impl.run(main())


def test_cancelled(impl, monkeypatch):
    """The caller goes on at once; the thread ends by itself."""
    import threading
    let_go, entered = threading.Event(), threading.Event()

    def slow(*args, **kwargs):
        entered.set()
        let_go.wait(5)
        return []

    async def main():
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(loop.getaddrinfo("name.invalid", 1))
        while not entered.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        let_go.set()
    monkeypatch.setattr(socket, "getaddrinfo", slow)
    impl.run(main())


# getnameinfo

ADDRESSES = [
    ("127.0.0.1", 80), ("::1", 80), ("::1", 80, 0, 0), ("127.0.0.1", 0), ("127.0.0.1", 53), ("0.0.0.0", 80),
    ("127.0.0.1", 65535), ("127.0.0.1", 65536), ("127.0.0.1", -1), ("127.0.0.1", "80"), ("127.0.0.1",), (), None, "x",
    ["127.0.0.1", 80], ("127.0.0.1", 80, 1, 1), ("::1", 80, 2 ** 21, 0), ("::1", 80, 5), ("fe80::1%lo", 80),
    ("fe80::1", 80, 0, 1), (5, 80), (b"127.0.0.1", 80), ("127.0.0.1", None), ("127.0.0.1", 1.5), ("127.0.0.1\x00", 80),
    ("::1", 80, 0, 2 ** 40), ("127.0.0.1", True),
]
NUMERIC = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
FLAGS = [NUMERIC, NUMERIC | socket.NI_DGRAM, NUMERIC | socket.NI_NAMEREQD, socket.NI_NUMERICHOST,
         socket.NI_NUMERICHOST | socket.NI_DGRAM]


def test_getnameinfo(impl):
    async def main():
        loop = asyncio.get_running_loop()
        for address, flags in itertools.product(ADDRESSES, FLAGS):
            want = expected(socket.getnameinfo, address, flags)
            found = await got(loop.getnameinfo(address, flags))
            assert found == want, (address, flags)
    impl.run(main())


def test_getnameinfo_of_localhost(impl):
    async def main():
        loop = asyncio.get_running_loop()
        for address in (("127.0.0.1", 80), ("::1", 443)):
            want = socket.getnameinfo(address, 0)
            assert await loop.getnameinfo(address) == want
            assert await loop.getnameinfo(sockaddr=address, flags=0) == want
        for flags in ("x", None, 1.5, 2 ** 70):
            want = expected(socket.getnameinfo, ("127.0.0.1", 80), flags)
            assert await got(loop.getnameinfo(("127.0.0.1", 80), flags)) == want
    impl.run(main())


def test_executor_is_used_for_names(impl):
    """A default executor of the user's gets the lookups that may block."""
    import concurrent.futures
    used = []

    class Executor(concurrent.futures.ThreadPoolExecutor):
        def submit(self, function, *args, **kwargs):
            used.append(1)
            return super().submit(function, *args, **kwargs)

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(Executor(1))
        await loop.getaddrinfo("localhost", 80)
        await loop.getnameinfo(("127.0.0.1", 80), 0)
        assert len(used) == 2
    impl.run(main())
