"""Contexts like those of ``multiprocessing``, with our queues: for code that says ``context.Queue()``.

Lives here: ``get_context`` and its contexts.  Not here: changing ``multiprocessing`` itself (``patching``).

Invariant: all but the three queues is the standard library's.  Code that works on a queue's pipe gets a queue that has
one: a pool is made by the standard library's context, and an executor gets the standard library's simple queue.
"""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing import context, process, queues
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Optional, overload

from tqshim.queues import family

if TYPE_CHECKING:
    _Base = context.BaseContext
else:
    _Base = object

__all__ = ["get_context", "wants_a_pipe"]

_PIPE_USERS: Final = (("multiprocessing.pool", "Pool"), ("concurrent.futures.process", "ProcessPoolExecutor"))
"""Classes of the standard library that read and write the pipe of a ``SimpleQueue`` by themselves."""


def wants_a_pipe(depth: int) -> bool:
    """Whether the caller ``depth`` frames up is a method of a class that works on a simple queue's pipe."""
    caller = sys._getframe(depth + 1)
    owner = caller.f_locals.get("self")
    for module, name in _PIPE_USERS:
        loaded = sys.modules.get(module)
        if loaded is not None and isinstance(owner, getattr(loaded, name)):
            return True
    return False


class _Turbo(_Base):
    """What our contexts have in common."""

    if TYPE_CHECKING:
        Process: ClassVar[type[process.BaseProcess]]

    def Queue(self, maxsize: int = 0) -> family.Queue[Any]:
        """A ``TurboQueue``."""
        return family.Queue(maxsize, ctx=self)

    def JoinableQueue(self, maxsize: int = 0) -> family.JoinableQueue[Any]:
        """A ``JoinableTurboQueue``."""
        return family.JoinableQueue(maxsize, ctx=self)

    def SimpleQueue(self) -> queues.SimpleQueue[Any]:
        """A ``SimpleTurboQueue``; for an executor the standard library's queue: an executor waits for its pipe."""
        return queues.SimpleQueue(ctx=self) if wants_a_pipe(1) else family.SimpleQueue(ctx=self)

    def Pool(self, *arguments: Any, **options: Any) -> Any:
        """The standard library's pool, on the standard library's context."""
        return multiprocessing.get_context(self.get_start_method()).Pool(*arguments, **options)

    def get_context(self, method: Optional[str] = None) -> Any:
        """Return this context, or that of another start method.  Raises ``ValueError`` if there is no such method."""
        return self if method is None else get_context(method)


class TurboSpawnContext(_Turbo, context.SpawnContext):
    """``multiprocessing``'s context for ``spawn``, with our queues."""

    if TYPE_CHECKING:
        Process: ClassVar[type[context.SpawnProcess]]


_CONTEXTS: Final[dict[str, _Turbo]] = {"spawn": TurboSpawnContext()}

if TYPE_CHECKING or hasattr(context, "ForkContext"):  # not on Windows

    class TurboForkContext(_Turbo, context.ForkContext):
        """``multiprocessing``'s context for ``fork``, with our queues."""

        if TYPE_CHECKING:
            Process: ClassVar[type[context.ForkProcess]]

    class TurboForkServerContext(_Turbo, context.ForkServerContext):
        """``multiprocessing``'s context for ``forkserver``, with our queues."""

        if TYPE_CHECKING:
            Process: ClassVar[type[context.ForkServerProcess]]

    _CONTEXTS.update(fork=TurboForkContext(), forkserver=TurboForkServerContext())


@overload
def get_context(method: None = None) -> _Turbo: ...
@overload
def get_context(method: Literal["fork"]) -> TurboForkContext: ...
@overload
def get_context(method: Literal["spawn"]) -> TurboSpawnContext: ...
@overload
def get_context(method: Literal["forkserver"]) -> TurboForkServerContext: ...
@overload
def get_context(method: str) -> _Turbo: ...
def get_context(method: Optional[str] = None) -> _Turbo:
    """The context of a start method, the default one if none is named, as ``multiprocessing.get_context`` gives it, but
    with our queues.  Raises ``ValueError`` for a start method that there is not.

    >>> context = get_context("spawn")
    >>> type(context.Queue()).__name__
    'TurboQueue'"""
    return _CONTEXTS[multiprocessing.get_context(method).get_start_method()]
