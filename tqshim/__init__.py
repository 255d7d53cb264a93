"""tqshim: ``multiprocessing.Queue``, swapped in with one line, over batch files and one journal."""

from __future__ import annotations

# isort: off
from .runtime import finder as _finder  # noqa: F401  first: it finds all others
from .runtime import forks as _forks  # noqa: F401  first: its hooks come before a program's own
from .errors import CorruptBatchError, FolderError, UnsupportedError, supported
from .queues.queue import Empty, Full, ShutDown, TurboQueue
from .runtime import late as _late
# isort: on

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

    from .protocol.figures import Stats
    from .queues.claims import Claim
    from .queues.contexts import get_context
    from .queues.family import JoinableQueue, JoinableTurboQueue, SimpleQueue, SimpleTurboQueue
    from .queues.patching import install, uninstall

if TYPE_CHECKING or supported:
    Queue = TurboQueue
if supported and _late.in_forkserver():
    _late.room("engine.registry")  # once, and not in each child

_LATER = {
    "Claim": ("queues.claims", "Claim"),
    "JoinableQueue": ("queues.family", "JoinableQueue"),
    "JoinableTurboQueue": ("queues.family", "JoinableTurboQueue"),
    "Queue": ("queues.family", "Queue"),
    "SimpleQueue": ("queues.family", "SimpleQueue"),
    "SimpleTurboQueue": ("queues.family", "SimpleTurboQueue"),
    "Stats": ("protocol.figures", "Stats"),
    "get_context": ("queues.contexts", "get_context"),
    "install": ("queues.patching", "install"),
    "uninstall": ("queues.patching", "uninstall"),
}


def __getattr__(name: str) -> Any:
    """What most programs don't need is imported when it is first asked for."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    room, named = _LATER[name]
    found = globals()[name] = getattr(_late.room(room), named)
    return found
