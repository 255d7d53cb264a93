"""The rules of a queue: its state, as a pure function of its journal's events.

Lives here: what makes each event valid or void, and what a valid one does.  Not here: the snapshot that a journal
begins with (``snapshot``), files, waiting, threads, time.  Nothing in this module can block, fail half-way or depend on
the process that runs it.

Invariant: two processes that have applied the same events hold equal ledgers, and so does a process that loads a
snapshot of one and goes on from there.  A void event changes nothing.  So an append to the journal is the commit point
of every act that is an event.  A put is no event: it is a store to its producer's counter, and a process that reads the
counter may cut.

========================  ==========================================  ==================================================
event                     valid iff                                   effect
========================  ==========================================  ==================================================
JOIN(role)                a slot is free                              the lowest free slot is the new member's
LEAVE(slot, number)       that very member is in                      out; its reservation dropped, its file sealed;
                                                                      what it holds is returned; its lease stands until
                                                                      revoked
OPEN(slot, serial)        the slot's member is in, and has opened     its former file sealed; this one begins with the
                          no file of that serial or a later one       record behind what was cut
CUT(slot, total)          the slot has a file; not shut down;         the records of its log from the last cut up to
                          cut < total <= what its file can hold;      ``total`` are the new tail, or as many as there
                          bounded: there is a place, its              are places; those of its reservation are used
                          reservation's among them                    first
PUBLISH(slot, total)      the same; bounded: there are places for     the same, all of them
                          all of them
PUT_BACK(slot, total)     the slot has a file; not shut down at       the same, all of them, be there places or not; its
                          once; cut < total <= what its file can      reservation is dropped
                          hold
SKIP(slot, total)         the slot has a file;                        records up to ``total`` are cut, and no items; its
                          cut < total <= what its file can hold       reservation is dropped
CLAIM(slot)               no lease stands, no item is returned, and   the item at the head is the slot's
                          head < tail
CLAIM_MANY(slot, most)    the same                                    the ``most`` items at the head, or all
LEASE(slot, most)         slot is a consumer; no lease stands, or     its former lease is wholly delivered; the ``most``
                          its own of some items; no item is held or   items at the head, or all, are leased to it
                          returned; head < tail
LEASE_ALL(slot)           slot is the only consumer; bounded: one     a lease of all that comes: it delivers records of
                          producer, nothing reserved; nothing waits,  any log in any order, and nothing is cut meanwhile
                          is leased, held or returned; not shut down
DELIVERED(slot, t, n)     a lease of all that comes stands, of that   the records of its log up to ``t`` were cut, and
                          number; the slot has a file;                are got
                          cut < t <= what its file can hold
PASSED(count, number)     a lease of that number stands; so many of   they are delivered for good, and their places are
                          its items are more than have passed, and    free
                          not more than it has
REVOKE(count, number)     a lease of that number stands               the lease ends after ``count`` of its items, or
                                                                      as many as have passed; the others are at the
                                                                      head again
RESERVE(slot, k)          bounded; neither closing nor shut down;     its former reservation is dropped; the log may
                          the slot has a file; without its former     grow by k
                          reservation there are k places
TRIM(slot, j, grant)      that reservation stands, uncut, of          it ends after j of its places, and is cut
                          1,023 places at most
HOLD(slot)                slot is a consumer; no lease stands; an     the oldest item that is returned, or else the one
                          item is returned, or head < tail            at the head, is held by the slot's member, under
                                                                      the number of this event; it keeps its place
GOT(number)               that hold stands                            it ends; the item is got, and its place is free
RETURN(number)            that hold stands                            it ends; the item is returned, and keeps its place
                                                                      (shut down at once: it is dropped, and finished)
TASK_DONE()               finished < tail                             finished += 1; one completion more if that is tail
CLOSING(immediate)        not closing so, or more, or shut down so    closing: each reader helps to shut down
SHUTDOWN(immediate)       not shut down, or only now immediate;       shut down; immediate: waiting and returned items
                          immediate: no lease stands                  are dropped: head := tail, and they are finished
SEAL(key)                 past the journal's limit, and no earlier    the next journal is the one prepared under that
                          one stands there                            key
========================  ==========================================  ==================================================

``used`` = tail - (a lease stands ? its first item that has not passed : head) + the places of all reservations that no
cut has used + the items that are held or returned.  PUT_BACK alone may raise it above the bound.
The total of a log only grows, also over the members that follow one another in its slot: a CUT that comes late, or
twice, is void; and so is a PASSED, for a lease's cell only grows.
While an item is held or returned no lease stands: else a consumer would deliver others from memory, and overlook one
that comes back.  While a lease of all that comes stands these events are void, too: CUT, PUBLISH, PUT_BACK, SKIP,
RESERVE, OPEN, LEAVE of a member that has a file, TASK_DONE, SHUTDOWN.  A process that wants one of them ends the lease
in the same append: DELIVEREDs by the cells, REVOKE.

Past the journal's limit all events but SEAL are void.  Events of unknown types are void everywhere.  Numbers of
members, leases, grants, holds, files and items are never used twice; slots are.
"""

from __future__ import annotations

import struct
from bisect import insort
from collections.abc import Callable
from heapq import heappush

from tqshim.protocol import events
from tqshim.protocol.bulk import OFTEN, apply_often
from tqshim.protocol.events import CLAIM, CLAIM_MANY, CUT, DELIVERED, LEASE, LEASE_ALL, PASSED, PUBLISH, REVOKE, SIZE
from tqshim.protocol.names import FileId
from tqshim.protocol.records import SHUT, SHUT_AT_ONCE, Filling, Held, Lease, Member, Reservation, Returned, Verdict
from tqshim.protocol.state import NEW_SLOTS, State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Optional

__all__ = ["Ledger"]

_WORD: Final = struct.Struct("<Q")
_FEW: Final = 4
"""Events up to which a step for each costs less than to begin the loop for many: a quarter less for two."""


class Ledger(State):
    """The state of one queue: ``apply`` takes events that others wrote, ``step`` takes one and says what it came to."""

    __slots__ = ()

    def apply(self, chunk: bytes) -> int:
        """Apply events of others, up to the first of type 0, and return how many bytes they are.

        Type 0 is no event: what stands from there on is not written yet."""
        if len(chunk) == SIZE and chunk[0]:
            self.step(_WORD.unpack(chunk)[0])
            return SIZE
        count = len(chunk) // SIZE
        end = chunk[::SIZE].find(0, 0, count)
        count, at = count if end < 0 else end, 0
        words = struct.unpack_from(f"<{count}Q", chunk)
        in_bulk = count > _FEW and self.watch.slot is None
        last = min(count, self.position.limit - self.position.index) if in_bulk else 0
        while at < last:
            if words[at] & 0xFF in OFTEN and not self.leases.sole:
                at = apply_often(self, words, at, last)
            else:
                self.step(words[at])
                at += 1
        for event in words[at:]:
            self.step(event)
        return count * SIZE

    def step(self, event: int) -> Verdict:
        """Apply one event and say what it came to."""
        position = self.position
        index = position.index
        position.index = index + 1
        kind = event & 0xFF
        if index >= position.limit:
            return self._past_limit(kind, event >> 24)
        if kind == CLAIM:  # most events are one of these two
            return self._claim(event >> 8 & 0xFFFF, 1)
        if kind == CUT:
            return self._cut(event >> 8 & 0xFFFF, event >> 24, False)
        do = _STEPS.get(kind)
        return do(self, event >> 8 & 0xFFFF, event >> 24) if do is not None else None

    def _claim(self, slot: int, most: int) -> Optional[range]:
        if not self.leases.plain or self.head >= self.tail:
            return None
        items = range(self.head, min(self.head + most, self.tail))
        self.head = items.stop
        if slot == self.watch.slot:
            self._note(items)
        return items

    def claim(self) -> int:
        """Apply a CLAIM of a process that has not lost sight of its own; return its item, or -1 if it is void."""
        item = self.head
        self.position.index += 1
        if not self.leases.plain or item >= self.tail:
            return -1
        self.head = item + 1
        return item

    def _note(self, items: range) -> None:
        self.watch.items += [(self.position.number - 1, item, self.place(item)) for item in items]

    def _cut(self, slot: int, total: int, whole: bool) -> Optional[range]:
        filling = self.files.filling.get(slot)
        if filling is None or self.ending.shut or self.leases.sole:
            return None
        totals = self.totals
        former = totals[slot]
        if not former < total <= filling.stop:
            return None
        if self.maxsize:
            reserved = self.reserved_to(slot)
            free = self.maxsize - self.used
            most = reserved + free if free > 0 else reserved
            if total > most:
                if whole or most <= former:
                    return None
                total = most
            self.reservations.places -= min(reserved, total) - former
        return self._grow(slot, filling, total)

    def _put_back(self, slot: int, total: int) -> Optional[range]:
        filling = self.files.filling.get(slot)
        if filling is None or self.ending.shut == SHUT_AT_ONCE or self.leases.sole:
            return None
        if not self.totals[slot] < total <= filling.stop:
            return None
        self._drop_reservation(slot)
        return self._grow(slot, filling, total)

    def _grow(self, slot: int, filling: Filling, total: int) -> range:
        first, former = self.tail, self.totals[slot]
        self.extents.append(first, filling.number, former - filling.first, total - former)
        self.files.ends[filling.file] = self.tail = first + total - former
        self.totals[slot] = total
        return range(first, self.tail)

    def _skip(self, slot: int, total: int) -> Optional[int]:
        filling = self.files.filling.get(slot)
        if filling is None or self.leases.sole or not self.totals[slot] < total <= filling.stop:
            return None
        self._drop_reservation(slot)
        former = self.totals[slot]
        self.totals[slot] = total
        return former

    def _drop_reservation(self, slot: int) -> None:
        self.reservations.places -= self.reserved_to(slot) - self.totals[slot]
        self.reservations.by_slot.pop(slot, None)

    def _lease(self, slot: int, most: int) -> Optional[Lease]:
        old, member = self.leases.standing, self.members.by_slot.get(slot)
        if member is None or not member.consumer:
            return None
        if self.head >= self.tail or self.holds.apart or (old is not None and old.member != member.number):
            return None
        return self._begin_lease(slot, member, min(self.head + min(most, events.LEASE_MOST), self.tail))

    def _begin_lease(self, slot: int, member: Member, end: int) -> Lease:
        leases = self.leases
        leases.made += 1
        leases.standing = Lease(slot, self.head, end, leases.made, member.number)
        leases.passed, self.head, leases.plain = self.head, end, False
        return leases.standing

    def _lease_all(self, slot: int) -> Optional[Lease]:
        member, leases = self.members.by_slot.get(slot), self.leases
        if member is None or not member.consumer or self.members.consumers != 1:
            return None
        if leases.standing is not None or self.ending.shut or self.holds.apart or self.head < self.tail:
            return None
        if self.maxsize and (self.producers > 1 or self.reservations.places):
            return None
        leases.sole, leases.given_of, leases.given = True, leases.made + 1, {}
        return self._begin_lease(slot, member, self.head)

    def _give(self, slot: int, total: int, number: int) -> Optional[range]:
        leases, filling = self.leases, self.files.filling.get(slot)
        lease = leases.standing
        if not leases.sole or lease is None or lease.number % events.SOLE_LIMIT != number or filling is None:
            return None
        former = self.totals[slot]
        count = (total - former) % events.DELIVERED_LIMIT
        if not 0 < count <= events.DELIVERED_MOST or former + count > filling.stop:
            return None
        first = self.tail
        self.totals[slot] = leases.given[slot] = former + count
        self.head = leases.passed = self.tail = self.files.ends[filling.file] = first + count
        self.extents.clear(self.tail)
        leases.standing = Lease(lease.slot, self.tail, self.tail, lease.number, lease.member)
        return range(first, self.tail)

    def _pass(self, count: int, number: int) -> Optional[int]:
        leases, lease = self.leases, self.leases.standing
        if lease is None or lease.number != number or not leases.passed < lease.first + count <= lease.end:
            return None
        former, leases.passed = leases.passed, lease.first + count
        if lease.slot == self.watch.slot:
            self._note(range(former, leases.passed))
        return leases.passed

    def _revoke(self, count: int, number: int) -> Optional[int]:
        leases, lease = self.leases, self.leases.standing
        if lease is None or lease.number != number:
            return None
        self.head = max(leases.passed, min(lease.first + count, lease.end))
        if lease.slot == self.watch.slot:
            self._note(range(leases.passed, self.head))
        leases.standing, leases.passed, leases.sole, leases.plain = None, 0, False, True
        holder = self.members.by_slot.get(lease.slot)
        if holder is not None and holder.number == lease.member:
            leases.ended[lease.slot] = number, self.head
        return self.head

    def _reserve(self, slot: int, places: int) -> Optional[Reservation]:
        if not self.maxsize or self.leases.sole or slot not in self.files.filling:
            return None
        if self.ending.shut or self.ending.shutting:
            return None
        total = self.totals[slot]
        former = self.reserved_to(slot) - total
        if self.used - former + places > self.maxsize:
            return None
        reservations = self.reservations
        reservations.made += 1
        own = Reservation(total, total + places, reservations.made % events.GRANT_LIMIT, False)
        reservations.by_slot[slot] = own
        reservations.places += places - former
        return own

    def _trim(self, slot: int, used: int, grant: int) -> Optional[Reservation]:
        reservations = self.reservations
        own = reservations.by_slot.get(slot)
        if own is None or own.cut or own.grant != grant or own.stop - own.begin > events.RESERVE_MOST:
            return None
        stop = min(own.begin + used, own.stop)
        total = self.totals[slot]
        reservations.places -= max(0, own.stop - total) - max(0, stop - total)
        reservations.by_slot[slot] = own = Reservation(own.begin, stop, own.grant, True)
        return own

    def _open(self, slot: int, serial: int) -> Optional[int]:
        member, files = self.members.by_slot.get(slot), self.files
        former = files.filling.get(slot)
        if member is None or self.leases.sole or (former is not None and former.file.serial >= serial):
            return None
        self._seal(slot)
        filling = Filling.of(FileId(member.number, serial), files.opened, self.totals[slot])
        files.opened += 1
        files.filling[slot], files.known[filling.number], files.ends[filling.file] = filling, filling.file, 0
        return slot

    def _join(self, number: int, consumer: bool) -> Optional[int]:
        members = self.members
        if members.free:
            slot = min(members.free)
            members.free.remove(slot)
        elif len(members.by_slot) < events.SLOTS:
            slot = len(members.by_slot)
            if slot >= len(self.totals):
                self.totals.frombytes(NEW_SLOTS)
        else:
            return None
        members.by_slot[slot] = Member(number, consumer)
        members.consumers += consumer
        return slot

    def _leave(self, slot: int, number: int) -> Optional[int]:
        members = self.members
        member = members.by_slot.get(slot)
        if member is None or member.number != number or (self.leases.sole and slot in self.files.filling):
            return None
        del members.by_slot[slot]
        members.consumers -= member.consumer
        members.free.append(slot)
        self.leases.ended.pop(slot, None)
        self._drop_reservation(slot)
        self._seal(slot)
        for held in [held for held in self.holds.held.values() if held.member == number]:
            self._come_back(held)
        return slot

    def _hold(self, number: int, slot: int) -> Optional[Held]:
        member = self.members.by_slot.get(slot)
        if member is None or not member.consumer or self.leases.standing is not None:
            return None
        holds = self.holds
        if holds.returned:
            item, times, place = holds.returned.pop(0)
            self.leases.plain = not holds.returned
            holds.redelivered += 1
        elif self.head < self.tail:
            item, times, place = self.head, 0, self.place(self.head)
            self.head += 1
            holds.apart += 1
            self.files.kept[place.file] = self.files.kept.get(place.file, 0) + 1
        else:
            return None
        held = holds.held[number] = Held(number, slot, member.number, item, times, place)
        return held

    def _got(self, number: int) -> Optional[int]:
        held = self.holds.held.pop(number, None)
        if held is not None:
            self._let_go(held.place.file)
        return None if held is None else number

    def _return(self, number: int) -> Optional[int]:
        held = self.holds.held.get(number)
        if held is None:
            return None
        self._come_back(held)
        return number

    def _come_back(self, held: Held) -> None:
        del self.holds.held[held.number]
        if self.ending.shut == SHUT_AT_ONCE:
            self._let_go(held.place.file)
            self._finish(min(1, self.unfinished))
        else:
            insort(self.holds.returned, Returned(held.item, held.times + 1, held.place))
            self.leases.plain = False

    def _let_go(self, file: FileId) -> None:
        """Note that one item in that batch file is no longer held or returned."""
        files = self.files
        self.holds.apart -= 1
        files.kept[file] -= 1
        if files.kept[file]:
            return
        del files.kept[file]
        if file not in files.ends:
            files.done.append((file, self.low))

    def _task_done(self) -> Optional[int]:
        if self.joins.finished >= self.tail or self.leases.sole:
            return None
        self._finish(1)
        return self.unfinished

    def _finish(self, count: int) -> None:
        joins = self.joins
        joins.finished += count
        joins.completions += bool(count) and joins.finished == self.tail

    def _close(self, how: int) -> Optional[int]:
        if self.ending.shutting >= how or self.ending.shut >= how:
            return None
        self.ending.shutting = how
        return how

    def _shutdown(self, how: int) -> Optional[int]:
        if self.ending.shut >= how or self.leases.sole or (how == SHUT_AT_ONCE and self.leases.standing is not None):
            return None
        self.ending.shut = how
        self.ending.shutting = max(self.ending.shutting, how)
        if how == SHUT_AT_ONCE:
            self._finish(min(self.tail - self.head + len(self.holds.returned), self.unfinished))
            self.head = self.tail
            returned, self.holds.returned, self.leases.plain = self.holds.returned, [], True
            for one in returned:
                self._let_go(one.place.file)
        return how

    def _seal(self, slot: int) -> None:
        files = self.files
        former = files.filling.pop(slot, None)
        if former is None:
            return
        end = files.ends[former.file]
        if end > self.low:
            heappush(files.sealing, (end, former.number))
        else:
            files.forget(former.number, end)

    def _past_limit(self, kind: int, key: int) -> Optional[int]:
        if kind != events.SEAL or self.position.sealed is not None:
            return None
        self.position.sealed = key
        return key


_STEPS: Final[dict[int, Callable[[Ledger, int, int], Verdict]]] = {
    PUBLISH: lambda ledger, slot, total: ledger._cut(slot, total, True),
    events.PUT_BACK: lambda ledger, slot, total: ledger._put_back(slot, total),
    CLAIM_MANY: lambda ledger, slot, most: ledger._claim(slot, most),
    LEASE: lambda ledger, slot, most: ledger._lease(slot, most),
    LEASE_ALL: lambda ledger, slot, _: ledger._lease_all(slot),
    DELIVERED: lambda ledger, slot, rest: ledger._give(slot, rest & events.DELIVERED_LIMIT - 1, rest >> 15),
    REVOKE: lambda ledger, count, number: ledger._revoke(count, number),
    PASSED: lambda ledger, count, number: ledger._pass(count, number),
    events.RESERVE: lambda ledger, slot, places: ledger._reserve(slot, places),
    events.TRIM: lambda ledger, slot, rest: ledger._trim(slot, rest & 0x3FF, rest >> 10),
    events.HOLD: lambda ledger, slot, _: ledger._hold(ledger.position.number - 1, slot),
    events.GOT: lambda ledger, _, number: ledger._got(number),
    events.RETURN: lambda ledger, _, number: ledger._return(number),
    events.TASK_DONE: lambda ledger, _, rest: ledger._task_done(),
    events.SKIP: lambda ledger, slot, total: ledger._skip(slot, total),
    events.OPEN: lambda ledger, slot, serial: ledger._open(slot, serial),
    events.JOIN: lambda ledger, _, rest: ledger._join(ledger.position.number - 1, bool(rest & 1)),
    events.LEAVE: lambda ledger, slot, number: ledger._leave(slot, number),
    events.CLOSING: lambda ledger, _, rest: ledger._close(SHUT_AT_ONCE if rest & 1 else SHUT),
    events.SHUTDOWN: lambda ledger, _, rest: ledger._shutdown(SHUT_AT_ONCE if rest & 1 else SHUT),
}
