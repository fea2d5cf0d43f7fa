"""Every type of fastloop._core: public name, immutable, and honest about its own references."""

import asyncio
import gc
import sys
import weakref

import pytest

import fastloop
from fastloop import _core


def types():
    found = {name: value for name, value in vars(_core).items() if isinstance(value, type)}
    found.update({"Future": fastloop.Future, "Task": fastloop.Task})
    return {name: cls for name, cls in found.items() if cls.__module__.startswith("fastloop")}


TYPES = types()
IMMUTABLE = 1 << 8  # Py_TPFLAGS_IMMUTABLETYPE


async def give():
    pass


def makers():
    """{type: function that makes an instance}, of what can be made here; and a clean-up."""
    loop = fastloop.Loop()

    def task():
        coro = give()
        made = fastloop.Task(coro, loop=loop)
        made._log_destroy_pending = False
        coro.close()
        return made

    known = [loop.create_future, task, lambda: loop.call_soon(int),
             lambda: loop.call_later(1000, int), lambda: loop.call_soon_threadsafe(int),
             lambda: iter(loop.create_future())]
    found = {}
    for make in known:
        made = make()
        found.setdefault(type(made), make)
        cancel = getattr(made, "cancel", None)
        if cancel and not asyncio.isfuture(made):
            cancel()
    del made, cancel
    return loop, found


def test_the_module_has_types():
    assert {"Future", "Task"} <= set(TYPES)


PUBLIC = ["Future", "Task", "Handle", "TimerHandle"]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name(name):
    """Users see fastloop.Name, not where it is implemented."""
    cls = TYPES[name]
    assert cls.__module__ == "fastloop"
    assert cls.__qualname__ == cls.__name__ == name
    assert cls.__doc__


def test_every_name_begins_with_the_packages():
    """What a traceback or repr shows of an internal type tells where it is from."""
    assert fastloop.Loop.__module__.split(".")[0] == "fastloop"
    for cls in TYPES.values():
        assert cls.__module__ in ("fastloop", "fastloop._core")


@pytest.mark.parametrize("name", TYPES)
def test_immutable(name):
    """A type of C cannot be changed; only one with a Python class as its base has to stay open."""
    cls = TYPES[name]
    if any(not base.__flags__ & IMMUTABLE for base in cls.__bases__):
        pytest.skip("its base can be changed")
    assert cls.__flags__ & IMMUTABLE
    with pytest.raises(TypeError):
        cls.anything = 1


def spin(loop):
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_instances_leave_the_types_references_alone():
    loop, known = makers()
    wrong = []
    for cls, make in known.items():
        for _ in range(50):
            made = make()
            if hasattr(made, "cancel") and not asyncio.isfuture(made):
                made.cancel()
        del made
        spin(loop)
        gc.collect()
        before = sys.getrefcount(cls)
        for _ in range(1000):
            made = make()
            if hasattr(made, "cancel") and not asyncio.isfuture(made):
                made.cancel()
        del made
        for _ in range(3):
            spin(loop)
        gc.collect()
        after = sys.getrefcount(cls)
        # Instances kept for reuse hold their type; a pool is bounded.
        if not -300 < after - before < 300:
            wrong.append((cls, before, after))
    loop.close()
    assert wrong == []


def test_instances_in_a_cycle_are_collected():
    """Traverse and clear of futures, tasks, handles and loops."""
    class Canary:
        pass
    gc.collect()
    refs = []
    loop = fastloop.Loop()
    loop.set_exception_handler(lambda *a: None)

    def canary():
        thing = Canary()
        refs.append(weakref.ref(thing))
        return thing
    fut = loop.create_future()
    thing = canary()
    thing.fut = fut
    fut.add_done_callback(lambda f, t=thing: None)
    fut = loop.create_future()
    thing = canary()
    thing.fut = fut
    fut.set_result(thing)
    thing = canary()
    thing.handle = loop.call_later(1000, id, thing)
    thing.handle.cancel()
    thing = canary()
    thing.handle = loop.call_soon(id, thing)
    thing = canary()
    thing.timer = loop.call_later(1000, id, thing)

    async def wait(fut, thing):
        await fut
    thing = canary()
    thing.task = loop.create_task(wait(loop.create_future(), thing))
    thing.task._log_destroy_pending = False
    spin(loop)
    thing = canary()
    thing.loop = loop
    loop.thing = thing
    loop.close()
    del fut, thing, loop
    gc.collect()
    assert [r() for r in refs] == [None] * len(refs)


def test_types_cannot_be_made_by_hand_where_it_makes_no_sense():
    """Handles and iterators come from the loop; their constructors refuse or work, no crash."""
    for cls in TYPES.values():
        try:
            made = cls()
        except TypeError:
            continue
        except (RuntimeError, AttributeError, DeprecationWarning):
            continue
        close = getattr(made, "close", None)
        if close:
            close()


def test_only_the_init_function_is_exported():
    import shutil
    import subprocess
    if shutil.which("nm") is None:
        pytest.skip("nm is not installed")
    out = subprocess.run(["nm", "-D", "--defined-only", _core.__file__],
                         capture_output=True, text=True).stdout
    names = {line.split()[-1] for line in out.splitlines() if line}
    names = {n for n in names if not n.startswith(("_init", "_fini", "__bss", "_edata", "_end",
                                                   "__asan", "__odr_asan", "__gcov", "__ubsan", "__tsan"))}
    assert names == {"PyInit__core"}
