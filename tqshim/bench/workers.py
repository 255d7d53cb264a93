"""Consumers that work on what they get.

Lives here: the processes that do tasks, and their feeders.  Not here: processes that only move items
(``workloads``), starting processes (``runs``).

Invariant: where results come back (``serve``), each comes exactly once, or the run gives no figure.  Elsewhere ``runs``
counts the tasks that were done.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple, Optional

from tqshim.bench.crew import RunError
from tqshim.bench.workloads import ITEM_WIDTH, PATIENCE

__all__ = ["Work", "burn", "consume_working", "feed", "serve", "work"]


class Work(NamedTuple):
    """What one consumer that works has measured."""

    began: float
    last: float
    items: int
    working: float
    """Seconds of processor time in its tasks."""
    queueing: float
    """Seconds of processor time in ``get``, without the first, in which the consumer joins, and the last, in which it
    waits for the end."""


def burn(turns: int) -> int:
    """A task that does nothing but use the processor: about a hundredth of a microsecond a turn."""
    return sum(range(turns))


def feed(queue: Any, count: int, consumers: int, gate: Any) -> None:
    """Put so many tasks, and then a ``None`` for each consumer, which ends it."""
    gate.wait()
    for number in range(count):
        queue.put((number,) * ITEM_WIDTH)
    for _ in range(consumers):
        queue.put(None)


def work(queue: Any, turns: int, gate: Any, endless: Optional[float]) -> Work:
    """Get and do tasks until ``None`` comes."""
    clock = time.process_time_ns
    working = queueing = items = 0
    gate.wait()
    began = last = time.monotonic()
    while True:
        before = clock()
        item = queue.get(True, endless)
        between = clock()
        if item is None:
            break
        burn(turns)
        after = clock()
        last = time.monotonic()
        queueing += between - before if items else 0
        working += after - between
        items += 1
    return Work(began, last, items, working / 1e9, queueing / 1e9)


def consume_working(
    tasks: Any, results: Any, seconds: float, computing: bool, gate: Any, endless: Optional[float]
) -> None:
    """Work so long for each task, computing or waiting, and put how long the work took.  End when ``None`` comes."""
    gate.wait()
    while True:
        task = tasks.get(True, endless)
        if task is None:
            break
        began = time.monotonic()
        if not computing:
            time.sleep(seconds)
        while time.monotonic() - began < seconds:
            pass
        results.put((task, time.monotonic() - began))


def serve(tasks: Any, results: Any, rows: int, size: int, consumers: int, gate: Any, limit: float) -> float:
    """Put rows of tasks, each row when the one before it is done; return the time that all rows took, over the time
    that sharing the work perfectly would have taken."""
    gate.wait()
    time.sleep(PATIENCE)  # by then the consumers wait
    taken = perfect = 0.0
    for row in range(rows):
        began = time.monotonic()
        for number in range(size):
            tasks.put((row, number))
        got = [results.get(True, limit) for _ in range(size)]
        taken += time.monotonic() - began
        if sorted(task for task, _ in got) != [(row, number) for number in range(size)]:
            raise RunError(f"results of row {row} are lost or doubled")
        perfect += sum(worked for _, worked in got) / consumers
    for _ in range(consumers):
        tasks.put(None)
    return taken / perfect
