"""The engine: one a process and folder, shared by all its handles and threads.

Lives here: the lock, acts and what an interrupted one leaves, waiting for items and places, what a handle asks.  Not
here: what an act does (``producer``, ``consumer``, ``acknowledge``, ``shutdown``), how a process finds it
(``registry``), pickling (``queues``).

Invariant: the lock is held over every act, ``_unsure`` is set while one is under way.  An exception in between (Ctrl-C,
a signal handler, a full disk) leaves it set, and the next act begins by asking the journal what has happened.  Who uses
the queue in a signal handler or destructor that has interrupted an act of the same thread gets an engine of its own for
it, which works as another process would.
"""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from collections.abc import Callable, Iterator
from multiprocessing import context, reduction
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, ClassVar, Optional, TypeVar

from tqshim import locks, tuning, waiting
from tqshim.blocks import NewRecord
from tqshim.clock import monotonic
from tqshim.folder import NO_SPACE, reclaim
from tqshim.keys import Key
from tqshim.logs.acknowledge import Acknowledging, Hold
from tqshim.logs.consumer import Consumer, Taken
from tqshim.logs.membership import Membership
from tqshim.logs.producer import NO_LOG, Producer
from tqshim.logs.reader import Reader
from tqshim.logs.reclaim import Reclaimer
from tqshim.logs.replica import Replica
from tqshim.logs.shutdown import Ending
from tqshim.logs.wait_policy import Waiter
from tqshim.protocol.ledger import OPEN_FOR_ALL, SHUT, Ledger
from tqshim.storage.folder import LogFolder
from tqshim.sync.cells import ASLEEP, AWAITS_DONE, AWAITS_PLACE, LAST_CUT, SLEEPS
from tqshim.waiting import Bell

if TYPE_CHECKING:
    from tqshim.figures import Stats

__all__ = ["Engine", "Parts"]

_T = TypeVar("_T")
_ASLEEP: int = ASLEEP[SLEEPS]


class Parts:
    """What an engine is made of: all that a forked child makes anew."""

    __slots__ = (
        "acknowledging",
        "consumer",
        "ending",
        "members",
        "producer",
        "reader",
        "reclaimer",
        "replica",
        "waiter",
    )

    def __init__(self, folder: LogFolder, replica: Replica, fence: Any) -> None:
        self.replica = replica
        self.members = Membership(folder, replica, waiting.barrier_works() and not replica.ledger.durable)
        self.reclaimer = Reclaimer(folder, replica, self.members, fence)
        self.reader = Reader(folder)
        self.waiter = Waiter(folder, replica, self.members, fence)
        self.producer = Producer(folder, replica, self.members, self.reclaimer)
        self.consumer = Consumer(replica, self.members, self.reader, self.reclaimer)
        self.acknowledging = Acknowledging(
            replica, self.members, self.reader, self.reclaimer, self.consumer, self.waiter
        )
        self.ending = Ending(replica, self.members, self.consumer, self.waiter.ring_all)
        self.producer.help_to_shut = self.ending.help

    def close(self) -> None:
        self.replica.close()
        self.waiter.close()
        self.reader.files.clear()
        self.producer.log = NO_LOG
        self.consumer.take_returned = _nothing  # which would keep all of this
        self.members.cells.close()


class Engine:
    """What one process does in one queue folder."""

    all: ClassVar[weakref.WeakSet[Engine]] = weakref.WeakSet()
    """Those of this process: of a queue whose handles are gone one may still wait, and another be found."""

    def __init__(self, folder: LogFolder, key: Optional[Key] = None) -> None:
        self.folder = folder
        self.key = key
        """Of a queue that has one."""
        self.generation = 0
        """How many forks lie between this and the process that has made it."""
        self.closed = False
        self.over = False
        """A get has found it shut down, and empty for good."""
        self._lock: Any = locks.RLock()
        self._fence: Any = locks.Lock()
        self._unsure = self._stale = False
        self._known: Optional[Ledger] = None
        self._batch_size: Optional[int] = None
        self._above: Optional[Engine] = None
        """That of those who have interrupted this one."""
        self._spawning: tuple[Optional[weakref.ref[Any]], Any] = (None, None)
        replica = Replica(folder)
        replica.load()
        self.parts = self._made(replica)
        self.maxsize = self.parts.replica.ledger.maxsize
        self.all.add(self)

    def _made(self, replica: Replica) -> Parts:
        parts = Parts(self.folder, replica, self._fence)
        if self._batch_size is not None:
            parts.producer.batch_size = self._batch_size
        return parts

    # -- acts

    def act(self, do: Callable[..., _T], *arguments: Any) -> _T:
        """Do something with the lock held, in a state that is known."""
        with self._lock:
            if self._unsure:
                self._recover()
            self._unsure = True
            found = do(*arguments)
            self._unsure = self._stale  # a handler may have forked just now
            return found

    def _unless_forked(self, default: _T, act: Callable[..., _T], *arguments: Any) -> _T:
        """An act; in a process that was forked in the middle of it it is the parent's."""
        generation = self.generation
        try:
            return act(*arguments)
        except (OSError, ValueError):
            if generation == self.generation:
                raise
            return default

    def _recover(self) -> None:
        """An act was interrupted, or this process was forked: ask the journal how things stand."""
        if self._stale:
            self._begin_anew()
            return
        parts = self.parts
        parts.members.forget_joining()
        parts.consumer.recover()
        parts.producer.recover()
        parts.acknowledging.recover()
        self._unsure = self._stale

    @property
    def _interrupted(self) -> bool:
        """This runs in a signal handler, or a destructor, that has interrupted an act of this very engine."""
        return bool(self._lock._is_owned())

    def above(self) -> Engine:
        """An engine for who has interrupted this one: another member of the queue, as another process would be.

        What the interrupted act has put by now comes first."""
        above = self._above
        if above is None or above.closed:
            above = self._above = type(self)(LogFolder.meet(self.folder.path), self.key)
            above.set_batch_size(self._batch_size)
        above.act(above.parts.producer.cut)
        return above

    # -- putting

    def put(self, record: NewRecord, block: bool, timeout: Optional[float]) -> bool:
        """Put one record.  ``False``: the queue was full all the time, or was shut down."""
        lock = self._lock
        if lock._is_owned():
            return self.above().put(record, block, timeout)
        if type(record) is bytes:
            parts = self.parts
            try:
                with lock:
                    log = parts.producer.log
                    counts = log.counts
                    total = counts[log.cell]
                    if total < log.stop and not self._unsure:
                        number = total - log.first
                        ends = log.ends
                        begin = ends[number]
                        end = begin + len(record)
                        if end <= log.size:
                            log.memory[begin:end] = record
                            ends[number + 1] = end
                            # Commit point: from here on the item is in the queue.
                            counts[log.cell] = total + 1
                            if not counts[log.flag] or self.act(parts.producer.settle, total + 1) > total:
                                total = -1
                # The lock was given back, which is a barrier: who fell asleep before the store is seen.
                if total < 0:
                    if counts[_ASLEEP]:
                        self._ring()
                    if monotonic_ns() - counts[LAST_CUT] > tuning.CUT_EVERY:
                        self._cut()
                    return True
            except (ValueError, IndexError):
                if not self._stale:
                    raise
                if total < 0:
                    return True  # forked in the middle: the parent puts it
        return self.put_many([record], block, timeout) == 1

    def _ring(self) -> None:
        """Items are there: wake who sleeps."""
        self._unless_forked(None, self.act, self.parts.waiter.ring, SLEEPS)

    def _cut(self) -> None:
        """It is time for a cut."""
        with _a_full_disk_is_no_matter():
            self._unless_forked(None, self.act, self.parts.producer.cut)

    def put_many(self, records: list[NewRecord], block: bool, timeout: Optional[float]) -> int:
        """Put records, all or none where they fit into the queue at all; returns how many were put."""
        if self._interrupted:
            return self.above().put_many(records, block, timeout)
        deadline = None if timeout is None else monotonic() + timeout
        size = len(records)
        if self.maxsize and size > self.maxsize:
            if not block:
                return 0
            size = max(1, self.maxsize // 4)
        put = 0
        while put < len(records):
            piece = records[put : put + size] if size < len(records) else records
            count = self._unless_forked(len(piece), self._put_waiting, piece, block, deadline)
            put += count
            if count < len(piece):
                break
        return put

    def _put_waiting(self, records: list[NewRecord], block: bool, deadline: Optional[float]) -> int:
        put = 0
        while True:
            put += self.act(self._put_once, records[put:] if put else records, not put)
            if put == len(records) or self.parts.replica.ledger.shut:
                return put
            if not self.maxsize:
                continue
            if not block or (deadline is not None and monotonic() >= deadline):
                if self.act(self._make_room):
                    continue
                return put
            self._wait(AWAITS_PLACE, deadline, len(records) - put)

    def _put_once(self, records: list[NewRecord], again: bool) -> int:
        parts = self.parts
        put = parts.producer.put(records)
        if not put and again and self.maxsize and self._make_room():
            put = parts.producer.put(records)
        if put:
            words = parts.members.cells.words
            with self._fence:  # as above
                pass
            if words[_ASLEEP]:
                parts.waiter.ring(SLEEPS)
            if parts.members.counting and monotonic_ns() - words[LAST_CUT] > tuning.CUT_EVERY:
                with _a_full_disk_is_no_matter():
                    parts.producer.cut()
            if parts.replica.wants_space_aside:
                parts.replica.set_space_aside()
        return put

    def _make_room(self) -> bool:
        """The queue looks full: end the grants that may hide a place.  ``True``: look again."""
        parts = self.parts
        changed = parts.consumer.end_any_lease()
        for slot in list(parts.replica.ledger.res):
            changed |= parts.producer.trim(slot)
        return changed

    # -- getting

    def get(self, got: list[Taken], most: int, block: bool, timeout: Optional[float]) -> int:
        """Append to ``got`` what is there, ``most`` records or fewer; nothing: the queue was empty all the time.
        Returns the generation whose they are: a later one, of a forked child, does not own them.

        If this raises, what ``got`` holds has been taken, and what it does not hold has not."""
        if self._interrupted:
            above = self.above()
            above.get(got, most, block, timeout)
            self.over = above.over
            return self.generation
        return self._get(lambda: self._take(got, most), got, block, timeout)

    def _take(self, got: list[Taken], most: int) -> None:
        parts = self.parts
        parts.consumer.take(got, most)
        if got and self.maxsize:
            parts.waiter.ring(AWAITS_PLACE)

    def _get(self, take: Callable[[], None], got: list[Any], block: bool, timeout: Optional[float]) -> int:
        """Take, or wait, until there is something."""
        deadline: Optional[float] = None
        while True:
            generation = self.generation
            state = self.parts.consumer.state
            try:
                with self._lock:
                    if self._unsure:
                        self._recover()
                        generation = self.generation
                    self._unsure = True
                    state = self.parts.consumer.state
                    take()
                    self._unsure = self._stale
            except BaseException as error:
                if self.parts.consumer.state is state and not any(isinstance(one, Hold) and one.number for one in got):
                    got.clear()  # The journal knows whose they are, and the next act asks it.
                if generation == self.generation or not isinstance(error, (OSError, ValueError)):
                    raise
            if generation != self.generation:  # forked in the middle: what was got is the parent's
                got.clear()
                continue
            if got:
                return generation
            until = None
            if self.parts.replica.ledger.shut and self._unless_forked(False, self.act, self._is_over):
                self.over = True
                return generation
            if not block:
                return generation
            if timeout is not None:
                if deadline is None:
                    deadline = monotonic() + timeout
                if monotonic() >= deadline:
                    return generation
            if self.parts.replica.ledger.shut:  # others hold what may come back
                until = monotonic() + tuning.NAP_LAST
            self._unless_forked(None, self._wait, SLEEPS, min(filter(None, (until, deadline)), default=None))

    def _is_over(self) -> bool:
        """The queue was shut down, and nothing can be got any more."""
        parts = self.parts
        if parts.consumer.count():
            return False
        ledger = parts.replica.ledger
        return ledger.shut != SHUT or not (ledger.held and parts.acknowledging.held_by_others())

    def give_back(self, records: list[Taken]) -> None:
        """Records that were got but not delivered: the next get delivers them first."""
        if self._interrupted:
            self.above().give_back(records)
            return
        with self._lock:
            self.parts.consumer.put_back(records)

    @property
    def shut(self) -> bool:
        """The queue was shut down, as far as this process knows."""
        above = self._above
        return self.parts.replica.ledger.shut != OPEN_FOR_ALL or (above is not None and above.shut)

    @property
    def cut_short(self) -> bool:
        """The last take ended where a lease does, and there may be more."""
        return self.parts.consumer.cut_short

    # -- items that may come back

    def hold(self, found: list[Hold], block: bool, timeout: Optional[float]) -> None:
        """Append to ``found`` the oldest item; nothing: the queue was empty all the time.

        If this raises, what ``found`` holds is held, and is to be let go."""
        if self._interrupted:
            above = self.above()
            above.hold(found, block, timeout)
            self.over = above.over
            return
        self._get(lambda: self.parts.acknowledging.hold(found, self.generation), found, block, timeout)

    def let_go(self, hold: Hold, got: bool) -> None:
        """The block has ended: its item counts as got, or it comes back.  In a forked child: it is the parent's."""
        if self._interrupted:
            self._let_go_above(hold, got)
        elif not self.closed and hold.generation == self.generation:
            self.parts.acknowledging.is_to_end(hold, got)
            self._unless_forked(None, self.act, self.parts.acknowledging.let_go, hold, got)

    def _let_go_above(self, hold: Hold, got: bool) -> None:
        if self._above is not None and hold.number in self._above.parts.replica.ledger.held:
            self._above.let_go(hold, got)
        else:
            self.parts.acknowledging.is_to_end(hold, got)

    # -- waiting

    def _wait(self, kind: int, deadline: Optional[float], places: int = 1) -> None:
        """Wait until there is something to get, or a place to put to, or all is finished with; returns at the deadline
        too."""
        parts = self.parts
        if kind == SLEEPS and parts.waiter.spin(deadline, parts.replica.ledger.totals.tobytes()):
            return
        started = monotonic()
        me = object()
        try:
            self._nap(kind, deadline, places, me)
        finally:
            with self._lock:
                if parts is self.parts and not self._stale:
                    self._forget_waiter(kind, me, False)
                    parts.consumer.measure_pace(monotonic() - started)

    def _nap(self, kind: int, deadline: Optional[float], places: int, me: object) -> None:
        naps = 0
        rung = False
        while True:
            now = monotonic()
            nap = self.parts.waiter.nap(kind, naps)
            seconds = nap if deadline is None else min(nap, deadline - now)
            bell = self.act(self._fall_asleep, kind, places, me, now + max(0.0, seconds), nap, rung)
            if bell is None or seconds <= 0:
                return
            rung = bell.sleep(seconds)
            naps += 1
            if naps == tuning.NAPS and kind == SLEEPS:
                self.act(self.parts.consumer.end_used_lease)

    def _fall_asleep(self, kind: int, places: int, me: object, until: float, nap: float, rung: bool) -> Optional[Bell]:
        """Say that we sleep.  ``None``: what we wait for is there."""
        parts = self.parts
        slot = self._slot_for(kind)
        parts.waiter.fall_asleep(kind, slot, me, until, nap)
        there = self._available(kind, places)
        if there < places and parts.acknowledging.scan_if_due(monotonic()):
            there = self._available(kind, places)
        if there < places:
            return parts.waiter.bell(kind)
        self._forget_waiter(kind, me, rung and there > places)
        return None

    def _slot_for(self, kind: int) -> int:
        consumer, producer = self.parts.consumer, self.parts.producer
        if kind == SLEEPS or (kind == AWAITS_DONE and producer.slot is None):
            if consumer.slot is None:
                consumer.join()
            assert consumer.slot is not None
            return consumer.slot
        if producer.slot is None:
            producer.slot = self.parts.members.join(consumer=False)
        return producer.slot

    def _forget_waiter(self, kind: int, me: object, more: bool) -> None:
        consumer, producer = self.parts.consumer, self.parts.producer
        slot = consumer.slot if kind == SLEEPS or producer.slot is None else producer.slot
        if slot is not None:
            self.parts.waiter.wake(kind, slot, me, more)

    def _available(self, kind: int, places: int) -> int:
        """How many could go who wait for that: items, places, or those who wait for the end; all if the queue was shut
        down."""
        parts = self.parts
        if kind == SLEEPS:
            count = parts.consumer.count()
            return sys.maxsize if not count and parts.replica.ledger.shut and self._is_over() else count
        if kind == AWAITS_DONE:
            return sys.maxsize if self._is_done(places) else 0
        parts.replica.sync()
        ledger = parts.replica.ledger
        if ledger.shut or ledger.shutting:
            return sys.maxsize
        if ledger.used + places > self.maxsize:
            self._make_room()
            ledger = parts.replica.ledger
        return self.maxsize - ledger.used

    # -- for those who must not sleep themselves, but have an event loop that does

    def bell(self, kind: int) -> Bell:
        """The bell that is rung for who waits for that."""
        return self.act(self.parts.waiter.bell, kind)

    def watch(self, kind: int, me: object, wanted: int, naps: int, rung: bool) -> tuple[int, float]:
        """Say that somebody sleeps who wants so many items or places, woke up by itself so often, or was rung for.

        Returns how many there are, and within how many seconds ``me`` must look again.  Where there are enough, ``me``
        sleeps no more."""
        return self.act(self._watch, kind, me, wanted, naps, rung)

    def _watch(self, kind: int, me: object, wanted: int, naps: int, rung: bool) -> tuple[int, float]:
        parts = self.parts
        nap = parts.waiter.nap(kind, naps)
        now = monotonic()
        parts.waiter.fall_asleep(kind, self._slot_for(kind), me, now + nap, nap)
        there = self._available(kind, wanted)
        if there < wanted and parts.acknowledging.scan_if_due(now):
            there = self._available(kind, wanted)
        if there >= wanted:
            self._forget_waiter(kind, me, rung and there > wanted)
        if naps == tuning.NAPS:
            parts.consumer.end_used_lease()
        return there, nap

    def unwatch(self, kind: int, me: object) -> None:
        """Nobody sleeps there any more, or another takes over."""
        with self._lock:
            if not self._stale and not self.closed:
                self._forget_waiter(kind, me, False)

    # -- looking

    def qsize(self) -> int:
        """Items that could be got now."""
        if self._interrupted:
            return self.above().qsize() + len(self.parts.consumer.state[1])
        return self.act(self.parts.consumer.count)

    def empty(self) -> bool:
        """Nothing could be got now."""
        return not self.qsize()

    def full(self) -> bool:
        """Nothing could be put now."""
        if not self.maxsize:
            return False
        if self._interrupted:
            return self.above().full()
        return self.act(self._is_full)

    def _is_full(self) -> bool:
        parts = self.parts
        return parts.consumer.count() - len(parts.consumer.state[1]) + len(parts.replica.ledger.held) >= self.maxsize

    def stats(self) -> Stats:
        """The figures of this moment: a look like ``qsize``, a step for each extent, a listing of the folder."""
        if self._interrupted:
            return self.above().stats()
        return self.act(self._stats)

    def _stats(self) -> Stats:
        from tqshim.figures import Stats  # here: dataclasses are dear to import

        parts = self.parts
        items = parts.consumer.count()
        ledger = parts.replica.ledger
        held = len(ledger.held)
        put = ledger.tail + ledger.uncut(parts.members.cells.counters())
        return Stats(
            put=put,
            got=put - items - held,
            redelivered=ledger.redelivered,
            corrupt=self.folder.count_corrupt(),
            items=items,
            held=held,
            returned=len(ledger.returned),
            unfinished=put - ledger.finished,
            bytes=self._bytes(),
            maxsize=ledger.maxsize,
            consumers=ledger.consumers,
            producers=len(ledger.members) - ledger.consumers,
            waiting_consumers=len(parts.members.cells.sleepers(SLEEPS)),
            waiting_producers=len(parts.members.cells.sleepers(AWAITS_PLACE)),
        )

    def _bytes(self) -> int:
        """Bytes of the records that wait and are cut."""
        ledger, reader = self.parts.replica.ledger, self.parts.reader
        total = 0
        for first, end, place in ledger.each_place(
            max(self.parts.consumer.delivered(), ledger.extents.first), ledger.tail
        ):
            with contextlib.suppress(ValueError, OSError):
                batch = reader.open(place.file)
                total += batch.ends[place.record + end - first] - batch.ends[place.record]
        return total

    @property
    def has_put(self) -> bool:
        """This process has put something."""
        return self.parts.producer.slot is not None

    @property
    def durable(self) -> bool:
        """What a put has put survives a power cut."""
        return self.parts.replica.ledger.durable

    def set_batch_size(self, size: Optional[int]) -> None:
        """How many records a batch file has at most: the newest handle's, or as many as go."""
        if size is not None:
            self._batch_size = self.parts.producer.batch_size = size

    # -- ending

    def task_done(self) -> bool:
        """One more item is finished with.  ``False``: all were."""
        if self._interrupted:
            return self.above().task_done()
        return self._unless_forked(True, self.act, self.parts.ending.task_done)

    def join(self, timeout: Optional[float]) -> bool:
        """Wait until all items are finished with, or were so for a moment.  ``False``: they were not for so long."""
        if self._interrupted:
            return self.above().join(timeout)
        deadline = None if timeout is None else monotonic() + timeout
        unfinished, wanted = self.act(self._unfinished)
        while unfinished:
            if deadline is not None and monotonic() >= deadline:
                return False
            self._unless_forked(None, self._wait, AWAITS_DONE, deadline, wanted)
            unfinished = not self.act(self._is_done, wanted)
        return True

    def _unfinished(self) -> tuple[int, int]:
        return self.parts.ending.unfinished(), self.parts.replica.ledger.completions + 1

    def _is_done(self, completions: int) -> bool:
        return not self.parts.ending.unfinished() or self.parts.replica.ledger.completions >= completions

    def shutdown(self, immediate: bool) -> None:
        """Nothing is put from now on; ``immediate``: and all that waits is dropped.  All who wait wake up."""
        if self._interrupted:
            self.above().shutdown(immediate)
            return
        self._unless_forked(None, self.act, self._shut_down, immediate)

    def _shut_down(self, immediate: bool) -> None:
        self.parts.ending.shut_down(immediate)
        self.parts.reclaimer.reclaim_done()

    # -- travelling, leaving

    def hold_for_child(self) -> Any:
        """Our hold on the folder, as an object that the child being spawned receives it through; one a child."""
        child = context.get_spawning_popen()
        reference, hold = self._spawning
        if reference is None or reference() is not child:
            hold = reduction.DupFd(self.folder.fd)
            self._spawning = weakref.ref(child), hold
        return hold

    def arrived(self, key: str) -> None:
        """A pickled handle has been unpickled here: its marker is not needed any more."""
        if self._interrupted:
            self.above().arrived(key)
            return
        self.act(self.folder.unmark, key)

    def close(self) -> None:
        """Leave the queue, and delete its folder if nobody else uses it."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
            if self._above is not None:
                self._above.close()
            try:
                if not self._stale:
                    self.act(self._leave)
            finally:
                self.parts.close()
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
            if self._above is not None:
                self._above.close()
            if not self._stale:
                self.act(self._leave)
            if self.folder.anonymous:
                self.folder.let_go()

    def _leave(self) -> None:
        parts = self.parts
        parts.consumer.leave()
        parts.producer.leave()
        if parts.replica.ledger.returned:
            parts.acknowledging.announce()
        parts.reclaimer.reclaim_done()

    def __del__(self) -> None:
        try:
            self.close()
        except Exception:  # in these words: names of modules may be gone by then
            pass

    # -- forks

    def forked(self) -> None:
        """In a forked child, before anything else.  What was under way in the parent must not go on here, not even in a
        frame of this very thread (a fork in a signal handler): its descriptors are of no use from now on, its log is
        not to be written to."""
        parts = self.parts
        self._known = parts.replica.ledger if not self._unsure else None
        self._stale = self._unsure = True
        self.generation += 1
        self._lock = locks.RLock()
        self._fence = locks.Lock()
        self._above = None
        if self.closed:
            return
        parts.replica.stale = True
        log, parts.producer.log = parts.producer.log, NO_LOG
        if log.batch is not None:
            log.batch.release()
        if self.folder.fd >= 0:
            # A folder's descriptor: reads and writes through it fail.
            os.dup2(self.folder.fd, parts.replica.journal.fd, inheritable=False)
        self.folder.suspend()
        parts.replica.journal.unmap()
        parts.members.cells.detach()

    def _begin_anew(self) -> None:
        """This process is a forked child: be a member of its own."""
        generation = self.generation
        former, known = self.parts, self._known
        former.close()
        self.folder.after_fork()
        replica = Replica(self.folder)
        try:
            if known is None:
                raise FileNotFoundError
            # The parent was in the middle of nothing: go on from what it knew.
            replica.follow(former.replica.journal.number, known, former.replica.pos)
        except FileNotFoundError:  # rolled in the meantime
            replica.load()
        self.parts = self._made(replica)
        self._known = None
        if generation == self.generation:
            self._stale = False
        self._unsure = self._stale

    # -- what handles of the first engine know

    flusher_holds: Any = None
    small = -1
    looked: ClassVar[list[int]] = [0]
    looked_then = 0
    burst: Iterator[Any] = iter(())
    steps: Iterator[Any] = iter(())

    def flush(self) -> None:
        """Nothing is held back."""


def _nothing(got: list[Taken], most: int) -> None:
    pass


@contextlib.contextmanager
def _a_full_disk_is_no_matter() -> Iterator[None]:
    """What is put is put, and whoever wants it cuts."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
