"""Two ways to give up waiting: wait_for() and the timeout() block."""

import asyncio


async def slow(result):
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        print(f"{result}: cancelled")
        raise
    return result


async def quick(result):
    await asyncio.sleep(0.01)
    return result


async def main():
    print(await asyncio.wait_for(quick("quick"), timeout=10))
    try:
        await asyncio.wait_for(slow("slow"), timeout=0.02)
    except TimeoutError:
        print("wait_for: timed out")

    try:
        async with asyncio.timeout(0.02) as limit:
            await slow("slower")
    except TimeoutError:
        print("timeout: expired is", limit.expired())


asyncio.run(main())
