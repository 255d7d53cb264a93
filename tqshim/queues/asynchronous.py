"""Waiting in an event loop: the loop's selector waits for a queue's bell, and no thread does.

Lives here: getting and putting in an event loop; what the waiters of one loop wait for, and which of them wake up.

Invariant: a waiter that wakes up finds what it waited for, or somebody was faster and it waits again; the wake-up of a
cancelled waiter goes to the next one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Optional
from weakref import WeakKeyDictionary

from tqshim.engine.registry import Engine
from tqshim.queues.queue import Empty, Full, TurboQueue
from tqshim.runtime import late
from tqshim.sync.cells import AWAITS_PLACE, SLEEPS

__all__ = ["get", "put"]


class _Watcher:
    """All waiters of one loop that wait for the same thing of the same queue."""

    def __init__(self, loop: asyncio.AbstractEventLoop, engine: Engine, kind: int) -> None:
        self._loop = loop
        self._engine = engine
        self._kind = kind
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._woken = 0
        """Waiters that were woken and have not run yet: the items or places that are there may be theirs."""
        self._owes = False
        """A waiter was cancelled, and the bell may have been rung for it."""
        self._naps = 0
        self._timer: Optional[asyncio.TimerHandle] = None
        self._bell: Any = None

    async def wait(self) -> None:
        future = self._loop.create_future()
        self._waiters.append(future)
        try:
            if self._bell is None:
                self._bell = self._engine.bell(self._kind)
                self._loop.add_reader(self._bell.fd, self._rung)
            if self._timer is None:
                self._look(False)
            await future
        except asyncio.CancelledError:
            self._owes = True
            if not future.cancelled():
                self._woken -= 1
                self.pass_on()
            elif future in self._waiters:
                self._waiters.remove(future)
            raise
        else:
            self._woken -= 1
        finally:
            if not self._waiters and not self._woken:
                self._stop()

    def pass_on(self) -> None:
        """Wake another waiter in the place of one that was woken."""
        self._look(True)

    def _rung(self) -> None:
        if self._bell.answer():
            self._naps = 0
            self._look(True)

    def _look_by_itself(self) -> None:
        self._naps += 1
        self._look(False)

    def _look(self, rung: bool) -> None:
        """Wake as many waiters as there are items or places."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._waiters:
            return
        wanted = self._woken + len(self._waiters)
        try:
            there, seconds = self._engine.watch(self._kind, self, wanted, self._naps, rung)
        except Exception as error:
            while self._waiters:
                future = self._waiters.popleft()
                if not future.done():
                    future.set_exception(error)
            return
        while self._waiters and self._woken < there:
            future = self._waiters.popleft()
            if not future.done():  # else its waiter was cancelled, and has not run yet
                future.set_result(None)
                self._woken += 1
        if self._waiters:
            self._timer = self._loop.call_later(seconds, self._look_by_itself)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._bell is not None:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._bell.fd)
            self._bell = None
            self._engine.unwatch(self._kind, self, self._owes)
        self._owes = False
        self._naps = 0
        _watchers[self._loop].pop((self._engine, self._kind), None)


_watchers: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[Engine, int], _Watcher]]] = WeakKeyDictionary()


async def get(queue: TurboQueue[Any]) -> Any:
    """See ``TurboQueue.get_async``."""
    woken = None
    while True:
        try:
            return _attempt(woken, Empty, queue.get_nowait)
        except Empty:
            pass
        woken = await _sleep(queue, SLEEPS)


async def put(queue: TurboQueue[Any], item: Any) -> None:
    """See ``TurboQueue.put_async``."""
    woken = None
    while True:
        try:
            _attempt(woken, Full, queue.put_nowait, item)
            return
        except Full:
            pass
        sharing = late.room("queues.sharing")
        if not sharing.has_room():
            await sharing.pause()
        else:
            woken = await _sleep(queue, AWAITS_PLACE)


def _attempt(woken: Optional[_Watcher], miss: type[Exception], do: Callable[..., Any], *arguments: Any) -> Any:
    """Get or put, without waiting.  If this raises anything but ``miss``, another waiter wakes in place of this one."""
    try:
        return do(*arguments)
    except BaseException as error:
        if woken is not None and not isinstance(error, miss):
            woken.pass_on()
        raise


async def _sleep(queue: TurboQueue[Any], kind: int) -> _Watcher:
    """Wait until there is something to get, or a place to put to.  Returns the watcher that has woken the caller."""
    engine = queue._open_engine()
    loop = asyncio.get_running_loop()
    watchers = _watchers.setdefault(loop, {})
    watcher = watchers.get((engine, kind))
    if watcher is None:
        watcher = watchers[engine, kind] = _Watcher(loop, engine, kind)
    await watcher.wait()
    return watcher
