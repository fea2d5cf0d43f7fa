"""What fastloop.Loop is to a type checker: the engine in front of asyncio's own loop."""

import asyncio

from . import _core

# The engine returns its own handles, futures and tasks, all of them subclasses of asyncio's.
class Loop(_core.Loop, asyncio.SelectorEventLoop):
    """An asyncio event loop whose callbacks, tasks, futures and timers are run in C."""
