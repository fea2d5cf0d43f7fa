"""Coroutines, and the one asyncio.run() that starts them."""

import asyncio


async def greet(name):
    await asyncio.sleep(0.01)
    return f"Hello, {name}!"


async def main():
    print(await greet("world"))
    print(await greet("asyncio"))


asyncio.run(main())
