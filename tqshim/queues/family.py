"""The other queues of ``multiprocessing``, over the same files and journal.

Lives here: ``JoinableTurboQueue`` and ``SimpleTurboQueue``, and which queues have the plain names on this system.  Not
here: what all queues share (``queues``).

Invariant: each queue is an instance of the standard library's class of its name, and behaves as that does.
"""

from __future__ import annotations

from multiprocessing import context, queues

from tqshim.errors import no_pipe, supported
from tqshim.queues.attributes import Hint
from tqshim.queues.queue import TurboQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from typing_extensions import TypeVar

    from tqshim.engine.registry import Use

    _T = TypeVar("_T", default=Any)
    _JoinableQueue = queues.JoinableQueue
    _SimpleQueue = queues.SimpleQueue
else:
    _T, Any, Optional = None, object, Hint
    _JoinableQueue, _SimpleQueue = {_T: queues.JoinableQueue}, {_T: queues.SimpleQueue}

__all__ = ["JoinableQueue", "JoinableTurboQueue", "Queue", "SimpleQueue", "SimpleTurboQueue"]


class JoinableTurboQueue(TurboQueue[_T], _JoinableQueue[_T]):  # type: ignore[misc]
    """``multiprocessing.JoinableQueue`` over batch files: a ``TurboQueue`` that waits until all items are done.

    Each item that was put counts until some process has called ``task_done`` for it.  The counts are the journal's, so
    a killed process takes none of them away, and adds none.

    >>> queue = JoinableTurboQueue()
    >>> queue.put("job")
    >>> item = queue.get()
    >>> queue.task_done()
    >>> queue.join(timeout=5)
    True"""

    def _attach(self, use: Use, batch_size: Optional[int]) -> None:
        super()._attach(use, batch_size)
        # Items can be counted off after close, too.
        self._counts = use

    def task_done(self) -> None:
        """One more item is done; of a durable queue, also after a power cut.  Raises ``ValueError`` if all were."""
        if not self._counts.engine.task_done():
            raise ValueError("task_done() called too many times")

    def join(self, *, timeout: Optional[float] = None) -> bool:  # type: ignore[override]
        """Wait until all items are done, for ``timeout`` seconds, for ever by default; whether they are."""
        return self._counts.engine.join(timeout)


class SimpleTurboQueue(_SimpleQueue[_T]):
    """``multiprocessing.SimpleQueue`` over batch files: ``put``, ``get``, ``empty`` and ``close``.

    ``ctx``: taken for compatibility; a handle goes through every start method.  ``put`` never waits for a reader.

    >>> queue = SimpleTurboQueue()
    >>> queue.put("a")
    >>> queue.get(), queue.empty()
    ('a', True)"""

    def __init__(self, *, ctx: Optional[context.BaseContext] = None) -> None:
        self._queue: Optional[TurboQueue[_T]] = TurboQueue(ctx=ctx)

    def __getattr__(self, name: str) -> Any:
        raise no_pipe(self, name)

    def _open(self) -> TurboQueue[_T]:
        if self._queue is None:
            raise OSError("handle is closed")
        return self._queue

    def get(self) -> _T:
        """Take the oldest item out of the queue, waiting for one.  Raises ``OSError`` for a closed handle."""
        return self._open().get()

    def put(self, obj: _T) -> None:
        """Put an item into the queue.  Raises ``OSError`` for a closed handle, and what pickling raises."""
        self._open().put(obj)

    def empty(self) -> bool:
        """Whether nothing can be got now.  Raises ``OSError`` for a closed handle."""
        return self._open().empty()

    def close(self) -> None:
        """This process is done with this handle."""
        if self._queue is not None:
            self._queue.close()
            self._queue = None

    def __copy__(self) -> SimpleTurboQueue[_T]:
        import copy  # here: the caller has it already

        other = self.__class__.__new__(self.__class__)
        other.__setstate__(tuple([copy.copy(one) if one is self._queue else one for one in self.__getstate__()]))
        return other

    def __getstate__(self) -> tuple[Any, ...]:  # type: ignore[override]
        return (self._open(),)

    def __setstate__(self, state: tuple[Any, ...]) -> None:  # type: ignore[override]
        (self._queue,) = state


if TYPE_CHECKING or supported:
    Queue = TurboQueue
    JoinableQueue = JoinableTurboQueue
    SimpleQueue = SimpleTurboQueue
else:
    from tqshim.queues.fallback import FallbackJoinableQueue as JoinableQueue
    from tqshim.queues.fallback import FallbackQueue as Queue
    from tqshim.queues.fallback import FallbackSimpleQueue as SimpleQueue
