"""The grammar of blocks: what was joined comes apart again, and damage is a ``ValueError``."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tqshim import blocks, events
from tqshim.names import FileId

records = st.lists(st.binary(max_size=60), min_size=1, max_size=40)
SEED = blocks.seed(FileId(7, 4), 3)


def taken_apart(data: bytes, count: int) -> list[bytes]:
    body, ends = blocks.split(data, count, SEED)
    return [bytes(blocks.record(body, ends, index)) for index in range(count)]


@given(records, st.booleans())
def test_split_and_record_undo_join(items: list[bytes], check_all: bool) -> None:
    assert taken_apart(blocks.join(items, SEED, check_all), len(items)) == items


@given(records)
def test_views_are_joined_as_bytes_are(items: list[bytes]) -> None:
    assert blocks.join([memoryview(item) for item in items], SEED) == blocks.join(items, SEED)


@given(records)
def test_units_are_the_fewest_that_hold_the_block(items: list[bytes]) -> None:
    size = len(blocks.join(items, SEED))
    units = blocks.units(len(items), sum(map(len, items)))
    assert (units - 1) * events.UNIT < size <= units * events.UNIT


def test_units_of_the_largest_record_that_is_no_giant_fit_into_an_event() -> None:
    assert blocks.units(1, 0) > 0
    assert blocks.units(1, blocks.GIANT - 1) <= events.UNITS_MOST


@given(st.binary(max_size=200), st.integers(1, 60))
def test_damaged_bytes_raise_value_error_only(data: bytes, count: int) -> None:
    """Bytes that nobody joined."""
    with pytest.raises(ValueError):
        taken_apart(data, count)


@given(st.lists(st.binary(max_size=2 * blocks.CHECKED), min_size=1, max_size=40), st.booleans(), st.data())
def test_a_changed_bit_is_noticed(items: list[bytes], check_all: bool, data: st.DataObject) -> None:
    """Wherever it is; of large records, if they are to be checked."""
    changed = bytearray(blocks.join(items, SEED, check_all))
    assert taken_apart(bytes(changed), len(items)) == items
    covered = check_all or sum(map(len, items)) <= blocks.CHECKED * len(items)
    reach = len(changed) if covered else 4 + 4 * len(items)
    changed[data.draw(st.integers(0, reach - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ValueError):
        blocks.split(bytes(changed), len(items), SEED)


@given(records)
def test_index_is_known_from_a_blocks_first_bytes(items: list[bytes]) -> None:
    whole = blocks.join(items, SEED)
    body, ends = blocks.split(whole, len(items), SEED)
    assert list(blocks.index(whole[: 4 + 4 * len(items)], len(items))) == list(ends)
    with pytest.raises(ValueError, match="can't hold"):
        blocks.index(whole[: 3 + 4 * len(items)], len(items))
    assert len(body) >= ends[-1]


@given(st.tuples(st.integers(0, 1 << 30), st.integers(0, 1 << 30), st.integers(0, 1 << 20)))
def test_a_block_in_another_place_is_noticed(place: tuple[int, int, int]) -> None:
    """What stands there from an earlier life of those bytes is not taken for what was put."""
    member, serial, offset = place
    seed = blocks.seed(FileId(member, serial), offset)
    block = blocks.join([b"item"], seed)
    for other in (
        (FileId(member, serial + 2), offset),
        (FileId(member + 1, serial), offset),
        (FileId(member, serial), offset + 1),
    ):
        with pytest.raises(ValueError):
            blocks.split(block, 1, blocks.seed(*other))


@given(records, st.data())
def test_a_block_cut_short_never_gives_a_wrong_record(items: list[bytes], data: st.DataObject) -> None:
    whole = blocks.join(items, SEED)
    short = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(ValueError):
        blocks.split(short, len(items), SEED)


@pytest.mark.parametrize("item", [b"", b"\x80\x05K\x05.", b"\x80\x05\x8c\x018\x94.", b"a" * 15, b"a" * 30])
@pytest.mark.parametrize("count", range(1, 6))
def test_a_block_of_another_number_of_records_is_refused(item: bytes, count: int) -> None:
    """Its check covers all of its bytes, whatever they are taken for."""
    block = blocks.join([item] * count, SEED)
    assert taken_apart(block, count) == [item] * count
    assert blocks.split_single(block, SEED) == (item if count == 1 else None)
    for other in {*range(1, 10)} - {count}:
        with pytest.raises(ValueError):
            taken_apart(block, other)


@given(st.binary(max_size=100), st.binary(max_size=20))
def test_split_giant_undoes_join_giant(item: bytes, behind: bytes) -> None:
    header, body = blocks.join_giant(item, SEED)
    assert len(header) == blocks.GIANT_HEADER
    data = header + bytes(body) + behind
    length = blocks.split_giant(data[: blocks.GIANT_HEADER], len(data), SEED)
    assert data[blocks.GIANT_HEADER : blocks.GIANT_HEADER + length] == item


@given(st.binary(max_size=20), st.integers(0, 1 << 65))
def test_damaged_giants_raise_value_error_only(head: bytes, size: int) -> None:
    try:
        length = blocks.split_giant(head, size, SEED)
    except ValueError:
        return
    assert 0 <= length <= size - blocks.GIANT_HEADER


@pytest.mark.parametrize("size", range(blocks.GIANT_HEADER + 4))
def test_a_giant_cut_short_is_refused(size: int) -> None:
    header, body = blocks.join_giant(b"12345", SEED)
    with pytest.raises(ValueError, match=r"can't"):
        blocks.split_giant((header + bytes(body))[:size], size, SEED)
