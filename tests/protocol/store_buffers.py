"""A machine whose stores become visible late: what the checkers explore stands on it.

Lives here: store buffers, fences, barriers, loads.  Not here: what a state holds besides cells and processes, and who
does what.

A store of one process becomes visible to the others late; on x86-64 in the order of its stores, elsewhere in any order
but that of stores to one place.  The process itself sees it at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Store = tuple[Any, int]
"""A cell, or another place, and what is stored there."""
Steps = Iterator[tuple[str, Any]]


class Machine:
    """Worlds with ``cells`` and ``processes``, which have a ``buffer`` each; their ``put`` changes one process.

    ``x86``: the stores of a process become visible in their order.  ``without``: what is left out, by name."""

    x86 = False
    without: frozenset[str] = frozenset()

    def key(self, world: Any) -> Any:
        """Each world stands for itself."""
        return world

    def drains(self, world: Any, i: int, process: Any) -> Steps:
        """Each store of the process that may become visible next."""
        places = []
        for at, (place, value) in enumerate(process.buffer):
            if place not in places:
                buffer = process.buffer[:at] + process.buffer[at + 1 :]
                after = self.visible(world, ((place, value),))
                yield f"{i}'s store of {value} to {place} is seen", after.put(i, process._replace(buffer=buffer))
            if self.x86:
                return
            places.append(place)

    def visible(self, world: Any, stores: tuple[Store, ...]) -> Any:
        """The world with these stores."""
        if not stores:
            return world
        cells = list(world.cells)
        for place, value in stores:
            cells[place] = value
        return world._replace(cells=tuple(cells))

    def fence(self, world: Any, i: int, process: Any) -> tuple[Any, Any]:
        """All stores of the process are visible."""
        if not process.buffer:
            return world, process
        after = self.visible(world, process.buffer)
        process = process._replace(buffer=())
        return after.put(i, process), process

    @staticmethod
    def load(world: Any, process: Any, place: int) -> int:
        """What the process sees there."""
        for where, value in reversed(process.buffer):
            if where == place:
                return value
        return world.cells[place]

    def reached(self, process: Any) -> bool:
        """It has registered for barriers."""
        return True

    def barrier(self, world: Any, i: int, process: Any, then: str, name: str) -> Steps:
        """``membarrier``: goes on when each other process's buffer has been empty at some moment since it began."""
        if name in self.without:
            yield f"{i} goes on without a barrier", world.put(i, process._replace(at=then))
        elif process.waits is None:
            others = enumerate(world.processes)
            full = tuple(j for j, other in others if j != i and other.buffer and self.reached(other))
            world, process = self.fence(world, i, process)
            if full:
                yield f"{i} begins its barrier", world.put(i, process._replace(waits=full))
            else:
                yield f"{i} passes its barrier", world.put(i, process._replace(at=then))
        else:
            for j in process.waits:
                other = world.processes[j]
                after = self.visible(world, other.buffer).put(j, other._replace(buffer=()))
                left = tuple(k for k in process.waits if k != j and after.processes[k].buffer)
                moved = process._replace(waits=left) if left else process._replace(waits=None, at=then)
                yield f"{i}'s barrier interrupts {j}", after.put(i, moved)
