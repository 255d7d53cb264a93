"""Weak sets that other threads add to.

Lives here: looking at all that is in one.
"""

from __future__ import annotations

import weakref
from typing import TypeVar

__all__ = ["alive"]

_T = TypeVar("_T")


def alive(things: weakref.WeakSet[_T]) -> list[_T]:
    """Those that are in the set now."""
    while True:
        try:
            return list(things)
        except RuntimeError:  # another thread has just added one
            pass
