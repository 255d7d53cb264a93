"""How the package's rooms are found and read: their names say where they lie.

For each module the import system asks in which of six forms it may lie there, and where its bytecode would be: this is
half of the time that finding and reading a module takes.  Here a room is the file of its name, or a package's
``__init__``, and its bytecode is the file beside it, if that fits.  The import system does the rest: other forms,
bytecode that is missing or does not fit.

Lives here: that search.  Not here: rooms that are imported when they are needed (``late``).

Invariant: what is found, and what a module says of itself, is what the import system would have found.
"""

from __future__ import annotations

import os
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER, FileFinder, SourceFileLoader
from _imp import _fix_co_filename  # type: ignore[attr-defined]
from io import open_code
from marshal import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType
    from typing import Final, Optional

__all__: list[str] = []

_HERE, _NAME = os.path.split(__file__)
_CACHE: Final = os.path.join(_HERE, "__pycache__", os.path.splitext(_NAME)[0])
_STORED: Final = (__spec__ and __spec__.cached) or ""
_ENDING: Final = _STORED[len(_CACHE) :] if _STORED.startswith(_CACHE) and os.sep == "/" else ""
"""The end of a bytecode file's name; empty where bytecode lies elsewhere, or nowhere, and on Windows."""
_HEADER: Final = 16
"""Bytes before the code: the interpreter's number, the kind of the rest, the source's time and length (PEP 552)."""


class _Room(SourceFileLoader):
    """Reads a room's bytecode, if that was compiled from the source as it is."""

    def __init__(self, fullname: str, path: str, bytecode: str, status: os.stat_result) -> None:
        super().__init__(fullname, path)
        self._bytecode = bytecode
        self._status = status

    def get_code(self, fullname: str) -> Optional[CodeType]:
        try:
            with open_code(self._bytecode) as file:
                data = file.read()
        except OSError:
            return super().get_code(fullname)
        source = (0, int(self._status.st_mtime), self._status.st_size)
        said = b"".join([(number & 0xFFFFFFFF).to_bytes(4, "little") for number in source])
        if data[:_HEADER] == MAGIC_NUMBER + said:
            code: CodeType = loads(memoryview(data)[_HEADER:])
            _fix_co_filename(code, self.path)  # it may have been compiled under another path
            return code
        return super().get_code(fullname)


class _Finder(FileFinder):
    """Finds the rooms of one folder."""

    def find_spec(self, fullname: str, target: Optional[ModuleType] = None) -> Optional[ModuleSpec]:
        name = fullname.rpartition(".")[2]
        spec = _spec(fullname, self.path, name)
        if spec is None:
            package = f"{self.path}/{name}"
            spec = _spec(fullname, package, "__init__")
            if spec is None:
                return super().find_spec(fullname, target)
            spec.submodule_search_locations = [package]
            _find_in(package)
        return spec


def _spec(fullname: str, folder: str, name: str) -> Optional[ModuleSpec]:
    path = f"{folder}/{name}.py"
    try:
        status = os.stat(path)
    except OSError:
        return None
    bytecode = f"{folder}/__pycache__/{name}{_ENDING}"
    spec = ModuleSpec(fullname, _Room(fullname, path, bytecode, status), origin=path)
    spec.has_location = True
    spec.cached = bytecode
    return spec


def _find_in(folder: str) -> None:
    sys.path_importer_cache[folder] = _Finder(folder, (SourceFileLoader, [".py"]))


if _ENDING:
    for _package in ("tqshim", "tqshim.runtime"):
        _path = sys.modules[_package].__path__[0]
        if type(sys.path_importer_cache.get(_path)) is FileFinder:
            _find_in(_path)
