"""Processes that take events out of one queue, call a function, and put what came of it into another.

Lives here: starting, replacing and ending these workers; which event each has in hand.  Not here: brokers, offsets.

Invariant: a worker has an event's number in its cell from just after it took the event until it takes the next one, so
that the cell of a killed worker says what killed it.  When the process that started it is gone, a worker ends in the
middle of its call, unless the function lets no other thread run: then the worker ends as soon as one can.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any, Final, NamedTuple, Optional

from tqshim.kafka.messages import Event, Message, Result, messages
from tqshim.queues.queue import Full, TurboQueue

__all__ = ["Finding", "Task", "Worker", "Workers", "load"]

Worker = Callable[[Event], Result]

Task = tuple[int, Event]
"""An event, behind the number that it was given when it was read."""

ENDING: Final = 5.0
"""Seconds that the workers have to leave when they are told to; those that are still there are killed."""


class Finding(NamedTuple):
    """What came of an event."""

    number: int
    messages: tuple[Message, ...]
    error: Optional[str]
    """The traceback, if the function raised."""


def load(name: str) -> Worker:
    """Return the function that ``module:function`` names.

    Raises ``ValueError`` for a name of another form or of no function, and what importing the module raises."""
    module, _, function = name.partition(":")
    if not module or not function:
        raise ValueError(f"{name!r} does not name a worker; write module:function")
    found: Any = importlib.import_module(module)
    for part in function.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise ValueError(f"the module {module} has no function {function}; write module:function")
    return found  # type: ignore[no-any-return]


class Workers:
    """The worker processes, always so many: ``replace_dead`` replaces those that have died."""

    def __init__(self, worker: Worker, processes: int, tasks: TurboQueue, findings: TurboQueue) -> None:
        # Spawned, because the brokers' clients have threads, and a fork would copy locks that these threads hold.
        self._context = multiprocessing.get_context("spawn")
        self._cells: Any = self._context.RawArray("Q", processes)
        self._arguments = (tasks, findings, self._cells, worker)
        self._processes: list[BaseProcess] = []
        try:
            for number in range(processes):
                self._processes.append(self._start(number))
        except BaseException:
            self.kill()
            raise

    def _start(self, number: int) -> BaseProcess:
        process = self._context.Process(target=_work, args=(number, *self._arguments), name=f"worker {number}")
        process.start()
        return process

    def pids(self) -> list[int]:
        """Return the process numbers of the workers."""
        return [process.pid for process in self._processes if process.pid is not None]

    def in_hand(self) -> set[int]:
        """Return the numbers of the events that the workers took last; an event that is just being taken may be
        missing."""
        return set(self._cells)

    def replace_dead(self) -> list[tuple[int, Optional[int]]]:
        """Put a new process in place of each that has died.

        Returns for each dead worker the number of the event that it took last, 0 if it never took one, and its exit
        code."""
        dead = [number for number, process in enumerate(self._processes) if not process.is_alive()]
        found = []
        for number in dead:
            found.append((int(self._cells[number]), self._processes[number].exitcode))
            self._processes[number].close()
            self._cells[number] = 0
            self._processes[number] = self._start(number)
        return found

    def end(self) -> None:
        """Tell the workers to leave, give them time for what they have in hand, and kill those that are still there."""
        deadline = time.monotonic() + ENDING
        with contextlib.suppress(Full):
            self._arguments[0].put_many([None] * len(self._processes), timeout=ENDING)
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
        self.kill()

    def kill(self) -> None:
        """Kill all workers, and reap them."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
            process.close()
        self._processes = []


def _leave_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(number: int, tasks: TurboQueue, findings: TurboQueue, cells: Any, worker: Worker) -> None:
    # Signals that ask to end reach all processes of a terminal or a service: the parent takes them and ends the
    # workers.
    for asking in (signal.SIGINT, signal.SIGTERM):
        signal.signal(asking, signal.SIG_IGN)
    threading.Thread(target=_leave_with_the_parent, daemon=True).start()
    task: Task
    for task in iter(tasks.get, None):
        cells[number] = task[0]
        findings.put(_finding(worker, *task))


def _finding(worker: Worker, number: int, event: Event) -> Finding:
    try:
        return Finding(number, messages(event, worker(event)), None)
    except Exception:
        return Finding(number, (), traceback.format_exc())
