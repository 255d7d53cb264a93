"""A queue's figures, for a process that uses it.

Lives here: what a handle can tell about its queue, beside what others see of it (``looking``).
"""

from __future__ import annotations

from tqshim.protocol.figures import Stats
from tqshim.queues.queue import TurboQueue

__all__ = ["Stats", "stats"]


def stats(queue: TurboQueue) -> Stats:
    """``queue.stats()``: the figures of a queue that this process has open.  Raises ``ValueError`` for a closed
    handle.

    >>> queue = TurboQueue()
    >>> queue.put("a")
    >>> stats(queue).items
    1"""
    return queue.stats()
