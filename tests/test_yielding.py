"""Giving way: a process that is woken lets the process that has rung get on first, where this pays.

Lives here: when a process gives way, and that it still gets what it was woken for.  Not here: what giving way gains
(``bench --only plain-10``, ``bench --only tasks``).
"""

from __future__ import annotations

import multiprocessing
import time
from typing import Any

import pytest
from watching import newcomer

from tqshim import TurboQueue
from tqshim.engine import tuning, yielding
from tqshim.engine.yielding import NO_TIME, WORTH, Yielding
from tqshim.runtime import systems
from tqshim.sync.cells import AWAITS_PLACE, SLEEPS

LONG = 60.0


def given(wakes: int, seconds: float, gained: int) -> int:
    """How often one gives way in so many wakes, where each time that takes so long, and brings so much."""
    decides, times = Yielding(), 0
    for _ in range(wakes):
        if decides.is_wanted():
            times += 1
            decides.note(seconds, gained)
    return times


@pytest.mark.parametrize("seconds", [1e-6, NO_TIME])
def test_what_takes_no_time_is_always_done(seconds: float) -> None:
    assert given(10_000, seconds, 0) == 10_000


@pytest.mark.parametrize("gained", [1, 10, 1000])
def test_what_pays_is_always_done(gained: int) -> None:
    assert given(10_000, gained * WORTH * 0.99, gained) == 10_000


@pytest.mark.parametrize(("seconds", "gained"), [(2 * NO_TIME, 0), (3e-3, 1), (3e-3, 14), (3e-3, -5)])
def test_what_does_not_pay_is_done_now_and_then(seconds: float, gained: int) -> None:
    times = given(100_000, seconds, gained)
    assert 10 < times < 200, "some thousand wakes lie between two tries"


def test_what_has_paid_long_is_not_given_up_for_one_time() -> None:
    decides = Yielding()
    for number in range(10_000):
        assert decides.is_wanted()
        decides.note(1e-3, 0 if number % 3 == 2 else 100)


def test_what_begins_to_pay_is_done_again() -> None:
    decides = Yielding()
    while decides.is_wanted():
        decides.note(1e-3, 0)
    waits = 0
    while not decides.is_wanted():
        waits += 1
    assert 100 < waits < 3000
    decides.note(1e-3, 100)
    assert all(decides.is_wanted() for _ in range(100))


# -- who gives way


def with_members(maxsize: int, producers: int, consumers: int) -> tuple[Any, list[Any]]:
    """A queue with so many producers and consumers, of which this process is one, or both."""
    queue: Any = TurboQueue(maxsize)
    others = [newcomer(queue._engine.folder.path) for _ in range(max(producers, consumers) - 1)]
    for one in [queue, *others][:producers]:
        one.put("first")
        assert queue.get(timeout=LONG) == "first"
    for one in others[: consumers - 1]:
        queue.put("first")
        assert one.get(timeout=LONG) == "first"
    queue._engine.act(queue._engine.parts.replica.sync)
    return queue, others


@pytest.mark.parametrize(
    ("maxsize", "producers", "consumers", "items", "places"),
    [
        (0, 1, 1, False, False),  # whoever rings may wait for our answer
        (0, 2, 1, True, True),
        (0, 1, 2, True, False),
        (1000, 2, 2, True, False),
        (10, 1, 1, False, False),
        (10, 2, 1, True, True),
        (10, 1, 2, True, False),
        (10, 2, 2, True, False),
    ],
)
def test_one_gives_way_to_who_may_do_more_for_us(
    maxsize: int, producers: int, consumers: int, items: bool, places: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, others = with_members(maxsize, producers, consumers)
    times: list[int] = []
    monkeypatch.setattr(systems, "give_way", lambda: times.append(1))
    waiter = queue._engine.parts.waiter
    waiter.give_way(SLEEPS, queue._engine.parts.consumer.known)
    assert bool(times) == (items and tuning.YIELDING)
    times.clear()
    waiter.give_way(AWAITS_PLACE)
    assert bool(times) == (places and tuning.YIELDING)
    for one in others:
        one._use.engine.close()
    queue.close()


def put_each(queue: Any, number: int, count: int) -> None:
    for item in range(count):
        queue.put((number, item))


@pytest.mark.parametrize("seconds", [0.0, 2e-3])
@pytest.mark.parametrize(("maxsize", "producers"), [(0, 3), (2, 3), (10, 3), (10, 1)])
def test_items_arrive_once_and_in_order_beside_who_gives_way(
    maxsize: int, producers: int, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if that takes long."""
    monkeypatch.setattr(yielding, "_LOSS", 0.0)
    monkeypatch.setattr(systems, "give_way", lambda: time.sleep(seconds))
    context = multiprocessing.get_context("fork")
    queue: Any = TurboQueue(maxsize)
    count = 200
    children = [context.Process(target=put_each, args=(queue, number, count)) for number in range(producers)]
    for child in children:
        child.start()
    got = [queue.get(timeout=LONG) for _ in range(producers * count)]
    for number in range(producers):
        assert [item for who, item in got if who == number] == list(range(count))
    for child in children:
        child.join()
    assert queue.empty()
    queue.close()
