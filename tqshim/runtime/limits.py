"""The limits that this process has.

Lives here: asking the standard library's ``resource`` for them.  Not here: what follows from them (``places``,
``sharing``).

Invariant: a program may have a module of its own called ``resource``, which is neither asked nor imported.
"""

from __future__ import annotations

import contextlib
import os
import sys
from _frozen_importlib import module_from_spec
from _frozen_importlib_external import PathFinder
from math import inf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

__all__ = ["soft_limit"]


def _limits() -> Any:
    """Return the standard library's ``resource``, if there is one.  It is looked for where extensions lie, and its name
    is left to the program."""
    found = sys.modules.get("resource")
    if hasattr(found, "getrlimit"):
        return found
    spec = PathFinder.find_spec("resource", [one for one in sys.path if os.path.basename(one) == "lib-dynload"])
    if spec is not None and spec.loader is not None:
        found = module_from_spec(spec)
        spec.loader.exec_module(found)
    else:
        with contextlib.suppress(ImportError):
            import resource as found
    return found if hasattr(found, "getrlimit") else None


_resource: Final = _limits()


def soft_limit(name: str) -> float:
    """Return this process's soft limit of that name of ``resource``; infinite if there is none, or nobody can say."""
    if _resource is None:
        return inf
    limit = _resource.getrlimit(getattr(_resource, name))[0]
    return inf if limit in (-1, _resource.RLIM_INFINITY) else limit
