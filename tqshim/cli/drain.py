"""``python -m tqshim drain``.

Lives here: items out, a line each.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import select
import stat
import sys
from collections.abc import Callable
from typing import Final, Optional

from tqshim import monitor
from tqshim.cli.showing import add_common, authkey, count, guarded, warn
from tqshim.runtime import systems

try:
    import fcntl
except ImportError:  # Windows has no queues to drain
    pass

__all__ = ["EXAMPLE", "SUMMARY", "add_arguments", "run"]

ONE_PAGE: Final = 4096
"""Bytes that a pipe holds at least."""
SUMMARY: Final = "Take all items out of a queue and print them, one line of JSON each."
EXAMPLE: Final = """\
  python -m tqshim drain jobs > items.jsonl              # items that JSON can say; another one ends it, and stays
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
    """Print the items.  Exit status: 0; 1 where items are damaged, or one is no JSON; 2 where it is no queue; 141 where
    nobody reads on: what nobody has read stays in the queue.  ``--json`` is what it does anyway."""
    encode: Callable[[bytes], str] = (
        monitor.as_pickle if options.pickle else functools.partial(monitor.as_json, lossy=options.lossy)
    )
    sys.stdout.flush()
    narrow = _narrow(sys.stdout.fileno())
    logging.getLogger("tqshim").addHandler(logging.NullHandler())  # what it warns of is said below, once
    try:
        done = monitor.drain(
            options.path, functools.partial(_write, narrow), most=options.number, encode=encode, authkey=authkey()
        )
    except monitor.NotJSONError as error:
        warn(options, f"{error}; --pickle prints any item, --lossy also what JSON changes")
        return 1
    for text in done.damaged:
        warn(options, f"lost: {text}")
    return 1 if done.damaged else 0


def _narrow(fd: int) -> Optional[select.poll]:
    """Let a pipe take nothing new before all that it holds is read, and return what tells when that is so.

    What a pipe holds is lost when its reader goes.  ``None``: it is no pipe, or the system can't."""
    if systems.SET_PIPE_SIZE is None or not stat.S_ISFIFO(os.fstat(fd).st_mode):
        return None
    try:
        fcntl.fcntl(fd, systems.SET_PIPE_SIZE, ONE_PAGE)
    except OSError:
        return None
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return poll


def _write(narrow: Optional[select.poll], line: str) -> None:
    """Print a line without a buffer, and wait until it is read: an item that nobody read must be known."""
    view = memoryview(line.encode() + b"\n")
    while view:
        view = view[os.write(sys.stdout.fileno(), view) :]
    if narrow is not None and not narrow.poll()[0][1] & select.POLLOUT:
        raise BrokenPipeError
