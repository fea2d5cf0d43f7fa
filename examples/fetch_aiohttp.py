"""Fetch many pages with aiohttp, ten at a time; retry what fails and what takes too long."""

import asyncio
import collections

from aiohttp import ClientError, ClientSession, ClientTimeout, web

PAGES = 60
ATTEMPTS = 3
asked = collections.Counter()


async def page(request):
    """The local server: a few of its pages are slow or broken, some of those only at first."""
    number = int(request.match_info["number"])
    asked[number] += 1
    await asyncio.sleep(0.01)
    if number == 13 or (number % 10 == 3 and asked[number] == 1):
        raise web.HTTPServiceUnavailable
    if number == 37 and asked[number] == 1:
        await asyncio.sleep(3600)
    return web.Response(text=f"page {number} " * 100)


async def fetch(session, door, url):
    for attempt in range(1, ATTEMPTS + 1):
        try:
            async with door, session.get(url) as response:
                response.raise_for_status()
                return attempt, len(await response.text())
        except (ClientError, TimeoutError) as error:
            failure = type(error).__name__
            await asyncio.sleep(0.02 * attempt)
    return failure


async def main():
    app = web.Application()
    app.router.add_get("/{number}", page)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]

    door = asyncio.Semaphore(10)
    async with ClientSession(timeout=ClientTimeout(total=1)) as session:
        urls = [f"http://127.0.0.1:{port}/{number}" for number in range(PAGES)]
        results = await asyncio.gather(*(fetch(session, door, url) for url in urls))
    await runner.cleanup()

    fetched = [result for result in results if isinstance(result, tuple)]
    print(len(fetched), "pages,", sum(size for _, size in fetched), "characters")
    for number, result in enumerate(results):
        if result not in fetched:
            print(f"page {number}: {result} after {asked[number]} attempts")
        elif result[0] > 1:
            print(f"page {number}: came at attempt {result[0]}")


asyncio.run(main())
