"""CPython's tests for its C Task and Future, bound to a Task and a Future of our own.

CPython writes each of these tests once and binds it to several pairs of types.  We
add pairs by deriving from *its* bindings, so that `current_task`, `all_tasks` and the
registration functions are always the ones that the version at hand uses for C tasks.
"""

import asyncio
import importlib
from unittest import mock

import swap

# Test modules with something to bind.  Those that run on a real loop, and not only on
# `utils.TestLoop`, are worth a second run on the loop under test.
MODULES = (
    "test_tasks",
    "test_futures",
    "test_futures2",
    "test_eager_task_factory",
    "test_graph",
    "test_free_threading",
)
ON_A_REAL_LOOP = (
    "test_futures2",
    "test_eager_task_factory",
    "test_graph",
    "test_free_threading",
)


def load_types(spec):
    """(Task, Future) of a module; "asyncio" means stand-ins, plain subclasses."""
    if spec == "asyncio":
        Future = type("Future", (asyncio.Future,), {"__module__": "asyncio"})
        Task = type("Task", (asyncio.Task, Future), {"__module__": "asyncio"})
        return Task, Future
    module = importlib.import_module(spec)
    return module.Task, module.Future


def bind(module, Task, Future):
    """Return the test cases of an imported test module, bound to the two types."""
    name = module.__name__.rpartition(".")[2]
    binder = globals()["_bind_" + name]
    return [case for case in binder(_Binder(module), Task, Future) if case is not None]


class _Binder:
    """Derives test cases inside one test module."""

    def __init__(self, module):
        self.module = module

    def derive(self, name, *bases, **attrs):
        """A test case of that name, or None where this version has no such base."""
        found = [getattr(self.module, base, None) if isinstance(base, str) else base
                 for base in bases]
        if None in found:
            return None
        # The module's own name, for its tearDownModule and for tracebacks.
        attrs["__module__"] = self.module.__name__
        return type(name, tuple(found), attrs)


def _pretending(Task, Future):
    """A mixin for tests that look the C types up in asyncio while they run.

    Some of them check tasks with `isinstance(task, asyncio.Future)`, so that our Future
    can stand in only for a Task that derives from it.
    """
    if not issubclass(Task, Future):
        Future = asyncio.futures._CFuture

    class Pretending:
        def run(self, result=None):
            with mock.patch.object(asyncio.tasks, "_CTask", Task), \
                 mock.patch.object(asyncio.futures, "_CFuture", Future):
                return super().run(result)

    return Pretending


def _bind_test_tasks(binder, Task, Future):
    derive = binder.derive
    subclassed = binder.module.add_subclass_tests
    CTask, PyTask = asyncio.tasks._CTask, asyncio.tasks._PyTask
    CFuture, PyFuture = asyncio.futures._CFuture, asyncio.futures._PyFuture

    # The base decides which variant of current_task() and all_tasks() is used.
    c_task, py_task = "CTask_PyFuture_Tests", "PyTask_CFuture_Tests"
    pairs = [
        ("CTask_OwnFuture", (c_task,), CTask, Future),
        ("OwnTask_PyFuture", (c_task,), Task, PyFuture),
        ("PyTask_OwnFuture", (py_task,), PyTask, Future),
    ]
    yield derive("OwnTask_OwnFuture", "CTask_CFuture_Tests", Task=Task, Future=Future)
    yield derive("OwnTask_CFuture", "SetMethodsTest", c_task, Task=Task, Future=CFuture)
    for name, bases, task, future in pairs:
        yield derive(name, *bases, Task=task, Future=future)

    pairs += [("OwnTask_OwnFuture", (c_task,), Task, Future),
              ("OwnTask_CFuture", (c_task,), Task, CFuture)]
    for name, bases, task, future in pairs:
        yield subclassed(derive(name + "_Subclass", *bases, Task=task, Future=future))

    pretending = _pretending(Task, Future)
    yield derive("OwnTask_Introspection", "CIntrospectionTests", Task=Task)
    yield derive("OwnTask_CurrentLoop", pretending, "CCurrentLoopTests")


def _bind_test_futures(binder, Task, Future):
    derive = binder.derive

    class Subclass(Future):
        pass

    def new_future(cls):
        return lambda self: cls(loop=self.loop)

    yield derive("OwnFuture", "CFutureTests", cls=Future)
    yield derive("OwnFuture_Subclass", "CSubFutureTests", cls=Subclass)
    yield derive("OwnFuture_DoneCallback", "CFutureDoneCallbackTests",
                 _new_future=new_future(Future))
    yield derive("OwnFuture_Subclass_DoneCallback", "CSubFutureDoneCallbackTests",
                 _new_future=new_future(Subclass))
    yield derive("OwnFuture_Inheritance", "CFutureInheritanceTests",
                 _get_future_cls=lambda self: Future)


def _bind_test_futures2(binder, Task, Future):
    # `cls` is the *task* type: these tests await a task and look at its traceback.
    yield binder.derive("OwnTask", "CFutureTests", cls=Task)


def _bind_test_eager_task_factory(binder, Task, Future):
    derive = binder.derive
    yield derive("OwnTask_Eager", "CEagerTaskFactoryLoopTests", Task=Task)
    yield derive("OwnTask_CountingEager", "EagerCTaskTests", Task=Task)
    yield derive("OwnTask_CountingNonEager", "NonEagerCTaskTests", Task=Task)


def _bind_test_graph(binder, Task, Future):
    yield binder.derive("OwnTask_CallStack", _pretending(Task, Future), "TestCallStackC")


def _bind_test_free_threading(binder, Task, Future):
    pretending = _pretending(Task, Future)
    yield binder.derive("OwnTask_FreeThreading", pretending, "TestCFreeThreading")
    yield binder.derive("OwnTask_EagerFreeThreading", pretending, "TestEagerCFreeThreading")
