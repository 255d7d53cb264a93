"""Looking inside: what a look shows is true, looking changes nothing, and damage is named and never spreads."""

from __future__ import annotations

import base64
import contextlib
import json
import multiprocessing
import os
import pickle
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import claiming
from sampling import examples, sampled
from watching import newcomer

import tqshim
import tqshim.protocol.pieces
import tqshim.runtime.systems
import tqshim.storage.member_locks
import tqshim.storage.places
from tqshim import CorruptBatchError, FolderError, TurboQueue, monitor
from tqshim.cli import drain
from tqshim.cli import main as cli
from tqshim.engine import keys
from tqshim.engine.consumer import Consumer
from tqshim.monitor import looking, moving, view, watching
from tqshim.monitor.lines import looks_pickled
from tqshim.monitor.records import SeenBatch
from tqshim.protocol import events, index, names, snapshot
from tqshim.protocol.ledger import Ledger
from tqshim.protocol.names import FileId
from tqshim.storage.folder import LogFolder
from tqshim.storage.lock_owners import lock_owners
from tqshim.sync import cells as words_of
from tqshim.sync.cells import Cells

STRANGER = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
linux = pytest.mark.skipif(
    not os.path.isdir(f"{tqshim.runtime.systems.PROC}/self/fdinfo"), reason="only /proc tells who holds a folder"
)
LONG = 60.0


def filled(path: str, *items: Any, maxsize: int = 0) -> str:
    """A queue at a path, that nobody uses."""
    with TurboQueue(maxsize, path=path) as queue:
        queue.put_many(items)
    return path


def journal(path: str) -> str:
    """The file of the one journal there."""
    (name,) = [name for name in os.listdir(path) if name.startswith("journal_")]
    return os.path.join(path, name)


def batch_files(path: str) -> list[str]:
    return sorted(os.path.join(path, name) for name in os.listdir(path) if name.startswith(("load_", "ready_")))


def snapshot_of(path: str) -> dict[str, tuple[Any, ...]]:
    """All that can be told of a folder's files: names, contents, times of change, modes."""
    found: dict[str, tuple[Any, ...]] = {}
    for name in os.listdir(path):
        status = os.lstat(os.path.join(path, name))
        data = b""
        if stat.S_ISREG(status.st_mode):
            data = Path(path, name).read_bytes()
        found[name] = (status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, data)
    return found


def record_of(item: Any) -> bytes:
    """The bytes that an item is put as."""
    record = tqshim.queues.pickling.dumps(item)
    return b"".join(record.parts) if isinstance(record, tqshim.protocol.pieces.Pieces) else bytes(record)


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def levels(path: str) -> list[str]:
    return [one.level for one in monitor.check(path)]


def tqshim_command(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """``python -m tqshim``, in a process of its own."""
    command = [sys.executable, "-m", "tqshim", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=LONG, **more)


@contextlib.contextmanager
def busy(queue: Any, item: str = "an item") -> Iterator[None]:
    """Items rush through a queue, put by this process and got by another, which is there already.

    No more than 1 MB of them wait, however slow that is."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    consumer = context.Process(target=take_until_none, args=(queue, there))
    consumer.start()
    assert here.recv() == "here"
    ended, begun = threading.Event(), threading.Event()
    most = (1 << 20) // (len(item) + 1000)

    def put() -> None:
        number = 0
        while not ended.is_set():
            queue.put((number, item))
            number += 1
            begun.set()
            while number % 100 == 0 and queue.qsize() > most and not ended.is_set():
                ended.wait(0.001)
        queue.put(None)

    producer = threading.Thread(target=put)
    producer.start()
    try:
        assert begun.wait(LONG)
        yield
    finally:
        ended.set()
        producer.join(LONG)
        consumer.join(LONG)
        assert consumer.exitcode == 0


def take_until_none(queue: Any, connection: Any) -> None:
    """Get items, and see that none is missing."""
    connection.send("here")
    expected = 0
    while (item := queue.get(timeout=LONG)) is not None:
        if item[0] != expected:
            os._exit(3)
        expected += 1


def sleep_in_get(queue: Any, connection: Any) -> None:
    connection.send("here")
    connection.send(queue.get(timeout=LONG))


# -- looking


def test_status_says_what_is_there(path: str) -> None:
    with TurboQueue(10, path=path) as queue:
        queue.put_many(["a", "b", "c"])
        assert queue.get() == "a"
        found = monitor.status(path)
        assert (found.maxsize, found.items, found.put, found.got, found.places) == (10, 2, 3, 1, 8)
        assert (found.consumers, found.producers) == (1, 1)
        assert found.path == path and not found.anonymous and found.spill is None
        assert found.journal == 0 and 0 < found.journal_events <= found.journal_limit
        assert found.journal_bytes == os.stat(journal(path)).st_size
        assert found.batches == len(batch_files(path)) == 1
        assert found.bytes > 0 and found.disk_free > 0
        assert found.oldest_at_least is not None and 0 <= found.oldest_at_least < LONG
        assert 0 <= found.age < LONG


def test_members_are_those_that_hold_their_locks(path: str) -> None:
    with TurboQueue(path=path) as queue:
        queue.put(1)
        (member,) = monitor.status(path).members
        assert (member.role, member.state) == ("producer", "alive")
        assert member.process is not None and member.process.pid == os.getpid()


@pytest.mark.parametrize("method", ["spawn"])
def test_killed_member_is_dead_and_sleeping_one_waits(path: str, context: Any) -> None:
    with TurboQueue(path=path) as queue:
        here, there = context.Pipe()
        process = context.Process(target=sleep_in_get, args=(queue, there))
        process.start()
        assert here.recv() == "here"
        # Now and then it is awake, to look by itself.
        eventually(lambda: monitor.status(path).waiting_consumers == 1)
        eventually(lambda: [one.waits for one in monitor.status(path).members] == [True])
        eventually(lambda: monitor.stats(queue).waiting_consumers == 1)
        (member,) = monitor.status(path).members
        assert (member.role, member.state) == ("consumer", "alive")
        assert member.process is not None and member.process.pid == process.pid
        process.kill()
        process.join()
        (member,) = monitor.status(path).members
        assert (member.state, member.process, member.waits) == ("dead", None, False)
        assert "note" in levels(path)


def test_looking_does_not_cost_the_locks_of_this_process(path: str) -> None:
    """Closing any descriptor of a file drops a process's record locks on it."""
    with TurboQueue(path=path) as queue:
        before = monitor.status(path)
        assert before.members == []
        queue.put(1)
        for _ in range(3):
            monitor.status(path)
        program = "import sys; from tqshim import monitor; print(monitor.status(sys.argv[1]).members[0].state)"
        done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, timeout=LONG)
        assert done.stdout == "alive\n", done.stderr


def test_lock_owners_keeps_no_file_of_a_queue_that_is_gone(tmp_path: Path) -> None:
    def known() -> set[tuple[int, int]]:
        return set(tqshim.storage.member_locks.Members.opened)

    before = known()
    fds = len(os.listdir("/dev/fd"))
    for number in range(20):
        monitor.status(filled(str(tmp_path / str(number)), 1))
        monitor.remove(str(tmp_path / str(number)))
    assert len(known() - before) <= 1
    assert len(os.listdir("/dev/fd")) <= fds + 1


def test_a_folder_whose_inode_is_used_again_has_its_own_locks(tmp_path: Path) -> None:
    """As file systems do that keep their inodes in tables: the new folder would be known by the old one's file."""
    opened = tqshim.storage.member_locks.Members.opened
    for looked_first in (False, True):
        gone, path = (str(tmp_path / f"{name}-{looked_first}") for name in ("gone", "new"))
        monitor.status(filled(gone, 1))
        status = os.stat(gone)
        file = opened.pop((status.st_dev, status.st_ino))
        monitor.remove(gone)
        filled(path, 1)
        status = os.stat(path)
        opened[status.st_dev, status.st_ino] = file
        if looked_first:
            monitor.status(path)
            assert opened[status.st_dev, status.st_ino] is not file
        with TurboQueue(path=path) as queue:
            queue.put(2)
            program = "import sys; from tqshim import monitor; print(monitor.status(sys.argv[1]).members[-1].state)"
            done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, timeout=LONG)
            assert done.stdout == "alive\n", done.stderr


@pytest.mark.in_turn
def test_threads_use_one_queue_and_look_at_it_at_once(path: str) -> None:
    """Closing any descriptor of the members file drops the locks of all threads' handles."""
    filled(path)
    failures: list[BaseException] = []

    def work(act: Callable[[], Any]) -> None:
        try:
            for _ in range(60):
                act()
        except BaseException as error:
            failures.append(error)

    def use() -> None:
        with TurboQueue(path=path) as queue:
            queue.put(1)
            assert queue.get(timeout=LONG) == 1

    def make_and_look() -> None:
        with TurboQueue() as queue:
            queue.put(1)
            monitor.status(queue._engine.folder.path)  # type: ignore[union-attr]

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(act,)) for act in (use, use, make_and_look, make_and_look)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
    finally:
        sys.setswitchinterval(interval)
    assert failures == []


def test_looking_changes_nothing(path: str) -> None:
    filled(path, "a", "b", "c")
    before = snapshot_of(path)
    monitor.status(path)
    monitor.peek(path, 3, whole=True)
    assert monitor.check(path) == []
    list(monitor.watch(path, 0.01, 2))
    monitor.queues([path])
    assert snapshot_of(path) == before


def test_looking_works_on_files_that_can_only_be_read(path: str) -> None:
    filled(path, "a")
    for name in os.listdir(path):
        os.chmod(os.path.join(path, name), 0o400)
    assert monitor.status(path).items == 1
    assert [one.preview for one in monitor.peek(path)] == [record_of("a")]


@linux
def test_anonymous_queue_that_is_looked_at_goes_with_its_last_user() -> None:
    queue = TurboQueue()
    folder = queue._engine.folder.path  # type: ignore[union-attr]
    queue.put(1)
    with view.View(folder) as seen, monitor.Watch(folder) as watch:
        seen.follow()
        watch.look()
        queue.close()
        del queue
        assert not os.path.exists(folder)
        with pytest.raises(FileNotFoundError):
            watch.look()


def test_view_follows_rolls_and_starts_anew_where_it_lags(path: str, many_rolls: None, all_is_cut: None) -> None:
    with TurboQueue(path=path) as queue, view.View(path) as seen:
        for number in range(3000):
            queue.put(number)
            queue.get()
            if number % 1000 == 999 or (number < 1000 and number % 7 == 0):
                seen.look()
                assert (seen.put, seen.delivered, seen.waiting) == (number + 1, number + 1, 0)
        assert seen.journal.number > 3


def test_view_goes_to_a_sealed_journals_next_before_it_has_its_name(path: str) -> None:
    """A roller that was killed after the decision leaves the next journal under its other name."""
    filled(path, "a", "b")
    folder = LogFolder.meet(path)
    try:
        opened, begin = folder.open_newest()
        ledger = snapshot.load(begin)
        while chunk := opened.read(opened.start + ledger.position.index * 8, 4096):
            ledger.apply(chunk)
        for _ in range(ledger.position.limit - ledger.position.index):
            ledger.apply(events.claim(40))
            opened.append(events.claim(40))
        # 448 CLAIMs have emptied the queue: what counts is that the next journal is found.
        key = folder.prepare_roll(1, lambda limit: snapshot.dump(ledger, True, limit), ledger.next_limit)
        opened.append(events.seal(int(key, 16)))
        opened.close()
    finally:
        folder.close()
    before = snapshot_of(path)
    found = monitor.status(path)
    assert (found.journal, found.items, found.put) == (1, 0, 2)
    assert levels(path) in ([], ["leftover"])
    assert all("batch" in one.path or "ready" in one.path for one in monitor.check(path))
    assert snapshot_of(path) == before
    monitor.recover(path)
    with TurboQueue(path=path) as queue:
        assert queue.empty()
        queue.put("c")
        assert queue.get() == "c"


@pytest.mark.in_turn
@pytest.mark.parametrize("limits", sampled("looks", ["", "16 64"], 1))
def test_looks_at_a_queue_at_full_speed_are_never_wrong(
    path: str, limits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if limits:
        monkeypatch.setattr(tqshim.engine.tuning, "LIMITS", tuple(map(int, limits.split())))
    with TurboQueue(path=path) as queue, busy(queue):
        last = (0, 0)
        looks = moved = seen = 0
        deadline = time.monotonic() + LONG
        while looks < 20 or moved < 3 or not seen:
            assert time.monotonic() < deadline
            looks += 1
            found = monitor.status(path)
            moved += last[0] < found.put
            assert found.put >= found.got and found.items == found.put - found.got
            assert found.put >= last[0] and found.got >= last[1]
            last = found.put, found.got
            for one in monitor.peek(path, 5, whole=True):
                assert not one.problem, one
                assert one.record is not None
                assert pickle.loads(one.record) in ((one.number, "an item"), None)
                seen += 1
            assert {one.level for one in monitor.check(path)} <= {"note"}


def test_a_queue_that_vanishes_between_looks_is_not_found(path: str) -> None:
    filled(path, 1)
    with monitor.Watch(path) as watch:
        watch.look()
        monitor.remove(path)
        with pytest.raises(FileNotFoundError):
            watch.look()
        filled(path, 1, 2)
        with pytest.raises(FileNotFoundError, match="another queue"):
            watch.look()
    for function in (monitor.status, monitor.peek, monitor.check, monitor.recover, monitor.remove):
        with pytest.raises(FileNotFoundError):
            function(path + "-none")


@pytest.mark.parametrize("kind", ["empty", "foreign", "file"])
def test_what_is_no_queue_is_said_to_be_none(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "place"
    if kind == "file":
        place.write_text("no queue")
    else:
        place.mkdir()
        if kind == "foreign":
            (place / "letter.txt").write_text("dear")
    before = kind != "file" and snapshot_of(str(place))
    for function in (monitor.status, monitor.peek, monitor.check, monitor.recover, monitor.remove, monitor.Watch):
        with pytest.raises((FolderError, NotADirectoryError)):
            function(str(place))
    assert kind == "file" or snapshot_of(str(place)) == before


@as_root
def test_another_users_queue_is_refused_or_said_to_be_theirs(path: str) -> None:
    filled(path, "a")
    os.chown(path, STRANGER, -1)
    assert monitor.check(path)[0].level == "damage"  # its files are still ours
    assert monitor.status(path).items == 1  # root may read; nothing is unpickled
    assert cli.main(["peek", path, "--unpickle"]) == 2
    assert cli.main(["drain", path]) == 2
    assert cli.main(["rm", path]) == 2
    assert monitor.status(path).items == 1
    program = (
        "import locale, os, sys; from tqshim.cli import main; main.parser().parse_args(sys.argv[1:]); "  # which imports
        f"os.setgid({STRANGER}); os.setuid({STRANGER}); sys.exit(main.main(sys.argv[1:]))"
    )
    os.chown(path, 0, -1)
    done = subprocess.run([sys.executable, "-c", program, "stat", path], capture_output=True, text=True, timeout=LONG)
    assert done.returncode == 2
    assert "ermission denied" in done.stderr and "Traceback" not in done.stderr


def test_a_folder_that_others_may_write_to_is_damage_and_never_unpickled(path: str) -> None:
    filled(path, "a")
    os.chmod(path, 0o777)
    assert levels(path) == ["damage"]
    assert cli.main(["peek", path, "--unpickle"]) == 2
    assert monitor.peek(path)[0].size == len(record_of("a"))


def test_peek_shows_the_oldest_and_takes_nothing(path: str) -> None:
    with TurboQueue(path=path) as queue:
        queue.put_many(range(10))
        queue.put("b" * 10_000)
        assert queue.get() == 0
        found = monitor.peek(path, 100, whole=True)
        assert [pickle.loads(one.record or b"") for one in found] == [*range(1, 10), "b" * 10_000]
        assert [one.number for one in found] == [*range(1, 11)]
        assert all(one.preview == (one.record or b"")[: view.PREVIEW] for one in found)
        assert queue.qsize() == 10


def test_peek_of_a_lease_begins_where_its_holder_is(path: str) -> None:
    with TurboQueue(path=path) as queue:
        queue.put_many(range(1000))
        assert [queue.get() for _ in range(7)] == [*range(7)]
        (one,) = monitor.peek(path, 1, whole=True)
        assert one.number == 7 and pickle.loads(one.record or b"") == 7
        assert monitor.status(path).items == 993 == monitor.stats(queue).items


def test_peek_never_runs_code_unless_it_is_told_to(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    with TurboQueue(path=path) as queue:
        queue.put(Loud())
        assert cli.main(["peek", path]) == 0
        assert "loaded" not in capsys.readouterr().out
        assert cli.main(["peek", path, "--unpickle"]) == 0
        assert "loaded" in capsys.readouterr().out


class Loud:
    """Prints when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return print, ("loaded",)


def test_queues_lists_anonymous_ones_or_those_at_given_places(
    tmp_path: Path, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As ``ls`` lists what it is told to, and nothing else."""
    filled(path, 1, 2)
    queue = TurboQueue()
    queue.put(1)
    folder = queue._engine.folder.path  # type: ignore[union-attr]
    (given,) = monitor.queues([str(tmp_path)])
    assert (given.path, given.items, given.open_by) == (path, 2, [])
    assert cli.main(["ls", str(tmp_path)]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["path", path]
    found = {one.path: one for one in monitor.queues()}
    assert found[folder].items == 1 and found[folder].producers == 1
    if os.path.isdir(f"{tqshim.runtime.systems.PROC}/self/fdinfo"):
        assert [process.pid for process in found[folder].open_by] == [os.getpid()]
    with open(journal(path), "r+b") as file:
        file.truncate(7)
    (damaged,) = [one for one in monitor.queues([path]) if one.path == path]
    assert damaged.items is None and "too short" in damaged.problem


@linux
def test_queues_lists_a_queue_at_a_path_that_somebody_has_open(path: str) -> None:
    with TurboQueue(path=path):
        assert path in [one.path for one in monitor.queues()]
    filled(path)
    assert path not in [one.path for one in monitor.queues()]


def test_queues_with_spilled_batch_files_are_seen_whole(path: str, tmp_path: Path) -> None:
    filled(path, "a", "b")
    (tmp_path / "spilled").mkdir(0o700)
    os.symlink(tmp_path / "spilled", os.path.join(path, names.SPILL))
    (tmp_path / "spilled" / names.batch(names.LOAD, names.FileId(7, 3))).touch(0o600)
    found = monitor.status(path)
    assert (found.batches, found.spill) == (2, str(tmp_path / "spilled"))
    (leftover,) = monitor.check(path)
    assert leftover.level == "leftover" and leftover.path.endswith("spill/load_7_3")
    assert monitor.recover(path).removed == ["load_7_3"]
    (tmp_path / "spilled" / "letter").touch()
    (leftover,) = monitor.check(path)
    assert "no batch file" in leftover.finding
    os.rename(batch_files(path)[0], tmp_path / "spilled" / os.path.basename(batch_files(path)[0]))
    assert levels(path)[:2] == ["damage", "damage"]  # missing here, misplaced there


def test_a_queue_in_use_is_seen_without_proc(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere only its members' locks tell."""
    monkeypatch.setattr(looking, "users", dict)
    with TurboQueue(path=path) as queue:
        queue.put(1)
        with pytest.raises(FolderError, match=f"in use by process {os.getpid()}"):
            monitor.recover(path)
        with pytest.raises(FolderError, match="in use"):
            monitor.remove(path)


def test_a_queue_that_is_shut_down_says_so_and_takes_no_more(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    with TurboQueue(path=path) as queue:
        queue.put_many([1, 2])
        queue.shutdown()
    found = monitor.status(path)
    assert found.shut and (found.items, found.unfinished) == (2, 2)
    assert cli.main(["stat", path]) == 0
    assert "shut down" in capsys.readouterr().out
    with pytest.raises(tqshim.ShutDown):
        monitor.fill(path, ["3"])
    assert tqshim_command("fill", path, input="3\n").returncode == 1
    lines: list[str] = []
    assert monitor.drain(path, lines.append).items == 2
    assert levels(path) in ([], ["leftover"])


def test_a_peek_at_large_items_is_never_one_at_refilled_pages(path: str) -> None:
    with TurboQueue(path=path) as queue, busy(queue, "x" * 200_000):
        looks = seen = 0
        deadline = time.monotonic() + LONG
        while looks < 20 or not seen:
            assert time.monotonic() < deadline
            looks += 1
            for one in monitor.peek(path, 3, whole=True):
                assert not one.problem and one.record is not None
                assert (pickle.loads(one.record) or [one.number])[0] == one.number
                seen += 1
        assert {one.level for one in monitor.check(path)} <= {"note"}


def test_check_goes_on_while_items_are_put_and_got(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with TurboQueue(path=path) as queue:
        for number in range(5):
            queue.put(str(number) * 200_000)

        def open_batch(view: Any, file: Any) -> Any:
            for _ in range(5):
                queue.put(queue.get())
            raise FileNotFoundError

        monkeypatch.setattr(view.View, "open_batch", open_batch)
        assert {one.level for one in monitor.check(path)} <= {"note"}
        assert [queue.get()[0] for _ in range(5)] == list("01234")


# -- what is put and not cut


@pytest.fixture
def nobody_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody cuts because it is time to: only who gets, leaves, or counts off."""
    monkeypatch.setattr(tqshim.engine.tuning, "MARK_EVERY", 1 << 62)


KILLED = (
    "import os, signal, sys; from tqshim import TurboQueue; from tqshim.engine import tuning;"
    "tuning.MARK_EVERY = 1 << 62;"
    "queue = TurboQueue(path=sys.argv[1]); {};"
    "os.kill(os.getpid(), signal.SIGKILL)"
)


def killed_after(path: str, acts: str) -> str:
    """The queue at that path, whose one user has done this with it, and was killed."""
    done = subprocess.run([sys.executable, "-c", KILLED.format(acts), path], capture_output=True, timeout=LONG)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return path


def test_what_is_put_and_not_cut_is_seen_and_said(
    path: str, nobody_cuts: None, all_is_cut: None, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = TurboQueue(path=path), newcomer(path)
    first.put("a")
    second.put("b")
    first.put("c")
    with monitor.Watch(path) as watch:
        rates = watch.look()
        assert (rates.put, rates.got, rates.items) == (3, 0, 3)
    found = monitor.status(path)
    assert (found.items, found.put, found.got, found.unfinished, found.uncut) == (3, 3, 0, 3, 2)
    stats = first.stats()
    assert (stats.items, stats.put, stats.got, stats.unfinished) == (3, 3, 0, 3)
    assert stats.bytes == found.item_bytes == sum(map(len, map(record_of, "abc")))
    (summary,) = (one for one in monitor.queues([path]) if one.path == path)
    assert summary.items == 3
    peeked = monitor.peek(path, 9, whole=True)
    assert [(one.number, one.record, one.uncut) for one in peeked] == [
        (number, record_of(item), number > 0) for number, item in enumerate("acb")
    ], "by slot where nobody has decided their order; the second's batch file began behind the first item"
    assert [one.record for one in monitor.peek(path, 2, whole=True)] == [record_of("a"), record_of("c")]
    assert monitor.check(path) == []
    assert cli.main(["stat", path]) == cli.main(["peek", path, "-n", "2"]) == 0
    shown = capsys.readouterr().out
    assert "3 waiting, 2 of them not cut yet;" in shown and "item 1, not cut yet, " in shown
    assert first.get(timeout=LONG) == "a"
    first._engine.cut()
    second.put("d")
    found = monitor.status(path)
    assert (found.items, found.put, found.got, found.uncut) == (3, 4, 1, 1)
    peeked = monitor.peek(path, 9, whole=True)
    assert [(one.number, one.uncut) for one in peeked] == [(1, False), (2, False), (3, True)]
    assert {one.record for one in peeked[:2]} == {record_of("b"), record_of("c")}
    assert peeked[2].record == record_of("d")
    assert cli.main(["peek", path]) == 0
    assert "not cut" not in capsys.readouterr().out
    for one in (first, second):
        one.close()


@pytest.mark.parametrize("alone", [True, False])
def test_what_is_not_cut_in_a_bounded_queue_takes_places(
    path: str, nobody_cuts: None, alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tqshim.engine.tuning, "ALONE", alone)
    with TurboQueue(1000, path=path) as queue:
        for number in range(20):
            queue.put(number)
        found = monitor.status(path)
        assert found.uncut > 0 and (found.reserved > 0) == (not alone) and found.places is not None
        assert found.items == 20 and found.items + found.reserved + found.places == 1000


def test_what_a_killed_producer_had_put_and_nobody_cut_is_recovered(path: str) -> None:
    killed_after(path, "queue.put('a'); queue.put(['b']); queue.put('c' * 100_000)")
    found = monitor.status(path)
    assert found.uncut > 0 and (found.items, found.put) == (3, 3)
    assert {one.level for one in monitor.check(path)} == {"note"}
    before = snapshot_of(path)
    done = monitor.recover(path, path + "-saved")
    assert (done.copied, done.unreadable, done.guessed) == (3, [], False)
    assert snapshot_of(path) == before
    assert monitor.recover(path).removed == []
    for place in (path, path + "-saved"):
        with TurboQueue(path=place) as queue:
            assert queue.qsize() == 3
            assert [queue.get(timeout=LONG) for _ in range(3)] == ["a", ["b"], "c" * 100_000]


def test_what_is_not_cut_and_can_t_be_read_is_named(path: str) -> None:
    killed_after(path, "queue.put('a'); queue.put('b')")
    uncut = monitor.status(path).uncut
    os.unlink(batch_files(path)[0])
    peeked = monitor.peek(path, 9)
    assert [one.problem for one in peeked] == ["its batch file is missing"] * 2
    assert [one.uncut for one in peeked].count(True) == uncut > 0
    (damage,) = (one for one in monitor.check(path) if one.level == "damage")
    assert damage.finding == "is missing: 2 items that nobody got"
    done = monitor.recover(path, path + "-saved")
    assert (done.copied, len(done.unreadable)) == (0, 2)


def test_what_is_got_while_it_is_looked_for_is_left_out(
    path: str, nobody_cuts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TurboQueue(path=path) as queue:
        for number in range(3):
            queue.put(number)
        assert monitor.status(path).uncut > 0

        def open_batch(view: Any, file: Any) -> Any:
            assert [queue.get(timeout=LONG) for _ in range(queue.qsize())] in ([0, 1, 2], [])
            raise FileNotFoundError

        monkeypatch.setattr(view.View, "open_batch", open_batch)
        assert monitor.peek(path, 9) == []


def set_counter(path: str, count: int) -> None:
    with open(os.path.join(path, names.CELLS), "r+b") as file:
        file.seek(8 * Cells.place(words_of.COUNTER, 0))
        file.write(count.to_bytes(8, "little"))


def test_a_counter_beyond_what_its_file_can_hold_is_damage_and_makes_up_no_items(path: str) -> None:
    killed_after(path, "queue.put('a')")
    assert "damage" not in levels(path)
    set_counter(path, index.FIRST)
    assert not [one for one in monitor.check(path) if one.path.endswith(names.CELLS)]
    set_counter(path, index.FIRST + 1)
    (damage,) = (one for one in monitor.check(path) if one.path.endswith(names.CELLS))
    assert damage.level == "damage" and f"slot 0 has put {index.FIRST + 1} records" in damage.finding
    done = monitor.recover(path, path + "-saved")
    assert (done.copied, done.unreadable) == (0, [])


def test_a_counter_of_a_durable_queue_makes_no_items(path: str) -> None:
    killed_after(path, "queue.close(); queue = TurboQueue(path=sys.argv[1] + '-2', durable=True); queue.put('a')")
    path += "-2"
    assert (monitor.status(path).items, monitor.status(path).uncut) == (1, 0)
    set_counter(path, 100)
    assert (monitor.status(path).items, monitor.status(path).uncut) == (1, 0)
    assert [one.record for one in monitor.peek(path, 9, whole=True)] == [record_of("a")]


def test_a_batch_file_that_is_to_be_filled_and_has_no_index_is_damage(path: str) -> None:
    killed_after(path, "queue.put('a'); queue.get()")
    (file,) = batch_files(path)
    os.truncate(file, 100)
    (damage,) = (one for one in monitor.check(path) if one.level == "damage")
    assert damage.path == file and f"100 bytes can't hold the index of {index.FIRST} records" in damage.finding
    Path(path, "load_0_fff80").touch(0o600)
    notes = [one for one in monitor.check(path) if one.path.endswith("load_0_fff80")]
    assert [one.level for one in notes] == ["note"], "it may be just being made"


def test_the_oldest_item_s_age_is_not_that_of_its_batch_file(path: str, all_is_cut: None) -> None:
    """A store to mapped memory leaves no time behind; what the journal, or the file's seal, came after does."""
    with TurboQueue(path=path) as queue:
        queue.put_many(range(3))
        assert queue.get(timeout=LONG) == 0  # so that they are cut
        (file,) = batch_files(path)
        os.utime(file, (0, 0))
        age = monitor.status(path).oldest_at_least
        assert age is not None and age < LONG
        now = time.time()
        os.utime(journal(path), (now - 1000, now - 1000))
        age = monitor.status(path).oldest_at_least
        assert age is not None and 1000 <= age < 1000 + LONG


@pytest.mark.parametrize(("number", "version"), [("08", "0.1"), ("11", "0.2")])
def test_a_folder_of_a_former_format_is_refused_in_words(
    number: str, version: str, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    filled(path, "a")
    with open(journal(path), "r+b") as file:
        ours = file.read(8).removeprefix(b"tqshim").decode()
        file.seek(0)
        file.write(b"tqshim" + number.encode())
    before = snapshot_of(path)
    said = f"a journal of format {number}, an earlier version's; this version reads format {ours}: "
    said += f"python -m tqshim recover --into, of tqshim {version}, copies"
    for act in (
        lambda: monitor.status(path),
        lambda: monitor.peek(path),
        lambda: monitor.Watch(path),
        lambda: monitor.recover(path),
        lambda: monitor.recover(path, path + "-saved"),
        lambda: TurboQueue(path=path),
    ):
        with pytest.raises(FolderError) as caught:
            act()
        assert said in str(caught.value)
    assert not os.path.exists(path + "-saved"), "its batch files are not guessed at"
    assert [one.level for one in monitor.check(path) if said in one.finding] == ["damage"]
    assert [one.items for one in monitor.queues([path]) if one.path == path and said in one.problem] == [None]
    assert cli.main(["stat", path]) == 2
    assert said in capsys.readouterr().err
    assert snapshot_of(path) == before


# -- watching


def test_watch_counts_what_goes_by(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(watching, "monotonic", lambda: clock[0])
    with TurboQueue(50, path=path) as queue:
        queue.put_many(range(10))
        with monitor.Watch(path) as watch:
            clock[0] += 2
            rates = watch.look()
            assert (rates.put_rate, rates.got_rate, rates.items, rates.maxsize) == (0, 0, 10, 50)
            assert rates.oldest_at_least is not None and rates.oldest_at_least >= 2 and rates.oldest_at_most is None
            queue.put_many(range(20))
            assert len(queue.get_many(max_messages_to_get=10)) == 10
            clock[0] += 4
            rates = watch.look()
            assert (rates.put_rate, rates.got_rate, rates.items) == (5, 2.5, 20)
            # The oldest was put between the two looks.
            assert (rates.oldest_at_least, rates.oldest_at_most) == (0, 4)
            clock[0] += 1
            rates = watch.look()
            assert (rates.oldest_at_least, rates.oldest_at_most) == (1, 5)
            assert len(queue.get_many()) == 20
            rates = watch.look()
            assert (rates.oldest_at_least, rates.oldest_at_most) == (None, None)


def test_a_long_watch_remembers_little(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(watching, "monotonic", lambda: clock[0])
    monkeypatch.setattr(watching, "REMEMBERED", 16)
    with TurboQueue(path=path) as queue, monitor.Watch(path) as watch:
        for number in range(100):
            queue.put(number)
            clock[0] += 1
            rates = watch.look()
            assert len(watch._seen) <= 17
            assert rates.oldest_at_least is not None and rates.oldest_at_most is not None
            assert rates.oldest_at_least <= number <= rates.oldest_at_most


def test_a_look_costs_one_journal_at_most_however_far_it_lags(path: str, many_rolls: None) -> None:
    with TurboQueue(path=path) as queue, monitor.Watch(path) as watch:
        applied: list[int] = []
        whole = Ledger.apply

        def counting(self: Ledger, chunk: bytes) -> int:
            applied.append(len(chunk) // events.SIZE)
            return whole(self, chunk)

        for number in range(3000):
            queue.put(number)
            queue.get()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Ledger, "apply", counting)
            rates = watch.look()
        assert rates.put == 3000
        assert sum(applied) <= 2 * (64 + 512)


def test_stats_are_those_of_the_queue() -> None:
    queue: Any = TurboQueue(100)
    queue.put_many(["x" * 100] * 10)
    queue.get()
    found = queue.stats()
    assert isinstance(found, monitor.Stats) and found == monitor.stats(queue)
    assert (found.put, found.got, found.items, found.maxsize, found.unfinished) == (10, 1, 9, 100, 10)
    assert (found.consumers, found.producers, found.waiting_consumers, found.waiting_producers) == (1, 1, 0, 0)
    assert (found.held, found.returned, found.redelivered, found.corrupt) == (0, 0, 0, 0)
    assert found.bytes >= 1000
    queue.get_many()
    assert queue.stats().bytes == 0
    queue.close()
    for look in (queue.stats, lambda: monitor.stats(queue)):
        with pytest.raises(ValueError, match="closed"):
            look()


def test_stats_of_a_lease_that_goes_on_count_what_was_delivered() -> None:
    queue: Any = TurboQueue()
    queue.put_many(range(100))
    taken = [queue.get() for _ in range(40)]
    found = queue.stats()
    assert (found.put, found.got, found.items) == (100, len(taken), 60)


def raise_in(queue: Any) -> int:
    """A block that ends badly; how often its item had come back."""
    claim = queue.claimed(False)
    with contextlib.suppress(KeyError), claim:
        raise KeyError
    return claim.redelivered


def test_stats_count_each_time_an_item_is_taken_again(path: str, many_rolls: None) -> None:
    """However it is taken; over rolls, and for a process that comes later."""
    queue: Any = TurboQueue(path=path)
    queue.put_many([1, 2, 3])
    assert [raise_in(queue) for _ in range(4)] == [0, 1, 2, 3]
    found = queue.stats()
    assert (found.redelivered, found.returned, found.held, found.items, found.got) == (3, 1, 0, 3, 0)
    with queue.claimed() as item:
        found = queue.stats()
        assert (item, found.redelivered, found.returned, found.held, found.items, found.got) == (1, 4, 0, 1, 2, 0)
    assert raise_in(queue) == 0
    assert queue.get() == 2
    found = queue.stats()
    assert (found.redelivered, found.returned, found.held, found.items, found.got) == (5, 0, 0, 1, 2)
    for _ in range(300):  # so that journals roll
        queue.put(4)
        queue.get()
    queue.close()
    assert monitor.status(path).journal > 0
    with TurboQueue(path=path) as queue:
        assert queue.stats().redelivered == monitor.status(path).redelivered == 5
        with contextlib.suppress(KeyError), queue.claimed():
            raise KeyError
        with queue.claimed():
            assert queue.stats().redelivered == 6


@pytest.mark.parametrize("method", ["spawn"])
def test_stats_count_what_a_killed_process_had(context: Any) -> None:
    queue: Any = TurboQueue()
    queue.put("item")
    here, there = context.Pipe()
    process = context.Process(target=claiming.hold_for_ever, args=(queue, there))
    process.start()
    assert here.recv() == ("item", 0)
    found = queue.stats()
    assert (found.held, found.items, found.got, found.redelivered) == (1, 0, 0, 0)
    process.kill()
    process.join()
    assert queue.get(timeout=LONG) == "item"
    found = queue.stats()
    assert (found.held, found.items, found.got, found.redelivered) == (0, 0, 1, 1)


def test_stats_count_batch_files_that_were_found_damaged(path: str) -> None:
    """One that is cut short, one that is gone: each once, however often somebody comes upon it."""
    for number in range(3):
        filled(path, number, number)  # each begins a file of its own
    first, second, _ = batch_files(path)
    queue = TurboQueue(path=path)
    os.truncate(first, 1)
    os.unlink(second)
    assert queue.stats().corrupt == 0, "nobody has come upon it yet"
    wrong = 0
    while not queue.empty():
        try:
            queue.get_nowait()
        except tqshim.CorruptBatchError:
            wrong += 1
    assert wrong == 4
    found = queue.stats()
    assert (found.corrupt, found.put, found.got, found.items) == (2, 6, 6, 0)
    for name in os.listdir(path):
        if name.startswith("corrupt_"):
            os.unlink(os.path.join(path, name))
    assert queue.stats().corrupt == 0


def test_stats_are_those_of_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another thread does meanwhile is in none of the figures."""
    queue: Any = TurboQueue()
    queue.put(1)
    other = threading.Thread(target=queue.put_many, args=([2],))
    size = Consumer.size

    def meanwhile(self: Consumer) -> int:
        items = size(self)
        if not other.ident:
            other.start()
            other.join(0.2)  # it waits until the look is over
        return items

    monkeypatch.setattr(Consumer, "size", meanwhile)
    found = queue.stats()
    assert (found.put, found.got, found.items) == (1, 0, 1)
    other.join(LONG)
    assert queue.stats().put == 2


# -- checking


def test_a_sound_queue_is_sound_in_every_state(path: str, many_rolls: None) -> None:
    with TurboQueue(50, path=path) as queue:
        assert levels(path) == []
        for number in range(300):
            queue.put(number)
            if number % 7:
                queue.get()
            if number % 10 == 0:
                assert set(levels(path)) <= {"note"}
    assert set(levels(path)) <= {"leftover"}


def test_cells_whose_last_page_found_no_space_are_sound(path: str) -> None:
    """A full disk takes a part of a page; those before it serve, and the next is put behind it."""
    filled(path, 1)
    cells = os.path.join(path, names.CELLS)
    with open(cells, "ab") as file:
        file.write(bytes(words_of.PAGE // 2))
    assert levels(path) == []
    with TurboQueue(path=path) as queue:
        queue._engine.folder.grow_cells(2)
        assert os.stat(cells).st_size == words_of.PAGE * 5 // 2
        queue.put(2)
        assert queue.get_many() == [1, 2]
        assert levels(path) == []


DAMAGES: dict[str, Any] = {}


def damage(level: str) -> Any:
    """A kind of damage, and what ``check`` must call it."""

    def enter(function: Any) -> Any:
        DAMAGES[function.__name__] = function, level
        return function

    return enter


@damage("damage")
def truncated_journal(path: str) -> None:
    os.truncate(journal(path), 50)


@damage("damage")
def empty_journal(path: str) -> None:
    os.truncate(journal(path), 0)


@damage("damage")
def torn_event(path: str) -> None:
    with open(journal(path), "ab") as file:
        file.write(b"\x01\x00\x00")


@damage("damage")
def unknown_event(path: str) -> None:
    with open(journal(path), "ab") as file:
        file.write(b"\xee" + bytes(7))


@damage("damage")
def hole_in_the_journal(path: str) -> None:
    with open(journal(path), "ab") as file:
        file.write(bytes(8) + events.claim(1))


@damage("damage")
def journal_that_ends_in_zeros(path: str) -> None:
    with open(journal(path), "ab") as file:
        file.write(bytes(4096))


@damage("damage")
def journal_of_a_later_version(path: str) -> None:
    with open(journal(path), "r+b") as file:
        file.write(b"tqshim99")


@damage("damage")
def journal_that_claims_to_be_huge(path: str) -> None:
    with open(journal(path), "r+b") as file:
        file.seek(8)
        file.write(b"\xff" * 7 + b"\x0f")


@damage("damage")
def no_journal(path: str) -> None:
    os.unlink(journal(path))


@damage("damage")
def fifo_for_a_journal(path: str) -> None:
    name = journal(path)
    os.unlink(name)
    os.mkfifo(name, 0o600)


@damage("damage")
def missing_batch_file(path: str) -> None:
    os.unlink(batch_files(path)[0])


@damage("damage")
def cut_batch_file(path: str) -> None:
    os.truncate(batch_files(path)[0], 20)


@damage("damage")
def empty_batch_file(path: str) -> None:
    os.truncate(batch_files(path)[0], 0)


@damage("damage")
def garbled_batch_file(path: str) -> None:
    with open(batch_files(path)[0], "r+b") as file:
        file.write(b"\xff" * 8)


@damage("damage")
def folder_for_a_batch_file(path: str) -> None:
    name = batch_files(path)[0]
    os.unlink(name)
    os.mkdir(name)


@damage("damage")
def fifo_for_a_batch_file(path: str) -> None:
    name = batch_files(path)[0]
    os.unlink(name)
    os.mkfifo(name, 0o600)


@damage("damage")
def link_for_a_batch_file(path: str) -> None:
    name = batch_files(path)[0]
    os.rename(name, path + "-elsewhere")
    os.symlink(path + "-elsewhere", name)


@damage("damage")
def no_cells(path: str) -> None:
    os.unlink(os.path.join(path, names.CELLS))


@damage("damage")
def cut_cells(path: str) -> None:
    os.truncate(os.path.join(path, names.CELLS), 100)


@damage("damage")
def impossible_counter(path: str) -> None:
    set_counter(path, 1 << 40)


@damage("damage")
def no_members(path: str) -> None:
    os.unlink(os.path.join(path, names.MEMBERS))


@damage("damage")
def file_for_a_bell(path: str) -> None:
    Path(path, names.BELL).touch()


@damage("leftover")
def stranger(path: str) -> None:
    Path(path, "letter.txt").touch()


@damage("leftover")
def name_of_a_later_version(path: str) -> None:
    Path(path, "index_0").touch()


@damage("leftover")
def batch_file_of_nobody(path: str) -> None:
    Path(path, "ready_fff_2").touch()


@damage("leftover")
def old_roll(path: str) -> None:
    Path(path, "roll_0_0123456789").touch()


@damage("leftover")
def abandoned_roll(path: str) -> None:
    Path(path, "roll_1_0123456789").touch()


@damage("leftover")
def free_file_of_nobody(path: str) -> None:
    Path(path, "free_fff_1").touch()


@damage("leftover")
def old_marker(path: str) -> None:
    Path(path, "marker_0123456789abcdef").touch()
    os.utime(os.path.join(path, "marker_0123456789abcdef"), (0, 0))


@damage("leftover")
def what_was_set_aside(path: str) -> None:
    Path(path, "corrupt_ready_0_2").touch()


@pytest.mark.in_turn
@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_named_and_stops_no_command(path: str, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    filled(path, "a", ["b"], {"c": 1})
    function, level = DAMAGES[kind]
    function(path)
    before = snapshot_of(path)
    found = monitor.check(path)
    assert found and found[0].level == level, found
    assert all(one.path.startswith(path) and one.finding and one.remedy for one in found)
    assert cli.main(["check", path]) == {"damage": 2, "leftover": 1}[level]
    shown = capsys.readouterr().out
    assert all(one.path in shown and one.finding in shown for one in found)
    for words in (["stat", path], ["peek", path, "-n", "9"], ["watch", path, "--interval", "0.01", "--count", "1"]):
        assert cli.main(words) in (0, 1, 2)
    assert cli.main(["ls", path, "--json"]) == 0
    assert snapshot_of(path) == before
    capsys.readouterr()


SAVED: dict[str, Any] = {
    "missing_batch_file": [],
    "empty_batch_file": [],
    "cut_batch_file": [],
    "garbled_batch_file": [["b"], {"c": 1}],
    "folder_for_a_batch_file": [],
    "fifo_for_a_batch_file": [],
    "link_for_a_batch_file": [],
}


@pytest.mark.in_turn
@pytest.mark.parametrize("kind", DAMAGES)
def test_recover_saves_what_can_be_read_and_leaves_the_rest_alone(path: str, kind: str) -> None:
    filled(path, "a", ["b"], {"c": 1})
    DAMAGES[kind][0](path)
    before = snapshot_of(path)
    done = monitor.recover(path, path + "-saved")
    assert snapshot_of(path) == before
    expected = SAVED.get(kind, ["a", ["b"], {"c": 1}])
    assert done.copied == len(expected)
    assert len(done.unreadable) == (3 - len(expected) if not done.guessed else 0)
    with TurboQueue(path=path + "-saved") as queue:
        assert (queue.get_many() if expected else []) == expected
    assert levels(path + "-saved") in ([], ["leftover"])


@pytest.mark.in_turn
@pytest.mark.parametrize("kind", [kind for kind, (_, level) in DAMAGES.items() if level == "damage"])
def test_what_is_advised_helps(path: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where recover saves all nobody is told to delete anything or to go elsewhere; where it is advised it saves."""
    monkeypatch.setattr(tqshim.engine.tuning, "UNSEEN_PATIENCE", 0.1)  # nothing is being written
    filled(path, "a", ["b"], {"c": 1})
    DAMAGES[kind][0](path)
    advice = [one.remedy for one in monitor.check(path)]
    try:
        with TurboQueue(path=path) as queue:
            with contextlib.suppress(tqshim.Empty):
                queue.get_many(False)
            queue.put("x")
    except CorruptBatchError as error:
        advice.append(error.remedy if "journal" in str(error) else "")
    except FolderError as error:
        advice.append(error.remedy)
    told = " ".join(advice)
    assert "use another" not in told and "delete the folder" not in told
    if "recover" in told:
        assert SAVED.get(kind, "all"), told


@pytest.mark.parametrize("kind", ["no_journal", "empty_journal", "cut_journal"])
def test_a_journal_that_cant_be_read_is_told_with_the_way_to_its_items(path: str, kind: str) -> None:
    filled(path, "a")
    for name in os.listdir(path):
        if name.startswith("journal_"):
            file = os.path.join(path, name)
            os.unlink(file) if kind == "no_journal" else os.truncate(file, 0 if kind == "empty_journal" else 30)
    (found,) = [one for one in monitor.check(path) if one.level == "damage"]
    assert "recover --into" in found.remedy
    assert monitor.recover(path, path + "-saved").copied == 1


@pytest.mark.in_turn
@pytest.mark.parametrize("name", ["stat", "peek", "watch --count=1", "recover", "drain", "fill"])
def test_each_command_knows_a_queue_without_a_journal_from_no_queue(
    path: str, tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "members").touch()  # as a file of ours is called
    filled(path, "a")
    os.unlink(os.path.join(path, "journal_0"))
    assert cli.main([*name.split(), path]) == 2
    assert "recover --into" in capfd.readouterr().err
    assert monitor.recover(path, path + "-saved").copied == 1  # nobody has made it a new queue
    if name not in ("drain", "fill"):  # which are told by the engine
        assert cli.main([*name.split(), str(tmp_path)]) == 2
        assert "holds no queue; give the folder of a queue" in capfd.readouterr().err


def test_recover_of_what_is_no_queue_makes_none(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recover", str(tmp_path), "--into", f"{tmp_path}/saved"]) == 2
    assert "holds no queue; give the folder of a queue" in capfd.readouterr().err
    assert os.listdir(tmp_path) == []


def test_a_queue_without_a_journal_can_be_removed_and_no_other_folder(path: str, tmp_path: Path) -> None:
    filled(path, "a")
    os.unlink(os.path.join(path, "journal_0"))
    done = tqshim_command("rm", path)
    assert (done.returncode, done.stdout) == (0, f"removed {path}, and with it items that nobody could count\n")
    assert not os.path.exists(path)
    (tmp_path / "members").touch()
    with pytest.raises(FolderError, match="holds no queue"):
        monitor.remove(str(tmp_path))


def test_recover_says_what_is_lost_of_a_file_in_one_line(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    filled(path, *range(237))
    os.truncate(batch_files(path)[0], 100)
    assert cli.main(["recover", path, "--into", path + "-saved"]) == 1
    lost = [line for line in capsys.readouterr().out.splitlines() if line.startswith("lost: ")]
    assert len(lost) == 1 and "237 items, the first of them 0, in" in lost[0]


def test_recover_says_in_one_line_a_file_what_two_producers_lost(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whose items alternate: each put to a durable queue is cut at once."""
    with TurboQueue(path=path, durable=True) as one, newcomer(path) as other:
        for number in range(20):
            for queue in (one, other):
                queue.put(number)
    assert len(batch_files(path)) == 2
    for name in batch_files(path):
        os.truncate(name, 100)
    assert cli.main(["recover", path, "--into", path + "-saved"]) == 1
    lost = [line for line in capsys.readouterr().out.splitlines() if line.startswith("lost: ")]
    assert [re.sub(", in .*", "", line) for line in lost] == [
        "lost: 20 items, the first of them 0",
        "lost: 20 items, the first of them 1",
    ]


@pytest.mark.in_turn
@pytest.mark.parametrize("kind", [kind for kind, (_, level) in DAMAGES.items() if level == "damage"])
def test_who_has_recovered_into_a_new_folder_is_not_told_to_do_so(
    path: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    filled(path, "a", ["b"], {"c": 1})
    DAMAGES[kind][0](path)
    assert cli.main(["recover", path, "--into", path + "-saved"]) in (0, 1)
    told = capsys.readouterr().out
    assert "recover" not in told.replace(path, "") and "restore" not in told
    assert f"{path} stays as it was, damaged; rm deletes it" in told
    if kind == "folder_for_a_batch_file":
        with pytest.raises(FolderError, match=r"holds 'ready_.*no part of a queue; delete that first"):
            monitor.remove(path)
        os.rmdir(batch_files(path)[0])
    assert monitor.remove(path) in (0, 3, None)


def test_drain_says_what_is_lost_of_a_file_in_one_line(path: str) -> None:
    filled(path, *range(237))
    filled(path, "x")
    filled(path, "y")
    os.truncate(batch_files(path)[0], 100)
    os.truncate(batch_files(path)[2], 100)
    done = tqshim_command("drain", path)
    assert (done.returncode, done.stdout) == (1, '"x"\n')
    many, one = done.stderr.splitlines()
    assert re.match(f"python -m tqshim drain: lost: 237 items, the first: {path}/corrupt_ready_.*: 100 bytes ", many)
    assert re.match(f"python -m tqshim drain: lost: {path}/corrupt_ready_.*: 100 bytes ", one)


def test_stat_speaks_of_task_done_where_somebody_calls_it(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    for calls in (False, True):
        with tqshim.JoinableQueue(path=path) as queue:
            queue.put_many([1, 2])
            if calls:
                queue.task_done()
        assert cli.main(["stat", path]) == 0
        assert ("3 for which nobody has called task_done" in capsys.readouterr().out) is calls


@pytest.mark.parametrize("name", ["drain", "fill", "peek --unpickle"])
def test_a_queue_that_was_never_there_is_not_said_to_be_gone(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "tqshim-0123456789abcdef")
    assert cli.main([*name.split(), path]) == 2
    assert capfd.readouterr().err == f"python -m tqshim {name.split()[0]}: {path}: No such file or directory\n"


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "x", "1e30"])
def test_a_time_that_nobody_can_wait_is_refused(path: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["fill", path, f"--timeout={value}"])
    assert ended.value.code == 2 and not os.path.exists(path)
    assert capsys.readouterr().err.splitlines()[-1].startswith("python -m tqshim fill: error: argument --timeout: ")


def test_nobody_is_told_to_shut_a_folder_that_may_be_everybodys(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """``chmod 700`` for one such as the system's folder for temporary files."""
    (tmp_path / "members").touch()  # as a file of ours is called
    os.chmod(tmp_path, 0o1777)
    for words in (["check"], ["drain"], ["fill"], ["rm"], ["peek", "--unpickle"]):
        assert cli.main([*words, str(tmp_path)])
    shown = "".join(capfd.readouterr())
    assert "700" not in shown and "a folder of your own" in shown, shown


def test_an_empty_folder_of_one_s_own_is_said_to_hold_no_queue(path: str, capfd: pytest.CaptureFixture[str]) -> None:
    os.mkdir(path)
    for mode in (0o755, 0o700):
        os.chmod(path, mode)
        for words in (["drain"], ["peek", "--unpickle"]):
            assert cli.main([*words, path]) == 2
            told = f"python -m tqshim {words[0]}: {path}: holds no queue; give the folder of a queue\n"
            assert capfd.readouterr().err == told


@pytest.mark.parametrize("kind", [kind for kind, (_, level) in DAMAGES.items() if level == "leftover"])
def test_recover_in_place_removes_what_nobody_needs_and_no_item(path: str, kind: str) -> None:
    filled(path, "a", ["b"])
    DAMAGES[kind][0](path)
    done = monitor.recover(path)
    kept = kind in ("stranger", "name_of_a_later_version", "abandoned_roll", "what_was_set_aside")
    assert bool(done.removed) == (not kept)
    assert [one.level for one in done.left] == ["leftover"] * kept
    with TurboQueue(path=path) as queue:
        assert queue.get_many() == ["a", ["b"]]


@linux
def test_recover_refuses_a_queue_in_use_unless_forced(path: str) -> None:
    with TurboQueue(path=path) as queue:
        queue.put("a")
        for into in (None, path + "-saved"):
            with pytest.raises(FolderError, match=f"in use by process {os.getpid()}"):
                monitor.recover(path, into)
        assert not os.path.exists(path + "-saved")
        assert monitor.recover(path, path + "-saved", force=True).copied == 1
        assert monitor.recover(path, force=True).removed == []
        assert queue.get() == "a"
    with pytest.raises(FolderError, match="not empty"):
        monitor.recover(path, path + "-saved")


def test_recover_keeps_the_bound_and_the_items_that_nobody_got(path: str, many_rolls: None) -> None:
    with TurboQueue(300, path=path) as queue:
        for number in range(200):
            queue.put(number)
        for _ in range(120):
            queue.get()
    monitor.recover(path, path + "-saved")
    with TurboQueue(path=path + "-saved") as queue:
        assert queue._maxsize == 300
        assert queue.get_many() == [*range(120, 200)]


def laid(file: FileId, records: list[bytes], key: Any = None) -> bytes:
    """A batch file with these records."""
    begin = index.data_begin(file.serial)
    ends, body = [begin], b""
    for number, record in enumerate(records):
        body += record
        if key is not None:
            body += key.tag(file, number, record)
        if index.is_checked(file.serial):
            body += index.check(body[ends[-1] - begin :], file, number)
        ends.append(begin + len(body))
    words = b"".join(end.to_bytes(8, "little") for end in ends)
    return words.ljust(begin, b"\0") + body


def found_in(folder: Path, data: bytes, file: FileId) -> list[bytes]:
    """What ``recover`` finds in a file of these bytes, without a journal."""
    (folder / "file").write_bytes(data)
    try:
        batch = SeenBatch(os.open(folder / "file", os.O_RDONLY), file, "file")
    except ValueError:
        return []
    try:
        return [*moving.records_in(batch)]
    finally:
        batch.close()


@settings(max_examples=examples(100), deadline=None)
@given(
    items=st.lists(st.binary(max_size=300) | st.text(max_size=5) | st.none(), min_size=1, max_size=100),
    checked=st.booleans(),
    keyed=st.booleans(),
    padding=st.integers(0, 5000),
)
def test_records_are_found_without_a_journal(
    tmp_path_factory: pytest.TempPathFactory, items: list[Any], checked: bool, keyed: bool, padding: int
) -> None:
    folder = tmp_path_factory.mktemp("records")
    records = [record_of(item) for item in items]
    file = FileId(3, index.serial(1, 0, checked=checked))
    key = keys.Key(b"key", bytes(16)) if keyed else None
    data = laid(file, records, key)
    assert found_in(folder, data + bytes(padding), file) == records
    if checked:
        assert found_in(folder, data, FileId(3, index.serial(2, 0, checked=True))) == [], (
            "what a refilled file held under its former name"
        )


def test_a_record_whose_tag_ends_as_pickles_do_is_found_without_it(tmp_path: Path) -> None:
    file, key = FileId(3, index.serial(1, 0)), keys.Key(b"key", bytes(16))
    found = 0
    for number in range(1000):
        record = record_of(number)
        data = laid(file, [record], key)
        found += data.endswith(b".")
        if data.endswith(b".") or number < 3:
            assert found_in(tmp_path, data, file) == [record]
    assert found


@settings(max_examples=examples(200), deadline=None)
@given(data=st.binary(max_size=400), ends=st.lists(st.integers(0, 3000), max_size=20))
def test_what_is_found_in_garbage_looks_like_pickles(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, ends: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("garbage")
    file = FileId(3, index.serial(1, 0))
    words = b"".join(end.to_bytes(8, "little") for end in (index.data_begin(file.serial), *ends))
    for garbage in (data, words.ljust(index.data_begin(file.serial), b"\0") + data):
        assert all(map(looks_pickled, found_in(folder, garbage, file)))


@pytest.mark.in_turn
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_looks_at_a_damaged_journal_end(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever bytes stand in a journal: a look ends, with an answer or in words, and changes nothing."""
    path = filled(str(tmp_path_factory.mktemp("fuzz") / "queue"), *range(5))
    whole = bytearray(Path(journal(path)).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    del whole[data.draw(st.integers(len(whole) // 2, len(whole))) :]
    Path(journal(path)).write_bytes(whole)
    before = snapshot_of(path)
    for function in (monitor.status, monitor.peek, monitor.check):
        try:
            function(path)
        except FolderError as error:
            assert error.finding and error.remedy
    monitor.queues([path])
    assert snapshot_of(path) == before


# -- draining and filling


@pytest.mark.in_turn
@pytest.mark.parametrize("words", [[], ["--pickle"]])
def test_what_is_drained_fills_another(path: str, words: list[str]) -> None:
    items = [1, "two", [3, None, {"four": 5.5}], True, ""]
    filled(path, *items)
    lines = tqshim_command("drain", path, *words)
    assert (lines.returncode, lines.stderr) == (0, "")
    assert len(lines.stdout.splitlines()) == len(items)
    assert monitor.status(path).items == 0
    done = tqshim_command("fill", path + "-2", *words, "--json", input=lines.stdout)
    assert (done.returncode, json.loads(done.stdout)) == (0, {"put": len(items)})
    with TurboQueue(path=path + "-2") as queue:
        assert queue.get_many() == items


@pytest.mark.parametrize("bad", [(1, 2), {3: "x"}, {1, 2}, b"x", float("nan"), [[(1,)]], object])
def test_an_item_that_is_no_json_stays_at_the_head(path: str, bad: Any, capfd: pytest.CaptureFixture[str]) -> None:
    filled(path, "a", bad, "b")
    assert cli.main(["drain", path]) == 1
    shown = capfd.readouterr()
    assert shown.out == '"a"\n'
    assert "stays in the queue" in shown.err and "--pickle" in shown.err
    assert [one.record for one in monitor.peek(path, 9, whole=True)] == [record_of(bad), record_of("b")]
    assert cli.main(["drain", path, "--pickle"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines == [base64.b64encode(record_of(item)).decode() for item in (bad, "b")]


def test_lossy_draining_prints_tuples(path: str, capfd: pytest.CaptureFixture[str]) -> None:
    filled(path, (1, 2))
    assert cli.main(["drain", path, "--lossy"]) == 0
    assert capfd.readouterr().out == "[1,2]\n"


def test_an_item_that_cant_be_unpickled_stays(path: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert monitor.fill(path, [base64.b64encode(b"\x80\x04cno_such\nmodule\n.").decode()], decode=monitor.from_pickle)
    assert cli.main(["drain", path]) == 1
    assert "no_such" in capfd.readouterr().err
    assert monitor.status(path).items == 1


def test_draining_takes_no_more_than_it_is_told(path: str) -> None:
    filled(path, *range(600))
    lines: list[str] = []
    assert monitor.drain(path, lines.append, most=300).items == 300
    assert lines == [*map(str, range(300))]
    assert monitor.drain(path, lines.append).items == 300
    assert lines == [*map(str, range(600))]


def test_what_was_not_written_stays_in_its_place(path: str) -> None:
    filled(path, *range(10), maxsize=10)
    lines: list[str] = []

    def write(line: str) -> None:
        if len(lines) == 3:
            with TurboQueue(path=path) as queue:
                assert queue.qsize() == 6 and queue.full() is False
                queue.put_many(["x", "y", "z"], False)  # a producer is faster
            raise OSError("no space")
        lines.append(line)

    with pytest.raises(OSError, match="no space"):
        monitor.drain(path, write)
    with TurboQueue(path=path) as queue:
        assert [*map(int, lines), *queue.get_many()] == [*range(10), "x", "y", "z"]


def test_what_a_shut_down_queue_holds_stays_there_if_it_is_not_written(path: str) -> None:
    """Which takes nothing back that was got."""
    with TurboQueue(path=path) as queue:
        queue.put_many(range(3))
        queue.shutdown()

    def write(line: str) -> None:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        monitor.drain(path, write)
    lines: list[str] = []
    assert monitor.drain(path, lines.append).items == 3
    assert lines == ["0", "1", "2"]


def test_what_a_killed_drain_had_not_handed_on_comes_back(path: str) -> None:
    """At its place: one item, which may have been read."""
    filled(path, *range(9))
    with subprocess.Popen([sys.executable, "-m", "tqshim", "drain", path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"0\n"
        eventually(lambda: monitor.status(path).items == 7)  # one lies in the pipe
        process.kill()
        process.wait()
    lines: list[str] = []
    monitor.drain(path, lines.append)
    assert lines == [*map(str, range(1, 9))]


WAYS = [{}, {"TQSHIM_PORTABLE": "1"}]
"""Variables for a ``drain`` that may narrow the pipe to which it writes, and for one that may not."""


@pytest.mark.in_turn
@pytest.mark.parametrize("variables", WAYS, ids=["narrow", "portable"])
@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("size", [10, 5000])
def test_what_nobody_reads_on_stays_in_the_queue_in_its_order(
    path: str, count: int, size: int, variables: dict[str, str]
) -> None:
    """Not even what lies in the pipe when its reader goes is lost."""
    items = [f"{number:{size}}" for number in range(1000)]
    filled(path, *items)
    command = f"'{sys.executable}' -m tqshim drain '{path}' | head -n {count}"
    surroundings = {**os.environ, **variables}
    done = subprocess.run(command, shell=True, env=surroundings, capture_output=True, text=True, timeout=LONG)
    assert ([*map(json.loads, done.stdout.splitlines())], done.stderr) == (items[:count], "")
    with TurboQueue(path=path) as queue:
        assert queue.get_many() == items[count:]


@pytest.mark.in_turn
@pytest.mark.parametrize("variables", WAYS, ids=["narrow", "portable"])
def test_what_nobody_reads_on_stays_also_where_the_pipe_held_more_than_a_page(
    path: str, variables: dict[str, str]
) -> None:
    """Of another program's, which keeps it from being narrowed."""
    filled(path, *range(500))
    reading, writing = os.pipe()
    before = b"." * 9000
    assert os.write(writing, before) == len(before)
    program = [sys.executable, "-m", "tqshim", "drain", path]
    with subprocess.Popen(program, stdout=writing, env={**os.environ, **variables}) as process:
        os.close(writing)
        eventually(lambda: monitor.status(path).items < 500)  # it has begun
        with open(reading, "rb", buffering=0) as pipe:
            assert pipe.read(len(before)) == before
            assert [pipe.read(2) for _ in range(3)] == [b"0\n", b"1\n", b"2\n"]
        assert process.wait(LONG) == 141
    with TurboQueue(path=path) as queue:
        assert queue.get_many() == [*range(3, 500)]


def test_all_is_drained_through_a_pipe_that_held_more_than_a_page(path: str) -> None:
    filled(path, *range(500))
    command = f"head -c 9000 /dev/zero; '{sys.executable}' -m tqshim drain '{path}'"
    done = subprocess.run(command, shell=True, capture_output=True, timeout=LONG)
    assert done.stdout == bytes(9000) + b"".join(b"%d\n" % number for number in range(500))
    assert monitor.status(path).items == 0


def test_where_a_pipe_forgets_what_it_held_the_last_line_counts_as_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS: it may be printed twice, and is never lost."""
    monkeypatch.setattr(tqshim.runtime.systems, "SET_PIPE_SIZE", None)
    for forgets in (False, True):
        monkeypatch.setattr(tqshim.runtime.systems, "PIPES_FORGET", forgets)
        reading, writing = os.pipe()
        pipe = drain._Pipe(writing)
        os.close(reading)
        with pytest.raises(BrokenPipeError) if forgets else contextlib.nullcontext():
            pipe.wait()
        os.close(writing)


def test_draining_goes_on_behind_a_damaged_batch(path: str) -> None:
    filled(path, "a")
    filled(path, "b")
    filled(path, "c")
    os.truncate(batch_files(path)[1], 3)
    lines: list[str] = []
    done = monitor.drain(path, lines.append)
    assert lines == ['"a"', '"c"'] and done.items == 2
    (text,) = done.damaged
    assert "bytes can't hold the index" in text


def test_draining_into_a_closed_pipe_loses_nothing(path: str) -> None:
    filled(path, *("x" * 1000 for _ in range(2000)))
    program = [sys.executable, "-m", "tqshim", "drain", path]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        read = process.stdout.readline()
        process.stdout.close()
        assert process.wait(LONG) == 141
        assert process.stderr.read() == b""
    assert json.loads(read) == "x" * 1000
    assert monitor.status(path).items == 1999


@pytest.mark.in_turn
def test_a_drained_anonymous_queue_that_nobody_uses_keeps_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import os, signal; from tqshim import TurboQueue\n"
        "queue = TurboQueue(); queue.put_many(range(5)); print(queue._engine.folder.path, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=LONG)
    assert done.returncode == -signal.SIGKILL
    folder = done.stdout.strip()
    assert tqshim_command("drain", folder, "-n", "2").stdout == "0\n1\n"
    assert monitor.status(folder).items == 3
    assert tqshim_command("fill", folder, input="5\n").returncode == 0
    assert tqshim_command("drain", folder).stdout == "2\n3\n4\n5\n"
    monkeypatch.setattr(tqshim.storage.places, "MARKER_LIFE", 0.0)
    TurboQueue().close()
    assert not os.path.exists(folder)


@pytest.mark.in_turn
@pytest.mark.parametrize(
    ("words", "text", "said"),
    [
        ([], "1\n{bad\n3\n", "line 2"),
        ([], "1\nNot JSON", "line 2"),
        (["--pickle"], "gARLAS4=\n!!!\n", "line 2"),
        (["--pickle"], "gARLAS4=\nAAAA\n", "no pickle"),
        (["--maxsize", "1", "--timeout", "0"], "1\n2\n", "line 2"),
    ],
)
def test_a_line_that_is_no_item_is_named_and_those_before_it_are_put(
    path: str, words: list[str], text: str, said: str
) -> None:
    done = tqshim_command("fill", path, *words, input=text)
    assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr
    with TurboQueue(path=path) as queue:
        assert queue.get_many() == [1]


# -- deleting


@linux
def test_rm_refuses_a_queue_in_use_a_stranger_and_what_is_no_queue(tmp_path: Path, path: str) -> None:
    with TurboQueue(path=path) as queue:
        queue.put(1)
        with pytest.raises(FolderError, match=f"in use by process {os.getpid()}"):
            monitor.remove(path)
        assert queue.get() == 1
        queue.put(2)
    Path(path, "letter.txt").touch()
    with pytest.raises(FolderError, match=r"letter\.txt"):
        monitor.remove(path)
    os.unlink(os.path.join(path, "letter.txt"))
    os.symlink(path, tmp_path / "link")
    assert monitor.remove(str(tmp_path / "link")) == 1
    assert not os.path.exists(path)
    (tmp_path / "plain").mkdir()
    with pytest.raises(FolderError, match="no queue"):
        monitor.remove(str(tmp_path / "plain"))
    assert (tmp_path / "plain").exists()


def test_rm_removes_a_damaged_queue_and_one_whose_removal_was_cut_short(path: str, tmp_path: Path) -> None:
    truncated_journal(filled(path, 1))
    assert monitor.remove(path) is None
    filled(path, 1)
    os.rename(path, tmp_path / "dead_queue")
    os.unlink(journal(str(tmp_path / "dead_queue")))
    assert monitor.remove(str(tmp_path / "dead_queue")) is None
    assert not list(tmp_path.glob("*queue"))


# -- commands


@pytest.mark.in_turn
@pytest.mark.parametrize("name", sorted(set(cli.COMMANDS) - {"bench", "kafka", "ls", "run"}))
def test_a_command_on_nothing_says_so_in_one_line(path: str, name: str) -> None:
    words = [name, "/proc/nowhere/queue" if name == "fill" else path]
    done = tqshim_command(*words, input="1\n")
    assert done.returncode == 2
    assert done.stderr.startswith(f"python -m tqshim {name}: ") and done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    "words",
    [
        ["ls", "PATH"],
        ["stat", "PATH"],
        ["watch", "PATH", "--count", "1", "--interval", "0.01"],
        ["peek", "PATH", "-n", "2"],
        ["peek", "PATH", "-n", "2", "--unpickle"],
        ["check", "PATH"],
        ["recover", "PATH", "--into", "PATH-saved"],
        ["drain", "PATH"],
        ["rm", "PATH"],
    ],
    ids=lambda words: " ".join(words),
)
def test_every_command_prints_json_for_programs(path: str, words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    filled(path, "a")
    assert cli.main([word.replace("PATH", path) for word in words] + ["--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    if words[0] == "stat":
        assert document["items"] == 1 and document["path"] == path
    elif words[0] == "peek":
        assert base64.b64decode(document[0]["preview"]) == record_of("a")
        assert document[0]["object"] == ("'a'" if "--unpickle" in words else None)
    elif words[0] == "ls":
        assert [one["items"] for one in document if one["path"] == path] == [1]
    else:
        assert document in ("a", []) or isinstance(document, dict)


@pytest.mark.in_turn
@pytest.mark.parametrize("words", [["ls", "PATH"], ["stat", "PATH"], ["peek", "PATH", "-n", "500"], ["check", "PATH"]])
def test_a_command_whose_output_is_closed_ends_silently(path: str, words: list[str]) -> None:
    filled(path, *range(500))
    Path(path, "letter.txt").touch()
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [sys.executable, "-m", "tqshim", *(word.replace("PATH", path) for word in words)]
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=LONG)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_names_of_files_cant_speak_to_the_terminal(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    filled(path, 1)
    for name in ("\x1b[2Jcleared", "two\nlines", os.fsdecode(b"\xff")):
        Path(path, name).touch()
    assert cli.main(["check", path]) == 1
    shown = capsys.readouterr().out
    assert shown.count("\n") == 3 and "\x1b" not in shown
    assert all(text in shown for text in ("\\x1b[2Jcleared", "two\\nlines", "\\udcff"))


@pytest.mark.in_turn
def test_watch_prints_lines_when_it_is_no_terminal_and_redraws_on_one(path: str) -> None:
    filled(path, 1, 2)
    words = ["watch", path, "--interval", "0.01", "--count", "3"]
    done = tqshim_command(*words)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 3 and "\x1b" not in done.stdout
    assert all("put/s 0" in line and "items 2" in line for line in done.stdout.splitlines())
    shown = on_a_terminal([sys.executable, "-m", "tqshim", *words])
    assert shown.count(path) == 3
    assert shown.count("\x1b[6A\r\x1b[J") == 2


def on_a_terminal(command: list[str]) -> str:
    """What a command writes to a terminal."""
    import pty

    master, slave = pty.openpty()
    try:
        process = subprocess.Popen(command, stdout=slave, stderr=slave)
        os.close(slave)
        shown = b""
        with contextlib.suppress(OSError):  # the terminal's other end was closed
            while data := os.read(master, 4096):
                shown += data
        assert process.wait(LONG) == 0
    finally:
        os.close(master)
    return shown.decode()


@pytest.mark.in_turn
def test_watch_ends_where_the_queue_goes_and_at_an_interrupt(path: str) -> None:
    filled(path, 1)
    command = [sys.executable, "-m", "tqshim", "watch", path, "--interval", "0.02"]
    for end in ("interrupt", "vanish"):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stderr is not None
            assert "items 1" in process.stdout.readline()
            if end == "interrupt":
                process.send_signal(signal.SIGINT)
            else:
                monitor.remove(path)
            process.stdout.read()
            said = process.stderr.read()
            assert process.wait(LONG) == (130 if end == "interrupt" else 2)
        assert "Traceback" not in said
        assert (said == "") == (end == "interrupt")


def test_lock_owners_are_asked_without_locking(path: str) -> None:
    filled(path, 1)
    fd = os.open(path, os.O_RDONLY)
    try:
        assert lock_owners(fd, range(3)) == {}
        with TurboQueue(path=path) as queue:
            queue.put(1)
            assert lock_owners(fd, range(3)) == {0: os.getpid()}
    finally:
        os.close(fd)


def test_a_queue_that_was_not_made_to_its_end_holds_nothing_and_can_be_made_again(path: str) -> None:
    """Its maker found no space, or was killed."""
    os.mkdir(path, 0o700)
    for name in ("cells", "members"):
        Path(path, name).touch(0o600)
    (found,) = monitor.check(path)
    assert found.status == 1 and "no items" in found.finding and "make it there again" in found.remedy
    with TurboQueue(path=path) as queue:
        queue.put(1)
        assert queue.get() == 1
        assert not [finding for finding in monitor.check(path) if finding.status]


@pytest.mark.parametrize("made", [["members"], ["members", "cells"], ["members", "cells", "roll_0_0123456789"]])
def test_rm_removes_what_is_left_where_a_queue_was_not_made_to_its_end(path: str, made: list[str]) -> None:
    os.mkdir(path, 0o700)
    for name in made:
        Path(path, name).touch(0o600)
    (found,) = monitor.check(path)
    assert found.remedy == "make it there again, or rm deletes it"
    assert monitor.remove(path) == 0
    assert not os.path.exists(path)


@pytest.mark.parametrize("kind", ["full", "open", "folder", "more", "other"])
def test_rm_takes_nothing_else_for_such_a_leftover(path: str, kind: str) -> None:
    """A file of somebody's own that is called so."""
    os.mkdir(path, 0o700)
    members = Path(path, "members")
    members.touch(0o600)
    if kind == "full":
        members.write_text("Ann\nBob\n")
    elif kind == "open":
        members.chmod(0o644)
    elif kind == "folder":
        os.chmod(path, 0o755)
    else:
        Path(path, {"more": "bell", "other": "letter.txt"}[kind]).touch(0o600)
    with pytest.raises(FolderError, match="holds no queue"):
        monitor.remove(path)
    assert members.exists()
    assert not [one for one in monitor.check(path) if "rm deletes" in one.remedy]


def test_rm_refuses_a_queue_that_is_just_being_made(path: str) -> None:
    os.mkdir(path, 0o700)
    folder = LogFolder.meet(path)
    try:
        os.close(folder.create(names.MEMBERS))
        with pytest.raises(FolderError, match="in use"):
            monitor.remove(path)
        assert os.listdir(path) == ["members"]
    finally:
        folder.close()
