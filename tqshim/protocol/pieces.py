"""Records in pieces: as their picklers wrote them, and as they are to stand in a batch file.

Lives here: a record that is not joined, and what is put before it so that its buffers are aligned in memory.  Not
here: pickling, and where in a record its buffers stand (``buffers``).

Invariant: only opcodes that do nothing are put before a record: it is unpickled as it would be without them.
"""

from __future__ import annotations

from collections.abc import Sequence

from tqshim.protocol.index import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, TypeAlias, Union

__all__ = ["ALIGNMENT", "END", "MOST_BEFORE", "NewRecord", "Pieces", "nothing", "parts", "placed"]

ALIGNMENT: Final = 64
MOST_BEFORE: Final = ALIGNMENT + 1
"""Bytes that ``placed`` puts before a record, at most."""
END: Final = b"B"
"""The last piece of a record whose buffers are to be aligned: this very object."""


class Pieces:
    """A large record as its pickler wrote it: in pieces, which are never joined, for each copy costs as much again."""

    __slots__ = ("parts", "size")

    def __init__(self, parts: list[Record]) -> None:
        """``parts``: bytes, or views of bytes."""
        self.parts = parts
        self.size = sum(map(len, parts))

    def __len__(self) -> int:
        return self.size

    def keep(self) -> None:
        """Copy the program's own ``bytearray`` objects, which the program can't resize as long as these views last."""
        self.parts = [
            bytes(part) if type(part) is memoryview and type(part.obj) is bytearray else part for part in self.parts
        ]


NewRecord: TypeAlias = "Union[bytes, memoryview, Pieces]"
"""A record before it is put."""


def parts(records: Sequence[NewRecord]) -> list[Record]:
    """The bytes of these records, in pieces."""
    found: list[Record] = []
    for record in records:
        if isinstance(record, Pieces):
            found += record.parts
        else:
            found.append(record)
    return found


def placed(records: Sequence[NewRecord], at: int, beside: int) -> Sequence[NewRecord]:
    """These records, with aligned buffers once they are written from that byte on, ``beside`` bytes behind each."""
    if Pieces not in {*map(type, records)}:
        return records
    found: list[NewRecord] = []
    for record in records:
        if isinstance(record, Pieces) and record.parts[-1] is END and at % ALIGNMENT:
            record = Pieces([nothing(-at % ALIGNMENT), *record.parts])
        found.append(record)
        at += len(record) + beside
    return found


def nothing(size: int) -> bytes:
    """Opcodes of so many bytes, or of ``ALIGNMENT`` more, that push something and take it away again."""
    if size % 2 == 0:
        return b"N0" * (size // 2)
    if size == 1:
        size += ALIGNMENT
    return b"K\x000" + b"N0" * ((size - 3) // 2)
