"""Debug mode tells who blocked the loop: here, a time.sleep() where asyncio.sleep() was meant."""

import asyncio
import logging
import re
import time


class Report(logging.Handler):
    def emit(self, record):
        match = re.search(r"Executing .*\b(\w+)\(\).* took \d+\.\d+ seconds", record.getMessage())
        if match:
            print(f"{record.levelname}: {match[1]}() held the loop up")


logger = logging.getLogger("asyncio")
logger.addHandler(Report())
logger.propagate = False


async def polite():
    await asyncio.sleep(0.2)


async def rude():
    time.sleep(0.2)


async def main():
    await asyncio.create_task(polite())
    await asyncio.create_task(rude())
    print("both done")


asyncio.run(main(), debug=True)
