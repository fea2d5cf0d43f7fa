"""Run CPython's own test.test_asyncio on fastloop, and count what really ran on it.

    python tests/conformance/run.py                        everything
    python tests/conformance/run.py --loop-only -m test_events test_sock_lowlevel
    python tests/conformance/run.py --loop uvloop:Loop     how another loop does

See README.md in this folder.
"""

import argparse
import concurrent.futures
import fnmatch
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import tempfile
import textwrap
import time

import own_types
import skips
import swap
import worker

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent

# Started first, so that no long module is left for the end.
LONGEST = ("test_events", "test_subprocess", "test_ssl", "test_tasks", "test_streams",
           "test_sendfile", "test_sslproto", "test_unix_events", "test_sock_lowlevel")

# A module is given up after so many tests that had to be stopped by the clock.
PATIENCE = 3

# Outcomes of a test once the skip table has been asked.
PASSED = "passed"
FAILED = "failed"
SKIPPED = "skipped"           # by CPython's test itself
EXPECTED = "expected"         # failed, as the table says
OMITTED = "omitted"           # not run, as the table says
SURPRISE = "surprise"         # passed, against the table

BAD = (FAILED, SURPRISE)


class Job:
    """One test module in one part of the run, and the processes it takes."""

    def __init__(self, part, module, options, folder):
        self.part = part
        self.module = module
        self.options = options
        self.tests = {}
        self.note = ""
        self.seconds = 0.0
        self.process = None
        self.abandoned = False
        stem = os.path.join(folder, f"{part}-{module}")
        self.journal = stem + ".journal"
        self.job_file = stem + ".job"
        self.log = stem + ".log"

    def abandon(self):
        """End the worker, and do not start another."""
        self.abandoned = True
        if self.process is not None:
            _kill_group(self.process.pid)

    def run(self):
        if self.abandoned:
            return self
        began = time.monotonic()
        self._describe()
        deadline = began + self.options.module_timeout
        open(self.journal, "w").close()
        known = -1
        # A worker that dies is followed by one that goes on behind the place.
        while known < len(self.tests) and not self.abandoned:
            known = len(self.tests)
            status = self._run_worker(deadline)
            finished, running = self._read_journal()
            if finished and status == 0:
                break
            cause = _describe_status(status)
            if finished:
                self._fail(f"{self.module}.<exit>", f"{cause} at exit")
                break
            if running is not None:
                self._fail(running, cause)
            elif len(self.tests) > known:
                self._fail(f"{self.module}.<after {list(self.tests)[-1]}>", cause)
            else:
                self._fail(f"{self.module}.<module>", cause)
                self.note = "the rest did not run"
                break
            if sum(test.get("hung", False) for test in self.tests.values()) >= PATIENCE:
                self.note = f"given up after {PATIENCE} hangs: the rest did not run"
                break
            if time.monotonic() >= deadline:
                self.note = "out of time: the rest did not run"
                break
        self._consult_table()
        self.seconds = time.monotonic() - began
        return self

    def count(self, *outcomes):
        return sum(test["outcome"] in outcomes for test in self.tests.values())

    def on_the_loop(self):
        """How many tests constructed the loop under test."""
        return sum(map(ran_on_the_loop, self.tests.values()))

    def vacuous(self):
        """How many passed without constructing it, and so say nothing about it."""
        if "loop" not in self.part:
            return 0
        return sum(test["outcome"] == PASSED and not ran_on_the_loop(test)
                   for test in self.tests.values())

    def _describe(self):
        options = self.options
        omit = [entry.test for entry in options.table(self.part)
                if entry.action == skips.OMIT]
        job = dict(part=self.part, module=self.module, loop=options.loop,
                   types=options.types, journal=self.journal, omit=omit,
                   only=options.only, limit=options.test_timeout, patience=PATIENCE,
                   root=str(ROOT))
        with open(self.job_file, "w") as file:
            json.dump(job, file)

    def _run_worker(self, deadline):
        """Run one worker to its end and return its exit status."""
        command = [sys.executable, str(HERE / "worker.py"), self.job_file]
        with open(self.log, "w") as log:
            process = self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True)
            try:
                return process.wait(max(1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGABRT)      # faulthandler writes a traceback
                try:
                    return process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    return process.wait()
            finally:
                self.process = None
                _kill_group(process.pid)

    def _read_journal(self):
        """Return whether the worker came to its end, and the test it died in."""
        finished = False
        running = None
        for event in worker.events(self.journal):
            kind = event["event"]
            if kind == "start":
                running = event["test"]
            elif kind == "end":
                running = None
                self.tests.setdefault(event["test"], event)
            elif kind == "skip":
                self.note = event["reason"]
            elif kind == "give up":
                self.note = f"given up after {PATIENCE} hangs: the rest did not run"
            elif kind == "done":
                finished = True
        if running in self.tests:
            running = None
        return finished, running

    def _fail(self, test, cause):
        """Book the end of a worker as the failure of a test."""
        with open(self.log, errors="replace") as log:
            lines = log.readlines()[-100:]
        if lines:
            cause += f" ({_telling_line(lines)})"
        hung = any(line.startswith("Timeout (") for line in lines)
        event = dict(event="end", test=test, outcome=FAILED, loops=[], seconds=0,
                     cause=cause, detail="".join(lines), hung=hung)
        with open(self.journal, "a") as journal:
            journal.write("\n" + json.dumps(event) + "\n")
        self.tests[test] = event

    def _consult_table(self):
        matched = set()
        for name, test in self.tests.items():
            entry = self._entry(name)
            if entry is None:
                continue
            matched.add(entry)
            test["reason"] = entry.reason
            if entry.action == skips.FAILS:
                test["outcome"] = {FAILED: EXPECTED, PASSED: SURPRISE}.get(
                    test["outcome"], test["outcome"])
        if self.note or self.options.only:
            return
        for entry in self.options.table(self.part):
            if entry.test.startswith(self.module + ".") and entry not in matched:
                self.tests[entry.test] = dict(
                    outcome=SURPRISE, loops=[], seconds=0, reason=entry.reason, detail="",
                    cause="the table names a test that does not exist")

    def _entry(self, name):
        for entry in self.options.table(self.part):
            if fnmatch.fnmatchcase(name, entry.test):
                return entry
        return None


def ran_on_the_loop(test):
    return swap.TARGET in test["loops"] and test["outcome"] != SKIPPED


def _describe_status(status):
    if status < 0:
        return f"the process died: {signal.Signals(-status).name}"
    return f"the process ended with status {status}"


def _telling_line(lines):
    """The line of a worker's log that says most about how it died."""
    for line in lines:
        if line.startswith(("Fatal Python error", "Timeout (")) or "Assertion" in line:
            return line.strip()
    return lines[-1].strip()


def _kill_group(pid):
    """End whatever the worker has left behind; it was the leader of its group."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def plan(options, folder):
    """The jobs to run, the longest first."""
    import test.test_asyncio as package

    stems = sorted(path.stem for path in pathlib.Path(package.__path__[0]).glob("test_*.py"))
    unknown = set(options.modules) - set(stems)
    if unknown:
        raise SystemExit(f"not in this version's test_asyncio: {', '.join(sorted(unknown))}")
    wanted = options.modules or stems
    jobs = []
    for part, modules in (("loop", stems), ("types", own_types.MODULES),
                          ("types+loop", own_types.ON_A_REAL_LOOP)):
        if part in options.parts:
            jobs += [Job(part, module, options, folder)
                     for module in modules if module in wanted and module in stems]

    def rank(job):
        long = job.module in LONGEST
        return (not long, LONGEST.index(job.module) if long else 0)

    return sorted(jobs, key=rank)


COLUMNS = ("run", "on loop", "vacuous", "passed", "failed", "skipped", "expected", "surprise", "s")


def row(jobs):
    def total(*outcomes):
        return sum(job.count(*outcomes) for job in jobs)

    return (total(PASSED, FAILED, SKIPPED, EXPECTED, SURPRISE),
            sum(job.on_the_loop() for job in jobs),
            sum(job.vacuous() for job in jobs),
            total(PASSED), total(FAILED), total(SKIPPED), total(EXPECTED, OMITTED),
            total(SURPRISE), round(sum(job.seconds for job in jobs), 1))


def report(jobs, options, seconds):
    print(f"{platform.python_implementation()} {platform.python_version()}, "
          f"loop {options.loop}, types {options.types or '-'}\n")
    line = "{:<11}{:<25}" + "{:>9}" * len(COLUMNS)
    print(line.format("part", "module", *COLUMNS))
    for job in sorted(jobs, key=lambda job: (options.parts.index(job.part), job.module)):
        print(line.format(job.part, job.module, *row([job])), job.note)
    print()
    for part in options.parts:
        print(line.format(part, "total", *row([job for job in jobs if job.part == part])))

    for job in jobs:
        for name, test in job.tests.items():
            if test["outcome"] in BAD:
                print(f"\n{test['outcome'].upper()} [{job.part}] {name}")
                print(f"    {_why(test)}")
                if options.verbose and test["detail"]:
                    print(textwrap.indent(test["detail"].rstrip(), "    "))
    print(f"\n{seconds:.0f} s")


def _why(test):
    if test["outcome"] == SURPRISE:
        return test["cause"] or f"passes, though the table says: {test['reason']}"
    return test["cause"]


def missing_tests(jobs, options):
    """The complaint about too few tests: none at all, or in a full run of fastloop too
    few on the loop."""
    if not any(job.tests for job in jobs):
        return "no test was run"
    wanted = skips.ON_THE_LOOP.get(sys.version_info[:2], 0)
    partial = options.modules or options.only or "loop" not in options.parts
    if partial or not options.strict:
        return None
    found = sum(job.on_the_loop() for job in jobs if job.part == "loop")
    if found >= wanted:
        return None
    return f"only {found} tests ran on the loop; the table asks for {wanted}"


def write_json(path, jobs, options, seconds):
    keys = [name.replace(" ", "_") for name in COLUMNS[:-1]]
    document = {
        "python": platform.python_version(),
        "loop": options.loop,
        "types": options.types,
        "seconds": round(seconds, 1),
        "totals": {part: dict(zip(keys, row([job for job in jobs if job.part == part])))
                   for part in options.parts},
        "modules": [dict(zip(keys, row([job])), part=job.part, module=job.module,
                         note=job.note, seconds=round(job.seconds, 1)) for job in jobs],
        "tests": [dict(part=job.part, test=name, outcome=test["outcome"],
                       loops=test["loops"], seconds=test["seconds"],
                       reason=test.get("reason", ""), cause=test["cause"],
                       detail=test["detail"])
                  for job in jobs for name, test in job.tests.items()],
    }
    with open(path, "w") as file:
        json.dump(document, file, indent=1)
        file.write("\n")


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--modules", nargs="+", default=[], metavar="test_NAME",
                        help="only these modules of test_asyncio")
    parser.add_argument("-k", dest="only", metavar="TEXT", default="",
                        help="only tests with this in their name")
    parser.add_argument("--loop", default="fastloop:Loop", metavar="MODULE:CLASS",
                        help="the loop to test (default %(default)s); "
                             "asyncio:SelectorEventLoop is the stand-in")
    parser.add_argument("--types", metavar="MODULE",
                        help="where Task and Future come from (default: the loop's "
                             "module if that is fastloop or asyncio)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--loop-only", action="store_true")
    which.add_argument("--types-only", action="store_true")
    parser.add_argument("-j", "--jobs", type=int, default=2, metavar="N",
                        help="processes at a time (default %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write all results there")
    parser.add_argument("--test-timeout", type=float, default=20, metavar="S")
    parser.add_argument("--module-timeout", type=float, default=300, metavar="S")
    parser.add_argument("--no-table", action="store_true",
                        help="do not use the skip table (the default for other loops)")
    parser.add_argument("-v", "--verbose", action="store_true",
                        help="print whole tracebacks")
    options = parser.parse_args(argv)

    package = options.loop.partition(":")[0]
    if options.types is None and package in ("fastloop", "asyncio"):
        options.types = package
    parts = ["loop", "types", "types+loop"]
    if options.loop_only or not options.types:
        parts = parts[:1]
    if options.types_only:
        parts = parts[1:]
    options.parts = parts
    options.strict = package == "fastloop" and not options.no_table
    options.table = skips.entries if options.strict else lambda part: []
    if options.types_only and not options.types:
        parser.error("--types-only needs --types for this loop")
    return options


def main(argv=None):
    options = parse(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        jobs = plan(options, folder)
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            try:
                jobs = list(pool.map(Job.run, jobs))
            except BaseException:
                for job in jobs:
                    job.abandon()
                raise
    seconds = time.monotonic() - began
    report(jobs, options, seconds)
    if options.json:
        write_json(options.json, jobs, options, seconds)
    complaint = missing_tests(jobs, options)
    if complaint:
        print(complaint)
    return 1 if complaint or any(job.count(*BAD) for job in jobs) else 0


if __name__ == "__main__":
    sys.exit(main())
