"""What the Loop does once per connection or server, above the transports of _core."""

from __future__ import annotations

import errno
import socket
from asyncio import constants, selector_events, tasks
from asyncio.log import logger
from asyncio.trsock import TransportSocket

from . import _core
from ._tls import accept_settings, make_transport

# From 3.15 on a server keeps the context that it was made in.
_SERVERS_HAVE_CONTEXTS = "context" in selector_events.BaseSelectorEventLoop._start_serving.__code__.co_varnames

_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class NetworkMixin:
    """The hooks by which asyncio's connection set-up makes transports, over those of C."""

    def _make_socket_transport(self, sock, protocol, waiter=None, *, extra=None, server=None, context=None):
        if type(sock) is not socket.socket:
            # a class with methods of its own, which C would not call
            keywords = {} if context is None else {"context": context}
            return super()._make_socket_transport(sock, protocol, waiter, extra=extra, server=server, **keywords)
        return _core.SocketTransport(self, sock, protocol, waiter, extra, server, context)

    def _make_ssl_transport(self, rawsock, protocol, sslcontext, waiter=None, *, server_side=False,
                            server_hostname=None, extra=None, server=None, context=None, **timeouts):
        self._ensure_fd_no_transport(rawsock)
        try:
            tls = make_transport(self, protocol, sslcontext, waiter, server_side, server_hostname, **timeouts)
        except BaseException:
            if server_side:
                rawsock.close()  # nobody else knows of it
            raise
        self._make_socket_transport(rawsock, tls, extra=extra, server=server, context=context)
        return tls

    def _make_datagram_transport(self, sock, protocol, address=None, waiter=None, extra=None):
        if type(sock) is not socket.socket:
            return super()._make_datagram_transport(sock, protocol, address, waiter, extra)
        return _core.DatagramTransport(self, sock, protocol, address, waiter, extra)

    def _make_read_pipe_transport(self, pipe, protocol, waiter=None, extra=None):
        return _core.ReadPipeTransport(self, pipe, protocol, waiter, extra)

    def _make_write_pipe_transport(self, pipe, protocol, waiter=None, extra=None):
        return _core.WritePipeTransport(self, pipe, protocol, waiter, extra)

    def _check_transports(self, file):
        """asyncio's own look, for transports of its own classes."""
        super()._ensure_fd_no_transport(file)

    # Servers

    def _start_serving(self, protocol_factory, sock, sslcontext=None, server=None, backlog=100,
                       ssl_handshake_timeout=constants.SSL_HANDSHAKE_TIMEOUT,
                       ssl_shutdown_timeout=constants.SSL_SHUTDOWN_TIMEOUT, **context):
        timeouts = ssl_handshake_timeout, ssl_shutdown_timeout
        tls = accept_settings(sslcontext, *timeouts) if sslcontext is not None else None
        in_c = sslcontext is None or tls is not None
        if in_c and not self._debug and issubclass(type(sock), socket.socket):
            self._listen(protocol_factory, sock, server, backlog, context.get("context"), tls)
            return
        super()._start_serving(protocol_factory, sock, sslcontext, server, backlog, *timeouts, **context)

    def _accept_connection(self, protocol_factory, sock, sslcontext=None, server=None, backlog=100,
                           ssl_handshake_timeout=constants.SSL_HANDSHAKE_TIMEOUT,
                           ssl_shutdown_timeout=constants.SSL_SHUTDOWN_TIMEOUT, context=None):
        """Accept who waits now, in debug mode; C accepts otherwise."""
        timeouts = ssl_handshake_timeout, ssl_shutdown_timeout
        in_context = (context,) if _SERVERS_HAVE_CONTEXTS else ()
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
                self._report_full_table(exc, sock)
                self._remove_reader(sock.fileno())
                self.call_later(constants.ACCEPT_RETRY_DELAY, self._accept_again, protocol_factory, sock, sslcontext,
                                server, backlog, *timeouts, *in_context)
                return
            if self._debug:
                logger.debug("%r got a new connection from %r: %r", server, addr, conn)
            conn.setblocking(False)
            keywords = {} if context is None else {"context": context.copy()}
            accepted = self._accept_connection2(protocol_factory, conn, {"peername": addr}, sslcontext, server, *timeouts,
                                                **keywords)
            self.create_task(accepted, **keywords)

    def _report_full_table(self, exc, sock):
        self.call_exception_handler({
            "message": "socket.accept() out of system resource",
            "exception": exc,
            "socket": TransportSocket(sock),
        })  # fmt: skip

    def _accept_again(self, protocol_factory, sock, *arguments):
        if sock.fileno() >= 0:  # the server was not closed meanwhile
            self._add_reader(sock.fileno(), self._accept_connection, protocol_factory, sock, *arguments)

    # sendfile

    async def _sendfile_native(self, transp, file, offset, count):
        if not hasattr(transp, "_lend_descriptor"):
            return await super()._sendfile_native(transp, file, offset, count)
        resume_reading = transp.is_reading()
        transp.pause_reading()
        await transp._make_empty_waiter()
        lost = transp._make_loss_waiter()
        transp._lend_descriptor(True)
        sending = self.create_task(self.sock_sendfile(transp._sock, file, offset, count, fallback=False))
        try:
            await tasks.wait((sending, lost), return_when=tasks.FIRST_COMPLETED)
            if not sending.done():
                lost.result()  # the ConnectionError
            return await sending
        finally:
            if not sending.done():
                sending.cancel()
                await tasks.wait((sending,))
            if lost.done():
                lost.exception()
            transp._lend_descriptor(False)
            transp._reset_empty_waiter()
            if resume_reading:
                transp.resume_reading()
