"""Signals: a sleep that a signal always ends, and the pipe that asyncio's add_signal_handler asks for.

CPython writes the number of each signal that arrives to one descriptor of the process.  While a loop may sleep in
the main thread, that is the write end of the loop's pipe; so no signal falls between its last look and its sleep.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import warnings


# The pipes of the loops that have signal handlers, in the order in which they got the first one.
_with_handlers: list[_SignalPipe] = []


class _SignalPipe:
    """A pipe for signal numbers.  To asyncio's methods it is the socket whose fileno() they give to CPython."""

    def __init__(self, loop):
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.before = None  # the wake-up descriptor that the loop took the place of
        try:
            loop._watch_signals(self._reader)
        except BaseException:
            self.close()
            raise

    def fileno(self):
        return self._writer

    def close(self):
        if self in _with_handlers:
            _with_handlers.remove(self)
        os.close(self._reader)
        os.close(self._writer)


def forget_parents_pipes():
    """In a forked child: signals that come here are not the parent's."""
    _with_handlers.clear()
    if sys.version_info < (3, 12):  # asyncio's own hook of newer Pythons does the same
        signal.set_wakeup_fd(-1)


class SignalMixin(asyncio.SelectorEventLoop):
    """The part of Loop that deals with signals; the handlers themselves are kept by asyncio's methods."""

    @property
    def _signal_handlers(self):
        if self._made_signal_handlers is None:
            self._made_signal_handlers = {}
        return self._made_signal_handlers

    _ssock = None

    @property
    def _csock(self):
        if self._signal_pipe is None and self._closed:
            return None
        self._check_fork()  # a pipe that was made before the fork is the parent's
        if self._signal_pipe is None:
            self._signal_pipe = _SignalPipe(self)
        return self._signal_pipe

    def _signal_wakeup_begin(self):
        """Called from C before the first sleep of a run, and by run_forever() if there are handlers."""
        if threading.current_thread() is not threading.main_thread():
            return
        try:
            pipe = self._csock
        except OSError:
            self._signals_armed = False  # no descriptors left: the next sleep tries again
            return
        try:
            before = signal.set_wakeup_fd(pipe.fileno(), warn_on_full_buffer=False)
        except ValueError:
            return  # a subinterpreter: signals are not its business
        if before != pipe.fileno():
            pipe.before = before

    def _signal_wakeup_end(self):
        """The end of such a run: what was there before comes back, unless somebody changed it meanwhile."""
        self._signals_armed = False
        pipe = self._signal_pipe
        if pipe is None or pipe.before is None:
            return
        before, pipe.before = pipe.before, None
        if self._signal_handlers:
            return
        current = signal.set_wakeup_fd(before, warn_on_full_buffer=False)
        if current != pipe.fileno():
            signal.set_wakeup_fd(current, warn_on_full_buffer=False)

    def add_signal_handler(self, sig, callback, *args):
        """Call the callback when a signal comes; in the main thread only."""
        super().add_signal_handler(sig, callback, *args)
        if self._signal_pipe not in _with_handlers:
            _with_handlers.append(self._signal_pipe)

    def remove_signal_handler(self, sig):
        """Forget the handler of a signal; True if there was one."""
        removed = super().remove_signal_handler(sig)
        # With the last handler asyncio gives the wake-up descriptor up; the next sleep takes it again.
        if not self._signal_handlers:
            self._signals_armed = False
            if removed and self._signal_pipe in _with_handlers:
                _with_handlers.remove(self._signal_pipe)
                if _with_handlers:  # a loop that waits for its next run goes on getting its signals
                    signal.set_wakeup_fd(_with_handlers[-1].fileno(), warn_on_full_buffer=False)
        return removed

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
            pipe, self._signal_pipe = self._signal_pipe, None
            self._watch_signals(-1)
            pipe.close()
