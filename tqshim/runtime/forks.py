"""Hooks around forks.

Lives here: when they run.  The system knows them from the package's first import on: a hook that a program registers
after that runs in a child whose queues are its own already.  Not here: what they do (``engine``, ``batching``).

Invariant: hooks in a child run to their end.  An exception that a signal handler raises in a hook ends the hook, nobody
hears of it, and the child would go on as its parent: so the hooks may run again, from the first.
"""

from __future__ import annotations

import os
from collections.abc import Callable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Optional

__all__ = ["register"]

_before: Final[list[Callable[[], None]]] = []
_in_parent: Final[list[Callable[[], None]]] = []
_in_child: Final[list[Callable[[], None]]] = []
_TIMES: Final = 100


def register(
    before: Callable[[], None], in_child: Callable[[], None], in_parent: Callable[[], None] = lambda: None
) -> None:
    """Register hooks as ``os.register_at_fork`` does: the newest runs first before a fork, and last after it."""
    _before.insert(0, before)
    _in_parent.append(in_parent)
    _in_child.append(in_child)


def _run(hooks: list[Callable[[], None]]) -> None:
    """Run each hook once.  A hook may wait for another thread, which registers more meanwhile, in front of it, too."""
    run: list[Callable[[], None]] = []
    while True:
        left = [hook for hook in hooks if hook not in run]
        if not left:
            return
        run.append(left[0])
        left[0]()


def _run_in_child() -> None:
    interrupted: Optional[BaseException] = None
    for _ in range(_TIMES):
        try:
            _run(_in_child)
            break
        except BaseException as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted


if hasattr(os, "register_at_fork"):  # Windows has no fork
    # The handler of a signal that came during the fork runs where Python code runs next: in the first of these hooks.
    os.register_at_fork(after_in_child=lambda: None)
    os.register_at_fork(
        before=lambda: _run(_before), after_in_parent=lambda: _run(_in_parent), after_in_child=_run_in_child
    )
