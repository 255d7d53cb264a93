"""The short ways of put and get, which take no lock: what other threads and processes do in the middle of them."""

from __future__ import annotations

import contextlib
import itertools
import linecache
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Optional

import pytest
from interrupting import Interrupted, interrupt_at
from signalling import signalled_before
from watching import AWAITS_PLACE, events_of, newcomer, until_asleep

import tqshim
from tqshim import CorruptBatchError, Empty, TurboQueue
from tqshim.engine import tuning
from tqshim.engine.consumer import Consumer
from tqshim.engine.engine import Engine
from tqshim.engine.leasing import NO_STEPS, Leasing
from tqshim.engine.log import NO_LOG, Log
from tqshim.engine.membership import Membership
from tqshim.engine.producer import Producer
from tqshim.engine.replica import Replica
from tqshim.protocol import events
from tqshim.queues import queue as queues
from tqshim.runtime import systems
from tqshim.storage.folder import LogFolder
from tqshim.sync import cells as words_of
from tqshim.sync import membarrier
from tqshim.sync.cells import Cells

LONG = 60.0
PUTS = pytest.mark.skipif(not (tuning.SHORT_WAYS and membarrier.barrier_works()), reason="there is no short way to put")
GETS = pytest.mark.skipif(
    not (tuning.SHORT_WAYS and tuning.LEASES and membarrier.barrier_works()), reason="there is no short way to get"
)
BOUNDED = pytest.mark.skipif(
    not (tuning.RESERVATIONS and membarrier.barrier_works()), reason="there is no short way to put into a bounded queue"
)


@pytest.fixture(params=[0, pytest.param(1000, marks=BOUNDED)])
def q(request: pytest.FixtureRequest) -> Iterator[Any]:
    queue: Any = TurboQueue(request.param)
    yield queue
    queue._engine.close()


@contextlib.contextmanager
def meanwhile(line: str, act: Callable[[], Any]) -> Iterator[list[Any]]:
    """Do something when this line of ``queues`` is next about to run in this thread.

    Yields a list of what that returned."""
    done: list[Any] = []

    def trace(frame: FrameType, event: str, argument: Any) -> Optional[Callable[..., Any]]:
        if frame.f_code.co_filename != queues.__file__:
            return None
        if event == "line" and not done and linecache.getline(queues.__file__, frame.f_lineno).strip() == line:
            done.append(None)
            done[0] = act()
        return trace

    sys.settrace(trace)
    try:
        yield done
    finally:
        sys.settrace(None)
    assert done, f"no line {line!r} was run"


def start_short_puts(q: Any) -> list[int]:
    """Put so many that the next put takes the short way; returns what was put."""
    put: list[int] = []
    producer = q._engine.parts.producer
    while not put or producer.log.counts[producer.log.cell] >= producer.log.stop:
        put.append(len(put))
        q.put(put[-1])
        assert len(put) < 500, "no put takes the short way"
    return put


def start_window(q: Any) -> list[int]:
    """Have items of which the next get takes the short way; returns which."""
    q.put_many(range(200))
    leasing = q._engine.parts.leasing
    for number in range(200):
        assert q.get(True, LONG) == number
        if leasing.steps is not NO_STEPS:
            return list(range(number + 1, 200))
    raise AssertionError("no lease was taken")


def raise_flag(q: Any, lease: Any) -> None:
    """As another does that wants the lease to end."""
    q._engine.parts.members.raise_flag(words_of.LEASE_FLAG, lease.slot)


def drained(q: Any) -> list[Any]:
    found = []
    with contextlib.suppress(tqshim.Empty):
        while True:
            found.append(q.get(True, 0.05))
    return found


@PUTS
def test_what_others_do_while_a_put_takes_the_short_way(q: Any) -> None:
    """Before its record is written: it is neither lost nor put twice, and comes behind what they have put."""
    acts: dict[str, Callable[[], Any]] = {
        "put": lambda: q.put("other"),
        "put_many": lambda: q.put_many(["other"]),
        "qsize": q.qsize,
        "get": lambda: q.get(True, LONG),
        "interrupted": lambda: q._engine.act(q._engine._recover),
    }
    for name, act in acts.items():
        put: list[Any] = start_short_puts(q)
        with meanwhile("if type(record) is bytes:", act) as done:
            q.put("mine")
        put += ["other"] * name.startswith("put") + ["mine"]
        assert [*done * (name == "get"), *drained(q)] == put, name
        if name == "qsize":
            assert done == [len(put) - 1]


@PUTS
@BOUNDED
@pytest.mark.parametrize("block", [False, True])
def test_a_place_that_went_in_that_moment_is_waited_for(block: bool) -> None:
    """Another process takes all places before the record is written: put waits, or raises ``Full``, and the bound
    holds."""
    q: Any = TurboQueue(400)
    other = Engine(LogFolder.meet(q._engine.folder.path))
    put = start_short_puts(q)

    def fill() -> None:
        while other.put(b"\x80\x05N.", False, None):
            pass

    with meanwhile("if type(record) is bytes:", fill):
        if block:
            taker = threading.Thread(target=lambda: (until_asleep(q, AWAITS_PLACE), q.get()))
            taker.start()
            q.put("mine", True, LONG)
            taker.join()
        else:
            with pytest.raises(tqshim.Full):
                q.put("mine", False)
    assert q.qsize() == 400
    assert q.full()
    got = drained(q)
    assert got == [*put[block:], *[None] * (400 - len(put)), *["mine"] * block]
    other.close()
    q._engine.close()


@PUTS
@BOUNDED
def test_a_record_whose_place_is_cut_down_goes_the_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "ALONE", False)  # who puts alone reserves nothing
    q: Any = TurboQueue(1000)
    parts = q._engine.parts
    put = start_short_puts(q)
    slot = parts.producer.slot
    granted = parts.replica.ledger.reservations.by_slot[slot]
    parts.members.raise_flag(words_of.FLAG, slot)  # as a producer does that finds no place
    for number in range(len(put), len(put) + 50):
        q.put(number)
        assert parts.replica.ledger.reservations.by_slot.get(slot) != granted
    assert drained(q) == list(range(len(put) + 50))
    q._engine.close()


@PUTS
@pytest.mark.parametrize("later_first", [False, True])
@pytest.mark.parametrize("end", ["full", "shut", "one place"])
def test_two_threads_whose_records_come_too_late_learn_it_both(
    q: Any, end: str, later_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has put its record, and then asks whether it counts; the first to ask answers for the other's, too."""
    if end != "shut" and not q._maxsize:
        pytest.skip("there is always a place")
    monkeypatch.setattr(tuning, "LEASES", False)  # a place is free once its item is got
    engine = q._engine
    producer = engine.parts.producer
    put = start_short_puts(q)
    other = Engine(LogFolder.meet(engine.folder.path))
    theirs = taken = 0
    if end == "shut":
        other.shutdown(False)
    else:
        while other.put(b"\x80\x05N.", False, None):
            theirs += 1
        if end == "one place":
            assert other.get([], 1, False, None)[0] == 0
            taken = 1
    log = producer.log
    log.due = 1 << 62  # no cut comes first
    totals = [log.put(b"\x80\x05K" + bytes([number]) + b".") for number in (201, 202)]
    assert totals == [len(put) + 1, len(put) + 2]
    if later_first:
        answers = [engine.has_put(total) for total in reversed(totals)][::-1]
    else:
        answers = [engine.has_put(total) for total in totals]
    assert answers == [end == "one place", False]
    assert not producer.lost
    assert q.qsize() == len(put) + theirs - taken + sum(answers)
    found = []
    with contextlib.suppress(tqshim.Empty, tqshim.ShutDown):
        while True:
            found.append(q.get(True, 0.05))
    assert [item for item in found if item is not None] == [*put[taken:], *[201] * sum(answers)]
    assert found.count(None) == theirs
    other.close()


@PUTS
@BOUNDED
@pytest.mark.parametrize("later_first", [False, True])
def test_what_somebody_has_counted_gives_its_place_to_no_other_put(
    later_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two have each put a record behind a reservation that was ended, and there is one place: who has counted the one
    knows that what is put after that finds none."""
    monkeypatch.setattr(tuning, "ALONE", False)  # who puts alone reserves nothing
    monkeypatch.setattr(tuning, "PLACES_FEW", 5)
    monkeypatch.setattr(tuning, "LEASES", False)  # a place is free once its item is got
    q: Any = TurboQueue(20)
    others = [Engine(LogFolder.meet(q._engine.folder.path)) for _ in range(2)]
    first, second, third = q._engine, *others
    for engine in (first, second):
        log = NO_LOG
        while log.counts[log.cell] >= log.stop:
            assert engine.put(b"\x80\x05N.", False, None)
            log = engine.parts.producer.log
        log.due = 1 << 62  # no cut comes first
    while third.put(b"\x80\x05N.", False, None):
        pass
    assert third.get([], 1, False, None)[0] == 0
    assert third.qsize() == 19
    if later_first:
        first, second = second, first
    totals = [first.parts.producer.log.put(b"\x80\x05N.")]
    counted = third.qsize()
    totals.append(second.parts.producer.log.put(b"\x80\x05N."))
    assert min(totals) > 0
    is_put = second.has_put(totals[1])
    assert counted + is_put <= 20
    assert first.has_put(totals[0]) != is_put
    assert third.qsize() == 20
    for engine in (first, second, third):
        engine.close()


@BOUNDED
@pytest.mark.parametrize("free", [0, 1, 2, 3])
def test_a_batch_whose_places_others_take_in_that_moment_is_put_whole_or_not_at_all(
    free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    q: Any = TurboQueue(20)
    other = Engine(LogFolder.meet(q._engine.folder.path))
    q.put_many(range(3))
    q.put_many(range(3, 6))
    append = Producer.append
    theirs: list[None] = []

    def in_between(producer: Producer, total: int, new: int, event: Callable[[int, int], bytes]) -> int:
        if producer is q._engine.parts.producer:
            monkeypatch.undo()
            while other.put(b"\x80\x05N.", False, None):
                theirs.append(None)
            if free:
                other.get([], free, False, None)
        return append(producer, total, new, event)

    monkeypatch.setattr(Producer, "append", in_between)
    if free < 3:
        with pytest.raises(tqshim.Full) as caught:
            q.put_many_nowait(range(6, 9))
        assert str(caught.value) == ""
    else:
        q.put_many_nowait(range(6, 9))
    assert len(theirs) == 14
    got = drained(q)
    assert [item for item in got if item is not None] == [*range(free, 6), *([6, 7, 8] if free == 3 else [])]
    assert got.count(None) == 14
    other.close()
    q._engine.close()


@GETS
def test_what_others_do_while_a_get_takes_the_short_way(q: Any) -> None:
    engine = q._engine

    def work() -> Any:
        with q.claimed(True, LONG) as item:
            return item

    acts: dict[str, Callable[[], Any]] = {
        "get": lambda: q.get(True, LONG),
        "get_many": lambda: q.get_many(True, LONG, 3),
        "claimed": work,
        "put": lambda: q.put(200),
        "qsize": q.qsize,
        "interrupted": lambda: engine.act(engine._recover),
    }
    for name, act in acts.items():
        left = start_window(q)
        with meanwhile("loading = 1", act) as done:
            assert q.get(True, LONG) == left[0]
        also = done if name in ("get", "claimed") else done[0] if name == "get_many" else []
        left += [200] * (name == "put")
        assert [*also, *drained(q)] == left[1:], name
        if name == "qsize":
            assert done == [len(left) - 1]


@GETS
@pytest.mark.parametrize("ours", [False, True])
def test_a_step_that_somebody_objects_to_asks_the_journal(q: Any, ours: bool) -> None:
    """Another consumer ends the lease before, or after, it can see that this item is taken."""
    parts = q._engine.parts
    left = start_window(q)
    lease = parts.replica.ledger.leases.standing
    raise_flag(q, lease)

    def end_lease() -> None:
        parts.replica.journal.append(events.revoke(left[0] + ours - lease.first, lease.number))

    with meanwhile("generation = engine.generation", end_lease):
        assert q.get(True, LONG) == left[0]
    # Its own lease ended; the item was got by a step, or by the claim that followed.
    assert parts.replica.ledger.leases.ended[lease.slot] == (lease.number, left[0] + ours)
    assert not parts.leasing._lost
    assert drained(q) == left[1:]


@GETS
def test_steps_beyond_the_end_of_a_lease_find_out_each(q: Any) -> None:
    """Three threads have taken a step each when the lease ends before the second: one item is theirs."""
    engine = q._engine
    left = start_window(q)
    parts = engine.parts
    lease = parts.replica.ledger.leases.standing
    raise_flag(q, lease)
    steps = [next(parts.leasing.steps) for _ in range(3)]
    assert [item for _, item, *_ in steps] == left[:3]
    assert all(contested for _, _, _, contested, *_ in steps)
    parts.replica.journal.append(events.revoke(left[1] - lease.first, lease.number))
    generation = engine.generation
    assert [engine.confirm(item, lease, generation) for _, item, *_ in reversed(steps)] == [False, False, True]
    assert not engine.confirm(left[0], lease, generation - 1), "a forked child's"
    assert drained(q) == left[1:]


@GETS
def test_a_step_that_has_yet_to_ask_learns_of_the_end_of_a_lease_after_the_next(q: Any) -> None:
    """It has taken the last item, in one thread, of a lease that another process had ended; another thread leases anew
    before the first one has asked."""
    engine = q._engine
    left = start_window(q)
    q.put_many(range(200, 300))
    left += range(200, 300)
    parts = engine.parts
    lease = parts.replica.ledger.leases.standing
    while left[0] < lease.end - 1:
        assert q.get(True, LONG) == left.pop(0)
    raise_flag(q, lease)
    _, item, _, contested, *_ = next(parts.leasing.steps)
    assert item == left[0] == lease.end - 1 and contested
    parts.replica.journal.append(events.revoke(item - lease.first, lease.number))
    assert q.get(True, LONG) == item
    assert parts.replica.ledger.leases.standing.number == lease.number + 1
    assert not engine.confirm(item, lease, engine.generation)
    assert drained(q) == left[1:]


@GETS
def test_an_interrupt_before_the_journal_has_answered_loses_nothing(q: Any) -> None:
    parts = q._engine.parts
    left = start_window(q)
    raise_flag(q, parts.replica.ledger.leases.standing)

    def interrupt() -> None:
        raise KeyboardInterrupt

    for line in ("if not engine.confirm(item, lease, generation):", "contested = 0"):
        with pytest.raises(KeyboardInterrupt), meanwhile(line, interrupt):
            q.get(True, LONG)
        assert q.get(True, LONG) == left.pop(0)
        if parts.replica.ledger.leases.standing is None:
            break
        raise_flag(q, parts.replica.ledger.leases.standing)
    assert drained(q) == left


@PUTS
@pytest.mark.skipif(sys.version_info < (3, 12), reason="there is no sys.monitoring")
@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("name", ["LINE", "INSTRUCTION", "BRANCH", "BRANCH_LEFT"])
def test_a_put_that_a_tool_watches_loses_nothing_to_other_threads(q: Any, name: str, local: bool) -> None:
    """Its callback lets another thread put between any two lines of ours."""
    monitoring: Any = sys.monitoring  # type: ignore[attr-defined]
    code, tool = Log.put.__code__, monitoring.DEBUGGER_ID
    wanted = getattr(monitoring.events, name, 0)
    if not wanted:
        pytest.skip("this interpreter has no such event")
    put = start_short_puts(q)
    theirs: list[threading.Thread] = []
    seen: set[int] = set()
    me = threading.get_ident()

    def watch(found: Any, place: int, *_: Any) -> None:
        if found is code and threading.get_ident() == me and place not in seen:
            seen.add(place)
            theirs.append(threading.Thread(target=q.put, args=(f"theirs {place}",)))
            theirs[-1].start()
            theirs[-1].join()

    monitoring.use_tool_id(tool, "test")
    monitoring.register_callback(tool, wanted, watch)
    monitoring.register_callback(tool, monitoring.events.PY_START, lambda *_: None)
    monitoring.set_events(tool, monitoring.events.PY_START | (0 if local else wanted))
    if local:
        monitoring.set_local_events(tool, code, wanted)
    try:
        for number in range(50):
            q.put(number)
    finally:
        monitoring.set_events(tool, 0)
        monitoring.set_local_events(tool, code, 0)
        monitoring.register_callback(tool, wanted, None)
        monitoring.register_callback(tool, monitoring.events.PY_START, None)
        monitoring.free_tool_id(tool)
    got = drained(q)[len(put) :]
    assert [item for item in got if type(item) is int] == list(range(50))
    assert sorted(item for item in got if type(item) is str) == sorted(f"theirs {place}" for place in seen)
    assert seen or name != "LINE"


@pytest.mark.in_turn
@GETS
@PUTS
def test_threads_that_are_traced_share_a_queue_with_other_processes() -> None:
    """A tracer lets other threads run between any two lines, as nothing else does."""
    context: Any = tqshim.get_context("fork")
    count, threads = 400, 3
    q: Any = context.Queue(150)
    found: Any = context.SimpleQueue()

    def trace(frame: FrameType, event: str, argument: Any) -> Optional[Callable[..., Any]]:
        if not frame.f_code.co_filename.startswith(os.path.dirname(queues.__file__)):
            return None
        with contextlib.suppress(AttributeError):
            os.sched_yield()
        return trace

    def run() -> None:
        got: list[list[int]] = [[] for _ in range(threads)]

        def put(number: int) -> None:
            for item in range(count):
                q.put((os.getpid(), number, item), True, LONG)

        def get(number: int) -> None:
            for _ in range(count):
                got[number].append(q.get(True, LONG))

        sys.setswitchinterval(1e-6)
        threading.settrace(trace)
        them = [threading.Thread(target=what, args=(number,)) for number in range(threads) for what in (put, get)]
        for thread in them:
            thread.start()
        for thread in them:
            thread.join()
        found.put([item for items in got for item in items])

    children = [context.Process(target=run) for _ in range(2)]
    for child in children:
        child.start()
    items = sorted(found.get() + found.get())
    for child in children:
        child.join()
    assert items == sorted(
        (child.pid, number, item) for child in children for number in range(threads) for item in range(count)
    )
    assert q.empty()


@GETS
@BOUNDED
@pytest.mark.parametrize("maxsize", [10, 70])
def test_a_lease_hides_no_place(maxsize: int) -> None:
    """It goes on while producers put to the places of what it has delivered, also to the last one."""
    q: Any = TurboQueue(maxsize)
    q.put_many(range(maxsize))
    assert q.full()
    with pytest.raises(queues.Full):
        q.put_nowait("none")
    assert q.get() == 0
    parts = q._engine.parts
    lease = parts.replica.ledger.leases.standing
    assert lease is not None
    assert lease.end == maxsize
    for turn in range(1, maxsize):
        assert not q.full()
        q.put_nowait(maxsize - 1 + turn)
        assert q.full()
        with pytest.raises(queues.Full):
            q.put_nowait("none")
        assert q.get() == turn
    assert parts.replica.ledger.leases.made == 1
    assert q.get_many() == list(range(maxsize, 2 * maxsize - 1))
    q._engine.close()


def two_consumers(maxsize: int = 0) -> tuple[Any, Any]:
    """A queue, and a handle of it as another process has it; both have got something, so neither leases few items."""
    queue: Any = TurboQueue(maxsize)
    other = newcomer(queue._engine.folder.path)
    for one in (queue, other):
        queue.put("first")
        assert one.get(timeout=LONG) == "first"
    return queue, other


CLAIMS = pytest.mark.skipif(
    not (tuning.SHORT_CLAIMS and systems.MAPS_AHEAD and membarrier.barrier_works()),
    reason="there is no short way of a claim",
)


@CLAIMS
@pytest.mark.parametrize("maxsize", [0, 1000])
def test_claims_of_items_that_are_known_to_wait_go_the_short_way(maxsize: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "LEASE_PACE", -1.0)
    queue, other = two_consumers(maxsize)
    long_ones: list[int] = []
    claim = Consumer._claim
    monkeypatch.setattr(Consumer, "_claim", lambda *given: (long_ones.append(1), claim(*given))[1])
    queue.put_many([*range(90)])
    got = [one.get(timeout=LONG) for _ in range(30) for one in (queue, other)]
    assert got == [*range(60)]
    assert len(long_ones) <= 2, "the first of each"
    monkeypatch.setattr(tuning, "SHORT_CLAIMS", False)
    assert [queue.get(timeout=LONG) for _ in range(30)] == [*range(60, 90)]
    assert len(long_ones) >= 30
    other._use.engine.close()
    queue._engine.close()


@CLAIMS
@pytest.mark.parametrize("maxsize", [0, 10])
@pytest.mark.parametrize("producers", [1, 2])
def test_claims_of_items_that_nobody_has_cut_go_the_short_way(
    producers: int, maxsize: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, other = two_consumers(maxsize)
    handles = [queue, other][:producers]
    for handle in handles:
        handle.put("second")
        assert queue.get(timeout=LONG) == "second"
    looks: list[int] = []
    take = Consumer.take
    monkeypatch.setattr(Consumer, "take", lambda *given: (looks.append(1), take(*given))[1])
    for number in range(20):
        for handle in handles * 2:
            handle.put(number)
        got = [one.get(timeout=LONG) for one in [queue, other] * producers]
        assert got == [number] * 2 * producers
        for handle in (queue, other):
            parts = handle._use.engine.parts
            words, totals = parts.members.cells.words, parts.replica.ledger.totals
            assert not words[Cells.place(words_of.POSITION, parts.consumer.slot)], "no batch file is kept"
            for slot in parts.replica.ledger.files.filling:
                assert words[Cells.place(words_of.CUT_UP_TO, slot)] >= totals[slot], "whose log it is need not cut"
    assert len(looks) <= 2, "the first of each"
    other._use.engine.close()
    queue._engine.close()


@CLAIMS
@pytest.mark.parametrize("who", ["a producer", "another consumer", "its holder"])
def test_a_lease_that_is_wholly_delivered_is_ended_in_passing(who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By one event, for which nobody is interrupted, and which no event of the holder follows."""
    monkeypatch.setattr(tuning, "LEASE_PACE", 1.0)
    queue, other = two_consumers(10 if who == "a producer" else 0)
    other.put("of another producer")
    assert queue.get(timeout=LONG) == "of another producer"
    for _ in range(3):  # the first ones tell how fast its caller is
        for number in range(10):
            queue.put(number)
        assert [queue.get(timeout=LONG) for _ in range(10)] == list(range(10))
    replica = queue._engine.parts.replica
    theirs = other._use.engine
    theirs.act(theirs.parts.replica.sync)
    assert theirs.parts.replica.ledger.leases.standing == queue._engine.parts.leasing.lease is not None
    raised: list[int] = []
    monkeypatch.setattr(Membership, "raise_flag", lambda self, kind, slot: raised.append(kind))
    (other if who == "a producer" else queue).put(10)
    if who != "a producer":
        assert (other if who == "another consumer" else queue).get(timeout=LONG) == 10
    queue._engine.act(replica.sync)
    assert replica.ledger.leases.standing is None
    assert words_of.LEASE_FLAG not in raised or not systems.STORES_IN_ORDER
    queue.put(11)
    assert [queue.get(timeout=LONG) for _ in range(queue.qsize())] == [10, 11][who != "a producer" :]
    other._use.engine.close()
    queue._engine.close()


@CLAIMS
@pytest.mark.skipif(not tuning.RESERVATIONS, reason="each put is an event")
def test_ten_places_that_are_filled_and_emptied_take_few_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CUT, a LEASE, its end, and a RESERVE."""
    monkeypatch.setattr(tuning, "LEASE_PACE", 1.0)
    queue, other = two_consumers(10)
    other.put("of another producer")
    assert queue.get(timeout=LONG) == "of another producer"
    counts = []
    for _ in range(20):
        before = events_of(queue)
        for number in range(10):
            queue.put(number)
        assert [queue.get(timeout=LONG) for _ in range(10)] == list(range(10))
        counts.append(events_of(queue) - before)
    assert sorted(counts)[10] <= 4, counts
    other._use.engine.close()
    queue._engine.close()


def leased_but_for(left: int, queue: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The lease of that consumer, which is fast, and has delivered 0 and so on, all but so many items of the lease."""
    monkeypatch.setattr(tuning, "LEASE_PACE", 1e9)
    for number in range(8):  # the first ones tell how fast its caller is
        queue.put(number)
        queue.get(timeout=LONG)
    for number in range(8):
        queue.put(number)
    parts, number = queue._engine.parts, 0
    while parts.leasing.lease is None or parts.members.position() < parts.leasing.lease.end - left:
        assert queue.get(timeout=LONG) == number
        number += 1
    return parts.leasing.lease


@GETS
@CLAIMS
def test_a_step_that_came_too_late_is_known_before_the_next_lease_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if nothing comes of that lease, and the step asks only then."""
    queue, other = two_consumers()
    lease = leased_but_for(1, queue, monkeypatch)
    theirs, got_by_others, got_meanwhile = other._use.engine, [], []
    theirs.act(theirs.parts.replica.sync)
    theirs.parts.members.raise_flag(words_of.LEASE_FLAG, lease.slot)
    count = theirs.parts.members.word(words_of.LEASE_POSITION, lease.slot) - lease.first
    begin, confirm = Leasing.begin, Engine.confirm

    def begin_late(self: Leasing, *given: Any) -> bool:
        """The other consumer is faster."""
        monkeypatch.setattr(Leasing, "begin", begin)
        with contextlib.suppress(Empty):
            while True:
                got_by_others.append(other.get(False))
        return begin(self, *given)

    def confirm_late(self: Engine, *given: Any) -> bool:
        """It ends the lease where it has seen it; another thread of this process gets in between."""
        monkeypatch.setattr(Engine, "confirm", confirm)
        theirs.act(theirs.parts.replica.append, events.revoke(count, lease.number))
        got_by_others.append(other.get(timeout=LONG))
        for number in range(100, 110):
            queue.put(number)
        monkeypatch.setattr(Leasing, "begin", begin_late)
        with contextlib.suppress(Empty):
            got_meanwhile.append(queue.get(False))
        return confirm(self, *given)

    monkeypatch.setattr(Engine, "confirm", confirm_late)
    with contextlib.suppress(Empty):
        got_meanwhile.append(queue.get(False))
    with contextlib.suppress(Empty):
        while True:
            got_meanwhile.append(queue.get(False))
    assert sorted(got_by_others + got_meanwhile) == [7, *range(100, 110)]
    assert got_by_others[0] == 7
    other._use.engine.close()
    queue._engine.close()


@GETS
@CLAIMS
def test_what_is_lost_in_two_leases_is_lost_to_both_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread takes an item of a lease, another the same item of the next lease; another process has ended both."""
    queue, other = two_consumers()
    theirs, confirm, got, got_there, got_by_others = other._use.engine, Engine.confirm, [], [], []
    asks, may_ask = threading.Event(), threading.Event()

    def look() -> tuple[Any, int]:
        """What the other consumer does before it ends our lease, at what it has seen by then."""
        theirs.act(theirs.parts.replica.sync)
        lease = theirs.parts.replica.ledger.leases.standing
        theirs.parts.members.raise_flag(words_of.LEASE_FLAG, lease.slot)
        return lease, theirs.parts.members.word(words_of.LEASE_POSITION, lease.slot) - lease.first

    def end(lease: Any, count: int) -> None:
        theirs.act(theirs.parts.replica.append, events.revoke(count, lease.number))

    def confirm_first(self: Engine, *given: Any) -> bool:
        """This thread's item is the last but one.  Another thread takes the last, and is slow to ask whose it is."""
        if threading.current_thread() is thread:
            asks.set()
            may_ask.wait(LONG)
        elif not thread.is_alive():
            thread.start()
            asks.wait(LONG)
            end(*seen)
        return confirm(self, *given)

    def confirm_second(self: Engine, *given: Any) -> bool:
        """This thread has taken the item that the other thread asks about; the other consumer gets it."""
        if threading.current_thread() is not thread:
            monkeypatch.setattr(Engine, "confirm", confirm)
            end(*seen)
            got_by_others.append(other.get(timeout=LONG))
        return confirm(self, *given)

    thread = threading.Thread(target=lambda: got_there.append(queue.get(timeout=LONG)))
    leased_but_for(2, queue, monkeypatch)
    seen = look()
    for number in range(100, 106):
        queue.put(number)
    monkeypatch.setattr(Engine, "confirm", confirm_first)
    got.append(queue.get(timeout=LONG))
    seen = look()
    monkeypatch.setattr(Engine, "confirm", confirm_second)
    got.append(queue.get(timeout=LONG))
    may_ask.set()
    thread.join(LONG)
    with contextlib.suppress(Empty):
        while True:
            got.append(queue.get(False))
    assert got_by_others == [7]
    assert sorted([*got, *got_there]) == [6, *range(100, 106)]
    assert not queue._engine.parts.leasing._lost
    other._use.engine.close()
    queue._engine.close()


@GETS
@CLAIMS
def test_what_a_handlers_get_has_left_comes_before_what_a_lease_delivers(monkeypatch: pytest.MonkeyPatch) -> None:
    """That get, in the middle of one that leases, was interrupted itself when it had its item."""
    queue, other = two_consumers()
    monkeypatch.setattr(tuning, "LEASE_PACE", 1e9)
    for number in range(8):
        queue.put(number)
        queue.get(timeout=LONG)
    for number in range(1000, 1020):
        queue.put(number)
    begin, load, interrupted = Leasing.begin, queues.load, []

    def interrupted_load(record: Any) -> Any:
        monkeypatch.setattr(queues, "load", load)
        signal.raise_signal(signal.SIGUSR1)
        return load(record)

    def begin_beside(self: Leasing, *given: Any) -> bool:
        monkeypatch.setattr(Leasing, "begin", begin)
        monkeypatch.setattr(queues, "load", interrupted_load)
        with pytest.raises(Interrupted):
            queue.get(False)
        interrupted.append(1)
        return begin(self, *given)

    def handler(*_: Any) -> None:
        raise Interrupted

    former = signal.signal(signal.SIGUSR1, handler)
    try:
        monkeypatch.setattr(Leasing, "begin", begin_beside)
        got = [queue.get(timeout=LONG) for _ in range(20)]
    finally:
        signal.signal(signal.SIGUSR1, former)
    assert interrupted
    assert got == [1001, 1000, *range(1002, 1020)], "1001 was under way already"
    other._use.engine.close()
    queue._engine.close()


@CLAIMS
def test_of_items_that_nobody_has_cut_the_older_one_comes_first() -> None:
    queue, other = two_consumers()
    queue.put("of both")
    assert other.get(timeout=LONG) == "of both"
    for number in range(20):
        for handle in ((queue, other), (other, queue))[number % 2]:
            handle.put((number, handle is queue))
            time.sleep(0.003)
        first = number % 2 == 0
        assert [queue.get(timeout=LONG), queue.get(timeout=LONG)] == [(number, first), (number, not first)]
    other._use.engine.close()
    queue._engine.close()


@CLAIMS
def test_after_an_interruption_no_short_claim_reads_the_file_of_another_producer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the two put in turn it changes with each item."""
    monkeypatch.setattr(tuning, "LIMITS", (1 << 14, 1 << 14))  # a claim that rolls goes the long way
    queue, other = two_consumers()
    other.put("first")
    assert queue.get(timeout=LONG) == "first"

    def raises(_: int, frame: Optional[FrameType]) -> None:
        if frame is not None and frame.f_code is Consumer.take_one.__code__:
            raise Interrupted

    former = signal.signal(signal.SIGUSR1, raises)
    try:
        for instruction in itertools.count(1):
            put: list[Any] = []
            got: list[Any] = []
            for handle in (queue, other, other, queue):
                put.append((instruction, len(put)))
                handle.put(put[-1])
                if len(put) == 2:
                    with contextlib.suppress(Interrupted):
                        came = True
                        came = signalled_before(
                            instruction,
                            Consumer.take_one,
                            signal.SIGUSR1,
                            lambda: got.append(queue.get(timeout=LONG)),  # noqa: B023
                        )
                while len(got) < len(put):
                    got.append(queue.get(timeout=LONG))
            assert got == put
            if not came:
                break
    finally:
        signal.signal(signal.SIGUSR1, former)
    assert instruction > 150
    other._use.engine.close()
    queue._engine.close()


@CLAIMS
@pytest.mark.parametrize("together", [1, 30])
def test_short_claims_follow_the_journals(together: int, many_rolls: None) -> None:
    queue, other = two_consumers()
    got: list[int] = []
    for begin in range(0, 3000, together):
        queue.put_many([*range(begin, begin + together)])
        got += [(queue, other)[number % 2].get(timeout=LONG) for number in range(begin, begin + together)]
    assert got == [*range(3000)]
    other._use.engine.close()
    queue._engine.close()


@pytest.mark.in_turn
@CLAIMS
@pytest.mark.parametrize("maxsize", [0, 10])
@pytest.mark.parametrize("cut", [True, False])
def test_a_short_claim_that_is_interrupted_at_any_line_loses_and_doubles_nothing(cut: bool, maxsize: int) -> None:
    queue, other = two_consumers(maxsize)
    for line in itertools.count(1):
        together = 5 if cut else 1
        queue.put_many([*range(together)])
        got = [queue.get(timeout=LONG)]
        for number in range(together, 5):
            queue.put(number)  # whose cut is the get's
        found, came = interrupt_at(line, queue.get)
        if found is not Interrupted:
            got.append(found)
        got += [queue.get(timeout=LONG) for _ in range(2)]
        got += [other.get(timeout=LONG) for _ in range(5 - len(got))]
        assert got == [*range(5)], f"interrupted at line {line}"
        assert queue.empty()
        if not came:
            break
    assert line > 20
    other._use.engine.close()
    queue._engine.close()


@CLAIMS
@pytest.mark.parametrize("cut", [True, False])
def test_an_item_that_another_has_claimed_just_before_is_not_got_twice(
    cut: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, other = two_consumers()
    queue.put_many(["a", "b"][: 1 + cut])
    assert queue.get(timeout=LONG) == "a"
    if not cut:
        queue.put("b")
    claim = Replica.claim
    between: list[Any] = []

    def claim_late(replica: Replica, event: bytes, cuts: bytes) -> int:
        assert bool(cuts) is not cut
        monkeypatch.undo()
        between.append(other.get(timeout=LONG))
        return claim(replica, event, cuts)

    monkeypatch.setattr(Replica, "claim", claim_late)
    with pytest.raises(Empty):
        queue.get(timeout=0.01)
    assert between == ["b"]
    other._use.engine.close()
    queue._engine.close()


@CLAIMS
def test_a_damaged_record_is_told_and_those_behind_it_arrive() -> None:
    queue, other = two_consumers()
    queue.put_many(["a" * 100, "b" * 100, "c" * 100])
    assert queue.get(timeout=LONG) == "a" * 100
    log = queue._engine.parts.producer.log
    log.batch.ends[log.counts[log.cell] - 1] = 1 << 40
    for _ in range(2):
        with pytest.raises(CorruptBatchError):
            queue.get(timeout=LONG)
    queue.put("d")
    assert queue.get(timeout=LONG) == "d"
    other._use.engine.close()
    queue._engine.close()
