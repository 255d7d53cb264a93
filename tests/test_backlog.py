"""Many items that wait, put one by one, by one producer or by several in turn: they cost extents, and those are few."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from watching import newcomer

from tqshim import CorruptBatchError, TurboQueue, monitor
from tqshim.engine import tuning
from tqshim.protocol import names
from tqshim.protocol.ledger import Ledger
from tqshim.protocol.records import Place
from tqshim.runtime import systems
from tqshim.storage.folder import LogFolder
from tqshim.sync.cells import SLOTS

LONG = 60.0
COUNT = 1200
NEVER = 1 << 62


def ledger_of(q: Any) -> Ledger:
    """What a handle knows of its queue, once it has looked."""
    q.qsize()
    found: Ledger = q._engine.parts.replica.ledger
    return found


def cut(q: Any) -> None:
    """Cut what all have put."""
    q._engine.act(lambda: q._engine.parts.members.cut())


def batch_files(path: str) -> list[Path]:
    return [file for file in Path(path).iterdir() if file.name.startswith(("load_", "ready_"))]


# --- how many extents ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [0, NEVER], ids=["each_put_marks", "one_mark"])
def test_a_backlog_of_one_producer_is_an_extent_a_file(path: str, monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    """However often it was cut: neighbours join."""
    monkeypatch.setattr(tuning, "MARK_EVERY", every)
    with TurboQueue(path=path) as q:
        for number in range(20_000):
            q.put(number)
        cut(q)
        files = len(batch_files(path))
        extents = ledger_of(q).extents
        assert len(extents) == files < 20
        assert len(extents.dump()) == 16 * files
        later = newcomer(path)
        assert ledger_of(later).extents.dump() == extents.dump()
        later.close()


def test_a_backlog_of_four_in_turn_is_an_extent_a_producer_and_cut(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one an item: cuts come by the clock, be there as many producers as there may."""
    now = [1 << 40]
    modules = [module for name, module in sys.modules.items() if name.startswith("tqshim.engine.")]
    for module in modules:
        monkeypatch.setattr(module, "monotonic_ns", lambda: now[0], raising=False)
    producers: list[Any] = [TurboQueue(path=path), *(newcomer(path) for _ in range(3))]
    count = 8000
    for number in range(count):
        now[0] += tuning.MARK_EVERY // 100
        producers[number % 4].put(number)
    cut(producers[0])
    cuts = count // 100 + 1
    extents = ledger_of(producers[0]).extents
    assert sum(end - first for first, end, _, _ in extents.each(0, count)) == count
    assert len(extents) <= 4 * (cuts + 1) + len(batch_files(path))
    for producer in producers:
        producer.close()


def test_a_newcomer_s_first_get_opens_one_batch_file_and_reads_little(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much waits: the journal's last events, a snapshot of few extents, and where the oldest item stands."""
    monkeypatch.setattr(tuning, "MARK_EVERY", NEVER)
    producers: list[Any] = [TurboQueue(path=path), *(newcomer(path) for _ in range(3))]
    for number in range(20_000):
        producers[number % 4].put(number)
    for producer in producers:
        producer.close()
    assert len(batch_files(path)) > 8
    size = sum(file.stat().st_size for file in Path(path).glob("journal_*"))
    assert size < 16_000
    opened = []
    read_log = LogFolder.read_log
    monkeypatch.setattr(LogFolder, "read_log", lambda folder, file: opened.append(file) or read_log(folder, file))
    applied = []
    apply = Ledger.apply
    monkeypatch.setattr(Ledger, "apply", lambda ledger, chunk: applied.append(len(chunk)) or apply(ledger, chunk))
    with TurboQueue(path=path) as later:
        assert later.get(timeout=LONG) == 0
    assert len(opened) == 1
    assert sum(applied) < size + 64 * 8


@pytest.mark.parametrize("free", [1 << 40, 8 << 20], ids=["plenty", "little"])
def test_journals_are_long_only_where_space_is_short(path: str, monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """There each waiting item has room for its claim; else a newcomer has few events to apply."""
    monkeypatch.setattr(systems, "room_of", lambda place: free)
    monkeypatch.setattr(tuning, "LIMITS", (16, 64))
    with TurboQueue(path=path) as q, TurboQueue(path=path) as other:
        q.put_many(range(2000))
        limits = set()
        for number in range(400):
            with other.claimed(timeout=LONG) as item:  # a HOLD and a GOT each
                assert item == number
            limits.add(ledger_of(q).position.limit)
        assert (max(limits) == 64) == (free == 1 << 40)
        assert max(limits) <= 16 * 64
        assert other.get_many(max_messages_to_get=2000) == list(range(400, 2000))


# --- what is not cut is there, too ------------------------------------------------------------------------------------


def test_what_producers_beyond_the_first_page_of_cells_have_put_is_seen_at_once(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By who has mapped one page, and hears of the others' slots by the look itself."""
    monkeypatch.setattr(tuning, "MARK_EVERY", NEVER)
    q: Any = TurboQueue(path=path)
    assert q.qsize() == 0
    others = [newcomer(path) for _ in range(SLOTS + 3)]
    for number, other in enumerate(others):
        other.put(number)
        other.put(number)
        assert q.qsize() == 2 * number + 2
    found = monitor.status(path)
    assert found.items == 2 * len(others) and found.uncut == 2  # each first put cuts what the others have put
    assert sorted(q.get_many(True, LONG)) == sorted([*range(len(others))] * 2)
    for other in others:
        other.close()


def test_get_many_takes_what_is_cut_and_what_is_not(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "MARK_EVERY", NEVER)
    with TurboQueue(path=path) as q:
        q.put(0)
        cut(q)
        q.put(1)
        q.put_many([2, 3])
        assert monitor.status(path).uncut == 3
        assert q.get_many(max_messages_to_get=3) == [0, 1, 2]
        assert q.get_many() == [3]


# --- what becomes of them --------------------------------------------------------------------------------------------


@pytest.fixture(params=[1, 3], ids=["one_producer", "three"])
def q(path: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A queue of so many items, each cut by itself, and one amid them that is larger than all others."""
    monkeypatch.setattr(tuning, "MARK_EVERY", 0)
    made: Any = TurboQueue(path=path)
    producers = [made, *(newcomer(path) for _ in range(request.param - 1))]
    for number in range(COUNT):
        producer = producers[number % 7 % len(producers)]
        producer.put((number, b"." * (8000 if number == 700 else number % 50)))
    for producer in producers[1:]:
        producer.close()
    cut(made)
    extents = ledger_of(made).extents
    assert extents.end == COUNT
    assert (len(extents) > COUNT // 2) == (len(producers) > 1)
    return made


@pytest.mark.in_turn
@pytest.mark.parametrize("leases", [True, False])
@pytest.mark.parametrize("most", [1, 7, 1000])
def test_interleaved_items_come_in_order_to_all_who_get(
    q: Any, path: str, monkeypatch: pytest.MonkeyPatch, most: int, leases: bool
) -> None:
    monkeypatch.setattr(tuning, "LEASES", leases and tuning.LEASES)
    got: list[int] = []
    users = [q, newcomer(path)]
    while len(got) < COUNT:
        user = users[len(got) % 2]
        items = user.get_many(True, LONG, most) if most > 1 else [user.get(True, LONG)]
        for number, padding in items:
            assert len(padding) == (8000 if number == 700 else number % 50)
            got.append(number)
    assert got == [*range(COUNT)]
    assert q.empty()


def test_a_batch_file_goes_with_its_own_last_item(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though another producer's items stand before and behind it."""
    monkeypatch.setattr(tuning, "LEASES", False)
    monkeypatch.setattr(tuning, "MARK_EVERY", 0)
    q: Any = TurboQueue(path=path)
    other = newcomer(path)
    for number in range(400):
        producer = other if 300 <= number < 310 else q
        producer.put(number)
    file = other._engine.parts.producer.log.batch.file
    other.close()
    batch = Path(path, names.batch(names.READY, file))
    for number in range(309):
        assert q.get(True, LONG) == number
        assert batch.exists()
    assert q.get(True, LONG) == 309
    assert not batch.exists()
    assert [q.get(True, LONG) for _ in range(90)] == [*range(310, 400)]


def test_one_who_opens_the_queue_later_sees_the_same(q: Any, path: str) -> None:
    assert q.get(True, LONG)[0] == 0
    q.close()
    first: Any = newcomer(path)
    second: Any = newcomer(path)
    assert len(list(ledger_of(first).each_place(1, COUNT))) >= 1
    assert list(ledger_of(first).each_place(1, COUNT)) == list(ledger_of(second).each_place(1, COUNT))
    assert [first.get(True, LONG)[0] for _ in range(COUNT - 1)] == [*range(1, COUNT)]


def test_held_items_come_back_to_the_head(q: Any) -> None:
    for number in range(600):
        assert q.get(True, LONG)[0] == number
    with pytest.raises(RuntimeError), q.claimed() as item:
        assert item[0] == 600
        raise RuntimeError
    with q.claimed() as item:
        assert item[0] == 600
    assert q.get(True, LONG)[0] == 601


@pytest.mark.in_turn
def test_the_monitor_reads_interleaved_items(q: Any, path: str, tmp_path: Path) -> None:
    for number in range(300):
        assert q.get(True, LONG)[0] == number
    assert monitor.check(path) == []
    assert [peeked.number for peeked in monitor.peek(path, 3)] == [300, 301, 302]
    assert monitor.status(path).items == COUNT - 300
    assert q.stats().bytes == monitor.status(path).item_bytes
    assert q.stats().bytes == sum(one.size for one in monitor.peek(path, COUNT))
    q.close()
    copy = str(tmp_path / "copy")
    assert monitor.recover(path, copy).copied == COUNT - 300
    recovered: Any = TurboQueue(path=copy)
    assert [recovered.get(True, LONG)[0] for _ in range(COUNT - 300)] == [*range(300, COUNT)]


def test_a_damaged_end_costs_the_two_items_that_meet_there(q: Any, path: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its end is 0 in the index, which is where the next one begins."""
    place: Place = ledger_of(q).place(705)
    q.close()
    file = Path(path, names.batch(names.READY, place.file))
    data = bytearray(file.read_bytes())
    data[8 * (place.record + 1) : 8 * (place.record + 2)] = bytes(8)
    file.write_bytes(data)
    (damage,) = monitor.check(path)
    assert damage.level == "damage" and "2 items that nobody got" in damage.finding
    later: Any = TurboQueue(path=path)
    got, errors = [], 0
    with caplog.at_level(logging.CRITICAL):
        while len(got) < COUNT - 2:
            try:
                got.append(later.get(True, LONG)[0])
            except CorruptBatchError:
                errors += 1
    assert len(got) == len(set(got)) and got == sorted(got) and errors == 2
    assert 705 not in got and {*range(COUNT)} - {*got} > {705}
    assert later.empty()
