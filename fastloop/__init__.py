"""fastloop: a fast asyncio event loop with its own Task and Future.

    import fastloop

    async def main(): ...

    fastloop.run(main())

``fastloop.new_event_loop`` is the name to give to any tool that takes a loop factory.
"""

import sys

from ._version import __version__

try:
    from ._core import Future, Task
except ImportError as _problem:
    from ._missing import explain

    raise explain(_problem) from None

from ._install import install, uninstall
from ._loop import Loop
from ._run import new_event_loop, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._policy import EventLoopPolicy

__all__ = [
    "Future",
    "Loop",
    "Task",
    "__version__",
    "install",
    "new_event_loop",
    "run",
    "uninstall",
]

if sys.version_info < (3, 16):
    __all__ += ["EventLoopPolicy"]


def _lazy(name: str) -> object:
    # Made on first use: most programs never ask for it, and asyncio drops policies in Python 3.16.
    if name == "EventLoopPolicy":
        if sys.version_info >= (3, 16):
            raise AttributeError(
                "fastloop.EventLoopPolicy does not exist on Python 3.16 and newer, where asyncio has no policies; "
                "use fastloop.run(main()), asyncio.run(main(), loop_factory=fastloop.new_event_loop) "
                "or fastloop.install()"
            )
        from ._policy import EventLoopPolicy

        globals()["EventLoopPolicy"] = EventLoopPolicy
        return EventLoopPolicy
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if not TYPE_CHECKING:
    __getattr__ = _lazy


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
