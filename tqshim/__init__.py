"""tqshim: ``multiprocessing.Queue``, swapped in with one line, over batch files and one journal."""

from .errors import CorruptBatchError, FolderError, UnsupportedError
from .queues import Empty, Full, TurboQueue

__all__ = ["CorruptBatchError", "Empty", "FolderError", "Full", "TurboQueue", "UnsupportedError"]
__version__ = "0.1.0"
