"""Bells: FIFOs that wake sleepers.

Lives here: ringing, and sleeping until somebody rings.  Not here: files being made (``storage``), when to sleep
(``wait_policy``).

Invariant: a bell carries wake-ups, never data: one ring wakes one sleeper, or is there for the next.

gevent and eventlet take system calls away, or put others in their place that let other greenlets run meanwhile.  That
is right, except for one greenlet of a forked child: the one in which the fork was made.  While it slept in such a call,
copies of all the parent's greenlets would run in the child.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import sys
from posix import read, write  # eventlet's own would wait for the next ring

from tqshim.runtime import forks, systems
from tqshim.runtime.clock import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

__all__ = ["Bell", "pause"]

_FD_SETSIZE: Final = 1024
"""Descriptors that ``select`` can wait for are smaller."""
_forked_in: list[Any] = [None]
"""The greenlet in which this process was forked."""


def _current() -> Any:
    library = sys.modules.get("greenlet")
    return library.getcurrent() if library is not None else None


def _has_forked() -> None:
    _forked_in[0] = _current()


forks.register(lambda: None, _has_forked)


@functools.lru_cache(None)
def _untouched() -> Any:
    """``select``, as no library has patched it."""
    import importlib.util  # here: its import takes long

    spec = importlib.util.find_spec("select")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _system() -> Any:
    """``select``; as no library has patched it where no other greenlet may run while this one sleeps."""
    return _untouched() if _forked_in[0] is not None and _forked_in[0] is _current() else select


def pause(seconds: float) -> None:
    """Sleep so long, not by ``time.sleep``: a program's own in its place, that of a test, may do what it likes."""
    _system().select((), (), (), seconds)


class Bell:
    """A FIFO that carries wake-ups, never data: one ring wakes one sleeper."""

    __slots__ = ("_poll", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._poll: Any = None
        """An epoll that listens; several threads may sleep with it."""

    def ring(self) -> None:
        try:
            write(self.fd, b"!")
        except BlockingIOError:  # thousands of rings are under way already
            pass

    def sleep(self, seconds: float) -> bool:
        """Sleep until somebody rings, at most so long.  ``True``: a ring woke this sleeper."""
        system = _system()
        end = monotonic() + seconds
        exact = self.fd < _FD_SETSIZE
        # A call that counts in milliseconds ends late, by parts of one and of the whole: ``select`` waits for the rest.
        rough = seconds * 0.995 - 0.001 if exact else seconds
        rough = rough if rough > 0.0 else 0.0
        if systems.EPOLL and hasattr(system, "epoll"):  # gevent and eventlet take it away, eventlet ``poll``, too
            found = (self._poll or self._listen(system.epoll())).poll(rough)
        elif hasattr(system, "poll"):
            waiter = system.poll()
            waiter.register(self.fd, select.POLLIN)
            found = waiter.poll(max(0, int(rough * 1000 + 0.999)))
        else:
            own = os.dup(self.fd)  # eventlet lets no two wait for one descriptor
            try:
                found = system.select([own], (), (), max(0.0, seconds))[0]
            finally:
                os.close(own)
            exact = False
        if not found and exact:
            found = system.select([self.fd], (), (), max(0.0, end - monotonic()))[0]
        return bool(found) and self.answer()

    def _listen(self, poll: Any) -> Any:
        with contextlib.suppress(FileExistsError):  # a fork in a signal handler: the other was faster
            poll.register(self.fd, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        self._poll = poll  # Not before: other threads sleep with it.
        return poll

    def stand_last(self) -> None:
        """Be woken after all other processes that sleep now.

        The system goes through the processes always in the order in which they began to listen, and wakes the first
        that sleeps: a process that sleeps again at once would be woken each time, and the others never."""
        poll, self._poll = self._poll, None  # First: if what follows is interrupted, or fails, the next sleep listens.
        if poll is not None:
            with contextlib.suppress(OSError):  # there is no memory: the caller has an item in its hand
                poll.unregister(self.fd)
                self._listen(poll)  # Now: other threads may sleep on with it.

    def answer(self) -> bool:
        """Take one ring.  ``False``: there is none."""
        try:
            return bool(read(self.fd, 1))
        except BlockingIOError:  # somebody else was faster, or nobody rang
            return False

    def close(self) -> None:
        # First forget the number: a frame that still sleeps here, below a signal handler that has forked, must not read
        # from another file that has got it.
        fd, self.fd = self.fd, -1
        if self._poll is not None:
            self._poll.close()
        if fd >= 0:
            os.close(fd)
