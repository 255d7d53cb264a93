"""``python -m tqshim fill``.

Lives here: items in, a line each.
"""

from __future__ import annotations

import argparse
import sys
from queue import Full
from typing import Final

from tqshim import ShutDown, monitor
from tqshim.cli.showing import add_common, authkey, count, guarded, print_json, say, seconds, warn

__all__ = ["EXAMPLE", "SUMMARY", "add_arguments", "run"]

SUMMARY: Final = "Put items into a queue, one for each line of JSON that is read."
EXAMPLE: Final = """\
  python -m tqshim fill jobs < items.jsonl               # the queue is made if it is not there
  python -m tqshim fill jobs --pickle < items.pickles    # what drain --pickle has printed
  python -m tqshim fill jobs --maxsize 100 --timeout 5 --json < items.jsonl    # gives up when full for 5 s"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_common(parser, "the queue's folder")
    parser.add_argument("--pickle", action="store_true", help="each line is an item's pickle as base64")
    parser.add_argument(
        "--maxsize",
        type=count,
        default=0,
        metavar="N",
        help="bound of the queue if it is made; a queue that is there must have it (default: unbounded if made)",
    )
    parser.add_argument(
        "--timeout", type=seconds, metavar="SECONDS", help="how long to wait for a place (default: for ever)"
    )


@guarded
def run(options: argparse.Namespace) -> int:
    """Put the items.  Exit status: 0; 1 where a line is no item, or there is no place or no space for its item: the
    items of the lines before it are in the queue; 2 where the path is no queue."""
    decode = monitor.from_pickle if options.pickle else monitor.from_json
    if sys.stdin is None:
        raise ValueError("standard input is closed")
    try:
        put = monitor.fill(
            options.path,
            getattr(sys.stdin, "buffer", sys.stdin),  # bytes: an error in UTF-8 is reported with its line
            decode=decode,
            maxsize=options.maxsize,
            timeout=options.timeout,
            authkey=authkey(),
        )
    except (monitor.LineError, Full, ShutDown) as error:
        warn(options, f"{error}; the lines before it are in the queue")
        return 1
    if options.json:
        print_json({"put": put})
    else:
        say(f"{put} items put")
    return 0
