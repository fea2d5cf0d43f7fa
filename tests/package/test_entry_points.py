"""Every way to get a fastloop loop: run, Runner, loop_factory, policy, install, the old style."""

import asyncio
import sys

import pytest

import fastloop

PY = sys.version_info[:2]
POLICIES = PY < (3, 16)
POLICIES_WARN = PY >= (3, 14)


def is_fastloop(loop):
    return isinstance(loop, fastloop.Loop)


async def running_loop():
    await asyncio.sleep(0)
    return asyncio.get_running_loop()


class TestRun:
    def test_result_and_loop(self):
        loop = fastloop.run(running_loop())
        assert is_fastloop(loop)
        assert loop.is_closed()

    def test_task_type(self):
        async def main():
            return asyncio.current_task()

        assert isinstance(fastloop.run(main()), fastloop.Task)

    @pytest.mark.parametrize("debug", [True, False])
    def test_debug(self, debug):
        async def main():
            return asyncio.get_running_loop().get_debug()

        assert fastloop.run(main(), debug=debug) is debug

    def test_exception(self):
        async def main():
            raise LookupError("gone")

        with pytest.raises(LookupError, match="gone"):
            fastloop.run(main())

    def test_loop_factory(self):
        class Mine(fastloop.Loop):
            pass

        assert type(fastloop.run(running_loop(), loop_factory=Mine)) is Mine

    def test_not_from_a_running_loop(self):
        async def main():
            inner = running_loop()
            try:
                with pytest.raises(RuntimeError, match="fastloop.run.. cannot be called while an event loop runs"):
                    fastloop.run(inner)
            finally:
                inner.close()

        fastloop.run(main())

    def test_not_a_coroutine(self):
        with pytest.raises((TypeError, ValueError)) as ours:
            fastloop.run(running_loop)
        with pytest.raises((TypeError, ValueError)) as theirs:
            asyncio.run(running_loop)
        assert ours.type is theirs.type

    @pytest.mark.skipif(PY < (3, 14), reason="asyncio.run() takes a coroutine only")
    def test_awaitable(self):
        class Later:
            def __await__(self):
                yield from asyncio.sleep(0).__await__()
                return 42

        assert fastloop.run(Later()) == 42

    def test_leftovers_are_cleaned_up(self):
        events = []

        async def forever():
            try:
                await asyncio.sleep(3600)
            finally:
                events.append("task cancelled")

        async def numbers():
            try:
                while True:
                    yield 1
            finally:
                events.append("generator closed")

        keep = []

        async def main():
            task = asyncio.create_task(forever())
            generator = numbers()
            keep.extend([task, generator])
            await anext(generator)
            await asyncio.to_thread(int)

        fastloop.run(main())
        assert events == ["task cancelled", "generator closed"]

    def test_ctrl_c(self, python):
        program = """if True:
            import asyncio, fastloop, os, signal
            async def main():
                asyncio.get_running_loop().call_later(0.02, os.kill, os.getpid(), signal.SIGINT)
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    print("cancelled")
                    raise
            try:
                fastloop.run(main())
            except KeyboardInterrupt:
                print("interrupted")
        """
        assert python("-c", program).stdout.split() == ["cancelled", "interrupted"]


class TestFactories:
    def test_new_event_loop(self):
        loop = fastloop.new_event_loop()
        try:
            assert is_fastloop(loop)
            assert loop is not None and not loop.is_running()
        finally:
            loop.close()

    def test_runner(self):
        with asyncio.Runner(loop_factory=fastloop.new_event_loop) as runner:
            first = runner.run(running_loop())
            assert runner.run(running_loop()) is first
            assert runner.get_loop() is first
        assert is_fastloop(first)
        assert first.is_closed()

    def test_loop_class_is_a_factory(self):
        with asyncio.Runner(loop_factory=fastloop.Loop) as runner:
            assert is_fastloop(runner.run(running_loop()))

    @pytest.mark.skipif(PY < (3, 12), reason="asyncio.run() takes no loop_factory")
    def test_asyncio_run(self):
        assert is_fastloop(asyncio.run(running_loop(), loop_factory=fastloop.new_event_loop))

    def test_old_style(self):
        loop = fastloop.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            assert asyncio.get_event_loop() is loop
            assert loop.run_until_complete(running_loop()) is loop
            loop.call_soon(loop.stop)
            loop.run_forever()
        finally:
            asyncio.set_event_loop(None)
            loop.close()
        assert loop.is_closed()


@pytest.mark.skipif(not POLICIES, reason="this asyncio has no policies")
class TestPolicy:
    def test_making_one_does_not_warn(self, code):
        assert code(
            """
            import asyncio, fastloop
            policy = fastloop.EventLoopPolicy()
            loop = policy.new_event_loop()
            print(isinstance(loop, fastloop.Loop), type(policy).__module__)
            loop.close()
            """
        ).split() == ["True", "fastloop"]

    def test_set_event_loop_policy(self, code):
        flags = ("-W", "ignore:'asyncio.set_event_loop_policy' is deprecated:DeprecationWarning") if POLICIES_WARN else ()
        assert (
            code(
                """
                import asyncio, fastloop
                asyncio.set_event_loop_policy(fastloop.EventLoopPolicy())
                async def main():
                    return type(asyncio.get_running_loop()).__name__
                print(asyncio.run(main()))
                with asyncio.Runner() as runner:
                    print(runner.run(main()))
                loop = asyncio.new_event_loop()
                print(type(loop).__name__)
                loop.close()
                asyncio.set_event_loop_policy(None)
                loop = asyncio.new_event_loop()
                print(type(loop).__name__)
                loop.close()
                """,
                *flags,
            ).split()
            == ["Loop", "Loop", "Loop", "_UnixSelectorEventLoop"]
        )

    def test_subclass_of_asyncios_default(self):
        from asyncio import unix_events

        names = ("_DefaultEventLoopPolicy", "_UnixDefaultEventLoopPolicy")
        default = next(getattr(unix_events, name) for name in names if hasattr(unix_events, name))
        assert issubclass(fastloop.EventLoopPolicy, default)
        if not POLICIES_WARN:
            assert issubclass(fastloop.EventLoopPolicy, asyncio.DefaultEventLoopPolicy)

    def test_get_event_loop_as_in_asyncio(self, code):
        program = """
            import asyncio, fastloop, threading, warnings
            from asyncio import events
            warnings.simplefilter("ignore")
            {policy}
            def get():
                try:
                    loop = asyncio.get_event_loop()
                except RuntimeError as exc:
                    return str(exc).split()[:5]
                loop.close()
                return "a loop"
            print(get())
            asyncio.set_event_loop(None)
            print(get())
            thread = threading.Thread(target=lambda: print(get()))
            thread.start()
            thread.join()
        """
        ours = code(program.format(policy="asyncio.set_event_loop_policy(fastloop.EventLoopPolicy())"))
        assert ours == code(program.format(policy=""))

    @pytest.mark.skipif(PY >= (3, 14), reason="there are no child watchers")
    def test_child_watcher(self, code):
        assert (
            code(
                """
                import asyncio, fastloop, sys, warnings
                asyncio.set_event_loop_policy(fastloop.EventLoopPolicy())
                async def main():
                    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "raise SystemExit(3)")
                    return await process.wait()
                print(asyncio.run(main()))
                warnings.simplefilter("ignore")
                watcher = asyncio.get_child_watcher()
                asyncio.set_child_watcher(watcher)
                print(asyncio.get_child_watcher() is watcher)
                """
            ).split()
            == ["3", "True"]
        )


SHOW = """
import asyncio, sys, threading, warnings
import fastloop
from asyncio import events

def kind(loop):
    loop.close()
    return "fastloop" if isinstance(loop, fastloop.Loop) else "asyncio"

async def main():
    return asyncio.get_running_loop()

def show():
    found = {kind(asyncio.run(main())), kind(asyncio.new_event_loop()), kind(events.new_event_loop())}
    with asyncio.Runner() as runner:
        loop = runner.run(main())
    found.add(kind(loop))
    assert len(found) == 1, found
    print(*found)
"""


class TestInstall:
    def test_install_and_uninstall(self, code):
        assert (
            code(
                SHOW
                + """
show()
fastloop.install()
show()
fastloop.uninstall()
show()
"""
            ).split()
            == ["asyncio", "fastloop", "asyncio"]
        )

    def test_everything_is_put_back(self, code):
        assert (
            code(
                """
                import asyncio, fastloop
                from asyncio import events, unix_events
                def state():
                    things = [vars(asyncio), vars(events), vars(unix_events)]
                    for name in ("_DefaultEventLoopPolicy", "_UnixDefaultEventLoopPolicy"):
                        if hasattr(unix_events, name):
                            things.append(vars(getattr(unix_events, name)))
                    return [{k: id(v) for k, v in t.items()} for t in things]
                before = state()
                fastloop.install()
                assert state() != before
                fastloop.install()
                fastloop.uninstall()
                assert state() == before
                fastloop.uninstall()
                print(state() == before)
                """
            ).split()
            == ["True"]
        )

    def test_again_and_again(self, code):
        assert (
            code(
                SHOW
                + """
for _ in range(3):
    fastloop.install()
    fastloop.install()
    show()
    fastloop.uninstall()
    fastloop.uninstall()
    show()
"""
            ).split()
            == ["fastloop", "asyncio"] * 3
        )

    @pytest.mark.skipif(not POLICIES, reason="this asyncio has no policies")
    def test_survives_a_reset_of_the_policy(self, code):
        flags = ("-W", "ignore:'asyncio.set_event_loop_policy' is deprecated:DeprecationWarning") if POLICIES_WARN else ()
        program = """
fastloop.install()
asyncio.set_event_loop_policy(None)
show()
fastloop.uninstall()
show()
asyncio.set_event_loop_policy(None)
show()
"""
        assert code(SHOW + program, *flags).split() == ["fastloop", "asyncio", "asyncio"]

    @pytest.mark.skipif(not POLICIES, reason="this asyncio has no policies")
    def test_after_another_policy(self, code):
        program = """
warnings.simplefilter("ignore")
class Mine(asyncio.SelectorEventLoop):
    pass
class Policy(asyncio.DefaultEventLoopPolicy):
    _loop_factory = Mine
mine = Policy()
asyncio.set_event_loop_policy(mine)
fastloop.install()
show()
fastloop.uninstall()
print(asyncio.get_event_loop_policy() is mine)
"""
        assert code(SHOW + program).split() == ["fastloop", "True"]

    @pytest.mark.skipif(not POLICIES, reason="this asyncio has no policies")
    def test_a_policy_set_later_counts(self, code):
        program = """
warnings.simplefilter("ignore")
fastloop.install()
made = []
class Policy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self):
        made.append(1)
        return super().new_event_loop()
mine = Policy()
asyncio.set_event_loop_policy(mine)
show()
print(len(made))
fastloop.uninstall()
print(asyncio.get_event_loop_policy() is mine)
show()
"""
        assert code(SHOW + program).split() == ["fastloop", "4", "True", "asyncio"]

    @pytest.mark.skipif(PY >= (3, 14), reason="asyncio.get_event_loop() creates no loop")
    def test_get_event_loop_creates_ours(self, code):
        program = """
warnings.simplefilter("ignore")
fastloop.install()
print(kind(asyncio.get_event_loop()))
"""
        assert code(SHOW + program).split() == ["fastloop"]

    def test_threads(self, code):
        program = """
def work(which):
    gate.wait()
    for _ in range(200):
        which()
gate = threading.Barrier(4)
threads = [threading.Thread(target=work, args=(f,)) for f in [fastloop.install, fastloop.uninstall] * 2]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
fastloop.install()
show()
fastloop.uninstall()
show()
"""
        assert code(SHOW + program).split() == ["fastloop", "asyncio"]

    def test_existing_loops_stay(self, code):
        program = """
loop = asyncio.new_event_loop()
fastloop.install()
print(kind(loop))
"""
        assert code(SHOW + program).split() == ["asyncio"]

    def test_isolated_asyncio_test_case(self, code):
        program = """
import unittest
fastloop.install()
class Test(unittest.IsolatedAsyncioTestCase):
    async def test(self):
        print(isinstance(asyncio.get_running_loop(), fastloop.Loop))
result = unittest.TextTestRunner(stream=open("/dev/null", "w")).run(
    unittest.defaultTestLoader.loadTestsFromTestCase(Test))
assert result.wasSuccessful()
"""
        assert code(SHOW + program, "-W", "ignore::ResourceWarning").split() == ["True"]
