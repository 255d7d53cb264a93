"""tqshim: ``multiprocessing.Queue``, swapped in with one line, over batch files and one journal."""

from .errors import CorruptBatchError, FolderError, UnsupportedError
from .family import JoinableTurboQueue, SimpleTurboQueue
from .queues import Empty, Full, ShutDown, TurboQueue

__all__ = [
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
    "TurboQueue",
    "UnsupportedError",
]
__version__ = "0.1.0"

Queue = TurboQueue
JoinableQueue = JoinableTurboQueue
SimpleQueue = SimpleTurboQueue
