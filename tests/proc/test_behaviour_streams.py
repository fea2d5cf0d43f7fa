"""communicate(), and the three streams of a child."""

import asyncio
import os
import subprocess

import pytest

from support import same
from support.net import LIMIT, io_settled
from support.proc import finish, gone, run, sh, spawn

PIPE, DEVNULL, STDOUT = subprocess.PIPE, subprocess.DEVNULL, subprocess.STDOUT

MEGABYTE = 1 << 20


def pattern(size):
    """Bytes in which a lost or doubled piece shows."""
    return b"".join(b"%07d\n" % n for n in range(size // 8))


@pytest.mark.parametrize("data", [b"", b"x", b"line\n" * 1000, bytearray(b"array"), memoryview(b"view")], ids=repr)
def test_communicate_with_input(data):
    def body(impl):
        return impl.run(run("/bin/cat", input=data))
    assert same(body) == [0, bytes(data), b""]


def test_communicate_without_input():
    """A child that reads to the end gets the end, except on Python 3.11, whose asyncio leaves stdin open then."""
    def body(impl):
        async def main():
            process = await spawn(*sh("echo out; echo err >&2; exit 3"))
            return await process.communicate(), process.returncode
        return impl.run(main())
    assert same(body) == [[b"out\n", b"err\n"], 3]


@pytest.mark.parametrize("keywords, found", [
    ({"stdin": DEVNULL}, [b"out\n", b"err\n"]),
    ({"stdin": DEVNULL, "stdout": DEVNULL}, [None, b"err\n"]),
    ({"stdin": DEVNULL, "stderr": DEVNULL}, [b"out\n", None]),
    ({"stdin": DEVNULL, "stderr": STDOUT}, [b"out\nerr\n", None]),
    ({"stdin": DEVNULL, "stdout": DEVNULL, "stderr": DEVNULL}, [None, None]),
], ids=str)
def test_communicate_with_some_streams(keywords, found):
    def body(impl):
        async def main():
            process = await spawn(*sh("echo out; echo err >&2"), **keywords)
            return await process.communicate()
        return impl.run(main())
    assert same(body) == found


def test_communicate_with_input_but_no_pipe():
    def body(impl):
        async def main():
            process = await spawn("/bin/true", stdin=DEVNULL)
            try:
                found = await process.communicate(b"data")
            except Exception as exc:
                found = type(exc).__name__, str(exc)
            await process.wait()
            return found
        return impl.run(main())
    same(body)  # an AttributeError or nothing, as asyncio of this version has it


def test_communicate_twice():
    def body(impl):
        async def main():
            process = await spawn("/bin/cat")
            seen = [await process.communicate(b"first")]
            try:
                seen.append(await process.communicate())
            except Exception as exc:
                seen.append((type(exc).__name__, str(exc)))
            return seen
        return impl.run(main())
    assert same(body) == [[b"first", b""], [b"", b""]]


def test_communicate_after_the_exit_gets_all():
    def body(impl):
        async def main():
            process = await spawn(*sh("echo out; echo err >&2; exit 4"))
            gone(process.pid)
            return await process.communicate(b""), process.returncode
        return impl.run(main())
    assert same(body) == [[b"out\n", b"err\n"], 4]


def test_five_megabytes_both_ways():
    data = pattern(5 * MEGABYTE)
    for code, out, err in same(lambda impl: [impl.run(run("/bin/cat", input=data))]):
        assert (code, err) == (0, b"")
        assert out == data


def test_five_megabytes_on_two_pipes_at_once():
    """tee writes to both: neither may stall the other."""
    data = pattern(5 * MEGABYTE)

    def body(impl):
        code, out, err = impl.run(run(*sh("tee /dev/stderr"), input=data))
        return code, out == data, err == data
    assert same(body) == [0, True, True]


@pytest.mark.parametrize("script, out", [
    ("exec 0<&-; echo closed", b"closed\n"),
    ("head -c 8", b"0000000\n"),
    ("exit 0", b""),
    ("exec 0</dev/null; cat; echo end", b"end\n"),
])
def test_child_that_closes_its_input_early(script, out):
    """communicate() ignores that the rest of the input finds no reader."""
    data = pattern(MEGABYTE)
    assert same(lambda impl: impl.run(run(*sh(script), input=data))) == [0, out, b""]


def test_write_to_a_child_that_has_gone():
    """drain() says so, and closing is no error."""
    def body(impl):
        async def main():
            process = await spawn("/bin/true")
            await process.wait()
            seen = []
            for _ in range(3):
                try:
                    process.stdin.write(b"x" * 100)
                    await process.stdin.drain()
                    seen.append("drained")
                except (BrokenPipeError, ConnectionResetError) as exc:
                    seen.append(type(exc).__name__)
                await io_settled(1)
            process.stdin.close()
            try:
                await process.stdin.wait_closed()
            except (BrokenPipeError, ConnectionResetError) as exc:
                seen.append(type(exc).__name__)
            return seen[1:], process.stdin.is_closing(), process.returncode
        return impl.run(main())
    seen = same(body)
    assert seen[1:] == [True, 0]


def test_a_full_pipe_makes_drain_wait():
    """The child reads only when told to, through a second pipe."""
    def body(impl):
        async def main():
            r, w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            process = await spawn(*sh("read -r word < /proc/self/fd/$1; wc -c", r), pass_fds=[r])
            process.stdin.write(b"x" * MEGABYTE)
            drained = asyncio.ensure_future(process.stdin.drain())
            await io_settled()
            waiting = not drained.done()
            os.write(w, b"go\n")
            os.close(w)
            os.close(r)
            await drained
            found = await finish(process)
            return waiting, found
        return impl.run(main())
    assert same(body) == [True, [0, b"%d\n" % MEGABYTE, b""]]


def test_lines_as_they_come():
    def body(impl):
        async def main():
            process = await spawn(*sh('while read -r line; do echo "<$line>"; done; echo end'))
            seen = []
            for line in (b"one\n", b"two\n", b"three\n"):
                process.stdin.write(line)
                seen.append(await process.stdout.readline())
            process.stdin.close()
            seen += [line async for line in process.stdout]
            seen += [await process.stderr.read(), await process.wait()]
            return seen
        return impl.run(main())
    assert same(body) == [b"<one>\n", b"<two>\n", b"<three>\n", b"end\n", b"", 0]


def test_output_that_nobody_reads_stays_in_the_child():
    """The reader stops at twice its limit, and goes on where it stopped."""
    data = pattern(2 * MEGABYTE)

    def body(impl):
        async def main():
            process = await spawn("/bin/cat", limit=1000)
            process.stdin.write(data)
            await io_settled(20)
            buffered = len(process.stdout._buffer)
            process.stdin.write_eof()
            out = await process.stdout.read()
            return buffered < 200_000, out == data, await process.wait()
        return impl.run(main())
    assert same(body) == [True, True, 0]


def test_end_of_output_while_the_child_lives():
    def body(impl):
        async def main():
            process = await spawn(*sh("echo bye; exec 1>&- 2>&-; read -r line; exit 5"))
            async with asyncio.timeout(LIMIT):
                seen = [await process.stdout.read(), await process.stderr.read(), process.returncode]
                process.stdin.close()
                seen.append(await process.wait())
            return seen
        return impl.run(main())
    assert same(body) == [b"bye\n", b"", None, 5]


def test_exit_while_a_grandchild_holds_the_output():
    """What wait() waits for is asyncio's choice of this version; the output goes on until its end."""
    def body(impl):
        async def main():
            r, w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            process = await spawn(*sh("exec 3</proc/self/fd/$1; cat <&3 & exit 6", r), pass_fds=[r], stdin=DEVNULL)
            os.close(r)
            async with asyncio.timeout(LIMIT):
                while process.returncode is None:
                    await io_settled(1)
            waiting = asyncio.ensure_future(process.wait())
            await io_settled(10)
            seen = [process.returncode, waiting.done()]
            os.write(w, b"late")
            os.close(w)
            seen += [await process.stdout.read(), await process.stderr.read(), await waiting]
            await io_settled()
            return seen
        return impl.run(main())
    seen = same(body)
    assert seen[0] == 6 and seen[2:] == [b"late", b"", 6]


def test_streams_are_released_after_the_end():
    """No descriptor of the child is left open once it was waited for."""
    def body(impl):
        async def main():
            await run("/bin/cat")  # the loop has now made what it makes once
            await io_settled()
            before = os.listdir("/proc/self/fd")
            process = await spawn("/bin/cat")
            more = len(os.listdir("/proc/self/fd")) - len(before)
            await finish(process)
            pipes = [process._transport.get_pipe_transport(fd).is_closing() for fd in range(3)]
            await io_settled()
            return pipes, more >= 3, os.listdir("/proc/self/fd") == before
        return impl.run(main())
    assert same(body) == [[True] * 3, True, True]


def test_pipes_have_asyncios_extra_info():
    def body(impl):
        async def main():
            process = await spawn("/bin/cat")
            seen = []
            for fd in range(3):
                pipe = process._transport.get_pipe_transport(fd)
                seen.append((type(pipe.get_extra_info("pipe")).__name__, pipe.get_extra_info("nothing", 5),
                             isinstance(pipe, asyncio.ReadTransport), isinstance(pipe, asyncio.WriteTransport)))
            seen.append(type(process._transport.get_extra_info("subprocess")).__name__)
            seen.append((type(process.stdin).__name__, type(process.stdout).__name__, type(process.stderr).__name__))
            await finish(process)
            return seen
        return impl.run(main())
    seen = same(body)
    assert seen[3:] == ["Popen", ["StreamWriter", "StreamReader", "StreamReader"]]


def test_communicate_cancelled_and_taken_up_again():
    def body(impl):
        async def main():
            process = await spawn("/bin/cat")
            talking = asyncio.ensure_future(process.stdout.read(100))
            process.stdin.write(b"heard ")
            seen = [await talking]
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(process.wait(), 0.01)
            seen.append(process.returncode)
            seen.append(await finish(process, b"rest"))
            return seen
        return impl.run(main())
    assert same(body) == [b"heard ", None, [0, b"rest", b""]]


def test_communicate_with_a_timeout_and_then_kill():
    def body(impl):
        async def main():
            process = await spawn(*sh("echo started; kill -STOP $$"))
            line = await process.stdout.readline()
            try:
                await asyncio.wait_for(process.communicate(b""), 0.01)
            except TimeoutError:
                line += b"timeout"
            process.kill()
            out = await process.communicate()
            return line, out, process.returncode
        return impl.run(main())
    assert same(body) == [b"started\ntimeout", [b"", b""], -9]


@pytest.mark.parametrize("debug", [False, True])
def test_many_talk_at_the_same_time(debug):
    def body(impl):
        async def one(n):
            data = b"%d " % n * (n * 100)
            code, out, err = await run(*sh("cat; exit $1", n % 100), input=data)
            return code == n % 100 and out == data and err == b""

        async def main():
            return await asyncio.gather(*map(one, range(40)))
        return impl.run(main(), debug=debug)
    assert same(body) == [True] * 40
