"""The rules of a queue: its state, as a pure function of its journal's events.

Lives here: what makes each event valid or void, and what a valid one does; the snapshot that a journal begins with.
Not here: files, waiting, threads, time.  Nothing in this module can block, fail half-way or depend on who runs it.

Invariant: two processes that have applied the same events hold equal ledgers, and so does who loads a snapshot of one
and goes on from there.  A void event changes nothing.  So an append to the journal is the commit point of every act.

========================  ==========================================  ==================================================
event                     valid iff                                   effect
========================  ==========================================  ==================================================
JOIN(role)                a slot is free                              the lowest free slot is the new member's
LEAVE(slot, number)       that very member is in                      out; its reservation dropped, its file sealed;
                                                                      what it holds is returned; its lease stands until
                                                                      revoked
OPEN(slot, serial)        the slot's member is in, and has opened     its former file sealed; the next block goes to the
                          no file of that serial or a later one       start of this one
PUBLISH(slot, n, more,    the slot has a file; not shut down;         res := 0 (``more``: less n); the block's items are
units)                    bounded: n <= res or                        the new tail
                          used - res + n <= maxsize
PUBLISH_LATE(slot, n,     the slot has a file; shut down, but not     the same: they were put before that
units)                    at once; the same bound
CLAIM(slot)               no lease stands, no item is returned, and   the item at the head is the slot's
                          head < tail
CLAIM_MANY(slot, most)    the same                                    the ``most`` items at the head, or all
LEASE(slot, most)         slot is a consumer; no lease stands, or     its former lease is wholly delivered; the ``most``
                          its own; no item is held or returned;       items at the head, or all, are leased to it; where
                          head < tail; bounded: 2 * used <=           2 * used > maxsize: a 64th of maxsize at most
                          maxsize, or maxsize >= 64
REVOKE(count, number)     a lease of that number stands               the lease ends after ``count`` of its items, the
                                                                      others are at the head again
RESERVE(slot, k)          bounded; not shut down; member in;          res := k, uncut
                          res = 0; used + k <= maxsize
TRIM(slot, j, grant)      that reservation stands, uncut, of          res := min(j, k), cut
                          1,023 places at most
HOLD(slot)                slot is a consumer; no lease stands; an     the oldest item that is returned, or else the one
                          item is returned, or head < tail            at the head, is held by the slot's member, under
                                                                      the number of this event; it keeps its place
GOT(number)               that hold stands                            it ends; the item is got, and its place is free
RETURN(number)            that hold stands                            it ends; the item is returned, and keeps its place
                                                                      (shut down at once: it is dropped, and finished)
TASK_DONE()               finished < tail                             finished += 1; one completion more if that is tail
SHUTDOWN(immediate)       not shut down, or only now immediate;       shut down; immediate: waiting and returned items
                          immediate: no lease stands                  are dropped: head := tail, and they are finished
SEAL(key)                 past the journal's limit, and no earlier    the next journal is the one prepared under that
                          one stands there                            key
========================  ==========================================  ==================================================

``used`` = tail - (a lease stands ? its first item : head) + the sum of all res + the items that are held or returned.
While an item is held or returned no lease stands: so nobody delivers others from memory, and overlooks what comes back.
All other events past the journal's limit are void, and so are events of unknown types.  Numbers of members, leases,
grants, holds and items are never used twice; slots are.
"""

from __future__ import annotations

import re
import struct
from binascii import crc32
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from typing import Final, NamedTuple, Optional, Union

from . import events
from .events import (
    CLAIM,
    CLAIM_MANY,
    GOT,
    HOLD,
    JOIN,
    LEASE,
    LEAVE,
    OPEN,
    PUBLISH,
    PUBLISH_LATE,
    RESERVE,
    RETURN,
    REVOKE,
    SEAL,
    SHUTDOWN,
    SIZE,
    TASK_DONE,
    TRIM,
)
from .extents import Block, Extent, Run, is_small
from .names import FileId

__all__ = [
    "OPEN_FOR_ALL",
    "SHUT",
    "SHUT_AT_ONCE",
    "Held",
    "Lease",
    "Ledger",
    "Member",
    "Reservation",
    "Returned",
    "Verdict",
]


class Member(NamedTuple):
    """A process in one of its two roles."""

    number: int
    """The number of its JOIN."""
    consumer: bool


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

    places: int
    grant: int
    cut: bool


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
    block: Block


class Returned(NamedTuple):
    """An item that was held and has come back."""

    item: int
    times: int
    """How often it has come back."""
    block: Block


Verdict = Union[None, int, range, Lease, Reservation, Held]
"""What an event came to: ``None`` where it is void, else

JOIN: the slot.  CLAIM, CLAIM_MANY: the items.  LEASE: the lease.  RESERVE, TRIM: the reservation as it stands now.
REVOKE: how far the lease was delivered.  PUBLISH: the first item.  LEAVE, OPEN: the slot.  SEAL: the key.
HOLD: what is held.  GOT, RETURN: the number of the hold.  TASK_DONE: how many items are unfinished.
SHUTDOWN: ``SHUT`` or ``SHUT_AT_ONCE``."""

OPEN_FOR_ALL: Final = 0
SHUT: Final = 1
"""Nothing is put any more, what waits can be got."""
SHUT_AT_ONCE: Final = 2
"""And nothing waits any more."""

FIRST_LIMIT: Final = 448
"""Events of a queue's first journal: with its snapshot one page of 4 KB, so that a thousand queues cost 4 MB."""
LAST_LIMIT: Final = 1 << 16
"""Events of a journal in a queue that has been busy: half a megabyte.  From the one it doubles to the other."""

NEAR_BOUND: Final = 64
"""A lease of a queue that is more than half full takes this part of its places at most."""

RUN_AHEAD: Final = 256
"""Items that wait before those that are told of as a run: whoever takes one of these is far from its end."""
SMALL_FROM: Final = 4
"""So many PUBLISHes of small blocks are worth applying together."""
RUN_BLOCKS: Final = 256
"""Blocks of a run, at most: of each item one must look up where it stands, and a byte tells in which of its files."""

_MAGIC: Final = 0x3830_6D69_6873_7174
"""``tqshim08`` read as a little-endian number; the last two characters are the version of these rules."""
_DURABLE: Final = 24
_PROOF: Final = struct.Struct("<4Q")
_HEAD: Final = 29
"""Where in a snapshot the word is that says whether the queue is durable, before the proof of its key; what those are
long that every snapshot has."""
_MEMBER: Final = 14
"""Words of a member."""
_EXTENT: Final = struct.Struct("<6Q")
"""A block: first, end, member and serial of its file, offset in units, units.  A run: first, end, blocks, files, units,
and the bytes of its tables, which stand at the end, in the order of the runs, with this mark."""
_IS_RUN: Final = 1 << 63
_SEALED: Final = 3
"""Words of a batch file that is sealed."""
_HELD: Final = 11
"""Words of a held item."""
_RETURNED: Final = 8
"""Words of a returned item."""
_OTHER: Final = re.compile(rb"[^\x01]", re.DOTALL)
"""The type of an event that is no CLAIM."""
_SMALL: Final = re.compile(rb"(?:\x05.\x00[^\x00]\x00[^\x00]\x00\x00)+", re.DOTALL)
"""PUBLISHes of small blocks by members of the lowest slots, without ``more``."""
_PLAIN: Final = b"\x01"
_new: Final[Callable[..., Block]] = tuple.__new__
"""A block costs half as much that way, and there is one a put."""


class Ledger:
    """The state of one queue.

    ``apply`` takes events that others wrote, ``step`` takes one and returns what it came to.  ``done`` and ``yours``
    are notes for the engine and no part of the state."""

    __slots__ = (
        "_filled",
        "_kept_files",
        "_run_bytes",
        "_sealed",
        "apart",
        "base",
        "blocks",
        "completions",
        "consumers",
        "done",
        "durable",
        "files",
        "finished",
        "first_limit",
        "free",
        "grants",
        "head",
        "held",
        "index",
        "kept",
        "last_limit",
        "lease",
        "leases",
        "limit",
        "maxsize",
        "members",
        "plain",
        "proof",
        "redelivered",
        "res",
        "reserved",
        "returned",
        "sealed",
        "sealing",
        "shut",
        "tail",
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
        self.blocks: deque[Extent] = deque()
        """Blocks, or runs of them, with items that somebody may still get, oldest first (and older ones until the next
        ``trim``)."""
        self._run_bytes = 0
        """Of the tables of runs, but for the last of ``blocks``, in a snapshot."""
        self.members: dict[int, Member] = {}
        self.consumers = 0
        """Members that are consumers."""
        self.free: list[int] = []
        """Slots below the highest ever used that are free, in no order."""
        self.files: dict[int, tuple[FileId, int]] = {}
        """By slot: the batch file that its member fills, and how many units it has."""
        self._filled: dict[FileId, int] = {}
        """Those files, and the end of the items of each: 0, if it has none."""
        self._sealed: dict[FileId, int] = {}
        """Batch files that nobody fills any more, with items that somebody may still get (and older ones until the next
        ``trim``): the end of those of each."""
        self.sealing: list[tuple[int, FileId]] = []
        """The same as a heap, by these ends."""
        self.plain = True
        """No lease stands and no item is returned: a CLAIM takes the item at the head."""
        self.held: dict[int, Held] = {}
        """By number, and so in their order."""
        self.returned: list[Returned] = []
        """Oldest item first."""
        self.apart = 0
        """Items that are held or returned: each keeps its place."""
        self._kept_files: dict[FileId, int] = {}
        """How many of those lie in a batch file."""
        self.redelivered = 0
        """How often an item that had come back was held again."""
        self.lease: Optional[Lease] = None
        self.leases = 0
        self.kept: dict[int, tuple[int, int]] = {}
        """By slot: its member's last lease that was revoked, by number, and the item at which it ended."""
        self.res: dict[int, Reservation] = {}
        self.reserved = 0
        self.grants = 0
        self.finished = 0
        """Items that somebody has finished with: any, for nobody says which."""
        self.completions = 0
        """How often all the items that there were had been finished with."""
        self.shut = OPEN_FOR_ALL
        self.done: list[tuple[FileId, int]] = []
        """Sealed batch files that nobody needs any more, and the end of their items, or a later one; the engine empties
        this list."""
        self.watched: Optional[int] = None
        """A slot whose claims are noted in ``yours``: its own process lost sight of one."""
        self.yours: list[tuple[int, int, Block]] = []
        """Items that the watched slot claimed: the number of its event, the item, its block."""

    # -- what the state says

    @property
    def low(self) -> int:
        """The oldest item that somebody may still get, but for those that are held or returned."""
        return self.head if self.lease is None else self.lease.first

    @property
    def used(self) -> int:
        """Places of a bounded queue that are taken."""
        return self.tail - self.low + self.reserved + self.apart

    @property
    def unfinished(self) -> int:
        """Items that were put and not finished with."""
        return self.tail - self.finished

    def words_after(self, blocks: int) -> int:
        """About so many words its snapshot will have when so many more blocks wait."""
        rows = _MEMBER * len(self.members) + 6 * (len(self.blocks) + blocks) + _SEALED * len(self._sealed)
        last = self.blocks[-1] if self.blocks else None
        files = max(len(self.files), last.files if isinstance(last, Run) else 0)
        return _HEAD + rows + (self._run_bytes + Run.size(RUN_BLOCKS + 1, RUN_BLOCKS, files)) // SIZE

    @property
    def full(self) -> bool:
        """This journal has had all the events that count."""
        return self.index >= self.limit

    def block(self, item: int) -> Block:
        """The block in which an unclaimed or just claimed item stands."""
        for block in self.blocks:
            if block.first <= item < block.end:
                return block.block(item) if isinstance(block, Run) else block
        raise LookupError(f"item {item} is not in the ledger, whose oldest is {self.low}")

    def parts(self, first: int, end: int) -> list[Block]:
        """The blocks in which the unclaimed or just claimed items ``first`` up to ``end`` stand, in order."""
        return list(self.each_part(first, end))

    def each_part(self, first: int, end: int) -> Iterator[Block]:
        """``parts``, one by one, while no event is applied."""
        for block in self.blocks:
            if block.end <= first:
                continue
            if block.first >= end or first >= end:
                break
            if isinstance(block, Run):
                yield from block.each(first, end)
            else:
                yield block

    def units_from(self, first: int) -> int:
        """Units of the blocks in which that item and all behind it stand."""
        total = 0
        for block in self.blocks:
            if block.end > first:
                total += block.units
                if isinstance(block, Run) and block.first < first:
                    total -= block.units_before(first)
        return total

    def is_done(self, file: FileId) -> bool:
        """Nobody writes to the batch file and nobody can get an item from it any more."""
        if file in self._kept_files or self._sealed.get(file, 0) > self.low:
            return False
        for slot, member in self.members.items():
            if member.number == file.member:
                current = self.files.get(slot)
                return current is not None and current[0].serial > file.serial
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
                other = _OTHER.search(types, at, last)
                place = other.start() if other else last
                if place > at:
                    self._claims(place - at)
                at = place
                if other:
                    small = self._publish_small(chunk, at, last) if types[at] == PUBLISH else 0
                    if not small:
                        self.step(_WORD.unpack_from(chunk, at * SIZE)[0])
                    at += small or 1
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
        if kind == PUBLISH:
            return None if self.shut else self._publish(slot, rest & 0x7FFF, bool(rest & 0x8000), rest >> 16)
        if kind == CLAIM_MANY:
            return self._claim(slot, rest)
        if kind == LEASE:
            return self._lease(slot, rest)
        if kind == REVOKE:
            return self._revoke(slot, rest)
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
        if kind == OPEN:
            return self._open(slot, rest)
        if kind == JOIN:
            return self._join(self.base + index, bool(rest & 1))
        if kind == LEAVE:
            return self._leave(slot, rest)
        if kind == TASK_DONE:
            return self._task_done()
        if kind == SHUTDOWN:
            return self._shutdown(SHUT_AT_ONCE if rest & 1 else SHUT)
        if kind == PUBLISH_LATE:
            return self._publish(slot, rest & 0x7FFF, False, rest >> 16) if self.shut == SHUT else None
        return None

    def _claim(self, slot: int, most: int) -> Optional[range]:
        if not self.plain or self.head >= self.tail:
            return None
        items = range(self.head, min(self.head + most, self.tail))
        self.head = items.stop
        if slot == self.watched:
            self.yours += [(self.base + self.index - 1, item, self.block(item)) for item in items]
        return items

    def _publish(self, slot: int, count: int, more: bool, units: int) -> Optional[int]:
        current = self.files.get(slot)
        if current is None:
            return None
        if self.maxsize:
            own = self.res.get(slot)
            held = own.places if own else 0
            if count > held and self.used - held + count > self.maxsize:
                return None
            if own:
                if more and held > count:
                    self.res[slot] = own._replace(places=held - count)
                    self.reserved -= count
                else:
                    del self.res[slot]
                    self.reserved -= held
        first = self.tail
        if count:
            file, offset = current
            self.tail = end = first + count
            blocks = self.blocks
            if not blocks or not self._joins_run(blocks[-1], file, offset, count, units):
                blocks.append(_new(Block, (first, end, file, offset, units)))
            self._filled[file] = end
            self.files[slot] = file, offset + units
            if blocks[0].end <= self.head:
                self.trim()
        return first

    def _joins_run(self, last: Extent, file: FileId, offset: int, count: int, units: int) -> bool:
        """A block was published: tell of it together with those before it, if all are small and behind many others."""
        joins = is_small(count, units) and last.first - self.low >= RUN_AHEAD
        if isinstance(last, Run):
            if not joins or last.blocks >= RUN_BLOCKS:
                last.close()
                self._run_bytes += len(last.packed)
                return False
            last.append(file, offset, count, units)
            return True
        if not joins or not is_small(last.end - last.first, last.units):
            return False
        run = self.blocks[-1] = Run.of(last)
        run.append(file, offset, count, units)
        return True

    def _publish_small(self, chunk: bytes, at: int, last: int) -> int:
        """Apply PUBLISHes of small blocks that stand one after another from event ``at`` on, up to where the last run
        is full: together, where all of them are valid.  Returns how many; 0: that is no such event, or there is no run.
        """
        run = self.blocks[-1] if self.blocks else None
        if not isinstance(run, Run) or run.first - self.low < RUN_AHEAD:
            return 0
        found = _SMALL.match(chunk, at * SIZE, SIZE * min(last, at + RUN_BLOCKS - run.blocks))
        if not found:
            return 0
        small = found[0]
        slots, counts, sizes = small[1::SIZE], small[3::SIZE], small[5::SIZE]
        mine = dict.fromkeys(slots)  # in the order in which a run numbers their files
        if (
            len(sizes) < SMALL_FROM
            or self.shut
            or self.res
            or (self.maxsize and self.used + sum(counts) > self.maxsize)
            or not self.files.keys() >= mine.keys()
        ):
            for (event,) in _WORD.iter_unpack(small):
                self.step(event)
            return len(sizes)
        numbers = bytearray(256)
        for slot in mine:
            numbers[slot] = run.number(*self.files[slot])
        run.extend(slots.translate(numbers), counts, sizes)
        each = zip(slots, counts, sizes) if len(mine) > 1 else [(slots[0], sum(counts), sum(sizes))]
        for slot, count, units in each:
            file, offset = self.files[slot]
            self.files[slot] = file, offset + units
            self.tail += count
            self._filled[file] = self.tail
        self.index += len(sizes)
        return len(sizes)

    def _lease(self, slot: int, most: int) -> Optional[Lease]:
        old = self.lease
        member = self.members.get(slot)
        if member is None or not member.consumer:
            return None
        if self.head >= self.tail or self.apart or (old is not None and old.member != member.number):
            return None
        # Its former lease is wholly delivered, so those items take no places any more.
        if self.maxsize and 2 * (self.tail - self.head + self.reserved) > self.maxsize:
            # Places of delivered items are not free before the lease ends: near the bound it must end soon.
            most = min(most, self.maxsize // NEAR_BOUND)
            if not most:
                return None
        self.leases += 1
        end = min(self.head + min(most, events.LEASE_MOST), self.tail)
        self.lease = Lease(slot, self.head, end, self.leases, member.number)
        self.plain = False
        self.head = end
        return self.lease

    def _revoke(self, count: int, number: int) -> Optional[int]:
        lease = self.lease
        if lease is None or lease.number != number:
            return None
        self.head = min(lease.first + count, lease.end)
        self.lease = None
        self.plain = True
        holder = self.members.get(lease.slot)
        if holder is not None and holder.number == lease.member:
            self.kept[lease.slot] = number, self.head
        return self.head

    def _reserve(self, slot: int, places: int) -> Optional[Reservation]:
        if not self.maxsize or slot not in self.members or slot in self.res or self.used + places > self.maxsize:
            return None
        if self.shut:
            return None
        self.grants += 1
        self.res[slot] = Reservation(places, self.grants % events.GRANT_LIMIT, False)
        self.reserved += places
        return self.res[slot]

    def _trim(self, slot: int, kept: int, grant: int) -> Optional[Reservation]:
        own = self.res.get(slot)
        if own is None or own.cut or own.grant != grant or own.places > events.RESERVE_MOST:
            return None
        self.res[slot] = Reservation(min(kept, own.places), grant, True)
        self.reserved -= own.places - self.res[slot].places
        return self.res[slot]

    def _open(self, slot: int, serial: int) -> Optional[int]:
        member = self.members.get(slot)
        if member is None or (slot in self.files and self.files[slot][0].serial >= serial):
            return None
        self._seal(slot)
        file = FileId(member.number, serial)
        self.files[slot] = file, 0
        self._filled[file] = 0
        return slot

    def _join(self, number: int, consumer: bool) -> Optional[int]:
        if self.free:
            slot = min(self.free)
            self.free.remove(slot)
        elif len(self.members) < events.SLOTS:
            slot = len(self.members)
        else:
            return None
        self.members[slot] = Member(number, consumer)
        self.consumers += consumer
        return slot

    def _leave(self, slot: int, number: int) -> Optional[int]:
        member = self.members.get(slot)
        if member is None or member.number != number:
            return None
        del self.members[slot]
        self.consumers -= member.consumer
        self.free.append(slot)
        self.kept.pop(slot, None)
        own = self.res.pop(slot, None)
        if own:
            self.reserved -= own.places
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
            item, times, block = self.returned.pop(0)
            self.plain = not self.returned
            self.redelivered += 1
        elif self.head < self.tail:
            self.trim()
            item, times, block = self.head, 0, self.block(self.head)
            self.head += 1
            self.apart += 1
            self._kept_files[block.file] = self._kept_files.get(block.file, 0) + 1
        else:
            return None
        held = self.held[number] = Held(number, slot, member.number, item, times, block)
        return held

    def _got(self, number: int) -> Optional[int]:
        held = self.held.pop(number, None)
        if held is None:
            return None
        self._let_go(held.block.file)
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
            self._let_go(held.block.file)
            self._finish(min(1, self.unfinished))
        else:
            insort(self.returned, Returned(held.item, held.times + 1, held.block))
            self.plain = False

    def _let_go(self, file: FileId) -> None:
        """An item there is held or returned no more."""
        self.apart -= 1
        left = self._kept_files[file] - 1
        if left:
            self._kept_files[file] = left
            return
        del self._kept_files[file]
        if file not in self._sealed and file not in self._filled:
            self.done.append((file, self.low))

    def _task_done(self) -> Optional[int]:
        if self.finished >= self.tail:
            return None
        self._finish(1)
        return self.unfinished

    def _finish(self, count: int) -> None:
        self.finished += count
        self.completions += bool(count) and self.finished == self.tail

    def _shutdown(self, how: int) -> Optional[int]:
        if self.shut >= how or (how == SHUT_AT_ONCE and self.lease is not None):
            return None
        self.shut = how
        if how == SHUT_AT_ONCE:
            self._finish(min(self.tail - self.head + len(self.returned), self.unfinished))
            self.head = self.tail
            returned, self.returned, self.plain = self.returned, [], True
            for _, _, block in returned:
                self._let_go(block.file)
        return how

    def _seal(self, slot: int) -> None:
        former = self.files.pop(slot, None)
        if former is None:
            return
        file = former[0]
        end = self._filled.pop(file)
        if end > self.low:
            self._sealed[file] = end
            heappush(self.sealing, (end, file))
        elif file not in self._kept_files:
            self.done.append((file, end))

    def trim(self) -> None:
        """Forget blocks all of whose items have been claimed, and see which batch files are done.  Changes nothing that
        a snapshot shows."""
        low = self.low
        blocks = self.blocks
        while blocks and blocks[0].end <= low:
            block = blocks.popleft()
            if blocks and isinstance(block, Run):
                self._run_bytes -= len(block.packed)
        while self.sealing and self.sealing[0][0] <= low:
            end, file = heappop(self.sealing)
            del self._sealed[file]
            if file not in self._kept_files:
                self.done.append((file, end))

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

    def snapshot(self, rolled: bool = False, limit: Optional[int] = None) -> bytes:
        """This state as bytes, the same whoever writes them; ``rolled``: as the next journal begins, with that limit.

        A multiple of 8 bytes long, whatever the limit."""
        self.trim()
        lease = self.lease
        blocks = self.blocks
        rows = []
        tables = []
        for block in blocks:
            if isinstance(block, Run):
                tables.append(block.packed)
                mark = _IS_RUN + len(tables[-1])
                rows.append(_EXTENT.pack(block.first, block.end, block.blocks, block.files, block.units, mark))
            else:
                rows.append(_EXTENT.pack(*_row(block)))
        size_of_tables = sum(map(len, tables))
        head = (
            self.maxsize,
            self.first_limit,
            self.last_limit,
            self.base + self.limit if rolled else self.base,
            0 if rolled else self.index,
            (limit or self.next_limit) if rolled else self.limit,
            self.head,
            self.tail,
            self.leases,
            self.grants,
            1 if lease else 0,
            len(self.members) + len(self.free),
            len(self.members),
            len(blocks),
            self.finished,
            self.completions,
            self.shut,
            len(self.held),
            len(self.returned),
            self.redelivered,
            size_of_tables // SIZE,
            len(self._sealed),
            self.durable,
            *_PROOF.unpack(self.proof or bytes(_PROOF.size)),
        )
        front = [*map(int, head), *(lease or (0, 0, 0, 0, 0))]
        for slot in sorted(self.members):
            kept = self.kept.get(slot, (0, 0))
            front += (slot, *self.members[slot], *self._file(slot), *self._reservation(slot), *kept)
        back: list[int] = []
        for end, file in sorted(self.sealing):
            back += (end, *file)
        for number, slot, holder, item, times, block in self.held.values():
            back += (number, slot, holder, item, times, *_row(block))
        for item, times, block in self.returned:
            back += (item, times, *_row(block))
        size = 3 + len(front) + len(rows) * _EXTENT.size // SIZE + len(back) + size_of_tables // SIZE
        data = b"".join([_words(_MAGIC, size, *front), *rows, _words(*back), *tables])
        return data + _WORD.pack(crc32(data))

    def _file(self, slot: int) -> tuple[int, int, int, int, int]:
        current = self.files.get(slot)
        return (1, *current[0], current[1], self._filled[current[0]]) if current else (0, 0, 0, 0, 0)

    def _reservation(self, slot: int) -> tuple[int, int, int, int]:
        own = self.res.get(slot)
        return (1, *own) if own else (0, 0, 0, 0)

    @staticmethod
    def snapshot_size(head: bytes) -> int:
        """Bytes of the snapshot that begins so.  Raises ``ValueError`` for anything that is no snapshot."""
        if len(head) < 16:
            raise ValueError(f"a journal of {len(head)} bytes is too short")
        magic, words = struct.unpack_from("<2Q", head)
        if magic != _MAGIC:
            raise ValueError(f"a journal begins with {head[:8]!r}, which no known version writes")
        return int(words) * SIZE

    @staticmethod
    def check(snapshot: bytes) -> None:
        """Raise ``ValueError`` for a snapshot that is not as it was written."""
        body = memoryview(snapshot)[:-SIZE]  # it may be long
        if len(snapshot) < (_HEAD + 6) * SIZE or crc32(body) != _WORD.unpack(snapshot[-SIZE:])[0]:
            raise ValueError(f"a snapshot of {len(snapshot)} bytes fails its check")

    @staticmethod
    def snapshot_limit(head: bytes) -> int:
        """The limit of the journal whose snapshot begins so."""
        return int(struct.unpack_from("<8Q", head)[7])

    @staticmethod
    def snapshot_kind(head: bytes) -> tuple[bool, bytes]:
        """Whether the queue is durable whose snapshot begins so, and the proof of its key, if it has one."""
        durable, *proof = struct.unpack_from("<5Q", head, _DURABLE * SIZE)
        return bool(durable), _PROOF.pack(*proof) if any(proof) else b""

    @classmethod
    def load(cls, data: bytes) -> Ledger:
        """The ledger that a snapshot shows.  Raises ``ValueError`` for bytes that are no snapshot."""
        if cls.snapshot_size(data) > len(data) or len(data) < (_HEAD + 5) * SIZE:
            raise ValueError(f"a snapshot of {len(data)} bytes is cut short")
        words = struct.unpack_from(f"<{_HEAD + 5}Q", data)
        ledger = cls(words[2], words[3], words[4], *cls.snapshot_kind(data))
        ledger.base, ledger.index, ledger.limit, ledger.head, ledger.tail, ledger.leases = words[5:11]
        ledger.grants = words[11]
        slots, members, blocks = words[13:16]
        ledger.finished, ledger.completions, ledger.shut, held, returned = words[16:21]
        ledger.redelivered, tables, sealed = words[21:_DURABLE]
        if words[12]:
            ledger.lease = Lease(*words[_HEAD : _HEAD + 5])
        ledger.plain = not words[12] and not returned
        at = _HEAD + 5
        rows = _MEMBER * members + 6 * blocks + _SEALED * sealed + _HELD * held + _RETURNED * returned
        if words[1] != at + rows + tables + 1 or not members <= slots <= events.SLOTS:
            raise ValueError(
                f"a snapshot of {members} members, {slots} slots, {blocks} blocks, {sealed} sealed files, {held} held "
                f"and {returned} returned items can't have {words[1]} words"
            )
        for row in range(at, at + _MEMBER * members, _MEMBER):
            slot, number, consumer, has_file, file, serial, offset, last, has_res, places, grant, cut, lease, base = (
                struct.unpack_from(f"<{_MEMBER}Q", data, row * SIZE)
            )
            if slot >= slots:
                raise ValueError(f"slot {slot} of a snapshot with {slots} slots")
            ledger.members[slot] = Member(number, bool(consumer))
            ledger.consumers += bool(consumer)
            if has_file:
                ledger.files[slot] = FileId(file, serial), offset
                ledger._filled[FileId(file, serial)] = last
            if has_res:
                ledger.res[slot] = Reservation(places, grant, bool(cut))
                ledger.reserved += places
            if lease:
                ledger.kept[slot] = lease, base
        ledger.free = [slot for slot in range(slots) if slot not in ledger.members]
        at += _MEMBER * members
        stop = at + 6 * blocks
        check = (words[1] - 1) * SIZE
        ledger._load_blocks(data[at * SIZE : stop * SIZE], data, check - tables * SIZE, check)
        words = struct.unpack_from(f"<{_SEALED * sealed + _HELD * held + _RETURNED * returned}Q", data, stop * SIZE)
        for row in range(0, _SEALED * sealed, _SEALED):
            end, file, serial = words[row : row + _SEALED]
            ledger._sealed[FileId(file, serial)] = end
            ledger.sealing.append((end, FileId(file, serial)))
        at = _SEALED * sealed
        for row in range(at, at + _HELD * held, _HELD):
            number, slot, holder, item, times = words[row : row + 5]
            ledger.held[number] = Held(number, slot, holder, item, times, _block(words[row + 5 : row + _HELD]))
        at += _HELD * held
        for row in range(at, at + _RETURNED * returned, _RETURNED):
            item, times = words[row : row + 2]
            ledger.returned.append(Returned(item, times, _block(words[row + 2 : row + _RETURNED])))
        ledger.apart = held + returned
        for block in (*(one.block for one in ledger.held.values()), *(one.block for one in ledger.returned)):
            ledger._kept_files[block.file] = ledger._kept_files.get(block.file, 0) + 1
        return ledger

    def _load_blocks(self, rows: bytes, data: bytes, place: int, stop: int) -> None:
        """Take on what waits: the tables of its runs stand from byte ``place`` up to ``stop``."""
        begin = place
        known = -1, 0, 0, 0
        for first, end, third, fourth, fifth, sixth in _EXTENT.iter_unpack(rows):
            if sixth < _IS_RUN:
                self.blocks.append(Block(first, end, FileId(third, fourth), fifth, sixth))
                continue
            shape = end - first, third, fourth, sixth
            if shape != known:  # most are alike, and there may be very many
                if not third or sixth != _IS_RUN + Run.size(*shape[:3]):
                    raise ValueError(f"a run of {third} blocks with {end - first} items in {fourth} files is damaged")
                known = shape
            self.blocks.append(Run(first, end, third, fourth, fifth, data, place))
            place += sixth - _IS_RUN
        if place != stop:
            raise ValueError(f"the runs of a snapshot end at byte {place} instead of {stop}")
        self._run_bytes = place - begin
        if self.blocks and isinstance(self.blocks[-1], Run):
            self._run_bytes -= len(self.blocks[-1].packed)


def _words(*words: int) -> bytes:
    return struct.pack(f"<{len(words)}Q", *words)


def _row(block: Block) -> tuple[int, int, int, int, int, int]:
    """As words of a snapshot."""
    return block.first, block.end, *block.file, block.offset, block.units


def _block(words: tuple[int, ...]) -> Block:
    first, end, member, serial, offset, units = words
    return Block(first, end, FileId(member, serial), offset, units)


_WORD: Final = struct.Struct("<Q")
