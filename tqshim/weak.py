"""Weak sets that other threads add to.

Lives here: looking at all that is in one.
"""

from __future__ import annotations

import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    _T = TypeVar("_T")

__all__ = ["alive"]


def alive(things: weakref.WeakSet[_T]) -> list[_T]:
    """Those that are in the set now."""
    while True:
        try:
            return list(things)
        except RuntimeError:  # another thread has just added one
            pass
