"""Many items that were published one by one, by one producer or several: blocks that the ledger tells of as runs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from tqshim import CorruptBatchError, TurboQueue, monitor, names, tuning
from tqshim.engine import Engine, Use
from tqshim.extents import Run
from tqshim.folder import Folder

LONG = 60.0
COUNT = 1200


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "queue")


@pytest.fixture(params=[1, 3], ids=["one_producer", "three"])
def q(path: str, request: pytest.FixtureRequest) -> Any:
    """A queue of so many items, each published by itself, and one amid them that is too large for a run."""
    made: Any = TurboQueue(path=path)
    producers = [made, *(newcomer(made) for _ in range(request.param - 1))]
    for number in range(COUNT):
        producer = producers[number % 7 % len(producers)]
        producer.put((number, b"." * (8000 if number == 700 else number % 50)))
        producer._engine.flush()
    for producer in producers[1:]:
        producer._engine.close()
    made.qsize()
    runs = [block for block in made._engine.ledger.blocks if isinstance(block, Run)]
    assert sum(run.end - run.first for run in runs) > COUNT - 300
    assert {run.files for run in runs} == {len(producers)}
    return made


def newcomer(q: Any) -> Any:
    """As another process has it."""
    other: Any = TurboQueue.__new__(TurboQueue)
    other._attach(Use(Engine(Folder.meet(q._engine.folder.path))), None)
    return other


@pytest.mark.parametrize("leases", [True, False])
@pytest.mark.parametrize("most", [1, 7, 1000])
def test_items_of_runs_come_in_order_to_whoever_gets_them(
    q: Any, monkeypatch: pytest.MonkeyPatch, most: int, leases: bool
) -> None:
    monkeypatch.setattr(tuning, "LEASES", leases and tuning.LEASES)
    got: list[int] = []
    users = [q, newcomer(q)]
    while len(got) < COUNT:
        user = users[len(got) % 2]
        items = user.get_many(True, LONG, most) if most > 1 else [user.get(True, LONG)]
        for number, padding in items:
            assert len(padding) == (8000 if number == 700 else number % 50)
            got.append(number)
    assert got == [*range(COUNT)]
    assert q.empty()


def test_a_batch_file_in_a_run_goes_with_its_own_last_item(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with the run, in which another producer may go on for long."""
    monkeypatch.setattr(tuning, "LEASES", False)
    q: Any = TurboQueue(path=path)
    other = newcomer(q)
    for number in range(400):
        producer = other if 300 <= number < 310 else q
        producer.put(number)
        producer._engine.flush()
    file = other._engine._file
    other._engine.close()
    q.qsize()
    run = q._engine.ledger.blocks[-1]
    assert isinstance(run, Run) and run.first <= 300 and run.end == 400
    batch = Path(path, names.batch(names.READY, file))
    for number in range(309):
        assert q.get(True, LONG) == number
        assert batch.exists()
    assert q.get(True, LONG) == 309
    assert not batch.exists()
    assert [q.get(True, LONG) for _ in range(90)] == [*range(310, 400)]


def test_one_who_opens_the_queue_later_sees_the_same(q: Any, path: str) -> None:
    assert q.get(True, LONG)[0] == 0
    before = q._engine.ledger.parts(1, COUNT)
    q._engine.close()
    later: Any = TurboQueue(path=path)
    later.qsize()
    assert later._engine.ledger.parts(1, COUNT) == before
    assert any(isinstance(block, Run) for block in later._engine.ledger.blocks)
    assert [later.get(True, LONG)[0] for _ in range(COUNT - 1)] == [*range(1, COUNT)]


def test_held_items_of_runs_come_back_to_the_head(q: Any) -> None:
    for number in range(600):
        assert q.get(True, LONG)[0] == number
    with pytest.raises(RuntimeError), q.claimed() as item:
        assert item[0] == 600
        raise RuntimeError
    with q.claimed() as item:
        assert item[0] == 600
    assert q.get(True, LONG)[0] == 601


def test_the_monitor_reads_runs(q: Any, path: str, tmp_path: Path) -> None:
    for number in range(300):
        assert q.get(True, LONG)[0] == number
    assert monitor.check(path) == []
    assert [peeked.number for peeked in monitor.peek(path, 3)] == [300, 301, 302]
    assert monitor.status(path).items == COUNT - 300
    assert q.stats().bytes == monitor.status(path).item_bytes
    q._engine.close()
    copy = str(tmp_path / "copy")
    monitor.recover(path, copy)
    recovered: Any = TurboQueue(path=copy)
    assert [recovered.get(True, LONG)[0] for _ in range(COUNT - 300)] == [*range(300, COUNT)]


def test_a_damaged_item_of_a_run_is_the_only_one_that_is_lost(
    q: Any, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = next(block for block in q._engine.ledger.blocks if isinstance(block, Run))
    block = run.block(run.first + 5)
    q._engine.close()
    file = Path(path, names.batch(names.READY, block.file))
    data = bytearray(file.read_bytes())
    data[block.offset * 16 + 9] ^= 0xFF
    file.write_bytes(data)
    later: Any = TurboQueue(path=path)
    got, errors = [], 0
    with caplog.at_level(logging.CRITICAL):
        while len(got) < COUNT - 1:
            try:
                got.append(later.get(True, LONG)[0])
            except CorruptBatchError:
                errors += 1
    assert got == [number for number in range(COUNT) if number != block.first] and errors == 1
