"""Signals that come just before one instruction, and what CPython 3.9 makes of them."""

from __future__ import annotations

import ctypes
import opcode
import sys
import types
from typing import Any, Callable


def lost_in_return(error: BaseException, function: Any) -> bool:
    """A handler's exception has come between that function's try block and its return, as it may on CPython 3.9 alone:
    what was to be returned is lost then, as it is just behind the call, and no clause of the function sees it."""
    trace: Any = error.__traceback__
    while trace.tb_next.tb_next is not None:  # the last one is the handler's
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    return code is function.__code__ and is_returning(code, trace.tb_lasti)


def is_returning(code: types.CodeType, at: int) -> bool:
    """That instruction lies between a try block and its return, and a handler may run there: on CPython 3.9."""
    if sys.version_info >= (3, 10):
        return False
    return code.co_code[at : at + 3 : 2] == bytes([opcode.opmap["POP_BLOCK"], opcode.opmap["RETURN_VALUE"]])


class _Frame:
    """The frame that is traced, as an argument of ``raise``: the signal, where it is to come now; else none."""

    left = 0
    signal = 0

    @classmethod
    def from_param(cls, _: types.FrameType) -> Any:
        cls.left -= 1
        if cls.left:
            return ctypes.c_int(0)
        sys.settrace(None)
        return ctypes.c_int(cls.signal)


class _Ignored:
    @staticmethod
    def from_param(_: Any) -> Any:
        return ctypes.c_int(0)


def _comes(left: int, number: int) -> Any:
    """A tracer that sends the signal at the so-many-th of its events."""
    comes = ctypes.PyDLL(None)["raise"]
    comes.argtypes, comes.restype = [_Frame, _Ignored, _Ignored], None
    _Frame.left, _Frame.signal = left, number
    return comes


def signalled_now(frame: types.FrameType, number: int) -> Any:
    """What a tracer returns at an event of that frame for a signal to come before its next instruction, as below."""
    frame.f_trace_opcodes = True
    return _comes(1, number)


def signalled_before(instruction: int, where: Any, number: int, act: Callable[[], Any]) -> bool:
    """Call ``act``; a signal comes just before that instruction of that function, or of the code in that folder,
    counted over all calls, from C code: where its handler runs, the interpreter decides.  ``False``: there are not so
    many."""
    comes = _comes(instruction, number)

    def trace(frame: types.FrameType, *_: Any) -> Any:
        code = frame.f_code
        if not (code.co_filename.startswith(where) if type(where) is str else code is where.__code__):
            return None
        frame.f_trace = comes  # First: else there are no such events on 3.13.
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return comes

    former = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(former)
    return _Frame.left <= 0


def instructions(where: Any, act: Callable[[], Any]) -> int:
    """How many of those ``act`` comes to."""
    signalled_before(0, where, 0, act)
    return -_Frame.left
