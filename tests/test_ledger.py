"""The rules: the ledger against ``queue.Queue``, against itself in other portions, and row by row.

No file, no process, no clock: events go in, a state comes out.
"""

from __future__ import annotations

import contextlib
import queue
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

import pytest
from hypothesis import assume, given, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tqshim import events
from tqshim import ledger as ledger_module
from tqshim.events import SIZE
from tqshim.extents import Block, Run
from tqshim.ledger import (
    SHUT,
    SHUT_AT_ONCE,
    Held,
    Lease,
    Ledger,
    Member,
    Reservation,
    Returned,
    Verdict,
)
from tqshim.names import FileId

Value = tuple[int, int]
"""What an item is here: the number of its producer, and a count of that producer's items."""


@pytest.fixture(autouse=True, scope="module")
def short_runs() -> Iterator[None]:
    """Runs begin behind two items, and have few blocks: else no test here would see one, or its end."""
    with pytest.MonkeyPatch.context() as patch:
        for name, short in (("RUN_AHEAD", 2), ("RUN_BLOCKS", 5), ("SMALL_FROM", 2)):
            patch.setattr(ledger_module, name, short)
        yield


def word(event: bytes) -> int:
    return int.from_bytes(event, "little")


def feed(ledger: Ledger, journal: Iterable[bytes]) -> list[Verdict]:
    return [ledger.step(word(event)) for event in journal]


# -- (a) against queue.Queue


@dataclass
class Process:
    """A member as this test sees it: what it knows about itself, kept apart from the ledger."""

    slot: int
    number: int
    consumer: bool
    serial: int = 0
    file: Optional[FileId] = None
    units: int = 0
    made: int = 0
    reserved: int = 0
    grant: Optional[int] = None
    cut: bool = False
    kept: Optional[tuple[int, int]] = None
    """The last lease of its own that was revoked, and where it ended."""


@dataclass
class Batch:
    """A batch file as this test sees it."""

    sealed: bool = False
    end: int = 0
    blocks: dict[int, list[Value]] = field(default_factory=dict)


class LedgerAgainstQueue(RuleBasedStateMachine):
    """Every act on the ledger is done to a ``queue.Queue`` as well; items, verdicts and sizes are compared each time.

    ``plain`` holds the items that nobody has got: those waiting, and those of a lease that is not known to have been
    delivered.  Reservations are places on top of it, and so are items that are held or have come back."""

    @initialize(
        maxsize=st.sampled_from([0, 0, 1, 2, 5, 9]),
        first=st.integers(1, 12),
        last=st.integers(1, 20),
        watched=st.sampled_from([None, 0, 1, 2]),
    )
    def begin(self, maxsize: int, first: int, last: int, watched: Optional[int]) -> None:
        self.maxsize = maxsize
        self.ledger = Ledger(maxsize, first, last)
        self.ledger.watched = self.watched = watched
        self.lagging = Ledger(maxsize, first, last)
        self.unread: list[bytes] = []
        self.plain: queue.Queue[Value] = queue.Queue(maxsize)
        self.members: list[Process] = []
        self.batches: dict[FileId, Batch] = {}
        self.lease: Optional[tuple[Process, int, int, int]] = None
        self.held: dict[int, tuple[Process, int, int, Value]] = {}
        self.returned: list[tuple[int, int, Value]] = []
        self.redelivered = 0
        self.leases = self.grants = 0
        self.number = 0
        self.got = 0
        self.unfinished = self.completions = self.shut = 0
        self.done: list[tuple[FileId, int]] = []
        self.yours: list[tuple[int, int, Block]] = []

    # -- the acts themselves

    def act(self, event: bytes) -> Verdict:
        """Append an event; past the journal's limit it is void, and the next journal is begun."""
        if self.ledger.full:
            before = self.ledger.snapshot(rolled=True)
            assert self.ledger.step(word(event)) is None, "valid past the limit"
            assert self.ledger.snapshot(rolled=True) == before
            self.unread.append(event)
            self.go_on()
        note(f"{self.number}: {events_name(event)} {event.hex()}")
        verdict = self.ledger.step(word(event))
        self.number += 1
        self.unread.append(event)
        return verdict

    def go_on(self) -> None:
        """To the next journal, once by the snapshot that a newcomer loads and once as a process does that was there."""
        for key in (5, 6):
            self.unread.append(events.seal(key))
            assert self.ledger.step(word(events.seal(key))) == (5 if key == 5 else None)
        self.catch_up()
        self.collect()
        snapshot = self.ledger.snapshot(rolled=True)
        self.ledger = Ledger.load(snapshot)
        self.ledger.watched = self.watched
        self.lagging.roll()
        assert self.lagging.snapshot() == snapshot == self.ledger.snapshot()

    def catch_up(self) -> None:
        unread = b"".join(self.unread)
        assert self.lagging.apply(unread) == len(unread)
        self.unread.clear()
        assert self.lagging.snapshot() == self.ledger.snapshot()
        assert self.lagging.sealed == self.ledger.sealed

    def collect(self) -> None:
        """Files done so far, the way the engine takes them."""
        self.ledger.trim()
        self.done += self.ledger.done
        self.ledger.done.clear()
        self.yours += self.ledger.yours
        self.ledger.yours.clear()

    def get(self, items: range) -> list[Value]:
        """What the plain queue gives for so many items, which must be what stands in the ledger's blocks."""
        expected = [self.plain.get_nowait() for _ in items]
        assert items.start == self.got
        self.got = items.stop
        return expected

    def stands(self, items: range) -> list[Value]:
        """The values that the ledger's blocks say these items are."""
        parts = self.ledger.parts(items.start, items.stop)
        inside = [range(max(part.first, items.start), min(part.end, items.stop)) for part in parts]
        assert [item for part in inside for item in part] == list(items)
        found = []
        for item in items:
            block = self.ledger.block(item)
            assert block in parts
            found.append(self.batches[block.file].blocks[block.offset][item - block.first])
        return found

    def room(self) -> int:
        reserved = sum(member.reserved for member in self.members)
        return self.maxsize - self.plain.qsize() - reserved - self.apart() if self.maxsize else 1 << 30

    def apart(self) -> int:
        return len(self.held) + len(self.returned)

    def consumers(self) -> list[Process]:
        return [member for member in self.members if member.consumer]

    def pick(self, data: st.DataObject, members: Sequence[Process]) -> Process:
        return data.draw(st.sampled_from(members))

    # -- members and files

    @rule(consumer=st.booleans())
    def join(self, consumer: bool) -> None:
        if len(self.members) >= 5:
            return
        slot = self.act(events.join(consumer))
        taken = {member.slot for member in self.members}
        assert slot == min(set(range(6)) - taken)
        self.members.append(Process(slot, self.number - 1, consumer))

    @precondition(lambda self: self.members)
    @rule(data=st.data(), late=st.booleans())
    def leave(self, data: st.DataObject, late: bool) -> None:
        member = self.pick(data, self.members)
        assert self.act(events.leave(member.slot, member.number + 1)) is None
        assert self.act(events.leave(member.slot, member.number)) == member.slot
        self.members.remove(member)
        if member.file:
            self.batches[member.file].sealed = True
        for number in [number for number, (holder, *_) in self.held.items() if holder is member]:
            self.comes_back(number)
        if late:  # two who found it dead
            assert self.act(events.leave(member.slot, member.number)) is None

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def open(self, data: st.DataObject) -> None:
        member = self.pick(data, self.members)
        if member.file:
            old = data.draw(st.integers(0, member.serial))
            assert self.act(events.open_(member.slot, old)) is None, "a file opened twice"
        member.serial += data.draw(st.integers(1, 3))
        assert self.act(events.open_(member.slot, member.serial)) == member.slot
        if member.file:
            self.batches[member.file].sealed = True
        member.file, member.units = FileId(member.number, member.serial), 0
        self.batches[member.file] = Batch()

    # -- putting

    @precondition(lambda self: self.members)
    @rule(data=st.data(), count=st.integers(0, 4), more=st.booleans(), late=st.sampled_from([False, False, True]))
    def put(self, data: st.DataObject, count: int, more: bool, late: bool) -> None:
        """Once the queue is shut down only late ones, until it is shut down at once."""
        member = self.pick(data, self.members)
        values = [(member.number, member.made + n) for n in range(count)]
        units = data.draw(st.integers(1, 3))
        if late:
            more = False
            verdict = self.act(events.publish_late(member.slot, count, units))
        else:
            verdict = self.act(events.publish(member.slot, count, units, more))
        if member.file is None or self.shut != late:
            assert verdict is None
            return
        if count > member.reserved and count > self.room() + member.reserved:
            assert verdict is None, "published beyond the bound"
            if count == 1 and not self.apart() and not any(other.reserved for other in self.members):
                with pytest.raises(queue.Full):
                    self.plain.put_nowait(values[0])
            return
        assert verdict == self.got + self.plain.qsize()
        for value in values:
            self.plain.put_nowait(value)
        self.unfinished += count
        member.made += count
        keeps = more and member.reserved > count
        member.reserved = member.reserved - count if keeps else 0
        member.grant = member.grant if keeps else None
        if count:
            batch = self.batches[member.file]
            batch.blocks[member.units] = values
            batch.end = self.got + self.plain.qsize()
            member.units += units

    @precondition(lambda self: self.members)
    @rule(data=st.data(), places=st.integers(0, 6))
    def reserve(self, data: st.DataObject, places: int) -> None:
        member = self.pick(data, self.members)
        verdict = self.act(events.reserve(member.slot, places))
        if not self.maxsize or member.grant is not None or places > self.room() or self.shut:
            assert verdict is None
            return
        self.grants += 1
        member.reserved, member.grant, member.cut = places, self.grants, False
        assert verdict == Reservation(places, self.grants, False)

    @precondition(lambda self: any(member.grant is not None for member in self.members))
    @rule(data=st.data(), kept=st.integers(0, 6), stale=st.booleans())
    def trim(self, data: st.DataObject, kept: int, stale: bool) -> None:
        member = self.pick(data, [member for member in self.members if member.grant is not None])
        assert member.grant is not None
        verdict = self.act(events.trim(member.slot, kept, member.grant - stale))
        if stale or member.cut:
            assert verdict is None
            return
        member.reserved, member.cut = min(member.reserved, kept), True
        assert verdict == Reservation(member.reserved, member.grant, True)

    # -- getting

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def claim(self, data: st.DataObject) -> None:
        member = self.pick(data, self.members)
        items = self.act(events.claim(member.slot))
        if self.lease or self.returned:
            assert items is None
        elif items is None:
            with pytest.raises(queue.Empty):
                self.plain.get_nowait()
        else:
            self.taken(member, items)

    @precondition(lambda self: self.members)
    @rule(data=st.data(), most=st.integers(1, 7))
    def claim_many(self, data: st.DataObject, most: int) -> None:
        member = self.pick(data, self.members)
        waiting = self.plain.qsize()
        items = self.act(events.claim_many(member.slot, most))
        if self.lease or self.returned or not waiting:
            assert items is None
        else:
            assert len(items) == min(most, waiting)
            self.taken(member, items)

    def taken(self, member: Process, items: range) -> None:
        assert self.stands(items) == self.get(items)
        expected = [(self.number - 1, item, self.ledger.block(item)) for item in items]
        noted = [mine for mine in self.ledger.yours if mine[0] == self.number - 1]
        assert noted == (expected if member.slot == self.watched else [])

    @precondition(lambda self: self.members)
    @rule(data=st.data(), most=st.integers(1, 5))
    def take_lease(self, data: st.DataObject, most: int) -> None:
        """Whoever holds a lease asks for another only when it has delivered that one wholly."""
        member = self.pick(data, self.members)
        own = self.lease[2] - self.lease[1] if self.lease and self.lease[0] is member else 0
        waiting = self.plain.qsize() - own if not self.lease or own else 0
        reserved = sum(other.reserved for other in self.members)
        lease = self.act(events.lease(member.slot, most))
        if (
            not member.consumer
            or (self.lease and self.lease[0] is not member)
            or (self.lease and self.lease[2] == self.got + self.plain.qsize())
            or waiting <= 0
            or self.apart()
            or (self.maxsize and 2 * (waiting + reserved) > self.maxsize)
        ):
            assert lease is None
            return
        self.get(range(self.got, self.got + own))
        self.leases += 1
        end = self.got + min(most, waiting)
        assert lease == Lease(member.slot, self.got, end, self.leases, member.number)
        assert self.stands(range(self.got, end)) == list(self.plain.queue)[: end - self.got]
        self.lease = member, self.got, end, self.leases

    @precondition(lambda self: self.lease)
    @rule(count=st.integers(0, 7), stale=st.sampled_from([0, 0, 1]))
    def revoke(self, count: int, stale: int) -> None:
        """Anybody may: the count is clamped to the items of the lease, and an old number ends nothing."""
        assert self.lease
        _, first, end, number = self.lease
        base = self.act(events.revoke(count, number - stale))
        if stale:
            assert base is None
            return
        assert base == min(first + count, end)
        self.get(range(first, base))
        self.lease[0].kept = number, base
        assert self.ledger.kept == {member.slot: member.kept for member in self.members if member.kept}
        self.lease = None

    # -- holding

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def hold(self, data: st.DataObject) -> None:
        """What has come back first, oldest first; else the head."""
        member = self.pick(data, self.members)
        held = self.act(events.hold(member.slot))
        if not member.consumer or self.lease or not (self.returned or self.plain.qsize()):
            assert held is None
            return
        if self.returned:
            item, times, value = self.returned.pop(0)
            self.redelivered += 1
        else:
            item, times, value = self.got, 0, self.get(range(self.got, self.got + 1))[0]
        assert isinstance(held, Held)
        assert held[:5] == (self.number - 1, member.slot, member.number, item, times)
        assert self.batches[held.block.file].blocks[held.block.offset][item - held.block.first] == value
        self.held[held.number] = member, item, times, value

    @precondition(lambda self: self.held)
    @rule(data=st.data(), back=st.booleans(), twice=st.booleans())
    def let_go(self, data: st.DataObject, back: bool, twice: bool) -> None:
        """Got, or back: the first of the two decides."""
        number = data.draw(st.sampled_from(list(self.held)))
        assert self.act((events.return_ if back else events.got)(number)) == number
        if back:
            self.comes_back(number)
        else:
            del self.held[number]
        if twice:
            assert self.act((events.got if back else events.return_)(number)) is None

    def comes_back(self, number: int) -> None:
        _, item, times, value = self.held.pop(number)
        if self.shut == SHUT_AT_ONCE:
            self.drop(1)
        else:
            self.returned = sorted([*self.returned, (item, times + 1, value)])

    def drop(self, count: int) -> None:
        self.completions += 0 < self.unfinished <= count
        self.unfinished -= min(self.unfinished, count)

    # -- finishing

    @rule()
    def task_done(self) -> None:
        verdict = self.act(events.task_done())
        if not self.unfinished:
            assert verdict is None
            return
        self.unfinished -= 1
        self.completions += not self.unfinished
        assert verdict == self.unfinished

    @rule(immediate=st.booleans(), seldom=st.sampled_from([True, False, False, False]))
    def shutdown(self, immediate: bool, seldom: bool) -> None:
        if not seldom:
            return
        how = SHUT_AT_ONCE if immediate else SHUT
        verdict = self.act(events.shutdown(immediate))
        if self.shut >= how or (immediate and self.lease):
            assert verdict is None
            return
        assert verdict == how
        self.shut = how
        if immediate:
            dropped = self.plain.qsize()
            self.get(range(self.got, self.got + dropped))
            self.drop(dropped + len(self.returned))
            self.returned = []

    @rule(event=st.binary(min_size=SIZE, max_size=SIZE).filter(lambda event: event[0] > events.RETURN))
    def nonsense(self, event: bytes) -> None:
        assert self.act(event) is None

    @rule(key=st.integers(0, 9))
    def seal_too_early(self, key: int) -> None:
        """Before its limit nobody can end a journal."""
        if not self.ledger.full:
            assert self.act(events.seal(key)) is None
            assert self.ledger.sealed is None

    @rule()
    def lagging_one_catches_up(self) -> None:
        self.catch_up()

    # -- what always holds

    @invariant()
    def sizes_agree(self) -> None:
        ledger = self.ledger
        reserved = sum(member.reserved for member in self.members)
        assert ledger.tail - ledger.low == self.plain.qsize()
        assert ledger.used == self.plain.qsize() + reserved + self.apart()
        assert [(held.number, held.item) for held in ledger.held.values()] == [
            (number, item) for number, (_, item, _, _) in sorted(self.held.items())
        ]
        assert [(item, times) for item, times, _ in ledger.returned] == [(i, times) for i, times, _ in self.returned]
        assert not self.maxsize or ledger.used <= self.maxsize
        assert ledger.low == self.got
        assert ledger.head == (self.lease[2] if self.lease else self.got)
        assert ledger.redelivered == self.redelivered
        assert (ledger.unfinished, ledger.completions, ledger.shut) == (self.unfinished, self.completions, self.shut)
        assert ledger.consumers == len(self.consumers())
        assert {slot: member.number for slot, member in ledger.members.items()} == {
            member.slot: member.number for member in self.members
        }

    @invariant()
    def files_are_done_once_and_in_time(self) -> None:
        self.collect()
        assert all(self.batches[file].end <= end <= self.got for file, end in self.done)
        listed = [file for file, _ in self.done]
        assert len(set(listed)) == len(listed), "listed twice"
        kept = {held.block.file for held in self.ledger.held.values()} | {
            returned.block.file for returned in self.ledger.returned
        }
        finished = {file for file, batch in self.batches.items() if batch.sealed and batch.end <= self.got} - kept
        assert set(listed) == finished
        for file in self.batches:
            assert self.ledger.is_done(file) == (file in finished), file

    @invariant()
    def a_snapshot_is_the_state(self) -> None:
        snapshot = self.ledger.snapshot()
        again = Ledger.load(snapshot)
        assert again.snapshot() == snapshot
        assert again.used == self.ledger.used
        assert len(snapshot) == Ledger.snapshot_size(snapshot[:16])
        assert len(snapshot) % SIZE == 0
        for file in self.batches:
            assert again.is_done(file) == self.ledger.is_done(file)


LedgerAgainstQueue.TestCase.settings = settings(max_examples=400, stateful_step_count=40, deadline=None)
TestLedgerAgainstQueue = LedgerAgainstQueue.TestCase


class LongLedgerAgainstQueue(LedgerAgainstQueue):
    """The same, for minutes."""


LongLedgerAgainstQueue.TestCase.settings = settings(
    max_examples=10_000, stateful_step_count=60, deadline=None, derandomize=False
)
TestLongLedgerAgainstQueue = pytest.mark.stress(LongLedgerAgainstQueue.TestCase)


def events_name(event: bytes) -> str:
    kinds = {getattr(events, name): name for name in events.__all__ if name.isupper() and "_" not in name}
    kinds.update({getattr(events, name): name for name in ("CLAIM_MANY", "TASK_DONE", "PUBLISH_LATE")})
    return kinds.get(event[0], "nonsense") if event[0] <= events.RETURN else "nonsense"


# -- (b), (c): the same events in other portions

slots = st.sampled_from([0, 0, 1, 1, 2, 3, 4, 9, events.SLOTS - 1])
small = st.integers(0, 12)
any_event = st.one_of(
    st.builds(events.join, st.booleans()),
    st.builds(events.leave, slots, small),
    st.builds(events.open_, slots, st.integers(0, 3)),
    st.builds(events.publish, slots, st.integers(0, 5), st.integers(0, 3), st.booleans()),
    st.builds(events.claim, slots),
    st.builds(events.claim, slots),
    st.builds(events.claim_many, slots, small),
    st.builds(events.lease, slots, small),
    st.builds(events.revoke, st.one_of(small, st.integers(0, events.LEASE_MOST)), st.integers(0, 5)),
    st.builds(events.reserve, slots, small),
    st.builds(events.trim, slots, small, st.integers(0, 4)),
    st.builds(events.seal, small),
    st.builds(events.task_done),
    st.builds(events.shutdown, st.booleans()),
    st.builds(events.publish_late, slots, st.integers(0, 5), st.integers(0, 3)),
    st.builds(events.hold, slots),
    st.builds(events.got, small),
    st.builds(events.return_, small),
    st.binary(min_size=SIZE, max_size=SIZE).filter(lambda event: event[0] != 0),
    st.integers(1, 255).map(lambda kind: bytes([kind]) + bytes(7)),
)
claims = st.lists(st.builds(events.claim, slots), min_size=3, max_size=12)
publishes = st.lists(
    st.builds(
        events.publish,
        st.sampled_from([0, 0, 0, 1, 1, 2, 256]),
        st.sampled_from([1, 1, 1, 2, 3, 0, 255, 256]),
        st.sampled_from([1, 1, 2, 3, 255, 256, 0]),
        st.sampled_from([False, False, False, True]),
    ),
    min_size=3,
    max_size=16,
)
openings = st.sampled_from(
    [
        [],
        [events.join(False), events.open_(0, 0), events.publish(0, 5, 1)],
        [events.join(False), events.join(True), events.open_(0, 0), events.publish(0, 3, 1), events.lease(1, 2)],
        [events.join(False), events.join(True), events.open_(0, 0), events.publish(0, 3, 1), events.hold(1)],
        [
            *(events.join(True), events.join(False), events.open_(1, 0), events.publish(1, 4, 1)),
            *(events.hold(0), events.hold(0), events.return_(4), events.open_(1, 3)),
        ],
        [
            *(events.join(False), events.open_(0, 0), events.publish(0, 3, 1), events.publish(0, 1, 1)),
            *(events.join(False), events.open_(1, 0), events.join(False), events.open_(2, 1), events.publish(0, 1, 1)),
        ],
    ]
)
journals = st.builds(
    lambda opening, parts: [*opening, *(event for part in parts for event in part)],
    openings,
    st.lists(st.one_of(st.lists(any_event, min_size=1, max_size=6), claims, publishes), max_size=8),
)
sizes = st.tuples(st.sampled_from([0, 0, 1, 4, 12, 400]), st.integers(1, 50), st.integers(1, 60))


def portions(data: st.DataObject, journal: list[bytes]) -> list[bytes]:
    """The journal cut at random places, some of them the same."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(journal)), max_size=5)))
    return [b"".join(journal[a:b]) for a, b in zip([0, *cuts], [*cuts, len(journal)])]


def notes(ledger: Ledger) -> tuple[Any, ...]:
    """The whole of a ledger: what a snapshot shows, and the notes for the engine."""
    return ledger.snapshot(), ledger.sealed, sorted(ledger.done), ledger.yours, ledger.used, ledger.low


@settings(deadline=None, max_examples=300)
@given(sizes, journals, st.sampled_from([None, 0, 1]), st.data())
def test_apply_is_step_event_by_event(
    size: tuple[int, int, int], journal: list[bytes], watched: Optional[int], data: st.DataObject
) -> None:
    """However the events are cut into chunks, and also where the limit falls into one of them."""
    by_step, by_apply = Ledger(*size), Ledger(*size)
    by_step.watched = by_apply.watched = watched
    feed(by_step, journal)
    for chunk in portions(data, journal):
        assert by_apply.apply(chunk) == len(chunk)
    assert notes(by_apply) == notes(by_step)


@settings(deadline=None, max_examples=200)
@given(sizes, journals, st.sampled_from([None, 0, 1]), st.data())
def test_apply_stops_before_an_event_that_is_not_there_yet(
    size: tuple[int, int, int], journal: list[bytes], watched: Optional[int], data: st.DataObject
) -> None:
    """Whether its type is still 0 or its bytes are cut short, and whatever stands behind it; reading again finishes."""
    seen = data.draw(st.integers(0, len(journal)))
    by_step, by_apply = Ledger(*size), Ledger(*size)
    by_step.watched = by_apply.watched = watched
    feed(by_step, journal[:seen])
    missing = data.draw(st.one_of(st.just(bytes(SIZE)), st.integers(0, SIZE - 1).map(lambda n: events.claim(1)[:n])))
    behind = data.draw(journals) if len(missing) == SIZE else []
    assert by_apply.apply(b"".join([*journal[:seen], missing, *behind])) == seen * SIZE
    assert notes(by_apply) == notes(by_step)
    feed(by_step, journal[seen:])
    assert by_apply.apply(b"".join(journal[seen:])) == (len(journal) - seen) * SIZE
    assert notes(by_apply) == notes(by_step)


@settings(deadline=None, max_examples=300)
@given(sizes, journals, st.integers(0, 60), st.data())
def test_a_ledger_loaded_midway_goes_on_as_the_others_do(
    size: tuple[int, int, int], journal: list[bytes], middle: int, data: st.DataObject
) -> None:
    """Each verdict after the loading is the same, and so is the state at the end."""
    middle = min(middle, len(journal))
    whole, early = Ledger(*size), Ledger(*size)
    feed(whole, journal[:middle])
    for chunk in portions(data, journal[:middle]):
        early.apply(chunk)
    assume(early.sealed is None)  # a snapshot in the middle of a journal is this test's idea; a seal comes at its end
    loaded = Ledger.load(early.snapshot())
    assert loaded.snapshot() == early.snapshot() == whole.snapshot()
    whole.done.clear()
    assert feed(loaded, journal[middle:]) == feed(whole, journal[middle:])
    early.apply(b"".join(journal[middle:]))
    assert loaded.snapshot() == whole.snapshot() == early.snapshot()
    assert loaded.sealed == whole.sealed == early.sealed
    assert sorted(loaded.done) == sorted(whole.done)


@settings(deadline=None, max_examples=300)
@given(sizes, journals, st.data())
def test_ledgers_roll_to_the_same_next_journal(
    size: tuple[int, int, int], journal: list[bytes], data: st.DataObject
) -> None:
    """Whoever rolls, however late and whatever it has seen past the limit, writes the same bytes."""
    prompt, late = Ledger(*size), Ledger(*size)
    feed(prompt, journal[: prompt.limit])
    for chunk in portions(data, journal):
        late.apply(chunk)
    assume(prompt.full)
    snapshot = prompt.snapshot(rolled=True)
    assert late.snapshot(rolled=True) == snapshot
    late.roll()
    assert late.snapshot() == snapshot
    assert (late.index, late.base, late.limit) == (0, size[1], prompt.next_limit)
    assert Ledger.load(snapshot).snapshot() == snapshot


@settings(deadline=None, max_examples=300)
@given(sizes, journals)
def test_no_event_takes_more_places_than_there_are(size: tuple[int, int, int], journal: list[bytes]) -> None:
    """And the other bounds that every state keeps, whatever bytes stand in the journal."""
    ledger = Ledger(*size)
    delivered = 0
    for event in journal:
        before = ledger.snapshot()
        index, sealed = ledger.index, ledger.sealed
        verdict = ledger.step(word(event))
        assert not ledger.maxsize or 0 <= ledger.used <= ledger.maxsize
        assert delivered <= ledger.low <= ledger.head <= ledger.tail, "an item comes back that somebody may have got"
        delivered = ledger.low
        assert 0 <= ledger.finished <= ledger.tail
        assert ledger.reserved == sum(own.places for own in ledger.res.values())
        assert ledger.apart == len(ledger.held) + len(ledger.returned)
        assert ledger.plain == (ledger.lease is None and not ledger.returned)
        assert not (ledger.lease and ledger.apart), "a lease beside an item that is held or has come back"
        assert {held.member for held in ledger.held.values()} <= {member.number for member in ledger.members.values()}
        kept = [one.item for one in (*ledger.held.values(), *ledger.returned)]
        assert len(set(kept)) == len(kept)
        assert all(item < ledger.head for item in kept)
        assert ledger.lease is None or ledger.lease.first <= ledger.lease.end == ledger.head
        assert ledger.consumers == sum(member.consumer for member in ledger.members.values())
        assert not set(ledger.free) & set(ledger.members)
        assert sorted([*ledger.free, *ledger.members]) == list(range(len(ledger.free) + len(ledger.members)))
        assert set(ledger.files) <= set(ledger.members)
        assert [block.first for block in ledger.blocks][1:] == [block.end for block in ledger.blocks][:-1]
        assert not ledger.blocks or ledger.blocks[-1].end == ledger.tail
        assert ledger._run_bytes == sum(len(run.packed) for run in [*ledger.blocks][:-1] if isinstance(run, Run))
        if verdict is None:
            now = ledger.index
            ledger.index = index
            assert ledger.snapshot() == before, "a void event changed something"
            assert ledger.sealed == sealed
            ledger.index = now


# -- (d) snapshots that are none


@pytest.fixture(scope="module")
def snapshot() -> bytes:
    """A snapshot that has one of everything."""
    ledger = Ledger(40, 30, 40)
    feed(
        ledger,
        [
            events.join(False),
            events.join(True),
            events.join(False),
            events.open_(0, 2),
            events.publish(0, 5, 2),
            events.open_(2, 4),
            events.publish(2, 3, 1),
            events.leave(0, 0),
            events.lease(1, 6),
            events.revoke(1, 1),
            events.hold(1),
            events.hold(1),
            events.return_(10),
            events.open_(2, 6),
            *[events.publish(2, 1, 1), events.publish(2, 2, 3)] * 2,
            events.join(False),
            events.open_(0, 3),
            events.publish(0, 1, 9),
            events.reserve(2, 7),
            events.task_done(),
            events.shutdown(False),
        ],
    )
    assert (len(ledger.held), len(ledger.returned)) == (1, 1)
    assert [type(block) for block in ledger.blocks] == [Block, Run, Block]
    assert len(ledger._sealed) == len(ledger.sealing) == 2
    return ledger.snapshot()


def test_a_snapshot_cut_short_is_refused(snapshot: bytes) -> None:
    for size in range(len(snapshot)):
        with pytest.raises(ValueError, match=r"journal|snapshot"):
            Ledger.load(snapshot[:size])


@pytest.mark.parametrize(("word", "value"), [(2, 0), (2, 2), (3, 3), (5, 8), (5, 1 << 63)])
def test_a_run_that_is_not_as_long_as_it_says_is_refused(snapshot: bytes, word: int, value: int) -> None:
    ledger = Ledger.load(snapshot)
    run = ledger.blocks[1]
    assert isinstance(run, Run)
    row = [run.first, run.end, run.blocks, run.files, run.units, 1 << 63 | len(run.packed)]
    whole = struct.pack("<6Q", *row)
    assert snapshot.count(whole) == 1
    row[word] = value
    with pytest.raises(ValueError, match="run"):
        Ledger.load(snapshot.replace(whole, struct.pack("<6Q", *row)))


def test_events_behind_a_snapshot_are_no_part_of_it(snapshot: bytes) -> None:
    assert Ledger.load(snapshot + events.claim(1) * 9).snapshot() == snapshot


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_damaged_snapshots_raise_value_error_only(snapshot: bytes, data: st.DataObject) -> None:
    """Any bytes in any place: they load, or they are refused; they neither hang nor eat the memory."""
    damaged = bytearray(snapshot)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        Ledger.load(bytes(damaged))


@pytest.mark.parametrize("at", range(1, 24))
@pytest.mark.parametrize("value", [0, 1, 3, 1 << 17, 1 << 40, (1 << 64) - 1])
def test_no_number_of_a_snapshot_makes_loading_dear(snapshot: bytes, at: int, value: int) -> None:
    """A wrong count is refused before anything is built from it."""
    damaged = snapshot[: at * SIZE] + value.to_bytes(8, "little") + snapshot[(at + 1) * SIZE :]
    try:
        ledger = Ledger.load(damaged)
    except ValueError:
        return
    assert len(ledger.free) + len(ledger.members) <= events.SLOTS


@settings(deadline=None)
@given(st.binary(max_size=400), st.booleans())
def test_bytes_that_are_no_snapshot_raise_value_error_only(snapshot: bytes, data: bytes, marked: bool) -> None:
    with contextlib.suppress(ValueError):
        Ledger.load((snapshot[:8] if marked else b"") + data)


# -- (d) the table, row by row

P, C, D = 0, 1, 2
"""Slots: a producer, a consumer, and one that is free or another's."""
PAIR = [events.join(False), events.join(True)]
FILE = [*PAIR, events.open_(P, 2)]
THREE = [*FILE, events.publish(P, 3, 1)]
LEASED = [*THREE, events.lease(C, 2)]
RESERVED = [*FILE, events.reserve(P, 4)]
RIVAL = [*THREE, events.join(True)]
HELD = [*THREE, events.hold(C)]
"""The number of that hold is 4."""
BACK = [*HELD, events.return_(4)]
FIRST = Block(0, 3, FileId(0, 2), 0, 1)
ENDED = [*THREE, events.shutdown(False)]
ENDED_AT_ONCE = [*THREE, events.claim(C), events.shutdown(True)]


@dataclass(frozen=True)
class Row:
    """One example: a bound, the events before, the event, and what it comes to."""

    name: str
    before: list[bytes]
    event: bytes
    verdict: Any
    maxsize: int = 0
    state: dict[str, Any] = field(default_factory=dict)


VALID = [
    Row("JOIN takes slot 0 in an empty queue", [], events.join(True), 0, state={"members": {0: Member(0, True)}}),
    Row("JOIN takes the lowest free slot", [*PAIR, events.leave(P, 0)], events.join(False), 0),
    Row("JOIN is a member of its own", [*PAIR, events.leave(P, 0), events.join(False)], events.leave(P, 3), P),
    Row("LEAVE of that very member", PAIR, events.leave(C, 1), C, state={"members": {P: Member(0, False)}}),
    Row("LEAVE drops the reservation", RESERVED, events.leave(P, 0), P, 5, {"reserved": 0, "used": 0, "res": {}}),
    Row("LEAVE seals the file", FILE, events.leave(P, 0), P, state={"done": [(FileId(0, 2), 0)], "files": {}}),
    Row("LEAVE leaves the lease", LEASED, events.leave(C, 1), C, state={"lease": Lease(C, 0, 2, 1, 1), "low": 0}),
    Row("LEAVE leaves the items", THREE, events.leave(P, 0), P, state={"head": 0, "tail": 3}),
    Row("OPEN gives a file", PAIR, events.open_(P, 2), P, state={"files": {P: (FileId(0, 2), 0)}}),
    Row("OPEN seals the former", FILE, events.open_(P, 4), P, state={"done": [(FileId(0, 2), 0)]}),
    Row("OPEN keeps a former that has items", THREE, events.open_(P, 4), P, state={"done": []}),
    Row("PUBLISH, unbounded", FILE, events.publish(P, 3, 2), 0, state={"tail": 3, "files": {P: (FileId(0, 2), 2)}}),
    Row("PUBLISH behind the former block", THREE, events.publish(P, 2, 4), 3, state={"files": {P: (FileId(0, 2), 5)}}),
    Row("PUBLISH of the last place", FILE, events.publish(P, 5, 1), 0, 5, {"used": 5}),
    Row("PUBLISH within the reservation", RESERVED, events.publish(P, 4, 1), 0, 4, {"used": 4, "res": {}}),
    Row("PUBLISH of less gives the rest back", RESERVED, events.publish(P, 1, 1), 0, 4, {"used": 1, "res": {}}),
    Row("PUBLISH of more than it reserved", RESERVED, events.publish(P, 5, 1), 0, 5, {"used": 5, "res": {}}),
    Row("PUBLISH of nothing gives all back", RESERVED, events.publish(P, 0, 0), 0, 4, {"used": 0, "blocks": 0}),
    Row("PUBLISH with more keeps the rest", RESERVED, events.publish(P, 1, 1, True), 0, 4,
        {"used": 4, "res": {P: Reservation(3, 1, False)}}),
    Row("PUBLISH with more of all", RESERVED, events.publish(P, 4, 1, True), 0, 4, {"used": 4, "res": {}}),
    Row("CLAIM takes the head", THREE, events.claim(C), range(1), state={"head": 1, "tail": 3}),
    Row("CLAIM of the last", [*THREE, events.claim(C), events.claim(D)], events.claim(C), range(2, 3)),
    Row("CLAIM_MANY takes so many", THREE, events.claim_many(C, 2), range(2), state={"head": 2}),
    Row("CLAIM_MANY takes all there are", THREE, events.claim_many(C, 9), range(3), state={"head": 3}),
    Row("LEASE by a consumer", THREE, events.lease(C, 2), Lease(C, 0, 2, 1, 1), state={"head": 2, "low": 0}),
    Row("LEASE of all there are", THREE, events.lease(C, 9), Lease(C, 0, 3, 1, 1), state={"head": 3, "low": 0}),
    Row("LEASE again: the former is delivered", LEASED, events.lease(C, 9), Lease(C, 2, 3, 2, 1), state={"low": 2}),
    Row("LEASE is no longer than a REVOKE can tell", [*FILE, *[events.publish(P, events.PUBLISH_MOST, 1)] * 3],
        events.lease(C, 1 << 20), Lease(C, 0, events.LEASE_MOST, 1, 1)),
    Row("LEASE at half the bound", THREE, events.lease(C, 1), Lease(C, 0, 1, 1, 1), 6),
    Row("LEASE at half the bound of many", [*FILE, events.publish(P, 64, 1)], events.lease(C, 9),
        Lease(C, 0, 9, 1, 1), 128),
    Row("LEASE near the bound: a 64th of it", [*FILE, events.publish(P, 65, 1)], events.lease(C, 9),
        Lease(C, 0, 2, 1, 1), 128, {"used": 65}),
    Row("LEASE of less near the bound", [*FILE, events.publish(P, 128, 1)], events.lease(C, 1),
        Lease(C, 0, 1, 1, 1), 128),
    Row("LEASE again at half the bound", LEASED, events.lease(C, 9), Lease(C, 2, 3, 2, 1), 6, {"used": 1}),
    Row("LEASE again when a second one has joined", [*LEASED, events.join(True)], events.lease(C, 1),
        Lease(C, 2, 3, 2, 1)),
    Row("LEASE again near the bound: the former is delivered",
        [*FILE, events.publish(P, 2, 1), events.lease(C, 2), events.publish(P, 1, 1)], events.lease(C, 9),
        Lease(C, 2, 3, 2, 1), 5, {"used": 1}),
    Row("LEASE beside another consumer", RIVAL, events.lease(D, 2), Lease(D, 0, 2, 1, 4), state={"head": 2, "low": 0}),
    Row("LEASE after another's, which is kept for its holder", [*RIVAL, events.lease(C, 2), events.revoke(1, 1),
        events.lease(D, 2), events.revoke(0, 2)], events.lease(C, 9), Lease(C, 1, 3, 3, 1),
        state={"kept": {C: (1, 1), D: (2, 1)}}),
    Row("LEAVE of a former holder", [*LEASED, events.revoke(1, 1)], events.leave(C, 1), C, state={"kept": {}}),
    Row("LEASE after the other consumer left", [*RIVAL, events.leave(D, 4)], events.lease(C, 1), Lease(C, 0, 1, 1, 1)),
    Row("REVOKE gives back what is left", LEASED, events.revoke(1, 1), 1, state={"head": 1, "kept": {C: (1, 1)}}),
    Row("REVOKE of an undelivered lease", LEASED, events.revoke(0, 1), 0, state={"head": 0, "lease": None}),
    Row("REVOKE of a delivered lease", LEASED, events.revoke(2, 1), 2, state={"head": 2, "lease": None}),
    Row("REVOKE is clamped", LEASED, events.revoke(events.LEASE_MOST, 1), 2, state={"head": 2, "kept": {C: (1, 2)}}),
    Row("REVOKE after the holder's LEAVE", [*LEASED, events.leave(C, 1)], events.revoke(1, 1), 1, state={"head": 1}),
    Row("RESERVE of all places", FILE, events.reserve(P, 4), Reservation(4, 1, False), 4, {"used": 4}),
    Row("RESERVE after giving back", [*RESERVED, events.publish(P, 0, 0)], events.reserve(P, 1),
        Reservation(1, 2, False), 4),
    Row("TRIM cuts", RESERVED, events.trim(P, 1, 1), Reservation(1, 1, True), 4, {"used": 1}),
    Row("TRIM to nothing", RESERVED, events.trim(P, 0, 1), Reservation(0, 1, True), 4, {"used": 0}),
    Row("TRIM that cuts nothing still ends it", RESERVED, events.trim(P, 4, 1), Reservation(4, 1, True), 4),
    Row("TRIM to more than there is", RESERVED, events.trim(P, 9, 1), Reservation(4, 1, True), 4, {"used": 4}),
    Row("HOLD takes the head", THREE, events.hold(C), Held(4, C, 1, 0, 0, FIRST), 4, {"head": 1, "used": 3}),
    Row("HOLD of another item beside it", HELD, events.hold(C), Held(5, C, 1, 1, 0, FIRST), 4, {"head": 2, "apart": 2}),
    Row("HOLD takes what has come back first", BACK, events.hold(C), Held(6, C, 1, 0, 1, FIRST), 4,
        {"head": 1, "used": 3, "returned": [], "plain": True}),
    Row("HOLD takes the oldest that has come back", [*HELD, events.hold(C), events.return_(5), events.return_(4)],
        events.hold(C), Held(8, C, 1, 0, 1, FIRST), 4, {"returned": [Returned(1, 1, FIRST)], "plain": False}),
    Row("HOLD counts how often it came back", [*BACK, events.hold(C), events.return_(6)], events.hold(C),
        Held(8, C, 1, 0, 2, FIRST)),
    Row("HOLD after SHUTDOWN", ENDED, events.hold(C), Held(5, C, 1, 0, 0, FIRST)),
    Row("GOT frees the place", HELD, events.got(4), 4, 4, {"head": 1, "used": 2, "held": {}, "apart": 0}),
    Row("GOT of one of two", [*HELD, events.hold(C)], events.got(4), 4, 4,
        {"used": 2, "held": {5: Held(5, C, 1, 1, 0, FIRST)}}),
    Row("GOT after SHUTDOWN at once", [*HELD, events.shutdown(True)], events.got(4), 4, 0,
        {"used": 0, "unfinished": 1}),
    Row("RETURN keeps the place and never lowers head", HELD, events.return_(4), 4, 3,
        {"head": 1, "used": 3, "held": {}, "returned": [Returned(0, 1, FIRST)], "plain": False}),
    Row("RETURN after SHUTDOWN", [*HELD, events.shutdown(False)], events.return_(4), 4, 3,
        {"used": 3, "returned": [Returned(0, 1, FIRST)], "unfinished": 3}),
    Row("RETURN after SHUTDOWN at once drops it", [*HELD, events.shutdown(True)], events.return_(4), 4, 3,
        {"used": 0, "returned": [], "unfinished": 0, "completions": 1, "plain": True}),
    Row("LEAVE gives back what is held", [*HELD, events.hold(C)], events.leave(C, 1), C, 3,
        {"used": 3, "held": {}, "returned": [Returned(0, 1, FIRST), Returned(1, 1, FIRST)], "plain": False}),
    Row("LEAVE of another gives nothing back", [*RIVAL, events.hold(C)], events.leave(D, 4), D, 0,
        {"held": {5: Held(5, C, 1, 0, 0, FIRST)}, "returned": []}),
    Row("LEAVE after SHUTDOWN at once drops what is held", [*HELD, events.shutdown(True)], events.leave(C, 1), C, 3,
        {"used": 0, "returned": [], "unfinished": 0, "completions": 1}),
    Row("SHUTDOWN at once drops what has come back", BACK, events.shutdown(True), SHUT_AT_ONCE, 3,
        {"used": 0, "returned": [], "unfinished": 0, "completions": 1, "plain": True}),
    Row("SHUTDOWN at once leaves what is held", HELD, events.shutdown(True), SHUT_AT_ONCE, 3,
        {"used": 1, "held": {4: Held(4, C, 1, 0, 0, FIRST)}, "unfinished": 1}),
    Row("CLAIM beside what is held", HELD, events.claim(C), range(1, 2), 3, {"used": 2}),
    Row("LEASE after what was held is got", [*HELD, events.got(4)], events.lease(C, 9), Lease(C, 1, 3, 1, 1)),
    Row("TASK_DONE counts one off", THREE, events.task_done(), 2, state={"unfinished": 2, "completions": 0, "head": 0}),
    Row("TASK_DONE of the last completes", [*THREE, *[events.task_done()] * 2], events.task_done(), 0,
        state={"unfinished": 0, "completions": 1}),
    Row("TASK_DONE after SHUTDOWN", ENDED, events.task_done(), 2),
    Row("SHUTDOWN leaves the items", THREE, events.shutdown(False), SHUT, state={"head": 0, "unfinished": 3}),
    Row("SHUTDOWN leaves the lease", LEASED, events.shutdown(False), SHUT, state={"lease": Lease(C, 0, 2, 1, 1)}),
    Row("SHUTDOWN at once drops the items", [*THREE, events.claim(C)], events.shutdown(True), SHUT_AT_ONCE, 4,
        {"head": 3, "used": 0, "unfinished": 1, "completions": 0}),
    Row("SHUTDOWN at once of all items completes", THREE, events.shutdown(True), SHUT_AT_ONCE,
        state={"unfinished": 0, "completions": 1}),
    Row("SHUTDOWN at once drops no more than is unfinished", [*THREE, *[events.task_done()] * 2],
        events.shutdown(True), SHUT_AT_ONCE, state={"unfinished": 0, "completions": 1}),
    Row("SHUTDOWN at once of nothing completes nothing", FILE, events.shutdown(True), SHUT_AT_ONCE,
        state={"completions": 0}),
    Row("SHUTDOWN at once after SHUTDOWN", ENDED, events.shutdown(True), SHUT_AT_ONCE, state={"head": 3}),
    Row("PUBLISH_LATE after SHUTDOWN", ENDED, events.publish_late(P, 2, 1), 3, state={"tail": 5, "unfinished": 5}),
    Row("PUBLISH_LATE within the reservation", [*RESERVED, events.shutdown(False)], events.publish_late(P, 4, 1), 0, 4,
        {"used": 4, "res": {}}),
    Row("CLAIM after SHUTDOWN", ENDED, events.claim(C), range(1)),
]  # fmt: skip

VOID = [
    Row("LEAVE of a free slot", PAIR, events.leave(D, 0), None),
    Row("LEAVE of one that had that slot before", [*PAIR, events.leave(P, 0), events.join(False)], events.leave(P, 0),
        None),
    Row("OPEN by nobody", PAIR, events.open_(D, 2), None),
    Row("OPEN by one that left", [*PAIR, events.leave(P, 0)], events.open_(P, 2), None),
    Row("OPEN of the same file again", FILE, events.open_(P, 2), None, 0,
        {"files": {P: (FileId(0, 2), 0)}, "done": []}),
    Row("OPEN of an earlier file", THREE, events.open_(P, 1), None, 0, {"files": {P: (FileId(0, 2), 1)}}),
    Row("PUBLISH without a file", PAIR, events.publish(P, 1, 1), None),
    Row("PUBLISH by one that left", [*FILE, events.leave(P, 0)], events.publish(P, 1, 1), None),
    Row("PUBLISH beyond the bound", THREE, events.publish(P, 3, 1), None, 5),
    Row("PUBLISH beyond bound and reservation", [*THREE, events.reserve(P, 1)], events.publish(P, 3, 1), None, 5,
        {"used": 4, "res": {P: Reservation(1, 1, False)}}),
    Row("PUBLISH into places of another", [*RESERVED, events.open_(C, 2)], events.publish(C, 1, 1), None, 4),
    Row("PUBLISH into places of a lease", LEASED, events.publish(P, 4, 1), None, 6, {"used": 3}),
    Row("CLAIM in an empty queue", FILE, events.claim(C), None),
    Row("CLAIM behind the last", [*THREE, events.claim_many(C, 3)], events.claim(C), None),
    Row("CLAIM while a lease stands", LEASED, events.claim(C), None),
    Row("CLAIM while a dead one's lease stands", [*LEASED, events.leave(C, 1)], events.claim(D), None),
    Row("CLAIM_MANY in an empty queue", FILE, events.claim_many(C, 2), None),
    Row("CLAIM_MANY while a lease stands", LEASED, events.claim_many(D, 2), None),
    Row("LEASE by a producer", THREE, events.lease(P, 2), None),
    Row("LEASE by nobody", THREE, events.lease(D, 2), None),
    Row("LEASE of nothing", FILE, events.lease(C, 2), None),
    Row("LEASE while another's stands", [*LEASED, events.leave(C, 1), events.join(False), events.join(True)],
        events.lease(D, 1), None),
    Row("LEASE by a second one while the first's stands", [*LEASED, events.join(True)], events.lease(D, 1), None),
    Row("LEASE near the bound", THREE, events.lease(C, 2), None, 5),
    Row("LEASE near the bound by reservation", [*THREE, events.reserve(P, 1)], events.lease(C, 2), None, 7),
    Row("LEASE by the next one in the holder's slot", [*LEASED, events.leave(C, 1), events.join(True)],
        events.lease(C, 1), None, 0, {"lease": Lease(C, 0, 2, 1, 1), "low": 0}),
    Row("REVOKE of no lease", THREE, events.revoke(1, 0), None),
    Row("REVOKE of an older lease", [*LEASED, events.lease(C, 1)], events.revoke(0, 1), None),
    Row("REVOKE twice: the first decides", [*LEASED, events.revoke(1, 1)], events.revoke(2, 1), None, 0,
        {"kept": {C: (1, 1)}, "head": 1}),
    Row("RESERVE without a bound", FILE, events.reserve(P, 1), None),
    Row("RESERVE by nobody", FILE, events.reserve(D, 1), None, 5),
    Row("RESERVE beyond the bound", THREE, events.reserve(P, 3), None, 5),
    Row("RESERVE while one stands", RESERVED, events.reserve(P, 1), None, 9),
    Row("RESERVE while a cut one stands", [*RESERVED, events.trim(P, 0, 1)], events.reserve(P, 1), None, 9),
    Row("TRIM of no reservation", FILE, events.trim(P, 1, 0), None, 4),
    Row("TRIM of a cut one", [*RESERVED, events.trim(P, 2, 1)], events.trim(P, 1, 1), None, 4, {"used": 2}),
    Row("TRIM of a cut one that was not cut", [*RESERVED, events.trim(P, 4, 1)], events.trim(P, 1, 1), None, 4),
    Row("TRIM of an older one", [*RESERVED, events.publish(P, 0, 0), events.reserve(P, 3)], events.trim(P, 0, 1),
        None, 4),
    Row("TRIM of more than its count can tell", [*FILE, events.reserve(P, events.RESERVE_MOST + 1)],
        events.trim(P, 9, 1), None, 2000, {"used": events.RESERVE_MOST + 1}),
    Row("TRIM of another's", RESERVED, events.trim(C, 0, 1), None, 4),
    Row("HOLD by a producer", THREE, events.hold(P), None),
    Row("HOLD by nobody", THREE, events.hold(D), None),
    Row("HOLD in an empty queue", FILE, events.hold(C), None),
    Row("HOLD behind the last", [*HELD, events.hold(C), events.hold(C)], events.hold(C), None),
    Row("HOLD while a lease stands", LEASED, events.hold(C), None),
    Row("HOLD by one that left", [*THREE, events.leave(C, 1)], events.hold(C), None),
    Row("GOT of no hold", THREE, events.got(3), None),
    Row("GOT twice", [*HELD, events.got(4)], events.got(4), None),
    Row("GOT of what has come back", BACK, events.got(4), None, 3, {"returned": [Returned(0, 1, FIRST)]}),
    Row("GOT of what another holds by now", [*BACK, events.hold(C)], events.got(4), None, 3,
        {"held": {6: Held(6, C, 1, 0, 1, FIRST)}}),
    Row("GOT after its holder's LEAVE", [*HELD, events.leave(C, 1)], events.got(4), None),
    Row("RETURN of no hold", THREE, events.return_(3), None),
    Row("RETURN twice", BACK, events.return_(4), None),
    Row("RETURN of what was got", [*HELD, events.got(4)], events.return_(4), None),
    Row("CLAIM while an item has come back", BACK, events.claim(C), None),
    Row("CLAIM_MANY while an item has come back", BACK, events.claim_many(C, 2), None),
    Row("LEASE while an item is held", HELD, events.lease(C, 1), None),
    Row("LEASE while an item has come back", BACK, events.lease(C, 1), None),
    Row("PUBLISH into the place of what is held", HELD, events.publish(P, 1, 1), None, 3),
    Row("PUBLISH into the place of what has come back", BACK, events.publish(P, 1, 1), None, 3),
    Row("RESERVE of the place of what is held", HELD, events.reserve(P, 1), None, 3),
    Row("SEAL before the limit", PAIR, events.seal(7), None),
    Row("TASK_DONE without an item", FILE, events.task_done(), None),
    Row("TASK_DONE once too often", [*THREE, *[events.task_done()] * 3], events.task_done(), None),
    Row("TASK_DONE of dropped items", [*ENDED_AT_ONCE, events.task_done()], events.task_done(), None),
    Row("SHUTDOWN twice", ENDED, events.shutdown(False), None),
    Row("SHUTDOWN after SHUTDOWN at once", ENDED_AT_ONCE, events.shutdown(False), None),
    Row("SHUTDOWN at once twice", ENDED_AT_ONCE, events.shutdown(True), None),
    Row("SHUTDOWN at once while a lease stands", LEASED, events.shutdown(True), None),
    Row("PUBLISH after SHUTDOWN", ENDED, events.publish(P, 1, 1), None),
    Row("PUBLISH_LATE before SHUTDOWN", THREE, events.publish_late(P, 1, 1), None),
    Row("PUBLISH_LATE after SHUTDOWN at once", ENDED_AT_ONCE, events.publish_late(P, 1, 1), None),
    Row("PUBLISH_LATE beyond the bound", ENDED, events.publish_late(P, 3, 1), None, 5),
    Row("PUBLISH_LATE without a file", [*PAIR, events.shutdown(False)], events.publish_late(P, 1, 1), None),
    Row("RESERVE after SHUTDOWN", ENDED, events.reserve(P, 1), None, 5),
    Row("CLAIM after SHUTDOWN at once", ENDED_AT_ONCE, events.claim(C), None),
    Row("type 0", THREE, bytes(8), None),
    Row("an unknown type", THREE, bytes([200]) + bytes(7), None),
]  # fmt: skip


def shows(ledger: Ledger, state: dict[str, Any]) -> None:
    for name, value in state.items():
        found = getattr(ledger, name)
        assert (len(found) if name == "blocks" else found) == value, name


@pytest.mark.parametrize("row", VALID, ids=lambda row: row.name)
def test_valid_event(row: Row) -> None:
    """It comes to what the table says, and the state shows it."""
    ledger = Ledger(row.maxsize)
    assert None not in feed(ledger, row.before), "the example itself is wrong"
    assert ledger.step(word(row.event)) == row.verdict
    shows(ledger, row.state)


@pytest.mark.parametrize("row", VOID, ids=lambda row: row.name)
def test_void_event(row: Row) -> None:
    """It changes nothing but the count of events."""
    ledger = Ledger(row.maxsize)
    assert None not in feed(ledger, row.before), "the example itself is wrong"
    before = ledger.snapshot()
    assert ledger.step(word(row.event)) is None
    shows(ledger, row.state)
    ledger.index -= 1
    assert ledger.snapshot() == before


@pytest.mark.parametrize("row", VALID, ids=lambda row: row.name)
def test_every_event_is_void_past_the_limit(row: Row) -> None:
    """Also one that would be valid before it; only the first SEAL counts there."""
    ledger = Ledger(row.maxsize, max(1, len(row.before)))
    feed(ledger, row.before)
    if not row.before:
        feed(ledger, [bytes(8)])
    before = ledger.snapshot(rolled=True)
    assert ledger.step(word(row.event)) is None
    assert ledger.step(word(events.seal(3))) == 3
    assert ledger.step(word(events.seal(4))) is None
    assert ledger.sealed == 3
    assert ledger.snapshot(rolled=True) == before


def test_no_slot_is_free_when_all_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """JOIN is void then, and valid again when one has left."""
    monkeypatch.setattr(events, "SLOTS", 3)
    ledger = Ledger()
    assert feed(ledger, [events.join(True)] * 4) == [0, 1, 2, None]
    assert feed(ledger, [events.leave(1, 1), events.join(False), events.join(False)]) == [1, 1, None]


def test_every_slot_of_an_event_can_be_a_members() -> None:
    ledger = Ledger(0, 1 << 20)
    ledger.apply(events.join(True) * events.SLOTS)
    assert ledger.step(word(events.join(True))) is None
    assert len(ledger.members) == events.SLOTS
    assert ledger.step(word(events.leave(events.SLOTS - 1, events.SLOTS - 1))) == events.SLOTS - 1


def test_limits_double_up_to_the_last() -> None:
    ledger = Ledger(0, 3, 20)
    limits = []
    for _ in range(5):
        limits.append(ledger.limit)
        ledger.roll()
    assert limits == [3, 6, 12, 20, 20]
    assert ledger.base == sum(limits)


def test_grants_past_their_field_are_told_apart() -> None:
    """The 2**30th grant is number 0 in a TRIM, and the one before it is not."""
    ledger = Ledger(9)
    feed(ledger, PAIR)
    ledger.grants = events.GRANT_LIMIT - 1
    assert ledger.step(word(events.reserve(P, 3))) == Reservation(3, 0, False)
    assert ledger.step(word(events.trim(P, 1, events.GRANT_LIMIT - 1))) is None
    assert ledger.step(word(events.trim(P, 1, events.GRANT_LIMIT))) == Reservation(1, 0, True)


# -- (d) blocks and files


def test_block_finds_what_was_just_claimed_and_nothing_older() -> None:
    """Until the next PUBLISH, which forgets the blocks before it."""
    ledger = Ledger()
    feed(ledger, [*THREE, events.publish(P, 2, 2), events.claim_many(C, 5)])
    assert ledger.block(0) == Block(0, 3, FileId(0, 2), 0, 1)
    assert ledger.block(4) == Block(3, 5, FileId(0, 2), 1, 2)
    feed(ledger, [events.publish(P, 1, 1)])
    assert ledger.block(5) == Block(5, 6, FileId(0, 2), 3, 1)
    for item in (4, 6):
        with pytest.raises(LookupError):
            ledger.block(item)


def test_parts_are_the_blocks_that_the_items_lie_in() -> None:
    ledger = Ledger()
    feed(ledger, [*THREE, events.publish(P, 2, 2), events.publish(P, 4, 256)])
    first, second, third = ledger.blocks
    assert ledger.parts(0, 9) == [first, second, third]
    assert ledger.parts(2, 4) == [first, second]
    assert ledger.parts(3, 5) == [second]
    assert ledger.parts(5, 6) == [third]
    assert ledger.parts(9, 12) == []


def test_small_blocks_behind_others_are_runs() -> None:
    """Whoever puts them, as long as they are not too many; the parts are what they were."""
    ledger = Ledger()
    sizes = [1, 2, 255, 1, 3, 256, 1]
    feed(ledger, [*FILE, events.publish(P, 2, 1), *(events.publish(P, 1, size) for size in sizes)])
    feed(ledger, [events.publish(P, 3, 1), events.join(False), events.open_(2, 9), events.publish(2, 7, 5)])
    feed(ledger, [events.publish(P, 255, 1), events.publish(2, 1, 9), events.publish(2, 256, 2)])
    file, other = FileId(0, 2), FileId(ledger.members[2].number, 9)
    first = [Block(2, 3, file, 1, 1), Block(3, 4, file, 2, 2), Block(4, 5, file, 4, 255), Block(5, 6, file, 259, 1)]
    first.append(Block(6, 7, file, 260, 3))
    second = [Block(8, 9, file, 519, 1), Block(9, 12, file, 520, 1), Block(12, 19, other, 0, 5)]
    second += [Block(19, 274, file, 521, 1), Block(274, 275, other, 5, 9)]
    apart = [Block(0, 2, file, 0, 1), Block(7, 8, file, 263, 256), Block(275, 531, other, 14, 2)]
    expected = [apart[0], *first, apart[1], *second, apart[2]]
    loaded = Ledger.load(ledger.snapshot())
    for each in (ledger, loaded):
        assert [block for block in each.blocks if isinstance(block, Block)] == apart
        runs = [run for run in each.blocks if isinstance(run, Run)]
        assert [(run.first, run.end, run.blocks, run.files, run.units) for run in runs] == [
            (2, 7, 5, 1, 262),
            (8, 275, 5, 2, 17),
        ]
        assert each.parts(0, 999) == expected
        for index, block in [*enumerate(expected), *reversed([*enumerate(expected)])]:
            for item in {block.first, block.end - 1}:
                assert each.block(item) == block
                assert each.parts(item, item + 1) == [block]
                assert each.units_from(item) == sum(behind.units for behind in expected[index:])
    assert loaded.snapshot() == ledger.snapshot()


SECOND = [events.join(False), events.open_(2, 8)]
"""Another producer, with a file."""
THIRD = [events.join(False), events.open_(3, 4)]
"""And one whose file is in no run yet."""


@pytest.mark.parametrize(
    "before",
    [
        [],
        [events.reserve(P, 4)],
        [events.reserve(2, 4)],
        [events.shutdown(False)],
        [events.claim(C)] * 2,
        [events.hold(C)] * 3,
        [events.leave(2, 6)],
        [events.open_(2, 10)],
    ],
    ids=lambda before: f"{events_name(before[0])}_{len(before)}" if before else "nothing",
)
@pytest.mark.parametrize("maxsize", [0, 12, 14, 40])
@pytest.mark.parametrize(
    "small",
    [
        [events.publish(P, 1, 1)] * 5,
        [events.publish(3, 1, 1), events.publish(2, 1, 1), events.publish(3, 1, 1)],
        [events.publish(2, 1, 1), events.publish(3, 1, 1), events.publish(P, 1, 1), events.publish(2, 1, 1)],
        [events.publish(P, 1, 1), events.publish(2, 2, 3), events.publish(2, 1, 9), events.publish(P, 1, 2)],
        [events.publish(2, 3, 1), *[events.publish(P, 1, 255)] * 4],
        [*[events.publish(P, 1, 1)] * 3, events.publish(P, 256, 1), events.publish(P, 1, 1)],
        [*[events.publish(P, 1, 1)] * 3, events.publish(P, 257, 1), events.publish(P, 1, 1)],
        [*[events.publish(P, 1, 1)] * 3, events.publish(P, 1, 256), events.publish(P, 1, 1)],
        [events.publish(P, 1, 1, True), events.publish(2, 2, 1), events.publish(P, 1, 1)],
        [events.publish(P, 1, 1), events.publish(256, 1, 1), events.publish(9, 1, 1), events.publish(2, 1, 1)],
    ],
)
def test_small_blocks_that_are_applied_together_are_what_they_are_one_by_one(
    before: list[bytes], maxsize: int, small: list[bytes]
) -> None:
    """Whatever the state is, and whichever of them count; and their files are done when they are."""
    together, single = Ledger(maxsize, 99), Ledger(maxsize, 99)
    begin = [*FILE, *[events.publish(P, 1, 1)] * 4, *SECOND, *THIRD, *before]
    behind = [events.open_(2, 20), *[events.claim(C)] * 9]
    for journal in (begin, small, behind, [events.open_(P, 20)]):
        feed(single, journal)
        assert together.apply(b"".join(journal)) == len(journal) * SIZE
        for ledger in (together, single):
            ledger.trim()
        assert notes(together) == notes(single)
        assert together.parts(0, 999) == single.parts(0, 999)
        assert all(run._tables is None for run in [*together.blocks][:-1] if isinstance(run, Run))


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("producer", [P, 2])
def test_a_run_goes_on_where_it_was_loaded(producer: int, together: bool) -> None:
    ledger = Ledger()
    feed(ledger, [*FILE, *SECOND, *[events.publish(P, 1, 2)] * 4])
    loaded = Ledger.load(ledger.snapshot())
    assert isinstance(loaded.blocks[-1], Run) and loaded.blocks[-1].blocks == 2
    more = [events.publish(producer, 1, 2), events.publish(P, 2, 1), events.publish(producer, 1, 1)] * 2
    feed(ledger, more)
    if together:
        assert loaded.apply(b"".join(more)) == len(more) * SIZE
    else:
        feed(loaded, more)
    assert loaded.snapshot() == ledger.snapshot()
    assert loaded.parts(0, 99) == ledger.parts(0, 99)


def test_a_file_in_a_run_is_done_with_its_own_last_item() -> None:
    """Not with the run: others may put there for long."""
    ledger = Ledger()
    feed(ledger, [*FILE, events.publish(P, 2, 1), events.join(False), events.open_(2, 8)])
    feed(ledger, [events.publish(P, 1, 1), events.publish(2, 1, 1), events.publish(P, 1, 1), events.leave(P, 0)])
    feed(ledger, [events.publish(2, 1, 1)])
    assert [type(block) for block in ledger.blocks] == [Block, Run]
    loaded = Ledger.load(ledger.snapshot())
    for each in (ledger, loaded):
        feed(each, [events.claim(C)] * 4)
        each.trim()
        assert not each.done and not each.is_done(FileId(0, 2))
        feed(each, [events.claim(C)])
        assert each.is_done(FileId(0, 2))
        each.trim()
        assert each.done == [(FileId(0, 2), 5)]
        assert not each.is_done(FileId(each.members[2].number, 8))
        assert len(each.blocks) == 1
    assert loaded.snapshot() == ledger.snapshot()


def test_single_blocks_near_the_head_are_no_run() -> None:
    """Who takes them would have to look up each: and which are near is the same to all, however lately they trimmed."""
    prompt, late = Ledger(), Ledger()
    begin = [*FILE, *[events.publish(P, 1, 1)] * 3, *[events.claim(C)] * 3]
    for ledger in (prompt, late):
        feed(ledger, begin)
    prompt.trim()
    for ledger in (prompt, late):
        feed(ledger, [events.publish(P, 1, 1)] * 3)
        assert all(isinstance(block, Block) for block in ledger.blocks)
        feed(ledger, [events.publish(P, 1, 1)])
        assert isinstance(ledger.blocks[-1], Run)
    assert prompt.snapshot() == late.snapshot()


def test_a_held_item_of_a_run_has_a_block_of_its_own() -> None:
    ledger = Ledger()
    feed(ledger, [*FILE, *[events.publish(P, 1, 2)] * 5, *[events.claim(C)] * 3])
    held = ledger.step(word(events.hold(C)))
    assert isinstance(ledger.blocks[-1], Run)
    assert isinstance(held, Held) and held.block == Block(3, 4, FileId(0, 2), 6, 2)
    assert Ledger.load(ledger.snapshot()).held == ledger.held


def test_a_file_with_leased_items_is_not_done() -> None:
    """Leased is not claimed: a REVOKE may still give the items back."""
    ledger = Ledger()
    file = FileId(0, 2)
    feed(ledger, [*THREE, events.lease(C, 3), events.open_(P, 4)])
    ledger.trim()
    assert not ledger.done
    assert not ledger.is_done(file)
    feed(ledger, [events.revoke(2, 1)])
    ledger.trim()
    assert not ledger.done
    assert not ledger.is_done(file)
    feed(ledger, [events.claim(C)])
    ledger.trim()
    assert ledger.done == [(file, 3)]
    assert ledger.is_done(file)


def test_a_file_that_is_still_filled_is_not_done() -> None:
    """Neither the current one, nor one that its member has made but not opened."""
    ledger = Ledger()
    feed(ledger, [*THREE, events.claim_many(C, 3)])
    ledger.trim()
    assert not ledger.done
    assert not ledger.is_done(FileId(0, 2))
    assert not ledger.is_done(FileId(0, 4))
    assert ledger.is_done(FileId(0, 0))
    feed(ledger, [events.leave(P, 0)])
    assert ledger.done == [(FileId(0, 2), 3)]
    assert ledger.is_done(FileId(0, 2))
    assert ledger.is_done(FileId(0, 4))


def test_a_file_is_done_with_the_end_of_its_items_also_after_a_roll() -> None:
    """All its items were claimed before the roll, and it is sealed after it."""
    ledger = Ledger(0, 5, 50)
    feed(ledger, [*THREE, events.claim_many(C, 3)])
    ledger = Ledger.load(ledger.snapshot(rolled=True))
    feed(ledger, [events.open_(P, 4)])
    assert ledger.done == [(FileId(0, 2), 3)]


def test_a_file_with_an_item_that_is_held_or_has_come_back_is_not_done() -> None:
    """Nor after a roll, and it is done with the last of them, whichever that is."""
    file = FileId(0, 2)
    ledger = Ledger()
    feed(ledger, [*HELD, events.hold(C), events.claim(C), events.open_(P, 4)])
    for step in (events.return_(4), events.got(5), events.hold(C)):
        again = Ledger.load(ledger.snapshot())
        for each in (ledger, again):
            each.trim()
            assert not each.done
            assert not each.is_done(file)
        feed(ledger, [step])
    ledger.trim()
    assert not ledger.done
    number = ledger.index - 1
    again = Ledger.load(ledger.snapshot())
    for each in (ledger, again):
        feed(each, [events.got(number)])
        assert each.done == [(file, 3)]
        assert each.is_done(file)


def test_a_dropped_item_that_had_come_back_lets_its_file_go() -> None:
    ledger = Ledger()
    feed(ledger, [*BACK, events.hold(C), events.hold(C), events.return_(6), events.claim(C), events.open_(P, 4)])
    feed(ledger, [events.shutdown(True)])
    ledger.trim()
    assert not ledger.done
    feed(ledger, [events.return_(7)])
    assert ledger.done == [(FileId(0, 2), 3)]


def test_only_claims_of_the_watched_slot_are_noted() -> None:
    """With the number of the event, the item and its block, also where they come in one chunk."""
    ledger = Ledger()
    ledger.watched = C
    ledger.apply(b"".join([*THREE, events.claim(D), events.claim(C), events.claim_many(C, 5), events.claim(C)]))
    block = Block(0, 3, FileId(0, 2), 0, 1)
    assert ledger.yours == [(5, 1, block), (6, 2, block)]
