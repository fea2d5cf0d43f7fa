"""download_all() saves many files from a server at once, and reports how far it is."""

import asyncio
import pathlib
import tempfile

import aiohttp
from aiohttp import web

FILES = {f"file{number:02}.bin": bytes([number]) * (10_000 + 5_000 * number) for number in range(40)}


async def download(session, url, target, progress):
    async with session.get(url, raise_for_status=True) as response:
        with target.open("wb") as file:
            async for chunk in response.content.iter_chunked(16_384):
                file.write(chunk)
                progress(len(chunk))


async def download_all(base, names, folder, progress):
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=8)) as session:
        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(download(session, f"{base}/{name}", folder / name, progress))


class Progress:
    def __init__(self, total):
        self.total = total
        self.done = 0
        self.shown = 0

    def __call__(self, count):
        self.done += count
        while self.done * 10 >= (self.shown + 1) * self.total:
            self.shown += 1
            print(f"{self.shown * 10:3} % {'#' * self.shown}")


async def serve(folder):
    app = web.Application()
    app.router.add_static("/", folder)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner


async def main():
    with tempfile.TemporaryDirectory() as folder:
        source, target = pathlib.Path(folder, "source"), pathlib.Path(folder, "target")
        source.mkdir()
        target.mkdir()
        for name, content in FILES.items():
            (source / name).write_bytes(content)
        runner = await serve(source)
        base = f"http://127.0.0.1:{runner.addresses[0][1]}"
        await download_all(base, FILES, target, Progress(sum(map(len, FILES.values()))))
        await runner.cleanup()
        same = sum((target / name).read_bytes() == content for name, content in FILES.items())
        print(f"{same} of {len(FILES)} files are the same")


asyncio.run(main())
