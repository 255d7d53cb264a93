"""What the state of a queue is made of: who is in it, where items stand, whose they are.

Lives here: those tuples.  Not here: what they come to together (``state``), what changes it (``ledger``).

Invariant: none of them changes; where something changes, another takes its place.
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
