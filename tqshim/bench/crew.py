"""The processes of one run.

Lives here: starting, awaiting and ending these processes.  Not here: what they do (``workloads``, ``workers``,
``paced``).

Invariant: a crew kills its processes before its run is over, whatever ends the run.  If the bench itself is killed, an
alarm ends each process, at the latest ``GRACE`` seconds after the limit, counted from the start of that process.  Each
sets its alarm before it does anything else; the alarm's default action needs no code to run.
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
"""A process ends itself so many seconds after the limit, counted from its own start."""

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that ask a process to end; the first is that of Ctrl-C."""


class RunError(Exception):
    """A run that gives no figure: items lost, doubled or out of order, a process dead or stuck."""


@dataclasses.dataclass(frozen=True)
class Member:
    """A process of a crew, and the end of the pipe on which the result of its function comes."""

    process: Any
    answer: Any


class Crew:
    """The processes of one run, or of a part of it.  At the end of the block those that still run are killed, and all
    are reaped."""

    def __init__(self, context: Any, limit: float) -> None:
        """``limit``: seconds from now, after which a process that has not finished counts as stuck."""
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
        """Run the function in a process of its own, made by ``context`` instead of the crew's if one is given."""
        context = context or self.context
        answer, sender = context.Pipe(duplex=False)
        process = context.Process(
            target=_answer, args=(sender, self.limit + GRACE, function, arguments), name=function.__name__
        )
        # An interrupt between the fork and the entry in the list of members would leave a process that nobody kills.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        try:
            process.start()
            member = Member(process, answer)
            self.members.append(member)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        sender.close()  # before the next fork: a copy of this end elsewhere would hide that this process has died
        return member

    def result(self, member: Member) -> Any:
        """Return what the member's function has returned.

        Raises ``RunError`` if the function raised, if its process died, or if it has not finished in time."""
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
        """Wait until the member's process has exited.  Raises ``RunError`` if it has not in time."""
        member.process.join(max(0.0, self.deadline - time.monotonic()))
        if member.process.is_alive():
            raise RunError(f"{member.process.name} has not exited within {self.limit:g} s")


def _answer(sender: Any, seconds: float, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    """Run the function and send back its result or its traceback."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    # Ctrl-C reaches all processes of a terminal: the bench takes it and ends the others.
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
    """Kill and reap every child that is left, but for ``others``, which are not the bench's.  Children are left where
    an interrupt has hit a crew that was being made or ended."""
    for process in multiprocessing.active_children():
        if process not in others:
            process.kill()
            process.join()
