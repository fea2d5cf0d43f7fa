"""Runs leaks/run.py with few repetitions in a child; also that it finds a planted leak."""

import os
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
RUN = os.path.join(HERE, "run.py")


def run(*arguments, code=None):
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    command = [sys.executable, "-P"] + (["-c", code] if code else [RUN, *arguments])
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=110)


def test_no_scenario_leaks():
    done = run("--runs", "60")
    assert done.returncode == 0, done.stdout + done.stderr


PLANTED = f"""
import sys
sys.path.insert(0, {HERE!r})
import run
kept = []
run.SCENARIOS.clear()
KINDS
sys.exit(run.main(["--runs", "60"]))
"""


@pytest.mark.skipif(os.environ.get("PYTHONMALLOC") == "malloc",
                    reason="Python counts blocks only where its own allocator makes them")
def test_a_planted_leak_is_found():
    for body in ("kept.append(object())", "kept.append(s.loop.create_future())",
                 "kept.append(os.dup(0))", "kept.append(bytes(5000))"):
        done = run(code=PLANTED.replace("KINDS", (
            "import os\n@run.scenario\ndef planted(s):\n    " + body)))
        assert done.returncode == 1, (body, done.stdout, done.stderr)
        assert "LEAK  planted" in done.stdout
