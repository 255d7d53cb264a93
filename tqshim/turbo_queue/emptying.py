"""Working batches off: what one consumer of the original's API does.

Lives here: taking the next batch, handing out its events, ending it or giving it back.  Not here: filling one, forks
and the end of the program (``batching``), what an event is (``turbo_queue``), what a file looks like
(``sqlite_files``).

Invariant: what has been taken is handed out once by one process, until that process says that it is done or gives the
batch back.
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
"""Seconds for which a consumer that has been told ``None`` looks for a batch before it is told again; 0.8.0's."""
LOOK_FIRST: Final = 0.001
LOOK_LAST: Final = 0.01
"""Seconds between two looks: doubling, from the first to the last."""
NAMES: Final = 64
"""Names of ready batches that are kept from one listing."""
NAMES_LIFE: Final = 1.0
"""Seconds for which they are: a batch that was given back may be older than they are."""

_log: Final = logging.getLogger(__name__)


class Emptying(Member):
    """The batch that a consumer works off, and those to come.

    A crash leaves the batch whole, to be recovered: what was handed out of it comes again."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = ""
        self.number: Optional[object] = None
        self.keep = False
        """A batch ends when its consumer says so, not when it comes back for more."""
        self.batches = 0
        self.rows: Iterator[Row] = iter(())
        """What is there to be handed out; all that hand out share it."""
        self._list: list[Row] = []
        self._before = 0
        """Rows of this batch that came before those in the list."""
        self._batch: Optional[Unloading] = None
        self._over = False
        """All of the batch was handed out, and its consumer came back for more."""
        self._bad: list[Row] = []
        self._told = True
        """``None`` was the last answer."""
        self._names: list[str] = []
        self._listed = 0.0

    @property
    def file_path(self) -> Optional[str]:
        """Where the batch is that is being worked off."""
        return self._batch.path if self._batch else None

    def more(self) -> bool:
        """Whether ``rows`` has some now; takes the next batch if need be.

        ``False`` at once where a batch has just ended and there is no other, else after ``EMPTY_PATIENCE`` seconds.
        Raises ``OSError`` or ``sqlite3.Error`` where files can't be read or moved."""
        with self.lock:
            if self._read():
                return True
            if self._batch is not None and not self.keep:
                # Its consumer is back after the last event: now it is done, unless there is nothing to go on with.
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
        """Read on in the batch, where all of it that was read is handed out."""
        if self.rows.__length_hint__():  # type: ignore[attr-defined]
            return True  # another thread did
        if self._batch is None or self._over:
            return False
        self._before += len(self._list)
        self._list = self._batch.read()
        self.rows = iter(self._list)
        return bool(self._list)

    def _next(self) -> bool:
        """Take the next batch that has events; whether there was one."""
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
                self._finish()  # no events in it: 0.8.0 publishes such batches

    def bad(self, row: Row) -> None:
        """Nobody can read this row: it is kept aside when the batch is done."""
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
        self._list.clear()  # also for loops in the middle of it
        self._list = []
        self._before = 0
        self._over = False
        return batch

    def finish(self) -> None:
        """The batch is done, also what was not handed out of it: its file goes.  Nothing happens without a batch."""
        with self.lock:
            self._finish()

    def put_back(self, rest: bool = False) -> None:
        """Make the batch ready again: all of it, or only the ``rest`` that was not handed out.

        Nothing happens without a batch."""
        with self.lock:
            done = self._before + len(self._list) - self.rows.__length_hint__()  # type: ignore[attr-defined]
            over = self._over
            bad, self._bad = self._bad, []
            self._names = []  # it is older than they are
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
        """The program ends: a batch that its consumer came back from is done, any other is ready again."""
        try:
            with self.lock:
                if self._over:
                    self._finish()
                else:
                    self.put_back()
        except Exception:
            _log.exception("%s: a batch could not be given back", self.folder)
