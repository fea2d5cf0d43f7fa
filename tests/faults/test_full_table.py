"""A server whose process has no descriptor left: it neither spins nor floods the log, and serves when it can again.

In children, for the limit on descriptors is the process's.  asyncio's own loop reports once
for each place in the backlog, a hundred times a second, and so these are fastloop's alone.
"""

from support import FASTLOOP, check_child

SETUP = """
    import resource, socket
    from support.peers import HOST, Cpu, Fill
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))

    class Greet(asyncio.Protocol):
        def connection_made(self, transport):
            transports.append(transport)
            transport.write(b"hi")
        def data_received(self, data):
            transports[0].write(data)

    transports = []
    reports = []
    loop = impl.new_loop()
    def report(loop, context):
        reports.append(time.monotonic())
        if "message" not in context or "exception" not in context or "socket" not in context:
            reports.append(context)
    loop.set_exception_handler(report)

    def clients(count):
        made = [socket.socket() for _ in range(count)]
        for sock in made:
            sock.setblocking(False)
        return made

    def connect(socks, server):
        for sock in socks:
            try:
                sock.connect(server.sockets[0].getsockname())
            except BlockingIOError:
                pass

    async def greeted(sock):
        assert await loop.sock_recv(sock, 10) == b"hi"
        return time.monotonic()
"""


def run(code, **kwargs):
    return check_child(FASTLOOP, SETUP + code, limit=30, **kwargs)


def test_reports_and_processor_time():
    """One report a second, next to no processor time, and other connections work on."""
    run("""
    async def main():
        server = await loop.create_server(Greet, HOST, 0, backlog=100)
        early, *late = clients(6)
        connect([early], server)
        await greeted(early)
        await asyncio.sleep(0.001)
        fill = Fill()
        fill.take()
        connect(late, server)
        waiting = [loop.create_task(greeted(sock)) for sock in late]
        await asyncio.sleep(0.1)
        cpu, began = Cpu(), time.monotonic()
        beats = 0
        while time.monotonic() < began + 2.2:
            await asyncio.sleep(0.2)
            await loop.sock_sendall(early, b"beat")
            assert await loop.sock_recv(early, 10) == b"beat"
            beats += 1
        share = cpu.share()
        assert 1 <= len(reports) <= 4, (len(reports), "reports in 2.3 s")
        assert share < 0.01, f"{share:.2%} of a processor"
        assert not any(task.done() for task in waiting)
        freed = time.monotonic()
        fill.close()
        served = await asyncio.wait_for(asyncio.gather(*waiting), 5)
        assert max(served) - freed < 1.4, max(served) - freed
        for transport in transports:
            transport.abort()
        server.close()
        await asyncio.sleep(0.01)
        for sock in (early, *late):
            sock.close()
    loop.run_until_complete(main())
    loop.close()
    """)


def test_one_client_at_a_time():
    """With room for three, eight clients are all served, as soon as those before them go."""
    run("""
    async def main():
        server = await loop.create_server(Greet, HOST, 0, backlog=100)
        socks = clients(8)
        await asyncio.sleep(0.001)  # the first sleep takes descriptors of its own
        fill = Fill()
        fill.take(leave=3)
        connect(socks, server)
        async def visit(sock):
            await greeted(sock)
            await asyncio.sleep(0.05)
            await loop.sock_sendall(sock, b"")
            sock.shutdown(socket.SHUT_WR)
            assert await loop.sock_recv(sock, 10) == b""
        began = time.monotonic()
        await asyncio.wait_for(asyncio.gather(*(visit(sock) for sock in socks)), 10)
        took = time.monotonic() - began
        assert took < 3.5, took  # two refusals, a second each
        assert len(reports) <= 5, len(reports)
        fill.close()
        server.close()
        for sock in socks:
            sock.close()
        await asyncio.sleep(0.01)
    loop.run_until_complete(main())
    loop.close()
    """)


def test_each_listener_reports_for_itself():
    run("""
    async def main():
        servers = [await loop.create_server(Greet, HOST, 0, backlog=100) for _ in range(3)]
        socks = clients(3)
        await asyncio.sleep(0.001)
        fill = Fill()
        fill.take()
        for server, sock in zip(servers, socks):
            connect([sock], server)
        await asyncio.sleep(1.5)
        assert 3 <= len(reports) <= 6, len(reports)
        fill.close()
        await asyncio.wait_for(asyncio.gather(*map(greeted, socks)), 3)
        for transport in transports:
            transport.abort()
        for server in servers:
            server.close()
        for sock in socks:
            sock.close()
        await asyncio.sleep(0.01)
    loop.run_until_complete(main())
    loop.close()
    """)


def test_a_server_closed_while_it_waits():
    """close() during the pause after a failure: the server does not come back."""
    run("""
    async def main():
        server = await loop.create_server(Greet, HOST, 0, backlog=100)
        sock, other = clients(2)
        await asyncio.sleep(0.001)
        fill = Fill()
        fill.take()
        connect([sock], server)
        await asyncio.sleep(0.1)
        assert reports
        server.close()
        fill.close()
        # The number that the listening socket had is now another's.
        listener = socket.create_server((HOST, 0))
        listener.setblocking(False)
        other.setblocking(True)
        other.connect(listener.getsockname())
        await asyncio.sleep(1.3)
        assert transports == []
        await loop.sock_accept(listener)
        listener.close()
        sock.close()
        other.close()
    loop.run_until_complete(main())
    loop.close()
    """, flags=["-W", "ignore"])


def test_connecting_without_a_descriptor():
    """The client's side: create_connection() raises EMFILE, and the next one works."""
    run("""
    import errno
    async def main():
        server = await loop.create_server(Greet, HOST, 0)
        address = server.sockets[0].getsockname()
        await asyncio.sleep(0.001)
        fill = Fill()
        fill.take()
        for _ in range(20):
            try:
                await loop.create_connection(asyncio.Protocol, *address)
            except OSError as exc:
                assert exc.errno == errno.EMFILE, exc
            else:
                raise AssertionError("connected")
        fill.close()
        transport, _ = await loop.create_connection(asyncio.Protocol, *address)
        transport.abort()
        await asyncio.sleep(0.05)
        for transport in transports:
            transport.abort()
        server.close()
        await asyncio.sleep(0.05)
    loop.run_until_complete(main())
    loop.close()
    """)


def test_the_first_sleep_finds_no_descriptor():
    """asyncio's loop has all that it needs from the start; so a loop that is there runs."""
    run("""
    async def main():
        fill = Fill()
        fill.take()
        await asyncio.sleep(0.01)
        fill.close()
        await asyncio.sleep(0.01)
    loop.run_until_complete(main())
    loop.close()
    """)
