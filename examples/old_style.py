"""How asyncio programs were started before asyncio.run(), and still can be."""

import asyncio
import sys


async def main():
    await asyncio.sleep(0.01)
    return "done"


def say(text):
    print("callback:", text)


if sys.version_info < (3, 12):
    loop = asyncio.get_event_loop()
else:  # where asyncio.get_event_loop() warns first, and no longer creates a loop from 3.14 on
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)

try:
    loop.call_soon(say, "soon")
    loop.call_later(0.005, say, "later")
    print(loop.run_until_complete(main()))

    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    print("stopped")

    pending = loop.create_task(asyncio.sleep(3600))
    pending.cancel()
    loop.run_until_complete(asyncio.gather(pending, return_exceptions=True))
    print("cancelled:", pending.cancelled())
    loop.run_until_complete(loop.shutdown_asyncgens())
finally:
    asyncio.set_event_loop(None)
    loop.close()
print("closed:", loop.is_closed())
