"""After fork: what tests/loop/test_fork.py leaves out.  Each use of the parent's loop, children that go on in its
callbacks, child processes and connections of the parent, multiprocessing and pools of processes."""

import pytest

from support import FASTLOOP, check_child, forks, same_child

FORK = forks.FORK + """
    from support.proc import *
"""

USES = {
    "run_forever": "loop.run_forever()",
    "run_until_complete": "loop.run_until_complete(future)",
    "call_soon_threadsafe": "loop.call_soon_threadsafe(int)",
    "run_coroutine_threadsafe": "asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop)",
    "run_in_executor": "loop.run_in_executor(None, int)",
    "add_reader": "loop.add_reader(a, int)",
    "add_writer": "loop.add_writer(a, int)",
    "remove_reader": "loop.remove_reader(b)",
    "add_signal_handler": "loop.add_signal_handler(signal.SIGUSR2, int)",
    "sock_recv": "loop.sock_recv(a, 1).send(None)",
    "sock_accept": "loop.sock_accept(listener).send(None)",
}


def test_each_use_of_the_parents_loop_is_an_error():
    """And the parent's goes on: its reader, its signal handler, its executor, its children."""
    out = check_child(FASTLOOP, FORK + f"""
    import socket
    uses = {USES!r}
    a, b = socket.socketpair()
    listener = socket.create_server(("127.0.0.1", 0))
    for sock in (a, b, listener):
        sock.setblocking(False)
    loop = impl.new_loop()
    came = []
    loop.add_reader(b, lambda: came.append(b.recv(10)))
    loop.add_signal_handler(signal.SIGUSR1, came.append, "signal")
    loop.run_until_complete(loop.run_in_executor(None, int))
    process = loop.run_until_complete(spawn("/bin/cat"))
    future = loop.create_future()
    for name, use in uses.items():
        in_child(lambda: eval(use))
    a.send(b"data")
    os.kill(os.getpid(), signal.SIGUSR1)
    loop.run_until_complete(asyncio.sleep(0.01))
    print(came, loop.run_until_complete(loop.run_in_executor(None, int, "3")),
          loop.run_until_complete(finish(process, b"alive")))
    loop.remove_signal_handler(signal.SIGUSR1)
    loop.remove_reader(b)
    loop.close()
    """)
    *lines, last = out.splitlines()
    assert last in ("[b'data', 'signal'] 3 (0, b'alive', b'')", "['signal', b'data'] 3 (0, b'alive', b'')")
    said = [line for line in lines if line.startswith("child:")]
    assert lines == [x for line in said for x in (line, "status 0")]
    for use, line in zip(USES, said, strict=True):
        assert line.startswith("child: RuntimeError this event loop belongs to the parent of a forked process"), (use, line)


def test_child_that_goes_on_in_the_parents_run():
    """A callback forks, and returns in both: in the child the run ends with an error, in the parent it goes on."""
    out = check_child(FASTLOOP, """
    warnings.simplefilter("ignore")
    loop = impl.new_loop()
    r, w = os.pipe()
    got = []
    loop.add_reader(r, lambda: (got.append(os.read(r, 10)), loop.stop()))
    loop.run_until_complete(asyncio.sleep(0.001))
    pids = []
    loop.call_soon(lambda: pids.append(os.fork()))
    loop.call_later(5, loop.stop)
    signal.alarm(10)
    try:
        loop.call_later(0.001, lambda: pids[0] and os.write(w, b"x"))
        loop.run_forever()
    except RuntimeError as exc:
        assert pids == [0]
        os._exit(7 if "fork" in str(exc) else 8)
    print(got, os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]))
    loop.remove_reader(r)
    loop.close()
    """)
    assert out == "[b'x'] 7\n"


def test_forked_in_a_task_that_goes_on():
    """In the child asyncio has no running loop any more; a task that does not ask for it is not run on, either."""
    out = check_child(FASTLOOP, """
    warnings.simplefilter("ignore")
    async def main():
        future = loop.create_future()
        loop.call_later(0.001, future.set_result, os.fork())
        return await future
    loop = impl.new_loop()
    task = loop.create_task(main())
    signal.alarm(10)
    try:
        pid = loop.run_until_complete(task)
    except RuntimeError as exc:
        os._exit(7 if "fork" in str(exc) else 8)
    print(pid != 0 and os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    loop.close()
    """)
    assert out == "7\n"


def test_fork_leaves_the_parents_children_alone():
    """A copy of a process's transport that is closed or dropped in a fork neither kills nor waits for the process."""
    actions = ["transport.close()", "transport.get_pipe_transport(0).close()", "loop.close()", "drop()", "sys.exit()"]
    out = check_child(FASTLOOP, FORK + f"""
    def drop():
        global transport
        protocol.transport = None
        del transport
        gc.collect()

    def act(action):
        try:
            eval(action)
        except RuntimeError as exc:
            return str(exc)

    loop = impl.new_loop()
    protocol = Process()
    transport = loop.run_until_complete(attend(protocol, "/bin/cat"))
    loop.run_until_complete(protocol.wait("connection_made"))
    for action in {actions!r}:
        in_child(lambda: act(action))
        print(is_alive(transport.get_pid()), transport.get_returncode())
        transport.get_pipe_transport(0).write(b"alive ")
        before = len(protocol.pipes[1])
        loop.run_until_complete(protocol.until(lambda: len(protocol.pipes[1]) == before + 6))
    transport.get_pipe_transport(0).close()
    loop.run_until_complete(protocol.wait("connection_lost"))
    print(bytes(protocol.pipes[1]), transport.get_returncode())
    transport.close()
    loop.close()
    """)
    lines = [line for line in out.splitlines() if not line.startswith("child:")]
    assert lines == ["status 0", "True None"] * len(actions) + [f"{b'alive ' * len(actions)!r} 0"]


def test_fork_leaves_the_parents_connections_alone():
    """What the child closes are its copies: the parent's poller still watches, its peer sees nothing."""
    actions = ["transport.close()", "transport.abort()", "server.close()", "loop.close()"]
    out = check_child(FASTLOOP, FORK + f"""
    import socket
    class Echo(asyncio.Protocol):
        def connection_made(self, transport):
            made.set_result(transport)
        def data_received(self, data):
            made.result().write(data)
    def act(action):
        try:
            eval(action)
        except RuntimeError as exc:
            return "RuntimeError"
    loop = impl.new_loop()
    made = loop.create_future()
    server = loop.run_until_complete(loop.create_server(Echo, "127.0.0.1", 0))
    client = socket.create_connection(server.sockets[0].getsockname())
    client.settimeout(10)
    transport = loop.run_until_complete(made)
    for action in {actions!r}:
        in_child(lambda: act(action))
        client.sendall(b"still there")
        print(loop.run_until_complete(loop.run_in_executor(None, client.recv, 100)), transport.is_closing())
        made = loop.create_future()
        with socket.create_connection(server.sockets[0].getsockname()):
            second = loop.run_until_complete(made)
        second.abort()
        made = loop.create_future()
        made.set_result(transport)
    transport.close()
    server.close()
    print(loop.run_until_complete(asyncio.sleep(0.001, "closed")))
    client.close()
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    """)
    lines = [line for line in out.splitlines() if not line.startswith("child:")]
    assert lines == ["status 0", "b'still there' False"] * len(actions) + ["closed"]


def test_new_loop_in_the_child_has_all_that_loops_have():
    """Children of its own, threads, signals, connections; the parent's go on meanwhile."""
    out = same_child(FORK + """
    async def everything(word):
        loop = asyncio.get_running_loop()
        came = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, came.set)
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.wait_for(came.wait(), 10)
        loop.remove_signal_handler(signal.SIGUSR1)
        server = await asyncio.start_server(lambda r, w: (w.write(word), w.close()), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        found = await reader.read(), await asyncio.to_thread(int, "3"), await run("/bin/cat", input=word)
        writer.close()
        server.close()
        return found
    def repeat():
        return [impl.run(everything(b"child")) for _ in range(2)][-1]
    async def main():
        first = await everything(b"parent")
        process = await spawn("/bin/cat")
        in_child(repeat)
        return first == await everything(b"parent"), await finish(process, b"mine")
    print(impl.run(main()))
    """, limit=20)
    assert out.splitlines() == ["child: (b'child', 3, (0, b'child', b''))", "status 0", "(True, (0, b'mine', b''))"]


def test_fork_of_a_fork():
    out = same_child(FORK + """
    def grandchild():
        return impl.run(run(*sh("cat; exit 3"), input=b"deep"))
    def child():
        async def main():
            await asyncio.sleep(0.001)
            in_child(grandchild)
            return "middle"
        return impl.run(main())
    async def main():
        in_child(child)
        return await asyncio.sleep(0.001, "top")
    print(impl.run(main()))
    """)
    assert out.splitlines() == ["child: (3, b'deep', b'')", "status 0", "child: middle", "status 0", "top"]


def test_fork_in_a_thread_while_the_loop_sleeps():
    """The child's copy of the loop looks as if it slept; a future of the parent's set there wakes nobody."""
    out = check_child(FASTLOOP, FORK + """
    async def main():
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        def act():
            future.set_result(None)
            future.add_done_callback(print)
            loop.call_soon(print, "never")
            return "set"
        await asyncio.to_thread(in_child, act)
        before = time.process_time()
        await asyncio.sleep(0.05)
        return future.done(), time.process_time() - before < 0.04
    print(impl.run(main()))
    """)
    assert out.splitlines() == ["child: set", "status 0", "(False, True)"]


def test_forks_in_several_threads_at_once():
    out = same_child(FORK + """
    def one(n):
        pid = os.fork()
        if pid == 0:
            signal.alarm(10)
            os._exit(impl.run(asyncio.sleep(0.001, n)))
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    async def main():
        return await asyncio.gather(*[asyncio.to_thread(one, n) for n in range(6)])
    print(impl.run(main()))
    """, limit=20)
    assert out == "[0, 1, 2, 3, 4, 5]\n"


# multiprocessing

METHODS = ("fork", "spawn", "forkserver")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.hang(90)
def test_multiprocessing(method):
    """A process started from a running loop, and one that runs a loop itself."""
    out = same_child(f"""
    import multiprocessing
    warnings.simplefilter("ignore")
    from support.proc import output_there, put_from_there
    context = multiprocessing.get_context({method!r})
    async def main():
        queue = context.SimpleQueue()
        process = context.Process(target=put_from_there, args=(impl.name, "value", queue))
        process.start()
        pid, value = await asyncio.to_thread(queue.get)
        await asyncio.to_thread(process.join)
        print(value, pid == process.pid, process.exitcode)
        process.close()
        if {method == "fork"}:  # a pool is the same whatever its processes come from, only slower
            with context.Pool(2) as pool:
                print(await asyncio.to_thread(pool.starmap, output_there, [(impl.name, c) for c in "abc"]))
    if __name__ == "__main__":
        impl.run(main())
    """, limit=40)
    assert out.splitlines() == ["value True 0", "['a', 'b', 'c']"][:2 if method == "fork" else 1]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.hang(90)
def test_process_pool_through_run_in_executor(method):
    out = same_child(f"""
    import concurrent.futures, multiprocessing
    warnings.simplefilter("ignore")
    from support.proc import exit_there, fail_there, run_there
    context = multiprocessing.get_context({method!r})
    async def main():
        loop = asyncio.get_running_loop()
        with concurrent.futures.ProcessPoolExecutor({2 if method == "fork" else 1}, mp_context=context) as pool:
            print(await asyncio.gather(*[loop.run_in_executor(pool, pow, 2, n) for n in range(20)]))
            found = await asyncio.gather(*[loop.run_in_executor(pool, run_there, impl.name, n) for n in range(4)])
            print([n for pid, n in found], os.getpid() in [pid for pid, n in found])
            try:
                await loop.run_in_executor(pool, fail_there, "there")
            except LookupError as exc:
                print(exc.args, type(exc.__cause__).__name__)
            try:
                await loop.run_in_executor(pool, exit_there, 3)
            except concurrent.futures.process.BrokenProcessPool:
                print("broken")
            try:
                await loop.run_in_executor(pool, int)
            except concurrent.futures.process.BrokenProcessPool:
                print("still broken")
    if __name__ == "__main__":
        impl.run(main())
    """, limit=40)
    assert out.splitlines() == [str([2**n for n in range(20)]), "[0, 1, 2, 3] False", "('there',) _RemoteTraceback",
                                "broken", "still broken"]


def test_cancelled_work_of_a_process_pool():
    out = same_child("""
    import concurrent.futures, multiprocessing
    warnings.simplefilter("ignore")
    context = multiprocessing.get_context("fork")
    async def main():
        loop = asyncio.get_running_loop()
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            futures = [loop.run_in_executor(pool, pow, 2, n) for n in range(50)]
            futures[-1].cancel()
            found = await asyncio.gather(*futures, return_exceptions=True)
            print(found[:-1] == [2**n for n in range(49)], type(found[-1]).__name__)
    impl.run(main())
    """, limit=20)
    assert out == "True CancelledError\n"
