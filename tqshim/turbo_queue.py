"""The original's interface: ``Startup``, ``Enqueue`` and ``Dequeue`` as in turbo-queue 0.8.0, over the same files.

    from tqshim import turbo_queue

Lives here: attributes and methods, JSON, logging.  Not here: when a batch rolls (``batching``), its file
(``sqlite_files``).

Invariant: a program written for 0.8.0 runs unchanged, beside programs that still use it, and what 0.8.0's
documentation promises is so.
"""

from __future__ import annotations

import json
import logging
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from json import encoder
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Final, Optional, TypeVar

from . import sqlite_files
from .batching import Filling
from .emptying import Emptying
from .sqlite_files import Row

if TYPE_CHECKING:
    import asyncio

__all__ = ["Dequeue", "Enqueue", "Startup"]

_T = TypeVar("_T")

VERSION: Final = "0.8.0"
"""The version of turbo-queue whose interface this is."""
LOG_FORMAT: Final = "%(asctime)s : %(levelname)s : %(name)s : %(message)s"


def _make_encoder() -> Callable[[object, int], Iterable[str]]:
    """The pieces of ``json.dumps``, twice as fast for small events: the encoder in C is made once and used again.

    Where it raises, ``json.dumps`` raises what it always does."""
    make: Any = getattr(encoder, "c_make_encoder", None)
    try:
        # No markers: an event that contains itself ends in a RecursionError.
        encode = make(None, None, encoder.encode_basestring_ascii, None, ": ", ", ", False, False, True)
        if "".join(encode([{"a": 1.5}], 0)) == '[{"a": 1.5}]':
            return encode  # type: ignore[no-any-return]
    except TypeError:  # there is none, or another version's
        pass
    return lambda event, _: (json.dumps(event),)


_encode: Final = _make_encoder()
_scan: Final[Callable[[Any, int], tuple[Any, int]]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


def _load(row: Row) -> Any:
    """The event of a row that is not plain JSON text: a number, or bytes, or text with blanks around it.

    Raises ``ValueError`` where it is no JSON."""
    if isinstance(row, (int, float)):
        return row  # 0.8.0 stored the number's text, and SQLite made it this
    if row is None:
        raise ValueError("a row without an event")
    return json.loads(row)


def _column(text: str) -> Row:
    """What is stored for an event of that JSON text.  Raises ``ValueError`` for ``None``."""
    if text == "null":
        raise ValueError("None can't be an event: get yields it when the queue is empty")
    # A column of type json makes a number of text that looks like one, and 0.8.0 can't read that: bytes stay.
    return text.encode() if "," < text < ":" else text


class _TurboQueue:
    """Attributes that all three share.  Setters raise ``ValueError`` where 0.8.0's do."""

    def __init__(self) -> None:
        self.version = VERSION
        self.logger = logging.getLogger(__name__)
        self._queue_name = "example_queue_name"
        self._root_path = "/dc_data"
        self._folder = os.path.join(self._root_path, self._queue_name)
        self._num_loaders = 1
        self._num_queues = 1
        self._max_ready_files = 1
        self._max_events_per_file = 80000
        self._max_batch_age = 10
        self._enqueue_active = False
        self._dequeue_active = True
        self._processing_hold = False
        self._drop_overflow = False
        self._remove_invalid = False
        self._ready_count = sqlite_files.ReadyCount()

    def _changed(self) -> None:
        """An attribute has a new value."""

    def _set_text(self, name: str, value: object) -> None:
        if type(value) is not str:
            raise ValueError(f"{name} must be a str, not {value!r}")
        setattr(self, f"_{name}", value)
        # Where it is now, wherever the program goes.
        self._folder = os.path.abspath(os.path.join(self._root_path, self._queue_name))
        self._changed()

    def _set_number(self, name: str, value: object) -> None:
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} must be an int of 1 or more, not {value!r}")
        setattr(self, f"_{name}", value)
        self._changed()

    def _set_flag(self, name: str, value: object) -> None:
        if type(value) is not bool:
            raise ValueError(f"{name} must be True or False, not {value!r}")
        setattr(self, f"_{name}", value)
        self._changed()

    @property
    def queue_name(self) -> str:
        """The queue's folder, below ``root_path``."""
        return self._queue_name

    @queue_name.setter
    def queue_name(self, value: str) -> None:
        self._set_text("queue_name", value)

    @property
    def root_path(self) -> str:
        """The folder in which queues lie; it is made when it is first needed."""
        return self._root_path

    @root_path.setter
    def root_path(self, value: str) -> None:
        self._set_text("root_path", value)

    @property
    def num_loaders(self) -> int:
        """Kept for programs that set it; changes nothing, as in 0.8.0."""
        return self._num_loaders

    @num_loaders.setter
    def num_loaders(self, value: int) -> None:
        self._set_number("num_loaders", value)

    @property
    def num_queues(self) -> int:
        """Kept for programs that set it; changes nothing, as in 0.8.0."""
        return self._num_queues

    @num_queues.setter
    def num_queues(self, value: int) -> None:
        self._set_number("num_queues", value)

    @property
    def max_ready_files(self) -> int:
        """Batches that may be ready before ``update_enqueue_active_state`` tells the producer to pause."""
        return self._max_ready_files

    @max_ready_files.setter
    def max_ready_files(self, value: int) -> None:
        self._set_number("max_ready_files", value)

    @property
    def max_events_per_file(self) -> int:
        """Events after which a batch rolls."""
        return self._max_events_per_file

    @max_events_per_file.setter
    def max_events_per_file(self, value: int) -> None:
        self._set_number("max_events_per_file", value)

    @property
    def max_batch_age(self) -> int:
        """Seconds after its first event, after which a batch rolls by itself."""
        return self._max_batch_age

    @max_batch_age.setter
    def max_batch_age(self, value: int) -> None:
        self._set_number("max_batch_age", value)

    @property
    def enqueue_active(self) -> bool:
        """Whether a producer should add: it is advice, ``add`` works anyway.  ``False`` after each full batch."""
        return self._enqueue_active

    @enqueue_active.setter
    def enqueue_active(self, value: bool) -> None:
        self._set_flag("enqueue_active", value)

    @property
    def dequeue_active(self) -> bool:
        """Kept for programs that set it; changes nothing, as in 0.8.0."""
        return self._dequeue_active

    @dequeue_active.setter
    def dequeue_active(self, value: bool) -> None:
        self._set_flag("dequeue_active", value)

    @property
    def processing_hold(self) -> bool:
        """While it is set, ``update_enqueue_active_state`` lets no paused producer go on."""
        return self._processing_hold

    @processing_hold.setter
    def processing_hold(self, value: bool) -> None:
        self._set_flag("processing_hold", value)

    @property
    def drop_overflow(self) -> bool:
        """For tests only: ``add`` drops events while ``enqueue_active`` is ``False``."""
        return self._drop_overflow

    @drop_overflow.setter
    def drop_overflow(self, value: bool) -> None:
        self._set_flag("drop_overflow", value)

    @property
    def remove_invalid(self) -> bool:
        """``on_start_cleanup`` deletes damaged files.  Here that is not the default: they are set aside."""
        return self._remove_invalid

    @remove_invalid.setter
    def remove_invalid(self, value: bool) -> None:
        self._set_flag("remove_invalid", value)

    def setup_logging(
        self, logger_name: str = __name__, level: int = logging.WARNING, log_file: str = "turbo_queue.log"
    ) -> None:
        """Log to a file, too.  Without it all goes to the logger ``tqshim``, and where the program sends that.

        Twice with the same names is as good as once."""
        self.logger = logging.getLogger(logger_name)
        self.logger.setLevel(level)
        path = os.path.abspath(log_file)
        for handler in self.logger.handlers:
            if isinstance(handler, logging.FileHandler) and handler.baseFilename == path:
                return
        added = logging.FileHandler(log_file)
        added.setFormatter(logging.Formatter(LOG_FORMAT))
        self.logger.addHandler(added)

    def get_current_epoch_int(self) -> int:
        """Whole seconds since 1970."""
        return int(time.time())

    def get_uuid(self) -> uuid.UUID:
        """A random UUID."""
        return uuid.uuid4()

    def get_ready_length(self) -> int:
        """Batches that are ready now.  Raises ``OSError`` where the queue's folder can't be read."""
        return sqlite_files.ready_count(self._folder)

    def update_enqueue_active_state(self) -> None:
        """Set ``enqueue_active`` by the number of batches that are ready.

        Raises ``OSError`` where the queue's folder can't be read."""
        room = self._ready_count(self._folder) < self._max_ready_files
        if not room:
            self._enqueue_active = False
        elif not self._enqueue_active and not self._processing_hold:
            self._enqueue_active = True
            self.logger.info("%s: room for more batches", self._queue_name)

    def check_path_and_create(self, db_path: str) -> None:
        """Make a folder, and those above it, unless it is there.  Raises ``OSError`` where it can't be made."""
        sqlite_files.make_folder(db_path)

    def get_next_ready_file(self) -> Optional[str]:
        """The path of the oldest batch that is ready, or ``None``.

        Raises ``OSError`` where the queue's folder can't be read."""
        names = sqlite_files.ready_names(self._folder)
        return os.path.join(self._folder, names[0]) if names else None


class Startup(_TurboQueue):
    """Recovers what dead processes left in a queue.

    >>> startup = Startup()
    >>> startup.root_path, startup.queue_name = "queues", "events"
    >>> startup.on_start_cleanup()"""

    def on_start_cleanup(self) -> None:
        """Make ready the batches of processes that died while they filled or worked them off.

        Living processes keep theirs, also those on 0.8.0, so it may be called at any time, by anybody.  Batches that a
        dead consumer had taken come whole: some of their events for the second time.  Damaged files are set aside.
        Raises ``OSError`` where the folder can't be made, read or changed."""
        sqlite_files.make_folder(self._folder)
        recovered = sqlite_files.recover(self._folder, self._remove_invalid)
        self.logger.info("%s: %d batches of dead processes made ready again", self._queue_name, recovered)

    def migrate_queue(self) -> None:
        """Does nothing, as in 0.8.0, where it has no arguments that would say where to."""


class Enqueue(_TurboQueue):
    """Puts events into a queue, in batches.

    A batch rolls when it has ``max_events_per_file`` events, ``max_batch_age`` seconds after its first one, with
    ``flush``, and when the program ends.  All threads of a process may use one; a forked child, or one that it was sent
    to, begins a batch of its own.  A process that is killed loses what it added in the last tenth of a second; what it
    added before lies in its ``load_`` file, for ``Startup.on_start_cleanup``.

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
        """An event loop of its own, made when first asked for; nothing here uses it."""
        if self._loop is None:
            import asyncio

            self._loop = asyncio.new_event_loop()
        return self._loop

    def start(self) -> None:
        """Make the queue's folder and begin a batch; ``add`` does so, too.

        Raises ``OSError`` or ``sqlite3.Error`` where that can't be done."""
        self._filling.begin()

    def add(self, dict_to_add: Any) -> None:
        """Put an event into the queue: anything that JSON knows, but ``None``.

        Raises ``TypeError`` or ``ValueError`` for what JSON can't say, and for ``None``, which would read as *empty*;
        ``OSError`` or ``sqlite3.Error`` where the disk is full: then this event is not in the queue."""
        if not self._enqueue_active and self._drop_overflow:
            return
        try:
            row: Row = "".join(_encode(dict_to_add, 0))
        except Exception:
            row = json.dumps(dict_to_add)
        if row < "o":  # type: ignore[operator]  # no object
            row = _column(row)  # type: ignore[arg-type]
        rows = self._rows
        rows.append(row)
        filling = self._filling
        if len(rows) >= filling.limit and filling.added(row):
            # Whoever wants to go on asks first.
            self._enqueue_active = False
            self._ready_count.forget()

    def insert_load_db(self, log_data: Any) -> None:
        """``add``, but the event does not count for ``max_events_per_file``, nor can it be dropped."""
        self._filling.add_uncounted(_column(json.dumps(log_data)))

    def flush(self) -> None:
        """Make ready what was added so far, as a batch that is not full.

        Raises ``OSError`` or ``sqlite3.Error`` where the disk is full: nothing is lost, and it may be tried again."""
        self._filling.roll()

    def close(self) -> None:
        """``flush``, and let go of the folder; ``add`` would begin anew.  Raises what ``flush`` raises."""
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
        """Roll the batch if it is ``max_batch_age`` seconds old; by itself it does so within another tenth."""
        self._filling.roll_if_old()

    def activate_check_batch_age(self) -> None:
        """Nothing to activate: batches roll by their age.  Returns at once, which in 0.8.0 it never does."""

    async def check_batch_age(self) -> None:
        """Wait for ``max_batch_age`` seconds, then ``check_time``."""
        import asyncio

        await asyncio.sleep(self._max_batch_age)
        self.check_time()

    async def check_slow_batch(self) -> None:
        """``check_time``."""
        self.check_time()


class Dequeue(_TurboQueue):
    """Takes events out of a queue.

    ``proc_num``: a number that shows in the names of the files that this consumer has taken.

    All threads of a process may use one, each with a generator of its own: every event goes to one of them.  A forked
    child, or one that it was sent to, takes batches of its own.  A process that is killed leaves the batch that it had
    taken, for ``Startup.on_start_cleanup``: all of it comes again.  One that ends by itself gives its batch back, all
    of it, unless it has come back for more since the last event; ``close`` gives back only what was not handed out.

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
        """``False``: each batch ends with ``None``, and stays until ``clean_up`` or ``roll_back``."""
        return self._auto_cleanup

    @auto_cleanup.setter
    def auto_cleanup(self, value: bool) -> None:
        self._set_flag("auto_cleanup", value)

    def get(self) -> Iterator[Any]:
        """Yield events, the oldest batch's first, for ever; ``None`` means that there is none now.

        After the last event ``None`` comes at once; who goes on asking then waits for a batch, half a second at
        most, before the next ``None``.  A batch's file goes when its consumer comes back after what followed the last
        event: until then a crash gives it back.  With ``auto_cleanup`` off each batch ends with ``None``.

        Events that nobody can read are logged and set aside.  Raises ``OSError`` or ``sqlite3.Error`` where the folder
        can't be read or changed; call it again then."""
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
        """The batch is done: its file goes.  Needed with ``auto_cleanup`` off; does nothing without a batch."""
        self._emptying.finish()

    def roll_back(self) -> None:
        """The batch failed: all of it is ready again, for this consumer or another.  Does nothing without a batch."""
        self._emptying.put_back()

    def close(self) -> None:
        """All that was handed out is done: what was not is ready again, for others."""
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
