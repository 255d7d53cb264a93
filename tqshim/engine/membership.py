"""Being a member: slots, the locks that say who lives, the burial of those who died.

Lives here: joining, leaving, burying, cells of all slots.  Not here: what members do (``producer``, ``consumer``).

Invariant: a member's LEAVE is preceded by a CUT of what its counter says, and a SKIP of what of that can't be cut: no
CUT that comes later can cut anything of its log, and its slot's next member goes on behind it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container
from time import monotonic_ns

from tqshim.engine import tuning
from tqshim.engine.replica import Replica
from tqshim.errors import FolderError
from tqshim.protocol import events
from tqshim.protocol.records import Verdict
from tqshim.runtime import systems
from tqshim.runtime.clock import monotonic
from tqshim.storage.folder import LogFolder
from tqshim.sync import cells as words_of
from tqshim.sync import membarrier
from tqshim.sync.cells import SLOTS, Cells

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

__all__ = ["Membership"]


class Membership:
    """The slots that this engine has, and everybody's cells."""

    __slots__ = ("_folder", "_replica", "cells", "counted", "counting", "cut_to", "slots")

    def __init__(self, folder: LogFolder, replica: Replica, counting: bool) -> None:
        self._folder = folder
        self._replica = replica
        self.cells = Cells(folder.open_cells())
        if self.cells.words[words_of.CUT_DUE] > monotonic_ns() + tuning.CUT_EVERY:
            self.cells.words[words_of.CUT_DUE] = 0  # from before the machine was started
        self.cut_to = b""
        """The counters of our last cut of all logs."""
        self.slots: dict[int, int] = {}
        """Ours, and the number of the JOIN of each."""
        self.counted = not replica.ledger.durable
        """What the counters say is put; else only what is cut."""
        self.counting = counting
        """So this process may put; else it cuts what it puts."""

    def join(self, consumer: bool) -> int:
        """Become a member: JOIN, lock the slot's byte, see that nobody took us for dead in between."""
        replica = self._replica
        if self.counting:
            membarrier.register_for_barrier()
        while True:
            slot = replica.append_one(events.join(consumer))
            if not isinstance(slot, int):
                raise FolderError(self._folder.path, f"has {events.SLOTS} members", "let some of them leave")
            number = replica.ledger.members[slot].number
            if slot >= self.cells.slots:
                self._folder.grow_cells(slot // SLOTS + 1)
                self.see_all()
            deadline = monotonic() + tuning.SLOT_PATIENCE
            locked = self._folder.lock_slot(slot)
            while not locked and monotonic() < deadline:
                time.sleep(1e-4)
                locked = self._folder.lock_slot(slot)
            if not locked:
                continue  # Whoever was stopped there keeps it; somebody will bury that member of ours. Take another.
            self.cells.clear(slot)
            if slot >= SLOTS:
                self.cells.words[words_of.BEYOND] = 1
            # After the flag was lowered: if somebody has raised it before, his CLOSING is seen now.
            replica.sync()
            if replica.ledger.members.get(slot) == (number, consumer):
                break
            self._folder.unlock_slot(slot)
        # What is cut but not counted was put by an act that ended in between.
        self.cells.words[Cells.place(words_of.COUNTER, slot)] = replica.ledger.totals[slot]
        self.slots[slot] = number
        return slot

    def recover(self, used: Container[Optional[int]]) -> None:
        """An act was interrupted: members whose slots nobody uses leave, others that nobody is can be buried."""
        for slot in [slot for slot in self.slots if slot not in used]:
            self.leave(slot)
        self._folder.unlock_slots(self.slots)

    def close(self) -> None:
        """What is left of ours can be buried, also by another engine of this process."""
        self._folder.unlock_slots()
        self.cells.close()

    def see_all(self) -> None:
        """Map the cells of members that have joined beyond ours.  The old mapping is not closed: it shows the same
        memory, and a caller may be about to store there."""
        if len(self._replica.ledger.totals) > self.cells.slots:
            self.cells = Cells(self._folder.open_cells())

    def word(self, kind: int, slot: int) -> int:
        """A slot's word of that kind; 0 where its member has not grown the cells yet."""
        self.see_all()
        return self.cells.words[Cells.place(kind, slot)] if slot < self.cells.slots else 0

    def raise_flag(self, kind: int, slot: int) -> None:
        self.see_all()
        if slot < self.cells.slots:
            self.cells.words[Cells.place(kind, slot)] = 1

    def counters(self) -> bytes:
        """By slot: what is put; nothing where counters don't count.  What is cut by these can be read by everybody."""
        if not self.counted:
            return b""
        self.see_all()
        counters = self.cells.counters()
        if not systems.STORES_IN_ORDER and self.counting:
            membarrier.barrier()  # whoever has stored a counter has stored its records before, and that is seen now
        return counters

    def look(self) -> bytes:
        """The counters, and then the journal: what the first say beyond that is put and not cut.

        Those of members, too, that have joined beyond the cells that were mapped."""
        while True:
            pages = self.cells.pages
            counters = self.cells.counters() if self.counted else b""
            self._replica.sync()
            self.see_all()
            if self.cells.pages == pages or not self.counted:
                return counters

    def pending(self, last: int = -1) -> bytes:
        """CUTs of all that is put and not cut, as the ledger stands; that slot's behind the others'."""
        return self._replica.ledger.cuts(self.counters(), last)

    def cut(self, last: int = -1, then: bytes = b"") -> list[Verdict]:
        """Cut all that is put, and append more in the same piece; what each event came to."""
        began = monotonic_ns()
        # The journal after them: what has been put behind an OPEN that is not known yet would be taken for damage.
        counters = self.look()
        if not systems.STORES_IN_ORDER and self.counting:
            membarrier.barrier()  # as in counters
        verdicts = self.append_cuts(lambda: self._replica.ledger.cuts(counters, last) + then)
        self.cut_to = counters
        self.has_cut(began)
        return verdicts

    def append_cuts(self, wanted: Callable[[], bytes]) -> list[Verdict]:
        """Append events that are void while a lease of all that comes stands: it ends in the same piece."""
        replica = self._replica
        # Else a CUT may be void, for such a lease stood just then, and what comes after a roll count without it.
        whole = not replica.ledger.maxsize
        data = wanted()
        verdicts = replica.append(self.end_of_all() + data, whole) if data else []
        while data and replica.ledger.sole:  # taken just before
            verdicts = replica.append(self.end_of_all() + wanted(), whole)
        return verdicts

    def end_of_all(self) -> bytes:
        """The events that end the lease of all that comes, if one stands, with what it has delivered."""
        ledger = self._replica.ledger
        lease = ledger.lease
        if lease is None or not ledger.sole:
            return b""
        self.raise_flag(words_of.LEASE_FLAG, lease.slot)
        if self.slots.get(lease.slot) != lease.member:
            membarrier.barrier()
        said = [events.delivered(slot, total, lease.number) for slot, total in self.given().items()]
        return b"".join(said) + events.revoke(0, lease.number)

    def given(self) -> dict[int, int]:
        """By slot: up to which record of its log a lease of all that comes has got, where nobody has said it."""
        ledger = self._replica.ledger
        if not ledger.sole:
            return {}
        found = {slot: self.word(words_of.GIVEN, slot) for slot in ledger.files}
        return {slot: at for slot, at in found.items() if ledger.totals[slot] < at <= ledger.files[slot].stop}

    def has_cut(self, began: int) -> None:
        """All that was put by then, before the counters were read, has been cut: no put cuts for a moment.  Stored
        after the append, never lowered: one who was stopped in between must keep nobody from cutting.

        And what is cut, as far as we know: who sees that nothing was put since need not read the journal for that."""
        words, due = self.cells.words, began + tuning.CUT_EVERY
        words[words_of.CUT_UP_TO : words_of.CUT_UP_TO + words_of.SLOTS] = self._replica.ledger.totals[: words_of.SLOTS]
        if words[words_of.CUT_DUE] < due:
            words[words_of.CUT_DUE] = due

    def passed(self) -> tuple[bytes, int]:
        """The event that says how far the lease that stands is delivered, as far as nobody has said it; and how many
        places that frees.  Its holder needs no flag for this: the cell only grows, and what it says counts then."""
        ledger = self._replica.ledger
        lease = ledger.lease
        if lease is None:
            return b"", 0
        position = min(self.word(words_of.LEASE_POSITION, lease.slot), lease.end)
        if position <= ledger.passed:
            return b"", 0
        if not systems.STORES_IN_ORDER:
            membarrier.barrier()  # whoever has stored that has pinned what it reads before, and that is seen now
        return events.passed(position - lease.first, lease.number), position - ledger.passed

    def leave(self, slot: int) -> None:
        """Leave one of our slots."""
        number = self.slots.pop(slot)
        # Unlocked first: a process that is stopped here must not keep the slot's next member waiting.
        end = self.end_of_log(slot) + events.leave(slot, number)
        self.cells.clear(slot)
        self._folder.unlock_slot(slot)
        self._append_end(slot, end)

    def end_of_log(self, slot: int) -> bytes:
        """The events after which no CUT can cut anything of this member's log."""
        ledger = self._replica.ledger
        if slot not in ledger.files or slot >= self.cells.slots:
            return b""
        counter = self.cells.words[Cells.place(words_of.COUNTER, slot)]
        if counter > ledger.files[slot].stop:
            return b""  # it is damaged
        total = min(counter, ledger.stop_of(slot))
        end = events.cut(slot, total) if self.counted and total > ledger.totals[slot] else b""
        if ledger.maxsize and counter > ledger.totals[slot]:
            # Whatever comes before these: as many may be cut as there are places, and what is not never will be.
            end += events.skip(slot, counter)
        return end

    def bury(self, slot: int) -> bool:
        """Write the LEAVE of a member that was killed.  ``False``: it lives, or it is one of ours."""
        member = self._replica.ledger.members.get(slot)
        if member is None or slot in self.slots or not self._folder.lock_slot(slot):
            return False
        try:
            self._replica.sync()
            if self._replica.ledger.members.get(slot) != member:
                return False  # another was faster; or it had left before it was locked
            self.see_all()
            end = self.end_of_log(slot) + events.leave(slot, member.number)
            if slot < self.cells.slots:
                # Under the lock, and before its LEAVE: the slot can have no new member yet.
                self.cells.clear(slot)
            self._append_end(slot, end)
        finally:
            self._folder.unlock_slot(slot)
        return True

    def _append_end(self, slot: int, end: bytes) -> None:
        if slot in self._replica.ledger.files:
            self.append_cuts(lambda: end)
        else:
            self._replica.append(end)

    def bury_the_dead(self) -> bool:
        """Bury all who died; whether there were any."""
        return sum([self.bury(slot) for slot in list(self._replica.ledger.members)]) > 0
