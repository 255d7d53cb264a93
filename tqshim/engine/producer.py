"""Putting: how far one's own log has got, and the places of a bounded queue.

Lives here: when a record is put, what it needs of batch files and reservations.  Not here: how it is written, and the
short way (``log``), pickling (``queues``), waiting for a place (``puts``).

Where counters count, the producer's store of the log's new total to its counter puts a record, wherever the producer
is killed next; else the PUBLISH that the producer appends does.

Invariant: a record is in place before its total is stored, or cut.  The next record's place follows from the index at
that total: the next put writes over what an interrupted one has left there.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

from tqshim.engine import tuning
from tqshim.engine.log import NO_LOG, GuardedLog, Log, Writer
from tqshim.engine.membership import Membership
from tqshim.engine.reclaim import Reclaimer
from tqshim.engine.replica import Replica
from tqshim.engine.supply import Supply
from tqshim.protocol import events, index
from tqshim.protocol.pieces import NewRecord
from tqshim.runtime import locks
from tqshim.runtime.clock import monotonic_ns
from tqshim.storage.files import NO_SPACE
from tqshim.storage.folder import LogFolder
from tqshim.sync import cells as words_of
from tqshim.sync import membarrier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

__all__ = ["Producer"]


class Producer:
    """What this process puts into one queue."""

    __slots__ = (
        "_folder",
        "_given",
        "_lock",
        "_members",
        "_places",
        "_reclaimer",
        "_replica",
        "batch_size",
        "help_to_shut",
        "log",
        "lost",
        "slot",
        "supply",
        "writer",
    )

    def __init__(
        self, folder: LogFolder, replica: Replica, members: Membership, reclaimer: Reclaimer, lock: Any
    ) -> None:
        self._folder = folder
        self._replica = replica
        self._members = members
        self._reclaimer = reclaimer
        self._lock = lock
        """The engine's lock."""
        self.slot: Optional[int] = None
        self.log = NO_LOG
        self._given = -1, 0
        """The number of a lease of all that comes, and what it has delivered of our log, as far as we have seen."""
        self.lost: set[int] = set()
        """Records that the counter alone has put, and that do not count: an act not their own has settled that."""
        self.supply = Supply(folder, replica, reclaimer)
        self.writer = Writer(folder)
        self._places = min(tuning.PLACES, max(tuning.PLACES_FEW, replica.ledger.maxsize // 64))
        """Places of a reservation, where so many are free."""
        self.batch_size = index.capacity(-1)
        """Records of a batch file, at most."""
        self.help_to_shut: Callable[[], object] = lambda: None
        """Called where somebody wants to shut the queue down."""

    # -- putting

    def put(self, records: Sequence[NewRecord]) -> int:
        """Put records; in a bounded queue all of them, or none.  Returns how many were put: fewer where there are no
        places, or where the queue was shut down.

        Raises ``OSError`` where there is no space for the first; for a later one, the put of the rest raises it."""
        put = 0
        if len(records) == 1 and self._replica.ledger.maxsize:
            count = self._put_alone(records[0]) if self._is_alone() else self._publish(records[0])
            if count is not None:
                return count
        while put < len(records):
            self.log.stop = 0  # No other thread grows the log meanwhile.
            try:
                count = self._put(records[put:] if put else records)
            except OSError:
                if not put:
                    raise
                break
            put += count
            if not count:
                break
        self._limit()
        return put

    def _put(self, records: Sequence[NewRecord]) -> int:
        """Put the first of these records, or all of them in a bounded queue; returns how many were put."""
        replica = self._replica
        if self.slot is None:
            self.slot = self._members.join(consumer=False)
        if replica.ledger.ending.shutting or self.log.counts[self.log.flag] or not self._members.counting:
            replica.sync()
            if replica.ledger.ending.shutting:
                self.help_to_shut()
                return 0
        by_counter = self._members.counting
        if replica.ledger.maxsize:
            # Not several at once: others may see the counter, and cut the first of them alone.
            by_counter = len(records) == 1 and self._has_place()
            if not (by_counter or self._may_cut(len(records))):
                replica.sync()  # Others may have got some meanwhile.
                self.look_what_is_delivered()
                if not self._may_cut(len(records)):
                    return 0
            if replica.ledger.ending.shutting:
                self.help_to_shut()
                return 0
        total, count = self.write(records)
        return self._commit(total, total + count) if by_counter else self.append(total, total + count, events.publish)

    def write(self, records: Sequence[NewRecord]) -> tuple[int, int]:
        """Write the first of these behind the log; returns how many it had, and how many these are."""
        total = self._position()
        count = self._fitting(total, records)
        if not count:
            self._open_for(records)
            total = self._position()
            count = self._fitting(total, records)
        return total, self.writer.write(self._own_log(), total, records[:count])

    def _put_alone(self, record: NewRecord) -> Optional[int]:
        """Put a small record where nobody else puts.  0: there is no place.  ``None``: it takes the long way."""
        log = self.log
        if type(record) is not bytes or not log.stop or self.lost or log.counts[log.flag]:
            return None
        self._replica.sync()
        if not self._has_free_places(self._position() + 1):
            return 0 if self._is_alone() and not (self._replica.ledger.ending.shutting or self._may_cut(1)) else None
        self._limit()
        # Commit point.
        total = log.put(record)
        if total > 0 and (log.counts[log.flag] or log.stop < total or self.lost):
            return int(self.confirm(total, self))
        return 1 if total else None

    def _publish(self, record: NewRecord) -> Optional[int]:
        """Put a small record through the journal, where a bounded queue has too few places to reserve some.  0: it
        has none.  ``None``: the record takes the long way."""
        log, slot, replica = self.log, self.slot, self._replica
        if type(record) is not bytes or log.batch is None or slot is None or self.writer.is_dressed or self.lost:
            return None
        if max(log.stop, replica.ledger.reserved_to(slot)) > replica.ledger.totals[slot]:
            return None
        if log.counts[log.flag] and log.counts[log.cell] == replica.ledger.totals[slot]:
            # The flag is of no use where all is cut and no short way is open.  It is lowered before the look, which
            # finds the CLOSING that it may have been raised for.
            log.counts[log.flag] = 0
            locks.fence()
        counters = self._members.look()
        ledger = replica.ledger
        total = ledger.totals[slot]
        filling = ledger.files.filling.get(slot)
        passed, freed = self._members.passed()
        places = ledger.maxsize - ledger.used + freed
        if (
            ledger.grown(counters)  # records of others come first
            or ledger.reserved_to(slot) > total
            or ledger.leases.sole
            or ledger.ending.shutting
            or log.counts[log.flag]
            or log.counts[log.cell] != total
            or log.stop > total
            or filling is None
            or filling.file != log.batch.file
            or total >= min(filling.stop, log.first + self.batch_size)
            or places >= tuning.PLACES_LEAST
        ):
            return None
        if places <= 0:
            return 0
        ends, number = log.ends, total - log.first
        begin = ends[number]
        end = begin + len(record)
        if not 0 < begin <= end <= log.size:
            return None
        log.memory[begin:end] = record
        ends[number + 1] = end
        # Commit point.
        if replica.append(passed + events.publish(slot, total + 1))[-1] is None:
            return None
        log.counts[log.cell] = total + 1
        return 1

    def end(self) -> tuple[int, int]:
        """Be a producer; returns the number of the member that we are, and how many records its log has so far."""
        if self.slot is None:
            self.slot = self._members.join(consumer=False)
        return self._members.slots[self.slot], self._position()

    def _position(self) -> int:
        """Records of the log so far."""
        assert self.slot is not None
        return max(self.log.counts[self.log.cell], self._replica.ledger.totals[self.slot])

    def _fitting(self, total: int, records: Sequence[NewRecord]) -> int:
        """Return how many of these records fit into the batch file; in a bounded queue all, or none."""
        log = self.log
        if log.batch is None:
            return 0
        assert self.slot is not None
        filling = self._replica.ledger.files.filling.get(self.slot)
        if filling is None or filling.file != log.batch.file:  # an act was interrupted just after its OPEN
            return 0
        begin = log.ends[total - log.first]
        # 0: somebody has cut the file short.
        room = log.size - begin if begin else -1
        stop, bounded = filling.stop, self._replica.ledger.maxsize > 0
        # All of them, whatever ``batch_size`` says, where they must be put at once and the file is empty.
        if not bounded or total > log.first:
            stop = min(stop, log.first + self.batch_size)
        count = size = 0
        for record in records[: max(0, stop - total)]:
            size += self.writer.room_of(record)
            if size > room:
                break
            count += 1
        return 0 if bounded and count < len(records) else count

    def _own_log(self) -> Log:
        """The log.  Raises ``OSError`` where this process was forked just now, in a signal handler: it has none yet."""
        log = self.log  # Read once: 3.9 may fork between two instructions.
        if log is NO_LOG:
            raise OSError(errno.EBADF, "this frame's process was forked")
        return log

    def _commit(self, total: int, new: int) -> int:
        """The log has grown from ``total`` to ``new`` records: put them by the counter; returns how many count."""
        log = self._own_log()
        now = monotonic_ns()
        if now > log.due:
            log.mark(now)
        # Commit point: from here on they are in the queue.
        log.counts[log.cell] = new
        # A shutdown may have looked for flags to raise before our OPEN, and not again since.
        if log.counts[log.flag] or self._replica.ledger.ending.shutting:
            put = self.confirm(new, self)
            self.lost.difference_update(range(total, new))
            return new - total if put else 0
        return new - total

    def append(self, total: int, new: int, event: Callable[[int, int], bytes]) -> int:
        """The log has grown from ``total`` to ``new`` records: put them by that event; returns how many it put."""
        log, slot = self._own_log(), self.slot
        assert slot is not None
        # Commit point.
        self._members.cut(event(slot, new))
        if self._replica.ledger.totals[slot] < new:
            return 0
        log.counts[log.cell] = new
        return new - total

    def confirm(self, total: int, owner: Producer) -> bool:
        """Return whether the record counts with which the owner's log has got to that total.

        Somebody may have looked before.  Another thread's act, or a handler's, may have settled that since."""
        if total - 1 not in owner.lost:
            self.settle(total, owner)
        kept = total - 1 not in owner.lost
        owner.lost.discard(total - 1)
        return kept

    def settle(self, total: int, owner: Producer) -> None:
        """Have the journal decide how far the owner's log has got; ``lost`` notes the records that do not count."""
        replica, log, slot = self._replica, owner.log, owner.slot
        if slot is None:
            return
        self.log.stop = 0
        replica.sync()
        ledger = replica.ledger
        # Where another thread has lowered the flag, and was interrupted then, the journal says who has joined.
        is_asked = log.counts[log.flag] or ledger.ending.shutting or ledger.stop_of(slot, self._is_alone()) < total
        if is_asked and ledger.totals[slot] < total:
            own = ledger.reservations.by_slot.get(slot)
            data = b""
            if own is not None and not own.cut:
                data = events.trim(slot, min(max(0, total - own.begin), events.RESERVE_MOST), own.grant)
            # Records that can't be cut now never will be: their numbers are not used again.
            data += events.cut(slot, total) + events.skip(slot, total)
            kept = self._members.cut(data)[-1]
            if isinstance(kept, int):
                owner.lost.update(range(kept, total))
        if replica.ledger.ending.shutting and not replica.ledger.ending.shut:
            self.help_to_shut()
        self._limit()

    def settle_all(self, owner: Producer) -> None:
        """``settle`` for all that the owner's counter says: an interrupted act may not have asked yet."""
        self.settle(owner.log.counts[owner.log.cell], owner)

    def _limit(self) -> None:
        """Let puts by the short way, which ask nobody, go as far as they may by now."""
        log, slot = self.log, self.slot
        ledger = self._replica.ledger
        short = (tuning.SHORT_WAYS or tuning.GUARDED) and self._members.counting and not ledger.ending.shutting
        filling = None if slot is None else ledger.files.filling.get(slot)
        # Another file: an act was interrupted just after its OPEN.
        is_ours = log.batch is not None and filling is not None and filling.file == log.batch.file
        if slot is None or not is_ours or not short or self.writer.is_dressed:
            log.stop = 0
        else:
            alone = self._is_alone() and not log.counts[log.flag]
            log.stop = min(self._stop_alone() if alone else ledger.stop_of(slot), log.first + self.batch_size)

    # -- places

    def _has_place(self) -> bool:
        """See that our reservation, if need be a new one, has a place left.  ``False``: we must ask for a place."""
        replica, slot, log = self._replica, self.slot, self.log
        assert slot is not None
        total = self._position()
        own = replica.ledger.reservations.by_slot.get(slot)
        if own is not None and not own.cut and total < own.stop:
            return True
        if self._is_alone() and log.counts[log.flag]:
            log.counts[log.flag] = 0
            locks.fence()  # Before the look: a member that joins after it raises the flag again.
        replica.sync()
        if self._is_alone():
            return self._has_free_places(total + 1)
        ledger = replica.ledger
        own = ledger.reservations.by_slot.get(slot)
        unused = max(0, own.stop - total) if own is not None else 0
        passed, freed = self._members.passed()
        places = min(self._places, ledger.maxsize - ledger.used + unused + freed)
        if (
            not (self._members.counting and tuning.RESERVATIONS)
            or slot not in ledger.files.filling
            or places < tuning.PLACES_LEAST
            or log.batch is None
        ):
            return False
        # Before the event: a process that wants the new reservation to end raises the flag after it.  A process that
        # has raised the flag to end the former one changes nothing any more: others have ended that, or it is used up.
        log.counts[log.flag] = 0
        # ``cut`` leaves out what our log has beyond its reservation.
        beyond = events.cut(slot, total) if ledger.reserved_to(slot) < total else b""
        return self._members.cut(beyond + passed + events.reserve(slot, places))[-1] is not None

    def _is_alone(self) -> bool:
        """Nobody else puts: all free places are ours, until another producer joins, and raises our flag."""
        ledger = self._replica.ledger
        return tuning.ALONE and self._members.counting and ledger.producers == 1 and ledger.maxsize > 0

    def _has_free_places(self, total: int) -> bool:
        """There are places for our log up to that total, and all free places are ours."""
        if total > self._stop_alone():
            looks = self.look_what_is_delivered()
            passed, _ = self._members.passed()
            if passed:
                self._replica.append_one(passed)
            if not (passed or looks) or total > self._stop_alone():
                return False
        return self._is_alone() and not self._replica.ledger.ending.shutting

    def _stop_alone(self) -> int:
        """Records of the log for which there are places, as far as we know."""
        ledger, slot = self._replica.ledger, self.slot
        assert slot is not None
        stop = ledger.stop_of(slot, True)
        sole = ledger.maxsize and ledger.leases.sole
        return min(stop, self._delivered() + ledger.maxsize - ledger.used) if sole else stop

    def _delivered(self) -> int:
        """Records of our log that are cut, or delivered by a lease of all that comes, as far as we have seen."""
        ledger, slot = self._replica.ledger, self.slot
        assert slot is not None
        lease, (number, given) = ledger.leases.standing, self._given
        total = ledger.totals[slot]
        return max(total, given) if ledger.leases.sole and lease is not None and lease.number == number else total

    def look_what_is_delivered(self) -> bool:
        """Look how far a lease of all that comes has got, which no event says.  ``True``: further than we knew."""
        replica, members, lease = self._replica, self._members, self._replica.ledger.leases.standing
        if not replica.ledger.leases.sole or lease is None or self.slot is None:
            return False
        former, given = self._given, members.word(words_of.GIVEN, self.slot)
        # A process that ends the lease raises the flag, then looks there: if it is up, that look may have missed this.
        asked = members.word(words_of.LEASE_FLAG, lease.slot)
        replica.sync()
        now = replica.ledger.leases.standing
        if now is None or now.number != lease.number:  # that may be the flag of a later lease
            return True
        if asked:
            # That process may be kept from ending the lease: what was delivered is decided here.
            replica.append(members.end_of_all())
            return True
        self._given = lease.number, given
        return self._given != former

    def taken(self, more: int = 0) -> int:
        """Places that are taken, as far as we know, once so many more records are put that have none reserved."""
        ledger, slot = self._replica.ledger, self.slot
        if slot is None:
            return ledger.used + more
        return ledger.used + max(0, self._position() + more - max(ledger.reserved_to(slot), self._delivered()))

    def _may_cut(self, count: int) -> bool:
        """As far as we know there are places for so many records, though we have none reserved."""
        return self.taken(count) <= self._replica.ledger.maxsize

    def trim(self, slot: int) -> bool:
        """End a reservation.  ``False``: there is nothing to end."""
        replica, members = self._replica, self._members
        own = replica.ledger.reservations.by_slot.get(slot)
        if own is None or own.cut or own.stop <= replica.ledger.totals[slot]:
            return False
        if slot == self.slot:
            self.log.stop = 0
            if own.stop <= self._position():
                return False
            used = self._position() - own.begin
        elif members.bury(slot):
            return True
        elif own.stop - own.begin > events.RESERVE_MOST:
            return False
        else:
            members.raise_flag(words_of.FLAG, slot)
            membarrier.barrier()
            used = members.word(words_of.COUNTER, slot) - own.begin
        replica.append(events.trim(slot, min(max(0, used), events.RESERVE_MOST), own.grant))
        if slot == self.slot:
            self._limit()
        return True

    # -- batch files

    def _open_for(self, records: Sequence[NewRecord]) -> None:
        """Go on in a new batch file, with room for the first of these records; in a bounded queue for all of them."""
        slot, former = self.slot, self.log.batch
        assert slot is not None
        wanted = records if self._replica.ledger.maxsize else records[:1]
        batch = self.supply.next(self._members.slots[slot], sum(map(self.writer.room_of, wanted)), len(wanted), former)
        # The new file begins behind what is cut by then: no record of the log may be left in between.
        counter = self.log.counts[self.log.cell]
        try:
            skipped = self._members.skip(slot)
            verdicts = self._members.cut(skipped + events.open_(slot, batch.file.serial))
        except OSError as error:
            if error.errno in NO_SPACE and not self._replica.stale:
                self._folder.remove_batch(batch.file)
            raise
        if skipped and isinstance(verdicts[-2], int):
            # What the SKIP came to: other threads wait to know whether their records count.
            self.lost.update(range(verdicts[-2], counter))
        filling = self._replica.ledger.files.filling[slot]
        end = self._members.cells.words, slot, batch, filling.first, 0
        self.log = GuardedLog(self._lock, *end) if tuning.GUARDED else Log(*end)
        if former is not None:
            self._folder.seal_batch(former.file)
        self._reclaimer.reclaim_done()

    # -- leaving

    def leave(self) -> None:
        """Be no producer any more."""
        log, self.log = self.log, NO_LOG
        log.stop, log.due = 0, 1 << 62  # for a thread that is about to put
        slot, self.slot = self.slot, None
        if slot is not None:
            self._members.leave(slot)
        if log.batch is not None:
            self._folder.seal_batch(log.batch.file)

    def close(self) -> None:
        """Store nowhere any more."""
        self.log = NO_LOG
        self.supply.close()

    def recover(self) -> None:
        """An act was interrupted: see how far the log has got."""
        if self.slot is None:
            return
        log, total = self.log, self._position()
        if log.counts[log.cell] < total and log.batch is not None:
            log.counts[log.cell] = total
        self._limit()
