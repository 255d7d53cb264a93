"""The other side of tests that drive a second process call by call."""

from __future__ import annotations

import pickle
from typing import Any

from tqshim.engine import tuning

from .crew import KEPT

ABSENT = object()


def outcome(thing: Any, method: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
    """What a call comes to: its value, or its exception's type."""
    try:
        return "value", getattr(thing, method)(*arguments)
    except Exception as error:
        return "raised", type(error).__name__


def configure(constants: dict[str, Any]) -> None:
    """Set constants of the engine in this process."""
    for name, value in constants.items():
        assert hasattr(tuning, name), name
        setattr(tuning, name, value)


def meet(q: Any) -> None:
    KEPT["queue"] = q


def act(method: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """One call, and then a look."""
    q = KEPT["queue"]
    return outcome(q, method, arguments), look(q)


def look(q: Any) -> tuple[int, bool, bool]:
    return q.qsize(), q.empty(), q.full()


def leave_and_return() -> None:
    """Close the only handle of this process, and come back with another."""
    pickled = pickle.dumps(KEPT["queue"])
    KEPT.pop("queue").close()
    KEPT["queue"] = pickle.loads(pickled)
