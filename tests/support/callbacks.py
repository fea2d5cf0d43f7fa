"""For tests that try every callback of a protocol: what a callback may raise and what it may call.

A story leads a connection through all callbacks; what is compared is what it says in the end.
"""

import asyncio

from support.net import Reports

STREAM = ["connection_made", "data_received", "eof_received", "pause_writing", "resume_writing", "connection_lost"]


class Story:
    """One connection, led through its callbacks from outside of the loop, so that exceptions may leave that.

    How it is led is up to the subclass: its lead() returns the whole story.
    """

    def __init__(self, impl, make, on, *, debug=False):
        self.loop = impl.new_loop()
        self.loop.set_debug(debug)
        self.loop.slow_callback_duration = 60  # a busy machine is not what these are about
        self.reports = Reports(self.loop)
        self.trace = []
        self.protocol = make(on, self.trace)

    def run(self, step):
        """Run a coroutine, again if an exception or stop() left the loop."""
        task = self.loop.create_task(step)
        for _ in range(30):
            try:
                self.loop.run_until_complete(task)
                return
            except (KeyboardInterrupt, SystemExit) as exc:
                self.trace.append(("left", type(exc).__name__))
            except RuntimeError as exc:
                assert "Event loop stopped before Future completed" in str(exc)
                self.trace.append(("stopped",))
            if task.done():
                return
        raise AssertionError("stopped again and again")

    def lead(self):
        raise NotImplementedError

    def tell(self):
        try:
            return self.lead()
        finally:
            self.end()

    def end(self):
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()
        self.protocol.transport = None
        self.protocol.on.clear()
        self.loop.set_exception_handler(None)
        self.loop.close()


def once(action):
    """An action that is done only the first time."""
    done = []

    def act(p, *args):
        if not done:
            done.append(1)
            return action(p, *args)
        return None
    return act


# What they raise

class Odd(BaseException):
    """An exception that is no Exception."""


EXCEPTIONS = {
    "ValueError": lambda: ValueError("from the callback"),
    "OSError": lambda: OSError(5, "from the callback"),
    "ConnectionResetError": lambda: ConnectionResetError(104, "from the callback"),
    "BlockingIOError": lambda: BlockingIOError(11, "from the callback"),
    "InterruptedError": lambda: InterruptedError(4, "from the callback"),
    "StopIteration": lambda: StopIteration("from the callback"),
    "CancelledError": lambda: asyncio.CancelledError("from the callback"),
    "GeneratorExit": lambda: GeneratorExit("from the callback"),
    "Odd": lambda: Odd("from the callback"),
    "KeyboardInterrupt": lambda: KeyboardInterrupt("from the callback"),
    "SystemExit": lambda: SystemExit(3),
}
LEAVING = ("KeyboardInterrupt", "SystemExit")


def throw(name):
    def action(p, *args):
        raise EXCEPTIONS[name]()
    return action


# What they call

def noted(action, state):
    """An action that writes down how it went; `state` gives what there is to say of the transport afterwards."""
    def act(p, *args):
        p.trace.append(("before",))
        try:
            action(p, *args)
        except Exception as exc:
            p.trace.append(("raised", type(exc).__name__, str(exc)))
        else:
            p.trace.append(("after", *state(p.transport)))
    return act


def calls(*names):
    """An action that calls these methods of the transport."""
    def action(p, *args):
        for name in names:
            getattr(p.transport, name)()
    return action


def switches(plain, buffered):
    """Actions that put a protocol of one of these classes in place."""
    def switch_to(make):
        def action(p, *args):
            other = make(None, p.trace)
            other.transport = p.transport
            p.transport.set_protocol(other)
        return action

    def switch_back(p, *args):
        switch_to(plain)(p)
        p.transport.set_protocol(p)
    return {
        "set_protocol": switch_to(plain),
        "set_protocol to a BufferedProtocol": switch_to(buffered),
        "set_protocol and back": switch_back,
    }


ACTIONS = {
    "close": calls("close"),
    "abort": calls("abort"),
    "close and abort": calls("close", "abort"),
    "pause": calls("pause_reading"),
    "resume": calls("resume_reading"),
    "pause, then resume": calls("pause_reading", "resume_reading"),
    "pause for a while": lambda p, *a: (
        p.transport.pause_reading(), asyncio.get_running_loop().call_soon(p.transport.resume_reading)),
    "write": lambda p, *a: p.transport.write(b"w"),
    "write much": lambda p, *a: p.transport.write(bytes(300000)),
    "write and close": lambda p, *a: (p.transport.write(b"w"), p.transport.close()),
    "write much and close": lambda p, *a: (p.transport.write(bytes(300000)), p.transport.close()),
    "write much and abort": lambda p, *a: (p.transport.write(bytes(300000)), p.transport.abort()),
    "stop": lambda p, *a: asyncio.get_running_loop().stop(),
}
