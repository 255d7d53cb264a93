"""The engine's producer: bursts, reservations, batch files.

Lives here: when records are published, and in which file; the flusher.  Not here: pickling (``queues``).

Invariant: a record whose put has returned is published, or held back and published within about a millisecond, at the
latest when the process exits.
"""

from __future__ import annotations

import _thread
import contextlib
import enum
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from itertools import repeat
from operator import getitem, setitem
from typing import ClassVar, Optional

from . import blocks, events, locks, tuning, waiting
from .blocks import NewRecord, Record
from .claiming import Claiming
from .clock import monotonic
from .core import NO_BURST, Core, looked
from .errors import FolderError
from .folder import NO_SPACE, spill_root
from .ledger import SHUT_AT_ONCE, Reservation
from .names import FileId
from .waiting import Cells
from .weak import alive

__all__ = ["Putting"]


class Putting(Claiming):
    """An engine that can put items."""

    def put(self, record: NewRecord, block: bool, timeout: Optional[float]) -> bool:
        """Put one record.  ``False``: the queue was full all the time."""
        if self._stands_above_itself():
            return self._put_later([record]) == 1
        if self._later:
            self._await_later()
        generation = self.generation
        try:
            with self._lock:
                self._close_burst()
                if self._unsure:
                    self._recover()
                alone = not self.records and not self.maxsize
                if alone and self._is_first() and self._publish_one(record):
                    return True
                if not self.maxsize or self._take_places(1):
                    self.records.append(record)
                    return not self._publish_if_due([record])
            return self._put_waiting(partial(self._accept, [record]), block, timeout)
        except (OSError, ValueError):
            if generation == self.generation:
                raise
            return True  # forked in the middle: the parent puts it

    def put_again(self, record: NewRecord, block: bool, timeout: Optional[float]) -> bool:
        """The burst that was to take this record was closed in that moment: it may have lost its place."""
        if self._stands_above_itself():
            return True  # It is held back with others, and published with them.
        with self._lock:
            at = next((at for at, held in enumerate(self.records) if held is record), None)
            if at is None:  # It has been published.
                return True
            del self.records[at]
            self._bytes = self._weighed = 0
        return self.put(record, block, timeout)

    def put_many(self, records: list[NewRecord], block: bool, timeout: Optional[float]) -> int:
        """Put records, all or none where they fit into the queue at all; returns how many were put."""
        if self._stands_above_itself():
            return self._put_later(records)
        if self._later:
            self._await_later()
        return self._put_many_now(records, block, timeout)

    def _put_many_now(self, records: list[NewRecord], block: bool, timeout: Optional[float]) -> int:
        """``put_many``, not after what handlers have put: it may be that."""
        generation = self.generation
        try:
            return self._put_many(records, block, timeout)
        except (OSError, ValueError):
            if generation == self.generation:
                raise
            return len(records)  # forked in the middle: the parent puts them

    def _put_many(self, records: list[NewRecord], block: bool, timeout: Optional[float]) -> int:
        if not self.maxsize or len(records) <= self._granted - self._used:
            with self._lock:
                self._begin()
                self._close_burst()
                if len(records) >= self.batch_size:
                    self._publish()
                if not self.maxsize or self._take_places(len(records)):
                    self.records += records
                    dropped = self._publish_if_due(records)
                    self._act_ends()
                    return len(records) - dropped
                self._act_ends()
        if len(records) > self.maxsize and not block:
            return 0
        put = 0
        deadline = None if timeout is None else monotonic() + timeout
        size = len(records) if len(records) <= self.maxsize else max(1, self.maxsize // 4)
        while put < len(records):
            piece = records[put : put + size]
            left = None if deadline is None else deadline - monotonic()
            if not self._put_waiting(partial(self._accept, piece), block, left, len(piece)):
                break
            put += len(piece)
        return put

    def _put_later(self, records: list[NewRecord]) -> int:
        looked[0] += 1  # The next put does not go the short way: it comes after these.
        self._do_later(lambda block: self._put_many_now(records, block, None))
        return len(records)

    def _await_later(self) -> None:
        """What a handler has put comes before what is put after it."""
        until = monotonic() + tuning.FLUSH_PATIENCE
        while self._later and monotonic() < until:
            time.sleep(tuning.FLUSH_LOOK)

    def _do_later(self, act: Callable[[bool], object]) -> None:
        """Leave it to a thread, which does it once the act that this has interrupted is over."""
        self._later.append(act)
        if not self._later_turn.locked():  # else there is one, which looks again before it ends
            with contextlib.suppress(RuntimeError):  # at exit no thread can be started: ``end_bursts`` does it
                _thread.start_new_thread(self._do_what_was_left, (True,))

    def _do_what_was_left(self, block: bool) -> None:
        turn = self._later_turn
        while self._later and turn.acquire(timeout=0 if block else tuning.FLUSH_PATIENCE):
            try:
                while self._later:
                    self._later[0](block)
                    del self._later[:1]
            finally:
                turn.release()

    def _put_waiting(self, attempt: Callable[[], bool], block: bool, timeout: Optional[float], places: int = 1) -> bool:
        deadline: Optional[float] = None
        patient = block and (timeout is None or timeout > tuning.LINGER)
        while True:
            with self._lock:
                self._begin()
                self._close_burst()
                try:
                    # The grants of others end by themselves, most within a moment: at first they are left alone.
                    accepted = (not patient or self._worth_it()) and attempt()
                    if not accepted and not patient:
                        accepted = self._make_room() and attempt()
                except OSError as error:
                    # Where there is no space, nothing has happened.
                    self._act_ends(error.errno in NO_SPACE)
                    raise
                self._act_ends()
            if accepted:
                return True
            if not block or self.ledger.shut:
                return False
            if timeout is not None:
                if deadline is None:
                    deadline = monotonic() + timeout
                if monotonic() >= deadline:
                    return False
            patient = False
            self._full_at = monotonic()
            self._wait(waiting.AWAITS_PLACE, deadline, places)

    def _worth_it(self) -> bool:
        """Enough places are free again for a block of some size, or the queue has not been full lately.

        Whoever takes each place as it comes free writes many small blocks, all of which everybody has to read."""
        if monotonic() - self._full_at > tuning.FULL_LATELY:
            return True
        self._publish()
        self._sync()
        return self.ledger.used + self._enough <= self.maxsize

    def _publish_if_due(self, new: list[NewRecord]) -> int:
        """Publish the newest records now, or leave them for the next block of their burst.  Returns how many were not
        put, for the queue was shut down."""
        if self._is_due() or (self.maxsize and self._used >= self._granted):
            self._unsure = True
            try:
                return self._publish_surely(len(new))
            except OSError:
                # Their put fails; those whose puts have returned stay for the next try.
                if self.records and self.records[-1] is new[-1]:
                    self._hold_back(self.records[: -len(new)])
                raise
        return 0

    def _is_first(self) -> bool:
        """What comes now is not of a burst."""
        return looked[0] != self.looked_then or monotonic() - self._published_at > tuning.LINGER

    def _is_due(self) -> bool:
        """What is held back must be published now."""
        if looked[0] != self.looked_then:
            self.looked_then = looked[0]
            self._gap = tuning.GAP_FIRST
            return True
        self._weigh()
        count = len(self.records)
        if count >= self.batch_size or self._bytes >= tuning.BLOCK_BYTES or not tuning.BURSTS or Core.exiting:
            return True
        if self.ledger.shut:
            return True
        now = monotonic()
        past = now - self._published_at
        if past > self._gap and (past > tuning.LINGER or self.cells.anybody(waiting.SLEEPS)):
            self._gap = min(tuning.GAP_LAST, self._gap * 1.5) if count > 8 else tuning.GAP_FIRST
            return True
        if not self._flusher_busy:
            self._start_flusher()
            if Core.exiting:
                return True
        if tuning.SHORT_WAYS:
            # So many as are put until it is worth looking again.
            passed = now - self._opened_at
            pace = passed / max(1, count - self._opened_with) if passed < tuning.LINGER else tuning.GAP_FIRST
            spare = min(
                self.batch_size - count - 1,
                (tuning.BLOCK_BYTES - self._bytes) // tuning.SMALL - 1,
                int(tuning.GAP_FIRST / pace) if pace else tuning.BLOCK_RECORDS,
            )
            self._opened_at, self._opened_with = now, count
            if self.maxsize:
                spare = min(spare, self._granted - self._used - 1)
            if spare > 0:
                self._open_burst(spare)
        return False

    def _open_burst(self, count: int) -> None:
        """Let ``burst`` take so many records."""
        self._tickets = tickets = [0] * count
        if self.maxsize:
            words, used = repeat(self._words), self._used + 1
            stores: Iterator[None] = map(setitem, words, repeat(self._used_cell), range(used, used + count))  # type: ignore[arg-type]
            self.burst = zip(tickets, stores, map(getitem, words, repeat(self._used_flag)))
        else:
            self.burst = zip(tickets, repeat(None), repeat(0))

    def _close_burst(self) -> None:
        """No record is held back any more without the lock."""
        if self.burst is not NO_BURST:
            self._tickets.clear()
            if self.maxsize:
                self._used = len(self.records)
            self.burst = NO_BURST  # Last: if this is interrupted, the next call does the same.

    def _hold_back(self, records: list[NewRecord]) -> None:
        """Have these records to publish, and no others."""
        self._bytes = self._weighed = 0
        self.records[:] = records

    def _weigh(self) -> None:
        new = self.records[self._weighed :] if self._weighed else self.records
        self._bytes += sum(map(len, new))
        self._weighed += len(new)

    def _accept(self, records: list[NewRecord]) -> bool:
        """Take records of a bounded queue, for which no places have been reserved, if there are places for them all."""
        self._publish()
        ledger = self.ledger
        count = len(records)
        if ledger.used + max(self._places, count) > self.maxsize:
            self._sync()
            ledger = self.ledger
        places = min(self._places, self.maxsize - ledger.used)
        if (
            tuning.RESERVATIONS
            and tuning.BURSTS
            and not Core.exiting
            and not self.durable
            and places >= max(tuning.PLACES_LEAST, 2 * count)
            and count < self.batch_size
            # A large one is a block, and may change once its put has returned.
            and sum(map(len, records)) < tuning.BLOCK_BYTES
            and looked[0] == self.looked_then
            # In a burst, or with more ahead of these records than is taken until they are published.
            and (monotonic() - self._published_at < tuning.LINGER or ledger.tail - ledger.head >= self._places)
            and waiting.barrier_works()
            and self._reserve(places)
            and self._take_places(count)
        ):
            self.records += records
            if not self._flusher_busy:
                self._start_flusher()
            return True
        self.looked_then = looked[0]
        if ledger.used + count > self.maxsize:
            return False
        if count == 1:
            put = self._publish_one(records[0])
            return self._publish_block(records) if put is None else put
        pieces = list(_pieces(records))
        if len(pieces) > 1:
            self._open_file_for(0)
            if self._append(events.reserve(self._slot(), count)) is None:
                return False
        return all(self._publish_block(piece, more=number < len(pieces)) for number, piece in enumerate(pieces, 1))

    # -- reservations

    def _reserve(self, places: int) -> bool:
        self._open_file_for(0)
        slot = self._slot()
        words = self._words
        waiting.register_for_barrier()
        self._used_cell = Cells.place(waiting.USED, slot)
        self._used_flag = Cells.place(waiting.USED_FLAG, slot)
        words[self._used_cell] = words[self._used_flag] = 0
        granted = self._append(events.reserve(slot, places), ours=True)
        if not isinstance(granted, Reservation):
            return False
        self._granted, self._used, self._grant = granted.places, 0, granted.grant
        return True

    def _take_places(self, count: int) -> bool:
        """Use so many places of our reservation.  ``False``: it has fewer, or somebody has cut it down meanwhile."""
        used = self._used + count
        if used > self._granted:
            return False
        words = self._words
        words[self._used_cell] = used
        if words[self._used_flag]:
            slot = self._slot()
            unsure, self._unsure = self._unsure, True
            self._append(events.trim(slot, used, self._grant))
            kept = self.ledger.res[slot].places
            self._act_ends(not unsure)
            self._granted = kept
            if used > kept:
                return False
        self._used = used
        return True

    def _make_room(self) -> bool:
        """The queue looks full: end the grants that may hide a place.  ``True``: look again."""
        ledger = self.ledger
        changed = False
        if ledger.lease is not None:
            if self._holds(ledger.lease):
                self._end_lease()
            else:
                self._revoke(ledger.lease)
            changed = True
        self._map_all_cells()
        words = self._words
        for slot, granted in list(self.ledger.res.items()):
            if slot == self._producer:
                if not self.records:  # of an act of ours that was interrupted: given back by a block of no items
                    self._append(events.publish(slot, 0, 0))
                    self._granted = self._used = 0
                    changed = True
                continue
            if granted.cut or granted.places > events.RESERVE_MOST:
                continue
            if self.ledger.res.get(slot) == granted:
                changed = True
                if self._bury(slot):
                    continue
                words[Cells.place(waiting.USED_FLAG, slot)] = 1
                waiting.barrier()
                used = words[Cells.place(waiting.USED, slot)]
                self._append(events.trim(slot, min(used, events.RESERVE_MOST), granted.grant))
        if not changed and monotonic() - self._scanned > tuning.SCAN_EVERY:
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

    def _publish(self, new: int = 0) -> int:
        """Publish the records that are held back.  Where the queue was shut down before, the last ``new`` of them,
        whose puts have not returned yet, are dropped instead; returns how many were."""
        self._close_burst()
        if self.folder.fd < 0:  # the end of the program, and nobody else uses the queue
            self._hold_back([])
        while self.records:
            records = self.records[:]
            piece = records if len(records) == 1 else next(_pieces(records))
            if not self._publish_block(piece, held=True):
                if self.ledger.shut:
                    return self._publish_late(new)
                self._publishing = None  # A record among them waits for its place in ``put_again``.
                break
            self._drop_published(len(piece))
        return 0

    def _begins_with(self, record: NewRecord) -> bool:
        """That one is the oldest of those held back."""
        return any(first is record for first in self.records[:1])

    def _drop_published(self, count: int) -> None:
        self._bytes = self._weighed = 0
        del self.records[:count]
        self._publishing = None

    def _publish_late(self, new: int) -> int:
        """``_publish`` where the queue was shut down; if at once, all that is held back is dropped."""
        self._publishing = None
        dropped = min(new, len(self.records))
        self._hold_back(self.records[: len(self.records) - dropped])
        while self.records:
            if self.ledger.shut == SHUT_AT_ONCE:
                self._hold_back([])
                break
            piece = next(_pieces(self.records[:]))
            if self._publish_block(piece, held=True, late=True):
                self._drop_published(len(piece))
            elif self.ledger.shut != SHUT_AT_ONCE:
                raise FolderError(
                    self.folder.path, "places that were reserved are gone", "report this: it can't happen"
                )
        return dropped

    def _publish_surely(self, new: int = 0) -> int:
        """``_publish`` at the end of an act: where there is no space, nothing has happened, and nothing is unsure."""
        try:
            dropped = self._publish(new)
        except OSError as error:
            self._act_ends(error.errno in NO_SPACE)
            raise
        self._unsure = False  # as _act_ends does
        if self._stale:
            self._unsure = True
        return dropped

    def _publish_if_possible(self) -> None:
        """Publish what is held back, unless the disk is full: that must not keep this process from draining it."""
        try:
            self._publish()
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise

    def _publish_block(
        self, records: list[NewRecord], more: bool = False, held: bool = False, late: bool = False
    ) -> bool:
        """Write records to our batch file, then the event.  ``False``: there is no place for them.

        ``more``: our reservation is for other blocks, too.  ``held``: they are the first of those held back.  ``late``:
        the queue was shut down after their puts had returned."""
        count = len(records)
        size = sum(map(len, records)) + self.tag
        slot = self._slot()
        units = 0 if size >= blocks.GIANT else blocks.units(count, size)
        self._open_file_for(units * events.UNIT or tuning.LARGE_FILE_BYTES, bool(units) and size >= tuning.BLOCK_BYTES)
        self._write(records, giant=not units)
        self._publishing = (records[0], count, self._offset) if held else None
        # Commit point: from here on the items are in the queue.
        first = self._append(
            events.publish_late(slot, count, units) if late else events.publish(slot, count, units, more), ours=True
        )
        if first is None:
            return False
        self._offset += units or tuning.LARGE_FILE_BYTES
        if self._granted - self._used >= self._enough and self.cells.anybody(waiting.AWAITS_PLACE):
            self._ring(waiting.AWAITS_PLACE)  # places that we had reserved are free again
        self._granted = self._used = 0
        self._hint += 1
        self._words[waiting.PUBLISHED] = self._hint
        self._map_all_cells()
        if self.cells.anybody(waiting.SLEEPS):
            self._ring_for_items()
        self._head_then = self._delivered()
        if self._wants_space_aside():
            self._set_space_aside()
        # Only now: whoever was rung for may have taken the processor, and that time must not end our burst.
        self._published_at = monotonic()
        return True

    def _publish_one(self, record: NewRecord) -> Optional[bool]:
        """The short way of ``_publish_block`` for one small record.  ``False``: there is no place for it.

        ``None``: something is not as it mostly is.  Nothing has happened, and the long way knows what to do."""
        ledger, journal, file, offset = self.ledger, self.journal, self._file, self._offset
        if (
            len(record) > blocks.CHECKED
            or type(record) is not bytes
            or file is None
            or offset * events.UNIT + len(record) + 16 > self._seal_at
            or ledger.index >= ledger.limit
            or ledger.shut
            or self._granted
            or len(ledger.members) + len(ledger.free) > self.cells.slots
        ):
            return None
        data = blocks.single(record, blocks.seed(file, offset))
        try:
            self.folder.write_at(self._file_fd, data, offset * events.UNIT)
        except OSError:  # most likely the disk is full
            return None
        units = len(data) // events.UNIT
        event = self._publish_word | units << 40
        pos = self._pos
        self._unsure = True
        # Commit point: from here on the item is in the queue.
        journal.write(event.to_bytes(8, "little"))
        self._hint += 1
        self._words[waiting.PUBLISHED] = self._hint
        end = journal.end_of(event, pos)
        if end - 8 != pos:
            self._apply_before(end)
            journal.map(ledger.limit)  # whoever puts between others' events passes them more cheaply so
        self._pos = end
        if ledger.step(event) is None:
            self._act_ends()
            return None if ledger.shut or ledger.index > ledger.limit else False
        self._offset = offset + units
        if self.cells.anybody(waiting.SLEEPS):
            self._ring_for_items()
        self._head_then = self._delivered()
        if end > self._half or self._wants_space_aside():
            self._set_space_aside()
        self.looked_then = looked[0]
        self._gap = tuning.GAP_FIRST
        self._published_at = monotonic()
        self._unsure = False  # as _act_ends does
        if self._stale:
            self._unsure = True
        return True

    def _wants_space_aside(self) -> bool:
        ledger = self.ledger
        return ledger.tail - ledger.head > self._set_aside and self._set_aside < 2 * ledger.last_limit

    def _write(self, records: list[NewRecord], giant: bool) -> None:
        try:
            self._write_block(records, giant)
        except OSError as error:
            if error.errno in NO_SPACE and self.folder.remove_free():
                self._write(records, giant)
                return
            # Else the file is kept: what was written to it counts for nothing, and is written over by the next block.
            if self._file is None or self._file.spilled or not self._may_spill(error):
                raise
            self._open_file(spill=True)
            self._write_block(records, giant)

    def _write_block(self, records: list[NewRecord], giant: bool) -> None:
        parts = self._lay_out(records, giant)
        offset = self._offset * events.UNIT
        memory = self._file_memory
        if memory is not None and self.folder.store(self._file_fd, memory, parts, offset):
            return
        if len(parts) == 1:
            self.folder.write_at(self._file_fd, parts[0], offset)
        elif sum(map(len, parts)) < tuning.BLOCK_BYTES or len(parts) > tuning.PARTS:
            self.folder.write_at(self._file_fd, b"".join(parts), offset)
        else:
            self.folder.write_parts(self._file_fd, parts, offset)

    def _lay_out(self, records: list[NewRecord], giant: bool) -> list[Record]:
        """The bytes of a block, in pieces."""
        assert self._file is not None
        seed = blocks.seed(self._file, self._offset)
        return blocks.join_giant(records[0], seed) if giant else blocks.lay_out(records, seed, tuning.CHECK_ALL)

    def _may_spill(self, error: OSError) -> bool:
        return error.errno in NO_SPACE and self.folder.anonymous and spill_root(self.folder.path) is not None

    def _open_file_for(self, size: int, large: bool = False) -> None:
        """Have a batch file with room for so many bytes more: a file always has room for its first block."""
        at = self._offset * events.UNIT
        file = self._file
        if file is None or (at and at + size > self._seal_at) or self._fills_disk(file):
            spill = self.folder.wants_spill()
            if spill or size >= tuning.BLOCK_BYTES:
                self._set_space_aside()  # The disk may be full long before this journal is at its half.
            self._open_file(spill, size if large else 0)

    def _fills_disk(self, file: FileId) -> bool:
        """What is left of a small disk is wanted for journals: of many producers each has such a file that grows."""
        small = self._seal_at < tuning.LARGE_FILE_BYTES
        return file.large and not file.spilled and small and self.folder.wants_spill()

    def _open_file(self, spill: bool, large: int = 0) -> None:
        """Begin a new batch file.  The former one is sealed.  ``large``: bytes of the large block that comes first."""
        generation = self.generation
        slot = self._slot()
        former = self._file
        try:
            file, fd = self._create_file(spill, large)
        except OSError as error:
            if spill or not self._may_spill(error):
                raise
            file, fd = self._create_file(True, 0)
        try:
            self._append(events.open_(slot, file.serial))
        except OSError:
            if not self._stale:
                os.close(fd)
                self.folder.remove_batch(file)
            raise
        self._drop_file()
        self._file, self._file_fd, self._offset = file, fd, 0
        if file.large and not file.spilled and self._maps_files():
            mapping = self._mappings.of(fd)
            self._file_memory = None if mapping is None else mapping.memory()
        self._check_frame(generation)
        if former is not None:
            self.folder.seal_batch(former)
        # Of many producers none has a file that would fill the disk before it is found to be nearly full.
        share = self.folder.room() // tuning.SHARES if file.large else 0
        self._seal_at = max(tuning.FILE_BYTES, min(tuning.LARGE_FILE_BYTES, share))
        self._reclaim_done()

    def _create_file(self, spill: bool, large: int) -> tuple[FileId, int]:
        while True:
            self._serial += 1
            file = FileId(self._producer_number, self._serial << 2 | (large > 0) << 1 | spill)
            if large and tuning.REFILLING and not spill:
                fd = self._refill(file, large)
                if fd is not None:
                    return file, fd
            with contextlib.suppress(FileExistsError):  # left by a frame that a fork in a signal handler has copied
                return file, self.folder.create_batch(file)

    def _refill(self, file: FileId, size: int) -> Optional[int]:
        """A file of ours that is done, to be filled again, at first with so many bytes.  ``None``: there is none.

        Where whoever gets keeps up with us, and the last one came back and is mapped, we wait for it: 4 MB of new pages
        take 2.5 ms to fill, mapped ones 0.4 ms, and where few files take turns they stay in the processor's cache."""
        put, got = self.ledger.tail, self._delivered()
        keeps_up = self._consumer is None and 2 * (got - self._got_then) >= put - self._put_then
        self._put_then, self._got_then = put, got
        waits = keeps_up and self._files_return and self._file_memory is not None
        until = monotonic() + tuning.REFILL_PATIENCE * max(size, tuning.LARGE_FILE_BYTES) if waits else 0.0
        while True:
            fd = self.folder.refill_batch(file)
            self._files_return = fd is not None
            if fd is not None or monotonic() > until:
                return fd
            time.sleep(tuning.REFILL_LOOK)
            self._sync()
            self._reclaim_done()

    # -- the flusher

    def _start_flusher(self) -> None:
        generation = self.generation
        try:
            self._flusher_busy = True
            if self._producer is not None:
                self._words[Cells.place(waiting.HOLDS, self._producer)] = 1
            flusher = self._flusher
            if flusher is not None and flusher.generation == generation:
                flusher.wake.release()
                return
            lock = locks.Marked(self._lock, self._flusher_has)
            flusher = self._flusher = Flusher(weakref.ref(self), self.flusher_holds, lock, generation)
            Flusher.running_here.add(flusher)
            # Not ``Thread.start``: it waits for the thread, in vain if this frame is copied by a fork just then.
            _thread.start_new_thread(flusher.run, ())
        except BaseException as error:
            # Whatever was started or woken finds that it is not wanted; the next put starts another.
            self._flusher, self._flusher_busy = None, False
            if not isinstance(error, RuntimeError):
                raise
            Core.exiting = True  # at exit no thread can be started

    def _stop_flusher(self) -> None:
        flusher, self._flusher = self._flusher, None
        if flusher is not None and not self._flusher_busy:
            flusher.wake.release()
        self.rest()

    def end_bursts(self) -> None:
        """The process ends: publish what is held back, and let the flusher end.  Puts to come publish themselves."""
        if self._later:
            self._do_what_was_left(False)
        with self._lock:
            try:
                self.flush_held()
            finally:
                if not self.closed:
                    self._stop_flusher()

    def rest(self) -> None:
        """Nothing is held back any more."""
        self._flusher_busy = False
        self._close_burst()
        if self._producer is not None and not self._stale:
            self._words[Cells.place(waiting.HOLDS, self._producer)] = 0

    def flush(self) -> None:
        """Publish what is held back."""
        if self._stands_above_itself():
            return  # The act that this has interrupted does it, or the flusher.
        with self._lock:
            self.flush_held()

    def flush_held(self) -> None:
        """The same, with the lock held."""
        if not self.closed and (self.records or self._unsure):
            self._begin()
            self._publish_surely()

    def await_flush(self) -> None:
        """``flush``, left to the flusher where it comes to it in time.

        A signal handler that interrupts this may use the queue: its lock is not to be held then."""
        first = self.records[:1]
        until = monotonic() + tuning.FLUSH_PATIENCE
        while first and self._begins_with(first[0]):
            if Core.exiting or monotonic() > until:
                self.flush()
                return
            time.sleep(tuning.FLUSH_LOOK)

    def _hurry_elsewhere(self) -> None:
        for flusher in alive(Flusher.running_here) if Flusher.running_here else ():
            engine = flusher.engine()
            # Left to its flusher: a signal handler that interrupts this may use that queue.
            if engine is not None and engine is not self and engine.records and flusher.hurry.locked():
                with contextlib.suppress(RuntimeError):  # another thread was faster
                    flusher.hurry.release()

    def before_fork(self) -> None:
        """Publish, and end the flusher: a process with threads should not fork."""
        flusher = self._flusher
        if flusher is None:
            return
        if not locks.is_free(self._lock, tuning.FORK_PATIENCE):
            return  # An act is under way below this very frame, a signal handler's: it goes on with its flusher.
        with self._lock:
            if self.closed:
                return
            self._begin()
            self._publish()
            self._act_ends()
            self._stop_flusher()
        flusher.running.acquire(timeout=0.02)


def _pieces(records: list[NewRecord]) -> Iterator[list[NewRecord]]:
    """Records in the pieces in which they can be published: so many or so large that one event can say it."""
    most = blocks.GIANT - blocks.TAG
    if len(records) <= events.PUBLISH_MOST and sum(map(len, records)) + 4 * len(records) < most:
        yield records
        return
    start = size = 0
    for at, record in enumerate(records):
        size += len(record) + 4
        if at > start and (at - start >= events.PUBLISH_MOST or size >= most):
            yield records[start:at]
            start, size = at, len(record) + 4
    yield records[start:]


class _State(enum.Enum):
    """What a flusher found."""

    BUSY = enum.auto()
    IDLE = enum.auto()
    DISMISSED = enum.auto()


class Flusher:
    """A thread that publishes the end of each burst.  It holds its engine only while there is something to do."""

    running_here: ClassVar[weakref.WeakSet[Flusher]] = weakref.WeakSet()
    """Those of this process: the thread is the last that refers to one, and runs no Python code after that."""

    def __init__(
        self, engine: weakref.ref[Putting], holding: threading.Lock, lock: locks.Marked, generation: int
    ) -> None:
        """``holding``: locked while this thread may be the last that refers to the engine, and so closes it; ``lock``:
        the engine's; ``generation``: its generation, for a fork while this is started leaves the child one with its
        parent's lock."""
        self.engine = engine
        self.holding = holding
        self.lock = lock
        self.generation = generation
        self.running = threading.Lock()
        """Locked until the thread ends."""
        self.wake = threading.Lock()
        """Locked, but for the moment when it wakes from its rest."""
        self.hurry = threading.Lock()
        """Locked, unless the end of a burst is to be published now."""
        self.running.acquire()
        self.wake.acquire()
        self.hurry.acquire()

    def run(self) -> None:
        try:
            wanted = True
            while wanted:
                self.hurry.acquire(timeout=tuning.LINGER)
                with self.holding:
                    state = self._flush()
                if state is _State.IDLE:
                    rested = not self.wake.acquire(timeout=tuning.FLUSHER_REST)
                    with self.holding:
                        wanted = self._resume(rested)
                else:
                    wanted = state is _State.BUSY
        finally:
            self.running.release()

    def _flush(self) -> _State:
        """Publish what was put meanwhile."""
        engine = self.engine()
        if engine is None or engine._flusher is not self or engine.generation != self.generation:
            return _State.DISMISSED
        if engine.records:
            with contextlib.suppress(OSError), self.lock:  # the disk is full: put will say so, and this tries again
                engine.flush_held()
            return _State.BUSY
        with self.lock:
            if engine._flusher is not self:
                return _State.DISMISSED
            if engine.records:
                return _State.BUSY
            engine.rest()
            return _State.IDLE

    def _resume(self, rested: bool) -> bool:
        """After a rest, or woken from it.  ``False``: it is not wanted any more."""
        engine = self.engine()
        if engine is None:
            return False
        with self.lock:
            if engine._flusher is not self:
                return False
            if rested and not engine._flusher_busy:
                engine._flusher = None
                return False
            if rested:  # woken just now
                self.wake.acquire(False)
            return True
