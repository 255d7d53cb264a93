"""Which offsets of a topic's partitions may be committed.

Lives here: what was read and what is finished, by partition.  Not here: brokers, events, workers; this is pure.

Invariant: an offset to commit has nothing unfinished below it, so a consumer that reads on from there misses nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

__all__ = ["Offsets", "Partition", "Place"]

Partition = tuple[str, int]
"""A topic and the number of one of its partitions."""
Place = tuple[str, int, int]
"""A partition, and an offset in it."""


class _Progress:
    """One partition: offsets as they were read, which of them are finished, and what was committed."""

    __slots__ = ("committed", "end", "finished", "unfinished")

    def __init__(self, first: int) -> None:
        self.unfinished: deque[int] = deque()
        self.finished: set[int] = set()
        self.end = self.committed = first

    def position(self) -> int:
        """The lowest offset that is not finished; all below it may be committed."""
        while self.unfinished and self.unfinished[0] in self.finished:
            self.finished.remove(self.unfinished.popleft())
        return self.unfinished[0] if self.unfinished else self.end

    def held_up(self) -> int:
        """How many finished offsets wait for one below them."""
        self.position()
        return len(self.finished)


class Offsets:
    """What was read of the partitions that are assigned, and what of it is finished."""

    def __init__(self) -> None:
        self._partitions: dict[Partition, _Progress] = {}

    def read(self, topic: str, partition: int, offset: int) -> None:
        """An event was read.  Offsets of a partition rise, as a rule, and not always by one: logs are compacted."""
        progress = self._partitions.get((topic, partition))
        if progress is None:
            progress = self._partitions[topic, partition] = _Progress(offset)
        if progress.unfinished and offset < progress.unfinished[-1]:  # the client was sent back
            progress.unfinished = deque(sorted([*progress.unfinished, offset]))
        else:
            progress.unfinished.append(offset)
        progress.end = max(progress.end, offset + 1)

    def finish(self, topic: str, partition: int, offset: int) -> None:
        """What followed from the event is where it must be.  Events of forgotten partitions are somebody else's."""
        progress = self._partitions.get((topic, partition))
        if progress is not None:
            progress.finished.add(offset)

    def forget(self, topic: str, partition: int) -> None:
        """The partition is not assigned any more."""
        self._partitions.pop((topic, partition), None)

    def held_up(self) -> int:
        """How many finished events at most wait for one before them, in all partitions."""
        return sum(progress.held_up() for progress in self._partitions.values())

    def to_commit(self) -> Iterator[Place]:
        """By partition, the offset to commit; only the ones that have moved since they were committed."""
        for (topic, partition), progress in self._partitions.items():
            position = progress.position()
            if position > progress.committed:
                yield topic, partition, position

    def committed(self, topic: str, partition: int, offset: int) -> None:
        """The broker has taken that offset."""
        progress = self._partitions.get((topic, partition))
        if progress is not None:
            progress.committed = max(progress.committed, offset)
