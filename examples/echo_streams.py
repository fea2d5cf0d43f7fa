"""An echo server on streams, and several clients that talk to it at the same time."""

import asyncio


async def echo(reader, writer):
    while data := await reader.read(1024):
        writer.write(data)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def client(port, name, messages):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    heard = []
    for message in messages:
        writer.write(f"{name}: {message}\n".encode())
        await writer.drain()
        heard.append((await reader.readline()).decode().strip())
    writer.close()
    await writer.wait_closed()
    return heard


async def main():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        talks = (client(port, name, ["hello", "how are you?", "bye"]) for name in ("Ada", "Grace", "Barbara"))
        for heard in await asyncio.gather(*talks):
            print(*heard, sep="\n")


asyncio.run(main())
