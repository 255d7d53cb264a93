"""Where our queues don't work (Windows): the standard library's, with ``put_many`` and ``get_many`` on top.

Lives here: what ``from tqshim import Queue`` gives there.  Not here: which systems those are (``errors``).

Invariant: each behaves as the standard library's queue in all that the latter has.  Other attributes of our queues are
missing, and raise ``AttributeError``, or ``UnsupportedError`` where a queue is to lie at a path.
"""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Iterable
from multiprocessing import context, queues
from queue import Empty, Full
from time import monotonic
from types import GenericAlias
from typing import TYPE_CHECKING, Any, ClassVar, Optional

from tqshim.errors import check_system

__all__ = ["FallbackJoinableQueue", "FallbackQueue", "FallbackSimpleQueue"]

GET_MANY = 1000
"""Items that ``get_many`` returns at most, if not told otherwise."""


class _Warned:
    once: ClassVar[bool] = False


def _warn() -> None:
    """Warn, once a process, that the queue is not the kind that the caller asked for."""
    if not _Warned.once:
        _Warned.once = True
        warnings.warn(
            "tqshim: no TurboQueue on this system: queues are multiprocessing's, with put_many, get_many",
            RuntimeWarning,
            stacklevel=3,
        )


class FallbackQueue(queues.Queue):  # type: ignore[type-arg]
    """``multiprocessing.Queue``, with ``put_many``, ``get_many`` and ``with``.

    Takes the arguments of ``TurboQueue``.  Raises ``UnsupportedError`` for a ``path``: only handles lead to it."""

    def __init__(
        self,
        maxsize: int = 0,
        *,
        ctx: Optional[context.BaseContext] = None,
        path: Any = None,
        batch_size: Optional[int] = None,
        durable: Optional[bool] = None,
        authkey: Optional[bytes] = None,
    ) -> None:
        if path is not None or durable or authkey is not None:
            check_system("a queue at a path", "make it without one, and hand handles on")
        _warn()
        super().__init__(maxsize, ctx=ctx or multiprocessing.get_context())

    def put_many(self, items: Iterable[Any], block: bool = True, timeout: Optional[float] = None) -> None:
        """Put items in their order, one by one.  If time runs out in between, ``Full`` says how many were put."""
        deadline = None if timeout is None else monotonic() + timeout
        items = list(items)
        for put, item in enumerate(items):
            try:
                self.put(item, block, None if deadline is None else max(0.0, deadline - monotonic()))
            except Full:
                raise Full(f"{put} of {len(items)} items were put") if put else Full from None

    def get_many(
        self, block: bool = True, timeout: Optional[float] = None, max_messages_to_get: int = GET_MANY
    ) -> list[Any]:
        """Take what is there, one item at least and ``max_messages_to_get`` at most; waits for the first only."""
        if max_messages_to_get < 1:
            raise ValueError(f"max_messages_to_get={max_messages_to_get} must be 1 or more")
        items = [self.get(block, timeout)]
        try:
            while len(items) < max_messages_to_get:
                items.append(self.get(False))
        except Empty:
            pass
        return items

    def put_many_nowait(self, items: Iterable[Any]) -> None:
        """``put_many`` without waiting."""
        self.put_many(items, False)

    def get_many_nowait(self, max_messages_to_get: int = GET_MANY) -> list[Any]:
        """``get_many`` without waiting."""
        return self.get_many(False, max_messages_to_get=max_messages_to_get)

    def __enter__(self) -> FallbackQueue:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.join_thread()

    if not TYPE_CHECKING:
        __class_getitem__ = classmethod(GenericAlias)  # the standard library's has it from 3.12 on


class FallbackJoinableQueue(FallbackQueue, queues.JoinableQueue):  # type: ignore[type-arg]
    """``multiprocessing.JoinableQueue``, with ``put_many``, ``get_many`` and ``with``."""


class FallbackSimpleQueue(queues.SimpleQueue):  # type: ignore[type-arg]
    """``multiprocessing.SimpleQueue``."""

    def __init__(self, *, ctx: Optional[context.BaseContext] = None) -> None:
        _warn()
        super().__init__(ctx=ctx or multiprocessing.get_context())

    if not TYPE_CHECKING:
        __class_getitem__ = classmethod(GenericAlias)
