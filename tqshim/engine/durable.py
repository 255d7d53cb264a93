"""Durable queues: what a put has put survives a power cut.

Lives here: the order in which things get on the disk, the threads that share one wait for it, and the journal that a
power cut leaves.  Not here: how a file gets on the disk (``storage``), what a put writes (``producer``).

::

    put       write records and index ──> harden the file, and its name ──> append PUBLISH ──> harden the journal
    roll      write the next journal ──> harden it, and its roll_ name ──> append SEAL ──> rename
              ──> harden that name ──> remove the old one, append to the new one
    reclaim   harden the journal ──> remove the batch file, or leave it to be refilled
    open      harden all names that lead to the journal ──> append to it

*To harden* is what ``fsync`` does: it returns when the disk has the data.  A power cut may take any part of what is
appended and not hardened: the journal then ends at its first hole, and the next process to open the queue goes on from
there in a new journal.  So what is lost is an end of the journal, all of it younger than the last put that returned.
Of a batch file only the records that a PUBLISH names count, and these are whole.

Cells are in memory, and nothing in them survives: counters say nothing here, each put appends its own PUBLISH, nobody
takes a lease or a reservation.

Invariant: an event is appended only once no power cut can take the bytes, the file or the journal that it names; and
nothing is deleted that is needed again if a power cut takes the end of the journal.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from functools import partial
from threading import get_ident

from tqshim.engine import tuning
from tqshim.engine.membership import Membership
from tqshim.engine.producer import Producer
from tqshim.engine.replica import Replica
from tqshim.errors import FolderError
from tqshim.protocol import snapshot
from tqshim.protocol.names import FileId
from tqshim.protocol.pieces import NewRecord
from tqshim.runtime import locks
from tqshim.runtime.clock import monotonic
from tqshim.storage import hardening
from tqshim.storage.batch_file import BatchFile
from tqshim.storage.folder import LogFolder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, Optional

__all__ = ["Crowd", "Disk", "open_surely"]

PATIENCE: Final = 0.5
"""Seconds for which a thread waits to be rung for before it looks by itself: the thread that was to ring was killed."""


# -- opening


def open_surely(replica: Replica) -> None:
    """Make sure that the opened journal is on the disk, and go on without an end that is not whole."""
    while _ends_in_hole(replica):
        _go_on_without_end(replica)
    folder = replica.folder
    hardening.hold_again(folder)
    hardening.harden_names(folder)
    hardening.harden_path(folder)


def _ends_in_hole(replica: Replica) -> bool:
    """Return whether a power cut has left more in the journal than can be read: events behind others that it has taken.

    There is also more while another process is just writing: but that can be read in a moment, and does not happen
    where nobody else is there."""
    folder = replica.folder
    deadline = monotonic() + tuning.UNSEEN_PATIENCE
    while (at := replica.pos) < replica.journal.size():
        alone = hardening.hold_alone(folder)
        newer = folder.newest() != replica.journal.number
        replica.sync()
        if alone:  # For no longer than this look: a process that is stopped here keeps others out.
            hardening.hold_again(folder)
        if newer:  # another process was faster, and has gone on without that end
            _load_newer(replica)
        if newer or replica.pos > at:
            deadline = monotonic() + tuning.UNSEEN_PATIENCE
        elif alone or monotonic() > deadline:
            return True
        else:
            time.sleep(1e-3)
    return False


def _go_on_without_end(replica: Replica) -> None:
    """Make a journal that begins with the state before the hole.  Nobody appends to the old one any more: each
    process that opens the queue comes here first, and all that had it open are gone with the power.

    If this process is killed in here it leaves a journal under its roll_ name, which the next scan removes; or the
    queue goes on from the new journal."""
    ledger, folder = replica.ledger, replica.folder
    number = replica.journal.number + 1
    key = folder.prepare_roll(number, partial(snapshot.dump, ledger, True), ledger.next_limit)
    # Commit point: the first link.  Another process that makes a journal in the place of this one makes the same.
    folder.give_name(number, key)
    _load_newer(replica)


def _load_newer(replica: Replica) -> None:
    old = replica.journal
    replica.load()
    old.close()


# -- what is on the disk


class Disk:
    """How much of what this process has written is on the disk."""

    __slots__ = ("_failed", "_folder", "_hard", "_named", "_replica")

    def __init__(self, folder: LogFolder, replica: Replica) -> None:
        self._folder = folder
        self._replica = replica
        self._hard = 0
        """The journal is on the disk up to this place, which counts all journals' bytes."""
        self._named: Optional[FileId] = None
        """The batch file whose name is on the disk."""
        self._failed: Optional[OSError] = None
        """Why the journal, or the name of a file, could not be hardened.  A second try might say that it was, though it
        was not.  Of records no such note is needed: what has been written of them is written anew."""

    def check(self) -> None:
        """Raise ``FolderError`` where no promise can be given any more."""
        if self._failed is not None:
            raise self._no_promise()

    def _no_promise(self) -> FolderError:
        finding = f"what is written there does not reach the disk ({self._failed})"
        return FolderError(self._folder.path, finding, "recover the items into a folder on another disk")

    def harden_records(self, batch: BatchFile) -> None:
        """Harden what was written to a batch file: then an event may name it.

        Raises ``OSError`` where that fails: the next put writes its records in that place."""
        hardening.harden(batch.fd)
        if self._named != batch.file:
            self._harden_names()
            self._named = batch.file

    def harden_journal(self) -> None:
        """Harden all events that this process has appended, and the ones before them.

        Raises ``FolderError`` where no promise can be given any more."""
        place = self._replica.now
        if place <= self._hard:
            return
        self.check()
        try:
            hardening.harden(self._replica.journal.fd)
        except OSError as error:
            self._failed = error
            raise self._no_promise() from None
        self._hard = place

    def _harden_names(self) -> None:
        try:
            hardening.harden_names(self._folder)
        except OSError as error:
            self._failed = error
            raise self._no_promise() from None

    def has_rolled(self) -> None:
        """Harden the names after a roll.  The new journal's beginning is on the disk, or no SEAL would name it."""
        self._harden_names()
        self._hard = self._replica.now

    def lets_remove(self) -> bool:
        """Harden the journal, so that what is got by now stays got after a power cut.

        ``False``: batch files stay, their items may come again."""
        try:
            self.harden_journal()
        except FolderError:
            return False
        return True


# -- threads that put at once


class _Putting:
    """A thread that puts, and waits until it, or another thread, has made the put sure."""

    __slots__ = ("bell", "end", "put", "records")

    def __init__(self, records: list[NewRecord]) -> None:
        self.records = records
        self.end: Optional[tuple[int, int]] = None
        """The number of the member that has begun to put the records, and where its log will end with the last of
        them."""
        self.put: Optional[int] = None
        """How many of the records are put, once that is known."""
        self.bell = threading.Lock()
        """Locked until there is something new to know, or no other thread leads."""
        self.bell.acquire()

    def ring(self) -> None:
        with contextlib.suppress(RuntimeError):  # it was rung for already
            self.bell.release()


class Crowd:
    """The threads that put at once: one of them leads, and puts and hardens for all that have come by then, while
    threads that come later wait for the next to lead.

    Invariant: what an interrupted leader has put is known by its member and its total, and the threads hear of
    it before another leader puts anything."""

    __slots__ = ("_disk", "_leader", "_members", "_producer", "_replica", "_turn", "waiting")

    def __init__(self, disk: Disk, replica: Replica, members: Membership, producer: Producer) -> None:
        self._disk = disk
        self._replica = replica
        self._members = members
        self._producer = producer
        self._turn: Any = locks.Lock()
        """Held by the thread that leads."""
        self._leader = 0
        """That thread, while the lock is held."""
        self.waiting: list[_Putting] = []
        """Oldest first."""

    @property
    def is_led_here(self) -> bool:
        """The caller runs in a signal handler, or a destructor, that has interrupted the leader."""
        # 0: the lock's owner is just taking it or giving it back, and may be the frame below.
        return self._leader in (0, get_ident()) and bool(self._turn.locked()) and not self._replica.stale

    def put(
        self,
        records: list[NewRecord],
        act: Callable[..., object],
        put_once: Callable[[list[NewRecord], bool], int],
    ) -> int:
        """Put records, with those of other threads that come while the disk is busy.  Returns how many were put: all,
        or none in a bounded queue; fewer in an unbounded one where it was shut down.

        ``act`` does something with the engine's lock held; ``put_once`` puts some records in such an act.  Raises
        ``OSError``."""
        self._disk.check()
        me = get_ident()
        mine = _Putting(records)
        self.waiting.append(mine)
        try:
            while True:  # Not ``while`` a condition: as in ``TurboQueue.get_many``.
                if mine.put is not None:
                    break
                if self._replica.stale:  # forked in the middle: the parent puts them
                    return len(records)
                if self._turn.locked():  # then its holder rings in a moment
                    mine.bell.acquire(timeout=PATIENCE)
                    continue
                with self._turn:
                    try:
                        self._leader = me
                        if mine.put is None:
                            self._lead(mine, act, put_once)
                    finally:
                        self._leader = 0
        finally:
            with contextlib.suppress(ValueError):  # a leader has taken it out
                self.waiting.remove(mine)
            for next_one in self.waiting[:1]:
                next_one.ring()
        return mine.put

    def _lead(
        self,
        mine: _Putting,
        act: Callable[..., object],
        put_once: Callable[[list[NewRecord], bool], int],
    ) -> None:
        """Put and harden the records of all threads that wait by now, and tell the threads."""
        try:
            act(self._put_all, self.waiting[:], put_once)
        except OSError:
            if self._replica.stale:
                return
            # The act came half-way: what has been put is not to be put again.  The others find out for themselves.
            act(self._settle, [mine])
            if mine.put is None:
                raise

    def _put_all(self, crowd: list[_Putting], put_once: Callable[[list[NewRecord], bool], int]) -> None:
        if self._replica.stale:
            return
        self._settle(crowd)
        left = [one for one in crowd if one.put is None]
        counts: list[int] = []
        while len(counts) < len(left):
            group = self._group(left[len(counts) :])
            count = self._put_together(group, put_once)
            if not count and len(group) > 1:
                group = group[:1]  # There are not so many places: each thread's records alone.
                count = self._put_together(group, put_once)
            for one in group:
                counts.append(min(count, len(one.records)))
                count -= counts[-1]
        self._disk.harden_journal()
        for one, count in zip(left, counts):
            self._tell(one, count)

    def _group(self, left: list[_Putting]) -> list[_Putting]:
        """Return the first of these threads, as far as there are places for their records."""
        ledger = self._replica.ledger
        if not ledger.maxsize:
            return left
        self._replica.sync()
        room = self._replica.ledger.maxsize - self._replica.ledger.used
        for at, one in enumerate(left):
            room -= len(one.records)
            if room < 0:
                return left[: max(1, at)]
        return left

    def _put_together(self, group: list[_Putting], put_once: Callable[[list[NewRecord], bool], int]) -> int:
        number, total = self._producer.end()
        for one in group:
            total += len(one.records)
            one.end = number, total
        records = group[0].records if len(group) == 1 else [record for one in group for record in one.records]
        count = put_once(records, True)
        if not count:
            for one in group:
                one.end = None  # else what others put next would be taken for these records
        return count

    def _settle(self, crowd: list[_Putting]) -> None:
        """Tell the threads among these whose records an interrupted leader has put."""
        for one in crowd:
            if one.end is None or one.put is not None:
                continue
            number, end = one.end
            slot = self._producer.slot
            put = 0
            if slot is not None and self._members.slots.get(slot) == number:
                put = len(one.records) - max(0, end - self._replica.ledger.totals[slot])
            if put > 0:
                self._disk.harden_journal()
                self._tell(one, put)
            else:
                one.end = None

    def _tell(self, one: _Putting, count: int) -> None:
        one.put = count
        with contextlib.suppress(ValueError):  # the thread was interrupted, and is gone
            self.waiting.remove(one)
        one.ring()
