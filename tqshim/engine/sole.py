"""The lease of all that comes: the only consumer gets what comes one by one of one producer uncut.

Lives here: taking and ending such a lease, and delivering under it.  Not here: when it is wanted (``consumer``), how
others end it (``membership``).

Invariant: a record counts as delivered if the flag was down when it was taken, or if a DELIVERED covers it.
"""

from __future__ import annotations

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
from tqshim.runtime import systems
from tqshim.sync import cells as words_of
from tqshim.sync.cells import Cells

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

__all__ = ["SoleLease"]


class _Source:
    """The log from which it delivers."""

    __slots__ = ("_batch", "_file", "_first", "_read", "counter", "flag", "given", "lease", "slot", "stop")

    def __init__(self, reader: Reader, lease: Lease, slot: int, filling: Filling, stop: int) -> None:
        self.slot = slot
        self.lease = lease.number
        self.stop = stop
        """Records of the log at most, as long as the lease stands: what its file holds, and a DELIVERED can tell of."""
        self._first = filling.first
        self._file = filling.file
        self._read = reader.peek
        self._batch = reader.plain(filling.file)
        self.counter = Cells.place(words_of.COUNTER, slot)
        self.given = Cells.place(words_of.GIVEN, slot)
        self.flag = Cells.place(words_of.LEASE_FLAG, lease.slot)

    def read(self, at: int) -> Record:
        """A copy of that record, which may be another's by now.

        Raises ``ValueError`` or ``OSError`` where it can't be read so."""
        if self._batch is None:
            return self._read(self._file, at - self._first)
        return self._batch.record(at - self._first)


class SoleLease:
    """Our lease of all that comes."""

    __slots__ = ("_enough", "_hand", "_members", "_reader", "_reclaimer", "_replica", "_source", "_words", "lease")

    def __init__(self, replica: Replica, members: Membership, reader: Reader, reclaimer: Reclaimer, hand: Hand) -> None:
        self._replica = replica
        self._members = members
        self._reader = reader
        self._reclaimer = reclaimer
        self._hand = hand
        maxsize = replica.ledger.maxsize
        self._enough = maxsize + 1 if 0 < maxsize <= tuning.SOLE_FEW else tuning.SOLE_ENOUGH
        """Items that wait from which it ends: a lease of so many is cheaper."""
        self.lease: Optional[Lease] = None
        self._source: Optional[_Source] = None
        self._words = members.cells.words
        """The cells, as they were mapped when it began."""

    def is_wanted(self, cuts: bytes) -> bool:
        """We are the only consumer, and one producer's items come one by one: none need be cut, or claimed."""
        ledger = self._replica.ledger
        return (
            tuning.SOLE
            and systems.STORES_IN_ORDER
            and self._members.counting
            and self._members.cells.pages == 1
            and ledger.consumers == 1
            and ledger.head == ledger.tail
            and len(ledger.files) == 1
            # Else its producer asks the journal for places.
            and (not ledger.maxsize or ledger.producers == 1)
            and not (ledger.reserved or ledger.apart or ledger.finished or ledger.shutting or ledger.lease)
            and small_ahead(ledger, cuts) > 0
        )

    def begin(self, slot: int) -> bool:
        """Take it.  ``False``: others were faster."""
        words = self._words = self._members.cells.words
        ((log, filling),) = self._replica.ledger.files.items()
        # Before the lease: as long as it may stand, for all we know, that file stays.
        words[Cells.place(words_of.POSITION, slot)] = pin_of(filling.file)
        words[Cells.place(words_of.LEASE_FLAG, slot)] = 0  # as for any lease
        # Nor is who ends it at once to go by what a holder has stored that was killed before it set that back.
        words[words_of.GIVEN : words_of.GIVEN + words_of.SLOTS] = self._replica.ledger.totals[: words_of.SLOTS]
        lease = self._replica.append_one(events.lease_all(slot))
        if not isinstance(lease, Lease):
            words[Cells.place(words_of.POSITION, slot)] = 0
            return False
        ledger = self._replica.ledger
        # Not before: others may cut until then.
        words[words_of.GIVEN : words_of.GIVEN + words_of.SLOTS] = ledger.totals[: words_of.SLOTS]
        self.lease = lease
        found = ledger.files.get(log)
        if len(ledger.files) > 1 or found is None or found.file != filling.file:
            self.end()  # begun just before: we don't deliver from there
            return False
        stop = min(found.stop, ledger.totals[log] + events.DELIVERED_MOST)
        self._source = _Source(self._reader, lease, log, found, stop)
        self._reclaimer.reclaim_done()
        return True

    def finds_nothing_new(self) -> bool:
        """There is nothing to take, and nothing was written to the journal."""
        replica, cells = self._replica, self._members.cells
        return cells.counters() == cells.given() and not replica.journal.read(replica.pos, events.SIZE)

    def is_idle(self) -> bool:
        """It stands, and there is nothing to take."""
        cells = self._members.cells
        return self._stands() and cells.counters() == cells.given()

    def _stands(self) -> bool:
        """The journal, which is read on for this, has not ended it."""
        self._replica.sync()
        lease, there = self.lease, self._replica.ledger.lease
        return lease is not None and there is not None and there.number == lease.number

    def take(self, got: list[Taken]) -> bool:
        """Deliver one record.  ``False``: there is none, or the lease has ended."""
        source = self._source
        if source is None:
            return False
        words, hand = self._words, self._hand
        at, total = words[source.given], words[source.counter]
        if at >= total:
            return False
        if total - at >= self._enough or total > source.stop:
            self.end()
            return False
        try:
            record = source.read(at)
        except (ValueError, OSError, LookupError):  # it is in another file
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
        """Somebody wants the lease to end: the journal decides whether it had delivered what we have just taken."""
        self.end()
        return self._is_ours()

    def _is_ours(self) -> bool:
        """What we have taken last was delivered by the lease, which has ended."""
        assert self._hand.taking is not None
        source, total, _, _ = self._hand.taking
        ledger = self._replica.ledger
        if ledger.given_of == source.lease and ledger.given.get(source.slot, 0) >= total:
            return True
        # Else a put would take it for delivered, and not cut it before its own.
        self._members.cells.words[source.given] = total - 1
        self._hand.taking = None
        return False

    def end(self) -> None:
        """End it, if nobody has."""
        if self.lease is None:
            return
        if self._stands():
            self._replica.append(self._members.end_of_all())
        self._forget()

    def end_if_over(self) -> None:
        """Others have ended it: it must not keep its batch file."""
        if self.lease is not None and not self._stands():
            self._forget()

    def _forget(self) -> None:
        lease, self.lease, self._source = self.lease, None, None
        if lease is not None:
            self._members.cells.words[Cells.place(words_of.POSITION, lease.slot)] = 0

    def recover(self, member: Optional[int]) -> None:
        """An act was interrupted, and the journal was read on: end the lease, and have what it had taken and not
        delivered.  ``member``: the number under which we are a consumer."""
        hand, ledger = self._hand, self._replica.ledger
        taking, state = hand.taking, hand.state
        if ledger.sole and ledger.lease is not None and ledger.lease.member == member:
            self._replica.append(self._members.end_of_all())
        if taking is not None and taking[3] is state:
            source, total, record, _ = taking
            if self._members.cells.words[source.given] >= total and self._is_ours():
                hand.state = state[0], (*state[1], record)
        hand.taking = None
        self._forget()
