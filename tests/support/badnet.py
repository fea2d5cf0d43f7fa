"""What to leave out on a bad network.

With FASTLOOP_DEBUG_NET a debug build makes the network misbehave (src/os/sockcall.h; the stage
`badnet` of .ci/run).  What then cannot hold a folder's conftest names by the reason: a test, or
those of its cases that begin like this.
"""

import os

import pytest

from support import ASYNCIO
from support.net import BAD_NETWORK


def leave_out(conftest, unfit, config, items):
    """Take what `unfit` ({reason: names}) lists out of `items`, as far as it lies in the folder of that conftest."""
    if not BAD_NETWORK:
        return
    folder = os.path.dirname(os.path.abspath(conftest))
    unfit = [entry for entries in unfit.values() for entry in entries]
    used = set()

    def is_fit(item):
        if os.path.dirname(item.path) != folder:
            return True
        name = f"{item.path.stem}.{item.name}"
        found = {entry for entry in unfit if name.startswith(entry) and ("[" in entry or name.split("[")[0] == entry)}
        used.update(found)
        # asyncio has the good network
        callspec = getattr(item, "callspec", None)
        return not found and not (callspec and callspec.params.get("impl") is ASYNCIO)

    fit = [item for item in items if is_fit(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in fit])
    items[:] = fit
    modules = {item.path.stem for item in items if os.path.dirname(item.path) == folder}
    stale = sorted(entry for entry in unfit if entry not in used and entry.partition(".")[0] in modules)
    is_partial = config.option.keyword or config.getoption("lf", False)
    if stale and not is_partial and not any("::" in arg for arg in config.args):
        raise pytest.UsageError(f"{folder}/conftest.py names tests that do not exist: {', '.join(stale)}")
