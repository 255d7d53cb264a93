"""Rooms that most programs don't need: each is imported when it is first needed.

Lives here: that import, and what else no fork may divide.  Not here: which rooms those are (their callers say).

Invariant: each caller gets a room that is whole.  A signal handler may run in the middle of the import, in the same
thread, and need that very room: Python would give it what is there so far.  And no fork divides an import of another
thread: in the child the import would never end, and a caller that needs that room would wait for ever.

During an import no garbage is collected: all that an import makes stays, and to look for garbage took a fifth of the
engine's import.
"""

from __future__ import annotations

import contextlib
import gc
import sys

from tqshim.runtime import forks, locks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, TypeVar

    _T = TypeVar("_T")

__all__ = ["in_forkserver", "room", "undivided"]

_COUNTS_FROZEN: Final = hasattr(gc, "get_freeze_count")
_importing: Any = locks.RLock()
_paused = False
"""An import has paused the garbage collector."""


def room(name: str) -> Any:
    """Return a room of the package, after importing it if need be."""
    name = f"tqshim.{name}"
    found: Any = sys.modules.get(name)
    if found is not None and not getattr(found.__spec__, "_initializing", False):
        return found
    with _importing:
        _import(name)
        found = sys.modules[name]
        if getattr(found.__spec__, "_initializing", False):
            from importlib.util import module_from_spec

            found = module_from_spec(found.__spec__)  # a copy for this call, which nobody else sees
            found.__spec__.loader.exec_module(found)
        return found


def in_forkserver() -> bool:
    """Whether this is ``multiprocessing``'s fork server, which imports what each child would import otherwise (the
    program's main module, from 3.14 on, or what ``set_forkserver_preload`` names)."""
    frame: Any = sys._getframe() if "multiprocessing.forkserver" in sys.modules else None
    while frame is not None and frame.f_globals.get("__name__") != "multiprocessing.forkserver":
        frame = frame.f_back
    return frame is not None and frame.f_code.co_name != "_serve_one"  # a child runs that function


def undivided(function: Callable[[], _T]) -> _T:
    """Call the function and return its result.  No fork by another thread divides the call: the function may take a
    lock, which a child would find taken."""
    with _importing:
        return function()


def _import(name: str) -> None:
    global _paused
    collects = gc.isenabled()
    try:
        if collects:
            _paused = True
            gc.disable()
        try:
            __import__(name)
        except KeyError:  # of importlib, before Python 3.12: a handler that imports, too, has interrupted it
            __import__(name)
    finally:
        if collects:
            if _COUNTS_FROZEN and not gc.get_freeze_count():
                gc.freeze()  # New objects count as old: else the collector would look at all of them now.
                gc.unfreeze()
            gc.enable()
            _paused = False


def _release() -> None:
    with contextlib.suppress(RuntimeError):  # a signal handler's exception came before the lock was taken
        _importing.release()


def _begin_anew() -> None:
    global _importing
    _importing = locks.RLock()
    if _paused:  # forked in a signal handler, from which nothing may return to the import
        gc.enable()


forks.register(lambda: _importing.acquire(), _begin_anew, _release)
