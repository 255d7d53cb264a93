"""Batches that follow each other closely: a burst of ``put_many`` is published as a burst of ``put`` is."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tqshim import ShutDown, TurboQueue, tuning, waiting
from tqshim.engine import Engine, Use
from tqshim.folder import Folder
from tqshim.putting import Putting

LONG = 60.0
RESERVES = pytest.mark.skipif(
    not (tuning.BURSTS and tuning.RESERVATIONS and waiting.barrier_works()), reason="bounded queues have no bursts"
)
pytestmark = pytest.mark.skipif(not tuning.BURSTS, reason="there are no bursts")


@pytest.fixture(autouse=True)
def only_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst ends where the test wants it to: no flusher, and no clock."""
    monkeypatch.setattr(Putting, "_start_flusher", lambda engine: setattr(engine, "_flusher_busy", True))
    monkeypatch.setattr(tuning, "LINGER", LONG)
    monkeypatch.setattr(tuning, "GAP_FIRST", LONG)


@pytest.fixture(params=[0, pytest.param(5000, marks=RESERVES)])
def q(request: pytest.FixtureRequest) -> Iterator[Any]:
    made: Any = TurboQueue(request.param)
    yield made
    made._engine.close()


def other_engine(q: Any) -> Any:
    """As another process has it."""
    return Use(Engine(Folder.meet(q._engine.folder.path))).engine


def numbers_of(q: Any) -> list[int]:
    return [q.get_nowait() for _ in range(q.qsize())]


def test_batches_of_a_burst_are_one_block(q: Any) -> None:
    q.put_many(range(10))
    for first in range(10, 100, 10):
        q.put_many(range(first, first + 10))
        q.put(-first)
    ledger = other_engine(q).ledger
    assert [(block.first, block.end) for block in ledger.blocks] == [(0, 10)]
    q._engine.flush()
    assert [(block.first, block.end) for block in q._engine.ledger.blocks] == [(0, 10), (10, 109)]
    expected = [*range(10)]
    for first in range(10, 100, 10):
        expected += [*range(first, first + 10), -first]
    assert numbers_of(q) == expected


@pytest.mark.parametrize("batch", [[b"."] * tuning.BLOCK_RECORDS, [bytes(tuning.BLOCK_BYTES // 2)] * 2])
def test_a_batch_that_fills_a_block_is_published_at_once(q: Any, batch: list[bytes]) -> None:
    q.put_many([b"first"])
    q.put_many([b"second"])
    q.put_many(batch)
    assert other_engine(q).qsize() == 2 + len(batch)
    assert not q._engine.records


def test_the_end_of_a_burst_of_batches_comes_by_itself(q: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    child = os.fork()
    if not child:
        for first in range(0, 50, 10):
            q.put_many(range(first, first + 10))
        time.sleep(LONG)
        os._exit(0)
    try:
        assert [q.get(True, LONG) for _ in range(50)] == [*range(50)]
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


@RESERVES
def test_a_batch_whose_places_others_have_taken_is_put_whole_or_not_at_all(tmp_path: Path) -> None:
    q: Any = TurboQueue(20, path=str(tmp_path / "queue"))
    other: Any = Use(Engine(Folder.meet(q._engine.folder.path)))
    q.put_many(range(3))
    q.put_many(range(3, 6))
    assert q._engine.records, "no places were reserved"
    theirs = 0
    while other.engine.put(b"\x80\x05N.", False, None):
        theirs += 1
    assert theirs == 14
    with pytest.raises(queue.Full):
        q.put_many_nowait(range(6, 9))
    assert numbers_of(q) == [0, 1, 2, *[None] * theirs, 3, 4, 5]
    other.engine.close()


def test_a_batch_after_a_shutdown_is_dropped_and_those_before_it_arrive(q: Any) -> None:
    q.put_many(range(3))
    q.put_many(range(3, 6))
    other = other_engine(q)
    other.shutdown(False)
    with pytest.raises(ShutDown):
        q.put_many(range(tuning.BLOCK_RECORDS))
    assert numbers_of(q) == [*range(6)]


def test_a_batch_that_finds_no_space_is_dropped_and_those_before_it_arrive(
    q: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    q.put_many(range(3))
    q.put_many(range(3, 6))

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patched:
        patched.setattr(Folder, "write_at", full)
        patched.setattr(Folder, "write_parts", full)
        patched.setattr(Folder, "create_batch", full)
        with pytest.raises(OSError, match=os.strerror(28)):
            q.put_many(range(tuning.BLOCK_RECORDS))
    assert numbers_of(q) == [*range(6)]
    q.put("goes on")
    assert q.get(True, LONG) == "goes on"
