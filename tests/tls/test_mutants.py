"""Three hundred changed transcripts; tests/faults/run_tls_fuzz.py throws as many as it is told to."""

import asyncio

from support.net import Reports
from support.peers import descriptors
from support.tls_mutants import CHANGES, throw, throw_all

COUNT = 300


def test_mutants(impl):
    """No crash, no hang, no descriptor left, nothing reported, and no byte delivered that was not sent."""
    async def main():
        loop = asyncio.get_running_loop()
        reports = Reports(loop)
        await throw(0)
        before = descriptors()
        shaken, delivered, whole = await throw_all(range(1, COUNT if impl.is_fastloop else COUNT // 5))
        assert descriptors() == before
        assert reports.take() == []
        return shaken, delivered, whole
    shaken, delivered, whole = impl.run(main())
    # the attack is one only if some got further than others
    count = COUNT if impl.is_fastloop else COUNT // 5
    assert count * 0.2 < shaken < count * 0.95
    assert 0 < whole < delivered < shaken or whole < delivered == shaken
    assert whole >= count // len(CHANGES) // 3
