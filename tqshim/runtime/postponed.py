"""Modules of others that our imports need and we don't: each is read when somebody asks it for something.

Lives here: the module that stands in its place until then.  Not here: rooms of ours that are imported when they are
needed (``late``).

Invariant: each name that a program asks such a module for is there, as if the module had been imported at once.
"""

from __future__ import annotations

import sys
from _frozen_importlib import _find_spec, module_from_spec  # type: ignore[attr-defined]
from types import ModuleType

from tqshim.runtime import late

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["postpone"]


class _Postponed(ModuleType):
    """A module that nobody has asked for anything yet."""

    def __getattr__(self, name: str) -> Any:
        late.undivided(self._read)
        return getattr(self, name)

    def __setattr__(self, name: str, value: object) -> None:
        late.undivided(self._read)  # else reading would overwrite the value
        setattr(self, name, value)

    def __delattr__(self, name: str) -> None:
        late.undivided(self._read)
        delattr(self, name)

    def __dir__(self) -> list[str]:
        late.undivided(self._read)
        return dir(self)

    def _read(self) -> None:
        if type(self) is not _Postponed:
            return  # another thread was faster
        spec = self.__spec__
        assert spec is not None and spec.loader is not None
        spec.loader.exec_module(self)
        ModuleType.__setattr__(self, "__class__", ModuleType)


def postpone(package: ModuleType, name: str) -> None:
    """Postpone the import of a module of the package until somebody asks it for something.  The import comes as ever
    where no such module is found, or where its loader imports in an older way."""
    full = f"{package.__name__}.{name}"
    spec = None if full in sys.modules else _find_spec(full, package.__path__)
    if spec is None or not hasattr(spec.loader, "exec_module"):
        return
    module = module_from_spec(spec)
    module.__class__ = _Postponed
    sys.modules[full] = module
    setattr(package, name, module)
