"""A bounded queue's only producer puts wherever there is a place, without an event, until another producer joins.

Lives here: when it does so, what this costs, that the bound is exact for others that come and go; and all of this where
the only consumer leases all that comes.  Not here: the rules (``protocol/test_cut_rules``), kills
(``test_crash_table``), signal handlers (``test_interruptions``).
"""

from __future__ import annotations

import os
import signal
import threading
import time
from queue import Full
from typing import Any

import pytest
from watching import AWAITS_PLACE, events_of, newcomer, until_asleep

from tqshim import ShutDown, TurboQueue, monitor
from tqshim.engine import tuning
from tqshim.engine.membership import Membership
from tqshim.engine.producer import Producer
from tqshim.protocol import events
from tqshim.runtime import systems
from tqshim.sync import membarrier

pytestmark = pytest.mark.skipif(
    not (tuning.ALONE and membarrier.barrier_works()), reason="nobody puts without a word here"
)
LONG = 60.0


@pytest.fixture
def nobody_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody cuts because marks are used up."""
    monkeypatch.setattr(tuning, "MARK_EVERY", 1 << 62)


def filled(queue: Any) -> int:
    """Put until it is full; how many that were."""
    put = 0
    try:
        while True:
            queue.put_nowait(("mine", put))
            put += 1
    except Full:
        return put


def close(handle: Any) -> None:
    """What this process is in that queue by that handle it is no more."""
    handle._use.engine.close()


def test_its_puts_say_nothing(path: str, nobody_cuts: None) -> None:
    """But where they go on in another batch file."""
    with TurboQueue(50, path=path) as queue:
        queue.put(0)
        before = events_of(queue)
        for number in range(1, 50):
            queue.put(number)
        assert events_of(queue) == before
        assert filled(queue) == 0 and queue.full()
        assert [queue.get() for _ in range(50)] == list(range(50))


@pytest.mark.parametrize("maxsize", [3, 10, 300])
@pytest.mark.parametrize("there", [1, 2])
def test_who_joins_finds_the_places_that_are_left(path: str, maxsize: int, there: int) -> None:
    with TurboQueue(maxsize, path=path) as queue:
        for number in range(there):
            queue.put(("mine", number))
        other = newcomer(path)
        assert filled(other) == maxsize - there
        assert filled(queue) == 0, "none is left, and it was asked"
        assert queue.qsize() == maxsize
        assert queue.get_many() == [("mine", n) for n in range(there)] + [("mine", n) for n in range(maxsize - there)]
        close(other)


def test_each_of_three_that_join_in_turn_finds_the_places_that_are_left(path: str) -> None:
    with TurboQueue(10, path=path) as queue:
        queue.put("first")
        others = [newcomer(path) for _ in range(3)]
        for turn in range(4):
            for one in (queue, *others):
                one.put_nowait(turn)
                if queue.full():
                    break
            if queue.full():
                break
        assert [filled(one) for one in (*others, queue)] == [0] * 4
        assert queue.qsize() == len(queue.get_many()) == 10
        for one in others:
            close(one)


def test_it_is_alone_again_once_the_others_have_left(path: str, nobody_cuts: None) -> None:
    with TurboQueue(100, path=path) as queue:
        queue.put(0)
        other = newcomer(path)
        other.put(1)
        queue.put(2)
        close(other)
        queue.put(3)
        queue.put(4)
        before = events_of(queue)
        for number in range(5, 100):
            queue.put(number)
        assert events_of(queue) == before
        assert filled(queue) == 0
        assert [queue.get() for _ in range(100)] == list(range(100))


def test_it_goes_on_beside_what_another_had_left_undone(path: str) -> None:
    """A producer that joins, and is killed before it has said a word."""
    with TurboQueue(10, path=path) as queue:
        for number in range(4):
            queue.put(number)
        child = os.fork()
        if child == 0:
            queue._engine.act(lambda: queue._engine.parts.replica.append(events.join(False)))
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        other = newcomer(path)
        assert filled(other) == 6 and filled(queue) == 0
        assert queue.get_many() == [0, 1, 2, 3, *(("mine", number) for number in range(6))]
        close(other)


def test_what_it_has_put_is_there_when_it_is_killed(path: str) -> None:
    with TurboQueue(50, path=path) as queue:
        child = os.fork()
        if child == 0:
            for number in range(50):
                queue.put_nowait(number)
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        assert queue.qsize() == 50 and queue.full()
        assert [queue.get(timeout=LONG) for _ in range(50)] == list(range(50))
        assert filled(queue) == 50


def test_it_sleeps_until_there_is_a_place_and_does_not_look_for_one(path: str) -> None:
    """What is put and not cut takes places, too."""
    with TurboQueue(5, path=path) as queue:
        assert filled(queue) == 5
        waits = threading.Thread(target=queue.put, args=("late",))
        waits.start()
        until_asleep(queue, AWAITS_PLACE)
        began = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - began < 0.2
        assert queue.get() == ("mine", 0)
        waits.join(LONG)
        assert not waits.is_alive() and queue.full()


@pytest.mark.skipif(not tuning.SHORT_WAYS, reason="there is no short way to put")
@pytest.mark.parametrize("maxsize", [3, 10, 30])
@pytest.mark.parametrize("readers", [1, 2])
def test_a_place_that_others_have_made_free_is_taken_by_the_short_way(
    path: str, readers: int, maxsize: int, nobody_cuts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TurboQueue(maxsize, path=path) as queue:
        them = [newcomer(path) for _ in range(readers)]
        assert filled(queue) == maxsize
        expected = [("mine", number) for number in range(maxsize)] + [*range(40)]
        monkeypatch.setattr(Producer, "_put", None)  # calling it would fail
        for number in range(40):
            assert them[number % readers].get(timeout=LONG) == expected.pop(0)
            queue.put_nowait(number)
        monkeypatch.undo()
        assert filled(queue) == 0 and queue.full()
        assert [them[0].get(timeout=LONG) for _ in range(maxsize)] == expected
        for one in them:
            close(one)


def test_what_others_see_of_it_is_exact(path: str, nobody_cuts: None) -> None:
    with TurboQueue(20, path=path) as queue, TurboQueue(path=path) as handle:
        other = newcomer(path)
        for number in range(20):
            queue.put(number)
            assert (other.qsize(), other.full(), other.empty()) == (number + 1, number == 19, False)
            found = monitor.status(path)
            assert (found.items, found.places, found.reserved) == (number + 1, 19 - number, 0)
        close(other)
        assert handle.full()


leased = pytest.mark.skipif(
    not (tuning.SOLE and tuning.LEASES and systems.STORES_IN_ORDER), reason="nobody takes one here"
)


@leased
def test_what_goes_one_by_one_to_the_only_consumer_says_nothing(path: str, nobody_cuts: None) -> None:
    with TurboQueue(3, path=path) as queue:
        reader = newcomer(path)
        for number in range(3):
            queue.put(number)
            assert reader.get(timeout=LONG) == number
        before = events_of(queue)
        for number in range(30):
            queue.put(number)
            assert reader.get(timeout=LONG) == number
        assert events_of(queue) == before
        assert filled(queue) == 3 and (queue.qsize(), reader.full(), monitor.status(path).places) == (3, True, 0)
        assert reader.get() == ("mine", 0)
        assert (queue.qsize(), reader.full(), monitor.status(path).places) == (2, False, 1)
        assert filled(queue) == 1
        close(reader)


@leased
@pytest.mark.parametrize("who", ["producer", "consumer", "batch"])
@pytest.mark.parametrize("waiting", [0, 2, 5])
def test_who_comes_ends_that_and_finds_the_places_that_are_left(path: str, who: str, waiting: int) -> None:
    with TurboQueue(5, path=path) as queue:
        reader = newcomer(path)
        for number in range(4):
            queue.put(number)
            assert reader.get(timeout=LONG) == number
        assert reader._engine.parts.sole.lease is not None
        for number in range(waiting):
            queue.put(("mine", number))
        other = newcomer(path)
        expected = [("mine", number) for number in range(waiting)]
        if who == "producer":
            assert filled(other) == 5 - waiting
            expected += [("mine", number) for number in range(5 - waiting)]
        elif who == "consumer" and waiting:
            assert other.get(timeout=LONG) == expected.pop(0)
        elif who == "batch":
            queue.put_many_nowait(range(5 - waiting))
            expected += range(5 - waiting)
        missing = 5 - len(expected)
        assert filled(queue) == missing
        expected += [("mine", number) for number in range(missing)]
        assert queue.full() and queue.qsize() == 5
        assert [reader.get(timeout=LONG) for _ in range(5)] == expected
        close(other)
        close(reader)


@leased
def test_a_killed_consumer_takes_its_item_and_no_place(path: str) -> None:
    with TurboQueue(4, path=path) as queue:
        for number in range(4):
            queue.put(number)
        child = os.fork()
        if child == 0:
            for number in range(3):
                assert queue.get(timeout=LONG) == number
            queue.get_nowait()
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        assert queue.qsize() == 0
        assert filled(queue) == 4 and queue.full()
        assert queue.get_many() == [("mine", number) for number in range(4)]


@leased
def test_who_sleeps_for_a_place_is_woken_by_each_get(path: str) -> None:
    with TurboQueue(3, path=path) as queue:
        reader = newcomer(path)
        for number in range(3):
            queue.put(number)
            assert reader.get(timeout=LONG) == number
        assert filled(queue) == 3
        for turn in range(5):
            waits = threading.Thread(target=queue.put, args=(("mine", 3 + turn),))
            waits.start()
            until_asleep(queue, AWAITS_PLACE)
            began = time.monotonic()
            assert reader.get(timeout=LONG) == ("mine", turn)
            waits.join(LONG)
            assert time.monotonic() - began < 5, "nobody has rung"
        assert reader._engine.parts.sole.lease is not None
        close(reader)


def test_once_others_have_joined_its_puts_are_as_short_as_theirs(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its flag, which they had raised for that, is down again."""
    with TurboQueue(2, path=path) as queue:
        queue.put(0)
        other = newcomer(path)
        other.put(1)
        assert [queue.get(), queue.get()] == [0, 1]
        long = []
        put = Producer._put
        monkeypatch.setattr(Producer, "_put", lambda self, records: (long.append(records), put(self, records))[1])
        for number in range(10):
            queue.put(number)
            other.put(number)
            assert [queue.get(), queue.get()] == [number, number]
        assert not long
        close(other)


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_shutdown_just_as_it_lowers_its_flag_refuses_its_put(
    path: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TurboQueue(2, path=path) as queue:
        queue.put(0)
        other = newcomer(path)
        other.put(1)
        assert [other.get(), other.get()] == [0, 1]
        queue.put(2)  # as it did alone; from now on as others do
        assert other.get() == 2
        log = queue._engine.parts.producer.log
        assert log.counts[log.flag], "the one that joined has raised it"
        look = Membership.look

        def looks_late(members: Membership) -> bytes:
            if members is queue._engine.parts.members:
                monkeypatch.setattr(Membership, "look", look)
                assert not log.counts[log.flag]
                other.shutdown()
            return look(members)

        if when == "before":
            other.shutdown()
        else:
            monkeypatch.setattr(Membership, "look", looks_late)
        with pytest.raises(ShutDown):
            queue.put(3)
        assert queue.empty()
        with pytest.raises(ShutDown):
            other.get()
        close(other)
