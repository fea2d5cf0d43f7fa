"""create_task() starts work in the background; await it when its result is needed."""

import asyncio


async def download(name):
    print(f"{name}: started")
    await asyncio.sleep(0.02)
    print(f"{name}: finished")
    return len(name)


async def main():
    task = asyncio.create_task(download("report"), name="download")
    print("main: goes on while the download runs")
    await asyncio.sleep(0)
    print("main: waits for", task.get_name())
    print("main: size is", await task)


asyncio.run(main())
