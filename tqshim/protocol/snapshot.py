"""The form in which a ledger stands at the beginning of each journal.

Lives here: a ledger's bytes, and the ledger that bytes show.  Not here: the rules (``ledger``), the file (``storage``).

::

    magic and version | words in all | the state's numbers | members | totals | sealed files | held | returned
    | given | extents | CRC-32 of all that

All of it in 8-byte words, most of them little-endian numbers.

Invariant: equal ledgers have equal snapshots, whatever each of them has forgotten by then, but for which extents of a
long backlog are packed; ``load`` undoes ``dump``, and raises ``ValueError`` for bytes that are no snapshot.
"""

from __future__ import annotations

import struct
from array import array

from tqshim.protocol import events
from tqshim.protocol.events import SIZE
from tqshim.protocol.extents import CHUNK, Extents
from tqshim.protocol.index import crc32
from tqshim.protocol.ledger import Ledger
from tqshim.protocol.names import FileId
from tqshim.protocol.records import Filling, Held, Lease, Member, Place, Reservation, Returned
from tqshim.protocol.state import PAGE_SLOTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Optional

__all__ = ["check", "dump", "is_former", "kind", "limit_of", "load", "size_of", "words_after"]

_FORMAT: Final = 15
MAGIC: Final = int.from_bytes(b"tqshim%d" % _FORMAT, "little")
"""The last two characters are the version of these rules."""
_FORMER: Final = {b"tqshim0": "0.1", b"tqshim10": "0.2", b"tqshim11": "0.2"}
"""How journals of former formats begin, and the version that reads them."""
_PROOF: Final = struct.Struct("<4Q")
_DURABLE: Final = 27
"""The index of the word that says whether the queue is durable; the proof of its key follows."""
_HEAD: Final = _DURABLE + 1 + 4 + 4
"""Words that every snapshot has before its lease."""
_LEASE: Final = 5
_MEMBER: Final = 16
"""Words of a member."""
_SEALED: Final = 4
"""Words of a sealed batch file."""
_HELD: Final = 8
_RETURNED: Final = 5
_GIVEN: Final = 2
_WORD: Final = struct.Struct("<Q")


def dump(ledger: Ledger, rolled: bool = False, limit: Optional[int] = None) -> bytes:
    """The ledger as bytes; ``rolled``: as the next journal begins, with that limit.

    A multiple of 8 bytes long, whatever the limit."""
    ledger.trim()
    extents = ledger.extents.dump()
    lease = ledger.leases.standing
    slots = ledger.slots
    head = (
        ledger.maxsize,
        ledger.settings.first_limit,
        ledger.settings.last_limit,
        ledger.position.base + ledger.position.limit if rolled else ledger.position.base,
        0 if rolled else ledger.position.index,
        (limit or ledger.next_limit) if rolled else ledger.position.limit,
        ledger.head,
        ledger.tail,
        ledger.leases.made,
        ledger.reservations.made,
        1 if lease else 0,
        slots,
        len(ledger.members.by_slot),
        ledger.files.opened,
        ledger.joins.finished,
        ledger.joins.completions,
        ledger.ending.shutting,
        ledger.ending.shut,
        len(ledger.holds.held),
        len(ledger.holds.returned),
        ledger.holds.redelivered,
        len(ledger.files.sealing),
        ledger.extents.first if len(ledger.extents) else ledger.low,
        len(extents) // SIZE,
        ledger.leases.passed,
        ledger.settings.durable,
        *_PROOF.unpack(ledger.settings.proof or bytes(_PROOF.size)),
        ledger.leases.sole,
        ledger.leases.given_of,
        len(ledger.leases.given),
        ledger.extents.chunks,
    )
    words = [*map(int, head), *(lease or (0,) * _LEASE)]
    for slot in sorted(ledger.members.by_slot):
        words += (slot, *ledger.members.by_slot[slot], *_file(ledger, slot), *_reservation(ledger, slot))
        words += ledger.leases.ended.get(slot, (0, 0))
    words += ledger.totals[:slots]
    for end, number in sorted(ledger.files.sealing):
        words += (end, number, *ledger.files.known[number])
    for number, slot, holder, item, times, place in ledger.holds.held.values():
        words += (number, slot, holder, item, times, *place.file, place.record)
    for item, times, place in ledger.holds.returned:
        words += (item, times, *place.file, place.record)
    for given in sorted(ledger.leases.given.items()):
        words += given
    size = 3 + len(words) + len(extents) // SIZE
    data = struct.pack(f"<{2 + len(words)}Q", MAGIC, size, *words) + extents
    return data + _WORD.pack(crc32(data))


def _file(ledger: Ledger, slot: int) -> tuple[int, int, int, int, int, int]:
    filling = ledger.files.filling.get(slot)
    if filling is None:
        return 0, 0, 0, 0, 0, 0
    return 1, *filling.file, filling.number, filling.first, ledger.files.ends[filling.file]


def _reservation(ledger: Ledger, slot: int) -> tuple[int, int, int, int, int]:
    own = ledger.reservations.by_slot.get(slot)
    return (1, *own) if own else (0, 0, 0, 0, 0)


def is_former(head: bytes) -> bool:
    """Whether a journal that begins so is of a former format."""
    return head.startswith(tuple(_FORMER))


def size_of(head: bytes) -> int:
    """Bytes of the snapshot that begins so.  Raises ``ValueError`` for anything that is no snapshot."""
    if len(head) < 2 * SIZE:
        raise ValueError(f"a journal of {len(head)} bytes is too short")
    magic, words = struct.unpack_from("<2Q", head)
    for begin, version in _FORMER.items():
        if head.startswith(begin):
            raise ValueError(
                f"a journal of format {head[6:8].decode('ascii', 'replace')}, an earlier version's; this version reads "
                f"format {_FORMAT}: python -m tqshim recover --into, of tqshim {version}, copies what waits to a new "
                "folder for both"
            )
    if magic != MAGIC:
        raise ValueError(f"a journal begins with {head[:8]!r}, which no known version writes")
    return int(words) * SIZE


def check(snapshot: bytes) -> None:
    """Raise ``ValueError`` for a snapshot that is not as it was written."""
    body = memoryview(snapshot)[:-SIZE]  # it may be long
    if len(snapshot) < (_HEAD + _LEASE + 1) * SIZE or crc32(body) != _WORD.unpack(snapshot[-SIZE:])[0]:
        raise ValueError(f"a snapshot of {len(snapshot)} bytes fails its check")


def limit_of(head: bytes) -> int:
    """The limit of the journal whose snapshot begins so."""
    return int(struct.unpack_from("<8Q", head)[7])


def kind(head: bytes) -> tuple[bool, bytes]:
    """Whether the queue whose snapshot begins so is durable, and the proof of its key, if it has one."""
    durable, *proof = struct.unpack_from("<5Q", head, _DURABLE * SIZE)
    return bool(durable), _PROOF.pack(*proof) if any(proof) else b""


def words_after(ledger: Ledger, extents: int) -> int:
    """Estimate how many words a ledger's snapshot will have with so many more extents, half of which begin with a batch
    file."""
    rows = _MEMBER * len(ledger.members.by_slot) + ledger.slots
    rows += _SEALED * (len(ledger.files.sealing) + len(ledger.files.filling))
    to_come = 2 * extents + _SEALED * extents // 2
    others = 2 * CHUNK if ledger.extents.chunks else 0  # the roller may have forgotten less, and packed fewer
    rows += _HELD * ledger.holds.apart + _GIVEN * len(ledger.leases.given) + others
    return _HEAD + _LEASE + rows + ledger.extents.words + to_come


def load(data: bytes) -> Ledger:
    """The ledger that a snapshot shows.  Raises ``ValueError`` for bytes that are no snapshot."""
    if size_of(data) > len(data) or len(data) < (_HEAD + _LEASE + 1) * SIZE:
        raise ValueError(f"a snapshot of {len(data)} bytes is cut short")
    words = struct.unpack_from(f"<{_HEAD + _LEASE}Q", data)
    ledger = Ledger(words[2], words[3], words[4], *kind(data))
    position, leases, joins = ledger.position, ledger.leases, ledger.joins
    position.base, position.index, position.limit, ledger.head, ledger.tail, leases.made = words[5:11]
    ledger.reservations.made, has_lease, slots, members = words[11:15]
    ledger.files.opened, joins.finished, joins.completions, ledger.ending.shutting, ledger.ending.shut = words[15:20]
    held, returned, ledger.holds.redelivered, sealed, first, extents, leases.passed = words[20:27]
    sole, leases.given_of, given, chunks = words[_HEAD - 4 : _HEAD]
    leases.sole = bool(sole)
    if has_lease:
        leases.standing = Lease(*words[_HEAD : _HEAD + _LEASE])
    leases.plain = not has_lease and not returned
    at = _HEAD + _LEASE
    rows = _MEMBER * members + slots + _SEALED * sealed + _HELD * held + _RETURNED * returned
    rows += _GIVEN * given
    if words[1] != at + rows + extents + 1 or not members <= slots <= events.SLOTS:
        raise ValueError(
            f"a snapshot of {members} members, {slots} slots, {sealed} sealed files, {held} held and {returned} "
            f"returned items, and {extents} words of extents can't have {words[1]} words"
        )
    table = struct.unpack_from(f"<{rows}Q", data, at * SIZE)
    at = _load_members(ledger, table, members, slots)
    totals = table[at : at + slots]
    ledger.totals = array("Q", totals)
    ledger.totals.frombytes(bytes(SIZE * (max(1, -(-slots // PAGE_SLOTS)) * PAGE_SLOTS - slots)))
    at += slots
    for row in range(at, at + _SEALED * sealed, _SEALED):
        end, number, member, serial = table[row : row + _SEALED]
        file = ledger.files.known[number] = FileId(member, serial)
        ledger.files.ends[file] = end
        ledger.files.sealing.append((end, number))
    at += _SEALED * sealed
    for row in range(at, at + _HELD * held, _HELD):
        number, slot, holder, item, times, member, serial, record = table[row : row + _HELD]
        ledger.holds.held[number] = Held(number, slot, holder, item, times, Place(FileId(member, serial), record))
    at += _HELD * held
    for row in range(at, at + _RETURNED * returned, _RETURNED):
        item, times, member, serial, record = table[row : row + _RETURNED]
        ledger.holds.returned.append(Returned(item, times, Place(FileId(member, serial), record)))
    at += _RETURNED * returned
    rows = at + _GIVEN * given
    leases.given = dict(zip(table[at:rows:_GIVEN], table[at + 1 : rows : _GIVEN]))
    ledger.holds.apart = held + returned
    for place in (*(one.place for one in ledger.holds.held.values()), *(one.place for one in ledger.holds.returned)):
        ledger.files.kept[place.file] = ledger.files.kept.get(place.file, 0) + 1
    stop = (words[1] - 1) * SIZE
    ledger.extents = Extents.load(first, data[stop - extents * SIZE : stop], chunks)
    return ledger


def _load_members(ledger: Ledger, table: tuple[int, ...], members: int, slots: int) -> int:
    totals = table[_MEMBER * members : _MEMBER * members + slots]
    for row in range(0, _MEMBER * members, _MEMBER):
        slot, number, consumer, has_file, member, serial, opened, first, end = table[row : row + 9]
        has_res, begin, stop, grant, cut, lease, base = table[row + 9 : row + _MEMBER]
        if slot >= slots:
            raise ValueError(f"slot {slot} of a snapshot with {slots} slots")
        ledger.members.by_slot[slot] = Member(number, bool(consumer))
        ledger.members.consumers += bool(consumer)
        if has_file:
            filling = ledger.files.filling[slot] = Filling.of(FileId(member, serial), opened, first)
            ledger.files.known[opened] = filling.file
            ledger.files.ends[filling.file] = end
        if has_res:
            ledger.reservations.by_slot[slot] = Reservation(begin, stop, grant, bool(cut))
            ledger.reservations.places += max(0, stop - totals[slot])
        if lease:
            ledger.leases.ended[slot] = lease, base
    ledger.members.free = [slot for slot in range(slots) if slot not in ledger.members.by_slot]
    return _MEMBER * members
