"""What a look at a queue tells of items, members and processes.

Lives here: the classes for that.  Not here: the look (``view``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Optional

from tqshim.protocol.records import Place

__all__ = ["Member", "Peeked", "Process", "Stretch"]


@dataclass(frozen=True)
class Process:
    """A process that has a queue open."""

    pid: int
    """0: one that can't be seen from here."""
    command: str


@dataclass(frozen=True)
class Member:
    """A process in one of its two roles, as the journal and the locks tell."""

    slot: int
    number: int
    role: str
    """``"consumer"`` or ``"producer"``."""
    state: str
    """``"alive"``, ``"dead"``, or ``"unknown"`` where the locks can't be asked."""
    process: Optional[Process]
    waits: bool
    """It sleeps until there is an item, or a place, or until all items are finished with."""


@dataclass(frozen=True)
class Peeked:
    """An item that nobody has got, and the beginning of its record."""

    number: int
    """Its place among all items that were ever put, from 0."""
    size: int
    """Bytes of its record, its pickle."""
    preview: bytes
    file: str
    offset: int
    """Where in the file its record begins."""
    record: Optional[bytes]
    """All of it, where that was asked for."""
    problem: str
    """Why it can't be read, or nothing."""
    uncut: bool = False
    """It is put and not cut yet.  Of several producers' such items nobody has decided the order: ``number`` is what it
    would be if they were cut now, one producer's after another's."""


class Stretch(NamedTuple):
    """Items whose records stand one behind the other in a batch file."""

    number: int
    """The number of the first item."""
    size: int
    place: Place
    uncut: bool

    def holds(self, place: Place) -> bool:
        """Whether one of the items stands there."""
        return place.file == self.place.file and 0 <= place.record - self.place.record < self.size

    def part(self, at: int, count: int) -> Stretch:
        """Return ``count`` of the items, from position ``at`` on; fewer where the stretch ends before."""
        place = Place(self.place.file, self.place.record + at)
        return Stretch(self.number + at, min(count, self.size - at), place, self.uncut)
