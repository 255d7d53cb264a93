"""The grammar of batch files: how the records of a log stand in one.

Lives here: the layout of a file, what its serial number tells of it, checks.  Not here: pickling (``queues``), files
(``storage``), which records are items (``ledger``).

::

    a batch file    index | records, one behind the other
    its index       capacity + 1 words of 8 bytes: where the records begin; then, of each record, where it ends

A serial number counts a producer's files, and tells of each what its readers must know before they open it::

    bit 0       it lies in the spill folder
    bit 1       it was made for large records
    bit 2       each record is followed by its check, 4 bytes: a CRC-32 of it, its place and its file
    bits 3-6    its capacity: 256 records, doubled so many times
    bits 7-39   which of its producer's files it is

Invariant: ``FileId`` and the number of a record in its file tell for ever which record is meant: neither is used twice.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from tqshim.protocol.names import FileId

try:
    from zlib import crc32  # which ``multiprocessing.queues`` has imported already
except ImportError:  # an interpreter that was built without it
    from binascii import crc32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, TypeAlias, Union

__all__ = [
    "CHECK",
    "FIRST",
    "SCALES",
    "Record",
    "capacity",
    "check",
    "crc32",
    "data_begin",
    "is_checked",
    "place",
    "serial",
]

Record: TypeAlias = "Union[bytes, memoryview]"

FIRST: Final = 256
"""Records of the smallest batch file, at most."""
SCALES: Final = 16
"""Sizes of batch files, each twice the one before."""
CHECK: Final = 4
"""Bytes of a check."""
_WORD: Final = 8
_ALIGNMENT: Final = 64


def serial(count: int, scale: int, spilled: bool = False, large: bool = False, checked: bool = False) -> int:
    """The serial number of a producer's ``count``-th file."""
    return count << 7 | scale << 3 | checked << 2 | large << 1 | spilled


def capacity(serial: int) -> int:
    """Records that the file holds, at most."""
    return FIRST << (serial >> 3 & 15)


def is_checked(serial: int) -> bool:
    """Whether a check follows each record of the file."""
    return bool(serial & 4)


def data_begin(serial: int) -> int:
    """The byte at which the records of the file begin."""
    return (_WORD * (capacity(serial) + 1) + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT


def check(record: Record, file: FileId, number: int) -> bytes:
    """The check that follows a record in a checked file: a record that belongs elsewhere fails it."""
    return struct.pack("<I", crc32(record, (file[0] << 20 ^ file[1] << 8 ^ number) & 0xFFFFFFFF))


def place(ends: Sequence[int], number: int, begin: int, size: int) -> tuple[int, int]:
    """Where in its file the record of that number begins and ends.  ``ends``: the index; ``size``: the file's.

    Raises ``ValueError`` where the index can't be true."""
    start, end = ends[number], ends[number + 1]
    if not begin <= start <= end <= size:
        raise ValueError(f"record {number} reaches from byte {start} to {end} of {size}")
    return start, end
