"""tests/faults/run_tls_many.py with few connections; .ci/run makes 10,000 each way."""

from support import check_program


def test_connections_leave_nothing(impl):
    count = "300" if impl.is_fastloop else "100"
    out = check_program("faults/run_tls_many.py", "--server", count, "--client", count, "--loop", impl.name)
    assert f"as_server {count}" in out and f"as_client {count}" in out
