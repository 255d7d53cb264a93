"""A queue with a key: what nobody with that key has written is never unpickled.

Somebody who can write to the folder, and knows all but the key, makes blocks whose checks are right; unpickling them
would leave a mark.  The same is done to a queue without a key, where it does: the attack is one.
"""

from __future__ import annotations

import contextlib
import gc
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
from typing import Any, Optional

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from programs.things import Array

import tqshim.tuning
from tqshim import (
    CorruptBatchError,
    Empty,
    FolderError,
    JoinableTurboQueue,
    TurboQueue,
    blocks,
    cli,
    events,
    monitor,
    names,
    queues,
    waiting,
)
from tqshim.engine import DurableEngine, DurableKeyedEngine, Engine, KeyedEngine
from tqshim.extents import Block
from tqshim.folder import Folder
from tqshim.keys import Key
from tqshim.ledger import Ledger
from tqshim.monitor import looking
from tqshim.names import FileId

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
    monkeypatch.setattr(blocks, "GIANT", GIANT)


SHAPES: dict[str, Callable[[int], list[Any]]] = {
    "one small": lambda number: [str(number).ljust(40)],
    "one": lambda number: [str(number).ljust(200)],
    "many": lambda number: [str(10 * number + one).ljust(40) for one in range(10)],
    "large": lambda number: [bytes([number]) * 600_000],
    "buffer": lambda number: [["beside", Array(bytearray([number]) * 700_000)]],
    "giant": lambda number: [bytes([number]) * GIANT],
}
"""What is put as one block."""


def fill(path: str, shape: str, authkey: Optional[bytes], count: int = 3, **options: Any) -> list[list[Any]]:
    """A queue with so many blocks of that shape, which nobody has open; returns what each holds."""
    held = [SHAPES[shape](number) for number in range(count)]
    queue = TurboQueue(path=path, authkey=authkey, **options)
    for items in held:
        queue.put_many(items)
        queue._engine.flush()
    queue._engine.close()
    return held


def places(path: str) -> list[tuple[Path, Block]]:
    """Where the blocks of a queue stand."""
    with looking.View(path) as view:
        return [(Path(path, names.batch(names.READY, block.file)), block) for block in view.follow().parts(0, 1 << 40)]


def read(path: Path, block: Block) -> bytes:
    data = path.read_bytes()
    start = block.offset * events.UNIT
    return data[start : start + block.units * events.UNIT] if block.units else data


def write(path: Path, block: Block, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(block.offset * events.UNIT)
        file.write(data)


def records_of(data: bytes, block: Block) -> list[bytes]:
    if not block.units:
        length = int.from_bytes(data[:8], "little")
        return [data[blocks.GIANT_HEADER : blocks.GIANT_HEADER + length]]
    count = block.end - block.first
    ends = blocks.index(data, count)
    body = data[4 + 4 * count :]
    return [body[start:end] for start, end in zip((0, *ends), ends)]


def made_of(records: list[bytes], block: Block, tag: bytes) -> bytes:
    """A block of these records, with its check as it must be, and that tag."""
    seed = blocks.seed(block.file, block.offset)
    if block.units:
        return blocks.join(records, seed) + tag
    return b"".join(blocks.join_giant(records[0], seed)) + tag


def forge(path: str, at: int, keyed: bool) -> None:
    """Put pickles that leave a mark in the place of all records of that block, each as long as it was."""
    forge_block(*places(path)[at], keyed)


def forge_block(file: Path, block: Block, keyed: bool) -> None:
    data = read(file, block)
    mark = pickle.dumps(Marks(), 0)
    evil = [mark.ljust(len(record), b"\0") for record in records_of(data, block)]
    assert all(len(one) == len(other) for one, other in zip(evil, records_of(data, block)))
    forged = made_of(evil, block, data[-blocks.TAG :] if keyed else b"")
    assert len(forged) == len(data)
    write(file, block, forged)


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
    forge("queue", 1, keyed=False)
    with opened("queue", None) as queue, contextlib.suppress(FileExistsError):
        take(queue, get)
    assert os.path.exists("mark")


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("maxsize", [0, 100])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", SHAPES)
def test_what_others_have_written_is_never_unpickled(
    shape: str, way: str, maxsize: int, durable: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It is set aside with a reason and one warning, and all others arrive."""
    held = fill("queue", shape, KEY, maxsize=maxsize, durable=durable)
    forge("queue", 1, keyed=True)
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
    forge("queue", 20, keyed=True)
    with opened("queue") as queue:
        got = [queue.get() for _ in range(200)]
        assert queue._engine._lease is not None or not (tqshim.tuning.LEASES and waiting.barrier_works())
        rest, errors = take(queue, get)
        assert got + rest == [*itertools.chain(*held[:20], *held[21:])]
        assert errors
    no_code_of_others()


@pytest.mark.parametrize("shape", SHAPES)
def test_no_byte_can_be_changed(shape: str) -> None:
    """Of the records and of the tag, be the check right or not."""
    fill("queue", shape, KEY)
    file, block = places("queue")[1]
    data = read(file, block)
    key = Key(KEY, proof("queue")[:16])
    with open(file, "r+b") as changed:
        assert key.load(changed.fileno(), block)
        step = max(1, len(data) // 50)
        for at in {*range(0, len(data), step), len(data) - 1, len(data) - blocks.TAG}:
            for again in (False, True):
                other = bytearray(data)
                other[at] ^= 1
                if again:
                    with contextlib.suppress(ValueError):
                        records = records_of(bytes(other), block)
                        other[: -blocks.TAG] = made_of(records, block, b"")
                write(file, block, bytes(other))
                if other != data:
                    with pytest.raises(ValueError):
                        key.load(changed.fileno(), block)


def proof(path: str) -> bytes:
    with looking.View(path) as view:
        return view.follow().proof


def test_no_block_can_be_taken_for_one_of_fewer_records() -> None:
    """How many it has is told by an event, which others may write."""
    fill("queue", "many", KEY)
    file, block = places("queue")[0]
    key = Key(KEY, proof("queue")[:16])
    data = read(file, block)
    body, tag = data[: -blocks.TAG], data[-blocks.TAG :]
    fewer = block._replace(end=block.end - 1)
    with open(file, "rb") as there, pytest.raises(ValueError, match="HMAC"):
        key.load(there.fileno(), fewer)
    assert key.tag(block.file, block.offset, 10, body) == tag != key.tag(block.file, block.offset, 9, body)


# -- where it belongs


def moved(data: bytes, to: Block) -> bytes:
    """A block's bytes as they must be elsewhere, but for the tag."""
    return made_of(records_of(data, to), to, data[-blocks.TAG :])


@pytest.mark.parametrize("shape", SHAPES)
def test_a_block_that_was_moved_to_another_place_fails(shape: str) -> None:
    """Two blocks of one producer change places; giants and large ones may lie in two files, others in one."""
    held = fill("queue", shape, KEY, count=4)
    found = places("queue")
    data = [read(*one) for one in found]
    for to, other in ((1, 2), (2, 1)):
        write(*found[to], moved(data[other], found[to][1]))
    with opened("queue") as queue:
        got, errors = take(queue, get)
    assert got == [*held[0], *held[3]] and errors


def test_a_block_of_another_producer_fails() -> None:
    """At the same offset, in a file of another name."""
    for number in range(2):
        with opened("queue") as queue:
            queue.put(f"of producer {number}".ljust(100))
    (first, one), (second, other) = places("queue")
    assert one.offset == other.offset and first != second
    write(second, other, moved(read(first, one), other))
    with opened("queue") as queue:
        got, errors = take(queue, get)
    assert got == ["of producer 0".ljust(100)] and len(errors) == 1


def test_a_block_fails_in_another_place_where_its_check_is_right() -> None:
    """A check begins with where the block belongs, but it has 32 bits: it begins alike in other places."""
    found = 0
    for count in range(3, 12):
        path = f"queue{count}"
        for items in (count, 1):
            with opened(path) as queue:
                for _ in range(items):
                    queue.put("of one length")
                    queue._engine.flush()
        *others, (file, block) = places(path)
        for theirs, other in others:
            if blocks.seed(*other[2:4]) == blocks.seed(*block[2:4]):
                found += 1
                write(file, block, read(theirs, other))
                with opened(path) as queue:
                    got, errors = take(queue, get)
                assert len(got) == count and len(errors) == 1
    assert found


@pytest.mark.parametrize("shape", SHAPES)
def test_a_block_of_another_queue_with_the_same_key_fails(shape: str) -> None:
    """At the very same place: each queue has something of its own in its tags."""
    fill("other", shape, KEY)
    held = fill("queue", shape, KEY)
    (theirs, there), (ours, here) = places("other")[1], places("queue")[1]
    assert there == here and theirs.name == ours.name
    write(ours, here, read(theirs, there))
    with opened("queue") as queue:
        got, errors = take(queue, get)
    assert got == [*held[0], *held[2]] and errors


def test_what_is_read_does_not_change_any_more() -> None:
    """A large record is not unpickled from its file, where others may write once its tag was found right."""
    held = fill("queue", "large", KEY)
    with opened("queue") as queue:
        got: list[Any] = []
        file, block = places("queue")[0]
        with open(file, "r+b") as changed:
            queue._engine.get(got, 1, False, None)
            changed.write(b"\xff" * block.units * events.UNIT)
        assert queues._load(got[0]) == held[0][0]


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


# -- what it does not guard: as the README says


def test_what_the_journal_says_is_not_guarded() -> None:
    """Others write that somebody has come and taken an item: it is gone."""
    held = fill("queue", "one", KEY)
    with open(max(Path("queue").glob("journal_*")), "ab") as journal:
        journal.write(events.join(True) + events.claim(0))
    with opened("queue") as queue:
        assert take(queue, get) == ([*held[1], *held[2]], [])


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


def kinds(*handles: Any) -> list[type]:
    return [type(handle._engine) for handle in handles]


@pytest.mark.parametrize("key", [b"", "text", bytearray(b"bytes"), 5])
def test_a_key_is_bytes_and_some(key: Any) -> None:
    with pytest.raises(ValueError, match="bytes, one at least"):
        TurboQueue(path="queue", authkey=key)
    assert not os.path.exists("queue")


def test_a_queue_without_a_path_has_no_key() -> None:
    with pytest.raises(ValueError, match="needs a path"):
        TurboQueue(authkey=KEY)


@pytest.mark.parametrize("durable", [False, True])
def test_a_key_is_a_property_of_the_queue(durable: bool, many_rolls: None) -> None:
    """Who opens it must have the same, as long as it is there; who opens one without must have none."""
    kind = DurableKeyedEngine if durable else KeyedEngine
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
        assert kinds(first, TurboQueue(path="queue", authkey=KEY)) == [kind, kind]
        assert kinds(plain) == [DurableEngine if durable else Engine]
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
    for file in Path("queue").iterdir():
        assert KEY not in file.read_bytes()


def test_two_queues_with_one_key_have_different_proofs() -> None:
    fill("queue", "one", KEY)
    fill("other", "one", KEY)
    assert len({proof("queue"), proof("other"), b""}) == 3


def test_those_who_make_it_at_once_meet_in_one_queue() -> None:
    """One's journal becomes the queue's, and with it one's nonce."""
    limits = tqshim.tuning.LIMITS
    one = Folder.open("queue", 0, limits, False, Key(KEY).proof)
    late = Folder.open("queue", 0, limits, False, Key(KEY).proof)
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
    assert Ledger.load(of.snapshot()).proof == bytes(range(32))
    assert Ledger.snapshot_kind(of.snapshot()) == (True, bytes(range(32)))
    assert Ledger.snapshot_kind(Ledger().snapshot()) == (False, b"")


# -- handles travel


def test_a_pickled_handle_does_not_carry_the_key() -> None:
    with opened("queue") as queue:
        data = pickle.dumps(queue)
        assert KEY not in data
        assert kinds(pickle.loads(data)) == [KeyedEngine]  # this process uses the queue already
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
    assert type(queue._engine) is KeyedEngine
    queue.put(number)


def put_kept(number: int) -> None:
    _kept.put(number)


_kept: Any = None


def keep(queue: Any) -> None:
    global _kept
    _kept = queue


def put_it(queue: Any) -> None:
    queue.put("from a task")


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


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 700), st.booleans()), max_size=60), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_items_of_any_sizes_come_in_order(
    tmp_path_factory: pytest.TempPathFactory, acts: list[tuple[int, int, bool]], bounded: bool
) -> None:
    path = str(tmp_path_factory.mktemp("any") / "queue")
    waiting: list[Any] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(blocks, "GIANT", 20_000)
        patched.setattr(tqshim.tuning, "FILE_BYTES", 8192)
        patched.setattr(tqshim.tuning, "BLOCK_BYTES", 4096)
        patched.setattr(tqshim.tuning, "LIMITS", (16, 64))
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


@pytest.mark.parametrize("short", [GIANT - 100, GIANT - blocks.TAG - 30, GIANT - blocks.TAG, GIANT - 1, GIANT])
@pytest.mark.parametrize("count", [1, 2])
def test_sizes_just_below_a_giants_have_room_for_their_tag(short: int, count: int) -> None:
    """Alone, or together in one block."""
    items = [os.urandom(short // count)] * count
    with opened("queue") as queue:
        while len(pickle.dumps(items[0], 5)) * count + 4 * count > short:
            items = [items[0][:-1]] * count
        queue.put_many(items)
        assert queue.get_many() == items


@pytest.mark.parametrize("way", [get, get_many, claim])
def test_an_item_that_came_back_is_never_unpickled_if_others_have_changed_it(way: Any) -> None:
    """It was taken before, and found right; but not by whoever takes it next."""
    held = fill("queue", "one", KEY)
    with opened("queue") as queue:
        with pytest.raises(ZeroDivisionError), queue.claimed():
            raise ZeroDivisionError
    with looking.View("queue") as view:
        (returned,) = view.follow().returned
    forge_block(Path("queue", names.batch(names.READY, returned.block.file)), returned.block, keyed=True)
    with opened("queue") as queue:
        got, errors = take(queue, way)
        assert got == [*held[1], *held[2]] and len(errors) == 1
    no_code_of_others()


def test_a_producer_killed_between_write_and_publish_leaves_nothing_of_it() -> None:
    """The bytes lie there with their tag, and no event names them."""
    with opened("queue") as queue:
        queue.put("first")
        queue._engine.flush()
        pid = os.fork()
        if not pid:
            journal = queue._engine.journal.__class__
            queue.put("of the child")
            queue._engine.flush()
            journal.write = lambda *_: os._exit(9)
            with contextlib.suppress(BaseException):
                queue.put("never published")
                queue._engine.flush()
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
    for one in monitor.peek("queue", 100, whole=True, authkey=KEY):
        assert pickle.loads(one.record or b"") == items[one.number]
        assert Path("queue", one.file).read_bytes()[one.offset : one.offset + one.size] == one.record


def test_check_with_the_key_finds_what_others_have_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill("queue", "many", KEY)
    forge("queue", 1, keyed=True)
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
    assert command("check", "plain") == 2  # whoever has a key expects one
    assert "made without an authkey" in capsys.readouterr().err


@pytest.mark.parametrize("durable", [False, True])
def test_recover_copies_what_the_key_has_tagged(durable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    held = fill("queue", "many", KEY, durable=durable)
    forge("queue", 1, keyed=True)
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
        key.tag(FileId(member, serial), offset, count, body)
        for member, serial, offset, count in itertools.product((1, 11), (1, 11), (1, 11), (1, 11))
        for body in (b"", b"1", b"\0", b"1 ", b" 1")
    }
    assert len(tags) == 16 * 5
    assert Key(KEY, bytes(16)).proof == key.proof != Key(KEY).proof
