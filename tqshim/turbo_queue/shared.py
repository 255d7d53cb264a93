"""What the original's ``Startup``, ``Enqueue`` and ``Dequeue`` have in common.

Lives here: their attributes, logging, looks at the queue's folder.  Not here: what each does (``turbo_queue``).

Invariant: a value that 0.8.0 refuses is refused when it is set, with the same exception.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from typing import Final, Optional

from tqshim.turbo_queue import sqlite_files

__all__ = ["Shared"]

VERSION: Final = "0.8.0"
"""The version of turbo-queue whose interface this is."""
LOGGER: Final = "tqshim.turbo_queue"
LOG_FORMAT: Final = "%(asctime)s : %(levelname)s : %(name)s : %(message)s"


class Shared:
    """Attributes that all three classes share.  Setters raise ``ValueError`` where those of 0.8.0 do."""

    def __init__(self) -> None:
        self.version = VERSION
        self.logger = logging.getLogger(LOGGER)
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
        """Called when an attribute has a new value."""

    def _set_text(self, name: str, value: object) -> None:
        if type(value) is not str:
            raise ValueError(f"{name} must be a str, not {value!r}")
        setattr(self, f"_{name}", value)
        # Absolute: the queue stays where it is when the program changes its current folder.
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
        """Seconds after its first event at which a batch rolls by itself."""
        return self._max_batch_age

    @max_batch_age.setter
    def max_batch_age(self, value: int) -> None:
        self._set_number("max_batch_age", value)

    @property
    def enqueue_active(self) -> bool:
        """Whether a producer should add events.  This is advice: ``add`` works anyway, unless ``drop_overflow`` is set.
        ``False`` after each full batch."""
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
        """Whether ``on_start_cleanup`` deletes damaged files.  By default it sets them aside."""
        return self._remove_invalid

    @remove_invalid.setter
    def remove_invalid(self, value: bool) -> None:
        self._set_flag("remove_invalid", value)

    def setup_logging(
        self, logger_name: str = LOGGER, level: int = logging.WARNING, log_file: str = "turbo_queue.log"
    ) -> None:
        """Log to a file, too.  Without this call all goes to the logger ``tqshim.turbo_queue``, and where the program
        sends that.

        Two calls with the same names have the effect of one."""
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
