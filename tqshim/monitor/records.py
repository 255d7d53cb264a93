"""Records as they stand in batch files, read from outside.

Lives here: the index and the records of one file.  Not here: which records are items (``view``), a file's layout
(``protocol.index``).

Invariant: files are read, never mapped: a file that somebody cuts short meanwhile is reported, and kills no process.  A
record that is shown is as it was written, as far as its check and its tag tell.
"""

from __future__ import annotations

import os
from array import array
from typing import Final, Optional

from tqshim.engine.keys import TAG, Key
from tqshim.protocol import index
from tqshim.protocol.index import CHECK, Record
from tqshim.protocol.names import FileId

__all__ = ["SeenBatch"]

PIECE: Final = 1 << 26
"""Bytes that are read at once: some kernels end a read at two gigabytes."""


class SeenBatch:
    """A batch file that is open for reading.

    ``key``: the queue's key, if it is known; ``tagged``: the queue has a key."""

    __slots__ = ("_begin", "_key", "_tag", "fd", "file", "name", "size", "trailer")

    def __init__(self, fd: int, file: FileId, name: str, tagged: bool = False, key: Optional[Key] = None) -> None:
        """``fd``: belongs to this object now.  Raises ``ValueError``, and closes it, where there is no whole index."""
        self.fd = fd
        self.file = file
        self.name = name
        self.size = os.fstat(fd).st_size
        self._tag = TAG if tagged else 0
        self.trailer = self._tag + (CHECK if index.is_checked(file.serial) else 0)
        """Bytes behind each record that check it."""
        self._key = key
        self._begin = index.data_begin(file.serial)
        if self.size < self._begin:
            self.close()
            raise ValueError(f"{self.size} bytes can't hold the index of {index.capacity(file.serial)} records")

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    @property
    def is_gone(self) -> bool:
        """Whether the file was deleted: then its bytes may be holes by now."""
        return not os.fstat(self.fd).st_nlink

    @property
    def verified(self) -> bool:
        """Whether each record has a tag, of a known key, or a check that tells if it is as it was written."""
        return self._key is not None or index.is_checked(self.file.serial)

    def ends(self, record: int, count: int) -> array[int]:
        """Return where a record begins, then where it and the ones behind it end, ``count`` of them, as the index says,
        whether or not that is true."""
        found = array("Q")
        found.frombytes(self._read(8 * record, 8 * (count + 1)))
        return found

    def is_sound(self, record: int, count: int) -> bool:
        """Whether ``count`` records from that one on stand where records can stand."""
        ends = self.ends(record, count)
        return ends[0] >= self._begin and ends[-1] <= self.size and array("Q", sorted(ends)) == ends

    def place(self, record: int) -> tuple[int, int]:
        """Return where a record begins and ends, without its trailer.  Raises ``ValueError`` if that can't be true."""
        begin, end = self._extent(record)
        return begin, end - self.trailer

    def _extent(self, record: int) -> tuple[int, int]:
        start, end = self.ends(record, 1)
        if not self._begin <= start <= end - self.trailer <= end <= self.size:
            raise ValueError(f"record {record} reaches from byte {start} to {end} of {self.size}")
        return start, end

    def head(self, record: int, size: int) -> bytes:
        """Return the first bytes of a record, unverified."""
        begin, end = self.place(record)
        return self._read(begin, min(size, end - begin))

    def record(self, record: int) -> bytes:
        """Return a whole record.  Raises ``ValueError`` where it is not as it was written."""
        begin, end = self._extent(record)
        data: Record = memoryview(self._read(begin, end - begin))
        if index.is_checked(self.file.serial):
            data, check = data[:-CHECK], data[-CHECK:]
            if check != index.check(data, self.file, record):
                raise ValueError(f"record {record} of {len(data)} bytes fails its check")
        if self._key is not None:
            return bytes(self._key.opened(self.file, record, data))
        return bytes(data[: len(data) - self._tag])

    def _read(self, at: int, size: int) -> bytes:
        data = os.pread(self.fd, min(size, PIECE), at)
        while len(data) < size:
            more = os.pread(self.fd, min(size - len(data), PIECE), at + len(data))
            if not more:
                raise ValueError(f"bytes {at} to {at + size} of {self.size} are cut off")
            data += more
        return data
