"""The grammar of blocks: what was joined comes apart again, and damage is a ``ValueError``."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tqshim import blocks, events

records = st.lists(st.binary(max_size=60), min_size=1, max_size=40)
paddings = st.binary(max_size=events.UNIT - 1)


def taken_apart(data: bytes, count: int) -> list[bytes]:
    body, ends = blocks.split(data, count)
    return [bytes(blocks.record(body, ends, index)) for index in range(count)]


@given(records, paddings)
def test_split_and_record_undo_join(items: list[bytes], padding: bytes) -> None:
    """Whatever stands behind the block in its file."""
    assert taken_apart(blocks.join(items) + padding, len(items)) == items


@given(records)
def test_views_are_joined_as_bytes_are(items: list[bytes]) -> None:
    assert blocks.join([memoryview(item) for item in items]) == blocks.join(items)


@given(records)
def test_units_are_the_fewest_that_hold_the_block(items: list[bytes]) -> None:
    size = len(blocks.join(items))
    units = blocks.units(len(items), sum(map(len, items)))
    assert (units - 1) * events.UNIT < size <= units * events.UNIT


def test_units_of_the_largest_record_that_is_no_giant_fit_into_an_event() -> None:
    assert blocks.units(1, 0) > 0
    assert blocks.units(1, blocks.GIANT - 1) <= events.UNITS_MOST


@given(st.binary(max_size=200), st.integers(1, 60))
def test_damaged_bytes_raise_value_error_only(data: bytes, count: int) -> None:
    """Bytes that nobody joined give records that lie within them, or ``ValueError``."""
    try:
        found = taken_apart(data, count)
    except ValueError:
        return
    assert sum(map(len, found)) <= len(data) - 4 * count


@given(records, st.data())
def test_a_block_cut_short_never_gives_a_wrong_record(items: list[bytes], data: st.DataObject) -> None:
    """Either only padding is missing, or all of it is refused."""
    whole = blocks.join(items)
    short = whole[: data.draw(st.integers(0, len(whole)))]
    used = 4 * len(items) + sum(map(len, items))
    if len(short) < used:
        with pytest.raises(ValueError, match="can't hold"):
            blocks.split(short, len(items))
    else:
        assert taken_apart(short, len(items)) == items


@given(st.binary(max_size=100), st.binary(max_size=20))
def test_split_giant_undoes_join_giant(item: bytes, behind: bytes) -> None:
    header, body = blocks.join_giant(item)
    assert len(header) == blocks.GIANT_HEADER
    data = header + bytes(body) + behind
    length = blocks.split_giant(data[: blocks.GIANT_HEADER], len(data))
    assert data[blocks.GIANT_HEADER : blocks.GIANT_HEADER + length] == item


@given(st.binary(max_size=20), st.integers(0, 1 << 65))
def test_damaged_giants_raise_value_error_only(head: bytes, size: int) -> None:
    try:
        length = blocks.split_giant(head, size)
    except ValueError:
        return
    assert 0 <= length <= size - blocks.GIANT_HEADER


@pytest.mark.parametrize("size", range(blocks.GIANT_HEADER + 4))
def test_a_giant_cut_short_is_refused(size: int) -> None:
    header, body = blocks.join_giant(b"12345")
    with pytest.raises(ValueError, match=r"can't"):
        blocks.split_giant((header + bytes(body))[:size], size)
