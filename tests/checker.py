"""An explicit-state checker for the rules: every interleaving of a small case, driven by the package's own ``Ledger``.

Lives here: the explorer, a machine with store buffers, and seven small protocols that stand on the ledger: ``Claims``,
``Holds``, ``Ends``, ``Leases``, ``Reservations``, ``Batches`` and ``Rolls``.  Not here: the cases, and what goes wrong
when a rule is taken out (``test_rules``).

One step is one append to the journal, one store into a process's store buffer, one buffered store that reaches the
memory (x86: first in, first out), one load, or one system call on a name.  Between any two steps a process may be
killed or stopped, as often as the case says.  An append and a kill or stop empty the process's own store buffer.

A state holds the journal as the snapshot of the ledger that has read it, so each step also goes through
``Ledger.load`` and ``snapshot``: a rule that a snapshot forgets is a rule taken out.  Void events are dropped from it,
for they change nothing.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from typing import Any, Final, NamedTuple, Optional, Protocol

from tqshim import events
from tqshim.ledger import Held, Lease, Ledger, Verdict
from tqshim.names import FileId

Buffer = tuple[tuple[int, int], ...]
"""Stores of one process that have not reached the memory yet: address and value, oldest first."""
FAULTS: Final = ("kill", "stop")
"""How the labels of steps begin that need not happen."""


class Violation(Exception):
    """Something that must never be was reached."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(f"{kind}: {what}")
        self.kind = kind
        self.what = what


class Model(Protocol):
    """What ``explore`` explores."""

    def start(self) -> Hashable:
        """The first state."""

    def steps(self, state: Any) -> Iterator[tuple[str, Any]]:
        """Each step that can be made, with a label, and where it leads.  Raises ``Violation``."""

    def settled(self, state: Any) -> None:
        """Called where nothing moves any more.  Raises ``Violation`` if that is no good end."""


class Result(NamedTuple):
    """How many states there are; or the first violation, and the shortest way to it."""

    states: int
    kind: Optional[str] = None
    what: str = ""
    path: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.kind is None:
            return f"{self.states} states"
        return f"{self.kind}: {self.what}; after {len(self.path)} steps:\n  " + "\n  ".join(self.path)


def explore(model: Model, most: int = 6_000_000) -> Result:
    """Every state that can be reached, breadth first, so that a violation is shown by one of the shortest ways."""
    collecting = gc.isenabled()
    gc.disable()  # Nothing here is garbage, and looking for some takes a third of the time.
    try:
        return _explore(model, most)
    finally:
        if collecting:
            gc.enable()


def _explore(model: Model, most: int) -> Result:
    first = model.start()
    origin: dict[Any, Any] = {first: None}
    """Of each state that was seen, the one it was reached from, and by which step."""
    waiting: deque[Any] = deque([first])
    while waiting:
        state = waiting.popleft()
        try:
            moves = False
            for label, following in model.steps(state):
                if following == state:
                    continue
                moves = moves or not label.startswith(FAULTS)
                seen = len(origin)
                origin.setdefault(following, (state, label))
                if len(origin) > seen:
                    waiting.append(following)
            if not moves:
                model.settled(state)
        except Violation as violation:
            path = []
            while origin[state]:
                state, label = origin[state]
                path.append(label)
            return Result(len(origin), violation.kind, violation.what, tuple(reversed(path)))
        if len(origin) > most:
            raise AssertionError(f"more than {most} states: make the case smaller")
    return Result(len(origin))


class Rules:
    """A ledger class as a function from state and event to state and verdict, remembered.

    ``counting`` says which events advance the count of events: all valid ones, or only JOINs and HOLDs (fewer states;
    enough where nobody looks at a position in the journal, for then only members and holds are numbered by it)."""

    def __init__(self, ledger: type[Ledger] = Ledger, counting: str = "joins") -> None:
        self.ledger = ledger
        self.counting = counting
        self._views: dict[bytes, Ledger] = {}
        self._steps: dict[tuple[bytes, bytes], tuple[bytes, Verdict]] = {}

    def begin(self, maxsize: int, journal: Iterable[bytes]) -> bytes:
        state = self.ledger(maxsize).snapshot()
        for event in journal:
            state, verdict = self.append(state, event)
            assert verdict is not None, "the case itself is wrong"
        return state

    def view(self, state: bytes) -> Ledger:
        """The ledger in that state, to be looked at only."""
        view = self._views.get(state)
        if view is None:
            view = self._views[state] = self.ledger.load(state)
        return view

    def append(self, state: bytes, event: bytes) -> tuple[bytes, Verdict]:
        known = self._steps.get((state, event))
        if known is None:
            ledger = self.ledger.load(state)
            index = ledger.index
            verdict = ledger.step(int.from_bytes(event, "little"))
            if verdict is None or (self.counting == "joins" and event[0] not in (events.JOIN, events.HOLD)):
                ledger.index = index
            known = self._steps[state, event] = ledger.snapshot(), verdict
        return known


class World(NamedTuple):
    """A state of one machine: journal, shared memory, processes, and what the protocol counts."""

    journal: bytes
    memory: tuple[int, ...]
    processes: tuple[Any, ...]
    kills: int
    stops: int
    account: Any = None

    def put(self, i: int, process: Any, **changes: Any) -> World:
        """The same world with another state of process ``i``."""
        processes = (*self.processes[:i], process, *self.processes[i + 1 :])
        if not changes:  # as ``_replace`` does it, which takes twice as long: of all that is done here most is this
            return World(self.journal, self.memory, processes, self.kills, self.stops, self.account)
        return self._replace(processes=processes, **changes)


GONE: Final = {"dead", "stopped", "left"}


class Machine:
    """Processes with store buffers.  A protocol adds ``acts``: what a process can do next."""

    def __init__(self, rules: Rules, without: Iterable[str] = ()) -> None:
        self.rules = rules
        self.without = frozenset(without)
        """Parts of the protocol that are left out, by name."""

    def steps(self, world: World) -> Iterator[tuple[str, World]]:
        for i, process in enumerate(world.processes):
            if process.at in GONE:
                continue
            if process.buffer:
                drained = process._replace(buffer=process.buffer[1:])
                yield f"{i} drains", world.put(i, drained, memory=flushed(world.memory, process.buffer[:1]))
            if world.kills and self.mortal(process):
                yield f"kill {i}", self.end(world, i, "dead", kills=world.kills - 1)
            if world.stops and self.mortal(process):
                yield f"stop {i}", self.end(world, i, "stopped", stops=world.stops - 1)
            yield from self.acts(world, i, process)
        yield from self.janitor(world)

    def acts(self, world: World, i: int, process: Any) -> Iterator[tuple[str, World]]:
        raise NotImplementedError

    def janitor(self, world: World) -> Iterator[tuple[str, World]]:
        """What anybody who is alive may do: give the LEAVE of a dead member, as late as it likes."""
        if all(process.at in GONE for process in world.processes):
            return
        members = self.rules.view(world.journal).members
        for i, process in enumerate(world.processes):
            if process.at == "dead" and process.slot in members and members[process.slot].number == process.number:
                journal, _ = self.rules.append(world.journal, events.leave(process.slot, process.number))
                yield f"LEAVE for dead {i}", world._replace(journal=journal)

    def mortal(self, process: Any) -> bool:
        return True

    def end(self, world: World, i: int, how: str, **faults: int) -> World:
        process = world.processes[i]
        memory = flushed(world.memory, process.buffer)
        return world.put(i, process._replace(at=how, buffer=()), memory=memory, **faults)

    def append(self, world: World, i: int, event: bytes) -> tuple[World, Any, Verdict]:
        """The world after process ``i``'s append, that process with its store buffer empty, and the verdict."""
        process = world.processes[i]
        journal, verdict = self.rules.append(world.journal, event)
        process = process._replace(buffer=())
        return (
            world.put(i, process, journal=journal, memory=flushed(world.memory, world.processes[i].buffer)),
            process,
            verdict,
        )

    def barrier(self, world: World, i: int, process: Any, then: str) -> Iterator[tuple[str, World]]:
        """``membarrier``: goes on when each other process's buffer has been empty at some moment since it began."""
        if "membarrier" in self.without:
            yield f"{i} goes on without a barrier", world.put(i, process._replace(at=then))
            return
        if process.waits is None:
            full = tuple(j for j, other in enumerate(world.processes) if j != i and other.buffer)
            own = world.put(i, process._replace(waits=full, buffer=()), memory=flushed(world.memory, process.buffer))
            yield f"{i} begins its barrier", own
        elif not process.waits:
            yield f"{i} has passed its barrier", world.put(i, process._replace(at=then, waits=None))
        for j in process.waits or ():
            other = world.processes[j]
            passed = world.put(j, other._replace(buffer=()), memory=flushed(world.memory, other.buffer))
            left = tuple(k for k in process.waits if k != j)
            yield f"{i} interrupts {j}", passed.put(i, process._replace(waits=left))


def flushed(memory: tuple[int, ...], buffer: Buffer) -> tuple[int, ...]:
    if not buffer:
        return memory
    cells = list(memory)
    for address, value in buffer:
        cells[address] = value
    return tuple(cells)


def stored(process: Any, *stores: tuple[int, int]) -> Any:
    return process._replace(buffer=process.buffer + stores)


def loaded(world: World, process: Any, address: int) -> int:
    for where, value in reversed(process.buffer):
        if where == address:
            return value
    return world.memory[address]


# -- (i) claims


class Claimer(NamedTuple):
    """A producer or a consumer that puts or takes one by one or in portions."""

    role: str = "consumer"
    left: int = 2
    slot: int = 0
    number: int = 0
    portion: int = 1
    at: str = "idle"
    buffer: Buffer = ()
    seen: int = 0
    hand: tuple[int, ...] = ()
    last: int = -1


class Claims(Machine):
    """PUBLISH, CLAIM, CLAIM_MANY: each item is got once, in order, and at most what was in a dead hand is missing.

    The account: the items that were delivered, and how many were lawfully published.

    ``verdict``: left out, a consumer takes what its last look showed at the head, as long as its event is valid."""

    def __init__(
        self,
        rules: Rules,
        processes: tuple[Claimer, ...],
        without: Iterable[str] = (),
        maxsize: int = 0,
        kills: int = 1,
        stops: int = 1,
    ) -> None:
        super().__init__(rules, without)
        self.processes = processes
        self.maxsize = maxsize
        self.faults = kills, stops

    def start(self) -> World:
        journal: list[bytes] = []
        ready = []
        for process in self.processes:
            slot = len(ready)
            journal.append(events.join(process.role == "consumer"))
            ready.append(process._replace(slot=slot, number=slot))
        journal += [events.open_(process.slot, 0) for process in ready if process.role == "producer"]
        return World(self.rules.begin(self.maxsize, journal), (), tuple(ready), *self.faults, (frozenset(), 0))

    def acts(self, world: World, i: int, process: Claimer) -> Iterator[tuple[str, World]]:
        delivered, published = world.account
        if process.role == "producer":
            count = min(process.left, process.portion)
            if count:
                after, process, verdict = self.append(world, i, events.publish(process.slot, count, 1))
                if verdict is not None:
                    view = self.rules.view(after.journal)
                    if self.maxsize and view.tail - len(delivered) - self.in_hands(world) > self.maxsize:
                        raise Violation("bound", f"{view.tail - len(delivered)} items in {self.maxsize} places")
                    account = delivered, published + count
                    yield f"{i} PUBLISH", after.put(i, process._replace(left=process.left - count), account=account)
        elif process.at == "idle" and process.left:
            head = self.rules.view(world.journal).head
            yield f"{i} looks", world.put(i, process._replace(at="claim", seen=head))
        elif process.at == "claim":
            event = events.claim(process.slot)
            if process.portion > 1:
                event = events.claim_many(process.slot, process.portion)
            after, process, verdict = self.append(world, i, event)
            items = tuple(verdict) if isinstance(verdict, range) else ()
            if items and "verdict" in self.without:
                items = tuple(process.seen + n for n in range(len(items)))
            yield f"{i} CLAIM", after.put(i, process._replace(at="hand" if items else "idle", seen=0, hand=items))
        elif process.at == "hand":
            item, *others = process.hand
            if item >= published:
                raise Violation("phantom", f"item {item} was got, {published} were published")
            if item in delivered:
                raise Violation("twice", f"item {item}")
            if item <= process.last:
                raise Violation("order", f"item {item} after {process.last}")
            process = process._replace(
                at="hand" if others else "idle",
                hand=tuple(others),
                last=item,
                left=process.left if others else process.left - 1,
            )
            yield f"{i} gets {item}", world.put(i, process, account=(delivered | {item}, published))

    def in_hands(self, world: World) -> int:
        return sum(len(process.hand) for process in world.processes)

    def settled(self, world: World) -> None:
        view = self.rules.view(world.journal)
        delivered, published = world.account
        in_hands = sum(len(process.hand) for process in world.processes if process.at in ("dead", "stopped"))
        missing = set(range(published)) - delivered - set(range(view.head, view.tail))
        if len(missing) > in_hands:
            raise Violation("lost", f"items {sorted(missing)}, with {in_hands} in hands")
        waiting = (process.role == "consumer" and process.at == "idle" and process.left for process in world.processes)
        if any(waiting) and view.head < view.tail:
            raise Violation("wedged", "a consumer waits and an item too")


# -- holds


FILES: Final = 9
"""More than a producer makes: their serials go up as what it has left goes down."""


class Taker(NamedTuple):
    """A producer, whose items each lie in a file of their own; or a consumer: one that claims (``holder``), and whose
    blocks raise so often; one that gets (``getter``); one that leases (``leaser``).

    A ``leaver`` is a holder that leaves while a block of its is running, as a program does whose thread goes on."""

    role: str = "holder"
    left: int = 1
    raises: int = 0
    leases: int = 1
    slot: int = 0
    number: int = 0
    at: str = "idle"
    buffer: Buffer = ()
    seen: str = ""
    """What the last look has decided for: HOLD, CLAIM or LEASE."""
    hold: int = -1
    item: int = -1
    lease: Optional[Lease] = None
    position: int = 0


class Holds(Machine):
    """HOLD, GOT and RETURN beside CLAIM and LEASE: an item whose block did not end well comes back, marked.

    A look and the event that it decides for are two steps.  A lease's holder gives it back, and others end it, in one
    step each: how far it got is the matter of ``Leases``.  The account: items that count as got, and those that a block
    has had.

    Left out by name: ``returned``: who gets does not look for what has come back; ``burial``: nobody gives the LEAVE of
    a dead member; ``got after``: who gets what has come back lets it go before it has it."""

    def __init__(
        self,
        rules: Rules,
        processes: tuple[Taker, ...],
        without: Iterable[str] = (),
        maxsize: int = 0,
        kills: int = 1,
        stops: int = 0,
    ) -> None:
        super().__init__(rules, without)
        self.processes = processes
        self.maxsize = maxsize
        self.faults = kills, stops

    def start(self) -> World:
        journal = []
        ready = []
        for slot, process in enumerate(self.processes):
            journal.append(events.join(process.role != "producer"))
            ready.append(process._replace(slot=slot, number=slot))
        account = frozenset[int](), frozenset[int]()
        return World(self.rules.begin(self.maxsize, journal), (), tuple(ready), *self.faults, account)

    def mortal(self, process: Taker) -> bool:
        return process.role != "producer"

    def janitor(self, world: World) -> Iterator[tuple[str, World]]:
        return iter(()) if "burial" in self.without else super().janitor(world)

    def append(self, world: World, i: int, event: bytes) -> tuple[World, Any, Verdict]:
        after, process, verdict = super().append(world, i, event)
        view = self.rules.view(after.journal)
        for kept in (*view.held.values(), *view.returned):
            if view.is_done(kept.block.file):
                raise Violation("missing", f"item {kept.item} may come back, and its file is done")
        return after, process, verdict

    def acts(self, world: World, i: int, process: Taker) -> Iterator[tuple[str, World]]:
        if process.role == "producer":
            yield from self.produce(world, i, process)
        elif process.at != "idle":
            yield from getattr(self, "at_" + process.at)(world, i, process)
        elif process.left:
            seen = self.look(self.rules.view(world.journal), process)
            if seen:
                yield f"{i} wants to {seen}", world.put(i, process._replace(at="take", seen=seen))

    def look(self, view: Ledger, process: Taker) -> str:
        back = bool(view.returned) and not (process.role == "getter" and "returned" in self.without)
        if not back and (view.head >= view.tail) and not view.lease:
            return ""
        if view.lease:
            return "REVOKE"
        if process.role in ("holder", "leaver") or back:
            return "HOLD"
        return "LEASE" if process.role == "leaser" and process.leases else "CLAIM"

    def produce(self, world: World, i: int, process: Taker) -> Iterator[tuple[str, World]]:
        if process.left:
            after, process, _ = self.append(world, i, events.open_(process.slot, FILES - process.left))
            after, process, first = self.append(after.put(i, process), i, events.publish(process.slot, 1, 1))
            if first is None:
                return
            view = self.rules.view(after.journal)
            got, _ = world.account
            hands = sum(other.at in ("hand", "dead") and other.hold < 0 <= other.item for other in world.processes)
            if self.maxsize and view.tail - len(got) - hands > self.maxsize:
                raise Violation("bound", f"{view.tail - len(got) - hands} items in {self.maxsize} places")
            yield f"{i} PUBLISH", after.put(i, process._replace(left=process.left - 1))

    def at_take(self, world: World, i: int, process: Taker) -> Iterator[tuple[str, World]]:
        view = self.rules.view(world.journal)
        oldest = view.returned[0].item if view.returned else None
        if process.seen == "REVOKE":
            yield from self.revoke(world, i, process, view)
        elif process.seen == "HOLD":
            after, process, held = self.append(world, i, events.hold(process.slot))
            process = process._replace(at="idle", seen="")
            if isinstance(held, Held):
                self.in_order(held.item, oldest)
                process = process._replace(at="held", hold=held.number, item=held.item)
                if held.item in world.account[1] and not held.times:
                    raise Violation("unmarked", f"item {held.item} was in a block before")
                holders = (other for other in world.processes if other.at == "block" and other.role == "holder")
                if any(other.item == held.item for other in holders):
                    raise Violation("twice", f"item {held.item} is in two blocks at once")
            yield f"{i} HOLD: {held and process.item}", after.put(i, process)
        elif process.seen == "CLAIM":
            after, process, items = self.append(world, i, events.claim(process.slot))
            process = process._replace(at="idle", seen="")
            if isinstance(items, range):
                self.in_order(items.start, oldest)
                process = process._replace(at="hand", item=items.start)
            yield f"{i} CLAIM: {items}", after.put(i, process)
        else:
            after, process, lease = self.append(world, i, events.lease(process.slot, 2))
            process = process._replace(at="idle", seen="", leases=process.leases - 1)
            if isinstance(lease, Lease):
                process = process._replace(at="lease", lease=lease, position=lease.first)
            yield f"{i} LEASE: {lease}", after.put(i, process)

    @staticmethod
    def in_order(item: int, oldest: Optional[int]) -> None:
        if oldest is not None and item != oldest:
            raise Violation("overtaken", f"item {item} was taken, with item {oldest} at the head")

    def at_lease(self, world: World, i: int, process: Taker) -> Iterator[tuple[str, World]]:
        """The holder of a lease delivers its next item, or gives the lease back."""
        view, lease = self.rules.view(world.journal), process.lease
        assert lease is not None
        if view.lease is None or view.lease.number != lease.number:
            yield f"{i} has lost its lease", world.put(i, process._replace(at="idle", lease=None))
        elif process.position < lease.end and process.left:
            self.in_order(process.position, view.returned[0].item if view.returned else None)
            after = self.counts(world, process.position)
            process = process._replace(position=process.position + 1, left=process.left - 1)
            yield f"{i} gets {process.position - 1}", after.put(i, process)
        else:
            after, process, _ = self.append(world, i, events.revoke(process.position - lease.first, lease.number))
            yield f"{i} ends its lease", after.put(i, process._replace(at="idle", lease=None))

    def revoke(self, world: World, i: int, process: Taker, view: Ledger) -> Iterator[tuple[str, World]]:
        process = process._replace(at="idle", seen="")
        if view.lease is None:
            yield f"{i} has nothing to revoke", world.put(i, process)
            return
        number = view.lease.number
        (holder,) = (other for other in world.processes if other.lease and other.lease.number == number)
        after, _, _ = self.append(world, i, events.revoke(holder.position - view.lease.first, number))
        yield f"{i} REVOKE", after.put(i, process)

    def at_held(self, world: World, i: int, process: Taker) -> Iterator[tuple[str, World]]:
        """It holds an item that it has not looked at yet."""
        got, seen = world.account
        if process.role in ("holder", "leaver"):
            yield (
                f"{i} begins its block",
                world.put(i, process._replace(at="block"), account=(got, seen | {process.item})),
            )
        elif "got after" in self.without:
            after, process, _ = self.append(world, i, events.got(process.hold))
            yield f"{i} GOT, too early", after.put(i, process._replace(at="late"))
        else:
            yield f"{i} has {process.item}", self.counts(world, process.item).put(i, process._replace(at="got"))

    def at_late(self, world: World, i: int, process: Taker) -> Iterator[tuple[str, World]]:
        after = self.counts(world, process.item)
        yield f"{i} has {process.item}", after.put(i, process._replace(at="idle", hold=-1, item=-1, left=0))

    def at_got(self, world: World, i: int, process: Taker) -> Iterator[tuple[str, World]]:
        """It has got what had come back, and says so: killed before that, nobody has got it."""
        after, process, _ = self.append(world, i, events.got(process.hold))
        process = process._replace(at="idle", hold=-1, item=-1, left=process.left - 1)
        yield f"{i} GOT", after.put(i, process)

    def at_hand(self, world: World, i: int, process: Taker) -> Iterator[tuple[str, World]]:
        after = self.counts(world, process.item)
        yield f"{i} gets {process.item}", after.put(i, process._replace(at="idle", item=-1, left=process.left - 1))

    def at_block(self, world: World, i: int, process: Taker) -> Iterator[tuple[str, World]]:
        done = process._replace(at="idle", hold=-1, item=-1, left=process.left - 1)
        if process.role == "leaver" and self.rules.view(world.journal).members.get(process.slot):
            after, _, _ = self.append(world, i, events.leave(process.slot, process.number))
            yield f"{i} LEAVE in its block", after
        after, _, number = self.append(world, i, events.got(process.hold))
        if number is not None:
            after = self.counts(after, process.item)
        yield f"{i} GOT: {number}", after.put(i, done)
        if process.raises:
            after, _, _ = self.append(world, i, events.return_(process.hold))
            yield f"{i} RETURN", after.put(i, done._replace(left=process.left, raises=process.raises - 1))

    def counts(self, world: World, item: int) -> World:
        got, seen = world.account
        if item in got:
            raise Violation("twice", f"item {item} counts as got twice")
        return world._replace(account=(got | {item}, seen))

    def end(self, world: World, i: int, how: str, **faults: int) -> World:
        process = world.processes[i]
        after = super().end(world, i, how, **faults)
        got, seen = world.account
        if process.at == "got":  # it died with the item, and nobody has got it
            return after._replace(account=(got - {process.item}, seen))
        return after

    def settled(self, world: World) -> None:
        view = self.rules.view(world.journal)
        got, _ = world.account
        waiting = set(range(view.lease.first if view.lease else view.head, view.tail))
        apart = {kept.item for kept in (*view.held.values(), *view.returned)}
        hands = {process.item for process in world.processes if process.at in GONE and process.hold < 0}
        missing = set(range(view.tail)) - got - waiting - apart - hands
        if missing:
            raise Violation("lost", f"items {sorted(missing)}")
        takers = [process for process in world.processes if process.role != "producer" and process.at not in GONE]
        if any(process.at == "idle" and process.left for process in takers):
            stopped = {process.number for process in world.processes if process.at == "stopped"}
            if any(held.member not in stopped for held in view.held.values()):
                raise Violation("wedged", "an item is held, and nobody has it")
            if waiting or view.returned:
                raise Violation("wedged", "a consumer waits and an item too")
        producers = (process for process in world.processes if process.role == "producer")
        if any(process.left for process in producers) and view.used < self.maxsize:
            raise Violation("full", f"{view.used} of {self.maxsize} places taken, and a producer waits")


# -- ends: counting off, joining, shutting down


class Ender(NamedTuple):
    """A producer, whose puts return before they are published; a consumer; one that joins; or one that shuts down."""

    role: str = "consumer"
    left: int = 2
    slot: int = 0
    number: int = 0
    at: str = "idle"
    buffer: Buffer = ()
    held: int = 0
    """Records whose puts have returned."""
    item: Optional[int] = None


class Ends(Machine):
    """TASK_DONE, SHUTDOWN and PUBLISH_LATE: what was put is got or dropped as it should be, and who joins wakes up.

    The one that joins stores its cell, makes all see it, looks at the journal, and sleeps until it is rung for; whoever
    finishes the last item looks at the cell and rings.  The account: puts that have returned, items that were
    delivered, rings that nobody has heard, and whether the shutdown was immediate.

    Left out by name: ``late``: a producer whose PUBLISH is void gives up; ``barrier``: the one that joins looks at
    once; ``ring``: nobody rings."""

    CELL = 0

    def __init__(
        self,
        rules: Rules,
        processes: tuple[Ender, ...],
        without: Iterable[str] = (),
        immediate: bool = False,
        kills: int = 0,
    ) -> None:
        super().__init__(rules, without)
        self.processes = processes
        self.immediate = immediate
        self.kills = kills

    def start(self) -> World:
        journal = []
        ready = []
        for slot, process in enumerate(self.processes):
            journal.append(events.join(process.role == "consumer"))
            ready.append(process._replace(slot=slot, number=slot))
        journal += [events.open_(process.slot, 0) for process in ready if process.role == "producer"]
        return World(self.rules.begin(0, journal), (0,), tuple(ready), self.kills, 0, (0, frozenset(), 0))

    def mortal(self, process: Ender) -> bool:
        return process.role == "producer"

    def acts(self, world: World, i: int, process: Ender) -> Iterator[tuple[str, World]]:
        yield from getattr(self, process.role)(world, i, process)

    def producer(self, world: World, i: int, process: Ender) -> Iterator[tuple[str, World]]:
        returned, delivered, rings = world.account
        if process.at == "idle" and process.left:
            after = process._replace(held=process.held + 1, left=process.left - 1)
            yield f"{i} puts", world.put(i, after, account=(returned + 1, delivered, rings))
        if process.at == "idle" and process.held:
            after, process, verdict = self.append(world, i, events.publish(process.slot, process.held, 1))
            if verdict is None:
                process = process._replace(at="over" if "late" in self.without else "late", left=0)
                process = process._replace(held=0) if process.at == "over" else process
            else:
                process = process._replace(held=0)
            yield f"{i} PUBLISH", after.put(i, process)
        elif process.at == "late":
            after, process, _ = self.append(world, i, events.publish_late(process.slot, process.held, 1))
            yield f"{i} PUBLISH_LATE", after.put(i, process._replace(at="over", held=0))

    def consumer(self, world: World, i: int, process: Ender) -> Iterator[tuple[str, World]]:
        returned, delivered, rings = world.account
        if process.at == "idle" and process.left:
            after, process, items = self.append(world, i, events.claim(process.slot))
            if isinstance(items, range):
                if items.start in delivered:
                    raise Violation("twice", f"item {items.start}")
                process = process._replace(at="done", left=process.left - 1)
                yield f"{i} CLAIM", after.put(i, process, account=(returned, delivered | {items.start}, rings))
        elif process.at == "done":
            after, process, unfinished = self.append(world, i, events.task_done())
            if unfinished is None:
                raise Violation("count", f"{i} has finished an item that does not count")
            process = process._replace(at="idle" if unfinished or "ring" in self.without else "rings")
            yield f"{i} TASK_DONE", after.put(i, process)
        elif process.at == "rings":
            rings += loaded(world, process, self.CELL)
            yield f"{i} rings", world.put(i, process._replace(at="idle"), account=(returned, delivered, rings))

    def shutter(self, world: World, i: int, process: Ender) -> Iterator[tuple[str, World]]:
        if process.at == "idle":
            after, process, _ = self.append(world, i, events.shutdown(self.immediate))
            process = process._replace(at="rings" if not self.rules.view(after.journal).unfinished else "left")
            yield f"{i} SHUTDOWN", after.put(i, process)
        elif process.at == "rings":
            returned, delivered, rings = world.account
            rings += loaded(world, process, self.CELL)
            yield f"{i} rings", world.put(i, process._replace(at="left"), account=(returned, delivered, rings))

    def joiner(self, world: World, i: int, process: Ender) -> Iterator[tuple[str, World]]:
        returned, delivered, rings = world.account
        view = self.rules.view(world.journal)
        if process.at == "idle":
            after = stored(process, (self.CELL, 1))._replace(at="looks" if "barrier" in self.without else "fence")
            yield f"{i} sets its cell", world.put(i, after)
        elif process.at == "fence" and not process.buffer:
            yield f"{i} has passed its barrier", world.put(i, process._replace(at="looks"))
        elif process.at == "looks":
            if view.unfinished and not view.completions:
                yield f"{i} sleeps", world.put(i, process._replace(at="asleep"))
            else:
                yield f"{i} has joined", world.put(i, process._replace(at="left", buffer=()))
        elif process.at == "asleep" and rings:
            account = returned, delivered, rings - 1
            yield f"{i} wakes up", world.put(i, process._replace(at="looks"), account=account)

    def settled(self, world: World) -> None:
        returned, delivered, _ = world.account
        view = self.rules.view(world.journal)
        held = sum(process.held for process in world.processes if process.at == "dead")
        if not self.immediate and view.tail != returned - held:
            raise Violation("lost", f"{returned} were put, {view.tail} came, with {held} in dead hands")
        if not view.finished <= view.tail:
            raise Violation("count", f"{view.finished} of {view.tail} are finished")
        if view.shut == 2 and view.unfinished:
            raise Violation("unfinished", f"{view.unfinished} items that nobody can get any more")
        if view.shut < 2 and len(delivered) != view.head:
            raise Violation("lost", f"{sorted(delivered)} were got, the head is {view.head}")
        for i, process in enumerate(world.processes):
            if process.at == "asleep" and (not view.unfinished or view.completions):
                raise Violation("wedged", f"{i} sleeps, and all is finished")


# -- (ii) leases


class Holder(NamedTuple):
    """A consumer; an outsider, which only revokes (as a producer does that would say ``Full``); or a producer."""

    role: str = "consumer"
    left: int = 2
    """Gets, revocations or puts that it makes."""
    leases: int = 2
    """Leases that it asks for."""
    joined: bool = False
    slot: Optional[int] = None
    number: int = 0
    at: str = "get"
    buffer: Buffer = ()
    lease: Optional[Lease] = None
    """What it believes to hold."""
    position: int = 0
    item: Optional[int] = None
    """What it is about to deliver."""
    target: Optional[Lease] = None
    seen: int = 0
    waits: Optional[tuple[int, ...]] = None
    last: int = -1


class Leases(Machine):
    """LEASE and REVOKE, with a cell for the holder's position and a flag that calls it.

    The holder stores the cell, then looks at the flag; a revoker raises the flag, makes all processors see it, reads
    the cell and appends.  The account: the items that were delivered.

    Left out by name: ``membarrier``; ``flag cleared`` or ``cell cleared`` before LEASE; ``flag first``: cleared only
    after LEASE; ``contest``: a holder that sees the flag gives up; ``contest lost``: it goes on as if it had won;
    ``own cell``: all use the same cell and flag; ``look``: consumers claim without looking whether a lease stands.

    Switched by name: ``alone``: consumers lease only where there is no other."""

    def __init__(
        self,
        rules: Rules,
        processes: tuple[Holder, ...],
        without: Iterable[str] = (),
        items: int = 2,
        most: int = 99,
        kills: int = 1,
        stops: int = 1,
    ) -> None:
        super().__init__(rules, without)
        self.processes = processes
        self.items = items
        self.most = most
        self.faults = kills, stops

    def start(self) -> World:
        journal = [events.join(False), events.open_(0, 0)]
        journal += [events.publish(0, 1, 1)] * self.items
        ready = []
        for process in self.processes:
            if process.joined:
                slot = sum(other.joined for other in ready) + 1
                process = process._replace(slot=slot, number=slot)
                journal.append(events.join(True))
            ready.append(process)
        slots = sum(process.role != "outsider" for process in self.processes) + 1
        return World(self.rules.begin(0, journal), (0,) * 2 * slots, tuple(ready), *self.faults, frozenset())

    def cell(self, slot: int) -> int:
        """Where a consumer's position stands in memory."""
        return 0 if "own cell" in self.without else 2 * slot

    def flag(self, slot: int) -> int:
        return self.cell(slot) + 1

    def may_lease(self, process: Holder, view: Ledger) -> bool:
        return process.leases > 0 and (view.consumers == 1 or "alone" not in self.without)

    def mortal(self, process: Holder) -> bool:
        return process.role != "producer"

    def acts(self, world: World, i: int, process: Holder) -> Iterator[tuple[str, World]]:
        if process.role == "producer":
            if process.left:
                after, process, _ = self.append(world, i, events.publish(0, 1, 1))
                yield f"{i} PUBLISH", after.put(i, process._replace(left=process.left - 1))
        else:
            yield from getattr(self, "at_" + process.at)(world, i, process)

    def at_get(self, world: World, i: int, process: Holder) -> Iterator[tuple[str, World]]:
        view = self.rules.view(world.journal)
        if not process.left:
            yield from self.retire(world, i, process)
        elif process.role == "outsider":
            if view.lease:
                process = process._replace(at="raise", target=view.lease, left=process.left - 1)
                yield f"{i} wants lease {view.lease.number} ended", world.put(i, process)
        elif process.lease:
            yield from self.next_of_lease(world, i, process, process.lease, view)
        elif process.slot is None:
            after, process, slot = self.append(world, i, events.join(True))
            number = self.rules.view(after.journal).members[slot].number
            yield f"{i} JOIN", after.put(i, process._replace(slot=slot, number=number))
        else:
            if view.lease:
                wants = process._replace(at="raise", target=view.lease)
                yield f"{i} wants lease {view.lease.number} ended", world.put(i, wants)
            elif view.head < view.tail and self.may_lease(process, view):
                yield f"{i} wants a lease", world.put(i, process._replace(at="clear", leases=process.leases - 1))
            if (view.head < view.tail and not view.lease) or "look" in self.without:
                yield f"{i} wants to claim", world.put(i, process._replace(at="claim"))

    def retire(self, world: World, i: int, process: Holder) -> Iterator[tuple[str, World]]:
        """First the lease, then the slot."""
        if process.lease:
            event = events.revoke(process.position - process.lease.first, process.lease.number)
            after, process, _ = self.append(world, i, event)
            yield f"{i} gives its lease back", after.put(i, process._replace(lease=None))
        elif process.slot is not None:
            after, process, _ = self.append(world, i, events.leave(process.slot, process.number))
            yield f"{i} LEAVE", after.put(i, process._replace(slot=None, at="left"))
        else:
            yield f"{i} quits", world.put(i, process._replace(at="left"))

    def next_of_lease(
        self, world: World, i: int, process: Holder, lease: Lease, view: Ledger
    ) -> Iterator[tuple[str, World]]:
        if process.position < lease.end:
            item = process.position
            process = stored(process, (self.cell(lease.slot), item + 1))
            yield f"{i} stores {item + 1}", world.put(i, process._replace(at="look", item=item, position=item + 1))
        elif view.lease is None or view.lease.number != lease.number:
            yield f"{i} has lost its lease", world.put(i, process._replace(lease=None))
        elif view.head >= view.tail:
            return  # waits
        elif self.may_lease(process, view):
            yield f"{i} wants a new lease", world.put(i, process._replace(at="clear", leases=process.leases - 1))
        else:
            after, process, _ = self.append(world, i, events.revoke(lease.end - lease.first, lease.number))
            yield f"{i} ends its lease", after.put(i, process._replace(lease=None))

    def at_claim(self, world: World, i: int, process: Holder) -> Iterator[tuple[str, World]]:
        assert process.slot is not None
        after, process, items = self.append(world, i, events.claim(process.slot))
        if items:
            yield f"{i} CLAIM of {items[0]}", after.put(i, process._replace(at="hand", item=items[0]))
        else:
            yield f"{i} CLAIM, void", after.put(i, process._replace(at="get"))

    def at_clear(self, world: World, i: int, process: Holder) -> Iterator[tuple[str, World]]:
        assert process.slot is not None
        stores = []
        if not self.without & {"flag cleared", "flag first"}:
            stores.append((self.flag(process.slot), 0))
        if "cell cleared" not in self.without:
            stores.append((self.cell(process.slot), self.rules.view(world.journal).head))
        yield f"{i} clears", world.put(i, stored(process, *stores)._replace(at="lease"))

    def at_lease(self, world: World, i: int, process: Holder) -> Iterator[tuple[str, World]]:
        assert process.slot is not None
        after, process, lease = self.append(world, i, events.lease(process.slot, self.most))
        if lease:
            process = process._replace(lease=lease, position=lease.first)
            if "flag first" in self.without:
                process = stored(process, (self.flag(process.slot), 0))
        yield f"{i} LEASE: {lease}", after.put(i, process._replace(at="get"))

    def at_look(self, world: World, i: int, process: Holder) -> Iterator[tuple[str, World]]:
        assert process.lease is not None
        if not loaded(world, process, self.flag(process.lease.slot)):
            yield f"{i} sees the flag down", world.put(i, process._replace(at="hand"))
        elif "contest" in self.without:
            yield f"{i} sees the flag up", world.put(i, process._replace(at="get", lease=None, item=None))
        else:
            yield f"{i} sees the flag up", world.put(i, process._replace(at="contest"))

    def at_contest(self, world: World, i: int, process: Holder) -> Iterator[tuple[str, World]]:
        lease, item = process.lease, process.item
        assert lease is not None
        assert item is not None
        after, process, _ = self.append(world, i, events.revoke(item + 1 - lease.first, lease.number))
        assert process.slot is not None
        number, base = self.rules.view(after.journal).kept.get(process.slot, (0, 0))
        if number != lease.number:
            raise Violation("forgotten", f"where lease {lease.number} ended is not known to its holder")
        mine = base > item or "contest lost" in self.without
        process = process._replace(lease=None, at="hand" if mine else "get", item=item if mine else None)
        yield f"{i} contests for {item}", after.put(i, process)

    def at_hand(self, world: World, i: int, process: Holder) -> Iterator[tuple[str, World]]:
        item = process.item
        assert item is not None
        if item in world.account:
            raise Violation("twice", f"item {item}")
        if item <= process.last:
            raise Violation("order", f"item {item} after {process.last}")
        process = process._replace(at="get", item=None, last=item, left=process.left - 1)
        yield f"{i} gets {item}", world.put(i, process, account=world.account | {item})

    def at_raise(self, world: World, i: int, process: Holder) -> Iterator[tuple[str, World]]:
        assert process.target is not None
        process = stored(process, (self.flag(process.target.slot), 1))
        yield f"{i} raises the flag", world.put(i, process._replace(at="barrier"))

    def at_barrier(self, world: World, i: int, process: Holder) -> Iterator[tuple[str, World]]:
        yield from self.barrier(world, i, process, "read")

    def at_read(self, world: World, i: int, process: Holder) -> Iterator[tuple[str, World]]:
        assert process.target is not None
        seen = loaded(world, process, self.cell(process.target.slot))
        yield f"{i} reads {seen}", world.put(i, process._replace(at="revoke", seen=seen))

    def at_revoke(self, world: World, i: int, process: Holder) -> Iterator[tuple[str, World]]:
        lease = process.target
        assert lease is not None
        count = min(max(0, process.seen - lease.first), events.LEASE_MOST)
        after, process, base = self.append(world, i, events.revoke(count, lease.number))
        for j, other in enumerate(after.processes):
            held = other.lease is not None and other.lease.number == lease.number and other.at == "get"
            if base is not None and held and other.position < base:
                raise Violation("held", f"item {other.position} is {j}'s, which is not delivering it")
        yield f"{i} REVOKE: {base}", after.put(i, process._replace(at="get", target=None, seen=0))

    def settled(self, world: World) -> None:
        view = self.rules.view(world.journal)
        low = view.head
        if view.lease:
            low = min(max(view.lease.first, world.memory[self.cell(view.lease.slot)]), view.lease.end)
        consumers = [process for process in world.processes if process.role == "consumer"]
        hands = sum(process.at in ("dead", "stopped") for process in consumers)
        missing = set(range(view.tail)) - world.account
        if any(process.at == "get" and process.left for process in consumers):
            if len(missing) > hands:
                raise Violation("lost", f"items {sorted(missing)} can't be got, with {hands} hands dead or stopped")
        elif len(missing - set(range(low, view.tail))) > hands:
            raise Violation("lost", f"of items {sorted(missing)} only those from {low} are there, with {hands} hands")


# -- (iii) reservations


class Putter(NamedTuple):
    """A producer that reserves ``places`` at a time (0: publishes one by one), one that puts ``bulk`` items in pieces
    or not at all, or a consumer.  A newcomer joins when a slot is free."""

    role: str = "producer"
    left: int = 2
    places: int = 0
    bulk: int = 0
    many: int = 0
    """Puts of more than its reservation that it tries as one."""
    newcomer: bool = False
    slot: int = -1
    number: int = -1
    at: str = "idle"
    buffer: Buffer = ()
    ready: int = 0
    """Records in its own memory; the puts of all of them, or of all but the one at hand, have returned."""
    room: int = 0
    grant: int = 0
    target: Optional[tuple[int, int]] = None
    """A slot and a grant to be trimmed, or a slot and a member to be reported dead."""
    seen: int = 0
    waits: Optional[tuple[int, ...]] = None


class Reservations(Machine):
    """RESERVE, TRIM and PUBLISH in a bounded queue.

    A put has returned when its record is in the buffer and counted in the cell, with the flag down.  So that record's
    PUBLISH must not be void; and nobody may see ``Full`` for good while places are in nobody's use.

    Left out by name: ``membarrier``; ``flag cleared``, ``cell cleared`` before RESERVE; ``flag first``: cleared only
    after RESERVE; ``contest``: a producer that sees the flag goes on as if its place were kept."""

    def __init__(
        self,
        rules: Rules,
        processes: tuple[Putter, ...],
        without: Iterable[str] = (),
        maxsize: int = 3,
        kills: int = 1,
        stops: int = 1,
    ) -> None:
        super().__init__(rules, without)
        self.processes = processes
        self.maxsize = maxsize
        self.faults = kills, stops

    def start(self) -> World:
        journal = []
        ready = []
        for process in self.processes:
            if process.newcomer:
                process = process._replace(at="join")
            elif process.role == "producer":
                slot = len(journal) // 2
                process = process._replace(slot=slot, number=slot)
                journal += [events.join(False), events.open_(slot, 0)]
            ready.append(process)
        memory = (0,) * (2 * len(self.processes))
        return World(self.rules.begin(self.maxsize, journal), memory, tuple(ready), *self.faults)

    def mortal(self, process: Putter) -> bool:
        return process.role == "producer"

    def append(self, world: World, i: int, event: bytes) -> tuple[World, Any, Verdict]:
        after, process, verdict = super().append(world, i, event)
        view = self.rules.view(after.journal)
        if view.used > self.maxsize or view.tail - view.low > self.maxsize:
            raise Violation("bound", f"{view.used} of {self.maxsize} places taken")
        return after, process, verdict

    def acts(self, world: World, i: int, process: Putter) -> Iterator[tuple[str, World]]:
        if process.role == "consumer":
            view = self.rules.view(world.journal)
            if view.head < view.tail:
                after, _, _ = self.append(world, i, events.claim(9))
                yield f"{i} CLAIM", after
        else:
            yield from getattr(self, "at_" + process.at)(world, i, process)

    def at_join(self, world: World, i: int, process: Putter) -> Iterator[tuple[str, World]]:
        if self.rules.view(world.journal).free:
            after, process, slot = self.append(world, i, events.join(False))
            number = self.rules.view(after.journal).members[slot].number
            after = after.put(i, process._replace(slot=slot, number=number, at="idle"))
            after, process, _ = self.append(after, i, events.open_(slot, 0))
            yield f"{i} JOIN, OPEN", after

    def at_idle(self, world: World, i: int, process: Putter) -> Iterator[tuple[str, World]]:
        if process.bulk:
            if process.left:
                yield f"{i} clears", self.cleared(world, i, process, process.bulk)
            return
        if process.ready:
            yield from self.publish(world, i, process)
        if process.many and process.room:
            count = process.room + 1
            after, process_, first = self.append(world, i, events.publish(process.slot, count, 1))
            process_ = process_._replace(many=process.many - 1)
            if first is not None:
                process_ = process_._replace(ready=0, room=0)
            yield f"{i} PUBLISH of {count} at once: {first}", after.put(i, process_)
        if process.left:
            if process.room > process.ready:
                ready = process.ready + 1
                process = stored(process, (2 * process.slot, ready))
                yield f"{i} buffers and stores {ready}", world.put(i, process._replace(ready=ready, at="look"))
            elif not process.ready and process.places and not process.room:
                yield f"{i} clears", self.cleared(world, i, process, 0)
            elif not process.ready:
                yield f"{i} puts one", world.put(i, process._replace(at="one"))
        elif process.room and not process.ready:
            after, process, _ = self.append(world, i, events.publish(process.slot, 0, 0))
            yield f"{i} gives its places back", after.put(i, process._replace(room=0))

    def cleared(self, world: World, i: int, process: Putter, cell: int) -> World:
        stores = []
        if "cell cleared" not in self.without:
            stores.append((2 * process.slot, cell))
        if not self.without & {"flag cleared", "flag first"}:
            stores.append((2 * process.slot + 1, 0))
        return world.put(i, stored(process, *stores)._replace(at="reserve"))

    def publish(self, world: World, i: int, process: Putter) -> Iterator[tuple[str, World]]:
        after, process, first = self.append(world, i, events.publish(process.slot, process.ready, 1))
        if first is None:
            raise Violation("void", f"PUBLISH of {process.ready} by {i}, though its puts had returned")
        yield f"{i} PUBLISH of {process.ready}", after.put(i, process._replace(ready=0, room=0))

    def at_reserve(self, world: World, i: int, process: Putter) -> Iterator[tuple[str, World]]:
        after, process, own = self.append(world, i, events.reserve(process.slot, process.bulk or process.places))
        if process.bulk:
            process = process._replace(at="piece" if own else "idle", ready=process.bulk if own else 0)
            if not own:
                process = process._replace(left=0)  # Full: nothing is left behind
        elif own:
            process = process._replace(at="idle", room=own.places, grant=own.grant)
            if "flag first" in self.without:
                process = stored(process, (2 * process.slot + 1, 0))
        else:
            process = process._replace(at="one")
        yield f"{i} RESERVE: {own}", after.put(i, process)

    def at_piece(self, world: World, i: int, process: Putter) -> Iterator[tuple[str, World]]:
        """One item a piece, ``more`` with all but the last."""
        event = events.publish(process.slot, 1, 1, process.ready > 1)
        after, process, first = self.append(world, i, event)
        if first is None:
            raise Violation("torn", f"{process.ready} of {process.bulk} items of one put found no place")
        process = process._replace(ready=process.ready - 1, at="piece" if process.ready > 1 else "idle")
        if process.at == "idle":
            process = process._replace(left=process.left - 1)
        yield f"{i} PUBLISH of a piece", after.put(i, process)

    def at_look(self, world: World, i: int, process: Putter) -> Iterator[tuple[str, World]]:
        if not loaded(world, process, 2 * process.slot + 1) or "contest" in self.without:
            yield f"{i} goes on", world.put(i, process._replace(at="idle", left=process.left - 1))
        else:
            yield f"{i} sees the flag up", world.put(i, process._replace(at="cut"))

    def at_cut(self, world: World, i: int, process: Putter) -> Iterator[tuple[str, World]]:
        after, process, _ = self.append(world, i, events.trim(process.slot, process.ready, process.grant))
        own = self.rules.view(after.journal).res.get(process.slot)
        kept = own.places if own else 0
        if kept >= process.ready:
            process = process._replace(at="idle", room=kept, left=process.left - 1)
        else:
            process = process._replace(at="idle", room=kept, ready=process.ready - 1)
        yield f"{i} TRIM of its own, {kept} kept", after.put(i, process)

    def at_one(self, world: World, i: int, process: Putter) -> Iterator[tuple[str, World]]:
        after, process, first = self.append(world, i, events.publish(process.slot, 1, 1))
        if first is None:
            yield f"{i} PUBLISH, void", after.put(i, process._replace(at="full"))
        else:
            yield f"{i} PUBLISH", after.put(i, process._replace(at="idle", left=process.left - 1))

    def at_full(self, world: World, i: int, process: Putter) -> Iterator[tuple[str, World]]:
        view = self.rules.view(world.journal)
        if view.used < view.maxsize:
            yield f"{i} tries again", world.put(i, process._replace(at="one"))
        for j, other in enumerate(world.processes):
            own = view.res.get(other.slot)
            member = view.members.get(other.slot)
            if j == i or own is None or member is None or member.number != other.number:
                continue
            if other.at == "dead":
                found = process._replace(at="bury", target=(other.slot, other.number))
                yield f"{i} finds {j} dead", world.put(i, found)
            elif not own.cut:
                wants = process._replace(at="raise", target=(other.slot, own.grant))
                yield f"{i} wants {j}'s places", world.put(i, wants)

    def at_bury(self, world: World, i: int, process: Putter) -> Iterator[tuple[str, World]]:
        assert process.target is not None
        after, process, slot = self.append(world, i, events.leave(*process.target))
        yield f"{i} LEAVE for the dead: {slot}", after.put(i, process._replace(at="full", target=None))

    def at_raise(self, world: World, i: int, process: Putter) -> Iterator[tuple[str, World]]:
        assert process.target is not None
        raised = stored(process, (2 * process.target[0] + 1, 1))
        yield f"{i} raises the flag", world.put(i, raised._replace(at="barrier"))

    def at_barrier(self, world: World, i: int, process: Putter) -> Iterator[tuple[str, World]]:
        yield from self.barrier(world, i, process, "read")

    def at_read(self, world: World, i: int, process: Putter) -> Iterator[tuple[str, World]]:
        assert process.target is not None
        seen = loaded(world, process, 2 * process.target[0])
        yield f"{i} reads {seen}", world.put(i, process._replace(at="trim", seen=seen))

    def at_trim(self, world: World, i: int, process: Putter) -> Iterator[tuple[str, World]]:
        assert process.target is not None
        slot, grant = process.target
        after, process, own = self.append(world, i, events.trim(slot, process.seen, grant))
        yield f"{i} TRIM: {own}", after.put(i, process._replace(at="full", target=None, seen=0))

    def settled(self, world: World) -> None:
        view = self.rules.view(world.journal)
        in_use = view.tail - view.low + sum(process.ready for process in world.processes if process.at != "dead")
        if any(process.at == "full" for process in world.processes) and in_use < self.maxsize:
            raise Violation("full", f"for good, with {in_use} of {self.maxsize} places in use")


# -- (iv) batch files

LOAD: Final = "load"
READY: Final = "ready"
PROGRESS: Final = 0
"""Memory: how far the lease has got, its flag, then the position cell of each slot."""
POSITION: Final = 2


class Filler(NamedTuple):
    """The producer: one file an item, refilled from files of its own that are done."""

    items: int = 3
    recycles: bool = True
    slot: int = 0
    number: int = 0
    at: str = "idle"
    buffer: Buffer = ()
    serial: int = -1
    inode: int = -1
    target: int = -1
    cell: int = 1


class Remover(NamedTuple):
    """Whoever deletes files that are done; here no member, and without an end."""

    at: str = "pick"
    buffer: Buffer = ()
    slot: int = -1
    number: int = -1
    target: int = -1
    cell: int = 1
    seen: tuple[int, ...] = ()


class Reader(NamedTuple):
    """A consumer that claims, one that leases, or an outsider that revokes a lease.  ``late``: it reads when it has
    told all that it is done, with a lock on the file until then, which ends when it is killed."""

    role: str = "claimer"
    left: int = 2
    late: bool = False
    locked: bool = False
    slot: int = -1
    number: int = -1
    at: str = "idle"
    buffer: Buffer = ()
    item: int = -1
    file: int = -1
    inode: int = -1
    lease: Optional[Lease] = None
    position: int = 0
    target: Optional[Lease] = None
    seen: int = 0
    waits: Optional[tuple[int, ...]] = None


class Files(NamedTuple):
    """The account of ``Batches``: names and what they lead to, contents, and who claimed what where."""

    names: frozenset[tuple[str, int, int]]
    """State, serial, inode."""
    inodes: tuple[int, ...] = ()
    """The item that stands in each."""
    homes: tuple[int, ...] = ()
    """By item: its file's serial."""
    taken: frozenset[tuple[int, int, int]] = frozenset()
    """Items that were claimed: the item, the position of its CLAIM in the journal, and whose it is."""

    def find(self, state: str, serial: int) -> Optional[int]:
        for name in self.names:
            if name[:2] == (state, serial):
                return name[2]
        return None

    def renamed(self, old: tuple[str, int], new: tuple[str, int]) -> Files:
        inode = self.find(*old)
        assert inode is not None
        kept = {name for name in self.names if name[:2] not in (old, new)}
        return self._replace(names=frozenset(kept | {(*new, inode)}))

    def unlinked(self, name: tuple[str, int]) -> Files:
        return self._replace(names=frozenset(other for other in self.names if other[:2] != name))


class Batches(Machine):
    """When a batch file may go, or be filled again under a new name.

    A reader's cell holds a position of the journal from before its CLAIM until it has read the payload; of a leased
    item it holds the item.  Whoever wants a done file looks at the journal first, then at each cell; the rename or the
    unlink decides.

    Left out by name: ``cell``; ``cell first``: set after the CLAIM; ``cell until read``: cleared before the reading;
    ``lock``: of those who read late; ``cell under lease``; ``journal first``: the cells are read before the journal;
    ``load first``: a reader tries ``ready_``, then ``load_``; ``new name``: refilled under the name that it had;
    ``rename decides``."""

    def __init__(self, rules: Rules, processes: tuple[Any, ...], without: Iterable[str] = (), kills: int = 1) -> None:
        super().__init__(rules, without)
        self.processes = processes
        self.kills = kills

    def start(self) -> World:
        journal = []
        ready = []
        for process in self.processes:
            if isinstance(process, Filler) or (isinstance(process, Reader) and process.role != "outsider"):
                process = process._replace(slot=len(journal), number=len(journal))
                journal.append(events.join(isinstance(process, Reader)))
            ready.append(process)
        memory = (0,) * (POSITION + len(journal))
        state = self.rules.begin(0, journal)
        return World(state, memory, tuple(ready), self.kills, 0, Files(frozenset()))

    def mortal(self, process: Any) -> bool:
        return not isinstance(process, Remover)

    def acts(self, world: World, i: int, process: Any) -> Iterator[tuple[str, World]]:
        kind = type(process).__name__.lower()
        yield from getattr(self, f"{kind}_{process.at}")(world, i, process)

    def file(self, serial: int) -> FileId:
        return FileId(0, serial)

    def done(self, world: World, state: str) -> list[int]:
        """Serials of files with a name of that state that are done."""
        view = self.rules.view(world.journal)
        found = {name[1] for name in world.account.names if name[0] == state}
        return [serial for serial in sorted(found) if view.is_done(self.file(serial))]

    def pinned(self, world: World, serial: int, slot: int, cell: int) -> bool:
        """The member of that slot, whose cell holds that, may be about to read the file."""
        if not cell or slot not in self.rules.view(world.journal).members:
            return False
        files = world.account
        if cell & 1:
            return any(home == serial and item >= cell // 2 - 1 for item, home in enumerate(files.homes))
        return any(
            files.homes[item] == serial and owner == slot and position >= cell // 2 - 1
            for item, position, owner in files.taken
        )

    def check(self, world: World, i: int, process: Any, then: str, back: str) -> Iterator[tuple[str, World]]:
        """Look at one cell.  Slot 0 is the producer's, which claims nothing."""
        slot = process.cell
        if slot + POSITION >= len(world.memory):
            yield f"{i} finds {process.target} free", world.put(i, process._replace(at=then, cell=1))
        elif self.pinned(world, process.target, slot, world.memory[POSITION + slot]) and "cell" not in self.without:
            yield f"{i} finds {process.target} pinned", world.put(i, process._replace(at=back, cell=1, target=-1))
        else:
            yield f"{i} looks at cell {slot}", world.put(i, process._replace(cell=slot + 1))

    # -- filling

    def filler_idle(self, world: World, i: int, process: Filler) -> Iterator[tuple[str, World]]:
        if process.serial + 1 < process.items:
            again = self.done(world, READY) if "new name" in self.without else []
            for serial in again:
                after, filler, _ = self.append(world, i, events.open_(process.slot, serial))
                filler = filler._replace(at="check", target=serial, serial=process.serial + 1)
                yield f"{i} OPEN {serial} again", after.put(i, filler)
            after, filler, _ = self.append(world, i, events.open_(process.slot, process.serial + 1))
            yield f"{i} OPEN {filler.serial + 1}", after.put(i, filler._replace(at="seal", serial=filler.serial + 1))
        else:
            after, filler, _ = self.append(world, i, events.leave(process.slot, process.number))
            yield f"{i} LEAVE", after.put(i, filler._replace(at="seal", serial=filler.serial + 1))

    def filler_seal(self, world: World, i: int, process: Filler) -> Iterator[tuple[str, World]]:
        files = world.account
        former = process.serial - 1
        if files.find(LOAD, former) is not None:
            files = files.renamed((LOAD, former), (READY, former))
        at = "opened" if process.serial < process.items else "left"
        yield f"{i} seals {former}", world.put(i, process._replace(at=at), account=files)

    def filler_opened(self, world: World, i: int, process: Filler) -> Iterator[tuple[str, World]]:
        files = world.account
        inode = len(files.inodes)
        made = files._replace(names=files.names | {(LOAD, process.serial, inode)}, inodes=(*files.inodes, -1))
        yield f"{i} makes {process.serial}", world.put(i, process._replace(at="write", inode=inode), account=made)
        if process.recycles:
            for serial in self.done(world, READY):
                yield f"{i} wants {serial}", world.put(i, process._replace(at="check", target=serial))

    def filler_check(self, world: World, i: int, process: Filler) -> Iterator[tuple[str, World]]:
        yield from self.check(world, i, process, "rename", "opened")

    def filler_rename(self, world: World, i: int, process: Filler) -> Iterator[tuple[str, World]]:
        files, old = world.account, process.target
        inode = files.find(READY, old)
        readers = [other for other in world.processes if isinstance(other, Reader) and other.at != "dead"]
        if any(reader.locked and reader.inode == inode for reader in readers) and "lock" not in self.without:
            yield f"{i} finds {old} locked", world.put(i, process._replace(at="opened", target=-1))
            return
        if inode is None and "rename decides" not in self.without:
            yield f"{i} finds {old} gone", world.put(i, process._replace(at="opened", target=-1))
            return
        if inode is None:
            inode = old  # by a descriptor that it has kept; in this case the first files are the first inodes
        else:
            files = files.renamed((READY, old), (LOAD, old if "new name" in self.without else process.serial))
        process = process._replace(at="write", inode=inode, target=-1)
        yield f"{i} takes {old} for {process.serial}", world.put(i, process, account=files)

    def filler_write(self, world: World, i: int, process: Filler) -> Iterator[tuple[str, World]]:
        files, at = world.account, process.inode
        item = self.rules.view(world.journal).tail
        files = files._replace(inodes=(*files.inodes[:at], item, *files.inodes[at + 1 :]))
        yield f"{i} writes {item}", world.put(i, process._replace(at="publish"), account=files)

    def filler_publish(self, world: World, i: int, process: Filler) -> Iterator[tuple[str, World]]:
        after, process, item = self.append(world, i, events.publish(process.slot, 1, 1))
        files = world.account
        files = files._replace(homes=(*files.homes, self.rules.view(world.journal).files[process.slot][0].serial))
        yield f"{i} PUBLISH of {item}", after.put(i, process._replace(at="idle"), account=files)

    # -- removing

    def remover_pick(self, world: World, i: int, process: Remover) -> Iterator[tuple[str, World]]:
        if "journal first" in self.without:
            if world.account.names:
                yield f"{i} looks at all cells", world.put(i, process._replace(seen=world.memory[POSITION:]))
            if not process.seen:
                return
        for serial in sorted({*self.done(world, LOAD), *self.done(world, READY)}):
            if process.seen:
                slots = range(len(process.seen))
                if not any(self.pinned(world, serial, slot, process.seen[slot]) for slot in slots):
                    yield f"{i} wants {serial}", world.put(i, process._replace(at="load", target=serial, seen=()))
            else:
                yield f"{i} wants {serial}", world.put(i, process._replace(at="check", target=serial))

    def remover_check(self, world: World, i: int, process: Remover) -> Iterator[tuple[str, World]]:
        yield from self.check(world, i, process, "load", "pick")

    def remover_load(self, world: World, i: int, process: Remover) -> Iterator[tuple[str, World]]:
        yield from self.unlink(world, i, process, LOAD, "ready")

    def remover_ready(self, world: World, i: int, process: Remover) -> Iterator[tuple[str, World]]:
        yield from self.unlink(world, i, process, READY, "pick")

    def unlink(self, world: World, i: int, process: Remover, state: str, then: str) -> Iterator[tuple[str, World]]:
        files, serial = world.account, process.target
        if files.find(state, serial) is None:
            process = process._replace(at=then, target=serial if then == "ready" else -1)
            yield f"{i} finds no {state}_{serial}", world.put(i, process)
        else:
            process = process._replace(at="pick", target=-1)
            yield f"{i} unlinks {state}_{serial}", world.put(i, process, account=files.unlinked((state, serial)))

    # -- reading

    def take(self, world: World, first: int, end: int, slot: int) -> World:
        """Note whose these items are by the newest event."""
        position = self.rules.view(world.journal).index - 1
        taken = world.account.taken | {(item, position, slot) for item in range(first, end)}
        return world._replace(account=world.account._replace(taken=taken))

    def reader_idle(self, world: World, i: int, process: Reader) -> Iterator[tuple[str, World]]:
        view = self.rules.view(world.journal)
        if not process.left:
            return
        if process.role == "outsider":
            if view.lease:
                process = process._replace(at="raise", target=view.lease, left=process.left - 1)
                yield f"{i} wants lease {view.lease.number} ended", world.put(i, process)
        elif process.lease:
            yield from self.next_of_lease(world, i, process, process.lease)
        elif process.role == "leaser" and view.head < view.tail and not view.lease:
            cleared = stored(process, (PROGRESS, view.head), (PROGRESS + 1, 0))
            yield f"{i} clears", world.put(i, cleared._replace(at="lease"))
        elif process.role == "claimer" and view.head < view.tail and not view.lease:
            process = process._replace(at="claim")
            if "cell first" not in self.without:
                process = stored(process, (POSITION + process.slot, 2 * (view.index + 1)))
            yield f"{i} stores its position", world.put(i, process)

    def reader_claim(self, world: World, i: int, process: Reader) -> Iterator[tuple[str, World]]:
        after, process, items = self.append(world, i, events.claim(process.slot))
        if not isinstance(items, range):
            process = stored(process, (POSITION + process.slot, 0))
            yield f"{i} CLAIM, void", after.put(i, process._replace(at="idle"))
            return
        item = items[0]
        process = process._replace(at="open", item=item, file=self.rules.view(world.journal).block(item).file.serial)
        after = self.take(after, item, item + 1, process.slot)
        if "cell first" in self.without:
            process = process._replace(at="late")
        yield f"{i} CLAIM of {item}", after.put(i, process)

    def reader_late(self, world: World, i: int, process: Reader) -> Iterator[tuple[str, World]]:
        position = next(position for item, position, _ in world.account.taken if item == process.item)
        process = stored(process, (POSITION + process.slot, 2 * (position + 1)))
        yield f"{i} stores its position late", world.put(i, process._replace(at="open"))

    def reader_lease(self, world: World, i: int, process: Reader) -> Iterator[tuple[str, World]]:
        after, process, lease = self.append(world, i, events.lease(process.slot, 99))
        process = process._replace(at="idle")
        if isinstance(lease, Lease):
            process = process._replace(lease=lease, position=lease.first)
        yield f"{i} LEASE: {lease}", after.put(i, process)

    def next_of_lease(self, world: World, i: int, process: Reader, lease: Lease) -> Iterator[tuple[str, World]]:
        view = self.rules.view(world.journal)
        if process.position < lease.end:
            item = process.position
            if "cell under lease" not in self.without:
                process = stored(process, (POSITION + process.slot, 2 * (item + 1) + 1))
            process = stored(process, (PROGRESS, item + 1))._replace(at="look", item=item, position=item + 1)
            yield f"{i} stores {item + 1}", world.put(i, process)
        elif view.lease and view.lease.number == lease.number:
            event = events.revoke(lease.end - lease.first, lease.number)
            yield from self.end_lease(world, i, process, event, lease, "ends its lease")
        else:
            yield f"{i} has lost its lease", world.put(i, process._replace(lease=None))

    def end_lease(
        self, world: World, i: int, process: Reader, event: bytes, lease: Lease, what: str
    ) -> Iterator[tuple[str, World]]:
        after, process, base = self.append(world, i, event)
        if isinstance(base, int):
            after = self.take(after, lease.first, base, lease.slot)
        own = process.lease is not None
        process = process._replace(lease=None, target=None, seen=0, at="idle")
        if own and process.item >= 0:
            mine = self.rules.view(after.journal).kept[lease.slot][1] > process.item
            process = self.opening(world, process) if mine else process._replace(item=-1)
        yield f"{i} {what}: {base}", after.put(i, process)

    def opening(self, world: World, process: Reader) -> Reader:
        """Go on to the file of a leased item, which its holder has known since its LEASE."""
        return process._replace(at="open", file=world.account.homes[process.item])

    def reader_look(self, world: World, i: int, process: Reader) -> Iterator[tuple[str, World]]:
        if loaded(world, process, PROGRESS + 1):
            yield f"{i} sees the flag up", world.put(i, process._replace(at="contest"))
        else:
            yield f"{i} sees the flag down", world.put(i, self.opening(world, process))

    def reader_contest(self, world: World, i: int, process: Reader) -> Iterator[tuple[str, World]]:
        lease = process.lease
        assert lease is not None
        event = events.revoke(process.item + 1 - lease.first, lease.number)
        yield from self.end_lease(world, i, process, event, lease, f"contests for {process.item}")

    def reader_open(self, world: World, i: int, process: Reader) -> Iterator[tuple[str, World]]:
        state = READY if "load first" in self.without else LOAD
        inode = world.account.find(state, process.file)
        at = "again" if inode is None else "lock" if process.late else "read"
        process = process._replace(at=at, inode=-1 if inode is None else inode)
        if "cell until read" in self.without:
            process = stored(process, (POSITION + process.slot, 0))
        yield f"{i} opens {state}_{process.file}: {inode}", world.put(i, process)

    def reader_again(self, world: World, i: int, process: Reader) -> Iterator[tuple[str, World]]:
        state = LOAD if "load first" in self.without else READY
        inode = world.account.find(state, process.file)
        if inode is None:
            raise Violation("missing", f"file {process.file} with item {process.item} has neither name")
        process = process._replace(at="lock" if process.late else "read", inode=inode)
        yield f"{i} opens {state}_{process.file}: {inode}", world.put(i, process)

    def reader_lock(self, world: World, i: int, process: Reader) -> Iterator[tuple[str, World]]:
        process = stored(process._replace(at="read", locked=True), (POSITION + process.slot, 0))
        yield f"{i} locks it and clears its cell", world.put(i, process)

    def reader_read(self, world: World, i: int, process: Reader) -> Iterator[tuple[str, World]]:
        found = world.account.inodes[process.inode]
        if found != process.item:
            raise Violation("wrong", f"item {process.item} is read as item {found}")
        process = stored(process, (POSITION + process.slot, 0))
        process = process._replace(at="idle", item=-1, file=-1, inode=-1, left=process.left - 1, locked=False)
        yield f"{i} reads {found}", world.put(i, process)

    def reader_raise(self, world: World, i: int, process: Reader) -> Iterator[tuple[str, World]]:
        yield f"{i} raises the flag", world.put(i, stored(process, (PROGRESS + 1, 1))._replace(at="barrier"))

    def reader_barrier(self, world: World, i: int, process: Reader) -> Iterator[tuple[str, World]]:
        yield from self.barrier(world, i, process, "revoke")

    def reader_revoke(self, world: World, i: int, process: Reader) -> Iterator[tuple[str, World]]:
        lease = process.target
        assert lease is not None
        event = events.revoke(max(0, loaded(world, process, PROGRESS) - lease.first), lease.number)
        yield from self.end_lease(world, i, process, event, lease, "REVOKE")

    def settled(self, world: World) -> None:
        """Whatever is done is gone, unless a stopped reader pins it (here nobody is stopped)."""
        left = {*self.done(world, LOAD), *self.done(world, READY)}
        if left:
            raise Violation("leak", f"files {sorted(left)} are done and nobody removes them")


# -- (v) rolls


class Roller(NamedTuple):
    """A process that puts or gets, one event each, and rolls when it meets the end of its journal."""

    role: str = "consumer"
    left: int = 2
    slot: int = 0
    at: str = "idle"
    inode: int = 0
    """The journal that it has open."""
    mine: int = 0
    """Where in it its newest event stands."""


class Page(NamedTuple):
    """A journal: its number, the snapshot that it begins with, and its events."""

    number: int
    snapshot: bytes
    events: tuple[bytes, ...] = ()


class Folder(NamedTuple):
    """The state of ``Rolls``."""

    pages: tuple[Page, ...]
    """Journals and prepared ones, by inode."""
    names: frozenset[tuple[str, int, int, int]]
    """Kind, number, key, inode."""
    processes: tuple[Roller, ...]
    kills: int
    got: frozenset[int] = frozenset()
    put: int = 0

    def find(self, kind: str, number: int, key: int = 0) -> Optional[int]:
        for name in self.names:
            if name[:3] == (kind, number, key):
                return name[3]
        return None

    def unlinked(self, kind: str, number: int, key: int = 0) -> Folder:
        return self._replace(names=frozenset(name for name in self.names if name[:3] != (kind, number, key)))

    def by(self, i: int, process: Roller, **changes: Any) -> Folder:
        return self._replace(processes=(*self.processes[:i], process, *self.processes[i + 1 :]), **changes)


class Rolls:
    """The end of a journal: prepare the next one, SEAL, give the decided one its name, go there.

    Left out by name: ``limit``: a roller's snapshot holds all the events that it has seen; ``seal``: each roller gives
    the name to its own journal; ``help``: only the roller whose SEAL won gives it its name.  ``old kept``: a journal
    is removed as soon as the next has its name, not one roll later."""

    def __init__(
        self,
        ledger: type[Ledger],
        processes: tuple[Roller, ...],
        without: Iterable[str] = (),
        items: int = 2,
        limit: int = 2,
        kills: int = 1,
    ) -> None:
        self.ledger = ledger
        self.processes = processes
        self.without = frozenset(without)
        self.items = items
        self.limit = limit
        self.kills = kills
        self._read: dict[tuple[bytes, tuple[bytes, ...]], tuple[Ledger, Verdict]] = {}

    def read(self, page: Page, count: int) -> tuple[Ledger, Verdict]:
        """The ledger after so many events of a journal, and what the last of them came to."""
        known = self._read.get((page.snapshot, page.events[:count]))
        if known is None:
            ledger = self.ledger.load(page.snapshot)
            verdict: Verdict = None
            for event in page.events[:count]:
                verdict = ledger.step(int.from_bytes(event, "little"))
            known = self._read[page.snapshot, page.events[:count]] = ledger, verdict
        return known

    def start(self) -> Folder:
        ledger = self.ledger(0, self.limit, self.limit)
        journal = [events.join(False), events.open_(0, 0), events.publish(0, self.items, 1)]
        ledger.limit = len(journal)
        for event in journal:
            assert ledger.step(int.from_bytes(event, "little")) is not None
        page = Page(0, ledger.snapshot(rolled=True))
        return Folder((page,), frozenset({("journal", 0, 0, 0)}), self.processes, self.kills)

    def steps(self, state: Folder) -> Iterator[tuple[str, Folder]]:
        for i, process in enumerate(state.processes):
            if process.at == "dead":
                continue
            if state.kills:
                yield f"kill {i}", state.by(i, process._replace(at="dead"), kills=state.kills - 1)
            yield from getattr(self, "at_" + process.at)(state, i, process)

    def appended(self, state: Folder, inode: int, event: bytes) -> Folder:
        page = state.pages[inode]
        page = page._replace(events=(*page.events, event))
        return state._replace(pages=(*state.pages[:inode], page, *state.pages[inode + 1 :]))

    def at_idle(self, state: Folder, i: int, process: Roller) -> Iterator[tuple[str, Folder]]:
        page = state.pages[process.inode]
        ledger, _ = self.read(page, len(page.events))
        if process.left and (process.role == "producer" or ledger.full or ledger.head < ledger.tail):
            event = events.publish(0, 1, 1) if process.role == "producer" else events.claim(9)
            after = self.appended(state, process.inode, event)
            process = process._replace(at="verdict", mine=len(page.events))
            yield f"{i} appends event {process.mine} of journal {page.number}", after.by(i, process)

    def at_verdict(self, state: Folder, i: int, process: Roller) -> Iterator[tuple[str, Folder]]:
        page = state.pages[process.inode]
        _, verdict = self.read(page, process.mine + 1)
        if verdict is None:
            at = "prepare" if process.mine >= self.limit else "idle"
            yield f"{i} was void", state.by(i, process._replace(at=at, mine=0))
        elif isinstance(verdict, range):
            if verdict[0] in state.got:
                raise Violation("twice", f"item {verdict[0]}")
            process = process._replace(at="idle", left=process.left - 1, mine=0)
            yield f"{i} gets {verdict[0]}", state.by(i, process, got=state.got | {verdict[0]})
        else:
            process = process._replace(at="idle", left=process.left - 1, mine=0)
            yield f"{i} has put {verdict}", state.by(i, process, put=state.put + 1)

    def at_prepare(self, state: Folder, i: int, process: Roller) -> Iterator[tuple[str, Folder]]:
        """From what it has read by now, which may be more than up to the limit."""
        page = state.pages[process.inode]
        ledger, _ = self.read(page, len(page.events))
        if ledger.sealed is not None:
            yield f"{i} sees the SEAL", state.by(i, process._replace(at="finish"))
            return
        if "limit" in self.without:
            ledger = self.ledger.load(page.snapshot)
            ledger.limit = 1 << 20
            ledger.apply(b"".join(page.events))
            ledger.limit = self.limit
        inode = len(state.pages)
        following = Page(page.number + 1, ledger.snapshot(rolled=True))
        names = state.names | {("roll", page.number + 1, i, inode)}
        after = state._replace(pages=(*state.pages, following), names=names)
        at = "finish" if "seal" in self.without else "seal"
        yield f"{i} prepares journal {page.number + 1}", after.by(i, process._replace(at=at))

    def at_seal(self, state: Folder, i: int, process: Roller) -> Iterator[tuple[str, Folder]]:
        mine = len(state.pages[process.inode].events)
        after = self.appended(state, process.inode, events.seal(i))
        yield f"{i} SEAL", after.by(i, process._replace(at="sealed", mine=mine))

    def at_sealed(self, state: Folder, i: int, process: Roller) -> Iterator[tuple[str, Folder]]:
        page = state.pages[process.inode]
        ledger, _ = self.read(page, process.mine + 1)
        if ledger.sealed != i:
            state = state.unlinked("roll", page.number + 1, i)
        yield f"{i} reads that {ledger.sealed} decides", state.by(i, process._replace(at="finish", mine=0))

    def at_finish(self, state: Folder, i: int, process: Roller) -> Iterator[tuple[str, Folder]]:
        page = state.pages[process.inode]
        ledger, _ = self.read(page, len(page.events))
        number = page.number + 1
        key = ledger.sealed if "seal" not in self.without else i
        assert key is not None
        inode = state.find("roll", number, key)
        if "help" in self.without and key != i:
            if state.find("journal", number) is not None:
                yield f"{i} finds journal {number}", state.by(i, process._replace(at="open"))
        elif inode is None:
            yield f"{i} finds it renamed", state.by(i, process._replace(at="open"))
        else:
            state = state.unlinked("roll", number, key).unlinked("journal", number)
            state = state._replace(names=state.names | {("journal", number, 0, inode)})
            yield f"{i} renames {key}'s to journal {number}", state.by(i, process._replace(at="remove"))

    def at_remove(self, state: Folder, i: int, process: Roller) -> Iterator[tuple[str, Folder]]:
        number = state.pages[process.inode].number - ("old kept" not in self.without)
        after = state.unlinked("journal", number)
        yield f"{i} removes journal {number}", after.by(i, process._replace(at="open"))

    def at_open(self, state: Folder, i: int, process: Roller) -> Iterator[tuple[str, Folder]]:
        """The next journal, or the newest if that one is gone already."""
        number = state.pages[process.inode].number + 1
        inode = state.find("journal", number)
        if inode is None:
            newest = max((name for name in state.names if name[0] == "journal"), key=lambda name: name[1])
            if newest[1] < number:
                raise Violation("wedged", f"{i} finds no journal {number}, and no newer one")
            inode = newest[3]
        yield f"{i} opens journal {state.pages[inode].number}", state.by(i, process._replace(at="idle", inode=inode))

    def settled(self, state: Folder) -> None:
        newest = max((name for name in state.names if name[0] == "journal"), key=lambda name: name[1])
        page = state.pages[newest[3]]
        ledger, _ = self.read(page, len(page.events))
        dead = sum(process.at == "dead" for process in state.processes)
        missing = set(range(ledger.head)) - state.got
        if len(missing) > dead:
            raise Violation("lost", f"items {sorted(missing)} were got by nobody, with {dead} dead")
        if not state.put <= ledger.tail - self.items <= state.put + dead:
            raise Violation("lost", f"{state.put} were put, {ledger.tail - self.items} are there")
        for i, process in enumerate(state.processes):
            if process.at not in ("dead", "idle"):
                raise Violation("wedged", f"{i} waits at {process.at}")
            if process.at == "idle" and process.left and ledger.head < ledger.tail:
                raise Violation("wedged", f"{i} waits, and items {ledger.head} to {ledger.tail} too")
