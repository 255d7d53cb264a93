"""An anonymous queue's folder goes with its last user, however this user ends, and never before; nothing else grows."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import multiprocessing
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import own_folder
import pytest

import tqshim.engine.tuning
import tqshim.storage.places
from tqshim import Empty, TurboQueue
from tqshim.engine.registry import Engine
from tqshim.runtime import own_fcntl
from tqshim.runtime.finalizers import Finalizer
from tqshim.storage.folder import LogFolder

PATIENCE = 60.0
FORK = multiprocessing.get_context("fork")
needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counted with the help of /proc")


def test_who_is_the_last_deletes_the_folder_at_once_and_nobody_else_does(root: Path) -> None:
    queue: Any = TurboQueue()
    queue.put(1)
    folder = queue._engine.folder
    other = LogFolder.meet(folder.path)
    assert not folder.delete_unless_used()
    other.close()
    assert not tqshim.storage.places.reclaim(folder.path), "it is held as before"
    assert queue.get(timeout=PATIENCE) == 1
    assert folder.delete_unless_used() and not os.path.exists(folder.path)
    queue.close()


def test_who_has_no_descriptor_left_to_look_keeps_its_hold_and_leaves(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else another thread takes the number that comes free, and the folder stays where it is for good."""
    queue: Any = TurboQueue()
    folder = queue._engine.folder
    real = os.open

    def no_more(name: Any, *arguments: Any, **named: Any) -> int:
        if name == os.curdir:
            raise OSError(errno.EMFILE, "Too many open files")
        return real(name, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", no_more)
        assert not folder.delete_unless_used()
        assert not tqshim.storage.places.reclaim(folder.path), "it is held as before"
        queue.close()
    del queue
    assert not os.path.exists(folder.path)


def test_nobody_locks_a_folder_alone_to_which_a_handle_is_on_its_way(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who unpickles it meanwhile would wait for that, and for a child that another thread has forked in the middle."""
    queue = TurboQueue()
    handle = pickle.dumps(queue)
    alone = []
    real = fcntl.flock

    def watched(fd: int, how: int) -> None:
        alone.append(how & fcntl.LOCK_EX)
        real(fd, how)

    monkeypatch.setattr(own_fcntl, "flock", watched)
    queue.close()
    del queue
    assert alone and not any(alone)
    pickle.loads(handle).close()


def test_an_engine_that_fails_to_leave_deletes_its_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue: Any = TurboQueue()
    engine = queue._engine
    other = LogFolder.meet(engine.folder.path)

    def fails() -> None:
        other.close()
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(engine, "_leave", fails)
    with pytest.raises(OSError, match="Input/output error"):
        engine.close()
    assert not os.path.exists(engine.folder.path)


def test_who_is_not_the_last_leaves_what_it_had_of_a_lease(root: Path) -> None:
    queue: Any = TurboQueue()
    other = Engine(LogFolder.meet(queue._engine.folder.path))
    queue.put_many(range(100))
    assert [queue.get(timeout=PATIENCE) for _ in range(3)] == [0, 1, 2]
    queue.close()
    assert other.qsize() == 97
    other.close()


def gone(path: str) -> bool:
    """The folder goes within moments: what just ends may need one."""
    deadline = time.monotonic() + PATIENCE
    while os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(0.005)
    return not os.path.exists(path)


CHILDREN: list[Any] = []


@pytest.fixture(autouse=True)
def no_child_stays() -> Iterator[None]:
    yield
    while CHILDREN:
        child = CHILDREN.pop()
        child.join(PATIENCE)
        if child.exitcode is None:
            child.kill()
            child.join()


def fork(target: Any, *arguments: Any) -> Any:
    child = FORK.Process(target=target, args=arguments)
    child.start()
    CHILDREN.append(child)
    return child


def path_of(queue: Any) -> str:
    return str(queue._engine.folder.path)


def ledger_of(queue: Any) -> Any:
    return queue._engine.parts.replica.ledger


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# --- the last user ---------------------------------------------------------------------------------------------------


def test_folder_goes_when_the_last_handle_is_closed(root: Path) -> None:
    queue = TurboQueue()
    queue.put("never got")
    assert os.listdir(root) == [os.path.basename(path_of(queue))]
    path = path_of(queue)
    queue.close()
    assert gone(path)
    assert os.listdir(root) == []


def test_folder_goes_when_the_last_handle_is_deleted(root: Path) -> None:
    queue = TurboQueue()
    path = path_of(queue)
    twin = pickle.loads(pickle.dumps(queue))
    del queue
    gc.collect()
    assert os.path.exists(path)
    twin.put("still here")
    assert twin.get(timeout=PATIENCE) == "still here"
    del twin
    gc.collect()
    assert gone(path)


ENDS = {
    "end of the program": "pass",
    "sys.exit": "sys.exit(0)",
    "exception": "raise SystemExit(0)",
    "queue in a reference cycle": "cycle = [queue]; cycle.append(cycle); del queue, cycle",
    "queue in a module": "sys.modules['kept'] = queue",
    "thread that still waits": "threading.Thread(target=queue.get, daemon=True).start(); time.sleep(0.05)",
}


@pytest.mark.parametrize("end", ENDS)
def test_folder_goes_when_its_program_ends(root: Path, end: str) -> None:
    items = 0 if "thread" in end else 300
    code = (
        "import sys, threading, time, tqshim\n"
        "queue = tqshim.TurboQueue()\n"
        f"for n in range({items}): queue.put(n)\n{ENDS[end]}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    assert os.listdir(root) == []


class Looks:
    """Uses something in its finalizer."""

    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    def __del__(self) -> None:
        self.seen.append("looks")


@pytest.mark.parametrize("first", ["used", "user"])
def test_what_finalizers_use_goes_after_the_last_of_them(first: str) -> None:
    seen: list[str] = []
    cycle: list[Any] = []
    if first == "user":
        cycle.append(Looks(seen))
    cycle.append(Finalizer(seen.append, "gone"))
    if first == "used":
        cycle.append(Looks(seen))
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert seen == ["looks", "gone"]
    finalizer = Finalizer(seen.append, "at once")
    assert len(seen) == 2
    del finalizer
    assert seen[2:] == ["at once"]


@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)", "os.abort()"])
def test_folder_of_a_killed_program_goes_with_the_next_creation(root: Path, end: str) -> None:
    code = (
        "import os, resource, signal, tqshim\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        "queue = tqshim.TurboQueue()\n"
        f"for n in range(300): queue.put(n)\n{end}\n"
    )
    subprocess.run([sys.executable, "-c", code], timeout=PATIENCE)
    assert len(os.listdir(root)) == 1
    TurboQueue().close()
    assert os.listdir(root) == []


def test_folder_goes_with_the_last_of_the_killed_users(root: Path) -> None:
    queue = TurboQueue()
    path = path_of(queue)
    children = [fork(_use_for_ever, queue) for _ in range(3)]
    queue.close()
    for child in children:
        TurboQueue().close()
        assert os.path.exists(path)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
    TurboQueue().close()
    assert not os.path.exists(path)


def _use_for_ever(queue: Any) -> None:
    while True:
        queue.put(1)
        with contextlib.suppress(Empty):
            queue.get(timeout=0.01)


def test_forked_child_keeps_the_queue_alive_without_touching_it(root: Path) -> None:
    queue = TurboQueue()
    path = path_of(queue)
    queue.put("for the child")
    said = FORK.SimpleQueue()
    go = FORK.Event()
    child = fork(_get_later, queue, go, said)
    del queue
    gc.collect()
    TurboQueue().close()
    assert os.path.exists(path)
    go.set()
    assert said.get() == "for the child"
    child.join(PATIENCE)
    assert child.exitcode == 0
    assert gone(path)


def _get_later(queue: Any, go: Any, said: Any) -> None:
    go.wait(PATIENCE / 2)
    said.put(queue.get(timeout=PATIENCE))


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_child_gets_its_hold_before_the_parent_lets_go(root: Path, method: str) -> None:
    context = multiprocessing.get_context(method)
    said = context.SimpleQueue()
    path = start_child_and_forget_queue(context, said)
    gc.collect()
    with monkeypatched_marker_life(0.0):
        TurboQueue().close()
        assert said.get() == "for the child"
        TurboQueue().close()
    assert gone(path) or (not TurboQueue().close() and gone(path))


def start_child_and_forget_queue(context: Any, said: Any) -> str:
    queue = TurboQueue()
    queue.put("for the child")
    path = path_of(queue)
    child = context.Process(target=_get_and_say, args=(queue, said))
    child.start()
    CHILDREN.append(child)
    return path


def _get_and_say(queue: Any, said: Any) -> None:
    said.put(queue.get(timeout=PATIENCE))


@contextlib.contextmanager
def monkeypatched_marker_life(seconds: float) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tqshim.storage.places, "MARKER_LIFE", seconds)
        yield


def test_children_of_a_killed_parent_keep_the_queue(root: Path) -> None:
    queue = TurboQueue()
    path = path_of(queue)
    go, said = FORK.Event(), FORK.SimpleQueue()
    parent = fork(_fork_and_be_killed, queue, go, said)
    parent.join()
    assert parent.exitcode == -signal.SIGKILL
    queue.put("for the grandchild")
    queue.close()
    TurboQueue().close()
    assert os.path.exists(path)
    go.set()
    assert said.get() == "for the grandchild"
    assert gone(path)


def _fork_and_be_killed(queue: Any, go: Any, said: Any) -> None:
    FORK.Process(target=_get_later, args=(queue, go, said)).start()
    os.kill(os.getpid(), signal.SIGKILL)


# --- handles on their way --------------------------------------------------------------------------------------------


def test_pickled_handle_keeps_the_queue_and_its_items_until_it_arrives(root: Path) -> None:
    queue = TurboQueue()
    path = path_of(queue)
    queue.put("kept")
    data = pickle.dumps(queue)
    queue.close()
    del queue
    gc.collect()
    TurboQueue().close()
    assert os.path.exists(path)
    arrived = pickle.loads(data)
    assert arrived.get(timeout=PATIENCE) == "kept"
    arrived.close()
    assert gone(path)


def test_pickled_handle_that_never_arrives_keeps_the_queue_for_a_minute_only(root: Path) -> None:
    queue = TurboQueue()
    path = path_of(queue)
    data = pickle.dumps(queue)
    queue.close()
    (marker,) = Path(path).glob("marker_*")
    past = time.time() - tqshim.storage.places.MARKER_LIFE - 1
    os.utime(marker, (past, past))
    TurboQueue().close()
    assert not os.path.exists(path)
    with pytest.raises(FileNotFoundError, match="gone"):
        pickle.loads(data)


def test_marker_from_the_future_expires_too(root: Path) -> None:
    queue = TurboQueue()
    path = path_of(queue)
    pickle.dumps(queue)
    queue.close()
    (marker,) = Path(path).glob("marker_*")
    future = time.time() + tqshim.storage.places.MARKER_LIFE + 100
    os.utime(marker, (future, future))  # the clock was put back since
    TurboQueue().close()
    assert not os.path.exists(path)


def test_handle_inside_another_queue_keeps_its_queue(root: Path) -> None:
    outer, inner = TurboQueue(), TurboQueue()
    inner.put("inner item")
    outer.put(inner)
    path = path_of(inner)
    del inner
    gc.collect()
    TurboQueue().close()
    assert os.path.exists(path)
    arrived = outer.get(timeout=PATIENCE)
    assert arrived.get(timeout=PATIENCE) == "inner item"
    del arrived
    gc.collect()
    assert gone(path)
    outer.close()


# --- the sweep -------------------------------------------------------------------------------------------------------


def test_sweep_leaves_queues_in_use_and_what_is_not_its_own(root: Path) -> None:
    queue = TurboQueue()
    queue.put("kept")
    child = fork(_get_later, queue, go := FORK.Event(), said := FORK.SimpleQueue())
    strangers = ["tqshim", "somebody", "dead_somebody", "tqshim_x"]
    for name in strangers:
        (root / name).mkdir()
        (root / name / "file").touch()
    (root / "tqshim-file").touch()
    (root / "tqshim-link").symlink_to(root / "somebody")
    tqshim.storage.places.sweep(str(root), ())
    TurboQueue().close()
    assert sorted(os.listdir(root)) == sorted(
        [*strangers, "tqshim-file", "tqshim-link", os.path.basename(path_of(queue))]
    )
    assert all(os.listdir(root / name) == ["file"] for name in strangers)
    go.set()
    assert said.get() == "kept"
    child.join(PATIENCE)
    for name in strangers:
        (root / name / "file").unlink()
        (root / name).rmdir()
    (root / "tqshim-file").unlink()
    (root / "tqshim-link").unlink()
    queue.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_sweep_leaves_folders_of_other_users(root: Path) -> None:
    other = root / "tqshim-0123456789abcdef"
    other.mkdir(0o700)
    (other / "journal_0").touch()
    os.chown(other, 12345, 12345)
    TurboQueue().close()
    tqshim.storage.places.sweep(str(root), ())
    assert os.listdir(other) == ["journal_0"]
    os.chown(other, os.geteuid(), os.getegid())
    TurboQueue().close()
    assert os.listdir(root) == []


def test_many_processes_that_create_and_sweep_at_once_do_not_disturb_each_other(root: Path) -> None:
    children = [fork(_create_and_drop, 40) for _ in range(6)]
    for child in children:
        child.join(PATIENCE)
    assert [child.exitcode for child in children] == [0] * 6
    TurboQueue().close()
    assert os.listdir(root) == []


def _create_and_drop(times: int) -> None:
    for number in range(times):
        queue = TurboQueue()
        queue.put(number)
        assert queue.get(timeout=PATIENCE) == number


# --- nothing grows ---------------------------------------------------------------------------------------------------


def usage(path: str) -> tuple[int, int]:
    """Files of a queue, and blocks of 512 bytes that they take."""
    files = list(os.scandir(path))
    return len(files), sum(file.stat(follow_symlinks=False).st_blocks for file in files)


SOME_OR_300 = pytest.mark.parametrize("count", [60, pytest.param(300, marks=pytest.mark.stress)])
"""Processes, or queues: a file, descriptor, object or page that each of them leaves shows with some."""


@pytest.mark.in_turn
@needs_proc
@SOME_OR_300
@pytest.mark.parametrize("maxsize", [0, 10])
def test_processes_one_after_the_other_leave_nothing_in_their_queue(
    root: Path, maxsize: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tqshim.engine.tuning, "LIMITS", (256, 256))  # journals that do not grow as they roll
    queue = TurboQueue(maxsize)
    path = path_of(queue)
    before = (0, 0), 0
    warm = count // 4
    for number in range(count):
        pid = os.fork()
        if not pid:
            try:
                queue.put(number)
                queue.put(-number)
                assert queue.get(timeout=PATIENCE) == number
                if number % 3 == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                if number % 3 == 1:
                    queue._engine.close()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        assert queue.get(timeout=PATIENCE) == -number
        if number in (warm, count - 1):
            deadline = time.monotonic() + PATIENCE
            while len(ledger_of(queue).members.by_slot) > 2 and time.monotonic() < deadline:
                with contextlib.suppress(Empty):
                    queue.get(timeout=0.3)  # a waiter looks for what the killed ones left
        if number == warm:
            before = usage(path), descriptors()
    after = usage(path), descriptors()
    assert after[0][0] <= before[0][0] + 1
    assert after[0][1] <= before[0][1] + 64  # a spare journal, and what is filled again, is there or not
    assert after[1] <= before[1] + 2  # of the few batch files that a consumer keeps open
    ledger = ledger_of(queue)
    assert len(ledger.members.by_slot) <= 2
    assert len(ledger.members.by_slot) + len(ledger.members.free) <= 8, "slots are used again"
    queue.close()


@pytest.mark.in_turn
@needs_proc
@SOME_OR_300
def test_children_of_multiprocessing_leave_nothing_in_their_queue(
    root: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tqshim.engine.tuning, "LIMITS", (64, 64))  # some are rolled early, too
    queue = TurboQueue()
    path = path_of(queue)
    counts = []
    for number in range(count):
        child = FORK.Process(target=_put_two, args=(queue, number))
        child.start()
        child.join()
        child.close()
        assert [queue.get(timeout=PATIENCE), queue.get(timeout=PATIENCE)] == [number, -number]
        counts.append((usage(path)[0], descriptors(), len(ledger_of(queue).members.by_slot)))
    assert max(counts[-10:]) <= max(counts[10 : count // 2])
    queue.close()


def _put_two(queue: Any, number: int) -> None:
    queue.put(number)
    queue.put(-number)


def resident() -> int:
    """Kilobytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


@needs_proc
def test_300_queues_made_and_dropped_leave_no_descriptor_file_or_memory(root: Path) -> None:
    def cycle() -> None:
        queue = TurboQueue(5)
        queue.put("x")
        queue.put_many(["y", "z"])
        assert queue.get(timeout=PATIENCE) == "x"
        with contextlib.suppress(tqshim.Full):
            queue.put_many_nowait("abcde")
        queue.qsize()
        assert queue.get_many(timeout=PATIENCE) == ["y", "z"]
        with contextlib.suppress(Empty):
            queue.get(timeout=0.0001)

    for _ in range(50):
        cycle()
    gc.collect()
    before = descriptors(), len(gc.get_objects()), resident()
    for _ in range(300):
        cycle()
    gc.collect()
    after = descriptors(), len(gc.get_objects()), resident()
    assert os.listdir(root) == []
    assert after[0] <= before[0]
    assert after[1] - before[1] < 300, "not one object a queue"
    assert after[2] - before[2] < 4096
    assert not Engine.all


THOUSAND = """
import os, resource, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20000), hard))
from tqshim import TurboQueue
queues = [TurboQueue(10 * (number % 2)) for number in range(1000)]
for number, queue in enumerate(queues):
    queue.put(number)
assert [queue.get(timeout=60) for queue in queues] == list(range(1000))
size = 0
for folder in os.scandir(os.environ["TQSHIM_DIR"]):
    size += sum(file.stat(follow_symlinks=False).st_blocks for file in os.scandir(folder.path)) * 512
print(size, len(os.listdir("/proc/self/fd")))
"""


@pytest.mark.in_turn
@needs_proc
def test_1000_open_queues_work_and_fit_into_a_stock_container(root: Path) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 10_000:
        pytest.skip("the hard limit on descriptors is too low for a thousand queues")
    done = subprocess.run([sys.executable, "-c", THOUSAND], capture_output=True, text=True, timeout=4 * PATIENCE)
    assert done.returncode == 0, done.stderr
    size, open_files = map(int, done.stdout.split())
    assert size < 64 << 20
    assert open_files < 10_000
    assert os.listdir(root) == []


def test_what_a_killed_run_of_the_tests_has_left_the_next_one_removes(tmp_path: Path) -> None:
    """A run that lives keeps its folder, and so does one whose forked child lives."""
    ready = FORK.Pipe(False)

    def run(inherit: bool) -> None:
        folder = own_folder.make("run-of-tests-", str(tmp_path))
        (Path(folder) / "queue").mkdir()
        child = os.fork() if inherit else -1
        if not child:
            signal.pause()
        ready[1].send((os.getpid(), child, folder))
        signal.pause()

    def start(inherit: bool) -> tuple[Any, int, Path]:
        process = FORK.Process(target=run, args=(inherit,))
        process.start()
        _, child, folder = ready[0].recv()
        return process, child, Path(folder)

    killed, orphaned, living = start(False), start(True), start(False)
    for process, _, _ in (killed, orphaned):
        process.kill()
        process.join()
    mine = Path(own_folder.make("run-of-tests-", str(tmp_path)))
    assert not killed[2].exists()
    assert mine.exists() and orphaned[2].exists() and living[2].exists()
    assert own_folder.sweep("run-of-tests-", str(tmp_path)) == []
    os.kill(orphaned[1], signal.SIGKILL)
    living[0].kill()
    living[0].join()
    deadline = time.monotonic() + PATIENCE
    while orphaned[2].exists() and time.monotonic() < deadline:
        own_folder.sweep("run-of-tests-", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [mine.name]
