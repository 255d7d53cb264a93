"""The engine: one a process and folder, shared by all its handles and threads.

Lives here: when to publish, claim, lease, reserve, roll, wait and reclaim; forks, signals, exit.  Not here: what an
event does (``ledger``), how it reaches the disk (``folder``), how one sleeps (``waiting``), pickling (``queues``).

Invariant: ``_lock`` is held over every act, ``_unsure`` is set while one is under way.  An exception in between
(Ctrl-C, a signal handler, a full disk) leaves it set, and the next act begins by asking the journal what has happened.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from multiprocessing import context, reduction, util
from time import monotonic
from typing import Any, ClassVar, Final, Optional

from . import blocks, events, names, waiting
from . import ledger as rules
from .blocks import Record
from .errors import CorruptBatchError, FolderError
from .folder import NO_SPACE, Folder, Journal, reclaim, sweep
from .ledger import Block, Lease, Ledger, Reservation, Verdict
from .names import FileId
from .waiting import Bell, Cells

__all__ = ["Engine"]

_WITHOUT: Final = frozenset(os.environ.get("TQSHIM_WITHOUT", "").split(","))
"""Optimisations that are switched off: the suites run with and without each."""
BURSTS: Final = "bursts" not in _WITHOUT
LEASES: Final = "leases" not in _WITHOUT
RESERVATIONS: Final = "reservations" not in _WITHOUT
SPINNING: Final = "spinning" not in _WITHOUT

LIMITS = (rules.FIRST_LIMIT, rules.LAST_LIMIT)
"""Events of the first and of the largest journal of a new queue."""
BLOCK_RECORDS: Final = 256
BLOCK_BYTES: Final = 1 << 16
"""A burst is published at so many records or bytes."""
FILE_BYTES: Final = 1 << 20
"""A batch file is sealed at this length: large against what making one costs, small against 64 MB."""
LINGER: Final = 1e-3
"""Seconds after which a burst is published at the latest."""
GAP_FIRST: Final = 1e-4
GAP_LAST: Final = 5e-4
"""Seconds between two blocks of a burst while consumers wait: it grows from the one to the other."""
FLUSHER_IDLE: Final = 20
"""Rounds of ``LINGER`` without work after which the flusher rests."""
FLUSHER_REST: Final = 1.0
"""Seconds of rest after which the flusher ends."""
READ_SMALL: Final = 1 << 12
READ_LARGE: Final = 1 << 16
"""Bytes of journal that are read at once."""
NAP: Final = 2e-3
"""Seconds for which a waiter sleeps at first before it looks by itself, times the waiters there may be."""
NAP_LAST: Final = 0.5
NAPS: Final = 8
"""Naps before they begin to double."""
SPIN: Final = 60e-6
"""Seconds for which a consumer looks before it sleeps: about what waking it would cost."""
FAST: Final = 20e-6
"""Seconds an item that a fast consumer takes: it empties a queue sooner than another consumer can wake."""
SOON: Final = 3000
"""Microseconds within which another waiter must look by itself, if one that could be rung for is to be left asleep."""
LEASE_FROM: Final = 8
"""Waiting items from which a lease is worth its event."""
LEASE_UNITS: Final = (4 << 20) // events.UNIT
"""Bytes of one lease: its batch files stay until it ends."""
PLACES: Final = 256
"""Places of one reservation."""
FILES_OPEN: Final = 16
"""Batch files that a consumer keeps open."""
SCAN_EVERY: Final = 1.0
"""Seconds between two looks for members that died and batch files that they left, times the consumers there are."""
SLOT_PATIENCE: Final = 0.02
"""Seconds to wait for the lock of a new slot: its former member is just leaving, or was stopped while it left."""

PIN_PATIENCE: Final = 1.0
"""Seconds after which it is worth asking the journal what a member pins that does not move on."""

_LEASE_POSITION: Final = waiting.LEASE_POSITION
_LEASE_FLAG: Final = waiting.LEASE_FLAG
_LEASED: Final = 1 << 63
_SHIFT: Final = 1 << 32
"""Added to a position, so that a cell with a position is never 0."""
_SPINNERS: Final = (os.cpu_count() or 1) > 1

_looked = [0]
"""How often this process has found a queue empty: whoever did plays ping-pong, and its next put is no burst."""


class Engine:
    """What one process does in one queue folder."""

    _all: ClassVar[weakref.WeakValueDictionary[tuple[int, int], Engine]] = weakref.WeakValueDictionary()
    _all_lock: ClassVar[threading.RLock] = threading.RLock()
    exiting: ClassVar[bool] = False
    """No thread can be started any more: every put is published at once."""

    # -- making, finding, leaving

    @classmethod
    def create(cls, maxsize: int) -> Engine:
        """The engine of a new anonymous queue; what killed programs left of theirs is deleted on the way."""
        folder = Folder.create_anonymous(maxsize, LIMITS)
        engine = cls(folder)
        sweep(os.path.dirname(folder.path), [other.folder.path for other in list(cls._all.values())])
        return engine

    @classmethod
    def open(cls, path: str, maxsize: int) -> Engine:
        """The engine of the queue at a path, which is made if it is not there."""
        with cls._all_lock:
            engine = cls._find(Folder.open(path, maxsize, LIMITS))
        if maxsize > 0 and engine.maxsize != maxsize:
            raise ValueError(
                f"{path}: the queue there has maxsize={engine.maxsize}, not {maxsize}; leave maxsize out to join it"
            )
        return engine

    @classmethod
    def meet(cls, path: str, receive: Optional[Callable[[], int]]) -> Engine:
        """The engine of a queue whose handle was just unpickled; ``receive`` fetches the hold that came with it."""
        with cls._all_lock:
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(path)
                engine = cls._all.get((status.st_dev, status.st_ino))
                if engine is not None:
                    return engine
            return cls._find(Folder.meet(path, receive() if receive else None))

    @classmethod
    def _find(cls, folder: Folder) -> Engine:
        engine = cls._all.get(folder.key)
        if engine is None:
            return cls(folder)
        folder.close()
        return engine

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.generation = 0
        self._stale = False
        self._reset()
        self._load()
        self.maxsize = self.ledger.maxsize
        self.batch_size = BLOCK_RECORDS
        self._spawning: tuple[Optional[weakref.ref[Any]], Any] = (None, None)
        self._all[folder.key] = self
        _at_exit.arm()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._fence = threading.Lock()
        self._unsure = False
        self._left = False
        self.cells = Cells(self.folder.open_cells())
        self._words = self.cells.words
        self._bells: dict[str, Bell] = {}
        self._scanned = monotonic()
        self._pending: list[tuple[FileId, int, int]] = []
        self._long_pins: dict[int, tuple[int, float, Optional[set[FileId]]]] = {}
        # producer
        self._producer: Optional[int] = None
        self._producer_number = 0
        self._serial = 0
        self._file: Optional[FileId] = None
        self._file_fd = -1
        self._offset = 0
        self._records: list[Record] = []
        self._bytes = 0
        self._publishing: Optional[tuple[list[Record], int, int]] = None
        """While a block is published: where its records come from, how many they are, and where it stands."""
        self._published_at = 0.0
        self._gap = GAP_FIRST
        self._looked_then = 0
        self._room = 0
        self._used = 0
        self._grant = 0
        self._used_cell = self._used_flag = 0
        self._flusher: Optional[threading.Thread] = None
        self._flusher_wake = threading.Event()
        self._flusher_busy = False
        # consumer
        self._joining: Optional[int] = None
        self._consumer: Optional[int] = None
        self._consumer_number = 0
        self._claim_event = b""
        self._claim_word = 0
        self._claim_from = 0
        self._position_cell = 0
        self._state: tuple[int, tuple[Record, ...]] = (-1, ())
        """The last item that was taken and delivered, and the hand: records that are to be delivered (again) first.
        One tuple: an exception finds both changed, or neither."""
        self.cut_short = False
        """The last take ended where a lease does, and there may be more."""
        self._lease: Optional[Lease] = None
        self._lease_at = self._lease_end = 0
        self._lease_parts: deque[Block] = deque()
        self._block = Block(0, 0, FileId(0, 0), 0, 0)
        self._first = self._end = 0
        self._body = memoryview(b"")
        self._ends: Sequence[int] = ()
        self._fds: dict[FileId, int] = {}
        self._waiters: tuple[set[object], set[object]] = (set(), set())
        self._woken_at = 0.0
        self._taken = 0
        self._offered_at = 0.0
        self._hint = int.from_bytes(os.urandom(4), "little") << 24
        self._fast = False
        self._luck = 1.0
        self._spins = 0

    def close(self) -> None:
        """Publish what is held back, leave the queue, and delete its folder if nobody else uses it."""
        with self._all_lock:
            if self._all.get(self.folder.key) is self:
                del self._all[self.folder.key]
        with self._lock:
            if self._left:
                return
            self._left = True
            try:
                if not self._stale:
                    self._begin()
                    self._publish()
                    self._leave()
            finally:
                self._close_files()
                self.folder.close()
        self._flusher_wake.set()
        if self.folder.anonymous:
            reclaim(self.folder.path)

    def retire(self) -> None:
        """The program ends: leave, as ``close`` does, but let threads that still run put and get."""
        with self._lock:
            if self._left:
                return
            if not self._stale:
                self._begin()
                self._publish()
                self._leave()
                self._unsure = False
            if self.folder.anonymous:
                self.folder.let_go()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def _leave(self) -> None:
        self._end_lease()
        for slot, number in ((self._consumer, self._consumer_number), (self._producer, self._producer_number)):
            if slot is not None:
                self.cells.clear(slot)
                # Unlocked first: a process that is stopped here must not keep the slot's next member waiting.
                self.folder.unlock_slot(slot)
                self._append(events.leave(slot, number))
        self._consumer = self._producer = None
        if self._file is not None:
            self.folder.seal_batch(self._file)
        self.ledger.trim()
        self._reclaim()

    def _close_files(self) -> None:
        self.journal.close()
        self._drop_file()
        while self._fds:
            os.close(self._fds.popitem()[1])
        while self._bells:
            self._bells.popitem()[1].close()
        self.cells.close()

    @property
    def has_put(self) -> bool:
        """This process has put something."""
        return self._producer is not None

    def hold_for_child(self) -> Any:
        """Our hold on the folder, as an object that the child being spawned receives it through; one a child."""
        child = context.get_spawning_popen()
        reference, hold = self._spawning
        if reference is None or reference() is not child:
            hold = reduction.DupFd(self.folder.fd)
            self._spawning = weakref.ref(child), hold
        return hold

    # -- the journal

    def _load(self) -> None:
        """Start at the newest journal."""
        self.journal, snapshot = self.folder.open_newest()
        self._start(Ledger.load(snapshot))
        self._sync()

    def _start(self, ledger: Ledger) -> None:
        """Go on at the start of a journal, of which the ledger has applied nothing."""
        self.ledger = ledger
        self._pos = self.journal.start
        # A position cell holds the number of an event in all the journals; this much lies between it and the bytes.
        self._shift = ledger.base * events.SIZE - self.journal.start + _SHIFT
        self._half = self.journal.start + ledger.limit * events.SIZE // 2

    def _sync(self) -> None:
        """Apply all that others have written."""
        size = READ_SMALL
        while True:
            chunk = self.journal.read(self._pos, size)
            if chunk:
                self._pos += self.ledger.apply(chunk)
                if self.ledger.full and self.ledger.sealed is not None:
                    self._next_journal()
                    continue
            if len(chunk) < size:
                return
            size = READ_LARGE

    def _catch_up(self, end: int) -> None:
        """Apply what stands before byte ``end`` of this journal: another's events, appended before one of ours."""
        while self._pos < end:
            self._pos += self.ledger.apply(self.journal.read_written(self._pos, min(READ_LARGE, end - self._pos)))

    def _append(self, event: bytes) -> Verdict:
        """Append an event and say what it came to, after a roll if it came too late for this journal."""
        word = int.from_bytes(event, "little")
        while True:
            end = self.journal.append(event)
            if end - events.SIZE != self._pos:
                self._catch_up(end - events.SIZE)
            self._pos = end
            late = self.ledger.full
            verdict = self.ledger.step(word)
            if not late:
                if end > self._half:
                    self._set_space_aside()
                return verdict
            self._roll()

    def _set_space_aside(self) -> None:
        self._half = 1 << 62
        self.folder.set_space_aside(self.journal.number + 1, self.ledger.next_limit)

    def _roll(self) -> None:
        """This journal is full: decide on the next, and go there."""
        number = self.journal.number + 1
        while self.ledger.sealed is None:
            key = self.folder.prepare_roll(number, partial(self.ledger.snapshot, True), self.ledger.next_limit)
            end = self.journal.append(events.seal(int(key, 16)))
            self._catch_up(end)
            if self.ledger.sealed != int(key, 16):
                self.folder.drop_roll(number, key)
        self._next_journal()
        if monotonic() - self._scanned > SCAN_EVERY * max(1, self.ledger.consumers):
            self._scan()

    def _next_journal(self) -> None:
        assert self.ledger.sealed is not None
        old = self.journal
        new = self.folder.finish_roll(old.number + 1, self.ledger.sealed)
        if new is None:  # this process lags: even the next journal is gone
            watched = self.ledger.watched
            self.journal, snapshot = self.folder.open_newest()
            self._start(Ledger.load(snapshot))
            self.ledger.watched = watched
        else:
            self.journal, snapshot = new
            self.ledger.roll(Ledger.snapshot_limit(snapshot))
            self._start(self.ledger)
        old.close()
        # Now, and again at its half if it did not work: old journals go when the last process leaves them.
        self.folder.set_space_aside(self.journal.number + 1, self.ledger.next_limit)

    # -- being sure

    def _begin(self) -> None:
        if self._unsure:
            self._recover()
        self._unsure = True

    def _recover(self) -> None:
        """An act was interrupted, or this process was forked: ask the journal how things stand."""
        if self._stale:
            self._after_fork()
            return
        if self._joining is not None and self._joining not in (self._consumer, self._producer):
            self.folder.unlock_slot(self._joining)  # a member that nobody is: it will be buried
        self._joining = None
        former, parts = self._lease, self._lease_parts
        ledger = Ledger.load(self.journal.snapshot())
        self._start(ledger)
        if self._consumer is not None:
            self._pos = _replay(self.journal, ledger, self._consumer, self._claim_from)
        self._sync()
        ledger = self.ledger
        last = self._state[0]
        mine = [(item, block) for _, item, block in ledger.yours if item > last]
        ledger.yours = []
        lease = ledger.lease
        if lease is not None and self._consumer is not None and lease.member == self._consumer_number:
            self._hold_lease(lease, max(lease.first, last + 1))
        else:
            self._forget_lease()
            if former is not None and ledger.kept[0] == former.number:
                mine = [
                    (item, block)
                    for block in parts
                    for item in range(max(block.first, former.first, last + 1), min(block.end, ledger.kept[1]))
                ] + mine
        self._recover_items(mine)
        if self._consumer is not None:
            self._words[self._position_cell] = 0
        self._room = 0
        if self._producer is not None:
            file, end = ledger.files.get(self._producer, (None, 0))
            if self._publishing is not None and self._file is not None and file == self._file:
                records, count, offset = self._publishing
                if records is self._records and (end > offset or self._giant_published(ledger)):
                    self._records = records[count:]
                    self._bytes = sum(map(len, self._records))
            if self._file is not None:
                self.folder.seal_batch(self._file)
            self._drop_file()
        self._publishing = None
        self._unsure = False

    def _recover_items(self, mine: list[tuple[int, Block]]) -> None:
        """Items that were taken, but not delivered, come into the hand."""
        if not mine:
            return
        hand = self._state[1]
        found: list[Record] = []
        damage: Optional[CorruptBatchError] = None
        for item, block in mine:
            try:
                if block is not self._block:
                    self._read_block(block)
                found.append(blocks.record(self._body, self._ends, item - block.first))
            except CorruptBatchError as error:
                damage = error
            except ValueError as error:
                damage = self._corrupt(block, str(error))
        self._state = mine[-1][0], (*hand, *found)
        if damage is not None:
            raise damage

    def _giant_published(self, ledger: Ledger) -> bool:
        return any(block.file == self._file and not block.units for block in ledger.blocks)

    def _drop_file(self) -> None:
        if self._file_fd >= 0:
            os.close(self._file_fd)
        self._file_fd = -1
        self._file = None

    def forked(self) -> None:
        """In a forked child, before anything else.  What was under way in the parent must not go on here, not even in a
        frame of this very thread (a fork in a signal handler): its descriptors lead nowhere from now on."""
        self._stale = self._unsure = True
        self.generation += 1
        self._lock = threading.Lock()
        if self._left:
            return
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, self.journal.fd, inheritable=False)
        self.journal.unmap()
        if self._file_fd >= 0:
            os.dup2(null, self._file_fd, inheritable=False)
        os.close(null)
        self.cells.detach()
        self._words = self.cells.words

    def _after_fork(self) -> None:
        lock, left = self._lock, self._left
        self._close_files()
        self.folder.after_fork()
        self._reset()
        self._lock, self._left = lock, left
        self._load()
        self._stale = self._unsure = False

    # -- members

    def _join(self, consumer: bool) -> None:
        """Become a member: JOIN, lock the slot's byte, see that nobody took us for dead in between."""
        while True:
            slot = self._append(events.join(consumer))
            if not isinstance(slot, int):
                raise FolderError(self.folder.path, f"has {events.SLOTS} members", "let some of them leave")
            number = self.ledger.members[slot].number
            if slot >= self.cells.pages * waiting.SLOTS:
                self.folder.grow_cells(slot // waiting.SLOTS + 1)
                self.cells.close()
                self.cells = Cells(self.folder.open_cells())
                self._words = self.cells.words
            self._joining = slot
            deadline = monotonic() + SLOT_PATIENCE
            locked = self.folder.lock_slot(slot)
            while not locked and monotonic() < deadline:
                time.sleep(1e-4)
                locked = self.folder.lock_slot(slot)
            if not locked:
                continue  # Whoever was stopped there keeps it; somebody will bury that member of ours. Take another.
            self._sync()
            if self.ledger.members.get(slot) == (number, consumer):
                break
            self.folder.unlock_slot(slot)
        self.cells.clear(slot)
        if consumer:
            self._consumer_number = number
            self._claim_from = self._pos + self._shift
            self._claim_event = events.claim(slot)
            self._claim_word = int.from_bytes(self._claim_event, "little")
            self._position_cell = Cells.place(waiting.POSITION, slot)
            self._consumer = slot
            self._bury_the_dead()
        else:
            self._producer_number = number
            self._serial = 0
            self._producer = slot
        self._joining = None

    def _bury(self, slot: int) -> bool:
        """Write the LEAVE of a member that was killed.  ``False``: it lives, or it is one of ours."""
        member = self.ledger.members.get(slot)
        if member is None or slot in (self._consumer, self._producer) or not self.folder.lock_slot(slot):
            return False
        try:
            if slot < self.cells.pages * waiting.SLOTS:
                # Under the lock, and before its LEAVE: the slot can have no new member yet.
                self.cells.clear(slot)
            self._append(events.leave(slot, member.number))
        finally:
            self.folder.unlock_slot(slot)
        return True

    def _bury_the_dead(self) -> None:
        for slot in list(self.ledger.members):
            self._bury(slot)

    def _scan(self) -> None:
        """Look for members that died, and for batch files that nobody removed."""
        self._scanned = monotonic()
        self._bury_the_dead()
        found = self.folder.batches()
        # After the listing: a file's producer had joined before it made the file.
        self._sync()
        known = {file for file, _, _ in self._pending}
        now = self._pos + self._shift
        self._pending += [(file, 1 << 62, now) for file in found if file not in known and self.ledger.is_done(file)]
        self._reclaim()
        self.folder.remove_old_journals(self.journal.number)

    # -- reclaiming

    def _reclaim(self) -> None:
        """Remove the batch files that nobody needs, as far as no member can still be about to read one."""
        done = self.ledger.done
        now = self._pos + self._shift
        if done:
            self._pending += [(file, end, now) for file, end in done]
            done.clear()
        if not self._pending:
            return
        with self._fence:  # a barrier: their CLAIMs were read before their cells are
            pass
        words = self._words
        limit = self.cells.pages * waiting.SLOTS
        pins = [
            (slot, words[Cells.place(waiting.POSITION, slot)])
            for slot, member in self.ledger.members.items()
            if member.consumer and slot != self._consumer and slot < limit
        ]
        kept = []
        for file, end, when in self._pending:
            if any(word and self._pins(slot, word, file, end, when) for slot, word in pins):
                kept.append((file, end, when))
                continue
            self.folder.remove_batch(file)
            fd = self._fds.pop(file, None)
            if fd is not None:
                os.close(fd)
        self._pending = kept

    def _pins(self, slot: int, word: int, file: FileId, end: int, when: int) -> bool:
        """The member of that slot may be about to read the batch file, its position cell says."""
        if word & _LEASED:
            return end > word - _LEASED
        if word > when:  # it began to claim after all items of this file had been claimed
            return False
        files = self._files_pinned(slot, word)
        return files is None or file in files

    def _files_pinned(self, slot: int, word: int) -> Optional[set[FileId]]:
        """The batch files of the items that the slot has claimed since then; ``None``: not known, so any."""
        now = monotonic()
        seen = self._long_pins.get(slot)
        if seen is None or seen[0] != word:
            self._long_pins[slot] = word, now + PIN_PATIENCE, None
            return None
        _, ask_at, files = seen
        if files is None and now >= ask_at:
            files = self._files_claimed(slot, word)
            # None found: it was stopped before its CLAIM, and may pin later files yet.
            self._long_pins[slot] = word, now + PIN_PATIENCE, files or None
        return files

    def _files_claimed(self, slot: int, word: int) -> Optional[set[FileId]]:
        """Where the items lie that the slot has claimed since then; read from the journal."""
        number = (word - _SHIFT) // events.SIZE
        for back in (1, 0):
            try:
                journal, snapshot = self.folder.open_journal(self.journal.number - back)
            except FileNotFoundError:
                continue
            try:
                ledger = Ledger.load(snapshot)
                if ledger.base + ledger.limit <= number:
                    continue
                if ledger.base > number:
                    return None
                _replay(journal, ledger, slot, word)
                if ledger.yours:
                    return {block.file for _, _, block in ledger.yours}
            finally:
                journal.close()
        return set()

    # -- putting

    def put(self, record: Record, block: bool, timeout: Optional[float]) -> bool:
        """Put one record.  ``False``: the queue was full all the time."""
        generation = self.generation
        try:
            return self._put(record, block, timeout)
        except (OSError, ValueError):
            if generation == self.generation:
                raise
            return True  # forked in the middle: the parent puts it

    def _put(self, record: Record, block: bool, timeout: Optional[float]) -> bool:
        with self._lock:
            if self._unsure:
                self._recover()
            if not self.maxsize or (self._room and self._take_place()):
                records = self._records
                records.append(record)
                self._bytes += len(record)
                # In a burst there is nothing more to do, until its block is large or old enough.
                if not (
                    self._flusher_busy
                    and _looked[0] == self._looked_then
                    and len(records) < self.batch_size
                    and self._bytes < BLOCK_BYTES
                    and monotonic() - self._published_at < self._gap
                    and (self._room or not self.maxsize)
                ):
                    self._publish_if_due(record)
                return True
        return self._put_waiting(partial(self._accept, record), block, timeout)

    def put_many(self, records: list[Record], block: bool, timeout: Optional[float]) -> int:
        """Put records, all or none where they fit into the queue at all; returns how many were put."""
        if not self.maxsize:
            with self._lock:
                self._begin()
                self._publish()
                self._records = records
                self._bytes = sum(map(len, records))
                try:
                    self._publish()
                except OSError:
                    self._records, self._bytes = [], 0
                    raise
                self._unsure = False
            return len(records)
        if len(records) > self.maxsize and not block:
            return 0
        put = 0
        deadline = None if timeout is None else monotonic() + timeout
        size = len(records) if len(records) <= self.maxsize else max(1, self.maxsize // 4)
        while put < len(records):
            piece = records[put : put + size]
            left = None if deadline is None else deadline - monotonic()
            if not self._put_waiting(partial(self._accept_many, piece), block, left, len(piece)):
                break
            put += len(piece)
        return put

    def _put_waiting(self, attempt: Callable[[], bool], block: bool, timeout: Optional[float], places: int = 1) -> bool:
        deadline: Optional[float] = None
        while True:
            with self._lock:
                self._begin()
                accepted = attempt() or (self._make_room() and attempt())
                self._unsure = False
            if accepted:
                return True
            if not block:
                return False
            if timeout is not None:
                if deadline is None:
                    deadline = monotonic() + timeout
                if monotonic() >= deadline:
                    return False
            self._wait(waiting.AWAITS_PLACE, deadline, places)

    def _publish_if_due(self, record: Record) -> None:
        """Publish the newest record now, or leave it for the next block of its burst."""
        if self._is_due() or (self.maxsize and not self._room):
            self._unsure = True
            try:
                self._publish()
            except OSError:
                # Its put fails; those whose puts have returned stay for the next try.
                if self._records and self._records[-1] is record:
                    self._records.pop()
                    self._bytes -= len(record)
                raise
            self._unsure = False

    def _is_due(self) -> bool:
        """What is held back must be published now."""
        count = len(self._records)
        if _looked[0] != self._looked_then:
            self._looked_then = _looked[0]
            self._gap = GAP_FIRST
            return True
        if count >= self.batch_size or self._bytes >= BLOCK_BYTES or not BURSTS or Engine.exiting:
            return True
        past = monotonic() - self._published_at
        if past > self._gap and (past > LINGER or self.cells.anybody(waiting.SLEEPS)):
            self._gap = min(GAP_LAST, self._gap * 1.5) if count > 8 else GAP_FIRST
            return True
        if not self._flusher_busy:
            self._start_flusher()
            return Engine.exiting
        return False

    def _accept(self, record: Record) -> bool:
        """Take a record of a bounded queue, for which no place has been reserved, if there is one."""
        self._publish()
        ledger = self.ledger
        if ledger.used + 4 * PLACES > self.maxsize:
            self._sync()
            ledger = self.ledger
        if (
            RESERVATIONS
            and BURSTS
            and ledger.used + 4 * PLACES <= self.maxsize
            and _looked[0] == self._looked_then
            and monotonic() - self._published_at < LINGER
            and waiting.barrier_works()
            and self._reserve()
            and self._take_place()
        ):
            self._records.append(record)
            self._bytes += len(record)
            if not self._flusher_busy:
                self._start_flusher()
            return True
        self._looked_then = _looked[0]
        if ledger.used >= self.maxsize:
            return False
        return self._publish_block([record])

    def _accept_many(self, records: list[Record]) -> bool:
        """Take records of a bounded queue if there are places for all of them."""
        self._publish()
        if self.ledger.used + len(records) > self.maxsize:
            self._sync()
            if self.ledger.used + len(records) > self.maxsize:
                return False
        pieces = list(_pieces(records))
        if len(pieces) > 1:
            self._open_file_for(0)
            if self._append(events.reserve(self._slot(), len(records))) is None:
                return False
        return all(self._publish_block(piece, more=number < len(pieces)) for number, piece in enumerate(pieces, 1))

    def _reserve(self) -> bool:
        self._open_file_for(0)
        slot = self._slot()
        words = self._words
        waiting.register_for_barrier()
        self._used_cell = Cells.place(waiting.USED, slot)
        self._used_flag = Cells.place(waiting.USED_FLAG, slot)
        words[self._used_cell] = words[self._used_flag] = 0
        granted = self._append(events.reserve(slot, PLACES))
        if not isinstance(granted, Reservation):
            return False
        self._room, self._used, self._grant = granted.places, 0, granted.grant
        return True

    def _take_place(self) -> bool:
        """Use one place of our reservation.  ``False``: somebody has cut it down in the meantime."""
        used = self._used + 1
        words = self._words
        words[self._used_cell] = used
        if words[self._used_flag]:
            slot = self._slot()
            unsure, self._unsure = self._unsure, True
            self._append(events.trim(slot, used, self._grant))
            kept = self.ledger.res[slot].places
            self._unsure = unsure
            self._room = max(0, kept - used)
            if used > kept:
                return False
        else:
            self._room -= 1
        self._used = used
        return True

    def _make_room(self) -> bool:
        """The queue looks full: end the grants that may hide a place.  ``True``: look again."""
        ledger = self.ledger
        changed = False
        if ledger.lease is not None:
            if self._lease is not None and self._lease.number == ledger.lease.number:
                self._end_lease()
            else:
                self._revoke(ledger.lease)
            changed = True
        words = self._words
        for slot, granted in list(self.ledger.res.items()):
            if slot == self._producer or granted.cut or granted.places > events.RESERVE_MOST:
                continue
            if self.ledger.res.get(slot) == granted:
                changed = True
                if self._bury(slot):
                    continue
                words[Cells.place(waiting.USED_FLAG, slot)] = 1
                waiting.barrier()
                used = words[Cells.place(waiting.USED, slot)]
                self._append(events.trim(slot, min(used, events.RESERVE_MOST), granted.grant))
        if not changed and monotonic() - self._scanned > SCAN_EVERY:
            self._scanned = monotonic()
            for slot in list(self.ledger.res):
                changed |= self._bury(slot)
        return changed

    # -- publishing

    def _slot(self) -> int:
        if self._producer is None:
            self._join(consumer=False)
        assert self._producer is not None
        return self._producer

    def _publish(self) -> None:
        """Publish the records that are held back."""
        while self._records:
            piece = next(_pieces(self._records))
            if not self._publish_block(piece, held=True):
                raise FolderError(
                    self.folder.path, "places that were reserved are gone", "report this: it can't happen"
                )
            # A new list: if an exception comes next, _recover sees that these have been dropped already.
            self._records = self._records[len(piece) :]
            self._bytes = sum(map(len, self._records)) if self._records else 0
            self._publishing = None

    def _publish_if_possible(self) -> None:
        """Publish what is held back, unless the disk is full: that must not keep this process from draining it."""
        try:
            self._publish()
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise

    def _publish_block(self, records: list[Record], more: bool = False, held: bool = False) -> bool:
        """Write records to our batch file, then the event.  ``False``: there is no place for them.

        ``more``: our reservation is for other blocks, too.  ``held``: they are the first of those held back."""
        count = len(records)
        size = sum(map(len, records))
        slot = self._slot()
        if size >= blocks.GIANT:
            header, body = blocks.join_giant(records[0])
            units = 0
            self._open_file_for(FILE_BYTES)
            self._write(header, 0, body)
        else:
            units = blocks.units(count, size)
            self._open_file_for(units * events.UNIT)
            self._write(blocks.join(records), self._offset * events.UNIT)
        self._publishing = (self._records, count, self._offset) if held else None
        # Commit point: from here on the items are in the queue.
        first = self._append(events.publish(slot, count, units, more))
        if first is None:
            return False
        self._offset += units or FILE_BYTES
        self._room = self._used = 0
        self._hint += 1
        self._words[waiting.PUBLISHED] = self._hint
        self._ring(waiting.SLEEPS)
        # Only now: whoever was rung for may have taken the processor, and that time must not end our burst.
        self._published_at = monotonic()
        return True

    def _write(self, data: bytes, offset: int, body: Record = b"") -> None:
        try:
            self._write_at(data, offset, body)
        except OSError as error:
            if error.errno not in NO_SPACE or self._file is None or self._file.spilled:
                raise
            self._open_file(spill=True)
            self._write_at(data, 0, body)

    def _write_at(self, data: bytes, offset: int, body: Record) -> None:
        self.folder.write_at(self._file_fd, data, offset)
        if body:
            self.folder.write_at(self._file_fd, body, offset + len(data))

    def _open_file_for(self, size: int) -> None:
        """Have a batch file with room for so many bytes more: a file always has room for its first block."""
        if self._file is None or (self._offset and self._offset * events.UNIT + size > FILE_BYTES):
            self._open_file(spill=self.folder.wants_spill())

    def _open_file(self, spill: bool) -> None:
        """Begin a new batch file.  The former one is sealed."""
        slot = self._slot()
        former = self._file
        try:
            file, fd = self._create_file(spill)
        except OSError as error:
            if spill or error.errno not in NO_SPACE:
                raise
            file, fd = self._create_file(True)
        self._drop_file()
        self._file, self._file_fd, self._offset = file, fd, 0
        self._append(events.open_(slot, file.serial))
        if former is not None:
            self.folder.seal_batch(former)
        self.ledger.trim()
        if self.ledger.done or self._pending:
            self._reclaim()

    def _create_file(self, spill: bool) -> tuple[FileId, int]:
        while True:
            self._serial += 1
            file = FileId(self._producer_number, self._serial << 1 | spill)
            with contextlib.suppress(FileExistsError):  # left by a frame that a fork in a signal handler has copied
                return file, self.folder.create_batch(file)

    # -- the flusher

    def _start_flusher(self) -> None:
        self._flusher_busy = True
        self._flusher_wake.set()
        if self._flusher is None:
            self._flusher = threading.Thread(
                target=_flush, args=(weakref.ref(self),), name="tqshim flusher", daemon=True
            )
            try:
                self._flusher.start()
            except RuntimeError:  # at exit no thread can be started
                self._flusher = None
                Engine.exiting = True

    def flush(self) -> None:
        """Publish what is held back."""
        with self._lock:
            if self._records and not self._left:
                self._begin()
                self._publish()
                self._unsure = False

    def before_fork(self) -> None:
        """Publish, and end the flusher: a process with threads should not fork."""
        flusher = self._flusher
        if flusher is None or not self._lock.acquire(timeout=0.1):
            return  # An act is under way below this very frame, a signal handler's: it goes on with its flusher.
        try:
            if self._left:
                return
            self._begin()
            self._publish()
            self._unsure = False
            self._flusher_busy = False
            self._flusher = None
            self._flusher_wake.set()
        finally:
            self._lock.release()
        if flusher is not threading.current_thread():
            flusher.join(0.1)

    # -- getting

    def get(self, got: list[Record], most: int, block: bool, timeout: Optional[float]) -> None:
        """Append to ``got`` what is there, ``most`` records or fewer; nothing: the queue was empty all the time.

        If this raises, what ``got`` holds has been taken, and what it does not hold has not."""
        deadline: Optional[float] = None
        while True:
            generation = self.generation
            state = self._state
            try:
                with self._lock:
                    if self._unsure:
                        self._recover()
                        generation = self.generation
                    self._unsure = True
                    state = self._state
                    item = self._lease_at
                    if self._first <= item < self._end and item < self._lease_end and most == 1 and not state[1]:
                        # The short way to the next item of our lease, whose block has been read already.
                        words = self._words
                        words[_LEASE_POSITION] = item + 1
                        if not words[_LEASE_FLAG]:
                            ends, index = self._ends, item - self._first
                            got.append(self._body[ends[index - 1] if index else 0 : ends[index]])
                            self._lease_at = item + 1
                            self._taken += 1
                            self._state = item, ()
                        else:
                            self._take(got, most)
                    else:
                        self._take(got, most)
                    self._unsure = False
            except BaseException as error:
                if self._state is state:
                    got.clear()  # The journal knows whose they are, and the next act asks it.
                if generation == self.generation or not isinstance(error, (OSError, ValueError)):
                    raise
            if generation != self.generation:  # forked in the middle: what was got is the parent's
                got.clear()
                continue
            if got or not block:
                return
            if timeout is not None:
                if deadline is None:
                    deadline = monotonic() + timeout
                if monotonic() >= deadline:
                    return
            self._wait(waiting.SLEEPS, deadline)

    def give_back(self, records: Sequence[Record]) -> None:
        """Records that were got but not delivered: the next get delivers them first."""
        with self._lock:
            last, hand = self._state
            self._state = last, (*records, *hand)

    def _take(self, got: list[Record], most: int) -> None:
        """Take up to ``most`` records, from wherever they are to be had."""
        last, hand = self._state
        if hand:
            got += hand[:most]
            self._state = last, hand[most:]
            return
        if self._lease_at < self._lease_end and self._take_leased(got, most):
            return
        if self._records:
            self._publish_if_possible()
        while True:
            ledger = self.ledger
            if ledger.head >= ledger.tail:
                self._sync()
                ledger = self.ledger
                if ledger.head >= ledger.tail and not self._leased_out():
                    _looked[0] += 1
                    return
            if self._consumer is None:
                self._join(consumer=True)
                continue
            lease = ledger.lease
            if lease is not None:
                if self._lease is None or self._lease.number != lease.number:
                    self._revoke(lease)
                    continue
                if self._lease_at < self._lease_end:
                    if self._take_leased(got, most):
                        return
                    continue
            if LEASES and ledger.consumers == 1 and self._wants_lease() and self._take_lease():
                continue
            if self._lease is not None:
                self._end_lease()
                continue
            if self.journal.words is None:
                self.journal.map(ledger.limit)
            if self._claim(got, most):
                return

    def _claim(self, got: list[Record], most: int) -> bool:
        """Claim items at the head, and read them.  ``False``: others were faster, or the journal was rolled."""
        cell = self._position_cell
        words = self._words
        pos = self._pos
        # Before the CLAIM: from now on no batch file goes in which it may take an item.
        words[cell] = self._claim_from = pos + self._shift
        if most == 1:
            # Commit point: the item at the head is ours.
            end = self.journal.append_after(self._claim_event, self._claim_word, pos)
            if end - 8 != pos:
                self._catch_up(end - 8)
            self._pos = end
            ledger = self.ledger
            late = ledger.index >= ledger.limit
            ledger.index += 1
            item = ledger.head
            if late or item >= ledger.tail or ledger.lease is not None:
                words[cell] = 0
                if late:
                    self._roll()
                return False
            ledger.head = stop = item + 1
            if end > self._half:
                self._set_space_aside()
        else:
            claimed = self._append(events.claim_many(self._consumer or 0, most))
            if not isinstance(claimed, range):
                words[cell] = 0
                return False
            item, stop = claimed.start, claimed.stop
            ledger = self.ledger
        if not self._first <= item or stop > self._end:
            self._read_and_deliver(got, item, stop, ledger.parts(item, stop))
        elif most == 1:
            ends, index = self._ends, item - self._first
            got.append(self._body[ends[index - 1] if index else 0 : ends[index]])
            self._taken += 1
            self._state = item, ()
        else:
            self._deliver(got, item, stop)
        words[cell] = 0
        if stop >= ledger.blocks[0].end:
            ledger.trim()
            if ledger.done or self._pending:
                self._reclaim()
        if self.maxsize and self.cells.anybody(waiting.AWAITS_PLACE):
            self._offer_space()
        return True

    def _deliver(self, got: list[Record], item: int, stop: int) -> None:
        """Deliver items of the block that was read last.  The store to ``_state`` is what makes them delivered."""
        body, ends, index = self._body, self._ends, item - self._first
        start = ends[index - 1] if index else 0
        if stop == item + 1:
            got.append(body[start : ends[index]])
        else:
            stops = list(ends[index : stop - self._first])
            got += map(body.__getitem__, map(slice, (start, *stops), stops))
        self._taken += stop - item
        self._state = stop - 1, self._state[1]

    def _read_and_deliver(self, got: list[Record], item: int, stop: int, parts: Iterable[Block]) -> None:
        """Deliver items that stand in these blocks."""
        for block in parts:
            if block.first >= stop:
                break
            end = min(stop, block.end)
            try:
                if block is not self._block:
                    self._read_block(block)
            except CorruptBatchError:
                # Those that stand there are lost; what follows them, the next take finds in the journal.
                self._state = end - 1, self._state[1]
                raise
            self._deliver(got, max(item, block.first), end)

    def _read_block(self, block: Block) -> None:
        fd = self._fds.get(block.file)
        if fd is None:
            fd = self.folder.open_batch(block.file)
            if len(self._fds) >= FILES_OPEN:
                os.close(self._fds.pop(next(iter(self._fds))))
            self._fds[block.file] = fd
        try:
            if block.units:
                size = block.units * events.UNIT
                data = self.folder.read_at(fd, size, block.offset * events.UNIT)
                self._body, self._ends = blocks.split(data, block.end - block.first)
            else:
                length = blocks.split_giant(self.folder.read_at(fd, blocks.GIANT_HEADER, 0), os.fstat(fd).st_size)
                data = self.folder.read_at(fd, length, blocks.GIANT_HEADER)
                self._body, self._ends = memoryview(data), (length,)
        except ValueError as error:
            raise self._corrupt(block, str(error)) from None
        self._block = block
        self._first, self._end = block.first, block.end

    def _corrupt(self, block: Block, finding: str) -> CorruptBatchError:
        path = f"{self.folder.path}/{names.batch(names.READY, block.file)}"
        return CorruptBatchError(
            path, f"{finding}, at byte {block.offset * events.UNIT}", "the other items still arrive"
        )

    def _offer_space(self) -> None:
        """Places are free again: wake a producer, once that is worth it, or at once if we are slow."""
        now = monotonic()
        slow = now - self._offered_at > LINGER
        self._offered_at = now
        if slow or 4 * self.ledger.used <= 3 * self.maxsize:
            self._ring(waiting.AWAITS_PLACE)

    # -- leases

    def _wants_lease(self) -> bool:
        ledger = self.ledger
        waiting_items = ledger.tail - ledger.head
        return (
            waiting_items >= LEASE_FROM
            and (not self.maxsize or 2 * (waiting_items + ledger.reserved) <= self.maxsize)
            and waiting.barrier_works()
        )

    def _take_lease(self) -> bool:
        ledger = self.ledger
        units = most = 0
        for block in ledger.parts(ledger.head, ledger.tail):
            units += block.units
            most = block.end - ledger.head
            if units >= LEASE_UNITS or not block.units or most >= events.LEASE_MOST:
                break
        words = self._words
        waiting.register_for_barrier()
        words[waiting.LEASE_FLAG] = 0
        words[waiting.LEASE_POSITION] = ledger.head
        lease = self._append(events.lease(self._consumer or 0, min(most, events.LEASE_MOST)))
        if not isinstance(lease, Lease):
            return False
        self._hold_lease(lease, lease.first)
        ledger = self.ledger
        ledger.trim()
        if ledger.done or self._pending:
            self._reclaim()
        if self.maxsize and self.cells.anybody(waiting.AWAITS_PLACE):
            self._offer_space()
        return True

    def _hold_lease(self, lease: Lease, at: int) -> None:
        self._lease = lease
        self._lease_at, self._lease_end = at, lease.end
        self._lease_parts = deque(self.ledger.parts(lease.first, lease.end))

    def _take_leased(self, got: list[Record], most: int) -> bool:
        """Deliver items of our lease.  ``False``: it was revoked, and none of them is ours any more."""
        item = self._lease_at
        stop = min(item + most, self._lease_end)
        self.cut_short = stop < item + most
        words = self._words
        cached = self._first <= item and stop <= self._end
        if not cached:
            words[self._position_cell] = _LEASED | item
        words[_LEASE_POSITION] = stop
        contested = words[_LEASE_FLAG]
        if contested:
            stop = min(stop, self._contest(stop))
        if item < stop:
            if cached:
                self._deliver(got, item, stop)
            else:
                parts = self._lease_parts
                while parts[0].end <= item:
                    parts.popleft()
                self._read_and_deliver(got, item, stop, parts)
        self._lease_at = stop
        if not cached:
            words[self._position_cell] = 0
        if contested:
            self._forget_lease()
        elif self.maxsize and stop == self._lease_end:
            self._sync()
        return item < stop

    def _forget_lease(self) -> None:
        self._lease = None
        self._lease_at = self._lease_end = 0

    def _contest(self, wanted: int) -> int:
        """Somebody wants our lease to end: the journal decides where.  Returns the first item that is not ours."""
        lease = self._lease
        assert lease is not None
        self._append(events.revoke(wanted - lease.first, lease.number))
        number, base = self.ledger.kept
        assert number == lease.number
        return base

    def _end_lease(self) -> None:
        """End our lease where we are."""
        lease = self._lease
        if lease is not None:
            self._append(events.revoke(self._lease_at - lease.first, lease.number))
            self._forget_lease()

    def _revoke(self, lease: Lease) -> None:
        """End another's lease."""
        words = self._words
        words[waiting.LEASE_FLAG] = 1
        waiting.barrier()
        position = words[waiting.LEASE_POSITION]
        count = max(0, min(position, lease.end) - lease.first)
        self._append(events.revoke(count, lease.number))

    def _leased_out(self) -> bool:
        """Items of a lease that somebody else holds can be had for the asking."""
        lease = self.ledger.lease
        if lease is None:
            return False
        if self._lease is not None and self._lease.number == lease.number:
            return self._lease_at < self._lease_end
        return self._words[waiting.LEASE_POSITION] < lease.end

    # -- looking

    def qsize(self) -> int:
        """Items that could be got now."""
        with self._lock:
            self._begin()
            size = self._size()
            self._unsure = False
        return size

    def _size(self) -> int:
        self._publish()
        self._sync()
        ledger = self.ledger
        size = ledger.tail - ledger.head + len(self._state[1])
        lease = ledger.lease
        if lease is not None:
            position = self._lease_at if self._lease is not None else self._words[waiting.LEASE_POSITION]
            size += lease.end - max(lease.first, min(position, lease.end))
        return size

    def empty(self) -> bool:
        """Nothing could be got now."""
        with self._lock:
            self._begin()
            size = self._size()
            if not size:
                _looked[0] += 1
            self._unsure = False
        return not size

    def full(self) -> bool:
        """Nothing could be put now."""
        if not self.maxsize:
            return False
        with self._lock:
            self._begin()
            self._publish()
            self._sync()
            full = self.ledger.used >= self.maxsize
            if full and self._make_room():
                full = self.ledger.used >= self.maxsize
            self._unsure = False
        return full

    # -- waiting

    def _bell(self, kind: int) -> Bell:
        name = names.BELL if kind == waiting.SLEEPS else names.SPACE
        bell = self._bells.get(name)
        if bell is None:
            bell = self._bells[name] = Bell(self.folder.open_fifo(name))
        return bell

    def _ring(self, kind: int) -> None:
        """Wake one who sleeps, if somebody does."""
        if self.cells.anybody(kind) and self.cells.sleepers(kind):
            self._bell(kind).ring()

    def _ready(self, kind: int, places: int) -> bool:
        if kind == waiting.SLEEPS:
            return self.ledger.head < self.ledger.tail or bool(self._state[1]) or self._leased_out()
        return self.ledger.used + places <= self.maxsize

    def _wait(self, kind: int, deadline: Optional[float], places: int = 1) -> None:
        """Wait until there is something to get, or a place to put to; returns at the deadline too."""
        items = kind == waiting.SLEEPS
        if items and self._spin(deadline):
            return
        started = monotonic()
        if items and self._taken:
            self._fast = (started - self._woken_at) / self._taken < FAST
        with self._lock:
            self._begin()
            if items and self._consumer is None:
                self._join(consumer=True)
            slot = self._consumer if items else self._slot()
            assert slot is not None
            cell = Cells.place(kind, slot)
            bell = self._bell(kind)
            generation = self.generation
            self._unsure = False
        me = object()
        try:
            self._waiters[not items].add(me)
            self._nap(kind, deadline, places, cell, bell)
        finally:
            with self._lock:
                if generation == self.generation:
                    self._waiters[not items].discard(me)
                    if not self._waiters[not items]:
                        self._words[cell] = 0
        self._woken_at = monotonic()
        self._taken = 0

    def _nap(self, kind: int, deadline: Optional[float], places: int, cell: int, bell: Bell) -> None:
        generation = self.generation
        nap = NAP * max(1, self.ledger.consumers if kind == waiting.SLEEPS else len(self.ledger.members))
        naps = 0
        rung = False
        while True:
            now = monotonic()
            seconds = nap if deadline is None else min(nap, deadline - now)
            with self._lock:
                if generation != self.generation:
                    return
                self._begin()
                if rung:
                    self._sync()
                word = waiting.sleep_word(now + max(0.0, seconds), nap)
                if len(self._waiters[kind != waiting.SLEEPS]) > 1:
                    word = max(word, self._words[cell])
                self._words[cell] = word
                # A barrier: whoever publishes after this look sees that we sleep.
                with self._fence:
                    pass
                self._sync()
                ready = self._ready(kind, places)
                if ready and rung:
                    self._pass_on(kind, cell)
                if not ready and now - self._scanned > SCAN_EVERY * max(1, self.ledger.consumers):
                    self._scan()
                    ready = self._ready(kind, places)
                elif self.ledger.done:
                    self._reclaim()
                self._unsure = False
            if ready or seconds <= 0:
                return
            rung = bell.sleep(seconds)
            naps += 1
            if naps > NAPS:
                nap = min(NAP_LAST, 2 * nap)
            if naps == NAPS:
                self._end_used_lease()

    def _end_used_lease(self) -> None:
        """Nothing has come for a while: our lease, wholly delivered, must not keep its batch files."""
        with self._lock:
            self._begin()
            if self._lease is not None and self._lease_at >= self._lease_end:
                self._end_lease()
                self.ledger.trim()
                self._reclaim()
            self._unsure = False

    def _pass_on(self, kind: int, cell: int) -> None:
        """We were rung for: ring for the next, where more is there than we take."""
        if kind == waiting.SLEEPS:
            if self.ledger.tail - self.ledger.head < 2:
                return
        elif self.maxsize - self.ledger.used < 2:
            return
        self._words[cell] = 0
        sleepers = self.cells.sleepers(kind)
        if not sleepers:
            return
        if kind == waiting.SLEEPS and self._fast and min(sleepers) < time.monotonic_ns() // 1000 + SOON:
            return  # Whoever it is looks by itself within moments, and probably we have emptied the queue by then.
        self._bell(kind).ring()

    def _spin(self, deadline: Optional[float]) -> bool:
        """Look for a moment before sleeping: waking up would cost more.  One looker a queue."""
        if not (SPINNING and _SPINNERS):
            return False
        self._spins += 1
        if self._luck < 0.2 and self._spins & 15:
            return False
        words = self._words
        now = monotonic()
        if 0 < words[waiting.LOOKS] - int(now * 1e6) < 1e6:
            return False
        stop = now + SPIN if deadline is None else min(now + SPIN, deadline)
        seen = words[waiting.PUBLISHED]
        words[waiting.LOOKS] = int(stop * 1e6)
        while words[waiting.PUBLISHED] == seen and monotonic() < stop:
            pass
        words[waiting.LOOKS] = 0
        hit = words[waiting.PUBLISHED] != seen
        self._luck += (hit - self._luck) * 0.25
        return hit


def _replay(journal: Journal, ledger: Ledger, slot: int, word: int) -> int:
    """Apply a journal's events up to the slot's first claim since then, which is noted in ``yours``, or to the end;
    returns where that is.  ``word``: a position cell's, or 0 for the journal's start."""
    number = (word - _SHIFT) // events.SIZE
    at = journal.start
    while (missing := number - ledger.base - ledger.index) > 0:
        applied = ledger.apply(journal.read(at, min(READ_LARGE, missing * events.SIZE)))
        if not applied:
            return at
        at += applied
    ledger.watched = slot
    while not ledger.yours and (applied := ledger.apply(journal.read(at, events.SIZE * 8))):
        at += applied
    ledger.watched = None
    return at


def _pieces(records: list[Record]) -> Iterator[list[Record]]:
    """Records in the pieces in which they can be published: so many or so large that one event can say it."""
    start = size = 0
    for at, record in enumerate(records):
        size += len(record) + 4
        if at > start and (at - start >= events.PUBLISH_MOST or size >= blocks.GIANT):
            yield records[start:at]
            start, size = at, len(record) + 4
    yield records[start:]


def _flush(reference: weakref.ref[Engine]) -> None:
    """The flusher: publishes the end of each burst.  It holds its engine only while there is something to do."""
    idle = 0
    me = threading.current_thread()
    while True:
        time.sleep(LINGER)
        engine = reference()
        if engine is None or engine._flusher is not me:
            return
        idle = 0 if engine._records else idle + 1
        with contextlib.suppress(OSError):  # the disk is full: put will say so, and this tries again
            engine.flush()
        if idle > FLUSHER_IDLE:
            wake = engine._flusher_wake
            with engine._lock:
                if engine._records:
                    continue
                engine._flusher_busy = False
                wake.clear()
            del engine
            rested = wake.wait(FLUSHER_REST)
            engine = reference()
            if engine is None:
                return
            with engine._lock:
                if not rested and not engine._flusher_busy and engine._flusher is me:
                    engine._flusher = None
                    return
            idle = 0
        del engine


class _AtExit:
    """Publishes before a process waits for its children and again when it ends; then leaves every queue.

    ``multiprocessing``'s children end through ``os._exit``: only its own finalizers run there.  A new child clears
    their registry after the fork hooks ran, and enters again from ``register_after_fork``."""

    def __init__(self) -> None:
        self._armed = False
        util.register_after_fork(self, _AtExit.enter_again)

    def arm(self) -> None:
        if not self._armed:
            self._armed = True
            util.Finalize(None, _flush_all, exitpriority=10)
            util.Finalize(None, _leave_all, exitpriority=-100)

    def enter_again(self) -> None:
        self._armed = False
        Engine.exiting = False
        if Engine._all:
            self.arm()


def _flush_all() -> None:
    Engine.exiting = True
    for engine in list(Engine._all.values()):
        with contextlib.suppress(OSError):
            engine.flush()


def _leave_all() -> None:
    for engine in list(Engine._all.values()):
        try:
            engine.retire()
        except OSError as error:
            lost = len(engine._records)
            if lost:
                print(f"tqshim: {lost} items put into {engine.folder.path} are lost: {error}", file=sys.stderr)


def _before_fork() -> None:
    engines = list(Engine._all.values())
    if engines:
        waiting.barrier_works()  # imports ctypes, 3 ms: once here, not in every child
    for engine in engines:
        with contextlib.suppress(OSError):
            engine.before_fork()


def _after_fork_in_child() -> None:
    Engine._all_lock = threading.RLock()
    for engine in list(Engine._all.values()):
        engine.forked()
    # For children of a bare os.fork; those of multiprocessing clear the registry after this, and enter again.
    _at_exit.enter_again()


_at_exit = _AtExit()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
