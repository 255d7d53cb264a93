"""Cells: words in shared memory that are seen without a system call.

Lives here: their layout, and who is thought to be asleep.  Not here: the file being made (``storage``), when to sleep
(``wait_policy``), what a counter means (``ledger``).

The cells are a mapped file of 16 KB pages.  Each page has 64 slots' words of every kind; the first one has words of the
whole queue, too::

    words   0- 63   a consumer of the slot sleeps: until when, and how long it naps
           64-127   a producer of the slot sleeps, waiting for a place
          128-191   one of the slot sleeps until all items are finished with
          192-255   records of the slot's log that were put, over all its members: the commit point of a put
          256-319   flag: somebody wants to know how many were put, or the queue to shut down
          320-383   pins batch files: 1 + the journal position from before a CLAIM, until its record is read; or, under
                    a lease, which item's record is read, or which file
          384-447   first item of its lease that a consumer has not delivered
          448-511   flag: somebody wants to know that item, or how far a lease of all that comes has got
          576-639   records of the slot's log that such a lease has delivered, or that were cut before it
          640-703   records of the slot's log that are cut, or never will be: it may lag, and never leads
          512       consumers sleep, and nobody has rung for them since: 2 + the slot of one of them, or 1
          513       the same of producers that wait for a place
          514       the same of joins, which wait until all items are finished with
          516       when somebody last looked which members have died, in monotonic microseconds
          517       there is a member beyond the first page
         1024-2047  eight marks of each slot: a record of its log, and the time from which on this record and those
                    behind it were put, in monotonic nanoseconds

Invariant: only the member of its slot writes a word, except for flags, what leases have delivered of a log, and the
words of the whole queue.  A counter is never cleared: its log goes on over the members that follow one another in its
slot.  Nobody relies on a word alone to own an item: the journal decides.
"""

from __future__ import annotations

import os
import sys
from array import array

from tqshim.runtime.clock import microseconds
from tqshim.storage.batch_file import map_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Union

__all__ = ["KINDS", "PAGE", "SLOTS", "Cells", "sleep_word"]

PAGE: Final = 16384
SLOTS: Final = 64
"""Slots of one page."""
_WORDS: Final = PAGE // 8

SLEEPS: Final = 0
AWAITS_PLACE: Final = 64
AWAITS_DONE: Final = 128
COUNTER: Final = 192
FLAG: Final = 256
POSITION: Final = 320
LEASE_POSITION: Final = 384
LEASE_FLAG: Final = 448
SCANNED: Final = 516
BEYOND: Final = 517
GIVEN: Final = 576
CUT_UP_TO: Final = 640
MARKS: Final = 1024
MARKS_MOST: Final = 8
"""Marks of one slot, two words each."""
KINDS: Final = (SLEEPS, AWAITS_PLACE, AWAITS_DONE)
"""What a process can sleep for."""
ASLEEP: Final = {SLEEPS: 512, AWAITS_PLACE: 513, AWAITS_DONE: 514}
"""By kind: the word that says that somebody sleeps."""

_NAP_UNIT: Final = 64
"""Microseconds: a nap is kept in 16 bits of such units."""
_ZEROS: Final = bytearray(PAGE)
"""What cells show after they were detached."""


class Cells:
    """The mapped cells of one queue.  ``words`` is the array of 64-bit words; a store to it is one store."""

    __slots__ = ("_counters", "pages", "slots", "words")

    def __init__(self, fd: int) -> None:
        """Map the cells file, whose descriptor is closed."""
        try:
            size = os.fstat(fd).st_size // PAGE * PAGE
            if size < PAGE:
                raise ValueError(f"cells of {size} bytes are cut short")
            self._view(map_file(fd, size, writable=True))
        finally:
            os.close(fd)

    @classmethod
    def seen(cls, data: bytes) -> Cells:
        """Cells in bytes that somebody has read, a page at least: to be looked at."""
        cells = cls.__new__(cls)
        cells._view(data[: len(data) // PAGE * PAGE])
        return cells

    def _view(self, mapped: Union[memoryview, bytes, bytearray]) -> None:
        self.words = memoryview(mapped).cast("Q")
        self.pages = len(mapped) // PAGE
        self.slots = self.pages * SLOTS
        starts = range(COUNTER, self.pages * _WORDS, _WORDS)
        self._counters = [self.words[at : at + SLOTS] for at in starts]

    @staticmethod
    def place(kind: int, slot: int) -> int:
        """The index in ``words`` of a slot's word."""
        return (slot // SLOTS) * _WORDS + kind + slot % SLOTS

    def counters(self) -> bytes:
        """The counters of all slots, as they are now."""
        if self.pages == 1:
            return self._counters[0].tobytes()
        return b"".join(self._counters)

    def marks(self, slot: int) -> list[int]:
        """A slot's marks: records and times in turn."""
        at = self.first_mark(slot)
        return self.words[at : at + 2 * MARKS_MOST].tolist()

    @staticmethod
    def first_mark(slot: int) -> int:
        """The index in ``words`` of a slot's marks."""
        return (slot // SLOTS) * _WORDS + MARKS + slot % SLOTS * 2 * MARKS_MOST

    def note_cut(self, totals: array[int]) -> None:
        """Note how many records of each slot's log are cut, as far as the caller knows."""
        for at in range(0, min(len(totals), self.slots), SLOTS):
            place = self.place(CUT_UP_TO, at)
            self.words[place : place + SLOTS] = totals[at : at + SLOTS]

    def is_all_given(self) -> bool:
        """Whether all that the counters say was delivered by leases of all that comes, or cut before."""
        return self.counters() == self.words[GIVEN : GIVEN + SLOTS].tobytes()

    def given(self) -> bytes:
        """How much of the first slots' logs leases of all that comes have delivered, or was cut before."""
        return self.words[GIVEN : GIVEN + SLOTS].tobytes()

    def sleepers(self, kind: int, most: int = sys.maxsize) -> list[int]:
        """The microseconds at which sleepers will look by themselves, for ``most`` of them at most; the dead and the
        stopped are left out."""
        now = microseconds()
        found = []
        for page in range(self.pages):
            start = page * _WORDS + kind
            for word in filter(None, self.words[start : start + SLOTS]):
                if _looks_by_itself(word) >= now:
                    found.append(word >> 16)
                    if len(found) >= most:
                        return found
        return found

    def is_asleep(self, kind: int, said: int) -> bool:
        """Whether ``said``, which the queue's word has said, names a member that sleeps."""
        slot = said - 2
        return 0 <= slot < self.slots and _looks_by_itself(self.words[self.place(kind, slot)]) >= microseconds()

    def clear(self, slot: int) -> None:
        """Forget what a former member of the slot has left; its counter, and how far its lease has got, are kept."""
        for kind in (FLAG, *KINDS, POSITION):
            self.words[self.place(kind, slot)] = 0

    def detach(self, in_act: bool) -> None:
        """Let go of the shared memory: stores of a frame that a fork has copied raise ``ValueError``, or go nowhere.

        ``in_act``: an act was under way, and such a frame may store anything.  Else all detached cells share a page of
        zeros: to fill a page for each queue is half of what a fork costs the queue."""
        self.close()
        self._view(bytearray(self.pages * PAGE) if in_act or self.pages > 1 else _ZEROS)

    def close(self) -> None:
        """Look and store no more.  The mapping goes with the last object that refers to this memory."""
        for counters in self._counters:
            counters.release()
        self.words.release()


def _looks_by_itself(word: int) -> int:
    """When a sleeper will have looked by itself, in microseconds: three naps late it is dead or stopped, and no ring
    reaches it."""
    return (word >> 16) + 3 * _NAP_UNIT * (word & 0xFFFF) + 2000


def sleep_word(until: float, nap: float) -> int:
    """The word of a sleeper that will look by itself at ``until`` (monotonic seconds), napping for ``nap`` seconds."""
    units = int(nap * 1e6) // _NAP_UNIT + 1
    return int(until * 1e6) << 16 | (units if units < 0xFFFF else 0xFFFF)
