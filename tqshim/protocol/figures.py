"""A queue's figures at one moment.

Lives here: what the figures are called and mean.  Not here: how they are found out (``engine``).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Stats"]


@dataclass(frozen=True)
class Stats:
    """A queue's figures, all of one moment.  Counts are since the queue was made, and of all processes: the journal has
    them, so nothing that a process does to end changes them."""

    put: int
    """Items whose ``put`` has returned, in all processes."""
    got: int
    """Items that somebody has got, or whose block of ``claimed`` has ended well; also items that were dropped by
    ``shutdown(immediate=True)``, lost to damage, or could not be unpickled."""
    redelivered: int
    """How often an item was taken again, by ``get`` or ``claimed``, that had come back: its block of ``claimed`` had
    raised, or its process had ended in it.  (Not in it: what a ``get`` of this very process had taken when it was
    interrupted, and had not returned.)"""
    corrupt: int
    """Batch files that somebody has found damaged or missing, by the reasons, ``corrupt_….txt``, that lie in the folder
    now: delete them, and the count begins anew.  Damage that nobody has come upon yet is not in it."""
    items: int
    """Items that can be got now."""
    held: int
    """Items that a block of ``claimed`` has: neither among ``items`` nor among ``got``."""
    returned: int
    """Items among ``items`` that were in such a block, and have come back."""
    unfinished: int
    """Items for which nobody has called ``task_done``: of interest where somebody does."""
    bytes: int
    """Bytes of the records of the items that wait, with what checks them, without items that have come back."""
    maxsize: int
    consumers: int
    """Processes that have got something, or tried to; a killed one counts until it is noticed."""
    producers: int
    """Processes that have put something; the same."""
    waiting_consumers: int
    waiting_producers: int
