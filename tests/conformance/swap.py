"""Put another event loop under CPython's test_asyncio.

The tests reach their loop by four roads, and each is redirected:

* the names `asyncio.SelectorEventLoop` and, from 3.13, `asyncio.EventLoop`;
* the default policy, which stands behind `new_event_loop()`, `asyncio.run` and
  `IsolatedAsyncioTestCase`.  Its *factory* is replaced, not the policy: every
  test module resets the policy when it is done;
* the `create_event_loop` and `new_loop` methods of the test cases;
* `utils.TestCase.close_loop`, which reads an attribute of asyncio's own loops.
"""

import asyncio
import asyncio.base_events
import asyncio.unix_events
import functools
import importlib
import sys
import types
import unittest

PACKAGE = "test.test_asyncio"

# The mark of the loop under test in a set of constructed loops.
TARGET = "target"

# One loop has one poller: of the test cases that differ only in the selector they
# pass, the epoll one is kept.
DOUBLES = ("Poll", "Select", "Kqueue", "Devpoll")

# Here `new_loop` makes a mock of BaseEventLoop, which is the point of the tests.
KEEP_OWN_LOOP = ("test_runners",)


def resolve(spec):
    """The object that "module:name" names."""
    module, _, name = spec.partition(":")
    return getattr(importlib.import_module(module), name)


def load_loop(spec):
    """The loop class to test.  asyncio's own is subclassed, to be told apart."""
    cls = resolve(spec)
    if cls.__module__.startswith("asyncio."):
        cls = type("Loop", (cls,), {"__module__": __name__})
    return cls


class Witness:
    """Remembers which kinds of loop were constructed since it was last asked."""

    def __init__(self):
        self._seen = set()
        self._target = ()

    def take(self):
        seen, self._seen = self._seen, set()
        return sorted(seen)

    def watch(self, target):
        """Watch the constructor of *target* and of asyncio's loops; return the
        class to use, which is *target* itself wherever it can be patched."""
        try:
            self._patch(target, lambda loop: TARGET)
        except TypeError:
            target = type("Loop", (target,), {"__module__": __name__})
            self._patch(target, lambda loop: TARGET)
        self._target = target
        self._patch(asyncio.base_events.BaseEventLoop, self._kind)
        return target

    def _kind(self, loop):
        return TARGET if isinstance(loop, self._target) else type(loop).__name__

    def _patch(self, cls, kind):
        original = cls.__init__

        @functools.wraps(original)
        def __init__(loop, *args, **kwargs):
            self._seen.add(kind(loop))
            original(loop, *args, **kwargs)

        cls.__init__ = __init__


def install(Loop):
    """Make *Loop* what asyncio constructs.  Call before importing a test module."""
    modules = (asyncio, asyncio.unix_events)
    for name in ("SelectorEventLoop", "EventLoop"):
        for module in modules:
            if hasattr(module, name):
                setattr(module, name, Loop)
    for name in ("_UnixDefaultEventLoopPolicy", "_DefaultEventLoopPolicy"):
        policy = getattr(asyncio.unix_events, name, None)
        if policy is not None:
            policy._loop_factory = staticmethod(Loop)


def adapt(module, Loop):
    """Redirect the test cases of an imported test module to *Loop*."""
    short = module.__name__.rpartition(".")[2]
    for name, cls in list(vars(module).items()):
        if not (isinstance(cls, type) and issubclass(cls, unittest.TestCase)):
            continue
        if _is_double(module, name):
            delattr(module, name)
        elif short not in KEEP_OWN_LOOP:
            for method in ("create_event_loop", "new_loop"):
                if method in vars(cls):
                    setattr(cls, method, lambda self: Loop())
    _adapt_close_loop()


def _is_double(module, name):
    for prefix in DOUBLES:
        if name.startswith(prefix) and hasattr(module, "EPoll" + name[len(prefix):]):
            return True
    return False


def _adapt_close_loop():
    utils = sys.modules.get(PACKAGE + ".utils")
    if utils is None or hasattr(utils.TestCase, "_stock_close_loop"):
        return
    stock = utils.TestCase.close_loop

    def close_loop(loop):
        if not hasattr(loop, "_default_executor"):
            if not loop.is_closed():
                loop.run_until_complete(loop.shutdown_default_executor())
            # The rest of the stock function joins the threads of a child watcher.
            loop = types.SimpleNamespace(_default_executor=None, close=loop.close)
        stock(loop)

    utils.TestCase._stock_close_loop = staticmethod(stock)
    utils.TestCase.close_loop = staticmethod(close_loop)
