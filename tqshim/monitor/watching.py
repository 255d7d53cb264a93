"""A queue's rates, seen from outside.

Lives here: what happens between two looks.  Not here: how one looks (``looking``), what a person sees (``cli``).

Invariant: a look costs as much as what has happened since the last look, and one journal's events at most, however long
ago that was; between looks nothing is done.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Final, Optional

from tqshim.monitor.view import View
from tqshim.sync.cells import AWAITS_PLACE, SLEEPS

__all__ = ["Rates", "Watch", "watch"]

REMEMBERED: Final = 4096
"""Looks that are remembered to tell an item's age; when there are more, every second one is forgotten."""


@dataclass(frozen=True)
class Rates:
    """What a look found, and what has happened since the one before."""

    path: str
    seconds: float
    """Between the two looks."""
    put_rate: float
    """Items put, a second."""
    got_rate: float
    """Items got, a second."""
    items: int
    """Items that can be got now."""
    put: int
    """Items put since the queue was made."""
    got: int
    maxsize: int
    consumers: int
    producers: int
    waiting_consumers: int
    waiting_producers: int
    oldest_at_least: Optional[float]
    """Seconds for which the oldest item has waited, at least; ``None`` where there is none, or nothing is known."""
    oldest_at_most: Optional[float]
    """The same, at most; ``None`` for an item that was there before the watch began."""


class Watch:
    """Looks at one queue, again and again.  Raises what ``View`` raises."""

    def __init__(self, path: str) -> None:
        self._view = View(path)
        try:
            self._view.look()
            self._at = monotonic()
            self._put, self._got = self._view.put, self._count_got()
        except BaseException:
            self._view.close()
            raise
        self._seen: list[tuple[int, float, float]] = [(self._put, self._at, self._at)]
        """Numbers of items put; for each number, from when until when looks have seen it."""

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._view.close()

    def look(self) -> Rates:
        """What has happened since the last look.  Raises ``FileNotFoundError`` where the queue has gone."""
        view = self._view
        view.check_presence()
        ledger = view.look()
        now = monotonic()
        put, got, cells = view.put, self._count_got(), view.cells
        seconds = max(now - self._at, 1e-9)
        at_least, at_most = self._oldest(view.delivered, put, now)
        rates = Rates(
            path=view.path,
            seconds=seconds,
            put_rate=max(0.0, (put - self._put) / seconds),
            got_rate=max(0.0, (got - self._got) / seconds),
            items=view.waiting,
            put=put,
            got=got,
            maxsize=ledger.maxsize,
            consumers=ledger.members.consumers,
            producers=ledger.producers,
            waiting_consumers=len(cells.sleepers(SLEEPS)) if cells else 0,
            waiting_producers=len(cells.sleepers(AWAITS_PLACE)) if cells else 0,
            oldest_at_least=at_least,
            oldest_at_most=at_most,
        )
        self._at, self._put, self._got = now, put, got
        return rates

    def _count_got(self) -> int:
        """Return how many items count as got: those in a block of ``claimed``, or come back from one, do not."""
        return self._view.delivered - self._view.ledger.holds.apart

    def _oldest(self, got: int, put: int, now: float) -> tuple[Optional[float], Optional[float]]:
        """Return the seconds for which item ``got`` has waited: at least, at most."""
        seen = self._seen
        if put == seen[-1][0]:
            seen[-1] = put, seen[-1][1], now
        else:
            seen.append((put, now, now))
        while len(seen) > 1 and seen[1][0] <= got:
            del seen[0]
        if len(seen) > REMEMBERED:
            del seen[1:-1:2]
        if put <= got:
            return None, None
        before, _, until = seen[0]
        if before > got:  # it was there when the watch began
            at_least = now - seen[0][1]
            return max(at_least, self._view.oldest_at_least or 0.0), None
        return now - seen[1][1], now - until


def watch(path: str, interval: float = 1.0, count: Optional[int] = None) -> Iterator[Rates]:
    """Rates every ``interval`` seconds, ``count`` times or for ever.  Raises what ``View`` raises.

    >>> queue = TurboQueue(path="jobs")
    >>> queue.put("a")
    >>> [rates.items for rates in watch("jobs", interval=0.01, count=2)]
    [1, 1]"""
    if interval <= 0:
        raise ValueError(f"interval={interval} must be above 0")
    with Watch(path) as looking:
        due = monotonic()
        while count is None or count > 0:
            # Counted from the first look: the time that looks take does not add up.
            due = max(due + interval, monotonic())
            time.sleep(max(0.0, due - monotonic()))
            yield looking.look()
            if count is not None:
                count -= 1
