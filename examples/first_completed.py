"""asyncio.wait() returns as soon as the first of several tasks is done."""

import asyncio


async def mirror(name, delay):
    await asyncio.sleep(delay)
    return name


async def main():
    tasks = [
        asyncio.create_task(mirror("far", 3600)),
        asyncio.create_task(mirror("near", 0.01)),
        asyncio.create_task(mirror("further", 7200)),
    ]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    print("first:", [task.result() for task in done])
    for task in pending:
        task.cancel()
    await asyncio.wait(pending)
    print("cancelled:", [task.cancelled() for task in tasks])


asyncio.run(main())
