"""The engine: one a process and folder, shared by all its handles and threads.

Lives here: what a handle asks.  Not here: how an act begins and ends (``acts``), what it does (the parts), how a
process finds its engine (``registry``), pickling (``queues``).

Invariant: code that has interrupted an act of this very engine is served by another engine, which works as another
process would.
"""

from __future__ import annotations

from functools import partial
from itertools import chain

from tqshim.engine import gets, puts, waits
from tqshim.engine.acknowledge import Hold
from tqshim.engine.acts import Acts
from tqshim.engine.reader import Taken
from tqshim.protocol.pieces import NewRecord
from tqshim.runtime import late
from tqshim.runtime.clock import after, monotonic
from tqshim.storage.files import a_full_disk_is_no_matter, add_finding
from tqshim.sync.bell import Bell
from tqshim.sync.cells import ASLEEP, AWAITS_DONE, AWAITS_PLACE, SLEEPS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

    from tqshim.protocol.figures import Stats
    from tqshim.protocol.records import Lease

__all__ = ["Engine"]

_ASLEEP: int = ASLEEP[SLEEPS]


class Engine(Acts):
    """What one process does in one queue folder."""

    def put(self, record: NewRecord, block: bool, timeout: Optional[float]) -> bool:
        """Put one record.  ``False``: the queue was full all the time, or was shut down."""
        if self.is_interrupted or self.folder.fd < 0:
            return self.put_many([record], 0, block, timeout) == 1
        # Before the item is there: a cut in between must not find it beside older items that are not cut.
        if type(record) is bytes and puts.cut_if_due(self):
            try:
                total = self.parts.producer.log.put(record)
            except ValueError:  # as in the handles: forked just now
                total = 0
            if total < 0 or (total and self.has_put(total)):
                return True
        deadline = None if timeout is None else after(monotonic(), timeout)
        return self.unless_forked(1, puts.put_waiting, self, [record], block, deadline) == 1

    def has_put(self, total: int) -> bool:
        """Do what is left to do when ``Log.put`` has put a record.

        ``False``: the record does not count, for somebody wanted to know how many are put, or to shut the queue down,
        and has looked before the record was put."""
        owner = self.parts.producer
        log = owner.log
        if log.counts[log.flag] or log.stop < total or owner.lost:
            engine = self.top()
            if not self.unless_forked(True, engine.act, lambda: engine.parts.producer.confirm(total, owner)):
                return False
        if log.counts[_ASLEEP]:
            self.unless_forked(None, self.parts.waiter.ring_surely, SLEEPS)
        return True

    def put_many(self, records: list[NewRecord], before: int, block: bool, timeout: Optional[float]) -> int:
        """Put records, all or none where they fit into the queue at all; returns how many were put.

        An ``OSError`` says how many items were put, the number ``before`` included."""
        if self.is_interrupted:
            above = self.above()
            try:
                put = above.put_many(records, before, block, timeout)
                above.cut_for_below()
            except BaseException:  # some of them may be put
                above.cut_for_below()
                raise
            return put
        if self.is_left:
            return len(records)
        deadline = None if timeout is None else after(monotonic(), timeout)
        size = len(records)
        if self.maxsize and size > self.maxsize:
            if not block:
                return 0
            size = max(1, self.maxsize // 4)
        put = 0
        while put < len(records):
            piece = records[put : put + size] if put or size < len(records) else records
            try:
                count = self.unless_forked(len(piece), partial(puts.put_waiting, self), piece, block, deadline)
            except OSError as error:
                if before + put:
                    add_finding(error, f"the first {before + put} items were put")
                raise
            put += count
            if not count:
                break
        return put

    def get(self, got: list[Taken], most: int, block: bool, timeout: Optional[float]) -> tuple[int, bool]:
        """Append to ``got`` what is there, ``most`` records or fewer; nothing where the queue was empty all the time.

        Returns the generation that owns the records (a later one, of a forked child, does not), and whether the records
        end where a lease does, and there may be more.

        If this raises, the records in ``got`` have been taken, and no others."""
        if self.is_interrupted:
            above = self.above()
            _, cut_short = above.get(got, most, block, timeout)
            self.over = above.over
            return self.generation, cut_short
        return gets.take_or_wait(self, got, most, block, timeout)

    def give_back(self, records: list[Taken]) -> None:
        """Take back records that were got but not delivered: the next get delivers them first."""
        if self.is_interrupted:
            self.above().give_back(records)
            return
        with self.lock:
            self.parts.leasing.settle()
            self.parts.hand.put_back(records)

    def confirm(self, item: int, lease: Lease, generation: int) -> bool:
        """Return whether an item is ours that a step has taken, though somebody wanted our lease to end.

        It is ours if the journal says so, and if this is not a forked child: ``generation`` was ours at the step."""
        if self.is_interrupted:
            above, leasing = self.top(), self.parts.leasing
            end = self.unless_forked(0, above.act, lambda: above.parts.consumer.end_of(lease))
            if item >= end:
                leasing.told.add((lease.number, item))
            return item < end and generation == self.generation
        ours = self.unless_forked(False, self.act, lambda: self.parts.leasing.confirm(item, lease))
        return ours and generation == self.generation

    def ring_for_place(self) -> None:
        """Ring for a producer that waits for a place: a step has taken an item."""
        self.unless_forked(None, self.parts.waiter.ring, AWAITS_PLACE)

    def hold(self, found: list[Hold], block: bool, timeout: Optional[float]) -> None:
        """Append to ``found`` the oldest item; nothing where the queue was empty all the time.

        If this raises, what ``found`` has is held, and the caller lets it go."""
        if self.is_interrupted:
            above = self.above()
            above.hold(found, block, timeout)
            self.over = above.over
            return
        gets.take_or_wait(self, found, gets.HOLD_ONE, block, timeout)

    def let_go(self, hold: Hold, got: bool) -> None:
        """End a hold with its block: the item counts as got, or comes back.  In a forked child it is the parent's."""
        if self.closed or hold.generation != self.generation:
            return
        acknowledging = self.parts.acknowledging
        acknowledging.is_to_end(hold, got)
        if not self.is_interrupted:
            self.unless_forked(None, self.act, lambda: self.parts.acknowledging.let_go(hold, got))
        elif hold.number is not None:
            self.above().let_go(hold, got)
            acknowledging.has_ended(hold)

    def bell(self, kind: int) -> Bell:
        """Return the bell that is rung for waiters of that kind."""
        return self.act(lambda: self.parts.waiter.bell(kind))

    def watch(self, kind: int, me: object, wanted: int, naps: int, rung: bool) -> tuple[int, float]:
        """Say that ``me`` sleeps until there are so many items or places.

        ``naps``: how often ``me`` woke up by itself; ``rung``: it was rung for.  Returns how many there are, and within
        how many seconds ``me`` must look again.  Where there are enough, ``me`` sleeps no more."""
        return self.act(partial(waits.watch, self), kind, me, wanted, naps, rung)

    def unwatch(self, kind: int, me: object, more: bool) -> None:
        """Say that ``me`` sleeps no more.  Another sleeper takes over: the ring, too, if there may have been one
        (``more``)."""
        with self.lock:
            if not self.stale and not self.closed:
                waits.forget_waiter(self, kind, me, more)

    def qsize(self) -> int:
        """Items that could be got now."""
        if self.is_interrupted:
            return self.above().qsize() + len(self.parts.hand.state[1])
        return self.look(lambda: self.parts.count())

    def full(self) -> bool:
        """Nothing could be put now."""
        if not self.maxsize:
            return False
        if self.is_interrupted:
            return self.above().full()
        return self.look(self._is_full)

    def is_known_full(self) -> bool:
        """The queue was full as far as our last put knew, and still is: nothing need be pickled to be refused."""
        log = self.parts.producer.log
        try:
            return self.maxsize > 0 and log.counts[log.cell] >= log.stop and self.full()
        except ValueError:  # forked just now
            return False

    def _is_full(self) -> bool:
        parts = self.parts
        return parts.consumer.count() - len(parts.hand.state[1]) + len(parts.replica.ledger.holds.held) >= self.maxsize

    def stats(self) -> Stats:
        """Return the figures of this moment.  Costs a look like ``qsize``, a step for each extent, a listing of the
        folder."""
        if self.is_interrupted:
            return self.above().stats()
        return self.look(self._stats)

    def _stats(self) -> Stats:
        try:
            from tqshim.protocol.figures import Stats  # here: dataclasses are dear to import
        except ImportError:  # a signal handler has interrupted that very import, and can't wait for it
            from types import SimpleNamespace as Stats  # type: ignore[assignment]
        parts = self.parts
        counters = parts.members.look()
        ledger = parts.replica.ledger
        uncut, held = ledger.uncut(counters), len(ledger.holds.held)
        put = ledger.tail + uncut
        items = uncut + parts.consumer.size() + len(parts.hand.state[1])
        return Stats(
            put=put,
            got=put - items - held,
            redelivered=ledger.holds.redelivered,
            corrupt=late.room("storage.corrupt").count_corrupt(self.folder),
            items=items,
            held=held,
            returned=len(ledger.holds.returned),
            unfinished=put - ledger.joins.finished,
            bytes=self._bytes(counters),
            maxsize=ledger.maxsize,
            consumers=ledger.members.consumers,
            producers=ledger.producers,
            waiting_consumers=len(parts.members.sleepers(SLEEPS)),
            waiting_producers=len(parts.members.sleepers(AWAITS_PLACE)),
        )

    def _bytes(self, counters: bytes) -> int:
        """Bytes of the records that wait, cut or not."""
        parts = self.parts
        ledger, reader = parts.replica.ledger, parts.reader
        first = max(parts.consumer.delivered(), ledger.extents.first)
        cut = ((end - begin, place) for begin, end, place in ledger.each_place(first, ledger.tail))
        uncut = ledger.each_uncut(counters, parts.members.given()) if counters else ()
        return reader.bytes_in(chain(cut, ((count, place) for _, count, place in uncut)))

    @property
    def is_producer(self) -> bool:
        """This process has put something."""
        return self.parts.producer.slot is not None

    def task_done(self) -> bool:
        """Count one more item as finished with.  ``False``: all were."""
        if self.is_interrupted:
            return self.above().task_done()
        return self.unless_forked(True, self.surely, lambda: self.parts.ending.task_done())

    def join(self, timeout: Optional[float]) -> bool:
        """Wait until all items are finished with, or were so for a moment.  ``False``: they were not by the
        timeout."""
        if self.is_interrupted:
            return self.above().join(timeout)
        deadline = None if timeout is None else after(monotonic(), timeout)
        unfinished, wanted = self.look(self._unfinished)
        while unfinished:
            if deadline is not None and monotonic() >= deadline:
                return False
            self.unless_forked(None, partial(waits.wait, self), AWAITS_DONE, deadline, wanted)
            unfinished = not self.look(lambda: self.parts.is_done(wanted))
        return True

    def _unfinished(self) -> tuple[int, int]:
        """How many items are unfinished, and the completion that a join from now on awaits."""
        parts = self.parts
        if parts.ending.unfinished():
            # Else a task_done that has looked before these were put would take the cut items for all there are.
            with a_full_disk_is_no_matter():
                parts.members.cut()
        return parts.ending.unfinished(), parts.replica.ledger.joins.completions + 1

    def shutdown(self, immediate: bool) -> None:
        """Let nothing be put from now on; ``immediate``: and drop all that waits.  Wakes all waiters."""
        if self.is_interrupted:
            self.above().shutdown(immediate)
            return
        self.unless_forked(None, self.surely, self._shut_down, immediate)

    def _shut_down(self, immediate: bool) -> None:
        self.parts.ending.shut_down(immediate)
        self.parts.reclaimer.reclaim_done()
