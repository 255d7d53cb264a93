"""Files in a folder that is open, and the folder itself.

Lives here: opening plain files of ours and nothing else, writing whole data, listing, checking whose a folder is.  Not
here: what the files are (the other rooms of ``storage``).

Invariant: everything is opened relative to the folder's own descriptor and never through a symbolic link.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
from collections.abc import Callable, Iterator

from tqshim.errors import FolderError
from tqshim.protocol import names
from tqshim.runtime import systems

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Optional, Union

__all__ = [
    "DELETED",
    "HOLD_PATIENCE",
    "IN_THE_WAY",
    "NO_SPACE",
    "OPEN",
    "PAGE",
    "RECOVER",
    "REMEDIES",
    "Home",
    "a_full_disk_is_no_matter",
    "add_finding",
    "check_owner",
    "each_name",
    "explain",
    "list_names",
    "locked",
    "make_folder",
    "not_ours",
    "open_plain",
    "restate",
    "write_all",
    "write_at",
    "write_parts",
]

PAGE: Final = 4096
HOLD_PATIENCE: Final = 10.0
"""Seconds to wait for a folder that somebody holds alone: only a reclaimer does, and only to rename it."""
NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)
REMEDIES: Final = {
    **dict.fromkeys(NO_SPACE, "get items, or free space there"),
    errno.EMFILE: "raise the limit of open files (ulimit -n): a queue takes up to three",
    errno.ENFILE: "close files, or raise the system's limit (fs.file-max)",
}
"""What to do where the system has no more."""
RECOVER: Final = "python -m tqshim recover --into saves its items in another folder"
"""What to do about damage."""
DELETED: Final = (
    "the queue's folder was deleted while it was in use (by systemd at logout? RemoveIPC=no, or TQSHIM_DIR elsewhere)"
)
IN_THE_WAY: Final = (errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.ENXIO, errno.ENODEV)
"""The errors of opening a symbolic link, a folder, a socket or a device in the place of a file."""
OPEN: Final = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)


def make_folder(path: str) -> None:
    """Make a folder of 0700, whatever the umask: with 0177, which some daemons have, nobody could use the folder.

    Raises ``FileExistsError``."""
    os.mkdir(path, 0o700)
    with contextlib.suppress(FileNotFoundError):  # swept already: the process that opens it finds out
        os.chmod(path, 0o700)


class Home:
    """A folder that this process has open, and what it has open there.  ``fd`` is the hold: it is only ever closed, for
    a forked child shares it."""

    def __init__(self, path: str, fd: int, status: Optional[os.stat_result] = None) -> None:
        """``status``: that of ``fd``, where it is known."""
        self.path = path
        self.fd = fd
        self.anonymous = names.is_anonymous(os.path.basename(path))
        self.durable = False
        """Journals are on the disk before they count, and old ones stay until then."""
        self.spill: Optional[int] = None
        """The folder on another disk, once it is open."""
        self.preparing = -1
        """The journal that is being written for the next roll."""
        self.suspended: Optional[tuple[int, Optional[int]]] = None
        self.own_hold = False
        """Whether no other process shares the hold."""
        self.alone: Optional[bool] = None
        """``True``: the hold shuts all others out; ``False``: there may be none; ``None``: it is as it should be."""
        self.new = False
        """Whether this process has made the first journal, and has not opened one here yet."""
        self.in_memory: Optional[bool] = None
        """Whether the folder lies on a file system in memory; ``None``: that is not known yet."""
        status = status or os.fstat(fd)
        self.key = status.st_dev, status.st_ino

    def create(self, name: str, flags: int = os.O_WRONLY, fd: Optional[int] = None) -> int:
        """Make a new file, and open it.  Raises ``FileExistsError``."""
        where = self.fd if fd is None else fd
        try:
            return opened(name, flags | os.O_CREAT | os.O_EXCL | OPEN, where)
        except FileNotFoundError:
            raise self.deleted() from None

    def create_keyed(self, name: Callable[[str], str]) -> str:
        """Make a new file whose name is made of a new key; return that key."""
        for key in keys():
            with contextlib.suppress(FileExistsError):
                os.close(self.create(name(key)))
                break
        return key

    def deleted(self) -> FileNotFoundError:
        """The error that says that the folder was deleted."""
        return FileNotFoundError(errno.ENOENT, DELETED, self.path)

    @property
    def is_deleted(self) -> bool:
        return not os.fstat(self.fd).st_nlink

    def follow(self, path: str) -> None:
        """Take ``path``, where this folder was found, as its own if it is not at its former path any more."""
        if path == self.path:
            return
        with contextlib.suppress(OSError):
            status = os.stat(self.path)
            if (status.st_dev, status.st_ino) == self.key:
                return
        self.path, self.anonymous = path, names.is_anonymous(os.path.basename(path))

    def size_of(self, name: str) -> Optional[int]:
        """The length of the file of that name, if there is one."""
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False).st_size
        except FileNotFoundError:
            return None

    def check_frame(self) -> None:
        """Raise ``OSError`` where this process was forked in the middle of the calling function."""
        if self.suspended is not None:
            raise OSError(errno.EBADF, "this frame's process was forked")

    def room(self) -> int:
        """Bytes that are free on this folder's file system."""
        return systems.room_of(self.fd)


def check_owner(path: str, fd: int, mend: bool = False) -> os.stat_result:
    """The status of a folder.  Raises ``FolderError`` where others may write to it, or look into it.  ``mend``: an
    empty folder that they may only look into is closed to them."""
    status = os.fstat(fd)
    finding = not_ours(status)
    if not finding and status.st_mode & 0o077:
        if mend and not list_names(fd):
            os.fchmod(fd, 0o700)
        status = os.fstat(fd)  # another may have mended it, and filled it since
        if status.st_mode & 0o077:
            finding = f"others may look into it (mode {stat.S_IMODE(status.st_mode):04o})"
    if finding:
        remedy = "use a folder of your own, for the queue alone"
        if status.st_uid == os.geteuid() and any(name.startswith(names.JOURNAL) for name in list_names(fd)):
            remedy = "chmod 700, after a look inside"
        raise FolderError(path, finding, remedy)
    return status


def not_ours(status: os.stat_result) -> str:
    """Why somebody else could write there; empty where nobody could."""
    if status.st_uid != os.geteuid():
        return f"belongs to user {status.st_uid}, not {os.geteuid()}"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write to it (mode {stat.S_IMODE(status.st_mode):04o})"
    return ""


def keys() -> Iterator[str]:
    """Random keys for names, none of them twice: tests of programs make ``os.urandom`` repeat itself."""
    first = int.from_bytes(os.urandom(8), "big")
    for more in itertools.count():
        yield f"{(first + more) % (1 << 64):016x}"


def opened(name: str, flags: int, where: Optional[int] = None) -> int:
    """``os.open`` in that folder, for a file that stays open, or is written to; a new file is its owner's alone.  Never
    returns one of the first three descriptors, even where these were closed: a spawned process makes such a one its own
    stdin, stdout or stderr, and C libraries write there."""
    fd = os.open(name, flags, 0o600, dir_fd=where)
    if fd > 2:
        return fd
    from tqshim.runtime import own_fcntl as fcntl  # here: this room is imported on Windows, too

    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)


def open_plain(name: str, flags: int, where: int) -> int:
    """Open a file.  Raises ``ValueError`` where something else has its name, or where somebody else could write to it:
    it may have been put there while the folder was open to others."""
    try:
        # Without waiting: to open a FIFO in the way would wait for a process that writes to it.
        fd = opened(name, flags | os.O_NONBLOCK | OPEN, where)
    except OSError as error:
        if error.errno in IN_THE_WAY:
            raise ValueError(f"no file: {error.strerror}") from None
        raise
    status = os.fstat(fd)
    finding = not_ours(status)
    if not finding and stat.S_ISREG(status.st_mode):
        return fd
    os.close(fd)
    raise ValueError(finding or "no file, but something else of its name")


def list_names(fd: int) -> list[str]:
    """The names in a folder."""
    return list(each_name(fd))


def each_name(fd: int) -> Iterator[str]:
    """The names in a folder, read piece by piece: there may be millions.

    The folder is opened anew: two listings through one descriptor skip each other's names."""
    own = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    try:
        with os.scandir(own) as entries:
            for entry in entries:
                yield entry.name
    finally:
        os.close(own)


def write_all(fd: int, data: bytes) -> None:
    """Write all of it, at the file's own offset."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_parts(fd: int, parts: list[Union[bytes, memoryview]], offset: int) -> None:
    """``write_at`` of pieces that are not joined."""
    written = os.pwritev(fd, parts, offset) if systems.PWRITEV else 0
    size = sum(map(len, parts))
    if written < size:
        write_at(fd, memoryview(b"".join(parts))[written:], offset + written)


def write_at(fd: int, data: Union[bytes, memoryview], offset: int) -> None:
    """Write all of it.  Raises ``OSError`` where the disk is full; what was written then counts for nothing."""
    written = os.pwrite(fd, data, offset)
    if written < len(data):
        view = memoryview(data)
        while written < len(view):
            written += os.pwrite(fd, view[written:], offset + written)


@contextlib.contextmanager
def a_full_disk_is_no_matter() -> Iterator[None]:
    """Ignore a full disk.  What is put is put: the consumer that wants it cuts."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise


def explain(error: BaseException, path: str) -> None:
    """Where the system had no more, let the error say which queue it was, and what to do."""
    if isinstance(error, OSError) and error.errno in REMEDIES and REMEDIES[error.errno] not in str(error):
        restate(error, f"{error.strerror}; {REMEDIES[error.errno]}", path)


def restate(error: OSError, told: str, path: str) -> None:
    """Let the error say ``told`` of that path, also where it is pickled, or shown by ``repr``."""
    error.filename, error.strerror = path, told
    error.args = error.errno, told


def add_finding(error: OSError, finding: str) -> None:
    """Let the error say ``finding``, too."""
    if isinstance(error, FolderError):
        FolderError.__init__(error, error.path, f"{error.finding}; {finding}", error.remedy)
    else:
        restate(error, f"{error.strerror}; {finding}", error.filename)


def locked(path: str) -> FolderError:
    """The error that says that a folder is locked."""
    return FolderError(path, f"locked by somebody for {HOLD_PATIENCE:.0f} s", "find out by whom")
