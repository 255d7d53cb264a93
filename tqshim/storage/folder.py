"""The queue folder of logs.

Lives here: what such a folder has that the first engine's has not.
"""

from __future__ import annotations

import os

from tqshim import names
from tqshim.folder import Folder
from tqshim.names import FileId
from tqshim.protocol import snapshot
from tqshim.protocol.ledger import Ledger
from tqshim.storage.batch_file import BatchFile, allocate

__all__ = ["LogFolder"]


class LogFolder(Folder):
    """One queue folder that this process uses."""

    _snapshot_size = staticmethod(snapshot.size_of)
    _check_snapshot = staticmethod(snapshot.check)
    _snapshot_kind = staticmethod(snapshot.kind)

    @staticmethod
    def _first_snapshot(maxsize: int, limit: int, last_limit: int, durable: bool, proof: bytes) -> bytes:
        return snapshot.dump(Ledger(maxsize, limit, last_limit, durable, proof))

    def create_log(self, file: FileId, size: int) -> BatchFile:
        """A new batch file of so many bytes, mapped for writing.

        Raises ``OSError``, and leaves nothing, where there is no space; ``FileExistsError``."""
        home = self._spill_folder(create=True) if file.spilled else self.fd
        fd = self._create(names.batch(names.LOAD, file), os.O_RDWR, home)
        try:
            try:
                allocate(fd, size)
                return BatchFile(file, fd, writable=True)
            except BaseException:
                self.remove_batch(file)
                raise
        finally:
            os.close(fd)

    def read_log(self, file: FileId) -> BatchFile:
        """A batch file, mapped for reading.  Raises ``ValueError`` where it is not there, or is something else."""
        fd = self.open_batch(file)
        try:
            return BatchFile(file, fd)
        finally:
            os.close(fd)
