"""Who waits goes on as soon as it can, returns in time if it can't, and costs nothing meanwhile."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
import threading
import time
from typing import Any, Callable

import pytest
from contract_tools import AT_ONCE, PATIENCE, TRIES, Other, soon_enough, within

import tqshim

LATE = 0.03
"""Seconds: who is not rung for looks by itself after 50 ms, and later each time."""
STARTING = 60.0
"""Seconds within which a child has started, on any machine."""
SLEEPERS = 5
"""Processes that wait: each looks by itself, the more rarely the more there are."""
ASLEEP = 1.1
"""Seconds after which they sleep for more than ``AT_ONCE``, if nobody rings: 0.25 s, 0.5, and then 1 s, or with two
other members of the queue 0.35, 0.7, and then 1.4."""
TURNS = 100
"""Items for each of those who wait, if they come one by one."""
LEAST = TURNS // 10
"""Items that each must have: where always the same one was woken, the others had one or two in a hundred."""
APART = 0.003
"""Seconds between two of these items: all who wait are asleep again."""


def took(sleepers: list[Other]) -> float:
    """Seconds until all of these have an answer."""
    began = time.monotonic()
    assert within(PATIENCE, lambda: all(one.is_done() for one in sleepers)), "somebody sleeps on"
    return time.monotonic() - began


def claim(q: Any) -> Any:
    with q.claimed() as item:
        return item


@pytest.mark.parametrize("way", ["put", "put one by one", "put_many"])
@pytest.mark.parametrize("take", [pytest.param("get", id="get"), pytest.param(claim, id="claimed")])
def test_as_many_wake_up_as_items_come(take: Any, way: str, other: Any) -> None:
    with tqshim.Queue() as q:
        sleepers = [other(q) for _ in range(SLEEPERS)]
        putter = other(q)
        for one in sleepers:
            one.do("put", "known")
        for one in (q, putter):
            for _ in range(3):
                one.put("known") if one is q else one.do("put", "known")
        assert [one.do("get") for one in sleepers] == ["known"] * SLEEPERS
        assert len(q.get_many()) == 6

        def once() -> float:
            for one in sleepers:
                one.begin(take)
            time.sleep(ASLEEP)
            began = time.monotonic()
            if way == "put":
                for number in range(SLEEPERS):
                    q.put(number)
            elif way == "put one by one":
                for number in range(SLEEPERS):
                    putter.do("put", number)
                    time.sleep(0.02)
            else:
                putter.do("put_many", range(SLEEPERS))
            took(sleepers)
            late = time.monotonic() - began
            assert sorted(one.answer() for one in sleepers) == list(range(SLEEPERS))
            return late

        soon_enough(once)


def test_who_waits_for_what_is_held_wakes_up_when_it_comes_back(other: Any) -> None:
    with tqshim.Queue() as q:
        sleepers = [other(q) for _ in range(SLEEPERS)]

        def once() -> float:
            q.put("item")
            with pytest.raises(ZeroDivisionError), q.claimed() as item:
                for one in sleepers:
                    one.begin("get")
                time.sleep(ASLEEP)
                raise ZeroDivisionError
            began = time.monotonic()
            assert within(PATIENCE, lambda: any(one.is_done() for one in sleepers))
            late = time.monotonic() - began
            q.put_many([item] * (SLEEPERS - 1))
            assert [one.answer() for one in sleepers] == [item] * SLEEPERS
            return late

        soon_enough(once)


@pytest.mark.parametrize("maxsize", [1, 5, 200])
@pytest.mark.parametrize("way", ["get", "get_many", "claimed"])
def test_as_many_go_on_as_places_become_free(maxsize: int, way: str, other: Any) -> None:
    with tqshim.Queue(maxsize) as q:
        sleepers = [other(q) for _ in range(min(SLEEPERS, maxsize) if way == "get_many" else SLEEPERS)]
        for _ in range(maxsize):
            q.put("old")

        def once() -> float:
            for one in sleepers:
                one.begin("put", "new")
            time.sleep(ASLEEP)
            began = time.monotonic()
            if way == "get_many":
                q.get_many(max_messages_to_get=len(sleepers))
            else:
                for _ in sleepers:
                    if way == "get":
                        q.get(timeout=PATIENCE)
                    else:
                        with q.claimed(timeout=PATIENCE):
                            pass
                    time.sleep(0.01)
            took(sleepers)
            late = time.monotonic() - began
            for one in sleepers:
                one.answer()
            assert q.full()
            return late

        soon_enough(once)


@pytest.mark.parametrize("way", ["get", "put"])
def test_event_loops_go_on_as_soon_as_they_can(way: str, other: Any) -> None:
    with tqshim.Queue(2) as q:
        sleepers = [other(q) for _ in range(2)]

        def once() -> float:
            if way == "put":
                q.put_many(["old"] * 2)
            for one in sleepers:
                one.begin(_await_get if way == "get" else _await_put)
            time.sleep(ASLEEP)
            began = time.monotonic()
            for _ in sleepers:
                q.put("old") if way == "get" else q.get()
            took(sleepers)
            late = time.monotonic() - began
            assert [one.answer() for one in sleepers] == (["old"] * 2 if way == "get" else [None] * 2)
            assert q.qsize() == (0 if way == "get" else 2)
            if way == "put":
                q.get_many()
            return late

        soon_enough(once)


def _await_get(q: Any) -> Any:
    return asyncio.run(q.get_async())


def _await_put(q: Any) -> None:
    asyncio.run(q.put_async("new"))


@pytest.mark.parametrize("waits_for", ["items", "places", "the end", "claimed"])
def test_all_who_wait_wake_up_at_a_shutdown(waits_for: str, other: Any) -> None:
    def once() -> float:
        with tqshim.JoinableQueue(1) as q:
            if waits_for in ("places", "the end"):
                q.put("item")
            sleepers = [other(q) for _ in range(SLEEPERS)]
            for one in sleepers:  # all are known from the first nap on
                one.do(_wait, {"places": "put", "the end": "join"}.get(waits_for, "get"), 0.001)
            for one in sleepers:
                if waits_for == "claimed":
                    one.begin(_claim)
                elif waits_for == "places":
                    one.begin("put", "x")
                else:
                    one.begin("get" if waits_for == "items" else "join")
            time.sleep(ASLEEP)
            began = time.monotonic()
            q.shutdown(immediate=waits_for == "the end")
            took(sleepers)
            late = time.monotonic() - began
            for one in sleepers:
                if waits_for == "the end":
                    assert one.answer()
                else:
                    with pytest.raises(tqshim.ShutDown):
                        one.answer()
                one.kill()
            return late

    soon_enough(once)


def _claim(q: Any) -> Any:
    with q.claimed() as item:
        return item


def test_all_who_join_wake_up_when_the_last_item_is_done(other: Any) -> None:
    with tqshim.JoinableQueue() as q:
        sleepers = [other(q) for _ in range(SLEEPERS)]

        def once() -> float:
            q.put_many(range(2))
            for one in sleepers:
                one.begin("join")
            q.get_many()
            q.task_done()
            time.sleep(ASLEEP)
            assert not any(one.is_done() for one in sleepers)
            began = time.monotonic()
            q.task_done()
            took(sleepers)
            late = time.monotonic() - began
            assert all(one.answer() for one in sleepers)
            return late

        soon_enough(once)


WAITS: dict[str, Callable[[Any, float], Any]] = {
    "get": lambda q, seconds: q.get(timeout=seconds),
    "get_many": lambda q, seconds: q.get_many(timeout=seconds),
    "claimed": lambda q, seconds: q.claimed(timeout=seconds).__enter__(),
    "put": lambda q, seconds: q.put("too many", timeout=seconds),
    "put_many": lambda q, seconds: q.put_many(["too", "many"], timeout=seconds),
    "join": lambda q, seconds: q.join(timeout=seconds),
}


@pytest.mark.parametrize("name", WAITS)
def test_a_wait_that_is_in_vain_ends_in_time(name: str, other: Any) -> None:
    """Not before its time, and not much later: once of a few tries on a busy machine."""
    with tqshim.JoinableQueue(3) as q:
        waiter, helper = other(q), other(q)
        if name in ("put", "put_many", "join"):
            helper.do("put_many", range(3))
        waiter.do("qsize")
        for seconds in (0.0, 0.05, 0.3):
            late = []
            for _ in range(3):
                before = waiter.do(_wait, name, seconds)
                assert before >= seconds * 0.999
                late.append(before - seconds)
            assert min(late) < 0.03, f"{seconds} s: {late}"


def _wait(q: Any, name: str, seconds: float) -> float:
    began = time.monotonic()
    try:
        assert WAITS[name](q, seconds) is False
    except (tqshim.Empty, tqshim.Full):
        pass
    return time.monotonic() - began


def test_who_waits_costs_no_time_of_the_processor(other: Any) -> None:
    """Neither before the first ring, nor after one that somebody else has answered."""
    with tqshim.Queue(2) as q:
        waiters = [other(q) for _ in range(3)]
        for turn in range(2):
            for one in waiters:
                one.begin(_cpu_of_get, 0.7)
            time.sleep(0.1)
            if turn:
                for _ in range(2):
                    q.put("item")
            for one in waiters:
                assert one.answer() < 0.1


def _cpu_of_get(q: Any, seconds: float) -> float:
    deadline = time.monotonic() + seconds
    began = time.process_time()
    try:
        while (left := deadline - time.monotonic()) > 0:
            q.get(timeout=left)
    except tqshim.Empty:
        pass
    return time.process_time() - began


@pytest.mark.parametrize("maxsize", [1, 5])
def test_who_waits_for_a_place_costs_no_time_of_the_processor(maxsize: int, other: Any) -> None:
    with tqshim.Queue(maxsize) as q:
        putter = other(q)
        for number in range(maxsize):
            putter.do("put_nowait", number)
        assert putter.do(_cpu_of_put, 0.7) < 0.1


def _cpu_of_put(q: Any, seconds: float) -> float:
    began = time.process_time()
    with pytest.raises(tqshim.Full):
        q.put("too many", timeout=seconds)
    return time.process_time() - began


def test_who_falls_asleep_just_then_is_woken(other: Any) -> None:
    """Items come at every moment of another's looking, saying that it sleeps, and sleeping: it sleeps through none.

    What is late on a busy machine is late through a pipe, too."""
    rounds = 3000
    ours, theirs = multiprocessing.Pipe()
    with tqshim.Queue() as there, tqshim.Queue() as back, ours, theirs:
        echo = other(there, back, theirs)
        found = []
        for _ in range(TRIES):
            echo.begin(_echo, rounds)
            late = late_in_a_pipe = 0
            for number in range(rounds):
                there.put("a first item")
                _busy(number % 100 * 1e-6)
                there.put(number)
                began = time.monotonic()
                assert back.get(timeout=PATIENCE) == number
                between = time.monotonic()
                ours.send(number)
                assert ours.recv() == number
                late += between - began > LATE
                late_in_a_pipe += time.monotonic() - between > LATE
            echo.answer()
            if late < 3 + 2 * late_in_a_pipe:
                return
            found.append((late, late_in_a_pipe))
        raise AssertionError(f"{found} of {rounds} came after part of a second, through the queue and through a pipe")


def _echo(there: Any, back: Any, pipe: Any, count: int) -> None:
    for _ in range(count):
        assert there.get(timeout=PATIENCE) == "a first item"
        back.put(there.get(timeout=PATIENCE))
        pipe.send(pipe.recv())


def test_who_is_stopped_as_it_falls_asleep_finds_what_came_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """At each call of a get, in turn, until it sleeps: at once, for it looks for nothing before."""
    monkeypatch.setenv("TQSHIM_WITHOUT", "spinning,dozing")
    context = multiprocessing.get_context("spawn")
    with tqshim.Queue() as there, tqshim.Queue() as back:
        child = context.Process(target=_stop_at_a_call, args=(there, back))
        child.start()
        assert child.pid is not None

        def is_stopped() -> bool:
            return os.waitpid(child.pid, os.WUNTRACED | os.WNOHANG)[0] == child.pid

        try:
            call, late = 1, 0
            while late < TRIES:
                there.put(call)
                assert back.get(timeout=STARTING) == call
                stopped = within(LATE, is_stopped)
                if not stopped and there.stats().waiting_consumers:
                    break  # it sleeps
                assert stopped or within(PATIENCE, is_stopped)
                there.put("came meanwhile")
                began = time.monotonic()
                os.kill(child.pid, signal.SIGCONT)
                assert back.get(timeout=PATIENCE) == "came meanwhile"
                late = late + 1 if time.monotonic() - began > LATE else 0
                call += not late
        finally:
            child.kill()
            child.join()
        assert late < TRIES, f"stopped at call {call} it slept beside an item"
        assert call > 20


def _stop_at_a_call(there: Any, back: Any) -> None:
    def count(*_: Any) -> None:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGSTOP)

    while True:
        left = there.get()
        back.put(left)
        sys.setprofile(count)
        found = there.get()
        sys.setprofile(None)
        back.put(found)


def _busy(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def test_a_thread_that_is_interrupted_waits_on(other: Any) -> None:
    with tqshim.Queue() as q:
        sleeper = other(q)
        sleeper.begin(_get_through_signals)
        time.sleep(0.1)
        for _ in range(5):
            sleeper.signal(signal.SIGUSR1)
            time.sleep(0.01)
        assert not sleeper.is_done()
        q.put("item")
        assert sleeper.answer() == "item"


def _get_through_signals(q: Any) -> Any:
    signal.signal(signal.SIGUSR1, lambda *_: None)
    return q.get()


def test_threads_wake_up_one_each(other: Any) -> None:
    with tqshim.Queue() as q:
        putter = other(q)
        got: list[Any] = []
        threads = [threading.Thread(target=lambda: got.append(q.get(timeout=PATIENCE))) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(AT_ONCE)
        putter.do("put_many", range(4))
        for thread in threads:
            thread.join()
        assert sorted(got) == list(range(4))


def put_for_ever(q: Any, mine: int) -> None:
    while True:
        q.put(mine)


def count_until_none(q: Any) -> int:
    return sum(1 for _ in iter(q.get, None))


@pytest.mark.parametrize("maxsize", [1, 10])
def test_producers_that_wait_for_a_place_take_turns(maxsize: int, other: Any) -> None:
    with tqshim.Queue(maxsize) as q:
        for mine in range(4):
            other(q).begin(put_for_ever, mine)
        got = []
        for _ in range(4 * TURNS):
            got.append(q.get(timeout=PATIENCE))
            time.sleep(APART)
    shares = [got.count(mine) for mine in range(4)]
    assert min(shares) >= LEAST, shares


@pytest.mark.parametrize("maxsize", [0, 10])
def test_consumers_that_wait_for_an_item_take_turns(maxsize: int, other: Any) -> None:
    with tqshim.Queue(maxsize) as q:
        consumers = [other(q).begin(count_until_none) for _ in range(4)]
        for item in [*range(4 * TURNS), None, None, None, None]:
            q.put(item, timeout=PATIENCE)
            time.sleep(APART)
        shares = [one.answer() for one in consumers]
    assert sum(shares) == 4 * TURNS
    assert min(shares) >= LEAST, shares
