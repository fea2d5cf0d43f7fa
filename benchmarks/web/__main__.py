"""`python -m benchmarks.web` is `python -m benchmarks.web.compare`."""

import sys

from benchmarks.web.compare import main

sys.exit(main())
