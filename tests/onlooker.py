"""What stands in a queue folder, seen from outside: without an engine, and so without repairs on the way.

Lives here: ``View``, a folder's files, locks, journal and cells as they are, and which of them are there only because a
process was killed; ``Walk``, which notes line by line what an act changes in the folder; ``Halt``, which kills or stops
an act before one of its lines.  Not here: the acts (``test_crash_table``), which process repairs what is left
(``crash_table``).

Invariant: nothing here writes, and nothing opens ``members``, whose closing would drop a process's locks.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import re
import signal
import stat
import struct
import sys
import termios
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple, Optional

import tqshim
from tqshim.protocol import events, index, names, snapshot
from tqshim.protocol.ledger import Ledger
from tqshim.protocol.names import FileId
from tqshim.protocol.records import SHUT_AT_ONCE
from tqshim.runtime import late
from tqshim.storage.member_locks import TOLD
from tqshim.sync import cells as words_of
from tqshim.sync.cells import ASLEEP, AWAITS_DONE, AWAITS_PLACE, KINDS, SLEEPS, SLOTS, Cells

_LATE = "queues.buffers engine.durable engine.keyed engine.keys storage.corrupt storage.hardening storage.large_records"
for _room in _LATE.split():
    late.room(_room)  # Now: the lines of a room that is imported in the middle of an act are no steps of it.

__all__ = ["LOCKS", "PACKAGE", "Halt", "Place", "Step", "View", "Walk"]

LOCKS: Final = "/proc/locks"
LOOKS: Final = 5
"""Looks at it, at most."""
PACKAGE: Final = os.path.dirname(os.path.abspath(tqshim.__file__)) + os.sep
TYPES: Final = {
    getattr(events, name): name for name in (made.rstrip("_").upper() for made in events.__all__ if made.islower())
}
CELLS: Final = {
    words_of.SLEEPS: "sleep cell",
    words_of.AWAITS_PLACE: "sleep cell",
    words_of.AWAITS_DONE: "sleep cell",
    words_of.COUNTER: "COUNTER",
    words_of.FLAG: "FLAG",
    words_of.POSITION: "POSITION",
    words_of.LEASE_POSITION: "LEASE_POSITION",
    words_of.LEASE_FLAG: "LEASE_FLAG",
    words_of.SCANNED: "SCANNED",
    words_of.BEYOND: "BEYOND",
    words_of.GIVEN: "GIVEN",
    words_of.CUT_UP_TO: "CUT_UP_TO",
    **dict.fromkeys(range(words_of.MARKS, words_of.PAGE // 8, SLOTS), "mark"),
    **dict.fromkeys(ASLEEP.values(), "ASLEEP"),
}
"""By kind of a slot's word, or by word of the whole queue: what the table calls it."""
BELLS: Final = {SLEEPS: names.BELL, AWAITS_PLACE: names.SPACE, AWAITS_DONE: names.DONE}
_SLOT_WORDS: Final = 512


class Lock(NamedTuple):
    """A line of /proc/locks."""

    kind: str
    """POSIX, FLOCK or OFDLCK."""
    alone: bool
    inode: int
    start: int
    end: int
    """The last byte."""


def locks_of(inodes: Iterable[int], known: Iterable[Lock] = ()) -> set[Lock]:
    """The locks that anybody holds of those files.  ``known``: the ones that were held a moment ago.

    The kernel shows its list a page at a time.  Where others let go of theirs in between, one may be left out, but none
    shown that is not there: what is missing, of a list that is longer than a page, is looked for again."""
    wanted = set(inodes)
    found, is_whole = _locks_of(wanted)
    for _ in range(LOOKS):
        if is_whole or found.issuperset(known):
            break
        more, is_whole = _locks_of(wanted)
        found = more if is_whole else found | more
    return found


def _locks_of(wanted: set[int]) -> tuple[set[Lock], bool]:
    """The locks that are shown, and whether that is all: it came in one piece."""
    found = set()
    with open(LOCKS, "rb", buffering=0) as file:
        pieces = list(iter(lambda: file.read(1 << 16), b""))
    for line in b"".join(pieces).decode().splitlines():
        fields = line.split()
        if fields[1] != "->" and int(fields[5].rpartition(":")[2]) in wanted:
            end = sys.maxsize if fields[7] == "EOF" else int(fields[7])
            found.add(Lock(fields[1], fields[3] == "WRITE", int(fields[5].rpartition(":")[2]), int(fields[6]), end))
    return found, len(pieces) < 2


def slots_of(locks: Iterable[Lock]) -> set[tuple[int, int]]:
    """The single bytes of a file that somebody has locked for itself; neighbours are one lock."""
    # Those of the bytes behind only tell which process has locked a slot's.
    bytes_of = (lock for lock in locks if lock.alone and lock.kind != "FLOCK" and lock.end < TOLD)
    return {(lock.inode, at) for lock in bytes_of for at in range(lock.start, lock.end + 1)}


def kind(name: str) -> str:
    """What kind of file has that name: the name up to where it becomes its own."""
    if name.startswith(names.DEAD):
        return names.DEAD
    found = re.match(r"[a-z]+_|[a-z]+$", name)
    return found[0] if found else "folder"


def rings_of(path: str) -> int:
    """Rings of a bell that nobody has heard yet."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return 0
    try:
        return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0])
    finally:
        os.close(fd)


class Batch:
    """A batch file's index, and what stands behind its last record."""

    def __init__(self, file: FileId, data: bytes) -> None:
        self.file = file
        self.begin = index.data_begin(file.serial)
        self.ends = memoryview(data[: self.begin]).cast("Q") if len(data) >= self.begin else None
        self.data = data

    def goes_beyond(self, records: int) -> bool:
        """Something was written behind so many records."""
        if self.ends is None or not self.ends[0]:
            return False
        return bool(self.ends[records + 1]) or any(self.data[self.ends[records] :][:64])


class View:
    """One queue folder, as it is now: the only one below ``root``."""

    def __init__(self, root: str) -> None:
        self.folder: Optional[str] = None
        self.files: dict[str, os.stat_result] = {}
        self.ledger: Optional[Ledger] = None
        self.words = memoryview(bytes(words_of.PAGE)).cast("Q")
        self.batches: dict[FileId, Batch] = {}
        walked = [(path, inner) for path, inner, _ in os.walk(root) if path != root]
        leaves = [path for path, inner in walked if all(os.path.islink(f"{path}/{name}") for name in inner)]
        if not leaves:
            return
        assert len(leaves) == 1, leaves
        self.folder = leaves[0]
        for entry in os.scandir(self.folder):
            self.files[entry.name] = entry.stat(follow_symlinks=False)
        status = os.stat(self.folder)
        self.inode = status.st_ino
        inodes = [self.inode, *(file.st_ino for file in self.files.values())]
        self.locks = locks_of(inodes, [Lock("any", False, 0, 0, 0)])
        self._read_journal()
        with contextlib.suppress(FileNotFoundError):
            data = self._read(names.CELLS)
            if len(data) >= words_of.PAGE:
                self.words = memoryview(data[: len(data) // words_of.PAGE * words_of.PAGE]).cast("Q")
        for name in (*self.files, *self._spilled()):
            parsed = names.parse(os.path.basename(name))
            if parsed is not None and parsed.kind in (names.LOAD, names.READY):
                file = FileId(*parsed.numbers)
                with contextlib.suppress(FileNotFoundError):  # a helper has just removed it
                    self.batches[file] = Batch(file, self._read(name))

    def _read(self, name: str) -> bytes:
        with open(os.path.join(self.folder or "", name), "rb") as file:
            return file.read()

    def _spilled(self) -> list[str]:
        with contextlib.suppress(OSError):
            return [f"{names.SPILL}/{name}" for name in os.listdir(f"{self.folder}/{names.SPILL}")]
        return []

    def _of(self, prefix: str) -> list[str]:
        return sorted(name for name in self.files if name.startswith(prefix))

    def _read_journal(self) -> None:
        self.number = max((int(name[len(names.JOURNAL) :]) for name in self._of(names.JOURNAL)), default=-1)
        if self.number >= 0:
            data = self._read(names.journal(self.number))
            size = snapshot.size_of(data[:16])
            self.ledger = snapshot.load(data[:size])
            self.ledger.apply(data[size:])

    # -- members

    def lives(self, slot: int) -> bool:
        """Somebody holds the lock of that slot."""
        members = self.files[names.MEMBERS].st_ino
        return any(lock.inode == members and lock.start <= slot <= lock.end for lock in self.locks)

    def word(self, word_kind: int, slot: int) -> int:
        return self.words[Cells.place(word_kind, slot)] if slot < len(self.words) * SLOTS // (words_of.PAGE // 8) else 0

    def counters(self) -> bytes:
        starts = range(words_of.COUNTER, len(self.words), words_of.PAGE // 8)
        return b"".join(self.words[at : at + SLOTS].tobytes() for at in starts)

    # -- items

    def _uncut(self, slots: Iterable[int]) -> int:
        assert self.ledger is not None
        before = self.ledger.uncut(self.counters())
        alone = memoryview(bytearray(self.counters())).cast("Q")
        for slot in slots:
            if slot < len(alone):  # else its member has not grown the cells yet
                alone[slot] = 0
        return before - self.ledger.uncut(alone.tobytes())

    def items(self) -> tuple[int, int]:
        """How many were ever put, and how many of them somebody may still get."""
        if self.ledger is None:
            return 0, 0
        ledger, lease = self.ledger, self.ledger.leases.standing
        head = ledger.head
        if lease is not None:
            head = max(ledger.leases.passed, min(self.word(words_of.LEASE_POSITION, lease.slot), lease.end))
        uncut = ledger.uncut(self.counters())
        if ledger.leases.sole:
            given = {slot: self.word(words_of.GIVEN, slot) for slot in ledger.files.filling}
            head += sum(max(0, at - ledger.totals[slot]) for slot, at in given.items())
        return ledger.tail + uncut, ledger.tail - head + uncut + len(ledger.holds.returned) + len(ledger.holds.held)

    def taken(self, before: View) -> bool:
        """Somebody has taken items since then, which nobody else will get."""
        if self.ledger is None or self.ledger.ending.shut == SHUT_AT_ONCE:
            return False
        (put, there), (put_then, there_then) = self.items(), before.items()
        return put - there > put_then - there_then

    # -- what is left of who was killed

    def left(self) -> set[str]:
        """What is there only because somebody was killed, by the words of the crash table."""
        if self.folder is None:
            return set()
        home = os.path.basename(self.folder)
        if home.startswith(names.DEAD):
            return {"dead_ folder"}
        if names.is_anonymous(home) and not any(lock.inode == self.inode for lock in self.locks):
            return {"folder of nobody"}
        if self.ledger is None:
            return {"no journal"}
        found = set(self._left_files(self.ledger))
        found |= set(self._left_members(self.ledger))
        found |= set(self._left_batches(self.ledger))
        found |= set(self._left_sleepers(self.ledger))
        if self.ledger.holds.returned:
            found.add("returned item")
        if self.ledger.ending.shutting > self.ledger.ending.shut:
            found.add("CLOSING alone")
        return found

    def _left_files(self, ledger: Ledger) -> Iterator[str]:
        journals = {self.files[name].st_ino for name in self._of(names.JOURNAL)}
        if len(journals) > 1:
            yield "old journal"
        decided = ledger.position.sealed
        for name in self._of("roll_"):
            if self.files[name].st_ino in journals:
                yield "second name"
            elif decided is not None and name == names.roll(self.number + 1, f"{decided:010x}"):
                yield "next journal"
            else:
                yield "roll_ file"
        if self._of("marker_"):
            yield "marker_"
        aside = self._of("corrupt_")
        if aside and len(aside) == 1:
            yield "reason alone"
        if names.SPILL in self.files:
            target = os.readlink(f"{self.folder}/{names.SPILL}")
            if not os.path.isdir(target):
                yield "spill link"
        numbers = [name for name in self._of("spare_") if int(name[6:]) <= self.number]
        if numbers:
            yield "old spare_"

    def _left_members(self, ledger: Ledger) -> Iterator[str]:
        lease = ledger.leases.standing
        if lease is not None:
            holder = ledger.members.by_slot.get(lease.slot)
            if holder is None or holder.number != lease.member or not self.lives(lease.slot):
                yield "lease"
            elif self.word(words_of.LEASE_FLAG, lease.slot):
                yield "raised LEASE_FLAG"
        for slot, member in ledger.members.by_slot.items():
            if self.lives(slot):
                if self.word(words_of.FLAG, slot) and not ledger.ending.shutting and slot in ledger.files.filling:
                    yield "raised FLAG"
                continue
            yield "dead member"
            if self._uncut([slot]):
                yield "uncut items"
            counter = self.word(words_of.COUNTER, slot)
            if counter < ledger.totals[slot]:
                yield "late COUNTER"
            own = ledger.reservations.by_slot.get(slot)
            if own is not None and own.stop > max(ledger.totals[slot], counter):
                yield "reserved places"
            if self.word(words_of.POSITION, slot):
                yield "pin"
            if any(held.member == member.number for held in ledger.holds.held.values()):
                yield "held item"
            filling = ledger.files.filling.get(slot)
            batch = self.batches.get(filling.file) if filling is not None else None
            records = max(ledger.totals[slot], counter)
            if filling is not None and batch is not None and batch.goes_beyond(records - filling.first):
                yield "unput record"
            if any(self.word(sleeps, slot) for sleeps in KINDS):
                yield "sleep cell"

    def _left_batches(self, ledger: Ledger) -> Iterator[str]:
        living = {member.number for slot, member in ledger.members.by_slot.items() if self.lives(slot)}
        filled = {filling.file for slot, filling in ledger.files.filling.items() if self._uncut([slot])}
        if any(int(name.split("_")[1], 16) not in living for name in self._of("free_")):
            yield "free_ file"
        for file in self.batches:
            wanted = file in filled or file in ledger.files.kept or ledger.files.ends.get(file, 0) > ledger.low
            if file.member not in living and not wanted:
                yield "batch file"

    def _left_sleepers(self, ledger: Ledger) -> Iterator[str]:
        _, there = self.items()
        place = ledger.maxsize and ledger.used < ledger.maxsize
        for sleeps, some in ((SLEEPS, there), (AWAITS_PLACE, place), (AWAITS_DONE, ledger.unfinished == 0)):
            living = [slot for slot in ledger.members.by_slot if self.word(sleeps, slot) and self.lives(slot)]
            if living and (some or ledger.ending.shut) and not rings_of(f"{self.folder}/{BELLS[sleeps]}"):
                yield "sleeper"
            if not living and self.words[ASLEEP[sleeps]]:
                yield "ASLEEP"


# --- what an act changes ---------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """A line that an act comes to for the ``count``-th time."""

    room: str
    line: int
    count: int


class Step(NamedTuple):
    """A change, the place whose line has made it, and how many places the act had come to before it was seen."""

    name: str
    place: Place
    after: int


class _Trace:
    """Called at each line of the package that this thread comes to."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], int] = {}
        self._stack = [Place("", 0, 0)]
        """Where each function of the package is that is being called just now."""

    def __enter__(self) -> _Trace:
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_: Any) -> None:
        sys.settrace(None)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What is done meanwhile is another's."""
        sys.settrace(None)
        try:
            yield
        finally:
            self._skip()
            sys.settrace(self._enter)

    def _skip(self) -> None:
        """Others have changed something."""

    def _enter(self, frame: Any, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        self._stack.append(self._stack[-1])
        return self._line

    def _line(self, frame: Any, event: str, argument: Any) -> Any:
        if event == "line":
            at = frame.f_code.co_filename[len(PACKAGE) :], frame.f_lineno
            count = self._counts[at] = self._counts.get(at, 0) + 1
            place = Place(*at, count)
            self._come(place)
            self._stack[-1] = place
        else:
            self._come(None)
            if event == "return":
                self._stack.pop()
        return self._line

    def _come(self, place: Optional[Place]) -> None:
        """To a line, or to the end of a function; where this was until now stands on the stack."""


class Halt(_Trace):
    """Sends this process a signal when it comes to a place."""

    def __init__(self, place: Place, how: signal.Signals) -> None:
        super().__init__()
        self._place = place
        self._how = how

    def _come(self, place: Optional[Place]) -> None:
        if place == self._place:
            os.kill(os.getpid(), self._how)


class Walk(_Trace):
    """Notes what changes below some folders, and where."""

    def __init__(self, *roots: str) -> None:
        super().__init__()
        self._roots = roots
        self._maps: dict[int, mmap.mmap] = {}
        self._contents: dict[int, bytes] = {}
        self._known: set[int] = set()
        self.steps: list[Step] = []
        self.places: list[Place] = []
        self._state: Any = ({}, {}, set())
        self._state = self._look()

    def _come(self, place: Optional[Place]) -> None:
        state = self._look()
        if state != self._state:
            changed = self._changes(self._state, state)
            self.steps += [Step(name, self._stack[-1], len(self.places)) for name in changed]
            self._state = state
        if place is not None:
            self.places.append(place)

    def _skip(self) -> None:
        self._state = self._look()

    def _look(self) -> tuple[dict[tuple[int, str], tuple[int, ...]], dict[int, bytes], set[Lock]]:
        entries: dict[tuple[int, str], tuple[int, ...]] = {}
        contents: dict[int, bytes] = {}
        todo = list(self._roots)
        while todo:
            folder = todo.pop()
            try:
                listed = list(os.scandir(folder))
            except FileNotFoundError:
                continue
            home = os.stat(folder).st_ino
            for entry in listed:
                with contextlib.suppress(FileNotFoundError):
                    found = entry.stat(follow_symlinks=False)
                    self._known.add(found.st_ino)
                    if stat.S_ISDIR(found.st_mode):
                        todo.append(entry.path)
                        entries[home, entry.name] = found.st_ino, found.st_mode
                    elif stat.S_ISFIFO(found.st_mode):
                        entries[home, entry.name] = found.st_ino, found.st_mode, rings_of(entry.path)
                    else:
                        row = found.st_ino, found.st_mode, found.st_size, found.st_blocks
                        entries[home, entry.name] = row
                        if entry.name == names.CELLS or kind(entry.name) in ("load_", "ready_", "free_"):
                            contents[found.st_ino] = self._content(entry.path, found)
        return entries, contents, locks_of(self._known, self._state[2])

    def _content(self, path: str, found: os.stat_result) -> bytes:
        """What stands there; the same object as long as it is the same."""
        if not found.st_size:
            return b""
        mapped = self._maps.get(found.st_ino)
        if mapped is None or len(mapped) != found.st_size:
            with open(path, "rb") as file:
                mapped = self._maps[found.st_ino] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        data = mapped[:]
        if self._contents.get(found.st_ino) != data:
            self._contents[found.st_ino] = data
        return self._contents[found.st_ino]

    def _changes(self, before: Any, after: Any) -> Iterator[str]:
        entries, contents, locks = before
        new_entries, new_contents, new_locks = after
        gone = {key: row for key, row in entries.items() if key not in new_entries}
        come = {key: row for key, row in new_entries.items() if key not in entries}
        for (_, name), row in come.items():
            former = next((key for key, other in gone.items() if other[0] == row[0]), None)
            if former is not None:
                del gone[former]
                yield f"rename {kind(former[1])} to {kind(name)}"
            elif any(other[0] == row[0] for other in entries.values()):
                other = next(key for key, other in entries.items() if other[0] == row[0])
                yield f"link {kind(other[1])} to {kind(name)}"
            elif stat.S_ISDIR(row[1]):
                yield "make folder"
            elif stat.S_ISLNK(row[1]):
                yield f"symlink {kind(name)}"
            else:
                yield f"{'make' if stat.S_ISFIFO(row[1]) else 'create'} {kind(name)}"
        homes = {row[0]: name for (_, name), row in entries.items()}
        for (inode, name), row in gone.items():
            home = homes.get(inode, "")
            if stat.S_ISDIR(row[1]):
                yield "remove folder"
            elif home.startswith(names.DEAD) or home.endswith(names.SPILLED):
                yield "unlink in dead_" if home.startswith(names.DEAD) else "unlink in spill"
            else:
                yield f"unlink {kind(name)}"
        for key, row in new_entries.items():
            former_row = entries.get(key)
            if former_row is None or former_row == row:
                continue
            name = kind(key[1])
            if stat.S_ISFIFO(row[1]):
                yield f"{'ring' if row[2] > former_row[2] else 'hear'} {name}"
            elif former_row[2] == row[2]:
                if row[0] not in new_contents or not row[2]:
                    yield f"reserve {name}"
            elif name == "journal_":
                yield "append " + ", ".join(self._appended(key, former_row[2], row[2]))
            elif row[0] in new_contents and not former_row[2] and name != names.CELLS:
                yield f"allocate {name}"
            else:
                yield f"write {name}"
        for inode, content in new_contents.items():
            former_content = contents.get(inode)
            if former_content is None or former_content is content or len(former_content) != len(content):
                continue
            name = next(name for (_, name), row in new_entries.items() if row[0] == inode)
            yield from self._stored(name, former_content, content)
        for lock in sorted(new_locks - locks):
            if lock.kind == "FLOCK":
                yield "lock folder alone" if lock.alone else "hold folder"
        for lock in sorted(locks - new_locks):
            if lock.kind == "FLOCK" and not any(other.inode == lock.inode for other in new_locks):
                yield "let go of folder"
        slots, new_slots = slots_of(locks), slots_of(new_locks)
        yield from ["lock slot"] * len(new_slots - slots)
        yield from ["unlock slot"] * len(slots - new_slots)

    def _appended(self, key: tuple[int, str], begin: int, end: int) -> list[str]:
        for root in self._roots:
            for folder, _, files in os.walk(root):
                if key[1] in files and os.stat(folder).st_ino == key[0]:
                    with open(os.path.join(folder, key[1]), "rb") as file:
                        file.seek(begin)
                        return [TYPES[event] for event in file.read(end - begin)[:: events.SIZE]]
        raise AssertionError(f"{key[1]} is gone")

    def _stored(self, name: str, before: bytes, after: bytes) -> Iterator[str]:
        if name == names.CELLS:
            for word, (old, new) in enumerate(zip(memoryview(before).cast("Q"), memoryview(after).cast("Q"))):
                if old != new:
                    word %= words_of.PAGE // 8
                    label = CELLS[word if _SLOT_WORDS <= word < words_of.GIVEN else word // SLOTS * SLOTS]
                    yield f"store {label}" if new else f"clear {label}"
            return
        parsed = names.parse(name)
        assert parsed is not None
        begin = index.data_begin(parsed.numbers[1])
        if before[:begin] != after[:begin]:
            yield "write index"
        if before[begin:] != after[begin:]:
            yield "write record"
