"""Locks that are held inside of their ``with`` statement and nowhere else, whatever a signal handler raises.

Lives here: making such locks, seeing whether one is taken, and the barrier that taking one is.  From CPython 3.14 on a
signal handler may run between the call that takes a lock and the statement's first instruction; if it raises there, a
plain lock stays taken for good.  Before 3.14 no handler runs there.

Invariant: only the step of an iterator takes the lock, and no handler runs after such a step.
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
    """Act as a memory barrier: this thread's stores before it are seen before its loads after it are done.

    Each call has a lock of its own: a shared one might stay taken, where a signal handler raises (3.9)."""
    allocate_lock().acquire()


def is_free(lock: Any, patience: float) -> bool:
    """Whether nobody has the lock, or its owner released it within ``patience`` seconds.

    For a caller in a signal handler that may run above the very frame that has the lock: it must not wait for it."""
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
        """Of an ``RLock``: whether the caller's own thread has it."""
        self._at_fork_reinit = inner._at_fork_reinit

    def __enter__(self) -> None:
        for _ in self._entering:
            return


def forked(lock: Any) -> None:
    """Free the parent's ``RLock`` in a forked child, which has one of its own in its place.  A signal handler may have
    forked while the frame below it waited for this lock, which a thread that the child lacks had: that frame gets it.

    If a frame of this very thread has it, as where a handler has interrupted an act, that frame leaves it as ever."""
    if lock._is_owned():
        return
    if sys.version_info >= (3, 14):
        lock._at_fork_reinit()
        return
    # Before 3.14, that call makes another lock in its place, and a frame that waits goes on to wait for the former.
    try:
        lock._release_save()
    except RuntimeError:  # It names no owner: no thread had it, or one that waits for the GIL has not said so yet.
        if lock.acquire(False):
            lock.release()
        else:
            _let_go(lock)


def _let_go(lock: Any) -> None:
    """Release an ``RLock`` of before 3.14 that is taken, though it says that no thread has it: Python can't do that."""
    with contextlib.suppress(ImportError):
        # Behind the head that every object has lies the lock of which the ``RLock`` is made.
        inner = systems.c_memory(id(lock) + object.__basicsize__, calcsize("P"), lock)
        systems.c_function("PyThread_release_lock", "i", "P")(int.from_bytes(inner, sys.byteorder))


if sys.version_info < (3, 14):
    Lock, RLock = threading.Lock, threading.RLock
else:

    def Lock() -> Any:
        return _Sure(threading.Lock())

    def RLock() -> Any:
        return _Sure(threading.RLock())
