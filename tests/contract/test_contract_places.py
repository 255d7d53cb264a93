"""Where a queue lies, who may use it, how long it stays, what damage does, what survives a power cut."""

from __future__ import annotations

import multiprocessing
import multiprocessing.util
import os
import pickle
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest
from contract_tools import PATIENCE, all_of

import tqshim


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of anonymous queues."""
    monkeypatch.setenv("TQSHIM_DIR", str(tmp_path))
    return tmp_path


def program(code: str, *arguments: object, **environment: str) -> str:
    """What another program prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE * 3,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_anonymous_queue_goes_with_its_last_user(root: Path, other: Any) -> None:
    q = tqshim.Queue()
    assert len(list(root.iterdir())) == 1
    user = other(q)
    q.put("item")
    q.close()
    assert user.do("get") == "item"
    assert len(list(root.iterdir())) == 1
    user.do("close")
    assert list(root.iterdir()) == []


DAEMONS = """
import multiprocessing, tqshim

def serve(todo, done):
    while True:
        done.put(todo.get())

def main():
    todo, done = tqshim.Queue(), tqshim.Queue()
    for _ in range(3):
        multiprocessing.get_context("fork").Process(target=serve, args=(todo, done), daemon=True).start()
    for number in range(20):
        todo.put(number)
    print(sum(done.get() for number in range(20)))

main()
"""


def test_daemons_that_the_end_of_a_program_ends_leave_nothing(root: Path) -> None:
    """Its own handles go before they are killed."""
    assert program(DAEMONS) == "190"
    assert list(root.iterdir()) == []


def end_slowly(queue: Any, ready: Any, wait: Any) -> None:
    multiprocessing.util.Finalize(None, lambda: (ready.send("ends"), wait.poll(PATIENCE)), exitpriority=-1000)
    queue.put("item")


def test_of_several_that_end_at_once_the_last_one_deletes_the_queue(root: Path) -> None:
    """The first is at its very end, and does nothing more."""
    context = multiprocessing.get_context("fork")
    (ready, said), (waits, wait) = context.Pipe(False), context.Pipe(False)
    q = tqshim.Queue()
    first = context.Process(target=end_slowly, args=(q, said, waits))
    first.start()
    assert ready.recv() == "ends"
    last = context.Process(target=q.get)
    last.start()
    q.close()
    last.join(PATIENCE)
    left = list(root.iterdir())
    wait.send("go on")
    first.join(PATIENCE)
    assert left == []


def test_a_queue_that_somebody_uses_is_not_taken_for_an_abandoned_one(root: Path, other: Any) -> None:
    q = tqshim.Queue()
    q.put("item")
    program("import tqshim; q = tqshim.Queue(); q.put(1); q.get()")
    assert len(list(root.iterdir())) == 1
    assert other(q, method="spawn").do("get") == "item"
    q.close()


def test_what_killed_programs_have_left_goes_with_the_next_queue(root: Path) -> None:
    code = "import os, signal, tqshim; q = tqshim.Queue(); q.put(1); os.kill(os.getpid(), signal.SIGKILL)"
    subprocess.run([sys.executable, "-c", code], timeout=PATIENCE * 3)
    assert len(list(root.iterdir())) == 1
    q = tqshim.Queue()
    assert len(list(root.iterdir())) == 1
    q.close()
    assert list(root.iterdir()) == []


def test_a_handle_on_its_way_keeps_its_queue(root: Path) -> None:
    q = tqshim.Queue()
    q.put("item")
    travelling = pickle.dumps(q)
    q.close()
    del q
    tqshim.Queue().close()
    arrived = pickle.loads(travelling)
    assert arrived.get_nowait() == "item"
    arrived.close()


def test_nobody_else_gets_in(root: Path, tmp_path: Path) -> None:
    with tqshim.Queue() as anonymous, tqshim.Queue(path=tmp_path / "q") as q:
        for one in (anonymous, q):
            one.put(bytes(100_000))
        (folder,) = root.glob("tqshim-*")
        for lies in (folder, tmp_path / "q"):
            assert stat.S_IMODE(lies.stat().st_mode) == 0o700
            files = list(lies.iterdir())
            assert len(files) > 3
            for file in files:
                assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name
    for mode in (0o770, 0o702, 0o755, 0o710):
        (tmp_path / "q").chmod(mode)
        with pytest.raises(tqshim.FolderError, match="others may"):
            tqshim.Queue(path=tmp_path / "q")
    (tmp_path / "q").chmod(0o700)
    with tqshim.Queue(path=tmp_path / "q") as q:
        assert q.qsize() == 1


def test_a_folder_with_something_else_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "q").mkdir(0o700)
    (tmp_path / "q" / "notes_1_2").write_text("not to be lost")
    with pytest.raises(tqshim.FolderError, match="notes_1_2"):
        tqshim.Queue(path=tmp_path / "q")


def test_items_at_a_path_outlive_all_their_programs(tmp_path: Path) -> None:
    put = "import sys, tqshim; q = tqshim.Queue(path=sys.argv[1]); [q.put(n) for n in range(int(sys.argv[2]))]"
    for count in (3, 1000):
        program(put, tmp_path / "q", count)
    got = program("import sys, tqshim; q = tqshim.Queue(path=sys.argv[1]); print(q.get_many())", tmp_path / "q")
    assert got == str([*range(3), *range(997)])
    with tqshim.Queue(path=tmp_path / "q") as q:
        assert all_of(q) == [997, 998, 999]


def test_a_queue_opens_with_its_own_key_alone(tmp_path: Path) -> None:
    with tqshim.Queue(path=tmp_path / "q", authkey=b"right") as q:
        q.put("item")
        q.put_many(["next", "last"])
    for key in (b"wrong", None):
        with pytest.raises(ValueError, match="authkey"):
            tqshim.Queue(path=tmp_path / "q", authkey=key)
    with tqshim.Queue(path=tmp_path / "q", authkey=b"right") as q:
        assert all_of(q) == ["item", "next", "last"]


def change(folder: Path, old: bytes, new: bytes) -> None:
    """Change these bytes where they stand in one of the queue's files."""
    assert len(old) == len(new)
    for file in folder.iterdir():
        if file.is_file() and (at := file.read_bytes().find(old)) >= 0:
            with open(file, "r+b") as there:
                there.seek(at)
                there.write(new)
            return
    raise AssertionError(f"{old!r} stands nowhere")


def test_what_nobody_with_the_key_has_written_is_never_unpickled(tmp_path: Path) -> None:
    with tqshim.Queue(path=tmp_path / "q", authkey=b"key") as q:
        for number in range(6):
            q.put(f"item {number}")
        change(tmp_path / "q", b"item 1", b"ITEM 1")
        _find_damage(q)


def _find_damage(q: Any) -> None:
    assert q.get_nowait() == "item 0"
    with pytest.raises(tqshim.CorruptBatchError):
        q.get_nowait()
    assert all_of(q) == [f"item {number}" for number in range(2, 6)]


def test_what_was_written_for_another_place_is_never_unpickled(tmp_path: Path) -> None:
    """A record, with the tag that follows it, in the place of another."""
    with tqshim.Queue(path=tmp_path / "q", authkey=b"key") as q:
        for number in range(6):
            q.put(f"item {number}")
        file = next(file for file in (tmp_path / "q").iterdir() if file.is_file() and b"item 3" in file.read_bytes())
        data = file.read_bytes()
        size = data.find(b"item 1") - data.find(b"item 0")
        first, last = data.find(b"item 1"), data.find(b"item 3")
        change(tmp_path / "q", data[first : first + size - 8], data[last : last + size - 8])
        _find_damage(q)


def test_a_damaged_item_is_found_where_all_are_checked(tmp_path: Path) -> None:
    code = """
import sys; sys.path[:0] = sys.argv[2:]
import test_contract_places as places, tqshim
from pathlib import Path
path = Path(sys.argv[1])
for way in ("get_nowait", "get_many_nowait"):
    with tqshim.Queue(path=path) as q:
        for number in range(6):
            q.put(f"{way} {number}")
        places.change(path, f"{way} 1".encode(), f"{way} X".encode())
        found = []
        while True:
            try:
                found += q.get_many_nowait() if "many" in way else [q.get_nowait()]
            except tqshim.Empty:
                break
            except tqshim.CorruptBatchError:
                found.append(None)
        assert [one for one in found if one] == [f"{way} {number}" for number in (0, 2, 3, 4, 5)], found
        assert found.count(None) == 1
print("good")
"""
    assert program(code, tmp_path / "q", os.path.dirname(__file__), TQSHIM_CHECK="all") == "good"


class Disk:
    """What a disk has of a folder, at the least, by what ``fsync`` was told of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, int] = {}
        self.data: dict[int, bytes] = {}
        self.fsync: Callable[[int], None] = os.fsync

    def __call__(self, fd: int) -> None:
        self.fsync(fd)
        status = os.fstat(fd)
        if not stat.S_ISDIR(status.st_mode):
            self.data[status.st_ino] = Path(f"/proc/self/fd/{fd}").read_bytes()  # which may be open for writing alone
        elif os.path.samestat(status, self.folder.stat()):
            self.names = self.there()

    def there(self) -> dict[str, int]:
        return {name: (self.folder / name).lstat().st_ino for name in os.listdir(self.folder)}

    def after_a_power_cut(self, new: Path) -> Path:
        """The folder as it may be then.  What was deleted is gone; cells are as they were last."""
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(0o700)
        alive = set(self.there().values())
        for name, inode in self.names.items():
            if inode not in alive or stat.S_ISFIFO(os.lstat(self.folder / name).st_mode if self.has(name) else 0):
                continue
            data = (self.folder / name).read_bytes() if name == "cells" else self.data.get(inode, b"")
            (new / name).write_bytes(data)
            (new / name).chmod(0o600)
        return new

    def has(self, name: str) -> bool:
        return (self.folder / name).exists()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is not fsync that is called")
@pytest.mark.parametrize("count", [1, 10, 500])
def test_what_a_durable_put_has_put_survives_a_power_cut(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where other items were got meanwhile, and their files are gone."""
    (tmp_path / "q").mkdir(0o700)
    disk = Disk(tmp_path / "q")
    monkeypatch.setattr(os, "fsync", disk)
    with tqshim.Queue(path=tmp_path / "q", durable=True) as q:
        for number in range(count):
            q.put((number, bytes(60 if count > 10 else 6000)))
            if number % 3 == 2:
                assert q.get()[0] == number // 3
            if number % (count // 10 or 1) == 0:
                _check_disk(disk, tmp_path / "new", number)
        q.put_many([(number, b"") for number in range(count, count + 100)])
        _check_disk(disk, tmp_path / "new", count + 99)
        got = 0
        while not q.empty():
            q.get()
            got += 1
            if got % 29 == 0:
                _check_disk(disk, tmp_path / "new", count + 99)


def _check_disk(disk: Disk, new: Path, last: int) -> None:
    with tqshim.Queue(path=disk.after_a_power_cut(new)) as q:
        found = [number for number, _ in all_of(q)]
    assert found == list(range(found[0] if found else last + 1, last + 1)) and found[-1:] == [last]
