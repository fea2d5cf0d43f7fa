"""Objects that fight back.  Each attack runs in its own interpreter: it may raise or pass,
but must not crash.  The stock types crash on several of these in some Python versions, so
the attacks run on fastloop's only."""

import pytest

from support import FASTLOOP, PY, check_child

HELPERS = """
import types, weakref, logging
logging.disable(logging.CRITICAL)
warnings.simplefilter("ignore")
sys.unraisablehook = lambda info: None
Future, Task = impl.Future, impl.Task

class BaseLoop(asyncio.AbstractEventLoop):
    "A loop in Python that records and can be told to misbehave."
    def __init__(self):
        self.calls = []
    def get_debug(self):
        return False
    def is_running(self):
        return True
    def call_soon(self, callback, *args, context=None):
        self.calls.append((callback, args, context))
    def call_exception_handler(self, context):
        pass
    def time(self):
        return 0.0

def run_calls(loop):
    while loop.calls:
        callback, args, context = loop.calls.pop(0)
        try:
            context.run(callback, *args)
        except BaseException as exc:
            pass

async def forever(fut=None):
    while True:
        await asyncio.sleep(0)

def attempt(function, *args, **kwargs):
    try:
        return function(*args, **kwargs)
    except Exception as exc:
        return exc
"""

ATTACKS = {
    "equality that clears the callbacks (gh-125966, gh-97592)": """
        loop = BaseLoop()
        for count in range(1, 6):
            class Evil:
                def __eq__(self, other):
                    attempt(fut.__init__, loop=loop)
                    attempt(fut.cancel)
                    gc.collect()
                    return False
                def __call__(self, fut): pass
            fut = Future(loop=loop)
            for _ in range(count):
                fut.add_done_callback(Evil())
            attempt(fut.remove_done_callback, Evil())
            attempt(fut.remove_done_callback, print)
    """,
    "equality that removes callbacks (gh-126405)": """
        loop = BaseLoop()
        for count in range(1, 8):
            class Evil:
                armed = True
                def __eq__(self, other):
                    if Evil.armed:
                        Evil.armed = False
                        fut.remove_done_callback(keep)
                        gc.collect()
                    return True
                def __call__(self, fut): pass
            keep = Evil()
            fut = Future(loop=loop)
            fut.add_done_callback(keep)
            for _ in range(count):
                fut.add_done_callback(Evil())
            attempt(fut.remove_done_callback, Evil())
            fut.set_result(None)
    """,
    "equality that adds callbacks": """
        loop = BaseLoop()
        class Evil:
            def __eq__(self, other):
                if len(fut._callbacks or ()) < 2000:
                    for _ in range(100):
                        fut.add_done_callback(lambda f: None)
                return False
            def __call__(self, fut): pass
        fut = Future(loop=loop)
        for _ in range(5):
            fut.add_done_callback(Evil())
        attempt(fut.remove_done_callback, Evil())
    """,
    "equality that raises": """
        loop = BaseLoop()
        class Evil:
            def __eq__(self, other):
                raise LookupError
            def __call__(self, fut): pass
        fut = Future(loop=loop)
        for _ in range(4):
            fut.add_done_callback(Evil())
            assert isinstance(attempt(fut.remove_done_callback, Evil()), LookupError)
    """,
    "call_soon that shrinks the callbacks (gh-125969)": """
        class EvilLoop(BaseLoop):
            def call_soon(self, callback, *args, context=None):
                for cb in targets:
                    fut.remove_done_callback(cb)
                gc.collect()
        for ending in (lambda: fut.set_result(1), lambda: fut.cancel(),
                       lambda: fut.set_exception(ValueError())):
            loop = EvilLoop()
            targets = [(lambda f, n=n: n) for n in range(10)]
            fut = Future(loop=loop)
            for cb in targets:
                fut.add_done_callback(cb)
            attempt(ending)
    """,
    "call_soon that starts the future anew": """
        class EvilLoop(BaseLoop):
            busy = False
            def call_soon(self, callback, *args, context=None):
                if self.busy:
                    return
                self.busy = True
                attempt(fut.__init__, loop=self)
                for _ in range(50):
                    attempt(fut.add_done_callback, print)
                gc.collect()
                self.busy = False
        loop = EvilLoop()
        for count in (1, 2, 3, 10):
            fut = Future(loop=loop)
            for _ in range(count):
                fut.add_done_callback(lambda f: None)
            attempt(fut.set_result, 1)
    """,
    "call_soon that drops everything": """
        class EvilLoop(BaseLoop):
            def call_soon(self, callback, *args, context=None):
                global fut
                fut = None
                gc.collect()
        loop = EvilLoop()
        for count in (1, 2, 10):
            fut = Future(loop=loop)
            for _ in range(count):
                fut.add_done_callback(lambda f: None)
            cancel = fut.cancel
            attempt(cancel)
            del cancel
    """,
    "loop __getattribute__ that clears the future (gh-125984)": """
        class EvilLoop(BaseLoop):
            armed = False
            def __getattribute__(self, name):
                if name == "call_soon" and EvilLoop.armed:
                    for cb in list(targets):
                        fut.remove_done_callback(cb)
                    attempt(fut.__init__, loop=self)
                    gc.collect()
                return object.__getattribute__(self, name)
        for count in (1, 2, 5):
            for ending in (lambda: fut.set_result(1), lambda: fut.cancel()):
                EvilLoop.armed = False
                loop = EvilLoop()
                targets = [(lambda f, n=n: n) for n in range(count)]
                fut = Future(loop=loop)
                for cb in targets:
                    fut.add_done_callback(cb)
                EvilLoop.armed = True
                attempt(ending)
                run_calls(loop)
    """,
    "loop __getattribute__ that starts the task anew (gh-126080)": """
        class EvilLoop(BaseLoop):
            armed = 0
            def __getattribute__(self, name):
                if name == "call_soon" and EvilLoop.armed:
                    EvilLoop.armed -= 1
                    coro = forever()
                    attempt(task.__init__, coro, loop=self)
                    coro.close()
                    gc.collect()
                return object.__getattribute__(self, name)
        loop = EvilLoop()
        for _ in range(3):
            task = Task.__new__(Task)
            EvilLoop.armed = 1
            attempt(task.__init__, forever(), loop=loop)
            run_count = 0
            while loop.calls and run_count < 5:
                run_count += 1
                EvilLoop.armed = 1
                callback, args, context = loop.calls.pop(0)
                attempt(context.run, callback, *args)
            loop.calls.clear()
            task._log_destroy_pending = False
    """,
    "call_soon that raises while a task is made": """
        class EvilLoop(BaseLoop):
            def call_soon(self, *args, **kwargs):
                raise LookupError
        loop = EvilLoop()
        for _ in range(10):
            coro = forever()
            attempt(Task, coro, loop=loop)
            coro.close()
        gc.collect()
    """,
    "exception handler that keeps and registers a dying task (gh-142556)": """
        kept = []
        class EvilLoop(BaseLoop):
            def call_exception_handler(self, context):
                task = context.get("task") or context.get("future")
                kept.append(task)
                asyncio._register_task(task)
                attempt(asyncio.all_tasks, self)
        for _ in range(20):
            loop = EvilLoop()
            task = Task(forever(), loop=loop)
            del task
            loop.calls.clear()
            gc.collect()
        for task in kept:
            attempt(repr, task)
            attempt(task.cancel)
            attempt(asyncio._unregister_task, task)
        kept.clear()
        gc.collect()
    """,
    "exception handler that registers without keeping": """
        class EvilLoop(BaseLoop):
            def call_exception_handler(self, context):
                task = context.get("task") or context.get("future")
                asyncio._register_task(task)
                gc.collect()
        for _ in range(20):
            loop = EvilLoop()
            task = Task(forever(), loop=loop)
            loop.calls.clear()
            del task
            gc.collect()
            attempt(asyncio.all_tasks, loop)
    """,
    "__del__ that resurrects": """
        kept = []
        class F(Future):
            def __del__(self):
                kept.append(self)
        class T(Task):
            def __del__(self):
                kept.append(self)
        loop = BaseLoop()
        for _ in range(50):
            F(loop=loop).add_done_callback(print)
            T(forever(), loop=loop)
            loop.calls.clear()
            gc.collect()
        for thing in kept:
            attempt(thing.cancel)
            attempt(repr, thing)
            attempt(thing.add_done_callback, print)
        run_calls(loop)
        kept.clear()
        gc.collect()
    """,
    "weak reference callback that uses a dying future": """
        loop = impl.new_loop()
        def on_death(ref):
            loop.call_soon(print)
            gc.collect()
        for _ in range(50):
            fut = loop.create_future()
            ref = weakref.ref(fut, on_death)
            fut.add_done_callback(lambda f: None)
            del fut
        spin(loop, 0)
        loop.close()
    """,
    "context whose run fails": """
        loop = impl.new_loop()
        ctx = contextvars.copy_context()
        def inside():
            for _ in range(3):
                coro = forever()
                task = attempt(Task, coro, loop=loop, context=ctx)
                spin(loop, 2)
                if isinstance(task, Task):
                    task._log_destroy_pending = False
                coro.close()
        attempt(ctx.run, inside)
        loop.close()
    """,
    "coroutine that cancels, stops and closes while it is stepped": """
        loop = impl.new_loop()
        class Coro:
            def __init__(self): self.n = 0
            def send(self, value):
                self.n += 1
                task.cancel()
                attempt(loop.close)
                loop.stop()
                attempt(task.__init__, Coro(), loop=loop)
                gc.collect()
                if self.n > 3:
                    raise StopIteration(1)
            def throw(self, *args):
                attempt(task.__init__, Coro(), loop=loop)
                gc.collect()
                raise asyncio.CancelledError
            def close(self): pass
            def __await__(self): return self
        import collections.abc
        collections.abc.Coroutine.register(Coro)
        for _ in range(5):
            task = attempt(Task, Coro(), loop=loop)
            attempt(spin, loop, 5)
        attempt(loop.close)
    """,
    "future that drops itself while awaited": """
        loop = impl.new_loop()
        class Evil(Future):
            def add_done_callback(self, callback, *, context=None):
                global fut
                fut = None
                gc.collect()
                loop.call_soon(callback, self, context=context)
            def result(self):
                gc.collect()
                return Evil(loop=loop)
        async def main():
            global fut
            fut = Evil(loop=loop)
            await fut
        task = loop.create_task(main())
        spin(loop, 200)
        task._log_destroy_pending = False
        loop.close()
    """,
    "blocking flag property that runs code": """
        loop = impl.new_loop()
        class Evil:
            _loop = loop
            count = 0
            @property
            def _asyncio_future_blocking(self):
                Evil.count += 1
                attempt(task.cancel)
                attempt(task.__init__, forever(), loop=loop)
                gc.collect()
                return True
            @_asyncio_future_blocking.setter
            def _asyncio_future_blocking(self, value):
                attempt(task.__init__, forever(), loop=loop)
                gc.collect()
            def get_loop(self):
                gc.collect()
                return loop
            def add_done_callback(self, cb, *, context=None):
                attempt(task.__init__, forever(), loop=loop)
                loop.call_soon(cb, self, context=context)
            def cancel(self, msg=None):
                gc.collect()
                return True
            def result(self):
                raise LookupError
            def __await__(self):
                yield self
        async def main():
            for _ in range(5):
                try:
                    await Evil()
                except Exception:
                    pass
        for _ in range(5):
            task = Task(main(), loop=loop)
            attempt(spin, loop, 20)
            task._log_destroy_pending = False
        loop.close()
    """,
    "message and result whose destruction uses the future": """
        loop = impl.new_loop()
        class Evil:
            def __init__(self, fut): self.fut = fut
            def __del__(self):
                fut = self.fut
                attempt(fut.__init__, loop=loop)
                attempt(fut.cancel, Evil2())
                attempt(fut.add_done_callback, print)
                gc.collect()
        class Evil2: pass
        for _ in range(20):
            fut = loop.create_future()
            fut.set_result(Evil(fut))
            attempt(fut.__init__, loop=loop)
            fut = loop.create_future()
            fut.cancel(Evil(fut))
            fut._cancel_message = None
            fut = loop.create_future()
            fut.add_done_callback(lambda f, e=Evil(fut): None)
            attempt(fut.__init__, loop=loop)
            fut = loop.create_future()
            fut.remove_done_callback(print)
        loop.close()
    """,
    "handle whose callback and arguments die while it runs": """
        loop = impl.new_loop()
        class Arg:
            def __del__(self):
                attempt(handle.cancel)
                attempt(loop.call_soon, print)
                attempt(loop.stop)
                gc.collect()
        def callback(*args):
            handle.cancel()
            del args
            gc.collect()
            loop.stop()
        for make in (lambda *a: loop.call_soon(*a), lambda *a: loop.call_later(0, *a),
                     lambda *a: loop.call_soon_threadsafe(*a)):
            for count in range(6):
                handle = make(callback, *[Arg() for _ in range(count)])
                loop.run_forever()
                handle = make(callback, *[Arg() for _ in range(count)])
                handle.cancel()
                spin(loop, 2)
        loop.close()
    """,
    "timer comparison and deadline that run code": """
        loop = impl.new_loop()
        class When(float):
            def __lt__(self, other):
                gc.collect()
                for h in list(handles): h.cancel()
                return False
            __gt__ = __le__ = __ge__ = __lt__
            def __eq__(self, other): return False
            def __hash__(self): return 0
            def __float__(self):
                for h in list(handles): h.cancel()
                return 0.0
        handles = []
        for n in range(200):
            h = attempt(loop.call_at, When(n), print)
            if not isinstance(h, Exception):
                handles.append(h)
        attempt(sorted, handles)
        attempt(lambda: handles[0] == handles[1])
        spin(loop, 5)
        loop.close()
    """,
    "callback equality inside timer comparison": """
        loop = impl.new_loop()
        class Evil:
            def __eq__(self, other):
                for h in handles: h.cancel()
                gc.collect()
                return True
            def __call__(self): pass
        handles = [loop.call_at(5e9, Evil(), Evil(), [Evil()]) for _ in range(10)]
        for a in handles:
            for b in handles:
                attempt(lambda: a == b)
        loop.close()
    """,
    "close while iterating over the ready callbacks": """
        class L(impl.Loop):
            def is_running(self):
                return False
        loop = L()
        for _ in range(300):
            loop.call_soon(lambda: attempt(loop.close))
            loop.call_later(0, lambda: attempt(loop.close))
        attempt(spin, loop, 3)
        attempt(loop.close)
    """,
    "finalizers at exit": """
        class T(Task):
            def __del__(self):
                attempt(self.cancel)
                attempt(loop.call_soon, print)
        loop = impl.new_loop()
        keep = [T(forever(), loop=loop) for _ in range(10)]
        keep += [loop.create_future() for _ in range(10)]
        spin(loop, 3)
        loop.me = loop
        keep[0].loop = loop
    """,
    "very long callbacks lists released at once": """
        loop = impl.new_loop()
        fut = loop.create_future()
        for n in range(200_000):
            fut.add_done_callback(lambda f, n=n: n)
        del fut
        loop.close()
    """,
    "deep chain of futures released at once": """
        loop = impl.new_loop()
        first = fut = loop.create_future()
        for _ in range(200_000):
            following = loop.create_future()
            fut.add_done_callback(following.set_result)
            fut = following
        del fut, following
        gc.collect()
        del first
        gc.collect()
        loop.close()
    """,
    "deep chain of results released at once": """
        loop = impl.new_loop()
        fut = loop.create_future()
        fut.set_result(None)
        for _ in range(200_000):
            following = loop.create_future()
            following.set_result(fut)
            fut = following
        del following
        del fut
        loop.close()
    """,
    "deep chain of waiting tasks released at once": """
        loop = impl.new_loop()
        async def link(previous):
            await previous
        last = first = loop.create_future()
        for _ in range(20_000):
            last = loop.create_task(link(last))
            last._log_destroy_pending = False
        spin(loop, 3)
        del last, first
        gc.collect()
        loop.close()
    """,
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attack(name):
    import textwrap
    check_child(FASTLOOP, HELPERS + textwrap.dedent(ATTACKS[name]), limit=20,
                env={"PYTHONMALLOC": "debug"})


FUZZ = HELPERS + """
import inspect, itertools
import fastloop._core as core

loop = impl.new_loop()
done = loop.create_future()
done.set_result(1)
class Strange:
    def __getattr__(self, name):
        raise LookupError(name)
THINGS = [None, True, 0, -1, 2 ** 80, 1.5, float("nan"), "", "text", b"x", (), [], {}, print,
          lambda *a, **k: None, object(), int, loop, done, Strange(), ValueError("v"), ValueError,
          contextvars.copy_context(), iter(()), asyncio.SelectorEventLoop, BaseLoop()]
SKIP = {"__class__", "__reduce_ex__", "__subclasshook__", "__init_subclass__", "run_forever",
        "run_until_complete", "_run", "__getstate__", "__dir__", "_run_once", "_run_forever"}

def blank(cls):
    try:
        return cls.__new__(cls)
    except Exception:
        return None

def attack(make, name):
    print(name, file=sys.stderr, flush=True)
    thing = make()
    try:
        member = getattr(thing, name)
    except Exception:
        member = None
    for value in THINGS:
        attempt(setattr, make(), name, value)
    attempt(delattr, make(), name)
    if callable(member) and name not in SKIP:
        for args in itertools.chain([()], ((t,) for t in THINGS), PAIRS):
            thing = make()
            result = attempt(lambda: getattr(thing, name)(*args))
            if inspect.iscoroutine(result):
                result.close()
        for keyword in ("loop", "context", "msg", "limit", "name", "file"):
            thing = make()
            attempt(lambda: getattr(thing, name)(**{keyword: 3}))
    for operation in (repr, str, hash, bool, iter, len, list, lambda x: x == make(),
                      lambda x: x < make(), asyncio.isfuture):
        attempt(operation, make())

PAIRS = [(a, b) for a in THINGS[::5] for b in THINGS[::6]]
"""

UNINITIALISED = FUZZ + """
class SubFuture(Future): pass
class SubTask(Task): pass
kinds = {"Future": Future, "Task": Task, "SubFuture": SubFuture, "SubTask": SubTask}
kind = KIND
if kind == "others":
    classes = [c for c in vars(core).values() if isinstance(c, type)
               and not issubclass(c, (Future, Task, asyncio.AbstractEventLoop))
               and not issubclass(c, BaseException)]
elif kind == "Loop":
    classes = [c for c in (core.__dict__.get("Loop"), impl.Loop) if c]
else:
    classes = [kinds[kind]]
calls = 0
for cls in classes:
    if blank(cls) is None:
        continue
    for name in dir(cls):
        if kind == "Loop" and name in SKIP:
            continue
        attack(lambda: blank(cls), name)
        calls += 1
    one = blank(cls)
    gc.collect()
    del one
    gc.collect()
print(calls)
os._exit(0) if kind == "Loop" else None
"""


@pytest.mark.hang(90)
@pytest.mark.parametrize("kind", ["Future", "Task", "SubFuture", "SubTask", "Loop", "others"])
def test_uninitialised(kind):
    """Every method and attribute of an instance made by __new__ alone."""
    check_child(FASTLOOP, UNINITIALISED.replace("KIND", repr(kind)), limit=60,
                env={"PYTHONMALLOC": "debug"})


LIVING = FUZZ + """
def task():
    t = Task(forever(), loop=loop)
    t._log_destroy_pending = False
    return t
def started():
    t = task()
    spin(loop, 2)
    return t
makers = {
    "future": lambda: loop.create_future(),
    "done future": lambda: (lambda f: (f.set_result(1), f)[1])(loop.create_future()),
    "task": task,
    "handle": lambda: loop.call_soon(int),
    "timer": lambda: loop.call_later(100, int),
    "threadsafe": lambda: loop.call_soon_threadsafe(int),
}
make = makers[KIND]
for name in dir(make()):
    attack(make, name)
    attempt(spin, loop, 1)
gc.collect()
attempt(spin, loop, 3)
tasks = attempt(asyncio.all_tasks, loop)
for t in tasks if isinstance(tasks, set) else ():
    attempt(setattr, t, "_log_destroy_pending", False)
    attempt(t.cancel)
attempt(spin, loop, 3)
os._exit(0)
"""


@pytest.mark.hang(90)
@pytest.mark.parametrize("kind", ["future", "done future", "task", "handle", "timer", "threadsafe"])
def test_strange_arguments(kind):
    """Every method and attribute of living objects with strange arguments."""
    check_child(FASTLOOP, LIVING.replace("KIND", repr(kind)), limit=60,
                env={"PYTHONMALLOC": "debug"})


def test_collector_at_every_allocation():
    """An ordinary program with the collector running all the time."""
    check_child(FASTLOOP, HELPERS + """
        import logging
        gc.set_threshold(1)
        async def child(n):
            await asyncio.sleep(0)
            if n % 5 == 0:
                raise LookupError(n)
            return n
        async def main():
            loop = asyncio.get_running_loop()
            await asyncio.gather(*[child(n) for n in range(30)], return_exceptions=True)
            async with asyncio.timeout(10):
                await asyncio.sleep(0.001)
            fut = loop.create_future()
            loop.call_later(0, fut.set_result, 1)
            await fut
            task = loop.create_task(asyncio.sleep(10))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            await loop.run_in_executor(None, int)
        impl.run(main())
    """, env={"PYTHONMALLOC": "debug"})


@pytest.mark.skipif(PY < (3, 12), reason="_testcapi.set_nomemory is used from here on")
def test_import_in_a_thread_and_twice():
    """The module can be imported in a thread first, and again after removal."""
    check_child(FASTLOOP, """
        import importlib
        def work():
            loop = impl.new_loop()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        names = [n for n in sys.modules if n.startswith("fastloop")]
        old = {n: sys.modules.pop(n) for n in names}
        try:
            import fastloop
            fastloop.run(asyncio.sleep(0))
        except ImportError:
            pass
    """)


def test_subinterpreter_is_refused_or_works():
    check_child(FASTLOOP, """
        try:
            import _interpreters
        except ImportError:
            try:
                import _xxsubinterpreters as _interpreters
            except ImportError:
                sys.exit(0)
        interp = _interpreters.create()
        code = "import sys; sys.path[:] = %r\\nimport fastloop, asyncio\\nfastloop.run(asyncio.sleep(0))" % sys.path
        try:
            _interpreters.run_string(interp, code)
        except Exception as exc:
            print(type(exc).__name__)
        _interpreters.destroy(interp)
    """)
