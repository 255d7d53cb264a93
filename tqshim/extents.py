"""Where items stand: blocks, and runs of small ones, which take a few bytes each.

Lives here: what a block is, what a run holds, and its form in a snapshot.  Not here: which blocks go into a run
(``ledger``), and the bytes of a block in its batch file (``blocks``).

A run in a snapshot is so many tables one behind the other, padded to 8 bytes::

    files    of each batch file: member, serial, where its first block here stands, in units; 8 bytes each
    sizes    of each block, in the order of the queue: its units; a byte
    whose    of each block: in which of these files it stands; a byte; left out where there is one file
    counts   of each block: its items; a byte; left out where each has one

Invariant: blocks of a run that stand in the same file stand one behind the other there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple, Optional, Union

from .names import FileId

__all__ = ["Block", "Extent", "Run", "is_small"]

SMALL_MOST: Final = 255
"""Units, and items, of a block in a run."""

_WORD: Final = 8


def is_small(items: int, units: int) -> bool:
    """Such a block may be in a run."""
    return items <= SMALL_MOST and 0 < units <= SMALL_MOST


class Block(NamedTuple):
    """Items that were published together: ``first`` up to ``end``, and where they stand."""

    first: int
    end: int
    file: FileId
    offset: int
    """In units."""
    units: int
    """0: a giant, alone in its file."""


class _Tables:
    """The tables of a run, unpacked, and how far they have been read."""

    __slots__ = ("at", "counts", "files", "index", "numbers", "offsets", "places", "sizes", "whose")

    def __init__(self, first: int) -> None:
        self.files: list[FileId] = []
        self.offsets: list[int] = []
        self.sizes = bytearray()
        self.whose = bytearray()
        self.counts = bytearray()
        self.numbers: dict[FileId, int] = {}
        """Where in ``files`` each is."""
        self.index = 0
        """The block that was read last."""
        self.at = first
        """Its first item."""
        self.places: list[int] = []
        """For each file, where its next block stands, from that block on."""

    def add(self, file: FileId, offset: int) -> int:
        number = self.numbers[file] = len(self.files)
        self.files.append(file)
        self.offsets.append(offset)
        self.places.append(offset)
        return number


class Run:
    """Small blocks that follow one another in the queue: what slow producers put while nobody gets.

    Some bytes for each block instead of a tuple: ten million of them cost 20 MB, not two GB."""

    __slots__ = ("_at", "_source", "_tables", "blocks", "end", "files", "first", "units")

    def __init__(self, first: int, end: int, blocks: int, files: int, units: int, source: bytes, at: int = 0) -> None:
        self.first = first
        self.end = end
        self.blocks = blocks
        """How many they are."""
        self.files = files
        """In so many batch files."""
        self.units = units
        """Of all."""
        self._source = source
        """Its tables are here, from byte ``_at`` on: all runs of a snapshot share that.  Empty: it grows."""
        self._at = at
        self._tables: Optional[_Tables] = None
        """While it grows, or is read."""

    @classmethod
    def of(cls, block: Block) -> Run:
        """A run of one block so far."""
        run = cls(block.first, block.first, 0, 0, 0, b"")
        run._tables = _Tables(block.first)
        run.append(block.file, block.offset, block.end - block.first, block.units)
        return run

    @staticmethod
    def size(items: int, blocks: int, files: int) -> int:
        """Bytes of the tables of such a run in a snapshot."""
        tables = 1 + (files > 1) + (items > blocks)
        return (3 * files + (tables * blocks + _WORD - 1) // _WORD) * _WORD

    @property
    def packed(self) -> bytes:
        """Its form in a snapshot."""
        size = self.size(self.end - self.first, self.blocks, self.files)
        tables = self._tables
        if self._source or tables is None:
            return self._source[self._at : self._at + size]
        files = (word for file, offset in zip(tables.files, tables.offsets) for word in (*file, offset))
        data = struct.pack(f"<{3 * self.files}Q", *files) + tables.sizes
        if self.files > 1:
            data += tables.whose
        if self.end - self.first > self.blocks:
            data += tables.counts
        return data.ljust(size, b"\0")

    def close(self) -> None:
        """It grows no more: keep it small."""
        self._source, self._at, self._tables = self.packed, 0, None

    def _opened(self) -> _Tables:
        if self._tables is not None:
            return self._tables
        tables = _Tables(self.first)
        source, at, count = self._source, self._at, self.blocks
        words = struct.unpack_from(f"<{3 * self.files}Q", source, at)
        for member, serial, offset in zip(words[::3], words[1::3], words[2::3]):
            tables.add(FileId(member, serial), offset)
        at += len(words) * _WORD
        tables.sizes += source[at : at + count]
        at += count
        if self.files > 1:
            tables.whose += source[at : at + count]
            at += count
        else:
            tables.whose += bytes(count)
        if self.end - self.first > count:
            tables.counts += source[at : at + count]
        else:
            tables.counts += b"\1" * count
        return tables

    def number(self, file: FileId, offset: int) -> int:
        """Which of its files that is, if need be a new one: its first block here will stand there."""
        tables = self._tables = self._opened()
        number = tables.numbers.get(file)
        if number is None:
            number = tables.add(file, offset)
            self.files += 1
        return number

    def append(self, file: FileId, offset: int, count: int, units: int) -> None:
        """One more small block."""
        tables = self._tables = self._opened()
        tables.whose.append(self.number(file, offset))
        tables.counts.append(count)
        tables.sizes.append(units)
        self._source = b""
        self.end += count
        self.blocks += 1
        self.units += units

    def extend(self, whose: bytes, counts: bytes, sizes: bytes) -> None:
        """So many small blocks more, in files that have a ``number``."""
        tables = self._tables = self._opened()
        tables.sizes += sizes
        tables.whose += whose
        tables.counts += counts
        self._source = b""
        self.end += sum(counts)
        self.blocks += len(sizes)
        self.units += sum(sizes)

    def units_before(self, item: int) -> int:
        """Units of the blocks all of whose items come before that one."""
        tables = self._opened()
        self._seek(tables, item)
        return sum(tables.sizes[: tables.index])

    def block(self, item: int) -> Block:
        """The block in which one of its items stands."""
        return next(self.each(item, item + 1))

    def each(self, first: int, end: int) -> Iterator[Block]:
        """The blocks in which those of the items ``first`` up to ``end`` stand that are in it, in order."""
        tables = self._opened()
        if end < self.end:
            self._tables = tables  # whoever wants the next ones need not begin anew
        self._seek(tables, max(first, self.first))
        index, at, places = tables.index, tables.at, [*tables.places]
        for number, count, units in zip(tables.whose[index:], tables.counts[index:], tables.sizes[index:]):
            if at >= end:
                return
            yield Block(at, at + count, tables.files[number], places[number], units)
            places[number] += units
            at += count

    def _seek(self, tables: _Tables, item: int) -> None:
        """Read on to the block that has that item."""
        if item < tables.at:
            tables.index, tables.at, tables.places = 0, self.first, [*tables.offsets]
        index = before = tables.index
        if self.end - self.first == self.blocks:
            index, tables.at = index + item - tables.at, item
        else:
            while tables.at + tables.counts[index] <= item:
                tables.at += tables.counts[index]
                index += 1
        sizes = tables.sizes[before:index]
        if self.files == 1:
            tables.places[0] += sum(sizes)
        else:
            for number, units in zip(tables.whose[before:index], sizes):
                tables.places[number] += units
        tables.index = index


Extent = Union[Block, Run]
"""What a ledger has a list of."""
