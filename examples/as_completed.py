"""as_completed() hands results over in the order in which they become ready."""

import asyncio


async def fetch(name, delay):
    await asyncio.sleep(delay)
    return name


async def main():
    pages = [fetch("third", 0.15), fetch("first", 0.01), fetch("second", 0.08)]
    for page in asyncio.as_completed(pages):
        print(await page)


asyncio.run(main())
