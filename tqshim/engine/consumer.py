"""Getting: claims and leases.

Lives here: taking items out of the order of the journal, and having their records.  Not here: unpickling (``queues``),
items that may come back (``acknowledge``).

Invariant: the store to ``state`` is what makes items delivered.  An exception before it leaves them to the journal, an
exception after it leaves them with the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from operator import getitem, setitem
from struct import Struct
from time import monotonic_ns

from tqshim import systems, tuning
from tqshim.clock import monotonic
from tqshim.engine.membership import Membership
from tqshim.engine.reader import Reader, Taken
from tqshim.engine.reclaim import LEASED, Reclaimer
from tqshim.engine.replica import Replica
from tqshim.errors import CorruptBatchError
from tqshim.protocol import events
from tqshim.protocol.index import Record
from tqshim.protocol.ledger import Filling, Lease, Ledger, Place
from tqshim.sync import cells as words_of
from tqshim.sync import membarrier
from tqshim.sync.cells import Cells

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Optional

__all__ = ["NO_STEPS", "Consumer", "Handed", "Taken"]

Step = tuple[Record, int, None, int, int]
NO_STEPS: Final[Iterator[Step]] = iter(())

_WORD: Final = Struct("<Q")
_AWAITS_PLACE: Final = words_of.ASLEEP[words_of.AWAITS_PLACE]
FEW: Final = 4
"""Consumers among whom it is worth looking for dead ones at once: all but one may be."""


class _Source:
    """A log from which a lease of all that comes delivers."""

    __slots__ = ("_file", "_first", "_read", "counter", "flag", "given", "lease", "slot", "stop")

    def __init__(self, reader: Reader, lease: Lease, slot: int, filling: Filling) -> None:
        self.slot = slot
        self.lease = lease.number
        self.stop = filling.stop
        """Records of the log at most, as long as the lease stands."""
        self._first = filling.first
        self._file = filling.file
        self._read = reader.peek
        self.counter = Cells.place(words_of.COUNTER, slot)
        self.given = Cells.place(words_of.GIVEN, slot)
        self.flag = Cells.place(words_of.LEASE_FLAG, lease.slot)

    def read(self, at: int) -> Record:
        """A copy of that record, which may be another's by now.

        Raises ``ValueError`` or ``OSError`` where it can't be read so."""
        return self._read(self._file, at - self._first)


_Taking = tuple[_Source, int, Record, tuple[int, tuple[Taken, ...]]]
"""A record that a lease of all that comes has taken: from which log, the total with it, and ``state`` before it was
delivered."""


class Handed(tuple[int, tuple[Taken, ...]]):
    """A ``state`` in which an item has been delivered that is still held in the journal, under that number."""

    number: int


class Consumer:
    """What this process gets from one queue."""

    __slots__ = (
        "_ahead",
        "_at",
        "_lost",
        "_members",
        "_pace",
        "_reader",
        "_reclaimer",
        "_replica",
        "_seen",
        "_seen_at",
        "_sources",
        "_taking",
        "_window",
        "_words",
        "claim_from",
        "cut_short",
        "damage",
        "lease",
        "slot",
        "sole",
        "state",
        "steps",
        "take_returned",
        "taken",
        "told",
    )

    def __init__(self, replica: Replica, members: Membership, reader: Reader, reclaimer: Reclaimer) -> None:
        self._replica = replica
        self._members = members
        self._reader = reader
        self._reclaimer = reclaimer
        self.slot: Optional[int] = None
        self.claim_from = 0
        """Where the journal stood before our last claim, as a position cell says it."""
        self.state: tuple[int, tuple[Taken, ...]] = (-1, ())
        """The last item that was taken and delivered, unless ``_at`` is beyond it, and the hand: records that are to be
        delivered (again) first.  One tuple: an exception finds both changed, or neither."""
        self.lease: Optional[Lease] = None
        """Ours."""
        self._at = 0
        """The first item of it that is not delivered."""
        self.sole: Optional[Lease] = None
        """Ours, of all that comes."""
        self._sources: list[_Source] = []
        """What it delivers."""
        self._words = members.cells.words
        """The cells, as they were mapped when it began."""
        self._taking: Optional[_Taking] = None
        """The last record that it has taken, which is delivered once ``state`` is another."""
        self._window: tuple[int, list[Taken]] = (0, [])
        """Records of our lease that are read already, from that item on."""
        self.steps: Iterator[Step] = NO_STEPS
        """The next records of our lease, which go without the lock: a step takes one, stores in our cell that it is
        taken, and looks whether somebody wants the lease to end, in one piece that neither a thread nor a signal
        handler divides.  It yields the record, its item, nothing, the flag, and whether producers wait for a place.
        Ended by ``settle``; while it is not, the cell holds what ``_at`` will be."""
        self._ahead: list[Record] = []
        """The records of ``steps``."""
        self._lost: set[int] = set()
        """Items that steps took when our lease had ended before them."""
        self.told: set[int] = set()
        """Those of our lease of which a signal handler's frame was told that, before this engine could know it."""
        self.cut_short = False
        """The last take ended where a lease does, and there may be more."""
        self.damage: Optional[CorruptBatchError] = None
        """What was found where no get could be told: the next one is."""
        self.take_returned: Callable[[list[Taken], int], None] = lambda got, most: None
        """Appends what has come back, to so many records."""
        self.taken = 0
        """Items that we have taken."""
        self._seen, self._seen_at = b"", -1
        """The counters, and where the journal ended behind them, when there was nothing to take."""
        self._pace = (0, 0.0, float("inf"))
        """From which of our items, and since when, we measure how fast we are, and how many seconds each of the last
        took our caller: getting them and waiting do not count."""

    # -- what there is

    def delivered(self) -> int:
        """The oldest item that nobody has got, as far as can be seen without asking: a lease may be going on."""
        ledger = self._replica.ledger
        lease = ledger.lease
        if lease is None:
            return ledger.head
        if ledger.sole:
            return ledger.head + sum([at - ledger.totals[slot] for slot, at in self._members.given().items()])
        if self._holds(lease) and self.steps is NO_STEPS:
            return self._at
        position = self._members.word(words_of.LEASE_POSITION, lease.slot)
        return max(ledger.passed, min(position, lease.end))

    def taken_elsewhere(self) -> int:
        """``delivered``, where this process gets nothing itself; else -1."""
        return self.delivered() if self.slot is None else -1

    def size(self) -> int:
        """Items that nobody has got and nobody holds, as far as the ledger knows them: those that are put and not cut
        come on top."""
        ledger = self._replica.ledger
        return ledger.tail - self.delivered() + len(ledger.returned)

    def count(self) -> int:
        """Items that could be got now, or a moment ago.

        Counters, journal and lease are looked at one after the other: what others have put and then got meanwhile must
        not count as got alone.  Where there is no moment without that, the last look counts."""
        count = 0
        for _ in range(tuning.LOOKS):
            counters = self._members.look()
            count = max(0, self.uncut(counters) + self.size()) + len(self.state[1])
            if self._is_still(counters):
                break
        return count

    def _is_still(self, counters: bytes) -> bool:
        """Since these counters were read nothing was put; and beside a lease nothing was written to the journal."""
        replica, members = self._replica, self._members
        return (not members.counted or counters == members.cells.counters()) and (
            replica.ledger.lease is None or not replica.journal.read(replica.pos, events.SIZE)
        )

    def uncut(self, counters: bytes) -> int:
        """Items that are put and not cut yet, by these counters, after which the journal was read."""
        return self._replica.ledger.uncut(counters) if counters else 0

    def known(self) -> bytes:
        """The counters of what is cut, or delivered by our lease of all that comes."""
        return self._replica.ledger.totals.tobytes() if self.sole is None else self._members.cells.given()

    def left(self) -> int:
        """Items that wait, as far as can be seen without asking."""
        if self.sole is not None:
            words = self._words
            return sum([words[source.counter] - words[source.given] for source in self._sources])
        return self.size()

    # -- taking

    def finds_nothing_new(self) -> bool:
        """There was nothing to take, and since then nothing was put, and nothing written to the journal."""
        replica = self._replica
        if self.sole is not None:
            cells = self._members.cells
            return cells.counters() == cells.given() and not (
                replica.journal.read(replica.pos, events.SIZE) or self.state[1] or self.damage is not None
            )
        return (
            self._seen_at == replica.pos + replica.shift
            and self._seen == self._members.cells.counters()
            and not replica.journal.read(replica.pos, events.SIZE)
            and not self.state[1]
            and self.damage is None
        )

    def take(self, got: list[Taken], most: int) -> None:
        """Append to ``got`` what is there, ``most`` records or fewer."""
        if self.damage is not None:
            damage, self.damage = self.damage, None
            raise damage
        last, hand = self.state
        if hand:
            got += hand[:most]
            self.state = last, hand[most:]
            return
        if self.lease is not None and self._at < self.lease.end and self._take_leased(got, most):
            return
        replica, members = self._replica, self._members
        claims = False
        """A lease of all that comes is no way to what is there: it was tried."""
        while self.sole is not None:
            if most == 1 and self.take_given(got):
                return
            if self._is_idle(most):
                return
        while True:
            ledger = replica.ledger
            cuts = counters = b""
            began = uncut = 0
            if ledger.tail - ledger.head < most:
                # Before that: what is put behind an OPEN or a RESERVE that is not known yet is not cut by this.
                began = monotonic_ns()
                replica.sync()
                ledger = replica.ledger
                if ledger.tail - ledger.head < most:
                    counters = members.counters()
                    grown = ledger.grown(counters)
                    cuts = ledger.cuts_of(grown)
                    for slot, total in grown:
                        uncut += total - ledger.totals[slot]
                    if not (cuts or ledger.head < ledger.tail or self.delivered() < ledger.head) and (
                        not self._comes_back(ledger)
                    ):
                        if not ledger.held:  # whose holder may die
                            self._seen, self._seen_at = counters, replica.now
                        return
            if self.slot is None:
                self.join()
                continue
            lease = ledger.lease
            if ledger.returned:
                self.take_returned(got, most)
                if got:
                    return
                continue
            if lease is not None and not self._holds(lease):
                self._revoke(lease)
                continue
            if self.lease is not None and self._at < self.lease.end:
                if self._take_leased(got, most):
                    return
                continue
            waiting_items = ledger.tail - ledger.head + uncut
            if waiting_items >= tuning.LEASE_FROM and self._wants_lease(cuts) and self._take_lease(cuts, began):
                continue
            if self.lease is not None:
                self.end_lease()
                continue
            if replica.journal.words is None:
                replica.journal.map(ledger.limit)
            if most == 1 and 0 < uncut < tuning.LEASE_FROM and not claims and self._wants_all(cuts):
                claims = True
                if self._take_all() and self.take_given(got):
                    return
                continue
            if self._claim(got, most, cuts, began):
                ledger = replica.ledger
                if ledger.head == ledger.tail and counters == ledger.totals.tobytes() and not ledger.held:
                    self._seen, self._seen_at = counters, replica.now
                return

    # -- a lease of all that comes

    def _wants_all(self, cuts: bytes) -> bool:
        """We are the only consumer, and items come one by one: none of them need be cut, or claimed."""
        ledger = self._replica.ledger
        return (
            tuning.SOLE
            and systems.STORES_IN_ORDER
            and self._members.counting
            and self._members.cells.pages == 1
            and ledger.consumers == 1
            and ledger.head == ledger.tail
            and not (ledger.maxsize or ledger.apart or ledger.finished or ledger.shutting or ledger.lease)
            and self._small_ahead(cuts) > 0
        )

    def _take_all(self) -> bool:
        slot = self.slot
        assert slot is not None
        membarrier.register_for_barrier()
        words = self._members.cells.words
        # No put is to go by the cells below before they are right.
        words[words_of.HOLDER] = 0
        words[Cells.place(words_of.LEASE_FLAG, slot)] = 0  # as for any lease
        # Nor is who ends it at once to go by what a holder has stored that was killed before it set that back.
        words[words_of.GIVEN : words_of.GIVEN + words_of.SLOTS] = self._replica.ledger.totals[: words_of.SLOTS]
        lease = self._replica.append_one(events.lease_all(slot))
        if not isinstance(lease, Lease):
            return False
        ledger = self._replica.ledger
        # Not before: others may cut until then.
        words[words_of.GIVEN : words_of.GIVEN + words_of.SLOTS] = ledger.totals[: words_of.SLOTS]
        words[words_of.HOLDER] = words_of.holder(slot, lease.number)
        self._words = words
        self.sole = lease
        if any(slot >= words_of.SLOTS or filling.file.large for slot, filling in ledger.files.items()):
            self.end_lease()  # begun just before: we don't deliver from there
            return False
        self._sources = [_Source(self._reader, lease, *one) for one in ledger.files.items()]
        self._reclaimer.reclaim_done()
        return True

    @property
    def wants_the_long_way(self) -> bool:
        """There is something else than what comes next, or no lease of all that comes."""
        return self.sole is None or bool(self.state[1]) or self.damage is not None

    def take_given(self, got: list[Taken]) -> bool:
        """Deliver one record under our lease of all that comes.  ``False``: there is none, or it has ended."""
        words = self._words
        for source in self._sources:
            at, total = words[source.given], words[source.counter]
            if at >= total:
                continue
            if total - at >= tuning.LEASE_FROM or total > source.stop:
                self.end_lease()
                return False
            try:
                record = source.read(at)
            except (ValueError, OSError, LookupError):  # it may be another's by now
                self.end_lease()
                return False
            state = self.state
            self._taking = source, at + 1, record, state
            words[source.given] = at + 1
            if words[source.flag] and not self._contest_all():
                return False
            try:
                got.append(record)
                self.taken += 1
                # Commit point: it is delivered.
                self.state = state[0], state[1]
            except BaseException:
                if self.state is state:
                    got.clear()
                raise
            return True
        return False

    def _is_idle(self, most: int) -> bool:
        """Our lease of all that comes stands, and there is nothing."""
        lease, cells = self.sole, self._members.cells
        if lease is None:
            return False
        if most == 1:
            self._replica.sync()
            stands = self._replica.ledger.lease
            if stands is not None and stands.number == lease.number:
                if cells.counters() == cells.given():
                    return True
                if self.left():  # it has come just now
                    return False
        self.end_lease()
        return False

    def _contest_all(self) -> bool:
        """Somebody wants our lease of all that comes to end: the journal decides whether it had delivered what we have
        just taken."""
        self._end_all()
        return self._is_ours()

    def _is_ours(self) -> bool:
        """What we have taken last was delivered by our lease of all that comes, which has ended."""
        assert self._taking is not None
        source, total, _, _ = self._taking
        ledger = self._replica.ledger
        if ledger.given_of == source.lease and ledger.given.get(source.slot, 0) >= total:
            return True
        # Else a put would take it for delivered, and not cut it before its own.
        self._members.cells.words[source.given] = total - 1
        self._taking = None
        return False

    def _end_all(self) -> None:
        """End our lease of all that comes, if nobody has."""
        lease = self.sole
        self._replica.sync()
        stands = self._replica.ledger.lease
        if lease is not None and stands is not None and stands.number == lease.number:
            self._replica.append(self._members.end_of_all())
        self.sole = None
        self._sources = []

    def _recover_all(self) -> None:
        """An act was interrupted: end our lease of all that comes, and have what it had taken and not delivered."""
        taking, member = self._taking, self._members.slots.get(self.slot) if self.slot is not None else None
        ledger = self._replica.ledger
        if ledger.sole and ledger.lease is not None and ledger.lease.member == member:
            self._replica.append(self._members.end_of_all())
        if taking is not None and taking[3] is self.state:
            source, total, record, _ = taking
            if self._members.cells.words[source.given] >= total and self._is_ours():
                self.state = self.state[0], (*self.state[1], record)
        self.sole = self._taking = None
        self._sources = []

    # -- taking part

    def join(self) -> None:
        """Be a consumer."""
        slot = self._members.join(consumer=True)
        self.claim_from = self._replica.now
        self.slot = slot
        if self._replica.ledger.consumers <= FEW:
            self._members.bury_the_dead()  # so that we may be the only one, and lease

    def _comes_back(self, ledger: Ledger) -> bool:
        """Nothing waits; but items have come back, if need be of holders that died."""
        if ledger.held:
            self._reclaimer.scan_if_due(monotonic())
        return bool(self._replica.ledger.returned)

    def _holds(self, lease: Lease) -> bool:
        """That lease is ours."""
        own = self.lease or self.sole
        return own is not None and own.number == lease.number

    def _claim(self, got: list[Taken], most: int, cuts: bytes, began: int) -> bool:
        """Claim items at the head, and read them.  ``False``: others were faster, or the journal was rolled."""
        replica, slot = self._replica, self.slot
        assert slot is not None
        words = self._members.cells.words
        cell = Cells.place(words_of.POSITION, slot)
        # Before the CLAIM: from now on no batch file goes in which it may take an item.
        words[cell] = self.claim_from = replica.pos + replica.shift
        claim = events.claim(slot) if most == 1 else events.claim_many(slot, most)
        # Commit point: the items at the head are ours.
        claimed = replica.append(cuts + claim)[-1]
        if cuts:
            self._members.has_cut(began)
        if not isinstance(claimed, range):
            words[cell] = 0
            return False
        ledger = replica.ledger
        item = claimed.start
        while item < claimed.stop:
            file, record, stop = ledger.extents.place(item)
            place = Place(ledger.known_files[file], record)
            stop = min(stop, claimed.stop)
            item = self._deliver(got, place, item, stop, most == 1)
        words[cell] = 0
        if ledger.done or (ledger.sealing and claimed.stop >= ledger.sealing[0][0]):
            self._reclaimer.reclaim_done()
        return True

    def _deliver(self, got: list[Taken], place: Place, item: int, stop: int, alone: bool) -> int:
        """Read and deliver the first of these items, which stand there; returns the first that is not.  ``alone``: it
        is the only one that is wanted."""
        try:
            if stop == item + 1:
                records: Sequence[Taken] = (self._reader.read(place, item, alone),)
            else:
                records = self._reader.read_many(place, item, stop)
        except CorruptBatchError:
            # It is lost; those that follow it, the next take finds in the journal.
            self.state = item, self.state[1]
            raise
        return self._hand_over(got, records, item)

    # -- leases

    def _wants_lease(self, cuts: bytes) -> bool:
        """Several items are wanted now: a lease is worth its event, and no shorter than that."""
        ledger = self._replica.ledger
        return (
            tuning.LEASES
            and self._members.counting
            and not ledger.apart
            and (ledger.consumers == 1 or self._pace[2] < tuning.LEASE_PACE)
            and self._small_ahead(cuts) > 0
        )

    def _small_ahead(self, cuts: bytes = b"") -> int:
        """Items at the head of which no lease keeps a file of large records, or but one: each that is got is to be
        filled again at once.  0: too few for a lease."""
        ledger = self._replica.ledger
        first, ahead, extents = ledger.head, 0, tuning.LEASE_BLOCKS
        while first < ledger.tail and extents:
            number, _, stop = ledger.extents.place(first)
            extents -= 1
            if ledger.known_files[number].large:
                alone = min(stop, ledger.tail) - first
                return ahead or (alone if alone >= tuning.LEASE_FROM else 0)
            ahead += stop - first
            first = stop
        if cuts and any(filling.file.large for filling in ledger.files.values()):
            return ahead
        return tuning.LEASE_ITEMS

    def measure_pace(self, now: float) -> None:
        """A get begins: see for how long our caller was busy with each of the items before it."""
        begin, since, _ = self._pace
        count = self.taken - begin
        if count >= tuning.PACE_ITEMS:
            self._pace = self.taken, now, (now - since) / count

    def leave_out(self, began: float) -> None:
        """Since then we got, or waited."""
        now = monotonic()
        begin, since, pace = self._pace
        self._pace = begin, min(now, since + now - began), pace

    def _take_lease(self, cuts: bytes, began: int) -> bool:
        ledger, slot = self._replica.ledger, self.slot
        assert slot is not None
        words = self._members.cells.words
        membarrier.register_for_barrier()
        # Ours alone, and no lease of ours stands: whatever they say of an earlier one does not count any more.
        words[Cells.place(words_of.LEASE_FLAG, slot)] = 0
        words[Cells.place(words_of.LEASE_POSITION, slot)] = ledger.head
        # So many that its batch files do not stay for long.
        most = tuning.LEASE_ITEMS if ledger.consumers == 1 else tuning.LEASE_ITEMS_FEW
        most = min(most, self._small_ahead(cuts) or tuning.LEASE_FROM)
        lease = self._replica.append_one(cuts + events.lease(slot, most))
        if cuts:
            self._members.has_cut(began)
        if not isinstance(lease, Lease):
            return False
        self.hold_lease(lease, lease.first)
        self._reclaimer.reclaim_done()
        return True

    def hold_lease(self, lease: Lease, at: int) -> None:
        """That lease is ours, and items of it up to that one are delivered."""
        self._at = at
        self._window = at, []
        self.lease = lease

    def _take_leased(self, got: list[Taken], most: int) -> bool:
        """Deliver items of our lease.  ``False``: it was revoked, and none of them is ours any more."""
        lease = self.lease
        assert lease is not None
        words = self._members.cells.words
        item = self._at
        stop = min(item + most, lease.end)
        begin, records = self._window
        cached = begin <= item and stop <= begin + len(records)
        self.cut_short = stop < item + most
        if not cached:
            # Until it is copied its batch file stays: should another end our lease, this item is still ours.
            words[Cells.place(words_of.POSITION, lease.slot)] = LEASED | item
        words[Cells.place(words_of.LEASE_POSITION, lease.slot)] = stop
        contested = words[Cells.place(words_of.LEASE_FLAG, lease.slot)]
        known: list[tuple[int, int, Place]] = []
        if contested:
            # Before the journal is read on, which may not know any more where these items stand.
            if self._replica.ledger.lease == lease:  # else it has ended before we took any of these
                known = list(self._replica.ledger.each_place(item, stop))
            self._replica.keep()
            stop = self._contest(lease, stop)
        at = item
        while at < stop:
            if not cached:
                begin, records = self._window = at, self._read_window(at, lease.end, most == 1, known)
            at = self._hand_over(got, records[at - begin : stop - begin], at)
        self._at = stop
        if stop >= begin + len(records):
            self._window = stop, []  # it may keep a large record, or a file from being filled again
        if not cached:
            words[Cells.place(words_of.POSITION, lease.slot)] = 0
        if contested:
            self.forget_lease()
            self._replica.settled()
        elif tuning.SHORT_WAYS and most == 1 and stop < begin + len(records) and not self.state[1]:
            # Of several that were read at once none stays in its file.
            self._open_window(lease, stop, records[stop - begin :])  # type: ignore[arg-type]
        return item < stop

    def _open_window(self, lease: Lease, first: int, records: list[Record]) -> None:
        """Let ``steps`` deliver these records of our lease, of which the first is that item's."""
        words = repeat(self._members.cells.words)
        cell, flag = Cells.place(words_of.LEASE_POSITION, lease.slot), Cells.place(words_of.LEASE_FLAG, lease.slot)
        end = first + len(records)
        self._ahead = records
        stores: Iterator[None] = map(setitem, words, repeat(cell), range(first + 1, end + 1))  # type: ignore[arg-type]
        # Behind the store: who falls asleep says so, has a barrier, and then looks at what we have stored.
        asleep = map(getitem, words, repeat(_AWAITS_PLACE)) if self._replica.ledger.maxsize else repeat(0)
        self.steps = zip(records, range(first, end), stores, map(getitem, words, repeat(flag)), asleep)

    def settle(self) -> None:
        """No step goes on from here: ``_at`` says what they have delivered."""
        if self.steps is not NO_STEPS and self.lease is not None:
            self._ahead.clear()
            at = self._members.cells.words[Cells.place(words_of.LEASE_POSITION, self.lease.slot)]
            self.taken += at - self._at
            self._at = at
            self.steps = NO_STEPS  # Last: if this is interrupted, the next call does the same.

    def confirm(self, item: int) -> bool:
        """A step has taken that item, but somebody wanted our lease to end: it is ours if the journal says so."""
        lease = self.lease
        if lease is not None and self._members.cells.words[Cells.place(words_of.LEASE_FLAG, lease.slot)]:
            self._at = self._contest(lease, self._at)
            self.forget_lease()
        return item not in self._lost

    def forget_lost(self, item: int) -> None:
        """Whoever has taken it knows that it is not ours.  Not before: if that is interrupted, it asks once more."""
        self._lost.discard(item)

    def _lose(self, base: int) -> None:
        """Our lease has ended at that item.  Steps that have gone beyond it, in other threads or in frames below a
        signal handler's, find theirs among the lost ones."""
        self._lost.update({*range(base, self._at)} - self.told)

    def _hand_over(self, got: list[Taken], records: Sequence[Taken], item: int) -> int:
        """Deliver records, of which the first is that item's; returns the item behind them.  The store to ``state`` is
        what makes them delivered."""
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

    def _read_window(self, item: int, end: int, alone: bool, known: list[tuple[int, int, Place]]) -> list[Taken]:
        """Records of our lease, of which the first is that item's.  ``known``: where, if no ledger says it."""
        if known:
            begin, stop, first = next(one for one in known if one[0] <= item < one[1])
            place = Place(first.file, first.record + item - begin)
        else:
            number, record, stop = self._replica.ledger.extents.place(item)
            place = Place(self._replica.ledger.known_files[number], record)
        try:
            return self._reader.read_many(place, item, min(stop, end), alone)
        except CorruptBatchError:
            self.state = item, self.state[1]
            self._at = item + 1
            raise

    def forget_lease(self) -> None:
        """We have none."""
        # First: steps deliver without saying so there, and if this is interrupted the next act must know it.
        if self._at > self.state[0] + 1:
            self.state = self._at - 1, self.state[1]
        self.lease = None
        self._at = 0
        self._window = 0, []
        self.told.clear()

    def _contest(self, lease: Lease, wanted: int) -> int:
        """Somebody wants our lease to end: the journal decides where.  Returns the first item that is not ours, or
        ``wanted`` if that comes before it."""
        self._replica.sync()
        if self._replica.ledger.lease == lease:  # else it has ended already: an event less for all to read
            self._replica.append(events.revoke(wanted - lease.first, lease.number))
        number, base = self._replica.ledger.kept[lease.slot]
        assert number == lease.number
        self._lose(base)
        return min(base, wanted)

    def end_lease(self) -> None:
        """End our lease where we are."""
        if self.sole is not None:
            self._end_all()
        lease = self.lease
        if lease is not None:
            self._replica.keep()
            self._replica.append(events.revoke(self._at - lease.first, lease.number))
            base = self._replica.ledger.kept[lease.slot][1]
            if base > self._at:
                # A get was interrupted when the cell had said that it takes one, and another has ended the lease there.
                self.recover()
            else:
                self._lose(base)
                self._at = base
                self.forget_lease()
                self._replica.settled()

    def end_used_lease(self) -> None:
        """Nothing has come for a while: our lease, wholly delivered, must not keep its batch files."""
        if self.lease is not None and self._at >= self.lease.end:
            self.end_lease()
            self._reclaimer.reclaim_done()

    def end_any_lease(self) -> bool:
        """End the lease that stands, ours or another's.  ``False``: none does."""
        lease = self._replica.ledger.lease
        if lease is None:
            return False
        if self._holds(lease):
            self.end_lease()
        else:
            self._revoke(lease)
        return True

    def _revoke(self, lease: Lease) -> None:
        """End another's lease."""
        if self._replica.ledger.sole:
            self._replica.append(self._members.end_of_all())
            return
        self._members.raise_flag(words_of.LEASE_FLAG, lease.slot)
        membarrier.barrier()
        position = self._members.word(words_of.LEASE_POSITION, lease.slot)
        count = max(0, min(position, lease.end) - lease.first)
        self._replica.append(events.revoke(count, lease.number))

    # -- being sure

    def recover(self) -> None:
        """An act was interrupted: ask the journal what is ours."""
        self.settle()
        former = self.lease
        self._replica.reload(self.slot, self.claim_from)
        self._recover_all()
        ledger = self._replica.ledger
        lease = ledger.lease
        number = self._members.slots.get(self.slot) if self.slot is not None else None
        kept = ledger.kept.get(former.slot) if former is not None else None
        if former is not None and kept is not None and kept[0] == former.number:
            self._lose(kept[1])
            # What follows it may become ours again, and must not look delivered then.
            self._at = min(self._at, kept[1])
        last = max(self.state[0], self._at - 1)
        mine = [(item, place) for _, item, place in ledger.yours if item > last]
        ledger.yours = []
        if lease is not None and lease.member == number:
            words = self._members.cells.words
            taken = min(words[Cells.place(words_of.LEASE_POSITION, lease.slot)], lease.end)
            at = max(ledger.passed, last + 1)
            if taken > at:
                # Our cell says that these are taken; whether so in time, the journal says.
                known = [(item, ledger.place(item)) for item in range(at, taken)]
                self._replica.append(events.revoke(taken - lease.first, lease.number))
                end = self._replica.ledger.kept[lease.slot][1]
                mine += [(item, place) for item, place in known if item < end]
                self._lose(end)
                self._at = min(self._at, end)
                lease = None
        # Before our lease is touched: if this is interrupted, the next try must find the same.
        self._recover_items(mine)
        if lease is not None and lease.member == number:
            self.hold_lease(lease, max(ledger.passed, last + 1))
        else:
            self.forget_lease()
        if self.slot is not None:
            self._members.cells.words[Cells.place(words_of.POSITION, self.slot)] = 0
        self.claim_from = self._replica.now  # All before that is known.
        self._replica.settled()

    def _recover_items(self, mine: list[tuple[int, Place]]) -> None:
        """Items that were taken, but not delivered, come into the hand."""
        if not mine:
            return
        found: list[Taken] = []
        damage = self.damage
        first, records = self._window
        for item, place in mine:
            if first <= item < first + len(records):
                found.append(records[item - first])  # its file may be gone: what is read already no cell keeps there
                continue
            try:
                found.append(self._reader.read(place, item, False))
            except CorruptBatchError as error:  # and nothing else: a signal handler may raise anything
                damage = error
        self.state = mine[-1][0], (*self.state[1], *found)
        self.damage = damage

    def put_back(self, records: Sequence[Taken]) -> None:
        """Records that were got but not delivered: the next take delivers them first."""
        state, taking = self.with_these(records), self._taking
        if taking is not None and taking[3] is self.state:  # a get was interrupted that had not delivered it
            taking = *taking[:3], state
        # At once: a signal handler finds both done, or neither.
        self._taking, self.state = taking, state

    def pop_hand(self) -> Taken:
        """The first record of the hand, which is not in it any more."""
        last, hand = self.state
        self.state = last, hand[1:]
        return hand[0]

    def with_these(self, records: Sequence[Taken]) -> tuple[int, tuple[Taken, ...]]:
        """The ``state`` with these records at the head of the hand."""
        state = self.state
        last, hand = state
        together: tuple[int, tuple[Taken, ...]] = last, (*records, *hand)
        if isinstance(state, Handed):
            # Its last item is among these, and counts as got: the next act says so.
            handed = Handed(together)
            handed.number = state.number
            together = handed
        return together

    def hand_down(self, below: Consumer) -> None:
        """Leave what is in the hand to the consumer of the engine that this one's handler had interrupted."""
        last, hand = self.state
        other, before = below.state
        # At once: a signal handler finds both done, or neither.
        below.state, self.state = (other, (*before, *hand)), (last, ())
        below.damage, self.damage = below.damage or self.damage, None

    def end_of(self, lease: Optional[Lease]) -> int:
        """Where another's lease has ended, of this process: it ends now, if it has not."""
        if lease is None:
            return 0
        self._replica.sync()
        if self._replica.ledger.lease == lease:
            self._revoke(lease)
        number, end = self._replica.ledger.kept.get(lease.slot, (0, 0))
        return end if number == lease.number else 0

    def leave(self) -> None:
        """Be no consumer any more."""
        self.end_lease()
        slot, self.slot = self.slot, None
        if slot is not None:
            self._members.leave(slot)
