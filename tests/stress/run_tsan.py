"""The tests of threads under ThreadSanitizer, on a build of FASTLOOP_BUILD=tsan.

    python tests/stress/run_tsan.py [--calls N] [TEST...]

The interpreter is an ordinary one: libtsan is loaded into it, sees the locks and conditions that the GIL is made of,
and so takes what happens under the GIL for ordered.  There are no suppressions.  Interceptors in modules that are not
instrumented stay on (ignore_noninstrumented_modules would switch off those of the GIL's locks, too, and everything
would be a race).  tsan_control.c shows first that a race is reported and that the same under the GIL is not.

Every report in any of the processes, children included, fails the run, and is printed.
"""

import argparse
import glob
import os
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))

sys.path.insert(0, os.path.dirname(HERE))

from checkout import built  # noqa: E402

TESTS = ["tests/loop/test_threadsafe.py", "tests/loop/test_executor.py", "tests/stress/test_threads.py",
         "tests/proc/test_behaviour_threads.py", "tests/loop/test_debug.py", "tests/task/test_remote.py"]

CONTROL = """
import ctypes, sys, threading
library = getattr(ctypes, sys.argv[2])(sys.argv[1])
bump = library.control_bump
bump.argtypes, bump.restype = [ctypes.c_long], ctypes.c_long
start = threading.Barrier(4)
def work():
    start.wait()
    for _ in range(2000):
        bump(50)
threads = [threading.Thread(target=work) for _ in range(4)]
for t in threads:
    t.start()
for t in threads:
    t.join()
print(bump(0))
"""


class Runs:
    def __init__(self, folder, libtsan):
        self.folder = folder
        self.libtsan = libtsan
        self.failed = False

    def run(self, name, *args, limit=900):
        """Run a Python under ThreadSanitizer; (exit status, its reports)."""
        log = os.path.join(self.folder, name)
        env = dict(os.environ)
        if built(ROOT):
            env["PYTHONPATH"] = ROOT  # else it is an installed one that is tested
        env.update(LD_PRELOAD=self.libtsan, FASTLOOP_TEST_HANG="300",
                   # A child forked by a process with threads goes on, and its status tells of reports.
                   TSAN_OPTIONS=f"log_path={log} exitcode=66 die_after_fork=0 history_size=4")
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-P", *args], cwd=ROOT, env=env, timeout=limit)
        reports = []
        for path in sorted(glob.glob(log + ".*")):
            with open(path, errors="replace") as file:
                reports.append(file.read())
        print(f"=== {name}: status {done.returncode}, {len(reports)} processes with reports, "
              f"{time.monotonic() - began:.0f} s", flush=True)
        return done.returncode, reports

    def must_pass(self, name, *args):
        status, reports = self.run(name, *args)
        for report in reports:
            print(report, flush=True)
        self.failed |= status != 0 or bool(reports)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("tests", nargs="*", default=TESTS)
    options = parser.parse_args()

    gcc = os.environ.get("CC", "gcc")
    libtsan = subprocess.check_output([gcc, "-print-file-name=libtsan.so"], text=True).strip()
    if not os.path.isabs(libtsan):
        raise SystemExit("this compiler comes without libtsan")
    # The build is not loaded into this process: only one with libtsan in front can do that.
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(folder, libtsan)
        status, _ = runs.run("build", "-c", "import fastloop._core as c; raise SystemExit(c.build != 'tsan')")
        if status != 0:
            raise SystemExit("this fastloop is not a tsan build: FASTLOOP_BUILD=tsan python setup.py build_ext --inplace")

        library = os.path.join(folder, "control.so")
        subprocess.run([gcc, "-fsanitize=thread", "-g", "-O0", "-shared", "-fPIC", "-o", library,
                        os.path.join(HERE, "tsan_control.c")], check=True)
        status, reports = runs.run("control-without-the-gil", "-c", CONTROL, library, "CDLL")
        if status != 66 or "data race" not in "".join(reports) or "control_bump" not in "".join(reports):
            raise SystemExit("a race was not seen: nothing that follows would mean anything")
        status, reports = runs.run("control-with-the-gil", "-c", CONTROL, library, "PyDLL")
        if status != 0 or reports:
            raise SystemExit("what the GIL orders is reported: nothing that follows would mean anything\n" + "".join(reports))

        # asyncio's own loop is closed while other threads wake it, and is reported for that
        runs.must_pass("tests", "-m", "pytest", "-q", "-k", "not asyncio", *options.tests)
        for switch in ("0.005", "0.0001"):
            calls = options.calls if switch == "0.005" else options.calls // 20
            runs.must_pass(f"threads-{switch}", os.path.join(HERE, "run_threads.py"), "--calls", str(calls),
                           "--jobs", str(options.jobs), "--switch", switch)
    return int(runs.failed)


if __name__ == "__main__":
    sys.exit(main())
