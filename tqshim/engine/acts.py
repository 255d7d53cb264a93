"""Acts: one at a time, each begun in a state that is known.

Lives here: the lock; what an interrupted act leaves; the engine for code that has interrupted one; forks, leaving,
handles that travel.  Not here: what an act does (the parts), waiting (``waits``, ``gets``, ``puts``).

Invariant: the lock is held over every act, ``unsure`` is set while one is under way.  An exception in between (Ctrl-C,
a signal handler, a full disk) leaves it set, and the next act begins by asking the journal what has happened.  A signal
handler or destructor that has interrupted an act of its own thread, and uses the same queue, gets an engine of its
own for that, which works as another process would.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from multiprocessing import context, reduction

from tqshim.engine.hand import Hand
from tqshim.engine.leasing import NO_STEPS
from tqshim.engine.log import NO_LOG
from tqshim.engine.parts import Parts, load
from tqshim.engine.replica import Replica
from tqshim.protocol.ledger import Ledger
from tqshim.protocol.records import OPEN_FOR_ALL
from tqshim.runtime import locks
from tqshim.storage.files import a_full_disk_is_no_matter
from tqshim.storage.folder import LogFolder
from tqshim.storage.places import leave
from tqshim.sync.cells import SLEEPS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Final, Optional, TypeVar

    from tqshim.engine.keys import Key

    _T = TypeVar("_T")
    _A = TypeVar("_A", bound="Acts")

__all__ = ["FORKED", "Acts"]

FORKED: Final = (OSError, ValueError, LookupError)
"""What a frame may raise in the child once a fork, in a signal handler, has copied it: its files are shut, and its
ledger is another's."""


class Acts:
    """The acts of one process in one queue folder."""

    all: ClassVar[weakref.WeakSet[Acts]] = weakref.WeakSet()
    """All engines of this process.  One queue may have two: a thread may still wait in one whose handles are gone, and
    new handles find another."""

    def __init__(self, folder: LogFolder, key: Optional[Key] = None) -> None:
        self.folder = folder
        self.key = key
        """The queue's key, if it has one."""
        self.generation = 0
        """How many forks lie between this process and the one that has made this engine."""
        self.closed = False
        self.over = False
        """A get has found the queue shut down, and empty for good."""
        self.lock: Any = locks.RLock()
        self.unsure = self.stale = False
        self._known: Optional[Ledger] = None
        self._batch_size: Optional[int] = None
        self.beside: Any = None
        """The engine for handlers that have interrupted this one."""
        self._spawning: tuple[Optional[weakref.ref[Any]], Any] = (None, None)
        replica = Replica(folder)
        load(replica)
        self.parts = self._made(replica)
        self.maxsize = self.parts.replica.ledger.maxsize
        self.all.add(self)

    def _made(self, replica: Replica) -> Parts:
        parts = Parts(self.folder, replica, self.key, self.lock)
        if self._batch_size is not None:
            parts.producer.batch_size = self._batch_size
        return parts

    def act(self, do: Callable[..., _T], *arguments: Any) -> _T:
        """Do something with the lock held, in a state that is known.

        ``do`` looks up ``parts`` itself: in a forked child the parts are made anew first."""
        with self.lock:
            try:
                if self.unsure or self.stale:  # 3.9 may fork in the middle of ``self.unsure = self.stale``.
                    self._recover()
                self.unsure = True
                self.parts.leasing.settle()
                if self.beside is not None:
                    self._take_over()
                found = do(*arguments)
                self.unsure = self.stale  # a handler may have forked just now
                return found
            except OSError as error:
                self.folder.explain(error)
                raise

    def surely(self, do: Callable[..., _T], *arguments: Any) -> _T:
        """Do an act; in a durable queue its effect survives a power cut."""
        return self.act(lambda: self._then_hardened(do, *arguments))

    def _then_hardened(self, do: Callable[..., _T], *arguments: Any) -> _T:
        found = do(*arguments)
        if self.parts.disk is not None:
            self.parts.disk.harden_journal()
        return found

    def unless_forked(self, default: _T, act: Callable[..., _T], *arguments: Any) -> _T:
        """Do an act, and return what it returns, or else ``default``.

        ``default`` is returned in a process that was forked in the middle of the act, for then the act is the parent's,
        and where the queue was left in the middle of the act, for then it is nobody's."""
        generation = self.generation
        try:
            return act(*arguments)
        except FORKED:
            if generation == self.generation and not self.is_left:
                raise
            return default

    @property
    def is_left(self) -> bool:
        """The program ends, and the folder is gone, for nobody else uses the queue: what is still put goes nowhere."""
        return self.folder.fd < 0 and not (self.closed or self.stale)

    def look(self, do: Callable[[], _T]) -> _T:
        """Do an act that changes nothing; a process that was forked in the middle of it does it again."""
        generation = self.generation
        try:
            return self.act(do)
        except FORKED:
            if generation == self.generation:
                raise
            return self.act(do)

    def _recover(self) -> None:
        """An act was interrupted, or this process was forked: ask the journal how things stand."""
        if self.stale:
            self._begin_anew()
            return
        parts = self.parts
        parts.consumer.recover()
        parts.members.recover((parts.consumer.slot, parts.producer.slot))
        parts.producer.recover()
        parts.acknowledging.recover()
        parts.waiter.ring_again()
        self.unsure = self.stale

    @property
    def is_interrupted(self) -> bool:
        """The caller runs in a signal handler, or a destructor, that has interrupted an act of this very engine."""
        crowd = self.parts.crowd
        return bool(self.lock._is_owned()) or (crowd is not None and crowd.is_led_here)

    def above(self: _A) -> _A:
        """Return an engine for code that has interrupted this one: another member of the queue, as another process
        would be.  That engine may be interrupted itself, by another handler.

        What the interrupted act has put by now comes first."""
        above: Optional[_A] = self.beside
        if above is None or above.closed:
            folder = LogFolder.meet(self.folder.path)
            try:
                made = type(self)(folder, self.key)
            except BaseException:
                folder.close()
                raise
            made.generation = self.generation
            made.set_batch_size(self._batch_size)
            above = self.beside
            if above is None or above.closed:
                above = self.beside = made
            else:  # Another handler has made it just now, and may have been interrupted in it.
                made.close()
        above.top().cut(self)
        return above

    def follow(self, path: str) -> None:
        """Note that the queue is found at that path, here and for handlers; see ``Home.follow``."""
        self.folder.follow(path)
        if self.beside is not None:
            self.beside.follow(path)

    def _take_over(self) -> None:
        """Take over what gets and puts of signal handlers have left that were interrupted themselves.

        The next get delivers what such gets had taken; what such puts had put comes before what is put from here on."""
        above = self.beside
        if above is not None and above.owes:
            with a_full_disk_is_no_matter():
                above.act(above._pass_down, self.parts.hand)

    @property
    def owes(self) -> bool:
        """Something may have been taken here, or in an engine above, that the next get of the engine below delivers."""
        hand, acknowledging, above = self.parts.hand, self.parts.acknowledging, self.beside
        taken = self.unsure or acknowledging.out or acknowledging.blocks or hand.state[1] or hand.damage
        return not self.closed and bool(taken or (above is not None and above.owes))

    def _pass_down(self, below: Hand) -> None:
        self.parts.acknowledging.take_back()
        self.parts.hand.pass_down(below)
        self._cut()

    def cut(self, below: Optional[Acts] = None) -> None:
        """Cut all that was put; first of all what the interrupted engine ``below`` has put."""
        with a_full_disk_is_no_matter():
            self.unless_forked(None, self.act, self._cut, below)

    def cut_for_below(self) -> None:
        """Cut, so that what was put here comes before what the engine below puts from here on."""
        if not self.is_interrupted:  # else the engine above this one has done so
            self.cut()

    def _cut(self, below: Optional[Acts] = None) -> None:
        # Else what an interrupted put has left undecided, too, would come behind what is put from here on.
        for engine in (self, below):
            if engine is not None:
                self.parts.producer.settle_all(engine.parts.producer)
        self.parts.members.cut()

    def top(self: _A) -> _A:
        """The engine in which the caller can act: this one, if it is not interrupted."""
        top = self
        while top.is_interrupted:
            top = top.above()
        return top

    @property
    def shut(self) -> bool:
        """The queue was shut down, as far as this process knows."""
        above = self.beside
        return self.parts.replica.ledger.ending.shut != OPEN_FOR_ALL or (above is not None and above.shut)

    @property
    def durable(self) -> bool:
        """What a put has put survives a power cut."""
        return self.parts.replica.ledger.settings.durable

    def set_batch_size(self, size: Optional[int]) -> None:
        """Set how many records a batch file has at most: as many as the newest handle says, or else as many as fit."""
        if size is not None:
            self._batch_size = self.parts.producer.batch_size = size

    def hold_for_child(self) -> Any:
        """Return an object through which the child being spawned receives our hold on the folder; one a child."""
        if self.is_interrupted:
            return self.above().hold_for_child()
        return self.act(self._hold_for_child)

    def _hold_for_child(self) -> Any:
        child = context.get_spawning_popen()
        reference, hold = self._spawning
        if reference is None or reference() is not child:
            hold = reduction.DupFd(self.folder.fd)
            self._spawning = weakref.ref(child), hold
        return hold

    def mark(self) -> str:
        """Keep the folder alive for a pickled handle that is on its way; returns the marker's key."""
        if self.is_interrupted:
            return self.above().mark()
        return self.act(self.folder.mark)

    def arrived(self, key: str) -> None:
        """A pickled handle has been unpickled here: its marker is not needed any more."""
        if self.is_interrupted:
            self.above().arrived(key)
            return
        self.act(self.folder.unmark, key)

    def close(self) -> None:
        """Leave the queue, and delete its folder if nobody else uses it."""
        with self.lock:
            if self.closed:
                return
            self.closed, deleted = True, False
            try:
                if not self.stale:
                    deleted = self.folder.delete_unless_used()
                    if not deleted:
                        self.act(self._leave)
            finally:
                self._let_all_go(deleted)

    def _let_all_go(self, deleted: bool) -> None:
        try:
            if self.beside is not None:
                self.beside.close()
        finally:
            try:
                self.parts.close()
            except BaseException:  # interrupted: what is closed is forgotten
                self.parts.close()
                raise
            finally:
                try:
                    if self.stale:
                        self.folder.after_fork()
                finally:
                    try:
                        self.folder.close()
                    finally:
                        if self.folder.anonymous and not deleted:
                            leave(self.folder.path)

    def retire(self, deletes: bool = True) -> None:
        """The process ends: leave, as ``close`` does, but let threads that still run put and get.

        ``deletes``: nobody of this process needs an anonymous folder any more."""
        with self.lock:
            if self.closed:
                return
            if not self.stale:
                self.act(self._leave)
            if self.beside is not None:
                self.beside.close()
            if deletes and self.folder.delete_unless_used(hold=False):
                self.folder.close()

    def _leave(self) -> None:
        parts = self.parts
        with a_full_disk_is_no_matter():
            self._put_again()
        parts.consumer.leave()
        parts.producer.leave()
        if parts.replica.ledger.holds.returned:
            parts.acknowledging.announce()
        parts.reclaimer.reclaim_done()
        if parts.disk is not None:
            parts.disk.harden_journal()

    def _put_again(self) -> None:
        """Put again what gets have taken and not delivered, be there places or not: nobody else can take it.

        The items that were taken count as finished with."""
        parts = self.parts
        parts.acknowledging.take_all_back()
        while parts.hand.state[1]:
            record = bytes(parts.hand.pop())
            if not parts.put_back(record):
                return
            parts.ending.task_done()
            parts.waiter.ring(SLEEPS)

    def __del__(self) -> None:
        try:
            self.close()
        except Exception:  # in these words: names of modules may be gone by then
            pass

    def forked(self) -> None:
        """Begin as a forked child, before anything else.

        What was under way in the parent must not go on here, not even in a frame of this very thread (a fork in a
        signal handler): the descriptors of such a frame are of no use from now on, and nobody may write to its log."""
        parts = self.parts
        in_act = self.unsure
        self._known = parts.replica.ledger if not in_act else None
        self.stale = self.unsure = True
        self.generation += 1
        former, self.lock = self.lock, locks.RLock()
        locks.forked(former)
        self.beside = None
        if self.closed:
            return
        parts.replica.stale = True
        parts.leasing.steps = NO_STEPS
        log = parts.producer.log
        if log.batch is not None:
            log.batch.release()
        if self.folder.fd >= 0:
            # A folder's descriptor: reads and writes through it fail.
            for fd in (parts.replica.journal.fd, -1 if log.batch is None else log.batch.fd):
                if fd >= 0:
                    os.dup2(self.folder.fd, fd, inheritable=False)
        parts.producer.log = NO_LOG  # Now: if a signal handler raises before, all of this is done once more.
        self.folder.suspend()
        parts.replica.journal.unmap()
        parts.members.cells.detach(in_act)

    def _begin_anew(self) -> None:
        """This process is a forked child: be a member of its own."""
        generation = self.generation
        former, known = self.parts, self._known
        self._known = None  # What follows changes ``known``: if that is interrupted, it is of no use any more.
        former.close()
        self.folder.after_fork()
        replica = Replica(self.folder)
        try:
            if known is None:
                raise FileNotFoundError
            # The parent was in the middle of nothing: go on from what it knew.
            replica.follow(former.replica.journal.number, known, former.replica.pos)
        except FileNotFoundError:  # rolled in the meantime
            load(replica)
        self.parts = self._made(replica)
        if generation == self.generation:
            self.stale = False
        self.unsure = self.stale
