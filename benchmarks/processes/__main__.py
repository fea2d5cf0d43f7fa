"""`python -m benchmarks.processes` is `python -m benchmarks.processes.compare`."""

import sys

from benchmarks.processes.compare import main

sys.exit(main())
