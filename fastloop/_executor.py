"""The default executor: threads that hand their results straight to the loop.

Looks and behaves like the ThreadPoolExecutor that asyncio makes: the names of its threads, when they start, how they
end with the interpreter.  The work itself waits in a queue of the C core.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import thread as _pool

from . import _core


def _default_workers():
    """As many as ThreadPoolExecutor() of this Python would start."""
    count = getattr(os, "process_cpu_count", os.cpu_count)
    return min(32, (count() or 1) + 4)


class DefaultExecutor(ThreadPoolExecutor):
    """A ThreadPoolExecutor whose queue belongs to a loop."""

    def __init__(self, loop):
        if _pool._shutdown:
            # concurrent.futures has told all queues by now: nobody would tell this one, or wait for its threads.
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        super().__init__(max_workers=_default_workers(), thread_name_prefix="asyncio")
        self._numbers = itertools.count()
        this = weakref.ref(self)
        self._jobs = _core.JobQueue(loop, self._max_workers, lambda: this()._start_worker())
        self._loop = weakref.ref(loop)

    def _start_worker(self):
        worker = threading.Thread(
            name=f"{self._thread_name_prefix}_{next(self._numbers)}", target=self._jobs.work
        )
        worker.start()
        self._threads.add(worker)
        # From here concurrent.futures tells the queue of the interpreter's end, and waits for the thread.
        _pool._threads_queues[worker] = self._jobs

    def submit(self, fn, /, *args, **kwargs):
        """For those who take the loop's executor for an ordinary one."""
        loop = self._loop()
        if loop is None or loop.is_closed() or self._shutdown:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future = Future()
        loop.call_soon_threadsafe(loop.run_in_executor, None, _run_for, future, fn, args, kwargs)
        return future

    def shutdown(self, wait=True, *, cancel_futures=False):
        with self._shutdown_lock:
            self._shutdown = True
            if cancel_futures:
                for future in self._jobs.cancel_pending():
                    future.get_loop().call_soon_threadsafe(future.cancel)
            self._jobs.close()
        if wait:
            for worker in self._threads:
                worker.join()

    def __del__(self):
        jobs = getattr(self, "_jobs", None)
        if jobs is not None:
            jobs.close()


def _run_for(future, fn, args, kwargs):
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = fn(*args, **kwargs)
    except BaseException as exc:
        future.set_exception(exc)
    else:
        future.set_result(result)
