"""The rules of a queue: its state, as a pure function of its journal's events.

Lives here: what makes each event valid or void, and what a valid one does.  Not here: the snapshot that a journal
begins with (``snapshot``), files, waiting, threads, time.  Nothing in this module can block, fail half-way or depend on
who runs it.

Invariant: two processes that have applied the same events hold equal ledgers, and so does who loads a snapshot of one
and goes on from there.  A void event changes nothing.  So an append to the journal is the commit point of every act
that is one; a put is none: it is a store to its producer's counter, and whoever reads that may cut.

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
SKIP(slot, total)         the slot has a file;                        records up to ``total`` are cut, and no items; its
                          cut < total <= what its file can hold       reservation is dropped
CLAIM(slot)               no lease stands, no item is returned, and   the item at the head is the slot's
                          head < tail
CLAIM_MANY(slot, most)    the same                                    the ``most`` items at the head, or all
LEASE(slot, most)         slot is a consumer; no lease stands, or     its former lease is wholly delivered; the ``most``
                          its own of some items; no item is held or   items at the head, or all, are leased to it
                          returned; head < tail
LEASE_ALL(slot)           slot is the only consumer; unbounded; no    a lease of all that comes: it delivers records of
                          lease stands, nothing waits, nothing is     any log in any order, and nothing is cut meanwhile
                          held or returned; not shut down
DELIVERED(slot, t, n)     a lease of all that comes stands, of that   the records of its log up to ``t`` were cut, and
                          number; the slot has a file;                are got
                          cut < t <= what its file can hold
PASSED(count, number)     a lease of that number stands; so many of   they are delivered for good, and their places are
                          its items are more than have passed, and    free
                          not more than it has
REVOKE(count, number)     a lease of that number stands               the lease ends after ``count`` of its items, or
                                                                      those that have passed; the others are at the
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
cut has used + the items that are held or returned.  The total of a log only grows, also over the members that follow
one another in its slot: a CUT that comes late, or twice, is void; and so is a PASSED, for a lease's cell only grows.
While an item is held or returned no lease stands: so nobody delivers others from memory, and overlooks what comes back.
While a lease of all that comes stands these are void, too: CUT, PUBLISH, SKIP, OPEN, LEAVE of who has a file,
TASK_DONE, SHUTDOWN.  Whoever wants one of them ends it in the same append: DELIVEREDs by the cells, REVOKE.
All other events past the journal's limit are void, and so are events of unknown types.  Numbers of members, leases,
grants, holds, files and items are never used twice; slots are.
"""

from __future__ import annotations

import struct
from array import array
from bisect import insort
from collections.abc import Iterator
from heapq import heappop, heappush

from tqshim.names import FileId
from tqshim.protocol import events
from tqshim.protocol.events import (
    CLAIM,
    CLAIM_MANY,
    CLOSING,
    CUT,
    DELIVERED,
    GOT,
    HOLD,
    JOIN,
    LEASE,
    LEASE_ALL,
    LEAVE,
    OPEN,
    PASSED,
    PUBLISH,
    RESERVE,
    RETURN,
    REVOKE,
    SEAL,
    SHUTDOWN,
    SIZE,
    SKIP,
    TASK_DONE,
    TRIM,
)
from tqshim.protocol.extents import Extents
from tqshim.protocol.index import capacity
from tqshim.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Optional, TypeAlias, Union

__all__ = [
    "OPEN_FOR_ALL",
    "PAGE_SLOTS",
    "SHUT",
    "SHUT_AT_ONCE",
    "Filling",
    "Held",
    "Lease",
    "Ledger",
    "Member",
    "Place",
    "Reservation",
    "Returned",
    "Verdict",
]


class Member(NamedTuple):
    """A process in one of its two roles."""

    number: int
    """The number of its JOIN."""
    consumer: bool


class Filling(NamedTuple):
    """The batch file with which a log goes on."""

    file: FileId
    number: int
    """That of its OPEN among all."""
    first: int
    """Records of the log before it."""
    stop: int
    """Records of the log that there are at most while it goes on there."""

    @classmethod
    def of(cls, file: FileId, number: int, first: int) -> Filling:
        """The file with which a log goes on behind its ``first`` records."""
        return cls(file, number, first, first + capacity(file.serial))


class Place(NamedTuple):
    """Where an item stands."""

    file: FileId
    record: int
    """Which of its records."""


class Lease(NamedTuple):
    """Items ``first`` up to ``end``, all of them one consumer's until somebody revokes them."""

    slot: int
    first: int
    end: int
    number: int
    member: int
    """The number of its holder's JOIN: slots are used again."""


class Reservation(NamedTuple):
    """Places of a bounded queue that are one producer's."""

    begin: int
    """Records of its log that were cut when it was made."""
    stop: int
    """So far the log may grow."""
    grant: int
    cut: bool
    """Somebody has ended it: no more of it can be had."""


class Held(NamedTuple):
    """An item that is one consumer's until it says that it is got or gives it back, or leaves."""

    number: int
    """The number of its HOLD."""
    slot: int
    member: int
    """The number of its holder's JOIN."""
    item: int
    times: int
    """How often it had come back before."""
    place: Place


class Returned(NamedTuple):
    """An item that was held and has come back."""

    item: int
    times: int
    """How often it has come back."""
    place: Place


Verdict: TypeAlias = "Union[int, range, Lease, Reservation, Held, None]"
"""What an event came to: ``None`` where it is void, else

JOIN: the slot.  CUT, PUBLISH, DELIVERED, CLAIM, CLAIM_MANY: the items.  LEASE, LEASE_ALL: the lease.  RESERVE, TRIM:
the reservation as it stands now.  PASSED, REVOKE: how far the lease was delivered.  SKIP: the total before it.  LEAVE,
OPEN: the slot.
SEAL: the key.  HOLD: what is held.  GOT, RETURN: the number of the hold.  TASK_DONE: how many items are unfinished.
CLOSING, SHUTDOWN: ``SHUT`` or ``SHUT_AT_ONCE``."""

OPEN_FOR_ALL: Final = 0
SHUT: Final = 1
"""Nothing is put any more, what waits can be got."""
SHUT_AT_ONCE: Final = 2
"""And nothing waits any more."""

FIRST_LIMIT: Final = 448
"""Events of a queue's first journal: with its snapshot one page of 4 KB, so that a thousand queues cost 4 MB."""
LAST_LIMIT: Final = 1 << 16
"""Events of a journal in a queue that has been busy: half a megabyte.  From the one it doubles to the other."""
PAGE_SLOTS: Final = 64
"""``totals`` grows by so many slots: as the cells that it is compared with."""

_PLAIN: Final = b"\x01"
"""The type of a CLAIM."""
_WORD: Final = struct.Struct("<Q")
_PAGE: Final = bytes(8 * PAGE_SLOTS)


class Ledger:
    """The state of one queue.

    ``apply`` takes events that others wrote, ``step`` takes one and returns what it came to.  ``done`` and ``yours``
    are notes for the engine and no part of the state."""

    __slots__ = (
        "apart",
        "base",
        "completions",
        "consumers",
        "done",
        "durable",
        "ends",
        "extents",
        "files",
        "finished",
        "first_limit",
        "free",
        "given",
        "given_of",
        "grants",
        "head",
        "held",
        "index",
        "kept",
        "kept_files",
        "known_files",
        "last_limit",
        "lease",
        "leases",
        "limit",
        "maxsize",
        "members",
        "opened",
        "passed",
        "plain",
        "proof",
        "redelivered",
        "res",
        "reserved",
        "returned",
        "sealed",
        "sealing",
        "shut",
        "shutting",
        "sole",
        "tail",
        "totals",
        "watched",
        "yours",
    )

    def __init__(
        self,
        maxsize: int = 0,
        first_limit: int = FIRST_LIMIT,
        last_limit: int = LAST_LIMIT,
        durable: bool = False,
        proof: bytes = b"",
    ) -> None:
        self.maxsize = maxsize if maxsize > 0 else 0
        self.durable = durable
        """What a put has put survives a power cut.  No rule asks for this: whoever writes the events keeps to it."""
        self.proof = proof
        """What a key is tried on, of a queue that has one: 32 bytes."""
        self.first_limit = first_limit
        self.last_limit = last_limit
        self.base = 0
        """Events in all the journals before this one."""
        self.index = 0
        """Events of this journal that have been applied, void ones too."""
        self.limit = first_limit
        """Events of this journal that count."""
        self.sealed: Optional[int] = None
        """The key of the next journal, once that is decided."""
        self.head = 0
        """The oldest item nobody has claimed or leased."""
        self.tail = 0
        """The number of the next item."""
        self.extents = Extents()
        """Where the items stand that somebody may still get (and older ones until the next ``trim``)."""
        self.totals = array("Q", _PAGE)
        """By slot: the records of its log that were cut or skipped, over all its members."""
        self.members: dict[int, Member] = {}
        self.consumers = 0
        """Members that are consumers."""
        self.free: list[int] = []
        """Slots below the highest ever used that are free, in no order."""
        self.files: dict[int, Filling] = {}
        """By slot: the batch file with which its member's log goes on."""
        self.opened = 0
        """OPENs so far."""
        self.known_files: dict[int, FileId] = {}
        """By number: those files, and the sealed ones."""
        self.ends: dict[FileId, int] = {}
        """The end of the items of each of them: 0, if it has none."""
        self.sealing: list[tuple[int, int]] = []
        """Batch files that nobody fills any more, with items that somebody may still get (and older ones until the next
        ``trim``), as a heap: the end of their items, their number."""
        self.plain = True
        """No lease stands and no item is returned: a CLAIM takes the item at the head."""
        self.held: dict[int, Held] = {}
        """By number, and so in their order."""
        self.returned: list[Returned] = []
        """Oldest item first."""
        self.apart = 0
        """Items that are held or returned: each keeps its place."""
        self.kept_files: dict[FileId, int] = {}
        """How many of those lie in a batch file."""
        self.redelivered = 0
        """How often an item that had come back was held again."""
        self.lease: Optional[Lease] = None
        self.passed = 0
        """Its first item of which nobody has said that it is delivered."""
        self.leases = 0
        self.sole = False
        """The lease that stands is of all that comes; it has no items."""
        self.given_of = 0
        """The number of the last such lease ..."""
        self.given: dict[int, int] = {}
        """... and by slot: up to which record of its log was delivered under it, as far as anybody has said it."""
        self.kept: dict[int, tuple[int, int]] = {}
        """By slot: its member's last lease that was revoked, by number, and the item at which it ended."""
        self.res: dict[int, Reservation] = {}
        self.reserved = 0
        """Places of all reservations that no cut has used."""
        self.grants = 0
        self.finished = 0
        """Items that somebody has finished with: any, for nobody says which."""
        self.completions = 0
        """How often all the items that there were had been finished with."""
        self.shutting = OPEN_FOR_ALL
        """How somebody wants it to be shut down."""
        self.shut = OPEN_FOR_ALL
        self.done: list[tuple[FileId, int]] = []
        """Sealed batch files that nobody needs any more, and the end of their items, or a later one; the engine empties
        this list."""
        self.watched: Optional[int] = None
        """A slot whose claims, and what it got of leases, are noted in ``yours``: its process lost sight of some."""
        self.yours: list[tuple[int, int, Place]] = []
        """Items that became the watched slot's so: the number of the event, the item, its place."""

    # -- what the state says

    @property
    def low(self) -> int:
        """The oldest item that somebody may still get, but for those that are held or returned."""
        return self.head if self.lease is None else self.passed

    @property
    def used(self) -> int:
        """Places of a bounded queue that are taken."""
        return self.tail - self.low + self.reserved + self.apart

    @property
    def unfinished(self) -> int:
        """Items that were cut and not finished with."""
        return self.tail - self.finished

    @property
    def full(self) -> bool:
        """This journal has had all the events that count."""
        return self.index >= self.limit

    @property
    def slots(self) -> int:
        """Slots that were ever used."""
        return len(self.members) + len(self.free)

    def place(self, item: int) -> Place:
        """Where an unclaimed or just claimed item stands."""
        file, record, _ = self.extents.place(item)
        return Place(self.known_files[file], record)

    def each_place(self, first: int, end: int) -> Iterator[tuple[int, int, Place]]:
        """The items ``first`` up to ``end``, unclaimed or just claimed: stretches of them, and where each begins."""
        for begin, stop, file, record in self.extents.each(first, end):
            yield begin, stop, Place(self.known_files[file], record)

    def stop_of(self, slot: int) -> int:
        """Records of the slot's log that can be cut at most, as things stand; more in its counter are none yet."""
        filling = self.files.get(slot)
        if filling is None or self.shut:
            return self.totals[slot] if slot < len(self.totals) else 0
        if not self.maxsize:
            return filling.stop
        own = self.res.get(slot)
        return min(filling.stop, own.stop) if own else self.totals[slot]

    def cuts(self, counters: bytes, last: int = -1) -> bytes:
        """The CUTs of all that the counters, by slot and one word each, are beyond what is cut.  ``last``: whose comes
        behind the others'."""
        return self.cuts_of(self.grown(counters), last)

    def cuts_of(self, grown: list[tuple[int, int]], last: int = -1) -> bytes:
        """The same of what ``grown`` has found."""
        if len(grown) < 2:
            return events.cut(*grown[0]) if grown else b""
        grown.sort(key=lambda one: one[0] == last)
        return b"".join([events.cut(slot, total) for slot, total in grown])

    def uncut(self, counters: bytes) -> int:
        """Items that are put and not cut, by these counters, which were read before what is applied here."""
        return sum([total - self.totals[slot] for slot, total in self.grown(counters)])

    def each_uncut(self, counters: bytes, given: dict[int, int]) -> Iterator[tuple[int, int, Place]]:
        """The same, by slot: the slot, how many, and where the first of them stands, with the others behind it.

        ``given``: where a lease of all that comes has got to."""
        for slot, total in sorted(self.grown(counters)):
            filling = self.files[slot]
            first = max(self.totals[slot], given.get(slot, 0))
            if first < total:
                yield slot, total - first, Place(filling.file, first - filling.first)

    def grown(self, counters: bytes) -> list[tuple[int, int]]:
        """Slots whose logs are beyond their last cuts, by these counters, and up to where each can be cut."""
        if counters == self.totals.tobytes():
            return []
        found = []
        words = memoryview(counters).cast("Q")
        known, totals = len(words), self.totals
        for slot, filling in self.files.items():
            # Beyond what its file can hold it is damaged, and makes up no items.
            if slot < known and totals[slot] < words[slot] <= filling.stop:
                total = words[slot]
                if self.maxsize or self.shut:
                    total = min(total, self.stop_of(slot))
                if total > totals[slot]:
                    found.append((slot, total))
        return found

    def is_done(self, file: FileId) -> bool:
        """Nobody writes to the batch file and nobody can get an item from it any more."""
        if file in self.kept_files or self.ends.get(file, 0) > self.low:
            return False
        for slot, member in self.members.items():
            if member.number == file.member:
                current = self.files.get(slot)
                return current is not None and current.file.serial > file.serial
        return True

    # -- events

    def apply(self, chunk: bytes) -> int:
        """Apply events of others and return how many bytes that was: type 0 is no event, what follows is not there yet.

        Cheap for runs of claims, which most events are."""
        if len(chunk) == SIZE:
            if chunk[0]:
                self.step(_WORD.unpack(chunk)[0])
                return SIZE
            return 0
        types = chunk[::SIZE]
        count = len(chunk) // SIZE
        if (
            types.count(_PLAIN) == count == len(types)
            and self.index + count <= self.limit
            and self.watched is None
            and self.plain
        ):
            self.index += count
            head = self.head + count
            self.head = head if head < self.tail else self.tail
            return count * SIZE
        cut = types.find(0)
        if 0 <= cut < count:
            count = cut
        at = 0
        if self.watched is None:
            last = min(count, self.limit - self.index)
            while at < last:
                left = len(types[at:last].lstrip(_PLAIN))
                if last - left > at:
                    self._claims(last - left - at)
                at = last - left
                if left:
                    self.step(_WORD.unpack_from(chunk, at * SIZE)[0])
                    at += 1
        for (event,) in _WORD.iter_unpack(chunk[at * SIZE : count * SIZE]):
            self.step(event)
        return count * SIZE

    def _claims(self, count: int) -> None:
        """So many CLAIMs, one after another, of whomever."""
        self.index += count
        if self.plain:
            self.head = min(self.head + count, self.tail)

    def step(self, event: int) -> Verdict:
        """Apply one event and say what it came to."""
        index = self.index
        self.index = index + 1
        kind = event & 0xFF
        slot = event >> 8 & 0xFFFF
        rest = event >> 24
        if index >= self.limit:
            return self._seal_journal(rest) if kind == SEAL else None
        if kind == CLAIM:
            return self._claim(slot, 1)
        if kind == CUT:
            return self._cut(slot, rest, False)
        if kind == PUBLISH:
            return self._cut(slot, rest, True)
        if kind == CLAIM_MANY:
            return self._claim(slot, rest)
        if kind == LEASE:
            return self._lease(slot, rest)
        if kind == LEASE_ALL:
            return self._lease_all(slot)
        if kind == DELIVERED:
            return self._give(slot, rest & events.DELIVERED_LIMIT - 1, rest >> 15)
        if kind == REVOKE:
            return self._revoke(slot, rest)
        if kind == PASSED:
            return self._pass(slot, rest)
        if kind == RESERVE:
            return self._reserve(slot, rest)
        if kind == TRIM:
            return self._trim(slot, rest & 0x3FF, rest >> 10)
        if kind == HOLD:
            return self._hold(self.base + index, slot)
        if kind == GOT:
            return self._got(rest)
        if kind == RETURN:
            return self._return(rest)
        if kind == SKIP:
            return self._skip(slot, rest)
        if kind == OPEN:
            return self._open(slot, rest)
        if kind == JOIN:
            return self._join(self.base + index, bool(rest & 1))
        if kind == LEAVE:
            return self._leave(slot, rest)
        if kind == TASK_DONE:
            return self._task_done()
        if kind == CLOSING:
            return self._close(SHUT_AT_ONCE if rest & 1 else SHUT)
        if kind == SHUTDOWN:
            return self._shutdown(SHUT_AT_ONCE if rest & 1 else SHUT)
        return None

    def _claim(self, slot: int, most: int) -> Optional[range]:
        if not self.plain or self.head >= self.tail:
            return None
        items = range(self.head, min(self.head + most, self.tail))
        self.head = items.stop
        if slot == self.watched:
            self._note(items)
        return items

    def _note(self, items: range) -> None:
        self.yours += [(self.base + self.index - 1, item, self.place(item)) for item in items]

    def _cut(self, slot: int, total: int, whole: bool) -> Optional[range]:
        filling = self.files.get(slot)
        if filling is None or self.shut or self.sole:
            return None
        totals = self.totals
        former = totals[slot]
        if not former < total <= filling.stop:
            return None
        if self.maxsize:
            own = self.res.get(slot)
            granted = max(0, own.stop - former) if own else 0
            most = former + granted + self.maxsize - self.used
            if total > most:
                if whole or most <= former:
                    return None
                total = most
            self.reserved -= min(granted, total - former)
        first = self.tail
        self.extents.append(first, filling.number, former - filling.first, total - former)
        self.tail = first + total - former
        self.ends[filling.file] = self.tail
        totals[slot] = total
        return range(first, self.tail)

    def _skip(self, slot: int, total: int) -> Optional[int]:
        filling = self.files.get(slot)
        if filling is None or self.sole or not self.totals[slot] < total <= filling.stop:
            return None
        self._drop_reservation(slot)
        former = self.totals[slot]
        self.totals[slot] = total
        return former

    def _drop_reservation(self, slot: int) -> None:
        own = self.res.pop(slot, None)
        if own:
            self.reserved -= max(0, own.stop - self.totals[slot])

    def _lease(self, slot: int, most: int) -> Optional[Lease]:
        old = self.lease
        member = self.members.get(slot)
        if member is None or not member.consumer:
            return None
        if self.head >= self.tail or self.apart or (old is not None and old.member != member.number):
            return None
        self.leases += 1
        end = min(self.head + min(most, events.LEASE_MOST), self.tail)
        self.lease = Lease(slot, self.head, end, self.leases, member.number)
        self.passed = self.head
        self.plain = False
        self.head = end
        return self.lease

    def _lease_all(self, slot: int) -> Optional[Lease]:
        member = self.members.get(slot)
        if member is None or not member.consumer or self.consumers != 1 or self.maxsize or self.shut:
            return None
        if self.lease is not None or self.apart or self.head < self.tail:
            return None
        self.leases += 1
        self.lease = Lease(slot, self.head, self.head, self.leases, member.number)
        self.passed = self.head
        self.plain = False
        self.sole = True
        self.given_of = self.leases
        self.given = {}
        return self.lease

    def _give(self, slot: int, total: int, number: int) -> Optional[range]:
        lease, filling = self.lease, self.files.get(slot)
        if not self.sole or lease is None or lease.number % events.SOLE_LIMIT != number or filling is None:
            return None
        former = self.totals[slot]
        count = (total - former) % events.DELIVERED_LIMIT
        if not 0 < count <= events.DELIVERED_MOST or former + count > filling.stop:
            return None
        first = self.tail
        self.totals[slot] = self.given[slot] = former + count
        self.head = self.passed = self.tail = self.ends[filling.file] = first + count
        self.extents.clear(self.tail)
        self.lease = lease._replace(first=self.tail, end=self.tail)
        return range(first, self.tail)

    def _pass(self, count: int, number: int) -> Optional[int]:
        lease = self.lease
        if lease is None or lease.number != number or not self.passed < lease.first + count <= lease.end:
            return None
        former, self.passed = self.passed, lease.first + count
        if lease.slot == self.watched:
            self._note(range(former, self.passed))
        return self.passed

    def _revoke(self, count: int, number: int) -> Optional[int]:
        lease = self.lease
        if lease is None or lease.number != number:
            return None
        self.head = max(self.passed, min(lease.first + count, lease.end))
        if lease.slot == self.watched:
            self._note(range(self.passed, self.head))
        self.lease = None
        self.sole = False
        self.passed = 0
        self.plain = True
        holder = self.members.get(lease.slot)
        if holder is not None and holder.number == lease.member:
            self.kept[lease.slot] = number, self.head
        return self.head

    def _reserve(self, slot: int, places: int) -> Optional[Reservation]:
        if not self.maxsize or self.shut or self.shutting or slot not in self.files:
            return None
        total = self.totals[slot]
        own = self.res.get(slot)
        former = max(0, own.stop - total) if own else 0
        if self.used - former + places > self.maxsize:
            return None
        self.grants += 1
        self.res[slot] = Reservation(total, total + places, self.grants % events.GRANT_LIMIT, False)
        self.reserved += places - former
        return self.res[slot]

    def _trim(self, slot: int, used: int, grant: int) -> Optional[Reservation]:
        own = self.res.get(slot)
        if own is None or own.cut or own.grant != grant or own.stop - own.begin > events.RESERVE_MOST:
            return None
        stop = min(own.begin + used, own.stop)
        total = self.totals[slot]
        self.reserved -= max(0, own.stop - total) - max(0, stop - total)
        self.res[slot] = own._replace(stop=stop, cut=True)
        return self.res[slot]

    def _open(self, slot: int, serial: int) -> Optional[int]:
        member = self.members.get(slot)
        if member is None or self.sole or (slot in self.files and self.files[slot].file.serial >= serial):
            return None
        self._seal(slot)
        filling = Filling.of(FileId(member.number, serial), self.opened, self.totals[slot])
        self.opened += 1
        self.files[slot] = filling
        self.known_files[filling.number] = filling.file
        self.ends[filling.file] = 0
        return slot

    def _join(self, number: int, consumer: bool) -> Optional[int]:
        if self.free:
            slot = min(self.free)
            self.free.remove(slot)
        elif len(self.members) < events.SLOTS:
            slot = len(self.members)
            if slot >= len(self.totals):
                self.totals.frombytes(_PAGE)
        else:
            return None
        self.members[slot] = Member(number, consumer)
        self.consumers += consumer
        return slot

    def _leave(self, slot: int, number: int) -> Optional[int]:
        member = self.members.get(slot)
        if member is None or member.number != number or (self.sole and slot in self.files):
            return None
        del self.members[slot]
        self.consumers -= member.consumer
        self.free.append(slot)
        self.kept.pop(slot, None)
        self._drop_reservation(slot)
        self._seal(slot)
        if self.held:
            for held in [held for held in self.held.values() if held.member == number]:
                self._come_back(held)
        return slot

    def _hold(self, number: int, slot: int) -> Optional[Held]:
        member = self.members.get(slot)
        if member is None or not member.consumer or self.lease is not None:
            return None
        if self.returned:
            item, times, place = self.returned.pop(0)
            self.plain = not self.returned
            self.redelivered += 1
        elif self.head < self.tail:
            item, times, place = self.head, 0, self.place(self.head)
            self.head += 1
            self.apart += 1
            self.kept_files[place.file] = self.kept_files.get(place.file, 0) + 1
        else:
            return None
        held = self.held[number] = Held(number, slot, member.number, item, times, place)
        return held

    def _got(self, number: int) -> Optional[int]:
        held = self.held.pop(number, None)
        if held is None:
            return None
        self._let_go(held.place.file)
        return number

    def _return(self, number: int) -> Optional[int]:
        held = self.held.get(number)
        if held is None:
            return None
        self._come_back(held)
        return number

    def _come_back(self, held: Held) -> None:
        del self.held[held.number]
        if self.shut == SHUT_AT_ONCE:
            self._let_go(held.place.file)
            self._finish(min(1, self.unfinished))
        else:
            insort(self.returned, Returned(held.item, held.times + 1, held.place))
            self.plain = False

    def _let_go(self, file: FileId) -> None:
        """An item there is held or returned no more."""
        self.apart -= 1
        left = self.kept_files[file] - 1
        if left:
            self.kept_files[file] = left
            return
        del self.kept_files[file]
        if file not in self.ends:
            self.done.append((file, self.low))

    def _task_done(self) -> Optional[int]:
        if self.finished >= self.tail or self.sole:
            return None
        self._finish(1)
        return self.unfinished

    def _finish(self, count: int) -> None:
        self.finished += count
        self.completions += bool(count) and self.finished == self.tail

    def _close(self, how: int) -> Optional[int]:
        if self.shutting >= how or self.shut >= how:
            return None
        self.shutting = how
        return how

    def _shutdown(self, how: int) -> Optional[int]:
        if self.shut >= how or self.sole or (how == SHUT_AT_ONCE and self.lease is not None):
            return None
        self.shut = how
        self.shutting = max(self.shutting, how)
        if how == SHUT_AT_ONCE:
            self._finish(min(self.tail - self.head + len(self.returned), self.unfinished))
            self.head = self.tail
            returned, self.returned, self.plain = self.returned, [], True
            for one in returned:
                self._let_go(one.place.file)
        return how

    # -- batch files

    def _seal(self, slot: int) -> None:
        former = self.files.pop(slot, None)
        if former is None:
            return
        end = self.ends[former.file]
        if end > self.low:
            heappush(self.sealing, (end, former.number))
        else:
            self._forget_file(former.number, end)

    def _forget_file(self, number: int, end: int) -> None:
        file = self.known_files.pop(number)
        del self.ends[file]
        if file not in self.kept_files:
            self.done.append((file, end))

    def trim(self) -> None:
        """Forget where items stand that have been claimed, and see which batch files are done.  Changes nothing that a
        snapshot shows."""
        low = self.low
        self.extents.forget(low)
        while self.sealing and self.sealing[0][0] <= low:
            end, number = heappop(self.sealing)
            self._forget_file(number, end)

    # -- rolls

    def _seal_journal(self, key: int) -> Optional[int]:
        if self.sealed is not None:
            return None
        self.sealed = key
        return key

    def roll(self, limit: Optional[int] = None) -> None:
        """Go on to the next journal: this one has had all its events.  ``limit``: that of the snapshot there."""
        self.base += self.limit
        self.index = 0
        self.limit = limit or self.next_limit
        self.sealed = None

    @property
    def next_limit(self) -> int:
        """Events of the next journal that will count, if there is space for so many."""
        return min(2 * self.limit, max(self.last_limit, self.first_limit))

    @property
    def wanted_limit(self) -> int:
        """The same, with room for a claim of each item that waits or comes back."""
        return max(self.next_limit, min(2 * (self.tail - self.low + 2 * self.apart), 2 * self.last_limit))
