"""Descriptors that items take with them: how many wait here to be fetched, and what becomes of those of refused items.

Lives here: waiting until more may wait, putting what has some, taking them back.  Not here: which items have some
(``pickling``), making and fetching them, which is ``multiprocessing.resource_sharer``'s.

Torch's tensors, connections and sockets take a descriptor each of the process that has put them, until it is fetched.
The standard library's queue pickles what its pipe has room for; here all that is put is pickled.  At the limit nothing
could be fetched any more, for that takes a descriptor, too: what had been put before would be lost.

Invariant: a put waits while a quarter of the descriptors that this process may have wait, those of other puts that wait
left out: what a pipe has room for.  What is not put takes none.
"""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from queue import Full

from tqshim.protocol import pieces
from tqshim.protocol.pieces import NewRecord, Pieces
from tqshim.queues.pickling import REMEDY, Made, pending
from tqshim.runtime import limits
from tqshim.runtime.clock import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, Optional

__all__ = ["Shared", "has_room", "most", "pause", "put", "withdraw"]

SHARE: Final = 4
LEAST: Final = 16
"""As many may wait, or a part of the limit."""
PATIENCE: Final = 30.0
"""Seconds for which a put waits while nobody fetches anything: this very thread may be the one to do so."""
LOOK_EVERY: Final = 0.005
"""Seconds."""


class Shared(Pieces):
    """A record whose item takes descriptors with it."""

    __slots__ = ("descriptors",)

    def __init__(self, record: NewRecord, made: Iterable[Made]) -> None:
        super().__init__(pieces.parts([record]))
        self.descriptors = dict(made)
        pending.update(self.descriptors)


def _waiting() -> dict[int, Any]:
    """What waits to be fetched from this process."""
    sharer: Any = sys.modules.get("multiprocessing.resource_sharer")
    found: dict[int, Any] = sharer._resource_sharer._cache if sharer is not None else {}
    return found


def has_room() -> bool:
    """More descriptors can wait to be fetched."""
    waiting = len(_waiting())
    if waiting < LEAST:
        return True
    return len(_waiting().keys() - pending) < most()


def most() -> float:
    """How many may wait."""
    return max(LEAST, limits.soft_limit("RLIMIT_NOFILE") // SHARE)


def put(records: Sequence[NewRecord], do: Callable[..., int], block: bool, timeout: Optional[float]) -> int:
    """Put records, some of which are ``Shared``, by ``do(block, timeout)``, once more descriptors can wait; returns how
    many were put.  The others keep none.

    Raises ``Full`` where time runs out before, ``OSError`` where nobody fetches anything."""
    keys = _keys(records)
    try:
        try:
            timeout = _wait_for_room(block, timeout)
        except BaseException:
            withdraw(records)
            raise
        # If this raises, some may be put.
        count = do(block, timeout)
    finally:
        pending.difference_update(keys)
    withdraw(records[count:])
    return count


def withdraw(records: Sequence[NewRecord]) -> None:
    """Close the descriptors of records that were not put; but not what the caller has itself, and may put once more."""
    for record in records:
        for key, holder in record.descriptors.items() if isinstance(record, Shared) else ():
            found = _waiting().pop(key, None) if holder() is None else None
            if found is not None:
                found[1]()
            pending.discard(key)


def _keys(records: Sequence[NewRecord]) -> list[int]:
    return [key for record in records if isinstance(record, Shared) for key in record.descriptors]


def _wait_for_room(block: bool, timeout: Optional[float]) -> Optional[float]:
    """Wait until more can wait; returns what is left of ``timeout``."""
    now = monotonic()
    deadline = None if timeout is None else now + timeout
    impatient = now + PATIENCE
    seen = _waiting().keys() - pending
    while not has_room():
        now = monotonic()
        if not block or (deadline is not None and now >= deadline):
            raise Full
        if not seen <= _waiting().keys():
            impatient, seen = now + PATIENCE, _waiting().keys() - pending
        elif now > impatient:
            raise OSError(
                errno.EMFILE,
                f"{len(seen)} descriptors of items that were put wait in this process, and none was fetched for "
                f"{PATIENCE:.0f} seconds; {REMEDY}",
            )
        time.sleep(LOOK_EVERY)
    return None if deadline is None else max(0.0, deadline - monotonic())


async def pause() -> None:
    """Let others of this event loop run for a moment."""
    import asyncio  # here: most programs do without

    await asyncio.sleep(LOOK_EVERY)
