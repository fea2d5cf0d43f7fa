"""When one task of a group fails, the group cancels its siblings and raises what went wrong."""

import asyncio


cancelled = []


async def steady(name):
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        cancelled.append(name)
        raise


async def failing():
    await asyncio.sleep(0.01)
    raise ValueError("no luck")


async def main():
    async with asyncio.TaskGroup() as group:
        first = group.create_task(asyncio.sleep(0.01, "one"))
        second = group.create_task(asyncio.sleep(0, "two"))
    print("results:", first.result(), second.result())

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(steady("a"))
            group.create_task(steady("b"))
            group.create_task(failing())
    except* ValueError as errors:
        print("cancelled:", sorted(cancelled))
        print("errors:", [str(error) for error in errors.exceptions])


asyncio.run(main())
