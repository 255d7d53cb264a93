"""Removing batch files that nobody needs, and what killed members have left.

Lives here: which members may still be about to read a file, the scan for dead ones.  Not here: which files hold no
items any more (``ledger``), deleting them (``storage``).

Invariant: a batch file goes when all its items are claimed, and no consumer's position cell says that it began to claim
before that and may still have to open it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from tqshim.engine import tuning
from tqshim.engine.membership import Membership
from tqshim.engine.replica import SHIFT, Replica, replay
from tqshim.protocol import snapshot
from tqshim.protocol.events import SIZE
from tqshim.protocol.names import FileId
from tqshim.runtime import locks
from tqshim.runtime.clock import monotonic
from tqshim.storage.files import REMEDIES
from tqshim.storage.folder import LogFolder
from tqshim.sync import cells as words_of
from tqshim.sync.cells import Cells

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Optional

__all__ = ["LEASED", "Reclaimer", "pin_of"]

LEASED: Final = 1 << 63
"""Set in a position cell that holds the number of a leased item."""
_ONE_FILE: Final = 3 << 62
"""From this value on a position cell stands for one file."""
_SERIALS: Final = 40
"""Bits of a file's serial number."""


def pin_of(file: FileId) -> int:
    """Return the word of a position cell that keeps that file; another file of the same word is kept in vain."""
    return _ONE_FILE | (file.member << _SERIALS ^ file.serial) % (LEASED >> 1)


class Reclaimer:
    """What this process may delete."""

    __slots__ = (
        "_folder",
        "_glance",
        "_listing",
        "_long_pins",
        "_members",
        "_pending",
        "_replica",
        "announce",
        "forget",
        "may_remove",
        "scanned",
        "settle",
    )

    def __init__(self, folder: LogFolder, replica: Replica, members: Membership) -> None:
        self._folder = folder
        self._replica = replica
        self._members = members
        self.scanned = monotonic()
        """When this process, or another, last looked for the dead."""
        self._listing: Optional[Iterator[str]] = None
        """Names in the folder that the next scan looks at."""
        self._glance = tuning.SCAN_NAMES_LEAST
        """How many names it looks at."""
        self.forget: Callable[[FileId], object] = lambda file: None
        """Called before a file goes: then the reader in this process has no lock on it any more."""
        self.may_remove: Callable[[], bool] = lambda: True
        """Asked before a file goes."""
        self.announce: Callable[[], object] = lambda: None
        """Called where items have come back."""
        self.settle: Callable[[], object] = lambda: None
        """Called where items are held: some of them may be ours, though nobody has them any more."""
        self._pending: list[tuple[FileId, int, int]] = []
        self._long_pins: dict[int, tuple[int, float, Optional[set[FileId]]]] = {}

    # -- scans

    def is_due(self, now: float) -> bool:
        """Nobody may have scanned within the last second, as far as we know without a look."""
        return now - self.scanned > tuning.SCAN_EVERY

    def scan_if_due(self, now: float) -> bool:
        """Scan, unless somebody has scanned within the last second: one process does it for all.  Where the system has
        no space for a scan, or no descriptor, it is done later."""
        if not self.is_due(now):
            return False
        words = self._members.cells.words
        at = words[words_of.SCANNED] / 1e6
        # Else the last scan is long ago, or from before the machine was started; or we are in the middle of one.
        by_another = self._listing is None and 0 <= now - at < tuning.SCAN_EVERY
        self.scanned = at if by_another else now
        returned = len(self._replica.ledger.holds.returned)
        try:
            if self._replica.ledger.holds.held:
                self.settle()
            if by_another:
                return False
            words[words_of.SCANNED] = int(now * 1e6)
            self._scan()
        except OSError as error:
            if error.errno not in REMEDIES:  # else somebody does it later
                raise
        if len(self._replica.ledger.holds.returned) > returned:
            self.announce()
        return True

    def _scan(self) -> None:
        """Look for members that died, and for files that nobody removed.

        Of very many names a scan looks at as many as it can in a moment, for the caller may be about to get; the next
        scan goes on, and follows soon then."""
        began = monotonic()
        replica = self._replica
        replica.sync()
        self._members.bury_the_dead()
        if self._listing is None:
            self._listing = self._folder.listing()
        listed = list(islice(self._listing, self._glance))
        found = self._folder.batches(listed)
        # After the listing: a file's producer had joined before it made the file.
        replica.sync()
        ledger = replica.ledger
        known = {file for file, _, _ in self._pending}
        self._pending += [(file, 1 << 62, replica.now) for file in found if file not in known and ledger.is_done(file)]
        self.reclaim()
        self._folder.remove_free({member.number for member in ledger.members.by_slot.values()}, listed)
        self._folder.remove_old_journals(replica.journal.number, listed)
        if len(listed) < self._glance:
            self._listing = None
        else:
            ended = monotonic()
            took = max(ended - began, 1e-6)
            self.scanned = ended + tuning.SCAN_REST * took - tuning.SCAN_EVERY
            fitting = min(int(self._glance * tuning.SCAN_LOOK / took), 2 * self._glance, tuning.SCAN_NAMES)
            self._glance = max(fitting, tuning.SCAN_NAMES_LEAST)

    # -- reclaiming

    def reclaim_done(self) -> None:
        """Remove what is done by now, and what dead members have left: where all are busy, no waiter looks for it."""
        self.scan_if_due(monotonic())
        self._replica.ledger.trim()
        if self._replica.ledger.files.done or self._pending:
            self.reclaim()

    def reclaim(self) -> None:
        """Remove the batch files that nobody needs, as far as no member can still be about to open one."""
        replica, members = self._replica, self._members
        done = replica.ledger.files.done
        if done:
            self._pending += [(file, end, replica.now) for file, end in done]
            done.clear()
        if not self._pending:
            return
        locks.fence()  # the members' CLAIMs were read before their cells are
        members.see_all()
        words = members.cells.words
        # A member whose slot is beyond the cells has not grown them yet, and so has claimed nothing.
        pins = [
            (slot, words[Cells.place(words_of.POSITION, slot)])
            for slot, member in replica.ledger.members.by_slot.items()
            if member.consumer and slot < members.cells.slots
        ]
        # Of our own only pins of leases of all that comes: these may have ended, and the next get does not know it yet.
        pins = [(slot, word) for slot, word in pins if word >= _ONE_FILE or (word and slot not in members.slots)]
        kept = []
        for file, end, when in self._pending:
            if any(self._pins(slot, word, file, end, when) for slot, word in pins) or not self.may_remove():
                kept.append((file, end, when))
            else:
                self._remove(file)
        self._pending = kept

    def _remove(self, file: FileId) -> None:
        """Delete a batch file that nobody needs any more, or leave it to its producer."""
        self.forget(file)
        if file.large and not file.spilled and self._will_be_refilled(file):
            self._folder.free_batch(file)
        else:
            self._folder.remove_batch(file)

    def _will_be_refilled(self, file: FileId) -> bool:
        """The file's producer is still there, and there is space for other files."""
        members = self._replica.ledger.members.by_slot.values()
        return any(member.number == file.member for member in members) and not self._folder.is_nearly_full()

    def _pins(self, slot: int, word: int, file: FileId, end: int, when: int) -> bool:
        """The slot's position cell (``word``) says that its member may be about to open the batch file."""
        if word >= _ONE_FILE:
            return word == pin_of(file)
        if word & LEASED:
            return end > word - LEASED
        if word > when:  # the member began to claim after all items of this file had been claimed
            return False
        files = self._files_pinned(slot, word)
        return files is None or file in files

    def _files_pinned(self, slot: int, word: int) -> Optional[set[FileId]]:
        """The batch files of the items that the slot has claimed since its cell had that word; ``None``: not known, so
        any."""
        now = monotonic()
        seen = self._long_pins.get(slot)
        if seen is None or seen[0] != word:
            self._long_pins[slot] = word, now + tuning.PIN_PATIENCE, None
            return None
        _, ask_at, files = seen
        if files is None and now >= ask_at:
            files = self._files_claimed(slot, word)
            # None found: the member was stopped before its CLAIM, and may pin later files yet.
            self._long_pins[slot] = word, now + tuning.PIN_PATIENCE, files or None
        return files

    def _files_claimed(self, slot: int, word: int) -> Optional[set[FileId]]:
        """Read from the journal in which files the items lie that the slot has claimed since its cell had that word."""
        number = (word - SHIFT) // SIZE
        for back in (1, 0):
            try:
                journal, begin = self._folder.open_journal(self._replica.journal.number - back)
            except FileNotFoundError:
                continue
            try:
                ledger = snapshot.load(begin)
                if ledger.position.base + ledger.position.limit <= number:
                    continue
                if ledger.position.base > number:
                    return None
                at = replay(journal, ledger, word)
                ledger.watch.slot = slot
                applied = -1
                while True:
                    if ledger.watch.items or not applied:
                        break
                    applied = ledger.apply(journal.read(at, SIZE * 8))
                    at += applied
                if ledger.watch.items:
                    return {place.file for _, _, place in ledger.watch.items}
            finally:
                journal.close()
        return set()
