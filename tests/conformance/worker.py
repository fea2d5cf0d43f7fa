"""Run one test module in this process and write one line of JSON per event.

Started by run.py with the path of a job file.  The journal is written and flushed
before and after each test, so that whoever reads it after a crash knows which test was
running; a worker that is started again on the same journal goes on behind that test.
"""

import ctypes
import faulthandler
import fnmatch
import importlib
import json
import signal
import sys
import time
import traceback
import unittest

import own_types
import swap


class TestTimeout(AssertionError):
    """Raised inside a test that has taken too long."""


def events(path):
    """The events in a journal.  A worker's last line can be cut short by its death."""
    with open(path) as file:
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:
                pass


class Journal:
    """What is known so far, and the file that it is written to."""

    def __init__(self, path):
        before = list(events(path))
        self.known = {event["test"] for event in before if "test" in event}
        self.hangs = sum(event.get("hung", False) for event in before)
        self.file = open(path, "a")

    def write(self, **event):
        self.file.write(json.dumps(event) + "\n")
        self.file.flush()


class Clock:
    """Limits one test's time: first an exception, then a dump and the end.

    The exception comes from SIGALRM and can be missed, since a few tests use that
    signal themselves and a loop may swallow exceptions; faulthandler's thread cannot.
    """

    def __init__(self, limit):
        self.limit = limit
        self.expired = False

    def start(self):
        self.expired = False
        signal.signal(signal.SIGALRM, self._expire)
        signal.setitimer(signal.ITIMER_REAL, self.limit, self.limit / 4)
        faulthandler.dump_traceback_later(2 * self.limit, exit=True)

    def stop(self):
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        # From here until the next test: class fixtures, interpreter exit.
        faulthandler.dump_traceback_later(2 * self.limit, exit=True)

    def _expire(self, signum, frame):
        self.expired = True
        raise TestTimeout(f"no end within {self.limit:g} s")


class Result(unittest.TestResult):
    """Writes each test's outcome to the journal."""

    def __init__(self, journal, witness, clock, patience):
        super().__init__()
        self.patience = patience
        self.journal = journal
        self.witness = witness
        self.clock = clock
        self.running = None

    def startTest(self, test):
        super().startTest(test)
        self.running = name(test)
        self.outcome = None
        self.cause = self.detail = ""
        self.journal.write(event="start", test=self.running)
        self.began = time.perf_counter()
        self.clock.start()

    def stopTest(self, test):
        self.clock.stop()
        if self.running is None:
            # 3.12.1 stops the tests of a skipped class without having started them.
            return
        seconds = time.perf_counter() - self.began
        if self.outcome is None:
            self.outcome, self.cause = "failed", "interrupted"
        elif self.clock.expired and self.outcome == "passed":
            self.outcome, self.cause = "failed", f"passed, but only after {seconds:.0f} s"
        self._write(self.running, self.outcome, self.cause, self.detail, seconds)
        self.journal.known.add(self.running)
        self.running = None
        if self.clock.expired:
            self.journal.hangs += 1
            if self.journal.hangs >= self.patience:
                self.stop()
        super().stopTest(test)

    def _write(self, test, outcome, cause, detail="", seconds=0):
        self.journal.write(event="end", test=test, outcome=outcome,
                           cause=cause.partition("\n")[0], detail=detail,
                           loops=self.witness.take(), seconds=round(seconds, 3),
                           hung=self.running is not None and self.clock.expired)

    def _fail(self, test, err):
        cause = traceback.format_exception_only(err[0], err[1])[0].strip()
        detail = self._exc_info_to_string(err, test)
        if self.running is None:
            # A fixture of a class or of the module: there is no start and no stop.
            self._write(name(test), "failed", cause, detail)
        else:
            self.outcome = "failed"
            self.cause = self.cause or cause
            self.detail += detail

    def addSuccess(self, test):
        self.outcome = self.outcome or "passed"

    def omit(self, test):
        self._write(name(test), "omitted", "")

    def addError(self, test, err):
        self._fail(test, err)

    def addFailure(self, test, err):
        self._fail(test, err)

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self.detail += f"{subtest}\n"
            self._fail(test, err)

    def addUnexpectedSuccess(self, test):
        self.outcome = "failed"
        self.cause = "unexpected success of a test marked @expectedFailure"

    def addExpectedFailure(self, test, err):
        self.outcome = self.outcome or "passed"

    def addSkip(self, test, reason):
        if self.running is None:
            self._write(name(test), "skipped", reason)
        elif self.outcome is None:
            self.outcome, self.cause = "skipped", reason


def name(test):
    """`test_module.Class.test_name`; fixtures look like `setUpClass (test_module.Class)`."""
    return test.id().replace(swap.PACKAGE + ".", "")


def flatten(suite):
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from flatten(item)
        else:
            yield item


def load(job, Loop):
    """The tests of the job, in the loader's order."""
    module = importlib.import_module(f"{swap.PACKAGE}.{job['module']}")
    if Loop is not None:
        swap.adapt(module, Loop)
    loader = unittest.TestLoader()
    if job["part"] == "loop":
        return flatten(loader.loadTestsFromModule(module))
    cases = own_types.bind(module, *own_types.load_types(job["types"]))
    return flatten(map(loader.loadTestsFromTestCase, cases))


def run(tests, result, journal):
    """Run the tests.  unittest stops at a KeyboardInterrupt, and we go on behind it."""
    while tests:
        try:
            unittest.TestSuite(tests).run(result)
            return
        except KeyboardInterrupt:
            rest = [test for test in tests if name(test) not in journal.known]
            if len(rest) == len(tests):
                raise
            tests = rest


def die_with_parent():
    """Ask the kernel to kill this process when run.py is gone."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main(path):
    die_with_parent()
    with open(path) as file:
        job = json.load(file)
    if job["root"] not in sys.path:
        sys.path.append(job["root"])
    faulthandler.enable()

    journal = Journal(job["journal"])
    witness = swap.Witness()
    Loop = None
    if "loop" in job["part"]:
        Loop = witness.watch(swap.load_loop(job["loop"]))
        swap.install(Loop)
    clock = Clock(job["limit"])
    result = Result(journal, witness, clock, job["patience"])
    tests = []
    try:
        for test in load(job, Loop):
            if job["only"] not in name(test):
                continue
            if any(fnmatch.fnmatchcase(name(test), pattern) for pattern in job["omit"]):
                result.omit(test)
            elif name(test) not in journal.known:
                tests.append(test)
    except unittest.SkipTest as skip:
        journal.write(event="skip", reason=str(skip))

    run(tests, result, journal)
    clock.stop()
    if result.shouldStop:
        journal.write(event="give up")
    journal.write(event="done")


if __name__ == "__main__":
    main(sys.argv[1])
