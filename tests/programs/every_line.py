"""Interrupt a call at its lines inside the package, one line after another; count which items are left.

Usage: python -m programs.every_line get|put [durable] [authkey] [all]

With ``all`` the call is interrupted in each case, at each line, each time that it comes there; else at each line once
or twice, in cases chosen by ``TQSHIM_SEED``.  Prints how many interruptions there were.
"""

from __future__ import annotations

import faulthandler
import linecache
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from itertools import count, product
from types import FrameType
from typing import Any, Callable, Optional

import sampling
from interrupting import Interrupted, interrupt_at, word_of

from tqshim import TurboQueue

TIMES = 2
"""In so many cases each line is interrupted, if not in all of them; in one, if the handler may run behind it."""
HANGS = 100
"""Seconds after which a case, or a sample, hangs: it takes a few.  A watch for each call costs more than the call."""
ROOT = tempfile.TemporaryDirectory(dir=os.environ.get("TQSHIM_DIR"))


def make(maxsize: int) -> Any:
    """A new queue."""
    durable, authkey = "durable" in sys.argv, b"key" if "authkey" in sys.argv else None
    if durable or authkey:
        return TurboQueue(maxsize, path=tempfile.mkdtemp(dir=ROOT.name), durable=durable, authkey=authkey)
    return TurboQueue(maxsize)


class Line:
    """The ``at``-th line of a call, at which it is interrupted; notes the lines that it comes to."""

    def __init__(self, at: Optional[int]) -> None:
        self.at = at
        self.lines: list[tuple[str, int]] = []
        self.came = False
        """The call came to that line."""
        self.interrupted = False

    def interrupt(self, call: Callable[[], Any]) -> Any:
        """The call, and its value, if it was not interrupted."""
        found, self.came = interrupt_at(0 if self.at is None else self.at + 1, call, self._see)
        self.came = self.came and self.at is not None
        self.interrupted = found is Interrupted
        return found

    def _see(self, frame: FrameType) -> None:
        self.lines.append((frame.f_code.co_filename, frame.f_lineno))

    @property
    def where(self) -> Optional[str]:
        """Where that is."""
        if not self.came:
            return None
        name, line = self.lines[-1]
        return f"{os.path.basename(name)}:{line}: {linecache.getline(name, line).strip()}"


def drain(q: Any) -> list[int]:
    return [q.get(True, 10) for _ in range(q.qsize())]


def get(at: Optional[int], maxsize: int, waiting: int, method: str, is_member: bool) -> Line:
    """The get is interrupted there."""
    q = make(maxsize)
    q.put_many(list(range(waiting)))
    got = []
    if is_member:
        got.append(q.get())  # with a lease or not
    line = Line(at)
    value = line.interrupt(getattr(q, method))
    if not line.interrupted:
        got += value if isinstance(value, list) else [value]
    rest = drain(q)
    if got + rest != list(range(waiting)):
        raise AssertionError(f"{method} {maxsize} {waiting}, interrupted at {line.where}: then {got} and {rest}")
    return line


def put(at: Optional[int], maxsize: int, before: int, many: bool) -> Line:
    """The put is interrupted there."""
    q = make(maxsize)
    for number in range(before):
        q.put(number)
    new = [before, before + 1, before + 2] if many else [before]
    line = Line(at)
    line.interrupt(lambda: q.put_many(new) if many else q.put(new[0]))
    q.put("last")
    got = drain(q)
    whole = [*range(before), *new, "last"]
    allowed = [whole, [*range(before), "last"]] if line.interrupted else [whole]
    if got not in allowed:
        raise AssertionError(f"put {maxsize} {before} {many}, interrupted at {line.where}: then {got}")
    return line


CASES: dict[str, tuple[Callable[..., Line], list[Any]]] = {
    "get": (get, list(product((0, 5000), (3, 40), ("get", "get_many"), (False, True)))),
    "put": (put, list(product((0, 50, 5000), (0, 3, 20), (False, True)))),
}


def everywhere(act: Callable[..., Line], case: Any) -> Iterator[Line]:
    """At each line, until it comes to its end."""
    for at in count():
        line = act(at, *case)
        if not line.came:
            return
        yield line


def sample(act: Callable[..., Line], cases: list[Any]) -> Iterator[tuple[Any, int]]:
    """Cases, and how many-th of its lines: each line is there as often as it should."""
    found: dict[tuple[str, int], list[tuple[Any, int]]] = {}
    for case in cases:
        act(None, *case)  # imports what is imported when it is needed
        for at, line in enumerate(act(None, *case).lines):
            found.setdefault(line, []).append((case, at))
    choose: random.Random = sampling.chooser(" ".join(sys.argv[1:]))
    for line, places in found.items():
        times = 1 if word_of(*line) else TIMES
        yield from choose.sample(places, min(times, len(places)))


def main() -> int:
    act, cases = CASES[sys.argv[1]]
    total = 0
    if "all" in sys.argv:
        for case in cases:
            faulthandler.dump_traceback_later(HANGS, exit=True)
            total += sum(1 for _ in everywhere(act, case))
        return total
    faulthandler.dump_traceback_later(HANGS, exit=True)
    return sum(act(at, *case).came for case, at in sample(act, cases))


if __name__ == "__main__":
    print(main())
