"""The call graph of Python 3.14: who awaits whom."""

import asyncio
import io

import pytest

from support import FASTLOOP, PY, same, settle, spin
from support.awaitables import FUTURES, TASKS

pytestmark = pytest.mark.skipif(PY < (3, 14), reason="the call graph came with Python 3.14")


def shape(graph):
    """A graph as nested names: [function names, [graphs of those who await it]]."""
    return [[entry.frame.f_code.co_name for entry in graph.call_stack],
            sorted(shape(g) for g in graph.awaited_by)]


async def leaf(fut):
    await fut


async def branch(fut):
    await leaf(fut)


async def root(task):
    await task


@pytest.mark.parametrize("future_kind", ["own", "created", "stock", "own-subclass", "own-task"])
@pytest.mark.parametrize("task_kind", ["own", "created", "stock", "own-subclass"])
def test_awaited_by(task_kind, future_kind):
    def body(impl):
        with impl.loop() as loop:
            source = FUTURES[future_kind](impl, loop)
            task = TASKS[task_kind](impl, loop, branch(source.awaitable))
            spin(loop, 3)
            waiters = source.awaitable._asyncio_awaited_by
            seen = [type(waiters).__name__, waiters == {task}]
            source.set_result(None)
            spin(loop, 4)
            seen.append(source.awaitable._asyncio_awaited_by)
            return seen
    assert same(body) == ["frozenset", True, None]


@pytest.mark.parametrize("task_kind", ["own", "stock"])
def test_graph_of_a_chain(task_kind):
    def body(impl):
        with impl.loop() as loop:
            make = TASKS[task_kind]
            fut = loop.create_future()
            inner = make(impl, loop, branch(fut))
            outers = [make(impl, loop, root(inner)) for _ in range(3)]
            spin(loop, 3)
            seen = [shape(asyncio.capture_call_graph(fut)),
                    shape(asyncio.capture_call_graph(inner)),
                    shape(asyncio.capture_call_graph(outers[0]))]
            text = asyncio.format_call_graph(fut)
            seen.append([text.count("branch"), text.count("root")])
            fut.set_result(None)
            spin(loop, 5)
            seen.append(inner._asyncio_awaited_by)
            return seen
    same(body)


def test_graph_of_the_current_task():
    def body(impl):
        async def deep():
            return shape(asyncio.capture_call_graph())

        async def middle():
            return await deep()

        async def main():
            return await asyncio.get_running_loop().create_task(middle())
        return impl.run(main())
    same(body)


def test_print_call_graph():
    def body(impl):
        async def deep(out):
            asyncio.print_call_graph(file=out)

        async def main():
            out = io.StringIO()
            await deep(out)
            return out.getvalue().count("async"), "deep" in out.getvalue()
        return impl.run(main())
    same(body)


def test_edges_go_with_cancellation():
    def body(impl):
        with impl.loop() as loop:
            fut = loop.create_future()
            tasks = [loop.create_task(leaf(fut)) for _ in range(2)]
            spin(loop, 2)
            seen = [len(fut._asyncio_awaited_by)]
            tasks[0].cancel()
            spin(loop, 4)
            seen.append(fut._asyncio_awaited_by)
            return seen
    same(body)


def test_edges_of_gather_and_groups():
    def body(impl):
        async def child(fut):
            await fut

        async def main():
            loop = asyncio.get_running_loop()
            fut = loop.create_future()
            tasks = [loop.create_task(child(fut)) for _ in range(2)]
            gathering = loop.create_task(gather(tasks))
            await settle(4)
            seen = [shape(asyncio.capture_call_graph(fut))]
            fut.set_result(None)
            await gathering
            fut = loop.create_future()

            async def group():
                async with asyncio.TaskGroup() as g:
                    g.create_task(child(fut))
            task = loop.create_task(group())
            await settle(4)
            seen.append(shape(asyncio.capture_call_graph(fut)))
            fut.set_result(None)
            await task
            return seen

        async def gather(tasks):
            await asyncio.gather(*tasks)
        return impl.run(main())
    same(body)


def test_edge_while_a_task_dies(log):
    """A pending task goes; its edge to the future goes with it."""
    import gc
    with FASTLOOP.loop() as loop:
        fut = loop.create_future()
        task = loop.create_task(leaf(fut))
        task._log_destroy_pending = False
        spin(loop, 2)
        assert fut._asyncio_awaited_by == {task}
        fut.remove_done_callback(fut._callbacks[0][0])
        del task
        gc.collect()
    log.take()
