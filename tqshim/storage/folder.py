"""The queue folder, with the batch files of logs.

Lives here: what is made and read there of logs.  Not here: all else in the folder (``tqshim.folder``).
"""

from __future__ import annotations

import os

from tqshim import late, names
from tqshim.folder import NO_SPACE, Folder
from tqshim.names import FileId
from tqshim.storage.batch_file import BatchFile, Closing, allocate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

    from tqshim.storage.large_records import LargeFile

__all__ = ["LogFolder"]


class LogFolder(Folder):
    """One queue folder that this process uses."""

    def create_log(self, file: FileId, size: int) -> BatchFile:
        """A new batch file of so many bytes, mapped for writing.

        Raises ``OSError``, and leaves nothing, where there is no space; ``FileExistsError``."""
        home = self._spill_folder(create=True) if file.spilled else self.fd
        fd = self._create(names.batch(names.LOAD, file), os.O_RDWR, home)
        closing = Closing(fd)
        try:
            allocate(fd, size)
            return BatchFile(file, fd, True, closing if file.large or self.durable else None)
        except BaseException:
            self.remove_batch(file)
            raise

    def refill_log(self, file: FileId, size: int, least: int) -> Optional[int]:
        """One of the producer's free files under that new name, open for writing, with room for so many bytes, or for
        ``least`` where the disk is full.  ``None``: there is none."""
        fd = self.refill_batch(file)
        if fd is None:
            return None
        try:
            status = os.fstat(fd)
            if status.st_size < size or status.st_blocks * 512 < status.st_size:
                try:
                    # Longer, never shorter: somebody may have it mapped.
                    allocate(fd, max(size, status.st_size))
                except OSError as error:
                    if error.errno not in NO_SPACE:
                        raise
            status = os.fstat(fd)
            if status.st_size >= least and status.st_blocks * 512 >= status.st_size:
                return fd
            self.remove_batch(file)
        except BaseException:
            os.close(fd)
            self.remove_batch(file)
            raise
        os.close(fd)
        return None

    def open_large(self, file: FileId) -> LargeFile:
        """A batch file to be read by system calls.  Raises ``ValueError`` where it is not there, or something else."""
        large: LargeFile = late.room("storage.large_records").LargeFile(file, self.open_batch(file))
        return large

    def room_for(self, spilled: bool) -> int:
        """Bytes that are free where a new batch file will lie."""
        if not spilled:
            return self.room()
        found = os.fstatvfs(self._spill_folder(create=True))
        return found.f_bavail * found.f_frsize

    def read_log(self, file: FileId) -> BatchFile:
        """A batch file, mapped for reading.  Raises ``ValueError`` where it is not there, or is something else."""
        fd = self.open_batch(file)
        try:
            return BatchFile(file, fd)
        finally:
            os.close(fd)
