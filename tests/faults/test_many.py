"""run_many.py with few connections; .ci/run holds 19,000 and makes 100,000."""

from support import check_program


def test_many_connections(impl):
    out = check_program("faults/run_many.py", "--held", "1000", "--churn", "3000", "--loop", impl.name)
    assert "held 1000" in out and "churn 3000" in out
