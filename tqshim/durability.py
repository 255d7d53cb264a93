"""The engine of a durable queue: what a put has put survives a power cut.

Lives here: what is on the disk before what, and the journal that a power cut leaves.  Not here: how a file gets on the
disk (``folder``), and all else that a put and a get do (the layers below).

::

    put       write the block ──> harden it, and the name of its file ──> append PUBLISH ──> harden the journal
    roll      write the next journal ──> harden it, and its roll_ name ──> append SEAL ──> rename
              ──> harden that name ──> remove the old one, append to the new one
    reclaim   harden the journal ──> remove the batch file, or leave it to be refilled
    open      harden all names that lead to the journal ──> append to it

*To harden* is what ``fsync`` does: it returns when the disk has it.  What is appended and not hardened may be lost at a
power cut, any part of it: the journal then ends at its first hole, and whoever opens the queue goes on from there in a
new journal.  So what is lost is an end of the journal, all of it younger than the last put that returned.

Invariant: no event is appended that names bytes, a file or a journal which a power cut could take; and nothing is
deleted that is needed again if a power cut takes the end of the journal.
"""

from __future__ import annotations

import contextlib
import threading
import time
from functools import partial
from typing import Any, Optional

from . import locks, tuning
from .blocks import NewRecord
from .clock import monotonic
from .errors import FolderError
from .finishing import Finishing
from .folder import Folder
from .names import FileId

__all__ = ["Durability"]


class _Putting:
    """A thread that puts, and waits for itself or another to make it sure."""

    __slots__ = ("bell", "left", "records")

    def __init__(self, records: list[NewRecord]) -> None:
        self.records = records
        self.left: Optional[int] = None
        """How many of them were not put, once that is known."""
        self.bell = threading.Lock()
        """Locked, until there is something new to know, or nobody else who leads."""
        self.bell.acquire()

    def ring(self) -> None:
        with contextlib.suppress(RuntimeError):  # it was rung for already
            self.bell.release()


class Durability(Finishing):
    """An engine whose puts are on the disk when they return.  It keeps no burst back and takes no lease: how far that
    has got stands in no journal."""

    durable = True

    def __init__(self, folder: Folder) -> None:
        self._turn: Any = locks.Lock()
        """Held by the thread that publishes and hardens for all that put."""
        super().__init__(folder)

    def _reset(self) -> None:
        super()._reset()
        self._hard = 0
        """The journal is on the disk up to this place, which counts all journals' bytes."""
        self._named: Optional[FileId] = None
        """The batch file whose name is on the disk."""
        self._crowd: list[_Putting] = []
        """The threads that are putting, oldest first."""
        self._failed: Optional[OSError] = None
        """Why the journal, or the name of a file, could not be hardened.  A second try might say that it was, and it
        was not; what has been written of a block is written anew."""

    def forked(self) -> None:
        """In a forked child, before anything else."""
        super().forked()
        self._turn = locks.Lock()

    # -- opening

    def _load(self) -> None:
        self.folder.durable = True  # Before: the newest journal may be sealed, and its successor have no name yet.
        super()._load()
        while self._ends_in_hole():
            self._go_on_without_end()
        self.folder.hold_again()
        self.folder.harden_names()
        self.folder.harden_path()

    def _ends_in_hole(self) -> bool:
        """There is more in the journal than can be read: events that a power cut has kept, behind others that it has
        taken.  Or somebody is writing just now, and that is to be seen in a moment: but not if nobody else is there."""
        deadline = monotonic() + tuning.UNSEEN_PATIENCE
        while (at := self._pos) < self.journal.size():
            alone = self.folder.hold_alone()
            newer = self.folder.newest() != self.journal.number
            self._sync()
            if alone:  # For no longer than this look: whoever is stopped here keeps others out.
                self.folder.hold_again()
            if newer:  # another was faster, and has gone on without that end
                self._load_newer()
            if newer or self._pos > at:
                deadline = monotonic() + tuning.UNSEEN_PATIENCE
            elif alone or monotonic() > deadline:
                return True
            else:
                time.sleep(1e-3)
        return False

    def _go_on_without_end(self) -> None:
        """Make a journal that begins with the state before the hole.  Nobody appends to the old one any more: whoever
        opens the queue comes here first, and those who had it open are gone with the power.

        Killed in here: a journal under its roll_ name, that the next scan removes; or the queue goes on from the new
        one."""
        number = self.journal.number + 1
        key = self.folder.prepare_roll(number, partial(self.ledger.snapshot, True), self.ledger.next_limit)
        # Commit point: the first link.  Whoever prepares a journal in the place of this one prepares the same.
        self.folder.give_name(number, key)
        self._load_newer()

    def _load_newer(self) -> None:
        old = self.journal
        super()._load()
        old.close()

    # -- putting

    def _is_taken(self) -> bool:
        return super()._is_taken() or bool(self._turn.locked())

    def put(self, record: NewRecord, block: bool, timeout: Optional[float]) -> bool:
        """Put one record.  ``False``: the queue was full all the time."""
        return self.put_many([record], block, timeout) == 1

    def _put_many(self, records: list[NewRecord], block: bool, timeout: Optional[float]) -> int:
        if self._failed is not None:
            raise self._no_promise()
        if not self.maxsize:
            return self._put_together(records)
        put = super()._put_many(records, block, timeout)
        if put:
            self._make_sure()
        return put

    def _put_together(self, records: list[NewRecord]) -> int:
        """Put records, with those of other threads that come while the disk is busy: all of them are one block, and
        are hardened once.  Returns how many were put: fewer only where the queue was shut down."""
        if self._stale:  # a forked child: first it forgets what its parent holds back
            self._make_sure()
        generation = self.generation
        mine = _Putting(records)
        self.records += records  # Whoever publishes next publishes these, too.
        self._crowd.append(mine)
        try:
            while mine.left is None:
                if generation != self.generation:  # forked in the middle: the parent puts them
                    return len(records)
                if self._turn.locked():  # then its holder rings in a moment
                    mine.bell.acquire(timeout=tuning.FLUSH_PATIENCE)
                else:
                    with self._turn:
                        if mine.left is None:
                            self._lead(mine)
        finally:
            with contextlib.suppress(ValueError):  # a leader has taken it out
                self._crowd.remove(mine)
            for next_one in self._crowd[:1]:
                next_one.ring()
        return len(records) - mine.left

    def _lead(self, mine: _Putting) -> None:
        """Publish and harden what is held back, and tell the threads whose it is."""
        crowd = self._crowd[:]
        with self._lock:
            self._begin()
            try:
                self._publish_surely()
            except OSError:
                self._begin()  # An act that came half-way: what has been published is none of ours to take back.
                if self._take_back(mine.records):
                    self._act_ends()
                    raise
                crowd = [mine]  # The others find out for themselves.
            lefts = []
            for one in crowd:  # From 3.12 on what a tracer raises in a comprehension here leaves the lock taken.
                lefts.append(self._take_back(one.records))
            self._harden_journal()
            self._act_ends()
        for one, left in zip(crowd, lefts):
            one.left = left
            with contextlib.suppress(ValueError):  # it was interrupted, and is gone
                self._crowd.remove(one)
            one.ring()

    def _take_back(self, records: list[NewRecord]) -> int:
        """Hold those of these records back no more that have not been published; returns how many they are."""
        last = records[-1]
        end = next((at for at, held in enumerate(self.records, 1) if held is last), 0)
        count = min(end, len(records))
        del self.records[end - count : end]
        return count

    def _publish_late(self, new: int = 0) -> int:
        """The queue was shut down.  No put of what is held back has returned: each takes its own back."""
        self._publishing = None
        return 0

    def _publish_one(self, record: NewRecord) -> Optional[bool]:
        """Always the long way, which hardens what it writes."""
        return None

    def _write(self, records: list[NewRecord], giant: bool) -> None:
        super()._write(records, giant)
        # Before the commit point: what the event will name is there for good.
        self.folder.harden(self._file_fd)
        if self._named != self._file:
            self._harden_names()
            self._named = self._file

    # -- the journal

    def _make_sure(self) -> None:
        """All events that this process has appended are on the disk."""
        if self._stands_above_itself():
            return  # It is done later, and that act makes sure.
        with self._lock:
            self._begin()
            self._harden_journal()
            self._act_ends()

    def _harden_journal(self) -> None:
        place = self._pos + self._shift
        if place <= self._hard:
            return
        if self._failed is not None:
            raise self._no_promise()
        try:
            self.folder.harden(self.journal.fd)
        except OSError as error:
            self._failed = error
            raise self._no_promise() from None
        self._hard = place

    def _harden_names(self) -> None:
        try:
            self.folder.harden_names()
        except OSError as error:
            self._failed = error
            raise self._no_promise() from None

    def _no_promise(self) -> FolderError:
        finding = f"what is written there does not reach the disk ({self._failed})"
        return FolderError(self.folder.path, finding, "recover the items into a folder on another disk")

    def _next_journal(self) -> None:
        super()._next_journal()
        # Its beginning is on the disk, or it would not have been sealed in.  Now its name is, too.
        self._harden_names()
        self._hard = self.journal.start + self._shift

    # -- getting

    def _wants_lease(self, most: int) -> bool:
        return False

    def _remove(self, file: FileId) -> None:
        try:
            self._harden_journal()
        except FolderError:  # The file stays: after a power cut its items are there again.
            return
        super()._remove(file)

    # -- ending

    def task_done(self) -> bool:
        """One more item is finished with, and will be so after a power cut.  ``False``: all were."""
        done = super().task_done()
        self._make_sure()
        return done

    def shutdown(self, immediate: bool) -> None:
        """As the base's; and it will be so after a power cut."""
        super().shutdown(immediate)
        self._make_sure()

    def _leave(self) -> None:
        super()._leave()
        self._harden_journal()
