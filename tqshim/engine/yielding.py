"""Whether a woken process lets the others of its processor get on first.

Lives here: how that is decided; pure.  Not here: giving way (``wait_policy``).

The kernel lets a woken process run at once, often in the place of the very process that has rung: a worker that is
about to put more, a consumer that is about to free more places.  If a process is woken for one item, and sleeps again,
that costs as much as ten items that come at once.  So a woken process gives way once, and no processor is idle
meanwhile.  Where nobody wants the processor, giving way takes a microsecond.  Where it takes long, it must have paid:
else others have used the time, or a process that has nothing for us.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["Yielding"]

NO_TIME: Final = 10e-6
"""Seconds that count for nothing."""
WORTH: Final = 200e-6
"""Seconds that may pass for each item, or place, that has come meanwhile: about what four wakes cost."""
_AT_FIRST: Final = 0.8
_ENOUGH: Final = 0.3
_GAIN: Final = 0.2
_LOSS: Final = 0.1
"""``_GAIN`` is added where it has paid, ``_LOSS`` taken off where not; from ``_ENOUGH`` on a process gives way."""
_AGAIN: Final = 1e-4
"""Added where a process does not give way: so it tries again after a thousand wakes."""


class Yielding:
    """How often it has paid to give way."""

    __slots__ = ("_paid",)

    def __init__(self) -> None:
        self._paid = _AT_FIRST

    def is_wanted(self) -> bool:
        """Return whether it is worth giving way: asked once a wake."""
        if self._paid >= _ENOUGH:
            return True
        self._paid += _AGAIN
        return False

    def note(self, seconds: float, gained: int) -> None:
        """Note how long it took, and how many items, or places, came meanwhile beside the one we were woken for."""
        if seconds > NO_TIME:
            self._paid = self._paid - _LOSS if seconds > gained * WORTH else min(1.0, self._paid + _GAIN)
