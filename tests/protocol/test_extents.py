"""Extents: where items stand, against a plain list of places.

Lives here: tests of ``tqshim.protocol.extents`` alone.  Invariant: ``Extents`` tells of each item from ``first`` up to
``end`` what the list tells, whatever was forgotten.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling import examples

from tqshim.protocol.extents import Extents


def filled(dice: random.Random, extents: Extents, places: dict[int, tuple[int, int]], steps: int) -> None:
    """Append and forget at random, in both."""
    ends: dict[int, int] = {}
    for _ in range(steps):
        if dice.random() < 0.8:
            file, count = dice.randrange(4), dice.randint(1, 3)
            record = ends.get(file, 0) + (dice.random() < 0.2)
            for n in range(count):
                places[extents.end + n] = file, record + n
            extents.append(extents.end, file, record, count)
            ends[file] = record + count
        else:
            low = dice.randint(extents.first - 1, extents.end) if len(extents) else extents.first
            extents.forget(low)
            for item in [item for item in places if item < low]:
                del places[item]


@settings(max_examples=examples(150))
@given(seed=st.integers(0, 1 << 32), first=st.sampled_from([0, 1, 7, 1 << 50]), steps=st.integers(0, 60))
def test_each_item_stands_where_it_was_put(seed: int, first: int, steps: int) -> None:
    """``place`` and ``each`` agree with a list, and others are not found."""
    extents, places = Extents(first), {}
    filled(random.Random(seed), extents, places, steps)
    assert list(range(extents.first, extents.end)) == sorted(places)
    for item, (file, record) in places.items():
        found = extents.place(item)
        assert found[:2] == (file, record)
        assert item < found[2] <= extents.end
    for item in (extents.first - 1, extents.end):
        with pytest.raises(LookupError):
            extents.place(item)
    at = extents.first
    for begin, stop, file, record in extents.each(extents.first, extents.end):
        assert at == begin < stop
        assert [places[item] for item in range(begin, stop)] == [(file, record + n) for n in range(stop - begin)]
        at = stop
    assert at == extents.end


@settings(max_examples=examples(80))
@given(seed=st.integers(0, 1 << 32), steps=st.integers(0, 60))
def test_what_is_loaded_is_what_was_dumped(seed: int, steps: int) -> None:
    """And it goes on the same way."""
    extents, places = Extents(), {}
    filled(random.Random(seed), extents, places, steps)
    other = Extents.load(extents.first, extents.dump())
    assert (other.first, other.end, len(other), other.dump()) == (
        extents.first,
        extents.end,
        len(extents),
        extents.dump(),
    )
    for one in (extents, other):
        one.append(one.end, 3, 99, 2)
        one.append(one.end, 3, 101, 2)
        one.forget(one.end - 1)
    assert other.dump() == extents.dump()


@settings(max_examples=examples(80))
@given(seed=st.integers(0, 1 << 32))
def test_forgetting_later_leaves_the_same(seed: int) -> None:
    """Forgetting bit by bit and all at once are one."""
    dice = random.Random(seed)
    slow, quick = Extents(), Extents()
    low = 0
    for _ in range(dice.randint(1, 60)):
        file, record, count = dice.randrange(3), dice.randrange(50), dice.randint(1, 4)
        slow.append(slow.end, file, record, count)
        quick.append(quick.end, file, record, count)
        low = max(low, dice.randint(0, slow.end - 1))
        slow.forget(low)
    quick.forget(low)
    assert (slow.first, slow.dump()) == (quick.first, quick.dump())


def test_neighbours_are_one_extent() -> None:
    """Records that follow one another in one file take no more space for being cut one by one."""
    extents = Extents()
    for record in range(1000):
        extents.append(extents.end, 2, record, 1)
    assert len(extents) == 1
    extents.append(extents.end, 2, 1001, 1)
    extents.append(extents.end, 3, 1002, 1)
    assert len(extents) == 3
    assert len(extents.dump()) == 3 * 16


def test_the_space_of_what_was_forgotten_comes_back() -> None:
    """A long queue that is always short keeps few words."""
    extents = Extents()
    for item in range(5000):
        extents.append(extents.end, item % 2, item, 1)
        extents.forget(item - 1)
    assert len(extents) == 2
    assert len(extents._ends) < 2000


def test_cleared_extents_begin_at_the_item_that_is_told() -> None:
    """As after a queue that has run empty."""
    extents = Extents()
    extents.append(extents.end, 0, 0, 5)
    extents.clear(9)
    assert (len(extents), extents.first, extents.end) == (0, 9, 9)
    extents.append(extents.end, 1, 4, 1)
    assert extents.place(9) == (1, 4, 10)
