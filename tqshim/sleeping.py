"""The engine's sleep: when a process looks, sleeps, rings and is rung for.

Lives here: whom to wake and when; looking before sleeping.  Not here: how one sleeps (``waiting``).

Invariant: nobody depends on being rung: a sleeper looks by itself, soon at first, then every half second.
"""

from __future__ import annotations

from typing import Final, Optional

from . import names, systems, tuning, waiting
from .clock import microseconds, monotonic
from .core import Core
from .waiting import Bell, Cells

__all__ = ["Sleeping"]

SEVERAL_PROCESSORS: Final = systems.processors() > 1
_BELLS: Final = {waiting.SLEEPS: names.BELL, waiting.AWAITS_PLACE: names.SPACE, waiting.AWAITS_DONE: names.DONE}


class Sleeping(Core):
    """An engine that can wait."""

    def _bell(self, kind: int) -> Bell:
        name = _BELLS[kind]
        bell = self._bells.get(name)
        if bell is None:
            bell = self._bells[name] = Bell(self.folder.open_fifo(name))
        return bell

    def _ring(self, kind: int) -> None:
        """Wake one who sleeps, if somebody does."""
        if self.cells.anybody(kind) and self.cells.sleepers(kind):
            self._bell(kind).ring()

    def _ring_all(self, kind: int) -> None:
        """Wake all who sleep."""
        self._map_all_cells()
        if self.cells.anybody(kind):
            for _ in self.cells.sleepers(kind):
                self._bell(kind).ring()

    def _ring_for_items(self) -> None:
        """We have published: wake a consumer, unless another is awake, and fast enough to take these items first."""
        sleepers = self.cells.sleepers(waiting.SLEEPS)
        if not sleepers:
            return
        taken = self._delivered() - self._head_then
        fast = len(sleepers) < self.ledger.consumers and taken * tuning.FAST >= monotonic() - self._published_at
        # If the awake took the items before these faster than another can wake, and one looks by itself soon: leave it.
        if not fast or min(sleepers) >= microseconds() + tuning.SOON:
            self._bell(waiting.SLEEPS).ring()

    def _offer_space(self) -> None:
        """Places are free again: wake a producer, once that is worth it, or at once if we are slow; one that was only
        kept from running is not."""
        now = monotonic()
        passed = now - self._offered_at
        slow = passed > tuning.LINGER and passed > tuning.FAST * (self._taken - self._offered_with)
        self._offered_at, self._offered_with = now, self._taken
        if slow or 4 * self.ledger.used <= 3 * self.maxsize:
            self._ring(waiting.AWAITS_PLACE)

    def _measure_pace(self) -> None:
        count = self._taken - self._pace_from
        if count >= tuning.PACE_ITEMS:
            now = monotonic()
            self._pace = (now - self._pace_at) / count
            self._pace_from, self._pace_at = self._taken, now

    def _wait(self, kind: int, deadline: Optional[float], places: int = 1, polite: bool = False) -> None:
        """Wait until there is something to get, or a place to put to, or all is finished with; returns at the deadline
        too.

        ``polite``: another is taking what is there, and it is our turn after a nap."""
        self._hurry_elsewhere()
        items = kind == waiting.SLEEPS
        if items and not polite and self._spin(deadline):
            return
        started = monotonic()
        self._measure_pace()
        with self._lock:
            self._begin()
            if items and self._consumer is None:
                self._join(consumer=True)
            slot = self._consumer if items else self._slot()
            assert slot is not None
            cell = Cells.place(kind, slot)
            bell = self._bell(kind)
            generation = self.generation
            self._act_ends()
        me = object()
        try:
            self._waiters[kind].add(me)
            self._nap(kind, deadline, places, cell, bell, polite)
        finally:
            with self._lock:
                if generation == self.generation:
                    self._waiters[kind].discard(me)
                    if not self._waiters[kind]:
                        self._words[cell] = 0
        self._woken_at = monotonic()
        self._pace_at += self._woken_at - started

    def _nap(self, kind: int, deadline: Optional[float], places: int, cell: int, bell: Bell, polite: bool) -> None:
        generation = self.generation
        wanted = max(places, self._enough) if kind == waiting.AWAITS_PLACE else places
        nap = tuning.NAP * max(1, self.ledger.consumers if kind == waiting.SLEEPS else len(self.ledger.members))
        nap = min(tuning.NAP_LAST, nap)
        naps = 0
        rung = False
        while True:
            now = monotonic()
            seconds = nap if deadline is None else min(nap, deadline - now)
            with self._lock:
                if generation != self.generation:
                    return
                self._begin()
                ready = False
                if rung:
                    self._sync()
                    ready = self._ready(kind, wanted)
                if not ready:
                    word = waiting.sleep_word(now + max(0.0, seconds), nap)
                    if len(self._waiters[kind]) > 1:
                        word = max(word, self._words[cell])
                    self._words[cell] = word
                    # A barrier: whoever publishes after this look sees that we sleep.
                    with self._fence:
                        pass
                    self._sync()
                    ready = self._ready(kind, wanted) and not (polite and self._leased_by_another())
                    if not ready and self._scan_if_due(now):
                        ready = self._ready(kind, wanted)
                    elif self.ledger.done:
                        self._reclaim()
                if ready and rung:
                    self._pass_on(kind, cell)
                self._act_ends()
            if ready or seconds <= 0:
                return
            rung = bell.sleep(seconds)
            polite = False
            if not rung and kind == waiting.AWAITS_PLACE and (self.ledger.res or self.ledger.lease):
                return  # grants may hide places, their holders may be stopped: the caller ends them
            wanted = places
            naps += 1
            if naps > tuning.NAPS:
                nap = min(tuning.NAP_LAST, 2 * nap)
            if naps == tuning.NAPS:
                self._end_used_lease()

    # -- for those who must not sleep themselves, but have an event loop that does

    def bell(self, kind: int) -> Bell:
        """The bell that is rung for who waits for that."""
        with self._lock:
            self._begin()
            bell = self._bell(kind)
            self._act_ends()
        return bell

    def watch(self, kind: int, me: object, wanted: int, naps: int, rung: bool) -> tuple[int, float]:
        """Say that somebody sleeps who wants so many items or places, woke up by itself so often, or was rung for.

        Returns how many there are, and within how many seconds ``me`` must look again.  Where there are enough, ``me``
        sleeps no more."""
        items = kind == waiting.SLEEPS
        with self._lock:
            self._begin()
            if items and self._consumer is None:
                self._join(consumer=True)
            slot = self._consumer if items else self._slot()
            assert slot is not None
            now = monotonic()
            nap = tuning.NAP * max(1, self.ledger.consumers if items else len(self.ledger.members))
            nap = min(tuning.NAP_LAST, nap * 2 ** max(0, naps - tuning.NAPS))
            if self.ledger.shut and not self.ledger.held:
                nap = tuning.NAP
            cell = Cells.place(kind, slot)
            self._waiters[kind].add(me)
            word = waiting.sleep_word(now + nap, nap)
            self._words[cell] = max(word, self._words[cell]) if len(self._waiters[kind]) > 1 else word
            # A barrier: whoever publishes after this look sees that we sleep.
            with self._fence:
                pass
            there = self._available(kind)
            if self._scan_if_due(now):
                there = self._available(kind)
            if there >= wanted:
                self._forget_waiter(kind, me, cell)
                if rung and there > wanted:
                    self._ring(kind)
            self._act_ends()
        if naps == tuning.NAPS:
            self._end_used_lease()
        return there, nap

    def unwatch(self, kind: int, me: object) -> None:
        """Nobody sleeps there any more, or another takes over."""
        with self._lock:
            slot = self._consumer if kind == waiting.SLEEPS else self._producer
            if slot is not None and not self._stale:
                self._forget_waiter(kind, me, Cells.place(kind, slot))

    def _forget_waiter(self, kind: int, me: object, cell: int) -> None:
        self._waiters[kind].discard(me)
        if not self._waiters[kind]:
            self._words[cell] = 0

    def _pass_on(self, kind: int, cell: int) -> None:
        """We were rung for: ring for the next, where more is there than we take."""
        if kind == waiting.AWAITS_DONE or self.ledger.shut:
            # Each process that sleeps has been rung for once; its other threads may go, too.
            if len(self._waiters[kind]) > 1:
                self._bell(kind).ring()
            return
        if kind == waiting.SLEEPS:
            if self._count_waiting() < 2:
                return
        elif self.maxsize - self.ledger.used < 2 * self._enough:
            return
        self._words[cell] = 0
        sleepers = self.cells.sleepers(kind)
        if not sleepers:
            return
        if kind == waiting.SLEEPS and self._pace < tuning.FAST and min(sleepers) < microseconds() + tuning.SOON:
            return  # Whoever it is looks by itself within moments, and probably we have emptied the queue by then.
        self._bell(kind).ring()

    def _leased_by_another(self) -> bool:
        lease = self.ledger.lease
        return lease is not None and not self._holds(lease)

    def _spin(self, deadline: Optional[float]) -> bool:
        """Look for a moment before sleeping: waking up would cost more.  One looker a queue."""
        if not (tuning.SPINNING and SEVERAL_PROCESSORS):
            return False
        self._spins += 1
        if self._luck < 0.5 and self._spins & 15:
            return False
        words = self._words
        now = monotonic()
        if 0 < words[waiting.LOOKS] - int(now * 1e6) < 1e6:
            return False
        stop = now + tuning.SPIN if deadline is None else min(now + tuning.SPIN, deadline)
        seen = words[waiting.PUBLISHED]
        words[waiting.LOOKS] = int(stop * 1e6)
        hit = True
        while words[waiting.PUBLISHED] == seen:
            if monotonic() >= stop:
                hit = False
                break
        words[waiting.LOOKS] = 0
        # On a busy machine we may have kept the very producer from running: what took that long was no luck.
        self._luck += ((hit and monotonic() < stop) - self._luck) * 0.25
        return hit
