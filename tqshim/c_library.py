"""Functions of the system's C library.

Lives here: how they are called.  ``ctypes`` takes 3 ms to import, most of it for what these calls do not need; what it
stands on, ``_ctypes``, takes a tenth of that.  Not here: what is called, and why (``mappings``, ``membarrier``).

Invariant: an interpreter without ``ctypes`` raises ``ImportError`` here, and nothing else.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["function", "memory"]

_known: dict[str, Any] = {}


def _kind(code: str) -> Any:
    """The C type that ``struct`` has that letter for."""
    found = _known.get(code)
    if found is None:
        from _ctypes import _SimpleCData

        found = _known[code] = type(code, (_SimpleCData,), {"_type_": code})
    return found


def function(name: str, result: str, arguments: str) -> Any:
    """A function, with the types of its result and of its arguments as letters of ``struct``'s."""
    import _ctypes

    library = _ctypes.dlopen(None, 2)  # type: ignore[arg-type]
    call = type("call", (_ctypes.CFuncPtr,), {"_flags_": _ctypes.FUNCFLAG_CDECL, "_restype_": _kind(result)})
    found: Any = call(_ctypes.dlsym(library, name))
    found.argtypes = tuple(_kind(code) for code in arguments)
    return found


def memory(address: int, size: int, kept: object) -> memoryview:
    """The bytes from there on.  ``kept``: what stays as long as a slice of them does."""
    array = (_kind("c") * size).from_address(address)
    array.kept = kept
    return memoryview(array).cast("B")
