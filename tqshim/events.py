"""The grammar of events: how each act on a queue is written as 8 bytes.

Lives here: the numbers of the types and the packing of their fields.  Not here: what an event does (``ledger``) and
how it reaches the disk (``folder``).

An event is one little-endian 64-bit word::

    bits 0-7    type
    bits 8-23   slot of the member that acts (REVOKE: how far the lease got)
    bits 24-63  the rest, by type

Invariant: type 0 is no event.  Some kernels show a file's new length before its new bytes; a reader that meets type 0
stops there and reads again.
"""

from __future__ import annotations

import struct
from typing import Final

__all__ = [
    "CLAIM",
    "CLAIM_MANY",
    "GOT",
    "GRANT_LIMIT",
    "HOLD",
    "JOIN",
    "LEASE",
    "LEASE_MOST",
    "LEAVE",
    "OPEN",
    "PUBLISH",
    "PUBLISH_LATE",
    "PUBLISH_MOST",
    "RESERVE",
    "RESERVE_MOST",
    "REST_LIMIT",
    "RETURN",
    "REVOKE",
    "SEAL",
    "SHUTDOWN",
    "SIZE",
    "SLOTS",
    "TASK_DONE",
    "TRIM",
    "UNIT",
    "UNITS_MOST",
    "claim",
    "claim_many",
    "got",
    "hold",
    "join",
    "lease",
    "leave",
    "open_",
    "publish",
    "publish_late",
    "reserve",
    "return_",
    "revoke",
    "seal",
    "shutdown",
    "task_done",
    "trim",
]

SIZE: Final = 8
"""Bytes of one event."""

SLOTS: Final = 1 << 16
"""Members at one time."""
REST_LIMIT: Final = 1 << 40
"""What the rest of an event can count: file ids, and numbers of members, leases and holds."""

CLAIM: Final = 1
JOIN: Final = 2
LEAVE: Final = 3
OPEN: Final = 4
PUBLISH: Final = 5
LEASE: Final = 6
REVOKE: Final = 7
RESERVE: Final = 8
TRIM: Final = 9
CLAIM_MANY: Final = 10
SEAL: Final = 11
TASK_DONE: Final = 12
SHUTDOWN: Final = 13
PUBLISH_LATE: Final = 14
HOLD: Final = 15
GOT: Final = 16
RETURN: Final = 17

UNIT: Final = 16
"""Blocks are counted in units of so many bytes, so that 24 bits of length reach 256 MB."""
UNITS_MOST: Final = (1 << 24) - 1
PUBLISH_MOST: Final = (1 << 15) - 1
"""Records of one block."""
LEASE_MOST: Final = (1 << 16) - 1
"""Items of one lease: how far it got must fit into the 16 bits of a REVOKE."""
RESERVE_MOST: Final = (1 << 10) - 1
"""Places of one reservation: how many are used must fit into the 10 bits of a TRIM."""
GRANT_LIMIT: Final = 1 << 30
"""Reservations are numbered modulo this in a TRIM."""

_pack = struct.Struct("<Q").pack


def join(consumer: bool) -> bytes:
    """A process asks for a slot, as a producer or as a consumer."""
    return _pack(JOIN | consumer << 24)


def leave(slot: int, number: int) -> bytes:
    """The member that took ``slot`` with the event of that number is gone."""
    return _pack(LEAVE | slot << 8 | number << 24)


def open_(slot: int, file: int) -> bytes:
    """The slot's blocks go to a new batch file from now on; its former one is sealed."""
    return _pack(OPEN | slot << 8 | file << 24)


def publish(slot: int, count: int, units: int, more: bool = False) -> bytes:
    """``count`` records stand in a block of ``units`` units at the end of the slot's file; ``more`` keeps the rest of
    its reservation.  ``units`` 0 with a count: one record alone in its file, its length in the file."""
    return _pack(PUBLISH | slot << 8 | count << 24 | more << 39 | units << 40)


def publish_late(slot: int, count: int, units: int) -> bytes:
    """``publish`` of records whose puts had returned before the queue was shut down."""
    return _pack(PUBLISH_LATE | slot << 8 | count << 24 | units << 40)


def claim(slot: int) -> bytes:
    """The slot's member takes the item at the head."""
    return _pack(CLAIM | slot << 8)


def claim_many(slot: int, most: int) -> bytes:
    """The slot's member takes the items at the head, ``most`` or as many as there are."""
    return _pack(CLAIM_MANY | slot << 8 | most << 24)


def lease(slot: int, most: int) -> bytes:
    """A consumer takes up to ``most`` items as a lease, to deliver them without further events."""
    return _pack(LEASE | slot << 8 | most << 24)


def revoke(count: int, number: int) -> bytes:
    """The lease of that number ends after ``count`` of its items."""
    return _pack(REVOKE | count << 8 | number << 24)


def reserve(slot: int, places: int) -> bytes:
    """A producer sets places of a bounded queue aside for its next block."""
    return _pack(RESERVE | slot << 8 | places << 24)


def trim(slot: int, kept: int, grant: int) -> bytes:
    """The slot's reservation of that number is cut down to the places in use."""
    return _pack(TRIM | slot << 8 | kept << 24 | (grant % GRANT_LIMIT) << 34)


def seal(key: int) -> bytes:
    """This journal has had its events; the next is the one that was prepared under that key."""
    return _pack(SEAL | key << 24)


def task_done() -> bytes:
    """One more item, whichever, is finished with."""
    return _pack(TASK_DONE)


def shutdown(immediate: bool) -> bytes:
    """Nothing is put any more; ``immediate``: and all that waits is dropped."""
    return _pack(SHUTDOWN | immediate << 24)


def hold(slot: int) -> bytes:
    """The slot's member takes the oldest item that was returned, or else the item at the head, and holds it."""
    return _pack(HOLD | slot << 8)


def got(number: int) -> bytes:
    """The item that is held since the event of that number counts as got."""
    return _pack(GOT | number << 24)


def return_(number: int) -> bytes:
    """The item that is held since the event of that number comes back to the head."""
    return _pack(RETURN | number << 24)
