"""The extension module, in the order of src/.

Checked against the module with ``python -m mypy.stubtest fastloop._core``. What asyncio's own classes say already is
not said again: Handle, TimerHandle, Future and Task are real subclasses of theirs.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import Executor
from contextvars import Context
from typing import Any, Final, Never, TypeAlias, TypeVar, final

from _typeshed import FileDescriptorLike
from typing_extensions import TypeVarTuple, Unpack, disjoint_base

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)
_Ts = TypeVarTuple("_Ts")

# What a Task can run. An awaitable generator counts as a coroutine before Python 3.12.
if sys.version_info >= (3, 12):
    _Coro: TypeAlias = Coroutine[Any, Any, _T_co]
else:
    _Coro: TypeAlias = Generator[Any, None, _T_co] | Coroutine[Any, Any, _T_co]

# --- loop/handle.c: what call_soon() and its kin return

@final
class Handle(asyncio.Handle): ...

@final
class TimerHandle(asyncio.TimerHandle): ...

if sys.version_info >= (3, 14):
    @final
    class _ThreadSafeHandle(asyncio.Handle): ...

# --- task/await.c: what `await future` runs

@final
class FutureIter(Generator[Any, None, _T_co]):
    def __iter__(self) -> FutureIter[_T_co]: ...
    def __next__(self) -> Any: ...
    def send(self, value: Any, /) -> Any: ...
    def throw(self, typ: Any, val: Any = ..., tb: Any = ..., /) -> Any: ...
    def close(self) -> None: ...

# --- task/future.c, task/task.c: asyncio's own where this Python lays them out differently (native_tasks is 0)

# Never: the module does not tell that a step takes nothing by position.

class Future(asyncio.Future[_T]):
    def __init__(self, *, loop: asyncio.AbstractEventLoop | None = None) -> None: ...

# Covariant in its result, as asyncio.Task is for type checkers: a Task's set_result() only raises.
class Task(asyncio.Task[_T_co], Future[_T_co]): ...  # type: ignore[type-var]

# --- task/step.c: a step and a wake-up of a task, where a callable is asked for

@final
class TaskStepMethWrapper:
    def __call__(self, *args: Never) -> None: ...
    @property
    def __self__(self) -> asyncio.Task[Any]: ...

@final
class TaskWakeup:
    def __call__(self, future: object, /) -> None: ...
    @property
    def __self__(self) -> asyncio.Task[Any]: ...
    @property
    def __name__(self) -> str: ...
    @property
    def __qualname__(self) -> str: ...

# --- exec/jobs.c: the queue behind the default executor

@final
class JobQueue:
    def __new__(cls, loop: Loop, max_workers: int, spawn: Callable[[], object]) -> JobQueue: ...
    def work(self) -> None: ...
    def close(self) -> None: ...
    def put(self, item: object, /) -> None: ...
    def cancel_pending(self) -> list[Future[Any]]: ...

@final
class Job: ...

# --- loop_type.c: the engine's half of fastloop.Loop

@disjoint_base
class Loop:
    def __init__(self, selector: object = ...) -> None: ...

    # Scheduling
    def call_soon(
        self, callback: Callable[[Unpack[_Ts]], object], *args: Unpack[_Ts], context: Context | None = None
    ) -> Handle: ...
    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[_Ts]], object], *args: Unpack[_Ts], context: Context | None = None
    ) -> asyncio.Handle: ...
    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: Unpack[_Ts],
        context: Context | None = None,
    ) -> TimerHandle: ...
    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: Unpack[_Ts],
        context: Context | None = None,
    ) -> TimerHandle: ...
    def time(self) -> float: ...

    # Futures, tasks, threads
    def create_future(self) -> Future[Any]: ...
    if sys.version_info >= (3, 13):
        def create_task(
            self,
            coro: _Coro[_T],
            *,
            name: object = None,
            context: Context | None = None,
            eager_start: bool | None = None,
        ) -> Task[_T]: ...
    else:
        def create_task(self, coro: _Coro[_T], *, name: object = None, context: Context | None = None) -> Task[_T]: ...

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[_Ts]], _T], *args: Unpack[_Ts]
    ) -> Future[_T]: ...
    def _submit_job(self, func: Callable[[Unpack[_Ts]], _T], /, *args: Unpack[_Ts]) -> Future[_T]: ...

    # Life
    def stop(self) -> None: ...
    def is_running(self) -> bool: ...
    def is_closed(self) -> bool: ...
    def get_debug(self) -> bool: ...

    # Descriptors
    def _add_reader(
        self, fd: FileDescriptorLike, callback: Callable[[Unpack[_Ts]], object], /, *args: Unpack[_Ts]
    ) -> Handle: ...
    def _add_writer(
        self, fd: FileDescriptorLike, callback: Callable[[Unpack[_Ts]], object], /, *args: Unpack[_Ts]
    ) -> Handle: ...
    def _remove_reader(self, fd: FileDescriptorLike, /) -> bool: ...
    def _remove_writer(self, fd: FileDescriptorLike, /) -> bool: ...
    def _watched(self, fd: FileDescriptorLike, /) -> int: ...
    def _watch_signals(self, fd: int, /) -> None: ...

    # What asyncio's own methods, and fastloop._loop, call
    def _add_callback(self, handle: asyncio.Handle, /) -> None: ...
    def _add_callback_signalsafe(self, handle: asyncio.Handle, /) -> None: ...
    def _write_to_self(self) -> None: ...
    def _check_closed(self) -> None: ...
    def _check_fork(self) -> None: ...
    def _check_thread(self) -> None: ...
    def _run(self) -> None: ...
    def _run_once(self) -> None: ...
    def _release(self) -> None: ...

    # Attributes that asyncio's own methods keep on a loop
    slow_callback_duration: float
    _exception_handler: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None
    _current_handle: asyncio.Handle | None
    _old_agen_hooks: Any
    _coroutine_origin_tracking_saved_depth: int | None
    _coroutine_origin_tracking_enabled: bool
    _asyncgens_shutdown_called: bool
    _executor_shutdown_called: bool
    _closed: bool
    _stopping: bool
    _debug: bool
    _thread_id: int | None
    _task_factory: Callable[..., Awaitable[Any]] | None
    _default_executor: Executor | None
    @property
    def _ready(self) -> list[Any]: ...
    @property
    def _scheduled(self) -> list[TimerHandle]: ...
    @property
    def _clock_resolution(self) -> float: ...

    # Slots for what fastloop._loop and fastloop._signals make on first use
    _made_asyncgens: Any
    _made_transports: Any
    _made_signal_handlers: Any
    _made_unix_server_sockets: Any
    _made_watcher: Any
    _signal_pipe: Any
    _signals_armed: bool
    _types_patched: bool

# --- module.c

native_tasks: Final[int]  # 1: Future and Task are our own
shared_contexts: Final[int]  # 1: calls share snapshots of the context
build: Final[str]  # release, debug, asan or coverage

def _after_fork() -> None: ...
def _set_final_loop(type: type[Loop], /) -> None: ...
