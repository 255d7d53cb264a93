"""The places where queues lie: those of queues without a path, which file systems will do, what nobody uses any more.

Lives here: where new queue folders and their overflow go, what a file system must be, deleting folders whose users are
gone.  Not here: what is in a queue folder (``folder``).

A queue needs appends that never overlap, locks that everybody sees, and mapped pages that all share.  Local file
systems give these to processes of one kernel; of network and shared ones each machine, or each virtual one, has its own
idea.  Where the kernel names the kind of a file system, only the known local kinds will do.  Where it names none (no
``/proc``, or a mount outside of a chroot), only the kinds are refused that ``statfs`` knows to be shared.

Invariant: only a process that holds a folder alone deletes it, under a name by which nobody opens it as a queue.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import sys
from collections.abc import Callable, Iterable

from tqshim.errors import UnsupportedError
from tqshim.protocol import names
from tqshim.runtime import late, limits, mappings, systems
from tqshim.runtime import own_fcntl as fcntl
from tqshim.runtime.clock import wall
from tqshim.storage.files import OPEN, Home, check_owner, make_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Optional

__all__ = [
    "anonymous_root",
    "anonymous_roots",
    "check_file_system",
    "check_platform",
    "file_system",
    "leave",
    "reclaim",
    "reclaim_left",
    "root_for_new",
    "spill_folder",
    "spill_root",
    "sweep",
]

MARKER_LIFE: Final = 60.0
"""Seconds for which a pickled handle that nobody has unpickled yet keeps its folder alive."""
ENOUGH: Final = 32 << 20
"""Bytes that must be free in /dev/shm for new queues to lie there: half of what a stock container has."""
LOCAL: Final = frozenset({
    # Of Linux; overlay is a container's, rootfs an initramfs, lxfs and wslfs are WSL1's.
    "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jffs2", "jfs", "lxfs", "nilfs2", "overlay", "ramfs",
    "reiserfs", "rootfs", "tmpfs", "ubifs", "wslfs", "xfs", "zfs",
    # Of macOS.
    "apfs", "hfs", "ufs",
})  # fmt: skip
"""Kinds on which queues work."""

_kinds: Final[dict[tuple[int, int, int], str]] = {}
"""The kinds that were found, by device, identity and size of blocks: the next file system that is mounted may have the
number of a device that is gone."""


# -- where queues lie


def check_platform() -> None:
    """Raise ``UnsupportedError`` where queues can't work."""
    # Make relative folders absolute, before the program changes its own.
    _temporary_root()
    _chosen("TQSHIM_SPILL_DIR")
    if systems.MAPS_AHEAD:
        late.undivided(mappings.system)  # imports ctypes: here, not in a signal handler, nor in every child
    soft = limits.soft_limit("RLIMIT_FSIZE")
    if soft < 64 << 20:
        # A write cut short by this limit would misalign every event after it.
        raise UnsupportedError("RLIMIT_FSIZE", f"files end at {soft} bytes", "raise it to 64 MB or more (ulimit -f)")


def anonymous_root() -> str:
    """Where anonymous queues lie: ``TQSHIM_DIR``; else /dev/shm, where it has room; else the temporary folder."""
    chosen = _chosen("TQSHIM_DIR")
    if chosen:
        return chosen
    with contextlib.suppress(OSError):
        if systems.room_of(systems.SHM) >= ENOUGH and os.access(systems.SHM, os.W_OK | os.X_OK):
            return systems.SHM
    return _temporary_root()


def anonymous_roots() -> list[str]:
    """All folders in which anonymous queues may lie."""
    chosen = _chosen("TQSHIM_DIR")
    return [chosen] if chosen else [systems.SHM, _temporary_root()]


def root_for_new(mine: Iterable[str] = ()) -> str:
    """Where the next anonymous queue lies; ``mine`` are folders in use here.

    Where /dev/shm has no room, what killed programs have left there is deleted first: a queue that lies elsewhere has
    only its own folder's neighbours swept."""
    root = anonymous_root()
    if root == systems.SHM or _chosen("TQSHIM_DIR"):
        return root
    sweep(systems.SHM, mine)
    return anonymous_root()


def spill_root(path: str) -> Optional[str]:
    """Where a full queue folder's new batch files go, or ``None`` where there is no other place."""
    other = _chosen("TQSHIM_SPILL_DIR") or _temporary_root()
    try:
        if not os.access(other, os.W_OK | os.X_OK):
            return None
        return None if os.stat(other).st_dev == os.stat(path).st_dev else other
    except OSError:
        return None


def spill_folder(home: Home, create: bool = False) -> int:
    """Open the folder on another disk where new batch files go once this one's is nearly full.  ``create``: make it if
    it is not there.  Raises ``FileNotFoundError`` where there is none."""
    if home.spill is not None:
        if os.fstat(home.spill).st_nlink:
            return home.spill
        gone, home.spill = home.spill, None  # a cleaner of the temporary folder has removed it
        os.close(gone)
    try:
        path = os.readlink(names.SPILL, dir_fd=home.fd)
    except FileNotFoundError:
        if not create:
            raise
        root = spill_root(home.path)
        if root is None:
            raise OSError(errno.ENOSPC, "no space left, and no other disk to spill to", home.path) from None
        # The link first: a process that deletes this folder then knows of the other, too.
        with contextlib.suppress(FileExistsError):
            name = names.PREFIX + os.urandom(8).hex() + names.SPILLED
            os.symlink(os.path.join(root, name), names.SPILL, dir_fd=home.fd)
        path = os.readlink(names.SPILL, dir_fd=home.fd)
    if create:
        with contextlib.suppress(FileExistsError):
            make_folder(path)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | OPEN)
    try:
        check_owner(path, fd)
        with contextlib.suppress(OSError):  # so that it is seen to be in use
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BaseException:
        os.close(fd)
        raise
    home.spill = fd
    return fd


def _chosen(variable: str) -> Optional[str]:
    """A folder that the environment names: seen from where this process was when it first asked, as in tempfile."""
    try:
        name = os.environ[variable]  # not ``get``, in whose place tests of programs put another
    except KeyError:
        return None
    return _absolute(name) if name else None


_absolute: Final = functools.lru_cache(None)(os.path.abspath)


def _temporary_root() -> str:
    """The temporary folder, as ``tempfile`` finds it.  ``tempfile`` itself takes a lock, and tries to write, the first
    time: a child that is forked meanwhile, or a signal handler, would wait for the lock for ever."""
    said = getattr(sys.modules.get("tempfile"), "tempdir", None)
    if said is not None:
        return os.fsdecode(said)
    chosen = map(os.environ.get, ("TMPDIR", "TEMP", "TMP"))
    for name in (*filter(None, chosen), "/tmp", "/var/tmp", "/usr/tmp", os.curdir):
        with contextlib.suppress(FileNotFoundError):  # of a relative one: this process's folder was deleted
            found: str = _absolute(name)
            if os.access(os.path.join(found, ""), os.W_OK | os.X_OK):
                return found
    return "/tmp"


# -- on what


def check_file_system(path: str, fd: int) -> None:
    """Raise ``UnsupportedError`` where the folder that is open there lies on a file system that won't do."""
    found = file_system(fd)
    if found and found not in LOCAL:
        raise UnsupportedError(
            path,
            f"lies on {found}, which is not known to serialise appends of all who open it",
            "use a local disk or memory (ext4, xfs, tmpfs, ...)",
        )


def file_system(fd: int) -> str:
    """The kind of the file system on which a file or folder lies; nothing where that can't be known."""
    device, status = os.fstat(fd).st_dev, os.fstatvfs(fd)
    key = device, status.f_fsid, status.f_bsize
    found = _kinds.get(key)
    if found is None:
        found = _kinds[key] = _by_mounts(fd, device) or _by_statfs(fd)
    return found


def _by_mounts(fd: int, device: int) -> str:
    """As the kernel's list of mounts for this process says; nothing where it does not."""
    # By the mount, if that can be known: subvolumes have devices that are in no list.
    mounts = (line.split()[1] for line in _lines(f"fdinfo/{fd}") if line.startswith("mnt_id:"))
    column, wanted = 0, next(mounts, "")
    if not wanted:
        column, wanted = 2, f"{os.major(device)}:{os.minor(device)}"
    found = (fields for fields in map(str.split, _lines("mountinfo")) if fields[column] == wanted)
    return next((fields[fields.index("-") + 1] for fields in found), "")


def _lines(name: str) -> list[str]:
    """The lines in which the system tells this process of itself in that file."""
    try:
        with open(f"{systems.PROC}/self/{name}", encoding="utf-8", errors="replace") as told:
            return told.readlines()
    except OSError:
        return []


def _by_statfs(fd: int) -> str:
    if not systems.HAS_FSTATFS:
        return ""
    try:
        import ctypes  # here: on Linux the list of mounts nearly always knows

        answer = ctypes.create_string_buffer(systems.STATFS_SIZE)
        failed: int = getattr(ctypes.CDLL(None), systems.FSTATFS)(fd, answer)
    except (ImportError, AttributeError):
        return ""
    return "" if failed else systems.kind_of_statfs(answer.raw)


# -- what nobody uses


_left: Final[set[str]] = set()
"""Anonymous queue folders that this process has left while somebody used them."""


def leave(path: str) -> None:
    """Delete an anonymous queue folder that this process uses no more, now or when the process ends: a child may still
    use it, which ``multiprocessing`` ends, or waits for, then."""
    _left.add(path)  # first: if this is interrupted, the process deletes it at its end
    if reclaim(path):
        _left.discard(path)


def reclaim_left() -> None:
    """This process ends: delete the folders that it has left and nobody uses any more."""
    while _left:
        path = _left.pop()
        if not reclaim(path):
            root, name = os.path.split(path)
            reclaim(os.path.join(root, names.dead(name)))  # its deletion was interrupted


def sweep(root: str, mine: Iterable[str]) -> None:
    """Delete the anonymous queue folders in ``root`` whose users were all killed; ``mine`` are in use here."""
    skip = set(mine)
    try:
        listed = os.listdir(root)
    except OSError:
        return
    _left.difference_update(  # what is gone
        [path for path in _left.copy() if os.path.dirname(path) == root and os.path.basename(path) not in listed]
    )
    for name in listed:
        if names.PREFIX in name and names.is_anonymous(name.removeprefix(names.DEAD)):
            path = os.path.join(root, name)
            if path not in skip:
                reclaim(path)


def reclaim(path: str, about_to: Callable[[], object] = lambda: None) -> bool:
    """Delete a queue folder that nobody uses.  ``False``: somebody does, or a handle is on its way to it.

    ``about_to`` is called once nobody else can use it any more; where it raises ``OSError`` nothing is deleted."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | OPEN)
    except OSError:  # gone, or never ours
        return False
    try:
        if os.fstat(fd).st_uid != os.geteuid():
            return False
        root, name = os.path.split(path)
        dead = name.startswith(names.DEAD)
        if not (dead or _may_all_go(fd, os.listdir(fd))):
            # Before it is locked: a process that opens it waits for one that has it alone, be it forked or stopped.
            return False
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        listed = os.listdir(fd)
        if not (dead or _may_all_go(fd, listed)):
            return False
        about_to()
        if not dead:
            # Commit point: under this name nobody opens it as a queue any more.
            os.rename(path, os.path.join(root, names.dead(name)))
            path = os.path.join(root, names.dead(name))
        if names.SPILL in listed:
            with contextlib.suppress(OSError):
                _delete_tree(os.readlink(names.SPILL, dir_fd=fd))
        _delete_files(fd, listed)
        os.rmdir(path)
    except OSError:  # in use, or somebody else is deleting it
        return False
    finally:
        os.close(fd)
    return True


def _may_all_go(fd: int, listed: Iterable[str]) -> bool:
    """Whether these files are all ours, and none says that a handle is on its way."""
    for name in listed:
        parsed = names.parse(name)
        if parsed is None:
            return False
        if parsed.kind == "marker":
            with contextlib.suppress(FileNotFoundError):
                if not is_late(os.stat(name, dir_fd=fd)):
                    return False
    return True


def is_late(marker: os.stat_result) -> bool:
    """Whether the handle that has this marker does not arrive any more."""
    return abs(wall() - marker.st_mtime) >= MARKER_LIFE  # either way: the wall clock can step back


def _delete_tree(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | OPEN)
    try:
        _delete_files(fd, os.listdir(fd))
    finally:
        os.close(fd)
    os.rmdir(path)


def _delete_files(fd: int, listed: Iterable[str]) -> None:
    for name in listed:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=fd)
