"""An explicit-state checker of marks: what several producers put is cut in the order of time, but for a period.

Lives here: puts with their marks, as ``Log.mark`` makes them, and cuts, by the package's own ``Ledger.grown`` and
``Ledger.cuts``, step by step, to be explored by ``explorer.explore``.  Not here: the machine (``store_buffers``); the
cases, and what goes wrong when a part is left out (``test_cut_marks``); what becomes of an item, and kills that
somebody has to notice (``logs_checker``); leases of all that comes, under which a log's marks are packed without a cut;
threads that share a log; a cut that a full disk prevents.

One step is one load, one append to the journal, one look at it, one tick of the clock, or one buffered store that
becomes visible.  Nobody has to go on: whatever a cutter or producer that is stopped or killed there leaves behind, a
way on which it makes no further step shows it.

A put begins when its producer looks at the clock, and ends when the store of its counter is visible.  (A store buffer
holds that for a moment after the put has returned.)  The counters are read within one tick, or read again.

Invariant: no item stands before one whose put had ended more than ``bound`` ticks before its own began.  ``bound`` is
the period of the marks: for so long a put belongs to the last one.  Nothing else adds to it: not for how long a cutter
or producer stands still, nor who cuts, nor how many marks are used.  (Counters that are read for longer than a period
would.)  The items of a log stand in their order, and each of them once.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from functools import cache
from itertools import chain, repeat
from typing import Any, Final, NamedTuple, Optional

from explorer import Violation
from store_buffers import Machine, Steps, Store

from tqshim.protocol import events
from tqshim.protocol.ledger import Ledger

NEVER: Final = -1
"""Where no time is known."""


class Process(NamedTuple):
    """A producer, or one who cuts only."""

    puts: bool = True
    left: int = 1
    """Puts or cuts that it still wants."""
    at: str = "idle"
    buffer: tuple[Store, ...] = ()
    waits: Optional[tuple[int, ...]] = None
    made: int = 0
    """What its counter says."""
    used: int = 0
    """Marks that are used; 0: whatever they say is a former log's."""
    fails: int = 0
    """So many of its puts, at most, do not go the short way."""
    due: int = NEVER
    """Until then a put belongs to the last mark."""
    now: int = NEVER
    """When it has last looked at the clock."""
    again: bool = False
    """This put has cut already, to have marks."""
    seen: tuple[int, ...] = ()
    """Counters as it has read them."""
    view: tuple[int, ...] = ()
    """What is cut, as its ledger says."""
    marks: tuple[int, ...] = ()
    """Words of marks as it has read them, log by log."""
    rest: bytes = b""
    """CUTs that it has not appended yet."""


class World(NamedTuple):
    """A state of one machine."""

    clock: int
    cells: tuple[int, ...]
    processes: tuple[Process, ...]
    cut: tuple[int, ...]
    """By log: how far it is cut, as the journal says."""
    begun: tuple[tuple[int, ...], ...]
    """By log: when the puts began of what is not cut."""
    ended: tuple[tuple[int, ...], ...]
    """By log: when they ended, where they have."""

    def put(self, i: int, process: Process, **changes: Any) -> World:
        return self._replace(processes=(*self.processes[:i], process, *self.processes[i + 1 :]), **changes)


@cache
def ledger_of(cut: tuple[int, ...]) -> Ledger:
    """A ledger in which the logs are cut so far, to be looked at only."""
    ledger = Ledger()
    for slot in range(len(cut)):
        for event in (events.join(False), events.open_(slot, 1)):
            ledger.step(int.from_bytes(event, "little"))
    for slot, total in enumerate(cut):
        ledger.step(int.from_bytes(events.cut(slot, total), "little"))
    return ledger


@cache
def appended(cut: tuple[int, ...], data: bytes) -> tuple[tuple[int, int], ...]:
    """The items that these CUTs cut there, in their order: log and record."""
    ledger = ledger_of.__wrapped__(cut)
    logs = {member.number: slot for slot, member in ledger.members.by_slot.items()}
    first = ledger.tail
    for at in range(0, len(data), events.SIZE):
        ledger.step(int.from_bytes(data[at : at + events.SIZE], "little"))
    places = [ledger.place(item) for item in range(first, ledger.tail)]
    return tuple((logs[place.file.member], place.record) for place in places)


def cuts_of(view: tuple[int, ...], seen: tuple[int, ...], marks: dict[int, list[int]]) -> bytes:
    """What ``Membership.cuts`` makes of it."""
    ledger = ledger_of(view)
    return ledger.cuts(grown_of(view, seen), marks.__getitem__) if grown_of(view, seen) else b""


@cache
def grown_of(view: tuple[int, ...], seen: tuple[int, ...]) -> list[tuple[int, int]]:
    return ledger_of(view).grown(array("Q", seen).tobytes())


class Marks(Machine):
    """Puts and cuts.  The cells of each log: a counter, how far it is cut, and its marks.

    ``puts``, ``cuts``: how many each producer and each cutter wants.  ``most``: marks of one log.  ``ticks``: of the
    clock, in all; it starts at 1, for the marks of a new log say 0.  ``period``: ticks for which a put belongs to the
    last mark; 0: those of one tick do.  ``fails``: how many puts of each producer, at most, get a mark or have one, but
    not on the short way: they put nothing, or look at the clock once more, or go on in another file.  ``apart``: CUTs
    are appended one by one.  Left out by name (``without``): parts of the protocol; ``self.without`` is asked where
    each of them stands."""

    def __init__(
        self,
        *puts: int,
        cuts: Iterable[int] = (1,),
        most: int = 2,
        ticks: int = 3,
        period: int = 1,
        bound: Optional[int] = None,
        fails: Iterable[int] = (),
        apart: bool = False,
        without: Iterable[str] = (),
        x86: bool = True,
    ) -> None:
        self.processes = (
            *(Process(left=left, fails=some) for left, some in zip(puts, chain(fails, repeat(0)))),
            *(Process(False, left) for left in cuts),
        )
        self.logs = len(puts)
        self.most = most
        self.last = 1 + ticks
        self.period = period
        self.bound = period if bound is None else bound
        self.apart = apart
        self.without = frozenset(without)
        self.x86 = x86
        self.cells = 2 + 2 * most

    def counter(self, slot: int) -> int:
        return slot * self.cells

    def cut_up_to(self, slot: int) -> int:
        return slot * self.cells + 1

    def mark(self, slot: int, word: int) -> int:
        return slot * self.cells + 2 + word

    def start(self) -> World:
        nothing = ((),) * self.logs
        return World(1, (0,) * (self.logs * self.cells), self.processes, (0,) * self.logs, nothing, nothing)

    def visible(self, world: World, stores: tuple[Store, ...]) -> World:
        """As ``Machine`` does it; and what is counted now is put."""
        world = super().visible(world, stores)
        for place, value in stores:
            slot, word = divmod(place, self.cells)
            if not word:
                ended = world.ended[slot]
                ended += (world.clock,) * (value - world.cut[slot] - len(ended))
                world = world._replace(ended=(*world.ended[:slot], ended, *world.ended[slot + 1 :]))
        return world

    def steps(self, world: World) -> Steps:
        if world.clock < self.last:
            yield "tick", world._replace(clock=world.clock + 1)
        for i, process in enumerate(world.processes):
            yield from self.drains(world, i, process)
            yield from getattr(self, "at_" + process.at)(world, i, process)

    def settled(self, world: World) -> None:
        """All is done: what is not cut is cut by one more, which stops nowhere."""
        marks = {slot: [world.cells[self.mark(slot, at)] for at in range(2 * self.most)] for slot in range(self.logs)}
        seen = tuple(world.cells[self.counter(slot)] for slot in range(self.logs))
        after = self.apply(world, self.cuts(world.cut, seen, marks))
        made = tuple(process.made for process in world.processes if process.puts)
        if after.cut != made:
            raise Violation("lost", f"of {made} records {after.cut} are cut")

    # -- putting

    def at_idle(self, world: World, i: int, process: Process) -> Steps:
        if not process.left:
            return
        process = process._replace(left=process.left - 1)
        if not process.puts:
            first = "marks" if "counters first" in self.without else "counters"
            yield f"{i} begins to cut", world.put(i, process._replace(at=first))
            return
        begun = (*world.begun[:i], (*world.begun[i], world.clock), *world.begun[i + 1 :])
        yield from self.looks(world._replace(begun=begun), i, process, f"{i} begins to put")

    def at_clock(self, world: World, i: int, process: Process) -> Steps:
        yield from self.looks(world, i, process, f"{i} looks at the clock again")

    def looks(self, world: World, i: int, process: Process, label: str) -> Steps:
        if world.clock > process.due:
            yield label, world.put(i, process._replace(now=world.clock, at="mark"))
        else:
            yield from self.puts(world, i, process, label)

    def at_mark(self, world: World, i: int, process: Process) -> Steps:
        """As ``Log.mark``: one load of what is cut, and what only its producer stores.  Without a mark as
        ``puts.put_once`` and ``Producer._commit``."""
        used = process.used
        if self.load(world, process, self.cut_up_to(i)) == process.made:
            used = 0
        elif used and "overwritten" not in self.without and self.last_mark(world, i, process) == process.made:
            used -= 1
        elif used == self.most and "whole" in self.without:
            used = 0
        elif not 0 < used < self.most:
            if process.again or "cut first" in self.without:
                # It belongs to whatever mark there is, and what others had put before it began is cut already.
                yield from self.puts(world, i, process, f"{i} has no mark")
            elif "all" in self.without:
                world, process = self.fence(world, i, process)
                yield f"{i} cuts its own log", self.appends(world, i, process, events.cut(i, process.made))
            else:
                yield f"{i} has to cut", world.put(i, process._replace(at="counters", now=NEVER))
            return
        period = self.period * (2 if "period" in self.without else 1)
        at = self.mark(i, 2 * used)
        stores = (at, process.made), (at + 1, process.now)
        process = process._replace(used=used + 1, due=process.now + period)
        yield from self.puts(world, i, process, f"{i} makes mark {used}: ({process.made}, {process.now})", stores)

    def last_mark(self, world: World, i: int, process: Process) -> int:
        """The record of the last mark of its own."""
        return self.load(world, process, self.mark(i, 2 * process.used - 2))

    def puts(self, world: World, i: int, process: Process, label: str, mark: tuple[Store, ...] = ()) -> Steps:
        """The mark, if there is one, and the counter: each is seen when it leaves the store buffer."""
        process = process._replace(now=NEVER)
        made = process.made + 1
        counter = ((self.counter(i), made),)
        stores = counter + mark if "mark first" in self.without else mark + counter
        put = process._replace(at="idle", made=made, again=False, buffer=process.buffer + stores)
        yield label, world.put(i, put if put.left else put._replace(used=0, due=NEVER))
        if process.fails:
            failed = process._replace(fails=process.fails - 1, buffer=process.buffer + mark)
            begun = (*world.begun[:i], world.begun[i][:-1], *world.begun[i + 1 :])
            yield f"{label}, and puts nothing", world.put(i, failed._replace(at="idle", again=False), begun=begun)
            yield f"{label}, and goes the long way", world.put(i, failed._replace(at="clock"))
            opens = failed._replace(at="counters", used=0, due=NEVER)
            yield f"{label}, and opens a file", world.put(i, opens)

    # -- cutting

    def at_counters(self, world: World, i: int, process: Process) -> Steps:
        """One load of a counter; all of them in one tick."""
        now = process.now if process.seen else world.clock
        if now != world.clock and "quickly" not in self.without:
            yield f"{i} was too slow", world.put(i, process._replace(seen=(), now=NEVER))
            return
        slot = len(process.seen)
        seen = (*process.seen, self.load(world, process, self.counter(slot)))
        process = process._replace(seen=seen, now=now)
        if len(seen) == self.logs:
            process = process._replace(at="sync" if self.x86 else "barrier", now=NEVER)
        yield f"{i} reads counter {slot}: {seen[-1]}", world.put(i, process)

    def at_barrier(self, world: World, i: int, process: Process) -> Steps:
        yield from self.barrier(world, i, process, "sync", "barrier")

    def at_sync(self, world: World, i: int, process: Process) -> Steps:
        process = process._replace(view=world.cut)
        grown = grown_of(process.view, process.seen)
        if not grown:
            process = self.notes(process, world.cut)
        elif "counters first" in self.without or len(grown) == 1:
            process = process._replace(at="append")
        else:
            process = process._replace(at="marks")
        yield f"{i} looks at the journal", world.put(i, process)

    def at_marks(self, world: World, i: int, process: Process) -> Steps:
        """One load of a word of the marks, of each log that has grown."""
        early = "counters first" in self.without
        logs = range(self.logs) if early else [slot for slot, _ in grown_of(process.view, process.seen)]
        size = 2 * self.most
        log, word = divmod(len(process.marks), size)
        place = self.mark(logs[log], word)
        marks = (*process.marks, self.load(world, process, place))
        process = process._replace(marks=marks)
        if len(marks) == len(logs) * size:
            process = process._replace(at="counters" if early else "append")
        yield f"{i} reads word {word} of {logs[log]}'s marks: {marks[-1]}", world.put(i, process)

    def at_append(self, world: World, i: int, process: Process) -> Steps:
        size, grown = 2 * self.most, grown_of(process.view, process.seen)
        logs = range(self.logs) if "counters first" in self.without else [slot for slot, _ in grown]
        marks: dict[int, list[int]] = {}
        for at in range(0, len(process.marks), size):
            marks[logs[at // size]] = list(process.marks[at : at + size])
        data = self.cuts(process.view, process.seen, marks)
        if "never leads" in self.without and process.at == "append":
            # It says first what it is about to cut, and is killed there, perhaps.
            early = dict(grown)
            totals = [early.get(slot, total) for slot, total in enumerate(process.view)]
            said = tuple((self.cut_up_to(slot), total) for slot, total in enumerate(totals))
            process = process._replace(buffer=process.buffer + said)
            yield f"{i} says what it will cut", world.put(i, process._replace(at="late"))
            if not process.puts:
                dead = Process(False, 0, buffer=process.buffer)
                yield f"kill {i}, which said what it will cut", world.put(i, dead)
            return
        yield from self.next_cuts(world, i, process, data)

    at_late = at_append

    def at_rest(self, world: World, i: int, process: Process) -> Steps:
        yield from self.next_cuts(world, i, process, process.rest)

    def next_cuts(self, world: World, i: int, process: Process, data: bytes) -> Steps:
        """All in one piece; or, ``apart``, one only, for the journal may end there."""
        data, rest = (data[: events.SIZE], data[events.SIZE :]) if self.apart else (data, b"")
        world, process = self.fence(world, i, process)
        words = [int.from_bytes(data[at : at + events.SIZE], "little") for at in range(0, len(data), events.SIZE)]
        label = ", ".join(f"{word >> 8 & 0xFFFF} up to {word >> 24}" for word in words)
        if rest:
            process = process._replace(at="rest", rest=rest, view=(), seen=(), marks=(), now=NEVER)
            yield f"{i} appends: {label}, and more to come", self.apply(world, data).put(i, process)
        else:
            yield f"{i} appends: {label}", self.appends(world, i, process, data)

    def cuts(self, view: tuple[int, ...], seen: tuple[int, ...], marks: dict[int, list[int]]) -> bytes:
        if "in order" in self.without:
            return b"".join(events.cut(*one) for one in grown_of(view, seen))
        if "array order" in self.without:
            marks = {slot: [*chain(*sorted(zip(words[::2], words[1::2])))] for slot, words in marks.items()}
        return cuts_of(view, seen, marks)

    def appends(self, world: World, i: int, process: Process, data: bytes) -> World:
        world = self.apply(world, data)
        return world.put(i, process._replace(at="note", view=world.cut, seen=(), marks=(), rest=b"", now=NEVER))

    def at_note(self, world: World, i: int, process: Process) -> Steps:
        """It says what is cut, as its ledger has it: that may be long ago."""
        yield f"{i} says what is cut: {process.view}", world.put(i, self.notes(process, process.view))

    def notes(self, process: Process, cut: tuple[int, ...]) -> Process:
        said = tuple((self.cut_up_to(slot), total) for slot, total in enumerate(cut))
        at = "clock" if process.puts else "idle"
        buffer = process.buffer + said
        return process._replace(at=at, view=(), seen=(), marks=(), now=NEVER, buffer=buffer, again=process.puts)

    def apply(self, world: World, data: bytes) -> World:
        """What is cut is in the queue, behind all that ought to stand before it."""
        cut, begun, ended = list(world.cut), list(world.begun), list(world.ended)
        for slot, record in appended(world.cut, data):
            if record != cut[slot] or not ended[slot]:
                raise Violation("order", f"record {record} of log {slot} is cut, of which {cut[slot]} were")
            began = begun[slot][0]
            cut[slot], begun[slot], ended[slot] = record + 1, begun[slot][1:], ended[slot][1:]
            for other in range(self.logs):
                if ended[other] and other != slot and ended[other][0] + self.bound < began:
                    raise Violation(
                        "late",
                        f"record {record} of log {slot}, begun at {began}, stands before record {cut[other]} of log"
                        f" {other}, put at {ended[other][0]}",
                    )
        return world._replace(cut=tuple(cut), begun=tuple(begun), ended=tuple(ended))
