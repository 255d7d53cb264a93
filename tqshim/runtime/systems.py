"""What this system has and others lack, behind one switch: ``TQSHIM_PORTABLE`` does without all of it.

Lives here: which of it may be used, where it lies, the layouts of structures that differ between systems, and how
functions of the C library are called.  Not here: its use, and what stands in for it (``storage``, ``sync``,
``monitor.looking``, and others).

Invariant: no other room but ``errors`` asks for the system's name, none asks for the switch, and none knows a path that
only some systems have; so under the switch the same code runs as on macOS, except for those layouts.
"""

from __future__ import annotations

import errno
import os
import select
import struct
import sys
from collections.abc import Callable
from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, Optional, Union

__all__ = [
    "PROC",
    "SHM",
    "c_function",
    "c_memory",
    "flock",
    "give_way",
    "kind_and_process",
    "kind_of_statfs",
    "processors",
    "room_of",
]

PORTABLE: Final = bool(os.environ.get("TQSHIM_PORTABLE"))
"""Do without what only Linux has, and without what some versions of macOS lack."""
DARWIN: Final = sys.platform == "darwin"
_LINUX: Final = sys.platform == "linux" and not PORTABLE
_MACHINE: Final = os.uname().machine if _LINUX else ""
_ABSENT: Final = "/nonexistent" if PORTABLE else ""
"""Stands before a path that must not be found, as on systems that lack it."""

SHM: Final = _ABSENT + "/dev/shm"
"""A file system in memory."""
PROC: Final = _ABSENT + "/proc"
"""What processes have open, and what is mounted."""

EPOLL: Final = not PORTABLE and hasattr(select, "EPOLLEXCLUSIVE")
"""One ring wakes one sleeper; with ``poll`` all wake and all but one sleep again."""
MAPS_AHEAD: Final = _LINUX and sys.byteorder == "little"
"""Files can be mapped longer than they are, and what ``write`` has written is in the mapping at once."""
OWN_MMAP: Final = _LINUX
"""The system's mmap is called by ctypes; Python's keeps a descriptor for each mapping."""
MEMBARRIER: Final[Optional[int]] = {
    "x86_64": 324,
    "aarch64": 283,
    "ppc64le": 365,
    "s390x": 356,
    "riscv64": 283,
}.get(_MACHINE if struct.calcsize("P") == 8 else "32 bits")
"""The number of that system call; ``None``: there are no grants.  There are none on 32 bits either: to store a word
takes two stores there, and nobody may see a counter between them."""
POPULATE: Final = 0 if MEMBARRIER is None else 0x8000
"""``MAP_POPULATE``, the same on all of these machines."""
STORES_IN_ORDER: Final = not PORTABLE and hasattr(os, "uname") and os.uname().machine in ("x86_64", "i686")
"""Other processors see the stores of a processor in the order in which it made them."""
OFD_TEST: Final = 36 if _LINUX else None
OFD_SET: Final = 37
"""``F_OFD_GETLK`` and ``F_OFD_SETLK``: locks of what ``open`` returns; they end when all processes that have it, forked
children included, have closed it."""
PWRITEV: Final = not PORTABLE and hasattr(os, "pwritev")
"""macOS has it from 11 on."""
MKFIFO_AT: Final = not PORTABLE and getattr(os, "mkfifo", None) in os.supports_dir_fd
"""macOS has ``mkfifoat`` from 13 on."""

give_way: Final[Callable[[], object]] = (not PORTABLE and getattr(os, "sched_yield", None)) or int
"""Let another process run on this processor, if one wants to; does nothing on macOS."""

SET_PIPE_SIZE: Final = 1031 if _LINUX else None
"""``F_SETPIPE_SZ``: how much a pipe holds."""
PIPES_FORGET: Final = DARWIN
"""When its reader has gone, a pipe does not tell any more whether all was read."""
FULL_SYNC: Final = 51 if DARWIN and not PORTABLE else None
"""``fcntl(fd, F_FULLFSYNC)``: on macOS ``fsync`` lets the disk keep what it was given in the disk's own memory."""
RESVSP: Final = (0x80305828 if _MACHINE.startswith("ppc") else 0x40305828) if _LINUX else None
"""``ioctl(fd, FS_IOC_RESVSP)`` sets disk space aside, without a change of the file's length."""
UNRESVSP: Final = None if RESVSP is None else RESVSP + 3
"""``ioctl(fd, FS_IOC_UNRESVSP)`` gives disk space back, without a change of the file's length."""
SPACE_RESV: Final = struct.Struct("=hhxxxxqqiI4i")
"""``struct space_resv``: type, whence, start, length, system, process, padding."""
ALLOCATE: Final = not PORTABLE and hasattr(os, "posix_fallocate")
"""Space for a file's bytes can be had before they are written; macOS writes zeros."""
CANT_ALLOCATE: Final = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
"""The errors of a file system that can't do that."""
PREALLOCATE: Final = 42 if DARWIN and not PORTABLE else None
"""``fcntl(fd, F_PREALLOCATE)``, the same on macOS: so many bytes beyond what the file has on disk."""
FSTORE: Final = struct.Struct("=IiqqQ")
"""``struct fstore``: flags, what the offset counts from, offset, length, bytes found."""
ALL_OR_NOTHING: Final = 0x4
KEPT_WHEN_CLOSED: Final = 0x8
FROM_END: Final = 3
"""``F_ALLOCATEALL``, ``F_ALLOCATEPERSIST``, ``F_PEOFPOSMODE``."""

FSTATFS: Final = ("fstatfs$INODE64" if os.uname().machine == "x86_64" else "fstatfs") if DARWIN else "fstatfs"
"""The function that says what a file system is; of macOS's two on Intel the one with the newer layout."""
HAS_FSTATFS: Final = DARWIN or _LINUX
STATFS_SIZE: Final = 4096
"""Bytes that hold a ``struct statfs``: macOS's has 2168, Linux's 120."""
SHARED_MAGIC: Final = {
    0x6969: "nfs",
    0x517B: "smb",
    0xFF534D42: "cifs",
    0xFE534D42: "smb3",
    0x01021997: "9p",
    0x65735546: "fuse",
    0x786F4256: "vboxsf",
    0x00C36400: "ceph",
    0x47504653: "gpfs",
    0x0BD00BD0: "lustre",
    0x19830326: "beegfs",
    0x01161970: "gfs2",
    0x7461636F: "ocfs2",
    0x5346414F: "afs",
    0x6B414653: "afs",
    0x20030528: "pvfs2",
}
"""What Linux's ``statfs`` says of network file systems, and of those that are shared with another machine."""

FLOCK: Final = struct.Struct("@qqihh" if DARWIN else "@hhqqi")
"""``struct flock``: type, whence, start, length, process; on macOS start, length, process, type, whence."""


def flock(kind: int, start: int, length: int) -> bytes:
    """Return a ``struct flock`` whose ``start`` counts from the start of the file."""
    return FLOCK.pack(start, length, 0, kind, 0) if DARWIN else FLOCK.pack(kind, 0, start, length, 0)


def kind_and_process(answer: bytes) -> tuple[int, int]:
    """Return the kind of lock that a ``struct flock`` tells of, and the process that has it."""
    fields = FLOCK.unpack(answer)
    return (fields[3], fields[2]) if DARWIN else (fields[0], fields[4])


def kind_of_statfs(answer: bytes) -> str:
    """Return the name of a ``struct statfs``'s file system; an empty one where the struct does not tell it."""
    if DARWIN:
        return answer[72:88].partition(b"\0")[0].decode("ascii", "replace")
    return SHARED_MAGIC.get(int.from_bytes(answer[:4], sys.byteorder), "")


def room_of(place: Union[int, str]) -> int:
    """Return the bytes that are free for us on the file system of an open file, or at a path."""
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize


def processors() -> int:
    """Return how many processors this process may use."""
    if not PORTABLE and hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# -- functions of the C library.  ``ctypes`` takes 3 ms to import; ``_ctypes``, on which it stands, a tenth of that.

_c_kinds: dict[tuple[Any, str], Any] = {}


def _c_kind(code: str) -> Any:
    """Return the C type for a letter of ``struct``'s.  A signal handler that interrupts the import of ``_ctypes``
    imports another: their types don't mix.  At its end an interpreter has forgotten its modules."""
    try:
        import _ctypes
    except ImportError:
        for (_, known), kind in _c_kinds.items():
            if known == code:
                return kind
        raise
    return _kind_of(_ctypes, code)


def _kind_of(library: Any, code: str) -> Any:
    base = library._SimpleCData
    found = _c_kinds.get((base, code))
    if found is None:
        found = _c_kinds[base, code] = type(code, (base,), {"_type_": code})
    return found


def c_function(name: str, result: str, arguments: str) -> Any:
    """Return a function of the C library; letters of ``struct``'s give the types of its result and its arguments.

    Raises ``ImportError`` in an interpreter without ``ctypes``."""
    import _ctypes

    kind = partial(_kind_of, _ctypes)
    library = _ctypes.dlopen(None, 2)  # type: ignore[arg-type]
    call = type("call", (_ctypes.CFuncPtr,), {"_flags_": _ctypes.FUNCFLAG_CDECL, "_restype_": kind(result)})
    found: Any = call(_ctypes.dlsym(library, name))
    found.argtypes = tuple(map(kind, arguments))
    return found


def c_memory(address: int, size: int, kept: object) -> memoryview:
    """Return the bytes from ``address`` on.  ``kept``: an object that stays as long as a slice of them does."""
    # An array type without end, for all sizes: to make a type takes 15 to 75 us.
    array = (_c_kind("c") * (sys.maxsize // 2)).from_address(address)
    array.kept = kept
    return memoryview(array).cast("B")[:size]
