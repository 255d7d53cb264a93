"""The end of a process: what is to be done before it waits for its children, and when it ends.

Lives here: registering that where it really runs; listing all that is to be ended, while other threads add to it.  Not
here: what is done (``engine``, ``batching``).
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable
from multiprocessing import process, util

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    _T = TypeVar("_T")

__all__ = ["AtExit", "alive", "end_threads"]


class AtExit:
    """Acts at the end of this process, and of each that it forks.

    ``multiprocessing``'s children end through ``os._exit``: only ``multiprocessing``'s own finalizers run there.  A new
    child clears their registry after the fork hooks ran; ``register_after_fork`` enters this again.  The module that
    makes an ``AtExit`` keeps it for as long as the module lives."""

    def __init__(self, first: Callable[[], None], last: Callable[[], None], needed: Callable[[], bool]) -> None:
        """``first`` runs before the process waits for its children, which may wait for it; ``last`` runs when it ends.
        ``needed`` says whether a forked child has inherited something to end."""
        self._first = first
        self._last = last
        self._needed = needed
        self._armed = False
        util.register_after_fork(self, AtExit.enter_again)

    def arm(self) -> None:
        """Enter both: from now on there is something to do at the end."""
        if not self._armed:
            util.Finalize(None, self._first, exitpriority=10)
            util.Finalize(None, self._last, exitpriority=-100)
            self._armed = True  # Last: an exception before it enters both again, and they do nothing the second time.

    def enter_again(self) -> None:
        """In a forked child, enter both again if needed."""
        self._armed = False
        if self._needed():
            self.arm()


def alive(things: weakref.WeakSet[_T]) -> list[_T]:
    """Return what is in the set now."""
    while True:
        try:
            return list(things)
        except RuntimeError:  # another thread has just added one
            pass


def end_threads() -> None:
    """Wait for this process's threads, in a child of ``multiprocessing``.  Up to Python 3.12 the child waits for them
    itself, but only after its finalizers, and no code of ours runs between that and ``os._exit``.  After this call it
    finds them ended."""
    if sys.version_info < (3, 13) and process.parent_process() is not None:
        me = threading.current_thread(), threading.main_thread()
        if any(not thread.daemon and thread not in me for thread in threading.enumerate()):
            threading._shutdown()  # type: ignore[attr-defined]
