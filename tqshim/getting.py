"""The engine's consumer: claims and leases.

Lives here: taking items from the journal and reading them.  Not here: unpickling (``queues``).

Invariant: the store to ``_state`` is what makes items delivered.  An exception before it leaves them to the journal,
an exception after it leaves them with the caller.
"""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import repeat
from operator import getitem, setitem
from typing import Optional

from . import blocks, events, tuning, waiting
from .blocks import Record
from .clock import monotonic
from .core import LEASED, NO_STEPS, Handed, Taken, looked
from .errors import CorruptBatchError
from .extents import Block, Run
from .folder import RecordInFile
from .ledger import NEAR_BOUND, OPEN_FOR_ALL, SHUT, Lease
from .sleeping import Sleeping
from .waiting import Cells

__all__ = ["Getting"]


class Getting(Sleeping):
    """An engine that can take items."""

    def get(self, got: list[Taken], most: int, block: bool, timeout: Optional[float]) -> int:
        """Append to ``got`` what is there, ``most`` records or fewer; nothing: the queue was empty all the time.
        Returns the generation whose they are: a later one, of a forked child, does not own them.

        If this raises, what ``got`` holds has been taken, and what it does not hold has not."""
        if (not block or timeout is not None) and self._stands_above_itself():
            self._sleep_above_itself(block, timeout)
            return self.generation
        deadline: Optional[float] = None
        looked_again = False
        polite_until = 0.0
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
                    polite = block and (timeout is None or timeout > tuning.LINGER)
                    if polite_until and monotonic() > polite_until:
                        polite = False
                    self._take(got, most, polite)
                    self._unsure = False  # as _act_ends does
                    if self._stale:
                        self._unsure = True
            except BaseException as error:
                if self._state is state:
                    got.clear()  # The journal knows whose they are, and the next act asks it.
                if generation == self.generation or not isinstance(error, (OSError, ValueError)):
                    raise
            if generation != self.generation:  # forked in the middle: what was got is the parent's
                got.clear()
                continue
            if got:
                return generation
            late = None
            if self.ledger.shut and not self._count_waiting():
                late = self._late_until()
                if late is None:
                    if looked_again:
                        self.over = True
                        return generation
                    looked_again = True  # What was held back was published before its cell was cleared.
                    continue
            if not block:
                return generation
            if timeout is not None:
                if deadline is None:
                    deadline = monotonic() + timeout
                if monotonic() >= deadline:
                    return generation
            try:
                polite = polite and self._leased_by_another()
                if polite and not polite_until:
                    polite_until = monotonic() + tuning.NAP * self.ledger.consumers
                until = deadline if late is None else min(late, deadline or late)
                self._wait(waiting.SLEEPS, until, polite=polite)
            except (OSError, ValueError):
                if generation == self.generation:
                    raise

    @staticmethod
    def _sleep_above_itself(block: bool, timeout: Optional[float]) -> None:
        """What a get of a signal handler does that has interrupted another: as ``multiprocessing``'s, whose lock the
        frame below has."""
        time.sleep(max(0.0, timeout or 0.0) if block else 0.0)

    @property
    def shut(self) -> bool:
        """The queue was shut down, as far as this process knows."""
        return self.ledger.shut != OPEN_FOR_ALL

    def _late_until(self) -> Optional[float]:
        """When the last records should have come whose puts had returned before the queue was shut down, or to look
        again for what others hold; ``None``: nothing comes any more."""
        ledger = self.ledger
        now = monotonic()
        if ledger.held and ledger.shut == SHUT and self._held_by_others():
            return now + tuning.NAP_LAST
        if not self._shut_at:
            self._shut_at = now
        until = self._shut_at + tuning.LATE
        if ledger.shut != SHUT or now >= until:
            return None
        words, limit = self._words, self.cells.pages * waiting.SLOTS
        for slot in list(ledger.members):
            if slot != self._producer and slot < limit and words[Cells.place(waiting.HOLDS, slot)]:
                return until
        return None

    def give_back(self, records: Sequence[Taken]) -> None:
        """Records that were got but not delivered: the next get delivers them first."""
        with self._lock:
            self._put_back(records)

    def _put_back(self, records: Sequence[Taken]) -> None:
        self._settle()
        last, hand = state = self._state
        if isinstance(state, Handed):
            self._ended[state.number] = True
        self._state = last, (*records, *hand)

    def _take(self, got: list[Taken], most: int, polite: bool = False) -> None:
        """Take up to ``most`` records, from wherever they are to be had; ``polite``: not from under another's hands."""
        if self._damage is not None:
            damage, self._damage = self._damage, None
            raise damage
        self._settle()
        last, hand = self._state
        if hand:
            got += hand[:most]
            self._state = last, hand[most:]
            return
        if self._lease_at < self._lease_end and self._take_leased(got, most):
            return
        if self.records:
            self._publish_if_possible()
        while True:
            ledger = self.ledger
            if ledger.head >= ledger.tail:
                self._sync()
                ledger = self.ledger
                if ledger.head >= ledger.tail and self._delivered() >= ledger.head and not self._comes_back():
                    looked[0] += 1
                    return
            if self._consumer is None:
                self._join(consumer=True)
                continue
            if not ledger.plain:
                lease = ledger.lease
                if lease is None:
                    self._take_returned(got, most)
                    if got:
                        return
                    continue
                if not self._holds(lease):
                    if polite and self._keeps_up(lease):
                        return
                    self._revoke(lease)
                    continue
                if self._lease_at < self._lease_end:
                    if self._take_leased(got, most):
                        return
                    continue
            wanted = ledger.tail - ledger.head >= tuning.LEASE_FROM and tuning.LEASES and self._wants_lease(most)
            if wanted and self._take_lease():
                continue
            if self._lease is not None:
                self._end_lease()
                continue
            if self.journal.words is None:
                self.journal.map(ledger.limit)
            if self._claim(got, most):
                return

    def _claim(self, got: list[Taken], most: int) -> bool:
        """Claim items at the head, and read them.  ``False``: others were faster, or the journal was rolled."""
        ledger = self.ledger
        if ledger.index >= ledger.limit:
            self._roll()
            return False
        cell = self._position_cell
        words = self._words
        pos = self._pos
        # Before the CLAIM: from now on no batch file goes in which it may take an item.
        words[cell] = self._claim_from = pos + self._shift
        if most == 1:
            # Commit point: the item at the head is ours.
            end = self.journal.append_after(self._claim_event, self._claim_word, pos)
            if end - 8 != pos:
                self._apply_before(end)
            self._pos = end
            late = ledger.index >= ledger.limit
            ledger.index += 1
            item = ledger.head
            if late or item >= ledger.tail or not ledger.plain:
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
            ledger = self.ledger  # another one, if we lagged behind by more than a journal
        if not self._first <= item or stop > self._end:
            oldest = ledger.blocks[0]
            if isinstance(oldest, Run):
                oldest = ledger.block(item)
            alone = oldest.first == item and oldest.end == item + 1 == stop
            record = self._read_single(oldest) if alone else None
            if record is not None:
                got.append(record)
                self._taken += 1
                self._state = item, ()
            else:
                parts = (oldest,) if oldest.first <= item and stop <= oldest.end else ledger.parts(item, stop)
                self._read_and_deliver(got, item, stop, parts)
        elif most == 1:
            ends, index = self._ends, item - self._first
            got.append(self._body[ends[index - 1] if index else 0 : ends[index]])
            self._taken += 1
            self._state = item, ()
        else:
            self._deliver(got, item, stop)
        words[cell] = 0
        if stop >= ledger.tail:
            looked[0] += 1  # the last one: as good as a look into an empty queue
        if stop >= ledger.blocks[0].end or (ledger.sealing and stop >= ledger.sealing[0][0]):
            ledger.trim()
            if ledger.done or self._pending:
                self._reclaim()
        if self.maxsize and self.cells.anybody(waiting.AWAITS_PLACE):
            self._offer_space()
        return True

    def _deliver(self, got: list[Taken], item: int, stop: int) -> None:
        """Deliver items of the block that was read last.  The store to ``_state`` is what makes them delivered."""
        before = len(got)
        try:
            if stop == item + 1:
                ends, index = self._ends, item - self._first
                got.append(self._body[ends[index - 1] if index else 0 : ends[index]])
            else:
                got += self._cut(item, stop)
            self._taken += stop - item
            self._state = stop - 1, self._state[1]
        except BaseException:
            if self._state[0] < stop - 1:
                del got[before:]
            raise

    def _cut(self, item: int, stop: int) -> list[Record]:
        """Records of the block that was read last."""
        body, index = self._body, item - self._first
        stops = list(self._ends[index : stop - self._first])
        starts = (self._ends[index - 1] if index else 0, *stops)
        return [body[start:end] for start, end in zip(starts, stops)]

    def _read_and_deliver(self, got: list[Taken], item: int, stop: int, parts: Iterable[Block]) -> None:
        """Deliver items that stand in these blocks."""
        for block in parts:
            if block.first >= stop:
                break
            end = min(stop, block.end)
            if block.units * events.UNIT > tuning.LARGE and block.first == item == stop - 1 == block.end - 1:
                record = self._leave_in_file(block)
                if record is not None:
                    got.append(record)
                    self._taken += 1
                    self._state = item, self._state[1]
                    break
            try:
                if block != self._block:
                    self._read_block(block)
            except CorruptBatchError:
                # Those that stand there are lost; what follows them, the next take finds in the journal.
                self._state = end - 1, self._state[1]
                raise
            self._deliver(got, max(item, block.first), end)

    def _read_single(self, block: Block) -> Optional[Record]:
        """The short way of ``_read_block``, for a small block of one record.  ``None``: take the long way."""
        _, _, file, offset, units = block
        fd = self._fds.get(file)
        if fd is None or not 0 < units <= blocks.SINGLE_MOST:
            return None
        try:
            data = self.folder.read_at(fd, units * events.UNIT, offset * events.UNIT)
        except OSError:
            return None
        return blocks.split_single(data, blocks.seed(file, offset))

    def _leave_in_file(self, block: Block) -> Optional[RecordInFile]:
        """The only record of a large block, to be unpickled from its file.  ``None``: it must be read now."""
        if not tuning.IN_FILES:
            return None
        seed = blocks.seed(block.file, block.offset)
        record = self.folder.open_record(
            block.file, block.offset * events.UNIT, blocks.LARGE_HEADER, partial(blocks.split_large, seed=seed)
        )
        if record is not None:
            memory = self._view_block(block)
            if memory is not None:
                record.memory = memory[blocks.LARGE_HEADER : blocks.LARGE_HEADER + len(record)]
        return record

    def _view_block(self, block: Block) -> Optional[memoryview]:
        """A large block in the memory of its file.  ``None``: it has to be read."""
        size = block.units * events.UNIT
        if size < tuning.BLOCK_BYTES:
            return None
        file, view = self._viewed
        if file != block.file:
            view = None
            # Among many consumers each reads a part of the file: too little for what a mapping costs.
            if block.file.large and not block.file.spilled and self.ledger.consumers == 1 and self._maps_files():
                view = self.folder.view_batch(block.file, self._mappings)
            self._viewed = block.file, view
        return None if view is None else view.block(block.offset * events.UNIT, size)

    def _read_block(self, block: Block) -> None:
        try:
            memory = self._view_block(block)
            if memory is not None:
                seed = blocks.seed(block.file, block.offset)
                self._body, self._ends = blocks.split(memory, block.end - block.first, seed)
            else:
                fd = self._fds.get(block.file)
                if fd is None:
                    fd = self.folder.open_batch(block.file)
                    if len(self._fds) >= tuning.FILES_OPEN:
                        os.close(self._fds.pop(next(iter(self._fds))))
                    self._fds[block.file] = fd
                self._body, self._ends = self._load_block(fd, block)
        except (ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno != errno.EIO:
                raise
            raise self._corrupt(block, str(error)) from None
        if not tuning.GIL:
            self._body = bytes(self._body)
        self._block = block
        self._first, self._end = block.first, block.end

    def _load_block(self, fd: int, block: Block) -> tuple[memoryview, Sequence[int]]:
        """The bytes of a block's records, and where in them each record ends.  Raises ``ValueError`` for damage."""
        if block.units:
            data = self.folder.read_at(fd, block.units * events.UNIT, block.offset * events.UNIT)
            return blocks.split(data, block.end - block.first, blocks.seed(block.file, block.offset))
        head = self.folder.read_at(fd, blocks.GIANT_HEADER, 0)
        length = blocks.split_giant(head, os.fstat(fd).st_size, blocks.seed(block.file, 0))
        return memoryview(self.folder.read_at(fd, length, blocks.GIANT_HEADER)), (length,)

    def _corrupt(self, block: Block, finding: str) -> CorruptBatchError:
        finding = f"{finding}, at byte {block.offset * events.UNIT}, where items {block.first} to {block.end - 1} stand"
        self._forget_block()  # It may be read half-way.
        return CorruptBatchError(
            self.folder.set_aside(block.file, finding), finding, "look at it; all other items arrive"
        )

    # -- leases

    def _wants_lease(self, most: int) -> bool:
        """So many items are wanted now: a lease is worth its event, and no shorter than that."""
        ledger = self.ledger
        waiting_items = ledger.tail - ledger.head
        return (
            (ledger.consumers == 1 or self._may_lease_beside_others())
            and (
                not self.maxsize
                or 2 * (waiting_items + ledger.reserved) <= self.maxsize
                or self.maxsize // NEAR_BOUND >= max(tuning.LEASE_FROM, most)
            )
            and waiting.barrier_works()
            and not ledger.apart
        )

    def _may_lease_beside_others(self) -> bool:
        """We are so fast that the others could take little meanwhile."""
        self._count_leased()
        self._measure_pace()
        return self._pace < tuning.LEASE_PACE

    def _keeps_up(self, lease: Lease) -> bool:
        """The holder of another's lease delivers it as fast as all of us could claim these items."""
        self._map_all_cells()
        words, cell = self._words, Cells.place(waiting.LEASE_POSITION, lease.slot)
        goal = words[cell] + tuning.WATCH_ITEMS
        if goal > lease.end:
            return False
        stop = monotonic() + tuning.WATCH
        while words[cell] < goal:
            if monotonic() > stop:
                return False
        return True

    def _take_lease(self) -> bool:
        ledger = self.ledger
        units = most = 0
        left = tuning.LEASE_BLOCKS if ledger.consumers > 1 else tuning.LEASE_BLOCKS_ALONE
        for block in ledger.blocks:
            if block.end <= ledger.head:
                continue
            units += block.units
            most = block.end - ledger.head
            left -= min(block.blocks, block.end - ledger.head) if isinstance(block, Run) else 1
            if units >= tuning.LEASE_UNITS or not block.units or most >= events.LEASE_MOST or left <= 0:
                break
        words = self._words
        waiting.register_for_barrier()
        # Ours alone, and no lease of ours stands: whatever they say of an earlier one does not count any more.
        words[self._lease_flag] = 0
        words[self._lease_cell] = ledger.head
        lease = self._append(events.lease(self._consumer or 0, min(most, events.LEASE_MOST)))
        if not isinstance(lease, Lease):
            return False
        self._hold_lease(lease, lease.first)
        self._reclaim_done()
        if self.maxsize and self.cells.anybody(waiting.AWAITS_PLACE):
            self._offer_space()
        return True

    def _hold_lease(self, lease: Lease, at: int) -> None:
        self._lease = lease
        self._lease_at, self._lease_end = at, lease.end
        self._counted = at
        self._lease_parts = deque(self.ledger.parts(lease.first, lease.end))

    def _take_leased(self, got: list[Taken], most: int) -> bool:
        """Deliver items of our lease.  ``False``: it was revoked, and none of them is ours any more."""
        self._count_leased()
        item = self._lease_at
        stop = min(item + most, self._lease_end)
        self.cut_short = stop < item + most
        words = self._words
        cached = self._first <= item and stop <= self._end
        if not cached:
            words[self._position_cell] = LEASED | item
        words[self._lease_cell] = stop
        contested = words[self._lease_flag]
        if contested:
            stop = self._contest(stop)
        if item < stop:
            if cached:
                self._deliver(got, item, stop)
            else:
                parts = self._lease_parts
                while parts[0].end <= item:
                    parts.popleft()
                self._read_and_deliver(got, item, stop, parts)
        self._lease_at = self._counted = stop
        if not cached:
            words[self._position_cell] = 0
        if contested:
            self._forget_lease()
        elif stop == self._lease_end:
            if self.maxsize:
                self._sync()
        elif tuning.STEPS and most == 1 and self._first < stop < self._end and not self._state[1]:
            self._open_window(stop, min(self._end, self._lease_end, stop + tuning.WINDOW))
        return item < stop

    def _open_window(self, first: int, end: int) -> None:
        """Let ``steps`` deliver these items of our lease."""
        self._window = window = self._cut(first, end)
        words = repeat(self._words)
        stores: Iterator[None] = map(setitem, words, repeat(self._lease_cell), range(first + 1, end + 1))  # type: ignore[arg-type]
        looks = map(getitem, words, repeat(self._lease_flag))
        self.steps = zip(window, range(first, end), stores, looks)

    def _settle(self) -> None:
        """No step goes on from here: ``_lease_at`` says what they have delivered."""
        if self.steps is not NO_STEPS:
            self._window.clear()
            self._lease_at = self._words[self._lease_cell]
            self.steps = NO_STEPS  # Last: if this is interrupted, the next call does the same.

    def confirm(self, item: int, generation: int) -> bool:
        """A step has taken that item, but somebody wanted our lease to end: it is ours if the journal says so, and if
        this is not a forked child: ``generation`` was ours at the step."""
        try:
            with self._lock:
                self._begin()
                self._settle()
                if self._lease is not None and self._words[self._lease_flag]:
                    self._lease_at = self._contest(self._lease_at)
                    self._count_leased()
                    self._forget_lease()
                self._act_ends()
                if item in self._lost:
                    self._lost.discard(item)
                    return False
        except (OSError, ValueError):
            if generation == self.generation:
                raise
        return generation == self.generation

    def _lose(self, base: int) -> None:
        """Our lease has ended at that item.  Steps that have gone beyond it, in other threads or in frames below a
        signal handler's, find theirs among the lost ones."""
        self._lost.update(range(base, self._lease_at))

    def _count_leased(self) -> None:
        self._taken += self._lease_at - self._counted
        self._counted = self._lease_at

    def _forget_lease(self) -> None:
        self._lease = None
        last, hand = self._state
        self._state = max(last, self._lease_at - 1), hand
        self._lease_at = self._lease_end = self._counted = 0

    def _contest(self, wanted: int) -> int:
        """Somebody wants our lease to end: the journal decides where.  Returns the first item that is not ours, or
        ``wanted`` if that comes before it."""
        lease = self._lease
        assert lease is not None
        self._sync()
        if self.ledger.lease == lease:  # else it has ended already: an event less for all to read
            self._append(events.revoke(wanted - lease.first, lease.number))
        number, base = self.ledger.kept[lease.slot]
        assert number == lease.number
        self._lose(base)
        return min(base, wanted)

    def _end_lease(self) -> None:
        """End our lease where we are."""
        lease = self._lease
        if lease is not None:
            self._settle()
            self._append(events.revoke(self._lease_at - lease.first, lease.number))
            base = self.ledger.kept[lease.slot][1]
            if base > self._lease_at:
                # A get was interrupted when the cell had said that it takes one, and another has ended the lease there.
                self._recover()
                self._unsure = True
            else:
                self._lose(base)
                self._lease_at = base
                self._forget_lease()

    def _end_used_lease(self) -> None:
        """Nothing has come for a while: our lease, wholly delivered, must not keep its batch files."""
        with self._lock:
            self._begin()
            self._settle()
            if self._lease is not None and self._lease_at >= self._lease_end:
                self._end_lease()
                self.ledger.trim()
                self._reclaim()
            self._act_ends()

    def _revoke(self, lease: Lease) -> None:
        """End another's lease."""
        self._map_all_cells()
        self._words[Cells.place(waiting.LEASE_FLAG, lease.slot)] = 1
        waiting.barrier()
        position = self._words[Cells.place(waiting.LEASE_POSITION, lease.slot)]
        count = max(0, min(position, lease.end) - lease.first)
        self._append(events.revoke(count, lease.number))
