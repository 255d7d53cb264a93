"""The grammar of events: how each act on a queue is written as 8 bytes.

Lives here: the numbers of the types and the packing of their fields.  Not here: what an event does (``ledger``) and
how it reaches the disk (``storage``).

An event is one little-endian 64-bit word::

    bits 0-7    type
    bits 8-23   slot of the member that acts, or whose log is cut (REVOKE, PASSED: how far the lease got)
    bits 24-63  the rest, by type

Invariant: type 0 is no event.  Some kernels show a file's new length before its new bytes; a reader that meets type 0
stops there and reads again.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = [
    "CLAIM",
    "CLAIM_MANY",
    "CLOSING",
    "CUT",
    "DELIVERED",
    "DELIVERED_LIMIT",
    "DELIVERED_MOST",
    "GOT",
    "GRANT_LIMIT",
    "HOLD",
    "JOIN",
    "LEASE",
    "LEASE_ALL",
    "LEASE_MOST",
    "LEAVE",
    "OPEN",
    "PASSED",
    "PUBLISH",
    "PUT_BACK",
    "RESERVE",
    "RESERVE_MOST",
    "RETURN",
    "REVOKE",
    "SEAL",
    "SHUTDOWN",
    "SIZE",
    "SKIP",
    "SLOTS",
    "SOLE_LIMIT",
    "TASK_DONE",
    "TRIM",
    "claim",
    "claim_many",
    "closing",
    "cut",
    "delivered",
    "got",
    "hold",
    "join",
    "lease",
    "lease_all",
    "leave",
    "open_",
    "passed",
    "publish",
    "put_back",
    "reserve",
    "return_",
    "revoke",
    "seal",
    "shutdown",
    "skip",
    "task_done",
    "trim",
]

SIZE: Final = 8
"""Bytes of one event."""

SLOTS: Final = 1 << 16
"""Members at one time."""

CLAIM: Final = 1
JOIN: Final = 2
LEAVE: Final = 3
OPEN: Final = 4
CUT: Final = 5
LEASE: Final = 6
REVOKE: Final = 7
RESERVE: Final = 8
TRIM: Final = 9
CLAIM_MANY: Final = 10
SEAL: Final = 11
TASK_DONE: Final = 12
SHUTDOWN: Final = 13
SKIP: Final = 14
HOLD: Final = 15
GOT: Final = 16
RETURN: Final = 17
CLOSING: Final = 18
PUBLISH: Final = 19
PASSED: Final = 20
DELIVERED: Final = 21
LEASE_ALL: Final = 22
PUT_BACK: Final = 23

LEASE_MOST: Final = (1 << 16) - 1
"""Items of one lease: how far it got must fit into the 16 bits of a REVOKE or PASSED."""
RESERVE_MOST: Final = (1 << 10) - 1
"""Places of one reservation: how many are used must fit into the 10 bits of a TRIM."""
GRANT_LIMIT: Final = 1 << 30
"""Reservations are numbered modulo this in a TRIM."""
DELIVERED_MOST: Final = 1 << 14
"""Records of one log that one lease of all that comes delivers, at most: a DELIVERED must tell how many there are."""
DELIVERED_LIMIT: Final = 2 * DELIVERED_MOST
"""Totals are given modulo this in a DELIVERED, which has 15 bits for one."""
SOLE_LIMIT: Final = 1 << 25
"""Leases are numbered modulo this in a DELIVERED."""

_pack = struct.Struct("<Q").pack


def join(consumer: bool) -> bytes:
    """A process asks for a slot, as a producer or as a consumer."""
    return _pack(JOIN | consumer << 24)


def leave(slot: int, number: int) -> bytes:
    """The member that took ``slot`` with the event of that number is gone."""
    return _pack(LEAVE | slot << 8 | number << 24)


def open_(slot: int, serial: int) -> bytes:
    """The slot's log goes on in a new batch file, whose first record is the next that is cut."""
    return _pack(OPEN | slot << 8 | serial << 24)


def cut(slot: int, total: int) -> bytes:
    """The records of the slot's log up to the ``total``-th are the new tail, as far as they were not cut before."""
    return _pack(CUT | slot << 8 | total << 24)


def publish(slot: int, total: int) -> bytes:
    """``cut`` by the log's own producer, which puts records by it: all of them, or none."""
    return _pack(PUBLISH | slot << 8 | total << 24)


def put_back(slot: int, total: int) -> bytes:
    """``cut`` by a process that leaves, of what it had got and not delivered: be there places or not."""
    return _pack(PUT_BACK | slot << 8 | total << 24)


def skip(slot: int, total: int) -> bytes:
    """The records of the slot's log up to the ``total``-th that were not cut by now never will be."""
    return _pack(SKIP | slot << 8 | total << 24)


def claim(slot: int) -> bytes:
    """The slot's member takes the item at the head."""
    return _pack(CLAIM | slot << 8)


def claim_many(slot: int, most: int) -> bytes:
    """The slot's member takes the items at the head, ``most`` or as many as there are."""
    return _pack(CLAIM_MANY | slot << 8 | most << 24)


def lease(slot: int, most: int) -> bytes:
    """A consumer takes up to ``most`` items as a lease, to deliver them without further events."""
    return _pack(LEASE | slot << 8 | most << 24)


def lease_all(slot: int) -> bytes:
    """The only consumer takes all that comes as a lease, from whatever log, to deliver it uncut."""
    return _pack(LEASE_ALL | slot << 8)


def delivered(slot: int, total: int, number: int) -> bytes:
    """The lease of that number, of all that comes, has delivered the slot's log up to the ``total``-th record."""
    rest = total % DELIVERED_LIMIT | (number % SOLE_LIMIT) << 15
    return _pack(DELIVERED | slot << 8 | rest << 24)


def revoke(count: int, number: int) -> bytes:
    """The lease of that number ends after ``count`` of its items."""
    return _pack(REVOKE | count << 8 | number << 24)


def passed(count: int, number: int) -> bytes:
    """The first ``count`` items of the lease of that number are delivered."""
    return _pack(PASSED | count << 8 | number << 24)


def reserve(slot: int, places: int) -> bytes:
    """A producer's log may grow by so many records beyond what is cut; its former reservation ends."""
    return _pack(RESERVE | slot << 8 | places << 24)


def trim(slot: int, used: int, grant: int) -> bytes:
    """The slot's reservation of that number ends after ``used`` of its places."""
    return _pack(TRIM | slot << 8 | used << 24 | (grant % GRANT_LIMIT) << 34)


def seal(key: int) -> bytes:
    """This journal has had all its events; the next one is the journal that was prepared under that key."""
    return _pack(SEAL | key << 24)


def task_done() -> bytes:
    """One more item, whichever, is finished with."""
    return _pack(TASK_DONE)


def closing(immediate: bool) -> bytes:
    """Somebody wants to shut the queue down: each process that reads this helps."""
    return _pack(CLOSING | immediate << 24)


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
