"""What the state of a queue is made of: who is in it, where items stand, whose they are.

Lives here: the tuples for these.  Not here: what they add up to (``state``), what changes that (``ledger``).

Invariant: none of these tuples changes; where something changes, a new tuple takes its place.
"""

from __future__ import annotations

from tqshim.protocol.index import capacity
from tqshim.protocol.names import FileId
from tqshim.runtime.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, TypeAlias, Union

__all__ = [
    "OPEN_FOR_ALL",
    "SHUT",
    "SHUT_AT_ONCE",
    "Filling",
    "Held",
    "Lease",
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
    """The number of its OPEN among all OPENs."""
    first: int
    """Records of the log before this file."""
    stop: int
    """Records that the log can have at most while it goes on in this file."""

    @classmethod
    def of(cls, file: FileId, number: int, first: int) -> Filling:
        """The file with which a log goes on behind its ``first`` records."""
        return cls(file, number, first, first + capacity(file.serial))


class Place(NamedTuple):
    """Where an item stands."""

    file: FileId
    record: int
    """Which record of the file."""


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
    """Records of the producer's log that were cut when the reservation was made."""
    stop: int
    """The total up to which the log may grow."""
    grant: int
    cut: bool
    """Whether somebody has ended the reservation: no more of it can be had."""


class Held(NamedTuple):
    """An item that is one consumer's until the consumer says that it is got, gives it back, or leaves."""

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
"""Nothing is put any more, and nothing waits any more."""
