"""The lease of some items: one event for many of them.

Lives here: taking and ending such a lease, and delivering under it.  Not here: when it is wanted (``consumer``), the
lease of all that comes (``sole``).

Invariant: an item counts as delivered if the lease's flag was still down when our cell said that the item was taken,
or if the journal ends the lease behind that item.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from operator import getitem, setitem

from tqshim.engine import tuning
from tqshim.engine.hand import Hand
from tqshim.engine.membership import Membership
from tqshim.engine.reader import Reader, Taken
from tqshim.engine.reclaim import LEASED, Reclaimer
from tqshim.engine.replica import Replica
from tqshim.errors import CorruptBatchError
from tqshim.protocol import events
from tqshim.protocol.index import Record
from tqshim.protocol.ledger import Ledger
from tqshim.protocol.records import Lease, Place
from tqshim.sync import cells as words_of
from tqshim.sync.cells import Cells

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Optional

__all__ = ["NO_STEPS", "Leasing", "small_ahead"]

Step = tuple[Record, int, None, int, int, Lease]
NO_STEPS: Final[Iterator[Step]] = iter(())

_AWAITS_PLACE: Final = words_of.ASLEEP[words_of.AWAITS_PLACE]


def small_ahead(ledger: Ledger, cuts: bytes = b"") -> int:
    """Return how many items at the head a lease may have and keep no file of large records, or just one: each such file
    that is got is to be filled again at once.  0: too few for a lease."""
    first, ahead, extents = ledger.head, 0, tuning.LEASE_EXTENTS
    while first < ledger.tail and extents:
        number, _, stop = ledger.extents.place(first)
        extents -= 1
        if ledger.files.known[number].large:
            alone = min(stop, ledger.tail) - first
            return ahead or (alone if alone >= tuning.LEASE_FROM else 0)
        ahead += stop - first
        first = stop
    if cuts and any(filling.file.large for filling in ledger.files.filling.values()):
        return ahead
    return tuning.LEASE_ITEMS


class Leasing:
    """This process's lease of some items."""

    __slots__ = (
        "_ahead",
        "_hand",
        "_lost",
        "_members",
        "_reader",
        "_reclaimer",
        "_replica",
        "_window",
        "at",
        "lease",
        "steps",
        "told",
    )

    def __init__(self, replica: Replica, members: Membership, reader: Reader, reclaimer: Reclaimer, hand: Hand) -> None:
        self._replica = replica
        self._members = members
        self._reader = reader
        self._reclaimer = reclaimer
        self._hand = hand
        self.lease: Optional[Lease] = None
        self.at = 0
        """The first item of the lease that is not delivered."""
        self._window: tuple[int, list[Taken]] = (0, [])
        """An item of the lease, and the records from that item on that are read already."""
        self.steps: Iterator[Step] = NO_STEPS
        """The next records of the lease, which gets take without the lock.  A step takes one record, stores in our cell
        that it is taken, and looks whether somebody wants the lease to end; neither another thread nor a signal handler
        runs in the middle of a step.  A step yields the record, its item, nothing, the flag, whether producers wait for
        a place, and the lease.  ``settle`` ends the steps; until then the cell holds what ``at`` will be."""
        self._ahead: list[Record] = []
        """The records of ``steps``."""
        self._lost: set[tuple[int, int]] = set()
        """Items that steps took when their lease had ended before them, each with the number of that lease: an item may
        be lost in two leases, to two threads."""
        self.told: set[tuple[int, int]] = set()
        """Items of our lease that a signal handler's frame has found to be lost, before this engine could know it."""

    # -- taking it, and delivering

    def begin(self, slot: int, cuts: bytes) -> bool:
        """Take a lease; ``cuts``, the CUTs of what was read just now, come first.  ``False``: others were faster."""
        words, former = self._members.cells.words, self.lease
        if former is not None and words[Cells.place(words_of.LEASE_FLAG, slot)]:
            # The process that raised the flag may have looked before our last step, which may ask (``confirm``) only
            # later, when the flag is down.
            self.at = self._contest(former, self.at)
            self.forget()
        ledger = self._replica.ledger
        # Both cells are our slot's, and what they say of a former lease does not count now.
        words[Cells.place(words_of.LEASE_FLAG, slot)] = 0
        words[Cells.place(words_of.LEASE_POSITION, slot)] = ledger.head
        # Few enough that the lease does not keep its batch files for long.
        most = tuning.LEASE_ITEMS if ledger.members.consumers == 1 else tuning.LEASE_ITEMS_FEW
        most = min(most, small_ahead(ledger, cuts) or tuning.LEASE_FROM)
        lease = self._replica.append_one(cuts + events.lease(slot, most))
        if cuts:
            self._members.has_cut()
        if not isinstance(lease, Lease):
            return False
        self.learn_of_its_end()  # The former lease's, whose flag is down: a step of that lease may ask only later.
        self.hold(lease, lease.first)
        self._reclaimer.reclaim_done()
        return True

    def hold(self, lease: Lease, at: int) -> None:
        """Note that this lease is ours, and that its items before ``at`` are delivered."""
        self.at = at
        self._window = at, []
        self.lease = lease

    def take(self, got: list[Taken], most: int) -> bool:
        """Deliver items of our lease, of which some are left.  ``False``: the lease was revoked, and none of them is
        ours any more."""
        lease = self.lease
        assert lease is not None
        words = self._members.cells.words
        item = self.at
        stop = min(item + most, lease.end)
        begin, records = self._window
        cached = begin <= item and stop <= begin + len(records)
        self._hand.cut_short = stop < item + most
        if not cached:
            # Keeps the batch file until the item is copied: the item may be ours though our lease ends meanwhile.
            words[Cells.place(words_of.POSITION, lease.slot)] = LEASED | item
        words[Cells.place(words_of.LEASE_POSITION, lease.slot)] = stop
        contested = words[Cells.place(words_of.LEASE_FLAG, lease.slot)]
        known: list[tuple[int, int, Place]] = []
        if contested:
            # Before the journal is read on: then the ledger may not know any more where these items stand.
            if self._replica.ledger.leases.standing == lease:  # else the lease ended before we took any of these
                known = list(self._replica.ledger.each_place(item, stop))
            self._replica.keep()
            stop = self._contest(lease, stop)
        at = item
        while at < stop:
            if not cached:
                begin, records = self._window = at, self._read_window(at, lease.end, most == 1, known)
            at = self._hand.deliver(got, records[at - begin : stop - begin], at)
        self.at = stop
        if stop >= begin + len(records):
            self._window = stop, []  # the old one may keep a large record, or a file from being filled again
        if not cached:
            words[Cells.place(words_of.POSITION, lease.slot)] = 0
        if contested:
            self.forget()
            self._replica.settled()
        elif tuning.SHORT_WAYS and most == 1 and stop < begin + len(records) and not self._hand.state[1]:
            # Where several records were read at once, none of them stays in its file.
            self._open_window(lease, stop, records[stop - begin :])  # type: ignore[arg-type]
        return item < stop

    def _read_window(self, item: int, end: int, alone: bool, known: list[tuple[int, int, Place]]) -> list[Taken]:
        """Read records of our lease, that of ``item`` first.  ``known``: where they stand, if no ledger says it."""
        if known:
            begin, stop, first = next(one for one in known if one[0] <= item < one[1])
            place = Place(first.file, first.record + item - begin)
        else:
            number, record, stop = self._replica.ledger.extents.place(item)
            place = Place(self._replica.ledger.files.known[number], record)
        try:
            return self._reader.read_many(place, item, min(stop, end), alone)
        except CorruptBatchError:
            self._hand.lose(item)
            self.at = item + 1
            raise

    def cached(self, item: int) -> Optional[Taken]:
        """Return the record of that item, if it is read already."""
        first, records = self._window
        return records[item - first] if first <= item < first + len(records) else None

    # -- its steps

    def _open_window(self, lease: Lease, first: int, records: list[Record]) -> None:
        """Let ``steps`` deliver these records of our lease, the first of which is that of item ``first``."""
        words = repeat(self._members.cells.words)
        cell, flag = Cells.place(words_of.LEASE_POSITION, lease.slot), Cells.place(words_of.LEASE_FLAG, lease.slot)
        end = first + len(records)
        self._ahead = records
        stores: Iterator[None] = map(setitem, words, repeat(cell), range(first + 1, end + 1))  # type: ignore[arg-type]
        # Behind the store: a producer that falls asleep says so, and then looks at what we have stored.
        asleep = map(getitem, words, repeat(_AWAITS_PLACE)) if self._replica.ledger.maxsize else repeat(0)
        self.steps = zip(records, range(first, end), stores, map(getitem, words, repeat(flag)), asleep, repeat(lease))

    def settle(self) -> None:
        """End the steps: from here on ``at`` says what they have delivered."""
        if self.steps is not NO_STEPS and self.lease is not None:
            self._ahead.clear()
            at = self._members.cells.words[Cells.place(words_of.LEASE_POSITION, self.lease.slot)]
            self._hand.taken += at - self.at
            self.at = at
            self.steps = NO_STEPS  # Last: if this is interrupted, the next call does the same.

    def confirm(self, item: int, of: Lease) -> bool:
        """Return whether a step's ``item`` is ours: somebody wanted its lease to end, and the journal decides."""
        lease = self.lease
        if lease is not None and self._members.cells.words[Cells.place(words_of.LEASE_FLAG, lease.slot)]:
            self.at = self._contest(lease, self.at)
            self.forget()
        return (of.number, item) not in self._lost

    def forget_lost(self, item: int, of: Lease) -> None:
        """Forget a lost item once its taker knows that it is lost, not before: an interrupted taker asks once more."""
        self._lost.discard((of.number, item))

    # -- ending it

    def _contest(self, lease: Lease, wanted: int) -> int:
        """End our lease, as somebody wants: the journal decides where.  Returns the first item that is not ours, or
        ``wanted`` if that comes before it."""
        self._replica.sync()
        if self._replica.ledger.leases.standing == lease:  # else it has ended already: an event less for all to read
            self._replica.append(events.revoke(wanted - lease.first, lease.number))
        number, base = self._replica.ledger.leases.ended[lease.slot]
        assert number == lease.number
        self._lose(base, lease)
        return min(base, wanted)

    def end(self) -> bool:
        """End our lease where we are.  ``False``: a get was interrupted when the cell had said that it takes an item,
        and another process has ended the lease behind that item; the caller must ask the journal what is ours."""
        lease = self.lease
        if lease is None:
            return True
        self._replica.keep()
        self._replica.append(events.revoke(self.at - lease.first, lease.number))
        base = self._replica.ledger.leases.ended[lease.slot][1]
        if base > self.at:
            return False
        self._lose(base, lease)
        self.at = base
        self.forget()
        self._replica.settled()
        return True

    def last_event(self) -> bytes:
        """Return the event that ends our lease, which is wholly delivered; nothing, where we have no lease, or another
        process has ended it."""
        lease = self.lease
        if lease is None or self._replica.ledger.leases.standing != lease:
            return b""
        return events.revoke(lease.end - lease.first, lease.number)

    def see_its_end(self) -> None:
        """Forget our lease, wholly delivered, if it has ended in the journal, which was read on."""
        if self.lease is not None and self._replica.ledger.leases.standing != self.lease:
            self.learn_of_its_end()
            self.forget()

    def forget(self) -> None:
        """Note that we have no lease."""
        # First: steps store nothing to ``state``, and if this is interrupted the next act must know what they did.
        state = self._hand.state
        if self.at > state[0] + 1:
            self._hand.state = self.at - 1, state[1]
        self.lease = None
        self.at = 0
        self._window = 0, []
        self.told.clear()

    def _lose(self, base: int, lease: Lease) -> None:
        """Note that our lease has ended at item ``base``.  Steps that have gone beyond it, in other threads or in
        frames below a signal handler's, find their items among the lost ones."""
        self._lost.update({(lease.number, item) for item in range(base, self.at)} - self.told)

    # -- being sure

    def learn_of_its_end(self) -> None:
        """See in the ledger where our former lease has ended: an act was interrupted, or another lease is ours, and the
        journal was read on."""
        former = self.lease
        kept = self._replica.ledger.leases.ended.get(former.slot) if former is not None else None
        if former is not None and kept is not None and kept[0] == former.number:
            self._lose(kept[1], former)
            # Items behind the end may become ours again, and must not look delivered then.
            self.at = min(self.at, kept[1])

    def end_where_taken(self, lease: Lease, at: int) -> Optional[list[tuple[int, Place]]]:
        """End our lease if our cell says that items from ``at`` on have been taken: the journal says whether they were
        taken in time.  Returns the items that were, and where they stand; ``None``: the lease goes on."""
        ledger = self._replica.ledger
        taken = min(self._members.cells.words[Cells.place(words_of.LEASE_POSITION, lease.slot)], lease.end)
        if taken <= at:
            return None
        known = [(item, ledger.place(item)) for item in range(at, taken)]
        self._replica.append(events.revoke(taken - lease.first, lease.number))
        end = self._replica.ledger.leases.ended[lease.slot][1]
        self._lose(end, lease)
        self.at = min(self.at, end)
        return [(item, place) for item, place in known if item < end]
