"""Mapped files: a mapping may be longer than its file, or stay for as long as the file is filled again and again.

Lives here: the system's mmap, which batch files are mapped and for how long, memory that keeps something else alive.
Not here: opening (``storage``), when a file is worth it (``supply``, ``reader``).

To copy to or from pages that are mapped already takes half as long as ``pwrite`` or ``pread``; to map 4 MB takes as
long as to copy them twice.  So a file is mapped when it comes back: a producer fills the same few under ever new names.

Invariant: a mapped batch file that has a name lacks no page: to store there needs no disk space.
"""

from __future__ import annotations

import functools
import os
import struct

from tqshim.runtime import systems
from tqshim.runtime.finalizers import Finalizer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Optional, Union

__all__ = ["Mapping", "Mappings", "System", "store", "system", "worth"]

KEPT_FILES: Final = 16
"""Batch files of one queue that a process knows, at most."""
KEPT_BYTES: Final = 128 << 20
"""Bytes of them that a process has mapped, at most."""
FILE_MOST: Final = 16 << 20
"""Bytes of a file that is mapped, at most."""
SHARE: Final = 64
"""A file is mapped where so many times its length is free."""
_READ: Final = 1
_WRITE: Final = 2
_SHARED: Final = 1
"""``PROT_READ``, ``PROT_WRITE``, ``MAP_SHARED``: the module ``mmap`` is one file more to load."""
_FAILED: Final = (1 << 8 * struct.calcsize("P")) - 1
"""What the system's ``mmap`` returns when it fails."""


class System:
    """The system's own mmap, because Python's keeps a descriptor, and refuses to map more of a file than is there
    yet."""

    def __init__(self) -> None:
        self._mmap = systems.c_function("mmap", "P", "PLiiiq")
        self._unmap = systems.c_function("munmap", "i", "PL")

    def map(self, fd: int, size: int, writable: bool = False, at_once: bool = True) -> Optional[Mapping]:
        """Map the file's first bytes.  ``writable``: also for writing, and if ``at_once`` its pages, which are there,
        are found now.  ``None``: the file can't be mapped."""
        access = _READ | (_WRITE if writable else 0)
        flags = _SHARED | (systems.POPULATE if writable and at_once else 0)
        address: int = self._mmap(None, size, access, flags, fd, 0)
        return None if address == _FAILED else Mapping(address, size, Finalizer(self._unmap, address, size))


@functools.lru_cache(None)
def system() -> Optional[System]:
    """Return the system's mmap; ``None``: Python's own has to do."""
    if not systems.OWN_MMAP:
        return None
    try:
        return System()
    except ImportError:  # an interpreter without ctypes
        return None


def worth(size: int, room: int) -> bool:
    """Whether a file of ``size`` bytes is to be mapped where ``room`` bytes are free."""
    return 0 < size <= min(FILE_MOST, room // SHARE)


def store(memory: memoryview, parts: list[Union[bytes, memoryview]], offset: int) -> None:
    """Copy the parts to ``offset``, one behind the other."""
    for part in parts:
        end = offset + len(part)
        memory[offset:end] = part
        offset = end


class Mapping:
    """A file's bytes, which are mapped until this is finalized, after all other objects (``finalizers``)."""

    __slots__ = ("_address", "_finalizer", "size")

    def __init__(self, address: int, size: int, finalizer: Finalizer) -> None:
        self._address = address
        self._finalizer = finalizer
        self.size = size

    def memory(self, kept: object = None) -> memoryview:
        """Return all of it.  ``kept``: an object that stays as long as a slice of this memory does."""
        return systems.c_memory(self._address, self.size, (self, kept))


class Mappings:
    """The mappings of one queue's batch files, by inode.  The one that nobody has asked for longest goes first."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[int, Optional[Mapping]] = {}
        """``None``: the file was met once, or is not to be mapped."""

    def of(self, fd: int) -> Optional[Mapping]:
        """Return the mapping of an open file.  ``None``: the file is not worth one yet, or can't have one."""
        status = os.fstat(fd)
        known = self._known
        met = status.st_ino in known
        mapping = known.pop(status.st_ino, None)
        if met and (mapping is None or mapping.size != status.st_size):
            mapping = _map(fd, status)
        known[status.st_ino] = mapping
        while len(known) > KEPT_FILES or sum(one.size for one in known.values() if one is not None) > KEPT_BYTES:
            del known[next(iter(known))]
        return mapping

    def clear(self) -> None:
        self._known.clear()


def _map(fd: int, status: os.stat_result) -> Optional[Mapping]:
    size = status.st_size
    mapper = system()
    if mapper is None or size > status.st_blocks * 512 or not worth(size, systems.room_of(fd)):
        return None
    return mapper.map(fd, size, writable=True)
