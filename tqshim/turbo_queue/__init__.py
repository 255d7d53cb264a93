"""The original's interface: ``Startup``, ``Enqueue`` and ``Dequeue`` as in turbo-queue 0.8.0, over the same files.

    from tqshim import turbo_queue

Lives here: what each of the three does, JSON.  Not here: attributes that they share (``shared``), when a batch rolls
(``batching``), how a batch is worked off (``emptying``), its file (``sqlite_files``).

Invariant: a program written for 0.8.0 runs unchanged, beside programs that still use 0.8.0, and what 0.8.0's
documentation promises holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from json import encoder
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Final, Optional, TypeVar

from tqshim.turbo_queue import sqlite_files
from tqshim.turbo_queue.batching import Filling
from tqshim.turbo_queue.emptying import Emptying
from tqshim.turbo_queue.shared import Shared
from tqshim.turbo_queue.sqlite_files import Row

if TYPE_CHECKING:
    import asyncio

__all__ = ["Dequeue", "Enqueue", "Startup"]

_T = TypeVar("_T")


def _make_encoder() -> Callable[[object, int], Iterable[str]]:
    """Return a function that gives the text of ``json.dumps`` in pieces, twice as fast for small events: the encoder in
    C is made once and used again.

    Where this function raises, ``add`` calls ``json.dumps``, which raises what it always does."""
    make: Any = getattr(encoder, "c_make_encoder", None)
    try:
        # No markers: an event that contains itself ends in a RecursionError.
        encode = make(None, None, encoder.encode_basestring_ascii, None, ": ", ", ", False, False, True)
        if "".join(encode([{"a": 1.5}], 0)) == '[{"a": 1.5}]':
            return encode  # type: ignore[no-any-return]
    except TypeError:  # this Python has no encoder in C, or one with other arguments
        pass
    return lambda event, _: (json.dumps(event),)


_encode: Final = _make_encoder()
_scan: Final[Callable[[Any, int], tuple[Any, int]]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


def _load(row: Row) -> Any:
    """Return the event of a row that is not plain JSON text: a number, or bytes, or text with blanks around it.

    Raises ``ValueError`` where the row is no JSON."""
    if isinstance(row, (int, float)):
        return row  # 0.8.0 stored the number's text, and SQLite turned that into a number
    if row is None:
        raise ValueError("a row without an event")
    return json.loads(row)


def _column(text: str) -> Row:
    """Return what is stored for an event of that JSON text.  Raises ``ValueError`` for ``None``."""
    if text == "null":
        raise ValueError("None can't be an event: get yields it when the queue is empty")
    # A column of type json turns text that looks like a number into a number, which 0.8.0 can't read: bytes stay bytes.
    return text.encode() if "," < text < ":" else text


class Startup(Shared):
    """Recovers what dead processes have left in a queue.

    >>> startup = Startup()
    >>> startup.root_path, startup.queue_name = "queues", "events"
    >>> startup.on_start_cleanup()"""

    def on_start_cleanup(self) -> None:
        """Make ready the batches of processes that died while they filled or worked them off.

        Living processes keep their batches, also processes on 0.8.0, so any process may call this at any time.  Batches
        that a dead consumer had taken come whole: some of their events for the second time.  Damaged files are set
        aside, or deleted with ``remove_invalid``.  Raises ``OSError`` where the folder can't be made, read or
        changed."""
        sqlite_files.make_folder(self._folder)
        recovered = sqlite_files.recover(self._folder, self._remove_invalid)
        self.logger.info("%s: %d batches of dead processes made ready again", self._queue_name, recovered)

    def migrate_queue(self) -> None:
        """Does nothing, as in 0.8.0: it has no arguments that would say where to."""


class Enqueue(Shared):
    """Puts events into a queue, in batches.

    A batch rolls (it becomes ready for consumers, and the next event begins another) when it has
    ``max_events_per_file`` events, ``max_batch_age`` seconds after its first event, with ``flush`` and ``close``, and
    when the program ends.  All threads of a process may use one ``Enqueue``; a forked child, or a process that it was
    sent to, begins a batch of its own.  A process that is killed loses what it has added in the last tenth of a second;
    what it had added before lies in its ``load_`` file, for ``Startup.on_start_cleanup``.

    >>> with Enqueue() as enqueue:
    ...     enqueue.root_path, enqueue.queue_name = "queues", "events"
    ...     enqueue.add({"page": 1})"""

    def __init__(self) -> None:
        super().__init__()
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._begin()

    def _begin(self) -> None:
        self._filling = Filling()
        self._rows = self._filling.rows
        self._changed()

    def _changed(self) -> None:
        filling = self._filling
        filling.folder = self._folder
        filling.most = self._max_events_per_file
        filling.oldest = self._max_batch_age

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_filling", "_rows", "_loop")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._loop = None
        self._begin()

    @property
    def row_count(self) -> int:
        """Events in the batch that is being filled."""
        return self._filling.count

    @property
    def db_state(self) -> str:
        """The state in which files are filled."""
        return "load"

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """An event loop that belongs to this object, made when a program first asks for it; nothing here uses it."""
        if self._loop is None:
            import asyncio

            self._loop = asyncio.new_event_loop()
        return self._loop

    def start(self) -> None:
        """Make the queue's folder and begin a batch; without this call the first ``add`` does so.

        Raises ``OSError`` or ``sqlite3.Error`` where that can't be done."""
        self._filling.begin()

    def add(self, dict_to_add: Any) -> None:
        """Put an event into the queue: anything that JSON can say, but ``None``.

        Raises ``TypeError`` or ``ValueError`` for what JSON can't say, and for ``None``, which would read as *empty*;
        ``OSError`` or ``sqlite3.Error`` where the disk is full: then this event is not in the queue.  With
        ``drop_overflow``, ``add`` drops the event while ``enqueue_active`` is ``False``."""
        if not self._enqueue_active and self._drop_overflow:
            return
        try:
            row: Row = "".join(_encode(dict_to_add, 0))
        except Exception:
            row = json.dumps(dict_to_add)
        if row < "o":  # type: ignore[operator]  # no object: perhaps a number, or null
            row = _column(row)  # type: ignore[arg-type]
        rows = self._rows
        rows.append(row)
        filling = self._filling
        if len(rows) >= filling.limit and filling.added(row):
            # A program that wants to go on calls ``update_enqueue_active_state`` first.
            self._enqueue_active = False
            self._ready_count.forget()

    def insert_load_db(self, log_data: Any) -> None:
        """``add``, but the event does not count for ``max_events_per_file``, nor can it be dropped."""
        self._filling.add_uncounted(_column(json.dumps(log_data)))

    def flush(self) -> None:
        """Make ready what was added so far, as a batch that is not full.

        Raises ``OSError`` or ``sqlite3.Error`` where the disk is full: nothing is lost, and the next call tries
        again."""
        self._filling.roll()

    def close(self) -> None:
        """``flush``, and let go of the folder; a later ``add`` begins anew.  Raises what ``flush`` raises."""
        self._filling.close()
        if self._loop is not None:
            self._loop.close()
            self._loop = None

    def __enter__(self: _T) -> _T:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def check_time(self) -> None:
        """Roll the batch if it is ``max_batch_age`` seconds old; without this call it rolls within a tenth of a second
        more."""
        self._filling.roll_if_old()

    def activate_check_batch_age(self) -> None:
        """Does nothing: batches roll by their age without it.  Returns at once; that of 0.8.0 never returns."""

    async def check_batch_age(self) -> None:
        """Wait for ``max_batch_age`` seconds, then ``check_time``."""
        import asyncio

        await asyncio.sleep(self._max_batch_age)
        self.check_time()

    async def check_slow_batch(self) -> None:
        """``check_time``."""
        self.check_time()


class Dequeue(Shared):
    """Takes events out of a queue.

    ``proc_num``: a number that shows in the names of the files that this consumer has taken.  Raises ``ValueError``
    for what can't be in a name.

    All threads of a process may use one ``Dequeue``, each with a generator of its own: every event goes to one of them.
    A forked child, or a process that it was sent to, takes batches of its own.  A process that is killed leaves the
    batch that it had taken, for ``Startup.on_start_cleanup``: all of the batch comes again.  A process that ends by
    itself gives its batch back, all of it, unless it has asked for more after the batch's last event; ``close`` gives
    back only what was not handed out.

    >>> with Enqueue() as enqueue:
    ...     enqueue.root_path, enqueue.queue_name = "queues", "events"
    ...     enqueue.add({"page": 1})
    >>> with Dequeue() as dequeue:
    ...     dequeue.root_path, dequeue.queue_name = "queues", "events"
    ...     events = dequeue.get()
    ...     next(events), next(events)
    ({'page': 1}, None)"""

    def __init__(self, proc_num: Optional[int] = None) -> None:
        super().__init__()
        if "/" in str(proc_num):
            raise ValueError(f"proc_num={proc_num!r} would be a folder in the names of files: give a number")
        self.proc_num = proc_num
        self._auto_cleanup = True
        self._total_gets = 0
        self._emptying = Emptying()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_emptying", "_total_gets")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._total_gets = 0
        self._emptying = Emptying()

    @property
    def auto_cleanup(self) -> bool:
        """``False``: each batch ends with ``None``, and its file stays until ``clean_up`` or ``roll_back``."""
        return self._auto_cleanup

    @auto_cleanup.setter
    def auto_cleanup(self, value: bool) -> None:
        self._set_flag("auto_cleanup", value)

    def get(self) -> Iterator[Any]:
        """Yield events, the oldest batch's first, for ever; ``None`` means that there is none now.

        After the last event ``None`` comes at once; a consumer that goes on asking then waits for a batch, half a
        second at most, before the next ``None``.  A batch is done, and its file goes, when its consumer asks for more
        after the last event and gets an event of the next batch, or ``None`` and asks once more; until then
        ``roll_back`` makes the batch ready again, and so does a clean-up after a crash.  With ``auto_cleanup`` off each
        batch ends with ``None``.

        Events that nobody can read are logged and set aside.  Raises ``OSError`` or ``sqlite3.Error`` where the folder
        can't be read or changed; call ``get`` again then."""
        emptying = self._emptying
        while True:
            for row in emptying.rows:
                try:
                    event, end = _scan(row, 0)
                    if end != len(row):  # type: ignore[arg-type]
                        event = _load(row)
                except (StopIteration, TypeError, ValueError):
                    try:
                        event = _load(row)
                    except (TypeError, ValueError) as error:
                        self.logger.error("%s: an event is no JSON (%s): %.200r", emptying.file_path, error, row)
                        emptying.bad(row)
                        continue
                self._total_gets += 1
                yield event
            emptying.folder = self._folder
            emptying.number = self.proc_num
            emptying.keep = not self._auto_cleanup
            if not emptying.more():
                yield None

    def clean_up(self) -> None:
        """Say that the batch is done: its file goes.  Needed with ``auto_cleanup`` off; does nothing without a
        batch."""
        self._emptying.finish()

    def roll_back(self) -> None:
        """Say that the batch has failed: all of it is ready again, for any consumer.  Does nothing without a batch."""
        self._emptying.put_back()

    def close(self) -> None:
        """Say that all events that were handed out are done; the others of the batch are ready again, for any
        consumer."""
        self._emptying.put_back(rest=True)

    def __enter__(self: _T) -> _T:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if error is None:
            self.close()
        else:
            self.roll_back()

    def check_state(self) -> None:
        """Does nothing, as in 0.8.0."""

    def total_gets(self) -> int:
        """Events that were handed out here."""
        return self._total_gets

    def total_batch(self) -> int:
        """Batches that were taken here."""
        return self._emptying.batches
