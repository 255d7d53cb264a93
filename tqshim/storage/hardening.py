"""What durable queues need: files and names that are on the disk, and a folder that is held alone for a moment.

Lives here: ``fsync``, and what is as good; holding a folder alone.  Not here: what must be on the disk before what
(``durable``).
"""

from __future__ import annotations

import contextlib
import errno
import os
import time

from tqshim.runtime import own_fcntl as fcntl
from tqshim.runtime import systems
from tqshim.runtime.clock import monotonic
from tqshim.storage.files import HOLD_PATIENCE, OPEN, Home, locked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["harden", "harden_names", "harden_path", "hold_again", "hold_alone"]

_CANT_SYNC: Final = (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY)
"""The errors of a file system that knows no more than ``fsync``."""


def harden(fd: int) -> None:
    """Return when what has been written to that file, or the names in that folder, are on the disk.

    Raises ``OSError`` where they are not; a second call may then return though they are not."""
    if systems.FULL_SYNC is not None:
        try:
            fcntl.fcntl(fd, systems.FULL_SYNC)
            return
        except OSError as error:
            if error.errno not in _CANT_SYNC:
                raise
    os.fsync(fd)


def harden_names(home: Home) -> None:
    """``harden`` for the names in this folder."""
    harden(home.fd)


def harden_path(home: Home) -> None:
    """``harden`` for all names that lead to this folder, up to where its file system begins: the process that
    made these folders may not have hardened them yet."""
    path = os.path.realpath(home.path)
    while path != os.path.dirname(path):
        path = os.path.dirname(path)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | OPEN)
        except PermissionError:
            if os.access(path, os.W_OK):
                raise
            continue  # no user of the queue can have made anything there
        try:
            if os.fstat(fd).st_dev != home.key[0]:
                return
            harden(fd)
        finally:
            os.close(fd)


def hold_alone(home: Home) -> bool:
    """Hold the folder alone, if nobody else holds it.

    ``False``: somebody does, or may.  This process may then have no hold at all until ``hold_again``: of several
    processes that try this, one must succeed."""
    if home.own_hold and not home.alone:
        try:
            # If this fails the shared hold is gone, too.
            home.alone = False
            fcntl.flock(home.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            home.alone = True
        except BlockingIOError:
            pass
    return bool(home.alone)


def hold_again(home: Home) -> None:
    """Share the folder with others again.  Raises ``FileNotFoundError`` where the folder was deleted meanwhile."""
    if home.alone is None:
        return
    deadline = monotonic() + HOLD_PATIENCE
    while True:
        with contextlib.suppress(BlockingIOError):  # another holds it alone, for a moment
            fcntl.flock(home.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            break
        if monotonic() > deadline:
            raise locked(home.path)
        time.sleep(0.001)
    home.alone = None
    found = os.stat(home.path)
    if (found.st_dev, found.st_ino) != home.key:
        raise FileNotFoundError(errno.ENOENT, "the queue is gone: it was deleted while it was opened", home.path)
