"""TLS, as far as it happens once per connection: arguments, and the upgrade of a plain connection."""

from __future__ import annotations

from asyncio import constants, sslproto, streams

from . import _core

try:
    import ssl
except ImportError:  # as asyncio, which has no TLS then
    ssl = None  # type: ignore[assignment]


def _timeout(name, seconds, default):
    if seconds is None:
        return default
    if seconds <= 0:
        raise ValueError(f"{name} should be a positive number, got {seconds}")
    return seconds


def make_transport(loop, protocol, sslcontext, waiter=None, server_side=False, server_hostname=None,
                   call_connection_made=True, ssl_handshake_timeout=None, ssl_shutdown_timeout=None):
    """An SSLTransport for what asyncio would give an SSLProtocol; it is the protocol of the transport below."""
    if ssl is None:
        raise RuntimeError("stdlib ssl module not available")
    handshake = _timeout("ssl_handshake_timeout", ssl_handshake_timeout, constants.SSL_HANDSHAKE_TIMEOUT)
    shutdown = _timeout("ssl_shutdown_timeout", ssl_shutdown_timeout, constants.SSL_SHUTDOWN_TIMEOUT)
    if not sslcontext:
        sslcontext = sslproto._create_transport_context(server_side, server_hostname)
    hostname = server_hostname if server_hostname and not server_side else None
    return _core.SSLTransport(loop, protocol, sslcontext, handshake, shutdown, server_side, hostname, waiter,
                              call_connection_made)


def accept_settings(sslcontext, ssl_handshake_timeout, ssl_shutdown_timeout):
    """What a listener in C needs to know, or None where a connection is to fail as it does on asyncio."""
    try:
        handshake = _timeout("", ssl_handshake_timeout, constants.SSL_HANDSHAKE_TIMEOUT)
        shutdown = _timeout("", ssl_shutdown_timeout, constants.SSL_SHUTDOWN_TIMEOUT)
    except (TypeError, ValueError):
        return None
    return (sslcontext, handshake, shutdown) if isinstance(sslcontext, ssl.SSLContext) else None


def _move_buffered(protocol, transport):
    """What a StreamReader has received already belongs to the TLS that begins now."""
    reader = getattr(protocol, "_stream_reader", None) if isinstance(protocol, streams.StreamReaderProtocol) else None
    if reader is not None and reader._buffer:
        transport._feed(reader._buffer)
        reader._buffer.clear()


class TLSMixin:
    """loop.start_tls()"""

    async def start_tls(self, transport, protocol, sslcontext, *, server_side=False, server_hostname=None,
                        ssl_handshake_timeout=None, ssl_shutdown_timeout=None):
        """Upgrade a transport to TLS; return the one that the protocol uses from now on."""
        if ssl is None:
            raise RuntimeError("Python ssl module is not available")
        if not isinstance(sslcontext, ssl.SSLContext):
            raise TypeError(f"sslcontext is expected to be an instance of ssl.SSLContext, got {sslcontext!r}")
        if not getattr(transport, "_start_tls_compatible", False):
            raise TypeError(f"transport {transport!r} is not supported by start_tls()")
        waiter = self.create_future()
        tls = make_transport(self, protocol, sslcontext, waiter, server_side, server_hostname, False,
                             ssl_handshake_timeout, ssl_shutdown_timeout)
        transport.pause_reading()  # nothing may arrive before connection_made()
        if server_side:
            _move_buffered(protocol, tls)
        transport.set_protocol(tls)
        made = self.call_soon(tls.connection_made, transport)
        resume = self.call_soon(transport.resume_reading)
        try:
            await waiter
        except BaseException:
            transport.close()
            made.cancel()
            resume.cancel()
            raise
        return tls
