"""Tests that fastloop is not expected to pass, each with the reason.

An entry names a part of the run ("loop", "types", "types+loop"), a test as the report
prints it (wildcards allowed), the versions it holds for ("3.12", "3.12-3.14",
"3.13.1+", "all"), what to do, and why.

FAILS   the test is run and has to fail; that it passes is an error, so that the table
        cannot go stale;
OMIT    the test is not run, because it would hang or bring the process down.
"""

import os
import sys
from collections import namedtuple

FAILS = "fails"
OMIT = "omit"

Entry = namedtuple("Entry", "part test versions action reason")

ENTRIES = [Entry(*fields) for fields in (
    ("loop", "test_unix_events.SelectorEventLoopSignalTests.test_close_on_finalizing",
     "all", FAILS, "replaces `sys` in asyncio.unix_events by one that is finalizing; our close() "
                   "asks the real one"),
    ("loop", "test_ssl.TestSSL.test_remote_shutdown_receives_trailing_data_on_slow_socket",
     "3.13.1+", FAILS, "puts a wrapper in the place of asyncio's own transport's _sock, whose send() "
                       "it expects to be called"),
    ("loop", "test_unix_events.PidfdChildWatcherTests.test_pidfd_closed_when_waitpid_raises",
     "3.15+", OMIT, "waits for asyncio's watcher of children to call os.waitpid(); ours asks the kernel in C"),
)]

# What cannot hold where the network misbehaves on purpose (FASTLOOP_DEBUG_NET, src/os/sockcall.h; the stage `badnet` of
# .ci/run), though it is no fault of the loop's: asyncio does no better when its socket says EAGAIN.
ON_A_BAD_NETWORK = [Entry(*fields) for fields in (
    ("loop", "test_events.EPollEventLoopTests.test_write_pipe",
     "all", OMIT, "reads the pipe's other end, and waits, as soon as write() has returned"),
    ("loop", "test_events.EPollEventLoopTests.test_write_pty",
     "all", OMIT, "reads the pty's other end, and waits, as soon as write() has returned"),
    ("loop", "test_events.EPollEventLoopTests.test_bidirectional_pty",
     "all", OMIT, "reads the pty's other end, and waits, as soon as write() has returned"),
    ("loop", "test_sendfile.EPollEventLoopTests.test_sendfile_close_peer_in_the_middle_of_receiving",
     "all", OMIT, "asks at once whether the transport knows that its peer has gone, which a read tells it"),
    ("loop", "test_ssl.TestSSL.test_create_connection_memory_leak",
     "all", OMIT, "stops the loop right after close(), and waits for the peer to get the end of TLS"),
    ("loop", "test_ssl.TestSSL.test_start_tls_client_*_proto_1",
     "all", OMIT, "stops the loop right after close(), and waits for the peer to get the end of TLS"),
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
    table = ENTRIES + ON_A_BAD_NETWORK if os.environ.get("FASTLOOP_DEBUG_NET") else ENTRIES
    return [entry for entry in table if entry.part == part and applies(entry.versions)]
