"""Calls of the loop's C methods by keyword, and wrong calls.

The C methods take the common form themselves and leave the rest to these functions, which have asyncio's signatures
and, for its error messages, asyncio's names.
"""


def call_soon(self, callback, *args, context=None):
    return self.call_soon(callback, *args, context=context)


def call_soon_threadsafe(self, callback, *args, context=None):
    return self.call_soon_threadsafe(callback, *args, context=context)


def call_later(self, delay, callback, *args, context=None):
    return self.call_later(delay, callback, *args, context=context)


def call_at(self, when, callback, *args, context=None):
    return self.call_at(when, callback, *args, context=context)


def run_in_executor(self, executor, func, *args):
    return self.run_in_executor(executor, func, *args)


def sock_recv(self, sock, n):
    return self.sock_recv(sock, n)


def sock_recv_into(self, sock, buf):
    return self.sock_recv_into(sock, buf)


def sock_sendall(self, sock, data):
    return self.sock_sendall(sock, data)


def _add_reader(self, fd, callback, *args, context=None):
    return self._add_reader(fd, callback, *args, context=context)


def _add_writer(self, fd, callback, *args, context=None):
    return self._add_writer(fd, callback, *args, context=context)


def add_reader(self, fd, callback, *args):
    return self.add_reader(fd, callback, *args)


def add_writer(self, fd, callback, *args):
    return self.add_writer(fd, callback, *args)


for _function in (call_soon, call_soon_threadsafe, call_later, call_at, run_in_executor):
    _function.__qualname__ = f"BaseEventLoop.{_function.__name__}"
for _function in (add_reader, add_writer, sock_recv, sock_recv_into, sock_sendall, _add_reader, _add_writer):
    _function.__qualname__ = f"BaseSelectorEventLoop.{_function.__name__}"
