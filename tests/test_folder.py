"""A queue folder belongs to one user, keeps the items of a queue at a path, and is taken for nothing else."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import tqshim.runtime.systems
from tqshim import CorruptBatchError, Empty, FolderError, TurboQueue, UnsupportedError, monitor
from tqshim.storage import places

PATIENCE = 60.0
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")


def retire(queue: Any) -> None:
    """This process is no user of the queue any more."""
    queue._engine.close()


# --- nobody else gets in ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anonymous", [True, False])
def test_folder_and_files_are_for_their_owner_alone(tmp_path: Path, anonymous: bool) -> None:
    mask = os.umask(0)
    try:
        queue = TurboQueue() if anonymous else TurboQueue(path=str(tmp_path / "queue"))
        queue.put("x")
        path = Path(queue._engine.folder.path)
        assert queue.get(timeout=PATIENCE) == "x"
        deadline = time.monotonic() + PATIENCE
        # The first sleep makes the bell; a get that is late anyway does not sleep.
        while not (path / "bell").exists() and time.monotonic() < deadline:
            with pytest.raises(Empty):
                queue.get(timeout=0.01)
        pickle.dumps(queue)
        modes = {file.name: stat.S_IMODE(file.lstat().st_mode) for file in path.iterdir()}
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert set(modes.values()) == {0o600}, modes
        assert {"journal_0", "cells", "members", "bell"} <= set(modes)
        for marker in path.glob("marker_*"):
            marker.unlink()
    finally:
        os.umask(mask)
        retire(queue)


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o722, 0o777])
def test_folder_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "queue"
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(FolderError, match="others may write") as raised:
        TurboQueue(path=str(path))
    assert str(path) in str(raised.value)
    assert "a folder of your own" in raised.value.remedy  # whose it is now nobody knows: it may be /tmp
    assert list(path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o711])
def test_own_empty_folder_is_shut_before_a_queue_is_made_there(tmp_path: Path, mode: int) -> None:
    """As ``mkdir`` makes it; what lies in there is nobody else's business."""
    path = tmp_path / "queue"
    path.mkdir()
    path.chmod(mode)
    queue = TurboQueue(path=str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    retire(queue)


def test_folder_that_others_may_look_into_is_refused_with_what_lies_there(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    retire(TurboQueue(path=str(path)))
    path.chmod(0o755)
    with pytest.raises(FolderError, match=r"others may look into it \(mode 0755\); chmod 700"):
        TurboQueue(path=str(path))
    assert [(one.level, one.finding) for one in monitor.check(str(path))] == [
        ("damage", "others may look into it (mode 0755)")
    ]
    path.chmod(0o700)
    (path / "letters.txt").write_text("dear")
    (tmp_path / "other").mkdir(0o755)
    (tmp_path / "other" / "letters.txt").write_text("dear")
    with pytest.raises(FolderError, match="a folder of your own"):
        TurboQueue(path=str(tmp_path / "other"))
    assert stat.S_IMODE((tmp_path / "other").stat().st_mode) == 0o755


def test_looking_for_a_queue_in_an_empty_folder_leaves_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(OSError):
        monitor.drain(str(tmp_path), print)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


@pytest.mark.parametrize("size", [0, 100, 4096, 5000, 8191])
def test_cells_that_were_cut_short_are_said_to_be(tmp_path: Path, size: int) -> None:
    path = tmp_path / "queue"
    retire(TurboQueue(path=str(path)))
    os.truncate(path / "cells", size)
    with pytest.raises(FolderError, match=rf"cells: cut short to {size} bytes; .*recover --into"):
        TurboQueue(path=str(path))


def test_check_opens_nothing_for_writing(tmp_path: Path) -> None:
    """In a process of its own: an audit hook stays.  The queue can be used there afterwards."""
    queue = TurboQueue(path=str(tmp_path / "queue"))
    queue.put("x")
    program = """
import os, sys
from tqshim import TurboQueue, monitor
asked = []
sys.addaudithook(lambda event, arguments: asked.append(arguments) if event == "open" else None)
assert monitor.check(sys.argv[1]) == []
written = [name for name, _, flags in asked if flags & (os.O_WRONLY | os.O_RDWR)]
assert not written, written
assert "members" in [name for name, _, _ in asked]
q = TurboQueue(path=sys.argv[1])
print(q.get())
members = monitor.status(sys.argv[1]).members
print(sorted(member.state for member in members))
"""
    words = [sys.executable, "-c", program, str(tmp_path / "queue")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout == "x\n['alive', 'alive']\n", done.stderr
    retire(queue)


def test_folder_behind_a_symbolic_link_must_be_safe_too(tmp_path: Path) -> None:
    path, link = tmp_path / "queue", tmp_path / "link"
    path.mkdir()
    path.chmod(0o777)
    link.symlink_to(path)
    with pytest.raises(FolderError, match="others may write"):
        TurboQueue(path=str(link))


def test_a_link_that_leads_nowhere_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="a link that leads nowhere"):
        TurboQueue(path=tmp_path / "link")


NOBODY = """
import os, sys, pickle, tqshim.engine.registry
os.setgroups([]); os.setgid(12345); os.setuid(12345)
for way in (lambda: tqshim.TurboQueue(path=sys.argv[1]), lambda: pickle.loads(bytes.fromhex(sys.argv[2]))):
    try:
        way()
    except OSError as error:
        print(type(error).__name__)
"""


@only_root
def test_other_users_can_neither_open_nor_unpickle_a_queue() -> None:
    """From the standard library's queue a process that has inherited its descriptors gets what is there."""
    fork = multiprocessing.get_context("fork")
    theirs = fork.Queue()
    process = fork.Process(target=theirs.put, args=("secret",))  # whose thread is no business of the child below
    process.start()
    process.join(PATIENCE)
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setgid(12345)
            os.setuid(12345)
            os._exit(0 if theirs.get(timeout=PATIENCE) == "secret" else 1)
        finally:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    queue = TurboQueue()
    queue.put("secret")
    path = queue._engine.folder.path
    data = pickle.dumps(queue)
    words = [sys.executable, "-c", NOBODY, path, data.hex()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE)
    assert queue.get(timeout=PATIENCE) == "secret"
    pickle.loads(data)
    assert set(done.stdout.split()) <= {"PermissionError", "FolderError"}, done
    assert len(done.stdout.split()) == 2, done
    queue.close()


# --- a queue at a path -----------------------------------------------------------------------------------------------


def test_programs_that_open_a_path_at_once_meet_in_one_queue(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    for attempt in range(5):
        path = str(tmp_path / f"queue_{attempt}")
        start = fork.Barrier(6)
        children = [fork.Process(target=_open_and_put, args=(path, start, number)) for number in range(6)]
        for child in children:
            child.start()
        for child in children:
            child.join(PATIENCE)
            assert child.exitcode == 0
        queue = TurboQueue(path=path)
        assert sorted(queue.get(timeout=PATIENCE) for _ in range(6)) == list(range(6))
        assert queue.empty()
        retire(queue)


def _open_and_put(path: str, start: Any, number: int) -> None:
    start.wait()
    queue = TurboQueue(7, path=path)
    queue.put(number)


def test_folder_whose_journal_is_damaged_is_refused_with_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    retire(TurboQueue(path=str(path)))
    journal = path / "journal_0"
    whole = journal.read_bytes()
    for damaged in (b"", b"no journal at all, but long enough to be one", whole[:40]):
        journal.write_bytes(damaged)
        with pytest.raises(CorruptBatchError, match="journal_0"):
            TurboQueue(path=str(path))
    journal.write_bytes(whole)
    queue = TurboQueue(path=str(path))
    queue.put("x")
    assert queue.get(timeout=PATIENCE) == "x"
    retire(queue)


def test_lost_batch_file_costs_its_own_items_only(tmp_path: Path) -> None:
    queue = TurboQueue(path=str(tmp_path / "queue"))
    for number in range(3):
        child = os.fork()
        if not child:
            try:
                queue.put(number)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
    lost = sorted((tmp_path / "queue").glob("load_*"))[1]
    lost.unlink()
    got: list[Any] = []
    for _ in range(3):
        try:
            got.append(queue.get(timeout=PATIENCE))
        except CorruptBatchError as error:
            got.append("lost")
            assert lost.name.split("_", 1)[1] in str(error)
    assert got.count("lost") == 1
    assert [number for number in got if number != "lost"] in ([0, 1], [0, 2], [1, 2])
    queue.put("goes on")
    assert queue.get(timeout=PATIENCE) == "goes on"
    retire(queue)


# --- where anonymous queues lie --------------------------------------------------------------------------------------


def test_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = Path(tqshim.runtime.systems.PROC, "self/mountinfo")
    if not table.exists():
        pytest.skip("no list of mounted file systems here")
    device = os.stat(tmp_path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    lines = [line.split() for line in table.read_text().splitlines()]
    kinds = {fields[fields.index("-") + 1] for fields in lines if fields[2] == number}
    if not kinds:
        pytest.skip("the file system is not in the list")
    monkeypatch.setattr(places, "LOCAL", places.LOCAL - kinds)
    monkeypatch.setattr(places, "_kinds", {})
    with pytest.raises(UnsupportedError, match="not known to serialise appends"):
        TurboQueue(path=str(tmp_path / "queue"))


def test_queue_folder_that_was_deleted_is_said_to_be_gone() -> None:
    queue = TurboQueue()
    data = pickle.dumps(queue)
    path = queue._engine.folder.path
    retire(queue)
    for file in Path(path).iterdir():
        file.unlink()
    os.rmdir(path)
    with pytest.raises(FileNotFoundError, match="the queue is gone"):
        pickle.loads(data)
