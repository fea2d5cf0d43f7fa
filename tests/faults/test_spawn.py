"""run_spawn.py with few failures; .ci/run makes 10,000."""

import os
import subprocess
import sys

RUN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "run_spawn.py")


def test_spawns_that_fail_leave_nothing(impl):
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    done = subprocess.run([sys.executable, "-P", "-W", "ignore", RUN, "--count", "300", "--loop", impl.name],
                          capture_output=True, text=True, env=env, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "300 failures" in done.stdout
