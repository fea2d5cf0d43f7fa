"""An echo server over TLS. The certificate is made by the openssl program, as a child process."""

import asyncio
import pathlib
import ssl
import tempfile


async def make_certificate(folder):
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    openssl = await asyncio.create_subprocess_exec(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-out", certificate, "-keyout", key,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert await openssl.wait() == 0
    return certificate, key


async def echo(reader, writer):
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def main():
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = await make_certificate(pathlib.Path(folder))
        for_server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        for_server.load_cert_chain(certificate, key)
        for_client = ssl.create_default_context(cafile=certificate)

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=for_server)
    port = server.sockets[0].getsockname()[1]
    async with server:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=for_client, server_hostname="localhost")
        print(writer.get_extra_info("ssl_object").version())
        writer.write(b"nobody reads this\n")
        print((await reader.readline()).decode().strip())
        writer.close()
        await writer.wait_closed()


asyncio.run(main())
