"""Dozing: a consumer that sleeps for moments, and looks, while items come one by one at a pace.

Lives here: when a consumer dozes, and that it waits all the same.  Not here: what dozing gains (``bench --only pace``).
"""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import Empty
from typing import Any

import pytest
from watching import SLEEPS, newcomer, no_naps, until_asleep

from tqshim import TurboQueue
from tqshim.engine import dozing, tuning
from tqshim.engine.dozing import COMPARED, KEPT, Dozing
from tqshim.engine.wait_policy import Waiter

LONG = 60.0


def dozed(seconds: Callable[[bool], float], waits: int) -> list[bool]:
    """Which waits are dozed, where one that is, or is not, takes so long."""
    now, ways, decides = 1000.0, [], Dozing()
    for _ in range(waits):
        ways.append(decides.begin(now))
        now += seconds(ways[-1])
    return ways


def test_who_need_not_be_rung_for_dozes_if_items_come_faster_so() -> None:
    ways = dozed(lambda doze: 130e-6 if doze else 150e-6, 10 * KEPT)
    assert not any(ways[:COMPARED])
    assert sum(ways) > 0.95 * len(ways)
    assert not all(ways[2 * COMPARED :]), "it is compared again"


@pytest.mark.parametrize("gain", [0.98, 1.0, 1.5])
def test_who_gains_nothing_by_it_does_not_doze(gain: float) -> None:
    ways = dozed(lambda doze: 150e-6 * (gain if doze else 1.0), 10 * KEPT)
    assert 10 * COMPARED >= sum(ways) > 0, "compared, and no more"


@pytest.mark.parametrize("seconds", [25e-6, 99e-6, 601e-6, 1.0])
def test_nobody_dozes_for_answers_or_for_what_comes_seldom(seconds: float) -> None:
    assert not any(dozed(lambda _: seconds, 10 * KEPT))


def test_one_among_faster_ones_is_enough_not_to_compare() -> None:
    waits = iter(range(10 * KEPT))
    assert not any(dozed(lambda _: 20e-6 if next(waits) % COMPARED == 0 else 200e-6, 10 * KEPT))


@pytest.mark.parametrize("row", [1, 2])
def test_two_long_waits_in_a_row_end_it(row: int) -> None:
    decides, now, ways = Dozing(), 1000.0, []
    for wait in range(300):
        ways.append(decides.begin(now))
        now += 1.0 if 100 < wait <= 100 + row else 130e-6 if ways[-1] else 150e-6
    assert all(ways[90:103])
    assert ways[103 : 102 + COMPARED] == [row == 1] * (COMPARED - 1)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "DOZING", True)
    monkeypatch.setattr(Dozing, "begin", lambda self, _: setattr(self, "on", True) or True)


@pytest.fixture
def rings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What this process has rung for."""
    rings: list[int] = []
    ring = Waiter._ring
    monkeypatch.setattr(Waiter, "_ring", lambda self, kind: (rings.append(kind), ring(self, kind)))
    return rings


def test_nobody_rings_for_who_dozes(path: str, always: None, rings: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    moments: list[float] = []

    def pause(seconds: float) -> None:
        moments.append(seconds)
        if len(moments) == 3:
            newcomer(path).put("x")

    monkeypatch.setattr("tqshim.engine.wait_policy.pause", pause)
    with TurboQueue(path=path) as queue:
        assert queue.get(timeout=2 * LONG) == "x"
    assert len(moments) == 3 and SLEEPS not in rings


def test_who_has_dozed_in_vain_sleeps_and_is_rung_for(
    path: str, always: None, rings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    moments: list[float] = []
    monkeypatch.setattr("tqshim.engine.wait_policy.pause", moments.append)
    no_naps(monkeypatch)
    with TurboQueue(path=path) as queue, ThreadPoolExecutor(1) as thread:
        getting = thread.submit(queue.get, True, LONG)
        until_asleep(queue)
        assert moments
        newcomer(path).put("x")
        assert getting.result(LONG) == "x"
    assert SLEEPS in rings


def test_a_test_that_replaces_sleep_sees_its_own_calls_alone(always: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", pytest.fail)
    with TurboQueue() as queue, pytest.raises(Empty):
        queue.get(timeout=0.01)


@pytest.mark.parametrize("timeout", [0.0, 1e-5, 2e-4, 1e-3, 0.05])
def test_a_timeout_is_kept(always: None, timeout: float) -> None:
    with TurboQueue() as queue:
        began = time.monotonic()
        with pytest.raises(Empty):
            queue.get(timeout=timeout)
        assert time.monotonic() - began >= timeout


@pytest.fixture
def restless(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is decided anew after every few waits, whatever they take; what is decided is left to chance."""
    monkeypatch.setattr(tuning, "DOZING", True)
    for name, value in (("SHORTEST", 0.0), ("COMPARED", 2), ("KEPT", 3), ("GAIN", 1.0)):
        monkeypatch.setattr(dozing, name, value)


def produce(queue: Any, me: int, count: int) -> None:
    chance = random.Random(me)
    for number in range(count):
        if chance.random() < 0.5:
            time.sleep(chance.random() * 5e-4)
        queue.put((me, number))


def consume(queue: Any, found: Any) -> None:
    got = []
    while (item := queue.get(timeout=LONG)) is not None:
        got.append(item)
    found.put(got)


@pytest.mark.parametrize(("producers", "consumers"), [(1, 1), (2, 1), (1, 2), (2, 3)])
@pytest.mark.parametrize("maxsize", [0, 2])
def test_all_come_once_and_in_order(restless: None, producers: int, consumers: int, maxsize: int) -> None:
    context, count = multiprocessing.get_context("fork"), 300
    with TurboQueue(maxsize) as queue, TurboQueue() as found:
        getting = [context.Process(target=consume, args=(queue, found)) for _ in range(consumers)]
        putting = [context.Process(target=produce, args=(queue, me, count)) for me in range(producers)]
        for process in getting + putting:
            process.start()
        for process in putting:
            process.join(LONG)
        for _ in getting:
            queue.put(None)
        lists = [found.get(timeout=LONG) for _ in getting]
        for process in getting:
            process.join(LONG)
        for got in lists:
            for me in range(producers):
                numbers = [number for producer, number in got if producer == me]
                assert numbers == sorted(numbers)
        assert sorted(item for got in lists for item in got) == [
            (me, number) for me in range(producers) for number in range(count)
        ]
        assert queue.empty()
