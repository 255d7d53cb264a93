"""Bells: FIFOs that wake sleepers.

Lives here: ringing, and sleeping until somebody rings.  Not here: files being made (``storage``), when to sleep
(``wait_policy``).

Invariant: a bell carries wake-ups, never data: one ring wakes one sleeper, or is there for the next.
"""

from __future__ import annotations

import contextlib
import os
import select

from tqshim import systems

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

__all__ = ["Bell"]


class Bell:
    """A FIFO that carries wake-ups, never data: one ring wakes one sleeper."""

    __slots__ = ("_poll", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._poll: Optional[select.epoll] = None

    def ring(self) -> None:
        try:
            os.write(self.fd, b"!")
        except BlockingIOError:  # thousands of rings are under way already
            pass

    def sleep(self, seconds: float) -> bool:
        """Sleep until somebody rings, at most so long.  ``True``: this ring was ours."""
        if systems.EPOLL and hasattr(select, "epoll"):  # gevent and eventlet take it away, eventlet ``poll``, too
            if self._poll is None:
                self._poll = select.epoll()
                with contextlib.suppress(FileExistsError):  # a fork in a signal handler: the other was faster
                    self._poll.register(self.fd, select.EPOLLIN | select.EPOLLEXCLUSIVE)
            if not self._poll.poll(seconds):
                return False
        elif hasattr(select, "poll"):
            waiter = select.poll()
            waiter.register(self.fd, select.POLLIN)
            if not waiter.poll(max(0, int(seconds * 1000 + 0.999))):
                return False
        elif not select.select([self.fd], (), (), max(0.0, seconds))[0]:
            return False
        return self.answer()

    def answer(self) -> bool:
        """Take one ring.  ``False``: there is none."""
        try:
            return bool(os.read(self.fd, 1))
        except BlockingIOError:  # somebody else was faster, or nobody rang
            return False

    def close(self) -> None:
        # Forgotten first: who sleeps here still, below a signal handler that has forked, must not read from a file that
        # has got this number.
        fd, self.fd = self.fd, -1
        if self._poll is not None:
            self._poll.close()
        if fd >= 0:
            os.close(fd)
