"""Events of others, many at a time.

Lives here: one loop for the types that come often.  Not here: what an event does, and which are void (``ledger``).

Invariant: the state is the same as after ``Ledger.step`` of each, but for the places of items that nobody may get any
more.
"""

from __future__ import annotations

from collections.abc import Sequence

from tqshim.protocol import events
from tqshim.protocol.events import CLAIM, CUT, LEASE, PASSED, PUBLISH, RESERVE, REVOKE, TRIM
from tqshim.protocol.records import Lease, Reservation
from tqshim.protocol.state import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["OFTEN", "apply_often"]

OFTEN: Final = frozenset((CLAIM, CUT, PUBLISH, RESERVE, TRIM, LEASE, REVOKE, PASSED))
"""The types of most events."""
_PUTS: Final = (CUT, PUBLISH)
_new: Final = tuple.__new__
"""Makes a tuple of a class with no call of a function of Python."""


def apply_often(state: State, words: Sequence[int], at: int, end: int) -> int:  # noqa: C901  a call of each costs most
    """Apply events from ``at`` up to ``end``, or up to the first of another type; returns where that is.

    The caller makes sure that no lease of all that comes stands, and no slot is watched."""
    begin = at
    leases, reservations = state.leases, state.reservations
    head, tail, passed, plain, reserved = state.head, state.tail, leases.passed, leases.plain, reservations.places
    totals, files, res, members = state.totals, state.files.filling, reservations.by_slot, state.members.by_slot
    maxsize, apart, shut, shutting = state.maxsize, state.holds.apart, state.ending.shut, state.ending.shutting
    made, grants, lease = leases.made, reservations.made, leases.standing
    holder, first, last, number, member = lease or (0, 0, 0, 0, 0)  # no lease has the number 0
    extents: list[tuple[int, int, int, int]] = []
    grown: dict[int, int] = {}
    """By slot: the end of the items of its log."""
    for event in words[at:end]:
        kind = event & 0xFF
        if kind == CLAIM:
            if plain and head < tail:
                head += 1
        elif kind in _PUTS:
            slot, total = event >> 8 & 0xFFFF, event >> 24
            filling = files.get(slot)
            if filling is not None and totals[slot] < total <= filling.stop and not shut:
                former = totals[slot]
                if maxsize:
                    own = res.get(slot)
                    granted = own.stop - former if own is not None and own.stop > former else 0
                    free = maxsize - (tail - (passed if number else head) + reserved + apart)
                    most = former + granted + (free if free > 0 else 0)
                    if total > most:
                        total = former if kind == PUBLISH or most < former else most
                    if granted:
                        reserved -= min(granted, total - former)
                if total > former:
                    extents.append((tail, filling.number, former - filling.first, total - former))
                    totals[slot] = total
                    grown[slot] = tail = tail + total - former
        elif kind == RESERVE:
            slot, places = event >> 8 & 0xFFFF, event >> 24
            if maxsize and slot in files and not shut and not shutting:
                own, total = res.get(slot), totals[slot]
                freed = own.stop - total if own is not None and own.stop > total else 0
                if tail - (passed if number else head) + reserved + apart - freed + places <= maxsize:
                    grants += 1
                    res[slot] = _new(Reservation, (total, total + places, grants % events.GRANT_LIMIT, False))
                    reserved += places - freed
        elif kind == TRIM:
            slot = event >> 8 & 0xFFFF
            own = res.get(slot)
            if own is not None and own.grant == event >> 34 and not own.cut:
                start, stop, grant, _ = own
                if stop - start <= events.RESERVE_MOST:
                    total, short = totals[slot], min(start + (event >> 24 & 0x3FF), stop)
                    reserved -= max(0, stop - total) - max(0, short - total)
                    res[slot] = _new(Reservation, (start, short, grant, True))
        elif kind == LEASE:
            slot = event >> 8 & 0xFFFF
            who = members.get(slot)
            if who is not None and who.consumer and head < tail and not apart and (not number or member == who.number):
                made += 1
                last = min(head + min(event >> 24, events.LEASE_MOST), tail)
                holder, first, number, member = slot, head, made, who.number
                passed, head, plain = first, last, False
        elif kind == REVOKE:
            if number and event >> 24 == number:
                head = max(passed, min(first + (event >> 8 & 0xFFFF), last))
                who = members.get(holder)
                if who is not None and who.number == member:
                    leases.ended[holder] = number, head
                number, passed, plain = 0, 0, True
        elif kind == PASSED:
            if number and event >> 24 == number and passed < first + (event >> 8 & 0xFFFF) <= last:
                passed = first + (event >> 8 & 0xFFFF)
        else:
            break
        at += 1
    state.position.index += at - begin
    state.head, state.tail = head, tail
    leases.passed, leases.plain, leases.made = passed, plain, made
    reservations.places, reservations.made = reserved, grants
    if number != (0 if lease is None else lease.number):
        leases.standing = Lease(holder, first, last, number, member) if number else None
    for slot, stop in grown.items():
        state.files.ends[files[slot].file] = stop
    waiting = [extent for extent in extents if extent[0] + extent[3] > (passed if number else head)]
    if len(waiting) < len(extents):
        state.extents.clear(tail)  # nobody asks where claimed items stand
    if waiting:
        state.extents.extend(waiting)
    return at
