"""Raise an exception at the first line of a call inside the package, at the second, and so on; count what is left.

Usage: python -m programs.every_line get|put [durable] [authkey]

Prints how many lines that were.  Lines at which no signal handler can run are left out: where a ``with`` begins or ends
the interpreter looks for signals only after it has entered or left it.
"""

from __future__ import annotations

import faulthandler
import linecache
import os
import sys
import tempfile
from types import FrameType
from typing import Any, Callable, Optional

import tqshim
from tqshim import TurboQueue

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
    """Raises once, at the line of that number."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.seen = 0
        self.where = ""

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Optional[Callable[..., Any]]:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
            if not line.startswith(LEFT_OUT):
                if self.seen == self.at:
                    self.where = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}: {line}"
                    self.seen += 1
                    sys.settrace(None)
                    raise Interrupt
                self.seen += 1
        return self


def interrupt(call: Callable[[], Any], at: int) -> tuple[Optional[str], Any]:
    """Where the call was interrupted, or ``None`` and its value."""
    tracer = Tracer(at)
    sys.settrace(tracer)
    try:
        value = call()
    except Interrupt:
        return tracer.where, None
    finally:
        sys.settrace(None)
    return None, value


def drain(q: Any) -> list[int]:
    return [q.get(True, 10) for _ in range(q.qsize())]


def gets(maxsize: int, waiting: int, method: str) -> int:
    """The get is interrupted at each of its lines."""
    at = 0
    while True:
        q = make(maxsize)
        q.put_many(list(range(waiting)))
        got = []
        if at % 2:
            got.append(q.get())  # not the first: the process is a member already, with a lease or not
        faulthandler.dump_traceback_later(20, exit=True)
        where, value = interrupt(lambda q=q: getattr(q, method)(), at)
        if where is None:
            got += value if isinstance(value, list) else [value]
        else:
            assert value is None
        rest = drain(q)
        faulthandler.cancel_dump_traceback_later()
        if got + rest != list(range(waiting)):
            raise AssertionError(f"{method} {maxsize} {waiting}, interrupted at {where}: then {got} and {rest}")
        if where is None:
            return at
        at += 1


def puts(maxsize: int, before: int, many: bool) -> int:
    """The put is interrupted at each of its lines."""
    at = 0
    while True:
        q = make(maxsize)
        for number in range(before):
            q.put(number)
        new = [before, before + 1, before + 2] if many else [before]
        faulthandler.dump_traceback_later(20, exit=True)
        where, _ = interrupt(lambda q=q, new=new: q.put_many(new) if many else q.put(new[0]), at)
        q.put("last")
        got = drain(q)
        faulthandler.cancel_dump_traceback_later()
        whole = [*range(before), *new, "last"]
        allowed = [whole] if where is None else [whole, [*range(before), "last"]]
        if got not in allowed:
            raise AssertionError(f"put {maxsize} {before} {many}, interrupted at {where}: then {got}")
        if where is None:
            return at
        at += 1


if __name__ == "__main__":
    total = 0
    if sys.argv[1] == "get":
        for maxsize in (0, 5000):
            for waiting in (3, 40):
                for method in ("get", "get_many"):
                    total += gets(maxsize, waiting, method)
    else:
        for maxsize in (0, 50, 5000):
            for before in (0, 3, 20):
                for many in (False, True):
                    total += puts(maxsize, before, many)
    print(total)
