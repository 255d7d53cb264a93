"""Reading records where they stand.

Lives here: which batch files are open, or mapped, to be read, which records are left in their files, and what is said
of damage.  Not here: which record is whose (``consumer``), the bytes of a file (``batch_file``, ``large_records``).

Invariant: a record that is returned is a copy, and nobody else's; or it keeps its file from being filled again.
"""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Callable, Iterable

from tqshim.engine import tuning
from tqshim.engine.replica import Replica
from tqshim.errors import CorruptBatchError
from tqshim.protocol.index import Record
from tqshim.protocol.names import FileId
from tqshim.protocol.records import Place
from tqshim.runtime import mappings
from tqshim.storage.batch_file import BatchFile
from tqshim.storage.folder import LogFolder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Optional, TypeAlias, Union

    from tqshim.storage.large_records import LargeFile, RecordInFile

__all__ = ["Reader", "Taken"]

Taken: TypeAlias = "Union[Record, RecordInFile]"
"""A record as a get takes it."""

FILES: Final = 64
"""Batch files that a consumer has mapped, at most: no descriptor is open for them."""
LARGE_FILES: Final = 4
"""Batch files of large records that a consumer has open, at most."""
WINDOW: Final = 256
WINDOW_BYTES: Final = 1 << 16
"""Records, and bytes, that are copied at once where several records are one consumer's."""


class Reader:
    """The batch files that this process reads."""

    __slots__ = ("_folder", "_large", "_mappings", "_replica", "_viewed", "files", "in_place", "opened")

    def __init__(self, folder: LogFolder, replica: Replica) -> None:
        """``replica`` knows of other consumers.  Beside them each one reads a part of a file: too little for what a
        mapping costs."""
        self._folder = folder
        self._replica = replica
        self._mappings = mappings.Mappings()
        self.files: dict[FileId, BatchFile] = {}
        self._large: dict[FileId, LargeFile] = {}
        self._viewed: Optional[LargeFile] = None
        """The file of large records that is mapped, if it can be, and locked then."""
        self.opened: Callable[[FileId, int, Record], Record] = _as_it_is
        """Returns the record itself, out of all that stands in its place.  Raises ``ValueError``."""
        self.in_place = True
        """Large records may stay in their files: nothing but their index says that they are as they were written."""

    def open(self, file: FileId) -> Union[BatchFile, LargeFile]:
        """Return that file, opened or mapped.  Raises ``ValueError`` where it is not there, or is no batch file."""
        if file.large:
            return self._open_large(file)
        batch = self.files.get(file)
        if batch is None:
            batch = self._folder.read_log(file)
            if len(self.files) >= FILES:
                del self.files[next(iter(self.files))]
            self.files[file] = batch
        return batch

    def _open_large(self, file: FileId) -> LargeFile:
        large = self._large.get(file)
        if large is None:
            large = self._folder.open_large(file)
            if len(self._large) >= LARGE_FILES:
                del self._large[next(iter(self._large))]
            self._large[file] = large
        return large

    def _leave(self, large: LargeFile, number: int, alone: bool) -> Optional[Taken]:
        """Return the record of that number, if it is to stay in its file.  ``None``: the record has to be read.
        ``alone``: a single record may have a descriptor of its own for that."""
        begin, end = large.place(number)
        if end - begin < tuning.BLOCK_BYTES or not self.in_place:
            return None
        viewed = self._viewed
        if viewed is not large:
            if viewed is not None:
                viewed.view = None  # else that file would not be filled again
            self._viewed = large
            if self._maps and not large.file.spilled:
                large.view = self._folder.view_batch(large.file, self._mappings)
        open_from = tuning.LARGE if alone and tuning.IN_FILES else sys.maxsize
        return large.leave(begin, end, open_from, self._folder.open_batch)

    @property
    def _maps(self) -> bool:
        """Whether batch files of large records are to be mapped."""
        ledger = self._replica.ledger
        return (
            tuning.MAPPINGS
            and tuning.GIL
            and ledger.members.consumers == 1
            and not ledger.settings.durable
            and self._folder.maps_batches
        )

    def read(self, place: Place, item: int, alone: bool = True) -> Taken:
        """Return the record of ``item``, which stands at ``place``.  Raises ``CorruptBatchError``."""
        try:
            file, number = place
            batch = self.files.get(file) or self.open(file)
            if file.large:
                left = self._leave(batch, number, alone)  # type: ignore[arg-type]
                if left is not None:
                    return left
            record = batch.record(number)
            return record if self.opened is _as_it_is else self.opened(file, number, record)
        except (ValueError, OSError) as error:
            raise self._corrupt(error, place, item, item + 1) from None

    def plain(self, file: FileId) -> Optional[BatchFile]:
        """Return that file, if its records are got as they stand there.  ``None`` also where it can't be opened."""
        if file.large or self.opened is not _as_it_is:
            return None
        with contextlib.suppress(ValueError, OSError):
            return self.open(file)  # type: ignore[return-value]
        return None

    def peek(self, file: FileId, number: int) -> Record:
        """Return a copy of a record that may be another consumer's by now, in a file that may be gone.  Raises
        ``ValueError`` or ``OSError`` where the record can't be read so."""
        batch = self.files.get(file) or self.open(file)
        record: Record = batch.record(number)
        return record if self.opened is _as_it_is else self.opened(file, number, record)

    def read_many(self, place: Place, first: int, end: int, alone: bool = False) -> list[Taken]:
        """Return the records of the first items from ``first`` to ``end``, which stand at ``place`` one behind the
        other: one at least, ``WINDOW`` at most.  Raises ``CorruptBatchError`` where the first record is damaged."""
        count = min(end - first, WINDOW)
        try:
            batch = self.open(place.file)
            if place.file.large:
                left = self._leave(batch, place.record, alone)  # type: ignore[arg-type]
                if left is not None:
                    return [left]
            body, ends = batch.window(place.record, count, WINDOW_BYTES)
            trailer = batch.trailer
            records = [body[begin : stop - trailer] for begin, stop in zip(ends, ends[1:])]
            if self.opened is _as_it_is:
                return [*records]
            return [self.opened(place.file, number, data) for number, data in enumerate(records, place.record)]
        except (ValueError, OSError) as error:
            if count > 1:
                return [self.read(place, first, alone)]
            raise self._corrupt(error, place, first, end) from None

    def bytes_in(self, stretches: Iterable[tuple[int, Place]]) -> int:
        """Count the bytes of the records in ``stretches``: how many records from which place on.  Records that were got
        meanwhile count for nothing.  Raises ``OSError`` where a file can't be read.

        Reads by system calls: nothing keeps the files from going, and a page that is gone must not be looked at."""
        by_file: dict[FileId, list[tuple[int, int]]] = {}
        for count, (file, record) in stretches:
            by_file.setdefault(file, []).append((record, count))
        return sum(self._bytes_of(file, ranges) for file, ranges in by_file.items())  # one descriptor at a time

    def _bytes_of(self, file: FileId, ranges: Iterable[tuple[int, int]]) -> int:
        total = 0
        with contextlib.suppress(ValueError, FileNotFoundError):
            large = self._folder.open_large(file)
            for record, count in ranges:
                with contextlib.suppress(ValueError):
                    total += large.bytes_of(record, count)
        return total

    def _corrupt(self, error: Exception, place: Place, first: int, end: int) -> Exception:
        if isinstance(error, OSError) and error.errno != errno.EIO:
            return error
        file, record = place
        finding = f"{error}, where item {first} stands as record {record}"
        self.forget(file)
        path = self._folder.set_aside(file, finding)
        return CorruptBatchError(path, finding, "look at it; all other items arrive")

    def forget(self, file: FileId) -> None:
        """Forget a file that is done with."""
        self.files.pop(file, None)
        large = self._large.pop(file, None)
        if large is self._viewed:
            self._viewed = None

    def close(self) -> None:
        """Keep nothing open, and nothing mapped, but what is in use."""
        self.files.clear()
        self._large.clear()
        self._viewed = None
        self._mappings.clear()


def _as_it_is(file: FileId, number: int, data: Record) -> Record:
    return data
