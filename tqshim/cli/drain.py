"""``python -m tqshim drain``.

Lives here: items out, a line each.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import os
import select
import stat
import sys
import time
from collections.abc import Callable
from typing import Final, Optional

from tqshim import monitor
from tqshim.cli.showing import add_common, authkey, count, guarded, warn
from tqshim.runtime import systems

try:
    import fcntl
    import termios
except ImportError:  # Windows has no queues to drain
    pass

__all__ = ["EXAMPLE", "SUMMARY", "add_arguments", "run"]

ONE_PAGE: Final = 4096
"""Bytes that a pipe holds at least."""
FIRST_NAP: Final = 20e-6
LAST_NAP: Final = 5e-3
"""Seconds between two checks whether a pipe is empty: each nap is twice as long as the one before, up to this."""
SUMMARY: Final = "Take all items out of a queue and print them, one line of JSON each."
EXAMPLE: Final = """\
  python -m tqshim drain jobs > items.jsonl              # ends at an item that JSON can't say; that item stays
  python -m tqshim drain jobs --pickle > items.pickles   # any items, as base64, without unpickling them
  python -m tqshim drain jobs -n 10 --lossy              # ten; tuples become lists"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_common(parser, "the queue's folder")
    parser.add_argument("-n", "--number", type=count, metavar="N", help="so many items (default: all that are there)")
    parser.add_argument("--pickle", action="store_true", help="each item's pickle as base64, for fill --pickle")
    parser.add_argument("--lossy", action="store_true", help="also items that JSON changes, such as tuples")


@guarded
def run(options: argparse.Namespace) -> int:
    """Print the items.  Exit status: 0; 1 where items are damaged, or one is no JSON; 2 where the path is no queue; 141
    where nobody reads on: items that nobody has read stay in the queue.  ``--json`` changes nothing."""
    encode: Callable[[bytes], str] = (
        monitor.as_pickle if options.pickle else functools.partial(monitor.as_json, lossy=options.lossy)
    )
    sys.stdout.flush()
    fd = sys.stdout.fileno()
    pipe = _Pipe(fd) if stat.S_ISFIFO(os.fstat(fd).st_mode) else None
    logging.getLogger("tqshim").addHandler(logging.NullHandler())  # the loss of items is printed below, once
    try:
        done = monitor.drain(
            options.path, functools.partial(_write, fd, pipe), most=options.number, encode=encode, authkey=authkey()
        )
    except monitor.NotJSONError as error:
        warn(options, f"{error}; --pickle prints any item, --lossy also what JSON changes")
        return 1
    for text in done.damaged:
        warn(options, f"lost: {text}")
    return 1 if done.damaged else 0


class _Pipe:
    """A pipe that this process writes to.  The bytes that it holds are lost when its reader goes."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.poll = select.poll()
        self.narrow = False
        """The pipe has room only when it is empty: so the system tells when all is read."""
        self._make_narrow()

    def _make_narrow(self) -> None:
        """Give the pipe room for one page only.  Not every system can, and it refuses while the pipe holds more."""
        if systems.SET_PIPE_SIZE is not None:
            with contextlib.suppress(OSError):
                fcntl.fcntl(self.fd, systems.SET_PIPE_SIZE, ONE_PAGE)
                self.narrow = True
        self.poll.register(self.fd, select.POLLOUT if self.narrow else 0)

    def wait(self) -> None:
        """Wait until all that the pipe holds is read.  Raises ``BrokenPipeError`` where nobody reads on."""
        if self.narrow:
            if not self.poll.poll()[0][1] & select.POLLOUT:
                raise BrokenPipeError
            return
        nap = FIRST_NAP
        while True:
            gone = bool(self.poll.poll(0))  # before _held: if the reader has gone, nobody reads what the pipe holds
            if gone and systems.PIPES_FORGET:  # even if all was read: nothing is lost, an item may be printed twice
                raise BrokenPipeError
            if not self._held():
                break
            if gone:
                raise BrokenPipeError
            time.sleep(nap)
            nap = min(2 * nap, LAST_NAP)
        self._make_narrow()

    def _held(self) -> int:
        """Return how many bytes in the pipe nobody has read; macOS reports them as the file's size."""
        told = fcntl.ioctl(self.fd, termios.FIONREAD, bytes(4))
        return int.from_bytes(told, sys.byteorder) or os.fstat(self.fd).st_size


def _write(fd: int, pipe: Optional[_Pipe], line: str) -> None:
    """Print a line without a buffer, and wait until it is read: we must know whether somebody has read the item."""
    view = memoryview(line.encode() + b"\n")
    while view:
        view = view[os.write(fd, view) :]
    if pipe is not None:
        pipe.wait()
