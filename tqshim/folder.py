"""The queue folder: the only room that creates, appends, renames, locks and unlinks.

Lives here: where a queue lies, who may use it and how long it stays; its journals, batch files and members' locks.
Not here: what an event means (``ledger``), when to do something (``engine``), wake-ups and cells (``waiting``).

::

    queue folder/
      journal_<n>             a snapshot, then 8-byte events, appended; the only truth about who owns what
      roll_<n>_<key>          the next journal, prepared; becomes journal_<n> if journal n-1 decides for that key
      spare_<n>               disk space set aside for it
      load_<member>_<serial>  batch file that its producer fills
      ready_<member>_<serial> batch file that is sealed
      free_<member>_<place>   batch file of large items that is done, and waits to be refilled
      corrupt_<name>          set aside, damaged; corrupt_<name>.txt says why
      cells, members, bell, space, spill, marker_<key>

The life of a batch file::

    create ──> load_ ──publish──publish──> seal ──> ready_ ──> remove
                 │                                    │
                 │                                    ├──> free_ ──refilled──> load_, under a new name
                 └──────────── its producer leaves ───┴──> remove

    damaged: load_ or ready_ ──> corrupt_, read on where it is whole, and kept

Invariant: everything is opened relative to the folder's own descriptor and never through a symbolic link, and that
descriptor holds ``flock(LOCK_SH)`` as long as somebody uses the folder.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
import tempfile
import time
from collections.abc import Callable, Container, Iterable, Iterator

from . import late, locks, mappings, names, systems
from .clock import monotonic
from .errors import CorruptBatchError, FolderError, UnsupportedError
from .names import FileId
from .protocol import events as rules
from .protocol import snapshot
from .protocol.ledger import Ledger
from .storage import file_systems
from .storage.batch_file import read_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Final, Optional, TypeVar, Union

    from .storage.large_records import BatchView

    _F = TypeVar("_F", bound="Folder")

try:
    import fcntl
    import resource
except ImportError:  # Windows: said at construction, in check_platform
    pass

__all__ = [
    "NO_SPACE",
    "RECOVER",
    "Folder",
    "Journal",
    "about_to_fork",
    "anonymous_root",
    "forked",
    "lock_owners",
    "reclaim",
    "spill_root",
    "sweep",
]

HOLD_PATIENCE: Final = 10.0
"""Seconds to wait for a folder that somebody holds alone: only a reclaimer does, and only to rename it."""
MARKER_LIFE: Final = 60.0
"""Seconds for which a pickled handle that nobody has unpickled yet keeps its folder alive."""
ROLLS_SEEN: Final = 1000
"""Listings of a folder in which its newest journal may be missed: one is missed only if it is rolled in that moment."""
LEAST_LIMIT: Final = 64
"""Events of a journal on a full disk, at least."""
RESERVE_TRIES: Final = 8
"""Signals that may interrupt the setting aside of disk space, before it is tried with less."""
PAGE: Final = 4096
CELLS_PAGE: Final = 2 * PAGE
"""Bytes of the cells of 64 slots: as ``waiting`` lays them out."""
ENOUGH: Final = 32 << 20
"""Bytes that must be free in /dev/shm for new queues to lie there: half of what a stock container has."""
SPILL_BELOW: Final = 4 << 20
"""Bytes that batch files leave free, for journals and cells; with less than that new ones are spilled."""
NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)
_LOCKED: Final = (errno.EACCES, errno.EAGAIN)
_CANT_SYNC: Final = (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY)
"""What a file system says that knows no more than ``fsync``."""
RECOVER: Final = "python -m tqshim recover --into saves its items in another folder"
"""What to do about damage."""
_DELETED: Final = (
    "the queue's folder was deleted while it was in use (by systemd at logout? RemoveIPC=no, or TQSHIM_DIR elsewhere)"
)
_PAST_LIMIT: Final = PAGE
"""Bytes of events that may stand past a journal's limit: each member writes two or three before it rolls."""
TOLD: Final = 1 << 30
"""Where bytes begin in the members file whose locks say which process has locked a slot's."""
NEAR: Final = 8
"""Events among which one looks for one's own, before one asks the kernel where it is."""
_IN_THE_WAY: Final = (errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.ENXIO, errno.ENODEV)
"""What opening says of a symbolic link, a folder, a socket or a device in the place of a file."""
_OPEN: Final = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)

_OURS: Final = frozenset(
    (rules.CLAIM, rules.CLAIM_MANY, rules.LEASE, rules.HOLD, rules.RESERVE, rules.OPEN, rules.GOT, rules.RETURN)
)
"""Types of events that nobody but the member of their slot writes: what stands there once is its own."""


class Journal:
    """One journal, opened by this process for itself: its offset is shared with nobody."""

    __slots__ = ("_address", "_size", "fd", "number", "start", "words")

    def __init__(self, fd: int, number: int, start: int) -> None:
        self.fd = fd
        self.number = number
        self.start = start
        """Where the first event stands, in bytes."""
        self.words: Optional[memoryview] = None
        """The file as 64-bit words, once it is mapped.  Only what is known to be written may be looked at."""
        self._address = self._size = 0

    def write(self, event: bytes) -> None:
        """Append one event.  Commit point: once this has written, the event has happened.

        Raises ``OSError``: nothing was written, nothing has happened."""
        if os.write(self.fd, event) != 8:
            raise FolderError(f"journal_{self.number}", "an event was torn", "recover the queue into a new folder")

    def append(self, event: bytes) -> int:
        """``write`` an event and return where it ends."""
        self.write(event)
        return os.lseek(self.fd, 0, 1)

    def append_all(self, data: bytes, at: int) -> int:
        """Append events in one piece, and return where they end.  ``at``: where the first may stand at the earliest.

        Raises ``OSError``: where there is no space nothing has happened, or what the first of them say."""
        written = os.write(self.fd, data)
        if written != len(data):
            if written % rules.SIZE == 0:
                # The first of them have happened, which is known once the journal is read; nothing is damaged.
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"journal_{self.number}")
            raise FolderError(f"journal_{self.number}", "events were torn", "recover the queue into a new folder")
        if self.words is None or data[-8] not in _OURS:
            return os.lseek(self.fd, 0, 1)
        return self.end_of(int.from_bytes(data[-8:], "little"), at + written - 8)

    def end_of(self, word: int, at: int) -> int:
        """Where the event ends that was just written, and does not stand between byte ``at`` and there: found by
        looking, in mapped memory, which is cheaper than asking the kernel."""
        words = self.words
        if words is None:
            return os.lseek(self.fd, 0, 1)
        place = at >> 3
        try:
            if words[place] == word:
                return at + 8
            for found in range(place, place + NEAR):
                if words[found] == word:
                    return (found + 1) << 3
        except IndexError:  # far past the limit
            pass
        # Others have written much since this process last ran.
        return os.lseek(self.fd, 0, 1)

    def read(self, at: int, size: int) -> bytes:
        """Events from byte ``at`` on, at most ``size`` bytes: none at the end of the journal."""
        # A page of which something is written can be looked at: no event there, none written.
        words = self.words
        if words is not None and at & (PAGE - 1) and at < self._size and not words[at >> 3]:
            return b""
        return os.pread(self.fd, size, at)

    def read_written(self, at: int, size: int) -> bytes:
        """``read`` of what is known to be written."""
        words = self.words
        if words is not None and at + size <= self._size:
            return words[at >> 3 : (at + size) >> 3].tobytes()
        return os.pread(self.fd, size, at)

    def map(self, limit: int) -> None:
        """Map the file, as long as it can become; Python's own mmap refuses what is not there yet."""
        if self.words is not None or not systems.MAPS_AHEAD:
            return
        system = mappings.system()
        if system is None:
            return
        size = self.start + limit * rules.SIZE + _PAST_LIMIT
        address = system.map(self.fd, size)
        if address is not None:
            self._address, self._size = address, size
            self.words = system.memory(address, size).toreadonly().cast("Q")

    def unmap(self) -> None:
        """Forget the mapping: who still looks at it gets a ``ValueError``."""
        words, self.words = self.words, None
        if words is None:  # nor is ctypes imported: this may be a handler's frame, in the middle of an import
            return
        system = mappings.system()
        if system is not None:
            words.release()
            system.unmap(self._address, self._size)

    def size(self) -> int:
        """Bytes that the file has, be they seen or not."""
        return os.fstat(self.fd).st_size

    def snapshot(self) -> bytes:
        """What this journal begins with."""
        return os.pread(self.fd, self.start, 0)

    def close(self) -> None:
        """Close it, unless it is closed already."""
        self.unmap()
        # Forgotten first: interrupted in between, its number may be another file's when this is called again.
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class _Members:
    """The members file, opened once by this copy of the package, and by a forked child for itself.

    Where the system can, the locks are of what ``open`` returned: another copy in this process, or another interpreter,
    has its own.  Else they are the process's, and closing any descriptor of the file drops them all."""

    opened: ClassVar[dict[tuple[int, int], _Members]] = {}
    lock: ClassVar[Any] = locks.RLock()
    """Held over each look at what is opened that leads to an opening or a closing."""
    of_opens: ClassVar[Optional[bool]] = None
    """The locks are of what ``open`` returned; ``None``: nobody has asked yet."""
    forks: ClassVar[int] = 0
    """How often this process has forked, or was about to."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.writable = False
        """Locks can be taken there."""
        self._former: list[int] = []
        self.users = 0
        self.slots: dict[int, tuple[Folder]] = {}
        """Whose record locks this process has, or is just taking, and for which of its uses of the folder: one that is
        interrupted in an act of another has its own."""

    @classmethod
    def of(cls, key: tuple[int, int], open_file: Callable[[], int], writable: bool) -> _Members:
        """The members file of the folder with that device and inode, for one more user.  The lock is held."""
        # Those of folders that are gone have no locks, and their inodes may be used again.
        for other, idle in cls.opened.copy().items():
            # Looked up again: a garbage collection may let go of any at any step.  One without users stays.
            if not idle.users and cls.opened.get(other) is idle and not os.fstat(idle.fd).st_nlink:
                del cls.opened[other]
                idle.close()
        members = cls.opened.get(key)
        while members is None or (writable and not members.writable):  # somebody may only have looked at it so far
            forks, fd = cls.forks, open_file()
            if members is None:
                # A signal handler may have opened it just now: then that one stays, and this one is never closed.
                members = cls.opened.setdefault(key, cls(fd))
            else:
                if members.fd >= 0:  # else it was closed in a forked child, of which this frame is a copy
                    members._former.append(members.fd)
                members.fd = fd
            if members.fd == fd:
                # Else a forked child has it, too, unknowingly: locks would end with both. Or this is the child.
                members.writable = writable and forks == cls.forks
        members.users += 1
        # Else a signal handler has been its last user just now.
        return members if cls.opened.get(key) is members else cls.of(key, open_file, writable)

    def set_lock(self, kind: int, slot: int) -> None:
        """Lock a slot's byte (``F_WRLCK``), or unlock it (``F_UNLCK``).  Raises ``OSError`` where somebody has it."""
        request = systems.flock(kind, slot, 1)
        if not self._are_of_opens():
            fcntl.fcntl(self.fd, fcntl.F_SETLK, request)
            return
        fcntl.fcntl(self.fd, systems.OFD_SET, request)
        try:
            # The former does not tell whose it is.  This one does, and has no other purpose.
            fcntl.fcntl(self.fd, fcntl.F_SETLK, systems.flock(kind, TOLD + slot, 1))
        except OSError as error:
            if error.errno not in _LOCKED:
                raise

    def owner(self, slot: int) -> Optional[int]:
        """The process that has locked that slot's byte through another descriptor; 0: one that can't be seen from here.
        ``None``: nobody has."""
        test = systems.OFD_TEST if self._are_of_opens() and systems.OFD_TEST is not None else fcntl.F_GETLK
        for start in (slot, TOLD + slot):
            answer = fcntl.fcntl(self.fd, test, systems.flock(fcntl.F_WRLCK, start, 1))
            kind, process = systems.kind_and_process(answer)
            if kind == fcntl.F_UNLCK:
                return None if start == slot else 0
            if process > 0:
                return process
        return 0

    def _are_of_opens(self) -> bool:
        if _Members.of_opens is None:
            found = systems.OFD_TEST is not None
            if systems.OFD_TEST is not None:
                try:
                    fcntl.fcntl(self.fd, systems.OFD_TEST, systems.flock(fcntl.F_WRLCK, 0, 1))
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise
                    found = False  # gVisor has none
            _Members.of_opens = found
        return _Members.of_opens

    def let_go(self, key: tuple[int, int]) -> None:
        """One user less; the last one closes it."""
        with self.lock:
            self.users -= 1
            if not self.users:
                self.opened.pop(key, None)
                self.close()

    def close(self) -> None:
        """Close it, unless it is closed already: several folders, and frames that a fork has copied, may know this."""
        # A set: who is interrupted in ``of`` may have left one in both places.
        opened, self.fd, self._former = {self.fd, *self._former} - {-1}, -1, []
        for fd in opened:
            os.close(fd)


class Folder:
    """One queue folder that this process uses.  ``fd`` is its hold: only ever closed, for a forked child shares it."""

    def __init__(self, path: str, fd: int, status: Optional[os.stat_result] = None) -> None:
        """``status``: that of ``fd``, where it is known."""
        self.path = path
        self.fd = fd
        self.anonymous = names.is_anonymous(os.path.basename(path))
        self.durable = False
        """Journals are on the disk before they count, and old ones stay until then."""
        self._members: Optional[_Members] = None
        self._spill: Optional[int] = None
        self._preparing = -1
        """The journal that is being written for the next roll."""
        self._suspended: Optional[tuple[int, Optional[int]]] = None
        self._own_hold = False
        """The hold is no other process's, too."""
        self._alone: Optional[bool] = None
        """The hold shuts all others out, or there is none just now; ``None``: it is as it should be."""
        self._new = False
        """We have made its first journal, and nobody has opened one here yet."""
        self._in_memory: Optional[bool] = None
        """It lies on a file system in memory; ``None``: that is not known yet."""
        status = status or os.fstat(fd)
        self.key = status.st_dev, status.st_ino

    # -- making and opening

    @classmethod
    def create_anonymous(cls: type[_F], maxsize: int, limits: tuple[int, int]) -> _F:
        """Make a queue folder that goes away with its last user."""
        check_platform()
        root = anonymous_root()
        try:
            return cls._create_in(root, maxsize, limits)
        except OSError as error:
            other = spill_root(root)
            if error.errno not in NO_SPACE or other is None:
                raise
            return cls._create_in(other, maxsize, limits)

    @classmethod
    def _create_in(cls: type[_F], root: str, maxsize: int, limits: tuple[int, int]) -> _F:
        while True:
            path = os.path.join(root, names.PREFIX + os.urandom(8).hex())
            try:
                os.mkdir(path, 0o700)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR):
                    raise
                remedy = "set TQSHIM_DIR to a folder that you may write to"
                raise FolderError(root, f"no queue can be made there: {error.strerror}", remedy) from None
            try:
                folder = cls._hold(path)
            except UnsupportedError:
                os.rmdir(path)
                raise
            except FileNotFoundError:
                continue  # A sweeper took it for an abandoned one before it was held.
            try:
                folder._furnish(maxsize, limits)
            except BaseException as error:
                folder.close()
                reclaim(path)
                raise _told(error, path)
            return folder

    @classmethod
    def open(
        cls: type[_F],
        path: str,
        maxsize: int,
        limits: tuple[int, int],
        durable: bool = False,
        proof: bytes = b"",
    ) -> _F:
        """Open the queue folder at a path, or make it one: then with that ``maxsize``, ``durable`` and proof of a key.

        Raises ``FolderError`` where somebody else could write to it, or where it is something else."""
        check_platform()
        path = os.path.abspath(path)
        if os.path.basename(path).startswith(names.PREFIX):
            raise FolderError(
                path, f"names beginning with {names.PREFIX!r} are for queues without a path", "take another"
            )
        is_new = not os.path.lexists(path)
        os.makedirs(path, 0o700, exist_ok=True)
        try:
            folder = cls._hold(path, mend=True)
        except UnsupportedError:
            if is_new:
                with contextlib.suppress(OSError):
                    os.rmdir(path)
            raise
        try:
            if folder.newest() is None:
                listed = {name: names.parse(name) for name in os.listdir(folder.fd)}
                strangers = [name for name, parsed in listed.items() if parsed is None]
                if strangers:
                    raise FolderError(
                        path, f"holds {strangers[0]!r}, which is no part of a queue", "use an empty folder"
                    )
                # Else its journal is lost, or was rolled while we listed: open_newest tells.
                if not any(name and name.kind in (names.LOAD, names.READY) for name in listed.values()):
                    folder._furnish(maxsize, limits, durable, proof)
        except BaseException as error:
            folder.close()
            raise _told(error, path)
        return folder

    @classmethod
    def meet(cls: type[_F], path: str, fd: Optional[int] = None) -> _F:
        """Open a queue that must be there already; ``fd``: its hold, from the process that started this one."""
        check_platform()
        if fd is not None:
            return cls(path, fd, _check_owner(path, fd))
        return cls._hold(path)

    @classmethod
    def _hold(cls: type[_F], path: str, mend: bool = False) -> _F:
        deadline = monotonic() + HOLD_PATIENCE
        while True:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise FileNotFoundError(
                    errno.ENOENT, "the queue is gone: its last user left before this handle arrived", path
                ) from None
            try:
                if os.path.dirname(path) != systems.SHM:
                    file_systems.check(path, fd)
                mine = _check_owner(path, fd, mend)
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                found = os.stat(path)
                if (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino):
                    folder = cls(path, fd, mine)
                    folder._own_hold = True
                    return folder
                fd, stale = -1, fd
                os.close(stale)
            except BlockingIOError:  # a reclaimer holds it: in a moment it is gone
                os.close(fd)
                if monotonic() > deadline:
                    raise _locked(path) from None
                time.sleep(0.001)
            except BaseException:
                if fd >= 0:
                    os.close(fd)
                raise

    def hold_alone(self) -> bool:
        """Hold the folder alone, if nobody else holds it; ``False``: somebody does, or may.  Until ``hold_again`` there
        may be no hold at all then: of several who try this, one must succeed."""
        if self._own_hold and not self._alone:
            try:
                # If this fails the shared hold is gone, too.
                self._alone = False
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._alone = True
            except BlockingIOError:
                pass
        return bool(self._alone)

    def hold_again(self) -> None:
        """Share the folder with others again.  Raises ``FileNotFoundError`` where it has been deleted meanwhile."""
        if self._alone is None:
            return
        deadline = monotonic() + HOLD_PATIENCE
        while True:
            with contextlib.suppress(BlockingIOError):  # another holds it alone, for a moment
                fcntl.flock(self.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                break
            if monotonic() > deadline:
                raise _locked(self.path)
            time.sleep(0.001)
        self._alone = None
        found = os.stat(self.path)
        if (found.st_dev, found.st_ino) != self.key:
            raise FileNotFoundError(errno.ENOENT, "the queue is gone: it was deleted while it was opened", self.path)

    def _furnish(self, maxsize: int, limits: tuple[int, int], durable: bool = False, proof: bytes = b"") -> None:
        """Make an empty folder a queue.  Commit point: the rename that makes journal_0 appear."""
        self.durable = durable
        with contextlib.suppress(FileExistsError):
            os.close(self._create(names.MEMBERS))
        try:
            self.grow_cells(1, self._create(names.CELLS, os.O_WRONLY | os.O_APPEND))
        except FileExistsError:
            self.grow_cells(1)
        name = self.prepare_roll(
            0, lambda limit: snapshot.dump(Ledger(maxsize, limit, limits[1], durable, proof)), limits[0]
        )
        self.give_name(0, name)
        self._new = True

    def _create(self, name: str, flags: int = os.O_WRONLY, fd: Optional[int] = None) -> int:
        home = self.fd if fd is None else fd
        try:
            return os.open(name, flags | os.O_CREAT | os.O_EXCL | _OPEN, 0o600, dir_fd=home)
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, _DELETED, self.path) from None

    # -- journals

    def newest(self) -> Optional[int]:
        """The number of the newest journal, or ``None`` where there is none."""
        journals = (name for name in _names(self.fd) if name.startswith(names.JOURNAL))
        numbers = [name.numbers[0] for name in map(names.parse, journals) if name and name.kind == "journal"]
        return max(numbers, default=None)

    def open_newest(self) -> tuple[Journal, bytes]:
        """The newest journal, and the snapshot that it begins with."""
        for _ in range(ROLLS_SEEN):
            new, self._new = self._new, False
            number = 0 if new else self.newest()
            if number is None:  # rolled twice while we listed
                continue
            try:
                return self.open_journal(number)
            except FileNotFoundError:  # rolled since we listed
                continue
        raise FolderError(self.path, "has no journal", f"it is no queue, or was damaged: {RECOVER}")

    def open_journal(self, number: int) -> tuple[Journal, bytes]:
        """A journal and the snapshot that it begins with.

        Raises ``FileNotFoundError`` where a newer one has replaced it, ``CorruptBatchError`` where it is damaged."""
        name = names.journal(number)
        fd = -1
        try:
            fd = _open_plain(name, os.O_RDWR | os.O_APPEND, self.fd)
            size = snapshot.size_of(os.pread(fd, 16, 0))
            found = os.fstat(fd).st_size
            if found < size:
                raise ValueError(f"a snapshot of {size} bytes is cut short to {found}")
            if found % rules.SIZE:
                raise ValueError(f"{found} bytes are no whole number of events")
            data = os.pread(fd, size, 0)
            snapshot.check(data)
            return Journal(fd, number, size), data
        except BaseException as error:
            if fd >= 0:
                os.close(fd)
            if isinstance(error, ValueError):
                raise CorruptBatchError(f"{self.path}/{name}", str(error), RECOVER) from None
            raise

    def set_space_aside(self, number: int, limit: int) -> None:
        """Reserve the disk space of a future journal, so that a full disk stops nobody from draining the queue."""
        try:
            fd = os.open(names.spare(number), os.O_WRONLY | os.O_CREAT | _OPEN, 0o600, dir_fd=self.fd)
        except OSError:  # there is no space, and the roll will try again
            return
        try:
            # Whoever was first may have found less; and if this file is a journal by now, more space does it no harm.
            if _reserve_space(fd, limit * rules.SIZE + 2 * _PAST_LIMIT):
                return
            self.remove_free()  # Else they are refilled, and then nothing gives way.
            while not _reserve_space(fd, limit * rules.SIZE + 2 * _PAST_LIMIT) and limit > LEAST_LIMIT:
                limit //= 2
        finally:
            os.close(fd)

    def prepare_roll(
        self, number: int, snapshot: Callable[[int], bytes], limit: int, most: int = 0, whole: bool = False
    ) -> str:
        """Write the journal of that number under a name that only counts once the journal before it says so.

        ``snapshot``: makes what it begins with, for the limit for which there is space: ``limit``, up to ``most`` if
        more was set aside, or less if not ``whole``.  Raises ``OSError`` where there is hardly any."""
        while True:
            key = os.urandom(5).hex()
            try:
                if not number:
                    raise FileNotFoundError
                os.rename(names.spare(number), names.roll(number, key), src_dir_fd=self.fd, dst_dir_fd=self.fd)
                fd = os.open(names.roll(number, key), os.O_WRONLY | _OPEN, dir_fd=self.fd)
            except FileNotFoundError:  # nobody set space aside, or another roller took it
                try:
                    fd = self._create(names.roll(number, key))
                except FileExistsError:
                    continue
            break
        # Stored, then checked: ``suspend`` finds it, or this frame of a forked child finds that it was suspended.
        self._preparing = fd
        try:
            self._check_frame()
            if os.fstat(fd).st_size:  # a power cut has kept what was written there, and not its name
                os.ftruncate(fd, 0)
            wanted, begin = limit, snapshot(limit)
            beside = len(begin) + _PAST_LIMIT
            if most > limit:
                limit = max(limit, min(most, (os.fstat(fd).st_blocks * 512 - beside) // rules.SIZE))
            while not _reserve_space(fd, beside + limit * rules.SIZE) and limit > LEAST_LIMIT:
                if whole:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"{self.path}/{names.journal(number)}")
                limit //= 2
            _write_all(fd, begin if limit == wanted else snapshot(limit))
            if self.durable:
                self.harden(fd)
                self.harden_names()
        except BaseException:
            self.drop_roll(number, key)
            raise
        finally:
            self._preparing = -1
            os.close(fd)
        return key

    def has_spare(self, number: int) -> bool:
        """Space is set aside for that journal, and nobody who rolls has taken it yet."""
        return self._size_of(names.spare(number)) is not None

    def has_roll(self, number: int) -> bool:
        """Somebody is preparing that journal, or was killed while at it."""
        begin = names.roll(number, "")
        return any(name.startswith(begin) for name in _names(self.fd))

    def drop_roll(self, number: int, key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(names.roll(number, key), dir_fd=self.fd)

    def give_name(self, number: int, key: str) -> None:
        """Give a prepared journal its name, for which no earlier one has decided, if nobody has given it to another."""
        # Not a rename: of two that do so at once, the first must win.  It may go on to remove the other's.
        with contextlib.suppress(FileExistsError, FileNotFoundError):
            os.link(names.roll(number, key), names.journal(number), src_dir_fd=self.fd, dst_dir_fd=self.fd)
        self.drop_roll(number, key)

    def finish_roll(self, number: int, key: int) -> Optional[tuple[Journal, bytes]]:
        """Give the prepared journal its name, if nobody has yet, and open it; ``None`` where even newer ones are there.

        Nothing can bring a removed journal back: only one file ever has that key, and its rename succeeds once."""
        with contextlib.suppress(FileNotFoundError):
            os.rename(names.roll(number, f"{key:010x}"), names.journal(number), src_dir_fd=self.fd, dst_dir_fd=self.fd)
            if self.durable:
                self.harden_names()  # one of the two must be there
            # At once: whoever has it open reads on, and its space is wanted for the next.
            for old in (names.journal(number - 1), names.spare(number)):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(old, dir_fd=self.fd)
        try:
            return self.open_journal(number)
        except FileNotFoundError:
            return None

    def kind(self) -> tuple[bool, bytes]:
        """Whether the queue here was made a durable one, and the proof of its key, as its newest journal says."""
        journal, begin = self.open_newest()
        journal.close()
        return snapshot.kind(begin)

    # -- power cuts

    @staticmethod
    def harden(fd: int) -> None:
        """Return when what has been written to that file, or the names in that folder, are on the disk.

        Raises ``OSError`` where they are not; a second call may then return, and they are not."""
        if systems.FULL_SYNC is not None:
            try:
                fcntl.fcntl(fd, systems.FULL_SYNC)
                return
            except OSError as error:
                if error.errno not in _CANT_SYNC:
                    raise
        os.fsync(fd)

    def harden_names(self) -> None:
        """``harden`` for the names in this folder."""
        self.harden(self.fd)

    def harden_path(self) -> None:
        """``harden`` for all names that lead to this folder, up to where its file system begins: whoever made these
        folders may not have come to it yet."""
        path = os.path.realpath(self.path)
        while path != os.path.dirname(path):
            path = os.path.dirname(path)
            try:
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _OPEN)
            except PermissionError:
                if os.access(path, os.W_OK):
                    raise
                continue  # no user of the queue can have made anything there
            try:
                if os.fstat(fd).st_dev != self.key[0]:
                    return
                self.harden(fd)
            finally:
                os.close(fd)

    # -- batch files

    def seal_batch(self, file: FileId) -> None:
        """Nobody writes to the batch file any more, its name says from now on."""
        with contextlib.suppress(FileNotFoundError):  # every item was claimed already, and it was removed
            home = self._home(file)
            os.rename(names.batch(names.LOAD, file), names.batch(names.READY, file), src_dir_fd=home, dst_dir_fd=home)

    def open_batch(self, file: FileId, flags: int = os.O_RDONLY) -> int:
        """A batch file, open, for reading if not told otherwise.

        Raises ``ValueError`` where it is not there, or is something else."""
        with contextlib.suppress(FileNotFoundError):  # a spill folder that is gone took it along
            home = self._home(file)
            for name in names.of_batch(file):
                with contextlib.suppress(FileNotFoundError):
                    return _open_plain(name, flags, home)
        deleted = "" if os.fstat(self.fd).st_nlink else f"; {_DELETED}"
        raise ValueError(f"missing, with items in it that nobody got{deleted}")

    @property
    def maps_batches(self) -> bool:
        """Batch files may be mapped: they lie in memory, where no page is lost, and who reads one can lock it."""
        if self._in_memory is None:
            self._in_memory = systems.OFD_TEST is not None and file_systems.kind(self.fd) == "tmpfs"
        return self._in_memory

    def view_batch(self, file: FileId, known: mappings.Mappings) -> Optional[BatchView]:
        """A batch file as memory.  ``None``: it has to be read."""
        try:
            fd = self.open_batch(file, os.O_RDWR)
            try:
                mapping = known.of(fd)
            finally:
                os.close(fd)
            if mapping is None:
                return None
            view: BatchView = late.room("storage.large_records").BatchView(mapping, self.open_batch(file))
            return view
        except (OSError, ValueError):
            return None

    def set_aside(self, file: FileId, finding: str) -> str:
        """Keep a damaged batch file for a person to look at, under a name that says so; returns its path.

        Blocks of it that are whole are still read from there.  The first who finds the damage, of all processes, logs a
        warning; a kill after that leaves the file under its former name, to whoever finds the damage next."""
        name = names.batch(names.READY, file)
        with contextlib.suppress(OSError):  # where nothing can be written, the error that is raised says it
            home = self._home(file)
            with contextlib.suppress(FileExistsError):
                fd = self._create(names.reason(name), fd=home)
                try:
                    import logging  # here: it takes a third of what the package takes to import, and is hardly needed

                    # Not an exception's way: it would find the lock held that handlers may want.
                    logging.getLogger("tqshim").warning(
                        "%s/%s: %s; it is kept as %s", self.path, name, finding, names.corrupt(name)
                    )
                    _write_all(fd, f"{finding}\n".encode("utf-8", "replace"))
                finally:
                    os.close(fd)
            for state in (names.LOAD, names.READY):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(names.batch(state, file), names.corrupt(name), src_dir_fd=home, dst_dir_fd=home)
                    break
        return f"{self.path}/{names.corrupt(name)}"

    def remove_batch(self, file: FileId) -> None:
        """Delete a batch file that nobody needs any more."""
        with contextlib.suppress(FileNotFoundError):  # a spill folder that is gone took it along
            home = self._home(file)
            for state in (names.LOAD, names.READY):
                with contextlib.suppress(FileNotFoundError):
                    try:
                        self._delete_batch(names.batch(state, file), home, file.large)
                    except (IsADirectoryError, PermissionError):
                        self.set_aside(file, "no file that could be deleted")
                    return

    def free_batch(self, file: FileId) -> None:
        """Leave a batch file that nobody needs any more to its producer: to fill pages again is many times cheaper than
        to have new ones.  Deletes it where the producer has a few already."""
        for state in (names.LOAD, names.READY):
            name = names.batch(state, file)
            size = self._size_of(name)
            if size is None:
                continue
            mapped = self.maps_batches and mappings.worth(size, self.room())
            most = names.FREE_MAPPED if mapped else names.FREE
            places = (names.free(file.member, at) for at in range(most))
            place = next((place for place in places if self._size_of(place) is None), None)
            if place is None:
                self.remove_batch(file)
                return
            with contextlib.suppress(FileNotFoundError):
                os.rename(name, place, src_dir_fd=self.fd, dst_dir_fd=self.fd)
                return

    def _size_of(self, name: str) -> Optional[int]:
        """The length of what has that name, if something has."""
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False).st_size
        except FileNotFoundError:
            return None

    def _delete_batch(self, name: str, home: int, large: bool = True) -> None:
        """Delete a batch file.  Its space is free at once, also where somebody has it mapped and does not read it."""
        fd = self._open_refillable(name, large) if home == self.fd and self.maps_batches else None
        try:
            os.unlink(name, dir_fd=home)
            if fd is not None and not os.fstat(fd).st_nlink and systems.UNRESVSP is not None:
                with contextlib.suppress(OSError):
                    fcntl.ioctl(fd, systems.UNRESVSP, _space_of(os.fstat(fd).st_size + PAGE))
        finally:
            if fd is not None:
                os.close(fd)

    def refill_batch(self, file: FileId) -> Optional[int]:
        """One of the producer's free files under a new name, open for writing; ``None``: there is none.

        Those from which records may still be read are left where they are.

        Its old bytes are beyond the end of what its events say, until they are written over."""
        name = names.batch(names.LOAD, file)
        for place in range(names.FREE_MAPPED):
            former = names.free(file.member, place)
            fd = self._open_refillable(former)
            if fd is None:
                continue
            os.close(fd)
            try:
                os.rename(former, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
            except OSError:
                continue
            # Once more: another may have been left in its place just then.
            fd = self._open_refillable(name)
            if fd is not None:
                return fd
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=self.fd)
        return None

    def _open_refillable(self, name: str, large: bool = True) -> Optional[int]:
        try:
            fd = os.open(name, os.O_RDWR | os.O_NONBLOCK | _OPEN, dir_fd=self.fd)
        except OSError:  # none there, or something in its place that nobody can write to
            return None
        # Nobody leaves a small record in its file.
        if stat.S_ISREG(os.fstat(fd).st_mode) and not (large and late.room("storage.large_records").is_being_read(fd)):
            return fd
        os.close(fd)
        return None

    def remove_free(self, keep: Container[int] = (), listed: Optional[Iterable[str]] = None) -> bool:
        """Delete the free files of all producers but those, as far as ``listed``.  ``True``: there were some."""
        found = False
        for name in _list(self.fd) if listed is None else listed:
            parsed = names.parse(name)
            if parsed is not None and parsed.kind == "free" and parsed.numbers[0] not in keep:
                with contextlib.suppress(FileNotFoundError):
                    self._delete_batch(name, self.fd)
                    found = True
        return found

    @staticmethod
    def store(fd: int, memory: memoryview, parts: list[Union[bytes, memoryview]], offset: int) -> bool:
        """``write_parts`` to the memory of a file that is mapped.  ``False``: it does not reach so far.

        Raises ``ValueError`` where this process was forked meanwhile."""
        if offset + sum(map(len, parts)) > min(len(memory), os.fstat(fd).st_size):
            return False
        mappings.store(memory, parts, offset)
        return True

    @staticmethod
    def write_parts(fd: int, parts: list[Union[bytes, memoryview]], offset: int) -> None:
        """``write_at`` of bytes that nobody has joined."""
        written = os.pwritev(fd, parts, offset) if systems.PWRITEV else 0
        size = sum(map(len, parts))
        if written < size:
            Folder.write_at(fd, memoryview(b"".join(parts))[written:], offset + written)

    @staticmethod
    def write_at(fd: int, data: Union[bytes, memoryview], offset: int) -> None:
        """Write all of it.  Raises ``OSError`` where the disk is full; what was written then counts for nothing."""
        written = os.pwrite(fd, data, offset)
        if written < len(data):
            view = memoryview(data)
            while written < len(view):
                written += os.pwrite(fd, view[written:], offset + written)

    read_at = staticmethod(read_at)

    def listing(self) -> Iterator[str]:
        """The names of what lies here, then of what lies in the spill folder.  They are read as they are asked for, and
        that may take its time: what comes or goes meanwhile is among them, or is not."""
        yield from _names(self.fd)
        with contextlib.suppress(FileNotFoundError):
            yield from _names(self._spill_folder())

    def batches(self, listed: Optional[Iterable[str]] = None) -> list[FileId]:
        """The batch files among the names of a ``listing``, by default of all."""
        parsed = map(names.parse, self.listing() if listed is None else listed)
        return [FileId(*name.numbers) for name in parsed if name and name.kind in (names.LOAD, names.READY)]

    def count_corrupt(self) -> int:
        """Batch files that were found damaged, by the reasons that lie here and in the spill folder."""
        listed = _list(self.fd)
        with contextlib.suppress(OSError):
            listed += _list(self._spill_folder())
        return sum(map(names.is_reason, listed))

    def remove_old_journals(self, number: int, listed: Optional[Iterable[str]] = None) -> None:
        """Delete what killed rollers have left, up to the journal of that number, as far as it is ``listed``."""
        for found in _list(self.fd) if listed is None else listed:
            name = names.parse(found)
            if name is None:
                continue
            if (name.kind in ("roll", "spare") and name.numbers[0] <= number) or (
                name.kind == "journal" and name.numbers[0] < number
            ):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(found, dir_fd=self.fd)

    def wants_spill(self) -> bool:
        """This folder's file system is nearly full, and there is another place for batch files."""
        if not (self.anonymous and self.is_nearly_full()):
            return False
        return spill_root(self.path) is not None or self._size_of(names.SPILL) is not None  # another has found one

    def is_nearly_full(self) -> bool:
        return self.room() < SPILL_BELOW

    def room(self) -> int:
        """Bytes that are free on this folder's file system."""
        found = os.fstatvfs(self.fd)
        return found.f_bavail * found.f_frsize

    def _home(self, file: FileId) -> int:
        return self._spill_folder() if file.spilled else self.fd

    def _spill_folder(self, create: bool = False) -> int:
        if self._spill is not None:
            return self._spill
        try:
            path = os.readlink(names.SPILL, dir_fd=self.fd)
        except FileNotFoundError:
            if not create:
                raise
            root = spill_root(self.path)
            if root is None:
                raise OSError(errno.ENOSPC, "no space left, and no other disk to spill to", self.path) from None
            # The link first: whoever deletes this folder knows of the other, too.
            with contextlib.suppress(FileExistsError):
                name = names.PREFIX + os.urandom(8).hex() + names.SPILLED
                os.symlink(os.path.join(root, name), names.SPILL, dir_fd=self.fd)
            path = os.readlink(names.SPILL, dir_fd=self.fd)
        if create:
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o700)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _OPEN)
        try:
            _check_owner(path, fd)
        except BaseException:
            os.close(fd)
            raise
        self._spill = fd
        return fd

    # -- cells, bells, members

    def open_cells(self) -> int:
        fd = self._open_ours(names.CELLS, os.O_RDWR)
        size = os.fstat(fd).st_size
        if size < CELLS_PAGE:
            os.close(fd)
            raise FolderError(f"{self.path}/{names.CELLS}", f"cut short to {size} bytes", RECOVER)
        return fd

    def denied(self, error: PermissionError) -> OSError:
        """What to raise where the system refuses a file of this folder: who may have changed its user since."""
        owner, user = os.fstat(self.fd).st_uid, os.geteuid()
        if owner == user:
            return error
        return FolderError(
            self.path,
            f"belongs to user {owner}, and this process is user {user} by now",
            "let the process change its user before the queue is made, or make the queue as that user",
        )

    def _open_ours(self, name: str, flags: int) -> int:
        try:
            return _open_plain(name, flags, self.fd)
        except FileNotFoundError:
            if not os.fstat(self.fd).st_nlink:  # so is the folder
                raise
            raise FolderError(f"{self.path}/{name}", "is missing", RECOVER) from None
        except ValueError as error:
            raise FolderError(f"{self.path}/{name}", str(error), f"see who put it there; {RECOVER}") from None

    def grow_cells(self, pages: int, fd: int = -1) -> None:
        """Make the cells at least so many pages long.  Pages are appended whole, so two who grow at once only add one
        too many, and are written, so that no store into mapped memory can find the disk full.  ``fd``: the cells were
        just made, and are open there."""
        if fd < 0:
            fd = self._open_ours(names.CELLS, os.O_WRONLY | os.O_APPEND)
        try:
            while os.fstat(fd).st_size < pages * CELLS_PAGE:
                _write_all(fd, bytes(CELLS_PAGE))
            if self.durable:
                self.harden(fd)
        finally:
            os.close(fd)

    def open_fifo(self, name: str) -> int:
        """A named FIFO of this folder, made if it is not there, open for both ends so that it never hangs or ends."""
        for _ in range(2):
            try:
                fd = os.open(name, os.O_RDWR | os.O_NONBLOCK | _OPEN, dir_fd=self.fd)
            except FileNotFoundError:
                with contextlib.suppress(FileExistsError):
                    if systems.MKFIFO_AT:
                        os.mkfifo(name, 0o600, dir_fd=self.fd)
                    else:
                        self._mkfifo_by_path(name)
                continue
            except OSError as error:
                if error.errno in _IN_THE_WAY:
                    break
                raise
            status = os.fstat(fd)
            if stat.S_ISFIFO(status.st_mode) and not _not_ours(status):
                return fd
            os.close(fd)
            break
        raise FolderError(f"{self.path}/{name}", "is no FIFO of ours", "see who put it there, and delete it")

    def _mkfifo_by_path(self, name: str) -> None:
        """Where a FIFO can't be made relative to a folder's descriptor.  Raises ``FolderError`` where the path leads
        elsewhere by now; should it do so just after that look, opening the FIFO finds out."""
        found = os.stat(self.path)
        if (found.st_dev, found.st_ino) != self.key:
            raise FolderError(self.path, "is another folder by now, and FIFOs are made by path here", "move it back")
        os.mkfifo(os.path.join(self.path, name), 0o600)

    def lock_slot(self, slot: int) -> bool:
        """Take the record lock that says: the member of this slot is alive.  ``False``: somebody has it, also we."""
        members = self._members
        if members is None:
            with _Members.lock:
                members = _Members.of(self.key, functools.partial(self._open_ours, names.MEMBERS, os.O_RDWR), True)
            self._members = members
        mine = (self,)
        # Noted first: if this is interrupted, ``unlock_slots`` finds it.
        if members.slots.setdefault(slot, mine) is not mine:
            return False
        try:
            members.set_lock(fcntl.F_WRLCK, slot)
        except OSError as error:
            if error.errno in _LOCKED:
                members.slots.pop(slot, None)
                return False
            raise  # it stays noted: what a signal handler raises may come once it is locked
        return True

    def unlock_slot(self, slot: int) -> None:
        members = self._members
        if members is not None and members.slots.get(slot, (None,))[0] is self:
            if members.fd >= 0:  # else it is the parent's, of which a frame that a fork has copied has noted it
                members.set_lock(fcntl.F_UNLCK, slot)
            members.slots.pop(slot, None)

    def unlock_slots(self, keep: Container[int] = ()) -> None:
        """Give back all locks of slots that this has but those."""
        members = self._members
        if members is not None:
            for slot, (whose,) in list(members.slots.items()):
                if whose is self and slot not in keep:
                    self.unlock_slot(slot)

    # -- lifetime

    def mark(self) -> str:
        """Keep the folder alive for a pickled handle that is on its way; returns the marker's key."""
        key = os.urandom(8).hex()
        os.close(self._create(names.marker(key)))
        return key

    def unmark(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(names.marker(key), dir_fd=self.fd)

    def close(self) -> None:
        """Let go of the folder.  Never ``LOCK_UN``: forked children and parents share the hold."""
        # Forgotten first, each: interrupted in between, its number may be another file's when this is called again.
        members, self._members = self._members, None
        try:
            if members is not None:
                members.let_go(self.key)
        finally:
            spill, self._spill = self._spill, None
            try:
                if spill is not None and spill >= 0:
                    os.close(spill)
            finally:
                fd, self.fd = self.fd, -1
                if fd >= 0:
                    os.close(fd)

    def let_go(self) -> None:
        """At the end of the program: delete the folder if nobody else uses it, else hold it on for late threads."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
        if not reclaim(self.path):
            with contextlib.suppress(OSError):
                self.fd = Folder._hold(self.path).fd

    def suspend(self) -> None:
        """In a forked child, first: until ``after_fork`` all that is tried here fails with ``EBADF``."""
        if self._suspended is None:
            if self._preparing >= 0:  # the parent is writing to it, at an offset that both would share
                os.dup2(self.fd, self._preparing, inheritable=False)
            self._suspended = self.fd, self._spill
        self.fd, self._spill = -1, None
        self._own_hold = False

    def _check_frame(self) -> None:
        if self._suspended is not None:
            raise OSError(errno.EBADF, "this frame's process was forked")

    def after_fork(self) -> None:
        """In a forked child: the record locks stayed with the parent; the hold is shared and goes on."""
        if self._suspended is not None:
            self.fd, self._spill = self._suspended
            self._suspended = None
        members, self._members = self._members, None
        if members is not None:
            if _Members.opened.get(self.key) is members:  # a frame that a fork has copied has put it there
                del _Members.opened[self.key]
            members.close()


def _locked(path: str) -> FolderError:
    return FolderError(path, f"locked by somebody for {HOLD_PATIENCE:.0f} s", "find out by whom")


def anonymous_root() -> str:
    """Where anonymous queues lie: ``TQSHIM_DIR``; else /dev/shm, where it has room; else the temporary folder."""
    chosen = _chosen("TQSHIM_DIR")
    if chosen:
        return chosen
    with contextlib.suppress(OSError):
        room = os.statvfs(systems.SHM)
        if room.f_bavail * room.f_frsize >= ENOUGH and os.access(systems.SHM, os.W_OK | os.X_OK):
            return systems.SHM
    return _temporary_root()


def _chosen(variable: str) -> Optional[str]:
    """A folder that the environment names: seen from where this process was when it first asked, as tempfile does."""
    name = os.environ.get(variable)
    return _absolute(name) if name else None


_absolute: Final = functools.lru_cache(None)(os.path.abspath)


def spill_root(path: str) -> Optional[str]:
    """Where a full queue folder's new batch files go, or ``None`` where there is no other place."""
    other = _chosen("TQSHIM_SPILL_DIR") or _temporary_root()
    try:
        return None if os.stat(other).st_dev == os.stat(path).st_dev else other
    except OSError:
        return None


def reclaim(path: str) -> bool:
    """Delete an anonymous queue folder that nobody uses.  ``False``: somebody does, or a handle is on its way to it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _OPEN)
    except OSError:  # gone, or never ours
        return False
    try:
        if os.fstat(fd).st_uid != os.geteuid():
            return False
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        root, name = os.path.split(path)
        listed = os.listdir(fd)
        if not name.startswith(names.DEAD):
            if any(names.parse(one) is None or _is_young_marker(fd, one) for one in listed):
                return False  # not ours, or a handle is on its way
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


def lock_owners(fd: int, slots: Iterable[int]) -> dict[int, int]:
    """By slot: the process that holds its record lock, for those that are held; 0: one that can't be seen from here.

    ``fd``: the queue folder's.  Takes no lock.  Raises ``OSError`` where the members file can't be opened."""
    status = os.fstat(fd)
    # Never closed here: with any descriptor of it the locks of this process may go, those of another thread's queue
    # too.  Whoever uses the queue next takes it over.
    flags = os.O_RDONLY | os.O_NONBLOCK | _OPEN
    with _Members.lock:
        # A user: a collection may let go of this process's own use meanwhile.
        members = _Members.of((status.st_dev, status.st_ino), lambda: os.open(names.MEMBERS, flags, dir_fd=fd), False)
        try:
            return _lock_owners(members, slots)
        finally:
            members.users -= 1


def _lock_owners(members: _Members, slots: Iterable[int]) -> dict[int, int]:
    found = dict.fromkeys(members.slots, os.getpid())  # one's own are not told of
    for slot in slots:
        owner = members.owner(slot)
        if owner is not None:
            found[slot] = owner
    return found


def about_to_fork() -> None:
    """Before a fork: what is being opened just now is opened again after it."""
    _Members.forks += 1


def forked() -> None:
    """In a forked child: what keeps the parent's members alive is closed at once, so that they end with the parent."""
    _Members.lock = locks.RLock()  # another thread of the parent may have held it
    for members in _Members.opened.values():
        members.slots = {}
        members.close()
    _Members.opened = {}


def sweep(root: str, mine: Iterable[str]) -> None:
    """Delete the anonymous queue folders in ``root`` whose users were all killed; ``mine`` are in use here."""
    skip = set(mine)
    try:
        listed = os.listdir(root)
    except OSError:
        return
    for name in listed:
        if names.PREFIX in name and names.is_anonymous(name.removeprefix(names.DEAD)):
            path = os.path.join(root, name)
            if path not in skip:
                reclaim(path)


def _temporary_root() -> str:
    """The temporary folder.  Its first call takes a lock and tries to write: not in a signal handler, not without
    descriptors; so it is called before any act."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return "/tmp"


def check_platform() -> None:
    """Raise ``UnsupportedError`` where queues can't work."""
    _temporary_root()
    _chosen("TQSHIM_SPILL_DIR")  # before the program goes elsewhere
    if systems.MAPS_AHEAD:
        mappings.system()  # imports ctypes: here, not in a signal handler, nor in every child
    soft, _hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if soft != resource.RLIM_INFINITY and soft < 64 << 20:
        # A write cut short by this limit would misalign every event after it.
        raise UnsupportedError("RLIMIT_FSIZE", f"files end at {soft} bytes", "raise it to 64 MB or more (ulimit -f)")


def _told(error: BaseException, path: str) -> BaseException:
    """The error; of a full disk it says which queue has no space."""
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        error.filename = path
    return error


def _check_owner(path: str, fd: int, mend: bool = False) -> os.stat_result:
    """The status of a folder.  Raises ``FolderError`` where others may write to it, or look into it.  ``mend``: an
    empty one that they may only look into is shut."""
    status = os.fstat(fd)
    finding = _not_ours(status)
    if not finding and status.st_mode & 0o077:
        if mend and not _list(fd):
            os.fchmod(fd, 0o700)
        status = os.fstat(fd)  # another may have mended it, and filled it since
        if status.st_mode & 0o077:
            finding = f"others may look into it (mode {stat.S_IMODE(status.st_mode):04o})"
    if finding:
        remedy = "use a folder of your own, for the queue alone"
        if status.st_uid == os.geteuid() and any(name.startswith(names.JOURNAL) for name in _list(fd)):
            remedy = "chmod 700, after a look inside"
        raise FolderError(path, finding, remedy)
    return status


def _not_ours(status: os.stat_result) -> str:
    """Why somebody else could write there; empty where nobody could."""
    if status.st_uid != os.geteuid():
        return f"belongs to user {status.st_uid}, not {os.geteuid()}"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write to it (mode {stat.S_IMODE(status.st_mode):04o})"
    return ""


def _reserve_space(fd: int, size: int) -> bool:
    """Set disk space aside without changing the file's length, where the system can.  ``False``: there is none."""
    try:
        if systems.RESVSP is not None:
            return _reserve_or_give_up(fd, _space_of(size))
        elif systems.PREALLOCATE is not None:
            # What is asked for comes on top of what the file has on disk.
            missing = size - os.fstat(fd).st_blocks * 512
            if missing > 0:
                flags = systems.ALL_OR_NOTHING | systems.KEPT_WHEN_CLOSED
                fcntl.fcntl(fd, systems.PREALLOCATE, systems.FSTORE.pack(flags, systems.FROM_END, 0, missing, 0))
    except OSError as error:  # if this file system can't, each append finds out for itself
        return error.errno not in NO_SPACE
    return True


def _space_of(size: int) -> bytes:
    return systems.SPACE_RESV.pack(0, 0, 0, size, 0, 0, 0, 0, 0, 0)


def _reserve_or_give_up(fd: int, wanted: bytes) -> bool:
    """Some kernels end this call at a signal and set nothing aside, and Python does not try it again.  ``False``: there
    are more signals than time for so much space."""
    assert systems.RESVSP is not None
    for _ in range(RESERVE_TRIES):
        try:
            fcntl.ioctl(fd, systems.RESVSP, wanted)
            return True
        except InterruptedError:
            pass
    return False


def _open_plain(name: str, flags: int, home: int) -> int:
    """Open a file.  Raises ``ValueError`` where something else has its name, or where somebody else could write to it:
    it may have been put there while the folder was open to others."""
    try:
        # Without waiting: a FIFO in the way would, for somebody who writes to it.
        fd = os.open(name, flags | os.O_NONBLOCK | _OPEN, dir_fd=home)
    except OSError as error:
        if error.errno in _IN_THE_WAY:
            raise ValueError(f"no file: {error.strerror}") from None
        raise
    status = os.fstat(fd)
    finding = _not_ours(status)
    if not finding and stat.S_ISREG(status.st_mode):
        return fd
    os.close(fd)
    raise ValueError(finding or "no file, but something else of its name")


def _list(fd: int) -> list[str]:
    """The names in a folder."""
    return list(_names(fd))


def _names(fd: int) -> Iterator[str]:
    """The names in a folder, read piece by piece: there may be millions.

    Opened anew: two that list through one descriptor skip each other's names."""
    own = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    try:
        with os.scandir(own) as entries:
            for entry in entries:
                yield entry.name
    finally:
        os.close(own)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _is_young_marker(fd: int, listed: str) -> bool:
    name = names.parse(listed)
    if name is None or name.kind != "marker":
        return False
    with contextlib.suppress(FileNotFoundError):
        # Either way: the wall clock can step back.
        return abs(time.time() - os.stat(listed, dir_fd=fd).st_mtime) < MARKER_LIFE
    return False


def _delete_tree(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _OPEN)
    try:
        _delete_files(fd, os.listdir(fd))
    finally:
        os.close(fd)
    os.rmdir(path)


def _delete_files(fd: int, listed: Iterable[str]) -> None:
    for name in listed:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=fd)
