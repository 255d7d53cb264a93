"""The queues: the contract of ``multiprocessing.Queue``, on an engine.

Lives here: signatures, exceptions, pickling of handles.  Not here: pickling of items (``pickling``), how items travel
(``engine``, which is imported with the first queue: so to import the package costs little).

Invariant: a program that keeps to the documented interface of ``multiprocessing.Queue`` sees the same here.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from math import ldexp
from multiprocessing import context, queues
from operator import index
from queue import Empty, Full
from types import GenericAlias

from tqshim.errors import no_pipe
from tqshim.queues import pickling
from tqshim.queues.attributes import Hint, overridable
from tqshim.queues.pickling import OF_MEMORY, dumps, dumps_many, is_fault, load, loads
from tqshim.runtime import late
from tqshim.runtime.clock import FOREVER, after, check_deadline, monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import PathLike
    from typing import Any, Final, Optional, Union

    from typing_extensions import TypeVar  # which checkers have; older interpreters know no default

    from tqshim.engine.reader import Taken
    from tqshim.engine.registry import Engine, Use
    from tqshim.protocol.figures import Stats
    from tqshim.queues.claims import Claim

    _T = TypeVar("_T", default=Any)
    _S = TypeVar("_S")
    _Queue = queues.Queue
else:
    # Item types are for checkers: nothing is imported for them at run time.  Before 3.12 a queue takes no type then.
    _T, Any, Optional, Union, PathLike, Claim, Stats = None, object, Hint, Hint, Hint, Hint, Hint
    _Queue = {_T: queues.Queue}

__all__ = ["Empty", "Full", "ShutDown", "TurboQueue"]

if sys.version_info >= (3, 13):
    from queue import ShutDown
else:

    class ShutDown(Exception):
        """The queue was shut down: nothing can be put, and nothing is there to get."""


GET_MANY: Final = 1000
"""Items that ``get_many`` returns at most, if not told otherwise."""


class TurboQueue(_Queue[_T]):
    """A first-in, first-out queue for processes and threads of one machine: ``multiprocessing.Queue`` over batch files.

    ``maxsize``: items that it holds at most; 0 or less: any number.
    ``ctx``: taken for compatibility; a handle goes through every start method.
    ``path``: a folder at which unrelated programs meet; it is made if it is not there, keeps its items when all have
    gone, and tells later comers its ``maxsize``.  Without it the queue lies in a folder of its own, which goes away
    with its last user.
    ``durable``: what ``put`` and ``put_many`` have put when they return survives a power cut; items that were got just
    before it may come back.  The process that makes the queue at ``path`` chooses, for all handles.  Each put waits for
    the disk twice; threads that put at the same time share that.
    ``authkey``: bytes that a process needs to open the queue at ``path``, the same as it was made with.  Each record
    carries an HMAC of its bytes and its place; a record that fails it is never unpickled, but set aside as damaged.  A
    pickled handle carries the authkey only to a child that is being started; where any other one arrives, the process
    has opened the queue already, or ``multiprocessing.current_process().authkey`` is tried.
    ``batch_size``: records of a batch file, at most; one number a process and queue, that of the newest handle.

    Raises ``FolderError`` for a folder that other users may read or write, ``UnsupportedError`` where no queue works,
    ``ValueError`` for a ``maxsize``, a ``durable`` or an ``authkey`` other than that of the queue at ``path``, and for
    ``durable=True`` or an ``authkey`` without one.

    What a put has put when it returns is in the queue, whatever becomes of its process.  A process that is killed loses
    what it was just getting: one item, or all of its ``get_many``.  It blocks no other process.

    >>> queue = TurboQueue(maxsize=100)
    >>> queue.put({"page": 1})
    >>> queue.get(timeout=5)
    {'page': 1}"""

    def __init__(
        self,
        maxsize: int = 0,
        *,
        ctx: Optional[context.BaseContext] = None,
        path: Union[str, bytes, PathLike[Any], None] = None,
        batch_size: Optional[int] = None,
        durable: Optional[bool] = None,
        authkey: Optional[bytes] = None,
    ) -> None:
        Use = late.room("engine.registry").Use
        if batch_size is not None and index(batch_size) < 1:
            raise ValueError(f"batch_size={batch_size} must be 1 or more")
        self._attach(Use.make(maxsize, path, durable, authkey), batch_size)

    _nothing = Empty, ShutDown
    """What is raised where there is nothing to get now, and where there will never be anything."""

    def __getattr__(self, name: str) -> Any:
        raise no_pipe(self, name)

    def _attach(self, use: Use, batch_size: Optional[int]) -> None:
        self._closed = False
        self._use: Optional[Use] = use
        engine = use.engine
        self._engine: Optional[Engine] = engine
        self._batch_size = batch_size
        engine.set_batch_size(batch_size)
        self._maxsize = engine.maxsize
        self._path = None if engine.folder.anonymous else engine.folder.path
        self._last_size = 0
        self._has_put = False

    def _open_engine(self) -> Engine:
        engine = self._engine
        if engine is None:
            raise ValueError(f"Queue {self!r} is closed")
        return engine

    # -- put and get

    def put(self, obj: _T, block: bool = True, timeout: Optional[float] = None) -> None:
        """Put an item into the queue; wait for a place for ``timeout`` seconds, for ever by default.

        Raises ``Full`` where there was none, ``ShutDown`` where the queue was shut down, ``ValueError`` where this
        handle was closed, and what pickling raises: at once and here, the queue goes on.  An item that takes
        descriptors of this process until it is got, as torch's tensors do, waits as for a place while few are left.

        >>> queue = TurboQueue(maxsize=1)
        >>> queue.put("a")
        >>> queue.put("b", timeout=0.01)
        Traceback (most recent call last):
        queue.Full"""
        engine = self._engine
        if engine is None:
            raise ValueError(f"Queue {self!r} is closed")
        if timeout is not None:
            timeout = ldexp(timeout, 0)  # raises for what is no number, also where there is a place
        if not block and engine.is_known_full():
            raise ShutDown if engine.shut else Full
        try:
            record = dumps(obj)
        except Exception as error:
            self._pickling_failed(error, obj)
            return
        if type(record) is bytes:
            try:
                total = engine.parts.producer.log.put(record)
            except ValueError:  # this process was forked just now, in a signal handler: it has another log
                total = 0
            if total < 0 or (total and engine.has_put(total)):
                return
        if not pickling.put([record], functools.partial(engine.put, record), block, timeout):
            raise ShutDown if engine.shut else Full

    def get(self, block: bool = True, timeout: Optional[float] = None) -> _T:
        """Take the oldest item out of the queue; wait for one for ``timeout`` seconds, for ever by default.

        Raises ``Empty`` where there was none, ``ShutDown`` where there will be none, ``ValueError`` where this handle
        was closed, and what unpickling raises: the item is gone then, all others arrive.

        >>> queue = TurboQueue()
        >>> queue.put("a")
        >>> queue.get(), queue.empty()
        ('a', True)"""
        engine = self._engine
        if engine is None:
            raise ValueError(f"Queue {self!r} is closed")
        if timeout is not None and not timeout < FOREVER and block:
            check_deadline(timeout)  # also where there is an item
        got: list[Taken] = []
        record: Optional[Taken] = None
        loading = contested = 0
        generation = -1
        try:
            for record, item, _, contested, awaited, lease in engine.parts.leasing.steps:  # the short way
                if contested:
                    generation = engine.generation
                    if not engine.confirm(item, lease, generation):
                        record, contested = None, 0
                        engine.parts.leasing.forget_lost(item, lease)
                        break
                    contested = 0
                if awaited:
                    generation = engine.generation
                    engine.ring_for_place()
                    if generation != engine.generation:  # forked just now: the item is the parent's
                        record = None
                        break
                loading = 1
                if queues._ForkingPickler.loads is not loads:  # type: ignore[attr-defined]
                    return load(record)  # type: ignore[no-any-return]
                return loads(record)  # type: ignore[no-any-return]  # no record of the short way stays in its file
            engine.get(got, 1, block, timeout)
            if got:
                loading, record = 1, got[0]
                return load(record)  # type: ignore[no-any-return]
        except BaseException as error:
            # Ctrl-C, or a signal handler's exception, before the item was returned: the next get returns it.
            if contested:
                generation = engine.generation if generation < 0 else generation
                got = [record] if record is not None and engine.confirm(item, lease, generation) else []
                engine.parts.leasing.forget_lost(item, lease)
            elif record is not None and generation in (-1, engine.generation):
                got = [record]
            if got and not (loading and is_fault(error)):
                engine.give_back(got)
            elif got:
                pickling.explain_loss(error, engine.folder.path)
            raise
        raise ShutDown if engine.over else Empty

    def put_nowait(self, obj: _T) -> None:
        """``put`` without waiting."""
        self.put(obj, False)

    def get_nowait(self) -> _T:
        """``get`` without waiting."""
        return self.get(False)

    def claimed(self, block: bool = True, timeout: Optional[float] = None) -> Claim[_T]:
        """``with q.claimed() as item``: take the oldest item, which counts as got when the block ends.

        If the block raises, or its process ends or is killed in it, the item comes back to the head, for the next
        ``get`` or block; others notice within seconds that a process was killed.  So each item is worked on at least
        once; ``redelivered`` of what this returns says how often the item had come back.

        What the block has put, into any queue, is there before its item counts as got.  Until then it keeps its place
        in a bounded queue, and does not count in ``qsize``.  While the queue is shut down and others are in blocks of
        ``claimed``, ``get`` waits for what may come back.  Raises what ``get`` raises, when the block begins; an item
        that fails to unpickle is gone.  Give ``task_done`` its place behind the block.

        >>> queue = TurboQueue()
        >>> queue.put("job")
        >>> with queue.claimed(timeout=5) as item:
        ...     print("working on", item)
        working on job"""
        claim: Claim[_T] = late.room("queues.claims").Claim(self, block, timeout)
        return claim

    def put_many(self, items: Iterable[_T], block: bool = True, timeout: Optional[float] = None) -> None:
        """Put items in their order, as one batch: all of them, or none and ``Full``.

        More than ``maxsize`` items go in pieces while it blocks, as do items with more descriptors than may wait; else
        they are refused.  ``Full``, ``ShutDown`` and ``OSError`` say how many were put, where it was some, but not all.

        >>> queue = TurboQueue()
        >>> queue.put_many(range(3))
        >>> queue.qsize()
        3"""
        engine = self._open_engine()
        left, before, more = iter(items), 0, True
        deadline = None if timeout is None else after(monotonic(), timeout)
        while more:
            records, more = dumps_many(left, self._pickling_failed, block)
            put = pickling.put(records, functools.partial(engine.put_many, records, before), block, timeout)
            if put < len(records):
                kind = ShutDown if engine.shut else Full
                raise kind(f"{before + put} of {before + len(records)} items were put") if before + put else kind
            before += put
            timeout = None if deadline is None else max(0.0, deadline - monotonic())

    def get_many(
        self, block: bool = True, timeout: Optional[float] = None, max_messages_to_get: int = GET_MANY
    ) -> list[_T]:
        """Take what is there, one item at least and ``max_messages_to_get`` at most; waits for the first only.

        Raises ``Empty`` or ``ShutDown`` where there was none.  If an item fails to unpickle, those before it are
        returned, and the next call raises.

        >>> queue = TurboQueue()
        >>> queue.put_many("abc")
        >>> queue.get_many(max_messages_to_get=2), queue.get_many()
        (['a', 'b'], ['c'])"""
        engine = self._open_engine()
        if max_messages_to_get < 1:
            raise ValueError(f"max_messages_to_get={max_messages_to_get} must be 1 or more")
        got: list[Taken] = []
        more: list[Taken] = []
        items: list[_T] = []
        plain: Optional[bool] = None
        try:
            generation, cut_short = engine.get(got, max_messages_to_get, block, timeout)
            while True:  # Not ``while`` a condition: its jump back may be outside of ``try`` (3.12 on).
                if not (got and cut_short and len(got) < max_messages_to_get):
                    break
                _, cut_short = engine.get(more, max_messages_to_get - len(got), False, None)
                if engine.generation != generation:  # forked just now: the first items are the parent's
                    generation, got = engine.generation, []
                    if not more:
                        _, cut_short = engine.get(more, max_messages_to_get, block, timeout)
                got, more = got + more, []
            # If an item fails, ``items`` has those before it: the failed one is the next.
            plain = queues._ForkingPickler.loads is loads and OF_MEMORY.issuperset(map(type, got))  # type: ignore[attr-defined]
            items.extend(map(loads if plain else load, got))  # type: ignore[arg-type]
            if items:  # Asked inside of ``try``: before 3.11 a signal handler may run at each jump.
                return items
        except BaseException as error:
            if plain is None or len(items) == len(got) or not is_fault(error):
                engine.give_back([*pickling.known(got, items), *more])
                raise
            engine.give_back(pickling.known(got[len(items) :], [], error)[not items :])
            if items:
                return items
            pickling.explain_loss(error, engine.folder.path)
            raise
        raise ShutDown if engine.over else Empty

    def put_many_nowait(self, items: Iterable[_T]) -> None:
        """``put_many`` without waiting."""
        self.put_many(items, False)

    def get_many_nowait(self, max_messages_to_get: int = GET_MANY) -> list[_T]:
        """``get_many`` without waiting."""
        return self.get_many(False, max_messages_to_get=max_messages_to_get)

    async def get_async(self) -> _T:
        """``get`` in an event loop, which waits for the queue as for a socket: no thread waits.

        Raises what ``get_nowait`` raises, but for ``Empty``.  If it is cancelled it has taken nothing.

        >>> queue = TurboQueue()
        >>> queue.put("a")
        >>> asyncio.run(queue.get_async())
        'a'"""
        item: _T = await late.room("queues.asynchronous").get(self)  # imported here: most programs do without asyncio
        return item

    async def put_async(self, obj: _T) -> None:
        """``put`` in an event loop.  Raises what ``put_nowait`` raises, but for ``Full``.

        If it is cancelled it has put nothing.

        >>> queue = TurboQueue()
        >>> asyncio.run(queue.put_async("a"))
        >>> queue.get()
        'a'"""
        await late.room("queues.asynchronous").put(self, obj)

    def __aiter__(self: _S) -> _S:
        return self

    async def __anext__(self) -> _T:
        try:
            return await self.get_async()
        except ShutDown:
            raise StopAsyncIteration

    def drain(self) -> Iterator[_T]:
        """Take and yield the items that are there now, one by one; what is not taken when it is left stays there.

        >>> queue = TurboQueue()
        >>> queue.put_many("abc")
        >>> list(queue.drain())
        ['a', 'b', 'c']"""
        for _ in range(self.qsize()):
            try:
                yield self.get_nowait()
            except (Empty, ShutDown):  # other consumers were faster
                return

    def _pickling_failed(self, error: Exception, obj: Any) -> None:
        if type(self)._on_queue_feeder_error is TurboQueue._on_queue_feeder_error:
            pickling.explain_failure(error, self._open_engine().folder.path, obj)
            raise error
        self._on_queue_feeder_error(error, obj)

    @staticmethod
    def _on_queue_feeder_error(e: Exception, obj: Any) -> None:
        """For subclasses that override it: called instead of raising when an item can't be pickled."""
        raise e

    # -- looking

    @functools.cached_property  # no property: a subclass may have a path of its own, and set it
    def path(self) -> Optional[str]:
        """The folder at which others find the queue; ``None`` for an anonymous one, which has handles alone."""
        return self._path

    def __repr__(self) -> str:
        if not hasattr(self, "_path"):  # a subclass has not called ``super().__init__`` yet
            return object.__repr__(self)
        place = "anonymous" if self._path is None else f"at {self._path!r}"
        try:
            told = f"items={self._engine.qsize()}, maxsize={self._maxsize}" if self._engine else "closed"
        except (OSError, ValueError) as error:  # its folder is gone or damaged: other calls say so
            told = type(error).__name__
        return f"<{type(self).__name__} {place}, {told}>"

    def qsize(self) -> int:
        """How many items can be got now: exact.  Of a closed handle: how many there were when it was closed."""
        return self._engine.qsize() if self._engine else self._last_size

    def empty(self) -> bool:
        """Whether nothing can be got now.  Raises ``OSError`` for a closed handle of a process that has put."""
        if self._engine:
            return not self._engine.qsize()
        if self._has_put:
            raise OSError(f"Queue {self!r} is closed")
        return not self._last_size

    def full(self) -> bool:
        """Whether nothing can be put now.  Of a closed handle: whether that was so when it was closed."""
        return self._engine.full() if self._engine else 0 < self._maxsize <= self._last_size

    def stats(self) -> Stats:
        """Figures for metrics, all of one moment: what was put, got, delivered again, set aside; what waits, and who.

        ``Stats`` says what each means.  The journal and the counters have them anyway, since the queue was made and for
        all processes: nothing is counted while nobody asks.  A call costs a look like ``qsize``, a step for each
        stretch of a log that waits, and a listing of the queue's folder.  Raises ``ValueError`` for a closed handle.

        >>> queue = TurboQueue()
        >>> queue.put_many("abc")
        >>> item = queue.get()
        >>> stats = queue.stats()
        >>> stats.put, stats.got, stats.items
        (3, 1, 2)"""
        return self._open_engine().stats()

    # -- ending

    @overridable
    def is_shutdown(self) -> bool:
        """Whether somebody has shut the queue down."""
        engine = self._engine
        return engine is not None and (engine.qsize(), engine.shut)[1]

    def shutdown(self, immediate: bool = False) -> None:
        """End the queue for everybody, as ``queue.Queue.shutdown`` does.

        From now on ``put`` raises ``ShutDown``, and so does ``get`` once nothing is left.  All who wait there wake up.

        ``immediate``: what is left is dropped, and counts as done for ``join``.  What puts return, in all processes,
        and what can be got agree exactly.  Raises ``ValueError`` for a closed handle.

        >>> queue = TurboQueue()
        >>> queue.put("last")
        >>> queue.shutdown()
        >>> queue.get(), queue.is_shutdown
        ('last', True)"""
        self._open_engine().shutdown(immediate)

    def close(self) -> None:
        """This process is done with this handle.  What it has put is there for others, whenever they come."""
        engine = self._engine
        if engine is not None:
            with suppress(OSError):  # a queue that can't be looked at any more can be closed
                self._last_size = engine.qsize()
            self._has_put = engine.is_producer
            self._engine = self._use = None
        self._closed = True

    def join_thread(self) -> None:
        """Nothing to wait for: no thread has a part in what was put.  Raises ``AssertionError`` before ``close``."""
        assert self._closed, f"Queue {self!r} not closed"

    def cancel_join_thread(self) -> None:
        """Nothing to cancel: a process that has put never waits for a reader when it exits."""

    def __enter__(self: _S) -> _S:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    if not TYPE_CHECKING:
        __class_getitem__ = classmethod(GenericAlias)

    # -- travelling

    def __getstate__(self) -> tuple[Any, ...]:  # type: ignore[override]
        engine = self._engine
        if engine is None:
            raise OSError(f"Queue {self!r} is closed")
        hold = marker = authkey = None
        if context.get_spawning_popen() is not None:
            hold = engine.hold_for_child()
            authkey = engine.key.authkey if engine.key is not None else None
        elif engine.folder.anonymous:
            marker = engine.mark()
        return engine.folder.path, hold, marker, self._batch_size, engine.key is not None, authkey

    def __setstate__(self, state: tuple[Any, ...]) -> None:  # type: ignore[override]
        Use = late.room("engine.registry").Use
        path, hold, marker, batch_size, keyed, authkey = state
        use = Use.meet(path, hold.detach if hold is not None else None, authkey, keyed)
        if marker is not None:
            use.engine.arrived(marker)
        self._attach(use, batch_size)
