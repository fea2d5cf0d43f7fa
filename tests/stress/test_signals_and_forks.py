"""Storms of signals and forks, bounded."""

import pytest

from support import FASTLOOP, check_child


@pytest.mark.hang(60)
def test_signal_storm():
    """Thousands of signals at the process while it works; none crashes, the last is seen."""
    out = check_child(FASTLOOP, """
        loop = impl.new_loop()
        counts = {"loop": 0, "python": 0}
        def on_loop():
            counts["loop"] += 1
        def on_python(*args):
            counts["python"] += 1
        loop.add_signal_handler(signal.SIGUSR1, on_loop)
        signal.signal(signal.SIGUSR2, on_python)
        pid = os.fork()
        if pid == 0:
            parent = os.getppid()
            for n in range(4000):
                os.kill(parent, signal.SIGUSR1 if n % 2 else signal.SIGUSR2)
            os._exit(0)
        async def work():
            while os.waitpid(pid, os.WNOHANG) == (0, 0):
                await asyncio.sleep(0)
                await asyncio.gather(*[asyncio.sleep(0) for _ in range(5)])
            counts["loop"] = 0
            os.kill(os.getpid(), signal.SIGUSR1)
            await asyncio.sleep(0.05)
        loop.run_until_complete(work())
        assert counts["loop"] >= 1 and counts["python"] > 0, counts
        loop.remove_signal_handler(signal.SIGUSR1)
        loop.close()
        print("ok")
    """, limit=30)
    assert out.strip() == "ok"


@pytest.mark.hang(60)
def test_handlers_come_and_go_under_fire():
    out = check_child(FASTLOOP, """
        loop = impl.new_loop()
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        pid = os.fork()
        if pid == 0:
            parent = os.getppid()
            for n in range(3000):
                os.kill(parent, signal.SIGUSR1)
            os._exit(0)
        async def work():
            while os.waitpid(pid, os.WNOHANG) == (0, 0):
                loop.add_signal_handler(signal.SIGUSR1, int)
                await asyncio.sleep(0)
                # Between removal and SIG_IGN the default action would end the process.
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
                loop.remove_signal_handler(signal.SIGUSR1)
                signal.signal(signal.SIGUSR1, signal.SIG_IGN)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        loop.run_until_complete(work())
        loop.close()
        print("ok")
    """, limit=30)
    assert out.strip() == "ok"


@pytest.mark.hang(60)
def test_forks_while_everything_runs():
    """Children are forked from a loop that has timers, readers, threads and tasks."""
    out = check_child(FASTLOOP, """
        warnings.simplefilter("ignore")
        async def main():
            loop = asyncio.get_running_loop()
            r, w = os.pipe()
            got = []
            loop.add_reader(r, lambda: got.append(os.read(r, 100)))
            stop = threading.Event()
            def flood():
                while not stop.is_set():
                    loop.call_soon_threadsafe(int)
                    time.sleep(0.0001)
            thread = threading.Thread(target=flood)
            thread.start()
            ticks = []
            async def ticker():
                while True:
                    ticks.append(1)
                    await asyncio.sleep(0.001)
            task = loop.create_task(ticker())
            statuses = []
            for n in range(12):
                pid = os.fork()
                if pid == 0:
                    code = 1
                    try:
                        signal.alarm(10)
                        if n % 3 == 0:
                            assert impl.run(asyncio.sleep(0.001, n)) == n
                        elif n % 3 == 1:
                            loop.remove_reader(r) if False else None
                        else:
                            del loop
                            gc.collect()
                        code = 0
                    finally:
                        os._exit(code)
                await asyncio.sleep(0.002)
                statuses.append((await loop.run_in_executor(None, os.waitpid, pid, 0))[1])
                os.write(w, b"x")
            await asyncio.sleep(0.01)
            stop.set()
            thread.join()
            task.cancel()
            loop.remove_reader(r)
            assert statuses == [0] * 12, statuses
            assert b"".join(got) == b"x" * 12
            assert len(ticks) > 5
        impl.run(main())
        print("ok")
    """, limit=40)
    assert out.strip() == "ok"


@pytest.mark.hang(60)
def test_interval_timer_at_high_rate():
    """EINTR everywhere: a 5 kHz interval timer while pipes and timers are in use."""
    out = check_child(FASTLOOP, """
        hits = [0]
        signal.signal(signal.SIGALRM, lambda *a: hits.__setitem__(0, hits[0] + 1))
        async def main():
            loop = asyncio.get_running_loop()
            signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
            r, w = os.pipe()
            total = 0
            for n in range(200):
                fut = loop.create_future()
                loop.add_reader(r, fut.set_result, None)
                loop.call_later(0.0005, os.write, w, b"x")
                await fut
                loop.remove_reader(r)
                total += len(os.read(r, 10))
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert total == 200
        impl.run(main())
        assert hits[0] > 50
        print("ok")
    """, limit=30)
    assert out.strip() == "ok"
