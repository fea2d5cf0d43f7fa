"""Child processes side by side: their output, their input, and one that takes too long."""

import asyncio
from asyncio.subprocess import PIPE


async def output_of(*command, data=None):
    child = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
    said, _ = await child.communicate(data)
    return said.decode().strip()


async def end_in_time(seconds, *command):
    child = await asyncio.create_subprocess_exec(*command)
    try:
        async with asyncio.timeout(seconds):
            return await child.wait()
    except TimeoutError:
        child.terminate()
        return await child.wait()


async def main():
    greeting, counted, shouted, ended = await asyncio.gather(
        output_of("echo", "hello"),
        output_of("wc", "-w", data=b"how many words are these?"),
        output_of("tr", "a-z", "A-Z", data=b"quietly"),
        end_in_time(0.05, "sleep", "10"),
    )
    print(greeting, counted, shouted, sep="\n")
    print("signal", -ended)

    shell = await asyncio.create_subprocess_shell("exit 3")
    print("exit", await shell.wait())


asyncio.run(main())
