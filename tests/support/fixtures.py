"""Fixtures that the conftests of several folders share."""

import gc

import pytest


@pytest.fixture(autouse=True, scope="module")
def frozen():
    """What pytest has gathered so far makes no later look for leaks slower."""
    gc.collect()
    gc.freeze()
