"""shield() lets work go on although the one who waits for it is cancelled."""

import asyncio


async def save():
    await asyncio.sleep(0.05)
    print("saved")
    return "file"


async def request(work):
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        print("request cancelled, work cancelled:", work.cancelled())
        raise


async def main():
    work = asyncio.create_task(save())
    waiting = asyncio.create_task(request(work))
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.wait([waiting])
    print("result:", await work)


asyncio.run(main())
