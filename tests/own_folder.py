"""A folder that is deleted with the run of the tests that made it, or, if that run was killed, with the next run.

The run holds a lock on the folder, which its forked children share: once another process can have the lock, nobody
uses the folder any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from typing import Optional


def make(prefix: str, home: Optional[str] = None) -> str:
    """A new folder in ``home``, by default the temporary folder; those of dead runs there are removed on the way."""
    home = home or tempfile.gettempdir()
    sweep(prefix, home)
    while True:
        path = tempfile.mkdtemp(prefix=prefix, dir=home)
        try:
            hold = os.open(path, os.O_RDONLY | os.O_DIRECTORY)  # closed by the end of the process
        except FileNotFoundError:  # as below
            continue
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(hold, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if os.path.exists(path):
                return path
        os.close(hold)  # another run took it for a dead one's, before it was held


def sweep(prefix: str, home: str) -> list[str]:
    """Remove the folders of runs that are dead; returns their names."""
    removed = []
    for name in os.listdir(home):
        path = os.path.join(home, name)
        if not name.startswith(prefix) or os.path.islink(path):
            continue
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # gone, no folder, or another user's
            continue
        try:
            if os.fstat(fd).st_uid == os.geteuid():
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
                removed.append(name)
        except BlockingIOError:  # a run that lives
            pass
        finally:
            os.close(fd)
    return removed
