"""Each rule of logs and cuts is needed: small cases hold in every interleaving, and fail once one rule is taken out.

Lives here: the cases, the rules of the ledger that are taken out (by subclasses of ``Ledger``), the parts of the
protocol that are left out (by the names that ``Logs`` knows), and what kind of violation each must come to.  Not here:
the machine and the acts of its processes (``logs_checker``).

Invariant: all cases of ``CASES`` hold, and each mutant of ``MUTANTS`` is caught by the case that stands with it.
"""

from __future__ import annotations

import random
from typing import Any, Final, NamedTuple, Optional

import pytest
import sampling
from explorer import explore
from logs_checker import Actor, Logs, Rules

from tqshim.protocol.ledger import Ledger
from tqshim.protocol.records import Held, Lease, Reservation


class Case(NamedTuple):
    """Processes, and what may happen to them."""

    actors: tuple[Actor, ...]
    sizes: dict[str, Any]


def case(*actors: Actor, **sizes: Any) -> Case:
    return Case(actors, sizes)


PUTS = Actor()
GETS = Actor("consumer")
THREAD = Actor(of=0)
HOLDS = Actor("holder")
BURIES = Actor("burier")
JOINS = Actor("newcomer", 1, puts=1)
CLOSES = Actor("closer")
CLOSES_AT_ONCE = Actor("closer", immediate=True)
LEASES = Actor("leaser", places=1, trims=1)
PASSES = Actor("passer")
SOLE = Actor("sole", 2, places=1)
"""Leases all that comes, so many times."""
RESERVES = Actor(left=2, places=2)
TRIMS = Actor(places=1, trims=1)
ALONE = Actor(left=2, alone=True)

CASES: dict[str, Case] = {
    "two producers, one cuts and gets": case(PUTS._replace(left=2), PUTS, GETS._replace(left=2)),
    "two producers, one cuts and gets, x86": case(PUTS._replace(left=2), PUTS, GETS._replace(left=2), x86=True),
    "two cut, one of them is stopped": case(PUTS._replace(left=2), GETS, GETS, stops=1),
    "two cut, the journal ends": case(PUTS._replace(left=2), GETS, GETS, rolls=1),
    "the next file": case(PUTS._replace(left=2, leaves=True), GETS._replace(left=2), room=1, rolls=2, kills=1),
    "an exception behind an OPEN": case(PUTS._replace(left=3, large=1), GETS, breaks=1),
    "a burier": case(PUTS._replace(left=2), GETS, BURIES, kills=1, rolls=1),
    "a burier, and the next file": case(PUTS._replace(left=2), BURIES, room=1, kills=1),
    "a slot is used again": case(PUTS, GETS, BURIES, JOINS, kills=1, x86=True),
    "one leaves, and is buried, too": case(PUTS._replace(leaves=True), BURIES, JOINS, kills=1, stops=1),
    "journal mode": case(PUTS._replace(left=2), PUTS, GETS, maxsize=1, kills=1, rolls=1),
    "journal mode, two at once": case(
        PUTS._replace(left=2, sizes=(2, 2)), PUTS, GETS, maxsize=3, kills=1, rolls=1, x86=True
    ),
    "journal mode, then a reservation": case(
        PUTS._replace(left=2), BURIES, JOINS._replace(places=1, puts=2), maxsize=2, kills=1, x86=True
    ),
    "an exception in journal mode": case(
        PUTS._replace(left=2, places=1), PUTS, GETS._replace(left=2), maxsize=1, breaks=1, x86=True
    ),
    "no counter counts": case(
        PUTS._replace(left=2, sizes=(2,)), PUTS, GETS._replace(left=2), kills=1, rolls=1, counting=False, x86=True
    ),
    "a reservation is ended": case(RESERVES, TRIMS, maxsize=2, breaks=1, rolls=1),
    "a reservation is ended, one gets": case(RESERVES, TRIMS, GETS, maxsize=2, x86=True),
    "a reservation is ended, two at once": case(
        RESERVES._replace(left=3, sizes=(2, 2), places=3), TRIMS._replace(places=2), GETS, maxsize=3, breaks=1, x86=True
    ),
    "a reservation is ended, two at once, one cuts late": case(
        RESERVES._replace(left=1, sizes=(2,), places=3), TRIMS._replace(places=2), PUTS, maxsize=3, x86=True
    ),
    "a reservation is ended, then the next file": case(
        RESERVES, TRIMS._replace(places=2, leaves=True), maxsize=2, room=1, breaks=1, x86=True
    ),
    "a reservation of two threads is ended, then the next file": case(
        RESERVES._replace(places=3), THREAD, TRIMS._replace(places=2, leaves=True), maxsize=3, room=2, x86=True
    ),
    "a reservation is ended, its producer leaves": case(
        RESERVES._replace(left=1, leaves=True), TRIMS._replace(left=2, places=2), maxsize=2, breaks=1
    ),
    "an exception, and a reservation is ended": case(
        RESERVES._replace(left=3, places=3), TRIMS._replace(places=2), maxsize=3, breaks=1, x86=True
    ),
    "a reservation of one killed": case(RESERVES, TRIMS, BURIES, maxsize=2, kills=1),
    "reservations follow one another": case(RESERVES._replace(left=3, places=1), TRIMS, GETS, maxsize=1, x86=True),
    "two reserve in turn": case(
        RESERVES._replace(left=2, places=1, trims=1), TRIMS._replace(left=2), maxsize=3, stops=1
    ),
    "one puts alone": case(ALONE._replace(left=3), GETS._replace(left=2), maxsize=2, kills=1, rolls=1),
    "one puts alone, another joins": case(ALONE, JOINS, GETS, maxsize=2),
    "one puts alone, another joins, x86": case(ALONE._replace(left=3), JOINS, GETS, maxsize=2, x86=True),
    "one puts alone, another that reserves joins": case(
        ALONE._replace(left=2), JOINS._replace(places=1, puts=2), GETS, maxsize=2, x86=True
    ),
    "one puts alone, two join, one of them is stopped": case(
        ALONE._replace(left=1), JOINS, JOINS, maxsize=1, stops=1, x86=True
    ),
    "one puts alone, another joins, the next file": case(
        ALONE._replace(leaves=True), JOINS, maxsize=2, room=1, breaks=1, x86=True
    ),
    "one puts alone, the other leaves": case(
        ALONE._replace(places=1), PUTS._replace(leaves=True), JOINS, maxsize=2, x86=True
    ),
    "one puts alone, is killed, another joins": case(ALONE, BURIES, JOINS, maxsize=2, kills=1, x86=True),
    "one puts alone, and closes": case(ALONE, CLOSES, maxsize=1, room=1),
    "two threads put alone, another joins": case(ALONE, THREAD._replace(alone=True), JOINS, maxsize=2, x86=True),
    "one puts alone, all is leased": case(ALONE._replace(left=3), SOLE._replace(left=3), maxsize=1, x86=True),
    "one puts alone, all is leased, another gets, too": case(ALONE._replace(left=3), SOLE, GETS, maxsize=1, x86=True),
    "one puts alone, all is leased, another joins": case(ALONE._replace(left=3), SOLE, JOINS, maxsize=2, x86=True),
    "one puts alone, all is leased, another comes and goes": case(
        ALONE._replace(left=3), SOLE._replace(left=1), JOINS._replace(leaves=True), maxsize=1, x86=True
    ),
    "one puts alone, all is leased, the journal ends": case(
        ALONE._replace(left=3), SOLE._replace(places=2), GETS, maxsize=1, rolls=1, x86=True
    ),
    "one puts alone, all is leased, a burier": case(ALONE._replace(left=2), SOLE, BURIES, maxsize=1, kills=1, x86=True),
    "one puts alone, all is leased, the next file": case(
        ALONE._replace(left=3, leaves=True), SOLE._replace(places=2), maxsize=2, room=1, x86=True
    ),
    "one puts alone, all is leased, one closes": case(ALONE, SOLE, CLOSES, maxsize=1, x86=True),
    "one closes": case(PUTS._replace(left=2), CLOSES, room=1, rolls=1),
    "two close, one of them is stopped": case(PUTS._replace(left=2), CLOSES, CLOSES, stops=1, x86=True),
    "one closes, one joins": case(JOINS, CLOSES, stops=1),
    "one closes, two threads put": case(PUTS._replace(left=2), THREAD, CLOSES),
    "one closes a bounded queue": case(RESERVES._replace(places=1), CLOSES, maxsize=3, room=1),
    "one closes at once": case(PUTS._replace(left=2), GETS, CLOSES_AT_ONCE, x86=True),
    "one closes at once, one leases": case(PUTS, LEASES._replace(trims=0), CLOSES_AT_ONCE, x86=True),
    "one closes at once, a block runs": case(PUTS, HOLDS._replace(gives_back=1), CLOSES_AT_ONCE),
    "finishing": case(PUTS._replace(left=2), GETS._replace(tasks=True), GETS._replace(tasks=True)),
    "leases": case(PUTS._replace(left=2), LEASES._replace(left=2), LEASES, x86=True),
    "a lease passes": case(
        PUTS._replace(left=3), LEASES._replace(left=2, places=2), PASSES._replace(left=2), maxsize=2, rolls=1, x86=True
    ),
    "a lease passes, its holder is killed": case(
        PUTS._replace(left=3), LEASES._replace(left=3, places=2), PASSES, maxsize=2, kills=1, x86=True
    ),
    "a lease passes, another ends it": case(
        PUTS._replace(left=2), LEASES._replace(left=2), PASSES, LEASES._replace(places=0), maxsize=2, x86=True
    ),
    "a lease passes, its stores are seen in any order": case(PUTS._replace(left=2), LEASES, PASSES, maxsize=2),
    "a lease passes, who says so was stopped": case(
        PUTS._replace(left=3), LEASES._replace(left=3, places=2), PASSES, PASSES, maxsize=2, x86=True
    ),
    "all that comes is leased": case(PUTS._replace(left=2), PUTS, SOLE._replace(left=3), x86=True),
    "all that comes, another gets, too": case(PUTS._replace(left=2), SOLE, GETS, kills=1, x86=True),
    "all that comes, another gets, of two": case(PUTS, PUTS, SOLE, GETS, x86=True),
    "all that comes, the journal ends": case(PUTS._replace(left=2), SOLE, GETS, rolls=1, x86=True),
    "all that comes, and again": case(PUTS._replace(left=2), SOLE._replace(places=2, leaves=True), GETS, x86=True),
    "all that comes, the next file": case(
        PUTS._replace(left=2, leaves=True), SOLE._replace(places=2), room=1, rolls=1, x86=True
    ),
    "all that comes, the journal ends in front of an OPEN": case(
        PUTS._replace(left=2), PUTS, SOLE._replace(left=1), room=1, rolls=1, x86=True
    ),
    "all that comes, a burier": case(PUTS._replace(left=2), SOLE._replace(places=2), BURIES, kills=1, x86=True),
    "all that comes, one closes": case(PUTS._replace(left=2), SOLE, CLOSES, x86=True),
    "all that comes, one closes at once": case(PUTS._replace(left=2), SOLE, CLOSES_AT_ONCE, x86=True),
    "all that comes, and blocks": case(
        PUTS._replace(left=2), SOLE._replace(places=2), JOINS._replace(becomes="holder", gives_back=1), x86=True
    ),
    "all that comes, finishing": case(
        PUTS._replace(left=3), SOLE._replace(places=2), GETS._replace(tasks=True), x86=True
    ),
    "all that comes, who ends it was stopped": case(
        PUTS, SOLE._replace(left=1, places=2), JOINS._replace(puts=1), GETS, x86=True
    ),
    "all that comes, two want it": case(
        PUTS._replace(left=2), SOLE, JOINS._replace(becomes="sole", places=1), x86=True
    ),
    "blocks": case(PUTS, HOLDS._replace(gives_back=1), HOLDS, BURIES, kills=1, x86=True),
    "blocks of a bounded queue": case(PUTS._replace(left=2), HOLDS._replace(gives_back=1), BURIES, maxsize=1, kills=1),
    "blocks, and leases": case(PUTS._replace(left=2), HOLDS._replace(gives_back=1), LEASES, x86=True),
    "blocks, and leases, one is killed": case(PUTS, HOLDS, LEASES._replace(trims=0), BURIES, kills=1, x86=True),
}

LARGE: dict[str, Case] = {
    "two threads put, a reservation is ended": case(
        RESERVES._replace(places=3), THREAD, TRIMS._replace(places=2), GETS, maxsize=3, x86=True
    ),
    "two threads put, the next file, one closes": case(
        PUTS._replace(left=2), THREAD._replace(left=2), CLOSES, room=2, rolls=1
    ),
    "a slot is used again": case(PUTS, GETS, BURIES, JOINS, kills=1),
    "a slot is used again, a burier is stopped": case(
        PUTS, GETS, BURIES._replace(left=2), JOINS._replace(left=2), kills=1, stops=1
    ),
    "one leaves, and is buried, too": case(PUTS._replace(leaves=True), BURIES, JOINS, GETS, stops=1, kills=1),
    "no counter counts": case(
        PUTS._replace(left=2, sizes=(2,)), PUTS, GETS._replace(left=2), BURIES, kills=1, rolls=1, counting=False
    ),
    "a reservation is ended, two at once": case(
        RESERVES._replace(left=3, sizes=(1, 2)), TRIMS._replace(places=2), GETS, maxsize=3, breaks=1, stops=1
    ),
    "an exception in journal mode": case(
        PUTS._replace(left=3, places=1), PUTS, GETS._replace(left=2), maxsize=1, breaks=1
    ),
    "a reservation is ended, one gets": case(RESERVES, TRIMS, GETS, maxsize=2, stops=1),
    "the next file of a bounded queue": case(
        RESERVES._replace(left=3, places=1), TRIMS, GETS, maxsize=1, room=1, breaks=1
    ),
    "one closes, one joins": case(PUTS, JOINS._replace(left=2), CLOSES),
    "a reservation is ended while one closes": case(RESERVES, TRIMS, CLOSES, maxsize=2),
    "two close, one is killed, one stopped": case(PUTS._replace(left=2), CLOSES, CLOSES, kills=1, stops=1, room=1),
    "one closes at once, one leases": case(PUTS._replace(left=2), LEASES, CLOSES_AT_ONCE),
    "leases": case(PUTS._replace(left=3), LEASES._replace(left=2), LEASES, kills=1),
    "a lease passes": case(
        PUTS._replace(left=3), LEASES._replace(left=3, places=2), PASSES, maxsize=2, kills=1, rolls=1
    ),
    "a lease passes, its producer reserves": case(
        RESERVES._replace(left=3), LEASES._replace(left=2, places=2), PASSES, TRIMS, maxsize=2, x86=True
    ),
    "all that comes, two want it, the first is killed": case(
        PUTS._replace(left=2), SOLE, JOINS._replace(becomes="sole", places=1), BURIES, kills=1, x86=True
    ),
    "all that comes, a slot is used again": case(PUTS, SOLE, BURIES, JOINS, kills=1, x86=True),
    "all that comes, another was stopped": case(
        PUTS._replace(left=2), SOLE._replace(places=2), GETS, GETS, stops=1, x86=True
    ),
    "all that comes, two producers, the next file": case(
        PUTS._replace(left=2, leaves=True), PUTS, SOLE._replace(left=3, places=3), room=1, rolls=1, x86=True
    ),
    "blocks, and leases": case(PUTS._replace(left=2), HOLDS._replace(gives_back=1), LEASES, BURIES, kills=1),
    "blocks": case(PUTS._replace(left=2), HOLDS._replace(left=2, gives_back=1), HOLDS, BURIES, kills=1, rolls=1),
}


SMALL: Final = 3000
"""States of a case of which all are looked at in each run; of others so many, and some on random ways."""
WHOLE: Final = 2
"""Of all cases so many are looked at as a whole, others with each seed."""


def check(
    found: Case,
    ledger: type[Ledger] = Ledger,
    without: tuple[str, ...] = (),
    most: int = 300_000,
    choose: Optional[random.Random] = None,
) -> Any:
    return explore(Logs(Rules(ledger), found.actors, without, **found.sizes), most, choose)


@pytest.mark.in_turn
@pytest.mark.parametrize("name", sampling.sampled("interleavings", list(CASES), 6, rest=False))
def test_interleavings_hold(name: str) -> None:
    """Nothing is lost, doubled, made up, out of order or beyond the bound, and nobody is blocked.

    In every interleaving of a small case; in the first steps of others, and on random ways."""
    found = check(CASES[name], most=SMALL, choose=sampling.chooser(name))
    assert found.kind is None, str(found)


@pytest.mark.in_turn
@pytest.mark.parametrize("number", range(WHOLE))
def test_every_interleaving_of_some_cases_holds(number: int) -> None:
    test_every_interleaving_holds(sampling.some("cases", list(CASES), WHOLE)[number])


@pytest.mark.stress
@pytest.mark.parametrize("name", CASES)
def test_every_interleaving_holds(name: str) -> None:
    found = check(CASES[name])
    assert found.kind is None, f"{name}: {found}"


@pytest.mark.stress
@pytest.mark.parametrize("name", LARGE)
def test_every_interleaving_of_a_larger_case_holds(name: str) -> None:
    """The same, with more processes and more that happens to them."""
    found = check(LARGE[name], most=20_000_000)
    assert found.kind is None, str(found)


# -- rules of the ledger that are taken out


class AllOrNothing(Ledger):
    """A CUT for which there are too few places cuts nothing, not as much as has places."""

    __slots__ = ()

    def _cut(self, slot: int, total: int, whole: bool) -> Optional[range]:
        return super()._cut(slot, total, True)


class CutsAfterShutdown(Ledger):
    __slots__ = ()

    def _cut(self, slot: int, total: int, whole: bool) -> Optional[range]:
        shut, self.ending.shut = self.ending.shut, 0
        try:
            return super()._cut(slot, total, whole)
        finally:
            self.ending.shut = shut


class LateCutCounts(Ledger):
    """A CUT below what was cut cuts that once more."""

    __slots__ = ()

    def _cut(self, slot: int, total: int, whole: bool) -> Optional[range]:
        filling = self.files.filling.get(slot)
        if filling and total <= self.totals[slot] and total > filling.first:
            self.totals[slot] = total - 1
        return super()._cut(slot, total, whole)


class TotalsBeginAnew(Ledger):
    """The next member of a slot begins at nothing."""

    __slots__ = ()

    def _leave(self, slot: int, number: int) -> Optional[int]:
        found = super()._leave(slot, number)
        if found is not None:
            self.totals[slot] = 0
        return found


class CutBeyondTheBound(Ledger):
    __slots__ = ()

    def _cut(self, slot: int, total: int, whole: bool) -> Optional[range]:
        maxsize, self.maxsize = self.maxsize, 0
        reserved = self.reservations.by_slot.get(slot)
        if reserved:
            self.reservations.places -= max(0, min(total, reserved.stop) - self.totals[slot])
        found = super()._cut(slot, total, whole)
        if reserved and found is None:
            self.reservations.places += max(0, min(total, reserved.stop) - self.totals[slot])
        self.maxsize = maxsize
        return found


class TrimOfAnyGrant(Ledger):
    __slots__ = ()

    def _trim(self, slot: int, used: int, grant: int) -> Optional[Reservation]:
        own = self.reservations.by_slot.get(slot)
        return super()._trim(slot, used, own.grant) if own else None


class ReserveWhileClosing(Ledger):
    __slots__ = ()

    def _reserve(self, slot: int, places: int) -> Optional[Reservation]:
        shutting, self.ending.shutting = self.ending.shutting, 0
        found = super()._reserve(slot, places)
        self.ending.shutting = shutting
        return found


class SecondRevokeDecides(Ledger):
    __slots__ = ()

    def _revoke(self, count: int, number: int) -> Optional[int]:
        found = super()._revoke(count, number)
        for slot, (lease, base) in self.leases.ended.items():
            if lease == number and found is None and self.leases.standing is None:
                self.head = min(self.head, max(0, base - 1))
                self.leases.ended[slot] = lease, self.head
                return self.head
        return found


class RevokeOfAnyLease(Ledger):
    __slots__ = ()

    def _revoke(self, count: int, number: int) -> Optional[int]:
        return super()._revoke(count, self.leases.standing.number if self.leases.standing else number)


class WhatHasPassedComesBack(Ledger):
    """REVOKE counts from the lease's first item alone."""

    __slots__ = ()

    def _revoke(self, count: int, number: int) -> Optional[int]:
        if self.leases.standing is not None and self.leases.standing.number == number:
            self.leases.passed = self.leases.standing.first
        return super()._revoke(count, number)


class PassedOfAnyLease(Ledger):
    __slots__ = ()

    def _pass(self, count: int, number: int) -> Optional[int]:
        return super()._pass(count, self.leases.standing.number if self.leases.standing else number)


class LatePassedCounts(Ledger):
    """A PASSED below an earlier one takes its places back."""

    __slots__ = ()

    def _pass(self, count: int, number: int) -> Optional[int]:
        if self.leases.standing is not None and self.leases.standing.number == number:
            self.leases.passed = self.leases.standing.first
        return super()._pass(count, number)


class HoldThroughALease(Ledger):
    __slots__ = ()

    def _hold(self, number: int, slot: int) -> Optional[Held]:
        lease, self.leases.standing = self.leases.standing, None
        found = super()._hold(number, slot)
        self.leases.standing = lease
        return found


class LeaseBesideAHold(Ledger):
    __slots__ = ()

    def _lease(self, slot: int, most: int) -> Optional[Lease]:
        apart, self.holds.apart = self.holds.apart, 0
        found = super()._lease(slot, most)
        self.holds.apart = apart
        return found


class TheDeadHoldOn(Ledger):
    """LEAVE returns nothing."""

    __slots__ = ()

    def _leave(self, slot: int, number: int) -> Optional[int]:
        held, self.holds.held = self.holds.held, {}
        found = super()._leave(slot, number)
        self.holds.held = held
        return found


class ReturnedTakesNoPlace(Ledger):
    __slots__ = ()

    @property
    def used(self) -> int:
        return super().used - len(self.holds.returned)


class PublishInParts(Ledger):
    """A PUBLISH cuts as far as there are places, as a CUT does."""

    __slots__ = ()

    def _cut(self, slot: int, total: int, whole: bool) -> Optional[range]:
        return super()._cut(slot, total, False)


class AlwaysAlone(Ledger):
    """A producer that has seen another join takes itself for the only one."""

    __slots__ = ()

    @property
    def producers(self) -> int:
        return 1


class DeliveredOfAnyLease(Ledger):
    __slots__ = ()

    def _give(self, slot: int, total: int, number: int) -> Optional[range]:
        return super()._give(slot, total, self.leases.standing.number if self.leases.standing else number)


class LeaseOfAllBesideAnother(Ledger):
    __slots__ = ()

    def _lease_all(self, slot: int) -> Optional[Lease]:
        consumers, self.members.consumers = self.members.consumers, 1
        found = super()._lease_all(slot)
        self.members.consumers = consumers
        return found


class LeaseOfAllOverWhatWaits(Ledger):
    __slots__ = ()

    def _lease_all(self, slot: int) -> Optional[Lease]:
        tail, self.tail = self.tail, min(self.tail, self.head)
        found = super()._lease_all(slot)
        self.tail = tail
        return found


def under_a_lease_of_all(rule: str) -> type[Ledger]:
    """A ledger in which an event is valid while a lease of all that comes stands."""

    def step(self: Ledger, *arguments: Any) -> Any:
        sole, self.leases.sole = self.leases.sole, False
        try:
            return getattr(Ledger, rule)(self, *arguments)
        finally:
            self.leases.sole = sole

    return type(f"UnderALeaseOfAll{rule}", (Ledger,), {"__slots__": (), rule: step})


class Mutant(NamedTuple):
    """What is taken out, where that shows, and as what."""

    what: Any
    """A class of ledgers, or the name of a part of the protocol; or several, of which each stands in for the others."""
    case: Case
    kinds: str


C = CASES
MUTANTS: list[Mutant] = [
    # the rules
    Mutant(AllOrNothing, C["a reservation of one killed"], "lost"),
    Mutant(PublishInParts, C["journal mode, two at once"], "torn"),
    Mutant(CutsAfterShutdown, C["two close, one of them is stopped"], "refused lost"),
    Mutant(LateCutCounts, C["two cut, one of them is stopped"], "made up, twice"),
    Mutant(TotalsBeginAnew, C["a slot is used again"], "left over"),
    Mutant(CutBeyondTheBound, C["journal mode"], "bound"),
    Mutant(TrimOfAnyGrant, C["reservations follow one another"], "lost"),
    Mutant((ReserveWhileClosing, "closing seen"), C["one closes a bounded queue"], "lost"),
    Mutant(SecondRevokeDecides, C["leases"], "twice"),
    Mutant(RevokeOfAnyLease, C["leases"], "twice lost forgotten"),
    Mutant(WhatHasPassedComesBack, C["a lease passes, another ends it"], "twice lost"),
    Mutant(PassedOfAnyLease, C["a lease passes, its holder is killed"], "lost"),
    Mutant(
        LatePassedCounts,
        case(PUTS._replace(left=4), LEASES._replace(left=3), PASSES, PASSES, maxsize=3, x86=True),
        "bound twice lost",
    ),
    Mutant(HoldThroughALease, C["blocks, and leases"], "twice"),
    Mutant(LeaseBesideAHold, C["blocks, and leases"], "overlooked"),
    Mutant(TheDeadHoldOn, C["blocks of a bounded queue"], "lost"),
    Mutant(ReturnedTakesNoPlace, C["blocks of a bounded queue"], "bound"),
    # putting
    Mutant("look", C["two close, one of them is stopped"], "lost"),
    Mutant("counter first", C["two close, one of them is stopped"], "lost"),
    Mutant("record before counter", C["two producers, one cuts and gets, x86"], "made up"),
    Mutant("cut barrier", C["two producers, one cuts and gets"], "made up"),
    Mutant("own cut", C["a reservation is ended"], "lost"),
    Mutant("skip", case(RESERVES, TRIMS._replace(places=2, leaves=True), maxsize=2, x86=True), "refused"),
    Mutant("unsure", C["an exception in journal mode"], "bound, lost"),
    Mutant("log checked", C["an exception behind an OPEN"], "made up"),
    Mutant("skipped told", C["one closes, two threads put"], "lost"),
    Mutant("skipped told", C["a reservation of two threads is ended, then the next file"], "lost"),
    # reservations
    Mutant("trim barrier", C["a reservation is ended"], "lost"),
    Mutant("flag cleared after", case(RESERVES._replace(places=1, trims=1), TRIMS, maxsize=2), "lost"),
    Mutant("several published", C["a reservation is ended, two at once, one cuts late"], "torn"),
    # putting alone
    Mutant("told", C["one puts alone, another joins"], "bound, lost"),
    Mutant("told", C["one puts alone, two join, one of them is stopped"], "bound, lost"),
    Mutant("join barrier", C["one puts alone, another joins, x86"], "bound, lost"),
    Mutant("cut before first open", C["one puts alone, another joins"], "bound, lost"),
    Mutant("look", C["one puts alone, another joins, x86"], "bound, lost"),
    Mutant("lowered first", C["one puts alone, another joins, x86"], "bound, lost"),
    Mutant(AlwaysAlone, C["one puts alone, the other leaves"], "bound, lost"),
    Mutant("alone flag", C["one puts alone, all is leased, another gets, too"], "bound"),
    Mutant("alone same", C["one puts alone, all is leased, the journal ends"], "bound"),
    # the next file, leaving, being buried, joining
    Mutant("cut before open", C["the next file"], "lost, made up"),
    Mutant("skip before open", C["a reservation is ended, then the next file"], "made up"),
    Mutant("skip behind", C["a reservation is ended, then the next file"], "made up"),
    Mutant("skip behind", C["a reservation of two threads is ended, then the next file"], "made up"),
    Mutant("skip behind", C["a reservation is ended, its producer leaves"], "left over"),
    Mutant("cut before leave", C["a burier"], "lost"),
    Mutant("skip before leave", C["a reservation of one killed"], "left over"),
    Mutant("sync under the lock", C["a burier, and the next file"], "lost"),
    Mutant("counter cleared", C["a slot is used again"], "lost"),
    Mutant("counter set", C["journal mode, then a reservation"], "lost"),
    Mutant("join sync", C["a slot is used again"], "buried"),
    # the end
    Mutant("raise", C["two close, one of them is stopped"], "lost"),
    Mutant("help barrier", C["two close, one of them is stopped"], "lost"),
    Mutant("registered", case(PUTS, CLOSES, x86=True), "lost"),
    Mutant("cuts before shutdown", C["one closes"], "lost"),
    Mutant("closing seen", C["one closes, one joins"], "lost"),
    Mutant("help", case(PUTS._replace(left=2), CLOSES, kills=1, room=1), "wedged"),
    Mutant("cuts before task", C["finishing"], "early"),
    Mutant("sync after counters", C["finishing"]._replace(sizes={"room": 1}), "early"),
    # leases
    Mutant("lease look", C["leases"], "twice"),
    Mutant("contest lost", C["leases"], "twice"),
    Mutant("lease barrier", C["leases"], "twice"),
    Mutant(
        "lease position cleared",
        case(PUTS, LEASES._replace(left=2, places=2), LEASES._replace(places=0, trims=2), x86=True, kills=1),
        "lost",
    ),
    # leases of all that comes
    Mutant(DeliveredOfAnyLease, C["all that comes, who ends it was stopped"], "made up"),
    Mutant(LeaseOfAllBesideAnother, C["all that comes, two want it"], "twice forgotten"),
    Mutant(LeaseOfAllOverWhatWaits, C["all that comes, another gets, too"], "wedged"),
    Mutant(under_a_lease_of_all("_cut"), C["all that comes, another gets, too"], "made up"),
    Mutant(under_a_lease_of_all("_skip"), C["all that comes, the next file"], "lost"),
    Mutant(under_a_lease_of_all("_open"), C["all that comes, the next file"], "made up"),
    Mutant(under_a_lease_of_all("_leave"), C["all that comes, a burier"], "left over"),
    Mutant(under_a_lease_of_all("_shutdown"), C["all that comes, one closes"], "lost"),
    Mutant((under_a_lease_of_all("_task_done"), "ends"), C["all that comes, finishing"], "early"),
    Mutant("whole", C["all that comes, the journal ends in front of an OPEN"], "lost made up"),
    Mutant("ends", C["all that comes, the next file"], "buried"),
    Mutant("delivered", C["all that comes, another gets, too"], "twice"),
    Mutant("sole look", C["all that comes, another gets, too"], "twice"),
    Mutant("sole raise", C["all that comes, another gets, too"], "twice"),
    Mutant("sole barrier", C["all that comes, another gets, too"], "twice"),
    Mutant("sole contest lost", C["all that comes, another gets, too"], "twice"),
    Mutant("sole cells", C["all that comes, another gets, too"], "made up"),
]


def named(mutant: Mutant) -> str:
    parts = mutant.what if isinstance(mutant.what, tuple) else (mutant.what,)
    return ", ".join(part if isinstance(part, str) else part.__name__ for part in parts)


@pytest.mark.in_turn
@pytest.mark.parametrize("mutant", sampling.sampled("rules", MUTANTS, 8), ids=named)
def test_without_this_rule_something_goes_wrong(mutant: Mutant) -> None:
    """Each rule is there for a reason that the checker finds."""
    parts = mutant.what if isinstance(mutant.what, tuple) else (mutant.what,)
    ledger = next((part for part in parts if not isinstance(part, str)), Ledger)
    found = check(mutant.case, ledger, tuple(part for part in parts if isinstance(part, str)))
    assert found.kind is not None, f"{found}, and none is wrong"
    assert found.kind in mutant.kinds, str(found)
