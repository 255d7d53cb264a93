"""A queue folder as a bystander sees it.

Lives here: following a queue's journal, its counters, its items and members.  Not here: opening its files (``files``),
their records (``records``), what is known of items (``seen``), which queues there are, who has them open (``looking``).

A put is a store to a counter; the journal has the item only once somebody has cut it.  A look reads the counters, then
the journal: items that only the counters have are put and not cut yet.

Invariant: nothing here writes, locks, joins or waits.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from typing import Final, Optional, Union

from tqshim.engine import tuning
from tqshim.engine.keys import Key, match
from tqshim.errors import CorruptBatchError, FolderError
from tqshim.monitor.files import Files
from tqshim.monitor.records import SeenBatch
from tqshim.monitor.seen import Member, Peeked, Process, Stretch
from tqshim.protocol import names, snapshot
from tqshim.protocol.ledger import Ledger
from tqshim.protocol.names import FileId
from tqshim.protocol.records import Held, Place, Returned
from tqshim.runtime import systems
from tqshim.storage.files import RECOVER
from tqshim.storage.journal import Journal
from tqshim.storage.lock_owners import lock_owners
from tqshim.sync import membarrier
from tqshim.sync.cells import GIVEN, KINDS, LEASE_POSITION, PAGE, Cells

__all__ = ["View", "command"]

SEEN: Final = 1000
"""Listings that may miss the journal, at most: a listing misses it only if it is rolled in that very moment."""
PREVIEW: Final = 32
"""Bytes of a record that ``peek`` shows."""
FILES: Final = 64
"""Batch files that are open at once, at most."""


class View(Files):
    """A queue folder seen from outside.

    Raises ``FileNotFoundError`` where nothing is there, ``NotADirectoryError``, ``PermissionError``; ``FolderError``
    where it is no queue; ``CorruptBatchError`` where its newest journal is damaged.

    ``authkey``: that of the queue; with it records are only read where their HMACs are right, and all methods that read
    the journal raise ``ValueError`` where the queue has another authkey, or none."""

    def __init__(self, path: str, authkey: Optional[bytes] = None) -> None:
        super().__init__(path)
        self._authkey = authkey
        self.key: Optional[Key] = None
        """The queue's key, where it was given."""
        self.former = False
        """The newest journal has the format of an earlier version."""
        self.cells: Optional[Cells] = None
        """The cells as they were at the last look; ``None`` where they are missing or cut short."""
        self.counters = b""
        """The counters by slot, as they were just before the journal was read: they say what is put."""
        self.ledger = Ledger()
        self._journal: Optional[Journal] = None
        self._at = 0
        self._batches: dict[FileId, SeenBatch] = {}

    def __enter__(self) -> View:
        return self

    def close(self) -> None:
        self._forget_batches()
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        super().close()

    # -- files

    def batch(self, file: FileId) -> SeenBatch:
        """Return a batch file, which is open until the next look at most.  Raises ``OSError``; ``ValueError`` where it
        has no index."""
        found = self._batches.get(file)
        if found is None:
            found = SeenBatch(*self._opened(file), bool(self.ledger.settings.proof), self.key)
            if len(self._batches) >= FILES:
                self._batches.pop(next(iter(self._batches))).close()
            self._batches[file] = found
        return found

    def _opened(self, file: FileId) -> tuple[int, FileId, str]:
        fd, name = self.open_batch(file)
        return fd, file, name

    def _forget_batches(self) -> None:
        while self._batches:
            self._batches.popitem()[1].close()

    def read_cells(self) -> Optional[Cells]:
        """Return the cells as they are now; ``None`` where they are missing or cut short."""
        try:
            fd = self.open_file(names.CELLS)
        except OSError:
            return None
        try:
            data = os.pread(fd, os.fstat(fd).st_size, 0)
        finally:
            os.close(fd)
        return Cells.seen(data) if len(data) >= PAGE else None

    # -- the journal

    def open_journal(self, name: str, number: int) -> tuple[Journal, bytes]:
        """Open a journal for reading only; return it and the snapshot with which it begins."""
        fd = self.open_file(name)
        try:
            length = os.fstat(fd).st_size
            head = os.pread(fd, 16, 0)
            self.former = snapshot.is_former(head)
            try:
                size = snapshot.size_of(head)
                if size > length:
                    raise ValueError(f"a snapshot of {size} bytes is cut short to {length}")
                data = os.pread(fd, size, 0)
                snapshot.check(data)
            except ValueError as error:
                raise self._damaged(name, error) from None
            return Journal(self, fd, number, size), data
        except BaseException:
            os.close(fd)
            raise

    def _damaged(self, name: str, error: Exception) -> CorruptBatchError:
        path = f"{self.path}/{name}"
        remedy = "python -m tqshim check says more, recover saves what can be read"
        return CorruptBatchError(path, str(error), "this version can't read it" if self.former else remedy)

    def newest(self) -> Optional[int]:
        """Return the number of the newest journal; ``None`` where none was seen."""
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
        """The byte up to which the journal has been read."""
        return self._at

    def look(self) -> Ledger:
        """Read the queue as it is now: its counters, then its journal, then how far a lease has got."""
        cells = self.read_cells()
        self.counters = cells.counters() if cells is not None else b""
        if not systems.STORES_IN_ORDER and membarrier.barrier_works():  # without it counters follow the journal
            membarrier.barrier()  # now the records that they count are seen, too
        ledger = self.follow()
        self.cells = self.read_cells()
        return ledger

    def follow(self) -> Ledger:
        """Return the ledger as it is now: apply the events that were appended since the last look.

        A view that lags behind a roll starts at the newest journal: a look costs one journal's events at most."""
        # Batch files of large records are filled again, under another name.
        self._forget_batches()
        for _ in range(SEEN):
            if (self._journal is None or not os.fstat(self._journal.fd).st_nlink) and not self._start():
                continue
            assert self._journal is not None
            while chunk := self._journal.read(self._at, tuning.READ_LARGE):
                applied = self.ledger.apply(chunk)
                self._at += applied
                if applied < tuning.READ_LARGE:
                    break
            if self.ledger.position.sealed is None:
                return self.ledger
            self._next()
        if self.has_batches():
            raise FolderError(self.path, "has no journal", RECOVER)
        raise FolderError(self.path, "holds no queue", "give the folder of a queue")

    def _start(self) -> bool:
        """Begin at the newest journal.  ``False``: it has been replaced meanwhile."""
        self.check_presence()
        number = self.newest()
        if number is None:
            return False
        try:
            journal, begin = self.open_journal(names.journal(number), number)
        except FileNotFoundError:  # rolled since we listed
            return False
        self._go_to(journal, begin)
        return True

    def _go_to(self, journal: Journal, begin: bytes) -> None:
        try:
            ledger = snapshot.load(begin)
        except ValueError as error:
            journal.close()
            raise self._damaged(names.journal(journal.number), error) from None
        try:
            self.key = match(self.path, ledger.settings.proof, self._authkey) if self._authkey is not None else None
        except ValueError:
            journal.close()
            raise
        if self._journal is not None:
            self._journal.close()
        self._journal, self.ledger, self._at = journal, ledger, journal.start

    def _next(self) -> None:
        """The journal is sealed: go to the next, whether or not somebody has given it its name yet."""
        assert self._journal is not None and self.ledger.position.sealed is not None
        number = self._journal.number + 1
        waiting = names.roll(number, f"{self.ledger.position.sealed:010x}")
        for name in (names.journal(number), waiting, names.journal(number)):
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

    @property
    def delivered(self) -> int:
        """The number of the oldest item that nobody has got: the cell of a lease tells how far its consumer is."""
        lease = self.ledger.leases.standing
        if lease is None or self.ledger.leases.sole:
            return self.ledger.head + sum([at - self.ledger.totals[slot] for slot, at in self._given.items()])
        return max(self.ledger.leases.passed, min(self.word(LEASE_POSITION, lease.slot), lease.end))

    @property
    def _given(self) -> dict[int, int]:
        """By slot: up to which record a lease of all that comes has got, of the records that the last look saw."""
        ledger = self.ledger
        if not ledger.leases.sole:
            return {}
        return {
            slot: min(self.word(GIVEN, slot), total)
            for slot, total in ledger.grown(self._counting)
            if self.word(GIVEN, slot) > ledger.totals[slot]
        }

    def word(self, kind: int, slot: int) -> int:
        """Return a slot's word of that kind; 0 where there is none."""
        if self.cells is None or slot >= self.cells.slots:
            return 0
        return self.cells.words[Cells.place(kind, slot)]

    @property
    def uncut(self) -> int:
        """Items that are put, and neither cut nor delivered yet."""
        return self.put - self.ledger.tail - (self.delivered - self.ledger.head if self.ledger.leases.sole else 0)

    @property
    def _counting(self) -> bytes:
        """The counters, where they count: in a durable queue a record that the journal lacks is not put."""
        return b"" if self.ledger.settings.durable else self.counters

    @property
    def put(self) -> int:
        """Items that were ever put."""
        return self.ledger.tail + self.ledger.uncut(self._counting)

    @property
    def waiting(self) -> int:
        """Items that can be got now, whether they have waited all the time or have come back."""
        return self.put - self.delivered + len(self.ledger.holds.returned)

    def stretches(self) -> Iterator[Stretch]:
        """Yield where the items that wait stand: cut items in their order, then the others by slot."""
        ledger = self.ledger
        for first, end, place in ledger.each_place(max(self.delivered, ledger.extents.first), ledger.tail):
            yield Stretch(first, end - first, place, False)
        number = max(ledger.tail, self.delivered)
        for _, count, place in ledger.each_uncut(self._counting, self._given):
            yield Stretch(number, count, place, True)
            number += count

    def still_wait(self, found: Iterable[Place]) -> set[Place]:
        """Return those of the records that nobody has got yet."""
        by_file: dict[FileId, list[Place]] = {}
        for place in found:
            by_file.setdefault(place.file, []).append(place)
        return {
            place
            for stretch in self.stretches()
            for place in by_file.get(stretch.place.file, ())
            if stretch.holds(place)
        }

    @property
    def item_bytes(self) -> int:
        """Bytes of all records that wait, with what checks them, as far as they can be read."""
        total = 0
        for stretch in self.stretches():
            with contextlib.suppress(ValueError, OSError):
                batch = self.batch(stretch.place.file)
                begin, end = batch.ends(stretch.place.record, 0)[0], batch.ends(*_behind(stretch))[0]
                total += max(0, min(end, batch.size) - begin)
        return total

    @property
    def oldest_at_least(self) -> Optional[float]:
        """Seconds for which the oldest item that waits has waited at least; ``None`` where there is none.

        A store to a counter leaves no time behind.  But the item was put before its batch file was sealed, and, if it
        is cut, before the journal was last written to."""
        if not self.waiting:
            return None
        now, since = time.time(), 0.0
        returned = self.ledger.holds.returned
        oldest = next(self.stretches(), None)
        place = returned[0].place if returned else oldest.place if oldest else None
        if returned or (oldest is not None and not oldest.uncut):
            since = now - os.fstat(self.journal.fd).st_mtime
        with contextlib.suppress(ValueError, OSError):
            batch = self.batch(place.file) if place is not None else None
            if batch is not None and not batch.name.startswith(names.LOAD):
                since = max(since, now - os.fstat(batch.fd).st_ctime)
        return max(0.0, since)

    def age(self) -> float:
        """Return the age in seconds: that of the members file, to which nobody writes.  The wall clock may step."""
        status = os.fstat(self.fd)
        with contextlib.suppress(OSError):
            status = os.stat(names.MEMBERS, dir_fd=self.fd, follow_symlinks=False)
        return max(0.0, time.time() - status.st_mtime)

    # -- items

    def peek(self, count: int, whole: bool = False) -> list[Peeked]:
        """Return the oldest items, ``count`` or fewer, as they are now; ``whole``: with all of their records.

        An item that somebody gets meanwhile is left out.  An item that can't be read comes with its problem.  Raises
        ``ValueError`` for whole records of a queue with a key that was not given."""
        ledger = self.look()
        found = [
            (one.place, peeked)
            for one, peeked in zip(ledger.holds.returned, self.read_apart(ledger.holds.returned[:count], whole))
        ]
        for stretch in self.stretches():
            wanted = stretch.part(0, count - len(found))
            found += zip((wanted.part(at, 1).place for at in range(wanted.size)), self.read(wanted, whole))
            if len(found) >= count:
                break
        # If somebody has got an item meanwhile, its file may be gone, or refilled if it is one for large records.
        doubtful = {place for place, peeked in found if peeked.problem or place.file.large}
        if not doubtful:
            return [peeked for _, peeked in found]
        ledger = self.look()
        wait = self.still_wait(doubtful).union(one.place for one in ledger.holds.returned)
        return [peeked for place, peeked in found if place not in doubtful or place in wait]

    def read_apart(self, apart: Iterable[Union[Held, Returned]], whole: bool = False) -> Iterator[Peeked]:
        """Yield items that are held, or have come back."""
        for one in apart:
            yield from self.read(Stretch(one.item, 1, one.place, False), whole)

    def read(self, stretch: Stretch, whole: bool = False) -> Iterator[Peeked]:
        """Yield the items of a stretch, one by one."""
        if whole and self.key is None:
            match(self.path, self.ledger.settings.proof, None)
        for at in range(stretch.size):
            yield self._read(stretch.part(at, 1), whole)

    def _read(self, one: Stretch, whole: bool) -> Peeked:
        number, _, place, uncut = one
        name, begin = names.batch(names.READY, place.file), 0
        try:
            batch = self.batch(place.file)
            name = batch.name
            begin, end = batch.place(place.record)
            if whole or self.key is not None:
                record: Optional[bytes] = batch.record(place.record)
                assert record is not None
                preview = record[:PREVIEW]
            else:
                record, preview = None, batch.head(place.record, PREVIEW)
            if batch.is_gone:
                raise FileNotFoundError(batch.name)
            return Peeked(number, end - begin, preview, name, begin, record if whole else None, "", uncut)
        except FileNotFoundError:
            problem = "its batch file is missing"
        except (ValueError, OSError) as error:
            problem = str(error)
        return Peeked(number, 0, b"", name, begin, None, problem, uncut)

    # -- members

    def members(self) -> list[Member]:
        """Return the queue's members, by slot."""
        ledger = self.ledger
        try:
            owners: Optional[dict[int, int]] = lock_owners(self.fd, ledger.members.by_slot)
        except OSError:
            owners = None
        found = []
        for slot, member in sorted(ledger.members.by_slot.items()):
            pid = None if owners is None else owners.get(slot)
            state = "unknown" if owners is None else "dead" if pid is None else "alive"
            waits = state != "dead" and any(self.word(kind, slot) for kind in KINDS)
            process = None if pid is None else Process(pid, command(pid))
            role = "consumer" if member.consumer else "producer"
            found.append(Member(slot, member.number, role, state, process, waits))
        return found

    def impossible_counters(self) -> Iterator[tuple[int, int, int]]:
        """Yield slots whose counter is beyond what their batch file can hold: slot, counter, the most it can be."""
        ledger = self.ledger
        for slot, counter in enumerate(memoryview(self.counters).cast("Q")):
            most = ledger.totals[slot] if slot < len(ledger.totals) else 0
            filling = ledger.files.filling.get(slot)
            if filling is not None:
                most = max(most, filling.stop)
            if counter > most:
                yield slot, counter, most


def _behind(stretch: Stretch) -> tuple[int, int]:
    """Return what ``SeenBatch.ends`` must be given to find where the last record of a stretch ends."""
    return stretch.place.record + stretch.size, 0


def command(pid: int) -> str:
    """Return a process's command line; an empty one where it can't be told."""
    if pid > 0:
        with contextlib.suppress(OSError):
            with open(f"{systems.PROC}/{pid}/cmdline", "rb") as file:
                words = file.read(4096).split(b"\0")
            return b" ".join(words).strip().decode(errors="replace")
    return ""
