"""Descriptors that pickling makes for whoever gets the item: those of torch's tensors, of connections, of sockets.

Lives here: noticing that a process puts such items, and waiting until fewer of them wait.  Not here: making and
fetching them, which is ``multiprocessing.resource_sharer``'s.

Each takes a descriptor of the process that has put it, until it is fetched.  The standard library's queue pickles what
its pipe has room for; here all that is put is pickled.  At the limit nothing could be fetched any more, for that takes
a descriptor, too: what had been put before would be lost.

Invariant: a put waits while a quarter of the descriptors that this process may have wait: what a pipe has room for.
"""

from __future__ import annotations

import copyreg
import errno
import os
import sys
import time
from queue import Full

from .clock import monotonic

try:
    from resource import RLIMIT_NOFILE, getrlimit
except ImportError:  # Windows, where there are no queues
    pass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, Optional

__all__ = ["Reducers", "explain", "has_room", "is_orphan", "pause", "wait_for_room"]

SHARE: Final = 4
LEAST: Final = 16
"""As many may wait, or a part of the limit."""
PATIENCE: Final = 30.0
"""Seconds for which a put waits while nobody fetches anything: whoever is to may be this very thread."""
LOOK_EVERY: Final = 0.005
"""Seconds."""
GRACE: Final = 0.1
"""Seconds that a process takes from closing what it has to being seen as dead."""
_REMEDY: Final = (
    "get what was put, give the queue a maxsize, raise the limit (ulimit -n), or share tensors in another way "
    "(torch.multiprocessing.set_sharing_strategy('file_system'))"
)


class Reducers:
    """A pickler's dispatch table: what programs have registered with ``multiprocessing``, and with ``copyreg``."""

    __slots__ = ("_extra", "used")

    def __init__(self, extra: dict[type, Any]) -> None:
        self._extra = extra
        self.used = False
        """An item had something that needs ``multiprocessing``'s own: it may have made descriptors."""

    def __getitem__(self, kind: type) -> Any:
        reducer = self._extra.get(kind)
        if reducer is None:
            return copyreg.dispatch_table[kind]
        self.used = True
        return reducer


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
    limit = getrlimit(RLIMIT_NOFILE)[0]
    return limit < 0 or waiting < limit // SHARE


def wait_for_room(block: bool, timeout: Optional[float]) -> Optional[float]:
    """Wait until more can wait; returns what is left of ``timeout``.

    Raises ``Full`` where it runs out, ``OSError`` where nobody fetches anything."""
    now = monotonic()
    deadline = None if timeout is None else now + timeout
    impatient = now + PATIENCE
    seen = set(_waiting())
    while not has_room():
        now = monotonic()
        if not block or (deadline is not None and now >= deadline):
            raise Full
        if not seen <= set(_waiting()):
            impatient, seen = now + PATIENCE, set(_waiting())
        elif now > impatient:
            raise OSError(
                errno.EMFILE,
                f"{len(seen)} descriptors of items that were put wait in this process, and none was fetched for "
                f"{PATIENCE:.0f} seconds; {_REMEDY}",
            )
        time.sleep(LOOK_EVERY)
    return None if deadline is None else max(0.0, deadline - monotonic())


def is_orphan(error: BaseException) -> bool:
    """Unpickling has raised this, for the process that has put the item is gone, and what it had for it.

    It is dying just now, perhaps: whoever looks for that when this raises, as torch's DataLoader does, is to find it
    dead, and hears of it first if it is a child and signals are handled."""
    if isinstance(error, (ConnectionError, EOFError)) and "multiprocessing.resource_sharer" in sys.modules:
        time.sleep(GRACE)
        return True
    return False


async def pause() -> None:
    """Let others of this event loop run for a moment."""
    import asyncio  # here: most programs do without

    await asyncio.sleep(LOOK_EVERY)


def explain(error: Exception) -> None:
    """Pickling has raised this.  Raises ``OSError`` with cause and remedy where it found no descriptor any more."""
    if getattr(error, "errno", 0) == errno.EMFILE or os.strerror(errno.EMFILE) in str(error):
        raise OSError(
            errno.EMFILE,
            f"pickling an item makes descriptors for whoever gets it, and this process has no more; {_REMEDY}",
        ) from error
