"""The clocks: that of timeouts, naps and marks, and that of the times of files.

Lives here: reading them, but not by ``time.monotonic`` or ``time.time``: libraries that stop the time for tests replace
these in all modules but the standard library's, and a consumer that waits for an item would wait for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from math import isnan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["FOREVER", "after", "check_deadline", "microseconds", "monotonic", "monotonic_ns", "wall"]

monotonic: Final[Callable[[], float]] = (
    partial(time.clock_gettime, time.CLOCK_MONOTONIC) if hasattr(time, "clock_gettime") else time.monotonic
)
"""Seconds since some point in the past, the same for all processes.  Windows has no such clock, and no queues."""
monotonic_ns: Final[Callable[[], int]] = (
    partial(time.clock_gettime_ns, time.CLOCK_MONOTONIC) if hasattr(time, "clock_gettime") else time.monotonic_ns
)
wall: Final[Callable[[], float]] = (
    partial(time.clock_gettime, time.CLOCK_REALTIME) if hasattr(time, "clock_gettime") else time.time
)
"""``time.time``."""

FOREVER: Final = 2.0**63 / 1e9
"""Seconds that the system can't wait for: 292 years."""


def after(now: float, timeout: float) -> float:
    """Return the deadline as a ``float``: numpy's shorter floats hold such times only to some milliseconds, and no
    system call takes them.  Raises ``TypeError`` for a timeout that can't be added."""
    deadline = now + timeout
    return deadline if type(deadline) is float else now + float(timeout)


def check_deadline(deadline: float) -> None:
    """Raise what the standard library's locks raise for a time that nobody can wait for."""
    if isnan(deadline):
        raise ValueError("timeout is not a number (NaN)")
    if deadline >= FOREVER:
        raise OverflowError(f"timeout is too large: wait for less than {FOREVER:.0f} seconds, or for ever (None)")


def microseconds() -> int:
    """Return ``monotonic`` in whole microseconds."""
    return int(monotonic() * 1e6)
