"""A queue with a key: a record that nobody with this key has written is never unpickled.

An attacker who can write to the folder, and knows everything except the key, makes records whose checks are right;
unpickling them would leave a mark.  The same records in a queue without a key do leave the mark: the attack is real.
"""

from __future__ import annotations

import contextlib
import gc
import hmac
import itertools
import json
import logging
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Optional

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from programs.things import Array
from sampling import sampled

import tqshim.engine.tuning
import tqshim.sync.membarrier
from tqshim import CorruptBatchError, Empty, FolderError, JoinableTurboQueue, TurboQueue, monitor
from tqshim.cli import main as cli
from tqshim.engine import producer, supply
from tqshim.engine.keys import TAG, Key
from tqshim.monitor.view import View
from tqshim.protocol import events, index, names, snapshot
from tqshim.protocol.index import CHECK
from tqshim.protocol.ledger import Ledger
from tqshim.protocol.names import FileId
from tqshim.queues import pickling
from tqshim.storage.folder import LogFolder

KEY = b"a key of some length"
PATIENCE = 60.0
GIANT = 2_000_000


class Marks:
    """Unpickling this leaves a mark: a folder where the process is."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("mark",)


def no_code_of_others() -> None:
    assert not os.path.exists("mark")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=[False, True])
def checked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queues without checks, and with."""
    monkeypatch.setattr(tqshim.engine.tuning, "CHECK_ALL", request.param)


SHAPES: dict[str, Callable[[int], list[Any]]] = {
    "one small": lambda number: [str(number).ljust(40)],
    "one": lambda number: [str(number).ljust(200)],
    "many": lambda number: [str(10 * number + one).ljust(40) for one in range(10)],
    "large": lambda number: [bytes([number]) * 600_000],
    "buffer": lambda number: [["beside", Array(bytearray([number]) * 700_000)]],
    "giant": lambda number: [bytes([number]) * GIANT],
}
"""What is put at once."""


def fill(path: str, shape: str, authkey: Optional[bytes], count: int = 3, **options: Any) -> list[list[Any]]:
    """A queue into which that shape was put so often, which nobody has open; returns what each put has put."""
    held = [SHAPES[shape](number) for number in range(count)]
    queue = TurboQueue(path=path, authkey=authkey, **options)
    for items in held:
        queue.put_many(items)
    queue._engine.close()
    return held


class Stand(NamedTuple):
    """Where a record stands, with all that follows it."""

    path: Path
    file: FileId
    number: int
    begin: int
    end: int

    @property
    def check(self) -> int:
        """Bytes of its check."""
        return CHECK if index.is_checked(self.file.serial) else 0

    def read(self) -> bytes:
        return self.path.read_bytes()[self.begin : self.end]

    def write(self, record: bytes, tag: bytes) -> None:
        """Write a record there, with that tag, and a check that is right."""
        data = record + tag
        if self.check:
            data += index.check(data, self.file, self.number)
        assert len(data) == self.end - self.begin
        with open(self.path, "r+b") as file:
            file.seek(self.begin)
            file.write(data)

    def split(self, keyed: bool) -> tuple[bytes, bytes]:
        """The record that stands there, and its tag."""
        data = self.read()
        size = len(data) - self.check
        return data[: size - TAG * keyed], data[size - TAG * keyed : size]


def stand(path: str, file: FileId, number: int) -> Stand:
    (there,) = (Path(path, name) for name in names.of_batch(file) if Path(path, name).exists())
    ends = memoryview(there.read_bytes()[: index.data_begin(file.serial)]).cast("Q")
    return Stand(there, file, number, ends[number], ends[number + 1])


def places(path: str, each: int = 1) -> list[list[Stand]]:
    """Where the records of a queue stand, so many together."""
    with View(path) as view:
        ledger = view.follow()
        found = [
            stand(path, place.file, place.record + at)
            for first, end, place in ledger.each_place(ledger.low, ledger.tail)
            for at in range(end - first)
        ]
    return [found[at : at + each] for at in range(0, len(found), each)]


def forge(path: str, at: int, keyed: bool, shape: str = "one") -> None:
    """Put pickles that leave a mark in the place of all records of that put, each as long as it was."""
    for one in places(path, len(SHAPES[shape](0)))[at]:
        forge_record(one, keyed)


def forge_record(one: Stand, keyed: bool) -> None:
    record, tag = one.split(keyed)
    one.write(pickle.dumps(Marks(), 0).ljust(len(record), b"\0"), tag)


def get(queue: Any) -> list[Any]:
    return [queue.get(block=False)]


def get_many(queue: Any) -> list[Any]:
    items: list[Any] = queue.get_many(block=False)
    return items


def claim(queue: Any) -> list[Any]:
    with queue.claimed(block=False) as item:
        return [item]


WAYS = {"get": get, "get_many": get_many, "claimed": claim}


def take(queue: Any, way: Callable[[Any], list[Any]]) -> tuple[list[Any], list[CorruptBatchError]]:
    """All that is there, and what damage was said on the way."""
    got: list[Any] = []
    errors: list[CorruptBatchError] = []
    for _ in range(1000):
        try:
            got += way(queue)
        except Empty:
            return got, errors
        except CorruptBatchError as error:
            errors.append(error)
    raise AssertionError("there is no end to it")


@contextlib.contextmanager
def opened(path: str, authkey: Optional[bytes] = KEY, **options: Any) -> Iterator[Any]:
    """A handle, the only one of this process and the first."""
    queue: Any = TurboQueue(path=path, authkey=authkey, **options)
    try:
        yield queue
    finally:
        queue._engine.close()


# -- what others have written


@pytest.mark.parametrize("shape", SHAPES)
def test_without_a_key_what_others_have_written_runs(shape: str) -> None:
    """Else the tests below would show nothing."""
    fill("queue", shape, None)
    forge("queue", 1, False, shape)
    with opened("queue", None) as queue, contextlib.suppress(FileExistsError):
        take(queue, get)
    assert os.path.exists("mark")


@pytest.mark.in_turn
@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("maxsize", [0, 100])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", SHAPES)
def test_what_others_have_written_is_never_unpickled(
    shape: str, way: str, maxsize: int, durable: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It is set aside with a reason and one warning, and all others arrive."""
    held = fill("queue", shape, KEY, maxsize=maxsize, durable=durable)
    forge("queue", 1, True, shape)
    with caplog.at_level(logging.WARNING, "tqshim"), opened("queue") as queue:
        got, errors = take(queue, WAYS[way])
        assert got == [*held[0], *held[2]]
        assert errors and all("fails its HMAC" in error.finding for error in errors)
        queue.put("goes on")
        assert queue.get(timeout=PATIENCE) == "goes on"
    no_code_of_others()
    assert len(caplog.records) == 1
    (reason,) = Path("queue").glob("corrupt_*.txt")
    assert errors[0].finding in reason.read_text()


def test_what_others_have_written_is_never_unpickled_off_a_lease() -> None:
    """A single consumer, before which much waits, takes it in steps that need no lock."""
    held = fill("queue", "many", KEY, count=40)
    forge("queue", 20, True, "many")
    with opened("queue") as queue:
        got = [queue.get() for _ in range(200)]
        leases = tqshim.engine.tuning.LEASES and tqshim.sync.membarrier.barrier_works()
        assert queue._engine.parts.leasing.lease is not None or not leases
        rest, errors = take(queue, get)
        assert got + rest == [*itertools.chain(*held[:20], *held[21:])]
        assert errors
    no_code_of_others()


def key_of(path: str) -> Key:
    return Key(KEY, proof(path)[:16])


@pytest.mark.in_turn
@pytest.mark.parametrize("shape", SHAPES)
def test_no_byte_can_be_changed(shape: str) -> None:
    """Of the record and of the tag."""
    fill("queue", shape, KEY)
    one = places("queue", len(SHAPES[shape](0)))[1][0]
    key = key_of("queue")
    data = one.read()[: one.end - one.begin - one.check]
    assert key.opened(one.file, one.number, data) == one.split(True)[0]
    step = max(1, len(data) // 50)
    for at in {*range(0, len(data), step), len(data) - 1, len(data) - TAG}:
        other = bytearray(data)
        other[at] ^= 1
        with pytest.raises(ValueError, match="fails its HMAC"):
            key.opened(one.file, one.number, bytes(other))


def proof(path: str) -> bytes:
    with View(path) as view:
        return view.follow().settings.proof


def test_no_index_can_make_another_record_of_these_bytes() -> None:
    """Where a record begins and ends is told by its file's index, which others may write."""
    fill("queue", "many", KEY)
    first, one, *_ = places("queue", 10)[0]
    key = key_of("queue")
    data = one.path.read_bytes()
    end = one.end - one.check
    for begin, stop in itertools.product(range(first.begin, end + 1), range(first.begin, end + 40)):
        if begin <= stop and (begin, stop) != (one.begin, end):
            with pytest.raises(ValueError, match="fails its HMAC"):
                key.opened(one.file, one.number, data[begin:stop])
    assert key.opened(one.file, one.number, data[one.begin : end])


@pytest.mark.parametrize("entry", [0, 1 << 20, -1, 1, -TAG, TAG, -40])
def test_an_index_that_others_have_changed_costs_what_it_tells_of(entry: int) -> None:
    held = fill("queue", "one", KEY)
    ((_,), (one,), (_,)) = places("queue")
    with open(one.path, "r+b") as file:
        file.seek(8 * (one.number + 1))
        file.write((one.end + entry if abs(entry) < 1000 and entry else entry).to_bytes(8, "little"))
    with opened("queue") as queue:
        got, errors = take(queue, get)
    assert got == held[0]
    assert len(errors) == 2  # it tells where the next begins, too


# -- where it belongs


@pytest.mark.parametrize("shape", sorted({*SHAPES} - {"buffer"}))  # which is as long as its place makes it
def test_a_record_that_was_moved_to_another_place_fails(shape: str, checked: None) -> None:
    """Those of two puts of one producer change places; large ones may lie in two files, others in one."""
    held = fill("queue", shape, KEY, count=4)
    found = places("queue", len(SHAPES[shape](0)))
    data = [[one.split(True) for one in group] for group in found]
    for to, other in ((1, 2), (2, 1)):
        for one, (record, tag) in zip(found[to], data[other]):
            one.write(record, tag)
    with opened("queue") as queue:
        got, errors = take(queue, get)
    assert got == [*held[0], *held[3]] and errors
    assert all("HMAC" in error.finding for error in errors)


def test_a_record_of_another_producer_fails(checked: None) -> None:
    """Of the same number, in a file of another name."""
    for number in range(2):
        with opened("queue") as queue:
            queue.put(f"of producer {number}".ljust(100))
    ((one,), (other,)) = places("queue")
    assert one.number == other.number and one.path != other.path
    other.write(*one.split(True))
    with opened("queue") as queue:
        got, errors = take(queue, get)
    assert got == ["of producer 0".ljust(100)] and len(errors) == 1
    assert "HMAC" in errors[0].finding


@pytest.mark.parametrize("shape", SHAPES)
def test_a_record_of_another_queue_with_the_same_key_fails(shape: str) -> None:
    """At the very same place: each queue has something of its own in its tags."""
    fill("other", shape, KEY)
    held = fill("queue", shape, KEY)
    each = len(SHAPES[shape](0))
    for theirs, ours in zip(places("other", each)[1], places("queue", each)[1]):
        assert theirs[1:] == ours[1:] and theirs.path.name == ours.path.name
        ours.write(*theirs.split(True))
    with opened("queue") as queue:
        got, errors = take(queue, get)
    assert got == [*held[0], *held[2]] and errors


def test_what_is_read_does_not_change_any_more() -> None:
    """A large record is not unpickled from its file, where others may write once its tag was found right."""
    held = fill("queue", "large", KEY)
    with opened("queue") as queue:
        got: list[Any] = []
        ((one,), *_) = places("queue")
        with open(one.path, "r+b") as changed:
            queue._engine.get(got, 1, False, None)
            changed.write(b"\xff" * one.end)
        assert pickling.load(got[0]) == held[0][0]


def test_what_is_written_is_what_was_tagged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread changes an array while it is put: it may arrive changed, as in any queue, but it arrives."""
    array = Array(bytearray(700_000))
    tag = Key.tag

    def change(self: Key, *arguments: Any) -> bytes:
        made = tag(self, *arguments)
        array.data[350_000] ^= 1
        return made

    monkeypatch.setattr(Key, "tag", change)
    with opened("queue") as queue:
        queue.put(array)
        monkeypatch.undo()
        assert len(queue.get(block=False).data) == 700_000


# -- what it does not guard: as docs/guarantees.md says


def test_what_the_journal_says_is_not_guarded() -> None:
    """Others write that somebody has come and taken an item: it is gone."""
    held = fill("queue", "one", KEY)
    with open(max(Path("queue").glob("journal_*")), "ab") as journal:
        journal.write(events.join(True) + events.claim(0))
    with opened("queue") as queue:
        assert take(queue, get) == ([*held[1], *held[2]], [])


def test_a_record_that_never_counted_can_be_put_in_the_place_of_the_one_that_did(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A put was interrupted, and the next wrote over what it had written; others have kept that."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with opened("queue") as queue:
        with monkeypatch.context() as patched:
            patched.setattr(producer.Producer, "_commit", interrupt)
            with pytest.raises(KeyboardInterrupt):
                queue.put("former")
        (file,) = Path("queue").glob("load_*")
        former = file.read_bytes()
        queue.put("latter")
        assert file.read_bytes() != former
        file.write_bytes(former)
        assert queue.get(block=False) == "former"


def test_an_old_copy_of_the_whole_folder_is_taken_for_the_queue() -> None:
    held = fill("queue", "one", KEY)
    shutil.copytree("queue", "backup")
    with opened("queue") as queue:
        assert take(queue, get) == ([*itertools.chain(*held)], [])
    shutil.rmtree("queue")
    os.rename("backup", "queue")
    with opened("queue") as queue:
        assert take(queue, get) == ([*itertools.chain(*held)], [])


# -- who has the key


def kinds(*handles: Any) -> list[tuple[bool, bool]]:
    """Of each: it is durable, it has a key."""
    return [(handle._engine.durable, handle._engine.key is not None) for handle in handles]


@pytest.mark.parametrize("key", [b"", "text", bytearray(b"bytes"), 5])
def test_a_key_is_bytes_and_some(key: Any) -> None:
    with pytest.raises(ValueError, match="bytes, one at least"):
        TurboQueue(path="queue", authkey=key)
    assert not os.path.exists("queue")


def test_a_queue_without_a_path_has_no_key() -> None:
    with pytest.raises(ValueError, match="needs a path"):
        TurboQueue(authkey=KEY)


@pytest.mark.in_turn
@pytest.mark.parametrize("durable", [False, True])
def test_a_key_is_a_property_of_the_queue(durable: bool, many_rolls: None, all_is_cut: None) -> None:
    """Who opens it must have the same, as long as it is there; who opens one without must have none."""
    for _ in range(2):  # first in a process that has it open, then in one that has not
        first = TurboQueue(path="queue", authkey=KEY, durable=durable)
        plain = TurboQueue(path="plain", durable=durable)
        for other in (b"another", KEY + b"\0"):
            with pytest.raises(ValueError, match=r"queue: .*made with another authkey; give that one"):
                TurboQueue(path="queue", authkey=other)
        with pytest.raises(ValueError, match=r"queue: .*made with an authkey; give the same one, as authkey=\.\.\."):
            JoinableTurboQueue(path="queue")
        with pytest.raises(ValueError, match=r"plain: .*made without an authkey; leave authkey out"):
            TurboQueue(path="plain", authkey=KEY)
        assert kinds(first, TurboQueue(path="queue", authkey=KEY)) == [(durable, True)] * 2
        assert kinds(plain) == [(durable, False)]
        for number in range(100):  # rolls of the journal
            first.put(number)
            assert first.get() == number
        first._engine.close()
        plain._engine.close()
    for refused in (None, b"another"):
        with pytest.raises(ValueError, match="made with an"):
            TurboQueue(path="queue", authkey=refused)
    assert [monitor.status(path).keyed for path in ("queue", "plain")] == [True, False]
    assert int(max(Path("queue").glob("journal_*")).name.partition("_")[2]) > 0


def test_a_refused_opening_holds_nothing() -> None:
    with opened("queue") as queue:
        queue.put(1)
    before = len(os.listdir("/dev/fd"))
    for key in (None, b"another") * 5:
        with pytest.raises(ValueError):
            TurboQueue(path="queue", authkey=key)
    assert len(os.listdir("/dev/fd")) == before
    monitor.remove("queue")


def test_the_key_stands_in_no_file() -> None:
    fill("queue", "many", KEY)
    files = {file.name: file.read_bytes() for file in Path("queue").iterdir()}
    kinds = {name.partition("_")[0] for name in files}
    assert "journal" in kinds and kinds & {"load", "ready"}
    for name, content in files.items():
        assert KEY not in content, name


def test_two_queues_with_one_key_have_different_proofs() -> None:
    fill("queue", "one", KEY)
    fill("other", "one", KEY)
    assert len({proof("queue"), proof("other"), b""}) == 3


def test_those_who_make_it_at_once_meet_in_one_queue() -> None:
    """One's journal becomes the queue's, and with it one's nonce."""
    limits = tqshim.engine.tuning.LIMITS
    one = LogFolder.open("queue", 0, limits, False, Key(KEY).proof)
    late = LogFolder.open("queue", 0, limits, False, Key(KEY).proof)
    assert one.kind() == late.kind()
    late._furnish(0, limits, False, Key(KEY).proof)  # it had seen no journal yet
    assert one.kind() == late.kind()
    one.close()
    late.close()
    with opened("queue") as queue:
        queue.put(1)
        assert queue.get() == 1


def test_snapshots_keep_the_proof() -> None:
    of = Ledger(5, 16, 32, True, bytes(range(32)))
    assert snapshot.load(snapshot.dump(of)).settings.proof == bytes(range(32))
    assert snapshot.kind(snapshot.dump(of)) == (True, bytes(range(32)))
    assert snapshot.kind(snapshot.dump(Ledger())) == (False, b"")


# -- handles travel


def test_a_pickled_handle_does_not_carry_the_key() -> None:
    with opened("queue") as queue:
        data = pickle.dumps(queue)
        assert KEY not in data
        assert kinds(pickle.loads(data)) == [(False, True)]  # this process uses the queue already
    program = (
        "import pickle, sys\n"
        "from multiprocessing import current_process\n"
        "from tqshim import TurboQueue\n"
        "data = bytes.fromhex(sys.argv[1])\n"
        "try:\n"
        "    pickle.loads(data)\n"
        "except ValueError as error:\n"
        "    print(error)\n"
        "queue = TurboQueue(path='queue', authkey=bytes.fromhex(sys.argv[2]))\n"
        "pickle.loads(data).put(1)\n"
        "queue._engine.close()\n"
        "current_process().authkey = bytes.fromhex(sys.argv[2])\n"
        "pickle.loads(data).put(2)\n"
    )
    words = [sys.executable, "-c", program, data.hex(), KEY.hex()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE)
    assert "made with another authkey" in done.stdout and "handle carries none" in done.stdout, done.stderr
    with opened("queue") as queue:
        assert queue.get_many() == [1, 2]


def test_a_handle_falls_for_no_queue_without_a_key_in_the_place_of_its_own() -> None:
    """Nor where this process has that one open already."""
    with opened("queue") as queue:
        data = pickle.dumps(queue)
    del queue
    gc.collect()
    shutil.rmtree("queue")
    fill("queue", "one", None)
    forge("queue", 0, keyed=False)
    with pytest.raises(ValueError, match="made without an authkey"):
        pickle.loads(data)
    with opened("queue", None), pytest.raises(ValueError, match="made without an authkey"):
        pickle.loads(data)
    no_code_of_others()


def answer(queue: Any, number: int) -> None:
    assert kinds(queue) == [(False, True)]
    queue.put(number)


def put_kept(number: int) -> None:
    _kept.put(number)


_kept: Any = None


def keep(queue: Any) -> None:
    global _kept
    _kept = queue


def put_it(queue: Any) -> None:
    queue.put("from a task")


@pytest.mark.in_turn
@pytest.mark.parametrize("method", sampled("keys", multiprocessing.get_all_start_methods(), 1))
def test_children_have_the_key_of_the_handle_that_they_are_given(context: Any) -> None:
    with opened("queue") as queue:
        children = [context.Process(target=answer, args=(queue, number)) for number in range(3)]
        for child in children:
            child.start()
        for child in children:
            child.join(PATIENCE)
            assert child.exitcode == 0
        assert sorted(queue.get(timeout=PATIENCE) for _ in range(3)) == [0, 1, 2]
        with context.Pool(1, keep, (queue,)) as pool:
            pool.map(put_kept, range(3))
            pool.apply(put_it, (queue,))  # which the worker has open
            pool.close()
            pool.join()
        assert queue.get_many(timeout=PATIENCE) == [0, 1, 2, "from a task"]


@pytest.mark.in_turn
def test_with_the_key_of_multiprocessing_a_handle_goes_to_any_worker(context: Any) -> None:
    with opened("queue", multiprocessing.current_process().authkey) as queue, context.Pool(1) as pool:
        pool.apply(put_it, (queue,))
        assert queue.get(timeout=PATIENCE) == "from a task"


@pytest.mark.parametrize("maxsize", [0, 10])
def test_a_forked_child_goes_on_with_the_key(maxsize: int) -> None:
    with opened("queue", maxsize=maxsize) as queue:
        queue.put("before")
        pid = os.fork()
        if not pid:
            with contextlib.suppress(BaseException):
                queue.put((queue.get(), "after"))
                queue._engine.close()
                os._exit(0)
            os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0
        assert queue.get(timeout=PATIENCE) == ("before", "after")


# -- all the rest is as ever


@pytest.mark.in_turn
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 700), st.booleans()), max_size=60), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_items_of_any_sizes_come_in_order(
    tmp_path_factory: pytest.TempPathFactory, acts: list[tuple[int, int, bool]], bounded: bool
) -> None:
    path = str(tmp_path_factory.mktemp("any") / "queue")
    waiting: list[Any] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(supply, "FIRST_BYTES", 4096)
        patched.setattr(tqshim.engine.tuning, "FILE_BYTES", 8192)
        patched.setattr(tqshim.engine.tuning, "BLOCK_BYTES", 4096)
        patched.setattr(tqshim.engine.tuning, "LIMITS", (16, 64))
        with opened(path, maxsize=1000 if bounded else 0) as queue:
            for number, (count, size, large) in enumerate(acts):
                items = [bytes([number % 256]) * (size * (50 if large else 1)) for _ in range(count)]
                if count == 1:
                    queue.put(items[0])
                else:
                    queue.put_many(items)
                waiting += items
                if number % 3 == 2 and waiting:
                    assert queue.get() == waiting.pop(0)
            while waiting:
                assert queue.get(block=False) == waiting.pop(0)
            assert queue.empty()


@pytest.mark.in_turn
@pytest.mark.parametrize("count", [1, 2])
def test_records_that_just_fit_into_their_file_have_room_for_their_tags(count: int, checked: None) -> None:
    """Alone, or together; and such as just don't."""
    room = supply.FIRST_BYTES - index.data_begin(index.serial(1, 0))
    around = len(pickle.dumps(b"1" * 5000, 5)) - 5000 + TAG + CHECK
    for size in range(room // count - around - 10, room // count - around + 20):
        with opened(f"queue{size}") as queue:
            items = [os.urandom(size)] * count
            queue.put_many(items)
            assert queue.get_many() == items


@pytest.mark.parametrize("way", [get, get_many, claim])
def test_an_item_that_came_back_is_never_unpickled_if_others_have_changed_it(way: Any) -> None:
    """It was taken before, and found right; but not by the one that takes it next."""
    held = fill("queue", "one", KEY)
    with opened("queue") as queue:
        with pytest.raises(ZeroDivisionError), queue.claimed():
            raise ZeroDivisionError
    with View("queue") as view:
        (returned,) = view.follow().holds.returned
    forge_record(stand("queue", *returned.place), keyed=True)
    with opened("queue") as queue:
        got, errors = take(queue, way)
        assert got == [*held[1], *held[2]] and len(errors) == 1
    no_code_of_others()


def test_a_producer_killed_before_a_record_counts_leaves_nothing_of_it() -> None:
    """The bytes lie there with their tag, and no counter says so."""
    with opened("queue") as queue:
        queue.put("first")
        pid = os.fork()
        if not pid:
            queue.put("of the child")
            producer.Producer._commit = lambda *_: os._exit(9)  # type: ignore[assignment]
            with contextlib.suppress(BaseException):
                queue.put("never published")
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
        assert any(b"never published" in file.read_bytes() for file in Path("queue").glob("load_*"))
        queue.put("last")
        assert take(queue, get) == (["first", "of the child", "last"], [])


def test_a_queue_without_a_key_takes_no_longer_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """No HMAC is made, and ``hmac`` is not even imported."""
    program = (
        "import sys, tempfile; from tqshim import TurboQueue\n"
        "with tempfile.TemporaryDirectory() as folder, TurboQueue(path=f'{folder}/queue') as queue:\n"
        "    queue.put(1); queue.put_many([2] * 10); print(queue.get(), len(queue.get_many()), 'hmac' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout.split() == ["1", "10", "False"], done.stderr


# -- looking inside


def command(*words: str) -> int:
    return cli.main([*words])


def test_looks_need_the_key_where_they_unpickle(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = fill("queue", "one", KEY)
    assert command("peek", "queue") == 0
    assert command("peek", "queue", "--unpickle") == 2
    assert "TQSHIM_AUTHKEY" in capfd.readouterr().err
    with pytest.raises(ValueError, match="made with an authkey"):
        monitor.peek("queue", whole=True)
    monkeypatch.setenv("TQSHIM_AUTHKEY", "another")
    assert command("peek", "queue", "--unpickle") == 2
    assert "another authkey" in capfd.readouterr().err
    monkeypatch.setenv("TQSHIM_AUTHKEY", KEY.decode())
    assert command("peek", "queue", "-n", "2", "--unpickle") == 0
    assert capfd.readouterr().out.count("item ") == 2
    (first, second, third) = monitor.peek("queue", 3, whole=True, authkey=KEY)
    assert [pickle.loads(one.record or b"") for one in (first, second, third)] == [one[0] for one in held]
    assert [one.offset for one in (first, second, third)] == [one.offset for one in monitor.peek("queue", 3)]
    forge("queue", 1, keyed=True)
    assert command("peek", "queue", "-n", "3", "--unpickle") == 1
    assert "fails its HMAC" in capfd.readouterr().out
    no_code_of_others()


@pytest.mark.parametrize("shape", SHAPES)
def test_peeked_records_are_those_that_are_got(shape: str) -> None:
    (items,) = fill("queue", shape, KEY, count=1)
    peeked = list(monitor.peek("queue", 100, whole=True, authkey=KEY))
    assert [one.number for one in peeked] == list(range(len(items))) != []
    for one in peeked:
        assert pickle.loads(one.record or b"") == items[one.number]
        assert Path("queue", one.file).read_bytes()[one.offset : one.offset + one.size] == one.record


def test_check_with_the_key_finds_what_others_have_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill("queue", "many", KEY)
    forge("queue", 1, True, "many")
    (note,) = monitor.check("queue")
    assert note.level == "note" and "HMACs are not checked" in note.finding
    assert command("check", "queue") == 0
    monkeypatch.setenv("TQSHIM_AUTHKEY", KEY.decode())
    assert command("check", "queue") == 2
    assert "fails its HMAC" in capsys.readouterr().out
    (damage,) = monitor.check("queue", authkey=KEY)
    assert damage.level == "damage"
    with pytest.raises(ValueError, match="another authkey"):
        monitor.check("queue", authkey=b"another")
    fill("plain", "many", None)
    assert command("check", "plain") == 2  # a user with a key expects one
    assert "made without an authkey" in capsys.readouterr().err


@pytest.mark.parametrize("durable", [False, True])
def test_recover_copies_what_the_key_has_tagged(durable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    held = fill("queue", "many", KEY, durable=durable)
    forge("queue", 1, True, "many")
    assert command("recover", "queue", "--into", "copy") == 2  # without a key
    monkeypatch.setenv("TQSHIM_AUTHKEY", KEY.decode())
    assert command("recover", "queue", "--into", "copy") == 1
    status = monitor.status("copy")
    assert (status.keyed, status.durable, status.items) == (True, durable, 20)
    with opened("copy") as queue:
        assert queue.get_many() == [*held[0], *held[2]]
    no_code_of_others()


def test_recover_authenticates_nothing_without_the_journal() -> None:
    fill("queue", "one", KEY)
    for journal in Path("queue").glob("journal_*"):
        os.truncate(journal, 40)
    with pytest.raises(FolderError, match="nothing can be authenticated"):
        monitor.recover("queue", "copy", authkey=KEY)
    assert not os.path.exists("copy")
    assert monitor.recover("queue", "copy").copied == 3
    with pytest.raises(ValueError, match="made without an authkey"):
        TurboQueue(path="copy", authkey=KEY)


def test_drain_and_fill_use_the_key(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    held = fill("queue", "one", KEY)
    assert command("drain", "queue") == 2
    monkeypatch.setenv("TQSHIM_AUTHKEY", KEY.decode())
    forge("queue", 1, keyed=True)
    capfd.readouterr()
    assert command("drain", "queue") == 1  # one is lost
    said = capfd.readouterr()
    assert [json.loads(line) for line in said.out.splitlines()] == [*held[0], *held[2]]
    assert "fails its HMAC" in said.err
    no_code_of_others()
    with open("lines", "w") as lines:
        lines.write('"a line"\n')
    with open("lines") as lines:
        monkeypatch.setattr(sys, "stdin", lines)
        assert command("fill", "new") == 0
    with opened("new") as queue:
        assert queue.get() == "a line"
    assert monitor.fill("new", ['"another"'], authkey=KEY) == 1
    with pytest.raises(ValueError, match="made with an authkey"):
        monitor.fill("new", ['"another"'])
    assert monitor.drain("new", print, authkey=KEY).items == 1


def test_stat_says_that_there_is_a_key(capsys: pytest.CaptureFixture[str]) -> None:
    fill("queue", "one", KEY, durable=True)
    assert command("stat", "queue") == 0
    assert "at a path, durable, with an authkey" in capsys.readouterr().out


def test_a_tag_is_bound_to_all_that_it_is_made_of() -> None:
    key = Key(KEY, bytes(16))
    tags = {
        key.tag(FileId(member, serial), number, record)
        for member, serial, number in itertools.product((1, 11), (1, 11), (1, 11))
        for record in (b"", b"1", b"\0", b"1 ", b" 1")
    }
    assert len(tags) == 8 * 5
    assert Key(KEY, bytes(16)).proof == key.proof != Key(KEY).proof


@pytest.mark.parametrize("record", [b"", b"a record", bytes(100_000)])
def test_a_tag_is_the_hmac_that_others_make(record: bytes) -> None:
    nonce = bytes(range(16))
    key = Key(KEY, nonce)
    secret = hmac.digest(b"tqshim queue\0" + nonce, KEY, "sha256")
    assert key.proof == nonce + hmac.digest(secret, b"", "sha256")[:16]
    assert key.tag(FileId(3, 77), 12, record) == hmac.digest(secret, b"3 77 12\0" + record, "sha256")
    assert key.opened(FileId(3, 77), 12, record + key.tag(FileId(3, 77), 12, record)) == record
