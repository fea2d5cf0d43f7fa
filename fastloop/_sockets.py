"""The loop's sock_* methods that are not worth C: those of datagrams, and those that connect."""

from __future__ import annotations

import socket
from asyncio.base_events import _check_ssl_socket

_WOULD_BLOCK = (BlockingIOError, InterruptedError)


class SocketMixin:
    """sock_accept, sock_connect and the rest, over the loop's _wait_readable and _wait_writable.

    Each tries its call first, waits if that would block, and tries again when its own task goes on: what a cancelled
    task would lose is still in the kernel.
    """

    def _check_socket(self, sock):
        _check_ssl_socket(sock)
        if self._debug and sock.gettimeout() != 0:
            raise ValueError("the socket must be non-blocking")

    async def sock_recvfrom(self, sock, bufsize):
        """Receive a datagram of at most bufsize bytes; return it and the sender's address."""
        self._check_socket(sock)
        while True:
            try:
                return sock.recvfrom(bufsize)
            except _WOULD_BLOCK:
                await self._wait_readable(sock)

    async def sock_recvfrom_into(self, sock, buf, nbytes=0):
        """Receive a datagram into a buffer; return its length and the sender's address."""
        self._check_socket(sock)
        if not nbytes:
            nbytes = len(buf)
        while True:
            try:
                return sock.recvfrom_into(buf, nbytes)
            except _WOULD_BLOCK:
                await self._wait_readable(sock)

    async def sock_sendto(self, sock, data, address):
        """Send a datagram to an address; return how many bytes."""
        self._check_socket(sock)
        while True:
            try:
                return sock.sendto(data, address)
            except _WOULD_BLOCK:
                await self._wait_writable(sock)

    async def sock_accept(self, sock):
        """Accept a connection; return its socket and the peer's address."""
        self._check_socket(sock)
        while True:
            try:
                conn, address = sock.accept()
            except _WOULD_BLOCK:
                await self._wait_readable(sock)
            else:
                conn.setblocking(False)
                return conn, address

    async def sock_connect(self, sock, address):
        """Connect to an address."""
        self._check_socket(sock)
        if sock.family in (socket.AF_INET, getattr(socket, "AF_INET6", None)):
            kind = {"family": sock.family, "type": sock.type, "proto": sock.proto}
            resolved = await self._ensure_resolved(address, **kind, loop=self)
            address = resolved[0][4]
        try:
            sock.connect(address)
            return
        except _WOULD_BLOCK:
            pass
        await self._wait_writable(sock)
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, f"Connect call failed {address}")
