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

from tqshim import UnsupportedError
from tqshim.protocol import extents as room
from tqshim.protocol.extents import Extents

pytestmark = pytest.mark.usefixtures("chunk")


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
    other = Extents.load(extents.first, extents.dump(), extents.chunks)
    assert len(extents.dump()) == 8 * extents.words
    assert list(other.each(other.first, other.end)) == list(extents.each(other.first, other.end))
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
    assert (slow.first, slow.end) == (quick.first, quick.end)
    found, expected = (list(one.each(slow.first, slow.end)) for one in (slow, quick))
    if quick.chunks or slow.chunks:  # chunks begin where they do for either, and neighbours don't join across that
        assert [place for one in found for place in each_item(*one)] == [
            place for one in expected for place in each_item(*one)
        ]
    else:
        assert found == expected and slow.dump() == quick.dump()


def each_item(first: int, end: int, file: int, record: int) -> list[tuple[int, int, int]]:
    return [(item, file, record + item - first) for item in range(first, end)]


def test_neighbours_are_one_extent() -> None:
    """Records that follow one another in one file take no more space for being cut one by one."""
    extents = Extents()
    for record in range(1000):
        extents.append(extents.end, 2, record, 1)
    assert len(extents) == 1
    extents.append(extents.end, 2, 1001, 1)
    extents.append(extents.end, 3, 1002, 1)
    assert len(extents) == 3
    assert extents.chunks or len(extents.dump()) == 3 * 16


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


def test_a_long_backlog_of_several_in_turn_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four producers, a stretch of five to twenty items of each: from 16 bytes an extent to less than 4."""
    monkeypatch.setattr(room, "CHUNK", chunk := 1024)
    dice = random.Random(7)
    extents, places, ends = Extents(), [], [0] * 4
    for turn in range(20 * chunk):
        file, count = turn % 4, dice.randint(5, 20)
        extents.append(extents.end, file + 1000, ends[file], count)
        places.append((extents.end - count, extents.end, file + 1000, ends[file]))
        ends[file] += count
    assert extents.words * 8 < 4 * len(places) + 16 * 2 * chunk
    assert len(extents) == len(places)
    later = Extents.load(0, extents.dump(), extents.chunks)
    for one in (extents, later):
        assert list(one.each(0, one.end)) == places
        for at in dice.sample(range(len(places)), 300):
            first, end, file, record = places[at]
            assert one.place(end - 1) == (file, record + end - 1 - first, end)
        one.forget(places[15 * chunk + 7][0])
        assert list(one.each(one.first, one.end)) == places[15 * chunk + 7 :]


def test_without_zlib_nothing_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an interpreter that was built so."""
    monkeypatch.setattr(room, "zlib", None)
    extents = Extents()
    for item in range(5000):
        extents.append(item, item % 2, item, 1)
    assert extents.chunks == 0
    assert extents.place(77) == (1, 77, 78)


def test_without_zlib_what_others_have_packed_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before who can't read it has claimed anything."""
    extents = Extents()
    for item in range(5000):
        extents.append(item, item % 2, item, 1)
    assert extents.chunks
    monkeypatch.setattr(room, "zlib", None)
    with pytest.raises(UnsupportedError, match="without zlib"):
        Extents.load(0, extents.dump(), extents.chunks)
