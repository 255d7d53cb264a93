"""The engine's ends: items that are finished with, waiting for all of them, and shutting the queue down.

Lives here: ``task_done``, ``join`` and ``shutdown``.  Not here: how a process leaves a queue (``engine``).

Invariant: what a process has put stands in the journal before what it says about being finished, or about the end.
"""

from __future__ import annotations

import time
from typing import Optional

from . import events, waiting
from .clock import monotonic
from .ledger import SHUT, SHUT_AT_ONCE
from .putting import Putting

__all__ = ["Finishing"]


class Finishing(Putting):
    """An engine whose items can be counted off, and that can be shut down."""

    def task_done(self) -> bool:
        """One more item is finished with.  ``False``: all were."""
        if self._stands_above_itself():
            if not self._known_unfinished():
                return False
            self._do_later(lambda _: self.task_done())
            return True
        with self._lock:
            self._begin()
            self._publish_surely()
            self._unsure = True
            # Commit point.
            left = self._append(events.task_done())
            if left == 0:
                self._ring_all(waiting.AWAITS_DONE)
            self._act_ends()
        return left is not None

    def _known_unfinished(self) -> int:
        """Items that were not finished with at the last look, without the lock."""
        return self.ledger.unfinished + len(self.records) + len(self._later)

    def join(self, timeout: Optional[float]) -> bool:
        """Wait until all items are finished with, or were so for a moment.  ``False``: they were not for so long."""
        deadline = None if timeout is None else monotonic() + timeout
        if timeout is not None and self._stands_above_itself():
            time.sleep(max(0.0, timeout))
            return not self._known_unfinished()
        with self._lock:
            self._begin()
            self._publish_surely()
            self._unsure = True
            self._sync()
            wanted = self.ledger.completions + 1
            done = not self.ledger.unfinished
            self._act_ends()
        while not done:
            if deadline is not None and monotonic() >= deadline:
                return False
            generation = self.generation
            try:
                self._wait(waiting.AWAITS_DONE, deadline, wanted)
            except (OSError, ValueError):
                if generation == self.generation:
                    raise
            with self._lock:
                self._begin()
                self._sync()
                done = self._ready(waiting.AWAITS_DONE, wanted)
                self._act_ends()
        return True

    def shutdown(self, immediate: bool) -> None:
        """Nothing is put from now on; ``immediate``: and all that waits is dropped.  All who wait wake up."""
        if self._stands_above_itself():
            self._do_later(lambda _: self.shutdown(immediate))
            return
        wanted = SHUT_AT_ONCE if immediate else SHUT
        with self._lock:
            self._begin()
            self._publish_surely()
            self._unsure = True
            self._sync()
            while self.ledger.shut < wanted:
                lease = self.ledger.lease
                if immediate and lease is not None:
                    if self._holds(lease):
                        self._end_lease()
                    else:
                        self._revoke(lease)
                else:
                    # Commit point.
                    self._append(events.shutdown(immediate))
            self._close_burst()  # Our next put joins none.
            for kind in waiting.KINDS:
                self._ring_all(kind)
            self.ledger.trim()
            self._reclaim()
            self._act_ends()
