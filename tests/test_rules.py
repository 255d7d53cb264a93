"""Each rule is needed: small cases of the seven protocols hold in every interleaving, and fail once one is taken out.

Rules of the ledger are taken out by a subclass of ``Ledger`` that lives here; parts of a protocol by the ``without`` of
its model.  Each of these tests says what kind of violation it must find.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Callable, Optional

import pytest
from checker import (
    Batches,
    Claimer,
    Claims,
    Ender,
    Ends,
    Filler,
    Holder,
    Holds,
    Leases,
    Model,
    Putter,
    Reader,
    Remover,
    Reservations,
    Result,
    Roller,
    Rolls,
    Rules,
    Taker,
    explore,
)

from tqshim import events
from tqshim.extents import Block
from tqshim.ledger import Held, Lease, Ledger, Member, Reservation, Verdict
from tqshim.names import FileId

Make = Callable[[type[Ledger], Iterable[str]], Model]
"""A case: its model, driven by a class of ledgers, without some parts of the protocol."""


# -- the cases


def claims(*processes: Claimer, **sizes: Any) -> Make:
    return lambda ledger, without: Claims(Rules(ledger), processes, without, **sizes)


def leases(*processes: Holder, **sizes: Any) -> Make:
    return lambda ledger, without: Leases(Rules(ledger), processes, without, **sizes)


def reservations(*processes: Putter, **sizes: Any) -> Make:
    return lambda ledger, without: Reservations(Rules(ledger), processes, without, **sizes)


def batches(*processes: Any, **sizes: Any) -> Make:
    # Positions in the journal count here, so every valid event does.
    return lambda ledger, without: Batches(Rules(ledger, "valid"), processes, without, **sizes)


def holds(*processes: Taker, **sizes: Any) -> Make:
    return lambda ledger, without: Holds(Rules(ledger), processes, without, **sizes)


def ends(*processes: Ender, **sizes: Any) -> Make:
    return lambda ledger, without: Ends(Rules(ledger), processes, without, **sizes)


def rolls(*processes: Roller, **sizes: Any) -> Make:
    return lambda ledger, without: Rolls(ledger, processes, without, **sizes)


ITEMS = Claimer("producer", 3, portion=2)
ONE = Claimer()
MANY = Claimer(portion=2)

HOLDER = Holder(joined=True, left=3, leases=1)
SECOND = Holder(left=3, leases=1)
OUTSIDER = Holder("outsider", 1)
PRODUCER = Holder("producer", 1)

RESERVER = Putter(left=3, places=2)
SINGLE = Putter(left=3)
DRAIN = Putter("consumer")
NEXT = Putter(left=2, places=2, newcomer=True)
BULK = Putter(left=1, bulk=3)

CLAIMER = Reader(left=1)
LEASER = Reader("leaser")
LATE = CLAIMER._replace(late=True)
REVOKER = Reader("outsider", 1)

PUTS = Ender("producer")
FINISHES = Ender("consumer")
JOINS = Ender("joiner", 0)
SHUTS = Ender("shutter", 0)

GIVES = Taker("producer", 2)
CLAIMS = Taker(raises=1)
GETS = Taker("getter", 2)
LEASES = Taker("leaser", 2)
LEAVES = Taker("leaver")

GETTER = Roller(left=2)
GETTER_OF_ONE = Roller(left=1)
PUTTER = Roller("producer", 1)

CASES: dict[str, tuple[Make, tuple[str, ...]]] = {
    "claims: two producers, claims one by one and in portions": (
        claims(ITEMS, Claimer("producer", 1), ONE, MANY._replace(left=1)),
        (),
    ),
    "claims: bounded": (claims(ITEMS, ONE, MANY, maxsize=2), ()),
    "holds: two claim, one gets": (
        holds(GIVES, CLAIMS._replace(left=2), CLAIMS, GETS._replace(left=1), kills=2, stops=1),
        (),
    ),
    "holds: one claims, one gets, bounded": (holds(GIVES._replace(left=3), CLAIMS, CLAIMS, GETS, maxsize=2), ()),
    "holds: one claims, one leases": (
        holds(GIVES._replace(left=3), CLAIMS._replace(left=2), LEASES._replace(leases=2)),
        (),
    ),
    "holds: one leaves in its block": (holds(GIVES, LEAVES, CLAIMS, GETS), ()),
    "ends: two finish, one joins": (ends(PUTS._replace(left=3), FINISHES, FINISHES._replace(left=1), JOINS), ()),
    "ends: one shuts down beside bursts": (ends(PUTS, PUTS._replace(left=1), FINISHES, JOINS, SHUTS, kills=1), ()),
    "ends: one shuts down at once": (
        ends(PUTS, PUTS._replace(left=1), FINISHES, JOINS, SHUTS, immediate=True, kills=1),
        (),
    ),
    "leases: a holder, a second consumer joins, a producer": (leases(HOLDER, SECOND, PRODUCER), ()),
    "leases: the same, consumers lease only alone": (leases(HOLDER._replace(leases=3), SECOND, PRODUCER), ("alone",)),
    "leases: a holder and a second consumer, who claim without looking": (leases(HOLDER, SECOND), ("look",)),
    "leases: a holder and two outsiders, one of them late": (
        leases(HOLDER._replace(leases=4), OUTSIDER._replace(left=2), OUTSIDER, items=2, most=1, kills=0, stops=0),
        (),
    ),
    "leases: of one item, consumers claim without looking": (
        leases(HOLDER, SECOND, items=3, most=1),
        ("look",),
    ),
    "reservations: one reserves, one does not": (reservations(RESERVER, SINGLE), ()),
    "reservations: the same, with a consumer": (
        reservations(RESERVER._replace(left=2), SINGLE._replace(left=2), DRAIN, maxsize=2),
        (),
    ),
    "reservations: the same with three places, no kills": (
        reservations(RESERVER, SINGLE, DRAIN, kills=0, stops=0),
        (),
    ),
    "reservations: both reserve": (reservations(RESERVER, RESERVER, maxsize=4), ()),
    "reservations: a slot is used again": (reservations(RESERVER._replace(left=2), SINGLE, NEXT, stops=0), ()),
    "reservations: a put of more than that is refused": (reservations(RESERVER._replace(many=1), SINGLE), ()),
    "reservations: a put in pieces": (reservations(BULK, SINGLE), ()),
    "batches: two claim": (batches(Filler(2), Remover(), CLAIMER, CLAIMER, kills=0), ()),
    "batches: one claims two, kills": (batches(Filler(2), Remover(), CLAIMER._replace(left=2), kills=1), ()),
    "batches: one leases, one revokes": (batches(Filler(2), Remover(), LEASER, REVOKER, kills=0), ()),
    "batches: one reads late, one at once": (batches(Filler(2), Remover(), LATE, CLAIMER, kills=0), ()),
    "batches: one reads two late, kills": (batches(Filler(2), Remover(), LATE._replace(left=2)), ()),
    "batches: one leases and reads late": (batches(Filler(2), Remover(), LEASER._replace(late=True), kills=0), ()),
    "rolls: one puts, two get": (rolls(PUTTER, GETTER, GETTER_OF_ONE), ()),
    "rolls: old journals go at once": (rolls(PUTTER, GETTER, GETTER_OF_ONE), ("old kept",)),
}

MIDDLE: dict[str, tuple[Make, tuple[str, ...]]] = {
    "holds: one claims, one gets, bounded, four items": (
        holds(GIVES._replace(left=4), CLAIMS, CLAIMS, GETS, maxsize=2),
        (),
    ),
    "leases: a second consumer joins, a producer, consumers claim without looking": (
        leases(HOLDER, SECOND, PRODUCER),
        ("look",),
    ),
}
"""What ``.ci/run`` has time for."""

LARGE: dict[str, tuple[Make, tuple[str, ...]]] = {
    "leases: of one item, a second consumer, an outsider": (leases(HOLDER, SECOND, OUTSIDER, most=1), ()),
    "leases: two of each": (leases(HOLDER._replace(leases=2), SECOND._replace(leases=2), PRODUCER), ()),
    "leases: three consumers": (leases(HOLDER, SECOND, SECOND._replace(left=2, leases=0), PRODUCER, stops=0), ()),
    "leases: a second consumer, an outsider, a producer": (leases(HOLDER, SECOND, OUTSIDER, PRODUCER), ("look",)),
    "reservations: both reserve, with a consumer": (reservations(RESERVER, RESERVER, DRAIN, maxsize=4), ()),
    "reservations: three, and a slot is used again": (reservations(RESERVER, RESERVER, NEXT, maxsize=4), ()),
    "batches: two claim, kills": (batches(Filler(2), Remover(), CLAIMER, CLAIMER), ()),
    "batches: two claim, three items": (batches(Filler(3), Remover(), CLAIMER, CLAIMER), ()),
    "batches: two items, two readers, one of them of both": (
        batches(Filler(2), Remover(), CLAIMER, CLAIMER._replace(left=2)),
        (),
    ),
    "batches: one leases, one revokes, kills": (batches(Filler(2), Remover(), LEASER, REVOKER), ()),
    "batches: one claims three": (batches(Filler(3), Remover(), CLAIMER._replace(left=3)), ()),
    "rolls: two put, two get": (rolls(PUTTER, PUTTER, GETTER, GETTER_OF_ONE), ("old kept",)),
}


def explored(cases: dict[str, tuple[Make, tuple[str, ...]]], case: str, *most: int) -> Result:
    """The whole state space of a case, without a violation."""
    make, without = cases[case]
    result = explore(make(Ledger, without), *most)
    print(f"{case}: {result}")
    assert result.kind is None, str(result)
    return result


@pytest.mark.parametrize("case", CASES)
def test_holds_in_every_interleaving(case: str) -> None:
    """No violation in the whole state space, with a kill and a stop anywhere."""
    assert explored(CASES, case).states > 400, "the case does nothing"


@pytest.mark.stress
@pytest.mark.parametrize("case", MIDDLE)
def test_holds_in_every_interleaving_of_middle_sized_cases(case: str) -> None:
    explored(MIDDLE, case)


@pytest.mark.stress
@pytest.mark.parametrize("case", LARGE)
def test_holds_in_every_interleaving_of_larger_cases(case: str) -> None:
    explored(LARGE, case, 20_000_000)


# -- rules of the ledger, taken out


class ClaimUnderLease(Ledger):
    """CLAIM is valid while a lease stands."""

    def _claim(self, slot: int, most: int) -> Optional[range]:
        plain, self.plain = self.plain, True
        items = super()._claim(slot, most)
        self.plain = plain
        return items


class ClaimBehindTail(Ledger):
    """CLAIM is valid where there is no item."""

    def _claim(self, slot: int, most: int) -> Optional[range]:
        if self.lease is None and self.head == self.tail:
            self.head = self.tail = self.tail + 1
            return range(self.head - 1, self.head)
        return super()._claim(slot, most)


class ClaimOfAsMany(Ledger):
    """CLAIM_MANY takes as many as it says, not as many as there are."""

    def _claim(self, slot: int, most: int) -> Optional[range]:
        items = super()._claim(slot, most)
        return items and range(items.start, items.start + most)


class ClaimLeavesHead(Ledger):
    """CLAIM does not take the item away."""

    def _claim(self, slot: int, most: int) -> Optional[range]:
        head = self.head
        items = super()._claim(slot, most)
        self.head = head
        return items


class PublishBeyondBound(Ledger):
    """PUBLISH has no bound."""

    def _publish(self, slot: int, count: int, more: bool, units: int) -> Optional[int]:
        maxsize, self.maxsize = self.maxsize, 0
        first = super()._publish(slot, count, more, units)
        self.maxsize = maxsize
        return first


class PublishIntoReserved(Ledger):
    """PUBLISH does not see what others have reserved."""

    def _publish(self, slot: int, count: int, more: bool, units: int) -> Optional[int]:
        others = self.reserved - (self.res[slot].places if slot in self.res else 0)
        self.maxsize += others
        first = super()._publish(slot, count, more, units)
        self.maxsize -= others
        return first


class VoidPublishDrops(Ledger):
    """A void PUBLISH drops the reservation."""

    def _publish(self, slot: int, count: int, more: bool, units: int) -> Optional[int]:
        first = super()._publish(slot, count, more, units)
        if first is None and slot in self.res:
            self.reserved -= self.res.pop(slot).places
        return first


class MoreGivesBack(Ledger):
    """PUBLISH with ``more`` gives the rest of the reservation back."""

    def _publish(self, slot: int, count: int, more: bool, units: int) -> Optional[int]:
        return super()._publish(slot, count, False, units)


class LeaseOverAnothers(Ledger):
    """LEASE is valid while another's lease stands."""

    def _lease(self, slot: int, most: int) -> Optional[Lease]:
        before, self.lease = self.lease, None
        lease = super()._lease(slot, most)
        if lease is None:
            self.lease = before
        return lease


class LeaseOfSlot(Ledger):
    """A LEASE renews the lease of whoever had the slot."""

    def _lease(self, slot: int, most: int) -> Optional[Lease]:
        before, member = self.lease, self.members.get(slot)
        if before and member and before.slot == slot:
            self.lease = before._replace(member=member.number)
        lease = super()._lease(slot, most)
        if lease is None:
            self.lease = before
        return lease


class RevokeAnyNumber(Ledger):
    """REVOKE ends whatever lease stands."""

    def _revoke(self, count: int, number: int) -> Optional[int]:
        return super()._revoke(count, self.lease.number if self.lease else number)


class KeptOfTheLast(Ledger):
    """It is kept where the last lease ended, but not where those of other members did."""

    def _revoke(self, count: int, number: int) -> Optional[int]:
        self.kept.clear()
        return super()._revoke(count, number)


class RevokeUnclamped(Ledger):
    """REVOKE may count items that the lease does not have."""

    def _revoke(self, count: int, number: int) -> Optional[int]:
        lease = self.lease
        if super()._revoke(count, number) is None or lease is None:
            return None
        self.head = lease.first + count
        self.kept[lease.slot] = number, self.head
        return self.head


class LeaveEndsLease(Ledger):
    """LEAVE ends the lease as if it had been delivered."""

    def _leave(self, slot: int, number: int) -> Optional[int]:
        left = super()._leave(slot, number)
        if left is not None and self.lease and self.lease.member == number:
            self.lease, self.plain = None, True
        return left


class LeaveGivesLeaseBack(Ledger):
    """LEAVE ends the lease as if nothing of it had been delivered."""

    def _leave(self, slot: int, number: int) -> Optional[int]:
        left = super()._leave(slot, number)
        if left is not None and self.lease and self.lease.member == number:
            self.head, self.lease, self.plain = self.lease.first, None, True
        return left


class HeldTakesNoPlace(Ledger):
    """What is held, or has come back, takes no place."""

    @property
    def used(self) -> int:  # type: ignore[override]
        return super().used - self.apart


class ClaimOverReturned(Ledger):
    """CLAIM is valid while an item has come back."""

    def _claim(self, slot: int, most: int) -> Optional[range]:
        plain, self.plain = self.plain, self.lease is None
        items = super()._claim(slot, most)
        self.plain = plain
        return items


class HoldOfHead(Ledger):
    """HOLD takes the head first, and what has come back only where nothing waits."""

    def _hold(self, number: int, slot: int) -> Optional[Held]:
        if self.head >= self.tail:
            return super()._hold(number, slot)
        returned, self.returned = self.returned, []
        held = super()._hold(number, slot)
        self.returned = returned
        return held


class HoldUnderLease(Ledger):
    """HOLD is valid while a lease stands: it takes what comes after that."""

    def _hold(self, number: int, slot: int) -> Optional[Held]:
        lease, self.lease = self.lease, None
        held = super()._hold(number, slot)
        self.lease = lease
        return held


class HoldLeavesHead(Ledger):
    """HOLD does not take the item away."""

    def _hold(self, number: int, slot: int) -> Optional[Held]:
        head = self.head
        held = super()._hold(number, slot)
        self.head = head
        return held


class HoldByWhoever(Ledger):
    """HOLD is valid for one that has left, too."""

    def _hold(self, number: int, slot: int) -> Optional[Held]:
        if slot in self.members:
            return super()._hold(number, slot)
        self.members[slot] = Member(9, True)
        held = super()._hold(number, slot)
        del self.members[slot]
        return held


class LeaseBesideHeld(Ledger):
    """LEASE is valid while an item is held or has come back."""

    def _lease(self, slot: int, most: int) -> Optional[Lease]:
        apart, self.apart = self.apart, 0
        lease = super()._lease(slot, most)
        self.apart = apart
        return lease


class LeaveKeepsHeld(Ledger):
    """LEAVE leaves what the member holds with it."""

    def _come_back(self, held: Held) -> None:
        if held.member in {member.number for member in self.members.values()}:
            super()._come_back(held)


class LeaveDropsHeld(Ledger):
    """LEAVE takes what the member holds for got."""

    def _come_back(self, held: Held) -> None:
        if held.member in {member.number for member in self.members.values()}:
            super()._come_back(held)
        else:
            self._got(held.number)


class LeaveReturnsAll(Ledger):
    """LEAVE gives back what others hold, too."""

    def _leave(self, slot: int, number: int) -> Optional[int]:
        left = super()._leave(slot, number)
        for held in list(self.held.values()) if left is not None else []:
            self._come_back(held)
        return left


class ReturnLowersHead(Ledger):
    """RETURN lowers the head to the item."""

    def _come_back(self, held: Held) -> None:
        self._got(held.number)
        others = (Block(item, item + 1, FileId(0, 99), 0, 1) for item in range(held.item + 1, self.head))
        self.trim()
        self.blocks.extendleft(reversed([held.block, *others]))
        self.head = held.item


class ReturnUnmarked(Ledger):
    """What comes back does not tell how often it did."""

    def _come_back(self, held: Held) -> None:
        super()._come_back(held._replace(times=held.times - 1))


class GotOfItem(Ledger):
    """GOT ends whatever hold there is."""

    def _got(self, number: int) -> Optional[int]:
        return super()._got(number if number in self.held else next(iter(self.held), number))


class HeldFileIsDone(Ledger):
    """A batch file is done while an item of it is held or has come back."""

    def is_done(self, file: FileId) -> bool:
        kept, self._kept_files = self._kept_files, {}
        done = super().is_done(file)
        self._kept_files = kept
        return done


class HeldForgotten(Ledger):
    """A snapshot does not tell what is held."""

    @classmethod
    def load(cls, data: bytes) -> Ledger:
        ledger = super().load(data)
        for number in list(ledger.held):
            ledger._got(number)
        return ledger


class ReturnedForgotten(Ledger):
    """A snapshot does not tell what has come back."""

    @classmethod
    def load(cls, data: bytes) -> Ledger:
        ledger = super().load(data)
        ledger.apart -= len(ledger.returned)
        ledger.returned, ledger.plain = [], ledger.lease is None
        return ledger


class TaskDoneAnyTime(Ledger):
    """TASK_DONE has no bound."""

    def _task_done(self) -> Optional[int]:
        self._finish(1)
        return self.unfinished


class DroppedIsUnfinished(Ledger):
    """SHUTDOWN at once does not count what it drops as finished."""

    def _finish(self, count: int) -> None:
        if self.shut < 2:
            super()._finish(count)


class LeaveOfWhoever(Ledger):
    """LEAVE takes out whoever has the slot."""

    def _leave(self, slot: int, number: int) -> Optional[int]:
        member = self.members.get(slot)
        return super()._leave(slot, member.number if member else number)


class LeaveKeepsReservation(Ledger):
    """LEAVE keeps the reservation."""

    def _leave(self, slot: int, number: int) -> Optional[int]:
        own = self.res.pop(slot, None)
        left = super()._leave(slot, number)
        if own:
            self.res[slot] = own
        return left

    def snapshot(self, rolled: bool = False) -> bytes:
        gone = {slot: own for slot, own in self.res.items() if slot not in self.members}
        # What nobody holds any more is kept by taking as many places from the bound.
        for slot, own in gone.items():
            self.maxsize -= own.places
            self.reserved -= own.places
            del self.res[slot]
        return super().snapshot(rolled)


class ReserveBeyondBound(Ledger):
    """RESERVE has no bound."""

    def _reserve(self, slot: int, places: int) -> Optional[Reservation]:
        self.maxsize += 100
        own = super()._reserve(slot, places)
        self.maxsize -= 100
        return own


class TrimWhereItCuts(Ledger):
    """TRIM is void where it cuts nothing."""

    def _trim(self, slot: int, kept: int, grant: int) -> Optional[Reservation]:
        if slot in self.res and kept >= self.res[slot].places:
            return None
        return super()._trim(slot, kept, grant)


class TrimAnyGrant(Ledger):
    """TRIM cuts whatever reservation the slot has."""

    def _trim(self, slot: int, kept: int, grant: int) -> Optional[Reservation]:
        return super()._trim(slot, kept, self.res[slot].grant if slot in self.res else grant)


class TrimAgain(Ledger):
    """TRIM cuts what has been cut."""

    def _trim(self, slot: int, kept: int, grant: int) -> Optional[Reservation]:
        if slot in self.res:
            self.res[slot] = self.res[slot]._replace(cut=False)
        return super()._trim(slot, kept, grant)


class TrimRaises(Ledger):
    """TRIM keeps as many places as it says, also more than there were."""

    def _trim(self, slot: int, kept: int, grant: int) -> Optional[Reservation]:
        own = super()._trim(slot, kept, grant)
        if own:
            self.res[slot] = own._replace(places=kept)
            self.reserved += kept - own.places
        return own


class LeasedIsClaimed(Ledger):
    """A leased item counts as claimed."""

    @property
    def low(self) -> int:  # type: ignore[override]
        return self.head


class DoneWhileFilled(Ledger):
    """A batch file is done when its items are, sealed or not."""

    def is_done(self, file: FileId) -> bool:
        return self._filled.get(file, self.low + 1) <= self.low or super().is_done(file)


class OpenAnySerial(Ledger):
    """OPEN takes a serial that was used before."""

    def _open(self, slot: int, serial: int) -> Optional[int]:
        former = self.files.get(slot)
        if former is not None and former[0].serial >= serial:
            self._seal(slot)
        return super()._open(slot, serial)


class KeptForgotten(Ledger):
    """A snapshot does not tell where each member's last lease ended."""

    @classmethod
    def load(cls, data: bytes) -> Ledger:
        ledger = super().load(data)
        ledger.kept = {}
        return ledger


class CutForgotten(Ledger):
    """A snapshot does not tell that a reservation was cut."""

    @classmethod
    def load(cls, data: bytes) -> Ledger:
        ledger = super().load(data)
        ledger.res = {slot: own._replace(cut=False) for slot, own in ledger.res.items()}
        return ledger


class LateEventsCount(Ledger):
    """Events past the limit are valid, and a snapshot shows what the roller has seen of them."""

    def step(self, event: int) -> Verdict:
        if event & 0xFF == events.SEAL:
            return super().step(event)
        limit, self.limit = self.limit, 1 << 30
        verdict = super().step(event)
        self.limit = limit
        return verdict


class LastSealDecides(Ledger):
    """A later SEAL takes the decision back."""

    def _seal_journal(self, key: int) -> Optional[int]:
        self.sealed = key
        return key


CLAIMING = CASES["claims: two producers, claims one by one and in portions"][0]
BOUNDED = CASES["claims: bounded"][0]
SECOND_JOINS = CASES["leases: a holder, a second consumer joins, a producer"][0]
SECOND_ALONE = leases(HOLDER, SECOND)
SHORT = CASES["leases: of one item, consumers claim without looking"][0]
STALE = leases(HOLDER._replace(left=4, leases=4), OUTSIDER._replace(left=2), items=3, most=1, kills=0, stops=0)
NEAR = CASES["reservations: one reserves, one does not"][0]
DRAINED = CASES["reservations: the same with three places, no kills"][0]
SLOT_AGAIN = CASES["reservations: a slot is used again"][0]
TOO_MANY = CASES["reservations: a put of more than that is refused"][0]
PIECES = CASES["reservations: a put in pieces"][0]
FILES = CASES["batches: two claim"][0]
LEASED_FILES = CASES["batches: one leases, one revokes"][0]
READ_LATE = CASES["batches: one reads two late, kills"][0]
HOLDING = CASES["holds: two claim, one gets"][0]
HOLDING_BOUNDED = CASES["holds: one claims, one gets, bounded"][0]
HOLDING_LEASED = CASES["holds: one claims, one leases"][0]
HOLDING_LEFT = CASES["holds: one leaves in its block"][0]
JOINING = CASES["ends: two finish, one joins"][0]
ENDING = CASES["ends: one shuts down beside bursts"][0]
AT_ONCE = CASES["ends: one shuts down at once"][0]
ROLLING = CASES["rolls: one puts, two get"][0]

# The ledger without a rule, a case, what the protocol leaves out for it, and what must be found.
TAKEN_OUT: list[tuple[type[Ledger], Make, tuple[str, ...], str]] = [
    (ClaimBehindTail, CLAIMING, (), "phantom"),
    (ClaimOfAsMany, CLAIMING, (), "phantom"),
    (ClaimLeavesHead, CLAIMING, (), "twice"),
    (PublishBeyondBound, BOUNDED, (), "bound"),
    (ClaimUnderLease, SHORT, ("look",), "twice"),
    (HeldTakesNoPlace, HOLDING_BOUNDED, (), "bound"),
    (ClaimOverReturned, HOLDING, (), "overtaken"),
    (HoldOfHead, HOLDING, (), "overtaken"),
    (HoldUnderLease, HOLDING_LEASED, (), "overtaken"),
    (HoldLeavesHead, HOLDING, (), "unmarked"),
    (LeaseBesideHeld, HOLDING_LEASED, (), "overtaken"),
    (LeaveKeepsHeld, HOLDING, (), "wedged"),
    (LeaveDropsHeld, HOLDING, (), "lost"),
    (LeaveReturnsAll, HOLDING, (), "twice"),
    (ReturnLowersHead, HOLDING, (), "unmarked"),
    (ReturnUnmarked, HOLDING, (), "unmarked"),
    (GotOfItem, HOLDING_LEFT, (), "twice"),
    (HeldFileIsDone, HOLDING, (), "missing"),
    (HeldForgotten, HOLDING, (), "lost"),
    (ReturnedForgotten, HOLDING, (), "lost"),
    (DroppedIsUnfinished, AT_ONCE, (), "unfinished"),
    (LeaseOverAnothers, SECOND_JOINS, (), "lost"),
    (KeptOfTheLast, SECOND_JOINS, (), "forgotten"),
    (RevokeAnyNumber, STALE, (), "twice"),
    (LeaveEndsLease, SECOND_JOINS, (), "lost"),
    (LeaveGivesLeaseBack, SECOND_JOINS, (), "twice"),
    (KeptForgotten, SECOND_JOINS, (), "forgotten"),
    (PublishIntoReserved, NEAR, (), "bound"),
    (VoidPublishDrops, TOO_MANY, (), "void"),
    (MoreGivesBack, PIECES, (), "torn"),
    (LeaveOfWhoever, SLOT_AGAIN, (), "void"),
    (LeaveKeepsReservation, NEAR, (), "full"),
    (ReserveBeyondBound, NEAR, (), "bound"),
    (TrimWhereItCuts, NEAR, (), "void"),
    (TrimAnyGrant, DRAINED, (), "void"),
    (TrimAgain, NEAR, (), "void"),
    (TrimRaises, PIECES, (), "bound"),
    (CutForgotten, NEAR, (), "void"),
    (LeasedIsClaimed, LEASED_FILES, (), "missing"),
    (DoneWhileFilled, FILES, (), "missing"),
    (OpenAnySerial, FILES, ("new name",), "missing"),
    (LateEventsCount, ROLLING, (), "lost"),
    (LastSealDecides, ROLLING, (), "lost"),
]


@pytest.mark.parametrize(
    ("ledger", "make", "without", "kind"), TAKEN_OUT, ids=[ledger.__name__ for ledger, *_ in TAKEN_OUT]
)
def test_a_rule_of_the_ledger_taken_out_is_caught(
    ledger: type[Ledger], make: Make, without: tuple[str, ...], kind: str
) -> None:
    """With the rule the case holds, without it something goes wrong."""
    result = explore(make(ledger, without))
    print(f"{ledger.__name__}: {result}")
    assert result.kind == kind, str(result)


# -- parts of the protocols, left out

LEFT_OUT: list[tuple[str, Make, str]] = [
    ("verdict", CLAIMING, "twice"),
    ("membarrier", SECOND_JOINS, "twice"),
    ("contest", SECOND_JOINS, "lost"),
    ("contest lost", SECOND_JOINS, "twice"),
    ("own cell", SECOND_JOINS, "lost"),
    ("cell cleared", STALE, "held"),
    ("flag first", SECOND_JOINS, "twice"),
    ("membarrier", NEAR, "void"),
    ("contest", NEAR, "void"),
    ("cell cleared", NEAR, "full"),
    ("flag first", DRAINED, "void"),
    ("cell", FILES, "missing"),
    ("cell first", FILES, "missing"),
    ("cell until read", FILES, "missing"),
    ("lock", READ_LATE, "wrong"),
    ("journal first", FILES, "missing"),
    ("load first", FILES, "missing"),
    ("rename decides", FILES, "missing"),
    ("cell under lease", LEASED_FILES, "missing"),
    ("returned", HOLDING, "wedged"),
    ("burial", HOLDING, "wedged"),
    ("got after", HOLDING, "lost"),
    ("late", ENDING, "lost"),
    ("barrier", JOINING, "wedged"),
    ("ring", JOINING, "wedged"),
    ("limit", ROLLING, "lost"),
    ("seal", ROLLING, "lost"),
    ("help", ROLLING, "wedged"),
]


@pytest.mark.parametrize(
    ("part", "make", "kind"),
    LEFT_OUT,
    ids=[f"{type(make(Ledger, ())).__name__}: {part}" for part, make, _ in LEFT_OUT],
)
def test_a_part_of_a_protocol_left_out_is_caught(part: str, make: Make, kind: str) -> None:
    result = explore(make(Ledger, (part,)))
    print(f"{part}: {result}")
    assert result.kind == kind, str(result)


# -- second lines of defence

SECOND_LINE: list[tuple[type[Ledger], str, Make, str]] = [
    (TaskDoneAnyTime, "", JOINING, "who counts an item off has got it, and nobody counts it off twice"),
    (HoldByWhoever, "", HOLDING_LEFT, "who holds has joined, and is still there"),
    (LeaseOfSlot, "", SECOND_ALONE, "the next one in a slot revokes first"),
    (RevokeUnclamped, "", STALE, "the cell is cleared before the grant, and never beyond it"),
    (
        Ledger,
        "flag cleared",
        SECOND_ALONE,
        "with the flag up each item is contested: slow, not wrong",
    ),
    (Ledger, "flag cleared", DRAINED, "with the flag up each grant is cut at once: slow, not wrong"),
]


@pytest.mark.parametrize(
    ("ledger", "part", "make", "reason"),
    SECOND_LINE,
    ids=[f"{type(make(Ledger, ())).__name__}: {part or ledger.__name__}" for ledger, part, make, _ in SECOND_LINE],
)
def test_a_second_line_of_defence_is_not_missed(ledger: type[Ledger], part: str, make: Make, reason: str) -> None:
    """These rules guard against writers that do not keep to the protocol: with lawful ones nothing goes wrong.

    Should one of these fail one day, the protocol has begun to need the rule: it belongs to those above."""
    result = explore(make(ledger, [part] if part else []))
    print(f"{part or ledger.__name__}: {result}")
    assert result.kind is None, f"{reason}: no longer true: {result}"


@pytest.mark.stress
@pytest.mark.parametrize(("ledger", "part"), [(LeaseOfSlot, ""), (Ledger, "flag cleared")])
def test_a_second_line_of_defence_is_not_missed_beside_a_producer(ledger: type[Ledger], part: str) -> None:
    result = explore(SECOND_JOINS(ledger, [part] if part else []))
    assert result.kind is None, str(result)
