"""Waiting: cells that are seen without a system call, bells that wake one sleeper, the barrier between the two.

Lives here: the layout of the cells, ringing and sleeping, who is thought to be asleep.  Not here: files being made
(``folder``), what one waits for (``engine``).

The cells are a mapped file of 8 KB pages, each with 64 slots' words of every kind, and words of the whole queue::

    words   0- 63   a consumer of the slot sleeps: until when, and how long it naps
           64-127   a producer of the slot sleeps, waiting for a place
          128-191   1 + the journal position from before a CLAIM, until its payload is read: pins batch files
          192-255   places of its reservation that a producer has used
          256-319   flag: somebody wants to know that
          320-383   first item of its lease that a consumer has not delivered
          384-447   flag: somebody wants to know that
          450       bumped at each publish, for a consumer that looks before it sleeps
          451       until when somebody looks
          452       when somebody last looked who has died, in monotonic microseconds
          512-575   one of the slot sleeps until all items are finished with
          576-639   a producer of the slot holds records back, whose puts have returned

Invariant: a word is written by its slot's member alone, flags and the words of the whole queue excepted; nobody relies
on a word alone to own an item: the journal decides.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import select
import time
from collections.abc import Callable
from typing import Final, Optional

from . import systems
from .clock import microseconds

__all__ = ["Bell", "Cells", "barrier", "barrier_works", "register_for_barrier"]

PAGE: Final = 8192
SLOTS: Final = 64
"""Slots of one page."""

SLEEPS: Final = 0
AWAITS_PLACE: Final = 64
POSITION: Final = 128
USED: Final = 192
USED_FLAG: Final = 256
LEASE_POSITION: Final = 320
LEASE_FLAG: Final = 384
PUBLISHED: Final = 450
LOOKS: Final = 451
SCANNED: Final = 452
AWAITS_DONE: Final = 512
HOLDS: Final = 576
KINDS: Final = (SLEEPS, AWAITS_PLACE, AWAITS_DONE)
"""What one can sleep for."""

_ZERO: Final = bytes(8 * SLOTS)
_NAP_UNIT: Final = 64
"""Microseconds: a nap is kept in 16 bits of such units."""


class Cells:
    """The mapped cells of one queue.  ``words`` is the array of 64-bit words; a store to it is one store."""

    __slots__ = ("_map", "pages", "slots", "words")

    def __init__(self, fd: int) -> None:
        """Map the cells file, whose descriptor is closed."""
        try:
            size = os.fstat(fd).st_size // PAGE * PAGE
            if size < PAGE:
                raise ValueError(f"cells of {size} bytes are cut short")
            self._map = mmap.mmap(fd, size)
        finally:
            os.close(fd)
        self.words = memoryview(self._map).cast("Q")
        self.pages = size // PAGE
        self.slots = self.pages * SLOTS

    @staticmethod
    def place(kind: int, slot: int) -> int:
        """The index in ``words`` of a slot's word."""
        return (slot // SLOTS) * (PAGE // 8) + kind + slot % SLOTS

    def anybody(self, kind: int) -> bool:
        """Some slot has a word of that kind set."""
        start = 8 * kind
        data = self._map[start : start + 512]
        if data != _ZERO:
            return True
        return self.pages > 1 and any(
            self._map[at : at + 512] != _ZERO for at in range(PAGE + start, PAGE * self.pages, PAGE)
        )

    def sleepers(self, kind: int) -> list[int]:
        """The microseconds at which those who are asleep will look by themselves; the dead and the stopped left out."""
        now = microseconds()
        found = []
        for page in range(self.pages):
            start = page * (PAGE // 8) + kind
            for word in filter(None, self.words[start : start + SLOTS]):
                until = word >> 16
                # Three naps late: dead or stopped, and no ring will reach it.
                if until + 3 * _NAP_UNIT * (word & 0xFFFF) + 2000 >= now:
                    found.append(until)
        return found

    def clear(self, slot: int) -> None:
        """Forget what a former member of the slot has left; how far its lease has got is kept for whoever ends that."""
        for kind in (SLEEPS, AWAITS_PLACE, POSITION, USED, USED_FLAG, AWAITS_DONE, HOLDS):
            self.words[self.place(kind, slot)] = 0

    def detach(self) -> None:
        """Let go of the shared memory: stores of a frame that a fork has copied raise ``ValueError``, or go nowhere."""
        self.words.release()
        self._map = mmap.mmap(-1, self.pages * PAGE)
        self.words = memoryview(self._map).cast("Q")

    def close(self) -> None:
        self.words.release()
        self._map.close()


def sleep_word(until: float, nap: float) -> int:
    """The word of a sleeper that will look by itself at ``until`` (monotonic seconds), napping for ``nap`` seconds."""
    return int(until * 1e6) << 16 | min(0xFFFF, int(nap * 1e6) // _NAP_UNIT + 1)


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
        if self._poll is not None:
            self._poll.close()
        os.close(self.fd)


_GLOBAL_EXPEDITED: Final = 1 << 1
_REGISTER: Final = 1 << 2
_works: Optional[bool] = None
_registered: set[int] = set()


@functools.lru_cache(None)
def _syscall() -> Callable[..., int]:
    import ctypes  # here: not every program needs it

    return functools.partial(ctypes.CDLL(None, use_errno=True).syscall, systems.MEMBARRIER)


def _membarrier(command: int) -> int:
    return _syscall()(command, 0, 0)


def barrier_works() -> bool:
    """This kernel can order another process's stores and loads from here; without that there are no grants."""
    global _works
    if _works is None:
        _works = False
        if systems.MEMBARRIER is not None:
            wanted = _GLOBAL_EXPEDITED | _REGISTER
            try:
                offered = _membarrier(0)
            except ImportError:  # an interpreter without ctypes
                offered = -1
            _works = offered > 0 and offered & wanted == wanted
    return _works


def register_for_barrier() -> None:
    """Let other processes' barriers reach this one: before its first grant, and again after a fork."""
    if os.getpid() not in _registered:
        _membarrier(_REGISTER)
        _registered.clear()
        _registered.add(os.getpid())


def barrier() -> None:
    """Every store that a registered process made before this is seen; every load that it makes after it sees ours."""
    try:
        done = _membarrier(_GLOBAL_EXPEDITED) == 0
    except (ImportError, KeyError):
        done = False
    if not done:
        # Not to be had here, though it was to the holder: by then its store buffer is long empty.
        time.sleep(0.05)
