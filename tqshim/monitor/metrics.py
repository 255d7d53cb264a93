"""A queue's figures, for a process that uses it.

Lives here: what a handle can tell about its queue.  Not here: looking from outside (``looking``).

Invariant: figures come from what the process knows of the journal anyway; nothing is counted while nobody asks.
"""

from __future__ import annotations

from dataclasses import dataclass

from tqshim import events, waiting
from tqshim.queues import TurboQueue

__all__ = ["Stats", "stats"]


@dataclass(frozen=True)
class Stats:
    """A queue's figures at one moment.  Counts are since the queue was made, of all processes."""

    put: int
    got: int
    items: int
    """Items that can be got now."""
    held: int
    """Items that a block of ``claimed`` has: neither among ``items`` nor among ``got``."""
    unfinished: int
    """Items for which nobody has called ``task_done``."""
    bytes: int
    """Bytes of the blocks in which waiting items stand; a giant, alone in its file, counts as none."""
    maxsize: int
    consumers: int
    producers: int
    waiting_consumers: int
    waiting_producers: int


def stats(queue: TurboQueue) -> Stats:
    """The figures of a queue that this process has open: a look like ``qsize``, and one step for each waiting block.

    What this process has put is published first.  Raises ``ValueError`` for a closed handle."""
    engine = queue._open_engine()
    items = engine.qsize()
    ledger, cells = engine.ledger, engine.cells
    put, held = ledger.tail, len(ledger.held)
    waiting_blocks = tuple(ledger.blocks)  # at once: another thread may go on
    return Stats(
        put=put,
        got=put - min(items + held, put),
        items=items,
        held=held,
        unfinished=ledger.unfinished,
        bytes=events.UNIT * sum(block.units for block in waiting_blocks if block.end > ledger.low),
        maxsize=ledger.maxsize,
        consumers=ledger.consumers,
        producers=len(ledger.members) - ledger.consumers,
        waiting_consumers=len(cells.sleepers(waiting.SLEEPS)),
        waiting_producers=len(cells.sleepers(waiting.AWAITS_PLACE)),
    )
