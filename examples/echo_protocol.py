"""An echo server on Protocol: callbacks instead of coroutines, one object for each connection."""

import asyncio


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class Client(asyncio.Protocol):
    def __init__(self, message):
        self.message = message
        self.received = bytearray()
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        transport.write(self.message)
        transport.write_eof()

    def data_received(self, data):
        self.received += data

    def connection_lost(self, error):
        if error is None:
            self.done.set_result(bytes(self.received))
        else:
            self.done.set_exception(error)


async def say(port, message):
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(lambda: Client(message), "127.0.0.1", port)
    return await client.done


async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        for message in await asyncio.gather(say(port, b"short"), say(port, b"long " * 100_000)):
            print(len(message), "bytes came back, the first of them", message[:5])


asyncio.run(main())
