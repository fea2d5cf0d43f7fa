"""After fork: the child's use of the parent's loop is an error and harms nobody."""

import pytest

from support import FASTLOOP, check_child, same_child
from support.forks import FORK


def test_running_the_parents_loop_in_the_child_is_an_error():
    out = check_child(FASTLOOP, FORK + """
    loop = impl.new_loop()
    loop.run_until_complete(asyncio.sleep(0))

    def use():
        loop.run_until_complete(asyncio.sleep(0))
    in_child(use)
    in_child(lambda: loop.run_forever())
    loop.run_until_complete(asyncio.sleep(0.001))
    loop.close()
    """)
    lines = out.splitlines()
    assert [line for line in lines if line.startswith("status")] == ["status 0"] * 2
    errors = [line for line in lines if line.startswith("child:")]
    assert all(line.startswith("child: RuntimeError") and "fork" in line for line in errors), out
    assert len(errors) == 2


def test_running_loop_is_not_running_in_the_child():
    """Forked inside a callback: asyncio forgets the running loop in the child."""
    out = check_child(FASTLOOP, FORK + """
    async def main():
        loop = asyncio.get_running_loop()
        in_child(lambda: asyncio._get_running_loop())
        await asyncio.sleep(0.001)
        return "parent alive"
    print(impl.run(main()))
    """)
    assert out.splitlines() == ["child: None", "status 0", "parent alive"]


def test_new_loop_in_the_child():
    out = same_child(FORK + """
    async def main():
        def use():
            async def there():
                loop = asyncio.get_running_loop()
                value = await loop.run_in_executor(None, int, "7")
                await asyncio.sleep(0.001)
                return value
            return impl.run(there())
        in_child(use)
        await asyncio.sleep(0.001)
        return "parent alive"
    print(impl.run(main()))
    """)
    assert out.splitlines() == ["child: 7", "status 0", "parent alive"]


@pytest.mark.parametrize("action", ["close", "remove", "exit", "collect"])
def test_child_does_not_disturb_the_parents_readers(action):
    """The epoll set is shared; closing or removing in the child must not change it."""
    out = check_child(FASTLOOP, FORK + f"""
    loop = impl.new_loop()
    r, w = os.pipe()
    seen = []
    loop.add_reader(r, lambda: (seen.append(os.read(r, 10)), loop.stop()))
    loop.run_until_complete(asyncio.sleep(0))

    def act():
        global loop
        action = {action!r}
        if action == "close":
            loop.close()
        elif action == "remove":
            try:
                loop.remove_reader(r)
            except RuntimeError:
                pass
        elif action == "collect":
            del loop
            gc.collect()
        return "done"
    in_child(act)
    os.write(w, b"x")
    loop.call_later(5, loop.stop)
    loop.run_forever()
    print(seen)
    loop.remove_reader(r)
    loop.close()
    """)
    assert out.splitlines() == ["child: done", "status 0", "[b'x']"]


def test_child_does_not_wake_the_parent():
    """call_soon_threadsafe in the child must not write to the parent's wake-up descriptor."""
    out = check_child(FASTLOOP, FORK + """
    loop = impl.new_loop()
    loop.run_until_complete(asyncio.sleep(0))

    def act():
        try:
            loop.call_soon_threadsafe(print, "never")
        except RuntimeError:
            return "refused"
        return "queued"
    in_child(act)
    before = time.process_time()
    loop.run_until_complete(asyncio.sleep(0.1))
    print(time.process_time() - before < 0.05)
    loop.close()
    """)
    assert out.splitlines()[1:] == ["status 0", "True"]


def test_fork_with_a_busy_executor():
    out = check_child(FASTLOOP, FORK + """
    async def main():
        loop = asyncio.get_running_loop()
        futures = [loop.run_in_executor(None, time.sleep, 0.01) for _ in range(20)]
        await asyncio.sleep(0)
        def use():
            async def there():
                loop = asyncio.get_running_loop()
                return sum(await asyncio.gather(
                    *[loop.run_in_executor(None, int, 1) for _ in range(20)]))
            return impl.run(there())
        in_child(use)
        await asyncio.gather(*futures)
        return "parent alive"
    print(impl.run(main()))
    """)
    assert out.splitlines() == ["child: 20", "status 0", "parent alive"]


def test_fork_in_a_thread_while_the_loop_runs():
    out = check_child(FASTLOOP, FORK + """
    async def main():
        await asyncio.to_thread(in_child, lambda: impl.run(asyncio.sleep(0, "there")))
        return "parent alive"
    print(impl.run(main()))
    """)
    assert out.splitlines() == ["child: there", "status 0", "parent alive"]


def test_child_exits_normally_with_the_parents_loop_open():
    """sys.exit() in the child runs all finalizers of inherited objects."""
    out = check_child(FASTLOOP, """
    warnings.simplefilter("ignore")
    loop = impl.new_loop()
    async def wait():
        await asyncio.sleep(100)
    r, w = os.pipe()
    loop.add_reader(r, print)
    task = loop.create_task(wait())
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(loop.run_in_executor(None, int))
    pid = os.fork()
    if pid == 0:
        task._log_destroy_pending = False
        sys.exit(0)
    _, status = os.waitpid(pid, 0)
    print(status)
    task.cancel()
    try:
        loop.run_until_complete(task)
    except asyncio.CancelledError:
        print("cancelled")
    loop.remove_reader(r)
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    """)
    assert out.splitlines() == ["0", "cancelled"]


def test_multiprocessing_fork():
    out = same_child("""
    import multiprocessing
    warnings.simplefilter("ignore")
    context = multiprocessing.get_context("fork")
    def work(queue):
        queue.put(impl.run(asyncio.sleep(0.001, "there")))
    async def main():
        queue = context.SimpleQueue()
        process = context.Process(target=work, args=(queue,))
        process.start()
        value = await asyncio.to_thread(queue.get)
        process.join()
        print(value, process.exitcode)
    impl.run(main())
    """)
    assert out.split() == ["there", "0"]
