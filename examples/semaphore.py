"""A semaphore lets 10 of 1000 workers in at a time."""

import asyncio

inside = most = done = 0


async def worker(door):
    global inside, most, done
    async with door:
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.001)
        inside -= 1
        done += 1


async def main():
    door = asyncio.Semaphore(10)
    await asyncio.gather(*(worker(door) for _ in range(1000)))
    print(f"{done} workers done, at most {most} at a time")


asyncio.run(main())
