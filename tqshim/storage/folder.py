"""The queue folder: making it and opening it, and what lies in it beside journals and batch files.

Lives here: a folder's hold, cells, FIFOs, members' locks, markers; and, by name, what the other rooms of ``storage`` do
in it.  Not here: where queue folders lie (``places``), what an event means (``ledger``), when to do something
(``engine``), wake-ups and cells (``sync``).

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

Invariant: everything is opened relative to the folder's own descriptor and never through a symbolic link, and that
descriptor holds ``flock(LOCK_SH)`` as long as somebody uses the folder.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
import time
from collections.abc import Container, Iterable

from tqshim.errors import FolderError
from tqshim.protocol import names, snapshot
from tqshim.protocol.ledger import Ledger
from tqshim.protocol.names import FileId
from tqshim.runtime import late, mappings, systems
from tqshim.runtime import own_fcntl as fcntl
from tqshim.runtime.clock import monotonic
from tqshim.storage import batch_file, files, journal, places
from tqshim.storage.files import (
    DELETED,
    HOLD_PATIENCE,
    IN_THE_WAY,
    NO_SPACE,
    OPEN,
    PAGE,
    RECOVER,
    Home,
    check_owner,
    explain,
    keys,
    locked,
    make_folder,
    not_ours,
    open_plain,
    opened,
    restate,
    write_all,
)
from tqshim.storage.member_locks import LOCKED, Members

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Optional, TypeVar

    from tqshim.storage.large_records import BatchView, LargeFile

    _F = TypeVar("_F", bound="LogFolder")

__all__ = ["LogFolder"]

CELLS_PAGE: Final = 4 * PAGE
"""Bytes of the cells of 64 slots: as ``sync.cells`` lays them out."""
SPILL_BELOW: Final = 4 << 20
"""Bytes that batch files leave free, for journals and cells; with less than that new ones are spilled."""


class LogFolder(Home):
    """One queue folder that this process uses.

    A method that is written as ``= room.function`` is at home in that room of ``storage``."""

    def __init__(self, path: str, fd: int, status: Optional[os.stat_result] = None) -> None:
        """``status``: that of ``fd``, where it is known."""
        super().__init__(path, fd, status)
        self._members: Optional[Members] = None

    # -- making and opening

    @classmethod
    def create_anonymous(cls: type[_F], maxsize: int, limits: tuple[int, int], mine: Iterable[str] = ()) -> _F:
        """Make a queue folder that goes away with its last user; ``mine``: others that this process uses."""
        places.check_platform()
        root = places.root_for_new(mine)
        try:
            return cls._create_in(root, maxsize, limits)
        except OSError as error:
            other = places.spill_root(root)
            if error.errno not in NO_SPACE or other is None:
                raise
            return cls._create_in(other, maxsize, limits)

    @classmethod
    def _create_in(cls: type[_F], root: str, maxsize: int, limits: tuple[int, int]) -> _F:
        deadline, fresh = monotonic() + HOLD_PATIENCE, keys()
        while True:
            path = os.path.join(root, names.PREFIX + next(fresh))
            try:
                make_folder(path)
            except FileExistsError:
                if monotonic() > deadline:
                    raise
                continue
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR):
                    raise
                remedy = "set TQSHIM_DIR to a folder that you may write to"
                raise FolderError(root, f"no queue can be made there: {error.strerror}", remedy) from None
            try:
                folder = cls._hold(path)
            except FileNotFoundError:
                if monotonic() > deadline:
                    raise
                continue  # A sweeper took it for an abandoned one before it was held.
            except BaseException as error:
                with contextlib.suppress(OSError):
                    os.rmdir(path)
                explain(error, path)
                raise
            try:
                folder._furnish(maxsize, limits)
            except BaseException as error:
                folder.close()
                places.reclaim(path)
                explain(error, path)
                raise
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
        """Open the queue folder at a path, or make a queue there with that ``maxsize``, ``durable`` and proof of a key.

        Raises ``FolderError`` where somebody else could write to it, or where it is something else."""
        places.check_platform()
        path = os.path.abspath(path)
        if os.path.basename(path).startswith(names.PREFIX):
            raise FolderError(
                path, f"names beginning with {names.PREFIX!r} are for queues without a path", "take another"
            )
        new, above = [], path
        while not os.path.lexists(above):
            new.append(above)
            above = os.path.dirname(above)
        try:
            folder = cls._hold_or_make(path)
        except BaseException as error:
            for one in new:  # if they are empty
                with contextlib.suppress(OSError):
                    os.rmdir(one)
            if isinstance(error, (FileExistsError, NotADirectoryError)):
                raise FolderError(path, "is a file, or lies below one", "take another") from None
            explain(error, path)
            raise
        try:
            if folder.newest() is None:
                listed = {name: names.parse(name) for name in os.listdir(folder.fd)}
                strangers = [name for name, parsed in listed.items() if parsed is None]
                if strangers:
                    raise FolderError(
                        path, f"holds {strangers[0]!r}, which is no part of a queue", "use an empty folder"
                    )
                # Else the queue's journal is lost, or was rolled while we listed: ``open_newest`` tells.
                if not {names.LOAD, names.READY}.intersection(name.kind for name in listed.values() if name):
                    folder._furnish(maxsize, limits, durable, proof)
        except BaseException as error:
            folder.close()
            explain(error, path)
            raise
        return folder

    @classmethod
    def _hold_or_make(cls: type[_F], path: str) -> _F:
        deadline = monotonic() + HOLD_PATIENCE
        while True:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with contextlib.suppress(FileExistsError):
                make_folder(path)
            try:
                return cls._hold(path, mend=True)
            except FileNotFoundError:
                if os.path.islink(path) or monotonic() > deadline:
                    raise
                # Somebody has removed the queue just now: make another.

    @classmethod
    def meet(cls: type[_F], path: str, fd: Optional[int] = None) -> _F:
        """Open a queue that must be there already; ``fd``: its hold, from the process that started this one."""
        places.check_platform()
        if fd is not None:
            return cls(path, fd, check_owner(path, fd))
        return cls._hold(path)

    @classmethod
    def _hold(cls: type[_F], path: str, mend: bool = False) -> _F:
        deadline = monotonic() + HOLD_PATIENCE
        while True:
            try:
                fd = opened(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                gone = "the queue is gone: its last user left before this handle arrived"
                gone = "a link that leads nowhere" if os.path.islink(path) else gone
                raise FileNotFoundError(errno.ENOENT, gone, path) from None
            try:
                root, name = os.path.split(path)
                if root != systems.SHM or not names.is_anonymous(name):  # there another file system may be mounted
                    places.check_file_system(path, fd)
                mine = check_owner(path, fd, mend)
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                found = os.stat(path)
                if (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino):
                    folder = cls(path, fd, mine)
                    folder.own_hold = True
                    return folder
                raise BlockingIOError  # it was deleted just now, and perhaps made anew
            except BlockingIOError:  # a reclaimer holds it: in a moment it is gone
                fd, stale = -1, fd
                os.close(stale)
                if monotonic() > deadline:
                    raise locked(path) from None
                time.sleep(0.001)
            except BaseException:
                if fd >= 0:
                    os.close(fd)
                raise

    def _furnish(self, maxsize: int, limits: tuple[int, int], durable: bool = False, proof: bytes = b"") -> None:
        """Make an empty folder a queue.  Commit point: the rename that makes journal_0 appear."""
        self.durable = durable
        with contextlib.suppress(FileExistsError):
            os.close(self.create(names.MEMBERS))
        try:
            self.grow_cells(1, self.create(names.CELLS, os.O_WRONLY | os.O_APPEND))
        except FileExistsError:
            self.grow_cells(1)
        name = self.prepare_roll(
            0, lambda limit: snapshot.dump(Ledger(maxsize, limit, limits[1], durable, proof)), limits[0]
        )
        self.give_name(0, name)
        self.new = True

    # -- journals

    newest = journal.newest
    open_newest = journal.open_newest
    open_journal = journal.open_journal
    kind = journal.kind
    set_space_aside = journal.set_space_aside
    prepare_roll = journal.prepare_roll
    has_spare = journal.has_spare
    has_roll = journal.has_roll
    drop_roll = journal.drop_roll
    give_name = journal.give_name
    finish_roll = journal.finish_roll
    remove_old_journals = journal.remove_old_journals

    # -- batch files

    create_log = batch_file.create_log
    read_log = batch_file.read_log
    open_batch = batch_file.open_batch
    seal_batch = batch_file.seal_batch
    remove_batch = batch_file.remove_batch
    remove_free = batch_file.remove_free
    free_batch = batch_file.free_batch
    refill_log = batch_file.refill_log
    set_aside = batch_file.set_aside
    listing = batch_file.listing
    batches = batch_file.batches
    maps_batches = property(batch_file.maps_batches)
    write_at = staticmethod(files.write_at)
    write_parts = staticmethod(files.write_parts)

    def open_large(self, file: FileId) -> LargeFile:
        """A batch file to be read by system calls.  Raises ``ValueError`` where it is not there, or something else."""
        large: LargeFile = late.room("storage.large_records").LargeFile(file, self.open_batch(file))
        return large

    def view_batch(self, file: FileId, known: mappings.Mappings) -> Optional[BatchView]:
        """A batch file as memory.  ``None``: it has to be read."""
        view: Optional[BatchView] = late.room("storage.large_records").view_batch(self, file, known)
        return view

    def wants_spill(self) -> bool:
        """Whether this folder's file system is nearly full, and there is another place for batch files."""
        if not (self.anonymous and self.is_nearly_full()):
            return False
        # A link to a spill folder is there: another process has found such a place.
        return places.spill_root(self.path) is not None or self.size_of(names.SPILL) is not None

    def is_nearly_full(self) -> bool:
        return self.room() < SPILL_BELOW

    def room_for(self, spilled: bool) -> int:
        """Bytes that are free where a new batch file will lie."""
        if not spilled:
            return self.room()
        return systems.room_of(places.spill_folder(self, create=True))

    # -- cells, bells, members

    def open_cells(self) -> int:
        fd = self._open_ours(names.CELLS, os.O_RDWR)
        size = os.fstat(fd).st_size
        if size < CELLS_PAGE:
            os.close(fd)
            raise FolderError(f"{self.path}/{names.CELLS}", f"cut short to {size} bytes", RECOVER)
        return fd

    def grow_cells(self, pages: int, fd: int = -1) -> None:
        """Make the cells at least so many pages long.  Pages are appended whole, so two processes that do this at
        once only add one too many; they are written, so that no store into mapped memory can find the disk full.
        ``fd``: where the cells are open, if they were just made."""
        if fd < 0:
            fd = self._open_ours(names.CELLS, os.O_WRONLY | os.O_APPEND)
        try:
            while True:  # Not ``while`` a condition: as in ``TurboQueue.get_many``.
                if os.fstat(fd).st_size >= pages * CELLS_PAGE:
                    break
                write_all(fd, bytes(CELLS_PAGE))
            if self.durable:
                late.room("storage.hardening").harden(fd)
        finally:
            os.close(fd)

    def open_fifo(self, name: str) -> int:
        """A named FIFO of this folder, made if it is not there, open for both ends so that it never hangs or ends."""
        for _ in range(2):
            try:
                fd = opened(name, os.O_RDWR | os.O_NONBLOCK | OPEN, self.fd)
            except FileNotFoundError:
                with contextlib.suppress(FileExistsError):
                    if systems.MKFIFO_AT:
                        os.mkfifo(name, 0o600, dir_fd=self.fd)
                    else:
                        self._mkfifo_by_path(name)
                continue
            except OSError as error:
                if error.errno in IN_THE_WAY:
                    break
                raise
            status = os.fstat(fd)
            if stat.S_ISFIFO(status.st_mode) and not not_ours(status):
                return fd
            os.close(fd)
            break
        raise FolderError(f"{self.path}/{name}", "is no FIFO of ours", "see who put it there, and delete it")

    def _mkfifo_by_path(self, name: str) -> None:
        """Make a FIFO where it can't be made relative to a folder's descriptor.  Raises ``FolderError`` where the path
        leads elsewhere by now; if it does so just after this look, opening the FIFO finds out."""
        found = os.stat(self.path)
        if (found.st_dev, found.st_ino) != self.key:
            raise FolderError(self.path, "is another folder by now, and FIFOs are made by path here", "move it back")
        os.mkfifo(os.path.join(self.path, name), 0o600)

    def explain(self, error: BaseException) -> None:
        """Let an error say which queue it was, and what to do, where the system has no more, or this folder is gone.
        Raises ``FolderError`` in its place where the system refuses a file of the folder to this process, which may
        have changed its user since."""
        explain(error, self.path)
        if isinstance(error, FileNotFoundError) and self.is_deleted:
            restate(error, DELETED, self.path)
        if isinstance(error, PermissionError):
            owner, user = os.fstat(self.fd).st_uid, os.geteuid()
            if owner != user:
                raise FolderError(
                    self.path,
                    f"belongs to user {owner}, and this process is user {user} by now",
                    "let the process change its user before the queue is made, or make the queue as that user",
                ) from None

    def _open_ours(self, name: str, flags: int) -> int:
        try:
            return open_plain(name, flags, self.fd)
        except FileNotFoundError:
            if self.is_deleted:
                raise
            raise FolderError(f"{self.path}/{name}", "is missing", RECOVER) from None
        except ValueError as error:
            raise FolderError(f"{self.path}/{name}", str(error), f"see who put it there; {RECOVER}") from None

    def lock_slot(self, slot: int) -> bool:
        """Take the record lock that says: this slot's member is alive.  ``False``: somebody has it, perhaps we."""
        members = self._members
        if members is None:
            with Members.lock:
                members = Members.of(self.key, functools.partial(self._open_ours, names.MEMBERS, os.O_RDWR), True, self)
            self._members = members
        mine = (self,)
        # Noted first: if this is interrupted, ``unlock_slots`` finds it.
        if members.slots.setdefault(slot, mine) is not mine:
            return False
        try:
            members.set_lock(fcntl.F_WRLCK, slot)
        except OSError as error:
            if error.errno in LOCKED:
                members.slots.pop(slot, None)
                return False
            raise  # the slot stays noted: a signal handler may have raised this once it was locked
        return True

    def unlock_slot(self, slot: int) -> None:
        members = self._members
        if members is not None and members.slots.get(slot, (None,))[0] is self:
            if members.fd >= 0:  # else it is the parent's: a frame that a fork has copied has noted the slot
                members.set_lock(fcntl.F_UNLCK, slot)
            members.slots.pop(slot, None)

    def unlock_slots(self, keep: Container[int] = ()) -> None:
        """Give back all locks of slots that this folder has, but those to ``keep``."""
        members = self._members
        if members is not None:
            for slot, (whose,) in list(members.slots.items()):
                if whose is self and slot not in keep:
                    self.unlock_slot(slot)

    # -- lifetime

    def mark(self) -> str:
        """Keep the folder alive for a pickled handle that is on its way; returns the marker's key."""
        return self.create_keyed(names.marker)

    def unmark(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(names.marker(key), dir_fd=self.fd)

    def close(self) -> None:
        """Let go of the folder.  Never ``LOCK_UN``: forked children and parents share the hold."""
        # Each is forgotten first: after an interrupt its number may be another file's when this is called again.
        members, self._members = self._members or Members.opened.get(self.key), None
        try:
            if members is not None and id(self) in members.users:
                members.let_go(self.key, self)
        finally:
            spill, self.spill = self.spill, None
            try:
                if spill is not None and spill >= 0:
                    os.close(spill)
            finally:
                fd, self.fd = self.fd, -1
                if fd >= 0:
                    os.close(fd)

    def delete_unless_used(self, hold: bool = True) -> bool:
        """Delete an anonymous folder that nobody else uses.  ``False``: somebody does, and it is held as before; not
        any more if not ``hold``: else several processes that end at once would keep each other from deleting it."""
        if not self.anonymous:
            return False
        try:
            # Not by path, which may lead elsewhere by now, and before the hold goes: its number may be taken at once.
            unheld = opened(os.curdir, os.O_RDONLY | os.O_DIRECTORY | OPEN, self.fd)
        except OSError:
            return False
        held, self.fd = self.fd, unheld
        os.close(held)
        if places.reclaim(self.path):
            return True
        if hold:
            with contextlib.suppress(BlockingIOError):  # a process that has it alone deletes it, or lets go at once
                fcntl.flock(self.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                self.own_hold = True
        return self.is_deleted

    def suspend(self) -> None:
        """In a forked child, first: until ``after_fork`` all that is tried here fails with ``EBADF``."""
        if self.suspended is None:
            if self.preparing >= 0:  # the parent is writing to it, at an offset that both would share
                os.dup2(self.fd, self.preparing, inheritable=False)
            self.suspended = self.fd, self.spill
        self.fd, self.spill = -1, None
        self.own_hold = False

    def after_fork(self) -> None:
        """In a forked child: the record locks stayed with the parent; the hold is shared and goes on."""
        if self.suspended is not None:
            self.fd, self.spill = self.suspended
            self.suspended = None
        members, self._members = self._members, None
        if members is not None:
            if Members.opened.get(self.key) is members:  # a frame that a fork has copied has put it there
                del Members.opened[self.key]
            members.close()
