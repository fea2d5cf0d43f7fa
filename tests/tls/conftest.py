"""What pytest has gathered so far makes no later look for leaks slower."""

import gc

import pytest


@pytest.fixture(autouse=True, scope="module")
def frozen():
    gc.collect()
    gc.freeze()
