"""What asyncio's own tools for other processes (3.14 on) show of a program on fastloop."""

import subprocess
import sys

import pytest

from support import PY

pytestmark = pytest.mark.skipif(PY < (3, 14), reason="python -m asyncio ps came with Python 3.14")

PROGRAM = """
import asyncio, fastloop, sys

async def leaf():
    print("ready", flush=True)
    await asyncio.sleep(60)

async def branch():
    await leaf()

async def main():
    async with asyncio.TaskGroup() as group:
        group.create_task(branch(), name="named")

fastloop.run(main())
"""


@pytest.fixture
def program():
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def ask(tool, process):
    done = subprocess.run([sys.executable, "-m", "asyncio", tool, str(process.pid)],
                          capture_output=True, text=True, timeout=60)
    if "permission" in (done.stdout + done.stderr).lower():
        pytest.skip("this machine does not let one process look into another")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ps_lists_the_tasks_and_nothing_else(program):
    rows = ask("ps", program).splitlines()[2:]
    assert len(rows) == 2, rows
    assert any("named" in row and "leaf -> branch" in row for row in rows)
    assert any("Task-1" in row and "main" in row for row in rows)


def test_pstree_shows_who_waits_for_whom(program):
    tree = ask("pstree", program)
    assert tree.index("(T) Task-1") < tree.index("(T) named") < tree.index("leaf")
