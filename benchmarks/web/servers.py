"""The web servers that are measured: released packages as they are, told nothing but their loop.

    python -m benchmarks.web.servers LOOP WORKLOAD [CORE [CERTIFICATE]]

CERTIFICATE is a file with certificate and key, for the workloads over TLS. A line of JSON on stdout says pid, address
and versions, or why it cannot be; then the program serves on a free port of loopback until it is killed or its parent
dies. Every answer has a body of 1 KiB.
"""

import sys
from pathlib import Path

if not __package__:
    # Started by its path; last, so that the checkout does not hide an installed fastloop.
    sys.path.append(str(Path(__file__).resolve().parent.parent.parent))

import asyncio
import importlib.metadata
import json
import os
import socket
import ssl
import traceback
from collections.abc import Callable
from typing import Any

from benchmarks import loops
from benchmarks.network.process import end_with_parent

BACKLOG = 1024
BODY = b"b" * 1024

Say = Callable[..., None]


def listening() -> socket.socket:
    # asyncio sets TCP_NODELAY only where the protocol is named, as it is when it makes the socket itself.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    sock.listen(BACKLOG)
    return sock


def say_ready(say: Say, name: str, address: tuple[str, int], *packages: str) -> None:
    host, port = address
    versions = {package: importlib.metadata.version(package) for package in packages}
    say(pid=os.getpid(), address=f"{host}:{port}", version=loops.version(name), versions=versions)


async def plain(scope: Any, receive: Any, send: Any) -> None:
    """The smallest ASGI application."""
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(BODY))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


def certificate() -> str | None:
    """The file that is named on the command line."""
    return sys.argv[4] if len(sys.argv) > 4 else None


def serve_uvicorn(name: str, app: Any, sock: socket.socket) -> None:
    import uvicorn

    config = uvicorn.Config(
        app,
        loop=":".join(loops.NETWORK[name]),
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        ssl_certfile=certificate(),
    )
    uvicorn.Server(config).run(sockets=[sock])


def start_uvicorn(name: str, say: Say) -> None:
    sock = listening()
    say_ready(say, name, sock.getsockname(), "uvicorn", "httptools")
    serve_uvicorn(name, plain, sock)


def start_fastapi(name: str, say: Say) -> None:
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    app = FastAPI()

    @app.get("/", response_class=PlainTextResponse)
    async def root() -> str:
        return BODY.decode()

    sock = listening()
    say_ready(say, name, sock.getsockname(), "fastapi", "starlette", "uvicorn", "httptools")
    serve_uvicorn(name, app, sock)


def start_aiohttp(name: str, say: Say) -> None:
    from aiohttp import web

    async def root(request: web.Request) -> web.Response:
        return web.Response(body=BODY, content_type="text/plain")

    async def main() -> None:
        app = web.Application()
        app.router.add_get("/", root)
        site_runner = web.AppRunner(app, access_log=None)
        await site_runner.setup()
        context = None
        if file := certificate():
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(file)
        await web.TCPSite(site_runner, "127.0.0.1", 0, backlog=BACKLOG, ssl_context=context).start()
        say_ready(say, name, site_runner.addresses[0], "aiohttp")
        await asyncio.Event().wait()

    with asyncio.Runner(loop_factory=loops.factory(name)) as runner:
        runner.run(main())


WORKLOADS: dict[str, tuple[Callable[[str, Say], None], str]] = {
    "uvicorn": (start_uvicorn, "a plain ASGI application on uvicorn with httptools"),
    "aiohttp": (start_aiohttp, "an aiohttp server"),
    "fastapi": (start_fastapi, "a FastAPI application on uvicorn with httptools"),
    "uvicorn-tls": (start_uvicorn, "a plain ASGI application on uvicorn with httptools, over TLS"),
    "aiohttp-tls": (start_aiohttp, "an aiohttp server, over TLS"),
}
# Those that are given a certificate.
TLS = ("uvicorn-tls", "aiohttp-tls")


def main() -> None:
    name, workload = sys.argv[1:3]
    core = int(sys.argv[3]) if len(sys.argv) > 3 else -1
    end_with_parent()

    def say(**content: Any) -> None:
        print(json.dumps(content), flush=True)

    try:
        loops.factory(name)
        if core >= 0:
            os.sched_setaffinity(0, {core})
        WORKLOADS[workload][0](name, say)
    except BaseException as exc:
        text = str(exc).splitlines()
        say(error=f"{type(exc).__name__}: {text[0]}" if text else type(exc).__name__)
        traceback.print_exc()
    sys.stderr.flush()
    # A loop's own threads must not keep the process.
    os._exit(1)


if __name__ == "__main__":
    main()
