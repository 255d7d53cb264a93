"""What durability costs, and what a key costs: puts and gets of a queue with one of them, beside a queue with neither.

Lives here: the ways in which items are put and got, and their time.  Not here: which are measured (``measurements``).

The queues lie on the disk of the temporary folder, which ``TMPDIR`` chooses.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from tqshim.bench.kinds import FILES, Kind
from tqshim.bench.runs import Setting
from tqshim.queues.queue import TurboQueue

__all__ = ["WAYS", "cost"]

MANY: Final = 100
"""Items of one ``put_many``."""
THREADS: Final = 16
LARGE: Final = bytes(1_000_000)
ITEM: Final = {"customer": 12345, "order": "two of these, one of those", "when": 1700000000.25}


def _put(queue: Any, count: int) -> None:
    for _ in range(count):
        queue.put(ITEM)


def _put_many(queue: Any, count: int) -> None:
    for _ in range(0, count, MANY):
        queue.put_many([ITEM] * MANY)


def _put_in_threads(queue: Any, count: int) -> None:
    running = [threading.Thread(target=_put, args=(queue, count // THREADS)) for _ in range(THREADS)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


def _get(queue: Any, count: int) -> None:
    for _ in range(count):
        queue.get()


def _move_large(queue: Any, count: int) -> None:
    for _ in range(count):
        queue.put(LARGE)
        queue.get()


def _append_twice(folder: str, count: int) -> None:
    """Append to one file, then to another; each append returns when its bytes are on the disk.  A durable put does at
    least that."""
    files = [os.open(f"{folder}/{name}", os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_SYNC) for name in ("one", "two")]
    try:
        for _ in range(count):
            for file in files:
                os.write(file, bytes(64))
    finally:
        for file in files:
            os.close(file)


class Way(NamedTuple):
    """One way to use a queue."""

    title: str
    use: Callable[[Any, int], None]
    items: int
    """Items at full count; a quick way needs more of them for its time to be measured."""


WAYS: Final = {
    "put": Way("put, one by one", _put, 500),
    "threads": Way(f"put, {THREADS} threads at once", _put_in_threads, 2_000),
    "put_many": Way(f"put_many of {MANY}", _put_many, 10_000),
    "get": Way("get, one by one", _get, 10_000),
    "1MB": Way("put and get of 1 MB", _move_large, 500),
}


def cost(kind: Kind, setting: Setting, way: str) -> list[float]:
    """Return microseconds an item."""
    count = setting.count(WAYS[way].items // MANY) * MANY
    with tempfile.TemporaryDirectory() as folder:
        if kind.name == FILES:
            return [_timed(_append_twice, folder, count)]
        with TurboQueue(path=f"{folder}/queue", **kind.options) as queue:
            if way == "get":
                _put_many(queue, count)
            return [_timed(WAYS[way].use, queue, count)]


def _timed(use: Callable[[Any, int], None], what: Any, count: int) -> float:
    began = time.perf_counter()
    use(what, count)
    return (time.perf_counter() - began) / count * 1e6
