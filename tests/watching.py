"""Tell whether a process sleeps in a queue, and wait until one does: tests get their order from this, in any process.

Also here: a handle as another process has it, and the number of events in a journal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Callable

import tqshim
from tqshim.engine import tuning
from tqshim.engine.engine import Engine
from tqshim.engine.registry import Use
from tqshim.storage.folder import LogFolder
from tqshim.sync.cells import AWAITS_DONE, AWAITS_PLACE, SLEEPS

if TYPE_CHECKING:
    import pytest

__all__ = [
    "AWAITS_DONE",
    "AWAITS_PLACE",
    "SLEEPS",
    "asleep",
    "events_of",
    "newcomer",
    "no_naps",
    "sleep_on",
    "sleepers",
    "until",
    "until_asleep",
]

PATIENCE = 60.0


def sleepers(q: Any, kind: int = SLEEPS) -> int:
    """So many processes sleep for that: items, a place, or the end of all that was put."""
    engine = q._engine
    engine.qsize()  # where this process was forked its engine is its own from its first act on
    return len(engine.parts.members.sleepers(kind))


def asleep(q: Any, kind: int = SLEEPS) -> bool:
    """Somebody sleeps for that, in whatever process."""
    return sleepers(q, kind) > 0


def until(condition: Callable[[], Any]) -> None:
    """Wait until that is true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def until_asleep(q: Any, kind: int = SLEEPS, processes: int = 1, threads: int = 0) -> None:
    """Wait until so many processes sleep for that, and so many threads of this one."""
    waiting = q._engine.parts.waiter.waiting
    until(lambda: sleepers(q, kind) >= processes and len(waiting[kind]) >= threads)


NEVER = 1000.0


def no_naps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody of this process, or of its children forked from now on, looks by itself: who is not rung for sleeps on."""
    monkeypatch.setattr(tuning, "NAP", NEVER)
    monkeypatch.setattr(tuning, "NAP_LAST", NEVER)
    monkeypatch.setattr(tuning, "NAP_MOST", NEVER)


def sleep_on() -> None:
    """The same of a child's process, for good."""
    tuning.NAP = tuning.NAP_LAST = tuning.NAP_MOST = NEVER  # type: ignore[misc]


def newcomer(path: str) -> Any:
    """A handle of a queue as another process has it."""
    other: Any = tqshim.TurboQueue.__new__(tqshim.TurboQueue)
    other._attach(Use(Engine(LogFolder.meet(path))), None)
    return other


def events_of(queue: Any) -> int:
    """How many its journals have."""
    replica = queue._engine.parts.replica
    replica.sync()
    return int(replica.ledger.position.number)
