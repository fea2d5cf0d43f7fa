"""`python -m benchmarks.network` is `python -m benchmarks.network.compare`."""

import sys

from benchmarks.network.compare import main

sys.exit(main())
