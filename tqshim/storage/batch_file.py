"""Batch files: pieces of a log, mapped once, by its producer to write and by consumers to read.

Lives here: mapping them, their indexes as arrays, reading records; making, opening, sealing and deleting the files,
and filling them again.  Not here: their layout (``index``), when one is begun (``supply``) or done (``reclaim``), large
records (``large_records``).

The life of a batch file::

    create ──> load_ ──put──put──> seal ──> ready_ ──> remove
                 │                            │
                 │                            ├──> free_ ──refilled──> load_, under a new name
                 └──── its producer leaves ───┴──> remove

    damaged: load_ or ready_ ──> corrupt_, read on where it is whole, and kept

Invariant: all pages of a mapped batch file are there, and it is never cut short: to store or to look there needs no
space.  What is read is copied: a file that nobody needs any more may be filled again.
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
from collections.abc import Container, Iterable, Iterator

from tqshim.protocol import index, names
from tqshim.protocol.index import CHECK, Record
from tqshim.protocol.names import FileId
from tqshim.runtime import late, mappings, systems
from tqshim.runtime import own_fcntl as fcntl
from tqshim.runtime.finalizers import Finalizer
from tqshim.storage import places
from tqshim.storage.files import DELETED, NO_SPACE, OPEN, PAGE, Home, each_name, list_names, open_plain, opened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, Optional

__all__ = [
    "BatchFile",
    "allocate",
    "batches",
    "create_log",
    "free_batch",
    "home_of",
    "listing",
    "map_file",
    "maps_batches",
    "open_batch",
    "read_at",
    "read_log",
    "refill_batch",
    "refill_log",
    "remove_batch",
    "remove_free",
    "seal_batch",
    "set_aside",
    "space_of",
]

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
    """Read so many bytes from ``offset`` on, or fewer at the end of the file."""
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
    """The file's bytes.  They stay mapped as long as something refers to this memory, or to a slice of it.

    ``at_once``: if the memory is writable, map all pages now: to find a page at the first store there costs more."""
    mapper = mappings.system()
    if mapper is not None:
        mapping = mapper.map(fd, size, writable, at_once)
        if mapping is not None:
            return mapping.memory()
    mmap = _python_s()
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    return memoryview(mmap.mmap(fd, size, mmap.MAP_SHARED, protection))


@functools.lru_cache(None)
def _python_s() -> Any:
    """The module ``mmap``, which is one file more to load.  It is kept: when the interpreter is torn down, and a
    destructor puts, nothing can be imported any more."""
    import mmap

    return mmap


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
        """Map the file that is open at ``fd``.  ``memory``: where the file is mapped already, with all its pages.

        ``closing``: it closes ``fd`` when this object goes: the file is for large records, which system calls write.
        Without it ``fd`` stays the caller's.  Raises ``ValueError`` where the file is too short for its index."""
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
        """Whether large records are copied to its memory, too."""
        self.memory = map_file(fd, self.size, writable, closing is None) if memory is None else memory
        self.ends = self.memory[: 8 * (index.capacity(file.serial) + 1)].cast("Q")
        if writable:
            self.ends[0] = self._begin

    def release(self) -> None:
        """Let go of the memory: a store there raises ``ValueError`` from now on."""
        self.ends.release()
        self.memory.release()

    def record(self, number: int) -> bytes:
        """A copy of that record.  Raises ``ValueError`` where it is not as it was written."""
        begin, end = index.place(self.ends, number, self._begin, self.size)
        if not self._checked:
            return bytes(self.memory[begin:end])
        record = bytes(self.memory[begin : end - CHECK])
        self.verify(record, number, end - CHECK)
        return record

    def verify(self, record: Record, number: int, end: int) -> None:
        """Raise ``ValueError`` where a record is not as it was written.  ``end``: where its check begins."""
        if self.memory[end : end + CHECK] != index.check(record, self.file, number):
            raise ValueError(f"record {number} of {len(record)} bytes fails its check")

    def window(self, number: int, count: int, most: int) -> tuple[memoryview, list[int]]:
        """Copy records from ``number`` on, ``count`` or as many as ``most`` bytes hold, but one at least.

        Returns the copy, and where each record begins in it, and the last one ends.  Raises ``ValueError`` where one of
        them is not as it was written."""
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
        """Bytes of the check behind each record."""
        return CHECK if self._checked else 0


# -- their names in a folder


def create_log(home: Home, file: FileId, size: int) -> BatchFile:
    """A new batch file of so many bytes, mapped for writing.

    Raises ``OSError``, and leaves nothing, where there is no space; ``FileExistsError``."""
    where = places.spill_folder(home, create=True) if file.spilled else home.fd
    fd = home.create(names.batch(names.LOAD, file), os.O_RDWR, where)
    closing = Finalizer(os.close, fd)
    try:
        allocate(fd, size)
        return BatchFile(file, fd, True, closing if file.large or home.durable else None)
    except BaseException:
        remove_batch(home, file)
        raise


def read_log(home: Home, file: FileId) -> BatchFile:
    """A batch file, mapped for reading.  Raises ``ValueError`` where it is not there, or is something else."""
    fd = open_batch(home, file)
    try:
        return BatchFile(file, fd)
    finally:
        os.close(fd)


def open_batch(home: Home, file: FileId, flags: int = os.O_RDONLY) -> int:
    """Open a batch file, for reading unless ``flags`` say otherwise.

    Raises ``ValueError`` where it is not there, or is something else."""
    with contextlib.suppress(FileNotFoundError):  # a spill folder that is gone took it along
        where = home_of(home, file)
        for name in names.of_batch(file):
            with contextlib.suppress(FileNotFoundError):
                return open_plain(name, flags, where)
    deleted = f"; {DELETED}" if home.is_deleted else ""
    raise ValueError(f"missing, with items in it that nobody got{deleted}")


def seal_batch(home: Home, file: FileId) -> None:
    """Rename the batch file: its name says from now on that nobody writes to it any more."""
    with contextlib.suppress(FileNotFoundError):  # every item was claimed already, and it was removed
        where = home_of(home, file)
        os.rename(names.batch(names.LOAD, file), names.batch(names.READY, file), src_dir_fd=where, dst_dir_fd=where)


def remove_batch(home: Home, file: FileId) -> None:
    """Delete a batch file that nobody needs any more."""
    with contextlib.suppress(FileNotFoundError):  # a spill folder that is gone took it along
        where = home_of(home, file)
        for state in (names.LOAD, names.READY):
            with contextlib.suppress(FileNotFoundError):
                try:
                    _delete_batch(home, names.batch(state, file), where, file.large)
                except (IsADirectoryError, PermissionError):
                    set_aside(home, file, "no file that could be deleted")
                return


def set_aside(home: Home, file: FileId, finding: str) -> str:
    """Keep a damaged batch file for a person to look at, under a name that says so; returns its path."""
    # Where nothing can be opened or written, the error that is raised for the damage says it.
    with contextlib.suppress(ImportError, OSError):
        late.room("storage.corrupt").set_aside(home, file, finding)
    return f"{home.path}/{names.corrupt(names.batch(names.READY, file))}"


def remove_free(home: Home, keep: Container[int] = (), listed: Optional[Iterable[str]] = None) -> bool:
    """Delete the free files of all producers but those to ``keep``, as far as ``listed``.  ``True``: there was one."""
    found = False
    for name in list_names(home.fd) if listed is None else listed:
        parsed = names.parse(name)
        if parsed is not None and parsed.kind == "free" and parsed.numbers[0] not in keep:
            with contextlib.suppress(FileNotFoundError):
                _delete_batch(home, name, home.fd)
                found = True
    return found


def listing(home: Home) -> Iterator[str]:
    """The names of the files here, then of those in the spill folder.  They are read as the caller asks for them, which
    may take its time: a file that comes or goes meanwhile is among them, or is not."""
    yield from each_name(home.fd)
    with contextlib.suppress(FileNotFoundError):
        yield from each_name(places.spill_folder(home))


def batches(home: Home, listed: Optional[Iterable[str]] = None) -> list[FileId]:
    """The batch files among the names of a ``listing``, by default of all."""
    parsed = map(names.parse, listing(home) if listed is None else listed)
    return [FileId(*name.numbers) for name in parsed if name and name.kind in (names.LOAD, names.READY)]


def maps_batches(home: Home) -> bool:
    """Whether batch files may be mapped: they lie in memory, where no page is lost, and a reader can lock its file."""
    if home.in_memory is None:
        home.in_memory = systems.OFD_TEST is not None and places.file_system(home.fd) == "tmpfs"
    return home.in_memory


def free_batch(home: Home, file: FileId) -> None:
    """Leave a batch file that nobody needs any more to its producer: to fill pages again is many times cheaper than
    to have new ones.  Deletes it where the producer has a few already."""
    for state in (names.LOAD, names.READY):
        name = names.batch(state, file)
        size = home.size_of(name)
        if size is None:
            continue
        mapped = maps_batches(home) and mappings.worth(size, home.room())
        most = names.FREE_MAPPED if mapped else names.FREE
        slots = (names.free(file.member, at) for at in range(most))
        place = next((place for place in slots if home.size_of(place) is None), None)
        if place is None:
            remove_batch(home, file)
            return
        with contextlib.suppress(FileNotFoundError):
            os.rename(name, place, src_dir_fd=home.fd, dst_dir_fd=home.fd)
            return


def refill_log(home: Home, file: FileId, size: int, least: int) -> Optional[int]:
    """Open one of the producer's free files for writing, under that new name, with room for ``size`` bytes, or for
    ``least`` where the disk is full.  ``None``: there is none."""
    fd = refill_batch(home, file)
    if fd is None:
        return None
    try:
        status = os.fstat(fd)
        if status.st_size < size or status.st_blocks * 512 < status.st_size:
            try:
                # Longer, never shorter: somebody may have it mapped.
                allocate(fd, max(size, status.st_size))
            except OSError as error:
                if error.errno not in NO_SPACE:
                    raise
        status = os.fstat(fd)
        if status.st_size >= least and status.st_blocks * 512 >= status.st_size:
            return fd
        remove_batch(home, file)
    except BaseException:
        os.close(fd)
        remove_batch(home, file)
        raise
    os.close(fd)
    return None


def refill_batch(home: Home, file: FileId) -> Optional[int]:
    """Open one of the producer's free files for writing, under a new name; ``None``: there is none.

    Files from which records may still be read are left where they are.

    The old bytes of the file are beyond the end of what its events say, until they are written over."""
    name = names.batch(names.LOAD, file)
    for place in range(names.FREE_MAPPED):
        former = names.free(file.member, place)
        fd = _open_refillable(home, former)
        if fd is None:
            continue
        os.close(fd)
        try:
            os.rename(former, name, src_dir_fd=home.fd, dst_dir_fd=home.fd)
        except OSError:
            continue
        # Look once more: another file may have been left in its place just then.
        fd = _open_refillable(home, name)
        if fd is not None:
            return fd
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=home.fd)
    return None


def _open_refillable(home: Home, name: str, large: bool = True) -> Optional[int]:
    """Open a file that may be written to by now; ``None``: none is there, or somebody may still read in it."""
    try:
        fd = opened(name, os.O_RDWR | os.O_NONBLOCK | OPEN, home.fd)
    except OSError:  # none there, or something in its place that nobody can write to
        return None
    # Small records are never left in their file: they are copied.
    if stat.S_ISREG(os.fstat(fd).st_mode) and not (large and late.room("storage.large_records").is_being_read(fd)):
        return fd
    os.close(fd)
    return None


def _delete_batch(home: Home, name: str, where: int, large: bool = True) -> None:
    """Delete a batch file.  Its space is free at once, also where somebody has it mapped and does not read it."""
    fd = _open_refillable(home, name, large) if where == home.fd and (not large or maps_batches(home)) else None
    try:
        os.unlink(name, dir_fd=where)
        if fd is not None and not os.fstat(fd).st_nlink and systems.UNRESVSP is not None:
            with contextlib.suppress(OSError):
                fcntl.ioctl(fd, systems.UNRESVSP, space_of(os.fstat(fd).st_size + PAGE))
    finally:
        if fd is not None:
            os.close(fd)


def home_of(home: Home, file: FileId) -> int:
    """The folder in which that file lies: this one, or the spill folder on another disk."""
    return places.spill_folder(home) if file.spilled else home.fd


def space_of(size: int) -> bytes:
    """What to tell the system so that it sets so many bytes aside, or gives them back."""
    return systems.SPACE_RESV.pack(0, 0, 0, size, 0, 0, 0, 0, 0, 0)
