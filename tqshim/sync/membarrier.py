"""The barrier between processes: one sees what another has stored, though the other did nothing for that.

Lives here: the system call, and whether there is one.  Not here: who needs it (the acts).

Invariant: after ``barrier`` every store that a registered process made before it is seen, and every load that such a
process makes after it sees what the caller had stored.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable

from tqshim.runtime import systems

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Optional

__all__ = ["barrier", "barrier_works", "register_for_barrier"]

_GLOBAL_EXPEDITED: Final = 1 << 1
_REGISTER: Final = 1 << 2
_works: Optional[bool] = None
_registered: set[int] = set()


@functools.lru_cache(None)
def _syscall() -> Callable[..., int]:
    return functools.partial(systems.c_function("syscall", "l", "liii"), systems.MEMBARRIER)


def _membarrier(command: int) -> int:
    return _syscall()(command, 0, 0)


def barrier_works() -> bool:
    """Whether this kernel can order another process's stores and loads from here; without that there are no grants."""
    global _works
    if _works is None:
        _works = False
        if systems.MEMBARRIER is not None:
            wanted = _GLOBAL_EXPEDITED | _REGISTER
            try:
                offered = _membarrier(0)
            except ImportError:  # an interpreter without ctypes
                offered = -1
            _works = offered > 0 and offered & wanted == wanted
    return _works


def register_for_barrier() -> None:
    """Let other processes' barriers reach this one, from here on."""
    if os.getpid() not in _registered:
        _membarrier(_REGISTER)
        _registered.clear()
        _registered.add(os.getpid())


def barrier() -> None:
    """Make seen every store that a registered process made before; its loads from now on see this process's stores."""
    try:
        done = systems.MEMBARRIER is not None and _membarrier(_GLOBAL_EXPEDITED) == 0
    except ImportError:
        done = False
    if not done:
        # This process can't have the barrier, though the holder could: after this time its store buffer is long empty.
        time.sleep(0.05)
