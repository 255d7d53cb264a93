"""Keys of queues, and the tags that they make.

Lives here: what a tag is, blocks that are read only where theirs is right, and whether a key is that of a queue.  Not
here: the engine that writes tags (``authentication``), what else stands in a block (``blocks``).

::

    a block     as any other | tag, 32 bytes
    a giant     as any other | tag, 32 bytes
    a proof     nonce, 16 bytes | check, 16 bytes          (in each journal's snapshot)

    secret = HMAC(nonce, authkey)       check = HMAC(secret, nothing), its first half
    tag    = HMAC(secret, batch file, offset, count, all bytes before the tag)

All are HMACs with SHA-256.  The nonce is random, one a queue: the same key makes other tags in another queue.  A batch
file's id is never used twice in one queue, so a tag says for which place in which queue its block was written.

Invariant: no key is written anywhere; what ``Key.load`` returns is memory of this process, and was tagged with that key
for that place.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from multiprocessing import process
from typing import Any, Final, Optional

from . import blocks, events
from .blocks import Record
from .extents import Block
from .folder import Folder
from .names import FileId

__all__ = ["Key", "match"]

NONCE: Final = 16
"""Bytes of a nonce, and of a check."""
_HASH: Final = "sha256"
_PURPOSE: Final = b"tqshim queue\0"


class Key:
    """A key in one queue."""

    __slots__ = ("_mac", "_same", "authkey", "proof")

    def __init__(self, authkey: bytes, nonce: bytes = b"") -> None:
        """``nonce``: that of the queue; without one, of a queue that is to be made."""
        if not isinstance(authkey, bytes) or not authkey:
            raise ValueError("authkey must be bytes, one at least")
        import hmac  # here: 8 ms, and most queues have no key

        nonce = nonce or os.urandom(NONCE)
        # This way round: of a key that is shorter than a block of the hash, HMAC does not see zeros at its end.
        secret = hmac.new(_PURPOSE + nonce, authkey, _HASH).digest()
        self._mac: Any = hmac.new(secret, digestmod=_HASH)
        self._same = hmac.compare_digest
        self.authkey = process.AuthenticationString(authkey)  # type: ignore[attr-defined]
        """As ``multiprocessing`` keeps its own: pickled only for a child that is being spawned."""
        self.proof: bytes = nonce + self._mac.digest()[:NONCE]
        """What a key is tried on; it tells nobody the key."""

    def tag(self, file: FileId, offset: int, count: int, body: Record) -> bytes:
        """The tag of a block of so many records at that place; of a giant: of none."""
        mac = self._mac.copy()
        mac.update(b"%d %d %d %d\0" % (file.member, file.serial, offset, count))
        mac.update(body)
        tag: bytes = mac.digest()
        return tag

    def load(self, fd: int, block: Block) -> tuple[memoryview, Sequence[int]]:
        """The bytes of a block's records, and where in them each record ends.

        Raises ``ValueError`` where its tag is not that of these bytes at this place."""
        seed = blocks.seed(block.file, block.offset)
        if block.units:
            count = block.end - block.first
            data = Folder.read_at(fd, block.units * events.UNIT, block.offset * events.UNIT)
            return blocks.split(self._checked(data, block.file, block.offset, count), count, seed)
        head = Folder.read_at(fd, blocks.GIANT_HEADER, 0)
        length = blocks.split_giant(head, os.fstat(fd).st_size - blocks.TAG, seed)
        data = Folder.read_at(fd, blocks.GIANT_HEADER + length + blocks.TAG, 0)
        return self._checked(data, block.file, block.offset, 0)[blocks.GIANT_HEADER :], (length,)

    def _checked(self, data: bytes, file: FileId, offset: int, count: int) -> memoryview:
        """What stands before the tag.  ``data``: all of the block, nobody else's."""
        view = memoryview(data)
        body, tag = view[: -blocks.TAG], view[-blocks.TAG :]
        if not self._same(self.tag(file, offset, count, body), tag):
            what = f"a block of {count} records" if count else "a record"
            raise ValueError(
                f"{what} in {len(data)} bytes fails its HMAC: nobody with the queue's authkey has written it there"
            )
        return body


def match(path: str, proof: bytes, authkey: Optional[bytes]) -> Optional[Key]:
    """The key of the queue at a path, which has that proof; ``None`` where it has no key, and none is given.

    Raises ``ValueError`` where that is not its key, where it has none, or where none is given and it has one."""
    if not proof and authkey is None:
        return None
    if not proof:
        raise ValueError(
            f"{path}: the queue there was made without an authkey; leave authkey out to join it (TQSHIM_AUTHKEY for "
            "commands), or use another folder"
        )
    if authkey is None:
        raise ValueError(
            f"{path}: the queue there was made with an authkey; give the same one, as authkey=... (commands take it "
            "from TQSHIM_AUTHKEY)"
        )
    key = Key(authkey, proof[:NONCE])
    if not key._same(key.proof, proof):
        raise ValueError(
            f"{path}: the queue there was made with another authkey; give that one.  A pickled handle carries "
            "none: where it arrives the queue must be open already, by its path and authkey"
        )
    return key
