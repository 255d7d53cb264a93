"""Workers that stay: processes that do one job after another, told through pipes of their own.

Starting a process takes a hundred times as long as most tests' work.  What a job keeps in ``KEPT`` stays there until
``forget``, so a test can drive another process step by step.  Nothing here uses the queues under test.
"""

from __future__ import annotations

import multiprocessing
import traceback
from multiprocessing.connection import Connection
from typing import Any, Callable, Optional

TIMEOUT = 120.0
"""Seconds after which a job counts as hanging."""
KEPT: dict[str, Any] = {}


def serve(connection: Connection, kept: dict[str, Any]) -> None:
    """A worker: jobs in, results or tracebacks out."""
    KEPT.update(kept)
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        if function is exit:
            return
        try:
            answer = True, function(*arguments)
        except BaseException:
            answer = False, traceback.format_exc()
        # Before answering: who hears that the job is done may rely on its queues being let go.
        del function, arguments
        connection.send(answer)


def exit() -> None:
    """The last job.  Other workers inherit the pipe's ends when they are forked: its end says nothing."""


def forget() -> None:
    KEPT.clear()


def keep(name: str, thing: Any) -> None:
    KEPT[name] = thing


class Failed(Exception):
    """A job failed in its worker."""


class Crew:
    """Workers, numbered from 0.  ``kept``: what they keep from the start, as what only a new process can be given."""

    def __init__(self, method: str, kept: Optional[dict[str, Any]] = None) -> None:
        self.context: Any = multiprocessing.get_context(method)
        self.kept = kept or {}
        self.workers: list[tuple[Any, Connection]] = []

    def grow(self, size: int) -> None:
        """Have at least so many workers, all of them idle and alive."""
        for number, (process, _) in enumerate(self.workers):
            if not process.is_alive():
                self.workers[number] = self._start()
        while len(self.workers) < size:
            self.workers.append(self._start())

    def _start(self) -> tuple[Any, Connection]:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=serve, args=(theirs, self.kept), daemon=True)
        process.start()
        theirs.close()
        return process, ours

    def start(self, worker: int, function: Callable[..., Any], *arguments: Any) -> None:
        """Let a worker begin a job."""
        self.workers[worker][1].send((function, arguments))

    def result(self, worker: int, timeout: float = TIMEOUT) -> Any:
        """What the job came to.  Raises ``Failed`` where it raised, or took so long; such a worker is killed."""
        process, connection = self.workers[worker]
        try:
            if not connection.poll(timeout):
                raise Failed(f"worker {worker} still works after {timeout} s")
            done, value = connection.recv()
        except BaseException:  # its state is unknown: no later test shall meet it
            process.kill()
            process.join()
            raise
        if not done:
            raise Failed(value)
        return value

    def call(self, worker: int, function: Callable[..., Any], *arguments: Any) -> Any:
        self.start(worker, function, *arguments)
        return self.result(worker)

    def results(self, workers: Any) -> list[Any]:
        """The results of jobs that several workers do, in the order of the workers given."""
        wanted = list(workers)
        found, failures = [], []
        for worker in wanted:
            try:
                found.append(self.result(worker, 10.0 if failures else TIMEOUT))
            except (Failed, EOFError, OSError) as error:
                failures.append(error)
        if failures:
            raise failures[0]
        return found

    def forget(self) -> None:
        """Let all workers drop what they keep."""
        for number, (process, _) in enumerate(self.workers):
            if process.is_alive():
                self.call(number, forget)

    def close(self) -> None:
        for process, connection in self.workers:
            if process.is_alive():
                connection.send((exit, ()))
        for process, connection in self.workers:
            connection.close()
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()
