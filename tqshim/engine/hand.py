"""The hand: what this process has taken, and what its next get delivers first.

Lives here: the commit point of every get, records that were taken and not delivered, how fast the caller takes items.
Not here: which item is whose (``consumer``, ``leasing``, ``sole``).

Invariant: the store to ``state`` makes items delivered.  An exception before that store leaves the items to the
journal, an exception after it leaves them with the caller.
"""

from __future__ import annotations

from collections.abc import Sequence

from tqshim.engine import tuning
from tqshim.engine.reader import Taken
from tqshim.runtime.clock import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from tqshim.errors import CorruptBatchError

__all__ = ["Hand", "Handed", "State"]

State = tuple[int, tuple[Taken, ...]]


class Handed(State):
    """The ``state`` after the delivery of an item that is still held in the journal, under ``number``."""

    number: int


class Hand:
    """What this process has taken from one queue."""

    __slots__ = ("cut_short", "damage", "pace", "state", "taken", "taking")

    def __init__(self) -> None:
        self.state: State = (-1, ())
        """The last item that was taken and delivered (a lease may be beyond it), and the hand: records that are to be
        delivered (again) first.  One tuple: an exception finds both changed, or neither."""
        self.damage: Optional[CorruptBatchError] = None
        """Damage that was found where no get could raise the error: the next get raises it."""
        self.taken = 0
        """Items that this process has taken."""
        self.taking: Optional[tuple[Any, int, Taken, State]] = None
        """The last record that a lease of all that comes has taken: its log, the log's total with it, the record, and
        the ``state`` before it.  The record is delivered once ``state`` is another object."""
        self.cut_short = False
        """The last take ended early, where a lease ends, or the hand, and there may be more."""
        self.pace = (0, 0.0, float("inf"))
        """How fast the caller is: the value of ``taken`` and the time from which on we measure, and how many seconds
        the caller needed for each of the last items.  The time for getting them and for waiting does not count."""

    def deliver(self, got: list[Taken], records: Sequence[Taken], item: int) -> int:
        """Deliver records, the first of which is ``item``'s; returns the item behind them.  The store to ``state``
        makes them delivered."""
        before = len(got)
        end = item + len(records)
        try:
            got += records
            self.taken += len(records)
            self.state = end - 1, self.state[1]
        except BaseException:
            if self.state[0] < end - 1:
                del got[before:]
            raise
        return end

    def deliver_one(self, got: list[Taken], record: Taken, item: int) -> None:
        """Deliver one record, where there is nothing in ``got``."""
        state = self.state
        try:
            got.append(record)
            self.taken += 1
            self.state = item, state[1]
        except BaseException:
            if self.state is state:
                got.clear()
            raise

    def lose(self, item: int) -> None:
        """Note that ``item`` was taken, and can't be read."""
        self.state = item, self.state[1]

    def put_back(self, records: Sequence[Taken]) -> None:
        """Put back records that were got but not delivered: the next take delivers them first."""
        state, taking = self.with_these(records), self.taking
        if taking is not None and taking[3] is self.state:  # an interrupted get had not delivered its record
            taking = *taking[:3], state
        # At once: a signal handler finds both done, or neither.
        self.taking, self.state = taking, state

    def pop(self) -> Taken:
        """Take the first record out of the hand, and return it."""
        last, hand = self.state
        self.state = last, hand[1:]
        return hand[0]

    def with_these(self, records: Sequence[Taken]) -> State:
        """Return the ``state`` with these records at the head of the hand."""
        state = self.state
        last, hand = state
        together: State = last, (*records, *hand)
        if isinstance(state, Handed):
            # The item that is still held is among ``records``, and counts as got: the next act says so.
            handed = Handed(together)
            handed.number = state.number
            together = handed
        return together

    def pass_down(self, below: Hand) -> None:
        """Leave what is here to the engine below, which this engine's signal handler had interrupted."""
        last, hand = self.state
        other, before = below.state
        # At once: a signal handler finds both done, or neither.
        below.state, self.state = (other, (*before, *hand)), (last, ())
        below.damage, self.damage = below.damage or self.damage, None

    # -- how fast the caller is

    def measure_pace(self, now: float) -> None:
        """Measure, as a get begins, for how long the caller was busy with each of the items before it."""
        begin, since, _ = self.pace
        count = self.taken - begin
        if count >= tuning.PACE_ITEMS:
            self.pace = self.taken, now, (now - since) / count

    def leave_out(self, began: float) -> None:
        """Leave out the time since ``began``, in which this process got, or waited."""
        now = monotonic()
        begin, since, pace = self.pace
        self.pace = begin, min(now, since + now - began), pace
