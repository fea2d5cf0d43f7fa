"""A little HTTP file server on asyncio.start_server and aiofiles, asked by 100 clients at once."""

import asyncio
import pathlib
import tempfile

import aiofiles

CLIENTS = 100
FILES = {"index.html": b"<h1>Hello</h1>\n", "numbers.txt": b"\n".join(b"%d" % n for n in range(50_000))}


class FileServer:
    def __init__(self, folder):
        self.folder = folder.resolve()

    async def __call__(self, reader, writer):
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), timeout=10)
            await self.answer(head.split(b"\r\n")[0].decode("latin-1"), writer)
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # not a request, or nobody who waits for an answer
        finally:
            writer.close()

    async def answer(self, request, writer):
        method, _, rest = request.partition(" ")
        path = (self.folder / rest.partition(" ")[0].lstrip("/")).resolve()
        if method != "GET":
            await self.head(writer, "405 Method Not Allowed")
        elif not path.is_relative_to(self.folder) or not path.is_file():
            await self.head(writer, "404 Not Found")
        else:
            async with aiofiles.open(path, "rb") as file:
                await self.head(writer, "200 OK", path.stat().st_size)
                while chunk := await file.read(65_536):
                    writer.write(chunk)
                    await writer.drain()

    async def head(self, writer, status, length=0):
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()


async def get(port, path, method="GET"):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return head.split(b"\r\n")[0].decode(), body


async def main():
    with tempfile.TemporaryDirectory() as folder:
        for name, content in FILES.items():
            pathlib.Path(folder, name).write_bytes(content)
        server = await asyncio.start_server(FileServer(pathlib.Path(folder)), "127.0.0.1", 0, backlog=CLIENTS)
        port = server.sockets[0].getsockname()[1]
        async with server:
            names = [list(FILES)[number % len(FILES)] for number in range(CLIENTS)]
            answers = await asyncio.gather(*(get(port, f"/{name}") for name in names))
            right = sum(body == FILES[name] for name, (_, body) in zip(names, answers, strict=True))
            print(f"{right} of {CLIENTS} clients got their file, {sum(len(body) for _, body in answers)} bytes in all")
            for request in ("/missing", "/../etc/passwd"):
                print(request, *(await get(port, request)))
            print("DELETE", *(await get(port, "/index.html", "DELETE")))


asyncio.run(main())
