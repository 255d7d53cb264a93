"""Producers and consumers that keep a record of what they did.

An item is a pair: its producer, and its number among that producer's items.  ``None`` ends one consumer.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections import Counter
from typing import Any, Callable, Optional

from .crew import KEPT

Item = tuple[int, int]
LONG = 60.0
"""Seconds after which a blocking call counts as hanging."""


def produce(q: Any, producer: int, count: int, style: str, seed: int) -> None:
    """Put so many items, one by one, in batches, without blocking, or all of it mixed."""
    choose = random.Random(seed)
    number = 0
    while number < count:
        way = style if style != "mixed" else choose.choice(["put", "nowait", "many", "many nowait", "pause"])
        if way == "many" or way == "many nowait":
            size = min(choose.randrange(1, 40), count - number)
            items = [(producer, number + step) for step in range(size)]
            if way == "many" or not patiently(q.put_many_nowait, items):
                q.put_many(items, True, LONG)
            number += size
            continue
        if way == "nowait":
            if not patiently(q.put_nowait, (producer, number)):
                continue
        elif way == "pause":
            time.sleep(choose.random() * 0.002)  # so that a cut is due, or is not: no order comes from this
            continue
        else:
            q.put((producer, number), True, LONG)
        number += 1


def patiently(put: Callable[[Any], None], items: Any) -> bool:
    """Put without blocking; ``False``: it was full a hundred times."""
    for _ in range(100):
        try:
            put(items)
            return True
        except queue.Full:
            time.sleep(0.0001)
    return False


def consume(q: Any, style: str, seed: int) -> list[Item]:
    """Get until a ``None`` comes; more of them than one go back."""
    choose = random.Random(seed)
    got: list[Item] = []
    deadline = time.monotonic() + LONG
    while True:
        way = style if style != "mixed" else choose.choice(["get", "nowait", "many", "many nowait", "timeout"])
        try:
            if way == "many":
                items = q.get_many(True, LONG, choose.randrange(1, 60))
            elif way == "many nowait":
                items = q.get_many_nowait(choose.randrange(1, 60))
            elif way == "nowait":
                items = [q.get_nowait()]
            elif way == "timeout":
                items = [q.get(True, choose.random() * 0.005)]
            else:
                items = [q.get(True, LONG)]
        except queue.Empty:
            assert way not in ("get", "many"), "a get that waited for a minute found nothing"
            assert time.monotonic() < deadline, "a minute without the end"
            continue
        deadline = time.monotonic() + LONG
        ends = items.count(None)
        got += [item for item in items if item is not None]
        if ends:
            if items[-ends:] != [None] * ends:
                raise AssertionError(f"an item after an end: {items}")
            for _ in range(ends - 1):
                q.put(None)
            return got


def in_threads(jobs: list[tuple[Callable[..., Any], tuple[Any, ...]]]) -> list[Any]:
    """Run jobs in threads of this process; their results, or the first exception."""
    results: list[Any] = [None] * len(jobs)
    failures: list[BaseException] = []

    def run(place: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            results[place] = function(*arguments)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(place, *job), daemon=True) for place, job in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * LONG)
        if thread.is_alive():
            raise AssertionError("a thread hangs")
    if failures:
        raise failures[0]
    return results


def many_consume(q: Any, threads: int, style: str, seed: int) -> list[list[Item]]:
    """Consumers in threads of one process, with one handle."""
    return in_threads([(consume, (q, style, seed + 1000 * thread)) for thread in range(threads)])


def many_produce(q: Any, producers: list[int], count: int, style: str, seed: int) -> None:
    in_threads([(produce, (q, producer, count, style, seed + producer)) for producer in producers])


def get_to_the_end_and_stay(name: str, q: Any) -> list[Any]:
    """Get until a ``None`` comes, and keep the handle, and all that this process may still hold through it."""
    KEPT[name] = q
    got = []
    while True:
        item = q.get(True, LONG)
        if item is None:
            return got
        got.append(item)


def work_and_wait(q: Any, results: Any, barrier: Any) -> None:
    """A worker that stops at its end, and waits there for the others."""
    got = 0
    while q.get(True, LONG) is not None:
        got += 1
    barrier.wait(LONG)
    results.send(got)


def put_range(q: Any, start: int, stop: int) -> None:
    for number in range(start, stop):
        q.put(number)


def keep_and_put_range(name: str, q: Any, start: int, stop: int) -> None:
    """Put, and do nothing with the handle from then on; but keep it."""
    KEPT[name] = q
    put_range(q, start, stop)


def act(name: str, method: str, *arguments: Any) -> Any:
    """Call a method of a thing that is kept."""
    return getattr(KEPT[name], method)(*arguments)


def put_and_join(name: str, item: Any, timeout: float) -> bool:
    q = KEPT[name]
    q.put(item)
    return bool(q.join(timeout=timeout))


def sizes(name: str) -> tuple[int, bool, bool]:
    q = KEPT[name]
    return q.qsize(), q.empty(), q.full()


def check(histories: list[list[Item]], counts: dict[int, int], single: Optional[bool] = None) -> None:
    """Every item came exactly once, and each consumer saw each producer's items in their order."""
    everything = [item for history in histories for item in history]
    expected = {(producer, number) for producer, count in counts.items() for number in range(count)}
    missing = expected - set(everything)
    assert not missing, f"{len(missing)} of {len(expected)} items never came, e.g. {sorted(missing)[:10]}"
    doubled = [item for item, times in Counter(everything).items() if times > 1]
    assert not doubled, f"{len(doubled)} items came twice, e.g. {sorted(doubled)[:10]}"
    assert len(everything) == len(expected)
    for place, history in enumerate(histories):
        last: dict[int, int] = {}
        for producer, number in history:
            before = last.get(producer, -1)
            assert before < number, f"consumer {place} got {producer}'s item {number} after its {before}"
            last[producer] = number
