"""Raise an exception at the lines of a call inside the package, one after another; count what is left.

Usage: python -m programs.every_line get|put [durable] [authkey] [all]

In each case, each line that it comes to, each time that it comes there, with ``all``; else each line twice, in cases
chosen by ``TQSHIM_SEED``.  Prints how many times that was.

Lines at which no signal handler can run are left out: where a ``with`` begins or ends the interpreter looks for signals
only after it has entered or left it.
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

import tqshim
from tqshim import TurboQueue

TIMES = 2
"""In so many cases each line is interrupted, if not in all of them."""
HANGS = 100
"""Seconds after which a case, or a sample, hangs: it takes a few.  A watch for each call costs more than the call."""
LEFT_OUT = ("with ", "while ", "if ", "for ", "try:", "except", "else", "finally", "pass", "return")
PACKAGE = os.path.dirname(tqshim.__file__)
ROOT = tempfile.TemporaryDirectory(dir=os.environ.get("TQSHIM_DIR"))


class Interrupt(BaseException):
    pass


def make(maxsize: int) -> Any:
    """A new queue."""
    durable, authkey = "durable" in sys.argv, b"key" if "authkey" in sys.argv else None
    if durable or authkey:
        return TurboQueue(maxsize, path=tempfile.mkdtemp(dir=ROOT.name), durable=durable, authkey=authkey)
    return TurboQueue(maxsize)


class Tracer:
    """Raises once, at the line that comes ``at``-th; notes the lines that it comes to."""

    def __init__(self, at: Optional[int]) -> None:
        self.at = at
        self.lines: list[tuple[str, int]] = []
        self.is_over = False

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Optional[Callable[..., Any]]:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line" and not self.is_over:
            at = frame.f_code.co_filename, frame.f_lineno
            if not linecache.getline(*at).lstrip().startswith(LEFT_OUT):
                self.lines.append(at)
                if self.at == len(self.lines) - 1:
                    self.is_over = True
                    sys.settrace(None)
                    raise Interrupt
        return self

    @property
    def where(self) -> Optional[str]:
        """Where it has raised."""
        if not self.is_over:
            return None
        name, line = self.lines[-1]
        return f"{os.path.basename(name)}:{line}: {linecache.getline(name, line).strip()}"


def interrupt(call: Callable[[], Any], at: Optional[int]) -> tuple[Tracer, Any]:
    """The call, and its value, if it was not interrupted."""
    tracer = Tracer(at)
    sys.settrace(tracer)
    try:
        return tracer, call()
    except Interrupt:
        return tracer, None
    finally:
        sys.settrace(None)


def drain(q: Any) -> list[int]:
    return [q.get(True, 10) for _ in range(q.qsize())]


def get(at: Optional[int], maxsize: int, waiting: int, method: str, is_member: bool) -> Tracer:
    """The get is interrupted there."""
    q = make(maxsize)
    q.put_many(list(range(waiting)))
    got = []
    if is_member:
        got.append(q.get())  # with a lease or not
    tracer, value = interrupt(lambda: getattr(q, method)(), at)
    if not tracer.is_over:
        got += value if isinstance(value, list) else [value]
    rest = drain(q)
    if got + rest != list(range(waiting)):
        raise AssertionError(f"{method} {maxsize} {waiting}, interrupted at {tracer.where}: then {got} and {rest}")
    return tracer


def put(at: Optional[int], maxsize: int, before: int, many: bool) -> Tracer:
    """The put is interrupted there."""
    q = make(maxsize)
    for number in range(before):
        q.put(number)
    new = [before, before + 1, before + 2] if many else [before]
    tracer, _ = interrupt(lambda: q.put_many(new) if many else q.put(new[0]), at)
    q.put("last")
    got = drain(q)
    whole = [*range(before), *new, "last"]
    allowed = [whole, [*range(before), "last"]] if tracer.is_over else [whole]
    if got not in allowed:
        raise AssertionError(f"put {maxsize} {before} {many}, interrupted at {tracer.where}: then {got}")
    return tracer


CASES: dict[str, tuple[Callable[..., Tracer], list[Any]]] = {
    "get": (get, list(product((0, 5000), (3, 40), ("get", "get_many"), (False, True)))),
    "put": (put, list(product((0, 50, 5000), (0, 3, 20), (False, True)))),
}


def everywhere(act: Callable[..., Tracer], case: Any) -> Iterator[Tracer]:
    """At each line, until it comes to its end."""
    for at in count():
        tracer = act(at, *case)
        if not tracer.is_over:
            return
        yield tracer


def sample(act: Callable[..., Tracer], cases: list[Any]) -> Iterator[tuple[Any, int]]:
    """Cases, and how many-th of its lines: each line is there as often as it should."""
    found: dict[tuple[str, int], list[tuple[Any, int]]] = {}
    for case in cases:
        act(None, *case)  # imports what is imported when it is needed
        for at, line in enumerate(act(None, *case).lines):
            found.setdefault(line, []).append((case, at))
    choose: random.Random = sampling.chooser(" ".join(sys.argv[1:]))
    for places in found.values():
        yield from choose.sample(places, min(TIMES, len(places)))


def main() -> int:
    act, cases = CASES[sys.argv[1]]
    total = 0
    if "all" in sys.argv:
        for case in cases:
            faulthandler.dump_traceback_later(HANGS, exit=True)
            total += sum(1 for _ in everywhere(act, case))
        return total
    faulthandler.dump_traceback_later(HANGS, exit=True)
    return sum(act(at, *case).is_over for case, at in sample(act, cases))


if __name__ == "__main__":
    print(main())
