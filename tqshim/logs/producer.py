"""Putting: a log of one's own, and the places of a bounded queue.

Lives here: where a record is written, when it is put, what it needs of batch files and reservations.  Not here:
pickling (``queues``), waiting for a place (``engine``).

Where counters count, a record is put by the store of the log's new total to its producer's counter, wherever that is
killed next; else by the CUT that its producer appends.

Invariant: a record is in place before its total is stored, or cut.  The next record's place follows from the index at
that total: what an interrupted put has left there is written over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Final, Optional

from tqshim import tuning, waiting
from tqshim.blocks import NewRecord, Pieces
from tqshim.folder import NO_SPACE, spill_root
from tqshim.logs.membership import Membership
from tqshim.logs.reclaim import Reclaimer
from tqshim.logs.replica import Replica
from tqshim.names import FileId
from tqshim.protocol import events, index
from tqshim.storage.batch_file import BatchFile
from tqshim.storage.folder import LogFolder
from tqshim.sync import cells as words_of
from tqshim.sync.cells import Cells

__all__ = ["NO_LOG", "Log", "Producer"]

FIRST_BYTES: Final = 1 << 14
"""Bytes of a producer's first batch file: a worker that puts one result must not have a megabyte zeroed."""
SMALL_RECORD: Final = 64
"""A file has room for so many records of so many bytes, or its index is full before it is."""
_PAGE: Final = 4096


class Log:
    """The end of a log: the batch file in which it goes on, and the words that say how far it has got."""

    __slots__ = ("batch", "cell", "counts", "ends", "first", "flag", "memory", "size", "stop")

    def __init__(self, counts: memoryview, slot: int, batch: Optional[BatchFile], first: int, stop: int) -> None:
        self.counts = counts
        self.cell = Cells.place(words_of.COUNTER, slot)
        self.flag = Cells.place(words_of.FLAG, slot)
        self.batch = batch
        self.first = first
        """Records of the log before this file."""
        self.stop = stop
        """Records of the log up to which a put need not ask anybody."""
        if batch is not None:
            self.memory, self.ends, self.size = batch.memory, batch.ends, batch.size


NO_LOG: Final = Log(memoryview(bytes(Cells.place(words_of.FLAG, 1) * 8)).cast("Q"), 0, None, 0, 0)
"""That of who has put nothing: each put asks."""


class Producer:
    """What this process puts into one queue."""

    __slots__ = (
        "_count",
        "_folder",
        "_large",
        "_members",
        "_next",
        "_places",
        "_reclaimer",
        "_replica",
        "batch_size",
        "help_to_shut",
        "log",
        "protected",
        "slot",
    )

    def __init__(self, folder: LogFolder, replica: Replica, members: Membership, reclaimer: Reclaimer) -> None:
        self._folder = folder
        self._replica = replica
        self._members = members
        self._reclaimer = reclaimer
        self.slot: Optional[int] = None
        self.log = NO_LOG
        self._count = 0
        """Batch files that were begun."""
        self._next = FIRST_BYTES
        """Bytes of the next."""
        self._large = False
        maxsize = replica.ledger.maxsize
        self._places = min(tuning.PLACES, max(tuning.PLACES_FEW, maxsize // 64))
        """Places of a reservation, where so many are free."""
        self.batch_size = index.capacity(-1)
        """Records of a batch file, at most."""
        self.help_to_shut: Callable[[], object] = lambda: None
        """Called where somebody wants to shut the queue down."""
        self.protected: Callable[[FileId, int, Sequence[NewRecord]], Sequence[NewRecord]] = _as_they_are
        """What is written of records: what follows each makes its file, and its place there, known."""

    # -- putting

    def put(self, records: Sequence[NewRecord]) -> int:
        """Put records; in a bounded queue all of them, or none.  Returns how many were put: fewer where there are no
        places, or where the queue was shut down.

        Raises ``OSError`` where there is no space; those before are put."""
        put = 0
        while put < len(records):
            left = records[put:] if put else records
            count = self._put(left)
            put += count
            if not count:
                break
        return put

    def _put(self, records: Sequence[NewRecord]) -> int:
        """Put the first of these, all of them in a bounded queue; returns how many were put."""
        replica = self._replica
        if self.slot is None:
            self.slot = self._members.join(consumer=False)
        if replica.ledger.shutting or self.log.counts[self.log.flag]:
            replica.sync()
            if replica.ledger.shutting:
                self.help_to_shut()
                return 0
        by_counter = self._members.counting
        if replica.ledger.maxsize:
            by_counter = self._has_places(len(records))
            if replica.ledger.shut or not (by_counter or self._may_cut(len(records))):
                return 0
        total = self._position()
        count = self._fitting(total, records)
        if not count:
            self._open_for(records)
            total = self._position()
            count = self._fitting(total, records)
        return self._commit(total, total + self._write(total, records[:count]), by_counter)

    def _position(self) -> int:
        """Records of the log so far."""
        assert self.slot is not None
        return max(self.log.counts[self.log.cell], self._replica.ledger.totals[self.slot])

    def _fitting(self, total: int, records: Sequence[NewRecord]) -> int:
        """How many of these go into the batch file; of a bounded queue all, or none."""
        log = self.log
        if log.batch is None:
            return 0
        assert self.slot is not None
        filling = self._replica.ledger.files.get(self.slot)
        if filling is None or filling.file != log.batch.file:  # an act was interrupted just after its OPEN
            return 0
        room = log.size - log.ends[total - log.first]
        # All of them, whatever ``batch_size`` says, where they must be put at once and the file is empty.
        stop = filling.stop if total == log.first else min(filling.stop, log.first + self.batch_size)
        most = min(len(records), stop - total if self._replica.ledger.maxsize else log.first + self.batch_size - total)
        most = min(most, stop - total)
        if self._replica.ledger.maxsize and most < len(records):
            return 0
        count = size = 0
        for record in records[:most]:
            size += len(record) + self._beside
            if size > room:
                break
            count += 1
        return 0 if self._replica.ledger.maxsize and count < len(records) else count

    @property
    def _beside(self) -> int:
        """Bytes that follow each record."""
        return index.CHECK if tuning.CHECK_ALL else 0

    def _write(self, total: int, records: Sequence[NewRecord]) -> int:
        """Write records behind the last one; returns how many."""
        log = self.log
        assert log.batch is not None
        number = total - log.first
        begin = at = log.ends[number]
        records = self.protected(log.batch.file, number, records)
        memory = log.memory
        if len(records) == 1:
            record = records[0]
            parts = record.parts if isinstance(record, Pieces) else [record]
            for part in parts:
                end = at + len(part)
                memory[at:end] = part
                at = end
            log.ends[number + 1] = at
            return 1
        for record in records:
            for part in record.parts if isinstance(record, Pieces) else [record]:
                end = at + len(part)
                memory[at:end] = part
                at = end
        for place, end in enumerate(accumulate(map(len, records), initial=begin), number):
            log.ends[place] = end
        return len(records)

    def _commit(self, total: int, new: int, by_counter: bool) -> int:
        """The log has grown from ``total`` to ``new`` records; returns how many of them are put."""
        log = self.log
        slot = self.slot
        assert slot is not None
        if by_counter:
            # Commit point: from here on they are in the queue.
            log.counts[log.cell] = new
            # Whoever wants to shut down may have looked for flags to raise before our OPEN, but not after it.
            if log.counts[log.flag] or self._replica.ledger.shutting:
                return self.settle(new) - total
            return new - total
        # Commit point.
        self._members.cut(slot, events.publish(slot, new))
        if self._replica.ledger.totals[slot] < new:
            return 0
        log.counts[log.cell] = new
        return new - total

    def settle(self, total: int) -> int:
        """Somebody wants to know how far our log has got, and may have looked before our last store: the journal
        decides.  ``total``: what our counter says.  Returns how much of that is put."""
        replica, slot = self._replica, self.slot
        assert slot is not None
        replica.sync()
        if replica.ledger.totals[slot] >= total:
            kept = total
        else:
            own = replica.ledger.res.get(slot)
            data = b""
            if own is not None and not own.cut:
                data = events.trim(slot, min(max(0, total - own.begin), events.RESERVE_MOST), own.grant)
            # What can't be cut now never will be: its numbers are not used again.
            former = replica.append_one(data + events.cut(slot, total) + events.skip(slot, total))
            kept = former if isinstance(former, int) else total
        if replica.ledger.shutting and not replica.ledger.shut:
            self.help_to_shut()
        self._limit()
        return kept

    def _limit(self) -> None:
        """Let puts that ask nobody go as far as they may by now."""
        assert self.slot is not None
        log = self.log
        ledger = self._replica.ledger
        short = self._members.counting and not ledger.shutting and self.protected is _as_they_are
        if log.batch is None or not short or tuning.CHECK_ALL:
            log.stop = 0
        else:
            log.stop = min(ledger.stop_of(self.slot), log.first + self.batch_size)

    def cut(self) -> None:
        """Cut all logs, ours last."""
        self._members.cut(-1 if self.slot is None else self.slot)

    # -- places

    def _has_places(self, count: int) -> bool:
        """Our reservation has so many places left, if need be a new one.  ``False``: it must be asked for each."""
        replica, slot, log = self._replica, self.slot, self.log
        assert slot is not None
        total = self._position()
        own = replica.ledger.res.get(slot)
        if own is not None and not own.cut and total + count <= own.stop:
            return True
        replica.sync()
        ledger = replica.ledger
        own = ledger.res.get(slot)
        unused = max(0, own.stop - total) if own is not None else 0
        places = min(self._places, ledger.maxsize - ledger.used + unused)
        if (
            not (self._members.counting and tuning.RESERVATIONS)
            or slot not in ledger.files
            or places < max(tuning.PLACES_LEAST, 2 * count)
            or log.batch is None
        ):
            return False
        waiting.register_for_barrier()
        # Whoever wants the former one to end, and has raised the flag, must not end it later: nobody would see that.
        end = b""
        if own is not None and not own.cut:
            end = events.trim(slot, min(max(0, total - own.begin), events.RESERVE_MOST), own.grant)
        # Before the event: whoever wants this new reservation to end raises it after.
        log.counts[log.flag] = 0
        granted = replica.append_one(end + events.cut(slot, total) + events.reserve(slot, places))
        self._limit()
        return granted is not None

    def _may_cut(self, count: int) -> bool:
        """As far as we know there are places for so many records, though we have none reserved."""
        assert self.slot is not None
        ledger = self._replica.ledger
        former = ledger.totals[self.slot]
        own = ledger.res.get(self.slot)
        beyond = self._position() + count - (max(own.stop, former) if own is not None else former)
        return ledger.used + max(0, beyond) <= ledger.maxsize

    def trim(self, slot: int) -> bool:
        """End another's reservation.  ``False``: there is nothing to end."""
        replica, members = self._replica, self._members
        own = replica.ledger.res.get(slot)
        if own is None or own.cut or own.stop <= replica.ledger.totals[slot]:
            return False
        if slot == self.slot:
            if own.stop <= self._position():
                return False
            used = self._position() - own.begin
        elif members.bury(slot):
            return True
        elif own.stop - own.begin > events.RESERVE_MOST:
            return False
        else:
            members.raise_flag(words_of.FLAG, slot)
            waiting.barrier()
            used = members.word(words_of.COUNTER, slot) - own.begin
        replica.append(events.trim(slot, min(max(0, used), events.RESERVE_MOST), own.grant))
        if slot == self.slot:
            self._limit()
        return True

    # -- batch files

    def _open_for(self, records: Sequence[NewRecord]) -> None:
        """Go on in a new batch file, with room for the first of these records; of a bounded queue for all of them."""
        slot = self.slot
        assert slot is not None
        wanted = records if self._replica.ledger.maxsize else records[:1]
        size = sum(map(len, wanted)) + self._beside * len(wanted)
        large = size >= tuning.BLOCK_BYTES
        spill = self._folder.wants_spill()
        try:
            batch = self._create(size, len(wanted), large, spill)
        except OSError as error:
            if error.errno not in NO_SPACE or spill or not self._may_spill():
                raise
            batch = self._create(size, len(wanted), large, True)
        former = self.log.batch
        # The file begins behind what is cut by then: nothing of the log may be left between.
        self._replica.append(self._members.end_of_log(slot) + events.open_(slot, batch.file.serial))
        filling = self._replica.ledger.files[slot]
        self.log = Log(self._members.cells.words, slot, batch, filling.first, 0)
        self._limit()
        if former is not None:
            self._folder.seal_batch(former.file)
        self._reclaimer.reclaim_done()

    def _may_spill(self) -> bool:
        return self._folder.anonymous and spill_root(self._folder.path) is not None

    def _create(self, size: int, count: int, large: bool, spill: bool) -> BatchFile:
        assert self.slot is not None
        most = tuning.LARGE_FILE_BYTES if large else tuning.FILE_BYTES
        room = self._folder.room()
        usual = max(FIRST_BYTES, min(self._next, most, room // tuning.SHARES))
        records = max(count, 1 if large else usual // SMALL_RECORD)
        scale = max(0, min(index.SCALES - 1, (max(1, records) - 1).bit_length() - 8))
        number = self._members.slots[self.slot]
        while True:
            self._count += 1
            serial = index.serial(self._count, scale, spill, large, tuning.CHECK_ALL)
            needed = index.data_begin(serial) + size
            length = max(usual, (needed + _PAGE - 1) // _PAGE * _PAGE)
            with contextlib.suppress(FileExistsError):  # left by a frame that a fork in a signal handler has copied
                batch = self._folder.create_log(FileId(number, serial), length)
                self._next = 2 * usual
                return batch

    # -- leaving

    def leave(self) -> None:
        """Be no producer any more."""
        log, self.log = self.log, NO_LOG
        slot, self.slot = self.slot, None
        if slot is not None:
            self._members.leave(slot)
        if log.batch is not None:
            self._folder.seal_batch(log.batch.file)

    def recover(self) -> None:
        """An act was interrupted: see how far the log has got."""
        if self.slot is None:
            return
        log = self.log
        total = self._position()
        if log.counts[log.cell] < total and log.batch is not None:
            log.counts[log.cell] = total
        self._limit()


def _as_they_are(file: FileId, number: int, records: Sequence[NewRecord]) -> Sequence[NewRecord]:
    if not tuning.CHECK_ALL:
        return records
    return [_checked(file, at, record) for at, record in enumerate(records, number)]


def _checked(file: FileId, number: int, record: NewRecord) -> NewRecord:
    data = b"".join(record.parts) if isinstance(record, Pieces) else bytes(record)
    return data + index.check(data, file, number)
