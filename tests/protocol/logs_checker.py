"""An explicit-state checker of logs and cuts: every interleaving of a small case, by the package's own ``Ledger``.

Lives here: the acts of producers, cutters, buriers, newcomers, closers, leasers, passers and holders, step by step, to
be explored by ``explorer.explore``.  Not here: the machine (``store_buffers``); the cases, and what goes wrong when a
rule is taken out (``test_cut_rules``); who sleeps and who is woken (``wait_checker``).

One step is one append to the journal, one look at it, one load, one call, or one buffered store that becomes visible.
Between any two steps a process may be killed, stopped or interrupted, as often as the case says; an append may come to
the end of its journal behind any of its events, and then its writer repeats the others in the next one.

A state holds the journal as the number of a ledger, which is always one that was loaded from its snapshot: a rule that
a snapshot forgets is a rule taken out.  Void events are dropped from it, for they change nothing.

Invariant: what the account says was returned, refused, cut or delivered is decided here by what a caller sees, never by
the ledger alone; and where a record stands is looked up in the memory as it is when its CUT is appended.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple, Optional

from explorer import GONE, Violation
from store_buffers import Machine, Steps, Store

from tqshim.protocol import events, index, snapshot
from tqshim.protocol.ledger import Ledger
from tqshim.protocol.records import SHUT_AT_ONCE, Held, Lease, Reservation, Verdict
from tqshim.protocol.state import State

CELLS: Final = 5
COUNTER, FLAG, POSITION, LEASE_FLAG, GIVEN = range(CELLS)
PUTS: Final = 6
"""Records of one process, at most: an item is named ``PUTS * process + record``."""
IN_DOUBT: Final = ("lease_look", "contest", "sole_look", "sole_contest", "sole_own")
"""Steps at which a consumer may have what another gets, or nobody; also where the journal ends meanwhile."""
WHOLE: Final = ("open", "leave", "bury", "shut", "task", "appeal")
"""What is appended again, all of it, where the journal ends in the middle: its last event relies on the others."""
FREE: Final = frozenset(("idle", "look", "attention", *GONE))
"""Steps of a short put, and others at which no lock is held."""
ACTS: Final = ("look", "attention", "appeal", "store", "reserve", "opened", "journal")
"""Steps of a put at which an exception may end it."""


def cell(slot: int, which: int) -> int:
    return slot * CELLS + which


def reach(ledger: Ledger, slot: int) -> int:
    """Records of a log up to which anybody counts and cuts it."""
    return ledger.stop_of(slot, len(ledger.files.filling) == 1)


class Rules:
    """A ledger class as a function from state and event to state and verdict, remembered.  States are numbered.

    Only JOINs and HOLDs advance the count of events: only members and holds are numbered by it here."""

    def __init__(self, ledger: type[Ledger] = Ledger) -> None:
        self.ledger = ledger
        self.views: list[Ledger] = []
        """By number: the ledger in that state, to be looked at only."""
        self._numbers: dict[bytes, int] = {}
        self._steps: dict[tuple[int, bytes], tuple[int, Verdict]] = {}

    def number(self, ledger: Ledger) -> int:
        state = snapshot.dump(ledger)
        found = self._numbers.get(state)
        if found is None:
            found = self._numbers[state] = len(self.views)
            self.views.append(self.load(state))
        return found

    def load(self, state: bytes) -> Ledger:
        view = snapshot.load(state)
        if self.ledger is not Ledger:
            own = self.ledger()
            for name in State.__slots__:
                setattr(own, name, getattr(view, name))
            return own
        return view

    def copy(self, state: int) -> Ledger:
        return self.load(snapshot.dump(self.views[state]))

    def append(self, state: int, event: bytes) -> tuple[int, Verdict]:
        known = self._steps.get((state, event))
        if known is None:
            ledger = self.copy(state)
            before = ledger.position.index
            verdict = ledger.step(int.from_bytes(event, "little"))
            if verdict is None or event[0] not in (events.JOIN, events.HOLD):
                ledger.position.index = before
            known = self._steps[state, event] = self.number(ledger), verdict
        return known

    def rolled(self, state: int) -> int:
        ledger = self.copy(state)
        ledger.roll()
        return self.number(ledger)


class Account(NamedTuple):
    """What callers know.  All but the first are sets of items, as bits."""

    queue: tuple[int, ...] = ()
    """The items that the ledger has from ``low`` up to ``tail``, as the records say."""
    cut: int = 0
    skipped: int = 0
    returned: int = 0
    refused: int = 0
    delivered: int = 0
    apart: tuple[tuple[int, int], ...] = ()
    """Items that are held or returned, by their number in the queue."""


class World(NamedTuple):
    """A state of one machine."""

    journal: int
    cells: tuple[int, ...]
    records: tuple[tuple[Any, int], ...]
    """Records that are visible and neither cut nor skipped: (member, serial, record) and the item, sorted."""
    processes: tuple[Any, ...]
    locks: tuple[int, ...]
    """By slot: who holds its lock, or -1."""
    faults: tuple[int, int, int, int]
    """Kills, stops, interruptions and rolls that may still come."""
    account: Account

    def put(self, i: int, process: Any, **changes: Any) -> World:
        processes = (*self.processes[:i], process, *self.processes[i + 1 :])
        if not changes:  # as ``_replace`` does it, which takes twice as long
            return World(self.journal, self.cells, self.records, processes, self.locks, self.faults, self.account)
        return self._replace(processes=processes, **changes)

    def fault(self, which: int) -> tuple[int, int, int, int]:
        left = list(self.faults)
        left[which] -= 1
        return tuple(left)  # type: ignore[return-value]


class Actor(NamedTuple):
    """A process: ``producer``, ``consumer``, ``leaser``, ``sole`` (who leases all that comes), ``passer`` (who wants a
    lease's places), ``holder``, ``burier``, ``newcomer`` (a producer that joins first) or ``closer``."""

    role: str = "producer"
    left: int = 1
    """Puts, gets, burials or tries to join that it still wants."""
    sizes: tuple[int, ...] = ()
    """Records of each of its next puts, of which all are put, or none; then it is one each."""
    large: int = -1
    """The record with that number finds no space in a file that has others."""
    places: int = 0
    """A producer of a bounded queue reserves so many at a time; 0: each put goes through the journal.  A leaser takes
    so many leases; then it claims."""
    alone: bool = False
    """Where it is the only producer it puts wherever there is a place."""
    trims: int = 0
    """So often it ends the reservation, or the lease, of another that is in its way."""
    leaves: bool = False
    puts: int = 0
    """Of a newcomer, once it is in."""
    becomes: str = "producer"
    """The role of a newcomer that is in."""
    tasks: bool = False
    """A consumer counts off what it got."""
    gives_back: int = 0
    """So many blocks of a holder end with an exception."""
    immediate: bool = False
    of: int = -1
    """A producer that is another thread of that one's process, which is neither killed nor interrupted."""
    slot: int = -1
    number: int = -1
    at: str = "idle"
    buffer: tuple[Store, ...] = ()
    view: int = 0
    """The ledger as it was when this process last looked."""
    log: tuple[int, int] = (-1, 0)
    """The batch file that it writes to: its serial number, and the records before it."""
    made: int = 0
    """Records of the puts begun before this one."""
    mode: str = ""
    """How this put is put, once that is decided: by ``counter`` or through the ``journal``.  Of a helper: ``help``."""
    asks: bool = False
    """It has found its flag up, and not lowered it since."""
    stop: int = 0
    """Records of its log for which it has seen a place, where it puts alone and all that comes is leased."""
    lost: bool = False
    """Another thread has skipped what this one has just put."""
    seen: tuple[int, ...] = ()
    """Counters as it has read them."""
    mask: int = 0
    """What had been returned when it read them."""
    target: Any = None
    waits: Optional[tuple[int, ...]] = None
    rest: tuple[bytes, ...] = ()
    """Events that came late, or are to be appended next."""
    done: tuple[Verdict, ...] = ()
    lease: Optional[Lease] = None
    hand: tuple[int, ...] = ()
    """The items of its lease, or the one that it holds."""
    got: int = 0
    """How far it is in its lease."""
    hold: int = -1
    """The number of its HOLD."""
    saved: Any = None
    """What it was at when it began to end a lease of all that comes."""
    ends: tuple[bytes, ...] = ()
    """The events that end it, which stand before the next that it appends."""

    @property
    def many(self) -> int:
        """Records of its put."""
        return self.sizes[0] if self.sizes else 1


class Logs(Machine):
    """Logs and cuts.  ``x86``: nobody needs a barrier between reading a counter and cutting.  ``room``: records of a
    first batch file that are not cut yet.  ``counting``: what a counter says is put; else only what is cut.

    Left out by name (``without``): parts of the protocol; ``self.without`` is asked where each of them stands."""

    def __init__(
        self,
        rules: Rules,
        actors: tuple[Actor, ...],
        without: Iterable[str] = (),
        maxsize: int = 0,
        room: int = 256,
        kills: int = 0,
        stops: int = 0,
        breaks: int = 0,
        rolls: int = 0,
        x86: bool = False,
        counting: bool = True,
    ) -> None:
        self.rules = rules
        self.actors = actors
        self.without = frozenset(without)
        self.maxsize = maxsize
        self.room = room
        self.faults = kills, stops, breaks, rolls
        self.x86 = x86
        self.counting = counting
        self.slots = len(actors) + 1
        heads = [i if actor.of < 0 else actor.of for i, actor in enumerate(actors)]
        self.threads = [
            tuple(j for j, other in enumerate(heads) if other == head and j != i) for i, head in enumerate(heads)
        ]
        """By thread: the others of its process."""

    # -- the machine

    def start(self) -> World:
        ledger = self.rules.ledger(self.maxsize)
        cells = [0] * (CELLS * self.slots)
        locks = [-1] * self.slots
        ready = []
        for i, actor in enumerate(self.actors):
            if actor.of >= 0:
                actor = actor._replace(slot=ready[actor.of].slot, number=ready[actor.of].number, log=(0, 0))
            elif actor.role in ("producer", "leaser", "sole", "holder"):
                number = ledger.position.index
                slot = ledger.step(int.from_bytes(events.join(actor.role != "producer"), "little"))
                assert isinstance(slot, int)
                locks[slot] = i
                actor = actor._replace(slot=slot, number=number, log=(0, 0))
                if actor.role == "producer":
                    before = index.FIRST - self.room
                    for event in (events.open_(slot, 0), events.skip(slot, before) if before else b""):
                        if event:
                            assert ledger.step(int.from_bytes(event, "little")) is not None
                    cells[cell(slot, COUNTER)] = before
                    cells[cell(slot, GIVEN)] = before
            ready.append(actor)
        journal = self.rules.number(ledger)
        ready = [actor._replace(view=journal) for actor in ready]
        return World(journal, tuple(cells), (), tuple(ready), tuple(locks), self.faults, Account())

    def steps(self, world: World) -> Steps:
        kills, stops, breaks, _ = world.faults
        for i, process in enumerate(world.processes):
            if process.at in GONE:
                continue
            yield from self.drains(world, i, process)
            if self.threads[i]:
                yield from self.thread_steps(world, i)
                continue
            if kills:
                yield f"kill {i}", self.end(world, i, "dead")._replace(faults=world.fault(0))
            if stops:
                yield f"stop {i}", self.end(world, i, "stopped")._replace(faults=world.fault(1))
            if breaks and process.at in ACTS:
                broken = self.next_put(process)._replace(at="unsure", target=None, seen=(), waits=None)
                yield f"stop of {i}'s put by an exception", world.put(i, broken, faults=world.fault(2))
            yield from getattr(self, "at_" + process.at)(world, i, process)

    def thread_steps(self, world: World, i: int) -> Steps:
        """Those of one of several threads: the interpreter changes threads neither between a look at the counter and
        the look at the flag, nor without a fence; and all but short puts is done with the process's lock held."""
        others = [world.processes[j] for j in self.threads[i]]
        if any(other.at == "look" for other in others):
            return
        if is_free(world.processes[i]) and not all(map(is_free, others)):
            return
        for j in self.threads[i]:
            world, _ = self.fence(world, j, world.processes[j])
        yield from getattr(self, "at_" + world.processes[i].at)(world, i, world.processes[i])

    def share(self, world: World, i: int, **changes: Any) -> World:
        """The other threads of a process see the same."""
        for j in self.threads[i]:
            world = world.put(j, world.processes[j]._replace(**changes))
        return world

    def visible(self, world: World, stores: tuple[Store, ...]) -> World:
        if not stores:
            return world
        cells = list(world.cells)
        records = dict(world.records)
        for place, value in stores:
            if isinstance(place, int):
                cells[place] = value
            else:
                records[place] = value
        return world._replace(cells=tuple(cells), records=tuple(sorted(records.items())))

    def end(self, world: World, i: int, how: str) -> World:
        world, process = self.fence(world, i, world.processes[i])
        if how == "dead":
            world = world._replace(locks=tuple(-1 if holder == i else holder for holder in world.locks))
        # What else it knew is of no interest any more: fewer states.
        at = process.at[len("late_") :] if process.at.startswith("late_") else process.at
        hand = process.hand[process.got : process.got + 1] if at in IN_DOUBT else ()
        hold = -1
        if process.hold >= 0 and how == "stopped":
            hand, hold = process.hand, process.hold
        gone = Actor(process.role, 0, slot=process.slot, number=process.number, at=how, hand=hand, hold=hold)
        return world.put(i, gone)

    def looks(self, world: World, i: int, process: Actor) -> tuple[World, Actor, Ledger]:
        """Reading the journal: a full fence."""
        world, process = self.fence(world, i, process)
        process = process._replace(view=world.journal)
        return self.share(world, i, view=world.journal), process, self.rules.views[world.journal]

    def reached(self, process: Actor) -> bool:
        """It has registered for barriers."""
        return "registered" not in self.without or bool(self.maxsize) or process.role != "producer"

    def append(self, world: World, i: int, process: Actor, batch: Iterable[bytes], then: str) -> Steps:
        """One append, by whose verdicts ``did_<then>`` goes on."""
        world, process = self.fence(world, i, process)
        batch = (*process.ends, *(event for event in batch if event))
        process = process._replace(ends=())
        label = f"{i} appends {' '.join(map(show, batch))}"
        for count in range(len(batch), -1 if world.faults[3] else len(batch) - 1, -1):
            after, verdicts = self.apply(world, batch[:count])
            verdicts = process.done + verdicts
            if count < len(batch):
                late = process._replace(at="late_" + then, rest=batch[count:], done=verdicts)
                if not self.maxsize and then in WHOLE and "whole" not in self.without:
                    late = late._replace(rest=batch, done=process.done)
                after = after._replace(journal=self.rules.rolled(after.journal), faults=world.fault(3))
                yield f"{label}; the journal ends behind {count}", after.put(i, late)
            else:
                mine = process._replace(view=after.journal, rest=(), done=())
                after = self.share(after, i, view=after.journal)
                for world_after in getattr(self, "did_" + then)(after.put(i, mine), i, mine, verdicts):
                    yield f"{label}: {verdicts}", world_after

    def __getattr__(self, name: str) -> Any:
        if name.startswith("at_late_"):
            then = name[len("at_late_") :]
            return lambda world, i, process: self.append(world, i, process, process.rest, then)
        raise AttributeError(name)

    def apply(self, world: World, batch: Iterable[bytes]) -> tuple[World, tuple[Verdict, ...]]:
        """The world behind these events, and what each came to.  Raises ``Violation``."""
        verdicts = []
        for event in batch:
            before = self.rules.views[world.journal]
            journal, verdict = self.rules.append(world.journal, event)
            verdicts.append(verdict)
            if verdict is None:
                continue
            after = self.rules.views[journal]
            account = world.account
            records = dict(world.records)
            kind, slot = event[0], event[1] | event[2] << 8
            if kind in (events.CUT, events.PUBLISH):
                if before.ending.shut:
                    raise Violation("refused", "a record is cut after the shutdown")
                assert isinstance(verdict, range)
                for item in verdict:
                    file, record = after.place(item)
                    value = records.pop((file.member, file.serial, record), None)
                    account = cut_one(account, value, f"record {record} of {file}")
            elif kind == events.DELIVERED:
                filling = before.files.filling[slot]
                for n in range(before.totals[slot], after.totals[slot]):
                    value = records.pop((filling.file.member, filling.file.serial, n - filling.first), None)
                    queue = account.queue
                    account = cut_one(account, value, f"record {n} of {slot}")._replace(queue=queue)
            elif kind == events.SKIP:
                filling = before.files.filling[slot]
                for n in range(before.totals[slot], after.totals[slot]):
                    value = records.pop((filling.file.member, filling.file.serial, n - filling.first), None)
                    if value is not None:
                        if account.returned >> value & 1:
                            raise Violation("lost", f"{name_of(value)} was put, and is skipped")
                        account = account._replace(skipped=account.skipped | 1 << value)
                for j, process in enumerate(world.processes):
                    skipped = range(before.totals[slot] + 1, after.totals[slot] + 1)
                    if process.slot == slot and process.at in FREE and process.target in skipped:
                        world = world.put(j, process._replace(lost=True))
            elif kind == events.LEAVE and world.cells[cell(slot, COUNTER)] > after.totals[slot]:
                raise Violation("left over", "the next member's records would be cut before they are written")
            elif kind == events.SHUTDOWN and account.returned & ~account.cut:
                raise Violation("lost", f"{names_of(account.returned & ~account.cut)} put, not cut, and shut down")
            gone = 0 if kind == events.DELIVERED else after.low - before.low
            if kind == events.CLAIM:
                if not account.queue:
                    raise Violation("twice", "an item is claimed that was got before")
                account = delivered(account, account.queue[0])
            elif isinstance(verdict, Held):
                account = self.holds(world, account, verdict.item)
            elif kind == events.GOT:
                held = before.holds.held[int.from_bytes(event, "little") >> 24]
                account = delivered(account, dict(account.apart)[held.item])
            account = account._replace(queue=account.queue[max(0, gone) :])
            if account.apart:
                there = {one.item for one in (*after.holds.held.values(), *after.holds.returned)}
                account = account._replace(apart=tuple(one for one in account.apart if one[0] in there))
            world = world._replace(journal=journal, account=account, records=tuple(sorted(records.items())))
            self.check(world)
        return world, tuple(verdicts)

    @staticmethod
    def holds(world: World, account: Account, item: int) -> Account:
        """An item is held, for the first time or again."""
        known = dict(account.apart)
        if item not in known:
            if not account.queue:
                raise Violation("twice", "an item is held that was got before")
            known[item] = account.queue[0]
        value = known[item]
        if account.delivered >> value & 1 or any(
            process.hold >= 0 and value in process.hand and process.at != "dead" for process in world.processes
        ):
            raise Violation("twice", f"{name_of(value)} is another's, who lives, or was got")
        return account._replace(apart=tuple(sorted(known.items())))

    def check(self, world: World) -> None:
        """What must hold in each state: the bound, and that everybody can see what was put."""
        ledger = self.rules.views[world.journal]
        account = world.account
        uncut = account.returned & ~account.cut & ~account.delivered
        for process in world.processes:
            if process.role == "sole" and process.hand and process.hand[0] >= 0:
                uncut &= ~(1 << process.hand[0])  # as good as delivered, or not: then it counts again
        outstanding = bin(uncut).count("1")
        kept = ledger.tail - ledger.low + len(account.apart)
        if self.maxsize and max(ledger.used, outstanding + kept) > self.maxsize:
            raise Violation("bound", f"{ledger.used} places used, {kept} items, {outstanding} puts beyond the cut")
        if outstanding:
            cells = list(world.cells)
            for process in world.processes:
                for place, value in process.buffer:
                    if isinstance(place, int):
                        cells[place] = value
            there = sum(
                max(0, min(cells[cell(slot, COUNTER)], reach(ledger, slot)) - ledger.totals[slot])
                for slot in range(self.slots)
            )
            if there < outstanding:
                raise Violation("lost", f"{names_of(account.returned & ~account.cut)} put, and no cut can reach them")

    def settled(self, world: World) -> None:
        """All have come to their end: a newcomer buries the dead, gets all that was put, and can put."""
        ledger = self.rules.views[world.journal]
        batch = []
        if ledger.leases.sole:
            batch += self.ends_of(ledger, {slot: world.cells[cell(slot, GIVEN)] for slot in ledger.files.filling})
        elif ledger.leases.standing:
            position = world.cells[cell(ledger.leases.standing.slot, POSITION)]
            batch.append(events.revoke(max(0, position - ledger.leases.standing.first), ledger.leases.standing.number))
        for slot, member in ledger.members.by_slot.items():
            counter = world.cells[cell(slot, COUNTER)]
            if world.locks[slot] < 0:
                batch += self.farewells(ledger, slot, counter, member.number)
            else:
                batch.append(events.cut(slot, min(counter, reach(ledger, slot))))
        world, _ = self.apply(world, batch)
        ledger = self.rules.views[world.journal]
        lost = world.account.returned & ~world.account.cut
        if lost:
            raise Violation("lost", f"{names_of(lost)} at the end")
        there = set(world.account.queue[ledger.head - ledger.low :])
        apart = dict(world.account.apart)
        there |= {apart[one.item] for one in ledger.holds.returned}
        if not there >= set(bits(world.account.cut & ~world.account.delivered & ~self.may_miss(world, ledger))):
            raise Violation("lost", f"{names_of(world.account.cut & ~world.account.delivered)} can't be got")
        for process in world.processes:
            if process.at in GONE or not process.left:
                continue
            if process.role in ("consumer", "sole") and ledger.head < ledger.tail:
                raise Violation("wedged", "a consumer waits, and an item too")
            if process.role == "holder" and (ledger.head < ledger.tail or ledger.holds.returned):
                raise Violation("wedged", "a holder waits, and an item too")
        if ledger.ending.shutting > ledger.ending.shut:
            for i, process in enumerate(world.processes):
                seen = self.rules.views[process.view].ending.shutting and process.role in ("closer", "producer")
                if process.at not in GONE and seen:
                    raise Violation("wedged", f"{i} knows that somebody wants to shut down, and nobody does")
        self.can_put(world, ledger)

    def may_miss(self, world: World, ledger: Ledger) -> int:
        """What the dead and stopped had in hand, or what was dropped at once."""
        if ledger.ending.shut == SHUT_AT_ONCE:
            return -1
        return sum(1 << item for process in world.processes if process.at in GONE for item in process.hand if item >= 0)

    def can_put(self, world: World, ledger: Ledger) -> None:
        if ledger.ending.shut:
            return
        state = world.journal
        if ledger.holds.returned:
            state, slot = self.rules.append(state, events.join(True))
            for _ in ledger.holds.returned:
                state, held = self.rules.append(state, events.hold(slot))  # type: ignore[arg-type]
                state, _ = self.rules.append(state, events.got(held.number))  # type: ignore[union-attr]
        batch = [events.claim(0)] * (ledger.tail - ledger.low)
        for slot, own in ledger.reservations.by_slot.items():
            if not own.cut:
                used = min(max(0, world.cells[cell(slot, COUNTER)] - own.begin), events.RESERVE_MOST)
                batch.append(events.trim(slot, used, own.grant))
        # Stopped with a record in hand that it counts for put only once it has asked the journal: that may be cut or
        # be skipped; here it must not keep the place for ever.
        for slot in ledger.files.filling:
            batch.append(events.cut(slot, world.cells[cell(slot, COUNTER)]))
        batch += [events.claim(0)] * self.maxsize
        for event in batch:
            state, _ = self.rules.append(state, event)
        state, slot = self.rules.append(state, events.join(False))
        state, opened = self.rules.append(state, events.open_(slot, 0))  # type: ignore[arg-type]
        view = self.rules.views[state]
        state, items = self.rules.append(state, events.cut(slot, view.totals[slot] + 1))  # type: ignore[arg-type,index]
        if opened is None or items is None:
            raise Violation("wedged", f"nobody can put any more: {view.used} of {self.maxsize} places")

    # -- what several of them do

    def farewell(self, ledger: Ledger, slot: int, counter: int) -> list[bytes]:
        """The events after which no CUT can cut anything of this log up to now."""
        if slot not in ledger.files.filling or counter <= ledger.totals[slot]:
            return []
        batch = [events.cut(slot, min(counter, ledger.limit_of(slot)))] if self.counting else []
        if "skip behind" not in self.without or counter > ledger.limit_of(slot):
            batch.append(events.skip(slot, counter))
        return batch

    def farewells(self, ledger: Ledger, slot: int, counter: int, number: int) -> list[bytes]:
        batch = self.farewell(ledger, slot, counter)
        for left_out, kind in (("cut before leave", events.CUT), ("skip before leave", events.SKIP)):
            if left_out in self.without:
                batch = [event for event in batch if event[0] != kind]
        return [*batch, events.leave(slot, number)]

    def cuts(self, ledger: Ledger, seen: tuple[int, ...]) -> list[bytes]:
        """CUTs of what has grown, whenever it was put."""
        data = ledger.cuts(ledger.grown(array("Q", seen).tobytes()), no_marks) if self.counting else b""
        return [data[at : at + events.SIZE] for at in range(0, len(data), events.SIZE)]

    def counters(self, world: World, process: Actor) -> tuple[int, ...]:
        return tuple(self.load(world, process, cell(slot, COUNTER)) for slot in range(self.slots))

    # Reading counters, and cutting by them: a process that cuts for an act of its own looks once more behind that.

    def reads(self, world: World, i: int, process: Actor, then: str) -> Steps:
        """Goes to ``then`` with the counters in ``seen``."""
        mask = 0
        if then == "task":
            # A put whose stores nobody sees yet is at the same time as this look.
            mask = world.account.returned
            for j, other in enumerate(world.processes):
                if j != i and other.buffer:
                    mask &= ~((1 << PUTS) - 1 << PUTS * j)
        seen = self.counters(world, process)
        at = self.after_barrier(then) if self.x86 or not self.counting else "cut_barrier"
        process = process._replace(at=at, seen=seen, mask=mask, target=then)
        yield f"{i} reads counters {seen}", world.put(i, process)

    @staticmethod
    def after_barrier(then: str) -> str:
        return then if then == "claim" else "cut_sync"

    def at_cut_barrier(self, world: World, i: int, process: Actor) -> Steps:
        yield from self.barrier(world, i, process, self.after_barrier(process.target), "cut barrier")

    def at_cut_sync(self, world: World, i: int, process: Actor) -> Steps:
        if "sync after counters" not in self.without:
            world, process, _ = self.looks(world, i, process)
        yield f"{i} looks again", world.put(i, process._replace(at=process.target))

    # What a put comes to.

    def returns(self, world: World, i: int, process: Actor) -> World:
        account = world.account
        mask = self.mask(i, process)
        if (account.skipped | account.refused) & mask:
            raise Violation("lost", f"{names_of(mask)}: their put returns, and they were skipped")
        world = world._replace(account=account._replace(returned=account.returned | mask))
        world = world.put(i, self.next_put(process))
        self.check(world)
        return world

    def refuses(self, world: World, i: int, process: Actor) -> World:
        account = world.account
        mask = self.mask(i, process)
        if account.cut & mask:
            kind = "torn" if mask & ~account.cut else "refused"
            raise Violation(kind, f"{names_of(mask)}: their put is refused, and {names_of(account.cut & mask)} is cut")
        world = world._replace(account=account._replace(refused=account.refused | mask))
        return world.put(i, self.next_put(process))

    def next_put(self, process: Actor) -> Actor:
        at = "idle"
        ledger = self.rules.views[process.view]
        if ledger.ending.shutting > ledger.ending.shut and "help" not in self.without:
            at = "help"
        made = process.made + process.many
        return process._replace(
            at=at, left=process.left - 1, made=made, mode="", sizes=process.sizes[1:], target=None, lost=False
        )

    @staticmethod
    def mask(i: int, process: Actor) -> int:
        return (1 << process.many) - 1 << PUTS * i + process.made

    def writes(self, process: Actor, n: int, i: int) -> tuple[Store, ...]:
        """Records from ``n`` on, where the process believes that its log goes on."""
        serial, first = process.log
        return tuple(
            ((process.number, serial, n + k - first), PUTS * i + process.made + k) for k in range(process.many)
        )

    def at_idle(self, world: World, i: int, process: Actor) -> Steps:
        yield from getattr(self, "role_" + process.role)(world, i, process)

    # -- puts

    def role_producer(self, world: World, i: int, process: Actor) -> Steps:
        ledger = self.rules.views[process.view]
        slot = process.slot
        if not process.left:
            if process.leaves:
                yield from self.leaves(world, i, process)
            return
        if ledger.ending.shut:
            yield f"{i} finds it shut", self.refuses(world, i, process)
            return
        if ledger.ending.shutting and not process.mode and "help" not in self.without:
            yield f"{i} helps first", world.put(i, process._replace(at="help"))
            return
        n = self.load(world, process, cell(slot, COUNTER))
        new = n + process.many
        filling = ledger.files.filling.get(slot)
        fits = filling is not None and new <= filling.stop and (process.made != process.large or n == process.log[1])
        here = filling is not None and process.log == (filling.file.serial, filling.first)
        mode = process.mode
        alone = process.alone and ledger.producers == 1
        stop = ledger.stop_of(slot, alone)
        if alone and (ledger.leases.sole or process.stop > stop):
            stop = process.stop
        if not mode and ((alone and process.asks) or not (self.counting and new <= stop)):
            if alone:
                yield from self.looks_alone(world, i, process)
                return
            mode = self.way(process, ledger, new)
            if mode == "reserve":
                if "flag cleared" not in self.without:
                    process = process._replace(buffer=(*process.buffer, (cell(slot, FLAG), 0)))
                yield f"{i} lowers its flag", world.put(i, process._replace(at="reserve"))
                return
        # Its file is the one in which its log goes on: not so where an exception came just after an OPEN.
        if not fits or not (here or ("log checked" in self.without and not process.mode and process.many == 1)):
            batch = [] if filling is None else self.farewell(ledger, slot, n)
            for left_out, kind in (("cut before open", events.CUT), ("skip before open", events.SKIP)):
                if left_out in self.without:
                    batch = [event for event in batch if event[0] != kind]
            serial = index.serial((filling.file.serial >> 7) + 1 if filling else 0, 0)
            process = process._replace(mode=mode or "counter")
            if (
                self.maxsize
                and filling is None
                and ledger.files.filling
                and "cut before first open" not in self.without
            ):
                yield from self.reads(world, i, process, "first_open")
                return
            yield from self.append(world, i, process, [*batch, events.open_(slot, serial)], "open")
            return
        records = self.writes(process, n, i)
        if mode == "journal":
            process = process._replace(buffer=process.buffer + records, mode=mode)
            if self.counting:
                yield from self.reads(world, i, process, "journal")
            else:
                yield f"{i} writes record {n}", world.put(i, process._replace(at="journal"))
            return
        stores = (*records, (cell(slot, COUNTER), new))
        if "record before counter" in self.without:
            stores = (stores[-1], *records)
        if "counter first" in self.without:
            yield f"{i} looks first", world.put(i, process._replace(at="look_first"))
            return
        stored = process._replace(at="look", buffer=process.buffer + stores, target=new)
        yield f"{i} writes record {n} and stores {new}", world.put(i, stored)

    def looks_alone(self, world: World, i: int, process: Actor) -> Steps:
        """Another may have joined, or somebody may have got something."""
        lower = ((cell(process.slot, FLAG), 0),)
        process = process._replace(asks=False)
        if "lowered first" not in self.without:
            process = process._replace(buffer=process.buffer + lower)
        after, process, ledger = self.looks(world, i, process)
        if "lowered first" in self.without:
            process = process._replace(buffer=process.buffer + lower)
        if ledger.leases.sole and ledger.producers == 1:
            yield f"{i} looks, and all is leased", after.put(i, process._replace(at="alone_given"))
            return
        new = self.load(after, process, cell(process.slot, COUNTER)) + process.many
        full = ledger.producers == 1 and new > ledger.stop_of(process.slot, True)
        if full and ledger == self.rules.views[world.processes[i].view]:
            return  # and it waits
        yield f"{i} looks whether it is alone", after.put(i, process)

    def at_alone_given(self, world: World, i: int, process: Actor) -> Steps:
        """What a lease of all that comes has delivered takes no place."""
        given = self.load(world, process, cell(process.slot, GIVEN))
        yield f"{i} sees {given} delivered", world.put(i, process._replace(at="alone_flag", target=given))

    def at_alone_flag(self, world: World, i: int, process: Actor) -> Steps:
        """Unless somebody ends it: he may not have seen that."""
        lease = self.rules.views[process.view].leases.standing
        assert lease is not None
        if self.load(world, process, cell(lease.slot, LEASE_FLAG)) and "alone flag" not in self.without:
            yield f"{i} sees the flag up", world.put(i, process._replace(at="idle", target=None))
        else:
            yield f"{i} sees the flag down", world.put(i, process._replace(at="alone_same", lease=lease))

    def at_alone_same(self, world: World, i: int, process: Actor) -> Steps:
        """Nor is that the flag of a later one."""
        after, process, ledger = self.looks(world, i, process)
        same = (
            ledger.leases.standing is not None
            and process.lease is not None
            and ledger.leases.standing.number == process.lease.number
        )
        if same or "alone same" in self.without:
            process = process._replace(stop=max(process.stop, process.target + self.maxsize))
        yield f"{i} looks again", after.put(i, process._replace(at="idle", target=None, lease=None))

    def way(self, process: Actor, ledger: Ledger, new: int) -> str:
        """How a put is to be put that can't simply go on."""
        slot = process.slot
        if not self.counting:
            return "journal"
        if not self.maxsize:
            return "counter"
        if process.many > 1 and "several published" not in self.without:
            return "journal"
        own = ledger.reservations.by_slot.get(slot)
        if own and not own.cut and new <= own.stop:
            return "counter"
        return "reserve" if process.places and slot in ledger.files.filling else "journal"

    def at_unsure(self, world: World, i: int, process: Actor) -> Steps:
        """After an exception in a put: has the journal got more of it than the counter says?"""
        after, process, ledger = self.looks(world, i, process)
        total = ledger.totals[process.slot]
        process = process._replace(at="idle")
        if total > self.load(after, process, cell(process.slot, COUNTER)) and "unsure" not in self.without:
            process = process._replace(buffer=((cell(process.slot, COUNTER), total),))
        yield f"{i} looks what its put came to", after.put(i, process)

    def at_look_first(self, world: World, i: int, process: Actor) -> Steps:
        """A mutant: the flag is looked at before the counter is stored."""
        slot = process.slot
        n = self.load(world, process, cell(slot, COUNTER))
        up = self.load(world, process, cell(slot, FLAG))
        yield f"{i} sees its flag {'up' if up else 'down'}", world.put(i, process._replace(at="late", target=(up, n)))

    def at_late(self, world: World, i: int, process: Actor) -> Steps:
        up, n = process.target
        new = n + process.many
        stores = (*self.writes(process, n, i), (cell(process.slot, COUNTER), new))
        process = process._replace(buffer=process.buffer + stores, target=new)
        if up:
            yield f"{i} stores {new}", world.put(i, process._replace(at="attention"))
        else:
            yield f"{i} stores {new}, returns", self.returns(world, i, process)

    def at_look(self, world: World, i: int, process: Actor) -> Steps:
        # Who wants to shut down may have looked for flags to raise before our OPEN: then our OPEN has seen CLOSING.
        closing = self.rules.views[process.view].ending.shutting and "closing seen" not in self.without
        if "look" not in self.without and (closing or self.load(world, process, cell(process.slot, FLAG))):
            yield f"{i} sees its flag up", world.put(i, process._replace(at="attention", asks=process.alone, stop=0))
        else:
            yield f"{i} sees its flag down, returns", self.returns(world, i, process)

    def at_attention(self, world: World, i: int, process: Actor) -> Steps:
        after, process, ledger = self.looks(world, i, process)
        if process.lost and "skipped told" not in self.without:
            yield f"{i} finds it skipped", self.refuses(after, i, process)
        elif process.target <= ledger.totals[process.slot]:
            yield f"{i} finds it cut", self.returns(after, i, process)
        else:
            yield f"{i} finds it uncut", after.put(i, process._replace(at="appeal"))

    def at_appeal(self, world: World, i: int, process: Actor) -> Steps:
        slot, total = process.slot, process.target
        batch = []
        if "own trim" not in self.without:
            batch += self.trims_own(process, total)
        if "own cut" not in self.without:
            batch += [events.cut(slot, total - process.many), events.publish(slot, total)]
        if "skip" not in self.without:
            batch.append(events.skip(slot, total))
        yield from self.append(world, i, process, batch, "appeal")

    def trims_own(self, process: Actor, total: int) -> list[bytes]:
        """Its reservation ends there."""
        own = self.rules.views[process.view].reservations.by_slot.get(process.slot)
        if own is None or own.cut:
            return []
        used = min(max(0, total - own.begin), events.RESERVE_MOST)
        return [events.trim(process.slot, used, own.grant)]

    def did_appeal(self, world: World, i: int, process: Actor, verdicts: tuple[Verdict, ...]) -> Iterator[World]:
        if self.is_void(process):
            yield self.ends_sole(world, i, process._replace(at="appeal"))
            return
        total = process.target
        kept = self.rules.views[process.view].totals[process.slot]
        if "skip" not in self.without:
            kept = total if verdicts[-1] is None else verdicts[-1]  # type: ignore[assignment]
        if kept >= total:
            yield self.returns(world, i, process)
        else:
            yield self.refuses(world, i, process)

    def at_journal(self, world: World, i: int, process: Actor) -> Steps:
        slot = process.slot
        new = self.load(world, process, cell(slot, COUNTER)) + process.many
        cuts = self.cuts(self.rules.views[process.view], process.seen) if process.seen else []
        event = events.cut(slot, new) if "published whole" in self.without else events.publish(slot, new)
        process = process._replace(seen=(), target=None)
        yield from self.append(world, i, process, [*cuts, event], "journal")

    def did_journal(self, world: World, i: int, process: Actor, verdicts: tuple[Verdict, ...]) -> Iterator[World]:
        slot = process.slot
        new = self.load(world, process, cell(slot, COUNTER)) + process.many
        if self.rules.views[process.view].totals[slot] < new:
            yield self.refuses(world, i, process)
        else:
            yield world.put(i, process._replace(at="store", target=new))

    def at_store(self, world: World, i: int, process: Actor) -> Steps:
        stored = process._replace(buffer=(*process.buffer, (cell(process.slot, COUNTER), process.target)), target=None)
        yield f"{i} stores {process.target}, returns", self.returns(world, i, stored)

    def at_reserve(self, world: World, i: int, process: Actor) -> Steps:
        slot = process.slot
        # Another, which wants the former one to end and has raised the flag before, must not end it later.
        total = self.load(world, process, cell(slot, COUNTER))
        batch = [] if "trim before reserve" in self.without else self.trims_own(process, total)
        batch.append(events.cut(slot, total))
        yield from self.append(world, i, process, [*batch, events.reserve(slot, process.places)], "reserve")

    def did_reserve(self, world: World, i: int, process: Actor, verdicts: tuple[Verdict, ...]) -> Iterator[World]:
        if verdicts[-1] is None:
            ledger = self.rules.views[process.view]
            if process.trims:
                for slot, own in ledger.reservations.by_slot.items():
                    if slot != process.slot and not own.cut:
                        yield world.put(i, process._replace(at="raise", target=(slot, own), trims=process.trims - 1))
            yield world.put(i, process._replace(at="idle", mode="journal"))
        else:
            if "flag cleared after" in self.without:
                process = process._replace(buffer=(*process.buffer, (cell(process.slot, FLAG), 0)))
            yield world.put(i, process._replace(at="idle", mode="counter"))

    def at_first_open(self, world: World, i: int, process: Actor) -> Steps:
        """Beside another's log: what its producer has put alone is cut by then."""
        cuts = self.cuts(self.rules.views[process.view], process.seen)
        process = process._replace(seen=(), target=None)
        yield from self.append(world, i, process, [*cuts, events.open_(process.slot, index.serial(0, 0))], "open")

    def did_open(self, world: World, i: int, process: Actor, verdicts: tuple[Verdict, ...]) -> Iterator[World]:
        if self.is_void(process):
            yield self.ends_sole(world, i, process._replace(at="idle"))
            return
        if verdicts[-1] is None:
            raise Violation("buried", f"{i} goes on in a new file, and is no member")
        yield world.put(i, process._replace(at="opened"))

    def at_opened(self, world: World, i: int, process: Actor) -> Steps:
        filling = self.rules.views[process.view].files.filling[process.slot]
        process = process._replace(at="idle", log=(filling.file.serial, filling.first))
        yield f"{i} goes on in file {filling.file.serial}", self.share(world, i, log=process.log).put(i, process)

    def leaves(self, world: World, i: int, process: Actor) -> Steps:
        slot = process.slot
        ledger = self.rules.views[process.view]
        batch = self.farewells(ledger, slot, self.load(world, process, cell(slot, COUNTER)), process.number)
        world, process = self.fence(world, i, process._replace(buffer=(*process.buffer, (cell(slot, FLAG), 0))))
        locks = tuple(-1 if holder == i else holder for holder in world.locks)
        process = process._replace(at="leave", rest=tuple(batch))
        # Unlocked first: who is stopped here must not keep the slot's next member waiting.
        yield f"{i} clears its cells, unlocks slot {slot}", world.put(i, process, locks=locks)

    def at_leave(self, world: World, i: int, process: Actor) -> Steps:
        yield from self.append(world, i, process, process.rest, "leave")

    def did_leave(self, world: World, i: int, process: Actor, verdicts: tuple[Verdict, ...]) -> Iterator[World]:
        if self.is_void(process):
            batch = self.farewells(
                self.rules.views[process.view], process.slot, world.cells[cell(process.slot, COUNTER)], process.number
            )
            yield self.ends_sole(world, i, process._replace(at="leave", rest=tuple(batch)))
            return
        yield world.put(i, process._replace(at="left"))

    # -- ending another's reservation

    def at_raise(self, world: World, i: int, process: Actor) -> Steps:
        slot, _ = process.target
        raised = process._replace(buffer=(*process.buffer, (cell(slot, FLAG), 1)), at="trim_barrier")
        if "raise" in self.without:
            raised = process._replace(at="trim_barrier")
        yield f"{i} raises the flag of slot {slot}", world.put(i, raised)

    def at_trim_barrier(self, world: World, i: int, process: Actor) -> Steps:
        yield from self.barrier(world, i, process, "trim_read", "trim barrier")

    def at_trim_read(self, world: World, i: int, process: Actor) -> Steps:
        slot, _ = process.target
        seen = self.load(world, process, cell(slot, COUNTER))
        yield f"{i} reads counter {seen}", world.put(i, process._replace(at="trim", seen=(seen,)))

    def at_trim(self, world: World, i: int, process: Actor) -> Steps:
        slot, own = process.target
        assert isinstance(own, Reservation)
        used = min(max(0, process.seen[0] - own.begin), events.RESERVE_MOST)
        yield from self.append(world, i, process, [events.trim(slot, used, own.grant)], "trim")

    def did_trim(self, world: World, i: int, process: Actor, verdicts: tuple[Verdict, ...]) -> Iterator[World]:
        yield world.put(i, process._replace(at="idle", target=None, seen=()))

    # -- gets

    def role_consumer(self, world: World, i: int, process: Actor) -> Steps:
        truth = self.rules.views[world.journal]
        if process.left and (truth.head < truth.tail or self.cuts(truth, self.counters(world, process))):
            after, process, ledger = self.looks(world, i, process)
            there = ledger.head < ledger.tail
            at = "claim" if there else "read"
            yield f"{i} looks: {'an item' if there else 'nothing'}", after.put(i, process._replace(at=at))

    def at_read(self, world: World, i: int, process: Actor) -> Steps:
        yield from self.reads(world, i, process, process.target or "claim")

    def at_claim(self, world: World, i: int, process: Actor) -> Steps:
        ledger = self.rules.views[process.view]
        cuts = self.cuts(ledger, process.seen) if process.seen else []
        process = process._replace(seen=(), target=None)
        if process.role == "leaser" and process.places:
            process = process._replace(places=process.places - 1)
            batch = [*cuts, events.lease(process.slot, max(2, self.maxsize))]
            yield from self.append(world, i, process, batch, "lease")
            return
        yield from self.append(world, i, process, [*cuts, events.claim(9)], "claim")

    def did_claim(self, world: World, i: int, process: Actor, verdicts: tuple[Verdict, ...]) -> Iterator[World]:
        if self.is_void(process):
            yield self.ends_sole(world, i, process._replace(at="idle"))
        elif verdicts[-1] is None:
            yield world.put(i, process._replace(at="idle", view=0))
        elif process.tasks:
            yield world.put(i, process._replace(at="read", target="task", left=process.left - 1))
        else:
            yield world.put(i, process._replace(at="idle", left=process.left - 1, view=0))

    def at_task(self, world: World, i: int, process: Actor) -> Steps:
        cuts = self.cuts(self.rules.views[process.view], process.seen)
        if "cuts before task" in self.without:
            cuts = []
        process = process._replace(seen=(), target=None)
        yield from self.append(world, i, process, [*cuts, events.task_done()], "task")

    def did_task(self, world: World, i: int, process: Actor, verdicts: tuple[Verdict, ...]) -> Iterator[World]:
        if self.is_void(process):
            yield self.ends_sole(world, i, process._replace(at="read", target="task"))
            return
        if verdicts[-1] == 0 and process.mask & ~world.account.cut:
            raise Violation("early", f"a join ends, and {names_of(process.mask & ~world.account.cut)} was put before")
        yield world.put(i, process._replace(at="idle", mask=0, view=0))

    # -- leases

    def role_leaser(self, world: World, i: int, process: Actor) -> Steps:
        """Leases what there is, two at a time, or as many as there are places, and delivers it; ends the lease of
        another that it meets."""
        truth = self.rules.views[world.journal]
        if process.lease is not None:
            if process.got < len(process.hand) and process.left:
                item = process.lease.first + process.got
                stored = process._replace(at="lease_look", buffer=(*process.buffer, (self.position(process), item + 1)))
                yield f"{i} stores position {item + 1}", world.put(i, stored)
            else:
                batch = [events.revoke(process.got, process.lease.number)]
                yield from self.append(world, i, process, batch, "give_back")
            return
        if not process.left:
            return
        if truth.holds.returned:
            after, process, _ = self.looks(world, i, process)
            yield f"{i} sees that an item has come back", after.put(i, process._replace(at="hold"))
        elif truth.leases.standing is not None:
            if process.trims:
                after, process, _ = self.looks(world, i, process)
                yield from self.revokes(after, i, process._replace(trims=process.trims - 1))
        elif truth.head < truth.tail or self.cuts(truth, self.counters(world, process)):
            after, process, ledger = self.looks(world, i, process)
            if not process.places:
                at = "claim" if ledger.head < ledger.tail else "read"
                yield f"{i} wants to claim", after.put(i, process._replace(at=at))
                return
            cleared = ((cell(process.slot, LEASE_FLAG), 0), (self.position(process), ledger.head))
            if "lease position cleared" in self.without:
                cleared = cleared[:1]
            process = process._replace(at="read", buffer=process.buffer + cleared)
            yield f"{i} clears its flag and position", after.put(i, process)

    def revokes(self, world: World, i: int, process: Actor) -> Steps:
        """Begins to end the lease that it sees."""
        lease = self.rules.views[process.view].leases.standing
        assert lease is not None
        if self.rules.views[process.view].leases.sole:
            world = self.ends_sole(world, i, process._replace(at=process.mode or "idle", mode=""), True)
            yield f"{i} is to end lease {lease.number} of all", world
            return
        if (seen := self.load(world, process, cell(lease.slot, POSITION))) >= lease.end:
            process = process._replace(at="revoke", target=lease, seen=(seen,))
            yield f"{i} sees that lease {lease.number} is wholly delivered", world.put(i, process)
            return
        raised = (*process.buffer, (cell(lease.slot, LEASE_FLAG), 1))
        process = process._replace(at="revoke_barrier", target=lease, buffer=raised)
        yield f"{i} raises the flag of lease {lease.number}", world.put(i, process)

    @staticmethod
    def position(process: Actor) -> int:
        return cell(process.slot, POSITION)

    def did_lease(self, world: World, i: int, process: Actor, verdicts: tuple[Verdict, ...]) -> Iterator[World]:
        lease = verdicts[-1]
        process = process._replace(seen=(), mask=0, at="idle", target=None)
        if isinstance(lease, Lease):
            hand = world.account.queue[: lease.end - lease.first]
            process = process._replace(lease=lease, hand=hand, got=0)
        yield world.put(i, process)

    def at_lease_look(self, world: World, i: int, process: Actor) -> Steps:
        up = self.load(world, process, cell(process.slot, LEASE_FLAG))
        if up and "lease look" not in self.without:
            yield f"{i} sees its lease's flag up", world.put(i, process._replace(at="contest"))
        else:
            truth = self.rules.views[world.journal]
            # Else it was ended behind this item, which was taken before that.
            if truth.holds.returned and truth.leases.standing == process.lease:
                raise Violation("overlooked", "an item has come back, and a lease goes on")
            yield f"{i} sees its lease's flag down", self.gets(world, i, process)

    def gets(self, world: World, i: int, process: Actor) -> World:
        account = delivered(world.account, process.hand[process.got])
        process = process._replace(at="idle", got=process.got + 1, left=process.left - 1)
        return world.put(i, process, account=account)

    def at_contest(self, world: World, i: int, process: Actor) -> Steps:
        assert process.lease is not None
        yield from self.append(world, i, process, [events.revoke(process.got + 1, process.lease.number)], "contest")

    def did_contest(self, world: World, i: int, process: Actor, verdicts: tuple[Verdict, ...]) -> Iterator[World]:
        assert process.lease is not None
        number, base = self.rules.views[process.view].leases.ended.get(process.slot, (0, 0))
        if number != process.lease.number:
            raise Violation("forgotten", f"where lease {process.lease.number} ended is not known to its holder")
        if base > process.lease.first + process.got or "contest lost" in self.without:
            world = self.gets(world, i, process)
            process = world.processes[i]
        yield world.put(i, process._replace(lease=None, hand=(), got=0, at="idle"))

    def did_give_back(self, world: World, i: int, process: Actor, verdicts: tuple[Verdict, ...]) -> Iterator[World]:
        yield world.put(i, process._replace(lease=None, hand=(), got=0, at="idle"))

    def at_revoke_barrier(self, world: World, i: int, process: Actor) -> Steps:
        yield from self.barrier(world, i, process, "revoke_read", "lease barrier")

    def at_revoke_read(self, world: World, i: int, process: Actor) -> Steps:
        seen = self.load(world, process, cell(process.target.slot, POSITION))
        yield f"{i} reads position {seen}", world.put(i, process._replace(at="revoke", seen=(seen,)))

    def at_revoke(self, world: World, i: int, process: Actor) -> Steps:
        lease = process.target
        count = min(max(0, process.seen[0] - lease.first), events.LEASE_MOST)
        process = process._replace(seen=(), target=None)
        yield from self.append(world, i, process, [events.revoke(count, lease.number)], "revoke")

    def did_revoke(self, world: World, i: int, process: Actor, verdicts: tuple[Verdict, ...]) -> Iterator[World]:
        yield world.put(i, process._replace(at=process.mode or "idle", mode="", view=0))

    # -- leases of all that comes

    def is_void(self, process: Actor) -> bool:
        """What it has just appended was void, for such a lease stands."""
        return self.rules.views[process.view].leases.sole and "ends" not in self.without

    @staticmethod
    def ends_sole(world: World, i: int, process: Actor, alone: bool = False) -> World:
        """It ends the lease that stands by its view, and goes on where it is; or ``alone``, before it does."""
        back = process._replace(buffer=())
        return world.put(i, process._replace(at="sole_raise", saved=back, mode="alone" if alone else ""))

    def ends_of(self, ledger: Ledger, given: dict[int, int]) -> list[bytes]:
        """The events that end the lease of all that comes, by its cells."""
        lease = ledger.leases.standing
        assert lease is not None
        batch = []
        for slot, filling in sorted(ledger.files.filling.items()):
            if ledger.totals[slot] < given[slot] <= filling.stop and "delivered" not in self.without:
                batch.append(events.delivered(slot, given[slot], lease.number))
        return [*batch, events.revoke(0, lease.number)]

    def at_sole_raise(self, world: World, i: int, process: Actor) -> Steps:
        lease = self.rules.views[process.view].leases.standing
        assert lease is not None
        raised = () if "sole raise" in self.without else ((cell(lease.slot, LEASE_FLAG), 1),)
        process = process._replace(at="sole_barrier", target=lease, seen=(), buffer=process.buffer + raised)
        yield f"{i} raises the flag of lease {lease.number} of all", world.put(i, process)

    def at_sole_barrier(self, world: World, i: int, process: Actor) -> Steps:
        yield from self.barrier(world, i, process, "sole_read", "sole barrier")

    def at_sole_read(self, world: World, i: int, process: Actor) -> Steps:
        """One cell after the other."""
        ledger = self.rules.views[process.view]
        slots = sorted(ledger.files.filling)
        seen = process.seen
        if len(seen) < len(slots):
            seen = (*seen, self.load(world, process, cell(slots[len(seen)], GIVEN)))
        if len(seen) < len(slots):
            yield f"{i} reads {seen}", world.put(i, process._replace(seen=seen))
            return
        ends = tuple(self.ends_of(ledger, dict(zip(slots, seen))))
        back = process.saved._replace(buffer=process.buffer, view=process.view, ends=ends)
        if process.mode:
            back = back._replace(at="sole_end", saved=process.saved)
        yield f"{i} reads {seen}: {' '.join(map(show, ends))}", world.put(i, back)

    def at_sole_end(self, world: World, i: int, process: Actor) -> Steps:
        yield from self.append(world, i, process, (), "sole_end")

    def did_sole_end(self, world: World, i: int, process: Actor, verdicts: tuple[Verdict, ...]) -> Iterator[World]:
        yield world.put(i, process.saved._replace(buffer=process.buffer, view=process.view))

    def role_sole(self, world: World, i: int, process: Actor) -> Steps:
        """Leases all that comes, and delivers it; ends the lease of another that it meets."""
        truth = self.rules.views[world.journal]
        counters = self.counters(world, process)
        if process.lease is not None:
            ledger = self.rules.views[process.view]
            for slot, filling in ledger.files.filling.items() if process.left else ():
                n = self.load(world, process, cell(slot, GIVEN))
                if n < counters[slot] <= filling.stop:
                    place = filling.file.member, filling.file.serial, n - filling.first
                    yield from self.takes(world, i, process, slot, n, place)
            if truth.leases.standing is None or truth.leases.standing.number != process.lease.number:
                # Who finds nothing looks at the journal before it sleeps.
                after, process, _ = self.looks(world, i, process)
                yield f"{i} finds its lease ended", after.put(i, process._replace(lease=None))
            elif not process.left or process.leaves:
                at = process._replace(at="sole_own", target=None, hand=())
                yield f"{i} ends its lease", world.put(i, at)
            return
        if not process.left or not (truth.head < truth.tail or self.cuts(truth, counters)):
            return
        after, process, ledger = self.looks(world, i, process)
        if ledger.leases.sole:
            yield f"{i} is to end a lease of all", self.ends_sole(after, i, process, True)
        elif ledger.head < ledger.tail or not process.places:
            at = "claim" if ledger.head < ledger.tail else "read"
            yield f"{i} wants to claim", after.put(i, process._replace(at=at))
        else:
            lowered = (*process.buffer, (cell(process.slot, LEASE_FLAG), 0))
            process = process._replace(at="sole", places=process.places - 1, buffer=lowered)
            yield f"{i} lowers its flag", after.put(i, process)

    def at_sole(self, world: World, i: int, process: Actor) -> Steps:
        yield from self.append(world, i, process, [events.lease_all(process.slot)], "sole")

    def did_sole(self, world: World, i: int, process: Actor, verdicts: tuple[Verdict, ...]) -> Iterator[World]:
        lease = verdicts[-1]
        if isinstance(lease, Lease):
            ledger = self.rules.views[process.view]
            # Not before the LEASE: others may cut until then.
            stores = tuple((cell(slot, GIVEN), ledger.totals[slot]) for slot in ledger.files.filling)
            process = process._replace(lease=lease)
            if "sole cells" not in self.without:
                process = process._replace(buffer=(*process.buffer, *stores))
        yield world.put(i, process._replace(at="idle"))

    def takes(self, world: World, i: int, process: Actor, slot: int, n: int, place: tuple[int, int, int]) -> Steps:
        """Copies a record, and stores that it is taken."""
        value = dict(world.records).get(place)
        if value is None:
            if self.rules.views[world.journal].leases.standing != process.lease:
                value = -1  # it may be another's, and its file gone: of no interest if the flag is seen up
            else:
                raise Violation("made up", f"record {n} of slot {slot} is taken, and nobody sees what stands there")
        stored = process._replace(
            at="sole_look", target=(slot, n + 1), hand=(value,), buffer=(*process.buffer, (cell(slot, GIVEN), n + 1))
        )
        yield f"{i} takes record {n} of slot {slot}", world.put(i, stored)

    def at_sole_look(self, world: World, i: int, process: Actor) -> Steps:
        if self.load(world, process, cell(process.slot, LEASE_FLAG)) and "sole look" not in self.without:
            yield f"{i} sees its flag up", world.put(i, process._replace(at="sole_contest"))
        else:
            yield f"{i} sees its flag down", self.gets_one(world, i, process)

    def gets_one(self, world: World, i: int, process: Actor) -> World:
        value = process.hand[0]
        if value < 0:
            raise Violation("made up", "a record is delivered that nobody sees")
        account = delivered(world.account, value)
        process = process._replace(at="idle", target=None, hand=(), left=process.left - 1)
        return world.put(i, process, account=account)

    def at_sole_contest(self, world: World, i: int, process: Actor) -> Steps:
        after, process, ledger = self.looks(world, i, process)
        assert process.lease is not None
        if ledger.leases.standing is not None and ledger.leases.standing.number == process.lease.number:
            yield f"{i} finds its lease standing", after.put(i, process._replace(at="sole_own"))
        else:
            for decided in self.did_sole_own(after, i, process, ()):
                yield f"{i} finds its lease ended", decided

    def at_sole_own(self, world: World, i: int, process: Actor) -> Steps:
        ledger = self.rules.views[process.view]
        batch: list[bytes] = []
        assert process.lease is not None
        if ledger.leases.standing is not None and ledger.leases.standing.number == process.lease.number:
            batch = self.ends_of(
                ledger, {slot: self.load(world, process, cell(slot, GIVEN)) for slot in ledger.files.filling}
            )
        yield from self.append(world, i, process, batch, "sole_own")

    def did_sole_own(self, world: World, i: int, process: Actor, verdicts: tuple[Verdict, ...]) -> Iterator[World]:
        ledger = self.rules.views[process.view]
        assert process.lease is not None
        if process.target is None:
            yield world.put(i, process._replace(at="idle", lease=None, places=0 if process.leaves else process.places))
            return
        slot, total = process.target
        if ledger.leases.given_of != process.lease.number:
            raise Violation("forgotten", f"where lease {process.lease.number} ended is not known to its holder")
        if ledger.leases.given.get(slot, 0) >= total or "sole contest lost" in self.without:
            world = self.gets_one(world, i, process)
            process = world.processes[i]
        else:
            # Else a put would take it for got, and not cut before it.
            process = process._replace(buffer=(*process.buffer, (cell(slot, GIVEN), total - 1)))
        yield world.put(i, process._replace(at="idle", lease=None, hand=(), target=None))

    def role_passer(self, world: World, i: int, process: Actor) -> Steps:
        """Says in the journal how far the lease that it sees is delivered, and asks nobody."""
        if process.left and self.rules.views[world.journal].leases.standing is not None:
            after, process, ledger = self.looks(world, i, process)
            assert ledger.leases.standing is not None
            at = process._replace(at="pass_read", target=ledger.leases.standing)
            yield f"{i} looks: lease {ledger.leases.standing.number}", after.put(i, at)

    def at_pass_read(self, world: World, i: int, process: Actor) -> Steps:
        seen = self.load(world, process, cell(process.target.slot, POSITION))
        yield f"{i} reads position {seen}", world.put(i, process._replace(at="pass", seen=(seen,)))

    def at_pass(self, world: World, i: int, process: Actor) -> Steps:
        lease = process.target
        count = min(max(0, process.seen[0] - lease.first), lease.end - lease.first)
        process = process._replace(seen=(), target=None)
        said = events.revoke if lease.first + count == lease.end else events.passed
        yield from self.append(world, i, process, [said(count, lease.number)], "pass")

    def did_pass(self, world: World, i: int, process: Actor, verdicts: tuple[Verdict, ...]) -> Iterator[World]:
        yield world.put(i, process._replace(at="idle", left=process.left - 1, view=0))

    # -- blocks, whose items may come back

    def role_holder(self, world: World, i: int, process: Actor) -> Steps:
        """Holds the oldest item while a block runs; ends any lease that is in its way."""
        truth = self.rules.views[world.journal]
        uncut = self.cuts(truth, self.counters(world, process))
        if not process.left or not (truth.holds.returned or truth.low < truth.tail or uncut):
            return
        after, process, ledger = self.looks(world, i, process)
        if ledger.leases.standing is not None:
            yield from self.revokes(after, i, process)
        elif ledger.holds.returned or ledger.head < ledger.tail:
            yield f"{i} looks: an item", after.put(i, process._replace(at="hold"))
        else:
            yield f"{i} looks: nothing", after.put(i, process._replace(at="read", target="hold"))

    def at_hold(self, world: World, i: int, process: Actor) -> Steps:
        cuts = self.cuts(self.rules.views[process.view], process.seen) if process.seen else []
        process = process._replace(seen=(), target=None)
        yield from self.append(world, i, process, [*cuts, events.hold(process.slot)], "hold")

    def did_hold(self, world: World, i: int, process: Actor, verdicts: tuple[Verdict, ...]) -> Iterator[World]:
        held = verdicts[-1]
        if isinstance(held, Held):
            hand = (dict(world.account.apart)[held.item],)
            yield world.put(i, process._replace(at="block", hold=held.number, hand=hand))
        else:
            yield world.put(i, process._replace(at="idle", view=0))

    def at_block(self, world: World, i: int, process: Actor) -> Steps:
        yield from self.append(world, i, process, [events.got(process.hold)], "got")
        if process.gives_back:
            given = process._replace(gives_back=process.gives_back - 1)
            yield from self.append(world, i, given, [events.return_(process.hold)], "return")

    def did_got(self, world: World, i: int, process: Actor, verdicts: tuple[Verdict, ...]) -> Iterator[World]:
        if verdicts[-1] is None:
            raise Violation("forgotten", f"{names_of(sum(1 << one for one in process.hand))} was held, and is not")
        yield world.put(i, process._replace(at="idle", left=process.left - 1, hold=-1, hand=(), view=0))

    def did_return(self, world: World, i: int, process: Actor, verdicts: tuple[Verdict, ...]) -> Iterator[World]:
        yield world.put(i, process._replace(at="idle", hold=-1, hand=(), view=0))

    # -- the dead, and who comes after them

    def role_burier(self, world: World, i: int, process: Actor) -> Steps:
        if not process.left:
            return
        for slot, member in self.rules.views[world.journal].members.by_slot.items():
            if world.locks[slot] < 0:
                locks = (*world.locks[:slot], i, *world.locks[slot + 1 :])
                if "sync under the lock" in self.without:
                    yield from self.buries(world, i, process, slot, member.number, locks, ())
                    return
                at = process._replace(at="bury_look", target=(slot, member.number))
                yield f"{i} locks slot {slot} to bury {member.number}", world.put(i, at, locks=locks)

    def buries(
        self, world: World, i: int, process: Actor, slot: int, number: int, locks: tuple[int, ...], seen: Any
    ) -> Steps:
        """A mutant: the burier looks at the journal and only then takes the lock."""
        at = process._replace(at="bury_read", target=(slot, number))
        yield f"{i} locks slot {slot} to bury {number}, looks no more", world.put(i, at, locks=locks)

    def at_bury_look(self, world: World, i: int, process: Actor) -> Steps:
        slot, number = process.target
        after, process, ledger = self.looks(world, i, process)
        member = ledger.members.by_slot.get(slot)
        if member is None or member.number != number:
            locks = (*world.locks[:slot], -1, *world.locks[slot + 1 :])
            yield f"{i} finds nobody there", after.put(i, process._replace(at="idle", target=None), locks=locks)
            return
        yield f"{i} looks under the lock", after.put(i, process._replace(at="bury_read"))

    def at_bury_read(self, world: World, i: int, process: Actor) -> Steps:
        slot, _ = process.target
        seen = self.load(world, process, cell(slot, COUNTER))
        at = process._replace(at="bury", seen=(seen,), buffer=(*process.buffer, (cell(slot, FLAG), 0)))
        yield f"{i} reads counter {seen} of the dead, clears its cells", world.put(i, at)

    def at_bury(self, world: World, i: int, process: Actor) -> Steps:
        slot, number = process.target
        ledger = self.rules.views[process.view]
        yield from self.append(world, i, process, self.farewells(ledger, slot, process.seen[0], number), "bury")

    def did_bury(self, world: World, i: int, process: Actor, verdicts: tuple[Verdict, ...]) -> Iterator[World]:
        slot, _ = process.target
        if self.is_void(process):
            yield self.ends_sole(world, i, process._replace(at="bury_read"))
            return
        locks = (*world.locks[:slot], -1, *world.locks[slot + 1 :])
        yield world.put(
            i, process._replace(at="idle", target=None, seen=(), left=process.left - 1, view=0), locks=locks
        )

    def role_newcomer(self, world: World, i: int, process: Actor) -> Steps:
        if process.left:
            yield from self.append(world, i, process, [events.join(process.becomes != "producer")], "join")

    def did_join(self, world: World, i: int, process: Actor, verdicts: tuple[Verdict, ...]) -> Iterator[World]:
        slot = verdicts[0]
        assert isinstance(slot, int)
        number = self.rules.views[process.view].members.by_slot[slot].number
        yield world.put(i, process._replace(at="lock", slot=slot, number=number, left=process.left - 1))

    def at_lock(self, world: World, i: int, process: Actor) -> Steps:
        slot = process.slot
        if world.locks[slot] < 0:
            locks = (*world.locks[:slot], i, *world.locks[slot + 1 :])
            yield f"{i} locks its slot {slot}", world.put(i, process._replace(at="clear"), locks=locks)
        else:
            yield f"{i} finds its slot {slot} locked", world.put(i, process._replace(at="idle", slot=-1, number=-1))

    def at_clear(self, world: World, i: int, process: Actor) -> Steps:
        stores: tuple[Store, ...] = () if "join flag" in self.without else ((cell(process.slot, FLAG), 0),)
        at = process._replace(at="join_look", buffer=process.buffer + stores)
        yield f"{i} clears its cells", world.put(i, at)

    def at_join_look(self, world: World, i: int, process: Actor) -> Steps:
        slot = process.slot
        if "join sync" in self.without:
            ledger = self.rules.views[process.view]
            after, process = self.fence(world, i, process)
        else:
            after, process, ledger = self.looks(world, i, process)
        member = ledger.members.by_slot.get(slot)
        if member is None or member.number != process.number:
            locks = (*world.locks[:slot], -1, *world.locks[slot + 1 :])
            yield f"{i} was buried", after.put(i, process._replace(at="idle", slot=-1, number=-1), locks=locks)
            return
        total = 0 if "counter cleared" in self.without else ledger.totals[slot]
        if self.load(after, process, cell(slot, COUNTER)) != total and "counter set" not in self.without:
            process = process._replace(buffer=(*process.buffer, (cell(slot, COUNTER), total)))
        others = tuple(other for other in ledger.files.filling if other != slot)
        raises = self.maxsize and process.becomes == "producer" and len(others) == 1
        at = "join_raise" if raises and "told" not in self.without else "idle"
        process = process._replace(role=process.becomes, at=at, left=process.puts, target=others if raises else None)
        yield f"{i} is in", after.put(i, process)

    def at_join_raise(self, world: World, i: int, process: Actor) -> Steps:
        """Who is alone may put wherever there is a place: from now on it is to ask."""
        (other,) = process.target
        raised = process._replace(buffer=(*process.buffer, (cell(other, FLAG), 1)), at="join_barrier", target=None)
        yield f"{i} raises the flag of slot {other}", world.put(i, raised)

    def at_join_barrier(self, world: World, i: int, process: Actor) -> Steps:
        yield from self.barrier(world, i, process, "idle", "join barrier")

    # -- shutting down

    def role_closer(self, world: World, i: int, process: Actor) -> Steps:
        if process.left:
            yield from self.append(world, i, process, [events.closing(process.immediate)], "closing")

    def did_closing(self, world: World, i: int, process: Actor, verdicts: tuple[Verdict, ...]) -> Iterator[World]:
        yield world.put(i, process._replace(at="help", left=0))

    def at_help(self, world: World, i: int, process: Actor) -> Steps:
        after, process, ledger = self.looks(world, i, process)
        if ledger.ending.shut >= ledger.ending.shutting:
            yield f"{i} finds it shut", after.put(i, process._replace(at="idle"))
            return
        if (ledger.ending.shutting == SHUT_AT_ONCE and ledger.leases.standing is not None) or self.is_void(process):
            yield from self.revokes(after, i, process._replace(mode="help"))
            return
        raised: tuple[Store, ...] = tuple((cell(slot, FLAG), 1) for slot in ledger.files.filling)
        if "raise" in self.without:
            raised = ()
        at = process._replace(at="help_barrier", buffer=process.buffer + raised)
        yield f"{i} raises all flags", after.put(i, at)

    def at_help_barrier(self, world: World, i: int, process: Actor) -> Steps:
        yield from self.barrier(world, i, process, "help_read", "help barrier")

    def at_help_read(self, world: World, i: int, process: Actor) -> Steps:
        seen = self.counters(world, process)
        process = process._replace(at="help_sync" if self.x86 else "help_barrier_2", seen=seen)
        yield f"{i} reads counters {seen}", world.put(i, process)

    def at_help_barrier_2(self, world: World, i: int, process: Actor) -> Steps:
        yield from self.barrier(world, i, process, "help_sync", "cut barrier")

    def at_help_sync(self, world: World, i: int, process: Actor) -> Steps:
        if "sync after counters" not in self.without:
            world, process, _ = self.looks(world, i, process)
        yield f"{i} looks again", world.put(i, process._replace(at="shut"))

    def at_shut(self, world: World, i: int, process: Actor) -> Steps:
        ledger = self.rules.views[process.view]
        cuts = [] if "cuts before shutdown" in self.without else self.cuts(ledger, process.seen)
        event = events.shutdown(ledger.ending.shutting == SHUT_AT_ONCE)
        yield from self.append(world, i, process, [*cuts, event], "shut")

    def did_shut(self, world: World, i: int, process: Actor, verdicts: tuple[Verdict, ...]) -> Iterator[World]:
        ledger = self.rules.views[process.view]
        at = "idle" if ledger.ending.shut >= ledger.ending.shutting else "help"
        yield world.put(i, process._replace(at=at, seen=()))


# -- the account


def cut_one(account: Account, value: Optional[int], where: str) -> Account:
    if value is None:
        raise Violation("made up", f"{where} is cut, and nobody sees what stands there")
    if account.cut >> value & 1:
        raise Violation("twice", f"{name_of(value)} is cut again")
    if (account.refused | account.skipped) >> value & 1:
        raise Violation("refused", f"{name_of(value)}'s put was refused, and it is cut")
    later = account.cut >> value & (1 << PUTS - value % PUTS) - 1
    if later:
        raise Violation("order", f"{name_of(value)} is cut behind one that was put after it")
    return account._replace(cut=account.cut | 1 << value, queue=(*account.queue, value))


def delivered(account: Account, value: int) -> Account:
    if account.delivered >> value & 1:
        raise Violation("twice", f"{name_of(value)} is delivered again")
    return account._replace(delivered=account.delivered | 1 << value)


def no_marks(slot: int) -> list[int]:
    """Nobody asks when something was put: that is another model's."""
    return []


def is_free(process: Actor) -> bool:
    """It does not hold its process's lock."""
    return process.at in FREE and not process.mode


def bits(mask: int) -> list[int]:
    return [bit for bit in range(mask.bit_length()) if mask >> bit & 1]


def name_of(value: int) -> str:
    return f"put {value % PUTS} of {value // PUTS}"


def names_of(mask: int) -> str:
    return ", ".join(map(name_of, bits(mask)))


NAMES: Final = {getattr(events, name): name for name in reversed(events.__all__) if name.isupper()}
"""Of events, by type."""


def show(event: bytes) -> str:
    word = int.from_bytes(event, "little")
    return f"{NAMES[event[0]]}({word >> 8 & 0xFFFF}, {word >> 24})"
