"""Each allocation of fastloop's in turn fails, while connections are made, echo and close.

    python tests/faults/run_nomemory.py [--points N] [--only WORD] [--limit SECONDS] [--from-on] [--point N]

The process warms up and then forks a child for each point.  A child may end with a
MemoryError or as if nothing had happened; a signal, a SystemError or any other exception is
an error of ours.  One may wait for ever, for what failed was to wake it, but then somebody
must have been told of the failure; those are counted, and silence is an error.  With
--from-on all allocations from the point on fail, not just one.
"""

import argparse
import asyncio
import ctypes
import faulthandler
import gc
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
TOLD, SILENT, WRONG = 4, 5, 3  # statuses of a child
SCENARIOS = {}

try:
    import fastloop
except ModuleNotFoundError:
    sys.path.insert(0, os.path.dirname(os.path.dirname(HERE)))
    import fastloop


def scenario(function):
    SCENARIOS[function.__name__] = function
    return function


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class Client(asyncio.Protocol):
    def __init__(self, done, left):
        self.done = done
        self.left = left

    def data_received(self, data):
        self.left -= len(data)
        if self.left <= 0 and not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, exc):
        if not self.done.done():
            self.done.set_result(exc)


class Chunks(Client, asyncio.BufferedProtocol):
    data_received = None

    def get_buffer(self, size):
        self.buffer = bytearray(8192)
        return self.buffer

    def buffer_updated(self, count):
        Client.data_received(self, self.buffer[:count])


async def echo(factory, size, pieces, *, serving={}, calling={}, rest=0):  # noqa: B006
    """What is sent comes back; `serving` and `calling` are further arguments of server and client."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0, **serving)
    done = loop.create_future()
    transport, _ = await loop.create_connection(
        lambda: factory(done, size * pieces), *server.sockets[0].getsockname(), **calling)
    transport.write(b"x" * size)
    transport.writelines([b"y" * size] * (pieces - 1))
    await done
    transport.close()
    server.close()
    await asyncio.sleep(rest)


@scenario
async def small_echo():
    await echo(Client, 100, 3)


@scenario
async def large_echo():
    await echo(Client, 300_000, 4)


@scenario
async def buffered_echo():
    await echo(Chunks, 10_000, 3)


@scenario
async def streams():
    async def serve(reader, writer):
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
        writer.close()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    for _ in range(3):
        writer.write(b"hello\n")
        await reader.readline()
    writer.write_eof()
    await reader.read()
    writer.close()
    await writer.wait_closed()
    server.close()


def contexts():
    """A server's SSLContext and a client's that believes it."""
    import ssl
    certs = os.path.join(os.path.dirname(HERE), "tls", "certs")
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(os.path.join(certs, "server.pem"))
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ours.load_verify_locations(os.path.join(certs, "ca.pem"))
    return theirs, ours


async def tls_echo(factory, size, pieces):
    theirs, ours = contexts()
    await echo(factory, size, pieces, rest=0.01,
               serving={"ssl": theirs, "ssl_shutdown_timeout": 0.1},
               calling={"ssl": ours, "server_hostname": "localhost", "ssl_shutdown_timeout": 0.1})


@scenario
async def tls_small_echo():
    await tls_echo(Client, 100, 3)


@scenario
async def tls_large_echo():
    await tls_echo(Client, 300_000, 4)


@scenario
async def tls_buffered_echo():
    await tls_echo(Chunks, 10_000, 3)


@scenario
async def tls_upgrade():
    async def serve(reader, writer):
        await reader.readline()
        writer.write(b"go ahead\n")
        try:
            await writer.start_tls(theirs)
        except RuntimeError:
            return  # left over when the loop was closed
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
        writer.close()
    theirs, ours = contexts()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"STARTTLS\n")
    await reader.readline()
    await writer.start_tls(ours, server_hostname="localhost")
    writer.write(b"hello\n")
    await reader.readline()
    writer.close()
    await writer.wait_closed()
    server.close()


@scenario
async def sockets_and_pipes():
    import socket
    loop = asyncio.get_running_loop()
    first, second = socket.socketpair()
    r, w = os.pipe()
    with first, second, os.fdopen(r, "rb", 0) as reading, os.fdopen(w, "wb", 0) as writing:
        first.setblocking(False)
        second.setblocking(False)
        await asyncio.gather(loop.sock_sendall(first, b"x" * 50_000), loop.sock_recv(second, 100))
        source, _ = await loop.connect_read_pipe(asyncio.Protocol, reading)
        sink, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, writing)
        sink.write(b"x")
        await asyncio.sleep(0)
        sink.close()
        source.close()
        await asyncio.sleep(0)


@scenario
async def tasks_and_timers():
    async def work(number):
        await asyncio.sleep(0)
        return number
    loop = asyncio.get_running_loop()
    await asyncio.gather(*(work(number) for number in range(5)))
    for handle in [loop.call_later(number / 1e5, int) for number in range(20)]:
        handle.cancel()
    try:
        async with asyncio.timeout(0.001):
            await asyncio.sleep(5)
    except TimeoutError:
        pass
    future = loop.create_future()
    for _ in range(3):
        future.add_done_callback(id)
    loop.call_soon_threadsafe(future.set_result, 1)
    await future


def build(folder):
    """Compile the library; a function that starts it and one that stops it."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    target = os.path.join(folder, "failalloc.so")
    subprocess.run([*compiler.split(), "-O1", "-g", "-Wall", "-Wno-unused-parameter", "-Werror", "-shared", "-fPIC",
                    "-I", sysconfig.get_path("include"), os.path.join(HERE, "failalloc.c"), "-o", target],
                   check=True)
    library = ctypes.PyDLL(target)
    library.failalloc_start.argtypes = [
        ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong]
    library.failalloc_interpreter.restype = ctypes.c_void_p
    library.failalloc_stop.restype = ctypes.c_ulong
    core = os.fsencode(fastloop._core.__file__)
    evaluate = ctypes.cast(ctypes.pythonapi._PyEval_EvalFrameDefault, ctypes.c_void_p)

    def deeper(level):
        if level:
            sorted([level], key=lambda n: deeper(n - 1) or 0)
        else:
            found.append(library.failalloc_interpreter())
    found, spared = [], None
    deeper(10)
    if sys.version_info[:2] == (3, 13):  # says that it worked where it did not, with an exception set
        spared = ctypes.cast(ctypes.pythonapi.PyDict_SetDefault, ctypes.c_void_p)

    def start(first, last):
        if not library.failalloc_start(core, evaluate, found[0], spared, first, last):
            raise SystemExit(f"{core!r} is not loaded")
    return start, library.failalloc_stop


told = []  # that something failed, by way of a report


class Problem(Exception):
    """An exception that is not a failed allocation's."""


def run(main, start=None, stop=None, first=0, last=0):
    """Run a scenario on a fresh loop, with failures; how many allocations there were."""
    problems = []

    def note(exc):
        told.append(type(exc))
        while exc is not None:
            if isinstance(exc, SystemError):
                problems.append(exc)
                return
            if isinstance(exc, (MemoryError, OSError, ResourceWarning)):
                return
            exc, last = exc.__cause__ or exc.__context__, exc
        problems.append(last)
    sys.unraisablehook = lambda info: note(info.exc_value)
    count = 0
    loop = None
    coro = main()
    try:
        if start:
            start(first, last)
        loop = fastloop.Loop()
        loop.set_exception_handler(lambda loop, context: note(context.get("exception") or MemoryError()))
        loop.run_until_complete(coro)
    except MemoryError:
        pass
    except BaseException as exc:
        note(exc)
    finally:
        if start:
            count = stop()
        coro.close()
        if loop is not None:
            for task in asyncio.all_tasks(loop):
                task._log_destroy_pending = False
            loop.close()
    del loop, coro
    gc.collect()
    if problems:
        raise Problem(problems)
    return count


def hanging(*args):
    """Still running: does anyone know why?"""
    gc.collect()  # tasks that failed and were not asked are heard of now
    if not told:
        traceback.print_stack()
        for task in asyncio.all_tasks():
            task.print_stack()
    os._exit(TOLD if told else SILENT)


def child(main, start, stop, first, last, limit):
    """What one point does, in a forked process."""
    signal.signal(signal.SIGALRM, hanging)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        run(main, start, stop, first, last)
        run(main)  # and afterwards everything works
    except Problem as exc:
        for problem in exc.args[0]:
            traceback.print_exception(problem)
        os._exit(WRONG)
    except BaseException:
        traceback.print_exc()
        os._exit(WRONG)
    os._exit(0)


def wait(pid, limit):
    """The status of a child; one that does not even hear its alarm is killed."""
    end = time.monotonic() + limit + 5
    while time.monotonic() < end:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -signal.SIGKILL


def attempt(*args, limit):
    """Fork a child for one point; its status and what it said."""
    with tempfile.TemporaryFile() as said:
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            os.dup2(said.fileno(), 2)
            faulthandler.enable(2)
            child(*args, limit)
        status = wait(pid, limit)
        said.seek(0)
        return status, said.read().decode(errors="replace")


def survey(name, start, stop, options):
    """Try the points of a scenario; (how many, [points that wait], {wrong point: what happened})."""
    main = SCENARIOS[name]
    for _ in range(3):
        run(main)
    total = run(main, start, stop)
    points = [options.point] if options.point else range(1, total + 2, max(1, total // options.points))
    waiting, wrong = [], {}
    for point in points:
        args = main, start, stop, point, 1 << 62 if options.from_on else point
        status, text = attempt(*args, limit=options.limit)
        if status == SILENT:  # or only slow
            status, text = attempt(*args, limit=10 * options.limit)
        if status == TOLD:
            waiting.append(point)
        elif status:
            cause = {WRONG: "exception", SILENT: "hangs, and nobody was told", -signal.SIGKILL: "stuck"}.get(
                status, f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}")
            wrong[point] = f"{cause}\n{text[-3000:]}"
    return len(points), waiting, wrong


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--points", type=int, default=100_000, help="at most so many of each scenario")
    parser.add_argument("--only", default="")
    parser.add_argument("--from-on", action="store_true")
    parser.add_argument("--point", type=int, help="this one alone")
    parser.add_argument("--limit", type=float, default=1.0, help="seconds until a child counts as waiting")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        built = build(folder)
        if built is None:
            print("skipped: there is no C compiler")
            return 0
        failures = points = waits = 0
        for name in SCENARIOS:
            if options.only not in name:
                continue
            began = time.monotonic()
            tried, waiting, wrong = survey(name, *built, options)
            points += tried
            waits += len(waiting)
            failures += len(wrong)
            print(f"{name}: {tried} points, {len(wrong)} wrong, {len(waiting)} wait {waiting or ''}"
                  f" ({time.monotonic() - began:.1f} s)", flush=True)
            for point, text in wrong.items():
                print(f"--- {name}, point {point}: {text}")
    print(f"{points} points, {failures} wrong, {waits} wait")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
