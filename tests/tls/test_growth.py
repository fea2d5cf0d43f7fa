"""tests/faults/run_tls_many.py with few connections; .ci/run makes 10,000 each way."""

import os
import subprocess
import sys

from support import TESTS

RUN = os.path.join(TESTS, "faults", "run_tls_many.py")


def test_connections_leave_nothing(impl):
    count = "300" if impl.is_fastloop else "100"
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    done = subprocess.run([sys.executable, "-P", "-W", "ignore", RUN, "--server", count, "--client", count, "--loop",
                           impl.name], capture_output=True, text=True, env=env, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"as_server {count}" in done.stdout and f"as_client {count}" in done.stdout
