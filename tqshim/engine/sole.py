"""The lease of all that comes: the only consumer gets items that come one by one, and none is cut.

Lives here: taking and ending such a lease, and delivering under it.  Not here: when it is wanted (``consumer``), how
others end it (``membership``).

Invariant: a record counts as delivered if the flag was down when it was taken, or if a DELIVERED covers it.  Records of
several logs are delivered in the order in which they would be cut.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tqshim.engine import tuning
from tqshim.engine.hand import Hand
from tqshim.engine.leasing import small_ahead
from tqshim.engine.membership import Membership
from tqshim.engine.reader import Reader, Taken
from tqshim.engine.reclaim import Reclaimer, pin_of
from tqshim.engine.replica import Replica
from tqshim.protocol import events
from tqshim.protocol.index import Record
from tqshim.protocol.records import Filling, Lease
from tqshim.protocol.state import in_order
from tqshim.runtime import systems
from tqshim.sync import cells as words_of
from tqshim.sync.cells import Cells

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Optional

    from tqshim.protocol.ledger import Ledger

__all__ = ["SoleLease"]

_ALWAYS: Final = 1 << 63
"""Up to this total it is the only log's turn: always."""


class _Source:
    """A log from which the lease delivers."""

    __slots__ = (
        "_file",
        "_reader",
        "counter",
        "first",
        "flag",
        "given",
        "is_open",
        "lease",
        "pin",
        "read",
        "slot",
        "stop",
    )

    def __init__(self, reader: Reader, lease: Lease, slot: int, filling: Filling, stop: int) -> None:
        self.slot = slot
        self.lease = lease.number
        self.stop = stop
        """Records of the log, at most, while the lease stands: what its file holds, and a DELIVERED can tell of."""
        self.first = filling.first
        """Records of the log before its file."""
        self.pin = pin_of(filling.file)
        self.read: Callable[[int], Record] = partial(reader.peek, filling.file)
        """Returns a copy of the record of that number in the file; the record may be another consumer's by now.

        Raises ``ValueError`` or ``OSError`` where the record can't be read so."""
        self.is_open = False
        self._file = filling.file
        self._reader = reader
        self.counter = Cells.place(words_of.COUNTER, slot)
        self.given = Cells.place(words_of.GIVEN, slot)
        self.flag = Cells.place(words_of.LEASE_FLAG, lease.slot)

    def open(self) -> None:
        """Have the file, which is pinned, read the shortest way."""
        self.is_open = True
        batch = self._reader.plain(self._file)
        if batch is not None:
            self.read = batch.record


class SoleLease:
    """This process's lease of all that comes."""

    __slots__ = (
        "_enough",
        "_hand",
        "_members",
        "_plan",
        "_reader",
        "_reclaimer",
        "_replica",
        "_source",
        "_sources",
        "_until",
        "_words",
        "lease",
    )

    def __init__(self, replica: Replica, members: Membership, reader: Reader, reclaimer: Reclaimer, hand: Hand) -> None:
        self._replica = replica
        self._members = members
        self._reader = reader
        self._reclaimer = reclaimer
        self._hand = hand
        maxsize = replica.ledger.maxsize
        self._enough = maxsize + 1 if 0 < maxsize <= tuning.SOLE_FEW else tuning.SOLE_ENOUGH
        """Waiting items from which on the lease ends: a lease of so many items is cheaper."""
        self.lease: Optional[Lease] = None
        self._sources: dict[int, _Source] = {}
        """By slot: all logs."""
        self._source: Optional[_Source] = None
        """The log from which the lease delivers, ..."""
        self._until = 0
        """... until so many of its records are delivered: then it is another log's turn."""
        self._plan: list[tuple[_Source, int]] = []
        """The logs whose turn it is then, and up to which record; the last turn first."""
        self._words = members.cells.words
        """The cells, as they were mapped when the lease began."""

    def is_possible(self, ledger: Ledger) -> bool:
        """Return whether we are the only consumer, and nothing keeps us from having such a lease."""
        return (
            ledger.members.consumers == 1
            and tuning.SOLE
            and systems.STORES_IN_ORDER
            and self._members.counting
            and self._members.cells.pages == 1
            # Else the queue's producers ask the journal for places.
            and (not ledger.maxsize or (ledger.producers == 1 and not ledger.reservations.places))
            and not (ledger.holds.apart or ledger.joins.finished or ledger.ending.shutting or ledger.leases.standing)
        )

    def is_wanted(self, cuts: bytes) -> bool:
        """Return whether we want such a lease: items come one by one, and none need be cut, or claimed."""
        ledger = self._replica.ledger
        return self.is_possible(ledger) and ledger.head == ledger.tail and small_ahead(ledger, cuts) > 0

    def begin(self, slot: int) -> bool:
        """Take the lease.  ``False``: other processes were faster."""
        words = self._words = self._members.cells.words
        words[Cells.place(words_of.LEASE_FLAG, slot)] = 0  # as for any lease
        # Nor must a process that ends the lease at once go by what an earlier holder stored, which was killed before it
        # set that back.
        words[words_of.GIVEN : words_of.GIVEN + words_of.SLOTS] = self._replica.ledger.totals[: words_of.SLOTS]
        lease = self._replica.append_one(events.lease_all(slot))
        if not isinstance(lease, Lease):
            return False
        ledger = self._replica.ledger
        # Once more: others could cut until then.
        words[words_of.GIVEN : words_of.GIVEN + words_of.SLOTS] = ledger.totals[: words_of.SLOTS]
        self.lease = lease
        if any(log >= words_of.SLOTS or filling.file.large for log, filling in ledger.files.filling.items()):
            self.end()  # a file that was begun just before: we don't deliver from it
            return False
        for log, filling in ledger.files.filling.items():
            stop = min(filling.stop, ledger.totals[log] + events.DELIVERED_MOST)
            self._sources[log] = _Source(self._reader, lease, log, filling, stop)
        self._reclaimer.reclaim_done()
        return True

    def _turn(self) -> bool:
        """See which log's turn it is, and for how long.  ``False``: there is nothing, or the lease has ended."""
        words, plan = self._words, self._plan
        if not plan:
            self._make_plan()
        while plan:
            source, total = plan.pop()
            if words[source.given] < total:
                break
        else:
            return False
        if source is not self._source:
            assert self.lease is not None
            # The file must stay while it is read.  A process that ends the lease raises the flag before anybody deletes
            # the file: if the flag is down behind our store, the pin is seen.
            words[Cells.place(words_of.POSITION, self.lease.slot)] = source.pin
            self._source = source
            if words[source.flag]:
                self.end()
                return False
            if not source.is_open:
                source.open()
        self._until = total
        return True

    def _grown(self) -> list[tuple[_Source, int]]:
        """Return the logs that have more, and up to which record; looked at one after the other, as they are now."""
        words = self._words
        return [(one, words[one.counter]) for one in self._sources.values() if words[one.given] < words[one.counter]]

    def _make_plan(self) -> None:
        """Plan the turns: what several logs have at one look comes in the order of time, before all that is later."""
        plan, sources = self._plan, self._sources
        if len(sources) == 1:
            plan += [(source, _ALWAYS) for source in sources.values()]
            return
        found = self._grown()
        # If a second look finds the same one alone, what the others put comes later than all that this one had.
        if not found or len(self._grown()) == 1:
            plan += found
            return
        ends = memoryview(self._members.counters()).cast("Q")
        begins = memoryview(self._members.cells.given()).cast("Q")
        grown = [(slot, ends[slot]) for slot in sources if begins[slot] < ends[slot]]
        if sum([total - begins[slot] for slot, total in grown]) >= self._enough:
            self.end()
            return
        stretches = in_order(grown, begins, self._members.cells.marks)
        plan += [(sources[slot], total) for _, slot, total in reversed(stretches)]

    def is_idle(self) -> bool:
        """Return whether the lease stands, and there is nothing to take."""
        return self._stands() and self._members.cells.is_all_given()

    def _stands(self) -> bool:
        """Read the journal on, and return whether it has not ended the lease."""
        self._replica.sync()
        lease, there = self.lease, self._replica.ledger.leases.standing
        return lease is not None and there is not None and there.number == lease.number

    def take(self, got: list[Taken]) -> bool:
        """Deliver one record.  ``False``: there is none, or the lease has ended."""
        words, hand = self._words, self._hand
        source = self._source
        if source is None or words[source.given] >= self._until:
            if not self._turn():
                return False
            source = self._source
            assert source is not None
        at, total = words[source.given], words[source.counter]
        if at >= total:
            return False
        if total - at >= self._enough or total > source.stop:
            self.end()
            return False
        try:
            record = source.read(at - source.first)
        except (ValueError, OSError, LookupError):  # the record is in another file
            self.end()
            return False
        state = hand.state
        hand.taking = source, at + 1, record, state
        words[source.given] = at + 1
        if words[source.flag] and not self._contest():
            return False
        hand.deliver_one(got, record, state[0])
        return True

    def _contest(self) -> bool:
        """End the lease, as somebody wants; the journal decides whether it had delivered what we have just taken."""
        self.end()
        return self._is_ours()

    def _is_ours(self) -> bool:
        """Return whether the lease, which has ended, had delivered what we have taken last."""
        assert self._hand.taking is not None
        source, total, _, _ = self._hand.taking
        ledger = self._replica.ledger
        if ledger.leases.given_of == source.lease and ledger.leases.given.get(source.slot, 0) >= total:
            return True
        # Else a put would take the record for delivered, and not cut it before its own.
        self._members.cells.words[source.given] = total - 1
        self._hand.taking = None
        return False

    def end(self) -> None:
        """End the lease, if nobody has."""
        if self.lease is None:
            return
        if self._stands():
            self._replica.append(self._members.end_of_all())
        self._forget()

    def end_if_over(self) -> None:
        """Forget the lease, if others have ended it: it must not keep its batch file."""
        if self.lease is not None and not self._stands():
            self._forget()

    def _forget(self) -> None:
        lease, self.lease, self._source = self.lease, None, None
        self._sources = {}
        self._plan.clear()
        if lease is not None:
            self._members.cells.words[Cells.place(words_of.POSITION, lease.slot)] = 0

    def recover(self, member: Optional[int]) -> None:
        """End the lease after an interrupted act, once the journal was read on; what the lease had taken and not
        delivered comes into the hand.  ``member``: the number under which we are a consumer."""
        hand, ledger = self._hand, self._replica.ledger
        taking, state = hand.taking, hand.state
        if ledger.leases.sole and ledger.leases.standing is not None and ledger.leases.standing.member == member:
            self._replica.append(self._members.end_of_all())
        if taking is not None and taking[3] is state:
            source, total, record, _ = taking
            if self._members.cells.words[source.given] >= total and self._is_ours():
                hand.state = state[0], (*state[1], record)
        hand.taking = None
        self._forget()
