"""Rooms that most programs don't need: each is imported when it is first needed.

Lives here: that import.  Not here: which rooms those are (whoever needs one).

Invariant: whoever asks gets a room that is whole.  A signal handler may run in the middle of the import, in the same
thread, and need that very room: Python would give it what is there so far.  And no fork divides an import of another
thread: in the child it would never end, and who needs that room would wait for ever.
"""

from __future__ import annotations

import contextlib
import sys

from tqshim.runtime import forks, locks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["room"]

_importing: Any = locks.RLock()


def room(name: str) -> Any:
    """That room of the package."""
    name = f"tqshim.{name}"
    found: Any = sys.modules.get(name)
    if found is not None and not getattr(found.__spec__, "_initializing", False):
        return found
    with _importing:
        try:
            __import__(name)
        except KeyError:  # importlib's own, before Python 3.12: a handler has interrupted it that imports, too
            __import__(name)
        found = sys.modules[name]
        if getattr(found.__spec__, "_initializing", False):
            from importlib.util import module_from_spec

            found = module_from_spec(found.__spec__)  # a copy for this call, which nobody else sees
            found.__spec__.loader.exec_module(found)
        return found


def _release() -> None:
    with contextlib.suppress(RuntimeError):  # a signal handler's exception came before it was taken
        _importing.release()


def _begin_anew() -> None:
    global _importing
    _importing = locks.RLock()


forks.register(lambda: _importing.acquire(), _begin_anew, _release)
