"""Where asyncio's structs are not what fastloop was built for, Task and Future are asyncio's own and all else works.

Only builds for debugging can be told to believe so (FASTLOOP_DEBUG_NO_LAYOUT).
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastloop

pytestmark = pytest.mark.skipif(
    fastloop._core.build == "release", reason="only debug builds can be made to disbelieve the layout"
)

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(*command, **environment):
    package = Path(fastloop.__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": str(package), **environment}
    done = subprocess.run([sys.executable, "-P", *map(str, command)], env=environment,
                          capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_types_are_asyncios():
    code = ("import asyncio, fastloop; print(fastloop._core.native_tasks, fastloop.Task is asyncio.Task, "
            "fastloop.Future is asyncio.Future)")
    assert run("-c", code, FASTLOOP_DEBUG_NO_LAYOUT="1") == "0 True True\n"


@pytest.mark.parametrize("name", ["coroutines", "gather", "queue_workers", "shield", "taskgroup", "timeouts"])
def test_examples_print_the_same(name):
    path = EXAMPLES / f"{name}.py"
    assert run("-m", "fastloop", path, FASTLOOP_DEBUG_NO_LAYOUT="1") == run(path)


def test_executor_and_timers():
    code = """
import asyncio, fastloop
async def main():
    loop = asyncio.get_running_loop()
    print(await asyncio.gather(*[loop.run_in_executor(None, int, str(n)) for n in range(5)]))
    try:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(60)
    except TimeoutError:
        print("late")
    try:
        await loop.run_in_executor(None, int, "x")
    except ValueError:
        print("wrong")
fastloop.run(main())
"""
    assert run("-c", code, FASTLOOP_DEBUG_NO_LAYOUT="1") == "[0, 1, 2, 3, 4]\nlate\nwrong\n"
