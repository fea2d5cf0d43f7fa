"""Name resolution: what needs no resolver needs no thread either."""

from __future__ import annotations

import socket

_NUMERIC = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV


def _is_address(host):
    """Whether libc knows at once what this host is: a plain IPv4 or IPv6 address, or none at all."""
    if host is None:
        return True
    if isinstance(host, bytes):
        try:
            host = host.decode("ascii")
        except UnicodeDecodeError:
            return False
    if not isinstance(host, str) or not host.isascii():
        return False
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.inet_pton(family, host)
    except (OSError, ValueError):
        return False
    return True


def _is_number(port):
    """Whether there is no service to be looked up."""
    if isinstance(port, (str, bytes)):
        if not (port.isascii() and port.isdigit() and len(port) <= 5):
            return False
        port = int(port)
    return port is None or (isinstance(port, int) and 0 <= port <= 65535)


class NamesMixin:
    """getaddrinfo and getnameinfo, which ask libc directly if it cannot block."""

    async def getaddrinfo(self, host, port, *, family=0, type=0, proto=0, flags=0):  # noqa: A002 - asyncio's names
        """As socket.getaddrinfo()."""
        if not self._debug and _is_address(host) and _is_number(port):
            return socket.getaddrinfo(host, port, family, type, proto, flags)
        return await super().getaddrinfo(host, port, family=family, type=type, proto=proto, flags=flags)

    async def getnameinfo(self, sockaddr, flags=0):
        """As socket.getnameinfo()."""
        if isinstance(flags, int) and flags & _NUMERIC == _NUMERIC and isinstance(sockaddr, tuple) and sockaddr:
            if _is_address(sockaddr[0]):
                return socket.getnameinfo(sockaddr, flags)
        return await super().getnameinfo(sockaddr, flags)
