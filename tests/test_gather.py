"""A sole consumer to which items come fast lets some come together, for a millisecond at most, and loses nothing."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from tqshim import Empty, TurboQueue
from tqshim.engine import gets, tuning
from tqshim.engine.gather import Gathering


@pytest.fixture(autouse=True)
def switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "GATHERING", True)
    monkeypatch.setattr(tuning, "SPINNING", False)


def answers(interval: float, count: int, each: int = 1) -> Iterator[float]:
    """What it says at the end of each of so many sleeps, if so many items come each time."""
    gathering, taken = Gathering(), 0
    for turn in range(1, count + 1):
        taken += each
        seconds = gathering.seconds(turn * interval, taken)
        yield seconds
        if seconds:
            gathering.came(1)


def test_items_that_come_slowly_are_never_let_come() -> None:
    assert set(answers(2e-3, 10_000)) == {0.0}


def test_where_it_does_not_help_it_is_tried_more_and_more_rarely() -> None:
    tries = [turn for turn, seconds in enumerate(answers(1e-4, 10_000)) if seconds]
    apart = [later - earlier for earlier, later in zip(tries, tries[1:])]
    assert 5 < len(tries) < 12
    assert apart == sorted(apart) and apart[-1] > 30 * apart[0]


def test_where_it_helps_it_goes_on_and_takes_longer_but_never_too_long() -> None:
    gathering, taken, said = Gathering(), 0, []
    for turn in range(100):
        taken += 10
        seconds = gathering.seconds(turn * 1e-3, taken)
        if seconds:
            gathering.came(10)
            said.append(seconds)
    assert len(said) > 40
    assert said[0] < said[-1] == tuning.GATHER_MOST == max(said)


def ready(q: Any) -> Gathering:
    """It would let items come at the next get that finds nothing."""
    gathering: Gathering = q._engine.parts.waiter.gathering
    gathering._skip = gathering._misses = 0
    gathering._interval = 1e-4
    gathering._taken = q._engine.parts.hand.taken
    return gathering


def paused(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object] = lambda: None) -> list[float]:
    """For how long it does; something else happens meanwhile."""
    found: list[float] = []

    def pause(seconds: float) -> None:
        found.append(seconds)
        act()

    monkeypatch.setattr(gets, "pause", pause)
    return found


def test_what_has_come_meanwhile_is_got_in_order_and_nobody_rings(monkeypatch: pytest.MonkeyPatch) -> None:
    with TurboQueue() as q:
        q.put(-1)
        assert q.get() == -1
        ready(q)
        pauses = paused(monkeypatch, lambda: [q.put(number) for number in range(20)])  # type: ignore[func-returns-value]
        monkeypatch.setattr(type(q._engine.parts.waiter), "fall_asleep", None)  # calling it would fail
        assert [q.get(timeout=60) for _ in range(20)] == list(range(20))
        assert len(pauses) == 1 and 0 < pauses[0] <= tuning.GATHER_MOST
    theirs = multiprocessing.get_context("spawn").Queue()
    for number in range(20):
        theirs.put(number)
        assert theirs.get(timeout=60) == number
    assert len(pauses) == 1, "there each comes as it was put"


def test_no_get_lasts_longer_than_its_timeout_for_that(monkeypatch: pytest.MonkeyPatch) -> None:
    with TurboQueue() as q:
        q.put(1)
        assert q.get() == 1
        ready(q)
        pauses = paused(monkeypatch)
        with pytest.raises(Empty):
            q.get(timeout=1e-4)
        assert pauses and all(seconds <= 1e-4 for seconds in pauses)
        with pytest.raises(Empty):
            q.get_nowait()
        assert len(pauses) <= 1


def test_it_sleeps_as_ever_where_nothing_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    with TurboQueue() as q:
        q.put(1)
        assert q.get() == 1
        gathering = ready(q)
        pauses = paused(monkeypatch)
        begin = time.monotonic()
        with pytest.raises(Empty):
            q.get(timeout=0.05)
        assert time.monotonic() - begin >= 0.05
        assert len(pauses) == 1
        assert gathering._skip == 15


def test_what_a_signal_handler_raises_meanwhile_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        q.put("put by the handler")
        raise KeyboardInterrupt

    with TurboQueue() as q:
        q.put(1)
        assert q.get() == 1
        ready(q)
        paused(monkeypatch, interrupt)
        with pytest.raises(KeyboardInterrupt):
            q.get()
        assert q.get_nowait() == "put by the handler"


@pytest.mark.parametrize("maxsize", [1, 63])
def test_a_small_queue_is_never_left_alone(monkeypatch: pytest.MonkeyPatch, maxsize: int) -> None:
    """Its producers wait for places."""
    with TurboQueue(maxsize) as q:
        q.put(1)
        assert q.get() == 1
        ready(q)
        pauses = paused(monkeypatch)
        with pytest.raises(Empty):
            q.get(timeout=0.01)
        assert pauses == []


def test_beside_other_consumers_it_sleeps_as_ever(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    with TurboQueue(path=tmp_path / "queue") as q:
        q.put(1)
        assert q.get() == 1
        ready(q)
        pauses = paused(monkeypatch)
        monkeypatch.setattr(q._engine.parts.replica.ledger, "consumers", 2)
        with pytest.raises(Empty):
            q.get(timeout=0.01)
        assert pauses == []
