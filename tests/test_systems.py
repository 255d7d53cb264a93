"""One switch turns off what only some systems have; locks hold whatever a signal handler raises."""

from __future__ import annotations

import ast
import ctypes
import importlib.util
import os
import stat
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from test_house import INSIDE, ROOMS

import tqshim.runtime.systems
import tqshim.storage.journal
from tqshim import FolderError, TurboQueue
from tqshim.runtime import locks, own_fcntl
from tqshim.sync import membarrier

USE = """
import os, sys, select
seen = []
def hook(event, arguments):
    if event == "open" or event.startswith(("fcntl.ioctl", "ctypes.dlopen")):
        seen.append(f"{event} {arguments[0]!r}")
    elif event == "os.listdir" and isinstance(arguments[0], str):
        seen.append(f"{event} {arguments[0]!r}")
sys.addaudithook(hook)
for name in ("epoll", ):
    def refuse(*arguments, known=getattr(select, name, None)):
        if "tqshim" in sys._getframe(1).f_code.co_filename:  # selectors tries it, too
            seen.append("select.epoll")
        return known(*arguments)
    setattr(select, name, refuse)
for name in ("pwritev", "sched_getaffinity"):
    def refuse(*arguments, name=name, known=getattr(os, name, None)):
        seen.append(f"os.{name}")
        return known(*arguments)
    if hasattr(os, name):
        setattr(os, name, refuse)
known_mkfifo = os.mkfifo
def mkfifo(path, mode=0o666, *, dir_fd=None):
    if dir_fd is not None:
        seen.append("os.mkfifo with dir_fd")
    return known_mkfifo(path, mode, dir_fd=dir_fd)
os.supports_dir_fd.add(mkfifo)
os.mkfifo = mkfifo

import tqshim, tqshim.monitor, tqshim.engine.tuning
tqshim.engine.tuning.LIMITS = (16, 64)
del os.environ["TQSHIM_DIR"]
for maxsize in (0, 3000):
    q = tqshim.TurboQueue(maxsize)
    for number in range(500):
        q.put(number)
    q.put_many([b"x" * 100] * 1000)
    q.put_many([b"x" * 30_000] * 20)
    assert [q.get() for _ in range(500)] == list(range(500))
    assert sum(1 for _ in q.drain()) == 1020
    try:
        q.get(timeout=0.01)
    except tqshim.Empty:
        pass
    where = q._engine.folder.path
    assert where in [found.path for found in tqshim.monitor.queues()]
    q.close()
    assert not os.path.exists(where)
import tqshim.turbo_queue.sqlite_files
tqshim.turbo_queue.sqlite_files._open_now()
print(*seen, sep="\\n")
print("where", where)
"""
LINUX = ("epoll", "/proc", "/dev/shm", "ioctl", "dlopen", "pwritev", "sched_getaffinity", "mkfifo with dir_fd")


def use(folder: Path, **variables: str) -> str:
    """What a program that uses queues asks of its system."""
    surroundings = {**os.environ, "TMPDIR": str(folder), **variables}
    done = subprocess.run([sys.executable, "-c", USE], env=surroundings, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.in_turn
def test_the_switch_does_without_all_that_only_linux_has(tmp_path: Path) -> None:
    """Nothing of it is asked for, not even to find out whether it is there."""
    seen = use(tmp_path, TQSHIM_PORTABLE="1")
    assert f"where {tmp_path}" in seen
    lines = [line for line in seen.splitlines() if "nonexistent" not in line and ".py" not in line]
    assert [line for line in lines if any(word in line for word in LINUX)] == []


@pytest.mark.skipif(sys.platform != "linux", reason="there is none of it here")
@pytest.mark.skipif(tqshim.runtime.systems.PORTABLE, reason="it is switched off")
def test_without_the_switch_it_is_used(tmp_path: Path) -> None:
    """The control: what the test above does not find, it would find."""
    seen = use(tmp_path)
    missing = [word for word in LINUX if word not in seen]
    assert missing in ([], ["/dev/shm"])  # it may be too small here


def test_who_has_no_barrier_waits_for_those_who_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """A 32-bit program, say, beside others: it ends their leases, too."""
    waited: list[float] = []
    membarrier._syscall.cache_clear()
    monkeypatch.setattr(tqshim.runtime.systems, "MEMBARRIER", None)
    monkeypatch.setattr(membarrier, "time", SimpleNamespace(sleep=waited.append))
    membarrier.barrier()
    membarrier._syscall.cache_clear()
    assert waited == [0.05]


TELLING = ("/proc", "/dev/shm", "TQSHIM_PORTABLE", "darwin", "linux", "win32")


@pytest.mark.in_turn
def test_no_other_room_asks_for_the_system() -> None:
    """No path, no name, no variable of it; docstrings may speak of them."""
    for room in sorted(set(INSIDE) - {"errors", "runtime.systems"}):
        tree = ROOMS[room]
        documents = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        documents |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        found = [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in documents
            and any(word in node.value for word in TELLING)
        ]
        found += [
            f"{node.value.id}.{node.attr}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and (node.value.id, node.attr) in {("sys", "platform"), ("os", "uname"), ("os", "sched_getaffinity")}
        ]
        assert found == [], room


def as_on(system: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The room as it is there."""
    path = Path(tqshim.runtime.systems.__file__ or "")
    spec = importlib.util.spec_from_file_location("systems_there", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with monkeypatch.context() as there:
        there.setattr(sys, "platform", system)
        there.delenv("TQSHIM_PORTABLE", raising=False)
        spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "armv7l", "i686"])
def test_there_are_no_grants_where_a_word_takes_two_stores(monkeypatch: pytest.MonkeyPatch, machine: str) -> None:
    """A 32-bit Python says the processor's name or the kernel's."""
    monkeypatch.setattr(struct, "calcsize", lambda _: 4)
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))
    assert as_on("linux", monkeypatch).MEMBARRIER is None


def test_no_short_ways_in_a_free_threaded_build_whatever_it_has_just_now() -> None:
    """It has the lock while it imports some modules; and one of those may import this package."""
    program = "import sys; sys.abiflags = 't'; sys._is_gil_enabled = lambda: True; "
    program += "from tqshim.engine import tuning; print(tuning.GIL, tuning.SHORT_WAYS)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "False False\n", done.stderr


def test_macos_lays_its_structures_out_as_its_headers_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """``bsd/sys/fcntl.h``: struct flock is start, length (8 bytes), process (4), type, whence (2); struct fstore is
    flags, mode (4), offset, length, bytes found (8)."""
    there = as_on("darwin", monkeypatch)
    assert there.FLOCK.size == 24
    data = there.flock(3, 7, 1)
    assert struct.unpack_from("<q", data, 0) == (7,)
    assert struct.unpack_from("<q", data, 8) == (1,)
    assert struct.unpack_from("<hh", data, 20) == (3, 0)
    assert there.kind_and_process(data[:16] + struct.pack("<i", 4711) + data[20:]) == (3, 4711)
    assert there.FSTORE.size == 32
    data = there.FSTORE.pack(there.ALL_OR_NOTHING | there.KEPT_WHEN_CLOSED, there.FROM_END, 0, 4096, 0)
    assert struct.unpack_from("<Iiqqq", data) == (4 | 8, 3, 0, 4096, 0)
    assert (there.PREALLOCATE, there.RESVSP, there.MEMBARRIER, there.MAPS_AHEAD) == (42, None, None, False)


def test_macos_says_what_a_file_system_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """``bsd/sys/mount.h``: struct statfs is 2168 bytes, the name of its kind the 16 from the 73rd on."""
    there = as_on("darwin", monkeypatch)
    assert there.HAS_FSTATFS and there.STATFS_SIZE >= 2168
    assert there.kind_of_statfs(bytes(72) + b"smbfs".ljust(16, b"\0") + bytes(2080)) == "smbfs"


def test_linux_lays_its_structures_out_as_its_headers_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """``linux/falloc.h``: struct space_resv is type, whence (2 bytes), 4 of padding, start, length (8), four more."""
    there = as_on("linux", monkeypatch)
    assert there.SPACE_RESV.size == 48
    data = there.SPACE_RESV.pack(0, 0, 0, 4096, 0, 0, 0, 0, 0, 0)
    assert struct.unpack_from("<q", data, 16) == (4096,)
    assert there.PREALLOCATE is None


def test_on_macos_only_the_space_that_is_missing_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """There it is counted from what the file has on disk, and freed when the file is closed unless one forbids it."""
    asked: list[Any] = []
    there = as_on("darwin", monkeypatch)
    monkeypatch.setattr(tqshim.storage.journal, "systems", there)
    monkeypatch.setattr(own_fcntl, "fcntl", lambda fd, what, data: asked.append((what, there.FSTORE.unpack(data))))
    file = tmp_path / "file"
    file.write_bytes(bytes(8192))
    fd = os.open(file, os.O_RDWR)
    try:
        has = os.fstat(fd).st_blocks * 512
        assert tqshim.storage.journal.reserve_space(fd, has + 4096)
        assert tqshim.storage.journal.reserve_space(fd, has)
    finally:
        os.close(fd)
    assert asked == [(42, (4 | 8, 3, 0, 4096, 0))]


def test_a_fifo_made_by_path_is_made_in_the_folder_that_was_opened(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """macOS before 13: by path; a folder put in the place of one that is in use gets none."""
    monkeypatch.setattr(tqshim.runtime.systems, "MKFIFO_AT", False)
    path = tmp_path / "queue"
    q: Any = TurboQueue(path=str(path))
    folder = q._engine.folder
    os.close(folder.open_fifo("space"))
    assert stat.S_ISFIFO(os.stat(path / "space").st_mode)
    os.rename(path, tmp_path / "moved")
    path.mkdir()
    with pytest.raises(FolderError, match="another folder"):
        folder.open_fifo("bell")
    assert list(path.iterdir()) == []
    q.close()


LEFT = """
import signal, sys
from tqshim.runtime.locks import Lock, RLock
class Interrupt(Exception):
    pass
armed = False
def handle(number, frame):
    if armed:
        raise Interrupt
signal.signal(signal.SIGALRM, handle)
hits = 0
for make in (Lock, RLock):
    lock = make()
    for turn in range(1000):
        try:
            armed = True
            signal.setitimer(signal.ITIMER_REAL, (1 + turn % 40) * 1e-6)
            while True:
                with lock:
                    pass
        except Interrupt:
            hits += 1
        armed = False
        release = lock.__exit__
        try:
            release(None, None, None)
        except RuntimeError:
            continue
        sys.exit(f"left taken at turn {turn}")
print(hits)
"""


@pytest.mark.skipif(
    sys.version_info < (3, 10),
    reason="3.9 may run a handler when the with statement's body has ended and the lock is not given back yet",
)
def test_a_lock_is_never_left_taken_by_a_handlers_exception() -> None:
    """A plain one is from CPython 3.14 on: a handler may run there before the with statement's first instruction."""
    done = subprocess.run([sys.executable, "-c", LEFT], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 1500


RETURNED = """
import ctypes, signal
class Interrupt(Exception):
    pass
def handle(number, frame):
    raise Interrupt
signal.signal(signal.SIGUSR1, handle)
comes = ctypes.PyDLL(None)["raise"]  # C code that runs no handler
caught = []
def take(signals):
    try:
        return None in signals  # Nor does one run behind this: it comes to where the try block has ended.
    except Interrupt:
        caught.append(1)
        raise
got = []
try:
    got.extend(map(take, [map(comes, [signal.SIGUSR1])]))
except Interrupt:
    print(got, caught)
"""


def test_what_a_try_block_returns_is_returned_or_its_clauses_see_why_not() -> None:
    """Not so on 3.9, where a handler may run in between: whatever a function does, what it was to return is lost."""
    done = subprocess.run([sys.executable, "-c", RETURNED], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("[] []\n" if sys.version_info[:2] == (3, 9) else "[False] []\n")


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="a lock of Python's own made of a C lock; later it is one word")
def test_a_fork_frees_a_lock_that_a_thread_has_just_taken_without_saying_so() -> None:
    """It has the C lock, and waits for the GIL to say so; in the child nobody ever does."""
    lock = locks.RLock()
    inner = ctypes.c_void_p.from_address(id(lock) + object.__basicsize__)
    acquire = ctypes.pythonapi.PyThread_acquire_lock
    acquire.argtypes = [ctypes.c_void_p, ctypes.c_int]
    assert acquire(inner, 0) and not lock.acquire(False)
    locks.forked(lock)
    with lock:
        assert lock._is_owned()
    assert lock.acquire(False)
    lock.release()
