"""Which processes have locked what in a members file, as seen by a process that only looks.

Lives here: asking the system.  Not here: locking (``member_locks``).
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from tqshim.protocol import names
from tqshim.runtime import own_fcntl as fcntl
from tqshim.runtime import systems
from tqshim.storage.files import OPEN, opened
from tqshim.storage.member_locks import TOLD, Members

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

__all__ = ["lock_owners"]


def lock_owners(fd: int, slots: Iterable[int]) -> dict[int, int]:
    """By slot: the process that holds its record lock, where it is held; 0: a process that can't be seen from here.

    ``fd``: the queue folder's.  Takes no lock.  Raises ``OSError`` where the members file can't be opened."""
    status = os.fstat(fd)
    # The members file is never closed here: with any descriptor of it all locks of this process may go, those of
    # another thread's queue too.  The next use of the queue takes it over.
    flags = os.O_RDONLY | os.O_NONBLOCK | OPEN
    key, me = (status.st_dev, status.st_ino), object()
    with Members.lock:
        # ``me`` is a user for now: a garbage collection may let go of this process's own use meanwhile.
        members = Members.of(key, lambda: opened(names.MEMBERS, flags, fd), False, me)
        try:
            return _lock_owners(members, slots)
        finally:
            members.users.discard(id(me))


def _lock_owners(members: Members, slots: Iterable[int]) -> dict[int, int]:
    found = dict.fromkeys(members.slots, os.getpid())  # the system does not tell of a process's own locks
    for slot in slots:
        owner = _owner(members, slot)
        if owner is not None:
            found[slot] = owner
    return found


def _owner(members: Members, slot: int) -> Optional[int]:
    """The process that has locked that slot's byte through another descriptor; 0: one that can't be seen from here;
    ``None``: no process has."""
    test = systems.OFD_TEST if members.are_of_opens() and systems.OFD_TEST is not None else fcntl.F_GETLK
    for start in (slot, TOLD + slot):
        answer = fcntl.fcntl(members.fd, test, systems.flock(fcntl.F_WRLCK, start, 1))
        kind, process = systems.kind_and_process(answer)
        if kind == fcntl.F_UNLCK:
            return None if start == slot else 0
        if process > 0:
            return process
    return 0
