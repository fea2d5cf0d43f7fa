"""The Loop class: the C engine, and on top of it what happens once per loop or connection."""

from __future__ import annotations

import asyncio
import os
import selectors
import sys
import threading
import weakref
from asyncio import events
from asyncio.base_events import BaseEventLoop
from asyncio.log import logger

from . import _by_keyword, _core
from ._names import NamesMixin
from ._network import NetworkMixin
from ._processes import ProcessMixin
from ._signals import SignalMixin, forget_parents_pipes
from ._sockets import SocketMixin
from ._tls import TLSMixin

# Newer patch releases pass every keyword of create_task on to the Task; older ones name them.
_TASK_KEYWORDS = (
    None if BaseEventLoop.create_task.__code__.co_flags & 0x08 else BaseEventLoop.create_task.__kwdefaults__.keys()
)


def _before_fork():
    """What this turn has written so far leaves now: parent and child would both send it otherwise."""
    loop = events._get_running_loop()
    if isinstance(loop, _core.Loop):
        loop._flush()


def _after_fork():
    """The parent's loops are not ours."""
    _core._after_fork()
    forget_parents_pipes()


os.register_at_fork(before=_before_fork, after_in_child=_after_fork)


class _Watches:
    """What asyncio's transports ask a loop's selector: which events a descriptor is watched for."""

    def __init__(self, loop: Loop):
        self._loop = loop

    def get_key(self, fileobj):
        watched = self._loop._watched(fileobj)
        if not watched:
            raise KeyError(f"{fileobj!r} is not registered")
        return selectors.SelectorKey(fileobj, fileobj, watched, None)


class Loop(_core.Loop, NetworkMixin, TLSMixin, SocketMixin, ProcessMixin, NamesMixin, SignalMixin):
    """An asyncio event loop whose callbacks, tasks, futures and timers are run in C."""

    _by_keyword = _by_keyword

    # asyncio's methods expect these as attributes from the start.  Made on first use, and kept in slots of the C
    # type: an instance without a __dict__ of its own has faster methods.

    @property
    def _asyncgens(self):
        if self._made_asyncgens is None:
            self._made_asyncgens = weakref.WeakSet()
        return self._made_asyncgens

    @property
    def _transports(self):
        if self._made_transports is None:
            self._made_transports = weakref.WeakValueDictionary()
        return self._made_transports

    @property
    def _unix_server_sockets(self):
        if self._made_unix_server_sockets is None:
            self._made_unix_server_sockets = {}
        return self._made_unix_server_sockets

    @property
    def _watcher(self):
        if self._made_watcher is None:
            unix = asyncio.unix_events
            self._made_watcher = unix._PidfdChildWatcher() if unix.can_use_pidfd() else unix._ThreadedChildWatcher()
        return self._made_watcher

    @property
    def _selector(self):
        return None if self._closed else _Watches(self)

    @property
    def _internal_fds(self):
        return 0 if self._closed else 1

    # Running

    def _run_forever_setup(self):
        self._check_closed()
        self._check_fork()
        self._check_running()
        self._set_coroutine_origin_tracking(self._debug)
        self._old_agen_hooks = sys.get_asyncgen_hooks()
        self._thread_id = threading.get_ident()
        sys.set_asyncgen_hooks(firstiter=self._asyncgen_firstiter_hook, finalizer=self._asyncgen_finalizer_hook)
        events._set_running_loop(self)
        if self._made_signal_handlers:
            # Another loop with handlers may have had the wake-up descriptor meanwhile.
            self._signals_armed = True
            self._signal_wakeup_begin()

    def _run_forever_cleanup(self):
        self._stopping = False
        self._thread_id = None
        events._set_running_loop(None)
        self._set_coroutine_origin_tracking(False)
        if self._signals_armed:
            self._signal_wakeup_end()
        if self._old_agen_hooks is not None:
            sys.set_asyncgen_hooks(*self._old_agen_hooks)
            self._old_agen_hooks = None

    def run_forever(self):
        """Run until stop() is called."""
        self._run_forever_setup()
        try:
            self._run()
        finally:
            self._run_forever_cleanup()

    def close(self):
        """Close the loop: its callbacks are dropped, its descriptors closed, its executor told to end."""
        if self.is_running():
            raise RuntimeError("Cannot close a running event loop")
        if self._closed:
            return
        if self._debug:
            logger.debug("Close %r", self)
        self._close_signals()
        self._executor_shutdown_called = True
        executor, self._default_executor = self._default_executor, None
        self._release()
        if executor is not None:
            executor.shutdown(wait=False)

    # Executors

    def _run_in_executor_slowly(self, executor, func, *args):
        """run_in_executor() where C leaves it to Python: the first call, a user's executor, debug mode, errors."""
        if executor is None and not self._closed and not self._executor_shutdown_called:
            if self._debug:
                self._check_callback(func, "run_in_executor")
            if self._default_executor is None:
                from ._executor import DefaultExecutor

                self._default_executor = DefaultExecutor(self)
            if hasattr(self._default_executor, "_jobs"):
                return self._submit_job(func, *args)
        return super(_core.Loop, self).run_in_executor(executor, func, *args)

    # Tasks

    def _create_task_slowly(self, coro, **kwargs):
        """create_task() where C leaves it to Python: a factory, debug mode, an eager start, a wrong call."""
        if self._task_factory is not None or (_TASK_KEYWORDS is not None and not kwargs.keys() <= _TASK_KEYWORDS):
            return super(_core.Loop, self).create_task(coro, **kwargs)
        cls = asyncio.tasks.Task if self._types_patched else _core.Task
        task = cls(coro, loop=self, **kwargs)
        if task._source_traceback:
            del task._source_traceback[-1]
        try:
            return task
        finally:
            del task  # a failed eager task must not be kept by its own traceback


Loop._create_task_slowly.__qualname__ = "BaseEventLoop.create_task"  # the name that its TypeErrors show

Loop._final_class = Loop

_core._set_final_loop(Loop)
