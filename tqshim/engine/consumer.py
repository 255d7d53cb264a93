"""Getting: which item is this process's, by a claim or a lease.

Lives here: taking items out of the order of the journal, and what there is to take.  Not here: delivering under leases
(``leasing``, ``sole``), the commit point (``hand``), items that may come back (``acknowledge``), unpickling
(``queues``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tqshim.engine import tuning
from tqshim.engine.hand import Hand
from tqshim.engine.leasing import NO_STEPS, Leasing, small_ahead
from tqshim.engine.membership import Membership
from tqshim.engine.reader import Reader, Taken
from tqshim.engine.reclaim import Reclaimer
from tqshim.engine.replica import Replica
from tqshim.engine.sole import SoleLease
from tqshim.errors import CorruptBatchError
from tqshim.protocol import events
from tqshim.protocol.ledger import Ledger
from tqshim.protocol.records import Lease, Place
from tqshim.runtime import systems
from tqshim.runtime.clock import monotonic
from tqshim.storage.batch_file import BatchFile
from tqshim.storage.files import a_full_disk_is_no_matter
from tqshim.sync import cells as words_of
from tqshim.sync import membarrier
from tqshim.sync.cells import Cells

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Optional

__all__ = ["Consumer"]

FEW: Final = 4
"""Among so few consumers it is worth looking for dead ones at once: all but one may be dead."""


class Consumer:
    """What this process gets from one queue."""

    __slots__ = (
        "_claims_one",
        "_members",
        "_reader",
        "_reclaimer",
        "_replica",
        "_seen",
        "_seen_at",
        "_source",
        "claim_from",
        "hand",
        "leasing",
        "slot",
        "sole",
        "take_returned",
    )

    def __init__(self, replica: Replica, members: Membership, reader: Reader, reclaimer: Reclaimer) -> None:
        self._replica = replica
        self._members = members
        self._reader = reader
        self._reclaimer = reclaimer
        self.hand = Hand()
        self.leasing = Leasing(replica, members, reader, reclaimer, self.hand)
        self.sole = SoleLease(replica, members, reader, reclaimer, self.hand)
        self.slot: Optional[int] = None
        self._claims_one = b""
        """The event that claims one item."""
        self._source: tuple[int, Optional[BatchFile]] = -1, None
        """The number of the file in which the last claimed item stands, and that file if it is read as it is.  One
        tuple: an exception finds both changed, or neither."""
        self.claim_from = 0
        """Where the journal stood before our last claim, as a position cell says it."""
        self.take_returned: Callable[[list[Taken], int], None] = lambda got, most: None
        """Appends what has come back, so many records at most."""
        self._seen, self._seen_at = b"", (0, -1)
        """The counters when there was nothing to take; and the journal, and up to where, that was read behind them."""

    # -- what there is

    def delivered(self) -> int:
        """Return the oldest item that nobody has got, as far as can be seen without asking: a lease may be going on."""
        ledger = self._replica.ledger
        lease = ledger.leases.standing
        if lease is None:
            return ledger.head
        if ledger.leases.sole:
            return ledger.head + sum([at - ledger.totals[slot] for slot, at in self._members.given().items()])
        if self._holds(lease) and self.leasing.steps is NO_STEPS:
            return self.leasing.at
        return self._members.position() or ledger.leases.passed

    def taken_elsewhere(self) -> int:
        """Return ``delivered``, where this process gets nothing itself; else -1."""
        return self.delivered() if self.slot is None else -1

    def size(self) -> int:
        """Return how many items nobody has got and nobody holds, as far as the ledger knows them: items that are put
        and not cut come on top."""
        ledger = self._replica.ledger
        return ledger.tail - self.delivered() + len(ledger.holds.returned)

    def count(self) -> int:
        """Return how many items could be got now, or a moment ago.

        Counters, journal and lease are looked at one after the other: what others put and then got meanwhile must not
        count as got without counting as put.  If there is no moment without such changes, the last look counts."""
        count = 0
        for _ in range(tuning.LOOKS):
            counters = self._members.look()
            count = max(0, self._replica.ledger.uncut(counters) + self.size()) + len(self.hand.state[1])
            if self._is_still(counters):
                break
        return count

    def _is_still(self, counters: bytes) -> bool:
        """Return whether nothing was put since these counters were read; and, beside a lease, nothing was written to
        the journal, and nobody wanted the lease to end.  A process that wants this may have looked before, and then
        what the holder has stored since is not delivered: such a lease ends here."""
        replica, members = self._replica, self._members
        lease = replica.ledger.leases.standing
        if lease is not None and members.word(words_of.LEASE_FLAG, lease.slot):
            with a_full_disk_is_no_matter():
                self.end_any_lease()
            return False
        return not members.grows(counters) and (lease is None or not replica.journal.read(replica.pos, events.SIZE))

    def known(self) -> bytes:
        """Return the counters of what is cut, or delivered by our lease of all that comes."""
        return self._replica.ledger.totals.tobytes() if self.sole.lease is None else self._members.cells.given()

    # -- taking

    def finds_nothing_new(self) -> bool:
        """Return whether there was nothing to take, and since then nothing was put or written to the journal."""
        replica, cells = self._replica, self._members.cells
        if self.hand.state[1] or self.hand.damage is not None:
            return False
        if self.sole.lease is not None:
            return cells.is_all_given() and not replica.journal.read(replica.pos, events.SIZE)
        return (
            self._seen == cells.counters()
            and not replica.journal.read(replica.pos, events.SIZE)
            # Last: so a caller without the lock sees that another thread has read on meanwhile.
            and self._seen_at == (replica.journal.number, replica.pos)
        )

    def take(self, got: list[Taken], most: int) -> None:  # noqa: C901  each step of it would be a call of each get
        """Append to ``got`` what is there, ``most`` records or fewer."""
        hand, leasing, sole = self.hand, self.leasing, self.sole
        if hand.damage is not None:
            damage, hand.damage = hand.damage, None
            raise damage
        last, records = hand.state
        if records:
            got += records[:most]
            hand.state = last, records[most:]
            hand.cut_short = True
            return
        if leasing.lease is not None and leasing.at < leasing.lease.end and leasing.take(got, most):
            return
        replica, members = self._replica, self._members
        if sole.lease is not None:
            # Something may come between two looks; but if the second take does not find it, a claim is to find it.
            if most == 1 and (sole.take(got) or sole.is_idle() or sole.take(got)):
                return
            sole.end()
        if most > 1:
            replica.sync()  # some of what seems to wait may be another's by now, and what was put since not cut
        claims = False
        """A lease of all that comes was tried, and is no way to what is there."""
        while True:
            ledger = replica.ledger
            cuts, counters, uncut = b"", b"", 0
            if ledger.tail - ledger.head < max(most, tuning.LEASE_MORE):
                counters = members.look()
                ledger = replica.ledger
                if ledger.tail - ledger.head < max(most, tuning.LEASE_MORE):
                    grown = ledger.grown(counters)
                    cuts = ledger.cuts(grown, members.cells.marks)
                    for slot, total in grown:
                        uncut += total - ledger.totals[slot]
                    if not (cuts or ledger.head < ledger.tail or self.delivered() < ledger.head) and (
                        not self._comes_back(ledger)
                    ):
                        if members.grows(counters):
                            continue  # what waited when they were read may be another's by now
                        if not ledger.holds.held:  # else a holder may die
                            self._seen, self._seen_at = counters, (replica.journal.number, replica.pos)
                        return
            if self.slot is None:
                self.join()
                continue
            lease = ledger.leases.standing
            if ledger.holds.returned:
                self.take_returned(got, most)
                if got:
                    return
                continue
            if lease is not None and not self._holds(lease):
                self._revoke(lease)
                continue
            if leasing.lease is not None and leasing.at < leasing.lease.end:
                if leasing.take(got, most):
                    return
                continue
            if replica.journal.words is None:
                replica.journal.map(ledger.position.limit)
            enough = tuning.SOLE_BELOW if sole.is_possible(ledger) else tuning.LEASE_FROM
            if ledger.tail - ledger.head + uncut >= enough and self._wants_lease(cuts):
                if leasing.begin(self.slot, cuts) and leasing.take(got, most):
                    return
                continue
            if leasing.lease is not None and ledger.members.consumers == 1:
                self.end_lease()
                continue
            if most == 1 and 0 < uncut < enough and not claims and sole.is_wanted(cuts):
                claims = True
                if sole.begin(self.slot):
                    if sole.take(got):
                        return
                    sole.end()  # what was there is another's by now
                continue
            if self._claim(got, most, cuts if ledger.tail - ledger.head < most else b""):
                self._nothing_left(counters)
                return

    def may_claim(self) -> bool:
        """Return whether the short way of a claim is open, as far as can be seen without the lock: something was put
        since there was nothing."""
        try:
            mapped = self._replica.journal.words is not None
            return mapped and self.slot is not None and self._seen != self._members.cells.counters()
        except ValueError:  # forked just now
            return False

    def take_one(self, got: list[Taken]) -> bool:
        """Take one item by the short way, a claim or a lease, where all is as usual.  ``False``: nothing was got."""
        replica, leasing, slot = self._replica, self.leasing, self.slot
        own = leasing.lease
        if slot is None or (own is not None and leasing.at < own.end):
            return False
        counters, cuts, leases = self._what_waits()
        ledger = replica.ledger
        if (
            not (cuts or ledger.head < ledger.tail)
            or ledger.holds.returned
            or (ledger.leases.standing is not None and ledger.leases.standing != own)
            or ledger.ending.shutting
            or ledger.position.index >= ledger.position.limit
            or replica.journal.words is None
        ):
            self._nothing_left(counters)
            return False
        if leases and self._wants_lease(cuts):
            return leasing.begin(slot, cuts) and leasing.take(got, 1)
        words = self._members.cells.words
        cell = Cells.place(words_of.POSITION, slot)
        # As in ``_claim``.
        words[cell] = self.claim_from = replica.now
        # Commit point: the item is ours.
        item = replica.claim(self._claims_one, cuts + leasing.last_event())
        leasing.see_its_end()
        if cuts:
            self._members.has_cut()
        if item >= 0:
            number, at, _ = ledger.extents.place(item)
            known, batch = self._source
            if known != number:
                batch = self._reader.plain(ledger.files.known[number])
                self._source = number, batch
            record = None
            if batch is not None:
                try:
                    record = batch.record(at)
                except ValueError:
                    pass  # the record is read once more, to say what is damaged
            if record is None:
                self._deliver(got, Place(ledger.files.known[number], at), item, item + 1, True)
            else:
                self.hand.deliver_one(got, record, item)
        words[cell] = 0
        if cuts:
            self._nothing_left(counters)
        if ledger.files.done or (ledger.files.sealing and item + 1 >= ledger.files.sealing[0][0]):
            self._reclaimer.reclaim_done()
        return item >= 0

    def _what_waits(self) -> tuple[bytes, bytes, bool]:
        """Read on; return the counters, the CUTs of what must be cut before it can be got, and whether there is enough
        for a lease.  Where all that comes may be leased nothing is cut: the long way does that."""
        replica, members = self._replica, self._members
        ledger = replica.ledger
        counters, leases = b"", ledger.members.consumers == 1 or self.hand.pace[2] < tuning.LEASE_PACE
        may_cut = members.counting and not self.sole.is_possible(ledger)
        if ledger.head < ledger.tail and not (may_cut and leases):
            replica.sync()  # what seems to wait may be another's by now
            ledger = replica.ledger
        if may_cut and (leases or ledger.head >= ledger.tail):
            counters = members.look()
            ledger = replica.ledger
        waiting = ledger.tail - ledger.head
        grown = ledger.grown(counters) if counters and waiting < tuning.LEASE_MORE else []
        leases = leases and waiting + sum([total - ledger.totals[log] for log, total in grown]) >= tuning.LEASE_FROM
        return counters, ledger.cuts(grown, members.cells.marks) if leases or waiting <= 0 else b"", leases

    def _nothing_left(self, counters: bytes) -> None:
        """Note that nothing is left, if all that was put by these counters is another's, or got."""
        ledger = self._replica.ledger
        nothing = ledger.leases.plain and ledger.head == ledger.tail and counters == ledger.totals.tobytes()
        if nothing and not ledger.holds.held:  # else a holder may die
            self._seen, self._seen_at = counters, (self._replica.journal.number, self._replica.pos)

    # -- taking part

    def join(self) -> None:
        """Become a consumer."""
        slot = self._members.join(consumer=True)
        self.claim_from = self._replica.now
        self._claims_one = events.claim(slot)
        self.slot = slot
        ledger = self._replica.ledger
        if ledger.leases.sole and ledger.leases.standing is not None:
            self._revoke(ledger.leases.standing)  # its holder believes that nobody else sleeps
        if ledger.members.consumers <= FEW:
            self._members.bury_the_dead()  # so that we may be the only one, and lease

    def _comes_back(self, ledger: Ledger) -> bool:
        """Return whether items have come back, if need be those of holders that died; nothing else waits."""
        if ledger.holds.held:
            self._reclaimer.scan_if_due(monotonic())
        return bool(self._replica.ledger.holds.returned)

    def _holds(self, lease: Lease) -> bool:
        """Return whether that lease is ours."""
        own = self.leasing.lease or self.sole.lease
        return own is not None and own.number == lease.number

    def _claim(self, got: list[Taken], most: int, cuts: bytes) -> bool:
        """Claim items at the head, and read them.  ``False``: others were faster, or the journal was rolled."""
        replica, slot = self._replica, self.slot
        assert slot is not None
        words = self._members.cells.words
        cell = Cells.place(words_of.POSITION, slot)
        # Before the CLAIM: from now on no batch file goes in which the CLAIM may take an item.
        words[cell] = self.claim_from = replica.now
        claim = self._claims_one if most == 1 else events.claim_many(slot, most)
        # Commit point: the items at the head are ours.
        claimed = replica.append(cuts + self.leasing.last_event() + claim)[-1]
        self.leasing.see_its_end()
        if cuts:
            self._members.has_cut()
        if not isinstance(claimed, range):
            words[cell] = 0
            return False
        ledger = replica.ledger
        item = claimed.start
        while item < claimed.stop:
            file, record, stop = ledger.extents.place(item)
            place = Place(ledger.files.known[file], record)
            stop = min(stop, claimed.stop)
            item = self._deliver(got, place, item, stop, most == 1)
        words[cell] = 0
        if ledger.files.done or (ledger.files.sealing and claimed.stop >= ledger.files.sealing[0][0]):
            self._reclaimer.reclaim_done()
        return True

    def _deliver(self, got: list[Taken], place: Place, item: int, stop: int, alone: bool) -> int:
        """Read and deliver the first of the items up to ``stop``, which stand at ``place``; returns the first that is
        not delivered.  ``alone``: no other item is wanted."""
        try:
            if stop == item + 1:
                records: Sequence[Taken] = (self._reader.read(place, item, alone),)
            else:
                records = self._reader.read_many(place, item, stop)
        except CorruptBatchError:
            # It is lost; the next take finds the ones behind it in the journal.
            self.hand.lose(item)
            raise
        return self.hand.deliver(got, records, item)

    # -- leases

    def _wants_lease(self, cuts: bytes) -> bool:
        """Return whether several items are wanted now: a lease is worth its event, and no shorter than that."""
        ledger = self._replica.ledger
        return (
            tuning.LEASES
            and self._members.counting
            and not ledger.holds.apart
            and (ledger.members.consumers == 1 or self.hand.pace[2] < tuning.LEASE_PACE)
            and small_ahead(ledger, cuts) > 0
        )

    def end_lease(self) -> None:
        """End our lease where we are."""
        self.sole.end()
        if not self.leasing.end():
            self.recover()

    def end_used_lease(self) -> None:
        """End our lease, if wholly delivered: nothing has come for a while, and it must not keep its batch files."""
        self.sole.end_if_over()
        lease = self.leasing.lease
        if lease is not None and self.leasing.at >= lease.end:
            self.end_lease()
            self._reclaimer.reclaim_done()

    def end_any_lease(self) -> bool:
        """End the lease that stands, ours or another's.  ``False``: no lease stands."""
        lease = self._replica.ledger.leases.standing
        if lease is None:
            return False
        if self._holds(lease):
            self.end_lease()
        else:
            self._revoke(lease)
        return True

    def _revoke(self, lease: Lease) -> None:
        """End another's lease."""
        if self._replica.ledger.leases.sole:
            self._replica.append(self._members.end_of_all())
            return
        if self._members.position() < lease.end or not systems.STORES_IN_ORDER:
            self._members.raise_flag(words_of.LEASE_FLAG, lease.slot)
            membarrier.barrier()
        position = self._members.word(words_of.LEASE_POSITION, lease.slot)
        count = max(0, min(position, lease.end) - lease.first)
        self._replica.append(events.revoke(count, lease.number))

    # -- being sure

    def recover(self) -> None:
        """Ask the journal what is ours: an act was interrupted."""
        leasing, hand = self.leasing, self.hand
        leasing.settle()
        self._replica.reload(self.slot, self.claim_from)
        number = self._members.slots.get(self.slot) if self.slot is not None else None
        self.sole.recover(number)
        leasing.learn_of_its_end()
        ledger = self._replica.ledger
        last = max(hand.state[0], leasing.at - 1)
        mine = [(item, place) for _, item, place in ledger.watch.items if item > last]
        ledger.watch.items = []
        lease = ledger.leases.standing
        at = max(ledger.leases.passed, last + 1)
        goes_on = lease is not None and lease.member == number
        if lease is not None and goes_on:
            taken = leasing.end_where_taken(lease, at)
            if taken is not None:
                mine += taken
                goes_on = False
        # Before our lease is touched: if this is interrupted, the next try must find the same.
        self._recover_items(mine)
        if lease is not None and goes_on:
            leasing.hold(lease, at)
        else:
            leasing.forget()
        if self.slot is not None:
            self._members.cells.words[Cells.place(words_of.POSITION, self.slot)] = 0
        self.claim_from = self._replica.now  # All before that is known.
        self._replica.settled()

    def _recover_items(self, mine: list[tuple[int, Place]]) -> None:
        """Put items that were taken, but not delivered, into the hand."""
        if not mine:
            return
        hand = self.hand
        found: list[Taken] = []
        damage = hand.damage
        for item, place in mine:
            record = self.leasing.cached(item)  # its file may be gone: no cell keeps it for what is read already
            try:
                found.append(self._reader.read(place, item, False) if record is None else record)
            except CorruptBatchError as error:  # and nothing else: a signal handler may raise anything
                damage = error
        hand.state = mine[-1][0], (*hand.state[1], *found)
        hand.damage = damage

    def end_of(self, lease: Lease) -> int:
        """Return where the lease of another engine of this process has ended: it ends now, if it has not."""
        self._replica.sync()
        if self._replica.ledger.leases.standing == lease:
            self._revoke(lease)
        number, end = self._replica.ledger.leases.ended.get(lease.slot, (0, 0))
        return end if number == lease.number else 0

    def leave(self) -> None:
        """Stop being a consumer."""
        self.end_lease()
        slot, self.slot = self.slot, None
        if slot is not None:
            self._members.leave(slot)
