"""The engine's items that may come back: each is held while a block runs, and then is got, or given back.

Lives here: holding an item, letting it go, and getting what has come back.  Not here: blocks and unpickling
(``queues``).

Invariant: an item that is held here belongs to a block that runs, or to an act that is under way.  Whatever becomes of
this process, the journal has it: a GOT ends it, or it comes back.
"""

from __future__ import annotations

from typing import Optional
from weakref import WeakValueDictionary

from . import blocks, events, waiting
from .blocks import NewRecord
from .clock import monotonic
from .core import Handed, Taken, looked
from .errors import CorruptBatchError
from .getting import Getting
from .ledger import Held

__all__ = ["Claiming", "Hold"]


class Hold:
    """An item that a block of this process has.  Where nobody refers to this any more, it comes back."""

    __slots__ = ("__weakref__", "before", "generation", "number", "record", "times")

    def __init__(self, record: Taken, number: Optional[int], times: int, generation: int) -> None:
        self.record = record
        self.number = number
        """That of its HOLD; ``None``: an interrupted get had taken the item, so it is this process's own."""
        self.times = times
        """How often it had come back before."""
        self.generation = generation
        self.before: list[tuple[NewRecord, int]] = []
        """What this process held back when the block began, in each of its queues: the oldest, and how many."""


class Claiming(Getting):
    """An engine whose items can come back."""

    def _reset(self) -> None:
        super()._reset()
        self._blocks: WeakValueDictionary[int, Hold] = WeakValueDictionary()
        """By number: what the blocks have that run in this process."""
        self._again: list[tuple[Taken, int]] = []
        """Records in the hand that blocks have had, and how often."""

    def hold(self, found: list[Hold], block: bool, timeout: Optional[float]) -> None:
        """Append to ``found`` the oldest item; nothing: the queue was empty all the time.

        If this raises, what ``found`` holds is held, and is to be let go."""
        if (not block or timeout is not None) and self._stands_above_itself():
            self._sleep_above_itself(block, timeout)
            return
        deadline: Optional[float] = None
        looked_again = False
        while True:
            generation = self.generation
            state = self._state
            try:
                with self._lock:
                    self._begin()
                    generation = self.generation
                    state = self._state
                    self._hold(found)
                    self._act_ends()
            except BaseException as error:
                if self._state is state and found and found[0].number is None:
                    found.clear()  # still in the hand
                if generation == self.generation or not isinstance(error, (OSError, ValueError)):
                    raise
            if generation != self.generation:  # forked in the middle: what was found is the parent's
                found.clear()
                continue
            if found:
                return
            late = None
            if self.ledger.shut and not self._count_waiting():
                late = self._late_until()
                if late is None:
                    if looked_again:
                        self.over = True
                        return
                    looked_again = True  # What was held back was published before its cell was cleared.
                    continue
            if not block:
                return
            if timeout is not None:
                if deadline is None:
                    deadline = monotonic() + timeout
                if monotonic() >= deadline:
                    return
            try:
                self._wait(waiting.SLEEPS, deadline if late is None else min(late, deadline or late))
            except (OSError, ValueError):
                if generation == self.generation:
                    raise

    def _hold(self, found: list[Hold]) -> None:
        damage, self._damage = self._damage, None
        if damage is not None:
            raise damage
        if self.records:
            self._publish_if_possible()
        self._scan_if_due(monotonic())  # what a dead one held comes first
        while True:
            last, hand = self._state
            if hand:
                record = hand[0]
                times = max((times for again, times in self._again if again is record), default=0)
                found.append(Hold(record, None, times, self.generation))
                self._state = last, hand[1:]
                return
            ledger = self.ledger
            if ledger.head >= ledger.tail and not ledger.returned:
                self._sync()
                ledger = self.ledger
                if ledger.head >= ledger.tail and self._delivered() >= ledger.head and not self._comes_back():
                    looked[0] += 1
                    return
            if self._consumer is None:
                self._join(consumer=True)
                continue
            lease = ledger.lease
            if lease is not None and not self._holds(lease):
                self._revoke(lease)
                continue
            if self._lease is not None:
                self._end_lease()
                continue
            if self.journal.words is None:
                self.journal.map(ledger.limit)
            held = self._append_hold()
            if held is not None:
                record = self._record(held)
                hold = Hold(record, held.number, held.times, self.generation)
                self._blocks[held.number] = hold
                found.append(hold)
                self._tidy()
                return

    def _append_hold(self) -> Optional[Held]:
        self._claim_from = self._pos + self._shift  # No claim of ours before that is under way any more.
        # Commit point: the item is held.
        held = self._append(events.hold(self._consumer or 0), ours=True)
        return held if isinstance(held, Held) else None

    def _record(self, held: Held) -> Taken:
        """The record of an item that we hold.  If it can't be read it is lost, as in a get."""
        item, block = held.item, held.block
        try:
            if not self._first <= item < self._end:
                self._read_block(block)
        except CorruptBatchError:
            self._append(events.got(held.number), ours=True)
            raise
        return blocks.record(self._body, self._ends, item - self._first)

    def _tidy(self) -> None:
        ledger = self.ledger
        if ledger.head >= ledger.tail and not ledger.returned:
            looked[0] += 1  # the last one: as good as a look into an empty queue
        self._reclaim_done()

    def let_go(self, hold: Hold, got: bool) -> None:
        """The block has ended: its item counts as got, or it comes back.  In a forked child: it is the parent's."""
        try:
            self._let_go(hold, got)
        except (OSError, ValueError):
            if hold.generation == self.generation:
                raise

    def _let_go(self, hold: Hold, got: bool) -> None:
        with self._lock:
            if self.closed or hold.generation != self.generation:
                return
            number = hold.number
            if number is None:
                if not got:
                    hand = self._state[1]
                    self._again = [entry for entry in self._again if any(entry[0] is record for record in hand)]
                    self._again.append((hold.record, hold.times + 1))
                    self._put_back([hold.record])
                return
            # From here on an act that is interrupted is carried out by the next.
            self._ended[number] = got
            self._begin()
            self._end_hold(number, got)
            self._act_ends()

    def _end_hold(self, number: int, got: bool) -> None:
        if number in self.ledger.held:  # else this process has left meanwhile, and it has come back
            # Commit point.
            self._append(events.got(number) if got else events.return_(number), ours=True)
        self._ended.pop(number, None)
        if not got:
            self._announce()
            return
        self._tell_got()
        if self.ledger.done or self._pending:
            self._reclaim()

    def _tell_got(self) -> None:
        """An item that was held is got: wake who awaits its place, or the end of a queue that was shut down."""
        if self.maxsize and self.cells.anybody(waiting.AWAITS_PLACE):
            self._offer_space()
        if self.ledger.shut and not self.ledger.held:
            self._ring_all(waiting.SLEEPS)  # nothing comes back any more

    def _announce(self) -> None:
        """Items have come back: wake consumers."""
        self._hint += 1
        self._words[waiting.PUBLISHED] = self._hint
        self._map_all_cells()
        self._ring(waiting.SLEEPS)
        if self.ledger.shut:
            self._ring_all(waiting.SLEEPS)

    def _settle_holds(self) -> None:
        """Let go what we hold and no block has: of acts that were interrupted, and of blocks that were thrown away."""
        if self._consumer is None:
            return
        handed = self._state.number if isinstance(self._state, Handed) else None
        for held in list(self.ledger.held.values()):
            if held.member != self._consumer_number or held.number == handed:
                continue
            if held.number in self._ended or self._blocks.get(held.number) is None:
                self._end_hold(held.number, self._ended.get(held.number, False))

    # -- what comes back, for those who get

    def _comes_back(self) -> bool:
        ledger = self.ledger
        if ledger.held:
            self._scan_if_due(monotonic())
        return bool(self.ledger.returned)

    def _held_by_others(self) -> bool:
        mine = self._consumer_number if self._consumer is not None else None
        return any(held.member != mine for held in self.ledger.held.values())

    def _take_returned(self, got: list[Taken], most: int) -> None:
        wanted = len(got) + most
        while self.ledger.returned and len(got) < wanted:
            held = self._append_hold()
            if held is not None:
                self._deliver_held(got, held)
        self.cut_short = len(got) < wanted
        self._tidy()

    def _deliver_held(self, got: list[Taken], held: Held) -> None:
        """Deliver it, then say that it is got: killed in between, nobody has got it, and it comes back."""
        record = self._record(held)
        before = len(got)
        state = self._state
        last, hand = state
        handed = Handed((last, hand))
        handed.number = held.number
        try:
            got.append(record)
            self._state = handed
        except BaseException:
            if self._state is state:
                del got[before:]
            raise
        self._taken += 1
        self._append(events.got(held.number), ours=True)
        self._state = last, hand
        self._tell_got()

    # -- members

    def _scan_if_due(self, now: float) -> bool:
        before = self._scanned
        scanned = super()._scan_if_due(now)
        if self._scanned != before and self.ledger.held:
            self._settle_holds()  # what we hold, nobody else can look for
        return scanned

    def _bury(self, slot: int) -> bool:
        held = any(held.slot == slot for held in self.ledger.held.values())
        buried = super()._bury(slot)
        if buried and held:
            self._announce()
        return buried
