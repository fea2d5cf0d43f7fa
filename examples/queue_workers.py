"""Two producers and three consumers around a queue that holds five items at most."""

import asyncio


async def producer(queue, start):
    for number in range(start, start + 10):
        await queue.put(number)
        await asyncio.sleep(0)


async def consumer(queue, results):
    while True:
        number = await queue.get()
        await asyncio.sleep(0.001)
        results.append(number * number)
        queue.task_done()


async def main():
    queue = asyncio.Queue(maxsize=5)
    results = []
    consumers = [asyncio.create_task(consumer(queue, results)) for _ in range(3)]
    await asyncio.gather(producer(queue, 0), producer(queue, 10))
    await queue.join()
    for task in consumers:
        task.cancel()
    ended = await asyncio.gather(*consumers, return_exceptions=True)
    print(len(results), "items, sum of squares", sum(results))
    print("consumers:", [type(outcome).__name__ for outcome in ended])


asyncio.run(main())
