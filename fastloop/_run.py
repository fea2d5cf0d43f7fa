"""new_event_loop() and run()."""

from __future__ import annotations

import asyncio
from asyncio import events
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from ._loop import Loop

_T = TypeVar("_T")


def new_event_loop() -> Loop:
    """Return a new fastloop event loop."""
    return Loop()


def run(
    main: Coroutine[Any, Any, _T] | Awaitable[_T],
    *,
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> _T:
    """Run *main* on a new fastloop event loop and return its result.

    Does what ``asyncio.run(main, debug=debug, loop_factory=fastloop.new_event_loop)`` does, on every supported
    Python: Ctrl-C cancels *main*, and leftover tasks, asynchronous generators and the default executor are shut down
    before the loop is closed. Python 3.14 and newer accept any awaitable, older ones a coroutine.
    """
    if events._get_running_loop() is not None:
        raise RuntimeError(
            "fastloop.run() cannot be called while an event loop runs in the same thread; await the coroutine instead"
        )
    with asyncio.Runner(debug=debug, loop_factory=loop_factory or new_event_loop) as runner:
        return runner.run(main)  # type: ignore[arg-type]
