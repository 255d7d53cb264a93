"""Which offsets of a topic's partitions may be committed.

Lives here: what was read and what is finished, by partition.  Not here: brokers, events, workers; this is pure.

Invariant: no event below an offset to commit is unfinished, so a consumer that reads on from that offset misses
nothing.
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
        self.finished: dict[int, int] = {}
        """By offset: how often it is finished, for it may have been read twice."""
        self.end = self.committed = first

    def position(self) -> int:
        """Return the lowest offset that is not finished, which may be committed: all offsets below it are finished."""
        while self.unfinished and self.unfinished[0] in self.finished:
            offset = self.unfinished.popleft()
            self.finished[offset] -= 1
            if not self.finished[offset]:
                del self.finished[offset]
        return self.unfinished[0] if self.unfinished else self.end

    def held_up(self) -> int:
        """Return how many finished offsets wait for one below them."""
        self.position()
        return sum(self.finished.values())


class Offsets:
    """Which events were read from the partitions that are assigned, and which of these are finished."""

    def __init__(self) -> None:
        self._partitions: dict[Partition, _Progress] = {}

    def read(self, topic: str, partition: int, offset: int) -> None:
        """Note that an event was read.  Offsets of a partition rise, as a rule, and not always by one: logs are
        compacted."""
        progress = self._partitions.get((topic, partition))
        if progress is None:
            progress = self._partitions[topic, partition] = _Progress(offset)
        if progress.unfinished and offset < progress.unfinished[-1]:  # the client was sent back to an earlier offset
            progress.unfinished = deque(sorted([*progress.unfinished, offset]))
        else:
            progress.unfinished.append(offset)
        progress.end = max(progress.end, offset + 1)

    def finish(self, topic: str, partition: int, offset: int) -> None:
        """Note that an event is finished.  An event of a forgotten partition belongs to another member: nothing is
        noted."""
        progress = self._partitions.get((topic, partition))
        if progress is not None:
            progress.finished[offset] = progress.finished.get(offset, 0) + 1

    def forget(self, topic: str, partition: int) -> None:
        """Forget a partition that is not assigned any more."""
        self._partitions.pop((topic, partition), None)

    def held_up(self) -> int:
        """Return how many finished events wait for one before them, in all partitions."""
        return sum(progress.held_up() for progress in self._partitions.values())

    def to_commit(self) -> Iterator[Place]:
        """Yield the offset to commit of each partition where it has moved since the last commit."""
        for (topic, partition), progress in self._partitions.items():
            position = progress.position()
            if position > progress.committed:
                yield topic, partition, position

    def committed(self, topic: str, partition: int, offset: int) -> None:
        """Note that the broker has accepted that offset."""
        progress = self._partitions.get((topic, partition))
        if progress is not None:
            progress.committed = max(progress.committed, offset)
