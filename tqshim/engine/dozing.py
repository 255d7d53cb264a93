"""Whether a consumer dozes: it sleeps for moments and looks, and nobody has to ring for it.

Lives here: how that is decided; pure.  Not here: sleeping and looking (``wait_policy``).

A producer that works for a while between two puts pays for each ring: the kernel wakes an idle processor, which takes
14 to 18 us where that is a virtual one.  A consumer to which items come one by one, at a pace, need not be rung for.
Whether dozing makes items come faster is measured: some waits one way, as many the other, and the faster way is kept.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["Dozing"]

SHORTEST: Final = 100e-6
LONGEST: Final = 600e-6
"""Seconds from the beginning of a wait to that of the next, where dozing is worth a try.  Faster items may be answers
to our own, and each moment asleep would keep their producer waiting; beside slower ones a ring counts for little."""
COMPARED: Final = 16
"""Waits of each way that are compared."""
KEPT: Final = 1024
"""Waits for which the better way is kept."""
GAIN: Final = 0.97
"""Part of the time of the rung waits that the dozed waits must not exceed."""


class Dozing:
    """What the last waits of one process took."""

    __slots__ = ("_began", "_is_kept", "_left", "_rung", "_strange", "_taken", "on")

    def __init__(self) -> None:
        self._began = 0.0
        self._compare()

    def _compare(self) -> None:
        self.on = False
        """Waits are dozed."""
        self._is_kept = False
        """Both ways have been compared."""
        self._left = COMPARED
        """Waits until the next decision."""
        self._taken = self._rung = 0.0
        """Seconds of the waits since the last decision, and of the waits that a ring has ended."""
        self._strange = False
        """The last wait was too long, which may happen once."""

    def begin(self, now: float) -> bool:
        """Note that a wait begins; return whether it is to be dozed."""
        taken, self._began = now - self._began, now
        is_strange = taken > LONGEST or (taken < SHORTEST and not self.on)
        if is_strange and (self.on or not self._is_kept):
            if self._strange or not self.on:
                self._compare()
            else:
                self._strange = True
            return self.on
        self._strange = False
        self._taken += taken
        self._left -= 1
        if self._left <= 0:
            self._decide()
        return self.on

    def _decide(self) -> None:
        if self._is_kept:
            self._compare()
        elif not self.on:
            self._rung, self._taken = self._taken, 0.0
            self.on, self._left = True, COMPARED
        else:
            self.on = self._taken < self._rung * GAIN
            self._is_kept, self._left = True, KEPT
