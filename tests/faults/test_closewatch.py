"""closewatch.c finds what it is to find, and nothing in a round of connections."""

import importlib.util
import os
import subprocess
import sys

import pytest

from support import TESTS

HERE = os.path.dirname(os.path.abspath(__file__))

pytestmark = pytest.mark.skipif(bool(os.environ.get("LD_PRELOAD")), reason="something else is preloaded")


def load():
    spec = importlib.util.spec_from_file_location("run_closewatch", os.path.join(HERE, "run_closewatch.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


closewatch = load()


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if closewatch.compiler() is None:
        pytest.skip("no C compiler")
    return closewatch.build(str(tmp_path_factory.mktemp("closewatch")))


def watch(library, tmp_path, code):
    return closewatch.watch(library, str(tmp_path / "log"), [sys.executable, "-P", "-c", code],
                            cwd=TESTS, timeout=50, capture_output=True, text=True)


def test_it_finds_a_planted_one(library, tmp_path):
    done, lines = watch(library, tmp_path, """
import os, socket
number = os.dup(0)
os.close(number)
try:
    os.close(number)
except OSError:
    print(number)
sock = socket.socket()
os.close(sock.fileno())
try:
    sock.close()
except OSError:
    pass
""")
    assert done.returncode == 0, done.stderr
    assert [line[0] for line in lines] == [f"close({done.stdout.strip()})"] * 2
    assert lines[0][3].startswith("tests/faults/test_closewatch.py::")


SCENARIO = """
import asyncio, os, random, socket, sys
sys.path[:0] = PATH
from support import FASTLOOP
from support.peers import HOST, Recorder, attach, reset, tcp_pair, unix_pair, until

async def connections():
    loop = asyncio.get_running_loop()
    rnd = random.Random(7)
    server = await loop.create_server(Recorder, HOST, 0)
    address = server.sockets[0].getsockname()
    for number in range(150):
        sock, peer = rnd.choice([tcp_pair, unix_pair])()
        protocol = await attach(sock)
        protocol.transport.write(bytes(rnd.randrange(300_000)))
        if number % 3 == 0:
            peer.close()
        elif number % 3 == 1:
            protocol.transport.abort()
        else:
            protocol.transport.close()
            protocol.transport.abort()
        if number % 2:
            await protocol.lost
        peer.close()
    for number in range(60):
        task = loop.create_task(loop.create_connection(asyncio.Protocol, *address))
        for _ in range(number % 8):
            await asyncio.sleep(0)
        task.cancel()
        try:
            transport, _ = await task
            transport.abort()
        except asyncio.CancelledError:
            pass
    for number in range(10):
        r, w = os.pipe()
        reading, _ = await loop.connect_read_pipe(asyncio.Protocol, os.fdopen(r, "rb", 0))
        writing, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(w, "wb", 0))
        (reading if number % 2 else writing).close()
        await asyncio.sleep(0.001)
        (writing if number % 2 else reading).close()
    server.close()
    await asyncio.sleep(0.01)

FASTLOOP.run(connections())
"""


def test_a_round_of_connections(library, tmp_path):
    done, lines = watch(library, tmp_path, SCENARIO.replace("PATH", repr([TESTS, *filter(None, sys.path)])))
    assert done.returncode == 0, done.stderr
    assert lines == []


def test_the_runner(tmp_path):
    """The stage of .ci/run, on one small file."""
    test = tmp_path / "test_planted.py"
    for body, status in (("pass", 0), ("os.close(os.dup(0) + 100)", 1)):
        test.write_text("import contextlib, os\ndef test():\n    with contextlib.suppress(OSError):\n        " + body)
        done = subprocess.run([sys.executable, os.path.join(HERE, "run_closewatch.py"), str(test)],
                              capture_output=True, text=True, timeout=50)
        assert done.returncode == status, done.stdout + done.stderr
        assert f"{status} closes" in done.stdout
