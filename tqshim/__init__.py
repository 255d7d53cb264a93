"""tqshim: ``multiprocessing.Queue``, swapped in with one line, over batch files and one journal."""

from __future__ import annotations

from . import forks as _forks  # noqa: F401  first: its hooks come before a program's own
from . import late as _late
from .errors import CorruptBatchError, FolderError, UnsupportedError, supported
from .queues import Empty, Full, ShutDown, TurboQueue

__all__ = [
    "Claim",
    "CorruptBatchError",
    "Empty",
    "FolderError",
    "Full",
    "JoinableQueue",
    "JoinableTurboQueue",
    "Queue",
    "ShutDown",
    "SimpleQueue",
    "SimpleTurboQueue",
    "Stats",
    "TurboQueue",
    "UnsupportedError",
    "get_context",
    "install",
    "supported",
    "uninstall",
]
__version__ = "0.2.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .claims import Claim
    from .contexts import get_context
    from .family import JoinableQueue, JoinableTurboQueue, SimpleQueue, SimpleTurboQueue
    from .figures import Stats
    from .patching import install, uninstall

if TYPE_CHECKING or supported:
    Queue = TurboQueue

_LATER = {
    "Claim": ("claims", "Claim"),
    "JoinableQueue": ("family", "JoinableQueue"),
    "JoinableTurboQueue": ("family", "JoinableTurboQueue"),
    "Queue": ("family", "Queue"),
    "SimpleQueue": ("family", "SimpleQueue"),
    "SimpleTurboQueue": ("family", "SimpleTurboQueue"),
    "Stats": ("figures", "Stats"),
    "get_context": ("contexts", "get_context"),
    "install": ("patching", "install"),
    "uninstall": ("patching", "uninstall"),
}


def __getattr__(name: str) -> Any:
    """What most programs don't need is imported when it is first asked for."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    room, named = _LATER[name]
    found = globals()[name] = getattr(_late.room(room), named)
    return found
