"""The engine of a queue that has a key: what nobody with that key has written is never unpickled.

Lives here: the layer that writes tags, and asks for them.  Not here: tags (``keys``), and all else that a put and a get
do (the layers below).

Invariant: a record reaches an unpickler only out of memory of this process, after the tag of its block was found right.
It is never left in its file, where it could change between the one and the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from . import blocks
from .blocks import NewRecord, Record
from .extents import Block
from .finishing import Finishing
from .folder import Folder, RecordInFile
from .keys import Key

__all__ = ["Authentication"]


class Authentication(Finishing):
    """An engine whose blocks have tags.  What stands in a block is bound to it, so no item goes a shorter way."""

    key: Key
    tag = blocks.TAG

    def __init__(self, folder: Folder, key: Key) -> None:
        self.key = key
        super().__init__(folder)

    # -- putting

    def _lay_out(self, records: list[NewRecord], giant: bool) -> list[Record]:
        """A copy: what was tagged is what is written, whatever another thread makes of an array meanwhile."""
        assert self._file is not None
        body = b"".join(super()._lay_out(records, giant))
        return [body, self.key.tag(self._file, self._offset, 0 if giant else len(records), body)]

    def _publish_one(self, record: NewRecord) -> Optional[bool]:
        return None

    # -- getting

    def _load_block(self, fd: int, block: Block) -> tuple[memoryview, Sequence[int]]:
        return self.key.load(fd, block)

    def _read_single(self, block: Block) -> Optional[Record]:
        return None

    def _view_block(self, block: Block) -> Optional[memoryview]:
        return None

    def _leave_in_file(self, block: Block) -> Optional[RecordInFile]:
        return None
