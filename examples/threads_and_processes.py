"""Blocking calls belong in a thread, other programs in a subprocess; neither holds up the loop."""

import asyncio
import sys
import threading
import time


def blocking():
    time.sleep(0.02)
    return threading.current_thread() is not threading.main_thread()


async def heartbeat(beats):
    while True:
        await asyncio.sleep(0.002)
        beats.append(1)


async def main():
    beats = []
    heart = asyncio.create_task(heartbeat(beats))
    print("in another thread:", await asyncio.to_thread(blocking))

    program = "import sys; print(sys.stdin.read()[::-1])"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate(b"stressed")
    print("the program said:", output.decode().strip(), "and ended with", process.returncode)

    heart.cancel()
    print("the loop kept going:", len(beats) > 2)


asyncio.run(main())
