"""What is wrong with a queue folder.

Lives here: naming every file that is damaged, left over or unknown.  Not here: mending (``moving``).

Invariant: a check writes nothing, and no finding keeps it from looking at the rest.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, Optional

from tqshim.errors import FolderError
from tqshim.monitor.looking import in_use
from tqshim.monitor.records import SeenBatch
from tqshim.monitor.seen import Stretch
from tqshim.monitor.view import View
from tqshim.protocol import events, index, names
from tqshim.protocol.ledger import Ledger
from tqshim.protocol.names import FileId
from tqshim.storage.places import is_late
from tqshim.sync.cells import PAGE

__all__ = ["Finding", "Level", "check"]

Level = str
NOTE: Final[Level] = "note"
"""As it should be, or soon will be."""
LEFTOVER: Final[Level] = "leftover"
"""Nothing is lost; a file that nobody needs, or that is not the queue's."""
DAMAGE: Final[Level] = "damage"
"""Items are lost, or the queue can't go on."""

_GUESS: Final = "restore it, or recover --into a new folder what its batch files hold, also what somebody had got"
_BEGUN: Final = "has no journal and no items: who was to make a queue there was stopped, or found no space"
_KNOWN: Final = {getattr(events, maker.rstrip("_").upper()) for maker in events.__all__ if maker.islower()}
"""Types of events: ``events`` has a function that makes each of them.  Events of all other types are void."""
_CHUNK: Final = 1 << 16
"""Bytes of a journal, and records of a batch file, that are checked at a time."""
_KINDS: Final = {**dict.fromkeys((names.BELL, names.SPACE, names.DONE), stat.S_ISFIFO), names.SPILL: stat.S_ISLNK}
"""By kind of name: what such a file must be; files of all other kinds must be plain files."""
_LATER: Final = re.compile(r"[a-z]+(_[0-9a-f]+)*")
"""How the name of a queue's file looks, also one that only a later version knows."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found."""

    level: Level
    """``"note"``, ``"leftover"`` or ``"damage"``."""
    path: str
    finding: str
    remedy: str

    @property
    def status(self) -> int:
        """The exit status that it is worth: 0, 1 or 2."""
        return (NOTE, LEFTOVER, DAMAGE).index(self.level)


class _Lost(NamedTuple):
    """Items that can't be read."""

    items: Stretch
    name: str
    """The name of their batch file."""
    problem: str


def check(path: str, *, authkey: Optional[bytes] = None) -> list[Finding]:
    """All that is wrong with a queue folder; nothing: it is sound.

    ``authkey``: that of the queue, if it has one: then the HMAC of each record that somebody may still get is checked.
    A queue in use is looked at as it is in one moment; what its users are about to remove is a note.  Raises
    ``FileNotFoundError``, ``NotADirectoryError``, ``PermissionError``; ``FolderError`` where it is no queue;
    ``ValueError`` for a wrong ``authkey``.

    >>> queue = TurboQueue(path="jobs")
    >>> queue.put("a")
    >>> [finding for finding in check("jobs") if finding.status]
    []"""
    with View(path, authkey) as view:
        return sorted(_Check(view).run(), key=lambda found: (-found.status, found.path))


class _Check:
    def __init__(self, view: View) -> None:
        self.view = view
        self.listed = view.names()
        self.in_use = bool(in_use(view))
        self.ledger: Optional[Ledger] = None

    def run(self) -> Iterator[Finding]:
        kinds = Counter(name.kind for name in map(names.parse, self.listed) if name is not None)
        if not kinds:
            raise FolderError(self.view.path, "holds nothing of a queue", "give the folder of a queue")
        if self.view.is_begun():
            yield self._found(LEFTOVER, "", _BEGUN, "make it there again, or rm deletes it")
            return
        yield from self._folder(bool(kinds["journal"]))
        yield from self._journals(kinds)
        spilled = self.view.spilled_names()
        yield from self._names()
        if self.ledger is not None:
            if self.ledger.settings.proof and self.view.key is None:
                remedy = "give it (TQSHIM_AUTHKEY, or authkey=) to have them checked"
                yield self._found(NOTE, "", "was made with an authkey: its records' HMACs are not checked", remedy)
            yield from self._counters()
            yield from self._items(self.ledger)
            yield from self._batches(self.ledger, spilled)
            yield from self._members(self.ledger)
        for name in (names.CELLS, names.MEMBERS):
            if not kinds[name]:
                yield self._damage(name, "is missing", "recover the items into a new folder")

    def _found(self, level: Level, name: str, finding: str, remedy: str) -> Finding:
        return Finding(level, f"{self.view.path}/{name}" if name else self.view.path, finding, remedy)

    def _damage(self, name: str, finding: str, remedy: str) -> Finding:
        return self._found(DAMAGE, name, finding, remedy)

    def _leftover(self, name: str, finding: str) -> Finding:
        """Report a file that the queue's users remove, if there are any."""
        if self.in_use:
            return self._found(NOTE, name, finding, "its users will remove it")
        return self._found(LEFTOVER, name, finding, "recover removes it, and so does the next user that waits a second")

    # -- the folder and its names

    def _folder(self, is_queue: bool) -> Iterator[Finding]:
        status = os.fstat(self.view.fd)
        if status.st_uid != os.geteuid():
            yield self._found(NOTE, "", f"belongs to user {status.st_uid}", "only that user can use it")
        if status.st_mode & 0o077:
            may = "write to" if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) else "look into"
            mode = f"others may {may} it (mode {stat.S_IMODE(status.st_mode):04o})"
            remedy = "nobody can use it so: chmod 700, after a look at what lies there"
            yield self._damage("", mode, remedy if is_queue else "see whether it is a queue's folder at all")

    def _names(self) -> Iterator[Finding]:
        newest = self.view.newest()
        for name in sorted(self.listed):
            try:
                status = os.stat(name, dir_fd=self.view.fd, follow_symlinks=False)
            except FileNotFoundError:  # removed since it was listed, as it should be
                continue
            parsed = names.parse(name)
            if parsed is None:
                later = ", or a later version's" if _LATER.fullmatch(name) else ""
                yield self._found(LEFTOVER, name, f"is no file of a queue{later}", "see who put it there")
                continue
            if not _KINDS.get(parsed.kind, stat.S_ISREG)(status.st_mode):
                yield self._damage(name, f"is a {_kind(status.st_mode)}", "see who put it there, and delete it")
                continue
            if status.st_uid != os.fstat(self.view.fd).st_uid:
                yield self._damage(name, f"belongs to user {status.st_uid}", "see who put it there")
            if parsed.kind == "corrupt":
                yield self._found(LEFTOVER, name, "was set aside as damaged", "look at it, and delete it")
            elif parsed.kind == "journal" and newest is not None and parsed.numbers[0] < newest:
                yield self._leftover(name, "is an old journal")
            elif parsed.kind in ("roll", "spare") and newest is not None and parsed.numbers[0] <= newest:
                yield self._leftover(name, "was prepared for a journal that is there")
            elif parsed.kind == "roll" and not self.in_use and not self._is_next(name):
                yield self._leftover(name, "was prepared for the next journal by somebody who is gone")
            elif parsed.kind == "free" and not self._is_a_members(parsed.numbers[0]):
                yield self._leftover(name, "was to be refilled by a producer that is gone")
            elif parsed.kind == "marker" and is_late(status):
                yield self._leftover(name, "speaks of a handle that never arrived")
            elif parsed.kind == "cells" and newest is not None and status.st_size < PAGE:
                # A part of a page behind whole ones is harmless: the disk was full when it was added, nobody uses it.
                yield self._damage(name, f"has {status.st_size} bytes, no whole page", "recover into a new folder")

    def _is_a_members(self, number: int) -> bool:
        ledger = self.ledger
        return ledger is not None and any(member.number == number for member in ledger.members.by_slot.values())

    def _is_next(self, name: str) -> bool:
        """Whether the newest journal has decided for this file as the next; then the file only lacks its name."""
        return self.ledger is not None and os.fstat(self.view.journal.fd).st_ino == (
            os.stat(name, dir_fd=self.view.fd, follow_symlinks=False).st_ino
        )

    # -- journals

    def _journals(self, kinds: Counter[str]) -> Iterator[Finding]:
        if not kinds["journal"]:
            if self.view.has_batches():
                yield self._damage("", "has no journal", _GUESS)
            else:
                yield self._found(LEFTOVER, "", _BEGUN, "make it there again, or delete the folder")
            return
        try:
            self.ledger = self.view.look()
        except FileNotFoundError:
            raise
        except FolderError as error:
            yield Finding(DAMAGE, error.path, error.finding, error.remedy if self.view.former else _GUESS)
            return
        except OSError as error:
            yield self._damage("", f"its journal can't be read: {error}", "see who may read it")
            return
        yield from self._events()

    def _events(self) -> Iterator[Finding]:
        """Report bytes of the newest journal that are no events."""
        journal = self.view.journal
        name = names.journal(journal.number)
        size = os.fstat(journal.fd).st_size
        at, end = journal.start, self.view.read_to
        unknown: Counter[int] = Counter()
        while at < end:
            chunk = os.pread(journal.fd, min(_CHUNK, end - at), at)
            if not chunk:
                break
            unknown.update(kind for kind in chunk[:: events.SIZE] if kind not in _KNOWN)
            at += len(chunk)
        for kind, count in sorted(unknown.items()):
            yield self._damage(
                name,
                f"has {count} events of the unknown type {kind}",
                "a later version's, or torn: use that version, or recover the items into a new folder",
            )
        torn = (size - journal.start) % events.SIZE
        if torn and not self._grows(size):
            yield self._damage(name, f"ends with {torn} bytes of a torn event", "recover the items into a new folder")
        elif end < size - torn and not any(os.pread(journal.fd, events.SIZE, end)) and not self._grows(size):
            finding = f"has a hole at byte {end}"
            if self.view.ledger.settings.durable and not self.in_use:
                remedy = "a power cut has left it: the next user goes on from there, and nothing is lost"
                yield self._found(NOTE, name, finding, remedy)
            else:
                yield self._damage(name, finding, "recover the items into a new folder")

    def _grows(self, size: int) -> bool:
        """Whether somebody is just writing to the journal."""
        return self.in_use and os.fstat(self.view.journal.fd).st_size != size

    # -- batch files

    def _counters(self) -> Iterator[Finding]:
        for slot, counter, most in self.view.impossible_counters():
            finding = f"says that slot {slot} has put {counter} records: it can have put {most} at most"
            yield self._damage(names.CELLS, finding, "recover the items into a new folder")

    def _items(self, ledger: Ledger) -> Iterator[Finding]:
        """Report items that can't be read."""
        view = self.view
        for peeked in (*view.read_apart(ledger.holds.held.values()), *view.read_apart(ledger.holds.returned)):
            if peeked.problem and not self._has_gone(peeked.number):
                finding = f"{peeked.problem}: item {peeked.number}, which a block of claimed has or had"
                yield self._damage(peeked.file, finding, "who gets it next is told, all others arrive")
        lost = [one for stretch in view.stretches() for one in self._lost(stretch)]
        if lost and self.in_use:  # items that were got since the look may have gone
            view.look()
            wait = view.still_wait(one.items.part(at, 1).place for one in lost for at in range(one.items.size))
            counts = [sum(one.items.part(at, 1).place in wait for at in range(one.items.size)) for one in lost]
        else:
            counts = [one.items.size for one in lost]
        by_file: dict[str, tuple[str, int]] = {}
        for one, count in zip(lost, counts):
            if count:
                problem, before = by_file.get(one.name, (one.problem, 0))
                by_file[one.name] = problem, before + count
        for name, (problem, count) in by_file.items():
            finding = f"{problem}: {count} items that nobody got"
            yield self._damage(name, finding, "get raises CorruptBatchError for them, all others arrive")

    def _lost(self, stretch: Stretch) -> Iterator[_Lost]:
        """Yield the items of a stretch that can't be read."""
        name = names.batch(names.READY, stretch.place.file)
        try:
            batch = self.view.batch(stretch.place.file)
            for at in range(0, stretch.size, _CHUNK):
                yield from self._lost_of(batch, stretch.part(at, _CHUNK))
        except FileNotFoundError:
            yield _Lost(stretch, name, "is missing")
        except (ValueError, OSError) as error:
            yield _Lost(stretch, name, str(error))

    def _lost_of(self, batch: SeenBatch, part: Stretch) -> Iterator[_Lost]:
        if not batch.verified and batch.is_sound(part.place.record, part.size):
            return
        for at in range(part.size):
            try:
                if batch.verified:
                    batch.record(part.place.record + at)
                else:
                    batch.place(part.place.record + at)
            except ValueError as error:
                yield _Lost(part.part(at, 1), batch.name, str(error))

    def _has_gone(self, item: int) -> bool:
        """Whether an item that was held or had come back has been got since the look."""
        if not self.in_use:
            return False
        ledger = self.view.look()
        held, returned = ledger.holds.held.values(), ledger.holds.returned
        return all(one.item != item for one in held) and all(one.item != item for one in returned)

    def _batches(self, ledger: Ledger, spilled: list[str]) -> Iterator[Finding]:
        for home, listed in ((0, self.listed), (1, spilled)):
            for name in sorted(listed):
                parsed = names.parse(name)
                place = f"spill/{name}" if home else name
                if parsed is None or parsed.kind not in (names.LOAD, names.READY):
                    if home:
                        yield self._found(LEFTOVER, place, "is no batch file", "see who put it there")
                    continue
                file = FileId(*parsed.numbers)
                if file.spilled != bool(home):
                    yield self._damage(place, "lies in the wrong folder of the two", "see who moved it")
                elif ledger.is_done(file):
                    yield self._leftover(place, "has no items that somebody could get")
                else:
                    yield from self._index(ledger, place, name, bool(home), file)

    def _index(self, ledger: Ledger, place: str, name: str, spilled: bool, file: FileId) -> Iterator[Finding]:
        """Report a batch file that has no whole index although a producer fills it or it has items."""
        try:
            status = os.stat(name, dir_fd=self.view.spill() if spilled else self.view.fd, follow_symlinks=False)
        except OSError:  # gone since it was listed
            return
        if not stat.S_ISREG(status.st_mode) or status.st_size >= index.data_begin(file.serial):
            return
        finding = f"{status.st_size} bytes can't hold the index of {index.capacity(file.serial)} records"
        if file not in ledger.files.ends and file not in ledger.files.kept:
            yield self._found(NOTE, place, finding, "its producer is just making it, or was killed then")
        elif ledger.files.ends.get(file, 0) <= self.view.delivered and file not in ledger.files.kept:
            yield self._damage(place, finding, "its producer can't put any more: end it")

    def _members(self, ledger: Ledger) -> Iterator[Finding]:
        for member in self.view.members():
            if member.state == "dead":
                finding = f"the {member.role} of slot {member.slot} was killed, or no lock of it can be seen from here"
                yield self._found(NOTE, names.MEMBERS, finding, "the next user's scan buries it")


def _kind(mode: int) -> str:
    kinds = (
        ("plain file", stat.S_ISREG),
        ("folder", stat.S_ISDIR),
        ("symbolic link", stat.S_ISLNK),
        ("FIFO", stat.S_ISFIFO),
        ("socket", stat.S_ISSOCK),
    )
    return next((name for name, is_kind in kinds if is_kind(mode)), "device")
