"""Where the items of a queue stand: stretches of logs, in the order of the queue.

Lives here: the list of extents.  Not here: which records are cut (``ledger``), how a record stands in its file
(``index``).

An extent is a run of items that are records of one batch file, one behind the other there.  Neighbours join: ten
million items that one producer has put are one extent a file, and an extent takes 16 bytes.  Several producers make one
extent each a millisecond.  Of a long backlog the older extents are packed, a chunk at a time, and take some 3 bytes
each.

Invariant: the extents cover all items from ``first`` up to ``end``, without a gap.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import accumulate
from operator import sub

from tqshim.errors import UnsupportedError

try:
    import zlib
except ImportError:  # an interpreter that was built without it packs nothing
    zlib = None  # type: ignore[assignment]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Optional

__all__ = ["Extents"]

RECORDS: Final = 1 << 24
"""Records of one batch file, at most: the number of the file stands in the bits of a word above that."""
_FORGOTTEN: Final = 512
"""Forgotten extents that are kept before their space is given back."""
CHUNK: Final = 1024
"""Extents of a chunk; at least as many of the youngest extents are not packed."""
_ROW: Final = struct.Struct("<3Q")
"""A chunk in a dump: the end of its items, its first item, how many bytes it has without the padding to 8."""


class Extents:
    """The extents of the items that wait, oldest first."""

    __slots__ = ("_at", "_chunks", "_ends", "_first", "_low", "_open", "_where")

    def __init__(self, first: int = 0) -> None:
        self._chunks: list[tuple[int, int, bytes]] = []
        """The older extents, packed: of each chunk the end of its items, its first item, its bytes."""
        self._low = first
        """The first item, where there are chunks."""
        self._open: tuple[int, Optional[Extents]] = 0, None
        """The chunk that was last looked into: the end of its items, its extents."""
        self._first = first
        """The first item of the oldest extent that is not packed."""
        self._ends = array("Q")
        self._where = array("Q")
        """Of each extent that is not packed: the number of its file, and the number of its first record there."""
        self._at = 0
        """The index of the oldest extent that counts."""

    def __len__(self) -> int:
        """The number of extents, with forgotten ones of the oldest chunk."""
        return len(self._ends) - self._at + CHUNK * len(self._chunks)

    @property
    def words(self) -> int:
        """Words of ``dump``."""
        packed = sum([_ROW.size + _padded(len(data)) for _, _, data in self._chunks]) // 8
        return packed + 2 * (len(self._ends) - self._at)

    @property
    def chunks(self) -> int:
        """Chunks of packed extents."""
        return len(self._chunks)

    @property
    def first(self) -> int:
        """The first item of the oldest extent."""
        return self._low if self._chunks else self._first

    @property
    def end(self) -> int:
        """The item behind the last one."""
        return self._ends[-1] if len(self._ends) > self._at else self._first

    def append(self, item: int, file: int, record: int, count: int) -> None:
        """Add ``count`` items, from ``item`` on: the records of file number ``file`` from ``record`` on."""
        ends = self._ends
        where = file << 24 | record
        if len(ends) > self._at:
            end = ends[-1]
            index = len(ends) - 1
            first = ends[index - 1] if index > self._at else self._first
            if self._where[-1] + end - first == where:
                ends[-1] = end + count
                return
        else:
            if self._first != item:
                self.clear(item)
                ends = self._ends
            end = item
        ends.append(end + count)
        self._where.append(where)
        if len(ends) >= 2 * CHUNK:
            self._pack()

    def extend(self, stretches: list[tuple[int, int, int, int]]) -> None:
        """``append`` each of these stretches, one or more, which follow one another and what is there."""
        item, file, record, count = stretches[0]
        self.append(item, file, record, count)
        ends, append_end, append_where = self._ends, self._ends.append, self._where.append
        last, full = file << 24 | record + count, 2 * CHUNK
        for item, file, record, count in stretches[1:]:
            where = file << 24 | record
            if where == last:
                ends[-1] = item + count
            else:
                append_end(item + count)
                append_where(where)
                if len(ends) >= full:
                    self._pack()
            last = where + count

    def place(self, item: int) -> tuple[int, int, int]:
        """The number of the file in which an item stands, the number of its record there, and the end of its extent."""
        ends, at = self._ends, self._at
        if at < len(ends) and item < ends[at]:
            if item < self._first:
                return self._chunk_of(item).place(item)
            index, first = at, self._first
        else:
            index = bisect_right(ends, item, at)
            if index == len(ends):
                raise self._not_here(item)
            first = ends[index - 1]
        where = self._where[index]
        return where >> 24, (where & RECORDS - 1) + item - first, ends[index]

    def each(self, first: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """The items ``first`` up to ``end``, by extents: first item, end, number of the file, first record."""
        while first < end:
            file, record, stop = self.place(first)
            stop = min(stop, end)
            yield first, stop, file, record
            first = stop

    def forget(self, low: int) -> None:
        """Forget the items before ``low``."""
        if self._chunks:
            if low < self._first:
                self._low = max(low, self._low)
                del self._chunks[: bisect_left(self._chunks, (low + 1,))]
                return
            self._chunks.clear()
            self._open = 0, None
        ends = self._ends
        if low <= self._first:
            return
        at = self._at
        if at < len(ends) and low < ends[at]:
            self._where[at] += low - self._first
            self._first = low
            return
        at = bisect_right(ends, low, at)
        if at == len(ends):
            self.clear(low)
            return
        self._where[at] += low - ends[at - 1]
        self._first = low
        self._at = at
        if at > _FORGOTTEN and 2 * at > len(ends):
            del ends[:at], self._where[:at]
            self._at = 0

    def clear(self, first: int) -> None:
        """Forget all items; the next will be ``first``."""
        self._ends, self._where, self._at = array("Q"), array("Q"), 0
        self._first = first
        self._chunks.clear()
        self._open = 0, None

    def dump(self) -> bytes:
        """The extents as bytes: processes that have forgotten as much write the same, but for what is packed.

        First come the chunks, each behind its row, then the ends of the other extents, then their places.  The words of
        a chunk are its first end, the step from each of its 1,024 ends to the next, and the places.  The chunk is the
        first bytes of all these words, then all second bytes, and so on, packed by zlib."""
        parts = [
            _ROW.pack(end, first, len(data)) + data.ljust(_padded(len(data)), b"\0")
            for end, first, data in self._chunks
        ]
        return b"".join([*parts, self._ends[self._at :].tobytes(), self._where[self._at :].tobytes()])

    @classmethod
    def load(cls, first: int, data: bytes, chunks: int = 0) -> Extents:
        """Load what ``dump`` has made, with so many chunks.  Raises ``ValueError`` where the bytes can't be that."""
        if chunks and zlib is None:  # before this process has anything in the queue
            raise UnsupportedError(
                sys.executable, "was built without zlib, which a long backlog is packed with", "use one that has it"
            )
        extents = cls(first)
        at = 0
        for _ in range(chunks):
            if len(data) - at < _ROW.size:
                raise ValueError(f"{chunks} chunks of extents can't have {len(data)} bytes")
            end, begin, size = _ROW.unpack_from(data, at)
            at += _ROW.size
            extents._chunks.append((end, begin, data[at : at + size]))
            at += _padded(size)
        half = (len(data) - at) // 2
        if half < 0 or half % 8:
            raise ValueError(f"{chunks} chunks of extents can't have {len(data)} bytes")
        if chunks:
            extents._first = extents._chunks[-1][0]
        extents._ends.frombytes(data[at : at + half])
        extents._where.frombytes(data[at + half :])
        return extents

    # -- chunks

    def _pack(self) -> None:
        """Pack the oldest extents, if enough of them count; give back the space of what is forgotten."""
        ends, where, at = self._ends, self._where, self._at
        if len(ends) - at >= 2 * CHUNK:
            if zlib is None:
                return
            stop = at + CHUNK
            end = ends[stop - 1]
            if not self._chunks:
                self._low = self._first
            steps = array("Q", map(sub, ends[at:stop], [0, *ends[at : stop - 1]]))
            data = zlib.compress(_planes((steps + where[at:stop]).tobytes()), 1)
            self._chunks.append((end, self._first, data))
            self._first = end
            at = stop
        del ends[:at], where[:at]
        self._at = 0

    def _chunk_of(self, item: int) -> Extents:
        """The extents of the chunk that has that item.  Raises ``LookupError`` where no chunk has it."""
        if not self._chunks or item < self._low:
            raise self._not_here(item)
        end, extents = self._open
        if extents is None or not extents._first <= item < end:
            end, first, packed = self._chunks[bisect_left(self._chunks, (item + 1,))]
            extents = Extents.load(first, _words(zlib.decompress(packed)))
            extents._ends = array("Q", accumulate(extents._ends))
            self._open = end, extents
        return extents

    def _not_here(self, item: int) -> LookupError:
        return LookupError(f"item {item} is not among {self.first} to {self.end - 1}")


def _padded(size: int) -> int:
    return -(-size // 8) * 8


def _planes(words: bytes) -> bytes:
    """The first bytes of all words, then all second bytes, and so on: most of these are alike, and pack well."""
    return b"".join([words[byte::8] for byte in range(8)])


def _words(planes: bytes) -> bytes:
    """What ``_planes`` was given."""
    count = len(planes) // 8
    words = bytearray(len(planes))
    for byte in range(8):
        words[byte::8] = planes[byte * count : (byte + 1) * count]
    return bytes(words)
