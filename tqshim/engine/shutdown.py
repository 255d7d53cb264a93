"""The ends: items that are finished with, and shutting the queue down.

Lives here: counting off, and what helpers of a shutdown do.  Not here: waiting for the end (``waits``).

A shutdown begins with an intention, the CLOSING.  Each process that reads it raises the flags of all producers, which
stay up, and then cuts what they have put by then, in one piece with the SHUTDOWN.  A put that finds its flag up cuts
its own log: its item is in, or refused, also where a helper was stopped in the middle.

Invariant: when the queue is found shut down, all that was put is cut.
"""

from __future__ import annotations

from collections.abc import Callable

from tqshim.engine.consumer import Consumer
from tqshim.engine.membership import Membership
from tqshim.engine.replica import Replica
from tqshim.protocol import events
from tqshim.protocol.records import SHUT, SHUT_AT_ONCE
from tqshim.runtime import systems
from tqshim.sync import cells as words_of
from tqshim.sync import membarrier
from tqshim.sync.cells import KINDS

__all__ = ["Ending"]


class Ending:
    """What this process says of the end of one queue."""

    __slots__ = ("_consumer", "_members", "_replica", "_ring_all")

    def __init__(
        self, replica: Replica, members: Membership, consumer: Consumer, ring_all: Callable[[int], object]
    ) -> None:
        self._replica = replica
        self._members = members
        self._consumer = consumer
        self._ring_all = ring_all

    def task_done(self) -> bool:
        """Count one more item as finished with.  ``False``: all were."""
        # All that is put is cut first, in the same piece: no join ends while an item that was put is not counted.
        # Commit point.
        left = self._members.cut(events.task_done())[-1]
        if left == 0:
            self._ring_all(words_of.AWAITS_DONE)
        return left is not None

    def unfinished(self) -> int:
        """Items that were put and not finished with."""
        counters = self._members.look()
        if self.is_wanted:
            self.help()
            counters = self._members.look()
        ledger = self._replica.ledger
        return ledger.unfinished + ledger.uncut(counters)

    def shut_down(self, immediate: bool) -> None:
        """Let nothing be put from now on; ``immediate``: and drop all that waits.  Wakes all waiters."""
        self._replica.sync()
        ledger = self._replica.ledger
        wanted = SHUT_AT_ONCE if immediate else SHUT
        if max(ledger.ending.shut, ledger.ending.shutting) < wanted:
            self._replica.append(events.closing(immediate))
        self.help()

    @property
    def is_wanted(self) -> bool:
        """Somebody has begun to shut the queue down, and not finished it."""
        ledger = self._replica.ledger
        return ledger.ending.shut < ledger.ending.shutting

    def help(self) -> None:
        """Finish the shutdown that somebody wants."""
        replica, members = self._replica, self._members
        replica.sync()
        while self.is_wanted:
            ledger = replica.ledger
            immediate = ledger.ending.shutting == SHUT_AT_ONCE
            if immediate and self._consumer.end_any_lease():
                continue
            if members.counted and systems.MEMBARRIER is not None:
                for slot in list(ledger.files.filling):
                    members.raise_flag(words_of.FLAG, slot)
                membarrier.barrier()
            # Commit point, the first of them.
            members.cut(events.shutdown(immediate))
        for kind in KINDS:
            self._ring_all(kind)
