"""Where the items of a queue stand: stretches of logs, in the order of the queue.

Lives here: the list of extents.  Not here: which records are cut (``ledger``), how a record stands in its file
(``index``).

An extent is a run of items that are records of one batch file, one behind the other there.  Neighbours join: ten
million items that one producer has put are one extent a file, and an extent takes 16 bytes.

Invariant: the extents are of all items from ``first`` up to ``end``, without a gap.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["Extents"]

RECORDS: Final = 1 << 24
"""Records of one batch file, at most: its number among all files stands above that in a word."""
_FORGOTTEN: Final = 512
"""Extents that are kept for nothing before their space is given back."""


class Extents:
    """The extents of the items that wait, oldest first."""

    __slots__ = ("_at", "_ends", "_where", "first")

    def __init__(self, first: int = 0) -> None:
        self.first = first
        """The first item of the oldest extent."""
        self._ends = array("Q")
        self._where = array("Q")
        """Of each: the number of its file, and that of its first record there."""
        self._at = 0
        """The oldest that counts."""

    def __len__(self) -> int:
        return len(self._ends) - self._at

    @property
    def end(self) -> int:
        """The item behind the last one."""
        return self._ends[-1] if len(self._ends) > self._at else self.first

    def append(self, item: int, file: int, record: int, count: int) -> None:
        """So many items more, of which the first has that number: the records from that one on of the file of that
        number."""
        ends = self._ends
        where = file << 24 | record
        if len(ends) > self._at:
            end = ends[-1]
            index = len(ends) - 1
            first = ends[index - 1] if index > self._at else self.first
            if self._where[-1] + end - first == where:
                ends[-1] = end + count
                return
        else:
            if self.first != item:
                self.clear(item)
                ends = self._ends
            end = item
        ends.append(end + count)
        self._where.append(where)

    def place(self, item: int) -> tuple[int, int, int]:
        """The number of the file in which an item stands, that of its record there, and the end of its extent."""
        ends, at = self._ends, self._at
        if at < len(ends) and item < ends[at]:
            index, first = at, self.first
        else:
            index = bisect_right(ends, item, at)
            if index == len(ends):
                raise LookupError(f"item {item} is not among {self.first} to {self.end - 1}")
            first = ends[index - 1]
        if item < first:
            raise LookupError(f"item {item} is not among {self.first} to {self.end - 1}")
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
        """Forget the items before that one."""
        ends = self._ends
        if low <= self.first:
            return
        at = self._at
        if at < len(ends) and low < ends[at]:
            self._where[at] += low - self.first
            self.first = low
            return
        at = bisect_right(ends, low, at)
        if at == len(ends):
            self.clear(low)
            return
        self._where[at] += low - ends[at - 1]
        self.first = low
        self._at = at
        if at > _FORGOTTEN and 2 * at > len(ends):
            del ends[:at], self._where[:at]
            self._at = 0

    def clear(self, first: int) -> None:
        """No items any more; the next will be that one."""
        self._ends, self._where, self._at = array("Q"), array("Q"), 0
        self.first = first

    def dump(self) -> bytes:
        """The extents as bytes, the same whoever writes them once as much was forgotten."""
        return self._ends[self._at :].tobytes() + self._where[self._at :].tobytes()

    @classmethod
    def load(cls, first: int, data: bytes) -> Extents:
        """What ``dump`` has made.  Raises ``ValueError`` where that can't be."""
        extents = cls(first)
        half = len(data) // 2
        extents._ends.frombytes(data[:half])
        extents._where.frombytes(data[half:])
        return extents
