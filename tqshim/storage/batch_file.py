"""Batch files in memory: pieces of a log, mapped once, by its producer to write and by consumers to read.

Lives here: mapping them, their indexes as arrays, reading records.  Not here: their layout (``index``), names and
folders (``folder``), when a file is begun (``producer``).

Invariant: all pages of a mapped batch file are there, and it is never cut short: to store or to look there needs no
space.  What is read is copied: a file that nobody needs any more may be filled again.
"""

from __future__ import annotations

import functools
import os

from tqshim import mappings, systems
from tqshim.names import FileId
from tqshim.protocol import index
from tqshim.protocol.index import CHECK, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Optional

__all__ = ["BatchFile", "Closing", "allocate", "map_file", "read_at"]

_PIECE: Final = 1 << 20


def allocate(fd: int, size: int) -> None:
    """Have so many bytes in a new file.  Raises ``OSError`` where the disk has no space for them."""
    if systems.ALLOCATE:
        try:
            os.posix_fallocate(fd, 0, size)
            return
        except OSError as error:
            if error.errno not in systems.CANT_ALLOCATE:
                raise
    at = 0
    while at < size:
        # At the file's own offset, which a forked child shares: a copy of this frame writes behind what is there.
        at += os.write(fd, bytes(min(_PIECE, size - at)))


def read_at(fd: int, size: int, offset: int) -> bytes:
    """So many bytes, or fewer at the end of the file."""
    data = os.pread(fd, size, offset)
    if len(data) == size:
        return data
    parts = [data]
    got = len(data)
    while got < size and parts[-1]:
        parts.append(os.pread(fd, size - got, offset + got))
        got += len(parts[-1])
    return b"".join(parts)


def map_file(fd: int, size: int, writable: bool, at_once: bool = True) -> memoryview:
    """The file's bytes, which are mapped as long as that is referred to, or a slice of it.

    ``at_once``: if it is writable, with all its pages: to find one at the first store there costs more."""
    mapper = mappings.system()
    if mapper is not None:
        address = mapper.map(fd, size, writable, at_once)
        if address is not None:
            return mappings.Mapping(mapper, address, size).memory()
    import mmap  # here: it is one file more to load

    protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    return memoryview(mmap.mmap(fd, size, mmap.MAP_SHARED, protection))


class Closing:
    """A descriptor that is closed with this, by C code: in a finalizer in Python a signal handler may run, and what
    that raises would be lost."""

    __slots__ = ("__del__",)

    def __init__(self, fd: int) -> None:
        self.__del__ = functools.partial(os.close, fd)


class BatchFile:
    """A batch file that is mapped.  ``ends``: its index."""

    __slots__ = ("_begin", "_checked", "_closing", "ends", "fd", "file", "in_memory", "memory", "size")

    def __init__(
        self,
        file: FileId,
        fd: int,
        writable: bool = False,
        closing: object = None,
        memory: Optional[memoryview] = None,
    ) -> None:
        """Map what ``fd`` has open.  ``closing``: what closes that, and with this: it is for large records, which are
        written by system calls; else it stays the caller's.  ``memory``: it is mapped there, with all its pages.

        Raises ``ValueError`` where that is too short for its index."""
        status = os.fstat(fd)
        self.file = file
        self.size = status.st_size
        self._begin = index.data_begin(file.serial)
        self._checked = index.is_checked(file.serial)
        if self.size < self._begin:
            raise ValueError(f"{self.size} bytes can't hold the index of {index.capacity(file.serial)} records")
        self.fd = -1 if closing is None else fd
        self._closing = closing
        self.in_memory = closing is None or memory is not None
        """Large records are copied to its memory, too."""
        self.memory = map_file(fd, self.size, writable, closing is None) if memory is None else memory
        self.ends = self.memory[: 8 * (index.capacity(file.serial) + 1)].cast("Q")
        if writable:
            self.ends[0] = self._begin

    def release(self) -> None:
        """Whoever still stores there gets a ``ValueError``."""
        self.ends.release()
        self.memory.release()

    def place(self, number: int) -> tuple[int, int]:
        """Where the record of that number begins and ends, its check left out.

        Raises ``ValueError`` where that can't be true."""
        begin, end = index.place(self.ends, number, self._begin, self.size)
        return (begin, end - CHECK) if self._checked else (begin, end)

    def record(self, number: int) -> bytes:
        """A copy of that record.  Raises ``ValueError`` where it is not as it was written."""
        begin, end = index.place(self.ends, number, self._begin, self.size)
        if not self._checked:
            return bytes(self.memory[begin:end])
        record = bytes(self.memory[begin : end - CHECK])
        self.verify(record, number, end - CHECK)
        return record

    def verify(self, record: Record, number: int, end: int) -> None:
        """Raise ``ValueError`` where a record is not as it was written.  ``end``: where it ends; its check follows."""
        if self.memory[end : end + CHECK] != index.check(record, self.file, number):
            raise ValueError(f"record {number} of {len(record)} bytes fails its check")

    def window(self, number: int, count: int, most: int) -> tuple[memoryview, list[int]]:
        """A copy of records from that one on, ``count`` or as many as ``most`` bytes hold, but one at least; and where
        each begins, and the last one ends.

        Raises ``ValueError`` where one of them is not as it was written."""
        ends = self.ends[number : number + count + 1].tolist()
        begin = ends[0]
        last = ends[-1]
        if last > begin + most:
            limit = begin + most
            fitting = next(at for at, end in enumerate(ends) if end > limit) - 1
            del ends[max(1, fitting) + 1 :]
            last = ends[-1]
        if not self._begin <= begin or last > self.size or sorted(ends) != ends:
            raise ValueError(f"records {number} to {number + len(ends) - 2} end at {ends[:4]}... of {self.size} bytes")
        body = memoryview(bytes(self.memory[begin:last]))
        if self._checked:
            for at in range(len(ends) - 1):
                self.verify(body[ends[at] - begin : ends[at + 1] - begin - CHECK], number + at, ends[at + 1] - CHECK)
        return body, [end - begin for end in ends]

    @property
    def trailer(self) -> int:
        """Bytes of a record's check behind it."""
        return CHECK if self._checked else 0
