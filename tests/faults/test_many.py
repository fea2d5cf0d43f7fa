"""run_many.py with few connections; .ci/run holds 19,000 and makes 100,000."""

import os
import subprocess
import sys

RUN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "run_many.py")


def test_many_connections(impl):
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    done = subprocess.run([sys.executable, "-P", RUN, "--held", "1000", "--churn", "3000", "--loop", impl.name],
                          capture_output=True, text=True, env=env, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "held 1000" in done.stdout and "churn 3000" in done.stdout
