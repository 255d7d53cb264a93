"""A lease of all that comes: the only consumer gets items that nobody cuts, until another process ends the lease.

Lives here: when the lease is taken, what others see meanwhile, who ends it, and the order of items.  Not here: its
rules (``protocol/test_cut_rules``), kills (``test_crash_table``), signal handlers (``test_interruptions``).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable
from queue import Empty
from typing import Any

import pytest
from interrupting import Interrupted, interrupt_at
from sampling import sampled
from watching import SLEEPS, events_of, newcomer, no_naps, sleepers, until, until_asleep

import tqshim.engine.tuning
from tqshim import JoinableTurboQueue, ShutDown, TurboQueue, monitor
from tqshim.engine.consumer import Consumer
from tqshim.engine.leasing import Leasing
from tqshim.engine.replica import Replica
from tqshim.engine.sole import SoleLease
from tqshim.engine.wait_policy import Waiter
from tqshim.protocol import events, index, names
from tqshim.protocol.records import Lease
from tqshim.runtime import systems
from tqshim.sync import cells as words_of
from tqshim.sync import membarrier
from tqshim.sync.bell import Bell

pytestmark = pytest.mark.skipif(
    not (tqshim.engine.tuning.SOLE and systems.STORES_IN_ORDER and membarrier.barrier_works()),
    reason="nobody takes one here",
)
LONG = 60.0


def under_a_lease(queue: Any, producers: int) -> tuple[list[Any], int]:
    """So many that have put an item each, which is got; and events so far."""
    others = [newcomer(queue.path) for _ in range(producers)]
    for one in others:
        one.put("first")
        assert queue.get(timeout=LONG) == "first"
    assert holds(queue)
    return others, events_of(queue)


@pytest.mark.parametrize("producers", [1, 2, 5])
def test_it_is_taken_where_items_come_one_by_one(path: str, producers: int) -> None:
    """From however many producers; and it goes on when they take turns, costs no event then, and ends no more."""
    with TurboQueue(path=path) as queue:
        others, before = under_a_lease(queue, producers)
        for number in range(50):
            for one in others:
                one.put(number)
                assert queue.get(timeout=LONG) == number
        assert events_of(queue) == before
        assert holds(queue) and queue.empty()
        for one in others:
            one._use.engine.close()
        queue.put("last")
        assert queue.get(timeout=LONG) == "last"
        assert holds(queue), "they have left"


def test_what_several_have_put_meanwhile_comes_in_the_order_of_time(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each put marks when it was; and what came before somebody looked stands before what came later."""
    monkeypatch.setattr(tqshim.engine.tuning, "MARK_EVERY", 0)
    with TurboQueue(path=path) as queue:
        others, before = under_a_lease(queue, 3)
        for turn in range(5):
            expected = []
            for number in range(7):
                others[(number * number + turn) % 3].put((turn, number))
                expected.append((turn, number))
            assert queue.get(timeout=LONG) == expected[0]
            others[turn % 3].put((turn, "later"))
            assert [queue.get(timeout=LONG) for _ in expected] == [*expected[1:], (turn, "later")]
        assert events_of(queue) == before, "none of them was cut"
        for one in others:
            one._use.engine.close()


def sole_of(queue: Any) -> SoleLease:
    sole: SoleLease = queue._engine.parts.sole
    return sole


def holds(queue: Any) -> bool:
    return sole_of(queue).lease is not None


def stands(queue: Any) -> bool:
    """By the journal."""
    queue._engine.act(queue._engine.parts.replica.sync)
    return bool(queue._engine.parts.replica.ledger.leases.sole)


def test_items_that_come_one_by_one_cost_no_event(path: str) -> None:
    """But for the lease itself; and where 32 wait, they are cut and leased as ever."""
    with TurboQueue(path=path) as queue:
        queue.put(0)
        assert queue.get(timeout=LONG) == 0
        assert holds(queue)
        before = events_of(queue)
        for number in range(100):
            queue.put(number)
            assert queue.get(timeout=LONG) == number
        with pytest.raises(Empty):
            queue.get_nowait()
        assert events_of(queue) == before
        for number in range(40):
            queue.put(number)
        assert [queue.get(timeout=LONG) for _ in range(40)] == list(range(40))
        assert events_of(queue) > before


def test_who_joins_to_sleep_ends_it(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its holder wakes up and does not say that another sleeps; one who does so in an event loop looks before."""
    no_naps(monkeypatch)
    with TurboQueue(path=path) as queue:
        reader, other = newcomer(path), newcomer(path)
        thread = threading.Thread(target=lambda: [reader.get() for _ in range(3)], daemon=True)
        thread.start()
        for number in range(2):
            until_asleep(queue)
            queue.put(number)
            until(queue.empty)
        until_asleep(queue)
        assert holds(reader)
        other._engine.watch(SLEEPS, other, 1, 0, False)
        assert other._engine.parts.replica.ledger.leases.standing is None
        queue.put("last")
        thread.join(LONG)
        assert not thread.is_alive() and not holds(reader)
        assert queue._engine.parts.members.cells.words[words_of.ASLEEP[SLEEPS]], "the other sleeps on"
        other._engine.unwatch(SLEEPS, other, False)


def test_others_see_what_is_delivered(path: str) -> None:
    with TurboQueue(path=path) as queue:
        other = newcomer(path)
        for number in range(3):
            queue.put(number)
        assert [queue.get(timeout=LONG) for _ in range(2)] == [0, 1]
        assert holds(queue)
        for one in (queue, other):
            assert (one.qsize(), one.empty()) == (1, False)
            stats = one.stats()
            assert (stats.put, stats.got, stats.items, stats.unfinished) == (3, 2, 1, 3)
            assert stats.bytes == monitor.status(path).item_bytes
        found = monitor.status(path)
        assert (found.items, found.put, found.got, found.unfinished, found.uncut, found.leased) == (1, 3, 2, 3, 1, 0)
        assert [(one.number, one.uncut) for one in monitor.peek(path)] == [(2, True)]
        assert monitor.check(path) == []
        assert holds(queue), "to look ends no lease"
        assert queue.get(timeout=LONG) == 2
        assert (other.qsize(), other.empty(), monitor.status(path).items) == (0, True, 0)
        other._use.engine.close()


def get(other: Any) -> None:
    assert other.get(timeout=LONG) == "second"
    other.put("third")


def claim(other: Any) -> None:
    with other.claimed(timeout=LONG) as item:
        assert item == "second"
    other.put("third")


def close(other: Any) -> None:
    other.put("third")
    other._use.engine.close()


@pytest.mark.parametrize("act", [get, claim])
def test_who_wants_an_item_ends_it(path: str, act: Callable[[Any], None]) -> None:
    with TurboQueue(path=path) as queue:
        other = newcomer(path)
        queue.put("first")
        queue.put("second")
        assert queue.get(timeout=LONG) == "first"
        assert holds(queue)
        act(other)
        assert queue.get(timeout=LONG) == "third"
        assert not holds(queue)
        other._use.engine.close()


def test_who_puts_first_and_who_leaves_ends_it(path: str) -> None:
    with TurboQueue(path=path) as queue:
        queue.put("first")
        assert queue.get(timeout=LONG) == "first"
        assert holds(queue)
        other = newcomer(path)
        other.put("second")
        assert not stands(queue)
        assert queue.get(timeout=LONG) == "second"
        other.put("third")
        assert queue.get(timeout=LONG) == "third"
        assert stands(queue), "it has both logs"
        other._use.engine.close()
        assert not stands(queue)
        queue.put("fourth")
        assert queue.get(timeout=LONG) == "fourth"
        assert holds(queue), "it is taken again"


@pytest.mark.parametrize("cut", [False, True])
def test_what_another_has_got_just_before_is_not_got_twice(
    path: str, monkeypatch: pytest.MonkeyPatch, cut: bool
) -> None:
    """Its holder has seen an item, and when the lease stands, another consumer has come, got it, and left."""
    append, take = Replica.append_one, SoleLease.take

    def late(replica: Replica, data: bytes) -> Any:
        monkeypatch.setattr(Replica, "append_one", append)
        assert other.get_nowait() == 0
        other._use.engine.close()
        return append(replica, data)

    def taken(sole: SoleLease, got: list[Any]) -> bool:
        found = take(sole, got)
        monkeypatch.setattr(SoleLease, "take", take)
        for number in range(1, 6) if cut else (1,):
            first.put(number)
        for number in range(6, 11) if cut else ():
            second.put(number)
        if cut:
            third.put(11)
        return found

    with TurboQueue(path=path) as queue:
        first, second, third, other = [newcomer(path) for _ in range(4)]
        first.put("first")
        assert queue.get(timeout=LONG) == "first"
        queue._engine.act(queue._engine.parts.consumer.end_lease)
        first.put(0)
        monkeypatch.setattr(Replica, "append_one", late)
        monkeypatch.setattr(SoleLease, "take", taken)
        assert [queue.get(timeout=LONG) for _ in range(1 + 10 * cut)] == [*range(1, 2 + 10 * cut)]
        assert queue.empty()
        for one in (first, second, third):
            one._use.engine.close()


def test_shutdown_ends_it_and_loses_nothing(path: str) -> None:
    with TurboQueue(path=path) as queue:
        other = newcomer(path)
        queue.put("first")
        queue.put("second")
        assert queue.get(timeout=LONG) == "first"
        assert holds(queue)
        other.shutdown()
        assert queue.get(timeout=LONG) == "second"
        with pytest.raises(tqshim.ShutDown):
            queue.get(timeout=LONG)
        other._use.engine.close()


def test_what_was_put_more_than_a_millisecond_before_comes_out_first(path: str) -> None:
    """Whichever process put it."""
    with TurboQueue(path=path) as queue:
        first, second = newcomer(path), newcomer(path)
        for one in (first, second):
            one.put("warm")
        assert [queue.get(timeout=LONG) for _ in range(2)] == ["warm"] * 2
        for _ in range(3):
            for pair in ((first, second), (second, first)):
                time.sleep(0.005)
                pair[0].put("a")
                time.sleep(0.005)
                pair[1].put("b")
                assert [queue.get(timeout=LONG) for _ in range(2)] == ["a", "b"]
        for one in (first, second):
            one._use.engine.close()


def test_nobody_takes_one_where_items_are_counted_off_or_places_are(path: str) -> None:
    queue = JoinableTurboQueue()
    for number in range(3):
        queue.put(number)
        assert queue.get(timeout=LONG) == number
        queue.task_done()
        queue.join()
    assert not holds(queue)
    bounded = TurboQueue(5)
    bounded.put(1)
    assert bounded.get(timeout=LONG) == 1
    assert not holds(bounded)


def test_large_records_are_got_as_ever(path: str) -> None:
    with TurboQueue(path=path) as queue:
        for size in (1, 1 << 17, 1, 1 << 21, 1):
            queue.put(b"x" * size)
            assert len(queue.get(timeout=LONG)) == size
        assert queue.empty()


def test_its_file_s_end_is_met(path: str) -> None:
    with TurboQueue(path=path, batch_size=7) as queue:
        for number in range(100):
            queue.put(number)
            assert queue.get(timeout=LONG) == number
        assert queue.empty()


class Interrupting:
    """Cells whose next store is followed by an interruption, as by a signal handler that raises."""

    def __init__(self, words: Any) -> None:
        self.words = words

    def __getitem__(self, at: Any) -> Any:
        return self.words[at]

    def __setitem__(self, at: Any, word: Any) -> None:
        self.words[at] = word
        raise Interrupted


@pytest.mark.parametrize("most", [0, 1])
def test_what_was_taken_when_a_get_was_interrupted_comes_next(path: str, most: int) -> None:
    """Also where the interrupted call gives back nothing."""
    with TurboQueue(path=path) as queue:
        for number in range(4):
            queue.put(number)
        assert queue.get(timeout=LONG) == 0
        assert holds(queue)
        sole = sole_of(queue)
        words: Any = Interrupting(sole._words)
        sole._words = words
        with pytest.raises(Interrupted):
            if most:
                queue.get_many(max_messages_to_get=most)
            else:
                queue.get()
        assert [queue.get(timeout=1.0) for _ in range(3)] == [1, 2, 3]
        assert queue.empty()


@pytest.mark.in_turn
@pytest.mark.parametrize(
    ("most", "ended", "logs"), sampled("lines", list(itertools.product((0, 1), (False, True), (1, 2))), 2)
)
def test_a_get_that_is_interrupted_at_any_line_loses_and_doubles_nothing(most: int, ended: bool, logs: int) -> None:
    """Also where it is another log's turn, and where another wants the lease to end, or has ended it."""
    for line in itertools.count(1):
        with TurboQueue() as queue:
            other, second = [newcomer(queue._engine.folder.path) for _ in range(2)]
            if logs > 1:
                second.put("first")
                assert queue.get(timeout=LONG) == "first"
            for number in range(3):
                queue.put(number)
            got = [queue.get(timeout=LONG)]
            for number in range(3, 2 + logs):
                second.put(number)
            assert holds(queue)
            if ended:
                other.put(4)
            get = queue.get if not most else lambda: queue.get_many(max_messages_to_get=1)[0]
            for _ in range(logs):
                found, came = interrupt_at(line, get)
                if found is not Interrupted:
                    got.append(found)
            got += [queue.get(timeout=1.0) for _ in range(queue.qsize())]
            for one in (other, second):
                one._use.engine.close()
            assert sorted(got) == [0, 1, 2, *range(3, 2 + logs), *[4] * ended], f"interrupted at line {line}"
            assert [item for item in got if item < 3] == [0, 1, 2], f"interrupted at line {line}"
        if not came:
            break
    assert line > 20


@pytest.mark.in_turn
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_get_that_waits_and_is_interrupted_at_any_line_does_not_count_as_asleep(
    when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It falls asleep on the short way; an item comes just before it has said so, or when it sleeps."""
    no_naps(monkeypatch)
    monkeypatch.setattr(tqshim.engine.tuning, "SPINNING", False)
    where, what = (Waiter, "fall_asleep") if when == "before" else (Bell, "sleep")
    do = getattr(where, what)
    for line in itertools.count(1):
        with TurboQueue() as queue:
            other = newcomer(queue._engine.folder.path)
            for number in range(2):
                other.put(number)
                assert queue.get(timeout=LONG) == number
            assert holds(queue)
            queue._engine.bell(SLEEPS)

            def comes(*arguments: Any, other: Any = other) -> Any:
                monkeypatch.setattr(where, what, do)
                other.put(2)
                return do(*arguments)

            monkeypatch.setattr(where, what, comes)
            found, came = interrupt_at(line, queue.get)
            monkeypatch.setattr(where, what, do)
            assert not sleepers(queue), f"interrupted at line {line}"
            got = [] if found is Interrupted else [found]
            got += [queue.get(timeout=1.0) for _ in range(queue.qsize())]
            assert got in ([2], [] if came else [2]), f"interrupted at line {line}"
            other._use.engine.close()
        if not came:
            break
    assert line > 60


@pytest.mark.parametrize("timeout", [0, 1e-6, 2e-5, 1e-4])
@pytest.mark.parametrize("there", ["another's item", "a shutdown"])
def test_the_shortest_wait_finds_what_was_there_before_it(there: str, timeout: float) -> None:
    """The short way looks at one log alone."""
    with TurboQueue() as queue:
        others = [newcomer(queue._engine.folder.path) for _ in range(2)]
        for number in range(2):
            others[0].put(number)
            assert queue.get(timeout=LONG) == number
        assert holds(queue)
        if there == "a shutdown":
            others[1].shutdown()
            with pytest.raises(ShutDown):
                queue.get(timeout=timeout)
        else:
            others[1].put("there")
            assert queue.get(timeout=timeout) == "there"
        for other in others:
            other._use.engine.close()


@pytest.mark.parametrize("leases", [True, False])
def test_who_falls_asleep_sees_what_a_handler_has_read_meanwhile(leases: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shutdown just before it says that it sleeps rings for nobody, and its last look is interrupted."""
    no_naps(monkeypatch)
    monkeypatch.setattr(tqshim.engine.tuning, "SPINNING", False)
    say, look = Waiter.fall_asleep, Consumer.finds_nothing_new
    interrupted = []
    with TurboQueue() as queue:
        engine = queue._engine
        others = [newcomer(engine.folder.path) for _ in range(2)]
        monkeypatch.setattr(tqshim.engine.tuning, "SOLE", leases)
        for number in range(2):
            others[0].put(number)
            assert queue.get(timeout=LONG) == number
        assert holds(queue) == leases
        assert leases or queue.empty()

        def says_late(waiter: Waiter, *arguments: Any) -> None:
            if waiter is engine.parts.waiter:
                monkeypatch.setattr(Waiter, "fall_asleep", say)
                others[1].shutdown()
                monkeypatch.setattr(Consumer, "finds_nothing_new", interrupts)
            say(waiter, *arguments)

        def interrupts(consumer: Consumer) -> bool:
            if consumer is engine.parts.consumer and not engine.lock._is_owned():
                monkeypatch.setattr(Consumer, "finds_nothing_new", look)
                interrupted.append(queue.qsize())
                with contextlib.suppress(Empty, ShutDown):
                    queue.get_nowait()
            return look(consumer)

        monkeypatch.setattr(Waiter, "fall_asleep", says_late)
        with pytest.raises(ShutDown):
            queue.get()
        assert interrupted == [0]
        for other in others:
            other._use.engine.close()


@pytest.mark.parametrize(("others", "size"), [(1, 1 << 17), (70, 1)], ids=["large", "many"])
def test_logs_from_which_it_does_not_deliver_may_begin_just_before(
    path: str, others: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TurboQueue(path=path) as queue:
        late = [newcomer(path) for _ in range(others)]
        begin = SoleLease.begin

        def begin_late(sole: SoleLease, slot: int) -> bool:
            monkeypatch.setattr(SoleLease, "begin", begin)
            for one in late:
                one.put(b"x" * size)
            return begin(sole, slot)

        monkeypatch.setattr(SoleLease, "begin", begin_late)
        queue.put(b"x")
        assert [len(queue.get(timeout=LONG)) for _ in range(others + 1)] == [1, *[size] * others]
        with pytest.raises(Empty):
            queue.get(timeout=0.01)
        for one in late:
            one._use.engine.close()


def test_a_counter_that_is_none_of_its_logs_keeps_nobody_busy(path: str) -> None:
    """Of a slot without a batch file: what its last member has cut and not counted, or damage."""
    with TurboQueue(path=path) as queue:
        queue.put(1)
        assert queue.get(timeout=LONG) == 1
        assert holds(queue)
        sole_of(queue)._words[words_of.COUNTER + 40] = 7
        with pytest.raises(Empty):
            queue.get(timeout=0.01)
        queue.put(2)
        assert queue.get(timeout=LONG) == 2


def slot_of(queue: Any) -> int:
    """That of its producer."""
    return int(queue._engine.parts.producer.slot)


def put_beside(queue: Any, others: list[Any]) -> list[int]:
    """A record of each of these that is not cut; and their slots."""
    for one in others:
        one.put("beside")
    return [slot_of(one) for one in others]


def test_what_a_killed_holder_has_stored_too_late_is_not_delivered(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was killed before it set that back; the next lease is ended before its holder has stored anything."""
    with TurboQueue(path=path) as queue:
        others = [newcomer(path) for _ in range(2)]
        (slot,) = put_beside(queue, others[:1])
        sole_of(queue)._words[words_of.GIVEN + slot] = 1
        append = Replica.append_one

        def end_at_once(replica: Replica, data: bytes) -> Any:
            verdict = append(replica, data)
            if isinstance(verdict, Lease):
                monkeypatch.undo()
                put_beside(queue, others[1:])
            return verdict

        monkeypatch.setattr(Replica, "append_one", end_at_once)
        assert [queue.get(timeout=1.0) for _ in range(2)] == ["beside"] * 2
        for one in others:
            one._use.engine.close()


def test_the_file_from_which_it_delivers_stays_until_its_holder_knows_that_it_has_ended(path: str) -> None:
    """To look at a page that is gone kills the process where the disk is full."""
    with TurboQueue(path=path) as queue:
        producer, other = newcomer(path), newcomer(path)
        producer.put("first")
        assert queue.get(timeout=LONG) == "first"
        assert holds(queue)
        (filling,) = queue._engine.parts.replica.ledger.files.filling.values()
        name = names.batch(names.READY, filling.file)
        total = 2 * index.capacity(filling.file.serial)
        for number in range(total):
            producer.put(number)
        assert other.get_many(timeout=LONG) == [*range(total)]
        for parts in (other._engine.parts, queue._engine.parts):  # the holder's own process, too
            parts.replica.sync()
            parts.reclaimer.reclaim_done()
            assert name in os.listdir(path)
        with pytest.raises(Empty):
            queue.get(timeout=0.01)
        producer.put("last")
        assert other.get(timeout=LONG) == "last"
        other._engine.act(other._engine.parts.reclaimer.reclaim_done)
        assert name not in os.listdir(path)
        for one in (producer, other):
            one._use.engine.close()


def about_to_end(other: Any) -> bytes:
    """The events by which another is about to end a lease: it has raised the flag, and looked how far that has got."""
    members = other._engine.parts.members
    other._engine.act(other._engine.parts.replica.sync)
    lease = other._engine.parts.replica.ledger.leases.standing
    if other._engine.parts.replica.ledger.leases.sole:
        return bytes(members.end_of_all())
    members.raise_flag(words_of.LEASE_FLAG, lease.slot)
    return events.revoke(members.word(words_of.LEASE_POSITION, lease.slot) - lease.first, lease.number)


def test_a_place_that_is_free_is_found_while_somebody_is_about_to_end_it(path: str) -> None:
    with TurboQueue(3, path=path) as queue:
        for number in range(10):
            queue.put(number)
            assert queue.get(timeout=LONG) == number
        assert holds(queue)
        other = newcomer(path)
        for number in range(3):
            queue.put(number, False)
        assert queue.get(False) == 0
        about_to_end(other)
        queue.put(3, False)
        assert queue.full()
        assert [queue.get(False) for _ in range(3)] == [1, 2, 3]
        other._use.engine.close()


@pytest.mark.parametrize("kind", ["all", "some"])
def test_what_somebody_has_counted_as_delivered_nobody_else_gets(
    path: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder stores that it takes an item, and sees the flag; who is about to end it has looked before."""
    with TurboQueue(path=path) as queue:
        other, looker = newcomer(path), newcomer(path)
        if kind == "all":
            queue.put(0)
        else:
            queue.put_many(range(20))
        for number in range(1 if kind == "all" else 19):
            assert queue.get(timeout=LONG) == number
        assert holds(queue) == (kind == "all")
        queue.put("last")
        counted: list[int] = []
        got: list[Any] = []

        def contested() -> None:
            monkeypatch.undo()
            counted.append(looker.qsize())  # It ends it.
            other._engine.act(lambda: other._engine.parts.replica.append(data))
            with contextlib.suppress(Empty):
                while True:
                    got.append(other.get(False))

        wanted: Any = SoleLease if kind == "all" else Leasing
        contest = wanted._contest

        def contest_later(*arguments: Any) -> Any:
            contested()
            return contest(*arguments)

        monkeypatch.setattr(wanted, "_contest", contest_later)
        data = about_to_end(other)
        mine = []
        with contextlib.suppress(Empty):
            mine.append(queue.get(False))
        assert counted == [len(got)]
        assert mine + got == (["last"] if kind == "all" else [19, "last"])
        for one in (other, looker):
            one._use.engine.close()
