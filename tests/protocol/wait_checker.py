"""An explicit-state checker of who sleeps and who is rung for: every interleaving of a small case of ``wait_policy``.

Lives here: falling asleep, ringing, waking and passing a ring on, step by step, to be explored by ``explorer.explore``.
Not here: the machine (``store_buffers``), the cases (``test_cut_waiting``), who owns an item (``logs_checker``): here
items are taken in one step, as by a CLAIM.

One step is one load, one look at the journal, one ring, one ring that is answered, or one buffered store that becomes
visible.  The bell counts: a sleeper answers one ring, whomever it was meant for.  A nap ends only where the case
says so: what ends well without that does not depend on naps.

Where processes wait for places it is the same with the parts exchanged: who gets an item puts a place, and a ``wanter``
waits for so many of them.

Invariant: where nobody is killed, nobody sleeps while there is something for him and no ring is under way.  After a
kill, which may come in the middle of a ring, who sleeps is helped by his nap, or by the next put that finds that nobody
has cut for a moment.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple, Optional

from explorer import GONE, Violation
from store_buffers import Machine, Steps, Store

ALL: Final = 1 << 10
"""So much is there for all who wait for something that was shut down."""
ACTS: Final = ("sleep", "aside", "rung", "fall_cell", "fall_fence", "fall_barrier", "look")
"""Steps of a wait at which an exception may end it."""
OUTSIDE: Final = ("idle", "sleep", "aside", "passes_on", *GONE)
"""Steps at which a thread does not hold its process's lock."""


class Waiter(NamedTuple):
    """A thread: ``putter``, ``getter``, ``wanter`` or ``closer``."""

    role: str = "getter"
    left: int = 1
    """Puts or gets that it still wants."""
    wants: int = 1
    """How much it must get at once."""
    slot: int = -1
    """Threads of one process share a slot; -1: it is alone in its own."""
    at: str = "idle"
    buffer: tuple[Store, ...] = ()
    waits: Optional[tuple[int, ...]] = None
    sleeps: bool = False
    """It is one of those of its process that sleep."""
    aside: bool = False
    """It wants more than there is, and leaves rings to others."""
    rung: bool = False
    napped: bool = False
    """A nap has ended, and nobody had rung."""
    more: bool = False
    """There is something for another, too."""
    then: str = ""
    """Where it goes on when it has woken up."""
    seen: int = 0
    """Items put, as far as it has read the counters: so many of them."""
    read: int = 0
    late: bool = False
    """It puts when nobody has cut for a moment: all that others could do they have done."""


class Sleepers(NamedTuple):
    """A state of one machine."""

    cells: tuple[int, ...]
    processes: tuple[Waiter, ...]
    faults: tuple[int, int, int]
    """Kills, exceptions and ends of naps that may still come."""
    taken: int = 0
    bell: int = 0
    shut: bool = False
    late: bool = False
    """A late put has begun, and nobody was killed since."""

    def put(self, i: int, process: Waiter, **changes: Any) -> Sleepers:
        return self._replace(processes=(*self.processes[:i], process, *self.processes[i + 1 :]), **changes)

    def fault(self, which: int) -> tuple[int, int, int]:
        left = list(self.faults)
        left[which] -= 1
        return tuple(left)  # type: ignore[return-value]


class Waits(Machine):
    """Sleeping and ringing.  The cells: a counter of each process, one of each slot that says that somebody sleeps
    there, and the queue's word that says that anybody does.

    ``counting``: a put is a store, and who falls asleep has a barrier; else it is an event, and a fence does.  (On
    x86-64 time stands in for the barrier of a first nap: by the look, all that was stored before is seen.)
    ``timeless``: as if no time passed there; the second nap has a barrier of its own.
    ``excused``: after a kill no more is asked than what this module's docstring says.  Left out by name (``without``):
    parts of the protocol; ``self.without`` is asked where each of them stands."""

    def __init__(
        self,
        *waiters: Waiter,
        without: Iterable[str] = (),
        kills: int = 0,
        breaks: int = 0,
        naps: int = 0,
        excused: bool = True,
        counting: bool = True,
        x86: bool = False,
        timeless: bool = False,
    ) -> None:
        self.waiters = tuple(one._replace(slot=i if one.slot < 0 else one.slot) for i, one in enumerate(waiters))
        self.without = frozenset(without)
        self.faults = kills, breaks, naps
        self.excused = excused
        self.counting = counting
        self.x86 = x86
        self.timeless = timeless
        self.putters = [i for i, one in enumerate(waiters) if one.role == "putter"]
        self.slots = len(waiters)
        self.asleep = 2 * self.slots
        self.alike = self.interchangeable()
        self.ranks: dict[tuple[Waiter, int], int] = {}
        self.elsewhere: dict[tuple[Waiter, int], Waiter] = {}
        self.alone = len({one.slot for one in self.waiters if one.role == "getter"}) == 1

    def start(self) -> Sleepers:
        return Sleepers((0,) * (2 * self.slots + 1), self.waiters, self.faults)

    def interchangeable(self) -> list[tuple[int, ...]]:
        """Threads that want the same, each alone in its process, or all in one: none of their steps depends on which
        of them it is.  (The producer is read in turn.)"""
        slots = [one.slot for one in self.waiters]
        groups: dict[Waiter, list[int]] = {}
        for i, one in enumerate(self.waiters):
            if one.role in ("getter", "wanter"):
                groups.setdefault(one if slots.count(one.slot) > 1 else one._replace(slot=-1), []).append(i)
        return [tuple(group) for group in groups.values() if len(group) > 1]

    def key(self, world: Sleepers) -> Sleepers:
        """The same world with such threads in an order of their states: of two that differ in nothing but whom they
        wait for, any is the first."""
        cells, processes = world.cells, world.processes
        for group in self.alike:
            ranks = [self.rank(processes[i], cells[self.slots + processes[i].slot]) for i in group]
            if ranks != sorted(ranks):
                order = sorted(range(len(group)), key=ranks.__getitem__)
                world = self.renamed(world, {group[old]: group[new] for new, old in enumerate(order)})
        return world

    def rank(self, own: Waiter, cell: int) -> int:
        """Of a thread's state, whatever its name."""
        found = self.ranks.get((own, cell))
        if found is None:
            state = self.moved(own, 0)._replace(waits=None), cell
            found = self.ranks[own, cell] = self.ranks.setdefault(state, len(self.ranks))
        return found

    def moved(self, own: Waiter, slot: int) -> Waiter:
        """The thread in that process; nobody else stores to its cell."""
        here = self.slots + own.slot
        buffer = tuple((self.slots + slot if place == here else place, value) for place, value in own.buffer)
        return own._replace(slot=slot, buffer=buffer)

    def renamed(self, world: Sleepers, names: dict[int, int]) -> Sleepers:
        """The world in which these threads, and their processes, have each other's names."""
        cells, processes = list(world.cells), list(world.processes)
        for i, new in names.items():
            own, slot = world.processes[i], world.processes[new].slot
            cells[self.slots + slot] = world.cells[self.slots + own.slot]
            if (own, slot) not in self.elsewhere:
                self.elsewhere[own, slot] = self.moved(own, slot)
            processes[new] = self.elsewhere[own, slot]
        for i, process in enumerate(processes):
            if process.waits:
                processes[i] = process._replace(waits=tuple(sorted(names.get(j, j) for j in process.waits)))
        return Sleepers(tuple(cells), tuple(processes), *world[2:])

    def steps(self, world: Sleepers) -> Steps:
        kills, breaks, naps = world.faults
        for i, process in enumerate(world.processes):
            if process.at in GONE:
                continue
            yield from self.drains(world, i, process)
            if kills and process.role != "closer":
                after, _ = self.fence(world, i, process)
                dead = process._replace(at="dead", buffer=(), waits=None, sleeps=False, left=0)
                yield f"kill {i}", after.put(i, dead, faults=world.fault(0), late=False)
            if process.at in OUTSIDE and not self.is_free(world, i):
                continue
            if breaks and process.at in ACTS:
                broken = process._replace(at="wake", left=process.left - 1, waits=None, more=True, then="idle")
                if "rung again" in self.without:
                    broken = broken._replace(more=False)
                yield f"stop of {i}'s wait by an exception", world.put(i, broken, faults=world.fault(1))
            if naps and process.at == "sleep":
                woken = process._replace(at="rung", rung=False, napped=True)
                # Only where they are asked for does what ends well depend on naps.
                name = f"{i}'s nap ends" if self.timeless else f"stop of {i}'s nap"
                yield name, world.put(i, woken, faults=world.fault(2))
            yield from getattr(self, "at_" + process.at)(world, i, process)

    def settled(self, world: Sleepers) -> None:
        """All have come to their end, but for some that look again and again."""
        there = self.there(world)
        asleep = [(i, process) for i, process in enumerate(world.processes) if process.at == "sleep"]
        killed = self.excused and world.faults[0] < self.faults[0] and not world.late
        for i, process in asleep:
            if there >= process.wants and not killed:
                raise Violation("asleep", f"{i} sleeps, {there} items are there, and nobody rings")
        if asleep and not world.cells[self.asleep] and not killed:
            raise Violation("deaf", "somebody sleeps, and the next put will not ring")

    def is_free(self, world: Sleepers, i: int) -> bool:
        """No other thread of this process is in the middle of an act."""
        slot = world.processes[i].slot
        return not any(
            other.slot == slot and j != i and other.at not in OUTSIDE for j, other in enumerate(world.processes)
        )

    def there(self, world: Sleepers) -> int:
        return ALL if world.shut else sum(world.cells[i] for i in self.putters) - world.taken

    def cell(self, process: Waiter) -> int:
        return self.slots + process.slot

    def sleepers(self, world: Sleepers, process: Waiter) -> int:
        return sum(self.load(world, process, self.slots + slot) for slot in range(self.slots))

    # -- putting, and ringing

    def at_idle(self, world: Sleepers, i: int, process: Waiter) -> Steps:
        if not process.left:
            return
        if process.late:
            if not self.is_busy(world, i):
                yield f"{i} cuts, after a moment", self.says_again(world, i, process)
        elif process.role == "putter":
            count = self.load(world, process, i) + 1
            stored = process._replace(at="ring", buffer=(*process.buffer, (i, count)))
            if not self.counting and "put fence" not in self.without:
                world, stored = self.fence(world, i, stored)
            yield f"{i} puts item {count}", world.put(i, stored)
        elif process.role == "closer":
            after, process = self.fence(world._replace(shut=True), i, process)
            stored = process._replace(at="ring_fence", buffer=((self.asleep, 0),))
            yield f"{i} shuts down", after.put(i, stored)
        else:
            yield f"{i} looks for the first time", world.put(i, process._replace(at="look"))

    def is_busy(self, world: Sleepers, i: int) -> bool:
        """Another process could do something, whatever is killed, stopped or ended next."""
        for j, other in enumerate(world.processes):
            if j == i or other.at in GONE:
                continue
            if other.buffer or (other.at == "idle" and other.left and not other.late):
                return True
            if other.at != "idle" and any(True for _ in getattr(self, "at_" + other.at)(world, j, other)):
                return True
        return False

    def says_again(self, world: Sleepers, i: int, process: Waiter) -> Sleepers:
        """The sleeper that was rung for last had time to say whether others sleep: that word is not left to it."""
        process = process._replace(late=False)
        forgotten = not self.load(world, process, self.asleep) and self.sleepers(world, process)
        if forgotten and "say again" not in self.without:
            process = process._replace(buffer=(*process.buffer, (self.asleep, 1)))
        return world.put(i, process, late=True)

    def at_ring(self, world: Sleepers, i: int, process: Waiter) -> Steps:
        if self.load(world, process, self.asleep):
            stored = process._replace(at="ring_fence", buffer=(*process.buffer, (self.asleep, 0)))
            yield f"{i} sees that somebody sleeps, and clears that", world.put(i, stored)
        else:
            yield f"{i} sees that nobody sleeps", self.has_rung(world, i, process)

    def at_ring_fence(self, world: Sleepers, i: int, process: Waiter) -> Steps:
        if "ring fence" not in self.without:
            world, process = self.fence(world, i, process)
        yield f"{i} passes its fence", world.put(i, process._replace(at="ring_scan"))

    def at_ring_scan(self, world: Sleepers, i: int, process: Waiter) -> Steps:
        count = self.sleepers(world, process)
        if process.role != "closer":
            count = min(1, count)
        yield f"{i} rings {count} times", self.has_rung(world._replace(bell=world.bell + count), i, process)

    def has_rung(self, world: Sleepers, i: int, process: Waiter) -> Sleepers:
        if process.role in ("putter", "closer"):
            return world.put(i, process._replace(at="idle", left=process.left - 1))
        after, process = self.fence(world, i, process)
        return after.put(i, process._replace(at=process.then, more=False, then=""))

    # -- falling asleep

    def falls(self, world: Sleepers, i: int, process: Waiter) -> Sleepers:
        stores = [(self.cell(process), 1), (self.asleep, 1)]
        if "cell first" in self.without:
            stores.reverse()
        at = "fall_fence"
        if not self.x86 and not {"cell fence", "cell first"} & self.without:
            # Else a ring that has seen the second store might not see the first one, and find nobody.
            at = "fall_cell"
            del stores[1]
        return world.put(i, process._replace(at=at, sleeps=True, buffer=(*process.buffer, *stores)))

    def at_fall_cell(self, world: Sleepers, i: int, process: Waiter) -> Steps:
        after, process = self.fence(world, i, process)
        yield f"{i}'s cell is seen", after.put(i, process._replace(at="fall_fence", buffer=((self.asleep, 1),)))

    def at_fall_fence(self, world: Sleepers, i: int, process: Waiter) -> Steps:
        if self.counting:
            yield from self.at_fall_barrier(world, i, process._replace(at="fall_barrier"))
            return
        if "sleep fence" not in self.without:
            world, process = self.fence(world, i, process)
        yield f"{i} passes its fence", world.put(i, process._replace(at="look"))

    def at_fall_barrier(self, world: Sleepers, i: int, process: Waiter) -> Steps:
        if self.timeless and not process.napped:
            after, process = self.fence(world, i, process)
            yield f"{i} goes on at once", after.put(i, process._replace(at="look"))
            return
        yield from self.barrier(world, i, process, "look", "sleep barrier")

    # -- looking, and waking up

    def at_look(self, world: Sleepers, i: int, process: Waiter) -> Steps:
        """Look what is there, before one sleeps, and when one says that one does; who finds enough takes it."""
        if process.read < len(self.putters):
            seen = process.seen + self.load(world, process, self.putters[process.read])
            yield f"{i} reads a counter", world.put(i, process._replace(seen=seen, read=process.read + 1))
            return
        there = ALL if world.shut else process.seen - world.taken
        process = process._replace(seen=0, read=0)
        if there < process.wants:
            if not process.sleeps:
                yield f"{i} looks: {there}, says that it sleeps", self.falls(world, i, process)
            elif process.at == "look" and process.role == "wanter":
                yield from self.stands_aside(world, i, process, there)
            else:
                after, process = self.fence(world, i, process)
                yield f"{i} looks: {there}, sleeps", after.put(i, process._replace(at="sleep"))
            return
        if not world.shut:
            world = world._replace(taken=world.taken + process.wants)
        process = process._replace(left=0 if world.shut else process.left - 1)
        if process.role == "wanter":
            more = process.rung and there > process.wants and "more" not in self.without
            process = process._replace(more=more, then="idle")
        else:
            process = process._replace(then="passes_on" if process.rung and "more" not in self.without else "idle")
        at = "wake" if process.sleeps else process.then
        yield f"{i} looks: {there}, takes {process.wants}", world.put(i, process._replace(at=at))

    def stands_aside(self, world: Sleepers, i: int, process: Waiter, there: int) -> Steps:
        """It was rung for, and wants more than there is: another may want less."""
        here = sum(other.sleeps and other.slot == process.slot for other in world.processes)
        others = there > 0 and max(here, self.sleepers(world, process)) > 1
        aside = others and (process.rung or process.aside) and "aside" not in self.without
        rings = aside and not process.aside
        process = process._replace(aside=aside)
        at = "aside" if aside else "sleep"
        if rings:
            said = process._replace(at="ring", then=at, buffer=(*process.buffer, (self.asleep, 1)))
            yield f"{i} looks: {there}, passes its ring on", world.put(i, said)
        else:
            after, process = self.fence(world, i, process)
            yield f"{i} looks: {there}, {at}", after.put(i, process._replace(at=at))

    def at_aside(self, world: Sleepers, i: int, process: Waiter) -> Steps:
        yield f"stop of {i}'s standing aside", self.falls(world, i, process._replace(rung=False))

    def at_sleep(self, world: Sleepers, i: int, process: Waiter) -> Steps:
        if world.bell:
            rung = process._replace(at="rung", rung=True)
            yield f"{i} is rung for", world.put(i, rung, bell=world.bell - 1)

    def at_rung(self, world: Sleepers, i: int, process: Waiter) -> Steps:
        if process.role == "wanter":
            yield f"{i} says again that it sleeps", self.falls(world, i, process)
        else:
            yield f"{i} begins to look", world.put(i, process._replace(at="look_first"))

    def at_look_first(self, world: Sleepers, i: int, process: Waiter) -> Steps:
        """A getter that was rung for takes what is there, and sleeps no more in any case."""
        there = ALL if world.shut else sum(self.load(world, process, j) for j in self.putters) - world.taken
        if there < process.wants:
            yield f"{i} looks: {there}", world.put(i, process._replace(at="wake", then="falls"))
        else:
            yield from self.at_look(world, i, process._replace(seen=there + world.taken, read=len(self.putters)))

    def at_wake(self, world: Sleepers, i: int, process: Waiter) -> Steps:
        others = any(other.sleeps and other.slot == process.slot and j != i for j, other in enumerate(world.processes))
        buffer = process.buffer if others else (*process.buffer, (self.cell(process), 0))
        woken = process._replace(at="wake_scan", sleeps=False, aside=False, buffer=buffer)
        if self.alone and not others:
            yield f"{i} sleeps no more, and nobody else can", self.has_rung(world, i, woken)
        else:
            yield f"{i} sleeps no more", world.put(i, woken)

    def at_wake_scan(self, world: Sleepers, i: int, process: Waiter) -> Steps:
        sleepers = self.sleepers(world, process)
        if sleepers and "said again" not in self.without:
            process = process._replace(buffer=(*process.buffer, (self.asleep, 1)))
        ring = process.more and sleepers
        after = world.put(i, process._replace(at="ring")) if ring else self.has_rung(world, i, process)
        yield f"{i} looks who sleeps", after

    def at_falls(self, world: Sleepers, i: int, process: Waiter) -> Steps:
        yield f"{i} says again that it sleeps", self.falls(world, i, process)

    def at_passes_on(self, world: Sleepers, i: int, process: Waiter) -> Steps:
        """It was rung for and has taken something: if there is more, it is for another who sleeps."""
        process = process._replace(rung=False)
        if self.load(world, process, self.asleep):
            at = "pass_barrier" if self.counting else "count"
            yield f"{i} sees that others sleep", world.put(i, process._replace(at=at))
        else:
            yield f"{i} sees that nobody sleeps", world.put(i, process._replace(at="idle"))

    def at_pass_barrier(self, world: Sleepers, i: int, process: Waiter) -> Steps:
        # A put that has not seen the word that was set again: it is seen.
        if self.timeless:
            yield f"{i} goes on at once", world.put(i, process._replace(at="count"))
            return
        yield from self.barrier(world, i, process, "count", "pass barrier")

    def at_count(self, world: Sleepers, i: int, process: Waiter) -> Steps:
        after, process = self.fence(world, i, process)
        at = "ring" if self.there(after) > 0 else "idle"
        yield f"{i} looks whether there is more", after.put(i, process._replace(at=at, then="idle"))
