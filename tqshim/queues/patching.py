"""Our queues in the place of ``multiprocessing``'s, for programs that nobody edits.

Lives here: ``install`` and ``uninstall``.  Not here: running a program that way (``run``).

Only the code of three functions changes: ``BaseContext.Queue``, ``JoinableQueue`` and ``SimpleQueue``.  The functions
stay where they are, so every context and every name that was bound to one of them before leads here.  The classes
in ``multiprocessing.queues`` stay what they are: ``ProcessPoolExecutor`` and others derive from them.

Invariant: ``uninstall`` leaves ``multiprocessing`` as ``install`` found it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from multiprocessing import context, queues, spawn, util
from types import CodeType, TracebackType
from typing import Any, Final, Optional

__all__ = ["install", "uninstall"]


# These bodies run with the globals of multiprocessing.context: they import what they need, by its full name.


def _queue(self: Any, maxsize: int = 0) -> Any:
    from tqshim import Queue

    return Queue(maxsize, ctx=self.get_context())


def _joinable_queue(self: Any, maxsize: int = 0) -> Any:
    from tqshim.queues.family import JoinableQueue

    return JoinableQueue(maxsize, ctx=self.get_context())


def _simple_queue(self: Any) -> Any:
    from multiprocessing.queues import SimpleQueue

    from tqshim.queues.contexts import wants_a_pipe
    from tqshim.queues.family import SimpleQueue as Ours

    return (SimpleQueue if wants_a_pipe(1) else Ours)(ctx=self.get_context())


_OURS: Final = {"Queue": _queue, "JoinableQueue": _joinable_queue, "SimpleQueue": _simple_queue}
_former: Final[dict[str, CodeType]] = {}
"""The code that the standard library's functions had, while ours is installed."""
_get_preparation_data: Final = spawn.get_preparation_data

_HOME: Final = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_REINSTALL: Final = """
import sys
if "tqshim" not in sys.modules:
    import importlib.machinery, importlib.util
    spec = importlib.machinery.PathFinder.find_spec("tqshim", [home])
    if hasattr(spec.loader, "exec_module"):
        sys.modules["tqshim"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["tqshim"])
    else:  # from an archive, before 3.10
        spec.loader.load_module("tqshim")
import warnings
import tqshim.queues.patching
with warnings.catch_warnings():
    warnings.simplefilter("default")  # an error would end each child
    tqshim.queues.patching.install()
"""
"""Run by a child that does not inherit our memory, before it has its parent's ``sys.path``."""


class _Reinstall:
    """Installs our queues where it is unpickled: in a child, before the child imports the program's main module."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (_REINSTALL, {"home": _HOME})


def _preparation_data(name: str) -> dict[str, Any]:
    """Return what a child is told before anything else, which includes to install our queues."""
    data: dict[str, Any] = _get_preparation_data(name)
    data["tqshim"] = _Reinstall()
    return data


class _Installed:
    """What ``install`` returns; at the end of a ``with`` block things are as they were before."""

    def __init__(self, was: bool) -> None:
        self._was = was

    def __enter__(self) -> _Installed:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if not self._was:
            uninstall()


def install() -> _Installed:
    """Let ``multiprocessing.Queue``, ``JoinableQueue`` and ``SimpleQueue``, and those of each context, make our queues:
    in this process, and in every child that it starts by ``fork``, ``spawn`` or ``forkserver``.

    Usable as a context manager.  Pools and executors keep the standard library's.  Warns of what it does not reach:
    queues made before, and classes derived from ``multiprocessing.queues.Queue``.

    >>> with install():
    ...     type(multiprocessing.Queue()).__name__
    'TurboQueue'"""
    was = bool(_former)
    if not was:
        for finding in _out_of_reach():  # first: where warnings are errors nothing is installed
            warnings.warn(f"tqshim.install: {finding}", RuntimeWarning, stacklevel=2)
        for name, function in _OURS.items():
            theirs = getattr(context.BaseContext, name)
            _former[name] = theirs.__code__
            theirs.__code__ = function.__code__.replace(co_name=name)
        spawn.get_preparation_data = _preparation_data
    return _Installed(was)


def uninstall() -> None:
    """Undo ``install``: new queues are the standard library's again, earlier ones stay ours.

    >>> installed = install()
    >>> uninstall()
    >>> type(multiprocessing.Queue()).__name__
    'Queue'"""
    while _former:
        name, code = _former.popitem()
        getattr(context.BaseContext, name).__code__ = code
    if spawn.get_preparation_data is _preparation_data:
        spawn.get_preparation_data = _get_preparation_data


def _out_of_reach() -> Iterator[str]:
    made = [one for one in util._afterfork_registry.values() if type(one) in (queues.Queue, queues.JoinableQueue)]  # type: ignore[attr-defined]
    if made:
        yield f"queues made before stay multiprocessing's ({len(made)}); install before they are made"
    derived: list[Any] = [queues.Queue, queues.JoinableQueue, queues.SimpleQueue]
    while derived:
        for cls in derived.pop().__subclasses__():
            home = cls.__module__
            if home.startswith("tqshim."):
                continue
            derived.append(cls)
            if not home.startswith(("multiprocessing.", "concurrent.futures.")):
                yield f"{home}.{cls.__qualname__} derives from multiprocessing's queue; derive it from tqshim's"
