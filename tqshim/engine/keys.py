"""Keys of queues, and the tags that they make.

Lives here: what a tag is, accepting a record only where its tag is right, and whether a key is that of a queue.  Not
here: what tags records and asks for tags (``engine.keyed``), where a record begins and ends (``protocol.index``).

::

    a tagged record   record | tag, 32 bytes                      (both within the record's place in its batch file)
    a proof           nonce, 16 bytes | check, 16 bytes           (in each journal's snapshot)

    secret = HMAC(nonce, authkey)       check = HMAC(secret, nothing), its first half
    tag    = HMAC(secret, batch file, number of the record in it, record)

All are HMACs with SHA-256.  The nonce is random, one a queue: the same key makes other tags in another queue.  A batch
file's id is used once in a queue, and a number once in a file: a tag says for which place in which queue a record was
written.

What can be replayed: at its own place, a record that somebody with the key has written for that very place.  There are
two such records where a put wrote one and was interrupted, or refused, before it counted: the next put writes over it,
and a user who can write to the folder may have kept the former record, with a right tag.  It takes the place of the one
that was put; the two can't be told apart, for no key guards what makes a record count, its producer's counter and the
journal.  A user who writes to these can also make items come again, in another order, or not at all (after the loss of
a journal's end ids may be used again, too: the same holds for them).  All of these are records that the queue's own
programs have pickled for it: code of others is never among them.

Invariant: no key is written anywhere; what ``Key.opened`` returns was tagged with that key for that place.
"""

from __future__ import annotations

import os
from multiprocessing import process

from tqshim.protocol.index import Record
from tqshim.protocol.names import FileId

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, Optional

__all__ = ["TAG", "Key", "match"]

TAG: Final = 32
"""Bytes that follow each record of a queue that has a key."""
NONCE: Final = 16
"""Bytes of a nonce, and of a check."""
_HASH: Final = "sha256"
_BLOCK: Final = 64
"""Bytes that this hash takes at once."""
_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))
_PURPOSE: Final = b"tqshim queue\0"


class Key:
    """A key in one queue."""

    __slots__ = ("_inner", "_outer", "_same", "authkey", "proof")

    def __init__(self, authkey: bytes, nonce: bytes = b"") -> None:
        """``nonce``: the queue's; without one, the key is for a queue that is to be made."""
        if not isinstance(authkey, bytes) or not authkey:
            raise ValueError("authkey must be bytes, one at least")
        import hashlib  # here: 8 ms, and most queues have no key
        import hmac

        nonce = nonce or os.urandom(NONCE)
        # The authkey is the message, not the key: HMAC does not see zeros at the end of a key that is shorter than a
        # block of the hash.
        secret = hmac.new(_PURPOSE + nonce, authkey, _HASH).digest()
        # An HMAC is a hash of a hash, each begun with the key in its own way; done here it takes half of the time.
        block = secret.ljust(_BLOCK, b"\0")
        self._inner: Any = hashlib.sha256(block.translate(_INNER))
        self._outer: Any = hashlib.sha256(block.translate(_OUTER))
        self._same = hmac.compare_digest
        self.authkey = process.AuthenticationString(authkey)  # type: ignore[attr-defined]
        """As ``multiprocessing`` keeps its own: pickled only for a child that is being spawned."""
        self.proof: bytes = nonce + self._hmac()[:NONCE]
        """What a key is tried on; it tells nobody the key."""

    def _hmac(self, *parts: Record) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        for part in parts:
            inner.update(part)
        outer.update(inner.digest())
        digest: bytes = outer.digest()
        return digest

    def tag(self, file: FileId, number: int, record: Record) -> bytes:
        """The tag of the record of that number in that batch file."""
        return self._hmac(b"%d %d %d\0" % (file.member, file.serial, number), record)

    def opened(self, file: FileId, number: int, data: Record) -> Record:
        """Return the record of that number; ``data`` is all that stands in its place: the record, and its tag.

        ``data`` must be nobody else's memory.  Raises ``ValueError`` where the tag is not that of these bytes there."""
        size = len(data) - TAG
        view = memoryview(data)
        record = view[: max(0, size)]
        if size < 0 or not self._same(self.tag(file, number, record), view[size:]):
            raise ValueError(
                f"record {number} in {len(data)} bytes fails its HMAC: nobody with the queue's authkey has written it "
                "there"
            )
        return record


def match(path: str, proof: bytes, authkey: Optional[bytes]) -> Optional[Key]:
    """Return the key of the queue at a path, which has that proof; ``None`` where it has no key, and none is given.

    Raises ``ValueError`` where the queue has another key than the given one, or none, or where it has one and none is
    given."""
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
