"""Rooms that most programs don't need: each is imported when it is first needed.

Lives here: that import.  Not here: which rooms those are (whoever needs one).

Invariant: whoever asks gets a room that is whole.  A signal handler may run in the middle of the import, in the same
thread, and need that very room: Python would give it what is there so far.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["room"]


def room(name: str) -> Any:
    """That room of the package."""
    name = f"tqshim.{name}"
    __import__(name)
    found = sys.modules[name]
    spec = found.__spec__
    if spec is not None and spec.loader is not None and getattr(spec, "_initializing", False):
        from importlib.util import module_from_spec

        found = module_from_spec(spec)  # a copy for this call, which nobody else sees
        spec.loader.exec_module(found)
    return found
