"""One get, one item; first in, first out; what was put is there, whole."""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from contract_tools import PATIENCE, all_of, taken

import tqshim


@pytest.mark.parametrize("maxsize", [0, 1, 7, 300, 5000])
def test_one_process_finds_what_a_deque_holds(maxsize: int) -> None:
    choice = random.Random(maxsize)
    held: deque[Any] = deque()
    numbers = itertools.count()
    with tqshim.Queue(maxsize) as q:
        for _ in range(600):
            size = choice.choice((1, 1, 1, 5, 40, 400))
            kind = choice.randrange(5)
            if kind == 0:
                items = [next(numbers) for _ in range(size)]
                if maxsize and len(held) + size > maxsize:
                    with pytest.raises(tqshim.Full):
                        q.put_many_nowait(items)
                else:
                    q.put_many_nowait(items)
                    held.extend(items)
            elif kind == 1:
                for _ in range(size):
                    if maxsize and len(held) == maxsize:
                        with pytest.raises(tqshim.Full):
                            q.put_nowait(-1)
                        break
                    held.append(next(numbers))
                    q.put_nowait(held[-1])
            elif kind == 2 and held:
                assert q.get_many_nowait(size) == [held.popleft() for _ in range(min(size, len(held)))]
            else:
                for _ in range(size):
                    if not held:
                        with pytest.raises(tqshim.Empty):
                            q.get_nowait()
                        break
                    assert q.get_nowait() == held.popleft()
            assert q.qsize() == len(held)
            assert q.full() == (0 < maxsize == len(held))
        assert all_of(q) == list(held)


@pytest.mark.parametrize("consumers", [1, 2])
def test_another_process_sees_at_once_what_was_put(consumers: int, other: Any) -> None:
    with tqshim.Queue() as q:
        reader = other(q)
        if consumers > 1:
            q.put("first")
            assert q.get() == "first"
        for number in range(200):
            with pytest.raises(tqshim.Empty):
                reader.do("get_nowait")
            q.put(number)
            assert reader.do("get_nowait") == number


def test_two_processes_that_put_in_turn_are_heard_in_turn(other: Any) -> None:
    """What was put more than a millisecond before another item comes out before it."""
    with tqshim.Queue() as q:
        first, second = other(q), other(q)
        for putter in (first, second):
            putter.do("put", "begin")
        assert all_of(q) == ["begin", "begin"]
        for turn in range(10):
            for putter in (second, first) if turn % 2 else (first, second):
                putter.do("put", (turn, putter is first))
                time.sleep(0.005)
        assert all_of(q) == [(turn, place == turn % 2) for turn in range(10) for place in (0, 1)]


def test_each_item_is_got_once_by_whomever(other: Any) -> None:
    """Three take turns at a backlog of two producers: one item each, several, one again."""
    with tqshim.Queue() as q:
        putters = [other(q), other(q)]
        for begin in range(0, 3000, 500):
            for name, putter in enumerate(putters):
                putter.do(_put_range, name, begin, begin + 500)
        takers = [q, *(other(q) for _ in range(2))]
        got: list[Any] = []
        for turn in itertools.count():
            taker = takers[turn % 3]
            do = taker.do if taker is not q else lambda name, *arguments: getattr(q, name)(*arguments)
            try:
                for _ in range(turn % 7):
                    got.append(do("get_nowait"))
                got += do("get_many_nowait", 1 + turn % 5 * 11)
                got.append(do("get_nowait"))
            except tqshim.Empty:
                break
        assert len(got) == len(set(got)) == 6000
        for name in range(2):
            assert [number for one, number in got if one == name] == list(range(3000))
        assert q.empty()


def _put_range(q: Any, name: object, begin: int, end: int) -> None:
    for number in range(begin, end):
        q.put((name, number))


def test_what_a_consumer_has_left_of_many_items_is_anothers(other: Any) -> None:
    """However many it has taken, in whatever way: it keeps none, and takes none of the other's."""
    with tqshim.Queue() as q:
        reader = other(q)
        for alone in range(1, 40):
            q.put_many(range(100))
            got = [q.get() for _ in range(alone)]
            got += reader.do("get_many", False, max_messages_to_get=30)
            got += all_of(q)
            assert got == list(range(100)), f"after {alone}"


def test_who_comes_late_to_a_consumers_items_gets_none_twice(other: Any) -> None:
    """A consumer has begun with a backlog; others take all the rest; it goes on."""
    with tqshim.Queue() as q:
        reader = other(q)
        for _ in range(5):
            q.put_many(range(50))
            assert [reader.do("get") for _ in range(5)] == list(range(5))
            assert all_of(q) == list(range(5, 50))
            with pytest.raises(tqshim.Empty):
                reader.do("get_nowait")
            q.put("last")
            assert reader.do("get") == "last"


def test_what_comes_one_by_one_to_the_only_consumer_is_got_once_when_another_comes(other: Any) -> None:
    """A consumer gets each item as it comes, until others look, and get, and put, too."""
    with tqshim.Queue() as q:
        putter, reader, late = other(q), other(q), other(q)
        got = []
        for number in range(40):
            putter.do("put", number)
            got.append(q.get(timeout=5.0))
        assert got == list(range(40))
        for number in range(40, 46):
            putter.do("put", number)
        assert q.get() == 40
        assert late.do("qsize") == q.qsize() == 5
        late.do("put", 46)
        assert q.get() == 41
        assert reader.do("get") == 42
        assert [q.get(), q.get(), reader.do("get"), q.get()] == [43, 44, 45, 46]
        for one in (q.empty(), reader.do("empty"), putter.do("empty")):
            assert one


def test_what_several_put_while_the_only_consumer_is_busy_comes_in_the_order_of_time(other: Any) -> None:
    """It gets each as it comes, one by one; then some wait that were put milliseconds apart."""
    with tqshim.Queue() as q:
        putters = [other(q) for _ in range(3)]
        for number in range(5):
            for putter in putters:
                putter.do("put", number)
                assert q.get(timeout=5.0) == number
        for turn in range(4):
            order = [(number * number + turn) % 3 for number in range(6)]
            for number, who in enumerate(order):
                time.sleep(0.004)
                putters[who].do("put", (turn, number))
            assert [q.get() for _ in order] == [(turn, number) for number in range(6)]


def test_a_get_of_many_takes_all_that_is_there() -> None:
    with tqshim.Queue() as q:
        q.put_many(range(20000))
        assert [q.get() for _ in range(5)] == list(range(5))
        assert q.get_many(max_messages_to_get=30000) == list(range(5, 20000))


def test_a_get_of_many_takes_no_more_than_it_may(other: Any) -> None:
    with tqshim.Queue() as q:
        reader = other(q)
        for _ in range(3):
            q.put_many(range(600))
            assert q.get_many(max_messages_to_get=3) == [0, 1, 2]
            assert reader.do("get_many", max_messages_to_get=4) == [3, 4, 5, 6]
            assert q.get_many(max_messages_to_get=2) == [7, 8]
            assert q.qsize() == 591
            assert reader.do("get_many") == list(range(9, 600))


@pytest.mark.parametrize("maxsize", [0, 10])
@pytest.mark.parametrize("most", [2, 3, 5, 8])
def test_a_get_of_many_takes_what_others_have_put_while_it_knew_of_enough(maxsize: int, most: int, other: Any) -> None:
    with tqshim.Queue(maxsize) as q:
        user = other(q)
        for _ in range(5):
            q.put_many(range(most + 1))
            assert q.get() == 0
            for number in range(1, most):
                assert user.do("get") == number
            for number in range(1, most):
                user.do("put", -number)
            assert q.get_many_nowait(most) == [most, *range(-1, -most, -1)]


def test_an_object_that_is_put_twice_arrives_twice() -> None:
    thing = ["a thing", {"of": "parts"}]
    with tqshim.Queue() as q:
        for _ in range(3):
            q.put(thing)
        q.put_many([thing] * 3)
        assert [q.get_nowait() for _ in range(3)] + q.get_many_nowait() == [thing] * 6


@pytest.mark.parametrize("size", [0, 1, 100, 5000, 40_000, 100_000, 3_000_000, 12_000_000])
def test_an_item_of_any_size_arrives_whole_between_small_ones(size: int, other: Any) -> None:
    item = random.Random(size).randbytes(size) if hasattr(random.Random, "randbytes") else os.urandom(size)
    with tqshim.Queue() as q:
        reader = other(q)
        for get in (q.get_nowait, lambda: reader.do("get_nowait")):
            for one in ("before", item, "between", bytearray(item), "behind"):
                q.put(one)
            assert [get() for _ in range(5)] == ["before", item, "between", item, "behind"]


def test_what_a_stopped_producer_has_put_is_whole(other: Any) -> None:
    """Stopped at any moment, in the middle of writing an item that is not in the queue yet."""
    with tqshim.Queue() as q:
        putter = other(q).begin(_put_for_ever)
        seen = 0
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            putter.stop()
            got = all_of(q)
            assert got == [(number, _HEAVY) for number in range(seen, seen + len(got))]
            seen += len(got)
            putter.go_on()
            time.sleep(random.random() * 0.0002)


_HEAVY = bytes(range(256)) * 250


def _put_for_ever(q: Any) -> None:
    for number in itertools.count():
        q.put((number, _HEAVY))


def test_a_large_item_is_whole_once_it_can_be_seen(other: Any) -> None:
    with tqshim.Queue() as q:
        reader = other(q)
        for size in (30_000_000, 30_000_001):
            reader.begin(_get_size, "get_nowait")
            q.put(bytes(size))
            assert reader.answer() == size


def _get_size(q: Any, name: str) -> int:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            return len(getattr(q, name)())
        except tqshim.Empty:
            pass
    raise AssertionError("nothing came")


def test_many_events_later_everything_is_as_it_was(other: Any) -> None:
    """Some thousand acts of three processes, in turn: each item is got once, in order."""
    with tqshim.Queue() as q:
        putter, reader = other(q), other(q)
        for begin in range(0, 3000, 1000):
            assert putter.begin(_put_and_get, begin, 300).answer() == list(range(begin, begin + 300))
            q.put_many(range(700))
            assert [q.get() for _ in range(350)] == list(range(350))
            assert reader.do(_get_some, 350) == list(range(350, 700))
        assert q.empty()


def _put_and_get(q: Any, begin: int, count: int) -> list[Any]:
    got = []
    for number in range(begin, begin + count):
        q.put(number)
        got.append(q.get())
    return got


def _get_some(q: Any, count: int) -> list[Any]:
    return [q.get() for _ in range(count)]


def test_a_reader_that_lags_by_thousands_of_acts_goes_on_where_it_was(other: Any) -> None:
    with tqshim.Queue() as q:
        reader = other(q)
        q.put("first")
        assert reader.do("get") == "first"
        for number in range(3000):
            q.put(number)
            assert q.get() == number
        q.put_many(range(5))
        assert reader.do(_get_some, 5) == list(range(5))
        assert q.empty()


def test_items_of_several_logs_keep_their_places(other: Any) -> None:
    """What two processes have put, a few items each in turn, comes out as it was put, though half is got meanwhile."""
    with tqshim.Queue() as q:
        putters = [other(q), other(q)]
        put: list[Any] = []
        got: list[Any] = []
        for turn in range(120):
            items = [(turn, number, "x" * 200) for number in range(1 + turn % 4)]
            putters[turn % 2].do("put_many", items)
            time.sleep(0.0012)  # beyond the millisecond within which the order of two processes is free
            put += items
            if turn % 3 == 2:
                got += q.get_many(max_messages_to_get=3)
        got += all_of(q)
        assert got == put


def test_all_handles_of_a_process_see_one_order(tmp_path: Path) -> None:
    with tqshim.Queue(path=tmp_path / "q") as one, tqshim.Queue(path=tmp_path / "q") as two:
        one.put("begin")
        two.put("begin")
        assert all_of(one) == ["begin"] * 2
        for turn in range(20):
            for handle in (two, one) if turn % 2 else (one, two):
                handle.put((turn, handle is one))
        assert all_of(two) == [(turn, place == turn % 2) for turn in range(20) for place in (0, 1)]


def test_a_handler_that_puts_in_the_middle_of_a_put_is_heard_in_between(other: Any) -> None:
    """Signal handlers use the queue whose act they have interrupted: no item is lost, and the order is that in which
    the calls returned."""
    with tqshim.Queue() as q:
        done: list[Any] = []
        now = [0]
        over: list[bool] = []

        def handler(*_: object) -> None:
            q.put(("handler", now[0], len(done)))
            if not over:  # else what is pending at the end would set the timer for another's handler
                signal.setitimer(signal.ITIMER_REAL, 0.0003)

        former = signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.0003)
        try:
            deadline = time.monotonic() + 0.8
            while time.monotonic() < deadline:
                now[0] += 1
                if now[0] % 3:
                    q.put_many([("main", now[0])])
                else:
                    q.put(("main", now[0]))
                done.append(now[0])
        finally:
            over.append(True)
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, former)
        got = all_of(q)
        assert [one[1] for one in got if one[0] == "main"] == done
        seen = 0
        heard = 0
        for one in got:
            if one[0] == "main":
                seen = one[1]
            else:
                heard += 1
                # All that had returned before the handler ran comes before, all that was begun after it, behind.
                assert one[2] <= seen <= one[1], (one, seen)
        assert heard > 20


def test_threads_share_a_handle(other: Any) -> None:
    with tqshim.Queue(50) as q:
        got: list[Any] = []

        def put(name: int) -> None:
            for number in range(400):
                q.put((name, number))

        def get() -> None:
            got.extend(taken(lambda: q.get(timeout=0.3)))

        threads = [threading.Thread(target=put, args=(name,)) for name in range(3)]
        threads += [threading.Thread(target=get) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(got) == [(name, number) for name in range(3) for number in range(400)]
