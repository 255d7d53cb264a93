"""The exceptions that are tqshim's own, and whether queues work on this system.

``Empty`` and ``Full`` are the standard library's.

Invariant: every exception here keeps its fields through pickling and says what was found, where, and what to do.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["CorruptBatchError", "FolderError", "UnsupportedError", "check_system", "no_pipe", "supported"]

supported = sys.platform.startswith(("linux", "darwin"))
"""Our queues work on this system.  Where not, as on Windows, `Queue`, `JoinableQueue`, `SimpleQueue`, `get_context` and
`install` give the standard library's, with `put_many` and `get_many` on top."""


class FolderError(OSError):
    """A queue folder can't be used: other users may read or write it, or it is no queue, or its files are damaged."""

    def __init__(self, path: str, finding: str, remedy: str) -> None:
        super().__init__(f"{path}: {finding}; {remedy}")
        self.path = path
        self.finding = finding
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[FolderError], tuple[str, str, str]]:
        return type(self), (self.path, self.finding, self.remedy)


class CorruptBatchError(FolderError):
    """An item's bytes are not what its producer has put: its batch file is missing, too short or damaged."""


class UnsupportedError(FolderError):
    """The machine or the file system lacks what the queue stands on."""


def check_system(what: str = "TurboQueue", remedy: str = "use tqshim.Queue, which is multiprocessing's here") -> None:
    """Raise ``UnsupportedError`` where there is not even what the engine imports."""
    if not supported:
        raise UnsupportedError(sys.platform, f"{what} needs Linux or macOS", remedy)


_OF_A_PIPE: Final = frozenset(("_reader", "_writer", "_poll", "_rlock", "_wlock", "fileno"))


def no_pipe(queue: object, name: str) -> AttributeError:
    """What to raise where somebody asks a queue for an attribute that it has not."""
    told = f"{type(queue).__name__!r} object has no attribute {name!r}"
    if name in _OF_A_PIPE:
        told += (
            ": its items lie in files, and nothing becomes readable when one comes. Wait in get(timeout=...), in an "
            "event loop in get_async(), or in a thread that passes items on to what is waited for"
        )
    return AttributeError(told)
