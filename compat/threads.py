"""Threads that use one handle at once, as free-threaded builds run them: each item arrives once, in its order.

    python -m compat.threads [--threads 50] [--minutes 1] [--maxsize 0]

In each round every thread puts its items and gets as many, by all methods for this, until all items have come through;
one handle serves all rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import threading
import time
from collections import Counter
from typing import Any

from tqshim import Empty, Full, JoinableTurboQueue

ITEMS = 300
"""Items of one thread in one round."""
WAIT = 60.0
Item = tuple[int, int, int]


def put_some(queue: Any, items: list[Item], chance: random.Random) -> None:
    """Put one item or a few, which are taken from the list; or none, if there is no room."""
    count = chance.choice((1, 1, 1, 2, 8))
    with contextlib.suppress(Full):
        if count == 1:
            queue.put(items[0], False)
        else:
            queue.put_many(items[:count], False)
        del items[:count]


def get_some(queue: Any, most: int, wait: bool, chance: random.Random) -> list[Item]:
    """Get one item or a few, at most as many as given."""
    try:
        way = chance.random()
        if way < 0.4:
            return [queue.get(wait, 0.01)]
        if way < 0.8:
            return list(queue.get_many(wait, 0.01, min(most, chance.randrange(1, 8))))
        with queue.claimed(wait, 0.01) as item:
            return [item]
    except Empty:
        return []


class Round:
    """One round."""

    def __init__(self, queue: Any, threads: int, number: int, maxsize: int = 0) -> None:
        self.queue = queue
        self.most = maxsize or sys.maxsize
        self.number = number
        self.begin = threading.Barrier(threads)
        self.got: list[list[Item]] = [[] for _ in range(threads)]
        self.failures: list[BaseException] = []

    def run(self, me: int) -> None:
        """Do what one thread does in a round."""
        chance = random.Random(f"{self.number} {me}")
        items, got = [(self.number, me, count) for count in range(ITEMS)], self.got[me]
        deadline = time.monotonic() + WAIT
        try:
            self.begin.wait(WAIT)
            while items or len(got) < ITEMS:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{len(items)} to put, {ITEMS - len(got)} to get, {self.queue.stats()}")
                if items and (chance.random() < 0.5 or len(got) == ITEMS):
                    put_some(self.queue, items, chance)
                else:
                    new = get_some(self.queue, ITEMS - len(got), not items, chance)
                    for _ in new:
                        self.queue.task_done()
                    got += new
                if chance.random() < 0.05:
                    assert 0 <= self.queue.qsize() <= min(self.most, len(self.got) * ITEMS - len(got))
        except BaseException as error:
            self.failures.append(error)

    def check(self) -> None:
        """Nothing is lost or doubled, and each thread has seen each other's items in their order."""
        if self.failures:
            raise self.failures[0]
        amounts = Counter(item for got in self.got for item in got)
        wanted = {(self.number, who, count) for who in range(len(self.got)) for count in range(ITEMS)}
        assert set(amounts) == wanted, (len(wanted - set(amounts)), len(set(amounts) - wanted))
        assert set(amounts.values()) == {1}, amounts.most_common(3)
        for got in self.got:
            last = [-1] * len(self.got)
            for _, who, count in got:
                assert count > last[who], (who, count, last[who])
                last[who] = count


def stress(threads: int, minutes: float, maxsize: int) -> int:
    """Run rounds for so long; return how many items came through."""
    queue = JoinableTurboQueue(maxsize)
    items, number, end = 0, 0, time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        this = Round(queue, threads, number, maxsize)
        workers = [threading.Thread(target=this.run, args=(me,)) for me in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        this.check()
        queue.join()
        assert queue.empty() and queue.stats().unfinished == 0
        items += threads * ITEMS
        number += 1
    return items


def main(arguments: list[str] | None = None) -> int:
    """Run for the given time; print how many items came through."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--maxsize", type=int, default=0)
    given = parser.parse_args(arguments)
    began = time.process_time()
    items = stress(given.threads, given.minutes, given.maxsize)
    free = not getattr(sys, "_is_gil_enabled", lambda: True)()
    cost = (time.process_time() - began) / items * 1e6
    build = "free-threaded, the lock is off" if free else "with the interpreter's lock"
    python = f"Python {sys.version.split()[0]}, {build}"
    print(f"{python}: {items:,} items, none lost or doubled; {cost:.1f} µs of processor each")
    return 0


if __name__ == "__main__":
    sys.exit(main())
