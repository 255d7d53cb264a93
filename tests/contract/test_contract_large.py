"""Large items arrive whole, and stay what they were, however their files are filled again."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from contract_tools import PATIENCE

import tqshim

MB = 1 << 20


class Array:
    """As arrays are: its buffer is pickled beside it."""

    def __init__(self, buffer: Any) -> None:
        self.buffer = buffer

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Array, (pickle.PickleBuffer(self.buffer),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Array) and bytes(self.buffer) == bytes(other.buffer)


def array(number: int, size: int) -> Array:
    return Array(bytearray([number % 256]) * size)


@pytest.mark.parametrize("size", [70_000, 600_000, 2 * MB + 7])
def test_what_was_got_stays_as_it_was(size: int, other: Any) -> None:
    """A consumer keeps what it has got, while hundreds of megabytes go the same way."""
    with tqshim.Queue(6) as q:
        putter = other(q)
        putter.begin(_put_arrays, size, 40)
        kept: list[Array] = []
        for number in range(40):
            got = q.get(timeout=PATIENCE)
            if number % 4 == 0:
                kept.append(got)
            assert all(one == array(number, size) for number, one in zip(range(0, 40, 4), kept))
        putter.answer()


def _put_arrays(q: Any, size: int, count: int) -> None:
    for number in range(count):
        q.put(array(number, size))


def test_several_buffers_of_an_item_keep_their_places(other: Any) -> None:
    with tqshim.Queue() as q:
        reader = other(q)
        for turn in range(3):
            item = _arrays(turn)
            q.put(["before", item, turn])
            assert reader.do(_are_right, turn)
            q.put(["before", item, turn])
            assert q.get_nowait() == ["before", item, turn]


def _arrays(turn: int) -> list[Array]:
    return [array(one + turn, 600_000 + one * 100_001) for one in range(5)]


def _are_right(q: Any, turn: int) -> bool:
    return bool(q.get() == ["before", _arrays(turn), turn])


def test_the_parts_of_an_item_are_read_one_behind_the_other(other: Any) -> None:
    with tqshim.Queue() as q:
        reader = other(q)
        for size in (MB, 3 * MB):
            item = [bytes([one]) * (size + one) if one % 2 else "text" * (size // 7 + one) for one in range(6)]
            for _ in range(2):
                q.put(item)
            assert q.get_nowait() == item
            assert reader.do("get") == item


def test_large_and_small_items_of_two_producers_come_in_order(other: Any) -> None:
    with tqshim.Queue(8) as q:
        putters = [other(q).begin(_put_mixed, name) for name in range(2)]
        got = [q.get(timeout=PATIENCE) for _ in range(80)]
        for name, putter in enumerate(putters):
            putter.answer()
            mine = [(number, len(data), data[:1]) for whose, number, data in got if whose == name]
            assert mine == [(number, _size(number), bytes([number])[: _size(number)]) for number in range(40)]


def _size(number: int) -> int:
    return (0, 100, 300_000, 70_000, 1_500_000)[number % 5]


def _put_mixed(q: Any, name: int) -> None:
    for number in range(40):
        q.put((name, number, bytes([number]) * _size(number)))
