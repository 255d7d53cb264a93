"""A bounded queue holds as many items as it says, no fewer, whichever processes put."""

from __future__ import annotations

from typing import Any

import pytest
from contract_tools import PATIENCE, all_of

import tqshim

SIZES = [1, 2, 3, 10, 300]


def fill(put: Any, most: int) -> int:
    """How many items this puts, at most so many, until there is no place."""
    for count in range(most):
        try:
            put(count)
        except tqshim.Full:
            return count
    return most


@pytest.mark.parametrize("maxsize", SIZES)
def test_places_that_another_has_not_used_are_anyones(maxsize: int, other: Any) -> None:
    """A producer that has just put may have places in advance: it hides none from others, and takes none of theirs."""
    with tqshim.Queue(maxsize) as q:
        putter = other(q)
        for before in sorted({0, 1, maxsize // 2, maxsize}):
            for number in range(before):
                putter.do("put_nowait", number)
            assert fill(q.put_nowait, maxsize - before) == maxsize - before
            with pytest.raises(tqshim.Full):
                putter.do("put_nowait", "too many")
            with pytest.raises(tqshim.Full):
                q.put_nowait("too many")
            assert q.full()
            assert len(all_of(q)) == maxsize


@pytest.mark.parametrize("maxsize", SIZES)
@pytest.mark.parametrize("there", [1, 2, 5])
def test_who_was_the_only_one_to_put_takes_no_place_of_who_joins(maxsize: int, there: int, other: Any) -> None:
    with tqshim.Queue(maxsize) as q:
        putter = other(q)
        there = min(there, maxsize)
        for number in range(there):
            putter.do("put_nowait", number)
        assert fill(q.put_nowait, maxsize) == maxsize - there
        with pytest.raises(tqshim.Full):
            putter.do("put_nowait", "too many")
        assert len(all_of(q)) == maxsize


@pytest.mark.parametrize("maxsize", SIZES)
def test_two_that_fill_a_queue_in_turn_find_it_full_at_its_bound(maxsize: int, other: Any) -> None:
    with tqshim.Queue(maxsize) as q:
        putter = other(q)
        for _ in range(2):
            put = 0
            for turn in range(maxsize + 4):
                try:
                    (putter.do if turn % 2 else _call(q))("put_nowait", turn)
                    put += 1
                except tqshim.Full:
                    pass
            assert put == maxsize
            assert q.qsize() == maxsize
            assert len(all_of(q)) == maxsize


def _call(q: Any) -> Any:
    return lambda name, *arguments: getattr(q, name)(*arguments)


@pytest.mark.parametrize("maxsize", SIZES)
def test_as_many_as_fit_are_put_at_once(maxsize: int, other: Any) -> None:
    with tqshim.Queue(maxsize) as q:
        q.put("first")
        assert q.get() == "first"
        putter = other(q)
        for _ in range(max(3, 30 // maxsize)):
            putter.do("put_many_nowait", range(maxsize))
            with pytest.raises(tqshim.Full):
                q.put_many_nowait(["too many"])
            assert q.get() == 0
            q.put_many_nowait(["one more"])
            with pytest.raises(tqshim.Full):
                putter.do("put_nowait", "too many")
            assert all_of(q) == [*range(1, maxsize), "one more"]


@pytest.mark.parametrize("maxsize", [10, 300])
def test_what_was_got_by_any_process_has_left_its_place(maxsize: int, other: Any) -> None:
    with tqshim.Queue(maxsize) as q:
        reader = other(q)
        q.put_many(range(maxsize))
        for turn in range(20):
            reader.do("get")
            q.put_nowait(turn)
            with pytest.raises(tqshim.Full):
                q.put_nowait("too many")
            assert q.qsize() == maxsize


def test_an_item_that_is_held_keeps_its_place(other: Any) -> None:
    with tqshim.Queue(3) as q:
        putter = other(q)
        for good in (True, False):
            putter.do("put_many", range(3))
            try:
                with q.claimed() as item:
                    assert item == 0
                    assert q.qsize() == 2
                    for put in (q.put, lambda *arguments: putter.do("put", *arguments)):
                        with pytest.raises(tqshim.Full):
                            put("too many", False)
                        with pytest.raises(tqshim.Full):
                            put("too many", True, 0.01)
                    if not good:
                        raise ZeroDivisionError
            except ZeroDivisionError:
                pass
            if good:
                putter.do("put_nowait", "in its place")
            with pytest.raises(tqshim.Full):
                q.put_nowait("too many")
            assert all_of(q) == ([1, 2, "in its place"] if good else [0, 1, 2])


def test_places_of_held_items_are_free_again_however_many_there_were() -> None:
    with tqshim.Queue(4) as q:
        for turn in range(40):
            q.put_many_nowait(range(4))
            for _ in range(4):
                with q.claimed(False) as item:
                    assert isinstance(item, int), turn
            assert q.empty()


def test_a_large_batch_goes_in_at_once(other: Any) -> None:
    with tqshim.Queue(50_000) as q:
        q.put_many_nowait(range(40_000))
        assert q.qsize() == 40_000
        assert other(q).begin(_first_and_last).answer(4 * PATIENCE) == (0, 39_999, 40_000)


def _first_and_last(q: Any) -> tuple[Any, Any, int]:
    got = q.get_many(max_messages_to_get=100_000)
    return got[0], got[-1], len(got)
