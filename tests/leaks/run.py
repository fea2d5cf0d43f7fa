"""Looks for growth: each scenario runs N times, then 2N times more.

    python tests/leaks/run.py [--runs N] [--only WORD] [--loop fastloop|asyncio] [--list]

On a debug interpreter all references are counted, on any other the allocated blocks; on
both also descriptors, threads, the collector's objects and, with glibc, bytes of malloc.  A
scenario leaks when both times add more than a third of a unit for each run: what leaks adds
one or more, what only settles (caches, tables that double) adds less and less.
"""

import argparse
import asyncio
import concurrent.futures
import contextlib
import contextvars
import ctypes
import gc
import logging
import os
import socket
import ssl
import sys
import threading
import time
import warnings

SCENARIOS = {}


def scenario(function):
    SCENARIOS[function.__name__] = function
    return function


def load():
    """fastloop: the installed one, or else the one of this checkout."""
    try:
        import fastloop
    except ModuleNotFoundError:
        folder = os.path.dirname(os.path.abspath(__file__))
        sys.path.insert(0, os.path.dirname(os.path.dirname(folder)))
        import fastloop
    return fastloop


class Subject:
    """The loop library under test."""

    def __init__(self, name):
        if name == "asyncio":
            self.Loop, self.Task, self.Future = (
                asyncio.SelectorEventLoop, asyncio.Task, asyncio.Future)
        else:
            fastloop = load()
            self.Loop, self.Task, self.Future = fastloop.Loop, fastloop.Task, fastloop.Future
        self.loop = self.Loop()
        self.loop.set_exception_handler(lambda loop, context: None)

    def close(self):
        loop = self.loop
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def spin(loop, rounds=3):
    for _ in range(rounds):
        loop.call_soon(loop.stop)
        loop.run_forever()


async def give(value=None):
    await asyncio.sleep(0)
    return value


async def fail():
    await asyncio.sleep(0)
    raise LookupError("x")


async def forever():
    await asyncio.get_running_loop().create_future()


def swallow(function, *args, **kwargs):
    with contextlib.suppress(Exception, asyncio.CancelledError):
        return function(*args, **kwargs)


@scenario
def callbacks(s):
    for count in range(7):
        s.loop.call_soon(lambda *a: None, *range(count))
    s.loop.call_soon(int, context=contextvars.copy_context())
    s.loop.call_soon_threadsafe(int)
    s.loop.call_soon(int).cancel()
    spin(s.loop)


@scenario
def callback_errors(s):
    s.loop.call_soon(lambda: 1 / 0)
    s.loop.call_soon(None)
    spin(s.loop)


@scenario
def call_errors(s):
    for method in ("call_soon", "call_later", "call_at", "call_soon_threadsafe", "add_reader",
                   "create_task", "set_task_factory", "add_signal_handler",
                   "set_exception_handler", "remove_reader"):
        swallow(getattr(s.loop, method))
        swallow(getattr(s.loop, method), None)
        swallow(getattr(s.loop, method), None, None)
        swallow(getattr(s.loop, method), print, bad=1)
    s.loop.set_task_factory(None)
    s.loop.set_exception_handler(lambda loop, context: None)
    spin(s.loop)


@scenario
def handles(s):
    kept = [s.loop.call_soon(int, 1), s.loop.call_later(0, int, 2), s.loop.call_at(5e9, int),
            s.loop.call_soon_threadsafe(int)]
    for h in kept:
        repr(h)
        h._args, h._callback, h._context, h._loop
        kept[1] == h, kept[1] < kept[2], hash(h)
    spin(s.loop)
    for h in kept:
        h.cancel()
        h.cancelled()
        repr(h)


@scenario
def handle_cycle(s):
    box = []
    box.append(s.loop.call_later(1000, box.append, box))
    box[0].cancel()
    box2 = []
    box2.append(s.loop.call_soon(box2.append, box2))
    spin(s.loop)


@scenario
def timers(s):
    handles = [s.loop.call_later(n / 1e6, int) for n in range(20)]
    for h in handles[::2]:
        h.cancel()
    s.loop.call_later(0.0001, s.loop.stop)
    s.loop.run_forever()


@scenario
def far_timers(s):
    for _ in range(20):
        s.loop.call_later(1000, int).cancel()
    spin(s.loop)


@scenario
def tasks(s):
    s.loop.run_until_complete(give([1]))
    s.loop.run_until_complete(s.Task(give(), loop=s.loop, name="n"))
    s.loop.run_until_complete(asyncio.Task(give(), loop=s.loop))


@scenario
def task_errors(s):
    swallow(s.loop.run_until_complete, fail())
    s.loop.create_task(fail())
    spin(s.loop, 4)
    swallow(s.Task, None, loop=s.loop)
    swallow(s.Task, 3)


@scenario
def task_attributes(s):
    ctx = contextvars.copy_context()
    task = s.loop.create_task(give(), name="n", context=ctx)
    repr(task), task.get_name(), task.get_coro(), task.get_stack(), task.get_loop()
    task._fut_waiter, task._must_cancel, task._callbacks, task._coro, task._state
    task.set_name("m")
    task.add_done_callback(id)
    task.remove_done_callback(id)
    spin(s.loop, 4)
    task.result(), task.exception(), repr(task)


@scenario
def cancels(s):
    tasks = [s.loop.create_task(forever()) for _ in range(5)]
    tasks[0].cancel("early")
    spin(s.loop)
    for t in tasks:
        t.cancel("m")
        t.uncancel()
        t.cancel()
    spin(s.loop, 4)
    for t in tasks:
        swallow(t.result)
        swallow(t.exception)


@scenario
def pending_tasks_destroyed(s):
    fut = s.loop.create_future()

    async def wait():
        await fut
    s.loop.create_task(wait())
    s.Task(wait(), loop=s.loop)
    spin(s.loop)
    del fut, wait
    gc.collect()


@scenario
def futures(s):
    for make in (s.loop.create_future, lambda: s.Future(loop=s.loop)):
        fut = make()
        fut.add_done_callback(lambda f: None)
        fut.add_done_callback(id)
        fut.add_done_callback(lambda f: None)
        fut._callbacks, repr(fut)
        fut.remove_done_callback(id)
        fut.set_result([1])
        swallow(fut.set_result, 1)
        fut.result(), fut.exception(), fut.get_loop()
        make().set_exception(LookupError())
        fut = make()
        fut.cancel("m")
        swallow(fut.result)
        swallow(fut.exception)
        fut = make()
        swallow(fut.result)
        swallow(fut.set_exception, 3)
        swallow(fut.set_exception, StopIteration)
    spin(s.loop)


@scenario
def future_cycles(s):
    fut = s.loop.create_future()
    fut.add_done_callback(lambda f, fut=fut: None)
    fut.me = fut
    fut = s.loop.create_future()
    fut.set_result(fut)
    fut = s.loop.create_future()
    exc = LookupError()
    exc.fut = fut
    fut.set_exception(exc)


@scenario
def future_again(s):
    fut = s.loop.create_future()
    fut.add_done_callback(id)
    fut.set_result([1])
    swallow(fut.__init__, loop=s.loop)
    s.loop.set_exception_handler(lambda loop, context: None)
    spin(s.loop)


@scenario
def awaits(s):
    async def main():
        fut = s.loop.create_future()
        s.loop.call_soon(fut.set_result, (1, 2))
        await fut
        fut = asyncio.Future()
        s.loop.call_soon(fut.set_exception, LookupError())
        with contextlib.suppress(LookupError):
            await fut
        fut = asyncio.futures._PyFuture(loop=s.loop)
        s.loop.call_soon(fut.set_result, 1)
        await fut
        task = s.loop.create_task(fail())
        with contextlib.suppress(LookupError):
            await task
        await asyncio.shield(give())
        it = iter(s.loop.create_future())
        next(it)
        swallow(it.throw, ValueError)
    s.loop.run_until_complete(main())


@scenario
def gathers(s):
    async def main():
        await asyncio.gather(give(), give(), fail(), return_exceptions=True)
        with contextlib.suppress(LookupError):
            await asyncio.gather(give(), fail())
        await asyncio.wait([s.loop.create_task(give()), s.loop.create_task(give())])
        for aw in asyncio.as_completed([give(), give()]):
            await aw
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(forever(), 0.00001)
        with contextlib.suppress(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(give())
                group.create_task(fail())
                group.create_task(forever())
    s.loop.run_until_complete(main())


@scenario
def timeouts(s):
    async def main():
        async with asyncio.timeout(10):
            await asyncio.sleep(0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.sleep(10)
        await asyncio.sleep(0.00001)
    s.loop.run_until_complete(main())


@scenario
def primitives(s):
    async def main():
        queue, lock, event = asyncio.Queue(1), asyncio.Lock(), asyncio.Event()

        async def consume():
            async with lock:
                for _ in range(3):
                    await queue.get()
            event.set()
        task = s.loop.create_task(consume())
        for n in range(3):
            await queue.put(n)
        await event.wait()
        await task
    s.loop.run_until_complete(main())


@scenario
def eager(s):
    if not hasattr(asyncio, "eager_task_factory"):
        return

    async def now():
        return 1

    async def main():
        task = s.Task(now(), loop=s.loop, eager_start=True)
        await task
        await s.Task(give(), loop=s.loop, eager_start=True)
        swallow(s.Task, 3, loop=s.loop, eager_start=True)
        task = s.Task(forever(), loop=s.loop, eager_start=True)
        task.cancel()
        await asyncio.wait([task])
        s.loop.set_task_factory(asyncio.eager_task_factory)
        await asyncio.gather(give(), now())
        s.loop.set_task_factory(None)
    s.loop.run_until_complete(main())


@scenario
def factories(s):
    s.loop.set_task_factory(lambda loop, coro, **kw: s.Task(coro, loop=loop, **kw))
    s.loop.run_until_complete(give())
    s.loop.run_until_complete(s.loop.create_task(give(), name="n"))
    s.loop.set_task_factory(None)


@scenario
def subclasses(s):
    class F(s.Future):
        __slots__ = ("x",)

    class T(s.Task):
        def __del__(self):
            super().__del__()
    fut = F(loop=s.loop)
    fut.x = fut
    fut.set_result(1)

    async def main():
        return await fut
    s.loop.run_until_complete(T(main(), loop=s.loop))
    gc.collect()


@scenario
def executor(s):
    async def main():
        loop = asyncio.get_running_loop()
        await asyncio.gather(*[loop.run_in_executor(None, int, n) for n in range(5)])
        with contextlib.suppress(ValueError):
            await loop.run_in_executor(None, int, "x")
        loop.run_in_executor(None, int).cancel()
        await asyncio.to_thread(int)
    s.loop.run_until_complete(main())


@scenario
def own_executor(s):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        s.loop.run_until_complete(s.loop.run_in_executor(pool, int))


@scenario
def loops(s):
    loop = s.Loop()
    loop.run_until_complete(give())
    loop.call_later(1000, int)
    loop.call_soon(int)
    loop.close()


@scenario
def loops_with_everything(s):
    loop = s.Loop()
    r, w = os.pipe()
    loop.add_reader(r, int)
    loop.add_writer(w, int)
    loop.run_until_complete(loop.run_in_executor(None, int))
    task = loop.create_task(forever())
    task._log_destroy_pending = False
    loop.run_until_complete(give())
    loop.me = loop
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    os.close(r)
    os.close(w)


@scenario
def loops_forgotten(s):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loop = s.Loop()
        loop.call_soon(int)
        loop.me = loop
        del loop
        gc.collect()


@scenario
def readers(s):
    r, w = os.pipe()
    try:
        os.write(w, b"x")
        s.loop.add_reader(r, int, 1)
        s.loop.add_reader(r, int, 2)
        s.loop.add_writer(w, int)
        spin(s.loop)
        s.loop.remove_reader(r)
        s.loop.remove_writer(w)
        s.loop.remove_writer(w)
        swallow(s.loop.add_reader, -1, int)
        swallow(s.loop.add_reader, "x", int)
        with open(__file__, "rb") as f:
            swallow(s.loop.add_reader, f, int)
    finally:
        os.close(r)
        os.close(w)


@scenario
def signals(s):
    import signal
    s.loop.add_signal_handler(signal.SIGUSR1, int)
    os.kill(os.getpid(), signal.SIGUSR1)
    spin(s.loop)
    s.loop.remove_signal_handler(signal.SIGUSR1)


@scenario
def asyncgens(s):
    async def numbers():
        try:
            for n in range(3):
                yield n
        finally:
            await asyncio.sleep(0)

    async def main():
        async for _ in numbers():
            pass
        async for _ in numbers():
            break
        gc.collect()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    s.loop.run_until_complete(main())


@scenario
def threads(s):
    thread = threading.Thread(
        target=lambda: [s.loop.call_soon_threadsafe(int) for _ in range(10)])
    thread.start()
    thread.join()
    spin(s.loop)


@scenario
def debug(s):
    s.loop.set_debug(True)
    s.loop.slow_callback_duration = 100
    s.loop.call_soon(int)
    s.loop.call_later(0, int)
    s.loop.call_soon(lambda: 1 / 0)
    fut = s.loop.create_future()
    repr(fut)
    s.loop.run_until_complete(give())
    swallow(s.loop.call_soon, give)
    s.loop.set_debug(False)
    spin(s.loop)


@scenario
def contexts(s):
    var = contextvars.ContextVar("var")
    ctx = contextvars.copy_context()
    ctx.run(var.set, [1])

    async def main():
        var.set([2])
        await asyncio.sleep(0)
    s.loop.run_until_complete(s.loop.create_task(main(), context=ctx))
    s.loop.call_soon(var.set, [3], context=ctx)
    spin(s.loop)


@scenario
def interrupts(s):
    def leave():
        raise SystemExit
    s.loop.call_soon(leave)
    with contextlib.suppress(SystemExit):
        s.loop.run_forever()

    async def main():
        raise KeyboardInterrupt
    with contextlib.suppress(KeyboardInterrupt):
        s.loop.run_until_complete(main())
    spin(s.loop)


@scenario
def overrides(s):
    original = s.loop.call_soon
    s.loop.call_soon = lambda *a, **k: original(*a, **k)
    s.loop.run_until_complete(give())
    del s.loop.call_soon

    class Own(s.Loop):
        def call_soon(self, callback, *args, context=None):
            return super().call_soon(callback, *args, context=context)
    loop = Own()
    loop.run_until_complete(give())
    loop.close()


CERTIFICATES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tls", "certs")


def contexts(cache=[]):  # noqa: B006
    """(server's, client's), the same each time: OpenSSL keeps some memory for every context."""
    if not cache:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(os.path.join(CERTIFICATES, "server.pem"))
        server.num_tickets = 0  # it keeps sessions, too
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        cache += server, client
    return cache


class Listener(asyncio.Protocol):
    """Writes what it hears, and closes when it hears enough."""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)
        if data.endswith(b"."):
            self.transport.close()


@scenario
def tls_connections(s):
    async def main():
        far, near = socket.socketpair()
        for_server, for_client = contexts()
        serving = s.loop.connect_accepted_socket(Listener, far, ssl=for_server)
        talking = s.loop.create_connection(Listener, sock=near, ssl=for_client, server_hostname="")
        (_, there), (transport, here) = await asyncio.gather(serving, talking)
        for name in ("ssl_object", "cipher", "peercert", "socket", "nothing"):
            transport.get_extra_info(name)
        transport.write(b"one")
        transport.writelines([b"two", bytearray(b"three."), b""])
        swallow(transport.write, None)
        while not (there.transport.is_closing() and here.transport.is_closing()):
            await asyncio.sleep(0)
        transport.abort()
        await asyncio.sleep(0.001)
    s.loop.run_until_complete(main())
    spin(s.loop)


@scenario
def tls_failures(s):
    async def main():
        far, near = socket.socketpair()
        far.send(b"not TLS at all")
        near.setblocking(False)
        with contextlib.suppress(OSError):
            await s.loop.create_connection(Listener, sock=near, ssl=contexts()[1], server_hostname="")
        far.close()
        await asyncio.sleep(0)
    s.loop.run_until_complete(main())
    spin(s.loop)


@scenario
def child_processes(s):
    async def main():
        child = await asyncio.create_subprocess_exec("true", stdout=asyncio.subprocess.PIPE)
        await child.communicate()
        with contextlib.suppress(OSError):
            await asyncio.create_subprocess_exec("/there/is/no/such/program")
        await asyncio.sleep(0)
    if threading.current_thread() is threading.main_thread():
        s.loop.run_until_complete(main())
        spin(s.loop)


class MallInfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
        "fordblks", "keepcost")]


def malloc_counter():
    """A function that gives the bytes in use of glibc's malloc, or None."""
    try:
        function = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):
        return None
    function.restype = MallInfo
    return lambda: function().uordblks


mallinfo = malloc_counter()


def measure():
    """The counts now, each a number that must not grow."""
    for _ in range(3):
        gc.collect()
    counts = {}
    if hasattr(sys, "gettotalrefcount"):
        counts["references"] = sys.gettotalrefcount()
    counts["blocks"] = sys.getallocatedblocks()
    counts["objects"] = len(gc.get_objects())
    counts["garbage"] = len(gc.garbage)
    counts["descriptors"] = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    counts["threads"] = threading.active_count()
    if mallinfo is not None:
        counts["malloc bytes"] = mallinfo()
    return counts


# How much one run may add before it counts as growth.
ALLOWED = {"malloc bytes": 8.0}


def check(function, subject, runs):
    """{what: (first growth, second growth)} of what grew too much."""
    for _ in range(max(30, runs // 4)):
        function(subject)
    before = measure()
    for _ in range(runs):
        function(subject)
    middle = measure()
    for _ in range(2 * runs):
        function(subject)
    after = measure()
    grown = {}
    for name in before:
        first, second = middle[name] - before[name], after[name] - middle[name]
        each, noise = ALLOWED.get(name, 0.3), 4096 if name == "malloc bytes" else 8
        if first > each * runs and second > each * 2 * runs + noise:
            grown[name] = (first, second)
    return grown


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--only", default="")
    parser.add_argument("--loop", default="fastloop", choices=["fastloop", "asyncio"])
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args(arguments)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)
    sys.unraisablehook = lambda info: None
    warnings.simplefilter("ignore")
    if options.list:
        print("\n".join(SCENARIOS))
        return 0
    failures = 0
    for name, function in SCENARIOS.items():
        if options.only not in name:
            continue
        subject = Subject(options.loop)
        grown = check(function, subject, options.runs)
        if grown:
            # A second look, after pools and caches had time to fill: real growth goes on.
            end = time.monotonic() + 10
            for _ in range(5000):
                function(subject)
                if time.monotonic() > end:
                    break
            # Longer, too: CPython's own free lists come and go by a hundred blocks.
            grown = check(function, subject, options.runs * 5)
        subject.close()
        if grown:
            failures += 1
            details = ", ".join(f"{k} +{a} then +{b}" for k, (a, b) in grown.items())
            print(f"LEAK  {name}: {details}", flush=True)
        else:
            print(f"ok    {name}", flush=True)
    print(f"{failures} of {len(SCENARIOS)} scenarios leak"
          if failures else "no growth")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
