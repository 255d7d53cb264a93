"""Large buffers in pickles, numpy's arrays above all: found again where they stand, so that nobody has to copy them.

Lives here: the trailer that says where in a record its buffers stand, and unpickling that leaves them there.  Not here:
mapping (``folder``), any other pickling (``queues``).

::

    a record    pickle | trailer
    a trailer   per buffer: where it begins, in bytes before the record's end, 8 bytes, its length, 8 bytes
                | how many, 1 byte | "B"

An unpickler stops where a pickle ends, and every pickle ends with a full stop: a record with a trailer is unpickled as
one without.  Opcodes that do nothing stand before each buffer, as many bytes as it takes to align the buffer in an
aligned record; and before the record, as many as it takes to align it, once it is known where it will stand.

Invariant: ``load`` returns what ``pickle.loads`` of the whole record does; only the owner of its arrays' bytes differs.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Sequence

from tqshim.protocol.pieces import ALIGNMENT, END, Pieces, nothing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, Union

__all__ = ["END", "LEAST", "find", "lay_out", "load", "record"]

LEAST: Final = 1 << 19
"""Bytes of a buffer that is worth a mapping: to map it and to look at its pages costs as much as to copy so many."""
MOST: Final = 255
"""Buffers that a trailer lists, at most."""
_BYTEARRAY8: Final = 0x96
_NEXT_BUFFER: Final = b"\x97"
_PREFIX: Final = struct.Struct("<BQ")
"""``_BYTEARRAY8`` and the length behind it."""
_HEADER: Final = _PREFIX.size
_ENTRY: Final = struct.Struct("<2Q")


def record(written: Sequence[Any]) -> Pieces:
    """Return the record made of what its pickler wrote."""
    return Pieces(lay_out(written))


def lay_out(written: Sequence[Any]) -> list[Union[bytes, memoryview]]:
    """Return the pieces of a record, made of what its pickler wrote.

    ``written``: bytes, objects that have bytes, and buffers; the piece before each ends with its opcode and length."""
    pieces: list[Union[bytes, memoryview]] = []
    found: list[tuple[int, int]] = []
    at = 0
    for piece in written:
        if type(piece) is bytes:
            pieces.append(piece)
        elif type(piece) is pickle.PickleBuffer:
            raw = piece.raw()
            before = pieces[-1]
            is_writable = before[-_HEADER:] == _PREFIX.pack(_BYTEARRAY8, len(raw))
            if is_writable and len(raw) >= LEAST and len(found) < MOST:
                filling = nothing(-at % ALIGNMENT)
                pieces[-1:] = [before[:-_HEADER], filling, before[-_HEADER:]]
                at += len(filling)
                found.append((at, len(raw)))
            pieces.append(raw)
        else:
            pieces.append(memoryview(piece).cast("B"))
        at += len(pieces[-1])
    if found:
        at += len(found) * _ENTRY.size + 2
        pieces += [*(_ENTRY.pack(at - begin, size) for begin, size in found), bytes([len(found)]), END]
    return pieces


def find(record: memoryview) -> list[tuple[int, int]]:
    """Return where the buffers stand that a record's trailer lists: begin and end of each."""
    if len(record) < _ENTRY.size + 2 or bytes(record[-1:]) != END:
        return []
    count = record[-2]
    trailer = len(record) - 2 - count * _ENTRY.size
    if trailer < 0:
        return []
    entries = _ENTRY.iter_unpack(record[trailer:-2])
    found = [(len(record) - back, len(record) - back + size) for back, size in entries]
    at = 0
    for begin, end in found:
        if begin < 0:
            return []
        header = record[max(at, begin - _HEADER) : begin]
        if header != _PREFIX.pack(_BYTEARRAY8, end - begin) or end > trailer:
            return []
        at = end
    return found


def load(record: memoryview, found: Sequence[tuple[int, int]]) -> Any:
    """Unpickle a record.  Its buffers stay in the memory of ``record``, which must be writable and nobody else's."""
    stream: list[Union[bytes, memoryview]] = []
    at = 0
    for begin, end in found:
        stream += [record[at : begin - _HEADER], _NEXT_BUFFER]
        at = end
    stream.append(record[at:])
    return pickle.loads(b"".join(stream), buffers=[record[begin:end] for begin, end in found])
