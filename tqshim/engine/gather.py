"""Letting items come together before one looks again.

Lives here: for how long a consumer that finds nothing leaves its queue alone.  Not here: sleeping until somebody rings
(``wait_policy``), taking several at once (``consumer``).

Where items come one by one, each just after the consumer has fallen asleep, every item costs both sides a wake-up.  A
consumer to which they come that fast lets some come, without a word to anybody: no producer rings, and one lease takes
them all.  It tries that now and then; where it did not help, as between two processes that wait for each other in
turn, more and more rarely.

Invariant: no item waits longer for that than ``GATHER_MOST``.
"""

from __future__ import annotations

from tqshim.engine import tuning

__all__ = ["Gathering"]

_FIRST = 4
_LAST = 12


class Gathering:
    """What one consumer knows of how fast items come."""

    __slots__ = ("_interval", "_misses", "_since", "_skip", "_taken")

    def __init__(self) -> None:
        self._interval = 1.0
        """Seconds from one item to the next, lately."""
        self._since = 0.0
        self._taken = 0
        self._misses = _FIRST
        self._skip = 1 << _FIRST
        """How often to sleep before the next try: twice as often after each that did not help."""

    def seconds(self, now: float, taken: int) -> float:
        """For how long to let items come, where nothing is left after so many.  0: sleep until somebody rings."""
        count = taken - self._taken
        if count:
            self._interval += (min(1.0, (now - self._since) / count) - self._interval) / 4
            self._taken, self._since = taken, now
        if not tuning.GATHERING or self._interval > tuning.GATHER_MOST / tuning.GATHER_FEW:
            return 0.0
        if self._skip:
            self._skip -= 1
            return 0.0
        wanted = tuning.GATHER_FEW + 1 if self._misses else tuning.GATHER_ITEMS
        return min(tuning.GATHER_MOST, wanted * self._interval)

    def came(self, count: int) -> None:
        """So many came meanwhile."""
        self._misses = 0 if count >= tuning.GATHER_FEW else min(_LAST, max(_FIRST, self._misses + 1))
        self._skip = (1 << self._misses) - 1
