"""A queue folder as a bystander sees it.

Lives here: reading a queue's journal, cells and batch files; which queues there are, and who has them open.  Not here:
rates (``watching``), damage (``checking``), what takes or puts items (``moving``).

Invariant: nothing here writes, locks, joins or waits.  All files are opened for reading only, relative to the folder's
own descriptor, and never through a symbolic link; what is no plain file is not read.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Optional, Union

from tqshim import blocks, events, names, systems, tuning, waiting
from tqshim.errors import CorruptBatchError, FolderError
from tqshim.extents import Block
from tqshim.folder import Journal, anonymous_root, lock_owners, spill_root
from tqshim.keys import Key, match
from tqshim.ledger import Held, Ledger, Returned
from tqshim.names import FileId
from tqshim.waiting import Cells

__all__ = [
    "Member",
    "Peeked",
    "Process",
    "Status",
    "Summary",
    "View",
    "in_use",
    "is_queue",
    "open_by",
    "peek",
    "queues",
    "roots",
    "status",
    "users",
]

SEEN: Final = 1000
"""Listings in which a journal may be missed: one is missed only if it is rolled in that very moment."""
PREVIEW: Final = 32
"""Bytes of a record that ``peek`` shows."""
_FLAGS: Final = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | os.O_NONBLOCK
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | getattr(os, "O_CLOEXEC", 0)


@dataclass(frozen=True)
class Process:
    """A process that has a queue open."""

    pid: int
    """0: one that can't be seen from here."""
    command: str


@dataclass(frozen=True)
class Member:
    """A process in one of its two roles, as the journal and the locks tell."""

    slot: int
    number: int
    role: str
    """``"consumer"`` or ``"producer"``."""
    state: str
    """``"alive"``, ``"dead"``, or ``"unknown"`` where the locks can't be asked."""
    process: Optional[Process]
    waits: bool
    """It sleeps until there is an item, or a place, or until all items are finished with."""


@dataclass(frozen=True)
class Summary:
    """A queue in one line."""

    path: str
    items: Optional[int]
    """Items that can be got now; ``None`` where the queue could not be read: then ``problem`` says why."""
    bytes: int
    """Bytes that its files take on disk, those in its spill folder too."""
    batches: int
    consumers: int
    producers: int
    open_by: list[Process]
    age: float
    """Seconds since the queue was made."""
    problem: str


@dataclass(frozen=True)
class Status:
    """A queue in detail.  Counts of items are since the queue was made."""

    path: str
    anonymous: bool
    maxsize: int
    """0: unbounded."""
    durable: bool
    """What was put survives a power cut."""
    keyed: bool
    """It was made with an ``authkey``."""
    items: int
    put: int
    got: int
    unfinished: int
    """Items that were put and for which nobody has called ``task_done``: of interest where somebody does."""
    shut: bool
    """The queue was shut down: nothing can be put any more."""
    held: int
    """Items that a block of ``claimed`` has: they are neither among ``items`` nor among ``got``."""
    returned: int
    """Items among ``items`` that were in such a block, and have come back."""
    redelivered: int
    """How often an item was taken again that had come back."""
    leased: int
    """Items that its only fast consumer works off on its own; they count among ``items`` until they are delivered."""
    reserved: int
    """Places that producers have set aside for their next puts."""
    places: Optional[int]
    """Places that are free; ``None``: any number."""
    item_bytes: int
    """Bytes of the blocks in which waiting items stand; a giant, alone in its file, counts as none."""
    oldest_at_least: Optional[float]
    """Seconds for which the oldest item has waited, at least; ``None`` where there is none."""
    journal: int
    """The number of the newest journal."""
    journal_events: int
    journal_limit: int
    """Events after which the journal is rolled."""
    journal_bytes: int
    batches: int
    bytes: int
    disk_free: int
    spill: Optional[str]
    consumers: int
    producers: int
    waiting_consumers: int
    waiting_producers: int
    members: list[Member]
    open_by: list[Process]
    age: float


@dataclass(frozen=True)
class Peeked:
    """An item that nobody has got, and the beginning of its record."""

    number: int
    """Its place among all items that were ever put, from 0."""
    size: int
    """Bytes of its record, its pickle."""
    preview: bytes
    file: str
    offset: int
    """Where in the file its record begins."""
    record: Optional[bytes]
    """All of it, where that was asked for."""
    problem: str
    """Why it can't be read, or nothing."""


class _SeenCells(Cells):
    """Cells as they were read: for looking only."""

    def __init__(self, data: bytes) -> None:
        self.pages = len(data) // waiting.PAGE
        self.words = memoryview(data)[: self.pages * waiting.PAGE].cast("Q")


class View:
    """A queue folder seen from outside.

    Raises ``FileNotFoundError`` where nothing is there, ``NotADirectoryError``, ``PermissionError``; ``FolderError``
    where it is no queue; ``CorruptBatchError`` where its newest journal is damaged.

    ``authkey``: that of the queue, whose blocks are then only read where their HMACs are right; all that reads its
    journal raises ``ValueError`` where it is another, or where the queue has none."""

    def __init__(self, path: str, authkey: Optional[bytes] = None) -> None:
        self.path = os.path.abspath(path)
        self._authkey = authkey
        self.key: Optional[Key] = None
        """That of the queue, where it was given."""
        self.fd = os.open(self.path, _FOLDER)
        self._spill = -1
        self._journal: Optional[Journal] = None
        self._at = 0
        self.ledger = Ledger()

    def __enter__(self) -> View:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        for fd in (self._spill, self.fd):
            if fd >= 0:
                os.close(fd)
        self._spill = self.fd = -1

    # -- files

    def names(self) -> list[str]:
        """What lies in the folder."""
        return _list(self.fd)

    def spill(self) -> int:
        """The descriptor of the spill folder.  Raises ``FileNotFoundError`` where there is none."""
        if self._spill < 0:
            path = os.readlink(names.SPILL, dir_fd=self.fd)
            self._spill = os.open(path, _FOLDER | getattr(os, "O_NOFOLLOW", 0))
        return self._spill

    def spill_path(self) -> Optional[str]:
        try:
            return os.readlink(names.SPILL, dir_fd=self.fd)
        except OSError:
            return None

    def spilled_names(self) -> list[str]:
        """What lies in the spill folder; nothing where there is none."""
        try:
            return _list(self.spill())
        except OSError:
            return []

    def open_file(self, name: str, home: Optional[int] = None) -> int:
        """A plain file of the folder, open for reading.  Raises ``FileNotFoundError``, or ``FolderError`` for what is
        something else: a FIFO must not keep anybody waiting here."""
        fd = os.open(name, _FLAGS, dir_fd=self.fd if home is None else home)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise FolderError(f"{self.path}/{name}", "is no plain file", "see who put it there")
        return fd

    def open_batch(self, file: FileId) -> tuple[int, str]:
        """A batch file, open for reading, and its name: also one that was set aside, for it is read on where it is
        whole.  Raises ``FileNotFoundError``."""
        home = self.spill() if file.spilled else self.fd
        for name in names.of_batch(file):
            with contextlib.suppress(FileNotFoundError):
                return self.open_file(name, home), name
        raise FileNotFoundError(names.batch(names.READY, file))

    def cells(self) -> Optional[Cells]:
        """The cells as they are now; ``None`` where they are missing or cut short."""
        try:
            fd = self.open_file(names.CELLS)
        except OSError:
            return None
        try:
            data = os.pread(fd, os.fstat(fd).st_size, 0)
        finally:
            os.close(fd)
        return _SeenCells(data) if len(data) >= waiting.PAGE else None

    def sizes(self) -> tuple[int, int]:
        """Bytes that all files take on disk, and how many batch files there are."""
        taken = count = 0
        homes = [(self.fd, self.names())]
        spilled = self.spilled_names()
        if spilled:
            homes.append((self.spill(), spilled))
        for home, listed in homes:
            for name in listed:
                with contextlib.suppress(OSError):
                    taken += os.stat(name, dir_fd=home, follow_symlinks=False).st_blocks * 512
                parsed = names.parse(name)
                count += parsed is not None and parsed.kind in (names.LOAD, names.READY)
        return taken, count

    # -- the journal

    def open_journal(self, name: str, number: int) -> tuple[Journal, bytes]:
        """A journal, open for reading only, and the snapshot that it begins with."""
        fd = self.open_file(name)
        try:
            length = os.fstat(fd).st_size
            try:
                size = Ledger.snapshot_size(os.pread(fd, 16, 0))
                if size > length:
                    raise ValueError(f"a snapshot of {size} bytes is cut short to {length}")
                return Journal(fd, number, size), os.pread(fd, size, 0)
            except ValueError as error:
                raise self._damaged(name, error) from None
        except BaseException:
            os.close(fd)
            raise

    def _damaged(self, name: str, error: Exception) -> CorruptBatchError:
        path = f"{self.path}/{name}"
        return CorruptBatchError(path, str(error), "python -m tqshim check says more, recover saves what can be read")

    def newest(self) -> Optional[int]:
        """The number of the newest journal; ``None`` where none was seen."""
        numbers = [name.numbers[0] for name in map(names.parse, self.names()) if name and name.kind == "journal"]
        return max(numbers, default=None)

    @property
    def journal(self) -> Journal:
        """The journal that is being followed."""
        if self._journal is None:
            self.follow()
        assert self._journal is not None
        return self._journal

    @property
    def read_to(self) -> int:
        """The byte of that journal up to which it has been read."""
        return self._at

    def follow(self) -> Ledger:
        """The ledger as it is now: what was appended since the last look is applied.

        Who lags behind a roll starts at the newest journal: a look costs one journal's events at most."""
        for _ in range(SEEN):
            if (self._journal is None or not os.fstat(self._journal.fd).st_nlink) and not self._start():
                continue
            assert self._journal is not None
            while chunk := self._journal.read(self._at, tuning.READ_LARGE):
                applied = self.ledger.apply(chunk)
                self._at += applied
                if applied < tuning.READ_LARGE:
                    break
            if self.ledger.sealed is None:
                return self.ledger
            self._next()
        raise FolderError(self.path, "has no journal", "it is no queue, or its journal was deleted; see who deletes")

    def _start(self) -> bool:
        """Begin at the newest journal.  ``False``: it has been replaced meanwhile."""
        self.check_presence()
        number = self.newest()
        if number is None:
            return False
        try:
            journal, snapshot = self.open_journal(names.journal(number), number)
        except FileNotFoundError:  # rolled since we listed
            return False
        self._go_to(journal, snapshot)
        return True

    def _go_to(self, journal: Journal, snapshot: bytes) -> None:
        try:
            ledger = Ledger.load(snapshot)
        except ValueError as error:
            journal.close()
            raise self._damaged(names.journal(journal.number), error) from None
        try:
            self.key = match(self.path, ledger.proof, self._authkey) if self._authkey is not None else None
        except ValueError:
            journal.close()
            raise
        if self._journal is not None:
            self._journal.close()
        self._journal, self.ledger, self._at = journal, ledger, journal.start

    def _next(self) -> None:
        """The journal is sealed: go to the next, whether or not somebody has given it its name yet."""
        assert self._journal is not None and self.ledger.sealed is not None
        number = self._journal.number + 1
        for name in (names.journal(number), names.roll(number, f"{self.ledger.sealed:010x}"), names.journal(number)):
            with contextlib.suppress(FileNotFoundError):
                self._go_to(*self.open_journal(name, number))
                return
        self._start()

    def check_presence(self) -> None:
        """Raise ``FileNotFoundError`` where the queue has gone since it was opened."""
        there = os.stat(self.path)
        mine = os.fstat(self.fd)
        if (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino):
            raise FileNotFoundError(f"{self.path}: another queue has taken its place")

    # -- what there is

    def delivered(self, cells: Optional[Cells]) -> int:
        """The oldest item that nobody has got: a lease tells how far it is in its cell."""
        lease = self.ledger.lease
        if lease is None:
            return self.ledger.head
        if cells is None or lease.slot >= cells.pages * waiting.SLOTS:
            return lease.first
        return max(lease.first, min(cells.words[Cells.place(waiting.LEASE_POSITION, lease.slot)], lease.end))

    def waiting(self, cells: Optional[Cells]) -> int:
        """Items that can be got now: those that wait, and those that have come back."""
        return self.ledger.tail - self.delivered(cells) + len(self.ledger.returned)

    def oldest_at_least(self, oldest: int) -> Optional[float]:
        """Seconds for which that item has waited at least: since its batch file was last written to."""
        try:
            returned = self.ledger.returned
            block = returned[0].block if returned else self.ledger.block(oldest)
            fd, _ = self.open_batch(block.file)
        except (LookupError, OSError):
            return None
        try:
            return max(0.0, time.time() - os.fstat(fd).st_mtime)
        finally:
            os.close(fd)

    def age(self) -> float:
        """Seconds since the queue was made: nobody writes to its members file, and the wall clock may step."""
        status = os.fstat(self.fd)
        with contextlib.suppress(OSError):
            status = os.stat(names.MEMBERS, dir_fd=self.fd, follow_symlinks=False)
        return max(0.0, time.time() - status.st_mtime)

    def record_ends(self, fd: int, block: Block) -> list[tuple[int, int]]:
        """Where in its file each record of a block begins and ends.

        Raises ``ValueError`` where that can't be true; ``OSError``."""
        size = os.fstat(fd).st_size
        if not block.units:
            length = blocks.split_giant(os.pread(fd, blocks.GIANT_HEADER, 0), size, blocks.seed(block.file, 0))
            return [(blocks.GIANT_HEADER, blocks.GIANT_HEADER + length)]
        count = block.end - block.first
        start = block.offset * events.UNIT
        limit = min(size, start + block.units * events.UNIT)
        body = start + 4 + 4 * count
        ends = blocks.index(os.pread(fd, max(0, min(body, limit) - start), start), count)
        found = []
        before = 0
        for index, end in enumerate(ends):
            if not before <= end or body + end > limit:
                raise ValueError(f"record {index} reaches from byte {body + before} to {body + end} of {limit}")
            found.append((body + before, body + end))
            before = end
        return found

    def records(self, fd: int, block: Block) -> tuple[list[tuple[int, int]], Optional[memoryview]]:
        """``record_ends``, and the bytes of the records, where there is a key: they are those that it was tried on.

        Raises what ``record_ends`` raises, and ``ValueError`` where the block's HMAC is wrong."""
        if self.key is None:
            return self.record_ends(fd, block), None
        body, ends = self.key.load(fd, block)
        before = block.offset * events.UNIT + 4 + 4 * len(ends) if block.units else blocks.GIANT_HEADER
        return [(before + begin, before + end) for begin, end in zip((0, *ends), ends)], body

    def peek(self, count: int, whole: bool = False) -> list[Peeked]:
        """The oldest items, ``count`` or fewer, as they are now; ``whole``: with all of their records.

        An item that somebody gets meanwhile is left out.  One that can't be read is there, with its problem.  Raises
        ``ValueError`` for whole records of a queue with a key that was not given."""
        self.follow()
        first = self.delivered(self.cells())
        found = self.read_returned(self.ledger.returned[:count], whole)
        found += self.read(first, min(first + count - len(found), self.ledger.tail), whole)
        # What somebody has got meanwhile may have gone with its file, or its file is refilled, if its blocks are large.
        self.follow()
        delivered = self.delivered(self.cells())
        returned = {one.item for one in self.ledger.returned}
        return [
            one
            for one in found
            if one.number >= delivered or one.number in returned or not (one.problem or _is_large(one.file))
        ]

    def read_returned(self, kept: Iterable[Union[Held, Returned]], whole: bool = False) -> list[Peeked]:
        """Items that are held, or have come back."""
        return [peeked for one in kept for peeked in self._peek_block(one.block, range(one.item, one.item + 1), whole)]

    def read(self, first: int, end: int, whole: bool = False) -> list[Peeked]:
        """The items ``first`` up to ``end`` of the ledger as it was last seen."""
        found: list[Peeked] = []
        for block in self.ledger.parts(first, end):
            found += self._peek_block(block, range(max(first, block.first), min(end, block.end)), whole)
        return found

    def _peek_block(self, block: Block, wanted: range, whole: bool) -> Iterator[Peeked]:
        name = names.batch(names.READY, block.file)
        if whole and self.key is None:
            match(self.path, self.ledger.proof, None)
        try:
            fd, name = self.open_batch(block.file)
            try:
                places, body = self.records(fd, block)
                for number in wanted:
                    start, end = places[number - block.first]
                    if body is not None:
                        record = bytes(body[start - places[0][0] : end - places[0][0]])
                    else:
                        record = os.pread(fd, end - start if whole else min(PREVIEW, end - start), start)
                    yield Peeked(
                        number, end - start, record[:PREVIEW], name, start, record if whole else None, problem=""
                    )
            finally:
                os.close(fd)
        except FileNotFoundError:
            yield from _unreadable(wanted, block, name, "its batch file is missing")
        except (ValueError, OSError) as error:
            yield from _unreadable(wanted, block, name, str(error))

    def members(self, cells: Optional[Cells]) -> list[Member]:
        """Its members, by slot."""
        ledger = self.ledger
        try:
            owners: Optional[dict[int, int]] = lock_owners(self.fd, ledger.members)
        except OSError:
            owners = None
        found = []
        for slot, member in sorted(ledger.members.items()):
            pid = None if owners is None else owners.get(slot)
            state = "unknown" if owners is None else "dead" if pid is None else "alive"
            waits = (
                cells is not None
                and slot < cells.pages * waiting.SLOTS
                and any(cells.words[Cells.place(kind, slot)] for kind in waiting.KINDS)
                and state != "dead"
            )
            process = None if pid is None else Process(pid, _command(pid))
            role = "consumer" if member.consumer else "producer"
            found.append(Member(slot, member.number, role, state, process, waits))
        return found


def _is_large(name: str) -> bool:
    """The batch file of that name may be refilled."""
    parsed = names.parse(name)
    return parsed is not None and FileId(*parsed.numbers).large


def _unreadable(wanted: range, block: Block, name: str, problem: str) -> Iterator[Peeked]:
    for number in wanted:
        yield Peeked(number, 0, b"", name, block.offset * events.UNIT, None, problem)


def _list(fd: int) -> list[str]:
    """The names in a folder.  Opened anew: two that list through one descriptor skip each other's names."""
    own = os.open(".", _FOLDER, dir_fd=fd)
    try:
        return os.listdir(own)
    finally:
        os.close(own)


def _command(pid: int) -> str:
    """What a process is called; nothing where that can't be told."""
    if pid > 0:
        with contextlib.suppress(OSError):
            with open(f"{systems.PROC}/{pid}/cmdline", "rb") as file:
                words = file.read(4096).split(b"\0")
            return b" ".join(words).strip().decode(errors="replace")
    return ""


# -- who uses what


def users() -> dict[tuple[int, int], tuple[str, list[Process]]]:
    """By device and inode: each folder that some process holds with a lock, as users of queues do, its path as that
    process knows it, and the processes.  Those of other users, and where there is no ``/proc``, all, are left out."""
    found: dict[tuple[int, int], tuple[str, list[Process]]] = {}
    try:
        pids = [int(name) for name in os.listdir(systems.PROC) if name.isdigit()]
    except OSError:
        return found
    for pid in sorted(pids):
        with contextlib.suppress(OSError):
            for name in os.listdir(f"{systems.PROC}/{pid}/fd"):
                with contextlib.suppress(OSError):
                    status = os.stat(f"{systems.PROC}/{pid}/fd/{name}")
                    if not stat.S_ISDIR(status.st_mode) or not _is_locked(pid, name):
                        continue
                    path = os.readlink(f"{systems.PROC}/{pid}/fd/{name}")
                    held = found.setdefault((status.st_dev, status.st_ino), (path, []))[1]
                    if all(process.pid != pid for process in held):
                        held.append(Process(pid, _command(pid)))
    return found


def _is_locked(pid: int, fd: str) -> bool:
    with open(f"{systems.PROC}/{pid}/fdinfo/{fd}", "rb") as file:
        return b"FLOCK" in file.read()


def open_by(fd: int, known: dict[tuple[int, int], tuple[str, list[Process]]]) -> list[Process]:
    """The processes that use the queue whose folder this is."""
    status = os.fstat(fd)
    return known.get((status.st_dev, status.st_ino), ("", []))[1]


def in_use(view: View) -> list[Process]:
    """Who uses a queue, as far as can be seen: its folder's holders, and the members that live.

    The second are seen from other containers too, and where there is no ``/proc``."""
    found = list(open_by(view.fd, users()))
    with contextlib.suppress(FolderError):
        view.follow()
        living = [member.process for member in view.members(None) if member.process is not None]
        found += [process for process in living if all(process.pid != other.pid for other in found)]
    return found


def roots() -> list[str]:
    """The folders in which anonymous queues of this program's environment lie, or spill to."""
    first = anonymous_root()
    return [root for root in dict.fromkeys((first, spill_root(first))) if root is not None]


def queues(folders: Iterable[str] = ()) -> list[Summary]:
    """The queues on this machine, by path: anonymous ones, those that processes of this user have open, and those at or
    in ``folders``.

    Raises ``OSError`` for a given folder that can't be listed; a queue that can't be read has its ``problem``."""
    known = users()
    paths = [os.path.join(root, name) for root in roots() for name in _listed(root) if names.is_anonymous(name)]
    paths += [path for path, _ in known.values() if is_queue(path)]
    for folder in folders:
        inside = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
        paths += [folder] if is_queue(folder) else [path for path in inside if is_queue(path)]
    found = []
    for path in sorted(set(map(os.path.abspath, paths))):
        with contextlib.suppress(FileNotFoundError):  # gone meanwhile
            found.append(_summary(path, known))
    return found


def _listed(root: str) -> list[str]:
    try:
        return os.listdir(root)
    except OSError:
        return []


def is_queue(path: str) -> bool:
    """A journal lies there."""
    try:
        found = map(names.parse, os.listdir(path))
    except OSError:
        return False
    return any(name is not None and name.kind == "journal" for name in found)


def _summary(path: str, known: dict[tuple[int, int], tuple[str, list[Process]]]) -> Summary:
    try:
        view = View(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        return Summary(path, None, 0, 0, 0, 0, [], 0.0, error.strerror or str(error))
    with view:
        taken, batches = view.sizes()
        age, held = view.age(), open_by(view.fd, known)
        try:
            ledger = view.follow()
        except FileNotFoundError:
            raise
        except FolderError as error:
            return Summary(path, None, taken, batches, 0, 0, held, age, error.finding)
        except OSError as error:
            return Summary(path, None, taken, batches, 0, 0, held, age, str(error))
        items = view.waiting(view.cells())
        producers = len(ledger.members) - ledger.consumers
        return Summary(path, items, taken, batches, ledger.consumers, producers, held, age, "")


def status(path: str) -> Status:
    """A queue in detail.

    Raises ``FileNotFoundError``, ``NotADirectoryError``, ``PermissionError``; ``FolderError`` where it is no queue;
    ``CorruptBatchError`` where its newest journal is damaged."""
    with View(path) as view:
        ledger = view.follow()
        cells = view.cells()
        delivered = view.delivered(cells)
        journal = os.fstat(view.journal.fd)
        taken, batches = view.sizes()
        room = os.fstatvfs(view.fd)
        return Status(
            path=view.path,
            anonymous=names.is_anonymous(os.path.basename(view.path)),
            maxsize=ledger.maxsize,
            durable=ledger.durable,
            keyed=bool(ledger.proof),
            items=view.waiting(cells),
            put=ledger.tail,
            got=delivered - ledger.apart,
            unfinished=ledger.unfinished,
            shut=bool(ledger.shut),
            held=len(ledger.held),
            returned=len(ledger.returned),
            redelivered=ledger.redelivered,
            leased=ledger.lease.end - delivered if ledger.lease else 0,
            reserved=ledger.reserved,
            places=max(0, ledger.maxsize - ledger.used) if ledger.maxsize else None,
            item_bytes=events.UNIT * ledger.units_from(delivered),
            oldest_at_least=view.oldest_at_least(delivered) if view.waiting(cells) else None,
            journal=view.journal.number,
            journal_events=ledger.index,
            journal_limit=ledger.limit,
            journal_bytes=journal.st_size,
            batches=batches,
            bytes=taken,
            disk_free=room.f_bavail * room.f_frsize,
            spill=view.spill_path(),
            consumers=ledger.consumers,
            producers=len(ledger.members) - ledger.consumers,
            waiting_consumers=len(cells.sleepers(waiting.SLEEPS)) if cells else 0,
            waiting_producers=len(cells.sleepers(waiting.AWAITS_PLACE)) if cells else 0,
            members=view.members(cells),
            open_by=open_by(view.fd, users()),
            age=view.age(),
        )


def peek(path: str, count: int = 1, whole: bool = False, *, authkey: Optional[bytes] = None) -> list[Peeked]:
    """The oldest items, ``count`` or fewer, without taking or unpickling them; raises what ``status`` raises.

    ``authkey``: that of the queue, if it has one: without it there are no whole records, and none is authenticated.
    Raises ``ValueError`` where it is missing for that, or wrong."""
    if count < 1:
        raise ValueError(f"count={count} must be 1 or more")
    with View(path, authkey) as view:
        return view.peek(count, whole)
