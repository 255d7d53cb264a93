"""The kinds of queues that are measured, and how each is made and used.

Lives here: everything that differs between the kinds.  Not here: what is done with queues (``workloads``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any, Final, Optional

from tqshim.queues.queue import TurboQueue

__all__ = [
    "AT_PATH",
    "BATCH",
    "DURABLE",
    "FASTER_FIFO",
    "FILES",
    "KEYED",
    "KINDS",
    "PICKLE",
    "SIMPLE",
    "STDLIB",
    "TURBO",
    "Kind",
    "folder_of",
    "many",
    "queues",
    "usable",
]

BATCH: Final = 100
"""Items of a batch, as in faster-fifo's published comparison."""
FOREVER: Final = 3600.0
"""Seconds that stand for "for ever" where a queue's own default timeout is short."""
FASTER_FIFO_LEAST: Final = 100_000
"""The least size of a faster-fifo queue, in bytes: that of its published comparison."""

STDLIB: Final = "multiprocessing.Queue"
SIMPLE: Final = "SimpleQueue"
FASTER_FIFO: Final = "faster-fifo"
TURBO: Final = "TurboQueue"
PICKLE: Final = "pickle"
"""No queue: ``dumps`` and ``loads`` alone, the least that an item can cost."""
AT_PATH: Final = "at a path"
DURABLE: Final = "durable"
KEYED: Final = "with a key"
FILES: Final = "two files"
"""No queue: what each durable put does at least."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of queue and how it is used."""

    name: str
    module: str
    """The module that must be importable."""
    make: Callable[[Any, int, int], Any]
    """Makes a queue from a context, a bound or 0, and the bytes that an unbounded queue must hold."""
    batch: int = 1
    """1: ``put`` and ``get``; more: ``put_many`` and ``get_many`` of so many."""
    endless: Optional[float] = None
    """The timeout that stands for "wait for ever"."""
    rival: str = ""
    """The kind of faster-fifo that is used in the same way."""
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Further arguments that a queue at a path is made with."""


def many(name: str) -> str:
    """The name of a kind when it is used in batches."""
    return f"{name}/many"


def _make_stdlib(context: Any, bound: int, room: int) -> Any:
    return context.Queue(bound)


def _make_simple(context: Any, bound: int, room: int) -> Any:
    return context.SimpleQueue()


def _make_faster_fifo(context: Any, bound: int, room: int) -> Any:
    import faster_fifo  # type: ignore[import-untyped,import-not-found,unused-ignore]  # optional, without type hints

    # This argument is a size in bytes.  All the same the published comparison gives its bound, a number of items, here.
    return faster_fifo.Queue(bound or max(room, FASTER_FIFO_LEAST))


def _make_turbo(context: Any, bound: int, room: int) -> Any:
    return TurboQueue(bound, ctx=context)


def _make_nothing(context: Any, bound: int, room: int) -> Any:
    raise NotImplementedError("this is no queue, or one that lies at a path")


KINDS: Final[dict[str, Kind]] = {
    kind.name: kind
    for kind in (
        Kind(STDLIB, "multiprocessing", _make_stdlib),
        Kind(SIMPLE, "multiprocessing", _make_simple),
        Kind(FASTER_FIFO, "faster_fifo", _make_faster_fifo, endless=FOREVER),
        Kind(TURBO, "tqshim", _make_turbo, rival=FASTER_FIFO),
        Kind(many(FASTER_FIFO), "faster_fifo", _make_faster_fifo, batch=BATCH, endless=FOREVER),
        Kind(many(TURBO), "tqshim", _make_turbo, batch=BATCH, rival=many(FASTER_FIFO)),
        Kind(PICKLE, "pickle", _make_nothing),
        Kind(AT_PATH, "tqshim", _make_nothing),
        Kind(DURABLE, "tqshim", _make_nothing, options={"durable": True}),
        Kind(KEYED, "tqshim", _make_nothing, options={"authkey": bytes(range(32))}),
        Kind(FILES, "tqshim", _make_nothing),
    )
}


def usable(kind: Kind) -> bool:
    """Whether the kind's module is installed."""
    return importlib.util.find_spec(kind.module) is not None


def folder_of(queue: Any) -> Optional[str]:
    """Return the folder in which a queue's items lie; ``None`` for a queue that has no folder."""
    return queue._engine.folder.path if isinstance(queue, TurboQueue) and queue._engine else None


@contextlib.contextmanager
def queues(kind: Kind, context: Any, count: int, *, bound: int = 0, room: int = 0) -> Iterator[list[Any]]:
    """Make ``count`` queues and close them in the end."""
    made: list[Any] = []
    try:
        for _ in range(count):
            made.append(kind.make(context, bound, room))
        yield made
    finally:
        for queue in made:
            queue.close()
