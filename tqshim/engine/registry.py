"""A process's use of queues: each folder has one engine, which its handles find.

Lives here: finding and making engines, forks, the end of the program.  Not here: what an engine does.
"""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from collections.abc import Callable
from multiprocessing import process
from operator import index
from os import PathLike, fsdecode

from tqshim.engine import tuning
from tqshim.engine.engine import Engine
from tqshim.runtime import forks, late, locks
from tqshim.runtime.ending import AtExit, alive, end_threads
from tqshim.storage.files import explain
from tqshim.storage.folder import LogFolder
from tqshim.storage.member_locks import about_to_fork, forked
from tqshim.storage.places import reclaim_left, sweep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Final, Optional, Union

    from tqshim.engine.keys import Key

__all__ = ["Engine", "Use"]

MAXSIZE: Final = 2**62
"""Places of a queue, at most: its files count in words of 64 bits."""


class Use:
    """One process's use of a queue: each of its handles holds it, and it goes with the last one.

    Handles find this and not the engine itself: another thread could get hold of an engine whose finalizer runs."""

    __slots__ = ("__weakref__", "engine")

    _all: ClassVar[weakref.WeakValueDictionary[tuple[int, int], Use]] = weakref.WeakValueDictionary()
    """By device and inode of the folder."""
    lock: ClassVar[Any] = locks.RLock()
    last: ClassVar[Any] = None
    """The room ``engine.last``, once there is an engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @classmethod
    def make(
        cls,
        maxsize: int,
        path: Union[str, bytes, PathLike[Any], None],
        durable: Optional[bool],
        authkey: Optional[bytes],
    ) -> Use:
        """Return the use of a new anonymous queue, or of the queue at a path.  Raises ``ValueError``, ``TypeError`` or
        ``OverflowError``, before anything is made, where the arguments make no sense."""
        if durable and path is None:
            raise ValueError("durable=True needs a path: a queue without one goes away with its last user")
        if authkey is not None and path is None:
            raise ValueError("authkey needs a path: a queue without one is reached through its handles alone")
        if isinstance(maxsize, (str, bytes, PathLike)):
            raise TypeError(f"maxsize must be a number, not {maxsize!r}: a path is given as path={maxsize!r}")
        maxsize = 0 if maxsize <= 0 else index(maxsize)
        if maxsize > MAXSIZE:
            raise OverflowError(f"maxsize={maxsize} is more than {MAXSIZE}")
        if path is None:
            return cls.create(maxsize)
        if not (path := fsdecode(path)):
            raise ValueError("path is empty; give a folder, or leave it out")
        return cls.open(path, maxsize, None if durable is None else bool(durable), authkey)

    @classmethod
    def create(cls, maxsize: int) -> Use:
        """Return the use of a new anonymous queue; deletes what killed programs have left of theirs."""
        others = [engine.folder.path for engine in alive(Engine.all)]
        folder = LogFolder.create_anonymous(maxsize, tuning.LIMITS, others)
        with cls.lock:
            use = cls._of(folder)
        sweep(os.path.dirname(folder.path), [folder.path, *others])
        return use

    @classmethod
    def open(cls, path: str, maxsize: int, durable: Optional[bool] = None, authkey: Optional[bytes] = None) -> Use:
        """Return the use of the queue at a path, which is made if it is not there."""
        proof = b"" if authkey is None else late.room("engine.keys").Key(authkey).proof
        with cls.lock:
            use = cls._of(LogFolder.open(path, maxsize, tuning.LIMITS, bool(durable), proof), authkey)
        if maxsize > 0 and use.engine.maxsize != maxsize:
            raise ValueError(
                f"{path}: the queue there has maxsize={use.engine.maxsize}, not {maxsize}; leave maxsize out to join it"
            )
        if durable is not None and use.engine.durable != durable:
            raise ValueError(
                f"{path}: the queue there was made with durable={use.engine.durable}, which holds for all its handles; "
                "leave durable out to join it, or use another folder"
            )
        return use

    @classmethod
    def meet(
        cls,
        path: str,
        receive: Optional[Callable[[], int]] = None,
        authkey: Optional[bytes] = None,
        keyed: bool = False,
    ) -> Use:
        """Return the use of a queue whose handle was just unpickled; ``receive`` fetches the hold that came with it.

        ``keyed``: the queue has an authkey.  If the key did not come with the handle, this process uses the queue
        already, or the process's own authkey is the queue's."""
        with cls.lock:
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(path)
                use = cls._all.get((status.st_dev, status.st_ino))
                if use is not None and not use.engine.closed:
                    use.engine.follow(path)
                    return use._checked(authkey, keyed)
            folder = LogFolder.meet(path, receive() if receive else None)
            return cls._of(folder, process.current_process().authkey if keyed and authkey is None else authkey)

    @classmethod
    def _of(cls, folder: Any, authkey: Optional[bytes] = None) -> Use:
        use = cls._all.get(folder.key)
        if use is not None and not use.engine.closed:
            use.engine.follow(folder.path)
            folder.close()
            return use._checked(authkey)
        try:
            _, proof = (False, b"") if folder.anonymous else folder.kind()
            engine = Engine(folder, _key(folder.path, proof, authkey))
        except BaseException as error:
            folder.close()
            explain(error, folder.path)
            raise
        _at_exit.arm()
        cls.last = late.room("engine.last")  # not later: see there
        use = cls._all[folder.key] = cls(engine)
        return use

    def _checked(self, authkey: Optional[bytes], keyed: bool = False) -> Use:
        """Return this use to a caller that has that authkey; see ``match`` and ``meet``."""
        key = self.engine.key
        if keyed and authkey is None:
            authkey = key.authkey if key else b""
        _key(self.engine.folder.path, key.proof if key else b"", authkey)
        return self


def _key(path: str, proof: bytes, authkey: Optional[bytes]) -> Optional[Key]:
    """Return the key of a queue, as ``keys.match`` does; most queues have none."""
    found: Optional[Key] = (
        late.room("engine.keys").match(path, proof, authkey) if proof or authkey is not None else None
    )
    return found


def _leave_all() -> None:
    """Leave all queues, as this process ends.

    A program may use queues after this, in functions that ``atexit`` calls later: ``last`` deletes what is left then,
    unless somebody has taken ``last`` out of ``sys.modules``, which the interpreter empties."""
    end_threads()
    deletes = process.parent_process() is not None or sys.modules.get(Use.last.__name__) is not Use.last
    for engine in alive(Engine.all):
        with contextlib.suppress(OSError, ImportError):  # in another root than it was imported in, a room is not found
            engine.retire(deletes)
    reclaim_left()
    if not deletes:
        Use.last.expect()


def _after_fork_in_child() -> None:
    Use.lock = locks.RLock()
    forked()
    for engine in alive(Engine.all):
        engine.forked()
    # For children of a bare os.fork; children of multiprocessing clear the registry after this, and enter again.
    _at_exit.enter_again()


_at_exit = AtExit(lambda: None, _leave_all, lambda: bool(Engine.all))
forks.register(about_to_fork, _after_fork_in_child)
