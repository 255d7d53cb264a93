"""Being a member: slots, the locks that say who lives, the burial of members that died.

Lives here: joining, leaving, burying, cells of all slots.  Not here: what members do (``producer``, ``consumer``).

Invariant: before a member's LEAVE stand a CUT of what its counter says, and a SKIP of what of that can't be cut: no
later CUT can cut anything of its log, and its slot's next member goes on behind it.  Nothing of a log is cut before
what others had put a millisecond earlier: a process that cuts, cuts all that is put, in the order of the marks.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Container

from tqshim.engine import tuning
from tqshim.engine.replica import Replica
from tqshim.errors import FolderError
from tqshim.protocol import events, names
from tqshim.protocol.records import Verdict
from tqshim.runtime import systems
from tqshim.runtime.clock import monotonic, monotonic_ns
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

    __slots__ = ("_folder", "_replica", "cells", "counted", "counting", "slots")

    def __init__(self, folder: LogFolder, replica: Replica, counting: bool) -> None:
        self._folder = folder
        self._replica = replica
        self.cells = Cells(folder.open_cells())
        self.slots: dict[int, int] = {}
        """Our slots, and the number of the JOIN of each."""
        self.counted = not replica.ledger.settings.durable
        """Whether what the counters say counts as put; else only what is cut does."""
        self.counting = counting
        """Whether this process may put by its counter alone; else it cuts what it puts."""
        if counting:
            # Now, and not when this process joins: by then a Pool has started its threads, and for a process that has
            # threads this takes the kernel 8 to 16 ms. A forked child has the registration of its parent.
            membarrier.register_for_barrier()

    def join(self, consumer: bool) -> int:
        """Become a member: JOIN, lock the slot's byte, see that nobody took us for dead in between."""
        replica = self._replica
        while True:
            slot = replica.append_one(events.join(consumer))
            if not isinstance(slot, int):
                raise FolderError(self._folder.path, f"has {events.SLOTS} members", "let some of them leave")
            number = replica.ledger.members.by_slot[slot].number
            if slot >= self.cells.slots:
                self._folder.grow_cells(slot // SLOTS + 1)
                self.see_all()
            deadline = monotonic() + tuning.SLOT_PATIENCE
            locked = self._folder.lock_slot(slot)
            while not locked and monotonic() < deadline:
                time.sleep(1e-4)
                locked = self._folder.lock_slot(slot)
            if not locked:
                continue  # A process stopped there keeps the lock; somebody will bury this member. Take another.
            self.cells.clear(slot)
            if slot >= SLOTS:
                self.cells.words[words_of.BEYOND] = 1
            # After the flag was lowered: if another process raised it before, the CLOSING of that process is seen now.
            replica.sync()
            if replica.ledger.members.by_slot.get(slot) == (number, consumer):
                break
            self._folder.unlock_slot(slot)
        # What is cut but not counted was put by an act that ended in between.
        self.cells.words[Cells.place(words_of.COUNTER, slot)] = replica.ledger.totals[slot]
        self.slots[slot] = number
        if not consumer:
            self._tell_who_is_alone(slot)
        return slot

    def _tell_who_is_alone(self, slot: int) -> None:
        """Tell a bounded queue's only producer, which puts wherever there is a place, to ask from now on.  This comes
        before our log is opened: where there are two logs, the producer that joined later has told the other."""
        ledger = self._replica.ledger
        others = [other for other in ledger.files.filling if other != slot]
        if ledger.maxsize and len(others) == 1 and systems.MEMBARRIER is not None:
            self.raise_flag(words_of.FLAG, others[0])
            membarrier.barrier()

    def recover(self, used: Container[Optional[int]]) -> None:
        """Clean up after an interrupted act: members of unused slots leave, others that nobody is can be buried."""
        for slot in [slot for slot in self.slots if slot not in used]:
            self.leave(slot)
        self._folder.unlock_slots(self.slots)

    def close(self) -> None:
        """Let go: what is left of our members can be buried, also by another engine of this process."""
        self._folder.unlock_slots()
        self.cells.close()

    def see_all(self) -> None:
        """Map the cells of members that have joined beyond ours.  The old mapping is not closed: it shows the same
        memory, and a caller may be about to store there."""
        if len(self._replica.ledger.totals) > self.cells.slots:
            self.cells = Cells(self._folder.open_cells())

    def sleepers(self, kind: int, most: int = sys.maxsize) -> list[int]:
        """Return ``Cells.sleepers`` of all members.  A process that puts or gets by a short way reads no journal, and
        may not know some members: the cells say that there are more."""
        self.see_all()
        size = self._folder.size_of(names.CELLS) if self.cells.words[words_of.BEYOND] else 0
        if (size or 0) > words_of.PAGE * self.cells.pages:
            self.cells = Cells(self._folder.open_cells())
        return self.cells.sleepers(kind, most)

    def word(self, kind: int, slot: int) -> int:
        """Return a slot's word of that kind; 0 where its member has not grown the cells yet."""
        if slot >= self.cells.slots:
            self.see_all()
        return self.cells.words[Cells.place(kind, slot)] if slot < self.cells.slots else 0

    def raise_flag(self, kind: int, slot: int) -> None:
        self.see_all()
        if slot < self.cells.slots:
            self.cells.words[Cells.place(kind, slot)] = 1

    def look(self) -> bytes:
        """Return the counters, by slot, and read the journal after them: what they say beyond that is put and not cut.
        Nothing where counters don't count.  What is cut by these counters can be read by everybody.

        In this order, or what was put behind an OPEN that is not known yet would be taken for damage.
        Counters of members that have joined beyond the mapped cells are among them, too."""
        while True:
            pages = self.cells.pages
            counters = self.counters() if self.counted else b""
            self._replica.sync()
            self.see_all()
            if self.cells.pages == pages or not self.counted:
                return counters

    def counters(self) -> bytes:
        """Return all counters, read at once if possible: if one is read long after another, they are not in order."""
        for _ in range(tuning.LOOKS):
            began = monotonic_ns()
            counters = self.cells.counters()
            if monotonic_ns() - began < tuning.MARK_EVERY // 2:
                break
        if not systems.STORES_IN_ORDER and self.counting:
            membarrier.barrier()  # a process that has stored a counter has stored its records before; they are seen now
        return counters

    def grows(self, counters: bytes) -> bool:
        """Return whether something was put since these counters were read."""
        return self.counted and self.cells.counters() != counters

    def cut(self, then: bytes = b"") -> list[Verdict]:
        """Cut all that is put, and append ``then`` in the same piece; return what each event came to.

        Such events are void while a lease of all that comes stands: the lease ends in that piece, too."""
        counters, replica = self.look(), self._replica

        def piece() -> bytes:
            ledger = replica.ledger
            data = ledger.cuts(ledger.grown(counters), self.cells.marks) + then
            return self.end_of_all() + data if data else b""

        # Else a CUT may be void, for such a lease stood just then, and what comes after a roll may count without it.
        again = None if replica.ledger.maxsize else piece
        verdicts: list[Verdict] = []
        while data := piece():
            verdicts = replica.append(data, again)
            if not replica.ledger.leases.sole:  # else such a lease was taken just before
                break
        self.has_cut()
        return verdicts

    def end_of_all(self) -> bytes:
        """Return the events that end the lease of all that comes, if one stands, with what it has delivered."""
        ledger = self._replica.ledger
        lease = ledger.leases.standing
        if lease is None or not ledger.leases.sole:
            return b""
        self.raise_flag(words_of.LEASE_FLAG, lease.slot)
        if self.slots.get(lease.slot) != lease.member:
            membarrier.barrier()
        said = [events.delivered(slot, total, lease.number) for slot, total in self.given().items()]
        return b"".join(said) + events.revoke(0, lease.number)

    def given(self) -> dict[int, int]:
        """Return, by slot, up to which record of its log a lease of all that comes has got, where no event says it."""
        ledger = self._replica.ledger
        if not ledger.leases.sole:
            return {}
        found = {slot: self.word(words_of.GIVEN, slot) for slot in ledger.files.filling}
        return {slot: at for slot, at in found.items() if ledger.totals[slot] < at <= ledger.files.filling[slot].stop}

    def has_cut(self) -> None:
        """Say in the cells what is cut, as far as we know: a producer whose log is cut need not read the journal."""
        self.cells.note_cut(self._replica.ledger.totals)

    def position(self) -> int:
        """Return up to which item the lease that stands is delivered, where no event says it; else 0."""
        ledger = self._replica.ledger
        lease = ledger.leases.standing
        if lease is None:
            return 0
        position = min(self.word(words_of.LEASE_POSITION, lease.slot), lease.end)
        return position if position > ledger.leases.passed else 0

    def passed(self) -> tuple[bytes, int]:
        """Return the event that says how far the lease that stands is delivered, where no event says it, and how many
        places that frees.  The holder needs no flag for this: its cell only grows, and what that says counts then."""
        ledger = self._replica.ledger
        lease, position = ledger.leases.standing, self.position()
        if lease is None or not position:
            return b"", 0
        if not systems.STORES_IN_ORDER:
            membarrier.barrier()  # the holder has pinned what it reads before it stored that; the pin is seen now
        said = events.revoke if position == lease.end else events.passed
        return said(position - lease.first, lease.number), position - ledger.leases.passed

    def leave(self, slot: int) -> None:
        """Leave one of our slots."""
        number = self.slots.pop(slot)
        # Unlocked first: a process that is stopped here must not keep the slot's next member waiting.
        then = self.skip(slot) + events.leave(slot, number)
        self.cells.clear(slot)
        self._folder.unlock_slot(slot)
        self._append_end(slot, then)

    def skip(self, slot: int) -> bytes:
        """Return the events after which no CUT can cut anything of this member's log."""
        ledger = self._replica.ledger
        if not ledger.maxsize or slot not in ledger.files.filling:
            return b""
        counter = self.word(words_of.COUNTER, slot)
        if not ledger.totals[slot] < counter <= ledger.files.filling[slot].stop:
            return b""
        # As many records are cut as there are places, and the others never will be.
        return (events.cut(slot, counter) if self.counted else b"") + events.skip(slot, counter)

    def bury(self, slot: int) -> bool:
        """Write the LEAVE of a member that was killed.  ``False``: it lives, or it is one of ours."""
        member = self._replica.ledger.members.by_slot.get(slot)
        if member is None or slot in self.slots or not self._folder.lock_slot(slot):
            return False
        try:
            self._replica.sync()
            if self._replica.ledger.members.by_slot.get(slot) != member:
                return False  # another process was faster; or the member had left before the lock
            then = self.skip(slot) + events.leave(slot, member.number)
            self.see_all()
            if slot < self.cells.slots:
                # Under the lock, and before its LEAVE: the slot can have no new member yet.
                self.cells.clear(slot)
            self._append_end(slot, then)
        finally:
            self._folder.unlock_slot(slot)
        return True

    def _append_end(self, slot: int, then: bytes) -> None:
        if slot in self._replica.ledger.files.filling:
            self.cut(then)
        else:
            self._replica.append(then)

    def bury_the_dead(self) -> bool:
        """Bury all members that died; return whether there were any."""
        return sum([self.bury(slot) for slot in list(self._replica.ledger.members.by_slot)]) > 0
