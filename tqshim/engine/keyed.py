"""Queues that have a key: a record that nobody with the key has written is never unpickled.

Lives here: how putting and getting differ with a key.  Not here: tags, and what they do not tell (``keys``).

Each record is followed by its tag, within its place in the batch file.  Where records have checks, too, the check is
behind the tag, and covers both.

Invariant: a record is first copied to memory of this process, then its tag is found right, and only then an unpickler
gets that copy.  It is never left in its file, where it could change between the check and the unpickling.
"""

from __future__ import annotations

from collections.abc import Sequence

from tqshim.engine.keys import TAG, Key
from tqshim.engine.producer import Producer
from tqshim.engine.reader import Reader
from tqshim.protocol.names import FileId
from tqshim.protocol.pieces import NewRecord, Pieces

__all__ = ["use_key"]


def use_key(key: Key, producer: Producer, reader: Reader) -> None:
    """Have ``producer`` write tags, and ``reader`` ask for them, from here on."""
    producer.writer.protected = _Tagging(key)
    producer.writer.beside = TAG
    reader.opened = key.opened
    reader.in_place = False


class _Tagging:
    """Makes what is written of records: tagged copies."""

    __slots__ = ("_key",)

    def __init__(self, key: Key) -> None:
        self._key = key

    def __call__(self, file: FileId, number: int, records: Sequence[NewRecord]) -> list[NewRecord]:
        """Return copies, each with its tag: what was tagged is what is written, whatever another thread makes of an
        array meanwhile.  ``number``: the number of the first record in its file."""
        return [self._tagged(file, at, record) for at, record in enumerate(records, number)]

    def _tagged(self, file: FileId, number: int, record: NewRecord) -> NewRecord:
        data = b"".join(record.parts) if isinstance(record, Pieces) else bytes(record)
        tag = self._key.tag(file, number, data)
        return Pieces([data, tag]) if isinstance(record, Pieces) else data + tag
