"""Descriptors that items take with them: how many wait here to be fetched, and what becomes of those of refused items.

Lives here: waiting until more descriptors may wait, putting records that have some, taking descriptors back.  Not here:
which items have descriptors (``pickling``), making and fetching them, which ``multiprocessing.resource_sharer`` does.

Torch's tensors, connections and sockets each take a descriptor of the process that puts them, until it is fetched.  The
standard library's queue pickles only what its pipe has room for; here each item is pickled when it is put.  At the
limit of descriptors nothing could be fetched any more, because to fetch takes a descriptor, too: items that were put
before would be lost.

Invariant: a put waits while a quarter of the descriptors that this process may have wait, those of other puts that wait
left out: what a pipe has room for.  A record that is not put keeps no descriptor.
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
"""So many descriptors may wait, or a ``SHARE``-th of the limit if that is more."""
PATIENCE: Final = 30.0
"""Seconds for which a put waits while nobody fetches anything: the thread that is to fetch may be this very one."""
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
    """Return the descriptors that wait to be fetched from this process."""
    sharer: Any = sys.modules.get("multiprocessing.resource_sharer")
    found: dict[int, Any] = sharer._resource_sharer._cache if sharer is not None else {}
    return found


def has_room() -> bool:
    """Whether more descriptors can wait to be fetched."""
    waiting = len(_waiting())
    if waiting < LEAST:
        return True
    return len(_waiting().keys() - pending) < most()


def most() -> float:
    """Return how many descriptors may wait."""
    return max(LEAST, limits.soft_limit("RLIMIT_NOFILE") // SHARE)


def put(records: Sequence[NewRecord], do: Callable[..., int], block: bool, timeout: Optional[float]) -> int:
    """Put records, some of which are ``Shared``, by ``do(block, timeout)``, once more descriptors can wait; return how
    many were put.  The other records keep no descriptors.

    Raises ``Full`` where time runs out before, ``OSError`` where nobody fetches anything."""
    keys = _keys(records)
    try:
        try:
            timeout = _wait_for_room(block, timeout)
        except BaseException:
            withdraw(records)
            raise
        # If this raises, some records may have been put.
        count = do(block, timeout)
    finally:
        pending.difference_update(keys)
    withdraw(records[count:])
    return count


def withdraw(records: Sequence[NewRecord]) -> None:
    """Close the descriptors of records that were not put, but not of what the caller still has and may put again."""
    for record in records:
        for key, holder in record.descriptors.items() if isinstance(record, Shared) else ():
            found = _waiting().pop(key, None) if holder() is None else None
            if found is not None:
                found[1]()
            pending.discard(key)


def _keys(records: Sequence[NewRecord]) -> list[int]:
    return [key for record in records if isinstance(record, Shared) for key in record.descriptors]


def _wait_for_room(block: bool, timeout: Optional[float]) -> Optional[float]:
    """Wait until more descriptors can wait; return what is left of ``timeout``."""
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
