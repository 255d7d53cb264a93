"""A log of one's own: the end at which it grows, and how records are written there.

Lives here: the short way of a put, and writing to batch files.  Not here: what else it takes until a record is put
(``producer``), making batch files (``supply``), their bytes (``storage``).

Invariant: ``Log.put`` stores a record, then its end in the index, then the log's new total; ``Writer`` stores no total.
"""

from __future__ import annotations

import os
import sys
from array import array
from collections.abc import Callable, Sequence
from itertools import accumulate
from sys import gettrace

from tqshim.engine import tuning
from tqshim.protocol import index, pieces
from tqshim.protocol.index import Record
from tqshim.protocol.names import FileId
from tqshim.protocol.pieces import NewRecord, Pieces
from tqshim.runtime import mappings
from tqshim.runtime.clock import monotonic_ns
from tqshim.storage.batch_file import BatchFile
from tqshim.storage.folder import LogFolder
from tqshim.sync import cells as words_of
from tqshim.sync.cells import ASLEEP, BEYOND, MARKS_MOST, PAGE, SLEEPS, SLOTS, Cells

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, Optional

__all__ = ["NO_LOG", "GuardedLog", "Log", "Writer"]

_ASLEEP: Final = ASLEEP[SLEEPS]
_NOBODY: Final = bytes(8 * SLOTS)
"""The sleep cells of a page where nobody sleeps."""
_SLICES_COLLECT: Final = sys.version_info < (3, 12)
"""Making a slice may collect garbage."""
watchers: Callable[[], Any] = gettrace
"""Returns something true if anybody may watch the code that runs here, else ``None`` or something false."""

if sys.version_info >= (3, 12):
    from sys import monitoring

    # For each event, the tools that want it of all code, the tool of ``settrace`` among them.  A tool that wants events
    # of certain code alone also wants to know when any code begins, in order to ask for them.
    watchers = getattr(monitoring, "_all_events", lambda: True)
    _OF = monitoring.events
    _BETWEEN = _OF.LINE | _OF.INSTRUCTION | _OF.JUMP | _OF.BRANCH
    if sys.version_info >= (3, 14):
        _BETWEEN |= _OF.BRANCH_LEFT | _OF.BRANCH_RIGHT
    """Events that may happen in ``Log.put`` between its first look at the counter and its store."""


def _is_watched() -> bool:
    """Somebody's code may run between the lines of ``Log.put`` in this thread."""
    if sys.version_info >= (3, 12):
        code = Log.put.__code__
        for tool in range(6):  # the interpreter's own tools follow
            if monitoring.get_tool(tool) is not None and _BETWEEN & (
                monitoring.get_events(tool) | monitoring.get_local_events(tool, code)
            ):
                return True
    return gettrace() is not None


class Log:
    """The end of a log: the batch file in which it goes on, and the words that say how far it has got."""

    __slots__ = (
        "_cut",
        "_given",
        "_mark",
        "_marked",
        "batch",
        "cell",
        "counts",
        "due",
        "ends",
        "first",
        "flag",
        "memory",
        "size",
        "stop",
    )

    def __init__(self, counts: memoryview, slot: int, batch: Optional[BatchFile], first: int, stop: int) -> None:
        self.counts = counts
        self.due = 0
        """Until this time a put belongs to the last mark, in monotonic nanoseconds."""
        self._marked = 0
        """How many marks are used; 0: whatever the marks say is a former log's."""
        self._mark = Cells.first_mark(slot)
        self._cut = Cells.place(words_of.CUT_UP_TO, slot)
        self._given = Cells.place(words_of.GIVEN, slot)
        self.cell = Cells.place(words_of.COUNTER, slot)
        self.flag = Cells.place(words_of.FLAG, slot)
        self.batch = batch
        self.first = first
        """Records of the log before this file."""
        self.stop = stop
        """Records of the log up to which a put need not ask anybody."""
        if batch is not None:
            self.memory, self.ends, self.size = batch.memory, batch.ends, batch.size

    def put(self, record: bytes) -> int:
        """The short way of a put: write a small record and store the new total.

        Returns 0 where the record is not put: ask; -1 where it is put; else the new total: the record is put, and there
        is more to do (``Engine.has_put``).

        No lock is held: CPython changes threads, and runs signal handlers, only at calls and jumps back, and there is
        none from the first look at the counter to the store.  Where making a slice may collect garbage, which may run
        anything, the interpreter keeps the slice that is made first, and uses it again below."""
        size = len(record)
        if _SLICES_COLLECT:
            record[:0]
        counts = self.counts
        if watchers() and _is_watched():
            return 0  # a tracer lets other threads run between any two lines
        if self.stop and (now := monotonic_ns()) > self.due and not self.mark(now):
            return 0  # a cut comes first
        total = counts[self.cell]
        if total < self.stop:
            ends, number = self.ends, total - self.first
            begin = ends[number]
            end = begin + size
            if end <= self.size:
                self.memory[begin:end] = record
                ends[number + 1] = end
                # Commit point: from here on the item is in the queue.
                counts[self.cell] = total = total + 1
                if counts[self.flag] or counts[_ASLEEP]:
                    return total
                return -1
        return 0

    def mark(self, now: int) -> bool:
        """Mark the time for the records that are put from here on.  ``False``: too much of this log is not cut.

        As in ``put``, no other thread runs between the last look at ``due`` and the store to it."""
        counts = self.counts
        self.look_for_sleepers()
        if now <= self.due:
            return True  # another thread, or a handler, has made a mark since: a later one
        total, number, first = counts[self.cell], self._marked, self._mark
        if total == counts[self._cut]:
            number = 0  # whatever the marks say is of no use any more
        elif not number:
            return False
        elif counts[(last := first + 2 * number - 2)] == total:
            number -= 1  # nothing was put since the last mark
        elif number > 1 and counts[last] < counts[self._given]:
            # All records before the last mark are delivered.  If the record before ``_given`` is not, it belongs to the
            # last mark, which is kept: its time is stored first.
            counts[first + 1] = counts[last + 1]
            counts[first] = counts[last]
            number = 1
        elif number == MARKS_MOST:
            return False
        at = first + 2 * number
        counts[at] = total
        counts[at + 1] = now
        self._marked = number + 1
        self.due = now + tuning.MARK_EVERY
        return True

    def look_for_sleepers(self) -> None:
        """Say that somebody sleeps, if a sleep cell shows it.

        A sleeper that is rung for has a millisecond to say whether others sleep: if it was killed, this put rings."""
        counts = self.counts
        if not counts[_ASLEEP] and (counts[BEYOND] or counts[SLEEPS : SLEEPS + SLOTS].tobytes() != _NOBODY):
            counts[_ASLEEP] = 1

    @property
    def is_watched(self) -> bool:
        """Somebody may let other threads run between any two lines."""
        return bool(watchers()) and _is_watched()


class GuardedLog(Log):
    """A log where threads run at once: one of them at a time grows the log, or has an act."""

    __slots__ = ("_lock",)

    def __init__(self, lock: Any, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._lock = lock

    def put(self, record: bytes) -> int:
        with self._lock:
            return Log.put(self, record)

    def mark(self, now: int) -> bool:
        with self._lock:
            return Log.mark(self, now)


NO_LOG: Final = Log(memoryview(bytes(PAGE)).cast("Q"), 0, None, 0, 0)
"""The log of a process that has put nothing: each put asks."""


class Writer:
    """Writes records to batch files, by whichever way is the cheapest there."""

    __slots__ = ("_folder", "beside", "harden", "protected")

    def __init__(self, folder: LogFolder) -> None:
        self._folder = folder
        self.protected: Callable[[FileId, int, Sequence[NewRecord]], Sequence[NewRecord]] = _as_they_are
        """Makes what is written of records: what follows each makes its file, and its place there, known."""
        self.beside = 0
        """Bytes that ``protected`` puts behind each record."""
        self.harden: Optional[Callable[[BatchFile], object]] = None
        """Of a durable queue: hardens what was written to that file."""

    @property
    def is_dressed(self) -> bool:
        """A record is not written as it is, or not to memory alone."""
        return self.protected is not _as_they_are or tuning.CHECK_ALL or self.harden is not None

    def room_of(self, record: NewRecord) -> int:
        """Bytes that a record takes in a file, at most."""
        return len(record) + self._beside + (pieces.MOST_BEFORE if isinstance(record, Pieces) else 0)

    @property
    def _beside(self) -> int:
        """Bytes that follow each record."""
        return self.beside + (index.CHECK if tuning.CHECK_ALL else 0)

    def write(self, log: Log, total: int, records: Sequence[NewRecord]) -> int:
        """Write records behind the log's last one, which is number ``total``; returns how many."""
        assert log.batch is not None
        number = total - log.first
        begin = log.ends[number]
        records = pieces.placed(records, begin, self._beside)
        records = self.protected(log.batch.file, number, records)
        if tuning.CHECK_ALL:
            records = [_checked(log.batch.file, at, record) for at, record in enumerate(records, number)]
        if self.harden is not None:
            # By system calls: not on every system does ``fsync`` of a descriptor cover what was stored to memory.
            self._write_pieces(log.batch, begin, pieces.parts(records))
            ends = array("Q", accumulate(map(len, records), initial=begin))
            self._folder.write_at(log.batch.fd, ends.tobytes(), number * ends.itemsize)
            self.harden(log.batch)
            return len(records)
        if log.batch.fd >= 0 and sum(map(len, records)) >= tuning.BLOCK_BYTES:
            self._write_large(log.batch, begin, records)
        else:
            mappings.store(log.memory, pieces.parts(records), begin)
        if len(records) == 1:
            log.ends[number + 1] = begin + len(records[0])
            return 1
        for place, end in enumerate(accumulate(map(len, records), initial=begin), number):
            log.ends[place] = end
        return len(records)

    def _write_large(self, batch: BatchFile, begin: int, records: Sequence[NewRecord]) -> None:
        """Write records to a file that was made for large ones."""
        parts = pieces.parts(records)
        # A system call finds pages that are not mapped more cheaply than a store, and need not clear the pages that it
        # fills.  Nor does it mind a file that somebody has cut short.
        if batch.in_memory and os.fstat(batch.fd).st_size >= batch.size:
            mappings.store(batch.memory, parts, begin)
        else:
            self._write_pieces(batch, begin, parts)

    def _write_pieces(self, batch: BatchFile, at: int, parts: list[Record]) -> None:
        for first in range(0, len(parts), tuning.PARTS):
            some = parts[first : first + tuning.PARTS]
            self._folder.write_parts(batch.fd, some, at)
            at += sum(map(len, some))


def _as_they_are(file: FileId, number: int, records: Sequence[NewRecord]) -> Sequence[NewRecord]:
    return records


def _checked(file: FileId, number: int, record: NewRecord) -> NewRecord:
    data = b"".join(record.parts) if isinstance(record, Pieces) else bytes(record)
    return data + index.check(data, file, number)
