"""Random histories of events, what the table of rules says of each, and what must hold after it.

Lives here: ``some_event``, ``expected`` (the table in ``ledger``'s docstring, once more and as plainly as can be) and
``check``.  Not here: the tests (``test_cut_ledger``, ``test_cut_snapshot``).

Invariant: nothing here looks at a sum that the ledger keeps; it counts anew.
"""

from __future__ import annotations

import random
from operator import attrgetter
from typing import Any, Final

from tqshim.protocol import events, snapshot
from tqshim.protocol.index import serial
from tqshim.protocol.ledger import Ledger
from tqshim.protocol.names import FileId
from tqshim.protocol.records import SHUT_AT_ONCE, Verdict

ROOM: Final = 6
"""Records of a batch file in these tests: ends of files are met often."""
KINDS: Final = (
    ["CUT"] * 10
    + ["PUBLISH"] * 4
    + ["PUT_BACK"]
    + ["CLAIM", "CLAIM_MANY", "OPEN", "RESERVE", "TRIM", "SKIP", "HOLD", "LEASE", "LEASE_ALL", "PASSED", "REVOKE"] * 3
    + ["DELIVERED"] * 6
    + ["JOIN", "LEAVE", "GOT", "RETURN", "TASK_DONE"] * 2
)
LAST: Final = ["CLOSING", "SHUTDOWN"]
CUTS: Final = (events.CUT, events.PUBLISH, events.PUT_BACK)
VOID: Final = (*CUTS, events.SKIP, events.RESERVE, events.OPEN, events.LEAVE, events.TASK_DONE, events.SHUTDOWN)
"""While a lease of all that comes stands."""


def word(event: bytes) -> int:
    return int.from_bytes(event, "little")


def some_event(dice: random.Random, ledger: Ledger, ends: bool) -> bytes:
    """An event that is often valid and often nearly so.  ``ends``: it may close or shut down the queue."""
    if not ledger.members.by_slot or (dice.random() < 0.05 and len(ledger.members.by_slot) < 5):
        return events.join(dice.random() < 0.4)
    kind = dice.choice(KINDS + LAST * ends)
    slot = dice.choice([*ledger.members.by_slot, *ledger.members.by_slot, dice.randrange(6)])
    total = ledger.totals[slot]
    member = ledger.members.by_slot.get(slot)
    if ledger.members.consumers == 1 and ledger.head == ledger.tail and dice.random() < 0.2:
        kind, slot = "LEASE_ALL", next(slot for slot, one in ledger.members.by_slot.items() if one.consumer)
    if ledger.leases.sole and dice.random() < 0.4:
        kind = "DELIVERED"
    if kind in ("CUT", "PUBLISH", "PUT_BACK"):
        new = max(0, total + dice.choice([-1, 0, 1, 1, 1, 2, 2, 3, ROOM, 1 << 39]))
        return {"CUT": events.cut, "PUBLISH": events.publish, "PUT_BACK": events.put_back}[kind](slot, new)
    if kind == "SKIP":
        return events.skip(slot, max(0, total + dice.choice([-1, 0, 1, 1, 2, ROOM + 1])))
    if kind == "OPEN":
        filling = ledger.files.filling.get(slot)
        count = (filling.file.serial >> 7) + dice.choice([0, 1, 1, 2]) if filling else dice.randrange(2)
        return events.open_(slot, serial(count, 0))
    if kind == "RESERVE":
        return events.reserve(slot, dice.randint(0, 4))
    if kind == "TRIM":
        own = ledger.reservations.by_slot.get(slot)
        return events.trim(slot, dice.randint(0, 4), (own.grant if own else 1) + (dice.random() < 0.2))
    if kind in ("REVOKE", "PASSED"):
        lease = ledger.leases.standing
        number = lease.number if lease and dice.random() < 0.8 else dice.randrange(5)
        return (events.revoke if kind == "REVOKE" else events.passed)(dice.randint(0, 4), number)
    if kind == "LEAVE":
        return events.leave(slot, member.number if member and dice.random() < 0.8 else dice.randrange(9))
    if kind in ("GOT", "RETURN"):
        number = dice.choice([*ledger.holds.held, *ledger.holds.held, 3])
        return events.got(number) if kind == "GOT" else events.return_(number)
    if kind == "JOIN":
        return events.join(dice.random() < 0.4)
    if kind == "CLOSING":
        return events.closing(dice.random() < 0.5)
    if kind == "SHUTDOWN":
        return events.shutdown(dice.random() < 0.5)
    if kind == "TASK_DONE":
        return events.task_done()
    if kind == "CLAIM_MANY":
        return events.claim_many(slot, dice.randint(1, 3))
    if kind == "LEASE":
        return events.lease(slot, dice.randint(1, 4))
    if kind == "DELIVERED":
        new = max(0, total + dice.choice([-1, 0, 1, 1, 1, 2, 3, ROOM]))
        return events.delivered(slot, new, ledger.leases.made if dice.random() < 0.8 else dice.randrange(5))
    return {"CLAIM": events.claim, "HOLD": events.hold, "LEASE_ALL": events.lease_all}[kind](slot)


def reserved(ledger: Ledger, but: int = -1) -> int:
    return sum(
        max(0, own.stop - ledger.totals[slot]) for slot, own in ledger.reservations.by_slot.items() if slot != but
    )


def taken(ledger: Ledger, but: int = -1) -> int:
    """Places that are taken; without the reservation of one slot."""
    low = ledger.leases.passed if ledger.leases.standing else ledger.head
    return ledger.tail - low + len(ledger.holds.held) + len(ledger.holds.returned) + reserved(ledger, but)


def expected(ledger: Ledger, event: bytes) -> bool:
    """Whether the table says that the event is valid."""
    kind, slot, rest = event[0], word(event) >> 8 & 0xFFFF, word(event) >> 24
    if ledger.position.index >= ledger.position.limit:
        return kind == events.SEAL and ledger.position.sealed is None
    member, filling = ledger.members.by_slot.get(slot), ledger.files.filling.get(slot)
    total, own, lease = (
        ledger.totals[slot] if slot < len(ledger.totals) else 0,
        ledger.reservations.by_slot.get(slot),
        ledger.leases.standing,
    )
    there = ledger.head < ledger.tail
    if ledger.leases.sole and kind in VOID and (kind != events.LEAVE or filling is not None):
        return False
    if kind == events.JOIN:
        return len(ledger.members.by_slot) < events.SLOTS
    if kind == events.LEAVE:
        return member is not None and member.number == rest
    if kind == events.OPEN:
        return member is not None and (filling is None or filling.file.serial < rest)
    if kind in CUTS:
        return cut_of(ledger, event) > 0
    if kind == events.SKIP:
        return filling is not None and total < rest <= filling.first + ROOM
    if kind in (events.CLAIM, events.CLAIM_MANY):
        return lease is None and not ledger.holds.returned and there
    if kind == events.LEASE:
        if member is None or not member.consumer or ledger.holds.held or ledger.holds.returned or not there:
            return False
        return lease is None or lease.member == member.number
    if kind == events.LEASE_ALL:
        alone = member is not None and member.consumer and ledger.members.consumers == 1
        taken_out = lease is not None or ledger.holds.held or ledger.holds.returned or there
        producers = [one for one in ledger.members.by_slot.values() if not one.consumer]
        reserved = ledger.maxsize and (len(producers) > 1 or taken(ledger) > 0)
        return alone and not (taken_out or reserved or ledger.ending.shut)
    if kind == events.DELIVERED:
        return given_of(ledger, event) > 0
    if kind == events.PASSED:
        return lease is not None and lease.number == rest and ledger.leases.passed < lease.first + slot <= lease.end
    if kind == events.REVOKE:
        return lease is not None and lease.number == rest
    if kind == events.RESERVE:
        open_for_all = ledger.maxsize and not ledger.ending.shut and not ledger.ending.shutting and filling is not None
        return bool(open_for_all) and taken(ledger, but=slot) + rest <= ledger.maxsize
    if kind == events.TRIM:
        return own is not None and not own.cut and own.grant == rest >> 10
    if kind == events.HOLD:
        return member is not None and member.consumer and lease is None and (bool(ledger.holds.returned) or there)
    if kind in (events.GOT, events.RETURN):
        return rest in ledger.holds.held
    if kind == events.TASK_DONE:
        return ledger.joins.finished < ledger.tail
    if kind == events.CLOSING:
        return max(ledger.ending.shutting, ledger.ending.shut) < 1 + (rest & 1)
    if kind == events.SHUTDOWN:
        return ledger.ending.shut < 1 + (rest & 1) and not (rest & 1 and lease is not None)
    return False


def cut_of(ledger: Ledger, event: bytes) -> int:
    """Records that a CUT cuts, as many as have places; or a PUBLISH, all of them or none; or a PUT_BACK."""
    slot, total = word(event) >> 8 & 0xFFFF, word(event) >> 24
    filling = ledger.files.filling.get(slot)
    back = event[0] == events.PUT_BACK
    shut = ledger.ending.shut == SHUT_AT_ONCE if back else ledger.ending.shut
    if filling is None or shut or not ledger.totals[slot] < total <= filling.first + ROOM:
        return 0
    count = total - ledger.totals[slot]
    if ledger.maxsize and not back:
        own = ledger.reservations.by_slot.get(slot)
        granted = max(0, own.stop - ledger.totals[slot]) if own else 0
        places = granted + max(0, ledger.maxsize - taken(ledger))
        if places < count:
            return 0 if event[0] == events.PUBLISH else max(0, places)
    return count


def given_of(ledger: Ledger, event: bytes) -> int:
    """Records that a DELIVERED cuts, and delivers."""
    slot, rest = word(event) >> 8 & 0xFFFF, word(event) >> 24
    filling, lease = ledger.files.filling.get(slot), ledger.leases.standing
    if not ledger.leases.sole or lease is None or filling is None or lease.number != rest >> 15:
        return 0
    total = ledger.totals[slot]
    return max(0, (rest & 0x7FFF) - total) if (rest & 0x7FFF) <= filling.first + ROOM else 0


Logged = dict[int, tuple[FileId, int]]
"""By item: the file and the record where it was cut."""


class History:
    """A ledger, the events that it has had, and what they must have come to."""

    def __init__(self, dice: random.Random, make: type[Ledger] = Ledger, limit: int = 1 << 20) -> None:
        self.dice = dice
        self.ledger = make(dice.choice([0, 0, 1, 2, 3, 5, 70]), limit, limit)
        self.journal: list[bytes] = []
        self.verdicts: list[Verdict] = []
        self.places: Logged = {}
        self.seen: set[tuple[FileId, int]] = set()

    def go(self, steps: int, check_each: bool = True) -> None:
        for n in range(steps):
            event = some_event(self.dice, self.ledger, ends=n > steps // 2 and self.dice.random() < 0.3)
            self.step(event)
            if check_each:
                check(self)

    def step(self, event: bytes) -> Verdict:
        ledger = self.ledger
        valid = expected(ledger, event)
        before, low, used = self.numbers(), ledger.low, ledger.used
        slot = word(event) >> 8 & 0xFFFF
        count = cut_of(ledger, event) if event[0] in CUTS else given_of(ledger, event)
        former = ledger.totals[slot] if slot < len(ledger.totals) else 0
        record = former - ledger.files.filling[slot].first if slot in ledger.files.filling else 0
        state = None if valid else snapshot.dump(ledger)
        verdict = ledger.step(word(event))
        self.journal.append(event)
        self.verdicts.append(verdict)
        assert (verdict is not None) == valid, f"{event.hex()} came to {verdict}"
        if state is not None:
            ledger.position.index -= 1
            assert snapshot.dump(ledger) == state, "a void event changes nothing"
            ledger.position.index += 1
        if event[0] in (*CUTS, events.DELIVERED) and isinstance(verdict, range):
            assert len(verdict) == count
            for item in verdict:
                place = ledger.files.filling[slot].file, record + item - verdict.start
                assert place not in self.seen, "two items in one place"
                self.seen.add(place)
                self.places[item] = place
        if ledger.maxsize and event[0] != events.PUT_BACK:
            assert ledger.used <= max(ledger.maxsize, used), "what is put back alone goes beyond the bound"
        if event[0] == events.DELIVERED and verdict is not None:
            assert ledger.leases.given[slot] == ledger.totals[slot], "how far its lease has got is known"
        if event[0] == events.SKIP and verdict is not None:
            assert verdict == former, "a SKIP says what was cut before it"
        if event[0] == events.REVOKE and verdict is not None:
            assert ledger.head >= low, "what has passed does not come back"
        if event[0] == events.OPEN and verdict is not None:
            assert ledger.files.filling[slot].first == ledger.totals[slot], "a file begins behind what was cut"
        assert all(now >= then for now, then in zip(self.numbers(), before)), "what only grows has shrunk"
        return verdict

    def numbers(self) -> list[int]:
        """What only grows."""
        ledger = self.ledger
        return [
            ledger.tail,
            ledger.files.opened,
            ledger.reservations.made,
            ledger.leases.made,
            ledger.joins.finished,
            *ledger.totals,
        ]


def check(history: History) -> None:
    """What holds after each event."""
    ledger = history.ledger
    low = ledger.leases.passed if ledger.leases.standing else ledger.head
    assert ledger.low == low <= ledger.head <= ledger.tail
    assert (
        ledger.leases.standing.first <= low <= ledger.leases.standing.end
        if ledger.leases.standing
        else not ledger.leases.passed
    )
    assert ledger.joins.finished <= ledger.tail
    assert ledger.reservations.places == reserved(ledger)
    assert ledger.holds.apart == len(ledger.holds.held) + len(ledger.holds.returned)
    assert ledger.used == taken(ledger)
    assert not ledger.leases.sole or (
        ledger.leases.standing and ledger.leases.standing.first == ledger.leases.standing.end == ledger.tail
    )
    for item in range(low, ledger.tail):
        assert tuple(ledger.place(item)) == history.places[item]
    assert ledger.tail == ledger.extents.end if len(ledger.extents) else low == ledger.tail
    kept: dict[FileId, int] = {}
    for one in (*ledger.holds.held.values(), *ledger.holds.returned):
        assert tuple(one.place) == history.places[one.item]
        kept[one.place.file] = kept.get(one.place.file, 0) + 1
    assert ledger.files.kept == kept
    assert ledger.members.consumers == sum(member.consumer for member in ledger.members.by_slot.values())
    assert sorted([*ledger.members.by_slot, *ledger.members.free]) == list(range(ledger.slots))
    assert set(ledger.files.filling) <= set(ledger.members.by_slot)
    assert set(ledger.reservations.by_slot) <= set(ledger.files.filling)
    assert ledger.leases.plain == (ledger.leases.standing is None and not ledger.holds.returned)
    assert [one.item for one in ledger.holds.returned] == sorted(one.item for one in ledger.holds.returned)
    for slot, filling in ledger.files.filling.items():
        assert filling.first <= ledger.totals[slot] <= filling.first + ROOM
        assert filling.file.member == ledger.members.by_slot[slot].number
    if ledger.ending.shut == SHUT_AT_ONCE:
        assert ledger.head == ledger.tail
        assert not ledger.holds.returned
    in_done = {file for file, _ in ledger.files.done}
    assert not in_done & {history.places[item][0] for item in range(low, ledger.tail)}, "a file that is needed is done"
    assert not in_done & set(kept)


def contents(ledger: Ledger) -> dict[str, Any]:
    """All that a ledger's state is, once what is not needed was forgotten."""
    ledger.trim()
    notes = {"files.done", "files.sealing", "leases.plain", "members.free", "position.sealed"}
    found: dict[str, Any] = {"maxsize": ledger.maxsize, "head": ledger.head, "tail": ledger.tail}
    found["settings"] = ledger.settings
    for group in ("ending", "files", "holds", "joins", "leases", "members", "position", "reservations"):
        part = getattr(ledger, group)
        names = [f"{group}.{field}" for field in type(part).__slots__]
        found.update((name, attrgetter(name)(ledger)) for name in names if name not in notes)
    found["extents"] = list(ledger.extents.each(ledger.low, ledger.tail))
    found["free"] = sorted(ledger.members.free)
    found["totals"] = list(ledger.totals[: ledger.slots])
    found["sealing"] = sorted(ledger.files.sealing)
    found["plain"] = ledger.leases.plain
    return found
