"""The original's batch files: SQLite databases with one table, ``logs(log_data json)``, an event a row.

Lives here: creating, filling, taking, giving back, removing and recovering them.  Not here: when that is done
(``batching``), what an event is (``turbo_queue``), how the files are called (``states``).

::

    create ──> load_ ──store──store──> seal ──> ready_ ──> take ──> unload_ ──> remove
                 │                                ^                    │
                 └──────── its user died ─────────┴──── put_back ──────┘

SQLite's own locks show which process lives: the producer of a file holds its write lock, the consumer that has taken
the file holds its read lock.  So programs on 0.8.0 and on tqshim see each other.

Invariant: a rename moves a batch from one state to the next, and only one process's rename succeeds.  A file that a
living process uses through this module is locked at every instant but those between two statements here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import stat
import time
from collections.abc import Iterable, Sequence
from typing import Final, Optional, Union
from urllib.parse import quote

from tqshim.runtime import systems
from tqshim.runtime.clock import monotonic
from tqshim.turbo_queue import states

__all__ = ["Loading", "ReadyCount", "Row", "Unloading", "make_folder", "ready_count", "ready_names", "recover", "take"]

Row = Union[str, bytes, int, float, None]
"""JSON text, or what SQLite has made of it: a column of this type turns text that looks like a number into a number."""

BUSY_PATIENCE: Final = 5.0
"""Seconds to wait for the lock of a process that only looks, as in 0.8.0."""
PAGE: Final = 16384
"""Bytes: events of a kilobyte are written a third faster than with SQLite's own 4,096."""
CHUNK: Final = 1000
"""Rows that are read at a time."""
TOGETHER: Final = 50
"""Rows that one statement inserts: most of its cost does not depend on the number of rows.  With 100 it is no
faster."""
COUNT_LIFE: Final = 0.005
"""Seconds for which a count is trusted while the time of the folder's last change stays the same: changes within one
tick of a coarse clock have the same time."""
SETTLED: Final = 1.0
"""Seconds for which a file must not have changed before it can count as nobody's: 0.8.0 renames files without a
lock."""

_INSERT: Final = "INSERT INTO logs (log_data) VALUES (?)"
_INSERT_TOGETHER: Final = _INSERT + ",(?)" * (TOGETHER - 1)

_log: Final = logging.getLogger(__name__)


def make_folder(folder: str) -> None:
    """Make a queue's folder, and those above it, unless it is there.

    Raises ``OSError`` where it can't be made."""
    os.makedirs(folder, exist_ok=True)


def ready_count(folder: str) -> int:
    """Batches that are ready; none in a folder that is not there.  Raises ``OSError`` where it can't be read."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return 0
    return sum(map(states.is_ready, names))


class ReadyCount:
    """``ready_count`` for programs that ask after each event: the folder is listed only if its time has changed, or
    after ``COUNT_LIFE`` seconds.

    Where the system's times are coarse, what other processes do may be seen so many seconds late."""

    __slots__ = ("_changed", "_count", "_folder", "_listed")

    def __init__(self) -> None:
        self._folder = ""
        self._changed = -1
        self._listed = 0.0
        self._count = 0

    def forget(self) -> None:
        """Let the next call list the folder."""
        self._changed = -1

    def __call__(self, folder: str) -> int:
        """Batches that are ready.  Raises ``OSError`` where the folder can't be read."""
        try:
            changed = os.stat(folder).st_mtime_ns
        except FileNotFoundError:
            return 0
        now = monotonic()
        if changed != self._changed or now - self._listed > COUNT_LIFE or folder != self._folder:
            self._count = ready_count(folder)  # after the look at the time: what changes in between is seen next time
            self._changed, self._listed, self._folder = changed, now, folder
        return self._count


def ready_names(folder: str) -> list[str]:
    """Names of all batches that are ready, oldest first.  Raises ``OSError`` where the folder can't be read."""
    try:
        found = [(states.parse(name), name) for name in os.listdir(folder) if states.is_ready(name)]
    except FileNotFoundError:
        return []
    return [name for _, name in sorted((parsed.own, name) for parsed, name in found if parsed is not None)]


def _connect(path: str) -> sqlite3.Connection:
    """Open a database that must be there.  Raises ``FileNotFoundError`` where it is not."""
    try:
        return sqlite3.connect(
            f"file:{quote(path)}?mode=rw",
            uri=True,
            timeout=BUSY_PATIENCE,
            isolation_level=None,
            check_same_thread=False,
        )
    except sqlite3.OperationalError:
        os.stat(path)
        raise


def _ready_path(folder: str, own: str) -> str:
    """Return the path that makes a batch ready again: under its own name, or under a new one if somebody has copied a
    file there."""
    path = os.path.join(folder, states.name(states.READY, own))
    if os.path.exists(path):
        path = os.path.join(folder, states.name(states.READY, states.begin(time.time_ns(), os.urandom(12))))
    return path


def _take_away(path: str) -> None:
    """Move a damaged file out of everybody's way, under a name that says so.  The file is never deleted here."""
    folder, name = os.path.split(path)
    parsed = states.parse(name)
    aside = os.path.join(folder, states.name(states.INVALID, parsed.own if parsed else name))
    try:
        os.rename(path, aside)
    except FileNotFoundError:  # another process has taken or moved it
        return
    _log.error("%s: damaged; set aside as %s", path, aside)


class Loading:
    """A batch file that this process fills.  Not for use by several threads at once.

    A crash leaves what was stored, under its load_ name; ``recover`` makes it ready."""

    def __init__(self, folder: str, own: str) -> None:
        self.path = os.path.join(folder, states.name(states.LOAD, own))
        self._ready = os.path.join(folder, states.name(states.READY, own))
        self.stored = 0
        """Rows in the file."""
        try:
            self._database = sqlite3.connect(
                self.path, timeout=BUSY_PATIENCE, isolation_level=None, check_same_thread=False
            )
        except sqlite3.OperationalError:
            os.stat(folder)  # in most cases this raises, and says what is wrong
            raise
        try:
            execute = self._database.execute
            execute(f"PRAGMA page_size={PAGE}")
            execute("PRAGMA synchronous=0")
            execute("CREATE TABLE logs (log_data json)")
            self._inode = os.stat(self.path).st_ino
            execute("BEGIN IMMEDIATE")  # the write lock shows that the producer lives
        except BaseException:
            self._database.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
            raise

    def store(self, rows: Sequence[Row]) -> bool:
        """Append rows to the file: all or none.  Where this raises, ``stored`` says which.

        ``False``: the file was taken away, and none of these rows is stored.  0.8.0's clean-up does that to living
        producers; what was stored before is all in the file that it has moved."""
        execute = self._database.execute
        if self._database.in_transaction:
            execute("COMMIT")
        try:
            # Nobody can read the file now: if it is still ours, every process that reads it later sees these rows, too.
            execute("BEGIN EXCLUSIVE")
            if not self._is_ours():
                execute("ROLLBACK")
                return False
            many = len(rows) // TOGETHER * TOGETHER
            pieces = [rows[first : first + TOGETHER] for first in range(0, many, TOGETHER)]
            self._database.executemany(_INSERT_TOGETHER, pieces)
            self._database.executemany(_INSERT, zip(rows[many:]))
            execute("COMMIT")  # Commit point.
            self.stored += len(rows)
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                if self._database.in_transaction:
                    execute("ROLLBACK")
                (self.stored,) = execute("SELECT count(*) FROM logs").fetchone()
            raise
        finally:
            with contextlib.suppress(sqlite3.Error):
                execute("BEGIN IMMEDIATE")
        return True

    def _is_ours(self) -> bool:
        try:
            return os.stat(self.path).st_ino == self._inode
        except FileNotFoundError:
            return False

    def seal(self) -> None:
        """Make the batch ready and let go of it; one without rows is removed."""
        try:
            if self.stored:
                os.rename(self.path, self._ready)  # Commit point.
            else:
                os.unlink(self.path)
        except FileNotFoundError:
            _log.warning("%s: taken away with all its events, by a clean-up that does not ask who lives", self.path)
        self.close()

    def close(self) -> None:
        """Let go of the file, as it is."""
        self._database.close()


class Unloading:
    """A batch file that this process has taken.  Not for use by several threads at once.

    A crash leaves it whole, under its unload_ name; ``recover`` makes it ready again."""

    def __init__(self, path: str, own: str, database: sqlite3.Connection) -> None:
        self.path = path
        self.own = own
        self._database = database
        self._rows: Optional[sqlite3.Cursor] = None
        self.damaged = False

    def read(self) -> list[Row]:
        """Return the next rows, in their order; none at the end of the batch, or of what can be read of it."""
        try:
            if self._rows is None:
                self._rows = self._database.execute("SELECT log_data FROM logs ORDER BY rowid")
            return [row for (row,) in self._rows.fetchmany(CHUNK)]
        except sqlite3.DatabaseError as error:
            self.damaged = True
            _log.error("%s: %s", self.path, error)
            return []

    def remove(self) -> None:
        """End the batch: its file is deleted.  A damaged file is set aside."""
        if self.damaged:
            _take_away(self.path)
        else:
            try:
                os.unlink(self.path)
            except FileNotFoundError:
                _log.warning("%s: taken away; its events will come again", self.path)
        self._database.close()

    def set_aside(self, rows: Iterable[Row]) -> None:
        """End the batch, but for these rows, which nobody can read: its file is set aside, with nothing else in it.  A
        damaged file is set aside as it is."""
        if not self.damaged:
            self._write("DELETE FROM logs", rows)
            self.damaged = True
        self.remove()

    def put_back(self, done: int = 0) -> None:
        """Make the batch ready again, without its first ``done`` rows."""
        if done:
            self._write(f"DELETE FROM logs WHERE rowid IN (SELECT rowid FROM logs ORDER BY rowid LIMIT {done})")
        try:
            os.rename(self.path, _ready_path(os.path.dirname(self.path), self.own))  # Commit point.
        except FileNotFoundError:
            _log.warning("%s: taken away; its events will come again", self.path)
        self._database.close()

    def _write(self, change: str, rows: Iterable[Row] = ()) -> None:
        # SQLite does not write to a file that was renamed since it was opened.
        database = _connect(self.path)
        execute = database.execute
        execute("PRAGMA synchronous=0")
        execute("BEGIN IMMEDIATE")  # take a lock before the other connection gives up its own
        self._database.close()
        self._rows, self._database = None, database
        execute(change)
        database.executemany(_INSERT, ((row,) for row in rows))
        execute("COMMIT")
        execute("BEGIN IMMEDIATE")


def take(folder: str, name: str, number: Optional[object]) -> Optional[Unloading]:
    """Take a batch that is ready; ``number``: that of the consumer, if it has one.

    ``None``: another process was faster, or is just taking the batch; or the file is damaged, or no batch, and was set
    aside."""
    parsed = states.parse(name)
    if parsed is None:
        return None
    ready = os.path.join(folder, name)
    try:
        status = os.stat(ready)
        if not stat.S_ISREG(status.st_mode):
            _take_away(ready)
            return None
        if parsed.held and time.time() - status.st_ctime < SETTLED:
            return None
        # The file is locked before it is taken: it must never look like a dead consumer's.
        database = _connect(ready)
    except FileNotFoundError:
        return None
    unload = os.path.join(folder, states.name(states.UNLOAD, parsed.own, number))
    taken: Optional[Unloading] = None
    try:
        database.execute("BEGIN")
        table = database.execute("SELECT 1 FROM sqlite_master WHERE type='table' AND name='logs'").fetchone()
        if table is None:
            _take_away(ready)
        else:
            os.rename(ready, unload)  # Commit point.
            taken = Unloading(unload, parsed.own, database)
    except FileNotFoundError:  # another process was faster
        pass
    except sqlite3.OperationalError:  # a lock, or the disk: the file itself may be sound
        raise
    except sqlite3.DatabaseError:
        _take_away(ready)
    finally:
        if taken is None:
            database.close()
    return taken


# -- recovering


def recover(folder: str, remove_invalid: bool) -> int:
    """Make ready what dead processes have left, and return how many batches that were.

    A batch that was taken comes whole, under the name that it had.  A file without events is deleted where the system
    tells which files are open, and stays elsewhere.  A damaged file is set aside, or deleted with ``remove_invalid``.
    Files of living processes stay as they are.  Takes ``SETTLED`` seconds if a file has just changed.  Raises
    ``OSError`` where the folder can't be read or changed."""
    found = _abandoned(folder)
    now = time.time_ns()
    young = {name: changed for name, changed in found.items() if now - changed < SETTLED * 1e9}
    recovered = _recover(folder, found.keys() - young.keys(), remove_invalid)
    if young:
        time.sleep(SETTLED)
        found = _abandoned(folder)
        recovered += _recover(folder, {name for name in young if found.get(name) == young[name]}, remove_invalid)
    return recovered


def _abandoned(folder: str) -> dict[str, int]:
    """Return the names of files that belong to a process, dead or alive, and when they last changed."""
    found = {}
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return {}
    for name in names:
        parsed = states.parse(name)
        if parsed is not None and parsed.state in states.ABANDONED:
            with contextlib.suppress(FileNotFoundError):
                found[name] = os.stat(os.path.join(folder, name)).st_ctime_ns
    return found


def _recover(folder: str, names: Iterable[str], remove_invalid: bool) -> int:
    names = set(names)
    if not names:
        return 0
    in_use = _open_now()
    return sum(
        _recover_one(folder, name, in_use is None, remove_invalid)
        for name in sorted(names)
        if in_use is None or name not in in_use
    )


def _open_now() -> Optional[set[str]]:
    """Return the names of the files that this user's processes have open; ``None`` where the system does not tell.

    0.8.0 holds no lock on a batch without events, nor on one whose last event is being handled."""
    try:
        processes = [name for name in os.listdir(systems.PROC) if name.isdigit()]
    except OSError:
        return None
    found = set()
    for process in processes:
        with contextlib.suppress(OSError):  # another user's process, or gone
            for fd in os.listdir(f"{systems.PROC}/{process}/fd"):
                with contextlib.suppress(OSError):
                    found.add(os.path.basename(os.readlink(f"{systems.PROC}/{process}/fd/{fd}")))
    return found if processes else None


def _recover_one(folder: str, name: str, keep_empty: bool, remove_invalid: bool) -> bool:
    """Make one file ready, unless a process holds a lock on it; return whether that was done.  ``keep_empty``: leave a
    file without events."""
    path = os.path.join(folder, name)
    parsed = states.parse(name)
    assert parsed is not None
    try:
        database = _connect(path)
    except FileNotFoundError:
        return False
    with contextlib.closing(database):
        try:
            database.execute("PRAGMA busy_timeout=0")
            database.execute("BEGIN EXCLUSIVE")
            damage = [row for (row,) in database.execute("PRAGMA integrity_check(1)") if row != "ok"]
            events = 0 if damage else database.execute("SELECT count(*) FROM logs").fetchone()[0]
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                if "locked" not in str(error):  # locked: its process lives
                    _log.error("%s: left as it is: %s", path, error)
                return False
            # An empty file is that of a producer that was killed before it made its table.
            damage, events = [], 0
            if os.path.getsize(path):
                damage = [str(error)]
        except sqlite3.DatabaseError as error:
            damage, events = [str(error)], 0
        if not damage:
            # SQLite has undone what was to be undone.  A journal that is still there was begun and never written, or
            # its database is complete.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{path}-journal")
        try:
            if damage:
                if remove_invalid:
                    os.unlink(path)
                    _log.warning("%s: damaged, and removed: %s", path, damage[0])
                else:
                    _take_away(path)
            elif events:
                os.rename(path, _ready_path(folder, parsed.own))  # Commit point.
                _log.info("%s: made ready again, with %d events", path, events)
                return True
            elif not keep_empty:
                os.unlink(path)
        except FileNotFoundError:  # another clean-up was faster
            pass
    return False
