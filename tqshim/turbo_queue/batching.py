"""Filling batches: what one producer of the original's API does.

Lives here: when a batch begins, is stored, rolls and ends; threads, forks and the end of the program, also for
consumers, which work batches off.  Not here: working them off (``emptying``), what an event is (``turbo_queue``), what
a file looks like (``sqlite_files``).

Invariant: an event that ``Filling`` has taken is in its list, or stored, exactly once.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from typing import Any, ClassVar, Final, Optional

from tqshim.runtime import forks, locks
from tqshim.runtime.clock import monotonic
from tqshim.runtime.ending import AtExit, alive
from tqshim.turbo_queue import sqlite_files, states
from tqshim.turbo_queue.sqlite_files import Loading, Row

__all__ = ["Filling", "Member"]

STORE_ROWS: Final = 1000
"""Events that are kept in memory at most: so many are stored at once."""
STORE_EVERY: Final = 0.1
"""Seconds after which what was added is stored: a producer that is killed loses what it has added in that time."""
FORK_PATIENCE: Final = 1.0
"""Seconds for which a fork waits until other threads have stored what they are storing."""

_log: Final = logging.getLogger(__name__)


class Member:
    """What a producer and a consumer of batches have in common: forks and the end of the program find both."""

    _all: ClassVar[weakref.WeakSet[Member]] = weakref.WeakSet()
    _inherited: ClassVar[list[Any]] = []
    """Batch files that the process which forked this one had open: SQLite must not touch their databases here, not even
    to close them."""

    def __init__(self) -> None:
        self.lock: Any = locks.RLock()
        self._all.add(self)
        _at_exit.arm()

    def forked(self) -> None:
        """Called in a child that was just forked: what the parent had open is the parent's."""
        self.lock = locks.RLock()

    def retire(self) -> None:
        """Called when the program ends, or nobody has this object any more."""
        raise NotImplementedError

    def __del__(self) -> None:
        try:
            self.retire()
        except Exception:  # without ``contextlib``: at the end of the interpreter the names of modules may be gone
            pass


class Filling(Member):
    """The batch that a producer fills, and the later ones.  All threads of a process may use it.

    A crash loses what was added in the last ``STORE_EVERY`` seconds; what was stored is recovered."""

    _newest: ClassVar[int] = 0
    """The time in the newest name that this process gave: it grows even where the clock does not."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = ""
        self.oldest = 1.0
        """Seconds after its first event, after which a batch rolls that is not full."""
        self.rows: Final[list[Row]] = []
        """Events that were added and are not stored.  A thread appends without the lock, and then looks at
        ``limit``."""
        self.limit = 0
        """With so many rows or more, a thread that has appended one must call ``added``."""
        self._most = 1
        self._uncounted = 0
        self._file: Optional[Loading] = None
        self._quiet = True
        """No event is in the batch: the next one is its first."""
        self._began = 0.0
        self._failed = False
        self._busy = False
        """The thread that has the lock is storing or rolling."""

    @property
    def most(self) -> int:
        """Events after which a batch rolls."""
        return self._most

    @most.setter
    def most(self, most: int) -> None:
        self._most = most
        self.limit = 0  # so that the next ``added`` sets it by the new bound

    @property
    def count(self) -> int:
        """Events in this batch so far, without the uncounted ones."""
        return self._stored() + len(self.rows) - self._uncounted

    @property
    def file_path(self) -> Optional[str]:
        """The path of the file that is being filled."""
        return self._file.path if self._file else None

    def _stored(self) -> int:
        return self._file.stored if self._file else 0

    def begin(self) -> None:
        """Begin a batch, if there is none.  Raises ``OSError`` or ``sqlite3.Error`` where its file can't be made."""
        with self.lock:
            if self._file is None:
                sqlite_files.make_folder(self.folder)
                Filling._newest = max(Filling._newest + 1, time.time_ns())
                self._file = Loading(self.folder, states.begin(Filling._newest, os.urandom(12)))

    def add_uncounted(self, row: Row) -> None:
        """Take an event that does not count for ``most``.  Raises what ``added`` raises."""
        with self.lock:
            self.rows.append(row)
            self._uncounted += 1
            try:
                self.added(row)
            except BaseException:
                self._uncounted -= 1
                raise

    def added(self, row: Row) -> bool:
        """To be called when the row was appended and ``limit`` is reached: store and roll what is due.  Return whether
        a batch rolled.

        Raises what storing raises, ``OSError`` or ``sqlite3.Error``: then this row is not taken, the others stay."""
        with self.lock:
            if self._busy:
                return False  # a signal handler has added the row: the call that it has interrupted goes on with it
            try:
                self._busy = True
                return self._settle()
            except BaseException:
                for place in range(len(self.rows) - 1, -1, -1):
                    if self.rows[place] is row:
                        del self.rows[place]
                        break
                self.limit = 0
                raise
            finally:
                self._busy = False

    def _settle(self) -> bool:
        """Store and roll what is due; return whether a batch rolled."""
        rows = self.rows
        rolled = False
        while True:
            # First the limit, then another look at the rows: other threads append a row first, then look at the limit.
            if not rows and not self._stored():
                self._quiet = True
                self.limit = 0
                if not rows:
                    return rolled
            room = self._room()
            if not room:
                self._seal()  # an earlier call could not make it ready
                rolled = True
                continue
            if self._quiet:
                self.begin()
                self._began = monotonic()
                _clock.wake()
                self._quiet = False
            self.limit = limit = min(room, STORE_ROWS)
            if len(rows) < limit:
                return rolled
            self._store(limit)
            if limit == room:
                try:
                    self._seal()
                except OSError:
                    # This event is stored: ``add`` of the next one tries again, and raises.
                    _log.exception("%s: a full batch could not be made ready", self.folder)
                    self.limit = 0
                    return rolled
                rolled = True

    def _room(self) -> int:
        """Return how many rows the batch takes beside the stored ones."""
        return max(0, self._most + self._uncounted - self._stored())

    def _store(self, most: int) -> None:
        """Store the first so many of the rows that were added."""
        rows = self.rows[:most]
        if not rows:
            return
        self.begin()
        while True:
            file = self._file
            assert file is not None
            before = file.stored
            try:
                if file.store(rows):
                    return
            finally:
                # Also where a signal handler raised after all was stored.  Other threads may have appended meanwhile.
                if file.stored > before and file is self._file:
                    del self.rows[: len(rows)]
            _log.warning("%s: taken away by a clean-up that does not ask who lives; going on in another", file.path)
            file.close()
            self._file = None
            self.begin()

    def _seal(self) -> None:
        """Make the batch ready with what is stored of it; the next event begins another one."""
        if self._file is not None:
            self._file.seal()
            self._file = None
        self._uncounted = 0
        self._quiet = True
        self.limit = 0

    def _roll(self) -> None:
        """Make the batch ready, with all that was added so far."""
        left = len(self.rows)
        while left or self._stored():
            part = min(left, self._room())
            self._store(part)
            self._seal()
            left -= part
        self._settle()  # what other threads have added meanwhile

    def roll(self) -> None:
        """Make ready what was added so far, if anything was.

        Raises what storing raises, ``OSError`` or ``sqlite3.Error``: nothing is lost, what is not ready yet stays."""
        with self.lock:
            busy = self._busy
            try:
                self._busy = True
                if self.rows or self._stored():
                    self._roll()
            finally:
                self._busy = busy

    def roll_if_old(self) -> None:
        """``roll``, if the first event of the batch was added ``oldest`` seconds ago, or longer."""
        with self.lock:
            if monotonic() - self._began >= self.oldest:
                self.roll()

    def tick(self) -> bool:
        """Store what was added, roll what is old; return whether there will be more to do."""
        # A thread that forks may have the lock, and waits for the end of the clock's thread, which runs this.
        if not self.lock.acquire(blocking=False):
            return True
        try:
            self.roll_if_old()
            self._store(self._room())
            self._settle()  # sets ``limit`` for the room that is left
            self._failed = False
            return bool(self.rows or self._stored())
        except Exception:
            if not self._failed:
                _log.exception("%s: events could not be stored; trying again", self.folder)
            self._failed = True
            return True
        finally:
            self.lock.release()

    def close(self) -> None:
        """Make ready what was added so far, and close the file.  Raises what ``roll`` raises."""
        with self.lock:
            self.roll()
            if self._file is not None:
                self._file.seal()
                self._file = None

    def forked(self) -> None:
        """The batch is the parent's, with all that is in it."""
        super().forked()
        if self._file is not None:
            self._inherited.append(self._file)
            self._file = None
        self.rows.clear()
        self._busy = False
        self._uncounted = 0
        self._quiet = True
        self.limit = 0

    def retire(self) -> None:
        """At the end of the program: make ready what was added so far."""
        try:
            self.close()
        except Exception:
            _log.exception("%s: %d events could not be stored, and are lost", self.folder, len(self.rows))


class _Clock:
    """One thread for all producers of a process: it stores what they added, and rolls what is old."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin without a thread; also in a child that was just forked."""
        self._lock: Any = locks.Lock()
        self._due = threading.Event()
        self._stop = threading.Event()
        self._thread: Optional[threading.Thread] = None

    def wake(self) -> None:
        """Say that there is something to store."""
        if not self._due.is_set():
            self._due.set()
            if self._thread is None:
                self._start()

    def _start(self) -> None:
        if not locks.is_free(self._lock, FORK_PATIENCE):
            return  # a signal handler runs this, and has interrupted a frame that has the lock
        with self._lock:
            if self._thread is None:
                self._stop = stop = threading.Event()
                thread = threading.Thread(target=self._run, args=(stop,), name="tqshim clock", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the interpreter is ending: what is added now is stored at its very end
                    return
                self._thread = thread

    def _run(self, stop: threading.Event) -> None:
        while True:
            self._due.wait()
            if stop.wait(STORE_EVERY):
                return
            self._due.clear()
            self._tick_all()

    def _tick_all(self) -> None:
        # In a function of its own: a variable of the thread's loop would keep the last producer alive while it waits.
        for member in alive(Member._all):
            if isinstance(member, Filling) and member.tick():
                self._due.set()

    def halt(self) -> None:
        """End the thread: a process that forks should have no threads but the program's own."""
        if not locks.is_free(self._lock, FORK_PATIENCE):
            return
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is None or thread is threading.current_thread():
                return
            self._stop.set()
            while True:
                if not thread.is_alive():
                    break
                self._due.set()  # again: the thread may just have cleared it, without having seen ``_stop``
                thread.join(STORE_EVERY)

    def go_on(self) -> None:
        """Start the thread again if there is something to store: after a fork, in the parent."""
        if self._due.is_set():
            self._start()


def _roll_all() -> None:
    """Make all batches ready, before the process waits for its children: these may be waiting for the batches."""
    for member in alive(Member._all):
        if isinstance(member, Filling):
            member.retire()


def _retire_all() -> None:
    for member in alive(Member._all):
        member.retire()
    _clock.halt()  # else an interpreter that ends may wait for the thread


_held: Final[dict[int, list[Any]]] = {}
"""By the thread that forks: the locks that it has taken for that."""


def _before_fork() -> None:
    _clock.halt()
    for member in alive(Member._all):
        if member.lock.acquire(timeout=FORK_PATIENCE):
            _held.setdefault(threading.get_ident(), []).append(member.lock)


def _after_fork_in_parent() -> None:
    for lock in _held.pop(threading.get_ident(), ()):
        lock.release()
    _clock.go_on()


def _after_fork_in_child() -> None:
    _held.clear()
    _clock.reset()
    for member in alive(Member._all):
        member.forked()
    # For a child of a bare os.fork; one of multiprocessing clears the registry after this, and then enters again.
    _at_exit.enter_again()


_clock: Final = _Clock()
_at_exit: Final = AtExit(_roll_all, _retire_all, lambda: bool(Member._all))
forks.register(_before_fork, _after_fork_in_child, _after_fork_in_parent)
