"""The processes of one run.

Lives here: starting, awaiting and ending them.  Not here: what they do (``workloads``).

Invariant: none outlives its run, whatever happens.  A crew kills its own; where the bench itself is killed, each is
ended by an alarm that it has set before its first act, whose default action needs no code to run.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import signal
import time
import traceback
from collections.abc import Callable, Collection
from typing import Any, Final

__all__ = ["ENDING", "Crew", "Member", "RunError", "end_all"]

GRACE: Final = 5.0
"""Seconds beyond the limit of its run after which a process ends itself."""

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that ask to end; the first is Ctrl-C."""


class RunError(Exception):
    """A run that gives no figure: items lost, doubled or out of order, a process dead or stuck."""


@dataclasses.dataclass(frozen=True)
class Member:
    """A process of a crew, and the end of the pipe on which the result of its function comes."""

    process: Any
    answer: Any


class Crew:
    """The processes of one run; at its end they are killed, if need be, and reaped."""

    def __init__(self, context: Any, limit: float) -> None:
        """``limit``: seconds after which a process that has not finished counts as stuck."""
        self.context = context
        self.limit = limit
        self.deadline = time.monotonic() + limit
        self.members: list[Member] = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            if member.process.is_alive():
                member.process.kill()
        for member in self.members:
            member.process.join()
            member.process.close()
            member.answer.close()

    def start(self, function: Callable[..., object], *arguments: object, context: Any = None) -> Member:
        """Run the function in a process of its own, of this crew's context or another."""
        context = context or self.context
        answer, sender = context.Pipe(duplex=False)
        process = context.Process(
            target=_answer, args=(sender, self.limit + GRACE, function, arguments), name=function.__name__
        )
        # An interrupt between the fork and the list of members would leave a process that nobody knows of.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        try:
            process.start()
            member = Member(process, answer)
            self.members.append(member)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        sender.close()  # before the next fork, or the end of this process could not be seen
        return member

    def result(self, member: Member) -> Any:
        """What the member's function returned.

        Raises ``RunError`` if it raised, if its process died, or if it has not finished in time."""
        name = member.process.name
        if not member.answer.poll(max(0.0, self.deadline - time.monotonic())):
            raise RunError(f"{name} has not finished within {self.limit:g} s")
        try:
            value, error = member.answer.recv()
        except EOFError:
            member.process.join(1)
            raise RunError(f"{name} died with exit code {member.process.exitcode}") from None
        if error:
            raise RunError(f"{name} raised\n{error}")
        return value

    def join(self, member: Member) -> None:
        """Wait until the member's process has left.  Raises ``RunError`` if it has not in time."""
        member.process.join(max(0.0, self.deadline - time.monotonic()))
        if member.process.is_alive():
            raise RunError(f"{member.process.name} has not exited within {self.limit:g} s")


def _answer(sender: Any, seconds: float, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    """Run the function and send back its result or its traceback."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    # Ctrl-C reaches all processes of a terminal: here it is the bench that ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in ENDING[1:]:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    try:
        value, error = function(*arguments), ""
    except BaseException:
        value, error = None, traceback.format_exc()
    sender.send((value, error))
    sender.close()


def end_all(others: Collection[Any]) -> None:
    """Kill and reap every child that is left, but for ``others``, which are not the bench's: an interrupt may have hit
    a crew while it was being made or ended."""
    for process in multiprocessing.active_children():
        if process not in others:
            process.kill()
            process.join()
