"""EventLoopPolicy, for programs that still choose their loop with asyncio.set_event_loop_policy()."""

from __future__ import annotations

import sys

from ._loop import Loop

# The public names warn on Python 3.14 and newer, so the class is taken from where it is defined.
if sys.version_info >= (3, 14):
    from asyncio.unix_events import _DefaultEventLoopPolicy as _Default
else:
    from asyncio.unix_events import _UnixDefaultEventLoopPolicy as _Default


class EventLoopPolicy(_Default):
    """asyncio's default policy, with fastloop's loop."""

    _loop_factory = Loop


EventLoopPolicy.__module__ = "fastloop"
