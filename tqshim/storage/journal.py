"""Journals: one that is open, and the next.

Lives here: appending to a journal and reading it; opening the newest; writing the next one, giving it its name, and the
disk space that is set aside for it.  Not here: what an event means (``ledger``), when to roll (``replica``).

Invariant: a journal counts once the one before it says so, and nothing brings a removed one back.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable

from tqshim.errors import CorruptBatchError, FolderError
from tqshim.protocol import events as rules
from tqshim.protocol import names, snapshot
from tqshim.runtime import late, mappings, systems
from tqshim.runtime import own_fcntl as fcntl
from tqshim.storage.batch_file import remove_free, space_of
from tqshim.storage.files import (
    IN_THE_WAY,
    NO_SPACE,
    OPEN,
    PAGE,
    RECOVER,
    Home,
    each_name,
    list_names,
    open_plain,
    opened,
    write_all,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Optional, Protocol

    class Located(Protocol):
        """A folder that somebody has opened."""

        path: str


__all__ = [
    "Journal",
    "drop_roll",
    "finish_roll",
    "give_name",
    "has_roll",
    "has_spare",
    "kind",
    "newest",
    "open_journal",
    "open_newest",
    "prepare_roll",
    "remove_old_journals",
    "reserve_space",
    "set_space_aside",
]

ROLLS_SEEN: Final = 1000
"""Listings of a folder in which its newest journal may be missed: one is missed only if it is rolled in that moment."""
LEAST_LIMIT: Final = 64
"""Events of a journal on a full disk, at least."""
RESERVE_TRIES: Final = 8
"""Signals that may interrupt the setting aside of disk space, before it is tried with less."""
_PAST_LIMIT: Final = PAGE
"""Bytes of events that may stand past a journal's limit: each member writes two or three before it rolls."""
_PLENTY: Final = 16 << 20
"""Free bytes of a disk from which on the next journals will find their space, too."""
NEAR: Final = 8
"""Events among which a process looks for its own, before it asks the kernel where that is."""
_OURS: Final = frozenset(
    (rules.CLAIM, rules.CLAIM_MANY, rules.LEASE, rules.HOLD, rules.RESERVE, rules.OPEN, rules.GOT, rules.RETURN)
)
"""Types of events that only the member of their slot writes: such an event that stands there once is its own."""


class Journal:
    """One journal, opened by this process for itself: its offset is shared with nobody."""

    __slots__ = ("_home", "_size", "fd", "number", "start", "words")

    def __init__(self, home: Located, fd: int, number: int, start: int) -> None:
        self._home = home
        self.fd = fd
        self.number = number
        self.start = start
        """Where the first event stands, in bytes."""
        self.words: Optional[memoryview] = None
        """The file as 64-bit words, once it is mapped.  Only what is known to be written may be looked at."""
        self._size = 0

    @property
    def path(self) -> str:
        """Where it lies, for messages."""
        return f"{self._home.path}/{names.journal(self.number)}"

    def append(self, data: bytes, at: int = 0) -> int:
        """Append events in one piece, and return where they end.  ``at``: where the first may stand at the earliest.

        Raises ``OSError`` where there is no space: then no event has happened, or only the first of them have."""
        written = os.write(self.fd, data)
        if written != len(data):
            if written % rules.SIZE == 0:
                # The first of them have happened, which is known once the journal is read; nothing is damaged.
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
            raise FolderError(self.path, "events were torn", RECOVER)
        if self.words is None or data[-8] not in _OURS:
            return os.lseek(self.fd, 0, 1)
        return self.end_of(int.from_bytes(data[-8:], "little"), at + written - 8)

    def end_of(self, word: int, at: int) -> int:
        """Where the event ends that was just written, and whose word stands nowhere between byte ``at`` and there.

        To look for it in mapped memory is cheaper than to ask the kernel."""
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
        # A page of which something is written can be looked at: a zero there means that no event is written.  But what
        # is there may be half of an event, which the kernel is just writing: for ``pread`` it is not there yet.
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
        """Map the file, as long as it can become; Python's own mmap refuses to map what is not there yet."""
        if self.words is not None or not systems.MAPS_AHEAD:
            return
        system = mappings.system()
        if system is None:
            return
        size = self.start + limit * rules.SIZE + _PAST_LIMIT
        mapping = system.map(self.fd, size)
        if mapping is not None:
            self._size = size
            self.words = mapping.memory().toreadonly().cast("Q")

    def unmap(self) -> None:
        """Forget the mapping: a frame that still looks at it gets a ``ValueError``."""
        words, self.words = self.words, None
        if words is not None:
            words.release()

    def size(self) -> int:
        """Bytes that the file has, whether they are seen or not."""
        return os.fstat(self.fd).st_size

    def snapshot(self) -> bytes:
        """What this journal begins with."""
        return os.pread(self.fd, self.start, 0)

    def close(self) -> None:
        """Close the journal, unless it is closed already."""
        self.unmap()
        # Forget the number first: after an interrupt it may be another file's when this is called again.
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


# -- opening


def newest(home: Home) -> Optional[int]:
    """The number of the newest journal, or ``None`` where there is none."""
    journals = (name for name in each_name(home.fd) if name.startswith(names.JOURNAL))
    numbers = [name.numbers[0] for name in map(names.parse, journals) if name and name.kind == "journal"]
    return max(numbers, default=None)


def open_newest(home: Home) -> tuple[Journal, bytes]:
    """The newest journal, and the snapshot that it begins with."""
    for _ in range(ROLLS_SEEN):
        new, home.new = home.new, False
        number = 0 if new else newest(home)
        if number is None:  # rolled twice while we listed
            continue
        try:
            return open_journal(home, number)
        except FileNotFoundError:  # rolled since we listed
            continue
    if home.is_deleted:
        raise home.deleted()
    raise FolderError(home.path, "has no journal", f"it is no queue, or was damaged: {RECOVER}")


def open_journal(home: Home, number: int) -> tuple[Journal, bytes]:
    """A journal and the snapshot that it begins with.

    Raises ``FileNotFoundError`` where a newer one has replaced it, ``CorruptBatchError`` where it is damaged."""
    name = names.journal(number)
    fd = -1
    try:
        fd = open_plain(name, os.O_RDWR | os.O_APPEND, home.fd)
        size = snapshot.size_of(os.pread(fd, 16, 0))
        found = os.fstat(fd).st_size
        if found < size:
            raise ValueError(f"a snapshot of {size} bytes is cut short to {found}")
        if found % rules.SIZE:
            raise ValueError(f"{found} bytes are no whole number of events")
        data = os.pread(fd, size, 0)
        snapshot.check(data)
        return Journal(home, fd, number, size), data
    except BaseException as error:
        if fd >= 0:
            os.close(fd)
        if isinstance(error, ValueError):
            raise CorruptBatchError(f"{home.path}/{name}", str(error), RECOVER) from None
        raise


def kind(home: Home) -> tuple[bool, bytes]:
    """Whether the queue here was made a durable one, and the proof of its key, as its newest journal says."""
    journal, begin = open_newest(home)
    journal.close()
    return snapshot.kind(begin)


# -- the next one


def set_space_aside(home: Home, number: int, limit: int) -> None:
    """Reserve the disk space of a future journal, so that a full disk stops nobody from draining the queue."""
    try:
        fd = opened(names.spare(number), os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | OPEN, home.fd)
    except OSError:  # there is no space, and the roll will try again
        return
    try:
        # An earlier process may have found less; and if this file is a journal by now, more space does it no harm.
        if reserve_space(fd, limit * rules.SIZE + 2 * _PAST_LIMIT):
            return
        remove_free(home)  # Else these files are refilled, and then nothing gives way.
        while True:  # Not ``while`` a condition: as in ``TurboQueue.get_many``.
            if reserve_space(fd, limit * rules.SIZE + 2 * _PAST_LIMIT) or limit <= LEAST_LIMIT:
                break
            limit //= 2
    finally:
        os.close(fd)


def prepare_roll(
    home: Home, number: int, snapshot: Callable[[int], bytes], limit: int, most: int = 0, whole: bool = False
) -> str:
    """Write the journal of that number under a name that only counts once the journal before it says so.

    ``snapshot``: makes what the journal begins with, for the limit for which there is space.  This is ``limit``; or up
    to ``most``, if more was set aside and there is not plenty; or less, if not ``whole``.  Raises ``OSError`` where
    there is hardly any space."""
    while True:
        key = os.urandom(5).hex()
        try:
            if not number:
                raise FileNotFoundError
            os.rename(names.spare(number), names.roll(number, key), src_dir_fd=home.fd, dst_dir_fd=home.fd)
            fd = opened(names.roll(number, key), os.O_WRONLY | os.O_NONBLOCK | OPEN, home.fd)
        except OSError as error:
            # Nobody set space aside, or another roller took it; or what has that name is no file.
            if not isinstance(error, FileNotFoundError) and error.errno not in IN_THE_WAY:
                raise
            try:
                fd = home.create(names.roll(number, key))
            except FileExistsError:
                continue
        break
    # Stored, then checked: ``suspend`` finds it, or this frame of a forked child finds that it was suspended.
    home.preparing = fd
    try:
        home.check_frame()
        if os.fstat(fd).st_size:  # a power cut has kept what was written there, and not its name
            os.ftruncate(fd, 0)
        wanted, begin = limit, snapshot(limit)
        beside = len(begin) + _PAST_LIMIT
        if most > limit and home.room() < _PLENTY:
            limit = max(limit, min(most, (os.fstat(fd).st_blocks * 512 - beside) // rules.SIZE))
        while True:
            if reserve_space(fd, beside + limit * rules.SIZE) or limit <= LEAST_LIMIT:
                break
            if whole:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"{home.path}/{names.journal(number)}")
            limit //= 2
        write_all(fd, begin if limit == wanted else snapshot(limit))
        if home.durable:
            late.room("storage.hardening").harden(fd)
            late.room("storage.hardening").harden_names(home)
    except BaseException:
        drop_roll(home, number, key)
        raise
    finally:
        home.preparing = -1
        os.close(fd)
    return key


def has_spare(home: Home, number: int) -> bool:
    """Whether space is set aside for that journal, and no roller has taken it yet."""
    return home.size_of(names.spare(number)) is not None


def has_roll(home: Home, number: int) -> bool:
    """Whether a process is preparing that journal, or was killed while it did."""
    begin = names.roll(number, "")
    return any(name.startswith(begin) for name in each_name(home.fd))


def drop_roll(home: Home, number: int, key: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(names.roll(number, key), dir_fd=home.fd)


def give_name(home: Home, number: int, key: str) -> None:
    """Give its name to a prepared journal for which no earlier one has decided, if no other has that name."""
    # Not a rename: of two processes that do so at once, the first must win.  It may go on to remove the other's.
    with contextlib.suppress(FileExistsError, FileNotFoundError):
        os.link(names.roll(number, key), names.journal(number), src_dir_fd=home.fd, dst_dir_fd=home.fd)
    drop_roll(home, number, key)


def finish_roll(home: Home, number: int, key: int) -> Optional[tuple[Journal, bytes]]:
    """Give the prepared journal its name, if nobody has yet, and open it; ``None`` where even newer ones are there.

    Nothing can bring a removed journal back: only one file ever has that key, and its rename succeeds once."""
    with contextlib.suppress(FileNotFoundError):
        os.rename(names.roll(number, f"{key:010x}"), names.journal(number), src_dir_fd=home.fd, dst_dir_fd=home.fd)
        if home.durable:
            late.room("storage.hardening").harden_names(home)  # one of the two must be there
        # Delete the old one at once: processes that have it open read on, and its space is wanted for the next.
        for old in (names.journal(number - 1), names.spare(number)):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(old, dir_fd=home.fd)
    try:
        return open_journal(home, number)
    except FileNotFoundError:
        return None


def remove_old_journals(home: Home, number: int, listed: Optional[Iterable[str]] = None) -> None:
    """Delete what killed rollers have left, up to the journal of that number, as far as it is ``listed``."""
    for found in list_names(home.fd) if listed is None else listed:
        name = names.parse(found)
        if name is None:
            continue
        if (name.kind in ("roll", "spare") and name.numbers[0] <= number) or (
            name.kind == "journal" and name.numbers[0] < number
        ):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(found, dir_fd=home.fd)


def reserve_space(fd: int, size: int) -> bool:
    """Set disk space aside without changing the file's length, where the system can.  ``False``: there is none."""
    try:
        if systems.RESVSP is not None:
            return _reserve_or_give_up(fd, space_of(size))
        elif systems.PREALLOCATE is not None:
            # What is asked for comes on top of what the file has on disk.
            missing = size - os.fstat(fd).st_blocks * 512
            if missing > 0:
                flags = systems.ALL_OR_NOTHING | systems.KEPT_WHEN_CLOSED
                fcntl.fcntl(fd, systems.PREALLOCATE, systems.FSTORE.pack(flags, systems.FROM_END, 0, missing, 0))
    except OSError as error:  # if this file system can't, each append finds out for itself
        return error.errno not in NO_SPACE
    return True


def _reserve_or_give_up(fd: int, wanted: bytes) -> bool:
    """Set disk space aside.  Some kernels end this call at a signal and set nothing aside, and Python does not try it
    again.  ``False``: there are more signals than time for so much space."""
    assert systems.RESVSP is not None
    for _ in range(RESERVE_TRIES):
        try:
            fcntl.ioctl(fd, systems.RESVSP, wanted)
            return True
        except InterruptedError:
            pass
    return False
