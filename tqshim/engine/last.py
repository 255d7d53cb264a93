"""The end of the interpreter, when a program's own code has come to its end.

Lives here: deleting the folders that are left then.  Not here: leaving queues, which comes before (``registry``).

Invariant: this room is imported after all that it uses, when a queue is made.  The interpreter empties modules in the
opposite order, so ``__del__`` finds them whole, also where daemon threads keep them.
"""

from __future__ import annotations

import contextlib

from tqshim.engine.acts import Acts
from tqshim.runtime.ending import alive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

__all__ = ["expect"]


class _Last:
    """Deletes the anonymous folders that nobody uses."""

    def __del__(self) -> None:
        # Without the engines' locks: daemon threads may have them, and have been stopped for good.
        for engine in alive(Acts.all):
            with contextlib.suppress(Exception):
                engine.folder.delete_unless_used(hold=False)


_last: Optional[_Last] = None


def expect() -> None:
    """Delete what is left at the end of the interpreter, which follows now: the process has left its queues."""
    global _last
    _last = _last or _Last()  # a former one that is replaced would be deleted now
