"""The members file: the locks on its bytes say which members are alive.

Lives here: opening that file once, locking and unlocking bytes, forks.  Not here: which slot is whose (``membership``),
who else has locked one (``lock_owners``).

Invariant: the file is open once in a process, for all its uses of the queue; and the locks of a process end when the
process ends, whatever it has forked.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from tqshim.runtime import locks, systems
from tqshim.runtime import own_fcntl as fcntl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Final, Optional

__all__ = ["LOCKED", "TOLD", "Members", "about_to_fork", "forked"]

LOCKED: Final = (errno.EACCES, errno.EAGAIN)
TOLD: Final = 1 << 30
"""Where other bytes begin in the members file: their locks say which process has locked a slot's byte."""


class Members:
    """The members file, opened once by this copy of the package, and by a forked child for itself.

    Where the system can, the locks belong to what ``open`` returned: another copy of the package in this process, or
    another interpreter, has its own.  Else they belong to the process, and closing any descriptor of the file drops all
    of them."""

    opened: ClassVar[dict[tuple[int, int], Members]] = {}
    lock: ClassVar[Any] = locks.RLock()
    """Held from each look at ``opened`` until the opening or closing to which the look leads."""
    of_opens: ClassVar[Optional[bool]] = None
    """Whether the locks belong to what ``open`` returned; ``None``: nobody has asked yet."""
    forks: ClassVar[int] = 0
    """How often this process has forked, or was about to."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.writable = False
        """Whether locks can be taken there."""
        self._former: list[int] = []
        self.users: set[int] = set()
        """By ``id``: a user that is interrupted when it has just been added is the same one when it tries again."""
        self.slots: dict[int, tuple[object]] = {}
        """The slots whose record locks this process has, or is just taking, and for which of its uses of the folder:
        one that is interrupted in an act of another has its own."""

    @classmethod
    def of(cls, key: tuple[int, int], open_file: Callable[[], int], writable: bool, user: object) -> Members:
        """The members file of the folder with that device and inode, for that user, too.  The caller holds ``lock``."""
        # Members files of folders that are gone have no locks, and the inodes of these folders may be used again.
        # A list of keys is made in one step: at any other moment, and amid a copy (3.9), a garbage collection may
        # let go of any of the files.  One without users stays.
        for other in list(cls.opened):
            idle = cls.opened.get(other)
            if idle is not None and not idle.users and idle._is_gone() and cls.opened.get(other) is idle:
                del cls.opened[other]
                idle.close()
        members = cls.opened.get(key)
        while members is None or (writable and not members.writable):  # somebody may only have looked at it so far
            forks, fd = cls.forks, open_file()
            if members is None:
                # A signal handler may have opened it just now: then the handler's stays, and this one is never closed.
                members = cls.opened.setdefault(key, cls(fd))
            else:
                if members.fd >= 0:  # else it was closed in a forked child, of which this frame is a copy
                    members._former.append(members.fd)
                members.fd = fd
            if members.fd == fd:
                # Else a forked child has ``fd``, too, unknowingly: locks would end with both. Or this is the child.
                members.writable = writable and forks == cls.forks
        members.users.add(id(user))
        # If it is not there any more, a signal handler was its last user just now.
        return members if cls.opened.get(key) is members else cls.of(key, open_file, writable, user)

    def set_lock(self, kind: int, slot: int) -> None:
        """Lock a slot's byte (``F_WRLCK``), or unlock it (``F_UNLCK``).  Raises ``OSError`` where somebody has it."""
        request = systems.flock(kind, slot, 1)
        if not self.are_of_opens():
            fcntl.fcntl(self.fd, fcntl.F_SETLK, request)
            return
        fcntl.fcntl(self.fd, systems.OFD_SET, request)
        try:
            # The lock above does not tell whose it is.  This one does, and has no other purpose.
            fcntl.fcntl(self.fd, fcntl.F_SETLK, systems.flock(kind, TOLD + slot, 1))
        except OSError as error:
            if error.errno not in LOCKED:
                raise

    def are_of_opens(self) -> bool:
        """Whether the system has locks that belong to what ``open`` returned."""
        if Members.of_opens is None:
            found = systems.OFD_TEST is not None
            if systems.OFD_TEST is not None:
                try:
                    fcntl.fcntl(self.fd, systems.OFD_TEST, systems.flock(fcntl.F_WRLCK, 0, 1))
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise
                    found = False  # gVisor has none
            Members.of_opens = found
        return Members.of_opens

    def _is_gone(self) -> bool:
        """Whether its file has no name any more, or was closed just now by a garbage collection or a signal handler."""
        try:
            return not os.fstat(self.fd).st_nlink
        except OSError:
            return True

    def let_go(self, key: tuple[int, int], user: object) -> None:
        """Remove that user; the last one closes the file."""
        with self.lock:
            self.users.discard(id(user))
            if not self.users:
                self.opened.pop(key, None)
                self.close()

    def close(self) -> None:
        """Close the file, unless it is closed: several folders, and frames that a fork has copied, may know this."""
        # A set: an interrupted ``of`` may have left one in both places.
        opened, self.fd, self._former = {self.fd, *self._former} - {-1}, -1, []
        for fd in opened:
            os.close(fd)


def about_to_fork() -> None:
    """Before a fork: have a file that is being opened just now opened again after the fork."""
    Members.forks += 1


def forked() -> None:
    """In a forked child: close at once what keeps the parent's members alive, so that they end with the parent."""
    Members.lock = locks.RLock()  # another thread of the parent may have held it
    for members in Members.opened.values():
        members.slots = {}
        members.close()
    Members.opened = {}
