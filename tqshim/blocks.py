"""The grammar of blocks: how records stand together in a batch file.

Lives here: joining records into the bytes of one block, and finding them again.  Not here: pickling (``queues``),
files (``folder``).

::

    a block     check, 4 bytes | where each record ends, 4 bytes each | records, one after another | padding
    a giant     length, 8 bytes | check, 4 bytes | record          (alone in its file; its event says 0 units)

A check is the CRC-32 of all that follows it in the block, or of the index alone where the records are larger than
``CHECKED`` (of a giant: of the length).  It begins with where the block belongs, and how many records it has: that is
told by an event, which may be damaged itself.

Invariant: ``split`` and ``record`` undo ``join``, ``split_giant`` undoes ``join_giant``; damaged bytes raise
``ValueError`` and nothing else.
"""

from __future__ import annotations

import struct
import sys
from array import array
from binascii import crc32
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Final, Optional, Union, cast

from . import events
from .names import FileId

__all__ = [
    "CHECKED",
    "GIANT",
    "GIANT_HEADER",
    "LARGE_HEADER",
    "TAG",
    "NewRecord",
    "Pieces",
    "Record",
    "index",
    "join",
    "join_giant",
    "lay_out",
    "record",
    "seed",
    "single",
    "split",
    "split_giant",
    "split_large",
    "split_single",
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
GIANT_HEADER: Final = 12
LARGE_HEADER: Final = 8
"""Bytes before the record of a block that has one of more than ``CHECKED`` bytes."""
TAG: Final = 2 * events.UNIT
"""Bytes that follow a block, or a giant, of a queue that has a key."""
CHECKED: Final = 64
"""Bytes that the records of a block take on average, at most, if its check is to cover them: that costs one or two
percent of putting and getting them.  For larger ones it would cost more: they are copied, and little else."""

SINGLE_MOST: Final = (CHECKED + 8 + events.UNIT - 1) // events.UNIT
"""Units of a block that ``single`` makes, at most."""

_WORD: Final = struct.Struct("<I")
_PAIR: Final = struct.Struct("<2I")
_LENGTH: Final = struct.Struct("<Q")
_PADDING: Final = [bytes(-used % events.UNIT) for used in range(events.UNIT)]
_SWAP: Final = sys.byteorder == "big"


def seed(file: FileId, offset: int) -> int:
    """Where a check begins, for a block at so many units in that file: one that belongs elsewhere fails it."""
    return file[1] << 16 ^ file[0] ^ offset


def _seed_of(count: int, seed: int) -> int:
    """Where the check of a block of so many records begins: of one, the most frequent by far, at the seed itself."""
    return seed ^ (count - 1) * 0x9E3779B1


def units(count: int, size: int) -> int:
    """Units that a block of ``count`` records of ``size`` bytes in all takes."""
    return (4 + 4 * count + size + events.UNIT - 1) // events.UNIT


def lay_out(records: Sequence[NewRecord], seed: int, check_all: bool = False) -> list[Record]:
    """The bytes of a block, in pieces that are to be written one after the other.

    ``check_all``: its check covers the records, however large they are."""
    count = len(records)
    if count == 1:
        record = records[0]
        size = len(record)
        if size <= CHECKED and not isinstance(record, Pieces):
            return [single(record, seed)]
        index = _WORD.pack(size)
        pieces = _pieces(record)
    else:
        seed = _seed_of(count, seed)
        ends = [*accumulate(map(len, records))]
        size = ends[-1]
        index = struct.pack(f"<{count}I", *ends)
        if Pieces in {*map(type, records)}:
            pieces = [*chain.from_iterable(map(_pieces, records))]
        else:
            pieces = cast("Sequence[Record]", records)
    padding = _PADDING[(4 + 4 * count + size) % events.UNIT]
    if size <= CHECKED * count or check_all:
        body = b"".join((index, *pieces, padding))
        return [_WORD.pack(crc32(body, seed)) + body]
    return [_WORD.pack(crc32(index, seed)), index, *pieces, padding]


def single(record: Record, seed: int) -> bytes:
    """The bytes of a block of one record, of at most ``CHECKED`` bytes."""
    size = len(record)
    body = _WORD.pack(size) + record + _PADDING[(size + 8) % events.UNIT]
    return _WORD.pack(crc32(body, seed)) + body


def join(records: Sequence[NewRecord], seed: int, check_all: bool = False) -> bytes:
    """The bytes of a block."""
    return b"".join(lay_out(records, seed, check_all))


def join_giant(record: NewRecord, seed: int) -> list[Record]:
    """The bytes of a file that holds one giant, in pieces: its header and itself."""
    length = _LENGTH.pack(len(record))
    return [length + _WORD.pack(crc32(length, seed)), *_pieces(record)]


def _pieces(record: NewRecord) -> Sequence[Record]:
    return record.parts if isinstance(record, Pieces) else (record,)


def index(data: Record, count: int) -> Sequence[int]:
    """Where in its records' bytes each record ends, of a block that begins with these bytes; nothing is checked.

    Raises ``ValueError`` for bytes too few for an index of so many records."""
    if not 0 < 4 * count <= len(data) - 4:
        raise ValueError(f"{len(data)} bytes can't hold {count} records")
    ends: Sequence[int] = memoryview(data)[4 : 4 + 4 * count].cast("I")
    if _SWAP:
        swapped = array("I", bytes(data[4 : 4 + 4 * count]))
        swapped.byteswap()
        ends = swapped
    return ends


def split_single(data: bytes, seed: int) -> Optional[bytes]:
    """The record of a block that ``single`` has made; ``None`` for any other."""
    if len(data) < 8:
        return None
    check, size = _PAIR.unpack_from(data)
    if size > len(data) - 8 or size > CHECKED or crc32(data[4:], seed) != check:
        return None
    return data[8 : 8 + size]


def split_large(head: bytes, seed: int) -> Optional[int]:
    """The length of the only record of a block that begins with these ``LARGE_HEADER`` bytes; ``None``: another."""
    if len(head) < LARGE_HEADER:
        return None
    check, size = _PAIR.unpack(head)
    return size if size > CHECKED and crc32(head[4:], seed) == check else None


def split(data: Record, count: int, seed: int) -> tuple[memoryview, Sequence[int]]:
    """A block taken apart: the bytes of its records, and where in them each record ends.

    Raises ``ValueError`` for bytes that are not, or not all, of that block."""
    if count == 1 and len(data) >= 8:
        check, size = _PAIR.unpack_from(data)
        if size <= len(data) - 8 and crc32(data[4:] if size <= CHECKED else data[4:8], seed) == check:
            return memoryview(data)[8:], (size,)
    ends = index(data, count)
    seed = _seed_of(count, seed)
    view = memoryview(data)
    begin = 4 + 4 * count
    size = ends[-1]
    if size > len(data) - begin:
        raise ValueError(f"{len(data)} bytes can't hold {count} records of {size} bytes")
    check = _WORD.unpack_from(data)[0]
    whole, index_only = view[4:], view[4:begin]
    likely, other = (whole, index_only) if size <= CHECKED * count else (index_only, whole)
    if crc32(likely, seed) != check and crc32(other, seed) != check:
        raise ValueError(f"a block of {count} records in {len(data)} bytes fails its check")
    return view[begin:], ends


def record(body: Record, ends: Sequence[int], index: int) -> Record:
    """One record of a block that was split.  Raises ``ValueError`` where the ends can't be true."""
    start = ends[index - 1] if index else 0
    end = ends[index]
    if not start <= end <= len(body):
        raise ValueError(f"record {index} reaches from byte {start} to {end} of {len(body)}")
    return body[start:end]


def split_giant(head: bytes, size: int, seed: int) -> int:
    """The length of the giant in a file of ``size`` bytes that begins with ``head``.

    Raises ``ValueError`` where the file can't hold it, or holds something else."""
    if len(head) < GIANT_HEADER:
        raise ValueError(f"{len(head)} bytes can't hold a length")
    length: int = _LENGTH.unpack_from(head)[0]
    if length + GIANT_HEADER > size:
        raise ValueError(f"a record of {length} bytes can't stand in a file of {size}")
    if crc32(head[: _LENGTH.size], seed) != _WORD.unpack_from(head, _LENGTH.size)[0]:
        raise ValueError(f"the length of a record of {length} bytes fails its check")
    return length
