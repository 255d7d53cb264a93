"""Batch files that are damaged: kept for a person to look at.

Lives here: setting them aside, counting them.  Not here: finding damage (``reader``).
"""

from __future__ import annotations

import contextlib
import os

from tqshim.protocol import names
from tqshim.protocol.names import FileId
from tqshim.storage import batch_file, places
from tqshim.storage.files import Home, list_names, write_all

__all__ = ["count_corrupt", "set_aside"]


def set_aside(home: Home, file: FileId, finding: str) -> None:
    """Keep a damaged batch file for a person to look at, under a name that says so.

    Records of it that are whole are still read from there.  Of all processes, the first that finds the damage logs a
    warning; a kill after that leaves the file under its former name, for the next process that finds the damage."""
    name = names.batch(names.READY, file)
    where = batch_file.home_of(home, file)
    with contextlib.suppress(FileExistsError):
        fd = home.create(names.reason(name), fd=where)
        try:
            import logging  # here: its import takes a third of the package's, and it is hardly needed

            # Not an exception's way: it would find the lock held that handlers may want.
            logging.getLogger("tqshim").warning(
                "%s/%s: %s; it is kept as %s", home.path, name, finding, names.corrupt(name)
            )
            write_all(fd, f"{finding}\n".encode("utf-8", "replace"))
        finally:
            os.close(fd)
    for state in (names.LOAD, names.READY):
        with contextlib.suppress(FileNotFoundError):
            os.rename(names.batch(state, file), names.corrupt(name), src_dir_fd=where, dst_dir_fd=where)
            break


def count_corrupt(home: Home) -> int:
    """Batch files that were found damaged, by the reasons that lie here and in the spill folder."""
    listed = list_names(home.fd)
    with contextlib.suppress(OSError):
        listed += list_names(places.spill_folder(home))
    return sum(map(names.is_reason, listed))
