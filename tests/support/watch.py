"""What a test may leave behind, counted: objects, descriptors, threads, process state."""

import asyncio
import gc
import os
import signal
import sys
import threading
import time

KINDS = (
    asyncio.Handle,
    asyncio.Future,
    asyncio.futures._PyFuture,
    asyncio.AbstractEventLoop,
    asyncio.BaseTransport,
)


def live_objects():
    """The handles, timers, futures, tasks, loops and transports that the collector knows."""
    return [o for o in gc.get_objects() if issubclass(type(o), KINDS)]


def open_descriptors():
    """{descriptor: what it is} of this process."""
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    found = {}
    for name in os.listdir(folder):
        try:
            found[int(name)] = os.readlink(os.path.join(folder, name))
        except OSError:
            continue  # the descriptor of the listing itself
    return found


def thread_count():
    """How many threads the kernel sees in this process."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return threading.active_count()


def process_state():
    """What a loop changes while it runs and must restore."""
    wakeup = -1
    if threading.current_thread() is threading.main_thread():
        wakeup = signal.set_wakeup_fd(-1)
        if wakeup != -1:
            signal.set_wakeup_fd(wakeup)
    return {
        "running loop": asyncio._get_running_loop(),
        "asyncgen hooks": tuple(sys.get_asyncgen_hooks()),
        "coroutine origin tracking": sys.get_coroutine_origin_tracking_depth(),
        "signal wake-up descriptor": wakeup,
        "SIGINT handler": signal.getsignal(signal.SIGINT),
        "current tasks": dict(getattr(asyncio.tasks, "_current_tasks", None) or {}),
    }


class Snapshot:
    """The counts at one moment."""

    def __init__(self):
        self.objects = {id(o) for o in live_objects()}
        self.descriptors = open_descriptors()
        self.threads = thread_count()
        self.state = process_state()

    def differences(self):
        """One line for each thing that is more or other now than it was then."""
        lines = []
        limit = time.monotonic() + 2
        while thread_count() > self.threads and time.monotonic() < limit:
            time.sleep(0.005)
        if thread_count() > self.threads:
            lines.append(f"threads left: {self.threads} -> {thread_count()}"
                         f" ({[t.name for t in threading.enumerate()]})")
        for _ in range(3):
            gc.collect()
            found = live_objects()
            if len(found) <= len(self.objects):
                break
        if len(found) > len(self.objects):
            left = [o for o in found if id(o) not in self.objects]
            lines += [f"object left: {type(o).__name__} {o!r:.300}" for o in left[:10]]
            lines.append(f"{len(found) - len(self.objects)} objects more than before")
            del left
        del found
        now = open_descriptors()
        for fd in sorted(set(now) - set(self.descriptors)):
            lines.append(f"descriptor left: {fd} -> {now[fd]}")
        for fd in sorted(set(self.descriptors) - set(now)):
            lines.append(f"foreign descriptor closed: {fd} -> {self.descriptors[fd]}")
        for name, value in process_state().items():
            if value != self.state[name]:
                lines.append(f"{name} not restored: {self.state[name]!r} -> {value!r}")
        return lines
