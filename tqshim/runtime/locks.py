"""Locks that are held inside of their ``with`` statement and nowhere else, whatever a signal handler raises.

Lives here: making such locks, seeing whether one is taken, and the barrier that taking one is.  From CPython 3.14 on a
handler may run between the call that takes a lock and the statement's first instruction; what it raises there leaves a
plain lock taken, for good.  Before 3.14 it may not.

Invariant: nothing but the step of an iterator, after which no handler runs, takes the lock.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from _thread import allocate_lock
from struct import calcsize

from tqshim.runtime import systems
from tqshim.runtime.clock import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Lock", "RLock", "fence", "forked", "is_free"]

LOOK_EVERY = 1e-4
"""Seconds."""


def fence() -> None:
    """A barrier: what this thread has stored is seen before what it loads from here on is read.

    A lock of its own: one that several shared might stay taken, where a signal handler raises (3.9)."""
    allocate_lock().acquire()


def is_free(lock: Any, patience: float) -> bool:
    """Nobody has the lock, or its owner released it within so many seconds.

    For one who may run above the very frame that has it, a signal handler's, and so must not wait for it."""
    until = monotonic() + patience
    while lock.locked():
        if monotonic() > until:
            return False
        time.sleep(LOOK_EVERY)
    return True


class _Sure:
    """A lock around ``inner``: entered by Python code without a call, left by a call without Python code."""

    __slots__ = ("__exit__", "_at_fork_reinit", "_entering", "_is_owned", "acquire", "locked", "release")

    def __init__(self, inner: Any) -> None:
        self._entering = iter(inner.acquire, None)
        self.acquire, self.release, self.locked = inner.acquire, inner.release, inner.locked
        self.__exit__ = inner.__exit__
        self._is_owned = getattr(inner, "_is_owned", None)
        """Of an ``RLock``: the caller's own thread has it."""
        self._at_fork_reinit = inner._at_fork_reinit

    def __enter__(self) -> None:
        for _ in self._entering:
            return


def forked(lock: Any) -> None:
    """In a forked child, which has an ``RLock`` of its own in the place of this one.  A signal handler may have forked
    while the frame below it waited for this one, which a thread had that the child has not: that frame gets it.

    A frame of this very thread that has it, as where a handler has interrupted an act, leaves it as ever."""
    if lock._is_owned():
        return
    if sys.version_info >= (3, 14):
        lock._at_fork_reinit()
        return
    # Before, that makes another one in its place, and who waits goes on to wait for the former.
    try:
        lock._release_save()
    except RuntimeError:  # No thread had it, as far as it says; one that waits for the GIL next has not said so yet.
        if lock.acquire(False):
            lock.release()
        else:
            _let_go(lock)


def _let_go(lock: Any) -> None:
    """Let go an ``RLock`` of before 3.14 that is taken, though it says that no thread has it: Python can't."""
    with contextlib.suppress(ImportError):
        # Behind the head of every object: the lock that it is made of.
        inner = systems.c_memory(id(lock) + object.__basicsize__, calcsize("P"), lock)
        systems.c_function("PyThread_release_lock", "i", "P")(int.from_bytes(inner, sys.byteorder))


if sys.version_info < (3, 14):
    Lock, RLock = threading.Lock, threading.RLock
else:

    def Lock() -> Any:
        return _Sure(threading.Lock())

    def RLock() -> Any:
        return _Sure(threading.RLock())
