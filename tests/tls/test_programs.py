"""Programs that are not ours at the other end: openssl s_client and s_server, curl, Python's ssl in a thread."""

import asyncio
import contextlib
import hashlib
import os
import random
import shutil
import socket
import ssl
import subprocess

import pytest

from support import same
from support.net import LIMIT, Stream, io_settled
from support.tls import CERTS, NAME, VERSIONS, cert, client_context, lost, server_context

HOST = "127.0.0.1"
BIG = random.Random(17).randbytes(2 << 20)

openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl program here")
curl = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
versions = pytest.mark.parametrize("version", VERSIONS)
FLAGS = {"TLSv1.2": "-tls1_2", "TLSv1.3": "-tls1_3"}


# A sanitizer that is preloaded here is not for them.
ENVIRONMENT = dict(os.environ, SSL_CERT_DIR=CERTS, LD_PRELOAD="")


class Program:
    """A program with pipes; blocking, so for threads."""

    def __init__(self, *command):
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0,
            env=ENVIRONMENT)

    def say(self, data):
        self.process.stdin.write(data)

    def until(self, text):
        """Read on until `text` was printed; all that was."""
        found = b""
        while text not in found:
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                raise AssertionError(f"{self.process.args} ended: {found!r}")
            found += data
        return found

    def rest(self):
        """End its input, and wait for its end."""
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        found = b""
        while data := os.read(self.process.stdout.fileno(), 65536):
            found += data
        self.process.wait(LIMIT)
        return found

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.process.kill()
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(LIMIT)


def s_client(address, *flags):
    return Program("openssl", "s_client", "-connect", f"{address[0]}:{address[1]}", "-servername", NAME,
                   "-verify_hostname", NAME, "-CAfile", cert("ca"), "-verify_return_error", *flags)


def threaded(function, *args):
    return asyncio.wait_for(asyncio.to_thread(function, *args), 3 * LIMIT)


@contextlib.asynccontextmanager
async def serving(factory, **keywords):
    server = await asyncio.get_running_loop().create_server(factory, HOST, 0, ssl=server_context(**keywords))
    try:
        yield server.sockets[0].getsockname()[:2]
    finally:
        server.close()
        await asyncio.wait_for(server.wait_closed(), LIMIT)
        await io_settled()


def echoing():
    return Stream({"data_received": lambda p, data: p.transport.write(data.upper())})


# s_client

@openssl
@versions
def test_s_client(version):
    def body(impl):
        async def main():
            p = echoing()

            def talk(address):
                with s_client(address, FLAGS[version], "-alpn", "h2,http/1.1", "-quiet", "-no_ign_eof") as program:
                    program.say(b"hello\n")
                    said = program.until(b"HELLO\n")
                    program.say(b"again\n")
                    said += program.until(b"AGAIN\n")
                    program.rest()
                    return said.count(b"HELLO\n"), program.process.returncode
            async with serving(lambda: p, alpn=["http/1.1"]) as address:
                found = await threaded(talk, address)
                await lost(p)
                info = p.transport.get_extra_info("ssl_object")
                return found, bytes(p.received), p.names()[-2:], info.version(), info.selected_alpn_protocol()
        return impl.run(main())
    found, received, names, agreed, alpn = same(body)
    assert found == [1, 0] and received == b"hello\nagain\n"
    assert names == ["eof_received", "connection_lost"]
    assert (agreed, alpn) == (version, "http/1.1")


@openssl
def test_s_client_key_updates(impl):
    """TLS 1.3: forty changes of keys, asked for and not, with data between them."""
    async def main():
        p = echoing()

        def talk(address):
            with s_client(address, "-tls1_3") as program:
                # what it says when the connection stands
                program.until(b"\n---\n")
                for n in range(40):
                    program.say(b"k\n" if n % 3 else b"K\n")
                    program.until(b"KEYUPDATE")
                    if n % 10 == 9:
                        program.say(b"line %d\n" % n)
                        program.until(b"LINE %d\n" % n)
                program.say(b"Q\n")
                program.rest()
        async with serving(lambda: p) as address:
            await threaded(talk, address)
            await lost(p)
            assert bytes(p.received) == b"line 9\nline 19\nline 29\nline 39\n"
            assert p.trace[-1] == ("connection_lost", None)
    impl.run(main())


@openssl
def test_s_client_renegotiates(impl):
    """TLS 1.2: a client may ask for it. Whatever OpenSSL answers, what came before is there, and nothing hangs."""
    async def main():
        p = echoing()

        def talk(address):
            with s_client(address, "-tls1_2") as program:
                program.until(b"Verify return code: 0 (ok)")
                program.say(b"before\n")
                program.until(b"BEFORE\n")
                for _ in range(3):
                    try:
                        program.say(b"R\n")
                        program.until(b"RENEGOTIATING")
                    except (AssertionError, BrokenPipeError):
                        break  # it was sent away
                return program.rest()
        async with serving(lambda: p) as address:
            await threaded(talk, address)
            await lost(p)
            assert bytes(p.received) == b"before\n"
            assert p.names().count("connection_lost") == 1
    impl.run(main())


@openssl
@versions
def test_s_client_comes_back(impl, version):
    """-reconnect: five more connections with the session of the first."""
    async def main():
        protocols = []

        def factory():
            protocols.append(Stream())
            return protocols[-1]

        def talk(address):
            with s_client(address, FLAGS[version], "-reconnect") as program:
                program.say(b"")
                return program.rest()
        async with serving(factory) as address:
            said = await threaded(talk, address)
            for p in protocols:
                if p.transport is not None and not p.lost:
                    p.transport.abort()
                    await lost(p)
            assert len(protocols) == 6
            if version == "TLSv1.2":
                assert said.count(b"Reused, TLSv1.2") == 5, said
    impl.run(main())


@openssl
def test_s_client_without_a_certificate(impl):
    """Sent away by a server that wants one; with one, let in."""
    async def main():
        protocols = []

        def factory():
            protocols.append(echoing())
            return protocols[-1]

        def talk(address, *flags):
            with s_client(address, "-tls1_2", "-quiet", "-no_ign_eof", *flags) as program:
                with contextlib.suppress(OSError):
                    program.say(b"hello\n")
                try:
                    said = program.until(b"HELLO\n")
                except AssertionError as exc:
                    said = str(exc).encode()
                return said + program.rest()
        async with serving(factory, clients="ca") as address:
            assert b"HELLO" not in await threaded(talk, address)
            assert b"HELLO" in await threaded(talk, address, "-cert", cert("client"), "-key", cert("client"))
            await lost(protocols[1])
            assert protocols[0].trace == []
            assert protocols[1].trace[0] == ("connection_made",)
    impl.run(main())


# s_server

def free_server(*flags):
    """s_server on a port that the kernel chose; it prints which."""
    program = Program("openssl", "s_server", "-accept", f"{HOST}:0", "-cert", cert("server"), *flags)
    said = program.until(b"ACCEPT ")
    while b"\n" not in said.split(b"ACCEPT ")[1]:
        said += program.until(b"\n")
    return program, int(said.split(b"ACCEPT ")[1].split(b"\n")[0].rpartition(b":")[2])


@openssl
@versions
def test_s_server(impl, version):
    """-rev sends each line back turned round."""
    async def main():
        program, port = await threaded(free_server, FLAGS[version], "-rev")
        try:
            reader, writer = await asyncio.open_connection(HOST, port, ssl=client_context(), server_hostname=NAME)
            assert writer.get_extra_info("ssl_object").version() == version
            for line in (b"stressed", b"x" * 10000):
                writer.write(line + b"\n")
                async with asyncio.timeout(LIMIT):
                    assert await reader.readline() == line[::-1] + b"\n"
            writer.close()
            await writer.wait_closed()
        finally:
            program.__exit__()
        await io_settled()
    impl.run(main())


@openssl
def test_s_server_key_updates(impl):
    """A server of TLS 1.3 that changes its keys amid what it sends."""
    async def main():
        program, port = await threaded(free_server, "-tls1_3", "-msg")
        try:
            reader, writer = await asyncio.open_connection(HOST, port, ssl=client_context(), server_hostname=NAME)

            for n in range(20):
                program.say(b"K\n" if n % 2 else b"k\n")
                # two commands in one read would be one to it
                await threaded(program.until, b">>> TLS 1.3, Handshake [length 0005], KeyUpdate")
                program.say(b"line %d\n" % n)
                async with asyncio.timeout(LIMIT):
                    assert await reader.readline() == b"line %d\n" % n
                writer.write(b"answer %d\n" % n)
                await threaded(program.until, b"answer %d\n" % n)
            writer.close()
            await writer.wait_closed()
        finally:
            program.__exit__()
        await io_settled()
    impl.run(main())


# curl

class Http(asyncio.Protocol):
    """Just enough of it for curl."""

    def connection_made(self, transport):
        self.transport = transport
        self.data = b""

    def data_received(self, data):
        self.data += data
        while b"\r\n\r\n" in self.data:
            head, _, rest = self.data.partition(b"\r\n\r\n")
            size = 0
            for line in head.split(b"\r\n"):
                if line.lower().startswith(b"content-length:"):
                    size = int(line.split(b":")[1])
            if b"100-continue" in head and not rest:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                head = head.replace(b"100-continue", b"")
                self.data = head + b"\r\n\r\n" + rest
            if len(rest) < size:
                return
            body = hashlib.sha256(rest[:size]).hexdigest().encode() if size else BIG
            self.transport.writelines([b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body])
            self.data = rest[size:]

    def connection_lost(self, exc):
        pass


@curl
@versions
def test_curl(impl, version, tmp_path):
    """Downloads on one connection, and an upload: whole, and curl is content."""
    upload = tmp_path / "upload"
    upload.write_bytes(BIG)

    async def main():
        def get(address):
            url = f"https://{NAME}:{address[1]}/"
            command = ["curl", "--silent", "--show-error", "--http1.1", "--cacert", cert("ca"), "--noproxy", "*",
                       "--resolve", f"{NAME}:{address[1]}:{HOST}", "--max-time", "20",
                       "--tls-max", version.removeprefix("TLSv"), f"--tlsv{version.removeprefix('TLSv')}"]
            keywords = {"capture_output": True, "timeout": 30, "env": ENVIRONMENT}
            downloads = subprocess.run([*command, url, url, url], **keywords)
            uploaded = subprocess.run([*command, "--data-binary", f"@{upload}", url], **keywords)
            assert downloads.returncode == uploaded.returncode == 0, downloads.stderr + uploaded.stderr
            return downloads.stdout == BIG * 3, uploaded.stdout.decode()
        async with serving(Http) as address:
            assert await threaded(get, address) == (True, hashlib.sha256(BIG).hexdigest())
    impl.run(main())


@curl
def test_curl_does_not_trust_everybody(impl):
    """Its refusal is no report of ours."""
    async def main():
        def get(address):
            return subprocess.run(["curl", "--silent", "--noproxy", "*", "--cacert", cert("stranger"), "--resolve",
                                   f"{NAME}:{address[1]}:{HOST}", f"https://{NAME}:{address[1]}/"],
                                  capture_output=True, timeout=30, env=ENVIRONMENT)
        async with serving(Http) as address:
            assert (await threaded(get, address)).returncode == 60
    impl.run(main())


# Python's ssl in a thread

@versions
def test_ssl_socket_as_client(impl, version):
    """2 MiB there and back, through sockets that block, and unwrap() at the end."""
    async def main():
        p = Stream({"data_received": lambda p, data: p.transport.write(data)})

        def talk(address):
            with socket.create_connection(address, timeout=3 * LIMIT) as sock:
                with client_context(version=VERSIONS[version]).wrap_socket(sock, server_hostname=NAME) as tls:
                    got = b""
                    for at in range(0, len(BIG), 100000):
                        tls.sendall(BIG[at:at + 100000])
                        want = min(100000, len(BIG) - at)
                        while want:
                            data = tls.recv(want)
                            want -= len(data)
                            got += data
                    tls.unwrap()
                    return got == BIG
        async with serving(lambda: p) as address:
            assert await threaded(talk, address)
            await lost(p)
            assert p.names()[-2:] == ["eof_received", "connection_lost"]
    impl.run(main())


@versions
def test_ssl_socket_as_server(impl, version):
    """Our client against it: download and upload, and a polite end."""
    async def main():
        listener = socket.create_server((HOST, 0))
        listener.settimeout(LIMIT)

        def serve():
            sock, _ = listener.accept()
            sock.settimeout(3 * LIMIT)
            with server_context(version=VERSIONS[version]).wrap_socket(sock, server_side=True) as tls:
                tls.sendall(BIG)
                got = b""
                while len(got) < len(BIG):
                    got += tls.recv(65536)
                with contextlib.suppress(ssl.SSLError, OSError):
                    tls.unwrap()
                return got == BIG
        serving_it = asyncio.ensure_future(threaded(serve))
        reader, writer = await asyncio.open_connection(
            *listener.getsockname(), ssl=client_context(), server_hostname=NAME)
        async with asyncio.timeout(3 * LIMIT):
            assert await reader.readexactly(len(BIG)) == BIG
            writer.write(BIG)
            await writer.drain()
            assert await serving_it
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
        listener.close()
        await io_settled()
    impl.run(main())


def test_many_ssl_sockets_at_once(impl):
    """Eight threads, five connections each, all echoed."""
    async def main():
        context = client_context()

        def talk(address, n):
            for m in range(5):
                with socket.create_connection(address, timeout=3 * LIMIT) as sock:
                    with context.wrap_socket(sock, server_hostname=NAME) as tls:
                        data = b"%d %d " % (n, m) * 3000
                        tls.sendall(data)
                        got = b""
                        while len(got) < len(data):
                            got += tls.recv(65536)
                        assert got == data
            return True

        class Echo(asyncio.Protocol):
            def connection_made(self, transport):
                self.transport = transport

            def data_received(self, data):
                self.transport.write(data)
        async with serving(Echo) as address:
            assert all(await asyncio.gather(*(threaded(talk, address, n) for n in range(8))))
            await asyncio.sleep(0)
            await io_settled()
    impl.run(main())
