"""Items that go to another disk when the first is full are found again, also where other programs tidy up there."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from places import run

import tqshim.runtime.systems
from tqshim import FolderError, TurboQueue, monitor

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mounts of these tests are Linux's")
PATIENCE = 60.0
ITEM = 5_000_000
SMALL = "mount -t tmpfs -o size=64m none /dev/shm"


def spilled(queue: Any, disk: Path) -> str:
    """Where it has spilled to: 25 items are waiting."""
    for number in range(25):
        queue.put(bytes([number]) * ITEM)
    (folder,) = disk.iterdir()
    return os.readlink(folder / "spill")


def drained(queue: Any) -> list[int]:
    return [queue.get(timeout=PATIENCE)[0] for _ in range(queue.qsize())]


def test_a_spill_folder_that_was_removed_while_it_was_empty_is_made_and_found_again(small_disk: Path) -> None:
    """As by who cleans /tmp.  Who had it open finds what others spill then, and spills there itself."""
    queue = TurboQueue()
    where = spilled(queue, small_disk)
    assert drained(queue) == [*range(25)]
    shutil.rmtree(where)
    program = f"import pickle, sys; q = pickle.load(sys.stdin.buffer); [q.put(bytes([n]) * {ITEM}) for n in range(20)]"
    subprocess.run([sys.executable, "-c", program], input=pickle.dumps(queue), check=True, timeout=PATIENCE)
    assert os.listdir(where)
    assert drained(queue) == [*range(20)]
    shutil.rmtree(where)
    assert spilled(queue, small_disk) == where
    assert drained(queue) == [*range(25)]


@pytest.mark.parametrize("open_there", [True, False])
def test_rm_refuses_the_spill_folder_of_a_queue(small_disk: Path, open_there: bool) -> None:
    """Also where no living process has opened it yet: its queue's folder tells."""
    queue = TurboQueue()
    if open_there:
        where = spilled(queue, small_disk)
    else:
        program = (
            "import os, pickle, sys\nq = pickle.load(sys.stdin.buffer)\n"
            f"for n in range(25): q.put(bytes([n]) * {ITEM})\nos._exit(0)"
        )
        subprocess.run([sys.executable, "-c", program], input=pickle.dumps(queue), check=True, timeout=PATIENCE)
        (folder,) = small_disk.iterdir()
        where = os.readlink(folder / "spill")
    with pytest.raises(FolderError, match="has spilled items to"):
        monitor.remove(where)
    assert drained(queue) == [*range(25)]


def test_a_spill_folder_in_use_is_locked(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its queue is none that can be found."""
    queue = TurboQueue()
    where = spilled(queue, small_disk)
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TQSHIM_DIR", str(small_disk.parent))
        with pytest.raises(FolderError, match="is in use"):
            monitor.remove(where)
    assert drained(queue) == [*range(25)]


def test_where_nobody_may_write_nothing_is_spilled_to(tmp_path: Path) -> None:
    """Small items go on into what is left of the first disk, and a full one is called full."""
    program = """
import errno, pickle, subprocess, sys, tqshim
queue = tqshim.TurboQueue()
try:
    while True:
        queue.put(bytes(1 << 20))
except OSError as error:
    assert error.errno == errno.ENOSPC, error
queue.get()
newcomer = "import pickle, sys; pickle.load(sys.stdin.buffer).put('small')"
subprocess.run([sys.executable, "-c", newcomer], input=pickle.dumps(queue), check=True)
"""
    mounts = f"{SMALL}; mount -t tmpfs none {tmp_path}; mount -o remount,ro {tmp_path}"
    done = run(["-c", program], mounts=mounts, TQSHIM_DIR="/dev/shm", TQSHIM_SPILL_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(tqshim.runtime.systems.PORTABLE, reason="the places are those of Linux")
def test_what_a_killed_program_has_left_in_dev_shm_goes_before_queues_lie_elsewhere(tmp_path: Path) -> None:
    """It takes what a new queue wants to be free there; ``ls`` shows it until then."""
    program = """
import os, signal, subprocess, sys, tqshim
from tqshim.monitor import looking, queues
killed = "import os, tqshim; q = tqshim.Queue(); [q.put(bytes(5 << 20)) for _ in range(8)]; os.kill(os.getpid(), 9)"
subprocess.run([sys.executable, "-c", killed])
(left,) = os.listdir("/dev/shm")
print([(one.path == f"/dev/shm/{left}", one.items) for one in queues(looking.roots())])
queue = tqshim.TurboQueue()
(now,) = os.listdir("/dev/shm")
print(now != left)
"""
    done = run(["-c", program], mounts=SMALL, TMPDIR=str(tmp_path))
    assert done.stdout == "[(True, 8)]\nTrue\n", done.stderr
    assert os.listdir(tmp_path) == []
