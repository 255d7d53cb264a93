"""Interruptions at the package's lines.

Lives here: how a line is interrupted, and how lines are counted, so that tests interrupt each of them in turn.
"""

from __future__ import annotations

import linecache
import os
import re
import signal
import sys
from types import FrameType
from typing import Any, Callable

from contract.signalling import is_returning, signalled_now

import tqshim

__all__ = ["BLOCKS", "PACKAGE", "Interrupted", "interrupt", "interrupt_at", "is_inside", "word_of"]

PACKAGE = os.path.dirname(tqshim.__file__) + os.sep
SIGNAL = signal.SIGUSR1
BLOCKS = ("with", "while", "if", "for", "try", "except", "pass", "return", "continue", "break")
"""Before lines that begin so nothing is raised: no interpreter might do so there.  Where a ``with`` ends, say, that
would be behind its block, and its lock not given back yet; where an ``except`` is left, its exception would stay the
one that is being handled.  A signal comes, whose handler runs where the interpreter looks for signals next.  To an
``else`` or a ``finally`` none comes: there is nothing to do."""


class Interrupted(BaseException):
    """What handlers of tests raise: like ``KeyboardInterrupt``, no ``Exception``."""


def is_inside(frame: FrameType | None) -> bool:
    """It runs the package's code, or was called by such: what is raised just behind a call says nothing of it, nor on
    3.9 what is raised between a method's last try block and its return."""
    if frame is not None and is_returning(frame.f_code, frame.f_lasti):
        return False
    while frame is not None:
        if frame.f_code.co_filename.startswith(PACKAGE):
            return True
        frame = frame.f_back
    return False


def word_of(path: str, line: int) -> str:
    """With which of ``BLOCKS`` that line begins; empty: with none."""
    begin = re.match(r"\w*", linecache.getline(path, line).strip())
    return begin.group() if begin is not None and begin.group() in BLOCKS else ""


def interrupt(frame: FrameType, number: int) -> Any:
    """For a tracer, which returns what this returns: that signal's handler interrupts the line that it has come to."""
    if word_of(frame.f_code.co_filename, frame.f_lineno):
        return signalled_now(frame, number)
    sys.settrace(None)
    handler: Any = signal.getsignal(number)
    handler(number, frame)
    return None


def interrupt_at(line: int, act: Callable[[], Any], seen: Callable[[FrameType], None] = id) -> tuple[Any, bool]:
    """Do that, and interrupt it at that of the package's lines, counted from 1 as it comes to them.

    Returns what it returned, or ``Interrupted`` if it was; and whether it came to that line.  ``seen`` is called with
    each line that it has come to before, and with that one."""
    left = line

    def handle(_: int, frame: FrameType | None) -> None:
        if is_inside(frame):
            raise Interrupted

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            left -= 1
            seen(frame)
            if not left:
                return interrupt(frame, SIGNAL)
        return trace

    former, tracer = signal.signal(SIGNAL, handle), sys.gettrace()
    sys.settrace(trace)
    try:
        found = act()
    except Interrupted:
        found = Interrupted
    finally:
        sys.settrace(tracer)
        signal.signal(SIGNAL, former)
    return found, left <= 0
