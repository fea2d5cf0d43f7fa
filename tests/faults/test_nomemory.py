"""Some of the points of run_nomemory.py; .ci/run tries all of them."""

import pytest

from support import check_program


@pytest.mark.parametrize("more", [[], ["--from-on"]], ids=["one", "all from one on"])
def test_failed_allocations(more):
    check_program("faults/run_nomemory.py", "--points", "5", "--limit", "0.3", *more)
