"""A back jump in a ``try`` or ``with`` belongs to that block: a signal handler may raise at the jump.

From CPython 3.12 on a ``while`` with a condition may end with a jump that no handler covers (its issue 130279): an
exception that is raised there leaves the block without ``except``, ``finally`` or ``__exit__``; then a lock stays
taken, or an item is lost.  ``while True`` with a ``break`` has no such jump."""

from __future__ import annotations

import dis
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import pytest

import tqshim

ROOMS = Path(tqshim.__file__).parent
NOT_HERE = {"bench", "cli", "kafka", "monitor"}
"""Commands of one process: what they hold ends with it."""


def each_code(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from each_code(constant)


def back_jumps_outside(code: types.CodeType) -> list[int]:
    """Lines of the loops in a block of this function that end with a jump which the block's handler does not cover."""
    table = dis._parse_exception_table(code)  # type: ignore[attr-defined]  # there is no public way
    steps = list(dis.get_instructions(code))
    at = {step.offset: number for number, step in enumerate(steps)}

    def handler(offset: int) -> Optional[int]:
        return next((entry.target for entry in table if entry.start <= offset < entry.end), None)

    def catches_all(start: int) -> bool:
        """Not for one kind of exception, which comes from what the block does and not from a jump."""
        begin, *then = steps[at[start] : at[start] + 3]
        if begin.opname != "PUSH_EXC_INFO":
            return False
        return then[1].opname != "CHECK_EXC_MATCH" or then[0].argval == "BaseException"

    found = []
    for number, step in enumerate(steps):
        if step.opname == "JUMP_BACKWARD" and steps[number - 1].opname != "CLEANUP_THROW":
            around = handler(step.argval)
            if around is not None and handler(step.offset) is None and catches_all(around):
                found.append(step.positions.lineno if step.positions and step.positions.lineno else code.co_firstlineno)
    return found


@pytest.mark.in_turn
@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.9 and 3.10 have no tables of handlers")
def test_no_back_jump_leaves_its_block() -> None:
    outside = []
    for path in sorted(ROOMS.rglob("*.py")):
        if not NOT_HERE.intersection(path.relative_to(ROOMS).parts):
            module = compile(path.read_text(), str(path), "exec", dont_inherit=True)
            for code in each_code(module):
                outside += [f"{path.relative_to(ROOMS)}:{line}" for line in back_jumps_outside(code)]
    assert not outside


LOOP = """
def loop(lock, work):
    with lock:
        while {condition}:
            work()
"""


@pytest.mark.skipif(sys.version_info[:2] not in ((3, 12), (3, 13)), reason="of what 3.12 and 3.13 make of such a loop")
def test_such_a_loop_is_found() -> None:
    def found(condition: str) -> list[int]:
        module = compile(LOOP.format(condition=condition), "loop", "exec")
        return [line for code in each_code(module) for line in back_jumps_outside(code)]

    assert found("work.more")
    assert not found("True")
