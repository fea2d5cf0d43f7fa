"""Runs test suites with closewatch.c preloaded: nobody may close a descriptor that is not open.

    python tests/faults/run_closewatch.py [folder or file ...]

Without arguments: tests/net, tests/loop, tests/faults and tests/tls.  Whether the tests pass is not
looked at here, only that they ran; what they closed is.
"""

import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
FOLDERS = ("net", "loop", "faults", "tls")

# Tests that close what is not open themselves, through Python: {part of the name: why}.
EXEMPT = {}


def compiler():
    return os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")


def build(folder):
    """Compile the library; its path."""
    target = os.path.join(folder, "closewatch.so")
    subprocess.run([*compiler().split(), "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC",
                    os.path.join(HERE, "closewatch.c"), "-o", target, "-ldl"], check=True)
    return target


def watch(library, log, command, **kwargs):
    """Run a command under the library; its status and the lines of the log."""
    env = dict(os.environ, LD_PRELOAD=library, CLOSEWATCH_LOG=log)
    done = subprocess.run(command, env=env, **kwargs)
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            lines = [line.rstrip("\n").split("\t") for line in file]
    except FileNotFoundError:
        lines = []
    return done, lines


def exempt(line):
    """Why a close is forgiven, or None."""
    _, _, who, test = line
    return next((why for name, why in EXEMPT.items() if name in test), None)


def main(arguments):
    targets = arguments or [path for name in FOLDERS if os.path.isdir(path := os.path.join(ROOT, "tests", name))]
    if compiler() is None:
        print("skipped: there is no C compiler")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=no", "-rN",
                   *targets]
        done, lines = watch(build(folder), os.path.join(folder, "log"), command, cwd=ROOT)
    wrong = [line for line in lines if exempt(line) is None]
    for call, process, who, test in wrong:
        print(f"{call} by {who} in process {process}: {test or 'no test'}")
    print(f"{len(wrong)} closes of what was not open, {len(lines) - len(wrong)} more on purpose")
    if done.returncode not in (0, 1):
        print(f"the tests ended with status {done.returncode}")
        return 2
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
