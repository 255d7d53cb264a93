"""Being a member: slots, the locks that say who lives, the burial of those who died.

Lives here: joining, leaving, burying, cells of all slots.  Not here: what members do (``producer``, ``consumer``).

Invariant: a member's LEAVE is preceded by a CUT of what its counter says, and a SKIP of what of that can't be cut: no
CUT that comes later can cut anything of its log, and its slot's next member goes on behind it.
"""

from __future__ import annotations

import time
from time import monotonic_ns
from typing import Optional

from tqshim import systems, tuning, waiting
from tqshim.clock import monotonic
from tqshim.errors import FolderError
from tqshim.logs.replica import Replica
from tqshim.protocol import events
from tqshim.protocol.ledger import Verdict
from tqshim.storage.folder import LogFolder
from tqshim.sync import cells as words_of
from tqshim.sync.cells import SLOTS, Cells

__all__ = ["Membership"]


class Membership:
    """The slots that this engine has, and everybody's cells."""

    __slots__ = ("_folder", "_joining", "_replica", "cells", "counting", "slots")

    def __init__(self, folder: LogFolder, replica: Replica, counting: bool) -> None:
        self._folder = folder
        self._replica = replica
        self._joining: Optional[int] = None
        self.cells = Cells(folder.open_cells())
        self.slots: dict[int, int] = {}
        """Ours, and the number of the JOIN of each."""
        self.counting = counting
        """What a counter says is put; else only what is cut."""

    def join(self, consumer: bool) -> int:
        """Become a member: JOIN, lock the slot's byte, see that nobody took us for dead in between."""
        replica = self._replica
        while True:
            slot = replica.append_one(events.join(consumer))
            if not isinstance(slot, int):
                raise FolderError(self._folder.path, f"has {events.SLOTS} members", "let some of them leave")
            number = replica.ledger.members[slot].number
            if slot >= self.cells.slots:
                self._folder.grow_cells(slot // SLOTS + 1)
                self.see_all()
            self._joining = slot
            deadline = monotonic() + tuning.SLOT_PATIENCE
            locked = self._folder.lock_slot(slot)
            while not locked and monotonic() < deadline:
                time.sleep(1e-4)
                locked = self._folder.lock_slot(slot)
            if not locked:
                continue  # Whoever was stopped there keeps it; somebody will bury that member of ours. Take another.
            self.cells.clear(slot)
            # After the flag was lowered: if somebody has raised it before, his CLOSING is seen now.
            replica.sync()
            if replica.ledger.members.get(slot) == (number, consumer):
                break
            self._folder.unlock_slot(slot)
        # What is cut but not counted was put by an act that ended in between.
        self.cells.words[Cells.place(words_of.COUNTER, slot)] = replica.ledger.totals[slot]
        self.slots[slot] = number
        self._joining = None
        return slot

    def forget_joining(self) -> None:
        """An act was interrupted: a member that nobody is will be buried."""
        if self._joining is not None and self._joining not in self.slots:
            self._folder.unlock_slot(self._joining)
        self._joining = None

    def see_all(self) -> None:
        """Map the cells of members that have joined beyond ours.  The old mapping is not closed: it shows the same
        memory, and a caller may be about to store there."""
        if self._replica.ledger.slots > self.cells.slots:
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
        if not self.counting:
            return b""
        self.see_all()
        counters = self.cells.counters()
        if not systems.STORES_IN_ORDER:
            waiting.barrier()  # whoever has stored a counter has stored its records before, and that is seen now
        return counters

    def pending(self, last: int = -1) -> bytes:
        """CUTs of all that is put and not cut, as the ledger stands; that slot's behind the others'."""
        return self._replica.ledger.cuts(self.counters(), last)

    def cut(self, last: int = -1, then: bytes = b"") -> list[Verdict]:
        """Cut all that is put, and append more in the same piece; what each event came to."""
        began = monotonic_ns()
        counters = self.counters()
        # After that: what has been put behind an OPEN that is not known yet would be taken for damage.
        self._replica.sync()
        data = self._replica.ledger.cuts(counters, last) + then
        if not data:
            return []
        verdicts = self._replica.append(data)
        self.has_cut(began)
        return verdicts

    def has_cut(self, began: int) -> None:
        """All that was put then has been cut: the time before the counters were read, stored after the append, never
        lowered.  One who was stopped in between must keep nobody from cutting."""
        words = self.cells.words
        if words[words_of.LAST_CUT] < began:
            words[words_of.LAST_CUT] = began

    def leave(self, slot: int) -> None:
        """Leave one of our slots."""
        number = self.slots.pop(slot)
        # Unlocked first: a process that is stopped here must not keep the slot's next member waiting.
        end = self.end_of_log(slot)
        self.cells.clear(slot)
        self._folder.unlock_slot(slot)
        self._replica.append(end + events.leave(slot, number))

    def end_of_log(self, slot: int) -> bytes:
        """The events after which no CUT can cut anything of this member's log."""
        ledger = self._replica.ledger
        if slot not in ledger.files or slot >= self.cells.slots:
            return b""
        counter = self.cells.words[Cells.place(words_of.COUNTER, slot)]
        total = min(counter, ledger.stop_of(slot))
        end = events.cut(slot, total) if self.counting and total > ledger.totals[slot] else b""
        if counter > max(total, ledger.totals[slot]) and counter < events.REST_LIMIT:
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
            end = self.end_of_log(slot)
            if slot < self.cells.slots:
                # Under the lock, and before its LEAVE: the slot can have no new member yet.
                self.cells.clear(slot)
            self._replica.append(end + events.leave(slot, member.number))
        finally:
            self._folder.unlock_slot(slot)
        return True

    def bury_the_dead(self) -> bool:
        """Bury all who died; whether there were any."""
        return sum([self.bury(slot) for slot in list(self._replica.ledger.members)]) > 0
