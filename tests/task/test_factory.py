"""set_task_factory: what a factory is given and what is done with its product."""

import asyncio
import contextvars

import pytest

from support import PY, outcome, same, spin


async def give(value=1):
    return value


def test_default_is_none(loop):
    assert loop.get_task_factory() is None
    loop.set_task_factory(None)
    assert loop.get_task_factory() is None


@pytest.mark.parametrize("thing", [3, "x", object()], ids=["int", "str", "object"])
def test_not_callable(thing):
    def body(impl):
        with impl.loop() as loop:
            return outcome(loop.set_task_factory, thing)
    assert same(body) == ["raised", "TypeError", "task factory must be a callable or None"]


@pytest.mark.parametrize("kwargs", [
    {}, {"name": "n"}, {"context": None}, {"context": "ctx"}, {"name": None, "context": "ctx"},
    {"name": "n", "context": None}, {"name": 3}, {"eager_start": True}, {"bad": 1},
], ids=lambda k: ",".join(f"{a}={b}" for a, b in k.items()) or "nothing")
def test_what_the_factory_is_given(kwargs):
    """Exactly what asyncio of this version passes on, and the name that results."""
    def body(impl):
        calls = []

        def factory(loop, coro, **kw):
            calls.append(sorted((k, type(v).__name__) for k, v in kw.items()))
            kw.pop("eager_start", None)
            kw.pop("bad", None)
            return impl.Task(coro, loop=loop, **kw)
        given = dict(kwargs)
        if given.get("context") == "ctx":
            given["context"] = contextvars.copy_context()
        with impl.loop() as loop:
            loop.set_task_factory(factory)
            assert loop.get_task_factory() is factory
            coro = give()
            result = outcome(loop.create_task, coro, **given)
            if result[0] == "raised":
                coro.close()
                return calls, result
            task = result[1]
            name = task.get_name()
            loop.run_until_complete(task)
            return calls, name
    same(body)


def test_factory_through_asyncio_create_task():
    def body(impl):
        calls = []

        def factory(loop, coro, **kw):
            calls.append(sorted(kw))
            return impl.Task(coro, loop=loop, **kw)

        async def main():
            asyncio.get_running_loop().set_task_factory(factory)
            ctx = contextvars.copy_context()
            tasks = [asyncio.create_task(give()), asyncio.create_task(give(), name="a"),
                     asyncio.create_task(give(), context=ctx),
                     asyncio.create_task(give(), name="b", context=ctx)]
            names = [t.get_name() for t in tasks]
            async with asyncio.TaskGroup() as group:
                group.create_task(give(), name="g")
            await asyncio.gather(*tasks, give())
            return calls, names[1::2]
        return impl.run(main())
    same(body)


@pytest.mark.parametrize("product", [None, 3, "future"], ids=str)
def test_factory_that_returns_no_task(product):
    def body(impl):
        with impl.loop() as loop:
            def factory(loop, coro, **kw):
                coro.close()
                return loop.create_future() if product == "future" else product
            loop.set_task_factory(factory)
            result = outcome(loop.create_task, give())
            return result[:2] if result[0] == "raised" else type(result[1]).__name__
    same(body)


def test_factory_that_raises():
    def body(impl):
        with impl.loop() as loop:
            def factory(loop, coro, **kw):
                coro.close()
                raise LookupError("factory")
            loop.set_task_factory(factory)
            seen = [outcome(loop.create_task, give())]
            seen.append(outcome(loop.run_until_complete, give()))
            return seen
    assert same(body) == [["raised", "LookupError", "factory"]] * 2


def test_factory_of_other_tasks(impl):
    class Other(asyncio.Task):
        pass
    with impl.loop() as loop:
        loop.set_task_factory(lambda loop, coro, **kw: Other(coro, loop=loop, **kw))

        async def main():
            task = asyncio.create_task(give(7), name="other")
            assert type(task) is Other
            assert task.get_name() == "other"
            return await task
        assert loop.run_until_complete(main()) == 7


def test_factory_is_called_for_run_until_complete(loop):
    seen = []

    def factory(loop, coro, **kw):
        seen.append(coro.__name__)
        return asyncio.Task(coro, loop=loop, **kw)
    loop.set_task_factory(factory)
    loop.run_until_complete(give())
    assert seen == ["give"]


def test_removed_factory(impl):
    with impl.loop() as loop:
        loop.set_task_factory(lambda loop, coro, **kw: asyncio.Task(coro, loop=loop, **kw))
        loop.set_task_factory(None)
        task = loop.create_task(give())
        assert type(task) is impl.Task
        spin(loop, 2)


@pytest.mark.skipif(PY < (3, 13), reason="create_task(**kwargs) came with Python 3.13.3")
def test_bound_method_as_factory(impl):
    class Maker:
        def make(self, loop, coro, **kw):
            return impl.Task(coro, loop=loop, **kw)
    maker = Maker()
    with impl.loop() as loop:
        loop.set_task_factory(maker.make)
        assert loop.run_until_complete(give(3)) == 3
