"""run_spawn.py with few failures; .ci/run makes 10,000."""

from support import check_program


def test_spawns_that_fail_leave_nothing(impl):
    out = check_program("faults/run_spawn.py", "--count", "300", "--loop", impl.name)
    assert "300 failures" in out
