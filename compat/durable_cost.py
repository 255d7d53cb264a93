"""What a durable queue costs on the disk on which a folder lies: puts and gets, beside a queue that is not durable.

    python -m compat.durable_cost [folder] [--authkey] [--items N] [--rounds N]

With ``--authkey``: what a queue with a key costs, beside one without.

The kinds take turns. Printed are the medians of microseconds an item, the ratio in brackets, and what two fsyncs after
two small appends take by themselves: less than that no put can.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from tqshim import TurboQueue

MANY: Final = 100
"""Items of one ``put_many``."""
THREADS: Final = 16
LARGE: Final = bytes(1_000_000)
ITEM: Final = {"customer": 12345, "order": "two of these, one of those", "when": 1700000000.25}


def one_by_one(queue: Any, count: int) -> None:
    for _ in range(count):
        queue.put(ITEM)


def many(queue: Any, count: int) -> None:
    for _ in range(0, count, MANY):
        queue.put_many([ITEM] * MANY)


def threads(queue: Any, count: int) -> None:
    running = [threading.Thread(target=one_by_one, args=(queue, count // THREADS)) for _ in range(THREADS)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


def get(queue: Any, count: int) -> None:
    for _ in range(count):
        queue.get()


def large(queue: Any, count: int) -> None:
    for _ in range(count):
        queue.put(LARGE)
        queue.get()


WAYS: Final[dict[str, tuple[Callable[[Any, int], None], int]]] = {
    "put, one by one": (one_by_one, 1),
    f"put, {THREADS} threads at once": (threads, 4),
    f"put_many of {MANY}": (many, 20),
    "get, one by one": (get, 20),
    "put and get of 1 MB": (large, 1),
}
"""What is done, and to how many times the items that were asked for: the quick ways need more."""


def measure(folder: str, items: int, **kind: Any) -> dict[str, float]:
    """Microseconds an item, by way, of queues of that kind."""
    taken = {}
    with tempfile.TemporaryDirectory(dir=folder) as root:
        for name, (way, times) in WAYS.items():
            with TurboQueue(path=f"{root}/{way.__name__}", **kind) as queue:
                count = max(MANY, items * times // MANY * MANY)
                if way is get:
                    many(queue, count)
                begun = time.perf_counter()
                way(queue, count)
                taken[name] = (time.perf_counter() - begun) / count * 1e6
    return taken


def two_syncs(folder: str, count: int) -> float:
    """Microseconds of an append and an fsync to one file, then to another."""
    with tempfile.TemporaryFile(dir=folder, buffering=0) as one, tempfile.TemporaryFile(dir=folder, buffering=0) as two:
        begun = time.perf_counter()
        for _ in range(count):
            for file in (one, two):
                file.write(bytes(64))
                os.fsync(file.fileno())
        return (time.perf_counter() - begun) / count * 1e6


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m compat.durable_cost", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("folder", nargs="?", default=".", help="where the queues are made (default: here)")
    parser.add_argument("--authkey", action="store_true", help="what a key costs, not what durability costs")
    parser.add_argument("--items", type=int, default=500, help="items that are put one by one (default: 500)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: 5)")
    options = parser.parse_args(arguments)
    what, kind = ("authkey", {"authkey": os.urandom(32)}) if options.authkey else ("durable", {"durable": True})
    rounds = []
    for _ in range(options.rounds):
        plain, other = measure(options.folder, options.items), measure(options.folder, options.items, **kind)
        rounds.append((plain, other, two_syncs(options.folder, options.items)))
    for name in WAYS:
        plain_one, other_one = (statistics.median(turn[at][name] for turn in rounds) for at in (0, 1))  # type: ignore[index]
        print(f"{name:<28}{plain_one:8.1f} µs   {what}: {other_one:8.1f} µs ({other_one / plain_one:.1f})")
    print(f"{'two appends, two fsyncs':<28}{statistics.median(turn[2] for turn in rounds):8.1f} µs")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
