"""Reading records where they stand.

Lives here: which batch files are mapped to be read, and what is said of damage.  Not here: which record is whose
(``consumer``), the bytes of a file (``batch_file``).

Invariant: what is returned is a copy, and nobody else's.
"""

from __future__ import annotations

import errno
from typing import Final

from tqshim.errors import CorruptBatchError
from tqshim.names import FileId
from tqshim.protocol.index import Record
from tqshim.protocol.ledger import Place
from tqshim.storage.batch_file import BatchFile
from tqshim.storage.folder import LogFolder

__all__ = ["Reader"]

FILES: Final = 64
"""Batch files that a consumer has mapped, at most: no descriptor is open for them."""
WINDOW: Final = 256
WINDOW_BYTES: Final = 1 << 16
"""Records, and bytes, that are copied at once where several are one consumer's."""


class Reader:
    """The batch files that this process reads."""

    __slots__ = ("_folder", "files")

    def __init__(self, folder: LogFolder) -> None:
        self._folder = folder
        self.files: dict[FileId, BatchFile] = {}

    def open(self, file: FileId) -> BatchFile:
        """That file, mapped.  Raises ``ValueError`` where it is not there, or is no batch file."""
        batch = self.files.get(file)
        if batch is None:
            batch = self._folder.read_log(file)
            if len(self.files) >= FILES:
                del self.files[next(iter(self.files))]
            self.files[file] = batch
        return batch

    def read(self, place: Place, item: int) -> bytes:
        """The record of an item that stands there.  Raises ``CorruptBatchError``."""
        try:
            return self.open(place.file).record(place.record)
        except (ValueError, OSError) as error:
            raise self._corrupt(error, place, item, item + 1) from None

    def read_many(self, place: Place, first: int, end: int) -> list[Record]:
        """The records of the first of these items, which stand there one behind the other: one at least, ``WINDOW`` at
        most.  Raises ``CorruptBatchError`` where that one is damaged."""
        count = min(end - first, WINDOW)
        try:
            batch = self.open(place.file)
            body, ends = batch.window(place.record, count, WINDOW_BYTES)
        except (ValueError, OSError) as error:
            if count > 1:
                return [self.read(place, first)]
            raise self._corrupt(error, place, first, end) from None
        trailer = batch.trailer
        return [body[begin : stop - trailer] for begin, stop in zip(ends, ends[1:])]

    def _corrupt(self, error: Exception, place: Place, first: int, end: int) -> Exception:
        if isinstance(error, OSError) and error.errno != errno.EIO:
            return error
        file, record = place
        finding = f"{error}, where item {first} stands as record {record}"
        self.files.pop(file, None)
        path = self._folder.set_aside(file, finding)
        return CorruptBatchError(path, finding, "look at it; all other items arrive")

    def forget(self, file: FileId) -> None:
        """That file is done with."""
        self.files.pop(file, None)
