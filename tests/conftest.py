"""Fixtures of the test suite.

`impl` is fastloop or asyncio, `loop` a fresh loop of it.  Every test in the folders below is
watched: it fails when it leaves a handle, future, task, loop, descriptor or thread behind,
when the exception handler or the `asyncio` logger reported something that the test did not
take from `log`, when an exception was unraisable, and on every warning.
"""

import faulthandler
import gc
import logging
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import checkout  # noqa: E402, F401  (decides which fastloop is imported)

pytest.register_assert_rewrite("support")

from support import IMPLS  # noqa: E402
from support.watch import Snapshot  # noqa: E402

WATCHED = ("loop", "task", "stress", "properties", "faults", "net", "tls", "proc")

# A test that takes longer than this hangs.  The watchdog is a thread of C, so it ends even a
# loop that never lets go of the GIL.
HANG = float(os.environ.get("FASTLOOP_TEST_HANG", "60"))

here = os.path.dirname(os.path.abspath(__file__))
failed = pytest.StashKey[bool]()
hang_file = pytest.StashKey[object]()


def is_watched(path):
    first = os.path.relpath(str(path), here).split(os.sep)[0]
    return first in WATCHED


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "leaves(reason): the test leaves objects behind, and says why")
    config.addinivalue_line(
        "markers", "hang(seconds): how long the test may take before it counts as hanging")
    manager = config.pluginmanager.getplugin("capturemanager")
    if manager is None:
        config.stash[hang_file] = os.fdopen(os.dup(2), "w")
    else:
        with manager.global_and_fixture_disabled():
            config.stash[hang_file] = os.fdopen(os.dup(2), "w")


def pytest_unconfigure(config):
    faulthandler.cancel_dump_traceback_later()
    if hang_file in config.stash:
        config.stash[hang_file].close()


def pytest_collection_modifyitems(items):
    for item in items:
        if is_watched(item.path):
            item.add_marker(pytest.mark.filterwarnings("error"), append=False)


def pytest_collection_finish(session):
    # What exists now is nobody's leak; frozen objects make each later look cheap.
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed or report.skipped:
        item.stash[failed] = True
        item.session.stash[failed] = True
    return report


class Log:
    """What the `asyncio` logger said, as (level, text) pairs; texts only, no references."""

    def __init__(self):
        self.said = []
        self.details = []  # the levels below WARNING
        self.format = logging.Formatter().formatException

    def take_record(self, record):
        text = record.getMessage()
        if record.exc_info:
            try:
                text += "\n" + self.format(record.exc_info)
            except Exception as exc:
                text += f"\n<{type(exc).__name__} while formatting>"
        where = self.said if record.levelno >= logging.WARNING else self.details
        where.append((record.levelname, text))

    def take(self):
        """All that was said so far; a test that expects reports takes them."""
        said, self.said = self.said, []
        return said

    def messages(self):
        """First lines of what was said, taken."""
        return [text.partition("\n")[0] for _, text in self.take()]


def pytest_generate_tests(metafunc):
    if "impl" in metafunc.fixturenames:
        metafunc.parametrize("impl", list(IMPLS.values()), ids=list(IMPLS), indirect=True)


@pytest.fixture(autouse=True)
def watched(request):
    """The per-test check; see the head of this file."""
    if not is_watched(request.node.path):
        yield None
        return

    marker = request.node.get_closest_marker("hang")
    limit = marker.args[0] if marker else HANG
    faulthandler.dump_traceback_later(
        limit, exit=True, file=request.config.stash[hang_file])

    logger = logging.getLogger("asyncio")
    level = logger.level
    log = Log()
    # Past all other handlers: pytest's own keep the records, and with them the objects.
    logger.callHandlers = log.take_record
    unraisable = []

    def on_unraisable(info):
        unraisable.append(
            f"{info.err_msg or 'Exception ignored in'}: {info.object!r:.200}: "
            f"{type(info.exc_value).__name__}: {info.exc_value}")

    old_hook, sys.unraisablehook = sys.unraisablehook, on_unraisable
    if request.session.stash.get(failed, False):
        request.session.stash[failed] = False
        # What the test before left is its own fault.
        for name in ("last_exc", "last_type", "last_value", "last_traceback"):
            if hasattr(sys, name):
                delattr(sys, name)
        gc.collect()
    before = Snapshot()
    try:
        yield log
        request.node.funcargs.clear()
        lines = before.differences()
        if request.node.get_closest_marker("leaves"):
            lines = []
    finally:
        sys.unraisablehook = old_hook
        del logger.callHandlers
        logger.setLevel(level)
        faulthandler.cancel_dump_traceback_later()

    if request.node.stash.get(failed, False):
        return
    lines += [f"unexpected report: {level} {text}" for level, text in log.said]
    lines += [f"unraisable: {text}" for text in unraisable]
    if lines:
        pytest.fail("\n".join(lines), pytrace=False)


@pytest.fixture
def log(watched):
    """The log of this test; what it does not take() makes it fail."""
    return watched


@pytest.fixture
def impl(request):
    """fastloop or asyncio."""
    return request.param


@pytest.fixture
def loop(impl):
    """A fresh loop, closed after the test."""
    loop = impl.new_loop()
    yield loop
    if not loop.is_closed():
        loop.close()
    del loop
