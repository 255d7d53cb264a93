"""The journal as this process sees it: a ledger that follows it.

Lives here: appending, catching up, rolls.  Not here: what an event does (``ledger``), what to append (the acts).

Invariant: ``ledger`` has applied what stands before byte ``pos`` of ``journal``, or an act was interrupted, and the
next one begins with ``reload``.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from functools import partial
from struct import Struct

from tqshim.engine import tuning
from tqshim.errors import CorruptBatchError
from tqshim.protocol import events, snapshot
from tqshim.protocol.events import SIZE
from tqshim.protocol.ledger import Ledger
from tqshim.protocol.records import Verdict
from tqshim.runtime.clock import monotonic
from tqshim.storage.files import NO_SPACE, RECOVER
from tqshim.storage.folder import LogFolder
from tqshim.storage.journal import Journal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Optional

__all__ = ["SHIFT", "Replica", "replay"]

SHIFT: Final = 1 << 32
"""Added to a position, so that a cell with a position is never 0."""
_WORD: Final = Struct("<Q")
_EXTENTS_TO_COME: Final = 1 << 12
"""Extents that may be made in a journal before space for the next one can be set aside again."""


class Replica:
    """One journal after another, and the ledger that they make."""

    __slots__ = ("_half", "_kept", "_set_aside", "folder", "journal", "ledger", "pos", "rolled", "stale")

    def __init__(self, folder: LogFolder) -> None:
        self.folder = folder
        self._kept: Optional[Journal] = None
        """A journal that stays open as long as what it says of us may have to be read again."""
        self.stale = False
        """This process was forked: nothing here is its own."""
        self.rolled: Callable[[], object] = lambda: None
        """Called when the next journal has been opened."""

    def load(self) -> None:
        """Start at the newest journal."""
        self.journal, begin = self.folder.open_newest()
        self._check_frame()
        # Before ``sync``: this journal may be sealed, and its successor may have no name yet.
        self.folder.durable = snapshot.kind(begin)[0]
        self.start(snapshot.load(begin))
        self.sync()

    def follow(self, number: int, known: Ledger, pos: int) -> None:
        """Go on, in a forked child, where its parent stood.

        Raises ``FileNotFoundError`` where that journal was replaced."""
        self.journal, _ = self.folder.open_journal(number)
        self._check_frame()
        self.start(known)
        self.pos = pos
        self.sync()

    def start(self, ledger: Ledger) -> None:
        """Go on at the start of a journal, of which the ledger has applied nothing."""
        journal = self.journal
        self.ledger = ledger
        self.pos = journal.start
        self._half = journal.start + ledger.position.limit * SIZE // 2
        self._set_aside = ledger.next_limit

    def reload(self, slot: Optional[int], word: int) -> None:
        """Follow the journal anew from its start, noting in the ledger's ``watch`` what has become the slot's since its
        position cell had that word."""
        self.keep()
        assert self._kept is not None
        later, self.journal = self.journal, self._kept
        if later is not self._kept:  # this is another try, and the last try has got to this journal
            later.close()
        self.start(snapshot.load(self.journal.snapshot()))
        if slot is not None:
            self.pos = replay(self.journal, self.ledger, word)
            self.ledger.watch.slot = slot
        self.sync()
        self.ledger.watch.slot = None

    def keep(self) -> None:
        """Have ``reload`` begin with this journal until ``settled``: from here on an event may say what is ours, and a
        roll may follow before we have it."""
        if self._kept is None:
            self._kept = self.journal

    def settled(self) -> None:
        """Let the kept journal go: what is ours we have."""
        kept, self._kept = self._kept, None
        if kept is not None and kept is not self.journal:
            kept.close()

    def close(self) -> None:
        self.settled()
        self.journal.close()

    @property
    def now(self) -> int:
        """Where the ledger stands, as a position cell says it: by the number of an event in all the journals.  Past the
        journal's limit that is the journal's end: what counts next is the first event of the next journal."""
        ledger = self.ledger
        return (ledger.position.base + min(ledger.position.index, ledger.position.limit)) * SIZE + SHIFT

    def _check_frame(self) -> None:
        """Raise ``OSError`` where this process was forked in the middle of what calls this.

        Called where a file has just been opened and stored.  A fork before the store (in a signal handler) left the
        file to this frame, which goes no further; a fork after the store finds the file, and makes it useless."""
        if self.stale:
            raise OSError(errno.EBADF, "this frame's process was forked")

    # -- following

    def sync(self) -> None:
        """Apply all that others have written."""
        size = tuning.READ_SMALL
        while True:
            chunk = self.journal.read(self.pos, size)
            applied = self.ledger.apply(chunk) if chunk else 0
            self.pos += applied
            if self.ledger.position.sealed is not None:
                self._next_journal()
                continue
            if applied < size:
                return
            size = tuning.READ_LARGE

    def _catch_up(self, end: int) -> None:
        """Apply what stands before byte ``end`` of this journal: another's events, appended before ours."""
        deadline = 0.0
        while self.pos < end:
            applied = self.ledger.apply(self.journal.read_written(self.pos, min(tuning.READ_LARGE, end - self.pos)))
            self.pos += applied
            if not applied:  # written, but not to be seen yet
                deadline = deadline or monotonic() + tuning.UNSEEN_PATIENCE
                if monotonic() > deadline:
                    raise self.damaged(f"no event at byte {self.pos}, before others")
                time.sleep(1e-4)

    def damaged(self, finding: str) -> CorruptBatchError:
        """Return the error that says ``finding`` of this journal."""
        return CorruptBatchError(self.journal.path, finding, RECOVER)

    # -- appending

    def append(self, data: bytes, again: Optional[Callable[[], bytes]] = None) -> list[Verdict]:
        """Append events, all in one piece, and return what each came to.

        Events that came too late for this journal are appended again after a roll.  ``again``: what it returns is
        appended then instead, for the last event must not count unless the ones before it were seen to in the same
        piece.

        Commit point of whatever the events say.  Raises ``OSError``: where there is no space, nothing has happened."""
        verdicts: list[Verdict] = []
        while True:
            ledger = self.ledger
            if ledger.position.index >= ledger.position.limit:
                # First: no more void events are appended while there is no space for a roll.
                self.roll()
            size = len(data)
            end = self.journal.append(data, self.pos)
            if end - size != self.pos:
                self._catch_up(end - size)
            ledger = self.ledger
            counts = (ledger.position.limit - ledger.position.index) * SIZE
            for (event,) in _WORD.iter_unpack(data):
                verdicts.append(ledger.step(event))
            self.pos = end
            if counts >= size:
                if end > self._half:
                    self.set_space_aside()
                return verdicts
            if again is None:
                data = data[max(0, counts) :]
                del verdicts[len(verdicts) - len(data) // SIZE :]
                continue
            verdicts.clear()
            data = again()
            if not data:
                return verdicts

    def append_one(self, data: bytes) -> Verdict:
        """Do ``append``, and return what the last of the events came to."""
        return self.append(data)[-1]

    def claim(self, event: bytes, cuts: bytes) -> int:
        """Append these CUTs and this CLAIM, which are void where they come too late for this journal; return the item,
        or -1."""
        journal, at = self.journal, self.pos
        end = journal.append(cuts + event, at)
        begin = end - SIZE - len(cuts)
        if begin != at:
            self._catch_up(begin)
        ledger = self.ledger
        for (cut,) in _WORD.iter_unpack(cuts):
            ledger.step(cut)
        if ledger.position.index >= ledger.position.limit:
            ledger.step(_WORD.unpack(event)[0])
            item = -1
        else:
            item = ledger.claim()
        self.pos = end
        if end > self._half:
            self.set_space_aside()
        return item

    def set_space_aside(self) -> None:
        """Reserve space for the next journal: for what it begins with, if from now on each event makes an extent, and
        for a claim of each waiting item.  Then all these items can still be claimed on a disk that is full by then, and
        on which others take whatever is given back."""
        ledger = self.ledger
        if self.pos > self._half:
            self._half = 1 << 62
        self._set_aside = ledger.wanted_limit
        words = snapshot.words_after(ledger, min(ledger.position.limit - ledger.position.index, _EXTENTS_TO_COME))
        self.folder.set_space_aside(self.journal.number + 1, self._set_aside + words)

    @property
    def wants_space_aside(self) -> bool:
        """More items wait than the space that was set aside has room for."""
        ledger = self.ledger
        return ledger.tail - ledger.head > self._set_aside and self._set_aside < ledger.most_limit

    # -- rolls

    def roll(self) -> None:
        """This journal is full: decide on the next, and go there."""
        number = self.journal.number + 1
        # The process that takes the spare is likely to win: the others need not all write down the same state.
        begun = monotonic()
        patience = begun + tuning.ROLL_PATIENCE + tuning.ROLL_PATIENCE_WORD * self.ledger.extents.words
        while self.ledger.position.sealed is None and monotonic() < patience and not self.folder.has_spare(number):
            time.sleep(1e-3)
            self.sync()
            if self.journal.number >= number:
                return
        whole = True
        while self.ledger.position.sealed is None:
            try:
                key = self._prepare_roll(number, whole)
            except OSError as error:
                if error.errno not in NO_SPACE:
                    raise
                # Another process may have taken the space that was set aside, and be kept from running.  A shorter
                # journal of ours must not come before its journal: then perhaps not all waiting items could be claimed,
                # and nothing else frees space.
                rolls = self.folder.has_roll(number)
                self.sync()
                if self.journal.number >= number:
                    return
                if monotonic() > (begun + tuning.ROLL_PATIENCE_FULL if rolls else patience + tuning.ROLL_PATIENCE):
                    if not whole:
                        raise
                    whole = False
                else:
                    time.sleep(1e-3)
                continue
            self._catch_up(self.journal.append(events.seal(int(key, 16))))
            if self.ledger.position.sealed != int(key, 16):
                self.folder.drop_roll(number, key)
        self._next_journal()

    def _prepare_roll(self, number: int, whole: bool) -> str:
        ledger = self.ledger
        begin = partial(snapshot.dump, ledger, True)
        prepare = partial(self.folder.prepare_roll, number, begin, ledger.next_limit, ledger.wanted_limit, whole)
        try:
            return prepare()
        except OSError as error:
            if error.errno not in NO_SPACE or not self.folder.remove_free():
                raise
            return prepare()

    def _next_journal(self) -> None:
        assert self.ledger.position.sealed is not None
        old = self.journal
        new = self.folder.finish_roll(old.number + 1, self.ledger.position.sealed)
        if new is None:  # this process lags: even the next journal is gone
            former = self.ledger
            deadline = monotonic() + tuning.UNSEEN_PATIENCE
            while True:
                self.journal, begin = self.folder.open_newest()
                self._check_frame()
                if self.journal.number > old.number:
                    break
                # A listing may miss a file that is renamed in that moment.
                if monotonic() > deadline:
                    self.journal.close()
                    self.journal = old
                    raise self.damaged(f"sealed, but journal_{old.number + 1} is not there")
                self.journal.close()
            self.start(snapshot.load(begin))
            self._go_on_watching(former)
        else:
            self.journal, begin = new
            self._check_frame()
            self.ledger.roll(snapshot.limit_of(begin))
            self.start(self.ledger)
        if old is not self._kept:
            old.close()
        # Now, and again at its half if it did not work: old journals go when the last process leaves them.
        self.set_space_aside()
        self.rolled()

    def _go_on_watching(self, former: Ledger) -> None:
        """Note what the watched slot's lease has got, where events were not seen, and are gone.

        Nothing else can have become the slot's by them: while its process asks what is its own, it claims nothing."""
        ledger = self.ledger
        ledger.watch = former.watch
        lease, watched = former.leases.standing, former.watch.slot
        if lease is None or watched is None or lease.slot != watched or former.leases.sole:
            return
        number, end = ledger.leases.ended.get(watched, (0, 0))
        if ledger.leases.standing == lease:
            end = ledger.leases.passed
        elif number != lease.number:
            return
        items = range(former.leases.passed, end)
        ledger.watch.items += [(former.position.number, item, former.place(item)) for item in items]


def replay(journal: Journal, ledger: Ledger, word: int) -> int:
    """Apply a journal's events up to where a position cell had that word; returns where that is."""
    number = (word - SHIFT) // SIZE
    at = journal.start
    while (missing := number - ledger.position.number) > 0:
        applied = ledger.apply(journal.read(at, min(tuning.READ_LARGE, missing * SIZE)))
        if not applied:
            break
        at += applied
    return at
