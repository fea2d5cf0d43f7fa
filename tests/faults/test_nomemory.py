"""Some of the points of run_nomemory.py; .ci/run tries all of them."""

import os
import subprocess
import sys

import pytest

RUN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "run_nomemory.py")


@pytest.mark.parametrize("more", [[], ["--from-on"]], ids=["one", "all from one on"])
def test_failed_allocations(more):
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    done = subprocess.run([sys.executable, "-P", "-W", "ignore", RUN, "--points", "5", "--limit", "0.3", *more],
                          capture_output=True, text=True, env=env, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
