"""When a process looks, sleeps, rings and is rung for.

Lives here: whom to wake and when; looking before sleeping.  Not here: how one sleeps (``bell``), what one waits for
(``consumer``, ``producer``).

A process that falls asleep says so in its own cell, then in the queue's word of that kind, and looks once more.  A
process that has put something looks at that word alone.  If the word is set, it clears the word and rings for one
sleeper, which sets the word again if there are others.

Invariant: no sleeper depends on being rung for.  It looks by itself, soon at first, then after half a second for each
process that waits, ten seconds at most.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from math import inf

from tqshim.engine import tuning
from tqshim.engine.dozing import Dozing
from tqshim.engine.membership import Membership
from tqshim.engine.replica import Replica
from tqshim.engine.yielding import NO_TIME, Yielding
from tqshim.protocol import names
from tqshim.protocol.events import SIZE
from tqshim.runtime import locks, systems
from tqshim.runtime.clock import monotonic
from tqshim.storage.folder import LogFolder
from tqshim.storage.journal import Journal
from tqshim.sync import membarrier
from tqshim.sync.bell import Bell, pause
from tqshim.sync.cells import ASLEEP, AWAITS_DONE, AWAITS_PLACE, KINDS, SLEEPS, Cells, sleep_word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Optional, TypeAlias

__all__ = ["Seen", "Waiter"]

Seen: TypeAlias = "tuple[Journal, int, bytes]"
"""What a process knew when it looked for a place."""

PROCESSORS: Final = systems.processors()
_BELLS: Final = {SLEEPS: names.BELL, AWAITS_PLACE: names.SPACE, AWAITS_DONE: names.DONE}
ASIDE: Final = 5e-3
"""Seconds between two looks of a sleeper that stands aside."""
MOMENTS: Final = 8
"""Moments of one doze: each takes 55 to 90 us, all together about the longest wait that is dozed."""
MOMENT: Final = 3e-4
"""Seconds before a deadline in which nobody dozes."""
_kept: Final[set[Bell]] = set()
"""The bells of this process, in all its queues, that stay open."""
_PLACES_GAINED: Final = 5
"""Places that, as we suppose, come free beside the one for which somebody rings."""
_LUCK: Final = 0.3
"""Part of the last looks that must have found something, if a process is to look before it sleeps."""


class Waiter:
    """The sleep of one process in one queue."""

    __slots__ = (
        "_bells",
        "_dozing",
        "_first_since",
        "_folder",
        "_luck",
        "_members",
        "_passing",
        "_replica",
        "_yielding",
        "waiting",
    )

    def __init__(self, folder: LogFolder, replica: Replica, members: Membership) -> None:
        self._folder = folder
        self._replica = replica
        self._members = members
        self._bells: dict[int, Bell] = {}
        self._passing: dict[object, Bell] = {}
        """By sleeper: a bell for this sleep alone, where this process keeps enough open already."""
        self._dozing = Dozing()
        self._first_since = dict.fromkeys(KINDS, 0.0)
        self._luck = dict.fromkeys(KINDS, 1.0)
        self._yielding = {kind: Yielding() for kind in KINDS}
        self.waiting: dict[int, dict[object, bool]] = {kind: {} for kind in KINDS}
        """By kind: the threads and event loops of this process that sleep, and whether each stands aside."""

    def close(self) -> None:
        while self._bells:
            bell = self._bells.popitem()[1]
            _kept.discard(bell)
            bell.close()
        while self._passing:
            self._passing.popitem()[1].close()

    def bell(self, kind: int) -> Bell:
        """Return the bell that is rung for sleepers of that kind; it stays open."""
        bell = self._bells.get(kind)
        if bell is None:
            mine = Bell(self._folder.open_fifo(_BELLS[kind]))
            bell = self._bells.setdefault(kind, mine)
            if bell is mine:
                _kept.add(bell)
            else:  # another thread was faster
                mine.close()
        return bell

    def bell_for(self, kind: int, me: object) -> Bell:
        """Return the bell for ``me``, which will say that it sleeps: a ring stays only while somebody has it open."""
        bell = self._bells.get(kind) or self._passing.get(me)
        if bell is None and len(_kept) < tuning.BELLS:
            bell = self.bell(kind)
        elif bell is None:
            bell = self._passing[me] = Bell(self._folder.open_fifo(_BELLS[kind]))
        return bell

    # -- ringing

    def _ring(self, kind: int) -> None:
        if kind in self._bells or len(_kept) < tuning.BELLS:
            self.bell(kind).ring()
        else:
            passing = Bell(self._folder.open_fifo(_BELLS[kind]))
            try:
                passing.ring()
            finally:
                passing.close()

    def ring(self, kind: int) -> None:
        """Wake one sleeper, if there is one.  Needs no lock: whatever interrupts this, the next put rings."""
        members = self._members
        words, word = members.cells.words, ASLEEP[kind]
        said = words[word]
        if not said:
            return
        try:
            words[word] = 0
            locks.fence()  # A process that falls asleep from here on says so again, one that slept before is seen.
            if members.cells.is_asleep(kind, said) or members.sleepers(kind, 1):
                self._ring(kind)
        except BaseException:
            words[word] = 1
            raise

    def ring_surely(self, kind: int) -> None:
        """``ring`` for what is there already: even if one exception interrupts this, the sleepers are rung for."""
        try:
            self.ring(kind)
        except BaseException:
            self.ring(kind)
            raise

    def ring_again(self) -> None:
        """Let one sleeper of each kind look: an interrupted act may have rung for nobody, or for nobody but us."""
        for kind in KINDS:
            if self._members.sleepers(kind, 1):
                self._members.cells.words[ASLEEP[kind]] = 1
                self.ring(kind)

    def ring_all(self, kind: int) -> None:
        """Wake all sleepers of that kind."""
        self._members.cells.words[ASLEEP[kind]] = 0
        locks.fence()
        for _ in self._members.sleepers(kind):
            self._ring(kind)

    # -- sleeping

    def fall_asleep(self, kind: int, slot: int, me: object, until: float, nap: float, naps: int) -> None:
        """Say that ``me`` sleeps, and looks by itself at ``until``.  The caller must look once more at what is there.

        A put after that look sees that we sleep, a put before it is seen.  It is for us to ensure that: a put has no
        barrier.  The system's barrier interrupts every processor on which a process runs that uses queues, which took
        18 us; but where stores come in their order a store is seen in less than the microsecond that lies between our
        word and the look, and a put that should ever be missed costs a first nap."""
        cells = self._members.cells
        cell = Cells.place(kind, slot)
        waiting_here = self.waiting[kind]
        if me not in waiting_here:
            waiting_here[me] = False
        word = sleep_word(until, nap)
        cells.words[cell] = word if len(waiting_here) == 1 else max(word, cells.words[cell])
        if not systems.STORES_IN_ORDER and self._members.counting:
            membarrier.barrier()  # All processes that see the next word see this one.
        cells.words[ASLEEP[kind]] = slot + 2
        if (naps or not tuning.FIRST_NAPS) and self._members.counting:
            membarrier.barrier()
        locks.fence()

    def wake(self, kind: int, slot: int, me: object, more: bool) -> None:
        """Say that ``me`` sleeps no more.  ``more``: there is something for another sleeper, which is rung for."""
        cells = self._members.cells
        passing = self._passing.pop(me, None) if self._passing else None
        if passing is not None:
            passing.close()
        self.waiting[kind].pop(me, None)
        if not self.waiting[kind]:
            cells.words[Cells.place(kind, slot)] = 0
            if kind == SLEEPS and self._replica.ledger.members.consumers == 1:
                return  # nobody else can sleep
        if self._members.sleepers(kind, 1):
            cells.words[ASLEEP[kind]] = 1
            if more:
                self.ring(kind)
            self._take_turns(kind)

    def _take_turns(self, kind: int) -> None:
        """Other processes sleep, too: once this one has been the first to be woken for a while, let it be the last."""
        bell, now = self._bells.get(kind), monotonic()
        if bell is not None and now - self._first_since[kind] > tuning.TURN:
            self._first_since[kind] = now
            bell.stand_last()

    def pass_on(self, kind: int, me: object, there: int, rung: bool) -> None:
        """Let ``me`` sleep on, which wants more than there is.  If it was ``rung`` for, ring for another sleeper, which
        may want less.

        Until what is there is gone, or is enough, ``me`` stands aside: it must not take the other sleeper's ring."""
        waiting_here = self.waiting[kind]
        aside = waiting_here[me]
        others = there > 0 and max(len(waiting_here), len(self._members.sleepers(kind, 2))) > 1
        waiting_here[me] = others and (rung or aside)
        if waiting_here[me] and not aside:
            self._members.cells.words[ASLEEP[kind]] = 1
            self.ring(kind)

    def rest(self, kind: int, me: object, bell: Bell, seconds: float) -> bool:
        """Sleep for so long, or until somebody rings: then return ``True``."""
        if self.waiting[kind].get(me):
            pause(max(0.0, min(seconds, ASIDE)))
            return False
        return bell.sleep(seconds)

    def nap(self, kind: int, naps: int) -> float:
        """Return how many seconds to sleep after so many naps: longer beside other sleepers, which look, too."""
        ledger = self._replica.ledger
        waiters = ledger.members.consumers if kind == SLEEPS else len(ledger.members.by_slot)
        nap = tuning.NAP
        if naps:  # the first one is short, and often all that is needed
            nap *= 1 << min(naps, 64)
            if waiters > 1:
                waiters = len(self._members.sleepers(kind))
        if nap > tuning.NAP_LAST:
            nap = tuning.NAP_LAST
        if waiters > 1:
            nap *= waiters
        return nap if nap < tuning.NAP_MOST else tuning.NAP_MOST

    # -- looking

    def _is_more(self, counters: bytes) -> bool:
        """Return whether the counters are beyond what is cut, as far as can be seen without the lock."""
        try:
            return self._replica.ledger.uncut(counters) > 0
        except RuntimeError:  # another thread reads the journal at this moment
            return True

    def may_spin(self, kind: int) -> bool:
        """Return whether it is worth looking for a moment before sleeping, or dozing: asked once a wait.  It is not
        worth looking on a machine where others want the processor: where most looks find nothing, or where a consumer
        has as many producers as there are processors."""
        ledger = self._replica.ledger
        if kind == SLEEPS:
            if ledger.producers >= PROCESSORS:
                return False
            if tuning.DOZING and self._dozing.begin(monotonic()):
                return True
        if self._luck[kind] < _LUCK:
            self._luck[kind] += 0.0005
            return False
        return tuning.SPINNING and PROCESSORS > 1

    def spin(self, deadline: float, seen: bytes) -> bool:
        """Look for a moment before sleeping, as waking up would cost more; or doze.  ``seen``: the counters as they
        were.  ``False``: nothing new."""
        counters: Callable[[], bytes] = self._members.cells.counters
        with contextlib.suppress(ValueError):  # forked just now, in the middle of a line (3.9): cells of its parent
            last = counters()
            # Counters that differ may bring nothing: where a producer was killed between its event and its store.
            more = self._is_more
            look = self._doze if self._dozing.on else self._look
            return look(SLEEPS, deadline, lambda: last == counters() and (last == seen or not more(last)))
        return True

    def spin_for_place(self, deadline: Optional[float]) -> bool:
        """Look for a moment until the only other member, which is about to, has taken something or written about it."""
        if len(self._replica.ledger.members.by_slot) > 2:
            return False
        seen = self.seen(self._members.cells.given())
        return self._look(AWAITS_PLACE, inf if deadline is None else deadline, lambda: self.is_still(seen))

    def give_way(self, kind: int, known: Optional[Callable[[], bytes]] = None) -> None:
        """Let the process that has rung get on first, if it runs on this processor, and if that pays.  ``known``: the
        counters up to which we have looked, if we wait for items."""
        yielding = self._yielding[kind]
        if not (tuning.YIELDING and self._may_get_more(kind) and yielding.is_wanted()):
            return
        began = monotonic()
        systems.give_way()
        took = monotonic() - began
        if known is None:
            yielding.note(took, _PLACES_GAINED)
        elif took > NO_TIME:
            with contextlib.suppress(ValueError):  # forked just now
                yielding.note(took, _sum(self._members.cells.counters()) - _sum(known()) - 1)

    def _may_get_more(self, kind: int) -> bool:
        """Return whether the process that has rung may be about to do more for us, and does not wait for our answer."""
        ledger = self._replica.ledger
        if kind == AWAITS_PLACE:
            return ledger.members.consumers == 1 < ledger.producers
        return ledger.producers > 1 or ledger.members.consumers > 1

    def seen(self, given: bytes) -> Seen:
        """Return how far the journal is read, and what leases had ``given`` before it was read."""
        return self._replica.journal, self._replica.pos, given

    def is_still(self, seen: Seen) -> bool:
        """Return whether nothing was delivered, and nothing written to the journal, since ``seen``, as far as can be
        seen without the lock.  Where another thread has read on, there is something."""
        replica, members = self._replica, self._members
        try:
            still = self.seen(members.cells.given()) == seen and not members.position()
            return still and not replica.journal.read(replica.pos, SIZE)
        except (OSError, ValueError):  # another thread, or a signal handler, leaves that journal at this moment
            return False

    def _doze(self, _kind: int, deadline: float, nothing_new: Callable[[], bool]) -> bool:
        """Sleep for moments, as short as the system has them, and look after each.  ``False``: nothing new."""
        for _ in range(MOMENTS):
            if not nothing_new():
                return True
            if monotonic() > deadline - MOMENT:
                return False
            pause(1e-6)
        return not nothing_new()

    def _look(self, kind: int, deadline: float, nothing_new: Callable[[], bool]) -> bool:
        """Look for a moment, and note what came of it.  ``False``: nothing new."""
        stop = min(monotonic() + tuning.SPIN, deadline)
        hit = True
        while nothing_new():
            if monotonic() > stop:
                hit = False
                break
        # A hit that took that long was no luck: we may have kept the very process from running that we waited for.
        self._luck[kind] += ((hit and monotonic() < stop) - self._luck[kind]) * 0.1
        return hit


def _sum(counters: bytes) -> int:
    return sum(memoryview(counters).cast("Q"))
