"""The event loops that are compared, and how each is made."""

import asyncio
import importlib
import importlib.metadata
import platform
from collections.abc import Callable

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

# Name: (module, what makes a loop). The order is the order of the columns.
LOOPS = {
    "asyncio": ("asyncio", "new_event_loop"),
    "fastloop": ("fastloop", "new_event_loop"),
    "uvloop": ("uvloop", "new_event_loop"),
    "zuvloop": ("zuvloop", "new_event_loop"),
    "rloop": ("rloop", "new_event_loop"),
    "rsloop": ("rsloop", "new_event_loop"),
    "talyn": ("talyn", "Loop"),
}

# No loops, but other transports for the loops of others: measured where bytes go over the network.
LIBRARIES = {
    "aiofastnet": ("benchmarks.loops", "aiofastnet_loop"),
}
NETWORK = {**LOOPS, **LIBRARIES}

# Every ratio is a ratio to this loop's time.
REFERENCE = "uvloop"
OURS = "fastloop"
# Loops that count as peers when we ask whether any is ahead.
PEERS = tuple(name for name in LOOPS if name not in (OURS, REFERENCE, "asyncio"))


def aiofastnet_loop() -> asyncio.AbstractEventLoop:
    """Its transports on uvloop, on which they are at their best."""
    import aiofastnet
    import uvloop

    loop: asyncio.AbstractEventLoop = aiofastnet.patch_loop(uvloop.new_event_loop())
    return loop


def factory(name: str) -> LoopFactory:
    """What makes a new loop of this name; raises ImportError or AttributeError when it is not there."""
    module, attribute = NETWORK[name]
    make: LoopFactory = getattr(importlib.import_module(module), attribute)
    return make


def version(name: str) -> str:
    if name == "asyncio":
        return f"of CPython {platform.python_version()}"
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return str(getattr(importlib.import_module(NETWORK[name][0]), "__version__", "unknown"))
