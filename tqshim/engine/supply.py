"""The batch files of one producer: how large the next one is, where it lies, and whether one is filled again.

Lives here: making files, and waiting for one that may come back.  Not here: what is written to them, their OPEN
(``producer``), when they are done (``reclaim``), their bytes (``storage``).

The first one is small: a worker that puts one result must not have a megabyte zeroed.  Each next one is twice as long,
up to a limit, and to a share of what the disk has left.  Files that were made for large records come back, and are
filled again.

Invariant: a file has all its pages, or it does not exist.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

from tqshim.engine import tuning
from tqshim.engine.reclaim import Reclaimer
from tqshim.engine.replica import Replica
from tqshim.protocol import index
from tqshim.protocol.names import FileId
from tqshim.runtime import mappings
from tqshim.runtime.clock import monotonic
from tqshim.runtime.finalizers import Finalizer
from tqshim.storage.batch_file import BatchFile
from tqshim.storage.files import NO_SPACE
from tqshim.storage.folder import LogFolder
from tqshim.storage.places import spill_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Optional

__all__ = ["Supply"]

FIRST_BYTES: Final = 1 << 14
"""Bytes of a producer's first batch file."""
SMALL_RECORD: Final = 64
"""Bytes of a record: a file's index has room for as many of this size as the file; of smaller ones it is full first."""
_PAGE: Final = 4096


class Supply:
    """The batch files of one producer."""

    __slots__ = (
        "_count",
        "_folder",
        "_mappings",
        "_next",
        "_reclaimer",
        "_replica",
        "_returns",
        "_then",
        "taken_elsewhere",
    )

    def __init__(self, folder: LogFolder, replica: Replica, reclaimer: Reclaimer) -> None:
        self._folder = folder
        self._replica = replica
        self._reclaimer = reclaimer
        self._count = 0
        """Batch files that were begun."""
        self._next = FIRST_BYTES
        """Bytes of the next."""
        self._mappings = mappings.Mappings()
        """The mappings of files that come back."""
        self._returns = False
        """The last file that was wanted had come back."""
        self._then = (0, 0)
        """Items that had been put, and got, when that file was wanted."""
        self.taken_elsewhere: Callable[[], int] = lambda: -1
        """How many items others have got; -1: this process gets some, too."""

    def close(self) -> None:
        """Map nothing any more."""
        self._mappings.clear()

    def next(self, member: int, size: int, count: int, former: Optional[BatchFile]) -> BatchFile:
        """Return a new batch file with room for so many records, of so many bytes in all.  ``former``: the one before.

        Where the disk is full, it is made in the place of files that wait to be filled again, or on another disk.
        Raises ``OSError``, and leaves nothing, where there is no space."""
        large = size >= tuning.BLOCK_BYTES
        spill = self._folder.wants_spill()
        if spill or large:
            self._replica.set_space_aside()  # The disk may be full long before this journal is at its half.
        while True:
            try:
                return self._create(member, size, count, spill, former)
            except OSError as error:
                if error.errno not in NO_SPACE:
                    raise
                if self._folder.remove_free():
                    continue
                if spill or not self._folder.anonymous or spill_root(self._folder.path) is None:
                    raise
                spill = True

    def _create(self, member: int, size: int, count: int, spill: bool, former: Optional[BatchFile]) -> BatchFile:
        large = size >= tuning.BLOCK_BYTES
        most = tuning.LARGE_FILE_BYTES if large else tuning.FILE_BYTES
        room = self._folder.room_for(spill)
        usual = max(FIRST_BYTES, min(self._next, most, room // tuning.SHARES))
        records = max(count, 1 if large else usual // SMALL_RECORD)
        scale = max(0, min(index.SCALES - 1, (max(1, records) - 1).bit_length() - 8))
        while True:
            self._count += 1
            serial = index.serial(self._count, scale, spill, large, tuning.CHECK_ALL)
            needed = (index.data_begin(serial) + size + _PAGE - 1) // _PAGE * _PAGE
            length = max(usual, needed)
            file = FileId(member, serial)
            with contextlib.suppress(FileExistsError):  # left by a frame that a fork in a signal handler has copied
                batch = self._returned(file, length, needed, former) if large and not spill else None
                if batch is None:
                    batch = self._folder.create_log(file, length)
                    if large and not spill and self._maps:
                        self._mappings.of(batch.fd)  # so that the mappings have met it
                self._next = 2 * length
                return batch

    @property
    def _maps(self) -> bool:
        """Files that come back are to be mapped."""
        return tuning.MAPPINGS and tuning.GIL and not self._folder.durable and self._folder.maps_batches

    def _returned(self, file: FileId, size: int, needed: int, former: Optional[BatchFile]) -> Optional[BatchFile]:
        """A file of ours that is done, to be filled again, with room for so many bytes.  ``None``: there is none.

        Where the consumers keep up with us, and the last file came back and is mapped, we wait for one: 4 MB of new
        pages take 2.5 ms to fill, mapped ones 0.4 ms, and where few files take turns they stay in the processor's
        cache."""
        if not tuning.REFILLING:
            return None
        got, put = self.taken_elsewhere(), self._replica.ledger.tail
        put_then, got_then = self._then
        self._then = put, got
        keeps_up = got >= 0 and got_then >= 0 and 2 * (got - got_then) >= put - put_then
        waits = keeps_up and self._returns and former is not None and former.fd >= 0 and former.in_memory
        until = monotonic() + tuning.REFILL_PATIENCE * max(size, tuning.LARGE_FILE_BYTES) if waits else 0.0
        while True:
            found = self._folder.refill_log(file, size, needed)
            self._returns = found is not None
            if found is not None:
                closing = Finalizer(os.close, found)
                mapping = self._mappings.of(found) if self._maps else None
                return BatchFile(file, found, True, closing, None if mapping is None else mapping.memory())
            if monotonic() > until:
                return None
            time.sleep(tuning.REFILL_LOOK)
            self._replica.sync()
            self._reclaimer.reclaim_done()
