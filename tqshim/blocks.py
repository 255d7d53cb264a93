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
from itertools import accumulate, chain
from typing import Final, Union

from . import events

__all__ = [
    "GIANT",
    "GIANT_HEADER",
    "NewRecord",
    "Pieces",
    "Record",
    "join",
    "join_giant",
    "lay_out",
    "record",
    "split",
    "split_giant",
    "units",
]


class Pieces:
    """A large record as its pickler wrote it: in pieces, which are never joined, for each copy costs as much again."""

    __slots__ = ("parts", "size")

    def __init__(self, parts: list[Union[bytes, memoryview]]) -> None:
        """``parts``: bytes, or views of bytes."""
        self.parts = parts
        self.size = sum(map(len, parts))

    def __len__(self) -> int:
        return self.size


Record = Union[bytes, memoryview]
NewRecord = Union[bytes, memoryview, Pieces]
"""A record before it is published."""

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


def lay_out(records: Sequence[NewRecord]) -> list[Record]:
    """The bytes of a block, in pieces that are to be written one after the other."""
    if len(records) == 1:
        size = len(records[0])
        return [_LENGTH.pack(size), *_pieces(records[0]), _PADDING[(size + 4) % events.UNIT]]
    ends = [*accumulate(map(len, records))]
    padding = _PADDING[(4 * len(ends) + ends[-1]) % events.UNIT]
    return [struct.pack(f"<{len(ends)}I", *ends), *chain.from_iterable(map(_pieces, records)), padding]


def join(records: Sequence[NewRecord]) -> bytes:
    """The bytes of a block."""
    return b"".join(lay_out(records))


def join_giant(record: NewRecord) -> list[Record]:
    """The bytes of a file that holds one giant, in pieces: its header and itself."""
    return [_GIANT.pack(len(record)), *_pieces(record)]


def _pieces(record: NewRecord) -> Sequence[Record]:
    return record.parts if isinstance(record, Pieces) else (record,)


def split(data: bytes, count: int) -> tuple[memoryview, Sequence[int]]:
    """A block taken apart: the bytes of its records, and where in them each record ends.

    Raises ``ValueError`` for bytes too few for so many records."""
    if not 0 < 4 * count <= len(data):
        raise ValueError(f"{len(data)} bytes can't hold {count} records")
    view = memoryview(data)
    ends: Sequence[int] = view[: 4 * count].cast("I")
    if _SWAP:
        swapped = array("I", data[: 4 * count])
        swapped.byteswap()
        ends = swapped
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
