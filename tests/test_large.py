"""Large items: pickled without copies, written in pieces, into batch files that are refilled.

What arrives is what was put, and is the receiver's own; what lies on disk in between stays little, and goes.
"""

from __future__ import annotations

import array
import contextlib
import os
import pickle
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tqshim.tuning
from tqshim import TurboQueue, blocks, names

PATIENCE = 60.0
LARGE = 300_000
"""Bytes of an item that has a batch file with three others."""


def files(queue: Any, kind: str) -> list[str]:
    """The queue's files of a kind."""
    return [name for name in os.listdir(queue._engine.folder.path) if name.startswith(kind)]


def item_of(size: int, seed: int) -> bytes:
    return bytes([seed % 251]) * size


def turn_over(queue: Any, count: int, size: int = LARGE) -> None:
    """Put and get items, so that batch files come and go."""
    for number in range(count):
        queue.put(item_of(size, number))
        assert queue.get(timeout=PATIENCE) == item_of(size, number)


@pytest.mark.parametrize("size", [1, 65_535, 65_536, 65_537, 1 << 20, 5 << 20])
@pytest.mark.parametrize("kind", [bytes, bytearray, lambda data: array.array("B", data), pickle.PickleBuffer])
def test_every_kind_of_buffer_arrives_whole(size: int, kind: Any) -> None:
    data = os.urandom(size)
    with TurboQueue() as queue:
        queue.put([kind(data), "beside", kind(data)])
        first, beside, second = queue.get(timeout=PATIENCE)
        assert (bytes(first), beside, bytes(second)) == (data, "beside", data)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("step", [1, 2])
def test_arrays_arrive_writable_and_private(order: Any, step: int) -> None:
    numpy = pytest.importorskip("numpy")
    with TurboQueue() as queue:
        sent = numpy.asarray(numpy.arange(200_000.0).reshape(400, 500)[::step], order=order)
        before = sent.copy()
        queue.put(sent)
        sent += 1  # what was put is what arrives
        first = queue.get(timeout=PATIENCE)
        assert (first == before).all()
        first[0, 0] = -1
        queue.put(before)
        assert (queue.get(timeout=PATIENCE) == before).all()


@pytest.mark.parametrize("maxsize", [0, 5])
def test_a_changed_buffer_does_not_change_what_was_put(maxsize: int) -> None:
    with TurboQueue(maxsize) as queue:
        buffer = bytearray(b"a" * LARGE)
        queue.put("small")
        queue.put(buffer)
        buffer[:] = b"b" * LARGE
        assert queue.get(timeout=PATIENCE) == "small"
        assert queue.get(timeout=PATIENCE) == b"a" * LARGE


@given(st.lists(st.lists(st.binary(max_size=50), min_size=1, max_size=4), min_size=1, max_size=6), st.booleans())
def test_pieces_are_laid_out_as_joined_records_are(records: list[list[bytes]], check_all: bool) -> None:
    pieces: list[blocks.NewRecord] = [
        blocks.Pieces([memoryview(part) if at % 2 else part for at, part in enumerate(parts)]) for parts in records
    ]
    joined = [b"".join(parts) for parts in records]
    assert b"".join(blocks.lay_out(pieces, 7, check_all)) == blocks.join(joined, 7, check_all)
    assert list(map(len, pieces)) == list(map(len, joined))
    assert b"".join(blocks.join_giant(pieces[0], 7)) == b"".join(blocks.join_giant(joined[0], 7))


def test_an_item_of_a_thousand_pieces_arrives() -> None:
    """More than the kernel takes at once."""
    item = [item_of(70_000, number) for number in range(1100)]
    with TurboQueue() as queue:
        queue.put(item)
        assert queue.get(timeout=PATIENCE) == item


def test_files_of_large_items_are_refilled() -> None:
    with TurboQueue() as queue:
        folder = queue._engine.folder.path
        turn_over(queue, 8)
        inodes = set()
        for _ in range(30):
            turn_over(queue, 1)
            inodes |= {os.stat(os.path.join(folder, name)).st_ino for name in files(queue, "load")}
        assert len(inodes) <= names.FREE + 1
        assert len(files(queue, "free")) <= names.FREE


def test_files_of_small_blocks_are_not_kept() -> None:
    with TurboQueue() as queue:
        for _ in range(3):
            for _ in range(200):
                queue.put_many([item_of(100, number) for number in range(100)])
                assert len(queue.get_many()) == 100
        assert not files(queue, "free")


def test_without_refilling_all_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tqshim.tuning, "REFILLING", False)
    with TurboQueue() as queue:
        turn_over(queue, 12)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 400_000), st.booleans()), max_size=25))
def test_items_of_any_sizes_come_in_order_through_refilled_files(acts: list[tuple[int, bool]]) -> None:
    """A shorter item over a longer one's old bytes, and the other way round."""
    with TurboQueue() as queue:
        turn_over(queue, 6)
        waiting: list[bytes] = []
        for number, (size, takes) in enumerate(acts):
            waiting.append(item_of(size, number))
            queue.put(waiting[-1])
            if takes:
                assert queue.get(timeout=PATIENCE) == waiting.pop(0)
        assert [queue.get(timeout=PATIENCE) for _ in waiting] == waiting


@contextlib.contextmanager
def child(act: Any) -> Iterator[int]:
    """A forked process that does that and then waits to be killed."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
            time.sleep(PATIENCE)
        finally:
            os._exit(1)
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


@pytest.mark.parametrize("end", [signal.SIGKILL, None])
def test_free_files_go_with_their_producer(end: Any) -> None:
    with TurboQueue() as queue, TurboQueue() as done:

        def produce() -> None:
            turn_over(queue, 12)
            if end is None:
                queue._engine.close()
            done.put("done")
            done._engine.flush()

        with child(produce) as pid:
            assert done.get(timeout=PATIENCE) == "done"
            if end is not None:
                assert files(queue, "free")
                os.kill(pid, end)
                os.waitpid(pid, 0)
            queue.put("ours")
            assert queue.get(timeout=PATIENCE) == "ours"
            queue._engine._scan()
            assert not files(queue, "free")


def test_space_of_free_files_is_found_when_there_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever finds the disk full takes the space of files that wait to be refilled, whose ever they are."""
    with TurboQueue() as queue:
        turn_over(queue, 8)
        assert files(queue, "free")
        folder = type(queue._engine.folder)
        write_parts = folder.write_parts

        def full(fd: int, parts: Any, offset: int) -> None:
            if files(queue, "free"):
                raise OSError(28, "No space left on device")
            write_parts(fd, parts, offset)

        monkeypatch.setattr(folder, "write_parts", staticmethod(full))
        queue.put(item_of(LARGE, 7))
        assert not files(queue, "free")
        assert queue.get(timeout=PATIENCE) == item_of(LARGE, 7)
