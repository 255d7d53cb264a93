"""Working batches off: what one consumer of the original's API does.

Lives here: taking the next batch, handing out its events, ending it or giving it back.  Not here: filling batches,
forks and the end of the program (``batching``), what an event is (``turbo_queue``), what a file looks like
(``sqlite_files``).

Invariant: one process hands out the events of a batch that it has taken, each once, until it says that the batch is
done or gives the batch back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Final, Optional

from tqshim.runtime.clock import monotonic
from tqshim.turbo_queue import sqlite_files
from tqshim.turbo_queue.batching import Member
from tqshim.turbo_queue.sqlite_files import Row, Unloading

__all__ = ["Emptying"]

EMPTY_PATIENCE: Final = 0.5
"""Seconds for which a consumer that has got ``None`` looks for a batch before it gets ``None`` again, as in 0.8.0."""
LOOK_FIRST: Final = 0.001
LOOK_LAST: Final = 0.01
"""Seconds between two looks: each pause is twice as long as the one before, from ``LOOK_FIRST`` up to this."""
NAMES: Final = 64
"""Names of ready batches that are kept from one listing, at most."""
NAMES_LIFE: Final = 1.0
"""Seconds for which these names are kept: a batch that is given back meanwhile may be older than theirs."""

_log: Final = logging.getLogger(__name__)


class Emptying(Member):
    """The batch that a consumer works off, and the later ones.

    A crash leaves the batch whole, to be recovered: events that were handed out come again."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = ""
        self.number: Optional[object] = None
        self.keep = False
        """A batch ends when its consumer says so, not when it comes back for more."""
        self.batches = 0
        self.rows: Iterator[Row] = iter(())
        """The rows that can be handed out now; all threads that hand out events share this iterator."""
        self._list: list[Row] = []
        self._before = 0
        """Rows of this batch that came before those in the list."""
        self._batch: Optional[Unloading] = None
        self._over = False
        """All of the batch was handed out, and its consumer has asked for more."""
        self._bad: list[Row] = []
        self._told = True
        """The consumer has got ``None`` since its last event, or has got nothing yet."""
        self._names: list[str] = []
        self._listed = 0.0

    @property
    def file_path(self) -> Optional[str]:
        """The path of the file that is being worked off."""
        return self._batch.path if self._batch else None

    def more(self) -> bool:
        """Read on, or take the next batch; return whether ``rows`` has some now.

        ``False`` comes at once where a batch has just ended and there is no other, or ``keep`` keeps it; else after
        ``EMPTY_PATIENCE`` seconds.
        Raises ``OSError`` or ``sqlite3.Error`` where files can't be read or moved."""
        with self.lock:
            if self._read():
                return True
            if self._batch is not None and not self.keep:
                # The consumer has asked for more after the last event.  The batch is done when there is an event to go
                # on with, or when the consumer asks once more.
                if self._over:
                    self._finish()
                else:
                    self._over = True
        if self._batch is not None and self.keep:
            self._told = True
            return False
        patience = EMPTY_PATIENCE if self._told else 0.0
        deadline = monotonic() + patience
        pause = LOOK_FIRST
        while not self._next():
            left = deadline - monotonic()
            if left <= 0:
                self._told = True
                return False
            time.sleep(min(pause, left))
            pause = min(2 * pause, LOOK_LAST)
        self._told = False
        return True

    def _read(self) -> bool:
        """Read on in the batch if all rows that were read are handed out; return whether ``rows`` has some now."""
        if self.rows.__length_hint__():  # type: ignore[attr-defined]
            return True  # another thread has read on
        if self._batch is None or self._over:
            return False
        self._before += len(self._list)
        self._list = self._batch.read()
        self.rows = iter(self._list)
        return bool(self._list)

    def _next(self) -> bool:
        """Take the next batch that has events; return whether there is one."""
        with self.lock:
            if self._read():
                return True  # another thread was faster
            if self._batch is not None and self.keep:
                return False
            listed = False
            while True:
                if not self._names or monotonic() - self._listed > NAMES_LIFE:
                    if listed:
                        return False
                    self._names = sqlite_files.ready_names(self.folder)[:NAMES][::-1]
                    self._listed = monotonic()
                    listed = True
                    if not self._names:
                        return False
                batch = sqlite_files.take(self.folder, self._names.pop(), self.number)
                if batch is None:
                    continue
                try:
                    self._finish()
                finally:
                    self._batch = batch
                    self.batches += 1
                if self._read():
                    return True
                self._finish()  # a batch without events: 0.8.0 makes such batches ready

    def bad(self, row: Row) -> None:
        """Remember a row that nobody can read: it is set aside when the batch is done."""
        self._bad.append(row)

    def _finish(self) -> None:
        batch = self._forget()
        bad, self._bad = self._bad, []
        if batch is not None:
            if bad:
                batch.set_aside(bad)
            else:
                batch.remove()

    def _forget(self) -> Optional[Unloading]:
        batch, self._batch = self._batch, None
        self._list.clear()  # ends loops, also of other threads, that are in the middle of the list
        self._list = []
        self._before = 0
        self._over = False
        return batch

    def finish(self) -> None:
        """End the batch, with what was not handed out of it: its file goes.  Nothing happens without a batch."""
        with self.lock:
            self._finish()

    def put_back(self, rest: bool = False) -> None:
        """Make the batch ready again: all of it, or only the ``rest`` that was not handed out.

        Nothing happens without a batch."""
        with self.lock:
            done = self._before + len(self._list) - self.rows.__length_hint__()  # type: ignore[attr-defined]
            over = self._over
            bad, self._bad = self._bad, []
            self._names = []  # the batch may be older than these
            batch = self._forget()
            if batch is None:
                return
            if rest and over:
                self._batch, self._bad = batch, bad
                self._finish()
            else:
                batch.put_back(done if rest else 0)

    def forked(self) -> None:
        """The batch is the parent's."""
        super().forked()
        self._bad = []
        self._names = []
        batch = self._forget()
        if batch is not None:
            self._inherited.append(batch)

    def retire(self) -> None:
        """At the end of the program: end a batch after whose last event the consumer has asked for more; else make it
        ready again."""
        try:
            with self.lock:
                if self._over:
                    self._finish()
                else:
                    self.put_back()
        except Exception:
            _log.exception("%s: a batch could not be given back", self.folder)
