"""An item of a block counts as got when the block ends well, and comes back to the head when it does not."""

from __future__ import annotations

import contextlib
import gc
import random
import signal
import time
from collections import deque
from pathlib import Path
from typing import Any, Optional

import pytest
from contract_tools import PATIENCE, all_of, within

import tqshim


@contextlib.contextmanager
def failing(q: Any, times: Optional[int] = 0) -> Any:
    """A block that fails."""
    with contextlib.suppress(ZeroDivisionError):
        claim = q.claimed(timeout=PATIENCE)
        with claim as item:
            assert times is None or claim.redelivered == times
            yield item
            raise ZeroDivisionError


def test_an_item_whose_block_fails_comes_back_and_says_how_often(other: Any) -> None:
    with tqshim.Queue() as q:
        q.put_many(["first", "second"])
        for times in range(4):
            with failing(q, times) as item:
                assert item == "first"
        assert q.qsize() == 2
        assert other(q).do(_redelivered) == ("first", 4)
        assert all_of(q) == ["second"]


def _redelivered(q: Any) -> tuple[Any, int]:
    claim = q.claimed()
    with claim as item:
        return item, claim.redelivered


def thrown_away(q: Any) -> Any:
    """The item of a block that never came to its end."""
    claim = q.claimed(timeout=PATIENCE)
    item = claim.__enter__()
    del claim
    gc.collect()
    return item


@pytest.mark.parametrize("ask", ["get", "get_nowait", "get_many", "claimed"])
def test_an_item_whose_block_was_thrown_away_is_the_next_one(ask: str) -> None:
    with tqshim.Queue() as q:
        q.put_many(["first", "second"])
        assert thrown_away(q) == "first"
        if ask == "claimed":
            with q.claimed(block=False) as item:
                assert item == "first"
        else:
            found = getattr(q, ask)(max_messages_to_get=1) if ask == "get_many" else [getattr(q, ask)()]
            assert found == ["first"]
        assert all_of(q) == ["second"]


@pytest.mark.parametrize("there", ["others wait", "others come", "another waits for its place"])
def test_an_item_whose_block_was_thrown_away_comes_back_to_others(there: str, other: Any) -> None:
    """Its process does nothing but wait for something else."""
    with tqshim.Queue(1) as q:
        q.put("thrown away")
        worker = other(q)
        assert thrown_away(q) == "thrown away"
        if there == "others wait":
            worker.begin("get", timeout=PATIENCE)
            q.put("next", timeout=PATIENCE)
            assert worker.answer() == "thrown away"
        elif there == "others come":
            with pytest.raises(tqshim.Full):
                q.put("next", timeout=2)
            assert worker.do("get_nowait") == "thrown away"
        else:
            worker.begin("put", "next", timeout=PATIENCE)
            assert q.get(timeout=PATIENCE) == "thrown away"
            worker.answer()
            assert q.get(timeout=PATIENCE) == "next"


def test_a_block_that_is_interrupted_anywhere_keeps_nothing() -> None:
    """Its item was got, or comes back; the next get need not wait for that."""
    interrupted = 0
    chosen = random.Random(3)
    former = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        until = time.monotonic() + 1
        while time.monotonic() < until or not interrupted:
            with tqshim.Queue() as q:
                q.put_many(["first", "second"])
                try:
                    signal.setitimer(signal.ITIMER_REAL, 1e-5 + chosen.random() * 6e-4)
                    try:
                        with q.claimed():
                            pass
                    finally:
                        signal.setitimer(signal.ITIMER_REAL, 0)
                except KeyboardInterrupt:
                    interrupted += 1
                assert all_of(q) in (["first", "second"], ["second"])
                assert q.stats().held == 0
    finally:
        signal.signal(signal.SIGALRM, former)


def test_what_comes_back_goes_before_all_that_waits_the_oldest_first(other: Any) -> None:
    with tqshim.Queue() as q:
        q.put_many(range(6))
        with failing(q) as third:
            with failing(q) as second, failing(q) as first:
                assert (third, second, first) == (0, 1, 2)
            assert other(q).do("get") == 1
        assert all_of(q) == [0, 2, 3, 4, 5]


def test_an_item_that_comes_back_goes_before_those_that_another_has_begun_with(other: Any) -> None:
    with tqshim.Queue() as q:
        reader = other(q)
        q.put_many(range(100))
        with failing(q) as item:
            assert item == 0
            assert [reader.do("get") for _ in range(3)] == [1, 2, 3]
        assert [reader.do("get") for _ in range(3)] == [0, 4, 5]


@pytest.mark.parametrize("count", [1, 700])
def test_what_is_held_or_has_come_back_outlives_what_others_do(count: int, tmp_path: Path, other: Any) -> None:
    """Also thousands of acts, the files that it stood in, and the processes that knew it."""
    with tqshim.Queue(50, path=tmp_path / "q") as q:
        worker = other(q)
        q.put_many(["held", "back"])
        with failing(q) as held:
            with failing(q) as back:
                assert (held, back) == ("held", "back")
            with failing(q, 1) as back:
                for number in range(count):
                    worker.do("put", (number, bytes(3000)))
                    assert worker.do("get")[0] == number
                q.put_many(_FILLING)
                with pytest.raises(tqshim.Full):
                    worker.do("put_nowait", "too many")
        worker.end()
        assert q.qsize() == 50
    with tqshim.Queue(path=tmp_path / "q") as q:
        with pytest.raises(tqshim.Full):
            q.put_nowait("too many")
        with failing(q, 1) as item:
            assert item == "held"
            with failing(q, 2) as item:
                assert item == "back"
        assert q.get() == "held"
        worker = other(q)
        assert worker.do("get") == "back"
        assert all_of(q) == _FILLING


def test_what_has_come_back_is_known_to_who_comes_many_acts_later(tmp_path: Path) -> None:
    """Nobody who has seen it come back is left, and hundreds of acts lie between."""
    with tqshim.JoinableQueue(50, path=tmp_path / "q") as q:
        for number in range(600):
            q.put(number)
            q.get()
        q.put_many(range(50))
        for times in range(3):
            with failing(q, times) as item:
                assert item == 0
        for _ in range(600):
            q.task_done()
    del q  # which counts off after it was closed, too
    gc.collect()
    with tqshim.JoinableQueue(path=tmp_path / "q") as q:
        assert q.qsize() == 50
        for put in (lambda: q.put_nowait("too many"), lambda: q.put_many_nowait(["too many"])):
            with pytest.raises(tqshim.Full):
                put()
        with failing(q, 3) as item:
            assert item == 0
        assert all_of(q) == list(range(50))
        for left in reversed(range(50)):
            assert not q.join(timeout=0)
            q.task_done()
            assert q.stats().unfinished == left
        assert q.join(timeout=0)
        with pytest.raises(ValueError, match="too many"):
            q.task_done()


_FILLING = [(number, bytes(500)) for number in range(48)]
"""More than the first file of a producer holds."""


def test_many_processes_claim_each_item_once(other: Any) -> None:
    with tqshim.JoinableQueue(30) as q:
        workers = [other(q).begin(_work) for _ in range(3)]
        for number in range(600):
            q.put(number, timeout=PATIENCE)
        assert q.join(timeout=PATIENCE)
        q.shutdown()
        done = sorted(number for worker in workers for number in worker.answer())
        assert done == list(range(600))


def _work(q: Any) -> list[int]:
    done = []
    while True:
        try:
            with q.claimed() as number:
                if number % 5 == len(done) % 5 == 0:
                    done.append(None)
                    raise ZeroDivisionError
                done.append(number)
            q.task_done()
        except ZeroDivisionError:
            pass
        except tqshim.ShutDown:
            return [one for one in done if one is not None]


def test_each_act_counts_however_many_there_were() -> None:
    """Thousands of acts, at random: none of them is lost, and none happens twice."""
    choice = random.Random(3)
    with tqshim.JoinableQueue(40) as q:
        held: deque[int] = deque()
        put = done = 0
        for number in range(5000):
            kind = choice.randrange(6)
            if kind < 2 and len(held) < 40:
                q.put_nowait(number)
                held.append(number)
                put += 1
            elif kind == 2 and held:
                assert q.get_nowait() == held.popleft()
            elif kind == 3 and held:
                with q.claimed(False) as item:
                    assert item == held[0]
                held.popleft()
            elif kind == 4 and held:
                with failing(q, None) as item:
                    assert item == held[0]
            elif kind == 5 and done < put:
                q.task_done()
                done += 1
            assert q.qsize() == len(held)
            assert q.join(timeout=0) == (done == put)
            if number % 100 == 0:
                found = q.stats()
                assert (found.put, found.unfinished, found.held) == (put, put - done, 0)
        assert all_of(q) == list(held)


def test_figures_tell_what_has_happened(other: Any) -> None:
    with tqshim.JoinableQueue(20) as q:
        worker = other(q)
        worker.do("put_many", range(7))
        assert worker.do("get") == 0
        with failing(q):
            pass
        with failing(q, 1):
            found = q.stats()
            assert (found.put, found.got, found.items, found.held) == (7, 1, 5, 1)
            assert (found.redelivered, found.returned, found.unfinished, found.maxsize) == (1, 0, 7, 20)
        found = q.stats()
        assert (found.items, found.held, found.returned) == (6, 0, 1)
        q.get_many()
        q.task_done()
        found = q.stats()
        assert (found.put, found.got, found.items, found.unfinished, found.bytes) == (7, 7, 0, 6, 0)
        assert within(PATIENCE, lambda: q.stats().waiting_consumers == 0)
        worker.begin("get")
        assert within(PATIENCE, lambda: q.stats().waiting_consumers == 1)
