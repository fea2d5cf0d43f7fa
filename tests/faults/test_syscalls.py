"""System calls that fail, by strace's fault injection: one connection may be lost for it, and nothing else.

The names cover what a transport may use; a call that the process never makes fails nothing,
and each of several names fails when its own turn comes.
"""

import concurrent.futures
import json
import os
import shutil
import subprocess
import sys

import pytest

from support import TESTS

STRACE = shutil.which("strace")
RECEIVE, SEND, POLL = "recvfrom,recvmsg,readv", "sendto,sendmsg,writev", "epoll_wait,epoll_pwait,epoll_pwait2"
LIMIT = 20


def works():
    if STRACE is None:
        return False
    try:
        return subprocess.run([STRACE, "-qq", "-o", "/dev/null", "-e", "inject=getppid:error=EINTR", "true"],
                              capture_output=True, timeout=10).returncode == 0
    except subprocess.TimeoutExpired:
        return False


pytestmark = [
    pytest.mark.skipif(not works(), reason="strace is not installed, or may not trace"),
    pytest.mark.skipif(bool(os.environ.get("LD_PRELOAD")), reason="strace would trace what is preloaded, too"),
]

# Six clients, one after another, by turns on streams and on protocols; writes and
# writelines.  Each ends within two seconds or says that it did not.
CODE = """
import asyncio, json, os, sys, time
sys.path[:0] = {path!r}
from support import FASTLOOP
from support.peers import HOST, Cpu, descriptors

reports = []
SIZE = 60_000

class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        open_transports.add(transport)
    def data_received(self, data):
        self.transport.writelines([data[:10], data[10:]])
    def connection_lost(self, exc):
        open_transports.discard(self.transport)
        lost.append(self)

class Client(Echo):
    def __init__(self, done):
        self.done, self.left = done, SIZE
    def connection_made(self, transport):
        super().connection_made(transport)
        transport.write(bytes(SIZE))
    def data_received(self, data):
        self.left -= len(data)
        if self.left <= 0:
            self.transport.close()
    def connection_lost(self, exc):
        super().connection_lost(exc)
        if exc is not None:
            self.done.set_exception(exc)
        else:
            self.done.set_result("ok" if self.left == 0 else "short")

open_transports = set()
lost = []

async def by_protocol(address):
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    await loop.create_connection(lambda: Client(done), *address)
    return await done

async def by_streams(address):
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.writelines([bytes(10), bytes(SIZE - 10)])
        await writer.drain()
        got = await reader.readexactly(SIZE)
        return "ok"
    finally:
        writer.transport.abort()

async def client(number, address):
    try:
        async with asyncio.timeout(2):
            return await (by_streams if number % 2 else by_protocol)(address)
    except (OSError, EOFError) as exc:
        return type(exc).__name__

async def serve():
    for _ in range(2):
        try:
            return await asyncio.get_running_loop().create_server(Echo, HOST, 0)
        except OSError as exc:
            results.append("no server: " + type(exc).__name__)

results = []

async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: reports.append(
        [context.get("message"), type(context.get("exception")).__name__]))
    before = descriptors()
    server = await serve()
    address = server.sockets[0].getsockname()
    for number in range(6):
        results.append(await client(number, address))
    server.close()
    for transport in list(open_transports):
        transport.abort()
    await asyncio.sleep(0.01)
    left = descriptors() - before
    assert len(lost) == len(set(map(id, lost)))
    print(json.dumps([results, reports, left]))

for attempt in range(3):
    loop = None
    try:
        loop = FASTLOOP.Loop()
        for _ in range(2):  # the signal pipe is made in the first sleep that succeeds in it
            loop.run_until_complete(asyncio.sleep(0.001))
        break
    except OSError:
        if loop is not None:
            loop.close()
loop.run_until_complete(main())
loop.close()
"""


def run(call, error, when):
    """[results of the clients, reports, descriptors left] under one injection."""
    inject = f"inject={call}:error={error}:when={when}"
    command = [STRACE, "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject,
               sys.executable, "-P", "-X", "faulthandler", "-c",
               CODE.format(path=[TESTS, *filter(None, sys.path)])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               start_new_session=True)
    try:
        out, err = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        out, err = process.communicate()
        err += "\nkilled"
    if process.returncode or not out:
        return f"status {process.returncode}: {err[-3000:]}"
    return json.loads(out)


def survey(points):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return dict(zip(points, pool.map(lambda point: run(*point), points)))


def judge(points, lost, reported):
    """At most `lost` of six clients fail, at most `reported` reports, nothing stays open; no other trouble."""
    wrong = {}
    for point, found in survey(points).items():
        if isinstance(found, str):
            wrong[point] = found
            continue
        results, reports, left = found
        if len(results) - results.count("ok") > lost or len(reports) > reported or left > 0:
            wrong[point] = found
    assert wrong == {}


def test_nothing_fails():
    judge([("getppid", "EINTR", "1")], 0, 0)


def test_accept_goes_on():
    """A client that is gone already, or that is not allowed in, keeps nobody else out."""
    judge([("accept4", error, "1") for error in ("ECONNABORTED", "EINTR", "EAGAIN")], 0, 0)


def test_accept_reports_what_it_does_not_know():
    """And the next client is served all the same; asyncio reports these as errors of a callback."""
    judge([("accept4", error, "1") for error in ("EPROTO", "EPERM", "ENETDOWN")], 0, 1)


def test_accept_without_resources():
    """One report, and a second later everybody is served."""
    judge([("accept4", error, "1") for error in ("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM")], 0, 1)


def test_interrupted_calls():
    judge([(call, error, "1+3") for call in (RECEIVE, SEND) for error in ("EINTR", "EAGAIN")]
          + [(POLL, "EINTR", "1+2")], 0, 0)


def test_receiving_fails():
    judge([(RECEIVE, error, when) for error in ("ECONNRESET", "ETIMEDOUT", "ENOMEM") for when in ("1", "4")], 2, 0)


def test_sending_fails():
    errors = ("EPIPE", "ECONNRESET", "ENOBUFS", "ENETDOWN")
    judge([(SEND, error, when) for error in errors for when in ("1", "3")], 2, 0)


def test_epoll_ctl_fails():
    """Too many watches: who asked is told, or its connection is lost; the process goes on."""
    judge([("epoll_ctl", error, str(when)) for error, when in zip(["ENOSPC", "ENOMEM"] * 4, range(1, 9))], 1, 2)
