"""Items become records, and records items.

Lives here: pickling and unpickling, what of it failed and what to say then, the descriptors that it makes for whoever
gets an item.  Not here: large buffers in a record (``buffers``), making and fetching descriptors, which is
``multiprocessing.resource_sharer``'s.

Torch's tensors, connections and sockets take a descriptor each of the process that has put them, until it is fetched.
The standard library's queue pickles what its pipe has room for; here all that is put is pickled.  At the limit nothing
could be fetched any more, for that takes a descriptor, too: what had been put before would be lost.

Invariant: a put waits while a quarter of the descriptors that this process may have wait: what a pipe has room for.
"""

from __future__ import annotations

import copyreg
import errno
import functools
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterable
from multiprocessing import queues, reduction
from queue import Full
from types import CodeType

from tqshim.runtime import late
from tqshim.runtime.clock import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, Optional, TypeAlias

    from tqshim.engine.reader import Taken
    from tqshim.protocol.pieces import NewRecord

__all__ = [
    "COPIED",
    "OF_MEMORY",
    "dumps",
    "dumps_many",
    "explain_failure",
    "explain_loss",
    "has_room",
    "is_fault",
    "load",
    "loads",
    "pause",
    "reducers",
    "wait_for_room",
]

loads: Final = pickle.loads

COPIED: Final = 2 << 20
"""Bytes up to which the arrays of a record are copied from memory that is mapped already: to map them anew costs more.
"""
SHARE: Final = 4
LEAST: Final = 16
"""As many may wait, or a part of the limit."""
PATIENCE: Final = 30.0
"""Seconds for which a put waits while nobody fetches anything: whoever is to may be this very thread."""
LOOK_EVERY: Final = 0.005
"""Seconds."""
GRACE: Final = 0.1
"""Seconds that a process takes from closing what it has to being seen as dead."""
_REMEDY: Final = (
    "get what was put, give the queue a maxsize, raise the limit (ulimit -n), or share tensors in another way "
    "(torch.multiprocessing.set_sharing_strategy('file_system'))"
)

PUTTABLE: Final = "put what pickles (no lambda, lock, generator or open file), or override _on_queue_feeder_error"
GETTABLE: Final = "what it is made of must be importable here by the name that it has where it was put"

SHARED: Final = "who has put it must live until its descriptors were fetched"


# -- pickling


class Reducers:
    """A pickler's dispatch table: what programs have registered with ``multiprocessing``, and with ``copyreg``."""

    __slots__ = ("_extra", "used")

    def __init__(self, extra: dict[type, Any]) -> None:
        self._extra = extra
        self.used = False
        """An item had something that needs ``multiprocessing``'s own: it may have made descriptors."""

    def __getitem__(self, kind: type) -> Any:
        reducer = self._extra.get(kind)
        if reducer is None:
            return copyreg.dispatch_table[kind]
        self.used = True
        return reducer


class _Sink:
    """A file for a pickler: what it writes is appended to a list."""

    __slots__ = ("write",)

    def __init__(self, write: Callable[[bytes], Any]) -> None:
        self.write = write


_given: Final = vars(queues._ForkingPickler).get("dumps")  # type: ignore[attr-defined]
_pickler: Final[Any] = (
    queues._ForkingPickler  # type: ignore[attr-defined]
    if getattr(getattr(_given, "__func__", None), "__module__", "") == reduction.__name__
    else None
)
"""The standard library's pickler, which ours comes to.  Programs put another in its place, dill's or cloudpickle's, or
in that of its methods, at any time: then those are used.  ``None``: one has done so before this was imported."""
_methods: Final = vars(_pickler) if _pickler else {}
reducers: Final = Reducers(_pickler._extra_reducers if _pickler else {})
"""What ``multiprocessing`` knows to pickle beyond ``pickle``: connections, sockets, and what programs registered."""
_Pen: TypeAlias = "tuple[Any, list[Any]]"
"""A pickler, and what it has written."""
_pens: Final[list[_Pen]] = []
_PEN_BYTES: Final = 2048
"""A pickler that has written more may have met many objects: its table of them never shrinks, and is cleared for every
later item.  It is not used again; a new one costs 1 us."""


def dumps(item: object) -> NewRecord:
    """As ``ForkingPickler.dumps``, seven times faster for small items: a pickler is made once and used again."""
    if queues._ForkingPickler is not _pickler or _methods["dumps"] is not _given:  # type: ignore[attr-defined]
        return bytes(queues._ForkingPickler.dumps(item))  # type: ignore[attr-defined]
    try:
        pen = _pens.pop()
    except IndexError:
        pen = _new_pen()
    # An exception leaves the pickler half-way: it is not used again then.
    pickler, written = pen
    pickler.dump(item)
    pickler.clear_memo()
    record = written.pop() if len(written) == 1 else _join(written, 0)
    if len(record) <= _PEN_BYTES or type(item) is bytes:  # which is one object, however long it is
        _pens.append(pen)
    return record


def dumps_many(items: Iterable[Any], failed: Callable[[Exception, Any], None]) -> list[NewRecord]:
    """``dumps`` of each; ``failed`` is told of those that can't be pickled, and may raise."""
    if queues._ForkingPickler is not _pickler or _methods["dumps"] is not _given:  # type: ignore[attr-defined]
        dumped: list[NewRecord] = []
        for item in items:
            try:
                dumped.append(dumps(item))
            except Exception as error:
                failed(error, item)
        return dumped
    try:
        pen = _pens.pop()
    except IndexError:
        pen = _new_pen()
    pickler, written = pen
    dump, clear_memo = pickler.dump, pickler.clear_memo
    count = 0
    for item in items:
        try:
            dump(item)
        except Exception as error:
            failed(error, item)
            del written[count:]
            pen = _new_pickler(written), written
            dump, clear_memo = pen[0].dump, pen[0].clear_memo
            continue
        clear_memo()
        count += 1
        if len(written) != count:
            written.append(_join(written, count - 1))
        if len(written[-1]) > _PEN_BYTES:
            pen = _new_pickler(written), written
            dump, clear_memo = pen[0].dump, pen[0].clear_memo
    records = written[:]
    written.clear()
    _pens.append(pen)
    return records


def _join(written: list[Any], start: int) -> NewRecord:
    """The record whose pieces stand in a list from there on; they are taken out of it."""
    pieces = written[start:]
    del written[start:]
    record: NewRecord = late.room("queues.buffers").record(pieces)
    return record


def _new_pen() -> _Pen:
    written: list[Any] = []
    return _new_pickler(written), written


def _new_pickler(written: list[Any]) -> pickle.Pickler:
    """A pickler that appends what it writes to this list."""
    # Protocol 5: arrays and other large buffers are not copied on the way.
    pickler = pickle.Pickler(_Sink(written.append), 5)
    pickler.dispatch_table = reducers  # type: ignore[assignment]
    return pickler


_FAULTS: Final = (Exception, SystemExit)
"""What the unpickling of an item may raise."""
OF_MEMORY: Final = frozenset((bytes, memoryview))
"""The types of records that need no ``load``."""


def load(record: Taken) -> Any:
    """The item of a record."""
    theirs = queues._ForkingPickler.loads  # type: ignore[attr-defined]
    if theirs is not loads:
        return theirs(bytes(record))
    if isinstance(record, (bytes, memoryview)):
        return loads(record)
    buffers = late.room("queues.buffers")
    memory = record.memory
    if memory is not None and (len(memory) < COPIED or memory[-1] != buffers.END[0]):
        return loads(memory)
    if record.last() == buffers.END:
        view = record.map()
        if view is not None and (found := buffers.find(view)):
            return buffers.load(view, found)
    return pickle.load(record.rewound())


def is_fault(error: BaseException) -> bool:
    """Unpickling an item has raised this, not a signal handler that ran just then: its code would be in the traceback.

    To unpickle the item once more would tell, too, but have its effects twice.  A handler in C leaves no trace: then
    the item is gone, as from the standard library's queues."""
    if not isinstance(error, _FAULTS):
        return False
    codes = set(map(_code_of, map(signal.getsignal, signal.valid_signals())))
    trace = error.__traceback__
    while trace is not None:
        ours = trace.tb_frame.f_globals.get("__name__") == "tqshim.storage.large_records"
        if trace.tb_frame.f_code in codes or (ours and isinstance(error, OSError)):  # or its file could not be read
            return False
        trace = trace.tb_next
    return True


def _code_of(handler: Any) -> Optional[CodeType]:
    """What runs when this is called; ``None``: nothing in Python."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    if callable(handler) and not hasattr(handler, "__code__"):
        handler = type(handler).__call__
    code: Optional[CodeType] = getattr(handler, "__code__", None)
    return code


def explain_failure(error: Exception, path: str, item: object) -> None:
    """Pickling an item for the queue there has raised this: say so.  Raises ``OSError`` with cause and remedy where it
    found no descriptor any more."""
    _explain_descriptors(error)
    _add_note(error, path, f"a {type(item).__qualname__} was not put, it goes on: {PUTTABLE}")


def explain_loss(error: BaseException, path: str) -> None:
    """Unpickling an item of the queue there has raised this: say so."""
    _add_note(error, path, f"an item is gone, all others arrive: {SHARED if _is_orphan(error) else GETTABLE}")


def _add_note(error: BaseException, path: str, note: str) -> None:
    """Let the traceback end with which queue it was and what to do; from Python 3.11 on."""
    if sys.version_info >= (3, 11):
        error.add_note(f"tqshim: queue at {path}: {note}")


# -- descriptors


def _waiting() -> dict[int, Any]:
    """What waits to be fetched from this process."""
    sharer: Any = sys.modules.get("multiprocessing.resource_sharer")
    found: dict[int, Any] = sharer._resource_sharer._cache if sharer is not None else {}
    return found


def has_room() -> bool:
    """More descriptors can wait to be fetched."""
    waiting = len(_waiting())
    if waiting < LEAST:
        return True
    import resource  # here: most programs do without

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return limit < 0 or waiting < limit // SHARE


def wait_for_room(block: bool, timeout: Optional[float]) -> Optional[float]:
    """Wait until more can wait; returns what is left of ``timeout``.

    Raises ``Full`` where it runs out, ``OSError`` where nobody fetches anything."""
    now = monotonic()
    deadline = None if timeout is None else now + timeout
    impatient = now + PATIENCE
    seen = set(_waiting())
    while not has_room():
        now = monotonic()
        if not block or (deadline is not None and now >= deadline):
            raise Full
        if not seen <= set(_waiting()):
            impatient, seen = now + PATIENCE, set(_waiting())
        elif now > impatient:
            raise OSError(
                errno.EMFILE,
                f"{len(seen)} descriptors of items that were put wait in this process, and none was fetched for "
                f"{PATIENCE:.0f} seconds; {_REMEDY}",
            )
        time.sleep(LOOK_EVERY)
    return None if deadline is None else max(0.0, deadline - monotonic())


def _is_orphan(error: BaseException) -> bool:
    """Unpickling has raised this, for the process that has put the item is gone, and what it had for it.

    It is dying just now, perhaps: whoever looks for that when this raises, as torch's DataLoader does, is to find it
    dead, and hears of it first if it is a child and signals are handled."""
    trace = error.__traceback__ if isinstance(error, (OSError, EOFError)) else None
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__") == "multiprocessing.resource_sharer":
            time.sleep(GRACE)
            return True
        trace = trace.tb_next
    return False


async def pause() -> None:
    """Let others of this event loop run for a moment."""
    import asyncio  # here: most programs do without

    await asyncio.sleep(LOOK_EVERY)


def _explain_descriptors(error: Exception) -> None:
    """Pickling has raised this.  Raises ``OSError`` with cause and remedy where it found no descriptor any more."""
    if getattr(error, "errno", 0) == errno.EMFILE or os.strerror(errno.EMFILE) in str(error):
        raise OSError(
            errno.EMFILE,
            f"pickling an item makes descriptors for whoever gets it, and this process has no more; {_REMEDY}",
        ) from error
