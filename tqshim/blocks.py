"""The grammar of blocks: how records stand together in a batch file.

Lives here: joining records into the bytes of one block, and finding them again.  Not here: pickling (``queues``),
files (``folder``).

::

    a block     where each record ends, 4 bytes each | records, one after another | padding
    a giant     length, 8 bytes | record                 (alone in its file; its event says 0 units)

Invariant: ``split`` and ``record`` undo ``join``, ``split_giant`` undoes ``join_giant``; damaged bytes raise
``ValueError`` and nothing else.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Sequence
from itertools import accumulate
from typing import Final, Union

from . import events

__all__ = ["GIANT", "GIANT_HEADER", "Record", "join", "join_giant", "record", "split", "split_giant", "units"]

Record = Union[bytes, memoryview]

GIANT: Final = (events.UNITS_MOST - 1) * events.UNIT
"""Records of so many bytes stand alone in a file of their own."""
GIANT_HEADER: Final = 8

_LENGTH: Final = struct.Struct("<I")
_GIANT: Final = struct.Struct("<Q")
_PADDING: Final = [bytes(-used % events.UNIT) for used in range(events.UNIT)]
_SWAP: Final = sys.byteorder == "big"


def units(count: int, size: int) -> int:
    """Units that a block of ``count`` records of ``size`` bytes in all takes."""
    return (4 * count + size + events.UNIT - 1) // events.UNIT


def join(records: Sequence[Record]) -> bytes:
    """The bytes of a block."""
    if len(records) == 1:
        size = len(records[0])
        return b"".join((_LENGTH.pack(size), records[0], _PADDING[(size + 4) % events.UNIT]))
    ends = [*accumulate(map(len, records))]
    padding = _PADDING[(4 * len(ends) + ends[-1]) % events.UNIT]
    return b"".join((struct.pack(f"<{len(ends)}I", *ends), *records, padding))


def join_giant(record: Record) -> tuple[bytes, Record]:
    """The bytes of a file that holds one giant: its header and itself, to be written one after the other."""
    return _GIANT.pack(len(record)), record


def split(data: bytes, count: int) -> tuple[memoryview, Sequence[int]]:
    """A block taken apart: the bytes of its records, and where in them each record ends.

    Raises ``ValueError`` for bytes that can't hold these records."""
    if not 0 < 4 * count <= len(data):
        raise ValueError(f"{len(data)} bytes can't hold {count} records")
    view = memoryview(data)
    ends: Sequence[int] = view[: 4 * count].cast("I")
    if _SWAP:
        swapped = array("I", data[: 4 * count])
        swapped.byteswap()
        ends = swapped
    if ends[-1] > len(data) - 4 * count:
        raise ValueError(f"{len(data)} bytes can't hold {count} records of {ends[-1]} bytes")
    return view[4 * count :], ends


def record(body: memoryview, ends: Sequence[int], index: int) -> memoryview:
    """One record of a block that was split.  Raises ``ValueError`` where the ends can't be true."""
    start = ends[index - 1] if index else 0
    end = ends[index]
    if not start <= end <= len(body):
        raise ValueError(f"record {index} reaches from byte {start} to {end} of {len(body)}")
    return body[start:end]


def split_giant(head: bytes, size: int) -> int:
    """The length of the giant in a file of ``size`` bytes that begins with ``head``.

    Raises ``ValueError`` where the file can't hold it."""
    if len(head) < GIANT_HEADER:
        raise ValueError(f"{len(head)} bytes can't hold a length")
    length: int = _GIANT.unpack_from(head)[0]
    if length + GIANT_HEADER > size:
        raise ValueError(f"a record of {length} bytes can't stand in a file of {size}")
    return length
