"""Items become records, and records items.

Lives here: pickling and unpickling, what failed in them and what to say then, which items take descriptors with them.
Not here: large buffers in a record (``buffers``), what becomes of descriptors (``sharing``).

Invariant: an item that could not be pickled leaves nothing behind.
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
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing import queues, reduction
from types import CodeType

from tqshim.runtime import late

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, Optional, TypeAlias, Union

    from tqshim.engine.reader import Taken
    from tqshim.protocol.pieces import NewRecord

__all__ = [
    "COPIED",
    "OF_MEMORY",
    "REMEDY",
    "Made",
    "dumps",
    "dumps_many",
    "explain_failure",
    "explain_loss",
    "is_fault",
    "load",
    "loads",
    "pending",
    "put",
]

loads: Final = pickle.loads

COPIED: Final = 2 << 20
"""Bytes up to which the arrays of a record are copied from memory that is mapped already: to map them anew costs more.
"""
GRACE: Final = 0.1
"""Seconds that a process takes from closing what it has to being seen as dead."""
_FROM_SHARER: Final = "_tqshim_from_sharer"
"""Attribute of an exception whose frames are gone: one of the frames was of ``multiprocessing.resource_sharer``."""
REMEDY: Final = (
    "get what was put, give the queue a maxsize, raise the limit (ulimit -n), or share tensors in another way "
    "(torch.multiprocessing.set_sharing_strategy('file_system'))"
)

PUTTABLE: Final = (
    "put what pickles (no lambda, lock, generator, open file, or class of a function), or override "
    "_on_queue_feeder_error"
)
GETTABLE: Final = "what it is made of must be importable here by the name that it has where it was put"
REBUILT: Final = "making it anew from its parts has raised this (see __reduce__)"

ORPHANED: Final = "who has put it must live until its descriptors were fetched"


Made: TypeAlias = "tuple[int, weakref.ref[Any]]"
"""A descriptor that waits to be fetched: its key, and a reference to the object that was pickled; nobody has the object
any more if it was made for that."""
pending: Final[set[int]] = set()
"""The keys of descriptors whose items are pickled and not put yet: nobody can fetch these descriptors."""


# -- pickling


class Reducers:
    """One pickler's dispatch table: what programs have registered with ``multiprocessing``, and with ``copyreg``."""

    __slots__ = ("made",)

    def __init__(self) -> None:
        self.made: list[Made] = []
        """The descriptors that the item takes with it."""

    def __getitem__(self, kind: type) -> Any:
        reducer = _extra.get(kind)
        if reducer is not None:
            return reducer
        if kind.__name__ == "DupFd" and kind.__module__ == "multiprocessing.resource_sharer":
            return self._noted
        return copyreg.dispatch_table[kind]

    def _noted(self, descriptor: Any) -> Any:
        """Pickle a descriptor as usual, and note that it was made for this item."""
        self.made.append((descriptor._id[1], weakref.ref(descriptor)))
        return descriptor.__reduce_ex__(5)


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
"""The standard library's pickler, to which ours is equivalent.  Programs may replace it, or its ``dumps`` or ``loads``,
by dill's or cloudpickle's, or give it a ``reducer_override``, at any time: then theirs is used.  ``None``: a program
did so before this was imported."""
_methods: Final = vars(_pickler) if _pickler else {}
_extra: Final[dict[type, Any]] = _pickler._extra_reducers if _pickler else {}
"""What ``multiprocessing`` knows to pickle beyond ``pickle``: connections, sockets, and what programs registered."""
_Pen: TypeAlias = "tuple[Any, list[Any], list[Made]]"
"""A pickler, what it has written, and the descriptors that an item takes with it."""
_pens: Final[list[_Pen]] = []
_PEN_BYTES: Final = 2048
"""A pickler that has written more bytes may have met many objects: its table of them never shrinks, and is cleared for
every later item.  Such a pickler is not used again; a new one costs 1 us."""


def dumps(item: object) -> NewRecord:
    """Pickle as ``ForkingPickler.dumps``, seven times faster for small items: a pickler is made once and used again."""
    if (
        queues._ForkingPickler is not _pickler  # type: ignore[attr-defined]
        or _methods["dumps"] is not _given
        or "reducer_override" in _methods
    ):
        return bytes(queues._ForkingPickler.dumps(item))  # type: ignore[attr-defined]
    try:
        pen = _pens.pop()
    except IndexError:
        pen = _new_pen([])
    # An exception leaves the pickler half-way: it is not used again then.
    pickler, written, made = pen
    try:
        pickler.dump(item)
    except BaseException:
        if made:
            _drop(pickler, made)
        raise
    pickler.clear_memo()
    record = written.pop() if len(written) == 1 else _join(written, 0)
    if made:
        record = _shared(record, made)
    if len(record) <= _PEN_BYTES or type(item) is bytes:  # bytes are one object, however long
        _pens.append(pen)
    return record


def dumps_many(
    items: Iterator[Any], failed: Callable[[Exception, Any], None], in_pieces: bool
) -> tuple[list[NewRecord], bool]:
    """Pickle each item as ``dumps`` does; call ``failed``, which may raise, for each that can't be pickled.  ``True``:
    there may be more items, as those so far take as many descriptors as may wait, and ``in_pieces`` was asked for."""
    try:
        pen = _pens.pop()
    except IndexError:
        pen = _new_pen([])
    written = pen[1]
    try:
        pen, more = _dump_all(pen, items, failed, in_pieces)
    except BaseException:
        if any(hasattr(record, "descriptors") for record in written):
            late.room("queues.sharing").withdraw(written)
        raise
    records = written[:]
    written.clear()
    _pens.append(pen)
    return records, more


def _dump_all(
    pen: _Pen, items: Iterator[Any], failed: Callable[[Exception, Any], None], in_pieces: bool
) -> tuple[_Pen, bool]:
    """Pickle items as ``dumps_many`` does, with this pen; return a pen that can be used again."""
    pickler, written, made = pen
    if (
        queues._ForkingPickler is not _pickler  # type: ignore[attr-defined]
        or _methods["dumps"] is not _given
        or "reducer_override" in _methods
    ):
        for item in items:
            try:
                written.append(dumps(item))
            except Exception as error:
                failed(error, item)
        return pen, False
    dump, clear_memo = pickler.dump, pickler.clear_memo
    count = taken = 0
    for item in items:
        try:
            dump(item)
        except Exception as error:
            if made:
                _drop(pickler, made)
            failed(error, item)
            del written[count:]
            pickler, _, made = _new_pen(written)
            dump, clear_memo = pickler.dump, pickler.clear_memo
            continue
        clear_memo()
        count += 1
        if len(written) != count:
            written.append(_join(written, count - 1))
        if made:
            taken += len(made)
            written[-1] = _shared(written[-1], made)
            if in_pieces and taken >= late.room("queues.sharing").most():
                return (pickler, written, made), True
        if len(written[-1]) > _PEN_BYTES:
            pickler, _, made = _new_pen(written)
            dump, clear_memo = pickler.dump, pickler.clear_memo
    return (pickler, written, made), False


def put(
    records: list[NewRecord], do: Callable[[bool, Optional[float]], int], block: bool, timeout: Optional[float]
) -> int:
    """Put records by ``do``, and return how many were put.  If some of them take descriptors with them, first wait
    until more descriptors can wait."""
    if pending and any(hasattr(record, "descriptors") for record in records):
        count: int = late.room("queues.sharing").put(records, do, block, timeout)
        return count
    return do(block, timeout) if records else 0


def _join(written: list[Any], start: int) -> NewRecord:
    """Return the record whose pieces stand in a list from ``start`` on, and take the pieces out of the list."""
    pieces = written[start:]
    del written[start:]
    record: NewRecord = late.room("queues.buffers").record(pieces)
    return record


def _shared(record: NewRecord, made: list[Made]) -> NewRecord:
    """Return the record with the descriptors that were made for it."""
    shared: NewRecord = late.room("queues.sharing").Shared(record, made)
    made.clear()
    return shared


def _drop(pickler: Any, made: list[Made]) -> None:
    """Withdraw descriptors that were made for an item whose pickling has failed."""
    pickler.clear_memo()  # which still refers to them
    late.room("queues.sharing").withdraw([_shared(b"", made)])


def _new_pen(written: list[Any]) -> _Pen:
    """Return a pickler that appends what it writes to this list."""
    reducers = Reducers()
    # Protocol 5: arrays and other large buffers are not copied on the way.
    pickler = pickle.Pickler(_Sink(written.append), 5)
    pickler.dispatch_table = reducers  # type: ignore[assignment]
    return pickler, written, reducers.made


OF_MEMORY: Final = frozenset((bytes, memoryview))
"""The types of records that need no ``load``."""


class Known:
    """A record that was unpickled, and has come back: the outcome of unpickling, an item or an exception, is known."""

    __slots__ = ("error", "items", "record")

    def __init__(self, record: Taken, items: list[Any], error: Optional[BaseException]) -> None:
        self.record = record
        self.items = items
        """The item; none where unpickling has failed, or where the item was given to a block, which may change it."""
        self.error = error

    def __bytes__(self) -> bytes:
        return bytes(self.record)


def load(record: Union[Taken, Known], once: bool = False) -> Any:
    """Return the item of a record.  ``once``: the caller may change it; if the record comes back, it is a new one."""
    if isinstance(record, Known):
        if record.error is not None:
            raise record.error
        if record.items:
            return record.items.pop() if once else record.items[0]
        record = record.record
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


def known(records: list[Any], items: list[Any], error: Optional[BaseException] = None) -> list[Any]:
    """Return the records as they come back.  The first are unpickled to ``items``; the next has failed with ``error``,
    if there is an error.  None of these is unpickled again."""
    outcomes: list[tuple[list[Any], Optional[BaseException]]] = [([item], None) for item in items]
    if error is not None:
        outcomes.append(([], _without_frames(error)))
    told = [
        Known(record.record if isinstance(record, Known) else record, *outcome)
        for record, outcome in zip(records, outcomes)
    ]
    return [*told, *records[len(told) :]]


def _without_frames(error: BaseException) -> BaseException:
    """Return the exception without its frames and those of its causes, to be kept and raised later: frames would keep
    the queue in use.  From Python 3.11 on a note says where they were."""
    import traceback  # here: this is seldom

    frames = "".join(traceback.format_tb(error.__traceback__))
    _add_note(error, f"raised behind items of a batch, which came first:\n{frames}")
    if _is_from_sharer(error):
        setattr(error, _FROM_SHARER, True)
    left: list[Optional[BaseException]] = [error]
    while left:
        found = left.pop()
        if found is not None and found.__traceback__ is not None:
            found.__traceback__ = None
            left += [found.__cause__, found.__context__]
    return error


def is_fault(error: BaseException) -> bool:
    """Whether unpickling has raised this, not a signal handler just then, whose code would be in the traceback.

    To unpickle the item once more would tell, too, but would have its effects twice.  A handler in C leaves no trace:
    then the item is gone, as from the standard library's queues, except for Ctrl-C, whose own handler is in C."""
    if isinstance(error, KeyboardInterrupt):
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
    """Return the code that runs when a handler is called; ``None``: no Python code."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    if callable(handler) and not hasattr(handler, "__code__"):
        handler = type(handler).__call__
    code: Optional[CodeType] = getattr(handler, "__code__", None)
    return code


def explain_failure(error: Exception, path: str, item: object) -> None:
    """Add a note to what pickling an item for the queue at ``path`` has raised.  Raises ``OSError`` with cause and
    remedy where no descriptor was left."""
    _explain_descriptors(error)
    _add_note(error, f"queue at {path}: a {type(item).__qualname__} was not put, the queue goes on: {PUTTABLE}")


def explain_loss(error: BaseException, path: str) -> None:
    """Add a note to what unpickling an item of the queue at ``path`` has raised."""
    missing = isinstance(error, (ImportError, AttributeError))
    why = ORPHANED if _is_orphan(error) else GETTABLE if missing else REBUILT
    _add_note(error, f"queue at {path}: an item is gone, all others arrive: {why}")


def _add_note(error: BaseException, note: str) -> None:
    """Let the traceback end with a note; from Python 3.11 on."""
    if sys.version_info >= (3, 11):
        with suppress(Exception):  # an exception that is a frozen dataclass takes none
            note = f"tqshim: {note}"
            if note not in getattr(error, "__notes__", ()):  # a program may raise one exception again and again
                error.add_note(note)


# -- descriptors


def _is_orphan(error: BaseException) -> bool:
    """Whether unpickling has raised this because the process that put the item is gone, and with it its descriptors.

    Perhaps that process is dying just now.  So this waits: a caller that looks for its death when this raises, as
    torch's DataLoader does, is to find it dead, and hears of it first if it is a child and signals are handled."""
    orphan = _is_from_sharer(error)
    if orphan:
        time.sleep(GRACE)
    return orphan


def _is_from_sharer(error: BaseException) -> bool:
    """Whether an exception was raised where descriptors are fetched, as its frames or ``_FROM_SHARER`` say."""
    if not isinstance(error, (OSError, EOFError)):
        return False
    if _FROM_SHARER in vars(error):
        return True
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__") == "multiprocessing.resource_sharer":
            return True
        trace = trace.tb_next
    return False


def _explain_descriptors(error: Exception) -> None:
    """Raise ``OSError`` with cause and remedy if pickling has raised this because no descriptor was left."""
    try:
        found_none = getattr(error, "errno", 0) == errno.EMFILE or os.strerror(errno.EMFILE) in str(error)
    except Exception:  # the item's own exception, which can't be shown
        return
    if found_none:
        raise OSError(
            errno.EMFILE,
            f"pickling an item makes descriptors for the process that gets it, and this process has no more; {REMEDY}",
        ) from error
