"""Task: life, results, names, contexts, stacks, attributes, texts."""

import asyncio
import collections.abc
import contextvars
import gc
import io
import re
import types
import weakref

import pytest

from support import FASTLOOP, PY, outcome, plain, same, settle, spin, state_of


async def give(value=None):
    return value


async def fail(exc):
    raise exc


async def wait(fut):
    return await fut


class Awaitable:
    """Awaits what a generator function yields."""

    def __init__(self, function):
        self.function = function

    def __await__(self):
        return self.function()


def make(impl, loop, coro, how, **kwargs):
    if how == "class":
        return impl.Task(coro, loop=loop, **kwargs)
    if how == "subclass":
        class Sub(impl.Task):
            pass
        return Sub(coro, loop=loop, **kwargs)
    return loop.create_task(coro, **kwargs)


@pytest.fixture(params=["class", "created", "subclass"])
def how(request):
    return request.param


def test_types(loop):
    assert issubclass(FASTLOOP.Task, asyncio.Task)
    assert FASTLOOP.Task.__module__ == "fastloop"
    assert FASTLOOP.Task.__qualname__ == "Task"
    missing = {n for n in dir(asyncio.Task) if not hasattr(FASTLOOP.Task, n)}
    assert missing == set()


def test_the_loops_task_is_its_own(impl):
    with impl.loop() as loop:
        task = loop.create_task(give())
        assert type(task) is impl.Task
        loop.run_until_complete(task)

        async def main():
            return type(asyncio.current_task()), type(asyncio.create_task(give()))
        assert loop.run_until_complete(main()) == (impl.Task, impl.Task)
        spin(loop, 2)


def test_new_task(impl, loop, how):
    coro = give(1)
    task = make(impl, loop, coro, how)
    assert isinstance(task, asyncio.Task) and isinstance(task, asyncio.Future)
    assert asyncio.isfuture(task)
    assert not task.done()
    assert task.get_coro() is coro and task._coro is coro
    assert task.get_loop() is loop
    assert task._fut_waiter is None
    assert task._must_cancel is False
    assert task._log_destroy_pending is True
    assert task.cancelling() == 0
    assert loop.run_until_complete(task) == 1
    assert task.done() and task.result() == 1


def test_starts_at_the_next_iteration(how):
    def body(impl):
        with impl.loop() as loop:
            seen = []

            async def main():
                seen.append("runs")
            loop.call_soon(seen.append, "before")
            task = make(impl, loop, main(), how)
            loop.call_soon(seen.append, "after")
            seen.append("made")
            spin(loop, 1)
            seen.append(task.done())
            return seen
    assert same(body) == ["made", "before", "runs", "after", True]


def test_exception(impl, loop, how):
    exc = LookupError("x")
    task = make(impl, loop, fail(exc), how)
    with pytest.raises(LookupError):
        loop.run_until_complete(task)
    assert task.exception() is exc


@pytest.mark.parametrize("error", [StopAsyncIteration, GeneratorExit, asyncio.CancelledError,
                                   RecursionError, MemoryError, AssertionError])
def test_odd_exceptions(how, error):
    def body(impl):
        with impl.loop() as loop:
            task = make(impl, loop, fail(error("odd")), how)
            spin(loop, 2)
            return state_of(task)
    same(body)


def test_stop_iteration_becomes_a_runtime_error(how):
    def body(impl):
        with impl.loop() as loop:
            task = make(impl, loop, fail(StopIteration(1)), how)
            spin(loop, 2)
            return state_of(task)
    assert same(body)[1] == "RuntimeError"


@pytest.mark.parametrize("thing", [None, 3, "x", give, object, [], iter(()), (n for n in ())],
                         ids=lambda t: type(t).__name__)
def test_what_is_no_coroutine(how, thing):
    def body(impl):
        with impl.loop() as loop:
            result = outcome(make, impl, loop, thing, how)
            if result[0] == "returned":
                result[1]._log_destroy_pending = False
                return "made"
            return result
    result = same(body)
    if PY < (3, 12) and isinstance(thing, types.GeneratorType):
        assert result == "made"
    else:
        assert result[1] == "TypeError"


def test_generator_based_coroutine():
    """asyncio takes those made by types.coroutine in some versions only."""
    def body(impl):
        @types.coroutine
        def old():
            yield
            return 3
        with impl.loop() as loop:
            made = outcome(lambda: loop.run_until_complete(impl.Task(old(), loop=loop)))
            return made[:2]
    same(body)


class Coroutine(collections.abc.Coroutine):
    """A coroutine without C: send, throw, close of its own."""

    def __init__(self, trace):
        self.trace = trace
        self.left = 3

    def send(self, value):
        self.trace.append(("send", value))
        self.left -= 1
        if not self.left:
            raise StopIteration("end")

    def throw(self, typ, val=None, tb=None):
        self.trace.append(("throw", getattr(typ, "__name__", type(typ).__name__)))
        if val is None:
            raise typ
        raise val

    def close(self):
        self.trace.append("close")

    def __await__(self):
        return self


@pytest.mark.parametrize("cancel", [False, True])
def test_coroutine_in_python(how, cancel):
    def body(impl):
        with impl.loop() as loop:
            trace = []
            task = make(impl, loop, Coroutine(trace), how)
            spin(loop, 1)
            if cancel:
                task.cancel("c")
            spin(loop, 4)
            return trace, state_of(task)
    same(body)


@pytest.mark.parametrize("thing", [3, "x", object(), [], (), 1.5, NotImplemented],
                         ids=lambda t: type(t).__name__)
def test_bad_yields(how, thing):
    def body(impl):
        with impl.loop() as loop:
            def bad():
                try:
                    yield thing
                except RuntimeError as exc:
                    seen.append(str(exc).partition(" at 0x")[0])
                    yield
                    return "survived"
            seen = []
            task = make(impl, loop, wait(Awaitable(bad)), how)
            spin(loop, 6)
            return seen, state_of(task)
    assert same(body)[1] == ["finished", "survived"]


def test_generator_is_a_bad_yield(how):
    def body(impl):
        with impl.loop() as loop:
            def bad():
                yield (n for n in ())
            task = make(impl, loop, wait(Awaitable(bad)), how)
            spin(loop, 4)
            return type(task.exception()).__name__, plain(str(task.exception())).partition("generator object")[0][-60:]
    same(body)


def test_bare_yields(how):
    def body(impl):
        with impl.loop() as loop:
            def busy():
                for n in range(5):
                    seen.append((yield))
                return "end"
            seen = []
            task = make(impl, loop, wait(Awaitable(busy)), how)
            spin(loop, 10)
            return seen, state_of(task)
    assert same(body) == [[None] * 5, ["finished", "end"]]


def test_awaits_itself(how):
    def body(impl):
        with impl.loop() as loop:
            async def main():
                await task
            task = make(impl, loop, main(), how)
            spin(loop, 4)
            result = plain(str(task.exception()).partition(":")[0])
            del task
            return result
    assert same(body) == "Task cannot await on itself"


def test_result_and_exception_cannot_be_set(how):
    def body(impl):
        with impl.loop() as loop:
            task = make(impl, loop, give(), how)
            seen = [outcome(task.set_result, 1), outcome(task.set_exception, ValueError())]
            loop.run_until_complete(task)
            return seen
    assert same(body) == [
        ["raised", "RuntimeError", "Task does not support set_result operation"],
        ["raised", "RuntimeError", "Task does not support set_exception operation"]]


# Names

def test_automatic_names(impl, loop, how):
    one = make(impl, loop, give(), how)
    two = make(impl, loop, give(), how)
    assert re.fullmatch(r"Task-\d+", one.get_name())
    assert re.fullmatch(r"Task-\d+", two.get_name())
    assert one.get_name() != two.get_name()
    assert one.get_name() == one.get_name()
    spin(loop, 2)


@pytest.mark.parametrize("name", ["x", "", "Task-1", 3, None, ("a", 1), "ü"], ids=repr)
def test_given_names(how, name):
    def body(impl):
        with impl.loop() as loop:
            task = make(impl, loop, give(), how, name=name)
            first = task.get_name()
            task.set_name(name)
            second = task.get_name()
            spin(loop, 2)
            return first, type(first).__name__, second, type(second).__name__
    same(body)


def test_name_that_cannot_be_a_string(impl, loop, how, log):
    class Bad:
        def __str__(self):
            raise LookupError("no name")
    coro = give()
    with pytest.raises(LookupError):
        make(impl, loop, coro, how, name=Bad())
    coro.close()
    log.take()  # asyncio complains about the half-made task
    task = make(impl, loop, give(), how, name="good")
    with pytest.raises(LookupError):
        task.set_name(Bad())
    assert task.get_name() == "good"
    spin(loop, 2)


# Contexts

def test_context_is_a_copy(impl, loop, how):
    var = contextvars.ContextVar("var", default="outer")

    async def main():
        assert var.get() == "outer"
        var.set("inner")
        await asyncio.sleep(0)
        assert var.get() == "inner"
        return "ok"
    assert loop.run_until_complete(make(impl, loop, main(), how)) == "ok"
    assert var.get() == "outer"


def test_given_context(impl, loop, how):
    var = contextvars.ContextVar("var", default="outer")
    ctx = contextvars.copy_context()

    async def main():
        var.set("inner")
        await asyncio.sleep(0)
        return var.get()
    task = make(impl, loop, main(), how, context=ctx)
    if PY >= (3, 12):
        assert task.get_context() is ctx
    assert loop.run_until_complete(task) == "inner"
    assert ctx[var] == "inner"


@pytest.mark.parametrize("context", [3, "x", {}, object()], ids=lambda c: type(c).__name__)
def test_bad_context(how, context):
    """Some versions check at once, the others fail when the task steps."""
    def body(impl):
        with impl.loop() as loop:
            coro = give()
            loop.set_exception_handler(lambda *a: None)
            result = outcome(make, impl, loop, coro, how, context=context)[0]
            if result == "raised":
                coro.close()
                return result
            return "accepted"
    if PY in ((3, 13), (3, 14)) and PY != (3, 13):
        pytest.skip("accepted without a check by this version")
    with_context = outcome(body, FASTLOOP)
    assert with_context[1] in ("raised", "accepted")


def test_context_in_wake_ups_and_callbacks(how):
    var = contextvars.ContextVar("var", default="outer")

    def body(impl):
        with impl.loop() as loop:
            seen = []
            fut = loop.create_future()

            async def main():
                var.set("task")
                await fut
                seen.append(var.get())
                loop.call_soon(lambda: seen.append(var.get()))
                asyncio.current_task().add_done_callback(lambda t: seen.append(var.get()))
            task = make(impl, loop, main(), how)
            task.add_done_callback(lambda t: seen.append(var.get()))
            spin(loop, 2)
            ctx = contextvars.copy_context()
            ctx.run(var.set, "setter")
            ctx.run(fut.set_result, None)
            spin(loop, 4)
            return seen
    assert same(body) == ["task", "task", "outer", "task"]


def test_context_token_across_tasks(impl, loop):
    var = contextvars.ContextVar("var")

    async def main():
        token = var.set(1)
        await asyncio.sleep(0)
        var.reset(token)
        return var.get("none")
    assert loop.run_until_complete(main()) == "none"


def test_two_tasks_share_a_context(impl, loop):
    var = contextvars.ContextVar("var", default=0)
    ctx = contextvars.copy_context()

    async def add():
        for _ in range(5):
            var.set(var.get() + 1)
            await asyncio.sleep(0)
    tasks = [loop.create_task(add(), context=ctx) for _ in range(3)]
    loop.run_until_complete(asyncio.gather(*tasks) if False else asyncio.wait(tasks))
    assert ctx[var] == 15


# Texts, stacks

@pytest.mark.parametrize("debug", [False, True])
def test_repr(how, debug):
    def body(impl):
        with impl.loop(debug) as loop:
            seen = []
            fut = impl.Future(loop=loop)
            task = make(impl, loop, wait(fut), how, name="named")
            if debug:
                seen.append("created at" in repr(task))
                clean = re.compile(r" created at \S+>")
            else:
                clean = re.compile(r"(?!)")
            def say():
                seen.append(clean.sub(">", repr(task)))
            say()
            spin(loop, 2)
            say()
            task.add_done_callback(print)
            say()
            task.cancel()
            say()
            spin(loop, 3)
            say()
            done = make(impl, loop, give("v" * 50), how, name="named")
            spin(loop, 2)
            task = done
            say()
            failed = make(impl, loop, fail(LookupError("x")), how, name="named")
            spin(loop, 2)
            failed.exception()
            task = failed
            say()
            return seen
    same(body)


def test_stack(how):
    async def inner(fut):
        await fut

    async def outer(fut):
        await inner(fut)

    def body(impl):
        with impl.loop() as loop:
            fut = loop.create_future()
            task = make(impl, loop, outer(fut), how)
            seen = [[f.f_code.co_name for f in task.get_stack()]]
            spin(loop, 2)
            seen.append([f.f_code.co_name for f in task.get_stack()])
            seen.append([f.f_code.co_name for f in task.get_stack(limit=1)])
            out = io.StringIO()
            task.print_stack(file=out)
            seen.append(re.sub(r"<[^>]*Task.*?>>", "", out.getvalue()).count("outer"))
            fut.set_exception(LookupError("x"))
            spin(loop, 3)
            seen.append([f.f_code.co_name for f in task.get_stack()])
            out = io.StringIO()
            task.print_stack(limit=1, file=out)
            seen.append(out.getvalue().count("File"))
            task.exception()
            return seen
    same(body)


def test_coroutine_frames_are_reachable_while_running(loop):
    """The step resumes the coroutine directly: its frame's caller is the run."""
    import sys

    async def inner():
        names = []
        frame = sys._getframe()
        while frame:
            names.append(frame.f_code.co_name)
            frame = frame.f_back
        return names

    async def outer():
        return await inner()
    names = loop.run_until_complete(outer())
    assert names[:2] == ["inner", "outer"]


@pytest.mark.parametrize("name", ["_fut_waiter", "_must_cancel", "_coro", "_log_destroy_pending",
                                  "_state", "_callbacks"])
@pytest.mark.parametrize("value", [True, False, None, 3], ids=repr)
def test_setting_attributes(name, value):
    def body(impl):
        with impl.loop() as loop:
            task = loop.create_task(give())
            try:
                setattr(task, name, value)
            except Exception as exc:
                result = type(exc).__name__
            else:
                result = getattr(task, name)
            spin(loop, 3)
            return result, task.done()
    same(body)


def test_log_destroy_pending_is_a_flag(impl, loop, how):
    task = make(impl, loop, give(), how)
    task._log_destroy_pending = False
    assert task._log_destroy_pending is False
    task._log_destroy_pending = 1
    assert task._log_destroy_pending is True
    with pytest.raises(AttributeError):
        del task._log_destroy_pending
    spin(loop, 2)


def test_own_attributes_weak_references_hash(impl, loop, how):
    task = make(impl, loop, give(), how)
    task.anything = 5
    assert task.anything == 5
    ref = weakref.ref(task)
    keys = weakref.WeakKeyDictionary({task: 1})
    assert keys[task] == 1
    spin(loop, 2)
    del task
    gc.collect()
    assert ref() is None
    assert len(keys) == 0


def test_released_without_the_collector(impl):
    """A finished task goes by reference count alone, with its coroutine."""
    with impl.loop() as loop:
        gc.collect()
        gc.disable()
        try:
            async def main():
                await asyncio.sleep(0)
                fut = loop.create_future()
                loop.call_soon(fut.set_result, 1)
                await fut
            task = loop.create_task(main())
            ref = weakref.ref(task)
            spin(loop, 6)
            assert task.done()
            del task
            assert ref() is None
        finally:
            gc.enable()


def test_failed_task_is_released_without_the_collector(impl):
    """No cycle through the exception's traceback and the step's frames."""
    class Mine(Exception):
        pass
    with impl.loop() as loop:
        gc.collect()
        gc.disable()
        try:
            async def main():
                await asyncio.sleep(0)
                raise Mine
            task = loop.create_task(main())
            ref = weakref.ref(task)
            spin(loop, 4)
            error = weakref.ref(task.exception())
            del task
            assert ref() is None
            assert error() is None
        finally:
            gc.enable()


def test_pending_task_is_kept_by_the_loop(loop):
    """A task that is ready is alive even if nobody holds it."""
    seen = []

    async def main():
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        seen.append(1)
    loop.create_task(main())
    gc.collect()
    loop.run_until_complete(asyncio.sleep(0.01))
    assert seen == [1]


def test_destroyed_while_pending_is_logged(how, log):
    def body(impl):
        with impl.loop() as loop:
            fut = loop.create_future()
            task = make(impl, loop, wait(fut), how, name="lost")
            spin(loop, 2)
            del task, fut
            gc.collect()
        return [text.splitlines()[0] for _, text in log.take()]
    assert same(body) == ["Task was destroyed but it is pending!"]


def test_destroyed_while_pending_quietly(impl, loop, how):
    fut = loop.create_future()
    task = make(impl, loop, wait(fut), how)
    task._log_destroy_pending = False
    spin(loop, 2)
    del task, fut
    gc.collect()


def test_destroyed_before_it_started(how, log):
    def body(impl):
        loop = impl.new_loop()
        coro = give()
        task = make(impl, loop, coro, how)
        loop.close()
        del task
        gc.collect()
        coro.close()
        return [text.splitlines()[0] for _, text in log.take()]
    same(body)


def test_never_retrieved_is_logged(how, log):
    def body(impl):
        with impl.loop() as loop:
            make(impl, loop, fail(LookupError("lost")), how)
            spin(loop, 2)
            gc.collect()
        return [text.splitlines()[0] for _, text in log.take()]
    (message,) = same(body)
    assert message.endswith(" exception was never retrieved")


def test_coroutine_never_awaited(impl, how):
    """Closing the loop before a task started: the coroutine complains, not the loop."""
    loop = impl.new_loop()
    task = make(impl, loop, give(), how)
    task._log_destroy_pending = False
    loop.close()
    with pytest.warns(RuntimeWarning, match="was never awaited"):
        del task
        gc.collect()


def test_del_of_a_pending_coroutine_runs_its_finally(impl, loop, how):
    seen = []

    async def main(fut):
        try:
            await fut
        finally:
            seen.append("finally")
    fut = loop.create_future()
    task = make(impl, loop, main(fut), how)
    task._log_destroy_pending = False
    spin(loop, 2)
    del task, fut
    gc.collect()
    assert seen == ["finally"]


def test_done_callbacks(impl, loop, how):
    seen = []
    task = make(impl, loop, give(1), how)
    task.add_done_callback(lambda t: seen.append(("one", t is task)))
    task.add_done_callback(print)
    assert task.remove_done_callback(print) == 1
    loop.run_until_complete(task)
    spin(loop, 1)
    assert seen == [("one", True)]
    del task


def test_subclasses(impl, loop):
    seen = []

    class Slotted(impl.Task):
        __slots__ = ("extra",)

    class WithDel(impl.Task):
        def __del__(self):
            seen.append("del")
            super().__del__()

    class WithInit(impl.Task):
        def __init__(self, coro, *, loop, tag):
            super().__init__(coro, loop=loop, name=tag)
            self.tag = tag
    one = Slotted(give(1), loop=loop)
    one.extra = 3
    two = WithDel(give(2), loop=loop)
    three = WithInit(give(3), loop=loop, tag="t")
    assert loop.run_until_complete(asyncio.wait([one, two, three]))
    assert (one.extra, three.tag, three.get_name()) == (3, "t", "t")
    del two
    gc.collect()
    assert seen == ["del"]


def test_overridden_cancel_is_called(impl, loop):
    calls = []

    class Own(impl.Task):
        def cancel(self, msg=None):
            calls.append(msg)
            return super().cancel(msg)
    inner = Own(wait(loop.create_future()), loop=loop)
    outer = loop.create_task(wait(inner))
    spin(loop, 3)
    outer.cancel("down")
    spin(loop, 5)
    assert calls == ["down"]
    assert inner.cancelled() and outer.cancelled()


def test_works_on_asyncios_loop():
    loop = asyncio.SelectorEventLoop()
    try:
        async def main():
            await asyncio.sleep(0.001)
            fut = FASTLOOP.Future(loop=loop)
            loop.call_soon(fut.set_result, 1)
            assert await fut == 1
            assert asyncio.current_task() is task
            return 5
        task = FASTLOOP.Task(main(), loop=loop)
        assert loop.run_until_complete(task) == 5
        del task
    finally:
        loop.close()


def test_stock_task_on_this_loop(loop):
    async def main():
        await asyncio.sleep(0.001)
        fut = asyncio.Future()
        loop.call_soon(fut.set_result, 2)
        return await fut
    task = asyncio.Task(main(), loop=loop)
    assert loop.run_until_complete(task) == 2


def test_gather_wait_as_completed(how):
    def body(impl):
        with impl.loop() as loop:
            async def work(n):
                for _ in range(n):
                    await asyncio.sleep(0)
                if n == 3:
                    raise LookupError(n)
                return n

            async def main():
                seen = [await asyncio.gather(*[work(n) for n in (4, 1, 2)])]
                seen.append([str(r) for r in await asyncio.gather(
                    *[work(n) for n in (1, 3)], return_exceptions=True)])
                try:
                    await asyncio.gather(work(3), work(5))
                except LookupError as exc:
                    seen.append(exc.args)
                await settle(6)
                tasks = [make(impl, loop, work(n), how) for n in (2, 4, 1)]
                for aw in asyncio.as_completed(tasks):
                    seen.append(await aw)
                tasks = [make(impl, loop, work(n), how) for n in (5, 1)]
                done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                seen.append((len(done), len(pending), done.pop().result()))
                await asyncio.wait(pending)
                return seen
            return loop.run_until_complete(main())
    same(body)


def test_task_groups(impl):
    async def work(n, seen):
        try:
            await asyncio.sleep(n / 1000)
            if n == 2:
                raise LookupError(n)
            seen.append(n)
        except asyncio.CancelledError:
            seen.append(("cancelled", n))
            raise

    async def main():
        seen = []
        async with asyncio.TaskGroup() as group:
            for n in (1, 0):
                group.create_task(work(n, seen))
        with pytest.raises(ExceptionGroup) as info:
            async with asyncio.TaskGroup() as group:
                for n in (1, 2, 500):
                    group.create_task(work(n, seen))
        assert [type(e) for e in info.value.exceptions] == [LookupError]
        return seen
    assert impl.run(main()) == [0, 1, 1, ("cancelled", 500)]


def test_locks_queues_events(impl):
    async def main():
        seen = []
        queue, lock, event = asyncio.Queue(2), asyncio.Lock(), asyncio.Event()
        condition, semaphore = asyncio.Condition(), asyncio.Semaphore(2)

        async def producer():
            for n in range(10):
                await queue.put(n)
            event.set()

        async def consumer():
            for _ in range(10):
                async with lock:
                    seen.append(await queue.get())
            async with condition:
                condition.notify_all()

        async def watcher():
            async with condition:
                await condition.wait()
            async with semaphore:
                seen.append("notified")
        async with asyncio.TaskGroup() as group:
            group.create_task(watcher())
            await asyncio.sleep(0)
            group.create_task(producer())
            group.create_task(consumer())
        await event.wait()
        return seen
    assert impl.run(main()) == [*range(10), "notified"]


def test_many_tasks(loop):
    async def work(n):
        await asyncio.sleep(0)
        return n

    async def main():
        return sum(await asyncio.gather(*[work(n) for n in range(5000)]))
    assert loop.run_until_complete(main()) == sum(range(5000))


def test_generic_alias():
    def body(impl):
        return repr(impl.Task[int]).rpartition(".")[2]
    assert same(body) == "Task[int]"


def test_init_again(log):
    """Python 3.15 refuses it; before, the task starts anew with the second coroutine."""
    def body(impl):
        with impl.loop() as loop:
            first, second = give(1), give(2)
            task = impl.Task(first, loop=loop)
            result = outcome(task.__init__, second, loop=loop)
            loop.set_exception_handler(lambda *a: None)
            try:
                spin(loop, 4)
            finally:
                first.close()
                second.close()
            return result[:2]
    same(body)
    log.take()


def test_constructor_errors():
    def body(impl):
        with impl.loop() as loop:
            coro = give()
            seen = [outcome(impl.Task)[:2], outcome(impl.Task, coro, loop)[:2],
                    outcome(impl.Task, coro, loop=loop, bad=1)[:2]]
            coro.close()
            return seen
    assert same(body) == [["raised", "TypeError"]] * 3


def test_unknown_keyword_to_create_task(how):
    def body(impl):
        with impl.loop() as loop:
            coro = give()
            result = outcome(loop.create_task, coro, bad=1)[:2]
            coro.close()
            return result
    assert same(body) == ["raised", "TypeError"]
