"""Random programs for an event loop, and how to run one.

A program is a list of scripts; a script is a list of instructions.  A callback and a task
both run a script; tasks may also wait.  What happens is written to a trace, which must be
the same on every loop.

Time is virtual: `loop.time` is replaced on the instance, and a driver that is always ready
moves the clock only when nothing has happened for a while.  So neither loop ever sleeps, and
the order of timers does not depend on how fast the machine is.  Deadlines are made distinct,
because asyncio leaves the order of equal ones open.
"""

import asyncio
import gc

from hypothesis import strategies as st

LIMIT = 60        # things started in one program
QUIET = 80        # turns without an event before the clock moves; more than any batch of a loop
HORIZON = 12      # how far the clock goes

index = st.integers(0, 9)
delay = st.integers(0, 4)

anywhere = [
    st.tuples(st.just("soon"), index),
    st.tuples(st.just("threadsafe"), index),
    st.tuples(st.just("later"), delay, index),
    st.tuples(st.just("cancel handle"), index),
    st.tuples(st.just("future")),
    st.tuples(st.just("resolve"), index),
    st.tuples(st.just("fail"), index),
    st.tuples(st.just("cancel future"), index),
    st.tuples(st.just("callback"), index, index),
    st.tuples(st.just("remove callback"), index),
    st.tuples(st.just("task"), index),
    st.tuples(st.just("cancel task"), index),
    st.tuples(st.just("uncancel"), index),
    st.tuples(st.just("look"), index),
    st.tuples(st.just("raise")),
]
in_tasks = [
    st.tuples(st.just("yield")),
    st.tuples(st.just("sleep"), delay),
    st.tuples(st.just("await future"), index),
    st.tuples(st.just("await task"), index),
    st.tuples(st.just("shield"), index),
    st.tuples(st.just("gather"), st.lists(index, min_size=1, max_size=3), st.booleans()),
    st.tuples(st.just("wait"), st.lists(index, min_size=1, max_size=3), st.booleans()),
    st.tuples(st.just("timeout"), delay, index),
    st.tuples(st.just("wait for"), delay, index),
    st.tuples(st.just("group"), st.lists(index, min_size=1, max_size=2)),
    st.tuples(st.just("swallow"), index),
    st.tuples(st.just("cancel me")),
]

instructions = st.one_of(*anywhere, *in_tasks, *in_tasks)
scripts = st.lists(st.lists(instructions, max_size=6), min_size=1, max_size=7)
programs = st.tuples(scripts, st.booleans())


class Failure(Exception):
    """What programs raise."""


class Machine:
    """Runs one program on one loop."""

    def __init__(self, loop, program, task_class, future_class, eager):
        self.loop = loop
        self.scripts = program
        self.task_class = task_class
        self.future_class = future_class
        self.eager = eager
        self.trace = []
        self.started = 0
        self.deadlines = 0
        self.now = 1000.0
        self.handles = []
        self.futures = []
        self.tasks = []
        self.callbacks = []

    def say(self, *words):
        self.trace.append(words)

    def pick(self, things, n):
        return things[n % len(things)] if things else None

    def script(self, n):
        return self.scripts[n % len(self.scripts)]

    def may_start(self):
        self.started += 1
        return self.started <= LIMIT

    def distinct(self, units):
        self.deadlines += 1
        return units + self.deadlines / 4096

    def on_exception(self, loop, context):
        exc = context.get("exception")
        self.say("handler", context["message"].partition(" ")[0], type(exc).__name__)

    # Callbacks

    def run_callback(self, name, n):
        self.say("callback", name)
        for instruction in self.script(n):
            self.do(instruction)
        self.say("end of", name)

    def future_callback(self, name, n):
        def callback(fut):
            self.say("done callback", name, self.describe(fut))
            for instruction in self.script(n)[:2]:
                self.do(instruction)
        return callback

    def describe(self, fut):
        if not fut.done():
            return "pending"
        if fut.cancelled():
            return "cancelled"
        exc = fut.exception()
        return ("failed", type(exc).__name__) if exc is not None else ("result", repr(fut.result())[:40])

    def do(self, instruction):
        """One instruction that needs no waiting; False if it is not one of those."""
        op, *args = instruction
        loop = self.loop
        if op in ("soon", "threadsafe", "later"):
            if self.may_start():
                name = f"{op} {len(self.handles)}"
                if op == "soon":
                    handle = loop.call_soon(self.run_callback, name, args[0])
                elif op == "threadsafe":
                    handle = loop.call_soon_threadsafe(self.run_callback, name, args[0])
                else:
                    handle = loop.call_later(
                        self.distinct(args[0]), self.run_callback, name, args[1])
                self.handles.append(handle)
        elif op == "cancel handle":
            handle = self.pick(self.handles, args[0])
            if handle is not None:
                handle.cancel()
        elif op == "future":
            if self.may_start():
                self.futures.append(
                    loop.create_future() if len(self.futures) % 2 else
                    self.future_class(loop=loop))
        elif op in ("resolve", "fail", "cancel future"):
            fut = self.pick(self.futures, args[0])
            if fut is not None:
                try:
                    if op == "resolve":
                        fut.set_result(self.started)
                    elif op == "fail":
                        fut.set_exception(Failure(self.started))
                        fut._log_traceback = False
                    else:
                        self.say(fut.cancel(f"f{self.started}"))
                except asyncio.InvalidStateError:
                    self.say("invalid state")
        elif op == "callback":
            fut = self.pick(self.futures + self.tasks, args[0])
            if fut is not None and self.may_start():
                callback = self.future_callback(len(self.callbacks), args[1])
                self.callbacks.append((fut, callback))
                fut.add_done_callback(callback)
        elif op == "remove callback":
            entry = self.pick(self.callbacks, args[0])
            if entry is not None:
                self.say(entry[0].remove_done_callback(entry[1]))
        elif op == "task":
            if self.may_start():
                self.start(args[0])
        elif op == "cancel task":
            task = self.pick(self.tasks, args[0])
            if task is not None:
                self.say(task.cancel(f"t{self.started}"), task.cancelling())
        elif op == "uncancel":
            task = self.pick(self.tasks, args[0])
            if task is not None:
                self.say(task.uncancel())
        elif op == "look":
            task = self.pick(self.tasks, args[0])
            if task is not None:
                self.say(self.describe(task), task._must_cancel, task._fut_waiter is None,
                         len(task._callbacks or ()))
        elif op == "raise":
            raise Failure("raise")
        else:
            return False
        return True

    # Tasks

    def start(self, n):
        number = len(self.tasks)
        coro = self.run_task(number, n)
        if self.eager and asyncio._get_running_loop() is not None and number % 3 == 0:
            self.tasks.append(None)
            task = self.task_class(coro, loop=self.loop, eager_start=True)
            self.tasks[number] = task
            self.tasks = [t if t is not None else task for t in self.tasks]
        elif number % 2:
            task = self.loop.create_task(coro)
            self.tasks.append(task)
        else:
            task = self.task_class(coro, loop=self.loop)
            self.tasks.append(task)
        task.add_done_callback(self.watch(number))
        return task

    def watch(self, number):
        def watch(task):
            self.say("task done", number, self.describe(task))
        return watch

    async def run_task(self, number, n):
        self.say("task", number)
        try:
            for instruction in self.script(n):
                if not self.do(instruction):
                    await self.wait(number, instruction)
        except BaseException as exc:
            self.say("task", number, "raises", type(exc).__name__, str(exc)[:20])
            raise
        self.say("task", number, "ends")
        return number

    def pick_task(self, number, n):
        """A task younger than the one that waits, so that nobody waits in a circle."""
        return self.pick([t for t in self.tasks[number + 1:] if t is not None], n)

    async def child(self, number, n):
        """What gather and groups run: one turn, and one in three fails."""
        await asyncio.sleep(0)
        self.say("child", number, n)
        if n % 3 == 2:
            raise Failure(n)
        return n

    async def wait(self, number, instruction):
        op, *args = instruction
        if op == "yield":
            await asyncio.sleep(0)
        elif op == "sleep":
            await asyncio.sleep(self.distinct(args[0]))
        elif op == "await future":
            fut = self.pick(self.futures, args[0])
            if fut is not None:
                self.say(number, "got", repr(await fut)[:40])
        elif op == "await task":
            task = self.pick_task(number, args[0])
            if task is not None:
                self.say(number, "got", await task)
        elif op == "shield":
            fut = self.pick(self.futures, args[0])
            if fut is not None:
                self.say(number, "got", repr(await asyncio.shield(fut))[:40])
        elif op == "gather":
            if self.may_start():
                got = await asyncio.gather(
                    *[self.child(number, n) for n in args[0]], return_exceptions=args[1])
                self.say(number, "got", [str(g) for g in got])
        elif op == "wait":
            futures = {id(f): f for f in (self.pick(self.futures, n) for n in args[0]) if f}
            if futures:
                done, pending = await asyncio.wait(
                    list(futures.values()), timeout=self.distinct(2),
                    return_when=asyncio.FIRST_COMPLETED if args[1] else asyncio.ALL_COMPLETED)
                self.say(number, "waited", len(done), len(pending))
        elif op == "timeout":
            fut = self.pick(self.futures, args[1])
            if fut is not None:
                try:
                    async with asyncio.timeout(self.distinct(args[0])):
                        await asyncio.shield(fut)
                except TimeoutError:
                    self.say(number, "timeout")
        elif op == "wait for":
            fut = self.pick(self.futures, args[1])
            if fut is not None:
                try:
                    await asyncio.wait_for(asyncio.shield(fut), self.distinct(args[0]))
                except TimeoutError:
                    self.say(number, "timeout")
        elif op == "group":
            if self.may_start():
                try:
                    async with asyncio.TaskGroup() as group:
                        for n in args[0]:
                            group.create_task(self.child(number, n))
                except* Failure as group_error:
                    self.say(number, "group", len(group_error.exceptions))
        elif op == "swallow":
            fut = self.pick(self.futures, args[0])
            if fut is not None:
                try:
                    await fut
                except asyncio.CancelledError as exc:
                    self.say(number, "swallowed", str(exc))
                except Failure:
                    self.say(number, "caught")
        elif op == "cancel me":
            self.say(asyncio.current_task().cancel(f"me{number}"))

    # Running

    def drive(self, quiet=0, length=0):
        """Always ready; moves the clock when nothing happened for QUIET turns."""
        if len(self.trace) != length:
            quiet = 0
        elif quiet >= QUIET:
            quiet = 0
            self.now += 1.0
            if self.now > 1000.0 + HORIZON:
                self.loop.stop()
                return
        self.loop.call_soon(self.drive, quiet + 1, len(self.trace))

    def run(self):
        loop = self.loop
        loop.time = lambda: self.now
        loop.set_exception_handler(self.on_exception)
        for instruction in (("future",), ("future",), ("callback", 0, 1), ("callback", 1, 2)):
            self.do(instruction)
        loop.call_soon(self.run_callback, "main", 0)
        self.start(0)
        self.drive()
        loop.run_forever()
        for _ in range(3):
            left = [t for t in asyncio.all_tasks(loop) if not t.done()]
            if not left:
                break
            left.sort(key=lambda t: self.tasks.index(t) if t in self.tasks else -1)
            self.say("left", len(left))
            for task in left:
                task._log_destroy_pending = False
                task.cancel("left")
            self.now -= 2.0
            self.drive()
            loop.run_forever()
        self.say([self.describe(t) for t in self.tasks],
                 [self.describe(f) for f in self.futures])
        # When and in which order forgotten exceptions are reported is up to the collector.
        loop.set_exception_handler(lambda loop, context: None)
        trace = self.trace
        del self.tasks, self.futures, self.callbacks, self.handles
        del loop.time
        return trace


def run(impl, program):
    """The trace of a program on an implementation."""
    scripts, eager = program
    loop = impl.new_loop()
    try:
        eager = eager and hasattr(asyncio, "eager_task_factory")
        return Machine(loop, scripts, impl.Task, impl.Future, eager).run()
    finally:
        loop.set_exception_handler(lambda loop, context: None)
        loop.close()
        gc.collect(0)
