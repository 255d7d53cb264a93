"""Damage: whatever others have done to a queue's files, nothing hangs, and all that is whole arrives; where records
have checks, no item comes that was not put; a damaged file that is noticed is kept for a person to look at, with a
reason."""

from __future__ import annotations

import contextlib
import itertools
import logging
import mmap
import multiprocessing
import os
import pickle
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional, TypeVar

import pytest
from hypothesis import HealthCheck, assume, given, seed, settings
from hypothesis import strategies as st
from programs.crew import Crew
from sampling import SEED, examples

import tqshim.engine.reclaim
import tqshim.engine.tuning
import tqshim.storage.folder
import tqshim.storage.places
from compat.load import leave
from tqshim import CorruptBatchError, Empty, FolderError, Full, ShutDown, TurboQueue, monitor
from tqshim.protocol import index, names, snapshot

Test = TypeVar("Test", bound=Callable[..., Any])
PATIENCE = 60.0
RECORD = 40
"""Characters of an item: room for damage."""


def item(number: int) -> str:
    return f"{number} ".ljust(RECORD, ".")


def all_in_one_file(path: Path, count: int = 4) -> Path:
    """A queue with so many items, all in one batch file, which is returned."""
    queue = TurboQueue(path=str(path))
    for number in range(count):
        queue.put(item(number))
    queue._engine.close()
    (file,) = path.glob("ready_*")
    return file


def index_of(file: Path) -> Any:
    """Where its records begin; then, of each, where it ends.  What is stored there is in the file."""
    found = names.parse(file.name)
    assert found is not None
    with file.open("r+b") as there:
        whole = memoryview(mmap.mmap(there.fileno(), 0))
    return whole[: 8 * (index.capacity(found.numbers[1]) + 1)].cast("Q")


def flip(file: Path, at: int) -> None:
    """Have one bit there be another."""
    with file.open("r+b") as there:
        there.seek(at)
        (byte,) = there.read(1)
        there.seek(at)
        there.write(bytes([byte ^ 1]))


def drain(path: Path, most: int = 100) -> tuple[list[Any], list[CorruptBatchError]]:
    """All that can be got from there, and what damage was said on the way."""
    queue = TurboQueue(path=str(path))
    got: list[Any] = []
    errors: list[CorruptBatchError] = []
    for _ in range(most):
        try:
            got.append(queue.get(block=False))
        except Empty:
            break
        except CorruptBatchError as error:
            errors.append(error)
    else:
        pytest.fail("there is no end to it")
    queue.put("goes on")
    assert queue.get(timeout=PATIENCE) == "goes on"
    assert queue.empty()
    queue._engine.close()
    return got, errors


def test_damaged_file_is_set_aside_with_a_reason_and_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = all_in_one_file(tmp_path / "queue")
    whole = file.read_bytes()
    cut = whole[: index_of(file)[2] + 1]
    file.write_bytes(cut)
    with caplog.at_level(logging.WARNING, "tqshim"):
        got, errors = drain(tmp_path / "queue")
    assert got == [item(0), item(1)]
    assert len(errors) == 2
    aside = file.with_name(names.corrupt(file.name))
    assert aside.read_bytes() == cut
    assert not file.exists()
    assert all(error.path == str(aside) for error in errors)
    (record,) = caplog.records
    assert record.name == "tqshim" and file.name in record.getMessage()
    assert errors[0].finding in file.with_name(names.reason(file.name)).read_text()


def test_records_that_are_whole_arrive_from_a_file_that_was_set_aside(tmp_path: Path) -> None:
    file = all_in_one_file(tmp_path / "queue", 5)
    index_of(file)[0] = (1 << 64) - 1  # the first record begins behind the end of the file
    (damage,) = monitor.check(str(tmp_path / "queue"))
    assert (damage.level, damage.path) == ("damage", str(file)) and ": 1 items that nobody got" in damage.finding
    queue = TurboQueue(path=str(tmp_path / "queue"))
    with pytest.raises(CorruptBatchError, match="item 0 stands"):
        queue.get(timeout=PATIENCE)
    queue._engine.close()
    aside = names.corrupt(file.name)
    assert [(peeked.number, peeked.file, peeked.problem) for peeked in monitor.peek(str(tmp_path / "queue"), 9)] == [
        (number, aside, "") for number in range(1, 5)
    ]
    found = {os.path.basename(finding.path) for finding in monitor.check(str(tmp_path / "queue"))}
    assert found == {aside, names.reason(file.name)}, "no other item is missing"
    # Another process, which has never seen the file under its former name.
    program = "import sys; from tqshim import TurboQueue; print(TurboQueue(path=sys.argv[1]).get_many())"
    words = [sys.executable, "-c", program, str(tmp_path / "queue")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout.strip() == str([item(number) for number in range(1, 5)]), done.stderr


WORDS: dict[str, Callable[[Any], int]] = {
    "ones": lambda ends: (1 << 64) - 1,
    "nothing": lambda ends: 0,
    "in the index": lambda ends: 8,
    "behind the next": lambda ends: ends[3] + 1,
    "a byte off": lambda ends: ends[2] - 1,
}
"""What the third word may be instead."""


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("word", WORDS)
def test_a_damaged_word_of_the_index_costs_the_records_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, many: bool
) -> None:
    """The one before it and the one behind it; what then has bytes of another's fails its check."""
    monkeypatch.setattr(tqshim.engine.tuning, "CHECK_ALL", True)
    file = all_in_one_file(tmp_path / "queue", 5)
    ends = index_of(file)
    ends[2] = WORDS[word](ends)
    got, errors = drain_some(tmp_path / "queue", many)
    assert got == [item(0), item(3), item(4)]
    assert len(errors) == 2


@pytest.mark.parametrize("checked", [True, False])
def test_a_changed_byte_is_found_where_all_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checked: bool
) -> None:
    """By each consumer, whatever it checks itself: the file says that it can be."""
    with monkeypatch.context() as producers:
        producers.setattr(tqshim.engine.tuning, "CHECK_ALL", checked)
        file = all_in_one_file(tmp_path / "queue")
    flip(file, file.read_bytes().index(b"2 ...") + 4)
    got, errors = drain(tmp_path / "queue")
    if checked:
        assert got == [item(0), item(1), item(3)]
        assert [error.finding.partition(" of ")[0] for error in errors] == ["record 2"]
        assert "fails its check" in errors[0].finding
    else:
        assert got == [item(0), item(1), item(2).replace("2 ...", "2 ../"), item(3)] and not errors


def test_a_record_of_another_place_or_file_fails_its_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole as it is: a file system that has mixed up its blocks gives no item twice."""
    monkeypatch.setattr(tqshim.engine.tuning, "CHECK_ALL", True)
    path = tmp_path / "queue"
    first = all_in_one_file(path)
    second = TurboQueue(path=str(path))
    second.put_many([item(number) for number in range(4, 8)])
    second._engine.close()
    (other,) = set(path.glob("ready_*")) - {first}
    shutil.copyfile(first, other)
    ends = index_of(first)
    records = first.read_bytes()
    one, two = slice(ends[0], ends[1]), slice(ends[1], ends[2])
    first.write_bytes(records[: ends[0]] + records[two] + records[one] + records[ends[2] :])
    got, errors = drain(path)
    assert got == [item(2), item(3)]
    assert len(errors) == 6


def in_place_of(file: Path, make: Callable[[Path], object]) -> None:
    file.unlink()
    make(file)


def a_socket(file: Path) -> None:
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(file))


WAYS: dict[str, Callable[[Path], object]] = {
    "nothing": lambda file: None,
    "empty": lambda file: file.touch(),
    "folder": lambda file: file.mkdir(),
    "full folder": lambda file: (file / "inside").mkdir(parents=True),
    "fifo": lambda file: os.mkfifo(file),
    "socket": a_socket,
    "link": lambda file: file.symlink_to("/etc/passwd"),
    "link to itself": lambda file: file.symlink_to(file),
    "zeros": lambda file: file.write_bytes(bytes(1 << 16)),
    "ones": lambda file: file.write_bytes(b"\xff" * (1 << 16)),
}


@pytest.mark.parametrize("way", WAYS)
def test_whatever_stands_in_a_batch_files_place_the_others_items_arrive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    path = Path("queue")
    file = all_in_one_file(path)
    second = TurboQueue(path=str(path))
    second.put_many(["in another file"])
    second._engine.close()
    in_place_of(file, WAYS[way])
    got, errors = drain(path)
    assert got == ["in another file"]
    assert len(errors) == 4
    assert file.with_name(names.reason(file.name)).exists()
    if way != "nothing":
        assert os.path.lexists(file.with_name(names.corrupt(file.name)))


@pytest.mark.parametrize("way", ["folder", "full folder", "fifo", "socket", "link", "link to itself"])
def test_whatever_stands_in_the_next_journals_place_that_comes_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("queue")
    with TurboQueue(path=path) as queue:
        queue.put_many(range(10))
    WAYS[way](path / names.spare(1))
    with TurboQueue(path=path) as queue:
        for number in range(1000):
            queue.put(number + 10)
            with queue.claimed(timeout=PATIENCE) as found:
                assert found == number
        assert max(path.glob("journal_*")) != path / "journal_0"
        assert [queue.get(timeout=PATIENCE) for _ in range(10)] == list(range(1000, 1010))


@pytest.mark.parametrize("way", ["folder", "full folder", "fifo"])
def test_something_in_place_of_a_file_whose_items_were_got_stops_nobody(tmp_path: Path, way: str) -> None:
    """The one who deletes batch files finds it."""
    path = tmp_path / "queue"
    all_in_one_file(path)
    queue = TurboQueue(path=str(path))
    assert queue.get(timeout=PATIENCE) == item(0)
    (file,) = path.glob("ready_*")
    in_place_of(file, WAYS[way])
    assert [queue.get(timeout=PATIENCE) for _ in range(3)] == [item(1), item(2), item(3)]
    queue.put("goes on")
    assert queue.get(timeout=PATIENCE) == "goes on"
    queue._engine.close()
    assert not list(path.glob("ready_*"))


def test_damage_met_while_an_interrupted_get_is_made_good_reaches_the_next_get_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a put or a look, which are no business of that item's."""
    monkeypatch.setattr(tqshim.engine.tuning, "CHECK_ALL", True)
    path = tmp_path / "queue"
    file = all_in_one_file(path, 6)
    ends = index_of(file)
    for number in (1, 3):
        flip(file, ends[number] + 20)
    queue = TurboQueue(path=str(path))
    with pytest.raises(CorruptBatchError, match="where item 1 stands"):
        queue.get_many()
    assert queue.qsize() == 4
    queue.put("last")
    got: list[Any] = []
    errors = 0
    while len(got) < 5:
        try:
            got += queue.get_many(timeout=PATIENCE)
        except CorruptBatchError:
            errors += 1
    assert got == [item(0), item(2), item(4), item(5), "last"]
    assert errors == 1
    queue._engine.close()


def test_a_spill_folder_that_is_gone_costs_its_own_items_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spill = tmp_path / "spill"
    spill.mkdir()
    monkeypatch.setattr(tqshim.storage.places, "spill_root", lambda path: str(spill))
    queue = TurboQueue()
    monkeypatch.setattr(tqshim.storage.folder.LogFolder, "wants_spill", lambda self: True)
    queue.put("lost")
    monkeypatch.setattr(tqshim.storage.folder.LogFolder, "wants_spill", lambda self: False)
    (home,) = spill.iterdir()
    shutil.rmtree(home)
    with pytest.raises(CorruptBatchError, match="missing"):
        queue.get(timeout=PATIENCE)
    queue.close()


@pytest.mark.parametrize("name", ["cells", "members", "journal_0", "bell"])
@pytest.mark.parametrize("way", ["empty", "folder", "fifo", "socket", "link to itself"])
def test_something_in_place_of_a_queues_own_file_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, way: str
) -> None:
    """What a queue can't do without: where it is, what was found, what to do; the items stay."""
    monkeypatch.chdir(tmp_path)
    path = Path("queue")
    all_in_one_file(path, 1)
    bell_is_one = name == "bell" and way == "fifo"
    kept = path / "kept"
    if name != "bell":
        (path / name).rename(kept)
    WAYS[way](path / name)

    def use() -> None:
        queue = TurboQueue(path=str(path))
        try:
            assert queue.get(timeout=PATIENCE) == item(0)
            with contextlib.suppress(Empty):
                queue.get(timeout=0.01)
        finally:
            queue._engine.close()

    if bell_is_one or (name == "members" and way == "empty"):
        use()
        return
    with pytest.raises(OSError, match=name) as raised:
        use()
    assert isinstance(raised.value, FolderError)
    if name == "bell":
        return
    remove(path / name)
    kept.rename(path / name)
    use()


# --- fuzz ------------------------------------------------------------------------------------------------------------


class Whole:
    """A queue's folder as it was before damage, to be copied as often as wanted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.items = [*(f"{number}" for number in range(30)), *(("tuple", number) for number in range(30)), b"." * 3000]
        queue = TurboQueue(path=str(path))
        for item in self.items[:10]:
            queue.put(item)
        queue.put_many(self.items[10:40])
        queue._engine.close()
        other = TurboQueue(path=str(path))
        other.put_many(self.items[40:])
        assert other.get(timeout=PATIENCE) == self.items.pop(0)
        other._engine.close()
        self.files = {file.name: file.read_bytes() for file in path.iterdir()}
        self.batches = sorted(name for name in self.files if name.startswith("ready_"))
        (self.journal,) = (name for name in self.files if name.startswith("journal_"))
        assert len(self.batches) == 2

    def records(self, name: str) -> Iterator[tuple[Any, int]]:
        """The items of a batch file that nobody has got, and which of its records each is."""
        if name == self.batches[0]:
            return zip(self.items[:39], itertools.count(1))
        return zip(self.items[39:], itertools.count())

    def left(self, name: str, changed: bytes) -> list[Any]:
        """The items that still stand there as they were, with both their words of the index, in their order."""
        former = self.files[name]
        ends = memoryview(former)[: len(former) & -8].cast("Q")

        def is_left(number: int) -> bool:
            same = slice(8 * number, 8 * number + 16), slice(ends[number], ends[number + 1])
            return all(former[there] == changed[there] for there in same)

        return [item for item, number in self.records(name) if is_left(number)]

    def lay(self, changed: dict[str, Optional[bytes]]) -> None:
        """Its files as they were, but for these."""
        for name in os.listdir(self.path):
            if self.files.get(name) is None or not (self.path / name).is_file():
                remove(self.path / name)
        for name, data in {**self.files, **changed}.items():
            if data is None:
                remove(self.path / name)
            else:
                (self.path / name).write_bytes(data)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def whole_folder(folders: pytest.TempPathFactory, checked: bool) -> Whole:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tqshim.engine.tuning, "CHECK_ALL", checked)
        return Whole(folders.mktemp("damage") / "queue")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Each record's bytes are checked."""
    return whole_folder(tmp_path_factory, True)


@pytest.fixture(scope="module")
def unchecked(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """As users have it who have not asked for checks."""
    return whole_folder(tmp_path_factory, False)


def damage(chance: random.Random, data: bytes) -> bytes:
    """Bytes as some accident may have left them."""
    changed = bytearray(data)
    used = len(data.rstrip(b"\0")) + 64  # behind that there are zeros alone, which nobody reads
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(used)
        way = chance.choice(["flip", "cut", "write", "zero", "insert", "remove", "append"])
        if way == "flip":
            changed[at : at + 1] = (byte ^ 1 << chance.randrange(8) for byte in changed[at : at + 1])
        elif way == "cut":
            del changed[at:]
        elif way == "write":
            word = chance.choice([chance.randbytes(chance.randint(1, 16)), b"\xff" * 8, b"\x7f" + bytes(7)])
            changed[at : at + len(word)] = word
        elif way == "zero":
            length = chance.randint(1, 600)
            changed[at : at + length] = bytes(len(changed[at : at + length]))
        elif way == "insert":
            changed[at:at] = chance.randbytes(chance.randint(1, 16))
        elif way == "remove":
            del changed[at : at + chance.randint(1, 100)]
        else:
            changed += chance.randbytes(chance.randint(0, 100))
    return bytes(changed)


def damage_events(chance: random.Random, journal: bytes) -> bytes:
    """The journal with other events behind its beginning: the ones that stand there, elsewhere or changed."""
    begin = snapshot.size_of(journal)
    events = [journal[at : at + 8] for at in range(begin, len(journal), 8)]
    for _ in range(chance.randint(1, 3)):
        at, other = (chance.randrange(len(events)) for _ in range(2))
        way = chance.choice(["change", "drop", "exchange", "repeat", "replace"])
        if way == "change":
            events[at] = (int.from_bytes(events[at], "little") ^ 1 << chance.randrange(64)).to_bytes(8, "little")
        elif way == "drop" and len(events) > 1:
            del events[at]
        elif way == "exchange":
            events[at], events[other] = events[other], events[at]
        elif way == "repeat":
            events.insert(at, events[other])
        else:
            events[at] = events[other]
    return journal[:begin] + b"".join(events)


def put_back(found: list[Any], items: list[Any]) -> bool:
    """What was found is some of the items, in their order."""
    rest = iter(items)
    return all(any(type(one) is type(other) and one == other for other in rest) for one in found)


def fuzz(count: int) -> Callable[[Test], Test]:
    """Of a property: so many examples, others for each seed."""
    return lambda test: seed(SEED)(settings(max_examples=count, suppress_health_check=list(HealthCheck))(test))


CHANCES = st.randoms(use_true_random=False)
MANY = int(os.environ.get("TQSHIM_FUZZ", "20000"))


@pytest.mark.in_turn
@fuzz(examples(150))
@given(chance=CHANCES)
def test_damaged_batch_files_give_no_item_that_was_not_put(whole: Whole, chance: random.Random) -> None:
    check_damaged_batch_file(whole, chance)


@pytest.mark.stress
@pytest.mark.timeout(0)  # as long as TQSHIM_FUZZ says
@fuzz(MANY)
@given(chance=CHANCES)
def test_very_many_damaged_batch_files_give_no_item_that_was_not_put(whole: Whole, chance: random.Random) -> None:
    check_damaged_batch_file(whole, chance)


def check_damaged_batch_file(whole: Whole, chance: random.Random) -> None:
    name, other = chance.sample(whole.batches, 2)
    changed = damage(chance, whole.files[name])
    assume(changed != whole.files[name])
    whole.lay({name: changed})
    got, errors = drain_some(whole.path, chance.random() < 0.5)
    assert put_back(got, whole.items)
    assert put_back([item for item, _ in whole.records(other)], got)
    assert errors or len(got) == len(whole.items)


def drain_some(
    path: Path, many: bool, expected: type[Exception] = CorruptBatchError
) -> tuple[list[Any], list[Exception]]:
    """All that can be got from there, and what was raised meanwhile; then the queue goes on."""
    queue = TurboQueue(path=str(path))
    got: list[Any] = []
    errors: list[Exception] = []
    try:
        for _ in range(500):
            try:
                got += queue.get_many(False) if many else [queue.get(False)]
            except Empty:
                break
            except expected as error:
                errors.append(error)
        else:
            pytest.fail("there is no end to it")
        queue.put("goes on")
        assert queue.get(timeout=PATIENCE) == "goes on"
    finally:
        queue._engine.close()
    return got, errors


@fuzz(examples(150))
@given(chance=CHANCES)
def test_a_damaged_journal_gives_no_item_that_was_not_put(whole: Whole, chance: random.Random) -> None:
    """Which items come, and how often, is what the journal says, and it has no other witness; but each is one that was
    put.  Or the folder is refused."""
    check_damaged_journal(whole, chance)


@pytest.mark.stress
@pytest.mark.timeout(0)  # as long as TQSHIM_FUZZ says
@fuzz(MANY)
@given(chance=CHANCES)
def test_very_many_damaged_journals_give_no_item_that_was_not_put(whole: Whole, chance: random.Random) -> None:
    check_damaged_journal(whole, chance)


def check_damaged_journal(whole: Whole, chance: random.Random) -> None:
    way = chance.choice([damage, damage_events, damage_events])  # most of what the first one does is noticed at once
    whole.lay({whole.journal: way(chance, whole.files[whole.journal])})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tqshim.engine.tuning, "UNSEEN_PATIENCE", 0.02)
        got = drain_what_the_journal_says(whole)
    assert all(put_back([item], [*whole.items, "0", "goes on"]) for item in got)


def drain_what_the_journal_says(whole: Whole) -> list[Any]:
    """All that can be got there, until the journal is said to be damaged, or the queue to have ended."""
    got: list[Any] = []
    try:
        queue = TurboQueue(path=str(whole.path))
    except CorruptBatchError:
        return got
    try:
        for _ in range(SAID_MOST):
            try:
                got.append(queue.get(False))
            except (Empty, ShutDown):
                break
            except CorruptBatchError as error:
                if whole.journal in error.path:
                    break
        else:
            pytest.fail("there is no end to it")
        queue.put("goes on", timeout=0.01)
    except (CorruptBatchError, Full, ShutDown):
        pass
    finally:
        with contextlib.suppress(CorruptBatchError):
            queue._engine.close()
    return got


def check_unchecked_batch_file(unchecked: Whole, chance: random.Random) -> None:
    """An item whose bytes have changed comes changed, or can't be unpickled, which costs that item alone."""
    name, other = chance.sample(unchecked.batches, 2)
    changed = damage(chance, unchecked.files[name])
    unchecked.lay({name: changed})
    got, errors = drain_some(unchecked.path, chance.random() < 0.5, Exception)
    left = {name: unchecked.left(name, changed), other: unchecked.left(other, unchecked.files[other])}
    assert put_back([item for batch in unchecked.batches for item in left[batch]], got)
    gone = len(unchecked.items) - len(got)
    assert gone >= len(errors)
    if not any(isinstance(error, CorruptBatchError) for error in errors):  # which may stand for several items
        assert gone == len(errors)


KINDS: dict[str, Callable[[Whole, random.Random], None]] = {
    "batch file": check_unchecked_batch_file,
    "journal": check_damaged_journal,
}
"""What is damaged."""
SAID_MOST = 100_000
"""Items that a damaged journal may say there are, of which each that is missing is said: 2,088 were met."""
MOST_MEMORY = 4 << 30
"""Bytes: changed bytes may ask for more than a machine has."""
TOGETHER = 250


def damage_unchecked(unchecked: Whole, kind: str, numbers: range) -> None:
    """What a process does that others' bytes may end."""
    logging.disable(logging.WARNING)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    with contextlib.suppress(ValueError):  # on macOS a process has more than that
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, limits[1]))
    try:
        for number in numbers:
            try:
                KINDS[kind](unchecked, random.Random(f"{SEED} {kind} {number}"))
            except Exception as error:
                raise AssertionError(f"{kind} {number} of TQSHIM_SEED={SEED}") from error
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        logging.disable(logging.NOTSET)


def check_unchecked(unchecked: Whole, kind: str, numbers: range, crews: Callable[[str, int], Crew]) -> None:
    for at in range(0, len(numbers), TOGETHER):
        some = numbers[at : at + TOGETHER]
        try:
            crews("fork", 1).call(0, damage_unchecked, unchecked, kind, some)
        except EOFError:
            pytest.fail(f"it has ended the process: {kind}, one of {some} of TQSHIM_SEED={SEED}")


@pytest.mark.in_turn
@pytest.mark.parametrize("kind", KINDS)
def test_without_checks_damage_costs_what_stood_there_and_nothing_else(
    unchecked: Whole, kind: str, crews: Callable[[str, int], Crew]
) -> None:
    """Of a damaged batch file, items may come changed; of a journal, more often or not at all.  Nothing hangs, no
    process ends, the other file's items and the ones that stand where they stood arrive, and the queue goes on."""
    check_unchecked(unchecked, kind, range(examples(300)), crews)


@pytest.mark.stress
@pytest.mark.parametrize("part", range(5))
@pytest.mark.parametrize("kind", KINDS)
def test_without_checks_very_much_damage_costs_what_stood_there_and_nothing_else(
    unchecked: Whole, kind: str, part: int, crews: Callable[[str, int], Crew]
) -> None:
    count = MANY // (5 * len(KINDS))
    check_unchecked(unchecked, kind, range(part * count, (part + 1) * count), crews)


FIRST = st.sampled_from(
    [
        "load",
        "ready",
        "journal",
        "spare",
        "roll",
        "marker",
        "corrupt",
        "cells",
        "members",
        "bell",
        "space",
        "spill",
        "dead",
        "seal",
        "tqshim",
        "future",
    ]
)
LAST = st.one_of(st.text("0123456789abcdef_", max_size=12), st.text(max_size=6))
NAMES = st.builds("{}_{}".format, FIRST, LAST) | st.text(min_size=1, max_size=20) | st.just(".hidden")


@pytest.mark.in_turn
@fuzz(examples(150))
@given(names_=st.lists(NAMES, min_size=1, max_size=5, unique=True), data=st.data())
def test_foreign_names_stop_nobody(whole: Whole, names_: list[str], data: st.DataObject) -> None:
    """Whatever is called what: files, folders and FIFOs, of later versions, by mistake, or in the way."""
    whole.lay({})
    for name in names_:
        path = whole.path / name
        try:
            if os.path.lexists(path) or "/" in name or "\0" in name:
                continue
            WAYS[data.draw(st.sampled_from(["empty", "zeros", "folder", "full folder", "fifo", "link"]))](path)
        except (OSError, ValueError, UnicodeEncodeError):  # no name for a file
            continue
    taken = [name for name in os.listdir(whole.path) if re.fullmatch(r"journal_[1-9][0-9]*", name)]
    try:
        got, errors = drain_some(whole.path, data.draw(st.booleans()))
    except CorruptBatchError as error:
        assert any(name in str(error) for name in taken)  # a later journal: it decides, and is damaged
        return
    assert got == whole.items
    assert not errors


# --- clocks, pauses, leftovers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [-86400.0, -30.0, 30.0])
def test_a_step_of_the_clock_takes_no_queue_from_a_handle_on_its_way(
    step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A marker is young for a minute either way; a step of more than that shortens its life, and does no more."""
    queue = TurboQueue()
    queue.put("item")
    data = pickle.dumps(queue)
    path = queue._engine.folder.path
    monkeypatch.setattr(tqshim.storage.places, "wall", lambda: time.time() + step)
    queue.close()
    del queue
    TurboQueue().close()  # sweeps
    if abs(step) < tqshim.storage.places.MARKER_LIFE:
        assert pickle.loads(data).get(timeout=PATIENCE) == "item"
    else:
        with pytest.raises(FileNotFoundError, match="the queue is gone"):
            pickle.loads(data)
        assert not os.path.exists(path)


def test_waiting_does_not_ask_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = iter([1e9, 0.0] * 1000)
    monkeypatch.setattr(time, "time", lambda: next(steps))
    monkeypatch.setattr(tqshim.storage.places, "wall", lambda: next(steps))
    queue = TurboQueue(1)
    began = time.monotonic()
    with pytest.raises(Empty):
        queue.get(timeout=0.05)
    queue.put("item", timeout=PATIENCE)
    with pytest.raises(Full):
        queue.put("more", timeout=0.05)
    assert queue.get(timeout=PATIENCE) == "item"
    assert 0.1 <= time.monotonic() - began < PATIENCE
    queue.close()


@pytest.mark.parametrize("maxsize", [0, 50])
def test_suspended_processes_go_on_where_they_were(maxsize: int) -> None:
    """Stopped anywhere in a put or a get; meanwhile everybody else goes on."""
    fork = multiprocessing.get_context("fork")
    queue, results = TurboQueue(maxsize), TurboQueue()
    producer = fork.Process(target=_produce, args=(queue, 3000))
    consumer = fork.Process(target=_pass_on, args=(queue, results))
    for process in (producer, consumer):
        process.start()
    stops = 0
    got: list[int] = []
    while len(got) < 3000:
        if stops < 8 and len(got) >= 300 * stops:
            stopped = (producer, consumer)[stops % 2]
            if stopped.exitcode is None and stopped.pid is not None:
                os.kill(stopped.pid, signal.SIGSTOP)
                queue.qsize()
                with contextlib.suppress(Empty):  # whatever is there can be got, and no more is waited for
                    while True:
                        got.append(queue.get_nowait())
                os.kill(stopped.pid, signal.SIGCONT)
            stops += 1
        with contextlib.suppress(Empty):
            got.append(results.get(timeout=0.1))
    assert sorted(got) == list(range(3000))
    queue.put(None)
    for process in (producer, consumer):
        process.join(PATIENCE)
        assert process.exitcode == 0
    queue.close()
    results.close()


def _produce(queue: Any, count: int) -> None:
    for number in range(count):
        queue.put(number)


def _pass_on(queue: Any, results: Any) -> None:
    for item in iter(queue.get, None):
        results.put(item)


def scan(queue: Any) -> None:
    """As a waiter does once a second."""
    queue._engine.act(queue._engine.parts.reclaimer._scan)


def listing(queue: Any) -> Any:
    """Names that the next scan goes on with, or none."""
    return queue._engine.parts.reclaimer._listing


def check_leftovers(path: Path, count: int) -> None:
    """A waiter finds them."""
    queue = TurboQueue(path=str(path))
    queue.put("item")
    queue._engine.close()
    leave(path, count)
    queue = TurboQueue(path=str(path))
    assert queue.get(timeout=PATIENCE) == "item"
    until = time.monotonic() + PATIENCE
    while any(name.startswith("load_") for name in os.listdir(path)) and time.monotonic() < until:
        with contextlib.suppress(Empty):
            queue.get(timeout=0.1)
    queue.put("goes on")
    assert queue.get(timeout=PATIENCE) == "goes on"
    queue._engine.close()
    left = [name for name in os.listdir(path) if name.startswith(("load_", "ready_"))]
    assert left == [], len(left)


@pytest.mark.in_turn
def test_leftovers_are_found_and_removed(tmp_path: Path) -> None:
    check_leftovers(tmp_path / "queue", 5000)


def test_a_look_at_leftovers_takes_as_many_as_the_disk_deletes_in_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "queue"
    queue = TurboQueue(path=str(path))
    queue.put("item")
    leave(path, 5000)
    now = 0.0
    looked = []
    costs = [0.0, 0.0, 0.0, tqshim.engine.tuning.SCAN_LOOK / 250, 0.0, 10.0, 0.0]

    def batches(folder: Any, listed: list[str]) -> list[Any]:
        nonlocal now
        looked.append(len(listed))
        now += sum(costs[len(looked) - 1 : len(looked)]) * len(listed)
        return []

    monkeypatch.setattr(tqshim.engine.reclaim, "monotonic", lambda: now)
    monkeypatch.setattr(tqshim.storage.folder.LogFolder, "batches", batches)
    least, most = tqshim.engine.tuning.SCAN_NAMES_LEAST, tqshim.engine.tuning.SCAN_NAMES
    for _ in costs:
        scan(queue)
    assert looked == [least, 2 * least, 4 * least, 8 * least, 250, 500, least]
    for _ in range(10):
        queue._engine.parts.reclaimer._listing = iter(["load_0_0"] * 5000)
        scan(queue)
    assert looked[-1] == most


def test_a_look_at_very_many_leftovers_is_no_longer_than_at_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A waiter looks in between: it must not be kept from it.  What is to stay hides nothing."""
    path = tmp_path / "queue"
    monkeypatch.setattr(tqshim.engine.tuning, "SCAN_NAMES", 10)
    monkeypatch.setattr(tqshim.engine.tuning, "SCAN_NAMES_LEAST", 10)
    monkeypatch.setattr(tqshim.engine.tuning, "FILE_BYTES", 16)
    queue = TurboQueue(path=str(path))
    items = [(number, "." * 10_000) for number in range(40)]  # a file each
    for item in items:
        queue.put(item)
    queue._engine.close()
    queue = TurboQueue(path=str(path))
    kept = {file.name for file in path.glob("ready_*")}
    assert len(kept) > 30
    leave(path, 95)
    (path / "free_3_1").touch(0o600)
    (path / "roll_0_00000000aa").touch(0o600)
    former = len(os.listdir(path))
    turns = 0
    while len(os.listdir(path)) > former - 97:
        scan(queue)
        turns += 1
        assert former - len(os.listdir(path)) <= 10 * turns, "more at once"
        assert turns < 100, "some are never come to"
    assert {file.name for file in path.glob("ready_*")} == kept
    assert turns > 9
    descriptors = len(os.listdir("/dev/fd"))
    monkeypatch.setattr(tqshim.engine.tuning, "SCAN_NAMES", 3)
    monkeypatch.setattr(tqshim.engine.tuning, "SCAN_NAMES_LEAST", 3)
    scan(queue)
    while listing(queue) is None:
        scan(queue)
    assert [queue.get(timeout=PATIENCE) for _ in items] == items
    pid = os.fork()  # a child does not go on with the parent's listing, whose place in the folder both would move
    if not pid:
        queue.qsize()
        os._exit(listing(queue) is not None)
    assert os.waitpid(pid, 0)[1] == 0
    queue._engine.close()
    assert len(os.listdir("/dev/fd")) < descriptors


@pytest.mark.stress
def test_leftovers_by_the_hundred_thousand_are_found_and_removed(tmp_path: Path) -> None:
    """A hundredth of ten million: what it takes grows with their number, in time and in memory, and nothing else."""
    check_leftovers(tmp_path / "queue", 100_000)
