"""In an event loop: no thread waits, only the right coroutines wake up, and a cancelled one has taken nothing."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import multiprocessing
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from programs import family
from watching import AWAITS_PLACE, asleep, no_naps

from tqshim import ShutDown, SimpleTurboQueue, TurboQueue

PATIENCE = 60.0
LOOPS = ["asyncio", *(["uvloop"] if importlib.util.find_spec("uvloop") else [])]
Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine in a loop of that kind; nothing of ours stays in the loop."""

    def run(main: Coroutine[Any, Any, Any]) -> Any:
        loop = importlib.import_module(request.param).new_event_loop()
        try:
            return loop.run_until_complete(asyncio.wait_for(main, PATIENCE))
        finally:
            loop.close()
            watchers = importlib.import_module("tqshim.queues.asynchronous")._watchers
            assert not watchers.get(loop)

    return run


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0)


@pytest.mark.in_turn
def test_items_go_through_in_their_order_both_ways(run: Run, context: Any) -> None:
    """To a child that blocks, and back from it."""
    calls, answers = TurboQueue(3), TurboQueue(3)
    child = context.Process(target=family.echo, args=(calls, answers))
    child.start()

    async def main() -> list[int]:
        async def put() -> None:
            for item in range(300):
                await calls.put_async(item)
            await calls.put_async(None)

        putting = asyncio.ensure_future(put())
        found = [await answers.get_async() for _ in range(300)]
        await putting
        return found

    assert run(main()) == list(range(300))
    child.join(PATIENCE)
    assert child.exitcode == 0


def test_a_thousand_who_wait_on_a_hundred_queues_take_no_thread_and_the_right_ones_wake(run: Run) -> None:
    turbos = [TurboQueue() for _ in range(100)]
    threads = threading.active_count()

    async def main() -> None:
        tasks = [asyncio.ensure_future(turbo.get_async()) for turbo in turbos for _ in range(10)]
        watchers = importlib.import_module("tqshim.queues.asynchronous")._watchers
        await until(lambda: all(asleep(turbo) for turbo in turbos))
        assert threading.active_count() == threads
        watching = list(watchers[asyncio.get_running_loop()].values())
        assert [len(watcher._waiters) for watcher in watching] == [10] * 100
        for number in (3, 58, 97):
            turbos[number].put_many([number] * 2)
        await until(lambda: sum(task.done() for task in tasks) == 6)
        await asyncio.sleep(0.02)
        done = [at // 10 for at, task in enumerate(tasks) if task.done()]
        assert done == [3, 3, 58, 58, 97, 97]
        assert [task.result() for task in tasks if task.done()] == done
        # Nobody else was told to look, and those ten who waited longest at each queue still stand in their order.
        assert sum(len(watcher._waiters) for watcher in watching) == 994
        assert not any(watcher._woken for watcher in watching)
        for turbo in turbos:
            turbo.put_many(range(10))
        assert len(await asyncio.gather(*tasks)) == 1000
        assert sum(turbo.qsize() for turbo in turbos) == 6
        assert threading.active_count() == threads

    run(main())


@pytest.mark.parametrize("when", ["waiting", "woken", "beside others"])
def test_a_cancelled_get_took_nothing(run: Run, when: str) -> None:
    turbo = TurboQueue()

    async def main() -> None:
        first = asyncio.ensure_future(turbo.get_async())
        others = [asyncio.ensure_future(turbo.get_async()) for _ in range(3 if when == "beside others" else 0)]
        await until(lambda: asleep(turbo))
        if when == "waiting":
            first.cancel()
            await asyncio.wait([first])
            turbo.put("item")
        else:
            turbo.put("item")
            watcher = next(iter(importlib.import_module("tqshim.queues.asynchronous")._watchers.values()))
            await until(lambda: any(one._woken for one in watcher.values()) or first.done())
            first.cancel()
            await asyncio.wait([first])
        if first.cancelled():
            if others:
                done, _ = await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
                assert [task.result() for task in done] == ["item"]
            else:
                assert turbo.get_nowait() == "item"
        else:
            assert first.result() == "item"
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    run(main())


def test_nothing_is_lost_or_doubled_when_gets_time_out_at_random(run: Run) -> None:
    turbo = TurboQueue()

    async def main() -> list[int]:
        found: list[int] = []

        async def take(number: int) -> None:
            while len(found) < 300:
                task = asyncio.ensure_future(turbo.get_async())
                for _ in range(number % 4):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                if not task.cancelled():
                    found.append(task.result())

        async def put() -> None:
            for item in range(300):
                turbo.put(item)
                await asyncio.sleep(0)

        await asyncio.gather(put(), *(take(number) for number in range(8)))
        return found

    assert sorted(run(main())) == list(range(300))
    assert turbo.empty()


def test_a_put_that_waits_for_a_place_wakes_up_and_a_cancelled_one_put_nothing(run: Run) -> None:
    turbo = TurboQueue(1)
    turbo.put(0)

    async def main() -> None:
        cancelled = asyncio.ensure_future(turbo.put_async("cancelled"))
        waiting = [asyncio.ensure_future(turbo.put_async(number)) for number in (1, 2)]
        await until(lambda: asleep(turbo, AWAITS_PLACE))
        cancelled.cancel()
        assert [await turbo.get_async() for _ in range(3)] == [0, 1, 2]
        await asyncio.gather(*waiting)

    run(main())
    assert turbo.empty()


def test_a_woken_one_that_fails_leaves_what_it_was_woken_for_to_the_next(
    run: Run, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its item can't be pickled, or its handle was closed."""
    no_naps(monkeypatch)
    turbo = TurboQueue(1, path=path)

    async def main() -> None:
        turbo.put(0)
        failing = asyncio.ensure_future(turbo.put_async(threading.Lock()))
        waiting = asyncio.ensure_future(turbo.put_async(1))
        await until(lambda: asleep(turbo, AWAITS_PLACE))
        assert turbo.get() == 0
        with pytest.raises(TypeError):
            await failing
        await waiting
        assert turbo.get() == 1
        closing = TurboQueue(path=path)
        failing = asyncio.ensure_future(closing.get_async())
        waiting = asyncio.ensure_future(turbo.get_async())
        await until(lambda: asleep(turbo))
        closing.close()
        turbo.put(2)
        with pytest.raises(ValueError):
            await failing
        assert await waiting == 2

    run(main())


def test_async_for_ends_when_the_queue_is_shut_down(run: Run, context: Any) -> None:
    turbo, says = TurboQueue(), SimpleTurboQueue()

    async def main() -> list[int]:
        threading.Timer(0.01, lambda: (turbo.put_many(range(5)), turbo.shutdown())).start()
        return [item async for item in turbo]

    assert run(main()) == [0, 1, 2, 3, 4]
    other = TurboQueue()

    async def wait() -> None:
        with pytest.raises(ShutDown):
            await other.get_async()

    child = context.Process(target=family.shut_down_when_somebody_waits, args=(other, says))
    child.start()
    run(wait())
    child.join(PATIENCE)
    assert child.exitcode == 0


def test_threads_processes_and_coroutines_wait_side_by_side(run: Run) -> None:
    """Each item is got by one of them, none waits for ever."""
    turbo, got = TurboQueue(), []
    context: Any = multiprocessing.get_context("spawn")
    results = SimpleTurboQueue()
    child = context.Process(target=family.echo, args=(turbo, results))
    child.start()

    def block() -> None:
        while (item := turbo.get()) is not None:
            got.append(item)

    threads = [threading.Thread(target=block) for _ in range(2)]
    for thread in threads:
        thread.start()

    async def main() -> None:
        async def take() -> None:
            while (item := await turbo.get_async()) is not None:
                got.append(item)

        takers = [asyncio.ensure_future(take()) for _ in range(3)]
        for item in range(200):
            turbo.put(item)
            if item % 10 == 0:
                await asyncio.sleep(0.001)
        for _ in range(6):
            turbo.put(None)
        await asyncio.gather(*takers)

    run(main())
    for thread in threads:
        thread.join(PATIENCE)
    child.join(PATIENCE)
    while not results.empty():
        got.append(results.get())
    assert sorted(got) == list(range(200))


def test_closed_and_broken_queues_raise_in_the_one_who_waits(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    turbo = TurboQueue()

    async def main() -> None:
        waiting = asyncio.ensure_future(turbo.get_async())
        await until(lambda: asleep(turbo))

        def fail(*_: object) -> Any:
            raise OSError("no more")

        monkeypatch.setattr(type(turbo._engine), "watch", fail)
        with pytest.raises(OSError, match="no more"):
            await waiting
        monkeypatch.undo()
        turbo.close()
        with pytest.raises(ValueError, match="closed"):
            await turbo.get_async()

    run(main())


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
def test_waiting_leaves_no_descriptor_behind(run: Run) -> None:
    turbo = TurboQueue()

    async def main() -> None:
        for _ in range(3):
            turbo.put(await asyncio.wait_for(asyncio.shield(round_trip()), PATIENCE))
            before.append(len(os.listdir("/proc/self/fd")))

    async def round_trip() -> Any:
        waiting = asyncio.ensure_future(turbo.get_async())
        await asyncio.sleep(0)
        if turbo.empty():
            turbo.put(1)
        return await waiting

    before: list[int] = []
    run(main())
    assert len(set(before[1:])) == 1
