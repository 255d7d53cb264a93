"""What file system a folder lies on, and whether a queue may lie there.

Lives here: asking the system for the kind of a file system; the kinds that queues work on.  Not here: who asks
(``tqshim.folder``).

A queue needs appends that never overlap, locks that everybody sees, and mapped pages that all share.  Local file
systems give these to processes of one kernel; of network and shared ones each machine, or each virtual one, has its own
idea.  Where the kernel names the kind only those that are known to be local will do; where it names none (no ``/proc``,
or a mount outside of a chroot) only those are refused that ``statfs`` knows to be shared.
"""

from __future__ import annotations

import os

from tqshim import systems
from tqshim.errors import UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["check", "kind"]

LOCAL: Final = frozenset({
    # Of Linux; overlay is a container's, rootfs an initramfs, lxfs and wslfs are WSL1's.
    "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jffs2", "jfs", "lxfs", "nilfs2", "overlay", "ramfs",
    "reiserfs", "rootfs", "tmpfs", "ubifs", "wslfs", "xfs", "zfs",
    # Of macOS.
    "apfs", "hfs", "ufs",
})  # fmt: skip
"""Kinds on which queues work."""

_kinds: Final[dict[int, str]] = {}
"""What was found, by device."""


def check(path: str, fd: int) -> None:
    """Raise ``UnsupportedError`` where the folder that is open there lies on a file system that won't do."""
    found = kind(fd)
    if found and found not in LOCAL:
        raise UnsupportedError(
            path,
            f"lies on {found}, which is not known to serialise appends of all who open it",
            "use a local disk or memory (ext4, xfs, tmpfs, ...)",
        )


def kind(fd: int) -> str:
    """The kind of the file system on which a file or folder lies; nothing where that can't be known."""
    device = os.fstat(fd).st_dev
    found = _kinds.get(device)
    if found is None:
        found = _kinds[device] = _by_mounts(fd, device) or _by_statfs(fd)
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
    """What the system tells this process of itself in that file."""
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
