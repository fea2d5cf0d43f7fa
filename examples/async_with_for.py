"""async with, async for, asynchronous generators and comprehensions."""

import asyncio
import contextlib


class Connection:
    async def __aenter__(self):
        await asyncio.sleep(0.01)
        print("connected")
        return self

    async def __aexit__(self, *exc_info):
        await asyncio.sleep(0.01)
        print("disconnected")

    async def rows(self, count):
        for number in range(count):
            await asyncio.sleep(0)
            yield number * number


@contextlib.asynccontextmanager
async def transaction(connection):
    print("begin")
    yield connection
    print("commit")


async def main():
    async with Connection() as connection, transaction(connection):
        async for row in connection.rows(3):
            print("row", row)
        print("even rows:", [row async for row in connection.rows(5) if row % 2 == 0])


asyncio.run(main())
