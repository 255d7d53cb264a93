"""Other processes that do with a queue what they are told, and looks that take part of a second."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection
from typing import Any, Callable

PATIENCE = 5.0
"""Seconds within which happens what takes milliseconds."""
AT_ONCE = 0.3
"""Seconds within which who is rung for goes on; who is not looks by itself later."""
END = "end as programs do"
TRIES = 3
"""On a busy machine even who is rung for may be late once."""


def _serve(connection: Connection, queues: tuple[Any, ...]) -> None:
    while True:
        try:
            which, name, arguments, options = connection.recv()
        except (EOFError, KeyboardInterrupt):
            os._exit(0)
        if name == END:
            return
        try:
            if callable(name):
                found = name(*queues, *arguments, **options)
            else:
                found = getattr(queues[which], name)(*arguments, **options)
            answer = True, found
        except BaseException as error:
            answer = False, error
        connection.send(answer)


class Other:
    """Another process, which has these queues."""

    def __init__(self, *queues: Any, method: str = "fork") -> None:
        context: Any = multiprocessing.get_context(method)
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, queues), daemon=True)
        self.process.start()
        theirs.close()

    def begin(self, do: Any, *arguments: Any, which: int = 0, **options: Any) -> Other:
        """Have it call that method of a queue, or that function with all of its queues first."""
        self.connection.send((which, do, arguments, options))
        return self

    def answer(self, patience: float = PATIENCE) -> Any:
        """What that has returned; what it has raised is raised here."""
        if not self.connection.poll(patience):
            raise AssertionError(f"no answer within {patience} s")
        good, found = self.connection.recv()
        if not good:
            raise found
        return found

    def do(self, do: Any, *arguments: Any, **options: Any) -> Any:
        """``begin``, and its ``answer``."""
        return self.begin(do, *arguments, **options).answer()

    def is_done(self) -> bool:
        """There is an answer."""
        return self.connection.poll(0)

    def signal(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def stop(self) -> None:
        """Stop it, wherever it is, and return when it has stopped."""
        self.signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid or 0, os.WSTOPPED)

    def go_on(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it, wherever it is, and return when it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.join()
        self.connection.close()

    def end(self) -> None:
        """Let it end as programs do, and return when it is gone."""
        self.begin(END)
        self.process.join(PATIENCE)
        assert self.process.exitcode == 0, f"it ends with {self.process.exitcode}"


def all_of(queue: Any) -> list[Any]:
    """All items that can be got now."""
    return taken(queue.get_nowait)


def taken(get: Callable[[], Any]) -> list[Any]:
    """What this returns, until there is nothing."""
    import queue

    import tqshim

    found = []
    while True:
        try:
            found.append(get())
        except (queue.Empty, tqshim.ShutDown):
            return found


def within(seconds: float, condition: Callable[[], Any]) -> bool:
    """This comes true within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def soon_enough(do: Callable[[], float]) -> None:
    """What this does takes no longer than to be rung for, once in a few tries."""
    took = []
    for _ in range(TRIES):
        took.append(do())
        if took[-1] < AT_ONCE:
            return
    raise AssertionError(f"took {took} s: nobody has rung")
