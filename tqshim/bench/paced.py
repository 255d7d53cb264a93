"""Puts at a pace: a producer that works between two of them, and one consumer that waits for each item.

Lives here: those two processes, and how long an item takes them.  Not here: which paces are measured
(``measurements``).

With ``TurboQueue`` the producer's own thread pickles an item and wakes the consumer.  The standard library's queue has
another thread for both.
"""

from __future__ import annotations

import time
from typing import Any, Final, Optional

from tqshim.bench.crew import Crew
from tqshim.bench.kinds import Kind, queues
from tqshim.bench.runs import Setting

__all__ = ["WORK", "pace"]

WORK: Final = (("30us", 30e-6), ("60us", 60e-6), ("120us", 120e-6))
"""Names and seconds of the work before each put."""
ITEMS: Final = 200_000
ATTRIBUTES: Final = 90
ROOM: Final = 4096
"""Bytes of one item's record, at most."""


class Item:
    """An object with many attributes, such as a parser of network traffic makes."""

    def __init__(self) -> None:
        for number in range(ATTRIBUTES):
            setattr(self, f"attribute_{number}", number * 1.5 if number % 3 else f"text {number}")


def put_at_pace(queue: Any, count: int, work: float, gate: Any) -> tuple[float, float]:
    """Put so many items; return the times when the first work began, and when the last item had been put."""
    item = Item()
    gate.wait()
    began = time.monotonic()
    for _ in range(count):
        until = time.perf_counter() + work
        while time.perf_counter() < until:
            pass
        queue.put(item)
    return began, time.monotonic()


def take(queue: Any, count: int, gate: Any, endless: Optional[float]) -> float:
    """Get so many items; return the time when the last had come."""
    gate.wait()
    for _ in range(count):
        queue.get(True, endless)
    return time.monotonic()


def pace(kind: Kind, setting: Setting, work: float) -> list[float]:
    """Return microseconds an item, the work among them: until the last item was got, and until it was put."""
    count = setting.count(ITEMS, 100)
    context = setting.context
    with queues(kind, context, 1, room=count * ROOM) as (queue,), Crew(context, setting.limit) as crew:
        gate = context.Barrier(2, timeout=setting.limit)
        putting = crew.start(put_at_pace, queue, count, work, gate)
        getting = crew.start(take, queue, count, gate, kind.endless)
        began, put = crew.result(putting)
        got = crew.result(getting)
        crew.join(putting)
    return [1e6 * (got - began) / count, 1e6 * (put - began) / count]
