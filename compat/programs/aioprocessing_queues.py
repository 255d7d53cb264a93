"""aioprocessing: coroutines put and get through queues that its executor's threads wait for."""

import asyncio
import multiprocessing
import sys

import aioprocessing


def work(tasks, results):
    for item in iter(tasks.get, None):
        results.put(item * item)
        tasks.task_done()
    tasks.task_done()


async def main(context):
    tasks = aioprocessing.AioJoinableQueue(context=context)
    results = aioprocessing.AioQueue(5, context=context)
    simple = aioprocessing.AioSimpleQueue(context=context)
    process = aioprocessing.AioProcess(context=context, target=work, args=(tasks, results))
    process.start()

    async def put():
        for item in range(50):
            await tasks.coro_put(item)
        await tasks.coro_put(None)

    putting = asyncio.ensure_future(put())
    print([await results.coro_get() for _ in range(50)])
    await putting
    await tasks.coro_join()
    await process.coro_join()
    await simple.coro_put("simple")
    print(await simple.coro_get(), process.exitcode, results.empty())


if __name__ == "__main__":
    asyncio.run(main(multiprocessing.get_context(sys.argv[1])))
