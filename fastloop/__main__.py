"""``python -m fastloop program``: run any Python program on fastloop."""

from __future__ import annotations

import builtins
import os
import sys
from types import CodeType, ModuleType, TracebackType
from typing import NoReturn

USAGE = """\
usage: python -m fastloop [--debug] script.py [argument ...]
       python -m fastloop [--debug] -m module [argument ...]
       python -m fastloop [--debug] -c code [argument ...]
       python -m fastloop [--debug] - [argument ...]

Runs a program the way python itself would, with every event loop that asyncio creates a fastloop loop, in this
process and in the Python processes it starts. Without a program it says what it found here.

  --debug    turn on asyncio's debug mode
  --version  print fastloop's version
  --help     print this help

Options of python go before -m: python -X dev -m fastloop script.py
"""


def fail(message: str, status: int) -> NoReturn:
    print(message, file=sys.stderr)
    raise SystemExit(status)


def main(argv: list[str]) -> None:
    args = argv[1:]
    debug = False
    while args and args[0].startswith("--"):
        option = args.pop(0)
        if option == "--debug":
            debug = True
        elif option == "--version":
            from fastloop import __version__

            print(f"fastloop {__version__}")
            return
        elif option == "--help":
            print(USAGE, end="")
            return
        else:
            fail(f"python -m fastloop: unknown option {option}\n{USAGE}", 2)
    if args and args[0] == "-h":
        print(USAGE, end="")
        return

    if debug:
        os.environ["PYTHONASYNCIODEBUG"] = "1"

    import fastloop

    fastloop.install()
    if not args:
        describe()
        return
    reach_children(os.path.join(os.path.dirname(os.path.abspath(__file__)), "_launcher"))

    option, *rest = args
    for flag, what in (("-m", "module"), ("-c", "code")):
        if option.startswith(flag):
            if option == flag:
                if not rest:
                    fail(f"python -m fastloop: {flag} needs a {what}\n{USAGE}", 2)
                value, *rest = rest
            else:
                value = option[2:]
            run(run_module if flag == "-m" else run_code, value, rest)
            return
    if option.startswith("-") and option != "-":
        fail(f"python -m fastloop: unknown option {option}\n{USAGE}", 2)
    run(run_stdin if option == "-" else run_script, option, rest)


def reach_children(folder: str) -> None:
    """Let the Python processes that the program starts use fastloop as well; see _launcher/sitecustomize.py."""
    path = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p != folder]
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, *path])
    os.environ["FASTLOOP_LAUNCHER"] = "1"


def fresh_main() -> ModuleType:
    """A new ``__main__``, as empty as python's own is when a program starts."""
    sys.modules["fastloop.__main__"] = sys.modules["__main__"]
    module = ModuleType("__main__")
    module.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = module
    return module


def replace_path0(folder: str) -> None:
    # `python -m fastloop` put the current folder there, unless it was told not to (-P, -I)
    if not sys.flags.safe_path:
        sys.path[:1] = [folder]


def run(how, value: str, rest: list[str]) -> None:  # type: ignore[no-untyped-def]
    sys.argv[1:] = rest
    try:
        how(value)
        return
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as exc:
        # Show the traceback that python would have shown, which begins in the program.
        traceback: TracebackType | None = exc.__traceback__
        while traceback is not None and traceback.tb_frame.f_code.co_filename == __file__:
            traceback = traceback.tb_next
        sys.excepthook(type(exc), exc.with_traceback(traceback), traceback)
    raise SystemExit(1)


def run_code(code: str) -> None:
    sys.argv[0] = "-c"
    replace_path0("")
    if sys.version_info >= (3, 14):
        import textwrap

        code = textwrap.dedent(code)
    module = fresh_main()
    exec(compile(code, "<string>", "exec", dont_inherit=True), module.__dict__)


def run_stdin(name: str) -> None:
    sys.argv[0] = "-"
    replace_path0("")
    module = fresh_main()
    exec(compile(sys.stdin.buffer.read(), "<stdin>", "exec", dont_inherit=True), module.__dict__)


def run_module(name: str) -> None:
    import runpy

    sys.argv[0] = "-m"  # runpy puts the module's file here
    fresh_main()
    runpy._run_module_as_main(name)  # type: ignore[attr-defined]


def run_script(script: str) -> None:
    import pkgutil

    sys.argv[0] = script
    path = os.path.join(os.getcwd(), script)  # absolute and otherwise as given, as python has it
    if pkgutil.get_importer(path) is not None:  # a folder or a zip file with a __main__ in it
        import runpy

        if sys.flags.safe_path:
            sys.path.insert(0, path)
        else:
            replace_path0(path)
        fresh_main()
        runpy._run_module_as_main("__main__", False)  # type: ignore[attr-defined]
        return

    try:
        code = read_code(path)
    except OSError as exc:
        fail(f"{sys.executable}: can't open file {path!r}: [Errno {exc.errno}] {exc.strerror}", 2)
    replace_path0(os.path.dirname(os.path.realpath(path)))

    from importlib.machinery import SourceFileLoader, SourcelessFileLoader

    module = fresh_main()
    module.__file__ = path
    loader = SourcelessFileLoader if path.endswith(".pyc") else SourceFileLoader
    module.__loader__ = loader("__main__", path)
    if sys.version_info < (3, 15):
        module.__dict__["__cached__"] = None
    exec(code, module.__dict__)


def read_code(path: str) -> CodeType:
    import io
    import pkgutil

    with io.open_code(path) as f:
        code: CodeType | None = pkgutil.read_code(f)
    if code is None:
        with io.open_code(path) as f:
            code = compile(f.read(), path, "exec", dont_inherit=True)
    return code


def describe() -> None:
    """What ``python -m fastloop`` found here, and what it would do with a program."""
    import asyncio
    import platform

    import fastloop
    from fastloop import _core

    loop = asyncio.new_event_loop()
    loop_class = f"{type(loop).__module__}.{type(loop).__qualname__}"
    debug = loop.get_debug()
    loop.close()
    native = fastloop.Task is not asyncio.Task
    kind = getattr(_core, "build", None)
    rows = {
        "fastloop": fastloop.__version__ + (f", {kind} build" if kind else ""),
        "from": os.path.dirname(fastloop.__file__),
        "Python": f"{platform.python_implementation()} {platform.python_version()}, {sys.executable}",
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "poller": "epoll",
        "Task, Future": "fastloop's own" if native else "asyncio's own: this Python lays its objects out differently",
        "debug mode": "on" if debug else "off",
        "new loops": f"asyncio.new_event_loop() makes {loop_class}",
    }
    for name, value in rows.items():
        print(f"{name + ':':<14}{value}")
    print("\nRun a program on it: python -m fastloop script.py, or -m module, or -c code (--help says more)")


if __name__ == "__main__":
    main(sys.argv)
