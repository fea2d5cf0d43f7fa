"""Every workload as a comparison: `python -m pytest benchmarks -k pingpong`.

A comparison passes when fastloop does the work; how fast is in the table that ends the run, and decides only with
`--bench-check`.
"""

from typing import TYPE_CHECKING

import pytest

from benchmarks.loops import OURS

if TYPE_CHECKING:
    from benchmarks.conftest import Table


@pytest.mark.timeout(0)  # the harness has its own limits
def test_workload(workload: str, bench: "Table", request: pytest.FixtureRequest) -> None:
    row = bench.measure(workload)
    assert OURS in bench.versions, f"{OURS} cannot be measured: {bench.missing[OURS]}"
    assert row.cells[OURS].ok, row.cells[OURS].failure
    if request.config.getoption("--bench-check"):
        assert not row.shortfalls()
