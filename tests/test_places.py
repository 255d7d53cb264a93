"""Containers, odd roots, missing parts of the kernel: each place works, or says what to do.

Where the standard library's queue can't even be made, the test of that place says so."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from places import lacking, needs, run

import tqshim.runtime.systems
from tqshim import Empty, TurboQueue

HERE = Path(__file__).parent
LONG = 60.0
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")
pytestmark = [LINUX, pytest.mark.skipif(tqshim.runtime.systems.PORTABLE, reason="the places are those of Linux")]
NO_SHM = """
    dev=$(TMPDIR= mktemp -d); mount -t tmpfs none "$dev"
    for name in null zero urandom random; do touch "$dev/$name"; mount --bind "/dev/$name" "$dev/$name"; done
    mount --move "$dev" /dev; rmdir "$dev"
"""
"""A /dev without shm, as in AWS Lambda."""
SMALL = "mount -t tmpfs -o size=1m none /dev/shm"
NO_PROC = "mount -t tmpfs none /proc"
STANDARD = "import multiprocessing; q = multiprocessing.Queue(); q.put(1); print(q.get())"


def place(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """The program of ``programs.place`` there."""
    return run(["-m", "programs.place", *words], **more)


def works(done: subprocess.CompletedProcess[str], where: object) -> None:
    assert (done.returncode, done.stdout) == (0, f"{where}\n"), done.stderr


def refused(done: subprocess.CompletedProcess[str], *said: str) -> None:
    """It ends with an error of ours, which says this."""
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and all(word in last for word in said), done.stderr


# -- where anonymous queues lie


@pytest.mark.in_turn
def test_without_dev_shm_queues_lie_in_the_folder_for_temporary_files(tmp_path: Path) -> None:
    """The standard library's can't be made there: its semaphores are files of /dev/shm."""
    works(place(mounts=NO_SHM, TMPDIR=str(tmp_path)), tmp_path)
    assert "multiprocessing" in run(["-c", STANDARD], mounts=NO_SHM, TMPDIR=str(tmp_path)).stderr


@pytest.mark.in_turn
@pytest.mark.parametrize("mounts", [SMALL, "mount -o remount,ro,bind /dev/shm"])
def test_a_dev_shm_that_is_small_or_read_only_is_passed_over(tmp_path: Path, mounts: str) -> None:
    works(place(mounts=mounts, TMPDIR=str(tmp_path)), tmp_path)


def test_a_dev_shm_that_runs_no_programs_will_do() -> None:
    works(place(mounts="mount -t tmpfs -o noexec,nosuid,nodev none /dev/shm"), "/dev/shm")


def test_a_small_dev_shm_that_was_asked_for_is_used_and_what_is_large_spills(tmp_path: Path) -> None:
    works(place(mounts=SMALL, TQSHIM_DIR="/dev/shm", TMPDIR=str(tmp_path)), "/dev/shm")
    assert os.listdir(tmp_path) == []


def test_a_small_dev_shm_alone_takes_what_has_room_and_refuses_the_rest(tmp_path: Path) -> None:
    alone = {"TQSHIM_DIR": "/dev/shm", "TQSHIM_SPILL_DIR": "/dev/shm"}
    works(place("small", mounts=SMALL, **alone), "/dev/shm")
    program = "from tqshim import TurboQueue; TurboQueue().put(bytes(3 << 20))"
    refused(run(["-c", program], mounts=SMALL, **alone), "OSError", "No space left")


def test_a_folder_for_temporary_files_that_is_not_there_is_passed_over(tmp_path: Path) -> None:
    done = place(mounts=NO_SHM, TMPDIR=str(tmp_path / "nowhere"))
    assert done.returncode == 0 and not done.stdout.startswith(str(tmp_path)), done.stderr


@pytest.mark.in_turn
@pytest.mark.parametrize("name", ["TMPDIR", "TQSHIM_DIR", "TQSHIM_SPILL_DIR"])
def test_a_relative_root_is_one_of_the_folder_in_which_the_queue_was_made(tmp_path: Path, name: str) -> None:
    """Wherever the program goes later, as daemons do, or its child: and so does the next queue."""
    program = """
import os, multiprocessing, tqshim
q = tqshim.TurboQueue()
os.chdir(os.sep)
q.put_many([bytes(2 << 20)] * 3)
child = multiprocessing.get_context("spawn").Process(target=q.put, args=(bytes(2 << 20),))
child.start()
child.join()
assert [len(q.get(timeout=60)) for _ in range(4)] == [2 << 20] * 4
print(os.path.dirname(q._engine.folder.path))
print(os.path.dirname(tqshim.TurboQueue()._engine.folder.path))
"""
    (tmp_path / "rel").mkdir()
    spills = name == "TQSHIM_SPILL_DIR"
    more = {name: "rel", **({"TQSHIM_DIR": "/dev/shm"} if spills else {})}
    done = run(["-c", program], mounts=f"{SMALL if spills else NO_SHM}\ncd {tmp_path}", **more)
    assert done.returncode == 0, done.stderr
    root = "/dev/shm" if spills else str(tmp_path / "rel")
    assert done.stdout.split() == [root, root]
    assert os.listdir(tmp_path / "rel") == []


def test_nothing_is_looked_for_at_home() -> None:
    done = run(["-c", "import os; del os.environ['HOME']; import tqshim; tqshim.TurboQueue().put(1); print(1)"])
    assert done.stdout == "1\n", done.stderr


LAMBDA = f"""{NO_SHM}
    mount -t tmpfs none "$TMPDIR"
    mount -o remount,ro,bind /
"""


def test_in_aws_lambda_queues_work(tmp_path: Path) -> None:
    """No /dev/shm, and nothing but the folder for temporary files can be written to.  The standard library's can't be
    made there."""
    works(place(mounts=LAMBDA, TMPDIR=str(tmp_path)), tmp_path)
    assert run(["-c", STANDARD], mounts=LAMBDA, TMPDIR=str(tmp_path)).returncode == 1


def test_where_nothing_can_be_written_that_is_said(tmp_path: Path) -> None:
    mounts = NO_SHM + "mount -o remount,ro,bind /; mount -o remount,ro /dev; cd /"
    done = run(["-c", "import tqshim; tqshim.TurboQueue()"], mounts=mounts)
    refused(done, "TQSHIM_DIR")


GONE = "deleted while it was in use"
CALLS: dict[str, Callable[[Any], object]] = {
    "put": lambda q: [q.put((number, "." * 1000)) or q.get(timeout=LONG) for number in range(3000)],
    "put_many": lambda q: [q.put_many([(number, "." * 1000)] * 10) for number in range(300)],
    "get": lambda q: q.get(timeout=0.1),
    "get_many": lambda q: q.get_many(timeout=0.1),
    "claimed": lambda q: q.claimed(timeout=0.1).__enter__(),
}


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("call", CALLS)
def test_what_systemd_removes_at_logout_is_said_to_be_gone(
    call: str, used: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``RemoveIPC`` empties a user's /dev/shm, also under daemons of that user.  Of the standard library's queues it
    removes nothing that still has a name.  What needs no file any more still works."""
    monkeypatch.setenv("TQSHIM_DIR", str(tmp_path))
    q: Any = TurboQueue()
    if used:
        q.put_many([1, 2])
        assert q.get() == 1
        q.get()
    shutil.rmtree(q._engine.folder.path)
    try:
        CALLS[call](q)
    except Empty:
        assert used
    except OSError as error:
        assert GONE in str(error) and GONE in repr(error) and error.filename == q._engine.folder.path
        assert GONE in str(pickle.loads(pickle.dumps(error)))
    else:
        pytest.fail("nothing was said")
    q._engine.close()


def test_a_child_whose_queue_is_gone_when_it_starts_says_so(tmp_path: Path) -> None:
    """It has its parent's descriptor of the folder."""
    program = tmp_path / "gone.py"
    program.write_text(
        "import multiprocessing, shutil, tqshim\n"
        "def work(q): q.put(1)\n"
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context('spawn')\n"
        "    q = tqshim.TurboQueue()\n"
        "    child = context.Process(target=work, args=(q, ))\n"
        "    shutil.rmtree(q._engine.folder.path)\n"
        "    child.start(); child.join()\n",
        "utf-8",
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60)
    assert GONE in done.stderr and "recover" not in done.stderr, done.stderr


# -- namespaces, users, limits


def popen(program: str, path: object, *by: str) -> subprocess.Popen[str]:
    needs(*by)
    words = [*by, sys.executable, "-c", program, str(path)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


HOLD = """
import sys
from tqshim import Empty, TurboQueue
q = TurboQueue(path=sys.argv[1])
q.put_many(range(10))
with q.claimed() as item:
    print(item, flush=True)
    sys.stdin.read()
"""
TAKE = """
import sys
from tqshim import Empty, TurboQueue
q = TurboQueue(path=sys.argv[1])
print(*[q.get(timeout=60) for _ in range(9)], flush=True)
print(q.get(timeout=60), flush=True)
"""


@pytest.fixture
def ended() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that do not outlive the test."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for one in started:
        one.kill()
        one.communicate()


@pytest.mark.in_turn
def test_processes_of_two_pid_namespaces_share_a_queue_at_a_path(
    tmp_path: Path, ended: list[subprocess.Popen[str]]
) -> None:
    """Two containers with a volume: neither sees the other's processes, and both have a process 1.  What one had in a
    block of ``claimed`` when it was killed comes to the other."""
    by = ("unshare", "--pid", "--fork", "--kill-child")
    holder = popen(HOLD, tmp_path / "queue", *by)
    ended.append(holder)
    assert holder.stdout is not None and holder.stdout.readline() == "0\n"
    taker = popen(TAKE, tmp_path / "queue", *by)
    ended.append(taker)
    assert taker.stdout is not None and taker.stdout.readline() == "1 2 3 4 5 6 7 8 9\n"
    holder.kill()
    assert taker.stdout.readline() == "0\n"
    assert taker.wait(LONG) == 0


@pytest.mark.parametrize("user", [["--map-root-user"], []])
def test_a_user_of_a_user_namespace_has_queues(user: list[str]) -> None:
    """Also one who has no number there."""
    works(place(by=("unshare", "--user", *user)), "/dev/shm")


@pytest.mark.in_turn
@pytest.mark.parametrize(
    "by",
    [
        ("setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"),
        ("prlimit", "--memlock=0"),
        ("prlimit", "--nice=0", "--rtprio=0"),
        ("prlimit", "--as=1000000000"),
        ("prlimit", "--nofile=64"),
    ],
    ids=" ".join,
)
def test_a_process_that_may_little_has_queues(by: tuple[str, ...]) -> None:
    works(place(by=by), "/dev/shm")


@pytest.mark.parametrize("limit", ["--fsize=1000000"])
def test_a_limit_that_queues_cannot_live_with_is_said(limit: str) -> None:
    refused(place(by=("prlimit", limit)), "UnsupportedError", "RLIMIT_FSIZE", "ulimit -f")


# -- what a kernel may lack


def test_without_proc_queues_work(tmp_path: Path) -> None:
    works(place(mounts=NO_PROC), "/dev/shm")
    works(place(f"path={tmp_path}/queue", mounts=NO_PROC), tmp_path)


@pytest.mark.in_turn
@pytest.mark.parametrize("without", ["membarrier", "ofd", "ofd,membarrier"])
@pytest.mark.parametrize("anonymous", [True, False])
def test_without_some_system_calls_queues_work(tmp_path: Path, anonymous: bool, without: str) -> None:
    """A filter without ``membarrier``; no locks of open files, as in gVisor and WSL1: large items are copied."""
    if os.uname().machine not in ("x86_64", "aarch64"):
        lacking("seccomp", "their numbers are not known here")
    words = [] if anonymous else [f"path={tmp_path}/queue"]
    works(place(f"without={without}", *words), "/dev/shm" if anonymous else tmp_path)


FILL = """
import os, sys
from tqshim import Empty, TurboQueue
q = TurboQueue(path=sys.argv[1])
with open(sys.argv[2], "w") as group:
    group.write(str(os.getpid()))
for number in range(1000):
    q.put((number, os.urandom(1 << 20)))
    os.write(1, b"%d\\n" % number)
"""


@pytest.mark.in_turn
def test_what_was_put_before_a_memory_cgroup_killed_its_producer_is_there(tmp_path: Path) -> None:
    """Files in memory count there: a backlog beyond the limit ends its producer, or ``put`` raises.  The standard
    library's counts as its producer's own memory, and dies with it."""
    groups = Path("/sys/fs/cgroup/memory")
    groups = groups if groups.is_dir() else groups.parent
    limit = "memory.limit_in_bytes" if groups.name == "memory" else "memory.max"
    group = groups / f"tqshim-test-{os.getpid()}"
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        group.mkdir()
        (group / limit).write_text(str(64 << 20))
    except OSError as error:
        lacking("memory cgroup", str(error))
    mounted = subprocess.run(["mount", "-t", "tmpfs", "none", str(disk)], capture_output=True, text=True)
    if mounted.returncode:
        lacking("mount", mounted.stderr)
    try:
        words = [sys.executable, "-c", FILL, str(disk / "queue"), str(group / "cgroup.procs")]
        done = subprocess.run(words, capture_output=True, text=True, timeout=LONG)
        assert done.returncode in (1, -signal.SIGKILL), done.stderr
        put = len(done.stdout.splitlines())
        assert 0 < put < 64
        with TurboQueue(path=str(disk / "queue")) as q:
            got = [q.get(timeout=LONG)[0] for _ in range(put)]
        assert got == list(range(put))
        del q
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
        deadline = time.monotonic() + LONG
        while time.monotonic() < deadline:
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.05)
