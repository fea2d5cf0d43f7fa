"""What the Loop does once per connection or server, above the transports of _core."""

from __future__ import annotations

import errno
from asyncio import constants, selector_events
from asyncio.log import logger
from asyncio.trsock import TransportSocket

from . import _core

_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class NetworkMixin:
    """The hooks by which asyncio's connection set-up makes transports, over those of C."""

    def _make_socket_transport(self, sock, protocol, waiter=None, *, extra=None, server=None, context=None):
        return _core.SocketTransport(self, sock, protocol, waiter, extra, server, context)

    def _make_ssl_transport(self, rawsock, protocol, sslcontext, waiter=None, *, extra=None, server=None, context=None,
                            **options):
        # asyncio's, but with our transport below
        self._ensure_fd_no_transport(rawsock)
        names = ("server_side", "server_hostname")
        sides = {name: options.pop(name) for name in names if name in options}
        ssl_protocol = selector_events.sslproto.SSLProtocol(
            self, protocol, sslcontext, waiter, sides.get("server_side", False), sides.get("server_hostname"), **options
        )
        _core.SocketTransport(self, rawsock, ssl_protocol, None, extra, server, context)
        return ssl_protocol._app_transport

    def _make_datagram_transport(self, sock, protocol, address=None, waiter=None, extra=None):
        return _core.DatagramTransport(self, sock, protocol, address, waiter, extra)

    def _make_read_pipe_transport(self, pipe, protocol, waiter=None, extra=None):
        return _core.ReadPipeTransport(self, pipe, protocol, waiter, extra)

    def _make_write_pipe_transport(self, pipe, protocol, waiter=None, extra=None):
        return _core.WritePipeTransport(self, pipe, protocol, waiter, extra)

    def _check_transports(self, file, fd):
        # transports of asyncio's own classes, which a subclass of this loop may make
        transport = self._transports.get(fd)
        if transport and not transport.is_closing():
            raise RuntimeError(f"File descriptor {file!r} is used by transport {transport!r}")

    # Servers

    def _start_serving(self, protocol_factory, sock, sslcontext=None, server=None, backlog=100, *timeouts, context=None,
                       **options):
        if sslcontext is None and not self._debug:
            self._listen(protocol_factory, sock, server, backlog, context)
        else:
            if context is not None:
                options["context"] = context
            super()._start_serving(protocol_factory, sock, sslcontext, server, backlog, *timeouts, **options)

    def _accept_connection(self, protocol_factory, sock, sslcontext=None, server=None, backlog=100, *rest):
        """The connections that wait now, of a server with TLS or in debug mode; C accepts the others."""
        for _ in range(backlog + 1):
            try:
                conn, addr = sock.accept()
            except ConnectionAbortedError:
                continue
            except (BlockingIOError, InterruptedError):
                return
            except OSError as exc:
                if exc.errno not in _OUT_OF_RESOURCES:
                    raise
                self._rest_from_accepting(exc, protocol_factory, sock, sslcontext, server, backlog, *rest)
                return
            if self._debug:
                logger.debug("%r got a new connection from %r: %r", server, addr, conn)
            conn.setblocking(False)
            timeouts, context = rest[:2], rest[2] if len(rest) > 2 else None
            arguments = (protocol_factory, conn, {"peername": addr}, sslcontext, server, *timeouts)
            if context is None:
                self.create_task(self._accept_connection2(*arguments))
            else:
                context = context.copy()
                self.create_task(self._accept_connection2(*arguments, context=context), context=context)

    def _rest_from_accepting(self, exc, protocol_factory, sock, *arguments):
        self.call_exception_handler({
            "message": "socket.accept() out of system resource",
            "exception": exc,
            "socket": TransportSocket(sock),
        })  # fmt: skip
        self._remove_reader(sock.fileno())

        def resume():
            if sock.fileno() >= 0:
                self._add_reader(sock.fileno(), self._accept_connection, protocol_factory, sock, *arguments)

        self.call_later(constants.ACCEPT_RETRY_DELAY, resume)

    # sendfile

    async def _sendfile_native(self, transp, file, offset, count):
        if not hasattr(transp, "_lend_descriptor"):
            return await super()._sendfile_native(transp, file, offset, count)
        resume_reading = transp.is_reading()
        transp.pause_reading()
        await transp._make_empty_waiter()
        transp._lend_descriptor(True)
        try:
            return await self.sock_sendfile(transp._sock, file, offset, count, fallback=False)
        finally:
            transp._lend_descriptor(False)
            transp._reset_empty_waiter()
            if resume_reading:
                transp.resume_reading()
