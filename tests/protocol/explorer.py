"""The explorer of small models: every state that can be reached, breadth first; or, of larger ones, some.

Lives here: ``explore``, what it wants of a model, and what it finds.  Not here: the models (``logs_checker``,
``marks_checker``, ``wait_checker``).

Invariant: a violation is shown by one of the shortest ways to it.
"""

from __future__ import annotations

import gc
import random
from collections import deque
from collections.abc import Hashable, Iterator
from typing import Any, Final, NamedTuple, Optional, Protocol

FAULTS: Final = ("kill", "stop")
"""How the labels of steps begin that need not happen."""
GONE: Final = ("dead", "stopped", "left")
"""Where a process is that does nothing more."""


class Violation(Exception):
    """Something that must never be was reached."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(f"{kind}: {what}")
        self.kind = kind
        self.what = what


class Model(Protocol):
    """What ``explore`` explores."""

    def start(self) -> Hashable:
        """The first state."""

    def steps(self, state: Any) -> Iterator[tuple[str, Any]]:
        """Each step that can be made, with a label, and where it leads.  Raises ``Violation``."""

    def settled(self, state: Any) -> None:
        """Called where nothing moves any more.  Raises ``Violation`` if that is no good end."""

    def key(self, state: Any) -> Hashable:
        """What stands for this state and for others that differ in nothing but names: one of them is looked at."""


class Result(NamedTuple):
    """How many states there are; or the first violation, and the shortest way to it."""

    states: int
    kind: Optional[str] = None
    what: str = ""
    path: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.kind is None:
            return f"{self.states} states"
        return f"{self.kind}: {self.what}; after {len(self.path)} steps:\n  " + "\n  ".join(self.path)


def explore(model: Model, most: int = 6_000_000, choose: Optional[random.Random] = None) -> Result:
    """Every state that can be reached, breadth first, so that a violation is shown by one of the shortest ways.

    Where ``choose`` is given and there are more than ``most``, half as many more are looked at on random ways from the
    first state to ends."""
    collecting = gc.isenabled()
    gc.disable()  # Nothing here is garbage, and looking for some takes a third of the time.
    try:
        return _explore(model, most, choose)
    finally:
        if collecting:
            gc.enable()


def _explore(model: Model, most: int, choose: Optional[random.Random]) -> Result:
    first = model.start()
    key = model.key
    begin = hash(key(first))
    origin: dict[int, int] = {begin: begin}
    """Of each state that was seen, by its hash, the one it was reached from.  The states themselves would take three
    times the memory; that two of twenty million have one hash of 64 bits is as likely as one in 100,000.  No model
    may tell -1 from -2: Python gives them one hash."""
    waiting: deque[tuple[int, Any]] = deque([(begin, first)])
    while waiting:
        number, state = waiting.popleft()
        try:
            for _, following in _moves(model, state):
                found = hash(key(following))
                if found not in origin:
                    origin[found] = number
                    waiting.append((found, following))
        except Violation as violation:
            return Result(len(origin), violation.kind, violation.what, _path(model, origin, number))
        if len(origin) > most:
            if choose is not None:
                return _walk(model, most // 2, choose)
            raise AssertionError(f"more than {most} states: make the case smaller")
    return Result(len(origin))


def _path(model: Model, origin: dict[int, int], number: int) -> tuple[str, ...]:
    """The steps from the first state to that one."""
    numbers = [number]
    while origin[number] != number:
        number = origin[number]
        numbers.append(number)
    labels, state = [], model.start()
    for number in numbers[-2::-1]:
        label, state = next(step for step in model.steps(state) if hash(model.key(step[1])) == number)
        labels.append(label)
    return tuple(labels)


def _moves(model: Model, state: Any) -> Iterator[tuple[str, Any]]:
    """The steps that change something.  Raises ``Violation``, also where there is none and that is no good end."""
    moves = False
    for label, following in model.steps(state):
        if following != state:
            moves = moves or not label.startswith(FAULTS)
            yield label, following
    if not moves:
        model.settled(state)


def _walk(model: Model, most: int, choose: random.Random) -> Result:
    """So many states, or four times as many steps, on random ways, each up to an end."""
    known: dict[Any, list[tuple[str, Any]]] = {}
    state = first = model.start()
    path: list[str] = []
    for _ in range(4 * most):
        if len(known) > most:
            break
        try:
            moves = known[state] if state in known else list(_moves(model, state))
        except Violation as violation:
            return Result(len(known), violation.kind, violation.what, tuple(path))
        known[state] = moves
        if moves:
            label, state = choose.choice(moves)
            path.append(label)
        else:
            state, path = first, []
    return Result(len(known))
