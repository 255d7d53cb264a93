"""The engine's foundation: the journal as this process sees it, its memberships, and what it may delete.

Lives here: appending and catching up, rolls, joining and burying, reclaiming batch files, what a fork leaves.
Not here: getting, putting, sleeping (the layers above).

Invariant: ``_lock`` is held over every act, ``_unsure`` is set while one is under way.  An exception in between
(Ctrl-C, a signal handler, a full disk) leaves it set, and the next act begins by asking the journal what has happened.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from math import inf
from multiprocessing import context, reduction
from typing import Any, ClassVar, Final, Optional, Union

from . import events, locks, names, tuning, waiting
from .blocks import NewRecord, Record
from .clock import monotonic
from .errors import CorruptBatchError, FolderError
from .extents import Block
from .folder import NO_SPACE, BatchView, Folder, Journal, RecordInFile
from .keys import Key
from .ledger import Lease, Ledger, Verdict
from .mappings import Mappings
from .names import FileId
from .waiting import Bell, Cells

__all__ = ["LEASED", "NO_BURST", "NO_STEPS", "SHIFT", "Core", "Handed", "Step", "Taken", "looked", "replay"]

_PACKAGE: Final = __name__.partition(".")[0]
_FLUSHERS: Final = f"{_PACKAGE}.putting"
"""Where frames of a flusher have the engine's lock; a queue's own frames never do."""

Taken = Union[Record, RecordInFile]
"""A record as a get takes it."""
Place = tuple[int, None, int]
NO_BURST: Final[Iterator[Place]] = iter(())
Step = tuple[Record, int, None, int]
NO_STEPS: Final[Iterator[Step]] = iter(())

LEASED: Final = 1 << 63
"""Set in a position cell that holds the number of a leased item."""
SHIFT: Final = 1 << 32
"""Added to a position, so that a cell with a position is never 0."""

FEW: Final = 4
"""Consumers among whom it is worth looking for dead ones at once: all but one may be."""

looked = [0]
"""How often this process has found a queue empty: whoever did plays ping-pong, and its next put is no burst."""


class Handed(tuple[int, tuple[Taken, ...]]):
    """A ``_state`` in which an item has been delivered that is still held in the journal, under that number."""

    number: int


class Core:
    """What all acts of one process in one queue folder stand on."""

    durable: ClassVar[bool] = False
    """What a put has put survives a power cut."""
    tag: ClassVar[int] = 0
    """Bytes that follow a block."""
    key: Optional[Key] = None
    """Of a queue that has one."""
    exiting: ClassVar[bool] = False
    """No thread can be started any more: every put is published at once."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.generation = 0
        self._known: Optional[Ledger] = None
        self._stale = False
        # These stay when a forked child begins anew: its other threads may be waiting for them.
        self._lock: Any = locks.Lock()
        self._fence: Any = locks.Lock()
        self.closed = False
        self.flusher_holds = threading.Lock()
        """Locked while the flusher refers to this."""
        self._flusher_has = [False]
        """Whether the flusher holds the lock."""
        self._later: list[Callable[[bool], object]] = []
        """Acts of signal handlers that have interrupted another one, and wait for its end; told whether they may wait
        for a place, too."""
        self._later_turn = threading.Lock()
        self._reset()
        self._load()
        self.maxsize = self.ledger.maxsize
        self.batch_size = tuning.BLOCK_RECORDS
        self.small = tuning.SMALL
        self.looked = looked
        self._enough = max(1, min(tuning.PLACES_ENOUGH, self.maxsize // 16))
        self._places = min(tuning.PLACES, max(tuning.PLACES_FEW, self.maxsize // 64))
        """Places of a reservation, where so many are free."""
        self._spawning: tuple[Optional[weakref.ref[Any]], Any] = (None, None)

    def _reset(self) -> None:
        self._unsure = False
        self.cells = Cells(self.folder.open_cells())
        self._words = self.cells.words
        self._bells: dict[str, Bell] = {}
        self._scanned = monotonic()
        self._listing: Optional[Iterator[str]] = None
        """Names in the folder that the next scan looks at."""
        self._glance = tuning.SCAN_NAMES_LEAST
        """So many of them."""
        self._pending: list[tuple[FileId, int, int]] = []
        self._long_pins: dict[int, tuple[int, float, Optional[set[FileId]]]] = {}
        # producer
        self._producer: Optional[int] = None
        self._producer_number = 0
        self._publish_word = 0
        """Our PUBLISH of one record, less its units."""
        self._serial = 0
        self._file: Optional[FileId] = None
        self._file_fd = -1
        self._file_memory: Optional[memoryview] = None
        """The bytes that our batch file had when it was opened, if it is mapped."""
        self._offset = 0
        self._put_then = self._got_then = 0
        """Items of the queue that had been put and got when we last opened a batch file for large ones."""
        self._files_return = False
        """Then one came back to be refilled."""
        self._seal_at = 0
        """Bytes at which it is sealed."""
        self.records: list[NewRecord] = []
        """What is held back.  One list as long as this process lives: the short way of a put appends to it."""
        self._bytes = self._weighed = 0
        """Bytes of the records that are held back, of so many of them."""
        self._publishing: Optional[tuple[NewRecord, int, int]] = None
        """While a block is published: its first record, how many they are, and where it stands."""
        self._published_at = -inf
        self._head_then = 0
        self._gap = tuning.GAP_FIRST
        self.looked_then = 0
        self._full_at = 0.0
        """When we last had to wait for a place."""
        self.burst: Iterator[Place] = NO_BURST
        """Records may be appended without the lock, as many as this has places.  Taking one stores in our cell how many
        of our reservation are taken, and looks whether somebody cuts it down, in one piece that neither a thread nor a
        signal handler divides; that is what it yields at last.  Ended by ``_close_burst``."""
        self._tickets: list[int] = []
        """What ``burst`` goes through: cleared, it has no more places."""
        self._opened_at = -inf
        self._opened_with = 0
        """When we last looked how fast records come, and how many were held back then."""
        self._granted = self._used = 0
        """Places of our reservation, and those of them that records have taken."""
        self._grant = 0
        self._used_cell = self._used_flag = 0
        self._flusher: Optional[Any] = None
        self._flusher_busy = False
        # consumer
        self._joining: Optional[int] = None
        self._consumer: Optional[int] = None
        self._consumer_number = 0
        self._claim_event = b""
        self._claim_word = 0
        self._claim_from = 0
        self._position_cell = self._lease_cell = self._lease_flag = 0
        self._state: tuple[int, tuple[Taken, ...]] = (-1, ())
        """The last item that was taken and delivered, unless ``_lease_at`` is beyond it, and the hand: records that are
        to be delivered (again) first.  One tuple: an exception finds both changed, or neither."""
        self._ended: dict[int, bool] = {}
        """By number: items that we hold, and are to let go: got, or to come back."""
        self.cut_short = False
        """The last take ended where a lease does, and there may be more."""
        self._lease: Optional[Lease] = None
        self._lease_at = self._lease_end = 0
        self._counted = 0
        """Items of our lease up to this one are in ``_taken``."""
        self.steps: Iterator[Step] = NO_STEPS
        """The next records of our lease, which go without the lock: a step takes one, stores in our cell that it is
        taken, and looks whether somebody wants the lease to end, in one piece that neither a thread nor a signal
        handler divides.  It yields the record, its item, nothing, and the flag.  Ended by ``_settle``; while it is not,
        the cell holds what ``_lease_at`` will be."""
        self._window: list[Record] = []
        """The records of ``steps``."""
        self._lost: set[int] = set()
        """Items that steps took when our lease had ended before them."""
        self._lease_parts: deque[Block] = deque()
        self._body: Record
        self._ends: Sequence[int]
        self._forget_block()
        self._fds: dict[FileId, int] = {}
        self._viewed: tuple[Optional[FileId], Optional[BatchView]] = None, None
        """The file of large blocks that we read last, if it is mapped."""
        self._mappings = Mappings()
        self._damage: Optional[CorruptBatchError] = None
        """What was found where no get could be told: the next one is."""
        self._waiters: dict[int, set[object]] = {kind: set() for kind in waiting.KINDS}
        self._woken_at = 0.0
        self._taken = 0
        """Items that we have taken."""
        self._pace_from = 0
        self._pace_at = 0.0
        """From which of our items, and since when, we measure how fast we are."""
        self._pace = float("inf")
        """Seconds that each of our last items took us, without the waiting."""
        self._offered_at = 0.0
        self._offered_with = 0
        """When we last looked whether to offer places, and how many items we had taken then."""
        self._hint = int.from_bytes(os.urandom(4), "little") << 24
        self._luck = 1.0
        self._spins = 0
        self._shut_at = 0.0
        """When we first looked into the queue after it was shut down."""
        self.over = False
        """A get has found it shut down, and empty for good."""

    def _close_files(self) -> None:
        self.journal.close()
        self._listing = None
        self._drop_file()
        while self._fds:
            os.close(self._fds.popitem()[1])
        self._viewed = None, None
        self._forget_block()
        self._mappings.clear()
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

    # -- the layers above

    def _recover(self) -> None:
        """An act was interrupted, or this process was forked: ask the journal how things stand."""
        raise NotImplementedError

    def _leave(self) -> None:
        """Be no member any more."""
        raise NotImplementedError

    def _publish_if_possible(self) -> None:
        """Publish what is held back, unless the disk is full: that must not keep this process from draining it."""
        raise NotImplementedError

    def _hurry_elsewhere(self) -> None:
        """This process is about to wait: what it holds back in other queues is to be published now, for somebody may be
        waiting for that."""
        raise NotImplementedError

    def _slot(self) -> int:
        """Our slot as a producer."""
        raise NotImplementedError

    def _ready(self, kind: int, places: int) -> bool:
        """What one waits for is there: an item, or so many places."""
        raise NotImplementedError

    def _available(self, kind: int) -> int:
        """How many could go who wait for that: items or places; all if the queue was shut down."""
        raise NotImplementedError

    def _end_used_lease(self) -> None:
        """Nothing has come for a while: our lease, wholly delivered, must not keep its batch files."""
        raise NotImplementedError

    def _comes_back(self) -> bool:
        """Nothing waits; but items have come back, if need be of holders that died."""
        raise NotImplementedError

    def _held_by_others(self) -> bool:
        """Items may still come back from other processes."""
        raise NotImplementedError

    def _take_returned(self, got: list[Taken], most: int) -> None:
        """Append to ``got`` records that have come back, ``most`` or fewer."""
        raise NotImplementedError

    # -- the journal

    def _load(self) -> None:
        """Start at the newest journal."""
        generation = self.generation
        self.journal, snapshot = self.folder.open_newest()
        self._check_frame(generation)
        self._start(Ledger.load(snapshot))
        self._sync()

    def _start(self, ledger: Ledger) -> None:
        """Go on at the start of a journal, of which the ledger has applied nothing."""
        self.ledger = ledger
        self._pos = self.journal.start
        # A position cell holds the number of an event in all the journals; this much lies between it and the bytes.
        self._shift = ledger.base * events.SIZE - self.journal.start + SHIFT
        self._half = self.journal.start + ledger.limit * events.SIZE // 2
        self._set_aside = ledger.next_limit

    def _sync(self) -> None:
        """Apply all that others have written."""
        size = tuning.READ_SMALL
        while True:
            chunk = self.journal.read(self._pos, size)
            applied = self.ledger.apply(chunk) if chunk else 0
            self._pos += applied
            if self.ledger.sealed is not None:
                self._next_journal()
                continue
            if applied < size:
                return
            size = tuning.READ_LARGE

    def _catch_up(self, end: int) -> None:
        """Apply what stands before byte ``end`` of this journal: another's events, appended before one of ours."""
        deadline = 0.0
        while self._pos < end:
            applied = self.ledger.apply(self.journal.read_written(self._pos, min(tuning.READ_LARGE, end - self._pos)))
            self._pos += applied
            if not applied:  # written, but not to be seen yet
                deadline = deadline or monotonic() + tuning.UNSEEN_PATIENCE
                if monotonic() > deadline:
                    raise self._journal_damaged(f"no event at byte {self._pos}, before others")

    def _apply_before(self, end: int) -> None:
        """Apply what stands before our event that ends at byte ``end`` and was appended just now: CLAIMs mostly."""
        others = (end - self._pos >> 3) - 1
        ledger = self.ledger
        if self.journal.only_claims and ledger.plain and ledger.index + others < ledger.limit:
            head = ledger.head + others
            ledger.head = head if head < ledger.tail else ledger.tail
            ledger.index += others
        else:
            self._catch_up(end - events.SIZE)

    def _journal_damaged(self, finding: str) -> CorruptBatchError:
        path = f"{self.folder.path}/{names.journal(self.journal.number)}"
        return CorruptBatchError(path, finding, "use another folder")

    def _append(self, event: bytes, ours: bool = False) -> Verdict:
        """Append an event and say what it came to, after a roll if it came too late for this journal.

        ``ours``: it names our slot, so nobody else writes the same."""
        word = int.from_bytes(event, "little")
        while True:
            ledger = self.ledger
            if ledger.index >= ledger.limit:
                # Not yet another void event, if there is no space for a roll.
                self._roll()
            journal = self.journal
            end = journal.append_after(event, word, self._pos) if ours else journal.append(event)
            if end - events.SIZE != self._pos:
                self._catch_up(end - events.SIZE)
            self._pos = end
            ledger = self.ledger
            late = ledger.index >= ledger.limit
            verdict = ledger.step(word)
            if not late:
                if end > self._half:
                    self._set_space_aside()
                return verdict

    def _set_space_aside(self) -> None:
        """Reserve space for the next journal: for what it begins with, if from now on each event is a block that waits,
        and for a claim of each waiting item.  On a disk that is full by then, and on which others take whatever is
        given back, they can still all be claimed."""
        ledger = self.ledger
        if self._pos > self._half:
            self._half = 1 << 62
        self._set_aside = ledger.wanted_limit
        words = ledger.words_after(min(ledger.limit - ledger.index, tuning.BLOCKS_TO_COME))
        self.folder.set_space_aside(self.journal.number + 1, self._set_aside + words)

    def _roll(self) -> None:
        """This journal is full: decide on the next, and go there."""
        number = self.journal.number + 1
        # Whoever takes the spare is likely to win: the others need not all write down the same state.
        begun = monotonic()
        patience = begun + tuning.ROLL_PATIENCE + tuning.ROLL_PATIENCE_BLOCK * len(self.ledger.blocks)
        while self.ledger.sealed is None and monotonic() < patience and not self.folder.has_spare(number):
            time.sleep(1e-3)
            self._sync()
            if self.journal.number >= number:
                return
        whole = True
        while self.ledger.sealed is None:
            try:
                key = self._prepare_roll(number, whole)
            except OSError as error:
                if error.errno not in NO_SPACE:
                    raise
                # Another may have taken the space that was set aside, and be kept from running.  A shorter journal of
                # ours must not come before that one: not all that waits might be claimed, and nothing else frees space.
                rolls = self.folder.has_roll(number)
                self._sync()
                if self.journal.number >= number:
                    return
                if monotonic() > (begun + tuning.ROLL_PATIENCE_FULL if rolls else patience + tuning.ROLL_PATIENCE):
                    if not whole:
                        raise
                    whole = False
                else:
                    time.sleep(1e-3)
                continue
            end = self.journal.append(events.seal(int(key, 16)))
            self._catch_up(end)
            if self.ledger.sealed != int(key, 16):
                self.folder.drop_roll(number, key)
        self._next_journal()
        self._scan_if_due(monotonic())

    def _prepare_roll(self, number: int, whole: bool) -> str:
        ledger = self.ledger
        snapshot = partial(ledger.snapshot, True)
        prepare = partial(self.folder.prepare_roll, number, snapshot, ledger.next_limit, ledger.wanted_limit, whole)
        try:
            return prepare()
        except OSError as error:
            if error.errno not in NO_SPACE or not self.folder.remove_free():
                raise
            return prepare()

    def _next_journal(self) -> None:
        assert self.ledger.sealed is not None
        generation = self.generation
        old = self.journal
        new = self.folder.finish_roll(old.number + 1, self.ledger.sealed)
        if new is None:  # this process lags: even the next journal is gone
            watched = self.ledger.watched
            deadline = monotonic() + tuning.UNSEEN_PATIENCE
            while True:
                self.journal, snapshot = self.folder.open_newest()
                self._check_frame(generation)
                if self.journal.number > old.number:
                    break
                # A listing may miss what is renamed in that moment.
                if monotonic() > deadline:
                    self.journal.close()
                    self.journal = old
                    raise self._journal_damaged(f"sealed, but journal_{old.number + 1} is not there")
                self.journal.close()
            self._start(Ledger.load(snapshot))
            self.ledger.watched = watched
        else:
            self.journal, snapshot = new
            self._check_frame(generation)
            self.ledger.roll(Ledger.snapshot_limit(snapshot))
            self._start(self.ledger)
        old.close()
        # Now, and again at its half if it did not work: old journals go when the last process leaves them.
        self._set_space_aside()

    # -- being sure

    def _begin(self) -> None:
        if self._unsure:
            self._recover()
        self._unsure = True

    def _is_taken(self) -> bool:
        """Somebody has a lock of this engine."""
        return bool(self._lock.locked())

    def _stands_above_itself(self) -> bool:
        """This runs in a signal handler, or a destructor, that has interrupted an act of this very engine: who waits
        here for a lock of that waits for ever.  Walks the stack, but only where one is taken."""
        if not self._is_taken():
            return False
        frame = sys._getframe(1)
        outside = False
        while frame is not None:
            room = frame.f_globals.get("__name__", "")
            if not room.startswith(_PACKAGE):
                outside = True
            elif outside:
                known = frame.f_locals
                if known.get("self") is self or (room == _FLUSHERS and known.get("engine") is self):
                    return True
            frame = frame.f_back  # type: ignore[assignment]
        return False

    def forked(self) -> None:
        """In a forked child, before anything else.  What was under way in the parent must not go on here, not even in a
        frame of this very thread (a fork in a signal handler): its descriptors are of no use from now on."""
        self.steps, self.burst = NO_STEPS, NO_BURST
        self._known = self.ledger if not self._unsure else None
        self._stale = self._unsure = True
        self.generation += 1
        if self._flusher_has[0]:
            # A thread that is no more held it, and a frame below this one, of a signal handler, may wait for it.
            # Released, not made anew: before 3.13 that leaves who waits with the lock as it was.
            self._flusher_has[0] = False
            self._lock.release()
        self._lock = locks.Lock()
        self._fence = locks.Lock()
        self.flusher_holds = threading.Lock()
        self._later = []  # they are the parent's
        self._later_turn = threading.Lock()
        if self.closed:
            return
        if self.folder.fd >= 0:
            # A folder's descriptor: reads and writes through it fail.
            os.dup2(self.folder.fd, self.journal.fd, inheritable=False)
            if self._file_fd >= 0:
                os.dup2(self.folder.fd, self._file_fd, inheritable=False)
        if self._file_memory is not None:
            self._file_memory.release()
        self.folder.suspend()
        self.journal.unmap()
        self.cells.detach()
        self._words = self.cells.words

    def _check_frame(self, generation: int) -> None:
        """Called where a file has just been opened and stored.  A fork before that (in a signal handler) left it to
        this frame, which goes no further; a fork after that finds it, and makes it useless (``forked``)."""
        if self.generation != generation:
            raise OSError(errno.EBADF, "this frame's process was forked")

    def _act_ends(self, sure: bool = True) -> None:
        """The end of an act.  In this order: a handler may fork at any instruction, which must not be forgotten."""
        self._unsure = not sure
        if self._stale:
            self._unsure = True

    def _after_fork(self) -> None:
        generation = self.generation
        known, pos, number = self._known, self._pos, self.journal.number
        self._close_files()
        self.folder.after_fork()
        self._reset()
        try:
            if known is None:
                raise FileNotFoundError
            # The parent was in the middle of nothing: go on from what it knew.
            self.journal, _ = self.folder.open_journal(number)
            self._start(known)
            self._pos = pos
            self._sync()
        except FileNotFoundError:  # rolled in the meantime
            self._load()
        self._known = None
        if generation == self.generation:
            self._stale = False
        self._act_ends()

    def _maps_files(self) -> bool:
        """The batch files of large blocks are to be mapped."""
        return tuning.MAPPINGS and tuning.GIL and not self.durable and self.folder.maps_batches

    def _drop_file(self) -> None:
        # In this order: an exception in between leaves a descriptor open, but none is closed twice.
        fd, self._file_fd, self._file, self._file_memory = self._file_fd, -1, None, None
        if fd >= 0:
            os.close(fd)

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
                self._map_all_cells()
            self._joining = slot
            deadline = monotonic() + tuning.SLOT_PATIENCE
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
            self._lease_cell = Cells.place(waiting.LEASE_POSITION, slot)
            self._lease_flag = Cells.place(waiting.LEASE_FLAG, slot)
            self._consumer = slot
        else:
            self._producer_number = number
            self._serial = 0
            self._publish_word = int.from_bytes(events.publish(slot, 1, 0), "little")
            self._producer = slot
        self._joining = None
        if consumer and self.ledger.consumers <= FEW:
            self._bury_the_dead()  # so that we may be the only one, and lease

    def _map_all_cells(self) -> None:
        """Map the cells of members that have joined beyond ours.  The old mapping is not closed: it shows the same
        memory, and a caller may be about to store there."""
        ledger = self.ledger
        if len(ledger.members) + len(ledger.free) > self.cells.slots:
            generation = self.generation
            self.cells = Cells(self.folder.open_cells())
            self._check_frame(generation)
            self._words = self.cells.words

    def _holds(self, lease: Lease) -> bool:
        """That lease is ours."""
        return self._lease is not None and self._lease.number == lease.number

    def _delivered(self) -> int:
        """The oldest item that nobody has got, as far as can be seen without asking: a lease may be going on."""
        lease = self.ledger.lease
        if lease is None:
            return self.ledger.head
        if self._holds(lease):
            return self._lease_at if self.steps is NO_STEPS else self._words[self._lease_cell]
        self._map_all_cells()
        position = self._words[Cells.place(waiting.LEASE_POSITION, lease.slot)]
        return max(lease.first, min(position, lease.end))

    def _count_waiting(self) -> int:
        """Items that nobody has got and nobody holds, as far as can be seen without asking."""
        return self.ledger.tail - self._delivered() + len(self.ledger.returned)

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

    def _scan_if_due(self, now: float) -> bool:
        """Scan, unless somebody has within the last second: one does it for all."""
        if now - self._scanned <= tuning.SCAN_EVERY:
            return False
        at = self._words[waiting.SCANNED] / 1e6
        # Else it is long ago, or from before the machine was started; or we are in the middle of one.
        if self._listing is None and 0 <= now - at < tuning.SCAN_EVERY:
            self._scanned = at
            return False
        self._words[waiting.SCANNED] = int(now * 1e6)
        self._scanned = now
        self._scan()
        return True

    def _scan(self) -> None:
        """Look for members that died, and for files that nobody removed.  Of very many names it looks at as many as
        takes a moment, and the next scan, which then follows soon, goes on: whoever scans may be about to get."""
        began = monotonic()
        self._sync()
        self._bury_the_dead()
        if self._listing is None:
            self._listing = self.folder.listing()
        listed = list(islice(self._listing, self._glance))
        found = self.folder.batches(listed)
        # After the listing: a file's producer had joined before it made the file.
        self._sync()
        known = {file for file, _, _ in self._pending}
        now = self._pos + self._shift
        self._pending += [(file, 1 << 62, now) for file in found if file not in known and self.ledger.is_done(file)]
        self._reclaim()
        self.folder.remove_free({member.number for member in self.ledger.members.values()}, listed)
        self.folder.remove_old_journals(self.journal.number, listed)
        if len(listed) < self._glance:
            self._listing = None
        else:
            ended = monotonic()
            took = max(ended - began, 1e-6)
            self._scanned = ended + tuning.SCAN_REST * took - tuning.SCAN_EVERY
            fitting = min(int(self._glance * tuning.SCAN_LOOK / took), 2 * self._glance, tuning.SCAN_NAMES)
            self._glance = max(fitting, tuning.SCAN_NAMES_LEAST)

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
        self._map_all_cells()
        words = self._words
        # Whoever has joined beyond that has not grown the cells yet, and so has claimed nothing.
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
            self._remove(file)
            fd = self._fds.pop(file, None)
            if fd is not None:
                os.close(fd)
            if self._viewed[0] == file:
                self._viewed = None, None
                self._forget_block()
        self._pending = kept

    def _reclaim_done(self) -> None:
        self.ledger.trim()
        if self.ledger.done or self._pending:
            self._reclaim()

    def _forget_block(self) -> None:
        """The block that was read last is not to be taken from memory again."""
        self._first = self._end = 0
        self._block = Block(0, 0, FileId(0, 0), 0, 0)
        self._body, self._ends = memoryview(b""), ()

    def _remove(self, file: FileId) -> None:
        """Delete a batch file that nobody needs any more, or leave it to its producer."""
        if file.large and not file.spilled and self._will_refill(file):
            self.folder.free_batch(file)
        else:
            self.folder.remove_batch(file)

    def _will_refill(self, file: FileId) -> bool:
        """Its producer is still there, and so is space for others."""
        return any(member.number == file.member for member in self.ledger.members.values()) and not (
            self.folder.is_nearly_full()
        )

    def _pins(self, slot: int, word: int, file: FileId, end: int, when: int) -> bool:
        """The member of that slot may be about to read the batch file, its position cell says."""
        if word & LEASED:
            return end > word - LEASED
        if word > when:  # it began to claim after all items of this file had been claimed
            return False
        files = self._files_pinned(slot, word)
        return files is None or file in files

    def _files_pinned(self, slot: int, word: int) -> Optional[set[FileId]]:
        """The batch files of the items that the slot has claimed since then; ``None``: not known, so any."""
        now = monotonic()
        seen = self._long_pins.get(slot)
        if seen is None or seen[0] != word:
            self._long_pins[slot] = word, now + tuning.PIN_PATIENCE, None
            return None
        _, ask_at, files = seen
        if files is None and now >= ask_at:
            files = self._files_claimed(slot, word)
            # None found: it was stopped before its CLAIM, and may pin later files yet.
            self._long_pins[slot] = word, now + tuning.PIN_PATIENCE, files or None
        return files

    def _files_claimed(self, slot: int, word: int) -> Optional[set[FileId]]:
        """Where the items lie that the slot has claimed since then; read from the journal."""
        number = (word - SHIFT) // events.SIZE
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
                replay(journal, ledger, slot, word)
                if ledger.yours:
                    return {block.file for _, _, block in ledger.yours}
            finally:
                journal.close()
        return set()


def replay(journal: Journal, ledger: Ledger, slot: int, word: int) -> int:
    """Apply a journal's events up to the slot's first claim since then, which is noted in ``yours``, or to the end;
    returns where that is.  ``word``: a position cell's, or 0 for the journal's start."""
    number = (word - SHIFT) // events.SIZE
    at = journal.start
    while (missing := number - ledger.base - ledger.index) > 0:
        applied = ledger.apply(journal.read(at, min(tuning.READ_LARGE, missing * events.SIZE)))
        if not applied:
            return at
        at += applied
    ledger.watched = slot
    while not ledger.yours and (applied := ledger.apply(journal.read(at, events.SIZE * 8))):
        at += applied
    ledger.watched = None
    return at
