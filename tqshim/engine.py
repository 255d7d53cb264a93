"""The engine: one a process and folder, shared by all its handles and threads; and its use, which they find.

Lives here: finding, recovering and leaving; what a handle asks; forks and the end of the program.  Not here: what an
event does (``ledger``), how it reaches the disk (``folder``), how one sleeps (``waiting``), pickling (``queues``).

An engine is made of layers, each a class of its own: ``core`` (journal, members), ``sleeping``, ``getting``,
``claiming``, ``putting``, ``finishing``, and this one; that of a durable queue has ``durability`` on top,
and that of a queue with a key ``authentication``.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import time
import weakref
from collections.abc import Callable
from multiprocessing import process
from typing import TYPE_CHECKING, Any, ClassVar, Optional

from . import events, forks, locks, tuning, waiting
from .authentication import Authentication
from .claiming import Hold
from .clock import monotonic
from .core import Core, Handed, Taken, looked, replay
from .durability import Durability
from .ending import AtExit
from .errors import CorruptBatchError
from .extents import Block
from .finishing import Finishing
from .folder import Folder, forked, reclaim, sweep
from .keys import Key, match
from .ledger import OPEN_FOR_ALL, Ledger
from .putting import Flusher
from .weak import alive

if TYPE_CHECKING:
    from .figures import Stats

__all__ = ["Engine", "Use"]


class Use:
    """One process's use of a queue: each of its handles holds it, and with the last one it goes.

    An engine itself can't be what is found: another thread could get hold of one whose finalizer runs."""

    __slots__ = ("__weakref__", "engine")

    _all: ClassVar[weakref.WeakValueDictionary[tuple[int, int], Use]] = weakref.WeakValueDictionary()
    """By device and inode of the folder."""
    lock: ClassVar[Any] = locks.RLock()

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @classmethod
    def create(cls, maxsize: int) -> Use:
        """That of a new anonymous queue; what killed programs left of theirs is deleted on the way."""
        others = [engine.folder.path for engine in alive(Engine.all)]
        folder = Folder.create_anonymous(maxsize, tuning.LIMITS)
        with cls.lock:
            use = cls._of(folder)
        sweep(os.path.dirname(folder.path), [folder.path, *others])
        return use

    @classmethod
    def open(cls, path: str, maxsize: int, durable: Optional[bool] = None, authkey: Optional[bytes] = None) -> Use:
        """That of the queue at a path, which is made if it is not there."""
        proof = b"" if authkey is None else Key(authkey).proof
        with cls.lock:
            use = cls._of(Folder.open(path, maxsize, tuning.LIMITS, bool(durable), proof), authkey)
        if maxsize > 0 and use.engine.maxsize != maxsize:
            raise ValueError(
                f"{path}: the queue there has maxsize={use.engine.maxsize}, not {maxsize}; leave maxsize out to join it"
            )
        if durable is not None and use.engine.durable != durable:
            raise ValueError(
                f"{path}: the queue there was made with durable={use.engine.durable}, which holds for all its handles; "
                "leave durable out to join it, or use another folder"
            )
        return use

    @classmethod
    def meet(
        cls,
        path: str,
        receive: Optional[Callable[[], int]] = None,
        authkey: Optional[bytes] = None,
        keyed: bool = False,
    ) -> Use:
        """That of a queue whose handle was just unpickled; ``receive`` fetches the hold that came with it.

        ``keyed``: the queue has an authkey.  If it did not come with the handle this process uses the queue already, or
        its own authkey is the queue's."""
        with cls.lock:
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(path)
                use = cls._all.get((status.st_dev, status.st_ino))
                if use is not None and not use.engine.closed:
                    return use._checked(authkey, keyed)
            folder = Folder.meet(path, receive() if receive else None)
            return cls._of(folder, process.current_process().authkey if keyed and authkey is None else authkey)

    @classmethod
    def _of(cls, folder: Folder, authkey: Optional[bytes] = None) -> Use:
        use = cls._all.get(folder.key)
        if use is not None and not use.engine.closed:
            folder.close()
            return use._checked(authkey)
        try:
            durable, proof = (False, b"") if folder.anonymous else folder.kind()
            key = match(folder.path, proof, authkey)
        except BaseException:
            folder.close()
            raise
        engine: Engine
        try:
            if key is None:
                engine = DurableEngine(folder) if durable else Engine(folder)
            else:
                engine = DurableKeyedEngine(folder, key) if durable else KeyedEngine(folder, key)
        except BaseException:
            folder.close()
            raise
        use = cls._all[folder.key] = cls(engine)
        return use

    def _checked(self, authkey: Optional[bytes], keyed: bool = False) -> Use:
        """This, for somebody who has that authkey; see ``match`` and ``meet``."""
        key = self.engine.key
        if keyed and authkey is None:
            authkey = key.authkey if key else b""
        match(self.engine.folder.path, key.proof if key else b"", authkey)
        return self


class Engine(Finishing):
    """What one process does in one queue folder."""

    all: ClassVar[weakref.WeakSet[Engine]] = weakref.WeakSet()
    """Those of this process: of a queue whose handles are gone one may still wait, and another be found."""

    _references: ClassVar[tuple[weakref.ref[Engine], ...]] = ()
    """To those, quick to walk."""

    # -- making, leaving

    def __init__(self, folder: Folder) -> None:
        waiting.barrier_works()  # imports ctypes, 3 ms: here, not in a signal handler, nor in every child
        super().__init__(folder)
        self.all.add(self)
        Engine._references = tuple(map(weakref.ref, alive(Engine.all)))
        _at_exit.arm()

    def close(self) -> None:
        """Publish what is held back, leave the queue, and delete its folder if nobody else uses it."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
            self._stop_flusher()
            try:
                if not self._stale:
                    self._begin()
                    self._publish()
                    self._leave()
            finally:
                self._close_files()
                if self._stale:
                    self.folder.after_fork()
                self.folder.close()
        if self.folder.anonymous:
            reclaim(self.folder.path)

    def retire(self) -> None:
        """The program ends: leave, as ``close`` does, but let threads that still run put and get."""
        with self._lock:
            if self.closed:
                return
            if not self._stale:
                self._begin()
                self._publish()
                self._leave()
                self._act_ends()
            if self.folder.anonymous:
                self.folder.let_go()

    def __del__(self) -> None:
        try:
            try:
                self.close()
            finally:
                self.report_loss()
        except Exception:  # in these words: names of modules may be gone by then
            pass

    def report_loss(self) -> None:
        """Say so if records could not be published before the end: the disk was full."""
        if self.records and not self._stale:
            print(f"tqshim: no space for {len(self.records)} items put into {self.folder.path}", file=sys.stderr)
            self.records.clear()

    def _leave(self) -> None:
        self._end_lease()
        for slot, number in ((self._consumer, self._consumer_number), (self._producer, self._producer_number)):
            if slot is not None:
                self.cells.clear(slot)
                # Unlocked first: a process that is stopped here must not keep the slot's next member waiting.
                self.folder.unlock_slot(slot)
                self._append(events.leave(slot, number))
        self._consumer = self._producer = None
        if self.ledger.returned:
            self._announce()
        if self._file is not None:
            self.folder.seal_batch(self._file)
            self._drop_file()
        self.ledger.trim()
        self._reclaim()

    def arrived(self, key: str) -> None:
        """A pickled handle has been unpickled here: its marker is not needed any more."""
        with self._lock:
            self._begin()
            self.folder.unmark(key)
            self._act_ends()

    def hold(self, found: list[Hold], block: bool, timeout: Optional[float]) -> None:
        """Append to ``found`` the oldest item; nothing: the queue was empty all the time."""
        before = []
        for reference in Engine._references:
            engine = reference()
            if engine is not None and (records := engine.records[:]):
                before.append((records[0], len(records)))
        looked[0] += 1  # What the block puts first is published in its put: most put no more.
        super().hold(found, block, timeout)
        if found:
            found[0].before = before

    def let_go(self, hold: Hold, got: bool) -> None:
        """The block has ended.  What this process has put, into whatever queue, is published before its item counts as
        got: killed in between, the results of a block would be lost, and its item would not come back."""
        if got and hold.generation == self.generation:
            try:
                for reference in Engine._references:
                    engine = reference()
                    if engine is None or not engine.records:
                        continue
                    # What stands as it did before the block is none of its puts, and maybe of a frame below a signal
                    # handler's, whose lock must not be waited for.
                    now = engine.records[:]
                    if not now or any(now[0] is first and len(now) == count for first, count in hold.before):
                        continue
                    if engine is self:
                        self.flush()
                    else:
                        engine.await_flush()
            except BaseException:  # no space for it: the work is not done
                super().let_go(hold, False)
                raise
        super().let_go(hold, got)

    def set_batch_size(self, size: Optional[int]) -> None:
        """How many records a burst collects: the newest handle's, or the usual number."""
        self.batch_size = tuning.BLOCK_RECORDS if size is None else size

    # -- being sure

    def _recover(self) -> None:
        """An act was interrupted, or this process was forked: ask the journal how things stand."""
        if self._stale:
            self._after_fork()
            return
        if self._joining is not None and self._joining not in (self._consumer, self._producer):
            self.folder.unlock_slot(self._joining)  # a member that nobody is: it will be buried
        self._joining = None
        self._settle()
        state = self._state
        if isinstance(state, Handed):
            self._ended[state.number] = True
            self._state = state[0], state[1]
        former, parts = self._lease, self._lease_parts
        ledger = Ledger.load(self.journal.snapshot())
        self._start(ledger)
        if self._consumer is not None:
            self._pos = replay(self.journal, ledger, self._consumer, self._claim_from)
        last = max(self._state[0], self._lease_at - 1)
        mine = [(item, block) for _, item, block in ledger.yours if item > last]
        ledger.yours = []
        self._sync()
        ledger = self.ledger
        lease = ledger.lease
        ours = lease is not None and self._consumer is not None and lease.member == self._consumer_number
        if not ours:
            number, base = ledger.kept.get(former.slot, (0, 0)) if former is not None else (0, 0)
            if former is not None and number == former.number:
                self._lose(base)
                mine = [
                    (item, block)
                    for block in parts
                    for item in range(max(block.first, former.first, last + 1), min(block.end, base))
                ] + mine
        # Before our lease is touched: if this is interrupted, the next try must find the same.
        self._recover_items(mine)
        if lease is not None and ours:
            self._hold_lease(lease, max(lease.first, last + 1))
        else:
            self._forget_lease()
        if self._consumer is not None:
            self._words[self._position_cell] = 0
        self._close_burst()
        self._granted = self._used = 0
        if self._producer is not None:
            file, end = ledger.files.get(self._producer, (None, 0))
            if self._publishing is not None and self._file is not None and file == self._file:
                first, count, offset = self._publishing
                if self._begins_with(first) and (end > offset or self._giant_published(ledger)):
                    self._drop_published(count)
            if self._file is not None:
                self.folder.seal_batch(self._file)
            self._drop_file()
        self._publishing = None
        if self.ledger.held:
            self._settle_holds()
        self._ended.clear()
        self._act_ends()

    def _recover_items(self, mine: list[tuple[int, Block]]) -> None:
        """Items that were taken, but not delivered, come into the hand."""
        if not mine:
            return
        hand = self._state[1]
        found: list[Taken] = []
        damage = self._damage
        for item, block in mine:
            try:
                if block != self._block:
                    self._read_block(block)
            except CorruptBatchError as error:  # and nothing else: a signal handler may raise anything
                damage = error
                continue
            ends, index = self._ends, item - block.first
            found.append(self._body[ends[index - 1] if index else 0 : ends[index]])
        self._state = mine[-1][0], (*hand, *found)
        self._damage = damage

    def _giant_published(self, ledger: Ledger) -> bool:
        return any(not block.units and block.file == self._file for block in ledger.blocks if isinstance(block, Block))

    # -- looking

    def qsize(self) -> int:
        """Items that could be got now."""
        if self._stands_above_itself():
            return self._known_size()
        with self._lock:
            self._begin()
            size = self._size()
            self._act_ends()
        return size

    def _known_size(self) -> int:
        """How many there were at the last look, without the lock."""
        return max(0, self._count_waiting()) + len(self._state[1]) + len(self.records)

    def _size(self) -> int:
        self._publish_if_possible()
        self._sync()
        return self._count_waiting() + len(self._state[1])

    def empty(self) -> bool:
        """Nothing could be got now."""
        if self._stands_above_itself():
            return not self._known_size()
        with self._lock:
            self._begin()
            size = self._size()
            if not size:
                looked[0] += 1
            self._act_ends()
        return not size

    def full(self) -> bool:
        """Nothing could be put now."""
        if not self.maxsize:
            return False
        if self._stands_above_itself():
            return self.ledger.used >= self.maxsize
        with self._lock:
            self._begin()
            self._publish_if_possible()
            self._sync()
            full = self.ledger.used >= self.maxsize
            if full and self._make_room():
                full = self.ledger.used >= self.maxsize
            self._act_ends()
        return full

    def stats(self) -> Stats:
        """The figures of this moment: a look like ``qsize``, a step for each waiting block, a listing of the folder."""
        if self._stands_above_itself():
            return self._stats(self._known_size())
        with self._lock:
            self._begin()
            items = self._size()
            self._map_all_cells()
            found = self._stats(items)
            self._act_ends()
        return found

    def _stats(self, items: int) -> Stats:
        from .figures import Stats  # here: dataclasses are dear to import

        ledger = self.ledger
        held = len(ledger.held)
        return Stats(
            put=ledger.tail,
            got=ledger.tail - items - held,
            redelivered=ledger.redelivered,
            corrupt=self.folder.count_corrupt(),
            items=items,
            held=held,
            returned=len(ledger.returned),
            unfinished=ledger.unfinished,
            bytes=events.UNIT * ledger.units_from(self._delivered()),
            maxsize=ledger.maxsize,
            consumers=ledger.consumers,
            producers=len(ledger.members) - ledger.consumers,
            waiting_consumers=len(self.cells.sleepers(waiting.SLEEPS)),
            waiting_producers=len(self.cells.sleepers(waiting.AWAITS_PLACE)),
        )

    def _available(self, kind: int) -> int:
        if kind == waiting.SLEEPS:
            size = self._size()
            over = not size and self.ledger.shut and self._late_until() is None
            return sys.maxsize if over else size
        self._publish_if_possible()
        self._sync()
        if self.ledger.shut:
            return sys.maxsize
        if self.ledger.used >= self.maxsize:
            self._make_room()
        return self.maxsize - self.ledger.used

    def _ready(self, kind: int, places: int) -> bool:
        ledger = self.ledger
        if kind == waiting.SLEEPS:
            if self._count_waiting() or self._state[1]:
                return True
            return ledger.shut != OPEN_FOR_ALL and self._late_until() is None
        if kind == waiting.AWAITS_DONE:
            return not ledger.unfinished or ledger.completions >= places
        return ledger.used + places <= self.maxsize or ledger.shut != OPEN_FOR_ALL


class DurableEngine(Durability, Engine):
    """What one process does in the folder of a durable queue."""


class KeyedEngine(Authentication, Engine):
    """What one process does in the folder of a queue with a key."""


class DurableKeyedEngine(Authentication, DurableEngine):
    """What one process does in the folder of a durable queue with a key."""


def _end_all_bursts() -> None:
    Core.exiting = True
    for engine in alive(Engine.all):
        with contextlib.suppress(OSError):
            engine.end_bursts()


def _end_all_flushers() -> None:
    """Before the interpreter ends.  A thread that is still there then is stopped wherever it wants to go on: for good
    with the locks that it holds, and before 3.10.8 the main thread may wait for it for ever (CPython's gh-96387)."""
    _end_all_bursts()
    until = monotonic() + tuning.FLUSH_PATIENCE
    while Flusher.running_here and monotonic() < until:
        time.sleep(tuning.FLUSH_LOOK)


def _leave_all() -> None:
    for engine in alive(Engine.all):
        with contextlib.suppress(OSError):
            engine.retire()
        engine.report_loss()


def _before_fork() -> None:
    for engine in alive(Engine.all):
        with contextlib.suppress(OSError):
            engine.before_fork()


def _after_fork_in_child() -> None:
    Core.exiting = False
    Use.lock = locks.RLock()
    Flusher.running_here = weakref.WeakSet()
    forked()
    for engine in alive(Engine.all):
        engine.forked()
    # For children of a bare os.fork; those of multiprocessing clear the registry after this, and enter again.
    _at_exit.enter_again()


_at_exit = AtExit(_end_all_bursts, _leave_all, lambda: bool(Engine.all))
atexit.register(_end_all_flushers)
forks.register(_before_fork, _after_fork_in_child)
