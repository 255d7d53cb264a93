"""Locks that are held inside of their ``with`` statement and nowhere else, whatever a signal handler raises.

Lives here: making such locks.  From CPython 3.14 on a handler may run between the call that takes a lock and the
statement's first instruction; what it raises there leaves a plain lock taken, for good.  Before 3.14 it may not.

Invariant: nothing but the step of an iterator, after which no handler runs, takes the lock.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

__all__ = ["Lock", "RLock"]


class _Sure:
    """A lock around ``inner``: entered by Python code without a call, left by a call without Python code."""

    __slots__ = ("__exit__", "_at_fork_reinit", "_entering", "acquire", "release")

    def __init__(self, inner: Any) -> None:
        self._entering = iter(inner.acquire, None)
        self.acquire, self.release = inner.acquire, inner.release
        self.__exit__ = inner.__exit__
        self._at_fork_reinit = inner._at_fork_reinit

    def __enter__(self) -> None:
        for _ in self._entering:
            return


if sys.version_info < (3, 14):
    Lock, RLock = threading.Lock, threading.RLock
else:

    def Lock() -> Any:
        return _Sure(threading.Lock())

    def RLock() -> Any:
        return _Sure(threading.RLock())
