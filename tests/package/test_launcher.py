"""python -m fastloop: like python itself, on fastloop, child processes included."""

import os
import signal
import subprocess
import sys
import zipfile

import pytest

import fastloop

WHICH = """
import asyncio
def which():
    loop = asyncio.new_event_loop()
    loop.close()
    return type(loop).__module__.partition(".")[0]
"""


@pytest.fixture
def launch(python):
    """launch(*arguments): python -m fastloop arguments"""

    def run(*arguments, flags=(), **kwargs):
        return python(*flags, "-m", "fastloop", *arguments, **kwargs)

    return run


class TestPrograms:
    def test_script(self, launch, script):
        path = script(WHICH + "import sys; print(which(), __name__, sys.argv[1:])")
        assert launch(path, "-m", "--debug", "x").stdout == "fastloop __main__ ['-m', '--debug', 'x']\n"

    def test_module(self, launch, script):
        script("", "pack/__init__.py")
        script(WHICH + "import sys; print(which(), __name__, __package__, sys.argv[1:])", "pack/prog.py")
        assert launch("-m", "pack.prog", "a", "-b").stdout == "fastloop __main__ pack ['a', '-b']\n"
        assert launch("-mpack.prog").stdout == "fastloop __main__ pack []\n"

    def test_package(self, launch, script):
        script("", "pack/__init__.py")
        script("print('package', __name__)", "pack/__main__.py")
        assert launch("-m", "pack").stdout == "package __main__\n"

    def test_code(self, launch):
        code = WHICH + "import sys; print(which(), __name__, sys.argv)"
        assert launch("-c", code, "a").stdout == "fastloop __main__ ['-c', 'a']\n"

    def test_standard_input(self, launch):
        code = WHICH + "import sys; print(which(), __name__, sys.argv)"
        assert launch("-", "a", input=code).stdout == "fastloop __main__ ['-', 'a']\n"

    def test_folder_and_zip(self, launch, script, tmp_path):
        path = script(WHICH + "import sys; print(which(), __name__, sys.argv[1:])", "app/__main__.py")
        assert launch("app", "a").stdout == "fastloop __main__ ['a']\n"
        with zipfile.ZipFile(tmp_path / "app.zip", "w") as archive:
            archive.write(path, "__main__.py")
        assert launch("app.zip", "a").stdout == "fastloop __main__ ['a']\n"

    def test_compiled(self, launch, script, tmp_path):
        import py_compile

        path = script("print(__name__)")
        py_compile.compile(str(path), cfile=str(tmp_path / "program.pyc"))
        assert launch("program.pyc").stdout == "__main__\n"


# Everything a program can see of how it was started.
LOOK = """
import sys, __main__
def name(value):
    return getattr(value, "name", value)
print(__name__, __file__ if "__file__" in globals() else None, __package__)
print(sys.argv)
print(sys.path)
print(__main__.__dict__ is globals())
print(name(__spec__), type(__loader__).__name__)
print(sorted(set(globals()) - {"__annotations__", "__cached__", "__conditional_annotations__"}))
print(sys.modules.get("__main__") is __main__)
"""


class TestLikePython:
    """The same program under python and under python -m fastloop."""

    @pytest.fixture
    def same(self, python):
        def run(*arguments, **kwargs):
            plain = python(*arguments, **kwargs).stdout
            assert python("-m", "fastloop", *arguments, **kwargs).stdout == plain
            return plain

        return run

    def test_script(self, same, script):
        script(LOOK)
        script("import program", "elsewhere/other.py")
        same("program.py", "x")
        same("./program.py")

    def test_script_in_another_folder(self, same, script, tmp_path):
        script("value = 42", "sub/neighbour.py")
        script("import neighbour; print(neighbour.value)" + LOOK, "sub/program.py")
        assert same("sub/program.py").startswith("42\n")
        os.symlink("sub/program.py", tmp_path / "link.py")
        assert same("link.py").startswith("42\n")

    def test_module(self, same, script):
        script("", "pack/__init__.py")
        script(LOOK, "pack/prog.py")
        script(LOOK, "pack/__main__.py")
        same("-m", "pack.prog", "x")
        same("-m", "pack", "x")

    def test_folder(self, same, script):
        script(LOOK, "app/__main__.py")
        same("app", "x")

    def test_safe_path(self, python, script):
        path = script("import sys; print(sys.path)")
        assert python("-P", "-m", "fastloop", path).stdout == python("-P", path).stdout

    @pytest.mark.parametrize("status", [0, 1, 3, 255])
    def test_exit_status(self, launch, script, status):
        launch(script(f"raise SystemExit({status})"), status=status)
        launch("-c", f"raise SystemExit({status})", status=status)

    def test_exit_message(self, launch, script):
        launch(script("import sys; sys.exit('no good')"), status=1, stderr="no good\n")

    def test_traceback(self, python, script):
        path = script("def f():\n    raise KeyError('k')\nf()")
        plain = python(path, status=1, stderr=None).stderr
        assert python("-m", "fastloop", path, status=1, stderr=None).stderr == plain

    def test_syntax_error(self, python, script):
        path = script("x = (1,\n")
        plain = python(path, status=1, stderr=None).stderr
        assert python("-m", "fastloop", path, status=1, stderr=None).stderr == plain

    def test_excepthook(self, launch, script):
        path = script("import sys; sys.excepthook = lambda *a: print(a[0].__name__); 1/0")
        assert launch(path, status=1).stdout == "ZeroDivisionError\n"

    def test_missing_script(self, python):
        plain = python("nothing.py", status=2, stderr=None).stderr
        assert python("-m", "fastloop", "nothing.py", status=2, stderr=None).stderr == plain

    def test_missing_module(self, python):
        plain = python("-m", "no_such_module_here", status=1, stderr=None).stderr
        assert python("-m", "fastloop", "-m", "no_such_module_here", status=1, stderr=None).stderr == plain

    def test_folder_without_main(self, python, script):
        script("", "app/nothing.py")
        plain = python("app", status=1, stderr=None).stderr
        assert python("-m", "fastloop", "app", status=1, stderr=None).stderr == plain

    def test_ctrl_c(self, launch, script):
        path = script(
            """
            import asyncio, os, signal
            async def main():
                asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
                await asyncio.sleep(3600)
            asyncio.run(main())
            """
        )
        done = launch(path, status=-signal.SIGINT, stderr=None)
        assert done.stderr.rstrip().endswith("KeyboardInterrupt")

    def test_atexit_and_threads(self, launch, script):
        path = script(
            """
            import atexit, threading, time
            value = "module globals are still there"
            def late():
                time.sleep(0.05)
                import __main__
                print(__main__.value)
            atexit.register(lambda: print("at exit:", value))
            threading.Thread(target=late).start()
            """
        )
        expected = "module globals are still there\nat exit: module globals are still there\n"
        assert launch(path).stdout == expected

    def test_pickle_of_main(self, launch, script):
        path = script(
            """
            import pickle
            class Thing:
                pass
            print(type(pickle.loads(pickle.dumps(Thing()))) is Thing)
            """
        )
        assert launch(path).stdout == "True\n"


class TestChildren:
    def test_subprocess(self, launch, script):
        child = script(WHICH + "print(which())", "child.py")
        path = script(
            f"""
            import subprocess, sys
            subprocess.run([sys.executable, {str(child)!r}], check=True)
            """
        )
        assert launch(path).stdout == "fastloop\n"

    def test_subprocess_that_cannot_import_fastloop_by_itself(self, launch, script):
        script(WHICH + "print(which())", "child.py")
        path = script(
            """
            import os, subprocess, sys
            folders = [p for p in os.environ["PYTHONPATH"].split(os.pathsep) if p.endswith("_launcher")]
            env = os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
            subprocess.run([sys.executable, "child.py"], check=True, env=env)
            """
        )
        assert launch(path).stdout == "fastloop\n"

    def test_grandchild(self, launch):
        grandchild = WHICH + "print(which())"
        child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}], check=True)"
        code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
        assert launch("-c", code).stdout == "fastloop\n"

    @pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
    def test_multiprocessing(self, launch, script, method):
        path = script(
            WHICH
            + f"""
import multiprocessing
def work(queue):
    queue.put(which())
if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    queue = context.SimpleQueue()
    process = context.Process(target=work, args=(queue,))
    process.start()
    print(queue.get())
    process.join()
    print(process.exitcode)
"""
        )
        assert launch(path).stdout.split() == ["fastloop", "0"]

    def test_multiprocessing_of_a_module(self, launch, script):
        script("", "pack/__init__.py")
        script(
            WHICH
            + """
import multiprocessing
def work(x):
    return which(), x
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(*pool.map(work, [7]))
""",
            "pack/prog.py",
        )
        assert launch("-m", "pack.prog").stdout == "('fastloop', 7)\n"

    def test_child_does_not_import_asyncio_for_it(self, launch):
        child = "import sys; print('asyncio' in sys.modules, 'fastloop' in sys.modules)"
        code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
        assert launch("-c", code).stdout == "False False\n"

    def test_childs_path_and_asyncio_look_untouched(self, launch):
        child = (
            "import asyncio, sys; print([p for p in sys.path if '_launcher' in p], type(asyncio.__loader__).__name__,"
            " asyncio.__spec__.loader is asyncio.__loader__, [f for f in sys.meta_path if 'After' in repr(f)])"
        )
        code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
        assert launch("-c", code).stdout == "[] SourceFileLoader True []\n"

    def test_other_sitecustomize_still_runs(self, launch, script, tmp_path):
        script("print('mine'); value = 5", "site/sitecustomize.py")
        env_path = os.pathsep.join(filter(None, [str(tmp_path / "site"), _pythonpath()]))
        child = WHICH + "import sitecustomize; print(which(), sitecustomize.value)"
        code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
        assert launch("-c", code, env={"PYTHONPATH": env_path}).stdout.split() == ["mine", "mine", "fastloop", "5"]

    def test_inert_without_the_variable(self, launch):
        child = WHICH + "print(which())"
        code = (
            "import os, subprocess, sys; del os.environ['FASTLOOP_LAUNCHER'];"
            f"subprocess.run([sys.executable, '-c', {child!r}], check=True)"
        )
        assert launch("-c", code).stdout == "asyncio\n"

    def test_isolated_child_is_left_alone(self, launch):
        child = WHICH + "print(which())"
        code = f"import subprocess, sys; subprocess.run([sys.executable, '-I', '-c', {child!r}], check=True)"
        assert launch("-c", code).stdout == "asyncio\n"

    def test_environment_holds_the_hook_once(self, launch):
        code = "import os; print(os.environ['PYTHONPATH'].count('_launcher'), '' in os.environ['PYTHONPATH'].split(':'))"
        folder = os.path.join(os.path.dirname(fastloop.__file__), "_launcher")
        env_path = os.pathsep.join(filter(None, [folder, _pythonpath(), folder]))
        assert launch("-c", code, env={"PYTHONPATH": env_path}).stdout == "1 False\n"

    def test_other_pythons_do_not_mind(self, tmp_path):
        others = [p for p in ("/usr/bin/python3", "/usr/bin/python2") if os.path.exists(p)]
        if not others:
            pytest.skip("there is no other Python here")
        folder = os.path.join(os.path.dirname(os.path.abspath(fastloop.__file__)), "_launcher")
        env = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
        env |= {"PYTHONPATH": folder, "FASTLOOP_LAUNCHER": "1"}
        for other in others:
            done = subprocess.run(
                [other, "-c", "import asyncio; print('fine')"], capture_output=True, text=True, env=env, timeout=60
            )
            assert (done.stdout, done.stderr) == ("fine\n", "")


def _pythonpath():
    package = os.path.dirname(os.path.abspath(fastloop.__file__))
    return None if package.startswith(sys.prefix + os.sep) else os.path.dirname(package)


class TestOptions:
    def test_no_program(self, launch):
        out = launch().stdout
        assert fastloop.__version__ in out
        assert "asyncio.new_event_loop() makes fastloop." in out
        assert "epoll" in out
        assert sys.executable in out
        expected = "fastloop's own" if fastloop.Task is not __import__("asyncio").Task else "asyncio's own"
        assert expected in out

    def test_version(self, launch):
        assert launch("--version").stdout == f"fastloop {fastloop.__version__}\n"

    @pytest.mark.parametrize("option", ["--help", "-h"])
    def test_help(self, launch, option):
        assert launch(option).stdout.startswith("usage: python -m fastloop")

    def test_debug(self, launch):
        code = (
            "import asyncio, subprocess, sys\n"
            "async def main(): print(asyncio.get_running_loop().get_debug(), flush=True)\n"
            "asyncio.run(main())\n"
        )
        both = code + f"subprocess.run([sys.executable, '-c', {code!r}], check=True)"
        assert launch("-c", both).stdout.split() == ["False", "False"]
        assert launch("--debug", "-c", both).stdout.split() == ["True", "True"]

    @pytest.mark.parametrize("arguments", [["--nonsense"], ["-x"], ["-m"], ["-c"]])
    def test_wrong_use(self, launch, arguments):
        done = launch(*arguments, status=2, stderr=None)
        assert "python -m fastloop" in done.stderr
        assert done.stdout == ""
