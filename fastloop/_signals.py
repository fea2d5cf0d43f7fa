"""Signals: add_signal_handler, and a sleep that a signal always ends.

CPython writes the number of each signal that arrives to one descriptor of the process.  While a loop may sleep in
the main thread, that is the loop's pipe; so no signal falls between its last look and its sleep.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
import threading
import warnings
from asyncio import coroutines
from asyncio.log import logger

from . import _core


def _noop(signum, frame):
    """Installed for its side effect: CPython writes the signal's number to the wake-up descriptor."""


class SignalMixin:
    """The part of Loop that deals with signals."""

    @property
    def _signal_handlers(self):
        if self._made_signal_handlers is None:
            self._made_signal_handlers = {}
        return self._made_signal_handlers

    def _open_signal_pipe(self):
        """The write end of the loop's pipe, which is made on first use."""
        if self._signal_pipe is None:
            reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            self._signal_pipe = [reader, writer, None]
            self._watch_signals(reader)
        return self._signal_pipe[1]

    def _signal_wakeup_begin(self):
        """Called from C before the first sleep of a run."""
        if threading.current_thread() is not threading.main_thread():
            return
        writer = self._open_signal_pipe()
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        if before != writer:
            self._signal_pipe[2] = before

    def _signal_wakeup_end(self):
        """The end of such a run: what was there before comes back, unless somebody changed it meanwhile."""
        self._signals_armed = False
        if self._signal_pipe is None or self._signal_pipe[2] is None:
            return
        _, writer, before = self._signal_pipe
        self._signal_pipe[2] = None
        if self._signal_handlers:
            return
        current = signal.set_wakeup_fd(before, warn_on_full_buffer=False)
        if current != writer:
            signal.set_wakeup_fd(current, warn_on_full_buffer=False)

    def _close_signals(self):
        """Part of close()."""
        if self._made_signal_handlers:
            if not sys.is_finalizing():
                for sig in list(self._signal_handlers):
                    self.remove_signal_handler(sig)
            else:
                warnings.warn(
                    f"Closing the loop {self!r} on interpreter shutdown stage, skipping signal handlers removal",
                    ResourceWarning,
                    source=self,
                )
                self._signal_handlers.clear()
        if self._signal_pipe is not None:
            reader, writer, _ = self._signal_pipe
            self._signal_pipe = None
            self._watch_signals(-1)
            os.close(reader)
            os.close(writer)

    def add_signal_handler(self, sig, callback, *args):
        """Run the callback in the loop whenever the signal arrives."""
        if coroutines.iscoroutine(callback) or asyncio.unix_events.coroutines.iscoroutinefunction(callback):
            raise TypeError("coroutines cannot be used with add_signal_handler()")
        self._check_signal(sig)
        self._check_closed()
        self._check_fork()
        try:
            before = signal.set_wakeup_fd(self._open_signal_pipe(), warn_on_full_buffer=False)
        except (ValueError, OSError) as exc:  # not the main thread
            raise RuntimeError(str(exc)) from exc
        del before
        self._signal_handlers[sig] = asyncio.Handle(callback, args, self, None)
        try:
            signal.signal(sig, _noop)
            signal.siginterrupt(sig, False)  # SA_RESTART, against needless EINTR
        except OSError as exc:
            del self._signal_handlers[sig]
            self._forget_wakeup_if_idle()
            if exc.errno == errno.EINVAL:
                raise RuntimeError(f"sig {sig} cannot be caught") from exc
            raise

    def remove_signal_handler(self, sig):
        """Forget the handler of a signal; True if there was one."""
        self._check_signal(sig)
        try:
            del self._signal_handlers[sig]
        except KeyError:
            return False
        handler = signal.default_int_handler if sig == signal.SIGINT else signal.SIG_DFL
        try:
            signal.signal(sig, handler)
        except OSError as exc:
            if exc.errno == errno.EINVAL:
                raise RuntimeError(f"sig {sig} cannot be caught") from exc
            raise
        self._forget_wakeup_if_idle()
        return True

    def _forget_wakeup_if_idle(self):
        if self._signal_handlers or self._signals_armed:
            return
        try:
            signal.set_wakeup_fd(-1)
        except (ValueError, OSError) as exc:
            logger.info("set_wakeup_fd(-1) failed: %s", exc)
