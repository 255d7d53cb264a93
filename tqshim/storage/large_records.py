"""Large records: the files made for them, and records that are unpickled where they stand.

Lives here: reading such files, whole or as memory, with a lock that keeps them as they are.  Not here: the layout of a
batch file (``index``), making one and filling it again (``batch_file``, ``supply``), the buffers in a record
(``buffers``).

A file for large records is allocated when it is made, and written by system calls, which need not clear its pages
first.  Once its items are got it goes back to its producer, is mapped, and is filled again and again under ever new
names: to store into pages that are mapped already takes half as long.  Its old bytes, those of its index too, stay
until they are written over: only totals say what counts.

Invariant: a process that has an uncopied record has a lock on the record's file.  The lock ends with the last object
that refers to the record, and with the process.  A locked file is not filled again.
"""

from __future__ import annotations

import errno
import mmap
import os
import weakref
from array import array
from collections.abc import Callable

from tqshim.protocol import index
from tqshim.protocol.index import CHECK
from tqshim.protocol.names import FileId
from tqshim.runtime import mappings, systems
from tqshim.runtime import own_fcntl as fcntl
from tqshim.runtime.finalizers import Finalizer
from tqshim.storage.batch_file import open_batch, read_at
from tqshim.storage.files import Home

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Optional, Union

__all__ = [
    "BatchView",
    "LargeFile",
    "RecordInFile",
    "is_being_read",
    "lock_to_read",
    "view_batch",
]

MAPPED: Final = 3
"""Records that a process has mapped, at most: one is used while the next is taken.  More of them are copies."""
PEEK: Final = 256
"""Bytes of a large record that an unpickler looks at before it knows how many it wants."""

_mapped: Final[list[weakref.ref[mmap.mmap]]] = []


def lock_to_read(fd: int) -> None:
    """Lock the file: it stays as it is until all processes that share this opening of it have closed it."""
    fcntl.fcntl(fd, systems.OFD_SET, systems.flock(fcntl.F_RDLCK, 0, 0))


def is_being_read(fd: int) -> bool:
    """Whether there are records in this file that somebody has taken and may still read."""
    if systems.OFD_TEST is None:  # then each record is copied before its item counts as got
        return False
    try:
        answer = fcntl.fcntl(fd, systems.OFD_TEST, systems.flock(fcntl.F_WRLCK, 0, 0))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return True  # gVisor, WSL1, a filter of system calls: without an answer no file is filled again
    return systems.kind_and_process(answer)[0] != fcntl.F_UNLCK


class RecordInFile:
    """A large record that stands in its batch file until it is unpickled from there: each byte is copied once.

    While this object is there its file is not refilled, though all may know already that its item is got: the object
    holds a lock, which ends with it, and with its process."""

    __slots__ = ("_at", "_begin", "_closing", "_end", "fd", "memory")

    def __init__(self, fd: int, begin: int) -> None:
        """``fd``: this object's own, from here on."""
        self.fd = fd
        self._closing = Finalizer(os.close, fd)
        self.memory: Optional[memoryview] = None
        """The record, if its file is mapped."""
        self._begin = self._at = self._end = begin

    def reaches(self, size: int) -> bool:
        """Take so many bytes as the record; return whether the file has so many."""
        self._end = self._begin + size
        return os.fstat(self.fd).st_size >= self._end

    def __len__(self) -> int:
        return self._end - self._begin

    def __bytes__(self) -> bytes:
        return read_at(self.fd, len(self), self._begin)

    def rewound(self) -> RecordInFile:
        """This, to be read from its start on."""
        self._at = self._begin
        return self

    def last(self) -> bytes:
        """Its last byte."""
        return os.pread(self.fd, 1, self._end - 1)

    def map(self) -> Optional[memoryview]:
        """The record as memory of this process alone, which may write there.  ``None``: there are enough such mappings.

        As long as the mapping is there the file is not refilled, and its space is not free once the file is done."""
        _mapped[:] = [reference for reference in _mapped if reference() is not None]
        if len(_mapped) >= MAPPED:
            return None
        begin = self._begin // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        try:
            mapping = mmap.mmap(
                self.fd, self._end - begin, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE, offset=begin
            )
        except OSError:
            return None
        _mapped.append(weakref.ref(mapping))
        return memoryview(mapping)[self._begin - begin :]

    def peek(self, size: int) -> bytes:
        """The next bytes; they stay to be read."""
        return os.pread(self.fd, min(size, self._end - self._at, PEEK), self._at)

    def read(self, size: int) -> bytes:
        """So many bytes, or fewer at the end of the record."""
        data = read_at(self.fd, min(size, self._end - self._at), self._at)
        self._at += len(data)
        return data

    def readline(self) -> bytes:
        """The bytes up to the next line feed, which is the last of them."""
        line = bytearray()
        while not line.endswith(b"\n") and (more := self.read(1)):
            line += more
        return bytes(line)

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer; returns how many bytes there were."""
        view = memoryview(buffer)[: self._end - self._at]
        size = 0
        while size < len(view) and (count := os.preadv(self.fd, [view[size:]], self._at)):
            size += count
            self._at += count
        return size


class BatchView:
    """A mapped batch file, to be read.  It stays as it is while this object, or a slice of its memory, is there."""

    __slots__ = ("_fd", "_memory")

    def __init__(self, mapping: mappings.Mapping, fd: int) -> None:
        """``fd``: from here on this object's own, and locked.  Raises ``OSError`` where it can't be locked."""
        self._fd = fd
        self._memory = mapping.memory(Finalizer(os.close, fd)).toreadonly()
        lock_to_read(fd)

    def block(self, offset: int, size: int) -> Optional[memoryview]:
        """So many bytes from there on.  ``None``: they are not mapped, or the file was cut short."""
        end = offset + size
        return self._memory[offset:end] if end <= min(len(self._memory), os.fstat(self._fd).st_size) else None


class LargeFile:
    """A batch file of large records that is read by system calls, or as memory once ``view`` is set."""

    __slots__ = ("_begin", "_checked", "_closing", "_fd", "file", "view")

    def __init__(self, file: FileId, fd: int) -> None:
        """``fd``: this object's own, from here on."""
        self._fd = fd
        self._closing = Finalizer(os.close, fd)
        self.file = file
        self._begin = index.data_begin(file.serial)
        self._checked = index.is_checked(file.serial)
        self.view: Optional[BatchView] = None

    @property
    def trailer(self) -> int:
        """Bytes of the check behind each record."""
        return CHECK if self._checked else 0

    def _ends(self, number: int, count: int) -> array[int]:
        """So many entries of the index, from ``number`` on.  Raises ``ValueError`` where they can't be true."""
        found: array[int] = array("Q")
        found.frombytes(self._read(8 * number, 8 * (number + count)))
        before = self._begin
        for end in found:
            if end < before:
                raise ValueError(f"records {number} to {number + count - 2} end at {found.tolist()[:4]}")
            before = end
        if before > os.fstat(self._fd).st_size:
            raise ValueError(f"cut short: records {number} to {number + count - 2} end at byte {before}")
        return found

    def _read(self, begin: int, end: int) -> bytes:
        data = read_at(self._fd, end - begin, begin)
        if len(data) < end - begin:
            raise ValueError(f"cut short: {len(data)} of {end - begin} bytes are there at byte {begin}")
        return data

    def place(self, number: int) -> tuple[int, int]:
        """Where the record of that number begins and ends, its check left out.  Raises ``ValueError``."""
        begin, end = self._ends(number, 2)
        return begin, end - self.trailer

    def bytes_of(self, number: int, count: int) -> int:
        """Bytes of so many records, from ``number`` on."""
        ends = self._ends(number, count + 1)
        return ends[-1] - ends[0]

    def record(self, number: int) -> bytes:
        """A copy of that record.  Raises ``ValueError`` where it is not as it was written."""
        begin, end = self.place(number)
        data = self._read(begin, end + self.trailer)
        if not self._checked:
            return data
        record = data[: end - begin]
        if data[end - begin :] != index.check(record, self.file, number):
            raise ValueError(f"record {number} of {len(record)} bytes fails its check")
        return record

    def window(self, number: int, count: int, most: int) -> tuple[memoryview, list[int]]:
        """Copy records from ``number`` on, ``count`` or as many as ``most`` bytes hold, but one at least.

        Returns the copy, and where each record begins in it, and the last one ends.  Raises ``ValueError`` where one of
        them is not as it was written."""
        ends = self._ends(number, count + 1).tolist()
        begin = ends[0]
        while len(ends) > 2 and ends[-1] > begin + most:
            ends.pop()
        if len(ends) == 2 or self._checked:
            record = self.record(number)
            return memoryview(record), [0, len(record) + self.trailer]
        return memoryview(self._read(begin, ends[-1])), [end - begin for end in ends]

    def leave(
        self, begin: int, end: int, open_from: int, open_batch: Callable[[FileId], int]
    ) -> Union[memoryview, RecordInFile, None]:
        """The record from ``begin`` to ``end``, left where it is.  ``None``: it must be copied now.  ``open_from``: a
        record of so many bytes may be read from the file, which it opens for itself."""
        size = end - begin
        memory = None if self._checked or self.view is None else self.view.block(begin, size)
        if size < open_from or self._checked or systems.OFD_TEST is None:
            return memory
        try:
            record = RecordInFile(open_batch(self.file), begin)
            lock_to_read(record.fd)
            if not record.reaches(size):
                return None
        except (OSError, ValueError):
            return None
        record.memory = memory
        return record


def view_batch(home: Home, file: FileId, known: mappings.Mappings) -> Optional[BatchView]:
    """A batch file as memory.  ``None``: it has to be read."""
    try:
        fd = open_batch(home, file, os.O_RDWR)
        try:
            mapping = known.of(fd)
        finally:
            os.close(fd)
        if mapping is None:
            return None
        return BatchView(mapping, open_batch(home, file))
    except (OSError, ValueError):
        return None
