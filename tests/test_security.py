"""Nobody else gets in: unpickling runs code, so a queue folder belongs to one user, and tqshim checks who that is."""

from __future__ import annotations

import os
import pickle
import random
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from types import FrameType
from typing import Any, Optional

import pytest
from sampling import sampled

import tqshim
import tqshim.runtime.systems
from tqshim import CorruptBatchError, FolderError, TurboQueue, UnsupportedError

LONG = 60.0
PACKAGE = os.path.dirname(tqshim.__file__)
STRANGER = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture(scope="module")
def readable() -> Iterator[str]:
    """A folder with a copy of the package that another user may read, also where the clone is its owner's alone."""
    with tempfile.TemporaryDirectory(prefix="tqshim_test_") as folder:
        shutil.copytree(PACKAGE, f"{folder}/tqshim", ignore=shutil.ignore_patterns("__pycache__"))
        for place, _, files in os.walk(folder):
            os.chmod(place, 0o755)
            for name in files:
                os.chmod(os.path.join(place, name), 0o644)
        yield folder


def make(path: Path) -> str:
    """A queue at a path, with an item in it."""
    q: Any = TurboQueue(path=str(path))
    q.put("item")
    q.close()
    return str(path)


def refused(path: str, *words: str) -> FolderError:
    """Opening the folder is refused, with a message that names it, what was found, and what to do."""
    with pytest.raises(FolderError) as caught:
        TurboQueue(path=path)
    error = caught.value
    assert error.path and error.finding and error.remedy
    for part in (error.path, error.finding, error.remedy, *words):
        assert part in str(error)
    assert os.path.realpath(error.path) == os.path.realpath(path) or error.path.startswith(path)
    return error


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o177])
@pytest.mark.parametrize("anonymous", [False, True])
def test_folders_are_0700_and_files_0600_whatever_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mask: int, anonymous: bool
) -> None:
    monkeypatch.setenv("TQSHIM_DIR", str(tmp_path))
    former = os.umask(mask)
    try:
        q: Any = TurboQueue(2000) if anonymous else TurboQueue(2000, path=str(tmp_path / "queue"))
        other = pickle.loads(pickle.dumps(q))
        data = pickle.dumps(q)
        q.put_many(range(1000))
        for number in range(500):
            q.put(number)
        assert other.get() == 0
        with pytest.raises(tqshim.Empty):
            TurboQueue(path=str(tmp_path / "empty")).get(True, 0.05)
        seen = set()
        for folder, _, files in os.walk(tmp_path):
            if folder != str(tmp_path):
                assert stat.S_IMODE(os.lstat(folder).st_mode) == 0o700, folder
            for name in files:
                assert stat.S_IMODE(os.lstat(os.path.join(folder, name)).st_mode) & 0o177 == 0, name
                seen.add(name.split("_")[0])
        assert {"journal", "cells", "members", "load"} <= seen
    finally:
        os.umask(former)
    pickle.loads(data)


@as_root
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path / "queue")
    os.chown(path, STRANGER, -1)
    refused(path, "belongs to", str(STRANGER))


@as_root
def test_a_foreign_folder_with_nothing_in_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    path.mkdir(0o700)
    os.chown(path, STRANGER, -1)
    refused(str(path), "belongs to")
    assert os.listdir(path) == []


@pytest.mark.parametrize("mode", [0o770, 0o720, 0o707, 0o777, 0o702, 0o1777])
def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    path = make(tmp_path / "queue")
    os.chmod(path, mode)
    refused(path, f"{mode:04o}", "chmod 700")
    os.chmod(path, 0o700)
    assert TurboQueue(path=path).get_nowait() == "item"


def test_a_folder_that_others_may_write_to_is_refused_behind_a_symbolic_link(tmp_path: Path) -> None:
    path = make(tmp_path / "queue")
    os.chmod(path, 0o770)
    os.symlink(path, tmp_path / "link")
    refused(str(tmp_path / "link"), "0770")
    os.symlink("link", tmp_path / "link to the link")
    refused(str(tmp_path / "link to the link"), "0770")


@as_root
def test_a_folder_of_somebody_else_is_refused_behind_a_symbolic_link(tmp_path: Path) -> None:
    path = make(tmp_path / "queue")
    os.chown(path, STRANGER, -1)
    os.symlink(path, tmp_path / "link")
    refused(str(tmp_path / "link"), "belongs to")


def test_a_pickled_handle_does_not_open_a_folder_that_others_may_write_to(tmp_path: Path) -> None:
    """In another process, which checks for itself."""
    path = make(tmp_path / "queue")
    q: Any = TurboQueue(path=path)
    data = pickle.dumps(q)
    os.chmod(path, 0o777)
    program = "import pickle, sys; pickle.load(sys.stdin.buffer)"
    done = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, timeout=LONG)
    assert done.returncode != 0
    assert b"FolderError" in done.stderr and b"0777" in done.stderr
    os.chmod(path, 0o700)


@as_root
def test_another_user_can_neither_open_nor_see_a_queue(readable: str) -> None:
    """A real process of another user, which may reach the folder's parent."""
    path = make(Path(readable) / "queue")
    program = """
import os, sys
os.setgid(65534); os.setuid(65534)
try:
    os.listdir(sys.argv[1])
except PermissionError:
    print("not even listed")
from tqshim import TurboQueue
try:
    TurboQueue(path=sys.argv[1])
except OSError as error:
    print(type(error).__name__, error)
"""
    command = [sys.executable, "-c", "import tqshim.engine.registry\n" + program, path]
    done = subprocess.run(command, capture_output=True, timeout=LONG, cwd=readable)
    out = done.stdout.decode()
    assert "not even listed" in out, (out, done.stderr)
    assert "PermissionError" in out or "FolderError" in out
    assert path in out
    assert TurboQueue(path=path).get_nowait() == "item"


@as_root
def test_roots_sweep_leaves_folders_of_others_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TQSHIM_DIR", str(tmp_path))
    foreign = tmp_path / "tqshim-0123456789abcdef"
    foreign.mkdir(0o700)
    os.chown(foreign, STRANGER, -1)
    (tmp_path / "tqshim-link").symlink_to("/etc")
    (tmp_path / "dead_tqshim-link").symlink_to("/etc")
    TurboQueue().close()
    assert foreign.is_dir()
    assert os.path.isdir("/etc")
    foreign.rmdir()


def test_a_folder_with_other_files_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    refused(str(tmp_path), "letter.txt")
    assert os.listdir(tmp_path) == ["letter.txt"]


def test_a_file_is_no_queue_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        TurboQueue(path=str(tmp_path / "file"))


@pytest.mark.parametrize("kind", ["journal", "cells", "members"])
def test_a_symbolic_link_in_place_of_a_file_is_not_followed(tmp_path: Path, kind: str) -> None:
    path = make(tmp_path / "queue")
    (name,) = [name for name in os.listdir(path) if name.startswith(kind)]
    victim = tmp_path / "victim"
    os.rename(os.path.join(path, name), victim)
    os.symlink(victim, os.path.join(path, name))
    before = victim.read_bytes()

    def use() -> None:
        q: Any = TurboQueue(path=path)
        q.put(1)
        q.get()

    with pytest.raises(OSError):
        use()
    assert victim.read_bytes() == before


def test_a_symbolic_link_in_place_of_a_batch_file_is_not_followed(tmp_path: Path) -> None:
    path = make(tmp_path / "queue")
    (name,) = [name for name in os.listdir(path) if name.startswith(("ready", "load"))]
    os.rename(os.path.join(path, name), tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", os.path.join(path, name))
    q: Any = TurboQueue(path=path)
    with pytest.raises(OSError):
        q.get_nowait()
    assert (tmp_path / "elsewhere").exists()


def test_a_symbolic_link_in_place_of_a_bell_is_not_followed(tmp_path: Path) -> None:
    path = make(tmp_path / "queue")
    (tmp_path / "victim").write_text("untouched")
    os.symlink(tmp_path / "victim", os.path.join(path, "bell"))
    q: Any = TurboQueue(path=path)
    assert q.get_nowait() == "item"
    with pytest.raises(OSError):
        q.get(True, 0.01)
    assert (tmp_path / "victim").read_text() == "untouched"


def test_a_spill_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    """Its link lies in our folder, but what it leads to may be anybody's."""
    path = make(tmp_path / "queue")
    spill = tmp_path / "spill"
    spill.mkdir()
    spill.chmod(0o777)
    os.symlink(spill, os.path.join(path, "spill"))
    q: Any = TurboQueue(path=path)
    with pytest.raises(FolderError, match="spill"):
        q._engine.folder.batches()


@pytest.mark.parametrize("kind", [FolderError, CorruptBatchError, UnsupportedError])
def test_errors_keep_their_fields_through_pickling(kind: type[FolderError]) -> None:
    error = kind("/some/path", "is not so", "make it so")
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(error, protocol))
        assert type(again) is kind
        assert (again.path, again.finding, again.remedy) == ("/some/path", "is not so", "make it so")
        assert str(again) == str(error) == "/some/path: is not so; make it so"
    assert isinstance(error, OSError)


@pytest.mark.skipif(not tqshim.runtime.systems.MKFIFO_AT, reason="this system makes FIFOs by path: see test_systems")
def test_everything_in_a_folder_is_opened_relative_to_it(tmp_path: Path) -> None:
    """A folder put in the place of one that is in use, at the same path, is not fallen for."""
    path = make(tmp_path / "queue")
    q: Any = TurboQueue(path=path)
    assert q.get_nowait() == "item"
    os.rename(path, tmp_path / "moved")
    os.mkdir(path, 0o777)
    os.chmod(path, 0o777)
    for number in range(3000):  # new batch files, journals, bells
        q.put((number, "." * 1000))
        assert q.get(True, LONG)[0] == number
    with pytest.raises(tqshim.Empty):
        q.get(True, 0.01)
    assert os.listdir(path) == []
    q._engine.close()


class Swapper:
    """Points the link elsewhere before the lines of tqshim that are asked for, counted as they run."""

    def __init__(self, way: Path, targets: list[Path], wanted: Callable[[int], bool]) -> None:
        self.way = way
        self.targets = targets
        self.wanted = wanted
        self.seen = 0

    def point(self) -> None:
        new = self.way.with_name("new")
        os.symlink(self.targets[0], new)
        os.rename(new, self.way)
        self.targets.reverse()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Optional[Callable[..., Any]]:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            if self.wanted(self.seen):
                self.point()
            self.seen += 1
        return self


@pytest.mark.in_turn
@pytest.mark.parametrize(("good_first", "often"), sampled("swapped", list(product((False, True), (False, True))), 2))
def test_a_folder_swapped_for_a_link_while_it_is_opened_is_never_fallen_for(
    tmp_path: Path, good_first: bool, often: bool
) -> None:
    """Somebody swaps the path between a queue of ours and a link to a folder that others may write to.

    Once, before each line in turn, or again and again."""
    path = Path(make(tmp_path / "queue"))
    bait = tmp_path / "bait"
    bait.mkdir()
    bait.chmod(0o777)
    outcomes = set()
    dice = random.Random(5)
    for at in range(200):
        wanted = (lambda line: dice.random() < 0.2) if often else at.__eq__
        swapper = Swapper(tmp_path / "way", [path, bait] if good_first else [bait, path], wanted)
        swapper.point()
        sys.settrace(swapper)
        try:
            q: Any = TurboQueue(path=str(tmp_path / "way"))
        except FolderError:
            outcomes.add("refused")
            continue
        finally:
            sys.settrace(None)
        outcomes.add("opened")
        assert q.qsize() == 1
        assert os.fstat(q._engine.folder.fd).st_ino == path.stat().st_ino
        q._engine.close()
    assert outcomes == {"opened", "refused"}
    assert os.listdir(bait) == []


@pytest.mark.parametrize("kind", ["journal", "ready"])
def test_a_file_that_has_another_name_elsewhere_is_still_ours(tmp_path: Path, kind: str) -> None:
    """A hard link needs the folder's owner, or one that others may write to: it gives nobody more than they had."""
    path = make(tmp_path / "queue")
    (name,) = [name for name in os.listdir(path) if name.startswith(kind)]
    os.link(os.path.join(path, name), tmp_path / "elsewhere")
    q: Any = TurboQueue(path=path)
    assert q.get_nowait() == "item"
    assert stat.S_IMODE((tmp_path / "elsewhere").stat().st_mode) == 0o600
    q._engine.close()


def get_from(path: Any) -> None:
    """Open the queue, get, and leave it, whatever came of it."""
    q: Any = TurboQueue(path=path)
    try:
        q.get_nowait()
    finally:
        q._engine.close()


@as_root
@pytest.mark.parametrize("kind", ["journal", "cells", "members", "ready"])
def test_a_file_of_somebody_else_in_our_folder_is_refused(tmp_path: Path, kind: str) -> None:
    """Moved in while the folder was open to others, or linked from a folder of theirs: they can still write to it."""
    path = make(tmp_path / "queue")
    (name,) = [name for name in os.listdir(path) if name.startswith(kind)]
    os.chown(os.path.join(path, name), STRANGER, -1)

    with pytest.raises(FolderError, match=f"user {STRANGER}"):
        get_from(path)


@pytest.mark.parametrize("kind", ["journal", "cells", "ready"])
def test_a_file_that_others_may_write_to_is_refused(tmp_path: Path, kind: str) -> None:
    path = make(tmp_path / "queue")
    (name,) = [name for name in os.listdir(path) if name.startswith(kind)]
    os.chmod(os.path.join(path, name), 0o666)

    with pytest.raises(FolderError, match="others may write"):
        get_from(path)


@as_root
def test_folder_below_one_that_hands_its_group_down_is_as_safe_as_any(tmp_path: Path) -> None:
    os.chown(tmp_path, -1, STRANGER)
    os.chmod(tmp_path, 0o2755)
    path = make(tmp_path / "queue")
    for name in [path, *(os.path.join(path, name) for name in os.listdir(path))]:
        assert not os.lstat(name).st_mode & 0o077, name
    assert TurboQueue(path=path).get_nowait() == "item"


DROPPED = """
import os, sys
from tqshim import FolderError, TurboQueue
before, queue, after = sys.argv[1] == "used", TurboQueue(), []
if before:
    queue.put_many(range(3))
    print(queue.get(), queue.get(), flush=True)
if os.fork():
    os.wait()
    print(queue.qsize(), "in the parent", end="")
    sys.stdout.flush()
    os._exit(0)
os.setgroups([]); os.setgid(65534); os.setuid(65534)
claim = queue.claimed(False).__enter__
for use in (lambda: queue.put(1), queue.get_nowait, queue.qsize, lambda: queue.get(timeout=1), claim):
    try:
        use()
    except FolderError as error:
        after.append(str(error))
assert len(after) == 5 and len(set(after)) == 1, after
try:
    with queue:
        raise KeyError("the program's own")
except KeyError:
    assert queue._closed
print(after[0].partition(": ")[2], flush=True)
os._exit(0)
"""
SET_ITSELF = """
import os
from tqshim import FolderError, TurboQueue
queue = TurboQueue()
queue.put_many(range(100))
print(queue.get())
os.setgroups([]); os.setgid(65534); os.setuid(65534)
print([queue.get() for _ in range(99)] == list(range(1, 100)), queue.qsize())
queue.put(7)
print(queue.get())
try:
    while True:
        queue.put(bytes(100_000))
except FolderError as error:
    print(str(error).partition(": ")[2])
"""
TOLD = (
    "belongs to user 0, and this process is user 65534 by now; "
    "let the process change its user before the queue is made, or make the queue as that user\n"
)


@as_root
@pytest.mark.parametrize("used", ["used", "new"])
def test_a_forked_child_that_has_become_another_user_hears_why_it_has_no_access(used: str, readable: str) -> None:
    """As workers of ``gunicorn --user`` do; its parent goes on."""
    command = [sys.executable, "-c", DROPPED, used]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG, cwd=readable)
    before = "0 1\n" if used == "used" else ""
    assert done.stdout == f"{before}{TOLD}{int(bool(before))} in the parent", done.stderr


@as_root
def test_what_is_open_stays_usable_where_a_process_becomes_another_user(readable: str) -> None:
    command = [sys.executable, "-c", SET_ITSELF]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG, cwd=readable)
    assert done.stdout == f"0\nTrue 0\n7\n{TOLD}", done.stderr
