"""install() and uninstall(): make asyncio's own entry points create fastloop loops."""

from __future__ import annotations

import asyncio
import threading
from asyncio import events, unix_events
from typing import Any

from ._loop import Loop

# What uninstall() has to put back: (object, attribute, value before, value installed), newest last.
_changes: list[tuple[Any, str, Any, Any]] = []
_lock = threading.RLock()


def _default_policy_class() -> Any:
    # Up to 3.13, from 3.14 to 3.15 (where the public name warns), and from 3.16 on: none.
    for name in ("_DefaultEventLoopPolicy", "_UnixDefaultEventLoopPolicy"):
        policy = getattr(unix_events, name, None)
        if policy is not None:
            return policy
    return None


def _change(owner: Any, name: str, value: Any) -> None:
    _changes.append((owner, name, getattr(owner, name), value))
    setattr(owner, name, value)


def _new_event_loop() -> Loop:
    return Loop()


def install() -> None:
    """Make every event loop that asyncio creates from now on a fastloop loop.

    That is asyncio.run(), asyncio.Runner(), asyncio.new_event_loop() and, on the Pythons where it creates one,
    asyncio.get_event_loop(). It lasts through ``asyncio.set_event_loop_policy(None)``. Loops that exist already stay
    what they are. Calling it again does nothing more; uninstall() undoes it.
    """
    with _lock:
        default = _default_policy_class()
        if default is None:
            if events.new_event_loop is not _new_event_loop:
                _change(events, "new_event_loop", _new_event_loop)
                _change(asyncio, "new_event_loop", _new_event_loop)
            return
        if default._loop_factory is not Loop:
            _change(default, "_loop_factory", Loop)
        policy = events._event_loop_policy  # type: ignore[attr-defined]
        if policy is not None and getattr(policy, "_loop_factory", None) is not Loop:
            # Some other policy (another loop's, perhaps) was set before: the last one to be asked for wins.
            from ._policy import EventLoopPolicy

            _change(events, "_event_loop_policy", EventLoopPolicy())


def uninstall() -> None:
    """Undo install(). What somebody else changed in the meantime stays."""
    with _lock:
        while _changes:
            owner, name, before, installed = _changes.pop()
            if getattr(owner, name) is installed:
                setattr(owner, name, before)


def is_installed() -> bool:
    """Whether asyncio.new_event_loop() makes fastloop loops because of install()."""
    with _lock:
        return bool(_changes)


