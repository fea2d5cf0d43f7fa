"""Tests that fastloop is not expected to pass, each with the reason.

An entry names a part of the run ("loop", "types", "types+loop"), a test as the report
prints it (wildcards allowed), the versions it holds for ("3.12", "3.12-3.14",
"3.13.1+", "all"), what to do, and why.

FAILS   the test is run and has to fail; that it passes is an error, so that the table
        cannot go stale;
OMIT    the test is not run, because it would hang or bring the process down.
"""

import sys
from collections import namedtuple

FAILS = "fails"
OMIT = "omit"

Entry = namedtuple("Entry", "part test versions action reason")

MOCKED_SIGNAL = "replaces `signal` or `sys` in asyncio.unix_events, whose code we do not run"
PYTHON_TWINS = ("puts asyncio's pure-Python Task and registry in place of the C ones; our Task "
                "is a C task, and from 3.14 on neither registry knows the other's tasks")

SIGNAL_TESTS = "test_unix_events.SelectorEventLoopSignalTests."

ENTRIES = [Entry(*fields) for fields in (
    ("loop", "test_base_events.BaseEventLoopWithSelectorTests.test_log_slow_callbacks",
     "all", FAILS, "replaces `logger` in asyncio.base_events; we log to the same logger, "
                   "but from C"),
    ("loop", "test_events.EPollEventLoopTests.test_internal_fds",
     "all", FAILS, "reads `_internal_fds`, `_csock` and `_ssock`, asyncio's self-pipe"),

    ("loop", SIGNAL_TESTS + "test_add_signal_handler_setup_error", "all", FAILS, MOCKED_SIGNAL),
    ("loop", SIGNAL_TESTS + "test_add_signal_handler_install_error*", "all", FAILS, MOCKED_SIGNAL),
    ("loop", SIGNAL_TESTS + "test_remove_signal_handler", "all", FAILS, MOCKED_SIGNAL),
    ("loop", SIGNAL_TESTS + "test_remove_signal_handler_2", "all", FAILS, MOCKED_SIGNAL),
    ("loop", SIGNAL_TESTS + "test_remove_signal_handler_error*", "all", FAILS, MOCKED_SIGNAL),
    ("loop", SIGNAL_TESTS + "test_close", "all", FAILS, MOCKED_SIGNAL),
    ("loop", SIGNAL_TESTS + "test_close_on_finalizing", "all", FAILS, MOCKED_SIGNAL),

    # These hang: the C step cannot enter a loop that only the Python twins know of.
    ("loop", "test_events.TestPyGetEventLoop.*", "3.14+", OMIT, PYTHON_TWINS),
    ("loop", "test_graph.TestCallStackPy.*", "3.14+", FAILS, PYTHON_TWINS),
    ("loop", "test_free_threading.Test*PyFreeThreading."
             "test_all_tasks_from_other_thread_includes_eager_tasks",
     "3.14.8+", FAILS, PYTHON_TWINS),
)]

# How many tests have to construct fastloop's loop in a full run: a little less than
# asyncio's own loop reaches, since a machine without IPv6, say, skips a few.  A mistake
# in the harness would otherwise look like success.
ON_THE_LOOP = {
    (3, 11): 900,
    (3, 12): 970,
    (3, 13): 1060,
    (3, 14): 1170,
    (3, 15): 1230,
}


def applies(versions, version=sys.version_info[:3]):
    """Whether a range such as "3.12-3.14" covers a version."""
    if versions == "all":
        return True
    first, dash, last = versions.rstrip("+").partition("-")
    low = _version(first)
    if versions.endswith("+"):
        return version >= low
    high = _version(last) if dash else low
    return version >= low and version[:len(high)] <= high


def _version(text):
    return tuple(map(int, text.split(".")))


def entries(part):
    """The entries for one part of the run on this version."""
    return [entry for entry in ENTRIES if entry.part == part and applies(entry.versions)]
