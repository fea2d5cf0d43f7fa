"""Three waits one after another take as long as their sum, three at once as long as the slowest."""

import asyncio
import time

SCALE = 0.05  # a second of this example, in real seconds
DELAYS = {"coffee": 4.5, "toast": 3.5, "eggs": 3.0}


async def prepare(what, delay):
    await asyncio.sleep(delay * SCALE)
    return what


async def one_after_another():
    return [await prepare(what, delay) for what, delay in DELAYS.items()]


async def all_at_once():
    return await asyncio.gather(*(prepare(what, delay) for what, delay in DELAYS.items()))


async def measure(breakfast):
    start = time.monotonic()
    ready = await breakfast()
    took = (time.monotonic() - start) / SCALE
    slowest, total = max(DELAYS.values()), sum(DELAYS.values())
    nearest = min(slowest, total, key=lambda seconds: abs(seconds - took))
    print(f"{breakfast.__name__}: {', '.join(ready)} in about {nearest} s")


async def main():
    await measure(one_after_another)
    await measure(all_at_once)


asyncio.run(main())
