"""Asynchronous generators: hooks, finalizers, shutdown_asyncgens."""

import asyncio
import gc
import sys
import warnings

import pytest

from support import same, settle


async def numbers(seen, count=10):
    try:
        for n in range(count):
            yield n
            await asyncio.sleep(0)
    finally:
        await asyncio.sleep(0)
        seen.append("closed")


def test_hooks_are_set_while_running(loop):
    seen = []
    before = sys.get_asyncgen_hooks()
    loop.call_soon(lambda: seen.append(sys.get_asyncgen_hooks()))
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert all(callable(hook) for hook in seen[0])
    assert sys.get_asyncgen_hooks() == before
    seen.clear()


def test_hooks_of_others_come_back(loop):
    def first(agen):
        pass

    def last(agen):
        pass
    sys.set_asyncgen_hooks(first, last)
    try:
        loop.run_until_complete(asyncio.sleep(0))
        assert sys.get_asyncgen_hooks() == (first, last)
        loop.call_soon(lambda: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            loop.run_forever()
        assert sys.get_asyncgen_hooks() == (first, last)
    finally:
        sys.set_asyncgen_hooks(None, None)


def test_unfinished_generator_is_closed_when_collected(loop):
    seen = []

    async def main():
        async for n in numbers(seen):
            if n == 2:
                break
        await settle(5)
        gc.collect()
        await settle(5)
        return seen
    assert loop.run_until_complete(main()) == ["closed"]


def test_generator_collected_in_another_thread(loop):
    import threading
    seen = []

    async def main():
        agen = numbers(seen)
        await agen.__anext__()
        box = [agen]
        del agen
        thread = threading.Thread(target=box.clear)
        thread.start()
        while not seen:
            await asyncio.sleep(0.001)
        thread.join()
    loop.run_until_complete(asyncio.wait_for(main(), 5))
    assert seen == ["closed"]


def test_shutdown_closes_all(loop):
    seen = []
    agens = []

    async def main():
        for _ in range(5):
            agen = numbers(seen)
            await agen.__anext__()
            agens.append(agen)
    loop.run_until_complete(main())
    assert seen == []
    loop.run_until_complete(loop.shutdown_asyncgens())
    assert seen == ["closed"] * 5
    agens.clear()


def test_shutdown_without_generators(loop):
    assert loop.run_until_complete(loop.shutdown_asyncgens()) is None
    assert loop.run_until_complete(loop.shutdown_asyncgens()) is None


def test_runner_shuts_down(impl):
    seen = []
    keep = []

    async def main():
        agen = numbers(seen)
        keep.append(agen)
        await agen.__anext__()
    impl.run(main())
    assert seen == ["closed"]


def test_error_while_closing_is_reported(log):
    async def broken():
        try:
            yield 1
        finally:
            raise LookupError("while closing")

    def body(impl):
        with impl.loop() as loop:
            seen = []
            loop.set_exception_handler(lambda loop, c: seen.append(
                (sorted(c), c["message"].split(" <")[0], type(c["exception"]).__name__)))

            async def main():
                agen = broken()
                await agen.__anext__()
                return agen
            agen = loop.run_until_complete(main())
            loop.run_until_complete(loop.shutdown_asyncgens())
            del agen
            return seen
    assert same(body) == [[["asyncgen", "exception", "message"],
                           "an error occurred during closing of asynchronous generator",
                           "LookupError"]]


def test_generator_after_shutdown_warns():
    def body(impl):
        with impl.loop() as loop:
            async def main():
                await loop.shutdown_asyncgens()
                with warnings.catch_warnings(record=True) as seen:
                    warnings.simplefilter("always")
                    async for _ in numbers([], 1):
                        pass
                return [(w.category.__name__, str(w.message).partition(" <")[0]) for w in seen]
            return loop.run_until_complete(main())
    assert same(body)[0][0] == "ResourceWarning"


def test_generator_collected_after_close(impl):
    """The finalizer of a closed loop does nothing, quietly."""
    keep = []
    with impl.loop() as loop:
        async def main():
            agen = numbers([])
            await agen.__anext__()
            keep.append(agen)
        loop.run_until_complete(main())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keep.clear()
        gc.collect()


def test_generators_are_held_weakly(loop):
    import weakref

    async def main():
        agen = numbers([])
        async for _ in agen:
            pass
        return weakref.ref(agen)
    ref = loop.run_until_complete(main())
    gc.collect()
    assert ref() is None


def test_athrow_and_aclose(loop):
    async def gen(seen):
        try:
            yield 1
        except ValueError:
            seen.append("thrown")
            yield 2

    async def main():
        seen = []
        agen = gen(seen)
        assert await agen.__anext__() == 1
        assert await agen.athrow(ValueError) == 2
        await agen.aclose()
        return seen
    assert loop.run_until_complete(main()) == ["thrown"]


def test_cancelled_in_the_middle(loop):
    seen = []

    async def consume():
        async for n in numbers(seen, 1000):
            await asyncio.sleep(0)

    async def main():
        task = loop.create_task(consume())
        await settle(6)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        del task
        gc.collect()
        await settle(6)
    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_asyncgens())
    assert seen == ["closed"]


def test_hooks_with_a_subclass(impl):
    """_asyncgen_firstiter_hook and _finalizer_hook exist on asyncio's loops."""
    seen = []
    loop = impl.new_loop()

    async def main():
        agen = numbers(seen)
        await agen.__anext__()
        del agen
        gc.collect()
        await settle(6)
    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    assert seen == ["closed"]
