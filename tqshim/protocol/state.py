"""The state of a queue, and what it says.

Lives here: all that the events of a journal add up to, questions to it, and the step to the next journal.  Not here:
what events do to it (``ledger``), the snapshot that a journal begins with (``snapshot``).

Invariant: nothing here changes an item, a member or what anybody holds: only events do.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from heapq import heappop

from tqshim.protocol import events
from tqshim.protocol.extents import Extents
from tqshim.protocol.names import FileId
from tqshim.protocol.records import OPEN_FOR_ALL, Filling, Held, Lease, Member, Place, Reservation, Returned
from tqshim.runtime.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Optional

__all__ = ["FIRST_LIMIT", "LAST_LIMIT", "NEW_SLOTS", "PAGE_SLOTS", "State", "in_order"]

FIRST_LIMIT: Final = 448
"""Events of a queue's first journal: with its snapshot one page of 4 KB, so that a thousand queues cost 4 MB."""
LAST_LIMIT: Final = 1 << 13
"""Events of a journal in a queue that has been busy: each journal doubles the limit, from ``FIRST_LIMIT`` up to this.
A newcomer reads all of them, at 1 to 2 us each, before it gets or puts anything."""
_CLAIMS: Final = 16
"""A journal may become so many times as long where it must have room for claims."""
PAGE_SLOTS: Final = 64
"""``totals`` grows by so many slots at a time, as the cells do with which it is compared."""
NEW_SLOTS: Final = bytes(8 * PAGE_SLOTS)
"""The totals of ``PAGE_SLOTS`` slots that nobody has used."""


class Settings(NamedTuple):
    """What the queue was made with, beside its bound."""

    first_limit: int
    last_limit: int
    durable: bool
    """Whether an item that is put survives a power cut.  No rule asks for this: the writers of events keep to it."""
    proof: bytes
    """Where the queue has a key: the 32 bytes on which a key is tried."""


class Position:
    """How far the journals have got."""

    __slots__ = ("base", "index", "limit", "sealed")

    def __init__(self, limit: int) -> None:
        self.base = 0
        """Events in all the journals before this one."""
        self.index = 0
        """Events of this journal that have been applied, void ones too."""
        self.limit = limit
        """Events of this journal that count."""
        self.sealed: Optional[int] = None
        """The key of the next journal, once that is decided."""

    @property
    def number(self) -> int:
        """Events so far, of all journals."""
        return self.base + self.index


class Members:
    """Which processes are in, as producers and as consumers."""

    __slots__ = ("by_slot", "consumers", "free")

    def __init__(self) -> None:
        self.by_slot: dict[int, Member] = {}
        self.consumers = 0
        """Members that are consumers."""
        self.free: list[int] = []
        """Slots below the highest ever used that are free, in no order."""


class Files:
    """The batch files."""

    __slots__ = ("done", "ends", "filling", "kept", "known", "opened", "sealing")

    def __init__(self) -> None:
        self.filling: dict[int, Filling] = {}
        """By slot: the batch file with which its member's log goes on."""
        self.opened = 0
        """OPENs so far."""
        self.known: dict[int, FileId] = {}
        """By number: the files in ``filling``, and the sealed ones."""
        self.ends: dict[FileId, int] = {}
        """By file in ``known``: the end of its items, or 0 if it has none."""
        self.sealing: list[tuple[int, int]] = []
        """Batch files that nobody fills any more, with items that somebody may still get (and older ones until the next
        ``trim``), as a heap: the end of their items, their number."""
        self.kept: dict[FileId, int] = {}
        """By batch file: how many items in it are held or returned."""
        self.done: list[tuple[FileId, int]] = []
        """A note for the engine, which empties it: sealed batch files that nobody needs any more, and the end of their
        items, or a later one."""

    def forget(self, number: int, end: int) -> None:
        """Forget a sealed batch file whose items are all got: nobody needs it, unless some are held or come back."""
        file = self.known.pop(number)
        del self.ends[file]
        if file not in self.kept:
            self.done.append((file, end))


class Holds:
    """Items that are held, or came back."""

    __slots__ = ("apart", "held", "redelivered", "returned")

    def __init__(self) -> None:
        self.held: dict[int, Held] = {}
        """By the number of the hold, and so in their order."""
        self.returned: list[Returned] = []
        """Oldest item first."""
        self.apart = 0
        """Items that are held or returned: each keeps its place."""
        self.redelivered = 0
        """How often an item that had come back was held again."""


class Leases:
    """The lease that stands, and former ones."""

    __slots__ = ("ended", "given", "given_of", "made", "passed", "plain", "sole", "standing")

    def __init__(self) -> None:
        self.standing: Optional[Lease] = None
        self.passed = 0
        """The first item of the lease of which nobody has said that it is delivered."""
        self.made = 0
        """Leases so far: the number of the last one."""
        self.sole = False
        """The lease that stands is of all that comes; it has no items."""
        self.given_of = 0
        """The number of the last such lease ..."""
        self.given: dict[int, int] = {}
        """... and by slot: up to which record of its log was delivered under it, as far as events say."""
        self.ended: dict[int, tuple[int, int]] = {}
        """By slot: the number of its member's last lease that was revoked, and the item at which that lease ended."""
        self.plain = True
        """No lease stands and no item is returned: a CLAIM takes the item at the head."""


class Reservations:
    """Places of a bounded queue that producers have reserved."""

    __slots__ = ("by_slot", "made", "places")

    def __init__(self) -> None:
        self.by_slot: dict[int, Reservation] = {}
        self.places = 0
        """Places of all reservations that no cut has used."""
        self.made = 0
        """Reservations so far."""


class Joins:
    """What ``task_done`` and ``join`` count."""

    __slots__ = ("completions", "finished")

    def __init__(self) -> None:
        self.finished = 0
        """How many items are finished with: nobody says which ones."""
        self.completions = 0
        """How often all items that there were at the moment had been finished with."""


class Ending:
    """Whether the queue is shut down."""

    __slots__ = ("shut", "shutting")

    def __init__(self) -> None:
        self.shutting = OPEN_FOR_ALL
        """How somebody wants the queue to be shut down."""
        self.shut = OPEN_FOR_ALL
        """How it was shut down."""


class Watch:
    """A note for the engine, and no part of the state."""

    __slots__ = ("items", "slot")

    def __init__(self) -> None:
        self.slot: Optional[int] = None
        """A slot whose claims, and items from leases, are noted: its process lost sight of some of them."""
        self.items: list[tuple[int, int, Place]] = []
        """Items that became that slot's in these ways: the number of the event, the item, its place."""


class State:
    """The state of one queue."""

    __slots__ = (
        "ending",
        "extents",
        "files",
        "head",
        "holds",
        "joins",
        "leases",
        "maxsize",
        "members",
        "position",
        "reservations",
        "settings",
        "tail",
        "totals",
        "watch",
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
        self.settings = Settings(first_limit, last_limit, durable, proof)
        self.position = Position(first_limit)
        self.head = 0
        """The oldest item nobody has claimed or leased."""
        self.tail = 0
        """The number of the next item."""
        self.extents = Extents()
        """Where the items stand that somebody may still get (and older ones until the next ``trim``)."""
        self.totals = array("Q", NEW_SLOTS)
        """By slot: the records of its log that were cut or skipped, over all its members."""
        self.members = Members()
        self.files = Files()
        self.holds = Holds()
        self.leases = Leases()
        self.reservations = Reservations()
        self.joins = Joins()
        self.ending = Ending()
        self.watch = Watch()

    @property
    def low(self) -> int:
        """The oldest item that somebody may still get, held and returned items left out."""
        return self.head if self.leases.standing is None else self.leases.passed

    @property
    def used(self) -> int:
        """Places of a bounded queue that are taken."""
        low = self.head if self.leases.standing is None else self.leases.passed
        return self.tail - low + self.reservations.places + self.holds.apart

    @property
    def unfinished(self) -> int:
        """Items that were cut and not finished with."""
        return self.tail - self.joins.finished

    @property
    def producers(self) -> int:
        """Members that put."""
        return len(self.members.by_slot) - self.members.consumers

    @property
    def slots(self) -> int:
        """Slots that were ever used."""
        return len(self.members.by_slot) + len(self.members.free)

    def place(self, item: int) -> Place:
        """Where an unclaimed or just claimed item stands."""
        file, record, _ = self.extents.place(item)
        return Place(self.files.known[file], record)

    def each_place(self, first: int, end: int) -> Iterator[tuple[int, int, Place]]:
        """Yield the items ``first`` up to ``end``, unclaimed or just claimed: stretches, and where each begins."""
        for begin, stop, file, record in self.extents.each(first, end):
            yield begin, stop, Place(self.files.known[file], record)

    def stop_of(self, slot: int, alone: bool = False) -> int:
        """The total up to which the slot's producer may put without asking, as things stand.

        ``alone``: it is the only producer, and all free places are its own."""
        filling = self.files.filling.get(slot)
        if alone or not self.maxsize or filling is None or self.ending.shut:
            return self.limit_of(slot)
        return min(filling.stop, self.reserved_to(slot))

    def limit_of(self, slot: int) -> int:
        """Records of the slot's log that can be cut at most, as things stand; more in its counter is no item yet."""
        filling = self.files.filling.get(slot)
        if filling is None or self.ending.shut:
            return self.totals[slot] if slot < len(self.totals) else 0
        if not self.maxsize or self.leases.sole:
            return filling.stop
        return min(filling.stop, self.reserved_to(slot) + max(0, self.maxsize - self.used))

    def reserved_to(self, slot: int) -> int:
        """Records of the slot's log that are cut, or have their reserved place."""
        own, total = self.reservations.by_slot.get(slot), self.totals[slot]
        return max(total, own.stop) if own else total

    def cuts(self, grown: list[tuple[int, int]], marks_of: Callable[[int], list[int]]) -> bytes:
        """The CUTs of all that ``grown`` has found, in the order of time."""
        if len(grown) < 2:
            return events.cut(*grown[0]) if grown else b""
        return b"".join([events.cut(slot, total) for _, slot, total in in_order(grown, self.totals, marks_of)])

    def uncut(self, counters: bytes) -> int:
        """Count the items that are put and not cut, by counters that were read before the events applied here."""
        return sum([total - self.totals[slot] for slot, total in self.grown(counters)])

    def each_uncut(self, counters: bytes, given: dict[int, int]) -> Iterator[tuple[int, int, Place]]:
        """Yield by slot what ``uncut`` counts: the slot, how many items, and where the first of them stands, with the
        others behind it.

        ``given``: by slot, up to which record a lease of all that comes has got."""
        for slot, total in sorted(self.grown(counters)):
            filling = self.files.filling[slot]
            first = max(self.totals[slot], given.get(slot, 0))
            if first < total:
                yield slot, total - first, Place(filling.file, first - filling.first)

    def grown(self, counters: bytes) -> list[tuple[int, int]]:
        """Return slots whose logs are beyond their last cuts, by these counters, and up to where each can be cut."""
        if counters == self.totals.tobytes():
            return []
        found = []
        words = memoryview(counters).cast("Q")
        known, totals = len(words), self.totals
        alone = len(self.files.filling) == 1
        for slot, filling in self.files.filling.items():
            # A counter beyond what the file can hold is damaged, and makes up no items.
            if slot < known and totals[slot] < words[slot] <= filling.stop:
                total = words[slot]
                if self.maxsize or self.ending.shut:
                    # Of several logs, only its producer cuts what is beyond a reservation: else a process that has
                    # counted such a record as put would see another producer's record take its place.
                    total = min(total, self.stop_of(slot, alone))
                if total > totals[slot]:
                    found.append((slot, total))
        return found

    def is_done(self, file: FileId) -> bool:
        """Whether nobody writes to the batch file and nobody can get an item from it any more."""
        if file in self.files.kept or self.files.ends.get(file, 0) > self.low:
            return False
        for slot, member in self.members.by_slot.items():
            if member.number == file.member:
                current = self.files.filling.get(slot)
                return current is not None and current.file.serial > file.serial
        return True

    # -- what no event does

    def trim(self) -> None:
        """Forget where claimed items stand, and find out which batch files are done.

        Changes nothing that a snapshot shows."""
        low = self.low
        self.extents.forget(low)
        while self.files.sealing and self.files.sealing[0][0] <= low:
            end, number = heappop(self.files.sealing)
            self.files.forget(number, end)

    def roll(self, limit: Optional[int] = None) -> None:
        """Go on to the next journal: this one has had all its events.  ``limit``: the one in its snapshot."""
        self.position.base += self.position.limit
        self.position.index = 0
        self.position.limit = limit or self.next_limit
        self.position.sealed = None

    @property
    def next_limit(self) -> int:
        """Events of the next journal that will count, if there is space for so many."""
        return min(2 * self.position.limit, max(self.settings.last_limit, self.settings.first_limit))

    @property
    def wanted_limit(self) -> int:
        """``next_limit``, with room for a claim of each item that waits or comes back."""
        return max(self.next_limit, min(2 * (self.tail - self.low + 2 * self.holds.apart), self.most_limit))

    @property
    def most_limit(self) -> int:
        """The longest ``wanted_limit``."""
        return _CLAIMS * self.settings.last_limit


def in_order(
    grown: list[tuple[int, int]], begins: Sequence[int], marks_of: Callable[[int], list[int]]
) -> list[tuple[int, int, int]]:
    """Return stretches of logs in the order of time: from when on, the slot, the total of its log at the stretch's end.

    ``grown``: slots, and the totals up to which records are put; ``begins``: by slot, the total from which on.  The
    marks of each slot were read after both.  A mark is a record and a time: this record and those behind it were put
    from that time on.  Records before a mark count from the time of the mark before it; without one they count as older
    than all others.  A mark whose record is not behind that of the mark before it is of former times, or just being
    made, and so are all marks after it."""
    stretches = []
    for slot, total in grown:
        marks, last, since = iter(marks_of(slot)), -1, 0
        for record, time in zip(marks, marks):
            if not last < record < total:
                break
            if record > begins[slot]:
                stretches.append((since, slot, record))
            last, since = record, time
        stretches.append((since, slot, total))
    return sorted(stretches)
