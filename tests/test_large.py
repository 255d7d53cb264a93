"""Large items: pickled without copies, written in pieces, into batch files that are refilled.

What arrives is what was put, and belongs to the receiver alone; the files in between stay small, and are deleted.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import gc
import inspect
import mmap
import multiprocessing
import os
import pickle
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs.things import Array

import tqshim.engine.tuning
from tqshim import Full, TurboQueue
from tqshim.errors import CorruptBatchError
from tqshim.protocol import index, names, pieces
from tqshim.protocol.pieces import Pieces
from tqshim.queues import buffers
from tqshim.runtime import finalizers, mappings, systems
from tqshim.storage import batch_file
from tqshim.storage.folder import LogFolder
from tqshim.storage.large_records import MAPPED, PEEK, BatchView, RecordInFile

PATIENCE = 60.0
LARGE = 300_000
"""Bytes of an item that has a batch file with two others, as long as ``short_files`` makes them."""


@pytest.fixture(autouse=True)
def short_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tqshim.engine.tuning, "LARGE_FILE_BYTES", 1 << 20)


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


@pytest.mark.in_turn
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


def test_a_bytearray_can_be_resized_while_its_put_waits_and_after_full() -> None:
    """As ``queue.Full`` is handled, whose traceback has the frames that had its bytes."""
    with TurboQueue(1) as queue:
        queue.put("small")
        buffer = bytearray(LARGE)
        for put in (queue.put, lambda item, block, timeout: queue.put_many([item], block, timeout)):
            for block in (True, False):
                try:
                    put(buffer, block, 0.01)
                except Full:
                    buffer.append(1)
        assert len(buffer) == LARGE + 4
        waits = threading.Thread(target=queue.put, args=(buffer,))
        waits.start()
        while not queue.stats().waiting_producers:
            time.sleep(0.001)
        buffer.append(1)
        assert queue.get() == "small"
        waits.join()
        assert len(queue.get()) == LARGE + 4


@pytest.mark.parametrize("maxsize", [0, 5])
def test_a_changed_buffer_does_not_change_what_was_put(maxsize: int) -> None:
    with TurboQueue(maxsize) as queue:
        buffer = bytearray(b"a" * LARGE)
        queue.put("small")
        queue.put(buffer)
        buffer[:] = b"b" * LARGE
        assert queue.get(timeout=PATIENCE) == "small"
        assert queue.get(timeout=PATIENCE) == b"a" * LARGE


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0, 1, 70_000, 600_001])), min_size=1, max_size=6))
def test_items_in_pieces_arrive_as_joined_ones_beside_them(parts: list[tuple[int, int]]) -> None:
    kinds: Any = [lambda data: data, bytearray, lambda data: Array(bytearray(data)), lambda data: Array(data), len]
    items = [kinds[kind](item_of(size, number)) for number, (kind, size) in enumerate(parts)]
    with TurboQueue() as queue:
        for _ in range(3):
            queue.put_many(items)
            got = []
            while len(got) < len(items):
                got += queue.get_many(timeout=PATIENCE)
            assert got == items


def test_an_item_of_a_thousand_pieces_arrives() -> None:
    """More than the kernel takes at once."""
    item = [item_of(70_000, number) for number in range(1100)]
    with TurboQueue() as queue:
        queue.put(item)
        assert queue.get(timeout=PATIENCE) == item


refills = pytest.mark.skipif(not tqshim.engine.tuning.REFILLING, reason="no file is refilled")


@refills
def test_files_of_large_items_are_refilled() -> None:
    with TurboQueue() as queue:
        folder = queue._engine.folder.path
        turn_over(queue, 8)
        inodes = set()
        for _ in range(30):
            turn_over(queue, 1)
            inodes |= {os.stat(os.path.join(folder, name)).st_ino for name in files(queue, "load")}
        assert len(inodes) <= names.FREE_MAPPED + 1
        assert len(files(queue, "free")) <= names.FREE_MAPPED


@refills
@pytest.mark.parametrize("length", [1 << 20, tqshim.engine.tuning.LARGE_FILE_BYTES])
@pytest.mark.parametrize("size", [300_000, 1_000_000, 4_500_000])
def test_few_files_are_kept(size: int, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many are done at once: what is kept of them is memory that nobody uses."""
    monkeypatch.setattr(tqshim.engine.tuning, "LARGE_FILE_BYTES", length)
    with TurboQueue() as queue:
        for _ in range(30):
            queue.put(bytes(size))
        ready = len(files(queue, "ready"))
        assert ready >= 29 // max(1, length // (size + 100))
        for _ in range(30):
            assert len(queue.get(timeout=PATIENCE)) == size
        most = names.FREE_MAPPED if queue._engine.folder.maps_batches else names.FREE
        assert len(files(queue, "free")) == min(most, ready)


def test_files_of_small_blocks_are_not_kept() -> None:
    with TurboQueue() as queue:
        for _ in range(3):
            for _ in range(200):
                queue.put_many([item_of(100, number) for number in range(100)])
                assert len(queue.get_many()) == 100
        assert not files(queue, "free")


def test_without_refilling_all_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tqshim.engine.tuning, "REFILLING", False)
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


def scan(queue: Any) -> None:
    """Look for what the dead have left, as some member does once a second."""
    engine = queue._engine
    reclaimer = engine.parts.reclaimer
    later = max(time.monotonic(), reclaimer.scanned) + 2 * tqshim.engine.tuning.SCAN_EVERY
    assert engine.act(reclaimer.scan_if_due, later)


def producer_of(queue: Any) -> int:
    """The number of the member that this process puts as."""
    parts = queue._engine.parts
    return int(parts.members.slots[parts.producer.slot])


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

        with child(produce) as pid:
            assert done.get(timeout=PATIENCE) == "done"
            if end is not None:
                assert files(queue, "free")
                os.kill(pid, end)
                os.waitpid(pid, 0)
            queue.put("ours")
            assert queue.get(timeout=PATIENCE) == "ours"
            scan(queue)
            assert not files(queue, "free")


def test_space_of_free_files_is_found_when_there_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A producer that finds the disk full takes the space of files that wait to be refilled, whose ever they are."""
    with TurboQueue() as queue:
        turn_over(queue, 8)
        assert files(queue, "free")
        create_log = LogFolder.create_log

        def full(self: LogFolder, file: names.FileId, size: int) -> Any:
            if files(queue, "free"):
                raise OSError(28, "No space left on device")
            return create_log(self, file, size)

        monkeypatch.setattr(LogFolder, "create_log", full)
        monkeypatch.setattr(tqshim.engine.tuning, "REFILLING", False)  # they are another's
        for number in range(4):
            queue.put(item_of(LARGE, number))
        assert not files(queue, "free")
        for number in range(4):
            assert queue.get(timeout=PATIENCE) == item_of(LARGE, number)


# -- records that are unpickled from their files, and buffers that stay there

HUGE = 2 * tqshim.engine.tuning.LARGE
COME_BACK_MAPPED = tqshim.engine.tuning.MAPPINGS and tqshim.engine.tuning.REFILLING
with_locks = pytest.mark.skipif(
    systems.OFD_TEST is None or not tqshim.engine.tuning.IN_FILES or tqshim.engine.tuning.CHECK_ALL,
    reason="without such locks, or where that is switched off, or where they are checked, all records are read at once",
)


def array_of(seed: int) -> Array:
    return Array(bytearray(item_of(HUGE, seed)))


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_read_only_array_arrives_read_only(size: int) -> None:
    """With the standard library's queue it comes writable where pickles are of protocol 4, and a small one owns its
    memory."""
    numpy = pytest.importorskip("numpy")
    theirs = multiprocessing.get_context("spawn").Queue()
    former = pickle.DEFAULT_PROTOCOL < 5
    owns = former and size == 10
    with TurboQueue() as queue:
        for writable in (False, True):
            sent = numpy.arange(size)
            sent.flags.writeable = writable
            queue.put(sent)
            got = queue.get(timeout=PATIENCE)
            assert (got == sent).all()
            assert (got.flags.writeable, got.flags.owndata) == (writable, False)
            with pytest.raises(ValueError, match="resize"):
                got.resize(size + 1)
            theirs.put(sent)
            got = theirs.get(timeout=PATIENCE)
            assert (got == sent).all()
            assert (got.flags.writeable, got.flags.owndata) == (writable or former, owns)
            if owns:
                got.resize(size + 1, refcheck=False)


@with_locks
def test_a_large_buffer_stays_in_its_file_and_is_the_getters_own() -> None:
    with TurboQueue() as queue:
        for number in range(12):
            queue.put(["before", array_of(number), "after", array_of(number + 1)])
            before, first, after, second = queue.get(timeout=PATIENCE)
            assert (before, first, after, second) == ("before", array_of(number), "after", array_of(number + 1))
            assert first.is_mapped and second.is_mapped
            first.data[:7] = b"changed"
            assert second == array_of(number + 1)
        assert first.data[:7] == b"changed"
        queue.put(Array(bytes(HUGE)))  # a read-only one arrives as bytes, as ever
        assert queue.get(timeout=PATIENCE).data.obj == bytes(HUGE)


@with_locks
@pytest.mark.parametrize("copied", [0, tqshim.queues.pickling.COPIED])
def test_what_is_kept_does_not_change_and_its_files_are_not_refilled(
    copied: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With more of them kept than stay in their files, and files refilled all the time."""
    monkeypatch.setattr(tqshim.queues.pickling, "COPIED", copied)
    with TurboQueue() as queue:
        kept = []
        for number in range(2 * MAPPED):
            queue.put(array_of(number))
            kept.append(queue.get(timeout=PATIENCE))
            turn_over(queue, 8, HUGE)
        if not copied:
            assert [one.is_mapped for one in kept].count(True) == MAPPED
        for number, one in enumerate(kept):
            assert one == array_of(number)
        kept.clear()
        gc.collect()
        queue.put(array_of(1))
        assert queue.get(timeout=PATIENCE).is_mapped == (not copied or not COME_BACK_MAPPED)


@refills
@with_locks
def test_a_killed_getter_keeps_no_file() -> None:
    with TurboQueue() as queue, TurboQueue() as says:
        queue.put(array_of(1))

        def keep() -> None:
            kept = queue.get(timeout=PATIENCE)
            says.put(kept.is_mapped)
            time.sleep(PATIENCE)

        with child(keep) as pid:
            assert says.get(timeout=PATIENCE)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        scan(queue)
        turn_over(queue, 8, HUGE)
        folder = queue._engine.folder.path
        inodes = set()
        for _ in range(10):
            turn_over(queue, 1, HUGE)
            inodes |= {os.stat(os.path.join(folder, name)).st_ino for name in files(queue, "load")}
        assert len(inodes) <= names.FREE_MAPPED + 1


class Interrupted:
    """Unpickling this raises an exception of its choice, the first time."""

    raised = 0

    def __init__(self, error: type[BaseException], data: bytes) -> None:
        self.state = error, data

    def __reduce__(self) -> Any:
        return Interrupted.once, self.state

    @staticmethod
    def once(error: type[BaseException], data: bytes) -> Any:
        Interrupted.raised += 1
        if Interrupted.raised == 1 or issubclass(error, Exception):
            raise error
        return data


@contextlib.contextmanager
def raised_in_get(error: type[BaseException]) -> Iterator[Any]:
    """A queue, whose first item has just raised that; the next one is behind it."""
    Interrupted.raised = 0
    with TurboQueue() as queue:
        queue.put(Interrupted(error, item_of(HUGE, 1)))
        queue.put("next")
        with pytest.raises(error):
            queue.get(timeout=PATIENCE)
        yield queue


def test_a_record_in_its_file_that_was_not_delivered_comes_next() -> None:
    with raised_in_get(KeyboardInterrupt) as queue:
        for number in range(8):
            queue.put(item_of(HUGE, number))
        assert queue.get(timeout=PATIENCE) == item_of(HUGE, 1)
        assert queue.get(timeout=PATIENCE) == "next"
        assert [queue.get(timeout=PATIENCE) for _ in range(8)] == [item_of(HUGE, number) for number in range(8)]


def test_a_record_in_its_file_is_delivered_once_though_the_next_act_is_interrupted() -> None:
    with TurboQueue() as queue:
        queue.put(item_of(HUGE, 1))
        queue.put(item_of(HUGE, 2))
        assert queue.get(timeout=PATIENCE) == item_of(HUGE, 1)
        queue._engine.unsure = True
        assert queue.get(timeout=PATIENCE) == item_of(HUGE, 2)


def test_a_record_whose_file_is_cut_short_is_set_aside() -> None:
    with TurboQueue() as queue:
        for item in (item_of(HUGE, 1), item_of(HUGE, 2), "last"):
            queue.put(item)
        first = min(files(queue, "ready"), key=lambda name: names.parse(name).numbers)
        os.truncate(os.path.join(queue._engine.folder.path, first), HUGE)
        with pytest.raises(CorruptBatchError):
            queue.get(timeout=PATIENCE)
        assert queue.get(timeout=PATIENCE) == item_of(HUGE, 2)
        assert queue.get(timeout=PATIENCE) == "last"


@with_locks
def test_a_free_file_that_is_being_read_waits_where_it_lies() -> None:
    with TurboQueue() as queue:
        turn_over(queue, 2, HUGE)
        folder = queue._engine.folder
        (name,) = files(queue, "free")
        reader = os.open(os.path.join(folder.path, name), os.O_RDONLY)
        try:
            fcntl.fcntl(reader, systems.OFD_SET, systems.flock(fcntl.F_RDLCK, 0, 0))
            assert batch_file.refill_batch(folder, names.FileId(producer_of(queue), 4002)) is None
            assert files(queue, "free") == [name]
        finally:
            os.close(reader)
        refilled = batch_file.refill_batch(folder, names.FileId(producer_of(queue), 4002))
        assert refilled is not None
        os.close(refilled)


def test_a_record_in_its_file_that_cannot_be_unpickled_is_gone() -> None:
    with raised_in_get(ZeroDivisionError) as queue:
        assert queue.get(timeout=PATIENCE) == "next"


@with_locks
@pytest.mark.parametrize("item", [item_of(HUGE, 5), array_of(5), [item_of(HUGE, 1), 2, array_of(3)]], ids=type)
def test_a_record_in_its_file_has_bytes_and_can_be_handed_on(item: Any) -> None:
    with TurboQueue() as queue:
        queue.put(item)
        got: list[Any] = []
        queue._engine.get(got, 1, True, PATIENCE)
        assert not isinstance(got[0], (bytes, memoryview))
        assert pickle.loads(bytes(got[0])) == item
        queue._engine.give_back(got)
        with queue.claimed(timeout=PATIENCE) as found:
            assert found == item


def test_without_records_in_files_all_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tqshim.engine.tuning, "IN_FILES", False)
    with TurboQueue() as queue:
        turn_over(queue, 8, HUGE)
        queue.put(array_of(1))
        found = queue.get(timeout=PATIENCE)
        assert found == array_of(1) and not found.is_mapped


def test_a_record_in_its_file_is_read_as_any_file(tmp_path: Path) -> None:
    data = b"one\ntwo\n" + item_of(5000, 1)
    path = tmp_path / "file"
    path.write_bytes(b"before" + data + b"behind")
    record = RecordInFile(os.open(path, os.O_RDONLY), 6)
    assert not record.reaches(len(data) + 7) and record.reaches(len(data))
    buffer = bytearray(6000)
    for _ in range(2):
        assert record.rewound().peek(100_000) == data[:PEEK]
        assert (record.read(1), record.readline(), record.read(4)) == (b"o", b"ne\n", b"two\n")
        assert record.readinto(memoryview(buffer)) == 5000
        assert buffer[:5000] == data[8:]
        assert (record.read(1), record.readline(), record.peek(1)) == (b"", b"", b"")
    assert bytes(record) == data and record.last() == data[-1:]


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 69_999, 70_000, 70_001, 80_000])), max_size=6))
def test_a_record_with_a_trailer_is_unpickled_as_one_without(parts: list[tuple[int, int]]) -> None:
    kinds: Any = [lambda data: data, lambda data: Array(bytearray(data)), bytearray, lambda data: Array(data)]
    item = [kinds[kind](item_of(size, number)) for number, (kind, size) in enumerate(parts)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buffers, "LEAST", 70_000)
        record = tqshim.queues.pickling.dumps(item)
    if not isinstance(record, Pieces):
        assert pickle.loads(record) == item
        return
    joined = b"".join(record.parts)
    found = buffers.find(memoryview(joined))
    wanted = [item_of(size, number) for number, (kind, size) in enumerate(parts) if kind == 1 and size >= 70_000]
    assert [joined[begin:end] for begin, end in found] == wanted
    assert all(begin % pieces.ALIGNMENT == 0 for begin, _ in found)
    assert pickle.loads(joined) == item
    for at in (1, 2, 63, 64):
        # A second one behind it is aligned, too, whatever stands between them.
        first, second = (b"".join(one.parts) for one in pieces.placed([record, record], at, 5))  # type: ignore[union-attr]
        for placed, begins in ((first, at), (second, at + len(first) + 5)):
            assert len(placed) <= len(joined) + pieces.MOST_BEFORE
            spans = buffers.find(memoryview(placed))
            assert [placed[begin:end] for begin, end in spans] == wanted
            assert all((begins + begin) % pieces.ALIGNMENT == 0 for begin, _ in spans)
            assert pickle.loads(placed) == item
            assert buffers.load(memoryview(bytearray(placed)), spans) == item
    if found:
        assert buffers.load(memoryview(bytearray(joined)), found) == item
        begin = found[-1][0]
        for at in range(begin - 9, begin):
            damaged = bytearray(joined)
            damaged[at] ^= 1
            assert buffers.find(memoryview(damaged)) == [], "a buffer without its opcode and length before it"


@pytest.mark.parametrize("size", range(pieces.ALIGNMENT))
def test_what_is_filled_up_does_nothing(size: int) -> None:
    filling = pieces.nothing(size)
    assert len(filling) % pieces.ALIGNMENT == size
    assert pickle.loads(b"\x80\x05" + filling + b"K\x07.") == 7


@given(st.binary(max_size=80), st.integers(0, 255))
def test_what_is_no_trailer_tells_of_no_buffers(data: bytes, count: int) -> None:
    for begin, end in buffers.find(memoryview(data + bytes([count]) + buffers.END)):
        assert data[begin - 9 : begin] == bytes([0x96]) + (end - begin).to_bytes(8, "little")
    assert buffers.find(memoryview(data + b".")) == []


# -- files that stay mapped while they are filled again and again


def mapped_lines(path: str) -> int:
    """Mappings of this process that lie in that folder."""
    with open("/proc/self/maps") as table:
        return sum(path in line for line in table)


def maps_files() -> bool:
    with TurboQueue() as queue:
        return (
            not tqshim.engine.tuning.CHECK_ALL
            and tqshim.engine.tuning.MAPPINGS
            and tqshim.engine.tuning.GIL
            and bool(queue._engine.folder.maps_batches)
        )


mapping = pytest.mark.skipif(
    not maps_files() or not tqshim.engine.tuning.REFILLING, reason="no file is mapped here, or that is switched off"
)


def log_of(queue: Any) -> Any:
    """Where this process puts."""
    return queue._engine.parts.producer.log


def view_of(queue: Any) -> Any:
    """The file in which this process puts, as memory that it reads, if it does."""
    return queue._engine.parts.reader.open(log_of(queue).batch.file).view


def taken(queue: Any) -> Any:
    """The next record, as the engine hands it out."""
    got: list[Any] = []
    queue._engine.get(got, 1, True, PATIENCE)
    return got[0]


@mapping
def test_files_that_come_back_are_mapped_and_all_is_let_go_of_at_the_end() -> None:
    gc.collect()
    root = os.environ["TQSHIM_DIR"]
    before = mapped_lines(root)
    queue = TurboQueue()
    others = mapped_lines(root)
    turn_over(queue, 40)
    assert log_of(queue).batch.in_memory
    assert others < mapped_lines(root) <= others + names.FREE_MAPPED + 2
    descriptors = len(os.listdir("/proc/self/fd"))
    turn_over(queue, 40)
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1
    engine = queue._engine
    while view_of(queue) is None:
        turn_over(queue, 1)
    queue.put(item_of(LARGE, 1))  # which stays there
    queue.close()
    engine.close()
    assert mapped_lines(root) == before


@mapping
def test_what_was_taken_from_mapped_memory_does_not_change_and_pins_its_file() -> None:
    with TurboQueue() as queue:
        turn_over(queue, 40)
        kept = []
        for number in range(6):
            queue.put(item_of(LARGE, number))
            kept.append(taken(queue))
            turn_over(queue, 12)
        # Once as many are kept as a producer has places for files, they are copies.
        assert isinstance(kept[0], memoryview) and kept[0].readonly
        assert [pickle.loads(one) for one in kept] == [item_of(LARGE, number) for number in range(6)]
        queue._engine.give_back(kept[:1])
        assert queue.get(timeout=PATIENCE) == item_of(LARGE, 0)


@mapping
def test_an_item_in_mapped_memory_is_held_while_its_block_runs() -> None:
    with TurboQueue() as queue:
        turn_over(queue, 40)
        queue.put(item_of(LARGE, 1))
        with queue.claimed(timeout=PATIENCE) as item:
            turn_over(queue, 12)
            assert item == item_of(LARGE, 1)
        queue.put(item_of(LARGE, 2))
        with pytest.raises(ZeroDivisionError), queue.claimed(timeout=PATIENCE):
            raise ZeroDivisionError
        with queue.claimed(timeout=PATIENCE) as item:
            assert item == item_of(LARGE, 2)


@mapping
def test_a_mapped_file_that_is_cut_short_is_read_and_written_as_any_other() -> None:
    """Memory beyond a file's end must not be touched: that would kill the process."""
    with TurboQueue() as queue:
        turn_over(queue, 40)
        path = queue._engine.folder.path
        (name,) = files(queue, "load")
        assert log_of(queue).batch.in_memory
        os.truncate(os.path.join(path, name), 16)
        turn_over(queue, 1)  # written behind a hole
        turn_over(queue, 40)
        before = files(queue, "load")
        while files(queue, "load") == before:
            turn_over(queue, 1)  # to the first item of a file, which is looked at now
        queue.put(item_of(LARGE, 1))
        (name,) = files(queue, "load")
        os.truncate(os.path.join(path, name), 16)
        with pytest.raises(CorruptBatchError):
            queue.get(timeout=PATIENCE)
        turn_over(queue, 12)


@mapping
def test_an_item_of_a_mapped_file_that_was_changed_is_reported() -> None:
    with TurboQueue() as queue:
        turn_over(queue, 40)
        queue.put(item_of(LARGE, 1))
        log = log_of(queue)
        (name,) = files(queue, "load")
        with open(os.path.join(queue._engine.folder.path, name), "r+b") as file:
            file.seek(8 * (log.counts[log.cell] - log.first) + 7)
            file.write(b"\xff")
        with pytest.raises(CorruptBatchError):
            queue.get(timeout=PATIENCE)
        turn_over(queue, 12)


@mapping
def test_a_put_that_forks_between_two_pieces_stores_nothing_in_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a signal handler: the child's copy of that put must not write to the parent's file."""
    with TurboQueue() as queue:
        turn_over(queue, 40)
        store = mappings.store
        found: list[int] = []

        def forks(memory: memoryview, parts: list[Any], offset: int) -> None:
            monkeypatch.undo()
            before = bytes(memory)
            pid = os.fork()
            if pid:
                found.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                assert bytes(memory) == before
            store(memory, parts, offset)

        monkeypatch.setattr(mappings, "store", forks)
        parent = os.getpid()
        try:
            queue.put(item_of(LARGE, 1))
            if os.getpid() != parent:
                os._exit(7)
        finally:
            if os.getpid() != parent:
                os._exit(1)
        assert found == [7]
        assert queue.get(timeout=PATIENCE) == item_of(LARGE, 1)
        turn_over(queue, 12)


def test_a_put_that_forks_before_it_writes_writes_nothing_in_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same where its file is not mapped: the child's descriptor of it leads nowhere."""
    monkeypatch.setattr(tqshim.engine.tuning, "MAPPINGS", False)
    with TurboQueue() as queue:
        turn_over(queue, 8)
        write_parts = LogFolder.write_parts
        found: list[int] = []

        def forks(fd: int, parts: list[Any], offset: int) -> None:
            monkeypatch.undo()
            size = sum(map(len, parts))
            before = os.pread(fd, size, offset)
            pid = os.fork()
            if pid:
                found.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                assert os.pread(fd, size, offset) == before
            write_parts(fd, parts, offset)

        monkeypatch.setattr(LogFolder, "write_parts", staticmethod(forks))
        parent = os.getpid()
        try:
            queue.put(item_of(LARGE, 1))
            if os.getpid() != parent:
                os._exit(7)
        finally:
            if os.getpid() != parent:
                os._exit(1)
        assert found == [7]
        assert queue.get(timeout=PATIENCE) == item_of(LARGE, 1)
        turn_over(queue, 12)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are counted with the help of /proc")
def test_many_large_items_got_at_once_take_a_descriptor_a_file_at_most() -> None:
    with TurboQueue() as queue:
        turn_over(queue, 8)
        for number in range(60):
            queue.put(item_of(LARGE, number))
        queue.put_many([item_of(HUGE, number) for number in range(20)])
        before = len(os.listdir("/proc/self/fd"))
        got: list[Any] = []
        while len(got) < 80:
            queue._engine.get(got, 80 - len(got), True, PATIENCE)
        assert not any(isinstance(one, RecordInFile) for one in got)
        assert len(os.listdir("/proc/self/fd")) - before <= 20 + 60 // 3 + 4
        assert [pickle.loads(one) for one in got[:60]] == [item_of(LARGE, number) for number in range(60)]
        assert [pickle.loads(one) for one in got[60:]] == [item_of(HUGE, number) for number in range(20)]


def test_a_lease_keeps_one_file_of_large_items_at_most() -> None:
    """What is got is to be filled again at once."""
    with TurboQueue() as queue:
        for number in range(80):
            queue.put(item_of(70_000, number))
        for number in range(80):
            assert queue.get(timeout=PATIENCE) == item_of(70_000, number)
            assert len(files(queue, "ready")) <= 1 + (79 - number) // 14 + 3


@mapping
@pytest.mark.parametrize("kind", ["two consumers", "durable", "keyed"])
def test_where_a_mapping_is_not_worth_it_or_not_safe_files_are_read(kind: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"durable": True} if kind == "durable" else {"authkey": b"key"} if kind == "keyed" else {}
    with TurboQueue(path=f"{os.environ['TQSHIM_DIR']}/{os.urandom(8).hex()}", **options) as queue:
        path = queue._engine.folder.path
        try:
            if kind == "two consumers":
                queue.put("other")

                def consume() -> None:
                    with contextlib.suppress(Exception):
                        queue.get(timeout=PATIENCE)

                with child(consume):
                    while queue.qsize():
                        time.sleep(0.001)
                    turn_over(queue, 20)
            else:
                turn_over(queue, 20)
            assert view_of(queue) is None
        finally:
            shutil.rmtree(path, ignore_errors=True)


@mapping
def test_a_producer_waits_for_a_file_only_where_its_consumers_keep_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with TurboQueue() as queue:
        turn_over(queue, 40)
        supply, batch = queue._engine.parts.producer.supply, log_of(queue).batch
        asked: list[int] = []

        def refill(*_: Any) -> Optional[int]:
            asked.append(1)
            return os.open(free, os.O_RDWR) if len(asked) > 3 else None

        def asks(got: int, put: int, returns: bool = True, in_memory: bool = True) -> tuple[bool, int]:
            """What comes of a file's being wanted when others have got so much since the last one was, and how often
            was looked for one.  -1: this process is itself a consumer."""
            asked.clear()
            tail = queue._engine.parts.replica.ledger.tail
            monkeypatch.setattr(supply, "taken_elsewhere", lambda: got)
            supply._then, supply._returns, batch.in_memory = (tail - put, 0), returns, in_memory
            file = names.FileId(producer_of(queue), index.serial(4000, 0, large=True))
            return supply._returned(file, 1 << 20, 1 << 19, batch) is not None, len(asked)

        free = os.path.join(queue._engine.folder.path, files(queue, "free")[0])
        monkeypatch.setattr(LogFolder, "refill_log", refill)
        monkeypatch.setattr(tqshim.engine.tuning, "REFILL_PATIENCE", PATIENCE)
        assert asks(-1, 1) == (False, 1), "this process is itself a consumer"
        assert asks(0, 1) == (False, 1), "nothing was got meanwhile"
        assert asks(1, 1, returns=False) == (False, 1), "none came back"
        assert asks(1, 1, in_memory=False) == (False, 1), "it is not mapped"
        assert asks(1, 2) == (True, 4)
        batch.in_memory = True
        monkeypatch.undo()


@mapping
def test_space_of_a_mapped_file_is_free_once_it_is_deleted_and_nobody_reads_it() -> None:
    with TurboQueue() as queue:
        turn_over(queue, 40)
        engine = queue._engine
        before = files(queue, "load")
        while files(queue, "load") == before or view_of(queue) is None:
            turn_over(queue, 1)
        queue.put(item_of(LARGE, 1))
        kept = taken(queue)
        (loaded,) = files(queue, "load")
        path = engine.folder.path
        being_read = os.open(os.path.join(path, loaded), os.O_RDONLY)
        free = [os.open(os.path.join(path, name), os.O_RDONLY) for name in files(queue, "free")]
        try:
            assert engine.folder.remove_free()
            engine.folder.remove_batch(log_of(queue).batch.file)
            assert free and not any(os.fstat(fd).st_blocks for fd in free)
            assert os.fstat(being_read).st_blocks
            assert pickle.loads(kept) == item_of(LARGE, 1)
        finally:
            for fd in (being_read, *free):
                os.close(fd)


def test_nothing_that_a_handler_raises_is_lost_in_a_finalizer() -> None:
    """In one that is written in Python a signal handler may run."""
    for kind in (mappings.Mapping, RecordInFile, BatchView, finalizers.Finalizer, finalizers._Last):
        finalizer = getattr(kind, "__del__", None)
        assert not inspect.isfunction(getattr(finalizer, "fget", finalizer)), kind


@mapping
def test_no_more_files_are_mapped_than_are_in_use() -> None:
    known = mappings.Mappings()
    descriptors = []
    with tempfile.TemporaryDirectory(dir=os.environ["TQSHIM_DIR"]) as folder:
        try:
            for number in range(2 * mappings.KEPT_FILES):
                fd = os.open(f"{folder}/{number}", os.O_RDWR | os.O_CREAT)
                descriptors.append(fd)
                os.write(fd, bytes(mmap.PAGESIZE))
                assert known.of(fd) is None, "met for the first time"
                assert known.of(fd) is not None
                assert known.of(fd) is known.of(fd)
            assert mapped_lines(folder) == mappings.KEPT_FILES
            os.truncate(descriptors[-1], 3 * mmap.PAGESIZE)
            assert known.of(descriptors[-1]) is None, "a page is missing"
            os.pwrite(descriptors[-1], bytes(3 * mmap.PAGESIZE), 0)
            longer = known.of(descriptors[-1])
            assert longer is not None and longer.size == 3 * mmap.PAGESIZE
            known.clear()
            assert mapped_lines(folder) == 1, "it is there as long as somebody has it"
            del longer
            assert not mapped_lines(folder)
        finally:
            for fd in descriptors:
                os.close(fd)
