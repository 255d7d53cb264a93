"""Queues lie on file systems of one machine; those of a network, or shared with another machine, are refused.

They are refused each time a queue is opened, not only when it is made.  The standard library's queues use none."""

from __future__ import annotations

import ctypes
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from places import MOUNTS, lacking, needs, run

import tqshim.runtime.systems
import tqshim.storage.places
from tqshim import TurboQueue, UnsupportedError, monitor

HERE = Path(__file__).parent
REFUSED = ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse", "fuse.sshfs", "fuseblk", "virtiofs", "vboxsf", "vmhgfs", "prl")
REFUSED += ("gpfs", "lustre", "beegfs", "ceph", "afs", "glusterfs", "ocfs2", "gfs2", "orangefs", "davfs", "new.one")
LOCAL = ("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs", "overlay", "tmpfs", "ramfs", "lxfs")


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets the kernel's list of mounts say that all lies on a file system of some kind."""

    def say(kind: str) -> None:
        device = os.stat(tmp_path).st_dev
        table = tmp_path / "proc" / "self" / "mountinfo"
        table.parent.mkdir(parents=True, exist_ok=True)
        line = f"36 35 {os.major(device)}:{os.minor(device)} / /mnt rw,noatime master:1 - {kind} server:/ rw\n"
        table.write_text(f"1 0 0:1 / /proc rw - proc proc rw\n{line}")
        monkeypatch.setattr(tqshim.runtime.systems, "PROC", str(tmp_path / "proc"))
        monkeypatch.setattr(tqshim.storage.places, "_kinds", {})

    return say


@pytest.mark.parametrize("kind", REFUSED)
def test_a_shared_file_system_is_refused_at_every_open(tmp_path: Path, told: Callable[[str], None], kind: str) -> None:
    """A new queue, one that is there, a handle that was pickled for another machine; and nothing is left behind."""
    path = tmp_path / "there"
    q: Any = TurboQueue(path=str(path))
    q.put("item")
    data = pickle.dumps(q)
    q._engine.close()
    told(kind)
    ways: list[Callable[[], Any]] = [
        lambda: TurboQueue(path=str(tmp_path / "new")),
        lambda: TurboQueue(path=str(path)),
        lambda: pickle.loads(data),
        lambda: monitor.drain(str(path), print),
        lambda: monitor.fill(str(path), ["1"]),
        lambda: monitor.remove(str(path)),
    ]
    for way in ways:
        with pytest.raises(UnsupportedError, match=rf"lies on {kind}, .*local disk"):
            way()
    assert not (tmp_path / "new").exists()
    assert monitor.status(str(path)).items == 1  # to look does no harm


def test_a_refused_queue_leaves_no_folder_that_was_made_for_it(
    tmp_path: Path, told: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And folders that were there, or in which something lies by then, stay."""
    told("nfs")
    (tmp_path / "there").mkdir()
    for parent in (tmp_path / "a", tmp_path / "there"):
        with pytest.raises(UnsupportedError, match="lies on nfs"):
            TurboQueue(path=str(parent / "b" / "c" / "queue"))
    assert not (tmp_path / "a").exists()
    assert os.listdir(tmp_path / "there") == []

    def in_between(*_: Any) -> None:
        (tmp_path / "a" / "letter.txt").touch()
        raise UnsupportedError("here", "lies on nfs", "go elsewhere")

    monkeypatch.setattr(tqshim.storage.places, "check_file_system", in_between)
    with pytest.raises(UnsupportedError, match="lies on nfs"):
        TurboQueue(path=str(tmp_path / "a" / "b" / "queue"))
    assert os.listdir(tmp_path / "a") == ["letter.txt"]


def test_a_name_that_no_file_can_have_leaves_no_folder_either(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="File name too long"):
        TurboQueue(path=str(tmp_path / "a" / "b" / ("x" * 300)))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", LOCAL)
def test_a_local_file_system_will_do(tmp_path: Path, told: Callable[[str], None], kind: str) -> None:
    told(kind)
    with TurboQueue(path=str(tmp_path / "queue")) as q:
        q.put("item")
        assert q.get() == "item"


def test_anonymous_queues_are_refused_there_too(
    tmp_path: Path, told: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    told("nfs4")
    monkeypatch.setenv("TQSHIM_DIR", str(tmp_path))
    with pytest.raises(UnsupportedError, match="nfs4"):
        TurboQueue()
    assert sorted(os.listdir(tmp_path)) == ["proc"]


def test_the_default_place_costs_no_look_at_the_mounts(monkeypatch: pytest.MonkeyPatch) -> None:
    """And another one costs one, a process."""
    looks: list[int] = []

    def count(fd: int) -> str:
        looks.append(fd)
        return "tmpfs"

    monkeypatch.setattr(tqshim.storage.places, "_by_mounts", lambda fd, device: count(fd))
    monkeypatch.setattr(tqshim.storage.places, "_kinds", {})
    for _ in range(2):
        TurboQueue().close()
    assert len(looks) == 1
    monkeypatch.setattr(tqshim.storage.places, "_kinds", {})
    monkeypatch.setattr(tqshim.runtime.systems, "SHM", os.environ["TQSHIM_DIR"])
    TurboQueue().close()
    assert len(looks) == 1


@pytest.mark.skipif(not tqshim.runtime.systems.HAS_FSTATFS, reason="nothing else says it here")
@pytest.mark.parametrize("magic", [0x6969, 0x65735546, 0x01021997, 0xFF534D42, 0xEF53, 0x12345678])
def test_where_no_list_of_mounts_is_told_statfs_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, magic: int
) -> None:
    """Without /proc, and for mounts outside of a chroot.  What it does not know to be shared is let through."""
    monkeypatch.setattr(tqshim.runtime.systems, "PROC", str(tmp_path))
    monkeypatch.setattr(tqshim.runtime.systems, "DARWIN", False)
    monkeypatch.setattr(tqshim.storage.places, "_kinds", {})
    q: Any = TurboQueue(path=str(tmp_path / "queue"))  # what it really says
    q._engine.close()

    class Library:
        def __init__(self, name: None) -> None:
            pass

        def __getattr__(self, name: str) -> Any:
            def answer(fd: int, place: Any) -> int:
                place[:4] = magic.to_bytes(4, sys.byteorder)
                return 0

            return answer

    monkeypatch.setattr(ctypes, "CDLL", Library)
    monkeypatch.setattr(tqshim.storage.places, "_kinds", {})
    kind = tqshim.runtime.systems.SHARED_MAGIC.get(magic)
    try:
        TurboQueue(path=str(tmp_path / "queue"))
    except UnsupportedError as error:
        assert kind is not None and kind in str(error)
    else:
        assert kind is None


def mount(mounts: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Try a queue at a path with these mounts."""
    program = "import sys; from tqshim import TurboQueue; q = TurboQueue(path=sys.argv[1]); q.put(1); print(q.get())"
    return run(["-c", program, *words], mounts=mounts, **variables)


@pytest.mark.parametrize("kind", ["tmpfs", "ramfs"])
def test_file_systems_in_memory_that_are_really_mounted_will_do(tmp_path: Path, kind: str) -> None:
    done = mount(f"mount -t {kind} none {tmp_path}", str(tmp_path / "queue"))
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_an_overlay_that_is_really_mounted_will_do(tmp_path: Path) -> None:
    """A container's root, and a queue that came with its image."""
    image, there = tmp_path / "image", tmp_path / "there"
    there.mkdir()
    with TurboQueue(path=str(image / "queue")):
        pass
    mounts = f"""
        mount -t tmpfs none {there}; cd {there}; mkdir up work all
        mount -t overlay -o lowerdir={image},upperdir=up,workdir=work none all"""
    for name in ("queue", "new"):
        done = mount(mounts, f"{there}/all/{name}")
        assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_a_disk_that_is_really_mounted_will_do(tmp_path: Path) -> None:
    needs("mkfs.ext4", "-V")
    there = tmp_path / "there"
    there.mkdir()
    with open(tmp_path / "disk", "wb") as disk:
        disk.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(tmp_path / "disk")], check=True)
    done = mount(f"mount -o loop {tmp_path}/disk {there}", str(there / "queue"))
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_a_kind_that_nobody_knows_to_be_local_is_refused_where_it_is_really_mounted(tmp_path: Path) -> None:
    done = mount(f"mount -t hugetlbfs none {tmp_path}", str(tmp_path / "queue"))
    assert done.returncode == 1
    assert "UnsupportedError" in done.stderr and "hugetlbfs" in done.stderr


def test_a_file_system_in_the_place_of_one_that_was_unmounted_is_known(tmp_path: Path) -> None:
    """It may have the other's device number."""
    needs(*MOUNTS)
    program = """
import subprocess, sys
from tqshim import TurboQueue
path = sys.argv[1]
for kind in ("tmpfs", "hugetlbfs"):
    subprocess.run(["mount", "-t", kind, "none", path], check=True)
    queue = TurboQueue(path=path + "/queue")
    queue._engine.close()
    del queue
    subprocess.run(["umount", path], check=True)
"""
    done = subprocess.run([*MOUNTS, sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    assert f"UnsupportedError: {tmp_path}/queue: lies on hugetlbfs" in done.stderr


def test_what_is_mounted_or_linked_below_dev_shm_is_looked_at(tmp_path: Path) -> None:
    mounts = f"""
        mount -t tmpfs none /dev/shm; mkdir /dev/shm/there; mount -t hugetlbfs none /dev/shm/there
        mount -t hugetlbfs none {tmp_path}; ln -s {tmp_path} /dev/shm/link"""
    for name in ("there", "link"):
        done = mount(mounts, f"/dev/shm/{name}")
        assert f"UnsupportedError: /dev/shm/{name}: lies on hugetlbfs" in done.stderr


def test_a_fuse_file_system_that_is_really_mounted_is_refused(tmp_path: Path) -> None:
    """Also where the mounts can't be seen, and under the name of a file system of a network."""
    if not os.path.exists("/dev/fuse"):
        lacking("/dev/fuse", "there is none")
    needs(*MOUNTS)
    there = tmp_path / "there"
    there.mkdir()
    open_it = "import sys; from tqshim import TurboQueue; TurboQueue(path=sys.argv[1])"
    for kind, hide in (("fuse.sshfs", ""), ("fuse", "mount -t tmpfs none /proc")):
        steps = f"""
            cd {tmp_path}; rm -f end said; mkfifo end
            {sys.executable} {HERE / "fuse_server.py"} {there} < end > said &
            exec 5> end
            until grep -q mounted said; do sleep 0.05; done
            {hide}
            status=0; {sys.executable} -c '{open_it}' {there} || status=$?
            exec 5>&-; wait; exit $status"""
        done = subprocess.run([*MOUNTS, "sh", "-c", steps], capture_output=True, text=True, timeout=60)
        assert done.returncode == 1, done.stderr
        assert f"UnsupportedError: {there}: lies on {kind}, " in done.stderr
