"""Keeps the comparisons out of ordinary test runs, and prints their table at the end of a run that asked for them."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
# Last, so that an installed fastloop is not hidden by a checkout that has not been built.
sys.path.append(str(HERE.parent))

from benchmarks import compare, harness, tables
from benchmarks.loops import LOOPS
from benchmarks.workloads import WORKLOADS

TABLE = pytest.StashKey["Table"]()


class Table:
    """The loops that are there, and the rows measured so far."""

    def __init__(self, settings: harness.Settings) -> None:
        self.settings = settings
        self.versions, self.missing = harness.available(list(LOOPS), settings.cpu)
        self.rows: list[harness.Row] = []

    def measure(self, workload: str) -> harness.Row:
        row = harness.measure(workload, list(self.versions), self.settings)
        self.rows.append(row)
        return row


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("benchmarks")
    group.addoption("--bench-full", action="store_true", help="long samples and more rounds; about ten minutes for all")
    group.addoption("--bench-check", action="store_true", help="fail a comparison whose target is missed")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Collected only when an argument points into this folder (or pytest is started in it)."""
    for argument in config.args:
        path = Path(config.invocation_params.dir, argument.split("::")[0]).resolve()
        if path.is_relative_to(HERE):
            return None
    return True


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "workload" in metafunc.fixturenames:
        metafunc.parametrize("workload", WORKLOADS)


@pytest.fixture(scope="session")
def bench(request: pytest.FixtureRequest) -> Iterator[Table]:
    settings = harness.Settings() if request.config.getoption("--bench-full") else harness.QUICK
    table = Table(replace(settings, cpu=harness.last_cpu()))
    request.config.stash[TABLE] = table
    yield table


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    table = config.stash.get(TABLE, None)
    if table is not None and table.rows:
        terminalreporter.section("benchmarks")
        loops = list(table.versions)
        lines = [tables.header(table.versions, table.missing, table.settings), "", compare.times_head(loops)]
        lines += [compare.times_line(row, loops) for row in table.rows]
        lines += ["", compare.ratios(table.rows, loops)]
        terminalreporter.write_line("\n".join(lines))
