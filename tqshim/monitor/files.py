"""The files of a queue folder, as a bystander opens them.

Lives here: listing and opening them.  Not here: what is in them (``view``, ``records``).

Invariant: nothing here writes, locks, joins or waits.  All files are opened for reading only, relative to the folder's
own descriptor, and never through a symbolic link; what is no plain file is not read.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Final, Optional, Union

from tqshim.errors import FolderError
from tqshim.protocol import names
from tqshim.protocol.names import FileId
from tqshim.storage.files import list_names

__all__ = ["FOLDER", "Files", "located"]

_FLAGS: Final = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | os.O_NONBLOCK
FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | getattr(os, "O_CLOEXEC", 0)
"""How folders are opened."""
_FIRST: Final = (names.Name(names.MEMBERS, ()), names.Name(names.CELLS, ()), names.Name("roll", (0,)))
"""The files of a queue that are made before its first journal is there."""


def located(path: Union[str, bytes, os.PathLike[str]]) -> str:
    """Return the absolute path.  Raises ``ValueError`` for an empty path, which would mean the current folder."""
    text = os.fsdecode(path)
    if not text:
        raise ValueError("the path is empty: give the folder of a queue")
    return os.path.abspath(text)


class Files:
    """The files of one folder.

    Raises ``FileNotFoundError`` where nothing is there, ``NotADirectoryError``, ``PermissionError``."""

    def __init__(self, path: str) -> None:
        self.path = located(path)
        self._spill = -1
        self.fd = os.open(self.path, FOLDER)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for fd in (self._spill, self.fd):
            if fd >= 0:
                os.close(fd)
        self._spill = self.fd = -1

    def names(self) -> list[str]:
        """Return the names of all that lies in the folder."""
        return list_names(self.fd)

    def has_batches(self) -> bool:
        """Whether batch files lie there, with or without a journal."""
        parsed = map(names.parse, (*self.names(), *self.spilled_names()))
        return any(name is not None and name.kind in (names.LOAD, names.READY) for name in parsed)

    def is_begun(self) -> bool:
        """Whether the folder is this user's alone and holds only files that are made first for a new queue: the process
        that was to make the queue was stopped, or found no space."""
        listed = self.names()
        return _is_ours(os.fstat(self.fd)) and names.MEMBERS in listed and all(map(self._is_first, listed))

    def _is_first(self, name: str) -> bool:
        parsed = names.parse(name)
        if parsed is None or parsed not in _FIRST:
            return False
        try:
            status = os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        is_empty = name != names.MEMBERS or not status.st_size
        return _is_ours(status) and stat.S_ISREG(status.st_mode) and is_empty

    def spill(self) -> int:
        """Return the descriptor of the spill folder.  Raises ``FileNotFoundError`` where there is none."""
        if self._spill < 0:
            path = os.readlink(names.SPILL, dir_fd=self.fd)
            self._spill = os.open(path, FOLDER | getattr(os, "O_NOFOLLOW", 0))
        return self._spill

    def spill_path(self) -> Optional[str]:
        try:
            return os.readlink(names.SPILL, dir_fd=self.fd)
        except OSError:
            return None

    def spilled_names(self) -> list[str]:
        """Return the names of all that lies in the spill folder; nothing where there is none."""
        try:
            return list_names(self.spill())
        except OSError:
            return []

    def open_file(self, name: str, home: Optional[int] = None) -> int:
        """Open a plain file of the folder for reading.  Raises ``FileNotFoundError``, or ``FolderError`` for anything
        else: a FIFO must not keep this process waiting."""
        fd = os.open(name, _FLAGS, dir_fd=self.fd if home is None else home)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise FolderError(f"{self.path}/{name}", "is no plain file", "see who put it there")
        return fd

    def open_batch(self, file: FileId) -> tuple[int, str]:
        """Open a batch file for reading, and return its descriptor and its name.  A file that was set aside is opened,
        too, because its sound parts are still read.  Raises ``FileNotFoundError``."""
        home = self.spill() if file.spilled else self.fd
        for name in names.of_batch(file):
            with contextlib.suppress(FileNotFoundError):
                return self.open_file(name, home), name
        raise FileNotFoundError(names.batch(names.READY, file))

    def sizes(self) -> tuple[int, int]:
        """Return how many bytes all files take on disk, and how many batch files there are."""
        taken = count = 0
        homes = [(self.fd, self.names())]
        spilled = self.spilled_names()
        if spilled:
            homes.append((self.spill(), spilled))
        for home, listed in homes:
            for name in listed:
                with contextlib.suppress(OSError):
                    taken += os.stat(name, dir_fd=home, follow_symlinks=False).st_blocks * 512
                parsed = names.parse(name)
                count += parsed is not None and parsed.kind in (names.LOAD, names.READY)
        return taken, count


def _is_ours(status: os.stat_result) -> bool:
    """Whether the file is this user's, and nobody else may look into it."""
    return status.st_uid == os.geteuid() and not status.st_mode & 0o077
