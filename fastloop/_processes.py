"""Child processes: a spawn that copies no memory, and an exit that the loop's poller tells.

asyncio's transport and subprocess.Popen stay what users see.  There are three ways to a child, and each leaves to the
next what it does not know:

1. the common arguments, and a Popen that is made only when somebody asks for it;
2. all of Popen's arguments, by Popen itself, but with our step in place of the one that forks;
3. Popen as it is: code to run in the child, another user, a Popen that was replaced or is not as we know it.
"""

from __future__ import annotations

import io
import os
import signal as signal_module
import subprocess
import types
import warnings
from asyncio import base_subprocess, events, tasks
from asyncio import unix_events as unix
from asyncio.base_events import BaseEventLoop
from asyncio.log import logger

from . import _core

PIPE, STDOUT, DEVNULL = subprocess.PIPE, subprocess.STDOUT, subprocess.DEVNULL

_Popen = subprocess.Popen
_popen_init = _Popen.__init__
_popen_step = _Popen._execute_child
# What Popen.__init__ passes to the step that makes the child.
_STEPS_ARGUMENTS = (
    "self", "args", "executable", "preexec_fn", "close_fds", "pass_fds", "cwd", "env", "startupinfo", "creationflags",
    "shell", "p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite", "restore_signals", "gid", "gids",
    "uid", "umask", "start_new_session", "process_group",
)  # fmt: skip

_Asyncios = unix._UnixSubprocessTransport


def _is_as_expected():
    """Whether this Python's Popen and asyncio's transport have the parts that we take the place of."""
    for method in (_popen_init, _popen_step):
        # Not what a tool put there before we were imported.
        if type(method) is not types.FunctionType or method.__globals__ is not vars(subprocess):
            return False
    step = _popen_step.__code__
    start = getattr(_Asyncios._start, "__code__", None)
    return (
        step.co_varnames[: step.co_argcount] == _STEPS_ARGUMENTS
        and hasattr(_Popen, "_close_pipe_fds")
        # stdin is a pipe, and not a socket as it once was
        and start is not None
        and "aix" in start.co_consts
    )


_AS_EXPECTED = _is_as_expected()

# Up to 3.13 the exit comes by way of call_soon_threadsafe(), and wait() may end with the transport, not the process.
_EXIT_TAKES_A_TURN = "call_soon_threadsafe" in unix.SelectorEventLoop._child_watcher_callback.__code__.co_names
_WAIT_ENDS_WITH_PROCESS = "_exit_waiters" in _Asyncios._process_exited.__code__.co_names
_WAITERS = set if "add" in _Asyncios._wait.__code__.co_names else list

# What of Popen's arguments the first way knows.
_COMMON = frozenset(("cwd", "env", "start_new_session"))


@types.coroutine
def _turn():
    """Until what is ready now has run."""
    yield


# Spawning


def _programs(executable, env):
    """Where the program may be, as Popen looks for it."""
    if type(executable) is str and "/" in executable:
        return (executable,)
    executable = os.fsencode(executable)
    if b"/" in executable:
        return (executable,)
    # get_exec_path() is slow, because it fears the keys of an env
    path = os.environ.get("PATH", os.defpath).split(os.pathsep) if env is None else os.get_exec_path(env)
    return [os.path.join(os.fsencode(directory), executable) for directory in path]


def _spawn(argv, program, env, cwd, *how):
    """(pid, pidfd).  None: somebody else shall try, who finds the words for what is wrong."""
    try:
        programs = _programs(program, env)
    except Exception:
        return None
    started = _core._spawn(program, argv, programs, env, cwd, *how)
    if started is None or started[0] > 0:
        return started
    error, stage = started
    if stage == _core._SPAWN_EXEC and isinstance(program, (str, bytes)):
        raise OSError(-error, os.strerror(-error), program)
    if stage == _core._SPAWN_CHDIR:
        raise OSError(-error, os.strerror(-error), cwd)
    return None


def _argv(args, executable, shell):
    """(argv, program) as Popen makes them of what asyncio lets through."""
    argv = [args] if isinstance(args, (str, bytes)) else list(args)
    if shell:
        argv = [executable or "/bin/sh", "-c", *argv]
    return argv, argv[0] if executable is None else executable


class ReadSubprocessPipeProto(base_subprocess.ReadSubprocessPipeProto):
    """asyncio's, a call or two shorter."""

    def data_received(self, data):
        transport = self.proc
        transport._loop.call_soon(transport._protocol.pipe_data_received, self.fd, data)


def _open_pipes(wanted, child, ours, theirs):
    """Makes the pipes that are wanted.  All three lists are filled as far as it gets."""
    for number, stream in enumerate(wanted):
        if stream is None:
            continue
        if stream is STDOUT:
            child[2] = child[1]
            continue
        reader, writer = os.pipe()
        mine, child[number] = (writer, reader) if number == 0 else (reader, writer)
        theirs.append(child[number])
        try:
            ours[number] = io.FileIO(mine, "rb" if number else "wb")
        except BaseException:
            os.close(mine)
            raise


class SubprocessTransport(_Asyncios):
    """asyncio's transport of a child process, above our spawn and our poller."""

    _pidfd = -1  # owned
    _popen = None
    _lost = False  # _proc is None again
    _unmade = None  # of the first way: what a Popen would have had
    _status = None  # the return code as soon as it is taken from the kernel

    # As asyncio's __init__() has them, for the first way, which leaves that out.
    _closed = _finished = False
    _returncode = _pending_calls = None

    # A Popen of the first way is made when somebody looks.

    @property
    def _proc(self):
        return None if self._lost else self._get_popen()

    @_proc.setter
    def _proc(self, popen):
        self._lost = popen is None
        if popen is not None:
            self._popen = popen

    def _get_popen(self):
        if self._popen is None and self._unmade is not None:
            args, shell, kwargs, ours = self._unmade
            popen = _Popen.__new__(_Popen)
            popen._execute_child = _no_step
            _popen_init(popen, args, shell=shell, universal_newlines=False, bufsize=0, **kwargs)
            del popen._execute_child
            popen._closed_child_pipe_fds = True
            popen.stdin, popen.stdout, popen.stderr = ours
            popen.pid = self._pid
            popen.returncode = self._status
            popen._child_created = True
            self._popen = popen
        return self._popen

    def _is_quick(self):
        """Of the first way, and still without a Popen."""
        return self._unmade is not None and self._popen is None

    def get_extra_info(self, name, default=None):
        if name == "subprocess" and self._unmade is not None:
            return self._extra.setdefault(name, self._get_popen())
        return self._extra.get(name, default)

    # The first way

    @classmethod
    def _quickly(cls, loop, protocol, args, shell, wanted, extra, kwargs):
        """A transport whose child runs, or None."""
        if subprocess._active:
            subprocess._cleanup()  # as each new Popen has it, lest zombies gather
        argv, program = _argv(args, None, shell)
        ours = [None, None, None]
        child, theirs = [-1, -1, -1], []
        started = None
        try:
            if wanted != _NO_PIPES:
                _open_pipes(wanted, child, ours, theirs)
            started = _spawn(argv, program, kwargs.get("env"), kwargs.get("cwd"), *child, (), True, True,
                             kwargs.get("start_new_session", False), -1, -1)
        finally:
            for fd in theirs:
                os.close(fd)
            if started is None and theirs:
                for file in ours:
                    if file is not None:
                        file.close()
        if started is None:
            return None
        self = cls.__new__(cls)
        self._extra = {} if extra is None else extra
        self._pid, self._pidfd = started
        self._unmade = args, shell, kwargs, ours
        self._protocol = protocol
        self._loop = loop
        self._exit_waiters = _WAITERS()
        self._pipes = {number: None for number in (0, 1, 2) if ours[number] is not None} if theirs else {}
        return self

    def _connect_quickly(self):
        """All at once what asyncio does pipe by pipe."""
        loop, pipes = self._loop, self._pipes
        for number in pipes:
            file = self._unmade[3][number]
            if number == 0:
                proto = base_subprocess.WriteSubprocessPipeProto(self, 0)
                proto.pipe = _core.WritePipeTransport(loop, file, proto)
            else:
                proto = ReadSubprocessPipeProto(self, number)
                proto.pipe = _core.ReadPipeTransport(loop, file, proto)
            pipes[number] = proto
        loop.call_soon(self._protocol.connection_made, self)

    # The second way, and the third

    def _start(self, args, shell, stdin, stdout, stderr, bufsize, **kwargs):
        if not _AS_EXPECTED or subprocess.Popen is not _Popen or _Popen._execute_child is not _popen_step:
            super()._start(args, shell, stdin, stdout, stderr, bufsize, **kwargs)
            return
        popen = _Popen.__new__(_Popen)

        def step(*arguments):
            if not self._make_child(popen, *arguments):
                _popen_step(popen, *arguments)

        popen._execute_child = step
        try:
            popen.__init__(args, shell=shell, stdin=stdin, stdout=stdout, stderr=stderr, universal_newlines=False,
                           bufsize=bufsize, **kwargs)
        finally:
            del popen._execute_child
        self._proc = popen

    def _make_child(self, popen, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo,
                    creationflags, shell, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, restore_signals,
                    gid, gids, uid, umask, start_new_session, process_group):
        """Popen's step.  False: it shall take its own."""
        if preexec_fn is not None or gid is not None or gids is not None or uid is not None:
            return False
        try:
            argv, program = _argv(args, executable, shell)
            passed = tuple(sorted(set(map(int, pass_fds)))) if pass_fds else ()
        except Exception:
            return False
        started = _spawn(argv, program, env, cwd, p2cread, c2pwrite, errwrite, passed, close_fds, restore_signals,
                         start_new_session, process_group, umask)
        if started is None:
            return False
        popen.pid, self._pidfd = started
        popen._child_created = True
        popen._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)
        return True

    # Signals: by pidfd, which never means another process

    def send_signal(self, signal):
        if self._pidfd >= 0:
            try:
                signal_module.pidfd_send_signal(self._pidfd, signal)
                return
            except ProcessLookupError:
                return
            except (AttributeError, PermissionError):
                pass  # a Python or a sandbox without it; or it is not for us to signal, which kill() says too
        if self._returncode is None or self._lost:
            super().send_signal(signal)

    def terminate(self):
        self.send_signal(signal_module.SIGTERM)

    def kill(self):
        self.send_signal(signal_module.SIGKILL)

    # The end

    def _watch_child(self):
        loop, pid = self._loop, self._pid
        if self._pidfd < 0:
            try:
                self._pidfd = os.pidfd_open(pid)
            except (OSError, AttributeError):
                _thread_watcher().add_child_handler(pid, loop._child_watcher_callback, self)
                return
        loop._add_reader(self._pidfd, self._child_ended)

    def _child_ended(self):
        loop, pidfd = self._loop, self._pidfd
        try:
            returncode = _core._reap(self._pid, pidfd)
            if returncode is None:
                return  # not yet
        except ChildProcessError:
            # Somebody else has it; if that was our own Popen, it knows.
            returncode = None if self._popen is None else self._popen.returncode
            if returncode is None:
                returncode = 255
                logger.warning(
                    "child process pid %d exit status already read:  will report returncode 255", self._pid
                )
        self._status = returncode
        if self._popen is not None and self._popen.returncode is None:
            self._popen.returncode = returncode
        # In this order: a fork has a copy of it, and what is closed first is reported for as long as the fork lives.
        self._pidfd = -1
        loop._remove_reader(pidfd)
        os.close(pidfd)
        if _EXIT_TAKES_A_TURN:
            loop.call_soon(self._process_exited, returncode)
        else:
            self._process_exited(returncode)

    def _is_running(self):
        """Whether it has not ended yet, ended and not been noticed included."""
        try:
            return os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:
            return False

    def close(self):
        if self._pidfd < 0 and self._returncode is None:
            self._get_popen()
        if not self._is_quick():
            super().close()
            return
        if self._closed:
            return
        self._closed = True
        loop = self._loop
        if self._pipes and loop is not None and not loop.is_closed():
            for proto in self._pipes.values():
                if proto is not None:
                    proto.pipe.close()
        if self._pidfd >= 0 and self._is_running():
            if loop.get_debug():
                logger.warning("Close running child process: kill %r", self)
            try:
                self.kill()
            except PermissionError:
                pass  # it runs as somebody else

    def __del__(self, _close=os.close):
        super().__del__()
        if self._pidfd >= 0:
            # The loop was closed before the child ended.  Popen sees to it that the child is waited for.
            self._get_popen()
            _close(self._pidfd)

    def _process_exited(self, returncode):
        loop = self._loop
        if loop._debug or not self._is_quick():
            super()._process_exited(returncode)
            return
        assert returncode is not None, returncode
        assert self._returncode is None, self._returncode
        self._status = self._returncode = returncode
        loop.call_soon(self._protocol.process_exited)
        self._try_finish()
        if _WAIT_ENDS_WITH_PROCESS:
            for waiter in self._exit_waiters:
                if not waiter.done():
                    waiter.set_result(returncode)
            self._exit_waiters = None

    def _try_finish(self):
        if self._pending_calls is not None:
            super()._try_finish()
            return
        assert not self._finished
        if self._returncode is None:
            return
        for proto in self._pipes.values():
            if proto is None or not proto.disconnected:
                return
        self._finished = True
        self._loop.call_soon(self._call_connection_lost, None)


SubprocessTransport.__name__ = _Asyncios.__name__  # which its repr begins with

_NO_PIPES = (None, None, None)


def _no_step(*arguments):
    pass


# What is around where the kernel has no pidfd to give: asyncio's watcher with a thread for each child.
_Threads = getattr(unix, "ThreadedChildWatcher", None) or unix._ThreadedChildWatcher
_threads = None

# The loop's own watcher from 3.14 on; what it does is done here.
_LOOPS_WATCHER = getattr(unix, "_PidfdChildWatcher", object)


def _thread_watcher():
    global _threads
    if _threads is None:
        _threads = _Threads()
    return _threads


def _policys_watcher():
    """Up to 3.13: the child watcher that the policy has been given, or None."""
    policy = events.get_event_loop_policy()
    method = type(policy).get_child_watcher
    if method is unix._UnixDefaultEventLoopPolicy.get_child_watcher:
        return policy._watcher
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # as asyncio has it
        try:
            return policy.get_child_watcher()
        except NotImplementedError:
            return None  # as asyncio's base class says; we need none


class ProcessMixin:
    """The hook by which asyncio's subprocess_exec() and subprocess_shell() make a child."""

    async def _make_subprocess_transport(self, protocol, args, shell, stdin, stdout, stderr, bufsize, extra=None,
                                         **kwargs):
        self._check_fork()
        if type(self._made_watcher) is not _LOOPS_WATCHER and self._child_watcher_is_others():
            return await super()._make_subprocess_transport(protocol, args, shell, stdin, stdout, stderr, bufsize,
                                                            extra, **kwargs)
        transport = waiter = None
        if (
            _AS_EXPECTED
            and not self._debug
            and type(self) is self._final_class
            and subprocess.Popen is _Popen
            and _Popen.__init__ is _popen_init
            and _Popen._execute_child is _popen_step
            and (not kwargs or kwargs.keys() <= _COMMON)
            and (stdin is None or stdin is PIPE)
            and (stdout is None or stdout is PIPE)
            and (stderr is None or stderr is PIPE or (stderr is STDOUT and stdout is not None))
        ):
            wanted = stdin, stdout, stderr
            if wanted == _NO_PIPES or self._connects_pipes_as_usual():
                transport = SubprocessTransport._quickly(self, protocol, args, shell, wanted, extra, kwargs)
        if transport is None:
            waiter = self.create_future()
            transport = SubprocessTransport(self, protocol, args, shell, stdin, stdout, stderr, bufsize, waiter=waiter,
                                            extra=extra, **kwargs)
        transport._watch_child()
        try:
            if waiter is None:
                transport._connect_quickly()
                await _turn()
            else:
                await waiter
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            transport.close()
            await tasks.shield(transport._wait())
            raise
        return transport

    def _connects_pipes_as_usual(self):
        """The steps that are left out were not replaced in this loop."""
        return (
            getattr(self.connect_read_pipe, "__func__", None) is BaseEventLoop.connect_read_pipe
            and getattr(self.connect_write_pipe, "__func__", None) is BaseEventLoop.connect_write_pipe
        )

    if hasattr(unix, "AbstractChildWatcher"):

        def _child_watcher_is_others(self):
            watcher = _policys_watcher()
            return watcher is not None and type(watcher) not in (unix.ThreadedChildWatcher, unix.PidfdChildWatcher)

    else:

        def _child_watcher_is_others(self):
            return type(self._watcher) is not _LOOPS_WATCHER
